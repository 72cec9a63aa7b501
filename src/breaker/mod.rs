//! The circuit breaker of one upstream: a state machine without clock, lock or chance.
//!
//! ```text
//!                  broken or slow share of the window reached
//!     +--------+ ----------------------------------------------> +------+
//!     | closed |                                                 | open | <-------------+
//!     | (ramp) |                                                 +------+               |
//!     +--------+                                                    |                   | a trial was broken or
//!         ^                                              time is up |                   | overloaded, too many were
//!         |                                                         v                   | slow, or no verdict for
//!         |             all trials did well                   +-----------+             | 30 s: open twice as long
//!         +-------------------------------------------------- | half_open | ------------+
//!                                                             +-----------+
//!
//!     any -- force(Hold::Open) --> forced_open        any -- force(Hold::Closed) --> forced_closed
//!     forced_* -- release() --> closed
//! ```
//!
//! - **Closed** counts what ended in a sliding window ([`window`]). It opens when, of at least `minimum` calls, a share
//!   of `failure_ratio` was broken or a share of `slow_ratio` slow; or when more than `zombie_share` of the slots are
//!   zombies. It works for a single endpoint: there is nowhere else to go, so failing fast is all that helps. Slow is what
//!   takes as long as was said, or three times longer than usual (`pace`).
//! - **What counts**: ok and business are successes, broken is a failure. *Overloaded* (429, 503) is neither: the
//!   backend works and must get less work, not none (that is the limit's business). *Ignored* teaches nothing.
//! - **Open** passes nothing; the wait doubles from `open` to `open_max` while trials fail, and starts over only when a
//!   ramp ended well. Each wait is shortened by up to a tenth, so that several instances do not try in step.
//! - **Half-open** passes exactly `trials` requests. They are safe ones (RFC 9110 section 9.2.1): a user's write is not
//!   what to experiment with. Only when no safe one asked for [`SAFE_ONLY`] does an unsafe one pass. A trial that is
//!   abandoned is given back. Here *overloaded* fails the trial: the backend itself says that it is not ready. Where probes
//!   answer the question ([`Trial::Probe`]), no request passes, unless no probe asked for [`MAX_WAIT`] either.
//! - **Half-open cannot get stuck**: when trials are out and no verdict comes in for [`MAX_WAIT`], it opens again.
//! - **After closing** the upstream's slots are let out slowly: [`Breaker::share`] grows from 10 to 100 % over
//!   [`RAMP`].
//! - **Late news are no news**: each shift starts a generation; the result of a pass of an older one is ignored.

use std::ops::AddAssign;
use std::time::{Duration, Instant};

use crate::outcome::Outcome;

mod pace;
mod params;
mod state;
pub mod window;

pub use params::{BreakerParams, Slow, Trial};
pub use state::{Cause, Hold, Shift, State};

use pace::Pace;
use window::Window;

/// The breaker of one upstream, to be kept under a lock by its owner.
#[derive(Debug)]
pub struct Breaker {
    params: BreakerParams,
    seed: u64,
    stand: Stand,
    window: Window<Counts>,
    pace: Pace,
    /// The state that shifts have told of.
    told: State,
}

/// The right to make one attempt. Ends in [`Breaker::record`] or [`Breaker::abandon`], exactly once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "a pass that is neither recorded nor abandoned holds a half-open trial until it is given up"]
pub struct Pass {
    /// It is one of the half-open trials.
    pub trial: bool,
    generation: u32,
    /// The kind of work it is for.
    operation: u64,
}

impl Pass {
    const fn new(trial: bool, generation: u32) -> Self {
        Self { trial, generation, operation: 0 }
    }

    /// The same for this kind of work (a route): what is slow is learned for each.
    pub const fn of(self, operation: u64) -> Self {
        Self { operation, ..self }
    }
}

impl Breaker {
    /// A closed breaker. `seed` is a drawn number; it decides the jitter of the waits and nothing else.
    pub fn new(params: BreakerParams, seed: u64, now: Instant) -> Self {
        let window = Window::new(params.window, now);
        let stand = Stand { phase: Phase::Closed { ramp: None }, generation: 0, strikes: 0 };
        Self { params, seed, stand, window, pace: Pace::default(), told: State::Closed }
    }

    /// Takes new parameters at a reload. The state is carried over; a window of another length starts empty.
    pub fn retune(&mut self, params: BreakerParams, now: Instant) {
        self.pass_time(now);
        if params.window != self.params.window {
            self.window = Window::new(params.window, now);
        }
        self.params = params;
    }

    /// Takes the right to one attempt, to be asked for when the attempt is about to be made (after the wait for a
    /// slot), so that nothing that waits hoards a trial. `safe` says that the method is (RFC 9110 section 9.2.1).
    ///
    /// # Errors
    /// How long to wait before it makes sense to ask again.
    pub fn enter(&mut self, safe: bool, now: Instant) -> Result<Pass, Duration> {
        self.pass_time(now);
        let generation = self.stand.generation;
        if safe && let Phase::HalfOpen(trials) = &mut self.stand.phase {
            trials.safe_asked = now;
        }
        self.peek(now)?;
        let Phase::HalfOpen(trials) = &mut self.stand.phase else {
            return Ok(Pass::new(false, generation));
        };
        let unsafe_from = trials.safe_asked + SAFE_ONLY;
        if !safe && now < unsafe_from {
            return Err(unsafe_from - now);
        }
        trials.take(now);
        Ok(Pass::new(true, generation))
    }

