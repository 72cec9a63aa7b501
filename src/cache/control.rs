//! Cache-Control as plain values (RFC 9111 section 5.2), of answers and of requests; targeted fields (RFC 9213);
//! Pragma (RFC 9111 section 5.4).
//!
//! Errors are read as RFC 9111 section 4.2.1 advises: a broken number is zero, of an answer's lifetime that stands twice
//! the first counts, of a request's wish the more demanding, and an argument given to a directive that takes none is ignored. Unknown
//! directives are ignored; what stands inside a quoted string of theirs as well. Parsing allocates nothing, except
//! for targeted fields, which are structured fields.

use std::time::Duration;

use http::header::{CACHE_CONTROL, PRAGMA};
use http::{HeaderMap, HeaderName};
use sfv::{BareItem, Dictionary, ListEntry, Parser};

/// What an answer says about its caching.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ResponseControl<'a> {
    /// `max-age`.
    pub max_age: Option<Duration>,
    /// `s-maxage`.
    pub s_maxage: Option<Duration>,
    /// `stale-while-revalidate` (RFC 5861 section 3).
    pub stale_while_revalidate: Option<Duration>,
    /// `stale-if-error` (RFC 5861 section 4).
    pub stale_if_error: Option<Duration>,
    /// `no-store`.
    pub no_store: bool,
    /// `no-cache` without field names, or `Pragma: no-cache` alone.
    pub no_cache: bool,
    /// `no-cache="field, ..."`: these fields may not be sent again without validation.
    pub no_cache_fields: Option<Fields<'a>>,
    /// `private` without field names.
    pub private: bool,
    /// `private="field, ..."`: these fields are for one user only.
    pub private_fields: Option<Fields<'a>>,
    /// `public`.
    pub public: bool,
    /// `must-revalidate`.
    pub must_revalidate: bool,
    /// `proxy-revalidate`.
    pub proxy_revalidate: bool,
    /// `must-understand`.
    pub must_understand: bool,
    /// `immutable` (RFC 8246).
    pub immutable: bool,
    /// These are the words of a targeted field: Cache-Control and Expires do not count (RFC 9213 section 2.2).
    pub targeted: bool,
}

impl<'a> ResponseControl<'a> {
    /// Reads the first of the fields `targeted` that is present, valid and not empty, else Cache-Control.
    pub fn parse(headers: &'a HeaderMap, targeted: &[HeaderName]) -> Self {
        let mut control = Self::default();
        // RFC 9111 section 5.4 leaves Pragma in answers open; old servers mean what they say with it.
        let (mut old, mut is_targeted) = (true, false);
        // Almost no answer has a targeted field. Names are compared faster than looked up, and their lengths faster still.
        let bit = |name: &HeaderName| 1_u64 << (name.as_str().len() % 64);
        let lengths = targeted.iter().fold(0, |lengths, name| lengths | bit(name));
        for (name, line) in headers {
            is_targeted |= lengths & bit(name) != 0 && targeted.contains(name);
            if *name == CACHE_CONTROL {
                old = false;
                for (name, argument) in Directives(line.as_bytes()) {
                    control.apply(name, argument);
                }
            }
        }
        if is_targeted && let Some(control) = targeted.iter().find_map(|name| Self::parse_targeted(headers, name)) {
            return control;
        }
        control.no_cache |= old && has_pragma_no_cache(headers);
        control
    }

    /// The lifetime the directives give a shared cache (RFC 9111 section 4.2.1).
    pub fn lifetime(&self) -> Option<Duration> {
        self.s_maxage.or(self.max_age)
    }

    /// Whether a stale answer may not be served of our own accord (RFC 9111 section 4.2.4): `s-maxage` implies
    /// `proxy-revalidate` (section 5.2.2.10).
    pub const fn forbids_stale(&self) -> bool {
        self.must_revalidate || self.proxy_revalidate || self.s_maxage.is_some()
    }

