//! What an answer is expected to be. Systems of record answer with an HTML page when a session has ended or a gateway
//! before them fails, with status 200, and sometimes with the Content-Type and entity tag of the good answer. Such a
//! page must not take the place of data that a client can read.
//!
//! Judged by Content-Type, the first byte and the last, where the body can be read (no Content-Encoding).

use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, StatusCode};

/// What a route's answers are expected to be, and what becomes of others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expectation {
    /// Any of these.
    pub media: Vec<Media>,
    /// What becomes of an answer that is none.
    pub otherwise: Otherwise,
}

/// A kind of answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Media {
    /// JSON: `application/json`, `text/json`, and what ends in `+json` (RFC 6839 section 3.1).
    Json,
    /// XML: `application/xml`, `text/xml`, and what ends in `+xml` (RFC 7303), except XHTML.
    Xml,
    /// HTML and XHTML.
    Html,
    /// Any `text/`, except HTML.
    Text,
    /// A media type in lower case, `type/subtype` or `type/*`.
    Type(String),
}

/// What becomes of an unexpected answer. It is never stored, and what is stored stays.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Otherwise {
    /// It goes to the one who asked.
    #[default]
    Pass,
    /// What is stored stands in for it if it may; else it goes to the one who asked.
    Stale,
    /// It is a failure of the upstream like any other: the breaker learns of it, and what is stored, the fallback or a
    /// refusal stands in.
    Broken,
}

impl Media {
    /// Reads a word of the configuration, or a media type; `None` where it is neither.
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "json" => Self::Json,
            "xml" => Self::Xml,
            "html" => Self::Html,
            "text" => Self::Text,
            _ => {
                let (kind, subtype) = text.split_once('/')?;
                let is_token = |part: &str| {
                    !part.is_empty()
                        && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$&^_.+-".contains(&byte))
                };
                if !is_token(kind) || !(subtype == "*" || is_token(subtype)) {
                    return None;
                }
                Self::Type(text.to_ascii_lowercase())
            }
        })
    }

    /// Whether a media type, in lower case and without parameters, is of this kind.
    fn includes(&self, essence: &str) -> bool {
        let is_html = matches!(essence, "text/html" | "application/xhtml+xml");
        match self {
            Self::Json => matches!(essence, "application/json" | "text/json") || essence.ends_with("+json"),
            Self::Xml => (matches!(essence, "application/xml" | "text/xml") || essence.ends_with("+xml")) && !is_html,
            Self::Html => is_html,
            Self::Text => essence.starts_with("text/") && !is_html,
            Self::Type(wanted) => match wanted.strip_suffix('*') {
                Some(kind) => essence.starts_with(kind),
                None => essence == wanted,
            },
        }
    }

    /// Whether a body may begin so.
    fn begins(&self, body: &[u8]) -> bool {
        let body = clear(body);
        match (self, body.first()) {
            (Self::Json, Some(first)) => b"{[\"-0123456789tfn".contains(first),
            (Self::Xml, Some(first)) => *first == b'<' && !is_html(body),
            (Self::Html, Some(first)) => *first == b'<',
            (Self::Json | Self::Xml | Self::Html, None) => false,
            (Self::Text | Self::Type(_), _) => true,
        }
    }

    /// Whether a whole body may end so. What ends with its connection gives no other sign of being whole.
    fn ends(&self, body: &[u8]) -> bool {
        let body = clear(body);
        match (self, body.first(), body.last()) {
            (Self::Json, Some(b'{'), last) => last == Some(&b'}'),
            (Self::Json, Some(b'['), last) => last == Some(&b']'),
            (Self::Json, Some(b'"'), last) => last == Some(&b'"') && body.len() > 1,
            (Self::Xml, _, last) => last == Some(&b'>'),
            _ => true,
        }
    }
}

impl Expectation {
    /// Whether an answer with this head is looked at at all: only a whole one has a beginning and an end.
    pub const fn concerns(status: StatusCode) -> bool {
        matches!(status.as_u16(), 200 | 203)
    }

    /// Whether an answer may be an expected one, by its head and the first bytes of its body (none: it is empty).
    pub fn begins_well(&self, headers: &HeaderMap, first: &[u8]) -> bool {
        // Its end will tell; a byte order mark may be cut as well.
        let is_open =
            !first.is_empty() && (clear(first).is_empty() || MARKS.iter().any(|mark| mark.starts_with(first)));
        self.is_met(headers, |media| is_open || media.begins(first))
    }

    /// Whether a whole body is an expected one.
    pub fn ends_well(&self, headers: &HeaderMap, body: &[u8]) -> bool {
        self.is_met(headers, |media| media.begins(body) && media.ends(body))
    }

    /// Whether any of the kinds that Content-Type allows passes `looks`. Without a Content-Type the bytes alone tell.
    fn is_met(&self, headers: &HeaderMap, looks: impl Fn(&Media) -> bool) -> bool {
        let essence = essence(headers);
        let is_readable = headers.get(CONTENT_ENCODING).is_none_or(|coding| coding == "identity");
        let mut allowed =
            self.media.iter().filter(|media| essence.as_ref().is_none_or(|essence| media.includes(essence)));
        allowed.any(|media| !is_readable || looks(media))
    }
}

/// The media type of an answer, in lower case and without parameters (RFC 9110 section 8.3.1).
fn essence(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    let essence = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    (!essence.is_empty()).then_some(essence)
}

