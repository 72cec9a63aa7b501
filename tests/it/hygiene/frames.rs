//! HTTP/2: what is malformed or floods, frame by frame.

use std::io::Read as _;

use crate::wire::client::Client;
use crate::wire::origin::{Origin, ok};
use crate::wire::rig::Rig;

/// A frame as it was read.
#[derive(Debug, PartialEq, Eq)]
struct Frame {
    kind: u8,
    stream: u32,
    payload: Vec<u8>,
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Fields as HPACK writes them when it is lazy (RFC 7541 section 6.2.2).
fn fields(fields: &[(&str, &str)]) -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    fields.iter().flat_map(|(name, value)| [vec![0], text(name), text(value)].concat()).collect()
}

fn get(path: &str) -> Vec<u8> {
    fields(&[(":method", "GET"), (":scheme", "http"), (":path", path), (":authority", "a")])
}

/// A client that has said that it speaks HTTP/2.
fn client(rig: &Rig) -> Client {
    let mut client = rig.client();
    client.send([b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(SETTINGS, 0, 0, &[])].concat());
    client
}

/// The next frame; none when the other side has closed.
fn next(client: &mut Client) -> Option<Frame> {
    let mut head = [0; 9];
    client.reader.read_exact(&mut head).ok()?;
    let [a, b, c, kind, _, stream @ ..] = head;
    let mut payload = vec![0; usize::try_from(u32::from_be_bytes([0, a, b, c])).unwrap()];
    client.reader.read_exact(&mut payload).ok()?;
    Some(Frame { kind, stream: u32::from_be_bytes(stream) & (u32::MAX >> 1), payload })
}

/// The first frame of one of these kinds.
fn first(client: &mut Client, kinds: &[u8]) -> Option<Frame> {
    std::iter::from_fn(|| next(client)).find(|frame| kinds.contains(&frame.kind))
}

#[test]
fn malformed_requests_are_reset_or_refused_and_reach_nobody() {
    let origin = Origin::answering(|_| ok("yes"));
    let rig = Rig::before(origin.address);
    let method = (":method", "GET");
    let scheme = (":scheme", "http");
    let path = (":path", "/evil");
    let authority = (":authority", "a");
    let rows: &[(&str, &[(&str, &str)])] = &[
        ("a name in upper case", &[method, scheme, path, authority, ("X-Evil", "1")]),
        ("Connection", &[method, scheme, path, authority, ("connection", "close")]),
        ("Transfer-Encoding", &[method, scheme, path, authority, ("transfer-encoding", "chunked")]),
        ("TE beyond trailers", &[method, scheme, path, authority, ("te", "gzip")]),
        ("no path", &[method, scheme, authority]),
        ("an empty path", &[method, scheme, (":path", ""), authority]),
        ("no method", &[scheme, path, authority]),
        ("two methods", &[method, method, scheme, path, authority]),
        ("a pseudo field after others", &[method, scheme, authority, ("x", "1"), path]),
        ("an unknown pseudo field", &[method, scheme, path, authority, (":evil", "1")]),
        ("a response's pseudo field", &[method, scheme, path, authority, (":status", "200")]),
        ("an authority with a space", &[method, scheme, path, (":authority", "a evil")]),
        ("an authority with a user", &[method, scheme, path, (":authority", "evil@a")]),
        ("no authority and no Host", &[method, scheme, path]),
        ("Host against authority", &[method, scheme, path, authority, ("host", "evil")]),
        ("two Hosts", &[method, scheme, path, ("host", "a"), ("host", "evil")]),
        ("CR LF in a value", &[method, scheme, path, authority, ("x", "1\r\nevil: 2")]),
        ("NUL in a value", &[method, scheme, path, authority, ("x", "\0evil")]),
        ("CR LF in the path", &[method, scheme, (":path", "/evil\r\n"), authority]),
        ("a path above the root", &[method, scheme, (":path", "/../evil"), authority]),
    ];
    for (what, row) in rows {
        let mut client = client(&rig);
        client.send(frame(HEADERS, END_STREAM | END_HEADERS, 1, &fields(row)));
        let end = first(&mut client, &[HEADERS, RST_STREAM, GOAWAY]).unwrap_or_else(|| panic!("{what}: nothing"));
        match end.kind {
            HEADERS => assert_eq!(end.payload.first(), Some(&STATUS_400), "{what}: {end:?}"),
            RST_STREAM => assert_eq!((end.stream, end.payload.as_slice()), (1, PROTOCOL_ERROR), "{what}"),
            _ => assert_eq!(end.payload.get(4..8), Some(PROTOCOL_ERROR), "{what}: {end:?}"),
        }
        assert_eq!(origin.heard(), "", "{what}");
    }
    rig.settles();
    assert_eq!(origin.connections(), 0);
}

