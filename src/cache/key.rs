//! The key of a request: 128 bits over scheme, host, path, the query parameters that count, upstream and partition;
//! and of a variant: the same plus the request fields an answer was selected by (RFC 9111 sections 2 and 4.1).
//!
//! No two lists of pieces run into each other, as their lengths are hashed with them. The hash is fast, not
//! cryptographic: an entry keeps its key in clear ([`KeyParts::address`]) and a hit compares it.

use std::hash::{BuildHasher, Hasher};

use foldhash::quality::{FixedState, FoldHasher};
use http::header::{ACCEPT_ENCODING, ACCEPT_LANGUAGE, AUTHORIZATION, COOKIE};
use http::{HeaderMap, HeaderName};

use crate::cache::{QueryRule, loose_name};

/// A key: two hashes of the same pieces under different seeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(pub u128);

impl Key {
    /// The key of the flight that brings what is at this place in its generation `generation`.
    pub const fn in_generation(self, generation: u64) -> Self {
        // Odd, so that different generations give different keys.
        Self(self.0 ^ (generation as u128).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835))
    }
}

/// What a key is made of. The parts are taken as they are: the caller normalises scheme, host (lower case, no default
/// port) and path once, before routing and key alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyParts<'a> {
    /// `http` or `https`.
    pub scheme: &'a str,
    /// Host, with a port where it is not the default.
    pub host: &'a str,
    /// The normalised path, beginning with `/`.
    pub path: &'a str,
    /// What stands after `?`.
    pub query: Option<&'a str>,
    /// The name of the upstream asked: two routes may send one URL to different backends.
    pub upstream: &'a str,
    /// Whose answers these are ([`Keyer::partition`]); `None`: everybody's.
    pub partition: Option<u64>,
    /// Of a POST that only reads: the digest of its body ([`PostRule`](crate::cache::canonical::PostRule::digest)).
    pub body: Option<[u8; 32]>,
}

impl KeyParts<'_> {
    /// The key in clear: `URL partition upstream`, separated by spaces (a URL holds none); `-` stands for no partition,
    /// and the digest of a body follows it after a `+`.
    pub fn address(&self, rule: &QueryRule) -> Box<str> {
        let length = self.scheme.len() + self.host.len() + self.path.len() + self.query.map_or(0, str::len);
        let mut address = String::with_capacity(length + self.upstream.len() + self.body.map_or(24, |_| 96));
        self.each_piece(rule, &mut |piece| {
            address.push_str(piece);
            true
        });
        address.into_boxed_str()
    }

    /// The same, with what is hashed of it, on the stack where it is not long.
    pub fn clear(&self, rule: &QueryRule) -> Clear {
        let mut clear = Clear { short: [0; SHORT], long: Vec::new(), length: 0, address: 0 };
        let mut pieces = 0;
        self.each_piece(rule, &mut |piece| {
            clear.push(piece.as_bytes());
            pieces += 1;
            true
        });
        clear.address = clear.length;
        // With the number of pieces, these tell where each of them begins; a scheme ends at its colon.
        let lengths = [self.host.len(), self.path.len(), self.upstream.len(), pieces];
        let shape = lengths.iter().fold(0, |shape, length| shape << 32 | *length as u128);
        clear.push(&shape.to_le_bytes());
        clear
    }

    /// Whether `address` is the address of these parts, without building it.
    pub fn is_at(&self, address: &str, rule: &QueryRule) -> bool {
        let mut rest = address;
        let prefixed = self.each_piece(rule, &mut |piece| match rest.strip_prefix(piece) {
            Some(after) => {
                rest = after;
                true
            }
            None => false,
        });
        prefixed && rest.is_empty()
    }

    /// Hands the pieces of the address to `sink` until it says no; whether it took them all.
    fn each_piece(&self, rule: &QueryRule, sink: &mut impl FnMut(&str) -> bool) -> bool {
        let mut separator = "?";
        [self.scheme, "://", self.host, self.path].into_iter().all(&mut *sink)
            && each_parameter(self.query, rule, &mut |parameter| {
                sink(std::mem::replace(&mut separator, "&")) && sink(parameter)
            })
            && match (self.partition, self.body) {
                (None, None) => return sink(" - ") && sink(self.upstream),
                (None, Some(_)) => sink(" -"),
                (Some(partition), _) => {
                    sink(" ") && sink(std::str::from_utf8(&hexadecimal(partition)).unwrap_or_default())
                }
            }
            && self.body.is_none_or(|digest| {
                let mut pieces = digest
                    .chunks_exact(8)
                    .map(|piece| hexadecimal(piece.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))));
                sink("+") && pieces.all(|piece| sink(std::str::from_utf8(&piece).unwrap_or_default()))
            })
            && sink(" ")
            && sink(self.upstream)
    }
}

