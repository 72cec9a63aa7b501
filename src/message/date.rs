//! HTTP-date (RFC 9110 section 5.6.7): the form in use and the two obsolete ones.
//!
//! Read as RFC 9111 section 4.2 asks of a cache: letters in either case, no zone but GMT. Nothing else is forgiven, for
//! an Expires that cannot be read lies in the past (section 5.3), and a guess would serve what was not meant to be. The
//! name of the weekday must be one; whether it is the right one says nothing about the time.

use std::time::{Duration, SystemTime};

/// The instant an HTTP-date names; `None` where it is none.
pub fn parse(text: &str) -> Option<SystemTime> {
    let text = text.trim();
    let (year, month, day, time) = match text.split_once(", ") {
        Some((weekday, rest)) => {
            let rest = rest.get(..rest.len().checked_sub(4)?).filter(|_| ends_in_gmt(rest))?;
            let (date, time) = rest.rsplit_once(' ')?;
            let (year, month, day) = internet_date(weekday, date).or_else(|| rfc850_date(weekday, date))?;
            (year, month, day, time)
        }
        None => asctime(text)?,
    };
    instant(year, month, day, time)
}

/// `Sun`, `06 Nov 1994`.
fn internet_date(weekday: &str, date: &str) -> Option<(u64, u64, u64)> {
    let mut pieces = date.split(' ');
    let day = digits(pieces.next()?, 2)?;
    let month = month(pieces.next()?)?;
    let year = digits(pieces.next()?, 4)?;
    let known = WEEKDAYS.iter().any(|name| is(weekday, name.get(..3).unwrap_or_default()));
    (known && pieces.next().is_none()).then_some((year, month, day))
}

/// `Sunday`, `06-Nov-94`.
fn rfc850_date(weekday: &str, date: &str) -> Option<(u64, u64, u64)> {
    let mut pieces = date.split('-');
    let day = digits(pieces.next()?, 2)?;
    let month = month(pieces.next()?)?;
    let year = digits(pieces.next()?, 2)?;
    let known = WEEKDAYS.iter().any(|name| is(weekday, name));
    // A year more than fifty years ahead is meant to be past. HTTP is not older than 1970.
    let century = if year < 70 { 2000 } else { 1900 };
    (known && pieces.next().is_none()).then_some((century + year, month, day))
}

/// `Sun Nov  6 08:49:37 1994`.
fn asctime(text: &str) -> Option<(u64, u64, u64, &str)> {
    let (weekday, rest) = text.split_once(' ')?;
    let (name, rest) = rest.split_once(' ')?;
    let (day, rest) = rest.split_at_checked(2)?;
    let (time, year) = rest.strip_prefix(' ')?.split_once(' ')?;
    let day = day.strip_prefix(' ').map_or_else(|| digits(day, 2), |day| digits(day, 1))?;
    WEEKDAYS.iter().find(|known| is(weekday, known.get(..3).unwrap_or_default()))?;
    Some((digits(year, 4)?, month(name)?, day, time))
}

/// The instant of a day of the Gregorian calendar and `08:49:37`, both in GMT; `None` where there is none since 1970.
pub fn instant(year: u64, month: u64, day: u64, time: &str) -> Option<SystemTime> {
    seconds(year, month, day, time).and_then(since_epoch)
}

/// Seconds since 1970 of a day of the Gregorian calendar and `08:49:37`.
fn seconds(year: u64, month: u64, day: u64, time: &str) -> Option<u64> {
    let mut pieces = time.split(':');
    let mut piece = || digits(pieces.next()?, 2);
    let (hour, minute, second) = (piece()?, piece()?, piece()?);
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let (before, length) = match month {
        2 => (31, 28 + u64::from(leap)),
        _ => {
            let before = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
            let length = if matches!(month, 4 | 6 | 9 | 11) { 30 } else { 31 };
            (*before.get(usize::try_from(month).ok()?.checked_sub(1)?)? + u64::from(leap && month > 2), length)
        }
    };
    let valid = (1..=length).contains(&day) && hour < 24 && minute < 60 && second <= 60; // 60: a leap second
    if !valid || pieces.next().is_some() || year < 1970 {
        return None;
    }
    let leaps = |year: u64| year / 4 - year / 100 + year / 400;
    let days = (year - 1970) * 365 + leaps(year - 1) - leaps(1969) + before + day - 1;
    Some(((days * 24 + hour) * 60 + minute) * 60 + second)
}

fn since_epoch(seconds: u64) -> Option<SystemTime> {
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

fn month(name: &str) -> Option<u64> {
    let found = MONTHS.iter().zip(1..).find(|(month, _)| is(name, month));
    found.map(|(_, number)| number)
}

/// Exactly `count` digits.
fn digits(text: &str, count: usize) -> Option<u64> {
    let all = text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| all)
}