    /// Takes the right to one probe as a trial; nothing while no probe is asked for.
    pub fn enter_probe(&mut self, now: Instant) -> Option<Pass> {
        self.pass_time(now);
        let Phase::HalfOpen(trials) = &mut self.stand.phase else { return None };
        if self.params.trial != Trial::Probe {
            return None;
        }
        trials.probe_asked = now;
        if trials.left == 0 {
            return None;
        }
        trials.take(now);
        Some(Pass::new(true, self.stand.generation).of(PROBE))
    }

    /// Whether its word counts: not in shadow mode, but for what an operator holds.
    pub fn counts(&self) -> bool {
        self.params.mode.counts() || matches!(self.stand.phase, Phase::Forced(_))
    }

    /// A pass for one whom it would refuse in shadow mode: what becomes of it is seen in the window, and no trial.
    pub const fn bystander(&self) -> Pass {
        Pass::new(false, self.stand.generation)
    }

    /// Learns how the attempt ended. `took` is the time the backend took. The shift it caused is returned; those that
    /// time alone makes (open to half-open, half-open given up) are seen in [`Breaker::state`], and told by
    /// [`Breaker::elapsed`].
    pub fn record(&mut self, pass: Pass, outcome: Outcome, took: Duration, now: Instant) -> Option<Shift> {
        self.pass_time(now);
        if pass.generation != self.stand.generation {
            return None;
        }
        let slow = match self.params.slow {
            None => false,
            Some(Slow::From(bound)) => took >= bound,
            Some(Slow::Learned) => outcome.is_success() && self.pace.is_slow(pass.operation, took, now),
        };
        match self.stand.phase {
            Phase::Closed { .. } => self.count(outcome, slow, now),
            Phase::HalfOpen(_) if pass.trial => self.judge(outcome, slow, now),
            // Bystanders: gears go by the window also while a shadow says that it is open.
            Phase::HalfOpen(_) | Phase::Open { .. } => {
                self.see(outcome, slow, now);
                None
            }
            Phase::Forced(_) => None,
        }
    }

    /// Learns how many of the upstream's `slots` are zombies, after one has become it. The shift it caused is returned.
    ///
    /// A single zombie opens nothing, whatever its share: one impatient client must not shut out the others.
    pub fn haunted(&mut self, zombies: u32, slots: u32, now: Instant) -> Option<Shift> {
        self.pass_time(now);
        let many = zombies > 1 && f64::from(zombies) > self.params.zombie_share * f64::from(slots);
        if many && matches!(self.stand.phase, Phase::Closed { .. }) { self.open(Cause::Zombies, now) } else { None }
    }

    /// Gives a pass back unused: the attempt was not made, or the client left before the backend showed anything.
    pub fn abandon(&mut self, pass: Pass, now: Instant) {
        let _never_shifts = self.record(pass, Outcome::Ignored, Duration::ZERO, now);
    }

    /// Holds the breaker where an operator wants it, until [`Breaker::release`].
    pub fn force(&mut self, hold: Hold, now: Instant) -> Option<Shift> {
        self.shift(Phase::Forced(hold), Cause::Operator, now)
    }

    /// Ends an operator's hold. What was held open comes back on the ramp: nobody knows how the backend is.
    pub fn release(&mut self, now: Instant) -> Option<Shift> {
        let Phase::Forced(hold) = self.stand.phase else {
            return None;
        };
        self.stand.strikes = 0;
        self.shift(Phase::Closed { ramp: (hold == Hold::Open).then_some(now) }, Cause::Operator, now)
    }

    /// Whether a request has a chance to pass: fail fast, before the queue. Takes nothing.
    ///
    /// # Errors
    /// How long to wait before it makes sense to ask again.
    pub fn peek(&self, now: Instant) -> Result<(), Duration> {
        self.at(now, |phase| match phase {
            Phase::Closed { .. } | Phase::Forced(Hold::Closed) => Ok(()),
            Phase::Open { until } => Err(until.saturating_duration_since(now)),
            Phase::Forced(Hold::Open) => Err(HELD),
            Phase::HalfOpen(trials) if trials.left > 0 && !self.asks_probes(trials, now) => Ok(()),
            Phase::HalfOpen(_) => Err(TRIALS_OUT),
        })
    }

    /// The state at `now`.
    pub fn state(&self, now: Instant) -> State {
        self.at(now, Phase::state)
    }

    /// The shift that time alone has made since the last one was told, to be asked for now and then.
    pub fn elapsed(&mut self, now: Instant) -> Option<Shift> {
        let (from, to) = (self.told, self.state(now));
        self.told = to;
        (from != to).then_some(Shift { from, to, cause: Cause::Time })
    }

