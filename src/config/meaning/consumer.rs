//! `[consumer.NAME]`.

use std::time::Duration;

use http::HeaderName;
use toml::Spanned;
use toml::de::DeValue;

use super::super::diagnostics::Mistake;
use super::super::reader::Reader;
use super::super::units::{positive_duration, rate};
use super::super::values::{digest, header_name, header_value, network, secret, whole, word};
use super::route::class;
use super::window::zone;
use super::{MODES, no_twice, unspan};
use crate::consumer::{ConsumerParams, Identify};
use crate::throttle::quota::{Per, QuotaParams};
use crate::throttle::{Delay, RateParams};

/// A consumer and the place of its name.
pub(super) type Named = (Spanned<String>, Option<ConsumerParams>);

/// One consumer.
pub(super) fn read(name: &Spanned<String>, consumer: &mut Reader<'_>) -> Named {
    if name.get_ref() == ANONYMOUS {
        consumer.error(name.span(), Mistake::new("`anonymous` are those who are no consumer; take another name"));
    }
    let identify = consumer.required_table("identify", identify).flatten();
    let weight = consumer.value("weight", whole(1));
    let class = class(consumer);
    let rate = rate_params(consumer);
    let quotas = quotas(consumer);
    let params =
        identify.map(|identify| ConsumerParams { name: name.get_ref().clone(), identify, weight, class, rate, quotas });
    (name.clone(), params)
}

/// Its quotas, the shortest window first.
fn quotas(consumer: &mut Reader<'_>) -> Vec<QuotaParams> {
    let read = consumer.some_tables("quota", |quota| {
        let limit = quota.required("limit", whole::<u64>(1));
        let per = quota.required("per", per);
        let zone = quota.value("zone", zone);
        let mode = quota.choice("mode", &MODES);
        Some((QuotaParams { limit: limit?, per: per?, zone, mode }, quota.span("per")))
    });
    let (mut quotas, spans): (Vec<_>, Vec<_>) = read.into_iter().flatten().unzip();
    let all = quotas.iter().map(|quota| quota.per).zip(spans).collect::<Vec<_>>();
    no_twice(consumer, all, |per| {
        Mistake::new(format!("there is another quota per {}", per.word())).hint("only the lower limit would ever count")
    });
    quotas.sort_by_key(|quota| quota.per);
    quotas
}

fn per(value: &DeValue<'_>) -> Result<Per, Mistake> {
    let written = word(value)?;
    let found = Per::ALL.into_iter().find(|per| per.word() == written);
    found.ok_or_else(|| {
        let words = Per::ALL.into_iter().map(Per::word);
        Mistake::new(format!("`{written}` is not possible here")).did_you_mean(&written, words)
    })
}

/// What must hold between consumers.
pub(super) fn check(file: &mut Reader<'_>, all: &[Named]) {
    let marks = all.iter().filter_map(|(name, consumer)| Some((name, consumer.as_ref()?)));
    let marks = marks.flat_map(|(name, consumer)| {
        let marks: Vec<String> = match &consumer.identify {
            Identify::ApiKey { header, sha256 } => {
                sha256.iter().map(|sha256| format!("{header} {sha256:x?}")).collect()
            }
            Identify::Header { name, value } => vec![format!("{name} {:?}", value.as_bytes())],
            Identify::Network(networks) => networks.iter().map(ToString::to_string).collect(),
        };
        marks.into_iter().map(|mark| (mark, name.span())).collect::<Vec<_>>()
    });
    let mistake = |_: &String| {
        Mistake::new("another consumer is recognised by the same key, value or network")
            .hint("nobody could tell the two apart")
    };
    no_twice(file, marks, mistake);
}

/// The table `rate` of a consumer or a route.
pub(super) fn rate_params(reader: &mut Reader<'_>) -> Option<RateParams> {
    let params = reader.optional_table("rate", |table| {
        let limit = table.required("limit", rate);
        let burst = table.optional("burst", whole::<u32>(1));
        let delay = delay(table);
        let mode = table.choice("mode", &MODES);
        let limit = limit?;
        let burst = burst.and_then(std::num::NonZeroU32::new).unwrap_or(limit.limit);
        Some(RateParams { limit: limit.limit, per: limit.per, burst, delay, mode })
    });
    params.flatten()
}

/// How what is over a rate waits, if it does.
fn delay(table: &mut Reader<'_>) -> Option<Delay> {
    let waits = table.choice("excess", &[("reject", false), ("delay", true)]);
    let longest = table.value("delay_max", positive_duration);
    let most = table.value("delayed_max", whole::<u32>(1));
    for key in ["delay_max", "delayed_max"] {
        if !waits && table.has(key) {
            let mistake = Mistake::new(format!("`{key}` has no effect without `excess = \"delay\"`"));
            table.error(table.span(key), mistake);
        }
    }
    if longest > LONGEST_DELAY {
        let mistake = Mistake::new("no client waits so long");
        table.error(table.span("delay_max"), mistake.hint("at most ten minutes"));
    }
    waits.then_some(Delay { longest, most })
}

fn identify(table: &mut Reader<'_>) -> Option<Identify> {
    let keys = table.some("api_key", secret);
    let digests = table.some("api_key_sha256", digest);
    let header = table.optional("header", header_name);
    let value = table.optional("value", header_value);
    let networks = table.some("network", network);
    let (has_keys, has_value, has_networks) =
        (table.has("api_key") || table.has("api_key_sha256"), table.has("value"), table.has("network"));
    match (has_keys, has_value, has_networks) {
        (true, false, false) => {
            let mut sha256 = unspan(keys.unwrap_or_default());
            sha256.extend(unspan(digests.unwrap_or_default()));
            if table.has("header") && header.is_none() {
                return None;
            }
            let header = header.unwrap_or(HeaderName::from_static("x-api-key"));
            Some(Identify::ApiKey { header, sha256 })
        }
        (false, true, false) => {
            if !table.has("header") {
                table.error(table.span("value"), Mistake::new("`value` needs the `header` it is in"));
            }
            let mut value = value?;
            value.set_sensitive(true);
            Some(Identify::Header { name: header?, value })
        }
        (false, false, true) => {
            if table.has("header") {
                table.error(table.span("header"), Mistake::new("`header` says nothing about a `network`"));
            }
            Some(Identify::Network(unspan(networks?)))
        }
        (false, false, false) => {
            let mistake = Mistake::new("`identify` does not say how to recognise the consumer");
            table.error(table.place(), mistake.hint("give it `api_key`, `header` and `value`, or `network`"));
            None
        }
        _ => {
            let mistake = Mistake::new("a consumer is recognised by one kind of thing");
            table.error(table.place(), mistake.hint("keep one of `api_key`, `value` and `network`"));
            None
        }
    }
}

/// Whatever a rate holds back is a client that waits.
const LONGEST_DELAY: Duration = Duration::from_secs(600);

/// The name under which everybody else is counted.
const ANONYMOUS: &str = "anonymous";
