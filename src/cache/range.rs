//! Byte ranges of a complete answer (RFC 9110 section 14).
//!
//! A Range that cannot be read is ignored, as the RFC allows for all of them; so is one that asks for more work than
//! the whole is: more than sixteen ranges, or overlapping ones (section 14.2, CVE-2011-3192).

use std::fmt::Write as _;
use std::ops::Range;

use bytes::Bytes;
use http::header::RANGE;
use http::{HeaderMap, HeaderValue};

/// What a Range field selects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selected {
    /// Everything: there is no Range, or it is ignored.
    Whole,
    /// One range, not empty.
    One(Range<u64>),
    /// Several ranges in the order asked for, none empty, none overlapping.
    Many(Vec<Range<u64>>),
    /// Nothing of what was asked for exists: 416.
    Unsatisfiable,
}

/// Reads Range for a body of `length` bytes. All ranges lie within it.
pub fn select(request: &HeaderMap, length: u64) -> Selected {
    let mut lines = request.get_all(RANGE).iter();
    match (lines.next(), lines.next()) {
        (Some(line), None) => parse(line.as_bytes(), length).unwrap_or(Selected::Whole),
        _ => Selected::Whole,
    }
}

/// The Content-Range of one range of a body of `length` bytes (RFC 9110 section 14.4).
///
/// # Panics
/// Never: the value is ASCII.
pub fn content_range(range: &Range<u64>, length: u64) -> HeaderValue {
    HeaderValue::try_from(range_text(range, length)).expect("digits and punctuation make a field value")
}

/// The Content-Range of a 416 (RFC 9110 section 14.4).
///
/// # Panics
/// Never: the value is ASCII.
pub fn unsatisfied_range(length: u64) -> HeaderValue {
    HeaderValue::try_from(format!("bytes */{length}")).expect("digits and punctuation make a field value")
}

/// The body of a 206 with several ranges.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Multipart {
    /// `multipart/byteranges; boundary=...`
    pub content_type: HeaderValue,
    /// The pieces in order: delimiters, and slices of the stored body.
    pub pieces: Vec<Bytes>,
    /// Their length together, in bytes.
    pub length: u64,
}

/// Frames `ranges` of `body` (RFC 9110 section 14.6). `boundary`: up to 70 letters and digits that do not occur in the
/// body, drawn at random by the caller. Ranges that reach outside the body are left out. `None`: the boundary is not
/// of that form.
pub fn multipart(
    body: &Bytes,
    ranges: &[Range<u64>],
    content_type: Option<&HeaderValue>,
    boundary: &str,
) -> Option<Multipart> {
    let well_formed = (1..=70).contains(&boundary.len()) && boundary.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if !well_formed {
        return None;
    }
    let total = body.len() as u64;
    let mut pieces = Vec::with_capacity(2 * ranges.len() + 1);
    for range in ranges {
        let Some(slice) = slice(body, range) else {
            continue;
        };
        let mut delimiter = format!("\r\n--{boundary}\r\n").into_bytes();
        if let Some(content_type) = content_type {
            delimiter.extend_from_slice(b"Content-Type: ");
            delimiter.extend_from_slice(content_type.as_bytes());
            delimiter.extend_from_slice(b"\r\n");
        }
        delimiter.extend_from_slice(format!("Content-Range: {}\r\n\r\n", range_text(range, total)).as_bytes());
        pieces.push(Bytes::from(delimiter));
        pieces.push(slice);
    }
    pieces.push(Bytes::from(format!("\r\n--{boundary}--\r\n")));
    let length = pieces.iter().map(|piece| piece.len() as u64).sum();
    let content_type = HeaderValue::try_from(format!("multipart/byteranges; boundary={boundary}")).ok()?;
    Some(Multipart { content_type, pieces, length })
}

