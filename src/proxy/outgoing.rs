//! From the request as it came to the request as it goes on: fields of the hop removed, the client named, the
//! operator's edits and path applied. The path is the client's own spelling, but for dot segments, unless a rewrite asks
//! for another.

use std::sync::Arc;

use http::header::{self, HeaderName};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Version};

use super::attempt::Outgoing;
use super::deadline::Deadline;
use super::exchange::Exchange;
use super::snapshot::{Route, Snapshot, Worker};
use super::traced;
use super::tunnel::Side;
use crate::listen::Peer;
use crate::message::present::Present;
use crate::message::short::Text as _;
use crate::message::trace::{TRACEPARENT, TRACESTATE};
use crate::message::{hop, target};
use crate::refusal::{Reason, Refusal};
use crate::upstream::body::{Inbound, Source};

/// A request that goes on as its client sent it: what a proxy adds is written beside its fields.
#[derive(Clone)]
pub(super) struct AsItIs {
    snapshot: Arc<Snapshot>,
    peer: Peer,
}

impl AsItIs {
    /// `None` where fields must be made: somebody is to see or change them, or they say what is for this hop alone.
    pub(super) fn of(exchange: &Exchange, route: &Route, parts: &Parts) -> Option<Self> {
        const STEERS: [Present; 5] = [Present::UPGRADE, Present::TE, Present::HOP, Present::FORWARDED, Present::EXPECT];
        let present = exchange.present;
        let is_plain = parts.version == Version::HTTP_11
            && !STEERS.into_iter().any(|kind| present.has(kind))
            && (!present.has(Present::CONNECTION) || hop::nominates_none(&parts.headers))
            && target::host_field(&parts.headers).is_some();
        let is_looked_at = exchange.traced.is_some()
            || exchange.worker.core.hooks.is_some()
            || route.deadline.is_some()
            || !route.request_headers.is_empty();
        (is_plain && !is_looked_at).then(|| Self { snapshot: Arc::clone(&exchange.snapshot), peer: exchange.peer })
    }

    /// Appends the lines that stand beside the fields.
    pub(super) fn lines(&self, worker: &Worker, host: &HeaderValue, to: &mut Vec<u8>) {
        self.snapshot.forwarding.lines(to, self.peer.address.ip(), host, self.peer.tls);
        to.text(worker.core.pseudonym.line());
    }

    /// Makes of the client's fields those that are sent.
    pub(super) fn dress(&self, worker: &Worker, headers: &mut HeaderMap) {
        hop::strip(headers);
        if let Some(host) = headers.get(header::HOST).cloned() {
            self.snapshot.forwarding.write(headers, self.peer.address.ip(), &host, self.peer.tls);
        }
        worker.core.pseudonym.sign(headers, Version::HTTP_11);
    }
}

/// Prepares a request for the upstream; one that goes on as it is keeps the fields of its client.
///
/// # Errors
/// `request.target` when a rewrite makes no path, `request.too_large` when the announced body is.
pub(super) fn prepare(
    exchange: &mut Exchange,
    route: &Route,
    mut parts: Parts,
    body: Inbound,
    safe: bool,
    as_it_is: Option<AsItIs>,
) -> Result<Outgoing, Refusal> {
    let target = path(route, &parts)?;
    if as_it_is.is_some() {
        let is_announced = exchange.present.has(Present::LENGTH);
        let body = source(route, is_announced, body, safe || parts.method.is_idempotent())?;
        exchange.body.clone_from(&body);
        let Parts { method, headers, .. } = parts;
        let (trace, span, upgrade, deadline) = (exchange.trace, None, None, None);
        return Ok(Outgoing { method, target, headers, as_it_is, body, safe, trace, span, upgrade, deadline });
    }
    let deadline = Deadline::of(route, &parts.headers, exchange.started);
    exchange.deadline = deadline.as_ref().map(|deadline| deadline.at);
    let may_switch = parts.version == Version::HTTP_11 && exchange.present.has(Present::UPGRADE);
    let protocol = if may_switch { hop::upgrade(&parts.headers) } else { None };
    let upgrade = protocol.as_ref().and_then(|_| Side::take(&mut parts.extensions));
    let trailers =
        parts.version == Version::HTTP_2 || exchange.present.has(Present::TE) && lists_trailers(&parts.headers);
    let headers = &mut parts.headers;
    hop::strip(headers);
    if trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    if parts.version == Version::HTTP_2 {
        join_cookies(headers);
    }
    if let (Some(protocol), Some(_)) = (protocol, &upgrade) {
        headers.insert(header::UPGRADE, protocol);
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    }
    let host = host(&parts.uri, headers);
    if let Some(host) = host {
        exchange.snapshot.forwarding.write(headers, exchange.peer.address.ip(), &host, exchange.peer.tls);
        if !headers.contains_key(header::HOST) {
            headers.insert(header::HOST, host);
        }
    }
    exchange.worker.core.pseudonym.sign(headers, parts.version);
    if let Some(traced) = &exchange.traced {
        if traced.is_root() {
            // It belongs to a parent that there is not (W3C Trace Context section 3.3.1.1).
            headers.remove(TRACESTATE);
        }
        headers.insert(TRACEPARENT, traced::field(traced.context));
    }
    route.request_headers.apply(headers);
    let is_announced = headers.contains_key(header::CONTENT_LENGTH);
    let body = source(route, is_announced, body, safe || parts.method.is_idempotent())?;
    exchange.body.clone_from(&body);
    let (trace, span) = (exchange.trace, exchange.traced.as_ref().map(|traced| traced.asking()));
    let Parts { method, headers, .. } = parts;
    Ok(Outgoing { method, target, headers, as_it_is, body, safe, trace, span, upgrade, deadline })
}

