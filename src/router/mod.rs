//! From a request to its route.

pub mod pattern;
