//! Adaptive limits before the seeded model of a fragile backend, in virtual time.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use super::learned::{Baseline, Kind, Learned};
use super::{AdaptiveParams, Ending, Limit, Policy, Sample};
use crate::clock::Clock;
use crate::refusal::Mode;
use crate::sim::backend::{self, Backend};
use crate::sim::drive::{Admission, Verdict, drive, schedule};
use crate::sim::profile::{Mix, Operation, Profile};

/// A limit, and a line before it.
struct Gate {
    limit: Limit,
    line: VecDeque<(u64, Operation, Instant)>,
    sent: BTreeMap<u64, Sent>,
    /// Slot time there was, and that there was for.
    area: f64,
    since: Instant,
    begun: Instant,
    trace: Vec<(Duration, u32)>,
    /// Everything is one kind of work.
    blind: bool,
}

struct Sent {
    operation: Operation,
    began: Instant,
    in_flight: u32,
    left: bool,
}

impl Gate {
    fn new(params: AdaptiveParams, start: u32, now: Instant) -> Self {
        Self {
            limit: Limit::new(params, start, now),
            line: VecDeque::new(),
            sent: BTreeMap::new(),
            area: 0.0,
            since: now,
            begun: now,
            trace: Vec::new(),
            blind: false,
        }
    }

    /// The mean of the suggested limit since the last call.
    fn mean(&mut self, now: Instant) -> f64 {
        self.account(now);
        let mean = self.area / (now - self.begun).as_secs_f64();
        (self.area, self.begun) = (0.0, now);
        mean
    }

    fn account(&mut self, now: Instant) {
        self.area += f64::from(self.limit.suggested()) * now.saturating_duration_since(self.since).as_secs_f64();
        self.since = now;
    }
}

impl Admission for Gate {
    fn arrive(&mut self, now: Instant, id: u64, operation: Operation) -> Verdict {
        self.line.push_back((id, operation, now));
        Verdict::Hold
    }

    fn ended(&mut self, now: Instant, id: u64, ending: backend::Ending) {
        let Some(sent) = self.sent.remove(&id) else { return };
        let ending = match ending {
            backend::Ending::TurnedAway => Ending::Dropped,
            backend::Ending::Answered if !sent.left => Ending::Success,
            _ => Ending::Ignored,
        };
        let operation = if self.blind { 0 } else { sent.operation as u64 };
        let sample = Sample { operation, began: sent.began, took: now - sent.began, in_flight: sent.in_flight, ending };
        self.account(now);
        if let Some(shift) = self.limit.record(&sample, now) {
            self.trace.push((now - self.begun, shift.to));
        }
    }

    fn left(&mut self, _now: Instant, id: u64) {
        self.line.retain(|(held, ..)| *held != id);
        if let Some(sent) = self.sent.get_mut(&id) {
            sent.left = true;
        }
    }

    fn release(&mut self, now: Instant) -> Option<(u64, Verdict)> {
        if let Some((id, ..)) = self.line.pop_front_if(|(.., since)| now - *since > Duration::from_secs(1)) {
            return Some((id, Verdict::Refuse));
        }
        if self.sent.len() >= self.limit.in_force() as usize {
            return None;
        }
        let (id, operation, _) = self.line.pop_front()?;
        let in_flight = self.sent.len() as u32 + 1;
        self.sent.insert(id, Sent { operation, began: now, in_flight, left: false });
        Some((id, Verdict::Send))
    }
}

/// A backend behind a limit.
struct Plant {
    backend: Backend,
    gate: Gate,
    now: Instant,
    seed: u64,
    mix: Mix,
}

impl Plant {
    fn new(profile: Profile, params: AdaptiveParams, start: u32, seed: u64) -> Self {
        let now = Clock::system().now();
        let backend = Backend::new(profile, seed, now);
        Self { backend, gate: Gate::new(params, start, now), now, seed, mix: Mix::default() }
    }

