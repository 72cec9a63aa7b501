//! A POST that only reads: its body belongs to its key, so it is read before the store is asked.

use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use http::{Response, Version};

use super::admit::{self, Begun};
use super::body::ResponseBody;
use super::exchange::Exchange;
use super::lookup::{self, Content, Looked};
use super::respond::{self, Forward};
use crate::message::target::Target;
use crate::metrics::CacheResult;
use crate::refusal::Reason;
use crate::upstream::body::{Gathered, Inbound, PACE};

/// A request whose body is to be read.
pub(super) struct Reading {
    pub(super) exchange: Box<Exchange>,
    pub(super) parts: Parts,
    pub(super) body: Inbound,
}

impl Reading {
    /// Reads the body and travels on, to the end.
    pub(super) async fn travel(self: Box<Self>) -> Response<ResponseBody> {
        let Self { mut exchange, parts, body } = *self;
        let snapshot = Arc::clone(&exchange.snapshot);
        let route = exchange.route.and_then(|index| snapshot.routes.get(index));
        let rule = route.and_then(|route| route.cache.as_ref()?.post.as_ref());
        let (Some(route), Some(rule)) = (route, rule) else {
            return respond::refuse(exchange, Reason::Internal.into());
        };
        // As for a body that is passed on while it comes.
        let patience = route.body.timeout + Duration::from_secs(rule.max_body as u64 / PACE);
        let gathering = tokio::time::timeout(patience, body.gather(rule.max_body));
        let Ok(Ok(gathered)) = gathering.await else {
            return respond::refuse(exchange, Reason::RequestBody.into());
        };
        exchange.now = exchange.worker.core.clock.now();
        let (looked, body, whole) = match gathered {
            Gathered::Whole(bytes) => {
                let digest = rule.digest(&parts.headers, &bytes);
                let target = Target::of(&parts.uri, &parts.headers, parts.version < Version::HTTP_11);
                let looked = target
                    .map(|target| lookup::look(&mut exchange, route, &parts, &target, true, Content::Read(digest)));
                (looked.unwrap_or_else(Looked::Refuse), Inbound::whole(bytes.clone()), Some(bytes))
            }
            Gathered::More(body) => {
                let forward = Forward { detail: Some("body"), ..Forward::new("bypass") };
                (Looked::Alone(CacheResult::Bypass, Some(forward), None), body, None)
            }
        };
        match admit::proceed(exchange, route, parts, (body, whole), true, looked) {
            Begun::Answered(response) => response,
            Begun::Stored(body) => body.into_response(),
            Begun::Onward(trip) => trip.travel().await,
            Begun::Reading(again) => respond::refuse(again.exchange, Reason::Internal.into()),
            Begun::Delayed(again) => respond::refuse(again.exchange, Reason::Internal.into()),
        }
    }
}
