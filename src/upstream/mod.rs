//! The protected group of servers: one shared resource with a small number of slots, reached by one or more endpoints.
//!
//! - [`origin`]: one endpoint as the trip sees it; [`link`], [`pool`], [`connect`], [`tls`], [`resolve`]: how it is reached
//! - [`body`]: bodies on the way to and from it
//! - [`balance`], [`health`], [`probe`]: which endpoint is asked

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http::HeaderValue;
use parking_lot::Mutex;

use crate::breaker::{self, Breaker, State};
use crate::clock::Moment;
use crate::gear::{Gear, Signals};
use crate::metrics::UpstreamMeter;
use crate::outcome::Outcome;
use crate::refusal::Mode;
use crate::retry::RetryParams;
use crate::retry::budget::Budget;
use crate::throttle::slots::Slots;

use balance::{Balance, Load};
use connect::Connector;
use gearbox::Gearbox;
use health::{Ejection, Turn};
use origin::Origin;
use pool::Pool;
use probe::ProbeParams;

pub mod ahead;
pub mod balance;
pub mod body;
pub mod connect;
pub mod gearbox;
pub mod health;
pub mod link;
pub mod origin;
pub mod pool;
pub mod probe;
pub mod resolve;
pub mod tls;

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
    pub endpoints: Arc<[Endpoint]>,
    /// Which of them are fit.
    pub health: Arc<Mutex<Ejection>>,
    /// Its slots and queue.
    pub slots: Arc<Slots>,
    /// Its breaker, if it has one.
    pub breaker: Option<Arc<Mutex<Breaker>>>,
    /// What its policies do together.
    pub gears: Arc<Gearbox>,
    /// Requests that may wait for a slot.
    pub queue: usize,
    /// Who is asked.
    pub balance: Balance,
    /// Where round robin stands.
    pub cursor: AtomicUsize,
    /// When to try again.
    pub retry: RetryParams,
    /// What retries have left.
    pub budget: Arc<Mutex<Budget>>,
    /// How long each step may take.
    pub timeouts: Timeouts,
    /// How long a zombie keeps its slot.
    pub zombie_hold: Duration,
    /// Requests each endpoint works on at a time, zombies included.
    pub endpoint_slots: Option<u32>,
    /// Whether slots, its own and its endpoints', hold anything back.
    pub slots_mode: Mode,
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
    /// How it is reached, for probes.
    pub connector: Option<Connector>,
    /// Requests it is working on.
    pub in_flight: AtomicU32,
}

impl Endpoint {
    /// Counts one request more, if fewer than `room` are there.
    fn enter(&self, room: u32) -> bool {
        let more = |there: u32| (there < room).then_some(there + 1);
        self.in_flight.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }
}

impl Upstream {
    /// The endpoint for the next request, if one is fit and has room; `drawn` is a drawn number. The request counts as
    /// being there: whoever sends it takes it off [`Endpoint::in_flight`] again.
    pub fn enter(&self, drawn: u64, now: Instant) -> Option<usize> {
        let room = self.endpoint_slots.filter(|_| self.slots_mode.counts()).unwrap_or(u32::MAX);
        loop {
            let index = self.choose(drawn, room, now)?;
            // Another worker may have taken the last place just now.
            if self.endpoints.get(index)?.enter(room) {
                return Some(index);
            }
        }
    }

    fn choose(&self, drawn: u64, room: u32, now: Instant) -> Option<usize> {
        if let [_] = *self.endpoints {
            let is_full = self.endpoints.first()?.in_flight.load(Ordering::Relaxed) >= room;
            return (!is_full && self.health.lock().is_available(0, now)).then_some(0);
        }
        let turn = match self.balance {
            Balance::RoundRobin => self.cursor.fetch_add(1, Ordering::Relaxed) as u64,
            Balance::LeastOfTwo => drawn,
        };
        let health = self.health.lock();
        let load = |index: usize| {
            let endpoint = self.endpoints.get(index).filter(|_| health.is_available(index, now))?;
            let in_flight = endpoint.in_flight.load(Ordering::Relaxed);
            (in_flight < room).then_some(Load { in_flight })
        };
        let takes_part = |index: usize| health.takes_part(index, now, drawn);
        balance::choose_warm(self.balance, self.endpoints.len(), turn, load, takes_part)
    }

