//! The stored answers, bounded in bytes.
//!
//! moka is used as a bounded concurrent map with a good eviction policy (TinyLFU) and for nothing else: whether an
//! answer is fresh is judged by our own times when it is found, never by moka's clock.
//!
//! The map has two levels. The primary key of a request leads to its answer, if that has no Vary, else to the list of
//! request fields that select a variant; the variant key made of those leads to the answer (RFC 9111 section 4.1).
//! Each such list salts its variant keys with a number of its own, so that what an older list (replaced, purged or
//! evicted) led to can never be found again.
//!
//! Lookups take no lock of ours. What changes a primary slot takes the lock of its stripe.

use std::collections::HashSet;
use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderName};
use moka::notification::RemovalCause;
use parking_lot::{Mutex, MutexGuard, RwLock};

use crate::cache::aliases::Aliases;
use crate::cache::entry::Entry;
use crate::cache::key::{Clear, Key, Keyer};
use crate::cache::purge::{Depth, Purges};
use crate::cache::room::Refused;

/// All stored answers of one gateway.
pub struct Store {
    pub(super) slots: moka::sync::Cache<Key, Slot, BuildKeyHasher>,
    pub(super) purges: RwLock<Purges>,
    keyer: Keyer,
    pub(super) capacity: u64,
    stripes: [Mutex<()>; 16],
    salts: AtomicU64,
    aliases: Aliases,
    pub(super) evicted: Arc<AtomicU64>,
    /// Bytes stored since the last maintenance.
    pub(super) added: AtomicU64,
    /// What found no place.
    pub(super) refused: Mutex<Refused>,
}

/// What a request asks for.
#[derive(Debug, Clone, Copy)]
pub struct Lookup<'a> {
    /// Its primary key, made by the store's keyer.
    pub primary: Key,
    /// The same in clear.
    pub clear: &'a Clear,
    /// Its header fields.
    pub headers: &'a HeaderMap,
}

/// What is there for a request.
#[derive(Debug)]
pub struct Found {
    /// Where its answer is or would be: the key of the flight to join.
    pub key: Key,
    /// What is at that place.
    pub slot: FoundSlot,
}

/// What is at the place of an answer.
#[derive(Debug)]
pub enum FoundSlot {
    /// An answer; whether it may be used is to be judged.
    Entry(Arc<Entry>),
    /// Nothing, though there are answers to other variants of the request.
    VaryMiss,
    /// Nothing.
    Miss,
    /// The remembrance that answers to this request may not be shared: it need not wait for others.
    Uncacheable,
}

