//! What is counted of the operator's hand on the store.

use std::sync::atomic::{AtomicU64, Ordering};

use super::collector::Families;
use super::names;

/// The counters of the store that no request moves.
#[derive(Debug, Default)]
pub struct StoreMeter {
    purges: [AtomicU64; Extent::CODES.len()],
    purged: [AtomicU64; DEPTHS.len()],
}

/// What a purge was to cover.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Extent {
    /// One URL.
    Url,
    /// All URLs with a prefix.
    Prefix,
    /// A group.
    Group,
    /// A route.
    Route,
    /// An upstream.
    Upstream,
    /// Everything.
    All,
}

impl Extent {
    /// The stable words, in order.
    pub const CODES: [&str; 6] = ["url", "prefix", "group", "route", "upstream", "all"];
}

impl StoreMeter {
    /// Counts a purge that affected `entries` answers: took them out (`hard`), or made them stale.
    pub fn purged(&self, extent: Extent, hard: bool, entries: usize) {
        if let Some(count) = self.purges.get(extent as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(count) = self.purged.get(usize::from(hard)) {
            count.fetch_add(entries as u64, Ordering::Relaxed);
        }
    }

    pub(super) fn collect(&self, to: &mut Families) {
        for (extent, count) in Extent::CODES.iter().zip(&self.purges) {
            to.count(&names::CACHE_PURGES, &[extent], count.load(Ordering::Relaxed));
        }
        for (depth, count) in DEPTHS.iter().zip(&self.purged) {
            to.count(&names::CACHE_PURGED, &[depth], count.load(Ordering::Relaxed));
        }
    }
}

/// How thorough a purge was.
pub(super) const DEPTHS: [&str; 2] = ["soft", "hard"];
