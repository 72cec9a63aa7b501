//! Clients: they ask, read, and may leave at any time.

use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;

use bytes::{Bytes, BytesMut};
use http::request::Builder;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version};
use http_body_util::{BodyExt as _, Full};
use tokio::task::JoinHandle;
use vaxel::gateway::Gateway;
use vaxel::listen::Peer;
use vaxel::listen::http1::Preset as _;
use vaxel::proxy::ResponseBody;

/// Somebody at an address.
#[derive(Clone)]
pub struct Client(Gateway);

/// A request that is not sent yet. Awaited, it is sent and its answer read to the end.
#[must_use = "a request is sent when it is awaited, opened or spawned"]
pub struct Request {
    gateway: Gateway,
    head: Builder,
    body: Bytes,
    wire: bool,
}

/// A client on its way, in a task of its own. Awaited, it gives its answer.
pub struct Visit(JoinHandle<Answer>);

/// An answer whose head has come. Dropped, its client has left.
pub struct Opened {
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// It brought its head as it goes over the connection.
    pub preset: bool,
    body: ResponseBody,
}

/// An answer, read to its end.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// It brought its head as it goes over the connection.
    pub preset: bool,
    pub body: Bytes,
    /// The body broke off.
    pub broken: bool,
}

impl Client {
    pub fn new(gateway: &Gateway, address: IpAddr) -> Self {
        Self(gateway.peer(Peer { address: SocketAddr::new(address, 40_000), tls: false }))
    }

    pub fn get(&self, target: &str) -> Request {
        self.asks("GET", target)
    }

    pub fn asks(&self, method: &str, target: &str) -> Request {
        let head = http::Request::builder().method(method).uri(target).header("host", "erp.example");
        Request { gateway: self.0.clone(), head, body: Bytes::new(), wire: false }
    }
}

impl Request {
    /// With this field.
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.head = self.head.header(name, value);
        self
    }

    /// With this body.
    pub fn saying(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        let length = self.body.len();
        self.with("content-length", &length.to_string())
    }

    /// In this version of HTTP.
    pub fn version(mut self, version: Version) -> Self {
        self.head = self.head.version(version);
        self
    }

    /// Over HTTP/1.1, from a server that takes heads as they go over the connection.
    pub fn by_wire(mut self) -> Self {
        self.wire = true;
        self
    }

    /// Sends it; the body of the answer is still to come.
    pub async fn opens(self) -> Opened {
        let request = self.head.body(Full::new(self.body)).unwrap();
        let response = match self.wire {
            true => self.gateway.handle_wire(request).await,
            false => self.gateway.handle(request).await,
        };
        let (mut parts, mut body) = response.into_parts();
        let mut head = BytesMut::new();
        let preset = body.preset(&mut head);
        if preset {
            assert!(parts.headers.is_empty());
            let (status, headers) = read(&head);
            assert_eq!(status, parts.status);
            parts.headers = headers;
        } else {
            assert!(head.is_empty());
            head.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
            body.beside(&mut head);
            for (name, value) in &read(&head).1 {
                parts.headers.append(name, value.clone());
            }
        }
        Opened { status: parts.status, headers: parts.headers, preset, body }
    }

    /// Sends it from a task of its own.
    pub fn goes(self) -> Visit {
        Visit(tokio::spawn(async move { self.opens().await.reads().await }))
    }
}

/// Reads a head without its final empty line.
fn read(head: &[u8]) -> (StatusCode, HeaderMap) {
    let head = std::str::from_utf8(head).unwrap().strip_suffix("\r\n").expect("the last line has an end");
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap().strip_prefix("HTTP/1.1 ").unwrap();
    let (status, reason) = status.split_once(' ').unwrap();
    let status = StatusCode::from_bytes(status.as_bytes()).unwrap();
    assert_eq!(status.canonical_reason().unwrap_or_default(), reason);
    let mut headers = HeaderMap::new();
    for line in lines {
        let (name, value) = line.split_once(": ").unwrap();
        assert_eq!(name, name.to_ascii_lowercase());
        headers.append(HeaderName::try_from(name).unwrap(), HeaderValue::try_from(value).unwrap());
    }
    (status, headers)
}

