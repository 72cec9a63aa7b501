//! Requests per hour, day or month: a quota is counted in windows of a time zone's own clock and calendar.
//!
//! ```text
//!     begin                                   end = the next begin
//!  ─────┬──────────────────────────────────────┬─────▶ wall time
//!       │ used ≤ limit: all pass               │ used = 0
//!       │ beyond it: none, until `end`         │
//! ```
//! - An hour is a whole hour of the zone. A day begins where the zone's date changes, and is 23 or 25 hours long where
//!   the clock is put forward or back. A month begins on its first day.
//! - A request counts against all quotas of its consumer, or against none: what the hour refuses, the day is not charged.
//! - In shadow mode nobody is refused, and what is beyond the limit is charged on: so one sees by how much it is missed.
//! - A clock that is set back moves the count into the earlier window: nothing is forgiven, and nobody is locked out
//!   until a time that is far away again.
//! - The counts are a consumer's and know no limit: another limit finds them as they are. An open window ends when it was
//!   to end, even if another zone is asked for meanwhile.

use std::time::{Duration, SystemTime};

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};

use crate::refusal::{Mode, Reason};

/// So many requests per window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuotaParams {
    /// How many requests a window has room for; at least 1.
    pub limit: u64,
    /// How long a window is.
    pub per: Per,
    /// Whose clock and calendar it goes by.
    pub zone: TimeZone,
    /// Whether what is beyond it is refused, or only counted.
    pub mode: Mode,
}

/// The length of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Per {
    /// A whole hour.
    Hour,
    /// A date.
    Day,
    /// A month of the calendar.
    Month,
}

impl Per {
    /// From the shortest to the longest.
    pub const ALL: [Self; 3] = [Self::Hour, Self::Day, Self::Month];

    /// The word used in configuration, metrics and the RateLimit fields.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Month => "month",
        }
    }

    /// Why a request is refused that is beyond it.
    pub const fn reason(self) -> Reason {
        match self {
            Self::Hour => Reason::QuotaHour,
            Self::Day => Reason::QuotaDay,
            Self::Month => Reason::QuotaMonth,
        }
    }
}

/// What was used of one window, the end excluded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count {
    /// When the window began.
    pub begin: SystemTime,
    /// When it ends.
    pub end: SystemTime,
    /// What was used of it.
    pub used: u64,
}

impl Default for Count {
    /// A window that was over before anybody came.
    fn default() -> Self {
        Self { begin: SystemTime::UNIX_EPOCH, end: SystemTime::UNIX_EPOCH, used: 0 }
    }
}

impl Count {
    /// The count at `now`, in the window that is open then.
    fn at(self, params: &QuotaParams, now: SystemTime) -> Self {
        if self.begin <= now && now < self.end {
            return self;
        }
        let (begin, end) = window(params.per, &params.zone, now);
        Self { begin, end, used: if now < self.begin { self.used } else { 0 } }
    }
}

/// What one consumer has used, in all its windows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts([Count; Per::ALL.len()]);

/// How a consumer stands with one quota, after a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counted {
    /// Which.
    pub per: Per,
    /// Whether it has room for the request.
    pub allowed: bool,
    /// Whether that counts.
    pub mode: Mode,
    /// How many requests a window has room for.
    pub limit: u64,
    /// What was used of this window.
    pub used: u64,
    /// Until it ends.
    pub reset: Duration,
    /// How long it is from begin to end.
    pub length: Duration,
}

impl Counted {
    /// Whether the request is refused for it.
    pub const fn refuses(&self) -> bool {
        !self.allowed && self.mode.counts()
    }

    /// What may still come in this window.
    pub const fn remaining(&self) -> u64 {
        self.limit.saturating_sub(self.used)
    }
}

/// How a consumer stands with its quotas.
pub type Standing = [Option<Counted>; Per::ALL.len()];

impl Counts {
    /// Counts a request that weighs `cost` at `now`, if there is room for it in every window. A cost beyond a limit
    /// takes the whole window: such a request is as rare as can be, not impossible.
    pub fn check(&mut self, quotas: &[QuotaParams], cost: u32, now: SystemTime) -> Standing {
        let mut standing = self.stand(quotas, cost, now);
        if standing.iter().flatten().any(Counted::refuses) {
            return standing;
        }
        for (quota, standing) in quotas.iter().zip(standing.iter_mut().flatten()) {
            let count = self.of(quota.per);
            *count = count.at(quota, now);
            count.used = count.used.saturating_add(charge(quota, cost));
            standing.used = count.used;
        }
        standing
    }