    /// Whether an answer to a request with Authorization may be shared (RFC 9111 section 3.5).
    pub const fn allows_authorized(&self) -> bool {
        self.public || self.must_revalidate || self.s_maxage.is_some()
    }

    fn apply(&mut self, name: &[u8], argument: Argument<'a>) {
        let mut buffer = [0; LONGEST_NAME];
        match lower(name, &mut buffer) {
            b"max-age" => keep_first(&mut self.max_age, argument),
            b"s-maxage" => keep_first(&mut self.s_maxage, argument),
            b"stale-while-revalidate" => keep_first(&mut self.stale_while_revalidate, argument),
            b"stale-if-error" => keep_first(&mut self.stale_if_error, argument),
            b"no-store" => self.no_store = true,
            b"no-cache" => qualify(&mut self.no_cache, &mut self.no_cache_fields, argument),
            b"private" => qualify(&mut self.private, &mut self.private_fields, argument),
            b"public" => self.public = true,
            b"must-revalidate" => self.must_revalidate = true,
            b"proxy-revalidate" => self.proxy_revalidate = true,
            b"must-understand" => self.must_understand = true,
            b"immutable" => self.immutable = true,
            _ => {}
        }
    }

    /// RFC 9213 section 2.1: a dictionary whose members are the directives; `None` where the field is absent, empty,
    /// no dictionary, or gives a directive a value of the wrong type. Of a repeated member the last counts, as in any
    /// dictionary.
    fn parse_targeted(headers: &HeaderMap, name: &HeaderName) -> Option<Self> {
        let mut lines = headers.get_all(name).iter();
        let mut dictionary: Dictionary = Parser::new(lines.next()?.as_bytes()).parse().ok()?;
        for line in lines {
            dictionary = Parser::new(line.as_bytes()).parse_dictionary_with_visitor(dictionary).ok()?;
        }
        if dictionary.is_empty() {
            return None;
        }
        let mut control = Self { targeted: true, ..Self::default() };
        for (name, member) in &dictionary {
            control.apply_member(name.as_str(), member)?;
        }
        Some(control)
    }

    fn apply_member(&mut self, name: &str, member: &ListEntry) -> Option<()> {
        let value = match member {
            ListEntry::Item(item) => Some(&item.bare_item),
            ListEntry::InnerList(_) => None,
        };
        let span = || match value {
            Some(BareItem::Integer(number)) => Some(Some(clamped(u64::try_from(i64::from(*number)).unwrap_or(0)))),
            _ => None,
        };
        let claim = || match value {
            Some(BareItem::Boolean(claim)) => Some(*claim),
            _ => None,
        };
        match name {
            "max-age" => self.max_age = span()?,
            "s-maxage" => self.s_maxage = span()?,
            "stale-while-revalidate" => self.stale_while_revalidate = span()?,
            "stale-if-error" => self.stale_if_error = span()?,
            "no-store" => self.no_store = claim()?,
            // The qualified form is a string here; it is read as the unqualified one, which is stricter.
            "no-cache" => self.no_cache = matches!(value, Some(BareItem::String(_))) || claim()?,
            "private" => self.private = matches!(value, Some(BareItem::String(_))) || claim()?,
            "public" => self.public = claim()?,
            "must-revalidate" => self.must_revalidate = claim()?,
            "proxy-revalidate" => self.proxy_revalidate = claim()?,
            "must-understand" => self.must_understand = claim()?,
            "immutable" => self.immutable = claim()?,
            _ => {}
        }
        Some(())
    }
}

