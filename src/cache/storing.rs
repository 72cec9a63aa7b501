//! May an answer be stored, and what of it (RFC 9111 section 3).
//!
//! Identity-safe by default, beyond the RFC: answers with Set-Cookie or session fields are not stored, and a request
//! with Cookie gets a shared answer only where the origin itself gives a lifetime or says `public`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::{
    AGE, AUTHORIZATION, CONNECTION, CONTENT_LENGTH, COOKIE, LAST_MODIFIED, SET_COOKIE, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE, VARY, WWW_AUTHENTICATE,
};
use http::{HeaderMap, HeaderName, Method, StatusCode};
use sfv::{BareItem, List, ListEntry, Parser};

use crate::cache::control::{RequestControl, ResponseControl};
use crate::cache::entry::Head;
use crate::cache::freshness::{self, Source};
use crate::cache::key::{self, KeyParts};
use crate::cache::{CacheParams, reuse};
use crate::clock::Moment;

/// The request an answer belongs to.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// Its method.
    pub method: &'a Method,
    /// Its fields, as the client sent them.
    pub headers: &'a HeaderMap,
    /// Its key.
    pub parts: KeyParts<'a>,
}

/// Why an answer is not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unstorable {
    /// Only answers to GET are stored.
    Method,
    /// A status that is never stored.
    Status,
    /// A part of an answer (206).
    Partial,
    /// `must-understand` with a status we do not know (RFC 9111 section 5.2.2.3).
    NotUnderstood,
    /// The request says `no-store`.
    RequestNoStore,
    /// The answer says `no-store`.
    NoStore,
    /// The answer says `private`, and the key has no partition.
    Private,
    /// The request has Authorization, and the answer does not allow to share it (RFC 9111 section 3.5).
    Authorization,
    /// The request has Cookie, and the origin does not say that the answer is everybody's.
    Cookie,
    /// The answer sets a cookie.
    SetCookie,
    /// The answer belongs to a session of the backend (X-CSRF-Token, sap-contextid).
    Session,
    /// `Vary: *`, or a Vary that cannot be read.
    Vary,
    /// The body is known to be larger than an entry may be.
    TooLarge,
    /// It would be of no use: no lifetime, no validator, no stale service.
    Useless,
}

impl Unstorable {
    /// The stable code, for `Cache-Status: detail` and logs.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Method => "method",
            Self::Status => "status",
            Self::Partial => "partial",
            Self::NotUnderstood => "not_understood",
            Self::RequestNoStore => "request_no_store",
            Self::NoStore => "no_store",
            Self::Private => "private",
            Self::Authorization => "authorization",
            Self::Cookie => "cookie",
            Self::SetCookie => "set_cookie",
            Self::Session => "session",
            Self::Vary => "vary",
            Self::TooLarge => "too_large",
            Self::Useless => "useless",
        }
    }
}

/// Judges the head of an answer that arrived at `moment` to a request sent at `request_sent`; gives what is stored.
///
/// # Errors
/// Why it may not be stored. The answer itself is good for this client in any case.
pub fn decide(
    asked: &Asked<'_>,
    status: StatusCode,
    headers: &HeaderMap,
    params: &CacheParams,
    moment: Moment,
    request_sent: Instant,
) -> Result<Head, Unstorable> {
    let control = ResponseControl::parse(headers, &params.targeted);
    let date = freshness::http_date(headers, &http::header::DATE).unwrap_or(moment.wall);
    let lifetime = freshness::lifetime(status, headers, &control, params, date);
    check_status(asked.method, status, &control)?;
    check_directives(asked, &control, params, lifetime.1)?;
    check_identity(asked, headers, &control, params, lifetime)?;
    let vary = vary(headers)?;
    if content_length(headers).is_some_and(|length| length > params.max_entry) {
        return Err(Unstorable::TooLarge);
    }

    let initial_age = freshness::initial_age(headers, moment, request_sent);
    let etag = reuse::entity_tag(headers);
    let last_modified = freshness::http_date(headers, &LAST_MODIFIED);
    let has_validator = etag.is_some() || last_modified.is_some();
    let life = freshness::life(lifetime, &control, params, initial_age, has_validator);
    if initial_age >= life.end() || (life.always_validate && !has_validator) {
        return Err(Unstorable::Useless);
    }

    let mut stored = stored_fields(headers, &control);
    let date = freshness::stamp(&mut stored, headers, moment);
    let selecting = vary
        .iter()
        .map(|name| Some(key::normal(name, asked.headers)?.collect()))
        .collect();
    Ok(Head {
        status,
        groups: groups(&stored),
        headers: stored,
        life,
        initial_age,
        received: moment.mono,
        date,
        etag,
        last_modified,
        vary,
        selecting,
        address: asked.parts.address(&params.query),
    })
}

