//! What one worker finds again and again, in front of the store.
//!
//! The store's map writes down every look in a log that all cores share, to learn what is asked for often. Its counters
//! end at 15, so of what is surely asked for often it need not hear each time: that is found here, and every eighth look
//! goes to the store.
//!
//! Nothing is valid because it is here. An answer that the store has given up, for whatever reason, says so itself
//! ([`Entry::is_retired`]), in the moment in which it is given up; and it is not kept alive. So does the mark that answers
//! may not be shared (`Mark::is_at`). Answers with Vary are not here: which of them answers is for the list of variants
//! to say.

use std::sync::{Arc, Weak};
use std::time::Instant;

use parking_lot::Mutex;

use crate::cache::entry::Entry;
use crate::cache::store::{Found, FoundSlot, Lookup, Mark, Store};

/// A few answers and marks that were found of late; each worker has its own.
#[derive(Debug)]
pub struct Hot(Mutex<Box<[Place]>>);

#[derive(Debug, Default)]
struct Place {
    kept: Kept,
    /// How often it was asked for.
    looks: u32,
}

#[derive(Debug, Default)]
enum Kept {
    #[default]
    Nothing,
    Entry(Weak<Entry>),
    Mark(Arc<Mark>),
}

impl Hot {
    /// Nothing yet.
    pub fn new() -> Self {
        Self(Mutex::new((0..PLACES).map(|_| Place::default()).collect()))
    }

    /// As [`Store::find`].
    pub fn find(&self, store: &Store, asked: &Lookup<'_>, now: Instant) -> Found {
        let mut places = self.0.lock();
        let place = places.get_mut(asked.primary.0 as usize % PLACES).expect("a remainder is less than its divisor");
        if let Some(slot) = place.look(asked, now) {
            return Found { key: asked.primary, slot };
        }
        let (found, mark) = store.find_marked(asked, now);
        match (&found.slot, mark) {
            (_, Some(mark)) => place.keep(Kept::Mark(mark)),
            (FoundSlot::Entry(entry), None) if found.key == asked.primary => {
                place.keep(Kept::Entry(Arc::downgrade(entry)));
            }
            _ => {}
        }
        found
    }
}

impl Default for Hot {
    fn default() -> Self {
        Self::new()
    }
}

impl Place {
    fn look(&mut self, asked: &Lookup<'_>, now: Instant) -> Option<FoundSlot> {
        self.looks = self.looks.wrapping_add(1);
        if self.looks <= COUNTED || self.looks.is_multiple_of(TOLD) {
            return None;
        }
        match &self.kept {
            Kept::Nothing => None,
            Kept::Entry(entry) => {
                let entry = entry.upgrade().filter(|entry| !entry.is_retired() && asked.is_answered_by(entry))?;
                Some(FoundSlot::Entry(entry))
            }
            Kept::Mark(mark) => mark.is_at(asked.primary, now).then_some(FoundSlot::Uncacheable),
        }
    }

    fn keep(&mut self, kept: Kept) {
        if !self.kept.is(&kept) {
            *self = Self { kept, looks: 0 };
        }
    }
}

impl Kept {
    fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Entry(one), Self::Entry(other)) => one.ptr_eq(other),
            (Self::Mark(one), Self::Mark(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }
}

/// 24 bytes each; a mark has 64 more.
const PLACES: usize = 256;

/// Looks that the store is told of one by one: more than its counters tell apart.
const COUNTED: u32 = 16;

