//! The last step: from what the trip found to the response the client reads. Only here does a refusal become a
//! response, and only here are the fields written by which a proxy explains itself: Age, Cache-Status (RFC 9211),
//! Proxy-Status (RFC 9209), Via and the RateLimit fields.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{self, HeaderName};
use http::response::Parts;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};

use super::body::{Content, ResponseBody};
use super::cache_status;
pub(super) use super::cache_status::Forward;
use super::exchange::{Exchange, hexadecimal};
use super::held::Held;
use super::limits;
use super::preset::{self, Beside, Wire};
use crate::cache::entry::{Entry, Head};
use crate::cache::flight::Reader;
use crate::cache::range;
use crate::cache::reuse::{self, Answer};
use crate::message::hop;
use crate::message::present::Present;
use crate::message::short::Short;
use crate::refusal::{Denied, Reason, Refusal};
use crate::upstream::body::ReplyBody;

/// Answers from a stored entry. `forward`: what the request went through before that; nothing, if it is a hit.
pub(super) fn stored(
    mut exchange: Box<Exchange>,
    entry: &Arc<Entry>,
    request: &HeaderMap,
    now: Instant,
    forward: Option<Forward>,
) -> Response<ResponseBody> {
    let body = &entry.body;
    let age = entry.age(now).as_secs();
    let answer = answer(&exchange, &entry.head, body.len() as u64, request);
    let mut response = Response::new(Content::Empty);
    *response.status_mut() = entry.head.status;
    *response.headers_mut() = entry.head.headers.clone();
    match answer {
        Answer::Full if exchange.method == Method::HEAD => set_length(response.headers_mut(), body.len() as u64),
        Answer::Full => *response.body_mut() = Content::Full(body.clone()),
        Answer::NotModified => not_modified(&mut response),
        Answer::Range(range) => {
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            let value = range::content_range(&range, body.len() as u64);
            response.headers_mut().insert(header::CONTENT_RANGE, value);
            *response.body_mut() = Content::Full(range::slice(body, &range).unwrap_or_default());
        }
        Answer::Multi(ranges) => {
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            let boundary = format!("{:016x}", exchange.worker.draw());
            let content_type = entry.head.headers.get(header::CONTENT_TYPE);
            match range::multipart(body, &ranges, content_type, &boundary) {
                Some(multipart) => {
                    response.headers_mut().insert(header::CONTENT_TYPE, multipart.content_type);
                    *response.body_mut() = Content::Full(multipart.pieces.concat().into());
                }
                None => *response.body_mut() = Content::Full(body.clone()),
            }
        }
        Answer::Unsatisfiable => {
            *response.status_mut() = StatusCode::RANGE_NOT_SATISFIABLE;
            let value = range::unsatisfied_range(body.len() as u64);
            response.headers_mut().insert(header::CONTENT_RANGE, value);
            response.headers_mut().remove(header::CONTENT_TYPE);
        }
    }
    let status = match forward {
        Some(forward) => forward.value(),
        None => {
            let mut text = Short::default();
            cache_status::hit(&mut text, entry, age, exchange.cache);
            text.value().unwrap_or(HeaderValue::from_static("vaxel; hit"))
        }
    };
    let headers = response.headers_mut();
    headers.insert(header::AGE, HeaderValue::from(age));
    headers.insert(CACHE_STATUS, status);
    finish(&mut exchange, response.headers_mut());
    dress(exchange, response)
}

/// The same, with all of it, where its head can go over the connection as it is: such an answer needs no fields.
///
/// # Errors
/// The exchange, where that cannot be.
pub(super) fn preset(
    mut exchange: Box<Exchange>,
    entry: Arc<Entry>,
    request: &HeaderMap,
    now: Instant,
) -> Result<ResponseBody, (Box<Exchange>, Arc<Entry>)> {
    if !preset::goes_as_stored(&exchange, &entry)
        || answer(&exchange, &entry.head, entry.body.len() as u64, request) != Answer::Full
    {
        return Err((exchange, entry));
    }
    exchange.mark(|traced, now| traced.answered = Some(now));
    exchange.status = entry.head.status;
    let (age, goes) = (entry.age(now).as_secs(), exchange.method != Method::HEAD);
    Ok(ResponseBody::new(Content::Stored(entry, goes), exchange).with(Some(Wire::Stored(age))))
}

/// What of a stored answer goes to the client, whose own fields `request` is.
fn answer(exchange: &Exchange, head: &Head, length: u64, request: &HeaderMap) -> Answer {
    if !exchange.present.has(Present::CONDITION) {
        return Answer::Full;
    }
    reuse::answer(head, length, &exchange.method, request)
}

