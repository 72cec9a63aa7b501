//! The logic of `vaxel demo`: the same load, several times what the box can bear, first straight at the box and
//! then through vaxel; a table of both; and sentences about what one has just seen. The sentences are made from
//! the figures: where vaxel did not keep what it promises, they say so.
//!
//! Who starts the box and the gateway is not decided here; this only needs their addresses.

mod table;
mod trace;
mod ui;

use std::net::SocketAddr;
use std::time::Duration;

use http::HeaderValue;

use crate::clock::Clock;
use crate::sim::backend::Stats;
use crate::sim::load::{self, Caller, CallerReport, Load, LoadError, Report};
use crate::sim::profile::{Mix, Profile};
use crate::sim::serve::SimHandle;

pub use self::table::Table;
pub use self::trace::Trace;
pub use self::ui::{BarUi, DemoUi, PlainUi};

/// Where the demonstration sends its load.
#[derive(Debug, Clone, Copy)]
pub struct DemoTargets<'a> {
    /// The simulated box itself.
    pub direct: SocketAddr,
    /// A gateway whose only upstream is that box.
    pub through: SocketAddr,
    /// The box, for its own counts and for a fresh start between the stages.
    pub sim: &'a SimHandle,
}

/// What is demonstrated. `load.rate` is replaced: see [`DemoOptions::overload`].
#[derive(Debug, Clone)]
pub struct DemoOptions {
    /// How many times its capacity the box is asked for.
    pub overload: f64,
    /// Everything else about the load; the same for both stages.
    pub load: Load,
}

/// Both stages, measured.
#[derive(Debug, Clone)]
pub struct Demonstration {
    /// What the box is like.
    pub profile: Profile,
    /// Which operations were offered.
    pub mix: Mix,
    /// Straight at the box.
    pub direct: Stage,
    /// Through vaxel.
    pub through: Stage,
}

/// One stage: what the clients saw and what the box counted.
#[derive(Debug, Clone)]
pub struct Stage {
    /// What the clients saw.
    pub report: Report,
    /// What the box counted.
    pub stats: Stats,
    /// How it went.
    pub trace: Trace,
}

impl Default for DemoOptions {
    fn default() -> Self {
        // Four times the capacity is an ordinary Monday for a system that never saw the internet; ten seconds are
        // enough for the default box to collapse, crash and come back. Clients wait longer than vaxel queues by
        // default (2 s), so that a late refusal still reaches them.
        let load = Load { patience: Duration::from_secs(3), ..Load::new(0.0, Duration::from_secs(10)) };
        // One of them asks for ten times what each other does.
        let callers = CONSUMERS.map(|(key, share)| Caller { share, ..Caller::new(HeaderValue::from_static(key)) });
        let load = Load { callers: callers.to_vec(), ..load };
        Self { overload: 4.0, load }
    }
}

/// Runs both stages and tells `ui` about them. The counts of the box are reset before each.
///
/// # Errors
/// If the load is out of bounds or a target is not on this machine.
pub async fn demonstrate(
    targets: DemoTargets<'_>,
    options: &DemoOptions,
    clock: &Clock,
    ui: &mut dyn DemoUi,
) -> Result<Demonstration, LoadError> {
    let profile = targets.sim.profile();
    let mix = options.load.mix;
    let capacity = profile.capacity(&mix);
    let load = Load { rate: options.overload * capacity, ..options.load.clone() };
    ui.say(&format!(
        "A legacy box with {} work processes can do {capacity:.0} requests/s of this mix. It gets {:.0}/s.",
        profile.processes, load.rate
    ));
    let direct = stage("straight at the box", targets.direct, &load, targets.sim, clock, ui).await?;
    let through = stage("through vaxel", targets.through, &load, targets.sim, clock, ui).await?;
    let shown = Demonstration { profile, mix, direct, through };
    ui.say("");
    for line in shown.table().to_string().lines() {
        ui.say(line);
    }
    ui.say("");
    for sentence in shown.sentences() {
        ui.say(&format!("- {sentence}"));
    }
    Ok(shown)
}

