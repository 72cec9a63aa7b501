//! Taking answers out of the store before their time.
//!
//! A purge also covers what is on its way: an answer whose request was sent before the purge may be as old as what was
//! purged, so the last purges are written down and each answer is held against them when it is stored. Where the
//! writing no longer reaches back far enough, such an answer is not stored.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use crate::cache::entry::Head;
use crate::cache::key::Key;
use crate::cache::store::{BuildKeyHasher, Slot, Store};

/// Which answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Purge {
    /// All variants of the answers to one primary key. The only one that does not walk through the whole store.
    Key(Key),
    /// The answers to one URL as it stands in the key, whoever's they are.
    Url(String),
    /// The answers to all URLs that begin so, character by character: `http://a/x` covers `http://a/xy`.
    Prefix(String),
    /// The answers that their origin has put into a group (Cache-Groups, RFC 9875; Surrogate-Key, Cache-Tag, xkey).
    Group {
        /// The group.
        name: String,
        /// `scheme://host`: groups of different origins are different groups (RFC 9875 section 2.1). `None`: the
        /// groups of that name of all origins.
        origin: Option<String>,
    },
    /// The answers of one upstream, by its name.
    Upstream(String),
    /// The answers that a rule of the caller's picks.
    Picked(Pick),
    /// All answers.
    All,
}

/// A rule that picks answers by their heads. It is kept for a while, to be held against answers on their way.
#[derive(Clone)]
pub struct Pick(Arc<dyn Fn(&Head) -> bool + Send + Sync>);

impl Pick {
    /// Picks by `rule`.
    pub fn new(rule: impl Fn(&Head) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(rule))
    }
}

impl fmt::Debug for Pick {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pick(..)")
    }
}

impl PartialEq for Pick {
    /// A rule is equal to itself and its clones alone.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Pick {}

/// How thoroughly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Depth {
    /// They are stale: served only where a stale answer may be, until they are validated or replaced.
    Soft,
    /// They are gone.
    Hard,
}

impl Store {
    /// Purges at the instant `now`; how many answers were affected.
    pub fn purge(&self, what: Purge, depth: Depth, now: Instant) -> usize {
        self.purges.write().note(what.clone(), depth, now);
        match what {
            Purge::Key(primary) => self.purge_key(primary, depth),
            what => self.purge_walking(&what, depth),
        }
    }

    /// Invalidates the answers to `primary` after a successful unsafe request for it (RFC 9111 section 4.4); how many
    /// there were.
    pub fn invalidate(&self, primary: Key, now: Instant) -> usize {
        self.purge(Purge::Key(primary), Depth::Hard, now)
    }

    fn purge_key(&self, primary: Key, depth: Depth) -> usize {
        let _stripe = self.stripe(primary);
        let slot = self.slots.get(&primary);
        let variants = match &slot {
            Some(Slot::Vary(variants)) => variants.keys(),
            _ => Vec::new(),
        };
        let stored = variants.into_iter().filter_map(|key| Some((key, self.slots.get(&key)?)));
        let affected = slot.map(|slot| (primary, slot)).into_iter().chain(stored);
        affected.filter(|(key, slot)| self.purge_slot(*key, slot, depth)).count()
    }

    fn purge_walking(&self, what: &Purge, depth: Depth) -> usize {
        let mut affected = 0;
        for (key, slot) in &self.slots {
            let covered = match &slot {
                Slot::Entry(entry) => what.covers(&entry.head),
                // Lists and marks hold no answers; they go where nothing remains for them to be about.
                Slot::Vary(_) | Slot::Uncacheable { .. } => *what == Purge::All,
            };
            if covered && self.purge_slot(*key, &slot, depth) {
                affected += 1;
            }
        }
        affected
    }

    /// Purges what is at one place; whether it is an answer.
    fn purge_slot(&self, key: Key, slot: &Slot, depth: Depth) -> bool {
        match (slot, depth) {
            (Slot::Entry(entry), Depth::Soft) => entry.soft_purge(),
            (_, Depth::Hard) => self.slots.invalidate(&key),
            (_, Depth::Soft) => {}
        }
        matches!(slot, Slot::Entry(_))
    }
}

impl Purge {
    fn covers(&self, head: &Head) -> bool {
        match self {
            Self::Key(_) => false, // an answer does not know its key
            Self::Url(url) => head.url() == url,
            Self::Prefix(prefix) => head.url().starts_with(&**prefix),
            Self::Group { name, origin } => {
                head.groups.iter().any(|group| **group == **name)
                    && origin.as_ref().is_none_or(|origin| is_of_origin(head.url(), origin))
            }
            Self::Upstream(name) => head.upstream() == name,
            Self::Picked(Pick(rule)) => rule(head),
            Self::All => true,
        }
    }
}

