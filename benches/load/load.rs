//! Offers load with wrk (HTTP/1.1) or h2load (HTTP/2) and reads what they found.
//!
//! Both are closed loops: a connection asks again when it was answered. Their latencies are those of a saturated core,
//! to be compared with each other, not with those of a system in its right mind.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::program::{find, pinned};
use crate::row::{Protocol, Row};
use crate::site::Site;

/// The load generators that are there.
pub(crate) struct Generators {
    wrk: Option<PathBuf>,
    h2load: Option<PathBuf>,
    room: PathBuf,
    core: Option<usize>,
    /// Requests in flight.
    connections: usize,
    /// Of them on one HTTP/2 connection.
    streams: usize,
}

/// What a generator found.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Found {
    /// Answers, of any status.
    pub(crate) requests: u64,
    /// Requests without an answer, and answers that are no success.
    pub(crate) errors: u64,
    /// How long it took.
    pub(crate) elapsed: Duration,
    /// The median latency.
    pub(crate) p50: Duration,
    /// One in a hundred took longer.
    pub(crate) p99: Duration,
}

impl Generators {
    /// Looks what is there.
    pub(crate) fn find(site: &Site, connections: usize, streams: usize) -> std::io::Result<Self> {
        let room = site.room("load")?;
        for (name, prefix) in [("get.lua", ""), ("post.lua", POST)] {
            fs::write(room.join(name), format!("{prefix}{REPORT}"))?;
        }
        let (wrk, h2load) = (find("wrk"), find("h2load"));
        Ok(Self { wrk, h2load, room, core: site.load_core, connections, streams })
    }

    /// The program that `row` needs and is not there.
    pub(crate) fn missing_for(&self, row: &Row) -> Option<&'static str> {
        match row.protocol {
            Protocol::H2 => self.h2load.is_none().then_some("h2load"),
            Protocol::Plain | Protocol::Tls => self.wrk.is_none().then_some("wrk"),
        }
    }

    /// Asks for `row` at `port` for that long.
    pub(crate) fn run(&self, row: &Row, port: u16, time: Duration) -> Result<Found, String> {
        match (row.protocol, &self.wrk, &self.h2load) {
            (Protocol::H2, _, Some(h2load)) => self.run_h2load(h2load, row, port, time),
            (Protocol::Plain | Protocol::Tls, Some(wrk), _) => self.run_wrk(wrk, row, port, time),
            _ => Err("there is no load generator".to_owned()),
        }
    }

    fn run_wrk(&self, wrk: &Path, row: &Row, port: u16, time: Duration) -> Result<Found, String> {
        let scheme = if row.protocol.is_encrypted() { "https" } else { "http" };
        let script = self.room.join(if row.sends > 0 { "post.lua" } else { "get.lua" });
        let mut command = pinned(wrk, self.core);
        command
            .args(["--threads", "1", "--connections", &self.connections.to_string()])
            .args(["--duration", &format!("{}s", time.as_secs()), "--timeout", "10s", "--latency", "--script"])
            .arg(script)
            .arg(format!("{scheme}://127.0.0.1:{port}{}", row.path));
        parse_wrk(&output_of(command)?)
    }

    fn run_h2load(&self, h2load: &Path, row: &Row, port: u16, time: Duration) -> Result<Found, String> {
        let log = self.room.join("h2load.tsv");
        let _ = fs::remove_file(&log);
        let clients = (self.connections / self.streams).max(1);
        let mut command = pinned(h2load, self.core);
        command
            .args(["--threads", "1", "--clients", &clients.to_string()])
            .args(["--max-concurrent-streams", &self.streams.to_string()])
            // Without a window of their own its defaults would bound bodies, not requests.
            .args(["--window-bits", "24", "--connection-window-bits", "26"])
            .args(["--duration", &time.as_secs().to_string(), "--log-file"])
            .arg(&log)
            .arg(format!("https://127.0.0.1:{port}{}", row.path));
        let printed = output_of(command)?;
        // This version prints a mean only; the log has every request.
        let log = fs::read_to_string(&log).map_err(|error| format!("h2load's log: {error}"))?;
        parse_h2load(&printed, &log, time)
    }
}