impl Store {
    /// An empty store for `capacity` bytes, in the measure of [`Entry::weight`].
    pub fn new(capacity: u64, keyer: Keyer) -> Self {
        let evicted = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&evicted);
        let slots = moka::sync::Cache::builder()
            .name("vaxel")
            .max_capacity(capacity)
            .weigher(|_, slot: &Slot| slot.weight())
            .eviction_listener(move |_, slot: Slot, cause| {
                // It hears of every end: eviction, removal, and replacement.
                match slot {
                    Slot::Entry(entry) => {
                        entry.retire();
                        count.fetch_add(u64::from(cause == RemovalCause::Size), Ordering::Relaxed);
                    }
                    Slot::Uncacheable(mark) => mark.retired.store(true, Ordering::Release),
                    Slot::Vary(_) => {}
                }
            })
            .build_with_hasher(BuildKeyHasher::default());
        Self {
            slots,
            purges: RwLock::default(),
            keyer,
            capacity,
            stripes: Default::default(),
            salts: AtomicU64::new(1),
            aliases: Aliases::new(capacity / ALIASES_SHARE),
            evicted,
            added: AtomicU64::new(0),
            refused: Mutex::default(),
        }
    }

    /// What makes the keys.
    pub const fn keyer(&self) -> &Keyer {
        &self.keyer
    }

    /// Finds what there is for a request. An answer found is one to this very request: its address and the fields
    /// that selected it were compared, so that a collision of hashes is a miss.
    pub fn find(&self, asked: &Lookup<'_>, now: Instant) -> Found {
        self.find_marked(asked, now).0
    }

    /// The same, and the mark, if that is what there is for all requests with this primary key.
    pub(super) fn find_marked(&self, asked: &Lookup<'_>, now: Instant) -> (Found, Option<Arc<Mark>>) {
        let primary = asked.primary;
        match self.slots.get(&primary) {
            Some(Slot::Vary(variants)) => {
                let key = variants.salted(self.keyer.variant(primary, &variants.vary, asked.headers));
                let slot = asked.judge(self.slots.get(&key), now);
                (Found { key, slot: slot.unwrap_or(FoundSlot::VaryMiss) }, None)
            }
            Some(Slot::Uncacheable(mark)) if mark.stands(now) => {
                (Found { key: primary, slot: FoundSlot::Uncacheable }, Some(mark))
            }
            slot => (Found { key: primary, slot: asked.judge(slot, now).unwrap_or(FoundSlot::Miss) }, None),
        }
    }

    /// An answer to another query that also answers this request (No-Vary-Search); for when [`find`](Self::find) has found
    /// nothing.
    pub fn find_equivalent(&self, asked: &Lookup<'_>) -> Option<Arc<Entry>> {
        let alias = self.aliases.find(asked.clear)?;
        let slot = match self.slots.get(&alias.primary)? {
            Slot::Vary(variants) => {
                let variant = self.keyer.variant(alias.primary, &variants.vary, asked.headers);
                self.slots.get(&variants.salted(variant))?
            }
            slot => slot,
        };
        match slot {
            Slot::Entry(entry) if alias.is_of(&entry) && entry.head.selects(asked.headers) => Some(entry),
            _ => None,
        }
    }

    /// Stores an answer, which any later [`find`](Self::find) sees; whether it was stored. It is not if it is larger
    /// than the store, older than what is there, or if a purge has passed over it since its request was sent at `sent`
    /// (a soft purge leaves it stale instead).
    ///
    /// `variant` is `keyer().variant(primary, &head.vary, headers of the request)`; without Vary it is not looked at.
    pub fn insert(&self, primary: Key, variant: Key, entry: Arc<Entry>, sent: Instant) -> bool {
        let weight = entry.weight();
        if weight == u32::MAX || u64::from(weight) > self.capacity {
            return false;
        }
        let stored = self.put(primary, variant, Arc::clone(&entry), sent);
        if stored {
            self.settle(primary, variant, &entry, sent);
        }
        stored
    }

    pub(super) fn put(&self, primary: Key, variant: Key, entry: Arc<Entry>, sent: Instant) -> bool {
        let _stripe = self.stripe(primary);
        // Held until the entry is in the map: a purge is written down before it walks, so that either this sees the
        // purge or the purge sees this.
        let purges = self.purges.read();
        match purges.since(sent, primary, &entry.head) {
            Some(Depth::Hard) => return false,
            Some(Depth::Soft) => entry.soft_purge(),
            None => {}
        }
        self.aliases.note(primary, &entry);
        let received = entry.head.received;
        let before = self.slots.get(&primary);
        if before.as_ref().is_some_and(|slot| !slot.yields_to(&entry)) {
            return false;
        }
        let same_vary = match before {
            Some(Slot::Vary(variants)) if variants.vary == entry.head.vary => Some(variants),
            Some(Slot::Vary(variants)) => {
                self.forget(&variants);
                None
            }
            _ => None,
        };
        if entry.head.vary.is_empty() {
            self.slots.insert(primary, Slot::Entry(entry));
            return true;
        }
        let known = same_vary.is_some();
        let variants = same_vary.unwrap_or_else(|| self.variants(&entry.head.vary));
        let key = variants.salted(variant);
        if let Some(Slot::Entry(other)) = self.slots.get(&key)
            && other.head.received > received
        {
            return false;
        }
        let reweigh = variants.add(key, received, |key| self.slots.contains_key(key));
        self.slots.insert(key, Slot::Entry(entry));
        if reweigh || !known {
            self.slots.insert(primary, Slot::Vary(variants));
        }
        true
    }

    /// Remembers for two minutes that answers at `key` (from [`find`](Self::find)) may not be shared, so that requests
    /// for it do not wait for each other in vain. What was stored there is superseded; a later answer that may be
    /// shared replaces the mark at once.
    pub fn mark_uncacheable(&self, key: Key, now: Instant) {
        let _stripe = self.stripe(key);
        // One variant that may not be shared says nothing about the others.
        if !matches!(self.slots.get(&key), Some(Slot::Vary(_))) {
            let mark = Mark { key, until: now + UNCACHEABLE, retired: AtomicBool::new(false) };
            self.slots.insert(key, Slot::Uncacheable(Arc::new(mark)));
            self.make_room(OVERHEAD.into());
        }
    }

    /// What is stored, as of the last maintenance.
    pub fn stats(&self) -> StoreStats {
        StoreStats {
            slots: self.slots.entry_count(),
            bytes: self.slots.weighted_size(),
            capacity: self.capacity,
            evicted: self.evicted.load(Ordering::Relaxed),
        }
    }

    /// The lock of what changes the slot of `primary`.
    pub(super) fn stripe(&self, primary: Key) -> MutexGuard<'_, ()> {
        let place = primary.0 as usize % self.stripes.len();
        let stripe = self.stripes.get(place);
        stripe.expect("a remainder is less than its divisor").lock()
    }

    /// Takes the variants of a list that is replaced out of the map.
    fn forget(&self, variants: &Variants) {
        for key in variants.keys() {
            self.slots.invalidate(&key);
        }
    }

    fn variants(&self, vary: &Arc<[HeaderName]>) -> Arc<Variants> {
        let salt = self.salts.fetch_add(1, Ordering::Relaxed);
        Arc::new(Variants {
            vary: Arc::clone(vary),
            salt: u128::from(salt).wrapping_mul(SALT),
            members: Mutex::default(),
        })
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

impl Lookup<'_> {
    fn judge(&self, slot: Option<Slot>, now: Instant) -> Option<FoundSlot> {
        match slot? {
            Slot::Entry(entry) if self.is_answered_by(&entry) => Some(FoundSlot::Entry(entry)),
            Slot::Uncacheable(mark) if mark.stands(now) => Some(FoundSlot::Uncacheable),
            Slot::Entry(_) | Slot::Uncacheable(_) | Slot::Vary(_) => None,
        }
    }

    /// Whether an answer is one to this very request.
    pub(super) fn is_answered_by(&self, entry: &Entry) -> bool {
        entry.head.address.as_bytes() == self.clear.address() && entry.head.selects(self.headers)
    }
}

