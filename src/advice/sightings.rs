//! What was seen of answers that passed the store: enough to say what a cache would have made of them, and nothing of
//! what they say. There are no URLs, identities or bodies here, only keyed hashes of them.
//!
//! Keys are sampled by their hash, so that of one key all requests are seen or none (spatial sampling: Waldspurger et
//! al., "Efficient MRC Construction with SHARDS", FAST 2015, section 4). When the table is full, half of the keys leave it
//! and are seen no more: it is bounded, and what it tells stays true of the whole when it is scaled up.
//!
//! For each key a cache of one place is played through for each of [`TTLS`]: how often it would have answered, and how
//! often with other bytes than the origin did.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::time::Duration;

use foldhash::fast::FixedState;

/// One answer that passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sighting {
    /// What it is sampled by: a keyed hash of route, host and target.
    pub key: u64,
    /// A keyed hash of what the answer varies by; 0 if it does not.
    pub variant: u64,
    /// The number of its route.
    pub route: u64,
    /// A keyed hash of who asked; [`NOBODY`] if nothing tells.
    pub caller: u64,
    /// When, since some fixed instant.
    pub at: Duration,
    /// How long the backend took.
    pub took: Duration,
    /// The digest of its body; `None`: the client has it already (304).
    pub body: Option<u64>,
    /// How long its origin says it is fresh, if it says.
    pub lifetime: Option<Duration>,
    /// What speaks against storing it.
    pub bars: Bars,
    /// How many answers it stands for, itself among them: of what is asked for often, not every one is looked at (see
    /// [`thinning`](super::thinning)).
    pub weight: u32,
}

/// What speaks against storing an answer for others, as bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bars(u8);

impl Bars {
    /// It sets a cookie.
    pub const SET_COOKIE: Self = Self(1);
    /// Its origin says that it is for one user.
    pub const PRIVATE: Self = Self(2);
    /// Its origin forbids to store it.
    pub const NO_STORE: Self = Self(4);
    /// It varies by a field nobody can foresee, or by who asks.
    pub const VARY: Self = Self(8);
    /// It is larger than what is stored.
    pub const TOO_LARGE: Self = Self(16);
    /// Its request carries credentials: only a rule of the route shares it. No bar by itself.
    pub const CREDENTIALS: Self = Self(32);

    /// All of both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether any of `other` is among them.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

/// The caller of whom nothing is known.
pub const NOBODY: u64 = 0;

/// The table.
#[derive(Debug, Default)]
pub struct Sightings {
    seen: HashMap<(u64, u64), Seen, FixedState>,
    /// The sampled share of the keys is one of 2^this.
    halvings: u32,
}

impl Sightings {
    /// Whether the requests of this key are seen.
    pub const fn takes(key: u64, halvings: u32) -> bool {
        // The high bits: low ones choose places in tables.
        halvings == 0 || key.leading_zeros() >= halvings
    }

    /// Sees an answer; how often the sampled share was halved until now.
    pub fn record(&mut self, sighting: &Sighting) -> u32 {
        let place = (sighting.key, sighting.variant);
        while self.seen.len() >= CAPACITY && !self.seen.contains_key(&place) && self.halvings < 63 {
            self.halvings += 1;
            let halvings = self.halvings;
            self.seen.retain(|(key, _), _| Self::takes(*key, halvings));
        }
        if Self::takes(sighting.key, self.halvings) {
            match self.seen.entry(place) {
                Entry::Occupied(mut entry) => entry.get_mut().record(sighting),
                Entry::Vacant(entry) => entry.insert(Seen::new(sighting.route)).record(sighting),
            }
        }
        self.halvings
    }

