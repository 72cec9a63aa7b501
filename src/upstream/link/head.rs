//! The head of an answer (RFC 9112 section 4 and 5): what an endpoint sent becomes a response, or is refused.
//!
//! There are two readers. One reads what nearly all servers send, in one go. What it does not know, and what is none, it
//! leaves to httparse, which forgives more: so what is read, and what is refused, is httparse's word alone.

use std::mem::MaybeUninit;

use bytes::{Buf as _, Bytes, BytesMut};
use http::header::{self, HeaderName, HeaderValue};
use http::{Response, StatusCode, Version};
use hyper::ext::ReasonPhrase;

use crate::message::hop::KEEP_ALIVE;
use crate::message::names;
use crate::message::read::{self, decimal, trim};
use crate::message::spare;

/// A head, and what it says about the rest of the exchange.
#[derive(Debug, Default)]
pub(super) struct Head {
    /// As it is passed on.
    pub(super) response: Response<()>,
    /// The length of the body, if one is announced.
    pub(super) length: Option<u64>,
    /// The body is chunked.
    pub(super) is_chunked: bool,
    close: bool,
    keep_alive: bool,
    /// What its fields break.
    breach: Option<AnswerError>,
}

/// What an endpoint's answer breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// It is no HTTP/1 head.
    #[error(transparent)]
    Syntax(#[from] httparse::Error),
    /// The head is longer than is taken.
    #[error("a head that is too large")]
    TooLarge,
    /// 1xx that was not asked for, or no status of HTTP.
    #[error("a status that was not asked for or does not exist")]
    Status,
    /// A field that HTTP does not allow.
    #[error("a field that is none")]
    Field,
    /// A coding that cannot be read, or in HTTP/1.0 (RFC 9112 section 6.1).
    #[error("a transfer coding other than chunked")]
    Coding,
    /// Two ways to tell where the body ends (RFC 9112 section 6.3).
    #[error("Content-Length beside Transfer-Encoding")]
    LengthWithCoding,
    /// Several lengths, or one that is no number (RFC 9110 section 8.6).
    #[error("an ambiguous Content-Length")]
    Length,
    /// Interim answers without end.
    #[error("too many interim answers")]
    Interim,
    /// A switch of protocols before it had the whole request (RFC 9110 section 7.8).
    #[error("a switch of protocols in the middle of the request")]
    EarlySwitch,
}

/// Takes a head out of `buf`, if all of it is there.
///
/// # Errors
/// When it breaks the protocol, or two readers could take its body for different ones.
pub(super) fn take(buf: &mut BytesMut) -> Result<Option<Head>, AnswerError> {
    let mut lines = Lines::default();
    if lines.find(buf).is_none() {
        return forgiving(buf);
    }
    let text = buf.split_to(lines.length).freeze();
    let mut head = Head::default();
    if lines.read(&text, &mut head).is_none() {
        // What is wrong with it, httparse knows.
        return forgiving(&mut BytesMut::from(&*text));
    }
    head.judge()?;
    Ok(Some(head))
}

/// The lines of a head as nearly all servers write it: each ends with CRLF, and there are not many.
#[derive(Default)]
struct Lines {
    /// Where the text of each line ends, but for the empty one.
    ends: [u32; MOST_LINES],
    count: usize,
    /// Bytes of all of the head.
    length: usize,
}

impl Lines {
    /// `None` where the head is not written so, or not whole: it is for [`forgiving`].
    fn find(&mut self, buf: &[u8]) -> Option<()> {
        for end in memchr::memchr_iter(b'\n', buf) {
            let line = buf.get(self.length..end)?.strip_suffix(b"\r")?;
            self.length = end + 1;
            if line.is_empty() {
                return (self.count > 0).then_some(());
            }
            *self.ends.get_mut(self.count)? = u32::try_from(end - 1).ok()?;
            self.count += 1;
        }
        None
    }

