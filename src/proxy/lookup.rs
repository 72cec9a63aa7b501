//! Step 4: what the store has for a request. A fresh answer, or a stale one that may be served while it is refreshed,
//! ends the trip here without waiting; for everything else the way onward is chosen.

use std::sync::Arc;
use std::time::Instant;

use http::request::Parts;
use http::{Method, header};

use super::admit;
use super::exchange::Exchange;
use super::respond::Forward;
use super::snapshot::{Core, Route};
use super::standing;
use crate::cache::control::RequestControl;
use crate::cache::entry::Entry;
use crate::cache::fence::{Fences, Mark};
use crate::cache::key::{Key, KeyParts, Keyer};
use crate::cache::reuse::{self, Bypass, Reuse};
use crate::cache::store::{FoundSlot, Lookup};
use crate::cache::{CacheParams, QueryRule};
use crate::gear::Gear;
use crate::message::present::Present;
use crate::message::target::Target;
use crate::metrics::{CacheEvent, CacheResult};
use crate::refusal::Reason;

/// The way onward.
pub(super) enum Looked {
    /// Answer with this entry; and refresh it, if there is where from.
    Serve(Arc<Entry>, CacheResult, Option<Arc<Wanted>>),
    /// Ask the upstream for this request alone. What comes is stored if there is a place for it, and what is changed
    /// there is invalidated here.
    Alone(CacheResult, Option<Forward>, Option<Box<(Key, Address)>>),
    /// Fetch it for the store, together with everybody who asks for the same.
    Fetch(Arc<Wanted>, Forward),
    /// Its body belongs to its key: it is to be read first.
    Read,
    /// Only a stored answer was wanted.
    Refuse(Reason),
}

/// What is known of the body of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    /// There is none.
    None,
    /// It has not been read.
    Unread,
    /// The digest of the body of a POST that only reads.
    Read([u8; 32]),
}

impl Content {
    /// What stands for the body in the key.
    const fn digest(self) -> Option<[u8; 32]> {
        match self {
            Self::Read(digest) => Some(digest),
            Self::None | Self::Unread => None,
        }
    }
}

impl Looked {
    /// What a rule of the cache has done to a request that goes on.
    pub(super) fn event(&self) -> Option<CacheEvent> {
        match self {
            Self::Alone(_, Some(Forward { detail: Some(UNPROVEN), .. }), _) => Some(CacheEvent::Unproven),
            Self::Fetch(wanted, _) if wanted.is_outdated => Some(CacheEvent::Outdated),
            _ => None,
        }
    }
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
    /// Where the fences stood.
    pub(super) mark: Mark,
    /// What is there already: to be validated (unless it is outdated), or to stand in when the upstream fails.
    pub(super) stale: Option<Arc<Entry>>,
    /// Something was written since that was stored.
    pub(super) is_outdated: bool,
    /// What the request says of caching.
    pub(super) control: RequestControl,
}

impl Wanted {
    /// The key of the flight that brings what is there now.
    pub(super) const fn flight_now(&self) -> Key {
        self.flight.in_generation(self.mark.flight)
    }
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
    /// Of a POST that only reads: the digest of its body.
    body: Option<[u8; 32]>,
    /// The key of its URL, whoever asks.
    url: Key,
    /// The route that stores it.
    route: usize,
}

impl Address {
    fn of(parts: &KeyParts<'_>, url: Key, route: usize) -> Self {
        Self {
            scheme: if parts.scheme == "https" { "https" } else { "http" },
            host: parts.host.into(),
            path: parts.path.into(),
            query: parts.query.map(Box::from),
            upstream: parts.upstream.into(),
            partition: parts.partition,
            body: parts.body,
            url,
            route,
        }
    }

    /// The key of its URL, whoever asks.
    pub(super) const fn url(&self) -> Key {
        self.url
    }

    /// The route that stores it, by its index.
    pub(super) const fn route(&self) -> usize {
        self.route
    }

    /// Key and address of another resource of the same origin, named by a field of an answer; `None` if it is
    /// elsewhere.
    pub(super) fn sibling(&self, place: &str, keyer: &Keyer, rule: &QueryRule) -> Option<(Key, Self)> {
        let place: http::Uri = place.parse().ok()?;
        let elsewhere = place.host().is_some()
            && (place.scheme_str() != Some(self.scheme)
                || place.authority().is_none_or(|authority| !authority.as_str().eq_ignore_ascii_case(&self.host)));
        if elsewhere || !place.path().starts_with('/') {
            return None;
        }
        let mut other =
            Self { body: None, path: place.path().into(), query: place.query().map(Box::from), ..self.clone() };
        let primary = keyer.primary(&other.parts(), rule);
        other.url = keyer.url(primary, &other.parts(), rule);
        Some((primary, other))
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
            body: self.body,
        }
    }
}

