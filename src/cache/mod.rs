//! The shared HTTP cache (RFC 9111).

pub mod control;
pub mod entry;
pub mod flight;
pub mod freshness;
pub mod key;
pub mod purge;
pub mod range;
pub mod reuse;
pub mod store;
pub mod storing;
