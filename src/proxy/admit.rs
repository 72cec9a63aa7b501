//! Steps 1 to 3, and the lookup: everything that waits for nothing. Admission by consumer stands before the cache and
//! before any work; protection of the backend stands after it, as a hit costs the backend nothing.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{Method, Request, Response, StatusCode, Uri, Version};

use super::body::ResponseBody;
use super::deadline::Deadline;
use super::delay::{Delayed, Turn};
use super::exchange::{Exchange, Noted, Tally};
use super::journal::Over;
use super::lookup::{self, Content, Looked, Wanted};
use super::outgoing::{self, AsItIs};
use super::post::Reading;
use super::respond;
use super::snapshot::{Route, Snapshot, Worker};
use super::traced::{self, Traced};
use super::trip::{self, Plan, Trip};
use crate::cache::entry::Entry;
use crate::consumer::Identity;
use crate::listen::Peer;
use crate::message::present::Present;
use crate::message::spare;
use crate::message::target::Target;
use crate::message::trace::TraceId;
use crate::metrics::{CacheResult, Wait};
use crate::refusal::{Mode, Reason, Refusal};
use crate::throttle::quota::Standing;
use crate::throttle::rate::{Come, RateLimiter, Rated, Reservation};
use crate::upstream::body::Inbound;

/// How far a request came without waiting.
pub(super) enum Begun {
    /// All the way.
    Answered(Response<ResponseBody>),
    /// To a stored answer that goes over the connection as it is.
    Stored(ResponseBody),
    /// The rest may wait.
    Onward(Box<Trip>),
    /// Its body is to be read first.
    Reading(Box<Reading>),
    /// It is over a rate, and its turn comes later.
    Delayed(Box<Delayed>),
}

/// Takes a request as far as it comes without waiting. `wire`: its answer may bring its head as it goes over the
/// connection.
pub(super) fn begin(worker: &Arc<Worker>, mut parts: Parts, body: Inbound, peer: Peer, wire: bool) -> Begun {
    let snapshot = worker.snapshot.load();
    let mut exchange = open(worker, &snapshot, &parts, peer);
    exchange.wire = wire && parts.version == Version::HTTP_11;
    if let Some(hooks) = &worker.core.hooks {
        let hooked = hooks.request(&mut parts, &peer);
        exchange.method = parts.method.clone();
        exchange.present = Present::of(&parts.headers);
        if let Err(denied) = hooked {
            exchange.note(&parts);
            return answered(respond::deny(exchange, denied));
        }
    }
    let safe = is_safe(&parts.method, exchange.present);
    let looked = (|| {
        let old = matches!(parts.version, Version::HTTP_10 | Version::HTTP_09);
        check(worker, &parts, exchange.present)?;
        let target = Target::of(&parts.uri, &parts.headers, old)?;
        let route = place(&mut exchange, &snapshot, &parts, &target)?;
        if let Some(turn) = rate(&mut exchange, route, &parts)? {
            return Ok((route, Err(turn)));
        }
        exchange.mark(|traced, now| traced.admitted = Some(now));
        let content = if body.is_end_stream() { Content::None } else { Content::Unread };
        Ok((route, Ok(lookup::look(&mut exchange, route, &parts, &target, safe, content))))
    })();
    // Here, and not where all others go: a hit moves nothing that need not be moved.
    if let Ok((route, Ok(Looked::Serve(entry, result, refresh)))) = looked {
        if result != CacheResult::Hit {
            exchange.note(&parts);
        }
        let begun = serve(exchange, route, &parts, None, (entry, result, refresh));
        spare::give_back(parts.headers);
        return begun;
    }
    exchange.note(&parts);
    match looked {
        Err(refusal) => answered(respond::refuse(exchange, refusal)),
        Ok((_, Err(turn))) => Begun::Delayed(Box::new(Delayed { exchange, parts, body, safe, turn })),
        Ok((route, Ok(looked))) => proceed(exchange, route, parts, (body, None), safe, looked),
    }
}

