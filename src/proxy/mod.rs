//! The trip of one request.

pub mod access_log;