/// A key in clear, made once for a request: hashed to find what is stored, and compared with that.
#[derive(Debug)]
pub struct Clear {
    short: [u8; SHORT],
    /// All of it, where it is too long for that.
    long: Vec<u8>,
    length: usize,
    /// How much of it is the address.
    address: usize,
}

impl Clear {
    fn push(&mut self, bytes: &[u8]) {
        let end = self.length + bytes.len();
        match self.short.get_mut(self.length..end) {
            Some(place) => place.copy_from_slice(bytes),
            None => {
                if self.long.is_empty() {
                    self.long.extend_from_slice(self.short.get(..self.length).unwrap_or_default());
                }
                self.long.extend_from_slice(bytes);
            }
        }
        self.length = end;
    }

    fn hashed(&self) -> &[u8] {
        if self.long.is_empty() { self.short.get(..self.length).unwrap_or_default() } else { &self.long }
    }

    /// As [`KeyParts::address`] has it.
    pub fn address(&self) -> &[u8] {
        self.hashed().get(..self.address).unwrap_or_default()
    }
}

/// Makes keys. Two keyers with the same seed make the same keys; the seed is drawn once per process, so that nobody
/// outside can prepare collisions.
#[derive(Debug, Clone)]
pub struct Keyer {
    low: FixedState,
    high: FixedState,
}

impl Keyer {
    /// A keyer; `seed` is a drawn number.
    pub const fn new(seed: u64) -> Self {
        // The second seed must differ from the first for every seed; SplitMix64's increment, odd, serves.
        Self { low: FixedState::with_seed(seed), high: FixedState::with_seed(!seed ^ 0x9e37_79b9_7f4a_7c15) }
    }

    /// The key of a request. Allocates only where `rule` sorts, or its address is long.
    pub fn primary(&self, parts: &KeyParts<'_>, rule: &QueryRule) -> Key {
        self.of(&parts.clear(rule))
    }

    /// The same, where the key is there in clear.
    pub fn of(&self, clear: &Clear) -> Key {
        let mut mixer = self.mixer();
        mixer.low.write(clear.hashed());
        mixer.high.write(clear.hashed());
        mixer.finish()
    }

    /// The key of the URL of `parts`, whoever asks; `primary` is their key.
    pub fn url(&self, primary: Key, parts: &KeyParts<'_>, rule: &QueryRule) -> Key {
        match parts {
            KeyParts { partition: None, body: None, .. } => primary,
            _ => self.primary(&KeyParts { partition: None, body: None, ..*parts }, rule),
        }
    }

    /// The key of the variant of `primary` that a request with `headers` selects by the fields `vary` (in normal form,
    /// RFC 9111 section 4.1). `vary` must be in the order of [`Head::vary`](crate::cache::entry::Head::vary).
    pub fn variant(&self, primary: Key, vary: &[HeaderName], headers: &HeaderMap) -> Key {
        let mut mixer = self.mixer();
        mixer.piece(&primary.0.to_le_bytes());
        for name in vary {
            mixer.piece(name.as_str().as_bytes());
            match normal(name, headers) {
                None => mixer.number(0),
                Some(value) => {
                    mixer.number(1);
                    mixer.stream(value);
                }
            }
        }
        mixer.finish()
    }

