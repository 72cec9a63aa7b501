//! A chunked body up to its last chunk (RFC 9112 section 7.1); the trailers after it are lines again.

use super::{Breach, Found};

/// Where in a chunked body the reader stands.
#[derive(Debug, Default)]
pub(super) struct Chunks {
    step: Step,
    /// The size being read, then the bytes left of the chunk.
    left: u64,
    digits: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Step {
    #[default]
    Size,
    /// Whitespace after the size, which only an extension may follow.
    Padding,
    Extension,
    /// After the CR of the size line.
    SizeEnd,
    Data,
    /// After the data: CR, then LF.
    DataCr,
    DataLf,
}

impl Chunks {
    /// Reads on; how many bytes it took, and whether the last chunk's size line ended there.
    pub(super) fn follow(&mut self, bytes: &[u8]) -> Result<(usize, bool), Found> {
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            if self.step == Step::Data {
                let room = bytes.len() - at;
                let used = usize::try_from(self.left).map_or(room, |left| left.min(room));
                self.left -= used as u64;
                at += used;
                if self.left == 0 {
                    self.step = Step::DataCr;
                }
                continue;
            }
            self.step = self.next(byte).map_err(|breach| (at, breach))?;
            at += 1;
            if self.step == Step::Data && self.left == 0 {
                *self = Self::default();
                return Ok((at, true));
            }
        }
        Ok((at, false))
    }

    /// Whether it stands in a chunk extension.
    pub(super) fn in_extension(&self) -> bool {
        self.step == Step::Extension
    }

    /// The step after `byte`, which is no data.
    fn next(&mut self, byte: u8) -> Result<Step, Breach> {
        match (self.step, byte) {
            (Step::Size, digit) if digit.is_ascii_hexdigit() => self.digit(digit),
            (Step::Size, b'\r') if self.digits > 0 => Ok(Step::SizeEnd),
            (Step::Size, b' ' | b'\t') if self.digits > 0 => Ok(Step::Padding),
            (Step::Size, b';') if self.digits > 0 => Ok(Step::Extension),
            (Step::Padding, b' ' | b'\t') => Ok(Step::Padding),
            (Step::Padding, b';') => Ok(Step::Extension),
            (Step::Extension, b'\r') => Ok(Step::SizeEnd),
            (Step::Extension, b'\t') => Ok(Step::Extension),
            (Step::Extension, other) if other != b'\n' && !other.is_ascii_control() => Ok(Step::Extension),
            (Step::SizeEnd, b'\n') => {
                self.digits = 0;
                Ok(Step::Data)
            }
            (Step::DataCr, b'\r') => Ok(Step::DataLf),
            (Step::DataLf, b'\n') => Ok(Step::Size),
            (Step::Size | Step::Padding | Step::Extension, b'\n') => Err(Breach::BareLf),
            (Step::Size | Step::Padding, _) => Err(Breach::ChunkSize),
            (Step::Extension, _) => Err(Breach::ChunkExtension),
            (Step::SizeEnd, _) => Err(Breach::BareCr),
            (Step::DataCr | Step::DataLf | Step::Data, _) => Err(Breach::ChunkEnd),
        }
    }

    fn digit(&mut self, digit: u8) -> Result<Step, Breach> {
        let value = char::from(digit).to_digit(16).ok_or(Breach::ChunkSize)?;
        // A bound on the digits bounds leading zeros as well.
        self.digits += 1;
        if self.digits > 16 {
            return Err(Breach::ChunkOverflow);
        }
        self.left = self.left << 4 | u64::from(value);
        Ok(Step::Size)
    }
}
