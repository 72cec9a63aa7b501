//! Counters as they stand, for who looks at them twice: what happened between two looks is their difference. The live
//! page, `vaxel top` and `vaxel status` show that.

use std::time::Duration;

use super::names;

/// How many of a route's requests have ended, so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RouteTally {
    /// All.
    pub requests: u64,
    /// Those on a route that caches.
    pub cacheable: u64,
    /// Those of them that were answered from the store without waiting for the upstream.
    pub hits: u64,
    /// Those that vaxel answered by itself.
    pub refused: u64,
    /// How long they took, from the head of the request to the end of its answer.
    pub took: Buckets,
}

/// What an upstream has done, so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UpstreamTally {
    /// Finished attempts.
    pub attempts: u64,
    /// Those that say that it is sick: broken, or overloaded.
    pub failed: u64,
    /// Attempts that repeated one before.
    pub retries: u64,
    /// From the begin of an attempt to the head of its answer.
    pub took: Buckets,
}

/// What a consumer has asked for, so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ConsumerTally {
    /// Requests that were served.
    pub served: u64,
    /// Requests that vaxel refused.
    pub refused: u64,
    /// Time upstreams worked for it.
    pub upstream: Duration,
    /// Time it waited for slots.
    pub queued: Duration,
}

/// How many durations were in each bucket of [`names::LATENCIES`], and above the last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Buckets(Vec<u64>);

impl RouteTally {
    /// Both together.
    pub fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.cacheable += other.cacheable;
        self.hits += other.hits;
        self.refused += other.refused;
        self.took.add(&other.took);
    }

    /// What has happened since it was `before`.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        Self {
            requests: self.requests.saturating_sub(before.requests),
            cacheable: self.cacheable.saturating_sub(before.cacheable),
            hits: self.hits.saturating_sub(before.hits),
            refused: self.refused.saturating_sub(before.refused),
            took: self.took.since(&before.took),
        }
    }

    /// The share (0 to 1) of the requests to routes that cache that were answered from the store; none: no requests.
    pub fn hit_ratio(&self) -> Option<f64> {
        (self.cacheable > 0).then(|| self.hits as f64 / self.cacheable as f64)
    }
}

impl UpstreamTally {
    /// What has happened since it was `before`.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        Self {
            attempts: self.attempts.saturating_sub(before.attempts),
            failed: self.failed.saturating_sub(before.failed),
            retries: self.retries.saturating_sub(before.retries),
            took: self.took.since(&before.took),
        }
    }
}

impl ConsumerTally {
    /// What has happened since it was `before`.
    #[must_use]
    pub const fn since(&self, before: &Self) -> Self {
        Self {
            served: self.served.saturating_sub(before.served),
            refused: self.refused.saturating_sub(before.refused),
            upstream: self.upstream.saturating_sub(before.upstream),
            queued: self.queued.saturating_sub(before.queued),
        }
    }
}

impl Buckets {
    pub(super) const fn new(counts: Vec<u64>) -> Self {
        Self(counts)
    }

    pub(super) fn add(&mut self, other: &Self) {
        if self.0.len() < other.0.len() {
            self.0.resize(other.0.len(), 0);
        }
        self.0.iter_mut().zip(&other.0).for_each(|(count, more)| *count += more);
    }

    fn since(&self, before: &Self) -> Self {
        let earlier = before.0.iter().copied().chain(std::iter::repeat(0));
        Self(self.0.iter().zip(earlier).map(|(now, before)| now.saturating_sub(before)).collect())
    }

    /// The duration that a share `q` (0 to 1) of them did not exceed; `None`: there were none. Within a bucket they are
    /// taken to lie evenly, and above the last bound at it, as Prometheus' `histogram_quantile` does.
    pub fn quantile(&self, q: f64) -> Option<Duration> {
        let all: u64 = self.0.iter().sum();
        if all == 0 {
            return None;
        }
        let rank = q.clamp(0.0, 1.0) * all as f64;
        let (mut below, mut lower) = (0.0, Duration::ZERO);
        for (count, bound) in self.0.iter().zip(names::LATENCIES) {
            let count = *count as f64;
            if count > 0.0 && below + count >= rank {
                return Some(lower + (*bound - lower).mul_f64(((rank - below) / count).clamp(0.0, 1.0)));
            }
            below += count;
            lower = *bound;
        }
        Some(lower)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Durations in milliseconds to buckets.
    fn buckets(all: &[f64]) -> Buckets {
        let mut counts = vec![0; names::LATENCIES.len() + 1];
        for ms in all {
            let took = Duration::from_secs_f64(ms / 1000.0);
            counts[names::LATENCIES.partition_point(|bound| *bound < took)] += 1;
        }
        Buckets(counts)
    }

    fn check(all: &[f64], q: f64, expected: Option<f64>) {
        let found = buckets(all).quantile(q).map(|took| took.as_secs_f64() * 1000.0);
        let near = match (found, expected) {
            (Some(found), Some(expected)) => (found - expected).abs() < 1e-6,
            (found, expected) => found == expected,
        };
        assert!(near, "{all:?} {q}: {found:?}, not {expected:?}");
    }

    #[test]
    fn a_quantile_lies_in_the_bucket_that_holds_it() {
        check(&[], 0.5, None);
        check(&[0.05], 1.0, Some(0.1));
        check(&[7.0], 0.5, Some(7.5));
        check(&[7.0, 7.0], 1.0, Some(10.0));
        check(&[7.0, 300.0, 300.0, 300.0], 0.25, Some(10.0));
        check(&[7.0, 300.0, 300.0, 300.0], 1.0, Some(500.0));
        check(&[100_000.0], 0.5, Some(60_000.0));
        check(&[7.0, 100_000.0], 0.0, Some(5.0));
    }

    #[test]
    fn what_happened_is_the_difference() {
        let first = RouteTally { requests: 5, cacheable: 4, hits: 1, refused: 1, took: buckets(&[7.0, 7.0]) };
        let mut second = first.clone();
        second.add(&RouteTally { requests: 2, cacheable: 2, hits: 1, refused: 0, took: buckets(&[300.0]) });
        let between = second.since(&first);
        assert_eq!((between.requests, between.hits, between.hit_ratio()), (2, 1, Some(0.5)));
        assert_eq!(between.took, buckets(&[300.0]));
        assert_eq!(first.since(&second), RouteTally { took: buckets(&[]), ..RouteTally::default() });
        assert_eq!(second.since(&RouteTally::default()), second, "the first look");
    }
}
