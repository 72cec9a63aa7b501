//! Requests per time: GCRA, by the `governor` crate, over a bounded number of buckets of our own.
//!
//! A bucket is one number: when it is full again (the theoretical arrival time of ITU-T I.371, annex A). A request moves
//! that by what it weighs, and passes at once if the bucket holds as much.
//!
//! ```text
//!        now      now + delay             full_at (before)      full_at (after)
//! ────────┬───────────┬─────────────────────────┬───────────────────────┬──────▶
//!         │           └─────────── burst ───────┼───────────────────────┘
//!         └────────────── filled ───────────────┘└──────── weight ───────┘
//! ```
//! - **Reject**: what the bucket does not hold is refused, and leaves the bucket as it was.
//! - **Delay** ([`Delay`]): such a request reserves its place behind those before it, and passes `delay` later: the
//!   rate is shaped, not cut off. governor has no reservations; a turn is its decision as of the time at which it would
//!   let pass. Who leaves before his turn gives the place back if nobody is behind him; otherwise the others were told
//!   their times already, and it stays unused. How long one is held back is bounded, and how many are.
//!
//! governor's keyed stores grow with every key they see (governor#171), and keys come from the network. `Buckets` holds
//! a bounded number. A bucket that has filled up again says no more than none, and its place is taken over by the next
//! key that needs one; state that says something is never evicted, or whoever floods with new keys could wash his own
//! record away. Keys that find no place share a bucket with others in the same case; configured consumers always find
//! one.

use std::cell::Cell;
use std::hash::BuildHasher;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::StateStore;
use governor::{Quota, RateLimiter as Governor};
use parking_lot::Mutex;

use crate::clock::Clock;
use crate::refusal::Mode;
use crate::throttle::RateParams;
use crate::throttle::estimate::nanos;

/// What is over a rate waits for its turn, so long and so many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delay {
    /// The longest a request is held back; what would have to wait longer is refused.
    pub longest: Duration,
    /// Requests of all keys that are held back at the same time; further ones are refused.
    pub most: u32,
}

/// One rate, kept for each key by itself.
#[derive(Debug)]
pub struct RateLimiter {
    quota: Quota,
    /// Nanoseconds in which one request is refilled.
    interval: u64,
    /// Requests a full bucket holds.
    burst: NonZeroU32,
    buckets: Buckets,
    epoch: Instant,
    delay: Option<Delay>,
    /// Requests that are held back now.
    delayed: AtomicU32,
    mode: Mode,
}

/// The verdict on one request, and how its key stands afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rated {
    /// Whether it may pass.
    pub allowed: bool,
    /// How long it is held back before; zero if it may at once, or not at all.
    pub delay: Duration,
    /// What may come at once after it.
    pub remaining: u32,
    /// From when it may pass until the bucket is full again.
    pub reset: Duration,
    /// Until the same request would be allowed; zero if it is.
    pub retry_after: Duration,
}

/// When a request comes to a limiter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Come {
    /// Now.
    pub now: Instant,
    /// How long it is held back before.
    pub held: Duration,
}

/// A place among those held back. Dropped before its turn has come, it is given back as far as that hurts nobody.
#[derive(Debug)]
#[must_use = "a place that is dropped is given back"]
pub struct Reservation {
    limiter: Arc<RateLimiter>,
    key: u64,
    weight: u64,
    /// What the bucket was left at.
    full_at: u64,
    passed: bool,
}

impl RateLimiter {
    /// A limiter with a bucket of its own for about `capacity` keys (at most twice as many, 16 bytes each, taken when
    /// needed).
    pub fn new(params: &RateParams, capacity: usize, clock: &Clock) -> Self {
        // Rounded up to the nanosecond: never more than the limit. A bucket of more than a century would overflow.
        let interval = nanos(params.per).div_ceil(u64::from(params.limit.get())).clamp(1, LONGEST);
        let burst = u32::try_from(LONGEST / interval).unwrap_or(u32::MAX).min(params.burst.get());
        let burst = NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::with_period(Duration::from_nanos(interval)).expect("the interval is not zero");
        Self {
            quota: quota.allow_burst(burst),
            interval,
            burst,
            buckets: Buckets::new(capacity),
            epoch: clock.now(),
            delay: params.delay,
            delayed: AtomicU32::new(0),
            mode: params.mode,
        }
    }

