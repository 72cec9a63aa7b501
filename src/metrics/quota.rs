//! What is counted of quotas beside the refusals.

use std::sync::atomic::{AtomicU64, Ordering};

use super::collector::Families;
use super::names::{self, RELOAD_RESULTS};

/// How a consumer stands with one of its quotas at the moment of a scrape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuotaLive {
    /// The consumer.
    pub consumer: String,
    /// How long a window is: `hour`, `day` or `month`.
    pub per: &'static str,
    /// What was used of the open window.
    pub used: u64,
    /// What a window has room for.
    pub limit: u64,
}

impl QuotaLive {
    pub(super) fn collect(&self, to: &mut Families) {
        to.count(&names::QUOTA_USED, &[&self.consumer, self.per], self.used);
        to.count(&names::QUOTA_LIMIT, &[&self.consumer, self.per], self.limit);
    }
}

/// Counts the writings of the file that keeps the counts.
#[derive(Debug, Default)]
pub struct StateMeter([AtomicU64; RELOAD_RESULTS.len()]);

impl StateMeter {
    /// Counts a writing.
    pub fn saved(&self, good: bool) {
        let [ok, failed] = &self.0;
        if good { ok } else { failed }.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn collect(&self, to: &mut Families) {
        for (result, count) in RELOAD_RESULTS.iter().zip(&self.0) {
            to.count(&names::STATE_SAVES, &[result], count.load(Ordering::Relaxed));
        }
    }
}
