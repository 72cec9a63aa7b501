//! The part of a trip that may wait: alone to the upstream, or with others for the store.

use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, Method, Response, StatusCode};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::attempt::{self, Ask, Outgoing};
use super::body::ResponseBody;
use super::deadline;
use super::exchange::{Exchange, Tally};
use super::expect;
use super::fill::{self, Brought, Errand, Read};
use super::freshen;
use super::lookup::{Address, Wanted};
use super::outgoing;
use super::respond::{self, Forward};
use super::snapshot::Route;
use super::standing;
use super::write::Write;
use crate::cache::CacheParams;
use crate::cache::entry::Head;
use crate::cache::flight::{Joined, Lead, Verdict};
use crate::cache::key::Key;
use crate::cache::media::Otherwise;
use crate::cache::reuse;
use crate::cache::storing::Unstorable;
use crate::message::spare;
use crate::metrics::CacheResult;
use crate::refusal::{Reason, Refusal};
use crate::upstream::body::Inbound;

/// A request on its way to the upstream.
pub(super) struct Trip {
    pub(super) exchange: Box<Exchange>,
    pub(super) outgoing: Outgoing,
    /// The client's own fields, where an answer may be made from what is stored, and they do not go on as they are.
    pub(super) asked: Option<HeaderMap>,
    pub(super) plan: Plan,
}

/// With whom.
pub(super) enum Plan {
    /// Alone; what Cache-Status says of it, and the place of its answer in the store.
    Alone(Option<Forward>, Option<(Key, Address)>),
    /// With everybody who asks for the same.
    Fetch(Arc<Wanted>, Forward),
}

impl Plan {
    /// What Cache-Status says of a request that goes alone.
    const fn forward(&self) -> Option<Forward> {
        match self {
            Self::Alone(forward, _) => *forward,
            Self::Fetch(_, forward) => Some(*forward),
        }
    }

    /// The place of the answer to a request that goes alone.
    const fn address(&self) -> Option<&(Key, Address)> {
        match self {
            Self::Alone(_, address) => address.as_ref(),
            Self::Fetch(..) => None,
        }
    }

    fn into_parts(self) -> (Option<Forward>, Option<(Key, Address)>) {
        match self {
            Self::Alone(forward, address) => (forward, address),
            Self::Fetch(_, forward) => (Some(forward), None),
        }
    }
}

impl Trip {
    /// The client's own fields, if they are still known.
    fn asked(&self) -> Option<&HeaderMap> {
        self.asked.as_ref().or_else(|| self.outgoing.as_it_is.is_some().then_some(&self.outgoing.headers))
    }

    /// Travels to the end.
    pub(super) async fn travel(self: Box<Self>) -> Response<ResponseBody> {
        match self.plan {
            Plan::Alone(..) => alone(self).await,
            // Boxed: what is moved for every request that goes alone should be small.
            Plan::Fetch(..) => Box::pin(self.fetch()).await,
        }
    }

    async fn fetch(self: Box<Self>) -> Response<ResponseBody> {
        let Self { exchange, outgoing, asked, plan } = *self;
        let Plan::Fetch(wanted, forward) = plan else { return respond::refuse(exchange, Reason::Internal.into()) };
        let asked = asked.unwrap_or_default();
        if freshen::is_for(&exchange, &wanted) {
            return freshen::head(exchange, outgoing, asked, &wanted, forward).await;
        }
        fetch(exchange, outgoing, asked, wanted, forward).await
    }
}

