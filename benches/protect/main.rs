//! The protection benchmark: what a fragile box and its consumers get, alone and behind nginx, HAProxy, Envoy and Vaxel.
//!
//! `cargo bench --bench protect -- --help` lists the options; `--write` makes `docs/PROTECTION.md` and its plots anew.
//! Each run has a fresh box (`vaxel sim`, seeded), a fresh proxy and the same arrivals: an open loop, so that nobody is
//! spared by being slow. Proxies take turns within each load. What counts is what the box counted itself, and what every
//! single client got. Configurations are in `peers/`, each with the reasons for what is in it.
//!
//! - `story`: what is offered, and what happens to the box meanwhile · `peer`: who stands before it
//! - `run`: one run · `record`: its figures, and what is made of several
//! - `claims`: what must hold in every run · `page`: tables · `figures`: which plots · `plot`: how they are drawn
//! - `options`: command line · `../shared`: processes, ports, files
#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a bench waits for real programs, and its output is what it is for"
)]

mod claims;
mod figures;
mod options;
mod page;
mod peer;
mod plot;
#[path = "../shared/program.rs"]
#[allow(dead_code, reason = "the other bench uses the rest")]
mod program;
mod record;
mod run;
#[path = "../shared/site.rs"]
#[allow(dead_code, reason = "the other bench uses the rest")]
mod site;
mod story;

use std::error::Error;
use std::process::ExitCode;

use crate::options::{Options, Wanted};
use crate::peer::Found;
use crate::record::{Record, Run};
use crate::site::Site;

type Failure = Box<dyn Error + Send + Sync>;

fn main() -> ExitCode {
    let done = match Options::read(std::env::args().skip(1)) {
        Ok(Wanted::Measure(options)) => measure(&options),
        Ok(Wanted::Render) => Record::read().and_then(|record| write(&record)).map(|()| true),
        Ok(Wanted::Help) => {
            print!("{}", options::HELP);
            Ok(true)
        }
        Ok(Wanted::SelfCheck) => {
            self_check();
            Ok(true)
        }
        Err(problem) => Err(format!("{problem}\n\n{}", options::HELP).into()),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("protect: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Measures; gives whether all that is claimed has held.
fn measure(options: &Options) -> Result<bool, Failure> {
    let site = Site::new(PROXY_CORE, LOAD_CORE)?;
    let mut peers: Vec<Found> = Vec::new();
    for peer in &options.peers {
        match peer.find(options.program(peer.name)) {
            Some(found) => peers.push(found),
            None => println!("left out: {} is not installed (no {})", peer.name, peer.program),
        }
    }
    if cfg!(debug_assertions) {
        println!("note: a debug build; CPU times mean nothing");
    }
    let mut record = Record::new(&peers);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    for round in 0..options.rounds {
        for story in &options.stories {
            println!("\n{} (round {} of {})", story.title(), round + 1, options.rounds);
            println!("{}", Run::HEADS);
            for found in peers.iter().filter(|found| !story.cached || found.peer.caches.is_some()) {
                let run = runtime.block_on(run::make(story, found, &site, options.seed + round as u64))?;
                println!("{}", run.line());
                record.runs.push(run);
            }
        }
    }
    let broken = claims::broken(&record.runs);
    for claim in &broken {
        println!("NOT SO: {claim}");
    }
    if options.write {
        record.write()?;
        write(&record)?;
    }
    Ok(broken.is_empty())
}

/// The page and its plots.
fn write(record: &Record) -> Result<(), Failure> {
    figures::write(record)?;
    page::write(record)?;
    println!("\nwritten: docs/PROTECTION.md, docs/protection/");
    Ok(())
}

/// The parts that need no other program, as `cargo test --benches` runs them.
fn self_check() {
    claims::self_check();
    options::self_check();
    page::self_check();
    plot::self_check();
    record::self_check();
    story::self_check();
    println!("protect: the parts are well; `cargo bench --bench protect` measures");
}

/// The proxy has a core of its own; box and load share the other.
const PROXY_CORE: usize = 1;
const LOAD_CORE: usize = 0;
