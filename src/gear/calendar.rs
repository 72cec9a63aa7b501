//! Windows in which an upstream is spared: maintenance, the batch at the end of the day, the closing of the month.
//!
//! ```text
//!      lead          from                    to            ramp
//!  ─────┬─────────────┬───────────────────────┬──────────────┬─────▶ wall time in the window's zone
//!       │ what is     │ the window's gear     │ slots are    │
//!       │ asked for   │ at least; writes      │ let out      │
//!       │ is renewed  │ refused until `to`    │ slowly       │
//! ```
//!
//! A window belongs to the day it begins on and ends before it is a day old. Where a zone skips the time it begins or
//! ends at, it does so as much later; where a zone repeats it, the first one counts (RFC 5545 section 3.3.5).

use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use jiff::civil::{Date, Time, Weekday};
use jiff::tz::TimeZone;

use super::Gear;
use crate::refusal::Mode;

/// One window, as often as it comes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// Its unique name.
    pub name: String,
    /// The zone its times are in.
    pub zone: TimeZone,
    /// The days it begins on; any day if there are none.
    pub days: Vec<Day>,
    /// When it begins.
    pub from: Time,
    /// When it ends: on the next day if that is not after `from`.
    pub to: Time,
    /// The gear that is not left while it is open.
    pub gear: Gear,
    /// Whether writes are refused while it is open.
    pub refuses_writes: bool,
    /// How long before it what is asked for is renewed in the store.
    pub lead: Duration,
    /// How long after it the slots are let out slowly.
    pub ramp: Duration,
    /// Whether it is kept, or what it would refuse is only counted.
    pub mode: Mode,
}

/// Which days.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Day {
    /// From one day of the week to another, both included; over the week's end if the first is the later one.
    Week(Weekday, Weekday),
    /// A day of the month, from 1.
    Month(i8),
    /// The last day of the month.
    Last,
    /// One date.
    Date(Date),
}

/// What the windows of one upstream say at one time.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Page<'a> {
    /// The open window with the most careful gear, and when it ends.
    pub open: Option<(&'a Window, SystemTime)>,
    /// When the last of the open windows that refuse writes ends.
    pub writes_from: Option<SystemTime>,
    /// The gear of those that are only in shadow mode, and whether one refuses writes.
    pub shadow: (Option<Gear>, bool),
    /// Since when what is asked for is renewed, as a window is near.
    pub lead: Option<SystemTime>,
    /// The share of the slots (0 to 1) that windows which have just ended let out.
    pub share: Option<f64>,
}

/// What `windows` say at `now`.
pub fn at(windows: &[Window], now: SystemTime) -> Page<'_> {
    let mut page = Page::default();
    for window in windows {
        for (begin, end) in window.around(now) {
            let is_open = begin <= now && now < end;
            if !window.mode.counts() {
                page.imagine(window, is_open);
            } else if is_open {
                page.enter(window, end);
            } else if end <= now {
                page.ramp(now.duration_since(end).unwrap_or_default(), window.ramp);
            } else if let Some(lead) = begin.checked_sub(window.lead).filter(|lead| *lead <= now) {
                page.lead = Some(page.lead.map_or(lead, |other| other.min(lead)));
            }
        }
    }
    page
}

impl<'a> Page<'a> {
    fn enter(&mut self, window: &'a Window, end: SystemTime) {
        if window.refuses_writes {
            self.writes_from = self.writes_from.max(Some(end));
        }
        // Of two with the same gear the one that ends later: its end is when it makes sense to come back.
        if self.open.is_none_or(|(other, until)| (other.gear, until) < (window.gear, end)) {
            self.open = Some((window, end));
        }
    }

    fn imagine(&mut self, window: &Window, is_open: bool) {
        if is_open {
            let (gear, writes) = self.shadow;
            self.shadow = (gear.max(Some(window.gear)), writes || window.refuses_writes);
        }
    }

    fn ramp(&mut self, since: Duration, ramp: Duration) {
        if since < ramp {
            let share = FLOOR + (1.0 - FLOOR) * since.as_secs_f64() / ramp.as_secs_f64();
            self.share = Some(self.share.map_or(share, |other| other.min(share)));
        }
    }
}

