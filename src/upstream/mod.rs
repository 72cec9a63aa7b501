//! The protected group of servers: one shared resource with a small number of slots, reached by one or more endpoints.
//!
//! - [`origin`]: one endpoint as the trip sees it; [`link`], [`pool`], [`connect`], [`tls`], [`resolve`]: how it is reached
//! - [`body`]: bodies on the way to and from it
//! - [`balance`], [`health`], [`probe`]: which endpoint is asked

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http::HeaderValue;
use parking_lot::Mutex;

use crate::breaker::Breaker;
use crate::metrics::UpstreamMeter;
use crate::outcome::Outcome;
use crate::retry::RetryParams;
use crate::retry::budget::Budget;
use crate::throttle::slots::Slots;

use balance::{Balance, Load};
use origin::Origin;
use pool::Pool;

pub mod balance;
pub mod body;
pub mod connect;
pub mod health;
pub mod link;
pub mod origin;
pub mod pool;
pub mod probe;
pub mod resolve;


/// How long each step towards an upstream may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// Name resolution, TCP and TLS together.
    pub connect: Duration,
    /// From the first byte sent to the head of the answer.
    pub head: Duration,
    /// The whole exchange, all attempts and the body of the answer included.
    pub total: Duration,
}

impl Default for Timeouts {
    /// A dialog step of an ERP may take long; a connect on the same network may not.
    fn default() -> Self {
        Self { connect: Duration::from_secs(2), head: Duration::from_secs(30), total: Duration::from_secs(60) }
    }
}

/// Which Host an endpoint sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HostHeader {
    /// The client's: servers of the SAP kind build absolute URLs from it.
    #[default]
    Keep,
    /// The endpoint's own authority.
    Upstream,
}

/// What happens to `Expect: 100-continue`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Expect {
    /// The upstream decides: the body is held back until it asks for it, or a second has passed (RFC 9110 section
    /// 10.1.1).
    #[default]
    Relay,
    /// Vaxel answers it and never forwards it: for servers that do not know it.
    Answer,
}

/// A live upstream.
pub struct Upstream {
    /// Its name in the configuration.
    pub name: Box<str>,
    /// Its endpoints.
    pub endpoints: Box<[Endpoint]>,
    /// Its slots and queue.
    pub slots: Arc<Slots>,
    /// Its breaker, if it has one.
    pub breaker: Option<Mutex<Breaker>>,
    /// Who is asked.
    pub balance: Balance,
    /// Where round robin stands.
    pub cursor: AtomicUsize,
    /// When to try again.
    pub retry: RetryParams,
    /// What retries have left.
    pub budget: Mutex<Budget>,
    /// How long each step may take.
    pub timeouts: Timeouts,
    /// How long a zombie keeps its slot.
    pub zombie_hold: Duration,
    /// Which Host the endpoints see.
    pub host: HostHeader,
    /// What happens to `Expect`.
    pub expect: Expect,
    /// What it counts.
    pub meter: Arc<UpstreamMeter>,
}

/// One server of an upstream.
pub struct Endpoint {
    /// Its address as configured.
    pub name: Box<str>,
    /// Its authority, for [`HostHeader::Upstream`].
    pub authority: HeaderValue,
    /// What answers.
    pub origin: Arc<dyn Origin>,
    /// Its idle connections, if it is reached over HTTP.
    pub pool: Option<Arc<Pool>>,
    /// Requests it is working on.
    pub in_flight: AtomicUsize,
}

impl Endpoint {
    /// Whether it may be asked.
    pub fn is_up(&self, _now: Instant) -> bool {
        true
    }

    /// Its load, if it may be asked.
    pub fn load(&self, now: Instant) -> Option<Load> {
        self.is_up(now).then(|| self.in_flight.load(Ordering::Relaxed))
    }

    /// Learns how an attempt ended.
    pub fn learn(&self, _outcome: Outcome, _now: Instant) {}
}
