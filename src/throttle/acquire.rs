//! The wait for a slot, as a future.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use tokio::time::{Sleep, sleep_until};

use crate::refusal::Refusal;
use crate::throttle::permit::Permit;
use crate::throttle::queue::WaiterId;
use crate::throttle::slots::{Begun, Slots};

/// Resolves to a [`Permit`], or to the reason why there is none. Made by [`Slots::acquire`].
///
/// Cancel safe: dropped while it waits it leaves the queue at once, dropped after a slot was handed to it the slot goes to
/// the next.
#[derive(Debug)]
#[must_use = "a dropped Acquire leaves the queue"]
pub struct Acquire {
    step: Step,
}

#[derive(Debug)]
enum Step {
    /// `None` once it was taken.
    Known(Option<Result<Permit, Refusal>>),
    Waiting {
        place: Place,
        deadline: Instant,
        /// Made by the first poll that has to wait.
        timer: Option<Pin<Box<Sleep>>>,
    },
}

/// A place in the queue; dropping it gives it up, with the slot that may have been handed to it.
#[derive(Debug)]
struct Place {
    slots: Arc<Slots>,
    id: WaiterId,
    left: bool,
}

impl Acquire {
    pub(super) fn new(slots: &Arc<Slots>, begun: Begun) -> Self {
        let step = match begun {
            Begun::Granted(permit) => Step::Known(Some(Ok(permit))),
            Begun::Refused(refusal) => Step::Known(Some(Err(refusal))),
            Begun::Queued(id, deadline) => {
                let place = Place { slots: Arc::clone(slots), id, left: false };
                Step::Waiting { place, deadline, timer: None }
            }
        };
        Self { step }
    }

    /// True if it has to wait: the next poll may be pending.
    #[cfg(test)]
    pub(super) fn is_waiting(&self) -> bool {
        matches!(self.step, Step::Waiting { .. })
    }
}

impl Future for Acquire {
    type Output = Result<Permit, Refusal>;

    /// # Panics
    /// When polled again after it was ready.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let result = match &mut self.step {
            Step::Known(result) => result.take().expect("a future is not polled after it was ready"),
            Step::Waiting { place, deadline, timer } => {
                if let Some(result) = place.slots.fetch(place.id, cx.waker()) {
                    place.left = true;
                    result
                } else {
                    let timer = timer.get_or_insert_with(|| Box::pin(sleep_until((*deadline).into())));
                    std::task::ready!(timer.as_mut().poll(cx));
                    place.left = true;
                    place.slots.expire(place.id)
                }
            }
        };
        self.step = Step::Known(None);
        Poll::Ready(result)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.left {
            self.slots.withdraw(self.id);
        }
    }
}
