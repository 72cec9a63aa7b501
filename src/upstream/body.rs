//! Bodies on the way to and from an endpoint.
//!
//! A request body is read from the client while it is sent on; what was read is kept (up to a bound) as long as the
//! request might have to be repeated. A reply body drives its own connection (see [`super::link`]).

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use parking_lot::Mutex;
use tokio::time::{Instant, Sleep};

use super::ahead::Ahead;
use super::link::LinkBody;

/// Any error of a foreign body.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A body as it comes from the client.
#[derive(Debug)]
pub enum Inbound {
    /// From a hyper connection.
    Incoming(Incoming),
    /// From an embedding program.
    Boxed(UnsyncBoxBody<Bytes, BoxError>),
    /// Frames that were read ahead, and what follows them.
    Begun(VecDeque<Frame<Bytes>>, Box<Self>),
    /// None.
    Empty,
}

/// What a request body may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BodyParams {
    /// Its largest size, in bytes.
    pub limit: u64,
    /// How long it may keep us waiting: so long to begin with, and a second more for each [`PACE`] bytes that have come.
    /// What holds a slot must bring something.
    pub timeout: Duration,
}

/// Why a request body could not be sent to its end.
#[derive(Debug, thiserror::Error)]
pub enum RequestBodyError {
    /// The client broke off or broke the framing.
    #[error("the client's body broke off")]
    Client(#[source] BoxError),
    /// The client was too slow.
    #[error("the client's body did not arrive in time")]
    Late,
    /// More than the route allows.
    #[error("the body is larger than the route allows")]
    TooLarge,
}

/// How far a request body has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Not all of it was read.
    Unfinished,
    /// Read to its end.
    Ended,
    /// The client's side failed.
    Broken,
    /// The route's bound was passed.
    TooLarge,
}

/// The body of one request, shared by its attempts.
#[derive(Debug)]
pub struct Source {
    inner: Mutex<Reading>,
    progress: AtomicU8,
    read: AtomicU64,
    params: BodyParams,
}

#[derive(Debug)]
struct Reading {
    inbound: Inbound,
    /// What was read so far, or nothing once that is more than `replay`.
    kept: Vec<Bytes>,
    kept_bytes: usize,
    replay: usize,
    /// Runs once we had to wait.
    patience: Option<Patience>,
}

/// How long we wait for a body.
#[derive(Debug)]
struct Patience {
    begun: Instant,
    timer: Pin<Box<Sleep>>,
}

/// The body of one attempt.
#[derive(Debug, Default)]
pub enum RequestBody {
    /// None.
    #[default]
    Empty,
    /// All of it at hand.
    Full(Bytes),
    /// Read from the client while it is sent.
    Shared {
        /// The client's body.
        source: Arc<Source>,
        /// How many kept chunks this attempt has sent.
        sent: usize,
        /// Closed until the endpoint asks for the body (RFC 9110 section 10.1.1).
        gate: Option<Gate>,
    },
}

/// Holds a body back until `100 Continue` arrives or the patience ends, whichever is first.
#[derive(Debug)]
pub struct Gate(Pin<Box<Sleep>>);

/// The body of an endpoint's reply.
#[derive(Debug)]
pub enum ReplyBody {
    /// From a connection of ours.
    Link(LinkBody),
    /// All of it at hand.
    Full(Option<Bytes>),
    /// From an [`super::Origin`] of an embedding program.
    Boxed(UnsyncBoxBody<Bytes, BoxError>),
    /// Any of these, after a look at its beginning.
    Ahead(Box<Ahead>),
}

impl Source {
    /// A body within `params`, of which the first `replay` bytes are kept for another attempt.
    pub fn new(inbound: Inbound, params: BodyParams, replay: usize) -> Arc<Self> {
        let inner = Mutex::new(Reading { inbound, kept: Vec::new(), kept_bytes: 0, replay, patience: None });
        Arc::new(Self { inner, progress: AtomicU8::new(0), read: AtomicU64::new(0), params })
    }

    /// How far it has come.
    pub fn progress(&self) -> Progress {
        match self.progress.load(Ordering::Acquire) {
            0 => Progress::Unfinished,
            1 => Progress::Ended,
            2 => Progress::Broken,
            _ => Progress::TooLarge,
        }
    }