    /// The partition of an identity: `consumer` (a number the caller gives each consumer) and all credentials in the
    /// request, for one consumer may speak for many users, and one Authorization for many sessions. Different
    /// credentials never share answers, at the price of a partition per session.
    pub fn partition(&self, consumer: u64, headers: &HeaderMap) -> u64 {
        let mut mixer = self.mixer();
        mixer.number(consumer);
        for field in [AUTHORIZATION, COOKIE] {
            for credential in headers.get_all(&field) {
                mixer.piece(field.as_str().as_bytes());
                mixer.piece(credential.as_bytes());
            }
        }
        mixer.low.finish()
    }

    /// The number of something that has a name, the same in all configurations.
    pub fn number(&self, name: &str) -> u64 {
        let mut mixer = self.mixer();
        mixer.piece(name.as_bytes());
        mixer.low.finish()
    }

    /// Collects the pieces of a number.
    pub(super) fn pieces(&self) -> Pieces {
        Pieces { mixer: self.mixer(), any: false }
    }

    fn mixer(&self) -> Mixer {
        Mixer { low: self.low.build_hasher(), high: self.high.build_hasher() }
    }
}

/// The normal form of a request field that selects a variant (RFC 9111 section 4.1): the lines in order, joined by `,`,
/// without the whitespace around commas. A field whose lines may be joined has it as a list separator, and no other
/// field can mean anything by whitespace there. Of Accept-Encoding and Accept-Language, whose syntax allows it, all
/// whitespace and case are dropped as well. `None` where the field is absent, which differs from an empty one.
pub(crate) fn normal<'a>(name: &HeaderName, headers: &'a HeaderMap) -> Option<impl Iterator<Item = u8> + 'a> {
    let lines = headers.get_all(name);
    lines.iter().next()?;
    let loose = *name == ACCEPT_ENCODING || *name == ACCEPT_LANGUAGE;
    let pieces = lines.into_iter().flat_map(|line| {
        let mut quoted = false;
        line.as_bytes().split(move |byte| {
            quoted ^= *byte == b'"';
            *byte == b',' && !quoted
        })
    });
    let bytes = pieces.enumerate().flat_map(|(position, piece)| {
        let separator: &[u8] = if position == 0 { b"" } else { b"," };
        separator.iter().chain(piece.trim_ascii()).copied()
    });
    Some(
        bytes
            .filter(move |byte| !(loose && matches!(byte, b' ' | b'\t')))
            .map(move |byte| if loose { byte.to_ascii_lowercase() } else { byte }),
    )
}

/// Hands the parameters that count to `sink` until it says no; whether it took them all. Without a rule the query is
/// one piece.
pub(crate) fn each_parameter(query: Option<&str>, rule: &QueryRule, sink: &mut impl FnMut(&str) -> bool) -> bool {
    let Some(query) = query else { return true };
    if rule.is_empty() {
        return sink(query);
    }
    let mut parameters = query.split('&').filter(|parameter| !parameter.is_empty() && rule.counts(parameter));
    // Where `;` separates for the origin, its order is not ours to change.
    if rule.sort && !query.contains(';') {
        let mut sorted: Vec<_> = parameters.collect();
        // Stable: repeated names keep their order, also if they are spelled in different ways.
        sorted.sort_by_cached_key(|parameter| loose_name(parameter.as_bytes()));
        sorted.into_iter().all(sink)
    } else {
        parameters.all(sink)
    }
}

/// Longer than most addresses.
const SHORT: usize = 256;

fn hexadecimal(number: u64) -> [u8; 16] {
    let mut digits = [0; 16];
    for (position, digit) in digits.iter_mut().rev().enumerate() {
        let nibble = (number >> (4 * position) & 0xf) as u8;
        *digit = if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 };
    }
    digits
}

/// Named pieces of a number, if there are any.
pub(super) struct Pieces {
    mixer: Mixer,
    any: bool,
}

impl Pieces {
    /// One more; order counts.
    pub(super) fn add(&mut self, name: &[u8], value: &[u8]) {
        self.any = true;
        self.mixer.piece(name);
        self.mixer.piece(value);
    }

    /// The number; `None` without pieces.
    pub(super) fn finish(self) -> Option<u64> {
        self.any.then(|| self.mixer.low.finish())
    }
}

