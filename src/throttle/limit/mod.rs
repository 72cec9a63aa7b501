//! How many slots a backend really has, learned from its answers. Pure: a sample in, a limit out.
//!
//! - [`Policy::Gradient`] looks at latency: it finds the concurrency beyond which answers only wait for each other.
//! - [`Policy::Aimd`] looks at what the backend refuses: additive increase, multiplicative decrease (Chiu, Jain 1989).
//!
//! Both know three endings of an attempt, after Netflix's concurrency-limits: a *success* counts, an *ignored* one says
//! nothing about capacity (own refusals, clients that left, errors that came fast), a *dropped* one says "too much".
//!
//! A limit in shadow mode suggests a number and leaves the one in force alone.

mod aimd;
mod gradient;
pub mod learned;
#[cfg(test)]
mod simulated;
mod window;

use std::fmt;
use std::time::{Duration, Instant};

use crate::outcome::Outcome;
use crate::refusal::Mode;
use crate::throttle::limit::aimd::Aimd;
use crate::throttle::limit::gradient::Gradient;
use crate::throttle::limit::learned::{Kind, Learned};

/// How a limit adapts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdaptiveParams {
    /// What it goes by.
    pub policy: Policy,
    /// It never goes below this; at least 1 counts.
    pub min: u32,
    /// It never goes above this.
    pub max: u32,
    /// Whether its number counts, or is only suggested.
    pub mode: Mode,
}

impl AdaptiveParams {
    /// Whether it only suggests.
    pub const fn is_shadow(&self) -> bool {
        !self.mode.counts()
    }
}

/// What a limit goes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// Latency against a baseline.
    Gradient,
    /// What the backend refuses; and, where there is a bound, answers that took longer than it.
    Aimd {
        /// An answer that takes longer is an overload signal.
        slow: Option<Duration>,
    },
}

/// How an attempt ended, as far as capacity is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// An answer.
    Success,
    /// Says nothing about capacity.
    Ignored,
    /// Too much: refused as overloaded, or not answered in time.
    Dropped,
}

/// A finished attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// Which kind of work it was (a route): each has its own baseline, so that slow reports do not look like overload.
    pub operation: u64,
    /// When it was sent.
    pub began: Instant,
    /// How long its answer took.
    pub took: Duration,
    /// Slots in use when it was sent, its own included.
    pub in_flight: u32,
    /// How it ended.
    pub ending: Ending,
}

/// What a limit saw when it last looked: the evidence for its number.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Reading {
    /// Answers it rests on.
    pub answers: u32,
    /// Slots in use, on average.
    pub in_flight: f64,
    /// By how much answers took longer than the baseline: the logarithm of the ratio of (geometric) means.
    pub inflation: f64,
}

/// Why a limit moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// All slots were in use and answers came as fast as ever.
    Room,
    /// Answers wait for each other.
    Waiting,
    /// Is the baseline still right? A look with fewer slots.
    Look,
    /// With fewer slots answers came as slowly as before: the slots were not to blame.
    Vain,
    /// The backend refused work or did not answer in time.
    Dropped,
    /// The slots were not all in use: nothing to learn about their number.
    Quiet,
}

/// The limit moved.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shift {
    /// Slots before.
    pub from: u32,
    /// Slots now, or suggested now.
    pub to: u32,
    /// Why.
    pub cause: Cause,
    /// On what evidence.
    pub reading: Reading,
    /// Only a suggestion.
    pub shadow: bool,
}

/// The adaptive limit of one upstream.
#[derive(Debug)]
pub struct Limit {
    params: AdaptiveParams,
    /// In force in shadow mode.
    start: u32,
    rule: Rule,
    reading: Reading,
    drops: u64,
    /// It has looked at answers.
    experienced: bool,
}

#[derive(Debug)]
enum Rule {
    Gradient(Gradient),
    Aimd(Aimd),
}

impl Limit {
    /// A limit that has learned nothing and begins with `start` slots.
    pub fn new(params: AdaptiveParams, start: u32, now: Instant) -> Self {
        let bounds = Bounds::of(&params);
        let rule = match params.policy {
            Policy::Gradient => Rule::Gradient(Gradient::new(bounds, start, params.is_shadow(), now)),
            Policy::Aimd { slow } => Rule::Aimd(Aimd::new(bounds, start, slow, now)),
        };
        Self { params, start, rule, reading: Reading::default(), drops: 0, experienced: false }
    }

