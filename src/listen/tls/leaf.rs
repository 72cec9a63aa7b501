//! What a certificate says of itself (RFC 5280): until when it is valid, and for which hosts. As little of DER as that
//! takes; whether the certificate is any good is for the TLS library to say.

use std::time::SystemTime;

use crate::message::date;

/// The certificate of a site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Leaf {
    /// When it ends.
    pub(super) not_after: SystemTime,
    /// Its host names in lower case, wildcards included.
    pub(super) names: Vec<String>,
}

/// Reads a certificate; `None` if it is none that could be understood.
pub(super) fn read(der: &[u8]) -> Option<Leaf> {
    let mut certificate = Der(Der(der).take(SEQUENCE)?);
    let mut signed = Der(certificate.take(SEQUENCE)?);
    let mut next = signed.next()?;
    if next.0 == VERSION {
        next = signed.next()?;
    }
    let (_serial, _algorithm, _issuer) = (next, signed.take(SEQUENCE)?, signed.take(SEQUENCE)?);
    let mut validity = Der(signed.take(SEQUENCE)?);
    let (_not_before, not_after) = (validity.next()?, time(validity.next()?)?);
    let (_subject, _key) = (signed.take(SEQUENCE)?, signed.take(SEQUENCE)?);
    let mut names = Vec::new();
    while let Some((tag, content)) = signed.next() {
        if tag == EXTENSIONS {
            alternative_names(Der(Der(content).take(SEQUENCE)?), &mut names);
        }
    }
    Some(Leaf { not_after, names })
}

/// The DNS names among the subject's alternative names (section 4.2.1.6).
fn alternative_names(mut extensions: Der<'_>, names: &mut Vec<String>) {
    while let Some(extension) = extensions.take(SEQUENCE) {
        let mut extension = Der(extension);
        if extension.take(OBJECT_IDENTIFIER) != Some(SUBJECT_ALT_NAME) {
            continue;
        }
        // Before it perhaps whether it is critical.
        while let Some((tag, content)) = extension.next() {
            let Some(mut general) =
                Some(content).filter(|_| tag == OCTET_STRING).and_then(|c| Der(c).take(SEQUENCE).map(Der))
            else {
                continue;
            };
            while let Some((tag, name)) = general.next() {
                if tag == DNS_NAME
                    && let Ok(name) = std::str::from_utf8(name)
                {
                    names.push(name.to_ascii_lowercase());
                }
            }
        }
    }
}

/// UTCTime or GeneralizedTime, in seconds and in GMT, as section 4.1.2.5 asks for.
fn time((tag, content): (u8, &[u8])) -> Option<SystemTime> {
    let text = std::str::from_utf8(content).ok()?.strip_suffix('Z')?;
    let (year, rest) = text.split_at_checked(if tag == UTC_TIME { 2 } else { 4 })?;
    let year: u64 = year.parse().ok()?;
    let century = match tag {
        GENERALIZED_TIME => 0,
        UTC_TIME if year < 50 => 2000,
        UTC_TIME => 1900,
        _ => return None,
    };
    let piece = |from: usize| rest.get(from..from + 2);
    let time = format!("{}:{}:{}", piece(4)?, piece(6)?, rest.get(8..)?);
    date::instant(century + year, piece(0)?.parse().ok()?, piece(2)?.parse().ok()?, &time)
}

/// Elements one after the other.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    /// The next element's tag and content.
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let [tag, length, rest @ ..] = self.0 else { return None };
        let (length, rest) = match *length {
            short @ 0..0x80 => (usize::from(short), rest),
            long => {
                let (digits, rest) = rest.split_at_checked(usize::from(long & 0x7f))?;
                let number = |sum: usize, digit: &u8| sum.checked_mul(256)?.checked_add(usize::from(*digit));
                (digits.iter().try_fold(0, number)?, rest)
            }
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((*tag, content))
    }

    /// The content of the next element, if it is a `tag`.
    fn take(&mut self, tag: u8) -> Option<&'a [u8]> {
        self.next().filter(|(found, _)| *found == tag).map(|(_, content)| content)
    }
}

const OCTET_STRING: u8 = 0x04;
const OBJECT_IDENTIFIER: u8 = 0x06;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const DNS_NAME: u8 = 0x82;
const VERSION: u8 = 0xa0;
const EXTENSIONS: u8 = 0xa3;
/// 2.5.29.17.
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    fn certificate(names: &[&str], year: i32) -> Vec<u8> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.not_after = date_time_ymd(year, 2, 28);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    fn check(names: &[&str], year: i32, expected: &[&str]) {
        let leaf = read(&certificate(names, year)).unwrap();
        assert_eq!(leaf.names, expected);
        let date = httpdate::fmt_http_date(leaf.not_after);
        assert!(date.contains(&format!("28 Feb {year} 00:00:00")), "{date}");
    }

    #[test]
    fn names_and_end_are_read() {
        check(&["ERP.example", "*.shop.example", "127.0.0.1"], 2031, &["erp.example", "*.shop.example"]);
        check(&[], 2049, &[]);
        // From 2050 on in another notation.
        check(&["a"], 2050, &["a"]);
        check(&["a"], 9999, &["a"]);
    }

    proptest! {
        #[test]
        fn nothing_read_from_a_file_panics(place in any::<prop::sample::Index>(), byte: u8, length in any::<prop::sample::Index>()) {
            let mut der = certificate(&["a.example"], 2030);
            let place = place.index(der.len());
            der[place] = byte;
            der.truncate(length.index(der.len() + 1));
            let _ = read(&der);
        }
    }
}
