//! Slots: concurrent work at one upstream, shared by all workers. Whoever finds no free slot waits in the fair queue.
//!
//! One mutex, tiny critical sections: taking a free slot is a comparison and an addition. A freed slot is handed to the
//! next waiter under the lock, and its waker is called after the unlock; so nobody who comes meanwhile can take it, and
//! exactly one waiter wakes per slot. Whatever happens to a request (its client leaves, its task is dropped while it waits
//! or just after it got its slot), every slot taken is given back exactly once: [`Permit`] and [`Acquire`] are guards.

use std::collections::HashMap;
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::clock::Clock;
use crate::refusal::{Reason, Refusal};
use crate::throttle::acquire::Acquire;
use crate::throttle::estimate::{Draws, Mean, drain, jittered};
use crate::throttle::queue::{CodelParams, FairQueue, Popped, QueueParams, Served, WaiterId};
use crate::throttle::{Class, SlotsParams, Ticket};

/// The slots of one upstream.
#[derive(Debug)]
pub struct Slots {
    state: Mutex<State>,
    clock: Clock,
}

/// A slot (or several) in use. Dropping it gives it back.
#[derive(Debug)]
#[must_use = "a permit that is dropped has given its slot back"]
pub struct Permit {
    /// `None` once it is given back.
    slots: Option<Arc<Slots>>,
    ticket: Ticket,
    taken: u32,
    /// The slot time charged in advance; `None` if it never waited.
    charged: Option<Duration>,
    since: Instant,
    waited: Duration,
    zombie: bool,
}

/// How the slots stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotsStats {
    /// Slots there are. `busy + zombie` may be more for a while after a reload has lowered it.
    pub slots: usize,
    /// Slots at work for somebody who waits for the answer.
    pub busy: usize,
    /// Slots at work for nobody any more.
    pub zombie: usize,
    /// Requests that wait, over all classes.
    pub queued: usize,
    /// Requests that wait, in the order of [`Class::ALL`].
    pub queued_by_class: [usize; 4],
    /// How long the oldest of them has waited.
    pub oldest_wait: Duration,
    /// How long a slot is usually taken; `None` before anything finished.
    pub typical: Option<Duration>,
    /// What happened since the start.
    pub totals: Totals,
}

/// What happened since the start; these only grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Permits given, at once or after a wait.
    pub granted: u64,
    /// Permits given after a wait.
    pub waited: u64,
    /// Refused or displaced because the queue was full.
    pub full: u64,
    /// Refused because the wait would have been too long.
    pub hopeless: u64,
    /// Refused because the wait was too long.
    pub timeout: u64,
    /// Refused to shorten a standing queue (the reason given is the timeout's).
    pub shortened: u64,
    /// Left by themselves while they waited.
    pub cancelled: u64,
}

/// How an attempt to acquire began.
pub(super) enum Begun {
    /// With a slot.
    Granted(Permit),
    /// With a refusal.
    Refused(Refusal),
    /// With a place in the queue.
    Queued(WaiterId),
}

#[derive(Debug)]
struct State {
    params: SlotsParams,
    busy: u32,
    zombie: u32,
    queue: FairQueue<Option<Waker>>,
    /// What was decided about waiters that have not come to fetch it yet.
    decided: HashMap<WaiterId, Decision>,
    mean: Mean,
    draws: Draws,
    totals: Totals,
}

#[derive(Debug)]
enum Decision {
    Granted { ticket: Ticket, served: Served, since: Instant, waited: Duration },
    Refused(Refusal),
}

/// Wakers to be called, and things to be dropped, after the unlock: both may run code that comes back here.
#[derive(Debug, Default)]
struct Wakes {
    /// Nearly always the only one; so nothing is allocated.
    first: Option<Waker>,
    rest: Vec<Waker>,
    /// Not to be called.
    dropped: Option<Waker>,
}

