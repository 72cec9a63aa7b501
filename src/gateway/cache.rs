//! The operator's hand on the cache: purges, what is stored, and what one request would get.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use http::{HeaderMap, Method, Uri};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::Handle;
use crate::cache::entry::{Entry, Head};
use crate::cache::key::KeyParts;
use crate::cache::persist::{Restored, Shelf, Written};
use crate::cache::purge::{Depth, Pick, Purge};
use crate::config::settings::{RouteSettings, Settings};
use crate::listen::Peer;
use crate::message::target::Target;
use crate::metrics::{self, CacheResult};
use crate::proxy::inspect;
use crate::proxy::snapshot::{Route, Snapshot, Worker};
use crate::refusal::Reason;

pub use crate::proxy::inspect::{EntryView, Inspection, KeyView, Verdict};

/// Which stored answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Extent {
    /// The answers to one absolute URL, as a client asks for it: path and query are brought into the form of the key by
    /// the rules of the routes that take it. All variants, whoever's they are.
    Url(Uri),
    /// The answers to all URLs that begin so, character by character.
    Prefix(String),
    /// The answers their origin has put into a group: Cache-Groups (RFC 9875), Surrogate-Key, Cache-Tag, xkey.
    Group {
        /// The group.
        name: String,
        /// `scheme://host`, for the group of that name of one origin alone (RFC 9875 section 2.1).
        origin: Option<String>,
    },
    /// The answers to all URLs that the route of this name may take.
    Route(String),
    /// The answers of the upstream of this name, in force or not.
    Upstream(String),
    /// All answers.
    All,
}

/// How the store stands.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CacheReport {
    /// Stored answers.
    pub entries: u64,
    /// Lists of the fields by which answers vary.
    pub lists: u64,
    /// Remembrances that answers may not be shared.
    pub marks: u64,
    /// What all that weighs, in bytes.
    pub bytes: u64,
    /// What it may weigh.
    pub capacity: u64,
    /// Answers that had to go to make room, since the start.
    pub evictions: u64,
    /// Fetches under way that others may join.
    pub flights: u64,
    /// Bytes they hold, or have announced.
    pub fills: u64,
    /// Finished requests to routes that cache, by what the cache did.
    pub requests: BTreeMap<&'static str, u64>,
    /// The share of them that was answered from the store without waiting for the upstream; none: no requests.
    pub hit_ratio: Option<f64>,
    /// The same for each route, in the order of the configuration.
    pub routes: Vec<RouteReport>,
}

/// How the store stands for one route.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RouteReport {
    /// Its name.
    pub route: String,
    /// Where it leads.
    pub upstream: String,
    /// Whether it caches.
    pub caches: bool,
    /// Stored answers to the URLs it takes.
    pub entries: u64,
    /// Those of them that are not fresh.
    pub stale: u64,
    /// What they weigh, in bytes.
    pub bytes: u64,
    /// Finished requests, by what the cache did.
    pub requests: BTreeMap<&'static str, u64>,
    /// As in [`CacheReport::hit_ratio`].
    pub hit_ratio: Option<f64>,
}

/// Why nothing was purged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PurgeError {
    /// There is no route of this name.
    #[error("there is no route {0}")]
    NoRoute(String),
    /// No request has such a URL.
    #[error("{0} is no absolute URL that a request could have: give http://HOST/PATH as clients ask for it")]
    Url(Uri),
}

impl Extent {
    const fn meter(&self) -> metrics::Extent {
        match self {
            Self::Url(_) => metrics::Extent::Url,
            Self::Prefix(_) => metrics::Extent::Prefix,
            Self::Group { .. } => metrics::Extent::Group,
            Self::Route(_) => metrics::Extent::Route,
            Self::Upstream(_) => metrics::Extent::Upstream,
            Self::All => metrics::Extent::All,
        }
    }
}

impl fmt::Display for Extent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(url) => write!(f, "url {url}"),
            Self::Prefix(prefix) => write!(f, "prefix {prefix}"),
            Self::Group { name, origin: None } => write!(f, "group {name}"),
            Self::Group { name, origin: Some(origin) } => write!(f, "group {name} of {origin}"),
            Self::Route(name) => write!(f, "route {name}"),
            Self::Upstream(name) => write!(f, "upstream {name}"),
            Self::All => f.write_str("all"),
        }
    }
}

