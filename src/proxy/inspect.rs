//! What one request would get from the store now, and why: the operator's question. The answer comes from the very
//! steps a request takes, up to the point where it would wait or be answered. Nothing is sent, counted or changed; the
//! rates and the embedding program's hooks are left out.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use http::request::Parts;
use http::{HeaderMap, HeaderName, Version};
use serde::Serialize;

use super::admit;
use super::cache_status;
use super::exchange::Exchange;
use super::lookup::{self, Content, Looked};
use super::respond::Forward;
use super::snapshot::{Route, Worker};
use super::standing;
use crate::cache::CacheParams;
use crate::cache::control::RequestControl;
use crate::cache::entry::Entry;
use crate::cache::reuse;
use crate::cache::store::{FoundSlot, Lookup};
use crate::cache::{freshness, survey::VariantsOf};
use crate::listen::Peer;
use crate::message::target::Target;
use crate::metrics::CacheResult;
use crate::refusal::Reason;

/// What one request would get. Spans are whole seconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Inspection {
    /// Its method.
    pub method: String,
    /// The route it takes.
    pub route: String,
    /// The upstream that leads to.
    pub upstream: String,
    /// Who calls, as recognised by its fields and address.
    pub consumer: String,
    /// What its answer is stored under; nothing where the route does not cache.
    pub key: Option<KeyView>,
    /// The request fields that select among the stored answers (Vary).
    pub vary: Vec<String>,
    /// All stored answers to the same key, the first few of them.
    pub variants: Vec<EntryView>,
    /// The stored answer this request finds, fresh or not.
    pub entry: Option<EntryView>,
    /// What becomes of the request.
    pub verdict: Verdict,
}

/// What an answer is stored under.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KeyView {
    /// The hash, in hexadecimal. Another process makes another one.
    pub hash: String,
    /// `http` or `https`.
    pub scheme: String,
    /// The host, with a port if one was given.
    pub host: String,
    /// The path in normal form.
    pub path: String,
    /// The query as it was asked for.
    pub query: Option<String>,
    /// URL, partition and upstream as they count: query parameters sorted and dropped by the route's rule.
    pub address: String,
}

/// One stored answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EntryView {
    /// Its status.
    pub status: u16,
    /// Its age.
    pub age: u64,
    /// How old it may become and still be fresh.
    pub lifetime: u64,
    /// Where its lifetime comes from: override, origin, operator, heuristic, nothing; `before` if today's
    /// configuration would give it another one.
    pub lifetime_from: &'static str,
    /// How long it stays fresh; below zero: how long ago that ended.
    pub ttl: i64,
    /// How long after that it is served while it is refreshed.
    pub stale_while_revalidate: u64,
    /// How long after that it stands in for a failing origin.
    pub stale_if_error: u64,
    /// How long after that it is kept to be revalidated.
    pub keep: u64,
    /// Whether it is good for nothing any more, and only waits to be replaced or evicted.
    pub gone: bool,
    /// Never served without validation (`no-cache`).
    pub always_validate: bool,
    /// Never served stale at a client's wish (`must-revalidate`).
    pub must_revalidate: bool,
    /// Does not change while it is fresh (RFC 8246).
    pub immutable: bool,
    /// Whether an operator has made it stale.
    pub soft_purged: bool,
    /// Its entity tag.
    pub etag: Option<String>,
    /// Its Last-Modified.
    pub last_modified: Option<String>,
    /// What it can be purged by.
    pub groups: Vec<String>,
    /// The values of the fields that select it, in the order of `vary`.
    pub selecting: Vec<Option<String>>,
    /// Bytes of its body.
    pub body: u64,
    /// Bytes it counts against the store's capacity.
    pub weight: u32,
    /// Its stored header fields.
    pub headers: Vec<(String, String)>,
}

/// What becomes of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// The word of the metrics: hit, stale, miss, pass, bypass, off; or `refused`.
    pub result: &'static str,
    /// In a sentence.
    pub why: String,
    /// Whether the upstream is asked, be it in the background.
    pub asks_upstream: bool,
    /// What Cache-Status (RFC 9211) would say, as far as that does not depend on the upstream.
    pub cache_status: Option<String>,
}

