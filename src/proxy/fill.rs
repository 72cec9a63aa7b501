//! Step 7: from an upstream's answer to a stored entry, streamed to everybody who waits while it arrives.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use http::response::Parts;
use http::{HeaderMap, Method, StatusCode};
use tokio::sync::oneshot;

use super::attempt::{self, Ask, Outgoing};
use super::exchange::{Exchange, Tally};
use super::expect;
use super::held::{Held, Late};
use super::look;
use super::lookup::{self, Address, Wanted};
use super::outgoing::CONDITIONS;
use super::snapshot::{Route, Snapshot, Worker};
use super::standing;
use crate::cache::entry::{Entry, Head};
use crate::cache::flight::{Joined, Lead, Reader};
use crate::cache::key::Key;
use crate::cache::media::Otherwise;
use crate::cache::reuse::Reuse;
use crate::cache::store::{FoundSlot, Lookup};
use crate::cache::storing::{self, Asked, Unstorable};
use crate::cache::{CacheParams, freshness, reuse};
use crate::metrics::CacheResult;
use crate::outcome::classes::Verdict;
use crate::refusal::{Reason, Refusal};
use crate::throttle::{Class, Ticket};
use crate::upstream::body::ReplyBody;

mod pour;

pub(super) use pour::Read;
use pour::{Place, pour};

/// A reply with what it holds at the upstream.
pub(super) type Reply = (Parts, ReplyBody, Box<Held>);

/// One fill: what it fetches, on whose behalf, and who is told.
pub(super) struct Errand {
    worker: Arc<Worker>,
    snapshot: Arc<Snapshot>,
    route: usize,
    ticket: Ticket,
    /// On whose behalf.
    identity: Option<u64>,
    outgoing: Outgoing,
    /// The fields the leader asked with: what Vary selects by.
    asked: HeaderMap,
    wanted: Arc<Wanted>,
    tell: Option<oneshot::Sender<(Brought, Tally)>>,
    /// Whether the upstream was asked already.
    asked_upstream: AtomicBool,
}

/// What a fill brings its leader.
pub(super) enum Brought {
    /// An answer for everybody, while it arrives, and the fields of the leader's own.
    Shared(Arc<Head>, Reader, Box<HeaderMap>),
    /// What is stored now.
    Found(Arc<Entry>, CacheResult),
    /// An answer for the leader alone, and why.
    Own(Box<Reply>, &'static str),
    /// None.
    Refused(Refusal),
}

impl Errand {
    /// The fill that `exchange` leads.
    pub(super) fn of(
        exchange: &Exchange,
        mut outgoing: Outgoing,
        asked: HeaderMap,
        wanted: Arc<Wanted>,
        tell: Option<oneshot::Sender<(Brought, Tally)>>,
    ) -> Self {
        if let Some(deadline) = outgoing.deadline.take() {
            deadline.drop_from(&mut outgoing.headers);
        }
        let route = exchange.route.unwrap_or(usize::MAX);
        let ticket = exchange.route().map(|route| exchange.ticket(route)).unwrap_or_default();
        Self {
            worker: Arc::clone(&exchange.worker),
            snapshot: Arc::clone(&exchange.snapshot),
            route,
            ticket,
            identity: exchange.identity,
            outgoing,
            asked,
            wanted,
            tell,
            asked_upstream: AtomicBool::new(false),
        }
    }

    /// Refreshes in the background: nobody waits, so everybody else goes first.
    pub(super) fn in_background(mut self) -> Self {
        self.ticket.class = Class::Refresh;
        self
    }

    /// Fetches, judges, streams and stores.
    pub(super) async fn run(mut self, lead: Lead) {
        let snapshot = Arc::clone(&self.snapshot);
        let Some((route, params)) =
            snapshot.routes.get(self.route).and_then(|route| Some((route, route.cache.as_ref()?)))
        else {
            return;
        };
        let worker = Arc::clone(&self.worker);
        let mut tally = Tally::default();
        // The answer may have come between this request's look and its joining.
        if let Some(entry) = self.come_meanwhile(route, params) {
            lead.found(Arc::clone(&entry));
            return tell(self.tell, Brought::Found(entry, CacheResult::Collapsed), tally);
        }
        let now = worker.core.clock.now();
        let Some(read) = Read::at(&worker, route, &self.wanted.address, now) else { return };
        let Some(mut result) = self.first_attempt(route, &lead, &mut tally).await else { return };
        if let Ok((parts, _, _)) = &result
            && parts.status == StatusCode::NOT_MODIFIED
            && let Some(stale) = self.wanted.stale.clone()
        {
            let moment = worker.core.clock.moment();
            if let Some(head) = freshness::refreshed(&stale.head, &parts.headers, params, moment, read.sent) {
                if let Ok((_, body, held)) = result {
                    held.leave(body, true);
                }
                return self.revalidated(route, lead, Entry::new(Arc::new(head), stale.body.clone()), read, tally);
            }
            // The 304 speaks of another answer: ask again without conditions.
            if let Ok((_, body, held)) = result {
                held.leave(body, true);
            }
            for name in CONDITIONS {
                self.outgoing.headers.remove(name);
            }
            result = self.fetch(route, &mut tally).await;
        }
        match result {
            Ok(reply) => self.judge(route, params, lead, reply, read, tally).await,
            Err(refusal) => self.failed(lead, refusal, tally),
        }
    }

