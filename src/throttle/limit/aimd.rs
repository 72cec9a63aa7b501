//! Additive increase, multiplicative decrease: one slot more for every four turns of all slots that were answered well, a
//! tenth less for each turn in which the backend said "too much". For backends that do say so (429, 503, a timeout); one
//! that silently queues has to be watched by its latency.

use std::time::{Duration, Instant};

use super::{BACKOFF, Bounds, Cause, Ending, Reading, Sample, whole};

#[derive(Debug)]
pub(super) struct Aimd {
    bounds: Bounds,
    limit: f64,
    slow: Option<Duration>,
    /// What was sent before says nothing about the limit that holds since.
    since: Instant,
    answers: u32,
}

impl Aimd {
    pub(super) fn new(bounds: Bounds, start: u32, slow: Option<Duration>, now: Instant) -> Self {
        Self { bounds, limit: bounds.hold(f64::from(start)), slow, since: now, answers: 0 }
    }

    pub(super) fn retune(&mut self, bounds: Bounds, slow: Option<Duration>) {
        self.limit = bounds.hold(self.limit);
        (self.bounds, self.slow) = (bounds, slow);
    }

    pub(super) const fn limit(&self) -> f64 {
        self.limit
    }

    pub(super) fn restore(&mut self, slots: f64) {
        self.limit = self.bounds.hold(slots);
    }

    pub(super) fn slots(&self) -> u32 {
        whole(self.limit)
    }

    pub(super) fn record(&mut self, sample: &Sample, now: Instant) -> Option<(Cause, Reading)> {
        let is_slow = self.slow.is_some_and(|slow| sample.took > slow);
        let in_flight = f64::from(sample.in_flight);
        let cause = match sample.ending {
            Ending::Ignored => return None,
            // One decrease for each turn, whatever it took with it.
            _ if sample.began < self.since => return None,
            Ending::Success if !is_slow => {
                self.answers = self.answers.saturating_add(1);
                if in_flight < self.limit / 2.0 {
                    return None;
                }
                self.limit = self.bounds.hold(self.limit + PATIENT / self.limit);
                Cause::Room
            }
            Ending::Success | Ending::Dropped => {
                self.limit = self.bounds.hold(self.limit * BACKOFF);
                self.since = now;
                Cause::Dropped
            }
        };
        let answers = if cause == Cause::Room { self.answers } else { std::mem::take(&mut self.answers) };
        Some((cause, Reading { answers, in_flight, inflation: 0.0 }))
    }
}

/// Slots more for each turn. With a whole one (TCP's) a limit of ten would find out what is refused every other turn, and
/// three in a hundred requests would be the ones that do.
const PATIENT: f64 = 0.25;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    const BOUNDS: Bounds = Bounds { least: 2.0, most: 20.0 };

    /// Records `count` attempts that end like this with `in_flight` slots in use, each begun after the one before.
    fn feed(aimd: &mut Aimd, now: &mut Instant, count: u32, in_flight: u32, ending: Ending, took: Duration) {
        for _ in 0..count {
            let began = *now;
            *now += took;
            aimd.record(&Sample { operation: 0, began, took, in_flight, ending }, *now);
        }
    }

    /// Where a limit of 10 is after these attempts.
    #[track_caller]
    fn check(attempts: &[(u32, u32, Ending, u64)], expected: u32) {
        let mut now = Clock::system().now();
        let mut aimd = Aimd::new(BOUNDS, 10, Some(Duration::from_secs(1)), now);
        for (count, in_flight, ending, millis) in attempts {
            feed(&mut aimd, &mut now, *count, *in_flight, *ending, Duration::from_millis(*millis));
        }
        assert_eq!(aimd.slots(), expected, "{aimd:?}");
    }

    #[test]
    fn it_grows_by_a_slot_in_four_turns_and_shrinks_by_a_tenth_in_one() {
        check(&[(42, 10, Ending::Success, 10)], 11);
        check(&[(100, 4, Ending::Success, 10)], 10);
        check(&[(1, 10, Ending::Dropped, 10)], 9);
        check(&[(2, 10, Ending::Dropped, 10)], 8);
        check(&[(1, 10, Ending::Success, 1001)], 9);
        check(&[(100, 10, Ending::Ignored, 10)], 10);
        check(&[(1000, 20, Ending::Success, 10)], 20);
        check(&[(1000, 10, Ending::Dropped, 10)], 2);
    }

    #[test]
    fn what_was_under_way_at_a_decrease_does_not_decrease_again() {
        let start = Clock::system().now();
        let mut aimd = Aimd::new(BOUNDS, 10, None, start);
        for millis in 1..=10 {
            let took = Duration::from_millis(millis);
            let sample = Sample { operation: 0, began: start, took, in_flight: 10, ending: Ending::Dropped };
            aimd.record(&sample, start + took);
        }
        assert_eq!(aimd.slots(), 9);
    }
}
