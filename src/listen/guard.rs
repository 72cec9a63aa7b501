//! A second reader of HTTP/1 requests, for what the first one lets pass in silence.
//!
//! hyper accepts some messages that other servers frame differently: lines that end with a bare LF,
//! `Transfer-Encoding: gzip, chunked`, Content-Length beside Transfer-Encoding, the same Content-Length twice, no Host or
//! several. A request that two servers read as different requests is how a request is smuggled (RFC 9112 section 11.2),
//! so vaxel refuses it, and before anything is routed. What hyper decides about (method, target, field names and
//! values) is not looked at again here.
//!
//! The guard is fed each chunk of bytes read from the client before hyper sees it, and follows the framing:
//! ```text
//!  Between ─► RequestLine ─► Head ─┬─► Length ──────────────┐
//!     ▲                            ├─► Chunks ─► Trailers ──┤
//!     └────────────────────────────┴────────────────────────┘        Opaque: switched off;  Broken: after a breach
//! ```
//! On a breach it spoils the bytes in place, so that hyper itself refuses the request and closes: there is no way on
//! which the request could still reach routing (what hyper says then is said in our words, see `speaker`). It reads no
//! clock and does no I/O; the connection's reader (`wire`) calls it and runs the timers its states ask for.

use std::fmt;
use std::iter;

use crate::refusal::Reason;

mod chunks;
mod head;
mod line;

use self::chunks::Chunks;
use self::head::{Body, Head};
use self::line::{Line, Read};

/// Follows the requests on one connection.
#[derive(Debug, Default)]
pub struct Guard {
    state: State,
    line: Line,
    head: Head,
    chunks: Chunks,
    /// Empty lines since the last request.
    empty_lines: u8,
    head_bytes: usize,
    heads: u64,
    breach: Option<Breach>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum State {
    /// No byte of the next request yet, but perhaps empty lines.
    #[default]
    Between,
    RequestLine,
    Head,
    /// In a body with so many bytes left.
    Length(u64),
    Chunks,
    Trailers,
    Opaque,
    Broken,
}

/// Where in a chunk what was found.
type Found = (usize, Breach);

impl Guard {
    /// A guard for a fresh connection.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads the next chunk from the client, which must come before hyper gets it.
    ///
    /// A chunk without a breach is left as it is, and how the stream was cut into chunks changes no verdict. On a
    /// breach everything from its place on is overwritten so that hyper refuses the request, and the breach is
    /// returned, for every later chunk too.
    ///
    /// hyper looks at a head that came in pieces only when its end is there. So after a breach the reader must not
    /// wait for the client: on hyper's next read it hands out [`AFTER_BREACH`] once, and then the end of the stream.
    pub fn inspect(&mut self, bytes: &mut [u8]) -> Option<Breach> {
        let (at, breach) = match self.breach {
            Some(breach) => (0, breach),
            None => self.follow(bytes).err()?,
        };
        // Within a chunk extension hyper minds nothing but LF; everywhere else it stumbles over NUL.
        let first = if self.state == State::Chunks && self.chunks.in_extension() { b'\n' } else { 0 };
        let spoilt = iter::once(first).chain(AFTER_BREACH.iter().copied().cycle());
        for (byte, spoilt) in bytes.iter_mut().skip(at).zip(spoilt) {
            *byte = spoilt;
        }
        self.state = State::Broken;
        self.breach = Some(breach);
        Some(breach)
    }

    /// Switches the guard off: what follows is not HTTP/1 (after 101, or HTTP/2 was found).
    pub fn off(&mut self) {
        self.state = State::Opaque;
    }

    /// The breach that was found.
    pub fn breach(&self) -> Option<Breach> {
        self.breach
    }

    /// Bytes of the current head so far, or of the last one until the next begins; without empty lines before it.
    pub fn head_bytes(&self) -> usize {
        self.head_bytes
    }

    /// How many heads were complete. When it changes between two chunks, a head timer belongs to a new request.
    pub fn heads(&self) -> u64 {
        self.heads
    }

    /// Whether a head has begun and not ended: the header timeout runs.
    pub fn in_head(&self) -> bool {
        matches!(self.state, State::RequestLine | State::Head)
    }

    /// Whether the last request was read to its end and no byte of the next one is there, empty lines aside: once it
    /// is answered, the idle timeout runs.
    pub fn between_requests(&self) -> bool {
        self.state == State::Between
    }

