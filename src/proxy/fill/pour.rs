//! The body of a fill on its way to all who read it, and at its end into the store.

use std::sync::Arc;
use std::time::Instant;

use http::HeaderMap;

use super::super::held::Held;
use super::super::lookup::{self, Address};
use super::super::snapshot::{Route, Snapshot, Worker};
use crate::cache::entry::{Entry, Head};
use crate::cache::fence::Mark;
use crate::cache::flight::{Fill, Flow};
use crate::cache::key::Key;
use crate::cache::media::Expectation;
use crate::metrics::CacheEvent;
use crate::upstream::body::ReplyBody;

/// When a request was sent, and where the fences stood then.
#[derive(Clone, Copy)]
pub(in crate::proxy) struct Read {
    pub(in crate::proxy) sent: Instant,
    pub(super) mark: Mark,
}

impl Read {
    /// A request for `address` is about to be sent, at `now`; `None`: its route stores nothing.
    pub(in crate::proxy) fn at(worker: &Worker, route: &Route, address: &Address, now: Instant) -> Option<Self> {
        let mark = lookup::fences(&worker.core, route, route.cache.as_ref()?, address.url()).mark();
        Some(Self { sent: now, mark })
    }
}

/// Where a fill's answer belongs.
pub(super) struct Place {
    pub(super) worker: Arc<Worker>,
    pub(super) primary: Key,
    /// The key it was led under.
    pub(super) flight: Key,
    pub(super) address: Address,
    /// The configuration, and the route in it.
    pub(super) route: (Arc<Snapshot>, usize),
    /// The fields it was asked for with.
    pub(super) asked: HeaderMap,
    pub(super) read: Read,
}

impl Place {
    /// Stores what was read, unless something was written since, or it does not end as it should; whether it did.
    pub(super) fn store(&self, entry: Arc<Entry>) -> bool {
        let core = &self.worker.core;
        let route = self.route.0.routes.get(self.route.1);
        let Some((route, params)) = route.and_then(|route| Some((route, route.cache.as_ref()?))) else { return false };
        let expectation = params.expect.as_ref().filter(|_| Expectation::concerns(entry.head.status));
        if expectation.is_some_and(|expectation| !expectation.ends_well(&entry.head.headers, &entry.body)) {
            route.meter.event(self.worker.index, CacheEvent::Unexpected);
            return false;
        }
        if !lookup::fences(core, route, params, self.address.url()).stand_at(self.read.mark) {
            route.meter.event(self.worker.index, CacheEvent::Fenced);
            return false;
        }
        let variant = core.store.keyer().variant(self.primary, &entry.head.vary, &self.asked);
        core.store.insert(self.primary, variant, entry, self.read.sent)
    }
}

/// Streams a body into a fill, and the whole of it into the store. Returns whether it was stored.
pub(super) async fn pour(
    place: Place,
    head: Arc<Head>,
    mut fill: Fill,
    mut body: ReplyBody,
    mut held: Option<Box<Held>>,
) -> bool {
    let core = &place.worker.core;
    let mut kept = true;
    loop {
        let next = std::future::poll_fn(|cx| match &mut held {
            Some(held) => held.poll_body(&mut body, cx),
            None => body.poll_frame(cx),
        });
        let Some(frame) = next.await else { break };
        // A body that breaks off is never stored, and its readers learn of it.
        let Ok(frame) = frame else {
            fill.abort();
            return false;
        };
        let Ok(data) = frame.into_data() else { continue };
        match fill.push(data).await {
            Flow::Kept => {}
            Flow::Outgrown if std::mem::replace(&mut kept, false) => {
                core.store.mark_uncacheable(place.flight, core.clock.now());
            }
            Flow::Outgrown => {}
            Flow::Unread => {
                if let Some(held) = held {
                    held.leave(body, false);
                }
                fill.abort();
                return false;
            }
        }
    }
    // Stored before the flight ends: a newcomer finds the one or the other, never a gap.
    let mut stored = false;
    fill.finish(|body| {
        stored = place.store(Arc::new(Entry::new(head, body.clone()).in_generation(place.read.mark.generation)));
    });
    stored
}