/// Feeds the same pieces to both hashes.
struct Mixer {
    low: FoldHasher<'static>,
    high: FoldHasher<'static>,
}

impl Mixer {
    fn number(&mut self, number: u64) {
        self.low.write_u64(number);
        self.high.write_u64(number);
    }

    fn piece(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.low.write(bytes);
        self.high.write(bytes);
    }

    /// A piece that comes byte by byte, hashed in blocks so that nothing is allocated. The length stands at its end.
    fn stream(&mut self, bytes: impl Iterator<Item = u8>) {
        let mut block = [0_u8; 64];
        let (mut filled, mut total) = (0, 0_u64);
        for byte in bytes {
            if let Some(place) = block.get_mut(filled) {
                *place = byte;
            }
            filled += 1;
            total += 1;
            if filled == block.len() {
                self.low.write(&block);
                self.high.write(&block);
                filled = 0;
            }
        }
        let rest = block.get(..filled).unwrap_or_default();
        self.low.write(rest);
        self.high.write(rest);
        self.number(total);
    }

    fn finish(self) -> Key {
        Key(u128::from(self.high.finish()) << 64 | u128::from(self.low.finish()))
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    const PARTS: KeyParts<'_> = KeyParts {
        scheme: "https",
        host: "erp.example",
        path: "/a",
        query: None,
        upstream: "erp",
        partition: None,
        body: None,
    };

    fn rule(sort: bool, drop: &[&str], keep: Option<&[&str]>) -> QueryRule {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        QueryRule { sort, drop: owned(drop), keep: keep.map(owned) }
    }

    /// Whether two queries are the same by `rule`: for keys, for addresses, and for the comparison on a hit.
    fn check(rule: &QueryRule, one: Option<&str>, other: Option<&str>, same: bool) {
        let keyer = Keyer::new(7);
        let (one, other) = (KeyParts { query: one, ..PARTS }, KeyParts { query: other, ..PARTS });
        assert_eq!(keyer.primary(&one, rule) == keyer.primary(&other, rule), same, "key: {one:?} {other:?} {rule:?}");
        assert_eq!(one.address(rule) == other.address(rule), same, "address: {one:?} {other:?} {rule:?}");
        assert_eq!(other.is_at(&one.address(rule), rule), same, "hit: {one:?} {other:?} {rule:?}");
    }

    #[test]
    fn the_query_counts_by_its_rule() {
        let plain = QueryRule::default();
        check(&plain, Some("a=1&b=2"), Some("a=1&b=2"), true);
        check(&plain, Some("a=1&b=2"), Some("b=2&a=1"), false);
        check(&plain, None, Some(""), false);
        check(&plain, Some("a"), Some("a="), false);
        let sorted = rule(true, &[], None);
        check(&sorted, Some("b=2&a=1"), Some("a=1&b=2"), true);
        check(&sorted, Some("a=1&a=2"), Some("a=2&a=1"), false);
        check(&sorted, Some("b&a=2&a=1"), Some("a=2&b&a=1"), true);
        check(&sorted, Some("a=1&&b"), Some("b&a=1"), true);
        check(&sorted, Some("a=1&b"), Some("a=1%26b"), false);
        let dropped = rule(false, &["sap-client", "_"], None);
        check(&dropped, Some("_=1&a=1"), Some("a=1&_=2"), true);
        check(&dropped, Some("_=1"), None, true);
        check(&dropped, Some("_x=1"), None, false);
        check(&dropped, Some("a=1"), Some("a=2&_=1"), false);
        let kept = rule(true, &["b"], Some(&["a", "b", "c"]));
        check(&kept, Some("x=1&c=2&a=1"), Some("a=1&c=2&y=9"), true);
        check(&kept, Some("a=1&b=1"), Some("a=1&b=2"), true);
        check(&kept, Some("a=1"), Some("A=1"), false);
        // What some server takes for a name that counts, counts.
        let kept = rule(false, &[], Some(&["id"]));
        for other in ["i%64=2", "%69d=2", "ID=2", "+id=2", "id%20=2", "id[]=2", "id%5B0%5D=2", "x=1;id=2", "x;id=2"] {
            check(&kept, Some(other), None, false);
            check(&kept, Some(&format!("id=1&{other}")), Some("id=1"), false);
        }
        let dropped = rule(false, &["utm"], None);
        check(&dropped, Some("utm=1;id=2"), None, false);
        check(&dropped, Some("UTM=1"), None, false);
        // Of one name in two spellings servers take the first, or the last.
        for (one, other) in [("a=1&%61=2", "%61=2&a=1"), ("a=1&A=2", "A=2&a=1"), ("a=1;b=2&b=3", "b=3&a=1;b=2")] {
            check(&sorted, Some(one), Some(other), false);
        }
        check(&sorted, Some("%62=1&a=1"), Some("a=1&%62=1"), true);
    }

