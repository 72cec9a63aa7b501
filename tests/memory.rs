//! What the process's memory does while the store is driven far beyond its capacity: a binary, and so a process, of its
//! own. The allocator is that of the binary.
#![cfg(all(target_os = "linux", feature = "mimalloc"))]
#![allow(clippy::unwrap_used, reason = "a test that goes wrong panics")]

use std::ops::Range;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use vaxel::cache::entry::Entry;
use vaxel::cache::key::{KeyParts, Keyer};
use vaxel::cache::store::{Lookup, Store};
use vaxel::cache::storing::{self, Asked};
use vaxel::cache::{CacheParams, QueryRule};
use vaxel::clock::Clock;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A kind of answer: how many fields, how long their values, how long the body.
struct Kind {
    name: &'static str,
    fields: Range<u64>,
    value: Range<u64>,
    body: Range<u64>,
    vary: bool,
}

const KINDS: [Kind; 6] = [
    Kind { name: "tiny", fields: 2..5, value: 5..30, body: 0..64, vary: false },
    Kind { name: "typical", fields: 8..14, value: 10..50, body: 2_000..9_000, vary: false },
    Kind { name: "fields", fields: 50..70, value: 20..100, body: 0..10, vary: false },
    Kind { name: "variants", fields: 4..8, value: 5..30, body: 0..500, vary: true },
    Kind { name: "large", fields: 8..14, value: 10..50, body: 200_000..2_000_000, vary: false },
    Kind { name: "again tiny", fields: 2..5, value: 5..30, body: 0..64, vary: false },
];

/// Draws numbers (SplitMix64).
struct Dice(u64);

impl Dice {
    fn draw(&mut self, range: &Range<u64>) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        range.start + (mixed ^ (mixed >> 31)) % (range.end - range.start)
    }
}

/// Stores an answer of a kind, read as from a connection: its fields are slices of a read buffer. Gives its weight.
fn store(store: &Store, clock: &Clock, dice: &mut Dice, kind: &Kind, number: u64) -> u64 {
    let buffer = Bytes::from(vec![b'a'; 16 * 1024]);
    let mut headers = HeaderMap::new();
    headers.insert("cache-control", HeaderValue::from_static("max-age=600"));
    for field in 0..dice.draw(&kind.fields) {
        let length = dice.draw(&kind.value) as usize;
        let value = HeaderValue::from_maybe_shared(buffer.slice(..length)).unwrap();
        headers.insert(HeaderName::try_from(format!("x-field-{field}")).unwrap(), value);
    }
    // Some variants each, so that there are lists of them as well.
    let resource = if kind.vary { number / 20 } else { number };
    let mut asked = HeaderMap::new();
    if kind.vary {
        headers.insert("vary", HeaderValue::from_static("accept-language"));
        asked.insert("accept-language", HeaderValue::try_from(format!("language-{number}")).unwrap());
    }
    let path = format!("/{}/{resource}", kind.name.replace(' ', "-"));
    let parts = KeyParts {
        scheme: "http",
        host: "erp.example",
        path: &path,
        query: None,
        upstream: "erp",
        partition: None,
        body: None,
    };
    let request = Asked { method: &Method::GET, headers: &asked, parts };
    let moment = clock.moment();
    let params = CacheParams::default();
    let head = storing::decide(&request, StatusCode::OK, &headers, &params, &|| moment, moment.mono).unwrap();
    let primary = store.keyer().primary(&parts, &QueryRule::default());
    // As a request does: what nobody asks for is not admitted.
    let rule = QueryRule::default();
    store.find(&Lookup { primary, clear: &parts.clear(&rule), headers: &asked }, moment.mono);
    let variant = store.keyer().variant(primary, &head.vary, &asked);
    let body = vec![b'x'; dice.draw(&kind.body) as usize];
    let entry = Entry::new(Arc::new(head), body.into());
    let weight = u64::from(entry.weight());
    store.insert(primary, variant, Arc::new(entry), moment.mono);
    weight
}

fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    text.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

/// Ten times its capacity of each kind of answer, one after the other, so that the memory of one kind must be given up
/// for the next; nobody calls for upkeep meanwhile.
#[test]
fn the_store_keeps_the_process_within_its_capacity() {
    // The allocator gives pages back some time after they were freed, which on a busy machine is late. It is told to do
    // so at once, which it hears at its start only.
    if std::env::var_os(PURGE_DELAY).is_none() {
        let mut same = std::process::Command::new(std::env::current_exe().unwrap());
        assert!(same.args(std::env::args_os().skip(1)).env(PURGE_DELAY, "0").status().unwrap().success());
        return;
    }
    let clock = Clock::anchored(SystemTime::UNIX_EPOCH);
    let cache = Store::new(CAPACITY, Keyer::new(1));
    let mut dice = Dice(1);
    let before = resident();
    let mut number = 0;
    for kind in &KINDS {
        let (mut driven, mut most, mut looked) = (0, 0, 0);
        while driven < 10 * CAPACITY {
            driven += store(&cache, &clock, &mut dice, kind, number);
            number += 1;
            if driven - looked > CAPACITY / 32 {
                looked = driven;
                most = resident().saturating_sub(before).max(most);
            }
        }
        cache.maintain();
        let (stats, now) = (cache.stats(), resident().saturating_sub(before));
        println!(
            "{:<11} {:>7} entries, {:>5.1} MiB by weight, {:>5.1} MiB resident: {:.2} of the weight; at most {:>5.1} MiB",
            kind.name,
            stats.slots,
            mib(stats.bytes),
            mib(now),
            now as f64 / stats.bytes as f64,
            mib(most)
        );
        assert!(stats.bytes <= CAPACITY && stats.bytes > CAPACITY / 2, "{}: {stats:?}", kind.name);
        assert!(most <= CAPACITY + ALLOWANCE, "{}: {} MiB resident", kind.name, mib(most));
    }
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / (1 << 20) as f64
}

const PURGE_DELAY: &str = "MIMALLOC_PURGE_DELAY";
const CAPACITY: u64 = 6 << 20;
/// For what the allocator keeps of what was given back, the buffers of the moment, and pages that are only partly used.
/// It does not grow with what is driven through: without the bound it would be ten times the capacity.
const ALLOWANCE: u64 = 24 << 20;
