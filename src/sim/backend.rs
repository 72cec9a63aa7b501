//! A pure model of a fragile legacy box: a few work processes, a dispatcher queue, and everything that goes wrong
//! with them. Sans I/O: time comes in as `now`, what happens comes out of [`Backend::advance`], and the next
//! instant at which something happens out of [`Backend::next_event`]. The same seed and the same calls give the
//! same events.
//!
//! ```text
//!            turned away (queue full)          answered | failed
//!           /                                 /
//! arrive ──┴─► waiting (dispatcher) ──► working (one work process each)
//!                       └───────────────────┴──────► reset (crash, reset of the box)
//! ```
//! What makes it fragile:
//! - **Thrashing.** A crowd slows down every process, so that throughput *falls* as more is asked of it.
//! - **Work outlives its client.** [`Backend::depart`] frees nothing; the process computes on for nobody.
//! - **Crash.** A queue that stays nearly full takes the whole box down; it comes back late and cold.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::time::{Duration, Instant};

use crate::sim::dice::Dice;
use crate::sim::profile::{Operation, Profile};

/// The box. Ids belong to the caller and must be unique among those present.
#[derive(Debug)]
pub struct Backend {
    profile: Profile,
    dice: Dice,
    phase: Phase,
    /// Instant of the latest thing that happened; time never runs backwards.
    time: Instant,
    waiting: VecDeque<Session>,
    working: BinaryHeap<Reverse<Work>>,
    /// Everybody present, and whether their client is still there.
    clients: BTreeMap<u64, Client>,
    /// Since when the queue has been nearly full.
    drowning: Option<Instant>,
    /// An operator's hand on the scales.
    slowdown: f64,
    /// Replaces the profile's error rate.
    error_rate: Option<f64>,
    /// Order in which work was begun: breaks ties between ends at the same instant.
    begun: u64,
    ended: Vec<Event>,
    stats: Stats,
}

/// How one arrival ended. Every arrival ends exactly once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// When.
    pub at: Instant,
    /// The id it arrived with.
    pub id: u64,
    /// How.
    pub ending: Ending,
    /// Whether the client had left before.
    pub abandoned: bool,
}

/// The ways a session ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ending {
    /// The work was done.
    Answered,
    /// The work ended in an error page (500) after its whole service time.
    Failed,
    /// The dispatcher queue was full: an error page (503) at once.
    TurnedAway,
    /// The box is down, or went down during the work: the connection breaks.
    Reset,
}

/// What the box counted itself. Counts are since the start or the last [`Backend::reset`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Sessions that arrived.
    pub arrived: u64,
    /// Ended with an answer.
    pub answered: u64,
    /// Ended with an error page after the work.
    pub failed: u64,
    /// Turned away by a full dispatcher queue.
    pub turned_away: u64,
    /// Ended with a broken connection.
    pub reset: u64,
    /// Of those answered or failed: work done for a client that had left.
    pub wasted: u64,
    /// Times the box went down.
    pub crashes: u64,
    /// Working now.
    pub working: usize,
    /// Waiting or working now.
    pub present: usize,
    /// Of those present: their client has left.
    pub abandoned: usize,
    /// Most that ever worked at the same time.
    pub max_working: usize,
    /// Most that were ever present at the same time.
    pub max_present: usize,
    /// Whether the box is down now.
    pub down: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Client {
    Here,
    Gone,
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    /// Running; so many answers are still slow after a restart.
    Up {
        cold_answers: u32,
    },
    Down {
        until: Instant,
    },
}

#[derive(Debug)]
struct Session {
    id: u64,
    operation: Operation,
    /// Its service time relative to the mean, drawn on arrival.
    luck: f64,
    /// Drawn on arrival: it fails if the error rate exceeds this.
    fate: f64,
}

/// Ordered by end, then by begin.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Work {
    end: Instant,
    begun: u64,
    id: u64,
    fails: bool,
}

/// What can happen by itself. At the same instant work ends first: an answer that is ready is not lost in a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    End,
    Crash,
    Restart,
}