/// Answers with what was found, and has it refreshed if that is wanted.
fn serve(
    mut exchange: Box<Exchange>,
    route: &Route,
    parts: &Parts,
    whole: Option<Bytes>,
    (entry, result, refresh): (Arc<Entry>, CacheResult, Option<Arc<Wanted>>),
) -> Begun {
    exchange.mark(|traced, now| traced.looked = Some(now));
    exchange.cache = result;
    if let Some(wanted) = refresh {
        trip::refresh(&mut exchange, route, parts, whole, wanted);
    }
    let now = exchange.now;
    match respond::preset(exchange, entry, &parts.headers, now) {
        Ok(body) => Begun::Stored(body),
        Err((exchange, entry)) => answered(respond::stored(exchange, &entry, &parts.headers, now, None)),
    }
}

/// Answers from what was found, or goes on. With the body goes all of it, if it was read already.
pub(super) fn proceed(
    mut exchange: Box<Exchange>,
    route: &Route,
    parts: Parts,
    (body, whole): (Inbound, Option<Bytes>),
    safe: bool,
    looked: Looked,
) -> Begun {
    if let Looked::Serve(entry, result, refresh) = looked {
        return serve(exchange, route, &parts, whole, (entry, result, refresh));
    }
    exchange.mark(|traced, now| traced.looked = Some(now));
    match looked {
        Looked::Refuse(reason) => answered(respond::refuse(exchange, reason.into())),
        Looked::Read => Begun::Reading(Box::new(Reading { exchange, parts, body })),
        looked => {
            if let Some(event) = looked.event() {
                route.meter.event(exchange.worker.index, event);
            }
            onward(exchange, route, parts, body, safe, looked)
        }
    }
}

fn answered(response: Response<ResponseBody>) -> Begun {
    Begun::Answered(response)
}

fn onward(
    mut exchange: Box<Exchange>,
    route: &Route,
    parts: Parts,
    body: Inbound,
    safe: bool,
    looked: Looked,
) -> Begun {
    exchange.watched = exchange.worker.core.observer.begin(&exchange, route, &parts);
    let stores = !matches!(looked, Looked::Alone(_, _, None)) && safe;
    let goes_alone = matches!(looked, Looked::Alone(..));
    let as_it_is = if goes_alone { AsItIs::of(&exchange, route, &parts) } else { None };
    let asked = (stores && as_it_is.is_none()).then(|| parts.headers.clone());
    let outgoing = match outgoing::prepare(&mut exchange, route, parts, body, safe, as_it_is) {
        Ok(outgoing) => outgoing,
        Err(refusal) => return answered(respond::refuse(exchange, refusal)),
    };
    let plan = match looked {
        Looked::Fetch(wanted, forward) => {
            exchange.cache = CacheResult::Miss;
            exchange.forward = Some(forward);
            Plan::Fetch(wanted, forward)
        }
        Looked::Alone(result, forward, address) => {
            exchange.cache = result;
            exchange.forward = forward;
            Plan::Alone(forward, address.map(|address| *address))
        }
        Looked::Serve(..) | Looked::Read | Looked::Refuse(_) => {
            return answered(respond::refuse(exchange, Reason::Internal.into()));
        }
    };
    Begun::Onward(Box::new(Trip { exchange, outgoing, asked, plan }))
}

/// An exchange of which nothing is known but who began it: its head could not be read.
pub(super) fn unread(worker: &Arc<Worker>, peer: Peer) -> Box<Exchange> {
    let (mut parts, ()) = Request::new(()).into_parts();
    // No path and a method that no client would send: the log shows both as they are.
    parts.uri = Uri::from_static("-");
    parts.method = Method::from_bytes(b"-").unwrap_or_default();
    parts.version = Version::HTTP_11;
    let mut exchange = open(worker, &worker.snapshot.load(), &parts, peer);
    exchange.note(&parts);
    exchange
}

