//! Age and lifetime of an answer (RFC 9111 section 4.2), and the update of a stored one by a 304 (section 4.3.4).

use std::time::{Duration, Instant, SystemTime};

use http::header::{
    AGE, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, DATE, EXPIRES, LAST_MODIFIED, VARY, VIA,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use crate::cache::control::{ResponseControl, delta_seconds};
use crate::cache::entry::{Head, Life};
use crate::cache::{CacheParams, reuse, storing};
use crate::clock::Moment;

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
        if control.targeted {
            None
        } else {
            expires_lifetime(headers, date)
        }
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
            (
                (unchanged / HEURISTIC_DIVISOR).min(HEURISTIC_CAP),
                Source::Heuristic,
            )
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
    let fresh = if operators {
        lifetime.saturating_add(initial_age)
    } else {
        lifetime
    };
    let keep = if has_validator {
        params.keep
    } else {
        Duration::ZERO
    };
    let (swr, sie) = (params.stale_while_revalidate, params.stale_if_error);
    if source == Source::Override {
        return Life {
            fresh,
            swr,
            sie,
            keep,
            ..Life::default()
        };
    }
    let never_stale = control.no_cache || control.must_revalidate || control.proxy_revalidate;
    let window = |origin: Option<Duration>, operator: Duration| match origin {
        _ if never_stale => Duration::ZERO,
        Some(origin) => origin,
        None if control.forbids_stale() => Duration::ZERO,
        None => operator,
    };
    let operator_swr = if lifetime.is_zero() {
        Duration::ZERO
    } else {
        swr
    };
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
/// Content-Length, Content-Encoding and Content-Range, which describe the stored body, and what is never stored; life
/// and age judged anew.
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
        let describes_body = [CONTENT_LENGTH, CONTENT_ENCODING, CONTENT_RANGE].contains(name);
        if describes_body || *name == VARY || !storing::is_stored(name, not_modified, &told) {
            continue;
        }
        headers.remove(name);
        for value in not_modified.get_all(name) {
            headers.append(name, value.clone());
        }
    }
    for name in [told.no_cache_fields, told.private_fields]
        .into_iter()
        .flatten()
        .flat_map(|fields| fields.names())
    {
        headers.remove(name);
    }
    let date = stamp(&mut headers, not_modified, moment);
    let etag = reuse::entity_tag(&headers);
    let last_modified = http_date(&headers, &LAST_MODIFIED);
    let initial_age = initial_age(not_modified, moment, request_sent);
    let control = ResponseControl::parse(&headers, &params.targeted);
    let lifetime = lifetime(head.status, &headers, &control, params, date);
    let shared = head.partition().is_none();
    let no_store = control.no_store && !control.must_understand && lifetime.1 != Source::Override;
    let forbidden = no_store || (control.private && shared);
    let life = if forbidden {
        Life {
            always_validate: true,
            ..Life::default()
        }
    } else {
        life(
            lifetime,
            &control,
            params,
            initial_age,
            etag.is_some() || last_modified.is_some(),
        )
    };
    let groups = storing::groups(&headers);
    Some(Head {
        status: head.status,
        headers,
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
    })
}

/// Whether a 304 can be about the stored answer (RFC 9111 section 4.3.4).
fn speaks_of(head: &Head, not_modified: &HeaderMap) -> bool {
    let same_tag = match (reuse::entity_tag(not_modified), &head.etag) {
        (Some(told), Some(stored)) => reuse::is_weakly_equal(told.as_bytes(), stored.as_bytes()),
        // A tag the stored answer does not have cannot be compared; asking once more gives it one.
        (Some(_), None) => false,
        (None, _) => true,
    };
    same_tag
        && storing::vary(not_modified)
            .is_ok_and(|vary| vary.iter().all(|name| head.vary.contains(name)))
}

/// Sets Date to that of `source`, or to the arrival where it has none (RFC 9110 section 6.6.1); returns it.
pub(crate) fn stamp(headers: &mut HeaderMap, source: &HeaderMap, moment: Moment) -> SystemTime {
    http_date(source, &DATE).unwrap_or_else(|| {
        if let Ok(now) = HeaderValue::try_from(httpdate::fmt_http_date(moment.wall)) {
            headers.insert(DATE, now);
        }
        moment.wall
    })
}

/// The date in the field `name`: one line, in one of the three forms of RFC 9110 section 5.6.7.
pub(crate) fn http_date(headers: &HeaderMap, name: &HeaderName) -> Option<SystemTime> {
    let mut lines = headers.get_all(name).iter();
    let date = lines.next()?.to_str().ok()?;
    if lines.next().is_some() {
        None
    } else {
        httpdate::parse_http_date(date.trim()).ok()
    }
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
    headers.contains_key(EXPIRES).then(|| {
        http_date(headers, &EXPIRES)
            .and_then(|expires| expires.duration_since(date).ok())
            .unwrap_or_default()
    })
}

/// Age (RFC 9111 section 5.1): the first member of the first line; invalid is absent.
fn age_field(headers: &HeaderMap) -> Option<Duration> {
    let line = headers.get(AGE)?.as_bytes();
    delta_seconds(
        line.split(|byte| *byte == b',')
            .next()
            .unwrap_or_default()
            .trim_ascii(),
    )
}

/// RFC 9111 section 4.2.2: "a typical setting of this fraction might be 10%".
const HEURISTIC_DIVISOR: u32 = 10;

/// A guess reaches no further than a day: what an operator looks at tomorrow is not from last week.
const HEURISTIC_CAP: Duration = Duration::from_secs(86_400);
