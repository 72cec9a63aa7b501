//! Short field values that go on every message, written without the formatting machinery: that costs more than the
//! rest of the field.

use std::fmt;
use std::net::IpAddr;

use http::HeaderValue;

/// A field value in the making, on the stack. What does not fit spoils it.
#[derive(Debug)]
pub struct Short {
    bytes: [u8; CAPACITY],
    /// Beyond the capacity: spoiled.
    length: usize,
}

impl Default for Short {
    fn default() -> Self {
        Self { bytes: [0; CAPACITY], length: 0 }
    }
}

impl Short {
    /// Appends `text`.
    pub fn text(&mut self, text: &str) -> &mut Self {
        self.append(text.as_bytes())
    }

    fn append(&mut self, bytes: &[u8]) -> &mut Self {
        let end = self.length.saturating_add(bytes.len());
        if let Some(place) = self.bytes.get_mut(self.length..end) {
            place.copy_from_slice(bytes);
            self.length = end;
        } else {
            self.length = usize::MAX;
        }
        self
    }

    /// Appends `number` in decimal.
    pub fn number(&mut self, number: u64) -> &mut Self {
        let (mut digits, mut first, mut rest) = ([0; 20], 20, number);
        for digit in digits.iter_mut().rev() {
            *digit = b'0' + (rest % 10) as u8;
            (first, rest) = (first - 1, rest / 10);
            if rest == 0 {
                break;
            }
        }
        self.append(digits.get(first..).unwrap_or_default())
    }

    /// Appends `address`.
    pub fn address(&mut self, address: IpAddr) -> &mut Self {
        match address {
            IpAddr::V4(v4) => {
                let [a, b, c, d] = v4.octets().map(u64::from);
                self.number(a).text(".").number(b).text(".").number(c).text(".").number(d)
            }
            IpAddr::V6(v6) => {
                let _ = fmt::Write::write_fmt(self, format_args!("{v6}"));
                self
            }
        }
    }

    /// The bytes; `None` if they did not fit.
    pub fn bytes(&self) -> Option<&[u8]> {
        self.bytes.get(..self.length)
    }

    /// The value; `None` if it did not fit, or no field may hold it.
    pub fn value(&self) -> Option<HeaderValue> {
        HeaderValue::from_bytes(self.bytes()?).ok()
    }
}

impl fmt::Write for Short {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.text(text);
        Ok(())
    }
}

/// More than any of our values is long.
const CAPACITY: usize = 128;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(write: impl FnOnce(&mut Short) -> &mut Short) -> Option<String> {
        let value = write(&mut Short::default()).value()?;
        Some(value.to_str().unwrap().to_owned())
    }

    #[test]
    fn what_does_not_fit_spoils_the_value_for_good() {
        let long = "x".repeat(CAPACITY);
        assert_eq!(check(|short| short.text(&long)).as_deref(), Some(&*long));
        assert_eq!(check(|short| short.text(&long).text("x").text("")), None);
        assert_eq!(check(|short| short.text("two\r\nlines")), None);
    }

    proptest! {
        #[test]
        fn it_writes_what_display_writes(number: u64, address: IpAddr) {
            let written = check(|short| short.text("t=").number(number).text(";").address(address));
            prop_assert_eq!(written, Some(format!("t={number};{address}")));
        }
    }
}
