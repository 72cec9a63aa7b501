//! Short field values that go on every message, written without the formatting machinery: that costs more than the
//! rest of the field.

use std::net::{IpAddr, Ipv4Addr};

use bytes::BytesMut;
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
    /// The value; `None` if it did not fit, or no field may hold it.
    pub fn value(&self) -> Option<HeaderValue> {
        HeaderValue::from_bytes(self.bytes.get(..self.length)?).ok()
    }
}

/// What texts and numbers are written into: a short value, or what goes over a connection. Inlined, as most texts are
/// known to the compiler.
pub trait Text {
    /// Appends `bytes`.
    fn bytes(&mut self, bytes: &[u8]) -> &mut Self;

    /// Appends `text`.
    #[inline]
    fn text(&mut self, text: &str) -> &mut Self {
        self.bytes(text.as_bytes())
    }

    /// Appends `number` in decimal.
    fn number(&mut self, number: u64) -> &mut Self {
        self.bytes(decimal(number, &mut [0; 20]))
    }

    /// Appends `address`.
    fn address(&mut self, address: IpAddr) -> &mut Self {
        match address {
            IpAddr::V4(v4) => self.bytes(dotted(v4, &mut [0; 16])),
            IpAddr::V6(v6) => self.text(&v6.to_string()),
        }
    }
}

impl Text for Short {
    #[inline]
    fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        let end = self.length.saturating_add(bytes.len());
        if let Some(place) = self.bytes.get_mut(self.length..end) {
            place.copy_from_slice(bytes);
            self.length = end;
        } else {
            self.length = usize::MAX;
        }
        self
    }
}

impl Text for BytesMut {
    #[inline]
    fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.extend_from_slice(bytes);
        self
    }
}

impl Text for Vec<u8> {
    fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.extend_from_slice(bytes);
        self
    }
}

/// `number` in decimal.
fn decimal(number: u64, digits: &mut [u8; 20]) -> &[u8] {
    let (mut first, mut rest) = (digits.len(), number);
    // Two at a time: a division takes longer than all else here.
    for pair in digits.as_chunks_mut::<2>().0.iter_mut().rev() {
        let last = (rest % 100) as u8;
        *pair = [b'0' + last / 10, b'0' + last % 10];
        (first, rest) = (first - 2, rest / 100);
        if rest == 0 {
            first += usize::from(last < 10);
            break;
        }
    }
    digits.get(first..).unwrap_or_default()
}

/// `address` as it is written, byte by byte: there are few.
fn dotted(address: Ipv4Addr, text: &mut [u8; 16]) -> &[u8] {
    let mut length = 0;
    let mut put = |byte| {
        if let Some(place) = text.get_mut(length) {
            *place = byte;
            length += 1;
        }
    };
    for octet in address.octets() {
        if octet >= 100 {
            put(b'0' + octet / 100);
        }
        if octet >= 10 {
            put(b'0' + octet / 10 % 10);
        }
        put(b'0' + octet % 10);
        put(b'.');
    }
    // But for the last dot.
    text.get(..length - 1).unwrap_or_default()
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
            let mut bytes = BytesMut::new();
            prop_assert_eq!(bytes.text("t=").number(number).to_vec(), format!("t={number}").into_bytes());
        }
    }
}
