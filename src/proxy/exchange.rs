//! The facts of one request, gathered by the stages and told once: when it is over, counters, histograms and the
//! access log read the same facts, so that they always agree.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, Version};

use super::access_log::Line;
use super::hooks::Parties;
use super::journal::{Account, Kept, Over, Place, Stood, TEXT, Tries, cut, named};
use super::observe::Watched;
use super::respond::Forward;
use super::snapshot::{Caller, Route, Snapshot, Worker};
use super::traced::{Tale, Traced};
use crate::consumer::Identity;
use crate::listen::Peer;
use crate::message::present::Present;
use crate::message::secrets::hide;
use crate::message::trace::TraceId;
use crate::metrics::{self, CacheResult, Ending, Facts};
use crate::refusal::Reason;
use crate::throttle::quota::Standing;
use crate::throttle::rate::Rated;
use crate::throttle::{Class, Ticket};
use crate::upstream::body::Source;

/// One request and its answer.
pub(super) struct Exchange {
    /// The event loop it runs on.
    pub(super) worker: Arc<Worker>,
    /// The configuration it began with.
    pub(super) snapshot: Arc<Snapshot>,
    /// Its route, once found.
    pub(super) route: Option<usize>,
    /// Who is at the other end of the connection.
    pub(super) peer: Peer,
    /// Whether the client asked by https, as trusted proxies tell it.
    pub(super) https: bool,
    /// The client's address, as trusted proxies tell it.
    pub(super) client: IpAddr,
    /// Who calls.
    pub(super) consumer: Identity,
    /// The same as the cache of its route tells users apart, if it does.
    pub(super) identity: Option<u64>,
    /// Its method.
    pub(super) method: Method,
    /// Whether its answer may bring its head as it goes over the connection ([`Preset`](crate::listen::http1::Preset)).
    pub(super) wire: bool,
    /// The version it came in.
    pub(super) version: Version,
    /// When it came.
    pub(super) started: Instant,
    /// When its present step began: by then freshness is judged. Later than it came where it had to wait.
    pub(super) now: Instant,
    /// Until when its caller waits, if it says so.
    pub(super) deadline: Option<Instant>,
    /// Which of its fields are to be looked at.
    pub(super) present: Present,
    /// What the access log wants of the request, if there is one; and the journal, if it is no plain hit.
    pub(super) noted: Option<Box<Noted>>,
    /// What the route's rate limit said, for the RateLimit fields.
    pub(super) rated: Option<Rated>,
    /// Whose rate it is over, if it is.
    pub(super) over: Option<Over>,
    /// The same of its consumer's own.
    pub(super) own: Option<Rated>,
    /// How its consumer stands with its quotas.
    pub(super) quotas: Standing,
    /// How long a rate holds it back, if one does.
    pub(super) delayed: Option<Duration>,
    /// What the cache did.
    pub(super) cache: CacheResult,
    /// Why it was sent on.
    pub(super) forward: Option<Forward>,
    /// Why vaxel answered by itself.
    pub(super) reason: Option<Reason>,
    /// Whether the route's other upstream answered.
    pub(super) by_spare: bool,
    /// When it was told to come back.
    pub(super) retry_after: Option<Duration>,
    /// The status answered.
    pub(super) status: StatusCode,
    /// What the upstream's part was.
    pub(super) tally: Tally,
    /// The request's body, for its length.
    pub(super) body: Option<Arc<Source>>,
    /// The trace it belongs to, if its caller records it.
    pub(super) trace: Option<TraceId>,
    /// Its spans, if it is traced.
    pub(super) traced: Option<Box<Traced>>,
    /// Drawn when first needed.
    pub(super) request_id: Option<u64>,
    /// What is seen of its answer, for advice.
    pub(super) watched: Option<Box<Watched>>,
    /// Whether everyone who counts has been told.
    pub(super) told: bool,
}

impl Drop for Exchange {
    /// A client that leaves before it has an answer is counted as well.
    fn drop(&mut self) {
        if !self.told {
            self.status = StatusCode::from_u16(CLIENT_CLOSED).unwrap_or(self.status);
            self.tell(0, Ending::Aborted);
        }
    }
}

