//! An answer as it goes over the wire: status line, fields and framing (RFC 9112 sections 4 to 7).

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes, BytesMut};
use http::header;
use http::response::Parts;
use http::{HeaderMap, Response, StatusCode};
use http_body::Body;
use hyper::ext::ReasonPhrase;

use super::date::Date;
use super::head::{Asked, lists};
use crate::message::chunked::{Announced, CHUNK_END, LAST, write_size};
use crate::message::read::decimal;
use crate::message::short::Text as _;

/// What waits to be written.
#[derive(Debug, Default)]
pub(super) struct Out {
    /// Pieces that are not copied, and what stands before them.
    queue: VecDeque<Bytes>,
    /// Bytes in them.
    queued: usize,
    /// What comes after them. Of most answers it is all.
    text: BytesMut,
    /// How much of the text is written, where nothing is queued.
    sent: usize,
}

/// What is known of the body of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Size {
    /// There is none.
    Empty,
    /// So many bytes.
    Exact(u64),
    /// It ends when it ends.
    Unknown,
}

impl Size {
    pub(super) fn of(body: &impl Body) -> Self {
        match body.size_hint().exact() {
            _ if body.is_end_stream() => Self::Empty,
            Some(length) => Self::Exact(length),
            None => Self::Unknown,
        }
    }
}

/// Frames the body of an answer.
#[derive(Debug)]
pub(super) struct Encoder {
    framing: Framing,
    /// Trailers that may be sent.
    announced: Option<Announced>,
    /// Whether the connection ends with this answer.
    pub(super) last: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    /// So many bytes are to come.
    Length(u64),
    Chunked,
    /// Up to the end of the connection.
    Close,
}

impl Out {
    /// Bytes that wait.
    pub(super) fn len(&self) -> usize {
        self.queued + self.text.len() - self.sent
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where text is appended.
    pub(super) fn text(&mut self) -> &mut BytesMut {
        &mut self.text
    }

    /// Appends a piece: a small one is copied, so that one write does.
    pub(super) fn push(&mut self, data: Bytes) {
        if data.len() <= COPIED {
            self.text.extend_from_slice(&data);
            return;
        }
        self.text.advance(std::mem::take(&mut self.sent));
        if !self.text.is_empty() {
            self.queued += self.text.len();
            self.queue.push_back(self.text.split().freeze());
        }
        self.queued += data.len();
        self.queue.push_back(data);
    }

    /// Everything in one piece, where it is.
    pub(super) fn only(&self) -> Option<&[u8]> {
        if self.queue.is_empty() { self.text.get(self.sent..) } else { None }
    }

    /// The first pieces; how many.
    pub(super) fn slices<'o>(&'o self, slices: &mut [IoSlice<'o>]) -> usize {
        let text = self.text.get(self.sent..).filter(|text| !text.is_empty());
        let pieces = self.queue.iter().map(|piece| &**piece).chain(text);
        slices.iter_mut().zip(pieces).map(|(slice, piece)| *slice = IoSlice::new(piece)).count()
    }

    /// So many bytes were written.
    pub(super) fn advance(&mut self, mut count: usize) {
        while let Some(piece) = self.queue.front_mut() {
            let used = count.min(piece.len());
            piece.advance(used);
            self.queued -= used;
            count -= used;
            if !piece.is_empty() {
                return;
            }
            self.queue.pop_front();
        }
        self.sent += count;
        if self.sent >= self.text.len() {
            self.text.clear();
            self.sent = 0;
        } else if self.sent >= KEPT {
            // Of a client that never takes all, what it has taken must not be kept.
            self.text.advance(std::mem::take(&mut self.sent));
        }
    }

    /// Gives up an empty buffer that has grown.
    pub(super) fn rest(&mut self) {
        if self.is_empty() && self.text.capacity() > KEPT {
            self.text = BytesMut::new();
        }
    }
}

impl Encoder {
    /// Writes the head of an answer to a request that asked for it so; `beside` appends the fields that its body brings.
    /// `keep` says whether the connection may go on; `Connection: close` in the answer ends it all the same.
    pub(super) fn begin(
        out: &mut Out,
        (answer, size): (&Parts, Size),
        asked: Asked,
        keep: bool,
        date: &Date,
        beside: impl FnOnce(&mut BytesMut),
    ) -> Self {
        let text = out.text();
        text.reserve(64 + answer.headers.len() * USUAL_FIELD);
        let reason = answer.extensions.get::<ReasonPhrase>().map(ReasonPhrase::as_bytes);
        status_line(text, answer.status, reason, asked.old);
        let status = answer.status;
        let no_body = asked.bodiless || status.is_informational() || status == StatusCode::NO_CONTENT;
        let no_body = no_body || status == StatusCode::NOT_MODIFIED;
        let mut seen = Seen::default();
        for (name, value) in &answer.headers {
            match *name {
                // RFC 9110 section 8.6.
                header::CONTENT_LENGTH if status == StatusCode::NO_CONTENT || status.is_informational() => continue,
                header::CONTENT_LENGTH if !seen.takes_length(value.as_bytes(), size, asked.bodiless) => continue,
                // Those of this connection are decided here.
                header::TRANSFER_ENCODING => continue,
                header::TRAILER if no_body || asked.old => continue,
                header::CONNECTION => {
                    seen.close |= lists(value, b"close");
                    seen.keep_alive |= lists(value, b"keep-alive");
                }
                header::DATE => seen.date = true,
                _ => {}
            }
            field(text, name.as_str().as_bytes(), value.as_bytes());
        }
        beside(text);
        let framing = seen.framing(text, size, asked, status, no_body);
        if !seen.date {
            field(text, b"date", &date.now());
        }
        let mut last = !keep || seen.close || framing == Framing::Close;
        if status == StatusCode::SWITCHING_PROTOCOLS {
            last = true;
        } else if !seen.close {
            connection(text, asked.old, last, seen.keep_alive);
        }
        text.extend_from_slice(b"\r\n");
        let trailers = framing == Framing::Chunked && asked.trailers;
        let announced = if trailers { Announced::of(&answer.headers) } else { None };
        Self { framing, announced, last }
    }

