//! How long to wait before a retry: exponential backoff with full jitter.
//!
//! Full jitter (a wait drawn evenly from zero to the bound) spreads the clients of an outage best of the usual schemes
//! (AWS Architecture Blog, "Exponential Backoff And Jitter", 2015).

use std::time::Duration;

/// The wait before retry number `retry` (1 is the first): drawn evenly from zero to `base` doubled with each retry, at
/// most `max`. `drawn` is a number drawn from all of `u64`.
pub fn full_jitter(retry: u32, base: Duration, max: Duration, drawn: u64) -> Duration {
    let doublings = retry.saturating_sub(1).min(31);
    let bound = base.saturating_mul(1 << doublings).min(max);
    bound.mul_f64(drawn as f64 / u64::MAX as f64).min(bound)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BASE: Duration = Duration::from_millis(100);
    const MAX: Duration = Duration::from_secs(2);

    #[test]
    fn the_bound_doubles_up_to_the_maximum() {
        let table =
            [(0, 100), (1, 100), (2, 200), (3, 400), (4, 800), (5, 1600), (6, 2000), (32, 2000), (u32::MAX, 2000)];
        for (retry, bound) in table {
            assert_eq!(full_jitter(retry, BASE, MAX, u64::MAX), Duration::from_millis(bound), "retry {retry}");
            assert_eq!(full_jitter(retry, BASE, MAX, 0), Duration::ZERO);
        }
        assert_eq!(full_jitter(1, BASE, MAX, u64::MAX / 2), BASE / 2);
        assert_eq!(full_jitter(40, Duration::MAX, Duration::from_secs(9), u64::MAX), Duration::from_secs(9));
    }

    proptest! {
        #[test]
        fn more_drawn_is_never_a_shorter_wait_and_never_beyond_the_maximum(
            retry in 0_u32..100,
            drawn in any::<(u64, u64)>(),
        ) {
            let wait = |drawn| full_jitter(retry, BASE, MAX, drawn);
            prop_assert!(wait(drawn.0.min(drawn.1)) <= wait(drawn.0.max(drawn.1)));
            prop_assert!(wait(drawn.0) <= MAX);
        }
    }
}
