//! Where the answers are that also answer other queries (No-Vary-Search): from the text all their queries have in common
//! to the key of the one that is stored. Asked only when a request misses, and only once an origin has sent the field.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::cache::QueryRule;
use crate::cache::entry::Entry;
use crate::cache::key::{Clear, Key};
use crate::cache::search::{self, NO_VARY_SEARCH};

/// What answers to other queries are known, bounded in bytes.
pub(super) struct Aliases {
    known: moka::sync::Cache<String, Known>,
    any: AtomicBool,
}

#[derive(Clone)]
enum Known {
    /// What the last such answer to a path said of queries.
    Rule(Arc<QueryRule>),
    /// Where the answer is.
    Place(Key),
}

impl Aliases {
    /// None yet, and never more than `capacity` bytes of them.
    pub(super) fn new(capacity: u64) -> Self {
        let weight = |text: &String, _: &Known| u32::try_from(text.len() + OVERHEAD).unwrap_or(u32::MAX);
        let known = moka::sync::Cache::builder().max_capacity(capacity).weigher(weight).build();
        Self { known, any: AtomicBool::new(false) }
    }

    /// Notes an answer that was stored under `primary`, if it answers other queries as well.
    pub(super) fn note(&self, primary: Key, entry: &Entry) {
        if !entry.head.headers.contains_key(NO_VARY_SEARCH) {
            return;
        }
        let Some(rule) = search::rule(&entry.head.headers) else { return };
        let (path, query) = search::split(&entry.head.address);
        let place = place(&path, query, &rule);
        self.known.insert(place, Known::Place(primary));
        self.known.insert(path, Known::Rule(Arc::new(rule)));
        self.any.store(true, Ordering::Relaxed);
    }

    /// The key under which an answer to a request may be, if it is not under its own.
    pub(super) fn find(&self, clear: &Clear) -> Option<Alias> {
        if !self.any.load(Ordering::Relaxed) {
            return None;
        }
        let (path, query) = search::split(std::str::from_utf8(clear.address()).ok()?);
        let Some(Known::Rule(rule)) = self.known.get(&path) else { return None };
        let place = place(&path, query, &rule);
        match self.known.get(&place)? {
            Known::Place(primary) => Some(Alias { primary, place, rule }),
            Known::Rule(_) => None,
        }
    }
}

/// Where the answer to another query may be.
pub(super) struct Alias {
    /// Its primary key.
    pub(super) primary: Key,
    place: String,
    rule: Arc<QueryRule>,
}

impl Alias {
    /// Whether `entry` says itself that it answers the query asked for.
    pub(super) fn is_of(&self, entry: &Entry) -> bool {
        let (path, query) = search::split(&entry.head.address);
        search::rule(&entry.head.headers).is_some_and(|rule| rule == *self.rule)
            && place(&path, query, &self.rule) == self.place
    }
}

impl fmt::Debug for Aliases {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Aliases").field("known", &self.known.entry_count()).finish_non_exhaustive()
    }
}

/// No path begins with `=`.
fn place(path: &str, query: Option<&str>, rule: &QueryRule) -> String {
    format!("={path}{}", search::canonical(query, rule))
}

/// What one costs besides its text, in bytes.
const OVERHEAD: usize = 250;
