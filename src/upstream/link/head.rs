//! The head of an answer (RFC 9112 section 4 and 5): what an endpoint sent becomes a response, or is refused.

use std::mem::MaybeUninit;

use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode, Version};
use hyper::ext::ReasonPhrase;

use crate::message::hop::KEEP_ALIVE;
use crate::message::names;
use crate::message::read::decimal;

/// A head, and what it says about the rest of the exchange.
#[derive(Debug)]
pub(super) struct Head {
    /// As it is passed on.
    pub(super) response: Response<()>,
    /// The length of the body, if one is announced.
    pub(super) length: Option<u64>,
    /// The body is chunked.
    pub(super) is_chunked: bool,
    /// The connection may be used again after a body whose end can be told.
    pub(super) keeps_alive: bool,
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

/// Where in the head a field's name and value stand.
#[derive(Debug, Clone, Copy, Default)]
struct Place {
    name: (u32, u32),
    value: (u32, u32),
}

/// What the fields say about the framing.
#[derive(Debug, Default)]
struct Facts {
    length: Option<u64>,
    is_coded: bool,
    close: bool,
    keep_alive: bool,
    breach: Option<AnswerError>,
}

/// Takes a head out of `buf`, if all of it is there.
///
/// # Errors
/// When it breaks the protocol, or two readers could take its body for different ones.
pub(super) fn take(buf: &mut BytesMut) -> Result<Option<Head>, AnswerError> {
    let mut places = [Place::default(); MOST_FIELDS];
    let mut fields = [const { MaybeUninit::uninit() }; MOST_FIELDS];
    let mut answer = httparse::Response::new(&mut []);
    let parser = httparse::ParserConfig::default();
    let parsed = match parser.parse_response_with_uninit_headers(&mut answer, buf, &mut fields) {
        Err(httparse::Error::TooManyHeaders) => return Err(AnswerError::TooLarge),
        parsed => parsed?,
    };
    let httparse::Status::Complete(length) = parsed else { return Ok(None) };
    let status = answer.code.and_then(|code| StatusCode::from_u16(code).ok()).ok_or(AnswerError::Status)?;
    let mut response = Response::new(());
    *response.status_mut() = status;
    *response.version_mut() = if answer.version == Some(0) { Version::HTTP_10 } else { Version::HTTP_11 };
    if let Some(reason) = answer.reason.filter(|reason| Some(*reason) != status.canonical_reason()) {
        let reason = ReasonPhrase::try_from(reason.as_bytes()).map_err(|_| httparse::Error::Status)?;
        response.extensions_mut().insert(reason);
    }
    let count = answer.headers.len();
    for (place, field) in places.iter_mut().zip(&*answer.headers) {
        *place = Place { name: within(buf, field.name.as_bytes()), value: within(buf, field.value) };
    }
    // One piece that the values share; what is kept for longer is copied where it is kept.
    let text = buf.split_to(length).freeze();
    let mut facts = Facts::default();
    *response.headers_mut() = headers(&text, places.get(..count).unwrap_or_default(), &mut facts)?;
    Ok(Some(facts.judge(response)?))
}

fn headers(text: &Bytes, places: &[Place], facts: &mut Facts) -> Result<HeaderMap, AnswerError> {
    let mut headers = HeaderMap::with_capacity(places.len());
    for Place { name, value } in places {
        let name = text.get(name.0 as usize..name.1 as usize).unwrap_or_default();
        let name = match names::usual(name) {
            Some(name) => name,
            None => HeaderName::from_bytes(name).map_err(|_| AnswerError::Field)?,
        };
        let value = text.slice(value.0 as usize..value.1 as usize);
        let value = HeaderValue::from_maybe_shared(value).map_err(|_| AnswerError::Field)?;
        if facts.note(&name, &value) {
            headers.append(name, value);
        }
    }
    Ok(headers)
}

/// From where to where in `whole` its `part` goes.
fn within(whole: &[u8], part: &[u8]) -> (u32, u32) {
    let from = part.as_ptr().addr().saturating_sub(whole.as_ptr().addr()) as u32;
    (from, from + part.len() as u32)
}

impl Facts {
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
                if self.is_coded || !value.as_bytes().eq_ignore_ascii_case(b"chunked") {
                    self.breach = Some(AnswerError::Coding);
                }
                self.is_coded = true;
                false
            }
            _ => *name != KEEP_ALIVE,
        }
    }

    fn judge(self, response: Response<()>) -> Result<Head, AnswerError> {
        let is_old = response.version() == Version::HTTP_10;
        // Interim answers are passed over, whatever they say; the caller knows whether 101 was asked for.
        if !response.status().is_informational() || response.status() == StatusCode::SWITCHING_PROTOCOLS {
            if response.status().as_u16() > 599 {
                return Err(AnswerError::Status);
            }
            if let Some(breach) = self.breach {
                return Err(breach);
            }
            if self.is_coded && is_old {
                return Err(AnswerError::Coding);
            }
            if self.is_coded && self.length.is_some() {
                return Err(AnswerError::LengthWithCoding);
            }
        }
        let keeps_alive = !self.close && (!is_old || self.keep_alive);
        Ok(Head { response, length: self.length, is_chunked: self.is_coded, keeps_alive })
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

#[cfg(test)]
mod tests {
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
            assert_eq!(head.keeps_alive, kept, "{status} {fields:?}");
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
}
