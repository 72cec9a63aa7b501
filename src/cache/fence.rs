//! Write fences: what was read before a write ended is not taken for what is there after it.
//!
//! Each unsafe request moves the fence of what it may change twice: when it is sent, and when it has ended and may have
//! changed something. A read takes a [`Mark`] before it is sent. If the fence has moved since, its answer is given but
//! not stored: it may be older than the write. If only the ends are counted, that is the *generation* of the data: a
//! stored answer of an older one is outdated, whoever it belongs to, and a read of a newer one does not join a fill of
//! an older one.
//!
//! There is a fence for each group of routes that show the same data, and one for each URL (many URLs share one, which
//! costs a fetch now and then and never an answer). All are plain counters: a hit loads one or two of them.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::cache::key::Key;

/// What unsafe requests have done to one set of data.
#[derive(Debug, Default)]
pub struct Fence {
    /// Sent, and ended.
    moves: AtomicU64,
    /// Ended.
    generation: AtomicU64,
}

impl Fence {
    /// A write is about to be sent.
    pub fn sent(&self) {
        self.moves.fetch_add(1, Ordering::AcqRel);
    }

    /// A write has ended and may have changed something.
    pub fn ended(&self) {
        // In this order: whoever sees the new generation sees the move as well.
        self.moves.fetch_add(1, Ordering::AcqRel);
        self.generation.fetch_add(1, Ordering::AcqRel);
    }

    /// The generation of its data: how many writes have ended.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }
}

/// The fences of all URLs.
#[derive(Debug)]
pub struct UrlFences(Box<[Fence]>);

impl UrlFences {
    /// None has moved.
    pub fn new() -> Self {
        Self((0..URLS).map(|_| Fence::default()).collect())
    }

    /// The fence of a URL, by its key without a partition.
    pub fn of(&self, url: Key) -> &Fence {
        let place = url.0 as usize % URLS;
        self.0.get(place).expect("a remainder is less than its divisor")
    }
}

impl Default for UrlFences {
    fn default() -> Self {
        Self::new()
    }
}

/// The fences that one request stands before.
#[derive(Debug, Clone, Copy)]
pub struct Fences<'a> {
    /// Its group's, if it has one.
    pub group: Option<&'a Fence>,
    /// Its URL's.
    pub url: &'a Fence,
    /// Whether a write to its URL outdates what is stored there by the fence alone: a purge reaches the writer's own
    /// partition, and this all others.
    pub by_url: bool,
}

/// Where the fences stood at one moment. Counters only grow, so that sums are equal only if none has moved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Mark {
    moves: u64,
    /// The generation of what is read now, and of what is stored of it.
    pub generation: u64,
    /// The generation of the flight to join.
    pub flight: u64,
}

impl Fences<'_> {
    /// Where they stand.
    pub fn mark(&self) -> Mark {
        let generation = self.generation();
        let url = if self.by_url { 0 } else { self.url.generation() };
        let moves = |fence: &Fence| fence.moves.load(Ordering::Acquire);
        Mark { moves: moves(self.url) + self.group.map_or(0, moves), generation, flight: generation + url }
    }

    /// The generation that a stored answer must be of.
    pub fn generation(&self) -> u64 {
        let group = self.group.map_or(0, Fence::generation);
        group + if self.by_url { self.url.generation() } else { 0 }
    }

    /// Whether nothing has been written since `mark`, so that what was read then may be stored now.
    pub fn stand_at(&self, mark: Mark) -> bool {
        self.mark().moves == mark.moves
    }
}

/// 16 bytes each.
const URLS: usize = 16_384;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_moves_its_fence_when_sent_and_when_ended() {
        let (group, url) = (Fence::default(), Fence::default());
        let fences = Fences { group: Some(&group), url: &url, by_url: false };
        let before = fences.mark();
        assert!(fences.stand_at(before));
        group.sent();
        assert!(!fences.stand_at(before), "a read that began before the write was sent is not stored");
        let between = fences.mark();
        assert_eq!(between.generation, before.generation, "what is stored is good until the write has ended");
        group.ended();
        assert!(!fences.stand_at(between), "a read that began before the write ended is not stored");
        assert_ne!(fences.generation(), between.generation);
        assert_ne!(fences.mark().flight, between.flight);
        assert!(fences.stand_at(fences.mark()));
    }

    #[test]
    fn a_url_outdates_what_is_stored_only_where_it_must() {
        let url = Fence::default();
        for by_url in [true, false] {
            let fences = Fences { group: None, url: &url, by_url };
            let before = fences.mark();
            url.sent();
            url.ended();
            assert!(!fences.stand_at(before));
            assert_eq!(fences.generation() != before.generation, by_url);
            assert_ne!(fences.mark().flight, before.flight, "nobody joins a fill that began before");
        }
    }

    #[test]
    fn other_groups_and_urls_are_left_alone() {
        let urls = UrlFences::new();
        let (one, other) = (Fence::default(), Fence::default());
        let fences = Fences { group: Some(&one), url: urls.of(Key(1)), by_url: true };
        let before = fences.mark();
        other.sent();
        other.ended();
        urls.of(Key(2)).ended();
        assert!(fences.stand_at(before) && fences.generation() == before.generation);
        urls.of(Key(1 + URLS as u128)).ended();
        assert!(!fences.stand_at(before), "URLs that share a fence cost a fetch");
    }
}