/// Answers with what a fill streams. The one who asked the upstream gets all fields of `own`, its answer; the others
/// get those that may be shared.
pub(super) fn filled(
    mut exchange: Box<Exchange>,
    head: &Arc<Head>,
    reader: Reader,
    request: &HeaderMap,
    forward: Forward,
    own: Option<HeaderMap>,
) -> Response<ResponseBody> {
    let mut response = Response::new(Content::Empty);
    *response.status_mut() = head.status;
    *response.headers_mut() = own.map_or_else(|| head.headers.clone(), |own| own_fields(own, head));
    // Ranges never come here: a request for a part of what is not stored goes alone.
    if answer(&exchange, head, u64::MAX, request) == Answer::NotModified {
        not_modified(&mut response);
    } else if exchange.method != Method::HEAD {
        *response.body_mut() = Content::Fill(reader);
    } else if let Some(length) = reader.length() {
        set_length(response.headers_mut(), length);
    }
    let headers = response.headers_mut();
    if head.initial_age.as_secs() > 0 {
        headers.insert(header::AGE, HeaderValue::from(head.initial_age.as_secs()));
    }
    headers.insert(CACHE_STATUS, forward.answered(head.status).value());
    finish(&mut exchange, headers);
    dress(exchange, response)
}

/// The fields of an answer for the one who asked for it. The body's length is the reader's to tell.
fn own_fields(mut own: HeaderMap, head: &Head) -> HeaderMap {
    hop::strip(&mut own);
    own.remove(header::CONTENT_LENGTH);
    if let Some(date) = head.headers.get(header::DATE) {
        own.insert(header::DATE, date.clone());
    }
    own
}

/// Answers with the upstream's own reply.
pub(super) fn reply(
    mut exchange: Box<Exchange>,
    mut parts: Parts,
    body: ReplyBody,
    held: Option<Box<Held>>,
    forward: Option<Forward>,
) -> Response<ResponseBody> {
    if let Some(watched) = exchange.watched.take().filter(|_| !exchange.by_spare)
        && let Some(route) = exchange.route()
    {
        let observer = &exchange.worker.core.observer;
        exchange.watched = observer.answered(watched, route, parts.status, &parts.headers);
    }
    let switching = parts.status == StatusCode::SWITCHING_PROTOCOLS;
    let upgrade = if switching { parts.headers.get(header::UPGRADE).cloned() } else { None };
    hop::strip(&mut parts.headers);
    if let Some(protocol) = upgrade {
        parts.headers.insert(header::UPGRADE, protocol);
        parts.headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    }
    let forward = forward.map(|forward| forward.answered(parts.status));
    let beside = Beside::of(&exchange, &parts.headers, forward);
    if beside.is_none() {
        if let Some(forward) = forward {
            parts.headers.append(CACHE_STATUS, forward.value());
        }
        finish(&mut exchange, &mut parts.headers);
    }
    // hyper frames anew for the client: the version belongs to the upstream's hop.
    parts.version = http::Version::default();
    let content = match held {
        Some(held) if exchange.method == Method::HEAD => {
            // A fill asks with GET on behalf of HEAD: then there is a body to come that nobody wants.
            let whole = body.is_end_stream();
            held.leave(body, whole);
            Content::Empty
        }
        Some(mut held) => {
            held.hurry(exchange.deadline);
            Content::Reply(body, held)
        }
        None => Content::Empty,
    };
    ended(exchange, parts, content, beside.map(Wire::Beside))
}

/// Answers with the reply of the upstream that stands in; why stays visible in Proxy-Status, log and metrics.
pub(super) fn stood_in(
    mut exchange: Box<Exchange>,
    reason: Reason,
    (mut parts, body, held): (Parts, ReplyBody, Box<Held>),
) -> Response<ResponseBody> {
    exchange.reason = Some(reason);
    exchange.by_spare = true;
    if let Some(value) = proxy_status(reason) {
        parts.headers.append(PROXY_STATUS, HeaderValue::from_static(value));
    }
    reply(exchange, parts, body, Some(held), None)
}

/// Answers by itself: problem+json (RFC 9457) with the reason, and when to come back.
pub(super) fn refuse(exchange: Box<Exchange>, refusal: Refusal) -> Response<ResponseBody> {
    let Refusal { reason, retry_after } = refusal;
    // Our own texts hold nothing to escape.
    problem(
        exchange,
        reason,
        Problem { status: reason.status(), code: reason.code(), detail: reason.sentence() },
        retry_after,
    )
}

