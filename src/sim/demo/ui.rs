//! How the demonstration shows itself: bars in a terminal, lines anywhere else.

use std::io::Write;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::sim::backend::Stats;
use crate::sim::demo::Stage;
use crate::sim::load::Report;

/// Who shows the demonstration. Failures to show are ignored: the figures are in what is returned, too.
pub trait DemoUi: Send {
    /// A line of text.
    fn say(&mut self, line: &str);

    /// A stage begins; it sends for `length`.
    fn begin(&mut self, name: &str, length: Duration);

    /// How it goes, some ten times a second.
    fn update(&mut self, elapsed: Duration, report: &Report, stats: &Stats);

    /// The stage has ended.
    fn end(&mut self, stage: &Stage);
}

/// A bar for each stage, for a terminal; bars go to standard error, text to `out`.
#[derive(Debug)]
pub struct BarUi<W> {
    out: W,
    bar: ProgressBar,
}

/// A line now and then, for everything that is no terminal.
#[derive(Debug)]
pub struct PlainUi<W> {
    out: W,
    /// Whole seconds of the current stage that were told.
    told: u64,
}

impl<W> BarUi<W> {
    /// Text goes to `out`.
    pub fn new(out: W) -> Self {
        Self { out, bar: ProgressBar::hidden() }
    }
}

impl<W> PlainUi<W> {
    /// Everything goes to `out`.
    pub const fn new(out: W) -> Self {
        Self { out, told: 0 }
    }

    /// Gives back where everything went.
    pub fn into_inner(self) -> W {
        self.out
    }
}

impl<W: Write + Send> DemoUi for BarUi<W> {
    fn say(&mut self, line: &str) {
        let _ = writeln!(self.out, "{line}");
    }

    fn begin(&mut self, name: &str, length: Duration) {
        let style = ProgressStyle::with_template("{prefix:>20} [{bar:30}] {msg}");
        self.bar = ProgressBar::new(millis(length)).with_prefix(name.to_owned());
        self.bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    }

    fn update(&mut self, elapsed: Duration, report: &Report, stats: &Stats) {
        self.bar.set_position(millis(elapsed.min(report.length)));
        self.bar.set_message(standing(report, stats));
    }

    fn end(&mut self, stage: &Stage) {
        self.bar.set_position(millis(stage.report.length));
        self.bar.finish_with_message(standing(&stage.report, &stage.stats));
    }
}

impl<W: Write + Send> DemoUi for PlainUi<W> {
    fn say(&mut self, line: &str) {
        let _ = writeln!(self.out, "{line}");
    }

    fn begin(&mut self, name: &str, length: Duration) {
        self.told = 0;
        let _ = writeln!(self.out, "{name}, {} s:", length.as_secs_f64());
    }

    fn update(&mut self, elapsed: Duration, report: &Report, stats: &Stats) {
        if elapsed.as_secs() >= self.told + PLAIN_EVERY {
            self.told = elapsed.as_secs();
            let _ = writeln!(self.out, "  {:>3} s  {}", self.told, standing(report, stats));
        }
    }

    fn end(&mut self, stage: &Stage) {
        let _ = writeln!(self.out, "  done   {}", standing(&stage.report, &stage.stats));
    }
}

fn standing(report: &Report, stats: &Stats) -> String {
    let Report { ok, refused, errors, timeouts, .. } = report;
    let place = if stats.down { "DOWN".to_owned() } else { format!("{} inside", stats.present) };
    format!("{ok} good, {refused} refused, {errors} errors, {timeouts} gave up; box: {place}")
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Seconds between two plain lines.
const PLAIN_EVERY: u64 = 2;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::demo::Trace;

    #[test]
    fn a_plain_stage_is_told_every_other_second() {
        let mut ui = PlainUi::new(Vec::new());
        let report = Report::fixture(Duration::from_secs(5), 10, 0, 2, 1);
        ui.begin("through vaxel", Duration::from_secs(5));
        for tenth in 0..50 {
            ui.update(Duration::from_millis(100 * tenth), &report, &Stats { present: 3, ..Stats::default() });
        }
        let trace = Trace::new(report.length);
        ui.end(&Stage { report, stats: Stats { down: true, ..Stats::default() }, trace });
        assert_eq!(
            String::from_utf8(ui.into_inner()).unwrap(),
            "through vaxel, 5 s:\n\
             \x20   2 s  10 good, 2 refused, 1 errors, 0 gave up; box: 3 inside\n\
             \x20   4 s  10 good, 2 refused, 1 errors, 0 gave up; box: 3 inside\n\
             \x20 done   10 good, 2 refused, 1 errors, 0 gave up; box: DOWN\n"
        );
    }
}
