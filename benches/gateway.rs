//! What a whole trip costs, in process: a client's request through every step of the gateway to an origin in memory,
//! without a socket. `cargo bench --bench gateway`; a name as an argument runs that one alone.
#![expect(clippy::expect_used, reason = "a bench that cannot be set up ends")]

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use criterion::Criterion;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use vaxel::gateway::Gateway;
use vaxel::listen::Peer;
use vaxel::listen::http1::Preset as _;
use vaxel::upstream::body::{ReplyBody, RequestBody};
use vaxel::upstream::origin::{Call, Origin, Sending};

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(2))
        .sample_size(30)
        .configure_from_args();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
    let _context = runtime.enter();
    let handle = Gateway::builder()
        .config(CONFIG)
        .expect("the configuration is sound")
        .origin("memory", Memory)
        .build()
        .expect("the gateway starts");
    let gateway = handle.gateway(0).peer(Peer { address: SocketAddr::from((Ipv4Addr::LOCALHOST, 40_000)), tls: false });

    let mut number = 0_u64;
    for (name, route, another_each_time, wire, expected) in [
        ("hit", "cached", false, false, "hit"),
        ("hit by wire", "cached", false, true, "hit"),
        ("miss", "cached", true, false, "stored"),
        ("pass", "pass", false, false, ""),
    ] {
        let mut path = || {
            number += u64::from(another_each_time);
            format!("/{route}/{number}")
        };
        runtime.block_on(trip(&gateway, path(), false));
        // What is measured is what the name says, or the figure would be another one's.
        let status = runtime.block_on(trip(&gateway, path(), wire));
        assert!(status.contains(expected) && (status.is_empty() == expected.is_empty()), "{name}: {status}");
        criterion.bench_function(name, |bencher| bencher.to_async(&runtime).iter(|| trip(&gateway, path(), wire)));
    }
    criterion.final_summary();
}

/// One request, its answer read to the end; gives its Cache-Status, or its head if that comes by wire.
async fn trip(gateway: &Gateway, path: String, wire: bool) -> String {
    let request = Request::get(path).header("host", "erp.example").header("accept", "application/json");
    let request = request.body(Empty::<Bytes>::new()).expect("it is sound");
    let answer = if wire { gateway.handle_wire(request).await } else { gateway.handle(request).await };
    assert_eq!(answer.status(), StatusCode::OK);
    let status = answer.headers().get("cache-status").and_then(|status| status.to_str().ok()).unwrap_or_default();
    let mut status = status.to_owned();
    let mut body = answer.into_body();
    let mut head = BytesMut::new();
    if body.preset(&mut head) {
        status = String::from_utf8(head.into()).expect("it is text");
    }
    let body = body.collect().await.expect("it is whole");
    assert_eq!(body.to_bytes().len(), BODY.len());
    status
}

/// Answers at once with a kibibyte.
struct Memory;

impl Origin for Memory {
    fn send(self: Arc<Self>, _request: Request<RequestBody>, _call: Call) -> Sending {
        Box::pin(async {
            let answer = Response::builder()
                .header("content-length", BODY.len())
                .header("content-type", "application/json")
                .header("cache-control", "max-age=3600");
            Ok(answer.body(ReplyBody::Full(Some(Bytes::from_static(&BODY)))).expect("it is sound"))
        })
    }
}

const BODY: [u8; 1024] = [b'x'; 1024];

const CONFIG: &str = r#"
[[listener]]
listen = "127.0.0.1:0"

[log]
access = "off"

[cache]
size = "64MiB"

[upstream.memory]
endpoints = "http://127.0.0.1:1"

[[route]]
upstream = "memory"
match = { path = "/pass/{*rest}" }

[[route]]
upstream = "memory"
match = { path = "/cached/{*rest}" }
cache = true
"#;
