//! The bytes that all fills together may hold before they are in the store.
//!
//! The store counts what it holds; a fill holds its body before that. Without a bound of their own a burst of misses
//! on large bodies would take the memory that the store's capacity promises to leave alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A count of bytes with a ceiling, shared by all fills of one cache.
#[derive(Debug)]
pub(super) struct Budget {
    ceiling: u64,
    taken: AtomicU64,
}

impl Budget {
    /// A budget of `ceiling` bytes.
    pub(super) fn new(ceiling: u64) -> Arc<Self> {
        Arc::new(Self { ceiling, taken: AtomicU64::new(0) })
    }

    /// Takes `bytes` out of the budget until the reservation is dropped; `None` if they are not there.
    pub(super) fn reserve(self: &Arc<Self>, bytes: u64) -> Option<Reservation> {
        let mut reservation = Reservation { budget: Arc::clone(self), bytes: 0 };
        reservation.grow_to(bytes).then_some(reservation)
    }

    /// The bytes that are taken now.
    pub(super) fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }
}

/// Bytes taken out of a [`Budget`]; given back on drop.
#[derive(Debug)]
pub(super) struct Reservation {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Reservation {
    /// Makes the reservation at least `bytes` large; `false` (and unchanged) if the budget does not have them.
    pub(super) fn grow_to(&mut self, bytes: u64) -> bool {
        let Some(more) = bytes.checked_sub(self.bytes) else {
            return true;
        };
        let ceiling = self.budget.ceiling;
        let grown = |taken: u64| taken.checked_add(more).filter(|sum| *sum <= ceiling);
        let taken = self.budget.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, grown).is_ok();
        if taken {
            self.bytes = bytes;
        }
        taken
    }

    /// Makes the reservation at most `bytes` large.
    pub(super) fn shrink_to(&mut self, bytes: u64) {
        if let Some(less) = self.bytes.checked_sub(bytes) {
            self.budget.taken.fetch_sub(less, Ordering::Relaxed);
            self.bytes = bytes;
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.shrink_to(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ceiling_holds_and_everything_comes_back() {
        let budget = Budget::new(100);
        let mut first = budget.reserve(60).unwrap();
        assert!(budget.reserve(41).is_none());
        let second = budget.reserve(40).unwrap();
        assert!(!first.grow_to(61), "nothing is left");
        drop(second);
        assert!(first.grow_to(100));
        assert!(first.grow_to(10), "a smaller wish is already granted");
        assert_eq!(budget.taken(), 100);
        first.shrink_to(30);
        first.shrink_to(70);
        assert_eq!(budget.taken(), 30);
        assert!(!first.grow_to(u64::MAX), "no overflow");
        drop(first);
        assert_eq!(budget.taken(), 0);
    }
}
