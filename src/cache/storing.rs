//! May an answer be stored, and what of it (RFC 9111 section 3).
//!
//! Identity-safe by default, beyond the RFC: answers with Set-Cookie or session fields are not stored, and a request
//! with Cookie gets a shared answer only where the origin itself gives a lifetime or says `public`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{
    AGE, AUTHORIZATION, CONNECTION, CONTENT_LENGTH, COOKIE, LAST_MODIFIED, SET_COOKIE, TE, TRAILER, TRANSFER_ENCODING,
    UPGRADE, VARY, WWW_AUTHENTICATE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use sfv::{BareItem, List, ListEntry, Parser};

use crate::cache::control::{RequestControl, ResponseControl};
use crate::cache::entry::{Head, Life};
use crate::cache::freshness::{self, Source};
use crate::cache::key::{self, KeyParts};
use crate::cache::{CacheParams, identity, reuse};
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
    /// An error, whatever its status: a rule of the route says so.
    Error,
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
    /// It is not what the route expects.
    Unexpected,
    /// It would be of no use: no lifetime, no validator, no stale service.
    Useless,
}

impl Unstorable {
    /// The stable code, for `Cache-Status: detail` and logs.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Method => "method",
            Self::Status => "status",
            Self::Error => "error",
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
            Self::Unexpected => "unexpected",
            Self::Useless => "useless",
        }
    }
}

/// Judges the head of an answer that arrived at `moment` to a request sent at `request_sent`; gives what is stored. Most
/// often that is nothing, and the moment need not be known.
///
/// # Errors
/// Why it may not be stored. The answer itself is good for this client in any case.
pub fn decide(
    asked: &Asked<'_>,
    status: StatusCode,
    headers: &HeaderMap,
    params: &CacheParams,
    moment: &dyn Fn() -> Moment,
    request_sent: Instant,
) -> Result<Head, Unstorable> {
    let control = ResponseControl::parse(headers, &params.targeted);
    // The plainest word is heard before anything is computed: such answers come most often.
    if control.no_store && !control.must_understand && !freshness::is_overridden(params) {
        return Err(Unstorable::NoStore);
    }
    let moment = moment();
    let date = freshness::date(headers, moment);
    let lifetime = freshness::lifetime(status, headers, &control, params, date);
    // A POST is read like a GET where the route says so, but it has no conditions, and RFC 9110 section 9.3.3 asks for an
    // explicit lifetime.
    let is_post = asked.parts.body.is_some();
    if is_post && lifetime.1 == Source::Heuristic {
        return Err(Unstorable::Useless);
    }
    check_status(if is_post { &Method::GET } else { asked.method }, status, &control, lifetime)?;
    check_directives(asked, &control, params, lifetime.1)?;
    check_identity(asked, headers, &control, params, lifetime)?;
    let vary = vary(headers)?;
    if content_length(headers).is_some_and(|length| length > params.max_entry) {
        return Err(Unstorable::TooLarge);
    }

    let initial_age = freshness::initial_age(headers, moment, request_sent);
    let etag = reuse::entity_tag(headers).filter(|_| !is_post);
    let last_modified = freshness::http_date(headers, &LAST_MODIFIED).filter(|_| !is_post);
    let has_validator = etag.is_some() || last_modified.is_some();
    let mut life = freshness::life(lifetime, &control, params, initial_age, has_validator);
    if is_failure(status) {
        life = Life { fresh: life.fresh, always_validate: life.always_validate, ..Life::default() };
    }
    if initial_age >= life.end() || (life.always_validate && !has_validator) {
        return Err(Unstorable::Useless);
    }

    let mut stored = stored_fields(headers, &control, params);
    freshness::stamp(&mut stored, headers, date);
    let selecting = vary.iter().map(|name| Some(key::normal(name, asked.headers)?.collect())).collect();
    let head = Head {
        status,
        groups: groups(&stored),
        headers: stored,
        lines: Bytes::new(),
        life,
        initial_age,
        received: moment.mono,
        date,
        etag,
        last_modified,
        vary,
        selecting,
        address: asked.parts.address(&params.query),
    };
    Ok(head.compact())
}