async fn stage(
    name: &str,
    target: SocketAddr,
    load: &Load,
    sim: &SimHandle,
    clock: &Clock,
    ui: &mut dyn DemoUi,
) -> Result<Stage, LoadError> {
    sim.reset();
    ui.begin(name, load.length);
    let mut trace = Trace::new(load.length);
    let progress = |elapsed, report: &Report| {
        let stats = sim.stats();
        trace.record(elapsed, report.ok, stats.present);
        ui.update(elapsed, report, &stats);
    };
    let report = load::offer(target, load, clock, progress).await?;
    let stage = Stage { report, stats: sim.stats(), trace };
    ui.end(&stage);
    Ok(stage)
}

impl Demonstration {
    /// The figures of both stages side by side.
    pub fn table(&self) -> Table {
        let mut table = Table::new(["", "straight", "through vaxel"]);
        let mut row = |name: &str, figure: &dyn Fn(&Stage) -> String| {
            table.push([name.to_owned(), figure(&self.direct), figure(&self.through)]);
        };
        row("requests offered", &|stage| stage.report.offered.to_string());
        row("good answers per second", &|stage| format!("{:.1}", stage.report.goodput()));
        row("good answers, median latency", &|stage| latency(&stage.report, 0.5));
        row("good answers, 99th percentile", &|stage| latency(&stage.report, 0.99));
        row("polite consumers' requests answered", &|stage| polite(&stage.report).map_or_else(none, percent));
        row("the greedy one's", &|stage| greedy(&stage.report).map_or_else(none, percent));
        row("answered from the cache", &|stage| percent(stage.report.hit_ratio()));
        row("refused with Retry-After", &|stage| stage.report.refused.to_string());
        row("errors", &|stage| stage.report.errors.to_string());
        row("clients that gave up", &|stage| stage.report.timeouts.to_string());
        row("requests that reached the box", &|stage| stage.stats.arrived.to_string());
        row("most at once in the box", &|stage| stage.stats.max_present.to_string());
        row("work done for nobody", &|stage| stage.stats.wasted.to_string());
        row("crashes of the box", &|stage| stage.stats.crashes.to_string());
        // Both stages to one scale.
        let most = |of: fn(&Trace) -> f64| of(&self.direct.trace).max(of(&self.through.trace));
        let (good, inside) = (most(Trace::most_good), most(Trace::most_inside));
        row("good answers, over time", &|stage| stage.trace.good(good));
        row("inside the box, over time", &|stage| stage.trace.inside(inside));
        table
    }

    /// What one has just seen, in five sentences.
    pub fn sentences(&self) -> [String; 5] {
        [self.offered(), self.alone(), self.behind(), self.protected(), self.turned_down()]
    }

    fn capacity(&self) -> f64 {
        self.profile.capacity(&self.mix)
    }

    fn offered(&self) -> String {
        let report = &self.direct.report;
        let seconds = report.length.as_secs_f64();
        let times = report.offered as f64 / (self.capacity() * seconds);
        format!(
            "Each stage offered the same {} requests in {seconds:.1} s, {times:.1} times what the box can do.",
            report.offered
        )
    }

    fn alone(&self) -> String {
        let Stage { report, stats, .. } = &self.direct;
        let share = report.goodput() / self.capacity();
        let crashes = match stats.crashes {
            0 => String::new(),
            1 => " It crashed.".to_owned(),
            crashes => format!(" It crashed {crashes} times."),
        };
        if share < COLLAPSED {
            format!(
                "Alone the box collapsed: {:.0} good answers/s, {} of what it can do; {} clients gave up and {} got an error.{crashes}",
                report.goodput(),
                percent(share),
                report.timeouts,
                report.errors
            )
        } else {
            format!(
                "Alone the box did not collapse: {:.0} good answers/s, {} of what it can do. Ask more of it.{crashes}",
                report.goodput(),
                percent(share)
            )
        }
    }

