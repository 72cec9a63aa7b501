//! The stored answer: its head with everything the rules need to judge it, and its body.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use bytes::{Buf as _, Bytes, BytesMut};
use http::header::{DATE, ETAG};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use crate::cache::key;

/// One stored answer. Shared as `Arc<Entry>`; a refresh makes a new one with the same body.
#[derive(Debug)]
pub struct Entry {
    /// Everything but the body.
    pub head: Arc<Head>,
    /// The whole body; its length is the truth (the head holds no Content-Length).
    pub body: Bytes,
    /// Which generation of its data it shows ([`fence`](crate::cache::fence)).
    generation: u64,
    refresh: Refresh,
    soft_purged: AtomicBool,
    retired: AtomicBool,
}

impl Entry {
    /// The entry of a complete answer.
    pub const fn new(head: Arc<Head>, body: Bytes) -> Self {
        Self {
            head,
            body,
            generation: 0,
            refresh: Refresh { failures: AtomicU32::new(0), until: AtomicU64::new(0) },
            soft_purged: AtomicBool::new(false),
            retired: AtomicBool::new(false),
        }
    }

    /// The same, showing the data in this generation.
    #[must_use]
    pub const fn in_generation(mut self, generation: u64) -> Self {
        self.generation = generation;
        self
    }

    /// Which generation of its data it shows.
    pub const fn generation(&self) -> u64 {
        self.generation
    }

    /// What it costs in memory, in bytes: all its allocations and its share of the store's structures, as measured by
    /// `tests/memory.rs`.
    pub fn weight(&self) -> u32 {
        let bytes = self.body.len().saturating_add(self.head.weight()).saturating_add(OVERHEAD);
        u32::try_from(bytes).unwrap_or(u32::MAX)
    }

    /// Its age at `now` (RFC 9111 section 4.2.3).
    pub fn age(&self, now: Instant) -> Duration {
        self.head.age(now)
    }

    /// Whether a background refresh may be tried at `now`.
    pub fn may_refresh(&self, now: Instant) -> bool {
        self.refresh.is_due(now.saturating_duration_since(self.head.received))
    }

    /// A refresh failed at `now`; `drawn` spreads the next tries of many entries.
    pub fn refresh_failed(&self, now: Instant, drawn: u64) {
        self.refresh.failed(now.saturating_duration_since(self.head.received), drawn);
    }

    /// Makes it stale: it is served only where a stale answer may be, until it is refreshed.
    pub fn soft_purge(&self) {
        self.soft_purged.store(true, Ordering::Relaxed);
    }

    /// Whether it was soft purged.
    pub fn is_soft_purged(&self) -> bool {
        self.soft_purged.load(Ordering::Relaxed)
    }

    /// The store has given it up.
    pub(super) fn retire(&self) {
        self.retired.store(true, Ordering::Release);
    }

    /// Whether the store has given it up, so that it is to be asked.
    pub fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Acquire)
    }
}

/// Backs off the background refreshes of one entry while they fail: else every request would send one to a sick origin
/// (nginx#1000). One second, doubling to a minute, each with up to a quarter of jitter.
#[derive(Debug, Default)]
pub struct Refresh {
    failures: AtomicU32,
    /// In milliseconds of the entry's rest here.
    until: AtomicU64,
}

impl Refresh {
    fn is_due(&self, rest: Duration) -> bool {
        rest >= Duration::from_millis(self.until.load(Ordering::Relaxed))
    }

