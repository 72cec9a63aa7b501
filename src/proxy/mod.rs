//! The trip of one request. The order of the steps is a product decision and stands here; each step is a file.
//!
//! ```text
//! admit    route · identify · admit: the consumer's rate and quota              no work; waits only for a turn (delay)
//! lookup   key, Vary, freshness: fresh → respond; stale → respond and refresh; miss → lead or join a fill; pass → alone
//! gate     breaker → slot (bounded fair queue) → breaker's pass
//! attempt  endpoint → origin → classify → learn once → perhaps again
//! fill     storing rules → entry, streamed to everybody who waits
//! respond  Age, Cache-Status, Proxy-Status, Via, RateLimit → measured body
//! ```
//!
//! The first two steps wait for nothing, but for a turn where a rate is shaped (`delay`): a hit is answered without a future of its own.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Response, header};

use self::admit::Begun;
use crate::listen::Peer;
use crate::listen::http1::Answered;
use crate::refusal::{Reason, Refusal};
use crate::upstream::body::Inbound;

pub mod access_log;
mod admit;
pub mod alarms;
mod attempt;
mod body;
mod cache_status;
mod deadline;
mod delay;
mod exchange;
mod expect;
pub mod explain;
mod fill;
mod freshen;
mod gate;
mod held;
pub mod hooks;
pub mod inspect;
pub mod journal;
pub mod limits;
mod look;
mod lookup;
pub mod observe;
mod outgoing;
mod post;
mod preset;
mod respond;
pub mod snapshot;
mod standing;
mod traced;
mod trip;
mod tunnel;
mod write;

pub use body::ResponseBody;
use snapshot::Worker;

/// Answers one request. Never fails: every refusal is rendered into a response. `wire`: the body may bring the head of its
/// answer ([`Preset`](crate::listen::http1::Preset)); then the response has its status and no fields.
pub fn handle(worker: &Arc<Worker>, parts: Parts, body: Inbound, peer: Peer, wire: bool) -> Handling {
    Handling::of(admit::begin(worker, parts, body, peer, wire))
}

/// The same over HTTP/1.x, where a stored answer needs no response but its body.
pub fn answer(worker: &Arc<Worker>, parts: Parts, body: Inbound, peer: Peer) -> Answered<ResponseBody, Handling> {
    match admit::begin(worker, parts, body, peer, true) {
        Begun::Stored(body) => Answered::Preset(body),
        begun => Answered::Later(Handling::of(begun)),
    }
}

/// Refuses what is no request to begin with, or of which there is no room to read one; counted and logged like every
/// refusal.
pub fn refuse(worker: &Arc<Worker>, peer: Peer, reason: Reason) -> Response<Bytes> {
    let exchange = admit::unread(worker, peer);
    let date = HeaderValue::try_from(httpdate::fmt_http_date(worker.core.clock.wall_at(exchange.started)));
    let mut refusal = Refusal::from(reason);
    if matches!(reason, Reason::ConnectionLimit | Reason::ConnectionAddress) {
        refusal = refusal.after(ROOM_AGAIN);
    }
    let mut response = respond::refuse(exchange, refusal).map(ResponseBody::into_bytes);
    // hyper adds it to what it is given; this goes past hyper.
    response.headers_mut().extend(date.map(|date| (header::DATE, date)));
    response
}

/// The answer to come.
#[must_use = "futures do nothing unless polled"]
pub struct Handling(Inner);

#[expect(clippy::large_enum_variant, reason = "the large one is the hot one, and is moved out at once")]
enum Inner {
    Ready(Option<Response<ResponseBody>>),
    Pending(Pin<Box<dyn Future<Output = Response<ResponseBody>> + Send>>),
}

impl Handling {
    fn of(begun: Begun) -> Self {
        Self(match begun {
            Begun::Answered(response) => Inner::Ready(Some(response)),
            Begun::Stored(body) => Inner::Ready(Some(body.into_response())),
            Begun::Onward(trip) => Inner::Pending(Box::pin(trip.travel())),
            Begun::Reading(reading) => Inner::Pending(Box::pin(reading.travel())),
            Begun::Delayed(delayed) => Inner::Pending(Box::pin(delayed.travel())),
        })
    }
}

impl Future for Handling {
    type Output = Response<ResponseBody>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.get_mut().0 {
            Inner::Ready(response) => Poll::Ready(response.take().expect("a future is not polled after it has ended")),
            Inner::Pending(future) => future.as_mut().poll(cx),
        }
    }
}

/// Nobody knows when a connection will end; with so many there, one will soon.
const ROOM_AGAIN: Duration = Duration::from_secs(1);
