//! What the slots of an upstream have learned, on its way to the next process.

use super::Slots;
use crate::throttle::limit::learned::Learned;

impl Slots {
    /// What an adaptive limit has learned, if there is one and it has.
    pub fn learned(&self) -> Option<Learned> {
        self.state.lock().limit.as_ref()?.learned()
    }

    /// Goes on from what a limit has learned in another process; false if that says nothing here. Whoever waits gets what
    /// is free then.
    pub fn restore(&self, learned: &Learned) -> bool {
        let now = self.clock.now();
        self.with(|state, wakes| {
            let taken = state.limit.as_mut().is_some_and(|limit| limit.restore(learned, now));
            if taken {
                state.dispatch(now, wakes);
            }
            taken
        })
    }
}
