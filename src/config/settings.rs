//! What the configuration means: validated, in terms of the parameters of the parts, every default filled in.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderName, Uri};

use super::parse_with;
use crate::breaker::BreakerParams;
use crate::cache::CacheParams;
use crate::cache::persist::PersistParams;
use crate::consumer::ConsumerParams;
use crate::gear::GearParams;
use crate::gear::calendar::Window;
use crate::listen::tls::TlsParams;
use crate::listen::{Accept, ListenLimits};
use crate::message::edits::{HeaderEdits, StaticAnswer};
use crate::message::forwarded::Forwarding;
use crate::outcome::classes::Classes;
use crate::proxy::access_log::{Format, LineParams, Target};
use crate::proxy::limits::Told;
use crate::retry::RetryParams;
use crate::router::{Rewrite, RouteMatch};
use crate::throttle::{Class, RateParams, SlotsParams};
use crate::traces::TraceParams;
use crate::upstream::balance::Balance;
use crate::upstream::pool::PoolParams;
use crate::upstream::probe::ProbeParams;
use crate::upstream::tls::UpstreamTls;
use crate::upstream::{Expect, HostHeader, Timeouts};

/// Everything vaxel is told. Names are unique; `upstream` of a route is within `upstreams`; there is at least one
/// upstream and one route (and, for a server, one listener); the routes' patterns build a router.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Where connections are accepted.
    pub listeners: Vec<ListenerSettings>,
    /// Metrics, health, API and page, if they are wanted.
    pub admin: Option<AdminSettings>,
    /// Threads that serve requests; at least 1.
    pub workers: usize,
    /// How long requests may take to end when the process stops.
    pub drain: Duration,
    /// The file that keeps what was used of quotas, and what limits have learned, over a restart.
    pub state: Option<PathBuf>,
    /// Whether answers that pass are observed, for advice.
    pub observe: bool,
    /// Logs.
    pub log: LogSettings,
    /// Where traces go, if anywhere.
    pub traces: Option<TraceParams>,
    /// What upstreams learn of the client, and whose word is taken for it.
    pub forwarding: Forwarding,
    /// By which fields clients are told of their rates and quotas.
    pub limits: Told,
    /// The cache that all routes share.
    pub cache: CacheStoreSettings,
    /// Who calls, in the order of the file.
    pub consumers: Vec<ConsumerParams>,
    /// What is protected, in the order of the file.
    pub upstreams: Vec<UpstreamSettings>,
    /// Which requests go where, in the order of the file.
    pub routes: Vec<RouteSettings>,
}

/// One accepting socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerSettings {
    /// Address and port.
    pub listen: SocketAddr,
    /// HTTPS, or plain HTTP.
    pub tls: Option<TlsParams>,
    /// How connections reach the workers.
    pub accept: Accept,
    /// Connections the kernel keeps until they are accepted.
    pub backlog: u32,
    /// What a client may take.
    pub limits: ListenLimits,
}

/// The admin listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdminSettings {
    /// Address and port.
    pub listen: SocketAddr,
    /// The SHA-256 digest of the token callers need, if they need one.
    pub token: Option<[u8; 32]>,
    /// Whether they need it for the metrics too.
    pub token_for_metrics: bool,
}

impl AdminSettings {
    /// At an address, without a token.
    pub const fn at(listen: SocketAddr) -> Self {
        Self { listen, token: None, token_for_metrics: false }
    }
}

/// Logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSettings {
    /// Where a line per request goes.
    pub access: AccessTarget,
    /// Of which requests there are lines, and what is in them.
    pub lines: LineParams,
    /// How its lines are written.
    pub format: Format,
}

/// Where the access log goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccessTarget {
    /// Nowhere.
    Off,
    /// The standard output.
    Stdout,
    /// A file, appended to.
    File(PathBuf),
}

/// The cache that all routes share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheStoreSettings {
    /// Bytes for stored answers.
    pub max_bytes: u64,
    /// Bytes for answers that are just arriving to be stored.
    pub fills_bytes: u64,
    /// Whether and where what is stored is kept over a restart.
    pub persist: Option<PersistParams>,
}

