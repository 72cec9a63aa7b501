//! What is counted for an upstream, and its live state.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::collector::Families;
use super::exemplar::{Exemplar, Exemplars, Shown};
use super::facts::Traced;
use super::names;
use super::shard::{Shards, Span};
use super::tally::{Buckets, UpstreamTally};
use crate::breaker::State;
use crate::gear::Gear;
use crate::outcome::Outcome;

/// The counters of one upstream. Survives reloads: the same name is the same meter.
pub struct UpstreamMeter {
    name: Box<str>,
    shards: Shards,
    /// For each bucket of the durations.
    exemplars: Exemplars,
    watched: Mutex<Option<Arc<Watch>>>,
}

/// The state of an upstream at the moment of a scrape.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Live {
    /// How many slots there are.
    pub slots: usize,
    /// What the adaptive limit has learned, if there is one.
    pub limit: Option<LimitLive>,
    /// Slots whose request is at the backend and still wanted.
    pub busy: usize,
    /// Slots whose request is at the backend though nobody waits for it any more.
    pub zombie: usize,
    /// Requests that wait for a slot.
    pub queued: usize,
    /// Idle connections in all pools.
    pub idle_connections: usize,
    /// The breaker's state; `None` if there is no breaker.
    pub breaker: Option<State>,
    /// Its gear, and the one that strain asks for.
    pub gear: Option<(Gear, Gear)>,
    /// The endpoints.
    pub endpoints: Vec<EndpointLive>,
}

/// An adaptive limit at the moment of a scrape.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct LimitLive {
    /// Slots it finds right.
    pub suggested: usize,
    /// How many times their baseline answers took when it last looked.
    pub latency_ratio: f64,
    /// Overload signals since the start.
    pub drops: u64,
}

/// The state of an endpoint at the moment of a scrape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointLive {
    /// Its address as configured.
    pub name: String,
    /// It takes requests.
    pub up: bool,
    /// Requests that are at it.
    pub requests: u32,
}

type Watch = dyn Fn() -> Live + Send + Sync;

impl UpstreamMeter {
    pub(super) fn new(name: &str, workers: usize) -> Self {
        Self {
            name: name.into(),
            shards: Shards::new(workers, COUNTERS),
            exemplars: Exemplars::new(workers, DURATION_BUCKETS),
            watched: Mutex::new(None),
        }
    }

    /// The name of the upstream.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Reads the live state through `watch` at each scrape. Replaces the one before: after a reload the new upstream
    /// is watched. `watch` should hold the upstream weakly and must not scrape.
    pub fn watch(&self, watch: Box<dyn Fn() -> Live + Send + Sync>) {
        *self.watched.lock() = Some(Arc::from(watch));
    }

    /// Forgets the live state: the upstream is gone from the configuration. The counters stay.
    pub fn unwatch(&self) {
        *self.watched.lock() = None;
    }

    /// Counts a request that asked for a slot and how long it waited for it (zero if it did not have to).
    #[inline(never)] // so that a profile shows what counting takes
    pub fn waited(&self, worker: usize, wait: Duration) {
        QUEUE_WAIT.observe(self.shards.of(worker), wait);
    }

    /// Counts a finished attempt, and the time until the head of its answer if there was one. If it belongs to a recorded
    /// trace, it becomes the exemplar of its bucket.
    #[inline(never)] // so that a profile shows what counting takes
    pub fn attempt(&self, worker: usize, outcome: Outcome, until_head: Option<Duration>, traced: Option<Traced>) {
        self.shards.add(worker, ATTEMPTS + outcome_index(outcome), 1);
        let Some(took) = until_head else { return };
        let bucket = ATTEMPT_DURATION.observe(self.shards.of(worker), took);
        if let Some(traced) = traced {
            self.exemplars.keep(worker, bucket, Exemplar { value: took, traced });
        }
    }

    /// Counts a request that the backend works on though nobody waits for it any more.
    pub fn zombie(&self, worker: usize) {
        self.shards.add(worker, ZOMBIES, 1);
    }

    /// Counts an attempt that repeats one before.
    pub fn retry(&self, worker: usize) {
        self.shards.add(worker, RETRIES, 1);
    }

    /// Counts a connection taken for an attempt: a new one, or one from the pool.
    pub fn connection(&self, worker: usize, reused: bool) {
        self.shards.add(worker, CONNECTIONS + usize::from(reused), 1);
    }

    /// Counts a change of the breaker's state.
    pub fn shift(&self, worker: usize, to: State) {
        self.shards.add(worker, SHIFTS + state_index(to), 1);
    }

    /// Counts a change of gear.
    pub fn geared(&self, to: Gear) {
        self.shards.add(0, GEARED + to as usize, 1);
    }

    /// How the counters stand.
    pub fn tally(&self) -> UpstreamTally {
        let count = |outcome| self.shards.sum(ATTEMPTS + outcome_index(outcome));
        UpstreamTally {
            attempts: Outcome::ALL.into_iter().map(count).sum(),
            failed: count(Outcome::Broken) + count(Outcome::Overloaded),
            retries: self.shards.sum(RETRIES),
            took: Buckets::new(ATTEMPT_DURATION.counts(&self.shards).collect()),
        }
    }

    /// Heads of answers that came, and the bound of the bucket in which the slowest of them lies; `None`: past all bounds.
    pub fn heads(&self) -> (u64, Option<Duration>) {
        let reading = ATTEMPT_DURATION.read(&self.shards);
        let slowest = reading.cumulative.iter().find(|(_, count)| *count == reading.count);
        (reading.count, slowest.map(|(bound, _)| *bound))
    }

