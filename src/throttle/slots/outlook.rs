//! What would become of a request that asked for a slot now, without asking.

use std::time::Duration;

use super::{Excess, Slots};
use crate::refusal::Reason;
use crate::throttle::Ticket;
use crate::throttle::estimate::Mean;
use crate::throttle::reserve::{PerClass, of};

/// What would become of a request, and what its class may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outlook {
    /// Nothing: there is a slot for it. Otherwise what would, unless `shadow`.
    pub excess: Option<Excess>,
    /// How long it would wait, as far as that can be said.
    pub wait: Option<Duration>,
    /// Whether it would pass all the same.
    pub shadow: bool,
    /// Slots that its class may take now.
    pub room: u32,
    /// Slots kept for each class.
    pub kept: PerClass,
    /// Slots each class may have at most.
    pub cap: PerClass,
}

impl Slots {
    /// What would become of a request with this ticket.
    pub fn outlook(&self, ticket: &Ticket) -> Outlook {
        let state = self.state.lock();
        let patience = state.params.timeout;
        let wait = state.predicted(ticket, Mean::known);
        let excess = if state.has_free(ticket) {
            None
        } else if !state.counts() {
            Some(state.beyond(ticket, patience))
        } else if state.is_hopeless(ticket, patience) && state.params.queue > 0 {
            Some(Excess::Refused(Reason::QueueHopeless))
        } else if state.queue.place_for(ticket).is_err() {
            Some(Excess::Refused(Reason::QueueFull))
        } else {
            Some(Excess::Waits)
        };
        let (kept, cap) = (state.params.reserve, state.params.cap);
        let room = of(state.room(), ticket.class);
        let refusal = matches!(excess, Some(Excess::Refused(_)));
        Outlook { excess, wait: wait.filter(|_| !refusal), shadow: !state.counts(), room, kept, cap }
    }
}
