//! How the slots of an upstream stand: read at scrape, and by the admin interface.

use std::time::Duration;

use crate::throttle::limit::Reading;

/// How the slots stand.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SlotsStats {
    /// Slots there are. `busy + zombie` may be more for a while after a reload or an adaptive limit has lowered it.
    pub slots: usize,
    /// Slots there would be in drive and without a ramp.
    pub all: usize,
    /// What the adaptive limit has learned, if there is one.
    pub limit: Option<LimitStats>,
    /// Slots at work for somebody who waits for the answer.
    pub busy: usize,
    /// Slots at work for nobody any more.
    pub zombie: usize,
    /// Requests that wait, over all classes.
    pub queued: usize,
    /// How long the oldest of them has waited.
    pub oldest_wait: Duration,
    /// How long a slot is usually taken; `None` before anything finished.
    pub typical: Option<Duration>,
    /// What happened since the start.
    pub totals: Totals,
}

/// What an adaptive limit has learned.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct LimitStats {
    /// Slots it finds right; those in force unless it is in shadow mode.
    pub suggested: usize,
    /// Whether it is in shadow mode.
    pub shadow: bool,
    /// What it saw when it last looked.
    pub reading: Reading,
    /// Overload signals since the start.
    pub drops: u64,
}

/// What happened since the start; these only grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Permits given, at once or after a wait.
    pub granted: u64,
    /// Permits given after a wait.
    pub waited: u64,
    /// Refused or displaced because the queue was full.
    pub full: u64,
    /// Refused because the wait would have been too long.
    pub hopeless: u64,
    /// Refused because the wait was too long.
    pub timeout: u64,
    /// Refused to shorten a standing queue (the reason given is the timeout's).
    pub shortened: u64,
    /// Let through though there was no slot, in shadow mode.
    pub shadowed: u64,
    /// Left by themselves while they waited.
    pub cancelled: u64,
}
