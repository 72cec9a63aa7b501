//! A simulated fragile backend.

pub mod backend;
pub mod demo;
pub mod load;
pub mod profile;
pub mod serve;
