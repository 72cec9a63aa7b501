//! The loop over a pipe: what a client sends, what the handler sees of it, and what comes back.

use std::convert::Infallible;

use http::{Request, header};
use http_body::Frame;
use http_body_util::BodyExt as _;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{mpsc, oneshot};

use self::rig::{Handler, Rig, STORED, Said, text};
use super::*;
use crate::clock::Clock;
use crate::listen::ListenLimits;

mod polls;
mod rig;

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const POST: &str = "POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nok";
const CHUNKED: &str = "POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";

/// Sends `stream` in steps. What came back, and what was seen of each request: its path, and whether the body was read
/// to its end. Whether a breach was counted.
async fn talk(stream: &str, step: usize) -> (String, Vec<(String, bool)>, bool) {
    let (saw, mut seen) = mpsc::unbounded_channel();
    let handler = Handler::new(move |request: Request<Body>| {
        let saw = saw.clone();
        async move {
            let path = request.uri().path().to_owned();
            let whole = request.into_body().collect().await.is_ok();
            saw.send((path, whole)).unwrap();
            let mut response = text("");
            *response.status_mut() = if whole { StatusCode::NO_CONTENT } else { StatusCode::BAD_REQUEST };
            response
        }
    });
    let Rig { client, served, metrics, .. } = Rig::new(handler);
    let (mut answers, mut requests) = tokio::io::split(client);
    let sending = async {
        for piece in stream.as_bytes().chunks(step) {
            if requests.write_all(piece).await.is_err() {
                break; // refused and closed before the end
            }
            tokio::task::yield_now().await;
        }
    };
    let mut text = String::new();
    let reading = async {
        // A server that is content waits for the next request; the clock of the test then jumps ahead to its end.
        answers.read_to_string(&mut text).await.unwrap();
    };
    tokio::join!(sending, reading);
    drop((answers, requests));
    let _ = served.await.unwrap();
    let counted = metrics.gather().contains("reason=\"malformed\"} 1");
    let mut requests = Vec::new();
    while let Ok(request) = seen.try_recv() {
        requests.push(request);
    }
    (text, requests, counted)
}

fn statuses(answer: &str) -> Vec<&str> {
    answer.split("HTTP/1.").skip(1).filter_map(|rest| rest.get(2..5)).collect()
}

