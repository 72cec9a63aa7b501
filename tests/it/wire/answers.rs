//! Answers in every form that an origin may give them, and connections that end where nobody expected it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};

use vaxel::upstream::Expect;

use super::client::Client;
use super::message::{End, Message};
use super::origin::{Origin, ok};
use super::rig::Rig;

/// What the client gets for a request of `method` that is answered with `bytes` and then, if `closes`, with a FIN.
fn check(method: &str, bytes: &'static str, closes: bool, expected: (u16, Option<&str>, &str)) {
    let origin = Origin::start(move |talk| {
        while talk.request()?.is_some() {
            talk.send(bytes)?;
            if closes {
                break;
            }
        }
        Ok(())
    });
    let rig = Rig::before(origin.address);
    let mut client = rig.client();
    // Twice on one connection: whatever follows a body that is none would be taken for the second answer.
    for _ in 0..2 {
        client.send(format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n"));
        let answer = client.answer_to(method);
        let found = (answer.status(), answer.field("content-length"), answer.text());
        assert_eq!((found, answer.end), (expected, End::Whole), "{method} {bytes:?}: {answer:?}");
    }
    drop(client);
    rig.settles();
}

#[test]
fn answers_end_where_their_own_rules_say() {
    // RFC 9112 section 6.3: until the connection closes, where nothing else is said.
    check("GET", "HTTP/1.0 200 OK\r\n\r\nto the end", true, (200, None, "to the end"));
    check("GET", "HTTP/1.1 200 OK\r\n\r\nto the end", true, (200, None, "to the end"));
    check("GET", "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", true, (200, None, ""));
    check("GET", "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi", true, (200, Some("2"), "hi"));
    check(
        "GET",
        "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nhi",
        false,
        (200, Some("2"), "hi"),
    );
    check("GET", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", false, (200, Some("0"), ""));
    check(
        "GET",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nhi\r\n0\r\n\r\n",
        false,
        (200, None, "hi"),
    );
    // RFC 9110 sections 9.3.2, 15.3.5, 15.4.5: no body, whatever the length says that one would have.
    check("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", false, (200, Some("5"), ""));
    check("HEAD", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", false, (200, None, ""));
    check("GET", "HTTP/1.1 204 No Content\r\n\r\n", false, (204, None, ""));
    check("GET", "HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\nContent-Length: 5\r\n\r\n", false, (304, None, ""));
    check("PUT", "HTTP/1.1 204 No Content\r\nETag: \"a\"\r\n\r\n", false, (204, None, ""));
    check("PUT", "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", false, (204, None, ""));
}

#[test]
fn an_answer_to_head_with_a_body_answers_nobody_else() {
    let origin = Origin::start(|talk| {
        while let Some(request) = talk.request()? {
            talk.send("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n")?;
            talk.send(if request.start.starts_with("HEAD") { "POISON" } else { "answer" })?;
        }
        Ok(())
    });
    let rig = Rig::before(origin.address);
    let mut client = rig.client();
    client.send("HEAD /a HTTP/1.1\r\nHost: a\r\n\r\nGET /b HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.answer_to("HEAD").status(), 200);
    assert_eq!(client.answer().text(), "answer");
    drop(client);
    rig.settles();
}

#[test]
fn an_origins_own_reason_phrase_is_passed_on() {
    let origin = Origin::answering(|_| "HTTP/1.1 404 Kein Auftrag\r\nContent-Length: 0\r\n\r\n");
    let rig = Rig::before(origin.address);
    assert_eq!(rig.get("/").start, "HTTP/1.1 404 Kein Auftrag");
    rig.settles();
}

#[test]
fn an_http_1_0_client_gets_what_it_can_read() {
    let origin = Origin::answering(|_| "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n");
    let rig = Rig::before(origin.address);
    let mut client = rig.client();
    client.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n");
    let answer = client.answer();
    assert_eq!((answer.text(), answer.end, answer.field("transfer-encoding")), ("hi", End::Close, None), "{answer:?}");
    rig.settles();
}

#[test]
fn trailers_come_through_both_ways() {
    let origin = Origin::start(|talk| {
        while let Some(request) = talk.request()? {
            assert_eq!((request.text(), request.field("te")), ("hello", Some("trailers")), "{request:?}");
            assert_eq!(request.trailers, [("x-sum".to_owned(), "5".to_owned())]);
            talk.send(
                "HTTP/1.1 200 OK\r\nTrailer: X-Check\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-Check: 2\r\n\r\n",
            )?;
        }
        Ok(())
    });
    let rig = Rig::before(origin.address);
    let mut client = rig.client();
    client.send(
        "POST / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: TE\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n\
         5\r\nhello\r\n0\r\nX-Sum: 5\r\n\r\n",
    );
    let answer = client.answer_to("POST");
    assert_eq!(answer.trailers, [("x-check".to_owned(), "2".to_owned())], "{answer:?}");
    assert_eq!(answer.text(), "hi");
    drop(client);
    rig.settles();
}

#[test]
fn vaxel_asks_for_the_body_itself_where_it_is_told_to() {
    let origin = Origin::answering(|request| {
        assert_eq!(request.field("expect"), None, "{request:?}");
        ok(request.text())
    });
    let rig = Rig::with(origin.address, |settings| {
        settings.upstreams.iter_mut().for_each(|upstream| upstream.expect = Expect::Answer);
    });
    let mut client = rig.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    assert_eq!(client.head().unwrap().unwrap().status(), 100);
    client.send("hello");
    assert_eq!(client.answer_to("POST").text(), "hello");
    drop(client);
    rig.settles();
}

/// An origin whose connections answer once, and are reset by the next request they read; it counts what it reads of
/// that kind.
fn once_each() -> (Origin, Arc<AtomicUsize>) {
    let cut = Arc::new(AtomicUsize::new(0));
    let counts = Arc::clone(&cut);
    let origin = Origin::start(move |talk| {
        if talk.request()?.is_some() {
            talk.send(ok("well"))?;
            if talk.request()?.is_some() {
                counts.fetch_add(1, Ordering::SeqCst);
                talk.reset_at_end();
            }
        }
        Ok(())
    });
    (origin, cut)
}

fn ask(client: &mut Client, method: &str) -> Message {
    client.send(format!("{method} / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi"));
    client.answer_to(method)
}

#[test]
fn a_read_on_a_connection_that_was_just_given_up_is_repeated_and_a_write_is_not() {
    for (method, status, reason) in [("GET", 200, None), ("PUT", 200, None), ("POST", 502, Some("upstream.reset"))] {
        let (origin, cut) = once_each();
        let rig = Rig::before(origin.address);
        let mut client = rig.client();
        assert_eq!(ask(&mut client, method).status(), 200);
        let second = ask(&mut client, method);
        assert_eq!((second.status(), second.reason()), (status, reason), "{method}: {second:?}");
        assert_eq!(cut.load(Ordering::SeqCst), 1, "the origin read it once on the old connection");
        assert_eq!(origin.connections(), 1 + usize::from(status == 200), "{method}");
        drop(client);
        rig.settles();
    }
}

#[test]
fn an_answer_that_stops_for_ever_is_given_up_and_never_ended_as_if_it_were_whole() {
    let origin = Origin::start(|talk| {
        talk.request()?;
        talk.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello")?;
        talk.rest().map(drop)
    });
    let rig = Rig::with(origin.address, |settings| {
        for upstream in &mut settings.upstreams {
            (upstream.timeouts.head, upstream.timeouts.total) = (SHORT, SHORT);
        }
    });
    let mut client = rig.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let answer = client.answer();
    assert_eq!((answer.status(), answer.text(), answer.end), (200, "hello", End::Broken), "{answer:?}");
    drop(client);
    rig.settles();
}

#[test]
fn an_answer_that_does_not_come_is_given_up_and_its_slot_is_not() {
    let (go, may_go) = mpsc::channel::<()>();
    let may_go = Mutex::new(may_go);
    let origin = Origin::start(move |talk| {
        while let Some(request) = talk.request()? {
            if request.start.contains("/late") {
                // Once it is dropped, all may go.
                let _ = may_go.lock().unwrap().recv();
            }
            talk.send(ok("hello"))?;
        }
        Ok(())
    });
    let rig = Rig::with(origin.address, |settings| {
        settings.upstreams.iter_mut().for_each(|upstream| upstream.timeouts.head = SHORT);
    });
    let mut client = rig.client();
    for (path, status, reason) in [("/", 200, None), ("/late", 504, Some("upstream.timeout")), ("/", 200, None)] {
        client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        let answer = client.answer();
        assert_eq!((answer.status(), answer.reason()), (status, reason), "{answer:?}");
    }
    assert!(rig.metric("vaxel_slots_zombie") >= 1.0, "it still works on it");
    drop((client, go));
    rig.settles();
}

/// A timeout that is to fire.
const SHORT: std::time::Duration = std::time::Duration::from_millis(200);
