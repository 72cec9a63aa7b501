//! `[upstream.NAME]`.

use std::time::Duration;

use toml::Spanned;
use toml::de::DeValue;

use super::super::diagnostics::Mistake;
use super::super::reader::Reader;
use super::super::settings::UpstreamSettings;
use super::super::units::{duration, positive_duration, positive_ratio, ratio};
use super::super::values::{endpoint, expected, file, flag, whole, word};
use super::route::ROUTE_CLASSES;
use super::{MODES, absolute_path, no_twice, unspan};
use crate::breaker::{BreakerParams, Slow, Trial};
use crate::gear::GearParams;
use crate::refusal::Mode;
use crate::retry::RetryParams;
use crate::throttle::limit::{AdaptiveParams, Policy};
use crate::throttle::reserve::{PerClass, UNCAPPED};
use crate::throttle::{Class, SlotsParams};
use crate::upstream::balance::Balance;
use crate::upstream::pool::PoolParams;
use crate::upstream::probe::ProbeParams;
use crate::upstream::tls::UpstreamTls;
use crate::upstream::{Expect, HostHeader, Timeouts};

/// An upstream and the place of its name.
pub(super) type Named = (Spanned<String>, Option<UpstreamSettings>);

/// One upstream.
pub(super) fn read(name: &Spanned<String>, upstream: &mut Reader<'_>) -> Named {
    let endpoints = upstream.some("endpoints", endpoint);
    upstream.must("endpoints");
    let endpoints = endpoints.unwrap_or_default();
    let places = endpoints.iter().map(|endpoint| (endpoint.get_ref().clone(), endpoint.span()));
    no_twice(upstream, places, |uri| Mistake::new(format!("the endpoint {uri} is there twice")));
    let timeouts = upstream.table("timeouts", timeouts);
    let settings = UpstreamSettings {
        name: name.get_ref().clone(),
        balance: upstream
            .choice("balance", &[("round_robin", Balance::RoundRobin), ("least_of_two", Balance::LeastOfTwo)]),
        slots: slots(upstream, timeouts.total),
        endpoint_slots: upstream.optional("endpoint_slots", whole(1)),
        breaker: upstream.switch("breaker", |table| breaker(table, timeouts)),
        gears: gears(upstream),
        windows: Vec::new(),
        retry: upstream.switch("retry", retry).unwrap_or(RetryParams::NEVER),
        timeouts,
        pool: upstream.table("pool", pool),
        tls: tls(upstream, endpoints.iter().any(|uri| uri.get_ref().scheme_str() == Some("https"))),
        probe: upstream.switch("probe", probe),
        host: upstream.choice("host", &[("keep", HostHeader::Keep), ("upstream", HostHeader::Upstream)]),
        expect: upstream.choice("expect", &[("relay", Expect::Relay), ("answer", Expect::Answer)]),
        endpoints: unspan(endpoints),
    };
    let asks_probes = settings.breaker.as_ref().is_some_and(|breaker| breaker.trial == Trial::Probe);
    // A hung backend still accepts connections: what shows that it works is an answer.
    if asks_probes && settings.probe.as_ref().is_none_or(|probe| probe.path.is_none()) {
        let mistake = Mistake::new("`trial = \"probe\"` needs a `path` in `probe`");
        upstream.error(upstream.span("breaker"), mistake.hint("as in `probe = { path = \"/health\" }`"));
    }
    (name.clone(), (!settings.endpoints.is_empty()).then_some(settings))
}

