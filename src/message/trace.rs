//! The trace a request belongs to: the `traceparent` field of W3C Trace Context. It is relayed as it came, unless the
//! request is traced here too: then the upstream's parent is our span. Read for the access log and for the exemplars of
//! the metrics as well.

use std::fmt;
use std::num::{NonZeroU64, NonZeroU128};

use http::{HeaderMap, HeaderName};

/// The field's name.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The field beside it that holds what single vendors want to know.
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// What a valid `traceparent` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceParent<'a> {
    /// The trace id: 32 digits of lowercase hex, not all zero.
    pub id: &'a str,
    /// The caller's span: 16 digits, not all zero.
    pub parent: &'a str,
    /// Whether the caller records the trace: only then can it be looked up later.
    pub sampled: bool,
}

/// A trace id as a number; shown in 32 digits of lowercase hex.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceId(NonZeroU128);

impl<'a> TraceParent<'a> {
    /// Reads a field's value (W3C Trace Context, section 3.2.2): version, trace id, parent id and flags in lowercase hex;
    /// version `ff` and an id of zeros are invalid, and only a version after `00` may have more parts.
    pub fn read(field: &'a [u8]) -> Option<Self> {
        let mut parts = std::str::from_utf8(field).ok()?.split('-');
        let (version, id, parent, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let hex =
            |part: &str, len| part.len() == len && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let shaped = hex(version, 2) && hex(id, 32) && hex(parent, 16) && hex(flags, 2);
        let ended = version != "00" || parts.next().is_none();
        let meant = version != "ff" && !is_zero(id) && !is_zero(parent);
        // Bit 0 of the flags (section 3.2.2.5.1).
        let sampled = u8::from_str_radix(flags, 16).is_ok_and(|flags| flags & 1 == 1);
        (shaped && ended && meant).then_some(Self { id, parent, sampled })
    }
}

impl TraceParent<'_> {
    /// The trace, as a number.
    pub fn trace(&self) -> Option<TraceId> {
        NonZeroU128::new(u128::from_str_radix(self.id, 16).ok()?).map(TraceId)
    }

    /// The caller's span, as a number.
    pub fn span(&self) -> Option<u64> {
        u64::from_str_radix(self.parent, 16).ok()
    }
}

impl TraceId {
    /// The trace of a request, if its caller records it.
    pub fn sampled(headers: &HeaderMap) -> Option<Self> {
        TraceParent::read(headers.get(TRACEPARENT)?.as_bytes()).filter(|parent| parent.sampled)?.trace()
    }

    /// A new one, out of drawn numbers.
    pub fn drawn(high: u64, low: u64) -> Self {
        Self(NonZeroU128::new(u128::from(high) << 64 | u128::from(low)).unwrap_or(NonZeroU128::MIN))
    }

    /// As it goes over the wire.
    pub const fn bytes(self) -> [u8; 16] {
        self.0.get().to_be_bytes()
    }
}

/// A span of a recorded trace. Shown as `traceparent` has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Context {
    /// Its trace.
    pub trace: TraceId,
    span: NonZeroU64,
}

impl Context {
    /// A span; `drawn` is a drawn number.
    pub fn new(trace: TraceId, drawn: u64) -> Self {
        Self { trace, span: NonZeroU64::new(drawn).unwrap_or(NonZeroU64::MIN) }
    }

    /// Its child of this number: always the same, so that it can be named before anything is known of it.
    #[must_use]
    pub fn child(self, number: u32) -> Self {
        // The finalizer of SplitMix64, which maps different numbers to different ones.
        let mixed = self.span.get().wrapping_add(u64::from(number).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Self::new(self.trace, mixed ^ (mixed >> 31))
    }

    /// The span as it goes over the wire.
    pub const fn span_bytes(self) -> [u8; 8] {
        self.span.get().to_be_bytes()
    }
}

impl fmt::Display for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{:016x}-01", self.trace, self.span)
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

fn is_zero(id: &str) -> bool {
    id.bytes().all(|byte| byte == b'0')
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[track_caller]
    fn check(field: &str, expected: Option<(&str, bool)>) {
        let found = TraceParent::read(field.as_bytes());
        assert_eq!(found.map(|parent| (parent.id, parent.sampled)), expected, "{field}");
        let headers = HeaderMap::from_iter([(TRACEPARENT, HeaderValue::from_str(field).unwrap())]);
        let sampled = expected.filter(|(_, sampled)| *sampled).map(|(id, _)| id.to_owned());
        assert_eq!(TraceId::sampled(&headers).map(|id| id.to_string()), sampled, "{field}");
    }

    #[test]
    fn only_a_valid_parent_has_a_trace() {
        const ID: &str = "0af7651916cd43dd8448eb211c80319c";
        let parent = |version: &str, id: &str, parent: &str, rest: &str| format!("{version}-{id}-{parent}-{rest}");
        let good = "b7ad6b7169203331";
        check(&parent("00", ID, good, "01"), Some((ID, true)));
        check(&parent("00", ID, good, "00"), Some((ID, false)));
        check(&parent("00", ID, good, "02"), Some((ID, false)));
        check(&parent("00", ID, good, "0b"), Some((ID, true)));
        check(&parent("cc", ID, good, "01-what-comes-later"), Some((ID, true)));
        check(&parent("00", ID, good, "01-what-comes-later"), None);
        check(&parent("ff", ID, good, "01"), None);
        check(&parent("00", &"0".repeat(32), good, "01"), None);
        check(&parent("00", ID, &"0".repeat(16), "01"), None);
        check(&parent("00", &ID.to_uppercase(), good, "01"), None);
        check(&parent("00", &ID[1..], good, "01"), None);
        check(&parent("00", ID, good, "1"), None);
        check("00", None);
        check("", None);
    }

    #[test]
    fn a_context_is_written_as_a_parent_that_reads_back() {
        let context = Context::new(TraceId::drawn(1, 2), 3);
        let text = context.to_string();
        assert_eq!(text, "00-00000000000000010000000000000002-0000000000000003-01");
        let parent = TraceParent::read(text.as_bytes()).unwrap();
        assert_eq!((parent.trace(), parent.span(), parent.sampled), (Some(context.trace), Some(3), true));
        assert_eq!(context.child(1), context.child(1));
        let spans: std::collections::HashSet<_> = (0..1_000).map(|number| context.child(number).span_bytes()).collect();
        assert_eq!(spans.len(), 1_000);
        assert!(TraceParent::read(Context::new(TraceId::drawn(0, 0), 0).to_string().as_bytes()).is_some());
    }

    #[test]
    fn leading_zeros_of_an_id_are_shown() {
        let id = format!("{:032x}", 7);
        check(&format!("00-{id}-b7ad6b7169203331-01"), Some((&id, true)));
    }
}
