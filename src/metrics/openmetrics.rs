//! The OpenMetrics text format, version 1.0.0: the only text in which a bucket may carry an exemplar. The `prometheus`
//! crate writes only the format before it.
//!
//! What differs: a counter's family is named without `_total`, a unit is declared, what only carries labels is an `info`,
//! bounds are floats (`1.0`), and the text ends with `# EOF`.

use std::borrow::Cow;
use std::fmt::{Display, Write as _};
use std::time::SystemTime;

use http::{HeaderMap, header};
use prometheus::proto::{self, MetricType};

use super::exemplar::{Exemplar, Shown};

/// How metrics are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// The text exposition format of Prometheus, version 0.0.4.
    Text,
    /// OpenMetrics, version 1.0.0, with exemplars.
    OpenMetrics,
}

impl Format {
    /// What a scraper prefers by its `Accept` (RFC 9110 section 12.5.1). It gets OpenMetrics only where it names it, not for
    /// a wildcard: a browser or curl reads the plain text.
    pub fn accepted(headers: &HeaderMap) -> Self {
        let (mut open, mut plain) = (0.0, 0.0);
        let fields = headers.get_all(header::ACCEPT).iter().filter_map(|field| field.to_str().ok());
        for range in fields.flat_map(|field| field.split(',')) {
            let mut parts = range.split(';').map(str::trim);
            let media = parts.next().unwrap_or_default();
            let (mut quality, mut version) = (1.0_f64, None);
            for (name, value) in parts.filter_map(|part| part.split_once('=')) {
                match name.trim().to_ascii_lowercase().as_str() {
                    "q" => quality = value.trim().parse().unwrap_or(0.0),
                    "version" => version = Some(value.trim().trim_matches('"')),
                    _ => {}
                }
            }
            if media.eq_ignore_ascii_case("application/openmetrics-text") && matches!(version, None | Some("1.0.0")) {
                open = quality.max(open);
            } else if media.eq_ignore_ascii_case("text/plain") && matches!(version, None | Some("0.0.4")) {
                plain = quality.max(plain);
            }
        }
        if open > 0.0 && open >= plain { Self::OpenMetrics } else { Self::Text }
    }

    /// The value of Content-Type.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// Writes `families`, and `exemplars` where they belong.
pub(super) fn encode(families: &[proto::MetricFamily], exemplars: &Shown) -> String {
    let mut text = String::new();
    for family in families {
        Writer::new(family, &mut text).family(family, exemplars);
    }
    text.push_str("# EOF\n");
    text
}

/// Writes one family. Writing to a string cannot fail, so results are let go.
struct Writer<'a> {
    /// Without `_total` or `_info`.
    name: &'a str,
    kind: &'static str,
    to: &'a mut String,
}

impl<'a> Writer<'a> {
    fn new(family: &'a proto::MetricFamily, to: &'a mut String) -> Self {
        let name = family.name();
        let (kind, name) = match family.get_field_type() {
            MetricType::COUNTER => ("counter", name.strip_suffix("_total").unwrap_or(name)),
            MetricType::GAUGE => match name.strip_suffix("_info") {
                Some(name) => ("info", name),
                None => ("gauge", name),
            },
            MetricType::HISTOGRAM => ("histogram", name),
            MetricType::SUMMARY => ("summary", name),
            MetricType::UNTYPED => ("unknown", name),
        };
        Self { name, kind, to }
    }

    fn family(mut self, family: &proto::MetricFamily, exemplars: &Shown) {
        let name = self.name;
        let _ = writeln!(self.to, "# TYPE {name} {}", self.kind);
        if let Some(unit) = UNITS.iter().find(|unit| name.strip_suffix(**unit).is_some_and(|stem| stem.ends_with('_')))
        {
            let _ = writeln!(self.to, "# UNIT {name} {unit}");
        }
        let _ = writeln!(self.to, "# HELP {name} {}", escaped(family.help()));
        for metric in family.get_metric() {
            match family.get_field_type() {
                MetricType::COUNTER => self.sample("_total", metric, None, metric.get_counter().get_value(), None),
                MetricType::GAUGE if self.kind == "info" => {
                    self.sample("_info", metric, None, metric.get_gauge().get_value(), None);
                }
                MetricType::GAUGE => self.sample("", metric, None, metric.get_gauge().get_value(), None),
                MetricType::HISTOGRAM => self.histogram(metric, exemplars),
                MetricType::SUMMARY => self.summary(metric),
                MetricType::UNTYPED => {}
            }
        }
    }

    fn histogram(&mut self, metric: &proto::Metric, exemplars: &Shown) {
        let labels: Vec<_> = metric.get_label().iter().map(|pair| pair.value().to_owned()).collect();
        let mut exemplars = exemplars.find(self.name, &labels).iter().copied();
        let histogram = metric.get_histogram();
        for bucket in histogram.get_bucket() {
            let (bound, count) = (bucket.upper_bound(), bucket.cumulative_count());
            self.sample("_bucket", metric, Some(("le", bound)), count, exemplars.next().flatten());
        }
        let (count, above) = (histogram.get_sample_count(), Some(("le", f64::INFINITY)));
        self.sample("_bucket", metric, above, count, exemplars.next().flatten());
        self.sample("_sum", metric, None, histogram.get_sample_sum(), None);
        self.sample("_count", metric, None, count, None);
    }

