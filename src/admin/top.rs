//! The status as a frame of text: what `vaxel top` draws again and again, and `vaxel status` begins with.
//!
//! Reads JSON, so that it shows whatever a running vaxel sends: what is not there is left out. What strangers chose (paths,
//! names) may hold no controls of the terminal.

use serde_json::Value;

use super::text;

/// How a piece of text is told apart, where a terminal can; never by this alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// As it is.
    Plain,
    /// The heading of something.
    Head,
    /// Beside the point.
    Quiet,
    /// All is well.
    Good,
    /// Look here.
    Warn,
    /// Look here first.
    Bad,
}

/// A line in pieces.
pub type Line = Vec<(Tone, String)>;

/// A frame that fits a terminal of `width` columns and `height` lines.
pub fn frame(status: &Value, width: usize, height: usize) -> Vec<Line> {
    let mut lines = head(status);
    let sections = [upstreams(status, width), consumers(status), routes(status), accounts(status)];
    for (index, section) in sections.into_iter().enumerate() {
        // Upstreams are what it is about; the others share what is left.
        let room = height.saturating_sub(lines.len() + 1);
        let room = if index == 0 { room } else { room.min((height / 4).max(4)) };
        if section.len() > 1 && room > 1 {
            lines.push(Line::new());
            lines.extend(section.into_iter().take(room));
        }
    }
    lines.truncate(height);
    lines.into_iter().map(|line| cut(line, width)).collect()
}

/// The process and its traffic in two lines.
pub fn head(status: &Value) -> Vec<Line> {
    let (process, traffic, cache) = (&status["process"], &status["traffic"], &status["cache"]);
    let up = number(status, "at_ms").saturating_sub(number(process, "started_ms")) / 1000;
    let state =
        if process["draining"] == true { (Tone::Bad, "draining".to_owned()) } else { (Tone::Good, "live".to_owned()) };
    let plain = |text: String| (Tone::Plain, text);
    let about = format!(
        "  up {}, {} connections, {}",
        span(up),
        number(process, "connections"),
        word(&process["config"], "source")
    );
    let first = vec![(Tone::Head, format!("vaxel {}  ", word(process, "version"))), state, plain(about)];
    let second = format!(
        "requests/s {}   from the store {}   refused/s {}   median {}   95 % {}   99 % {}   store {} of {}",
        rate(&traffic["requests_per_s"]),
        percent(&traffic["hit_ratio"]),
        rate(&traffic["refused_per_s"]),
        millis(&traffic["p50_ms"]),
        millis(&traffic["p95_ms"]),
        millis(&traffic["p99_ms"]),
        bytesize::ByteSize::b(number(cache, "bytes")),
        bytesize::ByteSize::b(number(cache, "capacity")),
    );
    vec![first, vec![plain(second)]]
}

/// As plain text.
pub fn plain(lines: &[Line]) -> String {
    let line =
        |line: &Line| line.iter().map(|(_, text)| text.as_str()).collect::<String>().trim_end().to_owned() + "\n";
    lines.iter().map(line).collect()
}

fn upstreams(status: &Value, width: usize) -> Vec<Line> {
    let head = ["upstream", "gear", "slots", "queue", "breaker", "store", "50 %", "95 %", "99 %", "requests/s"];
    let mut rows = vec![head.map(|name| (Tone::Quiet, name.to_owned())).to_vec()];
    for upstream in list(&status["upstreams"]) {
        let (traffic, answers) = (&upstream["traffic"], &upstream["answers"]);
        let gear = word(upstream, "gear");
        let tone = match gear.as_str() {
            "drive" => Tone::Good,
            "park" => Tone::Bad,
            _ => Tone::Warn,
        };
        let breaker = text::breaker(upstream);
        let closed = !breaker.contains("open");
        let curve = sparkline(upstream.pointer("/curves/requests_per_s").unwrap_or(&Value::Null), (width / 6).min(40));
        let plain = |text: String| (Tone::Plain, text);
        rows.push(vec![
            (Tone::Head, word(upstream, "upstream")),
            (tone, format!("{gear}: {}", word(upstream, "cause"))),
            plain(slots(upstream)),
            plain(format!("{} of {}", number(upstream, "queued"), number(upstream, "queue_room"))),
            (if closed { Tone::Plain } else { Tone::Bad }, breaker),
            plain(percent(&traffic["hit_ratio"])),
            plain(millis(&answers["p50_ms"])),
            plain(millis(&answers["p95_ms"])),
            plain(millis(&answers["p99_ms"])),
            plain(format!("{} {curve}", rate(&traffic["requests_per_s"]))),
        ]);
    }
    aligned(rows, 3)
}

