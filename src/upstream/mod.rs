//! The protected group of servers.

pub mod balance;
pub mod connect;
pub mod health;
pub mod origin;
pub mod pool;
pub mod probe;
pub mod resolve;
pub mod tls;
