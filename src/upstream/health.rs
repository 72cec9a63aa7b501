//! Which endpoints of an upstream are fit: what requests show (ejection) and what probes show (up or down).
//!
//! The two differ in what they may do:
//!
//! - **Ejection** is a guess from the requests that happened to come. An endpoint that broke several in a row is left
//!   out for `base` × the number of its ejections, at most `max`. Coming back it is on parole: one more failure ejects
//!   it again, one success clears it. It never takes out a single endpoint, nor more than `max_share` of several: when
//!   all of them fail, the trouble is behind them, and that is the breaker's business.
//! - **Probes** are what the operator asked to be told. `fall` bad ones in a row take an endpoint out, `rise` good ones
//!   bring it back, even if that leaves none; a single endpoint is not taken out here either, since refusing without
//!   asking is what the breaker does, and does better.
//!
//! Whichever way it came back, an endpoint starts slowly: its caches are cold and its connections gone, and with its whole
//! share at once it would fail again. It takes part in more and more choices over `slow_start`.

use std::time::{Duration, Instant};

use crate::outcome::Outcome;

/// The fitness of all endpoints of one upstream, to be kept under a lock by its owner. Endpoints are named by index.
#[derive(Debug)]
pub struct Ejection {
    params: EjectionParams,
    endpoints: Vec<Endpoint>,
}

/// When to leave an endpoint out, and for how long.
#[derive(Debug, Clone, PartialEq)]
pub struct EjectionParams {
    /// Failures in a row that eject; 0: nothing is ejected.
    pub consecutive: u32,
    /// How long the first ejection lasts; the second twice that, the third three times.
    pub base: Duration,
    /// The longest ejection. An endpoint that was well for this long starts over at `base`.
    pub max: Duration,
    /// The share of the endpoints that may be out when one is ejected (0 to 1), rounded down.
    pub max_share: f64,
    /// How long an endpoint that comes back takes to its whole share; it begins with a tenth.
    pub slow_start: Duration,
}

impl Default for EjectionParams {
    fn default() -> Self {
        Self {
            consecutive: 5,
            base: Duration::from_secs(10),
            max: Duration::from_mins(5),
            max_share: 0.5,
            slow_start: Duration::from_secs(30),
        }
    }
}

/// A change of an endpoint's fitness, to be logged and counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Requests ejected it until then.
    Ejected {
        /// When it comes back.
        until: Instant,
    },
    /// Probes took it out.
    Down,
    /// Probes brought it back.
    Up,
}

impl Ejection {
    /// `count` endpoints, all of them fit.
    pub fn new(params: EjectionParams, count: usize) -> Self {
        Self { params, endpoints: vec![Endpoint::default(); count] }
    }

    /// Learns how an attempt on endpoint `index` ended.
    pub fn record(&mut self, index: usize, outcome: Outcome, now: Instant) -> Option<Turn> {
        let room = self.has_room(now);
        let params = &self.params;
        let endpoint = self.endpoints.get_mut(index)?;
        // While it is out, what comes in is late.
        if endpoint.is_ejected(now) {
            return None;
        }
        match outcome {
            Outcome::Ok | Outcome::Business => endpoint.broken = 0,
            Outcome::Broken => endpoint.broken = endpoint.broken.saturating_add(1),
            Outcome::Overloaded | Outcome::Ignored => return None,
        }
        let eject = room && params.consecutive > 0 && endpoint.broken >= params.consecutive;
        eject.then(|| Turn::Ejected { until: endpoint.eject(params, now) })
    }

    /// Learns from a probe of endpoint `index`. `rise` and `fall` as in [`ProbeParams`](super::probe::ProbeParams).
    pub fn probed(&mut self, index: usize, good: bool, rise: u32, fall: u32, now: Instant) -> Option<Turn> {
        let endpoint = self.endpoints.get_mut(index)?;
        let agrees = good != endpoint.down;
        endpoint.contradictions = if agrees { 0 } else { endpoint.contradictions.saturating_add(1) };
        let needed = if endpoint.down { rise } else { fall };
        if agrees || endpoint.contradictions < needed {
            return None;
        }
        endpoint.contradictions = 0;
        endpoint.down = !good;
        endpoint.up_since = good.then_some(now);
        Some(if good { Turn::Up } else { Turn::Down })
    }

    /// Whether endpoint `index` may be chosen. A single endpoint always may.
    pub fn is_available(&self, index: usize, now: Instant) -> bool {
        self.endpoints.len() == 1 && index == 0
            || self.endpoints.get(index).is_some_and(|endpoint| !endpoint.is_out(now))
    }

