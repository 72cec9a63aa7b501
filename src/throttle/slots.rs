//! Slots: concurrent work at one upstream, shared by all workers. Whoever finds no free slot waits in the fair queue.
//!
//! One mutex, tiny critical sections: taking a free slot is a comparison and an addition. A freed slot is handed to the
//! next waiter under the lock, and its waker is called after the unlock; so nobody who comes meanwhile can take it, and
//! exactly one waiter wakes per slot. Whatever happens to a request (its client leaves, its task is dropped while it waits
//! or just after it got its slot), every slot taken is given back exactly once: [`Permit`] and [`Acquire`] are guards.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::Waker;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

pub use self::outlook::Outlook;
use self::state::{Decision, State, WHOLE};
use crate::clock::Clock;
use crate::refusal::{Reason, Refusal};
use crate::throttle::acquire::Acquire;
use crate::throttle::limit::{Ending, Shift};
pub use crate::throttle::permit::Permit;
use crate::throttle::queue::WaiterId;
use crate::throttle::stats::{LimitStats, SlotsStats};
use crate::throttle::wakes::Wakes;
use crate::throttle::{Class, SlotsParams, Ticket};

mod learned;
mod outlook;
mod state;

/// The slots of one upstream.
#[derive(Debug)]
pub struct Slots {
    state: Mutex<State>,
    /// What [`State::let_out`] is, in thousandths: read by every request, changed on a ramp only.
    let_out: AtomicU32,
    clock: Clock,
}

/// Slots taken by one request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Taken {
    pub(super) ticket: Ticket,
    pub(super) count: u32,
    /// The slot time charged in advance; `None` if it never waited.
    pub(super) charged: Option<Duration>,
    pub(super) since: Instant,
    pub(super) waited: Duration,
    pub(super) zombie: bool,
    /// Slots in use when it got its own, these included.
    pub(super) in_flight: u32,
    /// What would have become of it, if slots do not count.
    pub(super) excess: Option<Excess>,
}

/// What would have become of a request that found no slot, and passed all the same: slots are in shadow mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Excess {
    /// It would have waited.
    Waits,
    /// It would have been refused.
    Refused(Reason),
}

/// What is known without waiting.
#[derive(Debug)]
pub enum Entered {
    /// There was a slot.
    Granted(Permit),
    /// There is none yet.
    Waits(Box<Acquire>),
}

/// How an attempt to acquire began.
pub(super) enum Begun {
    /// With a slot.
    Granted(Permit),
    /// With a refusal.
    Refused(Refusal),
    /// With a place in the queue, until then.
    Queued(WaiterId, Instant),
}

impl Slots {
    /// Slots as `params` say, all free. `seed` spreads the retries of those refused.
    pub fn new(params: SlotsParams, clock: Clock, seed: u64) -> Arc<Self> {
        let state = State::new(params, clock.now(), seed);
        Arc::new(Self { state: Mutex::new(state), let_out: AtomicU32::new(WHOLE), clock })
    }

    /// A permit, if that needs no waiting and passes nobody who waits.
    pub fn try_acquire(self: &Arc<Self>, ticket: &Ticket, now: Instant) -> Option<Permit> {
        let taken = self.state.lock().take_free(ticket, now)?;
        Some(Permit::new(self, taken))
    }

    /// A permit, after a wait if need be: until the queue's timeout. The request has its place from this call on, before
    /// the future is first polled. To wait it needs a tokio runtime with time.
    pub fn acquire(self: &Arc<Self>, ticket: Ticket, now: Instant) -> Acquire {
        self.acquire_within(ticket, now, Duration::MAX)
    }

    /// As [`Slots::acquire`], but waits no longer than `patience` even if the queue's timeout is longer.
    pub fn acquire_within(self: &Arc<Self>, ticket: Ticket, now: Instant, patience: Duration) -> Acquire {
        Acquire::new(self, self.begin(ticket, now, patience).0)
    }

    /// The same for whoever mostly gets it at once; and how many wait already, of whatever class. Not all of those are
    /// served before it.
    pub fn enter(
        self: &Arc<Self>,
        ticket: Ticket,
        now: Instant,
        patience: Duration,
    ) -> (Result<Entered, Refusal>, usize) {
        let (begun, ahead) = self.begin(ticket, now, patience);
        let entered = match begun {
            Begun::Granted(permit) => Ok(Entered::Granted(permit)),
            Begun::Refused(refusal) => Err(refusal),
            Begun::Queued(..) => Ok(Entered::Waits(Box::new(Acquire::new(self, begun)))),
        };
        (entered, ahead)
    }

    /// Changes the parameters. Counts survive, and so does what an adaptive limit has learned. Where there are fewer slots
    /// now, those in use run out, and nobody is cut off; where there are more, waiters get them at once.
    pub fn retune(&self, params: SlotsParams) {
        let now = self.clock.now();
        self.with(|state, wakes| {
            state.retune(params, now);
            state.dispatch(now, wakes);
        });
    }

