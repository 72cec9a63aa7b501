//! Runs the model against any admission policy in virtual time: an hour passes in milliseconds and a seed replays
//! it. The policy stands where a proxy would: it sees each request before the box does and may send, hold or
//! refuse it.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use crate::sim::backend::{Backend, Ending};
use crate::sim::dice::{Dice, Weighted};
use crate::sim::profile::{Mix, Operation};

/// What stands before the box. Any `FnMut(Instant, Operation) -> Verdict` is one that never holds.
pub trait Admission {
    /// A request arrives.
    fn arrive(&mut self, now: Instant, id: u64, operation: Operation) -> Verdict;

    /// The box has ended a request that was sent.
    fn ended(&mut self, _now: Instant, _id: u64, _ending: Ending) {}

    /// The client of a request, held or sent, has left; one that was sent still ends at the box later.
    fn left(&mut self, _now: Instant, _id: u64) {}

    /// The next held request to send or refuse now; asked after each step until it gives `None`. A request whose
    /// client has left ([`Admission::left`]) is not to be named any more: it would be skipped, and never `ended`.
    fn release(&mut self, _now: Instant) -> Option<(u64, Verdict)> {
        None
    }

    /// When [`Admission::release`] should be asked again even if nothing happens.
    fn wake(&self) -> Option<Instant> {
        None
    }
}

/// What is done with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It goes to the box now.
    Send,
    /// It waits until [`Admission::release`] names it.
    Hold,
    /// It is answered with a refusal.
    Refuse,
}

/// One request of a [`schedule`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// When it arrives, from the start of the run.
    pub at: Duration,
    /// What it asks for.
    pub operation: Operation,
}

/// What became of the requests.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Run {
    /// Requests that arrived.
    pub offered: u64,
    /// Answered while the client was still there.
    pub ok: u64,
    /// Refused by the policy.
    pub refused: u64,
    /// Error pages and broken connections from the box.
    pub errors: u64,
    /// Clients that left without an answer.
    pub timeouts: u64,
    /// What each answered client waited, shortest first.
    pub waits: Vec<Duration>,
    /// From the start until the last request had ended everywhere.
    pub took: Duration,
}

/// Lets `arrivals` (in the order of time) run against `backend` behind `policy`, starting at `start`. Clients leave
/// after `patience`. Returns when everything has ended, also at the box; requests that the policy holds for ever
/// end when their clients leave.
pub fn drive(
    backend: &mut Backend,
    start: Instant,
    arrivals: impl IntoIterator<Item = Arrival>,
    patience: Duration,
    policy: &mut impl Admission,
) -> Run {
    let mut arrivals = arrivals.into_iter().enumerate().peekable();
    let mut driver =
        Driver { backend, policy, patience, clients: BTreeMap::new(), leaving: VecDeque::new(), run: Run::default() };
    let mut now = start;
    loop {
        let arrival = arrivals.peek().map(|(_, arrival)| start + arrival.at);
        let Some(next) = [arrival, driver.next_event()].into_iter().flatten().min() else {
            break;
        };
        now = now.max(next);
        driver.step(now);
        if let Some((id, arrival)) = arrivals.next_if(|(_, arrival)| start + arrival.at <= now) {
            driver.arrive(now, id as u64, arrival.operation);
        }
        driver.release(now);
    }
    driver.run.took = now - start;
    driver.run.waits.sort_unstable();
    driver.run
}

/// A Poisson stream of `rate` requests per second for `length`.
pub fn schedule(seed: u64, rate: f64, length: Duration, mix: &Mix) -> impl Iterator<Item = Arrival> + use<> {
    let mut dice = Dice::new(seed);
    let choice = Weighted::new(Operation::ALL.map(|operation| mix.weight(operation)));
    let mut at = 0.0;
    std::iter::from_fn(move || {
        at += dice.exponential() / rate;
        let operation = Operation::ALL.get(choice.choose(dice.unit()))?;
        (at < length.as_secs_f64()).then(|| Arrival { at: Duration::from_secs_f64(at), operation: *operation })
    })
}

