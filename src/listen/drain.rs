//! Orderly end: connections finish the request they are in, and those at rest close.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Waker};

use parking_lot::Mutex;
use tokio::sync::Notify;

/// Tells every connection that it is time to end, and knows when the last has ended. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Drain(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    begun: AtomicBool,
    open: AtomicUsize,
    wakers: Mutex<Wakers>,
    last: Notify,
}

#[derive(Debug, Default)]
struct Wakers {
    slots: Vec<Option<Waker>>,
    free: Vec<usize>,
}

/// One open connection.
#[derive(Debug)]
pub struct Open {
    drain: Drain,
    slot: Option<usize>,
}

impl Drain {
    /// Counts a connection as open until the returned value is dropped.
    pub fn open(&self) -> Open {
        self.0.open.fetch_add(1, Ordering::Relaxed);
        Open { drain: self.clone(), slot: None }
    }

    /// Begins: every connection is woken once.
    pub fn begin(&self) {
        self.0.begun.store(true, Ordering::Release);
        let wakers: Vec<Waker> = self.0.wakers.lock().slots.iter_mut().filter_map(Option::take).collect();
        for waker in wakers {
            waker.wake();
        }
        if self.connections() == 0 {
            self.0.last.notify_waiters();
        }
    }

    /// Whether the end has begun.
    pub fn begun(&self) -> bool {
        self.0.begun.load(Ordering::Acquire)
    }

    /// Connections open now.
    pub fn connections(&self) -> usize {
        self.0.open.load(Ordering::Acquire)
    }

    /// Waits until the end has begun and the last connection has ended.
    pub async fn ended(&self) {
        loop {
            let last = self.0.last.notified();
            tokio::pin!(last);
            last.as_mut().enable();
            if self.begun() && self.connections() == 0 {
                return;
            }
            last.await;
        }
    }
}

impl Open {
    /// Whether the end has begun; the task is woken when it does.
    pub fn poll_begun(&mut self, cx: &mut Context<'_>) -> bool {
        if self.slot.is_none() {
            let mut wakers = self.drain.0.wakers.lock();
            let slot = wakers.free.pop().unwrap_or(wakers.slots.len());
            if slot == wakers.slots.len() {
                wakers.slots.push(None);
            }
            if let Some(place) = wakers.slots.get_mut(slot) {
                *place = Some(cx.waker().clone());
            }
            self.slot = Some(slot);
        }
        self.drain.begun()
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if let Some(slot) = self.slot {
            let mut wakers = self.drain.0.wakers.lock();
            if let Some(place) = wakers.slots.get_mut(slot) {
                *place = None;
            }
            wakers.free.push(slot);
        }
        if self.drain.0.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.drain.0.last.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_end_wakes_every_connection_and_waits_for_the_last() {
        let drain = Drain::default();
        let connection = |drain: &Drain| {
            let mut open = drain.open();
            tokio::spawn(std::future::poll_fn(move |cx| {
                if open.poll_begun(cx) { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
            }))
        };
        let tasks = [connection(&drain), connection(&drain)];
        tokio::task::yield_now().await;
        assert_eq!(drain.connections(), 2);
        drain.begin();
        drain.ended().await;
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(drain.connections(), 0);
    }
}
