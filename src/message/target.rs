//! Host and path of a request, checked and normalised once, before routing and cache key alike.
//!
//! What is sent upstream is the client's own spelling: servers of the SAP kind tell `%2F` from `/`, so a path is not
//! decoded or encoded again (see [`Target::path`] for what the normal form is good for). But dot segments stay behind:
//! servers disagree on what they name, and what is routed and stored as one resource must be no other (see [`sent`]).

use std::borrow::Cow;

use http::{HeaderMap, HeaderValue, Uri, header};

use crate::refusal::Reason;

/// Host and path in normal form, borrowed from the request wherever it already is in normal form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target<'a> {
    /// Lower case, with its port if one was given.
    pub host: Cow<'a, str>,
    /// Dot segments removed, unreserved characters decoded, hex digits in upper case (RFC 3986 section 6.2.2): two
    /// spellings of one resource have one cache key and cannot dodge a route.
    pub path: Cow<'a, str>,
    /// As sent.
    pub query: Option<&'a str>,
}

impl<'a> Target<'a> {
    /// Reads the target of a request from its request line (or pseudo fields) and its Host field.
    ///
    /// # Errors
    /// [`Reason::RequestHost`] when there is not exactly one valid host (RFC 9112 section 3.2) and
    /// [`Reason::RequestTarget`] when the path means different things to different servers.
    pub fn of(uri: &'a Uri, headers: &'a HeaderMap, old: bool) -> Result<Self, Reason> {
        // Only CONNECT names an authority alone (RFC 9112 section 3.2.3), and CONNECT is never relayed.
        if uri.scheme().is_none() && uri.authority().is_some() {
            return Err(Reason::RequestTarget);
        }
        let host = host(uri, headers, old)?;
        let path = normal_path(uri.path())?;
        Ok(Self { host, path, query: uri.query() })
    }

    /// The path with runs of slashes merged, for route matching: many servers merge them, so `//admin` must not slip
    /// past a rule for `/admin`. The cache key keeps them apart, as others do not merge.
    pub fn route_path(&self) -> Cow<'_, str> {
        if !self.path.as_bytes().array_windows().any(|pair| pair == b"//") {
            return Cow::Borrowed(&self.path);
        }
        let mut merged = String::with_capacity(self.path.len());
        for c in self.path.chars() {
            if c != '/' || !merged.ends_with('/') {
                merged.push(c);
            }
        }
        Cow::Owned(merged)
    }
}

/// The path as it goes upstream: as spelled, but in normal form if it holds dot segments, or if `is_rewritten`: a rule for
/// `/old` is one for `/%6Fld` and `//old`. `None`: as spelled.
///
/// # Errors
/// [`Reason::RequestTarget`], as of [`Target::of`].
pub fn sent(path: &str, is_rewritten: bool) -> Result<Option<String>, Reason> {
    let mut normal = normal_path(path)?;
    if is_rewritten && normal.starts_with("//") {
        normal = Cow::Owned(format!("/{}", normal.trim_start_matches('/')));
    }
    let goes = normal != path && (is_rewritten || normal != decode_unreserved(path)?);
    Ok(goes.then(|| normal.into_owned()))
}

/// The first Host. It mostly stands first, and names are compared faster than looked up.
pub fn host_field(headers: &HeaderMap) -> Option<&HeaderValue> {
    headers.iter().find(|(name, _)| *name == header::HOST).map(|(_, host)| host)
}

/// The one host of a request. `old` is HTTP/1.0, which may come without.
fn host<'a>(uri: &'a Uri, headers: &'a HeaderMap, old: bool) -> Result<Cow<'a, str>, Reason> {
    // Where each name stands once, as it mostly does, there is nothing to count.
    let is_repeated = headers.len() > headers.keys_len() && headers.get_all(header::HOST).iter().nth(1).is_some();
    let field = match host_field(headers) {
        Some(_) if is_repeated => return Err(Reason::RequestHost),
        Some(value) => Some(value.to_str().map_err(|_| Reason::RequestHost)?),
        None => None,
    };
    let authority = uri.authority().map(http::uri::Authority::as_str);
    let host = match (authority, field) {
        // RFC 9112 section 3.2.2 would let the request line win; a contradiction is refused, as it is an attack.
        (Some(authority), Some(field)) if !authority.eq_ignore_ascii_case(field) => {
            return Err(Reason::RequestHost);
        }
        (Some(host), _) | (None, Some(host)) => host,
        (None, None) if old => "",
        (None, None) => return Err(Reason::RequestHost),
    };
    let seen = host.bytes().fold(0, |seen, byte| seen | kind(&HOST, byte));
    let absent = old && host.is_empty();
    if !absent && !valid_host(host, seen) {
        return Err(Reason::RequestHost);
    }
    Ok(if seen & UPPER == 0 { Cow::Borrowed(host) } else { Cow::Owned(host.to_ascii_lowercase()) })
}

