//! The body of a shared fill while it arrives, and where each of its readers stands. Plain state: the lock around it
//! and the waking are the flight's.
//!
//! While the body may still become an entry all chunks are kept, and a newcomer starts at byte 0 as everybody did.
//! Once it has outgrown that, it is a *window*: a chunk that all readers have taken is dropped, nobody new may come,
//! and the fill waits while the slowest reader is more than [`WINDOW`] bytes behind.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};

use super::Aborted;
use super::budget::Reservation;
use crate::cache::entry::Head;

/// One who waits for the verdict and then reads; in the order of arrival.
pub(super) type Seats = BTreeMap<u64, Seat>;

/// Where one waiter or reader stands.
#[derive(Debug, Default)]
pub(super) struct Seat {
    /// Set while its task is parked.
    pub(super) waker: Option<Waker>,
    /// The number of the chunk it takes next.
    chunk: u64,
    /// The bytes it has taken.
    offset: u64,
}

impl Seat {
    /// Parks the task of `cx` here.
    pub(super) fn park(&mut self, cx: &Context<'_>) {
        match &mut self.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            None => self.waker = Some(cx.waker().clone()),
        }
    }
}

/// The body of one fill.
#[derive(Debug)]
pub(super) struct Pour {
    /// What the body belongs to.
    pub(super) head: Arc<Head>,
    /// The length the origin announced.
    pub(super) length: Option<u64>,
    max_entry: u64,
    reservation: Reservation,
    chunks: VecDeque<Chunk>,
    /// The number of the first chunk that is still here.
    first: u64,
    /// The bytes of the chunks that are still here.
    held: u64,
    /// The bytes that came in all.
    total: u64,
    windowed: bool,
    /// The fill, parked until the window has room.
    fill: Option<Waker>,
    end: End,
}

#[derive(Debug)]
struct Chunk {
    bytes: Bytes,
    /// How many readers have not taken it; kept in a window only.
    unread: usize,
}

#[derive(Debug)]
enum End {
    /// More may come.
    Open,
    /// Complete, and in one piece: the same memory that the store holds.
    Whole(Bytes),
    /// Complete, but parts of it are gone.
    Windowed,
    /// Broken off.
    Aborted,
}

impl Pour {
    pub(super) fn new(head: Arc<Head>, length: Option<u64>, max_entry: u64, reservation: Reservation) -> Self {
        Self {
            head,
            length,
            max_entry,
            reservation,
            chunks: VecDeque::new(),
            first: 0,
            held: 0,
            total: 0,
            windowed: false,
            fill: None,
            end: End::Open,
        }
    }

    /// Whether the body can no longer become an entry.
    pub(super) const fn is_windowed(&self) -> bool {
        self.windowed
    }

    /// Whether `more` bytes still fit into an entry and into the budget of all fills.
    pub(super) fn fits(&mut self, more: usize) -> bool {
        let total = self.total.saturating_add(more as u64);
        let wanted = total.div_ceil(STEP).saturating_mul(STEP).min(self.max_entry);
        total <= self.max_entry && self.reservation.grow_to(wanted.max(total))
    }

    /// Turns the body, of which nothing was dropped so far, into a window.
    pub(super) fn narrow(&mut self, seats: &Seats) {
        self.windowed = true;
        let mut at = vec![0; self.chunks.len()];
        for seat in seats.values() {
            let place = usize::try_from(seat.chunk).ok().and_then(|place| at.get_mut(place));
            if let Some(count) = place {
                *count += 1;
            }
        }
        let mut behind = 0; // readers at this chunk or before it
        for (chunk, count) in self.chunks.iter_mut().zip(at) {
            behind += count;
            chunk.unread = behind;
        }
        self.drop_read();
    }

    /// Adds a chunk that nobody has read.
    pub(super) fn add(&mut self, bytes: Bytes, seats: &Seats) {
        // A small chunk is a slice of a read buffer that may be a thousand times as large: an origin that dribbles
        // would fill the memory with buffers, whatever the budget says.
        let bytes = if bytes.len() < SMALL { Bytes::copy_from_slice(&bytes) } else { bytes };
        self.total = self.total.saturating_add(bytes.len() as u64);
        self.held = self.held.saturating_add(bytes.len() as u64);
        self.chunks.push_back(Chunk { bytes, unread: seats.len() });
        if self.windowed {
            self.drop_read();
        }
    }