    /// The share of the upstream's slots that may be used (0.1 to 1): low while it is not closed, growing for
    /// [`RAMP`] after it closed. At least one slot should be left whatever the share.
    pub fn share(&self, now: Instant) -> f64 {
        self.at(now, |phase| match *phase {
            _ if !self.counts() => 1.0,
            Phase::Closed { ramp: None } | Phase::Forced(Hold::Closed) => 1.0,
            Phase::Closed { ramp: Some(since) } => {
                let done = now.saturating_duration_since(since).as_secs_f64() / RAMP.as_secs_f64();
                (RAMP_FLOOR + (1.0 - RAMP_FLOOR) * done).min(1.0)
            }
            Phase::Open { .. } | Phase::HalfOpen(_) | Phase::Forced(Hold::Open) => RAMP_FLOOR,
        })
    }

    /// The shares (0 to 1) of broken and of slow calls that are a strain now: as large as in the window, but no larger than
    /// in its newest tenth, so that a short outage is no strain any more when it is over. None while calls are too few to
    /// say; where only the newest are, the window speaks for them.
    pub fn shares(&mut self, now: Instant) -> (f64, f64) {
        let minimum = self.params.minimum.max(1);
        let (all, newest) = (self.window.sum(now), self.window.newest(now));
        if all.calls < minimum {
            return (0.0, 0.0);
        }
        let newest = if newest.calls < minimum { all } else { newest };
        let share = |part: fn(&Counts) -> u32| {
            let of = |counts: &Counts| f64::from(part(counts)) / f64::from(counts.calls);
            of(&all).min(of(&newest))
        };
        (share(|counts| counts.broken), share(|counts| counts.slow))
    }

    /// Closed: counts, and opens when a ratio is reached.
    fn count(&mut self, outcome: Outcome, slow: bool, now: Instant) -> Option<Shift> {
        if !self.see(outcome, slow, now) {
            return None;
        }
        let sum = self.window.sum(now);
        let cause = match () {
            () if sum.calls < self.params.minimum => return None,
            () if sum.reach(sum.broken, self.params.failure_ratio) => Cause::Failures,
            () if sum.reach(sum.slow, self.params.slow_ratio) => Cause::Slow,
            () => return None,
        };
        self.open(cause, now)
    }

    /// Puts a call into the window, if it says anything.
    fn see(&mut self, outcome: Outcome, slow: bool, now: Instant) -> bool {
        let broken = match outcome {
            Outcome::Ok | Outcome::Business => false,
            Outcome::Broken => true,
            Outcome::Overloaded | Outcome::Ignored => return false,
        };
        self.window.add(Counts { calls: 1, broken: broken.into(), slow: slow.into() }, now);
        true
    }

    /// Half-open: the verdict on one trial.
    fn judge(&mut self, outcome: Outcome, slow: bool, now: Instant) -> Option<Shift> {
        let limit = f64::from(self.params.trials.max(1)) * self.params.slow_ratio;
        let Phase::HalfOpen(trials) = &mut self.stand.phase else {
            return None;
        };
        trials.pending = trials.pending.saturating_sub(1);
        match outcome {
            Outcome::Ignored => {
                trials.left += 1;
                None
            }
            Outcome::Broken | Outcome::Overloaded => self.open(Cause::Trials, now),
            Outcome::Ok | Outcome::Business => {
                trials.slow += u32::from(slow);
                trials.waiting_since = now;
                if slow && f64::from(trials.slow) >= limit {
                    return self.open(Cause::Trials, now);
                }
                let over = trials.left == 0 && trials.pending == 0;
                if over { self.shift(Phase::Closed { ramp: Some(now) }, Cause::Trials, now) } else { None }
            }
        }
    }

    /// Whether only probes are trials: as long as there are any.
    fn asks_probes(&self, trials: &Trials, now: Instant) -> bool {
        self.params.trial == Trial::Probe && now < trials.probe_asked + MAX_WAIT
    }

    fn open(&mut self, cause: Cause, now: Instant) -> Option<Shift> {
        let stand = self.opened(self.stand, now);
        self.stand.strikes = stand.strikes;
        self.shift(stand.phase, cause, now)
    }

    /// `stand` one strike later, open from `now`.
    fn opened(&self, stand: Stand, now: Instant) -> Stand {
        let healed = matches!(stand.phase, Phase::Closed { ramp } if ramp.is_none_or(|since| now >= since + RAMP));
        let strikes = if healed { 1 } else { stand.strikes.saturating_add(1) };
        let doublings = (strikes - 1).min(MAX_DOUBLINGS);
        let wait = self.params.open.saturating_mul(1 << doublings).min(self.params.open_max);
        let jitter = mix(self.seed ^ u64::from(stand.generation)) as f64 / u64::MAX as f64;
        let wait = wait.mul_f64(1.0 - JITTER * jitter);
        Stand { phase: Phase::Open { until: now + wait }, generation: stand.generation.wrapping_add(1), strikes }
    }

    fn shift(&mut self, to: Phase, cause: Cause, now: Instant) -> Option<Shift> {
        let from = self.state(now);
        self.stand.phase = to;
        self.stand.generation = self.stand.generation.wrapping_add(1);
        self.window.clear(now);
        let to = to.state();
        self.told = to;
        (from != to).then_some(Shift { from, to, cause })
    }

