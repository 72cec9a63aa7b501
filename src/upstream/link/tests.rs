//! The codec against raw bytes.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use http::{HeaderName, HeaderValue, Request};
use http_body::Body;
use http_body_util::BodyExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::super::body::{BodyParams, Gate, Inbound, Source};
use super::super::pool::{Pool, PoolParams};
use super::*;
use crate::clock::Clock;
use crate::message::switch::Switch;
use crate::upstream::origin::Relayed;

mod against_hyper;

type Fields = &'static [(&'static str, &'static str)];

fn request(method: Method, fields: Fields, body: RequestBody) -> Request<RequestBody> {
    let mut request = Request::new(body);
    *request.method_mut() = method;
    *request.uri_mut() = "/a?b=c".parse().unwrap();
    let field =
        |(name, value): &(&'static str, &'static str)| (HeaderName::from_static(name), HeaderValue::from_static(value));
    request.headers_mut().extend(fields.iter().map(field));
    request
}

fn begin(link: &mut Link, request: Request<RequestBody>, may_switch: bool) {
    let (parts, body) = request.into_parts();
    link.begin(Asking::Whole(&parts), body, may_switch);
}

fn get() -> Request<RequestBody> {
    request(Method::GET, &[("host", "a")], RequestBody::Empty)
}

fn pool() -> Arc<Pool> {
    Pool::new(PoolParams::default(), 1, Clock::system())
}

/// Polls for nobody.
fn poll<T>(mut what: impl FnMut(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
    what(&mut Context::from_waker(std::task::Waker::noop()))
}

/// What came of an exchange: the status, data, trailers, and whether the link went home. Or what broke, in a word.
type Came = Result<(u16, String, String, bool), &'static str>;

fn word(error: &LinkError) -> &'static str {
    match error {
        LinkError::Stale => "stale",
        LinkError::Request(_) => "request",
        LinkError::RequestTooShort => "short",
        LinkError::Answer(_) => "answer",
        LinkError::Body(_) => "body",
        LinkError::Closed => "closed",
        LinkError::Broken(_) => "broken",
    }
}

/// Sends a request of `method` to an endpoint that says each of `pieces` when the one before was read, and then closes.
fn ask<'p>(method: Method, pieces: impl IntoIterator<Item = &'p [u8]>) -> Came {
    let (far, near) = tokio::io::duplex(1 << 20);
    let mut far = Some(far);
    let mut pieces = pieces.into_iter();
    let mut say = move || match (pieces.next(), &mut far) {
        (Some(piece), Some(far)) => assert!(poll(|cx| std::pin::pin!(far.write_all(piece)).poll(cx)).is_ready()),
        (None, far @ Some(_)) => *far = None,
        _ => panic!("it waits for more than the end"),
    };
    let mut link = Link::new(Stream::pipe(near));
    begin(&mut link, request(method, &[("host", "a")], RequestBody::Empty), false);
    let answer = loop {
        match poll(|cx| link.poll_answer(cx)) {
            Poll::Ready(answer) => break answer.map_err(|error| word(&error))?,
            Poll::Pending => say(),
        }
    };
    let pool = pool();
    let mut body = LinkBody::new(link, Home::new(Arc::clone(&pool), 0));
    let announced = body.size_hint().exact();
    let (mut data, mut trailers) = (Vec::new(), String::new());
    loop {
        match poll(|cx| body.poll_frame(cx)) {
            Poll::Pending => say(),
            Poll::Ready(None) => break,
            Poll::Ready(Some(Err(error))) => return Err(word(error.downcast_ref().unwrap())),
            Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                Ok(piece) => data.extend(piece),
                Err(frame) => trailers = format!("{:?}", frame.into_trailers().unwrap()),
            },
        }
    }
    assert!(body.is_end_stream() && announced.is_none_or(|announced| announced == data.len() as u64));
    Ok((answer.status().as_u16(), String::from_utf8(data).unwrap(), trailers, pool.idle() == 1))
}

