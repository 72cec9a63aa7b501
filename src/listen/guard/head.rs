//! What a request's head says about its framing.

use super::Breach;
use super::line::Text;

/// The framing facts of one head, gathered line by line.
#[derive(Debug, Default)]
pub(super) struct Head {
    /// HTTP/1.0: no Host needed, no transfer coding possible.
    old: bool,
    host: bool,
    coded: bool,
    length: Option<u64>,
}

/// What follows a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Body {
    /// The next request.
    None,
    /// So many bytes; not zero.
    Length(u64),
    /// Chunks.
    Chunked,
}

/// The fields that frame or address a request.
enum Framing {
    Host,
    Length,
    Coding,
}

impl Head {
    /// Takes the version from the request line. Any other than 1.0 and 1.1 is left to hyper, which refuses it.
    pub(super) fn request_line(&mut self, text: &Text<'_>) {
        self.old = text.ends_with(b"HTTP/1.0");
    }

    /// Takes a field line.
    pub(super) fn field(&mut self, text: &Text<'_>) -> Result<(), Breach> {
        let Some((field, value)) = framing(text)? else {
            return Ok(());
        };
        match field {
            Framing::Host if self.host => return Err(Breach::HostRepeated),
            Framing::Host => self.host = true,
            Framing::Length if self.coded => return Err(Breach::LengthWithCoding),
            Framing::Length if self.length.is_some() => return Err(Breach::LengthRepeated),
            Framing::Length => {
                self.length = Some(value.and_then(decimal).ok_or(Breach::LengthInvalid)?)
            }
            Framing::Coding if self.coded => return Err(Breach::CodingRepeated),
            Framing::Coding if self.length.is_some() => return Err(Breach::LengthWithCoding),
            Framing::Coding
                if self.old
                    || !value.is_some_and(|value| value.eq_ignore_ascii_case(b"chunked")) =>
            {
                return Err(Breach::CodingUnsupported);
            }
            Framing::Coding => self.coded = true,
        }
        Ok(())
    }

    /// The head has ended.
    pub(super) fn end(&self) -> Result<Body, Breach> {
        if !self.host && !self.old {
            return Err(Breach::HostMissing);
        }
        Ok(match self.length {
            _ if self.coded => Body::Chunked,
            None | Some(0) => Body::None,
            Some(length) => Body::Length(length),
        })
    }
}

/// Judges a line of a trailer section.
pub(super) fn trailer(text: &Text<'_>) -> Result<(), Breach> {
    match framing(text)? {
        Some(_) => Err(Breach::TrailerForbidden),
        None => Ok(()),
    }
}

/// The field and its value, if it is one of those that count; the value is `None` if it is too long to be sound. The
/// first letter settles nearly every line.
fn framing<'t>(text: &'t Text<'_>) -> Result<Option<(Framing, Option<&'t [u8]>)>, Breach> {
    let line = text.begin();
    match line.first() {
        Some(b' ' | b'\t') => return Err(Breach::Folded),
        Some(b'h' | b'H' | b'c' | b'C' | b't' | b'T') => {}
        _ => return Ok(None),
    }
    let Some(colon) = memchr::memchr(b':', line) else {
        return Ok(None);
    };
    let (name, value) = line.split_at(colon);
    let trimmed = name.trim_ascii_end();
    let field = match trimmed.len() {
        4 if trimmed.eq_ignore_ascii_case(b"host") => Framing::Host,
        14 if trimmed.eq_ignore_ascii_case(b"content-length") => Framing::Length,
        17 if trimmed.eq_ignore_ascii_case(b"transfer-encoding") => Framing::Coding,
        _ => return Ok(None),
    };
    if trimmed.len() < name.len() {
        return Err(Breach::SpaceBeforeColon);
    }
    let value = value.strip_prefix(b":").filter(|_| !text.is_cut());
    Ok(Some((field, value.map(trim))))
}

/// Without optional whitespace: spaces and tabs (RFC 9110 section 5.6.3).
fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// 1*DIGIT, as far as it can be counted.
fn decimal(value: &[u8]) -> Option<u64> {
    if value.is_empty() {
        return None;
    }
    value.iter().try_fold(0_u64, |number, byte| {
        let digit = byte.checked_sub(b'0').filter(|digit| *digit < 10)?;
        number.checked_mul(10)?.checked_add(digit.into())
    })
}
