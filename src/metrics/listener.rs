//! What is counted for a listener.

use super::collector::Families;
use super::names;
use super::shard::Shards;

/// The counters of one listener.
#[derive(Debug)]
pub struct ListenerMeter {
    name: Box<str>,
    shards: Shards,
}

/// Why a connection was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ConnectionRefusal {
    /// The listener has as many connections as it may have.
    Limit,
    /// The client's address has as many connections as it may have.
    Address,
    /// The operating system could not give the connection (out of file descriptors, say).
    Accept,
    /// What came over it breaks the framing of HTTP/1.1: refused before a request was made of it.
    Malformed,
}

/// How a TLS handshake ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Handshake {
    /// A session was agreed on.
    Ok,
    /// The client did not finish in time.
    Timeout,
    /// The two sides do not fit, or the client left.
    Failed,
}

impl ListenerMeter {
    pub(super) fn new(name: &str, workers: usize) -> Self {
        Self { name: name.into(), shards: Shards::new(workers, COUNTERS) }
    }

    /// Counts a connection taken. [`ListenerMeter::closed`] must follow when it ends.
    pub fn accepted(&self, worker: usize) {
        self.shards.add(worker, ACCEPTED, 1);
    }

    /// Counts the end of a connection that was taken.
    pub fn closed(&self, worker: usize) {
        self.shards.add(worker, CLOSED, 1);
    }

    /// Counts a connection that was not taken.
    pub fn refused(&self, worker: usize, why: ConnectionRefusal) {
        self.shards.add(worker, REFUSED + why as usize, 1);
    }

    /// Counts a TLS handshake.
    pub fn handshake(&self, worker: usize, result: Handshake) {
        self.shards.add(worker, HANDSHAKES + result as usize, 1);
    }

    pub(super) fn collect(&self, to: &mut Families) {
        let name = &*self.name;
        // The ends are read first: a connection that begins and ends in between must not make the gauge negative.
        let closed = self.shards.sum(CLOSED);
        let accepted = self.shards.sum(ACCEPTED);
        to.count(&names::LISTENER_ACCEPTED, &[name], accepted);
        to.count(&names::LISTENER_CONNECTIONS, &[name], accepted.saturating_sub(closed));
        for (index, why) in ConnectionRefusal::CODES.iter().enumerate() {
            to.count(&names::LISTENER_REFUSED, &[name, why], self.shards.sum(REFUSED + index));
        }
        for (index, result) in Handshake::CODES.iter().enumerate() {
            to.count(&names::TLS_HANDSHAKES, &[name, result], self.shards.sum(HANDSHAKES + index));
        }
    }
}

impl ConnectionRefusal {
    /// The stable words, in the order of the variants.
    pub const CODES: [&str; 4] = ["limit", "address", "accept", "malformed"];
}

impl Handshake {
    /// The stable words, in the order of the variants.
    pub const CODES: [&str; 3] = ["ok", "timeout", "failed"];
}

const ACCEPTED: usize = 0;
const CLOSED: usize = 1;
const REFUSED: usize = 2;
const HANDSHAKES: usize = REFUSED + ConnectionRefusal::CODES.len();
const COUNTERS: usize = HANDSHAKES + Handshake::CODES.len();
