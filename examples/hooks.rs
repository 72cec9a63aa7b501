//! A program's hand in every trip: it knows its own sessions, adds fields both ways, refuses, and sees how it ended.
//!
//! ```text
//! cargo run --example hooks
//! ```
#![expect(clippy::print_stdout, reason = "it tells what happens")]

use std::collections::HashMap;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts as RequestParts;
use http::response::Parts as ResponseParts;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Empty};
use vaxel::{
    Call, Denial, Denied, Facts, Gateway, Hooks, Origin, Parties, Peer, Reason, ReplyBody, RequestBody, Sending,
};

type Failure = Box<dyn Error + Send + Sync>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let misuse = Denial::new(StatusCode::FORBIDDEN, "session.closed", "The session was closed for misuse.")?;
    let misuse = misuse.after(Duration::from_secs(3600));
    let sessions = Sessions { open: HashMap::from([("s-17".into(), "webshop".into())]), closed: "s-13".into(), misuse };
    let handle = Gateway::builder().config(CONFIG)?.hooks(sessions).origin("erp", Erp).build()?;
    let gateway = handle.gateway(0);
    for session in ["s-17", "s-99", "s-13"] {
        ask(&gateway, session).await?;
    }
    println!("what the program's metrics say now:");
    for line in handle.metrics().gather().lines().filter(|line| line.starts_with("vaxel_consumer_requests_total")) {
        println!("  {line}");
    }
    Ok(())
}

/// The sessions of this program. A token is looked up in memory: no hook may block.
struct Sessions {
    /// From token to the name of a consumer in the configuration.
    open: HashMap<String, String>,
    /// One that was closed for misuse.
    closed: String,
    /// What its owner is told, in the program's own words.
    misuse: Denial,
}

impl Sessions {
    fn token(headers: &HeaderMap) -> Option<&str> {
        headers.get("x-session")?.to_str().ok()
    }
}

impl Hooks for Sessions {
    /// Before routing, before any work: a refusal here costs next to nothing.
    fn request(&self, request: &mut RequestParts, _: &Peer) -> Result<(), Denied> {
        if Self::token(&request.headers) == Some(&self.closed) {
            return Err(self.misuse.clone().into());
        }
        Ok(())
    }

    /// Who calls, where the rules of the configuration found nobody. Weight, class and rate are the consumer's then.
    fn consumer(&self, request: &RequestParts, _: &Peer) -> Option<&str> {
        self.open.get(Self::token(&request.headers)?).map(String::as_str)
    }

    /// On each attempt. The token is the program's business; the ERP has a client number of its own.
    fn upstream(&self, headers: &mut HeaderMap) {
        headers.remove("x-session");
        headers.insert("sap-client", HeaderValue::from_static("100"));
    }

    /// On every answer, refusals and hits included.
    fn response(&self, response: &mut ResponseParts) {
        response.headers.insert("x-frame-options", HeaderValue::from_static("DENY"));
    }

    /// After the last byte of the body: the same facts that the metrics and the access log are made from.
    fn finished(&self, facts: &Facts<'_>, parties: Parties<'_>) {
        println!(
            "  finished: {} by {}: {} {}, cache {}, reason {}, {} attempts, {} bytes",
            parties.route.unwrap_or("no route"),
            parties.consumer.unwrap_or("nobody known"),
            facts.method,
            facts.status,
            facts.cache.code(),
            facts.reason.map_or("none", Reason::code),
            facts.attempts,
            facts.response_bytes,
        );
    }
}

/// Stands in for the ERP: it answers with what it was sent.
struct Erp;

impl Origin for Erp {
    fn send(self: Arc<Self>, request: Request<RequestBody>, _: Call) -> Sending {
        Box::pin(async move {
            let client = request.headers().get("sap-client").and_then(|value| value.to_str().ok());
            let session = request.headers().contains_key("x-session");
            let text = format!("client {}, session {session}\n", client.unwrap_or("unknown"));
            Ok(Response::new(ReplyBody::Full(Some(text.into()))))
        })
    }
}

async fn ask(gateway: &Gateway, session: &str) -> Result<(), Failure> {
    println!("session {session}");
    let request = Request::get("/orders/1")
        .header(header::HOST, "shop.example")
        .header("x-session", session)
        .body(Empty::<Bytes>::new())?;
    let response = gateway.handle(request).await;
    let framed = response.headers().contains_key("x-frame-options");
    let body = response.into_body().collect().await?.to_bytes();
    println!("  answered: {}", String::from_utf8_lossy(&body).trim_end());
    println!("  with x-frame-options: {framed}");
    Ok(())
}

const CONFIG: &str = r#"
[[listener]]
listen = "127.0.0.1:0"                 # for `vaxel run`; this program has no socket at all

[consumer.webshop]
identify = { api_key = "for those who have no session" }
weight = 3
class = "interactive"

[upstream.erp]
endpoints = ["http://erp.invalid"]     # the origin stands in for it
slots = 4

[[route]]
match = { path = "/orders/{id}" }
upstream = "erp"
require_consumer = true
"#;
