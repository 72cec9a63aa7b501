//! The byte stream of one client connection: guarded on its way in, timed, and closed so that the client still reads
//! our last answer.
//!
//! Time is kept without reading a clock per request: a timer wakes now and then and asks whether anything has moved
//! since. hyper's own header timer would cost an allocation per request and cannot tell idle from slow.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::guard::{AFTER_BREACH, Guard};
use super::speaker::Speaker;
use crate::metrics::{ConnectionRefusal, ListenerMeter};

/// How long a client may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// For the head of a request, from its first byte on; also for taking what we send, without any progress.
    pub head: Duration,
    /// Between two requests.
    pub idle: Duration,
}

/// Where breaches are counted.
#[derive(Debug)]
pub struct Tally {
    /// The listener's meter.
    pub meter: Arc<ListenerMeter>,
    /// The worker.
    pub worker: usize,
}

/// A client's byte stream.
#[derive(Debug)]
pub struct Wire<S> {
    stream: S,
    /// Read before the protocol was known.
    prefix: Bytes,
    /// Follows HTTP/1.1 framing; none on HTTP/2, whose frames say where they end.
    guard: Option<Guard>,
    /// Speaks for hyper on HTTP/1.1.
    speaker: Option<Speaker>,
    tally: Option<Tally>,
    watch: Watch,
    linger: Option<Linger>,
    poisoned: bool,
}

/// Notices that nothing moves.
#[derive(Debug)]
struct Watch {
    patience: Patience,
    /// Counts whatever moves.
    moves: u64,
    seen: (u64, Phase),
    timer: Option<Pin<Box<Sleep>>>,
    writing: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Idle,
    Head,
    Writing,
    /// The request is being answered: its own deadlines hold.
    Busy,
}

/// The end of a connection whose client may still be sending.
#[derive(Debug)]
struct Linger {
    left: usize,
    until: Pin<Box<Sleep>>,
}

impl<S> Wire<S> {
    /// An HTTP/1.1 stream of which `prefix` was already read.
    pub(super) fn http1(stream: S, prefix: Bytes, patience: Patience, tally: Tally, speaker: Speaker) -> Self {
        let wire = Self::http2(stream, prefix, patience);
        Self { guard: Some(Guard::new()), speaker: Some(speaker), tally: Some(tally), ..wire }
    }

    /// An HTTP/2 stream of which `prefix` was already read.
    pub(super) fn http2(stream: S, prefix: Bytes, patience: Patience) -> Self {
        let watch = Watch { patience, moves: 0, seen: (0, Phase::Head), timer: None, writing: false };
        let (guard, speaker, tally) = (None, None, None);
        Self { stream, prefix, guard, speaker, tally, watch, linger: None, poisoned: false }
    }

    fn inspect(&mut self, bytes: &mut [u8]) {
        self.watch.moves = self.watch.moves.wrapping_add(1);
        let Some(guard) = &mut self.guard else { return };
        // After a switch of protocols the bytes are no requests any more.
        if self.speaker.as_ref().is_some_and(|speaker| speaker.dialogue().has_switched()) {
            guard.off();
        }
        if let Some(breach) = guard.inspect(bytes) {
            tracing::debug!(breach = breach.code(), "malformed request");
            if let Some(Tally { meter, worker }) = &self.tally {
                meter.refused(*worker, ConnectionRefusal::Malformed);
            }
        }
    }

    /// After a breach the client is not read any more: hyper is told once what makes it refuse, then that the stream
    /// has ended.
    fn is_poisoned(&mut self, buf: &mut ReadBuf<'_>) -> bool {
        if self.guard.as_ref().is_none_or(|guard| guard.breach().is_none()) {
            return false;
        }
        if !std::mem::replace(&mut self.poisoned, true) {
            buf.put_slice(AFTER_BREACH.get(..buf.remaining()).unwrap_or(AFTER_BREACH));
        }
        true
    }

    fn phase(&self) -> Phase {
        match &self.guard {
            _ if self.watch.writing => Phase::Writing,
            Some(guard) if guard.between_requests() => Phase::Idle,
            Some(guard) if guard.in_head() => Phase::Head,
            _ => Phase::Busy,
        }
    }
}

