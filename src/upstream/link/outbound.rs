//! A request on its way out: its head, and its body while it comes from the client (RFC 9112 section 3 to 7).

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, request};
use http_body::{Body, Frame};
use tokio::io::AsyncWrite;

use super::LinkError;
use crate::message::chunked::{self, Announced};
use crate::message::hop::KEEP_ALIVE;
use crate::message::read::decimal;
use crate::upstream::body::RequestBody;
use crate::upstream::origin::Relayed;

/// What is to be written: first `buf`, then `chunk`, then `tail`.
#[derive(Debug, Default)]
pub(super) struct Outbound {
    buf: Vec<u8>,
    /// So much of `buf` is written.
    written: usize,
    /// A piece of the body that is too large to be copied.
    chunk: Bytes,
    tail: &'static [u8],
    /// What is still to come, and how it is framed.
    body: Option<(RequestBody, Framing)>,
    /// Something was written and not flushed.
    unflushed: bool,
}

#[derive(Debug)]
enum Framing {
    /// So many bytes left.
    Length(u64),
    /// In chunks, with the trailers that were announced.
    Chunked(Option<Announced>),
}

impl Outbound {
    /// Begins with a request: writes its head to the buffer and takes its body. A server that `is_old` has answered in
    /// HTTP/1.0: it is asked in its own words, and to keep the connection. Says whether the request lets it be kept.
    pub(super) fn begin(&mut self, asking: Asking<'_>, body: RequestBody, is_old: bool) -> bool {
        self.buf.clear();
        self.written = 0;
        let (method, headers) = (asking.method(), asking.headers());
        self.put(&[method.as_str().as_bytes(), b" ", asking.target().as_bytes(), b" HTTP/1."]);
        let version_at = self.buf.len();
        self.put(&[b"1\r\n"]);
        if let Some(host) = asking.host() {
            self.put(&[b"host: ", host.as_bytes(), b"\r\n"]);
        }
        let mut fields = Fields::default();
        for (name, value) in headers {
            if asking.passes(name) && fields.note(name, value) {
                self.put(&[name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"]);
            }
        }
        asking.beside(&mut self.buf);
        self.body = self.frame(headers, body, &fields);
        let is_chunked = matches!(self.body, Some((_, Framing::Chunked(_))));
        // Nobody knows how a body without a length is sent in HTTP/1.0.
        if is_old && !is_chunked {
            if let Some(version) = self.buf.get_mut(version_at) {
                *version = b'0';
            }
            if !fields.keep_alive {
                self.put(&[b"connection: keep-alive\r\n"]);
            }
        }
        self.put(&[b"\r\n"]);
        !fields.close
    }

    /// Decides how the body is framed and writes the fields that say so. Only a body that comes with a length, or with a
    /// method that expects one, is sent.
    fn frame(&mut self, headers: &HeaderMap, body: RequestBody, fields: &Fields<'_>) -> Option<(RequestBody, Framing)> {
        let announced = fields.length.and_then(|length| decimal(length.as_bytes()));
        let has_body = !body.is_end_stream();
        let framing = match (announced, body.size_hint().exact()) {
            _ if !has_body => None,
            _ if fields.coded => Some(Framing::Chunked(None)),
            (Some(length), _) => Some(Framing::Length(length)),
            (None, Some(length)) => {
                // A u64 always fits.
                let _ = io::Write::write_fmt(&mut self.buf, format_args!("content-length: {length}\r\n"));
                return (length > 0).then_some((body, Framing::Length(length)));
            }
            // Whatever the method: it was sent with a body, and goes on with it.
            (None, None) => Some(Framing::Chunked(None)),
        };
        match framing {
            Some(Framing::Chunked(_)) => {
                self.put(&[b"transfer-encoding: chunked\r\n"]);
                Some((body, Framing::Chunked(Announced::of(headers))))
            }
            framing => {
                // A length that nothing follows would take the next request for a body.
                if let Some(length) = fields.length.filter(|_| has_body || announced == Some(0)) {
                    self.put(&[b"content-length: ", length.as_bytes(), b"\r\n"]);
                }
                framing.filter(|framing| !matches!(framing, Framing::Length(0))).map(|framing| (body, framing))
            }
        }
    }

    fn put(&mut self, pieces: &[&[u8]]) {
        for piece in pieces {
            self.buf.extend_from_slice(piece);
        }
    }

    /// The endpoint asks for the body that was held back (RFC 9110 section 10.1.1).
    pub(super) fn open_gate(&mut self) {
        if let Some((body, _)) = &mut self.body {
            body.open_gate();
        }
    }

    /// Whether all of the request has been sent.
    pub(super) const fn is_done(&self) -> bool {
        self.body.is_none() && self.is_written() && !self.unflushed
    }

    const fn is_written(&self) -> bool {
        self.written == self.buf.len() && self.chunk.is_empty() && self.tail.is_empty()
    }

    /// Sends on, as far as the client has brought the body and the endpoint takes it; ready when all is sent.
    ///
    /// # Errors
    /// When the client's body breaks, or the connection. Nothing more is sent then.
    pub(super) fn poll(
        &mut self,
        stream: &mut (impl AsyncWrite + Unpin),
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), LinkError>> {
        loop {
            self.fill(cx)?;
            if self.is_written() {
                if self.unflushed {
                    ready!(Pin::new(&mut *stream).poll_flush(cx)).map_err(LinkError::Broken)?;
                    self.unflushed = false;
                }
                return if self.body.is_some() { Poll::Pending } else { Poll::Ready(Ok(())) };
            }
            ready!(self.write(stream, cx)).map_err(LinkError::Broken)?;
        }
    }

    fn write(&mut self, stream: &mut (impl AsyncWrite + Unpin), cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let stream = Pin::new(stream);
        let rest = self.buf.get(self.written..).unwrap_or_default();
        // One piece costs the kernel less than two.
        let mut count = ready!(match (rest.is_empty(), self.chunk.is_empty()) {
            (_, true) => stream.poll_write(cx, rest),
            (true, false) => stream.poll_write(cx, &self.chunk),
            (false, false) => stream.poll_write_vectored(cx, &[IoSlice::new(rest), IoSlice::new(&self.chunk)]),
        })?;
        if count == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.unflushed = true;
        let of_buf = count.min(rest.len());
        self.written += of_buf;
        count -= of_buf;
        self.chunk.advance(count.min(self.chunk.len()));
        if self.written == self.buf.len() && self.chunk.is_empty() {
            self.buf.clear();
            self.written = 0;
            self.buf.extend_from_slice(std::mem::take(&mut self.tail));
        }
        Poll::Ready(Ok(()))
    }

    /// Takes of the body what is there and fits.
    fn fill(&mut self, cx: &mut Context<'_>) -> Result<(), LinkError> {
        while self.chunk.is_empty() && self.buf.len() < FULL {
            let Some((body, framing)) = &mut self.body else { return Ok(()) };
            let Poll::Ready(next) = Pin::new(&mut *body).poll_frame(cx) else { return Ok(()) };
            let next = next.transpose().map_err(LinkError::Request);
            let is_last = body.is_end_stream();
            match next.map(|frame| frame.map(Frame::into_data)) {
                Ok(Some(Ok(data))) => self.data(data, is_last)?,
                Ok(Some(Err(frame))) => {
                    let trailers = frame.into_trailers().unwrap_or_default();
                    if let Framing::Chunked(Some(announced)) = framing {
                        announced.write_last(&mut self.buf, &trailers);
                        self.body = None;
                    } else {
                        self.end()?;
                    }
                }
                Ok(None) => self.end()?,
                Err(error) => {
                    self.body = None;
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    fn data(&mut self, mut data: Bytes, is_last: bool) -> Result<(), LinkError> {
        let Some((_, framing)) = &mut self.body else { return Ok(()) };
        match framing {
            Framing::Length(left) => {
                // More than was announced would be taken for the next request.
                data.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= data.len() as u64;
                let is_whole = *left == 0;
                self.piece(data, b"");
                if is_whole {
                    self.body = None;
                    return Ok(());
                }
            }
            Framing::Chunked(_) if data.is_empty() => {}
            Framing::Chunked(_) => {
                chunked::write_size(&mut self.buf, data.len());
                if is_last {
                    self.piece(data, chunked::LAST_AFTER_CHUNK);
                    self.body = None;
                    return Ok(());
                }
                self.piece(data, chunked::CHUNK_END);
            }
        }
        if is_last { self.end() } else { Ok(()) }
    }

    /// A small piece is copied, so that it leaves with what stands before and after it.
    fn piece(&mut self, data: Bytes, tail: &'static [u8]) {
        if data.len() <= COPIED {
            self.put(&[&data, tail]);
        } else {
            self.chunk = data;
            self.tail = tail;
        }
    }

    fn end(&mut self) -> Result<(), LinkError> {
        match self.body.take() {
            Some((_, Framing::Chunked(_))) => {
                self.put(&[chunked::LAST]);
                Ok(())
            }
            Some((_, Framing::Length(1..))) => Err(LinkError::RequestTooShort),
            _ => Ok(()),
        }
    }

    /// Nothing will be sent for a while: only a small buffer is kept.
    pub(super) fn rest(&mut self) {
        if self.buf.capacity() > FULL {
            self.buf = Vec::new();
        }
    }
}

/// What is asked.
#[derive(Debug, Clone, Copy)]
pub enum Asking<'a> {
    /// A request as it is to be sent.
    Whole(&'a request::Parts),
    /// One as its client sent it.
    Relayed(Relayed<'a>),
}

impl<'a> Asking<'a> {
    pub(super) const fn method(self) -> &'a Method {
        match self {
            Self::Whole(parts) => &parts.method,
            Self::Relayed(head) => head.method,
        }
    }

    fn target(self) -> &'a str {
        match self {
            Self::Whole(parts) => parts.uri.path_and_query().map_or("/", |target| target.as_str()),
            Self::Relayed(head) => head.target.as_str(),
        }
    }

    const fn headers(self) -> &'a HeaderMap {
        match self {
            Self::Whole(parts) => &parts.headers,
            Self::Relayed(head) => head.headers,
        }
    }

    fn host(self) -> Option<&'a HeaderValue> {
        match self {
            Self::Whole(parts) => parts.headers.get(header::HOST),
            Self::Relayed(head) => Some(head.host),
        }
    }

    /// Whether this field is passed on: what its client said of its own connection is not.
    fn passes(self, name: &HeaderName) -> bool {
        matches!(self, Self::Whole(_)) || (*name != header::CONNECTION && *name != KEEP_ALIVE)
    }

    fn beside(self, to: &mut Vec<u8>) {
        if let Self::Relayed(head) = self {
            (head.beside)(to);
        }
    }
}

/// The fields of a request that its connection looks at.
#[derive(Debug, Default)]
struct Fields<'h> {
    length: Option<&'h HeaderValue>,
    coded: bool,
    close: bool,
    keep_alive: bool,
}

impl<'h> Fields<'h> {
    /// Notes what a field says; whether it is written where it stands.
    fn note(&mut self, name: &HeaderName, value: &'h HeaderValue) -> bool {
        match *name {
            header::HOST => false,
            header::CONTENT_LENGTH => {
                self.length.get_or_insert(value);
                false
            }
            header::TRANSFER_ENCODING => {
                self.coded = true;
                false
            }
            header::CONNECTION => {
                for option in value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                    self.close |= option.eq_ignore_ascii_case(b"close");
                    self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
                }
                true
            }
            _ => true,
        }
    }
}

/// A larger piece of a body is written from where it lies.
const COPIED: usize = 8 * 1024;
/// So much is gathered before it is written.
const FULL: usize = 16 * 1024;
