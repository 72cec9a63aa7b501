//! What a limit has learned, in numbers that another process can take up. Pure.
//!
//! Whatever they say, the limit stays within its bounds: they are where it goes on from, and it goes on learning. What was
//! learned by another policy says nothing.

use std::time::Duration;

use super::{AdaptiveParams, Policy};

/// What a limit knows of its upstream.
#[derive(Debug, Clone, PartialEq)]
pub struct Learned {
    /// Which policy learned it.
    pub kind: Kind,
    /// Slots it finds right, not held in any bounds.
    pub slots: f64,
    /// What each kind of work takes without waiting, in the order of their numbers; none for [`Kind::Aimd`].
    pub baselines: Vec<Baseline>,
}

/// What one kind of work takes without waiting.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Baseline {
    /// Which, as in [`Sample`](super::Sample).
    pub operation: u64,
    /// How long.
    pub takes: Duration,
    /// Answers it rests on; old ones count for less.
    pub answers: u32,
}

/// A policy without its parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// See [`Policy::Gradient`].
    Gradient,
    /// See [`Policy::Aimd`].
    Aimd,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 2] = [Self::Gradient, Self::Aimd];

    /// The word used in configuration.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Gradient => "gradient",
            Self::Aimd => "aimd",
        }
    }
}

impl Learned {
    /// Whether a limit with these parameters can make use of it.
    pub fn is_for(&self, params: &AdaptiveParams) -> bool {
        self.kind == params.policy.kind() && self.slots.is_finite()
    }
}

impl Policy {
    /// Which it is.
    pub const fn kind(self) -> Kind {
        match self {
            Self::Gradient => Kind::Gradient,
            Self::Aimd { .. } => Kind::Aimd,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::super::{Ending, Limit, Sample};
    use super::*;
    use crate::clock::Clock;
    use crate::refusal::Mode;

    const GRADIENT: AdaptiveParams = AdaptiveParams { policy: Policy::Gradient, min: 2, max: 40, mode: Mode::Enforce };

    fn now() -> Instant {
        Clock::system().now()
    }

    /// A limit that has seen two kinds of work with all its slots in use.
    fn experienced(params: AdaptiveParams) -> Limit {
        let mut now = now();
        let mut limit = Limit::new(params, 10, now);
        for number in 0..2000 {
            let operation = number % 2;
            let took = Duration::from_millis(20 + 200 * operation);
            let in_flight = limit.in_force();
            limit.record(&Sample { operation, began: now, took, in_flight, ending: Ending::Success }, now + took);
            now += took;
        }
        limit
    }

    #[test]
    fn what_one_process_has_learned_another_goes_on_with() {
        for params in [GRADIENT, AdaptiveParams { policy: Policy::Aimd { slow: None }, ..GRADIENT }] {
            let first = experienced(params);
            let learned = first.learned().unwrap();
            assert!(learned.slots > 12.0, "{learned:?}");
            let mut second = Limit::new(params, 10, now());
            assert!(second.restore(&learned, now()));
            assert_eq!(second.suggested(), first.suggested());
            let again = second.learned().unwrap();
            assert_eq!((again.kind, again.slots), (learned.kind, learned.slots));
            for (one, other) in again.baselines.iter().zip(&learned.baselines) {
                let apart = one.takes.abs_diff(other.takes);
                assert!((one.operation, one.answers) == (other.operation, other.answers) && apart.as_micros() < 2);
            }
            assert_eq!(again.baselines.len(), if params.policy == Policy::Gradient { 2 } else { 0 });
        }
    }

    #[test]
    fn what_has_looked_at_nothing_has_learned_nothing() {
        assert_eq!(Limit::new(GRADIENT, 10, now()).learned(), None);
    }

    #[test]
    fn a_suggestion_is_taken_up_as_one() {
        let shadow = AdaptiveParams { mode: Mode::Shadow, ..GRADIENT };
        let mut limit = Limit::new(shadow, 10, now());
        assert!(limit.restore(&Learned { kind: Kind::Gradient, slots: 17.5, baselines: Vec::new() }, now()));
        assert_eq!((limit.suggested(), limit.in_force()), (17, 10));
    }

    #[test]
    fn whatever_it_says_the_bounds_hold() {
        let hostile = |operation| Baseline { operation, takes: Duration::MAX, answers: u32::MAX };
        for (slots, expected) in [(0.0, 2), (-1e300, 2), (1e300, 40), (2.9, 2), (39.9, 39)] {
            let mut limit = Limit::new(GRADIENT, 10, now());
            let baselines = (0..10_000).map(hostile).collect();
            assert!(limit.restore(&Learned { kind: Kind::Gradient, slots, baselines }, now()));
            assert_eq!(limit.in_force(), expected, "{slots}");
            let kept = limit.learned().unwrap().baselines;
            assert!(kept.len() <= 4096 && kept.iter().all(|baseline| baseline.takes <= Duration::from_secs(86_401)));
        }
    }

    #[test]
    fn what_another_policy_has_learned_or_is_no_number_changes_nothing() {
        for (kind, slots) in [(Kind::Aimd, 30.0), (Kind::Gradient, f64::NAN), (Kind::Gradient, f64::INFINITY)] {
            let mut limit = Limit::new(GRADIENT, 10, now());
            assert!(!limit.restore(&Learned { kind, slots, baselines: Vec::new() }, now()));
            assert_eq!(limit.in_force(), 10);
        }
    }
}
