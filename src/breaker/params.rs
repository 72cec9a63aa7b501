//! When a breaker opens, how long, and how it comes back.

use std::time::Duration;

use crate::refusal::Mode;

/// When to open, how long, and how to come back. The defaults are for one small legacy backend.
#[derive(Debug, Clone, PartialEq)]
pub struct BreakerParams {
    /// The sliding window over which the ratios are taken.
    pub window: Duration,
    /// Opens when this share of the calls in the window was broken (0 to 1).
    pub failure_ratio: f64,
    /// Stays closed while fewer calls than this are in the window. Ten, because ERP traffic never reaches the hundred
    /// that others ask for.
    pub minimum: u32,
    /// Which calls are slow; `None`: none is.
    pub slow: Option<Slow>,
    /// Opens when this share of the calls in the window was slow (0 to 1).
    pub slow_ratio: f64,
    /// How long it stays open the first time; doubles each time the trials fail.
    pub open: Duration,
    /// The longest it stays open.
    pub open_max: Duration,
    /// How many trials half-open passes, all of which must do well; at least one.
    pub trials: u32,
    /// What the trials are.
    pub trial: Trial,
    /// Opens when more than this share (0 to 1) of the upstream's slots are zombies: it is busy with what nobody waits
    /// for any more. At 1 it never does.
    pub zombie_share: f64,
    /// Whether its word counts, or what it would refuse is only counted. An operator's hold counts in any case.
    pub mode: Mode,
}

impl Default for BreakerParams {
    fn default() -> Self {
        Self {
            window: Duration::from_secs(30),
            failure_ratio: 0.5,
            minimum: 10,
            slow: None,
            slow_ratio: 0.8,
            open: Duration::from_secs(5),
            open_max: Duration::from_mins(5),
            trials: 3,
            trial: Trial::Request,
            zombie_share: 0.5,
            mode: Mode::Enforce,
        }
    }
}

/// Which calls are slow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slow {
    /// Those that took at least this long.
    From(Duration),
    /// Those that took three times as long as nineteen in twenty calls of their kind do, as learned for each kind of work.
    Learned,
}

/// What answers the question of a half-open breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Trial {
    /// Safe requests.
    #[default]
    Request,
    /// Active probes, so that nobody's request is experimented with.
    Probe,
}
