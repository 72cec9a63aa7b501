//! Active health probes: ask an endpoint now and then whether it is there, whether or not requests come.
//!
//! [`run`] is the loop, [`check`] one probe. Verdicts go to [`Ejection::probed`](super::health::Ejection::probed),
//! which knows rise and fall. A probe goes around slots, queue, breaker and balancer: it is no request of anybody. It
//! takes a connection of its own and closes it, so that a server which serves one connection after the other is not
//! blocked by it.
//!
//! A path to probe should be cheap and need no logon: on systems of the SAP kind each logon is a session, and a probe
//! every five seconds fills the table of sessions.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use crate::outcome::classify_status;

/// How an endpoint is probed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeParams {
    /// The path to GET; `None`: a TCP connect (and TLS handshake, if the endpoint speaks it) is enough.
    pub path: Option<String>,
    /// The time between two probes.
    pub every: Duration,
    /// How long one probe may take.
    pub timeout: Duration,
    /// Good probes in a row that bring an endpoint back.
    pub rise: u32,
    /// Bad probes in a row that take an endpoint out.
    pub fall: u32,
}

impl Default for ProbeParams {
    /// An endpoint that dies is noticed after 10 to 17 s.
    fn default() -> Self {
        Self { path: None, every: Duration::from_secs(5), timeout: Duration::from_secs(2), rise: 2, fall: 3 }
    }
}

/// Probes one endpoint for ever; ended by dropping it.
///
/// Waits `first` (drawn by the caller, so that the endpoints are not all probed in step), then makes one `probe` every
/// [`ProbeParams::every`], never two at a time. `learn` is told how each went; one that takes longer than
/// [`ProbeParams::timeout`] failed.
pub async fn run<F>(
    params: &ProbeParams,
    first: Duration,
    mut probe: impl FnMut() -> F,
    mut learn: impl FnMut(io::Result<()>),
) where
    F: Future<Output = io::Result<()>>,
{
    sleep(first).await;
    let mut ticks = interval(params.every.max(Duration::from_millis(1)));
    // After a slow probe the endpoint is left in peace for the whole interval.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        learn(timeout(params.timeout, probe()).await.unwrap_or_else(|elapsed| Err(elapsed.into())));
    }
}

/// One probe: opens a connection by `connect` and, if there is a `path`, asks for it under the name `authority`.
///
/// # Errors
/// No connection, no answer, or one that is not a success of the backend (see [`classify_status`]: a 401 or 404 shows
/// that it works, a 503 asks to be left alone).
pub async fn check<S>(
    connect: impl Future<Output = io::Result<S>>,
    authority: &str,
    path: Option<&str>,
) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let stream = connect.await?;
    let Some(path) = path else { return Ok(()) };
    let status = ask(stream, authority, path).await?;
    if classify_status(status).is_success() { Ok(()) } else { Err(io::Error::other(format!("answered {status}"))) }
}

/// Sends one GET over HTTP/1.1 and reads the head of the answer; the rest is dropped with the connection.
async fn ask<S>(stream: S, authority: &str, path: &str) -> io::Result<StatusCode>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let request = Request::get(path)
        .header(header::HOST, authority)
        .header(header::USER_AGENT, USER_AGENT)
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(io::Error::other)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    let answer = sender.send_request(request);
    // The connection does its work only while it is polled. It may end, well, before the answer is looked at.
    let answer = tokio::select! {
        biased;
        answer = answer => answer,
        Err(failure) = connection => Err(failure),
    };
    Ok(answer.map_err(io::Error::other)?.status())
}

