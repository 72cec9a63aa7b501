//! The spans of a request: one for the whole, and one for each step of its trip. Made at its end, out of what the steps
//! noted anyway; a request that is not traced pays a comparison.
//!
//! ```text
//! GET /catalog/{id}                  server; its parent is the caller's, if that records
//! ├ admit  ├ lookup                  route, identity, rates, quotas; the store
//! ├ fill, or wait                    leads a fetch for everybody, or waits for the one under way
//! │ ├ gate  └ attempt 1 …            the slot and the breaker; client spans: the parents of the backend's own
//! └ body                             from the head of the answer to its last byte
//! ```
//! Names and attributes are those of OpenTelemetry's semantic conventions (HTTP spans, 1.27 and later) where they have any;
//! our own begin with `vaxel.`.

use std::time::{Instant, SystemTime};

use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Method, Version};

use super::exchange::{Exchange, Noted, hexadecimal};
use super::hooks::Parties;
use super::journal::{End, Step, TEXT, cut};
use super::snapshot::Worker;
use crate::message::present::Present;
use crate::message::secrets::hide;
use crate::message::trace::{Context, TRACEPARENT, TraceId, TraceParent};
use crate::metrics::{CacheResult, Ending, Facts};
use crate::traces::wire::{KeyValue, Span, Status, Value};

/// A request that is traced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Traced {
    /// Its own span.
    pub(super) context: Context,
    /// Its caller's.
    parent: Option<u64>,
    /// When it was admitted.
    pub(super) admitted: Option<Instant>,
    /// When the store was asked.
    pub(super) looked: Option<Instant>,
    /// When the head of the answer was handed on.
    pub(super) answered: Option<Instant>,
    /// Whether it leads a fill.
    pub(super) fills: bool,
}

impl Traced {
    /// Whether a request is traced: as its caller says (W3C Trace Context section 3.2.2.5.1), or, without one, a share.
    pub(super) fn begin(worker: &Worker, headers: &HeaderMap, present: Present) -> Option<Self> {
        let tracer = worker.tracer.as_ref()?;
        let parent = if present.has(Present::TRACE) { headers.get(TRACEPARENT) } else { None };
        let (trace, parent) = match parent.and_then(|field| TraceParent::read(field.as_bytes())) {
            Some(parent) if !parent.sampled => return None,
            Some(parent) => (parent.trace()?, Some(parent.span()?)),
            None if tracer.samples(worker.draw()) => (TraceId::drawn(worker.draw(), worker.draw()), None),
            None => return None,
        };
        let context = Context::new(trace, worker.draw());
        Some(Self { context, parent, admitted: None, looked: None, answered: None, fills: false })
    }

    /// Whether the trace begins here.
    pub(super) const fn is_root(&self) -> bool {
        self.parent.is_none()
    }

    /// The span whose children attempts are.
    pub(super) fn asking(&self) -> Context {
        if self.fills { self.context.child(FILL) } else { self.context }
    }
}

/// The context of an attempt of a request whose attempts are children of `asking`.
pub(super) fn attempt(asking: Context, number: u32) -> Context {
    asking.child(ATTEMPTS.wrapping_add(number))
}

/// Makes the spans of a finished exchange.
pub(super) struct Tale<'a> {
    pub(super) exchange: &'a Exchange,
    pub(super) traced: &'a Traced,
    pub(super) facts: &'a Facts<'a>,
    pub(super) noted: &'a Noted,
    pub(super) parties: Parties<'a>,
    pub(super) now: Instant,
}