/// Statuses whose answers may be reused without an explicit lifetime (RFC 9110 section 15.1), 206 aside.
pub const fn is_heuristically_cacheable(status: StatusCode) -> bool {
    matches!(
        status.as_u16(),
        200 | 203 | 204 | 300 | 301 | 308 | 404 | 405 | 410 | 414 | 501
    )
}

/// The groups an answer belongs to: Cache-Groups (RFC 9875), Surrogate-Key and xkey (separated by spaces), Cache-Tag
/// (by commas).
pub fn groups(headers: &HeaderMap) -> Box<[Box<str>]> {
    let mut groups: Vec<Box<str>> = strings(headers, &CACHE_GROUPS);
    for (name, separator) in [(&SURROGATE_KEY, ' '), (&XKEY, ' '), (&CACHE_TAG, ',')] {
        for line in headers
            .get_all(name)
            .iter()
            .filter_map(|line| line.to_str().ok())
        {
            groups.extend(
                line.split(separator)
                    .map(str::trim)
                    .filter(|group| !group.is_empty())
                    .map(Box::from),
            );
        }
    }
    groups.sort_unstable();
    groups.dedup();
    groups.into_boxed_slice()
}

/// The groups the answer to an unsafe request invalidates: Cache-Group-Invalidation (RFC 9875 section 3).
pub fn invalidated_groups(headers: &HeaderMap) -> Vec<Box<str>> {
    strings(headers, &CACHE_GROUP_INVALIDATION)
}

/// The fields named by Vary, sorted, without repetition (RFC 9110 section 12.5.5).
///
/// # Errors
/// [`Unstorable::Vary`]: a member is `*` or no field name.
pub fn vary(headers: &HeaderMap) -> Result<Arc<[HeaderName]>, Unstorable> {
    let mut names = Vec::new();
    for line in headers.get_all(VARY) {
        for member in line
            .as_bytes()
            .split(|byte| *byte == b',')
            .map(<[u8]>::trim_ascii)
        {
            if member == b"*" {
                return Err(Unstorable::Vary); // a legal field name, but here it is a word of its own
            }
            if !member.is_empty() {
                names.push(HeaderName::from_bytes(member).map_err(|_| Unstorable::Vary)?);
            }
        }
    }
    names.sort_unstable_by(|one, other| one.as_str().cmp(other.as_str()));
    names.dedup();
    Ok(names.into())
}

/// Whether the field `name` of an answer with `headers` is stored: no hop-by-hop field and none nominated by Connection
/// (RFC 9111 section 3.1), none that belongs to one user or one exchange, none that Cache-Control names.
pub(crate) fn is_stored(
    name: &HeaderName,
    headers: &HeaderMap,
    control: &ResponseControl<'_>,
) -> bool {
    let named = [control.no_cache_fields, control.private_fields]
        .into_iter()
        .flatten();
    !NEVER_STORED.contains(name)
        && !name.as_str().starts_with("proxy-")
        && !is_nominated(name, headers)
        && !named.into_iter().any(|fields| fields.contains(name))
}

fn check_status(
    method: &Method,
    status: StatusCode,
    control: &ResponseControl<'_>,
) -> Result<(), Unstorable> {
    if method != Method::GET {
        return Err(Unstorable::Method);
    }
    if status == StatusCode::PARTIAL_CONTENT {
        return Err(Unstorable::Partial);
    }
    if NEVER_STORED_STATUSES.contains(&status.as_u16())
        || status.is_informational()
        || (status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED)
    {
        return Err(Unstorable::Status);
    }
    if control.must_understand && status.canonical_reason().is_none() {
        return Err(Unstorable::NotUnderstood);
    }
    Ok(())
}

fn check_directives(
    asked: &Asked<'_>,
    control: &ResponseControl<'_>,
    params: &CacheParams,
    source: Source,
) -> Result<(), Unstorable> {
    if RequestControl::parse(asked.headers).no_store {
        return Err(Unstorable::RequestNoStore);
    }
    // RFC 9111 section 5.2.2.3: a status we know makes must-understand stand over no-store.
    if control.no_store && !control.must_understand && source != Source::Override {
        return Err(Unstorable::NoStore);
    }
    if control.private && !is_partitioned(asked, params) {
        return Err(Unstorable::Private);
    }
    Ok(())
}