impl Handle {
    /// Purges stored answers, and those whose request is on its way; how many stored ones were affected. Walks through
    /// the whole store: not for an event loop.
    ///
    /// # Errors
    /// See [`PurgeError`].
    pub fn purge(&self, extent: &Extent, depth: Depth) -> Result<usize, PurgeError> {
        let snapshot = self.snapshot();
        let purges = match extent.clone() {
            Extent::Url(url) => addresses(&snapshot, &url)?.into_iter().map(Purge::Url).collect(),
            Extent::Prefix(prefix) => vec![Purge::Prefix(prefix)],
            Extent::Group { name, origin } => vec![Purge::Group { name, origin }],
            Extent::Route(name) => {
                let route = snapshot.routes.iter().position(|route| *route.name == *name);
                let route = route.ok_or(PurgeError::NoRoute(name))?;
                vec![Purge::Picked(Pick::new(move |head| candidates(&snapshot, head).any(|(index, _)| index == route)))]
            }
            Extent::Upstream(name) => vec![Purge::Upstream(name)],
            Extent::All => vec![Purge::All],
        };
        let core = &self.0.core;
        let now = core.clock.now();
        let affected = purges.into_iter().map(|purge| core.store.purge(purge, depth, now)).sum();
        core.metrics.store().purged(extent.meter(), depth == Depth::Hard, affected);
        if let Some(shelf) = self.0.shelf.as_ref().filter(|_| depth == Depth::Hard)
            && let Err(error) = shelf.forget()
        {
            tracing::error!(%error, "what was purged may still be in the file of [cache.persist]");
        }
        Ok(affected)
    }

    /// Reads what the process before has stored, if the settings name a file and it is of the same configuration. To
    /// be called once, before the first request; blocks, for at most `patience`.
    pub fn restore(&self, patience: Duration) {
        let core = &self.0.core;
        let Some(shelf) = &self.0.shelf else { return };
        let Some(restored) = shelf.restore(&core.store, &core.clock, patience) else { return };
        core.metrics.store().restored(restored.entries);
        let Restored { entries, outlived, damaged, drained, cut } = restored;
        if damaged > 0 || cut {
            tracing::warn!(entries, outlived, damaged, cut, drained, "stored answers read from disk, not all of them");
        } else {
            tracing::info!(entries, outlived, drained, "stored answers read from disk");
        }
    }

    /// Writes what is stored, if the settings name a file. `drained`: no request will come any more; nothing is written
    /// after that. Blocks.
    pub fn save(&self, drained: bool) {
        let core = &self.0.core;
        let Some(shelf) = &self.0.shelf else { return };
        let now = core.clock.moment();
        let snapshot = self.snapshot();
        match shelf.save(&core.store, now, drained, |entry| is_current(&snapshot, entry)) {
            Ok(None) => {}
            Ok(Some(Written { entries, bytes, omitted })) => {
                core.metrics.store().saved(Some(bytes), now.wall);
                tracing::debug!(entries, bytes, omitted, drained, "stored answers written to disk");
            }
            Err(error) => {
                core.metrics.store().saved(None, now.wall);
                tracing::warn!(%error, "the stored answers cannot be written to the file of [cache.persist]");
            }
        }
    }

    /// How often [`save`](Self::save) is to be called besides at the end; `None`: the settings name no file.
    pub fn saves_every(&self) -> Option<Duration> {
        self.0.shelf.as_ref().map(Shelf::every)
    }

    /// What is stored, and how well it serves. Walks through the whole store: not for an event loop.
    pub fn cache_report(&self) -> CacheReport {
        let (snapshot, core) = (self.snapshot(), &self.0.core);
        let now = core.clock.now();
        let mut routes: Vec<_> = snapshot.routes.iter().map(RouteReport::of).collect();
        let census = core.store.census(|entry| {
            let first = candidates(&snapshot, &entry.head).next();
            if let Some(route) = first.and_then(|(index, _)| routes.get_mut(index)) {
                route.entries += 1;
                route.stale += u64::from(entry.is_soft_purged() || entry.head.staleness(now).is_some());
                route.bytes += u64::from(entry.weight());
            }
        });
        let mut requests = BTreeMap::new();
        for (result, count) in routes.iter().flat_map(|route| &route.requests) {
            *requests.entry(*result).or_default() += count;
        }
        core.store.maintain();
        let stats = core.store.stats();
        CacheReport {
            entries: census.entries,
            lists: census.lists,
            marks: census.marks,
            bytes: stats.bytes,
            capacity: stats.capacity,
            evictions: stats.evicted,
            flights: core.flights.len() as u64,
            fills: core.flights.bytes(),
            hit_ratio: hit_ratio(&requests),
            requests,
            routes,
        }
    }

    /// What a request from `peer` would get from the store now, and why. It is not sent, counted or limited.
    ///
    /// # Errors
    /// Why it would be refused before the store is asked.
    pub fn inspect(&self, parts: &Parts, peer: Peer) -> Result<Inspection, Reason> {
        inspect::inspect(self.first_worker(), parts, peer)
    }

    /// What requests see of the configuration now; all workers see the same.
    pub(super) fn snapshot(&self) -> Arc<Snapshot> {
        self.first_worker().snapshot.load_full()
    }

