//! The world of a scenario: a scripted origin behind a gateway, and clients before it, all in virtual time.
//!
//! ```text
//! let world = world().origin(ok("hello").with("cache-control", "max-age=60")).route("cache = true").opens();
//! world.get("/").await.is(200).says("hello");
//! world.passes(10 * SECOND).await;
//! world.get("/").await.is(200).has("age", "10");
//! world.origin.was_asked(1);
//! world.rests().await;
//! ```
//! Every scenario ends with [`World::rests`]: no slot is taken, nobody waits, nothing is under way. A world that is
//! dropped without it fails the test.

use std::cell::Cell;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, SystemTime};

use vaxel::Hooks;
use vaxel::clock::Clock;
use vaxel::config;
use vaxel::config::settings::Settings;
use vaxel::gateway::{Builder, Gateway, Handle, StartError};
use vaxel::throttle::SlotsStats;
use vaxel::upstream::origin::Origin;

mod client;
mod exposition;
mod origin;

pub use client::{Answer, Client, Visit};
pub use exposition::value;
pub use origin::{Reply, Script, ScriptedOrigin, Seen, by, hang, in_turn, ok, refused, reset, status};

pub const SECOND: Duration = Duration::from_secs(1);
pub const MINUTE: Duration = Duration::from_secs(60);

/// Milliseconds.
pub const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// The clock of a test: its time is the runtime's.
pub fn clock() -> Clock {
    Clock::anchored(SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000))
}

/// Begins to describe a world: an upstream `erp` and one route to it.
pub fn world() -> Plan {
    Plan { script: ok("").into(), config: Config::default(), builder: Gateway::builder() }
}

/// A world to be.
pub struct Plan {
    script: Script,
    config: Config,
    builder: Builder,
}

/// A configuration in three parts, so that a scenario says only what it is about.
#[derive(Debug, Clone, Default)]
pub struct Config {
    upstream: String,
    route: String,
    more: String,
}

/// A gateway in front of a scripted origin.
pub struct World {
    pub origin: ScriptedOrigin,
    /// What answers for the upstream `mirror`, where a scenario has one.
    pub mirror: ScriptedOrigin,
    pub gateway: Gateway,
    pub handle: Handle,
    pub clock: Clock,
    rested: Cell<bool>,
}

impl Plan {
    /// What the origin does.
    pub fn origin(mut self, script: impl Into<Script>) -> Self {
        self.script = script.into();
        self
    }

    /// Keys of `[upstream.erp]`.
    pub fn upstream(mut self, keys: &str) -> Self {
        self.config = self.config.upstream(keys);
        self
    }

    /// Keys of the one `[[route]]`.
    pub fn route(mut self, keys: &str) -> Self {
        self.config = self.config.route(keys);
        self
    }

    /// Further tables.
    pub fn gateway(mut self, tables: &str) -> Self {
        self.config = self.config.more(tables);
        self
    }

    /// The embedding program's hand.
    pub fn hooks(mut self, hooks: impl Hooks) -> Self {
        self.builder = self.builder.hooks(hooks);
        self
    }

    /// Its configuration, as a file would say it.
    pub fn text(&self) -> String {
        self.config.text()
    }

    /// The gateway begins to serve.
    pub fn opens(self) -> World {
        let clock = clock();
        let origin = ScriptedOrigin::new(self.script);
        let mirror = ScriptedOrigin::new(ok("mirrored").into());
        let builder = self.builder.origin("mirror", mirror.clone());
        let handle = self.config.built(builder, origin.clone(), &clock);
        World { origin, mirror, gateway: handle.gateway(0), handle, clock, rested: Cell::new(false) }
    }
}

impl Config {
    /// Keys of `[upstream.erp]`.
    pub fn upstream(mut self, keys: &str) -> Self {
        push(&mut self.upstream, keys);
        self
    }

    /// Keys of the one `[[route]]`.
    pub fn route(mut self, keys: &str) -> Self {
        push(&mut self.route, keys);
        self
    }

    /// Further tables.
    pub fn more(mut self, tables: &str) -> Self {
        push(&mut self.more, tables);
        self
    }

    /// The whole file.
    pub fn text(&self) -> String {
        let Self { upstream, route, more } = self;
        let endpoints = if upstream.contains("endpoints") { "" } else { "endpoints = \"http://erp:8000\"\n" };
        format!(
            "[upstream.erp]\n{endpoints}{upstream}\
             [[route]]\nname = \"all\"\nupstream = \"erp\"\nmatch = {{ path = \"/{{*rest}}\" }}\n{route}{more}"
        )
    }

    /// A gateway before `origin`.
    pub fn before(&self, origin: impl Origin, clock: &Clock) -> Handle {
        self.built(Gateway::builder(), origin, clock)
    }

    fn built(&self, builder: Builder, origin: impl Origin, clock: &Clock) -> Handle {
        let builder = builder.clock(clock.clone()).seed(7).workers(2).origin("erp", origin);
        builder.settings(self.settings()).build().unwrap()
    }