/// Numbers for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreStats {
    /// Answers, lists of variants and marks.
    pub slots: u64,
    /// What they weigh.
    pub bytes: u64,
    /// What they may weigh.
    pub capacity: u64,
    /// Answers evicted for want of room since the start.
    pub evicted: u64,
}

#[derive(Debug, Clone)]
pub(super) enum Slot {
    Entry(Arc<Entry>),
    Vary(Arc<Variants>),
    Uncacheable(Arc<Mark>),
}

/// The remembrance that answers at a place may not be shared.
#[derive(Debug)]
pub(super) struct Mark {
    key: Key,
    until: Instant,
    /// It is not in the map any more.
    retired: AtomicBool,
}

impl Mark {
    /// Whether it is the one at `key`, and the store still has it.
    pub(super) fn is_at(&self, key: Key, now: Instant) -> bool {
        self.key == key && self.stands(now) && !self.retired.load(Ordering::Acquire)
    }

    fn stands(&self, now: Instant) -> bool {
        now < self.until
    }
}

impl Slot {
    fn weight(&self) -> u32 {
        match self {
            Self::Entry(entry) => entry.weight(),
            Self::Vary(variants) => variants.weight(),
            Self::Uncacheable(_) => OVERHEAD,
        }
    }

    /// Whether `entry` may come into its place. An answer that arrived earlier never replaces a later one, nor does
    /// its Vary (RFC 9111 section 4.1: the most recent response selects).
    fn yields_to(&self, entry: &Entry) -> bool {
        match self {
            Self::Entry(old) => old.head.received <= entry.head.received || old.head.address != entry.head.address,
            Self::Vary(old) => old.vary == entry.head.vary || old.is_older_than(entry.head.received),
            Self::Uncacheable(_) => true,
        }
    }
}