fn is_of_origin(url: &str, origin: &str) -> bool {
    url.strip_prefix(origin).is_some_and(|path| path.is_empty() || path.starts_with(['/', '?']))
}

/// The last purges.
#[derive(Debug, Default)]
pub(super) struct Purges {
    /// Those of single keys, apart from the others: every unsafe request makes one, mostly for the same few URLs.
    keys: HashMap<Key, Past, BuildKeyHasher>,
    /// All others, in the order of time.
    walks: VecDeque<(Purge, Past)>,
    /// The last purge that is no longer written down.
    forgotten: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Past {
    at: Instant,
    depth: Depth,
}

impl Purges {
    /// What has been purged since `sent` that covers an answer to `primary`.
    pub(super) fn since(&self, sent: Instant, primary: Key, head: &Head) -> Option<Depth> {
        if self.forgotten.is_some_and(|forgotten| sent <= forgotten) {
            return Some(Depth::Hard);
        }
        let of_key = self.keys.get(&primary).filter(|past| sent <= past.at);
        let walks = self.walks.iter().rev().take_while(|(_, past)| sent <= past.at);
        let covering = walks.filter(|(what, _)| what.covers(head)).map(|(_, past)| past);
        covering.chain(of_key).map(|past| past.depth).max()
    }

    fn note(&mut self, what: Purge, depth: Depth, at: Instant) {
        let Purge::Key(key) = what else {
            return self.note_walk(what, depth, at);
        };
        if self.keys.len() >= KEYS_REMEMBERED && !self.keys.contains_key(&key) {
            self.forgotten = self.forgotten.max(self.keys.values().map(|past| past.at).max());
            self.keys.clear();
        }
        let past = self.keys.entry(key).or_insert(Past { at, depth });
        *past = Past { at: past.at.max(at), depth: past.depth.max(depth) };
    }

    fn note_walk(&mut self, what: Purge, depth: Depth, at: Instant) {
        // Two callers may come here in another order than they read the clock.
        let at = self.walks.back().map_or(at, |(_, last)| last.at.max(at));
        self.walks.retain(|(other, past)| *other != what || past.depth > depth);
        self.walks.push_back((what, Past { at, depth }));
        if self.walks.len() > WALKS_REMEMBERED {
            let first = self.walks.pop_front().map(|(_, past)| past.at);
            self.forgotten = self.forgotten.max(first);
        }
    }
}

/// How many purges of single keys are written down: more URLs than are written to during one slow answer.
const KEYS_REMEMBERED: usize = 16_384;

/// How many others are written down; each of them walked through the store, so there are few.
const WALKS_REMEMBERED: usize = 256;

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use bytes::Bytes;

    use super::*;
    use crate::cache::entry::Entry;
    use crate::cache::store::tests::{World, head};

    /// Two URLs with variants and partitions, one of them in a group, at two upstreams.
    fn world() -> World {
        let mut world = World::new(1 << 20);
        world.put("/a/x", "", &[("accept-language", "en")]);
        world.put("/a/x", "", &[("accept-language", "sv")]);
        world.put("/a/xy", "red blue", &[]);
        world.put("/b", "red", &[]);
        world
    }

    fn check(what: Purge, gone: [bool; 4]) {
        for depth in [Depth::Soft, Depth::Hard] {
            let world = world();
            let now = world.later();
            let count = world.store.purge(what.clone(), depth, now);
            assert_eq!(count, gone.iter().filter(|gone| **gone).count(), "{what:?} {depth:?}");
            let found = [
                world.get("/a/x", &[("accept-language", "en")]),
                world.get("/a/x", &[("accept-language", "sv")]),
                world.get("/a/xy", &[]),
                world.get("/b", &[]),
            ];
            for (found, gone) in found.iter().zip(gone) {
                match (depth, found) {
                    (Depth::Hard, found) => assert_eq!(found.is_none(), gone, "{what:?}"),
                    (Depth::Soft, found) => {
                        assert_eq!(found.as_ref().unwrap().is_soft_purged(), gone, "{what:?}")
                    }
                }
            }
        }
    }

