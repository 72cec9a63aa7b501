//! Step 4: what the store has for a request. A fresh answer, or a stale one that may be served while it is refreshed,
//! ends the trip here without waiting; for everything else the way onward is chosen.

use std::sync::Arc;
use std::time::Instant;

use http::request::Parts;
use http::{Method, header};

use super::exchange::Exchange;
use super::respond::Forward;
use super::snapshot::Route;
use crate::cache::CacheParams;
use crate::cache::control::RequestControl;
use crate::cache::entry::Entry;
use crate::cache::key::{Key, KeyParts};
use crate::cache::reuse::{self, Reuse};
use crate::cache::store::{FoundSlot, Lookup};
use crate::message::target::Target;
use crate::metrics::CacheResult;
use crate::refusal::Reason;

/// The way onward.
pub(super) enum Looked {
    /// Answer with this entry; and refresh it, if there is where from.
    Serve(Arc<Entry>, CacheResult, Option<Wanted>),
    /// Ask the upstream for this request alone. What comes is stored if there is a place for it, and what is changed
    /// there is invalidated here.
    Alone(CacheResult, Option<Forward>, Option<(Key, Address)>),
    /// Fetch it for the store, together with everybody who asks for the same.
    Fetch(Wanted, Forward),
    /// Only a stored answer was wanted.
    Refuse(Reason),
}

/// What a fill is to bring.
#[derive(Clone)]
pub(super) struct Wanted {
    /// Its place.
    pub(super) address: Address,
    /// Its key.
    pub(super) primary: Key,
    /// The variant, if the store knows by which fields the answer varies.
    pub(super) flight: Key,
    /// What is there already: to be validated, or to stand in when the upstream fails.
    pub(super) stale: Option<Arc<Entry>>,
    /// What the request says of caching.
    pub(super) control: RequestControl,
}

/// The key of a request in clear, in a form that outlives it.
#[derive(Debug, Clone)]
pub(super) struct Address {
    scheme: &'static str,
    host: Box<str>,
    path: Box<str>,
    query: Option<Box<str>>,
    upstream: Box<str>,
    partition: Option<u64>,
}

impl Address {
    fn of(parts: &KeyParts<'_>) -> Self {
        Self {
            scheme: if parts.scheme == "https" { "https" } else { "http" },
            host: parts.host.into(),
            path: parts.path.into(),
            query: parts.query.map(Box::from),
            upstream: parts.upstream.into(),
            partition: parts.partition,
        }
    }

    /// The address of another resource of the same origin, named by a field of an answer; `None` if it is elsewhere.
    pub(super) fn sibling(&self, place: &str) -> Option<Self> {
        let place: http::Uri = place.parse().ok()?;
        let elsewhere = place.host().is_some()
            && (place.scheme_str() != Some(self.scheme)
                || place.authority().is_none_or(|authority| !authority.as_str().eq_ignore_ascii_case(&self.host)));
        if elsewhere || !place.path().starts_with('/') {
            return None;
        }
        Some(Self { path: place.path().into(), query: place.query().map(Box::from), ..self.clone() })
    }

    /// The origin it is of: `scheme://host`.
    pub(super) fn origin(&self) -> String {
        format!("{}://{}", self.scheme, self.host)
    }

    /// The key in clear.
    pub(super) fn parts(&self) -> KeyParts<'_> {
        KeyParts {
            scheme: self.scheme,
            host: &self.host,
            path: &self.path,
            query: self.query.as_deref(),
            upstream: &self.upstream,
            partition: self.partition,
        }
    }
}

