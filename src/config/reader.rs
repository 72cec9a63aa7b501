//! Walks the parsed file by the [dictionary](super::dictionary) and collects what is wrong instead of stopping at it.
//!
//! A value that cannot be read is reported once and then stands for its default (or for "not there"), so that one
//! mistake never causes another. Everything that was read, defaults included, is noted for the JSON view, secrets never.

use std::ops::Range;

use serde_json::Value as Json;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::context::{Context, innermost};
use super::diagnostics::{Mistake, Severity, closest};
use super::dictionary::{Key, Kind, Need, Section};
use super::file::FILE;
use super::values::{expected, text};

/// Reads one table.
pub(super) struct Reader<'r> {
    context: &'r mut Context,
    section: &'static Section,
    table: &'r DeTable<'r>,
    /// The header of the table, for what is missing in it.
    place: Range<usize>,
    asked: Vec<&'static str>,
}

impl<'r> Reader<'r> {
    /// Reads the whole file with `read`.
    pub(super) fn read<T>(
        context: &'r mut Context,
        file: &'r DeTable<'r>,
        read: impl FnOnce(&mut Reader<'_>) -> T,
    ) -> T {
        // What is missing in the whole file is missing at its start.
        let mut reader = Reader { context, section: &FILE, table: file, place: 0..0, asked: Vec::new() };
        let value = read(&mut reader);
        reader.finish();
        value
    }

    /// A value that has a default.
    pub(super) fn value<T>(&mut self, name: &str, read: impl Fn(&DeValue<'_>) -> Result<T, Mistake>) -> T {
        let key = self.key(name);
        if let Some(value) = self.optional(name, &read) {
            return value;
        }
        let Need::Default(toml) = key.need else { unreachable!("the dictionary gives `{name}` a default") };
        let default = DeValue::parse(toml).expect("defaults are TOML: a test reads them all");
        if self.entry(name).is_none() {
            let shown = self.context.shown(&key.kind, default.get_ref(), &default.span(), true);
            self.context.note(name, shown);
        }
        read(default.get_ref()).unwrap_or_else(|mistake| panic!("the default of `{name}`: {}", mistake.message))
    }

    /// A value that need not be there; `None` also when it is wrong, which is then reported.
    pub(super) fn optional<T>(&mut self, name: &str, read: impl Fn(&DeValue<'_>) -> Result<T, Mistake>) -> Option<T> {
        let key = self.key(name);
        let value = self.entry(name)?;
        let shown = self.context.shown(&key.kind, value.get_ref(), &value.span(), false);
        self.context.note(name, shown);
        self.leaf(value, read)
    }

    /// A value that must be there; `None` when it is not or is wrong, which is then reported.
    pub(super) fn required<T>(&mut self, name: &str, read: impl Fn(&DeValue<'_>) -> Result<T, Mistake>) -> Option<T> {
        self.must(name);
        self.optional(name, read)
    }

    /// One of the words of the dictionary, and its meaning.
    pub(super) fn choice<T: Copy>(&mut self, name: &str, meanings: &[(&str, T)]) -> T {
        self.value(name, chosen(meanings))
    }

    /// The same for a word that need not be there.
    pub(super) fn optional_choice<T: Copy>(&mut self, name: &str, meanings: &[(&str, T)]) -> Option<T> {
        self.optional(name, chosen(meanings))
    }

    /// Several values with their places; those that are wrong are reported and left out. A key without a default
    /// that is not there is `None`.
    pub(super) fn list<T>(
        &mut self,
        name: &str,
        read: impl Fn(&DeValue<'_>) -> Result<T, Mistake>,
    ) -> Option<Vec<Spanned<T>>> {
        let key = self.key(name);
        let Some(value) = self.entry(name) else {
            let Need::Default(toml) = key.need else { return None };
            let default = DeValue::parse(toml).expect("defaults are TOML: a test reads them all");
            let shown = self.context.shown(&key.kind, default.get_ref(), &default.span(), true);
            self.context.note(name, shown);
            return Some(self.elements(&default, &read));
        };
        let shown = self.context.shown(&key.kind, value.get_ref(), &value.span(), false);
        self.context.note(name, shown);
        match (value.get_ref(), key.kind) {
            (DeValue::Array(_), _) => Some(self.elements(value, &read)),
            (_, Kind::OneOrMore(_)) => {
                Some(self.leaf(value, &read).map(|one| Spanned::new(value.span(), one)).into_iter().collect())
            }
            (other, _) => {
                self.error(value.span(), expected("an array", other).hint("write it in brackets: [\"...\"]"));
                None
            }
        }
    }

    /// Several values of which there must be at least one.
    pub(super) fn some<T>(
        &mut self,
        name: &str,
        read: impl Fn(&DeValue<'_>) -> Result<T, Mistake>,
    ) -> Option<Vec<Spanned<T>>> {
        let list = self.list(name, read);
        let is_empty =
            |value: &Spanned<DeValue<'_>>| value.get_ref().as_array().is_some_and(|values| values.is_empty());
        if self.entry(name).is_some_and(is_empty) {
            self.error(self.span(name), Mistake::new(format!("`{name}` must not be empty")));
        }
        list
    }

    /// Free names and their values, in the order of the file.
    pub(super) fn map<T>(&mut self, name: &str, read: impl Fn(&str, &DeValue<'_>) -> Result<T, Mistake>) -> Vec<T> {
        let key = self.key(name);
        let Some(value) = self.entry(name) else {
            self.context.note(name, Json::Object(serde_json::Map::new()));
            return Vec::new();
        };
        let shown = self.context.shown(&key.kind, value.get_ref(), &value.span(), false);
        self.context.note(name, shown);
        let DeValue::Table(table) = value.get_ref() else {
            self.error(value.span(), expected("a table", value.get_ref()));
            return Vec::new();
        };
        let mut values = Vec::new();
        for (name, value) in in_order(table) {
            values.extend(self.leaf(value, |value| read(name.get_ref(), value)));
        }
        values
    }

    /// A table; one that is not there is read as an empty one, so that its defaults count.
    pub(super) fn table<T>(&mut self, name: &str, read: impl FnOnce(&mut Reader<'_>) -> T) -> T {
        let section = self.section_of(name);
        let empty = DeTable::new();
        let table = match self.entry(name) {
            None => &empty,
            Some(value) => self.as_table(value).unwrap_or(&empty),
        };
        self.within(name, section, table, self.span(name), read)
    }

    /// A table that need not be there; `None` also when it is no table, which is then reported.
    pub(super) fn optional_table<T>(&mut self, name: &str, read: impl FnOnce(&mut Reader<'_>) -> T) -> Option<T> {
        let section = self.section_of(name);
        let value = self.entry(name)?;
        let table = self.as_table(value)?;
        Some(self.within(name, section, table, value.span(), read))
    }

    /// A table that must be there.
    pub(super) fn required_table<T>(&mut self, name: &str, read: impl FnOnce(&mut Reader<'_>) -> T) -> Option<T> {
        self.must(name);
        self.optional_table(name, read)
    }

    /// A table, `true` for one with all its defaults, or `false` for none.
    pub(super) fn switch<T>(&mut self, name: &str, read: impl FnOnce(&mut Reader<'_>) -> T) -> Option<T> {
        if let Some(DeValue::Table(_)) = self.entry(name).map(Spanned::get_ref) {
            return self.optional_table(name, read);
        }
        let is_on = |value: &DeValue<'_>| {
            let hint = "true: with its defaults; false: not at all; a table to say more";
            value.as_bool().ok_or_else(|| expected("a table, true or false", value).hint(hint))
        };
        if !self.value(name, is_on) {
            return None;
        }
        let section = self.section_of(name);
        Some(self.within(name, section, &DeTable::new(), self.span(name), read))
    }

    /// A value that has a default, or a table to say more.
    pub(super) fn value_or_table<T>(
        &mut self,
        name: &str,
        value: impl Fn(&DeValue<'_>) -> Result<T, Mistake>,
        table: impl FnOnce(&mut Reader<'_>) -> T,
    ) -> T {
        let section = self.section_of(name);
        match self.entry(name).map(Spanned::get_ref) {
            Some(DeValue::Table(written)) => self.within(name, section, written, self.span(name), table),
            _ => self.value(name, value),
        }
    }

    /// Several tables `[[name]]`.
    pub(super) fn tables<T>(&mut self, name: &str, read: impl Fn(&mut Reader<'_>) -> T) -> Vec<T> {
        self.must(name);
        let section = self.section_of(name);
        let Some(value) = self.entry(name) else { return Vec::new() };
        let DeValue::Array(values) = value.get_ref() else {
            let mistake = expected("an array of tables", value.get_ref());
            self.error(value.span(), mistake.hint(format!("write [[{name}]], with two brackets on each side")));
            return Vec::new();
        };
        let mut all = Vec::new();
        for (index, value) in values.iter().enumerate() {
            if let Some(table) = self.as_table(value) {
                self.context.path.push(name.to_owned());
                all.push(self.within(&index.to_string(), section, table, value.span(), &read));
                self.context.path.pop();
            }
        }
        all
    }

    /// One table, or several.
    pub(super) fn some_tables<T>(&mut self, name: &str, read: impl Fn(&mut Reader<'_>) -> T) -> Vec<T> {
        match self.entry(name).map(Spanned::get_ref) {
            Some(DeValue::Table(_)) => self.optional_table(name, read).into_iter().collect(),
            _ => self.tables(name, read),
        }
    }

    /// Tables with names, `[kind.name]`, in the order of the file.
    pub(super) fn named<T>(&mut self, name: &str, read: impl Fn(&Spanned<String>, &mut Reader<'_>) -> T) -> Vec<T> {
        self.must(name);
        let section = self.section_of(name);
        let Some(value) = self.entry(name) else { return Vec::new() };
        let Some(kinds) = self.as_table(value) else { return Vec::new() };
        let mut all = Vec::new();
        for (key, value) in in_order(kinds) {
            if let Some(table) = self.as_table(value) {
                let key = Spanned::new(key.span(), key.get_ref().to_string());
                self.context.path.push(name.to_owned());
                all.push(self.within(key.get_ref(), section, table, key.span(), |reader| read(&key, reader)));
                self.context.path.pop();
            }
        }
        all
    }

    /// Whether the key is written in the file.
    pub(super) fn has(&self, name: &str) -> bool {
        self.table.contains_key(name)
    }

    /// Where the key's value stands, or the table if it is not there.
    pub(super) fn span(&self, name: &str) -> Range<usize> {
        self.entry(name).map_or_else(|| self.place.clone(), Spanned::span)
    }

    /// Where the table stands.
    pub(super) fn place(&self) -> Range<usize> {
        self.place.clone()
    }

    /// Reports what is wrong.
    pub(super) fn error(&mut self, span: Range<usize>, mistake: Mistake) {
        self.context.problems.push((Severity::Error, span, mistake));
    }

    /// Reports what is probably not meant.
    pub(super) fn warn(&mut self, span: Range<usize>, mistake: Mistake) {
        self.context.problems.push((Severity::Warning, span, mistake));
    }

    // ---- within

    fn within<T>(
        &mut self,
        step: &str,
        section: &'static Section,
        table: &DeTable<'_>,
        place: Range<usize>,
        read: impl FnOnce(&mut Reader<'_>) -> T,
    ) -> T {
        self.context.path.push(step.to_owned());
        let mut reader = Reader { context: self.context, section, table, place, asked: Vec::new() };
        let value = read(&mut reader);
        reader.finish();
        self.context.path.pop();
        value
    }

    /// Reports the keys that the section does not have.
    fn finish(self) {
        for key in self.section.keys {
            debug_assert!(self.asked.contains(&key.name), "nobody reads `{}` of {}", key.name, self.section.name);
        }
        let has_secrets = self.section.keys.iter().any(|key| matches!(innermost(&key.kind), Kind::Secret));
        for (key, value) in in_order(self.table) {
            let written = key.get_ref().as_ref();
            if self.section.key(written).is_some() {
                continue;
            }
            if has_secrets && value.get_ref().is_str() {
                // `apikey` was meant to be one, and the report quotes the line.
                self.context.secrets.push(value.span());
            }
            let names = self.section.keys.iter().map(|key| key.name);
            let mut mistake = Mistake::new(format!("{} has no key `{written}`", self.section.name));
            mistake = match home_of(written, &FILE) {
                Some(home) if closest_is_far(written, self.section) => mistake.hint(format!("it belongs to {home}")),
                _ => mistake.did_you_mean(written, names),
            };
            self.context.problems.push((Severity::Error, key.span(), mistake));
        }
    }

    fn key(&mut self, name: &str) -> &'static Key {
        let section = self.section;
        let Some(key) = section.key(name) else { unreachable!("the dictionary of {} has `{name}`", section.name) };
        self.asked.push(key.name);
        key
    }

    fn section_of(&mut self, name: &str) -> &'static Section {
        match self.key(name).kind.section() {
            Some(section) => section,
            None => unreachable!("the dictionary says that `{name}` is a table"),
        }
    }

    fn entry(&self, name: &str) -> Option<&'r Spanned<DeValue<'r>>> {
        self.table.get(name)
    }

    pub(super) fn must(&mut self, name: &str) {
        if self.key(name).need == Need::Required && !self.has(name) {
            let mistake = Mistake::new(format!("{} needs `{name}`", self.section.name));
            let about = self.key(name).about;
            self.error(self.place.clone(), mistake.hint(about));
        }
    }

    fn as_table(&mut self, value: &'r Spanned<DeValue<'r>>) -> Option<&'r DeTable<'r>> {
        let table = value.get_ref().as_table();
        if table.is_none() {
            self.error(value.span(), expected("a table", value.get_ref()));
        }
        table
    }

    fn elements<T>(
        &mut self,
        array: &Spanned<DeValue<'_>>,
        read: &impl Fn(&DeValue<'_>) -> Result<T, Mistake>,
    ) -> Vec<Spanned<T>> {
        let values = array.get_ref().as_array().into_iter().flat_map(|values| values.iter());
        values.filter_map(|value| Some(Spanned::new(value.span(), self.leaf(value, read)?))).collect()
    }

    fn leaf<T>(
        &mut self,
        value: &Spanned<DeValue<'_>>,
        read: impl Fn(&DeValue<'_>) -> Result<T, Mistake>,
    ) -> Option<T> {
        if self.context.is_broken(value) {
            return None;
        }
        read(value.get_ref()).map_err(|mistake| self.error(value.span(), mistake)).ok()
    }
}

/// The entries of a table in the order of the file; toml keeps them in the order of their names.
fn in_order<'t, 'i>(table: &'t DeTable<'i>) -> Vec<(&'t Spanned<toml::de::DeString<'i>>, &'t Spanned<DeValue<'i>>)> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    entries
}

fn chosen<T: Copy>(meanings: &[(&str, T)]) -> impl Fn(&DeValue<'_>) -> Result<T, Mistake> {
    move |value| {
        let written = text(value)?;
        let words = meanings.iter().map(|(word, _)| *word);
        let meaning = meanings.iter().find(|(word, _)| *word == written).map(|(_, meaning)| *meaning);
        meaning.ok_or_else(|| Mistake::new(format!("`{written}` is not possible here")).did_you_mean(&written, words))
    }
}

/// The section that has the key, if exactly one has it.
fn home_of(name: &str, within: &'static Section) -> Option<&'static str> {
    let own = within.key(name).map(|_| within.name);
    let below = within.keys.iter().filter_map(|key| home_of(name, key.kind.section()?));
    own.into_iter().chain(below).next()
}

fn closest_is_far(written: &str, section: &Section) -> bool {
    let names: Vec<&str> = section.keys.iter().map(|key| key.name).collect();
    closest(written, &names).is_none()
}