/// Looks into the store.
pub(super) fn look(
    exchange: &mut Exchange,
    route: &Route,
    parts: &Parts,
    target: &Target<'_>,
    safe: bool,
    content: Content,
) -> Looked {
    let present = exchange.present;
    let Some(params) = &route.cache else {
        let changed = if safe { None } else { read_elsewhere(exchange, parts, target) };
        return Looked::Alone(CacheResult::Off, None, changed);
    };
    let body = content.digest();
    let is_post = parts.method == Method::POST && params.post.is_some();
    if is_post && body.is_none() && admit::is_safe(&Method::GET, present) {
        return Looked::Read;
    }
    exchange.identity = standing::identity(exchange, params, &parts.headers);
    let core = &exchange.worker.core;
    let partition = standing::partition(&exchange.worker, params, exchange.identity);
    let key_parts = KeyParts { body, ..key_parts(exchange, route, target, partition) };
    let clear = key_parts.clear(&params.query);
    let primary = core.store.keyer().of(&clear);
    let url = core.store.keyer().url(primary, &key_parts, &params.query);
    let address = || Address::of(&key_parts, url, exchange.route.unwrap_or(usize::MAX));
    let alone = |result, why, detail| {
        Looked::Alone(
            result,
            Some(Forward { detail: Some(detail), ..Forward::new(why) }),
            Some(Box::new((primary, address()))),
        )
    };
    if let Some((result, why, detail)) = past(exchange, params, parts, safe, content) {
        // What was asked for with content is nobody else's answer.
        let place = (detail != Bypass::Content.code()).then(|| Box::new((primary, address())));
        return Looked::Alone(result, Some(Forward { detail: Some(detail), ..Forward::new(why) }), place);
    }
    let now = exchange.now;
    let control =
        if present.has(Present::CONTROL) { RequestControl::parse(&parts.headers) } else { RequestControl::default() };
    if !standing::is_let_in(exchange, route, params, exchange.identity) {
        if control.only_if_cached {
            return Looked::Refuse(Reason::CacheOnly);
        }
        return alone(CacheResult::Bypass, "bypass", UNPROVEN);
    }
    let asked = Lookup { primary, clear: &clear, headers: &parts.headers };
    let found = exchange.worker.hot.find(&core.store, &asked, now);
    let flight = found.key;
    let fences = fences(core, route, params, url);
    let wanted = |stale, is_outdated| {
        let mark = fences.mark();
        Arc::new(Wanted { address: address(), primary, flight, mark, stale, is_outdated, control })
    };
    let mut is_outdated = false;
    let (entry, why) = match found.slot {
        FoundSlot::Entry(entry) if entry.generation() != fences.generation() => {
            is_outdated = true;
            let stands_in = reuse::decide_outdated(&entry.head, &control, now) == Reuse::OnlyOnError;
            (stands_in.then_some(entry), "stale")
        }
        FoundSlot::Entry(entry) => match fit(&entry, route, &control, now) {
            Fit::Serve(result, refreshes) => {
                let refresh = refreshes.then(|| wanted(Some(Arc::clone(&entry)), false));
                return Looked::Serve(entry, result, refresh);
            }
            // A HEAD may freshen even what is past its life.
            Fit::Gone if parts.method != Method::HEAD => (None, why_not(&entry, now)),
            Fit::Validate | Fit::Gone => {
                let why = why_not(&entry, now);
                (Some(entry), why)
            }
        },
        FoundSlot::Uncacheable if control.only_if_cached => return Looked::Refuse(Reason::CacheOnly),
        FoundSlot::Uncacheable => return alone(CacheResult::Pass, "miss", "uncacheable"),
        FoundSlot::VaryMiss => (None, "vary-miss"),
        FoundSlot::Miss => match core.store.find_equivalent(&asked) {
            // Whether another URL's answer is one user's, or outdated, is known to its own fence alone.
            Some(entry)
                if !params.is_partitioned()
                    && entry.generation() == fences.generation()
                    && is_fresh(&entry, &control, now) =>
            {
                return Looked::Serve(entry, CacheResult::Hit, None);
            }
            _ => (None, "uri-miss"),
        },
    };
    if control.only_if_cached {
        return Looked::Refuse(Reason::CacheOnly);
    }
    if let Some(detail) = unshared(exchange, params, parts, &control, entry.is_none()) {
        return alone(CacheResult::Pass, why, detail);
    }
    let detail = is_outdated.then_some("outdated");
    Looked::Fetch(wanted(entry, is_outdated), Forward { detail, ..Forward::new(why) })
}

