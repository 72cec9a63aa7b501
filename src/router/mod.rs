//! From a request to its route.
//!
//! ```text
//! host    exact name  >  longest *.suffix  >  any host
//!  path     literal  >  pre{x}post  >  {x}  >  {*rest}        segment by segment, from the left
//!   route     names methods  >  does not;  more header predicates first;  then the order in the file
//! ```
//! When no route of the best path fits the method and the headers, the next less specific path is tried, then the next
//! less specific host. A route that no request could reach is an error when the router is built.

use std::cmp::Reverse;
use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue, Method};

pub mod pattern;
mod rewrite;
mod tree;

use self::pattern::{HostPattern, parse_path};
use self::tree::Tree;

pub use self::pattern::PatternError;
pub use self::rewrite::Rewrite;

/// Finds the route of a request; immutable, shared by all workers.
pub struct Router<T> {
    /// By host, lower case, sorted.
    exact: Vec<(Box<str>, Tree<Leaf>)>,
    /// By suffix, lower case, sorted.
    below: Vec<(Box<str>, Tree<Leaf>)>,
    any: Tree<Leaf>,
    routes: Vec<T>,
}

/// What a route asks of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteMatch {
    /// `erp.example` or `*.example` (one or more labels before the suffix); any host without it.
    pub host: Option<String>,
    /// `/a/{id}`, `/a/pre{id}.post`, `/a/{*rest}`; the rest may be empty, so the last also takes `/a` and `/a/`.
    /// Compared with the normalised path; case-sensitive.
    pub path: String,
    /// The methods it takes; every one if empty. `GET` includes `HEAD` (RFC 9110 section 9.3.2).
    pub methods: Vec<Method>,
    /// All of them must hold.
    pub headers: Vec<HeaderPredicate>,
}

/// A condition on a request's header fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeaderPredicate {
    /// The field is there, with whatever value.
    Present(HeaderName),
    /// The field is not there.
    Absent(HeaderName),
    /// One of the field's lines has exactly this value.
    Equals(HeaderName, HeaderValue),
}

/// Host and path: `erp.example/a/{id}`.
impl fmt::Display for RouteMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.host.as_deref().unwrap_or_default(), self.path)
    }
}