    /// Where the breaker stands at `now`, after what time alone does: an open one becomes half-open when its wait is
    /// over; a half-open one whose trials give no verdict opens again. At most three steps, since a half-open state
    /// that time made has no trial out.
    fn stand_at(&self, now: Instant) -> Stand {
        let mut stand = self.stand;
        if let Phase::HalfOpen(trials) = stand.phase {
            let given_up = trials.waiting_since + MAX_WAIT;
            if trials.pending > 0 && now >= given_up {
                stand = self.opened(stand, given_up);
            }
        }
        if let Phase::Open { until } = stand.phase
            && now >= until
        {
            let left = self.params.trials.max(1);
            let trials =
                Trials { left, pending: 0, slow: 0, waiting_since: until, safe_asked: until, probe_asked: until };
            stand.phase = Phase::HalfOpen(trials);
            stand.generation = stand.generation.wrapping_add(1);
        }
        stand
    }

    /// Reads its phase at `now`, without copying it where time has changed nothing.
    fn at<T>(&self, now: Instant, read: impl FnOnce(&Phase) -> T) -> T {
        if self.stand.is_timeless() { read(&self.stand.phase) } else { read(&self.stand_at(now).phase) }
    }

    fn pass_time(&mut self, now: Instant) {
        if !self.stand.is_timeless() {
            self.stand = self.stand_at(now);
        }
    }
}

/// All that time alone can change; small and `Copy`, so that looking ahead costs nothing and changes nothing.
#[derive(Debug, Clone, Copy)]
struct Stand {
    phase: Phase,
    generation: u32,
    /// How often it opened since the backend was last well.
    strikes: u32,
}

impl Stand {
    /// Whether time alone does not change it.
    const fn is_timeless(&self) -> bool {
        matches!(self.phase, Phase::Closed { .. } | Phase::Forced(_))
    }
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    /// `ramp`: when it closed, if it came back from open.
    Closed {
        ramp: Option<Instant>,
    },
    Open {
        until: Instant,
    },
    HalfOpen(Trials),
    Forced(Hold),
}

impl Phase {
    const fn state(&self) -> State {
        match self {
            Self::Closed { .. } => State::Closed,
            Self::Open { .. } => State::Open,
            Self::HalfOpen(_) => State::HalfOpen,
            Self::Forced(Hold::Open) => State::ForcedOpen,
            Self::Forced(Hold::Closed) => State::ForcedClosed,
        }
    }
}

/// The trials of one half-open time: `left + pending + those that did well` is always the number asked for.
#[derive(Debug, Clone, Copy)]
struct Trials {
    /// Not yet passed.
    left: u32,
    /// Passed, without a verdict yet.
    pending: u32,
    /// Did well, but slowly.
    slow: u32,
    /// Since when trials have been out with no good verdict coming in (while `pending` is not 0).
    waiting_since: Instant,
    /// When a safe request last asked for a trial, or half-open began.
    safe_asked: Instant,
    /// When a probe last asked for a trial, or half-open began.
    probe_asked: Instant,
}

impl Trials {
    fn take(&mut self, now: Instant) {
        self.left = self.left.saturating_sub(1);
        self.pending += 1;
        if self.pending == 1 {
            self.waiting_since = now;
        }
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    calls: u32,
    broken: u32,
    slow: u32,
}

impl Counts {
    /// Whether `part` of the calls is a share of at least `ratio`; none is never enough.
    fn reach(self, part: u32, ratio: f64) -> bool {
        part > 0 && f64::from(part) >= ratio * f64::from(self.calls)
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, more: Self) {
        self.calls = self.calls.saturating_add(more.calls);
        self.broken = self.broken.saturating_add(more.broken);
        self.slow = self.slow.saturating_add(more.slow);
    }
}

/// The finaliser of SplitMix64: spreads a seed and a counter over all bits.
const fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// How long half-open waits for the verdicts on its trials. Without it one lost trial would keep it half-open for
/// ever (resilience4j#903, #2093).
pub const MAX_WAIT: Duration = Duration::from_secs(30);
/// How long only safe requests are taken for trials after the last of them asked (or half-open began).
pub const SAFE_ONLY: Duration = Duration::from_secs(5);
/// How long the slots take to come back after closing: a cold legacy backend is ten times slower than a warm one.
pub const RAMP: Duration = Duration::from_secs(60);
/// The share of the slots with which the ramp begins.
pub const RAMP_FLOOR: f64 = 0.1;
/// When to ask again while all trials are out: they are decided by then, as a rule.
const TRIALS_OUT: Duration = Duration::from_secs(1);
/// When to ask again while an operator holds it open: nobody knows, so neither a hammer nor a day off.
const HELD: Duration = Duration::from_secs(30);
/// The kind of work that probes are.
const PROBE: u64 = u64::MAX;
/// By how much at most a wait is shortened.
const JITTER: f64 = 0.1;
/// 2^20 times anything is beyond every `open_max`.
const MAX_DOUBLINGS: u32 = 20;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock::Clock;

    const SECOND: Duration = Duration::from_secs(1);
    const QUICK: Duration = Duration::from_millis(10);

