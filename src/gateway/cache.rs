//! The operator's hand on the cache: purges, what is stored, and what one request would get.

use std::fmt;

use http::{HeaderMap, Method, Uri};

use super::Handle;
use crate::cache::entry::Head;
use crate::cache::key::KeyParts;
use crate::cache::purge::{Depth, Pick, Purge};
use crate::message::target::Target;
use crate::metrics;
use crate::proxy::snapshot::{Route, Snapshot};

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
        Ok(affected)
    }

    /// What requests see of the configuration now.
    fn snapshot(&self) -> std::sync::Arc<Snapshot> {
        // There is at least one worker, and all see the same.
        self.0.workers.first().expect("a gateway has a worker").snapshot.load_full()
    }
}

/// The spellings under which answers to `url` may be stored: one for each rule of the routes that may take it.
fn addresses(snapshot: &Snapshot, url: &Uri) -> Result<Vec<String>, PurgeError> {
    let unusable = || PurgeError::Url(url.clone());
    let scheme = url.scheme_str().ok_or_else(unusable)?;
    let headers = HeaderMap::new();
    let target = Target::of(url, &headers, false).map_err(|_| unusable())?;
    let parts =
        KeyParts { scheme, host: &target.host, path: &target.path, query: target.query, upstream: "", partition: None };
    let routes = snapshot.router.candidates(&target.host, &target.route_path(), &Method::GET);
    let caching = routes.into_iter().filter_map(|index| snapshot.routes.get(*index)?.cache.as_ref());
    // What an earlier configuration has stored may lie under the plain spelling.
    let plain = crate::cache::QueryRule::default();
    let rules = caching.map(|params| &params.query).chain([&plain]);
    let mut spelled: Vec<_> = rules.map(|rule| url_of(&parts.address(rule)).to_owned()).collect();
    spelled.sort_unstable();
    spelled.dedup();
    Ok(spelled)
}

/// The URL in an address.
fn url_of(address: &str) -> &str {
    address.split(' ').next().unwrap_or_default()
}

/// The routes that may have stored an answer, with their places: those its URL leads to and that ask its upstream.
fn candidates<'s>(snapshot: &'s Snapshot, head: &Head) -> impl Iterator<Item = (usize, &'s Route)> + use<'s> {
    let indices = split(head.url()).map_or_else(Vec::new, |(host, path, query)| {
        let target = Target { host: host.into(), path: path.into(), query };
        let routes = snapshot.router.candidates(host, &target.route_path(), &Method::GET);
        routes.into_iter().copied().collect()
    });
    let routes = indices.into_iter().filter_map(|index| Some((index, snapshot.routes.get(index)?)));
    let upstream = head.upstream().to_owned();
    routes.filter(move |(_, route)| *route.upstream.name == *upstream)
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