    fn summary(&mut self, metric: &proto::Metric) {
        let summary = metric.get_summary();
        for quantile in summary.get_quantile() {
            self.sample("", metric, Some(("quantile", quantile.quantile())), quantile.value(), None);
        }
        self.sample("_sum", metric, None, summary.sample_sum(), None);
        self.sample("_count", metric, None, summary.sample_count(), None);
    }

    fn sample(
        &mut self,
        suffix: &str,
        metric: &proto::Metric,
        extra: Option<(&str, f64)>,
        value: impl Into<Number>,
        exemplar: Option<Exemplar>,
    ) {
        let _ = write!(self.to, "{}{suffix}", self.name);
        let mut before = '{';
        for pair in metric.get_label() {
            let _ = write!(self.to, "{before}{}=\"{}\"", pair.name(), escaped(pair.value()));
            before = ',';
        }
        if let Some((name, bound)) = extra {
            let _ = write!(self.to, "{before}{name}=\"{}\"", Number::Float(bound));
            before = ',';
        }
        let end = if before == ',' { "}" } else { "" };
        let _ = write!(self.to, "{end} {}", value.into());
        if let Some(Exemplar { value, traced }) = exemplar {
            let at = traced.at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            let trace = traced.trace;
            let _ = write!(self.to, " # {{trace_id=\"{trace}\"}} {} {}", value.as_secs_f64(), at.as_secs_f64());
        }
        self.to.push('\n');
    }
}

/// A value: counts are written as integers, and floats so that they are seen to be floats.
enum Number {
    Count(u64),
    Float(f64),
}

impl From<u64> for Number {
    fn from(count: u64) -> Self {
        Self::Count(count)
    }
}

impl From<f64> for Number {
    fn from(float: f64) -> Self {
        Self::Float(float)
    }
}

impl Display for Number {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match *self {
            Self::Count(count) => write!(f, "{count}"),
            Self::Float(float) if float == f64::INFINITY => f.write_str("+Inf"),
            Self::Float(float) if float == f64::NEG_INFINITY => f.write_str("-Inf"),
            // `Debug` keeps the point of a whole number.
            Self::Float(float) => write!(f, "{float:?}"),
        }
    }
}

fn escaped(text: &str) -> Cow<'_, str> {
    if !text.contains(['\\', '"', '\n']) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}