/// The bytes of `range`; `None` where it reaches outside the body.
pub fn slice(body: &Bytes, range: &Range<u64>) -> Option<Bytes> {
    let (start, end) = (usize::try_from(range.start).ok()?, usize::try_from(range.end).ok()?);
    (start <= end && end <= body.len()).then(|| body.slice(start..end))
}

fn range_text(range: &Range<u64>, length: u64) -> String {
    let mut text = String::with_capacity(40);
    // Writing to a string cannot fail.
    let _ = write!(text, "bytes {}-{}/{length}", range.start, range.end.saturating_sub(1));
    text
}

/// `None`: not a valid byte range set, or one that is ignored.
fn parse(field: &[u8], length: u64) -> Option<Selected> {
    let (unit, set) = field.trim_ascii().split_at_checked(6)?;
    if !unit.eq_ignore_ascii_case(b"bytes=") {
        return None;
    }
    let mut asked = 0;
    let mut ranges: Vec<Range<u64>> = Vec::new();
    for member in set.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|member| !member.is_empty()) {
        asked += 1;
        if asked > MOST_RANGES {
            return None;
        }
        ranges.extend(parse_member(member, length)?);
    }
    if asked == 0 || overlap(&ranges) {
        return None;
    }
    if ranges.len() > 1 {
        return Some(Selected::Many(ranges));
    }
    Some(ranges.pop().map_or(Selected::Unsatisfiable, Selected::One))
}

/// `first-last`, `first-` or `-suffix` (RFC 9110 section 14.1.2). `None`: invalid, which spoils the whole field;
/// `Some(None)`: valid, but nothing of it exists.
fn parse_member(member: &[u8], length: u64) -> Option<Option<Range<u64>>> {
    let dash = member.iter().position(|byte| *byte == b'-')?;
    let (first, last) = member.split_at_checked(dash)?;
    let last = last.strip_prefix(b"-")?;
    if first.is_empty() {
        let suffix = position(last)?;
        if length == 0 && suffix > 0 {
            return None; // satisfiable, but no Content-Range can say so: the (empty) whole
        }
        return Some((suffix > 0).then(|| length.saturating_sub(suffix)..length));
    }
    let first = position(first)?;
    let last = if last.is_empty() { u64::MAX } else { position(last)? };
    if last < first {
        return None;
    }
    Some((first < length).then(|| first..last.saturating_add(1).min(length)))
}

/// Digits; what does not fit counts as the greatest number, which lies behind every body.
fn position(digits: &[u8]) -> Option<u64> {
    let digits = std::str::from_utf8(digits).ok().filter(|digits| !digits.is_empty())?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().unwrap_or(u64::MAX))
}

fn overlap(ranges: &[Range<u64>]) -> bool {
    ranges.iter().enumerate().any(|(position, one)| {
        ranges.iter().skip(position + 1).any(|other| one.start < other.end && other.start < one.end)
    })
}