/// What a request says about the answers it accepts (RFC 9111 section 5.2.1).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RequestControl {
    /// `max-age`: the greatest age accepted.
    pub max_age: Option<Duration>,
    /// `min-fresh`: how much longer it must be fresh.
    pub min_fresh: Option<Duration>,
    /// `max-stale`: how long past its freshness it may be; [`Duration::MAX`] without a value.
    pub max_stale: Option<Duration>,
    /// `stale-if-error` (RFC 5861 section 4).
    pub stale_if_error: Option<Duration>,
    /// `no-cache`, or `Pragma: no-cache` without Cache-Control.
    pub no_cache: bool,
    /// `no-store`.
    pub no_store: bool,
    /// `only-if-cached`.
    pub only_if_cached: bool,
}

impl RequestControl {
    /// Reads Cache-Control, and Pragma where there is none: the fields of
    /// [`Present::CONTROL`](crate::message::present::Present::CONTROL).
    pub fn parse(headers: &HeaderMap) -> Self {
        let mut control = Self::default();
        for line in headers.get_all(CACHE_CONTROL) {
            for (name, argument) in Directives(line.as_bytes()) {
                control.apply(name, argument);
            }
        }
        control.no_cache |= !headers.contains_key(CACHE_CONTROL) && has_pragma_no_cache(headers);
        control
    }

    /// Whether a stale answer is not what is wanted (RFC 9111 section 5.2.1).
    pub const fn wants_fresh(&self) -> bool {
        self.no_cache || self.max_age.is_some() || self.min_fresh.is_some()
    }

    fn apply(&mut self, name: &[u8], argument: Argument<'_>) {
        let mut buffer = [0; LONGEST_NAME];
        match lower(name, &mut buffer) {
            b"max-age" => shorten(&mut self.max_age, argument.seconds()),
            b"min-fresh" => self.min_fresh = self.min_fresh.max(Some(argument.seconds())),
            b"max-stale" => {
                let span = if argument == Argument::None { Duration::MAX } else { argument.seconds() };
                shorten(&mut self.max_stale, span);
            }
            b"stale-if-error" => shorten(&mut self.stale_if_error, argument.seconds()),
            b"no-cache" => self.no_cache = true,
            b"no-store" => self.no_store = true,
            b"only-if-cached" => self.only_if_cached = true,
            _ => {}
        }
    }
}

/// The field names in `no-cache="..."` or `private="..."`: at least one, all well-formed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn new(list: &'a [u8]) -> Option<Self> {
        let fields = Self(list);
        let well_formed = fields.pieces().all(|name| name.iter().all(|byte| is_token(*byte)));
        (well_formed && fields.pieces().next().is_some()).then_some(fields)
    }

    /// Whether `name` is among them.
    pub fn contains(&self, name: &HeaderName) -> bool {
        self.pieces().any(|piece| piece.eq_ignore_ascii_case(name.as_str().as_bytes()))
    }

    /// The names.
    pub fn names(&self) -> impl Iterator<Item = HeaderName> + use<'a> {
        self.pieces().filter_map(|piece| HeaderName::from_bytes(piece).ok())
    }

    fn pieces(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        self.0.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|piece| !piece.is_empty())
    }
}

/// `delta-seconds` (RFC 9111 section 1.2.2): digits only; what is greater than 2^31 is 2^31. `None` for anything else.
pub(crate) fn delta_seconds(digits: &[u8]) -> Option<Duration> {
    if digits.is_empty() {
        return None;
    }
    let mut seconds = 0_u64;
    for digit in digits {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        seconds = (seconds * 10 + digit).min(GREATEST_DELTA);
    }
    Some(Duration::from_secs(seconds))
}

fn clamped(seconds: u64) -> Duration {
    Duration::from_secs(seconds.min(GREATEST_DELTA))
}

/// Of two values the first counts.
fn keep_first(span: &mut Option<Duration>, argument: Argument<'_>) {
    span.get_or_insert_with(|| argument.seconds());
}

/// Of two values the smaller counts.
fn shorten(span: &mut Option<Duration>, other: Duration) {
    *span = Some(span.map_or(other, |span| span.min(other)));
}