fn output_of(mut command: Command) -> Result<String, String> {
    let output = command.output().map_err(|error| error.to_string())?;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        Ok(printed)
    } else {
        Err(format!("{printed}{}", String::from_utf8_lossy(&output.stderr)))
    }
}

/// Reads the line of `report.lua`.
fn parse_wrk(printed: &str) -> Result<Found, String> {
    let line = printed.lines().find_map(|line| line.strip_prefix("report ")).ok_or_else(|| printed.to_owned())?;
    let value = |name: &str| {
        line.split(' ')
            .find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=')?.parse::<u64>().ok())
            .ok_or_else(|| format!("no {name} in: {line}"))
    };
    let errors: u64 = ["connect", "read", "write", "status", "timeout"].into_iter().map(value).sum::<Result<_, _>>()?;
    Ok(Found {
        requests: value("requests")?,
        errors,
        elapsed: Duration::from_micros(value("duration_us")?),
        p50: Duration::from_micros(value("p50_us")?),
        p99: Duration::from_micros(value("p99_us")?),
    })
}

/// Reads `requests: 10 total, .. 9 succeeded, 1 failed, ..`, `status codes: 9 2xx, ..`, and lines of start, status and
/// microseconds. `elapsed` is what was asked for: in that mode h2load counts only within it.
fn parse_h2load(printed: &str, log: &str, elapsed: Duration) -> Result<Found, String> {
    let number = |line: &str, word: &str| {
        let line = printed.lines().find_map(|candidate| candidate.strip_prefix(line))?;
        line.split(',').find_map(|part| part.trim().strip_suffix(word)?.trim().parse::<u64>().ok())
    };
    let counts = (number("requests:", "done"), number("requests:", "failed"), number("status codes:", "2xx"));
    let (Some(done), Some(failed), Some(good)) = counts else { return Err(printed.to_owned()) };
    let mut took: Vec<u64> = log.lines().filter_map(|line| line.rsplit('\t').next()?.trim().parse().ok()).collect();
    took.sort_unstable();
    let at = |share: usize| {
        let index = (took.len() * share / 100).min(took.len().saturating_sub(1));
        Duration::from_micros(took.get(index).copied().unwrap_or_default())
    };
    Ok(Found { requests: done, errors: failed + done.saturating_sub(good), elapsed, p50: at(50), p99: at(99) })
}

const REPORT: &str = include_str!("report.lua");
/// 1 KiB, as `Row::sends` says.
const POST: &str =
    "wrk.method = 'POST'\nwrk.body = string.rep('x', 1024)\nwrk.headers['Content-Type'] = 'application/json'\n";

/// Run by `cargo test --benches`.
pub(crate) fn self_check() {
    let wrk = "Running 1s test\nreport requests=100 duration_us=2000000 connect=0 read=1 write=0 status=2 timeout=3 \
               p50_us=640 p99_us=900\n";
    let micros = Duration::from_micros;
    let expected = Found { requests: 100, errors: 6, elapsed: micros(2_000_000), p50: micros(640), p99: micros(900) };
    assert_eq!(parse_wrk(wrk), Ok(expected));
    assert!(parse_wrk("unable to connect").is_err());

    let h2load = "finished in 1.00s, 4.00 req/s\nrequests: 5 total, 5 started, 4 done, 4 succeeded, 1 failed, 1 errored, \
                  0 timeout\nstatus codes: 3 2xx, 0 3xx, 0 4xx, 1 5xx\n";
    let log = "1\t200\t10\n1\t200\t40\n2\t200\t20\n3\t500\t30\n";
    let expected = Found { requests: 4, errors: 2, elapsed: micros(1_000_000), p50: micros(30), p99: micros(40) };
    assert_eq!(parse_h2load(h2load, log, micros(1_000_000)), Ok(expected));
}