    /// What was seen on each route, by its number, as if all keys had been seen.
    pub fn tell(&self, to: &mut HashMap<u64, Told>) {
        let scale = (1_u64 << self.halvings.min(32)) as f64;
        for seen in self.seen.values() {
            to.entry(seen.route).or_default().add(seen, scale);
        }
    }
}

/// What was seen of one key.
#[derive(Debug)]
struct Seen {
    route: u64,
    requests: u32,
    took: Duration,
    bars: Bars,
    /// The shortest lifetime its origin gave.
    lifetime: Option<Duration>,
    callers: [Option<Caller>; CALLERS],
    /// The last bytes, and when they came.
    last: Option<(u64, Duration)>,
    /// Those that were there before these.
    replaced: Option<(u64, Duration)>,
    /// Times a caller got the bytes that another had got shortly before.
    alike: u32,
    /// Times a caller who had not been seen got bytes that nobody else had got.
    apart: u32,
    /// Times a caller got his own bytes again, while another had got others in between, or bytes came back that others had
    /// just taken the place of: they are personal. What has changed does not change back.
    personal: u32,
    plays: [Play; TTLS.len()],
}

#[derive(Debug, Clone, Copy)]
struct Caller {
    who: u64,
    body: u64,
    at: Duration,
}

/// A cache of one place.
#[derive(Debug, Clone, Copy, Default)]
struct Play {
    stored: Option<(Duration, u64)>,
    hits: u32,
    wrong: u32,
}

impl Seen {
    fn new(route: u64) -> Self {
        Self {
            route,
            requests: 0,
            took: Duration::ZERO,
            bars: Bars::default(),
            lifetime: None,
            callers: [None; CALLERS],
            last: None,
            replaced: None,
            alike: 0,
            apart: 0,
            personal: 0,
            plays: Default::default(),
        }
    }

    fn record(&mut self, sighting: &Sighting) {
        let Sighting { caller, at, took, body, lifetime, bars, weight, .. } = *sighting;
        self.requests = self.requests.saturating_add(weight);
        self.took += took * weight;
        self.bars = self.bars.and(bars);
        self.lifetime = match (self.lifetime, lifetime) {
            (Some(before), Some(now)) => Some(before.min(now)),
            (before, now) => before.or(now),
        };
        if let Some(body) = body {
            self.compare(caller, body, at);
        }
        for (play, ttl) in self.plays.iter_mut().zip(TTLS) {
            match play.stored {
                Some((since, stored)) if at.saturating_sub(since) < ttl => {
                    play.hits = play.hits.saturating_add(weight);
                    let wrong = body.is_some_and(|body| body != stored);
                    play.wrong = play.wrong.saturating_add(u32::from(wrong) * weight);
                }
                _ => {
                    play.stored = body.map(|body| (at, body));
                    // Those it stands for came shortly after it.
                    let rest = if body.is_some() { weight - 1 } else { 0 };
                    play.hits = play.hits.saturating_add(rest);
                }
            }
        }
    }

    /// Compares what a caller got with what others got.
    fn compare(&mut self, who: u64, body: u64, at: Duration) {
        let mine = self.callers.iter().flatten().find(|caller| caller.who == who).copied();
        let mut others = self.callers.iter().flatten().filter(|caller| caller.who != who);
        let recent = |other: &&Caller| at.saturating_sub(other.at) < TOGETHER;
        if others.clone().filter(recent).any(|other| other.body == body) {
            self.alike = self.alike.saturating_add(1);
        } else if mine.is_none() && others.clone().any(|other| recent(&other)) {
            self.apart = self.apart.saturating_add(1);
        }
        let is_own =
            mine.is_some_and(|mine| mine.body == body && others.any(|other| other.at >= mine.at && other.body != body));
        // More callers than are remembered may take turns.
        let is_back = self.turns(body, at) && who != NOBODY;
        self.personal = self.personal.saturating_add(u32::from(is_own || is_back));
        let place = self
            .callers
            .iter()
            .position(|caller| caller.is_some_and(|caller| caller.who == who))
            .or_else(|| self.callers.iter().position(Option::is_none))
            .or_else(|| {
                let oldest = self.callers.iter().enumerate().min_by_key(|(_, caller)| caller.map(|caller| caller.at));
                oldest.map(|(place, _)| place)
            });
        if let Some(place) = place.and_then(|place| self.callers.get_mut(place)) {
            *place = Some(Caller { who, body, at });
        }
    }

