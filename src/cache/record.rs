//! A stored answer as bytes, and back: what outlives the process.
//!
//! Numbers are little-endian; whatever has a length is preceded by it. Reading trusts nothing: what does not come out
//! as it went in is no record. Times cannot be kept as they are, since the monotonic clock does not outlive the
//! process: a record says how old its answer was when it was written, and the file says when that was.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http::header::LAST_MODIFIED;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use crate::cache::entry::{Entry, Head, Life};
use crate::cache::key::Key;
use crate::cache::{freshness, reuse};

/// A stored answer with its place in the store.
#[derive(Debug)]
pub struct Record {
    /// The key of the request.
    pub primary: Key,
    /// The key of the variant; the same where the answer does not vary.
    pub variant: Key,
    /// The answer; its age began to be counted when it was read.
    pub entry: Entry,
}

/// Appends the record of an answer to `out`, as it is at `now`.
pub fn encode(primary: Key, variant: Key, entry: &Entry, now: Instant, out: &mut Vec<u8>) {
    // Taken apart, so that a new field cannot be forgotten here.
    let Head {
        status,
        headers,
        lines: _,
        life,
        initial_age: _,
        received: _,
        date,
        etag: _,
        last_modified: _,
        vary,
        selecting,
        address,
        groups,
    } = &*entry.head;
    let Life { fresh, swr, sie, keep, always_validate, must_revalidate, immutable } = *life;
    out.extend(primary.0.to_le_bytes());
    out.extend(variant.0.to_le_bytes());
    out.extend(status.as_u16().to_le_bytes());
    let flags = [always_validate, must_revalidate, immutable, entry.is_soft_purged()];
    out.push(flags.iter().rev().fold(0, |bits, flag| bits << 1 | u8::from(*flag)));
    let since = date.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    for span in [entry.age(now), fresh, swr, sie, keep, since] {
        out.extend(span.as_secs().to_le_bytes());
        out.extend(span.subsec_nanos().to_le_bytes());
    }
    piece(out, address.as_bytes());
    number(out, headers.len());
    for (name, value) in headers {
        piece(out, name.as_str().as_bytes());
        piece(out, value.as_bytes());
    }
    number(out, vary.len());
    for (name, value) in vary.iter().zip(selecting) {
        piece(out, name.as_str().as_bytes());
        out.push(u8::from(value.is_some()));
        piece(out, value.as_deref().unwrap_or_default());
    }
    number(out, groups.len());
    for group in groups {
        piece(out, group.as_bytes());
    }
    piece(out, &entry.body);
}

/// The answer of a record that was written `rest` ago, received at `now` as far as its age is concerned.
pub fn decode(record: &[u8], rest: Duration, now: Instant) -> Option<Record> {
    let mut rest_of = Input(record);
    let from = &mut rest_of;
    let (primary, variant) = (Key(u128::from_le_bytes(from.array()?)), Key(u128::from_le_bytes(from.array()?)));
    let status = StatusCode::from_u16(u16::from_le_bytes(from.array()?)).ok()?;
    let flags = from.array::<1>()?[0];
    if flags >= 1 << 4 {
        return None;
    }
    let flag = |bit: u8| flags >> bit & 1 == 1;
    let [age, fresh, swr, sie, keep, since] =
        [from.span()?, from.span()?, from.span()?, from.span()?, from.span()?, from.span()?];
    let life = Life { fresh, swr, sie, keep, always_validate: flag(0), must_revalidate: flag(1), immutable: flag(2) };
    let address = from.text()?.into();
    let mut headers = HeaderMap::new();
    for _ in 0..from.number()? {
        let name = HeaderName::from_bytes(from.piece()?).ok()?;
        headers.try_append(name, HeaderValue::from_bytes(from.piece()?).ok()?).ok()?;
    }
    let (mut vary, mut selecting) = (Vec::new(), Vec::new());
    for _ in 0..from.number()? {
        vary.push(HeaderName::from_bytes(from.piece()?).ok()?);
        let is_there = from.array::<1>()?[0];
        let value = from.piece()?;
        selecting.push((is_there == 1).then(|| value.into()));
    }
    let groups = (0..from.number()?).map(|_| from.text().map(Into::into)).collect::<Option<_>>()?;
    let body = Bytes::copy_from_slice(from.piece()?);
    if !from.0.is_empty() {
        return None;
    }
    let head = Head {
        status,
        etag: reuse::entity_tag(&headers),
        last_modified: freshness::http_date(&headers, &LAST_MODIFIED),
        headers,
        lines: Bytes::new(),
        life,
        initial_age: age.saturating_add(rest),
        received: now,
        date: SystemTime::UNIX_EPOCH.checked_add(since)?,
        vary: vary.into(),
        selecting: selecting.into(),
        address,
        groups,
    };
    let entry = Entry::new(Arc::new(head.compact()), body);
    if flag(3) {
        entry.soft_purge();
    }
    Some(Record { primary, variant, entry })
}

fn number(out: &mut Vec<u8>, number: usize) {
    // Longer pieces are not stored: an entry weighs less than this.
    out.extend(u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes());
}

fn piece(out: &mut Vec<u8>, bytes: &[u8]) {
    number(out, bytes.len());
    out.extend(bytes);
}

/// What is still to be read.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn number(&mut self) -> Option<usize> {
        usize::try_from(u32::from_le_bytes(self.array()?)).ok()
    }

    fn span(&mut self) -> Option<Duration> {
        let (seconds, nanos) = (u64::from_le_bytes(self.array()?), u32::from_le_bytes(self.array()?));
        (nanos < 1_000_000_000).then(|| Duration::new(seconds, nanos))
    }

    fn piece(&mut self) -> Option<&'a [u8]> {
        let length = self.number()?;
        self.take(length)
    }

    fn text(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.piece()?).ok()
    }
}

