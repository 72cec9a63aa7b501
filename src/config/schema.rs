//! The dictionary as JSON Schema (draft 2020-12), for editors that complete and check while one types.

use serde_json::{Map, Value as Json, json};
use toml::de::DeValue;

use super::dictionary::{Key, Kind, Need, Section};
use super::file::FILE;

/// The JSON Schema of the configuration file.
pub fn schema() -> Json {
    let mut schema = section(&FILE);
    if let Json::Object(root) = &mut schema {
        root.insert("$schema".to_owned(), json!("https://json-schema.org/draft/2020-12/schema"));
        root.insert("title".to_owned(), json!("vaxel"));
    }
    schema
}

fn section(section: &Section) -> Json {
    let properties: Map<_, _> = section.keys.iter().map(|key| (key.name.to_owned(), property(key))).collect();
    let required: Vec<_> = section.keys.iter().filter(|key| key.need == Need::Required).map(|key| key.name).collect();
    json!({
        "description": section.about,
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    })
}

fn property(key: &Key) -> Json {
    let mut property = kind(&key.kind);
    if let Json::Object(property) = &mut property {
        property.insert("description".to_owned(), json!(key.about));
        if let Need::Default(toml) = key.need
            && let Ok(value) = DeValue::parse(toml)
        {
            property.insert("default".to_owned(), plain(value.get_ref()));
        }
    }
    property
}

fn kind(of: &Kind) -> Json {
    // Placeholders may stand in any text: what must look like a duration may be "${TIMEOUT:-5s}".
    let pattern = |pattern: &str| json!({ "type": "string", "pattern": format!("{pattern}|\\$\\{{") });
    match of {
        Kind::Text | Kind::Secret | Kind::File => json!({ "type": "string" }),
        Kind::Flag => json!({ "type": "boolean" }),
        Kind::Whole => json!({ "type": "integer", "minimum": 0 }),
        Kind::Ratio => json!({ "type": "number", "minimum": 0, "maximum": 1 }),
        Kind::Number => json!({ "type": "number", "minimum": 0 }),
        Kind::Duration => pattern(DURATION),
        Kind::DurationOr(word) => json!({ "anyOf": [pattern(DURATION), { "const": word }] }),
        Kind::Size => pattern(r"^\s*\d+(\.\d+)?\s*[a-zA-Z]+\s*$"),
        Kind::Rate => pattern(r"^\s*\d+\s*/\s*(s|m|min|h|d)\s*$"),
        Kind::StatusRange => {
            let status = json!({ "type": "integer", "minimum": 200, "maximum": 599 });
            json!({ "anyOf": [status, pattern(r"^([2-5]xx|[2-5]\d\d(-[2-5]\d\d)?)$")] })
        }
        Kind::Choice(words) => json!({ "enum": words }),
        Kind::List(inner) => json!({ "type": "array", "items": kind(inner) }),
        Kind::OneOrMore(inner) => {
            json!({ "anyOf": [kind(inner), { "type": "array", "items": kind(inner), "minItems": 1 }] })
        }
        Kind::Map(inner) => json!({ "type": "object", "additionalProperties": kind(inner) }),
        Kind::Predicate => json!({ "type": ["string", "boolean"] }),
        Kind::Table(inner) => section(inner),
        Kind::Switch(inner) => json!({ "anyOf": [{ "type": "boolean" }, section(inner)] }),
        Kind::WholeOr(inner) => json!({ "anyOf": [{ "type": "integer", "minimum": 0 }, section(inner)] }),
        Kind::Tables(inner) => json!({ "type": "array", "items": section(inner), "minItems": 1 }),
        Kind::Named(inner) => json!({ "type": "object", "additionalProperties": section(inner) }),
    }
}

/// A default as JSON.
fn plain(value: &DeValue<'_>) -> Json {
    match value {
        DeValue::String(text) => json!(text),
        DeValue::Boolean(flag) => json!(flag),
        DeValue::Integer(integer) => integer.as_str().parse::<i64>().map_or(Json::Null, Json::from),
        DeValue::Float(float) => float.as_str().parse::<f64>().map_or(Json::Null, Json::from),
        DeValue::Datetime(datetime) => json!(datetime.to_string()),
        DeValue::Array(values) => values.iter().map(|value| plain(value.get_ref())).collect(),
        DeValue::Table(table) => {
            let entries = table.iter().map(|(key, value)| (key.get_ref().to_string(), plain(value.get_ref())));
            Json::Object(entries.collect())
        }
    }
}

/// What durations look like.
const DURATION: &str = r"^\s*(\d+\s*[a-zA-Zµ]+\s*)+$";
