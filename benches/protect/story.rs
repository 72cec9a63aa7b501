//! What is offered to the box, and what happens to it meanwhile.
//!
//! Four consumers, told apart by a key. Three are polite and ask for the same; the fourth asks for ten times as much. Of
//! the clients of each, three in ten leave after 0.4 s: impatience is what overruns a box, since it works on for them.

use std::time::Duration;

use http::HeaderValue;
use vaxel::sim::load::{Caller, Load};
use vaxel::sim::profile::{Mix, Profile};

/// A run as it should go.
#[derive(Debug, Clone)]
pub(crate) struct Story {
    pub(crate) kind: Kind,
    /// How much is offered, in multiples of what the box can do. Of a storm: while it lasts.
    pub(crate) times: f64,
    pub(crate) length: Duration,
    /// Whether answers may be stored, and proxies are to do so.
    pub(crate) cached: bool,
}

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Nothing: the same load all the time.
    Steady,
    /// The box does half as much for the middle third.
    Slow,
    /// The box goes down after a third, and restarts.
    Crash,
    /// The greedy consumer, polite until then, storms for the middle third.
    Storm,
}

/// A hand on the box.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Turn {
    pub(crate) at: Duration,
    /// As in `POST /_sim/KNOB`.
    pub(crate) knob: &'static str,
}

impl Kind {
    pub(crate) const ALL: [Self; 4] = [Self::Steady, Self::Slow, Self::Crash, Self::Storm];

    /// Its name on the command line and in the record.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Steady => "steady",
            Self::Slow => "slow",
            Self::Crash => "crash",
            Self::Storm => "storm",
        }
    }
}

impl Story {
    /// A title for people.
    pub(crate) fn title(&self) -> String {
        let cached = if self.cached { ", answers may be stored" } else { "" };
        match self.kind {
            Kind::Steady => format!("steady, {} × capacity{cached}", self.times),
            Kind::Slow => format!("the box slows to half and recovers, {} × capacity", self.times),
            Kind::Crash => format!("the box crashes and restarts, {} × capacity", self.times),
            Kind::Storm => format!("one consumer storms, up to {} × capacity", self.times),
        }
    }

    /// What the box does meanwhile.
    pub(crate) fn turns(&self) -> Vec<Turn> {
        let (first, second) = (self.length / 3, self.length * 2 / 3);
        match self.kind {
            Kind::Steady | Kind::Storm => Vec::new(),
            Kind::Slow => vec![Turn { at: first, knob: "slow?factor=2" }, Turn { at: second, knob: "slow?factor=1" }],
            Kind::Crash => vec![Turn { at: first, knob: "crash" }],
        }
    }

    /// What is offered; everything but the rate is the same at every factor.
    pub(crate) fn load(&self, seed: u64) -> Load {
        let mut callers = Vec::new();
        let mut consumer = |key: &'static str, share: f64, storms: bool| {
            let during = storms.then(|| self.length / 3..self.length * 2 / 3);
            let key = HeaderValue::from_static(key);
            let caller =
                |share, patience| Caller { share, patience, during: during.clone(), ..Caller::new(key.clone()) };
            callers.push(caller(share * (1.0 - HASTY), None));
            callers.push(caller(share * HASTY, Some(HASTE)));
        };
        if self.kind == Kind::Storm {
            // Before and after it everybody asks for a tenth of what the box can do; the rest is the storm.
            POLITE.iter().chain(&[GREEDY]).for_each(|key| consumer(key, CALM, false));
            consumer(GREEDY, self.times - 4.0 * CALM, true);
        } else {
            POLITE.iter().for_each(|key| consumer(key, 1.0, false));
            consumer(GREEDY, GREED, false);
        }
        let rate = self.times * capacity(&self.mix());
        Load { mix: self.mix(), callers, patience: PATIENCE, connections: 8192, seed, ..Load::new(rate, self.length) }
    }

    /// Which operations.
    pub(crate) fn mix(&self) -> Mix {
        let catalog = if self.cached { 80.0 } else { 0.0 };
        // A report takes six times as long as most: a box that serves them shows who shares by number, who by work.
        Mix { catalog, account: 98.0 - catalog, order: 0.0, report: 2.0 }
    }
}

/// What the box can do of `mix`, in answers per second.
pub(crate) fn capacity(mix: &Mix) -> f64 {
    Profile { service: SERVICE, processes: SLOTS, ..Profile::default() }.capacity(mix)
}

/// Whose key it is, by the place of its stream in [`Load::callers`].
pub(crate) fn consumer_of(caller: usize) -> usize {
    // Two streams for each; what storms is the greedy one, too.
    (caller / 2).min(POLITE.len())
}

/// All consumers.
pub(crate) fn consumers() -> impl Iterator<Item = &'static str> {
    POLITE.into_iter().chain([GREEDY])
}

pub(crate) const POLITE: [&str; 3] = ["shop", "mobile", "partner"];
pub(crate) const GREEDY: &str = "batch";
/// What the greedy one asks for, as a multiple of each other's.
const GREED: f64 = 10.0;
/// What each asks for while it is calm, as a share of what the box can do.
const CALM: f64 = 0.1;
/// The share of each consumer's clients that leave early.
const HASTY: f64 = 0.3;
const HASTE: Duration = Duration::from_millis(400);
/// How long everybody else waits.
const PATIENCE: Duration = Duration::from_secs(2);
/// Work processes of the box.
pub(crate) const SLOTS: usize = 8;
/// Slow enough that what a busy machine adds to a trip does not count.
pub(crate) const SERVICE: Duration = Duration::from_millis(80);

/// Run by `cargo test --benches`.
pub(crate) fn self_check() {
    let story = |kind, times| Story { kind, times, length: Duration::from_secs(12), cached: false };
    for kind in Kind::ALL {
        let story = story(kind, 2.0);
        let load = story.load(1);
        let shares: f64 = load.callers.iter().map(|caller| caller.share).sum();
        assert!(
            load.callers
                .iter()
                .enumerate()
                .all(|(place, caller)| { consumers().nth(consumer_of(place)).is_some_and(|key| caller.key == key) })
        );
        assert!(kind != Kind::Storm || (shares - 2.0).abs() < 1e-9, "shares of a storm are multiples of the capacity");
        assert!(story.turns().iter().all(|turn| turn.at < story.length));
    }
    // 8 processes, 80 ms, 0.98 · 0.8 + 0.02 · 6 of it on average.
    assert!((capacity(&story(Kind::Steady, 1.0).mix()) - 110.6).abs() < 0.1);
}
