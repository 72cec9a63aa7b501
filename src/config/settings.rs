//! settings (temporary)
use crate::breaker::BreakerParams;
use crate::cache::CacheParams;
use crate::consumer::ConsumerParams;
use crate::listen::tls::TlsParams;
use crate::listen::{Accept, ListenLimits};
use crate::message::edits::{HeaderEdits, StaticAnswer};
use crate::message::forwarded::Forwarding;
use crate::outcome::Classes;
use crate::proxy::access_log::{Format, Target};
use crate::retry::RetryParams;
use crate::router::{Rewrite, RouteMatch};
use crate::throttle::{Class, RateParams, SlotsParams};
use crate::upstream::balance::Balance;
use crate::upstream::pool::PoolParams;
use crate::upstream::probe::ProbeParams;
use crate::upstream::tls::UpstreamTls;
use crate::upstream::{Expect, HostHeader, Timeouts};
use std::net::SocketAddr;
use std::time::Duration;
#[derive(Debug, Clone)]
pub struct Settings {
    pub listeners: Vec<ListenerSettings>,
    pub admin: Option<AdminSettings>,
    pub workers: usize,
    pub consumers: Vec<ConsumerParams>,
    pub upstreams: Vec<UpstreamSettings>,
    pub routes: Vec<RouteSettings>,
    pub cache: CacheStoreSettings,
    pub log: LogSettings,
    pub drain: Duration,
    pub forwarding: Forwarding,
}
#[derive(Debug, Clone, PartialEq)]
pub struct AdminSettings {
    pub listen: SocketAddr,
}
#[derive(Debug, Clone, PartialEq)]
pub struct CacheStoreSettings {
    pub max_bytes: u64,
    pub fills_bytes: u64,
}
#[derive(Debug, Clone, PartialEq)]
pub struct LogSettings {
    pub access: AccessTarget,
    pub format: Format,
    pub query: bool,
}
#[derive(Debug, Clone, PartialEq)]
pub enum AccessTarget {
    Off,
    Stdout,
    File(std::path::PathBuf),
}
impl AccessTarget {
    pub fn target(&self) -> Option<Target> {
        match self {
            Self::Off => None,
            Self::Stdout => Some(Target::Stdout),
            Self::File(p) => Some(Target::File(p.clone())),
        }
    }
}
#[derive(Debug, Clone, PartialEq)]
pub struct ListenerSettings {
    pub listen: SocketAddr,
    pub tls: Option<TlsParams>,
    pub accept: Accept,
    pub backlog: u32,
    pub limits: ListenLimits,
}
#[derive(Debug, Clone, PartialEq)]
pub struct UpstreamSettings {
    pub name: String,
    pub endpoints: Vec<http::Uri>,
    pub balance: Balance,
    pub slots: SlotsParams,
    pub breaker: Option<BreakerParams>,
    pub retry: RetryParams,
    pub timeouts: Timeouts,
    pub pool: PoolParams,
    pub tls: UpstreamTls,
    pub probe: Option<ProbeParams>,
    pub host: HostHeader,
    pub expect: Expect,
}
impl UpstreamSettings {
    pub fn reaches_like(&self, other: &Self) -> bool {
        self.endpoints == other.endpoints
            && self.tls == other.tls
            && self.pool == other.pool
            && self.timeouts.connect == other.timeouts.connect
    }
}
#[derive(Debug, Clone)]
pub struct RouteSettings {
    pub name: String,
    pub matching: RouteMatch,
    pub upstream: usize,
    pub rewrite: Option<Rewrite>,
    pub request_headers: HeaderEdits,
    pub response_headers: HeaderEdits,
    pub cache: Option<CacheParams>,
    pub rate: Option<RateParams>,
    pub class: Class,
    pub cost: u32,
    pub max_body: Option<u64>,
    pub require_consumer: bool,
    pub fallback: Option<StaticAnswer>,
    pub classes: Classes,
}
impl Settings {
    pub fn for_upstream(url: http::Uri, listen: SocketAddr) -> Self {
        Self {
            listeners: vec![ListenerSettings {
                listen,
                tls: None,
                accept: Accept::Reuseport,
                backlog: 1024,
                limits: ListenLimits::default(),
            }],
            admin: Some(AdminSettings { listen: SocketAddr::from(([127, 0, 0, 1], 9900)) }),
            workers: std::thread::available_parallelism().map_or(1, usize::from),
            consumers: vec![],
            upstreams: vec![UpstreamSettings {
                name: "upstream".into(),
                endpoints: vec![url],
                balance: Balance::default(),
                slots: SlotsParams { slots: 32, queue: 128, ..SlotsParams::default() },
                breaker: Some(BreakerParams::default()),
                retry: RetryParams::default(),
                timeouts: Timeouts::default(),
                pool: PoolParams::default(),
                tls: UpstreamTls::default(),
                probe: None,
                host: HostHeader::Keep,
                expect: Expect::Relay,
            }],
            routes: vec![RouteSettings {
                name: "all".into(),
                matching: RouteMatch { host: None, path: "/{*rest}".into(), methods: vec![], headers: vec![] },
                upstream: 0,
                rewrite: None,
                request_headers: HeaderEdits::default(),
                response_headers: HeaderEdits::default(),
                cache: Some(CacheParams::default()),
                rate: None,
                class: Class::Normal,
                cost: 1,
                max_body: None,
                require_consumer: false,
                fallback: None,
                classes: Classes::default(),
            }],
            cache: CacheStoreSettings { max_bytes: 256 << 20, fills_bytes: 64 << 20 },
            log: LogSettings { access: AccessTarget::Off, format: Format::Json, query: false },
            drain: Duration::from_secs(30),
            forwarding: Forwarding::default(),
        }
    }
}
