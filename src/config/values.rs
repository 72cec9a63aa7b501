//! The small values of the file: each function turns one TOML value into its meaning or says what is wrong with it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use http::uri::{Authority, Scheme};
use http::{HeaderName, HeaderValue, Method, StatusCode, Uri};
use ipnet::IpNet;
use sha2::{Digest as _, Sha256};
use toml::de::DeValue;

use super::diagnostics::Mistake;

/// The mistake of a value that has the wrong type.
pub fn expected(what: &str, found: &DeValue<'_>) -> Mistake {
    let article = if matches!(found, DeValue::Integer(_) | DeValue::Array(_)) { "an" } else { "a" };
    Mistake::new(format!("expected {what}, found {article} {}", found.type_str()))
}

/// Any text.
///
/// # Errors
/// When it is no string.
pub fn text(value: &DeValue<'_>) -> Result<String, Mistake> {
    value.as_str().map(str::to_owned).ok_or_else(|| expected("a string", value))
}

/// Text that is not empty.
///
/// # Errors
/// When it is no string, or an empty one.
pub fn word(value: &DeValue<'_>) -> Result<String, Mistake> {
    let text = text(value)?;
    if text.trim().is_empty() { Err(Mistake::new("must not be empty")) } else { Ok(text) }
}

/// A key or a token; its SHA-256 digest.
///
/// # Errors
/// When it is no string, or short enough to be guessed, or to be found from its digest.
pub fn secret(value: &DeValue<'_>) -> Result<[u8; 32], Mistake> {
    const SHORTEST: usize = 16;
    let secret = text(value)?;
    if secret.len() < SHORTEST {
        return Err(Mistake::new(format!("a key or token has at least {SHORTEST} characters"))
            .hint("it must be random too: openssl rand -base64 24"));
    }
    Ok(Sha256::digest(secret.as_bytes()).into())
}

/// `true` or `false`.
///
/// # Errors
/// When it is anything else.
pub fn flag(value: &DeValue<'_>) -> Result<bool, Mistake> {
    value.as_bool().ok_or_else(|| match value.as_str() {
        Some("true" | "false" | "yes" | "no" | "on" | "off") => {
            expected("true or false", value).hint("written without quotes")
        }
        _ => expected("true or false", value),
    })
}

/// A whole number of at least `least`, which the target type holds.
pub fn whole<T: TryFrom<u64>>(least: u64) -> impl Fn(&DeValue<'_>) -> Result<T, Mistake> {
    move |value| {
        let integer = value.as_integer().ok_or_else(|| expected("a whole number", value))?;
        let too_small = || Mistake::new(format!("must be at least {least}"));
        if integer.as_str().starts_with('-') {
            return Err(too_small());
        }
        let number = u64::from_str_radix(integer.as_str(), integer.radix())
            .map_err(|_| Mistake::new(format!("`{}` is too large", integer.as_str())))?;
        if number < least {
            return Err(too_small());
        }
        T::try_from(number).map_err(|_| Mistake::new(format!("`{number}` is too large")))
    }
}

/// An address to listen on: `"0.0.0.0:8080"`, `"[::]:8080"`.
///
/// # Errors
/// When it is no IP address with a port.
pub fn address(value: &DeValue<'_>) -> Result<SocketAddr, Mistake> {
    let written = text(value)?;
    written.parse().map_err(|_| {
        let hint = match written.strip_prefix(':').or_else(|| written.strip_prefix("*:")) {
            Some(port) => format!("for all addresses write \"0.0.0.0:{port}\" or \"[::]:{port}\""),
            None => "write an IP address and a port, as in \"0.0.0.0:8080\" or \"[::1]:8080\"".to_owned(),
        };
        Mistake::new(format!("`{written}` is not an address to listen on")).hint(hint)
    })
}