    /// Reads the head whose lines these are, once. `None` where httparse may read it otherwise, or says why it is none.
    fn read(&self, text: &Bytes, head: &mut Head) -> Option<()> {
        let (first, fields) = self.ends.get(..self.count)?.split_first()?;
        let mut end = *first as usize;
        status_line(text.get(..end)?, &mut head.response)?;
        *head.response.headers_mut() = spare::take();
        for next in fields {
            let start = end + 2;
            end = *next as usize;
            let line = text.get(start..end)?;
            let (name, value) = line.split_at_checked(memchr::memchr(b':', line)?)?;
            let name = match names::usual(name) {
                Some(name) => name,
                None => HeaderName::from_bytes(name).ok()?,
            };
            let value = trim(value.get(1..)?);
            if name == header::CONNECTION && value == b"keep-alive" {
                // Nearly all say so, and it goes no further.
                head.keep_alive = true;
                continue;
            }
            let value = read::value(text, value)?;
            if head.note(&name, &value) {
                head.response.headers_mut().append(name, value);
            }
        }
        Some(())
    }
}

/// `None` if it is none in its usual form.
fn status_line(line: &[u8], response: &mut Response<()>) -> Option<()> {
    if line == b"HTTP/1.1 200 OK" {
        return Some(());
    }
    let (version, rest) = line.split_at_checked(9)?;
    let (code, reason) = rest.split_at_checked(3)?;
    *response.version_mut() = match version {
        b"HTTP/1.1 " => Version::HTTP_11,
        b"HTTP/1.0 " => Version::HTTP_10,
        _ => return None,
    };
    let status = StatusCode::from_bytes(code).ok()?;
    *response.status_mut() = status;
    let reason = reason.strip_prefix(b" ")?;
    if status.canonical_reason().is_none_or(|usual| usual.as_bytes() != reason) {
        // httparse takes what is not ASCII for no reason at all.
        let reason = Some(reason).filter(|reason| reason.is_ascii())?;
        response.extensions_mut().insert(ReasonPhrase::try_from(reason).ok()?);
    }
    Some(())
}

/// The same by httparse, which forgives more.
fn forgiving(buf: &mut BytesMut) -> Result<Option<Head>, AnswerError> {
    let mut fields = [const { MaybeUninit::uninit() }; MOST_FIELDS];
    let mut answer = httparse::Response::new(&mut []);
    let parser = httparse::ParserConfig::default();
    let parsed = match parser.parse_response_with_uninit_headers(&mut answer, buf, &mut fields) {
        Err(httparse::Error::TooManyHeaders) => return Err(AnswerError::TooLarge),
        parsed => parsed?,
    };
    let httparse::Status::Complete(length) = parsed else { return Ok(None) };
    let status = answer.code.and_then(|code| StatusCode::from_u16(code).ok()).ok_or(AnswerError::Status)?;
    let mut head = Head::default();
    *head.response.status_mut() = status;
    *head.response.version_mut() = if answer.version == Some(0) { Version::HTTP_10 } else { Version::HTTP_11 };
    if let Some(reason) = answer.reason.filter(|reason| Some(*reason) != status.canonical_reason()) {
        let reason = ReasonPhrase::try_from(reason.as_bytes()).map_err(|_| httparse::Error::Status)?;
        head.response.extensions_mut().insert(reason);
    }
    for field in &*answer.headers {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| AnswerError::Field)?;
        let value = HeaderValue::from_bytes(field.value).map_err(|_| AnswerError::Field)?;
        if head.note(&name, &value) {
            head.response.headers_mut().append(name, value);
        }
    }
    buf.advance(length);
    head.judge()?;
    Ok(Some(head))
}

