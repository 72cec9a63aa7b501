//! Over real sockets: what is only true if the bytes, the timers and the connections agree.

use std::time::Duration;

mod answers;
pub(crate) mod client;
mod collecting;
mod h2;
pub(crate) mod message;
pub(crate) mod origin;
mod restart;
pub(crate) mod rig;
mod timers;
mod tls;
mod trials;
mod trips;
mod upstream_tls;

/// For whatever must happen at all; only a test that fails waits so long.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);
