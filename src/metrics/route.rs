//! What is counted for a route and for a consumer.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::collector::Families;
use super::exemplar::{Exemplar, Exemplars, Shown};
use super::facts::{CODES, CacheEvent, CacheResult, Ending, Facts, METHODS, Pace, Wait, code_index, method_index};
use super::names;
use super::shard::{Shards, Span};
use super::tally::{Buckets, ConsumerTally, RouteTally};
use crate::refusal::Reason;

/// The counters of one route. Survives reloads: the same name is the same meter.
#[derive(Debug)]
pub struct RouteMeter {
    name: Box<str>,
    upstream: Mutex<Box<str>>,
    shards: Shards,
    /// For each bucket of the durations.
    exemplars: Exemplars,
    harvests: AtomicU64,
}

impl RouteMeter {
    pub(super) fn new(name: &str, workers: usize) -> Self {
        Self {
            name: name.into(),
            upstream: Mutex::default(),
            shards: Shards::new(workers, COUNTERS),
            exemplars: Exemplars::new(workers, Pace::ALL.len() * BUCKETS),
            harvests: AtomicU64::new(0),
        }
    }

    /// The upstream the route leads to now: a reload may move it.
    pub(super) fn lead_to(&self, upstream: &str) {
        *self.upstream.lock() = upstream.into();
    }

    /// The name of the route.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Counts a finished exchange: four adds, one or two more for each of a request's body, a refusal, an abort and a delay. If it belongs
    /// to a recorded trace, it becomes the exemplar of its bucket.
    #[inline(never)] // so that a profile shows what counting takes
    pub fn record(&self, worker: usize, facts: &Facts<'_>) {
        let shard = self.shards.of(worker);
        let request = request_index(method_index(facts.method), code_index(facts.status), facts.cache);
        shard.add(request, 1);
        let pace = facts.cache.pace();
        let bucket = duration(pace).observe(shard, facts.duration);
        if let Some(traced) = facts.traced {
            let exemplar = Exemplar { value: facts.duration, traced };
            self.exemplars.keep(worker, pace as usize * BUCKETS + bucket, exemplar);
        }
        if facts.request_bytes > 0 {
            shard.add(REQUEST_BYTES, facts.request_bytes);
        }
        shard.add(RESPONSE_BYTES, facts.response_bytes);
        if let Some(reason) = facts.reason {
            shard.add(REFUSALS + reason as usize, 1);
        }
        if facts.ending == Ending::Aborted {
            shard.add(ABORTS, 1);
        }
        if let Some(delayed) = facts.delayed {
            shard.add(DELAYS, 1);
            shard.add(DELAY_TIME, u64::try_from(delayed.as_nanos()).unwrap_or(u64::MAX));
        }
    }

    /// Counts a refusal that was only thought of: the policy is in shadow mode.
    pub fn shadow(&self, worker: usize, reason: Reason) {
        self.shards.add(worker, SHADOWS + reason as usize, 1);
    }

    /// Counts a wait that was only thought of.
    pub fn shadow_wait(&self, worker: usize, wait: Wait) {
        self.shards.add(worker, SHADOW_WAITS + wait as usize, 1);
    }

    /// Counts what a rule of the cache did.
    pub fn event(&self, worker: usize, event: CacheEvent) {
        self.shards.add(worker, EVENTS + event as usize, 1);
    }

    /// How many finished exchanges had this result.
    pub fn count(&self, cache: CacheResult) -> u64 {
        let places = (0..METHODS.len()).flat_map(|method| (0..CODES.len()).map(move |code| (method, code)));
        places.map(|(method, code)| self.shards.sum(request_index(method, code, cache))).sum()
    }

    /// How the counters stand.
    pub fn tally(&self) -> RouteTally {
        let mut took = Buckets::default();
        let mut by_pace = [0; Pace::ALL.len()];
        for (pace, count) in Pace::ALL.into_iter().zip(&mut by_pace) {
            let counts: Vec<_> = duration(pace).counts(&self.shards).collect();
            *count = counts.iter().sum();
            took.add(&Buckets::new(counts));
        }
        let [hits, missed, passed] = by_pace;
        let requests = hits + missed + passed;
        let refused = (0..Reason::ALL.len()).map(|reason| self.shards.sum(REFUSALS + reason)).sum();
        RouteTally { requests, cacheable: requests.saturating_sub(self.count(CacheResult::Off)), hits, refused, took }
    }

