//! Who gets the next slot: a bounded queue, fair between consumers. Pure: time is an argument, wakers are the payload.
//!
//! - **Classes**: the most urgent class with a waiter goes first.
//! - **Aging**: where somebody of a lower class has waited too long, every fourth dispatch goes to the oldest such waiter.
//!   So the lowest class gets on, and the highest loses no more than a quarter to it; promoting the aged into the
//!   highest class would make an overload of batch jobs everybody's overload.
//! - **Shares**: inside a class the consumers share by weight and measured time (the lanes).
//! - **Room**: a full queue refuses, except that a newcomer takes the place of the last waiter of the lowest class below
//!   his own, or else of the last of a consumer whose line is longer than his: one consumer's burst never locks the
//!   others out. A class that is capped has a part of the queue as well, and can fill no more than that.
//! - **No barging**: when the next waiter needs more slots than are free, everybody waits for them.
//!
//! Every operation is O(log n).

use std::collections::HashMap;
use std::time::{Duration, Instant};

use foldhash::fast::FixedState;

pub use crate::throttle::codel::CodelParams;
use crate::throttle::codel::Fate;
use crate::throttle::lane::Lane;
use crate::throttle::reserve::{PerClass, of};
use crate::throttle::{Class, SlotsParams, Ticket};

/// How much waits, and how long is too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueParams {
    /// Waiters at the same time.
    pub capacity: usize,
    /// Of them, those of each class.
    pub shares: [usize; Class::ALL.len()],
    /// A waiter older than this is aged.
    pub aging: Duration,
    /// When a standing queue is shortened.
    pub codel: CodelParams,
}

impl QueueParams {
    /// What follows from the parameters of the slots.
    pub fn of(params: &SlotsParams) -> Self {
        let (capacity, slots) = (params.queue, params.most().max(1));
        // A class that may have a sixth of the slots may have a sixth of the queue: the rest would wait in vain, and be in
        // the way of the others.
        let share = |cap: u32| match cap as usize {
            cap if cap < slots => capacity.saturating_mul(cap).div_ceil(slots),
            _ => capacity,
        };
        Self {
            capacity,
            shares: params.cap.map(share),
            aging: params.timeout / 2,
            codel: CodelParams { target: params.timeout / 20, interval: Duration::from_millis(100) },
        }
    }
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
    logon: Lane,
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
            logon: Lane::new(seed),
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

    /// Slots the waiters of `class` ask for, together.
    pub fn work_of(&self, class: Class) -> u64 {
        self.lane(class).work()
    }

