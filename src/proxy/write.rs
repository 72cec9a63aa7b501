//! An unsafe request, as far as the cache is concerned: it moves the fences of what it may change, and takes what is
//! stored of it out of the store (RFC 9111 section 4.4).
//!
//! | how it ended | its URL | its group |
//! |---|---|---|
//! | 2xx, 3xx | gone | outdated |
//! | 4xx: refused | – | – |
//! | 5xx: nobody knows | – | outdated |
//! | no answer: nobody knows | stale | outdated |
//!
//! A write that was given up on goes on at the backend. The fences move when its client is told, and once more when the
//! late answer comes or is given up on as well.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::header;
use http::response::Parts;

use super::exchange::Exchange;
use super::held::{self, Late};
use super::lookup::Address;
use super::snapshot::{Route, Snapshot, Worker};
use crate::cache::fence::Fence;
use crate::cache::key::Key;
use crate::cache::purge::{Depth, Purge};
use crate::cache::storing;
use crate::metrics::CacheEvent;

/// One unsafe request. Dropped without an end, it is lost.
pub(super) struct Write {
    worker: Arc<Worker>,
    snapshot: Arc<Snapshot>,
    route: usize,
    /// What is stored of its URL, if anything is; by its own route, or by the one that reads it.
    place: Option<(Key, Address)>,
    sent: AtomicBool,
    ended: AtomicBool,
}

impl Write {
    /// The write of `exchange`; `None` if nothing is stored that it could change.
    pub(super) fn of(exchange: &Exchange, route: &Route, place: Option<&(Key, Address)>) -> Option<Arc<Self>> {
        if place.is_none() && route.group.is_none() {
            return None;
        }
        Some(Arc::new(Self {
            worker: Arc::clone(&exchange.worker),
            snapshot: Arc::clone(&exchange.snapshot),
            route: exchange.route?,
            place: place.cloned(),
            sent: AtomicBool::new(false),
            ended: AtomicBool::new(false),
        }))
    }

    /// It is about to be sent. Gives what becomes of an answer that comes too late for its client.
    pub(super) fn sent(self: &Arc<Self>) -> Late {
        self.sent.store(true, Ordering::Relaxed);
        if let Some((_, address)) = &self.place {
            self.worker.core.urls.of(address.url()).sent();
        }
        self.groups().for_each(|(_, group)| group.sent());
        let write = Arc::clone(self);
        Box::new(move |response| {
            Box::pin(async move {
                let (parts, mut body) = response.into_parts();
                write.ended(&parts);
                held::drain_rest(&mut body).await;
            })
        })
    }

    /// It was answered.
    pub(super) fn ended(&self, parts: &Parts) {
        self.ended.store(true, Ordering::Relaxed);
        match parts.status.as_u16() {
            200..400 => {
                self.invalidate(parts);
                self.move_fences(true);
            }
            400..500 => {}
            _ => self.move_fences(false),
        }
    }

    /// There is no answer. `reached`: the upstream may have got it all the same.
    pub(super) fn failed(&self, reached: bool) {
        if reached {
            self.lost();
        } else {
            self.ended.store(true, Ordering::Relaxed);
        }
    }

    fn lost(&self) {
        let core = &self.worker.core;
        if let Some((primary, _)) = &self.place {
            core.store.purge(Purge::Key(*primary), Depth::Soft, core.clock.now());
        }
        self.move_fences(true);
    }

    fn move_fences(&self, url: bool) {
        if let (true, Some((_, address))) = (url, &self.place) {
            self.worker.core.urls.of(address.url()).ended();
        }
        for (route, group) in self.groups() {
            group.ended();
            route.meter.event(self.worker.index, CacheEvent::Invalidated);
        }
    }

    /// The groups it writes to: its route's, and that of the route that reads its URL.
    fn groups(&self) -> impl Iterator<Item = (&Route, &Fence)> {
        let reading = self.place.as_ref().map(|(_, address)| address.route()).filter(|index| *index != self.route);
        let routes = std::iter::once(self.route).chain(reading).filter_map(|index| self.snapshot.routes.get(index));
        routes.filter_map(|route| Some((route, route.group.as_deref()?)))
    }

    /// What is stored for its URL, for what the answer names beside it, and for the groups it names (RFC 9875 section 3),
    /// goes.
    fn invalidate(&self, parts: &Parts) {
        let Some((primary, address)) = &self.place else { return };
        let core = &self.worker.core;
        let now = core.clock.now();
        core.store.invalidate(*primary, now);
        let route = self.snapshot.routes.get(address.route());
        for name in storing::invalidated_groups(&parts.headers).into_iter().take(GROUPS) {
            let group = Purge::Group { name: name.into(), origin: Some(address.origin()) };
            core.store.purge(group, Depth::Hard, now);
        }
        let Some(params) = route.and_then(|route| route.cache.as_ref()) else { return };
        for name in [header::LOCATION, header::CONTENT_LOCATION] {
            let Some(place) = parts.headers.get(name).and_then(|value| value.to_str().ok()) else { continue };
            if let Some((key, other)) = address.sibling(place, core.store.keyer(), &params.query) {
                core.store.invalidate(key, now);
                core.urls.of(other.url()).ended();
            }
        }
    }
}

impl Drop for Write {
    fn drop(&mut self) {
        if *self.sent.get_mut() && !*self.ended.get_mut() {
            self.lost();
        }
    }
}

/// Each group is a walk through the store; RFC 9875 section 2 asks for 128 at least.
const GROUPS: usize = 128;
