//! What the admin API shows, as text for people. Reads JSON, so that it shows whatever a running vaxel sends, be it
//! older or newer than this one: what is not there is left out.

use std::fmt::Write as _;

use bytesize::ByteSize;
use serde_json::Value;

use super::top;

/// The answer to a purge.
pub fn purged(answer: &Value) -> String {
    let (count, soft) = (number(answer, "purged"), answer["depth"] == "soft");
    let (noun, done) = (if count == 1 { "answer" } else { "answers" }, if soft { "made stale" } else { "taken out" });
    format!("{count} {noun} {done}: {}", word(answer, "extent"))
}

/// How the cache stands: totals, and a line for each route that caches.
pub fn report(report: &Value) -> String {
    let mut text = String::new();
    let (bytes, capacity) = (number(report, "bytes"), number(report, "capacity"));
    let full = if capacity > 0 { bytes as f64 * 100.0 / capacity as f64 } else { 0.0 };
    let line = |text: &mut String, name: &str, value: &str| {
        let _ = writeln!(text, "{name:<14}{value}");
    };
    line(&mut text, "entries", &number(report, "entries").to_string());
    line(&mut text, "memory", &format!("{} of {} ({full:.1} %)", size(bytes), size(capacity)));
    line(&mut text, "fills", &format!("{} under way, {}", number(report, "flights"), size(number(report, "fills"))));
    line(&mut text, "evictions", &number(report, "evictions").to_string());
    line(&mut text, "vary lists", &number(report, "lists").to_string());
    line(&mut text, "uncacheable", &format!("{} remembered", number(report, "marks")));
    line(&mut text, "hit ratio", &ratio(report));
    let mut rows =
        vec![["route", "entries", "stale", "memory", "hits", "misses", "passes", "hit ratio"].map(str::to_owned)];
    for route in report["routes"].as_array().into_iter().flatten().filter(|route| route["caches"] == true) {
        let counted = |words: &[&str]| -> String {
            words.iter().map(|word| number(&route["requests"], word)).sum::<u64>().to_string()
        };
        rows.push([
            word(route, "route"),
            number(route, "entries").to_string(),
            number(route, "stale").to_string(),
            size(number(route, "bytes")),
            counted(&["hit", "stale", "stale_error"]),
            counted(&["miss", "collapsed", "revalidated"]),
            counted(&["pass", "bypass"]),
            ratio(route),
        ]);
    }
    if rows.len() > 1 {
        text.push('\n');
        table(&mut text, &rows);
    }
    text
}

/// How everything stands: the process, its traffic, and a line for each upstream.
pub fn status(status: &Value) -> String {
    format!("{}\n{}", top::plain(&top::head(status)), upstreams(&status["upstreams"]))
}

/// The answer to a reload.
pub fn reloaded(answer: &Value) -> String {
    // Of a file, in several lines.
    let warnings = answer["warnings"].as_str().unwrap_or_default();
    if warnings.is_empty() { "reloaded".to_owned() } else { format!("{warnings}\nreloaded") }
}

/// The answer to a drain.
pub fn draining(answer: &Value) -> String {
    format!("it drains, for at most {} s", number(answer, "within_s"))
}

/// How the upstreams stand: a line for each.
pub fn upstreams(report: &Value) -> String {
    let head = ["upstream", "gear", "why", "for", "slots", "busy", "zombie", "queued", "breaker", "endpoints"];
    let mut rows = vec![head.map(str::to_owned)];
    for upstream in report.as_array().into_iter().flatten() {
        let endpoints = upstream["endpoints"].as_array().map_or(&[][..], Vec::as_slice);
        let up = endpoints.iter().filter(|endpoint| endpoint["up"] == true).count();
        let why = match upstream["window"].as_str() {
            Some(window) if upstream["cause"] == "window" => format!("window {window}"),
            _ => word(upstream, "cause"),
        };
        rows.push([
            word(upstream, "upstream"),
            word(upstream, "gear"),
            why,
            upstream["ends_in"].as_u64().map_or_else(String::new, |seconds| format!("{seconds} s")),
            number(upstream, "slots").to_string(),
            number(upstream, "busy").to_string(),
            number(upstream, "zombie").to_string(),
            number(upstream, "queued").to_string(),
            breaker(upstream),
            format!("{up} of {} up", endpoints.len()),
        ]);
    }
    let mut text = String::new();
    table(&mut text, &rows);
    text
}

/// The state of a breaker, and when an open one lets trials pass.
pub(super) fn breaker(upstream: &Value) -> String {
    let state = upstream["breaker"].as_str().unwrap_or("none");
    upstream["breaker_in"].as_u64().map_or_else(|| state.to_owned(), |seconds| format!("{state}, {seconds} s"))
}