impl Watch {
    /// Fails once nothing has moved for as long as the phase allows.
    fn check(&mut self, phase: Phase, heads: u64, cx: &mut Context<'_>) -> io::Result<()> {
        // A head must come whole in its time, however its bytes trickle; an answer must only be taken at all.
        let count = if phase == Phase::Writing { self.moves } else { heads };
        let Some(timer) = &mut self.timer else {
            let mut timer = Box::pin(tokio::time::sleep(self.allowed(phase)));
            let _ = timer.as_mut().poll(cx);
            self.seen = (count, phase);
            self.timer = Some(timer);
            return Ok(());
        };
        if !timer.is_elapsed() {
            return Ok(());
        }
        if self.seen == (count, phase) && phase != Phase::Busy {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.seen = (count, phase);
        let next = timer.deadline() + self.allowed(phase);
        self.rearm(next, cx);
        Ok(())
    }

    fn rearm(&mut self, deadline: Instant, cx: &mut Context<'_>) {
        if let Some(timer) = &mut self.timer {
            timer.as_mut().reset(deadline);
            let _ = timer.as_mut().poll(cx);
        }
    }

    fn allowed(&self, phase: Phase) -> Duration {
        match phase {
            Phase::Idle => self.patience.idle,
            Phase::Head | Phase::Writing | Phase::Busy => self.patience.head,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Wire<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.is_poisoned(buf) {
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        if this.prefix.has_remaining() {
            let count = this.prefix.remaining().min(buf.remaining());
            buf.put_slice(&this.prefix.split_to(count));
        } else if Pin::new(&mut this.stream).poll_read(cx, buf)?.is_pending() {
            let (phase, heads) = (this.phase(), this.guard.as_ref().map_or(0, Guard::heads));
            this.watch.check(phase, heads, cx)?;
            return Poll::Pending;
        }
        if let Some(fresh) = buf.filled_mut().get_mut(before..) {
            this.inspect(fresh);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    fn wrote(&mut self, cx: &mut Context<'_>, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        self.watch.writing = result.is_pending();
        if result.is_pending() {
            self.watch.check(Phase::Writing, 0, cx)?;
        } else {
            self.watch.moves = self.watch.moves.wrapping_add(1);
        }
        result
    }

    /// Writes our words in place of `theirs`, if these are hyper's own. Ready with true when all of ours are written.
    fn poll_speak(&mut self, cx: &mut Context<'_>, theirs: &[u8]) -> Poll<io::Result<bool>> {
        let Some(speaker) = &mut self.speaker else { return Poll::Ready(Ok(false)) };
        let breach = self.guard.as_ref().and_then(Guard::breach);
        let Some(words) = speaker.instead(theirs, breach) else { return Poll::Ready(Ok(false)) };
        let mut result = Poll::Ready(Ok(0));
        while words.has_remaining() && result.is_ready() {
            result = Pin::new(&mut self.stream).poll_write(cx, words);
            match &result {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(count)) => words.advance(*count),
                Poll::Ready(Err(_)) | Poll::Pending => break,
            }
        }
        self.wrote(cx, result).map_ok(|_| true)
    }

    /// Reads on for a moment after our side is closed: a socket closed with unread bytes resets the connection, and
    /// the client would lose the answer that told it to stop sending (RFC 9112 section 9.6).
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let linger = self
            .linger
            .get_or_insert_with(|| Linger { left: LINGER_BYTES, until: Box::pin(tokio::time::sleep(LINGER_TIME)) });
        let mut scratch = [0; 4096];
        loop {
            if linger.until.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
            let mut buf = ReadBuf::new(&mut scratch);
            match ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buf)) {
                Ok(()) if !buf.filled().is_empty() && linger.left > buf.filled().len() => {
                    linger.left -= buf.filled().len();
                }
                _ => return Poll::Ready(()),
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Wire<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if ready!(this.poll_speak(cx, buf))? {
            return Poll::Ready(Ok(buf.len()));
        }
        let result = Pin::new(&mut this.stream).poll_write(cx, buf);
        this.wrote(cx, result)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if ready!(this.poll_speak(cx, bufs.first().map_or(&[], |first| first)))? {
            return Poll::Ready(Ok(bufs.iter().map(|buf| buf.len()).sum()));
        }
        let result = Pin::new(&mut this.stream).poll_write_vectored(cx, bufs);
        this.wrote(cx, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Some(speaker) = &mut this.speaker {
            speaker.flushed();
        }
        Pin::new(&mut this.stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.linger.is_none() {
            ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
            if this.guard.as_ref().is_none_or(Guard::between_requests) {
                return Poll::Ready(Ok(()));
            }
        }
        ready!(this.poll_linger(cx));
        Poll::Ready(Ok(()))
    }
}

/// Enough for clients that read the answer only when they have sent all; more than that is an attack or hopeless.
const LINGER_BYTES: usize = 64 << 20;
/// Long enough for a round trip, short enough not to be held.
const LINGER_TIME: Duration = Duration::from_secs(2);
