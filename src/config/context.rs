//! What is collected while the file is read: problems, secrets, and every value that counts.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;

use serde_json::Value as Json;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnostics::{Mistake, Severity};
use super::dictionary::Kind;
use super::interpolate::{self, Variables};

/// What is collected while the file is read.
pub(super) struct Context {
    /// What is wrong, and where.
    pub(super) problems: Vec<(Severity, Range<usize>, Mistake)>,
    /// Where secrets stand in the source, quotes included.
    pub(super) secrets: Vec<Range<usize>>,
    /// Everything that was read, as in the file, with defaults.
    pub(super) effective: Json,
    /// Strings with placeholders, by their start: as they were written.
    written: HashMap<usize, String>,
    /// Strings with placeholders that could not be expanded, by their start; already reported.
    broken: BTreeSet<usize>,
    /// Where in the file the reader is.
    pub(super) path: Vec<String>,
}

impl Context {
    /// Nothing read yet; the placeholders of `file` are expanded.
    pub(super) fn new(source: &str, file: &mut DeTable<'_>, variables: Variables<'_>) -> Self {
        let mut context = Self {
            problems: Vec::new(),
            secrets: Vec::new(),
            effective: Json::Object(serde_json::Map::new()),
            path: Vec::new(),
            written: HashMap::new(),
            broken: BTreeSet::new(),
        };
        for (_, value) in file.iter_mut() {
            context.expand(source, value, variables);
        }
        context
    }

    /// Whether the value was reported already: it holds a placeholder that could not be expanded.
    pub(super) fn is_broken(&self, value: &Spanned<DeValue<'_>>) -> bool {
        self.broken.contains(&value.span().start)
    }

    fn expand(&mut self, source: &str, value: &mut Spanned<DeValue<'_>>, variables: Variables<'_>) {
        let span = value.span();
        match value.get_mut() {
            DeValue::String(text) => match interpolate::expand(text, variables) {
                Ok(None) => {}
                Ok(Some(expanded)) => {
                    self.written.insert(span.start, std::mem::replace(text, expanded.into()).into_owned());
                }
                Err((placeholder, mistake)) => {
                    let within = source.get(span.clone()).and_then(|quoted| quoted.find(&placeholder));
                    let start = span.start + within.unwrap_or(0);
                    let end = if within.is_some() { start + placeholder.len() } else { span.end };
                    self.broken.insert(span.start);
                    self.problems.push((Severity::Error, start..end, mistake));
                }
            },
            DeValue::Array(values) => values.iter_mut().for_each(|value| self.expand(source, value, variables)),
            DeValue::Table(table) => table.iter_mut().for_each(|(_, value)| self.expand(source, value, variables)),
            _ => {}
        }
    }

    /// Notes what counts for a key.
    pub(super) fn note(&mut self, key: &str, value: Json) {
        let mut at = &mut self.effective;
        for step in self.path.iter().map(String::as_str).chain([key]) {
            if !at.is_object() {
                *at = Json::Object(serde_json::Map::new());
            }
            let Json::Object(map) = at else { return };
            at = map.entry(step).or_insert(Json::Null);
        }
        *at = value;
    }

    /// A value as JSON: placeholders as they were written, secrets masked.
    pub(super) fn shown(&mut self, kind: &Kind, value: &DeValue<'_>, span: &Range<usize>, is_default: bool) -> Json {
        let written = if is_default { None } else { self.written.get(&span.start) };
        match value {
            DeValue::String(_) if written.is_some() => written.map_or(Json::Null, |text| Json::from(text.as_str())),
            // One key where a list may stand is as secret as a list of one.
            DeValue::String(_) if matches!(innermost(kind), Kind::Secret) => {
                self.secrets.push(span.clone());
                Json::from(MASK)
            }
            DeValue::String(text) => Json::from(text.as_ref()),
            DeValue::Boolean(flag) => Json::from(*flag),
            DeValue::Integer(integer) => {
                i64::from_str_radix(integer.as_str(), integer.radix()).map_or(Json::Null, Json::from)
            }
            DeValue::Float(float) => float.as_str().parse::<f64>().map_or(Json::Null, Json::from),
            DeValue::Datetime(datetime) => Json::from(datetime.to_string()),
            DeValue::Array(values) => {
                let kind = innermost(kind);
                values.iter().map(|value| self.shown(kind, value.get_ref(), &value.span(), is_default)).collect()
            }
            DeValue::Table(table) => {
                let mut shown = serde_json::Map::new();
                for (key, value) in table {
                    let name = key.get_ref().as_ref();
                    let kind = if is_sensitive(name) { &Kind::Secret } else { innermost(kind) };
                    shown.insert(name.to_owned(), self.shown(kind, value.get_ref(), &value.span(), is_default));
                }
                Json::Object(shown)
            }
        }
    }
}

/// The kind of what is within a value of `kind`.
pub(super) fn innermost(kind: &Kind) -> &Kind {
    match kind {
        Kind::List(inner) | Kind::OneOrMore(inner) | Kind::Map(inner) => inner,
        other => other,
    }
}

/// Header fields whose values are secrets, wherever an operator sets them.
pub(super) fn is_sensitive(name: &str) -> bool {
    const SENSITIVE: [&str; 5] = ["authorization", "proxy-authorization", "cookie", "set-cookie", "x-api-key"];
    SENSITIVE.iter().any(|sensitive| name.eq_ignore_ascii_case(sensitive))
}

/// What stands for a secret.
const MASK: &str = "***";