    fn come_meanwhile(&self, route: &Route, params: &CacheParams) -> Option<Arc<Entry>> {
        let core = &self.worker.core;
        let now = core.clock.now();
        let clear = self.wanted.address.parts().clear(&params.query);
        let asked = Lookup { primary: self.wanted.primary, clear: &clear, headers: &self.asked };
        let FoundSlot::Entry(entry) = core.store.find(&asked, now).slot else { return None };
        // What is renewed ahead of time is still fresh.
        let is_ours = self.wanted.stale.as_ref().is_some_and(|stale| Arc::ptr_eq(stale, &entry));
        let fresh = reuse::decide(&entry.head, entry.is_soft_purged(), &self.wanted.control, now) == Reuse::Fresh;
        let generation = lookup::fences(core, route, params, self.wanted.address.url()).generation();
        (fresh && !is_ours && entry.generation() == generation).then_some(entry)
    }

    /// The first try: with validators if something is stored. `None`: its client left while it stood in the queue, and
    /// nobody else wants it.
    async fn first_attempt(&mut self, route: &Route, lead: &Lead, tally: &mut Tally) -> Option<Result<Reply, Refusal>> {
        for name in CONDITIONS {
            self.outgoing.headers.remove(name);
        }
        if let Some(stale) = self.wanted.stale.as_ref().filter(|_| !self.wanted.is_outdated) {
            reuse::validation(&stale.head, &mut self.outgoing.headers);
        }
        let mut tell = self.tell.take();
        let in_background = tell.is_none();
        let result = {
            let mut fetch = std::pin::pin!(self.fetch(route, tally));
            loop {
                let queued = !in_background && !self.asked_upstream.load(Ordering::Relaxed);
                tokio::select! {
                    biased;
                    result = &mut fetch => break result,
                    () = left(&mut tell), if tell.is_some() => tell = None,
                    () = std::future::poll_fn(|cx| lead.poll_unwanted(cx)), if queued && tell.is_none() => {
                        if !self.asked_upstream.load(Ordering::Relaxed) {
                            return None;
                        }
                    }
                }
            }
        };
        self.tell = tell;
        Some(result)
    }

    async fn fetch(&self, route: &Route, tally: &mut Tally) -> Result<Reply, Refusal> {
        let ask = Ask { worker: &self.worker, route, upstream: &route.upstream, ticket: self.ticket };
        let is_post = self.outgoing.method == Method::POST;
        let mut outgoing = Outgoing {
            method: if is_post { Method::POST } else { Method::GET },
            target: self.outgoing.target.clone(),
            headers: self.outgoing.headers.clone(),
            as_it_is: self.outgoing.as_it_is.clone(),
            body: self.outgoing.body.clone().filter(|_| is_post),
            safe: true,
            trace: self.outgoing.trace,
            span: self.outgoing.span,
            upgrade: None,
            deadline: None,
        };
        let now = self.worker.core.clock.now();
        let (parts, body, held) = attempt::attempts(ask, &mut outgoing, tally, now, || {
            self.asked_upstream.store(true, Ordering::Relaxed);
            self.harvest(route)
        })
        .await?;
        let Some(held) = held else { return Err(Reason::UpstreamProtocol.into()) };
        standing::witness(&self.worker, route, self.identity, parts.status);
        Ok((parts, body, held))
    }

