//! Over real sockets: what is only true if the bytes, the timers and the connections agree.

use std::time::Duration;

pub(crate) mod client;
pub(crate) mod message;
pub(crate) mod origin;
pub(crate) mod rig;
mod tls;
mod trips;

/// For whatever must happen at all; only a test that fails waits so long.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);