#[cfg(test)]
pub(in crate::cache) mod tests {
    use proptest::collection::vec;
    use proptest::option;
    use proptest::prelude::*;

    use super::*;
    use crate::clock::Clock;

    fn span() -> impl Strategy<Value = Duration> {
        prop_oneof![
            Just(Duration::ZERO),
            Just(Duration::MAX),
            (0..100_000_u64, 0..1_000_000_000_u32).prop_map(|(seconds, nanos)| Duration::new(seconds, nanos)),
        ]
    }

    fn head() -> impl Strategy<Value = Head> {
        let name = "[a-z]{1,8}(-[a-z]{1,4})?";
        let fields = vec((name, vec(0x20..0xff_u8, 0..20)), 0..6);
        let vary = vec((name, option::of(vec(any::<u8>(), 0..10))), 0..4);
        let tags = (option::of("(W/)?\"[a-z]{0,4}\""), option::of(0..2_000_000_000_u64));
        let life = (span(), span(), span(), span(), any::<[bool; 3]>());
        (100..1000_u16, fields, vary, tags, life, span(), 0..4_000_000_000_u64, vec("\\PC{0,8}", 0..3), "\\PC{0,30}")
            .prop_map(
                |(
                    status,
                    fields,
                    vary,
                    (tag, modified),
                    (fresh, swr, sie, keep, flags),
                    initial_age,
                    date,
                    groups,
                    address,
                )| {
                    let mut headers = HeaderMap::new();
                    for (name, value) in fields {
                        // 0x7f is no character of a field.
                        let value: Vec<u8> = value.into_iter().filter(|byte| *byte != 0x7f).collect();
                        headers.append(HeaderName::try_from(name).unwrap(), HeaderValue::from_bytes(&value).unwrap());
                    }
                    if let Some(tag) = tag {
                        headers.insert(http::header::ETAG, HeaderValue::try_from(tag).unwrap());
                    }
                    if let Some(modified) = modified {
                        let modified = httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_secs(modified));
                        headers.insert(LAST_MODIFIED, HeaderValue::try_from(modified).unwrap());
                    }
                    let [always_validate, must_revalidate, immutable] = flags;
                    let (names, values): (Vec<_>, Vec<_>) = vary.into_iter().unzip();
                    Head {
                        status: StatusCode::from_u16(status).unwrap(),
                        etag: reuse::entity_tag(&headers),
                        last_modified: freshness::http_date(&headers, &LAST_MODIFIED),
                        headers,
                        lines: Bytes::new(),
                        life: Life { fresh, swr, sie, keep, always_validate, must_revalidate, immutable },
                        initial_age,
                        received: Clock::system().now(),
                        date: SystemTime::UNIX_EPOCH + Duration::from_secs(date),
                        vary: names.into_iter().map(|name| HeaderName::try_from(name).unwrap()).collect(),
                        selecting: values.into_iter().map(|value| value.map(Into::into)).collect(),
                        address: address.into(),
                        groups: groups.into_iter().map(Into::into).collect(),
                    }
                    .compact()
                },
            )
    }

    prop_compose! {
        /// Any record, and how it is written.
        pub(in crate::cache) fn record()(
            head in head(), body in vec(any::<u8>(), 0..200), soft in any::<bool>(),
            primary in any::<u128>(), variant in any::<u128>(),
        ) -> Record {
            let entry = Entry::new(Arc::new(head), body.into());
            if soft {
                entry.soft_purge();
            }
            Record { primary: Key(primary), variant: Key(variant), entry }
        }
    }

    /// Whether two answers are the same but for the time from which their age is counted.
    pub(in crate::cache) fn is_same(one: &Entry, other: &Entry) -> bool {
        let timeless = |entry: &Entry| {
            Head { initial_age: Duration::ZERO, received: one.head.received, ..Head::clone(&entry.head) }.compact()
        };
        timeless(one) == timeless(other) && one.body == other.body && one.is_soft_purged() == other.is_soft_purged()
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(record in record(), age in 0..1000_u64, rest in span(), later in 0..1000_u64) {
            let written = record.entry.head.received + Duration::from_secs(age);
            let mut bytes = Vec::new();
            encode(record.primary, record.variant, &record.entry, written, &mut bytes);
            let now = written + Duration::from_secs(later);
            let read = decode(&bytes, rest, now).unwrap();
            prop_assert_eq!((read.primary, read.variant), (record.primary, record.variant));
            prop_assert!(is_same(&record.entry, &read.entry), "{:?}\n{:?}", record.entry, read.entry);
            prop_assert_eq!(read.entry.age(now), record.entry.age(written).saturating_add(rest));
            for end in 0..bytes.len() {
                prop_assert!(decode(&bytes[..end], rest, now).is_none(), "cut at {end}");
            }
            bytes.push(0);
            prop_assert!(decode(&bytes, rest, now).is_none(), "something follows");
        }

        #[test]
        fn nothing_read_makes_it_panic(bytes in vec(any::<u8>(), 0..300), record in record(), at in any::<prop::sample::Index>(), to in any::<u8>()) {
            let now = Clock::system().now();
            let _ = decode(&bytes, Duration::MAX, now);
            let mut written = Vec::new();
            encode(record.primary, record.variant, &record.entry, now, &mut written);
            let at = at.index(written.len());
            written[at] = to;
            let _ = decode(&written, Duration::ZERO, now);
        }
    }
}