    /// A breaker with its own time.
    struct World {
        breaker: Breaker,
        now: Instant,
    }

    impl World {
        fn new(params: BreakerParams) -> Self {
            let now = Clock::system().now();
            Self { breaker: Breaker::new(params, 7, now), now }
        }

        /// One that has just opened for the first time.
        fn opened(params: BreakerParams) -> Self {
            let mut world = Self::new(params);
            world.calls("xxxxxxxxxx");
            assert_eq!(world.state(), State::Open);
            world
        }

        /// One that has just opened, and the wait is over.
        fn half_open() -> Self {
            let mut world = Self::opened(BreakerParams::default());
            world.wait(5 * SECOND);
            assert_eq!(world.state(), State::HalfOpen);
            world
        }

        fn state(&self) -> State {
            self.breaker.state(self.now)
        }

        fn share(&self) -> f64 {
            self.breaker.share(self.now)
        }

        fn wait(&mut self, time: Duration) {
            self.now += time;
        }

        fn enter(&mut self, safe: bool) -> Result<Pass, Duration> {
            self.breaker.enter(safe, self.now)
        }

        fn trial(&mut self) -> Pass {
            let pass = self.enter(true).expect("a trial is left");
            assert!(pass.trial);
            pass
        }

        fn record(&mut self, pass: Pass, outcome: Outcome) -> Option<Shift> {
            self.breaker.record(pass, outcome, QUICK, self.now)
        }

        /// Calls in a row: `.` ok, `b` business, `x` broken, `o` overloaded, `i` ignored, `s` slow, `S` slow and
        /// broken.
        fn calls(&mut self, script: &str) {
            for letter in script.chars() {
                let (outcome, took) = match letter {
                    '.' => (Outcome::Ok, QUICK),
                    'b' => (Outcome::Business, QUICK),
                    'x' => (Outcome::Broken, QUICK),
                    'o' => (Outcome::Overloaded, QUICK),
                    'i' => (Outcome::Ignored, QUICK),
                    's' => (Outcome::Ok, 2 * SECOND),
                    'S' => (Outcome::Broken, 2 * SECOND),
                    _ => unreachable!("no such call"),
                };
                let pass = self.enter(true).expect("it passes");
                self.breaker.record(pass, outcome, took, self.now);
            }
        }
    }

    fn slow() -> BreakerParams {
        BreakerParams { slow: Some(Slow::From(SECOND)), ..BreakerParams::default() }
    }

    #[test]
    fn closed_opens_on_a_share_of_enough_calls() {
        use State::{Closed, Open};
        let table = [
            (".........x", Closed, "one of ten"),
            ("xxxxxxxxx", Closed, "fewer than the minimum"),
            ("xxxxxxxxx.", Open, "the minimum is reached by a success"),
            ("xxxxx.....", Open, "just half"),
            ("xxxx......", Closed, "just under half"),
            ("xxxx......x", Closed, "5 of 11"),
            ("xxxx......xx", Open, "6 of 12"),
            ("bbbbbbbbbbbbbbbbbbbb", Closed, "a business fault is a success"),
            ("oooooooooooooooooooo", Closed, "overload is no failure"),
            ("ooooooooooxxxxx", Closed, "nor a call that could dilute failures"),
            ("iiiiiiiiiiiiiiiiiiii", Closed, "what is ignored is not counted"),
            ("sssssss...", Closed, "7 of 10 slow"),
            ("ssssssss..", Open, "8 of 10 slow"),
            ("SSSS......", Closed, "slow and broken are counted apart"),
        ];
        for (script, expected, why) in table {
            let mut world = World::new(slow());
            world.calls(script);
            assert_eq!(world.state(), expected, "{why}: {script}");
        }
    }

    #[test]
    fn a_long_wait_forgets_the_failures() {
        let mut world = World::new(BreakerParams::default());
        world.calls("xxxxxxxxx");
        world.wait(30 * SECOND);
        world.calls("x");
        assert_eq!(world.state(), State::Closed);
    }

    #[test]
    fn the_shift_is_told_to_the_call_that_caused_it() {
        let mut world = World::new(BreakerParams { minimum: 1, ..BreakerParams::default() });
        let (first, second) = (world.enter(true).unwrap(), world.enter(true).unwrap());
        let shift = world.record(first, Outcome::Broken);
        assert_eq!(shift, Some(Shift { from: State::Closed, to: State::Open, cause: Cause::Failures }));
        assert_eq!(world.record(second, Outcome::Broken), None, "late news of an older generation");
    }

    #[test]
    fn open_says_when_to_come_back() {
        let mut world = World::opened(BreakerParams::default());
        let wait = world.enter(true).unwrap_err();
        assert!((5 * SECOND).mul_f64(0.9) <= wait && wait <= 5 * SECOND, "{wait:?}");
        assert_eq!(world.breaker.peek(world.now), Err(wait));
        world.wait(wait - Duration::from_nanos(1));
        assert!(world.enter(true).is_err());
        world.wait(Duration::from_nanos(1));
        assert!(world.trial().trial);
    }

