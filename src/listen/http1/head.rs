//! The head of a request, from its bytes: as strict as RFC 9112 allows.
//!
//! A request that two servers read as different requests is how a request is smuggled (RFC 9112 section 11.2). So lines
//! that end with a bare LF, `Transfer-Encoding: gzip, chunked`, Content-Length beside Transfer-Encoding, the same
//! Content-Length twice, no Host or several, and whatever else others may read in another way, is refused here, before
//! there is a request that could be routed.
//!
//! First the end of the head is searched, from where the last search stopped: bytes are looked at once, however they
//! come. Then it is read once. What are tokens, targets and values is decided by the types of `http`.

use bytes::{Buf as _, Bytes};
use http::header::{self, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, Uri, Version};

use crate::message::names;
use crate::message::read::{self, decimal, trim};
use crate::refusal::Reason;

/// Searches the end of a head, and remembers where its lines end.
#[derive(Debug, Default)]
pub(super) struct Scan {
    /// Where the search goes on.
    at: usize,
    /// Where the line that is being read begins.
    line: usize,
    /// Where the head begins, after empty lines.
    begin: usize,
    empty_lines: u8,
    /// Where the text of each line ends, but for the empty one.
    ends: Vec<usize>,
    /// Whether the request line was judged before the rest had come.
    judged: bool,
}

/// What follows a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Length {
    /// The next request.
    None,
    /// So many bytes; not zero.
    Exact(u64),
    /// Chunks.
    Chunked,
}

/// What a request wants of its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Asked {
    /// HEAD: its answer has no body.
    pub(super) bodiless: bool,
    /// HTTP/1.0: no chunks.
    pub(super) old: bool,
    /// Whether the connection may be used again.
    pub(super) keep_alive: bool,
    /// `TE: trailers`.
    pub(super) trailers: bool,
    /// `Expect: 100-continue`, of a body that is to come.
    pub(super) expects: bool,
    /// It has an Upgrade field.
    pub(super) upgrade: bool,
}

/// Why there is no request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// It breaks what keeps requests apart.
    Breach(Breach),
    /// It is no request.
    Malformed,
    /// The head is larger than it may be, or has too many fields.
    TooLarge,
    /// The target is longer than it may be.
    TargetTooLong,
}

/// The fields that frame or address, as far as they were read.
#[derive(Debug, Default)]
struct Framing {
    host: bool,
    coded: bool,
    length: Option<u64>,
    close: bool,
    keep_alive: bool,
}

impl Scan {
    /// Searches on in `bytes`, which begin where they did the last time. Gives how many of them the head takes, once it
    /// has come whole.
    ///
    /// # Errors
    /// What can be told before the end has come, and a head of more than `most` bytes.
    pub(super) fn find(&mut self, bytes: &[u8], most: usize) -> Result<Option<usize>, Refused> {
        let ended = self.lines(bytes)?;
        if self.at - self.begin > most || self.ends.len() > MOST_FIELDS + 1 {
            return Err(Refused::TooLarge);
        }
        if ended {
            return Ok(Some(self.at));
        }
        // Whoever speaks another protocol is told so, rather than waited for.
        if let Some(&end) = self.ends.first()
            && !std::mem::replace(&mut self.judged, true)
        {
            let line = bytes.get(self.begin..end).unwrap_or_default();
            RequestLine::of(line).and_then(|line| Method::from_bytes(line.method).map_err(|_| Refused::Malformed))?;
        }
        Ok(None)
    }

    /// Whether everything in a buffer of this length was looked at.
    pub(super) fn has_seen(&self, length: usize) -> bool {
        self.at == length
    }

    /// Whether no byte of a head has come, but perhaps empty lines.
    pub(super) fn is_idle(&self, bytes: &[u8]) -> bool {
        self.ends.is_empty() && matches!(bytes.get(self.begin..), None | Some([] | [b'\r']))
    }

    /// Makes ready for the next head.
    pub(super) fn clear(&mut self) {
        let mut ends = std::mem::take(&mut self.ends);
        ends.clear();
        *self = Self { ends, ..Self::default() };
    }