    fn failed(&self, rest: Duration, drawn: u64) {
        let failures = self.failures.fetch_add(1, Ordering::Relaxed);
        let wait = Duration::from_secs(1 << failures.min(6)).min(Duration::from_secs(60));
        let jitter = wait.mul_f64((drawn % 256) as f64 / 1024.0);
        let until = rest.saturating_add(wait).saturating_add(jitter);
        self.until.store(u64::try_from(until.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

/// The head of a stored answer, judged once when it was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Its status.
    pub status: StatusCode,
    /// The header fields that may be sent again: no hop-by-hop fields, no Set-Cookie, no Age, no Content-Length
    /// (the body's length is the truth); always with Date.
    pub headers: HeaderMap,
    /// Status line and fields as they go over an HTTP/1.1 connection, each ended by CRLF: a hit is answered with them as
    /// they are. Empty before the head is made compact.
    pub lines: Bytes,
    /// How long it serves for what.
    pub life: Life,
    /// Its age when it arrived.
    pub initial_age: Duration,
    /// When it arrived.
    pub received: Instant,
    /// Its Date, or the time of its arrival.
    pub date: SystemTime,
    /// Its entity tag, where it has a valid one.
    pub etag: Option<HeaderValue>,
    /// Its Last-Modified, where it has a valid one.
    pub last_modified: Option<SystemTime>,
    /// The request fields it was selected by (Vary), sorted, without repetition.
    pub vary: Arc<[HeaderName]>,
    /// The normal form of those fields in the request it answered; in the order of `vary`.
    pub selecting: Box<[Option<Box<[u8]>>]>,
    /// Its key in clear ([`key::KeyParts::address`]), compared on each hit: a collision of hashes is a miss.
    pub address: Box<str>,
    /// Groups it can be purged by: Cache-Groups (RFC 9875), Surrogate-Key, Cache-Tag, xkey.
    pub groups: Box<[Box<str>]>,
}

impl Head {
    /// Its age at `now` (RFC 9111 section 4.2.3): the age at arrival and the time it rested here.
    pub fn age(&self, now: Instant) -> Duration {
        self.initial_age.saturating_add(now.saturating_duration_since(self.received))
    }

    /// How long past its freshness it is at `now`; `None` while it is fresh.
    pub fn staleness(&self, now: Instant) -> Option<Duration> {
        self.past(self.age(now))
    }

    /// The same at this age.
    pub fn past(&self, age: Duration) -> Option<Duration> {
        // RFC 9111 section 4.2: fresh while lifetime > age, so a lifetime of zero is never fresh.
        (age >= self.life.fresh).then(|| age.saturating_sub(self.life.fresh))
    }

    /// Whether it can be revalidated (RFC 9110 section 8.8).
    pub fn has_validator(&self) -> bool {
        self.etag.is_some() || self.last_modified.is_some()
    }

    /// Whether the request fields it was selected by are the same in `headers` (RFC 9111 section 4.1).
    pub fn selects(&self, headers: &HeaderMap) -> bool {
        self.vary.iter().zip(&self.selecting).all(|(name, stored)| match (key::normal(name, headers), stored) {
            (None, None) => true,
            (Some(asked), Some(stored)) => asked.eq(stored.iter().copied()),
            _ => false,
        })
    }

    /// The URL it answers, out of its address.
    pub fn url(&self) -> &str {
        self.address.split_once(' ').map_or(&*self.address, |(url, _)| url)
    }

    /// Whether it answers a POST that only reads.
    pub fn is_to_post(&self) -> bool {
        self.address.split(' ').nth(1).is_some_and(|partition| partition.contains('+'))
    }

    /// The partition it belongs to, in hexadecimal, out of its address; `None`: it is everybody's.
    pub fn partition(&self) -> Option<&str> {
        let partition = self.address.split(' ').nth(1)?;
        Some(partition.split_once('+').map_or(partition, |(partition, _)| partition)).filter(|name| *name != "-")
    }

    /// The name of the upstream it came from, out of its address.
    pub fn upstream(&self) -> &str {
        self.address.splitn(3, ' ').nth(2).unwrap_or_default()
    }

    /// Whether its lines say all that they must before a body: there are some, with a Date, and a length belongs to them
    /// (RFC 9110 section 8.6).
    pub fn is_preset(&self) -> bool {
        let is_dated = || self.headers.keys().any(|name| *name == DATE);
        !self.lines.is_empty() && is_dated() && self.status != StatusCode::NO_CONTENT && !self.status.is_informational()
    }

    /// The same, with its fields in an allocation of their own, of exactly their size: those of an answer are slices
    /// of the buffer it was read into, which an entry must not keep alive. They are slices of its lines now.
    #[must_use]
    pub(crate) fn compact(mut self) -> Self {
        let status = status_line(self.status);
        let length =
            self.headers.iter().map(|(name, value)| line(name, value).iter().map(|piece| piece.len()).sum::<usize>());
        let mut lines = BytesMut::with_capacity(status.len() + length.sum::<usize>());
        lines.extend_from_slice(status.as_bytes());
        for (name, value) in &self.headers {
            line(name, value).iter().for_each(|piece| lines.extend_from_slice(piece));
        }
        self.lines = lines.freeze();
        let mut rest = self.lines.slice(status.len()..);
        let mut headers = HeaderMap::with_capacity(self.headers.keys_len());
        for (name, value) in &self.headers {
            let [name_bytes, colon, _, end] = line(name, value);
            rest.advance(name_bytes.len() + colon.len());
            let copy = HeaderValue::from_maybe_shared(rest.split_to(value.len()));
            rest.advance(end.len());
            let mut copy = copy.expect("it is the copy of a value");
            copy.set_sensitive(value.is_sensitive());
            headers.append(name.clone(), copy);
        }
        let own = |tag: HeaderValue| match headers.get(ETAG) {
            Some(kept) if *kept == tag => kept.clone(),
            _ => HeaderValue::from_bytes(tag.as_bytes()).expect("it is the copy of a value"),
        };
        self.etag = self.etag.map(own);
        self.headers = headers;
        self
    }

    /// Whether it serves nobody but the one it was made for unless the origin says so, whenever he asks (RFC 9111
    /// sections 5.2.2.2 and 5.2.2.4). Such an answer may be a user's own though its origin does not say `private`.
    pub fn asks_back(&self) -> bool {
        let life = &self.life;
        let never_fresh = life.always_validate || (life.must_revalidate && self.initial_age >= life.fresh);
        never_fresh && self.partition().is_none()
    }

    fn weight(&self) -> usize {
        let headers = &self.headers;
        let names: usize = headers.keys().map(|name| name.as_str().len()).sum();
        // The values are slices of the lines, if there are lines already.
        let lines = self.lines.len().max(headers.values().map(HeaderValue::len).sum());
        let slots = headers.capacity() * FIELD + (headers.len() - headers.keys_len()) * FURTHER_LINE;
        let pieces = |pieces: usize, bytes: usize| pieces * PIECE + bytes;
        let selecting = pieces(self.selecting.len(), self.selecting.iter().flatten().map(|value| value.len()).sum());
        let groups = pieces(self.groups.len(), self.groups.iter().map(|group| group.len()).sum());
        let vary = self.vary.len() * size_of::<HeaderName>();
        names + lines + slots + selecting + groups + vary + self.address.len()
    }
}

/// How an answer begins on the wire (RFC 9112 section 4).
fn status_line(status: StatusCode) -> String {
    format!("HTTP/1.1 {} {}\r\n", status.as_str(), status.canonical_reason().unwrap_or_default())
}

/// The pieces of a field line (RFC 9112 section 5).
fn line<'a>(name: &'a HeaderName, value: &'a HeaderValue) -> [&'a [u8]; 4] {
    [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"]
}

/// How long a stored answer serves for what. All spans but `fresh` begin where freshness ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Life {
    /// Freshness lifetime, counted in age (RFC 9111 section 4.2.1).
    pub fresh: Duration,
    /// Served stale while it is refreshed (RFC 5861 section 3).
    pub swr: Duration,
    /// Stands in for a failing origin (RFC 5861 section 4).
    pub sie: Duration,
    /// Kept for revalidation only.
    pub keep: Duration,
    /// Never served without successful validation (`no-cache`, RFC 9111 section 5.2.2.4).
    pub always_validate: bool,
    /// A request cannot ask for it once it is stale (`must-revalidate`, `proxy-revalidate`, `s-maxage`).
    pub must_revalidate: bool,
    /// Does not change while it is fresh: a reload (`max-age=0`) needs no validation (RFC 8246).
    pub immutable: bool,
}

impl Life {
    /// The age from which it is good for nothing.
    pub fn end(&self) -> Duration {
        self.fresh.saturating_add(self.swr.max(self.sie).max(self.keep))
    }
}

/// What the structures around one entry cost: entry and head with their counts, moka's node, lists and sketch, and what
/// an allocator adds to a dozen allocations. Measured: see `tests/memory.rs`.
const OVERHEAD: usize = 900;
/// A place in a header map: name, value, links, and its share of the index. It has more places than fields.
const FIELD: usize = size_of::<HeaderName>() + size_of::<HeaderValue>() + 40;
/// Another line of a field that is there already.
const FURTHER_LINE: usize = size_of::<HeaderValue>() + 32;
/// A boxed slice in a list: pointer, length, and what an allocator adds.
const PIECE: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    fn head(life: Life) -> Head {
        let moment = Clock::anchored(SystemTime::UNIX_EPOCH).moment();
        Head {
            status: StatusCode::OK,
            headers: HeaderMap::from_iter([(ETAG, HeaderValue::from_static("\"a\""))]),
            lines: Bytes::new(),
            life,
            initial_age: Duration::from_secs(5),
            received: moment.mono,
            date: moment.wall,
            etag: None,
            last_modified: None,
            vary: [HeaderName::from_static("foo"), HeaderName::from_static("gone")].into(),
            selecting: [Some(b"1".as_slice().into()), None].into(),
            address: "http://a/b?c 00000000000000ab erp".into(),
            groups: ["g1".into()].into(),
        }
    }

    #[test]
    fn weight_grows_with_all_that_is_kept() {
        let weight = |head: Head, body: usize| Entry::new(Arc::new(head), vec![0; body].into()).weight() as usize;
        let plain = || head(Life::default());
        let least = weight(plain(), 0);
        assert!(least > OVERHEAD);
        assert_eq!(weight(plain(), 1000), least + 1000);
        let with = |name: &'static str| {
            let mut head = plain();
            head.headers.append(name, HeaderValue::from_static("12345678"));
            head
        };
        assert!(weight(with("x-new"), 0) >= least + 5 + 8);
        assert!(weight(with("etag"), 0) >= least + 4 + 8 + FURTHER_LINE);
        let groups = Head { groups: vec!["g1".into(), "group2".into()].into(), ..plain() };
        assert_eq!(weight(groups, 0), least + PIECE + 6);
        assert_eq!(weight(Head { address: format!("{}xyz", plain().address).into(), ..plain() }, 0), least + 3);
    }