    /// Holds the slots to what the endpoints that are fit now may work on together. Who has a slot finds an endpoint with
    /// room: what is at the fit ones and those on their way there are not more than the slots taken.
    pub fn hold(&self, now: Instant) {
        let Some(each) = self.endpoint_slots else { return self.slots.hold(u32::MAX) };
        let health = self.health.lock();
        let fit = (0..self.endpoints.len()).filter(|index| health.is_available(*index, now)).count();
        drop(health);
        // With none fit, requests go on to learn that there is none.
        self.slots.hold(each.saturating_mul(u32::try_from(fit.max(1)).unwrap_or(u32::MAX)));
    }

    /// Lets as many slots out as its gear and the breaker bear now; few after the breaker has closed, all a minute later.
    pub fn ramp(&self, now: Instant) {
        let breaker = self.breaker.as_ref().map_or(1.0, |breaker| breaker.lock().share(now));
        self.let_out(breaker);
    }

    /// Lets out the share of the slots that the breaker bears, or less if its gear bears less.
    pub fn let_out(&self, breaker: f64) {
        self.slots.let_out(self.gears.stand().map_or(breaker, |stand| stand.share.min(breaker)));
    }

    /// Shifts its gear by how it stands; called about once a second.
    pub fn shift(&self, moment: Moment) {
        let stats = self.slots.stats();
        let mut signals = Signals {
            queue: stats.queued as f64 / self.queue.max(1) as f64,
            zombies: stats.zombie as f64 / stats.slots.max(1) as f64,
            ..Signals::default()
        };
        if let Some(breaker) = &self.breaker {
            let elapsed = breaker.lock().elapsed(moment.mono);
            self.breaker_shifted(0, elapsed, moment.mono);
            let mut breaker = breaker.lock();
            // A shadow parks nobody.
            signals.breaker = breaker.counts().then(|| breaker.state(moment.mono));
            (signals.failures, signals.slow) = breaker.shares(moment.mono);
        }
        if let Some(shift) = self.gears.observe(&signals, moment) {
            let (from, to) = (shift.from.code(), shift.to.code());
            tracing::warn!(upstream = %self.name, from, to, cause = shift.cause.code(), "gear");
            self.meter.geared(shift.to);
        }
        self.ramp(moment.mono);
    }

    /// Tells of a change of the breaker's state, if there was one.
    pub fn breaker_shifted(&self, worker: usize, shift: Option<breaker::Shift>, now: Instant) {
        let Some(shift) = shift else { return };
        let (from, to, cause) = (shift.from.code(), shift.to.code(), shift.cause.code());
        // How long it refuses, where it does by itself.
        let wait = self
            .breaker
            .as_ref()
            .filter(|_| shift.to == State::Open)
            .and_then(|breaker| breaker.lock().peek(now).err());
        let wait = wait.map(|wait| tracing::field::display(format!("{:.1}s", wait.as_secs_f64())));
        tracing::warn!(upstream = %self.name, from, to, cause, wait, "breaker");
        self.meter.shift(worker, shift.to);
    }

    /// Whether stored answers may be refreshed in the background now: under strain only while half of it is idle.
    pub fn may_refresh(&self) -> bool {
        match self.gears.stand().map_or(Gear::Drive, |stand| stand.gear) {
            Gear::Drive => true,
            Gear::Eco => {
                let stats = self.slots.stats();
                stats.queued == 0 && 2 * (stats.busy + stats.zombie) < stats.slots
            }
            Gear::Limp | Gear::Park => false,
        }
    }

    /// Learns how an attempt at an endpoint ended.
    pub fn learn(&self, endpoint: usize, outcome: Outcome, now: Instant) {
        if self.endpoints.len() > 1 {
            let turn = self.health.lock().record(endpoint, outcome, now);
            self.note(endpoint, turn, now);
        }
    }

    /// Learns how a probe of an endpoint ended.
    pub fn probed(&self, endpoint: usize, good: bool, params: &ProbeParams, now: Instant) {
        let turn = self.health.lock().probed(endpoint, good, params.rise, params.fall, now);
        self.note(endpoint, turn, now);
    }

    fn note(&self, endpoint: usize, turn: Option<Turn>, now: Instant) {
        if let (Some(turn), Some(endpoint)) = (turn, self.endpoints.get(endpoint)) {
            self.hold(now);
            tracing::warn!(upstream = %self.name, endpoint = %endpoint.name, ?turn, "endpoint");
        }
    }
}
