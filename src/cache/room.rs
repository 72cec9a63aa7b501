//! Room in the store: eviction in time, and a place for what would never be admitted.
//!
//! moka evicts when a number of writes has gathered, however large they are; here the bytes count as well. And it admits
//! an answer only if that was asked for more often than all those together that would have to go for it (TinyLFU, whose
//! counters end at 15). That keeps what is hot much better than LRU does, but one large answer that everybody wants
//! never gets past a thousand small ones that were each asked for twice: every request for it would reach the backend,
//! for good. So what is refused a place for the second time is given one. Who goes for it is left to the chance of the
//! hash: it happens seldom, and what is hot comes back with one fetch.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use crate::cache::entry::Entry;
use crate::cache::key::Key;
use crate::cache::store::{BuildKeyHasher, Slot, Store};

impl Store {
    /// Brings the store within its capacity; eviction is lazy otherwise. For a timer of the control plane.
    pub fn maintain(&self) {
        for _ in 0..MAINTENANCE_ROUNDS {
            self.slots.run_pending_tasks();
            if self.slots.weighted_size() <= self.capacity {
                return;
            }
        }
    }

    /// Sees to the room for so many bytes that were put into the store.
    pub(super) fn make_room(&self, weight: u64) {
        if self.added.fetch_add(weight, Ordering::Relaxed) + weight > self.capacity / SLACK {
            self.added.store(0, Ordering::Relaxed);
            self.maintain();
        }
    }

    /// The same for an answer, which is put there again if it was refused before as well.
    pub(super) fn settle(&self, primary: Key, variant: Key, entry: &Arc<Entry>, sent: Instant) {
        let weight = u64::from(entry.weight());
        let average = self.slots.weighted_size() / self.slots.entry_count().max(1);
        if weight <= LARGE * average {
            return self.make_room(weight);
        }
        self.maintain();
        let varies = !entry.head.vary.is_empty();
        let place = if varies { variant } else { primary };
        if !self.holds(primary, variant, varies) && self.refused.lock().again(Key(primary.0 ^ place.0.rotate_left(1))) {
            self.clear(weight);
            self.put(primary, variant, Arc::clone(entry), sent);
            self.maintain();
        }
    }

    fn holds(&self, primary: Key, variant: Key, varies: bool) -> bool {
        match self.slots.get(&primary) {
            Some(Slot::Vary(variants)) if varies => self.slots.contains_key(&variants.salted(variant)),
            Some(_) => !varies,
            None => false,
        }
    }

    /// Takes out answers of so many bytes, whichever.
    fn clear(&self, weight: u64) {
        let mut cleared = 0;
        for (key, slot) in &self.slots {
            if cleared >= weight {
                break;
            }
            if let Slot::Entry(entry) = slot {
                self.slots.invalidate(&*key);
                self.evicted.fetch_add(1, Ordering::Relaxed);
                cleared += u64::from(entry.weight());
            }
        }
        self.maintain();
    }
}

/// What was refused a place once, of late.
#[derive(Debug, Default)]
pub(super) struct Refused(HashSet<Key, BuildKeyHasher>);

impl Refused {
    /// Whether this was refused before; then it is forgotten.
    fn again(&mut self, key: Key) -> bool {
        if self.0.remove(&key) {
            return true;
        }
        // A crawler that walks through more than this never meets itself here.
        if self.0.len() >= REFUSED_REMEMBERED {
            self.0.clear();
        }
        self.0.insert(key);
        false
    }
}

/// An answer is large that weighs more than so many average ones: fewer would not outnumber its own counter.
const LARGE: u64 = 4;

/// The part of its capacity by which the store may be beyond it, between two evictions.
const SLACK: u64 = 64;

/// moka evicts in batches; this many are beyond any backlog its bounded write log can leave.
const MAINTENANCE_ROUNDS: u32 = 1_000;