    /// Goes from line to line, up to the empty one: whether it has come.
    fn lines(&mut self, bytes: &[u8]) -> Result<bool, Refused> {
        loop {
            // One pass for all three: in a sound line CR comes first.
            let rest = bytes.get(self.at..).unwrap_or_default();
            let found = if rest.starts_with(b"\r") { Some(0) } else { memchr::memchr3(b'\r', b'\n', 0, rest) };
            let Some(found) = found else {
                self.at = bytes.len();
                return Ok(false);
            };
            let end = self.at + found;
            match (bytes.get(end), bytes.get(end + 1)) {
                (Some(b'\r'), Some(b'\n')) => {}
                (Some(b'\r'), None) => {
                    self.at = end;
                    return Ok(false);
                }
                (Some(b'\r'), _) => return Err(Breach::BareCr.into()),
                (Some(b'\n'), _) => return Err(Breach::BareLf.into()),
                _ => return Err(Breach::Nul.into()),
            }
            let is_empty = end == self.line;
            self.at = end + 2;
            self.line = self.at;
            if !is_empty {
                self.ends.push(end);
            } else if !self.ends.is_empty() {
                return Ok(true);
            } else {
                // RFC 9112 section 2.2: a server should ignore at least one empty line before a request.
                self.begin = self.at;
                self.empty_lines += 1;
                if self.empty_lines > MAX_EMPTY_LINES {
                    return Err(Breach::EmptyLines.into());
                }
            }
        }
    }

    /// Reads the head that was found into `parts`, which are new; `bytes` are the head's.
    ///
    /// # Errors
    /// When it is no request, or one that others could read in another way.
    pub(super) fn read(&self, mut bytes: Bytes, parts: &mut Parts) -> Result<(Length, Asked), Refused> {
        let mut ends = self.ends.iter().copied();
        let first = ends.next().unwrap_or_default();
        let line = RequestLine::of(bytes.get(self.begin..first).unwrap_or_default())?;
        if line.target.len() > MOST_TARGET {
            return Err(Refused::TargetTooLong);
        }
        let method = Method::from_bytes(line.method).map_err(|_| Refused::Malformed)?;
        let (old, target) = (line.old, self.begin + line.method.len() + 1);
        let after_target = target + line.target.len();
        let mut asked = Asked { old, bodiless: method == Method::HEAD, ..Asked::default() };
        let mut framing = Framing::default();
        // More fields than it can hold were refused before.
        parts.headers.try_reserve(ends.len()).map_err(|_| Refused::TooLarge)?;
        let mut start = first + 2;
        for end in ends {
            let (name, value) = field(&bytes, start, end)?;
            framing.take(&name, &value, &mut asked)?;
            parts.headers.append(name, value);
            start = end + 2;
        }
        let length = framing.length(old)?;
        asked.keep_alive = !framing.close && (!old || framing.keep_alive);
        asked.expects &= length != Length::None && !old;
        // What was read last needs no share of the memory: it takes the whole's.
        bytes.truncate(after_target);
        bytes.advance(target);
        parts.method = method;
        parts.uri = Uri::from_maybe_shared(bytes).map_err(|_| Refused::Malformed)?;
        parts.version = if old { Version::HTTP_10 } else { Version::HTTP_11 };
        Ok((length, asked))
    }
}

/// The three words of a request line (RFC 9112 section 3).
struct RequestLine<'b> {
    method: &'b [u8],
    target: &'b [u8],
    /// Of HTTP/1.0.
    old: bool,
}

impl<'b> RequestLine<'b> {
    fn of(line: &'b [u8]) -> Result<Self, Refused> {
        let (old, words) = match (line.strip_suffix(b" HTTP/1.1"), line.strip_suffix(b" HTTP/1.0")) {
            (Some(words), _) => (false, words),
            (_, Some(words)) => (true, words),
            _ => return Err(Refused::Malformed),
        };
        // Methods are short: no faster search pays.
        let space = words.iter().position(|byte| *byte == b' ').ok_or(Refused::Malformed)?;
        let (method, target) = words.split_at_checked(space).unwrap_or_default();
        let target = target.get(1..).unwrap_or_default();
        // `Uri` does not look at a fragment. No early end, so that it is one pass over many bytes at a time.
        if target.iter().fold(false, |found, byte| found | (*byte <= b' ') | (*byte == 0x7f)) {
            return Err(Refused::Malformed);
        }
        Ok(Self { method, target, old })
    }
}