    /// Whether its verdict counts.
    pub const fn mode(&self) -> Mode {
        self.mode
    }

    /// Requests a full bucket holds.
    pub const fn burst(&self) -> u32 {
        self.burst.get()
    }

    /// Whether, and how, what is over it waits for its turn.
    pub const fn delay(&self) -> Option<Delay> {
        self.delay
    }

    /// What [`RateLimiter::take`] would say. Takes nothing.
    pub fn peek(&self, key: u64, cost: NonZeroU32, come: Come, patience: Duration) -> Rated {
        let longest = self.delay.filter(|delay| self.delayed() < delay.most).map(|delay| delay.longest.min(patience));
        self.judge(key, cost, come, longest.unwrap_or_default(), false).0
    }

    /// Counts a request of `key` that weighs `cost`. A cost beyond the burst empties the full bucket: such a request is
    /// as rare as can be, not impossible. Where the limiter delays, what is over it gets a place among those held back,
    /// unless it would have to wait longer than that or its `patience` allows. It may pass [`Rated::delay`] after it
    /// comes.
    pub fn take(
        self: &Arc<Self>,
        key: u64,
        cost: NonZeroU32,
        come: Come,
        patience: Duration,
    ) -> (Rated, Option<Reservation>) {
        let (rated, _) = self.judge(key, cost, come, Duration::ZERO, true);
        let Some(Delay { longest, most }) = self.delay.filter(|_| !rated.allowed) else { return (rated, None) };
        let one_more = |delayed| (delayed < most).then_some(delayed + 1);
        if self.delayed.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_err() {
            return (rated, None);
        }
        let (rated, full_at) = self.judge(key, cost, come, longest.min(patience), true);
        if rated.delay.is_zero() {
            self.delayed.fetch_sub(1, Ordering::Relaxed);
            return (rated, None);
        }
        let weight = self.weight(cost);
        (rated, Some(Reservation { limiter: Arc::clone(self), key, weight, full_at, passed: false }))
    }

    /// Requests that are held back now.
    pub fn delayed(&self) -> u32 {
        self.delayed.load(Ordering::Relaxed)
    }

    /// The verdict, and when the bucket is full after it.
    fn judge(&self, key: u64, cost: NonZeroU32, come: Come, patience: Duration, counts: bool) -> (Rated, u64) {
        let now = nanos(come.now.saturating_duration_since(self.epoch));
        let at = now.saturating_add(nanos(come.held));
        let mut set = self.buckets.set(key).lock();
        let mut looked_at = if counts { 0 } else { set.stands(key) };
        let full_at = if counts { set.bucket(key, now) } else { &mut looked_at };
        // A bucket that was full before and one that is full now are the same.
        let filled = full_at.saturating_sub(at);
        let (allowed, wait, filled) = match self.decide(cost, filled) {
            Ok(after) => (true, 0, after),
            // As of its turn.
            Err(wait) if wait <= nanos(patience) => match self.decide(cost, filled.saturating_sub(wait)) {
                Ok(after) => (true, wait, after.saturating_add(wait)),
                Err(_) => (false, wait, filled),
            },
            Err(wait) => (false, wait, filled),
        };
        *full_at = at.saturating_add(filled).max(*full_at);
        let (delay, retry_after) = if allowed { (wait, 0) } else { (0, wait) };
        let rated = Rated {
            allowed,
            delay: Duration::from_nanos(delay),
            // Whole requests.
            remaining: u32::try_from(self.full().saturating_sub(filled) / self.interval).unwrap_or(u32::MAX),
            reset: Duration::from_nanos(filled - delay),
            retry_after: Duration::from_nanos(retry_after),
        };
        (rated, *full_at)
    }

    /// In how many nanoseconds a bucket is full after a request, which is so in `filled` before it.
    ///
    /// # Errors
    /// The nanoseconds after which the request would pass.
    fn decide(&self, cost: NonZeroU32, filled: u64) -> Result<u64, u64> {
        // governor keeps times relative to its own start. Ours is there for one decision: its start is the present.
        let view = View(Cell::new(filled));
        let governor: Governor<_, _, _, NoOpMiddleware<Nanos>> = Governor::new(self.quota, &view, Still);
        match governor.check_key_n(&(), cost.min(self.burst)).expect("the cost is within the burst") {
            Ok(()) => Ok(view.0.get()),
            Err(until) => Err(nanos(until.wait_time_from(Still::NOW))),
        }
    }

