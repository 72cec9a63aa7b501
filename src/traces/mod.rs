//! Traces of requests by OTLP, if somebody wants them: spans go into a bounded queue and from there, in batches, to a
//! collector. No request ever waits for it; what finds no place is dropped and counted, and a collector that is away
//! costs its spans and nothing else.
//!
//! ```text
//! workers ──try_send──► queue (bounded) ──► exporter, on the control runtime ──POST /v1/traces──► collector
//! ```

pub mod wire;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use prost::Message as _;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use wire::{Export, KeyValue, Resource, ResourceSpans, Scope, ScopeSpans, Span};

/// Where traces go, and of which requests.
#[derive(Debug, Clone, PartialEq)]
pub struct TraceParams {
    /// The collector: `http://HOST:PORT`, perhaps with a path in place of `/v1/traces`.
    pub otlp: Uri,
    /// The share of the requests without a parent that are traced; those with one go by its flag.
    pub sample: f64,
    /// `service.name`.
    pub service: String,
}

/// Takes spans. Cheap to clone; all clones lead to one exporter.
#[derive(Debug, Clone)]
pub struct Tracer {
    sender: mpsc::Sender<Vec<Span>>,
    counts: Arc<Counts>,
    /// A drawn number below this is in the sample.
    threshold: u64,
}

/// Sends what tracers take. To be [run](Self::run) somewhere.
#[derive(Debug)]
#[must_use = "nothing is sent unless it runs"]
pub struct Exporter {
    params: TraceParams,
    receiver: mpsc::Receiver<Vec<Span>>,
    counts: Arc<Counts>,
    connection: Option<Connection>,
    failing: bool,
}

/// What became of spans, since the start.
#[derive(Debug, Default)]
pub struct Counts {
    sent: AtomicU64,
    dropped: AtomicU64,
    failed: AtomicU64,
}

impl Counts {
    /// Taken by the collector, dropped for want of room, and not taken by the collector: in the order of
    /// [`SPAN_RESULTS`](crate::metrics::names::SPAN_RESULTS).
    pub fn read(&self) -> [u64; 3] {
        [&self.sent, &self.dropped, &self.failed].map(|count| count.load(Ordering::Relaxed))
    }
}

impl Tracer {
    /// A tracer and what sends for it.
    pub fn new(params: TraceParams) -> (Self, Exporter) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let counts = Arc::<Counts>::default();
        // The float is exact for 0 and 1, and near enough between.
        let threshold = (params.sample.clamp(0.0, 1.0) * u64::MAX as f64) as u64;
        let tracer = Self { sender, counts: Arc::clone(&counts), threshold };
        (tracer, Exporter { params, receiver, counts, connection: None, failing: false })
    }

    /// Whether a request without a parent is traced; `drawn` is a drawn number.
    pub const fn samples(&self, drawn: u64) -> bool {
        drawn <= self.threshold && self.threshold > 0
    }

    /// Takes the spans of a request; drops them if there is no room.
    pub fn send(&self, spans: Vec<Span>) {
        let count = spans.len() as u64;
        if self.sender.try_send(spans).is_err() {
            self.counts.dropped.fetch_add(count, Ordering::Relaxed);
        }
    }

    /// What became of spans.
    pub fn counts(&self) -> Arc<Counts> {
        Arc::clone(&self.counts)
    }
}

/// An open connection to the collector.
#[derive(Debug)]
struct Connection {
    sender: http1::SendRequest<Full<Bytes>>,
    driver: tokio::task::JoinHandle<Result<(), hyper::Error>>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// What became of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sent {
    Taken,
    /// Not now (OTLP 1.x, "OTLP/HTTP Response": 429, 502, 503 and 504 may be tried again; so may a lost connection).
    Later,
    Never,
}

impl Exporter {
    /// Sends until all tracers are gone.
    pub async fn run(mut self) {
        while let Some(first) = self.receiver.recv().await {
            let mut spans = first;
            // What comes within a moment goes along.
            let gather = async {
                while spans.len() < BATCH
                    && let Some(more) = self.receiver.recv().await
                {
                    spans.extend(more);
                }
            };
            let _ = timeout(PAUSE, gather).await;
            self.deliver(spans).await;
        }
    }

