//! What is counted, and how it is read.
//!
//! A meter ([`RouteMeter`], [`UpstreamMeter`], [`ConsumerMeter`], [`ListenerMeter`]) is looked up by name when the
//! configuration becomes live; a request then does a few relaxed adds into its worker's own cache lines, looks up no
//! label and shares no line. A scrape sums the shards and asks the live state through closures. Nothing is global:
//! each gateway has its own [`Metrics`].

mod collector;
mod exemplar;
#[cfg(test)]
mod exposition;
mod facts;
mod listener;
pub mod names;
mod openmetrics;
mod quota;
mod route;
mod seat;
mod shard;
mod store;
mod tally;
mod upstream;
mod worker;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use prometheus::{Registry, TextEncoder};

use self::collector::{Families, Shed};
use self::exemplar::Shown;
pub use self::facts::{CODES, CacheEvent, CacheResult, Ending, Facts, METHODS, OTHER, Pace, Traced, Wait};
pub use self::listener::{ConnectionRefusal, Handshake, ListenerMeter};
pub use self::openmetrics::Format;
pub use self::quota::{QuotaLive, StateMeter};
#[cfg(test)]
pub(crate) use self::route::plain;
pub use self::route::{ConsumerMeter, RouteMeter};
pub(crate) use self::seat::Seat;
pub use self::store::{Extent, StoreMeter};
pub use self::tally::{Buckets, ConsumerTally, RouteTally, UpstreamTally};
pub use self::upstream::{EndpointLive, LimitLive, Live, UpstreamMeter};
pub use self::worker::WorkerMeter;

/// The metrics of one gateway. Cheap to clone; all clones are the same metrics.
#[derive(Debug, Clone)]
pub struct Metrics {
    state: Arc<State>,
    registry: Registry,
}

/// The state of the cache at the moment of a scrape.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CacheLive {
    /// Memory the stored entries weigh, in bytes.
    pub bytes: u64,
    /// Memory they may weigh, in bytes.
    pub capacity: u64,
    /// Stored entries.
    pub entries: u64,
    /// Entries that had to go to make room, so far.
    pub evictions: u64,
    /// Memory held by fills in flight, in bytes.
    pub fills: u64,
}

/// A listener's certificate at the moment of a scrape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateLive {
    /// The listener.
    pub listener: String,
    /// The certificate's file.
    pub certificate: String,
    /// When it ends.
    pub expiry: SystemTime,
}

