//! What is decided about slots under their lock: who gets how many, who waits, who is refused. Time is an argument.

use std::collections::HashMap;
use std::task::Waker;
use std::time::{Duration, Instant};

use super::{Excess, Taken};
use crate::refusal::{Reason, Refusal};
use crate::throttle::estimate::{Draws, Mean, drain, jittered};
use crate::throttle::limit::{Ending, Limit, Sample, Shift};
use crate::throttle::queue::{FairQueue, Popped, QueueParams, Served, WaiterId};
use crate::throttle::reserve::{PerClass, Reserve, UNCAPPED, of};
use crate::throttle::stats::Totals;
use crate::throttle::wakes::Wakes;
use crate::throttle::{Class, SlotsParams, Ticket};

/// How the slots stand, who waits for them, and what is known of how long that takes.
#[derive(Debug)]
pub(super) struct State {
    pub(super) params: SlotsParams,
    /// Where the number of slots adapts.
    pub(super) limit: Option<Limit>,
    pub(super) busy: u32,
    pub(super) zombie: u32,
    /// More than these are not in use, however many there are: what the endpoints may work on together.
    pub(super) ceiling: u32,
    /// What each class holds of both, and what is kept for it.
    pub(super) reserve: Reserve,
    /// The share of the slots that new work may take, in thousandths; less than all after a breaker has closed.
    pub(super) let_out: u32,
    pub(super) queue: FairQueue<Option<Waker>>,
    /// What was decided about waiters that have not come to fetch it yet.
    pub(super) decided: HashMap<WaiterId, Decision>,
    pub(super) mean: Mean,
    /// The same of each class by itself: a logon takes twenty times a call.
    means: [Mean; Class::ALL.len()],
    pub(super) draws: Draws,
    pub(super) totals: Totals,
}

/// What became of a waiter.
#[derive(Debug)]
pub(super) enum Decision {
    Granted(Taken),
    Refused(Refusal),
}

impl State {
    /// All slots are free.
    pub(super) fn new(params: SlotsParams, now: Instant, seed: u64) -> Self {
        let mut draws = Draws::new(seed);
        Self {
            limit: limit(&params, now),
            queue: FairQueue::new(QueueParams::of(&params), draws.draw()),
            ceiling: u32::MAX,
            reserve: Reserve::new(params.reserve, params.cap),
            params,
            busy: 0,
            zombie: 0,
            let_out: WHOLE,
            decided: HashMap::new(),
            mean: Mean::default(),
            means: Default::default(),
            draws,
            totals: Totals::default(),
        }
    }

    /// Other parameters from now on.
    pub(super) fn retune(&mut self, params: SlotsParams, now: Instant) {
        self.queue.retune(QueueParams::of(&params));
        match (&mut self.limit, params.adaptive) {
            (Some(limit), Some(adaptive)) => limit.retune(adaptive, whole(params.slots), now),
            (current, _) => *current = limit(&params, now),
        }
        self.reserve.retune(params.reserve, params.cap);
        self.params = params;
    }

    /// Whether who finds no slot has to wait.
    pub(super) const fn counts(&self) -> bool {
        self.params.mode.counts()
    }

    /// Takes free slots, unless somebody waits for them.
    pub(super) fn take_free(&mut self, ticket: &Ticket, now: Instant) -> Option<Taken> {
        let count = self.count(ticket);
        if count > self.open_to(ticket.class) {
            return None;
        }
        Some(self.hand_out(*ticket, count, now))
    }

    /// Whether there are slots for it that nobody waits for.
    pub(super) fn has_free(&self, ticket: &Ticket) -> bool {
        self.count(ticket) <= self.open_to(ticket.class)
    }

    /// Slots that a request takes: more than its class may have would be waited for in vain.
    fn count(&self, ticket: &Ticket) -> u32 {
        if ticket.cost <= 1 { 1 } else { ticket.cost.min(of(self.most(), ticket.class)).max(1) }
    }

    /// Slots for a request that did not wait.
    fn hand_out(&mut self, ticket: Ticket, count: u32, now: Instant) -> Taken {
        self.busy += count;
        self.reserve.take(ticket.class, count);
        self.totals.granted += 1;
        Taken {
            ticket,
            count,
            charged: None,
            since: now,
            waited: Duration::ZERO,
            zombie: false,
            in_flight: self.busy + self.zombie,
            excess: None,
        }
    }