/// Judges a request without sending it.
///
/// # Errors
/// Why it would be refused before the store is asked.
pub fn inspect(worker: &Arc<Worker>, parts: &Parts, peer: Peer) -> Result<Inspection, Reason> {
    let mut exchange = admit::open(worker, &worker.snapshot.load(), parts, peer);
    exchange.told = true;
    let snapshot = Arc::clone(&exchange.snapshot);
    let target = Target::of(&parts.uri, &parts.headers, parts.version < Version::HTTP_11)?;
    let route = admit::place(&mut exchange, &snapshot, parts, &target).map_err(|refusal| refusal.reason)?;
    let safe = admit::is_safe(&parts.method, exchange.present);
    let looked = lookup::look(&mut exchange, route, parts, &target, safe, Content::None);
    let now = exchange.started;
    let mut inspection = Inspection {
        method: parts.method.to_string(),
        route: route.name.to_string(),
        upstream: route.upstream.name.to_string(),
        consumer: exchange.caller().0.name.to_string(),
        key: None,
        vary: Vec::new(),
        variants: Vec::new(),
        entry: None,
        verdict: Verdict { result: "", why: String::new(), asks_upstream: true, cache_status: None },
    };
    let entry = route.cache.as_ref().and_then(|params| find(&mut inspection, &exchange, route, params, parts, &target));
    inspection.verdict = verdict(&mut exchange, route, looked, entry.as_deref(), &parts.headers, now);
    Ok(inspection)
}

/// Fills in what is stored; gives the answer found.
fn find(
    inspection: &mut Inspection,
    exchange: &Exchange,
    route: &Route,
    params: &CacheParams,
    parts: &Parts,
    target: &Target<'_>,
) -> Option<Arc<Entry>> {
    let store = &exchange.worker.core.store;
    let now = exchange.started;
    let partition = standing::partition(&exchange.worker, params, exchange.identity);
    let key_parts = lookup::key_parts(exchange, route, target, partition);
    let clear = key_parts.clear(&params.query);
    let primary = store.keyer().of(&clear);
    inspection.key = Some(KeyView {
        hash: format!("{:032x}", primary.0),
        scheme: key_parts.scheme.to_owned(),
        host: key_parts.host.to_owned(),
        path: key_parts.path.to_owned(),
        query: key_parts.query.map(str::to_owned),
        address: text(clear.address()),
    });
    if let Some(VariantsOf { vary, entries }) = store.variants_of(primary) {
        inspection.vary = vary.iter().map(ToString::to_string).collect();
        inspection.variants = entries.iter().take(VARIANTS_SHOWN).map(|entry| view(entry, params, now)).collect();
    }
    let asked = Lookup { primary, clear: &clear, headers: &parts.headers };
    let FoundSlot::Entry(entry) = store.find(&asked, now).slot else { return None };
    inspection.entry = Some(view(&entry, params, now));
    Some(entry)
}

fn verdict(
    exchange: &mut Exchange,
    route: &Route,
    looked: Looked,
    entry: Option<&Entry>,
    request: &HeaderMap,
    now: Instant,
) -> Verdict {
    match looked {
        Looked::Serve(entry, result, refresh) => {
            exchange.cache = result;
            let mut status = BytesMut::new();
            cache_status::hit(&mut status, &entry, entry.age(now).as_secs(), result);
            let why = served(&entry, result, refresh.is_some(), request, now);
            let cache_status = Some(text(&status));
            Verdict { result: result.code(), why, asks_upstream: refresh.is_some(), cache_status }
        }
        Looked::Fetch(_, forward) => Verdict {
            result: CacheResult::Miss.code(),
            why: fetched(&forward, entry, request, now),
            asks_upstream: true,
            cache_status: Some(match forward.detail {
                Some(detail) => format!("vaxel; fwd={}; detail={detail}", forward.why),
                None => format!("vaxel; fwd={}", forward.why),
            }),
        },
        Looked::Alone(result, None, _) => {
            let why = format!("the route {} does not cache", route.name);
            Verdict { result: result.code(), why, asks_upstream: true, cache_status: None }
        }
        Looked::Alone(result, Some(forward), _) => {
            let detail = forward.detail.unwrap_or_default();
            let cache_status = Some(format!("vaxel; fwd={}; detail={detail}", forward.why));
            Verdict { result: result.code(), why: passed(detail).to_owned(), asks_upstream: true, cache_status }
        }
        Looked::Read => Verdict {
            result: CacheResult::Pass.code(),
            why: "its body belongs to its key, and is not known here".to_owned(),
            asks_upstream: true,
            cache_status: None,
        },
        Looked::Refuse(reason) => {
            Verdict { result: "refused", why: reason.sentence().to_owned(), asks_upstream: false, cache_status: None }
        }
    }
}