/// Refuses as an embedding program wants it.
pub(super) fn deny(exchange: Box<Exchange>, denied: Denied) -> Response<ResponseBody> {
    let denial = match denied {
        Denied::Refusal(refusal) => return refuse(exchange, refusal),
        Denied::Own(denial) => denial,
    };
    let detail = serde_json::Value::from(denial.detail).to_string();
    let detail = detail.get(1..detail.len() - 1).unwrap_or_default();
    problem(exchange, Reason::Hook, Problem { status: denial.status, code: denial.code, detail }, denial.retry_after)
}

/// What an error body says; the texts fit into JSON as they are.
struct Problem<'a> {
    status: StatusCode,
    code: &'a str,
    detail: &'a str,
}

fn problem(
    mut exchange: Box<Exchange>,
    reason: Reason,
    Problem { status, code, detail }: Problem<'_>,
    retry_after: Option<Duration>,
) -> Response<ResponseBody> {
    exchange.reason = Some(reason);
    exchange.retry_after = retry_after;
    let mut body = String::with_capacity(256);
    let id = exchange.request_id();
    let violated: Vec<_> = limits::violated(&exchange).collect();
    let plain = ("about:blank", status.canonical_reason().unwrap_or_default());
    let (kind, title) = if violated.is_empty() { plain } else { limits::EXCEEDED };
    let _ = write!(
        body,
        "{{\"type\":\"{kind}\",\"title\":\"{title}\",\"status\":{},\"detail\":\"{detail}\",\"reason\":\"{code}\",\"request_id\":\"{id:016x}\"",
        status.as_u16(),
    );
    if !violated.is_empty() {
        let _ = write!(body, ",\"violated-policies\":{violated:?}");
    }
    if let Some(wait) = retry_after {
        let _ = write!(body, ",\"retry_after_ms\":{}", wait.as_millis());
    }
    body.push('}');
    body.push('\n');
    let mut response = Response::new(Content::Full(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(wait) = retry_after {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds_up(wait)));
    }
    if let Some(value) = proxy_status(reason) {
        headers.insert(PROXY_STATUS, HeaderValue::from_static(value));
    }
    headers.insert(VAXEL_REQUEST_ID, id_field(id));
    match reason {
        Reason::ConsumerUnknown => {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"vaxel\""));
        }
        Reason::RequestMethod => {
            headers.insert(header::ALLOW, HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"));
        }
        _ => {}
    }
    finish(&mut exchange, response.headers_mut());
    head_only(&exchange, &mut response);
    dress(exchange, response)
}

/// HEAD gets no body of ours, but its length (RFC 9110 section 9.3.2).
fn head_only(exchange: &Exchange, response: &mut Response<Content>) {
    if exchange.method != Method::HEAD {
        return;
    }
    if let Content::Full(body) = std::mem::replace(response.body_mut(), Content::Empty) {
        set_length(response.headers_mut(), body.len() as u64);
    }
}

/// Answers with the route's static fallback; the reason stays visible in Proxy-Status, log and metrics.
pub(super) fn fallback(mut exchange: Box<Exchange>, refusal: Refusal) -> Response<ResponseBody> {
    let Some(answer) = exchange.route().and_then(|route| route.fallback.clone()) else {
        return refuse(exchange, refusal);
    };
    exchange.reason = Some(refusal.reason);
    exchange.retry_after = refusal.retry_after;
    let mut response = Response::new(Content::Full(answer.body));
    *response.status_mut() = answer.status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, answer.content_type);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(wait) = refusal.retry_after {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds_up(wait)));
    }
    if let Some(value) = proxy_status(refusal.reason) {
        headers.insert(PROXY_STATUS, HeaderValue::from_static(value));
    }
    headers.insert(VAXEL_REQUEST_ID, id_field(exchange.request_id()));
    finish(&mut exchange, headers);
    head_only(&exchange, &mut response);
    dress(exchange, response)
}

/// What goes on every response: the operator's edits, the rate, our name.
fn finish(exchange: &mut Exchange, headers: &mut HeaderMap) {
    exchange.worker.core.pseudonym.sign(headers, http::Version::HTTP_11);
    if let Some(route) = exchange.route() {
        route.response_headers.apply(headers);
    }
    limits::fields(exchange, headers);
}

