//! One run: a fresh box, a fresh proxy, the load, and a look at the box twenty times a second.

use std::path::Path;
use std::time::{Duration, Instant};

use http::{Method, Request, header};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::TcpStream;
use vaxel::clock::Clock;
use vaxel::sim::load::{self, Answer, End, Load, Report, Watch};

use crate::Failure;
use crate::peer::{self, Found, VAXEL};
use crate::program::Program;
use crate::record::{BoxCounts, Consumer, Moment, Run};
use crate::site::{self, Site};
use crate::story::{self, Story};

/// Lets `story` happen to `found` once.
pub(crate) async fn make(story: &Story, found: &Found, site: &Site, seed: u64) -> Result<Run, Failure> {
    let box_port = site::free_port()?;
    let mut sim = start_box(site, box_port, seed)?;
    peer::wait_until_open(&mut sim, peer::local(box_port)).await?;
    let running = found.start(site, box_port, story.cached).await?;
    let mut operator = Operator::connect(box_port).await?;

    let load = story.load(seed);
    let (mut watch, used, began) = (Witness::default(), running.cpu_time(), Instant::now());
    let clock = Clock::system();
    let offered = load::watched(running.address, &load, &clock, &mut watch);
    let (report, seen) = tokio::join!(offered, operator.watch(story, began));
    let (report, seen) = (report?, seen?);
    let cpu = running.cpu_time().zip(used).map(|(now, then)| now.saturating_sub(then));
    // What was begun for those who left is done to the end before it is counted.
    let counts = operator.settled().await?;
    drop(running);
    Ok(record(story, found, seed, &load, &report, &watch, &seen, counts, cpu))
}

fn start_box(site: &Site, port: u16, seed: u64) -> std::io::Result<Program> {
    let (listen, service) = (peer::local(port).to_string(), format!("{}ms", story::SERVICE.as_millis()));
    let (slots, seed) = (story::SLOTS.to_string(), seed.to_string());
    let arguments = ["sim", "--listen", &listen, "--service", &service, "--processes", &slots, "--seed", &seed];
    Program::start(Path::new(VAXEL), arguments, site.load_core, site.room("box")?.join("log"))
}

/// Remembers how every request ended.
#[derive(Default)]
struct Witness(Vec<End>);

impl Watch for Witness {
    fn tick(&mut self, _elapsed: Duration, _report: &Report) {}

    fn ended(&mut self, end: &End) {
        self.0.push(*end);
    }
}

/// Who turns the knobs of the box and reads its counts, beside its work.
struct Operator {
    sender: SendRequest<Empty<Bytes>>,
    host: String,
}

/// What the box said of itself.
#[derive(Debug, Clone, Copy, Deserialize)]
struct Look {
    present: usize,
    abandoned: usize,
    arrived: u64,
    wasted: u64,
    crashes: u64,
    max_present: usize,
    down: bool,
}

impl Operator {
    async fn connect(port: u16) -> Result<Self, Failure> {
        let stream = TcpStream::connect(peer::local(port)).await?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Self { sender, host: peer::local(port).to_string() })
    }

    async fn ask(&mut self, method: Method, knob: &str) -> Result<Look, Failure> {
        self.sender.ready().await?;
        let request = Request::builder().method(method).uri(format!("/_sim/{knob}")).header(header::HOST, &self.host);
        let response = self.sender.send_request(request.body(Empty::new())?).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        if !status.is_success() {
            return Err(format!("the box answers {status} to {knob}").into());
        }
        Ok(serde_json::from_slice(&body)?)
    }

    /// Looks until nothing is sent any more; turns the knobs in time.
    async fn watch(&mut self, story: &Story, began: Instant) -> Result<Vec<(Duration, Look)>, Failure> {
        let mut turns = story.turns().into_iter().peekable();
        let mut seen = Vec::new();
        let mut tick = tokio::time::interval(LOOK);
        while began.elapsed() < story.length {
            tick.tick().await;
            if let Some(turn) = turns.next_if(|turn| turn.at <= began.elapsed()) {
                self.ask(Method::POST, turn.knob).await?;
            }
            seen.push((began.elapsed(), self.ask(Method::GET, "stats").await?));
        }
        Ok(seen)
    }

    /// The counts once everybody has gone, or after a while.
    async fn settled(&mut self) -> Result<Look, Failure> {
        let began = Instant::now();
        loop {
            let look = self.ask(Method::GET, "stats").await?;
            if look.present == 0 || began.elapsed() > PATIENCE {
                return Ok(look);
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

#[expect(clippy::too_many_arguments, reason = "all that was seen of one run, put together in one place")]
fn record(
    story: &Story,
    found: &Found,
    seed: u64,
    load: &Load,
    report: &Report,
    witness: &Witness,
    seen: &[(Duration, Look)],
    counts: Look,
    cpu: Option<Duration>,
) -> Run {
    let mut consumers: Vec<Consumer> = story::consumers().map(Consumer::new).collect();
    for (place, caller) in report.callers.iter().enumerate() {
        if let Some(consumer) = consumers.get_mut(story::consumer_of(place)) {
            consumer.offered += caller.offered;
            consumer.ok += caller.ok;
        }
    }
    let moments = moments(story, &witness.0, seen);
    let millis = |share| report.quantile(share).as_secs_f64() * 1e3;
    Run {
        peer: found.peer.name.to_owned(),
        story: story.kind.name().to_owned(),
        times: story.times,
        cached: story.cached,
        seed,
        length: story.length.as_secs_f64(),
        capacity: story::capacity(&load.mix),
        offered: report.offered,
        ok: report.ok,
        in_time: moments.iter().map(|moment| moment.ok).sum(),
        hits: report.hits,
        refused: report.refused,
        untold: report.untold,
        errors: report.errors - report.untold,
        left: report.timeouts,
        p50: millis(0.5),
        p99: millis(0.99),
        cpu: cpu.map(|cpu| cpu.as_secs_f64() * 1e6 / report.offered.max(1) as f64),
        consumers,
        seen: BoxCounts {
            arrived: counts.arrived,
            wasted: counts.wasted,
            crashes: counts.crashes,
            max_present: counts.max_present,
        },
        moments,
    }
}

/// What happened in each half second.
fn moments(story: &Story, ends: &[End], seen: &[(Duration, Look)]) -> Vec<Moment> {
    let count = (story.length.as_secs_f64() / MOMENT).ceil() as usize;
    let place = |at: Duration| (at.as_secs_f64() / MOMENT) as usize;
    let mut moments = vec![Moment::default(); count];
    for end in ends {
        let polite = story::consumer_of(end.caller) < story::POLITE.len();
        if let Some(moment) = moments.get_mut(place(end.at)) {
            moment.polite_offered += u64::from(polite);
            moment.polite_ok += u64::from(polite && matches!(end.answer, Answer::Ok { .. }));
        }
        if let Answer::Ok { .. } = end.answer
            && let Some(moment) = moments.get_mut(place(end.at + end.latency))
        {
            moment.ok += 1;
        }
    }
    for (at, look) in seen {
        if let Some(moment) = moments.get_mut(place(*at)) {
            moment.present = moment.present.max(look.present);
            moment.abandoned = moment.abandoned.max(look.abandoned);
            moment.down |= look.down;
        }
    }
    moments
}

/// How often the box is looked at.
const LOOK: Duration = Duration::from_millis(50);
/// How long work for those who left may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Seconds that make one point of a plot.
pub(crate) const MOMENT: f64 = 0.5;
