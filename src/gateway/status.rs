//! How a gateway stands: one document for the live page, `vaxel top` and `vaxel status`.
//!
//! What is counted is shown as what happened in about the last minute; curves go back five minutes. It is bounded: of
//! many routes and consumers the busiest are in it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use serde::Serialize;
use serde_json::Value;

use super::Handle;
use super::history::{Curves, Latency, Look, STEP, Totals, rounded};
use super::steer::UpstreamReport;
use crate::clock::Moment;
use crate::metrics::{ConsumerTally, QuotaLive, RouteTally};
use crate::proxy::journal::SLOW;
use crate::proxy::snapshot::{Caller, Snapshot};
use crate::throttle::SlotsParams;
use crate::upstream::Upstream;

/// How a gateway stands.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Status {
    /// Milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// What is said per second happened in so many seconds.
    pub window_s: f64,
    /// Milliseconds between two values of a curve.
    pub step_ms: u64,
    /// All requests.
    pub traffic: Traffic,
    /// The upstreams, in the order of the configuration.
    pub upstreams: Vec<UpstreamStatus>,
    /// The busiest routes, the busiest first.
    pub routes: Vec<RouteStatus>,
    /// How many routes there are.
    pub routes_in_all: usize,
    /// The consumers that cost the backends most, the costliest first.
    pub consumers: Vec<ConsumerStatus>,
    /// How many consumers there are; those who are none of the configured ones count as one.
    pub consumers_in_all: usize,
    /// The store.
    pub cache: StoreStatus,
    /// The latest requests that vaxel answered by itself.
    pub refused: Vec<Value>,
    /// The latest others that took long.
    pub slow: Vec<Value>,
}

/// What clients asked for and got.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Traffic {
    /// Finished requests per second.
    pub requests_per_s: f64,
    /// Those of them that vaxel answered by itself.
    pub refused_per_s: f64,
    /// The share of those on routes that cache that came from the store without waiting; none: there were none.
    pub hit_ratio: Option<f64>,
    /// From the head of a request to the end of its answer.
    #[serde(flatten)]
    pub latency: Latency,
}

/// How an upstream stands.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct UpstreamStatus {
    /// As in the list of the upstreams.
    #[serde(flatten)]
    pub report: UpstreamReport,
    /// Slots there would be in drive.
    pub slots_in_all: usize,
    /// Slots kept free for classes.
    pub reserved: usize,
    /// Requests that may wait.
    pub queue_room: usize,
    /// Whether the number of slots adapts: `off`, `shadow`, `enforce`.
    pub adaptive: &'static str,
    /// The number of slots the adaptive limit finds right.
    pub suggested: Option<usize>,
    /// The requests of its routes.
    pub traffic: Traffic,
    /// What it answered.
    pub answers: Answers,
    /// Its windows.
    pub windows: Vec<WindowStatus>,
    /// The last minutes.
    pub curves: Curves,
}

/// What an upstream answered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Answers {
    /// Finished attempts per second.
    pub attempts_per_s: f64,
    /// Those of them that say that it is sick.
    pub failed_per_s: f64,
    /// Those of them that repeated one before.
    pub retries_per_s: f64,
    /// From the begin of an attempt to the head of its answer.
    #[serde(flatten)]
    pub latency: Latency,
}

/// A window of the calendar.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WindowStatus {
    /// Its name.
    pub window: String,
    /// Its gear.
    pub gear: &'static str,
    /// Whether it refuses writes.
    pub refuses_writes: bool,
    /// Whether it is open.
    pub open: bool,
    /// When it began, or begins next, in milliseconds since the Unix epoch; none: not within a year.
    pub begins_ms: Option<u64>,
    /// When it ends then.
    pub ends_ms: Option<u64>,
}

/// What a route did.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RouteStatus {
    /// Its name.
    pub route: String,
    /// Where it leads.
    pub upstream: String,
    /// Whether it caches.
    pub caches: bool,
    /// Its requests.
    #[serde(flatten)]
    pub traffic: Traffic,
}

/// What a consumer did.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ConsumerStatus {
    /// Its name; `anonymous` for all who are none of the configured ones.
    pub consumer: String,
    /// Its share of a scarce backend is this, beside the weights of the others.
    pub weight: u32,
    /// Its class, where it is not the route's.
    pub class: Option<&'static str>,
    /// Requests served per second.
    pub served_per_s: f64,
    /// Requests refused per second.
    pub refused_per_s: f64,
    /// Slots it had at work on average.
    pub slots: f64,
    /// Its share (0 to 1) of what all together had; none: nobody had any.
    pub share: Option<f64>,
    /// Requests of it that waited for a slot, on average.
    pub waiting: f64,
    /// Its quotas.
    pub quotas: Vec<QuotaStatus>,
}

/// How a consumer stands with a quota.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct QuotaStatus {
    /// `hour`, `day` or `month`.
    pub per: &'static str,
    /// What was used of the present one.
    pub used: u64,
    /// What there is.
    pub limit: u64,
}

