//! The command line of the bench.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::peer::{PEERS, Peer};
use crate::story::{Kind, Story};

/// What is wanted.
pub(crate) struct Options {
    pub(crate) peers: Vec<&'static Peer>,
    pub(crate) stories: Vec<Story>,
    pub(crate) rounds: usize,
    pub(crate) seed: u64,
    pub(crate) write: bool,
    programs: Vec<(String, PathBuf)>,
}

/// What the command line asks for.
pub(crate) enum Wanted {
    /// To measure.
    Measure(Options),
    /// Page and plots of what is kept.
    Render,
    /// To be told the options.
    Help,
    /// Not to measure: `cargo test --benches`, which gives no `--bench`.
    SelfCheck,
}

/// What the stories are made of.
struct Shape {
    kinds: Vec<Kind>,
    loads: Vec<f64>,
    cached: bool,
    /// Seconds of a steady run.
    steady: f64,
    /// Seconds of any other.
    eventful: f64,
}

impl Options {
    /// Reads the arguments after the program's name.
    pub(crate) fn read(arguments: impl IntoIterator<Item = String>) -> Result<Wanted, String> {
        let mut arguments = arguments.into_iter();
        let peers = PEERS.iter().collect();
        let mut options = Self { peers, stories: Vec::new(), rounds: 1, seed: 1, write: false, programs: Vec::new() };
        let mut shape = Shape::full();
        let (mut is_bench, mut renders) = (false, false);
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or_else(|| format!("{argument} needs a value"));
            match argument.as_str() {
                "--bench" => is_bench = true,
                "--help" | "-h" => return Ok(Wanted::Help),
                "--quick" => shape = Shape::quick(),
                "--write" => options.write = true,
                "--render" => renders = true,
                "--only" => options.peers = chosen("peer", &value()?, PEERS.iter(), |peer| peer.name)?,
                "--stories" => shape.choose(&value()?)?,
                "--loads" => {
                    shape.loads = value()?.split(',').map(|load| number(&argument, load)).collect::<Result<_, _>>()?
                }
                "--seconds" => shape.steady = number(&argument, &value()?)?,
                "--eventful" => shape.eventful = number(&argument, &value()?)?,
                "--rounds" => options.rounds = number(&argument, &value()?)? as usize,
                "--seed" => options.seed = number(&argument, &value()?)? as u64,
                "--program" => {
                    let value = value()?;
                    let (name, path) = value.split_once('=').ok_or("--program needs NAME=PATH")?;
                    let named = PEERS.iter().filter(|peer| peer.name == name || peer.program == name);
                    let before = options.programs.len();
                    options.programs.extend(named.map(|peer| (peer.name.to_owned(), PathBuf::from(path))));
                    if options.programs.len() == before {
                        return Err(format!("there is no program {name}"));
                    }
                }
                _ => return Err(format!("{argument} is not known")),
            }
        }
        options.stories = shape.stories();
        Ok(match (is_bench, renders) {
            (false, _) => Wanted::SelfCheck,
            (true, true) => Wanted::Render,
            (true, false) => Wanted::Measure(options),
        })
    }

    /// The program the user gave for that name.
    pub(crate) fn program(&self, name: &str) -> Option<&Path> {
        self.programs.iter().find(|(named, _)| named == name).map(|(_, path)| path.as_path())
    }
}

impl Shape {
    fn full() -> Self {
        Self {
            kinds: Kind::ALL.to_vec(),
            loads: vec![0.5, 1.0, 2.0, 5.0, 10.0],
            cached: true,
            steady: 10.0,
            eventful: 15.0,
        }
    }

    /// Whether everything works, and what must hold holds: a quarter of the time.
    fn quick() -> Self {
        Self { kinds: vec![Kind::Steady, Kind::Storm], loads: vec![5.0], cached: false, steady: 3.0, eventful: 6.0 }
    }

    fn choose(&mut self, names: &str) -> Result<(), String> {
        self.cached = names.split(',').any(|name| name == "cached");
        let others: Vec<&str> = names.split(',').filter(|name| *name != "cached").collect();
        self.kinds.clear();
        if !others.is_empty() {
            let kinds = chosen("story", &others.join(","), Kind::ALL.iter(), |kind| kind.name())?;
            self.kinds = kinds.into_iter().copied().collect();
        }
        Ok(())
    }

