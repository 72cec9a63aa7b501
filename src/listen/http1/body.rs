//! The body of a request, read from its connection when it is polled.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use crate::message::chunked::ChunkError;

/// The body of a request. It may be polled from any task, and outlive the answer; with its connection it breaks off.
pub struct Body {
    /// None once it has ended.
    source: Option<Arc<dyn Source>>,
    /// Bytes to come, where they were announced.
    left: Option<u64>,
}

/// Where a body comes from.
pub(super) trait Source: Send + Sync {
    /// What comes next.
    fn poll_frame(&self, cx: &mut Context<'_>) -> Poll<Next>;
    /// Nobody wants more of it.
    fn let_go(&self);
}

/// What comes next of a body.
pub(super) struct Next {
    pub(super) frame: Option<Result<Frame<Bytes>, BodyError>>,
    /// Whether nothing comes after it.
    pub(super) ended: bool,
}

/// Why a body did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The client has gone.
    #[error("the connection ended before the body did")]
    Incomplete,
    /// The connection broke.
    #[error("the connection broke")]
    Io(#[from] io::Error),
    /// The client broke the chunked coding.
    #[error("the body is malformed")]
    Malformed(#[from] ChunkError),
}

impl Body {
    /// No body.
    pub(super) const fn none() -> Self {
        Self { source: None, left: None }
    }

    /// A body of `left` bytes, or in chunks.
    pub(super) fn new(source: Arc<dyn Source>, left: Option<u64>) -> Self {
        Self { source: Some(source), left }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let Some(source) = &this.source else { return Poll::Ready(None) };
        let next = ready!(source.poll_frame(cx));
        if let (Some(left), Some(Ok(frame))) = (&mut this.left, &next.frame) {
            *left = left.saturating_sub(frame.data_ref().map_or(0, |data| data.len() as u64));
        }
        if next.ended {
            this.source = None;
        }
        Poll::Ready(next.frame)
    }

    fn is_end_stream(&self) -> bool {
        self.source.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        match (&self.source, self.left) {
            (None, _) => SizeHint::with_exact(0),
            (Some(_), Some(left)) => SizeHint::with_exact(left),
            (Some(_), None) => SizeHint::default(),
        }
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        if let Some(source) = self.source.take() {
            source.let_go();
        }
    }
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Body").field("left", &self.left).field("ended", &self.source.is_none()).finish()
    }
}
