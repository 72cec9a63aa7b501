//! A reply's body whose beginning was read before it is passed on.

use std::collections::VecDeque;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::body::{BoxError, ReplyBody, longer};

/// What was read of a body, and the rest of it.
#[derive(Debug)]
pub struct Ahead {
    /// What was read and not passed on yet.
    read: VecDeque<Result<Frame<Bytes>, BoxError>>,
    rest: ReplyBody,
    /// There is nothing more to be read.
    ended: bool,
}

impl Ahead {
    /// A body of which `read` came first.
    pub(super) fn of(read: VecDeque<Result<Frame<Bytes>, BoxError>>, rest: ReplyBody) -> Box<Self> {
        Box::new(Self { read, rest, ended: false })
    }

    pub(super) fn is_end_stream(&self) -> bool {
        self.read.is_empty() && (self.ended || self.rest.is_end_stream())
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        let rest = if self.ended { SizeHint::with_exact(0) } else { self.rest.size_hint() };
        longer(rest, self.read.iter().flatten())
    }

    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.read.pop_front() {
            Some(frame) => Poll::Ready(Some(frame)),
            None if self.ended => Poll::Ready(None),
            None => self.rest.poll_frame(cx),
        }
    }

    /// As [`ReplyBody::poll_ahead`].
    pub(super) fn poll_ahead(&mut self, cx: &mut Context<'_>) -> Poll<Option<&Frame<Bytes>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let next = std::task::ready!(self.rest.poll_frame(cx));
        self.ended = !matches!(next, Some(Ok(_)));
        self.read.extend(next);
        let last = self.read.back().filter(|_| !self.ended);
        Poll::Ready(last.and_then(|frame| frame.as_ref().ok()))
    }
}