impl Window {
    /// Its open occurrence, or else the next one within a year: begin and end.
    pub fn next(&self, now: SystemTime) -> Option<(SystemTime, SystemTime)> {
        let today = Timestamp::try_from(now).ok()?.to_zoned_datetime(self.zone.clone()).date();
        let days = today.yesterday().unwrap_or(today).series(jiff::Span::new().days(1)).take(YEAR);
        let mut occurrences = days.filter(|day| self.begins_on(*day)).filter_map(|day| self.occurrence(day));
        occurrences.find(|(begin, end)| begin < end && now < *end)
    }

    /// The occurrences that may matter at `now`: a window, its ramp and its lead are each at most a day long.
    fn around(&self, now: SystemTime) -> impl Iterator<Item = (SystemTime, SystemTime)> {
        let today = Timestamp::try_from(now).ok().map(|now| now.to_zoned_datetime(self.zone.clone()).date());
        let days = today.into_iter().flat_map(|today| {
            let first = today.yesterday().and_then(Date::yesterday).unwrap_or(today);
            first.series(jiff::Span::new().days(1)).take(4)
        });
        days.filter(|day| self.begins_on(*day)).filter_map(|day| self.occurrence(day))
    }

    fn occurrence(&self, day: Date) -> Option<(SystemTime, SystemTime)> {
        let next = if self.to <= self.from { day.tomorrow().ok()? } else { day };
        Some((self.instant(day, self.from)?, self.instant(next, self.to)?))
    }

    fn instant(&self, day: Date, time: Time) -> Option<SystemTime> {
        let zoned = day.to_datetime(time).to_zoned_datetime(self.zone.clone()).ok()?;
        SystemTime::try_from(zoned.timestamp()).ok()
    }

    fn begins_on(&self, date: Date) -> bool {
        self.days.is_empty() || self.days.iter().any(|day| day.is(date))
    }
}

impl Day {
    fn is(self, date: Date) -> bool {
        let number = |day: Weekday| day.to_monday_zero_offset();
        match self {
            Self::Week(first, last) => {
                let (first, day, last) = (number(first), number(date.weekday()), number(last));
                if first <= last { (first..=last).contains(&day) } else { day >= first || day <= last }
            }
            Self::Month(day) => date.day() == day,
            Self::Last => date.day() == date.days_in_month(),
            Self::Date(only) => date == only,
        }
    }
}

impl std::str::FromStr for Day {
    type Err = ();

    /// `mon`, `mon-fri`, `15` (of the month), `last` (of the month), `2026-12-24`.
    fn from_str(text: &str) -> Result<Self, ()> {
        let weekday = |text: &str| {
            let names = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
            let place = names.iter().position(|name| text.eq_ignore_ascii_case(name)).ok_or(())?;
            Weekday::from_monday_zero_offset(place as i8).map_err(drop)
        };
        if text.eq_ignore_ascii_case("last") {
            return Ok(Self::Last);
        }
        if let Ok(day) = text.parse::<i8>() {
            return if (1..=31).contains(&day) { Ok(Self::Month(day)) } else { Err(()) };
        }
        if let Ok(date) = text.parse::<Date>() {
            return Ok(Self::Date(date));
        }
        match text.split_once('-') {
            Some((first, last)) => Ok(Self::Week(weekday(first.trim())?, weekday(last.trim())?)),
            None => weekday(text).map(|day| Self::Week(day, day)),
        }
    }
}

/// Days in which the next occurrence is looked for: a date may be a year away.
const YEAR: usize = 368;

/// The share of the slots that is let out right after a window: the backend is cold, its caches are empty.
const FLOOR: f64 = 0.1;

#[cfg(test)]
mod tests {
    use super::*;

    fn window(days: &[&str], from: &str, to: &str) -> Window {
        Window {
            name: "night".to_owned(),
            zone: TimeZone::get("Europe/Stockholm").unwrap(),
            days: days.iter().map(|day| day.parse().unwrap()).collect(),
            from: from.parse().unwrap(),
            to: to.parse().unwrap(),
            gear: Gear::Park,
            refuses_writes: true,
            lead: Duration::from_secs(900),
            ramp: Duration::from_secs(600),
            mode: Mode::Enforce,
        }
    }