/// The field whose line goes from `start` to `end` (RFC 9112 section 5).
fn field(bytes: &Bytes, start: usize, end: usize) -> Result<(HeaderName, HeaderValue), Refused> {
    let line = bytes.get(start..end).unwrap_or_default();
    // Names are short: no faster search pays.
    let colon = line.iter().position(|byte| *byte == b':').ok_or_else(|| unreadable(line))?;
    let (name, value) = line.split_at_checked(colon).unwrap_or_default();
    let name = match names::usual(name) {
        Some(name) => name,
        None => HeaderName::from_bytes(name).map_err(|_| unreadable(line))?,
    };
    let value = read::value(bytes, trim(value.get(1..).unwrap_or_default())).ok_or(Refused::Malformed)?;
    Ok((name, value))
}

/// What is wrong with a line that does not begin with a name and a colon.
#[cold]
fn unreadable(line: &[u8]) -> Refused {
    if matches!(line.first(), Some(b' ' | b'\t')) {
        return Breach::Folded.into();
    }
    let name = line.split(|byte| *byte == b':').next().unwrap_or_default().trim_ascii_end();
    let frames = [header::HOST, header::CONTENT_LENGTH, header::TRANSFER_ENCODING];
    if frames.iter().any(|frame| name.eq_ignore_ascii_case(frame.as_str().as_bytes())) {
        return Breach::SpaceBeforeColon.into();
    }
    Refused::Malformed
}

impl Framing {
    /// Takes a field.
    fn take(&mut self, name: &HeaderName, value: &HeaderValue, asked: &mut Asked) -> Result<(), Breach> {
        match *name {
            header::HOST if self.host => return Err(Breach::HostRepeated),
            header::HOST => self.host = true,
            header::CONTENT_LENGTH if self.coded => return Err(Breach::LengthWithCoding),
            header::CONTENT_LENGTH if self.length.is_some() => return Err(Breach::LengthRepeated),
            header::CONTENT_LENGTH => self.length = Some(decimal(value.as_bytes()).ok_or(Breach::LengthInvalid)?),
            header::TRANSFER_ENCODING if self.coded => return Err(Breach::CodingRepeated),
            header::TRANSFER_ENCODING if self.length.is_some() => return Err(Breach::LengthWithCoding),
            header::TRANSFER_ENCODING if asked.old || !value.as_bytes().eq_ignore_ascii_case(b"chunked") => {
                return Err(Breach::CodingUnsupported);
            }
            header::TRANSFER_ENCODING => self.coded = true,
            header::CONNECTION => {
                self.close |= lists(value, b"close");
                self.keep_alive |= lists(value, b"keep-alive");
            }
            header::TE => asked.trailers |= lists(value, b"trailers"),
            header::EXPECT => asked.expects = value.as_bytes().eq_ignore_ascii_case(b"100-continue"),
            header::UPGRADE => asked.upgrade = !asked.old,
            _ => {}
        }
        Ok(())
    }

    /// The head has ended (RFC 9112 sections 3.2, 6.3).
    fn length(&self, old: bool) -> Result<Length, Breach> {
        if !self.host && !old {
            return Err(Breach::HostMissing);
        }
        Ok(match self.length {
            _ if self.coded => Length::Chunked,
            None | Some(0) => Length::None,
            Some(length) => Length::Exact(length),
        })
    }
}

/// Whether a list has this member, in any case.
pub(super) fn lists(list: &HeaderValue, member: &[u8]) -> bool {
    list.as_bytes().split(|byte| *byte == b',').any(|token| token.trim_ascii().eq_ignore_ascii_case(member))
}