#[test]
fn an_answer_means_the_same_however_it_is_cut() {
    let ok = |status: u16, data: &str, kept: bool| Ok((status, data.to_owned(), String::new(), kept));
    for (method, answer, came) in [
        (Method::GET, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", ok(200, "hello", true)),
        (
            Method::GET,
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello",
            ok(200, "hello", false),
        ),
        (Method::GET, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", ok(200, "", true)),
        (Method::GET, "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", ok(200, "hello", false)),
        (Method::GET, "HTTP/1.0 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nhi", ok(200, "hi", true)),
        (Method::GET, "HTTP/1.1 200 OK\r\n\r\nhello", ok(200, "hello", false)),
        (Method::GET, "HTTP/1.1 200 OK\r\n\r\n", ok(200, "", false)),
        (Method::GET, "HTTP/1.0 200\n\nhello\n", ok(200, "hello\n", false)),
        (Method::HEAD, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", ok(200, "", true)),
        (Method::HEAD, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", ok(200, "", true)),
        (Method::GET, "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", ok(304, "", true)),
        (Method::GET, "HTTP/1.1 204 No Content\r\n\r\n", ok(204, "", true)),
        (
            Method::GET,
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 \r\nX: y\r\n\r\nHTTP/1.1 204 \r\n\r\n",
            ok(204, "", true),
        ),
        (
            Method::GET,
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n2 \r\n, \r\n5;x\r\nworld\r\n0\r\n\r\n",
            ok(200, "hello, world", true),
        ),
        (
            Method::GET,
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX: y\r\n\r\n",
            Ok((200, "x".to_owned(), "{\"x\": \"y\"}".to_owned(), true)),
        ),
        (Method::GET, "", Err("closed")),
        (Method::GET, "HTTP/1.1 200 OK\r\nX: y\r\n", Err("closed")),
        (Method::GET, "HTTP/1.1 100 Continue\r\n\r\n", Err("closed")),
        (Method::GET, "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello", Err("closed")),
        (Method::GET, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", Err("closed")),
        (Method::GET, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nxy\r\n", Err("body")),
        (Method::GET, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\nx\n", Err("body")),
        (Method::GET, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", Err("answer")),
        (Method::GET, "HTTP/1.1 999 Odd\r\n\r\n", Err("answer")),
        (Method::GET, "HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\nhello", Err("answer")),
        (Method::GET, "SSH-2.0-OpenSSH\r\n\r\n", Err("answer")),
    ] {
        let whole = answer.as_bytes();
        for at in 0..=whole.len() {
            let (one, two) = whole.split_at(at);
            let pieces = [one, two].into_iter().filter(|piece| !piece.is_empty());
            assert_eq!(ask(method.clone(), pieces), came, "{answer:?} cut at {at}");
        }
        for step in [1, 2, 3] {
            assert_eq!(ask(method.clone(), whole.chunks(step)), came, "{answer:?} in steps of {step}");
        }
    }
}

#[test]
fn what_comes_after_an_answer_answers_nothing() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhelloHTTP/1.1 200 OK\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\nx",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n\r\n",
    ] {
        assert_eq!(
            ask(Method::GET, [answer.as_bytes()]),
            Ok((200, "hello".into(), String::new(), false)),
            "{answer:?}"
        );
    }
    assert!(matches!(ask(Method::HEAD, [&b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx"[..]]), Ok((200, .., false))));
}

#[test]
fn what_has_no_end_is_not_read_for_ever() {
    let fields = format!("HTTP/1.1 200 OK\r\nX: {}", "y".repeat(intake::LARGE));
    assert_eq!(ask(Method::GET, fields.as_bytes().chunks(60_000)), Err("answer"));
    let interim = "HTTP/1.1 102 Processing\r\n\r\n".repeat(usize::from(MOST_INTERIM) + 1);
    assert_eq!(ask(Method::GET, [interim.as_bytes()]), Err("answer"));
}

/// What an endpoint reads of `request` until it is sent, or nothing more of it comes.
fn heard(request: Request<RequestBody>, is_old: bool) -> (String, Poll<Result<(), &'static str>>) {
    let mut outbound = Outbound::default();
    let (parts, body) = request.into_parts();
    outbound.begin(Asking::Whole(&parts), body, is_old);
    let mut out = Vec::new();
    let sent = poll(|cx| outbound.poll(&mut out, cx));
    (String::from_utf8(out).unwrap(), sent.map_err(|error| word(&error)))
}

#[test]
fn a_relayed_request_leaves_its_clients_connection_behind() {
    let (parts, _) = request(
        Method::POST,
        &[
            ("host", "a"),
            ("connection", "close"),
            ("keep-alive", "timeout=5"),
            ("x-kept", "1"),
            ("content-length", "4"),
        ],
        RequestBody::Empty,
    )
    .into_parts();
    let head = Relayed {
        method: &parts.method,
        target: parts.uri.path_and_query().unwrap(),
        host: &HeaderValue::from_static("b"),
        headers: &parts.headers,
        beside: &|to| to.extend_from_slice(b"via: 1.1 us\r\n"),
    };
    let (mut outbound, mut out) = (Outbound::default(), Vec::new());
    let keeps = outbound.begin(Asking::Relayed(head), RequestBody::Full("body".into()), false);
    assert!(poll(|cx| outbound.poll(&mut out, cx)).is_ready() && keeps);
    let sent = "POST /a?b=c HTTP/1.1\r\nhost: b\r\nx-kept: 1\r\nvia: 1.1 us\r\ncontent-length: 4\r\n\r\nbody";
    assert_eq!(String::from_utf8(out).unwrap(), sent);
}

/// A body of whose end only its end tells.
struct Endless;

impl Body for Endless {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Poll::Ready(None)
    }
}

/// A body in pieces, perhaps with trailers, whose length is known beforehand or not.
fn body(pieces: &[&'static str], trailers: Fields, is_known: bool, gate: Option<Gate>) -> RequestBody {
    let mut frames: VecDeque<_> =
        pieces.iter().map(|piece| Frame::data(Bytes::from_static(piece.as_bytes()))).collect();
    if !trailers.is_empty() {
        frames.push_back(Frame::trailers(request(Method::GET, trailers, RequestBody::Empty).headers().clone()));
    }
    let rest = if is_known { Inbound::Empty } else { Inbound::Boxed(Endless.boxed_unsync()) };
    let params = BodyParams { limit: 1 << 30, timeout: Duration::from_secs(9) };
    Source::new(Inbound::Begun(frames, Box::new(rest)), params, 0).attempt(gate)
}

#[test]
fn a_request_is_framed_by_what_is_known_of_its_body() {
    const HOST: (&str, &str) = ("host", "a");
    let known = |pieces: &[&'static str]| body(pieces, &[], true, None);
    let unknown = |pieces: &[&'static str]| body(pieces, &[], false, None);
    let sent = Poll::Ready(Ok(()));
    for (method, fields, body, text, ended) in [
        (Method::GET, &[("x", "y"), HOST][..], RequestBody::Empty, "x: y\r\n\r\n", sent),
        (Method::POST, &[HOST], RequestBody::Empty, "\r\n", sent),
        (Method::POST, &[HOST, ("content-length", "0")], RequestBody::Empty, "content-length: 0\r\n\r\n", sent),
        (Method::POST, &[HOST], RequestBody::Full("hi".into()), "content-length: 2\r\n\r\nhi", sent),
        (Method::PUT, &[HOST], known(&["he", "llo"]), "content-length: 5\r\n\r\nhello", sent),
        (Method::GET, &[HOST], known(&["hello"]), "content-length: 5\r\n\r\nhello", sent),
        (Method::PUT, &[HOST, ("content-length", "3")], unknown(&["he", "llo"]), "content-length: 3\r\n\r\nhel", sent),
        (
            Method::PUT,
            &[HOST, ("content-length", "6")],
            unknown(&["hello"]),
            "content-length: 6\r\n\r\n",
            Poll::Ready(Err("short")),
        ),
        (
            Method::PUT,
            &[HOST, ("content-length", "x")],
            unknown(&["hi"]),
            "transfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
            sent,
        ),
        (
            Method::PUT,
            &[HOST],
            unknown(&["he", "", "llo"]),
            "transfer-encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
            sent,
        ),
        (
            Method::PUT,
            &[HOST, ("transfer-encoding", "chunked"), ("content-length", "7")],
            known(&["hello"]),
            "transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            sent,
        ),
        (Method::GET, &[HOST], unknown(&["hello"]), "transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", sent),
        (Method::PUT, &[HOST, ("content-length", "5")], RequestBody::Empty, "\r\n", sent),
        (Method::PUT, &[HOST, ("content-length", "0")], RequestBody::Empty, "content-length: 0\r\n\r\n", sent),
        (Method::GET, &[HOST, ("transfer-encoding", "chunked")], RequestBody::Empty, "\r\n", sent),
    ] {
        let said = format!("{method} {fields:?}");
        let (heard, came) = heard(request(method.clone(), fields, body), false);
        let text = format!("{method} /a?b=c HTTP/1.1\r\nhost: a\r\n{text}");
        if ended == Poll::Ready(Err("short")) {
            assert!(text.starts_with(&heard), "{said}: {heard:?}");
        } else {
            assert_eq!(heard, text, "{said}");
        }
        assert_eq!(came, ended, "{said}");
    }
}

#[test]
fn only_announced_trailers_are_sent() {
    for (fields, end) in [
        (
            &[("trailer", "X-Sum")][..],
            "trailer: X-Sum\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nx-sum: 5\r\n\r\n",
        ),
        (&[], "transfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"),
    ] {
        let body = body(&["hi"], &[("x-sum", "5"), ("x-other", "6")], false, None);
        let (heard, sent) = heard(request(Method::POST, fields, body), false);
        assert!(heard.ends_with(end), "{heard:?}");
        assert_eq!(sent, Poll::Ready(Ok(())));
    }
}

#[test]
fn a_server_of_the_old_time_is_asked_in_its_words() {
    for (fields, body, head) in [
        (&[][..], RequestBody::Empty, "GET /a?b=c HTTP/1.0\r\nconnection: keep-alive\r\n\r\n"),
        (&[("connection", "keep-alive")], RequestBody::Empty, "GET /a?b=c HTTP/1.0\r\nconnection: keep-alive\r\n\r\n"),
        (
            &[("transfer-encoding", "chunked")],
            RequestBody::Full("x".into()),
            "GET /a?b=c HTTP/1.1\r\ntransfer-encoding",
        ),
    ] {
        let (heard, _) = heard(request(Method::GET, fields, body), true);
        assert!(heard.starts_with(head), "{heard:?}");
    }
}

#[test]
fn a_large_piece_is_written_from_where_it_lies() {
    let large: &'static str = "x".repeat(100_000).leak();
    for (is_known, before, after) in [(true, "", ""), (false, "186a0\r\n", "\r\n2\r\nhi\r\n0\r\n\r\n")] {
        let pieces = if is_known { &[large][..] } else { &[large, "hi"] };
        let (heard, sent) = heard(request(Method::POST, &[], body(pieces, &[], is_known, None)), false);
        assert_eq!(sent, Poll::Ready(Ok(())));
        let (_, sent) = heard.split_once("\r\n\r\n").unwrap();
        assert!(sent == format!("{before}{large}{after}"));
    }
}

#[tokio::test]
async fn a_body_waits_until_the_endpoint_asks_for_it() {
    let (mut far, near) = tokio::io::duplex(1 << 16);
    let mut link = Link::new(Stream::pipe(near));
    let body = body(&["hello"], &[], true, Some(Gate::new(Duration::from_secs(3600))));
    begin(&mut link, request(Method::POST, &[("host", "a"), ("expect", "100-continue")], body), false);
    assert!(poll(|cx| link.poll_answer(cx)).is_pending());
    let mut heard = BytesMut::with_capacity(1024);
    far.read_buf(&mut heard).await.unwrap();
    assert!(heard.ends_with(b"\r\n\r\n"), "{heard:?}");
    far.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.unwrap();
    assert!(poll(|cx| link.poll_answer(cx)).is_pending());
    heard.clear();
    far.read_buf(&mut heard).await.unwrap();
    assert_eq!(heard, "hello");
    far.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
    assert!(matches!(poll(|cx| link.poll_answer(cx)), Poll::Ready(Ok(_))));
    assert!(link.comes_to_rest());
}

#[tokio::test]
async fn an_answer_before_the_end_of_the_request_is_the_last() {
    let (mut far, near) = tokio::io::duplex(1 << 16);
    let mut link = Link::new(Stream::pipe(near));
    let body = body(&["hello"], &[], true, Some(Gate::new(Duration::from_secs(3600))));
    begin(&mut link, request(Method::POST, &[("host", "a")], body), false);
    far.write_all(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n").await.unwrap();
    assert!(matches!(poll(|cx| link.poll_answer(cx)), Poll::Ready(Ok(_))));
    let pool = pool();
    assert!(LinkBody::new(link, Home::new(Arc::clone(&pool), 0)).is_end_stream());
    assert_eq!(pool.idle(), 0);
}

#[tokio::test]
async fn after_a_switch_the_stream_is_whole() {
    let (mut far, near) = tokio::io::duplex(1 << 16);
    let mut link = Link::new(Stream::pipe(near));
    begin(&mut link, request(Method::GET, &[("host", "a"), ("upgrade", "x")], RequestBody::Empty), true);
    far.write_all(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\nfirst").await.unwrap();
    let answer = poll_fn(|cx| link.poll_answer(cx)).await.unwrap();
    let mut stream = answer.extensions().get::<Switch>().unwrap().clone().switched().await.unwrap();
    far.write_all(b" second").await.unwrap();
    let mut read = [0; 12];
    stream.read_exact(&mut read).await.unwrap();
    assert_eq!(&read, b"first second");
    assert!(!link.comes_to_rest());
}

#[tokio::test(start_paused = true)]
async fn a_link_whose_answer_may_have_a_body_too_many_is_left_alone_for_a_moment() {
    let clock = Clock::anchored(std::time::SystemTime::UNIX_EPOCH);
    for (method, answer, is_doubtful) in [
        (Method::HEAD, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", true),
        (Method::HEAD, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", true),
        (Method::HEAD, "HTTP/1.1 200 OK\r\n\r\n", false),
        (Method::GET, "HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\n", true),
        (Method::GET, "HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\n\r\n", true),
        (Method::GET, "HTTP/1.1 304 Not Modified\r\n\r\n", false),
        (Method::GET, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", false),
    ] {
        let (mut far, near) = tokio::io::duplex(1 << 16);
        let mut link = Link::new(Stream::pipe(near));
        begin(&mut link, request(method, &[("host", "a")], RequestBody::Empty), false);
        far.write_all(answer.as_bytes()).await.unwrap();
        assert!(matches!(poll(|cx| link.poll_answer(cx)), Poll::Ready(Ok(_))));
        let pool = Pool::new(PoolParams::default(), 1, clock.clone());
        Home::new(Arc::clone(&pool), 0).checkin(Link::new(Stream::pipe(tokio::io::duplex(1).1)));
        let other = pool.checkout(0).unwrap();
        assert!(LinkBody::new(link, Home::new(Arc::clone(&pool), 0)).is_end_stream());
        assert_eq!((pool.idle(), pool.checkout(0).is_none()), (1, is_doubtful), "{answer}");
        if is_doubtful {
            Home::new(Arc::clone(&pool), 0).checkin(other);
            assert!(pool.checkout(0).is_some_and(|link| link.served == 0), "the other one serves");
            assert!(pool.checkout(0).is_none());
            tokio::time::advance(Duration::from_millis(50)).await;
            assert!(pool.checkout(0).is_some());
        }
    }
}

/// An endpoint that answers each of its connections so often, then closes it.
async fn endpoint(answers: usize) -> TcpStream {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        for _ in 0..answers {
            let _ = stream.read(&mut [0; 1024]).await.unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nbody").await.unwrap();
        }
    });
    TcpStream::connect(address).await.unwrap()
}

#[tokio::test]
async fn only_the_socket_wakes_an_exchange() {
    let pool = pool();
    let mut link = Link::new(Stream::plain(endpoint(3).await));
    for _ in 0..2 {
        let mut polls = 0;
        begin(&mut link, get(), false);
        let answer = poll_fn(|cx| {
            polls += 1;
            link.poll_answer(cx)
        });
        answer.await.unwrap();
        // One that sends it, one that brings all of the answer.
        assert_eq!(polls, 2);
        let mut body = LinkBody::new(link, Home::new(Arc::clone(&pool), 0));
        let data = poll(|cx| body.poll_frame(cx)).map(|data| data.unwrap().unwrap().into_data().unwrap());
        assert_eq!(data, Poll::Ready(Bytes::from_static(b"body")));
        // To take it out has woken nobody.
        let mut polls = 0;
        let quiet = poll_fn(|_| {
            polls += 1;
            Poll::<()>::Pending
        });
        let waited = tokio::time::timeout(Duration::from_millis(1), quiet).await;
        assert_eq!((waited.is_err(), polls), (true, 2), "at the start and at the timeout");
        link = pool.checkout(0).unwrap();
    }
}

#[tokio::test]
async fn a_link_that_was_closed_meanwhile_takes_no_request() {
    let stream = endpoint(0).await;
    stream.readable().await.unwrap();
    let mut link = Link::new(Stream::plain(stream));
    assert!(!link.is_quiet());
}