/// How the store stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct StoreStatus {
    /// Stored answers, and what is remembered of others.
    pub entries: u64,
    /// What they weigh.
    pub bytes: u64,
    /// What they may weigh.
    pub capacity: u64,
    /// Answers that had to go to make room, since the start.
    pub evictions: u64,
    /// Bytes of answers that are just arriving.
    pub fills: u64,
}

impl Handle {
    /// How it stands. [`Handle::upkeep`] takes the looks that it is made of.
    pub fn status(&self) -> Status {
        let (snapshot, moment, totals) = (self.snapshot(), self.clock().moment(), self.totals());
        let history = self.0.history.lock();
        let (window, before) = match history.minute_ago(moment.mono) {
            Some((window, before)) => (window.max(Duration::from_secs(1)), before.clone()),
            None => (Duration::from_secs(1), totals.clone()),
        };
        let passed = Passed { seconds: window.as_secs_f64(), totals, before };
        let curves = |upstream: &Upstream| history.curves(&upstream.name);
        let upstreams = self.upstreams().into_iter().map(|upstream| (curves(&upstream), upstream)).collect::<Vec<_>>();
        drop(history);
        let stats = self.0.core.store.stats();
        let mut all = RouteTally::default();
        passed.routes().for_each(|(_, tally)| all.add(&tally));
        let (consumers, consumers_in_all) = passed.consumers(&snapshot, &self.quotas(moment.wall));
        Status {
            at_ms: millis(moment.wall),
            window_s: rounded(passed.seconds),
            step_ms: STEP.as_millis() as u64,
            traffic: passed.traffic(&all),
            upstreams: upstreams
                .into_iter()
                .map(|(curves, of)| self.stands(&of, curves, &passed, &snapshot, moment))
                .collect(),
            routes: passed.busiest(&snapshot),
            routes_in_all: snapshot.routes.len(),
            consumers,
            consumers_in_all,
            cache: StoreStatus {
                entries: stats.slots,
                bytes: stats.bytes,
                capacity: stats.capacity,
                evictions: stats.evicted,
                fills: self.0.core.flights.bytes(),
            },
            refused: self.told(|account| account.reason.is_some()),
            slow: self.told(|account| account.reason.is_none() && account.duration >= SLOW),
        }
    }

    /// Takes a look at the counters if it is time to; called about once a second.
    pub(super) fn look(&self, now: Instant) {
        let (upstreams, rest) = self.0.history.lock().is_due(now);
        if upstreams {
            let looks = self.looks();
            self.0.history.lock().look(now, looks);
        }
        if rest {
            let totals = self.totals();
            self.0.history.lock().note(now, totals);
        }
    }

    fn looks(&self) -> Vec<(Box<str>, Look)> {
        let snapshot = self.snapshot();
        let mut clients = BTreeMap::<&str, RouteTally>::new();
        for route in &snapshot.routes {
            clients.entry(&route.upstream.name).or_default().add(&route.meter.tally());
        }
        let mut look = |upstream: &Upstream| {
            let stats = upstream.slots.stats();
            Look {
                clients: clients.remove(&*upstream.name).unwrap_or_default(),
                backend: upstream.meter.tally(),
                slots: stats.slots,
                busy: stats.busy,
                zombie: stats.zombie,
                queued: stats.queued,
                gear: upstream.gears.now().gear.code(),
            }
        };
        self.upstreams().iter().map(|upstream| (upstream.name.clone(), look(upstream))).collect()
    }

    fn totals(&self) -> Totals {
        let snapshot = self.snapshot();
        let callers = snapshot.callers();
        let routes = snapshot.routes.iter().map(|route| (route.name.clone(), route.meter.tally()));
        Totals {
            routes: routes.chain([(NOWHERE.into(), snapshot.unrouted.tally())]).collect(),
            upstreams: self.upstreams().iter().map(|of| (of.name.clone(), of.meter.tally())).collect(),
            consumers: callers.map(|caller| (caller.name.clone(), caller.meter.tally())).collect(),
        }
    }

    fn stands(
        &self,
        upstream: &Upstream,
        curves: Curves,
        passed: &Passed,
        snapshot: &Snapshot,
        moment: Moment,
    ) -> UpstreamStatus {
        let params = self.slots_params(&upstream.name).unwrap_or_default();
        let stats = upstream.slots.stats();
        let adaptive = stats.limit.map_or("off", |limit| if limit.shadow { "shadow" } else { "enforce" });
        let mut clients = RouteTally::default();
        for route in snapshot.routes.iter().filter(|route| route.upstream.name == upstream.name) {
            clients.add(&passed.route(&route.name));
        }
        UpstreamStatus {
            report: self.upstream_report(upstream),
            slots_in_all: stats.all,
            reserved: params.reserve.iter().map(|kept| *kept as usize).sum(),
            queue_room: upstream.queue,
            adaptive,
            suggested: stats.limit.map(|limit| limit.suggested),
            traffic: passed.traffic(&clients),
            answers: passed.answers(&upstream.name),
            windows: windows(upstream, moment.wall),
            curves,
        }
    }

    fn told(&self, wanted: impl Fn(&super::why::Account) -> bool) -> Vec<Value> {
        self.accounts_that(TOLD, wanted).iter().map(super::why::Account::summary).collect()
    }