    fn behind(&self) -> String {
        let (alone, behind) = (&self.direct.report, &self.through.report);
        if behind.goodput() < alone.goodput() * BETTER {
            return format!(
                "Through vaxel it was no better: {:.0} good answers/s against {:.0} without.",
                behind.goodput(),
                alone.goodput()
            );
        }
        let times = match alone.ok {
            0 => "where there were none without".to_owned(),
            ok => format!("{:.1} times as many", behind.ok as f64 / ok as f64),
        };
        format!(
            "Through vaxel: {:.0} good answers/s, {times}; half of them within {}, 99 of 100 within {}.",
            behind.goodput(),
            latency(behind, 0.5),
            latency(behind, 0.99)
        )
    }

    fn protected(&self) -> String {
        let (alone, behind) = (&self.direct.stats, &self.through.stats);
        let processes = self.profile.processes;
        let crowd = if behind.max_present <= processes {
            format!(
                "The box never had more than {} requests inside, for its {processes} work processes; alone it had up to {}.",
                behind.max_present, alone.max_present
            )
        } else {
            format!(
                "The box was NOT kept within its {processes} work processes: up to {} requests were inside (alone {}).",
                behind.max_present, alone.max_present
            )
        };
        match behind.crashes {
            0 => crowd,
            crashes => format!("{crowd} It crashed all the same ({crashes})."),
        }
    }

    fn turned_down(&self) -> String {
        let report = &self.through.report;
        let cached = format!("{} of the good answers came from the cache", percent(report.hit_ratio()));
        let refused = match report.retry_after {
            None => "nobody was refused".to_owned(),
            Some((least, most)) if least == most => {
                format!("{} were refused and told to come back in {} s", report.refused, least.as_secs())
            }
            Some((least, most)) => format!(
                "{} were refused and told to come back in {} to {} s",
                report.refused,
                least.as_secs(),
                most.as_secs()
            ),
        };
        let unkept = match report.errors + report.timeouts {
            0 => "no request was left without an honest answer".to_owned(),
            bad => format!(
                "{bad} got an error or no answer in time (the box itself failed {} times)",
                self.through.stats.failed
            ),
        };
        format!("{cached}; {refused}; {unkept}.")
    }
}

/// The share of the polite consumers' requests that were answered well, if there are some.
fn polite(report: &Report) -> Option<f64> {
    answered(report.callers.get(..report.callers.len().saturating_sub(1))?)
}

/// The same of the greedy one, who is the last.
fn greedy(report: &Report) -> Option<f64> {
    answered(report.callers.get(report.callers.len().checked_sub(1)?..)?)
}

fn answered(callers: &[CallerReport]) -> Option<f64> {
    let (ok, offered) = callers.iter().fold((0, 0), |(ok, all), caller| (ok + caller.ok, all + caller.offered));
    (offered > 0).then(|| ok as f64 / offered as f64)
}

fn none() -> String {
    "-".to_owned()
}

fn latency(report: &Report, share: f64) -> String {
    if report.ok == 0 { none() } else { readable(report.quantile(share)) }
}

/// Three digits: 0.31 ms, 42 ms, 1.31 s.
fn readable(duration: Duration) -> String {
    let millis = duration.as_secs_f64() * 1e3;
    match millis {
        0.0..10.0 => format!("{millis:.2} ms"),
        10.0..1000.0 => format!("{millis:.0} ms"),
        _ => format!("{:.2} s", millis / 1e3),
    }
}

fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

/// The keys of those who ask, and how much each does; the last one is greedy.
pub const CONSUMERS: [(&str, f64); 4] = [("shop", 1.0), ("mobile", 1.0), ("partner", 1.0), ("export", 10.0)];

