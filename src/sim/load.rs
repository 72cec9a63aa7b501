//! Open-loop load: requests are sent when the schedule says so, whether or not earlier ones were answered, and
//! each latency counts from the *intended* time. A closed loop would slow down with the box and hide its collapse
//! (coordinated omission). Bounded in number and time, and only ever against this machine.

mod client;

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hdrhistogram::Histogram;
use http::header::{self, HeaderName, HeaderValue};
use http::{Method, Request};
use http_body_util::Full;
use tokio::task::JoinSet;

use self::client::{Broken, Pool};

use crate::clock::Clock;
use crate::sim::dice::{Dice, Weighted};
use crate::sim::drive;
use crate::sim::profile::{Mix, Operation};

/// What is offered.
#[derive(Debug, Clone)]
pub struct Load {
    /// Requests per second; the gaps between them are exponential.
    pub rate: f64,
    /// How long requests are sent.
    pub length: Duration,
    /// How long a client waits, from the intended time, before it leaves.
    pub patience: Duration,
    /// Connections open at once; a request that finds none waits, and its clock runs.
    pub connections: usize,
    /// Which operations.
    pub mix: Mix,
    /// How many different ids are asked for.
    pub ids: usize,
    /// How uneven their popularity is (exponent of Zipf's law); 0 makes them all alike.
    pub zipf: f64,
    /// In which header consumers name themselves.
    pub consumer_header: HeaderName,
    /// Who asks; empty: nobody in particular.
    pub callers: Vec<Caller>,
    /// The same seed sends the same requests at the same times.
    pub seed: u64,
}

/// One consumer of the offered load.
#[derive(Debug, Clone)]
pub struct Caller {
    /// What it presents.
    pub key: HeaderValue,
    /// Its share of the requests, in any common unit.
    pub share: f64,
    /// How long its clients wait, where that is not [`Load::patience`].
    pub patience: Option<Duration>,
    /// When it asks, from the start; always if there is nothing. Nobody else gets its share at other times, so
    /// that a storm comes on top of what there is.
    pub during: Option<Range<Duration>>,
}

/// What came of it.
#[derive(Debug, Clone)]
pub struct Report {
    /// Requests sent, or to be sent while no connection was free.
    pub offered: u64,
    /// Answered well (below 400) in time.
    pub ok: u64,
    /// Of those: from a cache on the way (`Cache-Status` with `hit`, RFC 9211).
    pub hits: u64,
    /// Refused with 429 or 503 and a `Retry-After` in seconds: the caller knows when to come back.
    pub refused: u64,
    /// Every other answer, and connections that broke.
    pub errors: u64,
    /// Of the errors: 429 and 503 that do not say when to come back.
    pub untold: u64,
    /// Clients that left.
    pub timeouts: u64,
    /// Bytes of all bodies that were read.
    pub bytes: u64,
    /// The shortest and longest `Retry-After` of those refused.
    pub retry_after: Option<(Duration, Duration)>,
    /// How long requests were sent.
    pub length: Duration,
    /// For each caller, in the order of [`Load::callers`].
    pub callers: Vec<CallerReport>,
    /// Latencies of the good answers, from the intended time, in microseconds.
    latencies: Histogram<u64>,
}

/// What came of one caller's requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CallerReport {
    /// Requests.
    pub offered: u64,
    /// Answered well in time.
    pub ok: u64,
    /// Refused with a `Retry-After`.
    pub refused: u64,
}

/// How one request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// Whose it was: a place in [`Load::callers`].
    pub caller: usize,
    /// When it was to be sent, from the start.
    pub at: Duration,
    /// How long after that it ended.
    pub latency: Duration,
    /// How.
    pub answer: Answer,
}

/// What a client got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// An answer below 400, whole.
    Ok {
        /// Whether it came from a cache on the way.
        hit: bool,
        /// The length of its body.
        bytes: u64,
    },
    /// 429 or 503, and when to come back.
    Refused {
        /// After that.
        retry_after: Duration,
    },
    /// 429 or 503, and nothing more.
    Untold,
    /// Any other status, or a connection that broke.
    Error,
    /// None: the client has left.
    TimedOut,
}