    /// Nanoseconds a request that costs so much takes to be refilled.
    fn weight(&self, cost: NonZeroU32) -> u64 {
        self.interval.saturating_mul(u64::from(cost.min(self.burst).get()))
    }

    /// Nanoseconds in which an empty bucket fills up.
    fn full(&self) -> u64 {
        self.interval.saturating_mul(u64::from(self.burst.get()))
    }
}

impl Reservation {
    /// Its turn has come.
    pub fn pass(mut self) {
        self.passed = true;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.limiter.delayed.fetch_sub(1, Ordering::Relaxed);
        if !self.passed {
            let mut set = self.limiter.buckets.set(self.key).lock();
            let full_at = set.known(self.key);
            if *full_at == self.full_at {
                *full_at = self.full_at.saturating_sub(self.weight);
            }
        }
    }
}

/// A bounded table: a key may be in one small set only, and a set has its own lock.
#[derive(Debug)]
struct Buckets {
    sets: Box<[Mutex<Set>]>,
    hasher: RandomState,
}

#[derive(Debug, Default)]
struct Set {
    own: Vec<Bucket>,
    /// Full at, for the keys without a place.
    shared: u64,
}

#[derive(Debug)]
struct Bucket {
    key: u64,
    /// When it is full again (GCRA's theoretical arrival time), in nanoseconds since the limiter's epoch.
    full_at: u64,
}

impl Buckets {
    fn new(capacity: usize) -> Self {
        // Sets are half full on average when `capacity` keys are in use; then hardly any overflows.
        let sets = capacity.div_ceil(WAYS / 2).max(1);
        Self { sets: (0..sets).map(|_| Mutex::default()).collect(), hasher: RandomState::default() }
    }

    fn set(&self, key: u64) -> &Mutex<Set> {
        let hash = u128::from(self.hasher.hash_one(key));
        // Maps the hash onto 0..sets without a division.
        let index = (hash * self.sets.len() as u128) >> 64;
        self.sets.get(index as usize).expect("a 64-bit fraction of the number of sets")
    }
}

impl Set {
    /// When the bucket that would count for `key` is full.
    fn stands(&self, key: u64) -> u64 {
        self.own.iter().find(|bucket| bucket.key == key).map_or(self.shared, |bucket| bucket.full_at)
    }

    /// The bucket that counts for `key`, without a new one.
    fn known(&mut self, key: u64) -> &mut u64 {
        let own = self.own.iter_mut().find(|bucket| bucket.key == key);
        own.map_or(&mut self.shared, |bucket| &mut bucket.full_at)
    }

    /// The bucket that counts for `key`: its own, else a new one or one to take over, else the shared one.
    fn bucket(&mut self, key: u64, now: u64) -> &mut u64 {
        let own = self.own.iter().position(|bucket| bucket.key == key);
        let place = own.or_else(|| {
            let is_known = key & ANONYMOUS == 0;
            // Another key may have lived off the shared bucket until now; so it begins with what is left there.
            let bucket = Bucket { key, full_at: if is_known { 0 } else { self.shared } };
            if let Some(place) = self.own.iter().position(|bucket| bucket.full_at <= now) {
                *self.own.get_mut(place)? = bucket;
                return Some(place);
            }
            (is_known || self.own.len() < WAYS).then(|| self.own.push(bucket))?;
            Some(self.own.len() - 1)
        });
        match place.and_then(|place| self.own.get_mut(place)) {
            Some(bucket) => &mut bucket.full_at,
            None => &mut self.shared,
        }
    }
}

/// One bucket as governor sees it for one decision, which is made at its time zero: nanoseconds until it is full.
struct View(Cell<u64>);

impl StateStore for &View {
    type Key = ();

    fn measure_and_replace<T, F, E>(&self, (): &(), decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let (verdict, filled) = decide(Some(Nanos::new(self.0.get())))?;
        self.0.set(filled.as_u64());
        Ok(verdict)
    }
}

