//! Seeded chance: everything random in the simulation comes from here, so that a seed replays a whole run.
//! Not for secrets. Deliberately no trait and no crate: the stream must not change under our feet.

/// A stream of numbers that depends on its seed alone (splitmix64, Steele et al. 2014).
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// The stream of `seed`.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub const fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in [0, 1).
    pub const fn unit(&mut self) -> f64 {
        // 53 bits: every value is exact in an f64.
        (self.roll() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Exponentially distributed with mean 1: the gaps of a Poisson stream.
    pub fn exponential(&mut self) -> f64 {
        -(1.0 - self.unit()).ln()
    }

    /// Log-normally distributed with mean 1; `sigma` is the standard deviation of the logarithm. 0 always gives 1.
    pub fn log_normal(&mut self, sigma: f64) -> f64 {
        // Box–Muller; 1 - unit is never 0, so the logarithm is finite.
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        let normal = radius * (std::f64::consts::TAU * self.unit()).cos();
        (sigma * normal - sigma * sigma / 2.0).exp()
    }
}

/// Weighted choice among a fixed number of things.
#[derive(Debug, Clone)]
pub struct Weighted {
    /// Running sums; the last one is the total.
    sums: Vec<f64>,
}

impl Weighted {
    /// Chooses index `i` with a probability proportional to the `i`-th weight; negative weights count as 0.
    pub fn new(weights: impl IntoIterator<Item = f64>) -> Self {
        let mut total = 0.0;
        let sums = weights.into_iter().map(|weight| {
            total += weight.max(0.0);
            total
        });
        Self { sums: sums.collect() }
    }

    /// Zipf's law over `count` things: the `i`-th most popular has weight 1/i^`exponent`.
    pub fn zipf(count: usize, exponent: f64) -> Self {
        Self::new((1..=count).map(|rank| (rank as f64).powf(-exponent)))
    }

    /// The index that the number `drawn` from [0, 1) chooses; 0 if there is nothing to choose from.
    pub fn choose(&self, drawn: f64) -> usize {
        let total = self.sums.last().copied().unwrap_or_default();
        let chosen = self.sums.partition_point(|sum| *sum <= drawn * total);
        chosen.min(self.sums.len().saturating_sub(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_are_one_and_units_stay_inside() {
        let mut dice = Dice::new(7);
        let (mut gaps, mut works) = (0.0, 0.0);
        for _ in 0..20_000 {
            let unit = dice.unit();
            assert!((0.0..1.0).contains(&unit));
            gaps += dice.exponential();
            works += dice.log_normal(0.5);
        }
        assert!((gaps / 20_000.0 - 1.0).abs() < 0.03, "{gaps}");
        assert!((works / 20_000.0 - 1.0).abs() < 0.03, "{works}");
        assert!((dice.log_normal(0.0) - 1.0).abs() < 1e-12);
    }

    #[test]
    fn choice_follows_the_weights() {
        let check = |weights: &[f64], drawn: f64, expected: usize| {
            assert_eq!(Weighted::new(weights.iter().copied()).choose(drawn), expected, "{weights:?} {drawn}");
        };
        check(&[], 0.5, 0);
        check(&[1.0, 1.0], 0.0, 0);
        check(&[1.0, 1.0], 0.49, 0);
        check(&[1.0, 1.0], 0.5, 1);
        check(&[0.0, 1.0], 0.0, 1);
        check(&[1.0, -3.0, 1.0], 0.999, 2);

        let zipf = Weighted::zipf(100, 1.0);
        let mut dice = Dice::new(1);
        let first = (0..10_000).filter(|_| zipf.choose(dice.unit()) == 0).count();
        // 1 / H(100) = 0.193
        assert!((1_700..2_150).contains(&first), "{first}");
    }
}
