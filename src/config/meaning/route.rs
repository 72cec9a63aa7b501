//! `[[route]]`.

use std::collections::HashSet;
use std::ops::Range;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method};
use toml::Spanned;
use toml::de::DeValue;

use super::super::context::is_sensitive;
use super::super::diagnostics::Mistake;
use super::super::reader::Reader;
use super::super::settings::{RouteSettings, UpstreamSettings};
use super::super::units::{duration, positive_duration, positive_size, size};
use super::super::values::{
    expected, file, flag, header_name, header_name_of, header_value, method, status, text, whole, word,
};
use super::consumer::rate_params;
use super::{absolute_path, classify, no_twice, unspan};
use crate::cache::canonical::{Canonical, PostRule};
use crate::cache::identity::{CookiePattern, IdentityRule};
use crate::cache::media::{Expectation, Media, Otherwise};
use crate::cache::{CacheParams, QueryRule};
use crate::message::edits::{HeaderEdits, StaticAnswer};
use crate::message::hop;
use crate::router::{HeaderPredicate, PatternError, Rewrite, RouteMatch, Router};
use crate::throttle::{Class, RateParams};

/// A route as far as it could be read, with places for what is checked between routes.
pub(super) struct Route {
    pub(super) settings: Option<RouteSettings>,
    /// The name of its upstream.
    pub(super) upstream: Option<Spanned<String>>,
    /// The name of the one that stands in for it.
    pub(super) spare: Option<Spanned<String>>,
    name: Option<Spanned<String>>,
    matching: Option<RouteMatch>,
    /// Where the table `match`, its path and its host stand.
    places: [Range<usize>; 3],
}

/// One route. `upstreams` are all that were named, those with mistakes without their settings.
pub(super) fn read(
    route: &mut Reader<'_>,
    upstreams: &[(String, Option<&UpstreamSettings>)],
    store: u64,
    has_consumers: bool,
) -> Route {
    let name_place = route.span("name");
    let name = route.optional("name", word).map(|name| Spanned::new(name_place, name));
    let places = route.required_table("match", |table| (matching(table), table.span("path"), table.span("host")));
    let all = route.span("match");
    let (matching, path, host) = places.unwrap_or((None, all.clone(), all.clone()));
    let upstream = route.required("upstream", text).map(|name| Spanned::new(route.span("upstream"), name));
    let index = upstream.as_ref().and_then(|name| upstream_index(route, name, upstreams));
    let class = route.choice("class", &ROUTE_CLASSES);
    let slots = index.and_then(|index| Some(upstreams.get(index)?.1?.slots.most_of(class)));
    let (cost, rate) = expense(route, slots);
    let require_consumer = route.value("require_consumer", flag);
    if require_consumer && !has_consumers {
        let mistake = Mistake::new("nobody can pass: there is no [consumer.NAME]");
        route.error(route.span("require_consumer"), mistake);
    }
    let group = route.optional("group", word);
    let cache = route.switch("cache", |cache| self::cache(cache, store));
    let rewrite = route.optional_table("rewrite", rewrite).flatten();
    let request_headers = route.table("request_headers", edits);
    let response_headers = route.table("response_headers", edits);
    let max_body = route.optional("max_body", size);
    let body_timeout = route.value("body_timeout", positive_duration);
    let deadline = route.optional("deadline", |value| editable(header_name(value)?));
    let (fallback, spare) = route.optional_table("fallback", fallback).unwrap_or_default();
    let elsewhere = spare.as_ref().and_then(|name| upstream_index(route, name, upstreams));
    if let Some(name) = spare.as_ref().filter(|_| elsewhere.is_some() && elsewhere == index) {
        route.error(name.span(), Mistake::new("this is the upstream that it would stand in for"));
    }
    let classes = classify::classes(route);
    let settings = matching.clone().zip(index).map(|(matching, upstream)| RouteSettings {
        name: name.as_ref().map_or_else(|| matching.path.clone(), |name| name.get_ref().clone()),
        matching,
        upstream,
        rewrite,
        request_headers,
        response_headers,
        group,
        cache,
        rate,
        class,
        cost,
        max_body,
        body_timeout,
        require_consumer,
        deadline,
        fallback,
        spare: elsewhere,
        classes,
    });
    Route { settings, upstream, spare, name, matching, places: [all, path, host] }
}

