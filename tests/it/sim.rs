//! The model of a fragile box behind a whole gateway, in virtual time: thousands of clients, everything that goes wrong
//! with such a box, and what must hold all the while. A seed is a run; a failure says how to see it again.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;
use vaxel::clock::Clock;
use vaxel::gateway::Handle;
use vaxel::outcome::{Failure, FailureKind, Stage};
use vaxel::sim::backend::{Backend, Ending, Stats};
use vaxel::sim::dice::Dice;
use vaxel::sim::drive::{Arrival, schedule};
use vaxel::sim::profile::{Mix, Operation, Profile};
use vaxel::throttle::SlotsStats;
use vaxel::upstream::body::{ReplyBody, RequestBody};
use vaxel::upstream::origin::{Call, Origin, OriginError, Sending};

use crate::harness::{Answer, Client, Config, MINUTE, SECOND, clock, in_virtual_time, ms, value, with_seeds};

#[test]
fn at_five_times_its_capacity_the_box_does_nine_tenths_of_what_it_can_and_everybody_is_told() {
    with_seeds(3, async |seed| {
        let town = Town::opens(seed, &Config::default());
        let mut crowd = Crowd::default();
        let begun = town.clock.now();
        for (number, arrival) in town.arrivals(5.0, LENGTH).enumerate() {
            town.waits_until(begun + arrival.at).await;
            crowd.clients.push(town.asks(arrival.operation, number));
        }
        let ended = town.clock.now();
        let work = town.done();
        crowd.ends(&town).await;
        let share = work / ((ended - begun).as_secs_f64() * SLOTS as f64);
        assert!(share >= 0.9, "{share:.3} of what the box can do was done for clients");
        let (slowest, bound) = (crowd.slowest, QUEUE_TIMEOUT + town.slowest());
        assert!(slowest <= bound, "admitted after {slowest:?}, bound by {bound:?}");
        let offered = crowd.served + crowd.refused;
        assert!(crowd.failed == 0 && crowd.refused * 10 > offered * 7, "{} of {offered} refused", crowd.refused);
        let stats = town.backend.stats();
        assert_eq!((stats.max_present, stats.wasted, stats.crashes), (SLOTS, 0, 0), "{stats:?}");
        assert_eq!(stats.answered, crowd.served as u64, "{stats:?}");
        town.rests(offered).await;
    });
}

#[test]
fn whatever_the_box_and_its_clients_do_nothing_is_left_over() {
    with_seeds(6, async |seed| {
        let mut dice = Dice::new(!seed);
        let config = Config::default().route(if dice.roll().is_multiple_of(2) { "cache = true" } else { "" });
        let config = config.upstream(if dice.roll().is_multiple_of(2) { "" } else { "breaker = false" });
        let town = Town::opens(seed, &config);
        let mut crowd = Crowd::default();
        let begun = town.clock.now();
        let load = 0.5 + 3.0 * dice.unit();
        let mut asked = 0;
        for arrival in town.arrivals(load, LENGTH) {
            town.waits_until(begun + arrival.at).await;
            if dice.roll().is_multiple_of(8) && !crowd.clients.is_empty() {
                let leaving = dice.roll() as usize % crowd.clients.len();
                crowd.clients.swap_remove(leaving).abort();
            }
            // A hundred ids: enough are asked for together.
            crowd.clients.push(town.asks(arrival.operation, dice.roll() as usize % 100));
            asked += 1;
            match dice.roll() % 1500 {
                0 => town.backend.change(Backend::crash),
                1 => town.backend.change(|backend, now| backend.slow(now, 4.0)),
                2 => town.backend.change(|backend, now| backend.slow(now, 1.0)),
                3 => town.backend.change(|backend, now| backend.fail(now, Some(0.7))),
                4 => town.backend.change(|backend, now| backend.fail(now, None)),
                5 => town.handle.reload(&town.config.settings()).unwrap(),
                _ => {}
            }
        }
        town.backend.change(|backend, now| backend.slow(now, 1.0));
        crowd.ends(&town).await;
        assert!(crowd.served > 0, "some are served");
        town.rests(asked).await;
    });
}

#[test]
fn a_seed_replays_a_run() {
    let play = |seed| {
        let mut found = None;
        let scenario = async {
            let town = Town::opens(seed, &Config::default());
            let mut crowd = Crowd::default();
            let begun = town.clock.now();
            for (number, arrival) in town.arrivals(3.0, SECOND).enumerate() {
                town.waits_until(begun + arrival.at).await;
                crowd.clients.push(town.asks(arrival.operation, number));
            }
            crowd.ends(&town).await;
            found = Some((town.backend.stats(), crowd.served, crowd.refused, town.clock.now() - begun));
        };
        in_virtual_time(scenario);
        found.unwrap()
    };
    assert_eq!(play(1), play(1));
    assert_ne!(play(1), play(2));
}

/// A box, a gateway before it, and its clients.
struct Town {
    backend: Model,
    handle: Handle,
    clock: Clock,
    config: Config,
    seed: u64,
}

