//! Whole trips over real sockets, where a connection, a body or one of the two sides does not behave.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use super::DEADLINE;
use super::client::Fate;
use super::message::End;
use super::origin::{Origin, ok};
use super::rig::Rig;

#[test]
fn a_final_answer_reaches_a_client_that_is_still_sending() {
    let origin = Origin::start(|talk| {
        talk.head()?;
        talk.send("HTTP/1.1 413 Payload Too Large\r\nContent-Length: 4\r\nConnection: close\r\n\r\nfull")?;
        // As servers do that want their answer read: closing at once would reset the connection.
        talk.rest().map(drop)
    });
    let rig = Rig::before(origin.address);
    let mut client = rig.client();
    client.send("POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 5000000\r\n\r\n");
    for _ in 0..20 {
        if client.try_send(vec![b'x'; 10_000]).is_err() {
            break;
        }
    }
    let answer = client.answer_to("POST");
    assert_eq!((answer.status(), answer.text()), (413, "full"));
    drop(client);
    rig.settles();
}

#[test]
fn a_final_answer_survives_an_origin_that_closes_without_reading_on() {
    for _ in 0..20 {
        let origin = Origin::start(|talk| {
            talk.head()?;
            // What is unread when it closes makes the close a reset.
            talk.send("HTTP/1.1 413 Payload Too Large\r\nContent-Length: 4\r\nConnection: close\r\n\r\nfull")
        });
        let rig = Rig::before(origin.address);
        let mut client = rig.client();
        client.send("POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 5000000\r\n\r\n");
        client.send(vec![b'x'; 5_000_000]);
        let answer = client.answer_to("POST");
        assert_eq!((answer.status(), answer.text()), (413, "full"));
        drop(client);
        rig.settles();
    }
}

#[test]
fn our_own_refusal_reaches_a_client_that_sends_all_before_it_reads() {
    let origin = Origin::answering(|_| ok("yes"));
    let rig = Rig::with(origin.address, |settings| {
        for route in &mut settings.routes {
            route.max_body = Some(1000);
        }
    });
    for framing in ["Content-Length: 20000000", "Transfer-Encoding: chunked"] {
        let mut client = rig.client();
        client.send(format!("POST /upload HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n"));
        if framing.starts_with('T') {
            client.send("1312D00\r\n");
        }
        for _ in 0..20 {
            client.send(vec![b'x'; 1_000_000]);
        }
        let answer = client.answer_to("POST");
        assert_eq!((answer.status(), answer.reason()), (413, Some("request.too_large")), "{framing}");
        drop(client);
    }
    rig.settles();
}

#[test]
fn one_address_does_not_take_all_connections() {
    let origin = Origin::answering(|_| ok("yes"));
    let rig = Rig::with(origin.address, |settings| {
        for listener in &mut settings.listeners {
            listener.limits.connections_per_address = Some(2);
        }
    });
    let mut clients = [rig.client(), rig.client()];
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.answer().text(), "yes");
    }
    let mut third = rig.client();
    let answer = third.answer();
    assert_eq!((answer.status(), answer.reason()), (429, Some("connection.address")));
    assert_eq!((answer.field("retry-after"), answer.field("connection")), (Some("1"), Some("close")));
    assert_eq!(
        rig.metric(&format!("vaxel_listener_refused_total{{listener=\"{}\",reason=\"address\"}}", rig.address)),
        1.0
    );
    drop(clients);
    rig.until("the connections have ended", || rig.metric("vaxel_listener_connections") == 0.0);
    assert_eq!(rig.get("/").text(), "yes");
    rig.settles();
}

#[test]
fn one_connection_more_than_there_may_be_is_told_so() {
    let origin = Origin::answering(|_| ok("yes"));
    let rig = Rig::with(origin.address, |settings| {
        settings.listeners.iter_mut().for_each(|listener| listener.limits.connections = 1);
    });
    let mut first = rig.client();
    first.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(first.answer().text(), "yes");
    let answer = rig.client().answer();
    assert_eq!((answer.status(), answer.reason()), (503, Some("connection.limit")));
    assert_eq!((answer.field("retry-after"), answer.field("connection")), (Some("1"), Some("close")));
    drop(first);
    rig.settles();
}

#[test]
fn a_body_that_stops_is_given_up_and_its_slot_is_free() {
    let origin = Origin::start(|talk| talk.rest().map(drop));
    let rig = Rig::with(origin.address, |settings| {
        for route in &mut settings.routes {
            route.body_timeout = std::time::Duration::from_millis(50);
        }
    });
    let mut client = rig.client();
    client.send("POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 5000\r\n\r\nhello");
    let answer = client.answer_to("POST");
    assert_eq!((answer.status(), answer.reason()), (400, Some("request.body")));
    assert!(client.is_closed());
    rig.settles();
}