impl Backend {
    /// A warm, idle box at `now`.
    pub fn new(profile: Profile, seed: u64, now: Instant) -> Self {
        Self {
            profile,
            dice: Dice::new(seed),
            phase: Phase::Up { cold_answers: 0 },
            time: now,
            waiting: VecDeque::new(),
            working: BinaryHeap::new(),
            clients: BTreeMap::new(),
            drowning: None,
            slowdown: 1.0,
            error_rate: None,
            begun: 0,
            ended: Vec::new(),
            stats: Stats::default(),
        }
    }

    /// A session arrives. How it ends comes out of [`Backend::advance`], possibly at once.
    pub fn arrive(&mut self, now: Instant, id: u64, operation: Operation) {
        self.run(now);
        self.stats.arrived += 1;
        // Drawn whatever happens, so that one arrival's chance does not depend on the fate of another.
        let luck = self.dice.log_normal(self.profile.spread);
        let fate = self.dice.unit();
        let taken = self.clients.insert(id, Client::Here);
        debug_assert!(taken.is_none(), "session {id} is already present");
        if matches!(self.phase, Phase::Down { .. }) {
            self.end(id, Ending::Reset);
        } else if self.working.len() >= self.profile.processes && self.waiting.len() >= self.profile.queue {
            self.end(id, Ending::TurnedAway);
        } else {
            self.stats.max_present = self.stats.max_present.max(self.clients.len());
            self.waiting.push_back(Session { id, operation, luck, fate });
            self.dispatch();
        }
    }

    /// The client of `id` has left. The box does not notice: the session waits and works on, and ends as it would
    /// have. Unknown ids are ignored.
    pub fn depart(&mut self, now: Instant, id: u64) {
        self.run(now);
        if let Some(client) = self.clients.get_mut(&id) {
            *client = Client::Gone;
        }
    }

    /// Lets time pass until `now` and hands out what ended since the last call, in order.
    pub fn advance(&mut self, now: Instant) -> Vec<Event> {
        self.run(now);
        std::mem::take(&mut self.ended)
    }

    /// Takes the box down at once; it restarts by itself.
    pub fn crash(&mut self, now: Instant) {
        self.run(now);
        if matches!(self.phase, Phase::Up { .. }) {
            self.go_down();
        }
    }

    /// Makes all work begun from now on `factor` times slower; 1 is normal.
    pub fn slow(&mut self, now: Instant, factor: f64) {
        self.run(now);
        self.slowdown = factor.max(0.0);
    }

    /// Gives the box so many work processes; those at work finish what they do.
    pub fn resize(&mut self, now: Instant, processes: usize) {
        self.run(now);
        self.profile.processes = processes.max(1);
        self.dispatch();
    }

    /// Replaces the error rate for all work begun from now on; `None` is the profile's.
    pub fn fail(&mut self, now: Instant, rate: Option<f64>) {
        self.run(now);
        self.error_rate = rate;
    }

    /// A warm, idle box with all counts at zero. Everybody present is cut off.
    pub fn reset(&mut self, now: Instant) {
        self.run(now);
        self.cut_off();
        self.phase = Phase::Up { cold_answers: 0 };
        self.slowdown = 1.0;
        self.error_rate = None;
        self.stats = Stats::default();
    }

    /// When something happens next by itself; `None` while the box is idle.
    pub fn next_event(&self) -> Option<Instant> {
        if self.ended.is_empty() { self.next_due().map(|(at, _)| at) } else { Some(self.time) }
    }

    /// What the box counted.
    pub fn stats(&self) -> Stats {
        Stats {
            working: self.working.len(),
            present: self.clients.len(),
            abandoned: self.clients.values().filter(|client| **client == Client::Gone).count(),
            down: matches!(self.phase, Phase::Down { .. }),
            ..self.stats
        }
    }

    /// What the box is like.
    pub const fn profile(&self) -> &Profile {
        &self.profile
    }

    /// Does everything that is due up to `now`, each at its own instant.
    fn run(&mut self, now: Instant) {
        while let Some((at, due)) = self.next_due()
            && at <= now
        {
            self.time = self.time.max(at);
            match due {
                Due::End => self.end_work(),
                Due::Crash => self.go_down(),
                Due::Restart => self.phase = Phase::Up { cold_answers: self.profile.cold_answers },
            }
        }
        self.time = self.time.max(now);
    }