/// The request fields that select among the answers to one primary key, and where those answers are.
#[derive(Debug)]
pub(super) struct Variants {
    pub(super) vary: Arc<[HeaderName]>,
    salt: u128,
    members: Mutex<Members>,
}

/// The keys are a superset of the answers there are: eviction does not report to it, so now and then it is swept.
#[derive(Debug, Default)]
struct Members {
    keys: HashSet<Key, BuildKeyHasher>,
    /// Swept when it would hold more than this.
    limit: usize,
    /// When the latest answer arrived.
    latest: Option<Instant>,
}

impl Variants {
    /// Where its answers are, or were.
    pub(super) fn keys(&self) -> Vec<Key> {
        self.members.lock().keys.iter().copied().collect()
    }

    pub(super) const fn salted(&self, variant: Key) -> Key {
        Key(variant.0 ^ self.salt)
    }

    /// Adds a key; whether the weight has changed.
    fn add(&self, key: Key, received: Instant, is_stored: impl Fn(&Key) -> bool) -> bool {
        let mut members = self.members.lock();
        members.latest = members.latest.max(Some(received));
        if !members.keys.insert(key) || members.keys.len() <= members.limit {
            return false;
        }
        members.keys.retain(|other| *other == key || is_stored(other));
        members.limit = (2 * members.keys.len()).max(8);
        let limit = members.limit;
        members.keys.shrink_to(limit);
        true
    }

    fn is_older_than(&self, received: Instant) -> bool {
        self.members.lock().latest.is_none_or(|latest| latest <= received)
    }

    fn weight(&self) -> u32 {
        let keys = self.members.lock().limit.saturating_mul(2 * size_of::<Key>());
        let names = self.vary.len() * size_of::<HeaderName>();
        u32::try_from(keys + names).map_or(u32::MAX, |bytes| bytes.saturating_add(OVERHEAD))
    }
}

/// Hashes keys by folding them: they are hashes already, under a seed nobody outside knows.
#[derive(Debug, Default, Clone, Copy)]
pub struct KeyHasher(u64);

/// Makes [`KeyHasher`]s.
pub type BuildKeyHasher = BuildHasherDefault<KeyHasher>;

impl Hasher for KeyHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u128(&mut self, key: u128) {
        self.0 = (key >> 64) as u64 ^ key as u64;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Aliases may take this part of the store's bytes, besides them.
const ALIASES_SHARE: u64 = 64;

/// As long as Varnish remembers a hit-for-miss: long against a burst, short against a change of mind at the origin.
const UNCACHEABLE: Duration = Duration::from_secs(120);

/// What a slot that is no answer costs, in bytes: map node, `Arc`, its share of moka's lists and sketch.
const OVERHEAD: u32 = 300;

/// Odd, so that different numbers give different salts: 2^128 divided by the golden ratio.
const SALT: u128 = 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835;

#[cfg(test)]
pub(in crate::cache) mod tests {
    use std::time::SystemTime;

    use bytes::Bytes;
    use http::{HeaderValue, StatusCode};
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::cache::QueryRule;
    use crate::cache::entry::{Head, Life};
    use crate::cache::key::{KeyParts, normal};
    use crate::clock::Clock;

