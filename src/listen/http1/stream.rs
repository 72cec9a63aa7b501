//! A client's stream and what was read of it, shared by the loop and by the body of the request it is in.
//!
//! Only one of the two reads: the body until it has ended or is dropped, then the loop. The one who waits for the
//! other is woken.

use std::io::{self, IoSlice};
use std::ops::{Deref, DerefMut};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Bytes, BytesMut};
use http_body::Frame;
use parking_lot::{Mutex, MutexGuard};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};

use super::body::{BodyError, Next, Source};
use super::head::Length;
use super::write::Out;
use crate::message::chunked::{ChunkError, Decoder, Step};

/// The stream of one client.
#[derive(Debug)]
pub(super) struct Client<S> {
    /// Gone once the connection has ended, or became another protocol's.
    pub(super) stream: Option<S>,
    /// What was read and is not used yet.
    pub(super) buffer: BytesMut,
    /// How much room the next read gets.
    room: usize,
    /// Nothing more comes.
    ended: bool,
    rest: Rest,
    /// Whether somebody holds the body.
    held: bool,
    /// Whether the client waits for leave to send the body.
    pub(super) leave: Leave,
    /// Who runs the connection, where it waits for the body.
    task: Option<Waker>,
    /// Who reads the body, where it waits for the client.
    reader: Option<Waker>,
    /// What the body broke.
    breach: Option<ChunkError>,
}

/// A client that belongs to the loop alone, until it is lent to the body of a request; from then on the two share it.
/// Most clients never send a body, and need no lock.
pub(super) enum Lendable<S> {
    Own(Client<S>),
    Lent(Arc<Mutex<Client<S>>>),
}

/// Access to a client.
pub(super) enum Access<'c, S> {
    Own(&'c mut Client<S>),
    Lent(MutexGuard<'c, Client<S>>),
}

/// What is to come of a request's body.
#[derive(Debug)]
enum Rest {
    None,
    Exact(u64),
    Chunked(Decoder),
    /// It broke: nothing that comes can be understood.
    Broken,
}

/// `Expect: 100-continue` (RFC 9110 section 10.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leave {
    /// Not waited for, or given.
    Given,
    /// To be given once somebody wants the body.
    Waiting,
    /// Somebody wants it.
    Wanted,
    /// An answer has begun before.
    Withheld,
}

/// How a body stands that the answer did not wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Left {
    /// Read to its end.
    Nothing,
    /// Nobody will read what is to come.
    Unread,
}

impl<S> Lendable<S> {
    pub(super) const fn new(client: Client<S>) -> Self {
        Self::Own(client)
    }

    pub(super) fn get(&mut self) -> Access<'_, S> {
        match self {
            Self::Own(client) => Access::Own(client),
            Self::Lent(shared) => Access::Lent(shared.lock()),
        }
    }

    /// A share of it, for a body.
    pub(super) fn lend(&mut self) -> Arc<Mutex<Client<S>>> {
        match self {
            Self::Own(client) => {
                let shared = Arc::new(Mutex::new(std::mem::replace(client, Client::new(None, BytesMut::new()))));
                *self = Self::Lent(Arc::clone(&shared));
                shared
            }
            Self::Lent(shared) => Arc::clone(shared),
        }
    }
}

impl<S> Deref for Access<'_, S> {
    type Target = Client<S>;

    fn deref(&self) -> &Client<S> {
        match self {
            Self::Own(client) => client,
            Self::Lent(client) => client,
        }
    }
}

impl<S> DerefMut for Access<'_, S> {
    fn deref_mut(&mut self) -> &mut Client<S> {
        match self {
            Self::Own(client) => client,
            Self::Lent(client) => client,
        }
    }
}

impl<S> Client<S> {
    pub(super) fn new(stream: Option<S>, buffer: BytesMut) -> Self {
        Self {
            stream,
            buffer,
            room: LEAST_ROOM,
            ended: false,
            rest: Rest::None,
            held: false,
            leave: Leave::Given,
            task: None,
            reader: None,
            breach: None,
        }
    }