impl Slots {
    /// Slots as `params` say, all free. `seed` spreads the retries of those refused.
    pub fn new(params: SlotsParams, clock: Clock, seed: u64) -> Arc<Self> {
        let mut draws = Draws::new(seed);
        let state = State {
            queue: FairQueue::new(queue_params(&params), draws.draw()),
            params,
            busy: 0,
            zombie: 0,
            decided: HashMap::new(),
            mean: Mean::default(),
            draws,
            totals: Totals::default(),
        };
        Arc::new(Self { state: Mutex::new(state), clock })
    }

    /// A permit, if that needs no waiting and passes nobody who waits.
    pub fn try_acquire(self: &Arc<Self>, ticket: &Ticket, now: Instant) -> Option<Permit> {
        let taken = self.state.lock().take_free(ticket)?;
        Some(self.permit(ticket, taken, now))
    }

    /// A permit, after a wait if need be: until the queue's timeout. The request has its place from this call on, before
    /// the future is first polled. To wait it needs a tokio runtime with time.
    pub fn acquire(self: &Arc<Self>, ticket: Ticket, now: Instant) -> Acquire {
        self.acquire_within(ticket, now, Duration::MAX)
    }

    /// As [`Slots::acquire`], but waits no longer than `patience` even if the queue's timeout is longer.
    pub fn acquire_within(self: &Arc<Self>, ticket: Ticket, now: Instant, patience: Duration) -> Acquire {
        let (begun, deadline) = self.with(|state, wakes| {
            let patience = patience.min(state.params.timeout);
            let begun = match state.take_free(&ticket) {
                Some(taken) => Begun::Granted(self.permit(&ticket, taken, now)),
                None => match state.enqueue(ticket, now, patience, wakes) {
                    Ok(id) => Begun::Queued(id),
                    Err(refusal) => Begun::Refused(refusal),
                },
            };
            (begun, now.checked_add(patience).unwrap_or(now + FOREVER))
        });
        Acquire::new(self, begun, deadline)
    }

    /// Changes the parameters. Counts survive: where there are fewer slots now, those in use run out, and nobody is
    /// cut off; where there are more, waiters get them at once.
    pub fn retune(&self, params: SlotsParams) {
        let now = self.clock.now();
        self.with(|state, wakes| {
            state.queue.retune(queue_params(&params));
            state.params = params;
            state.dispatch(now, wakes);
        });
    }

    /// How long a zombie may keep its slot; whoever holds the permit sees to it.
    pub fn zombie_hold(&self) -> Duration {
        self.state.lock().params.zombie_hold
    }

    /// How the slots stand now.
    pub fn stats(&self) -> SlotsStats {
        let now = self.clock.now();
        let state = self.state.lock();
        SlotsStats {
            slots: state.params.slots,
            busy: state.busy as usize,
            zombie: state.zombie as usize,
            queued: state.queue.len(),
            queued_by_class: Class::ALL.map(|class| state.queue.waiting(class)),
            oldest_wait: state.queue.oldest().map_or(Duration::ZERO, |since| now.saturating_duration_since(since)),
            typical: state.mean.known(),
            totals: state.totals,
        }
    }

    /// Fetches what was decided about a waiter, or leaves `waker` to be called when it is.
    pub(super) fn fetch(self: &Arc<Self>, id: WaiterId, waker: &Waker) -> Option<Result<Permit, Refusal>> {
        let mut replaced = None;
        let mut state = self.state.lock();
        if let Some(decision) = state.decided.remove(&id) {
            drop(state);
            return Some(self.honour(decision));
        }
        if let Some(current) = state.queue.payload_mut(id)
            && !current.as_ref().is_some_and(|current| current.will_wake(waker))
        {
            replaced = current.replace(waker.clone());
        }
        drop(state);
        drop(replaced);
        None
    }

