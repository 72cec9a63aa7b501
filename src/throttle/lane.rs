//! One class of the queue: weighted fair shares between its consumers, charged by measured time. Pure.
//!
//! Each consumer is a *flow* with a virtual time: the slot time it got, divided by its weight. The flow that got least
//! goes next, so the shares of flows that always wait are as their weights. This is deficit round robin without the
//! rounds: nothing to tune (a quantum that suits answers of 20 ms does not suit answers of 20 s), and a charge can be
//! corrected afterwards. At dispatch only an estimate is charged; when the work ends, the difference follows.
//!
//! The lane's own virtual time is the weighted mean of its members' (as in EEVDF; Stoica, Abdel-Wahab 1995):
//! - A flow that comes back starts there: it saved nothing up while it was away, and goes before all who are ahead.
//! - A flow that leaves while it is ahead of the mean stays a member (it *owes*) until the mean has caught up. Otherwise
//!   endless newcomers with one request each would be served for ever before anybody's second request.
//!
//! Nobody waits in the lane → everybody got what he wanted → all debts are forgiven, and the memory with them.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use foldhash::fast::FixedState;

use crate::throttle::Ticket;
use crate::throttle::codel::{Codel, CodelParams, Fate};
use crate::throttle::estimate::{Mean, nanos};

/// The waiters of one class, as their queue numbers (smaller came earlier).
#[derive(Debug)]
pub(crate) struct Lane {
    flows: HashMap<u64, Flow, FixedState>,
    /// Flows with waiters, least served first.
    ready: BTreeSet<Rank>,
    /// Flows without waiters that are ahead of the mean.
    owing: BTreeSet<Rank>,
    /// Flows with waiters by the length of their line over their weight.
    crowds: BTreeSet<(u64, u64)>,
    /// All waiters.
    waiters: BTreeSet<u64>,
    /// Slots they ask for, together.
    work: u64,
    /// Σ weight · virtual time of the members (ready or owing).
    moment: i128,
    /// Σ weight of the members.
    mass: i128,
    /// Σ weight of the ready flows.
    contenders: u64,
    /// Dispatches so far; breaks ties.
    turns: u64,
}

/// One consumer's place.
#[derive(Debug, Default)]
struct Flow {
    weight: u32,
    /// Its waiters, in order.
    line: BTreeSet<u64>,
    /// Slots they ask for, together.
    work: u64,
    /// Dispatched from this lane and not settled yet.
    running: u32,
    /// Its place among the members; `None` when it is none.
    rank: Option<Rank>,
    mean: Mean,
    codel: Codel,
}

/// Virtual time in nanoseconds, then whose turn it is among equals: flows never served by arrival, then the others by
/// their last turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    virtual_time: i64,
    turn: u64,
    consumer: u64,
}