/// What happened at the upstream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Attempts made.
    pub(super) attempts: u32,
    /// Whether a byte of one may have reached the upstream.
    pub(super) reached: bool,
    /// Time spent waiting for a slot, if one was asked for.
    pub(super) queued: Option<Duration>,
    /// Time from the first attempt until the head of the last answer, or its failure.
    pub(super) upstream: Option<Duration>,
    /// How the upstream stood when the gate was last asked.
    pub(super) gate: Option<Stood>,
    /// How each attempt went.
    pub(super) tries: Tries,
}

/// What access log and journal want of a request.
pub(super) struct Noted {
    /// Its path and query, if it has them.
    pub(super) target: Option<PathAndQuery>,
    /// Its Host.
    pub(super) host: Option<HeaderValue>,
    /// Its User-Agent.
    pub(super) user_agent: Option<HeaderValue>,
    /// Its W3C trace context.
    pub(super) trace: Option<HeaderValue>,
    /// The id its client gave it.
    pub(super) named: Option<HeaderValue>,
}

impl Noted {
    /// Keeps what they want; reference counts, no copies, and one pass over the names.
    pub(super) fn of(uri: &Uri, headers: &HeaderMap) -> Box<Self> {
        let target = uri.path_and_query().cloned();
        let mut noted = Self { target, host: None, user_agent: None, trace: None, named: None };
        for (name, value) in headers {
            let place = match name.as_str() {
                "host" => &mut noted.host,
                "user-agent" => &mut noted.user_agent,
                "traceparent" => &mut noted.trace,
                REQUEST_ID => &mut noted.named,
                _ => continue,
            };
            place.get_or_insert_with(|| value.clone());
        }
        Box::new(noted)
    }

    /// Its path.
    pub(super) fn path(&self) -> &str {
        self.target.as_ref().map_or("", PathAndQuery::path)
    }
}

impl Exchange {
    /// Its route.
    pub(super) fn route(&self) -> Option<&Route> {
        self.snapshot.routes.get(self.route?)
    }

    /// Its consumer's live state and number.
    pub(super) fn caller(&self) -> (&Caller, u64) {
        self.snapshot.caller(&self.consumer)
    }

    /// What it brings to the queue of its upstream.
    pub(super) fn ticket(&self, route: &Route) -> Ticket {
        let (caller, consumer) = self.caller();
        // A logon is one whoever asks: it is dear to the backend because of what it is.
        let class = caller.class.filter(|_| route.class != Class::Logon).unwrap_or(route.class);
        Ticket { consumer, weight: caller.weight, class, cost: route.cost, operation: route.operation }
    }

    /// Remembers what the journal wants: it is no plain hit.
    pub(super) fn note(&mut self, parts: &Parts) {
        self.noted.get_or_insert_with(|| Noted::of(&parts.uri, &parts.headers));
    }

    /// Notes when a step ended, if it is traced.
    pub(super) fn mark(&mut self, note: impl FnOnce(&mut Traced, Instant)) {
        if let Some(traced) = &mut self.traced {
            note(traced, self.worker.core.clock.now());
        }
    }

    /// Its id, the same in the error body and the access log.
    pub(super) fn request_id(&mut self) -> u64 {
        *self.request_id.get_or_insert_with(|| self.worker.draw())
    }

    /// Tells everyone who counts that it is over. `sent` bytes of the answer's body were handed to the connection.
    pub(super) fn finish(mut self: Box<Self>, sent: u64, ending: Ending) {
        self.tell(sent, ending);
    }

    fn tell(&mut self, sent: u64, ending: Ending) {
        self.told = true;
        let now = self.worker.core.clock.now();
        if let Some(watched) = self.watched.take()
            && ending == Ending::Whole
        {
            self.worker.core.observer.ended(&watched, self, now);
        }
        let noted = self.noted.take();
        if noted.is_some() {
            self.request_id();
        }
        let facts = self.facts(sent, ending, now);
        let index = self.worker.index;
        self.route().map_or(&self.snapshot.unrouted, |route| &route.meter).record(index, &facts);
        self.caller().0.meter.record(index, &facts);
        if let Some(hooks) = &self.worker.core.hooks {
            hooks.finished(&facts, self.parties());
        }
        let Some(noted) = noted else { return };
        let parties = self.parties();
        if let (Some(traced), Some(tracer)) = (&self.traced, &self.worker.tracer) {
            tracer.send(Tale { exchange: self, traced, facts: &facts, noted: &noted, parties, now }.spans());
        }
        if let Some(kept) = Kept::of(&facts, self.request_id.unwrap_or_default()) {
            self.worker.journal.write(self.account(kept, &noted, &facts, parties));
        }
        if let Some(log) = &self.worker.log
            && let Some(weight) = log.weight(&facts, self.request_id.unwrap_or_default())
        {
            let mut id = [0; 16];
            log.write(&Line {
                time: self.worker.core.clock.wall_at(now),
                request_id: hexadecimal(self.request_id.unwrap_or_default(), &mut id),
                client: self.client,
                host: noted.host.as_ref().and_then(|host| host.to_str().ok()),
                path: noted.path(),
                query: noted.target.as_ref().and_then(PathAndQuery::query),
                version: self.version,
                route: parties.route,
                upstream: parties.upstream,
                consumer: parties.consumer,
                user_agent: noted.user_agent.as_ref(),
                traceparent: noted.trace.as_ref(),
                weight,
                facts: &facts,
            });
        }
    }