    /// Bytes read from the client.
    pub fn bytes(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    /// Whether another attempt could send all of it again.
    pub fn replayable(&self) -> bool {
        self.inner.lock().kept_bytes as u64 == self.bytes()
    }

    /// The body for one more attempt.
    pub fn attempt(self: &Arc<Self>, gate: Option<Gate>) -> RequestBody {
        RequestBody::Shared { source: Arc::clone(self), sent: 0, gate }
    }

    fn mark(&self, progress: Progress) {
        self.progress.store(progress as u8, Ordering::Release);
    }

    fn poll(&self, sent: &mut usize, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, RequestBodyError>>> {
        let mut reading = self.inner.lock();
        if let Some(chunk) = reading.kept.get(*sent) {
            *sent += 1;
            return Poll::Ready(Some(Ok(Frame::data(chunk.clone()))));
        }
        let Poll::Ready(next) = reading.inbound.poll(cx) else {
            if !reading.is_late(self.params.timeout, self.bytes(), cx) {
                return Poll::Pending;
            }
            self.mark(Progress::Broken);
            return Poll::Ready(Some(Err(RequestBodyError::Late)));
        };
        match next {
            None => {
                self.mark(Progress::Ended);
                Poll::Ready(None)
            }
            Some(Err(error)) => {
                self.mark(Progress::Broken);
                Poll::Ready(Some(Err(RequestBodyError::Client(error))))
            }
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    let before = self.read.fetch_add(data.len() as u64, Ordering::Relaxed);
                    if before + data.len() as u64 > self.params.limit {
                        self.mark(Progress::TooLarge);
                        return Poll::Ready(Some(Err(RequestBodyError::TooLarge)));
                    }
                    *sent += usize::from(reading.keep(before, data));
                    if reading.inbound.is_end_stream() {
                        self.mark(Progress::Ended);
                    }
                }
                Poll::Ready(Some(Ok(frame)))
            }
        }
    }
}

impl Reading {
    /// Whether the client has kept us waiting too long; the task is woken when it has.
    fn is_late(&mut self, timeout: Duration, bytes: u64, cx: &mut Context<'_>) -> bool {
        let Patience { begun, timer } = self.patience.get_or_insert_with(|| {
            let timer = Box::pin(tokio::time::sleep(timeout));
            Patience { begun: timer.deadline() - timeout, timer }
        });
        while timer.as_mut().poll(cx).is_ready() {
            let due = *begun + timeout + Duration::from_secs(bytes / PACE);
            if due <= timer.deadline() {
                return true;
            }
            timer.as_mut().reset(due);
        }
        false
    }

    /// Keeps a chunk for another attempt; says whether it was kept.
    fn keep(&mut self, before: u64, data: &Bytes) -> bool {
        let complete = self.kept_bytes as u64 == before;
        if complete && self.kept.len() < MOST_KEPT && self.kept_bytes + data.len() <= self.replay {
            self.kept_bytes += data.len();
            self.kept.push(data.clone());
            return true;
        }
        self.kept = Vec::new();
        self.kept_bytes = 0;
        false
    }
}

/// A request body that was read ahead.
pub enum Gathered {
    /// All of it.
    Whole(Bytes),
    /// More than was to be read: all of it is still to come.
    More(Inbound),
}

impl Inbound {
    /// A body that is at hand.
    pub fn whole(bytes: Bytes) -> Self {
        Self::Boxed(http_body_util::Full::new(bytes).map_err(|never| match never {}).boxed_unsync())
    }

    /// Reads the body if it is no longer than `most` bytes and has no trailers.
    ///
    /// # Errors
    /// The client broke off.
    pub async fn gather(mut self, most: usize) -> Result<Gathered, BoxError> {
        if self.size_hint().lower() > most as u64 {
            return Ok(Gathered::More(self));
        }
        let mut frames = Vec::new();
        let mut read = 0;
        while let Some(frame) = std::future::poll_fn(|cx| self.poll(cx)).await {
            let frame = frame?;
            read += frame.data_ref().map_or(0, Bytes::len);
            let goes_on = frame.is_data() && read <= most && frames.len() < MOST_KEPT;
            frames.push(frame);
            if !goes_on {
                return Ok(Gathered::More(Self::Begun(frames.into(), Box::new(self))));
            }
        }
        let pieces: Vec<_> = frames.into_iter().filter_map(|frame| frame.into_data().ok()).collect();
        Ok(Gathered::Whole(match <[Bytes; 1]>::try_from(pieces) {
            Ok([only]) => only,
            Err(pieces) => pieces.concat().into(),
        }))
    }

