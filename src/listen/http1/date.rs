//! The Date of answers that have none of their own (RFC 9110 section 6.6.1), written once a second.

use std::io::Write as _;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;

use crate::clock::Clock;

/// The current date, for the answers of one worker.
#[derive(Debug)]
pub struct Date {
    clock: Clock,
    last: Mutex<(SystemTime, Text)>,
}

/// As HTTP writes it.
type Text = [u8; 29];

impl Date {
    /// The date by `clock`.
    pub fn new(clock: Clock) -> Self {
        Self { clock, last: Mutex::new((SystemTime::UNIX_EPOCH, text(SystemTime::UNIX_EPOCH))) }
    }

    /// The date now, at most a second old.
    pub(super) fn now(&self) -> Text {
        let now = self.clock.moment().wall;
        let mut last = self.last.lock();
        if now.duration_since(last.0).is_ok_and(|age| age < SECOND) {
            return last.1;
        }
        // Counted from the whole second, so that it changes with it.
        let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let second = SystemTime::UNIX_EPOCH + Duration::from_secs(since.as_secs());
        *last = (second, text(second));
        last.1
    }
}

fn text(time: SystemTime) -> Text {
    let mut text = [b' '; 29];
    // A date of HTTP has 29 bytes.
    let _ = write!(&mut text[..], "{}", httpdate::HttpDate::from(time));
    text
}

const SECOND: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_changes_with_the_second() {
        let begin = SystemTime::UNIX_EPOCH + Duration::from_millis(784_111_777_500);
        let date = Date::new(Clock::anchored(begin));
        for (ahead, expected) in [(0, "37"), (400, "37"), (200, "38"), (1_000, "39"), (60_000, "39")] {
            tokio::time::advance(Duration::from_millis(ahead)).await;
            let minute = if ahead == 60_000 { "50" } else { "49" };
            assert_eq!(
                std::str::from_utf8(&date.now()).unwrap(),
                format!("Sun, 06 Nov 1994 08:{minute}:{expected} GMT")
            );
        }
    }
}