    /// What [`Counts::check`] would say, without counting.
    pub fn stand(&self, quotas: &[QuotaParams], cost: u32, now: SystemTime) -> Standing {
        let mut standing = Standing::default();
        for (quota, place) in quotas.iter().zip(&mut standing) {
            let Count { begin, end, used } = self.get(quota.per).at(quota, now);
            let charged = charge(quota, cost);
            *place = Some(Counted {
                per: quota.per,
                allowed: charged == 0 || used.saturating_add(charged) <= quota.limit,
                mode: quota.mode,
                limit: quota.limit,
                used,
                reset: end.duration_since(now).unwrap_or_default(),
                length: end.duration_since(begin).unwrap_or_default(),
            });
        }
        standing
    }

    /// The windows in which something was used and that are still open at `now`.
    pub fn open(&self, now: SystemTime) -> impl Iterator<Item = (Per, Count)> {
        let all = Per::ALL.into_iter().zip(self.0);
        all.filter(move |(_, count)| count.used > 0 && now < count.end)
    }

    /// Takes over what was written down of a window.
    pub fn restore(&mut self, per: Per, count: Count) {
        *self.of(per) = count;
    }

    fn get(&self, per: Per) -> Count {
        self.0.get(per as usize).copied().unwrap_or_default()
    }

    fn of(&mut self, per: Per) -> &mut Count {
        let [hour, day, month] = &mut self.0;
        match per {
            Per::Hour => hour,
            Per::Day => day,
            Per::Month => month,
        }
    }
}

fn charge(quota: &QuotaParams, cost: u32) -> u64 {
    u64::from(cost).min(quota.limit)
}

/// Begin and end of the window that `now` is in. At the end of the calendar (the year 9999) windows are as long as they
/// usually are, and begin whenever somebody comes.
fn window(per: Per, zone: &TimeZone, now: SystemTime) -> (SystemTime, SystemTime) {
    let bounds = Timestamp::try_from(now).and_then(|now| match per {
        Per::Hour => {
            // By the offset of the moment: an hour that a zone repeats is two windows, and each is an hour long.
            let local = now.as_second() + i64::from(zone.to_offset(now).seconds());
            let begin = now.as_second() - local.rem_euclid(HOUR);
            Ok((Timestamp::from_second(begin)?, Timestamp::from_second(begin + HOUR)?))
        }
        Per::Day => {
            let today = today(zone, now);
            Ok((midnight(zone, today)?, midnight(zone, today.tomorrow()?)?))
        }
        Per::Month => {
            let first = today(zone, now).first_of_month();
            Ok((midnight(zone, first)?, midnight(zone, first.checked_add(Span::new().months(1))?)?))
        }
    });
    let bounds = bounds.and_then(|(begin, end)| Ok((SystemTime::try_from(begin)?, SystemTime::try_from(end)?)));
    bounds.ok().filter(|(begin, end)| *begin <= now && now < *end).unwrap_or_else(|| (now, now + usual(per)))
}

fn today(zone: &TimeZone, now: Timestamp) -> Date {
    now.to_zoned_datetime(zone.clone()).date()
}

/// When a date begins: where a zone skips midnight, after the gap.
fn midnight(zone: &TimeZone, date: Date) -> Result<Timestamp, jiff::Error> {
    Ok(date.to_zoned_datetime(zone.clone())?.timestamp())
}

const fn usual(per: Per) -> Duration {
    let hours = match per {
        Per::Hour => 1,
        Per::Day => 24,
        Per::Month => 24 * 30,
    };
    Duration::from_secs(hours * HOUR as u64)
}

