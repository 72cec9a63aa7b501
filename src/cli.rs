//! The command line: the only file that knows clap, and the only one that prints.
#![expect(clippy::print_stderr, reason = "this is the command line")]

use std::error::Error;
use std::io::{IsTerminal as _, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use crate::clock::Clock;
use crate::config::settings::{AdminSettings, Settings};
use crate::config::{self, Loaded};
use crate::consumer::{ConsumerParams, Identify};
use crate::listen::certs;
use crate::server;
use crate::sim::demo::{self, BarUi, DemoOptions, DemoTargets, DemoUi, PlainUi};
use crate::sim::profile::Profile;
use crate::sim::serve::Sim;

/// Prints a line; a reader that has left (`| head`) is no failure.
macro_rules! say {
    ($($text:tt)*) => {{
        let _ = writeln!(std::io::stdout(), $($text)*);
    }};
}

mod remote;
mod top;

/// The gearbox between fast frontends and fragile backends: a caching, throttling, circuit-breaking reverse proxy.
#[derive(Debug, Parser)]
#[command(name = "vaxel", version, max_term_width = 100)]
struct Cli {
    /// What the operator log says: error, warn, info, debug, or a filter such as `vaxel=debug`.
    #[arg(long, global = true, env = "VAXEL_LOG", default_value = "info")]
    log: String,
    /// Write the operator log as JSON.
    #[arg(long, global = true)]
    log_json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve: with a configuration file, or as a drop-in before one upstream.
    Run(RunArgs),
    /// Read a configuration and report all its problems at once.
    Check {
        /// The file.
        file: PathBuf,
    },
    /// Print the JSON Schema of the configuration.
    Schema,
    /// Take answers out of the cache of a running vaxel, or make them stale.
    Purge(remote::PurgeArgs),
    /// Show how the cache of a running vaxel stands, or what one request would get from it and why.
    Cache(remote::CacheArgs),
    /// Show how a running vaxel stands: its traffic and its upstreams.
    Status(remote::StatusArgs),
    /// Watch a running vaxel: what `status` shows and more, drawn again each second. q quits.
    Top(top::TopArgs),
    /// Tell what would become of a request, step by step, without sending it: by a configuration file, or as a running
    /// vaxel stands.
    Explain(remote::ExplainArgs),
    /// Tell what became of a request of a running vaxel, and why; or list the latest worth telling of.
    Why(remote::WhyArgs),
    /// Tell what to do next, from what a running vaxel has seen of its traffic: what could be stored, how many slots are
    /// needed, what has no effect; with evidence, and lines for the configuration.
    Advise(remote::AdviseArgs),
    /// Hold the gear of an upstream of a running vaxel, or let go.
    Gear(remote::GearArgs),
    /// Hold the breaker of an upstream of a running vaxel, or let go.
    Breaker(remote::BreakerArgs),
    /// Let a running vaxel load its configuration anew; if it has mistakes they are told, and nothing changes.
    Reload(remote::ReloadArgs),
    /// End a running vaxel in order, as SIGTERM does: no new connections, requests finish.
    Drain(remote::DrainArgs),
    /// Make a development CA and a certificate signed by it.
    Certs(CertsArgs),
    /// Serve a simulated fragile backend.
    Sim(SimArgs),
    /// Show what it is for: the same load straight at a fragile backend, then through vaxel.
    Demo(DemoArgs),
}

#[derive(Debug, Args)]
struct RunArgs {
    /// The configuration file.
    #[arg(long, short, env = "VAXEL_CONFIG", required_unless_present = "upstream", conflicts_with_all = ["upstream", "listen", "admin"])]
    config: Option<PathBuf>,
    /// The one upstream, with safe defaults for everything else.
    #[arg(long, short)]
    upstream: Option<http::Uri>,
    /// Where to listen.
    #[arg(long, short, default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Where metrics, health and configuration are served.
    #[arg(long, default_value = "127.0.0.1:9900")]
    admin: SocketAddr,
    /// Requests the upstream gets at the same time.
    #[arg(long, conflicts_with = "config")]
    slots: Option<usize>,
}

#[derive(Debug, Args)]
struct CertsArgs {
    /// Where to.
    #[arg(long, default_value = "certs")]
    dir: PathBuf,
    /// Replace what is there.
    #[arg(long)]
    force: bool,
    /// The names the certificate is for.
    #[arg(default_values_t = ["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()])]
    names: Vec<String>,
}

#[derive(Debug, Args)]
struct SimArgs {
    /// Where to listen.
    #[arg(long, default_value = "127.0.0.1:8000")]
    listen: SocketAddr,
    /// The kind of box: erp, soap, mainframe.
    #[arg(long, default_value = "erp")]
    profile: String,
    /// Its work processes.
    #[arg(long)]
    processes: Option<usize>,
    /// The mean time of its most common operation, such as `40ms`.
    #[arg(long, value_parser = duration)]
    service: Option<Duration>,
    /// The share of requests that fail even when it is calm.
    #[arg(long)]
    errors: Option<f64>,
    /// What it draws its chances from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Debug, Args)]
struct DemoArgs {
    /// Exit when the demonstration is over.
    #[arg(long)]
    once: bool,
    /// How long each of the two stages takes.
    #[arg(long, value_parser = duration, default_value = "10s")]
    stage: Duration,
}

type Failure = Box<dyn Error>;

/// Runs the command line.
///
/// # Errors
/// What the command could not do.
pub fn main() -> Result<ExitCode, Failure> {
    let cli = Cli::parse();
    start_log(&cli.log, cli.log_json)?;
    match cli.command {
        Command::Run(args) => run(args),
        Command::Check { file } => Ok(check(&file)),
        Command::Schema => {
            say!("{:#}", config::schema());
            Ok(ExitCode::SUCCESS)
        }
        Command::Purge(args) => remote::purge(args),
        Command::Cache(args) => remote::cache(&args),
        Command::Status(args) => remote::status(&args),
        Command::Explain(args) => remote::explain(&args),
        Command::Why(args) => remote::why(&args),
        Command::Advise(args) => remote::advise(&args),
        Command::Gear(args) => remote::gear(&args),
        Command::Breaker(args) => remote::breaker(&args),
        Command::Top(args) => top::top(&args),
        Command::Reload(args) => remote::reload(&args),
        Command::Drain(args) => remote::drain(&args),
        Command::Certs(args) => certs(&args),
        Command::Sim(args) => sim(&args),
        Command::Demo(args) => demo(&args),
    }
}

/// The operator log goes to standard error: standard output is the access log's.
fn start_log(filter: &str, json: bool) -> Result<(), Failure> {
    let filter = EnvFilter::try_new(filter)?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if json {
        log.json().init();
    } else {
        log.with_ansi(std::io::stderr().is_terminal()).with_target(false).init();
    }
    Ok(())
}

fn run(args: RunArgs) -> Result<ExitCode, Failure> {
    let loaded = match (&args.config, args.upstream) {
        (Some(file), _) => match config::load(file) {
            Ok(loaded) => loaded,
            Err(problems) => {
                eprintln!("{problems}");
                return Ok(ExitCode::FAILURE);
            }
        },
        (None, Some(upstream)) => {
            let mut settings = Settings::for_upstream(checked(upstream)?, args.listen);
            settings.admin = Some(AdminSettings::at(args.admin));
            if let (Some(slots), Some(upstream)) = (args.slots, settings.upstreams.first_mut()) {
                upstream.slots.slots = slots.max(1);
                upstream.slots.queue = (4 * slots).max(64);
            }
            Loaded::from(settings)
        }
        (None, None) => return Err("give --config FILE or --upstream URL".into()),
    };
    for warning in &loaded.warnings {
        eprintln!("{warning}");
    }
    let running = server::start(loaded, args.config)?;
    announce(&running);
    running.until_signal()?;
    Ok(ExitCode::SUCCESS)
}

fn checked(upstream: http::Uri) -> Result<http::Uri, Failure> {
    let usable = matches!(upstream.scheme_str(), Some("http" | "https")) && upstream.host().is_some();
    if usable {
        Ok(upstream)
    } else {
        Err(format!("{upstream} is no upstream: give http://HOST:PORT or https://HOST:PORT").into())
    }
}

fn announce(running: &server::Running) {
    for address in &running.listeners {
        tracing::info!(%address, "listening");
    }
    if let Some(address) = running.admin {
        tracing::info!(%address, "admin");
    }
}

fn check(file: &std::path::Path) -> ExitCode {
    match config::load(file) {
        Ok(loaded) => {
            for warning in &loaded.warnings {
                eprintln!("{warning}");
            }
            say!("{}: good", file.display());
            ExitCode::SUCCESS
        }
        Err(problems) => {
            eprintln!("{problems}");
            ExitCode::FAILURE
        }
    }
}

fn certs(args: &CertsArgs) -> Result<ExitCode, Failure> {
    let made = certs::development_certificates(&args.dir, &args.names, args.force)?;
    say!("CA           {}", made.ca_cert.display());
    say!("certificate  {}", made.cert.display());
    say!("key          {}", made.key.display());
    say!("For development only: whoever has the CA's key can be anybody to those who trust it.");
    Ok(ExitCode::SUCCESS)
}

fn sim(args: &SimArgs) -> Result<ExitCode, Failure> {
    let mut profile = Profile::named(&args.profile)
        .ok_or_else(|| format!("there is no profile {}; there are {}", args.profile, Profile::NAMES.join(", ")))?;
    if let Some(processes) = args.processes {
        profile.processes = processes.max(1);
    }
    if let Some(service) = args.service {
        profile.service = service;
    }
    if let Some(errors) = args.errors {
        profile.error_rate = errors.clamp(0.0, 1.0);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(args.listen).await?;
        let sim = Sim::start(listener, profile, args.seed, Clock::system())?;
        say!("a box with {} work processes at http://{}", sim.profile().processes, sim.address());
        say!("its own count: http://{}/_sim/stats", sim.address());
        tokio::signal::ctrl_c().await?;
        Ok(ExitCode::SUCCESS)
    })
}

fn demo(args: &DemoArgs) -> Result<ExitCode, Failure> {
    let clock = Clock::system();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let profile = Profile::default();
    let sim = runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await?;
        Sim::start(listener, profile.clone(), 1, clock.clone())
    })?;
    let upstream = format!("http://{}", sim.address()).parse()?;
    let mut settings = Settings::for_upstream(upstream, SocketAddr::from(([127, 0, 0, 1], 0)));
    settings.admin = Some(AdminSettings::at(SocketAddr::from(([127, 0, 0, 1], 0))));
    for upstream in &mut settings.upstreams {
        upstream.slots.slots = profile.processes;
    }
    // So that it can share the slots among them; the load is its own, and tells the truth of who asks.
    settings.consumers = demo::CONSUMERS.map(|(name, _)| known_by_name(name)).to_vec();
    let running = server::start(Loaded::from(settings), None)?;
    let (Some(&facade), Some(admin)) = (running.listeners.first(), running.admin) else {
        return Err("the facade does not listen".into());
    };
    say!("fragile backend  http://{}   ({} work processes)", sim.address(), profile.processes);
    say!("through vaxel    http://{facade}");
    say!("admin            http://{admin}/metrics");
    say!();
    say!("  curl -i http://{facade}/catalog/7        # twice: the second is a hit, see Cache-Status and Age");
    say!("  curl -i http://{facade}/account/7        # personal: passes, and never enters the cache");
    say!("  curl -s http://{admin}/metrics | grep vaxel_slots");
    say!();
    let mut options = DemoOptions::default();
    options.load.length = args.stage;
    let targets = DemoTargets { direct: sim.address(), through: facade, sim: &sim };
    let stdout = std::io::stdout();
    let mut ui: Box<dyn DemoUi> =
        if stdout.is_terminal() { Box::new(BarUi::new(stdout)) } else { Box::new(PlainUi::new(stdout)) };
    runtime.block_on(demo::demonstrate(targets, &options, &clock, &mut *ui))?;
    if args.once {
        running.stop();
        return Ok(ExitCode::SUCCESS);
    }
    say!("It stays up for the lines above; Ctrl-C ends it.");
    running.until_signal()?;
    Ok(ExitCode::SUCCESS)
}

/// A consumer of the demonstration: whoever says its name.
fn known_by_name(name: &'static str) -> ConsumerParams {
    let header = DemoOptions::default().load.consumer_header;
    let identify = Identify::Header { name: header, value: http::HeaderValue::from_static(name) };
    ConsumerParams { name: name.to_owned(), identify, weight: 1, class: None, rate: None, quotas: Vec::new() }
}

fn duration(text: &str) -> Result<Duration, humantime::DurationError> {
    humantime::parse_duration(text)
}