fn slots(upstream: &mut Reader<'_>, total: Duration) -> SlotsParams {
    let counted = |value: &DeValue<'_>| {
        let hint = "0 would let nothing through; to take an upstream out, remove its routes or give them a fallback";
        Ok((whole::<usize>(1)(value).map_err(|mistake| mistake.hint(hint))?, None))
    };
    let (slots, adaptive) = upstream.value_or_table("slots", counted, adaptive);
    let reserve =
        upstream.table("reserve", |reserve| Class::ALL.map(|class| reserve.value(class.word(), whole::<u32>(0))));
    let cap = cap(upstream, reserve);
    let fewest = adaptive.map_or(slots, |adaptive| adaptive.min as usize);
    if reserve.iter().map(|kept| *kept as usize).sum::<usize>() >= fewest {
        let mistake = Mistake::new("the reserve leaves no slot that everybody may take");
        let hint = if adaptive.is_some() { "it has to be less than `min` of the slots" } else { "keep fewer" };
        upstream.error(upstream.span("reserve"), mistake.hint(hint));
    }
    let (queue, timeout, mode) = upstream.table("queue", |queue| {
        let max = queue.optional("max", whole::<usize>(0));
        // Four for each slot: with more the last one waits longer than it may.
        let most = adaptive.map_or(slots, |adaptive| adaptive.max as usize);
        let mode = queue.choice("mode", &MODES);
        if !mode.counts() {
            let mistake = Mistake::new("this upstream is NOT PROTECTED: in shadow mode its slots hold nothing back");
            queue.warn(queue.span("mode"), mistake.hint("to see what they would do; then remove it"));
        }
        (max.unwrap_or_else(|| most.saturating_mul(4).max(64)), queue.value("timeout", positive_duration), mode)
    });
    // A backend that is twice over its time is more probably dead than slow.
    let zombie_hold = upstream.optional("zombie_hold", duration).unwrap_or(2 * total);
    SlotsParams { slots, adaptive, reserve, cap, queue, timeout, zombie_hold, mode }
}

/// Slots that each class may have at most.
fn cap(upstream: &mut Reader<'_>, reserve: PerClass) -> PerClass {
    upstream.table("cap", |table| {
        let mut caps = UNCAPPED;
        for ((class, cap), kept) in Class::ALL.into_iter().zip(&mut caps).zip(reserve) {
            let word = class.word();
            *cap = match class {
                Class::Logon => table.value(word, whole::<u32>(1)),
                _ => table.optional(word, whole::<u32>(1)).unwrap_or(*cap),
            };
            if kept > *cap {
                let mistake = Mistake::new(format!("{kept} slots are kept for the class, and it may have {cap}"));
                let place = if table.has(word) { table.span(word) } else { table.place() };
                table.error(place, mistake.hint(format!("`cap` of `{word}` is at least its `reserve`")));
            }
        }
        caps
    })
}

/// Slots to begin with, and how their number adapts.
fn adaptive(table: &mut Reader<'_>) -> (usize, Option<AdaptiveParams>) {
    let policy = table.optional_choice("adaptive", &[("gradient", false), ("aimd", true)]);
    table.must("adaptive");
    let min = table.value("min", whole::<u32>(1));
    let max = table.required("max", whole::<u32>(1)).unwrap_or(min);
    let start = table.optional("start", whole::<u32>(1));
    let slow = table.optional("slow", positive_duration);
    let mode = table.choice("mode", &MODES);
    if max < min {
        table.error(table.span("max"), Mistake::new("`max` is less than `min`"));
    }
    if start.is_some_and(|start| start < min || start > max.max(min)) {
        table.error(table.span("start"), Mistake::new("`start` does not lie between `min` and `max`"));
    }
    if slow.is_some() && policy == Some(false) {
        let mistake = Mistake::new("`slow` is for aimd; gradient finds out by itself what is slow");
        table.error(table.span("slow"), mistake);
    }
    // From below the backend is never overrun; a quarter is two doublings away from all of it.
    let start = start.unwrap_or_else(|| (max / 4).max(min));
    let policy = if policy == Some(true) { Policy::Aimd { slow } } else { Policy::Gradient };
    (start as usize, Some(AdaptiveParams { policy, min, max, mode }))
}

fn breaker(table: &mut Reader<'_>, timeouts: Timeouts) -> BreakerParams {
    let params = BreakerParams {
        window: table.value("window", positive_duration),
        minimum: table.value("minimum", whole(1)),
        failure_ratio: table.value("failure_ratio", positive_ratio),
        slow: table.optional("slow", slow),
        slow_ratio: table.value("slow_ratio", positive_ratio),
        open: table.value("open", positive_duration),
        open_max: table.value("open_max", positive_duration),
        trials: table.value("trials", whole(1)),
        trial: table.choice("trial", &[("request", Trial::Request), ("probe", Trial::Probe)]),
        zombie_share: table.value("zombie_share", positive_ratio),
        mode: table.choice("mode", &MODES),
    };
    if params.open_max < params.open {
        table.error(table.span("open_max"), Mistake::new("`open_max` is shorter than `open`"));
    }
    if matches!(params.slow, Some(Slow::From(slow)) if slow >= timeouts.total) {
        let mistake = Mistake::new("no call is ever slow: `timeouts.total` ends it before");
        table.warn(table.span("slow"), mistake);
    }
    params
}

