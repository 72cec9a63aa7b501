//! May the stored answer serve this request (RFC 9111 section 4), what is asked of the origin when it may not
//! (section 4.3.1), and what of it is answered to a conditional or range request (section 4.3.2, RFC 9110 section 13).

use std::ops::Range;
use std::time::{Duration, Instant};

use http::header::{
    CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, IF_MATCH, IF_MODIFIED_SINCE,
    IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, LAST_MODIFIED, RANGE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use crate::cache::control::RequestControl;
use crate::cache::entry::Head;
use crate::cache::freshness::http_date;
use crate::cache::range::{self, Selected};
use crate::cache::storing::{SAP_CONTEXTID, X_CSRF_TOKEN};

/// Why a request goes past the cache: it is neither answered from it, nor collapsed, nor is its answer stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Bypass {
    /// Neither GET nor HEAD.
    Method,
    /// It has content, on which the answer may depend (a search); the key knows nothing of it (RFC 9110 section 9.3.1).
    Content,
    /// If-Match or If-Unmodified-Since: only the origin knows its state (RFC 9111 section 4.3.2).
    Precondition,
    /// It asks for a token of its own (`X-CSRF-Token: Fetch`).
    TokenFetch,
    /// It belongs to a session of the backend (sap-contextid).
    Session,
}

impl Bypass {
    /// The stable code, for `Cache-Status: detail` and logs.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Method => "method",
            Self::Content => "content",
            Self::Precondition => "precondition",
            Self::TokenFetch => "token_fetch",
            Self::Session => "session",
        }
    }
}

/// Whether a request goes past the cache, and why; `content`: it has some. A token *value* in X-CSRF-Token does not
/// prevent a hit. The fields are those of [`Present::PAST`](crate::message::present::Present::PAST): where none of them is
/// there, nobody asks.
pub fn bypass(method: &Method, headers: &HeaderMap, content: bool) -> Option<Bypass> {
    if !matches!(*method, Method::GET | Method::HEAD) {
        Some(Bypass::Method)
    } else if content {
        Some(Bypass::Content)
    } else if headers.contains_key(IF_MATCH) || headers.contains_key(IF_UNMODIFIED_SINCE) {
        Some(Bypass::Precondition)
    } else if headers.get_all(X_CSRF_TOKEN).iter().any(|token| is_fetch(token.as_bytes())) {
        Some(Bypass::TokenFetch)
    } else if headers.contains_key(SAP_CONTEXTID) {
        Some(Bypass::Session)
    } else {
        None
    }
}

/// What a stored answer is good for now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reuse {
    /// Serve it.
    Fresh,
    /// Serve it and refresh it in the background (RFC 5861 section 3).
    StaleWhileRevalidate,
    /// Serve it: stale, but the request accepts that (`max-stale`, RFC 9111 section 5.2.1.2).
    MaxStale,
    /// Ask the origin with [`validation`] fields; when that fails, [`on_error`] says whether it stands in.
    Validate,
    /// Ask the origin as for a miss; when that fails, it stands in.
    OnlyOnError,
    /// Good for nothing: a miss.
    Gone,
}

impl Reuse {
    /// Whether it is served without asking the origin first.
    pub const fn is_served(self) -> bool {
        matches!(self, Self::Fresh | Self::StaleWhileRevalidate | Self::MaxStale)
    }
}

