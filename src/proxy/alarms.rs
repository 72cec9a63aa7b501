//! Until when attempts wait for their answers: timers of which nearly none ever fires.
//!
//! tokio's timers are made for those that do. To put one into its wheel and to take it out again, a moment later, is a
//! fiftieth of what a passing request costs. Here a deadline is a place in a table of its worker's, and one task sleeps
//! until the earliest. When that is over, those whose time has come are woken, and the earliest of the others is looked
//! for: once in a timeout, not once per request. A deadline before the one that is slept for wakes the task.
//!
//! So it is as exact as tokio's own timers. What is slept for may be the deadline of a request that is long answered;
//! then nobody is woken.
//!
//! All that holds for the thread of a worker, whose runtime drives the task and everybody it is to wake. A program that
//! embeds may share a worker among runtimes of which one stands still while the others go on: there each has a timer of
//! its own.

use std::future::Future as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Sleep, sleep_until};

use super::snapshot::Worker;
use crate::metrics::Seat;

/// When a wait is over.
pub(super) enum Timer {
    /// In the table of the worker whose thread this is.
    Alarm(Alarm),
    /// Its own.
    Own(Pin<Box<Sleep>>),
}

impl Timer {
    /// It is over at `at`.
    ///
    /// # Panics
    /// Outside a tokio runtime with time.
    pub(super) fn new(worker: &Worker, at: Instant) -> Self {
        if Seat::is_taken_here(worker.index) {
            Self::Alarm(Alarm::new(&worker.alarms, at))
        } else {
            Self::Own(Box::pin(sleep_until(at.into())))
        }
    }

    /// When it is over.
    pub(super) fn at(&self) -> Instant {
        match self {
            Self::Alarm(alarm) => alarm.at,
            Self::Own(sleep) => sleep.deadline().into(),
        }
    }

    /// Puts its end off until `at`.
    pub(super) fn put_off(&mut self, at: Instant) {
        match self {
            Self::Alarm(alarm) => alarm.put_off(at),
            Self::Own(sleep) => sleep.as_mut().reset(at.into()),
        }
    }

    /// Whether it is over; else the task is woken when it is.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Alarm(alarm) => alarm.poll(cx),
            Self::Own(sleep) => sleep.as_mut().poll(cx),
        }
    }
}

/// The alarms of one worker.
#[derive(Debug, Default)]
pub struct Alarms {
    table: Mutex<Table>,
    /// There is an earlier deadline than the one that is slept for.
    sooner: Notify,
}

#[derive(Debug, Default)]
struct Table {
    places: Vec<Place>,
    free: Vec<usize>,
    /// What the task sleeps for; `None`: there is no task.
    next: Option<Instant>,
}

#[derive(Debug)]
enum Place {
    Free,
    Waits(Instant, Waker),
    Rung,
}

/// One deadline. Dropped, it gives its place back.
#[derive(Debug)]
pub(super) struct Alarm {
    alarms: Arc<Alarms>,
    at: Instant,
    /// Its place in the table, since it was first polled.
    place: Option<usize>,
}

/// The task that sleeps.
struct Watch {
    alarms: Arc<Alarms>,
    /// Whether nobody waits any more.
    is_over: bool,
}

impl Alarms {
    /// Wakes those whose time has come by `due`, and says when that of the next will.
    fn ring(&self, due: Option<Instant>) -> Option<Instant> {
        let mut rung = Vec::new();
        let mut table = self.table.lock();
        let mut next: Option<Instant> = None;
        for place in &mut table.places {
            let Place::Waits(at, _) = *place else { continue };
            if due.is_none_or(|due| due < at) {
                next = Some(next.map_or(at, |next| next.min(at)));
            } else if let Place::Waits(_, waker) = std::mem::replace(place, Place::Rung) {
                rung.push(waker);
            }
        }
        table.next = next;
        drop(table);
        rung.into_iter().for_each(Waker::wake);
        next
    }
}

impl Table {
    fn take(&mut self, at: Instant, waker: Waker) -> usize {
        let waits = Place::Waits(at, waker);
        if let Some(index) = self.free.pop()
            && let Some(place) = self.places.get_mut(index)
        {
            *place = waits;
            return index;
        }
        self.places.push(waits);
        self.places.len() - 1
    }
}

impl Alarm {
    /// It rings at `at`.
    fn new(alarms: &Arc<Alarms>, at: Instant) -> Self {
        Self { alarms: Arc::clone(alarms), at, place: None }
    }

    /// Puts it off until `at`.
    fn put_off(&mut self, at: Instant) {
        self.give_back();
        self.at = at;
    }

    /// Whether it has rung; else the task is woken when it does.
    ///
    /// # Panics
    /// Outside a tokio runtime with time.
    fn poll(&mut self, cx: &Context<'_>) -> Poll<()> {
        let mut table = self.alarms.table.lock();
        let mut replaced = None;
        match self.place.and_then(|index| table.places.get_mut(index)) {
            Some(Place::Rung) => return Poll::Ready(()),
            Some(Place::Waits(_, waker)) if waker.will_wake(cx.waker()) => {}
            Some(Place::Waits(_, waker)) => replaced = Some(std::mem::replace(waker, cx.waker().clone())),
            Some(Place::Free) | None => self.place = Some(table.take(self.at, cx.waker().clone())),
        }
        let before = table.next;
        let is_sooner = before.is_none_or(|next| self.at < next);
        if is_sooner {
            table.next = Some(self.at);
        }
        drop(table);
        drop(replaced);
        if is_sooner && before.is_some() {
            self.alarms.sooner.notify_one();
        } else if is_sooner {
            tokio::spawn(Watch { alarms: Arc::clone(&self.alarms), is_over: false }.run());
        }
        Poll::Pending
    }