    /// A body begins.
    pub(super) fn begin(&mut self, length: Length, expects: bool) {
        self.rest = match length {
            Length::None => Rest::None,
            Length::Exact(length) => Rest::Exact(length),
            Length::Chunked => Rest::Chunked(Decoder::strict()),
        };
        self.held = true;
        // A client that did not wait has its leave.
        self.leave = if expects && self.buffer.is_empty() { Leave::Waiting } else { Leave::Given };
    }

    /// Whether the client may still send what nobody reads: then a close would reset what it has not read yet.
    pub(super) fn may_go_on(&self) -> bool {
        let all_read = matches!(self.rest, Rest::None) && self.buffer.is_empty();
        !self.ended && !all_read
    }

    /// Gives up a buffer that has grown, where it is empty.
    pub(super) fn rest(&mut self) {
        // Its own capacity says little: what was split off in front of it is part of the same memory.
        if self.buffer.is_empty() && self.room > LEAST_ROOM {
            self.buffer = BytesMut::new();
            self.room = LEAST_ROOM;
        }
    }

    /// The answer begins: leave to send the body is not given any more.
    pub(super) fn answered(&mut self) {
        if self.leave != Leave::Given {
            self.leave = Leave::Withheld;
        }
    }

    /// What comes is no request, and nobody reads it.
    pub(super) fn give_up(&mut self) {
        self.rest = Rest::Broken;
    }

    /// The connection ends. Gives whoever reads the body and is to be told, and what the body broke.
    pub(super) fn end(&mut self) -> (Option<Waker>, Option<ChunkError>) {
        self.stream = None;
        if self.is_unfinished() {
            self.rest = Rest::Broken;
        }
        (self.reader.take(), self.breach)
    }

    fn is_unfinished(&self) -> bool {
        matches!(self.rest, Rest::Exact(_) | Rest::Chunked(_))
    }
}

impl<S: AsyncRead + Unpin> Client<S> {
    /// Reads more; 0 at the end.
    pub(super) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Some(stream) = &mut self.stream else { return Poll::Ready(Err(io::ErrorKind::NotConnected.into())) };
        if self.buffer.capacity() - self.buffer.len() < LEAST_LEFT {
            self.buffer.reserve(self.room);
        }
        let count = ready!(pin!(stream.read_buf(&mut self.buffer)).poll(cx))?;
        self.ended = count == 0;
        if self.buffer.len() == self.buffer.capacity() {
            self.room = (2 * self.room).min(MOST_ROOM);
        }
        Poll::Ready(Ok(count))
    }

    /// Whether the client has gone while it is answered. What it sends after its request is read ahead once at most; of a
    /// body that nobody has begun to read, as much as fits: a client that leaves a queue must be seen to leave it. Who
    /// reads the body sees for himself.
    pub(super) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let there = self.buffer.len();
        let (looks, most) = match &self.rest {
            Rest::None => (there == 0, 1),
            Rest::Exact(left) if there as u64 >= *left => (there as u64 == *left, there + 1),
            Rest::Exact(_) | Rest::Chunked(_) => (self.reader.is_none(), MOST_ROOM),
            Rest::Broken => (false, 0),
        };
        if !matches!(self.rest, Rest::None) {
            keep(&mut self.task, cx);
        }
        if looks && self.ended {
            return Poll::Ready(());
        }
        while looks && self.buffer.len() < most {
            match ready!(self.poll_fill(cx)) {
                Ok(count) if count > 0 => {}
                _ => return Poll::Ready(()),
            }
        }
        Poll::Pending
    }

    /// What is left of the body, once nobody holds it any more. What is there already is read on, if it is little.
    pub(super) fn poll_left(&mut self, cx: &mut Context<'_>) -> Poll<Left> {
        if self.is_unfinished() && self.held {
            keep(&mut self.task, cx);
            return Poll::Pending;
        }
        let mut read = 0;
        while read < MOST_UNREAD && self.leave == Leave::Given {
            match self.poll_body(cx) {
                Poll::Ready(None) => return Poll::Ready(Left::Nothing),
                Poll::Ready(Some(Ok(frame))) => read += frame.data_ref().map_or(0, Bytes::len),
                Poll::Ready(Some(Err(_))) | Poll::Pending => break,
            }
        }
        Poll::Ready(Left::Unread)
    }

    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            match &mut self.rest {
                Rest::None => return Poll::Ready(None),
                Rest::Broken => return Poll::Ready(Some(Err(BodyError::Incomplete))),
                Rest::Exact(left) if !self.buffer.is_empty() => {
                    let used = usize::try_from(*left).map_or(self.buffer.len(), |left| left.min(self.buffer.len()));
                    *left -= used as u64;
                    let data = self.buffer.split_to(used).freeze();
                    if *left == 0 {
                        self.rest = Rest::None;
                    }
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Rest::Chunked(decoder) => match decoder.decode(&mut self.buffer) {
                    Ok(Step::Data(data)) => {
                        if decoder.is_ended() {
                            self.rest = Rest::None;
                        }
                        return Poll::Ready(Some(Ok(Frame::data(data))));
                    }
                    Ok(Step::End(trailers)) => {
                        self.rest = Rest::None;
                        return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(*trailers))));
                    }
                    Ok(Step::More) => {}
                    Err(error) => {
                        self.breach = Some(error);
                        return Poll::Ready(Some(Err(self.broken(error.into()))));
                    }
                },
                Rest::Exact(_) => {}
            }
            match self.poll_fill(cx) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Some(Err(self.broken(BodyError::Incomplete)))),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Some(Err(self.broken(error.into())))),
                Poll::Pending => {
                    keep(&mut self.reader, cx);
                    return Poll::Pending;
                }
            }
        }
    }

    fn broken(&mut self, error: BodyError) -> BodyError {
        self.rest = Rest::Broken;
        error
    }
}

