//! The figures of runs, as they are kept in `docs/protection/results.json`, and what is made of several.

use std::fs;
use std::path::PathBuf;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::Failure;
use crate::peer::Found;
use crate::story;

/// Everything that was measured, and where.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    /// The day, in UTC.
    pub(crate) day: String,
    pub(crate) machine: String,
    /// Names and versions of the programs.
    pub(crate) peers: Vec<(String, String)>,
    pub(crate) runs: Vec<Run>,
}

/// What one run showed.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Run {
    pub(crate) peer: String,
    pub(crate) story: String,
    /// Offered, in multiples of the capacity.
    pub(crate) times: f64,
    pub(crate) cached: bool,
    pub(crate) seed: u64,
    /// Seconds during which requests were sent.
    pub(crate) length: f64,
    /// Answers per second the box can give at best.
    pub(crate) capacity: f64,
    pub(crate) offered: u64,
    /// Answered well, before the client left.
    pub(crate) ok: u64,
    /// Of those: while requests were sent. What is left over at the end is answered by a box that is at leisure again.
    pub(crate) in_time: u64,
    /// Of those: from a cache.
    pub(crate) hits: u64,
    /// Refused (429, 503) with a Retry-After.
    pub(crate) refused: u64,
    /// Refused without.
    pub(crate) untold: u64,
    /// Any other answer, and broken connections.
    pub(crate) errors: u64,
    /// Clients that left.
    pub(crate) left: u64,
    /// Milliseconds from the intended time, of the good answers.
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    /// CPU time of the proxy for each request offered, in microseconds.
    pub(crate) cpu: Option<f64>,
    pub(crate) consumers: Vec<Consumer>,
    pub(crate) seen: BoxCounts,
    pub(crate) moments: Vec<Moment>,
}

/// What one consumer got.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Consumer {
    pub(crate) name: String,
    pub(crate) offered: u64,
    pub(crate) ok: u64,
}

/// What the box counted itself.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct BoxCounts {
    pub(crate) arrived: u64,
    /// Work done to the end for a client that had left.
    pub(crate) wasted: u64,
    pub(crate) crashes: u64,
    /// Most that were ever inside at once.
    pub(crate) max_present: usize,
}

/// Half a second.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Moment {
    /// Good answers that ended in it.
    pub(crate) ok: u64,
    /// Requests of polite consumers that began in it, and those of them that were answered well.
    pub(crate) polite_offered: u64,
    pub(crate) polite_ok: u64,
    /// Most that were seen inside the box, and of those, for nobody.
    pub(crate) present: usize,
    pub(crate) abandoned: usize,
    pub(crate) down: bool,
}

impl Record {
    /// Of these, here and now, without a run.
    pub(crate) fn new(peers: &[Found]) -> Self {
        let day = jiff::Timestamp::try_from(SystemTime::now()).map(|now| now.strftime("%Y-%m-%d").to_string());
        let versions = peers.iter().filter_map(|found| Some((found.peer.name.to_owned(), found.version()?)));
        Self { day: day.unwrap_or_default(), machine: machine(), peers: versions.collect(), runs: Vec::new() }
    }

    /// The one that is kept.
    pub(crate) fn read() -> Result<Self, Failure> {
        Ok(serde_json::from_str(&fs::read_to_string(kept())?)?)
    }

    /// Keeps it.
    pub(crate) fn write(&self) -> Result<(), Failure> {
        let path = kept();
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        // A run on each line: readable in a diff, and not a line for each number.
        let runs: Vec<String> = self.runs.iter().map(serde_json::to_string).collect::<Result<_, _>>()?;
        let (day, machine) = (serde_json::to_string(&self.day)?, serde_json::to_string(&self.machine)?);
        let peers = serde_json::to_string(&self.peers)?;
        let runs = runs.join(",\n");
        let text =
            format!("{{\n\"day\": {day},\n\"machine\": {machine},\n\"peers\": {peers},\n\"runs\": [\n{runs}\n]\n}}\n");
        Ok(fs::write(path, text)?)
    }

    /// The names of the peers that ran, in the order of the tables.
    pub(crate) fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for run in &self.runs {
            if !names.contains(&run.peer.as_str()) {
                names.push(&run.peer);
            }
        }
        names
    }

    /// How much was offered in steady runs, without doubles, in order.
    pub(crate) fn loads(&self) -> Vec<f64> {
        let mut loads: Vec<f64> =
            self.runs.iter().filter(|run| run.story == "steady" && !run.cached).map(|run| run.times).collect();
        loads.sort_by(f64::total_cmp);
        loads.dedup();
        loads
    }

    /// All rounds of one cell.
    pub(crate) fn rounds(&self, peer: &str, story: &str, times: Option<f64>, cached: bool) -> Vec<&Run> {
        let fits = |run: &&Run| {
            run.peer == peer
                && run.story == story
                && run.cached == cached
                && times.is_none_or(|times| run.times == times)
        };
        self.runs.iter().filter(fits).collect()
    }
}

impl Run {
    /// Above [`Run::line`].
    pub(crate) const HEADS: &'static str = "                 good/s  of capacity   p50 ms   p99 ms  polite  fair  refused  untold  errors    left  \
                                            in box  wasted  crashes  cpu µs";

