//! The bridge to `prometheus`: sums the shards when somebody scrapes.

use std::collections::HashMap;
use std::sync::Arc;

use prometheus::core::{Collector, Desc};
use prometheus::proto;

use super::State;
use super::names::{Kind, METRICS, Metric};
use super::shard::Reading;

/// Registered once per gateway; reads everything the meters counted.
pub(super) struct Shed {
    state: Arc<State>,
    descriptions: Vec<Desc>,
}

impl Shed {
    pub(super) fn new(state: Arc<State>) -> Self {
        let descriptions = METRICS
            .iter()
            .map(|metric| {
                let labels = metric.labels.iter().map(|label| (*label).to_owned()).collect();
                Desc::new(metric.name.to_owned(), metric.help.to_owned(), labels, HashMap::new())
                    .expect("the names, labels and help texts of the table are valid: a test scrapes them all")
            })
            .collect();
        Self { state, descriptions }
    }
}

impl Collector for Shed {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<proto::MetricFamily> {
        let mut families = Families::default();
        self.state.collect(&mut families);
        families.finish()
    }
}

/// The samples of one scrape.
#[derive(Debug, Default)]
pub(super) struct Families(HashMap<&'static str, (Metric, Vec<proto::Metric>)>);

impl Families {
    /// Adds a whole number.
    pub(super) fn count(&mut self, metric: &Metric, labels: &[&str], value: u64) {
        // Exact up to 2^53; the exposition format knows no other numbers than floats.
        self.push(metric, labels, value as f64);
    }

    /// Adds a number.
    pub(super) fn push(&mut self, metric: &Metric, labels: &[&str], value: f64) {
        let mut sample = labelled(metric, labels);
        if metric.kind == Kind::Counter {
            let mut counter = proto::Counter::default();
            counter.set_value(value);
            sample.set_counter(counter);
        } else {
            let mut gauge = proto::Gauge::default();
            gauge.set_value(value);
            sample.set_gauge(gauge);
        }
        self.add(metric, sample);
    }

    /// Adds a histogram.
    pub(super) fn histogram(&mut self, metric: &Metric, labels: &[&str], reading: &Reading) {
        let mut histogram = proto::Histogram::default();
        let buckets = reading.cumulative.iter().map(|(bound, count)| {
            let mut bucket = proto::Bucket::default();
            bucket.set_upper_bound(bound.as_secs_f64());
            bucket.set_cumulative_count(*count);
            bucket
        });
        histogram.set_bucket(buckets.collect());
        histogram.set_sample_count(reading.count);
        histogram.set_sample_sum(reading.sum.as_secs_f64());
        let mut sample = labelled(metric, labels);
        sample.set_histogram(histogram);
        self.add(metric, sample);
    }

    fn add(&mut self, metric: &Metric, sample: proto::Metric) {
        self.0.entry(metric.name).or_insert_with(|| (*metric, Vec::new())).1.push(sample);
    }

    fn finish(self) -> Vec<proto::MetricFamily> {
        let family = |(metric, samples): (Metric, Vec<proto::Metric>)| {
            let mut family = proto::MetricFamily::default();
            family.set_name(metric.name.to_owned());
            family.set_help(metric.help.to_owned());
            family.set_field_type(match metric.kind {
                Kind::Counter => proto::MetricType::COUNTER,
                Kind::Gauge => proto::MetricType::GAUGE,
                Kind::Histogram => proto::MetricType::HISTOGRAM,
            });
            family.set_metric(samples);
            family
        };
        self.0.into_values().map(family).collect()
    }
}

fn labelled(metric: &Metric, values: &[&str]) -> proto::Metric {
    debug_assert_eq!(metric.labels.len(), values.len(), "{}", metric.name);
    let labels = metric.labels.iter().zip(values).map(|(name, value)| {
        let mut pair = proto::LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    });
    proto::Metric::from_label(labels.collect())
}
