//! Requests per time: GCRA, by the `governor` crate, over buckets of our own.
//!
//! governor's keyed stores grow with every key they see (governor#171), and keys come from the network. `Buckets` holds
//! a bounded number. A bucket that has filled up again says no more than none, and its place is taken over by the next
//! key that needs one; state that says something is never evicted, or whoever floods with new keys could wash his own
//! record away. Keys that find no place share a bucket with others in the same case; configured consumers always find one.

use std::cell::Cell;
use std::hash::BuildHasher;
use std::num::NonZeroU32;
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

/// One rate, kept for each key by itself.
#[derive(Debug)]
pub struct RateLimiter {
    quota: Quota,
    buckets: Buckets,
    clock: Clock,
    epoch: Instant,
    mode: Mode,
}

/// The verdict on one request, and how its key stands afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rated {
    /// Whether it may pass.
    pub allowed: bool,
    /// What may come at once after it.
    pub remaining: u32,
    /// Until the bucket is full again.
    pub reset: Duration,
    /// Until the same request would be allowed; zero if it is.
    pub retry_after: Duration,
}

impl RateLimiter {
    /// A limiter with a bucket of its own for about `capacity` keys (at most twice as many, 16 bytes each, taken when
    /// needed).
    pub fn new(params: &RateParams, capacity: usize, clock: Clock) -> Self {
        // Rounded up to the nanosecond: never more than the limit.
        let interval = nanos(params.per).div_ceil(u64::from(params.limit.get())).max(1);
        // A bucket of more than a century would overflow the clock's nanoseconds.
        let burst = u32::try_from(LONGEST / interval).unwrap_or(u32::MAX).min(params.burst.get());
        let quota = Quota::with_period(Duration::from_nanos(interval.min(LONGEST))).expect("the interval is not zero");
        let quota = quota.allow_burst(NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN));
        let epoch = clock.now();
        Self { quota, buckets: Buckets::new(capacity), clock, epoch, mode: params.mode }
    }

    /// Whether its verdict counts.
    pub const fn mode(&self) -> Mode {
        self.mode
    }

    /// Counts a request of `key` that weighs `cost`. A cost beyond the burst empties the full bucket: such a request is
    /// as rare as can be, not impossible.
    pub fn check(&self, key: u64, cost: NonZeroU32) -> Rated {
        self.check_at(key, cost, self.clock.now())
    }

    /// As [`RateLimiter::check`], for a caller who has read the clock already.
    pub fn check_at(&self, key: u64, cost: NonZeroU32, now: Instant) -> Rated {
        self.judge(key, cost, now, true)
    }

    /// What [`RateLimiter::check_at`] would say. Takes nothing.
    pub fn peek_at(&self, key: u64, cost: NonZeroU32, now: Instant) -> Rated {
        self.judge(key, cost, now, false)
    }

    fn judge(&self, key: u64, cost: NonZeroU32, now: Instant, counts: bool) -> Rated {
        let view = View {
            buckets: &self.buckets,
            counts,
            now: nanos(now.saturating_duration_since(self.epoch)),
            filled: Cell::new(0),
        };
        // governor reads its clock where it decides and keeps times relative to its own start. Ours is a view for one
        // decision: its start is `now`, so that the verdict and the numbers below speak of the same instant.
        let governor: Governor<_, _, _, NoOpMiddleware<Nanos>> = Governor::new(self.quota, &view, Still);
        let cost = cost.min(self.quota.burst_size());
        let decision = governor.check_key_n(&key, cost).expect("the cost is within the burst");
        let retry_after = decision.err().map(|until| until.wait_time_from(Still::NOW));
        let filled = view.filled.get();
        Rated {
            allowed: retry_after.is_none(),
            remaining: self.remaining(filled),
            reset: Duration::from_nanos(filled),
            retry_after: retry_after.unwrap_or_default(),
        }
    }

    /// Keys that have a bucket of their own now, full buckets not yet taken over included.
    pub fn keys(&self) -> usize {
        self.buckets.sets.iter().map(|set| set.lock().own.len()).sum()
    }

    /// Whole requests in a bucket that is full in `filled` nanoseconds.
    fn remaining(&self, filled: u64) -> u32 {
        let interval = nanos(self.quota.replenish_interval());
        let full = interval.saturating_mul(u64::from(self.quota.burst_size().get()));
        u32::try_from(full.saturating_sub(filled) / interval).unwrap_or(u32::MAX)
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

/// The buckets as governor sees them for one decision, which is made at its time zero.
struct View<'a> {
    buckets: &'a Buckets,
    /// Whether the decision counts.
    counts: bool,
    /// Now, in nanoseconds since the limiter's epoch.
    now: u64,
    /// Out: nanoseconds until the bucket is full, after the decision.
    filled: Cell<u64>,
}

impl StateStore for &View<'_> {
    type Key = u64;

    fn measure_and_replace<T, F, E>(&self, key: &u64, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let mut set = self.buckets.set(*key).lock();
        let mut looked_at = if self.counts { 0 } else { set.stands(*key) };
        let full_at = if self.counts { set.bucket(*key, self.now) } else { &mut looked_at };
        // A bucket that was full before now and one that is full now are the same to GCRA.
        let filled = full_at.saturating_sub(self.now);
        self.filled.set(filled);
        let (verdict, filled) = decide(Some(Nanos::new(filled)))?;
        self.filled.set(filled.as_u64());
        *full_at = self.now.saturating_add(filled.as_u64());
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

    fn params(limit: u32, per: Duration, burst: u32) -> RateParams {
        RateParams { limit: limit.try_into().unwrap(), per, burst: burst.try_into().unwrap(), mode: Mode::Enforce }
    }

    /// 10 per second, of which 5 at once.
    fn limiter(capacity: usize) -> RateLimiter {
        RateLimiter::new(&params(10, SECOND, 5), capacity, Clock::system())
    }

    const SECOND: Duration = Duration::from_secs(1);
    const ONE: NonZeroU32 = NonZeroU32::MIN;

    #[track_caller]
    fn check(rated: Rated, allowed: bool, remaining: u32, reset_millis: u64, retry_millis: u64) {
        let reset = Duration::from_millis(reset_millis);
        let retry_after = Duration::from_millis(retry_millis);
        assert_eq!(rated, Rated { allowed, remaining, reset, retry_after });
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
        let now = limiter.clock.now();
        for _ in 0..7 {
            let look = limiter.peek_at(7, ONE, now);
            assert_eq!(limiter.peek_at(7, ONE, now), look);
            assert_eq!(limiter.check_at(7, ONE, now), look);
        }
        limiter.peek_at(8, ONE, now);
        assert_eq!(limiter.keys(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_cost_beyond_the_burst_takes_the_whole_bucket() {
        let limiter = limiter(100);
        check(limiter.check(7, 50.try_into().unwrap()), true, 0, 500, 0);
        check(limiter.check(7, 50.try_into().unwrap()), false, 0, 500, 500);
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
        let (mut allowed, now) = (0, limiter.clock.now());
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
        let now = limiter.clock.now();
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
            let limiter = RateLimiter::new(&params(limit, per, burst), 10, Clock::system());
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
            let limiter = RateLimiter::new(&params(limit, Duration::from_millis(per), burst), 1, Clock::system());
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
        fn whoever_waits_as_told_is_allowed(
            limit in 1_u32..100,
            burst in 1_u32..50,
            costs in prop::collection::vec(1_u32..60, 1..50),
        ) {
            let limiter = RateLimiter::new(&params(limit, SECOND, burst), 10, Clock::system());
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