/// From how many times the goodput on it is called better; less is chance.
const BETTER: f64 = 1.1;
/// Goodput below this share of the capacity is called a collapse: the box does markedly less because more is asked.
const COLLAPSED: f64 = 0.6;

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;
    use crate::sim::serve::Sim;

    /// A stage in which everything went as given.
    fn stage(ok: u64, hits: u64, refused: u64, errors: u64, stats: Stats) -> Stage {
        let report = Report::fixture(Duration::from_secs(10), ok, hits, refused, errors);
        Stage { report, stats, trace: Trace::new(Duration::from_secs(10)) }
    }

    fn shown(direct: Stage, through: Stage) -> Demonstration {
        let mix = Mix { catalog: 1.0, account: 0.0, order: 0.0, report: 0.0 };
        Demonstration { profile: Profile::default(), mix, direct, through }
    }

    #[test]
    fn the_sentences_follow_the_figures() {
        let crowd = |max_present, crashes| Stats { max_present, crashes, ..Stats::default() };
        let stood = shown(stage(500, 0, 0, 7_500, crowd(128, 1)), stage(6_000, 4_500, 2_000, 0, crowd(8, 0)));
        assert_eq!(
            stood.sentences(),
            [
                "Each stage offered the same 8000 requests in 10.0 s, 4.0 times what the box can do.",
                "Alone the box collapsed: 50 good answers/s, 25 % of what it can do; 0 clients gave up and 7500 got an error. It crashed.",
                "Through vaxel: 600 good answers/s, 12.0 times as many; half of them within 5.00 ms, 99 of 100 within 5.00 ms.",
                "The box never had more than 8 requests inside, for its 8 work processes; alone it had up to 128.",
                "75 % of the good answers came from the cache; 2000 were refused and told to come back in 1 to 3 s; no request was left without an honest answer.",
            ]
        );
    }

    #[test]
    fn what_did_not_hold_is_said() {
        let crowd = |max_present, crashes| Stats { max_present, crashes, ..Stats::default() };
        let fell = shown(stage(1_900, 0, 0, 0, crowd(20, 0)), stage(1_000, 0, 0, 900, crowd(30, 2)));
        let [_, alone, behind, protected, turned_down] = fell.sentences();
        assert_eq!(
            alone,
            "Alone the box did not collapse: 190 good answers/s, 95 % of what it can do. Ask more of it."
        );
        assert_eq!(behind, "Through vaxel it was no better: 100 good answers/s against 190 without.");
        assert_eq!(
            protected,
            "The box was NOT kept within its 8 work processes: up to 30 requests were inside (alone 20). It crashed all the same (2)."
        );
        assert_eq!(
            turned_down,
            "0 % of the good answers came from the cache; nobody was refused; 900 got an error or no answer in time (the box itself failed 0 times)."
        );
    }

    #[test]
    fn the_greedy_one_is_told_apart() {
        let caller = |offered, ok| CallerReport { offered, ok, refused: 0 };
        let mut report = Report::fixture(Duration::from_secs(10), 1, 0, 0, 0);
        assert_eq!((polite(&report), greedy(&report)), (None, None));
        report.callers = vec![caller(10, 9), caller(10, 6), caller(100, 20)];
        assert_eq!((polite(&report), greedy(&report)), (Some(0.75), Some(0.2)));
    }

    #[test]
    fn durations_are_readable() {
        let check = |micros: u64, expected: &str| assert_eq!(readable(Duration::from_micros(micros)), expected);
        check(0, "0.00 ms");
        check(310, "0.31 ms");
        check(42_400, "42 ms");
        check(1_306_000, "1.31 s");
    }

    #[tokio::test]
    async fn both_stages_run_and_start_afresh() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let profile = Profile { processes: 2, service: Duration::from_millis(4), ..Profile::default() };
        let sim = Sim::start(listener, profile, 1, Clock::system()).unwrap();
        let load = Load { patience: Duration::from_millis(300), ..Load::new(0.0, Duration::from_millis(300)) };
        let options = DemoOptions { overload: 0.3, load };
        // No gateway at hand: the second stage meets the same box, and the demonstration must not praise it.
        let targets = DemoTargets { direct: sim.address(), through: sim.address(), sim: &sim };
        let mut ui = PlainUi::new(Vec::new());
        let shown = demonstrate(targets, &options, &Clock::system(), &mut ui).await.unwrap();
        assert_eq!(shown.direct.report.offered, shown.through.report.offered, "the same load");
        assert_eq!(shown.through.stats.arrived, shown.through.report.offered, "counted from zero");
        let text = String::from_utf8(ui.into_inner()).unwrap();
        assert!(text.contains("straight at the box") && text.contains("requests offered"), "{text}");
    }
}
