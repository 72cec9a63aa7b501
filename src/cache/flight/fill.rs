//! The two ends of a shared body: the leader's [`Fill`] and everybody's [`Reader`].

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;

use super::pour::Pour;
use super::{Aborted, Flight, Stage, State, wake};

/// The leader's end. Dropped without [`finish`](Self::finish) it aborts: the readers get the bytes so far and then
/// [`Aborted`].
#[derive(Debug)]
#[must_use = "dropping the fill aborts it"]
pub struct Fill {
    flight: Arc<Flight>,
    finished: bool,
}

/// What has become of the body after a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// It may still become an entry; all of it is kept.
    Kept,
    /// It has outgrown an entry, or the fills' budget: it streams on to those who read it already, takes no newcomer
    /// and is not stored. Now is the time to remember that its key is not worth waiting for.
    Outgrown,
    /// As `Outgrown`, and nobody reads it any more: the rest need not come.
    Unread,
}

impl Fill {
    pub(super) const fn new(flight: Arc<Flight>) -> Self {
        Self { flight, finished: false }
    }

    /// A reader for the leader's own client, from byte 0. `None` once the body has outgrown an entry, for its
    /// beginning may be gone.
    pub fn reader(&self) -> Option<Reader> {
        let mut state = self.flight.state.lock();
        let length = match &state.stage {
            Stage::Sharing(pour) if !pour.is_windowed() => pour.length,
            _ => return None,
        };
        let seat = state.sit();
        drop(state);
        Some(Reader::new(Arc::clone(&self.flight), seat, length))
    }

    /// Gives the readers a chunk, then waits while the body has outgrown an entry and the slowest reader is too far
    /// behind. The chunk counts as given even if the future is dropped while it waits.
    pub async fn push(&mut self, chunk: Bytes) -> Flow {
        if !chunk.is_empty() {
            self.add(chunk);
        }
        poll_fn(|cx| self.poll_room(cx)).await
    }

    /// The body is complete. If it is whole and as long as announced, `keep` puts it into the store, *before* the key
    /// leaves the map, so that a newcomer finds either the flight or the entry; the body is returned as well. `None`
    /// if it has outgrown an entry, or if bytes are missing, which aborts it (RFC 9112 section 8).
    pub fn finish(mut self, keep: impl FnOnce(&Bytes)) -> Option<Bytes> {
        let pieces = self.with(|pour| pour.whole()).flatten();
        let Some(pieces) = pieces else {
            self.end(|pour| pour.end(true));
            return None;
        };
        let body = pieces.join();
        keep(&body);
        self.end(|pour| pour.end_whole(body.clone()));
        Some(body)
    }

    /// The body has broken off.
    pub fn abort(self) {
        drop(self);
    }

    fn add(&mut self, chunk: Bytes) {
        let mut guard = self.flight.state.lock();
        if let Stage::Sharing(pour) = &mut guard.stage
            && !pour.is_windowed()
            && !pour.fits(chunk.len())
        {
            drop(guard);
            guard = self.outgrow();
        }
        let state = &mut *guard;
        if let Stage::Sharing(pour) = &mut state.stage {
            pour.add(chunk, &state.seats);
        }
        let parked = state.parked();
        drop(guard);
        wake(parked);
    }

    /// Takes the key out of the map and makes the body a window. Only the leader does this, so that nothing but
    /// newcomers can have come since it saw the need.
    fn outgrow(&self) -> parking_lot::MutexGuard<'_, State> {
        let mut shard = self.flight.sky.shard(self.flight.key);
        let mut guard = self.flight.state.lock();
        shard.remove(&self.flight.key);
        drop(shard);
        let state = &mut *guard;
        if let Stage::Sharing(pour) = &mut state.stage {
            pour.narrow(&state.seats);
        }
        guard
    }

    fn poll_room(&self, cx: &Context<'_>) -> Poll<Flow> {
        let mut guard = self.flight.state.lock();
        let state = &mut *guard;
        let Stage::Sharing(pour) = &mut state.stage else {
            return Poll::Ready(Flow::Unread); // cannot be: a fill's flight is sharing
        };
        let room = pour.poll_room(cx);
        room.map(|()| match pour.is_windowed() {
            false => Flow::Kept,
            true if state.seats.is_empty() => Flow::Unread,
            true => Flow::Outgrown,
        })
    }

    fn with<T>(&self, work: impl FnOnce(&mut Pour) -> T) -> Option<T> {
        match &mut self.flight.state.lock().stage {
            Stage::Sharing(pour) => Some(work(pour)),
            _ => None,
        }
    }

    /// Ends the body by `work` and takes the key out of the map.
    fn end(&mut self, work: impl FnOnce(&mut Pour)) {
        let mut shard = self.flight.sky.shard(self.flight.key);
        let mut guard = self.flight.state.lock();
        let state = &mut *guard;
        if let Stage::Sharing(pour) = &mut state.stage {
            // A window has left the map before; the key may be another flight's by now.
            if !pour.is_windowed() {
                shard.remove(&self.flight.key);
            }
            work(pour);
        }
        let parked = state.parked();
        self.finished = true;
        drop(guard);
        drop(shard);
        wake(parked);
    }
}

impl Drop for Fill {
    fn drop(&mut self) {
        if !self.finished {
            self.end(|pour| pour.end(false));
        }
    }
}

/// One reader of a shared body. Dropped, it leaves no trace.
#[derive(Debug)]
pub struct Reader {
    flight: Arc<Flight>,
    seat: Option<u64>,
    length: Option<u64>,
}

impl Reader {
    pub(super) const fn new(flight: Arc<Flight>, seat: u64, length: Option<u64>) -> Self {
        Self { flight, seat: Some(seat), length }
    }

    /// The length of the whole body in bytes, where it was announced.
    pub const fn length(&self) -> Option<u64> {
        self.length
    }

    /// The next chunk, shared with all other readers; `None` at the end of the complete body.
    ///
    /// # Errors
    /// The body broke off after the bytes so far; nothing follows.
    pub fn poll_next(&mut self, cx: &Context<'_>) -> Poll<Option<Result<Bytes, Aborted>>> {
        let Some(number) = self.seat else {
            return Poll::Ready(None);
        };
        let mut guard = self.flight.state.lock();
        let state = &mut *guard;
        let (Stage::Sharing(pour), Some(seat)) = (&mut state.stage, state.seats.get_mut(&number)) else {
            return Poll::Ready(None); // cannot be: a reader's flight is sharing, and it has its seat
        };
        let next = pour.poll_next(seat, cx);
        let fill = pour.unpark_fill();
        if matches!(next, Poll::Ready(None | Some(Err(_)))) {
            state.seats.remove(&number);
            self.seat = None;
        }
        drop(guard);
        wake(fill);
        next
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if let Some(seat) = self.seat {
            let (left, fill) = self.flight.state.lock().leave(seat);
            drop(left);
            wake(fill);
        }
    }
}
