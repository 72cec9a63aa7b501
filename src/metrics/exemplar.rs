//! Exemplars: for each bucket of a latency histogram the last request that fell into it and whose trace is recorded, so
//! that a graph leads to a trace.
//!
//! Only a request that belongs to a recorded trace comes here. It takes a lock that no other worker takes.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;

use super::facts::Traced;
use super::names::Metric;

/// One observation and its trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Exemplar {
    pub(super) value: Duration,
    pub(super) traced: Traced,
}

/// The exemplars of the buckets of histograms, by the name of the metric and the values of its labels. The `prometheus`
/// crate knows no exemplars, so they take their own way to the text. A histogram without any is not in it.
#[derive(Debug, Default)]
pub(super) struct Shown(HashMap<&'static str, HashMap<Vec<String>, Vec<Option<Exemplar>>>>);

impl Shown {
    /// Adds those of one histogram.
    pub(super) fn add(&mut self, metric: &Metric, labels: &[&str], buckets: Vec<Option<Exemplar>>) {
        if buckets.iter().any(Option::is_some) {
            let labels = labels.iter().map(|label| (*label).to_owned()).collect();
            self.0.entry(metric.name).or_default().insert(labels, buckets);
        }
    }

    /// Those of the histogram `name` with the values `labels`, one for each bucket.
    pub(super) fn find(&self, name: &str, labels: &[String]) -> &[Option<Exemplar>] {
        self.0.get(name).and_then(|histograms| histograms.get(labels)).map_or(&[], Vec::as_slice)
    }
}

/// The last exemplar in each place, once per worker; no memory before the first.
#[derive(Debug)]
pub(super) struct Exemplars {
    places: usize,
    shards: Box<[Mutex<Vec<Option<Exemplar>>>]>,
}

impl Exemplars {
    /// `places` places for each of `workers` workers, all empty.
    pub(super) fn new(workers: usize, places: usize) -> Self {
        Self { places, shards: (0..workers.max(1)).map(|_| Mutex::default()).collect() }
    }

    /// Keeps `exemplar` in `place`, instead of the one before. A worker that does not exist shares a shard; a place that
    /// does not exist keeps nothing.
    pub(super) fn keep(&self, worker: usize, place: usize, exemplar: Exemplar) {
        let Some(shard) = self.shards.get(worker % self.shards.len()) else { return };
        let mut kept = shard.lock();
        if kept.is_empty() {
            kept.resize(self.places, None);
        }
        if let Some(kept) = kept.get_mut(place) {
            *kept = Some(exemplar);
        }
    }

    /// The latest of all workers in `count` places from `first` on.
    pub(super) fn latest(&self, first: usize, count: usize) -> Vec<Option<Exemplar>> {
        let mut latest = vec![None; count];
        for shard in &self.shards {
            for (latest, kept) in latest.iter_mut().zip(shard.lock().iter().skip(first)) {
                let newer = |kept: &Exemplar| latest.is_none_or(|latest: Exemplar| latest.traced.at <= kept.traced.at);
                *latest = kept.filter(newer).or(*latest);
            }
        }
        latest
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};

    use std::time::SystemTime;

    use super::*;
    use crate::message::trace::{TRACEPARENT, TraceId};

    fn exemplar(trace: u128, second: u64) -> Exemplar {
        let field = HeaderValue::from_str(&format!("00-{trace:032x}-00f067aa0ba902b7-01")).unwrap();
        let trace = TraceId::sampled(&HeaderMap::from_iter([(TRACEPARENT, field)])).unwrap();
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(second);
        Exemplar { value: Duration::from_millis(5), traced: Traced { trace, at } }
    }

    #[test]
    fn the_latest_of_all_workers_is_shown() {
        let exemplars = Exemplars::new(2, 4);
        assert_eq!(exemplars.latest(1, 2), [None, None]);
        exemplars.keep(0, 1, exemplar(1, 10));
        exemplars.keep(1, 1, exemplar(2, 9));
        exemplars.keep(1, 2, exemplar(3, 9));
        exemplars.keep(3, 2, exemplar(4, 11));
        exemplars.keep(0, 4, exemplar(5, 12));
        assert_eq!(exemplars.latest(1, 2), [Some(exemplar(1, 10)), Some(exemplar(4, 11))]);
        assert_eq!(exemplars.latest(3, 1), [None]);
    }
}