    /// Holds the slots to this many, whatever their number is otherwise. Nobody is cut off.
    pub fn hold(&self, ceiling: u32) {
        let now = self.clock.now();
        self.with(|state, wakes| {
            if std::mem::replace(&mut state.ceiling, ceiling) != ceiling {
                state.dispatch(now, wakes);
            }
        });
    }

    /// Lets new work take this share (0 to 1) of the slots, at least one: the ramp of a breaker that has closed. Zombies
    /// do not count against the share, only against the whole: a backend that hangs must not keep its own trial out.
    pub fn let_out(&self, share: f64) {
        let share = (share.clamp(0.0, 1.0) * f64::from(WHOLE)) as u32;
        if self.let_out.load(Ordering::Relaxed) == share {
            return;
        }
        let now = self.clock.now();
        self.with(|state, wakes| {
            self.let_out.store(share, Ordering::Relaxed);
            state.let_out = share;
            state.dispatch(now, wakes);
        });
    }

    /// Slots that are zombies, and all slots.
    pub fn zombies(&self) -> (u32, u32) {
        let state = self.state.lock();
        (state.zombie, state.all())
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
            slots: state.slots() as usize,
            all: state.all() as usize,
            limit: state.limit.as_ref().map(|limit| LimitStats {
                suggested: limit.suggested() as usize,
                shadow: limit.is_shadow(),
                reading: limit.reading(),
                drops: limit.drops(),
            }),
            busy: state.busy as usize,
            zombie: state.zombie as usize,
            queued: state.queue.len(),
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
            let class = state.queue.ticket(id).map_or(Class::Normal, |ticket| ticket.class);
            wakes.dropped = state.queue.remove(id).flatten();
            state.totals.timeout += 1;
            state.dispatch(now, wakes);
            Decision::Refused(state.refusal(Reason::QueueTimeout, class))
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

    /// Takes a slot, a place in the queue, or neither; and says how many wait already.
    fn begin(self: &Arc<Self>, ticket: Ticket, now: Instant, patience: Duration) -> (Begun, usize) {
        self.with(|state, wakes| {
            let (patience, ahead) = (patience.min(state.params.timeout), state.queue.len());
            let begun = match state.take_free(&ticket, now) {
                Some(taken) => Begun::Granted(Permit::new(self, taken)),
                None if !state.counts() => Begun::Granted(Permit::new(self, state.overdraw(&ticket, now, patience))),
                None => match state.enqueue(ticket, now, patience, wakes) {
                    Ok(id) => Begun::Queued(id, now.checked_add(patience).unwrap_or(now + FOREVER)),
                    Err(refusal) => Begun::Refused(refusal),
                },
            };
            (begun, ahead)
        })
    }

    /// From now on the slots count as zombies. What is known of the attempt's end is learned now.
    pub(super) fn abandon(&self, taken: &mut Taken, end: Option<(Ending, Duration)>) -> Option<Shift> {
        if taken.zombie {
            return None;
        }
        taken.zombie = true;
        self.with(|state, wakes| {
            state.busy -= taken.count;
            state.zombie += taken.count;
            let now = self.clock.now();
            let shift = state.learn(taken, end?, now);
            if shift.is_some() {
                state.dispatch(now, wakes);
            }
            shift
        })
    }

    /// The slots are free again. They are charged and learned from if the work was `finished`; `end` is how the attempt
    /// ended, as far as that is to be learned from.
    pub(super) fn take_back(
        &self,
        taken: &Taken,
        finished: Option<Instant>,
        end: Option<(Ending, Duration)>,
    ) -> Option<Shift> {
        let took = finished.map(|now| now.saturating_duration_since(taken.since));
        self.with(|state, wakes| {
            let shift = end.zip(finished).and_then(|(end, now)| state.learn(taken, end, now));
            let count = if taken.zombie { &mut state.zombie } else { &mut state.busy };
            *count -= taken.count;
            state.reserve.give(taken.ticket.class, taken.count);
            if let Some(took) = took {
                state.finished(taken.ticket.class, took);
            }
            if taken.charged.is_some() || !state.queue.is_empty() {
                state.queue.settle(&taken.ticket, taken.count, taken.charged, took);
            }
            if !state.queue.is_empty() {
                state.dispatch(finished.unwrap_or_else(|| self.clock.now()), wakes);
            }
            shift
        })
    }

    fn honour(self: &Arc<Self>, decision: Decision) -> Result<Permit, Refusal> {
        match decision {
            Decision::Granted(taken) => Ok(Permit::new(self, taken)),
            Decision::Refused(refusal) => Err(refusal),
        }
    }

    /// Runs `act` under the lock and calls the wakers it leaves after the unlock.
    fn with<R>(&self, act: impl FnOnce(&mut State, &mut Wakes) -> R) -> R {
        let mut wakes = Wakes::default();
        let result = act(&mut self.state.lock(), &mut wakes);
        wakes.wake();
        result
    }
}

/// The end of a wait without a usable deadline.
const FOREVER: Duration = Duration::from_secs(365 * 86_400);

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::Pin;
    use std::sync::atomic::AtomicUsize;
    use std::task::{Context, Poll, Wake};