    #[test]
    fn every_part_counts_and_none_runs_into_another() {
        let keyer = Keyer::new(7);
        let plain = QueryRule::default();
        let others = [
            PARTS,
            KeyParts { scheme: "http", ..PARTS },
            KeyParts { host: "erp.example/a", path: "", ..PARTS },
            KeyParts { path: "/", query: Some("a"), ..PARTS },
            KeyParts { path: "/a?", ..PARTS },
            KeyParts { query: Some(""), ..PARTS },
            KeyParts { upstream: "er", ..PARTS },
            KeyParts { upstream: "", path: "/aerp", ..PARTS },
            KeyParts { partition: Some(0), ..PARTS },
            KeyParts { partition: Some(1), ..PARTS },
            KeyParts { body: Some([0; 32]), ..PARTS },
            KeyParts { body: Some([1; 32]), ..PARTS },
        ];
        let keys: std::collections::HashSet<_> = others.iter().map(|parts| keyer.primary(parts, &plain)).collect();
        assert_eq!(keys.len(), others.len());
        assert_eq!(&*PARTS.address(&plain), "https://erp.example/a - erp");
        let full = KeyParts { query: Some("x=1"), partition: Some(0xab), ..PARTS };
        assert_eq!(&*full.address(&plain), "https://erp.example/a?x=1 00000000000000ab erp");
        assert_ne!(Keyer::new(8).primary(&PARTS, &plain), keyer.primary(&PARTS, &plain));
        assert_eq!(Keyer::new(7).primary(&PARTS, &plain), keyer.primary(&PARTS, &plain));
    }