macro_rules! breaches {
    ($($(#[doc = $doc:literal])+ $name:ident = $code:literal;)+) => {
        /// What a head breaks that keeps requests apart. The codes are stable: they appear in logs.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub(super) enum Breach { $($(#[doc = $doc])+ $name,)+ }

        impl Breach {
            /// Every breach, in order.
            #[cfg(test)]
            const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The stable code.
            pub(super) const fn code(self) -> &'static str {
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
}

impl Refused {
    /// What the client is told.
    pub(super) const fn reason(self) -> Reason {
        match self {
            // RFC 9112 section 6.1: 501 for a coding that is not understood.
            Self::Breach(Breach::CodingUnsupported) => Reason::RequestCoding,
            Self::Breach(Breach::HostMissing | Breach::HostRepeated) => Reason::RequestHost,
            Self::Breach(_) | Self::Malformed => Reason::RequestMalformed,
            Self::TooLarge => Reason::RequestHeadTooLarge,
            Self::TargetTooLong => Reason::RequestTargetTooLong,
        }
    }
}

impl From<Breach> for Refused {
    fn from(breach: Breach) -> Self {
        Self::Breach(breach)
    }
}

/// Old clients send one empty line after a body; a few are allowed.
const MAX_EMPTY_LINES: u8 = 4;
/// Fields of a head.
const MOST_FIELDS: usize = 100;
/// Bytes of a target: what `Uri` can hold.
const MOST_TARGET: usize = u16::MAX as usize - 1;

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use http::Request;
    use proptest::prelude::*;

    use super::*;

    const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n";
    const POST: &str = "POST /p HTTP/1.1\r\nHost: a\r\n";

    /// A request's head.
    #[derive(Debug)]
    struct Head {
        parts: Parts,
        length: Length,
        asked: Asked,
    }

    fn head(scan: &Scan, bytes: Bytes) -> Result<Head, Refused> {
        let (mut parts, ()) = Request::new(()).into_parts();
        let (length, asked) = scan.read(bytes, &mut parts)?;
        Ok(Head { parts, length, asked })
    }

    /// What comes of a head that is fed in pieces; `None` if its end has not come. What follows it is left.
    fn read<'b>(pieces: impl IntoIterator<Item = &'b [u8]>) -> (Option<Result<Head, Refused>>, BytesMut) {
        let (mut scan, mut buffer, mut verdict) = (Scan::default(), BytesMut::new(), None);
        for piece in pieces {
            buffer.extend_from_slice(piece);
            if verdict.is_some() {
                continue;
            }
            match scan.find(&buffer, 64 * 1024) {
                Ok(None) => {}
                Ok(Some(length)) => verdict = Some(head(&scan, buffer.split_to(length).freeze())),
                Err(refused) => verdict = Some(Err(refused)),
            }
        }
        (verdict, buffer)
    }

    /// The verdict on a head, which does not depend on how it is cut.
    fn verdict(stream: &str) -> Result<Head, Refused> {
        let whole = read([stream.as_bytes()]).0.unwrap_or_else(|| panic!("the head does not end: {stream:?}"));
        for step in [1, 2, 3, 7, 50, 200] {
            let (cut, _) = read(stream.as_bytes().chunks(step));
            let key = |head: &Result<Head, Refused>| head.as_ref().map(|head| format!("{head:?}")).map_err(|no| *no);
            assert_eq!(cut.as_ref().map(key), Some(key(&whole)), "{stream:?} in steps of {step}");
        }
        whole
    }

    #[test]
    fn a_sound_head_says_what_it_says() {
        let long = "x".repeat(3000);
        let exact = Length::Exact;
        for (stream, length) in [
            (format!("{GET}\r\n"), Length::None),
            (format!("\r\n\r\n{GET}\r\n"), Length::None),
            ("GET / HTTP/1.0\r\n\r\n".to_owned(), Length::None),
            ("POST / HTTP/1.0\r\nContent-Length: 3\r\nConnection: keep-alive\r\n\r\n".to_owned(), exact(3)),
            (format!("{GET}Cookie: {long}\r\nTrace: {long}\r\nX: {long}\r\n\r\n"), Length::None),
            (format!("GET /{long} HTTP/1.0\r\n\r\n"), Length::None),
            (format!("GET / HTTP/1.1\r\nhOST:{long}\r\n\r\n"), Length::None),
            (format!("{POST}Content-Length: 0\r\n\r\n"), Length::None),
            (format!("{POST}CONTENT-length:\t 5 \t\r\n\r\n"), exact(5)),
            (format!("{POST}Content-Length: 007\r\n\r\n"), exact(7)),
            (format!("{POST}Content-Lengths: 4, 4\r\nTransfer-Encodings: gzip\r\nHosts: b\r\n\r\n"), Length::None),
            (format!("{POST}X-Content-Length: 4\r\nTE: trailers\r\n\r\n"), Length::None),
            (format!("{POST}Transfer-Encoding: chunked\r\n\r\n"), Length::Chunked),
            ("POST / HTTP/1.1\r\nhost:\r\ntransfer-encoding:CHUNKED\r\n\r\n".to_owned(), Length::Chunked),
            ("GET http://a/ HTTP/1.1\r\nHost: a\r\nX: \t\u{e4}\r\n\r\n".to_owned(), Length::None),
            ("OPTIONS * HTTP/1.1\r\nHost: a\r\nEmpty:\r\n\r\n".to_owned(), Length::None),
        ] {
            let head = verdict(&stream).unwrap_or_else(|refused| panic!("{refused:?}: {stream:?}"));
            assert_eq!(head.length, length, "{stream:?}");
        }
        let head = verdict("PUT /a?b HTTP/1.1\r\nHost: a\r\nX-Y: \t z z\t \r\nx-y:\r\n\r\n").unwrap().parts;
        assert_eq!((head.method, head.uri, head.version), (Method::PUT, "/a?b".parse().unwrap(), Version::HTTP_11));
        let fields: Vec<_> =
            head.headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        assert_eq!(fields, [("host", "a"), ("x-y", "z z"), ("x-y", "")]);
    }

    #[test]
    fn what_is_asked_of_the_answer() {
        let none = Asked::default();
        let new = Asked { keep_alive: true, ..none };
        let old = Asked { old: true, ..none };
        let body = "Content-Length: 1\r\n";
        for (line, fields, asked) in [
            ("GET / HTTP/1.1", "", new),
            ("GET / HTTP/1.1", "Connection: x, CLOSE\r\n", none),
            ("GET / HTTP/1.1", "Connection: close\r\nConnection: keep-alive\r\n", none),
            ("GET / HTTP/1.0", "", old),
            ("GET / HTTP/1.0", "Connection: Keep-Alive\r\n", Asked { keep_alive: true, ..old }),
            ("GET / HTTP/1.0", "Upgrade: x\r\n", old),
            ("HEAD / HTTP/1.1", "", Asked { bodiless: true, ..new }),
            ("GET / HTTP/1.1", "TE: gzip, Trailers\r\n", Asked { trailers: true, ..new }),
            ("GET / HTTP/1.1", "Upgrade: x\r\n", Asked { upgrade: true, ..new }),
            ("GET / HTTP/1.1", "Expect: 100-continue\r\n", new),
            ("GET / HTTP/1.1", &format!("{body}Expect: 100-Continue\r\n"), Asked { expects: true, ..new }),
            ("GET / HTTP/1.0", &format!("{body}Expect: 100-continue\r\n"), old),
        ] {
            let head = verdict(&format!("{line}\r\nHost: a\r\n{fields}\r\n")).unwrap();
            assert_eq!(head.asked, asked, "{line} {fields}");
        }
    }

    #[test]
    fn what_others_may_read_in_another_way_is_a_breach() {
        let padded = format!("{POST}Content-Length: {}5\r\n\r\n", "0".repeat(130));
        let mut tested = std::collections::HashSet::new();
        for (stream, breach) in [
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
            (format!("{GET}X: a\r\n folded: b\r\n\r\n"), Breach::Folded),
            (format!("{GET}X: a\r\n \r\n\r\n"), Breach::Folded),
            ("GET / HTTP/1.1\r\n Host: a\r\n\r\n".to_owned(), Breach::Folded),
            ("GET / HTTP/1.1\r\nHost : a\r\n\r\n".to_owned(), Breach::SpaceBeforeColon),
            (format!("{POST}Content-Length\t: 5\r\n\r\nhello"), Breach::SpaceBeforeColon),
            (format!("{POST}Transfer-Encoding  : chunked\r\n\r\n0\r\n\r\n"), Breach::SpaceBeforeColon),
            (format!("{}{GET}\r\n", "\r\n".repeat(5)), Breach::EmptyLines),
            (format!("{POST}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"), Breach::LengthWithCoding),
            (format!("{POST}Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n"), Breach::LengthWithCoding),
            (format!("{POST}Content-Length: 5\r\nTransfer-Encoding: identity\r\n\r\n"), Breach::LengthWithCoding),
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
            (format!("{POST}Transfer-Encoding: gzip, chunked\r\n\r\n"), Breach::CodingUnsupported),
            (format!("{POST}Transfer-Encoding: chunked, chunked\r\n\r\n"), Breach::CodingUnsupported),
            (format!("{POST}Transfer-Encoding: chunked;q=1\r\n\r\n"), Breach::CodingUnsupported),
            (format!("{POST}Transfer-Encoding:\r\n\r\n"), Breach::CodingUnsupported),
            (format!("{POST}Transfer-Encoding: identity\r\n\r\n"), Breach::CodingUnsupported),
            ("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned(), Breach::CodingUnsupported),
            (format!("{POST}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n"), Breach::CodingRepeated),
            ("GET / HTTP/1.1\r\n\r\n".to_owned(), Breach::HostMissing),
            ("GET http://a/ HTTP/1.1\r\nX-Host: a\r\n\r\n".to_owned(), Breach::HostMissing),
            (format!("{GET}Host: a\r\n\r\n"), Breach::HostRepeated),
            (format!("{GET}X: y\r\nhost: b\r\n\r\n"), Breach::HostRepeated),
            ("GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n".to_owned(), Breach::HostRepeated),
        ] {
            assert_eq!(verdict(&stream).unwrap_err(), Refused::Breach(breach), "{stream:?}");
            tested.insert(breach);
        }
        assert_eq!(tested.len(), Breach::ALL.len(), "every breach stands in the table");
        let codes: std::collections::HashSet<_> = Breach::ALL.iter().map(|breach| breach.code()).collect();
        assert_eq!(codes.len(), Breach::ALL.len(), "codes are unique");
    }

    #[test]
    fn what_is_no_request_is_refused() {
        let many = "X: y\r\n".repeat(MOST_FIELDS);
        let (long, longer) = ("x".repeat(MOST_TARGET), "x".repeat(64 * 1024));
        let fields = |fields: &str| format!("{GET}{fields}\r\n\r\n");
        let line = |line: &str| format!("{line}\r\nHost: a\r\n\r\n");
        for (stream, refused) in [
            (fields("X : y"), Refused::Malformed),
            (fields("X"), Refused::Malformed),
            (fields(": y"), Refused::Malformed),
            (fields("X\u{e4}: y"), Refused::Malformed),
            (fields("X: a\x0bb"), Refused::Malformed),
            (fields("X: a\x7fb"), Refused::Malformed),
            (fields("Transfer-Encoding: \x0bchunked"), Refused::Malformed),
            (fields("Tab\t: y"), Refused::Malformed),
            (line("GET / HTTP/1.1 "), Refused::Malformed),
            (line("GET  / HTTP/1.1"), Refused::Malformed),
            (line("GET / HTTP/1.2"), Refused::Malformed),
            (line("GET /"), Refused::Malformed),
            (line("GET"), Refused::Malformed),
            (line("GET / a HTTP/1.1"), Refused::Malformed),
            (line("GET\t/ HTTP/1.1"), Refused::Malformed),
            (line(" / HTTP/1.1"), Refused::Malformed),
            (line("GE:T / HTTP/1.1"), Refused::Malformed),
            (line("GET /\x7f HTTP/1.1"), Refused::Malformed),
            (line("GET /a#b c HTTP/1.1"), Refused::Malformed),
            (line("GET /a#\x01 HTTP/1.1"), Refused::Malformed),
            (line("GET /\x01 HTTP/1.1"), Refused::Malformed),
            (line("PRI * HTTP/2.0"), Refused::Malformed),
            // Before the rest has come, which may be never.
            ("SSH-2.0-OpenSSH\r\n".to_owned(), Refused::Malformed),
            (fields(many.trim_end()), Refused::TooLarge),
            (fields(&format!("X: {longer}")), Refused::TooLarge),
            (format!("GET /{longer}"), Refused::TooLarge),
            (format!("GET /{long} HTTP/1.0\r\n\r\n"), Refused::TooLarge),
        ] {
            assert_eq!(verdict(&stream).unwrap_err(), refused, "{:?}", stream.get(..200).unwrap_or(&stream));
        }
        let mut scan = Scan::default();
        let bytes = Bytes::from(format!("GET /{long} HTTP/1.0\r\n\r\n"));
        assert_eq!(scan.find(&bytes, usize::MAX), Ok(Some(bytes.len())));
        assert_eq!(head(&scan, bytes).unwrap_err(), Refused::TargetTooLong);
        let request: Vec<u8> = fields(many.trim_end()).replacen("X: y\r\n", "", 1).into_bytes();
        assert!(read([&request[..]]).0.unwrap().is_ok(), "as many fields as there may be");
    }

    #[test]
    fn empty_lines_are_no_beginning() {
        let mut scan = Scan::default();
        for (bytes, idle) in [("", true), ("\r", true), ("\r\n", true), ("\r\n\r", true), ("\r\n\r\nG", false)] {
            assert_eq!(scan.find(bytes.as_bytes(), 100), Ok(None));
            assert_eq!(scan.is_idle(bytes.as_bytes()), idle, "{bytes:?}");
        }
    }

    fn cut<'s>(stream: &'s [u8], cuts: &[prop::sample::Index]) -> Vec<&'s [u8]> {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
        cuts.extend([0, stream.len()]);
        cuts.sort_unstable();
        cuts.windows(2).map(|pair| &stream[pair[0]..pair[1]]).collect()
    }

    proptest! {
        #[test]
        fn cutting_a_head_changes_no_verdict(
            scraps in prop::collection::vec(prop::sample::select(vec![
                "GET / HTTP/1.1\r\n", "GET / HTTP/1.0\r\n", "Host: a\r\n", "Content-Length: 3\r\n",
                "Content-Length: +3\r\n", "Transfer-Encoding: chunked\r\n", "transfer-encoding:x\r\n", "\r\n",
                "\r\n\r\n", "\n", "\r", "\0", " ", "3", "abc", ":", "H", "c", "T", "ontent-Length", "X: y\r\n",
            ]), 0..24),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        ) {
            let stream = scraps.concat().into_bytes();
            let (whole, left) = read([&stream[..]]);
            let (pieces, left_of_pieces) = read(cut(&stream, &cuts));
            match (whole, pieces) {
                (Some(Ok(whole)), Some(Ok(pieces))) => {
                    prop_assert_eq!(format!("{whole:?}"), format!("{pieces:?}"));
                    prop_assert_eq!(left, left_of_pieces);
                }
                (None, None) => {}
                // A breach further on is seen at once only if it has come.
                (whole, pieces) => prop_assert!(matches!((whole, pieces), (Some(Err(_)), Some(Err(_))))),
            }
        }

        #[test]
        fn a_sound_head_is_taken_as_it_is(
            names in prop::collection::vec("[A-Za-z][A-Za-z0-9-]{0,20}", 0..6),
            value in "[!-~\u{e4}]{0,200}",
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        ) {
            let mut stream = format!("{POST}Cookie: {value}\r\n");
            for name in &names {
                stream += &format!("X{name}: {value}\r\n");
            }
            stream += "\r\n";
            let (head, left) = read(cut(stream.as_bytes(), &cuts));
            let head = head.unwrap().unwrap();
            prop_assert!(left.is_empty());
            prop_assert_eq!(head.parts.headers.len(), 2 + names.len());
            for name in names {
                prop_assert_eq!(head.parts.headers.get(format!("X{name}")).unwrap().as_bytes(), value.as_bytes());
            }
        }
    }
}
