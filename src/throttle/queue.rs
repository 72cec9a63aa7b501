//! Who gets the next slot: a bounded queue, fair between consumers. Pure: time is an argument, wakers are the payload.
//!
//! - **Classes**: the most urgent class with a waiter goes first.
//! - **Aging**: where somebody of a lower class has waited too long, every fourth dispatch goes to the oldest such waiter.
//!   So the lowest class gets on, and the highest loses no more than a quarter to it; promoting the aged into the
//!   highest class would make an overload of batch jobs everybody's overload.
//! - **Shares**: inside a class the consumers share by weight and measured time (the lanes).
//! - **Room**: a full queue refuses, except that a newcomer takes the place of the last waiter of the lowest class below
//!   his own, or else of the last of a consumer whose line is longer than his: one consumer's burst never locks the
//!   others out.
//! - **No barging**: when the next waiter needs more slots than are free, everybody waits for them.
//!
//! Every operation is O(log n).

use std::collections::HashMap;
use std::time::{Duration, Instant};

use foldhash::fast::FixedState;

pub use crate::throttle::codel::CodelParams;
use crate::throttle::codel::Fate;
use crate::throttle::lane::Lane;
use crate::throttle::{Class, Ticket};

/// How much waits, and how long is too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueParams {
    /// Waiters at the same time.
    pub capacity: usize,
    /// A waiter older than this is aged.
    pub aging: Duration,
    /// When a standing queue is shortened.
    pub codel: CodelParams,
}

/// A waiter; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WaiterId(u64);

/// A queue of waiters that carry a `T`.
#[derive(Debug)]
pub struct FairQueue<T> {
    params: QueueParams,
    waiters: HashMap<u64, Waiter<T>, FixedState>,
    interactive: Lane,
    normal: Lane,
    batch: Lane,
    refresh: Lane,
    /// The next waiter's number.
    next: u64,
    /// Dispatches since an aged waiter had its turn.
    passed_over: u32,
}

/// A waiter taken in, and the one that had to make room for it.
#[derive(Debug)]
pub struct Pushed<T> {
    /// The one taken in.
    pub id: WaiterId,
    /// The one that is out of the queue for it.
    pub displaced: Option<(WaiterId, T)>,
}

/// A waiter that left from the head.
#[derive(Debug)]
pub struct Popped<T> {
    /// Which.
    pub id: WaiterId,
    /// What it came with.
    pub ticket: Ticket,
    /// What it carried.
    pub payload: T,
    /// How long it waited.
    pub waited: Duration,
    /// Its slots, or nothing because the queue had to be shortened.
    pub served: Option<Served>,
}

/// What a served waiter got; [`FairQueue::settle`] wants it back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Served {
    /// Slots, at least one.
    pub slots: u32,
    /// The slot time charged in advance.
    pub charged: Duration,
}

#[derive(Debug)]
struct Waiter<T> {
    ticket: Ticket,
    since: Instant,
    payload: T,
}

impl<T> FairQueue<T> {
    /// An empty queue; `seed` makes its hashes unpredictable.
    pub fn new(params: QueueParams, seed: u64) -> Self {
        Self {
            params,
            waiters: HashMap::with_hasher(FixedState::with_seed(seed)),
            interactive: Lane::new(seed),
            normal: Lane::new(seed),
            batch: Lane::new(seed),
            refresh: Lane::new(seed),
            next: 0,
            passed_over: 0,
        }
    }

    /// Changes the parameters; whoever waits stays, even beyond a smaller capacity.
    pub fn retune(&mut self, params: QueueParams) {
        self.params = params;
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiters.len()
    }

    /// True if nobody waits.
    pub fn is_empty(&self) -> bool {
        self.waiters.is_empty()
    }

    /// How many of `class` wait.
    pub fn waiting(&self, class: Class) -> usize {
        self.lane(class).len()
    }

    /// Slots all waiters ask for, together.
    pub fn work(&self) -> u64 {
        Class::ALL.iter().map(|class| self.lane(*class).work()).sum()
    }

    /// Consumers (by class) of which something is remembered.
    pub fn flows(&self) -> usize {
        Class::ALL.iter().map(|class| self.lane(*class).flows()).sum()
    }

    /// When the longest waiting came.
    pub fn oldest(&self) -> Option<Instant> {
        Class::ALL.iter().filter_map(|class| self.since(self.lane(*class).oldest()?)).min()
    }

    /// Slots that will be handed out before a newcomer with this ticket gets its own, if nobody else comes.
    pub fn ahead_of(&self, ticket: &Ticket) -> u64 {
        let urgent = Class::ALL.iter().filter(|class| **class < ticket.class).map(|class| self.lane(*class).work());
        urgent.sum::<u64>() + self.lane(ticket.class).ahead_of(ticket)
    }