/// The address of an endpoint: `http` or `https`, a host, perhaps a port, and nothing after it.
///
/// # Errors
/// When it is anything else.
pub fn endpoint(value: &DeValue<'_>) -> Result<Uri, Mistake> {
    const HINT: &str = "write scheme, host and port, as in \"http://10.0.0.5:8000\"";
    let written = text(value)?;
    if !written.contains("://") {
        return Err(
            Mistake::new(format!("`{written}` has no scheme")).hint(format!("did you mean `http://{written}`?"))
        );
    }
    let uri: Uri =
        written.parse().map_err(|error| Mistake::new(format!("`{written}` is not a URL: {error}")).hint(HINT))?;
    if ![Some(&Scheme::HTTP), Some(&Scheme::HTTPS)].contains(&uri.scheme()) {
        return Err(Mistake::new("only http and https endpoints are spoken to").hint(HINT));
    }
    if uri.authority().map_or("", Authority::as_str).contains('@') {
        return Err(Mistake::new("an endpoint holds no user name").hint("set `authorization` in request_headers"));
    }
    if uri.host().is_none_or(str::is_empty) {
        return Err(Mistake::new(format!("`{written}` names no host")).hint(HINT));
    }
    if uri.path_and_query().is_some_and(|rest| rest.as_str() != "/") {
        return Err(Mistake::new("an endpoint has no path").hint("prefix the path with the `rewrite` of a route"));
    }
    if uri.authority().is_some_and(|authority| authority.as_str().ends_with(':') || uri.port_u16() == Some(0)) {
        return Err(Mistake::new(format!("`{written}` has an impossible port")).hint(HINT));
    }
    Ok(uri)
}

/// A method in its usual spelling.
///
/// # Errors
/// When it is no token, written in lower case, or never relayed.
pub fn method(value: &DeValue<'_>) -> Result<Method, Mistake> {
    let written = text(value)?;
    if written == "CONNECT" || written == "TRACE" {
        return Err(Mistake::new(format!("{written} is never relayed")));
    }
    match Method::from_str(&written) {
        Ok(_) if written.chars().any(|letter| letter.is_ascii_lowercase()) => {
            let upper = written.to_ascii_uppercase();
            Err(Mistake::new(format!("methods are case-sensitive: `{written}` is not `{upper}`"))
                .hint(format!("write \"{upper}\"")))
        }
        Ok(method) => Ok(method),
        Err(_) => Err(Mistake::new(format!("`{written}` is not a method"))),
    }
}

/// The name of a header field.
///
/// # Errors
/// When it is none.
pub fn header_name(value: &DeValue<'_>) -> Result<HeaderName, Mistake> {
    header_name_of(&text(value)?)
}

/// The name of a header field, from plain text.
///
/// # Errors
/// When it is none.
pub fn header_name_of(written: &str) -> Result<HeaderName, Mistake> {
    HeaderName::from_bytes(written.as_bytes())
        .map_err(|_| Mistake::new(format!("`{written}` is not the name of a header field")))
}

/// The value of a header field.
///
/// # Errors
/// When it is no string, or holds a control character.
pub fn header_value(value: &DeValue<'_>) -> Result<HeaderValue, Mistake> {
    HeaderValue::from_str(&text(value)?)
        .map_err(|_| Mistake::new("a header value is visible ASCII, spaces and tabs").hint("a line break would end it"))
}

/// A final status code.
///
/// # Errors
/// When it is no number from 200 to 599.
pub fn status(value: &DeValue<'_>) -> Result<StatusCode, Mistake> {
    let number: u16 = whole(0)(value)?;
    StatusCode::from_u16(number)
        .ok()
        .filter(|status| (200..600).contains(&status.as_u16()))
        .ok_or_else(|| Mistake::new("a status lies between 200 and 599"))
}

/// A network `"10.0.0.0/8"`, or a single address.
///
/// # Errors
/// When it is neither.
pub fn network(value: &DeValue<'_>) -> Result<IpNet, Mistake> {
    let written = text(value)?;
    let single = || written.parse::<std::net::IpAddr>().map(IpNet::from);
    written.parse::<IpNet>().or_else(|_| single()).map_err(|_| {
        Mistake::new(format!("`{written}` is not a network"))
            .hint("write it as \"10.0.0.0/8\", \"2001:db8::/32\" or a single address")
    })
}

/// A file that exists.
///
/// # Errors
/// When it does not, or cannot be looked at.
pub fn file(value: &DeValue<'_>) -> Result<PathBuf, Mistake> {
    let path = PathBuf::from(word(value)?);
    match std::fs::metadata(&path) {
        Ok(found) if found.is_file() => Ok(path),
        Ok(_) => Err(Mistake::new(format!("{} is not a file", path.display()))),
        Err(error) => {
            let hint = match std::env::current_dir() {
                Ok(directory) if path.is_relative() => format!("paths are relative to {}", directory.display()),
                _ => "is it mounted, and may this user read it?".to_owned(),
            };
            Err(Mistake::new(format!("{} cannot be read: {error}", path.display())).hint(hint))
        }
    }
}

