//! HTTP/1.x with a client: one request after the other, each answered before the next is read.
//!
//! ```text
//!  Reading ─► Answering ─► Sending ─► Ending ─┬─► Reading
//!     └──────── refused ─────────────────►────┴─► Closing ─► Lingering        after a 101: handed over
//! ```
//! One future per connection, polled by hand: a request costs it no task, no channel and no timer. While a request is
//! answered the client is watched: when it leaves, the answer to come is dropped.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::request::Parts;
use http::{Request, Response, StatusCode};
use http_body::Body as _;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Sleep;

use super::Peer;
use super::drain::Open;
use super::serve::{Answer, BoxError, Server};
use super::watch::{Phase, Watch};
use super::wire::Wire;
use crate::message::spare;
use crate::message::switch::{self, Switched, Switching};
use crate::metrics::ConnectionRefusal;

mod body;
mod date;
mod head;
mod stream;
#[cfg(test)]
mod tests;
mod write;

use self::head::{Asked, Length, Refused, Scan};
use self::stream::{Client, Leave, Left, Lendable};
use self::write::{COPIED, Encoder, Out, Size};

pub use self::body::{Body, BodyError};
pub use self::date::Date;
pub(super) use self::stream::LEAST_ROOM;
pub(super) use self::write::written;

/// How a request over HTTP/1.x is answered.
pub enum Answered<B, F> {
    /// At once, by a body that brings its head ([`Preset::preset`]); to a request of HTTP/1.1 only.
    Preset(B),
    /// Once this is ready.
    Later(F),
}

/// A response body that may bring the head of its answer as it goes over an HTTP/1.1 connection.
pub trait Preset {
    /// Appends status line and all fields, each ended by CRLF, Date and framing included, to `head` and says true; the
    /// response's own status and fields are then not looked at. No Connection field, and no final empty line. The framing
    /// is the body's exact size, or chunks where it has none. False: nothing was appended.
    fn preset(&mut self, head: &mut BytesMut) -> bool;

    /// All of the body, where it is at hand and has no more than `most` bytes: then it has been sent.
    fn whole(&mut self, most: usize) -> Option<&[u8]>;

    /// Appends the fields, each ended by CRLF, that stand beside those of the response where the head is made of them.
    /// None of them is of the connection or its framing, and none a Date.
    fn beside(&mut self, head: &mut BytesMut);
}

/// Serves the connection over `stream`, of which `read` was read already, until it ends.
pub(super) async fn serve<A: Answer, S>(
    server: &Server,
    peer: Peer,
    (stream, read): (S, BytesMut),
    answer: A,
    open: &mut Open,
) -> Result<(), BoxError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut connection = Connection {
        server,
        peer,
        answer,
        open,
        client: Lendable::new(Client::new(Some(stream), read)),
        scan: Scan::default(),
        asked: Asked::default(),
        with_body: false,
        switching: None,
        out: Out::default(),
        state: State::Reading,
        watch: Watch::new(server.patience()),
        heads: 0,
        writes: 0,
        ends: false,
    };
    std::future::poll_fn(|cx| connection.poll(cx)).await
}

/// One connection.
struct Connection<'s, A: Answer, S> {
    server: &'s Server,
    peer: Peer,
    answer: A,
    open: &'s mut Open,
    client: Lendable<S>,
    scan: Scan,
    /// Of the request that is being answered.
    asked: Asked,
    /// It has a body.
    with_body: bool,
    /// It may switch protocols.
    switching: Option<Switching>,
    out: Out,
    state: State<A>,
    watch: Watch,
    /// Heads that were read.
    heads: u64,
    /// Writes that the client took.
    writes: u64,
    /// The drain has begun: nothing follows the request under way.
    ends: bool,
}

enum State<A: Answer> {
    /// The next head is read.
    Reading,
    /// The answer is waited for.
    Answering(A::Future),
    /// Its body is sent.
    Sending(A::Body, Encoder),
    /// All is said: what is left of it is written, and of the request's body read. Does the connection end with it?
    Ending(bool),
    /// Our side is closed.
    Closing,
    /// What the client still sends is read, so that it reads our last words.
    Lingering(Linger),
}