impl<S: AsyncWrite + Unpin> Client<S> {
    /// Writes what waits, as far as it is taken, and counts the writes that were.
    pub(super) fn poll_write(&mut self, out: &mut Out, writes: &mut u64, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(stream) = &mut self.stream else { return Poll::Ready(Err(io::ErrorKind::NotConnected.into())) };
        while !out.is_empty() {
            let count = match out.only() {
                Some(text) => ready!(Pin::new(&mut *stream).poll_write(cx, text))?,
                None => {
                    let mut slices = [IoSlice::new(&[]); PIECES];
                    let pieces = out.slices(&mut slices);
                    let slices = slices.get(..pieces).unwrap_or_default();
                    ready!(Pin::new(&mut *stream).poll_write_vectored(cx, slices))?
                }
            };
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            *writes += 1;
            out.advance(count);
        }
        Pin::new(stream).poll_flush(cx)
    }
}

impl<S: AsyncRead + Unpin + Send> Source for Mutex<Client<S>> {
    fn poll_frame(&self, cx: &mut Context<'_>) -> Poll<Next> {
        let mut client = self.lock();
        let wanted = client.leave == Leave::Waiting;
        if wanted {
            client.leave = Leave::Wanted;
        }
        let next = client.poll_body(cx);
        let ended = matches!(client.rest, Rest::None);
        let task = if wanted || !client.is_unfinished() { client.task.take() } else { None };
        drop(client);
        if let Some(task) = task {
            task.wake();
        }
        next.map(|frame| Next { frame, ended })
    }

    fn let_go(&self) {
        let mut client = self.lock();
        client.held = false;
        let task = client.task.take();
        drop(client);
        if let Some(task) = task {
            task.wake();
        }
    }
}

/// Keeps the waker of the task that waits.
fn keep(place: &mut Option<Waker>, cx: &Context<'_>) {
    match place {
        Some(waker) => waker.clone_from(cx.waker()),
        None => *place = Some(cx.waker().clone()),
    }
}

/// Room for a read, to begin with.
pub(in crate::listen) const LEAST_ROOM: usize = 8 * 1024;
/// Room for a read of a client that sends much.
const MOST_ROOM: usize = 64 * 1024;
/// With less room than this a buffer is enlarged.
const LEAST_LEFT: usize = 1024;
/// How much of a body that nobody wants is read for the sake of the connection.
const MOST_UNREAD: usize = 64 * 1024;
/// Pieces of one write.
const PIECES: usize = 16;