/// A SHA-256 digest in hexadecimal.
///
/// # Errors
/// When it is not 64 hexadecimal digits.
pub fn digest(value: &DeValue<'_>) -> Result<[u8; 32], Mistake> {
    let written = text(value)?;
    let wrong = || Mistake::new("a SHA-256 digest has 64 hexadecimal digits").hint("printf %s KEY | sha256sum");
    let mut digest = [0; 32];
    if written.len() != 64 || !written.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(wrong());
    }
    for (at, byte) in digest.iter_mut().enumerate() {
        let pair = written.get(at * 2..at * 2 + 2).ok_or_else(wrong)?;
        *byte = u8::from_str_radix(pair, 16).map_err(|_| wrong())?;
    }
    Ok(digest)
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use super::*;

    fn check<T: Debug>(read: impl Fn(&DeValue<'_>) -> Result<T, Mistake>, good: &[&str], bad: &[(&str, &str)]) {
        for written in good {
            let value = DeValue::parse(written).expect("a TOML value");
            read(value.get_ref()).unwrap_or_else(|mistake| panic!("{written}: {}", mistake.message));
        }
        for (written, part) in bad {
            let value = DeValue::parse(written).expect("a TOML value");
            let mistake = read(value.get_ref()).expect_err(written);
            let whole = format!("{} / {}", mistake.message, mistake.hint.unwrap_or_default());
            assert!(whole.contains(part), "{written}: {whole}");
        }
    }

    #[test]
    fn numbers_texts_and_flags_are_not_taken_for_one_another() {
        check(text, &["''", "'a'"], &[("1", "expected a string, found an integer")]);
        check(word, &["'a'"], &[("' '", "must not be empty")]);
        check(flag, &["true", "false"], &[("'true'", "without quotes"), ("1", "expected true or false")]);
        check(
            whole::<u16>(1),
            &["1", "0xff", "65_535"],
            &[
                ("0", "at least 1"),
                ("-3", "at least 1"),
                ("65536", "too large"),
                ("1.5", "whole number"),
                ("'1'", "whole"),
            ],
        );
        check(status, &["200", "503"], &[("99", "between 200"), ("101", "between 200"), ("600", "between 200")]);
    }

    #[test]
    fn addresses_and_endpoints_say_what_is_missing() {
        check(
            address,
            &["'0.0.0.0:80'", "'[::1]:8080'"],
            &[("':8080'", "0.0.0.0:8080"), ("'localhost:80'", "IP address"), ("'1.2.3.4'", "and a port")],
        );
        check(
            endpoint,
            &["'http://erp'", "'https://10.0.0.5:8443/'", "'http://[::1]:80'"],
            &[
                ("'erp:8000'", "did you mean `http://erp:8000`"),
                ("'ftp://erp'", "only http and https"),
                ("'http://erp/sap'", "no path"),
                ("'http://user@erp'", "no user name"),
                ("'http://erp:0'", "impossible port"),
                ("'http://'", "is not a URL"),
            ],
        );
        check(network, &["'10.0.0.0/8'", "'10.1.2.3'", "'2001:db8::/32'"], &[("'10.0.0.0/33'", "is not a network")]);
    }

    #[test]
    fn words_of_http_are_checked() {
        check(
            method,
            &["'GET'", "'MERGE'"],
            &[("'get'", "write \"GET\""), ("'TRACE'", "never"), ("'A B'", "not a method")],
        );
        check(header_name, &["'X-Key'"], &[("'X Key'", "not the name")]);
        check(header_value, &["'a b'"], &[(r#""a\nb""#, "line break")]);
        let digest_of_nothing = "'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855'";
        check(digest, &[digest_of_nothing], &[("'abc'", "64"), (&format!("'{}'", "é".repeat(32)), "64")]);
    }

    #[test]
    fn a_file_must_be_there() {
        check(file, &["'Cargo.toml'"], &[("'no/such.pem'", "relative to"), ("'src'", "is not a file")]);
    }
}
