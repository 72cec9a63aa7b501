//! Counters that cost a request one uncontended add each.
//!
//! Every worker adds into its own shard: a run of whole cache lines that no other worker writes. The sum is made
//! when it is read. Adds are atomic all the same, since an embedder's thread may have to share a shard.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A block of counters, once per worker.
#[derive(Debug)]
pub(super) struct Shards(Box<[Box<[Line]>]>);

/// Two cache lines, since the prefetcher of common CPUs fetches lines in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Line([AtomicU64; LINE]);

impl Shards {
    /// `counters` counters for each of `workers` workers, all zero.
    pub(super) fn new(workers: usize, counters: usize) -> Self {
        let shard = || (0..counters.div_ceil(LINE)).map(|_| Line::default()).collect();
        Self((0..workers.max(1)).map(|_| shard()).collect())
    }

    /// Adds to the counter `index` in the shard of `worker`.
    pub(super) fn add(&self, worker: usize, index: usize, amount: u64) {
        self.of(worker).add(index, amount);
    }

    /// The shard of `worker`. One that does not exist (the thread of an embedder) shares a shard.
    pub(super) fn of(&self, worker: usize) -> Shard<'_> {
        let lines = self.0.get(worker).or_else(|| self.0.get(worker % self.0.len()));
        Shard(lines.map_or(&[], |lines| lines))
    }

    /// The sum of the counter `index` over all shards.
    pub(super) fn sum(&self, index: usize) -> u64 {
        self.0
            .iter()
            .filter_map(|lines| counter(lines, index))
            .fold(0, |sum, counter| sum.wrapping_add(counter.load(Ordering::Relaxed)))
    }
}

/// The counters of one worker.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shard<'a>(&'a [Line]);

impl Shard<'_> {
    /// Adds to the counter `index`. One that does not exist counts nothing.
    pub(super) fn add(self, index: usize, amount: u64) {
        if let Some(counter) = counter(self.0, index) {
            counter.fetch_add(amount, Ordering::Relaxed);
        }
    }
}

fn counter(lines: &[Line], index: usize) -> Option<&AtomicU64> {
    lines.get(index / LINE)?.0.get(index % LINE)
}

/// Where a histogram lies within a block of counters: one counter for each bound, one for what lies above the last,
/// one for the sum in nanoseconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    pub(super) first: usize,
    pub(super) bounds: &'static [Duration],
}

/// A histogram as it is read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Reading {
    /// How many observations were at most each bound.
    pub(super) cumulative: Vec<(Duration, u64)>,
    /// How many observations there were. Counted from the same reads, so that it never contradicts the buckets.
    pub(super) count: u64,
    /// Their sum.
    pub(super) sum: Duration,
}

impl Span {
    /// How many counters a histogram with `bounds` takes.
    pub(super) const fn len(bounds: &[Duration]) -> usize {
        bounds.len() + 2
    }

    /// Records `took`: two adds. Returns the bucket.
    pub(super) fn observe(self, shard: Shard<'_>, took: Duration) -> usize {
        // From the front: what takes long can bear it.
        let bucket = self.bounds.iter().position(|bound| took <= *bound).unwrap_or(self.bounds.len());
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        shard.add(self.first + bucket, 1);
        shard.add(self.first + self.bounds.len() + 1, nanos);
        bucket
    }

    /// How many were in each bucket, over all workers.
    pub(super) fn counts(self, shards: &Shards) -> impl Iterator<Item = u64> {
        (0..=self.bounds.len()).map(move |bucket| shards.sum(self.first + bucket))
    }

    /// The sum over all workers.
    pub(super) fn read(self, shards: &Shards) -> Reading {
        let mut count = 0;
        let mut cumulative = Vec::with_capacity(self.bounds.len());
        for (bucket, bound) in self.bounds.iter().enumerate() {
            count += shards.sum(self.first + bucket);
            cumulative.push((*bound, count));
        }
        count += shards.sum(self.first + self.bounds.len());
        let sum = Duration::from_nanos(shards.sum(self.first + self.bounds.len() + 1));
        Reading { cumulative, count, sum }
    }
}

/// Counters in a [`Line`].
const LINE: usize = 16;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BOUNDS: &[Duration] = &[Duration::from_millis(1), Duration::from_millis(10)];

    #[test]
    fn a_sum_is_over_all_workers_and_a_stranger_shares_a_shard() {
        let shards = Shards::new(3, 20);
        for worker in 0..7 {
            shards.add(worker, 17, 2);
        }
        assert_eq!((shards.sum(17), shards.sum(16), shards.sum(18)), (14, 0, 0));
    }

    #[test]
    fn no_counter_and_no_worker_is_not_a_panic() {
        let shards = Shards::new(0, 1);
        shards.add(9, 400, 1);
        assert_eq!(shards.sum(400), 0);
    }

    #[test]
    fn a_bound_belongs_to_its_bucket() {
        let shards = Shards::new(1, Span::len(BOUNDS));
        let span = Span { first: 0, bounds: BOUNDS };
        for micros in [0, 1_000, 1_001, 10_000, 10_001] {
            span.observe(shards.of(0), Duration::from_micros(micros));
        }
        let reading = span.read(&shards);
        assert_eq!(reading.cumulative, [(BOUNDS[0], 2), (BOUNDS[1], 4)]);
        assert_eq!((reading.count, reading.sum), (5, Duration::from_micros(22_002)));
    }

    proptest! {
        #[test]
        fn buckets_only_grow_and_end_at_the_count(
            observed in prop::collection::vec((0_usize..5, 0_u64..20_000), 0..50),
        ) {
            let shards = Shards::new(2, 3 + Span::len(BOUNDS));
            let span = Span { first: 3, bounds: BOUNDS };
            for (worker, micros) in &observed {
                span.observe(shards.of(*worker), Duration::from_micros(*micros));
            }
            let reading = span.read(&shards);
            prop_assert_eq!(reading.count, observed.len() as u64);
            prop_assert!(reading.cumulative.is_sorted_by_key(|(_, count)| *count));
            for (bound, count) in &reading.cumulative {
                let expected = observed.iter().filter(|(_, micros)| Duration::from_micros(*micros) <= *bound).count();
                prop_assert_eq!(*count, expected as u64);
            }
            prop_assert_eq!(reading.sum, observed.iter().map(|(_, micros)| Duration::from_micros(*micros)).sum::<Duration>());
        }
    }
}