/// The end of a connection whose client may still be sending.
struct Linger {
    left: usize,
    until: Pin<Box<Sleep>>,
}

impl<A: Answer, S> Connection<'_, A, S>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.ends = self.ends || self.open.poll_begun(cx);
        // A client whose requests and answers never make us wait must leave the others their turn.
        for _ in 0..TURN {
            match &mut self.state {
                State::Reading => ready!(self.poll_reading(cx))?,
                State::Answering(_) => ready!(self.poll_answering(cx))?,
                State::Sending(..) => ready!(self.poll_sending(cx))?,
                State::Ending(_) => {
                    if ready!(self.poll_ending(cx))? {
                        return Poll::Ready(Ok(()));
                    }
                }
                State::Closing => {
                    if ready!(self.poll_closing(cx))? {
                        return Poll::Ready(Ok(()));
                    }
                }
                State::Lingering(linger) => {
                    ready!(linger.poll(&mut self.client.get(), cx));
                    return Poll::Ready(Ok(()));
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Reads a head and asks for the answer.
    fn poll_reading(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        let mut client = self.client.get();
        let length = loop {
            if !self.scan.has_seen(client.buffer.len()) {
                match self.scan.find(&client.buffer, self.server.limits.head_size) {
                    Ok(Some(length)) => break length,
                    Ok(None) => {}
                    Err(refused) => {
                        drop(client);
                        self.refuse(refused);
                        return Poll::Ready(Ok(()));
                    }
                }
            }
            let Poll::Ready(count) = client.poll_fill(cx)? else {
                let idle = self.scan.is_idle(&client.buffer);
                if idle && self.ends {
                    break 0;
                }
                if idle {
                    client.rest();
                    self.out.rest();
                }
                let phase = if idle { Phase::Idle } else { Phase::Head };
                self.watch.check(phase, self.heads, cx)?;
                return Poll::Pending;
            };
            if count == 0 {
                break 0;
            }
        };
        if length == 0 {
            drop(client);
            self.state = State::Closing;
            return Poll::Ready(Ok(()));
        }
        let bytes = client.buffer.split_to(length).freeze();
        let (mut parts, ()) = Request::new(()).into_parts();
        parts.headers = spare::take();
        let read = self.scan.read(bytes, &mut parts);
        self.scan.clear();
        match read {
            Ok((length, asked)) => {
                self.with_body = length != Length::None;
                if self.with_body {
                    client.begin(length, asked.expects);
                }
                drop(client);
                self.heads += 1;
                self.asked = asked;
                self.ask(parts, length, cx)
            }
            Err(refused) => {
                drop(client);
                self.refuse(refused);
                Poll::Ready(Ok(()))
            }
        }
    }

    fn ask(&mut self, mut parts: Parts, length: Length, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        let body = match length {
            Length::None => Body::none(),
            Length::Exact(length) => Body::new(self.client.lend(), Some(length)),
            Length::Chunked => Body::new(self.client.lend(), None),
        };
        if self.asked.upgrade {
            let (switching, switch) = switch::pair();
            self.switching = Some(switching);
            parts.extensions.insert(switch);
        }
        match self.answer.answer(parts, body) {
            Answered::Preset(body) => Poll::Ready(self.begin_preset(body, cx)),
            Answered::Later(mut answer) => {
                // What is at hand is not put away first.
                if let Poll::Ready(answer) = Pin::new(&mut answer).poll(cx) {
                    return Poll::Ready(self.begin(answer.map_err(Into::into)?, cx));
                }
                self.state = State::Answering(answer);
                self.poll_meanwhile(cx)
            }
        }
    }

    /// Begins an answer whose head comes with its body; a short one is said whole.
    fn begin_preset(&mut self, mut body: A::Body, cx: &mut Context<'_>) -> Result<(), BoxError> {
        // What was asked to switch was not.
        self.switching = None;
        let (keep, size) = (self.keeps(cx), Size::of(&body));
        if !body.preset(self.out.text()) {
            return Err("the answer has no head".into());
        }
        let encoder = Encoder::preset(&mut self.out, size, self.asked, keep);
        let whole = if size == Size::Unknown { None } else { body.whole(COPIED) };
        self.state = match whole {
            Some(data) => {
                self.out.text().extend_from_slice(if self.asked.bodiless { &[] } else { data });
                State::Ending(!keep)
            }
            None => State::Sending(body, encoder),
        };
        Ok(())
    }

    /// Whether the connection may go on after the answer that begins now.
    fn keeps(&mut self, cx: &mut Context<'_>) -> bool {
        let mut keep = self.asked.keep_alive && !self.ends;
        if self.with_body {
            let mut client = self.client.get();
            keep = keep && client.poll_left(cx) != Poll::Ready(Left::Unread);
            client.answered();
        }
        keep
    }

    /// Says why there is no request, and ends.
    fn refuse(&mut self, refused: Refused) {
        if let Refused::Breach(breach) = refused {
            tracing::debug!(breach = breach.code(), "malformed request");
            self.server.meter.refused(self.server.worker, ConnectionRefusal::Malformed);
        }
        let words = written((self.server.refuse)(self.peer, refused.reason()));
        self.out.push(words);
        self.client.get().give_up();
        self.with_body = false;
        self.state = State::Ending(true);
    }

    fn poll_answering(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        let State::Answering(future) = &mut self.state else { return Poll::Ready(Ok(())) };
        if let Poll::Ready(answer) = Pin::new(future).poll(cx) {
            return Poll::Ready(self.begin(answer.map_err(Into::into)?, cx));
        }
        self.poll_meanwhile(cx)
    }

    /// While there is no answer yet: asks for the body if that is wanted, and notices that the client has left.
    fn poll_meanwhile(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        if self.asked.expects {
            let mut client = self.client.get();
            if client.leave == Leave::Wanted {
                client.leave = Leave::Given;
                self.out.push(Bytes::from_static(CONTINUE));
            }
        }
        // Only of leave to send the body there may be something to write.
        let _ = self.poll_flush(cx)?;
        self.poll_gone(cx).map(Err)
    }

    /// Begins the answer.
    fn begin(&mut self, answer: Response<A::Body>, cx: &mut Context<'_>) -> Result<(), BoxError> {
        let (answer, mut body) = answer.into_parts();
        let switches = answer.status == StatusCode::SWITCHING_PROTOCOLS;
        if answer.status.is_informational() && !(switches && self.switching.is_some()) {
            return Err("the answer is an interim one".into());
        }
        if !switches {
            self.switching = None;
        }
        let (keep, size) = (self.keeps(cx), Size::of(&body));
        let (out, date) = (&mut self.out, &self.server.date);
        let encoder = if !self.asked.old && body.preset(out.text()) {
            Encoder::preset(out, size, self.asked, keep)
        } else {
            Encoder::begin(out, (&answer, size), self.asked, keep, date, |text| body.beside(text))
        };
        spare::give_back(answer.headers);
        self.state = State::Sending(body, encoder);
        Ok(())
    }

    fn poll_sending(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        loop {
            let State::Sending(body, encoder) = &mut self.state else { return Poll::Ready(Ok(())) };
            if encoder.is_complete() {
                break;
            }
            if self.out.len() >= MOST_BUFFERED {
                if self.poll_flush(cx)?.is_pending() {
                    return self.poll_gone(cx).map(Err);
                }
                continue;
            }
            let Poll::Ready(next) = Pin::new(&mut *body).poll_frame(cx) else {
                let _ = self.poll_flush(cx)?;
                return self.poll_gone(cx).map(Err);
            };
            let ended = match next.transpose().map(|frame| frame.map(http_body::Frame::into_data)) {
                Ok(Some(Ok(data))) => {
                    encoder.data(&mut self.out, data);
                    body.is_end_stream().then_some(None)
                }
                Ok(Some(Err(frame))) => Some(frame.into_trailers().ok()),
                Ok(None) => Some(None),
                Err(error) => {
                    // What came before it is still true.
                    let _ = self.poll_flush(cx)?;
                    return Poll::Ready(Err(error.into()));
                }
            };
            if let Some(trailers) = ended {
                if !encoder.end(&mut self.out, trailers.as_ref()) {
                    let _ = self.poll_flush(cx)?;
                    return Poll::Ready(Err("the body is shorter than was announced".into()));
                }
                break;
            }
        }
        let State::Sending(_, encoder) = &self.state else { return Poll::Ready(Ok(())) };
        self.state = State::Ending(encoder.last);
        Poll::Ready(Ok(()))
    }

    /// Writes the rest. Whether the connection was handed over.
    fn poll_ending(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        ready!(self.poll_flush(cx))?;
        let State::Ending(mut last) = self.state else { return Poll::Ready(Ok(false)) };
        if let Some(switching) = self.switching.take() {
            self.hand_over(switching);
            return Poll::Ready(Ok(true));
        }
        if self.with_body {
            last |= ready!(self.client.get().poll_left(cx)) == Left::Unread;
            self.with_body = false;
        }
        self.state = if last || self.ends { State::Closing } else { State::Reading };
        Poll::Ready(Ok(false))
    }

    fn hand_over(&mut self, switching: Switching) {
        let mut client = self.client.get();
        let ahead = std::mem::take(&mut client.buffer).freeze();
        if let Some(stream) = client.stream.take() {
            let wire = Wire::new(stream, Bytes::new(), self.server.patience());
            switching.hand_over(Switched::new(wire, ahead));
        }
    }

    /// Closes our side; whether that is all.
    fn poll_closing(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let mut client = self.client.get();
        if let Some(stream) = &mut client.stream
            && Pin::new(stream).poll_shutdown(cx)?.is_pending()
        {
            self.watch.check(Phase::Writing, self.writes, cx)?;
            return Poll::Pending;
        }
        if !client.may_go_on() {
            return Poll::Ready(Ok(true));
        }
        self.state = State::Lingering(Linger { left: LINGER_BYTES, until: Box::pin(tokio::time::sleep(LINGER_TIME)) });
        Poll::Ready(Ok(false))
    }

    /// Writes what waits, as far as the client takes it.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.out.is_empty() {
            return Poll::Ready(Ok(()));
        }
        let flushed = self.client.get().poll_write(&mut self.out, &mut self.writes, cx)?;
        if flushed.is_pending() {
            self.watch.check(Phase::Writing, self.writes, cx)?;
        }
        flushed.map(Ok)
    }

    /// Ready with an error once the client has gone.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<BoxError> {
        ready!(self.client.get().poll_gone(cx));
        Poll::Ready(io::Error::from(io::ErrorKind::ConnectionAborted).into())
    }
}

