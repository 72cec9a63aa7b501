//! The eye on answers that pass the store, for [`advice`](crate::advice): what a cache would have made of them.
//!
//! Costs a hash of the target for each GET that goes to an upstream; and, where its key is in the sample and it is not
//! one of many (see [`thinning`](crate::advice::thinning)), a digest of the body and a short lock at its end. What is kept is bounded, and holds keyed hashes alone: no URL, no credential,
//! no byte of an answer.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, Hasher as _};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use foldhash::fast::FixedState;
use http::header::{self, HeaderName};
use http::request::Parts;
use http::{HeaderMap, Method, StatusCode};
use parking_lot::Mutex;

use super::exchange::Exchange;
use super::snapshot::Route;
use crate::advice::digest::Digest;
use crate::advice::sightings::{Bars, NOBODY, Sighting, Sightings, Told};
use crate::advice::thinning::Thinning;
use crate::cache::control::ResponseControl;
use crate::consumer::Identity;
use crate::message::present::Present;
use crate::metrics::CacheResult;

/// What all workers have seen.
#[derive(Debug)]
pub struct Observer {
    seed: u64,
    hasher: FixedState,
    is_on: AtomicBool,
    born: Instant,
    began: Mutex<Instant>,
    thinning: Thinning,
    shards: [Shard; SHARDS],
    why: Mutex<HashMap<(u64, &'static str), u64>>,
}

/// One of several tables, so that workers rarely meet.
#[derive(Debug, Default)]
struct Shard {
    /// As in the table; read without its lock.
    halvings: AtomicU32,
    table: Mutex<Sightings>,
}

/// An answer that is being watched.
#[derive(Debug)]
pub(super) struct Watched {
    key: u64,
    weight: u32,
    caller: u64,
    /// What the request prefers: it matters only if the answer varies by it.
    preference: u64,
    variant: u64,
    bars: Bars,
    lifetime: Option<Duration>,
    /// `None` until there is an answer worth watching.
    body: Option<Digest>,
    is_unchanged: bool,
}

impl Observer {
    /// Sees nothing yet; `seed` is a drawn number, and secret.
    pub fn new(seed: u64, is_on: bool, now: Instant) -> Self {
        Self {
            seed,
            hasher: FixedState::with_seed(seed),
            is_on: AtomicBool::new(is_on),
            born: now,
            began: Mutex::new(now),
            thinning: Thinning::new(),
            shards: Default::default(),
            why: Mutex::default(),
        }
    }

    /// Forgets everything: another configuration is in force.
    pub fn restart(&self, is_on: bool, now: Instant) {
        self.is_on.store(is_on, Ordering::Relaxed);
        *self.began.lock() = now;
        for shard in &self.shards {
            *shard.table.lock() = Sightings::default();
            shard.halvings.store(0, Ordering::Relaxed);
        }
        self.why.lock().clear();
    }

    /// Whether it looks.
    pub fn is_on(&self) -> bool {
        self.is_on.load(Ordering::Relaxed)
    }

    /// Since when it looks.
    pub fn began(&self) -> Instant {
        *self.began.lock()
    }

    /// What was seen on each route, by its number.
    pub fn told(&self) -> HashMap<u64, Told> {
        let mut told = HashMap::new();
        self.shards.iter().for_each(|shard| shard.table.lock().tell(&mut told));
        told
    }

    /// Why answers of a route (by its number) were not stored, the most common cause first.
    pub fn why(&self, route: u64) -> Vec<(&'static str, u64)> {
        let why = self.why.lock();
        let of_route = why.iter().filter(|((number, _), _)| *number == route);
        let mut found: Vec<_> = of_route.map(|((_, why), count)| (*why, *count)).collect();
        drop(why);
        found.sort_unstable_by(|one, other| other.1.cmp(&one.1).then(one.0.cmp(other.0)));
        found
    }

    /// So many answers of a route that caches were not stored. Bounded: both are from closed sets.
    fn because(&self, route: &Route, why: &'static str, times: u64) {
        if self.is_on() && why != REMEMBERED {
            *self.why.lock().entry((route.number, why)).or_default() += times;
        }
    }

    /// Begins to watch a request on its way to the upstream, if it is in the sample.
    pub(super) fn begin(&self, exchange: &Exchange, route: &Route, parts: &Parts) -> Option<Box<Watched>> {
        let present = exchange.present;
        let is_plain = parts.method == Method::GET && !present.has(Present::OVERRIDE) && !present.has(Present::UPGRADE);
        if !self.is_on() || !is_plain {
            return None;
        }
        let mut key = self.hasher.build_hasher();
        key.write_u64(route.number);
        key.write(parts.headers.get(header::HOST).map_or(b"", |host| host.as_bytes()));
        key.write(parts.uri.path().as_bytes());
        key.write(parts.uri.query().unwrap_or_default().as_bytes());
        let key = key.finish();
        if !Sightings::takes(key, self.shard(key).halvings.load(Ordering::Relaxed)) {
            return None;
        }
        let at = exchange.started.saturating_duration_since(self.born);
        let weight = self.thinning.weigh(key, at, || exchange.worker.draw())?;
        // A part is no answer that could be compared.
        if present.has(Present::CONDITION) && parts.headers.contains_key(header::RANGE) {
            return None;
        }
        let known = matches!(exchange.consumer, Identity::Known(_)).then(|| exchange.caller().0.identity);
        let credentials = self.hash(&parts.headers, &[header::AUTHORIZATION, header::COOKIE]);
        let caller = match (known, credentials) {
            (None, None) => NOBODY,
            (known, credentials) => self.hasher.hash_one((known, credentials)) | 1,
        };
        Some(Box::new(Watched {
            key,
            weight,
            caller,
            preference: self.hash(&parts.headers, &PREFERENCES).unwrap_or_default(),
            variant: 0,
            bars: if credentials.is_some() { Bars::CREDENTIALS } else { Bars::default() },
            lifetime: None,
            body: None,
            is_unchanged: false,
        }))
    }