/// Those who ask, and what came of it.
#[derive(Default)]
struct Crowd {
    clients: Vec<JoinHandle<(Answer, Duration)>>,
    served: usize,
    refused: usize,
    failed: usize,
    slowest: Duration,
}

impl Town {
    fn opens(seed: u64, config: &Config) -> Self {
        let clock = clock();
        let timeout = QUEUE_TIMEOUT.as_millis();
        let config = config
            .clone()
            .upstream(&format!("slots = {SLOTS}\nqueue = {{ max = {MOST_QUEUED}, timeout = \"{timeout}ms\" }}"));
        let profile = Profile { processes: SLOTS, error_rate: 0.0, ..Profile::default() };
        let backend = Model::new(Backend::new(profile, seed, clock.now()), clock.clone());
        let handle = config.before(backend.clone(), &clock);
        tokio::spawn(Model::lets_time_pass(backend.clone(), handle.clone()));
        Self { backend, handle, clock, config, seed }
    }

    /// So many times what the box can do.
    fn arrivals(&self, load: f64, length: Duration) -> impl Iterator<Item = Arrival> + use<> {
        let profile = self.backend.0.core.lock().backend.profile().clone();
        schedule(self.seed, load * profile.capacity(&Mix::default()), length, &Mix::default())
    }

    async fn waits_until(&self, at: Instant) {
        tokio::time::sleep_until(at.into()).await;
        tokio::task::yield_now().await;
        check(&self.handle, &self.backend.stats());
    }

    /// A client on its way, in a task of its own; it tells its answer, and how long it took.
    fn asks(&self, operation: Operation, id: usize) -> JoinHandle<(Answer, Duration)> {
        let client = Client::new(&self.handle.gateway(0), [10, 0, 0, 1].into());
        let (method, path) = match operation {
            Operation::Catalog => ("GET", format!("/catalog/{id}")),
            Operation::Account => ("GET", format!("/account/{id}")),
            Operation::Order => ("POST", "/order".to_owned()),
            Operation::Report => ("GET", format!("/report?{id}")),
        };
        let (request, clock) = (client.asks(method, &path), self.clock.clone());
        tokio::spawn(async move {
            let begun = clock.now();
            (request.await, clock.now() - begun)
        })
    }

    /// Seconds of work that ended in an answer for a client.
    fn done(&self) -> f64 {
        self.backend.0.core.lock().done.as_secs_f64()
    }

    /// The longest that any work took.
    fn slowest(&self) -> Duration {
        self.backend.0.core.lock().slowest
    }

    /// Nothing is left over, and every request is accounted for.
    async fn rests(&self, asked: usize) {
        tokio::time::sleep(3 * MINUTE).await;
        let (standing, stats) = (self.handle.upstreams()[0].slots.stats(), self.backend.stats());
        assert_eq!((standing.busy, standing.zombie, standing.queued, stats.present), (0, 0, 0, 0), "{standing:?}");
        let metrics = self.handle.metrics().gather();
        let counts = |series: &str| value(&metrics, series) as u64;
        assert_eq!(counts("vaxel_requests_total"), asked as u64);
        assert_eq!(counts("vaxel_cache_fills_bytes") + counts("vaxel_worker_panics_total"), 0);
        let ended = stats.answered + stats.failed + stats.turned_away + stats.reset;
        assert_eq!((counts("vaxel_upstream_attempts_total"), ended), (stats.arrived, stats.arrived));
        assert!(standing.totals.granted >= stats.arrived, "no work without a slot: {standing:?} {stats:?}");
        assert!(stats.max_present <= SLOTS, "{stats:?}");
    }
}

impl Crowd {
    /// Everybody is answered; whoever was refused is told why, and when to come back.
    async fn ends(&mut self, town: &Town) {
        for client in std::mem::take(&mut self.clients) {
            let (answer, took) = client.await.unwrap();
            match answer.field("content-type").as_str() {
                "application/problem+json" => self.refused(&answer),
                "text/html" => self.failed += 1,
                _ => {
                    assert!(answer.status.is_success() && !answer.broken, "{answer:?}");
                    self.served += 1;
                    self.slowest = self.slowest.max(took);
                }
            }
        }
        check(&town.handle, &town.backend.stats());
    }

    fn refused(&mut self, answer: &Answer) {
        let reason = answer.problem()["reason"].as_str().unwrap().to_owned();
        answer.refused(&reason);
        if answer.status == 503 {
            answer.retry_after();
            self.refused += 1;
        } else {
            assert!(reason.starts_with("upstream."), "{answer:?}");
            self.failed += 1;
        }
    }
}

/// What holds at every instant.
fn check(handle: &Handle, stats: &Stats) {
    let standing: SlotsStats = handle.upstreams()[0].slots.stats();
    let taken = standing.busy + standing.zombie;
    assert!(taken <= SLOTS, "{standing:?}");
    assert!(stats.present <= taken, "the box works on {} with {taken} slots taken", stats.present);
    assert!(standing.queued <= MOST_QUEUED, "{standing:?}");
    assert!(standing.oldest_wait <= QUEUE_TIMEOUT + ms(1), "{standing:?}");
}

