//! Durations, sizes, rates and ratios as people write them. A bare number is refused wherever a unit is needed:
//! `timeout = 5` leaves open five what.

use std::num::NonZeroU32;
use std::time::Duration;

use bytesize::ByteSize;
use toml::de::DeValue;

use super::diagnostics::Mistake;
use super::values::{expected, text};

/// So many requests per time, as in `"200/s"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// How many.
    pub limit: NonZeroU32,
    /// Per how long.
    pub per: Duration,
}

/// A duration of zero or more: `"250ms"`, `"5s"`, `"10m"`, `"1h 30m"`, `"1d"`.
///
/// # Errors
/// When it is no text, or no duration.
pub fn duration(value: &DeValue<'_>) -> Result<Duration, Mistake> {
    let written = text_with_unit(value, "a duration", DURATIONS)?;
    let duration = humantime::parse_duration(&written)
        .map_err(|error| Mistake::new(format!("`{written}` is not a duration: {error}")).hint(DURATIONS))?;
    // Added to any instant it must not overflow.
    if duration > LONGEST { Err(Mistake::new("longer than ten years")) } else { Ok(duration) }
}

/// A duration that is not zero.
///
/// # Errors
/// When it is no text, no duration, or zero.
pub fn positive_duration(value: &DeValue<'_>) -> Result<Duration, Mistake> {
    match duration(value)? {
        Duration::ZERO => Err(Mistake::new("must be longer than zero")),
        some => Ok(some),
    }
}

/// A size in bytes: `"64KiB"` is 65 536, `"1MB"` is 1 000 000.
///
/// # Errors
/// When it is no text, or no size.
pub fn size(value: &DeValue<'_>) -> Result<u64, Mistake> {
    let written = text_with_unit(value, "a size", SIZES)?;
    match written.parse::<ByteSize>() {
        Ok(size) => Ok(size.as_u64()),
        Err(_) => Err(Mistake::new(format!("`{written}` is not a size")).hint(SIZES)),
    }
}

/// A size that is not zero.
///
/// # Errors
/// When it is no text, no size, or zero.
pub fn positive_size(value: &DeValue<'_>) -> Result<u64, Mistake> {
    match size(value)? {
        0 => Err(Mistake::new("must be larger than zero")),
        some => Ok(some),
    }
}

/// A rate: `"200/s"`, `"1000/m"`, `"5/h"`, `"10000/d"`.
///
/// # Errors
/// When it is no text, no rate, or zero.
pub fn rate(value: &DeValue<'_>) -> Result<Rate, Mistake> {
    let written = text_with_unit(value, "a rate", RATES)?;
    let parsed = written.split_once('/').and_then(|(limit, unit)| {
        let per = match unit.trim() {
            "s" => 1,
            "m" | "min" => 60,
            "h" => 3_600,
            "d" => 86_400,
            _ => return None,
        };
        Some((limit.trim().parse::<u32>().ok()?, Duration::from_secs(per)))
    });
    match parsed {
        None => Err(Mistake::new(format!("`{written}` is not a rate")).hint(RATES)),
        Some((limit, per)) => match NonZeroU32::new(limit) {
            Some(limit) => Ok(Rate { limit, per }),
            None => Err(Mistake::new("a rate of zero admits nothing")
                .hint("to close a route give it a fallback; to close out a consumer remove it")),
        },
    }
}

/// A share between 0 and 1, both included.
///
/// # Errors
/// When it is no number, or out of range.
pub fn ratio(value: &DeValue<'_>) -> Result<f64, Mistake> {
    let parsed = match value {
        DeValue::Float(float) => float.as_str().parse::<f64>().ok(),
        DeValue::Integer(integer) => integer.as_str().parse::<f64>().ok(),
        other => return Err(expected("a number between 0 and 1", other)),
    };
    match parsed {
        Some(ratio) if (0.0..=1.0).contains(&ratio) => Ok(ratio),
        _ => Err(Mistake::new("must lie between 0 and 1").hint("0.5 is one half")),
    }
}

/// A share above 0, at most 1.
///
/// # Errors
/// When it is no number, or out of range.
pub fn positive_ratio(value: &DeValue<'_>) -> Result<f64, Mistake> {
    let ratio = ratio(value)?;
    if ratio > 0.0 { Ok(ratio) } else { Err(Mistake::new("must be above 0, at most 1")) }
}