    /// Whether nothing (more) will come.
    pub fn is_end_stream(&self) -> bool {
        match self {
            Self::Incoming(body) => body.is_end_stream(),
            Self::Boxed(body) => body.is_end_stream(),
            Self::Begun(frames, rest) => frames.is_empty() && rest.is_end_stream(),
            Self::Empty => true,
        }
    }

    /// What is known of its length.
    pub fn size_hint(&self) -> SizeHint {
        match self {
            Self::Incoming(body) => body.size_hint(),
            Self::Boxed(body) => body.size_hint(),
            Self::Begun(frames, rest) => longer(rest.size_hint(), frames.iter()),
            Self::Empty => SizeHint::with_exact(0),
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self {
            Self::Incoming(body) => Pin::new(body).poll_frame(cx).map_err(Into::into),
            Self::Boxed(body) => Pin::new(body).poll_frame(cx),
            Self::Begun(frames, rest) => match frames.pop_front() {
                Some(frame) => Poll::Ready(Some(Ok(frame))),
                None => rest.poll(cx),
            },
            Self::Empty => Poll::Ready(None),
        }
    }
}

impl RequestBody {
    /// The endpoint has asked for the body; the next poll gives it.
    pub fn open_gate(&mut self) {
        if let Self::Shared { gate, .. } = self {
            *gate = None;
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = RequestBodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, RequestBodyError>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            body @ Self::Full(_) => match std::mem::replace(body, Self::Empty) {
                Self::Full(data) if !data.is_empty() => Poll::Ready(Some(Ok(Frame::data(data)))),
                _ => Poll::Ready(None),
            },
            Self::Shared { source, sent, gate } => {
                if let Some(Gate(patience)) = gate {
                    std::task::ready!(patience.as_mut().poll(cx));
                    *gate = None;
                }
                source.poll(sent, cx)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Full(data) => data.is_empty(),
            Self::Shared { source, sent, .. } => {
                let reading = source.inner.lock();
                reading.kept.get(*sent).is_none() && reading.inbound.is_end_stream()
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Full(data) => SizeHint::with_exact(data.len() as u64),
            Self::Shared { source, sent, .. } => {
                let reading = source.inner.lock();
                let kept: u64 = reading.kept.iter().skip(*sent).map(|chunk| chunk.len() as u64).sum();
                let rest = reading.inbound.size_hint();
                rest.exact().map_or_else(SizeHint::default, |rest| SizeHint::with_exact(kept + rest))
            }
        }
    }
}

impl Gate {
    /// A closed gate that opens by itself after `patience`.
    pub fn new(patience: Duration) -> Self {
        Self(Box::pin(tokio::time::sleep(patience)))
    }
}

impl ReplyBody {
    /// The body whose `first` frame was read ahead.
    pub fn begun(first: Result<Frame<Bytes>, BoxError>, rest: Self) -> Self {
        Self::Ahead(Ahead::of([first].into(), rest))
    }

    /// Whether nothing (more) will come.
    pub fn is_end_stream(&self) -> bool {
        match self {
            Self::Link(body) => body.is_end_stream(),
            Self::Full(data) => data.as_ref().is_none_or(Bytes::is_empty),
            Self::Boxed(body) => body.is_end_stream(),
            Self::Ahead(ahead) => ahead.is_end_stream(),
        }
    }

    /// What is known of its length.
    pub fn size_hint(&self) -> SizeHint {
        match self {
            Self::Link(body) => body.size_hint(),
            Self::Full(data) => SizeHint::with_exact(data.as_ref().map_or(0, |data| data.len() as u64)),
            Self::Boxed(body) => body.size_hint(),
            Self::Ahead(ahead) => ahead.size_hint(),
        }
    }

    /// The next frame.
    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self {
            Self::Link(body) => body.poll_frame(cx),
            Self::Full(data) => {
                Poll::Ready(data.take().filter(|data| !data.is_empty()).map(|data| Ok(Frame::data(data))))
            }
            Self::Boxed(body) => Pin::new(body).poll_frame(cx),
            Self::Ahead(ahead) => ahead.poll_frame(cx),
        }
    }

    /// Reads one frame and keeps it: it is still the next that [`Self::poll_frame`] gives, after those read before it.
    /// `None`: there is no more, or it broke.
    pub fn poll_ahead(&mut self, cx: &mut Context<'_>) -> Poll<Option<&Frame<Bytes>>> {
        if !matches!(self, Self::Ahead(_)) {
            let rest = std::mem::replace(self, Self::Full(None));
            *self = Self::Ahead(Ahead::of(VecDeque::new(), rest));
        }
        match self {
            Self::Ahead(ahead) => ahead.poll_ahead(cx),
            _ => Poll::Ready(None),
        }
    }
}

/// The length of what follows `frames`, and of these.
pub(super) fn longer<'f>(rest: SizeHint, frames: impl Iterator<Item = &'f Frame<Bytes>>) -> SizeHint {
    let read: u64 = frames.filter_map(|frame| Some(frame.data_ref()?.len() as u64)).sum();
    let mut hint = SizeHint::new();
    hint.set_lower(rest.lower() + read);
    if let Some(upper) = rest.upper() {
        hint.set_upper(upper + read);
    }
    hint
}

/// Bytes for which a body gets another second: less than any line that is worth a slot.
pub const PACE: u64 = 1024;

/// Pieces of a body that are kept: each costs more than its bytes.
const MOST_KEPT: usize = 1024;

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use http_body_util::BodyExt as _;