/// Who is told how a load goes while it is offered.
pub trait Watch {
    /// Some ten times a second: the time since the start, and the report so far.
    fn tick(&mut self, elapsed: Duration, report: &Report);

    /// A request has ended.
    fn ended(&mut self, _end: &End) {}
}

/// Why a load was not offered.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum LoadError {
    /// This is no tool against others' servers.
    #[error("load is only offered to this machine, and {0} is another")]
    NotLoopback(SocketAddr),
    /// More requests than this is meant for.
    #[error("a load of {0:.0} requests is too much; at most {MOST_REQUESTS} are sent")]
    TooMuch(f64),
    /// The rate is not a number above zero, or there is no connection to send on.
    #[error("a load needs a rate above zero, a patience and at least one connection")]
    Nothing,
}

/// Offers `load` to `target` and reports what came of it, after every request was answered or given up.
/// `progress` is called some ten times a second with the time since the start and the report so far.
///
/// # Errors
/// If the load is out of bounds; nothing has been sent then.
pub async fn offer(
    target: SocketAddr,
    load: &Load,
    clock: &Clock,
    progress: impl FnMut(Duration, &Report),
) -> Result<Report, LoadError> {
    watched(target, load, clock, &mut Progress(progress)).await
}

/// As [`offer`], and `watch` is told of every single request.
///
/// # Errors
/// If the load is out of bounds; nothing has been sent then.
pub async fn watched(
    target: SocketAddr,
    load: &Load,
    clock: &Clock,
    watch: &mut impl Watch,
) -> Result<Report, LoadError> {
    load.check(target)?;
    let pool = Arc::new(Pool::new(target, load.connections));
    let mut plan = load.plan().peekable();
    let mut report = Report::new(load);
    let mut sent = JoinSet::new();
    let mut tick = tokio::time::interval(TICK);
    let start = clock.now();
    loop {
        let due = plan.peek().map(|planned| start + planned.at);
        if due.is_none() && sent.is_empty() {
            break;
        }
        tokio::select! {
            () = tokio::time::sleep_until(due.unwrap_or(start).into()), if due.is_some() => {
                let now = clock.now();
                while let Some(planned) = plan.next_if(|planned| start + planned.at <= now) {
                    report.offered(planned.caller);
                    let (request, patience) = (load.request(target, &planned), load.patience_of(planned.caller));
                    let exchange = exchange(Arc::clone(&pool), request, start + planned.at, patience, clock.clone());
                    sent.spawn(async move {
                        let (answer, latency) = exchange.await;
                        End { caller: planned.caller, at: planned.at, latency, answer }
                    });
                }
            }
            Some(done) = sent.join_next(), if !sent.is_empty() => match done {
                Ok(end) => {
                    report.record(end.caller, &end.answer, end.latency);
                    watch.ended(&end);
                }
                // It panicked; still, it ended.
                Err(_) => report.errors += 1,
            },
            _ = tick.tick() => watch.tick(clock.now() - start, &report),
        }
    }
    Ok(report)
}

/// Is told of the progress alone.
struct Progress<F>(F);

impl<F: FnMut(Duration, &Report)> Watch for Progress<F> {
    fn tick(&mut self, elapsed: Duration, report: &Report) {
        (self.0)(elapsed, report);
    }
}

impl Load {
    /// A shop's traffic at `rate` for `length`, from one nameless caller.
    pub fn new(rate: f64, length: Duration) -> Self {
        Self {
            rate,
            length,
            patience: Duration::from_secs(2),
            connections: 1024,
            mix: Mix::default(),
            ids: 200,
            zipf: 1.1,
            consumer_header: HeaderName::from_static("x-api-key"),
            callers: Vec::new(),
            seed: 1,
        }
    }