impl<A: Answer, S> Drop for Connection<'_, A, S> {
    fn drop(&mut self) {
        let (reader, breach) = self.client.get().end();
        if let Some(reader) = reader {
            reader.wake();
        }
        if let Some(breach) = breach {
            tracing::debug!(%breach, "malformed body");
            self.server.meter.refused(self.server.worker, ConnectionRefusal::Malformed);
        }
    }
}

impl Linger {
    /// Reads on for a moment after our side is closed: a socket closed with unread bytes resets the connection, and the
    /// client would lose the answer that told it to stop sending (RFC 9112 section 9.6).
    fn poll<S: AsyncRead + Unpin>(&mut self, client: &mut Client<S>, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.until.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
            client.buffer.clear();
            match ready!(client.poll_fill(cx)) {
                Ok(count) if count > 0 && self.left > count => self.left -= count,
                _ => return Poll::Ready(()),
            }
        }
    }
}

/// Asks for the body of a request (RFC 9110 section 10.1.1).
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
/// Bytes that may wait for the client to take them before no more are made.
const MOST_BUFFERED: usize = 128 * 1024;
/// Steps before other connections get their turn: a few requests.
const TURN: usize = 64;
/// Enough for clients that read the answer only when they have sent all; more than that is an attack or hopeless.
const LINGER_BYTES: usize = 64 << 20;
/// Long enough for a round trip, short enough not to be held.
const LINGER_TIME: Duration = Duration::from_secs(2);
