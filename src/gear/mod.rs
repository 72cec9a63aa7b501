//! What the policies of one upstream do together: its gear. One controller per upstream shifts it by what it observes,
//! by the calendar and by an operator's hand.
//!
//! ```text
//!            strain for RISE            strain for RISE            breaker open
//!   drive ──────────────────▶ eco ──────────────────▶ limp ─────────────────────▶ park
//!         ◀────────────────── ◀────────────────────── ◀──────────────────────────
//!                one gear at a time, after `dwell` without strain
//! ```
//!
//! | gear | what the upstream gets | what clients get |
//! |---|---|---|
//! | drive | everything | |
//! | eco | no retries; refreshes only while half of it is idle | stale answers wherever they could stand in for an error |
//! | limp | half of its slots; nothing less urgent than `limp_class`; no refreshes | the same |
//! | park | nothing | stale answers, fallbacks, refusals that say when to come back |
//!
//! Strain is read from several signals; each has its own two thresholds ([`Signals`]). A full queue alone never makes it
//! limp: a backend that works at its capacity is well, and fewer slots would make it do less. The gear of a breaker
//! follows at once, without hysteresis, as the breaker has its own.
//!
//! Pure: what was observed and the time are arguments. [`calendar`] has the windows.

use std::time::{Duration, Instant};

use crate::breaker::State;
use crate::refusal::Mode;
use crate::throttle::Class;

pub mod calendar;

/// How carefully an upstream is driven; a greater one is more careful.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Gear {
    /// Normally.
    #[default]
    Drive,
    /// Under strain.
    Eco,
    /// Hardly.
    Limp,
    /// Not at all.
    Park,
}

impl Gear {
    /// Every gear, from the least careful one.
    pub const ALL: [Self; 4] = [Self::Drive, Self::Eco, Self::Limp, Self::Park];

    /// The stable word for configuration, logs, metric labels and the admin API.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Drive => "drive",
            Self::Eco => "eco",
            Self::Limp => "limp",
            Self::Park => "park",
        }
    }

    /// The share of the slots (0 to 1) that new work may take.
    pub const fn share(self) -> f64 {
        match self {
            Self::Drive | Self::Eco | Self::Park => 1.0,
            Self::Limp => 0.5,
        }
    }

    const fn eased(self) -> Self {
        match self {
            Self::Drive | Self::Eco => Self::Drive,
            Self::Limp => Self::Eco,
            Self::Park => Self::Limp,
        }
    }
}

/// Whether and how it shifts by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GearParams {
    /// Whether strain shifts it, or only counts. Calendar and operator always shift.
    pub mode: Mode,
    /// How long it stays in a gear at least before it shifts to a less careful one.
    pub dwell: Duration,
    /// The least urgent class that passes in limp.
    pub limp_class: Class,
}

impl Default for GearParams {
    /// 10 s: as long as a mean work process of an ERP needs to end what it has begun.
    fn default() -> Self {
        Self { mode: Mode::Enforce, dwell: Duration::from_secs(10), limp_class: Class::Normal }
    }
}

/// Why it is in its gear.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    /// There is no strain.
    Calm,
    /// The queue is half full.
    Queue,
    /// Slots work on what nobody waits for any more.
    Zombies,
    /// Calls break.
    Failures,
    /// Calls are slow.
    Slow,
    /// The breaker is open or half-open.
    Breaker,
    /// A window of the calendar is open.
    Window,
    /// An operator holds it.
    Operator,
}

impl Cause {
    /// The stable word for logs and the admin API.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Calm => "calm",
            Self::Queue => "queue",
            Self::Zombies => "zombies",
            Self::Failures => "failures",
            Self::Slow => "slow",
            Self::Breaker => "breaker",
            Self::Window => "window",
            Self::Operator => "operator",
        }
    }
}

/// What is observed of an upstream, about once a second.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Signals {
    /// Requests that wait, as a share (0 to 1) of those that may.
    pub queue: f64,
    /// Zombies, as a share of the slots.
    pub zombies: f64,
    /// Broken calls, as a share of those in the breaker's window, and no larger than among the newest; 0 while they are too
    /// few to say.
    pub failures: f64,
    /// Slow calls, likewise.
    pub slow: f64,
    /// The breaker's state, if there is one.
    pub breaker: Option<State>,
}