    /// Whether these bytes come back shortly after others had taken their place.
    fn turns(&mut self, body: u64, at: Duration) -> bool {
        let is_new = self.last.is_none_or(|(last, _)| last != body);
        let is_back = is_new
            && self.replaced.is_some_and(|(replaced, gone)| replaced == body && at.saturating_sub(gone) < TOGETHER);
        if is_new {
            self.replaced = self.last;
        }
        self.last = Some((body, at));
        is_back
    }

    /// Different callers get different bytes.
    const fn is_personal(&self) -> bool {
        self.personal > 0 || (self.apart > 0 && self.alike == 0)
    }
}

/// What was seen on one route, scaled up to all keys.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Told {
    /// Keys, variants apart.
    pub keys: f64,
    /// Requests.
    pub requests: f64,
    /// Time the backend took for them.
    pub took: Duration,
    /// Requests for keys whose bytes differ between callers.
    pub personal: f64,
    /// How many keys showed that, not scaled.
    pub personal_keys: u64,
    /// How often callers got the bytes that another had got shortly before, not scaled.
    pub alike: f64,
    /// Requests for keys that are barred, by bar; a key may have several.
    pub barred: [f64; BARS.len()],
    /// Requests for keys that are not barred and not personal.
    pub open: f64,
    /// Those of them with credentials.
    pub credentials: f64,
    /// Those of them whose origin gives a lifetime.
    pub dated: f64,
    /// What a cache would have made of the open ones, for each of [`TTLS`].
    pub plays: [Played; TTLS.len()],
    /// What it would have made of those whose origin gives a lifetime, by that.
    pub by_origin: Played,
}

/// What a cache would have done.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Played {
    /// Requests it would have answered.
    pub hits: f64,
    /// Those of them that would have got other bytes than the origin gave.
    pub wrong: f64,
    /// Time the backend would not have worked.
    pub spared: Duration,
}

impl Told {
    fn add(&mut self, seen: &Seen, scale: f64) {
        let requests = f64::from(seen.requests) * scale;
        self.keys += scale;
        self.requests += requests;
        self.took += seen.took.mul_f64(scale);
        self.alike += f64::from(seen.alike);
        let bars = BARS.map(|bar| seen.bars.has(bar));
        for (barred, is_barred) in self.barred.iter_mut().zip(bars) {
            *barred += if is_barred { requests } else { 0.0 };
        }
        if seen.is_personal() {
            self.personal += requests;
            self.personal_keys += 1;
        }
        if seen.is_personal() || bars.contains(&true) {
            return;
        }
        self.open += requests;
        if seen.bars.has(Bars::CREDENTIALS) {
            self.credentials += requests;
        }
        let mean = seen.took.checked_div(seen.requests).unwrap_or_default();
        let played = |play: &Play| Played {
            hits: f64::from(play.hits) * scale,
            wrong: f64::from(play.wrong) * scale,
            spared: mean.mul_f64(f64::from(play.hits) * scale),
        };
        for (told, play) in self.plays.iter_mut().zip(&seen.plays) {
            told.add(played(play));
        }
        if let Some(lifetime) = seen.lifetime.filter(|lifetime| !lifetime.is_zero()) {
            self.dated += requests;
            let longest = seen.plays.iter().zip(TTLS).rfind(|(_, ttl)| *ttl <= lifetime);
            self.by_origin.add(longest.map(|(play, _)| played(play)).unwrap_or_default());
        }
    }
}

impl Played {
    fn add(&mut self, other: Self) {
        self.hits += other.hits;
        self.wrong += other.wrong;
        self.spared += other.spared;
    }
}

/// The lifetimes that are played through.
pub const TTLS: [Duration; 4] =
    [Duration::from_secs(1), Duration::from_secs(10), Duration::from_secs(60), Duration::from_secs(600)];