/// Wraps the content so that the exchange ends with the body.
fn dress(exchange: Box<Exchange>, response: Response<Content>) -> Response<ResponseBody> {
    let (parts, content) = response.into_parts();
    ended(exchange, parts, content, None)
}

/// The same in parts, with what goes over the connection beside its fields.
fn ended(
    mut exchange: Box<Exchange>,
    mut parts: Parts,
    content: Content,
    wire: Option<Wire>,
) -> Response<ResponseBody> {
    if let Some(hooks) = &exchange.worker.core.hooks {
        hooks.response(&mut parts);
    }
    exchange.mark(|traced, now| traced.answered = Some(now));
    exchange.status = parts.status;
    Response::from_parts(parts, ResponseBody::new(content, exchange).with(wire))
}

fn not_modified(response: &mut Response<Content>) {
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    let dropped: Vec<HeaderName> =
        response.headers().keys().filter(|name| !reuse::is_in_not_modified(name)).cloned().collect();
    for name in dropped {
        response.headers_mut().remove(name);
    }
}

fn set_length(headers: &mut HeaderMap, length: u64) {
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
}

fn id_field(id: u64) -> HeaderValue {
    HeaderValue::from_str(hexadecimal(id, &mut [0; 16])).unwrap_or(HeaderValue::from_static(""))
}

/// Whole seconds, never too early, at least one.
pub(super) fn seconds_up(wait: Duration) -> u64 {
    (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1)
}

/// RFC 9209 section 2.3: which error the intermediary met.
const fn proxy_status(reason: Reason) -> Option<&'static str> {
    Some(match reason {
        Reason::UpstreamConnect => "vaxel; error=connection_refused",
        Reason::UpstreamTls => "vaxel; error=tls_protocol_error",
        Reason::UpstreamReset => "vaxel; error=connection_terminated",
        Reason::UpstreamProtocol => "vaxel; error=http_protocol_error",
        Reason::UpstreamUnexpected => "vaxel; error=http_response_incomplete; details=\"upstream.unexpected\"",
        Reason::UpstreamConnectTimeout => "vaxel; error=connection_timeout",
        Reason::UpstreamStatus => "vaxel; error=http_response_incomplete; details=\"upstream.status\"",
        Reason::UpstreamTimeout => "vaxel; error=http_response_timeout",
        Reason::DeadlineExceeded => "vaxel; error=http_response_timeout; details=\"deadline.exceeded\"",
        Reason::UpstreamNone => "vaxel; error=destination_unavailable",
        Reason::BreakerOpen => "vaxel; error=destination_unavailable; details=\"breaker.open\"",
        Reason::GearPark => "vaxel; error=destination_unavailable; details=\"gear.park\"",
        Reason::GearLimp => "vaxel; error=destination_unavailable; details=\"gear.limp\"",
        Reason::WindowWrites => "vaxel; error=destination_unavailable; details=\"window.writes\"",
        Reason::ConnectionLimit | Reason::ConnectionAddress => "vaxel; error=http_request_denied",
        Reason::QueueFull => "vaxel; error=connection_limit_reached; details=\"queue.full\"",
        Reason::QueueTimeout => "vaxel; error=connection_limit_reached; details=\"queue.timeout\"",
        Reason::QueueHopeless => "vaxel; error=connection_limit_reached; details=\"queue.hopeless\"",
        Reason::RequestLoop => "vaxel; error=proxy_loop_detected",
        Reason::RateExceeded => "vaxel; error=http_request_denied; details=\"rate.exceeded\"",
        Reason::QuotaHour => "vaxel; error=http_request_denied; details=\"quota.hour\"",
        Reason::QuotaDay => "vaxel; error=http_request_denied; details=\"quota.day\"",
        Reason::QuotaMonth => "vaxel; error=http_request_denied; details=\"quota.month\"",
        Reason::ConsumerUnknown | Reason::RequestMethod | Reason::Hook => "vaxel; error=http_request_denied",
        Reason::RouteNone => "vaxel; error=destination_not_found",
        Reason::Internal => "vaxel; error=proxy_internal_error",
        Reason::RequestMalformed
        | Reason::RequestHost
        | Reason::RequestTarget
        | Reason::RequestCoding
        | Reason::RequestHeadTooLarge
        | Reason::RequestTargetTooLong
        | Reason::RequestTooLarge
        | Reason::RequestBody => "vaxel; error=http_request_error",
        Reason::CacheOnly => return None,
    })
}

const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");
const VAXEL_REQUEST_ID: HeaderName = HeaderName::from_static("vaxel-request-id");
