//! The tables of `docs/PROTECTION.md`, made anew between its marks; what is around them is written by hand.

use std::fmt::Write as _;
use std::fs;

use crate::Failure;
use crate::record::{Record, Run, median};

/// One column of every table.
struct Column {
    head: &'static str,
    value: fn(&Run) -> f64,
    shown: fn(f64) -> String,
    best: Best,
}

/// Which figure is the best of a column.
#[derive(Clone, Copy, PartialEq)]
enum Best {
    Most,
    Least,
    /// None: it explains the others.
    Neither,
}

/// Makes them anew.
pub(crate) fn write(record: &Record) -> Result<(), Failure> {
    let mut page = fs::read_to_string(PAGE)?;
    for (name, text) in blocks(record) {
        page = replaced(&page, &name, &text)?;
    }
    Ok(fs::write(PAGE, page)?)
}

/// What is between the marks, by their names.
fn blocks(record: &Record) -> Vec<(String, String)> {
    let mut steady = String::new();
    for times in record.loads() {
        let _ =
            writeln!(steady, "### {times} × what the box can do\n\n{}", table(record, "steady", Some(times), false));
        let _ = writeln!(steady, "[Over time](protection/steady-{times}.svg)\n");
    }
    let mut blocks = vec![("machine".to_owned(), machine(record)), ("steady".to_owned(), steady)];
    for story in ["slow", "crash", "storm"] {
        blocks.push((story.to_owned(), table(record, story, None, false)));
    }
    blocks.push(("cached".to_owned(), table(record, "steady", None, true)));
    blocks
}

fn machine(record: &Record) -> String {
    let programs: Vec<String> = record.peers.iter().map(|(name, version)| format!("{name} {version}")).collect();
    let first = |value: &dyn Fn(&Run) -> f64| record.runs.first().map(value).unwrap_or_default();
    let rounds = record.runs.iter().map(|run| run.seed).collect::<std::collections::BTreeSet<_>>().len();
    let plural = if rounds == 1 { "round" } else { "rounds, medians" };
    format!(
        "{}, on {}: {}. {rounds} {plural}; the box can do {:.0} good answers a second of this mix.\n",
        record.day,
        record.machine,
        programs.join(", "),
        first(&|run| run.capacity),
    )
}

fn table(record: &Record, story: &str, times: Option<f64>, cached: bool) -> String {
    let rows: Vec<(&str, Vec<&Run>)> = record
        .names()
        .into_iter()
        .map(|name| (name, record.rounds(name, story, times, cached)))
        .filter(|(_, rounds)| !rounds.is_empty())
        .collect();
    if rows.is_empty() {
        return "Not measured.\n".to_owned();
    }
    let figure = |rounds: &[&Run], column: &Column| median(rounds.iter().map(|run| (column.value)(run)));
    // Half of few is no achievement: latencies are compared among those who answer about as many.
    let most = rows.iter().filter_map(|(_, rounds)| median(rounds.iter().map(|run| run.goodput()))).fold(0.0, f64::max);
    let counts = |rounds: &[&Run]| median(rounds.iter().map(|run| run.goodput())).is_some_and(|good| good > most / 2.0);
    let mut text = format!("| | {} |\n|---|", COLUMNS.iter().map(|column| column.head).collect::<Vec<_>>().join(" | "));
    text.push_str(&"---:|".repeat(COLUMNS.len()));
    let best: Vec<Option<f64>> = COLUMNS
        .iter()
        .map(|column| {
            let figures =
                rows.iter().filter(|(_, rounds)| counts(rounds)).filter_map(|(_, rounds)| figure(rounds, column));
            let figures = figures.filter(|figure| figure.is_finite());
            match column.best {
                Best::Most => figures.reduce(f64::max),
                Best::Least => figures.reduce(f64::min),
                Best::Neither => None,
            }
        })
        .collect();
    for (name, rounds) in &rows {
        let cells = COLUMNS.iter().zip(&best).map(|(column, best)| match figure(rounds, column) {
            Some(figure) if figure.is_finite() => {
                // As good as the best, as far as it is shown.
                let is_best = counts(rounds) && best.is_some_and(|best| (column.shown)(best) == (column.shown)(figure));
                let bold = if is_best { "**" } else { "" };
                format!("{bold}{}{bold}", (column.shown)(figure))
            }
            _ => "–".to_owned(),
        });
        let _ = write!(text, "\n| {name} | {} |", cells.collect::<Vec<_>>().join(" | "));
    }
    text.push('\n');
    text
}