    /// How many finished exchanges were refused for this reason, or would have been.
    pub fn refused(&self, reason: Reason) -> u64 {
        self.shards.sum(REFUSALS + reason as usize) + self.shards.sum(SHADOWS + reason as usize)
    }

    /// How many exchanges were held back by a rate.
    pub fn delayed(&self) -> u64 {
        self.shards.sum(DELAYS)
    }

    /// Counts an answer that was stored though it came too late for everybody who had waited. Rare: no shard.
    pub fn harvested(&self) {
        self.harvests.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn collect(&self, to: &mut Families) {
        let name = &*self.name;
        to.push(&names::ROUTE_INFO, &[name, &self.upstream.lock()], 1.0);
        let mut by_code = [0; CODES.len()];
        for cache in CacheResult::ALL {
            let mut total = 0;
            for (method, method_label) in METHODS.iter().enumerate() {
                for (code, (code_label, of_code)) in CODES.iter().zip(&mut by_code).enumerate() {
                    let count = self.shards.sum(request_index(method, code, cache));
                    total += count;
                    *of_code += count;
                    // Most of the combinations never happen; a series for each would cost the scraper, not us.
                    if count > 0 {
                        to.count(&names::REQUESTS, &[name, method_label, code_label, cache.code()], count);
                    }
                }
            }
            to.count(&names::CACHE_REQUESTS, &[name, cache.code()], total);
        }
        for (code, count) in CODES.iter().zip(by_code) {
            to.count(&names::RESPONSES, &[name, code], count);
        }
        for pace in Pace::ALL {
            to.histogram(&names::REQUEST_DURATION, &[name, pace.code()], &duration(pace).read(&self.shards));
        }
        to.count(&names::REQUEST_BYTES, &[name], self.shards.sum(REQUEST_BYTES));
        to.count(&names::RESPONSE_BYTES, &[name], self.shards.sum(RESPONSE_BYTES));
        to.count(&names::CACHE_HARVESTS, &[name], self.harvests.load(Ordering::Relaxed));
        to.count(&names::CLIENT_ABORTS, &[name], self.shards.sum(ABORTS));
        to.count(&names::DELAYS, &[name], self.shards.sum(DELAYS));
        to.push(&names::DELAY_TIME, &[name], Duration::from_nanos(self.shards.sum(DELAY_TIME)).as_secs_f64());
        for wait in Wait::ALL {
            let count = self.shards.sum(SHADOW_WAITS + wait as usize);
            if count > 0 {
                to.count(&names::SHADOW_WAITS, &[name, wait.code()], count);
            }
        }
        for event in CacheEvent::ALL {
            let count = self.shards.sum(EVENTS + event as usize);
            if count > 0 {
                to.count(&names::CACHE_EVENTS, &[name, event.code()], count);
            }
        }
        for reason in Reason::ALL {
            for (metric, first) in [(&names::REFUSALS, REFUSALS), (&names::SHADOW_REFUSALS, SHADOWS)] {
                let count = self.shards.sum(first + *reason as usize);
                if count > 0 {
                    to.count(metric, &[name, reason.code()], count);
                }
            }
        }
    }

    pub(super) fn exemplify(&self, to: &mut Shown) {
        for pace in Pace::ALL {
            let latest = self.exemplars.latest(pace as usize * BUCKETS, BUCKETS);
            to.add(&names::REQUEST_DURATION, &[&self.name, pace.code()], latest);
        }
    }
}

/// The counters of one consumer.
#[derive(Debug)]
pub struct ConsumerMeter {
    name: Box<str>,
    shards: Shards,
}

impl ConsumerMeter {
    pub(super) fn new(name: &str, workers: usize) -> Self {
        Self { name: name.into(), shards: Shards::new(workers, CONSUMER_COUNTERS) }
    }

