//! The retry budget of one upstream: retries are a small share of the requests, whatever goes wrong.
//!
//! Without it, retries multiply an outage: three tries of everything is three times the load on a backend that just
//! showed that it cannot bear one. Counted over the last ten seconds, as in Finagle's `RetryBudget`.

use std::ops::AddAssign;
use std::time::{Duration, Instant};

use crate::breaker::window::Window;

/// The budget of one upstream, to be kept under a lock by its owner and shared by all its requests.
#[derive(Debug)]
pub struct Budget {
    ratio: f64,
    /// Retries that are allowed in any case within [`WINDOW`].
    reserve: f64,
    window: Window<Counts>,
}

impl Budget {
    /// Allows retries up to `ratio` of the requests, and `min_per_second` in any case.
    pub fn new(ratio: f64, min_per_second: f64, now: Instant) -> Self {
        let reserve = min_per_second * WINDOW.as_secs_f64();
        Self { ratio, reserve, window: Window::new(WINDOW, now) }
    }

    /// Takes new numbers at a reload; what was counted stays.
    pub fn retune(&mut self, ratio: f64, min_per_second: f64) {
        self.ratio = ratio;
        self.reserve = min_per_second * WINDOW.as_secs_f64();
    }

    /// A request begins (not a retry).
    pub fn deposit(&mut self, now: Instant) {
        self.window.add(Counts { requests: 1, retries: 0 }, now);
    }

    /// Takes one retry out of the budget; false if it is used up.
    ///
    /// The reserve and the share do not add up: the larger of the two counts.
    pub fn withdraw(&mut self, now: Instant) -> bool {
        let Counts { requests, retries } = self.window.sum(now);
        let allowed = (f64::from(requests) * self.ratio).max(self.reserve);
        // The tolerance makes 0.1 per second for ten seconds one whole retry, whatever the rounding.
        let granted = f64::from(retries) + 1.0 <= allowed + 1e-9;
        if granted {
            self.window.add(Counts { requests: 0, retries: 1 }, now);
        }
        granted
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    requests: u32,
    retries: u32,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, more: Self) {
        self.requests = self.requests.saturating_add(more.requests);
        self.retries = self.retries.saturating_add(more.retries);
    }
}

/// Long enough to smooth bursts, short enough that yesterday's traffic pays for no retry today.
const WINDOW: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock::Clock;

    #[test]
    fn retries_are_a_share_of_the_requests_and_one_in_any_case() {
        let table = [(0, 1), (1, 1), (10, 1), (19, 1), (20, 2), (100, 10), (1000, 100)];
        for (requests, expected) in table {
            let now = Clock::system().now();
            let mut budget = Budget::new(0.1, 0.1, now);
            (0..requests).for_each(|_| budget.deposit(now));
            let granted = (0..1000).filter(|_| budget.withdraw(now)).count();
            assert_eq!(granted, expected, "{requests} requests");
        }
    }

    #[test]
    fn a_quiet_upstream_may_retry_once_in_ten_seconds() {
        let start = Clock::system().now();
        let mut budget = Budget::new(0.1, 0.1, start);
        let granted: Vec<u64> =
            (0..40).filter(|&second| budget.withdraw(start + Duration::from_secs(second))).collect();
        assert_eq!(granted, [0, 10, 20, 30]);
    }

    #[test]
    fn a_budget_of_nothing_grants_nothing() {
        let now = Clock::system().now();
        let mut budget = Budget::new(0.0, 0.0, now);
        (0..100).for_each(|_| budget.deposit(now));
        assert!(!budget.withdraw(now));
        budget.retune(0.1, 0.0);
        assert!(budget.withdraw(now), "a reload keeps what was counted");
    }

    proptest! {
        #[test]
        fn an_outage_is_never_multiplied(steps in prop::collection::vec((0_u64..500, any::<bool>()), 1..400)) {
            let start = Clock::system().now();
            let mut budget = Budget::new(0.1, 0.1, start);
            let (mut now, mut requests, mut retries) = (start, 0_u32, 0_u32);
            for (step, is_request) in steps {
                now += Duration::from_millis(step);
                if is_request {
                    budget.deposit(now);
                    requests += 1;
                } else {
                    retries += u32::from(budget.withdraw(now));
                }
                // The window forgets whole buckets, so a retry may come up to a tenth early: hence 9 s.
                let quiet = 1.0 + (now - start).as_secs_f64() / 9.0;
                let share = f64::from(requests) / 9.0;
                prop_assert!(f64::from(retries) <= share + quiet, "{retries} of {requests}");
            }
        }
    }
}