/// Decides whether a stored answer serves a request at `now` (RFC 9111 section 4).
pub fn decide(head: &Head, soft_purged: bool, control: &RequestControl, now: Instant) -> Reuse {
    let life = &head.life;
    let age = head.age(now);
    let staleness = head.past(age).or_else(|| soft_purged.then_some(Duration::ZERO));
    let not_served = || {
        if head.has_validator() && age < life.end() {
            Reuse::Validate
        } else if on_error(head, control, now) {
            Reuse::OnlyOnError
        } else {
            Reuse::Gone
        }
    };
    if life.always_validate || control.no_cache {
        return not_served();
    }
    // RFC 8246: a reload (max-age=0) finds an immutable answer unchanged; a forced one (no-cache) was handled above.
    let reload = life.immutable && staleness.is_none() && control.max_age == Some(Duration::ZERO);
    if control.max_age.is_some_and(|max_age| age > max_age) && !reload {
        return not_served();
    }
    let Some(staleness) = staleness else {
        let remaining = life.fresh.saturating_sub(age);
        let enough = control.min_fresh.is_none_or(|min_fresh| remaining >= min_fresh);
        return if enough { Reuse::Fresh } else { not_served() };
    };
    if !life.must_revalidate && control.max_stale.is_some_and(|max_stale| staleness <= max_stale) {
        // Within the origin's own window it is refreshed as well.
        return if staleness < life.swr { Reuse::StaleWhileRevalidate } else { Reuse::MaxStale };
    }
    // RFC 9111 sections 5.2.1.1 and 5.2.1.3: max-age and min-fresh without max-stale ask for a fresh answer.
    let wants_fresh = control.max_age.is_some() || control.min_fresh.is_some();
    if staleness < life.swr && !wants_fresh { Reuse::StaleWhileRevalidate } else { not_served() }
}

/// The same for an answer that is outdated: something was written since. It is neither served nor validated, for a
/// validator of one second's resolution is the same before and after a write; it only stands in for a failing origin.
pub fn decide_outdated(head: &Head, control: &RequestControl, now: Instant) -> Reuse {
    if on_error(head, control, now) { Reuse::OnlyOnError } else { Reuse::Gone }
}

/// Whether a stored answer stands in at `now` for an origin that fails (RFC 5861 section 4, RFC 9111 section 4.2.4).
pub fn on_error(head: &Head, control: &RequestControl, now: Instant) -> bool {
    let life = &head.life;
    let asked = if life.must_revalidate { None } else { control.stale_if_error };
    let window = life.sie.max(asked.unwrap_or_default());
    !life.always_validate && head.staleness(now).unwrap_or_default() < window
}

/// Turns the fields of a request into those that validate the stored answer (RFC 9111 section 4.3.1). The client's own
/// conditions and ranges go; [`answer`] meets them with the refreshed answer.
pub fn validation(head: &Head, request: &mut HeaderMap) {
    for name in [IF_NONE_MATCH, IF_MODIFIED_SINCE, IF_RANGE, RANGE] {
        request.remove(name);
    }
    if let Some(etag) = &head.etag {
        request.insert(IF_NONE_MATCH, etag.clone());
    }
    if let Some(modified) = head.headers.get(LAST_MODIFIED).filter(|_| head.last_modified.is_some()) {
        request.insert(IF_MODIFIED_SINCE, modified.clone());
    }
}

/// What of the stored answer goes to the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// All of it.
    Full,
    /// 304, with the fields [`is_in_not_modified`] lets through.
    NotModified,
    /// 206 with one range of the body.
    Range(Range<u64>),
    /// 206 `multipart/byteranges` ([`range::multipart`]).
    Multi(Vec<Range<u64>>),
    /// 416.
    Unsatisfiable,
}

/// Meets the conditions of a request with the stored answer, whose body is `body_len` bytes long, in the order of RFC
/// 9110 section 13.2.2. Only a stored 200 has conditions and ranges (RFC 9111 section 4.3.2); only GET has ranges.
/// The fields are those of [`Present::CONDITION`](crate::message::present::Present::CONDITION).
pub fn answer(head: &Head, body_len: u64, method: &Method, request: &HeaderMap) -> Answer {
    let has_conditions = matches!(*method, Method::GET | Method::HEAD); // RFC 9110 section 13.1.3
    if head.status != StatusCode::OK || !has_conditions {
        return Answer::Full;
    }
    let unmodified = if request.contains_key(IF_NONE_MATCH) {
        is_none_match_met(head, request)
    } else {
        // RFC 9111 section 4.3.2: without Last-Modified the Date counts.
        let modified = head.last_modified.unwrap_or(head.date);
        http_date(request, &IF_MODIFIED_SINCE).is_some_and(|since| modified <= since)
    };
    if unmodified {
        return Answer::NotModified;
    }
    if method != Method::GET || !is_range_wanted(head, request) {
        return Answer::Full;
    }
    match range::select(request, body_len) {
        Selected::Whole => Answer::Full,
        Selected::One(range) => Answer::Range(range),
        Selected::Many(ranges) => Answer::Multi(ranges),
        Selected::Unsatisfiable => Answer::Unsatisfiable,
    }
}