/// Byte order marks of UTF-8 and UTF-16.
const MARKS: [&[u8]; 3] = [b"\xef\xbb\xbf", b"\xfe\xff", b"\xff\xfe"];

/// The body without byte order mark and surrounding white space. Of UTF-16 every other byte is zero.
fn clear(body: &[u8]) -> &[u8] {
    let body = MARKS.iter().find_map(|mark| body.strip_prefix(*mark)).unwrap_or(body);
    let is_blank = |byte: &u8| byte.is_ascii_whitespace() || *byte == 0;
    let start = body.iter().position(|byte| !is_blank(byte)).unwrap_or(body.len());
    let end = body.iter().rposition(|byte| !is_blank(byte)).map_or(start, |last| last + 1);
    body.get(start..end).unwrap_or_default()
}

fn is_html(body: &[u8]) -> bool {
    let begins = |word: &[u8]| body.get(..word.len()).is_some_and(|found| found.eq_ignore_ascii_case(word));
    begins(b"<!doctype html") || begins(b"<html")
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    /// Whether an answer begins well, and whether it ends well.
    fn check(expect: &str, content_type: &str, body: &str, expected: (bool, bool)) {
        let media = expect.split(' ').map(|word| Media::parse(word).unwrap()).collect();
        let expectation = Expectation { media, otherwise: Otherwise::Pass };
        let mut headers = HeaderMap::new();
        if !content_type.is_empty() {
            headers.insert(CONTENT_TYPE, HeaderValue::from_str(content_type).unwrap());
        }
        let found =
            (expectation.begins_well(&headers, body.as_bytes()), expectation.ends_well(&headers, body.as_bytes()));
        assert_eq!(found, expected, "{expect} ← {content_type}: {body:?}");
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        let by_type = expectation.begins_well(&headers, b"\x1f\x8b");
        assert!(by_type >= expected.0, "{expect} ← {content_type}: what cannot be read is judged by its type alone");
    }

    #[test]
    fn answers_are_known_by_type_beginning_and_end() {
        let (good, cut, bad) = ((true, true), (true, false), (false, false));
        for json in ["{\"a\":1}", " [1, 2]\n", "\u{feff}{}", "\"text\"", "-1", "true", "null"] {
            check("json", "application/json", json, good);
            check("xml json", "application/problem+JSON; charset=utf-8", json, good);
            check("json", "", json, good);
            check("xml", "application/json", json, bad);
        }
        for cut_off in ["{\"a\":", "[1, 2", "\"te", "\""] {
            check("json", "application/json", cut_off, cut);
        }
        for page in ["<html><body>Sign in</body></html>", "<!DOCTYPE HTML>\n<p>", "\n <HTML lang=en>"] {
            check("json", "application/json", page, bad);
            check("json", "text/html", page, bad);
            check("xml", "text/xml", page, bad);
            check("xml", "application/xhtml+xml", page, bad);
            check("json xml", "", page, bad);
            check("html", "text/html; charset=iso-8859-1", page, good);
            check("text", "text/html", page, bad);
        }
        // Seen at a SAP V2 adapter, with the good entity tag.
        check("xml", "application/xml", "Internal Server Error", bad);
        check("xml", "application/atom+xml", "<?xml version=\"1.0\"?><feed></feed>\n", good);
        check("xml", "application/xml", "<?xml version=\"1.0\"?><feed><ent", cut);
        check("xml", "text/xml", "\u{0}<\u{0}a\u{0}>", good);
        for (empty, verdict) in [("", bad), (" \n", cut)] {
            check("json", "application/json", empty, verdict);
            check("xml", "text/xml", empty, verdict);
            check("text", "text/plain", empty, good);
        }
        check("application/pdf image/*", "image/png", "any", good);
        check("application/pdf image/*", "application/PDF", "any", good);
        check("application/pdf image/*", "text/html", "<html>", bad);
    }

    #[test]
    fn kinds_are_words_or_media_types() {
        for wrong in ["", "jsn", "a/", "/b", "a/b/c", "a b/c", "*/*", "a/b;c"] {
            assert_eq!(Media::parse(wrong), None, "{wrong}");
        }
        assert_eq!(Media::parse("Application/PDF"), Some(Media::Type("application/pdf".into())));
    }

    #[test]
    fn a_byte_order_mark_may_come_in_pieces() {
        let expectation = Expectation { media: vec![Media::Json], otherwise: Otherwise::Pass };
        let body = "\u{feff}{}".as_bytes();
        assert!((1..=body.len()).all(|at| expectation.begins_well(&HeaderMap::new(), &body[..at])));
        assert!(!expectation.begins_well(&HeaderMap::new(), b"\xef{"));
    }

    proptest! {
        #[test]
        fn what_ends_well_begins_well_in_every_part(body in ".{0,40}", at in 1_usize..40) {
            for media in [Media::Json, Media::Xml, Media::Html] {
                let expectation = Expectation { media: vec![media], otherwise: Otherwise::Pass };
                let first = body.as_bytes().get(..at).unwrap_or(body.as_bytes());
                if expectation.ends_well(&HeaderMap::new(), body.as_bytes()) {
                    prop_assert!(expectation.begins_well(&HeaderMap::new(), first));
                }
            }
        }
    }
}
