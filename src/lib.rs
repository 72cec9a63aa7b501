//! Vaxel: the gearbox between fast frontends and fragile legacy backends.
//!
//! A system of record (an ERP, a core banking system, a mainframe) has a small, fixed number of work processes. It was
//! built for clerks, and now a webshop calls it. When more is asked of it than it has processes, it does not answer
//! later: it answers *less*, since a crowd makes everything slower, and work goes on for clients that have long left.
//! Vaxel is the reverse proxy in between. The backend never gets more concurrent work than its slots; what may be
//! answered from a cache is; who has to wait waits in a fair, bounded queue; and whoever is refused is told why and when
//! to come back.
//!
//! As a program it is `vaxel run` (see the README). As a library it is a [`Gateway`]: a hyper service, to be mounted in
//! any hyper or axum program.
//!
//! # Ten lines
//!
//! ```
//! use std::sync::Arc;
//!
//! use http::{Request, Response};
//! use http_body_util::{BodyExt as _, Empty};
//! use vaxel::{Call, Gateway, Origin, ReplyBody, RequestBody, Sending};
//!
//! /// Stands in for the ERP. Without it, requests go to the endpoint of the configuration.
//! struct Erp;
//!
//! impl Origin for Erp {
//!     fn send(self: Arc<Self>, _: Request<RequestBody>, _: Call) -> Sending {
//!         Box::pin(async { Ok(Response::new(ReplyBody::Full(Some("twelve pallets".into())))) })
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
//! let config = r#"
//!     [[listener]]
//!     listen = "127.0.0.1:8080"
//!
//!     [upstream.erp]
//!     endpoints = ["http://erp:8000"]
//!     slots = 8
//!
//!     [[route]]
//!     match = { path = "/stock/{id}" }
//!     upstream = "erp"
//!     cache = { ttl = "60s" }
//! "#;
//! let handle = Gateway::builder().config(config)?.origin("erp", Erp).build()?;
//! let gateway = handle.gateway(0);
//! let ask = || Request::get("/stock/7").header("host", "shop.example").body(Empty::new());
//!
//! let first = gateway.handle(ask()?).await;
//! assert_eq!(first.headers()["cache-status"], "vaxel; fwd=uri-miss; fwd-status=200; stored");
//! assert_eq!(first.into_body().collect().await?.to_bytes(), "twelve pallets");
//!
//! let second = gateway.handle(ask()?).await;
//! assert_eq!(second.headers()["cache-status"], "vaxel; hit; ttl=60");
//! # Ok(())
//! # }
//! ```
//!
//! An embedding program calls [`Handle::upkeep`] every second; `examples/embed.rs` shows it, with hyper and axum. The
//! other two seams are [`Hooks`] (`examples/hooks.rs`) and [`Origin`].
//!
//! # The trip
//!
//! A request makes one trip in one direction; [`proxy`] holds its order.
//!
//! ```text
//! listen ─► route ─► identify ─► admit ─► lookup ─┬─ fresh, or stale and allowed ─────────────────► respond
//!                                                 └─ miss ─► gate ─► attempt ─► store ────────────► respond
//!                                                             │        └─ failed ─► again, or ┐
//!                                                             └─ refused ─► stale, fallback, or a refusal ─► respond
//! ```
//! Whatever stops it is a [`Refusal`] with one [`Reason`]; the code of the reason is the same in the error body, the
//! access log, the metrics and the docs.
//!
//! # The modules
//!
//! They stand in layers; an import only points down.
//!
//! | layer | modules |
//! |---|---|
//! | 5 programs | [`cli`] (the only file that knows clap), [`server`] (settings → sockets → workers → drain) |
//! | 4 | [`gateway`] (settings → live objects, reload), [`admin`] (metrics, health, configuration) |
//! | 3 | [`proxy`] (the trip), [`config`] (the only module that knows TOML) |
//! | 2 mechanisms | [`listen`], [`upstream`], [`metrics`], [`throttle`] (rates, slots, queue), [`cache`] (store, flights, purge), [`sim`] |
//! | 1 policy, pure | [`router`], [`consumer`], [`breaker`], [`retry`], [`gear`], and the rules inside [`cache`], [`throttle`], [`upstream`], [`sim`] |
//! | 0 words | [`clock`], [`message`], [`outcome`], [`refusal`] |
//!
//! Policy is pure: no clock, no lock, no runtime, no chance. Time and drawn numbers are arguments, so a day passes in a
//! test at once. Nothing is global: two gateways live in one process.
// Modules stand in layer order, lowest first; an import only points down (tests/it/tidy.rs).

// 0: words
pub mod clock;
pub mod message;
pub mod outcome;
pub mod refusal;

// 1: policy, pure
pub mod advice;
pub mod breaker;
pub mod consumer;
pub mod gear;
pub mod retry;
pub mod router;

// 1 (pure files) and 2 (mechanisms)
pub mod cache;
pub mod listen;
pub mod metrics;
pub mod sim;
pub mod throttle;
pub mod traces;
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
pub use proxy::hooks::{Hooks, Parties};
pub use refusal::{Denial, Denied, Reason, Refusal};
pub use upstream::body::{ReplyBody, RequestBody};
pub use upstream::origin::{Call, Origin, Sending};

/// The examples of the README, compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
