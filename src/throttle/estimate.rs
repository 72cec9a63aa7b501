//! What a slot's work usually takes, and the drawn numbers that spread retries: the two ingredients of every predicted
//! wait. Pure.

use std::time::Duration;

/// An exponentially weighted mean of durations. The first samples count fully (1, 1/2, 1/3, …), so that the mean is
/// right from the start; later ones by an eighth, as in TCP's smoothed round trip (RFC 6298 section 2).
///
/// Beside the plain mean, which says when work will be done on the whole, there is the *usual* one, by which somebody may be
/// refused: to it no sample counts for more than eight times what it is itself. One answer of 20 s among those of 5 ms
/// makes the plain mean 2.5 s, and the next who had to wait 5 ms would be told that it is hopeless. The usual one it does
/// not even double. What is slow more often than one time in eight is believed wholly, and within some thirteen samples.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Mean {
    nanos: u64,
    usual: u64,
    samples: u32,
}

impl Mean {
    /// Learns one more duration.
    pub(crate) fn learn(&mut self, sample: Duration) {
        let sample = nanos(sample);
        self.samples = self.samples.saturating_add(1);
        let divisor = u64::from(self.samples.min(SMOOTHING));
        self.nanos = towards(self.nanos, sample, divisor);
        let most = self.usual.saturating_mul(SMOOTHING.into()).max(SMALL);
        self.usual = towards(self.usual, if self.samples > 1 { sample.min(most) } else { sample }, divisor);
    }

    /// The mean; `None` before the first sample.
    pub(crate) fn known(&self) -> Option<Duration> {
        (self.samples > 0).then(|| Duration::from_nanos(self.nanos))
    }

    /// The usual mean, once enough samples back it to refuse somebody because of it.
    pub(crate) fn evident(&self) -> Option<Duration> {
        (self.samples >= EVIDENCE).then(|| Duration::from_nanos(self.usual.min(self.nanos)))
    }
}

fn towards(mean: u64, sample: u64, divisor: u64) -> u64 {
    if sample >= mean { mean + (sample - mean) / divisor } else { mean - (mean - sample) / divisor }
}

/// The time until `work` slots' worth of requests have gone through `slots` slots, each request taking `mean`.
pub(crate) fn drain(work: u64, mean: Duration, slots: u64) -> Duration {
    let total = u128::from(work) * u128::from(nanos(mean)) / u128::from(slots.max(1));
    Duration::from_nanos(u64::try_from(total).unwrap_or(u64::MAX))
}

/// A stream of drawn numbers from one seed: SplitMix64 (Steele, Lea, Flood 2014). Spreads retries, keeps no secrets.
#[derive(Debug, Clone)]
pub(crate) struct Draws(u64);

impl Draws {
    /// The stream that belongs to `seed`.
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub(crate) const fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }
}

/// `wait` made longer or shorter by up to 20 %, evenly: those refused together must not come back together.
pub(crate) fn jittered(wait: Duration, drawn: u64) -> Duration {
    let share = u128::from(drawn % (2 * SPREAD + 1)) + u128::from(1000 - SPREAD);
    let spread = wait.as_nanos() * share / 1000;
    Duration::from_nanos(u64::try_from(spread).unwrap_or(u64::MAX))
}

/// Whole nanoseconds, at most 584 years.
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// A later sample moves a mean by 1/8 of its difference, and counts for no more than eight times the usual one.
const SMOOTHING: u32 = 8;

/// In nanoseconds: up to a millisecond any sample counts as it is.
const SMALL: u64 = 1_000_000;

/// Below ten samples a mean says little about a backend whose answers take 20 ms or 20 s.
const EVIDENCE: u32 = 10;

/// Jitter in thousandths.
const SPREAD: u64 = 200;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_mean_starts_as_the_plain_mean_and_then_follows() {
        let mut mean = Mean::default();
        assert_eq!(mean.known(), None);
        mean.learn(Duration::from_millis(100));
        mean.learn(Duration::from_millis(300));
        assert_eq!(mean.known(), Some(Duration::from_millis(200)));
        assert_eq!(mean.evident(), None, "two samples are no evidence");
        for _ in 0..60 {
            mean.learn(Duration::from_secs(1));
        }
        let known = mean.evident().unwrap();
        assert!(known > Duration::from_millis(990) && known <= Duration::from_secs(1), "{known:?}");
    }

    /// The usual mean in milliseconds after these samples, each `(count, milliseconds)`.
    #[track_caller]
    fn usual(samples: &[(u32, u64)], expected: std::ops::RangeInclusive<u128>) {
        let mut mean = Mean::default();
        for (count, millis) in samples {
            (0..*count).for_each(|_| mean.learn(Duration::from_millis(*millis)));
        }
        let found = mean.evident().unwrap().as_millis();
        assert!(expected.contains(&found), "{found} ms after {samples:?}");
    }

    #[test]
    fn one_wild_sample_is_not_usual_and_many_soon_are() {
        usual(&[(200, 5), (1, 20_000)], 5..=9);
        usual(&[(200, 5), (1, 20_000), (10, 5), (1, 20_000)], 5..=12);
        usual(&[(200, 5), (13, 20_000)], 8_000..=20_000);
        usual(&[(200, 5), (13, 20_000), (30, 5)], 5..=500);
        // A first sample is all there is to know; it is forgotten as soon as others are there.
        usual(&[(1, 20_000), (40, 5)], 5..=200);
        usual(&[(1, 0), (20, 100)], 50..=100);
    }

    #[test]
    fn draining_is_work_by_slots() {
        assert_eq!(drain(24, Duration::from_secs(2), 12), Duration::from_secs(4));
        assert_eq!(drain(3, Duration::from_secs(1), 0), Duration::from_secs(3), "no slot counts as one");
        assert_eq!(drain(u64::MAX, Duration::MAX, 1), Duration::from_nanos(u64::MAX));
    }

    proptest! {
        #[test]
        fn jitter_stays_within_a_fifth(millis in 1_u64..1_000_000, seed: u64) {
            let wait = Duration::from_millis(millis);
            let spread = jittered(wait, Draws::new(seed).draw());
            prop_assert!(spread >= wait.mul_f64(0.799) && spread <= wait.mul_f64(1.201), "{:?} of {:?}", spread, wait);
        }

        #[test]
        fn the_mean_stays_between_its_samples(samples in prop::collection::vec(0_u64..10_000_000, 1..100)) {
            let mut mean = Mean::default();
            for sample in &samples {
                mean.learn(Duration::from_nanos(*sample));
            }
            let known = mean.known().unwrap();
            prop_assert!(mean.evident().is_none_or(|usual| usual <= known));
            let (low, high) = (samples.iter().min().unwrap(), samples.iter().max().unwrap());
            prop_assert!(known >= Duration::from_nanos(*low) && known <= Duration::from_nanos(*high));
        }
    }

    #[test]
    fn drawn_numbers_spread_over_the_whole_range() {
        let mut draws = Draws::new(7);
        let shares: Vec<u64> = (0..1000).map(|_| draws.draw() % 100).collect();
        for decile in 0..10 {
            let hits = shares.iter().filter(|share| *share / 10 == decile).count();
            assert!((60..=140).contains(&hits), "decile {decile}: {hits} of 1000");
        }
    }
}
