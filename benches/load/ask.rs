//! A client that looks closely: before anything is measured, each proxy has to answer rightly, from where it should.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::{HeaderMap, Method, Request, StatusCode, Version};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::origin::{BODY_LENGTH, is_genuine};
use crate::row::{Protocol, Row};
use crate::site;

/// The client.
pub(crate) struct Asker {
    runtime: Runtime,
    trusted: RootCertStore,
}

struct Answer {
    status: StatusCode,
    version: Version,
    headers: HeaderMap,
    body: Bytes,
}

type Failure = Box<dyn Error + Send + Sync>;

impl Asker {
    /// Trusts `certificate` alone.
    pub(crate) fn new(certificate: &[u8]) -> Result<Self, Failure> {
        let mut trusted = RootCertStore::empty();
        trusted.add(CertificateDer::from(certificate.to_vec()))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Self { runtime, trusted })
    }

    /// Whether something accepts connections at `port`.
    pub(crate) fn is_open(&self, port: u16) -> bool {
        self.runtime.block_on(async { TcpStream::connect(("127.0.0.1", port)).await.is_ok() })
    }

    /// How many requests the origin has answered, this one not among them.
    pub(crate) fn count(&self, origin: u16) -> Result<u64, Failure> {
        let answer = self.ask(&COUNT, origin)?;
        // The line of totals is the only one made of three numbers: accepts, handled, requests.
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        let totals = text.lines().find_map(|line| {
            let numbers: Option<Vec<u64>> = line.split_ascii_whitespace().map(|word| word.parse().ok()).collect();
            numbers.filter(|numbers| numbers.len() == 3)?.pop()
        });
        Ok(totals.ok_or(text)? - 1)
    }

    /// Asks for `row` at `port` a few times; says what is wrong with the answers, or with who gave them.
    pub(crate) fn verify(&self, row: &Row, port: u16, origin: u16) -> Result<(), Failure> {
        if row.cached {
            self.ask(row, port)?;
        }
        let before = self.count(origin)?;
        for _ in 0..TIMES {
            let answer = self.ask(row, port)?;
            let version = if row.protocol == Protocol::H2 { Version::HTTP_2 } else { Version::HTTP_11 };
            if answer.status != StatusCode::OK {
                return Err(format!("answered {}: {}", answer.status, String::from_utf8_lossy(&answer.body)).into());
            }
            if answer.version != version {
                return Err(format!("answered in {:?}", answer.version).into());
            }
            if answer.body.len() != row.gets || !is_genuine(&answer.body) {
                return Err(format!("{} bytes, not the origin's {}", answer.body.len(), row.gets).into());
            }
            let passed_on = answer.headers.get(BODY_LENGTH).is_some_and(|length| *length == *row.sends.to_string());
            if row.sends > 0 && !passed_on {
                return Err("the origin did not get the body".into());
            }
        }
        // The first count is a request too, and comes after itself.
        let asked = self.count(origin)? - before - 1;
        match (row.cached, asked) {
            (true, 0) | (false, TIMES) => Ok(()),
            _ => Err(format!("asked the origin {asked} times for {TIMES} requests").into()),
        }
    }

    fn ask(&self, row: &Row, port: u16) -> Result<Answer, Failure> {
        let limit = Duration::from_secs(5);
        let asking = async { tokio::time::timeout(limit, self.exchange(row, port)).await };
        self.runtime.block_on(asking).map_err(|_| format!("no answer within {limit:?}"))?
    }

    async fn exchange(&self, row: &Row, port: u16) -> Result<Answer, Failure> {
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.set_nodelay(true)?;
        if !row.protocol.is_encrypted() {
            return over_http1(row, port, stream).await;
        }
        let mut config = ClientConfig::builder().with_root_certificates(self.trusted.clone()).with_no_client_auth();
        let protocol: &[u8] = if row.protocol == Protocol::H2 { b"h2" } else { b"http/1.1" };
        config.alpn_protocols = vec![protocol.to_vec()];
        let stream = TlsConnector::from(Arc::new(config)).connect(ServerName::try_from(site::NAME)?, stream).await?;
        match row.protocol {
            Protocol::H2 => over_http2(row, port, stream).await,
            Protocol::Plain | Protocol::Tls => over_http1(row, port, stream).await,
        }
    }
}

async fn over_http1<S>(row: &Row, port: u16, stream: S) -> Result<Answer, Failure>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = request(row, row.path.to_owned()).header(HOST, format!("127.0.0.1:{port}"));
    whole(sender.send_request(request.body(body(row))?).await?).await
}

async fn over_http2<S>(row: &Row, port: u16, stream: S) -> Result<Answer, Failure>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    // The authority wrk and h2load send too: it is part of the cache key.
    let request = request(row, format!("https://127.0.0.1:{port}{}", row.path));
    whole(sender.send_request(request.body(body(row))?).await?).await
}

fn request(row: &Row, target: String) -> http::request::Builder {
    let method = if row.sends > 0 { Method::POST } else { Method::GET };
    Request::builder().method(method).uri(target)
}

fn body(row: &Row) -> Full<Bytes> {
    Full::from(vec![b'x'; row.sends])
}

async fn whole(response: http::Response<Incoming>) -> Result<Answer, Failure> {
    let (head, body) = response.into_parts();
    let body = body.collect().await?.to_bytes();
    Ok(Answer { status: head.status, version: head.version, headers: head.headers, body })
}

/// Requests of one verification.
const TIMES: u64 = 4;

static COUNT: Row =
    Row { name: "", about: "", path: "/count", protocol: Protocol::Plain, sends: 0, gets: 0, cached: false };