    fn parties(&self) -> Parties<'_> {
        let route = self.route();
        Parties {
            route: route.map(|route| &*route.name),
            upstream: route.map(|route| match &route.spare {
                Some(spare) if self.by_spare => &*spare.name,
                _ => &*route.upstream.name,
            }),
            consumer: matches!(self.consumer, Identity::Known(_)).then(|| &*self.caller().0.name),
        }
    }

    /// The name of an endpoint that was tried.
    pub(super) fn endpoint(&self, place: Place) -> Option<&str> {
        let route = self.route()?;
        let upstream = if place.is_spare { route.spare.as_ref()? } else { &route.upstream };
        Some(&*upstream.endpoints.get(place.endpoint)?.name)
    }

    fn account(&self, kept: Kept, noted: &Noted, facts: &Facts<'_>, parties: Parties<'_>) -> Account {
        Account {
            request_id: self.request_id.unwrap_or_default(),
            client_request_id: noted.named.as_ref().and_then(named),
            kept,
            ended: self.worker.core.clock.wall_at(self.started + facts.duration),
            client: self.client,
            method: self.method.clone(),
            host: noted.host.as_ref().and_then(|host| host.to_str().ok()).map(|host| cut(host, TEXT)),
            path: cut(&hide(noted.path()), TEXT),
            route: parties.route.map(Box::from),
            upstream: parties.upstream.map(Box::from),
            consumer: self.caller().0.name.clone(),
            over: self.over,
            own: self.own,
            rated: self.rated,
            quotas: self.quotas,
            delayed: facts.delayed,
            cache: self.cache,
            forward: self.forward.map(Into::into),
            gate: self.tally.gate,
            queued: facts.queued,
            attempts: self.tally.tries.told(|place| self.endpoint(place)),
            tries: facts.attempts,
            status: facts.status,
            reason: facts.reason,
            retry_after: self.retry_after,
            duration: facts.duration,
            sent: facts.response_bytes,
            ending: facts.ending,
        }
    }

    fn facts(&self, sent: u64, ending: Ending, now: Instant) -> Facts<'_> {
        let duration = now.saturating_duration_since(self.started);
        Facts {
            method: &self.method,
            status: self.status,
            cache: self.cache,
            reason: self.reason,
            duration,
            // Its client may have left before.
            delayed: self.delayed.map(|delay| delay.min(duration)),
            upstream_time: self.tally.upstream,
            queued: self.tally.queued,
            request_bytes: self.body.as_ref().map_or(0, |body| body.bytes()),
            response_bytes: sent,
            attempts: self.tally.attempts,
            ending,
            traced: self.trace.map(|trace| metrics::Traced { trace, at: self.worker.core.clock.wall_at(now) }),
        }
    }
}

/// What a client calls its request; it goes on untouched, and ours is beside it.
const REQUEST_ID: &str = "x-request-id";

/// What nginx made the custom for a client that left before it had an answer; never sent.
const CLIENT_CLOSED: u16 = 499;

/// A number in sixteen hexadecimal digits.
pub(super) fn hexadecimal(number: u64, digits: &mut [u8; 16]) -> &str {
    for (place, digit) in digits.iter_mut().rev().enumerate() {
        let nibble = u32::try_from((number >> (4 * place)) & 0xf).unwrap_or_default();
        *digit = char::from_digit(nibble, 16).map_or(b'0', |c| c as u8);
    }
    std::str::from_utf8(digits).unwrap_or_default()
}
