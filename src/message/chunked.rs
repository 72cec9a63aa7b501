//! The chunked transfer coding (RFC 9112 section 7.1), read and written.
//!
//! What two readers could take for different bodies is an error, and how the bytes were cut into pieces changes no
//! verdict. What there is to count is bounded: digits of a size, bytes of extensions, bytes and fields of the trailers.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};

/// Reads a chunked body from a buffer that its connection fills.
#[derive(Debug)]
pub struct Decoder {
    at: At,
    /// The size being read, then the bytes left of the chunk.
    left: u64,
    digits: u8,
    /// Bytes in size lines that are neither size nor line end, of all chunks: who sends much of it sends no body.
    extra: u16,
    /// Blanks after the present size.
    padding: u8,
    may_pad: bool,
    /// Only of a body that has them.
    trailers: Option<Box<Trailers>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Size,
    /// Whitespace after the size.
    Padding,
    Extension,
    /// After the CR of the size line.
    SizeEnd,
    Data,
    /// After the data: CR, then LF.
    DataCr,
    DataLf,
    /// At the beginning of a line after the last chunk.
    Line,
    /// Within a trailer field.
    Field,
    /// After the CR of the empty line.
    EndLf,
    End,
    Broken(ChunkError),
}

#[derive(Debug, Default)]
struct Trailers {
    fields: HeaderMap,
    line: Vec<u8>,
    /// The line's CR has come.
    cr: bool,
    bytes: usize,
    lines: usize,
}

/// What came next.
#[derive(Debug)]
pub enum Step {
    /// Data: a chunk, or as much of it as is there. Never empty.
    Data(Bytes),
    /// The end, with the trailer fields if there were any. Then what is left in the buffer belongs to the next message.
    End(Option<Box<HeaderMap>>),
    /// Nothing: more bytes are needed. The buffer is empty.
    More,
}

/// What a chunked body breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    /// A size line or trailer that ends with LF alone (RFC 9112 section 2.2).
    #[error("a line that ends with LF alone")]
    BareLf,
    /// A CR in a size line or trailer that no LF follows (RFC 9112 section 2.2).
    #[error("a CR that no LF follows")]
    BareCr,
    /// A size that is not one plain hexadecimal number (RFC 9112 section 7.1).
    #[error("a chunk size that is no number")]
    Size,
    /// A size beyond what can be counted (RFC 9112 section 7.1).
    #[error("a chunk size that is too large")]
    Overflow,
    /// A control character in a chunk extension (RFC 9112 section 7.1.1).
    #[error("a control character in a chunk extension")]
    Extension,
    /// More extensions than anyone has a use for.
    #[error("too many chunk extensions")]
    ExtensionsTooLong,
    /// A chunk that is longer or shorter than its size (RFC 9112 section 7.1).
    #[error("a chunk that does not end where its size says")]
    ChunkEnd,
    /// A NUL in a trailer (RFC 9110 section 5.5).
    #[error("a NUL in a trailer")]
    Nul,
    /// A trailer line that continues the one before it (obs-fold, RFC 9112 section 5.2).
    #[error("a folded trailer")]
    Folded,
    /// Whitespace between a framing field's name and its colon (RFC 9112 section 5.1).
    #[error("whitespace before a colon")]
    SpaceBeforeColon,
    /// Content-Length, Transfer-Encoding or Host among the trailers (RFC 9110 section 6.5.1).
    #[error("a trailer that would frame or address the message")]
    TrailerForbidden,
    /// A trailer that is no field line (RFC 9110 section 5.1, 5.5).
    #[error("a trailer that is no field")]
    TrailerInvalid,
    /// More trailer fields, or more bytes of them, than are taken.
    #[error("too many trailers")]
    TrailersTooLong,
}

impl Decoder {
    /// For the body of a request: nothing is forgiven.
    pub fn strict() -> Self {
        Self { at: At::Size, left: 0, digits: 0, extra: 0, padding: 0, may_pad: false, trailers: None }
    }

    /// For the body of an answer: old servers write sizes of a fixed width, with spaces up to the line end.
    pub fn lenient() -> Self {
        Self { may_pad: true, ..Self::strict() }
    }

