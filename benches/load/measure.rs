//! Runs of load against each proxy in turn, and what is made of several of them.

use std::time::Duration;

use crate::ask::Asker;
use crate::load::{Found, Generators};
use crate::peer::Running;
use crate::row::Row;

/// One run against one proxy.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    found: Found,
    /// CPU time of the proxy meanwhile.
    cpu: Duration,
    /// Requests the origin got meanwhile.
    asked: u64,
    /// Resident memory of the proxy at the end, in bytes.
    resident: u64,
}

/// The median of all runs of a row against a proxy, value by value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Summary {
    /// Answers per second.
    pub(crate) rate: f64,
    /// CPU time for each, in microseconds.
    pub(crate) cpu: f64,
    /// That beside the base in the same round, the median of all rounds: a slow minute of the machine meets both.
    pub(crate) ratio: Option<f64>,
    /// How far the runs lie apart in that, as a share of the median.
    pub(crate) spread: f64,
    /// The share of the time the proxy had its core. Well below 1 the load, not the proxy, was the limit of `rate`.
    pub(crate) busy: f64,
    /// The median latency, in milliseconds.
    pub(crate) p50: f64,
    /// One in a hundred took longer, in milliseconds.
    pub(crate) p99: f64,
    /// In all runs together.
    pub(crate) errors: u64,
    /// In MiB.
    pub(crate) resident: f64,
}

/// How a run is made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    /// Measured.
    pub(crate) time: Duration,
    /// Before that, not measured.
    pub(crate) warm_up: Duration,
}

impl Run {
    /// Offers the load of `row` to `proxy`; fails where answers came from the wrong place.
    pub(crate) fn make(
        row: &Row,
        proxy: &Running,
        plan: Plan,
        generators: &Generators,
        asker: &Asker,
        origin: u16,
    ) -> Result<Self, String> {
        let port = proxy.port(row.protocol);
        if !plan.warm_up.is_zero() {
            generators.run(row, port, plan.warm_up)?;
        }
        let count = || asker.count(origin).map_err(|error| format!("the origin: {error}"));
        let (asked, used) = (count()?, proxy.program.cpu_time());
        let found = generators.run(row, port, plan.time)?;
        let cpu = proxy.program.cpu_time().saturating_sub(used);
        // The first count is a request too, and comes after itself.
        let asked = count()?.saturating_sub(asked + 1);
        let run = Self { found, cpu, asked, resident: proxy.program.resident() };
        run.check(row)?;
        Ok(run)
    }

    /// CPU time for each request, in microseconds.
    fn cpu_each(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.found.requests as f64
    }

    /// A hit must not reach the origin, a pass must, but for those under way when the load ends.
    fn check(&self, row: &Row) -> Result<(), String> {
        let (asked, requests) = (self.asked, self.found.requests);
        if requests == 0 {
            return Err("no request was answered".to_owned());
        }
        let tolerated = requests / 100;
        let right = if row.cached { asked <= tolerated } else { asked + tolerated >= requests };
        if right { Ok(()) } else { Err(format!("the origin was asked {asked} times for {requests} requests")) }
    }
}

impl Summary {
    /// Of at least one run, beside the runs of the base in the same rounds.
    pub(crate) fn of(runs: &[Run], base: &[Run]) -> Option<Self> {
        let ratio = median(runs.iter().zip(base).map(|(run, base)| run.cpu_each() / base.cpu_each()).collect());
        let median = |value: &dyn Fn(&Run) -> f64| median(runs.iter().map(value).collect());
        let middle = median(&Run::cpu_each)?;
        let each = runs.iter().map(Run::cpu_each);
        let (least, most) = each.fold((f64::MAX, f64::MIN), |(least, most), cpu| (least.min(cpu), most.max(cpu)));
        let seconds = |run: &Run| run.found.elapsed.as_secs_f64();
        Some(Self {
            rate: median(&|run| run.found.requests as f64 / seconds(run))?,
            cpu: middle,
            ratio,
            spread: if middle > 0.0 { (most - least) / middle } else { 0.0 },
            busy: median(&|run| run.cpu.as_secs_f64() / seconds(run))?,
            p50: median(&|run| run.found.p50.as_secs_f64() * 1e3)?,
            p99: median(&|run| run.found.p99.as_secs_f64() * 1e3)?,
            errors: runs.iter().map(|run| run.found.errors).sum(),
            resident: median(&|run| run.resident as f64 / f64::from(1 << 20))?,
        })
    }
}

/// The middle value; of an even number the mean of the two in the middle.
fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    let upper = values.get(values.len() / 2)?;
    let lower = values.get((values.len() - 1) / 2)?;
    Some(f64::midpoint(*lower, *upper))
}

/// Run by `cargo test --benches`.
pub(crate) fn self_check() {
    assert_eq!(median(vec![]), None);
    assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
    assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));

    let millis = Duration::from_millis;
    let run = |requests, cpu| Run {
        found: Found { requests, errors: 1, elapsed: millis(1000), p50: millis(1), p99: millis(2) },
        cpu: millis(cpu),
        asked: 0,
        resident: 1 << 20,
    };
    let (runs, base) = ([run(1000, 500), run(1000, 600), run(1000, 400)], [run(500, 500), run(1000, 1000)]);
    let summary = Summary::of(&runs, &base).expect("three runs");
    // 0.5 of the first round and 0.6 of the second; the third has nothing beside it.
    assert!(summary.ratio.is_some_and(|ratio| (ratio - 0.55).abs() < 1e-9), "{summary:?}");
    assert_eq!((summary.rate, summary.cpu, summary.busy, summary.errors), (1000.0, 500.0, 0.5, 3));
    assert!((summary.spread - 0.4).abs() < 1e-9);
}