    /// Stores an answer that comes too late for everybody who waited.
    fn harvest(&self, route: &Route) -> Option<Late> {
        let (wanted, identity) = (Arc::clone(&self.wanted), self.identity);
        let now = self.worker.core.clock.now();
        let place = self.place(Read::at(&self.worker, route, &wanted.address, now)?);
        Some(Box::new(move |response| {
            Box::pin(async move {
                let (parts, mut body) = response.into_parts();
                let (snapshot, index) = (Arc::clone(&place.route.0), place.route.1);
                let Some(route) = snapshot.routes.get(index) else { return };
                let verdict = look::verdict(&route.classes, parts.status, &parts.headers, &mut body).await;
                standing::witness(&place.worker, route, identity, parts.status);
                let Some(params) = &route.cache else { return };
                let answer = (&parts, verdict);
                let judged =
                    head(&place.worker, params, &wanted.address, &Method::GET, &place.asked, answer, place.read.sent);
                let Ok(head) = judged else { return };
                let (body, unexpected) = expect::judge(&place.worker, route, &Method::GET, &parts, body, None).await;
                if unexpected.is_some() {
                    return;
                }
                if verdict.is_an_answer() {
                    standing::prove(&place.worker, route, identity, &Method::GET, parts.status);
                }
                if let Joined::Lead(lead) = place.worker.core.flights.join(wanted.flight_now()) {
                    let head = Arc::new(head);
                    if let Ok(fill) = lead.share(Arc::clone(&head), body.size_hint().exact(), params.max_entry)
                        && pour(place, head, fill, body, None).await
                    {
                        route.meter.harvested();
                    }
                }
            })
        }))
    }

    fn place(&self, read: Read) -> Place {
        Place {
            worker: Arc::clone(&self.worker),
            primary: self.wanted.primary,
            flight: self.wanted.flight,
            address: self.wanted.address.clone(),
            route: (Arc::clone(&self.snapshot), self.route),
            asked: self.asked.clone(),
            read,
        }
    }

    /// What is stored is still good: it goes on with the fields of the 304.
    fn revalidated(self, route: &Route, lead: Lead, entry: Entry, read: Read, tally: Tally) {
        standing::prove(&self.worker, route, self.identity, &Method::GET, StatusCode::NOT_MODIFIED);
        let entry = Arc::new(entry.in_generation(read.mark.generation));
        self.place(read).store(Arc::clone(&entry));
        lead.found(Arc::clone(&entry));
        tell(self.tell, Brought::Found(entry, CacheResult::Revalidated), tally);
    }

    /// An answer has come: for everybody, or for the leader alone.
    async fn judge(self, route: &Route, params: &CacheParams, lead: Lead, reply: Reply, read: Read, tally: Tally) {
        let (parts, body, mut held) = reply;
        let core = &self.worker.core;
        let verdict = held.verdict();
        let (body, unexpected) = expect::judge(&self.worker, route, &Method::GET, &parts, body, Some(&mut *held)).await;
        if unexpected.is_none() && verdict.is_an_answer() {
            standing::prove(&self.worker, route, self.identity, &Method::GET, parts.status);
        }
        let failed = !verdict.outcome.is_success();
        let yields = failed || matches!(unexpected, Some(Otherwise::Stale | Otherwise::Broken));
        let is_replaced = unexpected == Some(Otherwise::Broken) || (failed && route.spare.is_some());
        if is_replaced || (yields && self.stands_in(core.clock.now())) {
            let reason = if failed { Reason::UpstreamStatus } else { Reason::UpstreamUnexpected };
            held.leave(body, false);
            return self.failed(lead, reason.into(), tally);
        }
        let judged = if unexpected.is_some() {
            Err(Unstorable::Unexpected)
        } else if failed && self.wanted.stale.is_some() {
            Err(Unstorable::Status) // a failure takes no answer's place
        } else {
            let answer = (&parts, verdict);
            head(&self.worker, params, &self.wanted.address, &Method::GET, &self.asked, answer, read.sent)
        };
        match judged {
            Ok(head) => {
                let head = Arc::new(head);
                let shared = lead.share(Arc::clone(&head), body.size_hint().exact(), params.max_entry);
                let Ok((Some(reader), fill)) = shared.map(|fill| (fill.reader(), fill)) else {
                    return own(self.tell, (parts, body, held), "too_large", tally);
                };
                let place = self.place(read);
                tell(self.tell, Brought::Shared(Arc::clone(&head), reader, Box::new(parts.headers)), tally);
                pour(place, head, fill, body, Some(held)).await;
            }
            Err(why) => {
                // An error passes, and that one was turned away says nothing of what is stored; what is personal stays
                // so for a while.
                let of_the_asker = matches!(why, Unstorable::Status | Unstorable::Error) && self.wanted.stale.is_some();
                if failed || unexpected.is_some() || of_the_asker {
                    self.back_off();
                } else {
                    core.store.mark_uncacheable(self.wanted.flight, core.clock.now());
                }
                lead.alone();
                own(self.tell, (parts, body, held), why.code(), tally);
            }
        }
    }

    fn stands_in(&self, now: Instant) -> bool {
        self.wanted.stale.as_ref().is_some_and(|stale| reuse::on_error(&stale.head, &self.wanted.control, now))
    }

    /// What is stored is not refreshed again for a while.
    fn back_off(&self) {
        if let Some(stale) = &self.wanted.stale {
            stale.refresh_failed(self.worker.core.clock.now(), self.worker.draw());
        }
    }