#[tokio::test(start_paused = true)]
async fn sound_streams_are_served() {
    let long = "x".repeat(3000);
    for (stream, requests) in [
        (String::new(), 0),
        ("\r\n".to_owned(), 0),
        (GET.to_owned(), 1),
        (format!("\r\n\r\n{GET}"), 1),
        (format!("{GET}{GET}\r\n{GET}"), 3),
        (
            "POST / HTTP/1.0\r\nContent-Length: 3\r\nConnection: keep-alive\r\n\r\nabcGET / HTTP/1.0\r\n\r\n"
                .to_owned(),
            2,
        ),
        (format!("GET / HTTP/1.1\r\nHost: a\r\nCookie: {long}\r\nX: {long}{long}\r\n\r\n{GET}"), 2),
        (format!("{}{GET}", POST.replace("2\r\n\r\nok", "5\r\n\r\na\nb\0c")), 2),
        (format!("{}{GET}", POST.replace("2\r\n\r\nok", "007\r\n\r\n\r\n\r\n\r\n\n")), 2),
        (format!("{CHUNKED}0\r\n\r\n"), 1),
        (format!("{CHUNKED}5\r\nhello\r\n00A;name=\"v;\"\r\n\r\n\0\n345678\r\n000\r\n\r\n{GET}"), 2),
        (format!("{CHUNKED}1 \t;a=b\tc\r\nx\r\n0\r\nChecksum: 1\r\nX: y\r\n\r\n{GET}"), 2),
        (format!("{CHUNKED}0;last\r\n\r\n{CHUNKED}1\r\nx\r\n0\r\n\r\n"), 2),
    ] {
        for step in [usize::MAX, 1, 11] {
            let (answer, seen, counted) = talk(&stream, step).await;
            assert!(seen.iter().all(|(_, whole)| *whole) && !counted, "{stream:?}");
            assert_eq!(statuses(&answer), vec!["204"; requests], "{stream:?} in steps of {step}: {answer}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_no_request_is_refused_behind_a_sound_one_too() {
    for (stream, status, reason, counted) in [
        ("GET / HTTP/1.1\nHost: a\r\n\r\n", "400", "request.malformed", true),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nhello", "400", "request.malformed", true),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n", "501", "request.coding", true),
        ("GET / HTTP/1.1\r\n\r\n", "400", "request.host", true),
        ("GE:T / HTTP/1.1\r\nHost: a\r\n\r\n", "400", "request.malformed", false),
    ] {
        for step in [usize::MAX, 1, 9] {
            let (answer, seen, count) = talk(stream, step).await;
            assert_eq!((statuses(&answer), seen, count), (vec![status], vec![], counted), "{stream:?}");
            assert!(answer.contains("\r\nconnection: close\r\n") && answer.ends_with(reason), "{stream:?}: {answer}");
            let (answer, seen, count) = talk(&format!("{POST}{stream}"), step).await;
            assert_eq!(seen, [("/p".to_owned(), true)], "{stream:?}");
            assert_eq!((statuses(&answer), count), (vec!["204", status], counted), "{stream:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_broken_body_never_ends_well() {
    for body in [
        "5\nhello\r\n0\r\n\r\n",
        "5\rhello\r\n0\r\n\r\n",
        "x\r\n",
        "5\r\nhello!\r\n0\r\n\r\n",
        "5;a=\0\r\nhello\r\n0\r\n\r\n",
        "10000000000000000\r\nx",
        "0\r\nX: a\n\r\n",
        "0\r\nContent-Length: 5\r\n\r\n",
    ] {
        for step in [usize::MAX, 1, 9] {
            let (answer, seen, counted) = talk(&format!("{CHUNKED}{body}"), step).await;
            assert_eq!(seen, [("/c".to_owned(), false)], "{body:?} in steps of {step}");
            assert_eq!((statuses(&answer), counted), (vec!["400"], true), "{body:?} in steps of {step}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn answers_are_framed_for_who_asks() {
    let handler = Handler::new(|request: Request<Body>| async move {
        let (feed, fed) = mpsc::unbounded_channel();
        let mut response = match request.uri().path() {
            "/fed" => Response::new(Said::Fed(fed)),
            "/preset" => {
                let head = "HTTP/1.1 299 Set\r\ndate: then\r\ncontent-length: 2\r\n";
                Response::new(Said::Preset(head.to_owned(), "hi".into()))
            }
            _ => text("hi"),
        };
        for piece in ["one", "", "three"] {
            feed.send(Ok(Frame::data(piece.into()))).unwrap();
        }
        let trailers = [(header::ETAG, "\"a\"".parse().unwrap())];
        feed.send(Ok(Frame::trailers(trailers.into_iter().collect()))).unwrap();
        response.headers_mut().insert("trailer", "etag".parse().unwrap());
        response.headers_mut().insert("x", "y".parse().unwrap());
        response
    });
    let date = "date: Thu, 01 Jan 1970 00:00:00 GMT\r\n";
    let fields = "trailer: etag\r\nx: y\r\n";
    for (line, extra, answer) in [
        ("GET / HTTP/1.1", "", format!("HTTP/1.1 200 OK\r\n{fields}content-length: 2\r\n{date}\r\nhi")),
        ("HEAD / HTTP/1.1", "", format!("HTTP/1.1 200 OK\r\nx: y\r\ncontent-length: 2\r\n{date}\r\n")),
        (
            "GET / HTTP/1.1",
            "Connection: close\r\n",
            format!("HTTP/1.1 200 OK\r\n{fields}content-length: 2\r\n{date}connection: close\r\n\r\nhi"),
        ),
        (
            "GET / HTTP/1.0",
            "Connection: keep-alive\r\n",
            format!("HTTP/1.0 200 OK\r\nx: y\r\ncontent-length: 2\r\n{date}connection: keep-alive\r\n\r\nhi"),
        ),
        ("GET / HTTP/1.0", "", format!("HTTP/1.0 200 OK\r\nx: y\r\ncontent-length: 2\r\n{date}\r\nhi")),
        (
            "GET /fed HTTP/1.1",
            "",
            format!(
                "HTTP/1.1 200 OK\r\n{fields}transfer-encoding: chunked\r\n{date}\r\n3\r\none\r\n5\r\nthree\r\n0\r\n\r\n"
            ),
        ),
        (
            "GET /fed HTTP/1.1",
            "TE: trailers\r\n",
            format!(
                "HTTP/1.1 200 OK\r\n{fields}transfer-encoding: chunked\r\n{date}\r\n3\r\none\r\n5\r\nthree\r\n0\r\n\
                 etag: \"a\"\r\n\r\n"
            ),
        ),
        ("GET /fed HTTP/1.0", "Connection: keep-alive\r\n", format!("HTTP/1.0 200 OK\r\nx: y\r\n{date}\r\nonethree")),
        ("GET /preset HTTP/1.1", "", "HTTP/1.1 299 Set\r\ndate: then\r\ncontent-length: 2\r\n\r\nhi".to_owned()),
        (
            "HEAD /preset HTTP/1.1",
            "Connection: close\r\n",
            "HTTP/1.1 299 Set\r\ndate: then\r\ncontent-length: 2\r\nconnection: close\r\n\r\n".to_owned(),
        ),
        ("GET /preset HTTP/1.0", "", format!("HTTP/1.0 200 OK\r\nx: y\r\ncontent-length: 2\r\n{date}\r\nhi")),
    ] {
        let mut rig = Rig::new(handler.clone());
        rig.send(format!("{line}\r\nHost: a\r\n{extra}\r\n")).await;
        rig.client.shutdown().await.unwrap();
        assert_eq!(rig.rest().await, answer, "{line} {extra}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_stored_goes_whole_and_in_turn() {
    let handler = Handler::new(|_| async { text("later") });
    for length in [0, 2, COPIED, COPIED + 1] {
        let head = format!("HTTP/1.1 299 Set\r\ndate: then\r\ncontent-length: {length}\r\n");
        let body = "x".repeat(length);
        let mut rig = Rig::new(handler.clone());
        let get = format!("GET {STORED}?{length} HTTP/1.1\r\nHost: a\r\n");
        let others = format!("{}Upgrade: x\r\n\r\n{GET}", get.replace("GET", "HEAD"));
        rig.send(format!("{get}\r\n{others}{get}Connection: close\r\n\r\n{GET}")).await;
        let later = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ndate: Thu, 01 Jan 1970 00:00:00 GMT\r\n\r\nlater";
        let want = format!("{head}\r\n{body}{head}\r\n{later}{head}connection: close\r\n\r\n{body}");
        assert_eq!(rig.rest().await, want, "{length}");
    }
}

#[tokio::test(start_paused = true)]
async fn large_pieces_come_whole_through_a_narrow_pipe() {
    let piece: String = "0123456789".repeat(10_000);
    let sent = piece.clone();
    let handler = Handler::new(move |request: Request<Body>| {
        let (feed, fed) = mpsc::unbounded_channel();
        for piece in [&sent[..], "small", &sent] {
            feed.send(Ok(Frame::data(Bytes::copy_from_slice(piece.as_bytes())))).unwrap();
        }
        async move {
            drop(request);
            Response::new(Said::Fed(fed))
        }
    });
    let mut rig = Rig::with_pipe(1000, handler);
    rig.send(GET.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n")).await;
    let answer = rig.rest().await;
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    assert_eq!(body, format!("186a0\r\n{piece}\r\n5\r\nsmall\r\n186a0\r\n{piece}\r\n0\r\n\r\n"));
    rig.served.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_body_that_breaks_off_breaks_the_connection_off() {
    for announced in [false, true] {
        let handler = Handler::new(move |_| async move {
            let (feed, fed) = mpsc::unbounded_channel();
            feed.send(Ok(Frame::data("part".into()))).unwrap();
            let mut response = Response::new(Said::Fed(fed));
            if announced {
                response.headers_mut().insert(header::CONTENT_LENGTH, 5.into());
            } else {
                feed.send(Err("broken".into())).unwrap();
            }
            response
        });
        let mut rig = Rig::new(handler);
        rig.send(GET).await;
        let answer = rig.rest().await;
        assert!(answer.trim_end().ends_with("part"), "{answer}");
        assert!(rig.served.await.unwrap().is_err());
    }
}

#[tokio::test(start_paused = true)]
async fn when_the_client_leaves_the_answer_to_come_is_dropped() {
    // Also while nobody has begun to read the body: who waits in a queue has not.
    let post = |rest: &str| format!("POST / HTTP/1.1\r\nHost: a\r\n{rest}");
    for request in [
        GET.to_owned(),
        post("Content-Length: 2\r\n\r\nhi"),
        post("Content-Length: 4\r\n\r\nhi"),
        post("Content-Length: 4\r\nExpect: 100-continue\r\n\r\n"),
        post("Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"),
        post("Transfer-Encoding: chunked\r\n\r\n2\r\nh"),
    ] {
        let (alive, dropped) = oneshot::channel::<Infallible>();
        let alive = Mutex::new(Some(alive));
        let handler = Handler::new(move |request| {
            let alive = alive.lock().take();
            async move {
                std::future::pending::<()>().await;
                drop((alive, request));
                text("never")
            }
        });
        let mut rig = Rig::new(handler);
        rig.send(&request).await;
        tokio::task::yield_now().await;
        rig.client.shutdown().await.unwrap();
        assert!(dropped.await.is_err(), "{request}");
        assert!(rig.served.await.unwrap().is_err());
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_may_be_read_elsewhere_and_breaks_off_with_its_connection() {
    for whole in [true, false] {
        let (hand, mut handed) = mpsc::unbounded_channel();
        let handler = Handler::new(move |request: Request<Body>| {
            hand.send(request.into_body()).unwrap();
            async { text("early") }
        });
        let mut rig = Rig::new(handler);
        rig.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhe").await;
        let body = handed.recv().await.unwrap();
        assert_eq!(http_body::Body::size_hint(&body).exact(), Some(5));
        let reading = tokio::spawn(async move { body.collect().await.map(|all| all.to_bytes()) });
        assert!(rig.read_to("early").await.starts_with("HTTP/1.1 200 OK"));
        if whole {
            rig.send(format!("llo{GET}")).await;
            assert_eq!(reading.await.unwrap().unwrap(), "hello");
            rig.read_to("early").await;
        } else {
            rig.served.abort();
            assert!(reading.await.unwrap().is_err());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_nobody_reads_is_read_on_if_it_is_there() {
    let handler = Handler::new(|request: Request<Body>| async move {
        drop(request);
        text("early")
    });
    let mut rig = Rig::new(handler.clone());
    rig.send(format!("{POST}{CHUNKED}5\r\nhello\r\n0\r\n\r\n{POST}")).await;
    for _ in 0..3 {
        assert!(!rig.read_to("early").await.contains("connection"));
    }
    // What is still to come, and what would be too much, ends the connection; the client may go on sending for a while.
    for (length, sent) in [(10, 5), (1_000_000, 1_000_000)] {
        let rig = Rig::new(handler.clone());
        let (mut answers, mut requests) = tokio::io::split(rig.client);
        let sending = async {
            let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n");
            requests.write_all(head.as_bytes()).await.unwrap();
            requests.write_all(&vec![b'x'; sent]).await.unwrap();
        };
        let mut answer = String::new();
        let (read, ()) = tokio::join!(answers.read_to_string(&mut answer), sending);
        read.unwrap();
        assert!(answer.contains("connection: close\r\n") && answer.ends_with("early"), "{answer}");
        rig.served.await.unwrap().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn leave_to_send_a_body_is_given_when_it_is_wanted() {
    let handler = Handler::new(|request: Request<Body>| async move {
        if request.uri().path() == "/no" {
            return text("no");
        }
        let body = request.into_body().collect().await.unwrap().to_bytes();
        Response::new(Said::Text(body))
    });
    let head = |path| format!("PUT {path} HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    let mut rig = Rig::new(handler.clone());
    rig.send(head("/yes")).await;
    assert_eq!(rig.read_to("\r\n\r\n").await, "HTTP/1.1 100 Continue\r\n\r\n");
    rig.send("hello").await;
    assert!(rig.read_to("hello").await.starts_with("HTTP/1.1 200 OK"));
    rig.send(head("/no")).await;
    let answer = rig.rest().await;
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.contains("connection: close\r\n"), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn a_switch_of_protocols_hands_the_stream_over_with_what_was_read_ahead() {
    let handler = Handler::new(|request: Request<Body>| async move {
        let mut response = text("");
        if let Some(switch) = request.extensions().get::<switch::Switch>().cloned() {
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            response.headers_mut().insert(header::CONNECTION, "upgrade".parse().unwrap());
            tokio::spawn(async move {
                let mut stream = switch.switched().await.unwrap();
                let mut heard = [0; 8];
                stream.read_exact(&mut heard).await.unwrap();
                stream.write_all(&heard).await.unwrap();
            });
        }
        response
    });
    let mut rig = Rig::new(handler);
    rig.send(format!("{GET}GET / HTTP/1.1\r\nHost: a\r\nUpgrade: x\r\n\r\n\0\nahead")).await;
    assert!(rig.read_to("\r\n\r\n").await.starts_with("HTTP/1.1 200 OK"));
    let head = rig.read_to("\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\n"), "{head}");
    assert!(!head.contains("length") && !head.contains("close"), "{head}");
    rig.send("!").await;
    assert_eq!(rig.rest().await, "\0\nahead!");
    rig.served.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_drain_ends_what_is_idle_and_lets_the_rest_finish() {
    let (go, may_go) = oneshot::channel::<()>();
    let may_go = Mutex::new(Some(may_go));
    let handler = Handler::new(move |_| {
        let may_go = may_go.lock().take();
        async move {
            if let Some(may_go) = may_go {
                may_go.await.unwrap();
            }
            text("late")
        }
    });
    let mut rig = Rig::new(handler.clone());
    rig.send(GET).await;
    tokio::task::yield_now().await;
    rig.drain.begin();
    go.send(()).unwrap();
    let answer = rig.rest().await;
    assert!(answer.contains("connection: close\r\n") && answer.ends_with("late"), "{answer}");
    rig.served.await.unwrap().unwrap();
    for begun in ["", GET] {
        let mut rig = Rig::new(handler.clone());
        if !begun.is_empty() {
            rig.send(begun).await;
            rig.read_to("late").await;
        }
        tokio::task::yield_now().await;
        rig.drain.begin();
        assert_eq!(rig.rest().await, "");
        rig.served.await.unwrap().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_is_too_slow_is_cut_off() {
    let limits = ListenLimits::default();
    let clock = Clock::anchored(std::time::SystemTime::UNIX_EPOCH);
    let large = Handler::new(|_| async { Response::new(Said::Text(Bytes::from(vec![b'x'; 1 << 20]))) });
    for (what, sent, patience, reads) in [
        ("nothing", "", limits.idle_timeout, false),
        ("a head that stops", "GET / HT", limits.head_timeout, false),
        ("nothing more", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", limits.idle_timeout, true),
        ("nothing is taken", GET, limits.head_timeout, false),
    ] {
        let mut rig = Rig::new(large.clone());
        rig.send(sent).await;
        if reads {
            let mut answer = vec![0; 1 << 20];
            rig.client.read_exact(&mut answer).await.unwrap();
            rig.read_to("x").await;
            while tokio::time::timeout(Duration::from_millis(1), rig.client.read_u8()).await.is_ok() {}
        }
        let begun = clock.now();
        assert!(rig.served.await.unwrap().is_err(), "{what}");
        let took = clock.now() - begun;
        assert!(took + SLACK >= patience && took <= 2 * patience, "{what}: {took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_head_that_trickles_is_cut_off_and_a_client_that_takes_slowly_is_not() {
    let large = Handler::new(|_| async { Response::new(Said::Text(Bytes::from(vec![b'x'; 300_000]))) });
    let mut rig = Rig::with_pipe(1000, large);
    rig.send(GET).await;
    for _ in 0..301 {
        tokio::time::advance(Duration::from_secs(9)).await;
        let mut taken = [0; 1000];
        assert!(rig.client.read(&mut taken).await.unwrap() > 0);
    }
    while !rig.served.is_finished() {
        rig.send("G").await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert!(rig.served.await.unwrap().is_err());
}

#[tokio::test(start_paused = true)]
async fn requests_that_come_all_at_once_are_answered_in_their_order() {
    let handler = Handler::new(|request: Request<Body>| async move {
        let path = request.uri().path().to_owned();
        Response::new(Said::Text(format!("<{path}>").into()))
    });
    let mut rig = Rig::new(handler);
    let stream: String = (0..200).map(|n| GET.replace("GET /", &format!("GET /{n}"))).collect();
    rig.send(stream).await;
    for n in 0..200 {
        assert!(rig.read_to(">").await.ends_with(&format!("\r\n\r\n</{n}>")), "{n}");
    }
}

/// How far time goes while what was sent is read.
const SLACK: Duration = Duration::from_millis(10);