    /// Slots that whoever of `class` may be next asks for, of `most` that he may have; 0 if nobody of it waits.
    pub fn asks(&self, class: Class, most: u32) -> u32 {
        let lane = self.lane(class);
        let candidates = [lane.next(), lane.oldest()].into_iter().flatten();
        let tickets = candidates.filter_map(|number| self.waiters.get(&number));
        tickets.map(|waiter| waiter.ticket.cost.min(most).max(1)).max().unwrap_or(0)
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

    /// The same, where only those of its own class stand before it.
    pub fn ahead_within(&self, ticket: &Ticket) -> u64 {
        self.lane(ticket.class).ahead_of(ticket)
    }

    /// Takes a waiter in.
    ///
    /// # Errors
    /// Gives `payload` back when the queue is full and nobody has to make room.
    pub fn push(&mut self, ticket: Ticket, payload: T, now: Instant) -> Result<Pushed<T>, T> {
        let Ok(last) = self.place_for(&ticket) else { return Err(payload) };
        let displaced = last.and_then(|last| self.remove(last).map(|payload| (last, payload)));
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

    /// What a waiter came with.
    pub fn ticket(&self, id: WaiterId) -> Option<&Ticket> {
        self.waiters.get(&id.0).map(|waiter| &waiter.ticket)
    }

    /// Takes a waiter out as if it had never come; `None` if it is not in the queue (any more).
    pub fn remove(&mut self, id: WaiterId) -> Option<T> {
        let waiter = self.waiters.remove(&id.0)?;
        self.lane_mut(waiter.ticket.class).leave(&waiter.ticket, id.0);
        Some(waiter.payload)
    }

    /// Takes out whoever is next and can be served with the `room` its class has, of the slots it may have at `most`. A
    /// class without room waits, and holds up nobody. `typical` is what a request usually takes: the charge of a consumer of whom nothing is
    /// known, and the scale below which CoDel must not judge.
    pub fn pop(&mut self, room: PerClass, most: PerClass, typical: Duration, now: Instant) -> Option<Popped<T>> {
        let room = |class| of(room, class);
        let urgent = Class::ALL.into_iter().find(|class| room(*class) > 0 && self.lane(*class).len() > 0)?;
        let aged = self.aged(urgent, room, now);
        let number = match aged {
            Some(number) if self.passed_over + 1 >= AGED_TURN => number,
            _ => self.lane(urgent).next()?,
        };
        let Waiter { ticket, since, .. } = self.waiters.get(&number)?;
        let (ticket, waited) = (*ticket, now.saturating_duration_since(*since));
        // More slots than it may have would be waited for in vain.
        let slots = of(most, ticket.class);
        let cost = ticket.cost.min(slots).max(1);
        if cost > room(ticket.class) {
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
    fn aged(&self, urgent: Class, room: impl Fn(Class) -> u32, now: Instant) -> Option<u64> {
        let lower = Class::ALL.into_iter().filter(|class| *class > urgent && room(*class) > 0);
        let oldest = lower.filter_map(|class| self.lane(class).oldest()).min()?;
        let waited = now.saturating_duration_since(self.since(oldest)?);
        (waited >= self.params.aging).then_some(oldest)
    }

    /// Whether there is a place for a newcomer, and who has to go for it.
    ///
    /// # Errors
    /// When the queue is full and nobody has to make room.
    #[expect(clippy::result_unit_err, reason = "there is no more to say than that there is none")]
    pub fn place_for(&self, ticket: &Ticket) -> Result<Option<WaiterId>, ()> {
        let share = self.params.shares.get(ticket.class as usize).copied().unwrap_or(0);
        let own = || self.lane(ticket.class).crowding_out(ticket);
        if self.waiting(ticket.class) >= share {
            // Only one of its own class can make room.
            return own().map(|last| Some(WaiterId(last))).ok_or(());
        }
        if self.waiters.len() < self.params.capacity {
            return Ok(None);
        }
        let below = Class::ALL.into_iter().rev().take_while(|class| *class > ticket.class);
        let lower = below.filter_map(|class| self.lane(class).newest()).next();
        lower.or_else(own).map(|last| Some(WaiterId(last))).ok_or(())
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
            Class::Logon => &self.logon,
            Class::Batch => &self.batch,
            Class::Refresh => &self.refresh,
        }
    }

    fn lane_mut(&mut self, class: Class) -> &mut Lane {
        match class {
            Class::Interactive => &mut self.interactive,
            Class::Normal => &mut self.normal,
            Class::Logon => &mut self.logon,
            Class::Batch => &mut self.batch,
            Class::Refresh => &mut self.refresh,
        }
    }
}

/// Where somebody has aged, this dispatch of so many is his.
const AGED_TURN: u32 = 4;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock::Clock;
    use crate::throttle::estimate::Draws;

    const TYPICAL: Duration = Duration::from_millis(10);
    const NEVER: CodelParams = CodelParams { target: Duration::MAX, interval: Duration::MAX };

    fn queue(capacity: usize) -> FairQueue<u32> {
        let shares = [capacity; 5];
        FairQueue::new(QueueParams { capacity, shares, aging: Duration::from_secs(1), codel: NEVER }, 1)
    }

    fn ticket(consumer: u64, class: Class) -> Ticket {
        Ticket { consumer, class, ..Ticket::default() }
    }

    /// Pushes `(consumer, class)` in order, then pops everything one slot at a time: the payloads (the index of the
    /// push) have to come out as `expected`.
    #[track_caller]
    fn check(pushes: &[(u64, Class)], expected: &[u32]) {
        let mut queue = queue(100);
        let now = Clock::system().now();
        for (index, (consumer, class)) in (0..).zip(pushes) {
            queue.push(ticket(*consumer, *class), index, now).unwrap();
        }
        let popped: Vec<u32> =
            std::iter::from_fn(|| queue.pop([1; 5], [1; 5], TYPICAL, now)).map(|popped| popped.payload).collect();
        assert_eq!(popped, expected);
    }

    #[test]
    fn one_consumer_is_served_in_order() {
        check(&[(1, Class::Normal), (1, Class::Normal), (1, Class::Normal)], &[0, 1, 2]);
    }

    #[test]
    fn the_urgent_class_goes_first() {
        use Class::{Batch, Interactive, Normal, Refresh};
        check(&[(1, Refresh), (1, Batch), (1, Normal), (2, Interactive), (1, Interactive)], &[3, 4, 2, 1, 0]);
    }

    #[test]
    fn consumers_take_turns() {
        let n = Class::Normal;
        check(&[(1, n), (1, n), (1, n), (1, n), (2, n), (3, n), (2, n)], &[0, 4, 5, 1, 6, 2, 3]);
    }

    #[test]
    fn a_first_request_waits_for_one_service_behind_a_batch_job() {
        let mut queue = queue(10_000);
        let mut now = Clock::system().now();
        for index in 0..5000 {
            queue.push(ticket(1, Class::Normal), index, now).unwrap();
        }
        for _ in 0..1000 {
            let popped = queue.pop([1; 5], [1; 5], TYPICAL, now).unwrap();
            now += Duration::from_millis(20);
            queue.settle(
                &popped.ticket,
                1,
                popped.served.map(|served| served.charged),
                Some(Duration::from_millis(20)),
            );
        }
        queue.push(ticket(2, Class::Normal), 9999, now).unwrap();
        assert_eq!(queue.pop([1; 5], [1; 5], TYPICAL, now).unwrap().payload, 9999);
    }

    /// Two consumers with a line each get a slot, and their work `took` that many times the estimate (`None`: it does not
    /// count). Whose turns are the next four?
    #[track_caller]
    fn check_correction(took: [Option<u32>; 2], expected: [u64; 4]) {
        let mut queue = queue(100);
        let now = Clock::system().now();
        for index in 0..20 {
            queue.push(ticket(1 + u64::from(index) % 2, Class::Normal), index, now).unwrap();
        }
        let both = [1, 2].map(|_| queue.pop([1; 5], [2; 5], TYPICAL, now).unwrap());
        assert_eq!(both.each_ref().map(|popped| popped.ticket.consumer), [1, 2]);
        for (popped, took) in both.iter().zip(took) {
            let took = took.map(|times| TYPICAL * times);
            queue.settle(&popped.ticket, 1, popped.served.map(|served| served.charged), took);
        }
        assert_eq!([0; 4].map(|_| queue.pop([1; 5], [2; 5], TYPICAL, now).unwrap().ticket.consumer), expected);
    }

    #[test]
    fn measured_time_corrects_the_estimate() {
        check_correction([Some(1), Some(1)], [1, 2, 1, 2]);
        check_correction([Some(100), Some(1)], [2, 2, 2, 2]);
        check_correction([None, Some(3)], [1, 1, 1, 2]);
    }

    #[test]
    fn work_that_never_waited_counts_once_others_wait() {
        let mut queue = queue(100);
        let now = Clock::system().now();
        let hog = ticket(1, Class::Normal);
        queue.settle(&hog, 1, None, Some(TYPICAL * 100));
        assert_eq!(queue.flows(), 0, "nobody waits: it took nothing from anybody");
        for consumer in [2, 2, 2] {
            queue.push(ticket(consumer, Class::Normal), 0, now).unwrap();
        }
        queue.settle(&hog, 1, None, Some(TYPICAL * 100));
        queue.push(hog, 0, now).unwrap();
        assert_eq!([0; 4].map(|_| queue.pop([1; 5], [1; 5], TYPICAL, now).unwrap().ticket.consumer), [2, 2, 2, 1]);
    }

    #[test]
    fn endless_newcomers_do_not_starve_a_second_request() {
        let mut queue = queue(1000);
        let now = Clock::system().now();
        queue.push(ticket(0, Class::Normal), 0, now).unwrap();
        queue.push(ticket(0, Class::Normal), 1, now).unwrap();
        for newcomer in 1..=20 {
            queue.push(ticket(newcomer, Class::Normal), 0, now).unwrap();
        }
        for newcomer in 21..200 {
            let popped = queue.pop([1; 5], [1; 5], TYPICAL, now).unwrap();
            queue.settle(&popped.ticket, 1, popped.served.map(|served| served.charged), Some(TYPICAL));
            if popped.payload == 1 {
                return;
            }
            queue.push(ticket(newcomer, Class::Normal), 0, now).unwrap();
        }
        panic!("the second request of consumer 0 was passed over 180 times");
    }

    #[test]
    fn the_lowest_class_gets_every_fourth_turn_once_it_has_aged() {
        let mut queue = queue(1000);
        let mut now = Clock::system().now();
        for index in 0..10 {
            queue.push(ticket(1, Class::Refresh), index, now).unwrap();
        }
        for index in 100..200 {
            queue.push(ticket(2, Class::Interactive), index, now).unwrap();
        }
        let urgent = (0..50).filter(|_| queue.pop([1; 5], [1; 5], TYPICAL, now).unwrap().payload >= 100).count();
        assert_eq!(urgent, 50, "nobody has aged yet");
        now += Duration::from_secs(1);
        let turns: Vec<bool> =
            (0..16).map(|_| queue.pop([1; 5], [1; 5], TYPICAL, now).unwrap().payload < 100).collect();
        let expected: Vec<bool> = (0..16).map(|turn| turn % 4 == 3).collect();
        assert_eq!(turns, expected);
    }

    #[test]
    fn nobody_barges_past_one_who_needs_more_slots() {
        let mut queue = queue(10);
        let now = Clock::system().now();
        queue.push(Ticket { cost: 4, ..ticket(1, Class::Normal) }, 0, now).unwrap();
        queue.push(ticket(2, Class::Normal), 1, now).unwrap();
        for free in 1..4 {
            assert!(queue.pop([free; 5], [8; 5], TYPICAL, now).is_none(), "{free} free");
        }
        assert_eq!(queue.pop([4; 5], [8; 5], TYPICAL, now).unwrap().served.unwrap().slots, 4);
        assert_eq!(queue.pop([1; 5], [8; 5], TYPICAL, now).unwrap().payload, 1);
    }

    #[test]
    fn more_slots_than_there_are_means_all() {
        let mut queue = queue(10);
        let now = Clock::system().now();
        queue.push(Ticket { cost: 40, ..ticket(1, Class::Normal) }, 0, now).unwrap();
        assert_eq!(queue.pop([3; 5], [3; 5], TYPICAL, now).unwrap().served.unwrap().slots, 3);
    }

    #[test]
    fn a_full_queue_makes_room_for_the_more_urgent_and_for_short_lines_only() {
        let mut queue = queue(4);
        let now = Clock::system().now();
        for index in 0..4 {
            queue.push(ticket(1, Class::Normal), index, now).unwrap();
        }
        assert!(queue.push(ticket(1, Class::Normal), 4, now).is_err(), "its own line is the longest");
        assert!(queue.push(ticket(1, Class::Batch), 5, now).is_err(), "it is less urgent");
        let displaced = queue.push(ticket(2, Class::Normal), 6, now).unwrap().displaced;
        assert_eq!(displaced.map(|(_, payload)| payload), Some(3), "the last of the longest line");
        let displaced = queue.push(ticket(2, Class::Normal), 7, now).unwrap().displaced;
        assert_eq!(displaced.map(|(_, payload)| payload), Some(2));
        assert!(queue.push(ticket(2, Class::Normal), 8, now).is_err(), "the lines are even");
        let displaced = queue.push(ticket(1, Class::Interactive), 9, now).unwrap().displaced;
        assert_eq!(displaced.map(|(_, payload)| payload), Some(7), "the last of the lowest class");
        assert_eq!(queue.len(), 4);
    }

    #[test]
    fn a_storm_of_logons_has_no_more_of_the_queue_than_of_the_slots() {
        let params = SlotsParams { slots: 12, queue: 64, ..SlotsParams::default() };
        let mut queue = FairQueue::new(QueueParams::of(&params), 1);
        let now = Clock::system().now();
        let batch = queue.push(ticket(7, Class::Batch), 0, now).unwrap().id;
        let taken = (0..1000).filter(|consumer| queue.push(ticket(*consumer, Class::Logon), 0, now).is_ok()).count();
        assert_eq!(taken, 11, "two of twelve slots: eleven of 64 places");
        let displaced = queue.push(ticket(0, Class::Logon), 0, now);
        assert!(displaced.is_err(), "the lines are even");
        for consumer in 0..52 {
            assert!(queue.push(ticket(consumer, Class::Normal), 0, now).unwrap().displaced.is_none());
        }
        assert_eq!((queue.len(), queue.waiting(Class::Logon)), (64, 11));
        let displaced = queue.push(ticket(99, Class::Interactive), 0, now).unwrap().displaced;
        assert_eq!(displaced.map(|(id, _)| id), Some(batch), "whoever is more urgent has the rest");
        let displaced = queue.push(ticket(99, Class::Interactive), 0, now).unwrap().displaced;
        assert!(displaced.is_some() && queue.waiting(Class::Logon) == 10);
    }

    #[test]
    fn nothing_is_remembered_of_consumers_who_are_gone() {
        let mut queue = queue(100);
        let now = Clock::system().now();
        for consumer in 0..200_000 {
            queue.push(ticket(consumer, Class::Normal), 0, now).unwrap();
            if consumer >= 50 {
                let popped = queue.pop([1; 5], [1; 5], TYPICAL, now).unwrap();
                queue.settle(&popped.ticket, 1, popped.served.map(|served| served.charged), Some(TYPICAL));
            }
            assert!(queue.flows() <= 250, "{} flows for 50 waiters", queue.flows());
        }
        while let Some(popped) = queue.pop([1; 5], [1; 5], TYPICAL, now) {
            queue.settle(&popped.ticket, 1, popped.served.map(|served| served.charged), Some(TYPICAL));
        }
        assert_eq!((queue.len(), queue.work()), (0, 0));
        for _ in 0..20 {
            let pushed = queue.push(ticket(1, Class::Normal), 0, now).unwrap();
            queue.remove(pushed.id).unwrap();
        }
        assert_eq!(queue.flows(), 0);
    }

    #[test]
    fn ten_thousand_waiters_come_and_go() {
        let mut queue = queue(10_000);
        let now = Clock::system().now();
        let mut draws = Draws::new(3);
        let mut ids: Vec<WaiterId> = (0..10_000)
            .map(|index| queue.push(ticket(draws.draw() % 500, Class::Normal), index, now).unwrap().id)
            .collect();
        for _ in 0..5000 {
            let index = usize::try_from(draws.draw() % ids.len() as u64).unwrap();
            assert!(queue.remove(ids.swap_remove(index)).is_some());
        }
        let served = std::iter::from_fn(|| queue.pop([1; 5], [1; 5], TYPICAL, now)).count();
        assert_eq!((served, queue.len(), queue.work()), (5000, 0, 0));
    }

    /// Slot time each consumer got, of `slots` slots that were never free for lack of waiters, in the time of `rounds`
    /// answers. Consumers are `(weight, service time)`.
    fn shares(consumers: &[(u32, Duration)], slots: u32, rounds: u32, seed: u64) -> Vec<Duration> {
        let mut queue = queue(10_000);
        let mut now = Clock::system().now();
        let mut draws = Draws::new(seed);
        let mut got = vec![Duration::ZERO; consumers.len()];
        let mut running: Vec<(Instant, Instant, Ticket, Duration)> = Vec::new();
        for (index, (weight, _)) in consumers.iter().enumerate() {
            for _ in 0..20 {
                let ticket = Ticket { weight: *weight, ..ticket(index as u64, Class::Normal) };
                queue.push(ticket, 0, now).unwrap();
            }
        }
        for _ in 0..rounds {
            while running.len() < slots as usize {
                let popped =
                    queue.pop([1; 5], [slots; 5], TYPICAL, now).expect("work conserving: somebody always waits");
                let service = consumers[popped.ticket.consumer as usize].1;
                // Half to one and a half times the consumer's mean.
                let service = service / 2 + service.mul_f64((draws.draw() % 1000) as f64 / 1000.0);
                running.push((now + service, now, popped.ticket, popped.served.unwrap().charged));
                queue.push(popped.ticket, 0, now).unwrap();
            }
            let first = (0..running.len()).min_by_key(|index| running[*index].0).unwrap();
            let (end, begin, ticket, charged) = running.swap_remove(first);
            now = end;
            queue.settle(&ticket, 1, Some(charged), Some(end - begin));
            got[ticket.consumer as usize] += end - begin;
        }
        got
    }

    #[track_caller]
    fn check_shares(consumers: &[(u32, Duration)], slots: u32, seed: u64) {
        let got = shares(consumers, slots, 20_000, seed);
        let total: f64 = got.iter().map(Duration::as_secs_f64).sum();
        let weights: u32 = consumers.iter().map(|(weight, _)| weight).sum();
        for (got, (weight, service)) in got.iter().zip(consumers) {
            let share = got.as_secs_f64() / total;
            let due = f64::from(*weight) / f64::from(weights);
            assert!((share / due - 1.0).abs() < 0.05, "weight {weight}, {service:?}: {share:.3} instead of {due:.3}");
        }
    }

    #[test]
    fn shares_are_as_weights_however_long_the_answers_take() {
        let ms = Duration::from_millis;
        check_shares(&[(1, ms(50)), (1, ms(50))], 1, 1);
        check_shares(&[(1, ms(10)), (1, ms(500))], 4, 2);
        check_shares(&[(3, ms(100)), (1, ms(20)), (2, ms(700))], 6, 3);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn shares_are_within_a_twentieth_of_the_weights(
            consumers in prop::collection::vec((1_u32..5, 10_u64..200), 2..5),
            slots in 1_u32..4,
            seed: u64,
        ) {
            let consumers: Vec<_> =
                consumers.into_iter().map(|(weight, millis)| (weight, Duration::from_millis(millis))).collect();
            check_shares(&consumers, slots, seed);
        }
    }

    proptest! {
        #[test]
        fn nobody_starves_however_urgent_the_others_are(
            patient in prop::collection::vec((0_u64..6, 1_usize..5, 1_u32..4), 40..80),
        ) {
            let mut queue = queue(1000);
            let mut now = Clock::system().now();
            for (consumer, class, weight) in patient {
                // One who can wait, and eight urgent ones in the time in which eight are served.
                queue.push(Ticket { consumer, class: Class::ALL[class], weight, ..Ticket::default() }, 0, now).unwrap();
                for _ in 0..8 {
                    queue.push(ticket(9, Class::Interactive), 0, now).unwrap();
                    let popped = queue.pop([1; 5], [1; 5], TYPICAL, now).unwrap();
                    now += TYPICAL;
                    queue.settle(&popped.ticket, 1, popped.served.map(|served| served.charged), Some(TYPICAL));
                }
                // Aged after a second, and then every fourth turn is for the oldest of the dozen that came meanwhile.
                let longest = now - queue.oldest().unwrap();
                prop_assert!(longest <= Duration::from_secs(1) + TYPICAL * 4 * 20, "{longest:?}");
            }
        }
    }

    #[derive(Debug, Clone)]
    enum Step {
        Push { consumer: u64, class: usize, cost: u32, weight: u32 },
        Pop { free: u32 },
        Remove { nth: usize },
        Settle { nth: usize, millis: Option<u64> },
        Wait { millis: u64 },
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0_u64..6, 0_usize..5, 0_u32..4, 0_u32..4)
                .prop_map(|(consumer, class, cost, weight)| Step::Push { consumer, class, cost, weight }),
            3 => (1_u32..5).prop_map(|free| Step::Pop { free }),
            1 => any::<usize>().prop_map(|nth| Step::Remove { nth }),
            2 => (any::<usize>(), prop::option::of(0_u64..5000)).prop_map(|(nth, millis)| Step::Settle { nth, millis }),
            1 => (0_u64..3000).prop_map(|millis| Step::Wait { millis }),
        ]
    }