/// What a route asks for in vain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Miss<'a> {
    /// One of these methods.
    Method(&'a [Method]),
    /// This condition on the header fields.
    Header(&'a HeaderPredicate),
}

/// One route at the end of its path pattern.
#[derive(Debug)]
struct Leaf {
    /// Index into `routes`, and the order in the file.
    route: usize,
    methods: Vec<Method>,
    headers: Vec<HeaderPredicate>,
}

impl<T> Router<T> {
    /// Builds the router; the order of `routes` is the order in the file.
    ///
    /// # Errors
    /// Every route that cannot be used, with its index.
    pub fn build(routes: Vec<(RouteMatch, T)>) -> Result<Self, Vec<(usize, PatternError)>> {
        let mut router = Self { exact: Vec::new(), below: Vec::new(), any: Tree::default(), routes: Vec::new() };
        let mut problems = Vec::new();
        for (route, (wanted, value)) in routes.into_iter().enumerate() {
            router.routes.push(value);
            let host = wanted.host.as_deref().map(HostPattern::parse).transpose();
            match (host, parse_path(&wanted.path)) {
                (Ok(host), Ok(path)) => {
                    let leaf = Leaf { route, methods: wanted.methods, headers: wanted.headers };
                    router.tree(host.as_ref()).at(&path).push(leaf);
                }
                (host, path) => {
                    problems.extend(host.err().into_iter().chain(path.err()).map(|problem| (route, problem)))
                }
            }
        }
        router.for_each_leaves(&mut |leaves| {
            leaves.sort_by_key(|leaf| (leaf.methods.is_empty(), Reverse(leaf.headers.len()), leaf.route));
            problems.extend(unreachable(leaves));
        });
        problems.sort_by_key(|(route, _)| *route);
        if problems.is_empty() { Ok(router) } else { Err(problems) }
    }

    /// The route of a request; `host` may carry a port and upper-case letters, `path` is the normalised path without
    /// the query.
    pub fn find(&self, host: &str, path: &str, method: &Method, headers: &HeaderMap) -> Option<&T> {
        let fits = |leaves: &[Leaf]| leaves.iter().find(|leaf| leaf.fits(method, headers)).map(|leaf| leaf.route);
        self.routes.get(self.search(host, path, fits)?)
    }

    /// Every route that a request with this host, path and method may find, depending on its header fields; in the
    /// order of precedence, up to the first one that asks for none.
    pub fn candidates(&self, host: &str, path: &str, method: &Method) -> Vec<&T> {
        let mut found = Vec::new();
        self.search(host, path, |leaves| {
            leaves.iter().filter(|leaf| leaf.takes(method)).find_map(|leaf| {
                found.push(leaf.route);
                leaf.headers.is_empty().then_some(leaf.route)
            })
        });
        found.into_iter().filter_map(|route| self.routes.get(route)).collect()
    }

    /// Every route whose host and path fit a request, in the order of precedence, with what else it asks for in vain:
    /// the first one without that is the one that is found.
    pub fn near(&self, host: &str, path: &str, method: &Method, headers: &HeaderMap) -> Vec<(&T, Option<Miss<'_>>)> {
        let mut found = Vec::new();
        self.search(host, path, |leaves| {
            found.extend(leaves.iter().map(|leaf| (leaf.route, leaf.miss(method, headers))));
            None
        });
        found.into_iter().filter_map(|(route, miss)| Some((self.routes.get(route)?, miss))).collect()
    }

    /// Shows `fits` the leaves of every pattern that fits, in the order of precedence, until it takes one.
    fn search<'s>(
        &'s self,
        host: &str,
        path: &str,
        mut fits: impl FnMut(&'s [Leaf]) -> Option<usize>,
    ) -> Option<usize> {
        let named = if self.exact.is_empty() && self.below.is_empty() { None } else { Some(bare(host)) };
        named
            .and_then(|host| lookup(&self.exact, host)?.find(path, &mut fits))
            .or_else(|| named.and_then(|host| self.find_below(host, path, &mut fits)))
            .or_else(|| self.any.find(path, &mut fits))
    }

    /// Every route's value, in the order in the file.
    pub fn routes(&self) -> &[T] {
        &self.routes
    }

    /// The longest suffix first: at each dot from the left.
    fn find_below<'s>(
        &'s self,
        host: &str,
        path: &str,
        fits: &mut impl FnMut(&'s [Leaf]) -> Option<usize>,
    ) -> Option<usize> {
        if self.below.is_empty() {
            return None;
        }
        let suffixes =
            memchr::memchr_iter(b'.', host.as_bytes()).filter(|&dot| dot > 0).filter_map(|dot| host.get(dot + 1..));
        suffixes.filter_map(|suffix| lookup(&self.below, suffix)).find_map(|tree| tree.find(path, &mut *fits))
    }

    fn tree(&mut self, host: Option<&HostPattern>) -> &mut Tree<Leaf> {
        let (trees, host) = match host {
            None => return &mut self.any,
            Some(HostPattern::Exact(host)) => (&mut self.exact, host),
            Some(HostPattern::Below(suffix)) => (&mut self.below, suffix),
        };
        let at = match trees.binary_search_by(|(known, _)| (**known).cmp(host.as_str())) {
            Ok(at) => at,
            Err(at) => {
                trees.insert(at, (host.as_str().into(), Tree::default()));
                at
            }
        };
        let (_, tree) = trees.get_mut(at).expect("found or just inserted there");
        tree
    }

    fn for_each_leaves(&mut self, visit: &mut impl FnMut(&mut Vec<Leaf>)) {
        let named = self.exact.iter_mut().chain(&mut self.below).map(|(_, tree)| tree);
        for tree in named.chain([&mut self.any]) {
            tree.for_each(visit);
        }
    }
}

impl<T> fmt::Debug for Router<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Router").field("routes", &self.routes.len()).finish_non_exhaustive()
    }
}

impl Leaf {
    fn fits(&self, method: &Method, headers: &HeaderMap) -> bool {
        self.takes(method) && self.headers.iter().all(|predicate| predicate.holds(headers))
    }

    /// What it asks for in vain.
    fn miss(&self, method: &Method, headers: &HeaderMap) -> Option<Miss<'_>> {
        if !self.takes(method) {
            return Some(Miss::Method(&self.methods));
        }
        self.headers.iter().find(|predicate| !predicate.holds(headers)).map(Miss::Header)
    }

    fn takes(&self, method: &Method) -> bool {
        self.methods.is_empty() || self.methods.iter().any(|taken| takes(taken, method))
    }

    /// Whether every request that fits `other` fits this one too.
    fn covers(&self, other: &Self) -> bool {
        // Whoever takes GET takes HEAD, so going through the methods `other` names is enough.
        let methods = self.methods.is_empty()
            || (!other.methods.is_empty()
                && other.methods.iter().all(|method| self.methods.iter().any(|taken| takes(taken, method))));
        methods && self.headers.iter().all(|predicate| other.headers.contains(predicate))
    }
}

