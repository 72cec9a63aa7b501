//! What every layer needs to know of an HTTP message.
//!
//! - [`target`]: host and path, normalised once, before routing and cache key alike
//! - [`hop`]: fields that belong to one connection only, and the fields a proxy adds
//! - [`date`] reads an HTTP-date
//! - [`trace`]: the trace a request belongs to
//! - [`short`]: field values, written quickly
//! - [`edits`]: header edits and static answers that an operator asked for

pub mod date;
pub mod edits;
pub mod forwarded;
pub mod hop;
pub mod short;
pub mod target;
pub mod trace;
