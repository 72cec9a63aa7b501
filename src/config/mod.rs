//! The configuration: one TOML file, checked as a whole, every problem reported at once and at its place.
//!
//! ```text
//! text ─ toml ─► spanned tables ─ interpolate ─► reader (by the dictionary of `file`) ─ meaning ─► Settings
//!                                                   └────────── Problems (diagnostics) ◄──┘
//! ```
//! - [`mod@file`] spells every section, key and default once; [`schema()`] prints it as JSON Schema
//! - [`settings`] is what the parts are built from; nothing below this module knows TOML or serde
//! - [`units`], [`values`]: what single values mean
//! - `meaning`: one file per kind of section, and what must hold between them

use std::path::Path;

use serde_json::{Value as Json, json};
use sha2::{Digest as _, Sha256};
use toml::de::DeTable;

mod context;
pub mod diagnostics;
pub mod dictionary;
pub mod file;
mod interpolate;
mod meaning;
mod reader;
mod schema;
pub mod settings;
pub mod units;
pub mod values;

pub use diagnostics::{Problem, Problems, Severity};
pub use schema::schema;

use context::Context;
use diagnostics::Mistake;
use interpolate::Variables;
use reader::Reader;
use settings::Settings;

/// A configuration that can be used.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// What it means.
    pub settings: Settings,
    /// What is probably not meant; none of it keeps it from being used.
    pub warnings: Problems,
    /// Where it came from.
    pub source: Source,
}

/// Where a configuration came from, without its secrets.
#[derive(Debug, Clone, PartialEq)]
pub struct Source {
    /// The path of the file, or what stands for it.
    pub name: String,
    /// The text, as it was written; secrets are masked by asterisks, placeholders are left as they are.
    pub text: String,
    /// Every key that counts, as in the file, defaults included; secrets masked.
    pub effective: Json,
}

impl Loaded {
    /// A hash of the text and of what it means, without secrets: the same for all who have loaded the same.
    pub fn hash(&self) -> u64 {
        let Source { text, effective, .. } = &self.source;
        let digest = Sha256::digest(format!("{text}\n{effective}"));
        digest.iter().take(8).fold(0, |hash, byte| hash << 8 | u64::from(*byte))
    }

    /// The configuration in force, for operators: source and effective values, without secrets.
    pub fn view(&self) -> Json {
        let Source { name, text, effective } = &self.source;
        json!({ "source": name, "text": text, "effective": effective })
    }
}

impl From<Settings> for Loaded {
    /// Settings that a program made without a file.
    fn from(settings: Settings) -> Self {
        let name = "settings made without a file".to_owned();
        // No secrets in it: of keys only digests are kept, and header values that are secrets are marked as sensitive.
        let source = Source { name, text: format!("{settings:#?}"), effective: Json::Null };
        Self { settings, warnings: Problems::default(), source }
    }
}

/// Loads the file at `path` for a server, which has to listen somewhere; placeholders are expanded from the environment.
///
/// # Errors
/// Everything that is wrong with it.
pub fn load(path: impl AsRef<Path>) -> Result<Loaded, Problems> {
    let path = path.as_ref();
    let name = path.display().to_string();
    match std::fs::read_to_string(path) {
        Ok(text) => parse_for(true, &text, &name, &environment),
        Err(error) => {
            let mut problems = Problems::new(name, "");
            problems.add(Severity::Error, 0..0, Mistake::new(format!("the configuration cannot be read: {error}")));
            Err(problems)
        }
    }
}

/// Understands `text`, called `name` in messages; placeholders are expanded from the environment. It need not listen
/// anywhere: an embedding program has a server of its own.
///
/// # Errors
/// Everything that is wrong with it.
pub fn parse(text: &str, name: &str) -> Result<Loaded, Problems> {
    parse_with(text, name, &environment)
}

fn environment(variable: &str) -> Option<String> {
    std::env::var(variable).ok()
}

fn parse_with(text: &str, name: &str, variables: Variables<'_>) -> Result<Loaded, Problems> {
    parse_for(false, text, name, variables)
}

fn parse_for(server: bool, text: &str, name: &str, variables: Variables<'_>) -> Result<Loaded, Problems> {
    let (mut file, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        // What follows a syntax error is guesswork: nothing else is reported beside it.
        let mut problems = Problems::new(name, text);
        for error in errors {
            problems.add(Severity::Error, error.span().unwrap_or(0..0), Mistake::new(error.message()));
        }
        return Err(problems);
    }
    let mut context = Context::new(text, file.get_mut(), variables);
    let settings = Reader::read(&mut context, file.get_ref(), meaning::settings);
    let masked = masked(text, &context.secrets);
    let mut problems = Problems::new(name, masked.as_str());
    for (severity, span, mistake) in context.problems {
        problems.add(severity, span, mistake);
    }
    if server && file.get_ref().get("listener").is_none() {
        let mistake =
            Mistake::new("a server needs `listener`").hint("[[listener]] says where connections are accepted");
        problems.add(Severity::Error, 0..0, mistake);
    }
    match settings {
        Some(settings) if !problems.has_errors() => {
            let source = Source { name: name.to_owned(), text: masked, effective: context.effective };
            Ok(Loaded { settings, warnings: problems, source })
        }
        _ => Err(problems),
    }
}

/// `text` with asterisks for secrets, byte by byte, so that places stay where they are.
fn masked(text: &str, secrets: &[std::ops::Range<usize>]) -> String {
    let mut masked = text.to_owned();
    for secret in secrets {
        // The quotes stay.
        let inner = secret.start + 1..secret.end.saturating_sub(1);
        if text.get(inner.clone()).is_some() {
            masked.replace_range(inner.clone(), &"*".repeat(inner.len()));
        }
    }
    masked
}

#[cfg(test)]
mod tests;
