//! What is known of an event loop: how much it works, and how late it comes to what is due.

use std::fmt;
use std::time::Duration;

use super::collector::Families;
use super::shard::{Shards, Span};
use super::{Watched, ask, names};

/// The measures of one event loop.
pub struct WorkerMeter {
    name: Box<str>,
    /// A single one: the event loop alone writes it.
    shards: Shards,
    busy: Watched<Duration>,
}

impl WorkerMeter {
    pub(super) fn new(name: &str) -> Self {
        Self { name: name.into(), shards: Shards::new(1, Span::len(names::LAGS)), busy: Watched::default() }
    }

    /// Records by how much later than it was due something was done.
    pub fn late(&self, by: Duration) {
        LAG.observe(self.shards.of(0), by);
    }

    /// Reads for how long the event loop has worked so far through `watch` at each scrape. It must not scrape.
    pub fn watch_busy(&self, watch: impl Fn() -> Duration + Send + Sync + 'static) {
        *self.busy.lock() = Some(std::sync::Arc::new(watch));
    }

    pub(super) fn collect(&self, to: &mut Families) {
        if let Some(busy) = ask(&self.busy) {
            to.push(&names::WORKER_BUSY, &[&self.name], busy.as_secs_f64());
        }
        to.histogram(&names::WORKER_LAG, &[&self.name], &LAG.read(&self.shards));
    }
}

impl fmt::Debug for WorkerMeter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerMeter").field("name", &self.name).finish_non_exhaustive()
    }
}

const LAG: Span = Span { first: 0, bounds: names::LAGS };
