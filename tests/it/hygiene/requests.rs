//! Requests.

use crate::wire::client::{Client, Fate};
use crate::wire::message::{End, Message};
use crate::wire::origin::{Origin, ok};
use crate::wire::rig::Rig;

/// A request that must not pass; the word `evil` stands in it wherever something could pass.
struct Hostile {
    what: &'static str,
    bytes: Vec<u8>,
    /// What it is answered with; 0 where the client may be dropped without an answer.
    status: &'static [u16],
}

/// Refused because nobody can tell where it ends: the connection must end with it.
fn unframed() -> Vec<Hostile> {
    let post = |fields: &str, body: &str| format!("POST /evil HTTP/1.1\r\nHost: a\r\n{fields}\r\n{body}");
    let get = |fields: &str| format!("GET /evil HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
    let hidden = "0\r\n\r\nGET /evil2 HTTP/1.1\r\nHost: a\r\n\r\n";
    let rows: Vec<(&'static str, String)> = vec![
        ("CL before TE", post("Content-Length: 4\r\nTransfer-Encoding: chunked\r\n", hidden)),
        ("TE before CL", post("Transfer-Encoding: chunked\r\nContent-Length: 4\r\n", hidden)),
        ("CL 0 and TE", post("Content-Length: 0\r\nTransfer-Encoding: chunked\r\n", hidden)),
        ("TE gzip", post("Transfer-Encoding: gzip\r\n", hidden)),
        ("TE gzip, chunked", post("Transfer-Encoding: gzip, chunked\r\n", hidden)),
        ("TE chunked, gzip", post("Transfer-Encoding: chunked, gzip\r\n", hidden)),
        ("TE xchunked", post("Transfer-Encoding: xchunked\r\n", hidden)),
        ("TE identity", post("Transfer-Encoding: identity\r\n", hidden)),
        ("TE identity beside CL", post("Content-Length: 4\r\nTransfer-Encoding: identity\r\n", hidden)),
        ("TE chunked twice in one line", post("Transfer-Encoding: chunked, chunked\r\n", hidden)),
        ("TE in two lines", post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", hidden)),
        ("TE chunked then identity", post("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", hidden)),
        ("TE quoted", post("Transfer-Encoding: \"chunked\"\r\n", hidden)),
        ("TE with a parameter", post("Transfer-Encoding: chunked;evil=1\r\n", hidden)),
        ("TE with a comma before", post("Transfer-Encoding: ,chunked\r\n", hidden)),
        ("TE after a vertical tab", post("Transfer-Encoding: \x0bchunked\r\n", hidden)),
        ("TE empty", post("Transfer-Encoding:\r\n", hidden)),
        ("TE with a space before the colon", post("Transfer-Encoding : chunked\r\n", hidden)),
        ("TE folded", post("Transfer-Encoding:\r\n chunked\r\n", hidden)),
        ("TE on HTTP/1.0", format!("POST /evil HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n{hidden}")),
        ("CL twice, equal", post("Content-Length: 4\r\nContent-Length: 4\r\n", "evil")),
        ("CL twice, different", post("Content-Length: 4\r\nContent-Length: 40\r\n", hidden)),
        ("CL list, equal", post("Content-Length: 4, 4\r\n", "evil")),
        ("CL list, different", post("Content-Length: 4, 40\r\n", hidden)),
        ("CL with a plus", post("Content-Length: +4\r\n", "evil")),
        ("CL negative", post("Content-Length: -4\r\n", "evil")),
        ("CL hexadecimal", post("Content-Length: 0x4\r\n", "evil")),
        ("CL with an underscore", post("Content-Length: 1_0\r\n", "evil")),
        ("CL with a space inside", post("Content-Length: 4 4\r\n", "evil")),
        ("CL with a fraction", post("Content-Length: 4.0\r\n", "evil")),
        ("CL empty", post("Content-Length:\r\n", "evil")),
        ("CL beyond 64 bits", post("Content-Length: 18446744073709551620\r\n", "evil")),
        ("CL with a space before the colon", post("Content-Length : 4\r\n", "evil")),
        ("CL folded", post("Content-Length:\r\n 4\r\n", "evil")),
        ("Host missing", "GET /evil HTTP/1.1\r\nX: y\r\n\r\n".to_owned()),
        ("Host twice, equal", get("Host: a\r\n")),
        ("Host twice, different", get("Host: evil\r\n")),
        ("Host with a space before the colon", "GET /evil HTTP/1.1\r\nHost : a\r\n\r\n".to_owned()),
        ("absolute-form without Host", "GET http://a/evil HTTP/1.1\r\n\r\n".to_owned()),
        ("bare LF after the request line", "GET /evil HTTP/1.1\nHost: a\r\n\r\n".to_owned()),
        ("bare LF after a field", get("X: y\n")),
        ("bare LF for the end of the head", "GET /evil HTTP/1.1\r\nHost: a\r\n\n".to_owned()),
        ("bare LF throughout", "GET /evil HTTP/1.1\nHost: a\n\n".to_owned()),
        ("bare LF hides a CL", post("X: y\nContent-Length: 4\r\n", "evil")),
        ("bare CR in a value", get("X: y\rEvil: z\r\n")),
        ("bare CR before the colon", get("X\r: evil\r\n")),
        ("bare CR for the end of the head", "GET /evil HTTP/1.1\r\nHost: a\r\n\rX: y\r\n\r\n".to_owned()),
        ("CR CR LF", get("X: y\r\r\n")),
        ("NUL in a value", get("X: y\0evil\r\n")),
        ("NUL in a name", get("X\0: evil\r\n")),
        ("NUL in the target", "GET /evil\0 HTTP/1.1\r\nHost: a\r\n\r\n".to_owned()),
        ("NUL in the method", "G\0ET /evil HTTP/1.1\r\nHost: a\r\n\r\n".to_owned()),
        ("obs-fold with a space", get("X: y\r\n evil\r\n")),
        ("obs-fold with a tab", get("X: y\r\n\tevil: z\r\n")),
        ("first field indented", "GET /evil HTTP/1.1\r\n Host: a\r\n\r\n".to_owned()),
        ("space before the colon", get("X : evil\r\n")),
        ("no name before the colon", get(": evil\r\n")),
        ("no colon", get("evil\r\n")),
        ("space in a name", get("X Y: evil\r\n")),
        ("a name of non-ASCII", get("X\u{e9}: evil\r\n")),
        ("a control character in a value", get("X: \x01evil\r\n")),
        ("DEL in a value", get("X: \x7fevil\r\n")),
        ("a control character in the target", "GET /evil\x01 HTTP/1.1\r\nHost: a\r\n\r\n".to_owned()),
        ("DEL in the target", "GET /evil\x7f HTTP/1.1\r\nHost: a\r\n\r\n".to_owned()),
        ("space in the target", "GET /evil x HTTP/1.1\r\nHost: a\r\n\r\n".to_owned()),
        ("two spaces before the target", "GET  /evil HTTP/1.1\r\nHost: a\r\n\r\n".to_owned()),
        ("two spaces before the version", "GET /evil  HTTP/1.1\r\nHost: a\r\n\r\n".to_owned()),
        ("space after the version", "GET /evil HTTP/1.1 \r\nHost: a\r\n\r\n".to_owned()),
        ("space before the method", " GET /evil HTTP/1.1\r\nHost: a\r\n\r\n".to_owned()),
        ("tab for space", "GET\t/evil\tHTTP/1.1\r\nHost: a\r\n\r\n".to_owned()),
        ("no method", "/evil HTTP/1.1\r\nHost: a\r\n\r\n".to_owned()),
        ("a method with a colon", "GE:T /evil HTTP/1.1\r\nHost: a\r\n\r\n".to_owned()),
        ("HTTP/0.9", "GET /evil\r\n\r\n".to_owned()),
        ("version HTTP/2.0", "GET /evil HTTP/2.0\r\nHost: a\r\n\r\n".to_owned()),
        ("version HTTP/1.2", "GET /evil HTTP/1.2\r\nHost: a\r\n\r\n".to_owned()),
        ("version HTTP/1.10", "GET /evil HTTP/1.10\r\nHost: a\r\n\r\n".to_owned()),
        ("version http/1.1", "GET /evil http/1.1\r\nHost: a\r\n\r\n".to_owned()),
        ("version in full-width digits", "GET /evil HTTP/\u{ff11}.1\r\nHost: a\r\n\r\n".to_owned()),
        ("a response", "HTTP/1.1 200 evil\r\nHost: a\r\n\r\n".to_owned()),
        ("a head of 200 kB", get(&format!("X: {}evil\r\n", "x".repeat(200_000)))),
        ("a target of 100 kB", format!("GET /evil{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(100_000))),
        ("1,000 fields", get(&"X: evil\r\n".repeat(1_000))),
        ("1,000 empty lines", format!("{}{}", "\r\n".repeat(1_000), get(""))),
        ("a preface of HTTP/2 that is none", "PRI * HTTP/2.0\r\n\r\nevil\r\n\r\n".to_owned()),
    ];
    let mut rows: Vec<Hostile> = rows
        .into_iter()
        .map(|(what, text)| Hostile { what, bytes: text.into_bytes(), status: &[400, 414, 431, 501] })
        .collect();
    // A ClientHello of TLS 1.2 up to its random, as a browser sends it to the wrong port.
    let hello = [b"\x16\x03\x01\x00\xc8\x01\x00\x00\xc4\x03\x03".as_slice(), b"evil".repeat(40).as_slice()].concat();
    rows.push(Hostile { what: "TLS to the plain port", bytes: hello, status: &[400] });
    rows.push(Hostile { what: "half a head", bytes: b"GET /evil HTTP/1.1\r\nHost: a".to_vec(), status: &[0, 400] });
    rows.push(Hostile { what: "half a request line", bytes: b"GET /evil".to_vec(), status: &[0, 400] });
    rows
}

/// Refused for what it says; where it ends is clear, so the connection may go on.
fn unacceptable() -> Vec<Hostile> {
    let get = |target: &str| format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
    let host = |host: &str| format!("GET /evil HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let rows: Vec<(&'static str, u16, String)> = vec![
        ("CONNECT", 405, "CONNECT evil:443 HTTP/1.1\r\nHost: evil:443\r\n\r\n".to_owned()),
        ("TRACE", 405, "TRACE /evil HTTP/1.1\r\nHost: a\r\n\r\n".to_owned()),
        ("Host empty", 400, host("")),
        ("Host with a space", 400, host("a evil")),
        ("Host with a comma", 400, host("a,evil")),
        ("Host with a slash", 400, host("a/evil")),
        ("Host with a user", 400, host("evil@a")),
        ("Host with a query", 400, host("a?evil")),
        ("Host with a fragment", 400, host("a#evil")),
        ("Host with a name for a port", 400, host("a:evil")),
        ("Host with a port out of range", 400, host("a:655360")),
        ("Host with two ports", 400, host("a:80:80")),
        ("Host with half a bracket", 400, host("[::1")),
        ("Host with more after the bracket", 400, host("[::1]evil")),
        ("Host of non-ASCII", 400, host("\u{e9}vil")),
        ("Host encoded", 400, host("a%2eevil")),
        ("absolute-form against Host", 400, get("http://b/evil")),
        ("absolute-form with another port than Host", 400, get("http://a:81/evil")),
        ("absolute-form with a user", 400, get("http://evil@a/evil")),
        ("a target without a slash", 400, get("evil")),
        ("authority-form without CONNECT", 400, "GET evil:80 HTTP/1.1\r\nHost: evil:80\r\n\r\n".to_owned()),
        ("a bare authority that is the Host", 400, "GET evil HTTP/1.1\r\nHost: evil\r\n\r\n".to_owned()),
        ("asterisk-form without OPTIONS", 400, "GET * HTTP/1.1\r\nHost: evil\r\n\r\n".to_owned()),
        ("above the root", 400, get("/../evil")),
        ("above the root later", 400, get("/a/../../evil")),
        ("above the root, encoded", 400, get("/%2e%2e/evil")),
        ("dots behind an encoded slash", 400, get("/a/..%2fevil")),
        ("dots between encoded slashes", 400, get("/a/b%2f..%2fevil")),
        ("encoded dots between encoded slashes", 400, get("/a/b%2f%2e%2e%2fevil")),
        ("dots between encoded backslashes", 400, get("/a/b%5c..%5cevil")),
        ("a backslash", 400, get("/a\\..\\evil")),
        ("an encoded NUL", 400, get("/evil%00.html")),
        ("half an encoding", 400, get("/evil%2")),
        ("no encoding", 400, get("/evil%zz")),
    ];
    rows.into_iter()
        .map(|(what, status, text)| Hostile {
            what,
            bytes: text.into_bytes(),
            status: if status == 405 { &[405] } else { &[400] },
        })
        .collect()
}

/// What the origin must not hear, in whatever case.
fn heard_evil(origin: &Origin) -> bool {
    origin.heard().to_ascii_lowercase().contains("evil")
}

fn refused(rig: &Rig, origin: &Origin, hostile: &Hostile) -> Client {
    let Hostile { what, bytes, status } = hostile;
    let mut client = rig.client();
    client.send(bytes);
    client.finish_if(status.contains(&0));
    match client.fate("GET") {
        Fate::Answered(answer) => {
            assert!(status.contains(&answer.status()), "{what}: {answer:?}");
            assert_eq!(answer.end, End::Whole, "{what}: {answer:?}");
            assert!(answer.reason().is_some_and(|reason| reason.starts_with("request.")), "{what}: {answer:?}");
            assert_eq!(answer.field("content-type"), Some("application/problem+json"), "{what}: {answer:?}");
        }
        Fate::Dropped => assert!(status.contains(&0), "{what}: dropped without an answer"),
    }
    assert_eq!(origin.heard(), "", "{what}");
    client
}

#[test]
fn what_has_no_clear_end_is_refused_and_the_connection_with_it() {
    let origin = Origin::answering(|_| ok("yes"));
    let rig = Rig::before(origin.address);
    let rows = unframed();
    assert!(rows.len() >= 80, "{}", rows.len());
    for hostile in &rows {
        let mut client = refused(&rig, &origin, hostile);
        assert!(client.is_closed(), "{}: still open", hostile.what);
    }
    rig.settles();
    assert_eq!(origin.connections(), 0, "nothing was even connected for");
    assert_eq!(rig.get("/fence").text(), "yes");
    assert!(origin.heard().starts_with("GET /fence HTTP/1.1\r\n"), "{}", origin.heard());
}

#[test]
fn every_refusal_says_why_is_counted_and_ends_the_connection() {
    let origin = Origin::answering(|_| ok("yes"));
    let rig = Rig::with(origin.address, |settings| {
        for listener in &mut settings.listeners {
            listener.limits.head_size = 256 * 1024;
        }
    });
    let (long, longer) = ("x".repeat(70_000), "x".repeat(300_000));
    let rows = [
        ("GET / HTTP/1.1\r\nHost: a\n\r\n".to_owned(), 400, "request.malformed"),
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), 400, "request.host"),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n".to_owned(), 501, "request.coding"),
        ("G(T / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 400, "request.malformed"),
        (format!("GET / HTTP/1.1\r\nHost: a\r\nX: {longer}\r\n\r\n"), 431, "request.head_too_large"),
        (format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n"), 414, "request.target_too_long"),
    ];
    for (text, status, reason) in rows {
        let before = rig.metric(&format!("vaxel_refusals_total{{route=\"_none\",reason=\"{reason}\"}}"));
        let mut client = rig.client();
        client.send(&text);
        let answer = client.answer();
        assert_eq!((answer.status(), answer.reason()), (status, Some(reason)), "{answer:?}");
        for field in ["date", "via", "proxy-status"] {
            assert!(answer.field(field).is_some(), "{field}: {answer:?}");
        }
        assert_eq!(answer.field("connection"), Some("close"));
        assert!(client.is_closed());
        let after = rig.metric(&format!("vaxel_refusals_total{{route=\"_none\",reason=\"{reason}\"}}"));
        assert_eq!(after, before + 1.0, "{reason}");
    }
    rig.settles();
}

#[test]
fn an_answer_that_looks_like_hypers_own_refusal_is_passed_on() {
    let forged = "HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
    let origin = Origin::start(move |talk| {
        while talk.request()?.is_some() {
            talk.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 2 * forged.len()))?;
            // Each half in a write of its own.
            talk.send(forged)?;
            talk.send(forged)?;
        }
        Ok(())
    });
    let rig = Rig::before(origin.address);
    let mut client = rig.client();
    for _ in 0..3 {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.answer().text(), forged.repeat(2));
    }
    drop(client);
    rig.settles();
}

#[test]
fn what_is_no_acceptable_request_is_refused_before_the_origin_hears_of_it() {
    let origin = Origin::answering(|_| ok("yes"));
    let rig = Rig::before(origin.address);
    for hostile in &unacceptable() {
        drop(refused(&rig, &origin, hostile));
    }
    rig.settles();
    assert_eq!(origin.connections(), 0);
}

#[test]
fn a_refused_request_in_pieces_is_refused_all_the_same() {
    let origin = Origin::answering(|_| ok("yes"));
    let rig = Rig::before(origin.address);
    for hostile in unframed().iter().filter(|hostile| hostile.bytes.len() < 400 && !hostile.status.contains(&0)) {
        let mut client = rig.client();
        for byte in &hostile.bytes {
            if client.try_send([*byte]).is_err() {
                break;
            }
        }
        if let Fate::Answered(answer) = client.fate("GET") {
            assert!(hostile.status.contains(&answer.status()), "{}: {answer:?}", hostile.what);
        }
        assert_eq!(origin.heard(), "", "{}", hostile.what);
    }
    rig.settles();
}

#[test]
fn what_comes_after_a_sound_request_is_judged_as_well() {
    let origin = Origin::answering(|_| ok("yes"));
    let rig = Rig::before(origin.address);
    let sound = "POST /sound HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi";
    for hostile in unframed().iter().filter(|hostile| !hostile.status.contains(&0)) {
        // The preface only counts as one at the very beginning.
        let mut client = rig.client();
        client.send([sound.as_bytes(), &hostile.bytes].concat());
        assert_eq!(client.answer().text(), "yes", "{}", hostile.what);
        let answer = client.answer();
        assert!(hostile.status.contains(&answer.status()), "{}: {answer:?}", hostile.what);
        assert!(answer.reason().is_some(), "{}: {answer:?}", hostile.what);
        assert!(client.is_closed(), "{}: still open", hostile.what);
    }
    rig.settles();
    assert!(!heard_evil(&origin), "{}", origin.heard());
}

/// Chunked bodies that break: the head is sound, so it may be on its way already.
const BROKEN_BODIES: &[(&str, &str)] = &[
    ("no size", "\r\nevil\r\n0\r\n\r\n"),
    ("no number for a size", "xyz\r\nevil\r\n0\r\n\r\n"),
    ("a size with 0x", "0x4\r\nevil\r\n0\r\n\r\n"),
    ("a size with a plus", "+4\r\nevil\r\n0\r\n\r\n"),
    ("a negative size", "-4\r\nevil\r\n0\r\n\r\n"),
    ("a size after a space", " 4\r\nevil\r\n0\r\n\r\n"),
    ("a size with an underscore", "0_4\r\nevil\r\n0\r\n\r\n"),
    ("a size beyond 64 bits", "10000000000000004\r\nevil\r\n0\r\n\r\n"),
    ("a size of a hundred zeros", "00000000000000000000000000000000000000000000000004\r\nevil\r\n0\r\n\r\n"),
    ("a size that ends with LF", "4\nevil\r\n0\r\n\r\n"),
    ("a size that ends with CR", "4\revil\r\n0\r\n\r\n"),
    ("a chunk longer than its size", "3\r\nevil\r\n0\r\n\r\n"),
    ("a chunk shorter than its size", "5\r\nevil\r\n0\r\n\r\n"),
    ("a chunk that ends with LF", "4\r\nevil\n0\r\n\r\n"),
    ("a chunk with nothing after it", "4\r\nevil0\r\n\r\n"),
    ("an extension with LF", "4;x=y\nevil\r\n0\r\n\r\n"),
    ("an extension with CR", "4;x=\ry\r\nevil\r\n0\r\n\r\n"),
    ("an extension with NUL", "4;x=\0y\r\nevil\r\n0\r\n\r\n"),
    ("junk after the size", "4 evil\r\nevil\r\n0\r\n\r\n"),
    ("a last chunk that ends with LF", "0\n\r\n"),
    ("trailers that end with LF", "0\r\n\n"),
    ("a Content-Length in the trailers", "0\r\nContent-Length: 4\r\n\r\n"),
    ("a Transfer-Encoding in the trailers", "0\r\nTransfer-Encoding: chunked\r\n\r\n"),
    ("a Host in the trailers", "0\r\nHost: evil\r\n\r\n"),
    ("a folded trailer", "0\r\nX: y\r\n evil\r\n\r\n"),
];

#[test]
fn a_broken_chunked_body_never_ends_upstream_as_if_it_were_whole() {
    let (ends, ended) = std::sync::mpsc::channel();
    let origin = Origin::start(move |talk| {
        let request = talk.request();
        let end = request.as_ref().ok().and_then(Option::as_ref).map_or(End::Broken, |request| request.end);
        ends.send(end).expect("the test listens");
        if request?.is_some() {
            talk.send(ok("taken"))?;
        }
        Ok(())
    });
    let rig = Rig::before(origin.address);
    for (what, body) in BROKEN_BODIES {
        let connections = origin.connections();
        let mut client = rig.client();
        client.send(format!("POST /sound HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}"));
        let answer = client.answer();
        assert_eq!(answer.status(), 400, "{what}: {answer:?}");
        assert!(client.is_closed(), "{what}: still open");
        rig.until("the slot is free", || rig.metric("vaxel_slots_busy") + rig.metric("vaxel_slots_zombie") == 0.0);
        for _ in connections..origin.connections() {
            if let Ok(end) = ended.recv_timeout(crate::wire::DEADLINE) {
                assert_eq!(end, End::Broken, "{what}");
            }
        }
    }
    rig.settles();
}

#[test]
fn a_body_that_stops_early_never_ends_upstream_as_if_it_were_whole() {
    let (ends, ended) = std::sync::mpsc::channel();
    let origin = Origin::start(move |talk| {
        while let Some(request) = talk.request()? {
            ends.send(request.end).expect("the test listens");
            if request.end == End::Broken {
                return Ok(());
            }
            talk.send(ok("taken"))?;
        }
        Ok(())
    });
    let rig = Rig::before(origin.address);
    for (sent, (what, rest)) in (1..).zip([
        ("a length not reached", "Content-Length: 40\r\n\r\nhello"),
        ("no last chunk", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"),
        ("half a chunk", "Transfer-Encoding: chunked\r\n\r\n50\r\nhello"),
        ("no end of the trailers", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX: y\r\n"),
    ]) {
        let mut client = rig.client();
        client.send(format!("POST /sound HTTP/1.1\r\nHost: a\r\n{rest}"));
        // Of a body that has broken before anything was sent the origin would not hear at all.
        rig.until("the origin hears of it", || origin.heard().matches("hello").count() == sent);
        client.finish();
        if let Fate::Answered(answer) = client.fate("POST") {
            assert_eq!(answer.status(), 400, "{what}: {answer:?}");
        }
        assert!(client.is_closed(), "{what}: still open");
        assert_eq!(ended.recv_timeout(crate::wire::DEADLINE), Ok(End::Broken), "{what}");
    }
    rig.settles();
}

#[test]
fn an_upgrade_to_h2c_opens_no_tunnel() {
    let origin = Origin::answering(|request| {
        for name in ["upgrade", "http2-settings", "connection"] {
            assert_eq!(request.field(name), None, "{request:?}");
        }
        ok("plain")
    });
    let rig = Rig::before(origin.address);
    let mut client = rig.client();
    client.send(
        "GET /first HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\
         HTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
    );
    let answer = client.answer();
    assert_eq!((answer.status(), answer.text()), (200, "plain"), "the request itself is sound");
    client.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0evil");
    assert_eq!(client.answer().status(), 400);
    assert!(client.is_closed());
    assert!(!heard_evil(&origin));
    drop(client);
    rig.settles();
}

#[test]
fn a_request_that_comes_back_is_a_loop() {
    let origin = Origin::answering(|_| ok("yes"));
    let rig = Rig::before(origin.address);
    let via = rig.get("/first").field("via").expect("the response is signed").to_owned();
    let own = via.split(' ').next_back().expect("a pseudonym");
    for via in [format!("1.1 {own}"), format!("1.0 x, 1.1 {own} (comment)"), format!("1.1 x\r\nVia: 2 {own}")] {
        let mut client = rig.client();
        client.send(format!("GET /evil HTTP/1.1\r\nHost: a\r\nVia: {via}\r\n\r\n"));
        let answer = client.answer();
        assert_eq!((answer.status(), answer.reason()), (508, Some("request.loop")), "{via}");
    }
    assert!(!heard_evil(&origin));
    let mut client = rig.client();
    client.send("GET /other HTTP/1.1\r\nHost: a\r\nVia: 1.1 vaxel-other\r\n\r\n");
    assert_eq!(client.answer().status(), 200, "another proxy of the same kind is no loop");
    drop(client);
    rig.settles();
}

/// A valid request, and a check of what the origin reads.
type Odd = (&'static str, &'static str, fn(&Message));

const ODDITIES: &[Odd] = &[
    ("HTTP/1.0 without Host", "GET /o HTTP/1.0\r\n\r\n", |r| assert_eq!(r.start, "GET /o HTTP/1.1")),
    ("HTTP/1.0 with Host", "GET /o HTTP/1.0\r\nHost: a\r\n\r\n", |r| assert_eq!(r.field("host"), Some("a"))),
    ("HTTP/1.0 with a body", "POST /o HTTP/1.0\r\nContent-Length: 2\r\n\r\nhi", |r| assert_eq!(r.text(), "hi")),
    ("names in lower case", "GET /o HTTP/1.1\r\nhost: a\r\nx-odd: 1\r\n\r\n", |r| {
        assert_eq!(r.field("x-odd"), Some("1"));
    }),
    ("no space after the colon", "GET /o HTTP/1.1\r\nHost:a\r\nX-Odd:1\r\n\r\n", |r| {
        assert_eq!(r.field("x-odd"), Some("1"));
    }),
    ("space and tab around a value", "GET /o HTTP/1.1\r\nHost: \t a\t \r\n\r\n", |r| {
        assert_eq!(r.field("host"), Some("a"));
    }),
    ("an empty value", "GET /o HTTP/1.1\r\nHost: a\r\nX-Odd:\r\n\r\n", |r| assert_eq!(r.field("x-odd"), Some(""))),
    ("a value beyond ASCII", "GET /o HTTP/1.1\r\nHost: a\r\nX-Odd: \u{e9}\r\n\r\n", |r| {
        assert_eq!(r.field("x-odd"), Some("\u{e9}"));
    }),
    ("a field of every odd character", "GET /o HTTP/1.1\r\nHost: a\r\n!#$%&'*+-.^_`|~9: 1\r\n\r\n", |r| {
        assert_eq!(r.field("!#$%&'*+-.^_`|~9"), Some("1"));
    }),
    ("90 fields", "90", |r| assert!(r.fields.len() >= 90)),
    ("a field of 40 kB", "40k", |r| assert_eq!(r.field("x-odd").map(str::len), Some(40_000))),
    ("OPTIONS *", "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", |r| assert_eq!(r.start, "OPTIONS * HTTP/1.1")),
    ("an unknown method", "FROB /o HTTP/1.1\r\nHost: a\r\n\r\n", |r| assert_eq!(r.start, "FROB /o HTTP/1.1")),
    ("a WebDAV method", "PROPFIND /o HTTP/1.1\r\nHost: a\r\n\r\n", |r| assert_eq!(r.start, "PROPFIND /o HTTP/1.1")),
    ("a method in lower case is another method", "get /o HTTP/1.1\r\nHost: a\r\n\r\n", |r| {
        assert_eq!(r.start, "get /o HTTP/1.1");
    }),
    ("absolute-form", "GET http://a/o?q HTTP/1.1\r\nHost: a\r\n\r\n", |r| {
        assert_eq!((r.start.as_str(), r.field("host")), ("GET /o?q HTTP/1.1", Some("a")));
    }),
    ("absolute-form without a path", "GET http://a HTTP/1.1\r\nHost: a\r\n\r\n", |r| {
        assert_eq!(r.start, "GET / HTTP/1.1");
    }),
    ("a query with odd characters", "GET /o?a=b?c/../d%2F&e=[x]{y}|z HTTP/1.1\r\nHost: a\r\n\r\n", |r| {
        assert_eq!(r.start, "GET /o?a=b?c/../d%2F&e=[x]{y}|z HTTP/1.1");
    }),
    ("an OData path", "GET /S('1')/$value%20(x);v=1,2 HTTP/1.1\r\nHost: a\r\n\r\n", |r| {
        assert_eq!(r.start, "GET /S('1')/$value%20(x);v=1,2 HTTP/1.1");
    }),
    ("an encoded slash keeps its spelling", "GET /o%2fb HTTP/1.1\r\nHost: a\r\n\r\n", |r| {
        assert_eq!(r.start, "GET /o%2fb HTTP/1.1");
    }),
    ("double slashes", "GET //o//b HTTP/1.1\r\nHost: a\r\n\r\n", |r| assert_eq!(r.start, "GET //o//b HTTP/1.1")),
    ("dot segments within the root", "GET /x/../o HTTP/1.1\r\nHost: a\r\n\r\n", |r| {
        assert!(r.start == "GET /o HTTP/1.1" || r.start == "GET /x/../o HTTP/1.1", "{r:?}");
    }),
    ("a Host with port", "GET /o HTTP/1.1\r\nHost: a:8000\r\n\r\n", |r| assert_eq!(r.field("host"), Some("a:8000"))),
    ("a Host that is an IPv6 address", "GET /o HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", |r| {
        assert_eq!(r.field("host"), Some("[::1]:80"));
    }),
    ("a Host with an underscore", "GET /o HTTP/1.1\r\nHost: erp_1\r\n\r\n", |r| {
        assert_eq!(r.field("host"), Some("erp_1"));
    }),
    ("an empty line before", "\r\nGET /o HTTP/1.1\r\nHost: a\r\n\r\n", |r| assert_eq!(r.start, "GET /o HTTP/1.1")),
    ("a GET with a body", "GET /o HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi", |r| {
        assert_eq!(r.text(), "hi");
    }),
    ("a DELETE with a body", "DELETE /o HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi", |r| {
        assert_eq!(r.text(), "hi");
    }),
    ("a POST without a body", "POST /o HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", |r| {
        assert_eq!(r.field("content-length"), Some("0"));
    }),
    ("leading zeros in Content-Length", "POST /o HTTP/1.1\r\nHost: a\r\nContent-Length: 002\r\n\r\nhi", |r| {
        assert_eq!(r.text(), "hi");
    }),
    (
        "Transfer-Encoding in other case",
        "POST /o HTTP/1.1\r\nHost: a\r\ntransfer-encoding: Chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
        |r| {
            assert_eq!(r.text(), "hi");
        },
    ),
    (
        "chunks with extensions and leading zeros",
        "POST /o HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1;x=\"y z\"\r\nh\r\n0001 ;z\r\ni\r\n00;last\r\n\r\n",
        |r| {
            assert_eq!(r.text(), "hi");
        },
    ),
    ("a chunked body of nothing", "POST /o HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", |r| {
        assert_eq!(r.text(), "");
    }),
    (
        "a list in Connection with empty members",
        "GET /o HTTP/1.1\r\nHost: a\r\nConnection: ,keep-alive,,x-odd\r\nX-Odd: 1\r\nKeep-Alive: 5\r\n\r\n",
        |r| {
            assert_eq!((r.field("connection"), r.field("x-odd"), r.field("keep-alive")), (None, None, None));
        },
    ),
    (
        "Connection may not take Host away",
        "GET /o HTTP/1.1\r\nHost: a\r\nConnection: host, x-odd\r\nX-Odd: 1\r\n\r\n",
        |r| {
            assert_eq!((r.field("host"), r.field("x-odd")), (Some("a"), None));
        },
    ),
    ("an Upgrade nobody knows", "GET /o HTTP/1.1\r\nHost: a\r\nUpgrade: evil/2\r\n\r\n", |r| {
        assert_eq!(r.field("upgrade"), None);
    }),
    ("Proxy-Connection", "GET /o HTTP/1.1\r\nHost: a\r\nProxy-Connection: keep-alive\r\n\r\n", |r| {
        assert_eq!(r.field("proxy-connection"), None);
    }),
    ("TE beyond trailers", "GET /o HTTP/1.1\r\nHost: a\r\nTE: gzip;q=0.5, trailers\r\nConnection: TE\r\n\r\n", |r| {
        assert_eq!(r.field("te"), Some("trailers"));
    }),
];

#[test]
fn what_is_odd_but_valid_reaches_the_origin_and_is_answered() {
    let (sender, receiver) = std::sync::mpsc::channel();
    let origin = Origin::answering(move |request| {
        sender.send(request.clone()).expect("the test listens");
        ok("yes")
    });
    let rig = Rig::before(origin.address);
    for (what, text, check) in ODDITIES {
        let text = match *text {
            "90" => format!("GET /o HTTP/1.1\r\nHost: a\r\n{}\r\n", "X-Odd: 1\r\n".repeat(90)),
            "40k" => format!("GET /o HTTP/1.1\r\nHost: a\r\nX-Odd: {}\r\n\r\n", "x".repeat(40_000)),
            text => text.to_owned(),
        };
        let mut client = rig.client();
        client.send(&text);
        let answer = client.answer();
        assert_eq!((answer.status(), answer.text()), (200, "yes"), "{what}: {answer:?}");
        let request = receiver.recv_timeout(crate::wire::DEADLINE).expect("the origin was asked");
        assert_eq!(request.end, End::Whole, "{what}");
        assert!(request.field("via").is_some(), "{what}: {request:?}");
        if !what.contains("HTTP/1.0 without") {
            assert!(request.field("host").is_some(), "{what}");
        }
        check(&request);
    }
    rig.settles();
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let origin = Origin::answering(|request| ok(&request.start));
    let rig = Rig::before(origin.address);
    let mut client = rig.client();
    let pipeline: String = (0..20)
        .map(|n| match n % 3 {
            0 => format!("GET /{n} HTTP/1.1\r\nHost: a\r\n\r\n"),
            1 => format!("POST /{n} HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nGET /"),
            _ => format!("POST /{n} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nGET /\r\n0\r\n\r\n"),
        })
        .collect();
    client.send(pipeline);
    for n in 0..20 {
        let method = if n % 3 == 0 { "GET" } else { "POST" };
        assert_eq!(client.answer().text(), format!("{method} /{n} HTTP/1.1"));
    }
    drop(client);
    rig.settles();
}

#[test]
fn http_1_0_keeps_its_connection_only_if_it_asks() {
    let origin = Origin::answering(|_| ok("yes"));
    let rig = Rig::before(origin.address);
    let mut client = rig.client();
    client.send("GET /o HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    let answer = client.answer();
    assert_eq!(answer.field("connection"), Some("keep-alive"));
    client.send("GET /o HTTP/1.0\r\n\r\n");
    assert_eq!(client.answer().text(), "yes");
    assert!(client.is_closed());
    drop(client);
    rig.settles();
}