    /// A line while the bench runs.
    pub(crate) fn line(&self) -> String {
        format!(
            "  {:<14} {:>6.1}  {:>10.0}%  {:>7.0}  {:>7.0}  {:>5.0}%  {:>4.2}  {:>7}  {:>6}  {:>6}  {:>6}  {:>6}  {:>6}  {:>7}  {:>6}",
            self.peer,
            self.goodput(),
            self.goodput() / self.capacity * 100.0,
            self.p50,
            self.p99,
            self.polite() * 100.0,
            self.fairness(),
            self.refused,
            self.untold,
            self.errors,
            self.left,
            self.seen.max_present,
            self.seen.wasted,
            self.seen.crashes,
            self.cpu.map_or_else(|| "-".to_owned(), |cpu| format!("{cpu:.0}")),
        )
    }

    /// Good answers per second.
    pub(crate) fn goodput(&self) -> f64 {
        self.in_time as f64 / self.length
    }

    /// The share of the polite consumers' requests that were answered well.
    pub(crate) fn polite(&self) -> f64 {
        let polite = self.consumers.iter().filter(|consumer| story::POLITE.contains(&consumer.name.as_str()));
        let (ok, offered) = polite.fold((0, 0), |(ok, offered), one| (ok + one.ok, offered + one.offered));
        ok as f64 / offered.max(1) as f64
    }

    /// Jain's index of what each consumer got of its fair share: 1 if all got the same part of it, 1/4 if one got all
    /// (Jain, Chiu, Hawe 1984). Fair shares are those of max-min fairness: nobody's is more than it asked for, and what
    /// one leaves is shared by the others.
    pub(crate) fn fairness(&self) -> f64 {
        let asked: Vec<f64> = self.consumers.iter().map(|consumer| consumer.offered as f64).collect();
        let shares = max_min(&asked, self.capacity * self.length);
        let got = self.consumers.iter().zip(shares).filter(|(_, share)| *share > 0.0);
        let got: Vec<f64> = got.map(|(consumer, share)| consumer.ok as f64 / share).collect();
        jain(&got)
    }
}

impl Consumer {
    pub(crate) fn new(name: &str) -> Self {
        Self { name: name.to_owned(), ..Self::default() }
    }
}

/// The middle value; of an even number the mean of the two in the middle.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_unstable_by(f64::total_cmp);
    Some(f64::midpoint(*values.get(values.len().checked_sub(1)? / 2)?, *values.get(values.len() / 2)?))
}

/// Who gets how much of `total`.
fn max_min(asked: &[f64], total: f64) -> Vec<f64> {
    let mut order: Vec<(usize, f64)> = asked.iter().copied().enumerate().collect();
    order.sort_by(|left, right| left.1.total_cmp(&right.1));
    let mut shares = vec![0.0; asked.len()];
    let (mut left, mut waiting) = (total, asked.len());
    for (place, wish) in order {
        let share = wish.min(left / waiting as f64);
        if let Some(one) = shares.get_mut(place) {
            *one = share;
        }
        left -= share;
        waiting -= 1;
    }
    shares
}

fn jain(values: &[f64]) -> f64 {
    let (sum, squares) = values.iter().fold((0.0, 0.0), |(sum, squares), value| (sum + value, squares + value * value));
    if squares > 0.0 { sum * sum / (values.len() as f64 * squares) } else { 0.0 }
}

fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ").map(|(_, name)| name));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let kernel = read("/proc/sys/kernel/osrelease");
    format!("{cores} cores of {}, Linux {}", model.unwrap_or("an unknown CPU").trim(), kernel.trim())
}

fn kept() -> PathBuf {
    PathBuf::from(FOLDER).join("results.json")
}

/// Where the record and the plots are.
pub(crate) const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/protection");

/// Run by `cargo test --benches`.
pub(crate) fn self_check() {
    assert_eq!(median([]), None);
    assert_eq!(median([3.0, 1.0, 2.0]), Some(2.0));
    assert_eq!(median([4.0, 1.0, 2.0, 3.0]), Some(2.5));
    assert_eq!(max_min(&[10.0, 10.0, 10.0, 100.0], 100.0), [10.0, 10.0, 10.0, 70.0]);
    assert_eq!(max_min(&[50.0, 10.0, 50.0, 500.0], 100.0), [30.0, 10.0, 30.0, 30.0]);
    assert_eq!(max_min(&[1.0, 2.0], 100.0), [1.0, 2.0]);
    assert_eq!((jain(&[1.0; 4]), jain(&[0.0, 0.0, 0.0, 1.0]), jain(&[])), (1.0, 0.25, 0.0));

    let one = |name: &str, offered, ok| Consumer { name: name.to_owned(), offered, ok };
    let consumers = vec![one("shop", 10, 5), one("mobile", 10, 5), one("partner", 10, 5), one("batch", 100, 70)];
    let run = Run { consumers, length: 1.0, capacity: 100.0, in_time: 85, ..Run::default() };
    assert!((run.polite() - 0.5).abs() < 1e-9 && (run.goodput() - 85.0).abs() < 1e-9);
    // 0.5, 0.5, 0.5 and 1: 2.5² / (4 · 1.75).
    assert!((run.fairness() - 6.25 / 7.0).abs() < 1e-9, "{}", run.fairness());
}