    fn next_due(&self) -> Option<(Instant, Due)> {
        let end = self.working.peek().map(|Reverse(work)| (work.end, Due::End));
        let crash = self.drowning.zip(self.profile.crash_after).map(|(since, after)| (since + after, Due::Crash));
        let restart = match self.phase {
            Phase::Down { until } => Some((until, Due::Restart)),
            Phase::Up { .. } => None,
        };
        [end, crash, restart].into_iter().flatten().min()
    }

    fn end_work(&mut self) {
        if let Some(Reverse(work)) = self.working.pop() {
            self.end(work.id, if work.fails { Ending::Failed } else { Ending::Answered });
            self.dispatch();
        }
    }

    /// Gives free processes to those who wait, first come first served, and watches the queue.
    fn dispatch(&mut self) {
        while self.working.len() < self.profile.processes
            && let Some(session) = self.waiting.pop_front()
        {
            self.begin(&session);
        }
        let nearly_full = self.profile.crash_fill * self.profile.queue as f64;
        self.drowning = if !self.waiting.is_empty() && self.waiting.len() as f64 >= nearly_full {
            self.drowning.or(Some(self.time))
        } else {
            None
        };
    }

    fn begin(&mut self, session: &Session) {
        let strain = self.strain();
        let mean = self.profile.service.as_secs_f64() * self.profile.cost(session.operation);
        let service = mean * session.luck * strain * self.warm_up() * self.slowdown;
        let error_rate = match self.error_rate {
            Some(rate) => rate,
            // Errors multiply under strain, but one half still succeeds.
            None => (self.profile.error_rate * strain).min(0.5),
        };
        self.begun += 1;
        self.working.push(Reverse(Work {
            end: self.time + Duration::from_secs_f64(service.min(LONGEST_SERVICE)),
            begun: self.begun,
            id: session.id,
            fails: session.fate < error_rate,
        }));
        self.stats.max_working = self.stats.max_working.max(self.working.len());
    }

    /// By how much the crowd slows down each process: 1 + thrash·e², e = sessions beyond the processes, per process.
    fn strain(&self) -> f64 {
        let beyond = self.clients.len().saturating_sub(self.profile.processes) as f64;
        let excess = beyond / self.profile.processes.max(1) as f64;
        1.0 + self.profile.thrash * excess * excess
    }

    /// By how much cold buffers slow down this piece of work; wears off linearly with each.
    fn warm_up(&mut self) -> f64 {
        let Phase::Up { cold_answers } = &mut self.phase else {
            return 1.0;
        };
        if *cold_answers == 0 {
            return 1.0;
        }
        let left = f64::from(*cold_answers) / f64::from(self.profile.cold_answers.max(1));
        *cold_answers -= 1;
        1.0 + (self.profile.cold - 1.0).max(0.0) * left
    }

    fn go_down(&mut self) {
        self.stats.crashes += 1;
        self.cut_off();
        self.phase = Phase::Down { until: self.time + self.profile.restart };
    }

    /// Ends everybody present, in the order of their ids.
    fn cut_off(&mut self) {
        self.working.clear();
        self.waiting.clear();
        self.drowning = None;
        while let Some(id) = self.clients.first_key_value().map(|(id, _)| *id) {
            self.end(id, Ending::Reset);
        }
    }

    fn end(&mut self, id: u64, ending: Ending) {
        let abandoned = self.clients.remove(&id) == Some(Client::Gone);
        let stats = &mut self.stats;
        match ending {
            Ending::Answered => stats.answered += 1,
            Ending::Failed => stats.failed += 1,
            Ending::TurnedAway => stats.turned_away += 1,
            Ending::Reset => stats.reset += 1,
        }
        if abandoned && matches!(ending, Ending::Answered | Ending::Failed) {
            stats.wasted += 1;
        }
        self.ended.push(Event { at: self.time, id, ending, abandoned });
    }
}

