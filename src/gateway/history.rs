//! The last minutes of a gateway: what happened between two looks at its counters. Pure.
//!
//! | what | looked at every | kept for |
//! |---|---|---|
//! | upstreams: traffic, latencies, slots (the curves) | 2 s | 5 minutes, of the first 64 |
//! | routes and consumers (what they do in a minute) | 10 s | a minute |
//!
//! It is kept whether somebody looks or not, so that a page just opened has curves: a look adds up a few hundred counters
//! for each route, and the curves of an upstream are 15 KiB.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::metrics::{Buckets, ConsumerTally, RouteTally, UpstreamTally};

/// What was looked at, and when.
#[derive(Debug, Default)]
pub(super) struct History {
    upstreams: BTreeMap<Box<str>, Track>,
    /// How often upstreams were looked at so far.
    looks: u64,
    last: Option<Instant>,
    minute: VecDeque<(Instant, Totals)>,
}

/// The counters of all routes and consumers, by name.
#[derive(Debug, Clone, Default)]
pub(super) struct Totals {
    pub(super) routes: BTreeMap<Box<str>, RouteTally>,
    pub(super) upstreams: BTreeMap<Box<str>, UpstreamTally>,
    pub(super) consumers: BTreeMap<Box<str>, ConsumerTally>,
}

/// One look at an upstream.
#[derive(Debug, Clone, Default)]
pub(super) struct Look {
    /// The requests of its routes.
    pub(super) clients: RouteTally,
    pub(super) backend: UpstreamTally,
    pub(super) slots: usize,
    pub(super) busy: usize,
    pub(super) zombie: usize,
    pub(super) queued: usize,
    pub(super) gear: &'static str,
}

#[derive(Debug, Default)]
struct Track {
    /// The counters, so far back that a latency has enough to go by.
    recent: VecDeque<(Instant, RouteTally, UpstreamTally)>,
    points: VecDeque<Point>,
}

/// A moment of an upstream.
#[derive(Debug, Clone, Copy)]
struct Point {
    look: u64,
    requests: f64,
    hits: f64,
    refused: f64,
    latency: Latency,
    slots: usize,
    busy: usize,
    zombie: usize,
    queued: usize,
    gear: &'static str,
}

/// Quantiles of durations in milliseconds; none: there were none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Latency {
    /// The median.
    pub p50_ms: Option<f64>,
    /// Exceeded by one in twenty.
    pub p95_ms: Option<f64>,
    /// Exceeded by one in a hundred.
    pub p99_ms: Option<f64>,
}

/// The curves of an upstream: lists of equal length, the newest last, one value for each [`Status::step_ms`].
///
/// [`Status::step_ms`]: super::status::Status::step_ms
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Curves {
    /// The number of the newest value, which counts up.
    pub newest: u64,
    /// Finished requests per second.
    pub requests_per_s: Vec<f64>,
    /// Those of them from the store.
    pub hits_per_s: Vec<f64>,
    /// Those of them that vaxel answered by itself.
    pub refused_per_s: Vec<f64>,
    /// Median of the time until the head of an answer of the upstream, over the last ten seconds.
    pub p50_ms: Vec<Option<f64>>,
    /// Its 95th percentile.
    pub p95_ms: Vec<Option<f64>>,
    /// Its 99th percentile.
    pub p99_ms: Vec<Option<f64>>,
    /// Slots there were.
    pub slots: Vec<usize>,
    /// Those at work for somebody.
    pub busy: Vec<usize>,
    /// Those at work for nobody any more.
    pub zombie: Vec<usize>,
    /// Requests that waited.
    pub queued: Vec<usize>,
    /// Its gear.
    pub gear: Vec<&'static str>,
}

impl Latency {
    /// Of `took`.
    pub(super) fn of(took: &Buckets) -> Self {
        let quantile = |q| took.quantile(q).map(|took| rounded(took.as_secs_f64() * 1000.0));
        Self { p50_ms: quantile(0.5), p95_ms: quantile(0.95), p99_ms: quantile(0.99) }
    }
}

/// To three places: what is shown is no more exact, and is sent often.
pub(super) fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

impl History {
    /// Whether it is time to look at the upstreams again, and whether at all the rest as well.
    pub(super) fn is_due(&self, now: Instant) -> (bool, bool) {
        let since =
            |last: Option<Instant>, step| last.is_none_or(|last| now.saturating_duration_since(last) + SLACK >= step);
        (since(self.last, STEP), since(self.minute.back().map(|(at, _)| *at), MINUTE_STEP))
    }

    /// Takes a look at the upstreams; forgets those that are not in it.
    pub(super) fn look(&mut self, now: Instant, looks: Vec<(Box<str>, Look)>) {
        self.last = Some(now);
        self.looks += 1;
        let mut before = std::mem::take(&mut self.upstreams);
        for (name, look) in looks.into_iter().take(UPSTREAMS) {
            let mut track = before.remove(&name).unwrap_or_default();
            track.look(now, self.looks, look);
            self.upstreams.insert(name, track);
        }
    }

    /// Takes a look at all the rest.
    pub(super) fn note(&mut self, now: Instant, totals: Totals) {
        self.minute.push_back((now, totals));
        while self.minute.len() > MINUTE_LOOKS {
            self.minute.pop_front();
        }
    }