fn served(entry: &Entry, result: CacheResult, refreshes: bool, request: &HeaderMap, now: Instant) -> String {
    let (age, life) = (entry.age(now), &entry.head.life);
    if result == CacheResult::Hit {
        return format!("fresh: its age of {} is below its lifetime of {}", span(age), span(life.fresh));
    }
    let stale = staleness(entry, now);
    let is_within = entry.head.staleness(now).unwrap_or_default() < life.swr;
    if !is_within && !refreshes && RequestControl::parse(request).max_stale.is_some() {
        return format!("{stale}: the request accepts that (max-stale)");
    }
    let window = if is_within {
        format!("within stale-while-revalidate of {}", span(life.swr))
    } else {
        format!("within stale-if-error of {}, in a low gear", span(life.sie))
    };
    let refresh = if refreshes { "and refreshed in the background" } else { "its refresh waits" };
    format!("{stale}, {window}: served, {refresh}")
}

fn fetched(forward: &Forward, entry: Option<&Entry>, request: &HeaderMap, now: Instant) -> String {
    let Some(entry) = entry else {
        return match forward.why {
            "vary-miss" => "there are answers for other values of the fields it varies by, none for these",
            _ => "nothing is stored for it",
        }
        .to_owned();
    };
    let head = &entry.head;
    let control = RequestControl::parse(request);
    let is_outdated = forward.detail == Some("outdated");
    let cause = if is_outdated {
        "outdated: something was written since to its URL or its group".to_owned()
    } else if forward.why == "request" && !head.life.always_validate {
        "the request wants to hear from the origin".to_owned()
    } else if head.life.always_validate {
        "the origin wants to be asked each time (no-cache)".to_owned()
    } else {
        staleness(entry, now)
    };
    let validates = !is_outdated && head.has_validator() && head.age(now) < head.life.end();
    let how = if validates { "it is validated" } else { "it is fetched anew" };
    let error = if reuse::on_error(head, &control, now) { "; if that fails, what is stored stands in" } else { "" };
    format!("{cause}: {how}{error}")
}

/// Why a request goes alone, by the word of Cache-Status.
fn passed(detail: &str) -> &'static str {
    match detail {
        "method" => "only answers to safe GET and HEAD requests are stored",
        "precondition" => "If-Match and If-Unmodified-Since are for the origin to judge",
        "token_fetch" => "it asks for a token of its own",
        "session" => "it belongs to a session of the backend",
        "unproven" => "answers are shared with those the upstream has let in of late, and this identity is not one",
        "upgrade" => "it asks for another protocol",
        "uncacheable" => "answers to it could not be shared a moment ago: it does not wait for others",
        "range" => "a part of what is not stored is asked for as it is",
        "unstored" => "its answer would not be stored: a mere head, or the request forbids it",
        "authorization" => "it carries credentials, and nothing shared is stored for it",
        _ => "it goes past the store",
    }
}

fn staleness(entry: &Entry, now: Instant) -> String {
    match entry.head.staleness(now) {
        Some(staleness) => format!("stale for {}", span(staleness)),
        None if entry.is_soft_purged() => "stale since it was purged".to_owned(),
        None => "not fresh enough for this request".to_owned(),
    }
}

fn view(entry: &Entry, params: &CacheParams, now: Instant) -> EntryView {
    let head = &entry.head;
    let (age, life) = (entry.age(now), &head.life);
    let whole = |span: Duration| i64::try_from(span.as_secs()).unwrap_or(i64::MAX);
    let field = |name: &HeaderName| head.headers.get(name).map(|value| text(value.as_bytes()));
    EntryView {
        status: head.status.as_u16(),
        age: age.as_secs(),
        lifetime: life.fresh.as_secs(),
        lifetime_from: freshness::source(head, params).map_or("before", freshness::Source::code),
        ttl: whole(life.fresh).saturating_sub(whole(age)),
        stale_while_revalidate: life.swr.as_secs(),
        stale_if_error: life.sie.as_secs(),
        keep: life.keep.as_secs(),
        gone: age >= life.end(),
        always_validate: life.always_validate,
        must_revalidate: life.must_revalidate,
        immutable: life.immutable,
        soft_purged: entry.is_soft_purged(),
        etag: head.etag.as_ref().map(|tag| text(tag.as_bytes())),
        last_modified: head.last_modified.and_then(|_| field(&http::header::LAST_MODIFIED)),
        groups: head.groups.iter().map(ToString::to_string).collect(),
        selecting: head.selecting.iter().map(|value| value.as_deref().map(text)).collect(),
        body: entry.body.len() as u64,
        weight: entry.weight(),
        headers: head.headers.iter().map(|(name, value)| (name.to_string(), text(value.as_bytes()))).collect(),
    }
}

/// Header fields may hold bytes that are no UTF-8.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn span(duration: Duration) -> String {
    format!("{} s", duration.as_secs())
}

/// More variants than an operator reads.
const VARIANTS_SHOWN: usize = 32;