impl Metrics {
    /// The metrics of a gateway with `workers` workers.
    pub fn new(workers: usize) -> Self {
        let state = Arc::new(State { workers: workers.max(1), ..State::default() });
        let registry = Registry::new();
        registry
            .register(Box::new(Shed::new(Arc::clone(&state))))
            .expect("the registry is empty and the table names no metric twice: a test holds it to that");
        #[cfg(target_os = "linux")]
        registry
            .register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))
            .expect("no name of ours begins with process_");
        Self { state, registry }
    }

    /// The meter of a route that leads to `upstream`.
    pub fn route(&self, name: &str, upstream: &str) -> Arc<RouteMeter> {
        let meter = self.find(&self.state.routes, name, RouteMeter::new);
        meter.lead_to(upstream);
        meter
    }

    /// The meter of requests that match no route, or are refused before they could.
    pub fn unrouted(&self) -> Arc<RouteMeter> {
        self.route(NONE, NONE)
    }

    /// The meter of an upstream.
    pub fn upstream(&self, name: &str) -> Arc<UpstreamMeter> {
        self.find(&self.state.upstreams, name, UpstreamMeter::new)
    }

    /// The meter of a configured consumer.
    pub fn consumer(&self, name: &str) -> Arc<ConsumerMeter> {
        self.find(&self.state.consumers, name, ConsumerMeter::new)
    }

    /// The meter of all who are no configured consumer: an address is never a label.
    pub fn anonymous(&self) -> Arc<ConsumerMeter> {
        self.consumer(ANONYMOUS)
    }

    /// The meter of a listener.
    pub fn listener(&self, name: &str) -> Arc<ListenerMeter> {
        self.find(&self.state.listeners, name, ListenerMeter::new)
    }

    /// The counters of the store that no request moves.
    pub fn store(&self) -> &StoreMeter {
        &self.state.store
    }

    /// The meter of the event loop `index`.
    pub fn worker(&self, index: usize) -> Arc<WorkerMeter> {
        self.find(&self.state.event_loops, &index.to_string(), |name, _| WorkerMeter::new(name))
    }

    /// Reads the state of the cache through `watch` at each scrape. It must not scrape.
    pub fn watch_cache(&self, watch: Box<dyn Fn() -> CacheLive + Send + Sync>) {
        *self.state.cache.lock() = Some(Arc::from(watch));
    }

    /// Counts the writings of the file that keeps what was used of quotas.
    pub fn state(&self) -> &StateMeter {
        &self.state.kept
    }

    /// Reads how consumers stand with their quotas through `watch` at each scrape. It must not scrape.
    pub fn watch_quotas(&self, watch: Box<dyn Fn() -> Vec<QuotaLive> + Send + Sync>) {
        *self.state.quotas.lock() = Some(Arc::from(watch));
    }

    /// Reads how many lines the access log has lost through `watch` at each scrape. It must not scrape.
    pub fn watch_access_log(&self, watch: Box<dyn Fn() -> u64 + Send + Sync>) {
        *self.state.access_log.lock() = Some(Arc::from(watch));
    }

    /// Reads what became of spans through `watch` at each scrape. It must not scrape.
    pub fn watch_traces(&self, watch: Box<dyn Fn() -> [u64; names::SPAN_RESULTS.len()] + Send + Sync>) {
        *self.state.traces.lock() = Some(Arc::from(watch));
    }

    /// Reads when the listeners' certificates end through `watch` at each scrape. It must not scrape.
    pub fn watch_certificates(&self, watch: Box<dyn Fn() -> Vec<CertificateLive> + Send + Sync>) {
        *self.state.certificates.lock() = Some(Arc::from(watch));
    }

    /// Counts a panic that was caught.
    pub fn panicked(&self) {
        self.state.panics.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a load of the configuration. If it was good, it is in force since `at`.
    pub fn reloaded(&self, good: bool, at: SystemTime) {
        let mut reloads = self.state.reloads.lock();
        reloads.failed = !good;
        if good {
            reloads.good += 1;
            reloads.last = at.duration_since(SystemTime::UNIX_EPOCH).ok();
        } else {
            reloads.bad += 1;
        }
    }

    /// Notes the hash of the configuration in force, of which 48 bits are shown.
    pub fn configured(&self, hash: u64) {
        self.state.reloads.lock().hash = Some(hash & HASH);
    }

    /// How the loads of the configuration went: whether the last was good, and when the one in force was loaded.
    pub fn loads(&self) -> (bool, Option<SystemTime>) {
        let reloads = *self.state.reloads.lock();
        (!reloads.failed, reloads.last.map(|since| SystemTime::UNIX_EPOCH + since))
    }

    /// When the listeners' certificates end.
    pub fn certificates(&self) -> Vec<CertificateLive> {
        ask(&self.state.certificates).unwrap_or_default()
    }

    /// Everything, in `format`.
    pub fn expose(&self, format: Format) -> String {
        match format {
            Format::Text => self.gather(),
            Format::OpenMetrics => {
                let mut exemplars = Shown::default();
                snapshot(&self.state.routes).iter().for_each(|meter| meter.exemplify(&mut exemplars));
                snapshot(&self.state.upstreams).iter().for_each(|meter| meter.exemplify(&mut exemplars));
                openmetrics::encode(&self.registry.gather(), &exemplars)
            }
        }
    }

    /// Everything, in the text exposition format of Prometheus, version 0.0.4.
    pub fn gather(&self) -> String {
        TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap_or_else(|error| {
            // Only an empty or nameless family is an error, and the registry prunes the one and the table has no other.
            tracing::error!(%error, "the metrics could not be written");
            String::new()
        })
    }

    /// The registry, for an embedder who has metrics of his own to show beside these.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    fn find<M>(&self, meters: &Meters<M>, name: &str, make: impl FnOnce(&str, usize) -> M) -> Arc<M> {
        let mut meters = meters.lock();
        if let Some(meter) = meters.get(name) {
            return Arc::clone(meter);
        }
        let meter = Arc::new(make(name, self.state.workers));
        meters.insert(name.into(), Arc::clone(&meter));
        meter
    }
}