    /// The head of the answer has come; `None`: it is not worth watching on.
    pub(super) fn answered(
        &self,
        mut watched: Box<Watched>,
        route: &Route,
        status: StatusCode,
        headers: &HeaderMap,
    ) -> Option<Box<Watched>> {
        if !matches!(status, StatusCode::OK | StatusCode::NOT_MODIFIED) {
            return None;
        }
        let targeted = route.cache.as_ref().map_or(&[][..], |params| &params.targeted);
        let control = ResponseControl::parse(headers, targeted);
        watched.lifetime = control.lifetime();
        let mut bar = |is_barred: bool, bar: Bars| {
            if is_barred {
                watched.bars = watched.bars.and(bar);
            }
        };
        bar(headers.contains_key(header::SET_COOKIE), Bars::SET_COOKIE);
        bar(control.private, Bars::PRIVATE);
        bar(control.no_store || control.no_cache, Bars::NO_STORE);
        let length = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        bar(length.is_some_and(|length| length > MOST), Bars::TOO_LARGE);
        if headers.contains_key(header::VARY) {
            let foreseen = crate::cache::storing::vary(headers);
            let foreseen = foreseen.is_ok_and(|names| names.iter().all(|name| PREFERENCES.contains(name)));
            bar(!foreseen, Bars::VARY);
            watched.variant = watched.preference;
        }
        watched.is_unchanged = status == StatusCode::NOT_MODIFIED;
        watched.body = Some(Digest::new(self.seed));
        Some(watched)
    }

    /// It is over, and all of it was seen.
    pub(super) fn ended(&self, watched: &Watched, exchange: &Exchange, now: Instant) {
        let Some(route) = exchange.route() else { return };
        let Some(body) = watched.body.as_ref() else { return };
        if !matches!(exchange.cache, CacheResult::Off | CacheResult::Pass) {
            return;
        }
        let began = self.began();
        if exchange.started < began {
            return;
        }
        if let (CacheResult::Pass, Some(detail)) = (exchange.cache, exchange.forward.and_then(|forward| forward.detail))
        {
            self.because(route, detail, watched.weight.into());
        }
        let too_large = if body.length() > MOST { Bars::TOO_LARGE } else { Bars::default() };
        let sighting = Sighting {
            key: watched.key,
            variant: watched.variant,
            route: route.number,
            caller: watched.caller,
            at: now.saturating_duration_since(began),
            took: exchange.tally.upstream.unwrap_or_default(),
            body: (!watched.is_unchanged).then(|| body.finish()),
            lifetime: watched.lifetime,
            bars: watched.bars.and(too_large),
            weight: watched.weight,
        };
        let shard = self.shard(watched.key);
        let halvings = shard.table.lock().record(&sighting);
        shard.halvings.store(halvings, Ordering::Relaxed);
    }

    fn shard(&self, key: u64) -> &Shard {
        let [first, ..] = &self.shards;
        self.shards.get(key as usize % SHARDS).unwrap_or(first)
    }

    /// A hash of all values of these fields; `None` if there are none.
    fn hash(&self, headers: &HeaderMap, names: &[HeaderName]) -> Option<u64> {
        let mut hasher = self.hasher.build_hasher();
        let mut is_any = false;
        for (index, name) in names.iter().enumerate() {
            for value in headers.get_all(name) {
                is_any = true;
                hasher.write_usize(index);
                hasher.write(value.as_bytes());
            }
        }
        is_any.then(|| hasher.finish())
    }
}

impl Watched {
    /// The next bytes of the body.
    pub(super) fn take(&mut self, data: &Bytes) {
        if let Some(digest) = self.body.as_mut().filter(|digest| digest.length() <= MOST) {
            digest.add(data);
        }
    }
}

/// What an answer may vary by and still be shared: what clients prefer.
const PREFERENCES: [HeaderName; 3] = [header::ACCEPT, header::ACCEPT_ENCODING, header::ACCEPT_LANGUAGE];

/// Says only that another cause was found before.
const REMEMBERED: &str = "uncacheable";

/// Tables: as many as workers are likely to meet in.
const SHARDS: usize = 8;

/// The largest body that is looked at: `max_entry` where nothing else is said.
const MOST: u64 = 8 << 20;