fn path(route: &Route, parts: &Parts) -> Result<PathAndQuery, Refusal> {
    let Some(raw) = parts.uri.path_and_query() else { return Ok(PathAndQuery::from_static("/")) };
    let normal = target::sent(raw.path(), route.rewrite.is_some())?;
    if normal.is_none() && route.rewrite.is_none() {
        return Ok(raw.clone());
    }
    let mut sent = normal.unwrap_or_else(|| raw.path().to_owned());
    if let Some(query) = raw.query() {
        sent.push('?');
        sent.push_str(query);
    }
    let sent = match &route.rewrite {
        Some(rewrite) => rewrite.apply(&sent),
        None => sent,
    };
    sent.parse().map_err(|_| Reason::RequestTarget.into())
}

/// HTTP/2 has `:authority` in place of Host (RFC 9113 section 8.3.1).
fn host(uri: &http::Uri, headers: &HeaderMap) -> Option<HeaderValue> {
    match headers.get(header::HOST) {
        Some(host) => Some(host.clone()),
        None => HeaderValue::from_str(uri.authority()?.as_str()).ok(),
    }
}

/// The one member of TE that crosses a proxy (RFC 9110 section 10.1.4).
fn lists_trailers(headers: &HeaderMap) -> bool {
    let mut members = headers.get_all(header::TE).iter().flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    members.any(|member| member.trim_ascii().eq_ignore_ascii_case(b"trailers"))
}

/// HTTP/2 may split Cookie into crumbs; HTTP/1.1 has one field (RFC 9113 section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let mut crumbs = headers.get_all(header::COOKIE).iter();
    if crumbs.nth(1).is_none() {
        return;
    }
    let joined = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect::<Vec<_>>().join(&b"; "[..]);
    if let Ok(value) = HeaderValue::from_bytes(&joined) {
        headers.insert(header::COOKIE, value);
    }
}

fn source(route: &Route, is_announced: bool, body: Inbound, idempotent: bool) -> Result<Option<Arc<Source>>, Refusal> {
    if body.is_end_stream() && !is_announced {
        return Ok(None);
    }
    if body.size_hint().lower() > route.body.limit {
        return Err(Reason::RequestTooLarge.into());
    }
    // What is not idempotent is sent again only if nothing was sent at all: nothing to keep.
    let read = route.cache.as_ref().and_then(|params| params.post.as_ref()).map_or(0, |rule| rule.max_body);
    let replay = if idempotent { REPLAYED.max(read) } else { 0 };
    Ok(Some(Source::new(body, route.body, replay)))
}

/// What is kept of a body for another attempt.
const REPLAYED: usize = 64 * 1024;

/// Fields by which a request is answered from what is stored; a fill asks for the whole.
pub(super) const CONDITIONS: [HeaderName; 4] =
    [header::IF_NONE_MATCH, header::IF_MODIFIED_SINCE, header::IF_RANGE, header::RANGE];