type Meters<M> = Mutex<BTreeMap<Box<str>, Arc<M>>>;
type Watched<T> = Mutex<Option<Arc<dyn Fn() -> T + Send + Sync>>>;

/// Everything that is counted.
#[derive(Default)]
struct State {
    workers: usize,
    routes: Meters<RouteMeter>,
    upstreams: Meters<UpstreamMeter>,
    consumers: Meters<ConsumerMeter>,
    listeners: Meters<ListenerMeter>,
    event_loops: Meters<WorkerMeter>,
    cache: Watched<CacheLive>,
    store: StoreMeter,
    kept: StateMeter,
    quotas: Watched<Vec<QuotaLive>>,
    access_log: Watched<u64>,
    traces: Watched<[u64; names::SPAN_RESULTS.len()]>,
    certificates: Watched<Vec<CertificateLive>>,
    panics: AtomicU64,
    reloads: Mutex<Reloads>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Reloads {
    good: u64,
    bad: u64,
    /// Since the Unix epoch.
    last: Option<Duration>,
    /// The last one was bad.
    failed: bool,
    /// Of the one in force.
    hash: Option<u64>,
}

impl State {
    fn collect(&self, to: &mut Families) {
        snapshot(&self.routes).iter().for_each(|meter| meter.collect(to));
        snapshot(&self.upstreams).iter().for_each(|meter| meter.collect(to));
        snapshot(&self.consumers).iter().for_each(|meter| meter.collect(to));
        snapshot(&self.listeners).iter().for_each(|meter| meter.collect(to));
        snapshot(&self.event_loops).iter().for_each(|meter| meter.collect(to));
        if let Some(live) = ask(&self.cache) {
            to.count(&names::CACHE_BYTES, &[], live.bytes);
            to.count(&names::CACHE_CAPACITY, &[], live.capacity);
            to.count(&names::CACHE_ENTRIES, &[], live.entries);
            to.count(&names::CACHE_EVICTIONS, &[], live.evictions);
            to.count(&names::CACHE_FILLS, &[], live.fills);
        }
        self.store.collect(to);
        self.kept.collect(to);
        ask(&self.quotas).into_iter().flatten().for_each(|quota| quota.collect(to));
        if let Some(dropped) = ask(&self.access_log) {
            to.count(&names::ACCESS_LOG_DROPPED, &[], dropped);
        }
        for (result, count) in names::SPAN_RESULTS.iter().zip(ask(&self.traces).into_iter().flatten()) {
            to.count(&names::TRACE_SPANS, &[result], count);
        }
        for live in ask(&self.certificates).into_iter().flatten() {
            let expiry = live.expiry.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            to.push(&names::CERTIFICATE_EXPIRY, &[&live.listener, &live.certificate], expiry.as_secs_f64());
        }
        to.count(&names::WORKER_PANICS, &[], self.panics.load(Ordering::Relaxed));
        let reloads = *self.reloads.lock();
        for (result, count) in names::RELOAD_RESULTS.iter().zip([reloads.good, reloads.bad]) {
            to.count(&names::CONFIG_RELOADS, &[result], count);
        }
        if let Some(last) = reloads.last {
            to.push(&names::CONFIG_LAST_RELOAD, &[], last.as_secs_f64());
        }
        to.count(&names::CONFIG_LAST_GOOD, &[], u64::from(!reloads.failed));
        if let Some(hash) = reloads.hash {
            to.count(&names::CONFIG_HASH, &[], hash);
        }
        to.push(&names::BUILD_INFO, &[env!("CARGO_PKG_VERSION")], 1.0);
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State").field("workers", &self.workers).finish_non_exhaustive()
    }
}

/// The meters, without the lock: a live closure may look up a meter.
fn snapshot<M>(meters: &Meters<M>) -> Vec<Arc<M>> {
    meters.lock().values().map(Arc::clone).collect()
}

fn ask<T>(watched: &Watched<T>) -> Option<T> {
    let watch = watched.lock().clone()?;
    Some(watch())
}

/// The bits of a hash that a float holds without loss; Alertmanager shows as many.
const HASH: u64 = (1 << 48) - 1;

/// The route of what matches none.
pub const NONE: &str = "_none";

/// The consumer of everybody who is not a configured one.
pub const ANONYMOUS: &str = "_anonymous";
