//! The head of a hit as it goes over an HTTP/1.1 connection: what is stored of it goes as it is, and only what is said of
//! this answer alone is written. No map of fields is made.

use std::sync::Arc;

use bytes::BytesMut;

use super::cache_status;
use super::exchange::Exchange;
use super::limits;
use crate::cache::entry::Entry;
use crate::message::short::Text as _;

/// A stored answer that goes to the client whole, as old as it is, in seconds.
pub(super) struct Stored {
    entry: Arc<Entry>,
    age: u64,
}

impl Stored {
    /// `None` where fields must be made: they go elsewhere, or somebody may change them.
    pub(super) fn of(exchange: &Exchange, entry: &Arc<Entry>, age: u64) -> Option<Self> {
        let is_edited = exchange.worker.core.hooks.is_some()
            || exchange.route().is_some_and(|route| !route.response_headers.is_empty());
        let fits = exchange.wire && !is_edited && entry.head.is_preset();
        fits.then(|| Self { entry: Arc::clone(entry), age })
    }

    /// Appends the head to `to`.
    pub(super) fn write(&self, exchange: &Exchange, to: &mut BytesMut) {
        let Self { entry, age } = self;
        to.reserve(entry.head.lines.len() + ROOM);
        to.extend_from_slice(&entry.head.lines);
        to.text("content-length: ").number(entry.body.len() as u64);
        to.text("\r\nage: ").number(*age).text("\r\ncache-status: ");
        cache_status::hit(to, entry, *age, exchange.cache);
        to.text("\r\n").text(exchange.worker.core.pseudonym.line());
        limits::lines(exchange, &entry.head.headers, to);
    }
}

/// More than what is written beside the stored lines mostly takes.
const ROOM: usize = 512;