    use proptest::prelude::*;

    use super::*;
    use crate::refusal::Mode;
    use crate::throttle::limit::{AdaptiveParams, Cause, Policy};
    use crate::throttle::reserve::{CAPS, NONE, UNCAPPED, with};

    fn params(slots: usize, queue: usize) -> SlotsParams {
        let timeout = Duration::from_secs(2);
        SlotsParams { slots, queue, timeout, zombie_hold: Duration::from_secs(60), ..SlotsParams::default() }
    }

    fn slots(slots: usize, queue: usize) -> Arc<Slots> {
        Slots::new(params(slots, queue), Clock::system(), 1)
    }

    fn acquire(slots: &Arc<Slots>, consumer: u64) -> Acquire {
        slots.acquire(Ticket { consumer, ..Ticket::default() }, slots.clock.now())
    }

    /// Takes a slot that has to be free.
    fn take(slots: &Arc<Slots>) -> Permit {
        slots.try_acquire(&Ticket::default(), slots.clock.now()).expect("a slot is free")
    }

    /// Teaches what a request takes.
    async fn teach(slots: &Arc<Slots>, samples: u32, service: Duration) {
        for _ in 0..samples {
            let permit = take(slots);
            tokio::time::advance(service).await;
            permit.finish(slots.clock.now());
        }
    }

    fn poll(acquire: &mut Acquire, wakes: &Arc<Wakings>) -> Poll<Result<Permit, Refusal>> {
        Pin::new(acquire).poll(&mut Context::from_waker(&Arc::clone(wakes).into()))
    }

    #[derive(Default)]
    struct Wakings(AtomicUsize);

    impl Wake for Wakings {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The slots stand at `(busy, zombie, queued)`.
    #[track_caller]
    fn check(slots: &Slots, expected: (usize, usize, usize)) {
        let stats = slots.stats();
        assert_eq!((stats.busy, stats.zombie, stats.queued), expected);
    }