    /// Takes a waiter in.
    ///
    /// # Errors
    /// Gives `payload` back when the queue is full and nobody has to make room.
    pub fn push(&mut self, ticket: Ticket, payload: T, now: Instant) -> Result<Pushed<T>, T> {
        let mut displaced = None;
        if self.waiters.len() >= self.params.capacity {
            let Some(last) = self.making_room(&ticket) else { return Err(payload) };
            displaced = self.remove(last).map(|payload| (last, payload));
        }
        let ticket = Ticket { cost: ticket.cost.max(1), ..ticket };
        let number = self.next;
        self.next += 1;
        self.lane_mut(ticket.class).join(&ticket, number);
        self.waiters.insert(number, Waiter { ticket, since: now, payload });
        Ok(Pushed { id: WaiterId(number), displaced })
    }

    /// What a waiter carries, to exchange it.
    pub fn payload_mut(&mut self, id: WaiterId) -> Option<&mut T> {
        self.waiters.get_mut(&id.0).map(|waiter| &mut waiter.payload)
    }

    /// Takes a waiter out as if it had never come; `None` if it is not in the queue (any more).
    pub fn remove(&mut self, id: WaiterId) -> Option<T> {
        let waiter = self.waiters.remove(&id.0)?;
        self.lane_mut(waiter.ticket.class).leave(&waiter.ticket, id.0);
        Some(waiter.payload)
    }

    /// Takes out whoever is next and can be served with `free` of all `slots`. `typical` is what a request usually takes:
    /// the charge of a consumer of whom nothing is known, and the scale below which CoDel must not judge.
    pub fn pop(&mut self, free: u32, slots: u32, typical: Duration, now: Instant) -> Option<Popped<T>> {
        let urgent = Class::ALL.into_iter().find(|class| self.lane(*class).len() > 0)?;
        let aged = self.aged(urgent, now);
        let number = match aged {
            Some(number) if self.passed_over + 1 >= AGED_TURN => number,
            _ => self.lane(urgent).next()?,
        };
        let Waiter { ticket, since, .. } = self.waiters.get(&number)?;
        let (ticket, waited) = (*ticket, now.saturating_duration_since(*since));
        // More slots than exist would be waited for in vain.
        let cost = ticket.cost.min(slots).max(1);
        if cost > free {
            return None;
        }
        let codel = self.codel(slots, typical);
        let lane = self.lane_mut(ticket.class);
        let served = match lane.judge(codel, &ticket, waited, now) {
            Fate::Drop => {
                lane.leave(&ticket, number);
                None
            }
            Fate::Serve => {
                let charged = lane.serve(&ticket, number, cost, typical);
                self.passed_over = if aged.is_none() || aged == Some(number) { 0 } else { self.passed_over + 1 };
                Some(Served { slots: cost, charged })
            }
        };
        let waiter = self.waiters.remove(&number)?;
        Some(Popped { id: WaiterId(number), ticket, payload: waiter.payload, waited, served })
    }

    /// Settles finished work: corrects what was `charged` at dispatch by what it `took` on `slots` slots (`None`: it does
    /// not count). Work that never waited was charged nothing (`None`) and counts only while others wait.
    pub fn settle(&mut self, ticket: &Ticket, slots: u32, charged: Option<Duration>, took: Option<Duration>) {
        self.lane_mut(ticket.class).settle(ticket, slots, charged, took);
    }

    /// The oldest waiter below class `urgent` that has waited too long.
    fn aged(&self, urgent: Class, now: Instant) -> Option<u64> {
        let lower = Class::ALL.into_iter().filter(|class| *class > urgent);
        let oldest = lower.filter_map(|class| self.lane(class).oldest()).min()?;
        let waited = now.saturating_duration_since(self.since(oldest)?);
        (waited >= self.params.aging).then_some(oldest)
    }

    /// Who has to go for a newcomer.
    fn making_room(&self, ticket: &Ticket) -> Option<WaiterId> {
        let below = Class::ALL.into_iter().rev().take_while(|class| *class > ticket.class);
        let lower = below.filter_map(|class| self.lane(class).newest()).next();
        lower.or_else(|| self.lane(ticket.class).crowding_out(ticket)).map(WaiterId)
    }

    /// A wait shorter than the time between two dispatches is never long, and no trend shows within one service time
    /// (RFC 8289 sections 4.3 and 4.4: at least a packet's transmission, at least a round trip).
    fn codel(&self, slots: u32, typical: Duration) -> CodelParams {
        let CodelParams { target, interval } = self.params.codel;
        CodelParams { target: target.max(typical / slots.max(1)), interval: interval.max(typical) }
    }

    fn since(&self, number: u64) -> Option<Instant> {
        self.waiters.get(&number).map(|waiter| waiter.since)
    }

    fn lane(&self, class: Class) -> &Lane {
        match class {
            Class::Interactive => &self.interactive,
            Class::Normal => &self.normal,
            Class::Batch => &self.batch,
            Class::Refresh => &self.refresh,
        }
    }

    fn lane_mut(&mut self, class: Class) -> &mut Lane {
        match class {
            Class::Interactive => &mut self.interactive,
            Class::Normal => &mut self.normal,
            Class::Batch => &mut self.batch,
            Class::Refresh => &mut self.refresh,
        }
    }
}

/// Where somebody has aged, this dispatch of so many is his.
const AGED_TURN: u32 = 4;
