//! Who asks, as the cache sees it, and what the upstream's answers say of him: they let him in, turn him away, or end
//! his session.

use http::{HeaderMap, StatusCode};

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
    let now = exchange.started;
    exchange.worker.core.identities.is_proven(route.number, identity.unwrap_or(NOBODY), window, now)
}

/// The upstream has answered an identity with `status`.
pub(super) fn witness(worker: &Worker, route: &Route, identity: Option<u64>, status: StatusCode) {
    let Some(params) = &route.cache else { return };
    let known = &worker.core.identities;
    if let Some(window) = params.shared_after_auth {
        let identity = identity.unwrap_or(NOBODY);
        match status.as_u16() {
            // A 304 as well: who may not read is not told that nothing has changed.
            200..300 | 304 => known.prove(route.number, identity, window, worker.core.clock.now()),
            401 | 403 if known.withdraw(route.number, identity) => {
                route.meter.event(worker.index, CacheEvent::Withdrawn);
            }
            _ => {}
        }
    } else if let (true, Some(identity), StatusCode::UNAUTHORIZED) = (params.is_partitioned(), identity, status) {
        known.forget(identity);
        route.meter.event(worker.index, CacheEvent::Forgotten);
    }
}

/// Stands for all who carry nothing that tells them apart.
const NOBODY: u64 = 0;