    fn failed(self, lead: Lead, refusal: Refusal, tally: Tally) {
        self.back_off();
        lead.refuse(refusal);
        tell(self.tell, Brought::Refused(refusal), tally);
    }
}

/// Waits until the leader's client has left.
async fn left(teller: &mut Option<oneshot::Sender<(Brought, Tally)>>) {
    match teller {
        Some(teller) => teller.closed().await,
        None => std::future::pending().await,
    }
}

fn tell(teller: Option<oneshot::Sender<(Brought, Tally)>>, brought: Brought, tally: Tally) {
    if let Some(teller) = teller {
        // A leader that has left needs no answer.
        let _ = teller.send((brought, tally));
    }
}

/// Gives the leader an answer for itself.
fn own(teller: Option<oneshot::Sender<(Brought, Tally)>>, reply: Reply, why: &'static str, tally: Tally) {
    let own = Brought::Own(Box::new(reply), why);
    let returned = match teller {
        Some(teller) => teller.send((own, tally)).err(),
        None => Some((own, tally)),
    };
    if let Some((Brought::Own(reply, _), _)) = returned {
        // The leader has left: the upstream is not told, and its slot stays taken until it has ended.
        let (_, body, held) = *reply;
        held.leave(body, false);
    }
}

/// Whether an answer that one request fetched for itself may be stored after all: what of it. Apart from [`adopt`], as
/// it most often may not, and a reply is large to hand over and back.
pub(super) fn adoptable(
    exchange: &Exchange,
    route: &Route,
    address: &Address,
    asked: &HeaderMap,
    answer: (&Parts, Verdict),
    read: Read,
) -> Option<Head> {
    head(&exchange.worker, route.cache.as_ref()?, address, &exchange.method, asked, answer, read.sent).ok()
}

/// Takes such an answer into the store, if nobody else fills the same place.
///
/// # Errors
/// The reply, untouched, when somebody does.
pub(super) fn adopt(
    exchange: &Exchange,
    route: &Route,
    (primary, address): (Key, Address),
    head: Head,
    asked: &HeaderMap,
    reply: Reply,
    read: Read,
) -> Result<(Arc<Head>, Reader, HeaderMap), Box<Reply>> {
    let (parts, body, held) = reply;
    let Some(params) = &route.cache else { return Err(Box::new((parts, body, held))) };
    let head = Arc::new(head);
    let core = &exchange.worker.core;
    let keyer = core.store.keyer();
    let flight = if head.vary.is_empty() { primary } else { keyer.variant(primary, &head.vary, asked) };
    let Joined::Lead(lead) = core.flights.join(flight.in_generation(read.mark.flight)) else {
        return Err(Box::new((parts, body, held)));
    };
    let shared = lead.share(Arc::clone(&head), body.size_hint().exact(), params.max_entry);
    let Ok((Some(reader), fill)) = shared.map(|fill| (fill.reader(), fill)) else {
        return Err(Box::new((parts, body, held)));
    };
    let place = Place {
        worker: Arc::clone(&exchange.worker),
        primary,
        flight,
        address,
        route: (Arc::clone(&exchange.snapshot), exchange.route.unwrap_or(usize::MAX)),
        asked: asked.clone(),
        read,
    };
    tokio::spawn(pour(place, Arc::clone(&head), fill, body, Some(held)));
    Ok((head, reader, parts.headers))
}

/// Judges whether an answer may be stored.
fn head(
    worker: &Worker,
    params: &CacheParams,
    address: &Address,
    method: &Method,
    asked: &HeaderMap,
    (parts, verdict): (&Parts, Verdict),
    sent: Instant,
) -> Result<Head, Unstorable> {
    if !verdict.is_an_answer() {
        return Err(Unstorable::Error);
    }
    let asked = Asked { method, headers: asked, parts: address.parts() };
    storing::decide(&asked, parts.status, &parts.headers, params, &|| worker.core.clock.moment(), sent)
}

/// Stores an entry that was made for `wanted` from what is stored there.
pub(super) fn keep(exchange: &Exchange, wanted: &Wanted, asked: &HeaderMap, entry: Entry, read: Read) -> Arc<Entry> {
    let entry = Arc::new(entry.in_generation(read.mark.generation));
    let place = Place {
        worker: Arc::clone(&exchange.worker),
        primary: wanted.primary,
        flight: wanted.flight,
        address: wanted.address.clone(),
        route: (Arc::clone(&exchange.snapshot), exchange.route.unwrap_or(usize::MAX)),
        asked: asked.clone(),
        read,
    };
    place.store(Arc::clone(&entry));
    entry
}
