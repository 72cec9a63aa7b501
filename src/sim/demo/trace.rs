//! How a stage went: what happened in each twentieth of it, drawn in as many characters.

use std::time::Duration;

/// What happened in each part of a stage.
#[derive(Debug, Clone)]
pub struct Trace {
    length: Duration,
    /// Good answers by the end of each part.
    good: [u64; PARTS],
    /// Most that were seen inside the box in each.
    inside: [usize; PARTS],
}

impl Trace {
    /// Of a stage of this length, before it.
    pub const fn new(length: Duration) -> Self {
        Self { length, good: [0; PARTS], inside: [0; PARTS] }
    }

    /// After `elapsed` there were `good` answers in all, and `inside` were in the box. What comes when nothing is sent
    /// any more is left out.
    pub fn record(&mut self, elapsed: Duration, good: u64, inside: usize) {
        let part = (elapsed.as_secs_f64() / self.length.as_secs_f64().max(f64::MIN_POSITIVE) * PARTS as f64) as usize;
        if let Some(most) = self.inside.get_mut(part) {
            *most = inside.max(*most);
        }
        // They do not become fewer: a part in which nobody looked has none of its own.
        for count in self.good.iter_mut().skip(part) {
            *count = good;
        }
    }

    /// The most good answers of a part.
    pub fn most_good(&self) -> f64 {
        self.each_good().fold(0.0, f64::max)
    }

    /// The most that were inside.
    pub fn most_inside(&self) -> f64 {
        self.each_inside().fold(0.0, f64::max)
    }

    /// A character for each part: good answers, a full block for `most`.
    pub fn good(&self, most: f64) -> String {
        drawn(self.each_good(), most)
    }

    /// The same of how many were inside.
    pub fn inside(&self, most: f64) -> String {
        drawn(self.each_inside(), most)
    }

    fn each_good(&self) -> impl Iterator<Item = f64> {
        let before = std::iter::once(&0).chain(&self.good);
        self.good.iter().zip(before).map(|(now, before)| now.saturating_sub(*before) as f64)
    }

    fn each_inside(&self) -> impl Iterator<Item = f64> {
        self.inside.iter().map(|inside| *inside as f64)
    }
}

fn drawn(values: impl Iterator<Item = f64>, most: f64) -> String {
    let height = |value: f64| {
        // Nothing is a space; anything is at least the lowest block.
        let height = if most > 0.0 { (value / most * (BLOCKS.len() - 1) as f64).ceil() } else { 0.0 };
        BLOCKS.get(height as usize).copied().unwrap_or('█')
    };
    values.map(height).collect()
}

/// Parts of a stage.
const PARTS: usize = 20;
const BLOCKS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_is_drawn_as_high_as_it_is() {
        let mut trace = Trace::new(Duration::from_secs(20));
        let second = |second: u64| Duration::from_millis(1000 * second + 500);
        trace.record(second(0), 10, 1);
        trace.record(second(1), 50, 8);
        trace.record(second(1), 50, 3);
        trace.record(second(3), 130, 64);
        trace.record(second(30), 999, 999);
        assert_eq!((trace.most_good(), trace.most_inside()), (80.0, 64.0));
        assert_eq!(trace.good(80.0).trim_end(), "▁▄ █");
        assert_eq!(trace.inside(64.0).trim_end(), "▁▁ █");
        assert_eq!(trace.good(80.0).chars().count(), PARTS);
    }

    #[test]
    fn nothing_at_all_is_empty() {
        assert_eq!(Trace::new(Duration::ZERO).good(0.0).trim(), "");
    }
}