    async fn deliver(&mut self, spans: Vec<Span>) {
        let count = spans.len() as u64;
        let body = Bytes::from(self.export(spans).encode_to_vec());
        let mut wait = BACKOFF;
        for left in (0..TRIES).rev() {
            let sent = timeout(PATIENCE, self.post(body.clone())).await.unwrap_or(Sent::Later);
            if sent == Sent::Taken {
                self.counts.sent.fetch_add(count, Ordering::Relaxed);
                if std::mem::take(&mut self.failing) {
                    tracing::info!("the collector takes traces again");
                }
                return;
            }
            self.connection = None;
            if sent == Sent::Never || left == 0 {
                break;
            }
            sleep(wait).await;
            wait *= 2;
        }
        self.counts.failed.fetch_add(count, Ordering::Relaxed);
        if !std::mem::replace(&mut self.failing, true) {
            tracing::warn!(otlp = %self.params.otlp, "the collector does not take traces; they are lost until it does");
        }
    }

    fn export(&self, spans: Vec<Span>) -> Export {
        let attributes = vec![
            KeyValue::new("service.name", self.params.service.as_str()),
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        ];
        let scope = Scope { name: "vaxel".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() };
        let scope_spans = vec![ScopeSpans { scope: Some(scope), spans }];
        Export { resource_spans: vec![ResourceSpans { resource: Some(Resource { attributes }), scope_spans }] }
    }

    async fn post(&mut self, body: Bytes) -> Sent {
        let Some(authority) = self.params.otlp.authority().cloned() else { return Sent::Never };
        let open = self.connection.take().filter(|connection| !connection.sender.is_closed());
        let mut connection = match open {
            Some(connection) => connection,
            None => match connect(authority.host(), authority.port_u16().unwrap_or(PORT)).await {
                Some(connection) => connection,
                None => return Sent::Later,
            },
        };
        let path = match self.params.otlp.path() {
            "" | "/" => "/v1/traces",
            path => path,
        };
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        let (Ok(uri), Ok(host)) = (path.parse(), HeaderValue::from_str(authority.as_str())) else { return Sent::Never };
        *request.uri_mut() = uri;
        request.headers_mut().insert(header::HOST, host);
        request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        let Ok(response) = connection.sender.send_request(request).await else { return Sent::Later };
        let status = response.status();
        // Read to the end, so that the connection can be used again; what it says (a partial success) is not needed.
        if Limited::new(response.into_body(), ANSWER).collect().await.is_ok() {
            self.connection = Some(connection);
        }
        match status {
            status if status.is_success() => Sent::Taken,
            StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT => Sent::Later,
            _ => Sent::Never,
        }
    }
}

async fn connect(host: &str, port: u16) -> Option<Connection> {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let stream = TcpStream::connect((host, port)).await.ok()?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.ok()?;
    Some(Connection { sender, driver: tokio::spawn(connection) })
}

/// Requests whose spans may wait to be sent: some megabytes.
const QUEUE: usize = 2048;
/// Spans in one message, as in the batch processor of the OpenTelemetry SDKs.
const BATCH: usize = 512;
/// How long the first span of a batch waits for others.
const PAUSE: Duration = Duration::from_secs(1);
/// How long the collector may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often a batch is tried.
const TRIES: u32 = 4;
/// Before the second try; twice as long before each further one.
const BACKOFF: Duration = Duration::from_secs(1);
/// Of OTLP over HTTP.
const PORT: u16 = 4318;
/// Bytes of an answer that are read.
const ANSWER: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn tracer(sample: f64) -> Tracer {
        Tracer::new(TraceParams { otlp: Uri::from_static("http://127.0.0.1:1"), sample, service: "x".into() }).0
    }

    #[test]
    fn a_share_of_the_drawn_numbers_is_sampled() {
        for (sample, expected) in [(0.0, 0), (0.25, 250), (1.0, 1_000)] {
            let tracer = tracer(sample);
            let sampled = (0..1_000_u64).filter(|number| tracer.samples(number * (u64::MAX / 999))).count();
            assert!(sampled.abs_diff(expected) <= 1, "{sample}: {sampled}");
        }
    }

    #[test]
    fn what_finds_no_place_is_dropped_and_counted() {
        let (tracer, _exporter) =
            Tracer::new(TraceParams { otlp: Uri::from_static("http://127.0.0.1:1"), sample: 1.0, service: "x".into() });
        for _ in 0..QUEUE + 3 {
            tracer.send(vec![Span::default(); 2]);
        }
        assert_eq!(tracer.counts().read(), [0, 6, 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_collector_that_is_away_costs_its_spans_alone() {
        // Nobody listens on a port that was just given back.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let otlp = format!("http://127.0.0.1:{port}").parse().unwrap();
        let (tracer, exporter) = Tracer::new(TraceParams { otlp, sample: 1.0, service: "x".into() });
        tracer.send(vec![Span::default(); 3]);
        let counts = tracer.counts();
        drop(tracer);
        exporter.run().await;
        assert_eq!(counts.read(), [0, 0, 3]);
    }
}