impl Signals {
    /// The gear they ask for; thresholds are multiplied by `ease`.
    ///
    /// Each limp threshold is about midway between eco's and the one at which the breaker opens by default: limping is
    /// the attempt to avoid that.
    fn ask(&self, ease: f64) -> (Gear, Cause) {
        match self.breaker {
            Some(State::Open | State::ForcedOpen) => return (Gear::Park, Cause::Breaker),
            Some(State::HalfOpen) => return (Gear::Limp, Cause::Breaker),
            Some(State::Closed | State::ForcedClosed) | None => {}
        }
        let mut asked = (Gear::Drive, Cause::Calm);
        for (value, eco, limp, cause) in [
            (self.failures, 0.15, 0.3, Cause::Failures),
            (self.zombies, 0.25, 0.4, Cause::Zombies),
            (self.slow, 0.4, 0.6, Cause::Slow),
            (self.queue, 0.5, f64::INFINITY, Cause::Queue),
        ] {
            let gear = match value {
                value if value >= limp * ease => Gear::Limp,
                value if value >= eco * ease => Gear::Eco,
                _ => Gear::Drive,
            };
            if gear > asked.0 {
                asked = (gear, cause);
            }
        }
        asked
    }
}

/// A change of gear, to be logged and counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shift {
    /// The gear it left.
    pub from: Gear,
    /// The gear it is in now.
    pub to: Gear,
    /// Why.
    pub cause: Cause,
}

/// Shifts the gear of one upstream.
#[derive(Debug, Clone)]
pub struct Controller {
    /// What strain alone asks for.
    strain: (Gear, Cause),
    since: Instant,
    /// Since when it asks for a more careful gear.
    rising: Option<Instant>,
    hold: Option<(Gear, Instant)>,
    /// The gear it is in, and why.
    stand: (Gear, Cause),
}

impl Controller {
    /// A controller in drive.
    pub const fn new(now: Instant) -> Self {
        let calm = (Gear::Drive, Cause::Calm);
        Self { strain: calm, since: now, rising: None, hold: None, stand: calm }
    }

    /// The gear, and why.
    pub const fn stand(&self) -> (Gear, Cause) {
        self.stand
    }

    /// The gear that strain alone asks for: in shadow mode it is what would be.
    pub const fn strain(&self) -> (Gear, Cause) {
        self.strain
    }

    /// The operator's gear and its end, if one is held at `now`.
    pub fn held(&self, now: Instant) -> Option<(Gear, Instant)> {
        self.hold.filter(|(_, until)| now < *until)
    }

    /// An operator holds `gear` until `until`, whatever is observed; `None` lets go. It shifts with the next
    /// observation.
    pub const fn hold(&mut self, hold: Option<(Gear, Instant)>) {
        self.hold = hold;
    }

    /// Observes. `window` is the gear of an open window. Where strain does not count ([`Mode::Off`], [`Mode::Shadow`]), the
    /// breaker's part in it does not either: it refuses by itself.
    pub fn observe(
        &mut self,
        params: &GearParams,
        signals: &Signals,
        window: Option<Gear>,
        now: Instant,
    ) -> Option<Shift> {
        self.strained(params, signals, now);
        let by_strain = if params.mode == Mode::Enforce { self.strain } else { (Gear::Drive, Cause::Calm) };
        let to = match (self.held(now), window) {
            (Some((gear, _)), _) => (gear, Cause::Operator),
            (None, Some(gear)) if gear >= by_strain.0 => (gear, Cause::Window),
            _ => by_strain,
        };
        let from = std::mem::replace(&mut self.stand, to);
        (from.0 != to.0).then_some(Shift { from: from.0, to: to.0, cause: to.1 })
    }

    fn strained(&mut self, params: &GearParams, signals: &Signals, now: Instant) {
        let asked = signals.ask(1.0);
        if asked.0 > self.strain.0 {
            let rising = *self.rising.get_or_insert(now);
            if asked.1 == Cause::Breaker || now >= rising + RISE {
                self.shift(asked, now);
            }
            return;
        }
        self.rising = None;
        let (eased, cause) = signals.ask(EASE);
        // The breaker has waited long enough already.
        let waits = self.strain.1 != Cause::Breaker && now < self.since + params.dwell;
        if eased < self.strain.0 && !waits {
            let to = self.strain.0.eased();
            let cause = if to == Gear::Drive {
                Cause::Calm
            } else if eased == to {
                cause
            } else {
                self.strain.1
            };
            self.shift((to, cause), now);
        }
    }

    const fn shift(&mut self, to: (Gear, Cause), now: Instant) {
        self.strain = to;
        self.since = now;
        self.rising = None;
    }
}

/// How long strain must last before it counts: one bad second is an accident.
const RISE: Duration = Duration::from_secs(3);