    fn follow(&mut self, bytes: &[u8]) -> Result<(), Found> {
        let mut at = 0;
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            let used = match self.state {
                State::Between | State::RequestLine | State::Head | State::Trailers => self.lines(rest),
                State::Length(left) => Ok(self.body(rest, left)),
                State::Chunks => self.chunks.follow(rest).map(|(used, last)| {
                    if last {
                        self.state = State::Trailers;
                    }
                    used
                }),
                State::Opaque | State::Broken => return Ok(()),
            };
            at += used.map_err(|(place, breach)| (at + place, breach))?;
        }
        Ok(())
    }

    /// Follows lines until the head or the trailers end, or `bytes` do; how many bytes that took. A breach is placed
    /// at the beginning of its line, or where the line goes on in `bytes`.
    fn lines(&mut self, bytes: &[u8]) -> Result<usize, Found> {
        let mut start = 0;
        while let Some(rest) = bytes.get(start..).filter(|rest| !rest.is_empty()) {
            self.begin(rest);
            let read = self.line.read(rest).map_err(|(at, breach)| (start + at, breach))?;
            let used = match read {
                Read::Line(used) | Read::Part(used) => used,
            };
            if self.in_head() {
                self.head_bytes += used;
            }
            if matches!(read, Read::Line(_)) {
                let ended = self.end_line(rest).map_err(|breach| (start, breach))?;
                self.line.clear();
                if ended {
                    return Ok(start + used);
                }
            }
            start += used;
        }
        Ok(start)
    }

    /// A request begins with the first byte that is not part of an empty line.
    fn begin(&mut self, rest: &[u8]) {
        let empty_line = self.line.at_cr() || matches!(rest.first(), Some(b'\r' | b'\n'));
        if self.state == State::Between && !empty_line {
            self.state = State::RequestLine;
            self.head = Head::default();
            self.head_bytes = 0;
            self.empty_lines = 0;
        }
    }

    /// Judges the line that has just ended; whether another state begins after it.
    fn end_line(&mut self, rest: &[u8]) -> Result<bool, Breach> {
        let text = self.line.text(rest);
        match self.state {
            State::RequestLine => {
                self.head.request_line(&text);
                self.state = State::Head;
            }
            State::Head if text.is_empty() => {
                self.state = match self.head.end()? {
                    Body::None => State::Between,
                    Body::Length(length) => State::Length(length),
                    Body::Chunked => State::Chunks,
                };
                self.heads += 1;
                return Ok(true);
            }
            State::Head => self.head.field(&text)?,
            State::Trailers if text.is_empty() => {
                self.state = State::Between;
                return Ok(true);
            }
            State::Trailers => head::trailer(&text)?,
            // RFC 9112 section 2.2: a server should ignore at least one empty line before a request.
            _ => {
                self.empty_lines += 1;
                if self.empty_lines > MAX_EMPTY_LINES {
                    return Err(Breach::EmptyLines);
                }
            }
        }
        Ok(false)
    }

    fn body(&mut self, bytes: &[u8], left: u64) -> usize {
        let used = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
        let left = left - used as u64;
        self.state = if left == 0 { State::Between } else { State::Length(left) };
        used
    }
}

