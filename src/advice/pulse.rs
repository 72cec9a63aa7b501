//! How busy an upstream is, looked at once a second: how many of its slots are really needed.

/// Looks at the slots of one upstream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pulse {
    /// How often so many slots were taken; the last place is for that many and more.
    taken: Vec<u64>,
    looks: u64,
    sum: u64,
    waiting: u64,
}

impl Pulse {
    /// One look: slots taken, zombies included, and requests that wait for one.
    pub fn look(&mut self, taken: usize, queued: usize) {
        let place = taken.min(MOST);
        if self.taken.len() <= place {
            self.taken.resize(place + 1, 0);
        }
        if let Some(count) = self.taken.get_mut(place) {
            *count += 1;
        }
        self.looks += 1;
        self.sum += taken as u64;
        self.waiting += u64::from(queued > 0);
    }

    /// How often it was looked.
    pub const fn looks(&self) -> u64 {
        self.looks
    }

    /// Slots taken on average: by Little's law, arrivals per second times seconds in a slot.
    pub fn mean(&self) -> f64 {
        if self.looks == 0 { 0.0 } else { self.sum as f64 / self.looks as f64 }
    }

    /// The most slots that were taken at once.
    pub fn most(&self) -> usize {
        self.taken.len().saturating_sub(1)
    }

    /// The share of looks at which somebody waited for a slot.
    pub fn waiting(&self) -> f64 {
        if self.looks == 0 { 0.0 } else { self.waiting as f64 / self.looks as f64 }
    }
}

/// More slots than a legacy backend has.
const MOST: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_tells_mean_and_most_and_how_often_somebody_waited() {
        let mut pulse = Pulse::default();
        assert_eq!((pulse.mean(), pulse.most(), pulse.waiting()), (0.0, 0, 0.0));
        for (taken, queued) in [(0, 0), (2, 0), (4, 3), (2, 0)] {
            pulse.look(taken, queued);
        }
        assert_eq!((pulse.looks(), pulse.mean(), pulse.most(), pulse.waiting()), (4, 2.0, 4, 0.25));
        pulse.look(usize::MAX >> 32, 0);
        assert_eq!(pulse.most(), MOST, "bounded");
    }
}