    #[test]
    fn a_compact_head_is_the_same_and_keeps_no_buffer_alive() {
        let buffer = Bytes::from(vec![b'a'; 64 * 1024]);
        let value = |range: std::ops::Range<usize>| HeaderValue::from_maybe_shared(buffer.slice(range)).unwrap();
        let mut head = head(Life::default());
        head.headers.insert("etag", value(0..10));
        head.headers.append("x-list", value(10..20));
        head.headers.append("x-list", HeaderValue::from_static("2"));
        head.headers.append("empty", HeaderValue::from_static(""));
        head.headers.append("secret", value(20..21));
        head.headers.iter_mut().for_each(|(name, value)| value.set_sensitive(name == "secret"));
        head.etag = Some(value(0..10));
        let before = head.clone();
        let compact = head.compact();
        assert_eq!(Head { lines: Bytes::new(), ..compact.clone() }, before);
        assert_eq!(compact.headers.iter().collect::<Vec<_>>(), before.headers.iter().collect::<Vec<_>>());
        assert!(compact.headers["secret"].is_sensitive() && !compact.headers["etag"].is_sensitive());
        assert!(!buffer.is_unique());
        let lines = std::str::from_utf8(&compact.lines).unwrap().strip_prefix("HTTP/1.1 200 OK\r\n").unwrap();
        let mut said = lines.split_terminator("\r\n").map(|line| line.split_once(": ").unwrap());
        assert!(
            before.headers.iter().all(|(name, value)| said.next() == Some((name.as_str(), value.to_str().unwrap())))
        );
        assert_eq!(said.next(), None);
        let tag_alone = Head { headers: HeaderMap::new(), ..before.clone() }.compact();
        assert_eq!(tag_alone.etag, before.etag);
        drop(before);
        assert!(buffer.is_unique(), "nothing but this test holds it");
    }