    #[tokio::test(start_paused = true)]
    async fn free_slots_are_given_at_once_and_come_back() {
        let slots = slots(2, 10);
        let (first, second) = (acquire(&slots, 1).await.unwrap(), acquire(&slots, 2).await.unwrap());
        assert_eq!(first.waited(), Duration::ZERO);
        assert!(slots.try_acquire(&Ticket::default(), slots.clock.now()).is_none());
        check(&slots, (2, 0, 0));
        drop(first);
        second.finish(slots.clock.now());
        check(&slots, (0, 0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_freed_slot_wakes_exactly_one_waiter() {
        let slots = slots(1, 10);
        let permit = take(&slots);
        let wakings: [Arc<Wakings>; 3] = Default::default();
        let mut waiters: Vec<Acquire> = (0..3).map(|consumer| acquire(&slots, consumer)).collect();
        for (waiter, wakings) in waiters.iter_mut().zip(&wakings) {
            assert!(waiter.is_waiting() && poll(waiter, wakings).is_pending());
        }
        tokio::time::advance(Duration::from_millis(300)).await;
        drop(permit);
        assert_eq!([1, 0, 0], [0, 1, 2].map(|index: usize| wakings[index].0.load(Ordering::Relaxed)));
        check(&slots, (1, 0, 2));
        assert!(slots.try_acquire(&Ticket::default(), slots.clock.now()).is_none(), "it is handed over");
        let Poll::Ready(Ok(permit)) = poll(&mut waiters[0], &wakings[0]) else { panic!("the first has it") };
        assert_eq!(permit.waited(), Duration::from_millis(300));
    }

    #[tokio::test(start_paused = true)]
    async fn a_dropped_waiter_leaves_at_once() {
        let slots = slots(1, 10);
        let _permit = take(&slots);
        let mut waiter = acquire(&slots, 1);
        assert!(poll(&mut waiter, &Arc::default()).is_pending());
        check(&slots, (1, 0, 1));
        drop(waiter);
        check(&slots, (1, 0, 0));
        assert_eq!(slots.stats().totals.cancelled, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_waiter_dropped_after_the_hand_over_passes_the_slot_on() {
        let slots = slots(1, 10);
        let permit = take(&slots);
        let (first, second) = (acquire(&slots, 1), acquire(&slots, 2));
        drop(permit);
        check(&slots, (1, 0, 1));
        drop(first);
        check(&slots, (1, 0, 0));
        drop(second.await.unwrap());
        check(&slots, (0, 0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_ends_at_the_timeout_or_when_patience_does() {
        let slots = slots(1, 10);
        let _permit = take(&slots);
        let begin = slots.clock.now();
        let impatient = slots.acquire_within(Ticket::default(), begin, Duration::from_millis(500));
        let patient = acquire(&slots, 1);
        assert_eq!(impatient.await.unwrap_err().reason, Reason::QueueTimeout);
        assert_eq!(slots.clock.now() - begin, Duration::from_millis(500));
        assert_eq!(patient.await.unwrap_err().reason, Reason::QueueTimeout);
        assert_eq!((slots.clock.now() - begin).as_millis(), 2000);
        assert_eq!(slots.stats().totals.timeout, 2);
        check(&slots, (1, 0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_slot_handed_over_just_before_the_timeout_counts() {
        let slots = slots(1, 10);
        let permit = take(&slots);
        let Begun::Queued(id, _) = slots.begin(Ticket::default(), slots.clock.now(), Duration::MAX).0 else {
            panic!("no slot is free")
        };
        drop(permit);
        let permit = slots.expire(id).unwrap();
        check(&slots, (1, 0, 0));
        drop(permit);
        check(&slots, (0, 0, 0));
        assert_eq!(slots.stats().totals.timeout, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_queue_refuses_and_says_when_it_will_have_drained() {
        let slots = slots(2, 3);
        teach(&slots, 5, Duration::from_secs(4)).await;
        let _taken = [take(&slots), take(&slots)];
        let waiters: Vec<Acquire> = (0..3).map(|consumer| acquire(&slots, consumer)).collect();
        let refusal = acquire(&slots, 7).await.unwrap_err();
        assert_eq!(refusal.reason, Reason::QueueFull);
        // Four requests of four seconds through two slots.
        let due = Duration::from_secs(8);
        let after = refusal.retry_after.unwrap();
        assert!(after >= due.mul_f64(0.79) && after <= due.mul_f64(1.21), "{after:?}");
        drop(waiters);
        check(&slots, (2, 0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_line_makes_room_for_another_consumer() {
        let slots = slots(1, 2);
        let _permit = take(&slots);
        let (_first, last) = (acquire(&slots, 1), acquire(&slots, 1));
        let mut other = acquire(&slots, 2);
        assert_eq!(last.await.unwrap_err().reason, Reason::QueueFull);
        assert!(poll(&mut other, &Arc::default()).is_pending());
        check(&slots, (1, 0, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_hopeless_wait_is_refused_at_once_but_only_with_evidence() {
        let slots = slots(1, 100);
        teach(&slots, 9, Duration::from_secs(3)).await;
        let permit = take(&slots);
        let waiter = acquire(&slots, 1);
        assert!(waiter.is_waiting(), "nine samples are no evidence");
        drop(waiter);
        permit.finish(slots.clock.now() + Duration::from_secs(3));
        let _permit = take(&slots);
        let refusal = acquire(&slots, 1).await.unwrap_err();
        assert_eq!(refusal.reason, Reason::QueueHopeless);
        assert_eq!(slots.stats().totals.hopeless, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn somebody_elses_line_makes_no_wait_hopeless() {
        let slots = slots(1, 100);
        teach(&slots, 10, Duration::from_millis(500)).await;
        let _permit = take(&slots);
        let line: Vec<Acquire> = (0..4).map(|_| acquire(&slots, 1)).collect();
        assert!(line.iter().all(Acquire::is_waiting));
        assert_eq!(acquire(&slots, 1).await.unwrap_err().reason, Reason::QueueHopeless);
        assert!(acquire(&slots, 2).is_waiting(), "a first request is next");
    }

    #[tokio::test(start_paused = true)]
    async fn zombies_hold_their_slots() {
        let slots = slots(2, 10);
        let mut left = take(&slots);
        left.zombie();
        left.zombie();
        let working = take(&slots);
        check(&slots, (1, 1, 0));
        let waiter = acquire(&slots, 1);
        check(&slots, (1, 1, 1));
        left.finish(slots.clock.now());
        check(&slots, (2, 0, 0));
        drop((waiter, working));
        check(&slots, (0, 0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn slots_kept_for_a_class_are_free_for_it_alone() {
        let slots = Slots::new(SlotsParams { reserve: [1, 0, 0, 1, 0], ..params(4, 10) }, Clock::system(), 1);
        let of = |class| slots.acquire(Ticket { class, ..Ticket::default() }, slots.clock.now());
        let normal = [of(Class::Normal).await.unwrap(), of(Class::Normal).await.unwrap()];
        let mut waits = of(Class::Normal);
        assert!(poll(&mut waits, &Arc::default()).is_pending(), "two are free, but not for this one");
        let clerk = of(Class::Interactive);
        assert!(!clerk.is_waiting(), "it passes who may not have it");
        let [clerk, job] = [clerk.await.unwrap(), of(Class::Batch).await.unwrap()];
        check(&slots, (4, 0, 1));
        let (mut second_clerk, mut second_job) = (of(Class::Interactive), of(Class::Batch));
        drop(job);
        assert!(poll(&mut second_clerk, &Arc::default()).is_pending(), "it is kept for jobs");
        let Poll::Ready(Ok(mut job)) = poll(&mut second_job, &Arc::default()) else { panic!("a job's slot to a job") };
        job.zombie();
        assert!(of(Class::Batch).is_waiting(), "a zombie uses what is kept for its class");
        drop(normal);
        assert!(poll(&mut second_clerk, &Arc::default()).is_ready() && poll(&mut waits, &Arc::default()).is_ready());
        drop((clerk, job, second_clerk, waits));
        check(&slots, (0, 0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_queue_of_others_does_not_keep_a_class_from_its_own_slot() {
        let slots = Slots::new(SlotsParams { reserve: [0, 0, 0, 1, 0], ..params(2, 1) }, Clock::system(), 1);
        let of = |class| slots.acquire(Ticket { class, ..Ticket::default() }, slots.clock.now());
        let _clerk = of(Class::Interactive).await.unwrap();
        let waits = of(Class::Interactive);
        assert!(waits.is_waiting());
        let job = of(Class::Batch).await.unwrap();
        check(&slots, (2, 0, 1));
        assert_eq!(of(Class::Batch).await.unwrap_err().reason, Reason::QueueFull);
        drop(job);
        check(&slots, (1, 0, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_storm_of_logons_takes_neither_the_slots_nor_the_queue() {
        let slots = Slots::new(params(6, 30), Clock::system(), 1);
        let of = |class, consumer| slots.acquire(Ticket { class, consumer, ..Ticket::default() }, slots.clock.now());
        let mut logons: Vec<Acquire> = (0..100).map(|consumer| of(Class::Logon, consumer)).collect();
        assert_eq!(logons.iter().filter(|logon| logon.is_waiting()).count(), 10, "a third of the queue");
        check(&slots, (2, 0, 10));
        let clerks: Vec<Acquire> = (0..4).map(|consumer| of(Class::Normal, consumer)).collect();
        assert!(clerks.iter().all(|clerk| !clerk.is_waiting()), "the slots that logons may not have are free at once");
        let mut clerk = of(Class::Normal, 9);
        assert!(clerk.is_waiting());
        let waiting = logons.split_off(2);
        let first = logons.pop().unwrap().await.unwrap();
        drop(first);
        let Poll::Ready(Ok(clerk)) = poll(&mut clerk, &Arc::default()) else { panic!("whoever is in goes first") };
        check(&slots, (6, 0, 10));
        drop((clerk, clerks));
        check(&slots, (2, 0, 9));
        drop((logons, waiting));
        check(&slots, (0, 0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_logon_that_weighs_more_than_its_cap_leaves_holds_up_nobody() {
        for first in [Class::Logon, Class::Normal, Class::Interactive] {
            let cap = with(UNCAPPED, first, 3);
            let slots = Slots::new(SlotsParams { cap, ..params(16, 30) }, Clock::system(), 1);
            let of = |class, cost| slots.acquire(Ticket { class, cost, ..Ticket::default() }, slots.clock.now());
            let held = of(first, 2);
            let waits = of(first, 2);
            assert!(waits.is_waiting(), "of its three slots one is left");
            for class in Class::ALL.into_iter().filter(|class| *class != first) {
                assert!(!of(class, 1).is_waiting(), "{class:?} behind {first:?}");
            }
            assert!(of(first, 1).is_waiting(), "nobody of its own class overtakes it");
            let _ = held.await.unwrap();
            drop(waits.await.unwrap());
            check(&slots, (0, 0, 0));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_logon_that_its_few_slots_cannot_serve_in_time_is_refused_at_once() {
        let slots = slots(12, 600);
        teach(&slots, 10, Duration::from_secs(1)).await;
        let of = |class, consumer| slots.acquire(Ticket { class, consumer, ..Ticket::default() }, slots.clock.now());
        let taken: Vec<Acquire> = (0..2).map(|consumer| of(Class::Logon, consumer)).collect();
        let mut all: Vec<Acquire> = Vec::new();
        while all.len() < 100 {
            all.push(of(Class::Logon, 7));
            if !all[all.len() - 1].is_waiting() {
                break;
            }
        }
        let refused = all.pop().unwrap().await.unwrap_err();
        assert_eq!(refused.reason, Reason::QueueHopeless);
        assert_eq!(all.len(), 4, "two slots do four in two seconds");
        let after = refused.retry_after.unwrap();
        assert!(after >= Duration::from_millis(1990) && after <= Duration::from_secs(3), "{after:?}");
        drop((taken, all));
        check(&slots, (0, 0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_capped_class_is_judged_by_its_own_pace() {
        let slots = slots(12, 600);
        let of = |class, consumer| slots.acquire(Ticket { class, consumer, ..Ticket::default() }, slots.clock.now());
        for (class, millis) in [(Class::Logon, 1000), (Class::Normal, 10)] {
            for _ in 0..50 {
                let permit = of(class, 1).await.unwrap();
                tokio::time::advance(Duration::from_millis(millis)).await;
                permit.finish(slots.clock.now());
            }
        }
        let logons: Vec<Acquire> = (0..20).map(|_| of(Class::Logon, 7)).collect();
        assert_eq!(slots.stats().queued, 4, "two at a time, a second each, for two seconds");
        assert_eq!(slots.stats().totals.hopeless, 14);
        drop(logons);
        check(&slots, (0, 0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn in_shadow_nobody_waits_and_what_would_have_become_of_each_is_known() {
        let shadow = |queue| SlotsParams { mode: Mode::Shadow, ..params(2, queue) };
        let slots = Slots::new(shadow(3), Clock::system(), 1);
        let mut permits: Vec<Permit> = Vec::new();
        let full = Some(Excess::Refused(Reason::QueueFull));
        for expected in [None, None, Some(Excess::Waits), Some(Excess::Waits), Some(Excess::Waits), full, full] {
            let permit = acquire(&slots, 1).await.unwrap();
            assert_eq!(permit.excess(), expected);
            permits.push(permit);
        }
        check(&slots, (7, 0, 0));
        assert_eq!(slots.stats().totals.shadowed, 5);
        permits.truncate(2);
        slots.retune(params(2, 3));
        let (mut waiter, other) = (acquire(&slots, 2), acquire(&slots, 3));
        assert!(poll(&mut waiter, &Arc::default()).is_pending(), "now they count");
        slots.retune(shadow(3));
        let Poll::Ready(Ok(permit)) = poll(&mut waiter, &Arc::default()) else { panic!("now they do not any more") };
        drop(other);
        check(&slots, (3, 0, 0));
        drop((permit, permits));
        check(&slots, (0, 0, 0));
        teach(&slots, 10, Duration::from_secs(3)).await;
        let _taken = [take(&slots), take(&slots), acquire(&slots, 1).await.unwrap()];
        let hopeless = acquire(&slots, 1).await.unwrap();
        assert_eq!(hopeless.excess(), Some(Excess::Refused(Reason::QueueHopeless)));
    }

    fn adaptive(slots: usize, policy: Policy) -> SlotsParams {
        SlotsParams {
            adaptive: Some(AdaptiveParams { policy, min: 1, max: 40, mode: Mode::Enforce }),
            ..params(slots, 10)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_lower_limit_revokes_nothing_and_a_higher_one_wakes_who_waits() {
        let clock = Clock::system();
        let slots = Slots::new(adaptive(4, Policy::Aimd { slow: None }), clock.clone(), 1);
        let mut permits: Vec<Permit> = (0..4).map(|_| take(&slots)).collect();
        let mut waiters: Vec<Acquire> = (0..2).map(|consumer| acquire(&slots, consumer)).collect();
        let end = |mut permit: Permit, ending| {
            permit.ended(ending, Duration::from_millis(10));
            permit.finish(clock.now())
        };
        let shift = end(permits.pop().unwrap(), Ending::Dropped).unwrap();
        assert_eq!((shift.from, shift.to, shift.cause), (4, 3, Cause::Dropped));
        check(&slots, (3, 0, 2));
        assert_eq!(slots.stats().slots, 3);
        end(permits.pop().unwrap(), Ending::Ignored);
        check(&slots, (3, 0, 1));
        tokio::time::advance(Duration::from_secs(1)).await;
        let Poll::Ready(Ok(first)) = poll(&mut waiters[0], &Arc::default()) else { panic!("it has a slot") };
        end(first, Ending::Ignored);
        check(&slots, (3, 0, 0));
        permits.truncate(1);
        for _ in 0..8 {
            let permit = take(&slots);
            end(permit, Ending::Success);
        }
        assert_eq!(slots.stats().slots, 4);
        drop((permits, waiters));
        check(&slots, (0, 0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_limit_has_learned_survives_a_reload_but_not_another_policy() {
        let slots = Slots::new(adaptive(20, Policy::Aimd { slow: None }), Clock::system(), 1);
        for _ in 0..5 {
            tokio::time::advance(Duration::from_millis(1)).await;
            let mut permit = take(&slots);
            permit.ended(Ending::Dropped, Duration::from_millis(1));
            permit.finish(slots.clock.now());
        }
        let learned = slots.stats().slots;
        assert!(learned < 13, "{learned}");
        slots.retune(SlotsParams { queue: 99, ..adaptive(30, Policy::Aimd { slow: None }) });
        assert_eq!(slots.stats().slots, learned);
        assert_eq!(slots.stats().limit.unwrap().drops, 5);
        slots.retune(adaptive(30, Policy::Gradient));
        assert_eq!(slots.stats().slots, 30);
        slots.retune(params(7, 10));
        assert_eq!((slots.stats().slots, slots.stats().limit), (7, None));
    }

    #[tokio::test(start_paused = true)]
    async fn a_reload_keeps_the_counts() {
        let slots = slots(3, 10);
        let mut permits = vec![take(&slots), take(&slots), take(&slots)];
        let waiters: Vec<Acquire> = (0..4).map(|consumer| acquire(&slots, consumer)).collect();
        slots.retune(params(1, 10));
        permits.truncate(1);
        check(&slots, (1, 0, 4));
        slots.retune(params(4, 10));
        check(&slots, (4, 0, 1));
        drop(permits);
        check(&slots, (4, 0, 0));
        drop(waiters);
        check(&slots, (0, 0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn an_expensive_request_waits_for_all_its_slots_and_nobody_passes_it() {
        let slots = slots(3, 10);
        let (first, second) = (take(&slots), take(&slots));
        let mut expensive = slots.acquire(Ticket { cost: 3, ..Ticket::default() }, slots.clock.now());
        assert!(expensive.is_waiting());
        let mut cheap = acquire(&slots, 9);
        assert!(
            slots.try_acquire(&Ticket::default(), slots.clock.now()).is_none(),
            "one is free, but not for this one"
        );
        drop(first);
        assert!(poll(&mut expensive, &Arc::default()).is_pending());
        drop(second);
        let Poll::Ready(Ok(permit)) = poll(&mut expensive, &Arc::default()) else { panic!("all three are free") };
        check(&slots, (3, 0, 1));
        assert!(poll(&mut cheap, &Arc::default()).is_pending());
        drop(permit);
        assert!(poll(&mut cheap, &Arc::default()).is_ready());
    }

    #[tokio::test(start_paused = true)]
    async fn an_expensive_waiter_that_leaves_unblocks_those_behind() {
        let slots = slots(2, 10);
        let _permit = take(&slots);
        let expensive = slots.acquire(Ticket { cost: 2, ..Ticket::default() }, slots.clock.now());
        let mut cheap = acquire(&slots, 9);
        assert!(poll(&mut cheap, &Arc::default()).is_pending());
        drop(expensive);
        assert!(poll(&mut cheap, &Arc::default()).is_ready());
    }

    /// Offers `per_second` requests of 100 ms to 10 slots for 20 s; how long those served waited, and how many were not.
    async fn offer(per_second: u32) -> (Vec<Duration>, usize) {
        let slots = slots(10, 1000);
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..20 * per_second {
            let slots = Arc::clone(&slots);
            tasks.spawn(async move {
                let permit = acquire(&slots, 1).await.ok()?;
                tokio::time::sleep(Duration::from_millis(100)).await;
                let waited = permit.waited();
                permit.finish(slots.clock.now());
                Some(waited)
            });
            tokio::time::sleep(Duration::from_secs(1) / per_second).await;
        }
        let results = tasks.join_all().await;
        check(&slots, (0, 0, 0));
        let refused = results.iter().filter(|waited| waited.is_none()).count();
        (results.into_iter().flatten().collect(), refused)
    }

    #[tokio::test(start_paused = true)]
    async fn a_load_the_backend_can_bear_is_all_served() {
        let (waits, refused) = offer(80).await;
        assert_eq!((waits.len(), refused), (1600, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn under_overload_the_slots_stay_busy_and_the_queue_is_kept_shorter_than_the_timeout() {
        let (mut waits, refused) = offer(125).await;
        assert!(refused >= 400 && waits.len() >= 1900, "{refused} refused, {} served", waits.len());
        waits.sort();
        let median = waits[waits.len() / 2];
        assert!(median < Duration::from_millis(1000), "{median:?}");
    }

    #[test]
    fn threads_share_the_slots_and_nobody_is_forgotten() {
        let slots =
            Slots::new(SlotsParams { timeout: Duration::from_secs(3600), ..params(2, 100) }, Clock::system(), 1);
        let inside = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for consumer in 0..4 {
                let (slots, inside) = (&slots, &inside);
                scope.spawn(move || {
                    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
                    runtime.block_on(async {
                        for _ in 0..500 {
                            let permit = acquire(slots, consumer).await.unwrap();
                            assert!(inside.fetch_add(1, Ordering::SeqCst) < 2);
                            tokio::task::yield_now().await;
                            inside.fetch_sub(1, Ordering::SeqCst);
                            permit.finish(slots.clock.now());
                        }
                    });
                });
            }
        });
        check(&slots, (0, 0, 0));
        assert_eq!(slots.stats().totals.granted, 2000);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Acquire { consumer: u64, class: usize, cost: u32 },
        Poll { nth: usize },
        Cancel { nth: usize },
        Drop { nth: usize },
        Finish { nth: usize, ending: usize },
        Zombie { nth: usize },
        Retune { slots: usize, queue: usize, policy: usize },
        Wait { millis: u64 },
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => (0_u64..4, 0_usize..5, 0_u32..6)
                .prop_map(|(consumer, class, cost)| Step::Acquire { consumer, class, cost }),
            4 => any::<usize>().prop_map(|nth| Step::Poll { nth }),
            1 => any::<usize>().prop_map(|nth| Step::Cancel { nth }),
            1 => any::<usize>().prop_map(|nth| Step::Drop { nth }),
            3 => (any::<usize>(), 0_usize..3).prop_map(|(nth, ending)| Step::Finish { nth, ending }),
            1 => any::<usize>().prop_map(|nth| Step::Zombie { nth }),
            1 => (0_usize..6, 0_usize..8, 0_usize..3)
                .prop_map(|(slots, queue, policy)| Step::Retune { slots, queue, policy }),
            2 => (0_u64..1500).prop_map(|millis| Step::Wait { millis }),
        ]
    }

    async fn run(steps: Vec<Step>) {
        let slots = slots(4, 8);
        let mut acquires: Vec<Acquire> = Vec::new();
        let mut permits: Vec<Permit> = Vec::new();
        let (mut kept, mut cap, mut held) = (NONE, CAPS, NONE);
        for step in steps {
            let before = slots.stats();
            match step {
                Step::Acquire { consumer, class, cost } => {
                    let ticket = Ticket { consumer, class: Class::ALL[class], cost, ..Ticket::default() };
                    acquires.push(slots.acquire(ticket, slots.clock.now()));
                }
                Step::Poll { nth } if !acquires.is_empty() => {
                    let index = nth % acquires.len();
                    if let Poll::Ready(result) = poll(&mut acquires[index], &Arc::default()) {
                        drop(acquires.swap_remove(index));
                        permits.extend(result);
                    }
                }
                Step::Cancel { nth } if !acquires.is_empty() => drop(acquires.swap_remove(nth % acquires.len())),
                Step::Drop { nth } if !permits.is_empty() => drop(permits.swap_remove(nth % permits.len())),
                Step::Finish { nth, ending } if !permits.is_empty() => {
                    let mut permit = permits.swap_remove(nth % permits.len());
                    permit.ended([Ending::Success, Ending::Ignored, Ending::Dropped][ending], Duration::from_secs(1));
                    permit.finish(slots.clock.now());
                }
                Step::Zombie { nth } if !permits.is_empty() => {
                    let index = nth % permits.len();
                    permits[index].zombie();
                }
                Step::Retune { slots: count, queue, policy } => {
                    let policies = [None, Some(Policy::Gradient), Some(Policy::Aimd { slow: None })];
                    let adaptive =
                        policies[policy].map(|policy| AdaptiveParams { policy, min: 1, max: 5, mode: Mode::Enforce });
                    // What is kept has to leave something for everybody.
                    kept = if adaptive.is_none() && count > 2 { [1, 0, 0, 1, 0] } else { NONE };
                    cap = with(UNCAPPED, Class::Logon, 1 + count as u32 / 2);
                    slots.retune(SlotsParams { adaptive, reserve: kept, cap, ..params(count, queue) });
                }
                Step::Wait { millis } => tokio::time::advance(Duration::from_millis(millis)).await,
                _ => {}
            }
            let stats = slots.stats();
            let most = slots.zombies().1 as usize;
            let (taken, taken_before) = (stats.busy + stats.zombie, before.busy + before.zombie);
            assert!(taken <= most.max(taken_before), "{taken} taken of {most}");
            assert!(taken >= permits.iter().map(|permit| permit.slots() as usize).sum(), "each permit counts");
            let zombies: u32 = permits.iter().filter(|permit| permit.is_zombie()).map(Permit::slots).sum();
            assert_eq!(stats.zombie, zombies as usize);
            assert!(stats.queued <= 8.max(before.queued));
            assert!(stats.queued == 0 || taken > 0 || most == 0, "work conserving");
            let now_held = slots.state.lock().reserve.held();
            for ((now, before), cap) in now_held.iter().zip(held).zip(cap) {
                assert!(*now <= cap.max(before), "{now_held:?} held of {cap:?}");
            }
            held = now_held;
        }
        drop((permits, acquires));
        check(&slots, (0, 0, 0));
        let state = slots.state.lock();
        assert!(state.decided.is_empty(), "nothing is left behind");
        assert_eq!((state.reserve.held(), state.reserve.own(1, 1)), (NONE, kept), "no class holds anything");
    }

    proptest! {
        #[test]
        fn slots_taken_are_given_back_after_every_schedule(steps in prop::collection::vec(step(), 1..200)) {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
            runtime.block_on(run(steps));
        }
    }
}
