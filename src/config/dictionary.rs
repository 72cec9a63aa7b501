//! What a section of the file is made of. [`file`](super::file) spells all sections with these words; the reader, the
//! JSON Schema and the test of `config/vaxel.toml` all go by them, so that they cannot disagree.

/// A table of the file.
#[derive(Debug)]
pub struct Section {
    /// How it is called in messages.
    pub name: &'static str,
    /// What it is about.
    pub about: &'static str,
    /// Its keys.
    pub keys: &'static [Key],
}

/// A key of a section.
#[derive(Debug)]
pub struct Key {
    /// As it is written.
    pub name: &'static str,
    /// What stands behind it.
    pub kind: Kind,
    /// Whether it must be there, and what counts if it is not.
    pub need: Need,
    /// What it means.
    pub about: &'static str,
}

/// Whether a key must be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// It must.
    Required,
    /// It need not; without it the thing is not there, or follows from other keys.
    Optional,
    /// It need not; without it this TOML value counts.
    Default(&'static str),
}

/// What stands behind a key.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// Any text.
    Text,
    /// Text that is never shown.
    Secret,
    /// `true` or `false`.
    Flag,
    /// A whole number, not negative.
    Whole,
    /// A number from 0 to 1.
    Ratio,
    /// A number, not negative.
    Number,
    /// Text such as `"5s"`.
    Duration,
    /// Text such as `"5s"`, or this word.
    DurationOr(&'static str),
    /// Text such as `"64KiB"`.
    Size,
    /// Text such as `"200/s"`.
    Rate,
    /// A status, or several: `500`, `"5xx"`, `"500-504"`.
    StatusRange,
    /// The path of a file.
    File,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// Several of one kind.
    List(&'static Self),
    /// One, or several of it.
    OneOrMore(&'static Self),
    /// Any names with values of one kind.
    Map(&'static Self),
    /// Text, `true` or `false`.
    Predicate,
    /// A table.
    Table(&'static Section),
    /// A table, or `false` (not at all), or `true` (with all its defaults).
    Switch(&'static Section),
    /// A whole number, or a table.
    WholeOr(&'static Section),
    /// Several tables: `[[name]]`.
    Tables(&'static Section),
    /// Tables with names: `[kind.name]`.
    Named(&'static Section),
}

impl Section {
    /// The key called `name`.
    pub fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }
}

impl Key {
    /// A key that need not be there.
    pub const fn new(name: &'static str, kind: Kind, about: &'static str) -> Self {
        Self { name, kind, need: Need::Optional, about }
    }

    /// The same, but it must be there.
    #[must_use]
    pub const fn required(mut self) -> Self {
        self.need = Need::Required;
        self
    }

    /// The same, but without it this TOML value counts.
    #[must_use]
    pub const fn default(mut self, toml: &'static str) -> Self {
        self.need = Need::Default(toml);
        self
    }
}

impl Kind {
    /// The section behind the key, if any.
    pub const fn section(&self) -> Option<&'static Section> {
        match self {
            Self::Table(section)
            | Self::Switch(section)
            | Self::WholeOr(section)
            | Self::Tables(section)
            | Self::Named(section) => Some(section),
            Self::OneOrMore(inner) => inner.section(),
            _ => None,
        }
    }
}
