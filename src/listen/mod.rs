//! Accepting sockets.

pub mod certs;
pub mod drain;
pub mod guard;
pub mod serve;
pub mod tls;
