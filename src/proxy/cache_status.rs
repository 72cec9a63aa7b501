//! What Cache-Status (RFC 9211) says of an answer: a hit, or why the request went on to the upstream and what came of it.

use std::fmt::Write as _;
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderValue, StatusCode};

use crate::cache::entry::Entry;

/// A forwarded request: `fwd` and its companions (RFC 9211 sections 2.2 to 2.8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Forward {
    /// Why it was forwarded.
    pub(super) why: &'static str,
    /// The upstream's status, where it is known and not the answer's own.
    pub(super) status: Option<StatusCode>,
    /// Whether the answer is stored.
    pub(super) stored: bool,
    /// Whether it shared another request's answer.
    pub(super) collapsed: bool,
    /// More exactly.
    pub(super) detail: Option<&'static str>,
}

impl Forward {
    /// A forwarded request.
    pub(super) const fn new(why: &'static str) -> Self {
        Self { why, status: None, stored: false, collapsed: false, detail: None }
    }

    /// With what the upstream answered.
    pub(super) const fn answered(mut self, status: StatusCode) -> Self {
        self.status = Some(status);
        self
    }

    /// The field's value.
    pub(super) fn value(self) -> HeaderValue {
        let mut text = String::with_capacity(64);
        let _ = write!(text, "vaxel; fwd={}", self.why);
        if let Some(status) = self.status {
            let _ = write!(text, "; fwd-status={}", status.as_u16());
        }
        if self.stored {
            text.push_str("; stored");
        }
        if self.collapsed {
            text.push_str("; collapsed");
        }
        if let Some(detail) = self.detail {
            let _ = write!(text, "; detail={detail}");
        }
        finish(text)
    }
}

/// An answer that went no further than the store: `hit` and what is left of its freshness, negative when it is stale.
pub(super) fn hit(entry: &Entry, now: Instant, detail: Option<&'static str>) -> HeaderValue {
    let fresh = i128::from(entry.head.life.fresh.as_secs());
    let age = i128::from(entry.age(now).as_secs());
    let mut text = String::with_capacity(40);
    let _ = write!(text, "vaxel; hit; ttl={}", fresh - age);
    if let Some(detail) = detail {
        let _ = write!(text, "; detail={detail}");
    }
    finish(text)
}

fn finish(text: String) -> HeaderValue {
    HeaderValue::from_maybe_shared(Bytes::from(text)).unwrap_or(HeaderValue::from_static("vaxel"))
}