    /// A plain head: 200, fresh for a minute, no Vary, at `address`.
    pub(in crate::cache) fn head(address: &str) -> Arc<Head> {
        Arc::new(Head {
            status: StatusCode::OK,
            headers: HeaderMap::new(),
            lines: Bytes::new(),
            life: Life { fresh: Duration::from_secs(60), ..Life::default() },
            initial_age: Duration::ZERO,
            received: Clock::system().now(),
            date: SystemTime::UNIX_EPOCH,
            etag: None,
            last_modified: None,
            vary: Arc::default(),
            selecting: Box::default(),
            address: address.into(),
            groups: Box::default(),
        })
    }

    /// A store for answers to `http://erp{path}`, varying by the request fields they are put with.
    pub(in crate::cache) struct World {
        pub(in crate::cache) store: Store,
        pub(in crate::cache) now: Instant,
    }

    type Fields<'a> = &'a [(&'static str, &'a str)];

    impl World {
        pub(in crate::cache) fn new(capacity: u64) -> Self {
            Self { store: Store::new(capacity, Keyer::new(1)), now: Clock::system().now() }
        }

        pub(in crate::cache) fn later(&self) -> Instant {
            self.now + Duration::from_secs(1)
        }

        pub(in crate::cache) fn key(&self, path: &str) -> Key {
            self.store.keyer().primary(&parts(path), &QueryRule::default())
        }

        /// Puts an answer that came a second after all before, and now.
        pub(in crate::cache) fn put(&mut self, path: &str, groups: &str, fields: Fields<'_>) -> bool {
            self.now = self.later();
            self.put_sent(path, groups, fields, self.now)
        }

        pub(in crate::cache) fn put_sent(&self, path: &str, groups: &str, fields: Fields<'_>, sent: Instant) -> bool {
            self.put_sized(path, groups, fields, sent, 0)
        }

        pub(in crate::cache) fn put_sized(
            &self,
            path: &str,
            groups: &str,
            fields: Fields<'_>,
            sent: Instant,
            size: usize,
        ) -> bool {
            let headers = headers(fields);
            let vary: Arc<[HeaderName]> = headers.keys().cloned().collect();
            let selecting = vary.iter().map(|name| normal(name, &headers).map(Iterator::collect)).collect();
            let address = parts(path).address(&QueryRule::default());
            let groups = groups.split_whitespace().map(Into::into).collect();
            let plain = Head::clone(&head(&address));
            let head = Head { received: self.now, vary: Arc::clone(&vary), selecting, groups, ..plain };
            let primary = self.key(path);
            let variant = self.store.keyer().variant(primary, &vary, &headers);
            let entry = Entry::new(Arc::new(head), Bytes::from(vec![0; size]));
            self.store.insert(primary, variant, Arc::new(entry), sent)
        }

        pub(in crate::cache) fn asked<T>(
            &self,
            path: &str,
            fields: Fields<'_>,
            ask: impl FnOnce(&Lookup<'_>, Instant) -> T,
        ) -> T {
            let (clear, headers) = (parts(path).clear(&QueryRule::default()), headers(fields));
            ask(&Lookup { primary: self.key(path), clear: &clear, headers: &headers }, self.now)
        }

        fn find(&self, path: &str, fields: Fields<'_>) -> Found {
            self.asked(path, fields, |asked, now| self.store.find(asked, now))
        }

        pub(in crate::cache) fn get(&self, path: &str, fields: Fields<'_>) -> Option<Arc<Entry>> {
            match self.find(path, fields).slot {
                FoundSlot::Entry(entry) => Some(entry),
                _ => None,
            }
        }

        fn word(&self, path: &str, fields: Fields<'_>) -> &'static str {
            match self.find(path, fields).slot {
                FoundSlot::Entry(_) => "entry",
                FoundSlot::VaryMiss => "vary miss",
                FoundSlot::Miss => "miss",
                FoundSlot::Uncacheable => "uncacheable",
            }
        }
    }

    const fn parts(path: &str) -> KeyParts<'_> {
        KeyParts { scheme: "http", host: "erp", path, query: None, upstream: "sap", partition: None, body: None }
    }