/// The facts of a request as it comes.
pub(super) fn open(worker: &Arc<Worker>, snapshot: &Arc<Snapshot>, parts: &Parts, peer: Peer) -> Box<Exchange> {
    let place = Box::new_uninit();
    let present = Present::of(&parts.headers);
    let now = worker.core.clock.now();
    let traced = Traced::begin(worker, &parts.headers, present).map(Box::new);
    let client = snapshot.forwarding.client(&parts.headers, peer.address.ip());
    let https = snapshot.forwarding.is_https(&parts.headers, peer.address.ip(), peer.tls);
    // Written where it stays: it is too large to be moved there.
    Box::write(
        place,
        Exchange {
            worker: Arc::clone(worker),
            route: None,
            peer,
            https,
            client,
            consumer: Identity::Anonymous(client),
            identity: None,
            method: parts.method.clone(),
            wire: false,
            version: parts.version,
            deadline: None,
            started: now,
            now,
            present,
            noted: noted(worker, parts, traced.as_deref()),
            rated: None,
            over: None,
            own: None,
            quotas: Standing::default(),
            delayed: None,
            cache: CacheResult::Off,
            forward: None,
            reason: None,
            by_spare: false,
            retry_after: None,
            status: StatusCode::OK,
            tally: Tally::default(),
            body: None,
            trace: match &traced {
                Some(traced) => Some(traced.context.trace),
                None if present.has(Present::TRACE) => TraceId::sampled(&parts.headers),
                None => None,
            },
            traced,
            request_id: None,
            watched: None,
            told: false,
            snapshot: Arc::clone(snapshot),
        },
    )
}

/// What log and spans want of it; of a trace that begins here, the log tells as well.
fn noted(worker: &Worker, parts: &Parts, traced: Option<&Traced>) -> Option<Box<Noted>> {
    let mut noted = (worker.log.is_some() || traced.is_some()).then(|| Noted::of(&parts.uri, &parts.headers))?;
    if let Some(traced) = traced.filter(|traced| traced.is_root()) {
        noted.trace = Some(traced::field(traced.context));
    }
    Some(noted)
}

/// What is never relayed.
pub(super) fn check(worker: &Worker, parts: &Parts, present: Present) -> Result<(), Refusal> {
    if matches!(parts.method, Method::CONNECT | Method::TRACE) {
        return Err(Reason::RequestMethod.into());
    }
    // RFC 9112 section 3.2.4.
    if parts.uri.path() == "*" && parts.method != Method::OPTIONS {
        return Err(Reason::RequestTarget.into());
    }
    if present.has(Present::VIA) && worker.core.pseudonym.seen_in(&parts.headers) {
        return Err(Reason::RequestLoop.into());
    }
    Ok(())
}

/// Route and consumer.
pub(super) fn place<'a>(
    exchange: &mut Exchange,
    snapshot: &'a Snapshot,
    parts: &Parts,
    target: &Target<'_>,
) -> Result<&'a Route, Refusal> {
    let found = snapshot.router.find(&target.host, &target.route_path(), &parts.method, &parts.headers);
    let index = *found.ok_or(Reason::RouteNone)?;
    exchange.route = Some(index);
    let route = snapshot.routes.get(index).ok_or(Reason::Internal)?;
    exchange.consumer = identify(exchange, parts);
    if route.require_consumer && matches!(exchange.consumer, Identity::Anonymous(_)) {
        return Err(Reason::ConsumerUnknown.into());
    }
    Ok(route)
}

fn identify(exchange: &Exchange, parts: &Parts) -> Identity {
    let snapshot = &exchange.snapshot;
    let identity = snapshot.consumers.identify(&parts.headers, exchange.client);
    if let (Identity::Anonymous(_), Some(hooks)) = (&identity, &exchange.worker.core.hooks)
        && let Some(name) = hooks.consumer(parts, &exchange.peer)
        && let Some(known) = snapshot.known.iter().position(|caller| &*caller.name == name)
    {
        return Identity::Known(known);
    }
    identity
}