    fn time(text: &str) -> SystemTime {
        let zone = TimeZone::get("Europe/Stockholm").unwrap();
        let local = |local: jiff::civil::DateTime| local.to_zoned_datetime(zone).unwrap().timestamp();
        let time = text.parse::<Timestamp>().unwrap_or_else(|_| local(text.parse().unwrap()));
        time.try_into().unwrap()
    }

    /// Until when the window is open at `now`; `None`: it is not.
    fn check(window: &Window, now: &str, until: Option<&str>) {
        let windows = [window.clone()];
        let page = at(&windows, time(now));
        assert_eq!(page.open.map(|(_, end)| end), until.map(time), "{now} {window:?}");
        assert_eq!(page.writes_from, until.map(time), "{now}");
    }

    #[test]
    fn a_window_is_open_from_its_begin_until_just_before_its_end() {
        let noon = window(&[], "12:00", "13:00");
        check(&noon, "2026-11-26T11:59:59", None);
        check(&noon, "2026-11-26T12:00:00", Some("2026-11-26T13:00"));
        check(&noon, "2026-11-26T12:59:59", Some("2026-11-26T13:00"));
        check(&noon, "2026-11-26T13:00:00", None);
    }

    #[test]
    fn a_window_over_midnight_belongs_to_the_day_it_begins_on() {
        // 2026-11-27 is a Friday.
        let night = window(&["mon-fri"], "23:00", "02:30");
        check(&night, "2026-11-27T22:59", None);
        check(&night, "2026-11-27T23:00", Some("2026-11-28T02:30"));
        check(&night, "2026-11-28T02:29", Some("2026-11-28T02:30"));
        check(&night, "2026-11-28T23:30", None);
        check(&night, "2026-11-29T01:00", None);
        check(&night, "2026-11-30T01:00", None);
        check(&night, "2026-12-01T01:00", Some("2026-12-01T02:30"));
        let all_day = window(&["2026-12-24"], "00:00", "00:00");
        check(&all_day, "2026-12-23T23:59", None);
        check(&all_day, "2026-12-24T23:59", Some("2026-12-25T00:00"));
        check(&all_day, "2026-12-25T00:00", None);
    }

    #[test]
    fn the_next_occurrence_is_the_open_one_or_the_first_to_come() {
        let check = |window: &Window, now: &str, expected: Option<(&str, &str)>| {
            assert_eq!(window.next(time(now)), expected.map(|(begin, end)| (time(begin), time(end))), "{now}");
        };
        let night = window(&["fri"], "23:00", "02:30");
        let friday = ("2026-11-27T23:00", "2026-11-28T02:30");
        check(&night, "2026-11-26T12:00", Some(friday));
        check(&night, "2026-11-28T02:29", Some(friday));
        check(&night, "2026-11-28T02:30", Some(("2026-12-04T23:00", "2026-12-05T02:30")));
        let once = window(&["2026-12-24"], "10:00", "11:00");
        check(&once, "2026-01-01T00:00", Some(("2026-12-24T10:00", "2026-12-24T11:00")));
        check(&once, "2026-12-24T11:00", None);
    }

    #[test]
    fn days_are_of_the_week_of_the_month_or_dates() {
        for (days, on, off) in [
            (&["sat-mon"][..], "2026-11-29", "2026-12-01"),
            (&["tue", "thu"], "2026-11-26", "2026-11-27"),
            (&["1", "15"], "2026-12-15", "2026-12-16"),
            (&["last"], "2028-02-29", "2028-02-28"),
            (&["31"], "2026-12-31", "2026-11-30"),
            (&["2026-12-24"], "2026-12-24", "2027-12-24"),
        ] {
            let window = window(days, "10:00", "11:00");
            check(&window, &format!("{on}T10:30"), Some(&format!("{on}T11:00")));
            check(&window, &format!("{off}T10:30"), None);
        }
        for wrong in ["", "0", "32", "monday", "mon-", "fri-x", "2026-02-30", "-1"] {
            assert_eq!(wrong.parse::<Day>(), Err(()), "{wrong}");
        }
    }