/// The units of ours and of the process; a family that ends in one is in it.
const UNITS: [&str; 2] = ["seconds", "bytes"];

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::time::Duration;

    use http::HeaderValue;
    use proptest::prelude::*;

    use super::super::exposition::{Samples, busy, parse};
    use super::super::{Facts, Metrics, Traced, plain};
    use super::*;
    use crate::message::trace::{TRACEPARENT, TraceId};
    use crate::outcome::Outcome;

    #[track_caller]
    fn check(accept: &str, expected: Format) {
        let headers = HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_str(accept).unwrap())]);
        assert_eq!(Format::accepted(&headers), expected, "{accept}");
    }

    #[test]
    fn a_scraper_gets_openmetrics_only_if_it_asks_for_it() {
        use Format::{OpenMetrics, Text};
        assert_eq!(Format::accepted(&HeaderMap::new()), Text);
        // Prometheus 2.42 and 3.0.
        check(
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
             text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            OpenMetrics,
        );
        check(
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
             application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;q=0.3,text/plain;version=0.0.4;q=0.2",
            OpenMetrics,
        );
        check("Application/OpenMetrics-Text", OpenMetrics);
        check("application/openmetrics-text; version=\"1.0.0\"", OpenMetrics);
        check("application/openmetrics-text;version=0.0.1", Text);
        check("application/openmetrics-text;version=2.0.0", Text);
        check("application/openmetrics-text;q=0", Text);
        check("application/openmetrics-text;q=none", Text);
        check("text/plain, application/openmetrics-text;q=0.5", Text);
        check("text/plain;q=0.4, application/openmetrics-text;q=0.5", OpenMetrics);
        check("text/html,*/*;q=0.8", Text);
        check("*/*", Text);
    }

    /// Reads OpenMetrics back to what the plain text says, and holds it to what is asked of it beyond that.
    fn read(text: &str) -> Samples {
        let body = text.strip_suffix("# EOF\n").expect("the text ends with its mark");
        let (mut samples, mut kinds) = (Samples::new(), HashMap::new());
        let mut family = "";
        for line in body.lines() {
            if let Some(about) = line.strip_prefix("# TYPE ") {
                let (name, kind) = about.split_once(' ').expect(line);
                assert!(kinds.insert(name, kind).is_none(), "twice: {line}");
                assert!(!name.ends_with("_total") && !name.ends_with("_info"), "{line}");
                family = name;
                continue;
            }
            if let Some(about) = line.strip_prefix("# UNIT ") {
                let (name, unit) = about.split_once(' ').expect(line);
                assert!(name == family && name.ends_with(&format!("_{unit}")), "{line}");
                continue;
            }
            if let Some(help) = line.strip_prefix("# HELP ") {
                assert_eq!(help.split_once(' ').expect(line).0, family);
                continue;
            }
            let sample = line.split(" # ").next().expect(line);
            let (series, value) = sample.rsplit_once(' ').expect(line);
            let name = series.split('{').next().expect(line);
            let suffix = name.strip_prefix(family).expect(line);
            let suffixes: &[&str] = match kinds[family] {
                "counter" => &["_total"],
                "info" => &["_info"],
                "gauge" => &[""],
                "histogram" => &["_bucket", "_sum", "_count"],
                _ => panic!("{line}"),
            };
            assert!(suffixes.contains(&suffix), "{line}");
            assert!(sample.len() == line.len() || matches!(suffix, "_bucket" | "_total"), "{line}");
            // The canonical bound has a point; the plain text has none for a whole number.
            let series = series.rsplit_once("le=\"").map_or_else(
                || series.to_owned(),
                |(before, bound)| format!("{before}le=\"{}", bound.replace(".0\"", "\"")),
            );
            assert!(samples.insert(series, value.parse().expect(line)).is_none(), "twice: {line}");
        }
        samples
    }

    fn ours(samples: Samples) -> Samples {
        samples.into_iter().filter(|(series, _)| series.starts_with("vaxel_")).collect()
    }

    #[test]
    fn both_formats_say_the_same() {
        let metrics = busy();
        assert_eq!(ours(read(&metrics.expose(Format::OpenMetrics))), ours(parse(&metrics.expose(Format::Text))));
    }

    #[test]
    fn units_and_infos_are_declared() {
        let text = busy().expose(Format::OpenMetrics);
        for part in [
            "# TYPE vaxel_request_duration_seconds histogram\n# UNIT vaxel_request_duration_seconds seconds\n",
            "# TYPE vaxel_response_bytes counter\n# UNIT vaxel_response_bytes bytes\n",
            "# TYPE vaxel_route info\n# HELP vaxel_route ",
            "vaxel_route_info{route=\"orders\",upstream=\"erp\"} 1.0\n",
            "# TYPE vaxel_build info\n",
            ",le=\"1.0\"} ",
            ",le=\"+Inf\"} ",
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
    }

    fn traced(trace: u128, seconds: u64) -> Traced {
        let field = HeaderValue::from_str(&format!("00-{trace:032x}-00f067aa0ba902b7-01")).unwrap();
        let trace = TraceId::sampled(&HeaderMap::from_iter([(TRACEPARENT, field)])).unwrap();
        Traced { trace, at: SystemTime::UNIX_EPOCH + Duration::from_millis(1_000 * seconds + 500) }
    }

    #[test]
    fn the_last_recorded_trace_is_the_exemplar_of_its_bucket() {
        let metrics = Metrics::new(2);
        let (route, upstream) = (metrics.route("orders", "erp"), metrics.upstream("erp"));
        for (worker, trace, took) in [(0, 1, 80), (1, 2, 90), (0, 3, 61_000_000)] {
            let duration = Duration::from_micros(took);
            route.record(worker, &Facts { duration, traced: Some(traced(trace, trace as u64)), ..plain() });
        }
        route.record(0, &Facts { duration: Duration::from_micros(70), ..plain() });
        upstream.attempt(0, Outcome::Ok, Some(Duration::from_millis(1)), Some(traced(4, 4)));
        let text = metrics.expose(Format::OpenMetrics);
        read(&text);
        let found: Vec<_> = text.lines().filter(|line| line.contains("trace_id")).collect();
        let id = |trace: u8| format!("# {{trace_id=\"{trace:032x}\"}}");
        let bucket = r#"vaxel_request_duration_seconds_bucket{route="orders",cache="hit",le="#;
        assert_eq!(
            found,
            [
                format!("{bucket}\"0.0001\"}} 3 {} 0.00009 2.5", id(2)),
                format!("{bucket}\"+Inf\"}} 4 {} 61 3.5", id(3)),
                format!(r#"vaxel_upstream_duration_seconds_bucket{{upstream="erp",le="0.001"}} 1 {} 0.001 4.5"#, id(4)),
            ],
            "{text}"
        );
        assert!(!metrics.expose(Format::Text).contains("trace_id"), "the plain text knows no exemplars");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn any_configured_name_is_the_same_in_both_formats(name in any::<String>()) {
            // A line of the format ends at LF alone, `lines` also drops a CR before it; the reader here splits plainly.
            prop_assume!(!name.contains(['\r', '{', '}', '#', '"']));
            let metrics = Metrics::new(1);
            metrics.route(&name, &name).record(0, &plain());
            metrics.consumer(&name);
            prop_assert_eq!(ours(read(&metrics.expose(Format::OpenMetrics))), ours(parse(&metrics.gather())));
        }
    }
}