    /// Reads on in `buf` and takes from it what it has read. Data is split off, not copied.
    ///
    /// # Errors
    /// When the body breaks the coding; then for every later call too.
    pub fn decode(&mut self, buf: &mut BytesMut) -> Result<Step, ChunkError> {
        self.follow(buf);
        match self.at {
            At::Data if !buf.is_empty() => {
                let used = usize::try_from(self.left).map_or(buf.len(), |left| left.min(buf.len()));
                self.left -= used as u64;
                let data = buf.split_to(used).freeze();
                if self.left == 0 {
                    self.at = At::DataCr;
                    // To know with the last data that it is the last.
                    self.follow(buf);
                }
                Ok(Step::Data(data))
            }
            At::End => Ok(Step::End(self.trailers.take().map(|trailers| Box::new(trailers.fields)))),
            At::Broken(error) => Err(error),
            _ => Ok(Step::More),
        }
    }

    /// Whether all has been given out: the end is read and there are no trailers.
    pub fn is_ended(&self) -> bool {
        self.at == At::End && self.trailers.is_none()
    }

    /// Takes what is no data, up to data, the end or a breach.
    fn follow(&mut self, buf: &mut BytesMut) {
        let mut rest = &**buf;
        while !matches!(self.at, At::Data | At::End | At::Broken(_)) {
            let next = match self.at {
                At::Field => self.field(&mut rest),
                _ => rest.split_off_first().map(|byte| self.next(*byte)),
            };
            match next {
                Some(next) => self.at = next.unwrap_or_else(At::Broken),
                None => break,
            }
        }
        let used = buf.len() - rest.len();
        buf.advance(used);
    }

    /// Where it stands after `byte`, which is neither data nor within a trailer.
    fn next(&mut self, byte: u8) -> Result<At, ChunkError> {
        match (self.at, byte) {
            (At::Size, digit) if digit.is_ascii_hexdigit() => self.digit(digit),
            (At::Size, b'\r') if self.digits > 0 => Ok(At::SizeEnd),
            (At::Size, b' ' | b'\t') if self.digits > 0 => self.padding(),
            (At::Size, b';') if self.digits > 0 => self.extra(At::Extension),
            (At::Padding, b' ' | b'\t') => self.padding(),
            (At::Padding, b';') => self.extra(At::Extension),
            (At::Padding, b'\r') if self.may_pad => Ok(At::SizeEnd),
            (At::Extension, b'\r') => Ok(At::SizeEnd),
            (At::Extension, other) if other == b'\t' || !other.is_ascii_control() => self.extra(At::Extension),
            (At::SizeEnd, b'\n') => {
                (self.digits, self.padding) = (0, 0);
                Ok(if self.left == 0 { At::Line } else { At::Data })
            }
            (At::DataCr, b'\r') => Ok(At::DataLf),
            (At::DataLf, b'\n') => Ok(At::Size),
            (At::Line, b'\r') => Ok(At::EndLf),
            (At::Line, first) => self.begin_field(first),
            (At::EndLf, b'\n') => Ok(At::End),
            (At::Size | At::Padding | At::Extension, b'\n') => Err(ChunkError::BareLf),
            (At::Size | At::Padding, _) => Err(ChunkError::Size),
            (At::Extension, _) => Err(ChunkError::Extension),
            (At::SizeEnd | At::EndLf, _) => Err(ChunkError::BareCr),
            (At::DataCr | At::DataLf, _) => Err(ChunkError::ChunkEnd),
            (at @ (At::Data | At::Field | At::End | At::Broken(_)), _) => Ok(at),
        }
    }

    fn digit(&mut self, digit: u8) -> Result<At, ChunkError> {
        let value = char::from(digit).to_digit(16).ok_or(ChunkError::Size)?;
        if self.may_pad && value == 0 && self.left == 0 && self.digits > 0 {
            return self.padding().map(|_| At::Size);
        }
        // A bound on the digits bounds leading zeros as well.
        self.digits += 1;
        if self.digits > 16 {
            return Err(ChunkError::Overflow);
        }
        self.left = self.left << 4 | u64::from(value);
        Ok(At::Size)
    }

    /// Old servers write each size into a place of the same width: that is bounded for each chunk, not for all.
    fn padding(&mut self) -> Result<At, ChunkError> {
        self.padding += 1;
        if self.padding > MOST_PADDING { Err(ChunkError::ExtensionsTooLong) } else { Ok(At::Padding) }
    }

    fn extra(&mut self, next: At) -> Result<At, ChunkError> {
        self.extra += 1;
        if self.extra > MOST_EXTRA { Err(ChunkError::ExtensionsTooLong) } else { Ok(next) }
    }