    fn request(fields: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::try_from(*value).unwrap());
        }
        headers
    }

    /// Whether two requests select the same variant by the fields `vary`.
    fn check_variant(vary: &[&'static str], one: &[(&'static str, &str)], other: &[(&'static str, &str)], same: bool) {
        let keyer = Keyer::new(7);
        let names: Vec<_> = vary.iter().map(|name| HeaderName::from_static(name)).collect();
        let primary = Key(5);
        let key = |fields| keyer.variant(primary, &names, &request(fields));
        assert_eq!(key(one) == key(other), same, "{vary:?} {one:?} {other:?}");
        assert_ne!(key(one), keyer.variant(Key(6), &names, &request(one)));
    }

    #[test]
    fn variants_are_selected_by_the_normal_form_of_fields() {
        // RFC 9111 section 4.1
        check_variant(&["foo"], &[("foo", "1")], &[("foo", "1"), ("bar", "2")], true);
        check_variant(&["foo"], &[("foo", "1")], &[("foo", "2")], false);
        check_variant(&["foo"], &[("foo", "1")], &[], false);
        check_variant(&["foo"], &[("foo", "")], &[], false);
        check_variant(&["foo"], &[], &[("bar", "1")], true);
        check_variant(&["foo"], &[("foo", "1"), ("foo", "2")], &[("foo", "1, 2")], true);
        check_variant(&["foo"], &[("foo", "2"), ("foo", "1")], &[("foo", "1, 2")], false);
        check_variant(&["foo"], &[("foo", " 1\t")], &[("foo", "1")], true);
        check_variant(&["foo"], &[("foo", "1,2")], &[("foo", " 1\t, 2 ")], true);
        check_variant(&["foo"], &[("foo", "\"1,2\"")], &[("foo", "\"1, 2\"")], false);
        check_variant(&["foo"], &[("foo", "\"1"), ("foo", "2")], &[("foo", "\"1"), ("foo", "3")], false);
        check_variant(&["foo"], &[("foo", "A")], &[("foo", "a")], false);
        check_variant(&["foo"], &[("foo", "a b")], &[("foo", "ab")], false);
        check_variant(
            &["accept-encoding"],
            &[("accept-encoding", "GZIP,br;q=1")],
            &[("accept-encoding", "gzip, br; q=1")],
            true,
        );
        check_variant(
            &["accept-encoding"],
            &[("accept-encoding", "br, gzip")],
            &[("accept-encoding", "gzip, br")],
            false,
        );
        check_variant(
            &["accept-language"],
            &[("accept-language", "de-DE"), ("accept-language", "en")],
            &[("accept-language", "de-de,EN")],
            true,
        );
        check_variant(&["bar", "foo"], &[("bar", "1"), ("foo", "2")], &[("bar", "2"), ("foo", "1")], false);
        check_variant(&["bar", "foo"], &[("bar", "1")], &[("foo", "1")], false);
        let long = "x".repeat(200);
        let longer = "x".repeat(201);
        check_variant(&["foo"], &[("foo", &long)], &[("foo", &longer)], false);
        check_variant(&["foo"], &[("foo", &long)], &[("foo", &long)], true);
    }

    #[test]
    fn a_partition_belongs_to_one_consumer_and_one_set_of_credentials() {
        let keyer = Keyer::new(7);
        let partition = |consumer, fields: &[_]| keyer.partition(consumer, &request(fields));
        assert_eq!(partition(1, &[]), partition(1, &[("foo", "1")]));
        assert_ne!(partition(1, &[]), partition(2, &[]));
        assert_ne!(partition(1, &[("authorization", "a")]), partition(1, &[("authorization", "b")]));
        assert_ne!(partition(1, &[("authorization", "a")]), partition(1, &[("authorization", "a"), ("cookie", "b")]));
        assert_ne!(partition(1, &[("authorization", "a")]), partition(1, &[("cookie", "a")]));
        assert_ne!(partition(1, &[("cookie", "a")]), partition(1, &[("cookie", "b")]));
    }

    proptest! {
        #[test]
        fn keys_are_equal_exactly_when_the_parts_that_count_are(
            one in ("[ab]{0,2}", "[ab/]{0,2}", proptest::option::of("[ab=&]{0,6}"), "[ab]{0,1}", proptest::option::of(0..2_u64)),
            other in ("[ab]{0,2}", "[ab/]{0,2}", proptest::option::of("[ab=&]{0,6}"), "[ab]{0,1}", proptest::option::of(0..2_u64)),
            sort: bool, drop in proptest::option::of("[ab]?"), keep in proptest::option::of("[ab]?"),
        ) {
            let rule = QueryRule { sort, drop: drop.into_iter().collect(), keep: keep.map(|name| vec![name]) };
            let parts = |(host, path, query, upstream, partition)| {
                let (host, path, query, upstream): (&String, &String, &Option<String>, &String) = (host, path, query, upstream);
                KeyParts { scheme: "http", host, path, query: query.as_deref(), upstream, partition, body: None }
            };
            let one = parts((&one.0, &one.1, &one.2, &one.3, one.4));
            let other = parts((&other.0, &other.1, &other.2, &other.3, other.4));
            let selected = |parts: &KeyParts<'_>| {
                let mut counting: Vec<String> = Vec::new();
                each_parameter(parts.query, &rule, &mut |parameter| { counting.push(parameter.to_owned()); true });
                counting
            };
            let same = (one.host, one.path, one.upstream, one.partition) == (other.host, other.path, other.upstream, other.partition)
                && selected(&one) == selected(&other);
            let keyer = Keyer::new(3);
            prop_assert_eq!(keyer.primary(&one, &rule) == keyer.primary(&other, &rule), same);
            prop_assert!(one.is_at(&one.address(&rule), &rule));
            if same {
                prop_assert!(other.is_at(&one.address(&rule), &rule));
            }
        }
    }
}