/// 16 bytes each.
const REFUSED_REMEMBERED: usize = 256;

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashMap};

    use crate::cache::store::tests::World;

    const CAPACITY: u64 = 1 << 20;

    /// Plain LRU, bounded by weight.
    #[derive(Default)]
    struct Lru {
        used: HashMap<usize, (u64, u64)>,
        order: BTreeMap<u64, usize>,
        weight: u64,
        tick: u64,
    }

    impl Lru {
        /// Whether it was there; it is now.
        fn ask(&mut self, number: usize, weight: u64) -> bool {
            self.tick += 1;
            let before = self.used.insert(number, (self.tick, weight));
            self.order.insert(self.tick, number);
            match before {
                Some((tick, _)) => drop(self.order.remove(&tick)),
                None => self.weight += weight,
            }
            while self.weight > CAPACITY {
                let (_, oldest) = self.order.pop_first().unwrap();
                self.weight -= self.used.remove(&oldest).unwrap().1;
            }
            before.is_some()
        }
    }

    /// Hit ratios of the store and of LRU on a Zipf trace (exponent 0.9) over 3,000 resources of 0 to 20 KiB; one in
    /// `scan` requests, if any, is for something nobody asks for again.
    fn ratios(scan: Option<u64>) -> (f64, f64) {
        let (world, mut lru, mut state) = (World::new(CAPACITY), Lru::default(), 1_u64);
        let mut draw = || {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            (state >> 33) as f64 / f64::from(1_u32 << 31)
        };
        let mut cumulative = Vec::new();
        for rank in 1..=3_000_u32 {
            cumulative.push(cumulative.last().copied().unwrap_or(0.0) + f64::from(rank).powf(-0.9));
        }
        let (all, mut hits, mut counted) = (*cumulative.last().unwrap(), [0_u32; 2], 0);
        for request in 0..30_000_u64 {
            let is_scan = scan.is_some_and(|scan| request % scan == 0);
            let wanted = draw() * all;
            let rank =
                if is_scan { 1_000_000 + request as usize } else { cumulative.partition_point(|sum| *sum < wanted) };
            let (path, size) = (format!("/{rank}"), rank * 7919 % 20_000);
            let found = world.get(&path, &[]);
            let weight = found.as_ref().map_or(size as u64 + 1_200, |entry| u64::from(entry.weight()));
            if found.is_none() {
                world.put_sized(&path, "", &[], world.now, size);
            }
            let hit = lru.ask(rank, weight);
            if request > 5_000 && !is_scan {
                counted += 1;
                hits[0] += u32::from(found.is_some());
                hits[1] += u32::from(hit);
            }
        }
        let ratio = |hits: u32| f64::from(hits) / f64::from(counted);
        (ratio(hits[0]), ratio(hits[1]))
    }

    #[test]
    fn what_is_hot_stays_better_than_by_lru() {
        for scan in [None, Some(3)] {
            let (store, lru) = ratios(scan);
            println!("hit ratio: {store:.3}, LRU {lru:.3}, scan {scan:?}");
            assert!(store > lru + 0.03, "{store} {lru}");
        }
    }

    /// A store full of small answers, each asked for twice.
    fn full() -> World {
        let world = World::new(CAPACITY);
        for number in 0..1_500 {
            let path = format!("/small/{number}");
            assert!(world.get(&path, &[]).is_none());
            world.put_sized(&path, "", &[], world.now, 0);
            world.get(&path, &[]);
        }
        world.store.maintain();
        world
    }

    #[test]
    fn the_capacity_is_kept_whatever_the_sizes_and_without_upkeep() {
        let world = World::new(CAPACITY);
        for number in 0..2_000_usize {
            let path = format!("/{number}");
            world.get(&path, &[]);
            world.put_sized(&path, "", &[], world.now, (number * 7919) % 60_000);
            let weighs = world.store.stats().bytes;
            assert!(weighs <= CAPACITY + CAPACITY / super::SLACK, "{weighs}");
        }
    }

    #[test]
    fn a_large_answer_that_is_wanted_again_gets_in_past_many_small_ones() {
        let world = full();
        let ask = |path: &str| {
            let found = world.get(path, &[]).is_some();
            if !found {
                world.put_sized(path, "", &[], world.now, 200_000);
            }
            found
        };
        assert_eq!([(); 4].map(|()| ask("/large")), [false, false, true, true]);
        assert!(world.store.stats().bytes <= CAPACITY);
        let left = (0..1_500).filter(|number| world.get(&format!("/small/{number}"), &[]).is_some()).count();
        assert!(left > 400, "the others stay: {left}");
    }

    #[test]
    fn large_answers_that_are_wanted_once_push_nobody_out() {
        let world = full();
        let count = || (0..1_500).filter(|number| world.get(&format!("/small/{number}"), &[]).is_some()).count();
        let before = count();
        for number in 0..300 {
            let path = format!("/large/{number}");
            world.get(&path, &[]);
            world.put_sized(&path, "", &[], world.now, 200_000);
        }
        assert_eq!(count(), before);
    }
}