    fn begin_field(&mut self, first: u8) -> Result<At, ChunkError> {
        let trailers = self.trailers.get_or_insert_default();
        trailers.push(&mut &[first][..]).map_or(Ok(At::Field), |ended| ended.map(|()| At::Line))
    }

    /// Reads on within a trailer field; `None` when `rest` is used up.
    fn field(&mut self, rest: &mut &[u8]) -> Option<Result<At, ChunkError>> {
        let trailers = self.trailers.get_or_insert_default();
        trailers.push(rest).map(|ended| ended.map(|()| At::Line))
    }
}

impl Trailers {
    /// Takes bytes up to the end of a line, which may not have come yet: `None`.
    fn push(&mut self, rest: &mut &[u8]) -> Option<Result<(), ChunkError>> {
        if !self.cr {
            let special = memchr::memchr3(b'\r', b'\n', 0, rest);
            let text = rest.split_off(..special.unwrap_or(rest.len())).unwrap_or_default();
            self.bytes += text.len();
            if self.bytes > MOST_TRAILER_BYTES {
                return Some(Err(ChunkError::TrailersTooLong));
            }
            self.line.extend_from_slice(text);
            match rest.split_off_first()? {
                b'\r' => self.cr = true,
                b'\n' => return Some(Err(ChunkError::BareLf)),
                _ => return Some(Err(ChunkError::Nul)),
            }
        }
        if *rest.split_off_first()? != b'\n' {
            return Some(Err(ChunkError::BareCr));
        }
        self.cr = false;
        self.lines += 1;
        let taken = if self.lines > MOST_TRAILERS { Err(ChunkError::TrailersTooLong) } else { self.take_line() };
        self.line.clear();
        Some(taken)
    }

    fn take_line(&mut self) -> Result<(), ChunkError> {
        if matches!(self.line.first(), Some(b' ' | b'\t')) {
            return Err(ChunkError::Folded);
        }
        let colon = memchr::memchr(b':', &self.line).ok_or(ChunkError::TrailerInvalid)?;
        let (name, value) = self.line.split_at(colon);
        let trimmed = name.trim_ascii_end();
        if frames(trimmed) {
            let is_padded = trimmed.len() < name.len();
            return Err(if is_padded { ChunkError::SpaceBeforeColon } else { ChunkError::TrailerForbidden });
        }
        let name = HeaderName::from_bytes(name).map_err(|_| ChunkError::TrailerInvalid)?;
        let mut value = value.strip_prefix(b":").unwrap_or_default();
        // Optional whitespace is spaces and tabs (RFC 9110 section 5.6.3).
        while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
            value = rest;
        }
        let value = HeaderValue::from_bytes(value).map_err(|_| ChunkError::TrailerInvalid)?;
        self.fields.append(name, value);
        Ok(())
    }
}

/// Whether a field of this name would change where the message ends or whom it is for.
fn frames(name: &[u8]) -> bool {
    [header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::HOST]
        .iter()
        .any(|field| name.eq_ignore_ascii_case(field.as_str().as_bytes()))
}

/// Writes what stands before the `length` bytes of a chunk, which are not 0; [`CHUNK_END`] comes after them.
pub fn write_size(buf: &mut impl BufMut, length: usize) {
    let digits = (usize::BITS - length.leading_zeros()).div_ceil(4);
    for place in (0..digits).rev() {
        let digit = (length >> (4 * place) & 0xF) as u8;
        buf.put_u8(if digit < 10 { b'0' + digit } else { b'a' - 10 + digit });
    }
    buf.put_slice(b"\r\n");
}

/// What stands after the bytes of a chunk.
pub const CHUNK_END: &[u8] = b"\r\n";

/// The end of a body without trailers, right after the bytes of its last chunk.
pub const LAST_AFTER_CHUNK: &[u8] = b"\r\n0\r\n\r\n";

/// The end of a body without trailers.
pub const LAST: &[u8] = b"0\r\n\r\n";

/// The trailer fields that a head has announced: only they are sent.
#[derive(Debug)]
pub struct Announced(Box<[HeaderName]>);

impl Announced {
    /// Those that a message with `head` may send (RFC 9110 section 6.6.2); `None` if it announces none.
    pub fn of(head: &HeaderMap) -> Option<Self> {
        let mut lines = head.get_all(header::TRAILER).iter().peekable();
        lines.peek()?;
        let names = lines
            .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
            .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
            .filter(|name| !NO_TRAILERS.contains(name));
        Some(Self(names.collect()))
    }

