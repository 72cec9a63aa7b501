//! What is wrong with a configuration, at which place, and what to do about it: all of it at once.

use std::fmt;
use std::ops::Range;

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};

/// What is wrong with one value; the reader adds the place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Mistake {
    /// A mistake without a hint.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None }
    }

    /// The same with what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same with a hint at the word that was probably meant, or else at all words there are.
    #[must_use]
    pub fn did_you_mean<'w>(self, written: &str, words: impl IntoIterator<Item = &'w str>) -> Self {
        let words: Vec<&str> = words.into_iter().collect();
        match closest(written, &words) {
            Some(word) => self.hint(format!("did you mean `{word}`?")),
            None if words.is_empty() => self,
            None => self.hint(format!("possible here: {}", words.join(", "))),
        }
    }
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The configuration cannot be used.
    Error,
    /// It can be used, but probably does not do what its author thinks.
    Warning,
}

/// One problem at its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// Where: bytes of the source.
    pub span: Range<usize>,
    /// Line of the start, from 1.
    pub line: usize,
    /// Column of the start in characters, from 1.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// Problems of one source, in the order of their places. As an error it holds at least one of [`Severity::Error`].
#[derive(Debug, Clone, Default)]
pub struct Problems {
    name: String,
    text: String,
    list: Vec<Problem>,
}

impl Problems {
    /// None yet, in the source called `name`. `text` should have its secrets masked: it is quoted.
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> Self {
        Self { name: name.into(), text: text.into(), list: Vec::new() }
    }

    /// Adds one.
    pub fn add(&mut self, severity: Severity, span: Range<usize>, mistake: Mistake) {
        let start = floor(&self.text, span.start);
        let span = start..floor(&self.text, span.end.max(start));
        let before = self.text.get(..start).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        let Mistake { message, hint } = mistake;
        let at = self.list.partition_point(|other| other.span.start <= start);
        self.list.insert(at, Problem { severity, span, line, column, message, hint });
    }

    /// All of them.
    pub fn list(&self) -> &[Problem] {
        &self.list
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Whether one of them makes the configuration unusable.
    pub fn has_errors(&self) -> bool {
        self.list.iter().any(|problem| problem.severity == Severity::Error)
    }

    /// The report for people, as compilers write it; `color` with the colours of a terminal.
    pub fn render(&self, color: bool) -> String {
        self.reports(color).join("\n\n")
    }

    /// The same, one by one.
    pub fn reports(&self, color: bool) -> Vec<String> {
        let renderer = if color { Renderer::styled() } else { Renderer::plain() };
        let renderer = renderer.decor_style(DecorStyle::Ascii);
        self.list.iter().map(|problem| renderer.render(&[self.group(problem)])).collect()
    }

    fn group<'p>(&'p self, problem: &'p Problem) -> annotate_snippets::Group<'p> {
        let level = match problem.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let title = level.primary_title(problem.message.as_str());
        // Without a source (the file could not be read) there is nothing to quote.
        let group = if self.text.is_empty() {
            title.element(annotate_snippets::Origin::path(self.name.as_str()))
        } else {
            let quoted = AnnotationKind::Primary.span(problem.span.clone());
            title.element(Snippet::source(self.text.as_str()).path(self.name.as_str()).annotation(quoted))
        };
        match &problem.hint {
            Some(hint) => group.element(Level::HELP.message(hint.as_str())),
            None => group,
        }
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Problems {}

/// The reports, one by one, without colours.
impl IntoIterator for &Problems {
    type Item = String;
    type IntoIter = std::vec::IntoIter<String>;

    fn into_iter(self) -> Self::IntoIter {
        self.reports(false).into_iter()
    }
}

/// The word that `written` was probably meant to be: at most a third of its letters differ.
pub fn closest<'w>(written: &str, words: &[&'w str]) -> Option<&'w str> {
    let written = written.to_lowercase().replace('-', "_");
    let near = |word: &&'w str| {
        let plain = word.to_lowercase().replace('-', "_");
        let distance = distance(&written, &plain);
        (distance <= plain.chars().count().max(3) / 3).then_some((distance, *word))
    };
    words.iter().filter_map(near).min_by_key(|(distance, _)| *distance).map(|(_, word)| word)
}

/// Damerau-Levenshtein distance with adjacent transpositions: `timoeut` is one slip from `timeout`.
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().collect();
    let b: Vec<char> = b.chars().collect();
    // Rows of the matrix: before the last letter, before this one, and this one.
    let mut older = vec![0; b.len() + 1];
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = Vec::with_capacity(b.len() + 1);
        row.push(i + 1);
        for (j, y) in b.iter().enumerate() {
            let at = |row: &[usize], column: usize| row.get(column).copied().unwrap_or(usize::MAX - 1);
            let mut least = (at(&above, j) + usize::from(x != y)).min(at(&above, j + 1) + 1).min(at(&row, j) + 1);
            let swapped = i > 0 && j > 0 && a.get(i - 1) == Some(y) && b.get(j - 1) == Some(x);
            if swapped {
                least = least.min(at(&older, j - 1) + 1);
            }
            row.push(least);
        }
        older = std::mem::replace(&mut above, row);
    }
    above.last().copied().unwrap_or_default()
}

/// The nearest place at or before `at` that lies within `text` and between two characters.
fn floor(text: &str, at: usize) -> usize {
    text.floor_char_boundary(at.min(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_recognised_and_strangers_are_not() {
        let words = ["timeout", "max", "slots", "head_timeout", "least_of_two"];
        for (written, meant) in [
            ("timoeut", Some("timeout")),
            ("time-out", Some("timeout")),
            ("slot", Some("slots")),
            ("maxx", Some("max")),
            ("head-timeout", Some("head_timeout")),
            ("LeastOfTwo", Some("least_of_two")),
            ("colour", None),
            ("", None),
        ] {
            assert_eq!(closest(written, &words), meant, "{written}");
        }
    }

    #[test]
    fn a_report_quotes_the_line_and_gives_the_hint() {
        let mut problems = Problems::new("vaxel.toml", "a = 1\nö = 2 # ü\n");
        problems.add(Severity::Error, 11..12, Mistake::new("no good").hint("try 3"));
        problems.add(Severity::Warning, 4..5, Mistake::new("hm"));
        let [first, second] = problems.list() else { panic!("{problems}") };
        assert_eq!((first.line, first.column), (1, 5));
        assert_eq!((second.line, second.column), (2, 5));
        let report = problems.to_string();
        for part in ["warning: hm", "error: no good", "vaxel.toml:2:5", "try 3", "ö = 2"] {
            assert!(report.contains(part), "{part}: {report}");
        }
        assert!(problems.has_errors());
    }

    #[test]
    fn a_place_outside_the_text_does_no_harm() {
        let mut problems = Problems::new("x", "ä");
        problems.add(Severity::Error, 1..99, Mistake::new("odd"));
        assert!(problems.render(true).contains("odd"));
        let mut problems = Problems::new("missing.toml", "");
        problems.add(Severity::Error, 0..0, Mistake::new("cannot be read"));
        assert!(problems.to_string().contains("missing.toml"));
    }
}