    proptest! {
        #[test]
        fn every_schedule_keeps_the_queue_sound(steps in prop::collection::vec(step(), 1..300)) {
            const SLOTS: u32 = 4;
            let mut queue = queue(20);
            let mut now = Clock::system().now();
            let mut waiting: Vec<(WaiterId, Ticket)> = Vec::new();
            let mut running: Vec<(Ticket, Served)> = Vec::new();
            for step in steps {
                match step {
                    Step::Push { consumer, class, cost, weight } => {
                        let ticket = Ticket { consumer, class: Class::ALL[class], cost, weight, ..Ticket::default() };
                        let before = queue.len();
                        match queue.push(ticket, 0, now) {
                            Ok(pushed) => {
                                prop_assert_eq!(pushed.displaced.is_some(), before == 20);
                                waiting.retain(|(id, _)| Some(*id) != pushed.displaced.map(|(last, _)| last));
                                waiting.push((pushed.id, ticket));
                            }
                            Err(_) => prop_assert_eq!(before, 20),
                        }
                    }
                    Step::Pop { free } => match queue.pop([free; 5], [SLOTS; 5], TYPICAL, now) {
                        Some(popped) => {
                            let served = popped.served.expect("CoDel is off");
                            prop_assert!(served.slots <= free);
                            let first = waiting.iter().position(|(_, ticket)| {
                                (ticket.consumer, ticket.class) == (popped.ticket.consumer, popped.ticket.class)
                            });
                            let (id, _) = waiting.remove(first.unwrap());
                            prop_assert_eq!(id, popped.id, "in order inside one consumer and class");
                            running.push((popped.ticket, served));
                        }
                        None => prop_assert!(waiting.is_empty() || free < SLOTS, "work conserving"),
                    },
                    Step::Remove { nth } if !waiting.is_empty() => {
                        let (id, _) = waiting.remove(nth % waiting.len());
                        prop_assert!(queue.remove(id).is_some() && queue.remove(id).is_none());
                    }
                    Step::Settle { nth, millis } if !running.is_empty() => {
                        let (ticket, served) = running.swap_remove(nth % running.len());
                        queue.settle(&ticket, served.slots, Some(served.charged), millis.map(Duration::from_millis));
                    }
                    Step::Wait { millis } => now += Duration::from_millis(millis),
                    Step::Remove { .. } | Step::Settle { .. } => {}
                }
                prop_assert!(queue.len() <= 20);
                prop_assert_eq!(queue.len(), waiting.len());
                prop_assert_eq!(queue.work(), waiting.iter().map(|(_, ticket)| u64::from(ticket.cost.max(1))).sum::<u64>());
            }
            for (ticket, served) in running {
                queue.settle(&ticket, served.slots, Some(served.charged), None);
            }
            for (id, _) in waiting {
                prop_assert!(queue.remove(id).is_some());
            }
            prop_assert_eq!((queue.len(), queue.work(), queue.flows()), (0, 0, 0), "no trace");
        }
    }
}