impl Head {
    /// Notes what a field says; whether it says anything beyond this connection and the framing on it.
    fn note(&mut self, name: &HeaderName, value: &HeaderValue) -> bool {
        match *name {
            header::CONNECTION => {
                let mut nominates = false;
                for option in value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                    let (close, keep_alive) =
                        (option.eq_ignore_ascii_case(b"close"), option.eq_ignore_ascii_case(b"keep-alive"));
                    self.close |= close;
                    self.keep_alive |= keep_alive;
                    nominates |= !close && !keep_alive;
                }
                nominates
            }
            header::CONTENT_LENGTH => {
                let length = decimal(value.as_bytes());
                if self.length.is_some() || length.is_none() {
                    self.breach = Some(AnswerError::Length);
                }
                self.length = length;
                true
            }
            header::TRANSFER_ENCODING => {
                if self.is_chunked || !value.as_bytes().eq_ignore_ascii_case(b"chunked") {
                    self.breach = Some(AnswerError::Coding);
                }
                self.is_chunked = true;
                false
            }
            _ => *name != KEEP_ALIVE,
        }
    }

    /// Whether the connection may be used again after a body whose end can be told.
    pub(super) fn keeps_alive(&self) -> bool {
        !self.close && (self.response.version() != Version::HTTP_10 || self.keep_alive)
    }

    fn judge(&self) -> Result<(), AnswerError> {
        let status = self.response.status();
        // Interim answers are passed over, whatever they say; the caller knows whether 101 was asked for.
        if status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS {
            return Ok(());
        }
        if status.as_u16() > 599 {
            return Err(AnswerError::Status);
        }
        if let Some(breach) = self.breach {
            return Err(breach);
        }
        if self.is_chunked && self.response.version() == Version::HTTP_10 {
            return Err(AnswerError::Coding);
        }
        if self.is_chunked && self.length.is_some() {
            return Err(AnswerError::LengthWithCoding);
        }
        Ok(())
    }
}

/// Whether the end of a head may be in `buf`, whose first `seen` bytes have none: a head that trickles is not read from
/// its beginning for each piece.
pub(super) fn may_be_whole(buf: &[u8], seen: usize) -> bool {
    let news = buf.get(seen.saturating_sub(3)..).unwrap_or_default();
    memchr::memchr_iter(b'\n', news).any(|at| {
        let after = news.get(at + 1..).unwrap_or_default();
        after.starts_with(b"\n") || after.starts_with(b"\r\n")
    })
}

