//! The path patterns of one host as a tree of segments.
//!
//! A lookup walks the tree depth first, the most specific branch first: literal, then parameter with prefix or suffix
//! (the longer first), then bare parameter, then the rest. Every pattern that fits the path is so met in the order of
//! precedence, which is what lets a request fall through to a less specific pattern when the predicates of the better
//! one do not fit. Each node is visited at most once per lookup; a lookup allocates nothing.

use std::cmp::Reverse;

use super::pattern::Segment;

/// A node: the segments up to it have matched.
#[derive(Debug)]
pub(super) struct Tree<V> {
    /// Next segment is exactly this text; sorted by it.
    literals: Vec<(Box<str>, Self)>,
    /// Next segment has this prefix and suffix around something; the longest fixed text first.
    affixed: Vec<(Box<str>, Box<str>, Self)>,
    /// Next segment is anything but empty.
    param: Option<Box<Self>>,
    /// Whatever follows, also nothing.
    rest: Vec<V>,
    /// The path ends here.
    end: Vec<V>,
}

impl<V> Tree<V> {
    /// The values at the end of `pattern`, with the nodes on the way made where they are missing.
    pub(super) fn at(&mut self, pattern: &[Segment]) -> &mut Vec<V> {
        let Some((first, others)) = pattern.split_first() else {
            return &mut self.end;
        };
        let next = match first {
            Segment::Rest => return &mut self.rest,
            Segment::Literal(text) => self.literal(text),
            Segment::Param { prefix, suffix } if prefix.is_empty() && suffix.is_empty() => {
                self.param.get_or_insert_default()
            }
            Segment::Param { prefix, suffix } => self.affix(prefix, suffix),
        };
        next.at(others)
    }

    /// Calls `visit` with the values of every pattern that fits `path`, most specific first, until it returns
    /// something. A path without a leading slash (`*`, RFC 9112 section 3.2.4) fits only `/{*rest}`.
    pub(super) fn find<'t, R>(&'t self, path: &str, visit: &mut impl FnMut(&'t [V]) -> Option<R>) -> Option<R> {
        match path.strip_prefix('/') {
            Some(relative) => self.descend(Some(relative), visit),
            None => visit(&self.rest),
        }
    }

    /// Every list of values, in no particular order.
    pub(super) fn for_each(&mut self, visit: &mut impl FnMut(&mut Vec<V>)) {
        visit(&mut self.rest);
        visit(&mut self.end);
        let literals = self.literals.iter_mut().map(|(_, node)| node);
        let affixed = self.affixed.iter_mut().map(|(.., node)| node);
        for node in literals.chain(affixed).chain(self.param.as_deref_mut()) {
            node.for_each(visit);
        }
    }

    /// `left` is what follows the slash after this node; `None` when the path ended with it.
    fn descend<'t, R>(&'t self, left: Option<&str>, visit: &mut impl FnMut(&'t [V]) -> Option<R>) -> Option<R> {
        let found = match left {
            None => visit(&self.end),
            Some(left) => {
                // A segment is short: a loop is at its end before a search has begun.
                let (segment, next) = match left.bytes().position(|byte| byte == b'/') {
                    Some(at) => (left.get(..at).unwrap_or_default(), left.get(at + 1..)),
                    None => (left, None),
                };
                self.step(segment, next, visit)
            }
        };
        found.or_else(|| if self.rest.is_empty() { None } else { visit(&self.rest) })
    }

    fn step<'t, R>(
        &'t self,
        segment: &str,
        next: Option<&str>,
        visit: &mut impl FnMut(&'t [V]) -> Option<R>,
    ) -> Option<R> {
        let literal = self.literals.binary_search_by(|(text, _)| (**text).cmp(segment)).ok();
        if let Some((_, node)) = literal.and_then(|at| self.literals.get(at))
            && let Some(found) = node.descend(next, visit)
        {
            return Some(found);
        }
        if segment.is_empty() {
            return None;
        }
        for (prefix, suffix, node) in &self.affixed {
            let inner = segment.strip_prefix(&**prefix).and_then(|inner| inner.strip_suffix(&**suffix));
            if inner.is_some_and(|inner| !inner.is_empty())
                && let Some(found) = node.descend(next, visit)
            {
                return Some(found);
            }
        }
        self.param.as_ref()?.descend(next, visit)
    }

    fn literal(&mut self, text: &str) -> &mut Self {
        let at = match self.literals.binary_search_by(|(known, _)| (**known).cmp(text)) {
            Ok(at) => at,
            Err(at) => {
                self.literals.insert(at, (text.into(), Self::default()));
                at
            }
        };
        let (_, node) = self.literals.get_mut(at).expect("found or just inserted there");
        node
    }

