//! The command line of the bench.

use std::path::PathBuf;
use std::time::Duration;

use crate::measure::Plan;
use crate::peer::{PEERS, Peer};
use crate::row::{ROWS, Row};

/// What is wanted.
pub(crate) struct Options {
    pub(crate) peers: Vec<&'static Peer>,
    pub(crate) rows: Vec<&'static Row>,
    pub(crate) rounds: usize,
    pub(crate) plan: Plan,
    pub(crate) connections: usize,
    pub(crate) streams: usize,
    pub(crate) proxy_core: usize,
    pub(crate) load_core: usize,
    pub(crate) built_in_origin: bool,
    pub(crate) markdown: bool,
    programs: Vec<(String, PathBuf)>,
}

/// What the command line asks for.
pub(crate) enum Wanted {
    /// To measure.
    Measure(Options),
    /// To be told the options.
    Help,
    /// Not to measure: `cargo test --benches`, which gives no `--bench`.
    SelfCheck,
}

impl Options {
    /// Reads the arguments after the program's name.
    pub(crate) fn read(arguments: impl IntoIterator<Item = String>) -> Result<Wanted, String> {
        let mut arguments = arguments.into_iter();
        let mut options = Self::default();
        let mut is_bench = false;
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or_else(|| format!("{argument} needs a value"));
            match argument.as_str() {
                "--bench" => is_bench = true,
                "--help" | "-h" => return Ok(Wanted::Help),
                "--quick" => {
                    options.rounds = 1;
                    options.plan = Plan { time: Duration::from_secs(1), warm_up: Duration::ZERO };
                }
                "--only" => options.peers = chosen("proxy", &value()?, PEERS, |peer| peer.name)?,
                "--rows" => options.rows = chosen("row", &value()?, ROWS, |row| row.name)?,
                "--rounds" => options.rounds = number(&argument, &value()?, 1)?,
                "--seconds" => options.plan.time = seconds(number(&argument, &value()?, 1)?),
                "--warm-up" => options.plan.warm_up = seconds(number(&argument, &value()?, 0)?),
                "--connections" => options.connections = number(&argument, &value()?, 1)?,
                "--streams" => options.streams = number(&argument, &value()?, 1)?,
                "--proxy-core" => options.proxy_core = number(&argument, &value()?, 0)?,
                "--load-core" => options.load_core = number(&argument, &value()?, 0)?,
                "--builtin-origin" => options.built_in_origin = true,
                "--markdown" => options.markdown = true,
                "--program" => {
                    let value = value()?;
                    let (name, path) = value.split_once('=').ok_or("--program needs NAME=PATH")?;
                    chosen("proxy", name, PEERS, |peer| peer.name)?;
                    options.programs.push((name.to_owned(), PathBuf::from(path)));
                }
                _ => return Err(format!("{argument} is not known")),
            }
        }
        Ok(if is_bench { Wanted::Measure(options) } else { Wanted::SelfCheck })
    }

    /// The program the user gave for that name.
    pub(crate) fn program(&self, name: &str) -> Option<&PathBuf> {
        self.programs.iter().find(|(named, _)| named == name).map(|(_, path)| path)
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            peers: PEERS.iter().collect(),
            rows: ROWS.iter().collect(),
            rounds: 3,
            plan: Plan { time: seconds(4), warm_up: seconds(1) },
            connections: 64,
            streams: 4,
            proxy_core: 1,
            load_core: 0,
            built_in_origin: false,
            markdown: false,
            programs: Vec::new(),
        }
    }
}

fn chosen<T>(what: &str, names: &str, all: &'static [T], name_of: fn(&T) -> &str) -> Result<Vec<&'static T>, String> {
    let find = |name: &str| {
        all.iter().find(|one| name_of(one) == name).ok_or_else(|| {
            let known: Vec<&str> = all.iter().map(name_of).collect();
            format!("there is no {what} {name}; there are {}", known.join(", "))
        })
    };
    names.split(',').map(find).collect()
}

fn number(option: &str, value: &str, least: usize) -> Result<usize, String> {
    let number = value.parse().ok().filter(|number| *number >= least);
    number.ok_or_else(|| format!("{option} needs a whole number of at least {least}, not {value}"))
}

const fn seconds(seconds: usize) -> Duration {
    Duration::from_secs(seconds as u64)
}

/// What `--help` prints.
pub(crate) const HELP: &str = "\
Measures vaxel beside its peers: CPU time per request, requests per second, latency.

cargo bench --bench load -- [OPTIONS]
  --only NAMES         proxies: vaxel,nginx,nginx-files,haproxy,varnish,hyper; all that are installed by default
  --rows NAMES         rows: hit1k,hit100k,pass1k,pass100k,post1k,tls_hit1k,h2_hit1k,tls_pass1k; all by default
  --quick              one round of one second without warm-up: whether it works, no more
  --rounds N           how often every proxy has its turn; medians are shown (3)
  --seconds N          how long a turn is (4)
  --warm-up N          seconds of load before each turn (1)
  --connections N      requests in flight (64)
  --streams N          of them on each connection in HTTP/2 rows (4)
  --proxy-core N       the core of the proxy (1)
  --load-core N        the core of origin and load generator (0)
  --program NAME=PATH  another program for a proxy, such as an older vaxel
  --builtin-origin     an origin of our own even where nginx is installed
  --markdown           a table for the README at the end
";

/// Run by `cargo test --benches`.
pub(crate) fn self_check() {
    let read = |line: &str| Options::read(line.split_whitespace().map(str::to_owned));
    let Ok(Wanted::Measure(options)) = read("--only nginx,vaxel --rows pass1k --seconds 2 --program vaxel=a/b --bench")
    else {
        panic!("a good command line");
    };
    let names: Vec<&str> = options.peers.iter().map(|peer| peer.name).collect();
    assert_eq!((names, options.plan.time), (vec!["nginx", "vaxel"], Duration::from_secs(2)));
    assert_eq!(options.program("vaxel"), Some(&PathBuf::from("a/b")));
    assert!(matches!(read(""), Ok(Wanted::SelfCheck)));
    assert!(matches!(read("--help"), Ok(Wanted::Help)));
    for bad in ["--rows hit", "--seconds 0", "--seconds", "--program vaxel", "--fast"] {
        assert!(read(bad).is_err(), "{bad}");
    }
    let names = PEERS.iter().map(|peer| peer.name).chain(ROWS.iter().map(|row| row.name));
    assert!(names.into_iter().all(|name| HELP.contains(name)), "--help names everything");
}
