//! Age and lifetime of an answer (RFC 9111 section 4.2), and the update of a stored one by a 304 (section 4.3.4).

use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http::header::{AGE, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, DATE, EXPIRES, LAST_MODIFIED, VARY, VIA};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use crate::cache::control::{ResponseControl, delta_seconds};
use crate::cache::entry::{Head, Life};
use crate::cache::{CacheParams, reuse, storing};
use crate::clock::Moment;
use crate::message::date;

/// Where a freshness lifetime comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The operator, over the origin's head ([`CacheParams::override_origin`]).
    Override,
    /// The origin: `s-maxage`, `max-age`, Expires, or a `no-cache` that leaves no room for another.
    Origin,
    /// The operator, where the origin says nothing.
    Operator,
    /// A guess from Last-Modified (RFC 9111 section 4.2.2).
    Heuristic,
    /// Nowhere: stale from the beginning.
    Nothing,
}

impl Source {
    /// The stable word for operators.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Override => "override",
            Self::Origin => "origin",
            Self::Operator => "operator",
            Self::Heuristic => "heuristic",
            Self::Nothing => "nothing",
        }
    }
}

/// Where the lifetime of a stored answer comes from; `None` if `params`, which may be newer than it, would not give it
/// that lifetime.
pub fn source(head: &Head, params: &CacheParams) -> Option<Source> {
    let control = ResponseControl::parse(&head.headers, &params.targeted);
    let (lifetime, source) = lifetime(head.status, &head.headers, &control, params, head.date);
    // An operator's lifetime counts from the arrival.
    let slack = match source {
        Source::Override | Source::Operator => head.initial_age,
        Source::Origin | Source::Heuristic | Source::Nothing => Duration::ZERO,
    };
    (lifetime..=lifetime.saturating_add(slack)).contains(&head.life.fresh).then_some(source)
}

/// The freshness lifetime of an answer dated `date` and where it comes from (RFC 9111 section 4.2.1): `s-maxage`, then
/// `max-age`, then Expires, then the operator's word, then the heuristic.
pub fn lifetime(
    status: StatusCode,
    headers: &HeaderMap,
    control: &ResponseControl<'_>,
    params: &CacheParams,
    date: SystemTime,
) -> (Duration, Source) {
    let operator = operator_lifetime(status, params);
    if let Some(lifetime) = operator
        && is_overridden(params)
    {
        return (lifetime, Source::Override);
    }
    let expires = || {
        if control.targeted { None } else { expires_lifetime(headers, date) }
    };
    if let Some(lifetime) = control.lifetime().or_else(expires) {
        return (lifetime, Source::Origin);
    }
    if control.no_cache {
        return (Duration::ZERO, Source::Origin);
    }
    if let Some(lifetime) = operator {
        return (lifetime, Source::Operator);
    }
    let guessable = control.public || storing::is_heuristically_cacheable(status);
    match http_date(headers, &LAST_MODIFIED).filter(|_| guessable) {
        Some(modified) => {
            let unchanged = date.duration_since(modified).unwrap_or_default();
            ((unchanged / HEURISTIC_DIVISOR).min(HEURISTIC_CAP), Source::Heuristic)
        }
        None => (Duration::ZERO, Source::Nothing),
    }
}