/// One request for one client. Small, as nearly all that goes on after the answer waits for nothing.
async fn alone(mut trip: Box<Trip>) -> Response<ResponseBody> {
    let snapshot = Arc::clone(&trip.exchange.snapshot);
    let Some(route) = trip.exchange.route.and_then(|index| snapshot.routes.get(index)) else {
        return respond::refuse(trip.exchange, Reason::Internal.into());
    };
    let now = trip.exchange.worker.core.clock.now();
    if let Err(refusal) = deadline::check(trip.exchange.deadline, move || now) {
        return respond::fallback(trip.exchange, refusal);
    }
    let Trip { exchange, outgoing, plan, .. } = &mut *trip;
    let ticket = exchange.ticket(route);
    let write = if outgoing.safe { None } else { Write::of(exchange, route, plan.address()) };
    let read = plan.address().filter(|_| outgoing.safe);
    let read = read.and_then(|(_, address)| Read::at(&exchange.worker, route, address, now));
    let Exchange { worker, tally, .. } = &mut **exchange;
    let ask = Ask { worker, route, upstream: &route.upstream, ticket };
    let result = attempt::attempts(ask, outgoing, tally, now, || Some(write.as_ref()?.sent())).await;
    let rest = match result {
        Ok(reply) => match arrived(trip, route, reply, write, read) {
            Ok(response) => return response,
            Err(rest) => rest,
        },
        Err(refusal) => {
            if let Some(write) = write {
                write.failed(trip.exchange.tally.reached);
            }
            Box::pin(failed(trip, refusal))
        }
    };
    rest.await
}

/// What is still to be done, and rarely is.
type Rest<'a> = Pin<Box<dyn Future<Output = Response<ResponseBody>> + Send + 'a>>;

/// An answer has come.
fn arrived(
    trip: Box<Trip>,
    route: &Route,
    (parts, body, mut held): attempt::Reply,
    write: Option<Arc<Write>>,
    read: Option<Read>,
) -> Result<Response<ResponseBody>, Rest<'_>> {
    if route.spare.is_some()
        && trip.outgoing.may_go_elsewhere()
        && let Some(held) = held.take_if(|held| !held.verdict().outcome.is_success())
    {
        held.leave(body, false);
        return Err(Box::pin(failed(trip, Reason::UpstreamStatus.into())));
    }
    if let Some(write) = write {
        write.ended(&parts);
    }
    let exchange = &trip.exchange;
    if held.is_some() {
        standing::witness(&exchange.worker, route, exchange.identity, parts.status);
    }
    match (held, read) {
        (Some(held), Some(read)) if trip.asked().is_some() && trip.plan.address().is_some() => {
            if expect::of(route, &exchange.method, &parts).is_some() {
                return Err(Box::pin(expected(trip, route, (parts, body, held), read)));
            }
            Ok(adopt(trip, route, (parts, body, held), read))
        }
        (held, _) => Ok(respond::reply(trip.exchange, parts, body, held, trip.plan.forward())),
    }
}

/// There is no answer.
async fn failed(trip: Box<Trip>, refusal: Refusal) -> Response<ResponseBody> {
    let Trip { exchange, outgoing, .. } = *trip;
    last_resorts(exchange, Some(outgoing), refusal).await
}

/// An answer has come of which its route expects something.
async fn expected(
    trip: Box<Trip>,
    route: &Route,
    (parts, body, mut held): fill::Reply,
    read: Read,
) -> Response<ResponseBody> {
    let exchange = &trip.exchange;
    match expect::judge(&exchange.worker, route, &exchange.method, &parts, body, Some(&mut *held)).await {
        (body, Some(Otherwise::Broken)) => {
            held.leave(body, false);
            failed(trip, Reason::UpstreamUnexpected.into()).await
        }
        (body, Some(_)) => {
            let forward = trip.plan.forward().unwrap_or(Forward::new("miss"));
            let forward = Forward { detail: Some(Unstorable::Unexpected.code()), ..forward };
            respond::reply(trip.exchange, parts, body, Some(held), Some(forward))
        }
        (body, None) => adopt(trip, route, (parts, body, held), read),
    }
}