/// Reads `no-cache` or `private`: without argument, with a broken one, or with two different lists it is unqualified.
fn qualify<'a>(whole: &mut bool, fields: &mut Option<Fields<'a>>, argument: Argument<'a>) {
    let list = match argument {
        // RFC 9111 section 5.2.2.4: the token form should not be sent; it can be read.
        Argument::Token(list) | Argument::Quoted(list) => Fields::new(list),
        Argument::None | Argument::Broken => None,
    };
    match list {
        Some(list) if fields.is_none_or(|known| known == list) => *fields = Some(list),
        _ => *whole = true,
    }
}

fn has_pragma_no_cache(headers: &HeaderMap) -> bool {
    headers
        .get_all(PRAGMA)
        .iter()
        .any(|line| Directives(line.as_bytes()).any(|(name, _)| name.eq_ignore_ascii_case(b"no-cache")))
}

/// `name` in lower case; empty where it is longer than any name we know.
fn lower<'b>(name: &[u8], buffer: &'b mut [u8; LONGEST_NAME]) -> &'b [u8] {
    let Some(place) = buffer.get_mut(..name.len()) else {
        return &[];
    };
    place.copy_from_slice(name);
    place.make_ascii_lowercase();
    place
}

const fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^'..=b'`' | b'|' | b'~')
}

/// What stands after the `=` of a directive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Argument<'a> {
    None,
    Token(&'a [u8]),
    /// Without its quotes, escapes as they are.
    Quoted(&'a [u8]),
    /// Space around the `=`, an open quote, or text after the closing one.
    Broken,
}

impl Argument<'_> {
    fn seconds(self) -> Duration {
        match self {
            Self::Token(digits) | Self::Quoted(digits) => delta_seconds(digits).unwrap_or_default(),
            Self::None | Self::Broken => Duration::ZERO,
        }
    }
}

/// The directives of one field line: `#( token [ "=" ( token / quoted-string ) ] )`.
struct Directives<'a>(&'a [u8]);

impl<'a> Iterator for Directives<'a> {
    type Item = (&'a [u8], Argument<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let start = self.0.iter().position(|byte| !matches!(byte, b',' | b' ' | b'\t'))?;
        let line = self.0.split_at_checked(start)?.1;
        let end = line.iter().position(|byte| matches!(byte, b'=' | b',')).unwrap_or(line.len());
        let (name, rest) = line.split_at_checked(end)?;
        let trimmed = name.trim_ascii_end();
        let Some(value) = rest.strip_prefix(b"=") else {
            self.0 = rest;
            return Some((trimmed, Argument::None));
        };
        let (argument, rest) = argument(value);
        self.0 = rest;
        Some((trimmed, if trimmed.len() == name.len() { argument } else { Argument::Broken }))
    }
}

/// The argument at the beginning of `value`, and what stands after it.
fn argument(value: &[u8]) -> (Argument<'_>, &[u8]) {
    if let Some(quoted) = value.strip_prefix(b"\"")
        && let Some(end) = closing_quote(quoted)
        && let Some((text, rest)) = quoted.split_at_checked(end)
    {
        let (junk, rest) = until_comma(rest.strip_prefix(b"\"").unwrap_or(rest));
        let argument = if junk.trim_ascii().is_empty() { Argument::Quoted(text) } else { Argument::Broken };
        return (argument, rest);
    }
    // An open quote hides nothing: what follows the next comma is read as directives, for one may be a `no-store`.
    let (token, rest) = until_comma(value);
    let token = token.trim_ascii_end();
    let broken = !token.iter().all(|byte| is_token(*byte));
    (if broken { Argument::Broken } else { Argument::Token(token) }, rest)
}

fn until_comma(text: &[u8]) -> (&[u8], &[u8]) {
    let end = text.iter().position(|byte| *byte == b',').unwrap_or(text.len());
    text.split_at_checked(end).unwrap_or((text, &[]))
}

