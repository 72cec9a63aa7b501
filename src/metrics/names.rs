//! Every metric: its name, kind, help, labels and buckets. Nothing else spells a metric's name.
//!
//! Names are `vaxel_<part>_<noun>[_<unit>][_total]` in base units. Label values come from closed sets or from the
//! configuration, never from a client. The table in `docs/METRICS.md` is made from this one.

use std::fmt::Write as _;
use std::time::Duration;

use super::facts::{CODES, CacheEvent, CacheResult, METHODS, Pace, Wait};
use super::listener::{ConnectionRefusal, Handshake};
use super::route::CONSUMER_RESULTS;
use super::store::{DEPTHS, Extent};
use super::upstream::{CONNECTION_KINDS, STATES};
use crate::gear::Gear;
use crate::outcome::Outcome;
use crate::refusal::Reason;
use crate::throttle::quota::Per;

/// One metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// What its value counts.
    pub unit: Unit,
    /// Its labels, in the order in which they are given.
    pub labels: &'static [&'static str],
    /// One sentence for people.
    pub help: &'static str,
}

/// What a metric is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down; read at the moment of the scrape.
    Gauge,
    /// Counts observations by size.
    Histogram,
}

/// What a value counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Things; or true (1) and false (0).
    Count,
    /// Bytes.
    Bytes,
    /// Seconds.
    Seconds,
}

macro_rules! metrics {
    ($($constant:ident = $kind:ident $unit:ident $name:literal [$($label:literal),*] $help:literal;)+) => {
        $(
            #[doc = $help]
            pub const $constant: Metric =
                Metric { name: $name, kind: Kind::$kind, unit: Unit::$unit, labels: &[$($label),*], help: $help };
        )+

        /// Every metric of vaxel's own, in the order of the documentation.
        pub const METRICS: &[Metric] = &[$($constant),+];
    };
}

