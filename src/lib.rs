//! Vaxel: the gearbox between fast frontends and fragile legacy backends.
// Modules stand in layer order, lowest first; an import only points down (tests/it/tidy.rs).

// 0: words
pub mod clock;
pub mod message;
pub mod outcome;
pub mod refusal;

// 1: policy, pure
pub mod breaker;
pub mod consumer;
pub mod retry;
pub mod router;

// 1 (pure files) and 2 (mechanisms)
pub mod cache;
pub mod listen;
pub mod metrics;
pub mod sim;
pub mod throttle;
pub mod upstream;

// 3
pub mod config;
pub mod proxy;

// 4
pub mod admin;
pub mod gateway;

// 5
pub mod cli;
pub mod server;

pub use gateway::{Gateway, Handle};
pub use listen::Peer;
pub use metrics::Facts;
pub use proxy::hooks::Hooks;
pub use refusal::{Reason, Refusal};
pub use upstream::body::{ReplyBody, RequestBody};
pub use upstream::origin::{Call, Origin, Sending};
