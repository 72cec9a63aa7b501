//! What the workers of a gateway share, and what is done to all of them at once: reload, upkeep.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::advice::Watch;
use super::history::History;
use super::ledger::Ledger;
use super::snapshot::{self, Built, Workshop};
use super::{Builder, Gateway};
use crate::cache::fence::UrlFences;
use crate::cache::flight::Flights;
use crate::cache::hot::Hot;
use crate::cache::identities::Identities;
use crate::cache::key::Keyer;
use crate::cache::persist::Shelf;
use crate::cache::store::Store;
use crate::config::settings::Settings;
use crate::message::hop::Pseudonym;
use crate::metrics::{CacheLive, Metrics};
use crate::proxy::journal::Journal;
use crate::proxy::observe::Observer;
use crate::proxy::snapshot::{Core, Worker};
use crate::traces::Tracer;
use crate::upstream::Upstream;
use crate::upstream::probe::ProbeParams;

/// A running gateway. Cheap to clone.
#[derive(Clone)]
pub struct Handle(pub(super) Arc<Shared>);

pub(super) struct Shared {
    pub(super) core: Arc<Core>,
    /// Where the store is kept over a restart.
    pub(super) shelf: Option<Shelf>,
    pub(super) workers: Box<[Arc<Worker>]>,
    workshop: Workshop,
    pub(super) built: Mutex<Built>,
    pub(super) history: Mutex<History>,
    reloaded: Notify,
    pub(super) watch: Mutex<Watch>,
}

/// Why a gateway cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The builder was given none.
    #[error("there are no settings")]
    NoSettings,
    /// A certificate, key or CA cannot be used.
    #[error("upstream {upstream}")]
    Tls {
        /// Whose.
        upstream: String,
        /// Why.
        source: Box<crate::listen::tls::TlsError>,
    },
    /// Two routes or patterns cannot be together.
    #[error("route {route}: {reason}")]
    Route {
        /// Which.
        route: String,
        /// Why.
        reason: String,
    },
}

impl Handle {
    pub(super) fn new(builder: Builder) -> Result<Self, StartError> {
        let settings = builder.settings.ok_or(StartError::NoSettings)?;
        let workers = builder.workers.max(1);
        let seed = builder.seed.unwrap_or_else(|| RandomState::new().hash_one("vaxel"));
        let metrics = Metrics::new(workers);
        let kept = settings.cache.persist.clone();
        let shelf = kept.map(|params| Shelf::open(params, super::cache::fingerprint(&settings), seed));
        let keyer = Keyer::new(shelf.as_ref().map_or(seed, Shelf::seed));
        let core = Arc::new(Core {
            store: Store::new(settings.cache.max_bytes, keyer),
            urls: UrlFences::new(),
            identities: Identities::new(),
            flights: Flights::new(settings.cache.fills_bytes),
            observer: Observer::new(seed.rotate_left(32), settings.observe, builder.clock.now()),
            pseudonym: Pseudonym::new(seed as u32),
            clock: builder.clock,
            hooks: builder.hooks,
            metrics,
        });
        watch_cache(&core);
        let ledger = Ledger::open(settings.state.clone(), core.clock.moment().wall);
        let workshop = Workshop::new(Arc::clone(&core), ledger, builder.origins, workers, seed);
        let built = workshop.build(&settings, None)?;
        let log = builder.access_log;
        if let Some(log) = log.clone() {
            core.metrics.watch_access_log(Box::new(move || log.dropped()));
        }
        let tracer = builder.tracer;
        if let Some(counts) = tracer.as_ref().map(Tracer::counts) {
            core.metrics.watch_traces(Box::new(move || counts.read()));
        }
        let workers = (0..workers)
            .map(|index| {
                Arc::new(Worker {
                    core: Arc::clone(&core),
                    index,
                    snapshot: ArcSwap::from(snapshot::view(&core, &built, &settings)),
                    hot: Hot::new(),
                    alarms: Arc::default(),
                    journal: Journal::default(),
                    tracer: tracer.clone(),
                    log: log.as_ref().map(crate::proxy::access_log::AccessLog::worker),
                    random: AtomicU64::new(seed.wrapping_mul(index as u64 + 1)),
                })
            })
            .collect();
        core.metrics.reloaded(true, core.clock.moment().wall);
        let built = Mutex::new(built);
        let shared = Arc::new(Shared {
            core,
            shelf,
            workers,
            workshop,
            built,
            history: Mutex::default(),
            reloaded: Notify::new(),
            watch: Mutex::default(),
        });
        watch_quotas(&shared);
        Ok(Self(shared))
    }