    /// Whether endpoint `index` takes part in the choice that `drawn` (from all of `u64`) was drawn for: always, but for
    /// its slow start.
    pub fn takes_part(&self, index: usize, now: Instant, drawn: u64) -> bool {
        let Some(back) = self.endpoints.get(index).and_then(Endpoint::back_since) else { return true };
        let (warm, whole) = (now.saturating_duration_since(back), self.params.slow_start);
        if warm >= whole {
            return true;
        }
        let share = COLD + (1.0 - COLD) * warm.as_secs_f64() / whole.as_secs_f64();
        // The same number serves the balance and other endpoints: each sees it mixed its own way.
        let lot = (drawn ^ index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        (lot as f64) < share * f64::from(u32::MAX)
    }

    /// The verdict of the probes on endpoint `index`, whether or not it is heeded; without probes it is up.
    pub fn is_up(&self, index: usize) -> bool {
        self.endpoints.get(index).is_some_and(|endpoint| !endpoint.down)
    }

    /// Whether one more may be out.
    fn has_room(&self, now: Instant) -> bool {
        let count = self.endpoints.len();
        let out = self.endpoints.iter().filter(|endpoint| endpoint.is_out(now)).count();
        count > 1 && (out + 1) as f64 <= count as f64 * self.params.max_share
    }
}

#[derive(Debug, Clone, Default)]
struct Endpoint {
    /// Failures in a row.
    broken: u32,
    /// Ejections since it was last well for long.
    ejections: u32,
    /// When the last ejection ends or ended.
    out_until: Option<Instant>,
    /// The verdict of the probes.
    down: bool,
    /// Probes in a row that contradict it.
    contradictions: u32,
    /// When they brought it back.
    up_since: Option<Instant>,
}

impl Endpoint {
    fn is_ejected(&self, now: Instant) -> bool {
        self.out_until.is_some_and(|until| now < until)
    }

    /// When it last came back, if it ever was out.
    fn back_since(&self) -> Option<Instant> {
        self.out_until.max(self.up_since)
    }

    fn is_out(&self, now: Instant) -> bool {
        self.down || self.is_ejected(now)
    }

    fn eject(&mut self, params: &EjectionParams, now: Instant) -> Instant {
        let was_well = self.out_until.is_none_or(|until| now.saturating_duration_since(until) >= params.max);
        self.ejections = if was_well { 1 } else { self.ejections.saturating_add(1) };
        let until = now + params.base.saturating_mul(self.ejections).min(params.max);
        self.out_until = Some(until);
        // On parole: one more failure is enough.
        self.broken = params.consecutive.saturating_sub(1);
        until
    }
}

/// The share an endpoint comes back with.
const COLD: f64 = 0.1;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock::Clock;

    const SECOND: Duration = Duration::from_secs(1);

    struct World {
        health: Ejection,
        now: Instant,
    }

    impl World {
        fn new(count: usize) -> Self {
            let health = Ejection::new(EjectionParams::default(), count);
            Self { health, now: Clock::system().now() }
        }

        /// Failures in a row of one endpoint; for how many seconds the last one ejects it.
        fn fail(&mut self, index: usize, times: u32) -> Option<u64> {
            let turns: Vec<_> = (0..times).map(|_| self.health.record(index, Outcome::Broken, self.now)).collect();
            match turns.last().copied().flatten() {
                Some(Turn::Ejected { until }) => Some((until - self.now).as_secs()),
                _ => None,
            }
        }

        fn succeed(&mut self, index: usize) {
            assert_eq!(self.health.record(index, Outcome::Ok, self.now), None);
        }

        /// The endpoints that may be chosen.
        fn available(&self) -> Vec<usize> {
            (0..self.health.endpoints.len()).filter(|&index| self.health.is_available(index, self.now)).collect()
        }

        /// Probes in a row, `+` good, `-` bad; what the last of them turned.
        fn probes(&mut self, index: usize, script: &str) -> Option<Turn> {
            script.chars().map(|letter| self.health.probed(index, letter == '+', 2, 3, self.now)).last().flatten()
        }
    }

    #[test]
    fn failures_in_a_row_eject_and_a_success_between_them_does_not() {
        let mut world = World::new(2);
        assert_eq!(world.fail(0, 4), None);
        world.succeed(0);
        assert_eq!(world.fail(0, 4), None);
        assert_eq!(world.fail(0, 1), Some(10));
        assert_eq!(world.available(), [1]);
        world.now += 10 * SECOND;
        assert_eq!(world.available(), [0, 1]);
    }

    #[test]
    fn only_broken_counts() {
        let mut world = World::new(2);
        for outcome in [Outcome::Ok, Outcome::Business, Outcome::Overloaded, Outcome::Ignored] {
            for _ in 0..20 {
                assert_eq!(world.health.record(0, outcome, world.now), None);
            }
        }
        world.fail(0, 4);
        world.health.record(0, Outcome::Overloaded, world.now);
        assert_eq!(world.fail(0, 1), Some(10), "overload does not excuse what was broken before");
    }

