//! Looking at what is stored, for operators: counts, and all variants of one request. Nothing here is for a hot path.

use std::sync::Arc;

use http::HeaderName;

use crate::cache::entry::Entry;
use crate::cache::key::Key;
use crate::cache::store::{Slot, Store};

/// How many of what there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Census {
    /// Stored answers.
    pub entries: u64,
    /// Lists of the fields by which the answers to one request vary.
    pub lists: u64,
    /// Remembrances that answers to a request may not be shared, those that have run out included.
    pub marks: u64,
}

/// The stored answers to one request that differ by its fields.
#[derive(Debug, Clone)]
pub struct VariantsOf {
    /// The fields that select among them (Vary).
    pub vary: Arc<[HeaderName]>,
    /// The answers.
    pub entries: Vec<Arc<Entry>>,
}

impl Store {
    /// Walks through everything, shows each stored answer to `visit`, and counts.
    pub fn census(&self, mut visit: impl FnMut(&Entry)) -> Census {
        let mut census = Census::default();
        for (_, slot) in &self.slots {
            match slot {
                Slot::Entry(entry) => {
                    census.entries += 1;
                    visit(&entry);
                }
                Slot::Vary(_) => census.lists += 1,
                Slot::Uncacheable { .. } => census.marks += 1,
            }
        }
        census
    }

    /// The variants of the answers to `primary`; `None` if its answer does not vary, or there is none.
    pub fn variants_of(&self, primary: Key) -> Option<VariantsOf> {
        let Some(Slot::Vary(variants)) = self.slots.get(&primary) else { return None };
        let stored = variants.keys().into_iter().filter_map(|key| match self.slots.get(&key)? {
            Slot::Entry(entry) => Some(entry),
            Slot::Vary(_) | Slot::Uncacheable { .. } => None,
        });
        Some(VariantsOf { vary: Arc::clone(&variants.vary), entries: stored.collect() })
    }
}

#[cfg(test)]
mod tests {
    use crate::cache::store::tests::World;

    use super::*;

    #[test]
    fn everything_there_is_is_counted_and_shown() {
        let mut world = World::new(1 << 20);
        world.put("/a", "", &[("accept-language", "en")]);
        world.put("/a", "", &[("accept-language", "sv")]);
        world.put("/b", "", &[]);
        world.store.mark_uncacheable(world.key("/c"), world.now);
        let mut seen = Vec::new();
        let census = world.store.census(|entry| seen.push(entry.head.url().to_owned()));
        seen.sort_unstable();
        assert_eq!(seen, ["http://erp/a", "http://erp/a", "http://erp/b"]);
        assert_eq!(census, Census { entries: 3, lists: 1, marks: 1 });
        let variants = world.store.variants_of(world.key("/a")).unwrap();
        assert_eq!((&*variants.vary, variants.entries.len()), (&[http::header::ACCEPT_LANGUAGE][..], 2));
        assert!(world.store.variants_of(world.key("/b")).is_none());
        assert!(world.store.variants_of(world.key("/d")).is_none());
    }
}
