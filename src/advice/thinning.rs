//! How many of the answers to what is asked for often are looked at. What a hundred requests in a second would tell, the
//! first few of them tell, and one of many for the rest: each then stands for as many. What is asked for rarely is always
//! looked at, since there each request tells something.
//!
//! Counts are kept by the hash of the key in a small table without tags: keys that share a place are thinned together,
//! and the weights stay right.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// How often each key was asked for in the present second.
#[derive(Debug)]
pub struct Thinning {
    /// The second, in the upper half, and the count.
    counts: Box<[AtomicU32; PLACES]>,
}

impl Thinning {
    /// Nothing was asked for.
    pub fn new() -> Self {
        Self { counts: Box::new([const { AtomicU32::new(0) }; PLACES]) }
    }

    /// For how many requests one for `key` at `at` (since some fixed instant) stands; `None`: it is not looked at. `drawn`
    /// is a drawn number: callers that take turns must all be seen.
    pub fn weigh(&self, key: u64, at: Duration, drawn: impl FnOnce() -> u64) -> Option<u32> {
        let count = self.counts.get(key as usize % PLACES)?;
        let second = (at.as_secs() as u32) << 16;
        let before = count.load(Ordering::Relaxed);
        // Two workers may meet here: then one request more is looked at.
        let before = if before & 0xffff_0000 == second { before & 0xffff } else { 0 };
        count.store(second | (before + 1).min(0xffff), Ordering::Relaxed);
        match before {
            0..FREE => Some(1),
            _ => drawn().is_multiple_of(THINNED.into()).then_some(THINNED),
        }
    }
}

impl Default for Thinning {
    fn default() -> Self {
        Self::new()
    }
}

/// Places in the table: 4 KiB.
const PLACES: usize = 1024;

/// Requests for one key that are looked at in each second.
const FREE: u32 = 32;

/// Of those beyond, one of so many is.
const THINNED: u32 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn weights(key: u64, requests: u32, second: u64, table: &Thinning) -> Vec<Option<u32>> {
        let mut state = 1_u64;
        let mut drawn = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state >> 33
        };
        (0..requests).map(|_| table.weigh(key, Duration::from_secs(second), &mut drawn)).collect()
    }

    #[test]
    fn what_is_asked_for_rarely_is_always_looked_at() {
        let table = Thinning::new();
        for second in [0, 1, 2, 70_000] {
            assert_eq!(weights(7, FREE, second, &table), vec![Some(1); FREE as usize], "in second {second}");
        }
    }

    #[test]
    fn what_is_asked_for_often_is_looked_at_now_and_then_and_counts_for_the_rest() {
        let table = Thinning::new();
        let seen = weights(7, 20_000, 3, &table);
        let looks = seen.iter().flatten().count() as u32;
        assert!(looks < FREE + 20_000 / THINNED * 5 / 4, "{looks}");
        let told: u32 = seen.iter().flatten().sum();
        assert!(told.abs_diff(20_000) < 1_500, "{told}");
        assert_eq!(weights(8, 1, 3, &table), [Some(1)], "another key is not thinned with it");
    }
}
