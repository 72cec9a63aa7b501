//! The circuit breaker.

pub mod window;
