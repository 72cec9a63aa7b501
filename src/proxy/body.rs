//! The body of a response: one enum, no box for the common cases, and the end of the exchange.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::Response;
use http_body::{Body, Frame, SizeHint};

use super::exchange::Exchange;
use super::held::Held;
use super::preset::{self, Wire};
use crate::cache::entry::Entry;
use crate::cache::flight::Reader;
use crate::listen::http1::Preset;
use crate::metrics::Ending;
use crate::upstream::body::{BoxError, ReplyBody};

/// Where the bytes come from.
pub(super) enum Content {
    /// Nowhere.
    Empty,
    /// At hand.
    Full(Bytes),
    /// That of a stored answer, if it goes with it.
    Stored(Arc<Entry>, bool),
    /// From a fill under way.
    Fill(Reader),
    /// From the upstream, with what the request holds there.
    Reply(ReplyBody, Box<Held>),
}

/// The body of a response. The exchange is over when it has ended or is dropped.
pub struct ResponseBody {
    content: Content,
    exchange: Option<Box<Exchange>>,
    sent: u64,
    /// The whole, where it is known beforehand.
    length: Option<u64>,
    /// What of the head of the answer need not be made of fields.
    wire: Option<Wire>,
}

impl ResponseBody {
    pub(super) fn new(content: Content, exchange: Box<Exchange>) -> Self {
        let mut body = Self { content, exchange: Some(exchange), sent: 0, length: None, wire: None };
        body.length = body.size_hint().exact();
        body
    }

    /// With what goes over the connection beside the fields of its response.
    pub(super) fn with(mut self, wire: Option<Wire>) -> Self {
        self.wire = wire;
        self
    }

    /// The answer that it brings the head of.
    pub(super) fn into_response(self) -> Response<Self> {
        let status = self.exchange.as_ref().map(|exchange| exchange.status);
        let mut response = Response::new(self);
        *response.status_mut() = status.unwrap_or_default();
        response
    }

    /// What is at hand, told as sent.
    pub(super) fn into_bytes(mut self) -> Bytes {
        let Content::Full(bytes) = std::mem::replace(&mut self.content, Content::Empty) else { return Bytes::new() };
        self.sent = bytes.len() as u64;
        self.end(Ending::Whole);
        bytes
    }

    fn end(&mut self, ending: Ending) {
        if let Some(exchange) = self.exchange.take() {
            exchange.finish(self.sent, ending);
        }
    }
}

impl Content {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self {
            Self::Empty => Poll::Ready(None),
            Self::Full(_) => match std::mem::replace(self, Self::Empty) {
                Self::Full(data) if !data.is_empty() => Poll::Ready(Some(Ok(Frame::data(data)))),
                _ => Poll::Ready(None),
            },
            Self::Stored(entry, true) if !entry.body.is_empty() => {
                let data = entry.body.clone();
                *self = Self::Empty;
                Poll::Ready(Some(Ok(Frame::data(data))))
            }
            Self::Stored(..) => Poll::Ready(None),
            Self::Fill(reader) => reader.poll_next(cx).map(|next| next.map(|data| Ok(Frame::data(data?)))),
            Self::Reply(body, held) => held.poll_body(body, cx),
        }
    }
}

impl Preset for ResponseBody {
    fn preset(&mut self, head: &mut BytesMut) -> bool {
        let (Some(Wire::Stored(age)), Some(exchange), Content::Stored(entry, _)) =
            (&self.wire, self.exchange.as_deref(), &self.content)
        else {
            return false;
        };
        preset::stored(exchange, entry, *age, head);
        true
    }

    fn whole(&mut self, most: usize) -> Option<&[u8]> {
        let Content::Stored(entry, goes) = &self.content else { return None };
        let body: &[u8] = if *goes { &entry.body } else { &[] };
        if body.len() > most {
            return None;
        }
        self.sent = body.len() as u64;
        Some(body)
    }

    fn beside(&mut self, head: &mut BytesMut) {
        if let (Some(Wire::Beside(beside)), Some(exchange)) = (&self.wire, self.exchange.as_deref()) {
            beside.write(exchange, head);
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        let next = std::task::ready!(this.content.poll(cx));
        match &next {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    this.sent += data.len() as u64;
                    if let Some(watched) = this.exchange.as_mut().and_then(|exchange| exchange.watched.as_mut()) {
                        watched.take(data);
                    }
                }
            }
            Some(Err(_)) => this.end(Ending::Broken),
            None => this.end(Ending::Whole),
        }
        Poll::Ready(next)
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Empty => true,
            Content::Full(data) => data.is_empty(),
            Content::Stored(entry, goes) => !goes || entry.body.is_empty(),
            Content::Fill(_) => false,
            Content::Reply(body, _) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Empty => SizeHint::with_exact(0),
            Content::Full(data) => SizeHint::with_exact(data.len() as u64),
            Content::Stored(entry, goes) => SizeHint::with_exact(if *goes { entry.body.len() as u64 } else { 0 }),
            Content::Fill(reader) => reader.length().map_or_else(SizeHint::default, SizeHint::with_exact),
            Content::Reply(body, _) => body.size_hint(),
        }
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        // hyper stops polling when the announced length is reached, and never polls an empty body: that is no abort.
        let whole = self.is_end_stream() || self.length == Some(self.sent);
        if let Content::Reply(body, held) = std::mem::replace(&mut self.content, Content::Empty) {
            held.leave(body, whole);
        }
        self.end(if whole { Ending::Whole } else { Ending::Aborted });
    }
}