/// Busy, zombie, free and withheld slots: a sign for each while they are few.
fn slots(upstream: &Value) -> String {
    let [slots, busy, zombie, all] = ["slots", "busy", "zombie", "slots_in_all"].map(|name| number(upstream, name));
    let all = all.max(slots).max(busy + zombie);
    let told = if zombie > 0 { format!("{busy}+{zombie} of {slots}") } else { format!("{busy} of {slots}") };
    if all > 24 {
        return told;
    }
    let free = slots.saturating_sub(busy + zombie);
    let withheld = all - all.min(slots.max(busy + zombie));
    let signs = [('█', busy), ('▒', zombie), ('·', free), ('x', withheld)];
    let row: String = signs.into_iter().flat_map(|(sign, count)| std::iter::repeat_n(sign, count as usize)).collect();
    format!("{row} {told}")
}

fn consumers(status: &Value) -> Vec<Line> {
    let head = ["consumer", "share", "slots", "served/s", "refused/s", "waiting"];
    let mut rows = vec![head.map(|name| (Tone::Quiet, name.to_owned())).to_vec()];
    for consumer in list(&status["consumers"]) {
        let refused = consumer["refused_per_s"].as_f64().unwrap_or_default();
        rows.push(vec![
            (Tone::Head, word(consumer, "consumer")),
            (Tone::Plain, format!("{} {}", bar(&consumer["share"]), percent(&consumer["share"]))),
            (Tone::Plain, rate(&consumer["slots"])),
            (Tone::Plain, rate(&consumer["served_per_s"])),
            (if refused > 0.0 { Tone::Warn } else { Tone::Plain }, rate(&consumer["refused_per_s"])),
            (Tone::Plain, rate(&consumer["waiting"])),
        ]);
    }
    aligned(rows, 1)
}

fn routes(status: &Value) -> Vec<Line> {
    let head = ["route", "upstream", "requests/s", "store", "refused/s", "50 %", "99 %"];
    let mut rows = vec![head.map(|name| (Tone::Quiet, name.to_owned())).to_vec()];
    for route in list(&status["routes"]) {
        let store = if route["caches"] == true { percent(&route["hit_ratio"]) } else { "off".to_owned() };
        rows.push(vec![
            (Tone::Head, word(route, "route")),
            (Tone::Plain, word(route, "upstream")),
            (Tone::Plain, rate(&route["requests_per_s"])),
            (Tone::Plain, store),
            (Tone::Plain, rate(&route["refused_per_s"])),
            (Tone::Plain, millis(&route["p50_ms"])),
            (Tone::Plain, millis(&route["p99_ms"])),
        ]);
    }
    aligned(rows, 2)
}

fn accounts(status: &Value) -> Vec<Line> {
    let head = ["lately", "request", "took", "what"];
    let mut rows = vec![head.map(|name| (Tone::Quiet, name.to_owned())).to_vec()];
    for account in list(&status["refused"]).chain(list(&status["slow"])) {
        let reason = account["reason"].as_str().map_or_else(|| "slow".to_owned(), clean);
        rows.push(vec![
            (if reason == "slow" { Tone::Warn } else { Tone::Bad }, reason),
            (Tone::Quiet, word(account, "request_id")),
            (Tone::Plain, millis(&account["duration_ms"])),
            (Tone::Plain, format!("{} {}{}", word(account, "method"), word(account, "host"), word(account, "path"))),
        ]);
    }
    aligned(rows, 4)
}

/// Cells in columns: the first `left` to the left, the others to the right, the last one as it is.
fn aligned(rows: Vec<Line>, left: usize) -> Vec<Line> {
    let mut widths = vec![0; rows.first().map_or(0, Line::len)];
    for row in &rows {
        widths.iter_mut().zip(row).for_each(|(width, (_, cell))| *width = cell.chars().count().max(*width));
    }
    let last = widths.len().saturating_sub(1);
    let line = |row: Line| {
        let cells = row.into_iter().zip(&widths).enumerate().map(|(column, ((tone, cell), width))| {
            let width = *width;
            let text = match column {
                _ if column == last => cell,
                _ if column < left => format!("{cell:<width$}  "),
                _ => format!("{cell:>width$}  "),
            };
            (tone, text)
        });
        cells.collect()
    };
    rows.into_iter().map(line).collect()
}

fn cut(line: Line, width: usize) -> Line {
    let mut left = width;
    let mut cut = Line::new();
    for (tone, text) in line {
        let shown: String = text.chars().take(left).collect();
        left -= shown.chars().count();
        cut.push((tone, shown));
    }
    cut
}

