//! What a route asks of a request's host and path, checked and brought into one form when the configuration is read.
//!
//! Paths are compared in the form the request's target is normalised to (RFC 3986 section 6.2.2), so a pattern is
//! normalised in the same way: upper-case percent escapes, unreserved characters written plainly.

use thiserror::Error;

/// A host a route answers for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum HostPattern {
    /// This host, in lower case.
    Exact(String),
    /// Every host that ends with a dot and this suffix (lower case, no leading dot): one or more labels before it.
    Below(String),
}

impl HostPattern {
    /// Reads `erp.example`, `[::1]` or `*.example`.
    pub(super) fn parse(text: &str) -> Result<Self, PatternError> {
        let lower = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        if let Some(suffix) = lower.strip_prefix("*.") {
            return if is_name(suffix) { Ok(Self::Below(suffix.to_owned())) } else { Err(PatternError::Host) };
        }
        let literal = lower.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let valid = literal.map_or_else(|| is_name(&lower), |address| address.parse::<std::net::Ipv6Addr>().is_ok());
        if valid { Ok(Self::Exact(lower)) } else { Err(PatternError::Host) }
    }
}

/// One segment of a path pattern: what stands between two slashes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Segment {
    /// Exactly this text; may be empty (`/a/` ends with an empty segment).
    Literal(String),
    /// A non-empty text between a prefix and a suffix; both are empty for a bare `{name}`.
    Param {
        /// What the segment begins with.
        prefix: String,
        /// What the segment ends with.
        suffix: String,
    },
    /// Every segment that is left, also none: `{*rest}`.
    Rest,
}

/// Splits a path pattern into its segments.
pub(super) fn parse_path(pattern: &str) -> Result<Vec<Segment>, PatternError> {
    let Some(relative) = pattern.strip_prefix('/') else {
        return Err(PatternError::Relative);
    };
    if let Some(odd) = pattern.chars().find(|&c| !c.is_ascii_graphic() || matches!(c, '?' | '#' | '\\')) {
        return Err(PatternError::Character(odd));
    }
    let segments: Vec<Segment> = relative.split('/').map(parse_segment).collect::<Result<_, _>>()?;
    let inner = segments.split_last().map_or(&[][..], |(_, inner)| inner);
    if inner.contains(&Segment::Rest) { Err(PatternError::RestInside) } else { Ok(segments) }
}

/// Why a route's `match` cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PatternError {
    /// The path does not begin with a slash.
    #[error("a path begins with `/`")]
    Relative,
    /// A character that no normalised path holds.
    #[error("{0:?} cannot occur in a path; write it as a percent escape")]
    Character(char),
    /// `%` without two hexadecimal digits.
    #[error("`%` must be followed by two hexadecimal digits")]
    Escape,
    /// A `.` or `..` segment: it is resolved before routing, so nothing would match.
    #[error("`.` and `..` are resolved before routing; nothing would match")]
    DotSegment,
    /// A brace without its partner; a literal brace is doubled.
    #[error("unbalanced brace; a parameter is `{{name}}`, a literal brace is doubled: `{{{{`")]
    Brace,
    /// A parameter without a name, or with one that is not letters, digits, `_`, `-`.
    #[error("a parameter's name holds letters, digits, `_` and `-`")]
    Name,
    /// Two parameters in one segment.
    #[error("one segment holds at most one parameter")]
    TwoParams,
    /// `{*rest}` beside other text in its segment.
    #[error("`{{*rest}}` must be a whole segment")]
    RestMixed,
    /// `{*rest}` before the last segment.
    #[error("`{{*rest}}` may only stand at the end of a path")]
    RestInside,
    /// Not a host name, an address, or `*.` and a host name.
    #[error(
        "a host is `erp.example`, an address, or `*.example`; no scheme, no port; leave it out to match every host"
    )]
    Host,
    /// Every request that fits is already taken.
    #[error("no request can reach this route: route {by} takes all of them first")]
    Unreachable {
        /// The index of the route that takes them.
        by: usize,
    },
}

fn parse_segment(text: &str) -> Result<Segment, PatternError> {
    let mut before = String::new();
    let mut after: Option<String> = None; // what follows the parameter, once there is one
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        let (plain, braces) = rest.split_at(at);
        let part = after.as_mut().unwrap_or(&mut before);
        part.push_str(plain);
        if let Some(tail) = braces.strip_prefix("{{").or_else(|| braces.strip_prefix("}}")) {
            part.extend(braces.chars().next());
            rest = tail;
            continue;
        }
        let Some((name, tail)) = braces.strip_prefix('{').and_then(|inner| inner.split_once('}')) else {
            return Err(PatternError::Brace);
        };
        let (name, whole) = name.strip_prefix('*').map_or((name, false), |name| (name, true));
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-') {
            return Err(PatternError::Name);
        }
        if whole {
            let alone = before.is_empty() && after.is_none() && tail.is_empty();
            return if alone { Ok(Segment::Rest) } else { Err(PatternError::RestMixed) };
        }
        if after.replace(String::new()).is_some() {
            return Err(PatternError::TwoParams);
        }
        rest = tail;
    }
    after.as_mut().unwrap_or(&mut before).push_str(rest);
    let prefix = normalise(&before)?;
    match after {
        Some(suffix) => Ok(Segment::Param { prefix, suffix: normalise(&suffix)? }),
        None if prefix == "." || prefix == ".." => Err(PatternError::DotSegment),
        None => Ok(Segment::Literal(prefix)),
    }
}