/// Seconds. Keeps absurd knobs (a slowdown of 1e300) within what a duration can hold.
const LONGEST_SERVICE: f64 = 86_400.0;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::clock::Clock;

    /// No chance at all: every catalogue read takes exactly 40 ms on a calm box.
    fn even() -> Profile {
        Profile { spread: 0.0, error_rate: 0.0, ..Profile::default() }
    }

    fn millis(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    /// Lets the box run until it is idle.
    fn finish(backend: &mut Backend) -> Vec<Event> {
        let mut events = Vec::new();
        while let Some(at) = backend.next_event() {
            events.extend(backend.advance(at));
        }
        events
    }

    #[test]
    fn one_more_than_the_processes_waits_for_the_first_to_end() {
        let start = Clock::system().now();
        let mut backend = Backend::new(Profile { thrash: 0.0, ..even() }, 1, start);
        for id in 0..9 {
            backend.arrive(start, id, Operation::Catalog);
        }
        assert_eq!((backend.stats().working, backend.stats().present), (8, 9));
        let events = finish(&mut backend);
        let ends: Vec<_> = events.iter().map(|event| (event.id, event.at - start)).collect();
        assert_eq!(ends[..2], [(0, millis(40)), (1, millis(40))]);
        assert_eq!(ends[8], (8, millis(80)));
        assert_eq!(backend.stats().max_working, 8);
    }

    #[test]
    fn a_crowd_slows_everybody_down_quadratically() {
        let check = |present: u64, expected: Duration| {
            let start = Clock::system().now();
            let mut backend = Backend::new(Profile { processes: 1, thrash: 0.5, ..even() }, 1, start);
            // The box is busy while the crowd gathers; what begins after 40 ms finds it there.
            for id in 0..=present {
                backend.arrive(start, id, Operation::Catalog);
            }
            let ends: Vec<_> = finish(&mut backend).iter().map(|event| event.at - start).collect();
            assert_eq!(ends[0], millis(40));
            assert_eq!(ends[1] - ends[0], expected, "{present} present");
        };
        check(1, millis(40));
        check(2, millis(60)); // e = 1: 1 + 0.5·1
        check(3, millis(120)); // e = 2: 1 + 0.5·4
    }

    #[test]
    fn work_goes_on_after_its_client_has_left() {
        let start = Clock::system().now();
        let mut backend = Backend::new(even(), 1, start);
        backend.arrive(start, 7, Operation::Catalog);
        backend.depart(start + millis(1), 7);
        backend.depart(start + millis(1), 99);
        assert_eq!((backend.stats().working, backend.stats().abandoned), (1, 1));
        let events = finish(&mut backend);
        assert_eq!(events, [Event { at: start + millis(40), id: 7, ending: Ending::Answered, abandoned: true }]);
        assert_eq!((backend.stats().wasted, backend.stats().abandoned), (1, 0));
    }

    #[test]
    fn a_full_queue_turns_away_at_once() {
        let start = Clock::system().now();
        let mut backend = Backend::new(Profile { processes: 1, queue: 2, ..even() }, 1, start);
        for id in 0..4 {
            backend.arrive(start, id, Operation::Catalog);
        }
        assert_eq!(backend.next_event(), Some(start));
        let [event] = backend.advance(start)[..] else { panic!("exactly one is turned away") };
        assert_eq!((event.id, event.ending, event.at), (3, Ending::TurnedAway, start));
    }

    #[test]
    fn a_queue_full_for_too_long_crashes_the_box_which_comes_back_cold() {
        let start = Clock::system().now();
        let profile = Profile {
            processes: 1,
            queue: 1,
            crash_after: Some(millis(30)),
            restart: millis(500),
            cold: 5.0,
            cold_answers: 4,
            ..even()
        };
        let mut backend = Backend::new(profile, 1, start);
        backend.arrive(start, 0, Operation::Catalog);
        backend.arrive(start, 1, Operation::Catalog);
        let events = backend.advance(start + millis(35));
        assert!(events.iter().all(|event| event.ending == Ending::Reset && event.at == start + millis(30)));
        assert_eq!((events.len(), backend.stats().crashes, backend.stats().down), (2, 1, true));

        backend.arrive(start + millis(40), 2, Operation::Catalog);
        assert_eq!(backend.advance(start + millis(40))[0].ending, Ending::Reset);
        assert_eq!(backend.next_event(), Some(start + millis(530)));

        let mut now = start + millis(600);
        let mut took = Vec::new();
        for id in 3..8 {
            backend.arrive(now, id, Operation::Catalog);
            let end = backend.next_event().unwrap();
            backend.advance(end);
            took.push(end - now);
            now = end;
        }
        assert_eq!(took, [200, 160, 120, 80, 40].map(millis), "five times slower, then less and less");
    }

    #[test]
    fn a_short_crowd_does_not_crash_it() {
        let start = Clock::system().now();
        let profile = Profile { processes: 1, queue: 1, crash_after: Some(millis(41)), ..even() };
        let mut backend = Backend::new(profile, 1, start);
        backend.arrive(start, 0, Operation::Catalog);
        backend.arrive(start, 1, Operation::Catalog);
        let events = finish(&mut backend);
        assert!(events.iter().all(|event| event.ending == Ending::Answered));
        assert_eq!(backend.stats().crashes, 0);
    }

    #[test]
    fn an_operator_can_break_and_mend_it() {
        let start = Clock::system().now();
        let mut backend = Backend::new(even(), 1, start);
        backend.slow(start, 3.0);
        backend.fail(start, Some(1.0));
        backend.arrive(start, 0, Operation::Catalog);
        assert_eq!(backend.next_event(), Some(start + millis(120)));
        assert_eq!(finish(&mut backend)[0].ending, Ending::Failed);

        let now = start + millis(200);
        backend.arrive(now, 1, Operation::Catalog);
        backend.crash(now);
        assert!(backend.stats().down);
        backend.reset(now);
        assert_eq!(backend.stats(), Stats::default());
        backend.arrive(now, 2, Operation::Catalog);
        let events = finish(&mut backend);
        assert_eq!(events.iter().map(|event| event.ending).collect::<Vec<_>>(), [Ending::Reset, Ending::Answered]);
        assert_eq!(events[1].at, now + millis(40), "warm and no longer slow");
    }

    #[derive(Debug, Clone)]
    enum Step {
        Arrive(Operation),
        Depart(u64),
        Wait(u64),
        Crash,
        Slow(f64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            12 => (0_usize..4).prop_map(|which| Step::Arrive(Operation::ALL[which])),
            3 => (0_u64..200).prop_map(Step::Depart),
            4 => (0_u64..60).prop_map(Step::Wait),
            1 => Just(Step::Crash),
            1 => (0.5..4.0_f64).prop_map(Step::Slow),
        ];
        proptest::collection::vec(step, 0..300)
    }

    /// Plays `steps`, checks the invariants after each, and returns everything that ended.
    fn play(steps: &[Step], seed: u64, start: Instant) -> Vec<Event> {
        let profile = Profile { processes: 3, queue: 10, crash_after: Some(millis(400)), ..Profile::default() };
        let mut backend = Backend::new(profile, seed, start);
        let (mut now, mut next, mut events) = (start, 0, Vec::new());
        for step in steps {
            match *step {
                Step::Arrive(operation) => {
                    backend.arrive(now, next, operation);
                    next += 1;
                }
                Step::Depart(id) => backend.depart(now, id),
                Step::Wait(count) => {
                    now += millis(count);
                    events.extend(backend.advance(now));
                }
                Step::Crash => backend.crash(now),
                Step::Slow(factor) => backend.slow(now, factor),
            }
            let stats = backend.stats();
            assert!(stats.working <= 3 && stats.max_working <= 3, "never more than the processes: {stats:?}");
            assert!(stats.present <= 13 && stats.max_present <= 13, "never more than fit: {stats:?}");
            let ended = stats.answered + stats.failed + stats.turned_away + stats.reset;
            assert_eq!(stats.arrived, ended + stats.present as u64, "nobody is lost: {stats:?}");
        }
        events.extend(finish(&mut backend));
        assert_eq!(backend.stats().present, 0);
        let ids: BTreeSet<_> = events.iter().map(|event| event.id).collect();
        assert_eq!(ids.len(), events.len(), "nobody ends twice");
        assert_eq!(events.len() as u64, next, "everybody ends");
        assert!(events.is_sorted_by_key(|event| event.at), "in the order of time");
        events
    }

    proptest! {
        #[test]
        fn every_arrival_ends_once_and_a_seed_replays(steps in steps(), seed in any::<u64>()) {
            let start = Clock::system().now();
            prop_assert_eq!(play(&steps, seed, start), play(&steps, seed, start));
        }
    }
}