/// What a request costs, and how much each caller may spend.
fn expense(route: &mut Reader<'_>, slots: Option<usize>) -> (u32, Option<RateParams>) {
    let cost = route.value("cost", whole::<u32>(1));
    if let Some(slots) = slots
        && usize::try_from(cost).is_ok_and(|cost| cost > slots)
    {
        let mistake = Mistake::new(format!("a request would take {cost} slots, the upstream has {slots} for it"));
        route.error(route.span("cost"), mistake);
    }
    let rate = rate_params(route);
    if rate.is_some_and(|rate| rate.burst.get() < cost) {
        let mistake = Mistake::new("no request ever passes: its `cost` is higher than the `burst` of the rate");
        route.error(route.span("rate"), mistake);
    }
    (cost, rate)
}

/// What must hold between routes; also gives those without a name one that is unique.
pub(super) fn check(file: &mut Reader<'_>, routes: &mut [Route]) {
    let names =
        routes.iter().filter_map(|route| Some((route.name.as_ref()?.get_ref().clone(), route.name.as_ref()?.span())));
    no_twice(file, names, |name| {
        Mistake::new(format!("two routes are called `{name}`")).hint("metrics and logs could not tell them apart")
    });
    let mut taken: HashSet<String> =
        routes.iter().filter_map(|route| Some(route.name.as_ref()?.get_ref().clone())).collect();
    for route in routes.iter_mut().filter(|route| route.name.is_none()) {
        let Some(settings) = &mut route.settings else { continue };
        let path = settings.name.clone();
        let names = std::iter::once(path.clone()).chain((2..).map(|number| format!("{path}#{number}")));
        settings.name = names.into_iter().find(|name| !taken.contains(name)).unwrap_or(path);
        taken.insert(settings.name.clone());
    }
    let table: Vec<_> = routes.iter().filter_map(|route| Some((route, route.matching.as_ref()?))).collect();
    let patterns = table.iter().map(|(_, matching)| ((*matching).clone(), ())).collect();
    for (index, error) in Router::build(patterns).err().unwrap_or_default() {
        let Some((Route { places: [matching, path, host], .. }, _)) = table.get(index) else { continue };
        match &error {
            PatternError::Unreachable { by } => {
                let by = table.get(*by).and_then(|(route, _)| route.settings.as_ref());
                let by = by.map_or("another route", |settings| settings.name.as_str());
                let mistake = Mistake::new(format!("no request can reach this route: `{by}` takes all of them first"));
                file.error(matching.clone(), mistake.hint("give it other methods, headers or another host"));
            }
            PatternError::Host => file.error(host.clone(), Mistake::new(error.to_string())),
            _ => file.error(path.clone(), Mistake::new(error.to_string())),
        }
    }
}

/// The optional key `class` of a consumer.
pub(super) fn class(consumer: &mut Reader<'_>) -> Option<Class> {
    consumer.optional_choice("class", &CLASSES)
}

fn upstream_index(
    route: &mut Reader<'_>,
    name: &Spanned<String>,
    upstreams: &[(String, Option<&UpstreamSettings>)],
) -> Option<usize> {
    let index = upstreams.iter().position(|(known, _)| known == name.get_ref());
    if index.is_none() {
        let mistake = Mistake::new(format!("there is no upstream `{}`", name.get_ref()));
        let known = upstreams.iter().map(|(known, _)| known.as_str());
        route.error(name.span(), mistake.did_you_mean(name.get_ref(), known));
    }
    index
}

fn matching(table: &mut Reader<'_>) -> Option<RouteMatch> {
    let path = table.required("path", word);
    let host = table.optional("host", word);
    let methods = unspan(table.some("methods", method).unwrap_or_default());
    let headers = table.map("headers", |name, value| {
        let name = header_name_of(name)?;
        Ok(match value {
            DeValue::Boolean(true) => HeaderPredicate::Present(name),
            DeValue::Boolean(false) => HeaderPredicate::Absent(name),
            DeValue::String(_) => HeaderPredicate::Equals(name, header_value(value)?),
            other => return Err(expected("a value, true (is there) or false (is not there)", other)),
        })
    });
    Some(RouteMatch { host, path: path?, methods, headers })
}

