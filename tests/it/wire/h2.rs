//! HTTP/2 from the client, with prior knowledge and by ALPN, HTTP/1.1 to the origin.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, Version};
use http_body::Frame;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use vaxel::upstream::tls::{UpstreamTls, client_config};

use super::DEADLINE;
use super::origin::{Origin, ok};
use super::rig::Rig;
use super::upstream_tls::Certificates;

type Body = http_body_util::combinators::UnsyncBoxBody<Bytes, Infallible>;

async fn over(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> SendRequest<Body> {
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

async fn plain(rig: &Rig) -> SendRequest<Body> {
    over(TcpStream::connect(rig.address).await.unwrap()).await
}

fn request(method: &str, uri: &str, body: impl Into<Bytes>) -> Request<Body> {
    let request = Request::builder().method(method).uri(uri);
    request.body(Full::new(body.into()).boxed_unsync()).unwrap()
}

async fn text(response: Response<Incoming>) -> String {
    assert_eq!(response.version(), Version::HTTP_2);
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

#[test]
fn streams_of_one_connection_are_answered_each_for_itself() {
    let origin = Origin::answering(|request| ok(&format!("{} {}", request.start, request.text())));
    let rig = Rig::before(origin.address);
    rig.running().block_on(async {
        let mut sender = plain(&rig).await;
        let visits: Vec<_> = (0..50)
            .map(|number| sender.send_request(request("PUT", &format!("http://a/{number}"), format!("body {number}"))))
            .collect();
        for (number, visit) in visits.into_iter().enumerate() {
            let text = text(visit.await.unwrap()).await;
            assert_eq!(text, format!("PUT /{number} HTTP/1.1 body {number}"));
        }
    });
    rig.settles();
    assert!(!origin.heard().contains("HTTP/2"));
}

#[test]
fn a_connection_on_which_nothing_is_asked_any_more_is_closed_though_it_answers_pings() {
    let origin = Origin::answering(|_| ok("well"));
    let rig = Rig::with(origin.address, |settings| {
        for listener in &mut settings.listeners {
            listener.limits.idle_timeout = std::time::Duration::from_millis(200);
        }
    });
    rig.running().block_on(async {
        let stream = TcpStream::connect(rig.address).await.unwrap();
        let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        let connection = tokio::spawn(connection);
        let answer = sender.send_request(request("GET", "http://a/", "")).await.unwrap();
        assert_eq!(text(answer).await, "well");
        let ended = tokio::time::timeout(DEADLINE, connection).await.expect("it is closed").unwrap();
        assert!(ended.is_ok(), "in an orderly way: {ended:?}");
    });
    rig.settles();
}

#[test]
fn alpn_decides_between_the_protocols() {
    let certs = Certificates::make(&["localhost"]);
    let origin = Origin::answering(|_| ok("well"));
    let rig = Rig::with(origin.address, |settings| {
        settings.listeners.iter_mut().for_each(|listener| listener.tls = Some(certs.params(false)));
    });
    let trusting = UpstreamTls { ca: Some(certs.made.ca_cert), ..UpstreamTls::default() };
    let trusting = client_config(&trusting).unwrap();
    for (offered, chosen) in [(&["h2", "http/1.1"][..], "h2"), (&["http/1.1"], "http/1.1"), (&["h2"], "h2")] {
        let mut config = (*trusting).clone();
        config.alpn_protocols = offered.iter().map(|name| name.as_bytes().to_vec()).collect();
        rig.running().block_on(async {
            let stream = TcpStream::connect(rig.address).await.unwrap();
            let stream = TlsConnector::from(Arc::new(config)).connect("localhost".try_into().unwrap(), stream);
            let stream = stream.await.unwrap();
            assert_eq!(stream.get_ref().1.alpn_protocol(), Some(chosen.as_bytes()), "{offered:?}");
            if chosen == "h2" {
                let answer = over(stream).await.send_request(request("GET", "https://localhost/", "")).await;
                assert_eq!(text(answer.unwrap()).await, "well");
                return;
            }
            let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
            tokio::spawn(connection);
            let mut request = request("GET", "/", "");
            request.headers_mut().insert("host", "localhost".parse().unwrap());
            let answer = sender.send_request(request).await.unwrap();
            assert_eq!((answer.version(), answer.status().as_u16()), (Version::HTTP_11, 200));
        });
    }
    rig.settles();
}

#[test]
fn trailers_come_through_both_ways() {
    let origin = Origin::start(|talk| {
        while let Some(request) = talk.request()? {
            assert_eq!((request.text(), &request.trailers[..]), ("hello", &[("x-sum".to_owned(), "5".to_owned())][..]));
            talk.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-Check: 2\r\n\r\n")?;
        }
        Ok(())
    });
    let rig = Rig::before(origin.address);
    rig.running().block_on(async {
        let trailers = HeaderMap::from_iter([("x-sum".parse().unwrap(), "5".parse().unwrap())]);
        let frames = [Frame::data(Bytes::from("hello")), Frame::trailers(trailers)];
        // Announced, as HTTP/1.1 wants it (RFC 9110 section 6.6.2): hyper leaves others out there.
        let request = Request::post("http://a/").header("te", "trailers").header("trailer", "x-sum");
        let request = request.body(Frames(frames.into()).boxed_unsync()).unwrap();
        let answer = plain(&rig).await.send_request(request).await.unwrap();
        let answer = answer.into_body().collect().await.unwrap();
        assert_eq!(answer.trailers().unwrap()["x-check"], "2");
        assert_eq!(answer.to_bytes(), "hi");
    });
    rig.settles();
}

#[test]
fn a_body_that_breaks_off_resets_its_stream_and_no_other() {
    let origin = Origin::start(|talk| {
        while let Some(request) = talk.request()? {
            if request.start.contains("/half") {
                talk.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello")?;
                talk.reset_at_end();
                return Ok(());
            }
            talk.send(ok("well"))?;
        }
        Ok(())
    });
    let rig = Rig::before(origin.address);
    rig.running().block_on(async {
        let mut sender = plain(&rig).await;
        match sender.send_request(request("GET", "http://a/half", "")).await {
            Ok(half) if half.status() == 200 => {
                half.into_body().collect().await.expect_err("half an answer is no whole one");
            }
            // The reset overtook the head, of the origin or of the stream.
            Ok(refused) => assert_eq!(refused.status(), 502),
            Err(error) => assert!(!error.is_canceled() && !error.is_closed(), "{error}"),
        }
        assert_eq!(text(sender.send_request(request("GET", "http://a/well", "")).await.unwrap()).await, "well");
    });
    rig.settles();
}

#[test]
fn a_stream_that_its_client_gives_up_keeps_its_slot_until_the_origin_has_ended() {
    let (go, may_go) = mpsc::channel::<()>();
    let may_go = std::sync::Mutex::new(may_go);
    let origin = Origin::start(move |talk| {
        if talk.request()?.is_some() {
            talk.send("HTTP/1.1 200 OK\r\nCache-Control: no-store\r\nContent-Length: 10\r\n\r\nhello")?;
            let _ = may_go.lock().unwrap().recv_timeout(DEADLINE);
            talk.send("again")?;
        }
        Ok(())
    });
    let rig = Rig::before(origin.address);
    rig.running().block_on(async {
        let mut sender = plain(&rig).await;
        let answer = sender.send_request(request("GET", "http://a/", "")).await.unwrap();
        assert_eq!(answer.status(), 200);
        drop(answer);
    });
    rig.until("its slot is a zombie", || rig.metric("vaxel_slots_zombie") == 1.0);
    go.send(()).unwrap();
    rig.settles();
    assert_eq!(rig.metric("vaxel_client_aborts_total"), 1.0);
}

/// A body of unknown length.
struct Frames(VecDeque<Frame<Bytes>>);

impl http_body::Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(Ok))
    }
}
