//! Words of an HTTP message that every layer shares.

pub mod body;
pub mod date;
pub mod hop;
pub mod target;