/// `uri-host [ ":" port ]` of RFC 9110 section 7.2, without the percent-encoded and sub-delim forms that no DNS name has.
/// `seen`: the kinds of its bytes.
fn valid_host(host: &str, seen: u8) -> bool {
    let (name, port) = if let Some(rest) = host.strip_prefix('[') {
        let Some((address, port)) = rest.split_once(']') else {
            return false;
        };
        if address.parse::<std::net::Ipv6Addr>().is_err() {
            return false;
        }
        (address, port)
    } else if seen & OTHER != 0 {
        return false;
    } else if seen & COLON != 0 {
        host.split_at(host.bytes().position(|byte| byte == b':').unwrap_or(host.len()))
    } else {
        (host, "")
    };
    let name_fits = !name.is_empty() && name.len() <= 255;
    let port_fits = match port.strip_prefix(':') {
        None => port.is_empty(),
        Some(digits) => digits.len() <= 5 && digits.bytes().all(|b| b.is_ascii_digit()),
    };
    name_fits && port_fits
}

/// The normal form of a path; `*` (of `OPTIONS *`) is its own.
fn normal_path(path: &str) -> Result<Cow<'_, str>, Reason> {
    let seen = path.bytes().fold(0, |seen, byte| seen | kind(&PATH, byte));
    if seen & OTHER != 0 {
        return Err(Reason::RequestTarget);
    }
    if seen & PERCENT == 0 && (seen & DOT == 0 || !path.as_bytes().array_windows().any(|pair| pair == b"/.")) {
        return Ok(Cow::Borrowed(path));
    }
    let decoded = decode_unreserved(path)?;
    if decoded.split('/').any(hides_dots) {
        return Err(Reason::RequestTarget);
    }
    if !decoded.contains("/.") {
        return Ok(decoded);
    }
    remove_dot_segments(&decoded).map(Cow::Owned)
}

/// What a byte of a host or path is, one bit each. All of them at once say what is to be looked at closely: mostly nothing.
#[expect(clippy::indexing_slicing, reason = "the compiler fills it, and stops at its end")]
const fn kinds(is_path: bool) -> [u8; 256] {
    let mut kinds = [0; 256];
    let mut byte = 0;
    while byte < kinds.len() {
        kinds[byte] = match byte as u8 {
            b'%' if is_path => PERCENT,
            b'.' if is_path => DOT,
            b'\\' | b'#' | 0..b' ' | 0x7f if is_path => OTHER,
            _ if is_path => 0,
            b'A'..=b'Z' => UPPER,
            b':' => COLON,
            b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_' => 0,
            _ => OTHER,
        };
        byte += 1;
    }
    kinds
}

fn kind(kinds: &[u8; 256], byte: u8) -> u8 {
    kinds.get(usize::from(byte)).copied().unwrap_or(OTHER)
}

static HOST: [u8; 256] = kinds(false);
static PATH: [u8; 256] = kinds(true);

/// It belongs nowhere.
const OTHER: u8 = 1;
const UPPER: u8 = 1 << 1;
const COLON: u8 = 1 << 2;
const PERCENT: u8 = 1 << 3;
const DOT: u8 = 1 << 4;

/// RFC 3986 section 6.2.2.1 and .2: hex digits in upper case, unreserved characters in clear.
fn decode_unreserved(path: &str) -> Result<Cow<'_, str>, Reason> {
    if !path.contains('%') {
        return Ok(Cow::Borrowed(path));
    }
    let mut out = String::with_capacity(path.len());
    let mut rest = path;
    while let Some((clear, tail)) = rest.split_once('%') {
        out.push_str(clear);
        let Some((Ok(byte), after)) = tail.split_at_checked(2).map(|(hex, after)| (u8::from_str_radix(hex, 16), after))
        else {
            return Err(Reason::RequestTarget);
        };
        if tail.starts_with('+') || byte == 0 {
            return Err(Reason::RequestTarget);
        }
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.extend(tail.chars().take(2).map(|c| c.to_ascii_uppercase()));
        }
        rest = after;
    }
    out.push_str(rest);
    Ok(Cow::Owned(out))
}