    fn check(&self, target: SocketAddr) -> Result<(), LoadError> {
        let requests = self.rate * self.length.as_secs_f64();
        if !target.ip().to_canonical().is_loopback() {
            Err(LoadError::NotLoopback(target))
        } else if !(self.rate > 0.0 && self.rate.is_finite()) || self.patience.is_zero() || self.connections == 0 {
            Err(LoadError::Nothing)
        } else if requests > f64::from(MOST_REQUESTS) {
            Err(LoadError::TooMuch(requests))
        } else {
            Ok(())
        }
    }

    fn plan(&self) -> impl Iterator<Item = Planned> + use<> {
        let arrivals = drive::schedule(self.seed, self.rate, self.length, &self.mix);
        let popularity = Weighted::zipf(self.ids.max(1), self.zipf);
        let callers = Weighted::new(self.callers.iter().map(|caller| caller.share));
        // Another stream than the schedule's, which has the same seed.
        let mut dice = Dice::new(self.seed ^ 0x5eed);
        let times: Vec<_> = self.callers.iter().map(|caller| caller.during.clone()).collect();
        let planned = arrivals.map(move |arrival| Planned {
            at: arrival.at,
            operation: arrival.operation,
            id: popularity.choose(dice.unit()),
            caller: callers.choose(dice.unit()),
        });
        // Drawn and left out, so that one caller's pauses do not move another's requests.
        planned.filter(move |planned| match times.get(planned.caller) {
            Some(Some(during)) => during.contains(&planned.at),
            _ => true,
        })
    }

    fn patience_of(&self, caller: usize) -> Duration {
        self.callers.get(caller).and_then(|caller| caller.patience).unwrap_or(self.patience)
    }

    fn request(&self, target: SocketAddr, planned: &Planned) -> Request<Full<Bytes>> {
        let (method, path, body) = match planned.operation {
            Operation::Catalog => (Method::GET, format!("/catalog/{}", planned.id), ""),
            Operation::Account => (Method::GET, format!("/account/{}", planned.id), ""),
            Operation::Order => (Method::POST, "/order".to_owned(), "{\"item\":1,\"pieces\":2}"),
            Operation::Report => (Method::GET, "/report".to_owned(), ""),
        };
        let mut request = Request::new(Full::new(Bytes::from_static(body.as_bytes())));
        *request.method_mut() = method;
        *request.uri_mut() = path.parse().unwrap_or_default();
        let headers = request.headers_mut();
        if let Ok(host) = HeaderValue::try_from(target.to_string()) {
            headers.insert(header::HOST, host);
        }
        if let Some(caller) = self.callers.get(planned.caller) {
            headers.insert(self.consumer_header.clone(), caller.key.clone());
        }
        if !body.is_empty() {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        request
    }
}

impl Caller {
    /// One of equals, who asks all the time and waits as long as others do.
    pub const fn new(key: HeaderValue) -> Self {
        Self { key, share: 1.0, patience: None, during: None }
    }
}

impl Report {
    fn new(load: &Load) -> Self {
        Self {
            offered: 0,
            ok: 0,
            hits: 0,
            refused: 0,
            errors: 0,
            untold: 0,
            timeouts: 0,
            bytes: 0,
            retry_after: None,
            length: load.length,
            callers: vec![CallerReport::default(); load.callers.len()],
            latencies: Histogram::new_with_bounds(1, LONGEST_LATENCY, 3)
                .expect("1 < 2 · 1 <= the highest, and three digits: all that is asked for"),
        }
    }

    /// A report made up for tests: each good answer took 5 ms, refusals say 1 to 3 s.
    #[cfg(test)]
    pub(crate) fn fixture(length: Duration, ok: u64, hits: u64, refused: u64, errors: u64) -> Self {
        let mut report = Self::new(&Load::new(1.0, length));
        report.offered = ok + refused + errors;
        for answer in 0..ok {
            let hit = answer < hits;
            report.record(0, &Answer::Ok { hit, bytes: 0 }, Duration::from_millis(5));
        }
        for answer in 0..refused {
            let retry_after = Duration::from_secs(1 + answer % 3);
            report.record(0, &Answer::Refused { retry_after }, Duration::ZERO);
        }
        report.errors = errors;
        report
    }

    fn offered(&mut self, caller: usize) {
        self.offered += 1;
        if let Some(caller) = self.callers.get_mut(caller) {
            caller.offered += 1;
        }
    }