    /// Changes the parameters; what was learned stays as long as the policy does.
    pub fn retune(&mut self, params: AdaptiveParams, start: u32, now: Instant) {
        let bounds = Bounds::of(&params);
        match (&mut self.rule, params.policy) {
            (Rule::Gradient(gradient), Policy::Gradient) => gradient.retune(bounds, params.is_shadow(), now),
            (Rule::Aimd(aimd), Policy::Aimd { slow }) => aimd.retune(bounds, slow),
            _ => *self = Self { drops: self.drops, ..Self::new(params, start, now) },
        }
        (self.params, self.start) = (params, start);
    }

    /// Whether it only suggests.
    pub const fn is_shadow(&self) -> bool {
        self.params.is_shadow()
    }

    /// What it has learned so far, here or in a process before; `None`: it stands where it was told to begin.
    pub fn learned(&self) -> Option<Learned> {
        self.experienced.then(|| match &self.rule {
            Rule::Gradient(gradient) => gradient.learned(),
            Rule::Aimd(aimd) => Learned { kind: Kind::Aimd, slots: aimd.limit(), baselines: Vec::new() },
        })
    }

    /// Goes on from what another process has learned; false if that says nothing here.
    pub fn restore(&mut self, learned: &Learned, now: Instant) -> bool {
        if !learned.is_for(&self.params) {
            return false;
        }
        match &mut self.rule {
            Rule::Gradient(gradient) => gradient.restore(learned, now),
            Rule::Aimd(aimd) => aimd.restore(learned.slots),
        }
        self.experienced = true;
        true
    }

    /// Slots in force.
    pub fn in_force(&self) -> u32 {
        if self.is_shadow() { self.start } else { self.suggested() }
    }

    /// Slots it finds right, at least 1.
    pub fn suggested(&self) -> u32 {
        match &self.rule {
            Rule::Gradient(gradient) => gradient.slots(),
            Rule::Aimd(aimd) => aimd.slots(),
        }
    }

    /// What it saw when it last looked.
    pub const fn reading(&self) -> Reading {
        self.reading
    }

    /// Overload signals since the start.
    pub const fn drops(&self) -> u64 {
        self.drops
    }

    /// Learns from a finished attempt.
    pub fn record(&mut self, sample: &Sample, now: Instant) -> Option<Shift> {
        self.drops += u64::from(sample.ending == Ending::Dropped);
        let from = self.suggested();
        let (cause, reading) = match &mut self.rule {
            Rule::Gradient(gradient) => gradient.record(sample, now)?,
            Rule::Aimd(aimd) => aimd.record(sample, now)?,
        };
        (self.reading, self.experienced) = (reading, true);
        let (to, shadow) = (self.suggested(), self.params.is_shadow());
        (to != from).then_some(Shift { from, to, cause, reading, shadow })
    }
}

/// Where a limit may be.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    least: f64,
    most: f64,
}

impl Bounds {
    fn of(params: &AdaptiveParams) -> Self {
        let least = params.min.max(1);
        Self { least: f64::from(least), most: f64::from(params.max.max(least)) }
    }

    /// The nearest number that is allowed.
    fn hold(self, limit: f64) -> f64 {
        limit.clamp(self.least, self.most)
    }
}

/// Whole slots of a limit that is held in [`Bounds`].
fn whole(limit: f64) -> u32 {
    limit as u32
}

impl From<Outcome> for Ending {
    /// An error that came fast says nothing about capacity, and one that came late is no latency of work either.
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Ok | Outcome::Business => Self::Success,
            Outcome::Broken | Outcome::Ignored => Self::Ignored,
            Outcome::Overloaded => Self::Dropped,
        }
    }
}

impl Reading {
    /// How many times longer than the baseline answers took.
    pub fn ratio(&self) -> f64 {
        self.inflation.exp()
    }
}

impl Cause {
    /// The word in the log.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Room => "room",
            Self::Waiting => "waiting",
            Self::Look => "look",
            Self::Vain => "vain",
            Self::Dropped => "dropped",
            Self::Quiet => "quiet",
        }
    }
}

impl fmt::Display for Shift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, to, cause, reading, .. } = self;
        write!(
            f,
            "{from} -> {to} slots ({}): with {:.1} in flight answers took {:.2} times the baseline ({} answers)",
            cause.word(),
            reading.in_flight,
            reading.ratio(),
            reading.answers
        )
    }
}

/// What is left of a limit after an overload signal (Netflix's AIMD and TCP Vegas back off as gently: a backend that
/// refuses has not lost the work it does).
const BACKOFF: f64 = 0.9;