    /// Lets one through though there is no slot for it: they do not count.
    pub(super) fn overdraw(&mut self, ticket: &Ticket, now: Instant, patience: Duration) -> Taken {
        let excess = Some(self.beyond(ticket, patience));
        let count = self.count(ticket);
        self.totals.shadowed += 1;
        Taken { excess, ..self.hand_out(*ticket, count, now) }
    }

    /// What would have become of one for which there is no slot, as if those beyond the slots were those who wait.
    pub(super) fn beyond(&self, ticket: &Ticket, patience: Duration) -> Excess {
        let beyond = (self.busy + self.zombie).saturating_sub(self.slots());
        let behind = u64::from(beyond) + u64::from(ticket.cost.max(1));
        let wait = self.mean.evident().map(|mean| drain(behind, mean, self.working()));
        if beyond as usize >= self.params.queue {
            Excess::Refused(Reason::QueueFull)
        } else if wait.is_some_and(|wait| wait > patience) {
            Excess::Refused(Reason::QueueHopeless)
        } else {
            Excess::Waits
        }
    }

    /// Finds a place in the queue for one that has to wait.
    pub(super) fn enqueue(
        &mut self,
        ticket: Ticket,
        now: Instant,
        patience: Duration,
        wakes: &mut Wakes,
    ) -> Result<WaiterId, Refusal> {
        if self.params.queue > 0 && self.is_hopeless(&ticket, patience) {
            self.totals.hopeless += 1;
            return Err(self.refusal(Reason::QueueHopeless, ticket.class));
        }
        let Ok(pushed) = self.queue.push(ticket, None, now) else {
            self.totals.full += 1;
            return Err(self.refusal(Reason::QueueFull, ticket.class));
        };
        if let Some((last, waker)) = pushed.displaced {
            self.totals.full += 1;
            let refusal = self.refusal(Reason::QueueFull, ticket.class);
            self.decided.insert(last, Decision::Refused(refusal));
            wakes.extend(waker);
        }
        // It may be served at once: slots are free here if whoever is next needs more than that, and it is more urgent.
        self.dispatch(now, wakes);
        Ok(pushed.id)
    }

    /// Hands free slots to whoever is next.
    pub(super) fn dispatch(&mut self, now: Instant, wakes: &mut Wakes) {
        let typical = self.mean.known().unwrap_or(FIRST_GUESS);
        while self.free() > 0 || !self.counts() {
            // Where slots do not count, nobody who waits since they did is kept.
            let room = if self.counts() { self.room() } else { UNCAPPED };
            let Some(popped) = self.queue.pop(room, self.most(), typical, now) else { return };
            let Popped { id, ticket, payload, waited, served } = popped;
            let decision = match served {
                Some(Served { slots: count, charged }) => {
                    self.busy += count;
                    self.reserve.take(ticket.class, count);
                    self.totals.granted += 1;
                    self.totals.waited += 1;
                    Decision::Granted(Taken {
                        ticket,
                        count,
                        charged: Some(charged),
                        since: now,
                        waited,
                        zombie: false,
                        in_flight: self.busy + self.zombie,
                        excess: None,
                    })
                }
                None => {
                    self.totals.shortened += 1;
                    Decision::Refused(self.refusal(Reason::QueueTimeout, ticket.class))
                }
            };
            self.decided.insert(id, decision);
            wakes.extend(payload);
        }
    }

    /// Teaches the adaptive limit how an attempt ended.
    pub(super) fn learn(&mut self, taken: &Taken, (ending, took): (Ending, Duration), now: Instant) -> Option<Shift> {
        let Taken { ticket: Ticket { operation, .. }, since: began, in_flight, .. } = *taken;
        self.limit.as_mut()?.record(&Sample { operation, began, took, in_flight, ending }, now)
    }

    /// Work of `class` was done and took so long.
    pub(super) fn finished(&mut self, class: Class, took: Duration) {
        self.mean.learn(took);
        if let Some(mean) = self.means.get_mut(class as usize) {
            mean.learn(took);
        }
    }

    /// Would it wait longer than it may? Only said when there is evidence.
    pub(super) fn is_hopeless(&self, ticket: &Ticket, patience: Duration) -> bool {
        self.predicted(ticket, Mean::evident).is_some_and(|wait| wait > patience)
    }