    fn record(&mut self, caller: usize, answer: &Answer, latency: Duration) {
        let mut none = CallerReport::default();
        let caller = self.callers.get_mut(caller).unwrap_or(&mut none);
        match *answer {
            Answer::Ok { hit, bytes } => {
                self.ok += 1;
                self.hits += u64::from(hit);
                self.bytes += bytes;
                caller.ok += 1;
                self.latencies.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
            }
            Answer::Refused { retry_after } => {
                self.refused += 1;
                caller.refused += 1;
                let (least, most) = self.retry_after.unwrap_or((retry_after, retry_after));
                self.retry_after = Some((least.min(retry_after), most.max(retry_after)));
            }
            Answer::Untold => {
                self.untold += 1;
                self.errors += 1;
            }
            Answer::Error => self.errors += 1,
            Answer::TimedOut => self.timeouts += 1,
        }
    }

    /// Good answers per second of the time during which requests were sent.
    pub fn goodput(&self) -> f64 {
        self.ok as f64 / self.length.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    /// What `share` (0 to 1) of the good answers took at most, from the intended time; zero if there are none.
    pub fn quantile(&self, share: f64) -> Duration {
        Duration::from_micros(self.latencies.value_at_quantile(share))
    }

    /// The slowest good answer.
    pub fn max(&self) -> Duration {
        Duration::from_micros(self.latencies.max())
    }

    /// Share of the good answers that came from a cache.
    pub fn hit_ratio(&self) -> f64 {
        if self.ok == 0 { 0.0 } else { self.hits as f64 / self.ok as f64 }
    }
}

#[derive(Debug, Clone, Copy)]
struct Planned {
    at: Duration,
    operation: Operation,
    id: usize,
    caller: usize,
}

/// One request: what became of it, and how long after its intended time.
async fn exchange(
    pool: Arc<Pool>,
    request: Request<Full<Bytes>>,
    intended: Instant,
    patience: Duration,
    clock: Clock,
) -> (Answer, Duration) {
    let answer = match tokio::time::timeout_at((intended + patience).into(), pool.exchange(request)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(Broken)) => Answer::Error,
        Err(_) => Answer::TimedOut,
    };
    (answer, clock.now().saturating_duration_since(intended))
}

/// What one run sends at most.
const MOST_REQUESTS: u32 = 5_000_000;
/// Microseconds; an hour. Longer ones count as this.
const LONGEST_LATENCY: u64 = 3_600_000_000;
/// How often progress is told.
const TICK: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;
    use crate::sim::profile::Profile;
    use crate::sim::serve::{Sim, SimHandle};

    struct Ends(Vec<End>);

    impl Watch for Ends {
        fn tick(&mut self, _elapsed: Duration, _report: &Report) {}

        fn ended(&mut self, end: &End) {
            self.0.push(*end);
        }
    }

    async fn start(profile: Profile) -> SimHandle {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        Sim::start(listener, profile, 1, Clock::system()).unwrap()
    }

    #[test]
    fn loads_out_of_bounds_are_not_offered() {
        let check = |target: &str, load: Load, expected: Result<(), LoadError>| {
            assert_eq!(load.check(target.parse().unwrap()), expected, "{target}");
        };
        let load = || Load::new(100.0, Duration::from_secs(1));
        check("127.0.0.1:80", load(), Ok(()));
        check("[::ffff:127.0.0.1]:80", load(), Ok(()));
        check("192.0.2.1:80", load(), Err(LoadError::NotLoopback("192.0.2.1:80".parse().unwrap())));
        check("[::1]:80", Load { rate: 0.0, ..load() }, Err(LoadError::Nothing));
        check("[::1]:80", Load { rate: f64::NAN, ..load() }, Err(LoadError::Nothing));
        check("[::1]:80", Load { rate: 1e7, ..load() }, Err(LoadError::TooMuch(1e7)));
    }