    /// Finished attempts, but for those that say nothing of the upstream.
    pub fn attempts(&self) -> u64 {
        let told = Outcome::ALL.into_iter().filter(|outcome| *outcome != Outcome::Ignored);
        told.map(|outcome| self.shards.sum(ATTEMPTS + outcome_index(outcome))).sum()
    }

    pub(super) fn collect(&self, to: &mut Families) {
        let name = &*self.name;
        for outcome in Outcome::ALL {
            let count = self.shards.sum(ATTEMPTS + outcome_index(outcome));
            to.count(&names::UPSTREAM_ATTEMPTS, &[name, outcome.code()], count);
        }
        to.count(&names::UPSTREAM_RETRIES, &[name], self.shards.sum(RETRIES));
        for (index, kind) in CONNECTION_KINDS.iter().enumerate() {
            to.count(&names::UPSTREAM_CONNECTIONS, &[name, kind], self.shards.sum(CONNECTIONS + index));
        }
        to.count(&names::ZOMBIES, &[name], self.shards.sum(ZOMBIES));
        to.histogram(&names::QUEUE_WAIT, &[name], &QUEUE_WAIT.read(&self.shards));
        to.histogram(&names::UPSTREAM_DURATION, &[name], &ATTEMPT_DURATION.read(&self.shards));
        for (index, state) in STATES.iter().enumerate() {
            to.count(&names::BREAKER_SHIFTS, &[name, state], self.shards.sum(SHIFTS + index));
        }
        for gear in Gear::ALL {
            to.count(&names::GEAR_SHIFTS, &[name, gear.code()], self.shards.sum(GEARED + gear as usize));
        }
        // Called without the lock: a watch may take locks of its own, and may come back to replace itself.
        let watch = self.watched.lock().clone();
        if let Some(watch) = watch {
            collect_live(name, &watch(), to);
        }
    }

    pub(super) fn exemplify(&self, to: &mut Shown) {
        to.add(&names::UPSTREAM_DURATION, &[&self.name], self.exemplars.latest(0, DURATION_BUCKETS));
    }
}

impl fmt::Debug for UpstreamMeter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UpstreamMeter").field("name", &self.name).finish_non_exhaustive()
    }
}

fn collect_live(name: &str, live: &Live, to: &mut Families) {
    for (metric, value) in [
        (&names::SLOTS, live.slots),
        (&names::SLOTS_BUSY, live.busy),
        (&names::SLOTS_ZOMBIE, live.zombie),
        (&names::QUEUE_LENGTH, live.queued),
        (&names::UPSTREAM_IDLE, live.idle_connections),
    ] {
        to.count(metric, &[name], value as u64);
    }
    if let Some(limit) = live.limit {
        to.count(&names::LIMIT_SUGGESTED, &[name], limit.suggested as u64);
        to.push(&names::LIMIT_LATENCY, &[name], limit.latency_ratio);
        to.count(&names::LIMIT_DROPS, &[name], limit.drops);
    }
    if let Some(state) = live.breaker {
        for (index, code) in STATES.iter().enumerate() {
            to.count(&names::BREAKER_STATE, &[name, code], u64::from(state_index(state) == index));
        }
    }
    if let Some((gear, strain)) = live.gear {
        for each in Gear::ALL {
            to.count(&names::GEAR, &[name, each.code()], u64::from(each == gear));
            to.count(&names::GEAR_STRAIN, &[name, each.code()], u64::from(each == strain));
        }
    }
    for endpoint in &live.endpoints {
        to.count(&names::ENDPOINT_UP, &[name, &endpoint.name], u64::from(endpoint.up));
        to.count(&names::ENDPOINT_REQUESTS, &[name, &endpoint.name], u64::from(endpoint.requests));
    }
}

const fn outcome_index(outcome: Outcome) -> usize {
    match outcome {
        Outcome::Ok => 0,
        Outcome::Business => 1,
        Outcome::Broken => 2,
        Outcome::Overloaded => 3,
        Outcome::Ignored => 4,
    }
}

/// The place of `state` in [`STATES`].
const fn state_index(state: State) -> usize {
    match state {
        State::Closed => 0,
        State::Open => 1,
        State::HalfOpen => 2,
        State::ForcedOpen => 3,
        State::ForcedClosed => 4,
    }
}

/// The label values of a breaker's state.
pub(super) const STATES: [&str; 5] = ["closed", "open", "half_open", "forced_open", "forced_closed"];

/// The label values of how an attempt came by its connection.
pub(super) const CONNECTION_KINDS: [&str; 2] = ["opened", "reused"];

// The counters of an upstream, in the order in which they lie in memory.
const ATTEMPTS: usize = 0;
const RETRIES: usize = ATTEMPTS + Outcome::ALL.len();
const ZOMBIES: usize = RETRIES + 1;
const CONNECTIONS: usize = ZOMBIES + 1;
const SHIFTS: usize = CONNECTIONS + CONNECTION_KINDS.len();
const GEARED: usize = SHIFTS + STATES.len();
const QUEUE_WAIT: Span = Span { first: GEARED + Gear::ALL.len(), bounds: names::WAITS };
const ATTEMPT_DURATION: Span = Span { first: QUEUE_WAIT.first + Span::len(names::WAITS), bounds: names::LATENCIES };
const DURATION_BUCKETS: usize = names::LATENCIES.len() + 1;
const COUNTERS: usize = ATTEMPT_DURATION.first + Span::len(names::LATENCIES);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_are_counted_in_their_order() {
        for (index, outcome) in Outcome::ALL.into_iter().enumerate() {
            assert_eq!(outcome_index(outcome), index);
        }
    }
}
