//! A gateway inside a program of your own: under hyper, and under axum beside routes of your own.
//!
//! ```text
//! cargo run --example embed                          asks itself a few questions and exits
//! cargo run --example embed -- http://erp:8000       the axum program, on 127.0.0.1:8080, before a real server
//! ```
#![expect(clippy::print_stdout, reason = "it tells what happens")]

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use axum::extract::{ConnectInfo, Request};
use axum::routing;
use bytes::Bytes;
use http::Response;
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use vaxel::{Call, Gateway, Handle, Origin, Peer, ReplyBody, RequestBody, Sending};

type Failure = Box<dyn Error + Send + Sync>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let upstream = std::env::args().nth(1);
    let config = CONFIG.replace("http://erp.invalid", upstream.as_deref().unwrap_or("http://erp.invalid"));
    let mut builder = Gateway::builder().config(&config)?;
    if upstream.is_none() {
        builder = builder.origin("erp", Erp::default());
    }
    let handle = builder.build()?;
    let gateway = handle.gateway(0);
    // What has to be done now and then. `vaxel run` does it by itself; here it is the program's.
    tokio::spawn(upkeep(handle.clone()));
    if let Some(upstream) = upstream {
        println!("http://127.0.0.1:8080 leads to {upstream}, except for /about and /metrics");
        return under_axum(TcpListener::bind("127.0.0.1:8080").await?, gateway, handle).await;
    }

    let hyper = TcpListener::bind("127.0.0.1:0").await?;
    let axum = TcpListener::bind("127.0.0.1:0").await?;
    let (hyper_address, axum_address) = (hyper.local_addr()?, axum.local_addr()?);
    tokio::spawn(under_hyper(hyper, gateway.clone()));
    tokio::spawn(under_axum(axum, gateway, handle));

    println!("under hyper, {hyper_address}");
    ask(hyper_address, "/items/7").await?;
    ask(hyper_address, "/items/7").await?;
    ask(hyper_address, "/elsewhere").await?;
    println!("under axum, {axum_address}: the same gateway, so the same cache");
    ask(axum_address, "/items/7").await?;
    ask(axum_address, "/about").await?;
    Ok(())
}

/// A [`Gateway`] is a hyper service. `peer` tells it who asks: rates, queues and `X-Forwarded-For` want to know.
async fn under_hyper(listener: TcpListener, gateway: Gateway) -> Result<(), Failure> {
    loop {
        let (stream, address) = listener.accept().await?;
        let service = gateway.peer(Peer { address, tls: false });
        let connection =
            hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades();
        tokio::spawn(connection);
    }
}

/// In an axum program the gateway answers whatever no other route does. A layer of the program's own (a log-on, say)
/// goes around it like around every handler.
async fn under_axum(listener: TcpListener, gateway: Gateway, handle: Handle) -> Result<(), Failure> {
    let app = axum::Router::new()
        .route("/about", routing::get(async || "A route of the program's own.\n"))
        .route("/metrics", routing::get(async move || handle.metrics().gather()))
        .fallback(async move |ConnectInfo(address): ConnectInfo<SocketAddr>, request: Request| {
            let gateway = gateway.peer(Peer { address, tls: false });
            gateway.handle(request).await.map(axum::body::Body::new)
        });
    axum::serve(listener, app.into_make_service_with_connect_info::<SocketAddr>()).await?;
    Ok(())
}

async fn upkeep(handle: Handle) {
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    loop {
        tick.tick().await;
        handle.upkeep().await;
    }
}

/// Stands in for the ERP, without a socket. An [`Origin`] may just as well ask a database or a message queue: slots,
/// breaker, timeouts and cache are the same.
#[derive(Default)]
struct Erp {
    asked: AtomicU32,
}

impl Origin for Erp {
    fn send(self: Arc<Self>, request: http::Request<RequestBody>, _: Call) -> Sending {
        Box::pin(async move {
            let times = self.asked.fetch_add(1, Ordering::Relaxed) + 1;
            let text = format!("{} from the ERP, which was asked {times} times\n", request.uri().path());
            let mut response = Response::new(ReplyBody::Full(Some(text.into())));
            let freshness = http::HeaderValue::from_static("max-age=60");
            response.headers_mut().insert(http::header::CACHE_CONTROL, freshness);
            Ok(response)
        })
    }
}

/// Asks over a connection of its own, and prints what a client sees.
async fn ask(address: SocketAddr, path: &str) -> Result<(), Failure> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = http::Request::get(path).header("host", "shop.example").body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await?;
    println!("  GET {path}: {}", response.status());
    for name in ["cache-status", "age", "content-type"] {
        if let Some(value) = response.headers().get(name) {
            println!("    {name}: {}", String::from_utf8_lossy(value.as_bytes()));
        }
    }
    let body = response.into_body().collect().await?.to_bytes();
    println!("    {}", String::from_utf8_lossy(&body).trim_end());
    Ok(())
}

const CONFIG: &str = r#"
[[listener]]
listen = "127.0.0.1:0"                 # for `vaxel run`; this program listens by itself

[upstream.erp]
endpoints = ["http://erp.invalid"]     # the origin stands in for it
slots = 4

[[route]]
match = { path = "/items/{*rest}" }
upstream = "erp"
cache = { stale_if_error = "1d" }
"#;