/// As many fields as hyper takes.
const MOST_FIELDS: usize = 100;
/// More lines than nearly all heads have.
const MOST_LINES: usize = 32;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Result<Option<Head>, AnswerError> {
        take(&mut BytesMut::from(text))
    }

    #[test]
    fn ambiguous_answers_are_not_passed_on() {
        for (breach, status, fields) in [
            (None, "HTTP/1.1 200 OK", "content-length: 2\r\n"),
            (None, "HTTP/1.1 200 OK", "transfer-encoding: Chunked\r\n"),
            (None, "HTTP/1.1 101 Switching Protocols", ""),
            (None, "HTTP/1.1 100 Continue", "content-length: x\r\n"),
            (None, "HTTP/1.0 200 OK", "content-length: 007\r\n"),
            (None, "HTTP/1.1 599 ", ""),
            (Some(AnswerError::Status), "HTTP/1.1 999 Odd", ""),
            (Some(AnswerError::Status), "HTTP/1.1 099 Odd", ""),
            (Some(AnswerError::Length), "HTTP/1.1 200 OK", "content-length: 2, 2\r\n"),
            (Some(AnswerError::Length), "HTTP/1.1 200 OK", "content-length: 2\r\ncontent-length: 2\r\n"),
            (Some(AnswerError::Length), "HTTP/1.1 204 OK", "content-length: +2\r\n"),
            (Some(AnswerError::Length), "HTTP/1.1 200 OK", "content-length: x\r\ncontent-length: 2\r\n"),
            (Some(AnswerError::Length), "HTTP/1.1 200 OK", "content-length:\r\n"),
            (Some(AnswerError::Length), "HTTP/1.1 200 OK", "content-length: 18446744073709551616\r\n"),
            (Some(AnswerError::Coding), "HTTP/1.1 200 OK", "transfer-encoding: gzip\r\n"),
            (Some(AnswerError::Coding), "HTTP/1.1 200 OK", "transfer-encoding: gzip, chunked\r\n"),
            (
                Some(AnswerError::Coding),
                "HTTP/1.1 200 OK",
                "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n",
            ),
            (Some(AnswerError::Coding), "HTTP/1.0 200 OK", "transfer-encoding: chunked\r\n"),
            (
                Some(AnswerError::LengthWithCoding),
                "HTTP/1.1 200 OK",
                "transfer-encoding: chunked\r\ncontent-length: 2\r\n",
            ),
            (
                Some(AnswerError::LengthWithCoding),
                "HTTP/1.1 200 OK",
                "content-length: 2\r\ntransfer-encoding: chunked\r\n",
            ),
        ] {
            let read = read(&format!("{status}\r\n{fields}\r\n"));
            assert_eq!(read.as_ref().err(), breach.as_ref(), "{status} {fields:?}");
            assert!(breach.is_some() || read.is_ok_and(|head| head.is_some()), "{status} {fields:?}");
        }
    }

    #[test]
    fn what_is_no_head_is_refused() {
        for text in [
            "HTTP/2.0 200 OK\r\n\r\n",
            "HTTP/1.2 200 OK\r\n\r\n",
            "ICY 200 OK\r\n\r\n",
            "<html>\r\n\r\n",
            "HTTP/1.1 20 OK\r\n\r\n",
            "HTTP/1.1 2000 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\nX: a\r\n folded\r\n\r\n",
            "HTTP/1.1 200 OK\r\nX : a\r\n\r\n",
            "HTTP/1.1 200 OK\r\nX\r\n\r\n",
            "HTTP/1.1 200 OK\r\n: a\r\n\r\n",
            "HTTP/1.1 200 OK\r\nX: a\0b\r\n\r\n",
            "HTTP/1.1 200 OK\r\nX: a\rb\r\n\r\n",
        ] {
            let read = read(text);
            assert!(matches!(read, Err(AnswerError::Syntax(_))), "{text:?}: {read:?}");
        }
        let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: y\r\n".repeat(MOST_FIELDS + 1));
        assert_eq!(read(&many).unwrap_err(), AnswerError::TooLarge);
    }

    #[test]
    fn a_head_is_taken_as_it_stands() {
        let text = "\r\nHTTP/1.1 200 Fine\nDate: a\r\nX-A:\t b \r\nx-a: c\r\nEmpty:\r\n\r\nbody";
        let mut buf = BytesMut::from(text);
        let head = take(&mut buf).unwrap().unwrap();
        assert_eq!(&buf, "body");
        let response = &head.response;
        let values = response.headers().get_all("x-a").iter().collect::<Vec<_>>();
        assert_eq!(values, ["b", "c"]);
        assert_eq!(
            (&response.headers()["date"], &response.headers()["empty"]),
            (&"a".parse().unwrap(), &HeaderValue::from_static(""))
        );
        assert_eq!(response.extensions().get::<ReasonPhrase>().unwrap().as_bytes(), b"Fine");
        for length in 0..text.len() - "body".len() {
            assert!(read(&text[..length]).unwrap().is_none(), "{length}");
        }
    }

    #[test]
    fn when_a_connection_is_kept() {
        for (kept, status, fields) in [
            (true, "HTTP/1.1 200 OK", ""),
            (true, "HTTP/1.1 200 OK", "Connection: keep-alive\r\n"),
            (false, "HTTP/1.1 200 OK", "Connection: Close\r\n"),
            (false, "HTTP/1.1 200 OK", "Connection: x , close\r\n"),
            (false, "HTTP/1.1 200 OK", "Connection: close\r\nConnection: keep-alive\r\n"),
            (true, "HTTP/1.1 200 OK", "Connection: closed\r\n"),
            (false, "HTTP/1.0 200 OK", ""),
            (true, "HTTP/1.0 200 OK", "Connection: Keep-Alive\r\n"),
            (false, "HTTP/1.0 200 OK", "Connection: keep-alive, close\r\n"),
        ] {
            let head = read(&format!("{status}\r\n{fields}\r\n")).unwrap().unwrap();
            assert_eq!(head.keeps_alive(), kept, "{status} {fields:?}");
        }
    }

    #[test]
    fn the_end_of_a_trickling_head_is_noticed() {
        for text in ["HTTP/1.1 200 OK\r\nX: y\r\n\r\n", "HTTP/1.1 200 OK\nX: y\n\n", "HTTP/1.1 200 OK\r\nX: y\r\n\n"] {
            for seen in 0..text.len() {
                assert!(may_be_whole(text.as_bytes(), seen), "{text:?} from {seen}");
                assert!(!may_be_whole(&text.as_bytes()[..seen], 0), "{text:?} up to {seen}");
            }
        }
    }

    /// What a reader makes of a head, with its reason phrase, and what it leaves. Of what is broken nothing more is read.
    fn made(
        read: fn(&mut BytesMut) -> Result<Option<Head>, AnswerError>,
        text: &str,
    ) -> Result<(String, BytesMut), AnswerError> {
        let mut buf = BytesMut::from(text);
        let head = read(&mut buf)?;
        let reason = head.as_ref().and_then(|head| head.response.extensions().get::<ReasonPhrase>());
        Ok((format!("{head:?} {reason:?}"), buf))
    }

    #[test]
    fn heads_that_nearly_all_send_need_no_second_reader() {
        for (plain, head) in [
            (true, "HTTP/1.1 200 OK\r\nServer: a\r\nX-Own:b \r\nEmpty:\r\nConnection: close, x\r\n\r\nbody"),
            (true, "HTTP/1.0 404 Not Found\r\n\r\n"),
            (true, "HTTP/1.1 200 \r\n\r\n"),
            (true, "HTTP/1.1 302 Moved Temporarily\r\nLocation: \u{e4}\r\n\r\n"),
            (false, "HTTP/1.1 200\r\n\r\n"),
            (false, "HTTP/1.1 200 \u{e4}\r\n\r\n"),
            (false, "HTTP/1.1 200 OK\nServer: a\n\n"),
            (false, "\r\nHTTP/1.1 200 OK\r\n\r\n"),
        ] {
            let text = Bytes::from(head);
            let mut lines = Lines::default();
            let read = lines.find(&text).and_then(|()| lines.read(&text, &mut Head::default()));
            assert_eq!(read.is_some(), plain, "{head:?}");
            assert_eq!(made(take, head), made(forgiving, head), "{head:?}");
        }
        for count in [MOST_LINES - 1, MOST_LINES, MOST_FIELDS] {
            let head = format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: y\r\n".repeat(count));
            assert_eq!(Lines::default().find(head.as_bytes()).is_some(), count < MOST_LINES);
            assert_eq!(made(take, &head), made(forgiving, &head));
        }
    }

    /// Heads near the border: sound ones, and ones in which bytes stand that matter.
    fn heads() -> impl Strategy<Value = String> {
        let first = prop::sample::select(vec![
            "HTTP/1.1 200 OK",
            "HTTP/1.0 200 OK",
            "HTTP/1.1 204 ",
            "HTTP/1.1 302 Moved",
            "HTTP/1.1 404",
            "HTTP/1.1 099 Odd",
            "HTTP/1.1 999 Odd",
            "HTTP/1.1  200 OK",
            "HTTP/1.1 200  OK",
            "HTTP/1.1 2000 OK",
            "HTTP/1.2 200 OK",
            "http/1.1 200 OK",
            "",
        ]);
        let name = prop::sample::select(vec![
            "Content-Length",
            "content-length",
            "Transfer-Encoding",
            "Connection",
            "Keep-Alive",
            "Date",
            "x-own",
            "X ",
            " X",
            "",
        ]);
        let value = prop::sample::select(vec!["3", "03", "chunked", "keep-alive", "Keep-Alive, close", "x", "a:b", ""]);
        let blank = || prop::sample::select(vec!["", " ", "\t ", "\u{c}"]);
        let end = || prop_oneof![20 => Just("\r\n"), 1 => prop::sample::select(vec!["\n", "\r", "\r\r\n", ""])];
        let colon = prop_oneof![20 => Just(":"), 1 => prop::sample::select(vec!["", " :"])];
        let field = (name, colon, blank(), value, blank(), end());
        let field = field
            .prop_map(|(name, colon, before, value, after, end)| format!("{name}{colon}{before}{value}{after}{end}"));
        let stray = prop::option::weighted(0.3, (any::<prop::sample::Index>(), "[\\x00-\\x7f\u{e4}]"));
        let fields = prop::collection::vec(field, 0..4);
        (first, end(), fields, end(), stray).prop_map(|(first, after, fields, end, stray)| {
            let mut head = format!("{first}{after}{}{end}body", fields.concat());
            if let Some((at, stray)) = stray {
                head.insert_str(at.index(head.len()), &stray);
            }
            head
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        #[test]
        fn a_head_means_the_same_to_both_readers(head in heads()) {
            prop_assert_eq!(made(take, &head), made(forgiving, &head));
        }
    }
}