#[test]
fn a_stream_that_is_refused_does_not_end_the_others() {
    let origin = Origin::answering(|_| ok("yes"));
    let rig = Rig::before(origin.address);
    let mut client = client(&rig);
    let bad = fields(&[(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a"), ("te", "gzip")]);
    client.send(frame(HEADERS, END_STREAM | END_HEADERS, 1, &bad));
    client.send(frame(HEADERS, END_STREAM | END_HEADERS, 3, &get("/good")));
    let data = first(&mut client, &[DATA, GOAWAY]).expect("an answer");
    assert_eq!((data.kind, data.stream, data.payload.as_slice()), (DATA, 3, &b"yes"[..]));
    drop(client);
    rig.settles();
}

#[test]
fn floods_end_the_connection_and_leave_nothing() {
    let origin = Origin::answering(|_| ok("yes"));
    let rig = Rig::before(origin.address);
    let cancel = frame(RST_STREAM, 0, 1, &[0, 0, 0, 8]);
    let rapid = |n: u32| {
        let stream = 2 * n + 1;
        let cancel = [&cancel[..5], &stream.to_be_bytes(), &cancel[9..]].concat();
        [frame(HEADERS, END_STREAM | END_HEADERS, stream, &get("/")), cancel].concat()
    };
    let endless = [
        frame(HEADERS, END_STREAM, 1, &get("/")),
        (0..20_000).flat_map(|_| frame(CONTINUATION, 0, 1, &fields(&[("x", "y")]))).collect(),
    ]
    .concat();
    let many = [get("/"), (0..20_000).flat_map(|_| fields(&[("x", "y")])).collect::<Vec<_>>()].concat();
    let mut pieces = many.chunks(16_000);
    let mut large = frame(HEADERS, END_STREAM, 1, pieces.next().unwrap());
    let rest: Vec<_> = pieces.collect();
    for (index, piece) in rest.iter().enumerate() {
        let flags = if index + 1 == rest.len() { END_HEADERS } else { 0 };
        large.extend(frame(CONTINUATION, flags, 1, piece));
    }
    let rows: [(&str, Vec<u8>, &[u8]); 3] = [
        ("rapid resets", (0..5_000).flat_map(rapid).collect(), &[GOAWAY]),
        ("CONTINUATION without end", endless, &[GOAWAY]),
        ("20,000 fields", large, &[GOAWAY, RST_STREAM, HEADERS]),
    ];
    for (what, bytes, ends) in rows {
        let mut client = client(&rig);
        client.send(bytes);
        // Closed by a reset, the last frame may be lost.
        if let Some(end) = first(&mut client, ends) {
            match end.kind {
                HEADERS => assert_ne!(end.payload.first(), Some(&STATUS_200), "{what}"),
                GOAWAY => assert_eq!(end.payload.get(4..8), Some(ENHANCE_YOUR_CALM), "{what}"),
                _ => {}
            }
        }
        drop(client);
        rig.settles();
    }
    assert_eq!(rig.get("/").text(), "yes");
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const PROTOCOL_ERROR: &[u8] = &[0, 0, 0, 1];
const ENHANCE_YOUR_CALM: &[u8] = &[0, 0, 0, 11];
/// Indexed in HPACK's static table (RFC 7541 appendix A).
const STATUS_200: u8 = 0x88;
const STATUS_400: u8 = 0x8c;
