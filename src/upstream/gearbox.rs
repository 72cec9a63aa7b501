//! The gear of an upstream as requests see it: one byte where it drives normally, the rest behind a lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;

use crate::clock::Moment;
use crate::gear::calendar::{self, Window};
use crate::gear::{Cause, Controller, Gear, GearParams, Shift, Signals};
use crate::refusal::{Mode, Reason, Refusal};
use crate::throttle::Class;

/// The controller of one upstream with its calendar. Survives reloads.
#[derive(Debug)]
pub struct Gearbox {
    /// Whether there is more to know than that it drives normally.
    special: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    params: GearParams,
    windows: Vec<Window>,
    controller: Controller,
    stand: Stand,
}

/// How an upstream is driven.
#[derive(Debug, Clone, PartialEq)]
pub struct Stand {
    /// Its gear.
    pub gear: Gear,
    /// Why.
    pub cause: Cause,
    /// The gear that strain asks for; in shadow mode it is not the one that counts.
    pub strain: Gear,
    /// The gear that it would be in but for shadow mode, of strain or of a window.
    pub shadow: Option<(Gear, Cause)>,
    /// Whether a window in shadow mode would refuse writes.
    pub shadow_writes: bool,
    /// When it ends, where that is known: the end of a window or of an operator's hold.
    pub until: Option<Instant>,
    /// The window that is open, if one is.
    pub window: Option<Arc<str>>,
    /// Writes are refused until then.
    pub writes_from: Option<Instant>,
    /// What is older than this is renewed in the store when it is asked for, as a window is near.
    pub renew: Option<Instant>,
    /// The share of the slots (0 to 1) that new work may take.
    pub share: f64,
    /// The least urgent class that passes in limp.
    limp_class: Class,
}

impl Gearbox {
    /// In drive.
    pub fn new(params: GearParams, windows: Vec<Window>, now: Instant) -> Self {
        let controller = Controller::new(now);
        let stand = Stand::normal(params.limp_class);
        Self { special: AtomicBool::new(false), state: Mutex::new(State { params, windows, controller, stand }) }
    }

    /// Takes new parameters at a reload; gear and hold are carried over.
    pub fn retune(&self, params: GearParams, windows: Vec<Window>) {
        let mut state = self.state.lock();
        state.params = params;
        state.windows = windows;
    }

    /// How it is driven, unless that is normally.
    pub fn stand(&self) -> Option<Stand> {
        self.special.load(Ordering::Relaxed).then(|| self.state.lock().stand.clone())
    }

    /// How it is driven.
    pub fn now(&self) -> Stand {
        self.state.lock().stand.clone()
    }

    /// Its windows, in the order of the configuration, each with its open or next occurrence.
    pub fn calendar(&self, now: SystemTime) -> Vec<(Window, Option<(SystemTime, SystemTime)>)> {
        let windows = self.state.lock().windows.clone();
        windows
            .into_iter()
            .map(|window| {
                let next = window.next(now);
                (window, next)
            })
            .collect()
    }

    /// Observes the upstream; called about once a second. The shift it caused is returned.
    pub fn observe(&self, signals: &Signals, moment: Moment) -> Option<Shift> {
        let mut state = self.state.lock();
        let State { params, windows, controller, stand } = &mut *state;
        let page = calendar::at(windows, moment.wall);
        let window = page.open.map(|(window, _)| window.gear);
        let shift = controller.observe(params, signals, window, moment.mono);
        let (gear, cause) = controller.stand();
        let end = page.open.map(|(_, end)| from_now(moment, end));
        // An operator's hand is above the calendar: maintenance may have ended early.
        let is_held = cause == Cause::Operator;
        let by_strain = Some(controller.strain()).filter(|_| params.mode == Mode::Shadow);
        let by_window = page.shadow.0.map(|gear| (gear, Cause::Window));
        let shadow = by_strain.into_iter().chain(by_window).max_by_key(|(gear, _)| *gear);
        *stand = Stand {
            gear,
            cause,
            strain: controller.strain().0,
            shadow: shadow.filter(|(shadow, _)| *shadow > gear),
            shadow_writes: page.shadow.1 && !is_held,
            until: match cause {
                Cause::Operator => controller.held(moment.mono).map(|(_, until)| until),
                Cause::Window => end,
                _ => None,
            },
            window: page.open.map(|(window, _)| window.name.as_str().into()),
            writes_from: page.writes_from.filter(|_| !is_held).map(|end| from_now(moment, end)),
            renew: page.lead.map(|lead| ago(moment, lead)),
            share: gear.share().min(page.share.filter(|_| !is_held).unwrap_or(1.0)),
            limp_class: params.limp_class,
        };
        self.special.store(stand.is_special(), Ordering::Relaxed);
        shift
    }

