//! One line of a head or a trailer section, also when it comes in pieces.

use super::{Breach, Found};

/// The line that is being read. As long as lines come whole it only remembers where the text ends; of a line in
/// pieces it keeps the beginning, the last bytes and the length, which is all that is judged.
#[derive(Debug)]
pub(super) struct Line {
    begin: [u8; LONGEST],
    tail: [u8; TAIL],
    /// Bytes of earlier pieces.
    carried: usize,
    /// Bytes of the present piece, up to CRLF.
    present: usize,
    /// The last piece ended with CR.
    cr: bool,
}

/// How far a piece took the line; the bytes it took.
#[derive(Debug, Clone, Copy)]
pub(super) enum Read {
    /// To its end.
    Line(usize),
    /// Not to its end.
    Part(usize),
}

/// A whole line without its CRLF.
#[derive(Debug)]
pub(super) struct Text<'a> {
    /// At most the first [`LONGEST`] bytes.
    begin: &'a [u8],
    /// The last [`TAIL`] bytes; of a shorter line NULs stand before it.
    tail: &'a [u8],
    length: usize,
}

impl Line {
    /// Reads on in `piece`, which is not empty.
    pub(super) fn read(&mut self, piece: &[u8]) -> Result<Read, Found> {
        if self.cr {
            self.present = 0;
            return if piece.first() == Some(&b'\n') { Ok(Read::Line(1)) } else { Err((0, Breach::BareCr)) };
        }
        // One pass for all three: in a sound line CR comes first.
        let Some(at) = memchr::memchr3(b'\r', b'\n', 0, piece) else {
            self.carry(piece);
            return Ok(Read::Part(piece.len()));
        };
        match (piece.get(at), piece.get(at + 1)) {
            (Some(b'\r'), Some(b'\n')) => {
                self.present = at;
                Ok(Read::Line(at + 2))
            }
            (Some(b'\r'), None) => {
                self.carry(piece.get(..at).unwrap_or_default());
                self.cr = true;
                Ok(Read::Part(piece.len()))
            }
            (Some(b'\r'), _) => Err((at, Breach::BareCr)),
            (Some(b'\n'), _) => Err((at, Breach::BareLf)),
            _ => Err((at, Breach::Nul)),
        }
    }

    /// Whether the last piece ended with CR.
    pub(super) fn at_cr(&self) -> bool {
        self.cr
    }

    /// The line that [`Line::read`] has just read to its end; `piece` as it was given there.
    pub(super) fn text<'a>(&'a mut self, piece: &'a [u8]) -> Text<'a> {
        let present = piece.get(..self.present).unwrap_or_default();
        if self.carried == 0 {
            let begin = present.get(..LONGEST).unwrap_or(present);
            let tail = present.last_chunk::<TAIL>().map_or(present, |tail| tail);
            return Text { begin, tail, length: present.len() };
        }
        self.carry(present);
        let begin = self.begin.get(..self.carried).unwrap_or(&self.begin);
        Text { begin, tail: &self.tail, length: self.carried }
    }

    /// Makes room for the next line.
    pub(super) fn clear(&mut self) {
        self.carried = 0;
        self.cr = false;
    }

    fn carry(&mut self, piece: &[u8]) {
        if let Some(room) = self.begin.get_mut(self.carried..) {
            for (to, from) in room.iter_mut().zip(piece) {
                *to = *from;
            }
        }
        if self.carried == 0 {
            self.tail = [0; TAIL];
        }
        let shift = piece.len().min(TAIL);
        self.tail.rotate_left(shift);
        let last = piece.iter().rev();
        for (to, from) in self.tail.iter_mut().rev().zip(last) {
            *to = *from;
        }
        self.carried += piece.len();
    }
}

impl Default for Line {
    fn default() -> Self {
        Self { begin: [0; LONGEST], tail: [0; TAIL], carried: 0, present: 0, cr: false }
    }
}

impl Text<'_> {
    /// Whether it is the empty line that ends a section.
    pub(super) fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Its first bytes, at most [`LONGEST`] of them.
    pub(super) fn begin(&self) -> &[u8] {
        self.begin
    }

    /// Whether there is more of it than [`Text::begin`] gives.
    pub(super) fn is_cut(&self) -> bool {
        self.length > LONGEST
    }

    /// Whether it ends with `end`, which is [`TAIL`] bytes long.
    pub(super) fn ends_with(&self, end: &[u8; TAIL]) -> bool {
        self.tail == end
    }
}

/// No framing field needs more; one that has it, padded with spaces or zeros, is refused.
const LONGEST: usize = 128;
/// As long as `HTTP/1.1`.
const TAIL: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_in_pieces_is_the_line() {
        let long = [b"x".repeat(LONGEST), b"HTTP/1.0".to_vec()].concat();
        for text in [&b""[..], b"a", b"abcdefg HTTP/1.0", &long] {
            let whole = [text, b"\r\n"].concat();
            for step in 1..=whole.len() {
                let mut line = Line::default();
                let pieces: Vec<&[u8]> = whole.chunks(step).collect();
                let (last, earlier) = pieces.split_last().unwrap();
                for piece in earlier {
                    assert!(matches!(line.read(piece), Ok(Read::Part(used)) if used == piece.len()));
                }
                assert!(matches!(line.read(last), Ok(Read::Line(used)) if used == last.len()));
                let read = line.text(last);
                assert_eq!(read.begin(), &text[..text.len().min(LONGEST)]);
                assert_eq!(read.is_cut(), text.len() > LONGEST);
                assert_eq!(read.ends_with(b"HTTP/1.0"), text.ends_with(b"HTTP/1.0"), "{step}");
            }
        }
    }
}