impl HeaderPredicate {
    fn holds(&self, headers: &HeaderMap) -> bool {
        match self {
            Self::Present(name) => headers.contains_key(name),
            Self::Absent(name) => !headers.contains_key(name),
            Self::Equals(name, value) => headers.get_all(name).iter().any(|line| line == value),
        }
    }
}

fn takes(taken: &Method, method: &Method) -> bool {
    taken == method || (taken == Method::GET && method == Method::HEAD)
}

/// Leaves (in order of precedence) that an earlier one takes everything from.
fn unreachable(leaves: &[Leaf]) -> Vec<(usize, PatternError)> {
    let covered = |(at, leaf): (usize, &Leaf)| {
        let by = leaves.iter().take(at).find(|earlier| earlier.covers(leaf))?;
        Some((leaf.route, PatternError::Unreachable { by: by.route }))
    };
    leaves.iter().enumerate().filter_map(covered).collect()
}

/// The host without its port and the final dot of a full name.
fn bare(host: &str) -> &str {
    let host = match host.rsplit_once(':') {
        // The colons of an IPv6 literal stand inside its brackets (RFC 3986 section 3.2.2).
        Some((name, port)) if !port.ends_with(']') => name,
        _ => host,
    };
    host.strip_suffix('.').unwrap_or(host)
}