impl Tale<'_> {
    /// All of them, the whole first.
    pub(super) fn spans(&self) -> Vec<Span> {
        let Traced { context, admitted, looked, answered, .. } = *self.traced;
        let started = self.exchange.started;
        let answered = answered.unwrap_or(self.now);
        let admitted_at = admitted.unwrap_or(answered);
        let mut spans = vec![self.whole()];
        let step = |number, name: &str, began, ended| self.span(context.child(number), context, name, began, ended);
        spans.push(step(ADMIT, "admit", started, admitted_at));
        if let (Some(admitted), Some(looked)) = (admitted, looked) {
            let mut lookup = step(LOOKUP, "lookup", admitted, looked);
            lookup.attributes = vec![KeyValue::new("vaxel.cache", self.facts.cache.code())];
            if let Some(forward) = self.exchange.forward {
                let (why, detail) = forward.into();
                lookup.attributes.push(KeyValue::new("vaxel.cache.forward", why));
                lookup.attributes.extend(detail.map(|detail| KeyValue::new("vaxel.cache.detail", detail)));
            }
            spans.push(lookup);
            if self.traced.fills {
                spans.push(step(FILL, "fill", looked, answered));
            } else if self.facts.cache == CacheResult::Collapsed {
                spans.push(step(FILL, "wait", looked, answered));
            }
        }
        self.tries(answered, &mut spans);
        let mut body = step(BODY, "body", answered, self.now);
        body.attributes = vec![KeyValue::new("http.response.body.size", self.facts.response_bytes)];
        if self.facts.ending == Ending::Broken {
            body.status = Some(failed("the upstream's answer broke off"));
        }
        spans.push(body);
        spans
    }

    fn whole(&self) -> Span {
        let Self { exchange, facts, noted, parties, .. } = self;
        let route = exchange.route();
        let method = method(facts.method);
        let name = match route {
            Some(route) => format!("{} {}", method.unwrap_or("HTTP"), route.pattern),
            None => method.unwrap_or("HTTP").to_owned(),
        };
        let mut span = self.span(self.traced.context, self.traced.context, &name, exchange.started, self.now);
        span.kind = SERVER;
        span.parent_span_id = self.traced.parent.map(|parent| parent.to_be_bytes().to_vec()).unwrap_or_default();
        if !self.traced.is_root() {
            span.flags |= REMOTE;
        }
        let mut id = [0; 16];
        // What clients send may be as long as a head; of thousands that wait for a collector, each holds little.
        let text = |name: &str, value: Option<&str>| value.map(|value| KeyValue::new(name, &*cut(value, TEXT)));
        let host = noted.host.as_ref().and_then(|host| host.to_str().ok());
        let authority = host.and_then(|host| host.parse::<Authority>().ok());
        let agent = noted.user_agent.as_ref().and_then(|agent| agent.to_str().ok());
        let is_error = facts.status.is_server_error() || facts.ending == Ending::Broken;
        let attributes = [
            text("http.request.method", method.or(Some("_OTHER"))),
            text("http.request.method_original", method.is_none().then_some(facts.method.as_str())),
            text("url.scheme", Some(if exchange.https { "https" } else { "http" })),
            text("url.path", Some(&hide(noted.path()))),
            text("http.route", route.map(|route| &*route.pattern)),
            text("server.address", authority.as_ref().map(Authority::host)),
            authority.and_then(|host| host.port_u16()).map(|port| KeyValue::new("server.port", u64::from(port))),
            text("client.address", Some(&exchange.client.to_string())),
            text("network.protocol.version", Some(version(exchange.version))),
            text("user_agent.original", agent),
            Some(KeyValue::new("http.response.status_code", u64::from(facts.status.as_u16()))),
            Some(KeyValue::new("http.request.body.size", facts.request_bytes)),
            Some(KeyValue::new("http.response.body.size", facts.response_bytes)),
            text("error.type", is_error.then(|| facts.reason.map_or(facts.status.as_str(), |reason| reason.code()))),
            text("vaxel.request_id", Some(hexadecimal(exchange.request_id.unwrap_or_default(), &mut id))),
            text("vaxel.route", parties.route),
            text("vaxel.upstream", parties.upstream),
            text("vaxel.consumer", parties.consumer),
            text("vaxel.cache", Some(facts.cache.code())),
            text("vaxel.reason", facts.reason.map(|reason| reason.code())),
            (facts.ending == Ending::Aborted).then(|| KeyValue::new("vaxel.aborted", true)),
        ];
        span.attributes = attributes.into_iter().flatten().collect();
        if is_error {
            span.status = Some(failed(facts.reason.map_or("", |reason| reason.sentence())));
        }
        span
    }

    /// What was tried, and the waits before.
    fn tries(&self, answered: Instant, spans: &mut Vec<Span>) {
        let parent = self.traced.asking();
        let tries = &self.exchange.tally.tries;
        let mut gates = 0;
        let mut gate = |began, ended, refused: bool| {
            let mut span = self.span(parent.child(GATES + gates), parent, "gate", began, ended);
            gates += 1;
            if let Some(stood) = self.exchange.tally.gate {
                span.attributes.push(KeyValue::new("vaxel.gear", stood.gear.code()));
                let breaker = stood.breaker.map(|state| KeyValue::new("vaxel.breaker", state.code()));
                span.attributes.extend(breaker);
                let ahead = stood.ahead.map(|ahead| KeyValue::new("vaxel.queue.ahead", ahead as u64));
                span.attributes.extend(ahead);
            }
            if let (true, Some(reason)) = (refused, self.facts.reason) {
                span.attributes.push(KeyValue::new("error.type", reason.code()));
                span.status = Some(failed(reason.sentence()));
            }
            span
        };
        for (index, step) in tries.steps().enumerate() {
            spans.extend(step.asked.map(|asked| gate(asked, step.began, false)));
            let endpoint = self.exchange.endpoint(step.place);
            spans.push(self.attempt(parent, index, &step, endpoint, answered));
        }
        // Who asked, and was not let pass.
        spans.extend(tries.asked().map(|asked| gate(asked, answered, self.facts.reason.is_some())));
    }

    fn attempt(
        &self,
        parent: Context,
        index: usize,
        step: &Step<'_>,
        endpoint: Option<&str>,
        answered: Instant,
    ) -> Span {
        let number = u32::try_from(index).unwrap_or(u32::MAX);
        let ended = step.end.map_or(answered, |(_, took)| step.began + took);
        let method = method(self.facts.method).unwrap_or("HTTP");
        let mut span = self.span(attempt(parent, number), parent, method, step.began, ended);
        span.kind = CLIENT;
        let mut add = |name: &str, value: Value| span.attributes.push(KeyValue::new(name, value));
        add("http.request.method", method.into());
        if let Some(endpoint) = endpoint {
            let uri = endpoint.parse::<http::Uri>().unwrap_or_default();
            let default = if uri.scheme_str() == Some("https") { 443 } else { 80 };
            add("server.address", uri.host().unwrap_or(endpoint).into());
            add("server.port", u64::from(uri.port_u16().unwrap_or(default)).into());
            add("url.full", format!("{endpoint}{}", cut(&hide(self.noted.path()), TEXT)).into());
        }
        if index > 0 {
            add("http.request.resend_count", (index as u64).into());
        }
        match step.end {
            Some((End::Answered(status), _)) => {
                add("http.response.status_code", u64::from(status.as_u16()).into());
                if status.as_u16() >= 400 {
                    add("error.type", status.as_str().into());
                    span.status = Some(failed(""));
                }
            }
            Some((End::Failed(reason), _)) => {
                add("error.type", reason.code().into());
                span.status = Some(failed(step.error.unwrap_or_else(|| reason.sentence())));
            }
            None => add("vaxel.abandoned", true.into()),
        }
        span
    }

    fn span(&self, own: Context, parent: Context, name: &str, began: Instant, ended: Instant) -> Span {
        let clock = &self.exchange.worker.core.clock;
        Span {
            trace_id: own.trace.bytes().to_vec(),
            span_id: own.span_bytes().to_vec(),
            parent_span_id: parent.span_bytes().to_vec(),
            name: name.to_owned(),
            kind: INTERNAL,
            start_time_unix_nano: nanos(clock.wall_at(began)),
            end_time_unix_nano: nanos(clock.wall_at(ended.max(began))),
            attributes: Vec::new(),
            status: None,
            flags: SAMPLED | KNOWN_REMOTE,
        }
    }
}

