//! One endpoint as the trip sees it: a request goes in, a reply or a failure comes out. What failed, at which step, and
//! whether the request may be sent again, is decided here, where it is known.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Request, Response, header};

use super::body::{BoxError, ReplyBody, RequestBody};
use super::connect::{ConnectError, Connector};
use super::link::{Asking, Link, LinkBody, LinkError};
use super::pool::{Home, Pool};
use crate::metrics::UpstreamMeter;
use crate::outcome::{Failure, FailureKind, Stage};

/// The future of one attempt. It owns all it needs, so that it can go on when the client has left.
pub type Sending = Pin<Box<dyn Future<Output = Result<Response<ReplyBody>, OriginError>> + Send>>;

/// Something that answers requests: an endpoint reached over HTTP, or an embedding program's own.
pub trait Origin: Send + Sync + 'static {
    /// Sends one request.
    fn send(self: Arc<Self>, request: Request<RequestBody>, call: Call) -> Sending;

    /// Sends one that nobody has changed, if that can begin at once.
    ///
    /// # Errors
    /// The body: it must be [sent](Self::send).
    fn relay(self: Arc<Self>, head: Relayed<'_>, body: RequestBody, call: Call) -> Result<Sending, RequestBody> {
        let _ = (head, call);
        Err(body)
    }
}

/// The head of a request as its client sent it, with what stands beside its fields. Nothing of it is copied before it is
/// written.
#[derive(Clone, Copy)]
pub struct Relayed<'a> {
    /// Its method.
    pub method: &'a Method,
    /// Its path and query.
    pub target: &'a PathAndQuery,
    /// The Host to be asked for.
    pub host: &'a HeaderValue,
    /// Its fields. Of those of the client's connection there are only `Connection` and `Keep-Alive`, which nominate none,
    /// and what frames the body.
    pub headers: &'a HeaderMap,
    /// Appends the fields that the proxy adds, each ended by CRLF.
    pub beside: &'a dyn Fn(&mut Vec<u8>),
}

impl std::fmt::Debug for Relayed<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.method, self.target)
    }
}

/// How a request is to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    /// The event loop it runs on.
    pub worker: usize,
    /// Not over a connection from the pool: the last one turned out to be closed, and the others are as old.
    pub fresh: bool,
}

/// An attempt without a reply.
#[derive(Debug, thiserror::Error)]
#[error("{:?} while {:?}", failure.kind, failure.stage)]
pub struct OriginError {
    /// What happened, and what may follow from it.
    pub failure: Failure,
    /// The cause.
    pub source: Option<BoxError>,
}

impl OriginError {
    /// The caller waits no longer.
    pub const fn late() -> Self {
        let failure = Failure { kind: FailureKind::DeadlinePassed, stage: Stage::Head, sent: true, reused: false };
        Self { failure, source: None }
    }
}

/// An endpoint reached over HTTP/1.1.
#[derive(Debug)]
pub struct HttpOrigin {
    connector: Connector,
    connect_timeout: Duration,
    pool: Arc<Pool>,
    meter: Arc<UpstreamMeter>,
}

impl HttpOrigin {
    /// Reaches its endpoint by `connector` within `connect_timeout` (name, TCP and TLS together).
    pub fn new(connector: Connector, connect_timeout: Duration, pool: Arc<Pool>, meter: Arc<UpstreamMeter>) -> Self {
        Self { connector, connect_timeout, pool, meter }
    }

    /// Its idle connections.
    pub fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    /// What is rare is boxed: this future is made and moved for every attempt.
    async fn exchange(
        self: Arc<Self>,
        request: Request<RequestBody>,
        call: Call,
    ) -> Result<Response<ReplyBody>, OriginError> {
        let worker = call.worker;
        let may_switch = request.headers().contains_key(header::UPGRADE);
        // A switch takes a connection for good: not one that others would use.
        let fresh = call.fresh || may_switch;
        loop {
            let pooled = if fresh { None } else { self.pool.checkout(worker) };
            let reused = pooled.is_some();
            let mut link = match pooled {
                Some(link) => link,
                None => {
                    self.meter.connection(worker, false);
                    Box::pin(self.open()).await?
                }
            };
            if !link.is_quiet() {
                // The pooled connection had been closed: not a failure of the endpoint yet.
                if reused {
                    continue;
                }
                return Err(broken(LinkError::Stale, reused));
            }
            let (parts, body) = request.into_parts();
            link.begin(Asking::Whole(&parts), body, may_switch);
            drop(parts);
            return self.answer(link, reused, worker).await;
        }
    }