    /// Writes the end of a body, with those of `trailers` that were announced.
    pub fn write_last(&self, buf: &mut impl BufMut, trailers: &HeaderMap) {
        buf.put_slice(b"0\r\n");
        for (name, value) in trailers.iter().filter(|(name, _)| self.0.contains(name)) {
            buf.put_slice(name.as_str().as_bytes());
            buf.put_slice(b": ");
            buf.put_slice(value.as_bytes());
            buf.put_slice(b"\r\n");
        }
        buf.put_slice(b"\r\n");
    }
}

/// Fields that mean nothing after the body, or would change what was read before them (RFC 9110 section 6.5.1).
static NO_TRAILERS: [HeaderName; 12] = [
    header::AUTHORIZATION,
    header::CACHE_CONTROL,
    header::CONTENT_ENCODING,
    header::CONTENT_LENGTH,
    header::CONTENT_RANGE,
    header::CONTENT_TYPE,
    header::HOST,
    header::MAX_FORWARDS,
    header::SET_COOKIE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::TE,
];

/// Most bytes in the size lines of one body that are neither size nor line end.
const MOST_EXTRA: u16 = 16 * 1024;
/// Blanks after one size.
const MOST_PADDING: u8 = 32;
/// Most bytes of trailer lines, without their ends.
const MOST_TRAILER_BYTES: usize = 16 * 1024;
/// Most trailer lines.
const MOST_TRAILERS: usize = 100;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What a decoder makes of a stream: the data, the trailers, what is left; or the breach.
    type Read = Result<(Vec<u8>, Vec<(String, String)>, Vec<u8>), ChunkError>;

    /// Feeds `stream` in pieces; `None` if its end was not reached.
    fn read<'b>(mut decoder: Decoder, pieces: impl IntoIterator<Item = &'b [u8]>) -> Option<Read> {
        let mut buf = BytesMut::new();
        let mut data = Vec::new();
        let mut end: Option<Read> = None;
        for piece in pieces {
            if let Some(Ok((.., left))) = &mut end {
                left.extend(piece);
                continue;
            }
            buf.extend_from_slice(piece);
            end = end.or_else(|| {
                loop {
                    match decoder.decode(&mut buf) {
                        Ok(Step::Data(piece)) => data.extend_from_slice(&piece),
                        Ok(Step::End(trailers)) => {
                            assert!(decoder.is_ended());
                            let text = |(name, value): (&HeaderName, &HeaderValue)| {
                                (name.to_string(), value.to_str().unwrap().to_owned())
                            };
                            let trailers = trailers.iter().flat_map(|fields| fields.iter().map(text)).collect();
                            break Some(Ok((std::mem::take(&mut data), trailers, std::mem::take(&mut buf).to_vec())));
                        }
                        Ok(Step::More) => {
                            assert!(buf.is_empty() && !decoder.is_ended());
                            break None;
                        }
                        Err(error) => {
                            assert_eq!(decoder.decode(&mut buf).unwrap_err(), error, "it remembers");
                            break Some(Err(error));
                        }
                    }
                }
            });
        }
        end
    }

    fn check(stream: &[u8], decoder: fn() -> Decoder, expected: Option<&Read>) {
        for step in [usize::MAX, 1, 2, 3, 7, 100] {
            assert_eq!(
                read(decoder(), stream.chunks(step)).as_ref(),
                expected,
                "{:?} in steps of {step}",
                String::from_utf8_lossy(stream)
            );
        }
        for at in 0..stream.len().min(300) {
            let (one, two) = stream.split_at(at);
            assert_eq!(read(decoder(), [one, two]).as_ref(), expected, "cut at {at}");
        }
    }

    #[test]
    fn sizes_in_a_wide_place_are_read_from_old_servers_however_many_there_are() {
        let stream = "0000000000000000000002     \r\nhi\r\n".repeat(5_000) + "0       \r\n\r\n";
        let whole: Read = Ok(("hi".repeat(5_000).into_bytes(), Vec::new(), Vec::new()));
        assert_eq!(read(Decoder::lenient(), [stream.as_bytes()]), Some(whole));
        for (size, breach) in [("0".repeat(40), ChunkError::ExtensionsTooLong), ("1".repeat(17), ChunkError::Overflow)]
        {
            assert_eq!(read(Decoder::lenient(), [size.as_bytes()]), Some(Err(breach)));
        }
        assert_eq!(read(Decoder::strict(), [&b"00000000000000001\r\n"[..]]), Some(Err(ChunkError::Overflow)));
    }

    #[test]
    fn sound_bodies_are_read_to_their_end_and_not_beyond() {
        for (stream, data, trailers, left) in [
            ("0\r\n\r\n", "", &[][..], ""),
            ("5\r\nhello\r\n0\r\n\r\nGET", "hello", &[], "GET"),
            ("5\r\nhello\r\n00A;name=\"v;\"\r\n\r\n\0\n345678\r\n000\r\n\r\n", "hello\r\n\0\n345678", &[], ""),
            (
                "1 \t;a=b\tc\r\nx\r\n0\r\nChecksum: 1\r\nX:\t y \r\n\r\n\r\n",
                "x",
                &[("checksum", "1"), ("x", "y")],
                "\r\n",
            ),
            ("0;last\r\nEmpty:\r\n\r\n", "", &[("empty", "")], ""),
            ("a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n", "01234567890123456789", &[], ""),
        ] {
            let trailers = trailers.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
            let read: Read = Ok((data.into(), trailers, left.into()));
            check(stream.as_bytes(), Decoder::strict, Some(&read));
            check(stream.as_bytes(), Decoder::lenient, Some(&read));
        }
        for unfinished in ["", "5", "5\r\nhel", "5\r\nhello\r\n", "0\r\n", "0\r\nX: y\r\n", "0\r\n\r"] {
            check(unfinished.as_bytes(), Decoder::strict, None);
        }
    }

    #[test]
    fn a_breach_is_found_however_the_body_is_cut() {
        let long = "x".repeat(MOST_TRAILER_BYTES);
        let extended = format!("1;{}\r\nx\r\n", "e".repeat(MOST_EXTRA.into()));
        for (body, breach) in [
            ("5\nhello\r\n0\r\n\r\n", ChunkError::BareLf),
            ("5;a\nhello\r\n0\r\n\r\n", ChunkError::BareLf),
            ("0\n\r\n", ChunkError::BareLf),
            ("5\rhello\r\n0\r\n\r\n", ChunkError::BareCr),
            ("0\r\r\n", ChunkError::BareCr),
            ("\r\n", ChunkError::Size),
            ("x\r\n", ChunkError::Size),
            ("+5\r\nhello\r\n0\r\n\r\n", ChunkError::Size),
            ("0x5\r\nhello\r\n0\r\n\r\n", ChunkError::Size),
            (" 5\r\nhello\r\n0\r\n\r\n", ChunkError::Size),
            ("5 5\r\nhello\r\n0\r\n\r\n", ChunkError::Size),
            (";a=b\r\n0\r\n\r\n", ChunkError::Size),
            ("10000000000000000\r\nx", ChunkError::Overflow),
            ("10000000000000001\r\nx\r\n0\r\n\r\n", ChunkError::Overflow),
            ("5;a=\0\r\nhello\r\n0\r\n\r\n", ChunkError::Extension),
            ("5;\x0b\r\nhello\r\n0\r\n\r\n", ChunkError::Extension),
            ("5;\x7f\r\nhello\r\n0\r\n\r\n", ChunkError::Extension),
            (&extended, ChunkError::ExtensionsTooLong),
            ("5\r\nhello!\r\n0\r\n\r\n", ChunkError::ChunkEnd),
            ("5\r\nhello\n0\r\n\r\n", ChunkError::ChunkEnd),
            ("5\r\nhello\rx0\r\n\r\n", ChunkError::ChunkEnd),
            ("5\r\nhello0\r\n\r\n", ChunkError::ChunkEnd),
            ("0\r\nX: a\n\r\n", ChunkError::BareLf),
            ("0\r\n\n", ChunkError::BareLf),
            ("0\r\nX: a\rb\r\n\r\n", ChunkError::BareCr),
            ("0\r\nX: a\0\r\n\r\n", ChunkError::Nul),
            ("0\r\n\0\r\n\r\n", ChunkError::Nul),
            ("0\r\nX: a\r\n folded\r\n\r\n", ChunkError::Folded),
            ("0\r\n\tfolded\r\n\r\n", ChunkError::Folded),
            ("0\r\nHost : a\r\n\r\n", ChunkError::SpaceBeforeColon),
            ("0\r\nContent-Length: 5\r\n\r\n", ChunkError::TrailerForbidden),
            ("0\r\nX: y\r\ntransfer-encoding: chunked\r\n\r\n", ChunkError::TrailerForbidden),
            ("0\r\nX\r\n\r\n", ChunkError::TrailerInvalid),
            ("0\r\n: a\r\n\r\n", ChunkError::TrailerInvalid),
            ("0\r\nX : a\r\n\r\n", ChunkError::TrailerInvalid),
            ("0\r\nX: a\x0bb\r\n\r\n", ChunkError::TrailerInvalid),
            ("0\r\nX: a\x0c\r\n\r\n", ChunkError::TrailerInvalid),
            (&format!("0\r\nX: {long}\r\n\r\n"), ChunkError::TrailersTooLong),
            (&format!("0\r\n{}\r\n", "X: y\r\n".repeat(MOST_TRAILERS + 1)), ChunkError::TrailersTooLong),
        ] {
            check(body.as_bytes(), Decoder::strict, Some(&Err(breach)));
            check(body.as_bytes(), Decoder::lenient, Some(&Err(breach)));
        }
    }

    #[test]
    fn only_an_answer_may_pad_its_sizes() {
        let stream = b"5  \r\nhello\r\n0\t\r\n\r\n";
        check(stream, Decoder::strict, Some(&Err(ChunkError::Size)));
        check(stream, Decoder::lenient, Some(&Ok((b"hello".to_vec(), Vec::new(), Vec::new()))));
    }

    #[test]
    fn the_last_data_is_known_for_the_last_if_the_end_has_come_with_it() {
        for (stream, is_last) in
            [("1\r\nx\r\n0\r\n\r\n", true), ("1\r\nx\r\n0\r\n\r", false), ("1\r\nx\r\n0\r\nX: y\r\n\r\n", false)]
        {
            let mut decoder = Decoder::strict();
            let mut buf = BytesMut::from(stream);
            assert!(matches!(decoder.decode(&mut buf), Ok(Step::Data(data)) if data == "x"));
            assert_eq!(decoder.is_ended(), is_last, "{stream:?}");
        }
    }

    #[test]
    fn only_announced_trailers_are_written() {
        let fields = |fields: &[(&'static str, &'static str)]| -> HeaderMap {
            let field = |&(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value));
            fields.iter().map(field).collect()
        };
        let trailers = fields(&[("x-sum", "5"), ("x-other", "6"), ("host", "evil")]);
        for (announced, written) in [
            (Some("X-Sum, Host"), Some("0\r\nx-sum: 5\r\n\r\n")),
            (Some("x-none"), Some("0\r\n\r\n")),
            (Some(""), Some("0\r\n\r\n")),
            (None, None),
        ] {
            let head = announced.map_or_else(HeaderMap::new, |names| fields(&[("trailer", names)]));
            let mut buf = Vec::new();
            let announced = Announced::of(&head).map(|announced| announced.write_last(&mut buf, &trailers));
            assert_eq!(announced.map(|()| String::from_utf8(buf).unwrap()).as_deref(), written);
        }
    }

    proptest! {
        #[test]
        fn cutting_a_body_changes_no_verdict(
            scraps in prop::collection::vec(prop::sample::select(vec![
                "0", "3", "\r\n", "\r", "\n", "\0", " ", ";", "abc", "3\r\nabc\r\n", "0\r\n", "X: y\r\n", "Host", ":",
                "0\r\n\r\n", "3;x\r\nabc\r\n", "\t", "fffffffff",
            ]), 0..24),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        ) {
            let stream = scraps.concat().into_bytes();
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
            cuts.extend([0, stream.len()]);
            cuts.sort_unstable();
            let pieces = cuts.windows(2).map(|pair| &stream[pair[0]..pair[1]]);
            prop_assert_eq!(read(Decoder::strict(), [&stream[..]]), read(Decoder::strict(), pieces.clone()));
            prop_assert_eq!(read(Decoder::lenient(), [&stream[..]]), read(Decoder::lenient(), pieces));
        }

        #[test]
        fn what_is_written_is_read(chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..600), 0..6)) {
            let mut stream = Vec::new();
            for chunk in &chunks {
                write_size(&mut stream, chunk.len());
                stream.extend(chunk);
                stream.extend(CHUNK_END);
            }
            stream.extend(LAST);
            let expected = Some(Ok((chunks.concat(), Vec::new(), Vec::new())));
            prop_assert_eq!(read(Decoder::strict(), [&stream[..]]), expected);
        }

        #[test]
        fn sizes_are_hexadecimal(length in 1_usize..) {
            let mut written = Vec::new();
            write_size(&mut written, length);
            prop_assert_eq!(String::from_utf8(written).unwrap(), format!("{length:x}\r\n"));
        }
    }
}