    #[test]
    fn what_time_alone_has_done_is_told_once() {
        let mut world = World::opened(BreakerParams::default());
        assert_eq!(world.breaker.elapsed(world.now), None);
        world.wait(5 * SECOND);
        let shift = Shift { from: State::Open, to: State::HalfOpen, cause: Cause::Time };
        assert_eq!(world.breaker.elapsed(world.now), Some(shift));
        assert_eq!(world.breaker.elapsed(world.now), None);
        world.calls("...");
        assert_eq!((world.state(), world.breaker.elapsed(world.now)), (State::Closed, None));
    }

    #[test]
    fn the_wait_doubles_while_trials_fail_and_ends_at_the_maximum() {
        let mut world = World::opened(BreakerParams::default());
        for nominal in [5, 10, 20, 40, 80, 160, 300, 300, 300] {
            let wait = world.enter(true).unwrap_err();
            let nominal = Duration::from_secs(nominal);
            assert!(nominal.mul_f64(0.9) <= wait && wait <= nominal, "{wait:?} of {nominal:?}");
            world.wait(wait);
            let trial = world.trial();
            world.record(trial, Outcome::Broken);
            assert_eq!(world.state(), State::Open);
        }
    }

    #[test]
    fn two_instances_do_not_try_in_step() {
        let now = Clock::system().now();
        let waits: std::collections::HashSet<_> = (0..20)
            .map(|seed| {
                let mut breaker = Breaker::new(BreakerParams { minimum: 1, ..BreakerParams::default() }, seed, now);
                let pass = breaker.enter(true, now).unwrap();
                breaker.record(pass, Outcome::Broken, QUICK, now);
                breaker.peek(now).unwrap_err()
            })
            .collect();
        assert_eq!(waits.len(), 20);
    }

    #[test]
    fn half_open_passes_exactly_its_trials_and_closes_when_all_did_well() {
        let mut world = World::half_open();
        let trials = [world.trial(), world.trial(), world.trial()];
        assert_eq!(world.enter(true), Err(TRIALS_OUT));
        assert_eq!(world.record(trials[0], Outcome::Ok), None);
        assert_eq!(world.enter(true), Err(TRIALS_OUT), "a verdict frees no trial");
        assert_eq!(world.record(trials[1], Outcome::Business), None);
        let shift = world.record(trials[2], Outcome::Ok);
        assert_eq!(shift, Some(Shift { from: State::HalfOpen, to: State::Closed, cause: Cause::Trials }));
    }

    #[test]
    fn one_bad_trial_opens_again() {
        for outcome in [Outcome::Broken, Outcome::Overloaded] {
            let mut world = World::half_open();
            let (good, bad) = (world.trial(), world.trial());
            world.record(good, Outcome::Ok);
            let shift = world.record(bad, outcome);
            assert_eq!(
                shift,
                Some(Shift { from: State::HalfOpen, to: State::Open, cause: Cause::Trials }),
                "{outcome:?}"
            );
        }
    }

    #[test]
    fn slow_trials_open_again_only_by_their_share() {
        for (script, expected) in [("...", State::Closed), ("ss.", State::Closed), ("sss", State::Open)] {
            let mut world = World::opened(slow());
            world.wait(5 * SECOND);
            world.calls(script);
            assert_eq!(world.state(), expected, "{script}");
        }
    }

    #[test]
    fn an_abandoned_or_ignored_trial_is_given_back() {
        let mut world = World::half_open();
        let trials = [world.trial(), world.trial(), world.trial()];
        world.breaker.abandon(trials[0], world.now);
        world.record(trials[1], Outcome::Ignored);
        let again = [world.trial(), world.trial()];
        assert!(world.enter(true).is_err());
        for pass in [trials[2], again[0], again[1]] {
            world.record(pass, Outcome::Ok);
        }
        assert_eq!(world.state(), State::Closed);
    }

    #[test]
    fn a_write_is_no_trial_while_reads_ask() {
        let mut world = World::half_open();
        world.wait(SAFE_ONLY);
        let _read = world.trial();
        assert_eq!(world.enter(false), Err(SAFE_ONLY));
        world.wait(SAFE_ONLY - Duration::from_nanos(1));
        assert_eq!(world.enter(false), Err(Duration::from_nanos(1)));
        world.wait(Duration::from_nanos(1));
        assert!(world.enter(false).is_ok_and(|pass| pass.trial), "no read came: a write it is");
    }

    /// One that has just opened, asks probes and is half-open.
    fn asking() -> World {
        let mut world = World::opened(BreakerParams { trial: Trial::Probe, ..BreakerParams::default() });
        let wait = world.enter(true).unwrap_err();
        world.wait(wait);
        world
    }

    #[test]
    fn where_probes_are_asked_no_request_is_a_trial() {
        let mut world = asking();
        assert_eq!((world.enter(true), world.enter(false)), (Err(TRIALS_OUT), Err(TRIALS_OUT)));
        for _ in 0..2 {
            let probe = world.breaker.enter_probe(world.now).unwrap();
            assert_eq!(world.record(probe, Outcome::Ok), None);
        }
        assert_eq!(world.enter(true), Err(TRIALS_OUT));
        let last = world.breaker.enter_probe(world.now).unwrap();
        assert_eq!(world.breaker.enter_probe(world.now), None, "exactly as many as were asked for");
        assert_eq!(world.record(last, Outcome::Ok).map(|shift| shift.to), Some(State::Closed));
        assert_eq!(world.breaker.enter_probe(world.now), None, "nothing is asked any more");
        assert!(world.enter(false).is_ok());
    }

