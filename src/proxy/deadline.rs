//! A deadline that travels: its caller says in a field how long it waits. The queue, the attempts and a body for it alone
//! end by then, and the upstream is told what is left.
//!
//! It bounds what is done for this caller, not what is shared: a fill goes on for the others and for the store, without
//! the field. A deadline that passes says nothing of the upstream: the slot stays taken as if the client had left, and
//! neither breaker nor health learns of it.

use std::future::Future;
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderName};
use tokio::time::timeout_at;

use super::snapshot::Route;
use crate::message::deadline::{self, Spelling};
use crate::refusal::{Reason, Refusal};

/// Until when the caller of a request waits.
#[derive(Debug, Clone)]
pub(super) struct Deadline {
    /// Then it does not wait any more.
    pub(super) at: Instant,
    field: HeaderName,
    spelling: Spelling,
}

impl Deadline {
    /// What a request that began at `started` says, if its route wants to know and it can be read.
    pub(super) fn of(route: &Route, headers: &HeaderMap, started: Instant) -> Option<Self> {
        let field = route.deadline.as_ref()?;
        let (time, spelling) = deadline::read(headers.get(field)?)?;
        // No exchange takes longer than this.
        let at = started + time.min(route.upstream.timeouts.total);
        Some(Self { at, field: field.clone(), spelling })
    }

    /// Tells the next hop.
    pub(super) fn write(&self, headers: &mut HeaderMap, left: Duration) {
        if let Some(value) = deadline::write(left, self.spelling) {
            headers.insert(&self.field, value);
        }
    }

    /// Takes the field out: what is asked for is for others too.
    pub(super) fn drop_from(self, headers: &mut HeaderMap) {
        headers.remove(self.field);
    }
}

/// Whether the caller waits no longer.
///
/// # Errors
/// `deadline.exceeded`.
pub(super) fn check(deadline: Option<Instant>, now: impl FnOnce() -> Instant) -> Result<(), Refusal> {
    match deadline {
        Some(at) if at <= now() => Err(Reason::DeadlineExceeded.into()),
        _ => Ok(()),
    }
}

/// Waits for `future` as long as the caller does.
///
/// # Errors
/// `deadline.exceeded`.
pub(super) async fn within<T>(deadline: Option<Instant>, future: impl Future<Output = T>) -> Result<T, Refusal> {
    match deadline {
        None => Ok(future.await),
        // Rare, and large to carry in every request.
        Some(at) => Box::pin(timeout_at(at.into(), future)).await.map_err(|_| Reason::DeadlineExceeded.into()),
    }
}