    /// How long it would wait if nobody else comes, by the means of which `known` says something.
    pub(super) fn predicted(&self, ticket: &Ticket, known: impl Fn(&Mean) -> Option<Duration>) -> Option<Duration> {
        let (mean, class) = (known(&self.mean)?, ticket.class);
        let own = self.means.get(class as usize).and_then(known).unwrap_or(mean);
        let cost = u64::from(ticket.cost.max(1));
        let kept = u64::from(of(self.params.reserve, class));
        let within = self.queue.ahead_within(ticket) + cost;
        let behind_all = drain(self.queue.ahead_of(ticket) + cost, mean, self.working());
        // What is kept for its class serves that alone.
        let wait = if kept > 0 { drain(within, own, kept).min(behind_all) } else { behind_all };
        // And it gets no further than its cap lets it.
        Some(self.cap(class).map_or(wait, |cap| drain(within, own, cap).max(wait)))
    }

    /// Slots that `class` is held to, where that is less than all.
    fn cap(&self, class: Class) -> Option<u64> {
        let cap = of(self.reserve.capped(self.slots(), self.all()), class);
        (cap < self.slots()).then_some(cap.into())
    }

    /// A refusal that says when the queue will have drained for one of `class`.
    pub(super) fn refusal(&mut self, reason: Reason, class: Class) -> Refusal {
        let wait = match self.mean.known() {
            Some(mean) => {
                let wait = drain(self.queue.work() + 1, mean, self.working());
                let own = self.means.get(class as usize).and_then(Mean::known).unwrap_or(mean);
                let own = self.cap(class).map(|cap| drain(self.queue.work_of(class) + 1, own, cap));
                own.map_or(wait, |own| own.max(wait))
            }
            // Nothing has ever finished: the timeout is the only scale there is.
            None => self.params.timeout,
        };
        Refusal::from(reason).after(jittered(wait, self.draws.draw()))
    }

    /// Slots that come back by themselves: all but the zombies, of which nobody knows when they end.
    pub(super) fn working(&self) -> u64 {
        u64::from(self.all().saturating_sub(self.zombie).min(self.slots()))
    }

    /// All slots.
    pub(super) fn all(&self) -> u32 {
        self.limit.as_ref().map_or_else(|| whole(self.params.slots), Limit::in_force).min(self.ceiling)
    }

    /// Slots that are let out.
    pub(super) fn slots(&self) -> u32 {
        if self.let_out == WHOLE {
            return self.all().max(1);
        }
        let share = (u64::from(self.all()) * u64::from(self.let_out)).div_ceil(u64::from(WHOLE));
        u32::try_from(share).unwrap_or(u32::MAX).max(1)
    }

    /// Free slots that each class may take; none while those of it who wait ask for more than its own cap leaves: what it
    /// waits for is its own, so it must not hold up the others.
    pub(super) fn room(&self) -> PerClass {
        let (slots, all) = (self.slots(), self.all());
        let mut room = self.reserve.room(self.free(), slots, all);
        if let Some(left) = self.reserve.left(slots, all) {
            let most = self.most();
            for (class, room) in Class::ALL.into_iter().zip(&mut room) {
                if self.queue.asks(class, of(most, class)) > of(left, class) {
                    *room = 0;
                }
            }
        }
        room
    }

    /// Free slots that a newcomer of `class` may take and nobody waits for: all that its class may, or, where others wait
    /// who may have some of them, what is kept for its class alone.
    fn open_to(&self, class: Class) -> u32 {
        if self.queue.is_empty() {
            return self.reserve.room_of(class, self.free(), self.slots(), self.all());
        }
        let room = self.room();
        let wanted = |other: &Class| self.queue.waiting(*other) > 0 && of(room, *other) > 0;
        if !Class::ALL.iter().any(wanted) {
            return of(room, class);
        }
        if self.queue.waiting(class) > 0 {
            return 0;
        }
        of(self.reserve.own(self.slots(), self.all()), class).min(of(room, class))
    }

    /// Slots that each class may have at most.
    pub(super) fn most(&self) -> PerClass {
        self.reserve.most(self.slots(), self.all())
    }

    pub(super) fn free(&self) -> u32 {
        self.all().saturating_sub(self.zombie).min(self.slots()).saturating_sub(self.busy)
    }
}

fn limit(params: &SlotsParams, now: Instant) -> Option<Limit> {
    params.adaptive.map(|adaptive| Limit::new(adaptive, whole(params.slots), now))
}

fn whole(slots: usize) -> u32 {
    u32::try_from(slots).unwrap_or(u32::MAX / 2)
}

/// All slots, in the thousandths of [`Slots::let_out`].
pub(super) const WHOLE: u32 = 1000;

/// What a request takes before anything is known; only the proportion between charges depends on it.
const FIRST_GUESS: Duration = Duration::from_millis(10);