#[test]
fn the_origin_decides_on_a_body_that_is_only_announced() {
    let origin = Origin::start(|talk| {
        let Some(mut request) = talk.head()? else { return Ok(()) };
        assert_eq!(request.field("expect"), Some("100-continue"));
        if request.start.contains("/no ") {
            return talk.send("HTTP/1.1 417 Expectation Failed\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno");
        }
        talk.send("HTTP/1.1 100 Continue\r\n\r\n")?;
        request.request_body(&mut talk.reader);
        talk.send(ok(request.text()))
    });
    let rig = Rig::before(origin.address);
    let head =
        |path: &str| format!("POST {path} HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    let mut refused = rig.client();
    refused.send(head("/no"));
    let answer = refused.answer_to("POST");
    assert_eq!((answer.status(), answer.text()), (417, "no"), "no body was asked for: {answer:?}");
    let mut taken = rig.client();
    taken.send(head("/yes"));
    let interim = taken.head().unwrap().unwrap();
    assert_eq!(interim.status(), 100);
    taken.send("hello");
    assert_eq!(taken.answer_to("POST").text(), "hello");
    drop((refused, taken));
    rig.settles();
}

#[test]
fn a_body_is_streamed_both_ways() {
    let (tell, told) = mpsc::channel();
    let origin = Origin::start(move |talk| {
        let Some(_) = talk.head()? else { return Ok(()) };
        let mut first = [0; 5];
        std::io::Read::read_exact(&mut talk.reader, &mut first)?;
        tell.send(first).expect("the test listens");
        talk.send("HTTP/1.1 200 OK\r\nCache-Control: no-store\r\nContent-Length: 10\r\n\r\nfirst")?;
        let mut second = [0; 5];
        std::io::Read::read_exact(&mut talk.reader, &mut second)?;
        talk.send(second)
    });
    let rig = Rig::before(origin.address);
    let mut client = rig.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello");
    assert_eq!(&told.recv_timeout(DEADLINE).expect("the first part goes on before the last has come"), b"hello");
    assert_eq!(client.head().unwrap().unwrap().status(), 200);
    assert_eq!(client.bytes(5), b"first");
    client.send("again");
    assert_eq!(client.bytes(5), b"again");
    drop(client);
    rig.settles();
}

#[test]
fn connections_that_the_origin_closes_cost_no_request() {
    for farewell in ["", "Connection: close\r\n"] {
        let origin = Origin::start(move |talk| {
            // One answer, then the connection goes, announced or not.
            if talk.request()?.is_some() {
                talk.send(format!(
                    "HTTP/1.1 200 OK\r\nCache-Control: no-store\r\nContent-Length: 2\r\n{farewell}\r\nhi"
                ))?;
            }
            Ok(())
        });
        let rig = Rig::before(origin.address);
        for _ in 0..50 {
            assert_eq!(rig.get("/").status(), 200);
        }
        rig.settles();
    }
}

#[test]
fn a_write_is_never_sent_twice() {
    let requests = std::sync::Arc::new(AtomicUsize::new(0));
    let seen = std::sync::Arc::clone(&requests);
    let origin = Origin::start(move |talk| {
        if talk.request()?.is_some() {
            seen.fetch_add(1, Ordering::SeqCst);
            talk.reset_at_end();
        }
        Ok(())
    });
    let rig = Rig::before(origin.address);
    let mut client = rig.client();
    client.send("POST /order HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi");
    let answer = client.answer_to("POST");
    assert_eq!((answer.status(), answer.reason()), (502, Some("upstream.reset")));
    assert_eq!(requests.load(Ordering::SeqCst), 1);
    drop(client);
    rig.settles();
}

#[test]
fn a_dead_backend_is_named_and_a_live_one_found_again() {
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = gone.local_addr().unwrap();
    drop(gone);
    let rig = Rig::before(address);
    let answer = rig.get("/");
    assert_eq!((answer.status(), answer.reason()), (502, Some("upstream.connect")));
    rig.settles();
}

#[test]
fn a_body_that_breaks_off_is_not_ended_as_if_it_were_whole() {
    for head in
        ["Content-Length: 100", "Transfer-Encoding: chunked", "Cache-Control: max-age=60\r\nContent-Length: 100"]
    {
        let origin = Origin::start(move |talk| {
            if talk.request()?.is_some() {
                talk.send(format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n5\r\nhello\r\n"))?;
                talk.reset_at_end();
            }
            Ok(())
        });
        let rig = Rig::before(origin.address);
        let mut client = rig.client();
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        match client.fate("GET") {
            Fate::Answered(answer) => {
                assert!(answer.status() == 502 || answer.end == End::Broken, "{head}: {answer:?}")
            }
            Fate::Dropped => {}
        }
        drop(client);
        rig.settles();
    }
}

#[test]
fn ambiguous_answers_are_not_passed_on() {
    for (what, answer) in [
        ("doubled length", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nhi"),
        ("listed length", "HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nhi"),
        (
            "both framings",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
        ),
        ("another coding", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nhi"),
        ("an unasked switch", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"),
        ("no such status", "HTTP/1.1 999 What\r\nContent-Length: 2\r\n\r\nhi"),
        ("a status too small", "HTTP/1.1 99 What\r\nContent-Length: 2\r\n\r\nhi"),
        ("a status too large", "HTTP/1.1 1000 What\r\nContent-Length: 2\r\n\r\nhi"),
        ("no status", "HTTP/1.1 abc OK\r\nContent-Length: 2\r\n\r\nhi"),
        ("a negative status", "HTTP/1.1 -20 OK\r\nContent-Length: 2\r\n\r\nhi"),
    ] {
        let origin = Origin::start(move |talk| {
            if talk.request()?.is_some() {
                talk.send(answer)?;
            }
            Ok(())
        });
        let rig = Rig::before(origin.address);
        let got = rig.get("/");
        assert_eq!((got.status(), got.reason()), (502, Some("upstream.protocol")), "{what}: {got:?}");
        rig.settles();
    }
}

#[test]
fn fields_of_the_origins_hop_stay_behind() {
    let origin = Origin::answering(
        |_| "HTTP/1.1 200 OK\r\nConnection: X-Secret\r\nX-Secret: 1\r\nKeep-Alive: timeout=5\r\nX-Kept: 2\r\nContent-Length: 2\r\n\r\nhi",
    );
    let rig = Rig::before(origin.address);
    let answer = rig.get("/");
    assert_eq!((answer.field("x-secret"), answer.field("keep-alive"), answer.field("x-kept")), (None, None, Some("2")));
    assert!(answer.field("date").is_some());
    rig.settles();
}

#[test]
fn a_switch_of_protocols_is_a_tunnel_and_keeps_its_slot() {
    let origin = Origin::start(|talk| {
        let Some(request) = talk.head()? else { return Ok(()) };
        assert_eq!(request.field("upgrade"), Some("websocket"));
        talk.send("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n")?;
        let mut bytes = [0; 6];
        std::io::Read::read_exact(&mut talk.reader, &mut bytes)?;
        talk.send(bytes)?;
        talk.rest().map(drop)
    });
    let rig = Rig::before(origin.address);
    let mut client = rig.client();
    client.send("GET /socket HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    let switched = client.head().unwrap().unwrap();
    assert_eq!((switched.status(), switched.field("upgrade")), (101, Some("websocket")));
    // No request at all, to the guard of HTTP/1.1.
    client.send("GET \n\0");
    assert_eq!(client.bytes(6), b"GET \n\0");
    rig.until("the tunnel holds a slot", || rig.metric("vaxel_slots_busy") == 1.0);
    client.reset();
    rig.settles();
}

#[test]
fn who_has_said_nothing_does_not_hold_up_a_drain() {
    let rig = Rig::before(Origin::answering(|_| ok("hi")).address);
    let mut silent = rig.client();
    rig.until("it is connected", || rig.metric("vaxel_listener_connections") == 1.0);
    let stopped = rig.stop();
    assert!(silent.is_closed());
    stopped.join().unwrap();
}

#[test]
fn a_request_under_way_ends_well_in_a_drain() {
    let (go, may_go) = mpsc::channel::<()>();
    let may_go = std::sync::Mutex::new(may_go);
    let (tell, told) = mpsc::channel();
    let origin = Origin::start(move |talk| {
        if talk.request()?.is_some() {
            tell.send(()).expect("the test listens");
            let _ = may_go.lock().unwrap().recv_timeout(DEADLINE);
            talk.send(ok("late"))?;
        }
        Ok(())
    });
    let rig = Rig::before(origin.address);
    let mut client = rig.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    told.recv_timeout(DEADLINE).expect("the request is under way");
    let stopped = rig.stop();
    go.send(()).unwrap();
    assert_eq!(client.answer().text(), "late");
    assert!(client.is_closed());
    stopped.join().unwrap();
}
