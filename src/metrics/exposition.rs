//! A strict reader of the text exposition format (Prometheus, version 0.0.4), and what it must find in ours.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use http::{Method, StatusCode};
use proptest::prelude::*;

use super::names::{Kind, METRICS, PROCESS_METRICS};
use super::*;
use crate::breaker;
use crate::gear::Gear;
use crate::outcome::Outcome;
use crate::refusal::Reason;

/// A sample's name and labels as written, and its value.
pub(super) type Samples = BTreeMap<String, f64>;

/// Reads `text` and holds it to what `promtool check metrics` asks, and more: help and type once and before the
/// samples, families in one piece, no sample twice, labels escaped, buckets cumulative and ending at the count.
pub(super) fn parse(text: &str) -> Samples {
    assert!(text.ends_with('\n'), "the last line must end");
    let mut samples = Samples::new();
    let mut families: HashMap<&str, &str> = HashMap::new();
    let mut helped = HashSet::new();
    let mut family = "";
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, help) = help.split_once(' ').expect(line);
            assert!(!help.is_empty() && helped.insert(name), "{line}");
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').expect(line);
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert!(helped.contains(name), "no help before {line}");
            assert!(families.insert(name, kind).is_none(), "twice: {line}");
            family = name;
        } else {
            let (series, value) = line.rsplit_once(' ').expect(line);
            let value: f64 = value.parse().expect(line);
            assert!(value.is_finite() && value >= 0.0, "{line}");
            let name = check_series(series);
            let suffixes: &[&str] =
                if families[family] == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
            assert!(
                suffixes.iter().any(|suffix| name.strip_suffix(suffix) == Some(family)),
                "{line} is not of {family}"
            );
            assert!(samples.insert(series.to_owned(), value).is_none(), "twice: {line}");
        }
    }
    for (name, kind) in families {
        if kind == "histogram" {
            check_histogram(name, text);
        }
    }
    samples
}