impl Run {
    /// Answers in time per second of `length`.
    pub fn goodput(&self, length: Duration) -> f64 {
        self.ok as f64 / length.as_secs_f64()
    }

    /// What `share` (0 to 1) of the answered clients waited at most; zero if nobody was answered.
    pub fn quantile(&self, share: f64) -> Duration {
        let last = self.waits.len().saturating_sub(1);
        self.waits.get((last as f64 * share.clamp(0.0, 1.0)).round() as usize).copied().unwrap_or_default()
    }
}

impl<F: FnMut(Instant, Operation) -> Verdict> Admission for F {
    fn arrive(&mut self, now: Instant, _id: u64, operation: Operation) -> Verdict {
        self(now, operation)
    }
}

struct Driver<'a, P> {
    backend: &'a mut Backend,
    policy: &'a mut P,
    patience: Duration,
    /// Clients that still wait.
    clients: BTreeMap<u64, Caller>,
    /// In the order in which they will leave; those answered meanwhile are skipped.
    leaving: VecDeque<(Instant, u64)>,
    run: Run,
}

struct Caller {
    since: Instant,
    operation: Operation,
}

impl<P: Admission> Driver<'_, P> {
    fn next_event(&mut self) -> Option<Instant> {
        while self.leaving.front().is_some_and(|(_, id)| !self.clients.contains_key(id)) {
            self.leaving.pop_front();
        }
        // A policy's timer means nothing once nobody waits any more.
        let wake = if self.clients.is_empty() { None } else { self.policy.wake() };
        let leave = self.leaving.front().map(|(at, _)| *at);
        [self.backend.next_event(), leave, wake].into_iter().flatten().min()
    }

    /// What the box has ended, then who leaves.
    fn step(&mut self, now: Instant) {
        for event in self.backend.advance(now) {
            self.policy.ended(now, event.id, event.ending);
            let Some(caller) = self.clients.remove(&event.id) else {
                continue;
            };
            match event.ending {
                Ending::Answered => {
                    self.run.ok += 1;
                    self.run.waits.push(event.at - caller.since);
                }
                Ending::Failed | Ending::TurnedAway | Ending::Reset => self.run.errors += 1,
            }
        }
        while let Some((_, id)) = self.leaving.pop_front_if(|(at, _)| *at <= now) {
            if self.clients.remove(&id).is_some() {
                self.run.timeouts += 1;
                self.backend.depart(now, id);
                self.policy.left(now, id);
            }
        }
    }

    fn arrive(&mut self, now: Instant, id: u64, operation: Operation) {
        self.run.offered += 1;
        self.clients.insert(id, Caller { since: now, operation });
        self.leaving.push_back((now + self.patience, id));
        let verdict = self.policy.arrive(now, id, operation);
        self.apply(now, id, operation, verdict);
    }

    fn release(&mut self, now: Instant) {
        while let Some((id, verdict)) = self.policy.release(now) {
            // Somebody who left is not sent: there is no operation to send any more.
            let Some(operation) = self.clients.get(&id).map(|caller| caller.operation) else {
                continue;
            };
            self.apply(now, id, operation, verdict);
        }
    }

    fn apply(&mut self, now: Instant, id: u64, operation: Operation, verdict: Verdict) {
        match verdict {
            Verdict::Send => self.backend.arrive(now, id, operation),
            Verdict::Hold => {}
            Verdict::Refuse => {
                self.clients.remove(&id);
                self.run.refused += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::sim::profile::Profile;

    const LENGTH: Duration = Duration::from_secs(30);
    const PATIENCE: Duration = Duration::from_secs(2);

    /// So many in the box, the rest refused.
    struct Slots {
        free: usize,
    }

    impl Admission for Slots {
        fn arrive(&mut self, _now: Instant, _id: u64, _operation: Operation) -> Verdict {
            match self.free.checked_sub(1) {
                Some(free) => {
                    self.free = free;
                    Verdict::Send
                }
                None => Verdict::Refuse,
            }
        }

        fn ended(&mut self, _now: Instant, _id: u64, _ending: Ending) {
            self.free += 1;
        }
    }

    /// So many in the box, the rest held in one line.
    struct Line {
        free: usize,
        held: VecDeque<u64>,
    }

    impl Admission for Line {
        fn arrive(&mut self, _now: Instant, id: u64, _operation: Operation) -> Verdict {
            self.held.push_back(id);
            Verdict::Hold
        }

        fn ended(&mut self, _now: Instant, _id: u64, _ending: Ending) {
            self.free += 1;
        }

        fn left(&mut self, _now: Instant, id: u64) {
            self.held.retain(|held| *held != id);
        }

        fn release(&mut self, _now: Instant) -> Option<(u64, Verdict)> {
            self.free = self.free.checked_sub(usize::from(!self.held.is_empty()))?;
            self.held.pop_front().map(|id| (id, Verdict::Send))
        }
    }

    fn open(_now: Instant, _operation: Operation) -> Verdict {
        Verdict::Send
    }

    /// The model at `load` times its capacity.
    fn run(load: f64, seed: u64, policy: &mut impl Admission) -> (Run, Backend) {
        let profile = Profile { crash_after: None, ..Profile::default() };
        let rate = load * profile.capacity(&Mix::default());
        let start = Clock::system().now();
        let mut backend = Backend::new(profile, seed, start);
        let arrivals = schedule(seed, rate, LENGTH, &Mix::default());
        let run = drive(&mut backend, start, arrivals, PATIENCE, policy);
        assert_eq!(run.offered, run.ok + run.refused + run.errors + run.timeouts, "{run:?}");
        (run, backend)
    }

    /// Goodput as a share of the capacity.
    fn share(run: &Run) -> f64 {
        run.goodput(LENGTH) / Profile::default().capacity(&Mix::default())
    }

    #[test]
    fn below_the_knee_the_box_serves_nearly_everything() {
        for seed in 1..=5 {
            let (run, backend) = run(0.7, seed, &mut open);
            assert!(run.ok as f64 > 0.98 * run.offered as f64, "{run:?}");
            assert!(run.quantile(0.5) < Duration::from_millis(80), "{:?}", run.quantile(0.5));
            assert!(backend.stats().max_working <= 8);
        }
    }

    #[test]
    fn beyond_the_knee_goodput_collapses() {
        let mut last = f64::INFINITY;
        for load in [0.7, 1.5, 3.0] {
            let (run, backend) = run(load, 1, &mut open);
            let share = share(&run);
            assert!(share < last, "{load}: more asked, less given ({share} after {last})");
            assert!(load < 1.0 || share < 0.6, "{load}: {share}");
            assert!(load < 1.0 || backend.stats().wasted > run.ok, "most of the work is for clients that left");
            last = share;
        }
    }

    #[test]
    fn slots_before_the_box_keep_its_goodput_at_three_times_the_load() {
        for seed in 1..=5 {
            let (refusing, backend) = run(3.0, seed, &mut Slots { free: 8 });
            assert!(share(&refusing) > 0.9, "{}", share(&refusing));
            assert_eq!((backend.stats().max_working, backend.stats().max_present), (8, 8));

            let (holding, backend) = run(0.9, seed, &mut Line { free: 8, held: VecDeque::new() });
            assert!(holding.ok as f64 > 0.95 * holding.offered as f64, "{} of {}", holding.ok, holding.offered);
            assert_eq!(backend.stats().max_present, 8);
        }
    }

    #[test]
    fn the_default_box_crashes_under_three_times_its_load_and_a_seed_replays_it() {
        let play = || {
            let profile = Profile::default();
            let rate = 3.0 * profile.capacity(&Mix::default());
            let start = Clock::system().now();
            let mut backend = Backend::new(profile, 9, start);
            let run = drive(&mut backend, start, schedule(9, rate, LENGTH, &Mix::default()), PATIENCE, &mut open);
            (run, backend.stats())
        };
        let (run, stats) = play();
        assert!(stats.crashes >= 2, "{stats:?}");
        assert!(share(&run) < 0.6, "{}", share(&run));
        assert_eq!(play(), (run, stats));
    }
}
