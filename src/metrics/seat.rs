//! Which thread is a worker's own: the only one that writes its counters, and whose runtime drives all that waits there.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::marker::PhantomData;

use parking_lot::Mutex;

/// The right of one thread to be the only one that writes a worker's own shards, as long as it is held: it is that worker's
/// thread.
#[derive(Debug)]
pub(crate) struct Seat {
    worker: usize,
    /// It is the thread's, and goes to no other.
    _thread: PhantomData<*const ()>,
}

thread_local! {
    /// Whose seat this thread has; no worker's at first.
    static SEAT: Cell<usize> = const { Cell::new(usize::MAX) };
}

/// Seats that are taken in this process.
static TAKEN: Mutex<BTreeSet<usize>> = Mutex::new(BTreeSet::new());

impl Seat {
    /// Takes the seat of `worker` for this thread; `None` if another thread has it (that of another gateway's worker), or
    /// this one has one already.
    pub(crate) fn take(worker: usize) -> Option<Self> {
        if SEAT.get() != usize::MAX || !TAKEN.lock().insert(worker) {
            return None;
        }
        SEAT.set(worker);
        Some(Self { worker, _thread: PhantomData })
    }

    /// Whether this thread has that of `worker`.
    pub(crate) fn is_taken_here(worker: usize) -> bool {
        SEAT.get() == worker
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        SEAT.set(usize::MAX);
        // Who takes it next sees what was counted: the lock orders the two.
        TAKEN.lock().remove(&self.worker);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seat_is_one_threads_and_a_thread_has_one() {
        let seat = Seat::take(70).unwrap();
        assert!(Seat::take(71).is_none(), "a second one");
        std::thread::scope(|scope| {
            scope.spawn(|| assert!(Seat::take(70).is_none(), "another thread's"));
        });
        drop(seat);
        assert!(Seat::take(70).is_some());
    }
}