/// Checks the syntax of `name{label="value",…}` and returns the name.
fn check_series(series: &str) -> &str {
    let Some((name, labels)) = series.split_once('{') else {
        return series;
    };
    let mut rest = labels.strip_suffix('}').expect(series);
    let mut seen = HashSet::new();
    while !rest.is_empty() {
        let (label, value) = rest.split_once("=\"").expect(series);
        assert!(label.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{series}");
        assert!(seen.insert(label), "{series}");
        let mut escaped = false;
        let end = value
            .find(|char| match (escaped, char) {
                (true, char) => {
                    assert!(matches!(char, '\\' | '"' | 'n'), "{series}");
                    escaped = false;
                    false
                }
                (false, '\\') => {
                    escaped = true;
                    false
                }
                (false, char) => char == '"',
            })
            .expect(series);
        rest = &value[end + 1..];
        rest = rest.strip_prefix(',').unwrap_or(rest);
    }
    name
}

/// The buckets of each series of `name` grow with their bound, end at `+Inf`, and there equal the count.
fn check_histogram(name: &str, text: &str) {
    let bucket = format!("{name}_bucket{{");
    let mut last: Option<(String, f64, f64)> = None;
    for line in text.lines().filter(|line| line.starts_with(&bucket)) {
        let (labels, value) = line[bucket.len()..].rsplit_once("} ").expect(line);
        let (labels, bound) = labels.rsplit_once("le=\"").expect("le is the last label");
        let bound: f64 = bound.trim_end_matches('"').parse().expect(line);
        let value: f64 = value.parse().expect(line);
        if let Some((before, lower, count)) = &last
            && before == labels
        {
            assert!(bound > *lower && value >= *count, "{line}");
        }
        if bound.is_infinite() {
            let labels = labels.trim_end_matches(',');
            let count = if labels.is_empty() { format!("{name}_count ") } else { format!("{name}_count{{{labels}}} ") };
            let count = text.lines().find_map(|line| line.strip_prefix(&count)).expect(line);
            assert_eq!(count.parse(), Ok(value), "{line}");
            last = None;
        } else {
            last = Some((labels.to_owned(), bound, value));
        }
    }
    assert!(last.is_none(), "{name} has no +Inf");
}

#[track_caller]
fn check(metrics: &Metrics, expected: &[(&str, f64)]) {
    let text = metrics.gather();
    let samples = parse(&text);
    for (series, value) in expected {
        assert_eq!(samples.get(*series), Some(value), "{series} in\n{text}");
    }
}

/// Metrics in which everything there is has happened.
pub(super) fn busy() -> Metrics {
    let metrics = Metrics::new(2);
    let meter = metrics.route("orders", "erp");
    meter.record(0, &Facts { request_bytes: 7, response_bytes: 11, ..plain() });
    meter.record(1, &Facts { status: StatusCode::SERVICE_UNAVAILABLE, reason: Some(Reason::QueueFull), ..plain() });
    meter.record(5, &Facts { method: &Method::TRACE, cache: CacheResult::Off, ending: Ending::Aborted, ..plain() });
    meter.shadow(0, Reason::RateExceeded);
    meter.shadow_wait(0, Wait::Queue);
    CacheEvent::ALL.into_iter().for_each(|event| meter.event(0, event));
    meter.harvested();
    let costly = Facts {
        delayed: Some(Duration::from_millis(250)),
        upstream_time: Some(Duration::from_millis(1_500)),
        queued: Some(Duration::from_millis(250)),
        ..plain()
    };
    metrics.consumer("webshop").record(0, &costly);
    metrics.anonymous().record(1, &Facts { reason: Some(Reason::QueueFull), ..plain() });
    let upstream = metrics.upstream("erp");
    upstream.waited(0, Duration::ZERO);
    upstream.attempt(0, Outcome::Broken, None, None);
    upstream.attempt(1, Outcome::Ok, Some(Duration::from_millis(40)), None);
    upstream.retry(1);
    upstream.zombie(0);
    upstream.connection(0, false);
    upstream.connection(1, true);
    upstream.shift(0, breaker::State::Open);
    upstream.geared(Gear::Limp);
    upstream.watch(Box::new(|| Live {
        slots: 12,
        limit: Some(LimitLive { suggested: 14, latency_ratio: 1.25, drops: 2 }),
        busy: 3,
        zombie: 1,
        queued: 4,
        idle_connections: 5,
        breaker: Some(breaker::State::HalfOpen),
        gear: Some((Gear::Eco, Gear::Limp)),
        endpoints: vec![EndpointLive { name: "http://10.0.0.5:8000".to_owned(), up: true, requests: 4 }],
    }));
    let listener = metrics.listener("0.0.0.0:8443");
    listener.accepted(0);
    listener.accepted(1);
    listener.closed(1);
    listener.refused(0, ConnectionRefusal::Limit);
    listener.handshake(0, Handshake::Failed);
    metrics.watch_cache(Box::new(|| CacheLive { bytes: 10, capacity: 20, entries: 1, evictions: 2, fills: 3 }));
    metrics.store().purged(Extent::Route, true, 3);
    metrics.store().saved(Some(512), SystemTime::UNIX_EPOCH + Duration::from_millis(2_500));
    metrics.store().saved(None, SystemTime::UNIX_EPOCH);
    metrics.store().restored(6);
    metrics.state().saved(false);
    metrics
        .watch_quotas(Box::new(|| vec![QuotaLive { consumer: "webshop".to_owned(), per: "day", used: 8, limit: 100 }]));
    metrics.watch_access_log(Box::new(|| 9));
    metrics.watch_traces(Box::new(|| [1, 2, 3]));
    metrics.watch_certificates(Box::new(|| {
        let (listener, certificate) = ("0.0.0.0:8443".to_owned(), "site.pem".to_owned());
        vec![CertificateLive { listener, certificate, expiry: SystemTime::UNIX_EPOCH + Duration::from_secs(7) }]
    }));
    metrics.worker(1).late(Duration::from_millis(3));
    metrics.worker(1).watch_busy(|| Duration::from_millis(2_500));
    metrics.configured(u64::MAX);
    metrics.panicked();
    metrics.reloaded(true, SystemTime::UNIX_EPOCH + Duration::from_millis(1_500));
    metrics.reloaded(false, SystemTime::UNIX_EPOCH);
    metrics
}

#[test]
fn everything_that_is_counted_is_shown() {
    check(
        &busy(),
        &[
            (r#"vaxel_requests_total{route="orders",method="GET",code="2xx",cache="hit"}"#, 1.0),
            (r#"vaxel_requests_total{route="orders",method="GET",code="5xx",cache="hit"}"#, 1.0),
            (r#"vaxel_requests_total{route="orders",method="_other",code="2xx",cache="off"}"#, 1.0),
            (r#"vaxel_responses_total{route="orders",code="2xx"}"#, 2.0),
            (r#"vaxel_responses_total{route="orders",code="5xx"}"#, 1.0),
            (r#"vaxel_responses_total{route="orders",code="1xx"}"#, 0.0),
            (r#"vaxel_cache_requests_total{route="orders",result="hit"}"#, 2.0),
            (r#"vaxel_cache_requests_total{route="orders",result="miss"}"#, 0.0),
            (r#"vaxel_request_duration_seconds_bucket{route="orders",cache="hit",le="0.0001"}"#, 2.0),
            (r#"vaxel_request_duration_seconds_count{route="orders",cache="pass"}"#, 1.0),
            (r#"vaxel_request_duration_seconds_sum{route="orders",cache="hit"}"#, 0.00016),
            (r#"vaxel_request_bytes_total{route="orders"}"#, 7.0),
            (r#"vaxel_response_bytes_total{route="orders"}"#, 11.0),
            (r#"vaxel_refusals_total{route="orders",reason="queue.full"}"#, 1.0),
            (r#"vaxel_shadow_refusals_total{route="orders",reason="rate.exceeded"}"#, 1.0),
            (r#"vaxel_shadow_waits_total{route="orders",policy="queue"}"#, 1.0),
            (r#"vaxel_client_aborts_total{route="orders"}"#, 1.0),
            (r#"vaxel_cache_harvests_total{route="orders"}"#, 1.0),
            (r#"vaxel_consumer_upstream_seconds_total{consumer="webshop"}"#, 1.5),
            (r#"vaxel_consumer_queue_seconds_total{consumer="webshop"}"#, 0.25),
            (r#"vaxel_consumer_upstream_seconds_total{consumer="_anonymous"}"#, 0.0),
            (r#"vaxel_zombies_total{upstream="erp"}"#, 1.0),
            (r#"vaxel_endpoint_requests{upstream="erp",endpoint="http://10.0.0.5:8000"}"#, 4.0),
            (r#"vaxel_worker_busy_seconds_total{worker="1"}"#, 2.5),
            (r#"vaxel_worker_lag_seconds_bucket{worker="1",le="0.002"}"#, 0.0),
            (r#"vaxel_worker_lag_seconds_bucket{worker="1",le="0.005"}"#, 1.0),
            ("vaxel_config_hash", 281_474_976_710_655.0),
            ("vaxel_config_last_reload_successful", 0.0),
            (r#"vaxel_route_info{route="orders",upstream="erp"}"#, 1.0),
            (r#"vaxel_consumer_requests_total{consumer="webshop",result="served"}"#, 1.0),
            (r#"vaxel_consumer_requests_total{consumer="_anonymous",result="refused"}"#, 1.0),
            (r#"vaxel_queue_wait_seconds_bucket{upstream="erp",le="0.001"}"#, 1.0),
            (r#"vaxel_upstream_attempts_total{upstream="erp",outcome="broken"}"#, 1.0),
            (r#"vaxel_upstream_attempts_total{upstream="erp",outcome="ok"}"#, 1.0),
            (r#"vaxel_upstream_duration_seconds_count{upstream="erp"}"#, 1.0),
            (r#"vaxel_upstream_retries_total{upstream="erp"}"#, 1.0),
            (r#"vaxel_upstream_connections_total{upstream="erp",kind="opened"}"#, 1.0),
            (r#"vaxel_upstream_connections_total{upstream="erp",kind="reused"}"#, 1.0),
            (r#"vaxel_upstream_connections_idle{upstream="erp"}"#, 5.0),
            (r#"vaxel_slots{upstream="erp"}"#, 12.0),
            (r#"vaxel_limit_suggested{upstream="erp"}"#, 14.0),
            (r#"vaxel_limit_latency_ratio{upstream="erp"}"#, 1.25),
            (r#"vaxel_limit_drops_total{upstream="erp"}"#, 2.0),
            (r#"vaxel_slots_busy{upstream="erp"}"#, 3.0),
            (r#"vaxel_slots_zombie{upstream="erp"}"#, 1.0),
            (r#"vaxel_queue_length{upstream="erp"}"#, 4.0),
            (r#"vaxel_breaker_state{upstream="erp",state="half_open"}"#, 1.0),
            (r#"vaxel_breaker_state{upstream="erp",state="closed"}"#, 0.0),
            (r#"vaxel_breaker_shifts_total{upstream="erp",to="open"}"#, 1.0),
            (r#"vaxel_gear_state{upstream="erp",gear="eco"}"#, 1.0),
            (r#"vaxel_gear_state{upstream="erp",gear="limp"}"#, 0.0),
            (r#"vaxel_gear_strain{upstream="erp",gear="limp"}"#, 1.0),
            (r#"vaxel_gear_shifts_total{upstream="erp",to="limp"}"#, 1.0),
            (r#"vaxel_endpoint_up{upstream="erp",endpoint="http://10.0.0.5:8000"}"#, 1.0),
            (r#"vaxel_listener_connections{listener="0.0.0.0:8443"}"#, 1.0),
            (r#"vaxel_listener_accepted_total{listener="0.0.0.0:8443"}"#, 2.0),
            (r#"vaxel_listener_refused_total{listener="0.0.0.0:8443",reason="limit"}"#, 1.0),
            (r#"vaxel_tls_handshakes_total{listener="0.0.0.0:8443",result="failed"}"#, 1.0),
            ("vaxel_cache_bytes", 10.0),
            ("vaxel_cache_capacity_bytes", 20.0),
            ("vaxel_cache_entries", 1.0),
            ("vaxel_cache_evictions_total", 2.0),
            ("vaxel_cache_fills_bytes", 3.0),
            (r#"vaxel_cache_saves_total{result="ok"}"#, 1.0),
            (r#"vaxel_cache_saves_total{result="failed"}"#, 1.0),
            ("vaxel_cache_saved_timestamp_seconds", 2.5),
            ("vaxel_cache_saved_bytes", 512.0),
            ("vaxel_cache_restored_entries_total", 6.0),
            (r#"vaxel_cache_purges_total{extent="route"}"#, 1.0),
            (r#"vaxel_cache_purged_entries_total{depth="hard"}"#, 3.0),
            (r#"vaxel_cache_purged_entries_total{depth="soft"}"#, 0.0),
            (r#"vaxel_certificate_expiry_timestamp_seconds{listener="0.0.0.0:8443",certificate="site.pem"}"#, 7.0),
            ("vaxel_access_log_dropped_total", 9.0),
            ("vaxel_worker_panics_total", 1.0),
            (r#"vaxel_config_reloads_total{result="ok"}"#, 1.0),
            (r#"vaxel_config_reloads_total{result="failed"}"#, 1.0),
            ("vaxel_config_last_reload_timestamp_seconds", 1.5),
        ],
    );
}

#[test]
fn the_table_and_what_is_shown_are_the_same_set() {
    let text = busy().gather();
    let shown: HashSet<_> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    let kind = |name: &str| {
        if name.ends_with("_total") { Kind::Counter } else { Kind::Gauge }
    };
    let known: HashSet<_> = METRICS
        .iter()
        .map(|metric| (metric.name, metric.kind))
        .chain(PROCESS_METRICS.map(|(name, _)| (name, kind(name))))
        .map(|(name, kind)| format!("{name} {}", kind.code()))
        .collect();
    // The process tells about itself only on Linux.
    let differ: Vec<_> = known
        .iter()
        .map(String::as_str)
        .collect::<HashSet<_>>()
        .symmetric_difference(&shown)
        .copied()
        .filter(|line| cfg!(target_os = "linux") || !line.starts_with("process_"))
        .collect();
    assert!(differ.is_empty(), "{differ:?}");
}

#[test]
fn label_values_of_closed_sets_are_the_documented_ones() {
    let samples = parse(&busy().gather());
    for (label, of, values) in names::closed_sets() {
        let names: Vec<_> = of.split(", ").map(|name| name.trim_matches('`')).collect();
        for series in samples.keys().filter(|series| names.iter().any(|name| check_series(series).starts_with(name))) {
            let (_, value) = series.split_once(&format!("{label}=\"")).expect(series);
            let value = value.split('"').next().expect(series);
            assert!(values.contains(&value), "{series}");
        }
    }
}

#[test]
fn a_meter_of_the_same_name_is_the_same_meter() {
    let metrics = Metrics::new(1);
    metrics.route("orders", "erp").record(0, &plain());
    metrics.route("orders", "archive").record(0, &plain());
    check(
        &metrics,
        &[
            (r#"vaxel_cache_requests_total{route="orders",result="hit"}"#, 2.0),
            (r#"vaxel_route_info{route="orders",upstream="archive"}"#, 1.0),
        ],
    );
    assert!(Arc::ptr_eq(&metrics.upstream("erp"), &metrics.upstream("erp")));
    assert!(Arc::ptr_eq(&metrics.consumer("a"), &metrics.consumer("a")));
    assert!(Arc::ptr_eq(&metrics.listener("a"), &metrics.listener("a")));
    assert_eq!(metrics.gather().matches("vaxel_route_info{").count(), 1);
}

/// `docs/METRICS.md` says how many series there are.
#[test]
fn series_are_bounded_by_the_configuration() {
    let series = |metrics: &Metrics| {
        let text = metrics.gather();
        text.lines().filter(|line| line.starts_with("vaxel_")).count()
    };
    let metrics = Metrics::new(2);
    let mut last = series(&metrics);
    let mut more = |expected: std::ops::Range<usize>, what: &str| {
        let now = series(&metrics);
        assert!(expected.contains(&(now - last)), "a {what} has {} series", now - last);
        last = now;
    };
    let route = metrics.route("orders", "erp");
    more(80..90, "route");
    let upstream = metrics.upstream("erp");
    upstream.watch(Box::new(|| Live { breaker: Some(breaker::State::Closed), ..Live::default() }));
    more(60..70, "upstream");
    metrics.consumer("webshop");
    more(4..5, "consumer");
    metrics.listener("0.0.0.0:8443");
    more(9..10, "listener");
    metrics.worker(0);
    more(11..12, "worker");
    // Whatever clients come up with.
    for method in ["GET", "get", "PROPFIND", "X"].map(|name| Method::from_bytes(name.as_bytes()).unwrap()) {
        for status in 100..1000 {
            let status = StatusCode::from_u16(status).unwrap();
            route.record(0, &Facts { method: &method, status, ..plain() });
        }
    }
    more(10..11, "flood of methods and statuses");
}

#[test]
fn two_gateways_do_not_count_together() {
    let (one, other) = (Metrics::new(1), Metrics::new(1));
    one.panicked();
    check(&one, &[("vaxel_worker_panics_total", 1.0)]);
    check(&other, &[("vaxel_worker_panics_total", 0.0)]);
}

#[test]
fn an_upstream_that_is_gone_shows_no_live_state() {
    let metrics = busy();
    metrics.upstream("erp").unwatch();
    let text = metrics.gather();
    assert!(!text.contains("vaxel_slots{"), "{text}");
    assert!(text.contains("vaxel_upstream_attempts_total{"), "{text}");
}

#[test]
fn a_watch_may_look_up_a_meter() {
    let metrics = Metrics::new(1);
    let inner = metrics.clone();
    metrics.upstream("erp").watch(Box::new(move || {
        inner.upstream("erp").retry(0);
        inner.upstream("new");
        Live::default()
    }));
    assert!(!metrics.gather().is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn any_configured_name_gives_a_valid_text(name in any::<String>()) {
        let metrics = Metrics::new(1);
        metrics.route(&name, &name).record(0, &plain());
        metrics.consumer(&name);
        // A line of the format ends at LF alone, `lines` also drops a CR before it: names of our own have neither.
        prop_assume!(!name.contains('\r'));
        parse(&metrics.gather());
    }
}