    #[test]
    fn a_purge_takes_what_it_names_and_nothing_else() {
        let group = |origin: Option<&str>| Purge::Group { name: "red".into(), origin: origin.map(Into::into) };
        check(Purge::Key(world().key("/a/x")), [true, true, false, false]);
        check(Purge::Key(world().key("/b")), [false, false, false, true]);
        check(Purge::Url("http://erp/a/x".into()), [true, true, false, false]);
        check(Purge::Url("http://erp/a".into()), [false; 4]);
        check(Purge::Prefix("http://erp/a/x".into()), [true, true, true, false]);
        check(Purge::Prefix("http://erp/b".into()), [false, false, false, true]);
        check(group(None), [false, false, true, true]);
        check(group(Some("http://erp")), [false, false, true, true]);
        check(group(Some("http://er")), [false; 4]);
        check(Purge::Upstream("sap".into()), [true; 4]);
        check(Purge::Upstream("mainframe".into()), [false; 4]);
        check(Purge::Picked(Pick::new(|head| head.url().ends_with('y'))), [false, false, true, false]);
        check(Purge::All, [true; 4]);
    }

    #[test]
    fn what_a_purged_list_led_to_never_comes_back() {
        let mut world = world();
        let now = world.later();
        assert_eq!(world.store.invalidate(world.key("/a/x"), now), 2);
        world.now = now;
        world.put("/a/x", "", &[("accept-language", "de")]);
        assert!(world.get("/a/x", &[("accept-language", "de")]).is_some());
        assert!(world.get("/a/x", &[("accept-language", "en")]).is_none());
    }

    #[test]
    fn an_answer_on_its_way_is_purged_as_well() {
        let tables = [
            (Purge::Key(World::new(1).key("/b")), true),
            (Purge::Prefix("http://erp/b".into()), true),
            (Purge::All, true),
            (Purge::Key(World::new(1).key("/c")), false),
            (Purge::Prefix("http://erp/c".into()), false),
        ];
        for (what, covered) in tables {
            for depth in [Depth::Soft, Depth::Hard] {
                let mut world = World::new(1 << 20);
                let sent = world.now;
                let purged = world.later();
                world.store.purge(what.clone(), depth, purged);
                world.now = purged + Duration::from_secs(1);
                assert_eq!(world.put_sent("/b", "", &[], sent), !(covered && depth == Depth::Hard), "{what:?}");
                match world.get("/b", &[]) {
                    None => assert!(covered && depth == Depth::Hard),
                    Some(entry) => assert_eq!(entry.is_soft_purged(), covered),
                }
                let after = world.now;
                world.now += Duration::from_secs(1);
                assert!(world.put_sent("/b", "", &[], after), "its request was sent after the purge");
                assert!(!world.get("/b", &[]).unwrap().is_soft_purged());
            }
        }
    }

    #[test]
    fn where_the_memory_of_purges_ends_nothing_older_is_stored() {
        type Note = fn(u32) -> Purge;
        let notes: [(Note, usize); 2] = [
            (|number| Purge::Key(Key(number.into())), KEYS_REMEMBERED),
            (|number| Purge::Prefix(format!("http://erp/{number}")), WALKS_REMEMBERED),
        ];
        for (note, bound) in notes {
            let world = World::new(1 << 20);
            let at = |number: u32| world.now + Duration::from_millis(number.into());
            let mut purges = Purges::default();
            let head = head("http://erp/other - sap");
            let bound = u32::try_from(bound).unwrap();
            for number in 1..=bound {
                purges.note(note(number), Depth::Soft, at(number));
                purges.note(note(number), Depth::Soft, at(number)); // the same again takes no room
            }
            assert_eq!(purges.since(at(0), Key(u128::MAX), &head), None);
            purges.note(note(bound + 1), Depth::Soft, at(bound + 1));
            assert_eq!(purges.since(at(0), Key(u128::MAX), &head), Some(Depth::Hard));
            assert_eq!(purges.since(at(bound + 1), Key(u128::MAX), &head), None);
        }
    }

    #[test]
    fn a_later_soft_purge_does_not_excuse_from_a_hard_one() {
        let world = World::new(1 << 20);
        let entry = Entry::new(head("http://erp/b - sap"), Bytes::new());
        let head = Arc::clone(&entry.head);
        for what in [Purge::Key(Key(1)), Purge::All] {
            let mut purges = Purges::default();
            purges.note(what.clone(), Depth::Hard, world.now);
            purges.note(what, Depth::Soft, world.later());
            assert_eq!(purges.since(world.now, Key(1), &head), Some(Depth::Hard));
        }
    }
}