    #[test]
    fn a_bad_probe_opens_again_for_longer() {
        let mut world = asking();
        let probe = world.breaker.enter_probe(world.now).unwrap();
        world.record(probe, Outcome::Broken);
        assert_eq!(world.state(), State::Open);
        assert!(world.enter(true).unwrap_err() > 8 * SECOND);
        assert_eq!(world.breaker.enter_probe(world.now), None, "nothing is asked before its time");
    }

    #[test]
    fn where_no_probe_comes_requests_are_trials_after_all() {
        let mut world = asking();
        world.wait(MAX_WAIT - Duration::from_nanos(1));
        assert!(world.enter(true).is_err());
        world.wait(Duration::from_nanos(1));
        world.calls("...");
        assert_eq!(world.state(), State::Closed);
        let mut world = World::half_open();
        assert_eq!(world.breaker.enter_probe(world.now), None, "probes are not asked here");
    }

    #[test]
    fn a_learned_bound_opens_on_what_is_slow_for_its_kind() {
        let mut world = World::new(BreakerParams { slow: Some(Slow::Learned), ..BreakerParams::default() });
        let calls = |world: &mut World, count, operation, millis| {
            for _ in 0..count {
                let pass = world.enter(true).unwrap().of(operation);
                world.breaker.record(pass, Outcome::Ok, Duration::from_millis(millis), world.now);
                world.wait(SECOND);
            }
            world.state()
        };
        assert_eq!(calls(&mut world, 100, 1, 200), State::Closed);
        assert_eq!(calls(&mut world, 100, 2, 20_000), State::Closed, "it is another kind of work");
        assert_eq!(calls(&mut world, 100, 1, 550), State::Closed, "less than three times longer");
        world.wait(30 * SECOND);
        assert_eq!(calls(&mut world, 9, 1, 5_000), State::Closed, "fewer than the minimum");
        assert_eq!(calls(&mut world, 1, 1, 5_000), State::Open);
    }

    #[test]
    fn an_upstream_of_writes_alone_comes_back() {
        let mut world = World::half_open();
        world.wait(SAFE_ONLY);
        for _ in 0..3 {
            let pass = world.enter(false).unwrap();
            world.record(pass, Outcome::Ok);
        }
        assert_eq!(world.state(), State::Closed);
    }

    #[test]
    fn a_lost_trial_does_not_keep_it_half_open() {
        let mut world = World::half_open();
        let lost = world.trial();
        world.calls("..");
        world.wait(MAX_WAIT - Duration::from_nanos(1));
        assert_eq!(world.state(), State::HalfOpen);
        world.wait(Duration::from_nanos(1));
        assert_eq!(world.state(), State::Open);
        let wait = world.enter(true).unwrap_err();
        assert!(wait > 8 * SECOND, "a verdict that does not come is a bad one: {wait:?}");
        assert_eq!(world.record(lost, Outcome::Broken), None);
        world.wait(wait);
        world.calls("...");
        assert_eq!(world.state(), State::Closed);
    }

    #[test]
    fn half_open_waits_for_requests_as_long_as_it_takes() {
        let mut world = World::half_open();
        world.calls("..");
        world.wait(3600 * SECOND);
        world.calls(".");
        assert_eq!(world.state(), State::Closed);
    }

    #[test]
    fn the_slots_come_back_on_a_ramp() {
        let mut world = World::new(BreakerParams::default());
        assert_eq!(world.share(), 1.0);
        world.calls("xxxxxxxxxx");
        assert_eq!(world.share(), RAMP_FLOOR);
        world.wait(5 * SECOND);
        assert_eq!(world.share(), RAMP_FLOOR);
        world.calls("...");
        for (after, expected) in [(0, 0.1), (20, 0.4), (20, 0.7), (20, 1.0), (3600, 1.0)] {
            world.wait(after * SECOND);
            assert!((world.share() - expected).abs() < 1e-9, "{} is not {expected}", world.share());
        }
    }

    #[test]
    fn opening_again_on_the_ramp_is_another_strike_and_after_it_a_new_start() {
        for (wait, nominal) in [(59 * SECOND, 10 * SECOND), (60 * SECOND, 5 * SECOND)] {
            let mut world = World::half_open();
            world.calls("...");
            world.wait(wait);
            world.calls("xxxxxxxxxx");
            let wait = world.enter(true).unwrap_err();
            assert!(nominal.mul_f64(0.9) <= wait && wait <= nominal, "{wait:?}");
        }
    }