    /// Offers `load` times what the backend can do for `seconds`; the mean limit meanwhile.
    fn run(&mut self, load: f64, seconds: u64) -> f64 {
        self.seed += 1000;
        let rate = load * self.backend.profile().capacity(&self.mix);
        let arrivals = schedule(self.seed, rate, Duration::from_secs(seconds), &self.mix);
        let run = drive(&mut self.backend, self.now, arrivals, Duration::from_secs(30), &mut self.gate);
        self.now += run.took;
        self.gate.mean(self.now)
    }
}

const GRADIENT: AdaptiveParams = AdaptiveParams { policy: Policy::Gradient, min: 1, max: 60, mode: Mode::Enforce };

fn profile(processes: usize) -> Profile {
    Profile { processes, ..Profile::default() }
}

/// The mean limit lies within 15 % of the knee.
#[track_caller]
fn near(found: f64, knee: f64, what: &str) {
    assert!((found / knee - 1.0).abs() <= 0.15, "{what}: {found:.2} instead of {knee}");
}

const SEEDS: std::ops::Range<u64> = 1..3;

#[test]
fn it_finds_the_knee_from_too_few_and_from_too_many() {
    for seed in SEEDS {
        for (processes, start) in [(8, 2), (8, 40), (20, 2), (20, 60)] {
            let mut plant = Plant::new(profile(processes), GRADIENT, start, seed);
            plant.run(1.5, 60);
            near(plant.run(1.5, 60), processes as f64, &format!("seed {seed}, from {start}"));
            assert_eq!(plant.backend.stats().crashes, 0);
        }
    }
}

#[test]
fn it_follows_a_capacity_that_halves_and_returns() {
    for seed in SEEDS {
        let mut plant = Plant::new(profile(16), GRADIENT, 16, seed);
        for processes in [16, 8, 16] {
            plant.backend.resize(plant.now, processes);
            plant.run(1.5, 30);
            near(plant.run(1.5, 60), processes as f64, &format!("seed {seed}"));
        }
    }
}

#[test]
fn a_backend_that_gets_slower_by_itself_keeps_its_slots() {
    for seed in SEEDS {
        let mut plant = Plant::new(profile(12), GRADIENT, 12, seed);
        plant.run(1.5, 30);
        for factor in [3.0, 1.0] {
            plant.backend.slow(plant.now, factor);
            plant.run(1.5, 30);
            near(plant.run(1.5, 60), 12.0, &format!("seed {seed}, {factor} times slower"));
        }
    }
}

#[test]
fn it_does_not_drift_under_mild_overload() {
    let mut plant = Plant::new(profile(12), GRADIENT, 12, 1);
    plant.run(1.1, 60);
    for minutes in 0..5 {
        near(plant.run(1.1, 180), 12.0, &format!("after three times {minutes} minutes"));
    }
}

#[test]
fn slow_reports_do_not_look_like_overload() {
    for seed in SEEDS {
        let mut plant = Plant::new(profile(12), GRADIENT, 12, seed);
        plant.run(1.5, 60);
        for report in [30.0, 1.0] {
            plant.mix = Mix { report, ..Mix::default() };
            near(plant.run(1.5, 60), 12.0, &format!("seed {seed}, {report} % reports"));
        }
    }
}

#[test]
fn even_as_one_kind_of_work_slow_and_fast_operations_do_not_make_it_drift() {
    for seed in SEEDS {
        let mut plant = Plant::new(profile(12), GRADIENT, 12, seed);
        plant.gate.blind = true;
        plant.mix = Mix { report: 10.0, ..Mix::default() };
        plant.run(1.5, 60);
        near(plant.run(1.5, 200), 12.0, &format!("seed {seed}"));
    }
}

