//! What is read from a connection: one buffer for heads and bodies, kept from answer to answer.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// The read buffer. A body is given out in pieces of it, without copying; room whose pieces are gone is used again.
#[derive(Debug)]
pub(super) struct Intake {
    /// Read, and not taken yet.
    pub(super) buf: BytesMut,
    /// How much room the next read gets.
    next: usize,
    /// The last read needed far less.
    may_shrink: bool,
}

impl Intake {
    pub(super) fn new() -> Self {
        Self { buf: BytesMut::new(), next: SMALL, may_shrink: false }
    }

    /// Reads once; how many bytes came, 0 at the end of the stream.
    pub(super) fn poll(
        &mut self,
        stream: &mut (impl AsyncRead + Unpin),
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        // Of a room that is nearly used up the rest is not worth a read.
        if self.buf.capacity() - self.buf.len() < self.next / 2 {
            self.buf.reserve(self.next);
        }
        let room = self.buf.capacity() - self.buf.len();
        let count = ready!(pin!(stream.read_buf(&mut self.buf)).poll(cx))?;
        self.adapt(count, room);
        Poll::Ready(Ok(count))
    }

    /// Large bodies are read in large pieces: a full read asks for more room, two small ones for less.
    fn adapt(&mut self, count: usize, room: usize) {
        if count == room {
            self.next = (self.next * 2).min(LARGE);
            self.may_shrink = false;
        } else if count >= self.next / 4 {
            self.may_shrink = false;
        } else if std::mem::replace(&mut self.may_shrink, true) {
            self.next = (self.next / 2).max(SMALL);
            self.may_shrink = false;
        }
    }

    /// Nothing will be read for a while: only a small buffer is kept.
    pub(super) fn rest(&mut self) {
        if self.next > SMALL {
            *self = Self::new();
        }
    }
}

/// Room for most answers.
const SMALL: usize = 8 * 1024;
/// The most that is read at once, and the most a head may take.
pub(super) const LARGE: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_grow_with_what_comes_and_shrink_again() {
        let mut intake = Intake::new();
        let sizes = |intake: &mut Intake, reads: &[usize]| {
            for count in reads {
                intake.adapt(*count, intake.next);
            }
            intake.next
        };
        assert_eq!(sizes(&mut intake, &[8192, 16384, 30000]), 32 * 1024);
        assert_eq!(sizes(&mut intake, &[100, 30000, 100]), 32 * 1024, "one small read says nothing");
        assert_eq!(sizes(&mut intake, &[100, 100, 100]), 8 * 1024);
        assert_eq!(
            sizes(&mut intake, &[8 << 10, 16 << 10, 32 << 10, 64 << 10, 128 << 10, 256 << 10, 256 << 10]),
            LARGE
        );
        intake.rest();
        assert_eq!((intake.next, intake.buf.capacity()), (SMALL, 0));
    }
}
