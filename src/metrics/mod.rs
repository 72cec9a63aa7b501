//! Metrics.

pub mod names;