    pub(super) fn first_worker(&self) -> &Arc<Worker> {
        self.0.workers.first().expect("a gateway has at least one worker")
    }
}

impl RouteReport {
    fn of(route: &Route) -> Self {
        let counted = CacheResult::ALL.into_iter().filter(|result| *result != CacheResult::Off);
        let requests = counted.map(|result| (result.code(), route.meter.count(result))).collect();
        Self {
            route: route.name.to_string(),
            upstream: route.upstream.name.to_string(),
            caches: route.cache.is_some(),
            entries: 0,
            stale: 0,
            bytes: 0,
            hit_ratio: hit_ratio(&requests),
            requests,
        }
    }
}

fn hit_ratio(requests: &BTreeMap<&'static str, u64>) -> Option<f64> {
    let all: u64 = requests.values().sum();
    let hits = [CacheResult::Hit, CacheResult::Stale].map(|result| requests.get(result.code()).copied());
    (all > 0).then(|| hits.into_iter().flatten().sum::<u64>() as f64 / all as f64)
}

/// The spellings under which answers to `url` may be stored: one for each rule of the routes that may take it.
fn addresses(snapshot: &Snapshot, url: &Uri) -> Result<Vec<String>, PurgeError> {
    let unusable = || PurgeError::Url(url.clone());
    let scheme = url.scheme_str().ok_or_else(unusable)?;
    let headers = HeaderMap::new();
    let target = Target::of(url, &headers, false).map_err(|_| unusable())?;
    let parts = KeyParts {
        scheme,
        host: &target.host,
        path: &target.path,
        query: target.query,
        upstream: "",
        partition: None,
        body: None,
    };
    // Reads and declared POST reads of one URL may be different routes' business.
    let routes = [Method::GET, Method::POST]
        .map(|method| snapshot.router.candidates(&target.host, &target.route_path(), &method));
    let caching = routes.into_iter().flatten().filter_map(|index| snapshot.routes.get(*index)?.cache.as_ref());
    // What an earlier configuration has stored may lie under the plain spelling.
    let plain = crate::cache::QueryRule::default();
    let rules = caching.map(|params| &params.query).chain([&plain]);
    let mut spelled: Vec<_> = rules.map(|rule| url_of(&parts.address(rule)).to_owned()).collect();
    spelled.sort_unstable();
    spelled.dedup();
    Ok(spelled)
}

/// Stands for all of a configuration that says which answers are stored and for whom: under another one they may mean
/// something else.
pub(super) fn fingerprint(settings: &Settings) -> [u8; 32] {
    let mut hasher = Sha256::new();
    for route in &settings.routes {
        let RouteSettings { matching, cache, rewrite, request_headers, .. } = route;
        let upstream = settings.upstreams.get(route.upstream);
        let upstream = upstream.map(|upstream| (&upstream.name, &upstream.endpoints, upstream.host));
        hasher.update(format!("{:?}\n", (matching, cache, rewrite, request_headers, upstream)));
    }
    hasher.finalize().into()
}

/// The URL in an address.
fn url_of(address: &str) -> &str {
    address.split(' ').next().unwrap_or_default()
}

/// The routes that may have stored an answer, with their places: those its URL leads to and that ask its upstream.
fn candidates<'s>(snapshot: &'s Snapshot, head: &Head) -> impl Iterator<Item = (usize, &'s Route)> + use<'s> {
    let indices = split(head.url()).map_or_else(Vec::new, |(host, path, query)| {
        let target = Target { host: host.into(), path: path.into(), query };
        let method = if head.is_to_post() { Method::POST } else { Method::GET };
        let routes = snapshot.router.candidates(host, &target.route_path(), &method);
        routes.into_iter().copied().collect()
    });
    let routes = indices.into_iter().filter_map(|index| Some((index, snapshot.routes.get(index)?)));
    let upstream = head.upstream().to_owned();
    routes.filter(move |(_, route)| *route.upstream.name == *upstream)
}

/// Whether nothing was written since to the group of any route that may have stored an answer for all. Where the fence of
/// the URL counts as well, that is not known.
fn is_current(snapshot: &Snapshot, entry: &Entry) -> bool {
    let group = |route: &Route| route.group.as_ref().map_or(0, |fence| fence.generation());
    let is_known = |route: &Route| route.cache.as_ref().is_none_or(|params| !params.is_fenced_by_url());
    !entry.head.is_to_post()
        && candidates(snapshot, &entry.head).all(|(_, route)| is_known(route) && group(route) == entry.generation())
}

/// Host, path and query of the URL of an entry.
fn split(url: &str) -> Option<(&str, &str, Option<&str>)> {
    let (_, rest) = url.split_once("://")?;
    let (host, path) = rest.split_at(rest.find('/')?);
    Some(match path.split_once('?') {
        Some((path, query)) => (host, path, Some(query)),
        None => (host, path, None),
    })
}