fn sparkline(values: &Value, width: usize) -> String {
    let values: Vec<f64> = list(values).filter_map(Value::as_f64).collect();
    let shown = values.get(values.len().saturating_sub(width)..).unwrap_or_default();
    let top = shown.iter().copied().fold(1.0, f64::max);
    let sign = |value: &f64| SPARKS.get((value / top * 7.0).round() as usize).copied().unwrap_or(' ');
    shown.iter().map(sign).collect()
}

fn bar(share: &Value) -> String {
    let full = (share.as_f64().unwrap_or_default().clamp(0.0, 1.0) * 10.0).round() as usize;
    format!("{}{}", "█".repeat(full), "·".repeat(10 - full))
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn number(value: &Value, name: &str) -> u64 {
    value[name].as_u64().unwrap_or_default()
}

fn word(value: &Value, name: &str) -> String {
    clean(value[name].as_str().unwrap_or_default())
}

/// Without controls of the terminal, and without those that turn the direction of text.
pub(super) fn clean(text: &str) -> String {
    let harmless = |char: char| {
        !char.is_control()
            && !matches!(char, '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().map(|char| if harmless(char) { char } else { '\u{fffd}' }).collect()
}

fn rate(value: &Value) -> String {
    match value.as_f64() {
        Some(value) if value >= 100.0 => format!("{value:.0}"),
        Some(value) => format!("{value:.1}"),
        None => "-".to_owned(),
    }
}

fn percent(value: &Value) -> String {
    value.as_f64().map_or_else(|| "-".to_owned(), |ratio| format!("{:.1} %", ratio * 100.0))
}

fn millis(value: &Value) -> String {
    match value.as_f64() {
        Some(ms) if ms >= 1000.0 => format!("{:.1} s", ms / 1000.0),
        Some(ms) if ms >= 10.0 => format!("{ms:.0} ms"),
        Some(ms) => format!("{ms:.1} ms"),
        None => "-".to_owned(),
    }
}

fn span(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

const SPARKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn status() -> Value {
        json!({
            "at_ms": 3_725_000, "process": { "version": "0.1.0", "started_ms": 0, "connections": 7, "config": { "source": "erp.toml" } },
            "traffic": { "requests_per_s": 412.4, "hit_ratio": 0.712, "refused_per_s": 3.1, "p50_ms": 1.25, "p95_ms": 210.0, "p99_ms": 1810.0 },
            "cache": { "bytes": 1024, "capacity": 4096 },
            "upstreams": [{
                "upstream": "erp", "gear": "limp", "cause": "operator", "slots": 4, "slots_in_all": 8, "busy": 2, "zombie": 1,
                "queued": 14, "queue_room": 64, "breaker": "closed", "traffic": { "hit_ratio": 0.5, "requests_per_s": 9.0 },
                "answers": { "p50_ms": 180.0 }, "curves": { "requests_per_s": [0.0, 4.0, 8.0] },
            }],
            "consumers": [{ "consumer": "shop\u{1b}[2J", "share": 0.75, "slots": 3.0, "served_per_s": 9.0, "refused_per_s": 0.0, "waiting": 0.1 }],
            "refused": [{ "reason": "queue.full", "request_id": "0a", "duration_ms": 0.1, "method": "GET", "host": "erp", "path": "/\u{9b}31m" }],
        })
    }

    #[test]
    fn a_frame_shows_what_matters_and_no_strangers_controls() {
        let text = plain(&frame(&status(), 160, 40));
        for part in [
            "vaxel 0.1.0  live  up 1 h 2 min, 7 connections, erp.toml\n",
            "requests/s 412   from the store 71.2 %   refused/s 3.1   median 1.2 ms   95 % 210 ms   99 % 1.8 s   store 1.0 KiB of 4.0 KiB\n",
            "erp       limp: operator  ██▒·xxxx 2+1 of 4",
            "14 of 64",
            "9.0 ▁▅█",
            "shop\u{fffd}[2J",
            "████████·· 75.0 %",
            "queue.full",
            "GET erp/\u{fffd}31m",
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
        assert!(!text.contains(['\u{1b}', '\u{9b}']));
    }

    #[test]
    fn a_frame_fits_the_terminal_however_small() {
        for (width, height) in [(0, 0), (1, 1), (20, 5), (80, 24), (300, 100)] {
            let frame = frame(&status(), width, height);
            assert!(frame.len() <= height);
            let wide = |line: &Line| line.iter().map(|(_, text)| text.chars().count()).sum::<usize>();
            assert!(frame.iter().all(|line| wide(line) <= width), "{width} x {height}");
        }
        assert_eq!(frame(&Value::Null, 80, 24).len(), 2, "a stranger's answer is no reason to panic");
    }
}
