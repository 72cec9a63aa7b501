//! No-Vary-Search (draft-ietf-httpbis-no-vary-search): an answer says which query parameters it does not depend on, so
//! that it also answers URLs that differ in nothing else.

use http::{HeaderMap, HeaderName};
use sfv::{BareItem, Dictionary, InnerList, ListEntry, Parser};

use crate::cache::QueryRule;
use crate::cache::key::each_parameter;

/// Which query parameters count for an answer with these fields; `None`: all, as if the field were not there, which is
/// also what a field means that is broken or contradicts itself.
pub fn rule(headers: &HeaderMap) -> Option<QueryRule> {
    let mut lines = headers.get_all(&NO_VARY_SEARCH).iter();
    let mut said: Dictionary = Parser::new(lines.next()?.as_bytes()).parse().ok()?;
    for line in lines {
        said = Parser::new(line.as_bytes()).parse_dictionary_with_visitor(said).ok()?;
    }
    let sort = said.get("key-order").map_or(Some(false), claim)?;
    let except = said.get("except").map(names);
    let (drop, keep) = match said.get("params") {
        Some(ListEntry::InnerList(list)) if except.is_none() => (strings(list)?, None),
        Some(entry) if claim(entry)? => (Vec::new(), Some(except.unwrap_or_else(|| Some(Vec::new()))?)),
        _ if except.is_some() => return None, // an exception from nothing
        _ => (Vec::new(), None),
    };
    let rule = QueryRule { sort, drop, keep };
    (!rule.is_empty()).then_some(rule)
}

/// An address ([`KeyParts::address`](crate::cache::key::KeyParts::address)) without its query, and the query.
pub(crate) fn split(address: &str) -> (String, Option<&str>) {
    let (url, rest) = address.split_once(' ').unwrap_or((address, ""));
    let (path, query) = url.split_once('?').map_or((url, None), |(path, query)| (path, Some(query)));
    (format!("{path} {rest}"), query)
}

/// The parameters of a query that count by `rule`, as one text: the same for all queries that mean the same.
pub(crate) fn canonical(query: Option<&str>, rule: &QueryRule) -> String {
    let mut text = String::new();
    each_parameter(query, rule, &mut |parameter| {
        text.push('&');
        text.push_str(parameter);
        true
    });
    text
}

fn claim(entry: &ListEntry) -> Option<bool> {
    match entry {
        ListEntry::Item(item) => match item.bare_item {
            BareItem::Boolean(claim) => Some(claim),
            _ => None,
        },
        ListEntry::InnerList(_) => None,
    }
}

fn names(entry: &ListEntry) -> Option<Vec<String>> {
    match entry {
        ListEntry::InnerList(list) => strings(list),
        ListEntry::Item(_) => None,
    }
}

fn strings(list: &InnerList) -> Option<Vec<String>> {
    let items = list.items.iter().map(|item| match &item.bare_item {
        BareItem::String(name) => Some(name.as_str().to_owned()),
        _ => None,
    });
    items.collect()
}

/// The field's name.
pub(crate) const NO_VARY_SEARCH: HeaderName = HeaderName::from_static("no-vary-search");

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn read(lines: &[&str]) -> Option<QueryRule> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(NO_VARY_SEARCH, HeaderValue::try_from(*line).unwrap());
        }
        rule(&headers)
    }

    fn check(line: &str, sort: bool, drop: &[&str], keep: Option<&[&str]>) {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let expected = QueryRule { sort, drop: owned(drop), keep: keep.map(owned) };
        assert_eq!(read(&[line]), Some(expected), "{line}");
    }

    #[test]
    fn the_field_is_a_rule_for_the_query() {
        check("key-order", true, &[], None);
        check("params", false, &[], Some(&[]));
        check("params=(\"utm\" \"x\")", false, &["utm", "x"], None);
        check("params, except=(\"id\")", false, &[], Some(&["id"]));
        check("key-order, params=(\"x\");a=1, other=3", true, &["x"], None);
        check("params=?0, key-order", true, &[], None);
        assert_eq!(read(&["key-order", "params=(\"x\")"]), read(&["key-order, params=(\"x\")"]));
    }

    #[test]
    fn what_is_broken_means_nothing() {
        assert_eq!(read(&[]), None);
        for line in [
            "",
            "?",
            "key-order=?0",
            "key-order=1",
            "params=1",
            "params=\"x\"",
            "params=(x)",
            "params=(1)",
            "params=?0",
            "except=(\"x\")",
            "params=?0, except=(\"x\")",
            "params=(\"x\"), except=(\"y\")",
            "params, except=\"x\"",
            "params, except=(x)",
            "params=(\"x\"",
            "key-order, params=(x)",
        ] {
            assert_eq!(read(&[line]), None, "{line}");
        }
    }

    #[test]
    fn queries_that_mean_the_same_are_one_text() {
        let check = |line: &str, one: Option<&str>, other: Option<&str>, same: bool| {
            let rule = read(&[line]).unwrap();
            assert_eq!(canonical(one, &rule) == canonical(other, &rule), same, "{line}: {one:?} {other:?}");
        };
        check("key-order", Some("a=1&b=2"), Some("b=2&a=1"), true);
        check("key-order", Some("a=1&b=2"), Some("b=2&a=2"), false);
        check("params", Some("a=1"), None, true);
        check("params=(\"utm\")", Some("a=1&utm=2"), Some("utm=3&a=1"), true);
        check("params=(\"utm\")", Some("a=1&utm=2"), Some("a=2&utm=2"), false);
        check("params, except=(\"id\")", Some("id=1&x=1"), Some("y=2&id=1"), true);
        check("params, except=(\"id\")", Some("id=1&x=1"), Some("id=2&x=1"), false);
        assert_eq!(split("http://a/b?c=1 - erp"), ("http://a/b - erp".to_owned(), Some("c=1")));
        assert_eq!(split("http://a/b - erp"), ("http://a/b - erp".to_owned(), None));
    }
}
