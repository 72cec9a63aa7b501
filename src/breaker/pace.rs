//! What calls usually take, so that a slow one can be told where nobody has said a number. Pure.
//!
//! A call is slow if it took [`TIMES`] times as long as nineteen in twenty calls of its kind (a route) do: the 95th
//! percentile, since legacy answers differ by tens among themselves and a mean says little of them.
//!
//! The percentile is learned from the same calls that it judges. So it must not follow a backend that has just become slow,
//! and yet must follow one that has become slower for good, as at the closing of the month; or the breaker would open
//! again and again. Both are a matter of time, not of how many calls there are: the percentile at most doubles in
//! [`DOUBLES_IN`]. A slowdown of four times is slow for some minutes, the same tomorrow is not.
//!
//! It is estimated in logarithms by stochastic approximation (Robbins, Monro 1951): up by a step for a call above it, down
//! by a nineteenth of a step for one below, which is in balance where one in twenty is above. Only successes count: what
//! broke has its own share.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use foldhash::fast::FixedState;

/// What calls of each kind take.
#[derive(Debug, Default)]
pub(super) struct Pace {
    operations: HashMap<u64, Operation, FixedState>,
}

#[derive(Debug)]
enum Operation {
    /// So far, in seconds.
    New(Vec<f32>),
    Known {
        /// The logarithm of the percentile in seconds.
        percentile: f64,
        /// The last call.
        at: Instant,
    },
}

impl Pace {
    /// Whether a call of this kind that took so long is slow; it is learned afterwards.
    pub(super) fn is_slow(&mut self, operation: u64, took: Duration, now: Instant) -> bool {
        let is_full = self.operations.len() >= MOST_OPERATIONS && !self.operations.contains_key(&operation);
        let seen = self.operations.entry(if is_full { 0 } else { operation }).or_insert(Operation::New(Vec::new()));
        match seen {
            Operation::New(first) => {
                first.push(took.as_secs_f32());
                if first.len() >= FIRST {
                    first.sort_unstable_by(f32::total_cmp);
                    let percentile = first.get(FIRST * 19 / 20).copied().unwrap_or_default();
                    *seen = Operation::Known { percentile: logarithm(percentile.into()), at: now };
                }
                false
            }
            Operation::Known { percentile, at } => {
                let took = took.as_secs_f64();
                let bound = (TIMES * percentile.exp()).max(QUICK.as_secs_f64());
                let since = now.saturating_duration_since(*at).as_secs_f64();
                let step = (since / DOUBLES_IN.as_secs_f64() * std::f64::consts::LN_2).min(LARGEST_STEP);
                *percentile += if logarithm(took) > *percentile { step } else { -step / 19.0 };
                *at = now.max(*at);
                took >= bound
            }
        }
    }
}

fn logarithm(seconds: f64) -> f64 {
    seconds.max(SHORTEST).ln()
}

/// Slow is what takes so many times the percentile: more than a busy backend's queue adds, less than a hang.
const TIMES: f64 = 3.0;

/// Whatever is usual, nobody calls this slow: it is felt to be instantaneous (Nielsen, Usability Engineering, 1993).
const QUICK: Duration = Duration::from_millis(100);

/// The percentile grows by no more than a factor of two in this time.
const DOUBLES_IN: Duration = Duration::from_mins(10);

/// However rare calls are, one alone moves the percentile by no more than a fifth.
const LARGEST_STEP: f64 = 0.2;

/// Calls of a new kind before anything is said of it: the percentile is the second largest of them.
const FIRST: usize = 32;

/// In seconds; calls cannot be told apart below.
const SHORTEST: f64 = 1e-6;

/// Kinds of work; there are as many as routes, and this only bounds the memory.
const MOST_OPERATIONS: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::sim::dice::Dice;

    /// Calls of one kind that come `every` so often.
    struct World {
        pace: Pace,
        dice: Dice,
        now: Instant,
        every: Duration,
    }

    impl World {
        fn new(seed: u64, every: Duration) -> Self {
            Self { pace: Pace::default(), dice: Dice::new(seed), now: Clock::system().now(), every }
        }

        /// Calls for so long that take 10 to 300 ms, the longer the rarer, times `factor`; the share that was slow.
        fn share(&mut self, length: Duration, factor: f64) -> f64 {
            let (until, mut calls, mut slow) = (self.now + length, 0, 0);
            while self.now < until {
                let took = Duration::from_secs_f64(0.010 * 30_f64.powf(self.dice.unit()) * factor);
                slow += u32::from(self.pace.is_slow(1, took, self.now));
                (calls, self.now) = (calls + 1, self.now + self.every);
            }
            f64::from(slow) / f64::from(calls)
        }
    }

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn of_usual_calls_none_is_slow_and_of_a_hundred_times_slower_ones_all_are_at_once() {
        for (seed, every) in [(1, 5), (2, 100), (3, 2000)] {
            let mut world = World::new(seed, Duration::from_millis(every));
            world.share(HOUR, 1.0);
            assert!(world.share(HOUR, 1.0) < 0.001, "every {every} ms");
            let share = world.share(Duration::from_secs(60), 100.0);
            assert!(share > 0.95, "{share} of those a hundred times slower, every {every} ms");
        }
    }

    #[test]
    fn who_is_slower_for_good_is_not_slow_for_ever() {
        for every in [5, 100, 10_000, 120_000] {
            let mut world = World::new(4, Duration::from_millis(every));
            world.share(2 * HOUR, 1.0);
            assert!(world.share(Duration::from_secs(30), 10.0) > 0.2 || every >= 10_000, "every {every} ms");
            world.share(HOUR, 10.0);
            assert!(world.share(HOUR, 10.0) < 0.02, "every {every} ms");
        }
    }

    #[test]
    fn what_is_quick_is_never_slow_and_what_is_new_is_not_judged() {
        let mut pace = Pace::default();
        let now = Clock::system().now();
        let millis = Duration::from_millis;
        for number in 0..1000 {
            assert!(!pace.is_slow(1, millis(1 + number % 2), now));
        }
        assert!(!pace.is_slow(1, millis(99), now));
        assert!(pace.is_slow(1, millis(100), now));
        assert!((0..31).all(|_| !pace.is_slow(2, millis(60_000), now)));
    }

    #[test]
    fn one_wild_call_changes_little() {
        let mut pace = Pace::default();
        let mut now = Clock::system().now();
        for _ in 0..200 {
            now += Duration::from_secs(600);
            pace.is_slow(1, Duration::from_secs(1), now);
        }
        now += HOUR;
        assert!(pace.is_slow(1, Duration::MAX, now));
        assert!(pace.is_slow(1, Duration::from_secs(5), now + HOUR), "still far beyond the bound");
    }

    #[test]
    fn no_name_takes_memory_for_ever() {
        let (mut pace, now) = (Pace::default(), Clock::system().now());
        for operation in 0..10_000 {
            pace.is_slow(operation, Duration::from_secs(1), now);
        }
        assert!(pace.operations.len() <= MOST_OPERATIONS + 1);
    }
}