/// What was not expected to be for everybody may be after all.
fn adopt(mut trip: Box<Trip>, route: &Route, (parts, body, held): fill::Reply, read: Read) -> Response<ResponseBody> {
    let forward = trip.plan.forward().unwrap_or(Forward::new("miss"));
    let (Some((_, address)), Some(asked)) = (trip.plan.address(), trip.asked()) else {
        return respond::reply(trip.exchange, parts, body, Some(held), Some(forward));
    };
    let exchange = &trip.exchange;
    // An error that comes as a 200 lets nobody in.
    if held.verdict().is_an_answer() {
        standing::prove(&exchange.worker, route, exchange.identity, &exchange.method, parts.status);
    }
    match fill::adoptable(exchange, route, address, asked, (&parts, held.verdict()), read) {
        Some(head) => take_in(trip, route, head, (parts, body, held), read),
        None => {
            spare::give_back(std::mem::take(&mut trip.outgoing.headers));
            respond::reply(trip.exchange, parts, body, Some(held), Some(forward))
        }
    }
}

/// It is. Apart, as it most often is not, and a trip is large to take apart.
fn take_in(trip: Box<Trip>, route: &Route, head: Head, reply: fill::Reply, read: Read) -> Response<ResponseBody> {
    let Trip { exchange, outgoing, asked, plan } = *trip;
    let asked = asked.unwrap_or(outgoing.headers);
    let (parts, body, held) = reply;
    let (forward, address) = plan.into_parts();
    let forward = forward.unwrap_or(Forward::new("miss"));
    let Some(address) = address else {
        return respond::reply(exchange, parts, body, Some(held), Some(forward));
    };
    match fill::adopt(&exchange, route, address, head, &asked, (parts, body, held), read) {
        Ok((head, reader, own)) => {
            let detail = forward.detail.filter(|_| forward.why == "bypass");
            let forward = Forward { stored: true, detail, ..forward };
            respond::filled(exchange, &head, reader, &asked, forward, Some(own))
        }
        Err(reply) => {
            let (parts, body, held) = *reply;
            respond::reply(exchange, parts, body, Some(held), Some(forward))
        }
    }
}

/// Refreshes what is served stale, in the background, unless somebody does already.
/// `whole` is the body of a POST that only reads.
pub(super) fn refresh(
    exchange: &mut Exchange,
    route: &Route,
    parts: &Parts,
    whole: Option<Bytes>,
    wanted: Arc<Wanted>,
) {
    let (Joined::Lead(lead), Ok(runtime)) =
        (exchange.worker.core.flights.join(wanted.flight_now()), Handle::try_current())
    else {
        return;
    };
    let asked = parts.headers.clone();
    let mut parts = parts.clone();
    let body = match whole {
        Some(bytes) => Inbound::whole(bytes),
        None => {
            parts.method = Method::GET;
            Inbound::Empty
        }
    };
    let Ok(mut outgoing) = outgoing::prepare(exchange, route, parts, body, true, None) else { return };
    // It goes on when this request has long been told of: its parent is the request's own span.
    outgoing.span = None;
    let errand = Errand::of(exchange, outgoing, asked, wanted, None).in_background();
    runtime.spawn(errand.run(lead));
}