    /// An operator's hand: holds `gear` until `until`, whatever is observed, or lets go. It shifts with the next
    /// observation.
    pub fn hold(&self, hold: Option<(Gear, Instant)>) {
        self.state.lock().controller.hold(hold);
    }
}

impl Stand {
    const fn normal(limp_class: Class) -> Self {
        Self {
            gear: Gear::Drive,
            cause: Cause::Calm,
            strain: Gear::Drive,
            shadow: None,
            shadow_writes: false,
            until: None,
            window: None,
            writes_from: None,
            renew: None,
            share: 1.0,
            limp_class,
        }
    }

    fn is_special(&self) -> bool {
        self.gear != Gear::Drive
            || self.shadow.is_some()
            || self.writes_from.is_some()
            || self.renew.is_some()
            || self.share < 1.0
    }

    /// Whether a request may go to the upstream. `drawn` spreads the return of those refused.
    ///
    /// # Errors
    /// `window.writes`, `gear.park`, `gear.limp`, with the time after which it makes sense to come back.
    pub fn admit(&self, safe: bool, class: Class, now: Instant, drawn: u64) -> Result<(), Refusal> {
        let wait = |until: Option<Instant>| {
            let jitter = SPREAD.mul_f64((drawn % 1024) as f64 / 1024.0);
            until.map_or(AGAIN, |until| until.saturating_duration_since(now)) + jitter
        };
        if let Some(until) = self.writes_from.filter(|until| !safe && now < *until) {
            return Err(Refusal::from(Reason::WindowWrites).after(wait(Some(until))));
        }
        // A breaker refuses by itself, and knows better when to come back.
        if self.gear == Gear::Park && self.cause != Cause::Breaker {
            return Err(Refusal::from(Reason::GearPark).after(wait(self.until)));
        }
        if self.gear == Gear::Limp && class > self.limp_class {
            return Err(Refusal::from(Reason::GearLimp).after(wait(self.until)));
        }
        Ok(())
    }

    /// Why a request would be refused but for shadow mode.
    pub fn would_refuse(&self, safe: bool, class: Class) -> Option<Reason> {
        if self.shadow_writes && !safe {
            return Some(Reason::WindowWrites);
        }
        match self.shadow? {
            // A breaker says so itself.
            (Gear::Park, cause) => (cause != Cause::Breaker).then_some(Reason::GearPark),
            (Gear::Limp, _) => (class > self.limp_class).then_some(Reason::GearLimp),
            (Gear::Drive | Gear::Eco, _) => None,
        }
    }
}

fn from_now(moment: Moment, end: SystemTime) -> Instant {
    moment.mono + end.duration_since(moment.wall).unwrap_or_default()
}

fn ago(moment: Moment, begin: SystemTime) -> Instant {
    let since = moment.wall.duration_since(begin).unwrap_or_default();
    moment.mono.checked_sub(since).unwrap_or(moment.mono)
}

/// When to come back where nobody knows: about the time it stays in a gear.
const AGAIN: Duration = Duration::from_secs(10);