/// One upstream.
#[derive(Debug, Clone, PartialEq)]
pub struct UpstreamSettings {
    /// Its unique name.
    pub name: String,
    /// Its servers: scheme and authority only; at least one.
    pub endpoints: Vec<Uri>,
    /// How one of them is chosen.
    pub balance: Balance,
    /// How much it works on at the same time, and who waits.
    pub slots: SlotsParams,
    /// How much each endpoint works on at the same time, where that is bounded.
    pub endpoint_slots: Option<u32>,
    /// When it is left alone, if ever.
    pub breaker: Option<BreakerParams>,
    /// Whether and how it shifts its gear by itself.
    pub gears: GearParams,
    /// When it is spared.
    pub windows: Vec<Window>,
    /// When a request is tried again; one attempt means never.
    pub retry: RetryParams,
    /// How long it may take.
    pub timeouts: Timeouts,
    /// Connections to it.
    pub pool: PoolParams,
    /// How its https endpoints are spoken to.
    pub tls: UpstreamTls,
    /// How its endpoints are checked while nobody asks, if they are.
    pub probe: Option<ProbeParams>,
    /// Which Host it gets.
    pub host: HostHeader,
    /// Who answers `Expect: 100-continue`.
    pub expect: Expect,
}

/// One route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteSettings {
    /// Its unique name.
    pub name: String,
    /// Which requests it takes.
    pub matching: RouteMatch,
    /// Where they go: an index into [`Settings::upstreams`].
    pub upstream: usize,
    /// Another path for the upstream.
    pub rewrite: Option<Rewrite>,
    /// Changes the request to the upstream.
    pub request_headers: HeaderEdits,
    /// Changes the answer to the client.
    pub response_headers: HeaderEdits,
    /// Routes of one group show the same data: an unsafe request on one outdates what is stored for all.
    pub group: Option<String>,
    /// How answers are stored, if they are.
    pub cache: Option<CacheParams>,
    /// How much each consumer or anonymous address may ask for.
    pub rate: Option<RateParams>,
    /// How urgent its requests are, where the consumer says nothing else.
    pub class: Class,
    /// What a request counts against rates, and how many slots it takes; at least 1, at most the upstream's slots.
    pub cost: u32,
    /// The largest request body in bytes.
    pub max_body: Option<u64>,
    /// How long a request body may keep us waiting, beyond a second for each KiB that has come.
    pub body_timeout: Duration,
    /// Refuses anonymous callers.
    pub require_consumer: bool,
    /// The field by which its callers say how long they wait.
    pub deadline: Option<HeaderName>,
    /// What is answered when the upstream cannot and nothing stale may be served.
    pub fallback: Option<StaticAnswer>,
    /// Index of the upstream that is asked before that.
    pub spare: Option<usize>,
    /// How the upstream's statuses are to be read.
    pub classes: Classes,
}

impl Settings {
    /// What `vaxel run --upstream URL` runs on: `config/drop-in.toml`, with everything else at its default. Of
    /// `upstream` scheme and authority count.
    pub fn for_upstream(upstream: Uri, listen: SocketAddr) -> Self {
        let mut settings = parse_with(DROP_IN, "config/drop-in.toml", &|_| None)
            .unwrap_or_else(|problems| unreachable!("a test loads it: {problems}"))
            .settings;
        settings.listeners.iter_mut().for_each(|listener| listener.listen = listen);
        settings.upstreams.iter_mut().for_each(|only| only.endpoints = vec![upstream.clone()]);
        settings
    }
}

impl ListenerSettings {
    /// Whether a running listener serves `other` as well: all but the certificates is fixed when it begins to listen.
    pub fn listens_like(&self, other: &Self) -> bool {
        self.tls.is_some() == other.tls.is_some() && *self == Self { tls: self.tls.clone(), ..other.clone() }
    }
}

impl UpstreamSettings {
    /// Whether `other` reaches the same endpoints in the same way, so that connections and health can go on.
    pub fn reaches_like(&self, other: &Self) -> bool {
        self.endpoints == other.endpoints
            && self.pool == other.pool
            && self.tls == other.tls
            && self.probe == other.probe
            && self.timeouts.connect == other.timeouts.connect
    }
}

impl AccessTarget {
    /// What the access log is opened with; `None` when there is none.
    pub fn target(&self) -> Option<Target> {
        match self {
            Self::Off => None,
            Self::Stdout => Some(Target::Stdout),
            Self::File(path) => Some(Target::File(path.clone())),
        }
    }
}

const DROP_IN: &str = include_str!("../../config/drop-in.toml");
