//! The words for where a breaker stands, and for what changed that.

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

impl State {
    /// Every state, in order.
    pub const ALL: [Self; 5] = [Self::Closed, Self::Open, Self::HalfOpen, Self::ForcedOpen, Self::ForcedClosed];

    /// The stable word for logs, metric labels and the admin API.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
            Self::ForcedOpen => "forced_open",
            Self::ForcedClosed => "forced_closed",
        }
    }
}

/// What an operator may hold the breaker at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// Nothing passes.
    Open,
    /// Everything passes.
    Closed,
}

/// A change of state, to be logged and counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shift {
    /// The state it left.
    pub from: State,
    /// The state it is in now.
    pub to: State,
    /// Why.
    pub cause: Cause,
}

/// Why the state changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Too large a share of the calls broke.
    Failures,
    /// Too large a share of the calls was slow.
    Slow,
    /// Too many slots work on what nobody waits for any more.
    Zombies,
    /// A trial went badly, or all of them did well.
    Trials,
    /// The wait is over, or trials gave no verdict for too long.
    Time,
    /// An operator wants it so.
    Operator,
}

impl Cause {
    /// The stable word for logs: where a gear has the same cause, the same word.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Failures => "failures",
            Self::Slow => "slow",
            Self::Zombies => "zombies",
            Self::Trials => "trials",
            Self::Time => "time",
            Self::Operator => "operator",
        }
    }
}
