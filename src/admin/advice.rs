//! What an operator should do next, over the admin listener: `GET /advice`, as JSON or as text.

use std::fmt::Write as _;

use http::StatusCode;
use serde_json::Value;

use super::{AdminSource, JSON, PLAIN, Reply, answer, problem};

/// `format=text` asks for what `vaxel advise` prints.
pub(super) fn advice(source: &dyn AdminSource, query: Option<&str>) -> Reply {
    match query.unwrap_or_default() {
        "" | "format=json" => answer(StatusCode::OK, JSON, format!("{:#}\n", source.advice())),
        "format=text" => answer(StatusCode::OK, PLAIN, text(&source.advice())),
        _ => problem(StatusCode::BAD_REQUEST, "There is no other parameter but `format`: json or text."),
    }
}

/// Advice as text for people: findings in their order, evidence below them, and lines to paste.
pub fn text(advice: &Value) -> String {
    let findings = advice["findings"].as_array().map_or(&[][..], Vec::as_slice);
    let watched = advice["watched_s"].as_u64().unwrap_or_default();
    let mut text = format!("watched for {}", humantime::format_duration(std::time::Duration::from_secs(watched)));
    if findings.is_empty() {
        text.push_str(": nothing to advise");
    }
    text.push('\n');
    for (index, finding) in findings.iter().enumerate() {
        let word = |name: &str| finding[name].as_str().unwrap_or_default();
        let _ = write!(text, "\n{}. {}\n", index + 1, word("advice"));
        let evidence = finding["evidence"].as_array().into_iter().flatten().filter_map(Value::as_str);
        evidence.for_each(|ground| {
            let _ = writeln!(text, "   - {ground}");
        });
        let block = |name: &str| finding.get("block")?.get(name)?.as_str();
        if let (Some(below), Some(lines)) = (block("below"), block("toml")) {
            let _ = writeln!(text, "\n   # in {below}");
            lines.lines().for_each(|line| {
                let _ = writeln!(text, "   {line}");
            });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn findings_are_told_in_their_order_with_evidence_and_lines() {
        let advice = json!({ "watched_s": 3_600, "findings": [
            { "advice": "Store it.", "evidence": ["it was asked for", "often"],
              "block": { "below": "the [[route]] called \"a\"", "toml": "cache = true" } },
            { "advice": "Wait.", "evidence": [], "block": null },
        ]});
        let expected = "watched for 1h\n\n1. Store it.\n   - it was asked for\n   - often\n\n   \
                        # in the [[route]] called \"a\"\n   cache = true\n\n2. Wait.\n";
        assert_eq!(text(&advice), expected);
        assert_eq!(text(&json!({ "watched_s": 0, "findings": [] })), "watched for 0s: nothing to advise\n");
        assert_eq!(text(&Value::Null), "watched for 0s: nothing to advise\n", "whatever another version sends");
    }
}