    fn give_back(&mut self) {
        let Some(index) = self.place.take() else { return };
        let mut table = self.alarms.table.lock();
        let waits = table.places.get_mut(index).map(|place| std::mem::replace(place, Place::Free));
        table.free.push(index);
        drop(table);
        drop(waits);
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        self.give_back();
    }
}

impl Watch {
    async fn run(mut self) {
        let mut due = None;
        while let Some(next) = self.alarms.ring(due) {
            due = tokio::select! {
                () = sleep_until(next.into()) => Some(next),
                () = self.alarms.sooner.notified() => None,
            };
        }
        self.is_over = true;
    }
}

impl Drop for Watch {
    /// Its runtime has ended, and others may not have: who still waits there is to see to another.
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        let mut table = self.alarms.table.lock();
        table.next = None;
        let mut waiting = Vec::new();
        for place in &table.places {
            if let Place::Waits(_, waker) = place {
                waiting.push(waker.clone());
            }
        }
        drop(table);
        waiting.into_iter().for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use std::future::{Future, poll_fn};
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;
    use std::time::Duration;

    use proptest::collection::vec;
    use proptest::prelude::*;
    use tokio::runtime::{Builder, Runtime};

    use super::*;
    use crate::clock::Clock;

    fn paused() -> Runtime {
        Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
    }

    fn waits(alarms: &Alarms) -> usize {
        let table = alarms.table.lock();
        let places = table.places.iter().filter(|place| !matches!(place, Place::Free)).count();
        assert_eq!(places + table.free.len(), table.places.len());
        places
    }

    async fn rings(mut alarm: Alarm) -> Instant {
        poll_fn(|cx| alarm.poll(cx)).await;
        Clock::system().now()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Each begins some milliseconds after the one before, rings after so many, and some are dropped before.
        #[test]
        fn each_rings_at_its_time_and_nothing_is_left(
            given in vec((0..50_u64, 0..500_u64, prop::option::of(0..500_u64)), 1..40),
        ) {
            paused().block_on(async {
                let alarms = Arc::new(Alarms::default());
                let mut tasks = Vec::new();
                for (pause, length, patience) in given {
                    tokio::time::sleep(Duration::from_millis(pause)).await;
                    let at = Clock::system().now() + Duration::from_millis(length);
                    let alarm = Alarm::new(&alarms, at);
                    let patience = Duration::from_millis(patience.unwrap_or(1000));
                    let task = tokio::spawn(tokio::time::timeout(patience, rings(alarm)));
                    tasks.push((at, length, patience, task));
                }
                for (at, length, patience, task) in tasks {
                    match task.await.unwrap() {
                        Ok(rung) => {
                            let late = rung.checked_duration_since(at).expect("never early");
                            assert!(late < Duration::from_millis(2), "{late:?}");
                        }
                        Err(_) => assert!(patience.as_millis() <= u128::from(length) + 1, "it has not rung"),
                    }
                }
                assert_eq!(waits(&alarms), 0);
                tokio::time::sleep(Duration::from_secs(1)).await;
                assert_eq!(Arc::strong_count(&alarms), 1, "the task has ended");
                assert_eq!(alarms.table.lock().next, None);
            });
        }
    }

    #[tokio::test(start_paused = true)]
    async fn it_can_be_put_off() {
        let alarms = Arc::new(Alarms::default());
        let begin = Clock::system().now();
        let mut alarm = Alarm::new(&alarms, begin + Duration::from_secs(1));
        for second in 1..=5 {
            poll_fn(|cx| alarm.poll(cx)).await;
            assert_eq!((Clock::system().now() - begin).as_secs(), second);
            alarm.put_off(alarm.at + Duration::from_secs(1));
        }
        assert_eq!(waits(&alarms), 0);
    }

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn whoever_polled_last_is_woken() {
        paused().block_on(async {
            let alarms = Arc::new(Alarms::default());
            let mut alarm = Alarm::new(&alarms, Clock::system().now() + Duration::from_secs(1));
            let wakers = [Arc::new(Count::default()), Arc::new(Count::default())];
            for waker in &wakers {
                assert!(alarm.poll(&Context::from_waker(&Arc::clone(waker).into())).is_pending());
            }
            tokio::time::sleep(Duration::from_secs(2)).await;
            assert_eq!(wakers.map(|waker| waker.0.load(Ordering::Relaxed)), [0, 1]);
        });
    }

    #[test]
    fn where_a_runtime_ends_the_others_see_to_a_task_of_their_own() {
        let alarms = Arc::new(Alarms::default());
        let (first, second) = (paused(), paused());
        let waker = Arc::new(Count::default());
        let at = Clock::system().now() + Duration::from_millis(1);
        let mut alarm = Alarm::new(&alarms, at);
        first.block_on(async {
            assert!(alarm.poll(&Context::from_waker(&Arc::clone(&waker).into())).is_pending());
        });
        drop(first);
        assert_eq!(waker.0.load(Ordering::Relaxed), 1);
        let mut rings = Box::pin(rings(alarm));
        second.block_on(poll_fn(|cx| rings.as_mut().poll(cx)));
        assert_eq!(waits(&alarms), 0);
    }
}