fn ends_in_gmt(text: &str) -> bool {
    text.as_bytes().last_chunk::<4>().is_some_and(|zone| zone.eq_ignore_ascii_case(b" GMT"))
}

const fn is(text: &str, name: &str) -> bool {
    text.eq_ignore_ascii_case(name)
}

const WEEKDAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];
const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(text: &str, expected: Option<u64>) {
        assert_eq!(parse(text), expected.map(|seconds| since_epoch(seconds).unwrap()), "{text:?}");
    }

    #[test]
    fn the_three_forms_are_read() {
        // RFC 9110 section 5.6.7
        let same = Some(784_111_777);
        check("Sun, 06 Nov 1994 08:49:37 GMT", same);
        check("Sunday, 06-Nov-94 08:49:37 GMT", same);
        check("Sun Nov  6 08:49:37 1994", same);
        check("Sun Nov 16 08:49:37 1994", Some(784_111_777 + 10 * 86_400));
        check("Thursday, 18-Aug-50 02:01:18 GMT", Some(2_544_400_878));
        check("Thu, 01 Jan 1970 00:00:00 GMT", Some(0));
        check("Tue, 19 Jan 2038 03:14:08 GMT", Some(1 << 31));
        check("Sun, 21 Nov 2286 04:46:39 GMT", Some(10_000_039_599));
        check("Fri, 31 Dec 9999 23:59:59 GMT", Some(253_402_300_799));
        check("Tue, 29 Feb 2000 00:00:00 GMT", Some(951_782_400));
        check("Sat, 31 Dec 2016 23:59:60 GMT", Some(1_483_228_800));
        // The weekday is wrong: it was a Monday.
        check("Thu Aug  8 02:01:18 2050", Some(2_543_536_878));
    }

    #[test]
    fn letters_count_in_either_case() {
        // RFC 9111 section 4.2
        let same = Some(784_111_777);
        check("SUN, 06 Nov 1994 08:49:37 GMT", same);
        check("Sun, 06 NOV 1994 08:49:37 GMT", same);
        check("Sun, 06 Nov 1994 08:49:37 gMT", same);
        check("sunday, 06-nov-94 08:49:37 gmt", same);
        check("sun nov  6 08:49:37 1994", same);
    }

    #[test]
    fn nothing_else_is_a_date() {
        // RFC 9111 sections 4.2 (zones) and 5.3
        for text in [
            "",
            "0",
            "-1",
            "now",
            "GMT",
            " GMT",
            ", GMT",
            "3600",
            "Sun, 06 Nov 1994 08:49:37 UTC",
            "Sun, 06 Nov 1994 08:49:37 AEST",
            "Sun, 06 Nov 1994 08:49:37 +0000",
            "Sun, 06 Nov 1994 08:49:37",
            "Sun, 06 Nov 94 08:49:37 GMT",
            "Sun 06 Nov 1994 08:49:37 GMT",
            "Sun,06 Nov 1994 08:49:37 GMT",
            "Sun, 06  Nov  1994 08:49:37 GMT",
            "Sun, 06-Nov-1994 08:49:37 GMT",
            "Sun, 06-Nov-94 08:49:37 GMT",
            "Sunday, 06 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 08.49.37 GMT",
            "Sun, 06 Nov 1994 8:49:37 GMT",
            "Sun, 6 Nov 1994 08:49:37 GMT",
            "Sun, 06 November 1994 08:49:37 GMT",
            "Son, 06 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 24:00:00 GMT",
            "Sun, 06 Nov 1994 08:60:37 GMT",
            "Sun, 06 Nov 1994 08:49:61 GMT",
            "Sun, 06 Nov 1994 08:49:37:00 GMT",
            "Sun, 00 Nov 1994 08:49:37 GMT",
            "Sun, 31 Nov 1994 08:49:37 GMT",
            "Tue, 29 Feb 2100 00:00:00 GMT",
            "Wed, 31 Dec 1969 23:59:59 GMT",
            "Sun Nov 6 08:49:37 1994",
            "Sun Nov  6 08:49:37 94",
            "Sun Nov  6 08:49:37 1994 GMT",
        ] {
            check(text, None);
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(seconds in 0..253_402_300_800_u64) {
            let time = since_epoch(seconds).unwrap();
            prop_assert_eq!(parse(&httpdate::fmt_http_date(time)), Some(time));
        }

        #[test]
        fn no_text_is_too_odd(text in "\\PC{0,40}", date in "[A-Za-z, :0-9-]{0,32}") {
            let _ = (parse(&text), parse(&date), parse(&format!("Sun, {date} GMT")));
        }
    }
}
