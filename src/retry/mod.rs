//! Whether and when to try again.

pub mod backoff;
pub mod budget;