    /// Counts a finished exchange: served, or refused by vaxel itself, and what it cost the backend. One add, and up to
    /// two more if the upstream was asked.
    #[inline(never)] // so that a profile shows what counting takes
    pub fn record(&self, worker: usize, facts: &Facts<'_>) {
        let shard = self.shards.of(worker);
        shard.add(usize::from(facts.reason.is_some()), 1);
        for (counter, time) in [(UPSTREAM_TIME, facts.upstream_time), (QUEUE_TIME, facts.queued)] {
            if let Some(time) = time {
                shard.add(counter, u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
            }
        }
    }

    /// How the counters stand.
    pub fn tally(&self) -> ConsumerTally {
        let time = |counter| Duration::from_nanos(self.shards.sum(counter));
        ConsumerTally {
            served: self.shards.sum(0),
            refused: self.shards.sum(1),
            upstream: time(UPSTREAM_TIME),
            queued: time(QUEUE_TIME),
        }
    }

    pub(super) fn collect(&self, to: &mut Families) {
        for (index, result) in CONSUMER_RESULTS.iter().enumerate() {
            to.count(&names::CONSUMER_REQUESTS, &[&self.name, result], self.shards.sum(index));
        }
        for (metric, counter) in [(&names::CONSUMER_UPSTREAM, UPSTREAM_TIME), (&names::CONSUMER_QUEUE, QUEUE_TIME)] {
            to.push(metric, &[&self.name], Duration::from_nanos(self.shards.sum(counter)).as_secs_f64());
        }
    }
}

const fn request_index(method: usize, code: usize, cache: CacheResult) -> usize {
    (cache as usize * METHODS.len() + method) * CODES.len() + code
}

const fn duration(pace: Pace) -> Span {
    Span { first: DURATIONS + pace as usize * Span::len(names::LATENCIES), bounds: names::LATENCIES }
}

/// What becomes of a consumer's request.
pub(super) const CONSUMER_RESULTS: [&str; 2] = ["served", "refused"];

// The counters of a consumer: the results, then nanoseconds.
const UPSTREAM_TIME: usize = CONSUMER_RESULTS.len();
const QUEUE_TIME: usize = UPSTREAM_TIME + 1;
const CONSUMER_COUNTERS: usize = QUEUE_TIME + 1;

/// Buckets of a duration.
const BUCKETS: usize = names::LATENCIES.len() + 1;

// The counters of a route, in the order in which they lie in memory: those that every request touches stand first.
const REQUESTS: usize = CacheResult::ALL.len() * METHODS.len() * CODES.len();
const RESPONSE_BYTES: usize = REQUESTS;
const REQUEST_BYTES: usize = RESPONSE_BYTES + 1;
const ABORTS: usize = REQUEST_BYTES + 1;
const DURATIONS: usize = ABORTS + 1;
const REFUSALS: usize = DURATIONS + Pace::ALL.len() * Span::len(names::LATENCIES);
const SHADOWS: usize = REFUSALS + Reason::ALL.len();
const EVENTS: usize = SHADOWS + Reason::ALL.len();
const DELAYS: usize = EVENTS + CacheEvent::ALL.len();
const DELAY_TIME: usize = DELAYS + 1;
const SHADOW_WAITS: usize = DELAY_TIME + 1;
const COUNTERS: usize = SHADOW_WAITS + Wait::ALL.len();

/// The facts of a plain request, for tests.
#[cfg(test)]
pub(crate) fn plain<'a>() -> Facts<'a> {
    Facts {
        method: &http::Method::GET,
        status: http::StatusCode::OK,
        cache: CacheResult::Hit,
        reason: None,
        duration: Duration::from_micros(80),
        delayed: None,
        upstream_time: None,
        queued: None,
        request_bytes: 0,
        response_bytes: 0,
        attempts: 0,
        ending: Ending::Whole,
        traced: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_stand_in_the_order_of_their_number() {
        for (index, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, index);
        }
    }

    #[test]
    fn no_two_things_are_counted_in_one_place() {
        let mut places = Vec::new();
        for cache in CacheResult::ALL {
            for method in 0..METHODS.len() {
                places.extend((0..CODES.len()).map(|code| request_index(method, code, cache)));
            }
        }
        places.extend([REQUEST_BYTES, RESPONSE_BYTES, ABORTS]);
        for pace in Pace::ALL {
            let span = duration(pace);
            places.extend(span.first..span.first + Span::len(span.bounds));
        }
        places.extend(REFUSALS..REFUSALS + Reason::ALL.len());
        places.extend(SHADOWS..SHADOWS + Reason::ALL.len());
        places.extend(EVENTS..EVENTS + CacheEvent::ALL.len());
        places.extend([DELAYS, DELAY_TIME]);
        places.extend(SHADOW_WAITS..SHADOW_WAITS + Wait::ALL.len());
        places.sort_unstable();
        assert_eq!(places, (0..COUNTERS).collect::<Vec<_>>());
    }
}