/// Whether an answer says that the origin failed. It is stored only where the origin says for how long, which spares it
/// the next requests; it never stands in for anything.
fn is_failure(status: StatusCode) -> bool {
    status.is_server_error() && status.as_u16() != 501 // a lasting property
}

/// Statuses whose answers may be reused without an explicit lifetime (RFC 9110 section 15.1), 206 aside.
pub const fn is_heuristically_cacheable(status: StatusCode) -> bool {
    matches!(status.as_u16(), 200 | 203 | 204 | 300 | 301 | 308 | 404 | 405 | 410 | 414 | 501)
}

/// The groups an answer belongs to: Cache-Groups (RFC 9875), Surrogate-Key and xkey (separated by spaces), Cache-Tag
/// (by commas).
pub fn groups(headers: &HeaderMap) -> Box<[Box<str>]> {
    let mut groups: Vec<Box<str>> = strings(headers, &CACHE_GROUPS);
    for (name, separator) in [(&SURROGATE_KEY, ' '), (&XKEY, ' '), (&CACHE_TAG, ',')] {
        for line in headers.get_all(name).iter().filter_map(|line| line.to_str().ok()) {
            groups.extend(line.split(separator).map(str::trim).filter(|group| !group.is_empty()).map(Box::from));
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
        for member in line.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
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
/// (RFC 9111 section 3.1), none that belongs to one user or one exchange, none that Cache-Control or the operator names.
pub(crate) fn is_stored(
    name: &HeaderName,
    headers: &HeaderMap,
    control: &ResponseControl<'_>,
    params: &CacheParams,
) -> bool {
    let named = [control.no_cache_fields, control.private_fields].into_iter().flatten();
    !NEVER_STORED.contains(name)
        && !params.strip.contains(name)
        && !name.as_str().starts_with("proxy-")
        && !is_nominated(name, headers)
        && !named.into_iter().any(|fields| fields.contains(name))
}

fn check_status(
    method: &Method,
    status: StatusCode,
    control: &ResponseControl<'_>,
    (lifetime, source): (Duration, Source),
) -> Result<(), Unstorable> {
    if method != Method::GET {
        return Err(Unstorable::Method);
    }
    if status == StatusCode::PARTIAL_CONTENT {
        return Err(Unstorable::Partial);
    }
    if NEVER_STORED_STATUSES.contains(&status.as_u16())
        || status.is_informational()
        || (is_failure(status) && (lifetime.is_zero() || !matches!(source, Source::Origin | Source::Heuristic)))
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
    if [X_CSRF_TOKEN, SAP_CONTEXTID].iter().any(|name| headers.contains_key(name))
        || asked.headers.contains_key(SAP_CONTEXTID)
    {
        return Err(Unstorable::Session);
    }
    let named = [control.no_cache_fields, control.private_fields].into_iter().flatten();
    // no-cache="Set-Cookie" says that the rest of the answer is good for others.
    let noise = named.into_iter().any(|fields| fields.contains(&SET_COOKIE));
    let ignored = |line: &HeaderValue| {
        let name = identity::cookie_set(line.as_bytes());
        params.ignore_set_cookie.iter().any(|pattern| pattern.matches(name))
    };
    if !noise && !headers.get_all(SET_COOKIE).iter().all(ignored) {
        return Err(Unstorable::SetCookie);
    }
    // Whoever gets it from the store has been let in by the origin itself.
    if is_partitioned(asked, params) || params.shared_after_auth.is_some() {
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
    params.is_partitioned() && asked.parts.partition.is_some()
}

fn stored_fields(headers: &HeaderMap, control: &ResponseControl<'_>, params: &CacheParams) -> HeaderMap {
    let mut stored = HeaderMap::with_capacity(headers.keys_len() + 1);
    for (name, value) in headers {
        if is_stored(name, headers, control, params) {
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
        .any(|member| member.trim_ascii().eq_ignore_ascii_case(name.as_str().as_bytes()))
}

/// Content-Length, where it is one number.
pub(crate) fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.trim().parse().ok()
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
pub(crate) const X_CSRF_TOKEN: HeaderName = HeaderName::from_static("x-csrf-token");
pub(crate) const SAP_CONTEXTID: HeaderName = HeaderName::from_static("sap-contextid");

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

/// 304 has no answer of its own; 401, 403, 407, 409 and 412 speak to one user or of one moment; 408, 421 and 425 of a
/// connection; 416 of a range; 428, 429, 431 and 511 by RFC 6585.
const NEVER_STORED_STATUSES: [u16; 14] = [304, 401, 403, 407, 408, 409, 412, 416, 421, 425, 428, 429, 431, 511];

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;
    use crate::clock::Clock;

    fn fields(text: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            let (name, value) = line.trim().split_once(':').unwrap();
            headers.append(HeaderName::try_from(name).unwrap(), HeaderValue::try_from(value.trim()).unwrap());
        }
        headers
    }

    struct Case {
        method: Method,
        status: u16,
        params: CacheParams,
        partition: Option<u64>,
    }

    impl Case {
        fn new() -> Self {
            Self { method: Method::GET, status: 200, params: CacheParams::default(), partition: None }
        }

        fn decide(&self, request: &str, answer: &str) -> Result<Head, Unstorable> {
            let request = fields(request);
            let parts = KeyParts {
                scheme: "http",
                host: "erp.example",
                path: "/a",
                query: None,
                upstream: "erp",
                partition: self.partition,
                body: None,
            };
            let asked = Asked { method: &self.method, headers: &request, parts };
            let moment = Clock::anchored(SystemTime::UNIX_EPOCH).moment();
            let status = StatusCode::from_u16(self.status).unwrap();
            decide(&asked, status, &fields(answer), &self.params, &|| moment, moment.mono)
        }

        fn check(&self, request: &str, answer: &str, expected: Option<Unstorable>) {
            assert_eq!(self.decide(request, answer).err(), expected, "{request} → {} {answer}", self.status);
        }
    }

    fn check(request: &str, answer: &str, expected: Option<Unstorable>) {
        Case::new().check(request, answer, expected);
    }

    #[test]
    fn directives_decide() {
        // RFC 9111 sections 3, 5.2.1.5, 5.2.2
        check("", "cache-control: max-age=60", None);
        check("", "cache-control: no-store, max-age=60", Some(Unstorable::NoStore));
        check("", "cache-control: max-age=60\ncache-control: no-store", Some(Unstorable::NoStore));
        check("cache-control: no-store", "cache-control: max-age=60", Some(Unstorable::RequestNoStore));
        check("", "cache-control: private, max-age=60", Some(Unstorable::Private));
        check("", "cache-control: private=\"x\", max-age=60", None);
        check("", "cdn-cache-control: max-age=60\ncache-control: no-store", None);
        check("", "cdn-cache-control: private\ncache-control: max-age=60", Some(Unstorable::Private));
        check("", "cache-control: must-understand, no-store, max-age=60", None);
        check("", "cache-control: no-cache\netag: \"a\"", None);
        check("", "cache-control: no-cache, max-age=60", Some(Unstorable::Useless));
        check("", "", Some(Unstorable::Useless));
        check("", "etag: \"a\"", None);
        check("", "last-modified: Thu, 01 Jan 1970 00:00:00 GMT", None);
        check("", "cache-control: max-age=0", Some(Unstorable::Useless));
        check("", "cache-control: max-age=60\nage: 60", Some(Unstorable::Useless));
        check("", "cache-control: max-age=60\nage: 59", None);
        check("", "cache-control: max-age=0, stale-if-error=60", None);
        let keep_nothing = CacheParams { keep: Duration::ZERO, ..CacheParams::default() };
        Case { params: keep_nothing, ..Case::new() }.check("", "etag: \"a\"", Some(Unstorable::Useless));
    }

    #[test]
    fn method_and_status_decide() {
        // RFC 9111 section 3, RFC 9110 section 15.1, RFC 6585
        for method in [Method::HEAD, Method::POST, Method::PUT, Method::OPTIONS] {
            Case { method, ..Case::new() }.check("", "cache-control: max-age=60", Some(Unstorable::Method));
        }
        let check = |status, expected| {
            Case { status, ..Case::new() }.check("", "cache-control: max-age=60", expected);
        };
        for status in [
            200, 203, 204, 299, 300, 301, 302, 303, 307, 308, 400, 404, 405, 410, 414, 451, 499, 500, 501, 502, 503,
            504, 599,
        ] {
            check(status, None);
        }
        for status in [100, 103, 304, 401, 403, 407, 409, 412, 416, 428, 429, 431, 511] {
            check(status, Some(Unstorable::Status));
        }
        check(206, Some(Unstorable::Partial));
        let failure = Case {
            status: 503,
            params: CacheParams { stale_if_error: Duration::from_secs(60), ..CacheParams::default() },
            ..Case::new()
        };
        for silent in ["", "etag: \"a\"", "cache-control: max-age=0", "last-modified: Thu, 01 Jan 1960 00:00:00 GMT"] {
            failure.check("", silent, Some(Unstorable::Status));
        }
        let life = failure.decide("", "cache-control: max-age=5\netag: \"a\"").unwrap().life;
        assert_eq!(life, Life { fresh: Duration::from_secs(5), ..Life::default() });
        let unknown = Case { status: 299, ..Case::new() };
        unknown.check("", "cache-control: must-understand, max-age=60", Some(Unstorable::NotUnderstood));
    }

    #[test]
    fn identity_is_safe() {
        // RFC 9111 section 3.5
        use Unstorable::{Authorization, Cookie, Private, Session, SetCookie};
        let authorized = "authorization: Basic eA==";
        check(authorized, "cache-control: max-age=60", Some(Authorization));
        check(authorized, "cache-control: max-age=60, public", None);
        check(authorized, "cache-control: s-maxage=60", None);
        check(authorized, "cache-control: max-age=60, must-revalidate", None);
        check(authorized, "cache-control: max-age=60, proxy-revalidate", Some(Authorization));
        check(authorized, "cdn-cache-control: max-age=60\ncache-control: public", Some(Authorization));
        check("", "cache-control: max-age=60\nset-cookie: a=b", Some(SetCookie));
        check("", "cache-control: max-age=60, public\nset-cookie: a=b", Some(SetCookie));
        check("", "cache-control: max-age=60, no-cache=\"Set-Cookie\"\nset-cookie: a=b", None);
        check("", "cache-control: max-age=60\nx-csrf-token: abc", Some(Session));
        check("", "cache-control: max-age=60\nsap-contextid: abc", Some(Session));
        check("sap-contextid: abc", "cache-control: max-age=60", Some(Session));
        check("x-csrf-token: value", "cache-control: max-age=60", None);
        check("cookie: a=b", "cache-control: max-age=60", None);
        check("cookie: a=b", "etag: \"a\"", Some(Cookie));
        check("cookie: a=b", "cache-control: public\netag: \"a\"", None);
        check("cookie: a=b", "cache-control: no-cache\netag: \"a\"", None);
        check("cookie: a=b", "cache-control: max-age=0\netag: \"a\"", Some(Cookie));
        check("cookie: a=b", "cache-control: max-age=0, must-revalidate\netag: \"a\"", None);

        let per_consumer = CacheParams { per_consumer: true, ..CacheParams::default() };
        let mine = Case { params: per_consumer.clone(), partition: Some(7), ..Case::new() };
        mine.check(authorized, "cache-control: private, max-age=60", None);
        mine.check("cookie: a=b", "etag: \"a\"", None);
        mine.check("", "cache-control: max-age=60\nset-cookie: a=b", Some(SetCookie));
        mine.check("", "cache-control: max-age=60\nsap-contextid: a", Some(Session));
        mine.check("", "cache-control: private, no-store, max-age=60", Some(Unstorable::NoStore));
        let nobody = Case { params: per_consumer, ..Case::new() };
        nobody.check("", "cache-control: private, max-age=60", Some(Private));
        nobody.check(authorized, "cache-control: max-age=60", Some(Authorization));
        Case { partition: Some(7), ..Case::new() }.check("", "cache-control: private, max-age=60", Some(Private));
    }

    #[test]
    fn an_override_beats_the_origin_but_not_identity() {
        let ttl = Some(Duration::from_secs(60));
        let params = CacheParams { ttl, override_origin: true, ..CacheParams::default() };
        let case = Case { params, ..Case::new() };
        case.check("cookie: a=b", "cache-control: no-store, no-cache\nexpires: 0", None);
        assert!(!case.decide("", "cache-control: no-store").unwrap().life.always_validate);
        case.check("", "set-cookie: a=b", Some(Unstorable::SetCookie));
        case.check("", "cache-control: private", Some(Unstorable::Private));
        case.check("authorization: a", "", Some(Unstorable::Authorization));
        case.check("", "x-csrf-token: a", Some(Unstorable::Session));
        case.check("cache-control: no-store", "", Some(Unstorable::RequestNoStore));
        let idle = CacheParams { ttl: None, override_origin: true, ..CacheParams::default() };
        Case { params: idle, ..Case::new() }.check("", "cache-control: no-store", Some(Unstorable::NoStore));
    }

    #[test]
    fn a_cookie_that_is_noise_is_dropped() {
        let pattern = |name| identity::CookiePattern::new(name).unwrap();
        let ignore_set_cookie = vec![pattern("PHPSESSID"), pattern("track_*")];
        let case = Case { params: CacheParams { ignore_set_cookie, ..CacheParams::default() }, ..Case::new() };
        let answer = |cookies: &str| format!("cache-control: max-age=60\n{cookies}");
        let head = case.decide("", &answer("set-cookie: PHPSESSID=1; Path=/\nset-cookie: track_1=2")).unwrap();
        assert!(!head.headers.contains_key(SET_COOKIE));
        for cookies in ["set-cookie: PHPSESSID2=1", "set-cookie: PHPSESSID=1\nset-cookie: user=2", "set-cookie: "] {
            case.check("", &answer(cookies), Some(Unstorable::SetCookie));
        }
    }

    #[test]
    fn answers_are_shared_with_the_authorized_but_never_what_is_private() {
        let shared_after_auth = Some(Duration::from_secs(60));
        let case = Case { params: CacheParams { shared_after_auth, ..CacheParams::default() }, ..Case::new() };
        case.check("authorization: a\ncookie: a=b", "cache-control: max-age=60", None);
        case.check("cookie: a=b", "etag: \"a\"", None);
        case.check("", "cache-control: private, max-age=60", Some(Unstorable::Private));
        case.check("", "cache-control: max-age=60\nset-cookie: a=b", Some(Unstorable::SetCookie));
        case.check("", "cache-control: max-age=60\nx-csrf-token: a", Some(Unstorable::Session));
    }

    #[test]
    fn what_the_operator_strips_is_not_stored() {
        let strip = vec![HeaderName::from_static("x-trace")];
        let case = Case { params: CacheParams { strip, ..CacheParams::default() }, ..Case::new() };
        let head = case.decide("", "cache-control: max-age=60\nx-trace: 1\nx-kept: 2\nsap-message: 3").unwrap();
        assert!(head.headers.contains_key("x-kept"));
        assert!(!head.headers.contains_key("x-trace") && !head.headers.contains_key("sap-message"));
    }

    #[test]
    fn vary_is_read() {
        // RFC 9110 section 12.5.5, RFC 9111 section 4.1
        let answer = |vary: &str| format!("cache-control: max-age=60\n{vary}");
        for star in
            ["vary: *", "vary: *, *", "vary: *\nvary: *", "vary: , *", "vary:\nvary: *", "vary: *, Foo", "vary: Foo, *"]
        {
            check("", &answer(star), Some(Unstorable::Vary));
        }
        check("", &answer("vary: foo bar"), Some(Unstorable::Vary));
        let head = Case::new().decide("foo: 1\nfoo: 2", &answer("vary: Foo, bar\nvary: FOO,,")).unwrap();
        assert_eq!(&*head.vary, ["bar", "foo"]);
        assert_eq!(&*head.selecting, [None, Some(b"1,2".as_slice().into())]);
        assert!(head.selects(&fields("foo: 1, 2")));
        assert!(!head.selects(&fields("foo: 1, 2\nbar: x")));
    }

    #[test]
    fn a_body_known_to_be_too_large_is_not_stored() {
        let case = Case { params: CacheParams { max_entry: 10, ..CacheParams::default() }, ..Case::new() };
        case.check("", "cache-control: max-age=60\ncontent-length: 10", None);
        case.check("", "cache-control: max-age=60\ncontent-length: 11", Some(Unstorable::TooLarge));
        case.check("", "cache-control: max-age=60", None);
    }

    #[test]
    fn only_what_may_be_sent_again_is_stored() {
        // RFC 9111 section 3.1
        let head = Case::new()
            .decide(
                "",
                "cache-control: max-age=60, private=\"Secret\"\nsecret: 1\nconnection: keep-alive, Hop\nhop: 1\n\
                 keep-alive: 1\nte: a\ntrailer: a\ntransfer-encoding: chunked\nupgrade: a\nage: 3\ncontent-length: 5\n\
                 proxy-authenticate: a\nproxy-authentication-info: a\nproxy-status: a\nwww-authenticate: a\n\
                 sap-message: a\nsap-statistics: a\nsap-perf-fesrec: a\nsap-http-session-timeout: 1\nset-cookie2: a\n\
                 link: 1\nlink: 2\nx: y\nexpires: 0\nvia: 1.1 a\ndate: Fri, 02 Jan 1970 00:00:00 GMT",
            )
            .unwrap();
        let kept = fields(
            "cache-control: max-age=60, private=\"Secret\"\nlink: 1\nlink: 2\nx: y\nexpires: 0\nvia: 1.1 a\n\
             date: Fri, 02 Jan 1970 00:00:00 GMT",
        );
        assert_eq!(head.headers, kept);
        assert_eq!(head.date, SystemTime::UNIX_EPOCH + Duration::from_secs(86_400));
        // RFC 9110 section 6.6.1: a Date is added where there is none, and takes the place of an invalid one.
        for date in ["", "date: now"] {
            let head = Case::new().decide("", &format!("cache-control: max-age=60\n{date}")).unwrap();
            assert_eq!(head.headers.get("date").unwrap(), "Thu, 01 Jan 1970 00:00:00 GMT");
        }
        assert_eq!(&*head.address, "http://erp.example/a - erp");
    }

    #[test]
    fn groups_are_read_from_all_their_fields() {
        // RFC 9875 section 2
        let check = |text: &str, expected: &[&str]| {
            let found = groups(&fields(text));
            assert_eq!(found.iter().map(|group| &**group).collect::<Vec<_>>(), expected, "{text}");
        };
        check("", &[]);
        check("cache-groups: \"b\", \"a c\";x=1\ncache-groups: \"a\"", &["a", "a c", "b"]);
        check("cache-groups: \"a\", token, (\"b\"), 3", &["a"]);
        check("cache-groups: \"a", &[]);
        check("surrogate-key: a b  a\ncache-tag: c d, e\nxkey: f", &["a", "b", "c d", "e", "f"]);
        assert_eq!(invalidated_groups(&fields("cache-group-invalidation: \"x\", \"y\"")), ["x".into(), "y".into()]);
    }

    proptest! {
        #[test]
        fn nothing_private_is_ever_stored(
            name in "[a-z-]{1,12}", value in "[ -~]{0,20}", cache_control in "[a-z0-9=\", -]{0,40}",
        ) {
            let Ok(name) = HeaderName::try_from(name) else { return Ok(()) };
            let text = format!("cache-control: max-age=60, {cache_control}\n{name}: {value}\nset-cookie2: x\nconnection: {name}");
            if let Ok(head) = Case::new().decide("", &text) {
                prop_assert!(NEVER_STORED.iter().all(|never| !head.headers.contains_key(never)));
                prop_assert!(name == "date" || !head.headers.contains_key(&name));
            }
        }
    }
}
