//! Heads as they go over an HTTP/1.1 connection. What is stored of a hit goes as it is, and only what is said of this
//! answer alone is written: no map of fields is made. And into the map that came from the upstream nothing is put that
//! could as well be written beside it.

use bytes::BytesMut;
use http::HeaderMap;

use super::cache_status::{self, Forward};
use super::exchange::Exchange;
use super::limits::{self, Said};
use crate::cache::entry::Entry;
use crate::message::short::Text as _;

/// What goes over the connection without standing in the fields of a response.
pub(super) enum Wire {
    /// All of the head of a stored answer, which is so old, in seconds.
    Stored(u64),
    /// What is said beside them.
    Beside(Beside),
}

/// Whether a stored answer may go to the client as it is: no fields must be made, to go elsewhere or to be changed.
pub(super) fn goes_as_stored(exchange: &Exchange, entry: &Entry) -> bool {
    is_wanted(exchange) && entry.head.is_preset()
}

/// Appends the head of a stored answer that is `age` seconds old to `to`.
pub(super) fn stored(exchange: &Exchange, entry: &Entry, age: u64, to: &mut BytesMut) {
    to.reserve(entry.head.lines.len() + ROOM);
    to.extend_from_slice(&entry.head.lines);
    to.text("content-length: ").number(entry.body.len() as u64);
    to.text("\r\nage: ").number(age).text("\r\ncache-status: ");
    cache_status::hit(to, entry, age, exchange.cache);
    to.text("\r\n").text(exchange.worker.core.pseudonym.line());
    limits::lines(exchange, Said::by(&entry.head.headers), to);
}

/// What is said of an upstream's own answer.
pub(super) struct Beside {
    forward: Option<Forward>,
    said: Said,
}

impl Beside {
    /// `None` where fields must be made. `headers` are the upstream's; `forward` says how the request got there.
    pub(super) fn of(exchange: &Exchange, headers: &HeaderMap, forward: Option<Forward>) -> Option<Self> {
        is_wanted(exchange).then(|| Self { forward, said: Said::by(headers) })
    }

    /// Appends the lines to `to`.
    pub(super) fn write(&self, exchange: &Exchange, to: &mut BytesMut) {
        if let Some(forward) = self.forward {
            to.text("cache-status: ");
            forward.write(to);
            to.text("\r\n");
        }
        to.text(exchange.worker.core.pseudonym.line());
        limits::lines(exchange, self.said, to);
    }
}

/// Whether the connection takes lines, and nobody is to see or change the fields they stand for.
fn is_wanted(exchange: &Exchange) -> bool {
    let is_edited = || exchange.route().is_some_and(|route| !route.response_headers.is_empty());
    exchange.wire && exchange.worker.core.hooks.is_none() && !is_edited()
}

/// More than what is written beside the stored lines mostly takes.
const ROOM: usize = 512;