/// What a request would get, and why.
pub fn inspection(seen: &Value) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        if !value.is_empty() {
            let _ = writeln!(text, "{name:<14}{value}");
        }
    };
    let verdict = &seen["verdict"];
    line("verdict", &format!("{}: {}", word(verdict, "result"), word(verdict, "why")));
    line("", "");
    line("cache-status", &word(verdict, "cache_status"));
    let asks = verdict["asks_upstream"] == true;
    line("upstream", &format!("{} ({})", word(seen, "upstream"), if asks { "is asked" } else { "is not asked" }));
    line("route", &word(seen, "route"));
    line("consumer", &word(seen, "consumer"));
    line("key", &word(&seen["key"], "address"));
    line("vary", &list(&seen["vary"]));
    if let Some(entry) = seen.get("entry").filter(|entry| !entry.is_null()) {
        line(
            "stored",
            &format!(
                "{}, {} of body, {} in memory",
                number(entry, "status"),
                size(number(entry, "body")),
                size(number(entry, "weight"))
            ),
        );
        line("age", &format!("{} s", number(entry, "age")));
        line("lifetime", &format!("{} s, from: {}", number(entry, "lifetime"), word(entry, "lifetime_from")));
        line(
            "then",
            &format!(
                "stale-while-revalidate {} s, stale-if-error {} s, kept for validation {} s",
                number(entry, "stale_while_revalidate"),
                number(entry, "stale_if_error"),
                number(entry, "keep")
            ),
        );
        let flags = ["always_validate", "must_revalidate", "immutable", "soft_purged", "gone"];
        line("marks", &flags.into_iter().filter(|flag| entry[*flag] == true).collect::<Vec<_>>().join(", "));
        line("etag", &word(entry, "etag"));
        line("modified", &word(entry, "last_modified"));
        line("groups", &list(&entry["groups"]));
        for field in entry["headers"].as_array().into_iter().flatten() {
            line("", &format!("{}: {}", word(field, 0), word(field, 1)));
        }
    }
    for variant in seen["variants"].as_array().into_iter().flatten() {
        let selecting = variant["selecting"].as_array().into_iter().flatten();
        let selecting: Vec<_> = selecting
            .map(|value| value.as_str().map_or_else(|| "(absent)".to_owned(), |value| format!("{value:?}")))
            .collect();
        line(
            "variant",
            &format!("{}: age {} s of {} s", selecting.join(", "), number(variant, "age"), number(variant, "lifetime")),
        );
    }
    text
}

/// What would become of a request: a line for each sentence.
pub fn explanation(told: &Value) -> String {
    let mut text = String::new();
    let mut last = String::new();
    for sentence in told["story"].as_array().into_iter().flatten() {
        let step = word(sentence, 0);
        let shown = if step == last { "" } else { step.as_str() };
        let _ = writeln!(text, "{shown:<14}{}", word(sentence, 1));
        last = step;
    }
    text
}

/// What became of requests: a line for each, or the whole story where it is told.
pub fn accounts(answer: &Value) -> String {
    let accounts = answer["accounts"].as_array().map_or(&[][..], Vec::as_slice);
    let mut text = String::new();
    let head = ["time", "request", "kept", "status", "reason", "cache", "tries", "ms", "route", "what"];
    let mut rows = vec![head.map(str::to_owned)];
    for account in accounts {
        let Some(story) = account["story"].as_array() else {
            rows.push([
                word(account, "time"),
                word(account, "request_id"),
                word(account, "kept"),
                number(account, "status").to_string(),
                word(account, "reason"),
                word(account, "cache"),
                number(account, "tries").to_string(),
                format!("{:.1}", account["duration_ms"].as_f64().unwrap_or_default()),
                word(account, "route"),
                format!("{} {}{}", word(account, "method"), word(account, "host"), word(account, "path")),
            ]);
            continue;
        };
        let theirs = account["client_request_id"].as_str();
        let theirs = theirs.map_or_else(String::new, |theirs| format!(", {theirs} to its client"));
        let (id, time, kept) = (word(account, "request_id"), word(account, "time"), word(account, "kept"));
        let _ = writeln!(text, "{id}{theirs}, ended {time}, kept because: {kept}");
        for sentence in story.iter().filter_map(Value::as_str) {
            let _ = writeln!(text, "  {}", top::clean(sentence));
        }
    }
    if rows.len() > 1 {
        table(&mut text, &rows);
    }
    if text.is_empty() { "nothing is remembered".to_owned() } else { text }
}

fn number(value: &Value, name: &str) -> u64 {
    value[name].as_u64().unwrap_or_default()
}

fn word(value: &Value, at: impl serde_json::value::Index) -> String {
    top::clean(value.get(at).and_then(Value::as_str).unwrap_or_default())
}