impl Lane {
    /// An empty lane.
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            flows: HashMap::with_hasher(FixedState::with_seed(seed)),
            ready: BTreeSet::new(),
            owing: BTreeSet::new(),
            crowds: BTreeSet::new(),
            waiters: BTreeSet::new(),
            work: 0,
            moment: 0,
            mass: 0,
            contenders: 0,
            turns: 0,
        }
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.waiters.len()
    }

    /// Slots the waiters ask for, together.
    pub(crate) fn work(&self) -> u64 {
        self.work
    }

    /// Consumers remembered, waiting or not.
    pub(crate) fn flows(&self) -> usize {
        self.flows.len()
    }

    /// Who came first.
    pub(crate) fn oldest(&self) -> Option<u64> {
        self.waiters.first().copied()
    }

    /// Who came last.
    pub(crate) fn newest(&self) -> Option<u64> {
        self.waiters.last().copied()
    }

    /// Who goes next: the first in line of the flow that got least.
    pub(crate) fn next(&self) -> Option<u64> {
        self.flows.get(&self.ready.first()?.consumer)?.line.first().copied()
    }

    /// Slots that are asked for ahead of a newcomer: his own line, and for each in it the others' fair shares.
    pub(crate) fn ahead_of(&self, ticket: &Ticket) -> u64 {
        let Some(flow) = self.flows.get(&ticket.consumer) else { return 0 };
        let fair = flow.work.saturating_mul(self.contenders) / u64::from(weight(ticket));
        fair.min(self.work)
    }

    /// The last waiter of the longest line (by weight), where that line is longer than the newcomer's would become.
    pub(crate) fn crowding_out(&self, ticket: &Ticket) -> Option<u64> {
        let (longest, consumer) = self.crowds.last()?;
        let own = self.flows.get(&ticket.consumer).map_or(0, |flow| flow.line.len());
        if *longest <= crowd(own + 1, weight(ticket)) {
            return None;
        }
        self.flows.get(consumer)?.line.last().copied()
    }

    /// Puts waiter `number` at the end of its consumer's line.
    pub(crate) fn join(&mut self, ticket: &Ticket, number: u64) {
        let consumer = ticket.consumer;
        self.unlist(consumer);
        let mean = self.virtual_time();
        let flow = self.flows.entry(consumer).or_default();
        flow.weight = weight(ticket);
        flow.rank.get_or_insert(Rank { virtual_time: mean, turn: number, consumer });
        flow.line.insert(number);
        flow.work += u64::from(ticket.cost);
        self.waiters.insert(number);
        self.work += u64::from(ticket.cost);
        self.list(consumer);
    }

    /// Takes waiter `number` out as if it had never come. True if it was here.
    pub(crate) fn leave(&mut self, ticket: &Ticket, number: u64) -> bool {
        if !self.waiters.remove(&number) {
            return false;
        }
        self.unlist(ticket.consumer);
        if let Some(flow) = self.flows.get_mut(&ticket.consumer) {
            flow.line.remove(&number);
            flow.work = flow.work.saturating_sub(u64::from(ticket.cost));
        }
        self.work = self.work.saturating_sub(u64::from(ticket.cost));
        self.list(ticket.consumer);
        self.forgive();
        true
    }

    /// Asks the flow's CoDel about its first waiter, who waited for `sojourn`.
    pub(crate) fn judge(&mut self, params: CodelParams, ticket: &Ticket, sojourn: Duration, now: Instant) -> Fate {
        let Some(flow) = self.flows.get_mut(&ticket.consumer) else { return Fate::Serve };
        let behind = flow.line.len().saturating_sub(1);
        flow.codel.judge(params, sojourn, behind, now)
    }

    /// Takes waiter `number` out, served with `slots`; returns the slot time charged in advance: the flow's usual time,
    /// or `typical` for a flow not known yet.
    pub(crate) fn serve(&mut self, ticket: &Ticket, number: u64, slots: u32, typical: Duration) -> Duration {
        self.turns += 1;
        let turn = SERVED + self.turns;
        self.waiters.remove(&number);
        self.work = self.work.saturating_sub(u64::from(ticket.cost));
        self.unlist(ticket.consumer);
        let mut charged = Duration::ZERO;
        if let Some(flow) = self.flows.get_mut(&ticket.consumer) {
            flow.line.remove(&number);
            flow.work = flow.work.saturating_sub(u64::from(ticket.cost));
            flow.running += 1;
            charged = flow.mean.known().unwrap_or(typical).max(LEAST).saturating_mul(slots);
            flow.advance(signed(charged), i64::MAX);
            if let Some(rank) = &mut flow.rank {
                rank.turn = turn;
            }
        }
        self.list(ticket.consumer);
        self.forgive();
        charged
    }

    /// Corrects what [`Lane::serve`] `charged`, now that the work on `slots` slots took `took` (`None`: it does not
    /// count). A request that never waited was charged nothing; its time counts only if others are waiting now.
    pub(crate) fn settle(&mut self, ticket: &Ticket, slots: u32, charged: Option<Duration>, took: Option<Duration>) {
        let consumer = ticket.consumer;
        let owed = signed(took.unwrap_or_default().saturating_mul(slots)) - signed(charged.unwrap_or_default());
        let contended = !self.ready.is_empty();
        let counts = self.flows.contains_key(&consumer) || (contended && owed > 0);
        if !counts {
            return;
        }
        self.unlist(consumer);
        let mean = self.virtual_time();
        let flow = self.flows.entry(consumer).or_insert_with(|| Flow { weight: weight(ticket), ..Flow::default() });
        if charged.is_some() {
            flow.running = flow.running.saturating_sub(1);
        }
        if let Some(took) = took {
            flow.mean.learn(took);
        }
        if flow.rank.is_none() && contended && owed > 0 {
            flow.rank = Some(Rank { virtual_time: mean, turn: SERVED + self.turns, consumer });
        }
        flow.advance(owed, mean.saturating_add(MOST_OWED));
        if flow.rank.is_none() && flow.running == 0 {
            self.flows.remove(&consumer);
        }
        self.list(consumer);
        self.forgive();
    }

    /// The weighted mean of the members' virtual times.
    fn virtual_time(&self) -> i64 {
        if self.mass == 0 {
            return 0;
        }
        i64::try_from(self.moment.div_euclid(self.mass)).unwrap_or(i64::MAX)
    }

    /// Takes the flow out of every index before it is changed.
    fn unlist(&mut self, consumer: u64) {
        let Some(flow) = self.flows.get(&consumer) else { return };
        let Some(rank) = flow.rank else { return };
        if flow.line.is_empty() {
            self.owing.remove(&rank);
        } else {
            self.ready.remove(&rank);
            self.crowds.remove(&(crowd(flow.line.len(), flow.weight), consumer));
            self.contenders -= u64::from(flow.weight);
        }
        self.moment -= flow.moment(rank);
        self.mass -= i128::from(flow.weight);
    }

    /// Enters the flow into the indexes it belongs to after a change.
    fn list(&mut self, consumer: u64) {
        let Some(flow) = self.flows.get(&consumer) else { return };
        let Some(rank) = flow.rank else { return };
        if flow.line.is_empty() {
            self.owing.insert(rank);
        } else {
            self.ready.insert(rank);
            self.crowds.insert((crowd(flow.line.len(), flow.weight), consumer));
            self.contenders += u64::from(flow.weight);
        }
        self.moment += flow.moment(rank);
        self.mass += i128::from(flow.weight);
    }

    /// Lets go of the flows that owe nothing any more, and of the smallest debts where there are too many.
    fn forgive(&mut self) {
        for _ in 0..FORGIVEN_AT_ONCE {
            let Some(Rank { virtual_time, consumer, .. }) = self.owing.first().copied() else { return };
            if virtual_time > self.virtual_time() && self.owing.len() <= MOST_DEBTORS {
                return;
            }
            self.unlist(consumer);
            if let Some(flow) = self.flows.get_mut(&consumer) {
                flow.rank = None;
                if flow.running == 0 {
                    self.flows.remove(&consumer);
                }
            }
        }
    }
}