metrics! {
    REQUESTS = Counter Count "vaxel_requests_total" ["route", "method", "code", "cache"]
        "Finished requests, by class of the status and by what the cache did.";
    RESPONSES = Counter Count "vaxel_responses_total" ["route", "code"]
        "Finished requests, by class of the status: all series are there from the start.";
    REQUEST_DURATION = Histogram Seconds "vaxel_request_duration_seconds" ["route", "cache"]
        "Time from the head of a request to the end of its response body.";
    REQUEST_BYTES = Counter Bytes "vaxel_request_bytes_total" ["route"]
        "Bytes of request bodies received from clients.";
    RESPONSE_BYTES = Counter Bytes "vaxel_response_bytes_total" ["route"]
        "Bytes of response bodies sent to clients.";
    REFUSALS = Counter Count "vaxel_refusals_total" ["route", "reason"]
        "Requests that vaxel answered by itself, by reason.";
    SHADOW_REFUSALS = Counter Count "vaxel_shadow_refusals_total" ["route", "reason"]
        "Requests that a policy in shadow mode would have refused, by reason.";
    SHADOW_WAITS = Counter Count "vaxel_shadow_waits_total" ["route", "policy"]
        "Requests that a policy in shadow mode would have let wait, for their turn at a rate or for a slot.";
    DELAYS = Counter Count "vaxel_rate_delays_total" ["route"]
        "Requests that a rate held back until their turn.";
    DELAY_TIME = Counter Seconds "vaxel_rate_delay_seconds_total" ["route"]
        "Time they were held back.";
    CLIENT_ABORTS = Counter Count "vaxel_client_aborts_total" ["route"]
        "Requests whose client left before the response had ended.";
    ROUTE_INFO = Gauge Count "vaxel_route_info" ["route", "upstream"]
        "Always 1: the upstream each route leads to.";
    CONSUMER_REQUESTS = Counter Count "vaxel_consumer_requests_total" ["consumer", "result"]
        "Finished requests by consumer: served, or refused by vaxel itself.";
    CONSUMER_UPSTREAM = Counter Seconds "vaxel_consumer_upstream_seconds_total" ["consumer"]
        "Time upstreams worked for the consumer's requests.";
    CONSUMER_QUEUE = Counter Seconds "vaxel_consumer_queue_seconds_total" ["consumer"]
        "Time the consumer's requests waited for a slot.";
    QUOTA_USED = Gauge Count "vaxel_quota_used" ["consumer", "per"]
        "What the consumer has used of its quota in the present hour, day or month.";
    QUOTA_LIMIT = Gauge Count "vaxel_quota_limit" ["consumer", "per"]
        "What the consumer may use in an hour, day or month.";
    STATE_SAVES = Counter Count "vaxel_state_saves_total" ["result"]
        "Writings of the file that keeps what was used of quotas and what limits have learned.";

    CACHE_REQUESTS = Counter Count "vaxel_cache_requests_total" ["route", "result"]
        "Finished requests by what the cache did.";
    CACHE_EVENTS = Counter Count "vaxel_cache_events_total" ["route", "event"]
        "What rules of the cache did beside answering, by rule.";
    CACHE_BYTES = Gauge Bytes "vaxel_cache_bytes" []
        "Memory the stored entries weigh.";
    CACHE_CAPACITY = Gauge Bytes "vaxel_cache_capacity_bytes" []
        "Memory the stored entries may weigh.";
    CACHE_ENTRIES = Gauge Count "vaxel_cache_entries" []
        "Stored entries.";
    CACHE_EVICTIONS = Counter Count "vaxel_cache_evictions_total" []
        "Entries that had to go to make room.";
    CACHE_FILLS = Gauge Bytes "vaxel_cache_fills_bytes" []
        "Memory held by bodies that are being fetched into the cache.";
    CACHE_PURGES = Counter Count "vaxel_cache_purges_total" ["extent"]
        "Purges an operator asked for, by what they were to cover.";
    CACHE_PURGED = Counter Count "vaxel_cache_purged_entries_total" ["depth"]
        "Stored entries that those purges took out (hard) or made stale (soft).";
    CACHE_HARVESTS = Counter Count "vaxel_cache_harvests_total" ["route"]
        "Answers stored that came too late for everybody who had waited.";

    CACHE_SAVES = Counter Count "vaxel_cache_saves_total" ["result"]
        "Writings of the stored entries to disk.";
    CACHE_SAVED_AT = Gauge Seconds "vaxel_cache_saved_timestamp_seconds" []
        "Unix time of the last good one; 0: none yet.";
    CACHE_SAVED_BYTES = Gauge Bytes "vaxel_cache_saved_bytes" []
        "Size of the file it wrote.";
    CACHE_RESTORED = Counter Count "vaxel_cache_restored_entries_total" []
        "Entries read from disk at the start.";

    QUEUE_WAIT = Histogram Seconds "vaxel_queue_wait_seconds" ["upstream"]
        "Time requests waited for a slot, those that got none included.";
    QUEUE_LENGTH = Gauge Count "vaxel_queue_length" ["upstream"]
        "Requests that wait for a slot.";
    SLOTS = Gauge Count "vaxel_slots" ["upstream"]
        "Slots: requests the upstream may work on at a time.";
    SLOTS_BUSY = Gauge Count "vaxel_slots_busy" ["upstream"]
        "Slots whose request somebody waits for.";
    SLOTS_ZOMBIE = Gauge Count "vaxel_slots_zombie" ["upstream"]
        "Slots whose request nobody waits for any more while the backend still works on it.";
    ZOMBIES = Counter Count "vaxel_zombies_total" ["upstream"]
        "Requests that the backend worked on when nobody waited for them any more.";
    LIMIT_SUGGESTED = Gauge Count "vaxel_limit_suggested" ["upstream"]
        "Slots the adaptive limit finds right: those in force, or in shadow mode those it would take.";
    LIMIT_LATENCY = Gauge Count "vaxel_limit_latency_ratio" ["upstream"]
        "How many times their baseline answers took when the adaptive limit last looked.";
    LIMIT_DROPS = Counter Count "vaxel_limit_drops_total" ["upstream"]
        "Attempts that told the adaptive limit of overload: refused as too much, or not answered in time.";

    UPSTREAM_ATTEMPTS = Counter Count "vaxel_upstream_attempts_total" ["upstream", "outcome"]
        "Finished attempts, by what they say about the backend.";
    UPSTREAM_RETRIES = Counter Count "vaxel_upstream_retries_total" ["upstream"]
        "Attempts that repeated one before.";
    UPSTREAM_DURATION = Histogram Seconds "vaxel_upstream_duration_seconds" ["upstream"]
        "Time from the begin of an attempt to the head of its answer.";
    UPSTREAM_CONNECTIONS = Counter Count "vaxel_upstream_connections_total" ["upstream", "kind"]
        "Connections taken for an attempt: opened for it, or reused from the pool.";
    UPSTREAM_IDLE = Gauge Count "vaxel_upstream_connections_idle" ["upstream"]
        "Connections that wait in the pool.";
    BREAKER_STATE = Gauge Count "vaxel_breaker_state" ["upstream", "state"]
        "1 for the state the breaker is in, 0 for the others.";
    BREAKER_SHIFTS = Counter Count "vaxel_breaker_shifts_total" ["upstream", "to"]
        "Changes of the breaker's state.";
    GEAR = Gauge Count "vaxel_gear_state" ["upstream", "gear"]
        "1 for the gear the upstream is in, 0 for the others.";
    GEAR_STRAIN = Gauge Count "vaxel_gear_strain" ["upstream", "gear"]
        "1 for the gear that strain alone asks for, in shadow mode too; 0 for the others.";
    GEAR_SHIFTS = Counter Count "vaxel_gear_shifts_total" ["upstream", "to"]
        "Changes of gear.";
    ENDPOINT_UP = Gauge Count "vaxel_endpoint_up" ["upstream", "endpoint"]
        "1 if the endpoint takes requests, 0 if a probe or its failures took it out.";
    ENDPOINT_REQUESTS = Gauge Count "vaxel_endpoint_requests" ["upstream", "endpoint"]
        "Requests that are at the endpoint.";

    LISTENER_CONNECTIONS = Gauge Count "vaxel_listener_connections" ["listener"]
        "Open connections of clients.";
    LISTENER_ACCEPTED = Counter Count "vaxel_listener_accepted_total" ["listener"]
        "Connections of clients taken.";
    LISTENER_REFUSED = Counter Count "vaxel_listener_refused_total" ["listener", "reason"]
        "Connections of clients not taken, by reason.";
    CERTIFICATE_EXPIRY = Gauge Seconds "vaxel_certificate_expiry_timestamp_seconds" ["listener", "certificate"]
        "Unix time at which a listener's certificate ends, by its file.";
    TLS_HANDSHAKES = Counter Count "vaxel_tls_handshakes_total" ["listener", "result"]
        "TLS handshakes with clients, by result.";

    WORKER_BUSY = Counter Seconds "vaxel_worker_busy_seconds_total" ["worker"]
        "Time an event loop worked. One that works all the time is saturated.";
    WORKER_LAG = Histogram Seconds "vaxel_worker_lag_seconds" ["worker"]
        "How late an event loop comes to what is due, looked at twice a second.";
    WORKER_PANICS = Counter Count "vaxel_worker_panics_total" []
        "Panics caught; each ended one connection. Every one is a bug.";
    ACCESS_LOG_DROPPED = Counter Count "vaxel_access_log_dropped_total" []
        "Lines of the access log lost because they could not be written fast enough, or at all.";
    TRACE_SPANS = Counter Count "vaxel_trace_spans_total" ["result"]
        "Spans for the collector of traces: taken by it, dropped for want of room, or not taken.";
    CONFIG_RELOADS = Counter Count "vaxel_config_reloads_total" ["result"]
        "Loads of the configuration, the first one included.";
    CONFIG_LAST_RELOAD = Gauge Seconds "vaxel_config_last_reload_timestamp_seconds" []
        "Unix time at which the configuration in force was loaded.";
    CONFIG_LAST_GOOD = Gauge Count "vaxel_config_last_reload_successful" []
        "1 if the last load of the configuration was good, 0 if an older one is still in force.";
    CONFIG_HASH = Gauge Count "vaxel_config_hash" []
        "Hash of the configuration in force, secrets apart: where it differs, two instances differ.";
    BUILD_INFO = Gauge Count "vaxel_build_info" ["version"]
        "Always 1: the version that runs.";
}