/// The whole life of an answer of age `initial_age`.
///
/// - An operator's lifetime counts from the arrival, the origin's from the answer's making.
/// - `no-cache`, `must-revalidate` and `proxy-revalidate` leave no stale service (RFC 9111 section 4.2.4). `s-maxage`
///   implies `proxy-revalidate`, so it shuts out the operator's windows, but not those the origin gives beside it:
///   that is what it wants to say with both.
/// - The operator's stale-while-revalidate needs an answer that was fresh at all, or every answer would be served again.
pub(crate) fn life(
    (lifetime, source): (Duration, Source),
    control: &ResponseControl<'_>,
    params: &CacheParams,
    initial_age: Duration,
    has_validator: bool,
) -> Life {
    let operators = matches!(source, Source::Override | Source::Operator);
    let fresh = if operators { lifetime.saturating_add(initial_age) } else { lifetime };
    let keep = if has_validator { params.keep } else { Duration::ZERO };
    let (swr, sie) = (params.stale_while_revalidate, params.stale_if_error);
    if source == Source::Override {
        return Life { fresh, swr, sie, keep, ..Life::default() };
    }
    let never_stale = control.no_cache || control.must_revalidate || control.proxy_revalidate;
    let window = |origin: Option<Duration>, operator: Duration| match origin {
        _ if never_stale => Duration::ZERO,
        Some(origin) => origin,
        None if control.forbids_stale() => Duration::ZERO,
        None => operator,
    };
    let operator_swr = if lifetime.is_zero() { Duration::ZERO } else { swr };
    Life {
        fresh,
        swr: window(control.stale_while_revalidate, operator_swr),
        sie: window(control.stale_if_error, sie),
        keep,
        always_validate: control.no_cache,
        must_revalidate: control.forbids_stale(),
        immutable: control.immutable,
    }
}

/// The age of an answer when it arrived (RFC 9111 section 4.2.3):
///
/// `corrected_age_value = Age + (response_time − request_time)`
///
/// `apparent_age = response_time − Date` tells of a cache on the way that knows no Age, but as well of an origin whose
/// clock is slow, which is common among old systems and would make every answer stale. So it counts
/// (`max(apparent_age, corrected_age_value)`) only where a proxy is named in Via and there is no Age; the RFC leaves
/// that open.
pub(crate) fn initial_age(headers: &HeaderMap, moment: Moment, request_sent: Instant) -> Duration {
    let delay = moment.mono.saturating_duration_since(request_sent);
    let told = age_field(headers);
    let corrected = told.unwrap_or_default().saturating_add(delay);
    match http_date(headers, &DATE) {
        Some(date) if told.is_none() && headers.contains_key(VIA) => {
            corrected.max(moment.wall.duration_since(date).unwrap_or_default())
        }
        _ => corrected,
    }
}

/// The stored head after a 304 (RFC 9111 sections 3.2 and 4.3.4): its fields replaced by those of the 304, except
/// `DESCRIBES_BODY`, and what is never stored; life and age judged anew.
///
/// `None`: the 304 speaks of another answer (its entity tag differs, or it varies by a field the stored one was not
/// selected by); ask again without conditions. A 304 that forbids storing gives a head that is good for nothing after
/// this request.
pub fn refreshed(
    head: &Head,
    not_modified: &HeaderMap,
    params: &CacheParams,
    moment: Moment,
    request_sent: Instant,
) -> Option<Head> {
    if !speaks_of(head, not_modified) {
        return None;
    }
    let mut headers = head.headers.clone();
    let told = ResponseControl::parse(not_modified, &params.targeted);
    for name in not_modified.keys() {
        let told_to_keep = storing::is_stored(name, not_modified, &told, params);
        if DESCRIBES_BODY.contains(name) || *name == VARY || !told_to_keep {
            continue;
        }
        headers.remove(name);
        for value in not_modified.get_all(name) {
            headers.append(name, value.clone());
        }
    }
    for name in [told.no_cache_fields, told.private_fields].into_iter().flatten().flat_map(|fields| fields.names()) {
        headers.remove(name);
    }
    let date = date(not_modified, moment);
    stamp(&mut headers, not_modified, date);
    let etag = reuse::entity_tag(&headers);
    let last_modified = http_date(&headers, &LAST_MODIFIED);
    let initial_age = initial_age(not_modified, moment, request_sent);
    let control = ResponseControl::parse(&headers, &params.targeted);
    let lifetime = lifetime(head.status, &headers, &control, params, date);
    let shared = head.partition().is_none();
    let no_store = control.no_store && !control.must_understand && lifetime.1 != Source::Override;
    let forbidden = no_store || (control.private && shared);
    let life = if forbidden {
        Life { always_validate: true, ..Life::default() }
    } else {
        life(lifetime, &control, params, initial_age, etag.is_some() || last_modified.is_some())
    };
    let groups = storing::groups(&headers);
    let head = Head {
        status: head.status,
        headers,
        lines: Bytes::new(),
        life,
        initial_age,
        received: moment.mono,
        date,
        etag,
        last_modified,
        vary: head.vary.clone(),
        selecting: head.selecting.clone(),
        address: head.address.clone(),
        groups,
    };
    Some(head.compact())
}

