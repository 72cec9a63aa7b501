//! What must not be written down of a path or a query: the values that let somebody in. Names decide, as values of
//! secrets look like any others (RFC 6750 section 5.3 on `access_token`; CWE-598; the Java servlet specification's
//! `;jsessionid`).

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// `text`, a path or a query as it was sent, with [`HIDDEN`] for the values of parameters whose names say that they are
/// secret. Allocates only if there is one.
pub fn hide(text: &str) -> Cow<'_, str> {
    if memchr::memchr2(b'=', b'%', text.as_bytes()).is_none() {
        return Cow::Borrowed(text);
    }
    let mut shown = String::new();
    let mut copied = 0;
    let mut begin = 0;
    for piece in text.split(SEPARATORS) {
        // Of a piece without a name all is a value.
        let (name, value) = piece.split_once('=').map_or(("", piece), |(name, value)| (name, value));
        if !value.is_empty() && (is_secret(name) || holds_secret(value)) {
            let at = begin + piece.len() - value.len();
            shown.push_str(text.get(copied..at).unwrap_or_default());
            shown.push_str(HIDDEN);
            copied = begin + piece.len();
        }
        begin += piece.len() + 1;
    }
    if copied == 0 {
        return Cow::Borrowed(text);
    }
    shown.push_str(text.get(copied..).unwrap_or_default());
    Cow::Owned(shown)
}

/// Whether a parameter of this name, escaped or not, holds what must not be seen.
fn is_secret(name: &str) -> bool {
    let decoded = percent_decode_str(name).decode_utf8_lossy();
    // `api-key`, `api_key`, `apiKey`, `user[password]`, `$skiptoken`: letters and digits decide.
    let plain: String = decoded.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect();
    // An OData token only says where to go on reading.
    if ["skiptoken", "deltatoken"].contains(&&*plain) {
        return false;
    }
    PARTS.iter().any(|part| plain.contains(part)) || WORDS.contains(&&*plain)
}

/// Whether a value is itself a URL or a query that holds a secret: where to go back to after a logon. Each hop of a logon
/// escapes it once more.
fn holds_secret(value: &str) -> bool {
    let mut value = Cow::Borrowed(value);
    for _ in 0..=ESCAPES {
        let mut pieces = value.split(SEPARATORS);
        if pieces.any(|piece| piece.split_once('=').is_some_and(|(name, held)| !held.is_empty() && is_secret(name))) {
            return true;
        }
        if memchr::memchr(b'%', value.as_bytes()).is_none() {
            return false;
        }
        value = Cow::Owned(percent_decode_str(&value).decode_utf8_lossy().into_owned());
    }
    false
}

/// How often a value is unescaped to look into it.
const ESCAPES: usize = 3;

/// What stands in the place of a secret.
pub const HIDDEN: &str = "***";

/// What ends a parameter: of a query, of a path segment, of an OData key.
const SEPARATORS: [char; 8] = ['&', ';', '/', '?', '#', ',', '(', ')'];

/// What the name of a secret holds.
const PARTS: [&str; 17] = [
    "token",
    "secret",
    "passw",
    "passphrase",
    "pwd",
    "apikey",
    "accesskey",
    "privatekey",
    "credential",
    "signature",
    "sessionid",
    "sessid",
    "bearer",
    "hmac",
    "authoriz",
    "assertion",
    "saml",
];

/// What is a secret if it is the whole name: Azure's `sig`, OAuth's `code` and `state`, SAP's logon ticket.
const WORDS: [&str; 14] = [
    "pass",
    "sig",
    "code",
    "state",
    "key",
    "auth",
    "jwt",
    "sid",
    "ticket",
    "otp",
    "pin",
    "nonce",
    "mysapsso2",
    "sapcontextid",
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        assert_eq!(hide(text), expected);
    }

    #[test]
    fn the_values_of_secrets_are_hidden() {
        check("token=geheim", "token=***");
        check("a=1&access_token=geheim&b=2", "a=1&access_token=***&b=2");
        check("API-Key=geheim", "API-Key=***");
        check("apiKey=a;sap-password=b", "apiKey=***;sap-password=***");
        check("user[passwd]=geheim", "user[passwd]=***");
        check("X-Amz-Signature=geheim&X-Amz-Date=2026", "X-Amz-Signature=***&X-Amz-Date=2026");
        check("sv=1&sig=geheim", "sv=1&sig=***");
        check("SAMLResponse=PHNhbWw=", "SAMLResponse=***");
        check("code=abc&state=def", "code=***&state=***");
        check("token=a&token=b", "token=***&token=***");
        check("/orders;jsessionid=0A1B/7", "/orders;jsessionid=***/7");
        check("/Users(apiKey=geheim,id=7)", "/Users(apiKey=***,id=7)");
    }

    #[test]
    fn a_name_in_disguise_is_seen_through() {
        check("%74oken=geheim", "%74oken=***");
        check("access%5Ftoken=geheim", "access%5Ftoken=***");
        check("TOKEN=geheim", "TOKEN=***");
        check("token==geheim", "token=***");
        check("to\u{0}ken=geheim", "to\u{0}ken=***");
        check("back=%2Fhome%3Ftoken%3Dgeheim&x=1", "back=***&x=1");
        check("back=%252Fcb%253Faccess_token%253Dgeheim", "back=***");
        check("/login/https%3A%2F%2Fx%2Fcb%3Faccess_token%3Dgeheim", "/login/***");
        check("https%3A%2F%2Fx%3Ftoken%3Dgeheim", "***");
        check("PHPSESSID=geheim&pass=geheim", "PHPSESSID=***&pass=***");
    }

    #[test]
    fn everything_else_stays_as_it_was_sent() {
        for text in [
            "",
            "/",
            "a",
            "token",
            "token=",
            "$skiptoken=7",
            "!deltatoken=7",
            "q=token",
            "a=b=c",
            "/a;v=1/b",
            "top=5&skip=%20",
            "monkey=1",
            "keyword=x",
            "zipcode=1",
            "design=x",
        ] {
            assert!(matches!(hide(text), Cow::Borrowed(same) if same == text), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_value_of_a_token_is_ever_seen(before in "[a-z0-9=&;%/]{0,12}", after in "[a-z0-9=&;%/]{0,12}") {
            let text = format!("{before}&token=GEHEIM&{after}");
            prop_assert!(!hide(&text).contains("GEHEIM"), "{}", hide(&text));
        }

        #[test]
        fn what_is_hidden_stays_hidden(text in any::<String>()) {
            let once = hide(&text).into_owned();
            prop_assert_eq!(hide(&once).into_owned(), once);
        }
    }
}
