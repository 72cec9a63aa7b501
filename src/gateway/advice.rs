//! What an operator should do next: the facts of a running gateway for [`advice`], and what comes of them.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::Handle;
use crate::advice::pulse::Pulse;
use crate::advice::{self, Caches, ConsumerFacts, Facts, Finding, LimitFacts, RouteFacts, UpstreamFacts};
use crate::cache::CacheParams;
use crate::metrics::{CacheResult, ConsumerTally};
use crate::proxy::snapshot::Route;
use crate::refusal::Reason;
use crate::throttle::rate::RateLimiter;
use crate::upstream::Upstream;

/// What is looked at each second, since this configuration is in force.
#[derive(Debug, Default)]
pub(super) struct Watch {
    pulses: HashMap<Box<str>, Pulse>,
    consumers: HashMap<Box<str>, Pressed>,
}

/// What a consumer wants of the backend while requests wait.
#[derive(Debug, Default)]
struct Pressed {
    /// Its requests and demand when it was last looked at.
    last: Option<(u64, Duration)>,
    requests: u64,
    seconds: u64,
    demand: Duration,
}

impl Pressed {
    fn look(&mut self, (requests, demand): (u64, Duration), pressed: bool) {
        if let Some((requests_before, demand_before)) = self.last.replace((requests, demand))
            && pressed
        {
            self.requests += requests.saturating_sub(requests_before);
            self.demand += demand.saturating_sub(demand_before);
            self.seconds += 1;
        }
    }
}

/// What is advised.
#[derive(Debug, Clone, PartialEq)]
pub struct Advice {
    /// How long the gateway was watched under this configuration.
    pub watched: Duration,
    /// What to do, in the order of what it is worth.
    pub findings: Vec<Finding>,
}

impl Advice {
    /// For the admin API.
    pub fn view(&self) -> Value {
        let findings = self.findings.iter().map(|finding| {
            let block = finding.block.as_ref();
            json!({
                "kind": finding.kind.code(),
                "about": finding.about,
                "worth_slots": (finding.worth * 1_000.0).round() / 1_000.0,
                "advice": finding.advice,
                "evidence": finding.evidence,
                "block": block.map(|block| json!({ "below": block.place.to_string(), "toml": block.lines })),
            })
        });
        json!({ "watched_s": self.watched.as_secs(), "findings": findings.collect::<Vec<_>>() })
    }
}

impl Handle {
    /// What an operator should do next, on the ground of the traffic since this configuration is in force.
    pub fn advice(&self) -> Advice {
        let facts = self.facts();
        Advice { watched: facts.watched, findings: advice::advise(&facts) }
    }

    /// Looks how busy everything is; once a second, by upkeep.
    pub(super) fn watch(&self) {
        let snapshot = self.snapshot();
        let mut watch = self.0.watch.lock();
        let mut pressed = false;
        for upstream in self.upstreams() {
            let stats = upstream.slots.stats();
            watch.pulses.entry(upstream.name.clone()).or_default().look(stats.busy + stats.zombie, stats.queued);
            pressed |= stats.queued > 0;
        }
        for caller in snapshot.callers() {
            let tally = caller.meter.tally();
            let wanted = (tally.served + tally.refused, tally.upstream + tally.queued);
            watch.consumers.entry(caller.name.clone()).or_default().look(wanted, pressed);
        }
    }

    fn facts(&self) -> Facts {
        let (snapshot, core) = (self.snapshot(), &self.0.core);
        let mut told = core.observer.told();
        let route = |route: &Route| {
            let count = |results: &[CacheResult]| results.iter().map(|result| route.meter.count(*result)).sum();
            RouteFacts {
                name: route.name.to_string(),
                upstream: route.upstream.name.to_string(),
                caches: match &route.cache {
                    None => Caches::No,
                    Some(params) if *params == CacheParams::default() => Caches::Plain,
                    Some(_) => Caches::Own,
                },
                requests: count(&CacheResult::ALL),
                stored: count(&STORED),
                passed: count(&[CacheResult::Pass, CacheResult::Bypass]),
                why: core.observer.why(route.number),
                rate: route
                    .rate
                    .as_ref()
                    .filter(|rate| is_told(&rate.limiter))
                    .map(|_| route.meter.refused(Reason::RateExceeded) + route.meter.delayed()),
                seen: told.remove(&route.number).unwrap_or_default(),
            }
        };
        let routes = snapshot.routes.iter().map(route).collect();
        let late = |upstream: &Upstream| {
            let of_it = snapshot.routes.iter().filter(|route| route.upstream.name == upstream.name);
            of_it.map(|route| route.meter.refused(Reason::UpstreamTimeout)).sum()
        };
        let watch = self.0.watch.lock();
        let upstreams = self.upstreams();
        let upstreams = upstreams.iter().map(|upstream| facts_of(upstream, &watch, late(upstream))).collect();
        let consumers = snapshot.callers().enumerate().map(|(index, caller)| {
            let ConsumerTally { served, refused, .. } = caller.meter.tally();
            let pressed = watch.consumers.get(&caller.name);
            ConsumerFacts {
                name: caller.name.to_string(),
                weight: caller.weight,
                is_known: index < snapshot.known.len(),
                requests: served + refused,
                rate: caller.rate.as_ref().filter(|rate| is_told(&rate.limiter)).map(|_| refused),
                pressed_requests: pressed.map_or(0, |pressed| pressed.requests),
                pressed_seconds: pressed.map_or(0, |pressed| pressed.seconds),
                pressed: pressed.map_or(Duration::ZERO, |pressed| pressed.demand),
            }
        });
        Facts {
            watched: core.clock.now().saturating_duration_since(core.observer.began()),
            observes: core.observer.is_on(),
            routes,
            upstreams,
            consumers: consumers.collect(),
        }
    }
}

/// Whether counts tell that a rate was reached: what one in shadow, or one that holds back, does is counted by route.
const fn is_told(limiter: &RateLimiter) -> bool {
    limiter.mode().counts() && limiter.delay().is_none()
}

fn facts_of(upstream: &Upstream, watch: &Watch, late: u64) -> UpstreamFacts {
    let stats = upstream.slots.stats();
    let (answers, slowest) = upstream.meter.heads();
    let totals = stats.totals;
    UpstreamFacts {
        name: upstream.name.to_string(),
        slots: stats.all,
        limit: stats.limit.map(|limit| LimitFacts {
            suggested: limit.suggested,
            shadow: limit.shadow,
            answers: limit.reading.answers,
            latency_ratio: limit.reading.inflation.exp(),
        }),
        pulse: watch.pulses.get(&upstream.name).cloned().unwrap_or_default(),
        typical: stats.typical,
        granted: totals.granted,
        refused: totals.full + totals.hopeless + totals.timeout + totals.shortened,
        answers,
        slowest,
        // An attempt that never got a head may have been a timeout that a retry repaired.
        late: late + upstream.meter.attempts().saturating_sub(answers),
        connect_timeout: upstream.timeouts.connect,
        head_timeout: upstream.timeouts.head,
        total_timeout: upstream.timeouts.total,
    }
}

/// Answered from the store, or with what was put there.
const STORED: [CacheResult; 6] = [
    CacheResult::Hit,
    CacheResult::Stale,
    CacheResult::StaleError,
    CacheResult::Revalidated,
    CacheResult::Miss,
    CacheResult::Collapsed,
];
