//! What a request sees of the configuration: live objects, immutable, swapped whole at a reload. Each worker has its
//! own, so that the hot path shares no reference count with another core.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use http::{HeaderName, HeaderValue};
use parking_lot::Mutex;

use super::access_log::WorkerLog;
use super::alarms::Alarms;
use super::hooks::Hooks;
use super::journal::Journal;
use super::limits::Told;
use super::observe::Observer;
use crate::cache::CacheParams;
use crate::cache::fence::{Fence, UrlFences};
use crate::cache::flight::Flights;
use crate::cache::hot::Hot;
use crate::cache::identities::Identities;
use crate::cache::store::Store;
use crate::clock::Clock;
use crate::consumer::{Consumers, Identity, aggregate};
use crate::message::edits::{HeaderEdits, StaticAnswer};
use crate::message::forwarded::Forwarding;
use crate::message::hop::Pseudonym;
use crate::metrics::{ConsumerMeter, Metrics, RouteMeter};
use crate::outcome::classes::Classes;
use crate::router::{Rewrite, Router};
use crate::throttle::Class;
use crate::throttle::quota::{Counts, QuotaParams};
use crate::throttle::rate::{ANONYMOUS, RateLimiter};
use crate::traces::Tracer;
use crate::upstream::Upstream;
use crate::upstream::body::BodyParams;

/// The configuration in force, as live objects.
pub struct Snapshot {
    /// From a request to its route, an index into `routes`.
    pub router: Router<usize>,
    /// The routes.
    pub routes: Box<[Route]>,
    /// Who calls.
    pub consumers: Consumers,
    /// What goes with each known consumer, in the order of `consumers`.
    pub known: Box<[Caller]>,
    /// What goes with everybody else.
    pub anonymous: Caller,
    /// Counts what has no route.
    pub unrouted: Arc<RouteMeter>,
    /// How the client is named to the upstream.
    pub forwarding: Forwarding,
    /// By which fields clients are told of their rates and quotas.
    pub told: Told,
}

/// A consumer's live state.
pub struct Caller {
    /// Its name; `anonymous` for the unknown.
    pub name: Box<str>,
    /// Its part in the identity of its users: a number made of its name.
    pub identity: u64,
    /// Its share when the backend is scarce.
    pub weight: u32,
    /// Its own class, before the route's.
    pub class: Option<Class>,
    /// Its rate over all routes.
    pub rate: Option<Rate>,
    /// Its quotas, if it has any.
    pub quota: Option<Quota>,
    /// What it counts.
    pub meter: Arc<ConsumerMeter>,
}

/// The rate of a route or a consumer, with what clients are told of it.
pub struct Rate {
    /// What it lets pass.
    pub limiter: Arc<RateLimiter>,
    /// The RateLimit-Policy field (draft-ietf-httpapi-ratelimit-headers-11).
    pub policy: HeaderValue,
    /// The same as a line, and how the line begins that says how a consumer stands with it.
    pub lines: (Box<str>, Box<str>),
}

/// A consumer's quotas, and what it has used of them.
#[derive(Clone)]
pub struct Quota {
    /// At most one of each length.
    pub quotas: Arc<[QuotaParams]>,
    /// Shared by all workers, and carried through reloads.
    pub counts: Arc<Mutex<Counts>>,
}

/// A live route.
pub struct Route {
    /// Its name.
    pub name: Box<str>,
    /// The host and path it takes, as the file has them.
    pub pattern: Box<str>,
    /// A number made of its name.
    pub number: u64,
    /// Where it leads.
    pub upstream: Arc<Upstream>,
    /// What was written to the routes that show the same data.
    pub group: Option<Arc<Fence>>,
    /// How it caches, if it does.
    pub cache: Option<CacheParams>,
    /// What each consumer may ask of it.
    pub rate: Option<Rate>,
    /// How urgent its requests are.
    pub class: Class,
    /// Slots a request of it takes.
    pub cost: u32,
    /// The number of its name: what adaptive limits know it by, through reloads.
    pub operation: u64,
    /// The upstream's path for it.
    pub rewrite: Option<Rewrite>,
    /// Edits of what is sent upstream.
    pub request_headers: HeaderEdits,
    /// Edits of what is sent downstream.
    pub response_headers: HeaderEdits,
    /// What a request body may take.
    pub body: BodyParams,
    /// The field by which its callers say how long they wait.
    pub deadline: Option<HeaderName>,
    /// Whether only known consumers may use it.
    pub require_consumer: bool,
    /// Who is asked when the upstream cannot answer and nothing stale may be served.
    pub spare: Option<Arc<Upstream>>,
    /// What is answered when nothing else can be.
    pub fallback: Option<StaticAnswer>,
    /// How its statuses are read.
    pub classes: Classes,
    /// What it counts.
    pub meter: Arc<RouteMeter>,
}

/// What all workers of a gateway share.
pub struct Core {
    /// Time.
    pub clock: Clock,
    /// Stored answers.
    pub store: Store,
    /// Who may have what is shared, and whose answers are forgotten.
    pub identities: Identities,
    /// What was written to each URL.
    pub urls: UrlFences,
    /// Fills under way.
    pub flights: Flights,
    /// What is seen of answers that pass, for advice.
    pub observer: Observer,
    /// All counters.
    pub metrics: Metrics,
    /// Our name in `Via`.
    pub pseudonym: Pseudonym,
    /// The embedding program's hand.
    pub hooks: Option<Arc<dyn Hooks>>,
}

/// One event loop's view: what a request needs, without sharing a cache line with other cores.
pub struct Worker {
    /// What is shared.
    pub core: Arc<Core>,
    /// Which worker this is.
    pub index: usize,
    /// The configuration in force.
    pub snapshot: ArcSwap<Snapshot>,
    /// What it finds again and again.
    pub hot: Hot,
    /// Until when its attempts wait.
    pub alarms: Arc<Alarms>,
    /// What became of its requests, of those somebody may ask about.
    pub journal: Journal,
    /// Where its access log lines go.
    pub log: Option<WorkerLog>,
    /// Where its spans go, if requests are traced.
    pub tracer: Option<Tracer>,
    /// The state of [`Worker::draw`].
    pub random: AtomicU64,
}

impl Worker {
    /// A drawn number (SplitMix64): for jitter, balancing and request ids, never for secrets.
    pub fn draw(&self) -> u64 {
        let state = self.random.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

impl Snapshot {
    /// Everybody who is told apart, and everybody else.
    pub fn callers(&self) -> impl Iterator<Item = &Caller> {
        self.known.iter().chain([&self.anonymous])
    }

    /// The caller an identity stands for, and the number by which limits and queues know it: made of its name, so that
    /// a reload that reorders consumers leaves each its own record.
    pub fn caller(&self, identity: &Identity) -> (&Caller, u64) {
        match identity {
            Identity::Known(index) => {
                let caller = self.known.get(*index).unwrap_or(&self.anonymous);
                (caller, caller.identity & !ANONYMOUS)
            }
            Identity::Anonymous(address) => (&self.anonymous, address_number(*address)),
        }
    }
}

/// A number for an address (IPv6 by /64) that no known consumer has.
fn address_number(address: IpAddr) -> u64 {
    ANONYMOUS
        | match aggregate(address) {
            IpAddr::V4(v4) => u64::from(v4.to_bits()),
            IpAddr::V6(v6) => (v6.to_bits() >> 64) as u64,
        }
}
