//! How long a caller still waits, as it says in a field: whole milliseconds (`1500`, as many services send), or with a
//! unit (`1500m`, `2S`), as gRPC does (gRPC over HTTP/2, `Timeout`).

use std::time::Duration;

use http::HeaderValue;

use super::short::{Short, Text as _};

/// How it is written; what is left goes on in the same way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spelling {
    /// Milliseconds.
    Bare,
    /// A number and a unit.
    Unit,
}

/// The time a field gives; `None` if it cannot be read.
pub fn read(value: &HeaderValue) -> Option<(Duration, Spelling)> {
    let text = value.to_str().ok()?.trim();
    let (number, unit) = match text.split_at_checked(text.len().checked_sub(1)?)? {
        (_, last) if last.bytes().all(|byte| byte.is_ascii_digit()) => (text, None),
        (number, unit) => (number, Some(unit)),
    };
    // gRPC allows eight digits; milliseconds are not counted, but what overflows is no time.
    let digits = number.bytes().all(|byte| byte.is_ascii_digit());
    let number: u64 = digits.then(|| number.parse().ok())??;
    let time = match unit {
        None | Some("m") => Duration::from_millis(number),
        Some("H") => Duration::from_secs(number.checked_mul(3600)?),
        Some("M") => Duration::from_secs(number.checked_mul(60)?),
        Some("S") => Duration::from_secs(number),
        Some("u") => Duration::from_micros(number),
        Some("n") => Duration::from_nanos(number),
        Some(_) => return None,
    };
    Some((time, if unit.is_some() { Spelling::Unit } else { Spelling::Bare }))
}

/// The field for the next hop: never more than `left`, but never nothing.
pub fn write(left: Duration, spelling: Spelling) -> Option<HeaderValue> {
    let mut text = Short::default();
    text.number(u64::try_from(left.as_millis()).unwrap_or(u64::MAX).clamp(1, LONGEST));
    if spelling == Spelling::Unit {
        text.text("m");
    }
    text.value()
}

/// Eight digits of milliseconds: a day and three hours.
const LONGEST: u64 = 99_999_999;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn milliseconds_or_a_number_with_a_unit() {
        let check = |text: &str, expected: Option<(u64, Spelling)>| {
            let read = read(&HeaderValue::from_str(text).unwrap());
            assert_eq!(read.map(|(time, spelling)| (time.as_micros() as u64, spelling)), expected, "{text}");
        };
        check("1500", Some((1_500_000, Spelling::Bare)));
        check(" 0 ", Some((0, Spelling::Bare)));
        check("1500m", Some((1_500_000, Spelling::Unit)));
        check("2S", Some((2_000_000, Spelling::Unit)));
        check("1M", Some((60_000_000, Spelling::Unit)));
        check("1H", Some((3_600_000_000, Spelling::Unit)));
        check("7u", Some((7, Spelling::Unit)));
        check("7000n", Some((7, Spelling::Unit)));
        for wrong in ["", "m", "-1", "+1", "1.5", "1s", "1 S", "5x", "99999999999999999999", "18446744073709551615H"] {
            check(wrong, None);
        }
    }

    proptest! {
        #[test]
        fn what_goes_on_is_read_again_and_never_more(left in 1_u64..200_000_000) {
            for spelling in [Spelling::Bare, Spelling::Unit] {
                let left = Duration::from_micros(left * 1000 + 999);
                let (time, read) = read(&write(left, spelling).unwrap()).unwrap();
                prop_assert_eq!(read, spelling);
                prop_assert!(time <= left && time + Duration::from_millis(1) > left.min(Duration::from_millis(LONGEST)));
            }
        }

        #[test]
        fn no_field_is_too_odd(text in "\\PC{0,20}") {
            let _ = HeaderValue::from_str(&text).ok().and_then(|value| read(&value));
        }
    }
}
