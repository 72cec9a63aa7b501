//! The load benchmark: Vaxel beside nginx, HAProxy and Varnish, each on one core, before the same origin.
//!
//! `cargo bench --bench load -- --help` lists the options. What counts is **CPU time per request**, read from the kernel
//! for all processes of a proxy: it stays comparable where the load generator or a neighbour is the limit of requests per
//! second. Proxies take turns (A B C, A B C, ...), so that a slow minute of the machine meets all of them; medians are
//! shown with the spread beside them, and of the ratios of each round the median. Nothing is measured that was not checked first: status, body, and whether the
//! answer came from the cache or from the origin.
//!
//! - `row`: what is measured · `peer`: the proxies · `peers/`: their configurations · `origin`: what they stand before · `bare`: a floor
//! - `ask`: checks answers · `load`: wrk and h2load · `measure`: runs and medians · `table`: output
//! - `../shared/site`: directory, ports, certificate · `../shared/program`: processes and their CPU time · `options`: command line
#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a bench waits for real programs, and its output is what it is for"
)]

mod ask;
mod bare;
mod load;
mod measure;
mod options;
mod origin;
mod peer;
#[path = "../shared/program.rs"]
mod program;
mod row;
#[path = "../shared/site.rs"]
mod site;
mod table;

use std::error::Error;
use std::path::Path;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use crate::ask::Asker;
use crate::load::Generators;
use crate::measure::{Run, Summary};
use crate::options::{Options, Wanted};
use crate::origin::Origin;
use crate::peer::Running;
use crate::row::Row;
use crate::site::Site;
use crate::table::Outcome;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [first, config] = arguments.as_slice()
        && first == bare::SERVE
    {
        return match bare::serve(Path::new(config)) {
            Err(error) => failed(&error),
        };
    }
    if let [first, port] = arguments.as_slice()
        && first == origin::SERVE
        && let Ok(port) = port.parse()
    {
        return match origin::serve(port) {
            Err(error) => failed(&error),
        };
    }
    match Options::read(arguments) {
        Ok(Wanted::Measure(options)) => match measure(&options) {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::FAILURE,
            Err(error) => failed(&*error),
        },
        Ok(Wanted::Help) => {
            print!("{}", options::HELP);
            ExitCode::SUCCESS
        }
        Ok(Wanted::SelfCheck) => {
            self_check();
            ExitCode::SUCCESS
        }
        Err(problem) => {
            eprintln!("load: {problem}\n\n{}", options::HELP);
            ExitCode::FAILURE
        }
    }
}

/// Measures; gives whether all that is installed could be measured.
fn measure(options: &Options) -> Result<bool, Box<dyn Error + Send + Sync>> {
    let site = Site::new(options.proxy_core, options.load_core)?;
    let asker = Asker::new(&site.certificate)?;
    let generators = Generators::find(&site, options.connections, options.streams)?;
    let nginx = options.program("nginx").cloned();
    let mut origin = Origin::start(&site, nginx, options.built_in_origin)?;
    wait_for(&mut origin, &asker)?;
    describe(options, &site, &origin);

    let mut all_well = true;
    let mut proxies = Vec::new();
    for peer in &options.peers {
        let Some(program) = peer.find(options.program(peer.name).map(|path| path.as_path())) else {
            println!("skipped: {} is not installed (no {})", peer.name, peer.program());
            continue;
        };
        match peer.start(&program, &site, origin.port, &asker) {
            Ok(proxy) => proxies.push(proxy),
            Err(error) => {
                println!("skipped: {} does not start: {error}", peer.name);
                all_well = false;
            }
        }
    }
    let mut outcomes = Vec::new();
    for row in &options.rows {
        if let Some(missing) = generators.missing_for(row) {
            println!("\nskipped: {} needs {missing}, which is not installed", row.name);
            continue;
        }
        let outcome = take_turns(row, &mut proxies, options, &generators, &asker, origin.port);
        let failed = |(name, result): &(&str, Result<Summary, String>)| {
            let speaks = options.peers.iter().any(|peer| peer.name == *name && peer.speaks(row.protocol));
            speaks && result.is_err()
        };
        all_well &= !outcome.results.iter().any(failed);
        print!("{}", outcome.table());
        outcomes.push(outcome);
    }
    if options.markdown {
        println!("\n{}", table::markdown(&outcomes));
    }
    Ok(all_well)
}

/// One row: every proxy is checked, then all take turns.
fn take_turns(
    row: &'static Row,
    proxies: &mut [Running],
    options: &Options,
    generators: &Generators,
    asker: &Asker,
    origin: u16,
) -> Outcome {
    let mut turns: Vec<(&Running, Result<Vec<Run>, String>)> = proxies
        .iter_mut()
        .map(|proxy| {
            let checked = if !proxy.peer.speaks(row.protocol) {
                Err("it speaks no TLS".to_owned())
            } else if !proxy.program.is_running() {
                Err(format!("it has ended: {}", proxy.program.last_words()))
            } else {
                asker.verify(row, proxy.port(row.protocol), origin).map_err(|error| error.to_string())
            };
            (&*proxy, checked.map(|()| Vec::new()))
        })
        .collect();
    for _ in 0..options.rounds {
        for (proxy, runs) in &mut turns {
            let Ok(done) = runs else { continue };
            match Run::make(row, proxy, options.plan, generators, asker, origin) {
                Ok(run) => done.push(run),
                Err(reason) => *runs = Err(reason),
            }
        }
    }
    let measured = |runs: &Result<Vec<Run>, String>| runs.as_ref().map_or_else(|_| Vec::new(), Vec::clone);
    let base = turns.iter().find(|(proxy, _)| proxy.peer.name == table::BASE).map(|(_, runs)| measured(runs));
    let base = base.unwrap_or_default();
    let summary = |runs: Vec<Run>| Summary::of(&runs, &base).ok_or_else(|| "there was no run".to_owned());
    Outcome { row, results: turns.into_iter().map(|(proxy, runs)| (proxy.peer.name, runs.and_then(summary))).collect() }
}

fn wait_for(origin: &mut Origin, asker: &Asker) -> Result<(), String> {
    let started = Instant::now();
    while !asker.is_open(origin.port) {
        if !origin.is_running() || started.elapsed() > Duration::from_secs(10) {
            return Err(format!("the origin ({}) does not start: {}", origin.name, origin.last_words()));
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn describe(options: &Options, site: &Site, origin: &Origin) {
    let core = |core: Option<usize>| core.map_or_else(|| "any".to_owned(), |core| core.to_string());
    println!(
        "{} requests in flight, {} round(s) of {} s after {} s of warm-up; proxy on core {}, load and origin ({}) on core {}",
        options.connections,
        options.rounds,
        options.plan.time.as_secs(),
        options.plan.warm_up.as_secs(),
        core(site.proxy_core),
        origin.name,
        core(site.load_core),
    );
    if cfg!(debug_assertions) && options.program("vaxel").is_none() {
        println!("note: vaxel is a debug build; its numbers mean nothing");
    }
}

/// The parts that need no other program, as `cargo test --benches` runs them.
fn self_check() {
    load::self_check();
    measure::self_check();
    options::self_check();
    program::self_check();
    site::self_check();
    table::self_check();
    println!("load: the parts are well; `cargo bench --bench load` measures");
}

fn failed(error: &dyn Error) -> ExitCode {
    eprintln!("load: {error}");
    ExitCode::FAILURE
}