fn failed(message: &str) -> Status {
    Status { message: message.to_owned(), code: ERROR }
}

fn nanos(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// A method by its name, if it is one of those that everybody knows.
fn method(method: &Method) -> Option<&str> {
    let is_known = matches!(
        *method,
        Method::GET
            | Method::HEAD
            | Method::POST
            | Method::PUT
            | Method::PATCH
            | Method::DELETE
            | Method::OPTIONS
            | Method::CONNECT
            | Method::TRACE
    );
    is_known.then_some(method.as_str())
}

const fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_09 => "0.9",
        Version::HTTP_10 => "1.0",
        Version::HTTP_2 => "2",
        Version::HTTP_3 => "3",
        _ => "1.1",
    }
}

/// What a traced request says to the upstream, in the place of what its caller said.
pub(super) fn field(context: Context) -> HeaderValue {
    HeaderValue::from_str(&context.to_string()).unwrap_or(HeaderValue::from_static(""))
}

// Which child of the request's span: they are numbered so that an attempt's is known before it is sent.
const ADMIT: u32 = 1;
const LOOKUP: u32 = 2;
const FILL: u32 = 3;
const BODY: u32 = 4;
const GATES: u32 = 1_000;
const ATTEMPTS: u32 = 1_000_000;

// `SpanKind`, `StatusCode` and `SpanFlags` of OTLP.
const INTERNAL: i32 = 1;
const SERVER: i32 = 2;
const CLIENT: i32 = 3;
const ERROR: i32 = 2;
const SAMPLED: u32 = 1;
const KNOWN_REMOTE: u32 = 0x100;
const REMOTE: u32 = 0x200;
