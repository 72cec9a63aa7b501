//! What would become of a request, step by step, without sending it: `vaxel explain`. Each answer comes from the very
//! code that serves requests, and changes nothing: rates and breaker are looked at, no slot is taken, nothing is counted.
//! The embedding program's hooks are left out.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::request::Parts;
use http::{HeaderMap, Method, Version};
use serde::Serialize;

use super::exchange::Exchange;
use super::inspect::{self, Inspection};
use super::journal::{Over, span};
use super::snapshot::{Route, Snapshot, Worker};
use super::{admit, outgoing};
use crate::consumer::Identity;
use crate::listen::Peer;
use crate::message::target::Target;
use crate::refusal::{Reason, Refusal};
use crate::router::{HeaderPredicate, Miss};
use crate::throttle::Class;
use crate::throttle::rate::Come;
use crate::throttle::reserve::PerClass;
use crate::throttle::slots::{Excess, Outlook};
use crate::upstream::body::Inbound;

/// What would become of a request now. Times are in milliseconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Explanation {
    /// Its method, host and path.
    pub request: String,
    /// The routes whose host and path fit, in the order of precedence.
    pub routes: Vec<RouteLook>,
    /// Who calls.
    pub consumer: Option<String>,
    /// The rates it would count against, as they would stand after it.
    pub rates: Vec<RateLook>,
    /// What the cache would do.
    pub cache: Option<Inspection>,
    /// How its upstream stands.
    pub upstream: Option<UpstreamLook>,
    /// What would be sent there.
    pub sent: Option<Sent>,
    /// Why it would be refused, if it would be: the reason's code.
    pub refused: Option<&'static str>,
    /// All that in sentences: the step, and what is said of it.
    pub story: Vec<(&'static str, String)>,
}

/// A route whose host and path fit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RouteLook {
    /// Its name.
    pub route: String,
    /// Host and path as the file has them.
    pub pattern: String,
    /// Whether it is the one.
    pub taken: bool,
    /// Why it is, or is not.
    pub why: String,
}

/// A rate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RateLook {
    /// Whose: `consumer` or `route`.
    pub of: &'static str,
    /// Whether the request would pass.
    pub allowed: bool,
    /// What it would take.
    pub cost: u32,
    /// What could come at once after it.
    pub remaining: u32,
    /// How long it would be held back.
    pub delay_ms: u64,
    /// Until the same request would be allowed.
    pub retry_after_ms: u64,
}

/// How an upstream stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UpstreamLook {
    /// Its name.
    pub upstream: String,
    /// Its gear.
    pub gear: &'static str,
    /// Why.
    pub cause: &'static str,
    /// The window that is open.
    pub window: Option<String>,
    /// The state of its breaker, if it has one.
    pub breaker: Option<&'static str>,
    /// Slots that may be used now.
    pub slots: usize,
    /// Slots in use, zombies included.
    pub used: usize,
    /// Requests that wait for one.
    pub queued: usize,
    /// Requests that may.
    pub queue: usize,
    /// How long a slot is usually taken.
    pub typical_ms: Option<u64>,
    /// The request's class, by which it would wait.
    pub class: &'static str,
    /// Slots that its class may take now.
    pub room: u32,
    /// How long it would wait, as far as that can be said.
    pub wait_ms: Option<u64>,
    /// Slots kept for classes.
    pub kept: Vec<(&'static str, u32)>,
    /// Slots that classes may have at most.
    pub cap: Vec<(&'static str, u32)>,
    /// Requests each endpoint works on at most.
    pub endpoint_slots: Option<u32>,
    /// Endpoints that take requests.
    pub endpoints: Vec<String>,
    /// Name resolution, TCP and TLS; the head of an answer; all of it.
    pub timeouts_ms: [u64; 3],
    /// Attempts at most.
    pub attempts: u32,
    /// What would refuse it at the gate now: the reason's code.
    pub refuses: Option<&'static str>,
}

/// What goes upstream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Sent {
    /// Its method.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Fields that are added or changed. Credentials are hidden: they may be the configuration's.
    pub set: Vec<(String, String)>,
    /// Fields that are removed.
    pub removed: Vec<String>,
}

