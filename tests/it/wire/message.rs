//! A strict reader of HTTP/1 messages for both ends of a test: it takes nothing that RFC 9112 forbids, so that whatever
//! it reads was really well-formed.

use std::io::{self, BufRead, Read};

/// One message as it stood on the wire.
#[derive(Debug, Clone, Default)]
pub(crate) struct Message {
    /// The request line or status line.
    pub(crate) start: String,
    /// Names in lower case, in order.
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Vec<(String, String)>,
    pub(crate) end: End,
}

/// How a message ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum End {
    /// By its own framing.
    #[default]
    Whole,
    /// With the connection, as it has no length of its own.
    Close,
    /// Before it was whole.
    Broken,
}

impl Message {
    /// Reads a head; `None` when the other side has closed instead.
    pub(crate) fn head(from: &mut impl BufRead) -> io::Result<Option<Self>> {
        let Some(start) = line(from)? else { return Ok(None) };
        Ok(Some(Self { start, fields: fields(from)?, ..Self::default() }))
    }

    /// Reads the body of a request.
    pub(crate) fn request_body(&mut self, from: &mut impl BufRead) {
        if self.field("transfer-encoding").is_none() && self.field("content-length").is_none() {
            return;
        }
        self.framed(from);
    }

    /// Reads the body of the response to a request of `method`.
    pub(crate) fn response_body(&mut self, from: &mut impl BufRead, method: &str) {
        if method == "HEAD" || self.status() < 200 || matches!(self.status(), 204 | 304) {
            return;
        }
        self.framed(from);
    }

    fn framed(&mut self, from: &mut impl BufRead) {
        let (coding, length) = (self.field("transfer-encoding"), self.field("content-length"));
        assert!(coding.is_none() || length.is_none(), "two framings: {self:?}");
        let result = match (coding, length.map(str::parse::<u64>)) {
            (Some("chunked"), _) => self.chunks(from),
            (Some(other), _) => panic!("transfer coding {other}"),
            (None, Some(Ok(length))) => from
                .take(length)
                .read_to_end(&mut self.body)
                .and_then(|read| if read as u64 == length { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }),
            (None, Some(Err(error))) => panic!("content length {error}"),
            (None, None) => {
                self.end = End::Close;
                from.read_to_end(&mut self.body).map(drop)
            }
        };
        if result.is_err() {
            self.end = End::Broken;
        }
    }

    fn chunks(&mut self, from: &mut impl BufRead) -> io::Result<()> {
        loop {
            let size = line(from)?.ok_or(io::ErrorKind::UnexpectedEof)?;
            let size = u64::from_str_radix(size.split(';').next().unwrap_or_default().trim(), 16)
                .unwrap_or_else(|_| panic!("chunk size {size:?}"));
            if size == 0 {
                self.trailers = fields(from)?;
                return Ok(());
            }
            let read = from.take(size).read_to_end(&mut self.body)?;
            let end = line(from)?;
            if read as u64 != size || end.as_deref() != Some("") {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// The value of a field that stands there once at most.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let mut values = self.fields.iter().filter(|(field, _)| field == name).map(|(_, value)| value.as_str());
        let value = values.next();
        assert_eq!(values.next(), None, "{name} twice in {self:?}");
        value
    }

    pub(crate) fn status(&self) -> u16 {
        let mut words = self.start.split(' ');
        assert!(matches!(words.next(), Some("HTTP/1.1" | "HTTP/1.0")), "{self:?}");
        words.next().and_then(|word| word.parse().ok()).unwrap_or_else(|| panic!("no status in {:?}", self.start))
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("bodies of these tests are text")
    }

    /// The `reason` of a problem+json body, and nothing for any other answer.
    pub(crate) fn reason(&self) -> Option<&str> {
        if self.field("content-type") != Some("application/problem+json") {
            return None;
        }
        let (_, rest) = self.text().split_once("\"reason\":\"")?;
        rest.split_once('"').map(|(reason, _)| reason)
    }
}

/// A line without its CRLF; `None` at the end of the stream.
pub(crate) fn line(from: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut bytes = Vec::new();
    from.read_until(b'\n', &mut bytes)?;
    if bytes.is_empty() {
        return Ok(None);
    }
    let Some(text) = bytes.strip_suffix(b"\r\n") else { return Err(io::ErrorKind::UnexpectedEof.into()) };
    assert!(!text.contains(&b'\r') && !text.contains(&0), "a bare CR or NUL in {bytes:?}");
    Ok(Some(String::from_utf8_lossy(text).into_owned()))
}

fn fields(from: &mut impl BufRead) -> io::Result<Vec<(String, String)>> {
    let mut fields = Vec::new();
    loop {
        let line = line(from)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        if line.is_empty() {
            return Ok(fields);
        }
        let (name, value) = line.split_once(':').unwrap_or_else(|| panic!("no colon in {line:?}"));
        assert!(!name.is_empty() && !name.contains([' ', '\t']), "{line:?}");
        fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
}