/// One request for everybody who asks for the same: the first leads, the others wait for what it brings.
async fn fetch(
    exchange: Box<Exchange>,
    outgoing: Outgoing,
    asked: HeaderMap,
    wanted: Arc<Wanted>,
    forward: Forward,
) -> Response<ResponseBody> {
    if let Err(refusal) = deadline::check(exchange.deadline, || exchange.worker.core.clock.now()) {
        return Box::pin(stand_in(exchange, None, &asked, &wanted, forward, refusal)).await;
    }
    let flights = &exchange.worker.core.flights;
    let waiter = match flights.join(wanted.flight_now()) {
        Joined::Lead(lead) => return bring(exchange, outgoing, asked, wanted, forward, lead).await,
        Joined::Wait(waiter) => waiter,
    };
    let verdict = match deadline::within(exchange.deadline, waiter.verdict()).await {
        Ok(verdict) => verdict,
        Err(refusal) => return Box::pin(stand_in(exchange, None, &asked, &wanted, forward, refusal)).await,
    };
    match verdict {
        Verdict::Lead(lead) => bring(exchange, outgoing, asked, wanted, forward, lead).await,
        Verdict::Stream(head, reader) if is_for(&head, &asked, &exchange, &wanted) => {
            let mut exchange = exchange;
            exchange.cache = CacheResult::Collapsed;
            respond::filled(exchange, &head, reader, &asked, Forward { collapsed: true, ..forward }, None)
        }
        Verdict::Found(entry) if is_for(&entry.head, &asked, &exchange, &wanted) => {
            let mut exchange = exchange;
            exchange.cache = CacheResult::Collapsed;
            let now = exchange.worker.core.clock.now();
            respond::stored(exchange, &entry, &asked, now, Some(Forward { collapsed: true, ..forward }))
        }
        Verdict::Refused(refusal) => {
            let forward = Forward { collapsed: true, ..forward };
            Box::pin(stand_in(exchange, Some(outgoing), &asked, &wanted, forward, refusal)).await
        }
        // It is another variant: this request joins those that want its own.
        Verdict::Stream(head, _) if wanted.flight == wanted.primary && !head.vary.is_empty() => {
            let keyer = exchange.worker.core.store.keyer();
            let flight = keyer.variant(wanted.primary, &head.vary, &asked);
            let wanted = Arc::new(Wanted { flight, ..wanted.as_ref().clone() });
            Box::pin(fetch(exchange, outgoing, asked, wanted, forward)).await
        }
        // It is not for everybody.
        Verdict::Stream(..) | Verdict::Found(_) | Verdict::Alone => {
            let mut exchange = exchange;
            exchange.cache = CacheResult::Pass;
            let address = Some((wanted.primary, wanted.address.clone()));
            let plan = Plan::Alone(Some(forward), address);
            Box::pin(Box::new(Trip { exchange, outgoing, asked: Some(asked), plan }).travel()).await
        }
    }
}

/// Leads a fill. It runs in a task of its own: when this client leaves, the others still get what it brings.
async fn bring(
    mut exchange: Box<Exchange>,
    mut outgoing: Outgoing,
    asked: HeaderMap,
    wanted: Arc<Wanted>,
    forward: Forward,
    lead: Lead,
) -> Response<ResponseBody> {
    if let Some(traced) = &mut exchange.traced {
        traced.fills = true;
        outgoing.span = Some(traced.asking());
    }
    let spare = exchange.route().is_some_and(|route| route.spare.is_some()).then(|| Box::new(outgoing.copy()));
    let (tell, told) = oneshot::channel();
    let errand = Errand::of(&exchange, outgoing, asked.clone(), Arc::clone(&wanted), Some(tell));
    tokio::spawn(errand.run(lead));
    let (brought, tally): (Brought, Tally) = match deadline::within(exchange.deadline, told).await {
        Ok(Ok(told)) => told,
        // The task panicked; the log has it.
        Ok(Err(_)) => return respond::refuse(exchange, Reason::Internal.into()),
        Err(refusal) => return Box::pin(stand_in(exchange, None, &asked, &wanted, forward, refusal)).await,
    };
    exchange.tally = tally;
    match brought {
        Brought::Shared(head, reader, own) => {
            respond::filled(exchange, &head, reader, &asked, Forward { stored: true, ..forward }, Some(*own))
        }
        Brought::Found(entry, result) => {
            exchange.cache = result;
            let now = exchange.worker.core.clock.now();
            // What came into the store meanwhile is a hit.
            let forward = Forward { stored: true, ..forward.answered(StatusCode::NOT_MODIFIED) };
            let forward = (result == CacheResult::Revalidated).then_some(forward);
            respond::stored(exchange, &entry, &asked, now, forward)
        }
        Brought::Own(reply, why) => {
            let (parts, body, held) = *reply;
            exchange.cache = CacheResult::Pass;
            exchange.forward = Some(Forward { detail: Some(why), ..forward });
            respond::reply(exchange, parts, body, Some(held), Some(Forward { detail: Some(why), ..forward }))
        }
        Brought::Refused(refusal) => {
            Box::pin(stand_in(exchange, spare.map(|spare| *spare), &asked, &wanted, forward, refusal)).await
        }
    }
}