/// Explains what would become of a request from `peer`.
pub fn explain(worker: &Arc<Worker>, parts: &Parts, peer: Peer) -> Explanation {
    let mut exchange = admit::open(worker, &worker.snapshot.load(), parts, peer);
    exchange.told = true;
    let snapshot = Arc::clone(&exchange.snapshot);
    let host = parts.headers.get(http::header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let mut told = Explanation { request: format!("{} {host}{}", parts.method, parts.uri), ..Explanation::default() };
    told.say("request", told.request.clone());
    if let Err(refusal) = told.follow(&mut exchange, &snapshot, parts, peer) {
        told.refuse(refusal);
        let fallback = exchange.route().and_then(|route| route.fallback.as_ref());
        if let Some(fallback) = fallback.filter(|_| told.upstream.is_some()) {
            told.say(
                "fallback",
                format!("answered with the route's own {} in place of that", fallback.status.as_u16()),
            );
        }
    }
    told
}

impl Explanation {
    fn say(&mut self, step: &'static str, sentence: impl Into<String>) {
        self.story.push((step, sentence.into()));
    }

    fn refuse(&mut self, Refusal { reason, retry_after }: Refusal) {
        self.refused = Some(reason.code());
        let wait = retry_after
            .map_or_else(String::new, |wait| format!(" It would be told to come back after {}.", span(wait)));
        self.say("refused", format!("{} {}: {}{wait}", reason.status().as_u16(), reason.code(), reason.sentence()));
    }

    /// The steps of the trip, as far as the request would come.
    fn follow(
        &mut self,
        exchange: &mut Exchange,
        snapshot: &Snapshot,
        parts: &Parts,
        peer: Peer,
    ) -> Result<(), Refusal> {
        let worker = Arc::clone(&exchange.worker);
        admit::check(&worker, parts, exchange.present)?;
        let target = Target::of(&parts.uri, &parts.headers, parts.version < Version::HTTP_11)?;
        self.routes(snapshot, &target, parts);
        let placed = admit::place(exchange, snapshot, parts, &target);
        if exchange.route.is_some() {
            self.consumer(exchange);
        }
        let route = placed?;
        self.rates(exchange, route)?;
        let inspection = inspect::inspect(&worker, parts, peer)?;
        let verdict = &inspection.verdict;
        let detail = verdict.cache_status.as_ref().map_or_else(String::new, |status| format!(" [{status}]"));
        let (result, why, asks) = (verdict.result, verdict.why.clone(), verdict.asks_upstream);
        self.say("cache", format!("{result}: {why}{detail}"));
        if let Some(key) = &inspection.key {
            self.say("key", key.address.clone());
        }
        self.cache = Some(inspection);
        if result == "refused" {
            return Err(Reason::CacheOnly.into());
        }
        let serves = matches!(result, "hit" | "stale");
        if !asks {
            self.say("answer", "from the store; the upstream is not asked");
            return Ok(());
        }
        let safe = admit::is_safe(&parts.method, exchange.present);
        let gate = self.upstream(exchange, route, safe);
        self.sent(exchange, route, parts, safe, result == "miss")?;
        if serves {
            self.say("answer", "from the store; the upstream is asked in the background");
            return Ok(());
        }
        gate
    }

    fn routes(&mut self, snapshot: &Snapshot, target: &Target<'_>, parts: &Parts) {
        let near = snapshot.router.near(&target.host, &target.route_path(), &parts.method, &parts.headers);
        let first = near.iter().position(|(_, miss)| miss.is_none());
        for (place, (index, miss)) in near.into_iter().enumerate() {
            let Some(route) = snapshot.routes.get(*index) else { continue };
            let is_it = first == Some(place);
            let why = match miss {
                None if is_it => {
                    "taken: host, path, method and fields fit, and none that fits is more specific".to_owned()
                }
                None => "fits too, but is less specific or later in the file".to_owned(),
                Some(miss) => missed(&miss),
            };
            let (name, pattern) = (route.name.to_string(), route.pattern.to_string());
            self.say("route", format!("{name} ({pattern}): {why}"));
            self.routes.push(RouteLook { route: name, pattern, taken: is_it, why });
        }
    }

    fn consumer(&mut self, exchange: &Exchange) {
        let (caller, _) = exchange.caller();
        let how = match exchange.consumer {
            Identity::Known(_) => format!("known, weight {}", caller.weight),
            Identity::Anonymous(address) => format!("nobody known, counted by the address {address}"),
        };
        self.say("consumer", format!("{}: {how}", caller.name));
        self.consumer = Some(caller.name.to_string());
    }

    /// Looks at the rates without taking of them.
    fn rates(&mut self, exchange: &Exchange, route: &Route) -> Result<(), Refusal> {
        let (caller, number) = exchange.caller();
        let cost = NonZeroU32::new(route.cost).unwrap_or(NonZeroU32::MIN);
        let route_rate = route.rate.as_ref().map(|rate| &rate.limiter);
        let mut come = Come { now: exchange.started, held: Duration::ZERO };
        for (of, limiter) in
            [(Over::Consumer, caller.rate.as_ref().map(|rate| &rate.limiter)), (Over::Route, route_rate)]
        {
            let Some(limiter) = limiter else { continue };
            let counts = limiter.mode().counts();
            let rated = limiter.peek(number, cost, come, Duration::MAX);
            self.rates.push(RateLook {
                of: of.code(),
                allowed: rated.allowed,
                cost: cost.get(),
                remaining: rated.remaining,
                delay_ms: millis(rated.delay),
                retry_after_ms: millis(rated.retry_after),
            });
            let verdict = match (rated.allowed, rated.delay) {
                (true, Duration::ZERO) => "within it".to_owned(),
                (true, delay) => format!("over it, it would wait {} for its turn", span(delay)),
                (false, _) => "over it".to_owned(),
            };
            let shadow = match counts || (rated.allowed && rated.delay.is_zero()) {
                true => "",
                false => ", but in shadow mode, where that is only counted",
            };
            let left = rated.remaining;
            self.say(
                "rate",
                format!("that of the {}: {verdict}{shadow}, at a cost of {cost}; {left} more at once", of.code()),
            );
            if counts && !rated.allowed {
                return Err(admit::exceeded(&rated, come.held));
            }
            if counts {
                come.held += rated.delay;
            }
        }
        self.quotas(exchange, cost)
    }

    /// Looks at the consumer's quotas without taking of them.
    fn quotas(&mut self, exchange: &Exchange, cost: NonZeroU32) -> Result<(), Refusal> {
        let Some(quota) = &exchange.caller().0.quota else { return Ok(()) };
        let wall = exchange.worker.core.clock.wall_at(exchange.started);
        let standing = quota.counts.lock().stand(&quota.quotas, cost.get(), wall);
        for quota in standing.iter().flatten() {
            let verdict = match (quota.allowed, quota.mode.counts()) {
                (true, _) => "within it",
                (false, true) => "beyond it",
                (false, false) => "beyond it, but in shadow mode, where that is only counted",
            };
            let (per, used, limit) = (quota.per.word(), quota.used, quota.limit);
            self.say("quota", format!("that of the {per}: {verdict}, at a cost of {cost}; {used} of {limit} used"));
        }
        admit::used_up(&standing)
    }

    /// How the upstream stands; what would refuse the request there.
    fn upstream(&mut self, exchange: &Exchange, route: &Route, safe: bool) -> Result<(), Refusal> {
        let (upstream, now) = (&route.upstream, exchange.started);
        let (stand, stats) = (upstream.gears.now(), upstream.slots.stats());
        let ticket = exchange.ticket(route);
        let breaker = upstream.breaker.as_ref().map(|breaker| {
            let breaker = breaker.lock();
            (breaker.state(now).code(), breaker.peek(now), breaker.counts())
        });
        let is_open = breaker.and_then(|(_, passes, counts)| passes.err().filter(|_| counts));
        if let Some((_, Err(_), false)) = breaker {
            self.say("shadow", "the breaker would refuse it, but is in shadow mode and only counts");
        }
        let mut gate = stand.admit(safe, ticket.class, now, 0);
        if let Some(wait) = is_open.filter(|_| gate.is_ok()) {
            gate = Err(Refusal::from(Reason::BreakerOpen).after(wait));
        }
        let endpoints = available(route, now);
        let used = stats.busy + stats.zombie;
        let outlook = upstream.slots.outlook(&ticket);
        if let (true, Some(Excess::Refused(reason)), false) = (gate.is_ok(), outlook.excess, outlook.shadow) {
            gate = Err(reason.into());
        }
        if let Some(reason) = stand.would_refuse(safe, ticket.class) {
            self.say(
                "shadow",
                format!("it would be refused ({}), but for shadow mode, where that is only counted", reason.code()),
            );
        }
        if gate.is_ok() && endpoints.is_empty() {
            gate = Err(Reason::UpstreamNone.into());
        }
        let look = UpstreamLook {
            upstream: upstream.name.to_string(),
            gear: stand.gear.code(),
            cause: stand.cause.code(),
            window: stand.window.as_ref().map(ToString::to_string),
            breaker: breaker.map(|(state, ..)| state),
            slots: stats.slots,
            used,
            queued: stats.queued,
            queue: upstream.queue,
            typical_ms: stats.typical.map(millis),
            class: ticket.class.word(),
            room: outlook.room,
            wait_ms: outlook.wait.filter(|_| outlook.excess.is_some()).map(millis),
            kept: per_class(outlook.kept, 0),
            cap: per_class(outlook.cap, u32::MAX),
            endpoint_slots: upstream.endpoint_slots,
            endpoints,
            timeouts_ms: [upstream.timeouts.connect, upstream.timeouts.head, upstream.timeouts.total].map(millis),
            attempts: upstream.retry.attempts,
            refuses: gate.err().map(|refusal| refusal.reason.code()),
        };
        self.tell(&look, &outlook);
        for rule in route.classes.told() {
            self.say("classify", rule);
        }
        self.upstream = Some(look);
        gate
    }

    fn tell(&mut self, look: &UpstreamLook, outlook: &Outlook) {
        let window = look.window.as_ref().map_or_else(String::new, |window| format!(", window {window} is open"));
        let breaker = look.breaker.map_or_else(|| "no breaker".to_owned(), |state| format!("breaker {state}"));
        self.say("gate", format!("{}: gear {} ({}), {breaker}{window}", look.upstream, look.gear, look.cause));
        let place = match outlook.excess {
            None => "it would get one at once".to_owned(),
            Some(Excess::Waits) => "it would wait".to_owned(),
            Some(Excess::Refused(reason)) => format!("there is no place for it ({})", reason.code()),
        };
        let wait = look.wait_ms.map_or_else(String::new, |wait| format!(", about {wait} ms"));
        let shadow = match outlook.excess {
            Some(_) if outlook.shadow => "; but in shadow mode, where that is only counted and it passes",
            _ => "",
        };
        let typical = look.typical_ms.map_or_else(String::new, |typical| format!("; usually taken for {typical} ms"));
        self.say(
            "slots",
            format!(
                "{} of {} in use, {} of {} wait: as {}, {place}{wait}{shadow}{typical}",
                look.used, look.slots, look.queued, look.queue, look.class
            ),
        );
        for (what, numbers) in [("kept for", &look.kept), ("at most for", &look.cap)] {
            let numbers: Vec<_> = numbers.iter().map(|(class, number)| format!("{class} {number}")).collect();
            if !numbers.is_empty() {
                self.say("slots", format!("{what} {}", numbers.join(", ")));
            }
        }
        let [connect, head, total] = look.timeouts_ms;
        self.say(
            "timeouts",
            format!("connect {connect} ms, head {head} ms, total {total} ms; {} attempts", look.attempts),
        );
        let each = look.endpoint_slots.map_or_else(String::new, |most| format!("; at most {most} requests at each"));
        self.say(
            "endpoints",
            if look.endpoints.is_empty() { "none is fit".to_owned() } else { look.endpoints.join(", ") + &each },
        );
    }

    /// What would go upstream. `fills`: on behalf of the store.
    fn sent(
        &mut self,
        exchange: &mut Exchange,
        route: &Route,
        parts: &Parts,
        safe: bool,
        fills: bool,
    ) -> Result<(), Refusal> {
        let mut outgoing = outgoing::prepare(exchange, route, parts.clone(), Inbound::Empty, safe, None)?;
        if fills {
            // A fill asks for the whole, be it on behalf of HEAD or of a condition.
            outgoing.method = Method::GET;
            outgoing::CONDITIONS.iter().for_each(|name| drop(outgoing.headers.remove(name)));
        }
        let sent = Sent {
            method: outgoing.method.to_string(),
            target: outgoing.target.to_string(),
            set: set(&parts.headers, &outgoing.headers),
            removed: removed(&parts.headers, &outgoing.headers),
        };
        self.say("sends", format!("{} {}", sent.method, sent.target));
        for (name, value) in sent.set.clone() {
            self.say("sets", format!("{name}: {value}"));
        }
        if !sent.removed.is_empty() {
            self.say("removes", sent.removed.join(", "));
        }
        self.sent = Some(sent);
        Ok(())
    }
}

/// The classes that have another number than `usual`.
fn per_class(numbers: PerClass, usual: u32) -> Vec<(&'static str, u32)> {
    let numbers = Class::ALL.into_iter().zip(numbers).filter(|(_, number)| *number != usual);
    numbers.map(|(class, number)| (class.word(), number)).collect()
}

fn missed(miss: &Miss<'_>) -> String {
    match miss {
        Miss::Method(taken) => {
            let taken: Vec<_> = taken.iter().map(Method::as_str).collect();
            format!("nearly: it takes {} only", taken.join(", "))
        }
        Miss::Header(HeaderPredicate::Present(name)) => format!("nearly: it asks for a field {name}"),
        Miss::Header(HeaderPredicate::Absent(name)) => format!("nearly: it asks that there is no field {name}"),
        Miss::Header(HeaderPredicate::Equals(name, value)) => {
            format!("nearly: it asks for {name}: {}", String::from_utf8_lossy(value.as_bytes()))
        }
    }
}

fn available(route: &Route, now: Instant) -> Vec<String> {
    let health = route.upstream.health.lock();
    let endpoints = route.upstream.endpoints.iter().enumerate();
    endpoints
        .filter(|(index, _)| health.is_available(*index, now))
        .map(|(_, endpoint)| endpoint.name.to_string())
        .collect()
}

/// The fields of `after` that `before` does not have so.
fn set(before: &HeaderMap, after: &HeaderMap) -> Vec<(String, String)> {
    let is_new = |name| !after.get_all(name).iter().eq(before.get_all(name).iter());
    let changed = after.iter().filter(|(name, _)| is_new(*name));
    let shown = |name: &str, value: &[u8]| {
        if SECRET.iter().any(|part| name.contains(part)) {
            "(hidden)".to_owned()
        } else {
            String::from_utf8_lossy(value).into_owned()
        }
    };
    changed.map(|(name, value)| (name.to_string(), shown(name.as_str(), value.as_bytes()))).collect()
}

fn removed(before: &HeaderMap, after: &HeaderMap) -> Vec<String> {
    before.keys().filter(|name| !after.contains_key(*name)).map(ToString::to_string).collect()
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Parts of the names of fields that carry credentials.
const SECRET: [&str; 5] = ["authorization", "cookie", "key", "token", "secret"];