/// An hour in seconds.
const HOUR: i64 = 3600;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn quota(limit: u64, per: Per, zone: &str) -> QuotaParams {
        QuotaParams { limit, per, zone: TimeZone::get(zone).unwrap(), mode: Mode::Enforce }
    }

    fn time(text: &str) -> SystemTime {
        text.parse::<Timestamp>().unwrap().try_into().unwrap()
    }

    #[test]
    fn windows_go_by_the_zones_clock_and_calendar() {
        let check = |per, zone: &str, now: &str, begin: &str, end: &str| {
            let found = window(per, &TimeZone::get(zone).unwrap(), time(now));
            assert_eq!(found, (time(begin), time(end)), "{per:?} of {zone} at {now}");
        };
        let (stockholm, kolkata) = ("Europe/Stockholm", "Asia/Kolkata");
        check(Per::Hour, "UTC", "2026-11-26T12:43:10Z", "2026-11-26T12:00:00Z", "2026-11-26T13:00:00Z");
        check(Per::Hour, kolkata, "2026-11-26T12:43:10Z", "2026-11-26T12:30:00Z", "2026-11-26T13:30:00Z");
        check(Per::Hour, "UTC", "2026-11-26T13:00:00Z", "2026-11-26T13:00:00Z", "2026-11-26T14:00:00Z");
        check(Per::Day, stockholm, "2026-11-26T12:43:10Z", "2026-11-25T23:00:00Z", "2026-11-26T23:00:00Z");
        check(Per::Day, stockholm, "2026-11-25T23:00:00Z", "2026-11-25T23:00:00Z", "2026-11-26T23:00:00Z");
        check(Per::Day, stockholm, "2026-11-25T22:59:59.999Z", "2026-11-24T23:00:00Z", "2026-11-25T23:00:00Z");
        // The clock is put forward, and back: 23 and 25 hours.
        check(Per::Day, stockholm, "2026-03-29T12:00:00Z", "2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z");
        check(Per::Day, stockholm, "2026-10-25T00:30:00Z", "2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z");
        check(Per::Hour, stockholm, "2026-10-25T00:30:00Z", "2026-10-25T00:00:00Z", "2026-10-25T01:00:00Z");
        check(Per::Hour, stockholm, "2026-10-25T01:30:00Z", "2026-10-25T01:00:00Z", "2026-10-25T02:00:00Z");
        // A zone that skips midnight: the day begins at one o'clock.
        check(Per::Day, "America/Sao_Paulo", "2018-11-04T12:00:00Z", "2018-11-04T03:00:00Z", "2018-11-05T02:00:00Z");
        check(Per::Month, stockholm, "2026-11-30T22:59:59Z", "2026-10-31T23:00:00Z", "2026-11-30T23:00:00Z");
        check(Per::Month, stockholm, "2026-03-31T21:59:59Z", "2026-02-28T23:00:00Z", "2026-03-31T22:00:00Z");
        check(Per::Month, "UTC", "2028-02-29T23:59:59Z", "2028-02-01T00:00:00Z", "2028-03-01T00:00:00Z");
        check(Per::Month, "UTC", "2026-12-31T23:59:59Z", "2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z");
    }

    #[test]
    fn a_request_counts_against_all_windows_or_against_none() {
        let quotas = [quota(2, Per::Hour, "UTC"), quota(3, Per::Day, "UTC")];
        let mut counts = Counts::default();
        let mut check = |now: &str, cost, expected: [(bool, u64, u64); 2]| {
            let standing = counts.check(&quotas, cost, time(now));
            let found: Vec<_> = standing.iter().flatten().map(|q| (q.allowed, q.used, q.reset.as_secs())).collect();
            assert_eq!(found, expected, "{cost} at {now}");
        };
        check("2026-11-26T12:59:00Z", 1, [(true, 1, 60), (true, 1, 39_660)]);
        check("2026-11-26T12:59:00Z", 2, [(false, 1, 60), (true, 1, 39_660)]);
        check("2026-11-26T12:59:00Z", 1, [(true, 2, 60), (true, 2, 39_660)]);
        check("2026-11-26T12:59:59Z", 1, [(false, 2, 1), (true, 2, 39_601)]);
        check("2026-11-26T13:00:00Z", 1, [(true, 1, 3600), (true, 3, 39_600)]);
        check("2026-11-26T13:00:00Z", 1, [(true, 1, 3600), (false, 3, 39_600)]);
        // A cost beyond the limit takes all of the window.
        check("2026-11-27T00:00:00Z", 100, [(true, 2, 3600), (true, 3, 86_400)]);
    }

    #[test]
    fn a_clock_set_back_neither_forgives_nor_locks_out() {
        let quotas = [quota(2, Per::Day, "UTC")];
        let mut counts = Counts::default();
        counts.check(&quotas, 1, time("2026-11-26T00:10:00Z"));
        let [standing, ..] = counts.check(&quotas, 1, time("2026-11-25T23:50:00Z"));
        let standing = standing.unwrap();
        assert_eq!((standing.allowed, standing.used, standing.reset.as_secs()), (true, 2, 600));
    }

    #[test]
    fn another_limit_finds_the_counts_as_they_are() {
        let mut counts = Counts::default();
        let now = time("2026-11-26T12:00:00Z");
        for _ in 0..5 {
            counts.check(&[quota(9, Per::Day, "UTC")], 1, now);
        }
        let [standing, ..] = counts.check(&[quota(4, Per::Day, "Europe/Stockholm")], 1, now);
        let standing = standing.unwrap();
        assert_eq!((standing.allowed, standing.used, standing.remaining()), (false, 5, 0));
        assert_eq!(standing.reset, Duration::from_secs(12 * 3600), "the open window ends as it was to");
    }

    #[test]
    fn only_open_windows_are_worth_writing_down() {
        let mut counts = Counts::default();
        let now = time("2026-11-26T12:00:00Z");
        counts.check(&[quota(9, Per::Day, "UTC"), quota(9, Per::Hour, "UTC")], 1, now);
        let open = |text: &str| counts.open(time(text)).map(|(per, count)| (per, count.used)).collect::<Vec<_>>();
        assert_eq!(open("2026-11-26T12:00:00Z"), [(Per::Hour, 1), (Per::Day, 1)]);
        assert_eq!(open("2026-11-26T13:00:00Z"), [(Per::Day, 1)]);
        assert_eq!(open("2026-11-27T00:00:00Z"), []);
        let mut again = Counts::default();
        counts.open(now).for_each(|(per, count)| again.restore(per, count));
        assert_eq!(again, counts);
    }

    const ZONES: [&str; 6] =
        ["UTC", "Europe/Stockholm", "America/Sao_Paulo", "Asia/Kolkata", "Australia/Lord_Howe", "Pacific/Apia"];

    proptest! {
        #[test]
        fn each_time_is_in_one_window_and_days_follow_each_other(
            second in 0_u64..4_000_000_000, nanos in 0_u32..1_000_000_000, zone in 0..ZONES.len(), per in 0..3_usize,
        ) {
            let (zone, per) = (TimeZone::get(ZONES[zone]).unwrap(), Per::ALL[per]);
            let now = SystemTime::UNIX_EPOCH + Duration::new(second, nanos);
            let (begin, end) = window(per, &zone, now);
            prop_assert!(begin <= now && now < end);
            prop_assert!(end.duration_since(begin).unwrap() <= usual(per) + Duration::from_secs(26 * 3600));
            if per != Per::Hour {
                prop_assert_eq!(window(per, &zone, begin), (begin, end));
                prop_assert_eq!(window(per, &zone, end - Duration::from_nanos(1)), (begin, end));
                prop_assert_eq!(window(per, &zone, end).0, end);
            }
        }

        #[test]
        fn never_more_than_the_limit_in_a_window(
            limit in 1_u64..20, per in 0..3_usize, steps in prop::collection::vec((0_u64..40_000, 1_u32..30), 1..200),
        ) {
            let quotas = [quota(limit, Per::ALL[per], "Europe/Stockholm")];
            let (mut counts, mut now) = (Counts::default(), time("2026-10-24T12:00:00Z"));
            let mut passed = std::collections::HashMap::new();
            for (wait, cost) in steps {
                now += Duration::from_secs(wait);
                let [standing, ..] = counts.check(&quotas, cost, now);
                let standing = standing.unwrap();
                let sum: &mut u64 = passed.entry(now + standing.reset).or_default();
                if standing.allowed {
                    *sum += u64::from(cost).min(limit);
                } else {
                    prop_assert!(*sum + u64::from(cost).min(limit) > limit, "refused though there was room");
                }
                prop_assert!(*sum <= limit);
                prop_assert_eq!(standing.used, *sum);
            }
        }
    }
}