fn cache(table: &mut Reader<'_>, store: u64) -> CacheParams {
    let ttl = table.optional("ttl", duration);
    let override_origin = table.value("override", flag);
    if override_origin && !table.has("ttl") {
        table.error(table.span("override"), Mistake::new("`override` has no effect without `ttl`"));
    }
    let max_entry = table.value("max_entry", positive_size);
    if max_entry > store {
        let place = if table.has("max_entry") { table.span("max_entry") } else { table.place() };
        table.error(place, Mistake::new("`max_entry` is larger than the whole cache (`size` of [cache])"));
    }
    let per_consumer = table.value("per_consumer", flag);
    let identity = table.optional_table("identity", |identity| IdentityRule {
        cookies: unspan(identity.list("cookies", cookie).unwrap_or_default()),
        headers: unspan(identity.list("headers", header_name).unwrap_or_default()),
    });
    let shared_after_auth = table.optional("shared_after_auth", positive_duration);
    if per_consumer && shared_after_auth.is_some() {
        let mistake = Mistake::new("with `per_consumer` nothing is shared: keep one of the two");
        table.error(table.span("shared_after_auth"), mistake);
    }
    let methods = unspan(table.some("methods", cached_method).unwrap_or_default());
    let post = table.switch("post", |post| PostRule {
        max_body: usize::try_from(post.value("max_body", positive_size)).unwrap_or(usize::MAX),
        canonical: post.choice("canonical", &CANONICALS),
        headers: unspan(post.list("headers", header_name).unwrap_or_default()),
    });
    let media = table.some("expect", |value| {
        let written = text(value)?;
        let mistake = || Mistake::new(format!("`{written}` is no kind of answers"));
        Media::parse(&written).ok_or_else(|| mistake().hint("json, xml, html, text, or a media type"))
    });
    let otherwise = table.choice("on_unexpected", &ON_UNEXPECTED);
    if otherwise != Otherwise::Pass && media.is_none() {
        table.error(table.span("on_unexpected"), Mistake::new("`on_unexpected` has no effect without `expect`"));
    }
    let expect = media.map(|media| Expectation { media: unspan(media), otherwise });
    CacheParams {
        ttl,
        methods,
        override_origin,
        stale_while_revalidate: table.value("stale_while_revalidate", duration),
        stale_if_error: table.value("stale_if_error", duration),
        keep: table.value("keep", duration),
        negative: table.optional("negative", positive_duration),
        max_entry,
        per_consumer,
        identity,
        shared_after_auth,
        ignore_set_cookie: unspan(table.list("ignore_set_cookie", cookie).unwrap_or_default()),
        expect,
        post,
        strip: unspan(table.list("strip", header_name).unwrap_or_default()),
        targeted: unspan(table.list("targeted", header_name).unwrap_or_default()),
        query: table.table("query", |query| QueryRule {
            sort: query.value("sort", flag),
            drop: unspan(query.list("drop", word).unwrap_or_default()),
            keep: query.list("keep", word).map(unspan),
        }),
    }
}

fn cookie(value: &DeValue<'_>) -> Result<CookiePattern, Mistake> {
    let name = text(value)?;
    let mistake = || Mistake::new(format!("`{name}` is not the name of a cookie"));
    CookiePattern::new(&name).ok_or_else(|| mistake().hint("a name, or its beginning and a `*`"))
}

fn rewrite(table: &mut Reader<'_>) -> Option<Rewrite> {
    let prefix = |value: &DeValue<'_>| match value.as_str() {
        Some("") => Ok(String::new()),
        _ => absolute_path(value),
    };
    let (strip, add) = (table.value("strip", prefix), table.value("add", prefix));
    if strip == add && strip.is_empty() {
        let mistake = Mistake::new("`rewrite` changes nothing").hint("give it `strip`, `add`, or both");
        table.error(table.place(), mistake);
    }
    for (name, prefix) in [("strip", &strip), ("add", &add)] {
        if prefix.contains(['?', '{', '}']) {
            table.error(table.span(name), Mistake::new(format!("`{name}` is a plain prefix of a path, not a pattern")));
        }
    }
    Some(Rewrite { strip, add })
}