/// The box as an origin: every request enters the model and is answered when the model says so.
#[derive(Clone)]
struct Model(Arc<Shared>);

struct Shared {
    core: Mutex<Core>,
    /// The model may have something to do earlier than it had.
    changed: Notify,
    clock: Clock,
}

struct Core {
    backend: Backend,
    callers: HashMap<u64, Caller>,
    arrived: u64,
    /// Of what was answered: the work, and its longest piece.
    done: Duration,
    slowest: Duration,
}

struct Caller {
    tells: oneshot::Sender<Ending>,
    since: Instant,
}

impl Model {
    fn new(backend: Backend, clock: Clock) -> Self {
        let core = Core { backend, callers: HashMap::new(), arrived: 0, done: Duration::ZERO, slowest: Duration::ZERO };
        Self(Arc::new(Shared { core: Mutex::new(core), changed: Notify::new(), clock }))
    }

    fn stats(&self) -> Stats {
        let mut core = self.0.core.lock();
        core.settle(self.0.clock.now());
        core.backend.stats()
    }

    fn change(&self, change: impl FnOnce(&mut Backend, Instant)) {
        change(&mut self.0.core.lock().backend, self.0.clock.now());
        self.0.changed.notify_one();
    }

    /// Ends what is due, and looks at everything whenever something has ended.
    async fn lets_time_pass(self, handle: Handle) {
        loop {
            let next = self.0.core.lock().settle(self.0.clock.now());
            check(&handle, &self.stats());
            match next {
                Some(at) => tokio::select! {
                    () = tokio::time::sleep_until(at.into()) => {}
                    () = self.0.changed.notified() => {}
                },
                None => self.0.changed.notified().await,
            }
        }
    }

    fn enters(&self, operation: Operation) -> Inside<'_> {
        let (tells, ending) = oneshot::channel();
        let now = self.0.clock.now();
        let mut core = self.0.core.lock();
        core.arrived += 1;
        let id = core.arrived;
        core.callers.insert(id, Caller { tells, since: now });
        core.backend.arrive(now, id, operation);
        self.0.changed.notify_one();
        Inside { id, model: self, ending }
    }

    async fn works(self, request: Request<RequestBody>) -> Result<Response<ReplyBody>, OriginError> {
        let path = request.uri().path();
        let operation = match path.split('/').nth(1) {
            Some("catalog") => Operation::Catalog,
            Some("account") => Operation::Account,
            Some("order") => Operation::Order,
            _ => Operation::Report,
        };
        let ending = (&mut self.enters(operation).ending).await.unwrap();
        let answer = Response::builder().header("content-length", path.len());
        let answer = match (ending, operation) {
            (Ending::Answered, Operation::Order) => answer.status(201),
            (Ending::Answered, Operation::Catalog) => answer.header("cache-control", "max-age=1"),
            (Ending::Answered, _) => answer.header("cache-control", "private"),
            (Ending::Failed, _) => answer.status(500).header("content-type", "text/html"),
            (Ending::TurnedAway, _) => answer.status(503).header("content-type", "text/html"),
            (Ending::Reset, _) => {
                let failure = Failure { kind: FailureKind::Reset, stage: Stage::Head, sent: true, reused: false };
                return Err(OriginError { failure, source: None });
            }
        };
        Ok(answer.body(ReplyBody::Full(Some(Bytes::copy_from_slice(path.as_bytes())))).unwrap())
    }
}

impl Core {
    /// Tells those whose work has ended, and says when something ends next.
    fn settle(&mut self, now: Instant) -> Option<Instant> {
        for event in self.backend.advance(now) {
            let caller = self.callers.remove(&event.id).unwrap();
            let took = event.at - caller.since;
            if event.ending == Ending::Answered && !event.abandoned {
                self.done += took;
                self.slowest = self.slowest.max(took);
            }
            // Nobody listens any more if the gateway has hung up.
            let _ = caller.tells.send(event.ending);
        }
        self.backend.next_event()
    }
}

impl Origin for Model {
    fn send(self: Arc<Self>, request: Request<RequestBody>, _call: Call) -> Sending {
        Box::pin(Self::clone(&self).works(request))
    }
}

/// A request inside the model. Dropped early, its client has left; the model works on.
struct Inside<'a> {
    id: u64,
    model: &'a Model,
    ending: oneshot::Receiver<Ending>,
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        let now = self.model.0.clock.now();
        self.model.0.core.lock().backend.depart(now, self.id);
    }
}

/// As many as the box has work processes.
const SLOTS: usize = 8;
const MOST_QUEUED: usize = 64;
const QUEUE_TIMEOUT: Duration = ms(2000);
/// How long clients come.
const LENGTH: Duration = Duration::from_secs(10);