fn check_identity(
    asked: &Asked<'_>,
    headers: &HeaderMap,
    control: &ResponseControl<'_>,
    params: &CacheParams,
    (lifetime, source): (Duration, Source),
) -> Result<(), Unstorable> {
    if [X_CSRF_TOKEN, SAP_CONTEXTID]
        .iter()
        .any(|name| headers.contains_key(name))
        || asked.headers.contains_key(SAP_CONTEXTID)
    {
        return Err(Unstorable::Session);
    }
    let named = [control.no_cache_fields, control.private_fields]
        .into_iter()
        .flatten();
    // no-cache="Set-Cookie" says that the rest of the answer is good for others.
    let noise =
        source == Source::Override || named.into_iter().any(|fields| fields.contains(&SET_COOKIE));
    if headers.contains_key(SET_COOKIE) && !noise {
        return Err(Unstorable::SetCookie);
    }
    if is_partitioned(asked, params) {
        return Ok(());
    }
    if asked.headers.contains_key(AUTHORIZATION) && !control.allows_authorized() {
        return Err(Unstorable::Authorization);
    }
    // An answer that is never served without the origin's word cannot reach the wrong user either.
    let asks_back = control.no_cache || control.must_revalidate || control.proxy_revalidate;
    let granted = match source {
        Source::Override => true,
        Source::Origin => control.public || asks_back || !lifetime.is_zero(),
        Source::Operator | Source::Heuristic | Source::Nothing => control.public,
    };
    if asked.headers.contains_key(COOKIE) && !granted {
        return Err(Unstorable::Cookie);
    }
    Ok(())
}

const fn is_partitioned(asked: &Asked<'_>, params: &CacheParams) -> bool {
    params.per_consumer && asked.parts.partition.is_some()
}

fn stored_fields(headers: &HeaderMap, control: &ResponseControl<'_>) -> HeaderMap {
    let mut stored = HeaderMap::with_capacity(headers.keys_len() + 1);
    for (name, value) in headers {
        if is_stored(name, headers, control) {
            stored.append(name, value.clone());
        }
    }
    stored
}

fn is_nominated(name: &HeaderName, headers: &HeaderMap) -> bool {
    headers
        .get_all(CONNECTION)
        .iter()
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
        .any(|member| {
            member
                .trim_ascii()
                .eq_ignore_ascii_case(name.as_str().as_bytes())
        })
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers
        .get(CONTENT_LENGTH)?
        .to_str()
        .ok()?
        .trim()
        .parse()
        .ok()
}

/// A structured list of strings; empty where it is none (RFC 9875 section 2: members that are no strings are ignored).
fn strings(headers: &HeaderMap, name: &HeaderName) -> Vec<Box<str>> {
    let mut list = List::new();
    for line in headers.get_all(name) {
        match Parser::new(line.as_bytes()).parse_list_with_visitor(list) {
            Ok(longer) => list = longer,
            Err(_) => return Vec::new(),
        }
    }
    list.iter()
        .filter_map(|member| match member {
            ListEntry::Item(item) => match &item.bare_item {
                BareItem::String(group) => Some(Box::from(group.as_str())),
                _ => None,
            },
            ListEntry::InnerList(_) => None,
        })
        .collect()
}

const CACHE_GROUPS: HeaderName = HeaderName::from_static("cache-groups");
const CACHE_GROUP_INVALIDATION: HeaderName = HeaderName::from_static("cache-group-invalidation");
const SURROGATE_KEY: HeaderName = HeaderName::from_static("surrogate-key");
const CACHE_TAG: HeaderName = HeaderName::from_static("cache-tag");
const XKEY: HeaderName = HeaderName::from_static("xkey");
const X_CSRF_TOKEN: HeaderName = HeaderName::from_static("x-csrf-token");
const SAP_CONTEXTID: HeaderName = HeaderName::from_static("sap-contextid");

/// Fields that belong to one connection, one user, or one exchange. Content-Length: the stored body's length is the
/// truth. Age: it is computed. `Proxy-*` is tested by its prefix.
const NEVER_STORED: [HeaderName; 18] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
    AGE,
    CONTENT_LENGTH,
    SET_COOKIE,
    HeaderName::from_static("set-cookie2"),
    WWW_AUTHENTICATE, // on a 200 it carries a Negotiate token
    HeaderName::from_static("authentication-info"),
    X_CSRF_TOKEN,
    SAP_CONTEXTID,
    HeaderName::from_static("sap-http-session-timeout"),
    HeaderName::from_static("sap-message"),
    HeaderName::from_static("sap-statistics"),
    HeaderName::from_static("sap-perf-fesrec"),
];

/// Besides 5xx: 304 has no answer of its own; 401, 403, 407, 409 and 412 speak to one user or of one moment; 408, 421
/// and 425 of a connection; 416 of a range; 428, 429, 431 by RFC 6585. A failure (5xx) never takes the place of an
/// answer that could stand in for it; 501 alone is a lasting property.
const NEVER_STORED_STATUSES: [u16; 13] = [
    304, 401, 403, 407, 408, 409, 412, 416, 421, 425, 428, 429, 431,
];
