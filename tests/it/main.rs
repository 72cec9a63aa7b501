//! Tests of the whole: scenarios in virtual time over scripted backends, and real bytes over real sockets.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that goes wrong panics")]
#![allow(unreachable_pub, reason = "nothing is exported from a test binary")]

mod harness;
mod hygiene;
mod scenarios;
mod sim;
mod tidy;
mod wire;
