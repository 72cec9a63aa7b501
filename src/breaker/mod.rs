//! The circuit breaker of one upstream.

use std::time::Duration;

pub mod window;

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
    /// A call that took at least this long is slow; `None`: no call is.
    pub slow: Option<Duration>,
    /// Opens when this share of the calls in the window was slow (0 to 1).
    pub slow_ratio: f64,
    /// How long it stays open the first time; doubles each time the trials fail.
    pub open: Duration,
    /// The longest it stays open.
    pub open_max: Duration,
    /// How many trials half-open passes, all of which must do well; at least one.
    pub trials: u32,
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
        }
    }
}

/// Where the breaker stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// Everything passes, and is counted.
    Closed,
    /// Nothing passes until the time is up.
    Open,
    /// A few trials pass.
    HalfOpen,
    /// Nothing passes: an operator's will.
    ForcedOpen,
    /// Everything passes and nothing is learnt: an operator's will.
    ForcedClosed,
}

/// The right to make one attempt. Ends in `Breaker::record` or `Breaker::abandon`, exactly once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "a pass that is neither recorded nor abandoned holds a half-open trial until it is given up"]
pub struct Pass {
    /// It is one of the half-open trials.
    pub trial: bool,
    generation: u32,
}