/// What bars an answer, in the order of [`Told::barred`].
pub const BARS: [Bars; 5] = [Bars::SET_COOKIE, Bars::PRIVATE, Bars::NO_STORE, Bars::VARY, Bars::TOO_LARGE];

/// Callers remembered of a key: two would do to see a difference, four see it sooner.
const CALLERS: usize = 4;

/// Within this time two answers speak of the same state of things.
const TOGETHER: Duration = Duration::from_secs(60);

/// Keys in one table: what a hash table of 1024 places holds before it grows.
pub const CAPACITY: usize = 1024 / 8 * 7;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn sighting(key: u64, caller: u64, at: u64, body: u64) -> Sighting {
        Sighting {
            key,
            variant: 0,
            route: 1,
            caller,
            at: Duration::from_millis(at),
            took: Duration::from_millis(100),
            body: Some(body),
            lifetime: None,
            bars: Bars::default(),
            weight: 1,
        }
    }

    fn told(sightings: &[Sighting]) -> Told {
        let mut table = Sightings::default();
        for sighting in sightings {
            table.record(sighting);
        }
        let mut told = HashMap::new();
        table.tell(&mut told);
        told.remove(&1).unwrap_or_default()
    }

    #[test]
    fn a_cache_is_played_through_for_each_lifetime() {
        // Each half second the same, until it changes at 2 s.
        let told = told(&[0, 500, 1_000, 1_500, 2_000, 2_500].map(|at| sighting(7, NOBODY, at, at / 2_000)));
        let plays = told.plays.map(|play| (play.hits, play.wrong));
        assert_eq!(plays, [(3.0, 0.0), (5.0, 2.0), (5.0, 2.0), (5.0, 2.0)]);
        assert_eq!(told.plays[0].spared, Duration::from_millis(300));
        assert_eq!((told.requests, told.open, told.keys), (6.0, 6.0, 1.0));
    }

    #[test]
    fn the_same_bytes_for_two_callers_are_nobodys_own() {
        let told = told(&[sighting(7, 1, 0, 5), sighting(7, 2, 10, 5), sighting(7, 1, 20, 6), sighting(7, 2, 30, 6)]);
        assert_eq!((told.personal, told.alike, told.open), (0.0, 2.0, 4.0));
    }

    #[test]
    fn other_bytes_for_each_caller_are_personal() {
        let twice = told(&[sighting(7, 1, 0, 5), sighting(7, 2, 10, 6), sighting(7, 1, 20, 5)]);
        assert_eq!((twice.personal, twice.open), (3.0, 0.0));
        let once = told(&[1, 2, 3].map(|who| sighting(7, who, who, who)));
        assert_eq!((once.personal, once.open), (3.0, 0.0), "though nobody asked twice");
        let mixed = told(&[sighting(7, 1, 0, 5), sighting(7, 2, 1, 5), sighting(7, 3, 2, 9), sighting(7, 1, 3, 5)]);
        assert_eq!(mixed.personal_keys, 1, "one alone is enough");
    }

    #[test]
    fn two_groups_of_callers_are_seen_though_none_of_them_is_remembered() {
        // Nine who take turns; of each three one is an administrator.
        let told = told(&std::array::from_fn::<_, 36, _>(|turn| {
            let turn = turn as u64;
            sighting(7, 1 + turn % 9, 10 * turn, u64::from(turn.is_multiple_of(3)))
        }));
        assert_eq!((told.personal_keys, told.open), (1, 0.0));
        assert!(told.alike > 0.0);
    }

    #[test]
    fn a_change_between_two_callers_is_not_personal() {
        let soon = told(&[sighting(7, 1, 0, 5), sighting(7, 2, 10, 5), sighting(7, 2, 20, 6), sighting(7, 1, 30, 6)]);
        assert_eq!(soon.personal, 0.0);
        let late = told(&[sighting(7, 1, 0, 5), sighting(7, 2, 100_000, 6)]);
        assert_eq!(late.personal, 0.0, "long after, it may have changed");
    }

    #[test]
    fn what_is_barred_once_is_not_counted_as_gain() {
        for (index, bar) in BARS.into_iter().enumerate() {
            let told = told(&[sighting(7, 1, 0, 5), Sighting { bars: bar, ..sighting(7, 1, 10, 5) }]);
            assert_eq!((told.open, told.barred[index], told.barred.iter().sum::<f64>()), (0.0, 2.0, 2.0));
        }
        let credentials = told(&[Sighting { bars: Bars::CREDENTIALS, ..sighting(7, 1, 0, 5) }]);
        assert_eq!((credentials.open, credentials.credentials), (1.0, 1.0));
    }

    #[test]
    fn an_origin_that_gives_a_lifetime_is_taken_at_its_word() {
        let lifetime = Some(15 * SECOND);
        let told = told(&[0, 5, 20].map(|at| Sighting { lifetime, ..sighting(7, 1, at * 1_000, 5) }));
        assert_eq!((told.dated, told.by_origin.hits), (3.0, 1.0), "as with ten seconds");
    }

    #[test]
    fn one_that_stands_for_many_counts_as_many() {
        let many = |at, body| Sighting { weight: 16, ..sighting(7, 1, at, body) };
        let told = told(&[many(0, 5), many(100, 5), many(200, 6), many(1_500, 6)]);
        let plays = told.plays.map(|play| (play.hits, play.wrong));
        assert_eq!(plays[..2], [(15.0 + 16.0 + 16.0 + 15.0, 16.0), (15.0 + 48.0, 32.0)]);
        assert_eq!((told.requests, told.took), (64.0, 64 * Duration::from_millis(100)));
    }

    #[test]
    fn an_unchanged_answer_is_one_that_would_have_been_served() {
        let unchanged = Sighting { body: None, ..sighting(7, 1, 100, 0) };
        let told = told(&[sighting(7, 1, 0, 5), unchanged, unchanged]);
        assert_eq!((told.plays[1].hits, told.plays[1].wrong), (2.0, 0.0));
    }

    #[test]
    fn a_full_table_sees_half_of_the_keys_and_tells_of_all() {
        let mut table = Sightings::default();
        let keys = 20_000;
        let mut halvings = 0;
        for round in 0..3 {
            for number in 0..keys {
                let key = (number as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                halvings = table.record(&sighting(key, NOBODY, round * 100, 5));
                assert!(table.seen.len() <= CAPACITY);
            }
        }
        assert!(halvings >= 4, "{halvings}");
        let mut told = HashMap::new();
        table.tell(&mut told);
        let told = &told[&1];
        assert!((told.keys / f64::from(keys) - 1.0).abs() < 0.1, "{}", told.keys);
        assert!((told.requests / f64::from(3 * keys) - 1.0).abs() < 0.1, "all requests of a key, or none");
    }

    #[test]
    fn eight_tables_take_four_mebibytes_at_most() {
        // The standard table has a byte for each place besides.
        let place = size_of::<((u64, u64), Seen)>() + 1;
        assert!(8 * 1024 * place <= 4 << 20, "{place}");
        let mut table = Sightings::default();
        table.seen.reserve(CAPACITY);
        assert_eq!(table.seen.capacity(), CAPACITY);
    }

    proptest! {
        #[test]
        fn whatever_is_seen_no_more_is_played_than_was_asked(
            seen in prop::collection::vec((0_u64..3, 0_u64..4, 0_u64..2_000, 0_u64..3), 0..60),
        ) {
            let mut at = 0;
            let sightings: Vec<_> = seen.into_iter().map(|(key, who, later, body)| {
                at += later;
                sighting(key, who, at, body)
            }).collect();
            let told = told(&sightings);
            for play in told.plays {
                prop_assert!(play.wrong <= play.hits && play.hits <= told.open);
                prop_assert!(play.spared <= told.took + SECOND / 1_000);
            }
            prop_assert!(told.plays.is_sorted_by(|a, b| a.hits <= b.hits));
            prop_assert!(told.open + told.personal <= told.requests + 0.5);
        }
    }
}
