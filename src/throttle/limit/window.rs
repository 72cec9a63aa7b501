//! How long answers take, compared with the baseline of their own kind, over a window of answers.
//!
//! Everything is a logarithm: then a report of 20 s and a page of 20 ms weigh the same, and "twice as long" is the same
//! step for both. The mean of logarithms (a geometric mean) is also what needs the fewest answers: for the log-normal
//! service times of a business application a 90th percentile tells the same wait as surely only after twelve times as many
//! (simulated: a wait of a quarter of the mean, 100 answers), and a legacy backend gives ten answers a second, not ten
//! thousand.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use foldhash::fast::FixedState;

use super::learned::Baseline;
use super::{Reading, Sample};

/// The answers since the limit last moved, and the baselines.
#[derive(Debug)]
pub(super) struct Window {
    /// What was sent before says nothing about the limit that holds since.
    opened: Instant,
    answers: u32,
    in_flight: f64,
    sum: f64,
    squares: f64,
    /// The inflation of the window before: what a newcomer's first answers probably suffer from, too.
    last: f64,
    operations: HashMap<u64, Operation, FixedState>,
}

/// One kind of work.
#[derive(Debug, Default)]
struct Operation {
    /// The baseline, as the logarithm of seconds.
    base: f64,
    /// Answers ever.
    known: u32,
    /// Answers in this window, and the sum of their inflations.
    answers: u32,
    sum: f64,
}

impl Window {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            opened: now,
            answers: 0,
            in_flight: 0.0,
            sum: 0.0,
            squares: 0.0,
            last: 0.0,
            operations: HashMap::with_hasher(FixedState::default()),
        }
    }

    /// Whether the attempt was sent since the window was opened.
    pub(super) fn covers(&self, sample: &Sample) -> bool {
        sample.began >= self.opened
    }

    /// Takes an answer in.
    pub(super) fn record(&mut self, sample: &Sample) {
        let is_full = self.operations.len() >= MOST_OPERATIONS && !self.operations.contains_key(&sample.operation);
        let operation = self.operations.entry(if is_full { 0 } else { sample.operation }).or_default();
        let took = sample.took.max(SHORTEST).as_secs_f64().ln();
        if operation.known < FAMILIAR {
            operation.known += 1;
            operation.base += (took - self.last - operation.base) / f64::from(operation.known);
            return;
        }
        // One wild answer among a hundred must not look like overload.
        let inflation = (took - operation.base).clamp(-WILD, WILD);
        operation.answers += 1;
        operation.sum += inflation;
        self.answers += 1;
        self.in_flight += f64::from(sample.in_flight);
        self.sum += inflation;
        self.squares += inflation * inflation;
    }

    /// The reading, once the window holds `turns` answers of each of `slots` slots and is sure enough of its mean.
    pub(super) fn reading(&self, slots: u32) -> Option<Reading> {
        if self.answers < slots.saturating_mul(TURNS).max(FEWEST) {
            return None;
        }
        let answers = f64::from(self.answers);
        let inflation = self.sum / answers;
        let variance = (self.squares / answers - inflation * inflation).max(0.0);
        let is_sure = variance <= answers * ERROR * ERROR || self.answers >= ENOUGH;
        is_sure.then_some(Reading { answers: self.answers, in_flight: self.in_flight / answers, inflation })
    }

    /// Opens the next window.
    pub(super) fn turn(&mut self, now: Instant) {
        if self.answers > 0 {
            self.last = self.sum / f64::from(self.answers);
        }
        for operation in self.operations.values_mut().filter(|operation| operation.answers > 0) {
            // One kind of work became slower or faster than the others did: that is its own affair.
            let own = operation.sum / f64::from(operation.answers) - self.last;
            operation.known = operation.known.saturating_add(operation.answers).min(REMEMBERED);
            operation.base += own * f64::from(operation.answers.min(operation.known)) / f64::from(operation.known);
            (operation.answers, operation.sum) = (0, 0.0);
        }
        self.opened = now;
        (self.answers, self.in_flight, self.sum, self.squares) = (0, 0.0, 0.0, 0.0);
    }

    /// The baselines, in the order of their operations.
    pub(super) fn baselines(&self) -> Vec<Baseline> {
        let known = self.operations.iter().filter(|(_, operation)| operation.known > 0);
        let mut baselines: Vec<_> = known
            .map(|(number, operation)| Baseline {
                operation: *number,
                takes: Duration::try_from_secs_f64(operation.base.exp()).map_or(LONGEST, |takes| takes.min(LONGEST)),
                answers: operation.known,
            })
            .collect();
        baselines.sort_unstable_by_key(|baseline| baseline.operation);
        baselines
    }

    /// Takes up baselines that were learned before, in place of those there are.
    pub(super) fn restore(&mut self, baselines: &[Baseline], now: Instant) {
        let learned = baselines.iter().filter(|baseline| baseline.answers > 0).take(MOST_OPERATIONS);
        self.operations.clear();
        self.operations.extend(learned.map(|baseline| {
            let base = baseline.takes.clamp(SHORTEST, LONGEST).as_secs_f64().ln();
            (baseline.operation, Operation { base, known: baseline.answers.min(REMEMBERED), ..Operation::default() })
        }));
        self.turn(now);
        self.last = 0.0;
    }

    /// Whether any kind of work has a baseline.
    pub(super) fn is_familiar(&self) -> bool {
        self.operations.values().any(|operation| operation.known >= FAMILIAR)
    }

    /// Moves all baselines by `inflation`.
    pub(super) fn rebase(&mut self, inflation: f64) {
        self.operations.values_mut().for_each(|operation| operation.base += inflation);
        self.last -= inflation;
    }
}

/// Answers per slot in a window: fewer, and it would hold mostly those that happened to be short.
const TURNS: u32 = 4;

/// Answers in a window.
const FEWEST: u32 = 30;

/// The standard error of a window's mean: 5 %.
const ERROR: f64 = 0.05;

/// With so many answers it has to be sure.
const ENOUGH: u32 = 1000;

/// Answers of a new kind that only make its baseline.
const FAMILIAR: u32 = 8;

/// A kind's own drift is averaged over so many of its answers.
const REMEMBERED: u32 = 512;

/// Twenty times longer, or shorter, than usual; more counts as that.
const WILD: f64 = 3.0;

/// Answers cannot be told apart below.
const SHORTEST: Duration = Duration::from_micros(1);

/// No answer takes a day.
const LONGEST: Duration = Duration::from_secs(86_400);

/// Kinds of work; there are as many as routes, and this only bounds the memory.
const MOST_OPERATIONS: usize = 4096;
