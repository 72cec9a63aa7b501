//! Counters that cost a request next to nothing.
//!
//! Every worker adds into its own shard: a run of whole cache lines that no other worker writes. The sum is made
//! when it is read.
//!
//! An atomic add waits until all that was written before is out of the core's store buffer, which takes longer than much
//! of what is counted. So a thread that has taken the [`Seat`] of a worker writes what it alone writes by a plain load
//! and store. All others, threads of an embedder for one, share another shard of that worker, and add atomically.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::seat::Seat;

/// A block of counters for each worker: one that its thread writes alone, and one for whoever else counts for it.
#[derive(Debug)]
pub(super) struct Shards {
    counters: usize,
    own: Box<[Block]>,
    shared: Box<[Block]>,
}

/// Made by the first who counts.
type Block = OnceLock<Box<[Line]>>;

/// Two cache lines, since the prefetcher of common CPUs fetches lines in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Line([AtomicU64; LINE]);

impl Shards {
    /// `counters` counters for each of `workers` workers, all zero.
    pub(super) fn new(workers: usize, counters: usize) -> Self {
        let blocks = || (0..workers.max(1)).map(|_| Block::new()).collect();
        Self { counters, own: blocks(), shared: blocks() }
    }

    /// Adds to the counter `index` in the shard of `worker`.
    pub(super) fn add(&self, worker: usize, index: usize, amount: u64) {
        self.of(worker).add(index, amount);
    }

    /// The shard of `worker` that this thread may write. One that does not exist shares that of another.
    pub(super) fn of(&self, worker: usize) -> Shard<'_> {
        let own = if Seat::is_taken_here(worker) { self.own.get(worker) } else { None };
        let block = own.or_else(|| self.shared.get(worker)).or_else(|| self.shared.get(worker % self.shared.len()));
        let make = || (0..self.counters.div_ceil(LINE)).map(|_| Line::default()).collect();
        Shard { lines: block.map_or(&[], |block| block.get_or_init(make)), is_own: own.is_some() }
    }

    /// The sum of the counter `index` over all shards.
    pub(super) fn sum(&self, index: usize) -> u64 {
        let blocks = self.own.iter().chain(&self.shared);
        blocks
            .filter_map(|block| counter(block.get()?, index))
            .fold(0, |sum, counter| sum.wrapping_add(counter.load(Ordering::Relaxed)))
    }
}

/// The counters of one worker.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shard<'a> {
    lines: &'a [Line],
    /// Nobody else writes them.
    is_own: bool,
}

impl Shard<'_> {
    /// Adds to the counter `index`. One that does not exist counts nothing.
    pub(super) fn add(self, index: usize, amount: u64) {
        match counter(self.lines, index) {
            Some(counter) if self.is_own => {
                counter.store(counter.load(Ordering::Relaxed).wrapping_add(amount), Ordering::Relaxed);
            }
            Some(counter) => drop(counter.fetch_add(amount, Ordering::Relaxed)),
            None => {}
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
    fn nothing_is_lost_whoever_counts() {
        // Of one worker, two at a time want the seat; a third counts without.
        let shards = Shards::new(2, 1);
        let count = |seat: bool| {
            for _ in 0..100 {
                let _seat = seat.then(|| Seat::take(1));
                (0..100).for_each(|_| shards.add(1, 0, 1));
            }
        };
        std::thread::scope(|scope| {
            for seat in [true, true, false] {
                scope.spawn(move || count(seat));
            }
        });
        assert_eq!(shards.sum(0), 30_000);
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