    /// The same where the body has brought its head: all but Connection and the end stand in `out`.
    pub(super) fn preset(out: &mut Out, size: Size, asked: Asked, keep: bool) -> Self {
        let text = out.text();
        connection(text, false, !keep, false);
        text.extend_from_slice(b"\r\n");
        let framing = match size {
            _ if asked.bodiless => Framing::Length(0),
            Size::Empty => Framing::Length(0),
            Size::Exact(length) => Framing::Length(length),
            Size::Unknown => Framing::Chunked,
        };
        Self { framing, announced: None, last: !keep }
    }

    /// Whether nothing can follow.
    pub(super) fn is_complete(&self) -> bool {
        self.framing == Framing::Length(0)
    }

    /// Appends data. What is beyond the length that was announced is left out.
    pub(super) fn data(&mut self, out: &mut Out, mut data: Bytes) {
        match &mut self.framing {
            Framing::Length(left) => {
                data.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= data.len() as u64;
                out.push(data);
            }
            Framing::Close => out.push(data),
            Framing::Chunked if data.is_empty() => {}
            Framing::Chunked => {
                write_size(out.text(), data.len());
                out.push(data);
                out.text().extend_from_slice(CHUNK_END);
            }
        }
    }

    /// Appends the end. Says whether it is one: a body shorter than was announced must not look whole.
    #[must_use]
    pub(super) fn end(&mut self, out: &mut Out, trailers: Option<&HeaderMap>) -> bool {
        match (self.framing, &self.announced, trailers) {
            (Framing::Length(left), _, _) => return left == 0,
            (Framing::Close, _, _) => {}
            (Framing::Chunked, Some(announced), Some(trailers)) => announced.write_last(out.text(), trailers),
            (Framing::Chunked, _, _) => out.text().extend_from_slice(LAST),
        }
        true
    }
}

/// What an answer's own fields say of this connection.
#[derive(Debug, Default)]
struct Seen {
    length: Option<u64>,
    close: bool,
    keep_alive: bool,
    date: bool,
}

impl Seen {
    /// Whether this Content-Length is to be sent: the first, where it does not contradict the body.
    fn takes_length(&mut self, value: &[u8], size: Size, bodiless: bool) -> bool {
        if self.length.is_some() {
            return false;
        }
        let value = decimal(value);
        self.length = match size {
            _ if bodiless => value,
            Size::Empty => value.filter(|length| *length == 0),
            Size::Exact(length) => value.filter(|value| *value == length),
            Size::Unknown => value,
        };
        self.length.is_some()
    }

