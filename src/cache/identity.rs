//! Whose answers these are: the number of an identity, out of the credentials a request carries.
//!
//! Two requests have the same identity only if *all* their credentials are the same. Nobody but the backend knows which
//! of several it believes: Authorization of one user with the session cookie of another must be neither of them.

use http::header::{AUTHORIZATION, COOKIE};
use http::{HeaderMap, HeaderName};

use crate::cache::key::Keyer;

/// What an identity consists of, beside the consumer and Authorization, which always count.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IdentityRule {
    /// The cookies that tell users apart. All others do not matter.
    pub cookies: Vec<CookiePattern>,
    /// Fields that tell users apart, as proxies before us set them.
    pub headers: Vec<HeaderName>,
}

/// The name of a cookie, or with `*` at its end the beginning of one: `SAP_SESSIONID_*`. Names are case-sensitive
/// (RFC 6265 section 5.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CookiePattern(String);

impl IdentityRule {
    /// The number of the identity that asks; `None`: the request carries nothing that tells users apart. `consumer` is
    /// the number of a known consumer.
    pub fn identity(&self, keyer: &Keyer, consumer: Option<u64>, headers: &HeaderMap) -> Option<u64> {
        let mut found = keyer.pieces();
        if let Some(consumer) = consumer {
            found.add(b"consumer", &consumer.to_le_bytes());
        }
        for name in std::iter::once(&AUTHORIZATION).chain(&self.headers) {
            for value in headers.get_all(name) {
                found.add(name.as_str().as_bytes(), value.as_bytes());
            }
        }
        for (name, value) in cookies(headers) {
            if self.cookies.iter().any(|pattern| pattern.matches(name)) {
                found.add(b"cookie", name);
                found.add(b"=", value);
            }
        }
        found.finish()
    }
}

impl CookiePattern {
    /// A pattern; `None` where it could never be the name of a cookie (RFC 6265 section 4.1.1: a token).
    pub fn new(text: &str) -> Option<Self> {
        let name = text.strip_suffix('*').unwrap_or(text);
        let is_token = |byte: u8| byte.is_ascii_graphic() && !b"()<>@,;:\\\"/[]?={}*".contains(&byte);
        (!text.is_empty() && name.bytes().all(is_token)).then(|| Self(text.to_owned()))
    }

    /// Whether it means the cookie called `name`.
    pub fn matches(&self, name: &[u8]) -> bool {
        match self.0.strip_suffix('*') {
            Some(beginning) => name.starts_with(beginning.as_bytes()),
            None => name == self.0.as_bytes(),
        }
    }
}

/// The name of the cookie that a Set-Cookie line sets.
pub fn cookie_set(line: &[u8]) -> &[u8] {
    let pair = line.split(|byte| *byte == b';').next().unwrap_or_default();
    pair.split(|byte| *byte == b'=').next().unwrap_or_default().trim_ascii()
}

/// The cookies of a request, name and value, in their order (RFC 6265 section 4.2; HTTP/2 may split the field).
fn cookies(headers: &HeaderMap) -> impl Iterator<Item = (&[u8], &[u8])> {
    let pairs = headers.get_all(COOKIE).into_iter().flat_map(|line| line.as_bytes().split(|byte| *byte == b';'));
    pairs.map(|pair| {
        let at = pair.iter().position(|byte| *byte == b'=');
        let (name, value) = at.and_then(|at| pair.split_at_checked(at)).unwrap_or((pair, b"="));
        (name.trim_ascii(), value.get(1..).unwrap_or_default().trim_ascii())
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn rule() -> IdentityRule {
        let cookies = ["SAP_SESSIONID_*", "MYSAPSSO2"].map(|name| CookiePattern::new(name).unwrap());
        IdentityRule { cookies: cookies.into(), headers: vec![HeaderName::from_static("x-user")] }
    }

    fn identity(fields: &[(&'static str, &str)]) -> Option<u64> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
        }
        rule().identity(&Keyer::new(1), None, &headers)
    }

    #[test]
    fn what_does_not_tell_users_apart_is_nobodys() {
        for fields in [&[][..], &[("cookie", "lang=de; theme=1; MYSAPSSO2x=1")], &[("accept", "x"), ("cookie", "")]] {
            assert_eq!(identity(fields), None, "{fields:?}");
        }
    }

    #[test]
    fn every_credential_counts_and_nothing_else() {
        let all = [
            identity(&[("authorization", "Basic a")]),
            identity(&[("authorization", "Basic b")]),
            identity(&[("x-user", "Basic a")]),
            identity(&[("cookie", "MYSAPSSO2=Basic a")]),
            identity(&[("cookie", "SAP_SESSIONID_X=Basic a")]),
            identity(&[("authorization", "Basic a"), ("cookie", "SAP_SESSIONID_X=1")]),
            identity(&[("authorization", "Basic a"), ("cookie", "SAP_SESSIONID_X=2")]),
            identity(&[("authorization", "Basic a"), ("x-user", "1")]),
            identity(&[("cookie", "SAP_SESSIONID_X=1; SAP_SESSIONID_Y=2")]),
            identity(&[("cookie", "SAP_SESSIONID_X=1; SAP_SESSIONID_Y=")]),
            identity(&[("cookie", "SAP_SESSIONID_X")]),
        ];
        for (index, one) in all.iter().enumerate() {
            assert!(one.is_some(), "{index}");
            assert!(!all[..index].contains(one), "{index} is somebody else");
        }
        let plain = identity(&[("cookie", "SAP_SESSIONID_X=1")]);
        assert_eq!(identity(&[("cookie", "lang=de; SAP_SESSIONID_X=1;theme=2")]), plain);
        assert_eq!(identity(&[("cookie", "lang=de"), ("cookie", "SAP_SESSIONID_X=1")]), plain);
    }

    #[test]
    fn a_known_consumer_is_an_identity() {
        let of = |consumer| IdentityRule::default().identity(&Keyer::new(1), consumer, &HeaderMap::new());
        assert!(of(None).is_none() && of(Some(1)).is_some() && of(Some(1)) != of(Some(2)));
    }

    #[test]
    fn patterns_are_names_or_beginnings() {
        for wrong in ["", "a b", "a=b", "a*b", "a;", "**", "ä"] {
            assert_eq!(CookiePattern::new(wrong), None, "{wrong}");
        }
        for (pattern, name, matches) in [
            ("a", "a", true),
            ("a", "A", false),
            ("a", "ab", false),
            ("a*", "a", true),
            ("a*", "ab", true),
            ("a*", "b", false),
            ("*", "x", true),
        ] {
            let found = CookiePattern::new(pattern).unwrap().matches(name.as_bytes());
            assert_eq!(found, matches, "{pattern} {name}");
        }
    }

    #[test]
    fn the_cookie_of_a_line_is_found() {
        for (line, name) in [("a=b; Path=/", "a"), (" a = b=c", "a"), ("a", "a"), ("", ""), (";a=b", "")] {
            assert_eq!(cookie_set(line.as_bytes()), name.as_bytes(), "{line}");
        }
    }

    proptest! {
        #[test]
        fn other_values_are_another_identity(one in "[a-z=; ]{0,12}", other in "[a-z=; ]{0,12}") {
            let value = |text: &str| identity(&[("authorization", text)]);
            prop_assert_eq!(value(&one) == value(&other), one == other);
        }
    }
}