/// RFC 3986 section 5.2.4. A path that climbs above its root is refused: servers disagree on what it names.
fn remove_dot_segments(path: &str) -> Result<String, Reason> {
    let mut kept: Vec<&str> = Vec::new();
    let mut open = false;
    for segment in path.strip_prefix('/').unwrap_or(path).split('/') {
        open = matches!(segment, "." | "..");
        match segment {
            "." => {}
            ".." => drop(kept.pop().ok_or(Reason::RequestTarget)?),
            _ => kept.push(segment),
        }
    }
    let mut out = String::with_capacity(path.len());
    for segment in &kept {
        out.push('/');
        out.push_str(segment);
    }
    if open || out.is_empty() {
        out.push('/');
    }
    Ok(out)
}

/// Whether a dot segment hides behind an encoded slash, or before a parameter: some servers see it, and some do not.
fn hides_dots(segment: &str) -> bool {
    let before = segment.split_once(';').map(|(before, _)| before);
    matches!(before, Some("." | ".."))
        || (segment.contains("%2F") || segment.contains("%5C"))
            && segment.split("%2F").flat_map(|piece| piece.split("%5C")).any(|piece| matches!(piece, "." | ".."))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn path(path: &str) -> Result<String, Reason> {
        normal_path(path).map(Cow::into_owned)
    }

    #[test]
    fn paths_have_one_spelling() {
        for (raw, normal) in [
            ("/", "/"),
            ("/a/b", "/a/b"),
            ("/a/./b", "/a/b"),
            ("/a/../b", "/b"),
            ("/a/b/..", "/a/"),
            ("/a/.", "/a/"),
            ("/.hidden", "/.hidden"),
            ("/%7euser/%41", "/~user/A"),
            ("/a%2fb", "/a%2Fb"),
            ("/x/%2e%2e/b", "/b"),
            ("//a//b", "//a//b"),
            ("*", "*"),
        ] {
            assert_eq!(path(raw).as_deref(), Ok(normal), "{raw}");
        }
    }

    #[test]
    fn ambiguous_paths_are_refused() {
        for raw in [
            "/..",
            "/%2e%2e/b",
            "/a/../../b",
            "/a%",
            "/a%2",
            "/a%zz",
            "/a%+1",
            "/a%00",
            "/a\\b",
            "/a/..%2fb/../c",
            "/a/%5c../..",
            "/a/..;/b",
            "/a/.;x=1/b",
            "/a/%2e%2e;",
        ] {
            assert_eq!(path(raw), Err(Reason::RequestTarget), "{raw}");
        }
    }

    #[test]
    fn a_request_has_one_valid_host() {
        for (uri, hosts, expected) in [
            ("/", &["erp.example"][..], Ok("erp.example")),
            ("/", &["ERP.example:8000"], Ok("erp.example:8000")),
            ("/", &["[::1]:80"], Ok("[::1]:80")),
            ("http://a/", &["a"], Ok("a")),
            ("http://a/", &[], Ok("a")),
            ("http://a/", &["b"], Err(Reason::RequestHost)),
            ("/", &[], Err(Reason::RequestHost)),
            ("/", &["a", "a"], Err(Reason::RequestHost)),
            ("/", &[""], Err(Reason::RequestHost)),
            ("/", &["a b"], Err(Reason::RequestHost)),
            ("/", &["a,b"], Err(Reason::RequestHost)),
            ("/", &["a/b"], Err(Reason::RequestHost)),
            ("/", &["u@a"], Err(Reason::RequestHost)),
            ("/", &["a:port"], Err(Reason::RequestHost)),
            ("/", &["[::1"], Err(Reason::RequestHost)),
            ("/", &["a:99999999"], Err(Reason::RequestHost)),
        ] {
            let mut headers = HeaderMap::new();
            for value in hosts {
                headers.append(header::HOST, HeaderValue::from_static(value));
            }
            let uri = Uri::from_static(uri);
            let found = Target::of(&uri, &headers, false).map(|target| target.host.into_owned());
            assert_eq!(found.as_deref().map_err(|reason| *reason), expected, "{uri} {hosts:?}");
        }
        assert!(Target::of(&Uri::from_static("/"), &HeaderMap::new(), true).is_ok(), "HTTP/1.0 may come without");
    }

    #[test]
    fn routes_are_not_dodged_by_slashes() {
        let headers = HeaderMap::from_iter([(header::HOST, HeaderValue::from_static("a"))]);
        let uri = Uri::from_static("//admin///x");
        assert_eq!(Target::of(&uri, &headers, false).unwrap().route_path(), "/admin/x");
    }

    proptest! {
        #[test]
        fn the_normal_form_is_a_fixed_point(raw in "/([a-zA-Z.%/]|%2[eEfF]|%5[cC]|\\.\\.)*") {
            if let Ok(once) = path(&raw) {
                prop_assert!(!once.split('/').any(|segment| segment == ".."), "{once}");
                let again = path(&once);
                prop_assert_eq!(again.as_deref(), Ok(once.as_str()));
            }
        }
    }
}