    fn headers(fields: Fields<'_>) -> HeaderMap {
        let fields = fields.iter();
        fields.map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())).collect()
    }

    const EN: Fields<'_> = &[("accept-language", "en")];
    const SV: Fields<'_> = &[("accept-language", "sv")];
    const GZIP: Fields<'_> = &[("accept-encoding", "gzip")];

    #[test]
    fn an_answer_without_vary_serves_all_and_one_with_vary_its_variant() {
        let mut world = World::new(1 << 20);
        assert_eq!(world.word("/x", EN), "miss");
        assert!(world.put("/x", "", &[]));
        assert_eq!([world.word("/x", EN), world.word("/x", &[]), world.word("/y", &[])], ["entry", "entry", "miss"]);

        assert!(world.put("/x", "", EN), "it varies now");
        assert_eq!(
            [world.word("/x", EN), world.word("/x", SV), world.word("/x", &[])],
            ["entry", "vary miss", "vary miss"]
        );
        assert!(world.put("/x", "", SV));
        assert_eq!([world.word("/x", EN), world.word("/x", SV)], ["entry", "entry"]);

        assert!(world.put("/x", "", GZIP), "it varies by something else now");
        assert_eq!([world.word("/x", GZIP), world.word("/x", EN)], ["entry", "vary miss"]);
        assert!(world.put("/x", "", EN), "and back: the old variants stay gone");
        assert_eq!([world.word("/x", EN), world.word("/x", SV)], ["entry", "vary miss"]);

        assert!(world.put("/x", "", &[]));
        assert_eq!([world.word("/x", EN), world.word("/x", SV)], ["entry", "entry"]);
        world.store.maintain();
        assert_eq!(world.store.stats().slots, 1, "nothing of the variants is left");
    }

    #[test]
    fn an_answer_that_came_earlier_never_replaces_a_later_one() {
        for (newer, older) in [(EN, EN), (&[] as Fields<'_>, &[] as Fields<'_>), (EN, GZIP), (EN, &[]), (&[], EN)] {
            let mut world = World::new(1 << 20);
            let early = world.now;
            assert!(world.put("/x", "", newer));
            let late = std::mem::replace(&mut world.now, early);
            assert!(!world.put_sent("/x", "", older, early), "{newer:?} {older:?}");
            assert_eq!(world.get("/x", newer).unwrap().head.received, late);
        }
    }

    #[test]
    fn another_address_or_another_field_under_the_same_key_is_a_miss() {
        let mut world = World::new(1 << 20);
        world.put("/x", "", EN);
        let sv = headers(SV);
        let slot = Slot::Entry(world.get("/x", EN).unwrap());
        let judged = |path: &str, headers: &HeaderMap| {
            let clear = parts(path).clear(&QueryRule::default());
            let asked = Lookup { primary: world.key("/x"), clear: &clear, headers };
            asked.judge(Some(slot.clone()), world.now).is_some()
        };
        assert!(judged("/x", &headers(EN)));
        assert!(!judged("/y", &headers(EN)));
        assert!(!judged("/x", &sv));
    }

    #[test]
    fn an_uncacheable_mark_lasts_two_minutes_and_yields_to_any_answer() {
        let mut world = World::new(1 << 20);
        world.store.mark_uncacheable(world.key("/x"), world.now);
        assert_eq!(world.word("/x", &[]), "uncacheable");
        world.now += UNCACHEABLE;
        assert_eq!(world.word("/x", &[]), "miss");
        world.store.mark_uncacheable(world.key("/x"), world.now);
        assert!(world.put("/x", "", EN));
        assert_eq!(world.word("/x", EN), "entry");

        let sv = world.find("/x", SV).key;
        world.store.mark_uncacheable(sv, world.now);
        world.store.mark_uncacheable(world.key("/x"), world.now);
        assert_eq!([world.word("/x", EN), world.word("/x", SV)], ["entry", "uncacheable"], "one variant alone");
        assert!(world.put("/x", "", SV));
        assert_eq!(world.word("/x", SV), "entry");
    }

