//! POST requests that only read: SOAP, JSON-RPC, GraphQL, `$batch`. Their body belongs to the key, by its digest; bodies
//! that say the same may be brought into one form first.

use std::borrow::Cow;

use http::header::CONTENT_ENCODING;
use http::{HeaderMap, HeaderName};
use sha2::{Digest as _, Sha256};

use crate::cache::{key, loose_name};

/// Which POST requests of a route only read, and how they are told apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostRule {
    /// The largest body that is looked at, in bytes; requests with larger ones pass.
    pub max_body: usize,
    /// Which bodies say the same.
    pub canonical: Canonical,
    /// Request fields that belong to the key as well; Content-Encoding always does.
    pub headers: Vec<HeaderName>,
}

/// Which bodies say the same.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Canonical {
    /// Only those that are equal byte for byte.
    #[default]
    None,
    /// JSON texts that differ in white space between tokens and in the order of object members (RFC 8259 sections 2
    /// and 4). Numbers and strings are taken as they are spelled. A text with a name that is not plain ASCII is taken as
    /// it is: it may say the same name twice in two spellings.
    Json,
    /// Forms that differ in the order of fields of unlike name.
    Form,
}

impl PostRule {
    /// The digest of what, beside its URL, tells one request from another. Not the fast hash of a key: whoever writes
    /// bodies must not be able to write two with one digest.
    pub fn digest(&self, headers: &HeaderMap, body: &[u8]) -> [u8; 32] {
        let mut context = Sha256::new();
        let mut piece = |bytes: &[u8]| {
            context.update((bytes.len() as u64).to_le_bytes());
            context.update(bytes);
        };
        for name in self.headers.iter().chain([&CONTENT_ENCODING]) {
            piece(name.as_str().as_bytes());
            match key::normal(name, headers) {
                Some(value) => piece(&value.collect::<Vec<u8>>()),
                None => piece(b"\0absent"), // no field value holds a NUL
            }
        }
        let is_plain = !headers.contains_key(CONTENT_ENCODING);
        piece(&if is_plain { self.canonical.form(body) } else { Cow::Borrowed(body) });
        context.finalize().into()
    }
}

impl Canonical {
    /// A body in the form that all bodies have that say the same. What cannot be read is taken as it is.
    pub fn form(self, body: &[u8]) -> Cow<'_, [u8]> {
        match self {
            Self::None => Cow::Borrowed(body),
            Self::Json => Json { rest: body }.text().map_or(Cow::Borrowed(body), Cow::Owned),
            Self::Form => {
                if body.contains(&b';') {
                    return Cow::Borrowed(body); // to old servers it separates fields
                }
                let mut fields: Vec<_> = body.split(|byte| *byte == b'&').filter(|field| !field.is_empty()).collect();
                // Stable: repeated names keep their order, also if they are spelled in different ways.
                fields.sort_by_cached_key(|field| loose_name(field));
                Cow::Owned(fields.join(&b'&'))
            }
        }
    }
}

/// Reads a JSON text as far as it takes to sort it. `None` anywhere: it is none.
struct Json<'a> {
    rest: &'a [u8],
}

impl<'a> Json<'a> {
    fn text(mut self) -> Option<Vec<u8>> {
        let mut text = Vec::with_capacity(self.rest.len());
        self.value(&mut text, DEPTH)?;
        self.blank();
        self.rest.is_empty().then_some(text)
    }

    fn value(&mut self, to: &mut Vec<u8>, depth: usize) -> Option<()> {
        self.blank();
        match self.rest.first()? {
            b'{' => self.object(to, depth.checked_sub(1)?),
            b'[' => self.array(to, depth.checked_sub(1)?),
            b'"' => self.string().map(|string| to.extend_from_slice(string)),
            _ => {
                let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || b"+-.".contains(byte);
                let end = self.rest.iter().position(|byte| !is_part(byte)).unwrap_or(self.rest.len());
                let word = self.take(end).filter(|word| !word.is_empty())?;
                to.extend_from_slice(word);
                Some(())
            }
        }
    }

    fn object(&mut self, to: &mut Vec<u8>, depth: usize) -> Option<()> {
        let mut members: Vec<(&[u8], Vec<u8>)> = Vec::new();
        self.listed(b'{', b'}', |json| {
            json.blank();
            let name = json.string()?;
            json.blank();
            json.token(b':')?;
            // One name may be spelled in many ways, and of equal names some readers take the first, others the last.
            if !name.is_ascii() || name.contains(&b'\\') {
                return None;
            }
            let mut value = Vec::new();
            json.value(&mut value, depth)?;
            members.push((name, value));
            Some(())
        })?;
        // Stable, and in any case: to some readers `id` and `ID` are one name.
        members.sort_by_cached_key(|(name, _)| name.to_ascii_lowercase());
        to.push(b'{');
        for (index, (name, value)) in members.iter().enumerate() {
            to.extend_from_slice(if index == 0 { b"" } else { b"," });
            to.extend_from_slice(name);
            to.push(b':');
            to.extend_from_slice(value);
        }
        to.push(b'}');
        Some(())
    }

    fn array(&mut self, to: &mut Vec<u8>, depth: usize) -> Option<()> {
        to.push(b'[');
        let mut separator: &[u8] = b"";
        self.listed(b'[', b']', |json| {
            to.extend_from_slice(std::mem::replace(&mut separator, b","));
            json.value(to, depth)
        })?;
        to.push(b']');
        Some(())
    }

    /// Elements between two brackets, separated by commas.
    fn listed(&mut self, open: u8, close: u8, mut element: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        self.token(open)?;
        self.blank();
        if self.token(close).is_some() {
            return Some(());
        }
        loop {
            element(self)?;
            self.blank();
            if self.token(close).is_some() {
                return Some(());
            }
            self.token(b',')?;
        }
    }

