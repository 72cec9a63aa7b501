//! Small pieces of a message, read as strictly as RFC 9110 has them.

use bytes::Bytes;
use http::HeaderValue;

/// Without optional whitespace: spaces and tabs (RFC 9110 section 5.6.3).
pub fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// 1*DIGIT, as far as it can be counted; nobody needs more zeros before it than that has digits.
pub fn decimal(value: &[u8]) -> Option<u64> {
    if value.is_empty() || value.len() > 20 {
        return None;
    }
    value.iter().try_fold(0_u64, |number, byte| {
        let digit = byte.checked_sub(b'0').filter(|digit| *digit < 10)?;
        number.checked_mul(10)?.checked_add(digit.into())
    })
}

/// The value of a field: `part` of `message`. `None` if no field may hold it.
///
/// A short one is copied. To share the memory of the message takes longer, as it is counted atomically, when it begins and
/// when it ends, and it keeps all of the message.
pub fn value(message: &Bytes, part: &[u8]) -> Option<HeaderValue> {
    if part.len() <= COPIED {
        HeaderValue::from_bytes(part).ok()
    } else {
        HeaderValue::from_maybe_shared(message.slice_ref(part)).ok()
    }
}

/// Longer than most values, but for cookies and tokens.
const COPIED: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_the_same_whether_copied_or_shared() {
        for length in [0, 1, COPIED, COPIED + 1, 5000] {
            let message = Bytes::from(format!("a: {}\r\n", "x".repeat(length)));
            let part = &message[3..3 + length];
            assert_eq!(value(&message, part).unwrap().as_bytes(), part);
        }
        let message = Bytes::from(format!("a\r{}\n", "x".repeat(100)));
        assert!(value(&message, &message[..2]).is_none() && value(&message, &message).is_none());
    }

    #[test]
    fn only_blanks_are_trimmed() {
        for (value, trimmed) in [("", ""), (" \t", ""), ("a", "a"), ("\t a b \t", "a b"), ("\u{c}a\r", "\u{c}a\r")] {
            assert_eq!(trim(value.as_bytes()), trimmed.as_bytes());
        }
    }

    #[test]
    fn a_number_is_digits_and_nothing_else() {
        for (value, number) in [
            ("0", Some(0)),
            ("007", Some(7)),
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551616", None),
            ("000000000000000000001", None),
            ("", None),
            ("+1", None),
            ("1 ", None),
            ("0x1", None),
        ] {
            assert_eq!(decimal(value.as_bytes()), number, "{value:?}");
        }
    }
}