    use super::*;

    /// How a body ends whose `count` pieces of `size` bytes come `every` so often, and when.
    async fn ends(count: u64, size: usize, every: Duration) -> (Option<RequestBodyError>, Duration) {
        let (feed, fed) = tokio::sync::mpsc::unbounded_channel::<Result<Frame<Bytes>, BoxError>>();
        tokio::spawn(async move {
            for _ in 0..count {
                tokio::time::sleep(every).await;
                let _ = feed.send(Ok(Frame::data(Bytes::from(vec![0; size]))));
            }
        });
        let inbound = Inbound::Boxed(Channel(fed).boxed_unsync());
        let params = BodyParams { limit: u64::MAX, timeout: Duration::from_secs(30) };
        let mut body = Source::new(inbound, params, 0).attempt(None);
        let clock = crate::clock::Clock::system();
        let begun = clock.now();
        loop {
            match body.frame().await {
                None => return (None, clock.now() - begun),
                Some(Err(error)) => return (Some(error), clock.now() - begun),
                Some(Ok(_)) => {}
            }
        }
    }

    struct Channel(tokio::sync::mpsc::UnboundedReceiver<Result<Frame<Bytes>, BoxError>>);

    impl Body for Channel {
        type Data = Bytes;
        type Error = BoxError;

        fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
            self.0.poll_recv(cx)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_keeps_the_pace_may_take_as_long_as_it_is_and_no_other() {
        let seconds = Duration::from_secs;
        let late = |end: Option<RequestBodyError>| matches!(end, Some(RequestBodyError::Late));
        let (end, took) = ends(600, 1024, seconds(1)).await;
        assert!(end.is_none() && took == seconds(600), "{end:?} after {took:?}");
        let (end, took) = ends(1, 1, seconds(40)).await;
        assert!(late(end) && took == seconds(30), "nothing comes: {took:?}");
        let (end, took) = ends(600, 1, seconds(1)).await;
        assert!(late(end) && took == seconds(30), "it trickles: {took:?}");
        let (end, took) = ends(600, 512, seconds(1)).await;
        assert!(late(end) && (seconds(58)..=seconds(61)).contains(&took), "half the pace: {took:?}");
    }

    fn next(body: &mut ReplyBody) -> Option<Bytes> {
        let mut cx = Context::from_waker(Waker::noop());
        match body.poll_frame(&mut cx) {
            Poll::Ready(Some(Ok(frame))) => frame.into_data().ok(),
            _ => None,
        }
    }

    fn ahead(body: &mut ReplyBody) -> Option<Bytes> {
        match body.poll_ahead(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(frame) => frame.and_then(Frame::data_ref).cloned(),
            Poll::Pending => None,
        }
    }

    #[test]
    fn what_was_read_ahead_comes_first_and_counts_in_the_length() {
        let mut body = ReplyBody::Full(Some(Bytes::from_static(b"fault")));
        assert_eq!(ahead(&mut body).as_deref(), Some(&b"fault"[..]));
        assert_eq!((body.size_hint().exact(), body.is_end_stream()), (Some(5), false));
        assert_eq!(ahead(&mut body), None);
        assert_eq!((body.size_hint().exact(), body.is_end_stream()), (Some(5), false));
        assert_eq!(next(&mut body).as_deref(), Some(&b"fault"[..]));
        assert_eq!((body.size_hint().exact(), body.is_end_stream()), (Some(0), true));
        assert_eq!(next(&mut body), None);
    }
}
