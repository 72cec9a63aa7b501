//! What a critical section leaves to be done after the unlock.

use std::task::Waker;

/// Wakers to be called, and things to be dropped, after the unlock: both may run code that comes back here.
#[derive(Debug, Default)]
pub(crate) struct Wakes {
    /// Nearly always the only one; so nothing is allocated.
    first: Option<Waker>,
    rest: Vec<Waker>,
    /// Not to be called.
    pub(crate) dropped: Option<Waker>,
}

impl Wakes {
    /// One more to be called.
    pub(crate) fn extend(&mut self, waker: Option<Waker>) {
        if self.first.is_none() {
            self.first = waker;
        } else {
            self.rest.extend(waker);
        }
    }

    /// Calls them all. Mostly there is none.
    pub(crate) fn wake(self) {
        let Some(first) = self.first else { return };
        first.wake();
        self.rest.into_iter().for_each(Waker::wake);
    }
}