/// The stored head, with a body of `length` bytes, after the 200 to a HEAD (RFC 9111 section 4.3.5): as after a 304, if
/// the fields speak of the same representation, else `None`.
pub fn freshened(
    head: &Head,
    length: u64,
    answer: &HeaderMap,
    params: &CacheParams,
    moment: Moment,
    request_sent: Instant,
) -> Option<Head> {
    let same_length = storing::content_length(answer).is_none_or(|told| told == length);
    let same_date = http_date(answer, &LAST_MODIFIED).is_none_or(|told| head.last_modified == Some(told));
    if same_length && same_date { refreshed(head, answer, params, moment, request_sent) } else { None }
}

/// Whether a 304 can be about the stored answer (RFC 9111 section 4.3.4).
fn speaks_of(head: &Head, not_modified: &HeaderMap) -> bool {
    let same_tag = match (reuse::entity_tag(not_modified), &head.etag) {
        (Some(told), Some(stored)) => reuse::is_weakly_equal(told.as_bytes(), stored.as_bytes()),
        // A tag the stored answer does not have cannot be compared; asking once more gives it one.
        (Some(_), None) => false,
        (None, _) => true,
    };
    same_tag && storing::vary(not_modified).is_ok_and(|vary| vary.iter().all(|name| head.vary.contains(name)))
}

/// Sets Date in `headers` to `date` where `source` has no valid one (RFC 9110 section 6.6.1).
pub(crate) fn stamp(headers: &mut HeaderMap, source: &HeaderMap, date: SystemTime) {
    if http_date(source, &DATE).is_none()
        && let Ok(date) = HeaderValue::try_from(httpdate::fmt_http_date(date))
    {
        headers.insert(DATE, date);
    }
}

/// Date, or where it has no valid one the arrival, in whole seconds as Date would say it.
pub(crate) fn date(headers: &HeaderMap, moment: Moment) -> SystemTime {
    http_date(headers, &DATE).unwrap_or_else(|| {
        let since = moment.wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        SystemTime::UNIX_EPOCH + Duration::from_secs(since.as_secs())
    })
}

/// The date in the field `name`, which must be one line.
pub(crate) fn http_date(headers: &HeaderMap, name: &HeaderName) -> Option<SystemTime> {
    let mut lines = headers.get_all(name).iter();
    let date = lines.next()?.to_str().ok()?;
    if lines.next().is_some() { None } else { date::parse(date) }
}

/// Whether the operator's word stands over the origin's.
pub(crate) const fn is_overridden(params: &CacheParams) -> bool {
    params.override_origin && params.ttl.is_some()
}

/// What the operator says about answers of this status: `ttl` about good ones and lasting redirects, `negative` about
/// missing things, nothing about others.
const fn operator_lifetime(status: StatusCode, params: &CacheParams) -> Option<Duration> {
    match status {
        StatusCode::NOT_FOUND | StatusCode::GONE => params.negative,
        StatusCode::OK
        | StatusCode::NON_AUTHORITATIVE_INFORMATION
        | StatusCode::NO_CONTENT
        | StatusCode::MULTIPLE_CHOICES
        | StatusCode::MOVED_PERMANENTLY
        | StatusCode::PERMANENT_REDIRECT => params.ttl,
        _ => None,
    }
}

/// `Expires − Date` (RFC 9111 section 5.3): invalid dates, especially `0`, and several lines are in the past.
fn expires_lifetime(headers: &HeaderMap, date: SystemTime) -> Option<Duration> {
    headers
        .contains_key(EXPIRES)
        .then(|| http_date(headers, &EXPIRES).and_then(|expires| expires.duration_since(date).ok()).unwrap_or_default())
}