/// Whether a stored field goes into a 304: all but what describes a body that is not there (RFC 9110 section 15.4.5).
pub fn is_in_not_modified(name: &HeaderName) -> bool {
    ![CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE].contains(name)
}

/// The entity tag of an answer (RFC 9110 section 8.8.3); `None` where there is none, or several. One without quotes is
/// taken as it is: old servers make them and know them again.
pub(crate) fn entity_tag(headers: &HeaderMap) -> Option<HeaderValue> {
    let mut lines = headers.get_all(ETAG).iter();
    let tag = lines.next()?;
    let text = tag.as_bytes();
    let readable = !text.is_empty() && entity_tags(text).eq([text]) && text != b"*";
    (readable && lines.next().is_none()).then(|| tag.clone())
}

/// Weak comparison (RFC 9110 section 8.8.3.2): equal but for `W/`.
pub(crate) fn is_weakly_equal(one: &[u8], other: &[u8]) -> bool {
    one.strip_prefix(b"W/").unwrap_or(one) == other.strip_prefix(b"W/").unwrap_or(other)
}

/// Strong comparison: equal, and neither is weak.
fn is_strongly_equal(one: &[u8], other: &[u8]) -> bool {
    one.starts_with(b"\"") && one == other
}

/// If-None-Match, true meaning 304 (RFC 9110 section 13.1.2): `*` matches anything stored, a list by weak comparison. Tags
/// whose quotes were lost on either side are the same tags: servers without quotes meet clients that add them.
fn is_none_match_met(head: &Head, request: &HeaderMap) -> bool {
    request.get_all(IF_NONE_MATCH).iter().any(|line| {
        let line = line.as_bytes().trim_ascii();
        line == b"*"
            || head
                .etag
                .as_ref()
                .is_some_and(|etag| entity_tags(line).any(|tag| opaque(tag) == opaque(etag.as_bytes())))
    })
}

/// What a tag says, without `W/` and quotes.
fn opaque(tag: &[u8]) -> &[u8] {
    let tag = tag.strip_prefix(b"W/").unwrap_or(tag);
    tag.strip_prefix(b"\"").and_then(|tag| tag.strip_suffix(b"\"")).unwrap_or(tag)
}

/// If-Range (RFC 9110 section 13.1.5): ranges are answered only from the very representation the client has parts of.
fn is_range_wanted(head: &Head, request: &HeaderMap) -> bool {
    if !request.contains_key(RANGE) {
        return false;
    }
    let mut lines = request.get_all(IF_RANGE).iter();
    let Some(condition) = lines.next() else {
        return true;
    };
    if lines.next().is_some() {
        return false;
    }
    let text = condition.as_bytes();
    if text.starts_with(b"\"") || text.starts_with(b"W/") {
        return head.etag.as_ref().is_some_and(|etag| is_strongly_equal(text, etag.as_bytes()));
    }
    // A date is a strong validator where it is a second older than the answer (RFC 9110 section 8.8.2.2).
    let strong = head.last_modified.filter(|modified| *modified + Duration::from_secs(1) <= head.date);
    strong.is_some() && http_date(request, &IF_RANGE) == strong
}

/// The members of a list of entity tags; a comma inside quotes separates nothing.
fn entity_tags(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut quoted = false;
    list.split(move |byte| {
        quoted ^= *byte == b'"';
        *byte == b',' && !quoted
    })
    .map(<[u8]>::trim_ascii)
    .filter(|tag| !tag.is_empty())
}