/// Why a request goes past the store, if it does: what the cache did, and `fwd` and `detail` of its Cache-Status.
fn past(
    exchange: &Exchange,
    params: &CacheParams,
    parts: &Parts,
    safe: bool,
    content: Content,
) -> Option<(CacheResult, &'static str, &'static str)> {
    let method = if content.digest().is_some() { &Method::GET } else { &parts.method };
    if !safe || (content.digest().is_none() && !params.methods.contains(method)) {
        return Some((CacheResult::Pass, "method", "method"));
    }
    let has_content = content == Content::Unread;
    if (has_content || exchange.present.has(Present::PAST))
        && let Some(bypass) = reuse::bypass(method, &parts.headers, has_content)
    {
        return Some((CacheResult::Bypass, "bypass", bypass.code()));
    }
    exchange.present.has(Present::UPGRADE).then_some((CacheResult::Bypass, "bypass", "upgrade"))
}

/// Why a request that is not answered from the store is sent on without others, if it is; `absent`: nothing of it is
/// stored.
fn unshared(
    exchange: &Exchange,
    params: &CacheParams,
    parts: &Parts,
    control: &RequestControl,
    absent: bool,
) -> Option<&'static str> {
    let present = exchange.present;
    // A part of what is not stored is asked for as it is; so is a mere head, and what the client forbids to store.
    if absent && present.has(Present::CONDITION) && parts.headers.contains_key(header::RANGE) {
        return Some("range");
    }
    if (absent && parts.method == Method::HEAD) || control.no_store {
        return Some("unstored");
    }
    // Answers to credentials are rarely for all: nobody is made to wait for one.
    let personal = absent && present.has(Present::AUTHORIZATION) && !params.knows_identities();
    personal.then_some("authorization")
}

/// What a stored answer is good for.
enum Fit {
    /// To be served; and to be refreshed in the background or not.
    Serve(CacheResult, bool),
    /// To be validated, or to stand in for an error.
    Validate,
    /// Nothing.
    Gone,
}

/// What a stored answer that no fence has outdated is good for, in the gear its upstream is in.
fn fit(entry: &Entry, route: &Route, control: &RequestControl, now: Instant) -> Fit {
    let stand = route.upstream.gears.stand();
    let refreshes = || entry.may_refresh(now) && route.upstream.may_refresh();
    match reuse::decide(&entry.head, entry.is_soft_purged(), control, now) {
        Reuse::Fresh => {
            // Before a window what is asked for is renewed, though it is fresh.
            let renew = stand.as_ref().and_then(|stand| stand.renew).filter(|renew| entry.head.received < *renew);
            Fit::Serve(CacheResult::Hit, renew.is_some() && refreshes())
        }
        Reuse::MaxStale => Fit::Serve(CacheResult::Stale, false),
        Reuse::StaleWhileRevalidate => Fit::Serve(CacheResult::Stale, refreshes()),
        // What would stand in for an error need not wait for one.
        Reuse::Validate | Reuse::OnlyOnError
            if stand.as_ref().is_some_and(|stand| stand.gear >= Gear::Eco)
                && !control.wants_fresh()
                && reuse::on_error(&entry.head, control, now) =>
        {
            Fit::Serve(CacheResult::Stale, refreshes())
        }
        Reuse::Validate | Reuse::OnlyOnError => Fit::Validate,
        Reuse::Gone => Fit::Gone,
    }
}

/// The fences before what a route stores of a URL.
pub(super) fn fences<'a>(core: &'a Core, route: &'a Route, params: &CacheParams, url: Key) -> Fences<'a> {
    Fences { group: route.group.as_deref(), url: core.urls.of(url), by_url: params.is_fenced_by_url() }
}

/// Where the answers to GET are stored that an unsafe request may change, if that is another route's business: reads
/// and writes of one URL may be told apart by method.
fn read_elsewhere(exchange: &Exchange, parts: &Parts, target: &Target<'_>) -> Option<Box<(Key, Address)>> {
    let snapshot = &exchange.snapshot;
    let index = *snapshot.router.find(&target.host, &target.route_path(), &Method::GET, &parts.headers)?;
    let route = snapshot.routes.get(index)?;
    let rule = &route.cache.as_ref()?.query;
    let key_parts = key_parts(exchange, route, target, None);
    let url = exchange.worker.core.store.keyer().primary(&key_parts, rule);
    Some(Box::new((url, Address::of(&key_parts, url, index))))
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
    target: &'a Target<'_>,
    partition: Option<u64>,
) -> KeyParts<'a> {
    KeyParts {
        scheme: if exchange.https { "https" } else { "http" },
        host: &target.host,
        path: &target.path,
        query: target.query,
        upstream: &route.upstream.name,
        partition,
        body: None,
    }
}

/// The detail of a request whose identity the upstream has not let in of late.
const UNPROVEN: &str = "unproven";
