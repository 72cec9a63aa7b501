//! HTTP/2 with a client: hyper's, told to end when the drain begins, or when nothing was asked for long.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::Service;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};

use super::drain::Open;
use super::serve::{Answer, BoxError, Server};
use super::wire::Wire;

/// Serves the connection over `stream`, of which `read` was read already, until it ends.
pub(super) async fn serve<A: Answer, S>(
    server: &Server,
    (stream, read): (S, Bytes),
    answer: A,
    open: &mut Open,
) -> Result<(), BoxError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let limits = &server.limits;
    let dialogue: Arc<Dialogue> = Arc::default();
    let answer = Counted { answer, dialogue: Arc::clone(&dialogue) };
    let mut rest = Rest::new(dialogue, limits.idle_timeout);
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.h2_streams)
        .max_header_list_size(u32::try_from(limits.head_size).unwrap_or(u32::MAX))
        .max_send_buf_size(WRITE_BUFFER)
        .initial_connection_window_size(1 << 20)
        .initial_stream_window_size(1 << 18)
        // A dead peer is found by pings it does not answer.
        .keep_alive_interval(limits.idle_timeout)
        .keep_alive_timeout(limits.head_timeout);
    let wire = Wire::new(stream, read, server.patience());
    let mut connection = pin!(builder.serve_connection(TokioIo::new(wire), answer));
    let mut told = false;
    let served = std::future::poll_fn(|cx| {
        if !told && (open.poll_begun(cx) || rest.poll(cx).is_ready()) {
            told = true;
            connection.as_mut().graceful_shutdown();
        }
        connection.as_mut().poll(cx)
    });
    served.await.map_err(Into::into)
}

/// Notices that nothing was asked for so long. Bytes say nothing of that here: a peer may keep a connection alive with
/// pings alone.
struct Rest {
    dialogue: Arc<Dialogue>,
    timer: Pin<Box<tokio::time::Sleep>>,
    patience: Duration,
    /// How much was asked when the timer was set, if it was answered.
    seen: Option<u32>,
}

impl Rest {
    fn new(dialogue: Arc<Dialogue>, patience: Duration) -> Self {
        Self { dialogue, timer: Box::pin(tokio::time::sleep(patience)), patience, seen: Some(0) }
    }

    /// Ready after one to two times the patience, counted from the last answer.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.timer.as_mut().poll(cx).is_ready() {
            let quiet = self.dialogue.quiet();
            if quiet.is_some() && quiet == self.seen {
                return Poll::Ready(());
            }
            self.seen = quiet;
            let next = self.timer.deadline() + self.patience;
            self.timer.as_mut().reset(next);
        }
        Poll::Pending
    }
}

/// What was said on one connection.
#[derive(Debug, Default)]
struct Dialogue {
    /// Requests handed over.
    asked: AtomicU32,
    /// Answers that have ended, or were given up.
    ended: AtomicU32,
}

impl Dialogue {
    /// How much was asked, if all of it is answered.
    fn quiet(&self) -> Option<u32> {
        let asked = self.asked.load(Ordering::Relaxed);
        (asked == self.ended.load(Ordering::Relaxed)).then_some(asked)
    }
}

/// A service whose requests and answers are counted in a [`Dialogue`].
struct Counted<A> {
    answer: A,
    dialogue: Arc<Dialogue>,
}

/// What is counted until it is dropped: an answer to come, or its body.
struct Counting<T> {
    inner: T,
    end: Option<End>,
}

/// Counts the end of an answer, whatever ends it.
struct End(Arc<Dialogue>);

impl<A: Answer> Service<Request<Incoming>> for Counted<A> {
    type Response = Response<Counting<A::Body>>;
    type Error = A::Error;
    type Future = Counting<A::Future>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        self.dialogue.asked.fetch_add(1, Ordering::Relaxed);
        Counting { inner: self.answer.call(request), end: Some(End(Arc::clone(&self.dialogue))) }
    }
}

impl<F, B, E> Future for Counting<F>
where
    F: Future<Output = Result<Response<B>, E>> + Unpin,
{
    type Output = Result<Response<Counting<B>>, E>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let response = ready!(Pin::new(&mut self.inner).poll(cx))?;
        let end = self.end.take();
        Poll::Ready(Ok(response.map(|inner| Counting { inner, end })))
    }
}

impl<B: Body + Unpin> Body for Counting<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.inner).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, Ordering::Relaxed);
    }
}

/// Bytes hyper may hold of what we send on one connection.
const WRITE_BUFFER: usize = 128 * 1024;
