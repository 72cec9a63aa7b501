//! The guard of a slot in use.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::throttle::slots::{Slots, Taken};

/// A slot (or several) in use. Dropping it gives it back.
#[derive(Debug)]
#[must_use = "a permit that is dropped has given its slot back"]
pub struct Permit {
    /// `None` once it is given back.
    slots: Option<Arc<Slots>>,
    taken: Taken,
}

impl Permit {
    pub(super) fn new(slots: &Arc<Slots>, taken: Taken) -> Self {
        Self { slots: Some(Arc::clone(slots)), taken }
    }

    /// How long the request waited for it.
    pub fn waited(&self) -> Duration {
        self.taken.waited
    }

    /// Slots it holds.
    pub fn slots(&self) -> u32 {
        self.taken.count
    }

    /// Nobody waits for the answer any more, but the upstream still works: the slot counts as a zombie until the permit
    /// goes.
    pub fn zombie(&mut self) {
        if let Some(slots) = &self.slots {
            slots.abandon(&mut self.taken);
        }
    }

    /// Whether it was marked as a zombie.
    pub fn is_zombie(&self) -> bool {
        self.taken.zombie
    }

    /// The upstream is done: gives the slot back and charges the consumer for the time it was taken. A permit that is
    /// only dropped charges nothing and teaches nothing: that is for attempts that never got to the upstream.
    pub fn finish(mut self, now: Instant) {
        self.give_back(Some(now));
    }

    fn give_back(&mut self, finished: Option<Instant>) {
        if let Some(slots) = self.slots.take() {
            slots.take_back(&self.taken, finished);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.give_back(None);
    }
}