    /// Ends the wait of one whose time is over; a slot handed over just before still counts.
    pub(super) fn expire(self: &Arc<Self>, id: WaiterId) -> Result<Permit, Refusal> {
        let now = self.clock.now();
        let decision = self.with(|state, wakes| {
            if let Some(decision) = state.decided.remove(&id) {
                return decision;
            }
            wakes.dropped = state.queue.remove(id).flatten();
            state.totals.timeout += 1;
            state.dispatch(now, wakes);
            Decision::Refused(state.refusal(Reason::QueueTimeout))
        });
        self.honour(decision)
    }

    /// Takes back a waiter that is not interested any more.
    pub(super) fn withdraw(self: &Arc<Self>, id: WaiterId) {
        let decision = self.with(|state, wakes| {
            let decision = state.decided.remove(&id);
            if decision.is_none() {
                state.totals.cancelled += 1;
                wakes.dropped = state.queue.remove(id).flatten();
                state.dispatch(self.clock.now(), wakes);
            }
            decision
        });
        drop(decision.map(|decision| self.honour(decision)));
    }

    fn honour(self: &Arc<Self>, decision: Decision) -> Result<Permit, Refusal> {
        match decision {
            Decision::Granted { ticket, served, since, waited } => {
                let mut permit = self.permit(&ticket, served.slots, since);
                permit.charged = Some(served.charged);
                permit.waited = waited;
                Ok(permit)
            }
            Decision::Refused(refusal) => Err(refusal),
        }
    }

    fn permit(self: &Arc<Self>, ticket: &Ticket, taken: u32, since: Instant) -> Permit {
        let slots = Some(Arc::clone(self));
        Permit { slots, ticket: *ticket, taken, charged: None, since, waited: Duration::ZERO, zombie: false }
    }

    /// Runs `act` under the lock and calls the wakers it leaves after the unlock.
    fn with<R>(&self, act: impl FnOnce(&mut State, &mut Wakes) -> R) -> R {
        let mut wakes = Wakes::default();
        let result = act(&mut self.state.lock(), &mut wakes);
        wakes.wake();
        result
    }
}

impl Permit {
    /// How long the request waited for it.
    pub fn waited(&self) -> Duration {
        self.waited
    }

    /// Slots it holds.
    pub fn slots(&self) -> u32 {
        self.taken
    }

    /// Nobody waits for the answer any more, but the upstream still works: the slot counts as a zombie until the permit
    /// goes.
    pub fn zombie(&mut self) {
        if self.zombie {
            return;
        }
        if let Some(slots) = &self.slots {
            let mut state = slots.state.lock();
            state.busy -= self.taken;
            state.zombie += self.taken;
            self.zombie = true;
        }
    }

    /// The upstream is done: gives the slot back and charges the consumer for the time it was taken. A permit that is
    /// only dropped charges nothing and teaches nothing: that is for attempts that never got to the upstream.
    pub fn finish(mut self, now: Instant) {
        self.give_back(Some(now));
    }

    fn give_back(&mut self, finished: Option<Instant>) {
        let Some(slots) = self.slots.take() else { return };
        let took = finished.map(|now| now.saturating_duration_since(self.since));
        slots.with(|state, wakes| {
            let count = if self.zombie { &mut state.zombie } else { &mut state.busy };
            *count -= self.taken;
            if let Some(took) = took {
                state.mean.learn(took);
            }
            if self.charged.is_some() || !state.queue.is_empty() {
                state.queue.settle(&self.ticket, self.taken, self.charged, took);
            }
            if !state.queue.is_empty() {
                state.dispatch(finished.unwrap_or_else(|| slots.clock.now()), wakes);
            }
        });
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.give_back(None);
    }
}

impl State {
    /// Takes free slots, unless somebody waits for them.
    fn take_free(&mut self, ticket: &Ticket) -> Option<u32> {
        let taken = ticket.cost.min(self.slots()).max(1);
        if taken > self.free() || !self.queue.is_empty() {
            return None;
        }
        self.busy += taken;
        self.totals.granted += 1;
        Some(taken)
    }