macro_rules! breaches {
    ($($(#[doc = $doc:literal])+ $name:ident = $code:literal;)+) => {
        /// What a request breaks. The codes are stable: they appear in logs and metrics.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Breach { $($(#[doc = $doc])+ $name,)+ }

        impl Breach {
            /// Every breach, in order.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The stable code.
            pub const fn code(self) -> &'static str {
                match self { $(Self::$name => $code,)+ }
            }
        }
    };
}

breaches! {
    /// A line that ends with LF alone (RFC 9112 section 2.2).
    BareLf = "line.bare_lf";
    /// A CR that no LF follows (RFC 9112 section 2.2).
    BareCr = "line.bare_cr";
    /// A NUL (RFC 9110 section 5.5).
    Nul = "line.nul";
    /// A line that continues the one before it (obs-fold, RFC 9112 section 5.2), or stands indented after the request line.
    Folded = "line.folded";
    /// Whitespace between a framing field's name and its colon (RFC 9112 section 5.1).
    SpaceBeforeColon = "field.space_before_colon";
    /// More than a few empty lines before a request (RFC 9112 section 2.2).
    EmptyLines = "request.empty_lines";
    /// Content-Length and Transfer-Encoding together (RFC 9112 section 6.1).
    LengthWithCoding = "length.with_coding";
    /// More than one Content-Length line, also with the same value (RFC 9110 section 8.6).
    LengthRepeated = "length.repeated";
    /// A Content-Length that is not one plain decimal number (RFC 9110 section 8.6).
    LengthInvalid = "length.invalid";
    /// A Transfer-Encoding other than `chunked`, or in HTTP/1.0 (RFC 9112 section 6.1).
    CodingUnsupported = "coding.unsupported";
    /// More than one Transfer-Encoding line (RFC 9112 section 6.1).
    CodingRepeated = "coding.repeated";
    /// HTTP/1.1 without Host (RFC 9112 section 3.2).
    HostMissing = "host.missing";
    /// More than one Host line (RFC 9112 section 3.2).
    HostRepeated = "host.repeated";
    /// A chunk size that is not one plain hexadecimal number (RFC 9112 section 7.1).
    ChunkSize = "chunk.size";
    /// A chunk size beyond what can be counted (RFC 9112 section 7.1).
    ChunkOverflow = "chunk.overflow";
    /// A control character in a chunk extension (RFC 9112 section 7.1.1).
    ChunkExtension = "chunk.extension";
    /// A chunk that is longer or shorter than its size (RFC 9112 section 7.1).
    ChunkEnd = "chunk.end";
    /// Content-Length, Transfer-Encoding or Host among the trailers (RFC 9110 section 6.5.1).
    TrailerForbidden = "trailer.forbidden";
}

impl Breach {
    /// What the client is told.
    pub const fn reason(self) -> Reason {
        match self {
            // RFC 9112 section 6.1: 501 for a coding that is not understood.
            Self::CodingUnsupported => Reason::RequestCoding,
            Self::HostMissing | Self::HostRepeated => Reason::RequestHost,
            _ => Reason::RequestMalformed,
        }
    }
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// What the reader hands to hyper in place of the client's bytes after a breach. Wherever hyper stands, it ends a head
/// that holds a NUL, or breaks a trailer section.
pub const AFTER_BREACH: &[u8] = b"\r\0\n\n";

/// Old clients send one empty line after a body; a few are allowed.
const MAX_EMPTY_LINES: u8 = 4;

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::convert::Infallible;
    use std::io;
    use std::pin::Pin;
    use std::task::{Context, Poll};
    use std::time::Duration;

    use http::{Request, Response, StatusCode};
    use http_body_util::{BodyExt, Full};
    use hyper::body::Incoming;
    use hyper::server::conn::http1;
    use hyper::service::service_fn;
    use hyper_util::rt::TokioIo;
    use proptest::prelude::*;
    use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};

    use super::*;

    const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n";
    const POST: &str = "POST /p HTTP/1.1\r\nHost: a\r\n";
    const CHUNKED: &str = "POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";

    /// Sound streams, each with the number of requests in it.
    fn sound() -> Vec<(String, usize)> {
        let long = "x".repeat(3000);
        vec![
            (String::new(), 0),
            ("\r\n".to_owned(), 0),
            (format!("{GET}\r\n"), 1),
            (format!("\r\n\r\n{GET}\r\n"), 1),
            (format!("{GET}\r\n{GET}\r\n\r\n{GET}\r\n"), 3),
            ("GET / HTTP/1.0\r\n\r\n".to_owned(), 1),
            (
                "POST / HTTP/1.0\r\nContent-Length: 3\r\nConnection: keep-alive\r\n\r\nabcGET / HTTP/1.0\r\n\r\n"
                    .to_owned(),
                2,
            ),
            (format!("{GET}Cookie: {long}\r\nTrace: {long}\r\nX: {long}\r\n\r\n{GET}\r\n"), 2),
            (format!("GET /{long} HTTP/1.0\r\n\r\n"), 1),
            (format!("GET / HTTP/1.1\r\nhOST:{long}\r\n\r\n"), 1),
            (format!("{POST}Content-Length: 0\r\n\r\n{GET}\r\n"), 2),
            (format!("{POST}CONTENT-length:\t 5 \t\r\n\r\na\nb\0c{GET}\r\n"), 2),
            (format!("{POST}Content-Length: 007\r\n\r\n\r\n\r\n\r\n\n{GET}\r\n"), 2),
            (format!("{POST}Content-Lengths: 4, 4\r\nTransfer-Encodings: gzip\r\nHosts: b\r\n\r\n"), 1),
            (format!("{POST}X-Content-Length: 4\r\nTE: trailers\r\n\r\n"), 1),
            (format!("{CHUNKED}0\r\n\r\n"), 1),
            (format!("{CHUNKED}5\r\nhello\r\n00A;name=\"v;\"\r\n\r\n\0\n345678\r\n000\r\n\r\n{GET}\r\n"), 2),
            (format!("{CHUNKED}1 \t;a=b\tc\r\nx\r\n0\r\nChecksum: 1\r\nX: y\r\n\r\n{GET}\r\n"), 2),
            (format!("{CHUNKED}0;last\r\n\r\n{CHUNKED}1\r\nx\r\n0\r\n\r\n"), 2),
            ("POST / HTTP/1.1\r\nhost:\r\ntransfer-encoding:CHUNKED\r\n\r\n0\r\n\r\n".to_owned(), 1),
            ("GET http://a/ HTTP/1.1\r\nHost: a\r\nX: \t\u{e4}\r\n\r\n".to_owned(), 1),
            ("OPTIONS * HTTP/1.1\r\nHost: a\r\nEmpty:\r\n\r\n".to_owned(), 1),
        ]
    }

    /// Heads that are refused. hyper alone refuses some of them as well; the guard names what is wrong.
    fn broken_heads() -> Vec<(String, Breach)> {
        let padded = format!("{POST}Content-Length: {}5\r\n\r\nhello", "0".repeat(130));
        vec![
            (format!("\n{GET}\r\n"), Breach::BareLf),
            ("GET / HTTP/1.1\nHost: a\r\n\r\n".to_owned(), Breach::BareLf),
            ("GET / HTTP/1.1\r\nHost: a\n\r\n".to_owned(), Breach::BareLf),
            (format!("{GET}\n"), Breach::BareLf),
            (format!("{GET}X: a\nContent-Length: 5\r\n\r\nhello"), Breach::BareLf),
            (format!("{GET}X: a\rb\r\n\r\n"), Breach::BareCr),
            (format!("{GET}\rX: b\r\n\r\n"), Breach::BareCr),
            ("\rGET / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), Breach::BareCr),
            ("GET /\r HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), Breach::BareCr),
            (format!("{GET}X: a\r\r\n\r\n"), Breach::BareCr),
            (format!("{GET}X: a\0b\r\n\r\n"), Breach::Nul),
            ("GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), Breach::Nul),
            (format!("\0{GET}\r\n"), Breach::Nul),
            (format!("{GET} folded\r\n\r\n"), Breach::Folded),
            (format!("{GET}X: a\r\n\tfolded\r\n\r\n"), Breach::Folded),
            (format!("{GET}X: a\r\n \r\n\r\n"), Breach::Folded),
            ("GET / HTTP/1.1\r\n Host: a\r\n\r\n".to_owned(), Breach::Folded),
            ("GET / HTTP/1.1\r\nHost : a\r\n\r\n".to_owned(), Breach::SpaceBeforeColon),
            (format!("{POST}Content-Length\t: 5\r\n\r\nhello"), Breach::SpaceBeforeColon),
            (format!("{POST}Transfer-Encoding  : chunked\r\n\r\n0\r\n\r\n"), Breach::SpaceBeforeColon),
            (format!("{}{GET}\r\n", "\r\n".repeat(5)), Breach::EmptyLines),
            (
                format!("{POST}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
                Breach::LengthWithCoding,
            ),
            (
                format!("{POST}Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n"),
                Breach::LengthWithCoding,
            ),
            (format!("{POST}Content-Length: 5\r\nTransfer-Encoding: identity\r\n\r\nhello"), Breach::LengthWithCoding),
            (format!("{POST}Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello"), Breach::LengthRepeated),
            (format!("{POST}Content-Length: 5\r\ncontent-length: 6\r\n\r\nhello"), Breach::LengthRepeated),
            (format!("{POST}Content-Length: 5, 5\r\n\r\nhello"), Breach::LengthInvalid),
            (format!("{POST}Content-Length: +5\r\n\r\nhello"), Breach::LengthInvalid),
            (format!("{POST}Content-Length: -1\r\n\r\n"), Breach::LengthInvalid),
            (format!("{POST}Content-Length: 0x5\r\n\r\nhello"), Breach::LengthInvalid),
            (format!("{POST}Content-Length: 5 5\r\n\r\nhello"), Breach::LengthInvalid),
            (format!("{POST}Content-Length:\r\n\r\nhello"), Breach::LengthInvalid),
            (format!("{POST}Content-Length: 99999999999999999999\r\n\r\n"), Breach::LengthInvalid),
            (padded, Breach::LengthInvalid),
            (format!("{POST}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"), Breach::CodingUnsupported),
            (format!("{POST}Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n"), Breach::CodingUnsupported),
            (format!("{POST}Transfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n"), Breach::CodingUnsupported),
            (format!("{POST}Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n"), Breach::CodingUnsupported),
            (format!("{POST}Transfer-Encoding:\r\n\r\n"), Breach::CodingUnsupported),
            (format!("{POST}Transfer-Encoding: identity\r\n\r\n"), Breach::CodingUnsupported),
            ("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_owned(), Breach::CodingUnsupported),
            (
                format!("{POST}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
                Breach::CodingRepeated,
            ),
            ("GET / HTTP/1.1\r\n\r\n".to_owned(), Breach::HostMissing),
            ("GET http://a/ HTTP/1.1\r\nX-Host: a\r\n\r\n".to_owned(), Breach::HostMissing),
            (format!("{GET}Host: a\r\n\r\n"), Breach::HostRepeated),
            (format!("{GET}X: y\r\nhost: b\r\n\r\n"), Breach::HostRepeated),
            ("GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n".to_owned(), Breach::HostRepeated),
        ]
    }

    /// Bodies that are refused: what follows a head that is sound.
    fn broken_bodies() -> Vec<(String, Breach)> {
        let body = |rest: &str| format!("{CHUNKED}{rest}");
        vec![
            (body("5\nhello\r\n0\r\n\r\n"), Breach::BareLf),
            (body("5;a\nhello\r\n0\r\n\r\n"), Breach::BareLf),
            (body("0\n\r\n"), Breach::BareLf),
            (body("5\rhello\r\n0\r\n\r\n"), Breach::BareCr),
            (body("0\r\r\n"), Breach::BareCr),
            (body("\r\n"), Breach::ChunkSize),
            (body("x\r\n"), Breach::ChunkSize),
            (body("+5\r\nhello\r\n0\r\n\r\n"), Breach::ChunkSize),
            (body("0x5\r\nhello\r\n0\r\n\r\n"), Breach::ChunkSize),
            (body(" 5\r\nhello\r\n0\r\n\r\n"), Breach::ChunkSize),
            (body("5 \r\nhello\r\n0\r\n\r\n"), Breach::ChunkSize),
            (body("5 5\r\nhello\r\n0\r\n\r\n"), Breach::ChunkSize),
            (body(";a=b\r\n0\r\n\r\n"), Breach::ChunkSize),
            (body("10000000000000000\r\nx"), Breach::ChunkOverflow),
            (body("00000000000000001\r\nx\r\n0\r\n\r\n"), Breach::ChunkOverflow),
            (body("5;a=\0\r\nhello\r\n0\r\n\r\n"), Breach::ChunkExtension),
            (body("5;\x0b\r\nhello\r\n0\r\n\r\n"), Breach::ChunkExtension),
            (body("5;\x7f\r\nhello\r\n0\r\n\r\n"), Breach::ChunkExtension),
            (body("5\r\nhello!\r\n0\r\n\r\n"), Breach::ChunkEnd),
            (body("5\r\nhello\n0\r\n\r\n"), Breach::ChunkEnd),
            (body("5\r\nhello\rx0\r\n\r\n"), Breach::ChunkEnd),
            (body("5\r\nhello0\r\n\r\n"), Breach::ChunkEnd),
            (body("0\r\nX: a\n\r\n"), Breach::BareLf),
            (body("0\r\n\n"), Breach::BareLf),
            (body("0\r\nX: a\rb\r\n\r\n"), Breach::BareCr),
            (body("0\r\nX: a\0\r\n\r\n"), Breach::Nul),
            (body("0\r\nX: a\r\n folded\r\n\r\n"), Breach::Folded),
            (body("0\r\nHost : a\r\n\r\n"), Breach::SpaceBeforeColon),
            (body("0\r\nContent-Length: 5\r\n\r\n"), Breach::TrailerForbidden),
            (body("0\r\nX: y\r\ntransfer-encoding: chunked\r\n\r\n"), Breach::TrailerForbidden),
        ]
    }

    /// The verdict on a stream in pieces, and the stream as hyper would get it.
    fn inspect<'b>(pieces: impl IntoIterator<Item = &'b [u8]>) -> (Option<Breach>, Vec<u8>, Guard) {
        let mut guard = Guard::new();
        let mut passed = Vec::new();
        for piece in pieces {
            let mut piece = piece.to_vec();
            let verdict = guard.inspect(&mut piece);
            assert_eq!(verdict, guard.breach());
            passed.extend(piece);
        }
        (guard.breach(), passed, guard)
    }

    fn check(stream: &str, expected: Option<Breach>) {
        for step in [usize::MAX, 1, 2, 3, 7, 50, 200] {
            let (breach, passed, _) = inspect(stream.as_bytes().chunks(step));
            assert_eq!(breach, expected, "{stream:?} in steps of {step}");
            assert_eq!(passed == stream.as_bytes(), expected.is_none(), "{stream:?} in steps of {step}");
        }
    }

    #[test]
    fn a_sound_stream_passes_as_it_is_and_its_requests_are_counted() {
        for (stream, requests) in sound() {
            check(&stream, None);
            let (_, _, guard) = inspect([stream.as_bytes()]);
            assert_eq!(guard.heads(), requests as u64, "{stream:?}");
            assert!(guard.between_requests() && !guard.in_head(), "{stream:?}");
        }
    }

    #[test]
    fn a_breach_is_found_however_the_stream_is_cut() {
        for (stream, breach) in broken_heads().iter().chain(&broken_bodies()) {
            check(stream, Some(*breach));
            check(&format!("{GET}\r\n{stream}"), Some(*breach));
        }
    }

    #[test]
    fn codes_are_unique() {
        let codes: std::collections::HashSet<_> = Breach::ALL.iter().map(|breach| breach.code()).collect();
        assert_eq!(codes.len(), Breach::ALL.len());
        let tested: std::collections::HashSet<_> =
            broken_heads().into_iter().chain(broken_bodies()).map(|(_, breach)| breach).collect();
        assert_eq!(tested.len(), Breach::ALL.len(), "every breach stands in a table");
    }

    #[test]
    fn the_states_tell_which_timer_runs() {
        let mut guard = Guard::new();
        let mut check = |chunk: &str, between: bool, in_head: bool, head_bytes: usize, heads: u64| {
            assert_eq!(guard.inspect(&mut chunk.as_bytes().to_vec()), None);
            let state = (guard.between_requests(), guard.in_head(), guard.head_bytes(), guard.heads());
            assert_eq!(state, (between, in_head, head_bytes, heads), "after {chunk:?}");
        };
        check("", true, false, 0, 0);
        check("\r\n", true, false, 0, 0);
        check("\r", true, false, 0, 0);
        check("\nG", false, true, 1, 0);
        check("ET / HTTP/1.1\r\n", false, true, 16, 0);
        check("Host: a\r\nContent-Length: 2\r\n\r", false, true, 45, 0);
        check("\n", false, false, 46, 1);
        check("x", false, false, 46, 1);
        check("x", true, false, 46, 1);
        check("GET", false, true, 3, 1);
        check(" / HTTP/1.1\r\nHost: a\r\n\r\nP", false, true, 1, 2);
    }

    #[test]
    fn switched_off_it_lets_everything_pass() {
        let mut guard = Guard::new();
        let mut head = format!("{GET}Upgrade: x\r\n\r\n").into_bytes();
        assert_eq!(guard.inspect(&mut head), None);
        guard.off();
        let mut frames = b"\x81\x00\n\r\0".to_vec();
        assert_eq!(guard.inspect(&mut frames), None);
        assert_eq!(frames, b"\x81\x00\n\r\0");
        assert!(!guard.between_requests() && !guard.in_head());
    }

    #[test]
    fn after_a_breach_nothing_passes() {
        let mut guard = Guard::new();
        assert_eq!(guard.inspect(&mut b"\n".to_vec()), Some(Breach::BareLf));
        let mut more = format!("{GET}\r\n").into_bytes();
        assert_eq!(guard.inspect(&mut more), Some(Breach::BareLf));
        assert!(!more.contains(&b'G'));
    }

    /// The reader as the listener has it.
    struct Guarded {
        stream: DuplexStream,
        guard: Guard,
        poisoned: bool,
    }

    impl AsyncRead for Guarded {
        fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            let this = &mut *self;
            if this.guard.breach().is_some() {
                if !this.poisoned {
                    buf.put_slice(AFTER_BREACH);
                }
                this.poisoned = true;
                return Poll::Ready(Ok(()));
            }
            let before = buf.filled().len();
            let ready = Pin::new(&mut this.stream).poll_read(cx, buf);
            this.guard.inspect(&mut buf.filled_mut()[before..]);
            ready
        }
    }

    impl AsyncWrite for Guarded {
        fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            Pin::new(&mut self.stream).poll_write(cx, buf)
        }

        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.stream).poll_flush(cx)
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.stream).poll_shutdown(cx)
        }
    }

    /// Sends `stream` in steps to hyper behind a guard. What hyper answered, and what the service saw of each request:
    /// its path, and whether the body was read to its end.
    async fn serve(stream: &str, step: usize) -> (String, Vec<(String, bool)>) {
        let (client, server) = tokio::io::duplex(64 * 1024);
        let seen = RefCell::new(Vec::new());
        let service = service_fn(|request: Request<Incoming>| {
            let seen = &seen;
            async move {
                let path = request.uri().path().to_owned();
                let whole = request.into_body().collect().await.is_ok();
                seen.borrow_mut().push((path, whole));
                let status = if whole { StatusCode::NO_CONTENT } else { StatusCode::BAD_REQUEST };
                let mut response = Response::new(Full::new(bytes::Bytes::new()));
                *response.status_mut() = status;
                Ok::<_, Infallible>(response)
            }
        });
        let guarded = Guarded { stream: server, guard: Guard::new(), poisoned: false };
        let serving = http1::Builder::new().serve_connection(TokioIo::new(guarded), service);
        let talking = async {
            let (mut answers, mut requests) = tokio::io::split(client);
            let sending = async {
                for piece in stream.as_bytes().chunks(step) {
                    if requests.write_all(piece).await.is_err() {
                        break; // refused and closed before the end
                    }
                    tokio::task::yield_now().await;
                }
            };
            let mut text = Vec::new();
            let reading = async {
                // A server that is content waits for the next request; the clock of the test then jumps ahead.
                let reading = tokio::time::timeout(Duration::from_secs(60), answers.read_to_end(&mut text)).await;
                assert!(reading.is_err() || reading.is_ok_and(|read| read.is_ok()));
            };
            tokio::join!(sending, reading);
            String::from_utf8(text).unwrap()
        };
        let answer = tokio::select! {
            biased;
            answer = talking => answer,
            // hyper is done: the answer is still in the pipe.
            answer = async { serving.await.ok(); std::future::pending().await } => answer,
        };
        (answer, seen.take())
    }

    fn statuses(answer: &str) -> Vec<&str> {
        answer.split("HTTP/1.").skip(1).filter_map(|rest| rest.get(2..5)).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn hyper_serves_what_the_guard_passes() {
        for (stream, requests) in sound() {
            for step in [usize::MAX, 11] {
                let (answer, seen) = serve(&stream, step).await;
                assert!(seen.iter().all(|(_, whole)| *whole), "{stream:?}");
                // HTTP/1.0 closes after its answer unless asked not to.
                let expected = if stream.starts_with("GET / HTTP/1.0") { 1 } else { requests };
                assert_eq!(statuses(&answer), vec!["204"; expected], "{stream:?}: {answer}");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn hyper_answers_400_to_a_broken_head_and_the_service_never_sees_it() {
        for (stream, breach) in broken_heads() {
            for step in [usize::MAX, 1, 9] {
                let (answer, seen) = serve(&stream, step).await;
                assert_eq!(seen, [], "{breach}: {stream:?}");
                assert_eq!(statuses(&answer), ["400"], "{breach}: {stream:?} in steps of {step}: {answer}");
                let (answer, seen) = serve(&format!("{POST}Content-Length: 2\r\n\r\nok{stream}"), step).await;
                assert_eq!(seen, [("/p".to_owned(), true)], "{breach}: {stream:?}");
                assert_eq!(statuses(&answer), ["204", "400"], "{breach}: pipelined {stream:?} in steps of {step}");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_broken_body_never_ends_well() {
        for (stream, breach) in broken_bodies() {
            for step in [usize::MAX, 1, 9] {
                let (answer, seen) = serve(&stream, step).await;
                assert_eq!(seen, [("/c".to_owned(), false)], "{breach}: {stream:?} in steps of {step}");
                assert_eq!(statuses(&answer), ["400"], "{breach}: {stream:?} in steps of {step}");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_guard_leaves_to_hyper_hyper_refuses() {
        for line in ["X : y", "X", ": y", "X\u{e4}: y", "X: a\x0bb", "X: a\x7fb", "Tab\t: y", "Cookie : y"] {
            let stream = format!("{GET}{line}\r\n\r\n");
            let (answer, seen) = serve(&stream, usize::MAX).await;
            assert_eq!((statuses(&answer), seen), (vec!["400"], vec![]), "{line}");
        }
        for line in
            ["GET / HTTP/1.1 ", "GET  / HTTP/1.1", "GET / HTTP/1.2", "GET /", "GET / a HTTP/1.1", "GET\t/ HTTP/1.1"]
        {
            let stream = format!("{line}\r\nHost: a\r\n\r\n");
            let (answer, seen) = serve(&stream, usize::MAX).await;
            assert_eq!((statuses(&answer), seen), (vec!["400"], vec![]), "{line}");
        }
    }

    /// Streams near the border: pieces of requests in any order, sound and broken.
    fn scraps() -> impl Strategy<Value = String> {
        let scrap = prop::sample::select(vec![
            "GET / HTTP/1.1\r\n",
            "GET / HTTP/1.0\r\n",
            "Host: a\r\n",
            "Content-Length: 3\r\n",
            "Content-Length: +3\r\n",
            "Transfer-Encoding: chunked\r\n",
            "transfer-encoding:x\r\n",
            "\r\n",
            "\r\n\r\n",
            "\n",
            "\r",
            "\0",
            " ",
            "3",
            "0",
            "abc",
            "3\r\nabc\r\n",
            "0\r\n\r\n",
            "3;x\r\n",
            ":",
            "H",
            "c",
            "T",
            "ontent-Length",
            "X: y\r\n",
        ]);
        prop::collection::vec(scrap, 0..24).prop_map(|scraps| scraps.concat())
    }

    fn cut<'s>(stream: &'s [u8], cuts: &[prop::sample::Index]) -> Vec<&'s [u8]> {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
        cuts.extend([0, stream.len()]);
        cuts.sort_unstable();
        cuts.windows(2).map(|pair| &stream[pair[0]..pair[1]]).collect()
    }

    proptest! {
        #[test]
        fn cutting_a_stream_changes_no_verdict(stream in scraps(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12)) {
            let (whole, passed, at_once) = inspect([stream.as_bytes()]);
            let (pieces, _, piecewise) = inspect(cut(stream.as_bytes(), &cuts));
            prop_assert_eq!(whole, pieces);
            prop_assert_eq!(at_once.heads(), piecewise.heads());
            if whole.is_none() {
                prop_assert_eq!(passed, stream.as_bytes());
                prop_assert_eq!(at_once.head_bytes(), piecewise.head_bytes());
                prop_assert_eq!(at_once.state, piecewise.state);
            }
        }

        #[test]
        fn a_sound_request_is_never_touched(
            names in prop::collection::vec("[A-Za-z][A-Za-z0-9-]{0,20}", 0..6),
            value in "[ -~\u{e4}]{0,200}",
            body in prop::collection::vec(any::<u8>(), 0..300),
            chunk in prop::option::of(1_usize..90),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        ) {
            let mut stream = format!("{POST}Cookie: {value}\r\n").into_bytes();
            for name in names {
                stream.extend(format!("X{name}: {value}\r\n").bytes());
            }
            match chunk {
                None => stream.extend(format!("Content-Length: {}\r\n\r\n", body.len()).bytes().chain(body)),
                Some(size) => {
                    stream.extend(b"Transfer-Encoding: chunked\r\n\r\n");
                    for data in body.chunks(size) {
                        stream.extend(format!("{:x}\r\n", data.len()).bytes().chain(data.iter().copied()).chain(*b"\r\n"));
                    }
                    stream.extend(b"0\r\nChecksum: 7\r\n\r\n");
                }
            }
            stream.extend(format!("{GET}\r\n").bytes());
            let (breach, passed, guard) = inspect(cut(&stream, &cuts));
            prop_assert_eq!(breach, None);
            prop_assert_eq!(guard.heads(), 2);
            prop_assert!(guard.between_requests());
            prop_assert_eq!(passed, stream);
        }
    }
}
