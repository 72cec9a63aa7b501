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

/// The fields that address or frame a request, with their value.
enum Field<'t> {
    Host,
    Length(&'t [u8]),
    Coding(&'t [u8]),
}

impl Head {
    /// Takes the version from the request line. Any other than 1.0 and 1.1 is left to hyper, which refuses it.
    pub(super) fn request_line(&mut self, text: &Text<'_>) {
        self.old = text.ends_with(b"HTTP/1.0");
    }

    /// Takes a field line.
    pub(super) fn field(&mut self, text: &Text<'_>) -> Result<(), Breach> {
        let Some(field) = framing(text)? else {
            return Ok(());
        };
        match field {
            Field::Host if self.host => return Err(Breach::HostRepeated),
            Field::Host => self.host = true,
            Field::Length(_) if self.coded => return Err(Breach::LengthWithCoding),
            Field::Length(_) if self.length.is_some() => return Err(Breach::LengthRepeated),
            Field::Length(value) => self.length = Some(decimal(value).ok_or(Breach::LengthInvalid)?),
            Field::Coding(_) if self.coded => return Err(Breach::CodingRepeated),
            Field::Coding(_) if self.length.is_some() => return Err(Breach::LengthWithCoding),
            Field::Coding(value) if self.old || !value.eq_ignore_ascii_case(b"chunked") => {
                return Err(Breach::CodingUnsupported);
            }
            Field::Coding(_) => self.coded = true,
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

/// The field, if the line is one of those that count. The first letter settles nearly every line.
fn framing<'t>(text: &'t Text<'_>) -> Result<Option<Field<'t>>, Breach> {
    let line = text.begin();
    match line.first() {
        Some(b' ' | b'\t') => return Err(Breach::Folded),
        Some(b'h' | b'H' | b'c' | b'C' | b't' | b'T') => {}
        _ => return Ok(None),
    }
    let Some((name, rest)) = memchr::memchr(b':', line).map(|colon| line.split_at(colon)) else {
        return Ok(None);
    };
    // Of a line that is too long to be sound the value is taken for empty, which no field may have.
    let value = if text.is_cut() { b"" } else { trim(rest.strip_prefix(b":").unwrap_or_default()) };
    let trimmed = name.trim_ascii_end();
    let field = match trimmed.len() {
        4 if trimmed.eq_ignore_ascii_case(b"host") => Field::Host,
        14 if trimmed.eq_ignore_ascii_case(b"content-length") => Field::Length(value),
        17 if trimmed.eq_ignore_ascii_case(b"transfer-encoding") => Field::Coding(value),
        _ => return Ok(None),
    };
    if trimmed.len() < name.len() {
        return Err(Breach::SpaceBeforeColon);
    }
    Ok(Some(field))
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
