//! The limit where answers begin to wait for each other.
//!
//! As long as a backend has free processes, one more request changes nothing: it comes back as fast as the others. Once
//! they are all busy, one more only makes everybody wait: by Little's law latency then grows as concurrency does. The
//! bend between the two is the limit. With a *baseline*, what an answer takes without that wait, one look suffices:
//!
//! ```text
//! limit = in flight · baseline / latency        the slots that work, without those that wait
//! ```
//!
//! The baseline is the difficult part: a backend that was overloaded from the start never showed it, and one that
//! becomes slower by itself (month's end) leaves it behind. Both are settled by a *cut*: with a quarter fewer slots,
//! - latency follows, at least half as much → the slots were too many; stay there, and that is the new baseline;
//! - it does not → the slots were not to blame ("vain"): back, and what is seen now is the new baseline.
//!
//! Half as much is not arbitrary: where latency grows half as fast as concurrency, the ratio of throughput to latency
//! (Kleinrock's power) has its maximum. A cut that was made because answers wait is judged like one made only to look.
//! Looks are rare, once in [`LOOK_EVERY`] windows in which all slots are busy; and nobody is refused for one that would
//! not be anyway, he waits a little longer. (Envoy's minRTT window refuses nearly everybody to measure: envoy#18152.)
//!
//! Nothing is learned upwards while the slots are not all in use: then the limit does not limit.

use std::time::Instant;

use super::learned::{Kind, Learned};
use super::window::Window;
use super::{BACKOFF, Bounds, Cause, Ending, Reading, Sample, whole};

#[derive(Debug)]
pub(super) struct Gradient {
    bounds: Bounds,
    limit: f64,
    /// It only watches: it cannot cut.
    watches: bool,
    window: Window,
    /// It has had a first look.
    begun: bool,
    /// A cut of which it is not known yet what it did.
    cut: Option<Cut>,
    /// Windows in which all went well since the last time it did not.
    calm: u32,
    /// Windows with all slots busy since the baseline was looked at.
    unseen: u32,
}

/// How it was before a cut.
#[derive(Debug, Clone, Copy)]
struct Cut {
    limit: f64,
    reading: Reading,
    /// Made only to look.
    look: bool,
}

impl Gradient {
    pub(super) fn new(bounds: Bounds, start: u32, watches: bool, now: Instant) -> Self {
        let limit = bounds.hold(f64::from(start));
        let window = Window::new(now);
        Self { bounds, limit, watches, window, begun: false, cut: None, calm: SETTLED, unseen: LOOK_EVERY }
    }

    pub(super) fn retune(&mut self, bounds: Bounds, watches: bool, now: Instant) {
        self.limit = bounds.hold(self.limit);
        (self.bounds, self.watches, self.cut) = (bounds, watches, None);
        self.window.turn(now);
    }

    pub(super) fn learned(&self) -> Learned {
        Learned { kind: Kind::Gradient, slots: self.limit, baselines: self.window.baselines() }
    }

    /// Goes on from there. Much may have changed meanwhile: it feels its way as after trouble, and looks at the baselines as
    /// soon as all slots are busy.
    pub(super) fn restore(&mut self, learned: &Learned, now: Instant) {
        self.limit = self.bounds.hold(learned.slots);
        (self.cut, self.calm, self.unseen) = (None, 0, LOOK_EVERY);
        self.window.restore(&learned.baselines, now);
        self.begun = self.window.is_familiar();
    }

    pub(super) fn slots(&self) -> u32 {
        whole(self.limit)
    }

    pub(super) fn record(&mut self, sample: &Sample, now: Instant) -> Option<(Cause, Reading)> {
        if sample.ending == Ending::Ignored || !self.window.covers(sample) {
            return None;
        }
        if sample.ending == Ending::Dropped {
            // One decrease for each turn of the slots: what was under way before does not count again.
            let reading = Reading { in_flight: f64::from(sample.in_flight), ..Reading::default() };
            (self.limit, self.cut, self.calm) = (self.bounds.hold(self.limit * BACKOFF), None, 0);
            self.window.turn(now);
            return Some((Cause::Dropped, reading));
        }
        self.window.record(sample);
        let reading = self.window.reading(self.slots())?;
        self.window.turn(now);
        if !std::mem::replace(&mut self.begun, true) {
            // The first answers made the baselines, each kind's out of a handful.
            self.window.rebase(reading.inflation);
            return Some((Cause::Quiet, reading));
        }
        Some((self.judge(reading), reading))
    }

