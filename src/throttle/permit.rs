//! The guard of a slot in use.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::throttle::limit::{Ending, Shift};
use crate::throttle::slots::{Excess, Slots, Taken};

/// A slot (or several) in use. Dropping it gives it back.
#[derive(Debug)]
#[must_use = "a permit that is dropped has given its slot back"]
pub struct Permit {
    /// `None` once it is given back.
    slots: Option<Arc<Slots>>,
    taken: Taken,
    /// What the adaptive limit has still to learn.
    end: Option<(Ending, Duration)>,
}

impl Permit {
    pub(super) fn new(slots: &Arc<Slots>, taken: Taken) -> Self {
        Self { slots: Some(Arc::clone(slots)), taken, end: None }
    }

    /// How long the request waited for it.
    pub fn waited(&self) -> Duration {
        self.taken.waited
    }

    /// What would have become of the request, where it got them only since slots do not count (in shadow mode).
    pub fn excess(&self) -> Option<Excess> {
        self.taken.excess
    }

    /// Slots it holds.
    pub fn slots(&self) -> u32 {
        self.taken.count
    }

    /// How the attempt ended and how long its answer took: learned by an adaptive limit, once, as soon as the slot
    /// becomes a zombie or is finished.
    pub fn ended(&mut self, ending: Ending, took: Duration) {
        self.end = Some((ending, took));
    }

    /// Nobody waits for the answer any more, but the upstream still works: the slot counts as a zombie until the permit
    /// goes. Says where this moved an adaptive limit to.
    pub fn zombie(&mut self) -> Option<Shift> {
        let slots = self.slots.as_ref()?;
        slots.abandon(&mut self.taken, self.end.take())
    }

    /// Whether it was marked as a zombie.
    pub fn is_zombie(&self) -> bool {
        self.taken.zombie
    }

    /// The upstream is done: gives the slot back and charges the consumer for the time it was taken. A permit that is
    /// only dropped charges nothing and teaches nothing: that is for attempts that never got to the upstream. Says where
    /// this moved an adaptive limit to.
    pub fn finish(mut self, now: Instant) -> Option<Shift> {
        self.give_back(Some(now))
    }

    fn give_back(&mut self, finished: Option<Instant>) -> Option<Shift> {
        let slots = self.slots.take()?;
        slots.take_back(&self.taken, finished, self.end.take())
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.give_back(None);
    }
}