    /// Finds a place in the queue for one that has to wait.
    fn enqueue(
        &mut self,
        ticket: Ticket,
        now: Instant,
        patience: Duration,
        wakes: &mut Wakes,
    ) -> Result<WaiterId, Refusal> {
        if self.params.queue > 0 && self.is_hopeless(&ticket, patience) {
            self.totals.hopeless += 1;
            return Err(self.refusal(Reason::QueueHopeless));
        }
        let Ok(pushed) = self.queue.push(ticket, None, now) else {
            self.totals.full += 1;
            return Err(self.refusal(Reason::QueueFull));
        };
        if let Some((last, waker)) = pushed.displaced {
            self.totals.full += 1;
            let refusal = self.refusal(Reason::QueueFull);
            self.decided.insert(last, Decision::Refused(refusal));
            wakes.extend(waker);
        }
        // It may be served at once: slots are free here if whoever is next needs more than that, and it is more urgent.
        self.dispatch(now, wakes);
        Ok(pushed.id)
    }

    /// Hands free slots to whoever is next.
    fn dispatch(&mut self, now: Instant, wakes: &mut Wakes) {
        let typical = self.mean.known().unwrap_or(FIRST_GUESS);
        while self.free() > 0 {
            let Some(popped) = self.queue.pop(self.free(), self.slots(), typical, now) else { return };
            let Popped { id, ticket, payload, waited, served } = popped;
            let decision = match served {
                Some(served) => {
                    self.busy += served.slots;
                    self.totals.granted += 1;
                    self.totals.waited += 1;
                    Decision::Granted { ticket, served, since: now, waited }
                }
                None => {
                    self.totals.shortened += 1;
                    Decision::Refused(self.refusal(Reason::QueueTimeout))
                }
            };
            self.decided.insert(id, decision);
            wakes.extend(payload);
        }
    }

    /// Would it wait longer than it may? Only said when there is evidence.
    fn is_hopeless(&self, ticket: &Ticket, patience: Duration) -> bool {
        let Some(mean) = self.mean.evident() else { return false };
        let work = self.queue.ahead_of(ticket) + u64::from(ticket.cost.max(1));
        drain(work, mean, self.working()) > patience
    }

    /// A refusal that says when the queue will have drained.
    fn refusal(&mut self, reason: Reason) -> Refusal {
        let wait = match self.mean.known() {
            Some(mean) => drain(self.queue.work() + 1, mean, self.working()),
            // Nothing has ever finished: the timeout is the only scale there is.
            None => self.params.timeout,
        };
        Refusal::from(reason).after(jittered(wait, self.draws.draw()))
    }

    /// Slots that come back by themselves: all but the zombies, of which nobody knows when they end.
    fn working(&self) -> u64 {
        u64::from(self.slots().saturating_sub(self.zombie))
    }

    fn slots(&self) -> u32 {
        u32::try_from(self.params.slots).unwrap_or(u32::MAX / 2)
    }

    fn free(&self) -> u32 {
        self.slots().saturating_sub(self.busy).saturating_sub(self.zombie)
    }
}

impl Wakes {
    fn extend(&mut self, waker: Option<Waker>) {
        if self.first.is_none() {
            self.first = waker;
        } else {
            self.rest.extend(waker);
        }
    }

    fn wake(self) {
        self.first.into_iter().chain(self.rest).for_each(Waker::wake);
    }
}

fn queue_params(params: &SlotsParams) -> QueueParams {
    QueueParams {
        capacity: params.queue,
        aging: params.timeout / 2,
        codel: CodelParams { target: params.timeout / 20, interval: Duration::from_millis(100) },
    }
}

/// What a request takes before anything is known; only the proportion between charges depends on it.
const FIRST_GUESS: Duration = Duration::from_millis(10);

/// The end of a wait without a usable deadline.
const FOREVER: Duration = Duration::from_secs(365 * 86_400);
