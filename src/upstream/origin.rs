//! One endpoint as the trip sees it: a request goes in, a reply or a failure comes out. What failed, at which step, and
//! whether the request may be sent again, is decided here, where it is known.

use std::error::Error as _;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::header::{self, HeaderMap};
use http::{Request, Response, StatusCode, Version};
use hyper::client::conn::http1;

use super::body::{BoxError, Progress, ReplyBody, RequestBody, Source};
use super::connect::{ConnectError, Connector};
use super::link::{Link, LinkBody, LinkError};
use super::pool::{Home, Pool};
use crate::metrics::UpstreamMeter;
use crate::outcome::{Failure, FailureKind, Stage};

/// The future of one attempt. It owns all it needs, so that it can go on when the client has left.
pub type Sending = Pin<Box<dyn Future<Output = Result<Response<ReplyBody>, OriginError>> + Send>>;

/// Something that answers requests: an endpoint reached over HTTP, or an embedding program's own.
pub trait Origin: Send + Sync + 'static {
    /// Sends one request.
    fn send(self: Arc<Self>, request: Request<RequestBody>, call: Call) -> Sending;
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
    builder: http1::Builder,
    connect_timeout: Duration,
    pool: Arc<Pool>,
    meter: Arc<UpstreamMeter>,
}

impl HttpOrigin {
    /// Reaches its endpoint by `connector` within `connect_timeout` (name, TCP and TLS together).
    pub fn new(connector: Connector, connect_timeout: Duration, pool: Arc<Pool>, meter: Arc<UpstreamMeter>) -> Self {
        let mut builder = http1::Builder::new();
        builder.max_buf_size(READ_BUFFER);
        Self { connector, builder, connect_timeout, pool, meter }
    }

    /// Its idle connections.
    pub fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    /// What is rare is boxed: this future is made and moved for every attempt.
    async fn exchange(
        self: Arc<Self>,
        mut request: Request<RequestBody>,
        call: Call,
    ) -> Result<Response<ReplyBody>, OriginError> {
        let worker = call.worker;
        if request.headers().contains_key(header::UPGRADE) {
            return Box::pin(self.exchange_upgrading(request, worker)).await;
        }
        let source = match request.body() {
            RequestBody::Shared { source, .. } => Some(Arc::clone(source)),
            RequestBody::Empty | RequestBody::Full(_) => None,
        };
        loop {
            let pooled = if call.fresh { None } else { self.pool.checkout(worker) };
            let reused = pooled.is_some();
            let mut link = match pooled {
                Some(link) => link,
                None => {
                    self.meter.connection(worker, false);
                    Box::pin(self.open()).await?
                }
            };
            let replied = match link.exchange(request).await {
                // The pooled connection had been closed and nothing was sent: not a failure of the endpoint yet.
                Err(LinkError { unsent: Some(unsent), .. }) if reused => {
                    request = *unsent;
                    continue;
                }
                replied => replied,
            };
            if reused {
                self.meter.connection(worker, true);
            }
            let response = replied.map_err(|error| broken(error, source.as_deref(), reused))?;
            let (parts, incoming) = response.into_parts();
            check_head(parts.status, parts.version, &parts.headers, false).map_err(protocol(reused))?;
            let home = Home::new(Arc::clone(&self.pool), worker);
            let body = LinkBody::new(incoming, link, home, source);
            return Ok(Response::from_parts(parts, ReplyBody::Link(body)));
        }
    }

    /// A protocol switch takes a connection of its own, never back to the pool.
    async fn exchange_upgrading(
        self: Arc<Self>,
        request: Request<RequestBody>,
        worker: usize,
    ) -> Result<Response<ReplyBody>, OriginError> {
        self.meter.connection(worker, false);
        let link = self.open().await?;
        let response = link
            .exchange_upgrading(request)
            .await
            .map_err(|source| broken(LinkError { source, unsent: None }, None, false))?;
        check_head(response.status(), response.version(), response.headers(), true).map_err(protocol(false))?;
        Ok(response.map(|incoming| ReplyBody::Link(LinkBody::detached(incoming))))
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
        Link::open(stream, &self.builder).await.map_err(|error| OriginError {
            failure: failure(FailureKind::Reset, Stage::Connect),
            source: Some(error.into()),
        })
    }
}