    /// What it means.
    pub fn settings(&self) -> Settings {
        match config::parse(&self.text(), "scenario.toml") {
            Ok(loaded) => loaded.settings,
            Err(problems) => panic!("the scenario's configuration is wrong:\n{problems}"),
        }
    }
}

impl World {
    /// A client at an address of its own.
    pub fn client(&self) -> Client {
        Client::new(&self.gateway, IpAddr::V4(Ipv4Addr::LOCALHOST))
    }

    /// A client of the other worker.
    pub fn client_elsewhere(&self) -> Client {
        Client::new(&self.handle.gateway(1), IpAddr::V4(Ipv4Addr::LOCALHOST))
    }

    /// A client at this address.
    pub fn client_at(&self, address: impl Into<IpAddr>) -> Client {
        Client::new(&self.gateway, address.into())
    }

    /// Somebody's GET.
    pub fn get(&self, target: &str) -> client::Request {
        self.client().get(target)
    }

    /// Somebody's request.
    pub fn asks(&self, method: &str, target: &str) -> client::Request {
        self.client().asks(method, target)
    }

    /// Time goes by, and everything happens that is due.
    pub async fn passes(&self, time: Duration) {
        tokio::time::sleep(time).await;
        self.breathes().await;
    }

    /// Everybody who can go on does; no time goes by.
    pub async fn breathes(&self) {
        for _ in 0..BREATH {
            tokio::task::yield_now().await;
        }
    }

    /// The upstreams are observed, as upkeep does once a second.
    pub fn observes(&self) {
        for upstream in self.handle.upstreams() {
            upstream.shift(self.clock.moment());
        }
    }

    /// The value of a metric: the sum of all series that have (at least) these labels.
    pub fn metric(&self, series: &str) -> f64 {
        value(&self.handle.metrics().gather(), series)
    }

    /// Asserts on a metric.
    #[track_caller]
    pub fn counts(&self, series: &str, expected: f64) {
        let value = self.metric(series);
        assert!((value - expected).abs() < 1e-9, "{series} is {value}, not {expected}");
    }

    /// Asserts on the slots of the upstream.
    #[track_caller]
    pub fn slots(&self, busy: u32, zombie: u32, queued: u32) {
        let value = |name: &str| self.metric(&format!("{name}{{upstream=\"erp\"}}"));
        let all = [value("vaxel_slots_busy"), value("vaxel_slots_zombie"), value("vaxel_queue_length")];
        assert_eq!(all, [busy, zombie, queued].map(f64::from), "busy, zombie, queued");
    }

    /// How the slots of the upstream stand: cheaper than the metrics, for properties that look often.
    pub fn standing(&self) -> SlotsStats {
        self.handle.upstreams()[0].slots.stats()
    }

    /// Asserts on the breaker of the upstream.
    #[track_caller]
    pub fn breaker(&self, state: &str) {
        self.counts(&format!("vaxel_breaker_state{{upstream=\"erp\",state=\"{state}\"}}"), 1.0);
    }

    /// Puts another configuration in force.
    pub fn reload(&self, config: &Config) -> Result<(), StartError> {
        self.handle.reload(&config.settings())
    }

    /// The scenario is over: nothing is left behind.
    pub async fn rests(&self) {
        self.breathes().await;
        self.rested.set(true);
        self.slots(0, 0, 0);
        assert_eq!(self.origin.running(), 0, "requests are still at the origin");
        self.counts("vaxel_cache_fills_bytes", 0.0);
        self.counts("vaxel_worker_panics_total", 0.0);
    }
}

impl Drop for World {
    fn drop(&mut self) {
        assert!(self.rested.get() || std::thread::panicking(), "a scenario ends with `world.rests().await`");
    }
}

/// Runs `scenario` with each seed in virtual time: the one in `VAXEL_SEED`, or `count` of them.
pub fn with_seeds(count: u64, scenario: impl AsyncFn(u64)) {
    let given = std::env::var("VAXEL_SEED").ok().map(|seed| seed.parse().expect("VAXEL_SEED is a number"));
    let seeds = given.map_or(0..count, |seed: u64| seed..seed + 1);
    for seed in seeds {
        let replay = Replay(seed);
        in_virtual_time(scenario(seed));
        drop(replay);
    }
}

/// Runs a scenario on a runtime of its own, in virtual time.
pub fn in_virtual_time<T>(scenario: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.unwrap().block_on(scenario)
}

/// Says how to see a failure again.
struct Replay(u64);

impl Drop for Replay {
    #[expect(clippy::print_stderr, reason = "it belongs to the test's failure")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("replay it with VAXEL_SEED={}", self.0);
        }
    }
}

fn push(text: &mut String, lines: &str) {
    text.push_str(lines);
    text.push('\n');
}

/// Turns of the runtime in which a chain of tasks that wake each other comes to rest.
const BREATH: usize = 32;
