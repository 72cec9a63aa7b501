//! Who asks, as the cache sees it, and what the upstream's answers say of him: they let him in, turn him away, or end
//! his session.

use http::{HeaderMap, Method, StatusCode};

use super::exchange::Exchange;
use super::snapshot::{Route, Worker};
use crate::cache::CacheParams;
use crate::consumer::Identity;
use crate::metrics::CacheEvent;

/// The number of the identity that asks; `None` where nothing tells users apart, or it does not matter who asks.
pub(super) fn identity(exchange: &Exchange, params: &CacheParams, headers: &HeaderMap) -> Option<u64> {
    if !params.knows_identities() {
        return None;
    }
    let keyer = exchange.worker.core.store.keyer();
    // By name: the place of a consumer in the file may change with a reload.
    let (caller, address) = exchange.caller();
    let known = matches!(exchange.consumer, Identity::Known(_)).then_some(caller.identity);
    match &params.identity {
        Some(rule) => rule.identity(keyer, known, headers),
        None => Some(keyer.partition(known.unwrap_or(address), headers)),
    }
}

/// The partition of the store in which an identity finds its answers.
pub(super) fn partition(worker: &Worker, params: &CacheParams, identity: Option<u64>) -> Option<u64> {
    identity.filter(|_| params.is_partitioned()).map(|identity| worker.core.identities.partition(identity))
}

/// Whether an identity may have what is shared on a route.
pub(super) fn is_let_in(exchange: &Exchange, route: &Route, params: &CacheParams, identity: Option<u64>) -> bool {
    let Some(window) = params.shared_after_auth else { return true };
    let now = exchange.now;
    exchange.worker.core.identities.is_proven(route.number, identity.unwrap_or(NOBODY), window, now)
}

/// The upstream has let an identity read: it has answered a request of that `method`, which changes nothing, with
/// `status`, and as its route expects.
///
/// A preflight (OPTIONS) is answered to everybody, and a write, a logon above all, by its own rules. Where a route says
/// what it expects, the status alone proves nothing, so neither does HEAD.
pub(super) fn prove(worker: &Worker, route: &Route, identity: Option<u64>, method: &Method, status: StatusCode) {
    let Some(params) = &route.cache else { return };
    let is_read = match *method {
        Method::GET | Method::POST => true,
        Method::HEAD => params.expect.is_none(),
        _ => false,
    };
    // A 304 as well: who may not read is not told that nothing has changed.
    if let (Some(window), true, 200..300 | 304) = (params.shared_after_auth, is_read, status.as_u16()) {
        let now = worker.core.clock.now();
        worker.core.identities.prove(route.number, identity.unwrap_or(NOBODY), window, now);
    }
}

/// The upstream has answered an identity with `status`, which may turn it away.
pub(super) fn witness(worker: &Worker, route: &Route, identity: Option<u64>, status: StatusCode) {
    let Some(params) = &route.cache else { return };
    let known = &worker.core.identities;
    if params.shared_after_auth.is_some() {
        let is_refused = matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
        if is_refused && known.withdraw(route.number, identity.unwrap_or(NOBODY)) {
            route.meter.event(worker.index, CacheEvent::Withdrawn);
        }
    } else if let (true, Some(identity), StatusCode::UNAUTHORIZED) = (params.is_partitioned(), identity, status) {
        known.forget(identity);
        route.meter.event(worker.index, CacheEvent::Forgotten);
    }
}

/// Stands for all who carry nothing that tells them apart.
const NOBODY: u64 = 0;