/// RFC 3986 section 6.2.2: escapes in upper case, unreserved characters without one.
fn normalise(text: &str) -> Result<String, PatternError> {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, escape)) = rest.split_once('%') {
        plain.push_str(before);
        let digits = escape.get(..2).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
        let digits = digits.ok_or(PatternError::Escape)?;
        let byte = u8::from_str_radix(digits, 16).map_err(|_| PatternError::Escape)?;
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            plain.push(char::from(byte));
        } else {
            plain.push('%');
            plain.push_str(&digits.to_ascii_uppercase());
        }
        rest = escape.get(2..).unwrap_or_default();
    }
    plain.push_str(rest);
    Ok(plain)
}

/// Whether `text` is a dotted name or an IPv4 address: what may stand in `Host` beside an IPv6 literal.
fn is_name(text: &str) -> bool {
    let is_label =
        |label: &str| !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    text.len() <= 253 && text.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn literal(text: &str) -> Segment {
        Segment::Literal(text.to_owned())
    }

    fn param(prefix: &str, suffix: &str) -> Segment {
        Segment::Param { prefix: prefix.to_owned(), suffix: suffix.to_owned() }
    }

    #[test]
    fn paths_are_split_and_normalised() {
        let check = |pattern: &str, expected: &[Segment]| {
            assert_eq!(parse_path(pattern).as_deref(), Ok(expected), "{pattern}");
        };
        check("/", &[literal("")]);
        check("/a", &[literal("a")]);
        check("/a/", &[literal("a"), literal("")]);
        check("/a//b", &[literal("a"), literal(""), literal("b")]);
        check("/a/{id}", &[literal("a"), param("", "")]);
        check("/img-{id}.png", &[param("img-", ".png")]);
        check("/a/{*rest}", &[literal("a"), Segment::Rest]);
        check("/{*rest}", &[Segment::Rest]);
        check("/{{a}}", &[literal("{a}")]);
        check("/{{{id}}}", &[param("{", "}")]);
        check("/%7euser%2f%c3%a4", &[literal("~user%2F%C3%A4")]);
        check("/Orders(7)/$count", &[literal("Orders(7)"), literal("$count")]);
    }

    #[test]
    fn paths_that_could_never_match_are_refused() {
        let check = |pattern: &str, expected: PatternError| {
            assert_eq!(parse_path(pattern), Err(expected), "{pattern}");
        };
        check("", PatternError::Relative);
        check("a/b", PatternError::Relative);
        check("http://erp/a", PatternError::Relative);
        check("/a b", PatternError::Character(' '));
        check("/a?b", PatternError::Character('?'));
        check("/ä", PatternError::Character('ä'));
        check("/a\\b", PatternError::Character('\\'));
        check("/%zz", PatternError::Escape);
        check("/a%", PatternError::Escape);
        check("/a/../b", PatternError::DotSegment);
        check("/%2e", PatternError::DotSegment);
        check("/{id", PatternError::Brace);
        check("/id}", PatternError::Brace);
        check("/{}", PatternError::Name);
        check("/{*}", PatternError::Name);
        check("/{a b}", PatternError::Character(' '));
        check("/{a.b}", PatternError::Name);
        check("/{a}-{b}", PatternError::TwoParams);
        check("/a{*rest}", PatternError::RestMixed);
        check("/{*rest}.png", PatternError::RestMixed);
        check("/{*rest}/b", PatternError::RestInside);
    }

    #[test]
    fn hosts_are_exact_or_a_suffix() {
        let check = |text: &str, expected: Result<HostPattern, PatternError>| {
            assert_eq!(HostPattern::parse(text), expected, "{text}");
        };
        check("ERP.Example", Ok(HostPattern::Exact("erp.example".to_owned())));
        check("erp.example.", Ok(HostPattern::Exact("erp.example".to_owned())));
        check("10.0.0.5", Ok(HostPattern::Exact("10.0.0.5".to_owned())));
        check("[::1]", Ok(HostPattern::Exact("[::1]".to_owned())));
        check("*.Example", Ok(HostPattern::Below("example".to_owned())));
        for odd in [
            "",
            "*",
            "*.",
            "*.*.example",
            "a.*.b",
            "erp.example:80",
            "http://erp",
            "a b",
            ".example",
            "[zz]",
            "ä.example",
        ] {
            check(odd, Err(PatternError::Host));
        }
    }

    #[test]
    fn errors_read_as_sentences() {
        assert_eq!(PatternError::RestMixed.to_string(), "`{*rest}` must be a whole segment");
        assert!(PatternError::Brace.to_string().ends_with("a literal brace is doubled: `{{`"));
    }
}
