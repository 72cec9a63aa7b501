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
    pub fn http1(stream: S, prefix: Bytes, patience: Patience, tally: Tally) -> Self {
        Self::new(stream, prefix, patience, Some(Guard::new()), Some(tally))
    }

    /// An HTTP/2 stream of which `prefix` was already read.
    pub fn http2(stream: S, prefix: Bytes, patience: Patience) -> Self {
        Self::new(stream, prefix, patience, None, None)
    }

    fn new(stream: S, prefix: Bytes, patience: Patience, guard: Option<Guard>, tally: Option<Tally>) -> Self {
        let watch = Watch { patience, moves: 0, seen: (0, Phase::Head), timer: None, writing: false };
        Self { stream, prefix, guard, tally, watch, linger: None, poisoned: false }
    }

    fn inspect(&mut self, bytes: &mut [u8]) {
        self.watch.moves = self.watch.moves.wrapping_add(1);
        let Some(guard) = &mut self.guard else { return };
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

    /// After a switch of protocols the bytes are no requests any more.
    fn saw_switch(&mut self, written: &[u8]) {
        if written.starts_with(b"HTTP/1.1 101")
            && let Some(guard) = &mut self.guard
        {
            guard.off();
        }
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
        this.saw_switch(buf);
        let result = Pin::new(&mut this.stream).poll_write(cx, buf);
        this.wrote(cx, result)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.saw_switch(bufs.first().map_or(&[], |first| first));
        let result = Pin::new(&mut this.stream).poll_write_vectored(cx, bufs);
        this.wrote(cx, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
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

/// Enough for what is on its way when we stop reading.
const LINGER_BYTES: usize = 1 << 20;
/// Long enough for a round trip, short enough not to be held.
const LINGER_TIME: Duration = Duration::from_secs(2);