/// Looks into the store.
pub(super) fn look(exchange: &Exchange, route: &Route, parts: &Parts, target: &Target<'_>, safe: bool) -> Looked {
    let Some(params) = &route.cache else { return Looked::Alone(CacheResult::Off, None, None) };
    let core = &exchange.worker.core;
    let key_parts = key_parts(exchange, route, params, parts, target);
    let primary = core.store.keyer().primary(&key_parts, &params.query);
    let address = || Address::of(&key_parts);
    let alone = |result, why, detail| {
        Looked::Alone(result, Some(Forward { detail: Some(detail), ..Forward::new(why) }), Some((primary, address())))
    };
    if !safe || !matches!(parts.method, Method::GET | Method::HEAD) {
        return alone(CacheResult::Pass, "method", "method");
    }
    if let Some(bypass) = reuse::bypass(&parts.method, &parts.headers) {
        return alone(CacheResult::Bypass, "bypass", bypass.code());
    }
    if parts.headers.contains_key(header::UPGRADE) {
        return alone(CacheResult::Bypass, "bypass", "upgrade");
    }
    let now = exchange.started.mono;
    let control = RequestControl::parse(&parts.headers);
    let asked = Lookup { primary, parts: &key_parts, rule: &params.query, headers: &parts.headers };
    let found = core.store.find(&asked, now);
    let flight = found.key;
    let (entry, why) = match found.slot {
        FoundSlot::Entry(entry) => {
            let wanted = |entry| Wanted { address: address(), primary, flight, stale: Some(entry), control };
            match reuse::decide(&entry.head, entry.is_soft_purged(), &control, now) {
                Reuse::Fresh => return Looked::Serve(entry, CacheResult::Hit, None),
                Reuse::MaxStale => return Looked::Serve(entry, CacheResult::Stale, None),
                Reuse::StaleWhileRevalidate => {
                    let refresh = entry.may_refresh(now).then(|| wanted(Arc::clone(&entry)));
                    return Looked::Serve(entry, CacheResult::Stale, refresh);
                }
                // A HEAD may freshen even what is past its life.
                Reuse::Gone if parts.method != Method::HEAD => (None, why_not(&entry, now)),
                Reuse::Validate | Reuse::OnlyOnError | Reuse::Gone => {
                    let why = why_not(&entry, now);
                    (Some(entry), why)
                }
            }
        }
        FoundSlot::Uncacheable if control.only_if_cached => return Looked::Refuse(Reason::CacheOnly),
        FoundSlot::Uncacheable => return alone(CacheResult::Pass, "miss", "uncacheable"),
        FoundSlot::VaryMiss => (None, "vary-miss"),
        FoundSlot::Miss => match core.store.find_equivalent(&asked) {
            Some(entry) if is_fresh(&entry, &control, now) => return Looked::Serve(entry, CacheResult::Hit, None),
            _ => (None, "uri-miss"),
        },
    };
    if control.only_if_cached {
        return Looked::Refuse(Reason::CacheOnly);
    }
    // A part of what is not stored is asked for as it is; so is a mere head, and what the client forbids to store.
    let partial = entry.is_none() && parts.headers.contains_key(header::RANGE);
    if parts.method == Method::HEAD && entry.is_none() || partial || control.no_store {
        return alone(CacheResult::Pass, why, if partial { "range" } else { "unstored" });
    }
    // Answers to credentials are rarely for all: nobody is made to wait for one.
    if parts.headers.contains_key(header::AUTHORIZATION) && !params.per_consumer && entry.is_none() {
        return alone(CacheResult::Pass, why, "authorization");
    }
    Looked::Fetch(Wanted { address: address(), primary, flight, stale: entry, control }, Forward::new(why))
}

fn is_fresh(entry: &Entry, control: &RequestControl, now: Instant) -> bool {
    reuse::decide(&entry.head, entry.is_soft_purged(), control, now) == Reuse::Fresh
}

/// Why a stored answer does not serve (RFC 9211 section 2.2): it is stale, or it is fresh and the request does not take it.
fn why_not(entry: &Entry, now: Instant) -> &'static str {
    let usable = entry.head.staleness(now).is_none() && !entry.head.life.always_validate && !entry.is_soft_purged();
    if usable { "request" } else { "stale" }
}

/// What the answer to a request is stored under.
pub(super) fn key_parts<'a>(
    exchange: &Exchange,
    route: &'a Route,
    params: &CacheParams,
    parts: &Parts,
    target: &'a Target<'_>,
) -> KeyParts<'a> {
    let partition = params.per_consumer.then(|| {
        let (_, number) = exchange.caller();
        exchange.worker.core.store.keyer().partition(number, &parts.headers)
    });
    KeyParts {
        scheme: if exchange.peer.tls { "https" } else { "http" },
        host: &target.host,
        path: &target.path,
        query: target.query,
        upstream: &route.upstream.name,
        partition,
    }
}
