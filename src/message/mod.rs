//! What every layer needs to know of an HTTP message.
//!
//! - [`target`]: host and path, normalised once, before routing and cache key alike
//! - [`hop`]: fields that belong to one connection only, and the fields a proxy adds
//! - [`chunked`]: the coding of bodies whose length is not known beforehand
//! - [`date`]: dates as HTTP writes them
//! - [`trace`]: the trace a request belongs to
//! - [`deadline`]: until when a caller waits
//! - [`forwarded`]: who a proxy in front says the client is
//! - [`secrets`]: what of a path or a query must not be written down
//! - [`short`]: field values, written quickly
//! - [`read`]: small pieces, strictly
//! - [`names`]: of fields that nearly all messages have
//! - [`present`]: which of the fields that steer a proxy there are
//! - [`spare`]: maps of fields, to be used again
//! - [`switch`]: a connection after a switch of protocols
//! - [`edits`]: header edits and static answers that an operator asked for

pub mod chunked;
pub mod date;
pub mod deadline;
pub mod edits;
pub mod forwarded;
pub mod hop;
pub mod names;
pub mod present;
pub mod read;
pub mod secrets;
pub mod short;
pub mod spare;
pub mod switch;
pub mod target;
pub mod trace;

/// An error with all its causes in one line, for logs.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
