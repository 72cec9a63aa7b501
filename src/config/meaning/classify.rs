//! `faults` and `classify` of a `[[route]]`.

use http::{HeaderName, StatusCode};
use toml::de::DeValue;

use super::super::diagnostics::Mistake;
use super::super::reader::Reader;
use super::super::values::{expected, header_name_of, header_value, status, word};
use super::unspan;
use crate::outcome::Outcome;
use crate::outcome::classes::{Classes, LOOK, Rule, Sign, Statuses};
use crate::outcome::faults::Faults;

/// How the answers of a route are read.
pub(super) fn classes(route: &mut Reader<'_>) -> Classes {
    let faults = route.choice("faults", &FAULTS);
    let rules = route.tables("classify", rule).into_iter().flatten().collect();
    Classes { rules, faults }
}

fn rule(table: &mut Reader<'_>) -> Option<Rule> {
    let statuses = unspan(table.some("status", statuses).unwrap_or_default()).into();
    let fields = table.map("headers", field).into();
    let body = table.optional("body", |value| {
        let text = word(value)?;
        let mistake = || Mistake::new(format!("only the first {LOOK} bytes of a body are looked at"));
        if text.len() > LOOK { Err(mistake()) } else { Ok(text) }
    });
    table.must("means");
    let means = table.optional_choice("means", &MEANINGS);
    if !["status", "headers", "body"].iter().any(|key| table.has(key)) {
        let mistake = Mistake::new("this rule fits every answer").hint("give it `status`, `headers` or `body`");
        table.error(table.place(), mistake);
    }
    Some(Rule { statuses, fields, body: body.unwrap_or_default().into_bytes().into(), means: means? })
}

fn field(name: &str, value: &DeValue<'_>) -> Result<(HeaderName, Sign), Mistake> {
    let sign = match value {
        DeValue::Boolean(true) => Sign::Present,
        DeValue::Boolean(false) => Sign::Absent,
        DeValue::String(text) => match text.strip_suffix('*') {
            Some(begin) => Sign::Begins(begin.as_bytes().into()),
            None => Sign::Equals(header_value(value)?),
        },
        other => return Err(expected("a value, true (is there) or false (is not there)", other)),
    };
    Ok((header_name_of(name)?, sign))
}

fn statuses(value: &DeValue<'_>) -> Result<Statuses, Mistake> {
    let Some(text) = value.as_str() else {
        let status = status(value)?.as_u16();
        return Ok(Statuses { first: status, last: status });
    };
    let mistake = || {
        Mistake::new(format!("`{text}` is no status"))
            .hint("write one from 200 to 599, a class as \"5xx\", or a range as \"500-504\"")
    };
    let number = |text: &str| {
        let status: StatusCode = text.trim().parse().ok()?;
        (200..600).contains(&status.as_u16()).then_some(status.as_u16())
    };
    let (first, last) = match (text.strip_suffix("xx"), text.split_once('-')) {
        (Some(class), _) => (number(&format!("{class}00")), number(&format!("{class}99"))),
        (None, Some((first, last))) => (number(first), number(last)),
        (None, None) => (number(text), number(text)),
    };
    let range = first.zip(last).filter(|(first, last)| first <= last);
    range.map(|(first, last)| Statuses { first, last }).ok_or_else(mistake)
}

const FAULTS: [(&str, Faults); 3] = [("http", Faults::Http), ("soap", Faults::Soap), ("json-rpc", Faults::JsonRpc)];

const MEANINGS: [(&str, Outcome); 4] = [
    ("ok", Outcome::Ok),
    ("business", Outcome::Business),
    ("broken", Outcome::Broken),
    ("overloaded", Outcome::Overloaded),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_one_or_a_class_or_a_range() {
        let check = |toml: &str, expected: Option<(u16, u16)>| {
            let read = statuses(DeValue::parse(toml).unwrap().get_ref()).ok();
            assert_eq!(read.map(|range| (range.first, range.last)), expected, "{toml}");
        };
        check("500", Some((500, 500)));
        check("'429'", Some((429, 429)));
        check("'5xx'", Some((500, 599)));
        check("'500-504'", Some((500, 504)));
        for wrong in ["99", "600", "'1xx'", "'6xx'", "'504-500'", "'500-'", "'5'", "''", "'xx'", "true", "'-'"] {
            check(wrong, None);
        }
    }
}