    #[test]
    fn an_ejected_endpoint_comes_back_on_parole_and_stays_out_longer_each_time() {
        let mut world = World::new(2);
        world.fail(0, 5);
        for previous in [10, 20, 30] {
            world.now += previous * SECOND;
            assert_eq!(world.fail(0, 1), Some(u64::from(previous) + 10));
        }
    }

    #[test]
    fn the_longest_ejection_is_bounded_and_a_long_good_time_is_a_new_start() {
        let mut world = World::new(2);
        world.fail(0, 5);
        for _ in 0..40 {
            world.now += 300 * SECOND;
            world.fail(0, 1);
            world.now += SECOND;
        }
        world.now += 298 * SECOND;
        assert_eq!(world.available(), [1]);
        world.now += SECOND;
        assert_eq!(world.available(), [0, 1]);
        world.succeed(0);
        world.now += 299 * SECOND;
        assert_eq!(world.fail(0, 5), Some(300));
        world.now += 600 * SECOND;
        world.succeed(0);
        assert_eq!(world.fail(0, 5), Some(10));
    }

    #[test]
    fn a_single_endpoint_is_never_out() {
        let mut world = World::new(1);
        assert_eq!(world.fail(0, 1000), None);
        assert_eq!(world.probes(0, "---"), Some(Turn::Down));
        assert_eq!(world.available(), [0]);
        assert!(!world.health.is_up(0), "but it is told");
    }

    #[test]
    fn at_most_half_of_several_are_ejected() {
        for (count, expected) in [(2, 1), (3, 1), (4, 2), (5, 2), (9, 4)] {
            let mut world = World::new(count);
            let ejected = (0..count).filter(|&index| world.fail(index, 5).is_some()).count();
            assert_eq!(ejected, expected, "of {count}");
            assert_eq!(world.available().len(), count - expected);
        }
    }

    #[test]
    fn an_endpoint_that_is_down_takes_room_from_ejections() {
        let mut world = World::new(3);
        world.probes(0, "---");
        assert_eq!(world.fail(1, 5), None);
        world.probes(0, "++");
        assert_eq!(world.fail(1, 1), Some(10));
    }

    #[test]
    fn probes_take_out_after_fall_and_bring_back_after_rise() {
        let table = [
            ("--", None),
            ("---", Some(Turn::Down)),
            ("--+--", None),
            ("--+---", Some(Turn::Down)),
            ("---+", None),
            ("---++", Some(Turn::Up)),
            ("---+-+", None),
            ("---+-++", Some(Turn::Up)),
            ("---++--", None),
            ("+++++", None),
        ];
        for (script, expected) in table {
            let mut world = World::new(2);
            assert_eq!(world.probes(1, script), expected, "{script}");
        }
    }

    #[test]
    fn who_comes_back_takes_part_more_and_more() {
        let share = |world: &World, index: usize| {
            let draws = (0..1000_u64).map(|draw| draw.wrapping_mul(0x2545_f491_4f6c_dd1d));
            draws.filter(|drawn| world.health.takes_part(index, world.now, *drawn)).count()
        };
        let mut ejected = World::new(2);
        assert_eq!((share(&ejected, 0), share(&ejected, 1)), (1000, 1000), "at the start all are warm");
        ejected.fail(0, 5);
        ejected.now += 10 * SECOND;
        let mut probed = World::new(2);
        probed.probes(0, "---++");
        for mut world in [ejected, probed] {
            for (seconds, expected) in [(0, 100), (10, 400), (10, 700), (10, 1000), (100, 1000)] {
                world.now += seconds * SECOND;
                let share = share(&world, 0);
                assert!(share.abs_diff(expected) <= 40, "{share} of a thousand, not {expected}");
            }
            assert_eq!(share(&world, 1), 1000, "the other was never out");
        }
    }

    #[test]
    fn probes_may_take_out_all_of_several() {
        let mut world = World::new(2);
        world.probes(0, "---");
        world.probes(1, "---");
        assert_eq!(world.available(), [0; 0]);
    }

    #[test]
    fn an_index_beyond_the_endpoints_is_harmless() {
        let mut world = World::new(1);
        assert_eq!(world.fail(7, 100), None);
        assert_eq!(world.probes(7, "---"), None);
        assert!(!world.health.is_available(7, world.now));
    }

    proptest! {
        #[test]
        fn requests_alone_never_eject_more_than_half(
            count in 1_usize..8,
            steps in prop::collection::vec((0_usize..8, 0..5_u32, 0_u32..20), 1..300),
        ) {
            let mut world = World::new(count);
            for (index, ok, seconds) in steps {
                let outcome = if ok == 0 { Outcome::Ok } else { Outcome::Broken };
                world.health.record(index, outcome, world.now);
                let out = count - world.available().len();
                prop_assert!(out <= count / 2, "{out} of {count}");
                world.now += seconds * SECOND / 4;
            }
        }
    }
}