    /// A string with its quotes, as it is spelled.
    fn string(&mut self) -> Option<&'a [u8]> {
        let mut escaped = false;
        let end = self.rest.strip_prefix(b"\"")?.iter().position(|byte| {
            let ends = *byte == b'"' && !escaped;
            escaped = *byte == b'\\' && !escaped;
            ends
        })?;
        self.take(end + 2)
    }

    fn token(&mut self, token: u8) -> Option<()> {
        self.rest = self.rest.strip_prefix(&[token])?;
        Some(())
    }

    fn blank(&mut self) {
        while let [b' ' | b'\t' | b'\r' | b'\n', rest @ ..] = self.rest {
            self.rest = rest;
        }
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(taken)
    }
}

/// Deeper texts are taken as they are.
const DEPTH: usize = 64;

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn check(canonical: Canonical, body: &str, expected: &str) {
        let form = canonical.form(body.as_bytes()).into_owned();
        assert_eq!(String::from_utf8_lossy(&form), expected, "{canonical:?} {body}");
    }

    #[test]
    fn json_is_sorted_and_spaced_one_way() {
        for (body, expected) in [
            (
                " { \"b\" : [ 1 , 2.50 ] ,\n\"a\":{\"y\":null,\"x\":\"a b\"} } ",
                r#"{"a":{"x":"a b","y":null},"b":[1,2.50]}"#,
            ),
            (r#"{"a":1,"b":2,"a":3}"#, r#"{"a":1,"a":3,"b":2}"#),
            (r#"["\"\\", "\\"]"#, r#"["\"\\","\\"]"#),
            ("[]", "[]"),
            (" {} ", "{}"),
            ("-1e5", "-1e5"),
        ] {
            check(Canonical::Json, body, expected);
            check(Canonical::Json, expected, expected);
        }
    }

    #[test]
    fn what_is_no_json_is_taken_as_it_is() {
        let deep = "[".repeat(DEPTH + 1) + &"]".repeat(DEPTH + 1);
        let broken = ["", " ", "{", "[1,]", "[1 2]", "{a:1}", "{\"a\" 1}", "\"", "\"\\\"", "[] []", "<a/>", "{\"a\":}"];
        for body in broken.into_iter().chain([deep.as_str()]) {
            check(Canonical::Json, body, body);
        }
        let most = "[".repeat(DEPTH) + " " + &"]".repeat(DEPTH);
        check(Canonical::Json, &most, &most.replace(' ', ""));
    }

    #[test]
    fn one_name_in_two_spellings_keeps_its_order() {
        for (canonical, one, other) in [
            (Canonical::Json, r#"{"a":1,"\u0061":2}"#, r#"{"\u0061":2,"a":1}"#),
            (Canonical::Json, r#"{"id":1,"ID":2}"#, r#"{"ID":2,"id":1}"#),
            (Canonical::Json, "{\"k\":1,\"\u{212a}\":2}", "{\"\u{212a}\":2,\"k\":1}"),
            (Canonical::Form, "a=1&%61=2", "%61=2&a=1"),
            (Canonical::Form, "a=1&A=2", "A=2&a=1"),
            (Canonical::Form, "a+b=1&a%20b=2", "a%20b=2&a+b=1"),
            (Canonical::Form, "a=1;b=2&b=3", "b=3&a=1;b=2"),
        ] {
            assert_ne!(canonical.form(one.as_bytes()), canonical.form(other.as_bytes()), "{one}");
        }
    }

    #[test]
    fn forms_are_sorted_by_name() {
        check(Canonical::Form, "b=1&a=2&b=0&&c", "a=2&b=1&b=0&c");
        check(Canonical::None, "b=1&a=2", "b=1&a=2");
    }

    #[test]
    fn fields_count_and_what_is_encoded_is_not_read() {
        let rule =
            PostRule { max_body: 9, canonical: Canonical::Json, headers: vec![HeaderName::from_static("soapaction")] };
        let digest = |fields: &[(&'static str, &'static str)], body: &str| {
            let mut headers = HeaderMap::new();
            for (name, value) in fields {
                headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
            }
            rule.digest(&headers, body.as_bytes())
        };
        let plain = digest(&[], "[1]");
        assert_eq!(plain, digest(&[("x", "1")], " [ 1 ] "));
        for (fields, body) in [
            (&[][..], "[2]"),
            (&[("soapaction", "")], "[1]"),
            (&[("soapaction", "a")], "[1]"),
            (&[("content-encoding", "gzip")], "[1]"),
        ] {
            assert_ne!(plain, digest(fields, body), "{fields:?} {body}");
        }
        let gzip = [("content-encoding", "gzip")];
        assert_ne!(digest(&gzip, "[1]"), digest(&gzip, " [1]"));
    }

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            ".{0,6}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 5, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                proptest::collection::btree_map("[ !#-\\[\\]-~]{0,4}", inner, 0..5)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn json_says_the_same_before_and_after(value in json()) {
            let pretty = serde_json::to_vec_pretty(&value).unwrap();
            let form = Canonical::Json.form(&pretty);
            let compact = serde_json::to_vec(&value).unwrap();
            prop_assert_eq!(serde_json::from_slice::<Value>(&form).unwrap(), value);
            prop_assert_eq!(&form, &Canonical::Json.form(&compact));
            prop_assert_eq!(&Canonical::Json.form(&form), &form);
        }

        #[test]
        fn no_bytes_confuse_it(body in proptest::collection::vec(any::<u8>(), 0..60)) {
            let form = Canonical::Json.form(&body).into_owned();
            prop_assert!(form.len() <= body.len());
            let reads = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).ok();
            prop_assert_eq!(reads(&form), reads(&body));
        }
    }
}