    fn judge(&mut self, reading: Reading) -> Cause {
        if let Some(cut) = self.cut.filter(|cut| cut.is_telling(&reading)) {
            return self.learn(cut, &reading);
        }
        let busy = reading.in_flight / f64::from(self.slots());
        if reading.inflation > TOLERANCE && busy >= HALF {
            return self.shrink(reading);
        }
        if let Some(cut) = self.cut.take().filter(|cut| cut.look) {
            // Nobody needed the slots meanwhile: nothing was seen.
            self.limit = self.bounds.hold(cut.limit);
            return Cause::Vain;
        }
        if busy < HALF {
            // So it is with half the slots: that is what a baseline is.
            self.window.rebase(reading.inflation / 4.0);
            self.unseen = 0;
            return Cause::Quiet;
        }
        if reading.inflation < -TOLERANCE {
            self.window.rebase(reading.inflation / 2.0);
        }
        if busy < ALL || (self.watches && self.unseen > 0) {
            return Cause::Quiet;
        }
        self.grow(reading)
    }

    /// All slots are busy, and nothing waits in the backend.
    fn grow(&mut self, reading: Reading) -> Cause {
        self.calm = self.calm.saturating_add(1);
        self.unseen += u32::from(!self.watches);
        let fewer = self.bounds.hold(f64::from(whole(self.limit * QUARTER_LESS)));
        // With as many whole slots as before there is nothing to see, however often it looks.
        if self.unseen > LOOK_EVERY && fewer < f64::from(self.slots()) {
            self.cut = Some(Cut { limit: self.limit, reading, look: true });
            self.limit = fewer;
            return Cause::Look;
        }
        let step = if self.calm > SETTLED { (self.limit / 8.0).max(STEP) } else { STEP };
        self.limit = self.bounds.hold(self.limit + step);
        Cause::Room
    }

    /// Answers wait for each other.
    fn shrink(&mut self, reading: Reading) -> Cause {
        self.calm = 0;
        let working = reading.in_flight * (-reading.inflation).exp() + STEP;
        if self.watches {
            // Nothing follows from a suggestion, so there is nothing to judge it by but the formula; and people read it, so
            // it is to be calm.
            self.limit = self.bounds.hold(self.limit + (working - self.limit) / 4.0);
            return Cause::Waiting;
        }
        let less = working.clamp(self.limit * QUARTER_LESS, self.limit).min(f64::from(self.slots()) - STEP);
        let less = self.bounds.hold(less);
        if less >= self.limit {
            // There is nothing to take away: so it is, then.
            self.window.rebase(reading.inflation);
            return Cause::Vain;
        }
        self.cut.get_or_insert(Cut { limit: self.limit, reading, look: false });
        self.limit = less;
        Cause::Waiting
    }

    /// It shows what a cut did.
    fn learn(&mut self, cut: Cut, reading: &Reading) -> Cause {
        self.cut = None;
        if cut.was_followed(reading) {
            self.calm = 0;
            if reading.inflation < 0.0 {
                // The baseline was none; perhaps this is none yet, either.
                self.window.rebase(reading.inflation);
                self.unseen = LOOK_EVERY;
            }
            return Cause::Waiting;
        }
        // A small difference is as likely chance.
        let is_small = reading.inflation.abs() <= TOLERANCE;
        self.window.rebase(if is_small { reading.inflation / 2.0 } else { reading.inflation });
        (self.limit, self.unseen) = (self.bounds.hold(cut.limit), 0);
        Cause::Vain
    }
}

impl Cut {
    /// Whether there is so much less at work now that latency must show it.
    fn is_telling(&self, now: &Reading) -> bool {
        self.reading.in_flight >= now.in_flight * 1.15
    }

    /// Whether latency went down at least half as much as what is in flight.
    fn was_followed(&self, now: &Reading) -> bool {
        let less = (self.reading.in_flight / now.in_flight).ln();
        self.reading.inflation - now.inflation >= less / 2.0
    }
}

/// Answers that take 10 % longer than the baseline wait for each other; less is chance (two standard errors).
const TOLERANCE: f64 = 0.14;

/// Slots by which the limit feels its way up near the bend.
const STEP: f64 = 0.5;

/// What is left of the slots after a cut.
const QUARTER_LESS: f64 = 0.75;

/// So many windows without trouble, and the bend is probably not near: the limit grows by an eighth each.
const SETTLED: u32 = 8;

/// Windows with all slots busy between two looks at the baseline.
const LOOK_EVERY: u32 = 16;

/// With less of the slots in use, the limit does not limit, and the backend shows how fast it is by itself.
const HALF: f64 = 0.5;

/// With less of the slots in use, nobody needs more.
const ALL: f64 = 0.8;