/// So that an operator of the backend can tell probes from requests.
const USER_AGENT: &str = "vaxel-probe";

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;
    use crate::clock::Clock;
    use crate::upstream::health::{Ejection, EjectionParams, Turn};

    const MILLIS: fn(u64) -> Duration = Duration::from_millis;

    /// Runs the loop for `length` with probes that take `takes`; when each was begun and whether it was good.
    async fn watch(params: &ProbeParams, first: u64, takes: u64, length: u64) -> (Vec<u128>, Vec<bool>) {
        let clock = Clock::system();
        let start = clock.now();
        let (begun, verdicts) = (RefCell::new(Vec::new()), RefCell::new(Vec::new()));
        let probe = || {
            begun.borrow_mut().push((clock.now() - start).as_millis());
            async move {
                sleep(MILLIS(takes)).await;
                Ok(())
            }
        };
        let learn = |verdict: io::Result<()>| verdicts.borrow_mut().push(verdict.is_ok());
        let ended = timeout(MILLIS(length), run(params, MILLIS(first), probe, learn)).await;
        assert!(ended.is_err(), "it runs for ever");
        (begun.into_inner(), verdicts.into_inner())
    }

    #[tokio::test(start_paused = true)]
    async fn probes_come_at_their_interval_and_begin_apart() {
        let (begun, verdicts) = watch(&ProbeParams::default(), 1_300, 10, 12_000).await;
        assert_eq!(begun, [1_300, 6_300, 11_300]);
        assert_eq!(verdicts, [true, true, true]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_that_takes_too_long_is_bad() {
        for (takes, expected) in [(1_999, true), (2_001, false), (1_000_000, false)] {
            let (_, verdicts) = watch(&ProbeParams::default(), 0, takes, 2_500).await;
            assert_eq!(verdicts, [expected], "{takes} ms");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn slow_probes_never_overlap_nor_catch_up() {
        let params = ProbeParams { every: MILLIS(1_000), timeout: MILLIS(2_500), ..ProbeParams::default() };
        let (begun, _) = watch(&params, 0, 2_200, 7_000).await;
        assert_eq!(begun, [0, 2_200, 4_400, 6_600]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_endpoint_goes_down_and_comes_back_by_its_probes() {
        let params = ProbeParams::default();
        let clock = Clock::system();
        let start = clock.now();
        let mut health = Ejection::new(EjectionParams::default(), 2);
        let (asked, mut turns) = (Cell::new(0), Vec::new());
        let probe = || {
            asked.set(asked.get() + 1);
            let good = !(2..=5).contains(&asked.get());
            async move { if good { Ok(()) } else { Err(io::ErrorKind::ConnectionRefused.into()) } }
        };
        let learn = |verdict: io::Result<()>| {
            if let Some(turn) = health.probed(1, verdict.is_ok(), params.rise, params.fall, clock.now()) {
                turns.push(((clock.now() - start).as_secs(), turn));
            }
        };
        let _ended = timeout(MILLIS(60_000), run(&params, Duration::ZERO, probe, learn)).await;
        assert_eq!(turns, [(15, Turn::Down), (30, Turn::Up)]);
    }

    /// The verdict on an endpoint that answers with these bytes and closes.
    async fn answered(bytes: &'static [u8]) -> Result<(), String> {
        let (ours, mut theirs) = duplex(4096);
        let backend = async move {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(theirs.read_u8().await.unwrap());
            }
            theirs.write_all(bytes).await.unwrap();
            String::from_utf8(head).unwrap().to_lowercase()
        };
        let connect = async { Ok(ours) };
        let (verdict, head) = tokio::join!(check(connect, "erp.example:8000", Some("/ping?x=1")), backend);
        assert!(head.starts_with("get /ping?x=1 http/1.1\r\n"), "{head}");
        for field in ["host: erp.example:8000", "user-agent: vaxel-probe", "connection: close"] {
            assert!(head.contains(field), "{field} is missing in {head}");
        }
        verdict.map_err(|failure| failure.to_string())
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_shows_a_working_backend_is_good() {
        let table: [(&[u8], bool); 9] = [
            (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", true),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\npart", true),
            (b"HTTP/1.0 204 No Content\r\n\r\n", true),
            (b"HTTP/1.1 302 Found\r\nLocation: /logon\r\nContent-Length: 0\r\n\r\n", true),
            (b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n", true),
            (b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n", false),
            (b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n", false),
            (b"220 mail.example ESMTP\r\n", false),
            (b"", false),
        ];
        for (bytes, expected) in table {
            let verdict = answered(bytes).await;
            assert_eq!(verdict.is_ok(), expected, "{verdict:?} on {}", bytes.escape_ascii());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_path_a_connection_is_enough() {
        let open = async { Ok(duplex(64).0) };
        assert!(check(open, "erp", None).await.is_ok());
        let refused = async { Err::<tokio::io::DuplexStream, _>(io::ErrorKind::ConnectionRefused.into()) };
        assert_eq!(check(refused, "erp", None).await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }

    #[tokio::test(start_paused = true)]
    async fn a_path_that_cannot_be_asked_for_is_a_bad_probe_and_no_panic() {
        let open = async { Ok(duplex(64).0) };
        assert!(check(open, "erp", Some("/a path")).await.is_err());
    }

    #[test]
    fn the_loop_may_run_on_any_thread() {
        fn is_send(_: &impl Send) {}
        let params = ProbeParams::default();
        let probe = || check(async { Ok(duplex(64).0) }, "erp", Some("/ping"));
        is_send(&run(&params, Duration::ZERO, probe, |_| {}));
    }
}