    #[test]
    fn the_flight_of_a_variant_is_where_its_answer_will_be() {
        let mut world = World::new(1 << 20);
        world.put("/x", "", EN);
        let missing = world.find("/x", SV).key;
        assert_ne!(missing, world.key("/x"));
        world.put("/x", "", SV);
        assert_eq!(world.find("/x", SV).key, missing);
    }

    #[test]
    fn what_an_evicted_list_led_to_is_never_found_by_the_next_one() {
        let mut world = World::new(1 << 20);
        world.put("/x", "", EN);
        world.store.slots.invalidate(&world.key("/x")); // as an eviction would
        world.put("/x", "", SV);
        assert_eq!([world.word("/x", EN), world.word("/x", SV)], ["vary miss", "entry"]);
        let now = world.later();
        assert_eq!(world.store.invalidate(world.key("/x"), now), 1, "the new list knows all that can be found");
    }

    #[test]
    fn the_keys_of_variants_are_swept_of_what_was_evicted() {
        let mut world = World::new(200_000);
        for number in 0..5_000 {
            let language = number.to_string();
            world.put("/x", "", &[("accept-language", language.as_str())]);
            if number % 100 == 0 {
                world.store.maintain();
            }
        }
        world.store.maintain();
        if let Some(Slot::Vary(variants)) = world.store.slots.get(&world.key("/x")) {
            let stored = usize::try_from(world.store.stats().slots).unwrap();
            assert!(variants.keys().len() < 4 * stored + 500, "{} keys, {stored} stored", variants.keys().len());
        }
    }

    #[test]
    fn what_is_larger_than_the_store_is_not_stored() {
        let world = World::new(10_000);
        assert!(!world.put_sized("/x", "", &[], world.now, 10_000));
        assert!(world.put_sized("/x", "", &[], world.now, 5_000));
    }

    fn check_bound(sizes: impl IntoIterator<Item = usize>) {
        const CAPACITY: u64 = 1_000_000;
        let mut world = World::new(CAPACITY);
        let mut given = 0;
        let mut sizes = sizes.into_iter();
        for number in 0.. {
            if given > 10 * CAPACITY {
                break;
            }
            let Some(size) = sizes.next() else { break };
            world.now = world.later();
            let fields: Fields<'_> = if number % 3 == 0 { EN } else { &[] };
            world.put_sized(&format!("/{number}"), "", fields, world.now, size);
            given += size as u64 + 400;
            if number % 5 == 0 {
                world.find(&format!("/{}", number / 2), fields); // some are popular
            }
        }
        world.store.maintain();
        let stats = world.store.stats();
        // Counted by hand, for moka's own sum must be true as well.
        let weight: u64 = world.store.slots.iter().map(|(_, slot)| u64::from(slot.weight())).sum();
        assert!(stats.bytes <= CAPACITY, "{stats:?}");
        assert!(weight <= CAPACITY, "{weight} by hand, {stats:?}");
    }

    #[test]
    fn ten_times_the_capacity_leaves_no_more_than_the_capacity() {
        check_bound(std::iter::repeat(0));
        check_bound(std::iter::repeat(990_000));
        check_bound((0..).map(|number| if number % 100 == 0 { 900_000 } else { 1 }));
        check_bound((0..).map(|number| (number * 7_919) % 300_000));
        check_bound((0..).map(|number| number * 10));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]

        #[test]
        fn whatever_the_sizes_the_capacity_holds(sizes in vec(prop_oneof![0..2_000_usize, 0..1_100_000_usize], 1..200)) {
            check_bound(sizes.iter().copied().cycle().take(2_000));
        }
    }
}
