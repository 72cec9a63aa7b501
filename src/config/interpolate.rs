//! `${VAR}`, `${VAR:-default}` and `${file:PATH}` in strings, expanded after the file was parsed: a value can never
//! become syntax. `$${` stands for a plain `${`.

use super::diagnostics::Mistake;

/// Where names are looked up: the environment, or a table in a test.
pub(super) type Variables<'e> = &'e dyn Fn(&str) -> Option<String>;

/// `text` with every placeholder replaced; `None` when there is none.
///
/// # Errors
/// The placeholder that could not be replaced (as written), and why.
pub(super) fn expand(text: &str, variables: Variables<'_>) -> Result<Option<String>, (String, Mistake)> {
    if !text.contains("${") {
        return Ok(None);
    }
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        if let Some(before) = before.strip_suffix('$') {
            expanded.push_str(before);
            expanded.push_str("${");
            rest = after;
            continue;
        }
        expanded.push_str(before);
        let Some((name, after)) = after.split_once('}') else {
            let mistake = Mistake::new("`${` is never closed").hint("write `$${` for a plain `${`");
            return Err((format!("${{{after}"), mistake));
        };
        let value = value_of(name, variables).map_err(|mistake| (format!("${{{name}}}"), mistake))?;
        expanded.push_str(&value);
        rest = after;
    }
    expanded.push_str(rest);
    Ok(Some(expanded))
}

fn value_of(inner: &str, variables: Variables<'_>) -> Result<String, Mistake> {
    if let Some(path) = inner.strip_prefix("file:") {
        let read = std::fs::read_to_string(path);
        // Secrets are mounted as files that editors and `echo` end with a line break; it is never part of the secret.
        return read
            .map(|text| text.trim_end_matches(['\r', '\n']).to_owned())
            .map_err(|error| Mistake::new(format!("{path} cannot be read: {error}")));
    }
    let (name, default) = match inner.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inner, None),
    };
    let is_name = !name.is_empty()
        && !name.starts_with(|first: char| first.is_ascii_digit())
        && name.bytes().all(|byte| byte == b'_' || byte.is_ascii_alphanumeric());
    if !is_name {
        return Err(Mistake::new(format!("`{name}` is not the name of a variable"))
            .hint("possible here: ${VAR}, ${VAR:-default}, ${file:PATH}; write `$${` for a plain `${`"));
    }
    // As in a shell, `:-` also stands in for a variable that is set but empty.
    match (variables(name), default) {
        (Some(value), None) => Ok(value),
        (Some(value), Some(_)) if !value.is_empty() => Ok(value),
        (_, Some(default)) => Ok(default.to_owned()),
        (None, None) => Err(Mistake::new(format!("the environment variable {name} is not set"))
            .hint(format!("set it, or give a default: ${{{name}:-…}}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<Option<&str>, &str>) {
        let variables = |name: &str| match name {
            "HOST" => Some("erp".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        match (expand(text, &variables), expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found.as_deref(), expected, "{text}"),
            (Err((placeholder, mistake)), Err(part)) => {
                assert!(text.contains(&placeholder), "{placeholder}");
                assert!(mistake.message.contains(part), "{text}: {}", mistake.message);
            }
            (other, _) => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn variables_defaults_and_files_are_put_in() {
        check("plain $ and {}", Ok(None));
        check("http://${HOST}:80", Ok(Some("http://erp:80")));
        check("${HOST}${HOST}", Ok(Some("erperp")));
        check("${NONE:-x}${EMPTY:-y}${EMPTY}", Ok(Some("xy")));
        check("${NONE:-}", Ok(Some("")));
        check("$${HOST} ${HOST}", Ok(Some("${HOST} erp")));
    }

    #[test]
    fn what_cannot_be_put_in_is_named() {
        check("a ${NONE} b", Err("NONE is not set"));
        check("a ${HOST", Err("never closed"));
        check("${}", Err("not the name"));
        check("${a b}", Err("not the name"));
        check("${1A}", Err("not the name"));
        check("${file:/no/such}", Err("/no/such cannot be read"));
    }

    #[test]
    fn the_line_break_at_the_end_of_a_file_is_no_part_of_the_secret() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "top secret\r\n").unwrap();
        let text = format!("Bearer ${{file:{}}}", file.path().display());
        check(&text, Ok(Some("Bearer top secret")));
    }
}