/// governor's clock for one decision: it stands.
struct Still;

impl Still {
    const NOW: Nanos = Nanos::new(0);
}

impl governor::clock::Clock for Still {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        Self::NOW
    }
}

/// The mark of keys that come from the network. All others stand for configured consumers: there are no more of them
/// than the configuration names, and each has a bucket of its own, whoever floods.
pub const ANONYMOUS: u64 = 1 << 63;

/// Buckets in one set, beside those of configured consumers.
const WAYS: usize = 64;

/// A century in nanoseconds.
const LONGEST: u64 = 100 * 365 * 86_400 * 1_000_000_000;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    impl RateLimiter {
        /// Counts a request that is not held back.
        fn check_at(&self, key: u64, cost: NonZeroU32, now: Instant) -> Rated {
            self.judge(key, cost, Come { now, held: Duration::ZERO }, Duration::ZERO, true).0
        }

        fn check(&self, key: u64, cost: NonZeroU32) -> Rated {
            self.check_at(key, cost, Clock::system().now())
        }

        /// Keys that have a bucket of their own now, full buckets not yet taken over included.
        fn keys(&self) -> usize {
            self.buckets.sets.iter().map(|set| set.lock().own.len()).sum()
        }
    }

    fn params(limit: u32, per: Duration, burst: u32) -> RateParams {
        RateParams {
            limit: limit.try_into().unwrap(),
            per,
            burst: burst.try_into().unwrap(),
            delay: None,
            mode: Mode::Enforce,
        }
    }

    /// 10 per second, of which 5 at once.
    fn limiter(capacity: usize) -> RateLimiter {
        RateLimiter::new(&params(10, SECOND, 5), capacity, &Clock::system())
    }

    /// The same, where what is over it is held back.
    fn shaper(longest: Duration, most: u32) -> Arc<RateLimiter> {
        let delay = Some(Delay { longest, most });
        Arc::new(RateLimiter::new(&RateParams { delay, ..params(10, SECOND, 5) }, 100, &Clock::system()))
    }

    const fn at(now: Instant) -> Come {
        Come { now, held: Duration::ZERO }
    }

    const SECOND: Duration = Duration::from_secs(1);
    const ONE: NonZeroU32 = NonZeroU32::MIN;

    #[track_caller]
    fn check(rated: Rated, allowed: bool, remaining: u32, reset_millis: u64, retry_millis: u64) {
        let reset = Duration::from_millis(reset_millis);
        let retry_after = Duration::from_millis(retry_millis);
        assert_eq!(rated, Rated { allowed, delay: Duration::ZERO, remaining, reset, retry_after });
    }

    #[tokio::test(start_paused = true)]
    async fn the_numbers_say_how_the_bucket_stands() {
        let limiter = limiter(100);
        check(limiter.check(7, ONE), true, 4, 100, 0);
        check(limiter.check(7, 3.try_into().unwrap()), true, 1, 400, 0);
        check(limiter.check(7, 2.try_into().unwrap()), false, 1, 400, 100);
        check(limiter.check(7, ONE), true, 0, 500, 0);
        check(limiter.check(7, ONE), false, 0, 500, 100);
        tokio::time::advance(Duration::from_millis(30)).await;
        check(limiter.check(7, ONE), false, 0, 470, 70);
        tokio::time::advance(Duration::from_millis(70)).await;
        check(limiter.check(7, ONE), true, 0, 500, 0);
        check(limiter.check(8, ONE), true, 4, 100, 0);
        tokio::time::advance(Duration::from_secs(60)).await;
        check(limiter.check(7, ONE), true, 4, 100, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_says_what_a_check_would_and_takes_nothing() {
        let limiter = limiter(100);
        let now = Clock::system().now();
        for _ in 0..7 {
            let look = limiter.peek(7, ONE, at(now), Duration::MAX);
            assert_eq!(limiter.peek(7, ONE, at(now), Duration::MAX), look);
            assert_eq!(limiter.check_at(7, ONE, now), look);
        }
        limiter.peek(8, ONE, at(now), Duration::MAX);
        assert_eq!(limiter.keys(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_cost_beyond_the_burst_takes_the_whole_bucket() {
        let limiter = limiter(100);
        check(limiter.check(7, 50.try_into().unwrap()), true, 0, 500, 0);
        check(limiter.check(7, 50.try_into().unwrap()), false, 0, 500, 500);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_over_the_rate_gets_turns_one_behind_the_other() {
        let limiter = shaper(ms(300), 100);
        let now = Clock::system().now();
        let take = |limiter: &Arc<RateLimiter>| limiter.take(7, ONE, at(now), Duration::MAX);
        for _ in 0..5 {
            let (rated, place) = take(&limiter);
            assert!(rated.allowed && rated.delay.is_zero() && place.is_none());
        }
        let places: Vec<_> = (1..=3)
            .map(|turn| {
                let (rated, place) = take(&limiter);
                assert_eq!((rated.allowed, rated.delay, rated.remaining), (true, ms(100 * turn), 0));
                assert_eq!(rated.reset, ms(500), "when its turn has come the bucket is empty");
                place.expect("it is held back")
            })
            .collect();
        let (rated, place) = take(&limiter);
        assert!(place.is_none());
        assert_eq!((rated.allowed, rated.delay, rated.retry_after), (false, Duration::ZERO, ms(400)));
        assert_eq!(limiter.delayed(), 3);
        for place in places {
            place.pass();
        }
        assert_eq!(limiter.delayed(), 0);
        assert_eq!(limiter.peek(7, ONE, at(now), Duration::MAX).retry_after, ms(400), "turns taken stay taken");
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_is_held_back_beyond_his_patience_and_only_so_many_at_once() {
        let limiter = shaper(SECOND, 2);
        let now = Clock::system().now();
        let over = |key, patience| limiter.take(key, 5.try_into().unwrap(), at(now), patience);
        assert!(over(1, SECOND).1.is_none() && over(2, SECOND).1.is_none() && over(3, SECOND).1.is_none());
        let (impatient, place) = over(1, ms(499));
        assert!(!impatient.allowed && place.is_none() && limiter.delayed() == 0);
        let (first, second) = (over(1, ms(500)), over(2, SECOND));
        assert!(first.1.is_some() && second.1.is_some());
        assert!(!limiter.peek(3, ONE, at(now), SECOND).allowed);
        let (third, place) = over(3, SECOND);
        assert!(!third.allowed && place.is_none(), "two are held back already");
        drop(first);
        assert!(limiter.peek(3, ONE, at(now), SECOND).allowed);
        assert!(over(3, SECOND).1.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_leaves_before_his_turn_leaves_nothing_unless_others_are_behind_him() {
        let limiter = shaper(SECOND, 100);
        let now = Clock::system().now();
        let take = || limiter.take(7, ONE, at(now), Duration::MAX);
        for _ in 0..5 {
            assert!(take().1.is_none());
        }
        let (rated, place) = take();
        assert_eq!(rated.delay, ms(100));
        drop(place);
        let (rated, first) = take();
        assert_eq!(rated.delay, ms(100), "the place was given back");
        let (rated, second) = take();
        assert_eq!(rated.delay, ms(200));
        drop(first);
        let (rated, third) = take();
        assert_eq!(rated.delay, ms(300), "the second was told its time already");
        drop(third);
        drop(second);
        assert_eq!(take().0.delay, ms(200), "and the first one's place stays unused");
        assert_eq!(limiter.delayed(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_comes_later_is_judged_as_of_then_and_evicts_nobody() {
        let limiter = shaper(SECOND, 100);
        let now = Clock::system().now();
        let later = Come { now, held: ms(250) };
        let five = 5.try_into().unwrap();
        assert!(limiter.take(7, five, at(now), Duration::MAX).0.allowed);
        let (rated, place) = limiter.take(7, five, later, Duration::MAX);
        assert_eq!(rated.delay, ms(250), "half of the bucket will be back");
        assert!(place.is_some());
        for key in strangers(0..u64::try_from(WAYS).unwrap() * 20) {
            limiter.take(key, ONE, at(now), Duration::ZERO);
        }
        let before = limiter.keys();
        limiter.take(ANONYMOUS | 1_000_000, ONE, Come { now, held: ms(900) }, Duration::ZERO);
        assert!(limiter.keys() >= before);
        assert!(!limiter.check_at(ANONYMOUS, five, now).allowed, "its record is still there");
    }

    const fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    /// Keys from the network, as many as there are.
    fn strangers(range: std::ops::Range<u64>) -> impl Iterator<Item = u64> {
        range.map(|key| ANONYMOUS | key)
    }

    /// What the table takes.
    fn bytes(limiter: &RateLimiter) -> usize {
        let sets = &limiter.buckets.sets;
        let buckets: usize = sets.iter().map(|set| set.lock().own.capacity() * size_of::<Bucket>()).sum();
        size_of_val(&**sets) + buckets
    }

    #[tokio::test(start_paused = true)]
    async fn memory_is_bounded_under_a_million_keys() {
        let limiter = limiter(1024);
        let (mut allowed, now) = (0, Clock::system().now());
        for key in strangers(0..1_000_000) {
            allowed += u64::from(limiter.check_at(key, ONE, now).allowed);
        }
        assert_eq!(limiter.keys(), 2048);
        let sets = 1024 / (WAYS as u64 / 2);
        assert_eq!(allowed, 2048 + 5 * sets, "one of each with a bucket, a burst of each shared bucket");
        assert!(bytes(&limiter) <= 2048 * 16 + 32 * 48, "{} bytes", bytes(&limiter));
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_neither_evicts_a_consumers_record_nor_takes_its_place() {
        let limiter = limiter(1024);
        let now = Clock::system().now();
        for _ in 0..5 {
            assert!(limiter.check_at(1, ONE, now).allowed);
        }
        for key in strangers(0..1_000_000) {
            limiter.check_at(key, ONE, now);
        }
        assert!(!limiter.check_at(1, ONE, now).allowed, "its record is still there");
        for consumer in 2..100 {
            check(limiter.check_at(consumer, ONE, now), true, 4, 100, 0);
        }
        assert!(limiter.keys() <= 2048 + 99);
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_keys_evicts_no_record_and_full_buckets_are_taken_over() {
        let limiter = limiter(1);
        let [first, late] = [ANONYMOUS | 7, ANONYMOUS | 3000];
        for _ in 0..5 {
            assert!(limiter.check(first, ONE).allowed);
        }
        for key in strangers(1000..2000) {
            limiter.check(key, ONE);
        }
        assert!(!limiter.check(first, ONE).allowed, "its record is still there");
        assert!(!limiter.check(late, ONE).allowed, "the shared bucket is empty");
        tokio::time::advance(SECOND).await;
        check(limiter.check(late, ONE), true, 4, 100, 0);
        assert_eq!(limiter.keys(), WAYS);
    }

    #[tokio::test(start_paused = true)]
    async fn as_many_keys_as_the_capacity_have_a_bucket_each() {
        for capacity in [1, 5, 100, 4096] {
            let limiter = limiter(capacity);
            for key in strangers(0..capacity as u64) {
                assert!(limiter.check(key, 5.try_into().unwrap()).allowed, "key {key} of {capacity}");
            }
        }
    }

    #[test]
    fn extreme_rates_do_not_overflow() {
        let extremes =
            [(1, Duration::MAX, 1), (1, Duration::MAX, u32::MAX), (u32::MAX, SECOND, u32::MAX), (1, Duration::ZERO, 1)];
        for (limit, per, burst) in extremes {
            let limiter = RateLimiter::new(&params(limit, per, burst), 10, &Clock::system());
            for cost in [1, 1000, u32::MAX] {
                limiter.check(1, cost.try_into().unwrap());
            }
        }
    }

    proptest! {
        #[test]
        fn never_more_than_burst_and_rate_in_any_window(
            limit in 1_u32..100,
            per in 1_u64..10_000,
            burst in 1_u32..50,
            crowd in 0_u64..200,
            steps in prop::collection::vec((0_u64..2_000, 1_u32..5, any::<bool>()), 1..200),
        ) {
            let limiter = RateLimiter::new(&params(limit, Duration::from_millis(per), burst), 1, &Clock::system());
            let mut now = limiter.epoch;
            let mut passed: Vec<(Instant, u32)> = Vec::new();
            let mut strangers = 1000_u64;
            for (wait, cost, flood) in steps {
                now += Duration::from_millis(wait);
                if flood {
                    for _ in 0..crowd {
                        strangers += 1;
                        limiter.check_at(ANONYMOUS | strangers, ONE, now);
                    }
                }
                let rated = limiter.check_at(ANONYMOUS | 7, cost.try_into().unwrap(), now);
                prop_assert_eq!(rated.allowed, rated.retry_after.is_zero());
                if rated.allowed {
                    passed.push((now, cost.min(burst)));
                }
            }
            for (first, (begin, _)) in passed.iter().enumerate() {
                let mut sum = 0;
                for (end, cost) in &passed[first..] {
                    sum += cost;
                    let refilled = (*end - *begin).as_secs_f64() * f64::from(limit) / (per as f64 / 1000.0);
                    prop_assert!(f64::from(sum) <= f64::from(burst) + refilled + 1e-6, "{} in {:?}", sum, *end - *begin);
                }
            }
        }

        #[test]
        fn what_is_shaped_passes_in_order_and_never_faster_than_the_rate(
            limit in 1_u32..50,
            burst in 1_u32..10,
            longest in 0_u64..3000,
            most in 1_u32..20,
            steps in prop::collection::vec((0_u64..300, 1_u32..4, 0_u64..4000, 0_u8..4), 1..150),
        ) {
            let delay = Some(Delay { longest: ms(longest), most });
            let params = RateParams { delay, ..params(limit, SECOND, burst) };
            let limiter = Arc::new(RateLimiter::new(&params, 1, &Clock::system()));
            let mut now = limiter.epoch;
            let mut held: Vec<(Instant, u32, Reservation)> = Vec::new();
            let mut passed: Vec<(Instant, u32)> = Vec::new();
            for (wait, cost, patience, step) in steps {
                now += ms(wait);
                // Those whose turn has come pass, in the order in which they came.
                while held.first().is_some_and(|(turn, ..)| *turn <= now) {
                    let (turn, cost, place) = held.remove(0);
                    place.pass();
                    passed.push((turn, cost));
                }
                if step == 0 && !held.is_empty() {
                    // Somebody leaves.
                    drop(held.remove(patience as usize % held.len()));
                    continue;
                }
                let cost = cost.min(burst);
                let (rated, place) = limiter.take(7, cost.try_into().unwrap(), at(now), ms(patience));
                prop_assert_eq!(place.is_some(), !rated.delay.is_zero());
                prop_assert!(rated.delay <= ms(longest.min(patience)));
                match place {
                    Some(place) => {
                        let turn = now + rated.delay;
                        prop_assert!(held.last().is_none_or(|(last, ..)| *last < turn), "behind those before it");
                        held.push((turn, cost, place));
                    }
                    None if rated.allowed => {
                        prop_assert!(held.is_empty(), "nobody passes those held back");
                        passed.push((now, cost));
                    }
                    None => {}
                }
                prop_assert_eq!(limiter.delayed() as usize, held.len());
                prop_assert!(limiter.delayed() <= most);
            }
            passed.extend(held.iter().map(|(turn, cost, _)| (*turn, *cost)));
            prop_assert!(passed.is_sorted_by_key(|(turn, _)| *turn));
            for (first, (begin, _)) in passed.iter().enumerate() {
                let mut sum = 0;
                for (end, cost) in &passed[first..] {
                    sum += cost;
                    let refilled = (*end - *begin).as_secs_f64() * f64::from(limit);
                    prop_assert!(f64::from(sum) <= f64::from(burst) + refilled + 1e-6, "{sum} in {:?}", *end - *begin);
                }
            }
        }

        #[test]
        fn whoever_waits_as_told_is_allowed(
            limit in 1_u32..100,
            burst in 1_u32..50,
            costs in prop::collection::vec(1_u32..60, 1..50),
        ) {
            let limiter = RateLimiter::new(&params(limit, SECOND, burst), 10, &Clock::system());
            let mut now = limiter.epoch;
            for cost in costs {
                let cost = cost.try_into().unwrap();
                let rated = limiter.check_at(7, cost, now);
                if !rated.allowed {
                    let early = limiter.check_at(7, cost, now + rated.retry_after - Duration::from_nanos(1));
                    prop_assert!(!early.allowed);
                    now += rated.retry_after;
                    prop_assert!(limiter.check_at(7, cost, now).allowed);
                }
            }
        }
    }
}
