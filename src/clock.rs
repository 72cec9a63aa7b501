//! Monotonic and wall time from one source, so that the two can never contradict each other within a request.
//!
//! One read gives both: wall time is derived from the monotonic reading and an anchor. The reading is tokio's, so
//! under a paused runtime both advance together and whole days pass in a test at once.
//! This file alone reads a clock; everything else gets `now` as an argument.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime};

/// Where time comes from. Cheap to clone; all clones agree.
#[derive(Debug, Clone)]
pub struct Clock(Arc<Anchor>);

/// One reading: the same instant on both scales.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// Monotonic: for timeouts, ages and rates.
    pub mono: Instant,
    /// Wall: for HTTP dates and logs.
    pub wall: SystemTime,
}

#[derive(Debug)]
struct Anchor {
    mono: Instant,
    wall: SystemTime,
    /// Nanoseconds by which the wall clock was stepped since the anchor was laid.
    step: AtomicI64,
}

impl Clock {
    /// The machine's clock.
    #[expect(clippy::disallowed_methods, reason = "the one place where the wall clock is read")]
    pub fn system() -> Self {
        Self::anchored(SystemTime::now())
    }

    /// A clock whose wall time is `wall` now and advances with the monotonic one: for tests and simulations.
    pub fn anchored(wall: SystemTime) -> Self {
        Self(Arc::new(Anchor { mono: monotonic(), wall, step: AtomicI64::new(0) }))
    }

    /// The monotonic time.
    pub fn now(&self) -> Instant {
        monotonic()
    }

    /// Both scales in one reading.
    pub fn moment(&self) -> Moment {
        let mono = monotonic();
        Moment { mono, wall: self.wall_at(mono) }
    }

    /// The wall time that belongs to the monotonic instant `mono`.
    pub fn wall_at(&self, mono: Instant) -> SystemTime {
        let anchor = &*self.0;
        let step = anchor.step.load(Ordering::Relaxed);
        let since = mono.saturating_duration_since(anchor.mono);
        let magnitude = Duration::from_nanos(step.unsigned_abs());
        if step >= 0 { anchor.wall + since + magnitude } else { anchor.wall + since - magnitude }
    }

    /// Follows the machine's wall clock after it was stepped (NTP, an operator); called now and then by the control
    /// plane. A clock made by [`Clock::anchored`] must not be realigned.
    #[expect(clippy::disallowed_methods, reason = "the one place where the wall clock is read")]
    pub fn realign(&self) {
        let anchor = &*self.0;
        let expected = anchor.wall + monotonic().saturating_duration_since(anchor.mono);
        let step = match SystemTime::now().duration_since(expected) {
            Ok(ahead) => i64::try_from(ahead.as_nanos()).unwrap_or(i64::MAX),
            Err(behind) => i64::try_from(behind.duration().as_nanos()).map_or(i64::MIN, |nanos| -nanos),
        };
        anchor.step.store(step, Ordering::Relaxed);
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::system()
    }
}

#[expect(clippy::disallowed_methods, reason = "the one place where the monotonic clock is read")]
fn monotonic() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn both_scales_advance_together() {
        let clock = Clock::anchored(SystemTime::UNIX_EPOCH);
        let before = clock.moment();
        tokio::time::advance(Duration::from_secs(86_400)).await;
        let after = clock.moment();
        assert_eq!(after.mono - before.mono, Duration::from_secs(86_400));
        assert_eq!(after.wall, before.wall + Duration::from_secs(86_400));
    }

    #[tokio::test(start_paused = true)]
    async fn a_stepped_wall_clock_is_followed() {
        let clock = Clock::anchored(SystemTime::UNIX_EPOCH);
        clock.realign();
        let wall = clock.moment().wall.duration_since(SystemTime::UNIX_EPOCH).unwrap();
        assert!(wall > Duration::from_secs(1_000_000_000), "the anchor was in 1970, the machine is not: {wall:?}");
    }
}