/// The upstream failed: what is stored stands in if it may (RFC 5861 section 4).
pub(super) async fn stand_in(
    mut exchange: Box<Exchange>,
    outgoing: Option<Outgoing>,
    asked: &HeaderMap,
    wanted: &Wanted,
    forward: Forward,
    refusal: Refusal,
) -> Response<ResponseBody> {
    let now = exchange.worker.core.clock.now();
    match &wanted.stale {
        Some(entry) if stands_in(&exchange, wanted) => {
            exchange.cache = CacheResult::StaleError;
            // Where nobody asked the upstream, it is a hit (RFC 9211 section 2.1).
            let asked_upstream = exchange.tally.attempts > 0 || forward.collapsed;
            let forward = Forward { detail: Some("stale_if_error"), ..forward };
            respond::stored(exchange, entry, asked, now, asked_upstream.then_some(forward))
        }
        _ => last_resorts(exchange, outgoing, refusal).await,
    }
}

/// Neither the upstream nor the store has an answer: another upstream is asked, if there is one for it, once and under its
/// own slots and breaker; then there is a fixed answer, or the refusal. What it says is not stored: it is not the
/// upstream's.
async fn last_resorts(
    mut exchange: Box<Exchange>,
    outgoing: Option<Outgoing>,
    refusal: Refusal,
) -> Response<ResponseBody> {
    let (worker, snapshot) = (Arc::clone(&exchange.worker), Arc::clone(&exchange.snapshot));
    if refusal.reason.is_of_the_upstream()
        && let Some(route) = exchange.route.and_then(|index| snapshot.routes.get(index))
        && let Some(upstream) = &route.spare
        && let Some(mut outgoing) = outgoing.filter(Outgoing::may_go_elsewhere)
    {
        let ask = Ask { worker: &worker, route, upstream, ticket: exchange.ticket(route) };
        let now = worker.core.clock.now();
        match attempt::attempts(ask, &mut outgoing, &mut exchange.tally, now, || None).await {
            Ok((parts, body, Some(held))) if held.verdict().outcome.is_success() => {
                return respond::stood_in(exchange, refusal.reason, (parts, body, held));
            }
            Ok((_, body, Some(held))) => held.leave(body, false),
            Ok((_, _, None)) | Err(_) => {}
        }
    }
    respond::fallback(exchange, refusal)
}

/// Whether what is stored may stand in for the upstream now.
pub(super) fn stands_in(exchange: &Exchange, wanted: &Wanted) -> bool {
    let now = exchange.worker.core.clock.now();
    wanted.stale.as_ref().is_some_and(|entry| reuse::on_error(&entry.head, &wanted.control, now))
}

/// Whether what a fill brings is an answer for others too, and to this very request: not to another variant of it, nor
/// to one with the same hash.
fn is_for(head: &Head, asked: &HeaderMap, exchange: &Exchange, wanted: &Wanted) -> bool {
    let params = exchange.route().and_then(|route| route.cache.as_ref());
    let is_at = |params: &CacheParams| wanted.address.parts().is_at(&head.address, &params.query);
    !head.asks_back() && head.selects(asked) && params.is_some_and(is_at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_future_of_a_trip_is_small_enough_for_the_allocators_short_way() {
        fn size<A, F: Future>(_: impl Fn(A) -> F) -> usize {
            size_of::<F>()
        }
        assert!(size(Trip::travel) <= 1024, "{}", size(Trip::travel));
    }
}
