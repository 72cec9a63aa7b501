//! How much, how fast, and in which order: what keeps a small backend from being overrun.
//!
//! - [`rate`]: requests per time and consumer (GCRA), checked before any work is done.
//! - [`quota`]: requests per hour, day or month and consumer (pure).
//! - [`slots`]: concurrent work at the upstream; whoever finds no free slot waits in the queue, with a deadline.
//! - [`queue`]: who comes next: classes and aging (pure); `lane`: weighted shares between the consumers of a class (pure).
//! - [`limit`]: how many slots the backend really has, learned from its answers (pure).
//! - [`reserve`]: slots kept free for a class, and those it may have at most (pure).
//! - `codel`: when a standing queue must be shortened (pure).
//! - `estimate`: what a slot's work usually takes; predicted waits and jitter come from it (pure).
//!
//! ```text
//! request ─ rate ─ quota ─ … ─ acquire ─┬─ slot free ───────────────► Permit: busy ─┬─ finish / drop ─► free, or handed on
//!                                       └─ queue ── freed slot ─────►               └─ zombie ─ finish / drop ─► the same
//!                                            └─ full · hopeless · timeout ─► Refusal
//! ```

use std::num::NonZeroU32;
use std::time::Duration;

use self::limit::AdaptiveParams;
use self::reserve::{CAPS, NONE, PerClass};
use crate::refusal::Mode;

mod acquire;
mod codel;
mod estimate;
mod lane;
pub mod limit;
mod permit;
pub mod queue;
pub mod quota;
pub mod rate;
pub mod reserve;
pub mod slots;
mod stats;
mod wakes;

pub use self::acquire::Acquire;
pub use self::permit::Permit;
pub use self::rate::{Delay, RateLimiter, Rated};
pub use self::slots::Slots;
pub use self::stats::{LimitStats, SlotsStats, Totals};

/// How urgent a request is. The smallest is served first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Class {
    /// Somebody looks at a spinner.
    Interactive,
    /// The default.
    #[default]
    Normal,
    /// The beginning of a session: dear to the backend, and whoever is in already goes first. What it may take is capped.
    Logon,
    /// Jobs that can wait.
    Batch,
    /// Vaxel's own background refreshes.
    Refresh,
}

impl Class {
    /// Every class, most urgent first.
    pub const ALL: [Self; 5] = [Self::Interactive, Self::Normal, Self::Logon, Self::Batch, Self::Refresh];

    /// The word used in configuration, logs and metrics.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Interactive => "interactive",
            Self::Normal => "normal",
            Self::Logon => "logon",
            Self::Batch => "batch",
            Self::Refresh => "refresh",
        }
    }
}

/// A rate: `limit` requests in every `per`, of which `burst` may come at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateParams {
    /// How many requests `per` refills.
    pub limit: NonZeroU32,
    /// The time in which `limit` requests are refilled.
    pub per: Duration,
    /// How many requests a full bucket holds.
    pub burst: NonZeroU32,
    /// Whether what is over it waits for its turn, where it may, instead of being refused.
    pub delay: Option<Delay>,
    /// Whether what is over it is refused, or only counted.
    pub mode: Mode,
}

/// How much concurrent work an upstream gets and who may wait for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotsParams {
    /// Requests in the upstream at the same time, zombies included. An adaptive limit begins with it.
    pub slots: usize,
    /// How the number of slots adapts, if it does.
    pub adaptive: Option<AdaptiveParams>,
    /// Slots kept free for each class.
    pub reserve: PerClass,
    /// Slots that each class may have at most, and with them its part of the queue.
    pub cap: PerClass,
    /// Requests that may wait; 0 refuses at once when no slot is free.
    pub queue: usize,
    /// The longest a request waits.
    pub timeout: Duration,
    /// How long a slot stays taken after the client has left or the timeout has fired and the upstream still works.
    pub zombie_hold: Duration,
    /// Whether who finds no slot waits or is refused, or passes and is only counted.
    pub mode: Mode,
}

impl SlotsParams {
    /// Slots there may ever be.
    pub fn most(&self) -> usize {
        self.adaptive.filter(|adaptive| !adaptive.is_shadow()).map_or(self.slots, |adaptive| adaptive.max as usize)
    }

    /// Slots that `class` may ever have.
    pub fn most_of(&self, class: Class) -> usize {
        self.most().min(reserve::of(self.cap, class) as usize)
    }
}

impl Default for SlotsParams {
    /// For one small backend: 12 work slots, two of them for logons, a queue of 64 for two seconds, zombies held for two
    /// minutes (twice the total timeout of 60 s).
    fn default() -> Self {
        let (timeout, zombie_hold) = (Duration::from_secs(2), Duration::from_secs(120));
        Self {
            slots: 12,
            adaptive: None,
            reserve: NONE,
            cap: CAPS,
            queue: 64,
            timeout,
            zombie_hold,
            mode: Mode::Enforce,
        }
    }
}

/// What a request brings to the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    /// Who asks; requests of one consumer and class are served in order.
    pub consumer: u64,
    /// The consumer's share of the upstream when it is scarce; 0 counts as 1.
    pub weight: u32,
    /// How urgent it is.
    pub class: Class,
    /// Slots it takes; at least 1, and never more than there are.
    pub cost: u32,
    /// Which kind of work it is; an adaptive limit compares like with like.
    pub operation: u64,
}

impl Default for Ticket {
    fn default() -> Self {
        Self { consumer: 0, weight: 1, class: Class::Normal, cost: 1, operation: 0 }
    }
}
