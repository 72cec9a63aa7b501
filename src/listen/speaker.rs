//! Speaks for hyper on HTTP/1.1 where it refuses a request by itself.
//!
//! What hyper cannot parse, and what the guard has spoilt, never reaches a service: hyper writes a bare status line and
//! closes. A client deserves the same clear refusal as for everything else, and the operator a count and a log line. So
//! the words of hyper are replaced on their way out.
//!
//! They are told from an answer's without looking at the bytes, which any origin may imitate: all requests that hyper
//! has handed over were answered to the end of their bodies when its buffer was last empty, and none was handed over
//! since. Whatever it writes then is its own. Where its buffer cannot be emptied in between (a client that pipelines
//! and does not read), the bare answer stays.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::{Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::service::Service;

use super::guard::Breach;
use crate::refusal::Reason;

/// What was said on one connection.
#[derive(Debug, Default)]
pub(super) struct Dialogue {
    /// Requests handed over.
    asked: AtomicU32,
    /// Answers that have ended, or were given up.
    ended: AtomicU32,
    /// Another protocol was agreed on: what follows is no HTTP/1.
    switched: AtomicBool,
}

/// A service whose requests and answers are counted in a [`Dialogue`].
#[derive(Debug, Clone)]
pub(super) struct Counted<A> {
    answer: A,
    dialogue: Arc<Dialogue>,
}

/// The body of a counted answer.
#[derive(Debug)]
pub(super) struct CountedBody<B> {
    body: B,
    _end: End,
}

/// Counts the end of an answer, whatever ends it.
#[derive(Debug)]
struct End(Arc<Dialogue>);

/// The answer to come.
pub(super) struct Counting<F> {
    future: F,
    end: Option<End>,
}

/// Says in our words what hyper would say in its own.
pub(super) struct Speaker {
    dialogue: Arc<Dialogue>,
    refuse: Box<dyn Fn(Reason) -> Response<Bytes> + Send>,
    /// How much was asked when all of it was answered and written.
    quiet: Option<u32>,
    /// What is left of our words, once hyper has begun with its own.
    words: Option<Bytes>,
}

impl Dialogue {
    /// Whether another protocol was agreed on.
    pub(super) fn has_switched(&self) -> bool {
        self.switched.load(Ordering::Relaxed)
    }

    /// How much was asked, if all of it is answered.
    pub(super) fn quiet(&self) -> Option<u32> {
        let asked = self.asked.load(Ordering::Relaxed);
        (asked == self.ended.load(Ordering::Relaxed)).then_some(asked)
    }
}

impl Speaker {
    /// A speaker that says what `refuse` makes of a reason.
    pub(super) fn new(refuse: Box<dyn Fn(Reason) -> Response<Bytes> + Send>) -> Self {
        Self { dialogue: Arc::default(), refuse, quiet: Some(0), words: None }
    }

    /// What is said on its connection.
    pub(super) fn dialogue(&self) -> &Arc<Dialogue> {
        &self.dialogue
    }

    /// hyper's buffer is empty: everything it was given is written.
    pub(super) fn flushed(&mut self) {
        self.quiet = self.dialogue.quiet();
    }

    /// What is still to be written in place of `theirs`, which hyper writes now; `None` if that is not its own.
    pub(super) fn instead(&mut self, theirs: &[u8], breach: Option<Breach>) -> Option<&mut Bytes> {
        let own = !self.dialogue.has_switched() && self.quiet == Some(self.dialogue.asked.load(Ordering::Relaxed));
        if !own && self.words.is_none() {
            return None;
        }
        let refuse = &self.refuse;
        Some(self.words.get_or_insert_with(|| written(refuse(reason(theirs, breach)))))
    }
}

impl std::fmt::Debug for Speaker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Speaker").field("dialogue", &self.dialogue).finish_non_exhaustive()
    }
}

/// Why hyper refuses: the guard knows, or its status line tells.
fn reason(theirs: &[u8], breach: Option<Breach>) -> Reason {
    let status = theirs.get(9..12).and_then(|digits| StatusCode::from_bytes(digits).ok());
    match (breach, status) {
        (Some(breach), _) => breach.reason(),
        (None, Some(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE)) => Reason::RequestHeadTooLarge,
        (None, Some(StatusCode::URI_TOO_LONG)) => Reason::RequestTargetTooLong,
        (None, _) => Reason::RequestMalformed,
    }
}

/// A last response as it goes over the wire.
pub(super) fn written(response: Response<Bytes>) -> Bytes {
    let (parts, body) = response.into_parts();
    let mut text = BytesMut::with_capacity(512 + body.len());
    let phrase = parts.status.canonical_reason().unwrap_or_default();
    text.extend_from_slice(format!("HTTP/1.1 {} {phrase}\r\n", parts.status.as_str()).as_bytes());
    for (name, value) in &parts.headers {
        for piece in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            text.extend_from_slice(piece);
        }
    }
    text.extend_from_slice(format!("content-length: {}\r\nconnection: close\r\n\r\n", body.len()).as_bytes());
    text.extend_from_slice(&body);
    text.freeze()
}

impl<A> Counted<A> {
    /// Counts what `answer` is asked and answers.
    pub(super) fn new(answer: A, dialogue: &Arc<Dialogue>) -> Self {
        Self { answer, dialogue: Arc::clone(dialogue) }
    }
}

impl<A, B> Service<Request<Incoming>> for Counted<A>
where
    A: Service<Request<Incoming>, Response = Response<B>>,
    A::Future: Unpin,
{
    type Response = Response<CountedBody<B>>;
    type Error = A::Error;
    type Future = Counting<A::Future>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        self.dialogue.asked.fetch_add(1, Ordering::Relaxed);
        let end = Some(End(Arc::clone(&self.dialogue)));
        Counting { future: self.answer.call(request), end }
    }
}

impl<F, B, E> Future for Counting<F>
where
    F: Future<Output = Result<Response<B>, E>> + Unpin,
{
    type Output = Result<Response<CountedBody<B>>, E>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let response = std::task::ready!(Pin::new(&mut self.future).poll(cx))?;
        let end = self.end.take().expect("a future is not polled after it has ended");
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            end.0.switched.store(true, Ordering::Relaxed);
        }
        Poll::Ready(Ok(response.map(|body| CountedBody { body, _end: end })))
    }
}

impl<B: Body + Unpin> Body for CountedBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, Ordering::Relaxed);
    }
}