fn lookup<'t>(trees: &'t [(Box<str>, Tree<Leaf>)], host: &str) -> Option<&'t Tree<Leaf>> {
    let at =
        trees.binary_search_by(|(known, _)| known.bytes().cmp(host.bytes().map(|b| b.to_ascii_lowercase()))).ok()?;
    trees.get(at).map(|(_, tree)| tree)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn wanted(host: &str, path: &str, methods: &[Method], headers: &[HeaderPredicate]) -> RouteMatch {
        let host = (!host.is_empty()).then(|| host.to_owned());
        RouteMatch { host, path: path.to_owned(), methods: methods.to_vec(), headers: headers.to_vec() }
    }

    fn router(routes: &[(&'static str, RouteMatch)]) -> Router<&'static str> {
        Router::build(routes.iter().map(|(name, wanted)| (wanted.clone(), *name)).collect()).unwrap()
    }

    fn on(name: &'static str) -> HeaderName {
        HeaderName::from_static(name)
    }

    #[test]
    fn the_candidates_are_those_that_fields_may_choose_among() {
        let json = HeaderPredicate::Equals(on("accept"), HeaderValue::from_static("application/json"));
        let router = router(&[
            ("any", wanted("", "/{*rest}", &[], &[])),
            ("orders", wanted("", "/orders/{id}", &[], &[])),
            ("json orders", wanted("", "/orders/{id}", &[Method::GET], &[json])),
            ("new orders", wanted("", "/orders/{id}", &[Method::POST], &[])),
            ("keyed", wanted("erp.example", "/{*rest}", &[], &[HeaderPredicate::Present(on("x-key"))])),
        ]);
        let check = |host: &str, path: &str, expected: &[&str]| {
            let found: Vec<_> = router.candidates(host, path, &Method::GET).into_iter().copied().collect();
            assert_eq!(found, expected, "{host} {path}");
        };
        check("other", "/x", &["any"]);
        check("other", "/orders/1", &["json orders", "orders"]);
        check("erp.example", "/orders/1", &["keyed", "json orders", "orders"]);
        check("erp.example", "/x", &["keyed", "any"]);
    }

    #[test]
    fn the_most_specific_host_and_path_win_and_fall_through() {
        let router = router(&[
            ("any", wanted("", "/{*rest}", &[], &[])),
            ("any orders", wanted("", "/orders/{id}", &[], &[])),
            ("exact", wanted("erp.example", "/orders/{*rest}", &[], &[])),
            ("wild", wanted("*.example", "/{*rest}", &[Method::GET], &[])),
            ("deep wild", wanted("*.corp.example", "/invoices", &[], &[])),
            ("v6", wanted("[::1]", "/only", &[], &[])),
        ]);
        let check = |host: &str, path: &str, method: Method, expected: &str| {
            let found = router.find(host, path, &method, &HeaderMap::new()).copied();
            assert_eq!(found, Some(expected), "{method} {host} {path}");
        };
        check("erp.example", "/orders/1", Method::GET, "exact");
        check("ERP.Example:8443", "/orders/1", Method::GET, "exact");
        check("erp.example.", "/orders", Method::GET, "exact");
        check("erp.example", "/other", Method::GET, "wild");
        check("erp.example", "/other", Method::POST, "any");
        check("a.b.example", "/x", Method::GET, "wild");
        check("a.b.example", "/x", Method::HEAD, "wild");
        check("a.b.example", "/orders/1", Method::POST, "any orders");
        check("example", "/x", Method::GET, "any");
        check(".example", "/x", Method::GET, "any");
        check("a.corp.example", "/invoices", Method::GET, "deep wild");
        check("a.corp.example", "/x", Method::GET, "wild");
        check("[::1]:80", "/only", Method::GET, "v6");
        check("[::1]", "/only", Method::GET, "v6");
        check("[::1]", "/x", Method::GET, "any");
        check("", "/x", Method::GET, "any");
        check("erp.example", "*", Method::OPTIONS, "any");
    }

    #[test]
    fn within_one_path_methods_then_headers_then_the_file_decide() {
        let canary = HeaderPredicate::Equals(on("x-canary"), HeaderValue::from_static("yes"));
        let router = router(&[
            ("plain", wanted("", "/a", &[], &[])),
            ("absent", wanted("", "/a", &[], &[HeaderPredicate::Absent(on("x-plain"))])),
            ("canary", wanted("", "/a", &[], std::slice::from_ref(&canary))),
            ("post", wanted("", "/a", &[Method::POST], &[])),
            (
                "post canary",
                wanted("", "/a", &[Method::POST, Method::PUT], &[canary, HeaderPredicate::Present(on("x-user"))]),
            ),
        ]);
        let check = |method: Method, lines: &[(&'static str, &'static str)], expected: &str| {
            let mut headers = HeaderMap::new();
            for (name, value) in lines {
                headers.append(on(name), HeaderValue::from_static(value));
            }
            assert_eq!(router.find("h", "/a", &method, &headers).copied(), Some(expected), "{method} {lines:?}");
        };
        check(Method::GET, &[], "absent");
        check(Method::GET, &[("x-plain", "")], "plain");
        check(Method::GET, &[("x-plain", ""), ("x-canary", "no")], "plain");
        check(Method::GET, &[("x-plain", ""), ("x-canary", "no"), ("x-canary", "yes")], "canary");
        check(Method::GET, &[("x-canary", "yes")], "absent");
        check(Method::POST, &[("x-canary", "yes")], "post");
        check(Method::POST, &[("x-canary", "yes"), ("x-user", "7")], "post canary");
        check(Method::PUT, &[("x-canary", "yes"), ("x-user", "7")], "post canary");
        assert_eq!(router.find("h", "/b", &Method::GET, &HeaderMap::new()), None);
    }

    #[test]
    fn every_unusable_route_is_reported() {
        let build =
            |routes: &[RouteMatch]| Router::build(routes.iter().map(|wanted| (wanted.clone(), ())).collect()).err();
        let problems = build(&[
            wanted("", "/a/{id}", &[], &[]),
            wanted("a:80", "b", &[], &[]),
            wanted("", "/a/{key}", &[], &[]),
            wanted("", "/a/{id}", &[Method::GET], &[]),
            wanted("", "/a/{id}", &[Method::HEAD], &[]),
        ]);
        let expected = vec![
            (1, PatternError::Host),
            (1, PatternError::Relative),
            (2, PatternError::Unreachable { by: 0 }),
            (4, PatternError::Unreachable { by: 3 }),
        ];
        assert_eq!(problems, Some(expected));
        let distinct = [
            wanted("", "/a", &[Method::GET, Method::HEAD], &[]),
            wanted("", "/a", &[Method::POST], &[]),
            wanted("", "/a", &[], &[HeaderPredicate::Present(on("x"))]),
            wanted("", "/a", &[], &[]),
            wanted("x.example", "/a", &[], &[]),
            wanted("*.example", "/a", &[], &[]),
        ];
        assert_eq!(build(&distinct), None);
        assert!(build(&[wanted("", "/a", &[Method::HEAD], &[]), wanted("", "/a", &[Method::GET], &[])]).is_none());
    }

    proptest! {
        #[test]
        fn whatever_is_asked_the_answer_is_a_route_that_fits(
            host in "([A-Za-z.:\\[\\]0-9]|\\PC){0,12}",
            path in "(/|\\PC){0,12}",
        ) {
            let router = router(&[
                ("e", wanted("a.b", "/{*r}", &[], &[])),
                ("w", wanted("*.b", "/{x}", &[], &[])),
                ("any", wanted("", "/{*r}", &[Method::GET], &[])),
            ]);
            prop_assert!(router.find(&host, &path, &Method::GET, &HeaderMap::new()).is_some());
            let found = router.find(&host, &path, &Method::PUT, &HeaderMap::new()).copied();
            prop_assert!(found != Some("any"));
        }
    }
}