    /// Sends what the link has begun with, and waits for the head of the answer.
    async fn answer(
        self: Arc<Self>,
        mut link: Box<Link>,
        reused: bool,
        worker: usize,
    ) -> Result<Response<ReplyBody>, OriginError> {
        if reused {
            self.meter.connection(worker, true);
        }
        let answer = std::future::poll_fn(|cx| link.poll_answer(cx)).await.map_err(|error| broken(error, reused))?;
        let home = Home::new(Arc::clone(&self.pool), worker);
        Ok(answer.map(|()| ReplyBody::Link(LinkBody::new(link, home))))
    }

    async fn open(&self) -> Result<Box<Link>, OriginError> {
        let failure = |kind, stage| Failure { kind, stage, sent: false, reused: false };
        let connecting = tokio::time::timeout(self.connect_timeout, self.connector.connect());
        let stream = match connecting.await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                let failure = match &error {
                    ConnectError::Resolve { .. } => failure(FailureKind::Unreachable, Stage::Connect),
                    ConnectError::Connect { source, .. } if source.kind() == io::ErrorKind::ConnectionRefused => {
                        failure(FailureKind::Refused, Stage::Connect)
                    }
                    ConnectError::Connect { .. } => failure(FailureKind::Unreachable, Stage::Connect),
                    ConnectError::Tls(_) => failure(FailureKind::Tls, Stage::Tls),
                };
                return Err(OriginError { failure, source: Some(error.into()) });
            }
            Err(late) => {
                let failure = failure(FailureKind::ConnectTimeout, Stage::Connect);
                return Err(OriginError { failure, source: Some(late.into()) });
            }
        };
        Ok(Link::new(stream))
    }
}

impl Origin for HttpOrigin {
    fn send(self: Arc<Self>, request: Request<RequestBody>, call: Call) -> Sending {
        Box::pin(self.exchange(request, call))
    }

    /// Over a connection that rests, if there is one: then all that waits for the answer is small.
    fn relay(self: Arc<Self>, head: Relayed<'_>, body: RequestBody, call: Call) -> Result<Sending, RequestBody> {
        if call.fresh {
            return Err(body);
        }
        while let Some(mut link) = self.pool.checkout(call.worker) {
            if link.is_quiet() {
                link.begin(Asking::Relayed(head), body, false);
                return Ok(Box::pin(self.answer(link, true, call.worker)));
            }
        }
        Err(body)
    }
}

/// Why no head came over a link.
fn broken(error: LinkError, reused: bool) -> OriginError {
    let (kind, stage) = match &error {
        LinkError::Request(_) | LinkError::RequestTooShort => (FailureKind::RequestBody, Stage::Send),
        LinkError::Answer(_) | LinkError::Body(_) => (FailureKind::Protocol, Stage::Head),
        LinkError::Broken(cause) if !reused && is_about_tls(cause) => (FailureKind::Tls, Stage::Head),
        LinkError::Broken(_) | LinkError::Closed | LinkError::Stale => (FailureKind::Reset, Stage::Head),
    };
    let sent = !matches!(error, LinkError::Stale);
    OriginError { failure: Failure { kind, stage, sent, reused }, source: Some(error.into()) }
}

/// Whether TLS broke rather than the connection: with TLS 1.3 a server judges our certificate after the client's part of
/// the handshake, and its alert comes where the answer should (RFC 8446 section 4.4.2.4).
fn is_about_tls(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>())
}