/// All who were refused do not come back in the same second.
const SPREAD: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use jiff::civil::Time;
    use jiff::tz::TimeZone;

    use super::*;
    use crate::clock::Clock;

    fn window(gear: Gear) -> Window {
        Window {
            name: "night".to_owned(),
            zone: TimeZone::UTC,
            days: Vec::new(),
            from: Time::midnight(),
            to: Time::constant(1, 0, 0, 0),
            gear,
            refuses_writes: true,
            lead: Duration::from_secs(600),
            ramp: Duration::from_secs(600),
            mode: Mode::Enforce,
        }
    }

    /// The stand so many seconds after midnight, UTC.
    fn stand(gear: Gear, seconds: u64) -> (Stand, Moment) {
        let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(86_400 + seconds);
        let moment = Moment { mono: Clock::default().now(), wall };
        let gearbox = Gearbox::new(GearParams::default(), vec![window(gear)], moment.mono);
        assert_eq!(gearbox.stand(), None);
        gearbox.observe(&Signals::default(), moment);
        (gearbox.now(), moment)
    }

    #[test]
    fn while_a_window_is_open_writes_are_told_its_end_and_so_is_everybody_in_park() {
        let (stand, moment) = stand(Gear::Park, 3000);
        let refused = |safe| stand.admit(safe, Class::Normal, moment.mono, 0).unwrap_err();
        let after = Some(Duration::from_secs(600));
        assert_eq!(refused(false), Refusal { reason: Reason::WindowWrites, retry_after: after });
        assert_eq!(refused(true), Refusal { reason: Reason::GearPark, retry_after: after });
        assert_eq!(stand.window.as_deref(), Some("night"));
    }

    #[test]
    fn limp_passes_what_is_urgent_enough() {
        let (stand, moment) = stand(Gear::Limp, 0);
        let passes = |class| stand.admit(true, class, moment.mono, 0).map_err(|refusal| refusal.reason);
        assert_eq!(passes(Class::Interactive), Ok(()));
        assert_eq!(passes(Class::Normal), Ok(()));
        assert_eq!(passes(Class::Batch), Err(Reason::GearLimp));
        assert_eq!(passes(Class::Refresh), Err(Reason::GearLimp));
        assert!((stand.share - 0.5).abs() < f64::EPSILON);
    }

    #[test]
    fn before_a_window_the_store_is_renewed_and_after_it_slots_come_back_slowly() {
        let (before, moment) = stand(Gear::Park, 86_400 - 300);
        assert_eq!(before.gear, Gear::Drive);
        assert_eq!(before.renew, Some(moment.mono - Duration::from_secs(300)));
        let (after, _) = stand(Gear::Park, 3600);
        assert_eq!((after.gear, after.writes_from), (Gear::Drive, None));
        assert!((after.share - 0.1).abs() < 1e-9);
    }

    #[test]
    fn an_operators_hand_is_above_the_calendar_until_the_hold_ends() {
        let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(86_400 + 1200);
        let moment = Moment { mono: Clock::default().now(), wall };
        let gearbox = Gearbox::new(GearParams::default(), vec![window(Gear::Park)], moment.mono);
        let write = |moment: Moment| {
            gearbox.observe(&Signals::default(), moment);
            gearbox.now().admit(false, Class::Normal, moment.mono, 0).map_err(|refusal| refusal.reason)
        };
        let later = |seconds| {
            let span = Duration::from_secs(seconds);
            Moment { mono: moment.mono + span, wall: moment.wall + span }
        };
        assert_eq!(write(moment), Err(Reason::WindowWrites));
        gearbox.hold(Some((Gear::Drive, later(600).mono)));
        assert_eq!(write(later(1)), Ok(()), "the maintenance has ended early");
        assert_eq!(write(later(600)), Err(Reason::WindowWrites));
        gearbox.hold(Some((Gear::Drive, later(5000).mono)));
        gearbox.observe(&Signals::default(), later(2401));
        assert!((gearbox.now().share - 1.0).abs() < f64::EPSILON, "nor a ramp");
    }

    #[test]
    fn an_operators_hold_ends_by_itself() {
        let moment = Clock::anchored(SystemTime::UNIX_EPOCH + Duration::from_secs(50_000)).moment();
        let gearbox = Gearbox::new(GearParams::default(), Vec::new(), moment.mono);
        let later = |seconds| {
            let span = Duration::from_secs(seconds);
            Moment { mono: moment.mono + span, wall: moment.wall + span }
        };
        gearbox.hold(Some((Gear::Park, later(60).mono)));
        assert_eq!(gearbox.observe(&Signals::default(), moment).map(|shift| shift.cause), Some(Cause::Operator));
        assert_eq!(gearbox.stand().and_then(|stand| stand.until), Some(later(60).mono));
        gearbox.observe(&Signals::default(), later(60));
        assert_eq!(gearbox.stand(), None);
    }
}