fn is_fetch(token: &[u8]) -> bool {
    token.trim_ascii().eq_ignore_ascii_case(b"fetch")
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use proptest::prelude::*;

    use super::*;
    use crate::cache::CacheParams;
    use crate::cache::key::KeyParts;
    use crate::cache::storing::{self, Asked};
    use crate::clock::Clock;

    const MODIFIED: &str = "last-modified: Thu, 01 Jan 1970 00:00:10 GMT\ndate: Thu, 01 Jan 1970 00:01:00 GMT";

    fn fields(text: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            let (name, value) = line.trim().split_once(':').unwrap();
            headers.append(HeaderName::try_from(name).unwrap(), HeaderValue::try_from(value.trim()).unwrap());
        }
        headers
    }

    fn stored_with(status: u16, params: &CacheParams, answer: &str) -> Head {
        let request = HeaderMap::new();
        let parts =
            KeyParts { scheme: "http", host: "a", path: "/", query: None, upstream: "u", partition: None, body: None };
        let asked = Asked { method: &Method::GET, headers: &request, parts };
        let moment = Clock::anchored(SystemTime::UNIX_EPOCH + Duration::from_secs(60)).moment();
        let status = StatusCode::from_u16(status).unwrap();
        storing::decide(&asked, status, &fields(answer), params, &|| moment, moment.mono).unwrap()
    }

    fn stored(answer: &str) -> Head {
        stored_with(200, &CacheParams::default(), answer)
    }

    /// What an answer with Cache-Control `answer` and an entity tag is good for after `seconds`, to a request with
    /// Cache-Control `request`.
    fn check(answer: &str, request: &str, seconds: u64, expected: Reuse) {
        let head = stored(&format!("etag: \"a\"\ncache-control: {answer}"));
        let control = RequestControl::parse(&fields(&format!("cache-control: {request}")));
        let found = decide(&head, false, &control, head.received + Duration::from_secs(seconds));
        assert_eq!(found, expected, "{answer} ← {request} after {seconds}");
    }

    #[test]
    fn time_decides() {
        // RFC 9111 section 4, RFC 5861 section 3
        use Reuse::{Fresh, Gone, StaleWhileRevalidate, Validate};
        check("max-age=10", "", 0, Fresh);
        check("max-age=10", "", 9, Fresh);
        check("max-age=10", "", 10, Validate);
        check("max-age=10", "", 3609, Validate);
        check("max-age=10", "", 3610, Gone);
        check("max-age=10, stale-while-revalidate=5", "", 14, StaleWhileRevalidate);
        check("max-age=10, stale-while-revalidate=5", "", 15, Validate);
        check("max-age=0, stale-while-revalidate=5", "", 0, StaleWhileRevalidate);
        check("max-age=10, no-cache, stale-while-revalidate=5", "", 0, Validate);
        check("max-age=10, must-revalidate, stale-while-revalidate=5", "", 10, Validate);
        check("s-maxage=10", "", 9, Fresh);
        check("s-maxage=10", "", 10, Validate);
    }

    #[test]
    fn requests_narrow_and_widen() {
        // RFC 9111 section 5.2.1, RFC 8246
        use Reuse::{Fresh, MaxStale, StaleWhileRevalidate, Validate};
        check("max-age=10", "no-cache", 0, Validate);
        check("max-age=10", "max-age=0", 0, Fresh);
        check("max-age=10", "max-age=0", 1, Validate);
        check("max-age=10", "max-age=3", 3, Fresh);
        check("max-age=10", "max-age=3", 4, Validate);
        check("max-age=10", "min-fresh=5", 5, Fresh);
        check("max-age=10", "min-fresh=5", 6, Validate);
        check("max-age=10", "max-stale", 3000, MaxStale);
        check("max-age=10", "max-stale=5", 15, MaxStale);
        check("max-age=10", "max-stale=5", 16, Validate);
        check("max-age=10", "max-stale=5, max-age=12", 13, Validate);
        check("max-age=10, must-revalidate", "max-stale", 10, Validate);
        check("max-age=10, proxy-revalidate", "max-stale", 10, Validate);
        check("s-maxage=10", "max-stale", 10, Validate);
        check("max-age=10, no-cache", "max-stale", 0, Validate);
        check("max-age=10, stale-while-revalidate=9", "max-stale", 12, StaleWhileRevalidate);
        check("max-age=10, stale-while-revalidate=9", "max-age=100", 12, Validate);
        check("max-age=10, stale-while-revalidate=9", "min-fresh=1", 12, Validate);
        check("max-age=10, immutable", "max-age=0", 5, Fresh);
        check("max-age=10, immutable", "max-age=0", 10, Validate);
        check("max-age=10, immutable", "no-cache", 5, Validate);
        check("max-age=10", "only-if-cached", 5, Fresh);
    }

    #[test]
    fn an_answer_stands_in_for_a_failing_origin() {
        // RFC 5861 section 4, RFC 9111 section 4.2.4
        let check = |answer: &str, request: &str, seconds: u64, expected: bool| {
            let params = CacheParams { stale_if_error: Duration::from_secs(7), ..CacheParams::default() };
            let head = stored_with(200, &params, &format!("etag: \"a\"\ncache-control: {answer}"));
            let control = RequestControl::parse(&fields(&format!("cache-control: {request}")));
            let now = head.received + Duration::from_secs(seconds);
            assert_eq!(on_error(&head, &control, now), expected, "{answer} ← {request} after {seconds}");
        };
        check("max-age=10", "", 16, true);
        check("max-age=10", "", 17, false);
        check("max-age=10", "stale-if-error=20", 29, true);
        check("max-age=10, stale-if-error=3", "", 13, false);
        check("max-age=10, stale-if-error=3", "no-cache", 5, true);
        check("max-age=10, must-revalidate", "stale-if-error=20", 10, false);
        check("max-age=10, no-cache", "stale-if-error=20", 0, false);
        check("s-maxage=10", "stale-if-error=20", 10, false);
        check("s-maxage=10, stale-if-error=5", "", 12, true);
    }

    #[test]
    fn without_a_validator_an_answer_is_only_for_errors() {
        let head = stored("cache-control: max-age=10, stale-if-error=5");
        let at =
            |seconds| decide(&head, false, &RequestControl::default(), head.received + Duration::from_secs(seconds));
        assert_eq!([at(9), at(10), at(15)], [Reuse::Fresh, Reuse::OnlyOnError, Reuse::Gone]);
    }

    #[test]
    fn a_soft_purged_answer_is_stale() {
        let head = stored("etag: \"a\"\ncache-control: max-age=10");
        assert_eq!(decide(&head, true, &RequestControl::default(), head.received), Reuse::Validate);
        let head = stored("cache-control: max-age=10, stale-while-revalidate=5");
        let at =
            |seconds| decide(&head, true, &RequestControl::default(), head.received + Duration::from_secs(seconds));
        assert_eq!([at(0), at(14), at(15)], [Reuse::StaleWhileRevalidate, Reuse::StaleWhileRevalidate, Reuse::Gone]);
        assert!(Reuse::StaleWhileRevalidate.is_served() && !Reuse::Validate.is_served());
    }

    /// What of a stored 200 with the fields `answer` and 100 bytes goes to a GET with the fields `request`.
    fn check_answer(answer_fields: &str, request: &str, expected: Answer) {
        let head = stored(&format!("cache-control: max-age=60\n{answer_fields}"));
        assert_eq!(answer(&head, 100, &Method::GET, &fields(request)), expected, "{answer_fields} ← {request}");
    }

    #[test]
    fn conditions_are_met_from_the_store() {
        // RFC 9110 sections 13.1.2, 13.1.3, 13.2.2; RFC 9111 section 4.3.2
        use Answer::{Full, NotModified};
        check_answer("etag: \"a\"", "", Full);
        check_answer("etag: \"a\"", "if-none-match: \"a\"", NotModified);
        check_answer("etag: \"a\"", "if-none-match: W/\"a\"", NotModified);
        check_answer("etag: W/\"a\"", "if-none-match: \"a\"", NotModified);
        check_answer("etag: \"a\"", "if-none-match: \"b\"", Full);
        check_answer("etag: \"a\"", "if-none-match: \"b\", \"a\" ,\"c\"", NotModified);
        check_answer("etag: \"a\"", "if-none-match: \"b\"\nif-none-match: \"a\"", NotModified);
        check_answer("etag: \"a,b\"", "if-none-match: \"x\", \"a,b\"", NotModified);
        check_answer("etag: \"a\"", "if-none-match: \"x,\"a\"", Full);
        check_answer("etag: \"a\"", "if-none-match: *", NotModified);
        check_answer("", "if-none-match: *", NotModified);
        check_answer("", "if-none-match: \"a\"", Full);
        check_answer("etag: \"a\"", "if-none-match:", Full);
        check_answer("etag: a", "if-none-match: a", NotModified);
        check_answer("etag: \"a\"", "if-none-match: a", NotModified);
        check_answer("etag: a", "if-none-match: \"a\"", NotModified);
        check_answer("etag: a", "if-none-match: \"a", Full);
        check_answer(MODIFIED, "if-modified-since: Thu, 01 Jan 1970 00:00:10 GMT", NotModified);
        check_answer(MODIFIED, "if-modified-since: Thu, 01 Jan 1970 00:00:11 GMT", NotModified);
        check_answer(MODIFIED, "if-modified-since: Thu, 01 Jan 1970 00:00:09 GMT", Full);
        check_answer(MODIFIED, "if-modified-since: yesterday", Full);
        check_answer(MODIFIED, "if-modified-since: Thu, 01 Jan 1970 00:00:11 GMT\nif-none-match: \"b\"", Full);
        check_answer("", "if-modified-since: Thu, 01 Jan 1970 00:01:00 GMT", NotModified); // Date counts
        check_answer("", "if-modified-since: Thu, 01 Jan 1970 00:00:59 GMT", Full);
        check_answer("etag: \"a\"", "if-none-match: \"a\"\nrange: bytes=0-1", NotModified);
        let missing = stored_with(404, &CacheParams::default(), "cache-control: max-age=60\netag: \"a\"");
        assert_eq!(answer(&missing, 9, &Method::GET, &fields("if-none-match: \"a\"\nrange: bytes=0-1")), Full);
    }

    #[test]
    fn ranges_are_cut_from_the_store() {
        // RFC 9110 sections 13.1.5, 14.2
        use Answer::{Full, Multi, NotModified, Range, Unsatisfiable};
        check_answer("", "range: bytes=0-1", Range(0..2));
        check_answer("", "range: bytes=0-1,5-6", Multi(vec![0..2, 5..7]));
        check_answer("", "range: bytes=100-", Unsatisfiable);
        check_answer("", "range: lines=1-2", Full);
        check_answer("etag: \"a\"", "range: bytes=0-1\nif-range: \"a\"", Range(0..2));
        check_answer("etag: \"a\"", "range: bytes=0-1\nif-range: \"b\"", Full);
        check_answer("etag: \"a\"", "range: bytes=100-\nif-range: \"b\"", Full);
        check_answer("etag: W/\"a\"", "range: bytes=0-1\nif-range: W/\"a\"", Full);
        check_answer("etag: \"a\"", "range: bytes=0-1\nif-range: W/\"a\"", Full);
        check_answer("", "range: bytes=0-1\nif-range: \"a\"", Full);
        check_answer("", "if-range: \"a\"", Full);
        check_answer(MODIFIED, "range: bytes=0-1\nif-range: Thu, 01 Jan 1970 00:00:10 GMT", Range(0..2));
        check_answer(MODIFIED, "range: bytes=0-1\nif-range: Thu, 01 Jan 1970 00:00:11 GMT", Full);
        check_answer(MODIFIED, "range: bytes=0-1\nif-range: later", Full);
        let just_now = "last-modified: Thu, 01 Jan 1970 00:01:00 GMT\ndate: Thu, 01 Jan 1970 00:01:00 GMT";
        check_answer(just_now, "range: bytes=0-1\nif-range: Thu, 01 Jan 1970 00:01:00 GMT", Full);
        let head = stored("cache-control: max-age=60\netag: \"a\"");
        assert_eq!(answer(&head, 100, &Method::HEAD, &fields("range: bytes=0-1")), Full);
        assert_eq!(answer(&head, 100, &Method::HEAD, &fields("if-none-match: \"a\"")), NotModified);
    }

    #[test]
    fn validation_asks_with_our_own_conditions() {
        // RFC 9111 section 4.3.1
        let head = stored(&format!("etag: \"a\"\n{MODIFIED}"));
        let mut request = fields("if-none-match: \"x\"\nif-modified-since: x\nif-range: x\nrange: x\nfoo: 1");
        validation(&head, &mut request);
        assert_eq!(request, fields("if-none-match: \"a\"\nif-modified-since: Thu, 01 Jan 1970 00:00:10 GMT\nfoo: 1"));
    }

    #[test]
    fn some_requests_go_past_the_cache() {
        let check = |method: Method, request: &str, expected: Option<Bypass>| {
            assert_eq!(bypass(&method, &fields(request), false), expected, "{method} {request}");
        };
        check(Method::GET, "", None);
        check(Method::HEAD, "", None);
        check(Method::POST, "", Some(Bypass::Method));
        check(Method::GET, "if-match: \"a\"", Some(Bypass::Precondition));
        check(Method::GET, "if-unmodified-since: x", Some(Bypass::Precondition));
        check(Method::GET, "x-csrf-token: Fetch", Some(Bypass::TokenFetch));
        check(Method::GET, "x-csrf-token: abc", None);
        check(Method::GET, "sap-contextid: abc", Some(Bypass::Session));
        check(Method::GET, "range: bytes=0-1\nif-none-match: *", None);
        assert_eq!(bypass(&Method::GET, &HeaderMap::new(), true), Some(Bypass::Content));
    }

    #[test]
    fn a_304_describes_no_body() {
        // RFC 9110 section 15.4.5
        let let_through = |name| is_in_not_modified(&HeaderName::from_static(name));
        assert!(["etag", "date", "vary", "cache-control", "expires", "content-location"].into_iter().all(let_through));
        assert!(!["content-type", "content-encoding", "content-length"].into_iter().any(let_through));
    }

    proptest! {
        #[test]
        fn what_was_not_served_is_not_served_later(max_age in 0..20_u64, swr in 0..20_u64, early in 0..60_u64, more in 0..60_u64) {
            let head = stored(&format!("etag: \"a\"\ncache-control: max-age={max_age}, stale-while-revalidate={swr}"));
            let at = |seconds| decide(&head, false, &RequestControl::default(), head.received + Duration::from_secs(seconds));
            prop_assert!(at(early).is_served() || !at(early + more).is_served());
            prop_assert!(at(early) == Reuse::Fresh || at(early + more) != Reuse::Fresh);
        }

        #[test]
        fn answers_never_reach_outside_the_body(
            range in "(bytes=)?[0-9, -]{0,20}", tag in "[ -~]{0,12}", length in 0..30_u64,
        ) {
            let head = stored("cache-control: max-age=60\netag: \"a\"");
            let request = fields(&format!("range: {range}\nif-none-match: {tag}"));
            let inside = |range: &Range<u64>| range.start < range.end && range.end <= length;
            match answer(&head, length, &Method::GET, &request) {
                Answer::Range(range) => prop_assert!(inside(&range)),
                Answer::Multi(ranges) => prop_assert!(ranges.iter().all(inside)),
                Answer::Full | Answer::NotModified | Answer::Unsatisfiable => {}
            }
        }

        #[test]
        fn any_entity_tag_is_read_without_panic(tag in proptest::collection::vec(any::<u8>(), 0..20)) {
            if let Ok(value) = HeaderValue::from_bytes(&tag) {
                let headers = HeaderMap::from_iter([(ETAG, value.clone()), (IF_NONE_MATCH, value)]);
                let mut head = stored("cache-control: max-age=60");
                head.etag = entity_tag(&headers);
                let found = answer(&head, 1, &Method::GET, &headers);
                prop_assert!(head.etag.is_none() || found == Answer::NotModified, "a tag matches itself: {tag:?}");
            }
        }
    }
}
