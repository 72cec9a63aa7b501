//! May the stored answer serve this request (RFC 9111 section 4), what is asked of the origin when it may not
//! (section 4.3.1), and what of it is answered to a conditional or range request (section 4.3.2, RFC 9110 section 13).

use std::ops::Range;
use std::time::{Duration, Instant};

use http::header::{
    CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG,
    IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, LAST_MODIFIED,
    RANGE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use crate::cache::control::RequestControl;
use crate::cache::entry::Head;
use crate::cache::freshness::http_date;
use crate::cache::range::{self, Selected};

/// Why a request goes past the cache: it is neither answered from it, nor collapsed, nor is its answer stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Bypass {
    /// Neither GET nor HEAD.
    Method,
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
            Self::Precondition => "precondition",
            Self::TokenFetch => "token_fetch",
            Self::Session => "session",
        }
    }
}

/// Whether a request goes past the cache, and why. A token *value* in X-CSRF-Token does not prevent a hit.
pub fn bypass(method: &Method, headers: &HeaderMap) -> Option<Bypass> {
    if !matches!(*method, Method::GET | Method::HEAD) {
        Some(Bypass::Method)
    } else if headers.contains_key(IF_MATCH) || headers.contains_key(IF_UNMODIFIED_SINCE) {
        Some(Bypass::Precondition)
    } else if headers
        .get_all("x-csrf-token")
        .iter()
        .any(|token| is_fetch(token.as_bytes()))
    {
        Some(Bypass::TokenFetch)
    } else if headers.contains_key("sap-contextid") {
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
        matches!(
            self,
            Self::Fresh | Self::StaleWhileRevalidate | Self::MaxStale
        )
    }
}

/// Decides whether a stored answer serves a request at `now` (RFC 9111 section 4).
pub fn decide(head: &Head, soft_purged: bool, control: &RequestControl, now: Instant) -> Reuse {
    let life = &head.life;
    let age = head.age(now);
    let staleness = head
        .staleness(now)
        .or_else(|| soft_purged.then_some(Duration::ZERO));
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
        let enough = control
            .min_fresh
            .is_none_or(|min_fresh| remaining >= min_fresh);
        return if enough { Reuse::Fresh } else { not_served() };
    };
    if !life.must_revalidate
        && control
            .max_stale
            .is_some_and(|max_stale| staleness <= max_stale)
    {
        // Within the origin's own window it is refreshed as well.
        return if staleness < life.swr {
            Reuse::StaleWhileRevalidate
        } else {
            Reuse::MaxStale
        };
    }
    // RFC 9111 sections 5.2.1.1 and 5.2.1.3: max-age and min-fresh without max-stale ask for a fresh answer.
    let wants_fresh = control.max_age.is_some() || control.min_fresh.is_some();
    if staleness < life.swr && !wants_fresh {
        Reuse::StaleWhileRevalidate
    } else {
        not_served()
    }
}

/// Whether a stored answer stands in at `now` for an origin that fails (RFC 5861 section 4, RFC 9111 section 4.2.4).
pub fn on_error(head: &Head, control: &RequestControl, now: Instant) -> bool {
    let life = &head.life;
    let asked = if life.must_revalidate {
        None
    } else {
        control.stale_if_error
    };
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
    if let Some(modified) = head
        .headers
        .get(LAST_MODIFIED)
        .filter(|_| head.last_modified.is_some())
    {
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
pub fn answer(head: &Head, body_len: u64, method: &Method, request: &HeaderMap) -> Answer {
    if head.status != StatusCode::OK {
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
    ![
        CONTENT_ENCODING,
        CONTENT_LANGUAGE,
        CONTENT_LENGTH,
        CONTENT_RANGE,
        CONTENT_TYPE,
    ]
    .contains(name)
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

/// If-None-Match, true meaning 304 (RFC 9110 section 13.1.2): `*` matches anything stored, a list by weak comparison.
fn is_none_match_met(head: &Head, request: &HeaderMap) -> bool {
    request.get_all(IF_NONE_MATCH).iter().any(|line| {
        let line = line.as_bytes().trim_ascii();
        line == b"*"
            || head.etag.as_ref().is_some_and(|etag| {
                entity_tags(line).any(|tag| is_weakly_equal(tag, etag.as_bytes()))
            })
    })
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
        return head
            .etag
            .as_ref()
            .is_some_and(|etag| is_strongly_equal(text, etag.as_bytes()));
    }
    // A date is a strong validator where it is a second older than the answer (RFC 9110 section 8.8.2.2).
    let strong = head
        .last_modified
        .filter(|modified| *modified + Duration::from_secs(1) <= head.date);
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