/// The metrics of the process (Linux), as the `prometheus` crate names them after the conventions of Prometheus.
pub const PROCESS_METRICS: [(&str, &str); 7] = [
    ("process_cpu_seconds_total", "CPU time of the process, user and system."),
    ("process_open_fds", "Open file descriptors."),
    ("process_max_fds", "File descriptors the process may open."),
    ("process_virtual_memory_bytes", "Virtual memory."),
    ("process_resident_memory_bytes", "Resident memory."),
    ("process_start_time_seconds", "Unix time at which the process began."),
    ("process_threads", "Threads."),
];

/// The bounds of latencies: from a hit (tens of microseconds) to a report of an ERP (a minute), about three to a
/// decade, so that a quantile is known to within a factor of two and a half.
pub const LATENCIES: &[Duration] = &[
    Duration::from_micros(100),
    Duration::from_micros(250),
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_micros(2_500),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_millis(2_500),
    Duration::from_secs(5),
    Duration::from_secs(10),
    Duration::from_secs(30),
    Duration::from_secs(60),
];

/// The bounds of waits for a slot. The first bucket holds those that did not wait; a wait ends after seconds, since
/// the queue is bounded in time.
pub const WAITS: &[Duration] = &[
    Duration::from_millis(1),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(5),
    Duration::from_secs(10),
    Duration::from_secs(30),
];

