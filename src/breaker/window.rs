//! A sliding window over time: ten buckets, each a tenth of the length, the oldest forgotten whole.
//!
//! What it holds is therefore what happened in the last 90 to 100 % of its length. Time is an argument; a reading that
//! is older than the newest one (two threads, one lock) counts into the newest bucket.

use std::ops::AddAssign;
use std::time::{Duration, Instant};

/// A sum over the last `length` of time. `T` is what is summed: plain counts.
#[derive(Debug, Clone)]
pub struct Window<T> {
    buckets: [T; BUCKETS],
    /// Their sum.
    total: T,
    width: Duration,
    /// Index of the newest bucket.
    newest: usize,
    /// When the newest bucket began.
    began: Instant,
    /// When the next one does.
    ends: Instant,
}

impl<T: Copy + Default + AddAssign> Window<T> {
    /// An empty window of this length; one shorter than ten microseconds is taken as that.
    pub fn new(length: Duration, now: Instant) -> Self {
        let width = (length / BUCKETS as u32).max(Duration::from_micros(1));
        Self { buckets: [T::default(); BUCKETS], total: T::default(), width, newest: 0, began: now, ends: now + width }
    }

    /// Adds to the present bucket.
    pub fn add(&mut self, more: T, now: Instant) {
        self.turn(now);
        if let Some(bucket) = self.buckets.get_mut(self.newest) {
            *bucket += more;
            self.total += more;
        }
    }

    /// The sum over the window.
    pub fn sum(&mut self, now: Instant) -> T {
        self.turn(now);
        self.total
    }

    /// What happened in the present tenth of the window.
    pub fn newest(&mut self, now: Instant) -> T {
        self.turn(now);
        self.buckets.get(self.newest).copied().unwrap_or_default()
    }

    /// Forgets everything.
    pub fn clear(&mut self, now: Instant) {
        self.buckets = [T::default(); BUCKETS];
        self.total = T::default();
        self.begin(now);
    }

    fn begin(&mut self, now: Instant) {
        self.began = now;
        self.ends = now + self.width;
    }

    /// Turns the ring to `now`, emptying each bucket it passes.
    fn turn(&mut self, now: Instant) {
        // To compare is a fifth of what it costs to subtract, and mostly enough.
        if now >= self.ends {
            self.turn_on(now);
        }
    }

    fn turn_on(&mut self, now: Instant) {
        let since = now.saturating_duration_since(self.began);
        if since >= self.width * BUCKETS as u32 {
            return self.clear(now);
        }
        let mut steps = since.as_nanos() / self.width.as_nanos();
        while steps > 0 {
            steps -= 1;
            self.begin(self.began + self.width);
            self.newest = (self.newest + 1) % BUCKETS;
            if let Some(bucket) = self.buckets.get_mut(self.newest) {
                *bucket = T::default();
            }
        }
        self.total = T::default();
        for bucket in &self.buckets {
            self.total += *bucket;
        }
    }
}

/// Enough that forgetting a bucket does not jerk the ratio, few enough that summing is nothing.
const BUCKETS: usize = 10;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock::Clock;

    const LENGTH: Duration = Duration::from_secs(30);

    #[test]
    fn what_happened_is_counted_for_nine_tenths_and_forgotten_after_the_whole() {
        let start = Clock::system().now();
        for (after, expected) in [(0, 1), (26_999, 1), (30_000, 0), (29_999, 1), (3_600_000, 0)] {
            let mut window = Window::new(LENGTH, start);
            window.add(1_u32, start);
            assert_eq!(window.sum(start + Duration::from_millis(after)), expected, "after {after} ms");
        }
    }

    #[test]
    fn the_newest_is_what_happened_in_the_present_tenth() {
        let start = Clock::system().now();
        let mut window = Window::new(LENGTH, start);
        for second in 0..7 {
            window.add(1_u32, start + Duration::from_secs(second));
        }
        assert_eq!(window.newest(start + Duration::from_millis(8_999)), 1);
        assert_eq!(window.newest(start + Duration::from_secs(9)), 0);
        assert_eq!(window.sum(start + Duration::from_secs(9)), 7);
    }

    #[test]
    fn an_older_reading_counts_into_the_newest_bucket() {
        let start = Clock::system().now();
        let mut window = Window::new(LENGTH, start);
        window.add(1_u32, start + Duration::from_secs(10));
        window.add(1, start + Duration::from_secs(1));
        assert_eq!(window.sum(start), 2);
    }

    proptest! {
        #[test]
        fn the_sum_lies_between_nine_tenths_and_the_whole(steps in prop::collection::vec(0_u64..8_000, 1..80)) {
            let start = Clock::system().now();
            let mut window = Window::new(LENGTH, start);
            let mut events = Vec::new();
            let mut now = start;
            for step in steps {
                now += Duration::from_millis(step);
                window.add(1_u32, now);
                events.push(now);
                let within = |length: Duration| events.iter().filter(|&&event| now - event < length).count() as u32;
                let sum = window.sum(now);
                prop_assert!(within(LENGTH * 9 / 10) <= sum && sum <= within(LENGTH), "{sum}");
            }
        }
    }
}
