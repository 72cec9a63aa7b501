//! Held back: a request that is over a rate whose excess waits for its turn (`excess = "delay"`). Meanwhile it holds
//! nothing but its place: no slot, no quota. A client that leaves gives it back.

use std::sync::Arc;
use std::time::Instant;

use http::request::Parts;
use http::{Response, Version};

use super::admit::{self, Begun};
use super::body::ResponseBody;
use super::exchange::Exchange;
use super::lookup::{self, Content};
use super::respond;
use crate::message::target::Target;
use crate::refusal::Reason;
use crate::throttle::rate::Reservation;
use crate::upstream::body::Inbound;

/// When a request may pass, and its places before that.
pub(super) struct Turn {
    pub(super) at: Instant,
    pub(super) places: [Option<Reservation>; 2],
}

/// A request that waits for its turn.
pub(super) struct Delayed {
    pub(super) exchange: Box<Exchange>,
    pub(super) parts: Parts,
    pub(super) body: Inbound,
    pub(super) safe: bool,
    pub(super) turn: Box<Turn>,
}

impl Delayed {
    /// Waits, and travels on to the end.
    pub(super) async fn travel(self: Box<Self>) -> Response<ResponseBody> {
        let Self { mut exchange, parts, body, safe, turn } = *self;
        tokio::time::sleep_until(turn.at.into()).await;
        turn.places.into_iter().flatten().for_each(Reservation::pass);
        exchange.now = exchange.worker.core.clock.now();
        let snapshot = Arc::clone(&exchange.snapshot);
        let Some(route) = exchange.route.and_then(|index| snapshot.routes.get(index)) else {
            return respond::refuse(exchange, Reason::Internal.into());
        };
        let looked = admit::quota(&mut exchange, route, true).and_then(|()| {
            exchange.mark(|traced, now| traced.admitted = Some(now));
            let target = Target::of(&parts.uri, &parts.headers, parts.version < Version::HTTP_11)?;
            let content = if body.is_end_stream() { Content::None } else { Content::Unread };
            Ok(lookup::look(&mut exchange, route, &parts, &target, safe, content))
        });
        let begun = match looked {
            Ok(looked) => admit::proceed(exchange, route, parts, (body, None), safe, looked),
            Err(refusal) => return respond::refuse(exchange, refusal),
        };
        match begun {
            Begun::Answered(response) => response,
            Begun::Stored(body) => body.into_response(),
            Begun::Onward(trip) => trip.travel().await,
            Begun::Reading(reading) => reading.travel().await,
            Begun::Delayed(again) => respond::refuse(again.exchange, Reason::Internal.into()),
        }
    }
}
