//! From an accepting socket to requests.
//!
//! - [`socket`]: binding, one socket per worker or one for all
//! - `callers`: how many connections each client has
//! - [`serve`]: one connection: TLS, protocol detection
//! - [`http1`]: HTTP/1.x on it, framed as strictly as RFC 9112 allows
//! - `http2`: HTTP/2 on it, by hyper
//! - `watch`, `wire`: clients that are too slow
//! - [`tls`], [`certs`]: server certificates, and those for development
//! - [`drain`]: the orderly end

use std::net::SocketAddr;
use std::time::Duration;

mod callers;
pub mod certs;
pub mod drain;
pub mod http1;
mod http2;
pub mod serve;
pub mod socket;
pub mod tls;
mod watch;
mod wire;

pub use callers::Callers;

/// Who is at the other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Its address.
    pub address: SocketAddr,
    /// Whether the connection is encrypted.
    pub tls: bool,
}

/// How connections reach the workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Accept {
    /// The kernel spreads them by hash over one socket per worker: the cheapest.
    #[default]
    Reuseport,
    /// One acceptor hands each to the worker with the fewest: better for few, long-lived connections.
    Dispatch,
}

/// Bounds of one listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenLimits {
    /// Connections open at once.
    pub connections: usize,
    /// Those of one client address (IPv6 by /64), if they are bounded.
    pub connections_per_address: Option<usize>,
    /// Bytes of a request's head.
    pub head_size: usize,
    /// For a request's head, a TLS handshake, and for taking what we send, without progress.
    pub head_timeout: Duration,
    /// Between two requests.
    pub idle_timeout: Duration,
    /// Concurrent streams of an HTTP/2 connection.
    pub h2_streams: u32,
}

impl Default for ListenLimits {
    fn default() -> Self {
        Self {
            connections: 16_384,
            // Behind another proxy all clients have its address.
            connections_per_address: None,
            head_size: 64 * 1024,
            head_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(60),
            h2_streams: 128,
        }
    }
}