/// Age (RFC 9111 section 5.1): the first member of the first line, without the parameters that some caches add; invalid
/// is absent.
fn age_field(headers: &HeaderMap) -> Option<Duration> {
    let line = headers.get(AGE)?.as_bytes();
    delta_seconds(line.split(|byte| matches!(byte, b',' | b';')).next().unwrap_or_default().trim_ascii())
}

/// What describes the very bytes of a body: the stored one stays as it is, whatever a 304, which has none, says (RFC 9111
/// section 3.2; digests by RFC 9530).
const DESCRIBES_BODY: [HeaderName; 6] = [
    CONTENT_LENGTH,
    CONTENT_ENCODING,
    CONTENT_RANGE,
    HeaderName::from_static("content-md5"),
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
];

/// RFC 9111 section 4.2.2: "a typical setting of this fraction might be 10%".
const HEURISTIC_DIVISOR: u32 = 10;

/// A guess reaches no further than a day: what an operator looks at tomorrow is not from last week.
const HEURISTIC_CAP: Duration = Duration::from_secs(86_400);

#[cfg(test)]
mod tests {
    use http::Method;
    use proptest::prelude::*;

    use super::*;
    use crate::cache::key::KeyParts;
    use crate::cache::storing::Asked;
    use crate::clock::Clock;

    /// 1 January 2026, 00:00.
    const ARRIVAL: Duration = Duration::from_secs(1_767_225_600);

    fn moment() -> Moment {
        Moment { wall: SystemTime::UNIX_EPOCH + ARRIVAL, ..Clock::system().moment() }
    }

    fn http_time(offset: i64) -> String {
        let seconds = ARRIVAL.as_secs().checked_add_signed(offset).unwrap();
        httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
    }