impl Flow {
    fn moment(&self, rank: Rank) -> i128 {
        i128::from(rank.virtual_time) * i128::from(self.weight)
    }

    /// Moves a member by `slot_time` nanoseconds of service, but not beyond `most`.
    fn advance(&mut self, slot_time: i64, most: i64) {
        if let Some(rank) = &mut self.rank {
            let step = slot_time / i64::from(self.weight.max(1));
            let moved = rank.virtual_time.saturating_add(step);
            rank.virtual_time = moved.min(most.max(rank.virtual_time));
        }
    }
}

fn weight(ticket: &Ticket) -> u32 {
    ticket.weight.max(1)
}

/// The length of a line over its flow's weight, in thousandths.
fn crowd(waiting: usize, weight: u32) -> u64 {
    u64::try_from(waiting).unwrap_or(u64::MAX).saturating_mul(1000) / u64::from(weight.max(1))
}

fn signed(duration: Duration) -> i64 {
    i64::try_from(nanos(duration)).unwrap_or(i64::MAX)
}

/// Turns of flows that were served come after those of newcomers, whose turn is their queue number.
const SERVED: u64 = 1 << 63;

/// No dispatch is free, or flows of a backend that answers at once would never take turns.
const LEAST: Duration = Duration::from_micros(1);

/// A late correction puts a flow at most this far (virtual nanoseconds) behind the others: a minute of the whole
/// backend's work is penalty enough, and a wrong measurement must not lock anybody out for an hour.
const MOST_OWED: i64 = 60_000_000_000;

/// Debtors remembered. About as many owe as wait, so this is beyond every sensible queue; it bounds the memory.
const MOST_DEBTORS: usize = 16_384;

/// Debts forgiven per step; more than one step can add, and little enough for a critical section.
const FORGIVEN_AT_ONCE: usize = 32;
