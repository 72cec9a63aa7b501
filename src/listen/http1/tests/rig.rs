//! A connection that is served, and a handler for it.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use http::Request;
use http::request::Parts;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use hyper::service::Service;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::super::*;
use crate::clock::Clock;
use crate::listen::drain::Drain;
use crate::listen::{Callers, ListenLimits};
use crate::metrics::Metrics;

/// The body of an answer.
pub(super) enum Said {
    /// At hand.
    Text(Bytes),
    /// The same, with a head.
    Preset(String, Bytes),
    /// As it comes.
    Fed(mpsc::UnboundedReceiver<Result<Frame<Bytes>, BoxError>>),
}

impl http_body::Body for Said {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.get_mut() {
            Self::Text(text) | Self::Preset(_, text) if text.is_empty() => Poll::Ready(None),
            Self::Text(text) | Self::Preset(_, text) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(text))))),
            Self::Fed(fed) => fed.poll_recv(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Text(text) | Self::Preset(_, text) if text.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Text(text) | Self::Preset(_, text) => SizeHint::with_exact(text.len() as u64),
            Self::Fed(_) => SizeHint::default(),
        }
    }
}

impl Preset for Said {
    fn preset(&mut self, head: &mut BytesMut) -> bool {
        let Self::Preset(text, _) = self else { return false };
        head.extend_from_slice(text.as_bytes());
        true
    }

    fn whole(&mut self, most: usize) -> Option<&[u8]> {
        match self {
            Self::Text(text) | Self::Preset(_, text) => Some(&**text).filter(|text| text.len() <= most),
            Self::Fed(_) => None,
        }
    }

    fn beside(&mut self, _: &mut BytesMut) {}
}

/// A path that is answered at once, by a body that brings its head and is as long as the query says.
pub(super) const STORED: &str = "/stored";

pub(super) type Answering = Pin<Box<dyn Future<Output = Result<Response<Said>, Infallible>> + Send>>;

#[derive(Clone)]
pub(super) struct Handler(Arc<dyn Fn(Request<Body>) -> Answering + Send + Sync>);

impl Handler {
    pub(super) fn new<F>(handle: impl Fn(Request<Body>) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Response<Said>> + Send + 'static,
    {
        Self(Arc::new(move |request| {
            let answer = handle(request);
            Box::pin(async move { Ok(answer.await) })
        }))
    }
}

impl Service<Request<Incoming>> for Handler {
    type Response = Response<Said>;
    type Error = Infallible;
    type Future = Answering;

    fn call(&self, _: Request<Incoming>) -> Answering {
        unreachable!("no HTTP/2 here")
    }
}

impl Answer for Handler {
    type Body = Said;

    fn answer(&self, head: Parts, body: Body) -> Answered<Said, Answering> {
        if head.uri.path() == STORED {
            let text = Bytes::from("x".repeat(head.uri.query().unwrap().parse().unwrap()));
            let head = format!("HTTP/1.1 299 Set\r\ndate: then\r\ncontent-length: {}\r\n", text.len());
            return Answered::Preset(Said::Preset(head, text));
        }
        Answered::Later((self.0)(Request::from_parts(head, body)))
    }
}

/// A connection that is served.
pub(super) struct Rig {
    pub(super) client: DuplexStream,
    pub(super) served: JoinHandle<Result<(), String>>,
    pub(super) drain: Drain,
    pub(super) metrics: Metrics,
}

impl Rig {
    pub(super) fn new(handler: Handler) -> Self {
        Self::with_pipe(64 * 1024, handler)
    }

    pub(super) fn with_pipe(size: usize, handler: Handler) -> Self {
        let (client, stream) = tokio::io::duplex(size);
        let (drain, metrics) = (Drain::default(), Metrics::new(1));
        let refuse = |_, reason: crate::refusal::Reason| {
            Response::builder().status(reason.status()).body(Bytes::from(reason.code())).unwrap()
        };
        let server = Server {
            tls: None,
            limits: ListenLimits::default(),
            worker: 0,
            open: Arc::new(AtomicUsize::new(0)),
            callers: Arc::new(Callers::default()),
            drain: drain.clone(),
            meter: metrics.listener("test"),
            metrics: metrics.clone(),
            refuse: Arc::new(refuse),
            date: Date::new(Clock::anchored(std::time::SystemTime::UNIX_EPOCH)),
        };
        let peer = Peer { address: SocketAddr::from(([127, 0, 0, 1], 1)), tls: false };
        let mut open = drain.open();
        let served = tokio::spawn(async move {
            let served = serve(&server, peer, (stream, BytesMut::new()), handler, &mut open).await;
            served.map_err(|error| error.to_string())
        });
        Self { client, served, drain, metrics }
    }

    pub(super) async fn send(&mut self, text: impl AsRef<[u8]>) {
        // What is refused is not read to its end.
        let _ = self.client.write_all(text.as_ref()).await;
    }

    /// Reads until `end` comes.
    pub(super) async fn read_to(&mut self, end: &str) -> String {
        let mut text = Vec::new();
        while !text.ends_with(end.as_bytes()) {
            text.push(self.client.read_u8().await.unwrap_or_else(|_| panic!("no {end:?} in {text:?}")));
        }
        String::from_utf8(text).unwrap()
    }

    /// Everything up to the end of the connection.
    pub(super) async fn rest(&mut self) -> String {
        let mut text = String::new();
        self.client.read_to_string(&mut text).await.unwrap();
        text
    }
}

pub(super) fn text(text: &'static str) -> Response<Said> {
    Response::new(Said::Text(text.into()))
}