fn replaced(page: &str, name: &str, text: &str) -> Result<String, Failure> {
    let (begin, end) = (format!("<!-- {name}: made by the bench; do not edit -->\n"), "<!-- end -->");
    let (before, rest) = page.split_once(&begin).ok_or_else(|| format!("the page has no mark {begin}"))?;
    let (_, after) = rest.split_once(end).ok_or("the page has no end mark")?;
    Ok(format!("{before}{begin}{}\n{end}{after}", text.trim_end()))
}

fn whole(value: f64) -> String {
    format!("{value:.0}")
}

fn percent(value: f64) -> String {
    format!("{:.0} %", value * 100.0)
}

fn share(count: u64, run: &Run) -> f64 {
    count as f64 / run.offered.max(1) as f64
}

static COLUMNS: &[Column] = &[
    Column {
        head: "good answers, of capacity",
        value: |run| run.goodput() / run.capacity,
        shown: percent,
        best: Best::Most,
    },
    Column { head: "p50 ms", value: |run| run.p50, shown: whole, best: Best::Least },
    Column { head: "p99 ms", value: |run| run.p99, shown: whole, best: Best::Least },
    Column { head: "polite answered", value: Run::polite, shown: percent, best: Best::Most },
    Column { head: "fairness", value: Run::fairness, shown: |value| format!("{value:.2}"), best: Best::Most },
    Column { head: "refused, told when", value: |run| share(run.refused, run), shown: percent, best: Best::Neither },
    Column { head: "refused, not told", value: |run| share(run.untold, run), shown: percent, best: Best::Neither },
    Column { head: "errors", value: |run| share(run.errors, run), shown: percent, best: Best::Neither },
    Column { head: "left", value: |run| share(run.left, run), shown: percent, best: Best::Neither },
    Column { head: "most in the box", value: |run| run.seen.max_present as f64, shown: whole, best: Best::Least },
    Column { head: "work for nobody", value: |run| run.seen.wasted as f64, shown: whole, best: Best::Least },
    Column { head: "crashes", value: |run| run.seen.crashes as f64, shown: whole, best: Best::Neither },
    Column { head: "CPU µs", value: |run| run.cpu.unwrap_or(f64::NAN), shown: whole, best: Best::Least },
];

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/PROTECTION.md");

/// Run by `cargo test --benches`.
pub(crate) fn self_check() {
    let page = "a\n<!-- x: made by the bench; do not edit -->\nold\n<!-- end -->\nb\n";
    let expected = "a\n<!-- x: made by the bench; do not edit -->\nnew\n<!-- end -->\nb\n";
    assert_eq!(replaced(page, "x", "new\n").ok().as_deref(), Some(expected));
    assert!(replaced(page, "y", "").is_err());

    let run = |peer: &str, in_time, p50, cpu| Run {
        peer: peer.to_owned(),
        story: "steady".to_owned(),
        times: 1.0,
        length: 1.0,
        capacity: 100.0,
        offered: 100,
        in_time,
        p50,
        cpu,
        ..Run::default()
    };
    let runs =
        vec![run("direct", 10, 5.0, None), run("nginx", 90, 30.0, Some(20.0)), run("vaxel", 100, 20.0, Some(50.0))];
    let record = Record { day: String::new(), machine: String::new(), peers: Vec::new(), runs };
    let table = table(&record, "steady", Some(1.0), false);
    let row = |name: &str| table.lines().find(|line| line.starts_with(&format!("| {name} |"))).unwrap_or_default();
    assert!(row("direct").starts_with("| direct | 10 % | 5 |"), "quick for few: {table}");
    assert!(row("nginx").starts_with("| nginx | 90 % | 30 |") && row("nginx").ends_with("| **20** |"), "{table}");
    assert!(row("vaxel").starts_with("| vaxel | **100 %** | **20** |") && row("vaxel").ends_with("| 50 |"), "{table}");
    assert!(row("direct").ends_with("| – |"), "{table}");
    // The page that is there has every mark.
    let page = fs::read_to_string(PAGE).unwrap_or_default();
    for (name, text) in blocks(&record) {
        assert!(replaced(&page, &name, &text).is_ok(), "docs/PROTECTION.md has a mark for {name}");
    }
}