/// After those, one look in so many.
const TOLD: u32 = 8;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::cache::purge::{Depth, Purge};
    use crate::cache::store::tests::World;

    const PATHS: [&str; 3] = ["/a", "/b", "/c"];

    #[derive(Debug, Clone)]
    enum Event {
        Put {
            varies: bool,
        },
        Purge(Depth),
        PurgeAll(Depth),
        Uncacheable,
        /// A minute passes: a mark stands for two.
        Minute,
    }

    fn event() -> impl Strategy<Value = Event> {
        let depth = || prop_oneof![Just(Depth::Soft), Just(Depth::Hard)];
        prop_oneof![
            any::<bool>().prop_map(|varies| Event::Put { varies }),
            depth().prop_map(Event::Purge),
            depth().prop_map(Event::PurgeAll),
            Just(Event::Uncacheable),
            Just(Event::Minute),
        ]
    }

    fn happens(world: &mut World, path: &str, event: &Event) {
        let (key, now) = (world.key(path), world.later());
        match event {
            Event::Put { varies: false } => drop(world.put(path, "", &[])),
            Event::Put { varies: true } => drop(world.put(path, "", &[("foo", "1")])),
            Event::Purge(depth) => drop(world.store.purge(Purge::Key(key), *depth, now)),
            Event::PurgeAll(depth) => drop(world.store.purge(Purge::All, *depth, now)),
            Event::Uncacheable => world.store.mark_uncacheable(key, now),
            Event::Minute => world.now += Duration::from_secs(60),
        }
    }

    /// What is found, so that two looks can be compared.
    fn seen(found: &Found) -> (u128, String, Option<(*const Entry, bool)>) {
        let entry = match &found.slot {
            FoundSlot::Entry(entry) => Some((Arc::as_ptr(entry), entry.is_soft_purged())),
            _ => None,
        };
        let kind = if entry.is_some() { String::new() } else { format!("{:?}", found.slot) };
        (found.key.0, kind, entry)
    }

    proptest! {
        #[test]
        fn what_is_found_here_is_what_the_store_has(events in prop::collection::vec((0..PATHS.len(), event(), 0..40_u32), 0..40)) {
            let (mut world, hot) = (World::new(1 << 20), Hot::new());
            for (path, event, looks) in events {
                happens(&mut world, PATHS[path], &event);
                for path in PATHS {
                    for _ in 0..looks {
                        let [here, there] = world.asked(path, &[], |asked, now| {
                            [hot.find(&world.store, asked, now), world.store.find(asked, now)].map(|found| seen(&found))
                        });
                        prop_assert_eq!(here, there);
                    }
                }
            }
        }
    }

    #[test]
    fn a_mark_is_known_here_until_the_store_gives_it_up() {
        for replaced in [true, false] {
            let (mut world, hot) = (World::new(1 << 20), Hot::new());
            let key = world.key("/a");
            let finds = |world: &World| world.asked("/a", &[], |asked, now| hot.find(&world.store, asked, now).slot);
            world.store.mark_uncacheable(key, world.now);
            assert!((0..100).all(|_| matches!(finds(&world), FoundSlot::Uncacheable)));
            let kept = std::mem::take(&mut hot.0.lock()[key.0 as usize % PLACES].kept);
            let Kept::Mark(mark) = kept else { panic!("{kept:?}") };
            assert!(mark.is_at(key, world.now) && !mark.is_at(world.key("/b"), world.now));
            assert!(!mark.is_at(key, world.now + Duration::from_secs(120)), "its time is over");
            if replaced {
                world.put("/a", "", &[]);
            } else {
                world.store.invalidate(key, world.later());
            }
            assert!(!mark.is_at(key, world.now));
        }
    }

    #[test]
    fn what_was_evicted_is_neither_found_nor_kept() {
        let (mut world, hot) = (World::new(1 << 20), Hot::new());
        world.put("/a", "", &[]);
        let entry = Arc::downgrade(&world.get("/a", &[]).unwrap());
        let finds = |world: &World| {
            world.asked("/a", &[], |asked, now| matches!(hot.find(&world.store, asked, now).slot, FoundSlot::Entry(_)))
        };
        assert!((0..100).all(|_| finds(&world)));
        for number in 0..2_000 {
            world.put_sized(&format!("/{number}"), "", &[], world.now, 10_000);
            world.get(&format!("/{number}"), &[]);
        }
        world.store.purge(Purge::All, Depth::Hard, world.later());
        world.store.maintain();
        assert!(!finds(&world) && entry.upgrade().is_none());
    }
}