/// The bounds of an event loop's lag. A timer is exact to a millisecond or two; a tenth of a second is felt by everybody.
pub const LAGS: &[Duration] = &[
    Duration::from_millis(2),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_secs(1),
];

/// What becomes of spans for a collector.
pub const SPAN_RESULTS: [&str; 3] = ["sent", "dropped", "failed"];

/// The results of a load of the configuration, and of other work that may fail.
pub(super) const RELOAD_RESULTS: [&str; 2] = ["ok", "failed"];

impl Kind {
    /// The word of the exposition format.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

impl Unit {
    /// The word of the documentation, which is also the suffix of the name.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Count => "",
            Self::Bytes => "bytes",
            Self::Seconds => "seconds",
        }
    }
}

/// The tables of `docs/METRICS.md`, in Markdown.
pub fn documentation() -> String {
    let mut text = String::from("| metric | kind | unit | labels | what |\n|---|---|---|---|---|\n");
    for metric in METRICS {
        let labels: Vec<_> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        row(&mut text, &[&code(metric.name), metric.kind.code(), metric.unit.code(), &labels.join(", "), metric.help]);
    }
    for (name, help) in PROCESS_METRICS {
        let kind = if name.ends_with("_total") { Kind::Counter } else { Kind::Gauge };
        let unit = [Unit::Bytes, Unit::Seconds].into_iter().find(|unit| name.contains(unit.code()));
        row(&mut text, &[&code(name), kind.code(), unit.unwrap_or(Unit::Count).code(), "", help]);
    }
    text.push_str("\n| label | of | values |\n|---|---|---|\n");
    for (label, of, values) in closed_sets() {
        let values: Vec<_> = values.iter().map(|value| format!("`{value}`")).collect();
        row(&mut text, &[&code(label), &of, &values.join(", ")]);
    }
    text.push_str("\n| histogram | bounds in seconds |\n|---|---|\n");
    for metric in METRICS.iter().filter(|metric| metric.kind == Kind::Histogram) {
        let bounds = match *metric {
            QUEUE_WAIT => WAITS,
            WORKER_LAG => LAGS,
            _ => LATENCIES,
        };
        let bounds: Vec<_> = bounds.iter().map(|bound| bound.as_secs_f64().to_string()).collect();
        row(&mut text, &[&code(metric.name), &bounds.join(", ")]);
    }
    text
}

