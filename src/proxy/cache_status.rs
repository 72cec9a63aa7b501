//! What Cache-Status (RFC 9211) says of an answer: a hit, or why the request went on to the upstream and what came of it.

use http::{HeaderValue, StatusCode};

use crate::cache::entry::Entry;
use crate::message::short::{Short, Text};
use crate::metrics::CacheResult;

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
        let mut text = Short::default();
        self.write(&mut text);
        text.value().unwrap_or(HeaderValue::from_static("vaxel"))
    }

    /// Appends the field's value.
    pub(super) fn write(self, to: &mut impl Text) {
        to.text("vaxel; fwd=").text(self.why);
        if let Some(status) = self.status {
            to.text("; fwd-status=").text(status.as_str());
        }
        if self.stored {
            to.text("; stored");
        }
        if self.collapsed {
            to.text("; collapsed");
        }
        if let Some(detail) = self.detail {
            to.text("; detail=").text(detail);
        }
    }
}

/// An answer that went no further than the store: `hit` and what is left of its freshness, negative when it is stale.
/// `age` in seconds.
pub(super) fn hit(to: &mut impl Text, entry: &Entry, age: u64, result: CacheResult) {
    let fresh = entry.head.life.fresh.as_secs();
    to.text(if fresh < age { "vaxel; hit; ttl=-" } else { "vaxel; hit; ttl=" }).number(fresh.abs_diff(age));
    if result == CacheResult::StaleError {
        to.text("; detail=stale_if_error");
    }
}
