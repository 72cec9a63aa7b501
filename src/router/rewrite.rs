//! The path prefix a route takes off and puts on before the request goes upstream.

/// Replaces a path prefix at a segment's edge: with `strip` `/old` and `add` `/new`, `/old/x?q` becomes `/new/x?q`, while
/// `/older` stays as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rewrite {
    /// What is taken off; empty or `/` to only add.
    pub strip: String,
    /// What is put in its place; empty or `/` to only strip.
    pub add: String,
}

impl Rewrite {
    /// The target for the upstream; the query is left alone. A target that does not begin with the prefix, or is no
    /// path at all (`*`), comes back unchanged.
    pub fn apply(&self, path_and_query: &str) -> String {
        let strip = self.strip.trim_end_matches('/');
        let add = self.add.trim_end_matches('/');
        let rest = path_and_query.strip_prefix(strip).filter(|rest| rest.is_empty() || rest.starts_with(['/', '?']));
        let Some(rest) = rest.filter(|_| path_and_query.starts_with('/')) else {
            return path_and_query.to_owned();
        };
        let mut target = String::with_capacity(add.len() + rest.len() + 1);
        if !add.is_empty() && !add.starts_with('/') {
            target.push('/');
        }
        target.push_str(add);
        // `/old` alone becomes `/new`, but never an empty path (RFC 9112 section 3.2.1).
        if target.is_empty() && !rest.starts_with('/') {
            target.push('/');
        }
        target.push_str(rest);
        target
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn apply(strip: &str, add: &str, target: &str) -> String {
        Rewrite { strip: strip.to_owned(), add: add.to_owned() }.apply(target)
    }

    #[test]
    fn the_prefix_is_replaced_at_a_segments_edge() {
        let check = |strip: &str, add: &str, target: &str, expected: &str| {
            assert_eq!(apply(strip, add, target), expected, "{strip} -> {add}: {target}");
        };
        check("/old", "/new", "/old/x?q=/old", "/new/x?q=/old");
        check("/old/", "/new/", "/old/x", "/new/x");
        check("/old", "/new", "/old", "/new");
        check("/old", "/new", "/old?q", "/new?q");
        check("/old", "/new", "/old/", "/new/");
        check("/old", "/new", "/older", "/older");
        check("/old", "", "/old", "/");
        check("/old", "/", "/old/x", "/x");
        check("/old", "", "/old?q", "/?q");
        check("", "/new", "/x", "/new/x");
        check("/", "/new", "/", "/new/");
        check("/", "new", "/x", "/new/x");
        check("", "", "/x?y", "/x?y");
        check("", "/new", "*", "*");
        check("/old", "/new", "/x/old", "/x/old");
    }

    proptest! {
        #[test]
        fn a_path_stays_a_path_and_the_query_stays(
            strip in "(/[a-b]{0,2}){0,2}", add in "(/[a-b]{0,2}){0,2}", path in "(/[a-b]{0,2}){1,4}", query in "(\\?[a-b/]{0,4})?",
        ) {
            let target = apply(&strip, &add, &format!("{path}{query}"));
            prop_assert!(target.starts_with('/'));
            prop_assert_eq!(target.find('?').map_or("", |at| &target[at..]), query);
        }
    }
}