    #[test]
    fn a_window_follows_its_zone_through_the_change_of_the_clocks() {
        // Stockholm skips 02:00 to 03:00 on 2027-03-28 and repeats it on 2026-10-25.
        let night = window(&[], "01:00", "02:30");
        check(&night, "2027-03-28T00:30:00Z", Some("2027-03-28T01:30:00Z"));
        check(&night, "2027-03-28T01:30:00Z", None);
        check(&night, "2026-10-25T00:15:00Z", Some("2026-10-25T00:30:00Z"));
        check(&night, "2026-10-25T01:15:00Z", None);
    }

    #[test]
    fn the_closing_of_a_month_may_fall_on_the_change_of_the_clocks() {
        // In 2024 the last day of March, and in 2027 that of October is the Sunday on which Stockholm's clocks change.
        let closing = window(&["last"], "01:30", "03:30");
        check(&closing, "2024-03-31T00:29:59Z", None);
        check(&closing, "2024-03-31T00:30:00Z", Some("2024-03-31T01:30:00Z"));
        check(&closing, "2024-03-31T01:30:00Z", None);
        check(&closing, "2027-10-30T23:30:00Z", Some("2027-10-31T02:30:00Z"));
        check(&closing, "2027-10-31T02:29:59Z", Some("2027-10-31T02:30:00Z"));
        check(&closing, "2027-10-31T02:30:00Z", None);
        // Over the month's end, and back to a day with another offset.
        let night = window(&["last"], "22:00", "06:00");
        check(&night, "2027-10-31T20:59:59Z", None);
        check(&night, "2027-10-31T21:00:00Z", Some("2027-11-01T05:00:00Z"));
        check(&night, "2027-11-01T05:00:00Z", None);
    }

    #[test]
    fn what_is_asked_for_is_renewed_in_the_lead_and_slots_come_back_on_the_ramp() {
        let windows = [window(&[], "12:00", "13:00")];
        let lead = |now: &str| at(&windows, time(now)).lead;
        assert_eq!(lead("2026-11-26T11:44:59"), None);
        assert_eq!(lead("2026-11-26T11:45:00"), Some(time("2026-11-26T11:45")));
        assert_eq!(lead("2026-11-26T11:59:59"), Some(time("2026-11-26T11:45")));
        assert_eq!(lead("2026-11-26T12:00:00"), None);
        let share = |now: &str| at(&windows, time(now)).share;
        assert_eq!(share("2026-11-26T12:59:59"), None);
        assert_eq!(share("2026-11-26T13:00:00"), Some(0.1));
        assert_eq!(share("2026-11-26T13:05:00"), Some(0.55));
        assert_eq!(share("2026-11-26T13:10:00"), None);
    }

    #[test]
    fn of_several_open_windows_the_most_careful_gear_counts_and_writes_wait_for_the_last() {
        let eco = Window { gear: Gear::Eco, ..window(&[], "12:00", "15:00") };
        let park = Window { refuses_writes: false, ..window(&[], "13:00", "14:00") };
        let windows = [eco, park];
        let page = at(&windows, time("2026-11-26T13:30"));
        assert_eq!(page.open.map(|(window, end)| (window.gear, end)), Some((Gear::Park, time("2026-11-26T14:00"))));
        assert_eq!(page.writes_from, Some(time("2026-11-26T15:00")));
    }

    #[test]
    fn a_window_in_shadow_is_told_apart_and_renews_and_ramps_nothing() {
        let window = || Window { zone: TimeZone::UTC, ..window(&[], "12:00", "15:00") };
        let shadow = Window { mode: Mode::Shadow, ..window() };
        let open = Window { gear: Gear::Eco, refuses_writes: false, ..window() };
        let windows = [shadow, open];
        let at = |hour: u64| at(&windows, SystemTime::UNIX_EPOCH + Duration::from_secs(hour * 3600));
        let page = at(13);
        assert_eq!((page.shadow, page.writes_from), ((Some(Gear::Park), true), None));
        assert_eq!(page.open.map(|(window, _)| window.gear), Some(Gear::Eco));
        assert_eq!(at(16).shadow, (None, false));
        let alone = &windows[..1];
        for minutes in [11 * 60 + 59, 15 * 60 + 1] {
            let now = SystemTime::UNIX_EPOCH + Duration::from_secs(minutes * 60);
            assert_eq!(super::at(alone, now), Page::default());
        }
    }
}