/// More ranges than this in one request are no download that goes on, and cost more than the whole.
const MOST_RANGES: usize = 16;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn request(values: &[&str]) -> HeaderMap {
        values.iter().map(|value| (RANGE, HeaderValue::try_from(*value).unwrap())).collect()
    }

    /// What `value` selects of 100 bytes.
    fn check(value: &str, expected: Selected) {
        assert_eq!(select(&request(&[value]), 100), expected, "{value}");
    }

    #[test]
    fn ranges_are_read() {
        // RFC 9110 sections 14.1.1, 14.1.2, 14.2
        check("bytes=0-49", Selected::One(0..50));
        check("Bytes=0-0", Selected::One(0..1));
        check("bytes=99-", Selected::One(99..100));
        check("bytes=0-", Selected::One(0..100));
        check("bytes=-1", Selected::One(99..100));
        check("bytes=-1000", Selected::One(0..100));
        check("bytes=90-1000", Selected::One(90..100));
        check("bytes=90-99999999999999999999999999", Selected::One(90..100));
        check("bytes=100-", Selected::Unsatisfiable);
        check("bytes=-0", Selected::Unsatisfiable);
        check("bytes=99999999999999999999999-99999999999999999999999", Selected::Unsatisfiable);
        check("bytes=0-1,5-6", Selected::Many(vec![0..2, 5..7]));
        check("bytes= 5-6 ,\t0-1,, ", Selected::Many(vec![5..7, 0..2]));
        check("bytes=0-1,200-", Selected::One(0..2));
        check("bytes=200-,300-", Selected::Unsatisfiable);
        check("bytes=0-1,2-3", Selected::Many(vec![0..2, 2..4]));
    }

    #[test]
    fn what_cannot_be_read_or_costs_too_much_is_ignored() {
        // RFC 9110 section 14.2
        for value in [
            "",
            "bytes",
            "bytes=",
            "bytes=,",
            "bytes=-",
            "bytes=a-b",
            "bytes=5",
            "bytes=5-4",
            "bytes=+1-2",
            "bytes=1 -2",
            "bytes=0-1;5-6",
            "bytes=0-1,x",
            "bytes =0-1",
            "items=0-1",
            "bytes=--1",
            "bytes=0x1-2",
            "bytes=0-10,5-6",
            "bytes=0-,-1",
        ] {
            check(value, Selected::Whole);
        }
        let many: Vec<_> = (0..17).map(|start| format!("{0}-{0}", start * 2)).collect();
        check(&format!("bytes={}", many.join(",")), Selected::Whole);
        assert!(matches!(select(&request(&[&format!("bytes={}", many[1..].join(","))]), 100), Selected::Many(_)));
        assert_eq!(select(&request(&["bytes=0-1", "bytes=5-6"]), 100), Selected::Whole);
        assert_eq!(select(&HeaderMap::new(), 100), Selected::Whole);
        assert_eq!(select(&request(&["bytes=-5"]), 0), Selected::Whole);
        assert_eq!(select(&request(&["bytes=0-"]), 0), Selected::Unsatisfiable);
    }

    #[test]
    fn several_ranges_are_framed() {
        // RFC 9110 section 14.6
        let body = Bytes::from_static(b"0123456789");
        let html = HeaderValue::from_static("text/html");
        let multipart = multipart(&body, &[0..2, 8..10, 9..11], Some(&html), "b0").unwrap();
        let text = multipart.pieces.concat();
        assert_eq!(
            std::str::from_utf8(&text).unwrap(),
            "\r\n--b0\r\nContent-Type: text/html\r\nContent-Range: bytes 0-1/10\r\n\r\n01\
             \r\n--b0\r\nContent-Type: text/html\r\nContent-Range: bytes 8-9/10\r\n\r\n89\r\n--b0--\r\n"
        );
        assert_eq!(multipart.length, text.len() as u64);
        assert_eq!(multipart.content_type, "multipart/byteranges; boundary=b0");
        assert_eq!(super::multipart(&body, &[], None, "not one"), None);
        assert_eq!(content_range(&(5..7), 10), "bytes 5-6/10");
        assert_eq!(unsatisfied_range(10), "bytes */10");
    }

    proptest! {
        #[test]
        fn every_range_lies_inside_the_body(value in "(bytes=)?[0-9,\\- ]{0,30}", length in 0..50_u64) {
            let body = Bytes::from(vec![0; length as usize]);
            let ranges = match select(&request(&[&value]), length) {
                Selected::One(range) => vec![range],
                Selected::Many(ranges) => ranges,
                Selected::Whole | Selected::Unsatisfiable => vec![],
            };
            for range in ranges {
                prop_assert!(range.start < range.end && range.end <= length);
                prop_assert_eq!(slice(&body, &range).map(|slice| slice.len() as u64), Some(range.end - range.start));
            }
        }

        #[test]
        fn any_bytes_are_read_without_panic(value in proptest::collection::vec(any::<u8>(), 0..40), length: u64) {
            let _ = parse(&value, length);
            let _ = parse(&[b"bytes=", &*value].concat(), length);
        }
    }
}