    /// How the body is framed (RFC 9112 section 6.3), with the field that says so where there is none yet.
    fn framing(&self, text: &mut BytesMut, size: Size, asked: Asked, status: StatusCode, no_body: bool) -> Framing {
        match (size, self.length) {
            (_, Some(_)) if no_body => Framing::Length(0),
            (_, Some(length)) => Framing::Length(length),
            (Size::Unknown, None) if no_body => Framing::Length(0),
            (Size::Unknown, None) if asked.old => Framing::Close,
            (Size::Unknown, None) => {
                text.extend_from_slice(b"transfer-encoding: chunked\r\n");
                Framing::Chunked
            }
            (Size::Empty | Size::Exact(0), None) => {
                if !no_body {
                    text.extend_from_slice(b"content-length: 0\r\n");
                }
                Framing::Length(0)
            }
            (Size::Exact(length), None) => {
                // RFC 9110 section 8.6: what HEAD would get may be told, of other answers without a body nothing.
                if !no_body || asked.bodiless && status != StatusCode::NO_CONTENT && !status.is_informational() {
                    content_length(text, length);
                }
                Framing::Length(if no_body { 0 } else { length })
            }
        }
    }
}

/// `reason` is the origin's own phrase, if it has one.
fn status_line(text: &mut BytesMut, status: StatusCode, reason: Option<&[u8]>, old: bool) {
    if status == StatusCode::OK && reason.is_none() && !old {
        text.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
        return;
    }
    text.extend_from_slice(if old { b"HTTP/1.0 " } else { b"HTTP/1.1 " });
    text.extend_from_slice(status.as_str().as_bytes());
    text.extend_from_slice(b" ");
    let canonical = status.canonical_reason().unwrap_or_default().as_bytes();
    text.extend_from_slice(reason.unwrap_or(canonical));
    text.extend_from_slice(b"\r\n");
}

#[inline]
fn field(text: &mut BytesMut, name: &[u8], value: &[u8]) {
    text.extend_from_slice(name);
    text.extend_from_slice(b": ");
    text.extend_from_slice(value);
    text.extend_from_slice(b"\r\n");
}

fn content_length(text: &mut BytesMut, length: u64) {
    text.text("content-length: ").number(length).text("\r\n");
}

/// What the client could not guess of the connection (RFC 9112 section 9.3): HTTP/1.1 goes on, HTTP/1.0 does not.
fn connection(text: &mut BytesMut, old: bool, close: bool, said: bool) {
    match (old, close) {
        (false, true) => text.extend_from_slice(b"connection: close\r\n"),
        (true, false) if !said => text.extend_from_slice(b"connection: keep-alive\r\n"),
        _ => {}
    }
}

/// A last response as it goes over the wire, without a date of its own.
pub(in crate::listen) fn written(response: Response<Bytes>) -> Bytes {
    let (parts, body) = response.into_parts();
    let mut text = BytesMut::with_capacity(512 + body.len());
    status_line(&mut text, parts.status, None, false);
    for (name, value) in &parts.headers {
        field(&mut text, name.as_str().as_bytes(), value.as_bytes());
    }
    content_length(&mut text, body.len() as u64);
    connection(&mut text, false, true, false);
    text.extend_from_slice(b"\r\n");
    text.extend_from_slice(&body);
    text.freeze()
}

/// Up to so many bytes a piece of a body is copied behind what stands before it.
pub(super) const COPIED: usize = 4 * 1024;
/// The largest empty buffer that is kept between answers.
const KEPT: usize = 16 * 1024;
/// Bytes of a field, to begin with.
const USUAL_FIELD: usize = 40;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_slow_client_has_taken_is_not_kept() {
        let mut out = Out::default();
        out.push(Bytes::from_static(&[b'x'; COPIED]));
        let mut most = 0;
        for _ in 0..10_000 {
            out.push(Bytes::from_static(&[b'x'; COPIED]));
            // It never takes all.
            out.advance(COPIED);
            most = most.max(out.text.capacity());
        }
        assert_eq!(out.len(), COPIED);
        assert!(most <= 4 * KEPT, "{most}");
    }
}