impl IntoFuture for Request {
    type Output = Answer;
    type IntoFuture = Pin<Box<dyn Future<Output = Answer> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { self.opens().await.reads().await })
    }
}

impl Visit {
    /// The client leaves, wherever it is.
    pub async fn leaves(self) {
        self.0.abort();
        let gone = self.0.await;
        assert!(gone.is_err_and(|error| error.is_cancelled()), "the client had its answer before it left");
    }

    /// As [`Visit::leaves`], but it may have its answer already.
    pub fn may_leave(self) {
        self.0.abort();
    }

    /// Whether it has its whole answer.
    pub fn is_done(&self) -> bool {
        self.0.is_finished()
    }
}

impl IntoFuture for Visit {
    type Output = Answer;
    type IntoFuture = Pin<Box<dyn Future<Output = Answer> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { self.0.await.unwrap() })
    }
}

impl Opened {
    /// The next piece of the body.
    pub async fn piece(&mut self) -> Bytes {
        let frame = self.body.frame().await.expect("the body goes on").expect("the body does not break");
        frame.into_data().expect("it is data")
    }

    /// Reads the rest.
    pub async fn reads(mut self) -> Answer {
        let (mut body, mut broken) = (Vec::new(), false);
        while let Some(frame) = self.body.frame().await {
            match frame {
                Ok(frame) => body.extend_from_slice(frame.data_ref().unwrap_or(&Bytes::new())),
                Err(_) => {
                    broken = true;
                    break;
                }
            }
        }
        Answer { status: self.status, headers: self.headers, preset: self.preset, body: body.into(), broken }
    }
}

impl Answer {
    /// Asserts its status, and that it is whole.
    #[track_caller]
    pub fn is(&self, status: u16) -> &Self {
        assert_eq!(self.status, status, "{self:?}");
        assert!(!self.broken, "{self:?}");
        self
    }

    /// Asserts its body.
    #[track_caller]
    pub fn says(&self, body: &str) -> &Self {
        assert_eq!(String::from_utf8_lossy(&self.body), body);
        self
    }

    /// Asserts a field, its lines joined.
    #[track_caller]
    pub fn has(&self, name: &str, value: &str) -> &Self {
        assert_eq!(self.field(name), value, "{name} of {self:?}");
        self
    }

    /// Asserts that a field is not there.
    #[track_caller]
    pub fn lacks(&self, name: &str) -> &Self {
        assert!(!self.headers.contains_key(name), "{name} of {self:?}");
        self
    }

    /// Asserts that vaxel refused, by this reason, in the form of RFC 9457.
    #[track_caller]
    pub fn refused(&self, reason: &str) -> &Self {
        let problem = self.problem();
        assert_eq!(problem["reason"], reason, "{self:?}");
        assert_eq!(problem["status"], self.status.as_u16(), "{self:?}");
        self.has("content-type", "application/problem+json").has("cache-control", "no-store")
    }

    /// The problem it describes.
    #[track_caller]
    pub fn problem(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Seconds after which a retry makes sense; asserts that it says so, and what the problem says as well.
    #[track_caller]
    pub fn retry_after(&self) -> u64 {
        let seconds: u64 = self.field("retry-after").parse().unwrap_or_else(|_| panic!("no Retry-After: {self:?}"));
        let exact = self.problem()["retry_after_ms"].as_u64().expect("the problem says when to come back");
        assert!(seconds >= 1 && exact <= seconds * 1000, "Retry-After is never too early: {self:?}");
        seconds
    }

    /// A field, its lines joined; empty if it is not there.
    pub fn field(&self, name: &str) -> String {
        let lines = self.headers.get_all(name).iter().map(|value| value.to_str().unwrap());
        lines.collect::<Vec<_>>().join(", ")
    }
}