/// What is slow: a duration, or learned.
fn slow(value: &DeValue<'_>) -> Result<Slow, Mistake> {
    match value.as_str() {
        Some("auto") => Ok(Slow::Learned),
        _ => positive_duration(value).map(Slow::From).map_err(|mistake| mistake.hint(SLOW)),
    }
}

fn gears(upstream: &mut Reader<'_>) -> GearParams {
    let params = upstream.switch("gears", |table| GearParams {
        mode: table.choice("mode", &MODES),
        dwell: table.value("dwell", duration),
        limp_class: table.choice("limp_class", &ROUTE_CLASSES),
    });
    params.unwrap_or_else(|| GearParams { mode: Mode::Off, ..GearParams::default() })
}

fn retry(table: &mut Reader<'_>) -> RetryParams {
    let attempts = table.value("attempts", |value| {
        whole::<u32>(1)(value).map_err(|mistake| mistake.hint("the first try counts: 1 means no retries"))
    });
    let params = RetryParams {
        attempts,
        budget_ratio: table.value("budget", ratio),
        budget_min_per_second: table.value("budget_min", |value| {
            let number = match value {
                DeValue::Float(float) => float.as_str().parse::<f64>().ok(),
                DeValue::Integer(integer) => integer.as_str().parse::<f64>().ok(),
                other => return Err(expected("a number", other)),
            };
            number
                .filter(|number| number.is_finite() && *number >= 0.0)
                .ok_or_else(|| Mistake::new("must not be negative"))
        }),
        backoff: table.value("backoff", duration),
        backoff_max: table.value("backoff_max", duration),
    };
    if params.backoff_max < params.backoff {
        table.error(table.span("backoff_max"), Mistake::new("`backoff_max` is shorter than `backoff`"));
    }
    params
}

fn timeouts(table: &mut Reader<'_>) -> Timeouts {
    let timeouts = Timeouts {
        connect: table.value("connect", positive_duration),
        head: table.value("head", positive_duration),
        total: table.value("total", positive_duration),
    };
    for (name, part) in [("connect", timeouts.connect), ("head", timeouts.head)] {
        if part > timeouts.total {
            let place = if table.has(name) { table.span(name) } else { table.span("total") };
            table.error(place, Mistake::new(format!("`{name}` is longer than `total`, which ends everything")));
        }
    }
    timeouts
}

fn pool(table: &mut Reader<'_>) -> PoolParams {
    PoolParams {
        keepalive: table.value("keepalive", flag),
        idle: table.value("idle", whole(0)),
        idle_timeout: table.value("idle_timeout", positive_duration),
        max_requests: table.optional("max_requests", whole(1)),
    }
}

fn tls(upstream: &mut Reader<'_>, has_https: bool) -> UpstreamTls {
    let place = upstream.span("tls");
    let is_written = upstream.has("tls");
    let tls = upstream.table("tls", |tls| {
        for (one, other) in [("client_cert", "client_key"), ("client_key", "client_cert")] {
            if tls.has(one) && !tls.has(other) {
                tls.error(tls.span(one), Mistake::new(format!("`{one}` needs `{other}`")));
            }
        }
        let verify = tls.value("verify", flag);
        if !verify {
            let mistake = Mistake::new("anybody on the way can read and change what goes to this upstream");
            tls.warn(tls.span("verify"), mistake.hint("trust its own authority with `ca` instead"));
        }
        UpstreamTls {
            ca: tls.optional("ca", file),
            client_cert: tls.optional("client_cert", file),
            client_key: tls.optional("client_key", file),
            server_name: tls.optional("server_name", server_name),
            verify,
        }
    });
    if is_written && !has_https {
        upstream.warn(place, Mistake::new("no endpoint of this upstream is https, so `tls` has no effect"));
    }
    tls
}

fn server_name(value: &DeValue<'_>) -> Result<String, Mistake> {
    let name = word(value)?;
    let named = UpstreamTls { server_name: Some(name.clone()), ..UpstreamTls::default() };
    match named.name_for("") {
        Ok(_) => Ok(name),
        Err(_) => Err(Mistake::new(format!("`{name}` is not the name of a server"))),
    }
}

fn probe(table: &mut Reader<'_>) -> ProbeParams {
    ProbeParams {
        path: table.optional("path", absolute_path),
        every: table.value("every", positive_duration),
        timeout: table.value("timeout", positive_duration),
        rise: table.value("rise", whole(1)),
        fall: table.value("fall", whole(1)),
    }
}

const SLOW: &str = "as in \"5s\", or \"auto\": three times longer than usual";
