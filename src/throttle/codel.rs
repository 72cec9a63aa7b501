//! When a standing queue must be shortened: CoDel (RFC 8289), one per flow as in FQ-CoDel (RFC 8290), so that a
//! consumer with a long queue never costs another one a request. Pure.
//!
//! Packets became requests, and a link became slots; two rules differ from the RFC for that reason:
//! - A burst that drains is no standing queue. A legacy backend needs seconds for what a link does in milliseconds, and a
//!   queue before it exists to absorb bursts; so the queue stands only when, after a whole interval above the target, it
//!   is no shorter than it was at the interval's begin.
//! - Never two drops in a row: with dequeues seconds apart the RFC's control law would catch up by emptying the queue.

use std::time::{Duration, Instant};

/// What counts as long, and for how long it has to last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CodelParams {
    /// A wait above this is long.
    pub target: Duration,
    /// Every wait during this time must be long before anything is dropped.
    pub interval: Duration,
}

/// What becomes of the waiter at the head of the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It gets its slot.
    Serve,
    /// It makes room for those behind it.
    Drop,
}

/// The state of one flow.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Codel {
    /// Since when every wait was long, and how many waited then.
    above: Option<(Instant, usize)>,
    /// While dropping: when the next drop is due.
    next: Option<Instant>,
    /// Drops in this spell; the next one is due after `interval / sqrt(drops)`.
    drops: u32,
    /// The last verdict was a drop.
    dropped: bool,
}

impl Codel {
    /// Decides on a waiter that leaves the queue after `sojourn`, leaving `behind` others of its flow.
    pub(crate) fn judge(&mut self, params: CodelParams, sojourn: Duration, behind: usize, now: Instant) -> Fate {
        if sojourn < params.target || behind == 0 {
            // The last one in line is always served: nobody gains by its drop (RFC 8289 section 4.2 keeps one packet).
            *self = Self::default();
            return Fate::Serve;
        }
        let drop = match self.next {
            Some(next) => now >= next && !self.dropped,
            None => self.stands(params.interval, behind, now),
        };
        self.dropped = drop;
        if !drop {
            return Fate::Serve;
        }
        self.drops = self.drops.saturating_add(1);
        self.next = Some(now + params.interval.div_f64(f64::from(self.drops).sqrt()));
        Fate::Drop
    }

    /// Has the queue been long for a whole interval without getting shorter?
    fn stands(&mut self, interval: Duration, behind: usize, now: Instant) -> bool {
        let (since, then) = *self.above.get_or_insert((now, behind));
        if now.saturating_duration_since(since) < interval {
            return false;
        }
        if behind < then {
            self.above = Some((now, behind));
            return false;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARAMS: CodelParams =
        CodelParams { target: Duration::from_millis(100), interval: Duration::from_millis(100) };

    /// Feeds one dequeue every 10 ms, each `(sojourn in ms, behind)`, and counts the drops.
    #[track_caller]
    fn check(dequeues: impl IntoIterator<Item = (u64, usize)>, expected: std::ops::RangeInclusive<usize>) {
        let mut codel = Codel::default();
        let mut now = crate::clock::Clock::system().now();
        let mut drops = 0;
        for (sojourn, behind) in dequeues {
            now += Duration::from_millis(10);
            drops += usize::from(codel.judge(PARAMS, Duration::from_millis(sojourn), behind, now) == Fate::Drop);
        }
        assert!(expected.contains(&drops), "{drops} drops");
    }

    #[test]
    fn short_waits_are_all_served() {
        check((0..1000).map(|_| (99, 50)), 0..=0);
    }

    #[test]
    fn the_last_in_line_is_served_however_long_it_waited() {
        check((0..1000).map(|_| (5000, 0)), 0..=0);
    }

    #[test]
    fn a_burst_that_drains_is_no_standing_queue() {
        check((0..200).map(|n| (n * 10, 200 - usize::try_from(n).unwrap())), 0..=0);
    }

    #[test]
    fn one_short_wait_begins_the_interval_anew() {
        check((0..1000).map(|n| (if n % 9 == 0 { 50 } else { 500 }, 50)), 0..=0);
    }

    #[test]
    fn a_standing_queue_is_dropped_from_ever_faster() {
        let mut codel = Codel::default();
        let start = crate::clock::Clock::system().now();
        let drops: Vec<u32> = (0..400)
            .filter(|n| {
                let now = start + Duration::from_millis(10) * *n;
                codel.judge(PARAMS, Duration::from_millis(300), 60, now) == Fate::Drop
            })
            .collect();
        assert_eq!(drops.first(), Some(&10), "the first after one interval");
        let gaps: Vec<u32> = drops.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(gaps.windows(2).all(|pair| pair[1] <= pair[0] + 1), "gaps shrink: {gaps:?}");
        assert!(gaps.iter().all(|gap| *gap >= 2), "never two in a row: {gaps:?}");
    }

    #[test]
    fn a_slow_backend_loses_at_most_every_second() {
        let mut codel = Codel::default();
        let start = crate::clock::Clock::system().now();
        let drops = (0..100)
            .filter(|n| {
                let now = start + Duration::from_secs(3) * *n;
                codel.judge(PARAMS, Duration::from_secs(2), 60, now) == Fate::Drop
            })
            .count();
        assert!(drops <= 50, "{drops} of 100");
    }
}