/// The labels whose values are known beforehand: label, the metrics it stands in, values.
pub(super) fn closed_sets() -> Vec<(&'static str, String, Vec<&'static str>)> {
    let cache = CacheResult::ALL.map(CacheResult::code).to_vec();
    let reasons: Vec<_> = Reason::ALL.iter().map(|reason| reason.code()).collect();
    vec![
        ("method", code(REQUESTS.name), METHODS.to_vec()),
        ("code", format!("{}, {}", code(REQUESTS.name), code(RESPONSES.name)), CODES.to_vec()),
        ("extent", code(CACHE_PURGES.name), Extent::CODES.to_vec()),
        ("depth", code(CACHE_PURGED.name), DEPTHS.to_vec()),
        ("cache", code(REQUESTS.name), cache.clone()),
        ("result", code(CACHE_REQUESTS.name), cache),
        ("event", code(CACHE_EVENTS.name), CacheEvent::ALL.map(CacheEvent::code).to_vec()),
        ("cache", code(REQUEST_DURATION.name), Pace::ALL.map(Pace::code).to_vec()),
        ("reason", format!("{}, {}", code(REFUSALS.name), code(SHADOW_REFUSALS.name)), reasons),
        ("policy", code(SHADOW_WAITS.name), Wait::ALL.map(Wait::code).to_vec()),
        ("result", code(CONSUMER_REQUESTS.name), CONSUMER_RESULTS.to_vec()),
        ("outcome", code(UPSTREAM_ATTEMPTS.name), Outcome::ALL.map(Outcome::code).to_vec()),
        ("kind", code(UPSTREAM_CONNECTIONS.name), CONNECTION_KINDS.to_vec()),
        ("state", code(BREAKER_STATE.name), STATES.to_vec()),
        ("to", code(BREAKER_SHIFTS.name), STATES.to_vec()),
        ("gear", format!("{}, {}", code(GEAR.name), code(GEAR_STRAIN.name)), Gear::ALL.map(Gear::code).to_vec()),
        ("to", code(GEAR_SHIFTS.name), Gear::ALL.map(Gear::code).to_vec()),
        ("reason", code(LISTENER_REFUSED.name), ConnectionRefusal::CODES.to_vec()),
        ("result", code(TLS_HANDSHAKES.name), Handshake::CODES.to_vec()),
        ("per", format!("{}, {}", code(QUOTA_USED.name), code(QUOTA_LIMIT.name)), Per::ALL.map(Per::word).to_vec()),
        (
            "result",
            [CONFIG_RELOADS, CACHE_SAVES, STATE_SAVES].map(|metric| code(metric.name)).join(", "),
            RELOAD_RESULTS.to_vec(),
        ),
        ("result", code(TRACE_SPANS.name), SPAN_RESULTS.to_vec()),
    ]
}

fn code(name: &str) -> String {
    format!("`{name}`")
}

fn row(text: &mut String, cells: &[&str]) {
    for cell in cells {
        // Writing to a string cannot fail.
        let _ = write!(text, "| {cell} ");
    }
    text.push_str("|\n");
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_follow_the_conventions() {
        let mut seen = HashSet::new();
        for metric in METRICS {
            let name = metric.name;
            assert!(seen.insert(name), "{name} stands twice");
            assert!(name.starts_with("vaxel_"), "{name}");
            assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{name}");
            assert_eq!(name.ends_with("_total"), metric.kind == Kind::Counter, "{name}");
            let stem = name.trim_end_matches("_total");
            assert!(stem.ends_with(metric.unit.code()), "{name} does not name its unit");
            for reserved in ["_count", "_sum", "_bucket"] {
                assert!(!stem.ends_with(reserved), "{name}");
            }
            assert!(metric.help.ends_with('.'), "{name}");
            assert!(!metric.help.contains(['|', '\n', '\\']), "{name}");
            assert!(!metric.labels.contains(&"le"), "{name}");
        }
    }

    #[test]
    fn bounds_grow() {
        assert!(LATENCIES.is_sorted_by(|a, b| a < b));
        assert!(WAITS.is_sorted_by(|a, b| a < b));
        assert!(LAGS.is_sorted_by(|a, b| a < b));
    }

    /// `VAXEL_UPDATE_DOCS=1 cargo test` writes the tables anew.
    #[test]
    fn the_documentation_is_current() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/METRICS.md");
        let text = std::fs::read_to_string(path).unwrap();
        let (before, rest) = text.split_once(BEGIN).expect("docs/METRICS.md has the begin mark");
        let (_, after) = rest.split_once(END).expect("docs/METRICS.md has the end mark");
        let current = format!("{before}{BEGIN}\n{}\n{END}{after}", documentation());
        if std::env::var_os("VAXEL_UPDATE_DOCS").is_some() {
            std::fs::write(path, &current).unwrap();
        }
        assert!(text == current, "docs/METRICS.md is not current: VAXEL_UPDATE_DOCS=1 cargo test metrics::names");
    }

    const BEGIN: &str = "<!-- made from src/metrics/names.rs; do not edit -->";
    const END: &str = "<!-- end -->";
}