    #[test]
    fn an_operator_holds_it_and_lets_go() {
        let mut world = World::new(BreakerParams::default());
        let before = world.enter(true).unwrap();
        let shift = world.breaker.force(Hold::Open, world.now);
        assert_eq!(shift, Some(Shift { from: State::Closed, to: State::ForcedOpen, cause: Cause::Operator }));
        world.wait(3600 * SECOND);
        assert_eq!(world.enter(true), Err(HELD));
        assert_eq!(world.record(before, Outcome::Broken), None);
        assert_eq!(world.breaker.force(Hold::Open, world.now), None);
        world.breaker.force(Hold::Closed, world.now);
        world.calls("xxxxxxxxxxxxxxxxxxxx");
        assert_eq!(world.state(), State::ForcedClosed);
        let shift = world.breaker.release(world.now);
        assert_eq!(shift, Some(Shift { from: State::ForcedClosed, to: State::Closed, cause: Cause::Operator }));
        assert_eq!((world.share(), world.breaker.release(world.now)), (1.0, None));
        world.breaker.force(Hold::Open, world.now);
        world.breaker.release(world.now);
        assert_eq!(world.share(), RAMP_FLOOR, "nobody knows how the backend is");
    }

    #[test]
    fn a_reload_keeps_the_state_and_takes_the_new_numbers() {
        let mut world = World::new(BreakerParams::default());
        world.calls("xxxxxxxxx");
        world.breaker.retune(BreakerParams { minimum: 100, ..BreakerParams::default() }, world.now);
        world.calls("xx");
        assert_eq!(world.state(), State::Closed);
        world.breaker.retune(BreakerParams::default(), world.now);
        world.calls("x");
        assert_eq!(world.state(), State::Open);
        world.breaker.retune(slow(), world.now);
        assert_eq!(world.state(), State::Open);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Enter { safe: bool },
        End { which: usize, outcome: Outcome, slow: bool },
        Abandon { which: usize },
        Wait(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        let outcome = prop::sample::select(vec![
            Outcome::Ok,
            Outcome::Ok,
            Outcome::Ok,
            Outcome::Business,
            Outcome::Broken,
            Outcome::Overloaded,
            Outcome::Ignored,
        ]);
        prop_oneof![
            4 => any::<bool>().prop_map(|safe| Step::Enter { safe }),
            3 => (any::<usize>(), outcome, any::<bool>())
                .prop_map(|(which, outcome, slow)| Step::End { which, outcome, slow }),
            1 => any::<usize>().prop_map(|which| Step::Abandon { which }),
            1 => (0_u64..20_000).prop_map(Step::Wait),
        ]
    }

    proptest! {
        #[test]
        fn half_open_never_has_more_than_its_trials_out_and_always_comes_back(
            steps in prop::collection::vec(step(), 1..300),
            trials in 0_u32..5,
        ) {
            let params = BreakerParams { trials, minimum: 3, slow: Some(Slow::From(SECOND)), ..BreakerParams::default() };
            let trials = trials.max(1);
            let mut world = World::new(params);
            let mut out: Vec<Pass> = Vec::new();
            // Trials that were passed and not given back, of the half-open time they belong to.
            let mut used: (u32, u32) = (0, 0);
            for step in steps {
                match step {
                    Step::Enter { safe } => {
                        let fits = world.breaker.peek(world.now);
                        match world.enter(safe) {
                            Ok(pass) => {
                                prop_assert!(fits.is_ok());
                                prop_assert_eq!(pass.trial, world.state() == State::HalfOpen);
                                if pass.trial {
                                    let before = if used.0 == pass.generation { used.1 } else { 0 };
                                    used = (pass.generation, before + 1);
                                    prop_assert!(used.1 <= trials, "{} trials", used.1);
                                }
                                out.push(pass);
                            }
                            Err(wait) => prop_assert!(!wait.is_zero() && wait <= world.breaker.params.open_max),
                        }
                    }
                    Step::End { which, outcome, slow } if !out.is_empty() => {
                        let pass = out.swap_remove(which % out.len());
                        let took = if slow { 2 * SECOND } else { QUICK };
                        let before = world.state();
                        let shift = world.breaker.record(pass, outcome, took, world.now);
                        prop_assert_eq!(shift.map_or(before, |shift| shift.from), before);
                        prop_assert_eq!(shift.map_or(before, |shift| shift.to), world.state());
                        if outcome == Outcome::Ignored && pass.trial && used.0 == pass.generation {
                            used.1 -= 1;
                        }
                    }
                    Step::Abandon { which } if !out.is_empty() => {
                        let pass = out.swap_remove(which % out.len());
                        world.breaker.abandon(pass, world.now);
                        if pass.trial && used.0 == pass.generation {
                            used.1 -= 1;
                        }
                    }
                    Step::End { .. } | Step::Abandon { .. } => {}
                    Step::Wait(millis) => world.wait(Duration::from_millis(millis)),
                }
                prop_assert!((RAMP_FLOOR..=1.0).contains(&world.share()));
            }
            // Whatever happened, and whoever keeps a pass for ever: a backend that is well again is used again.
            for _ in 0..20 {
                match world.enter(true) {
                    Ok(pass) => drop(world.record(pass, Outcome::Ok)),
                    Err(wait) => world.wait(wait.max(MAX_WAIT)),
                }
            }
            prop_assert_eq!(world.state(), State::Closed);
        }
    }
}
