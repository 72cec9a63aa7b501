//! What is counted of the operator's hand on the store.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use super::collector::Families;
use super::names::{self, RELOAD_RESULTS};

/// The counters of the store that no request moves.
#[derive(Debug, Default)]
pub struct StoreMeter {
    purges: [AtomicU64; Extent::CODES.len()],
    purged: [AtomicU64; DEPTHS.len()],
    saves: [AtomicU64; RELOAD_RESULTS.len()],
    /// Since the Unix epoch, in milliseconds.
    saved_at: AtomicU64,
    saved_bytes: AtomicU64,
    restored: AtomicU64,
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

    /// Counts entries that were read from disk.
    pub fn restored(&self, entries: u64) {
        self.restored.fetch_add(entries, Ordering::Relaxed);
    }

    /// Counts a writing to disk that made a file of `bytes` bytes at `at`, or failed.
    pub fn saved(&self, bytes: Option<u64>, at: SystemTime) {
        let [good, failed] = &self.saves;
        let Some(bytes) = bytes else {
            failed.fetch_add(1, Ordering::Relaxed);
            return;
        };
        good.fetch_add(1, Ordering::Relaxed);
        self.saved_bytes.store(bytes, Ordering::Relaxed);
        let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.saved_at.store(u64::try_from(since.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(super) fn collect(&self, to: &mut Families) {
        for (extent, count) in Extent::CODES.iter().zip(&self.purges) {
            to.count(&names::CACHE_PURGES, &[extent], count.load(Ordering::Relaxed));
        }
        for (depth, count) in DEPTHS.iter().zip(&self.purged) {
            to.count(&names::CACHE_PURGED, &[depth], count.load(Ordering::Relaxed));
        }
        for (result, count) in RELOAD_RESULTS.iter().zip(&self.saves) {
            to.count(&names::CACHE_SAVES, &[result], count.load(Ordering::Relaxed));
        }
        to.push(&names::CACHE_SAVED_AT, &[], self.saved_at.load(Ordering::Relaxed) as f64 / 1000.0);
        to.count(&names::CACHE_SAVED_BYTES, &[], self.saved_bytes.load(Ordering::Relaxed));
        to.count(&names::CACHE_RESTORED, &[], self.restored.load(Ordering::Relaxed));
    }
}

/// How thorough a purge was.
pub(super) const DEPTHS: [&str; 2] = ["soft", "hard"];