    #[test]
    fn age_grows_from_the_age_at_arrival() {
        let head = head(Life { fresh: Duration::from_secs(10), ..Life::default() });
        let after = |seconds| head.received + Duration::from_secs(seconds);
        assert_eq!(head.age(after(3)), Duration::from_secs(8));
        assert_eq!(head.staleness(after(4)), None);
        assert_eq!(head.staleness(after(5)), Some(Duration::ZERO)); // RFC 9111 section 4.2: lifetime > age
        assert_eq!(head.staleness(after(8)), Some(Duration::from_secs(3)));
    }

    #[test]
    fn the_selecting_fields_must_be_the_same() {
        // RFC 9111 section 4.1
        let head = head(Life::default());
        let check = |fields: &[(&'static str, &'static str)], selected: bool| {
            let request: HeaderMap = fields
                .iter()
                .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
                .collect();
            assert_eq!(head.selects(&request), selected, "{fields:?}");
        };
        check(&[("foo", "1")], true);
        check(&[("foo", " 1 "), ("other", "2")], true);
        check(&[("foo", "2")], false);
        check(&[("foo", "12")], false);
        check(&[("foo", "1"), ("foo", "1")], false);
        check(&[], false);
        check(&[("foo", "1"), ("gone", "")], false);
    }

    #[test]
    fn the_address_tells_url_and_partition() {
        let mut head = head(Life::default());
        assert_eq!((head.url(), head.partition()), ("http://a/b?c", Some("00000000000000ab")));
        assert_eq!(head.upstream(), "erp");
        head.address = "http://a/b - erp".into();
        assert_eq!((head.url(), head.partition(), head.is_to_post()), ("http://a/b", None, false));
        for (address, partition) in [("http://a/b -+0f erp", None), ("http://a/b 0a+0f erp", Some("0a"))] {
            head.address = address.into();
            assert_eq!((head.partition(), head.is_to_post()), (partition, true));
        }
    }

    #[test]
    fn life_ends_after_its_longest_window() {
        let secs = Duration::from_secs;
        let life = Life { fresh: secs(10), swr: secs(1), sie: secs(5), keep: secs(3), ..Life::default() };
        assert_eq!(life.end(), secs(15));
        assert_eq!(Life { fresh: Duration::MAX, ..life }.end(), Duration::MAX);
    }
}
