//! A HEAD that the stored answer cannot serve, where there is nothing to validate it by: it goes on as a HEAD, and what
//! comes updates the stored answer to GET, or shows that it has changed (RFC 9111 section 4.3.5). With a validator, a
//! conditional GET does the same and renews the body as well.

use std::sync::Arc;

use http::response::Parts;
use http::{HeaderMap, Method, Response, StatusCode};

use super::attempt::{self, Ask, Outgoing};
use super::body::ResponseBody;
use super::exchange::Exchange;
use super::fill::{self, Read};
use super::lookup::Wanted;
use super::respond::{self, Forward};
use super::snapshot::Route;
use super::standing;
use super::trip;
use crate::cache::entry::Entry;
use crate::cache::freshness;
use crate::cache::storing::{self, Asked, Unstorable};
use crate::metrics::CacheResult;
use crate::outcome::classes::Verdict;
use crate::refusal::Reason;

/// Whether a request wants this.
pub(super) fn is_for(exchange: &Exchange, wanted: &Wanted) -> bool {
    let bare = wanted.stale.as_ref().is_some_and(|stale| !stale.head.has_validator());
    exchange.method == Method::HEAD && bare && !wanted.is_outdated
}

/// Asks for the head and judges what is stored by it.
pub(super) async fn head(
    mut exchange: Box<Exchange>,
    mut outgoing: Outgoing,
    asked: HeaderMap,
    wanted: &Wanted,
    forward: Forward,
) -> Response<ResponseBody> {
    let snapshot = Arc::clone(&exchange.snapshot);
    let route = exchange.route.and_then(|index| snapshot.routes.get(index));
    let (Some(route), Some(stale)) = (route, &wanted.stale) else {
        return respond::refuse(exchange, Reason::Internal.into());
    };
    let worker = Arc::clone(&exchange.worker);
    let ask = Ask { worker: &worker, route, upstream: &route.upstream, ticket: exchange.ticket(route) };
    let now = worker.core.clock.now();
    let Some(read) = Read::at(&worker, route, &wanted.address, now) else {
        return respond::refuse(exchange, Reason::Internal.into());
    };
    let (parts, body, held) = match attempt::attempts(ask, &mut outgoing, &mut exchange.tally, now, || None).await {
        Ok(reply) => reply,
        Err(refusal) => {
            return Box::pin(trip::stand_in(exchange, Some(outgoing), &asked, wanted, forward, refusal)).await;
        }
    };
    let verdict = held.as_ref().map_or_else(|| Verdict::by_status(parts.status), |held| held.verdict());
    standing::witness(&worker, route, exchange.identity, parts.status);
    if verdict.is_an_answer() {
        standing::prove(&worker, route, exchange.identity, &Method::HEAD, parts.status);
    }
    let forward = forward.answered(parts.status);
    let failed = !verdict.outcome.is_success();
    let entry = if failed && trip::stands_in(&exchange, wanted) {
        exchange.cache = CacheResult::StaleError;
        Some((Arc::clone(stale), Forward { detail: Some("stale_if_error"), ..forward }))
    } else {
        exchange.cache = CacheResult::Pass;
        let answer = verdict.is_an_answer().then_some(&parts);
        let entry = answer.and_then(|parts| freshened(&exchange, route, wanted, stale, &asked, parts, read));
        entry.map(|entry| {
            exchange.cache = CacheResult::Revalidated;
            (entry, Forward { stored: true, ..forward })
        })
    };
    let Some((entry, forward)) = entry else { return respond::reply(exchange, parts, body, held, Some(forward)) };
    if let Some(held) = held {
        held.leave(body, true);
    }
    let now = worker.core.clock.now();
    respond::stored(exchange, &entry, &asked, now, Some(forward))
}

/// The stored answer with the fields of the HEAD's, if they are of the same representation. If they are not, what is
/// stored is stale from now on. An answer that may not be for everybody says nothing of what is.
fn freshened(
    exchange: &Exchange,
    route: &Route,
    wanted: &Wanted,
    stale: &Arc<Entry>,
    asked: &HeaderMap,
    parts: &Parts,
    read: Read,
) -> Option<Arc<Entry>> {
    let params = route.cache.as_ref().filter(|_| parts.status == StatusCode::OK)?;
    let moment = exchange.worker.core.clock.moment();
    let as_get = Asked { method: &Method::GET, headers: asked, parts: wanted.address.parts() };
    let judged = storing::decide(&as_get, parts.status, &parts.headers, params, &|| moment, read.sent);
    if judged.is_err_and(|why| why != Unstorable::Useless) {
        return None;
    }
    let length = stale.body.len() as u64;
    let Some(head) = freshness::freshened(&stale.head, length, &parts.headers, params, moment, read.sent) else {
        stale.soft_purge();
        return None;
    };
    let entry = Entry::new(Arc::new(head), stale.body.clone());
    Some(fill::keep(exchange, wanted, asked, entry, read))
}