/// The consumer's own rate, the route's, then the consumer's quotas: what a rate refuses, no quota is charged. What they
/// say goes into the RateLimit fields, of a refusal too. Where a rate lets it wait, its quotas are charged when its turn
/// has come: one that leaves before has used nothing.
fn rate(exchange: &mut Exchange, route: &Route, parts: &Parts) -> Result<Option<Box<Turn>>, Refusal> {
    let (caller, number) = exchange.caller();
    let cost = NonZeroU32::new(route.cost).unwrap_or(NonZeroU32::MIN);
    let mut come = Come { now: exchange.started, held: Duration::ZERO };
    let mut places = [None, None];
    if let Some(limiter) = caller.rate.as_ref().map(|rate| &rate.limiter) {
        let (rated, place) = limiter.take(number, cost, come, patience(exchange, route, parts, limiter));
        let mode = limiter.mode();
        // What only counts is not told.
        exchange.own = mode.counts().then_some(rated);
        places[0] = heed(exchange, route, Over::Consumer, (&rated, place), mode, &mut come)?;
    }
    if let Some(limiter) = route.rate.as_ref().map(|rate| &rate.limiter) {
        let patience = patience(exchange, route, parts, limiter).saturating_sub(come.held);
        // It comes to the second rate when the first one lets it go: so both see it in its order, and as fast as it is.
        let (rated, place) = limiter.take(number, cost, come, patience);
        let mode = limiter.mode();
        exchange.rated = mode.counts().then_some(rated);
        places[1] = heed(exchange, route, Over::Route, (&rated, place), mode, &mut come)?;
    }
    let waits = !come.held.is_zero();
    quota(exchange, route, !waits)?;
    exchange.delayed = waits.then_some(come.held);
    Ok(waits.then(|| Box::new(Turn { at: come.now + come.held, places })))
}

/// How long a request may be held back: not longer than its caller waits.
fn patience(exchange: &Exchange, route: &Route, parts: &Parts, limiter: &RateLimiter) -> Duration {
    let deadline = limiter.delay().and_then(|_| Deadline::of(route, &parts.headers, exchange.started));
    deadline.map_or(Duration::MAX, |deadline| deadline.at.saturating_duration_since(exchange.started))
}

/// The consumer's quotas; charged only if it `counts`.
pub(super) fn quota(exchange: &mut Exchange, route: &Route, counts: bool) -> Result<(), Refusal> {
    let Some(quota) = &exchange.caller().0.quota else { return Ok(()) };
    let wall = exchange.worker.core.clock.wall_at(exchange.now);
    let mut used = quota.counts.lock();
    let standing = match counts {
        true => used.check(&quota.quotas, route.cost.max(1), wall),
        false => used.stand(&quota.quotas, route.cost.max(1), wall),
    };
    drop(used);
    exchange.quotas = standing;
    used_up(&standing)?;
    for quota in standing.iter().flatten().filter(|quota| counts && !quota.allowed) {
        route.meter.shadow(exchange.worker.index, quota.per.reason());
    }
    Ok(())
}

/// Refuses what is beyond a quota. Of two that are used up, the one that is so for longer says when it makes sense to
/// come back.
pub(super) fn used_up(standing: &Standing) -> Result<(), Refusal> {
    let over = standing.iter().flatten().filter(|quota| quota.refuses()).max_by_key(|quota| quota.reset);
    over.map_or(Ok(()), |over| Err(Refusal::from(over.per.reason()).after(over.reset)))
}

/// Refuses what is over a rate, or keeps its place; in shadow mode it is only counted.
fn heed(
    exchange: &mut Exchange,
    route: &Route,
    over: Over,
    (rated, place): (&Rated, Option<Reservation>),
    mode: Mode,
    come: &mut Come,
) -> Result<Option<Reservation>, Refusal> {
    if rated.allowed && rated.delay.is_zero() {
        return Ok(None);
    }
    exchange.over = Some(over);
    let (meter, worker) = (&route.meter, exchange.worker.index);
    match (mode.counts(), rated.allowed) {
        (true, false) => return Err(exceeded(rated, come.held)),
        (true, true) => {
            come.held += rated.delay;
            return Ok(place);
        }
        (false, false) => meter.shadow(worker, Reason::RateExceeded),
        (false, true) => meter.shadow_wait(worker, Wait::Rate),
    }
    // It has its turn: the next ones are judged as if it had waited.
    place.into_iter().for_each(Reservation::pass);
    Ok(None)
}

/// The refusal of what is over a rate, for one that was to be held back before.
pub(super) fn exceeded(rated: &Rated, held: Duration) -> Refusal {
    Refusal::from(Reason::RateExceeded).after(held + rated.retry_after)
}

/// Whether a request changes nothing, whatever its method says: gateways of the SAP kind tunnel methods through fields.
pub(super) fn is_safe(method: &Method, present: Present) -> bool {
    method.is_safe() && !present.has(Present::OVERRIDE)
}