    fn slots_params(&self, upstream: &str) -> Option<SlotsParams> {
        self.0.built.lock().slots(upstream)
    }

    fn quotas(&self, now: SystemTime) -> Vec<QuotaLive> {
        self.0.built.lock().standing(now)
    }
}

/// What has happened in the last minute.
struct Passed {
    seconds: f64,
    totals: Totals,
    before: Totals,
}

impl Passed {
    fn per_s(&self, count: u64) -> f64 {
        rounded(count as f64 / self.seconds)
    }

    fn route(&self, name: &str) -> RouteTally {
        let now = self.totals.routes.get(name).cloned().unwrap_or_default();
        self.before.routes.get(name).map_or_else(|| now.clone(), |before| now.since(before))
    }

    fn routes(&self) -> impl Iterator<Item = (&str, RouteTally)> {
        self.totals.routes.keys().map(|name| (&**name, self.route(name)))
    }

    fn traffic(&self, tally: &RouteTally) -> Traffic {
        Traffic {
            requests_per_s: self.per_s(tally.requests),
            refused_per_s: self.per_s(tally.refused),
            hit_ratio: tally.hit_ratio().map(rounded),
            latency: Latency::of(&tally.took),
        }
    }

    fn answers(&self, upstream: &str) -> Answers {
        let now = self.totals.upstreams.get(upstream).cloned().unwrap_or_default();
        let passed = self.before.upstreams.get(upstream).map_or_else(|| now.clone(), |before| now.since(before));
        Answers {
            attempts_per_s: self.per_s(passed.attempts),
            failed_per_s: self.per_s(passed.failed),
            retries_per_s: self.per_s(passed.retries),
            latency: Latency::of(&passed.took),
        }
    }

    fn busiest(&self, snapshot: &Snapshot) -> Vec<RouteStatus> {
        let mut routes: Vec<_> = snapshot.routes.iter().map(|route| (self.route(&route.name), route)).collect();
        routes.sort_by_key(|(tally, _)| std::cmp::Reverse(tally.requests));
        routes.truncate(ROUTES);
        let status = routes.into_iter().map(|(tally, route)| RouteStatus {
            route: route.name.to_string(),
            upstream: route.upstream.name.to_string(),
            caches: route.cache.is_some(),
            traffic: self.traffic(&tally),
        });
        status.collect()
    }

    /// The costliest, and how many there are.
    fn consumers(&self, snapshot: &Snapshot, quotas: &[QuotaLive]) -> (Vec<ConsumerStatus>, usize) {
        let callers = snapshot.callers();
        let mut callers: Vec<_> = callers.map(|caller| (self.consumer(&caller.name), caller)).collect();
        let all: Duration = callers.iter().map(|(tally, _)| tally.upstream).sum();
        let count = callers.len();
        callers.sort_by_key(|(tally, _)| std::cmp::Reverse((tally.upstream, tally.served + tally.refused)));
        callers.truncate(CONSUMERS);
        let status = callers.iter().map(|(tally, caller)| self.consumes(tally, caller, all, quotas));
        (status.collect(), count)
    }

    fn consumer(&self, name: &str) -> ConsumerTally {
        let now = self.totals.consumers.get(name).copied().unwrap_or_default();
        now.since(&self.before.consumers.get(name).copied().unwrap_or_default())
    }

    fn consumes(&self, tally: &ConsumerTally, caller: &Caller, all: Duration, quotas: &[QuotaLive]) -> ConsumerStatus {
        let share = tally.upstream.as_secs_f64() / all.as_secs_f64();
        let quotas = quotas.iter().filter(|quota| *quota.consumer == *caller.name);
        ConsumerStatus {
            consumer: caller.name.to_string(),
            weight: caller.weight,
            class: caller.class.map(|class| class.word()),
            served_per_s: self.per_s(tally.served),
            refused_per_s: self.per_s(tally.refused),
            slots: rounded(tally.upstream.as_secs_f64() / self.seconds),
            share: share.is_finite().then(|| rounded(share)),
            waiting: rounded(tally.queued.as_secs_f64() / self.seconds),
            quotas: quotas.map(|quota| QuotaStatus { per: quota.per, used: quota.used, limit: quota.limit }).collect(),
        }
    }
}

fn windows(upstream: &Upstream, now: SystemTime) -> Vec<WindowStatus> {
    let status = upstream.gears.calendar(now).into_iter().map(|(window, next)| WindowStatus {
        window: window.name,
        gear: window.gear.code(),
        refuses_writes: window.refuses_writes,
        open: next.is_some_and(|(begin, _)| begin <= now),
        begins_ms: next.map(|(begin, _)| millis(begin)),
        ends_ms: next.map(|(_, end)| millis(end)),
    });
    status.collect()
}

/// Since the Unix epoch.
fn millis(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// What the requests without a route are known by here: no route has an empty name.
const NOWHERE: &str = "";
/// Routes told of: a page's worth.
const ROUTES: usize = 50;
/// Consumers told of.
const CONSUMERS: usize = 50;
/// Requests told of in each list.
const TOLD: usize = 12;
