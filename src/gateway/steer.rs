//! The operator's hand on upstreams: how each stands, and its gear and breaker held where they are wanted.

use std::time::Duration;

use serde::Serialize;

use super::Handle;
use crate::breaker::{Hold, State};
use crate::gear::Gear;
use crate::upstream::Upstream;

/// What is done to an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Steer {
    /// Its gear is held so long, whatever is observed.
    Gear(Gear, Duration),
    /// Its gear is what is observed again.
    ReleaseGear,
    /// Its breaker is held until it is released.
    Breaker(Hold),
    /// Its breaker decides by itself again.
    ReleaseBreaker,
}

/// There is no upstream of this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no upstream `{0}`")]
pub struct UnknownUpstream(pub String);

/// How an upstream stands.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct UpstreamReport {
    /// Its name.
    pub upstream: String,
    /// Its gear.
    pub gear: &'static str,
    /// Why.
    pub cause: &'static str,
    /// Seconds until it ends, where that is known.
    pub ends_in: Option<u64>,
    /// The gear that strain alone asks for.
    pub strain: &'static str,
    /// The window that is open.
    pub window: Option<String>,
    /// Seconds until writes are taken again.
    pub writes_in: Option<u64>,
    /// Slots that may be used now.
    pub slots: usize,
    /// Slots whose request somebody waits for.
    pub busy: usize,
    /// Slots whose request nobody waits for any more.
    pub zombie: usize,
    /// Requests that wait.
    pub queued: usize,
    /// Milliseconds the first of them has waited.
    pub oldest_wait_ms: u64,
    /// The breaker's state, if there is one.
    pub breaker: Option<&'static str>,
    /// Seconds until the breaker lets trials pass, where it is open.
    pub breaker_in: Option<u64>,
    /// Its endpoints.
    pub endpoints: Vec<EndpointReport>,
}

/// How an endpoint stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EndpointReport {
    /// Its address.
    pub endpoint: String,
    /// It takes requests.
    pub up: bool,
}

impl Handle {
    /// How all upstreams stand, in the order of the configuration.
    pub fn upstreams_report(&self) -> Vec<UpstreamReport> {
        self.upstreams().iter().map(|upstream| self.upstream_report(upstream)).collect()
    }

    /// Does something to an upstream; it counts at once.
    ///
    /// # Errors
    /// When there is no upstream of that name.
    pub fn steer(&self, name: &str, steer: Steer) -> Result<(), UnknownUpstream> {
        let upstreams = self.upstreams();
        let found = upstreams.iter().find(|upstream| &*upstream.name == name);
        let upstream = found.ok_or_else(|| UnknownUpstream(name.to_owned()))?;
        let moment = self.clock().moment();
        match steer {
            Steer::Gear(gear, span) => upstream.gears.hold(Some((gear, moment.mono + span))),
            Steer::ReleaseGear => upstream.gears.hold(None),
            Steer::Breaker(_) | Steer::ReleaseBreaker => {
                let shift = upstream.breaker.as_ref().and_then(|breaker| match steer {
                    Steer::Breaker(hold) => breaker.lock().force(hold, moment.mono),
                    _ => breaker.lock().release(moment.mono),
                });
                upstream.breaker_shifted(0, shift, moment.mono);
            }
        }
        upstream.shift(moment);
        Ok(())
    }

    pub(super) fn upstream_report(&self, upstream: &Upstream) -> UpstreamReport {
        let now = self.clock().now();
        let seconds = |until: std::time::Instant| until.saturating_duration_since(now).as_secs();
        let (stand, stats) = (upstream.gears.now(), upstream.slots.stats());
        let health = upstream.health.lock();
        let endpoints = upstream.endpoints.iter().enumerate();
        let breaker = upstream.breaker.as_ref().map(|breaker| {
            let breaker = breaker.lock();
            (breaker.state(now), breaker.peek(now).err())
        });
        UpstreamReport {
            upstream: upstream.name.to_string(),
            gear: stand.gear.code(),
            cause: stand.cause.code(),
            ends_in: stand.until.map(seconds),
            strain: stand.strain.code(),
            window: stand.window.map(|window| window.to_string()),
            writes_in: stand.writes_from.map(seconds),
            slots: stats.slots,
            busy: stats.busy,
            zombie: stats.zombie,
            queued: stats.queued,
            oldest_wait_ms: u64::try_from(stats.oldest_wait.as_millis()).unwrap_or(u64::MAX),
            breaker: breaker.map(|(state, _)| state.code()),
            breaker_in: breaker.and_then(|(state, wait)| Some(wait.filter(|_| state == State::Open)?.as_secs())),
            endpoints: endpoints
                .map(|(index, endpoint)| EndpointReport {
                    endpoint: endpoint.name.to_string(),
                    up: health.is_available(index, now),
                })
                .collect(),
        }
    }
}