    fn affix(&mut self, prefix: &str, suffix: &str) -> &mut Self {
        // Longest fixed text first, then the longer prefix, then by the alphabet, so that the order in the file is
        // of no account.
        let rank = |p: &str, s: &str| Reverse((p.len() + s.len(), p.len()));
        let order = |(p, s, _): &(Box<str>, Box<str>, Self)| {
            rank(p, s).cmp(&rank(prefix, suffix)).then_with(|| (&**p, &**s).cmp(&(prefix, suffix)))
        };
        let at = match self.affixed.binary_search_by(order) {
            Ok(at) => at,
            Err(at) => {
                self.affixed.insert(at, (prefix.into(), suffix.into(), Self::default()));
                at
            }
        };
        let (.., node) = self.affixed.get_mut(at).expect("found or just inserted there");
        node
    }
}

impl<V> Default for Tree<V> {
    fn default() -> Self {
        Self { literals: Vec::new(), affixed: Vec::new(), param: None, rest: Vec::new(), end: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::pattern::parse_path;
    use super::*;

    /// All patterns that fit, in the order they are met.
    fn met<'a>(patterns: &[&'a str], path: &str) -> Vec<&'a str> {
        let mut tree = Tree::default();
        for pattern in patterns {
            tree.at(&parse_path(pattern).unwrap()).push(*pattern);
        }
        let mut met = Vec::new();
        tree.find(path, &mut |values: &[&'a str]| {
            met.extend_from_slice(values);
            None::<()>
        });
        met
    }

    #[test]
    fn patterns_are_met_most_specific_first() {
        let all = [
            "/{*rest}",
            "/a/{*rest}",
            "/a/{id}",
            "/a/x",
            "/a/x-{id}",
            "/a/{id}.png",
            "/a/x-{id}.png",
            "/a",
            "/a/",
            "/a/{id}/c",
        ];
        let check = |path: &str, expected: &[&str]| assert_eq!(met(&all, path), expected, "{path}");
        check("/", &["/{*rest}"]);
        check("/b", &["/{*rest}"]);
        check("/a", &["/a", "/a/{*rest}", "/{*rest}"]);
        check("/a/", &["/a/", "/a/{*rest}", "/{*rest}"]);
        check("/a/x", &["/a/x", "/a/{id}", "/a/{*rest}", "/{*rest}"]);
        check("/a/y", &["/a/{id}", "/a/{*rest}", "/{*rest}"]);
        check("/a/x-", &["/a/{id}", "/a/{*rest}", "/{*rest}"]);
        check("/a/x-1.png", &["/a/x-{id}.png", "/a/{id}.png", "/a/x-{id}", "/a/{id}", "/a/{*rest}", "/{*rest}"]);
        check("/a/y/c", &["/a/{id}/c", "/a/{*rest}", "/{*rest}"]);
        check("/a/x/c/d", &["/a/{*rest}", "/{*rest}"]);
        check("/ab", &["/{*rest}"]);
        check("*", &["/{*rest}"]);
        check("", &["/{*rest}"]);
    }

    #[test]
    fn a_literal_to_the_left_wins_over_one_to_the_right() {
        assert_eq!(met(&["/{x}/b", "/a/{y}"], "/a/b"), ["/a/{y}", "/{x}/b"]);
        assert_eq!(met(&["/a/{x}/c", "/a/b/d"], "/a/b/c"), ["/a/{x}/c"], "the walk comes back from a dead end");
    }

    /// The same question answered by the plainest code there is.
    fn fits(pattern: &[Segment], path: &[&str]) -> bool {
        match (pattern.split_first(), path.split_first()) {
            (None, None) | (Some((Segment::Rest, _)), _) => true,
            (Some((Segment::Literal(text), pattern)), Some((segment, path))) => text == segment && fits(pattern, path),
            (Some((Segment::Param { prefix, suffix }, pattern)), Some((segment, path))) => {
                let inner = segment.strip_prefix(&**prefix).and_then(|s| s.strip_suffix(&**suffix));
                inner.is_some_and(|inner| !inner.is_empty()) && fits(pattern, path)
            }
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn the_tree_meets_exactly_the_patterns_that_fit(
            patterns in prop::collection::btree_set("(/(a|b|ab|\\{x\\}|a\\{x\\}|\\{x\\}b)?){1,4}(/\\{\\*r\\})?", 1..12),
            path in "(/(a|b|ab|aab|abb)?){1,5}",
        ) {
            let patterns: Vec<&str> = patterns.iter().map(String::as_str).collect();
            let segments: Vec<&str> = path.strip_prefix('/').unwrap().split('/').collect();
            let mut found = met(&patterns, &path);
            found.sort_unstable();
            let mut expected: Vec<&str> =
                patterns.iter().copied().filter(|pattern| fits(&parse_path(pattern).unwrap(), &segments)).collect();
            expected.sort_unstable();
            prop_assert_eq!(found, expected);
        }
    }
}