    /// Whether the fill may go on; if not, its task is parked.
    pub(super) fn poll_room(&mut self, cx: &Context<'_>) -> Poll<()> {
        if !self.windowed || self.held <= WINDOW {
            return Poll::Ready(());
        }
        self.fill = Some(cx.waker().clone());
        Poll::Pending
    }

    /// The next chunk for `seat`; its task is parked if there is none yet.
    pub(super) fn poll_next(&mut self, seat: &mut Seat, cx: &Context<'_>) -> Poll<Option<Result<Bytes, Aborted>>> {
        if let End::Whole(body) = &self.end {
            let start = usize::try_from(seat.offset).unwrap_or(usize::MAX).min(body.len());
            let rest = body.slice(start..);
            seat.offset = body.len() as u64;
            return Poll::Ready((!rest.is_empty()).then_some(Ok(rest)));
        }
        let place = usize::try_from(seat.chunk.saturating_sub(self.first)).unwrap_or(usize::MAX);
        if let Some(chunk) = self.chunks.get_mut(place) {
            let bytes = chunk.bytes.clone();
            chunk.unread = chunk.unread.saturating_sub(1);
            seat.chunk += 1;
            seat.offset += bytes.len() as u64;
            if self.windowed {
                self.drop_read();
            }
            return Poll::Ready(Some(Ok(bytes)));
        }
        match self.end {
            End::Open => {
                seat.park(cx);
                Poll::Pending
            }
            End::Aborted => Poll::Ready(Some(Err(Aborted))),
            End::Whole(_) | End::Windowed => Poll::Ready(None),
        }
    }

    /// Forgets a reader that has left.
    pub(super) fn forget(&mut self, seat: &Seat) {
        if !self.windowed {
            return;
        }
        for (_, chunk) in (self.first..).zip(&mut self.chunks).filter(|(number, _)| seat.chunk <= *number) {
            chunk.unread = chunk.unread.saturating_sub(1);
        }
        self.drop_read();
    }

    /// The fill's waker, if it is parked and has room again.
    pub(super) fn unpark_fill(&mut self) -> Option<Waker> {
        if self.held <= WINDOW { self.fill.take() } else { None }
    }

    /// The chunks of a body that came whole: neither a window nor other than announced.
    pub(super) fn whole(&self) -> Option<Pieces> {
        let as_announced = self.length.is_none_or(|length| length == self.total);
        (!self.windowed && as_announced)
            .then(|| Pieces { total: self.held, chunks: self.chunks.iter().map(|chunk| chunk.bytes.clone()).collect() })
    }

    /// Ends the body with `body`, which is all of it in one piece. It is the store's from here on, so the budget has
    /// its bytes back.
    pub(super) fn end_whole(&mut self, body: Bytes) {
        self.end = End::Whole(body);
        self.chunks = VecDeque::new();
        self.held = 0;
        self.reservation.shrink_to(0);
    }

    /// Ends the body after its last chunk: regularly if it is a window and came as announced, else as broken off.
    pub(super) fn end(&mut self, regular: bool) {
        let as_announced = self.length.is_none_or(|length| length == self.total);
        self.end = if regular && self.windowed && as_announced { End::Windowed } else { End::Aborted };
    }

    fn drop_read(&mut self) {
        while let Some(chunk) = self.chunks.pop_front_if(|chunk| chunk.unread == 0) {
            self.held = self.held.saturating_sub(chunk.bytes.len() as u64);
            self.first += 1;
        }
        self.reservation.shrink_to(self.held);
    }
}

/// The chunks of a whole body, out of the lock.
pub(super) struct Pieces {
    total: u64,
    chunks: Vec<Bytes>,
}

impl Pieces {
    /// All of them in one allocation of exactly their size. A copy even of a single chunk, which may be a slice of a
    /// far larger read buffer that an entry must not keep alive.
    pub(super) fn join(self) -> Bytes {
        let mut body = BytesMut::with_capacity(usize::try_from(self.total).unwrap_or(0));
        for chunk in self.chunks {
            body.extend_from_slice(&chunk);
        }
        body.freeze()
    }
}

/// Half of the smallest buffer that hyper reads into: what is larger keeps about as much alive as it is long.
const SMALL: usize = 4 * 1024;

/// How far, in bytes, the slowest reader of a window may be behind. As much as a socket's send buffer typically takes,
/// so that readers of unlike speed do not move in lockstep.
pub(super) const WINDOW: u64 = 256 * 1024;

/// A body of unannounced length takes its budget in steps of so many bytes.
pub(super) const STEP: u64 = 64 * 1024;
