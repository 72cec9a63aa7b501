//! How results are shown: a table for each row while the bench runs, one of all as Markdown at the end.

use std::fmt::Write as _;

use crate::measure::Summary;
use crate::row::Row;

/// What came of a row: a summary for each proxy, or why there is none.
pub(crate) struct Outcome {
    /// The row.
    pub(crate) row: &'static Row,
    /// By the name of the proxy.
    pub(crate) results: Vec<(&'static str, Result<Summary, String>)>,
}

impl Outcome {
    fn of(&self, name: &str) -> Option<&Summary> {
        self.results.iter().find(|(proxy, _)| *proxy == name)?.1.as_ref().ok()
    }

    /// The table of the row, aligned.
    pub(crate) fn table(&self) -> String {
        let heads = ["", "req/s", "", "CPU µs/req", "", "spread", "busy", "p50 ms", "p99 ms", "errors", "RSS MiB"];
        let mut lines = vec![heads.map(str::to_owned).to_vec()];
        let base = self.of(BASE);
        for (name, result) in &self.results {
            let Ok(found) = result else { continue };
            let rate = base.map(|base| base.rate).filter(|base| *base > 0.0).map(|base| found.rate / base);
            lines.push(vec![
                (*name).to_owned(),
                format!("{:.0}", found.rate),
                times(rate),
                format!("{:.2}", found.cpu),
                times(found.ratio),
                format!("{:.0}%", found.spread * 100.0),
                format!("{:.0}%", found.busy * 100.0),
                format!("{:.2}", found.p50),
                format!("{:.2}", found.p99),
                found.errors.to_string(),
                format!("{:.0}", found.resident),
            ]);
        }
        let mut text = format!("\n{}: {}\n{}", self.row.name, self.row.about, aligned(&lines));
        for (name, result) in &self.results {
            if let Err(reason) = result {
                let _ = writeln!(text, "  {name}: not measured: {reason}");
            }
        }
        text
    }
}

/// All rows as one Markdown table: CPU time per request, its ratio to the base, requests per second.
pub(crate) fn markdown(outcomes: &[Outcome]) -> String {
    let mut names: Vec<&str> = Vec::new();
    for (name, _) in outcomes.iter().flat_map(|outcome| &outcome.results) {
        if !names.contains(name) {
            names.push(name);
        }
    }
    let mut text = format!("| CPU µs per request, beside {BASE} (requests/s) | {} |\n", names.join(" | "));
    let _ = writeln!(text, "|---|{}", "---:|".repeat(names.len()));
    for outcome in outcomes {
        let least = names.iter().filter_map(|name| outcome.of(name)).map(|found| found.cpu).fold(f64::MAX, f64::min);
        let cells = names.iter().map(|name| match outcome.of(name) {
            // The least is bold: within a hundredth, which is below what can be told apart.
            Some(found) => {
                let bold = if found.cpu <= least * 1.01 { "**" } else { "" };
                format!("{bold}{:.1}{bold} {} ({})", found.cpu, times(found.ratio), thousands(found.rate))
            }
            None => "–".to_owned(),
        });
        let _ = writeln!(text, "| {} | {} |", outcome.row.about, cells.collect::<Vec<_>>().join(" | "));
    }
    text
}

fn times(ratio: Option<f64>) -> String {
    ratio.map_or_else(String::new, |ratio| format!("×{ratio:.2}"))
}

fn thousands(rate: f64) -> String {
    if rate < 1000.0 { format!("{rate:.0}") } else { format!("{:.1} k", rate / 1000.0) }
}

/// Columns as wide as their widest cell, the first to the left, the others to the right.
fn aligned(lines: &[Vec<String>]) -> String {
    let width = |column: usize| {
        lines.iter().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max().unwrap_or_default()
    };
    let mut text = String::new();
    for line in lines {
        let mut row = String::from("  ");
        for (column, cell) in line.iter().enumerate() {
            let padding = " ".repeat(width(column) - cell.chars().count());
            let _ = if column == 0 { write!(row, "{cell}{padding}") } else { write!(row, "  {padding}{cell}") };
        }
        let _ = writeln!(text, "{}", row.trim_end());
    }
    text
}

/// What the others are compared with.
pub(crate) const BASE: &str = "nginx";

/// Run by `cargo test --benches`.
pub(crate) fn self_check() {
    let cells = |cells: [&str; 2]| cells.map(str::to_owned).to_vec();
    assert_eq!(aligned(&[cells(["", "µs"]), cells(["nginx", "12.50"])]), "            µs\n  nginx  12.50\n");

    let found = |rate, cpu| {
        let ratio = Some(cpu / 10.0);
        Summary { rate, cpu, ratio, spread: 0.0, busy: 1.0, p50: 0.5, p99: 1.0, errors: 0, resident: 10.0 }
    };
    let Some(row) = crate::row::ROWS.first() else { unreachable!("there are rows") };
    let results = vec![
        ("vaxel", Ok(found(120_000.0, 8.0))),
        ("nginx", Ok(found(100_000.0, 10.0))),
        ("varnish", Err("not installed".to_owned())),
    ];
    let outcome = Outcome { row, results };
    let table = outcome.table();
    assert!(table.contains("×1.20") && table.contains("×0.80") && table.contains("not installed"), "{table}");
    let markdown = markdown(&[outcome]);
    assert!(markdown.contains("| **8.0** ×0.80 (120.0 k) | 10.0 ×1.00 (100.0 k) | – |"), "{markdown}");
}