    /// The oldest look that is kept of all the rest, and how long ago it was.
    pub(super) fn minute_ago(&self, now: Instant) -> Option<(Duration, &Totals)> {
        let (at, totals) = self.minute.front()?;
        Some((now.saturating_duration_since(*at), totals))
    }

    /// The curves of an upstream.
    pub(super) fn curves(&self, upstream: &str) -> Curves {
        let mut curves = Curves::default();
        let points = self.upstreams.get(upstream).map(|track| track.points.iter());
        points.into_iter().flatten().for_each(|point| curves.push(point));
        curves
    }
}

impl Track {
    fn look(&mut self, now: Instant, number: u64, look: Look) {
        let Look { clients, backend, slots, busy, zombie, queued, gear } = look;
        if let Some((at, last, _)) = self.recent.back() {
            let seconds = now.saturating_duration_since(*at).as_secs_f64().max(f64::MIN_POSITIVE);
            let passed = clients.since(last);
            let per_second = |count: u64| rounded(count as f64 / seconds);
            let oldest = self.recent.front().map(|(_, _, backend)| backend.clone()).unwrap_or_default();
            self.points.push_back(Point {
                look: number,
                requests: per_second(passed.requests),
                hits: per_second(passed.hits),
                refused: per_second(passed.refused),
                latency: Latency::of(&backend.since(&oldest).took),
                slots,
                busy,
                zombie,
                queued,
                gear,
            });
        }
        self.recent.push_back((now, clients, backend));
        while self.recent.len() > RECENT_LOOKS {
            self.recent.pop_front();
        }
        while self.points.len() > POINTS {
            self.points.pop_front();
        }
    }
}

impl Curves {
    fn push(&mut self, point: &Point) {
        self.newest = point.look;
        self.requests_per_s.push(point.requests);
        self.hits_per_s.push(point.hits);
        self.refused_per_s.push(point.refused);
        self.p50_ms.push(point.latency.p50_ms);
        self.p95_ms.push(point.latency.p95_ms);
        self.p99_ms.push(point.latency.p99_ms);
        self.slots.push(point.slots);
        self.busy.push(point.busy);
        self.zombie.push(point.zombie);
        self.queued.push(point.queued);
        self.gear.push(point.gear);
    }
}

/// Between two looks at the upstreams: a curve of five minutes then has as many values as a small picture has pixels.
pub(super) const STEP: Duration = Duration::from_secs(2);
/// Values in a curve: five minutes.
const POINTS: usize = 150;
/// Looks that latencies go by: ten seconds, as a backend that answers once a second shows nothing in two.
const RECENT_LOOKS: usize = 5;
/// Upstreams that have curves.
const UPSTREAMS: usize = 64;
/// Between two looks at all the rest.
const MINUTE_STEP: Duration = Duration::from_secs(10);
/// The oldest of them is a minute old, and up to ten seconds more.
const MINUTE_LOOKS: usize = 7;
/// Who is called every second is called a little more or less than a second later.
const SLACK: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    fn look(requests: u64) -> Look {
        let clients = RouteTally { requests, cacheable: requests, hits: requests / 2, ..RouteTally::default() };
        Look { clients, slots: 8, busy: 3, gear: "drive", ..Look::default() }
    }

    #[test]
    fn a_curve_has_what_happened_between_two_looks() {
        let (mut history, begin) = (History::default(), Clock::default().now());
        for index in 0..4 {
            history.look(begin + STEP * index, vec![("erp".into(), look(u64::from(index * index) * 100))]);
        }
        let curves = history.curves("erp");
        assert_eq!(curves.requests_per_s, [50.0, 150.0, 250.0]);
        assert_eq!((curves.newest, &*curves.busy, &*curves.p50_ms), (4, &[3, 3, 3][..], &[None; 3][..]));
        assert_eq!(history.curves("crm"), Curves::default());
    }

    #[test]
    fn it_is_bounded_and_forgets_what_is_gone() {
        let (mut history, begin) = (History::default(), Clock::default().now());
        let names = |from: usize| (from..from + 100).map(|index| (format!("u{index:03}").into(), look(1))).collect();
        for index in 0..400 {
            history.look(begin + STEP * index, names(0));
            history.note(begin + STEP * index, Totals::default());
        }
        assert_eq!(history.upstreams.len(), UPSTREAMS);
        assert_eq!(history.curves("u000").busy.len(), POINTS);
        assert_eq!(history.minute.len(), MINUTE_LOOKS);
        history.look(begin + STEP * 400, names(50));
        assert_eq!(history.curves("u000"), Curves::default());
        assert_eq!(history.curves("u050").busy.len(), POINTS);
    }

    #[test]
    fn upstreams_are_looked_at_every_other_second() {
        let (mut history, begin) = (History::default(), Clock::default().now());
        let ms = |ms| begin + Duration::from_millis(ms);
        assert_eq!(history.is_due(begin), (true, true));
        history.look(begin, Vec::new());
        history.note(begin, Totals::default());
        assert_eq!(history.is_due(ms(1003)), (false, false));
        assert_eq!(history.is_due(ms(1998)), (true, false));
        assert_eq!(history.is_due(ms(9990)), (true, true));
        assert_eq!(history.minute_ago(ms(9990)).map(|(ago, _)| ago), Some(Duration::from_millis(9990)));
    }
}