impl Origin for HttpOrigin {
    fn send(self: Arc<Self>, request: Request<RequestBody>, call: Call) -> Sending {
        Box::pin(self.exchange(request, call))
    }
}

/// Why no head came over a link.
fn broken(error: LinkError, request: Option<&Source>, reused: bool) -> OriginError {
    let hyper = &error.source;
    let client_broke = request.is_some_and(|body| matches!(body.progress(), Progress::Broken | Progress::TooLarge));
    let (kind, stage) = if client_broke || hyper.is_user() {
        (FailureKind::RequestBody, Stage::Send)
    } else if hyper.is_parse() || hyper.is_parse_too_large() {
        (FailureKind::Protocol, Stage::Head)
    } else if !reused && is_about_tls(hyper) {
        (FailureKind::Tls, Stage::Head)
    } else {
        (FailureKind::Reset, Stage::Head)
    };
    let sent = error.unsent.is_none();
    OriginError { failure: Failure { kind, stage, sent, reused }, source: Some(error.source.into()) }
}

/// Whether TLS broke rather than the connection: with TLS 1.3 a server judges our certificate after the client's part of
/// the handshake, and its alert comes where the answer should (RFC 8446 section 4.4.2.4).
fn is_about_tls(error: &hyper::Error) -> bool {
    let mut causes = std::iter::successors(error.source(), |&cause| cause.source());
    causes.any(|cause| {
        let inner = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        inner.is_some_and(|inner| inner.is::<rustls::Error>())
    })
}

fn protocol(reused: bool) -> impl Fn(&'static str) -> OriginError {
    move |what| OriginError {
        failure: Failure { kind: FailureKind::Protocol, stage: Stage::Head, sent: true, reused },
        source: Some(what.into()),
    }
}

/// What hyper takes as it is and a proxy must not pass on.
fn check_head(status: StatusCode, version: Version, headers: &HeaderMap, upgrading: bool) -> Result<(), &'static str> {
    let asked_for = upgrading && status == StatusCode::SWITCHING_PROTOCOLS;
    if !asked_for && !(200..=599).contains(&status.as_u16()) {
        return Err("a status that was not asked for or does not exist");
    }
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    if let Some(coding) = codings.next() {
        if codings.next().is_some()
            || !coding.as_bytes().eq_ignore_ascii_case(b"chunked")
            || version == Version::HTTP_10
        {
            return Err("a transfer coding other than chunked");
        }
        if headers.contains_key(header::CONTENT_LENGTH) {
            return Err("Content-Length beside Transfer-Encoding");
        }
    }
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    if let Some(length) = lengths.next()
        && (lengths.next().is_some() || length.is_empty() || !length.as_bytes().iter().all(u8::is_ascii_digit))
    {
        return Err("an ambiguous Content-Length");
    }
    Ok(())
}

/// Bytes hyper may buffer of one reply: enough for large heads, and large reads for large bodies.
const READ_BUFFER: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn ambiguous_replies_are_not_passed_on() {
        let check = |status: u16, upgrading: bool, fields: &[(&'static str, &'static str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in fields {
                headers.append(*name, HeaderValue::from_static(value));
            }
            check_head(StatusCode::from_u16(status).unwrap(), Version::HTTP_11, &headers, upgrading).is_ok()
        };
        for (fits, status, upgrading, fields) in [
            (true, 200, false, &[("content-length", "2")][..]),
            (true, 200, false, &[("transfer-encoding", "Chunked")]),
            (true, 101, true, &[]),
            (false, 101, false, &[]),
            (false, 999, false, &[]),
            (false, 200, false, &[("content-length", "2, 2")]),
            (false, 200, false, &[("content-length", "2"), ("content-length", "2")]),
            (false, 200, false, &[("content-length", "+2")]),
            (false, 200, false, &[("content-length", "")]),
            (false, 200, false, &[("transfer-encoding", "gzip")]),
            (false, 200, false, &[("transfer-encoding", "gzip, chunked")]),
            (false, 200, false, &[("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")]),
            (false, 200, false, &[("transfer-encoding", "chunked"), ("content-length", "2")]),
        ] {
            assert_eq!(check(status, upgrading, fields), fits, "{status} {fields:?}");
        }
    }
}
