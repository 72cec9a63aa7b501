//! The files that are shipped load, and say of every key what the dictionary says.

use std::collections::BTreeSet;

use serde_json::Value as Json;
use toml::de::{DeTable, DeValue};

use super::*;
use crate::config::dictionary::{Kind, Need, Section};
use crate::config::file::FILE;

#[test]
fn every_shipped_file_loads_without_a_warning() {
    let certs = tempfile::tempdir().unwrap();
    for name in ["site.pem", "site.key", "ca.pem"] {
        std::fs::write(certs.path().join(name), "").unwrap();
    }
    let mut count = 0;
    for entry in std::fs::read_dir("config").unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            let text = std::fs::read_to_string(&path).unwrap();
            let text = text.replace("\"certs/", &format!("\"{}/", certs.path().display()));
            let loaded = parse_with(&text, &path.display().to_string(), &variables);
            let loaded = loaded.unwrap_or_else(|problems| panic!("{problems}"));
            assert!(loaded.warnings.is_empty(), "{}", loaded.warnings);
            count += 1;
        }
    }
    assert!(count >= 5);
}

#[test]
fn taking_the_sign_of_a_default_away_changes_nothing() {
    let uncommented: String = REFERENCE.lines().map(|line| format!("{}\n", uncomment(line, "# "))).collect();
    assert_ne!(uncommented, REFERENCE);
    assert_eq!(loaded(&uncommented).settings, loaded(REFERENCE).settings);
}

#[test]
fn reference_and_schema_and_dictionary_hold_the_same_keys() {
    let uncommented: String =
        REFERENCE.lines().map(|line| format!("{}\n", uncomment(uncomment(line, "## "), "# "))).collect();
    let file = DeTable::parse(&uncommented).unwrap_or_else(|error| panic!("{error}\n{uncommented}"));
    let mut written = BTreeSet::new();
    keys_of_file(file.get_ref(), &FILE, "", &mut written);
    let mut spelled = BTreeSet::new();
    keys_of_dictionary(&FILE, "", &mut spelled);
    assert_eq!(written, spelled);
    let mut printed = BTreeSet::new();
    keys_of_schema(&schema(), "", &mut printed);
    assert_eq!(printed, spelled);
}

/// `line` without the sign before its key or table.
pub(super) fn uncomment<'l>(line: &'l str, sign: &str) -> &'l str {
    let Some(rest) = line.strip_prefix(sign) else { return line };
    let key = rest.split(" = ").next().unwrap_or_default();
    let is_key = rest.contains(" = ") && key.bytes().all(|byte| byte == b'_' || byte.is_ascii_alphanumeric());
    if is_key || rest.starts_with('[') { rest } else { line }
}

fn keys_of_file(table: &DeTable<'_>, section: &Section, path: &str, keys: &mut BTreeSet<String>) {
    for (name, value) in table {
        let key = section.key(name.get_ref()).unwrap_or_else(|| panic!("{} has no `{}`", section.name, name.get_ref()));
        let path = format!("{path}/{}", key.name);
        keys.insert(path.clone());
        if let (Need::Default(toml), None) = (key.need, key.kind.section()) {
            let default = DeValue::parse(toml).unwrap();
            assert_eq!(plain(value.get_ref()), plain(default.get_ref()), "the default of {path}");
        }
        let Some(inner) = key.kind.section() else { continue };
        let tables: Vec<&DeTable<'_>> = match (key.kind, value.get_ref()) {
            (Kind::Tables(_) | Kind::OneOrMore(_), DeValue::Array(tables)) => {
                tables.iter().filter_map(|table| table.get_ref().as_table()).collect()
            }
            (Kind::Named(_), DeValue::Table(named)) => {
                named.values().filter_map(|table| table.get_ref().as_table()).collect()
            }
            (_, value) => value.as_table().into_iter().collect(),
        };
        for table in tables {
            keys_of_file(table, inner, &path, keys);
        }
    }
}

fn keys_of_dictionary(section: &Section, path: &str, keys: &mut BTreeSet<String>) {
    for key in section.keys {
        let path = format!("{path}/{}", key.name);
        if let Some(inner) = key.kind.section() {
            keys_of_dictionary(inner, &path, keys);
        }
        assert!(key.about.ends_with('.'), "{path}: {}", key.about);
        keys.insert(path);
    }
}

fn keys_of_schema(schema: &Json, path: &str, keys: &mut BTreeSet<String>) {
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}/{name}");
        keys_of_schema(property, &path, keys);
        let [one, other] = [0, 1].map(|choice| &property["anyOf"][choice]);
        for inner in [&property["items"], &property["additionalProperties"], one, other] {
            keys_of_schema(inner, &path, keys);
        }
        keys.insert(path);
    }
}

fn plain(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => text.to_string(),
        DeValue::Boolean(flag) => flag.to_string(),
        DeValue::Integer(integer) => integer.to_string(),
        DeValue::Float(float) => float.to_string(),
        DeValue::Array(values) => values.iter().map(|value| plain(value.get_ref()) + ",").collect(),
        DeValue::Table(table) => table.values().map(|value| plain(value.get_ref()) + ",").collect(),
        DeValue::Datetime(datetime) => datetime.to_string(),
    }
}
