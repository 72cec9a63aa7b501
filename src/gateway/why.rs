//! What became of a request, and what would become of one.

use std::cmp::Reverse;

use http::request::Parts;

use super::Handle;
use crate::listen::Peer;
use crate::proxy::explain;
use crate::proxy::journal::newest_first;

pub use crate::proxy::explain::Explanation;
pub use crate::proxy::journal::{Account, Kept};

impl Handle {
    /// What became of the requests known by this id, the newest first: ours, or one their client gave. Only some are
    /// remembered, see [`Kept`], and only for a while.
    pub fn why(&self, id: &str) -> Vec<Account> {
        let mut found: Vec<_> = self.0.workers.iter().flat_map(|worker| worker.journal.find(id)).collect();
        newest_first(&mut found, |account| account.ended);
        found
    }

    /// What would become of a request from `peer` now, step by step. It is not sent, counted or limited.
    pub fn explain(&self, parts: &Parts, peer: Peer) -> Explanation {
        explain::explain(self.first_worker(), parts, peer)
    }

    /// The latest requests that are remembered, up to `most`, the newest first; of those that
    /// [are called](Account::is_called) `word`, if one is given.
    pub fn accounts(&self, most: usize, word: Option<&str>) -> Vec<Account> {
        self.accounts_that(most, |account| word.is_none_or(|word| account.is_called(word)))
    }

    /// The latest that `wanted` takes, up to `most`, the newest first.
    pub(super) fn accounts_that(&self, most: usize, wanted: impl Fn(&Account) -> bool) -> Vec<Account> {
        let latest = self.0.workers.iter().flat_map(|worker| worker.journal.latest(most, &wanted));
        let mut found: Vec<_> = latest.collect();
        found.sort_by_key(|account| Reverse(account.ended));
        found.truncate(most);
        found
    }
}
