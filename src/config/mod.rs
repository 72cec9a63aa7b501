//! Configuration.

pub mod diagnostics;
pub mod file;
pub mod settings;
pub mod units;