    fn stories(&self) -> Vec<Story> {
        let story =
            |kind, times, seconds, cached| Story { kind, times, length: Duration::from_secs_f64(seconds), cached };
        let mut stories = Vec::new();
        for kind in &self.kinds {
            match kind {
                Kind::Steady => stories.extend(self.loads.iter().map(|load| story(*kind, *load, self.steady, false))),
                // Within what it can do, but not while it is slow.
                Kind::Slow | Kind::Crash => stories.push(story(*kind, 0.8, self.eventful, false)),
                Kind::Storm => stories.push(story(*kind, 5.0, self.eventful, false)),
            }
        }
        if self.cached {
            stories.push(story(Kind::Steady, 5.0, self.steady, true));
        }
        stories
    }
}

fn chosen<T>(
    what: &str,
    names: &str,
    all: impl Iterator<Item = &'static T> + Clone,
    name_of: fn(&T) -> &str,
) -> Result<Vec<&'static T>, String> {
    let mut found = Vec::new();
    for name in names.split(',') {
        let before = found.len();
        found.extend(all.clone().filter(|one| name_of(one) == name));
        if found.len() == before {
            let known: Vec<&str> = all.map(name_of).collect();
            return Err(format!("there is no {what} {name}; there are {}", known.join(", ")));
        }
    }
    Ok(found)
}

fn number(option: &str, value: &str) -> Result<f64, String> {
    let number = value.parse().ok().filter(|number: &f64| number.is_finite() && *number > 0.0);
    number.ok_or_else(|| format!("{option} needs a number above zero, not {value}"))
}

/// What `--help` prints.
pub(crate) const HELP: &str = "\
Overloads a fragile box, alone and behind vaxel and its peers, and compares what it and its consumers get.

cargo bench --bench protect -- [OPTIONS]
  --write              make docs/PROTECTION.md, docs/protection/*.svg and results.json anew
  --render             the page and its plots of the results that are kept, without measuring
  --quick              one load and a storm, short: whether what must hold holds; at most two minutes
  --only NAMES         peers: direct,nginx,nginx-rates,haproxy,envoy,envoy-adaptive,vaxel; all that are installed by default
  --stories NAMES      steady,slow,crash,storm,cached; all by default
  --loads NUMBERS      of steady runs, in multiples of what the box can do (0.5,1,2,5,10)
  --seconds N          how long a steady run is (10)
  --eventful N         how long any other is (15)
  --rounds N           how often every peer has its turn; medians are shown (1)
  --seed N             what chance is drawn from (1); each round takes the next
  --program NAME=PATH  another program for a peer, such as an Envoy that is not in PATH
";

/// Run by `cargo test --benches`.
pub(crate) fn self_check() {
    let read = |line: &str| Options::read(line.split_whitespace().map(str::to_owned));
    let Ok(Wanted::Measure(options)) =
        read("--bench --only vaxel,direct --stories steady,cached --loads 1,2 --seconds 4 --program envoy=a/b")
    else {
        panic!("a good command line");
    };
    let names: Vec<&str> = options.peers.iter().map(|peer| peer.name).collect();
    let stories: Vec<(f64, bool)> = options.stories.iter().map(|story| (story.times, story.cached)).collect();
    assert_eq!((names, stories), (vec!["vaxel", "direct"], vec![(1.0, false), (2.0, false), (5.0, true)]));
    assert_eq!(options.program("envoy-adaptive"), Some(Path::new("a/b")));
    assert!(matches!(read(""), Ok(Wanted::SelfCheck)));
    assert!(matches!(read("--render --bench"), Ok(Wanted::Render)));
    assert!(matches!(read("--help"), Ok(Wanted::Help)));
    for bad in ["--only caddy", "--loads 0", "--seconds", "--program vaxel", "--fast", "--stories steadily"] {
        assert!(read(bad).is_err(), "{bad}");
    }
    assert!(PEERS.iter().map(|peer| peer.name).chain(Kind::ALL.map(Kind::name)).all(|name| HELP.contains(name)));
}
