//! Notices that nothing moves on a client's connection.
//!
//! Time is kept without reading a clock per request: a timer wakes now and then and asks whether anything has moved
//! since. A timer of each request's own would cost it an allocation.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Sleep;

/// How long a client may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Patience {
    /// For the head of a request, from its first byte on; also for taking what we send, without any progress.
    pub head: Duration,
    /// Between two requests.
    pub idle: Duration,
}

/// What a client is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// The next request.
    Idle,
    /// The rest of a head.
    Head,
    /// To take what is written.
    Writing,
}

/// Looks at a connection whenever it waits for its client.
#[derive(Debug)]
pub(super) struct Watch {
    patience: Patience,
    /// What was seen when the timer was set.
    seen: (Phase, u64),
    timer: Option<Pin<Box<Sleep>>>,
}

impl Watch {
    /// With this patience.
    pub(super) fn new(patience: Patience) -> Self {
        Self { patience, seen: (Phase::Idle, 0), timer: None }
    }

    /// The client is waited for in `phase`, after so many `moves`: heads that came, or writes it took. The task is woken
    /// when it is time to look again.
    ///
    /// # Errors
    /// Nothing has moved for as long as the phase allows; up to twice as long may have passed by then.
    pub(super) fn check(&mut self, phase: Phase, moves: u64, cx: &mut Context<'_>) -> io::Result<()> {
        let allowed = match phase {
            Phase::Idle => self.patience.idle,
            Phase::Head | Phase::Writing => self.patience.head,
        };
        let now = (phase, moves);
        match &mut self.timer {
            None => self.timer = Some(Box::pin(tokio::time::sleep(allowed))),
            // A phase is timed from its beginning: the timer of another may be far away.
            Some(timer) if self.seen.0 != phase => timer.set(tokio::time::sleep(allowed)),
            Some(timer) if !timer.is_elapsed() => return Ok(()),
            Some(_) if self.seen == now => return Err(io::ErrorKind::TimedOut.into()),
            Some(timer) => timer.set(tokio::time::sleep(allowed)),
        }
        self.seen = now;
        match self.timer.as_mut().map(|timer| timer.as_mut().poll(cx)) {
            Some(Poll::Ready(())) => Err(io::ErrorKind::TimedOut.into()),
            _ => Ok(()),
        }
    }
}