#[test]
fn without_need_it_learns_nothing_upwards() {
    for seed in SEEDS {
        let mut plant = Plant::new(profile(20), GRADIENT, 12, seed);
        plant.run(0.2, 120);
        assert!(plant.gate.trace.iter().all(|(_, slots)| *slots <= 12), "{:?}", plant.gate.trace);
    }
}

#[test]
fn a_shadow_sees_the_knee_from_near_errs_to_the_careful_side_from_afar_and_changes_nothing() {
    for seed in SEEDS {
        for (slots, low, high) in [(15, 10, 13), (24, 8, 12)] {
            let mut plant = Plant::new(profile(12), AdaptiveParams { mode: Mode::Shadow, ..GRADIENT }, slots, seed);
            for _ in 0..3 {
                plant.run(0.4, 60);
                plant.run(1.5, 60);
            }
            let suggested = plant.gate.limit.suggested();
            assert!((low..=high).contains(&suggested), "seed {seed}: {suggested} of {slots}");
            assert_eq!(plant.gate.limit.in_force(), slots);
            assert_eq!(plant.backend.stats().max_present, slots as usize);
        }
    }
}

#[test]
fn aimd_keeps_to_what_the_backend_does_not_refuse() {
    for seed in SEEDS {
        for start in [2, 40] {
            let aimd = AdaptiveParams { policy: Policy::Aimd { slow: None }, ..GRADIENT };
            let mut plant = Plant::new(Profile { queue: 2, ..profile(12) }, aimd, start, seed);
            plant.run(1.5, 30);
            let before = plant.backend.stats();
            near(plant.run(1.5, 60), 14.0, &format!("seed {seed}, from {start}"));
            let (now, turned_away) = (plant.backend.stats(), plant.backend.stats().turned_away - before.turned_away);
            assert!(turned_away * 50 < now.answered - before.answered, "{turned_away}");
        }
    }
}

#[test]
fn it_gets_away_from_a_single_slot() {
    for seed in SEEDS {
        for processes in [2, 3, 6] {
            let mut plant = Plant::new(profile(processes), GRADIENT, 1, seed);
            plant.run(1.5, 90);
            let found = plant.run(1.5, 60);
            assert!(found > processes as f64 * 0.7, "seed {seed}: {found:.2} of {processes}");
        }
    }
}

#[test]
fn after_a_restart_it_goes_on_from_what_it_knew() {
    for seed in SEEDS {
        let mut before = Plant::new(profile(12), GRADIENT, 40, seed);
        before.run(1.5, 120);
        let learned = before.gate.limit.learned().unwrap();
        let mut after = Plant::new(profile(12), GRADIENT, 40, seed + 7);
        assert!(after.gate.limit.restore(&learned, after.now));
        near(after.run(1.5, 30), 12.0, &format!("seed {seed}, at once"));
        assert!(after.gate.trace.iter().all(|(_, slots)| *slots <= 16), "{:?}", after.gate.trace);
    }
}

#[test]
fn what_was_written_down_wrongly_is_unlearned() {
    for seed in SEEDS {
        for (slots, millis) in [(60.0, 1), (60.0, 60_000), (1.0, 1), (1.0, 60_000)] {
            let takes = Duration::from_millis(millis);
            let baselines = (0..4).map(|operation| Baseline { operation, takes, answers: 512 }).collect();
            let mut plant = Plant::new(profile(12), GRADIENT, 12, seed);
            assert!(plant.gate.limit.restore(&Learned { kind: Kind::Gradient, slots, baselines }, plant.now));
            plant.run(1.5, 90);
            near(plant.run(1.5, 60), 12.0, &format!("seed {seed}, {slots} slots and {takes:?}"));
        }
    }
}

#[test]
fn a_seed_replays_it() {
    let play = || {
        let mut plant = Plant::new(profile(8), GRADIENT, 30, 9);
        plant.run(1.5, 20);
        plant.gate.trace
    };
    let trace = play();
    assert!(trace.len() > 5 && trace == play());
}