    #[test]
    fn a_plan_is_replayed_by_its_seed_and_keeps_its_shares() {
        let caller = |key, share| Caller { share, ..Caller::new(HeaderValue::from_static(key)) };
        let load = Load {
            callers: vec![caller("shop", 3.0), caller("batch", 1.0)],
            ..Load::new(1000.0, Duration::from_secs(10))
        };
        let plan: Vec<_> = load.plan().collect();
        assert!((9_500..10_500).contains(&plan.len()), "{}", plan.len());
        assert!(plan.is_sorted_by_key(|planned| planned.at) && plan.iter().all(|planned| planned.id < load.ids));
        let shop = plan.iter().filter(|planned| planned.caller == 0).count() as f64 / plan.len() as f64;
        assert!((0.72..0.78).contains(&shop), "{shop}");
        let again: Vec<_> = load.plan().collect();
        assert_eq!(format!("{plan:?}"), format!("{again:?}"));
    }

    #[test]
    fn a_storm_comes_on_top_and_moves_nobody_else() {
        let seconds = Duration::from_secs;
        let plan = |during: Option<Range<Duration>>| {
            let storm = Caller { during, ..Caller::new(HeaderValue::from_static("storm")) };
            let callers = vec![Caller::new(HeaderValue::from_static("shop")), storm];
            let load = Load { callers, ..Load::new(500.0, seconds(4)) };
            let (shop, storm): (Vec<_>, Vec<_>) = load.plan().partition(|planned| planned.caller == 0);
            (shop.iter().map(|planned| planned.at).collect::<Vec<_>>(), storm)
        };
        let (always, during) = (plan(None), plan(Some(seconds(1)..seconds(2))));
        assert_eq!(always.0, during.0);
        assert!(during.1.iter().all(|planned| (seconds(1)..seconds(2)).contains(&planned.at)));
        assert!((150..350).contains(&during.1.len()), "{}", during.1.len());
    }

    #[tokio::test]
    async fn a_calm_box_answers_everything_it_is_offered() {
        let sim = start(Profile { service: Duration::from_millis(1), error_rate: 0.0, ..Profile::default() }).await;
        let callers = vec![Caller::new(HeaderValue::from_static("shop"))];
        let load = Load { callers, patience: Duration::from_secs(30), ..Load::new(300.0, Duration::from_millis(400)) };
        let mut ticks = 0;
        let report = offer(sim.address(), &load, &Clock::system(), |_, _| ticks += 1).await.unwrap();
        assert!(report.offered > 60 && ticks > 0, "{report:?}");
        assert_eq!((report.ok, report.errors + report.refused + report.timeouts), (report.offered, 0), "{report:?}");
        assert_eq!(report.callers, [CallerReport { offered: report.offered, ok: report.ok, refused: 0 }]);
        assert_eq!(sim.stats().answered, report.ok);
        assert!(report.quantile(0.5) <= report.quantile(0.99) && report.quantile(0.99) <= report.max());
        assert!(report.quantile(0.5) > Duration::from_micros(300), "{:?}", report.quantile(0.5));
        assert!(report.bytes > 1024 && report.goodput() > 100.0);
    }

    #[tokio::test]
    async fn impatient_clients_of_a_stuck_box_are_counted_as_gone() {
        let sim = start(Profile::default()).await;
        sim.slow(1e9);
        // What the load says counts for those who say nothing themselves; an hour would never end.
        let patience = Some(Duration::from_millis(50));
        let callers = vec![Caller { patience, ..Caller::new(HeaderValue::from_static("hasty")) }];
        let load =
            Load { callers, patience: Duration::from_secs(3600), ..Load::new(200.0, Duration::from_millis(200)) };
        let mut ends = Ends(Vec::new());
        let report = watched(sim.address(), &load, &Clock::system(), &mut ends).await.unwrap();
        assert_eq!((report.ok, report.timeouts), (0, report.offered), "{report:?}");
        assert_eq!(ends.0.len() as u64, report.offered, "and each is told of");
        assert!(ends.0.iter().all(|end| end.answer == Answer::TimedOut && end.latency >= Duration::from_millis(50)));
        assert_eq!(sim.stats().working, 8, "and the box computes on");
    }
}