    /// The view of one event loop; `worker` counts from 0 and wraps.
    ///
    /// # Panics
    /// Never: there is at least one worker.
    pub fn gateway(&self, worker: usize) -> Gateway {
        let workers = &self.0.workers;
        let worker = workers.get(worker % workers.len()).expect("the modulus is the length");
        Gateway::new(Arc::clone(worker))
    }

    /// Puts new settings in force for requests that begin from now on. Slots, breakers, learned state, connections and
    /// counters are carried over by name.
    ///
    /// # Errors
    /// As for [`Builder::build`]; then the old settings stay in force.
    pub fn reload(&self, settings: &Settings) -> Result<(), StartError> {
        let mut current = self.0.built.lock();
        let built = self.0.workshop.build(settings, Some(&current))?;
        for worker in &self.0.workers {
            worker.snapshot.store(snapshot::view(&self.0.core, &built, settings));
        }
        let now = self.0.core.clock.now();
        self.0.core.observer.restart(settings.observe, now);
        *self.0.watch.lock() = Watch::default();
        current.retire(&built);
        *current = built;
        drop(current);
        self.0.reloaded.notify_waiters();
        Ok(())
    }

    /// Waits for the next reload.
    pub(super) fn reloaded(&self) -> impl Future<Output = ()> + use<'_> {
        let mut reloaded = Box::pin(self.0.reloaded.notified());
        // From now on, not from the first poll on.
        reloaded.as_mut().enable();
        reloaded
    }

    /// Writes down what was used of quotas and what limits have learned, if the settings name a file for it and anything has
    /// changed. Blocks.
    pub fn save_state(&self) {
        let (core, ledger) = (&self.0.core, self.0.workshop.ledger());
        let now = core.clock.moment().wall;
        for upstream in self.upstreams() {
            if let Some(learned) = upstream.slots.learned() {
                ledger.note(&upstream.name, learned, now);
            }
        }
        match ledger.save(now) {
            Ok(false) => {}
            Ok(true) => core.metrics.state().saved(true),
            Err(error) => {
                core.metrics.state().saved(false);
                tracing::warn!(%error, "what is known of quotas and limits cannot be written to the file of [server] state");
            }
        }
    }

    /// Whether [`save_state`](Self::save_state) has a file to write.
    pub fn keeps_state(&self) -> bool {
        self.0.workshop.ledger().is_kept()
    }

    /// The upstreams that ask for probes.
    pub(super) fn probed(&self) -> Vec<(Arc<Upstream>, ProbeParams)> {
        self.0.built.lock().probed()
    }

    /// The counters.
    pub fn metrics(&self) -> &Metrics {
        &self.0.core.metrics
    }

    /// Time.
    pub fn clock(&self) -> &crate::clock::Clock {
        &self.0.core.clock
    }

    /// The upstreams in force.
    pub fn upstreams(&self) -> Vec<Arc<Upstream>> {
        self.0.built.lock().upstreams.clone()
    }

    /// What has to be done now and then, whether requests come or not: closes idle connections, lets out slots after a
    /// breaker has closed, lets the store evict, refreshes addresses. The server calls it every second; an embedding program does so itself.
    pub async fn upkeep(&self) {
        let moment = self.0.core.clock.moment();
        for upstream in self.upstreams() {
            upstream.shift(moment);
            upstream.hold(moment.mono);
            for pool in upstream.endpoints.iter().filter_map(|endpoint| endpoint.pool.as_ref()) {
                pool.sweep();
            }
        }
        self.look(moment.mono);
        self.watch();
        self.0.core.store.maintain();
        self.0.workshop.ledger().prune(moment.wall);
        self.0.workshop.upkeep().await;
    }
}

fn watch_quotas(shared: &Arc<Shared>) {
    let weak = Arc::downgrade(shared);
    shared.core.metrics.watch_quotas(Box::new(move || {
        let shared = weak.upgrade();
        shared.map(|shared| shared.built.lock().standing(shared.core.clock.moment().wall)).unwrap_or_default()
    }));
}

fn watch_cache(core: &Arc<Core>) {
    let weak = Arc::downgrade(core);
    core.metrics.watch_cache(Box::new(move || {
        let Some(core) = weak.upgrade() else { return CacheLive::default() };
        let stats = core.store.stats();
        CacheLive {
            entries: stats.slots,
            bytes: stats.bytes,
            capacity: stats.capacity,
            evictions: stats.evicted,
            fills: core.flights.bytes(),
        }
    }));
}
