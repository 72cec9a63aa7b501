//! Active probes of all endpoints whose upstream asks for them, and those that answer the question of a half-open breaker;
//! they begin anew at each reload.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::Handle;
use crate::breaker::Pass;
use crate::clock::Clock;
use crate::outcome::Outcome;
use crate::upstream::Upstream;
use crate::upstream::connect::Connector;
use crate::upstream::probe::{self, ProbeParams};

impl Handle {
    /// Probes endpoints for as long as it is polled. The server runs it; an embedding program that wants probes does
    /// so itself.
    pub async fn probe(&self) {
        loop {
            let mut probes = JoinSet::new();
            let reloaded = self.reloaded();
            for (upstream, params) in self.probed() {
                probes.spawn(answer_trials(Arc::clone(&upstream), params.clone(), self.clock().clone()));
                for (index, endpoint) in upstream.endpoints.iter().enumerate() {
                    let Some(connector) = endpoint.connector.clone() else { continue };
                    let authority = endpoint.authority.to_str().unwrap_or_default().to_owned();
                    probes.spawn(keep_probing(
                        Arc::clone(&upstream),
                        index,
                        connector,
                        authority,
                        params.clone(),
                        self.clock().clone(),
                    ));
                }
            }
            reloaded.await;
        }
    }
}

async fn keep_probing(
    upstream: Arc<Upstream>,
    index: usize,
    connector: Connector,
    authority: String,
    params: ProbeParams,
    clock: Clock,
) {
    // The endpoints of an upstream are not probed all at once.
    let first = params.every.mul_f64(index as f64 / upstream.endpoints.len() as f64).min(Duration::from_secs(1));
    let connect = || async { connector.connect().await.map_err(io::Error::other) };
    let once = || probe::check(connect(), &authority, params.path.as_deref());
    probe::run(&params, first, once, |result| upstream.probed(index, result.is_ok(), &params, clock.now())).await;
}

/// Answers for a half-open breaker, for as long as it asks: one probe after the other, each of an endpoint that is fit, or
/// of any if none is.
async fn answer_trials(upstream: Arc<Upstream>, params: ProbeParams, clock: Clock) {
    let mut turn = 0_usize;
    loop {
        while let Some(trial) = Trial::enter(&upstream, &clock) {
            let Some((connector, authority)) = next(&upstream, &mut turn, &clock) else { return };
            let began = clock.now();
            let connect = async { connector.connect().await.map_err(io::Error::other) };
            let probe = probe::check(connect, &authority, params.path.as_deref());
            let good = matches!(timeout(params.timeout, probe).await, Ok(Ok(())));
            trial.end(if good { Outcome::Ok } else { Outcome::Broken }, began);
        }
        sleep(TRIAL_PAUSE).await;
    }
}

/// How the next endpoint in turn is reached; nothing if none is reached over a network.
fn next(upstream: &Upstream, turn: &mut usize, clock: &Clock) -> Option<(Connector, String)> {
    let (count, now) = (upstream.endpoints.len(), clock.now());
    let from = *turn;
    let order = (0..count).map(|offset| from.wrapping_add(offset) % count.max(1));
    let health = upstream.health.lock();
    let fit = order.clone().find(|index| health.is_available(*index, now));
    drop(health);
    let index = fit.or_else(|| order.clone().next())?;
    *turn = index.wrapping_add(1);
    let endpoint = upstream.endpoints.get(index)?;
    Some((endpoint.connector.clone()?, endpoint.authority.to_str().unwrap_or_default().to_owned()))
}

/// A trial of the breaker; given back if it is dropped before its end.
struct Trial<'a> {
    upstream: &'a Upstream,
    clock: &'a Clock,
    pass: Option<Pass>,
}

impl<'a> Trial<'a> {
    fn enter(upstream: &'a Upstream, clock: &'a Clock) -> Option<Self> {
        let pass = upstream.breaker.as_ref()?.lock().enter_probe(clock.now())?;
        Some(Self { upstream, clock, pass: Some(pass) })
    }

    fn end(mut self, outcome: Outcome, began: Instant) {
        let (now, pass) = (self.clock.now(), self.pass.take());
        if let (Some(breaker), Some(pass)) = (&self.upstream.breaker, pass) {
            let shift = breaker.lock().record(pass, outcome, now.saturating_duration_since(began), now);
            self.upstream.breaker_shifted(0, shift, now);
        }
    }
}

impl Drop for Trial<'_> {
    fn drop(&mut self) {
        if let (Some(breaker), Some(pass)) = (&self.upstream.breaker, self.pass.take()) {
            breaker.lock().abandon(pass, self.clock.now());
        }
    }
}

/// Between two looks whether the breaker asks.
const TRIAL_PAUSE: Duration = Duration::from_millis(500);