/// A less careful gear is asked for only when signals are this much below the thresholds.
const EASE: f64 = 0.7;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock::Clock;

    /// A controller that is observed once a second.
    struct Drive {
        controller: Controller,
        params: GearParams,
        now: Instant,
        shifts: Vec<(Gear, Gear, Cause)>,
    }

    impl Drive {
        fn new(params: GearParams) -> Self {
            let now = Clock::default().now();
            Self { controller: Controller::new(now), params, now, shifts: Vec::new() }
        }

        fn seconds(&mut self, seconds: u64, signals: Signals, window: Option<Gear>) -> Gear {
            for _ in 0..seconds {
                let shift = self.controller.observe(&self.params, &signals, window, self.now);
                self.shifts.extend(shift.map(|shift| (shift.from, shift.to, shift.cause)));
                self.now += Duration::from_secs(1);
            }
            self.controller.stand().0
        }
    }

    fn failing(share: f64) -> Signals {
        Signals { failures: share, ..Signals::default() }
    }

    #[test]
    fn a_bad_second_is_an_accident_and_three_are_strain() {
        let mut drive = Drive::new(GearParams::default());
        assert_eq!(drive.seconds(2, failing(0.2), None), Gear::Drive);
        assert_eq!(drive.seconds(2, failing(0.0), None), Gear::Drive);
        assert_eq!(drive.seconds(4, failing(0.2), None), Gear::Eco);
        assert_eq!(drive.seconds(4, failing(0.35), None), Gear::Limp);
        assert_eq!(drive.shifts, [(Gear::Drive, Gear::Eco, Cause::Failures), (Gear::Eco, Gear::Limp, Cause::Failures)]);
    }

    #[test]
    fn it_shifts_back_one_gear_at_a_time_and_only_well_below_the_threshold() {
        let mut drive = Drive::new(GearParams::default());
        assert_eq!(drive.seconds(4, failing(0.4), None), Gear::Limp);
        assert_eq!(drive.seconds(60, failing(0.25), None), Gear::Limp, "not below 0.7 x 0.3");
        assert_eq!(drive.seconds(1, failing(0.0), None), Gear::Eco);
        assert_eq!(drive.seconds(9, failing(0.0), None), Gear::Eco);
        assert_eq!(drive.seconds(2, failing(0.0), None), Gear::Drive);
    }

    #[test]
    fn a_full_queue_asks_for_eco_and_never_for_limp() {
        let mut drive = Drive::new(GearParams::default());
        let full = Signals { queue: 1.0, ..Signals::default() };
        assert_eq!(drive.seconds(100, full, None), Gear::Eco);
    }

    #[test]
    fn the_gear_follows_the_breaker_at_once() {
        let mut drive = Drive::new(GearParams::default());
        let breaker = |state| Signals { breaker: Some(state), ..Signals::default() };
        assert_eq!(drive.seconds(1, breaker(State::Open), None), Gear::Park);
        assert_eq!(drive.seconds(1, breaker(State::HalfOpen), None), Gear::Limp);
        assert_eq!(drive.seconds(1, breaker(State::Open), None), Gear::Park);
        assert_eq!(drive.seconds(2, breaker(State::Closed), None), Gear::Eco);
        assert_eq!(drive.seconds(12, breaker(State::Closed), None), Gear::Drive);
    }

    #[test]
    fn a_window_sets_the_least_careful_gear_and_an_operator_any() {
        let mut drive = Drive::new(GearParams::default());
        assert_eq!(drive.seconds(1, failing(0.0), Some(Gear::Eco)), Gear::Eco);
        assert_eq!(drive.seconds(4, failing(0.4), Some(Gear::Eco)), Gear::Limp);
        let until = drive.now + Duration::from_secs(5);
        drive.controller.hold(Some((Gear::Drive, until)));
        assert_eq!(drive.seconds(5, failing(0.4), Some(Gear::Park)), Gear::Drive);
        assert_eq!(drive.seconds(1, failing(0.4), Some(Gear::Park)), Gear::Park, "the hold has ended");
        assert_eq!(drive.seconds(1, failing(0.4), None), Gear::Limp);
    }

    #[test]
    fn in_shadow_strain_is_only_told() {
        let mut drive = Drive::new(GearParams { mode: Mode::Shadow, ..GearParams::default() });
        assert_eq!(drive.seconds(4, failing(0.4), None), Gear::Drive);
        assert_eq!(drive.controller.strain(), (Gear::Limp, Cause::Failures));
        assert_eq!(drive.seconds(1, failing(0.4), Some(Gear::Park)), Gear::Park);
    }

    proptest! {
        #[test]
        fn it_never_shifts_back_before_the_dwell_is_over(
            shares in proptest::collection::vec(0.0..1.0_f64, 1..300),
        ) {
            let mut drive = Drive::new(GearParams::default());
            let mut shifted = drive.now;
            for share in shares {
                let (before, now) = (drive.controller.stand().0, drive.now);
                let after = drive.seconds(1, failing(share), None);
                if after < before {
                    prop_assert!(now >= shifted + drive.params.dwell, "{before:?} {after:?}");
                    prop_assert_eq!(after, before.eased());
                }
                if after != before {
                    shifted = now;
                }
            }
        }
    }
}