fn list(values: &Value) -> String {
    values.as_array().into_iter().flatten().filter_map(Value::as_str).collect::<Vec<_>>().join(", ")
}

fn ratio(value: &Value) -> String {
    value["hit_ratio"].as_f64().map_or_else(|| "-".to_owned(), |ratio| format!("{:.1} %", ratio * 100.0))
}

fn size(bytes: u64) -> String {
    ByteSize::b(bytes).to_string()
}

/// The first column to the left, the others to the right.
fn table<const N: usize>(text: &mut String, rows: &[[String; N]]) {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    for row in rows {
        for (column, (width, cell)) in widths.iter().zip(row).enumerate() {
            let width = *width;
            let _ = if column == 0 { write!(text, "{cell:<width$}") } else { write!(text, "  {cell:>width$}") };
        }
        text.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_purge_says_how_many() {
        let check = |answer: Value, expected: &str| assert_eq!(purged(&answer), expected);
        check(json!({ "purged": 1, "extent": "url http://a/", "depth": "hard" }), "1 answer taken out: url http://a/");
        check(json!({ "purged": 0, "extent": "all", "depth": "soft" }), "0 answers made stale: all");
    }

    #[test]
    fn a_report_has_a_line_for_each_route_that_caches() {
        let route = |name: &str, caches| {
            json!({
                "route": name, "caches": caches, "entries": 3, "stale": 1, "bytes": 2048, "hit_ratio": 0.5,
                "requests": { "hit": 4, "stale": 1, "miss": 5, "pass": 0 },
            })
        };
        let text = report(&json!({
            "entries": 3, "bytes": 2048, "capacity": 4096, "evictions": 9, "hit_ratio": null,
            "routes": [route("orders", true), route("writes", false)],
        }));
        assert!(text.contains("memory        2.0 KiB of 4.0 KiB (50.0 %)\n"), "{text}");
        assert!(text.contains("hit ratio     -\n"), "{text}");
        assert!(text.contains("\norders        3      1  2.0 KiB     5       5       0     50.0 %\n"), "{text}");
        assert!(!text.contains("writes"), "{text}");
    }

    #[test]
    fn an_open_breaker_says_when_it_tries_again() {
        assert_eq!(breaker(&json!({ "breaker": "open", "breaker_in": 4 })), "open, 4 s");
        assert_eq!(breaker(&json!({ "breaker": "closed", "breaker_in": null })), "closed");
        assert_eq!(breaker(&json!({ "breaker": null })), "none");
    }

    #[test]
    fn an_explanation_names_each_step_once() {
        let told = json!({ "story": [["route", "a"], ["route", "b"], ["gate", "c"]] });
        assert_eq!(explanation(&told), "route         a\n              b\ngate          c\n");
        assert_eq!(explanation(&Value::Null), "");
    }

    #[test]
    fn accounts_are_listed_or_told() {
        let line = json!({ "time": "t", "request_id": "0a", "kept": "slow", "status": 200, "duration_ms": 1500.25,
                           "method": "GET", "host": "erp", "path": "/a", "tries": 1 });
        let listed = accounts(&json!({ "accounts": [line] }));
        assert!(listed.lines().nth(1).is_some_and(|line| line.ends_with("GET erp/a")), "{listed}");
        let mut told = line;
        told["story"] = json!(["one", "two"]);
        told["client_request_id"] = json!("theirs");
        let text = accounts(&json!({ "accounts": [told] }));
        assert_eq!(text, "0a, theirs to its client, ended t, kept because: slow\n  one\n  two\n");
        assert_eq!(accounts(&Value::Null), "nothing is remembered");
    }

    #[test]
    fn what_is_not_there_is_left_out() {
        let text = inspection(&json!({
            "verdict": { "result": "miss", "why": "nothing is stored for it", "asks_upstream": true },
            "route": "all", "upstream": "erp", "entry": null,
        }));
        let expected =
            "verdict       miss: nothing is stored for it\nupstream      erp (is asked)\nroute         all\n";
        assert_eq!(text, expected);
        let full = inspection(&json!({
            "verdict": { "result": "hit", "why": "fresh" }, "vary": ["a", "b"],
            "entry": { "status": 200, "age": 7, "lifetime": 9, "lifetime_from": "origin", "headers": [["date", "x"]] },
            "variants": [{ "selecting": ["en", null], "age": 7, "lifetime": 9 }],
        }));
        for part in [
            "lifetime      9 s, from: origin\n",
            "date: x\n",
            "variant       \"en\", (absent): age 7 s of 9 s\n",
            "vary          a, b\n",
        ] {
            assert!(full.contains(part), "{full}");
        }
        assert_eq!(inspection(&Value::Null).lines().count(), 2, "a stranger's answer is no reason to panic");
        assert!(report(&Value::Null).contains("entries       0"));
    }
}