fn closing_quote(quoted: &[u8]) -> Option<usize> {
    let mut escaped = false;
    quoted.iter().position(|byte| {
        let closes = *byte == b'"' && !escaped;
        escaped = *byte == b'\\' && !escaped;
        closes
    })
}

/// RFC 9111 section 1.2.2: greater values are read as 2^31.
const GREATEST_DELTA: u64 = 1 << 31;

/// `stale-while-revalidate`.
const LONGEST_NAME: usize = 22;

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn lines(field: &str, values: &[&str]) -> HeaderMap {
        let name = HeaderName::try_from(field).unwrap();
        values.iter().map(|value| (name.clone(), HeaderValue::try_from(*value).unwrap())).collect()
    }

    const fn secs(seconds: u64) -> Option<Duration> {
        Some(Duration::from_secs(seconds))
    }

    /// `values` are Cache-Control lines of an answer.
    fn check(values: &[&str], expected: ResponseControl<'_>) {
        let headers = lines("cache-control", values);
        assert_eq!(ResponseControl::parse(&headers, &[]), expected, "{values:?}");
    }

    fn check_max_age(value: &str, expected: u64) {
        check(&[value], ResponseControl { max_age: secs(expected), ..ResponseControl::default() });
    }

    fn check_request(values: &[&str], expected: RequestControl) {
        let headers = lines("cache-control", values);
        assert_eq!(RequestControl::parse(&headers), expected, "{values:?}");
    }

    #[test]
    fn numbers_are_read_towards_less_reuse() {
        // RFC 9111 sections 1.2.2, 4.2.1, 5.2.2.1
        check_max_age("max-age=3600", 3600);
        check_max_age("MaX-aGe=3600", 3600);
        check_max_age("max-age=\"3600\"", 3600);
        check_max_age("max-age=003600", 3600);
        check_max_age("max-age=2147483648", 1 << 31);
        check_max_age("max-age=99999999999", 1 << 31);
        check_max_age("max-age=99999999999999999999999999999999999999", 1 << 31);
        check_max_age("max-age=0", 0);
        check_max_age("max-age=-100", 0);
        check_max_age("max-age=+100", 0);
        check_max_age("max-age='3600'", 0);
        check_max_age("max-age=3600.0", 0);
        check_max_age("max-age=a3600", 0);
        check_max_age("max-age=3600a", 0);
        check_max_age("max-age =3600", 0);
        check_max_age("max-age= 3600", 0);
        check_max_age("max-age=", 0);
        check_max_age("max-age", 0);
        check_max_age("max-age=\"\"", 0);
        check_max_age("max-age=\"3600", 0);
        check_max_age("max-age=\"3600\"x", 0);
        check_max_age("max-age=\"36\\00\"", 0);
        check_max_age("max-age=1800, max-age=1", 1800);
        check_max_age("max-age=1, max-age=1800", 1);
        check_max_age("max-age=1800, max-age=x", 1800);
        check_max_age("max-age=x, max-age=1800", 0);
        check_max_age(",, ,\t max-age=5 ,,", 5);
        check_max_age("foobar, max-age=5, thing=7", 5);
        check_max_age("extension=\"max-age=3600\", max-age=1", 1);
        check_max_age("max-age=1, extension=\"a\\\", max-age=3600\"", 1);
        check_max_age("max-age=5; no-store", 0);
    }

    #[test]
    fn directives_of_answers_are_read() {
        // RFC 9111 section 5.2.2, RFC 5861, RFC 8246
        let none = ResponseControl::default();
        check(&[], none);
        check(&[""], none);
        check(&["="], none);
        check(&["no-store"], ResponseControl { no_store: true, ..none });
        check(&["No-StOrE"], ResponseControl { no_store: true, ..none });
        check(&["no-store=1"], ResponseControl { no_store: true, ..none });
        check(&["no-store\t"], ResponseControl { no_store: true, ..none });
        check(&["no-stored"], none);
        check(&["no-cache"], ResponseControl { no_cache: true, ..none });
        check(&["private"], ResponseControl { private: true, ..none });
        check(&["public, immutable"], ResponseControl { public: true, immutable: true, ..none });
        check(&["must-revalidate"], ResponseControl { must_revalidate: true, ..none });
        check(&["proxy-revalidate"], ResponseControl { proxy_revalidate: true, ..none });
        check(&["must-understand"], ResponseControl { must_understand: true, ..none });
        check(&["s-maxage=9", "max-age=3"], ResponseControl { s_maxage: secs(9), max_age: secs(3), ..none });
        check(
            &["stale-while-revalidate=7, stale-if-error=8"],
            ResponseControl { stale_while_revalidate: secs(7), stale_if_error: secs(8), ..none },
        );
        // An open quote does not hide what follows.
        check(&["ext=\"abc, no-store"], ResponseControl { no_store: true, ..none });
        check(&["max-age=60", "no-store"], ResponseControl { max_age: secs(60), no_store: true, ..none });
    }

    #[test]
    fn qualified_forms_name_fields() {
        // RFC 9111 sections 5.2.2.4, 5.2.2.7
        let none = ResponseControl::default();
        let fields = |list: &'static str| Fields::new(list.as_bytes());
        check(&["no-cache=\"Set-Cookie\""], ResponseControl { no_cache_fields: fields("Set-Cookie"), ..none });
        check(&["private=\"a, b\""], ResponseControl { private_fields: fields("a, b"), ..none });
        check(&["private=a"], ResponseControl { private_fields: fields("a"), ..none });
        check(&["no-cache=\"a\"", "no-cache=\"a\""], ResponseControl { no_cache_fields: fields("a"), ..none });
        check(
            &["no-cache=\"a\", no-cache=\"b\""],
            ResponseControl { no_cache: true, no_cache_fields: fields("a"), ..none },
        );
        check(&["no-cache=\"a\", no-cache"], ResponseControl { no_cache: true, no_cache_fields: fields("a"), ..none });
        check(&["no-cache=\"\""], ResponseControl { no_cache: true, ..none });
        check(&["private=\"a b\""], ResponseControl { private: true, ..none });
        check(&["private=\"a"], ResponseControl { private: true, ..none });
        let names: Vec<_> = fields("Set-Cookie, ,x-a").unwrap().names().collect();
        assert_eq!(names, ["set-cookie", "x-a"]);
    }

    #[test]
    fn targeted_fields_replace_cache_control() {
        // RFC 9213 section 2
        let targeted = [HeaderName::from_static("vaxel-cache-control"), HeaderName::from_static("cdn-cache-control")];
        let check = |field: &str, values: &[&str], expected: Option<ResponseControl<'_>>| {
            let mut headers = lines(field, values);
            headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
            let fallback = ResponseControl { no_store: true, ..ResponseControl::default() };
            assert_eq!(
                ResponseControl::parse(&headers, &targeted),
                expected.unwrap_or(fallback),
                "{field}: {values:?}"
            );
        };
        let found = ResponseControl { targeted: true, ..ResponseControl::default() };
        check("cdn-cache-control", &["max-age=10"], Some(ResponseControl { max_age: secs(10), ..found }));
        check(
            "cdn-cache-control",
            &["max-age=1", "private"],
            Some(ResponseControl { max_age: secs(1), private: true, ..found }),
        );
        check("cdn-cache-control", &["max-age=10;x=1, foo=bar"], Some(ResponseControl { max_age: secs(10), ..found }));
        check("cdn-cache-control", &["max-age=99999999999"], Some(ResponseControl { max_age: secs(1 << 31), ..found }));
        check("cdn-cache-control", &["max-age=-5"], Some(ResponseControl { max_age: secs(0), ..found }));
        check("cdn-cache-control", &["no-cache=\"a\""], Some(ResponseControl { no_cache: true, ..found }));
        check("cdn-cache-control", &["no-store=?0"], Some(found));
        check("cdn-cache-control", &["unknown"], Some(found));
        check("cdn-cache-control", &["max-age=10, &&&&&"], None);
        check("cdn-cache-control", &["max-age=\"10\""], None);
        check("cdn-cache-control", &["max-age = 10"], None);
        check("cdn-cache-control", &["Max-Age=10"], None);
        check("cdn-cache-control", &["no-store=1"], None);
        check("cdn-cache-control", &["max-age=(1 2)"], None);
        check("cdn-cache-control", &[""], None);
        check("other-cache-control", &["max-age=10"], None);

        let mut both = lines("cdn-cache-control", &["max-age=10"]);
        both.insert("vaxel-cache-control", HeaderValue::from_static("max-age=20"));
        assert_eq!(ResponseControl::parse(&both, &targeted).max_age, secs(20));
        both.insert("vaxel-cache-control", HeaderValue::from_static("?!"));
        assert_eq!(ResponseControl::parse(&both, &targeted).max_age, secs(10));
    }

    #[test]
    fn directives_of_requests_are_read() {
        // RFC 9111 section 5.2.1, RFC 5861 section 4
        let none = RequestControl::default();
        check_request(&[], none);
        check_request(&["max-age=0"], RequestControl { max_age: secs(0), ..none });
        check_request(&["max-age=9, max-age=3"], RequestControl { max_age: secs(3), ..none });
        check_request(&["min-fresh=9, min-fresh=30"], RequestControl { min_fresh: secs(30), ..none });
        check_request(&["max-stale"], RequestControl { max_stale: Some(Duration::MAX), ..none });
        check_request(&["max-stale=5"], RequestControl { max_stale: secs(5), ..none });
        check_request(&["max-stale, max-stale=5"], RequestControl { max_stale: secs(5), ..none });
        check_request(&["max-stale=x"], RequestControl { max_stale: secs(0), ..none });
        check_request(&["no-cache"], RequestControl { no_cache: true, ..none });
        check_request(&["no-store"], RequestControl { no_store: true, ..none });
        check_request(&["ONLY-IF-CACHED"], RequestControl { only_if_cached: true, ..none });
        check_request(&["stale-if-error=60"], RequestControl { stale_if_error: secs(60), ..none });
        check_request(&["s-maxage=1, private"], none);
    }

    #[test]
    fn pragma_counts_only_without_cache_control() {
        // RFC 9111 section 5.4
        let mut headers = lines("pragma", &["x, No-Cache"]);
        assert!(RequestControl::parse(&headers).no_cache);
        assert!(ResponseControl::parse(&headers, &[]).no_cache);
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("max-age=60"));
        assert!(!RequestControl::parse(&headers).no_cache);
        assert!(!ResponseControl::parse(&headers, &[]).no_cache);
        assert!(!RequestControl::parse(&lines("pragma", &["no-cached"])).no_cache);
    }

    proptest! {
        #[test]
        fn parsing_never_panics(values in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..60), 0..4)) {
            let mut headers = HeaderMap::new();
            for value in values {
                if let Ok(value) = HeaderValue::from_bytes(&value) {
                    headers.append("cdn-cache-control", value.clone());
                    headers.append(CACHE_CONTROL, value.clone());
                    headers.append(PRAGMA, value);
                }
            }
            ResponseControl::parse(&headers, &[]);
            ResponseControl::parse(&headers, &[HeaderName::from_static("cdn-cache-control")]);
            RequestControl::parse(&headers);
        }

        #[test]
        fn no_store_is_seen_behind_anything_outside_quotes(before in "[a-z=, ;\\-]{0,30}") {
            let headers = lines("cache-control", &[&format!("{before},no-store")]);
            prop_assert!(ResponseControl::parse(&headers, &[]).no_store);
        }
    }
}