    /// Fields one a line, `name: value`; `@n` is the date `n` seconds after the arrival.
    fn fields(text: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            let (name, value) = line.trim().split_once(':').unwrap();
            let value = match value.trim().strip_prefix('@') {
                Some(offset) => http_time(offset.parse().unwrap()),
                None => value.trim().to_owned(),
            };
            headers.append(HeaderName::try_from(name).unwrap(), HeaderValue::try_from(value).unwrap());
        }
        headers
    }

    const fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// An answer with `text` as its fields is fresh for `expected` seconds.
    fn check_with(params: &CacheParams, status: u16, text: &str, expected: u64, source: Source) {
        let headers = fields(text);
        let control = ResponseControl::parse(&headers, &params.targeted);
        let date = http_date(&headers, &DATE).unwrap_or_else(|| moment().wall);
        let found = lifetime(StatusCode::from_u16(status).unwrap(), &headers, &control, params, date);
        assert_eq!(found, (secs(expected), source), "{status} {text}");
    }

    fn check(text: &str, expected: u64, source: Source) {
        check_with(&CacheParams::default(), 200, text, expected, source);
    }

    #[test]
    fn the_origin_gives_the_lifetime_in_this_order() {
        // RFC 9111 section 4.2.1
        use Source::{Nothing, Origin};
        check("cache-control: s-maxage=9, max-age=5\nexpires: @100\ndate: @0", 9, Origin);
        check("cache-control: max-age=5\nexpires: @100\ndate: @0", 5, Origin);
        check("cache-control: max-age=5\nexpires: 0", 5, Origin);
        check("cache-control: max-age=0\nexpires: @100", 0, Origin);
        check("expires: @100\ndate: @0", 100, Origin);
        check("expires: @100\ndate: @-50", 150, Origin);
        check("expires: @100", 100, Origin);
        check("expires: @100\ndate: yesterday", 100, Origin);
        check("cdn-cache-control: max-age=7\ncache-control: max-age=5\nexpires: @100", 7, Origin);
        check("cdn-cache-control: public\nexpires: @100", 0, Nothing);
        check("", 0, Nothing);
        check("cache-control: no-cache\nlast-modified: @-1000", 0, Origin);
    }

    #[test]
    fn odd_expires_are_in_the_past() {
        // RFC 9111 section 5.3
        for odd in
            ["0", "-1", "", "now", "@-100", "Thu, 18 Aug 2050 02:01:18 UTC", "Thu, 18 Aug 2050 2:01:18 GMT", "3600"]
        {
            check(&format!("date: @0\nexpires: {odd}\nlast-modified: @-1000"), 0, Source::Origin);
        }
        check("expires: @100\nexpires: @100", 0, Source::Origin);
        check("expires: Sunday, 04-Jan-26 00:00:00 GMT\ndate: @0", 3 * 86_400, Source::Origin);
        check("expires: Sun Jan  4 00:00:00 2026\ndate: @0", 3 * 86_400, Source::Origin);
    }

    #[test]
    fn a_guess_is_a_tenth_and_at_most_a_day() {
        // RFC 9111 section 4.2.2
        use Source::{Heuristic, Nothing};
        let params = CacheParams::default();
        check("date: @0\nlast-modified: @-1000", 100, Heuristic);
        check("last-modified: @-1000", 100, Heuristic);
        check("date: @0\nlast-modified: @-100000000", 86_400, Heuristic);
        check("date: @0\nlast-modified: @5", 0, Heuristic);
        check("date: @0\nlast-modified: never", 0, Nothing);
        for status in [203, 204, 300, 301, 308, 404, 405, 410, 414, 501] {
            check_with(&params, status, "last-modified: @-1000", 100, Heuristic);
        }
        for status in [201, 202, 302, 303, 307, 400, 500, 599] {
            check_with(&params, status, "last-modified: @-1000", 0, Nothing);
            check_with(&params, status, "last-modified: @-1000\ncache-control: public", 100, Heuristic);
        }
    }

    #[test]
    fn the_operator_speaks_where_the_origin_is_silent() {
        use Source::{Heuristic, Operator, Origin, Override};
        let ttl = CacheParams { ttl: Some(secs(60)), negative: Some(secs(1)), ..CacheParams::default() };
        check_with(&ttl, 200, "", 60, Operator);
        check_with(&ttl, 200, "last-modified: @-1000", 60, Operator);
        check_with(&ttl, 200, "cache-control: max-age=5", 5, Origin);
        check_with(&ttl, 200, "cache-control: no-cache", 0, Origin);
        check_with(&ttl, 200, "pragma: no-cache", 0, Origin);
        check_with(&ttl, 200, "expires: 0", 0, Origin);
        check_with(&ttl, 404, "", 1, Operator);
        check_with(&ttl, 410, "cache-control: max-age=5", 5, Origin);
        check_with(&CacheParams { negative: None, ..ttl.clone() }, 404, "last-modified: @-1000", 100, Heuristic);
        check_with(&ttl, 302, "", 0, Source::Nothing);
        let over = CacheParams { override_origin: true, ..ttl };
        check_with(&over, 200, "cache-control: no-store, max-age=5\nexpires: 0", 60, Override);
        check_with(&over, 404, "cache-control: max-age=5", 1, Override);
        check_with(&over, 302, "cache-control: max-age=5", 5, Origin);
        check_with(&CacheParams { ttl: None, ..over }, 404, "cache-control: max-age=5", 5, Origin);
    }

    /// An answer with these fields, asked for `delay` seconds before it arrived, had this age.
    fn check_age(text: &str, delay: u64, expected: u64) {
        let arrival = moment();
        let sent = arrival.mono.checked_sub(secs(delay)).unwrap();
        assert_eq!(initial_age(&fields(text), arrival, sent), secs(expected), "{text}");
    }

    #[test]
    fn the_age_at_arrival_is_corrected() {
        // RFC 9111 sections 4.2.3, 5.1
        check_age("", 0, 0);
        check_age("", 3, 3);
        check_age("age: 10", 3, 13);
        check_age("age: 10, 500", 0, 10);
        check_age("age: 10\nage: 500", 0, 10);
        check_age("age: 0, 7200", 0, 0);
        check_age("age: -10", 3, 3);
        check_age("age: abc", 0, 0);
        check_age("age: 10.0", 0, 0);
        check_age("age: 10;foo=bar", 0, 10);
        check_age("age: 10 ; foo=11, 5", 0, 10);
        check_age("age: 10x;foo", 0, 0);
        check_age("age: ;10", 0, 0);
        check_age("age: 99999999999999", 0, 1 << 31);
        check_age("date: @-500", 0, 0); // a slow clock
        check_age("date: @-500\nvia: 1.0 old", 3, 500);
        check_age("date: @-500\nvia: 1.1 new\nage: 10", 3, 13);
        check_age("date: @500\nvia: 1.0 old", 3, 3);
    }

    fn life_of(params: &CacheParams, text: &str, initial_age: u64) -> Life {
        let headers = fields(text);
        let control = ResponseControl::parse(&headers, &params.targeted);
        let lifetime = lifetime(StatusCode::OK, &headers, &control, params, moment().wall);
        life(lifetime, &control, params, secs(initial_age), false)
    }

    #[test]
    fn stale_service_is_given_by_the_origin_or_else_by_the_operator() {
        // RFC 5861, RFC 9111 section 4.2.4
        let params = CacheParams { stale_while_revalidate: secs(7), stale_if_error: secs(9), ..CacheParams::default() };
        let check = |control: &str, swr: u64, sie: u64, must_revalidate: bool, always_validate: bool| {
            let life = life_of(&params, &format!("cache-control: {control}"), 0);
            let found = (life.swr, life.sie, life.must_revalidate, life.always_validate);
            assert_eq!(found, (secs(swr), secs(sie), must_revalidate, always_validate), "{control}");
        };
        check("max-age=5", 7, 9, false, false);
        check("max-age=5, stale-while-revalidate=1, stale-if-error=2", 1, 2, false, false);
        check("max-age=5, stale-while-revalidate=0", 0, 9, false, false);
        check("max-age=0", 0, 9, false, false);
        check("max-age=0, stale-while-revalidate=3", 3, 9, false, false);
        check("max-age=5, must-revalidate", 0, 0, true, false);
        check("max-age=5, proxy-revalidate, stale-if-error=2", 0, 0, true, false);
        check("s-maxage=5", 0, 0, true, false);
        check("s-maxage=5, stale-while-revalidate=3", 3, 0, true, false);
        check("max-age=5, no-cache", 0, 0, false, true);
        check("max-age=5, no-cache=\"a\"", 7, 9, false, false);
    }

    #[test]
    fn an_operators_lifetime_counts_from_the_arrival() {
        let params = CacheParams { ttl: Some(secs(60)), ..CacheParams::default() };
        assert_eq!(life_of(&params, "", 100).fresh, secs(160));
        assert_eq!(life_of(&params, "cache-control: max-age=60", 100).fresh, secs(60));
        let over = CacheParams { override_origin: true, stale_if_error: secs(9), ..params };
        let life = life_of(&over, "cache-control: s-maxage=1, must-revalidate, no-cache", 0);
        assert_eq!(life, Life { fresh: secs(60), sie: secs(9), ..Life::default() });
    }

    fn stored(text: &str) -> Head {
        let request = HeaderMap::new();
        let parts =
            KeyParts { scheme: "http", host: "a", path: "/", query: None, upstream: "u", partition: None, body: None };
        let asked = Asked { method: &Method::GET, headers: &request, parts };
        let arrival = moment();
        storing::decide(&asked, StatusCode::OK, &fields(text), &CacheParams::default(), &|| arrival, arrival.mono)
            .unwrap()
    }

    fn refresh(head: &Head, text: &str) -> Option<Head> {
        let later = moment();
        refreshed(head, &fields(text), &CacheParams::default(), later, later.mono)
    }

    #[test]
    fn a_304_replaces_fields_but_not_what_describes_the_body() {
        // RFC 9111 sections 3.2, 4.3.4
        let head = stored(
            "cache-control: max-age=1\netag: \"a\"\ndate: @-100\nx: old\nx: older\ny: kept\ncontent-encoding: gzip\n\
             content-md5: old\ncontent-type: text/plain\nvary: foo",
        );
        let new = refresh(
            &head,
            "cache-control: max-age=3600\netag: \"a\"\nx: new\nz: 1\ncontent-encoding: br\ncontent-length: 9\n\
             content-range: bytes 0-1/2\ncontent-md5: new\ncontent-digest: sha-256=:AA==:\ncontent-type: text/html\nset-cookie: a=b\nconnection: hop\nhop: 1\nage: 5\nproxy-x: 1",
        )
        .unwrap();
        let expected = fields(
            "cache-control: max-age=3600\netag: \"a\"\nx: new\ny: kept\nz: 1\ncontent-encoding: gzip\n\
             content-md5: old\ncontent-type: text/html\nvary: foo\ndate: @0",
        );
        assert_eq!(new.headers, expected);
        assert_eq!((new.life.fresh, new.initial_age), (secs(3600), secs(5)));
        assert_eq!((&new.vary, &new.selecting, &new.address), (&head.vary, &head.selecting, &head.address));
        let silent = refresh(&head, "").unwrap();
        assert_eq!(silent.life.fresh, secs(1));
        assert_eq!(silent.headers.get("x").unwrap(), "old");
        assert_eq!(silent.headers.get_all("x").iter().count(), 2);
        let named = refresh(&head, "cache-control: max-age=9, no-cache=\"y\"").unwrap();
        assert!(!named.headers.contains_key("y"));
    }

    #[test]
    fn a_304_about_another_answer_is_not_believed() {
        // RFC 9111 section 4.3.4
        let tagged = stored("etag: \"a\"\nvary: foo");
        assert!(refresh(&tagged, "etag: \"b\"").is_none());
        assert!(refresh(&tagged, "etag: W/\"a\"\nvary: foo").is_some());
        assert!(refresh(&tagged, "vary: bar").is_none());
        assert!(refresh(&tagged, "vary: *").is_none());
        assert!(refresh(&tagged, "last-modified: @-10").is_some());
        assert!(refresh(&stored("last-modified: @-100"), "etag: \"b\"").is_none());
    }

    #[test]
    fn a_304_that_forbids_storing_ends_the_life() {
        let head = stored("cache-control: max-age=60\netag: \"a\"");
        for forbidding in ["no-store", "private"] {
            let new = refresh(&head, &format!("cache-control: {forbidding}")).unwrap();
            assert_eq!(new.life.end(), Duration::ZERO, "{forbidding}");
            assert!(new.life.always_validate);
        }
        assert!(
            refresh(&head, "cache-control: must-understand, no-store, max-age=9").unwrap().life.fresh > Duration::ZERO
        );
    }

    proptest! {
        #[test]
        fn freshness_is_monotone_in_time(max_age in 0..100_u64, age in 0..100_u64, early in 0..200_u64, more in 0..200_u64) {
            let mut head = stored("etag: \"a\"");
            head.life.fresh = secs(max_age);
            head.initial_age = secs(age);
            let at = |after| head.staleness(head.received + secs(after));
            prop_assert!(at(early) <= at(early + more), "once stale it never becomes fresh, and staleness only grows");
            prop_assert!(head.age(head.received + secs(early)) <= head.age(head.received + secs(early + more)));
            prop_assert_eq!(at(early).is_none(), age + early < max_age);
        }

        #[test]
        fn a_longer_max_age_is_never_staler(shorter in 0..100_u64, more in 0..100_u64) {
            let of = |seconds: u64| life_of(&CacheParams::default(), &format!("cache-control: max-age={seconds}"), 0);
            prop_assert!(of(shorter).fresh <= of(shorter + more).fresh);
        }
    }
}