fn edits(table: &mut Reader<'_>) -> HeaderEdits {
    let remove = unspan(table.list("remove", |value| editable(header_name(value)?)).unwrap_or_default());
    let set = table.map("set", |name, value| {
        let name = editable(header_name_of(name)?)?;
        let mut value = header_value(value)?;
        value.set_sensitive(is_sensitive(name.as_str()));
        Ok((name, value))
    });
    HeaderEdits { set, remove }
}

/// Framing and connection are vaxel's own: an operator who touched them would break messages.
fn editable(name: HeaderName) -> Result<HeaderName, Mistake> {
    const FRAMING: [HeaderName; 8] = [
        http::header::CONNECTION,
        http::header::CONTENT_LENGTH,
        http::header::TRANSFER_ENCODING,
        http::header::TE,
        http::header::TRAILER,
        http::header::UPGRADE,
        hop::KEEP_ALIVE,
        hop::PROXY_CONNECTION,
    ];
    if FRAMING.contains(&name) {
        return Err(Mistake::new(format!("`{name}` belongs to the connection and is vaxel's own to set")));
    }
    if name == http::header::HOST {
        return Err(Mistake::new("Host cannot be edited").hint("see `host` of [upstream.NAME]"));
    }
    Ok(name)
}

/// A fixed answer, and the upstream that is asked before that; without a word of the answer, the upstream alone.
fn fallback(table: &mut Reader<'_>) -> (Option<StaticAnswer>, Option<Spanned<String>>) {
    let upstream = table.optional("upstream", text).map(|name| Spanned::new(table.span("upstream"), name));
    let is_fixed =
        upstream.is_none() || ["status", "content_type", "body", "body_file"].iter().any(|key| table.has(key));
    let status = table.value("status", status);
    let content_type: HeaderValue = table.value("content_type", header_value);
    let body = table.optional("body", text);
    let from_file = table.optional("body_file", |value| {
        let path = file(value)?;
        std::fs::read(&path).map_err(|error| Mistake::new(format!("{} cannot be read: {error}", path.display())))
    });
    if table.has("body") && table.has("body_file") {
        table.error(table.span("body_file"), Mistake::new("`body` is given already: keep one of the two"));
    }
    let body = from_file.map(Bytes::from).or_else(|| body.map(Bytes::from)).unwrap_or_default();
    if !body.is_empty() && matches!(status.as_u16(), 204 | 205 | 304) {
        table.error(table.span("status"), Mistake::new(format!("a {} has no body", status.as_u16())));
    }
    (is_fixed.then_some(StaticAnswer { status, content_type, body }), upstream)
}

const CLASSES: [(&str, Class); 3] =
    [("interactive", Class::Interactive), ("normal", Class::Normal), ("batch", Class::Batch)];
pub(super) const ROUTE_CLASSES: [(&str, Class); 4] =
    [("interactive", Class::Interactive), ("normal", Class::Normal), ("logon", Class::Logon), ("batch", Class::Batch)];
/// A method that may be answered from the store.
fn cached_method(value: &DeValue<'_>) -> Result<Method, Mistake> {
    match method(value)? {
        method if matches!(method, Method::GET | Method::HEAD) => Ok(method),
        Method::POST => {
            Err(Mistake::new("POST requests are no reads unless the route says so").hint("declare them with `post`"))
        }
        method => Err(Mistake::new(format!("{method} is never answered from the store"))),
    }
}

const ON_UNEXPECTED: [(&str, Otherwise); 3] =
    [("pass", Otherwise::Pass), ("stale", Otherwise::Stale), ("broken", Otherwise::Broken)];
const CANONICALS: [(&str, Canonical); 3] =
    [("none", Canonical::None), ("json", Canonical::Json), ("form", Canonical::Form)];