/// The text of a value that needs a unit; a bare number gets a hint.
fn text_with_unit(value: &DeValue<'_>, what: &str, hint: &str) -> Result<String, Mistake> {
    match value {
        DeValue::Integer(_) | DeValue::Float(_) => Err(Mistake::new(format!("{what} needs a unit")).hint(hint)),
        _ => text(value).map_err(|_| expected(what, value).hint(hint)),
    }
}

const LONGEST: Duration = Duration::from_secs(3_653 * 86_400);
const DURATIONS: &str = "write it with its unit, as in \"250ms\", \"5s\", \"10m\", \"1d\"";
const SIZES: &str = "write it with its unit, as in \"64KiB\" (65 536 bytes) or \"1MB\" (1 000 000 bytes)";
const RATES: &str = "write it as \"200/s\", \"1000/m\", \"5/h\" or \"10000/d\"";

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use super::*;

    fn check<T: PartialEq + Debug>(read: fn(&DeValue<'_>) -> Result<T, Mistake>, cases: &[(&str, Result<T, &str>)]) {
        for (written, expected) in cases {
            let value = DeValue::parse(written).expect("a TOML value");
            match (read(value.get_ref()), expected) {
                (Ok(value), Ok(expected)) => assert_eq!(value, *expected, "{written}"),
                (Err(mistake), Err(part)) => assert!(mistake.message.contains(part), "{written}: {}", mistake.message),
                (other, _) => panic!("{written}: {other:?}"),
            }
        }
    }

    #[test]
    fn durations_need_a_unit() {
        let millis = Duration::from_millis;
        check(
            duration,
            &[
                ("'250ms'", Ok(millis(250))),
                ("'5s'", Ok(millis(5_000))),
                ("'10m'", Ok(millis(600_000))),
                ("'1h 30m'", Ok(millis(5_400_000))),
                ("'1d'", Ok(millis(86_400_000))),
                ("'0s'", Ok(Duration::ZERO)),
                ("5", Err("a duration needs a unit")),
                ("'11y'", Err("longer than ten years")),
                ("'5 parsecs'", Err("is not a duration")),
                ("''", Err("is not a duration")),
                ("true", Err("expected a duration, found a boolean")),
            ],
        );
        check(positive_duration, &[("'1ms'", Ok(millis(1))), ("'0s'", Err("longer than zero"))]);
    }

    #[test]
    fn sizes_tell_binary_from_decimal() {
        check(
            size,
            &[
                ("'64KiB'", Ok(65_536)),
                ("'1MB'", Ok(1_000_000)),
                ("'1.5 GiB'", Ok(1_610_612_736)),
                ("'0B'", Ok(0)),
                ("64", Err("a size needs a unit")),
                ("'many'", Err("is not a size")),
            ],
        );
        check(positive_size, &[("'1B'", Ok(1)), ("'0B'", Err("larger than zero"))]);
    }

    #[test]
    fn rates_name_their_time() {
        let rate_of = |limit, per| Rate { limit: NonZeroU32::new(limit).unwrap(), per: Duration::from_secs(per) };
        check(
            rate,
            &[
                ("'200/s'", Ok(rate_of(200, 1))),
                ("'1000 / m'", Ok(rate_of(1000, 60))),
                ("'5/h'", Ok(rate_of(5, 3_600))),
                ("'10000/d'", Ok(rate_of(10_000, 86_400))),
                ("'0/s'", Err("admits nothing")),
                ("'-1/s'", Err("is not a rate")),
                ("'5/week'", Err("is not a rate")),
                ("'5'", Err("is not a rate")),
                ("5", Err("a rate needs a unit")),
            ],
        );
    }

    #[test]
    fn ratios_lie_between_zero_and_one() {
        check(
            ratio,
            &[
                ("0.5", Ok(0.5)),
                ("0", Ok(0.0)),
                ("1", Ok(1.0)),
                ("1.1", Err("between 0 and 1")),
                ("-0.1", Err("between 0 and 1")),
                ("nan", Err("between 0 and 1")),
                ("'half'", Err("expected a number between 0 and 1, found a string")),
            ],
        );
        check(positive_ratio, &[("0.1", Ok(0.1)), ("0.0", Err("above 0"))]);
    }
}
