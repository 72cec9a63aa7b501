//! Collapsed, streaming fills: however many requests miss the same key at once, one of them asks upstream, and the
//! others read its answer while it arrives.
//!
//! ```text
//! join ──► Lead ── share ──► Fill ── push… ── finish     the waiters read along
//!   │       ├ alone          └ abort, drop                what was read so far, then `Aborted`
//!   │       ├ refuse                                      all are refused, or ONE leads on (see `Lead::refuse`)
//!   │       ├ found                                       all get the entry
//!   │       └ drop                                        ONE waiter leads on
//!   └────► Waiter ── verdict ──► Stream(Reader) | Alone | Refused | Found | Lead
//! ```
//! Nobody polls: each waiter and reader parks its task and is woken when there is something for it. Wakers are
//! collected under a lock and woken after it. Handles work across threads and are cancelled by dropping them.
//!
//! A key is in the map exactly as long as a newcomer may still join its flight. So that a finished fill leaves no gap
//! in which a newcomer would ask upstream again:
//! 1. [`Fill::finish`] stores the entry *before* the key leaves the map, and
//! 2. a new leader looks into the store once more before it asks upstream (the entry may have come between its first
//!    look and its joining), and ends the flight with [`Lead::found`] if it is there now.
//!
//! A flight knows nothing of Vary: who gets a [`Verdict::Stream`] checks `head.selects(..)` and, if the answer is not
//! for its request, drops the reader and joins again by its variant key, which the head's `vary` has made known.
//!
//! Locks are taken in the order shard, flight; the flight's alone suffices for everything but a change of the map.

use std::collections::{HashMap, hash_map};
use std::fmt;
use std::future::poll_fn;
use std::mem;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::{Mutex, MutexGuard};

use crate::cache::entry::{Entry, Head};
use crate::cache::key::Key;
use crate::cache::store::BuildKeyHasher;
use crate::refusal::{Reason, Refusal};

mod budget;
mod fill;
mod pour;

pub use fill::{Fill, Flow, Reader};

use budget::Budget;
use pour::{Pour, STEP, Seat, Seats};

/// All flights of one cache. Cheap to clone; all clones are the same.
#[derive(Debug, Clone)]
pub struct Flights(Arc<Sky>);

/// What a request is in the flight it joined.
#[derive(Debug)]
pub enum Joined {
    /// The one that asks upstream.
    Lead(Lead),
    /// One of those that wait for the leader's verdict.
    Wait(Waiter),
}

impl Flights {
    /// No flights yet. `fills` is the number of bytes that all fills together may hold before they are stored.
    pub fn new(fills: u64) -> Self {
        Self(Arc::new(Sky { shards: Default::default(), budget: Budget::new(fills) }))
    }

    /// Joins the flight of `key`; the first leads.
    pub fn join(&self, key: Key) -> Joined {
        let mut shard = self.0.shard(key);
        match shard.entry(key) {
            hash_map::Entry::Vacant(vacant) => {
                let flight = Arc::new(Flight { key, sky: Arc::clone(&self.0), state: Mutex::new(State::default()) });
                vacant.insert(Arc::clone(&flight));
                Joined::Lead(Lead::new(flight))
            }
            hash_map::Entry::Occupied(occupied) => {
                let flight = Arc::clone(occupied.get());
                let seat = flight.state.lock().sit();
                Joined::Wait(Waiter { flight, seat: Some(seat) })
            }
        }
    }

    /// How many flights a newcomer may join now.
    pub fn len(&self) -> usize {
        self.0.shards.iter().map(|shard| shard.lock().len()).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes that fills hold, or have announced that they will.
    pub fn bytes(&self) -> u64 {
        self.0.budget.taken()
    }
}

/// The duty to bring about a verdict. Dropped without one (a panic, an aborted task), it goes to exactly one waiter:
/// the one who came first of those who are still there.
#[derive(Debug)]
#[must_use = "dropping the lead hands it to a waiter"]
pub struct Lead {
    flight: Arc<Flight>,
    decided: bool,
}

impl Lead {
    const fn new(flight: Arc<Flight>) -> Self {
        Self { flight, decided: false }
    }

    /// The answer may be shared: every waiter, and whoever joins before the end, reads along from byte 0.
    ///
    /// `length` is the body's, where it was announced; `max_entry` the largest body that is stored, in bytes.
    ///
    /// # Errors
    /// The body is announced too large for an entry, or the fills' byte budget is used up. Then every waiter is
    /// released to go alone, and so is the leader.
    pub fn share(mut self, head: Arc<Head>, length: Option<u64>, max_entry: u64) -> Result<Fill, Unshared> {
        if length.is_some_and(|length| length > max_entry) {
            self.alone();
            return Err(Unshared::TooLarge);
        }
        let wanted = length.unwrap_or_else(|| STEP.min(max_entry));
        let Some(reservation) = self.flight.sky.budget.reserve(wanted) else {
            self.alone();
            return Err(Unshared::NoBudget);
        };
        let pour = Pour::new(head, length, max_entry, reservation);
        let mut state = self.flight.state.lock();
        state.stage = Stage::Sharing(pour);
        let parked = state.parked();
        drop(state);
        wake(parked);
        self.decided = true;
        Ok(Fill::new(Arc::clone(&self.flight)))
    }

    /// Ready when nobody waits for the verdict (any more).
    pub fn poll_unwanted(&self, cx: &Context<'_>) -> Poll<()> {
        let mut state = self.flight.state.lock();
        if state.seats.is_empty() {
            return Poll::Ready(());
        }
        state.leader = Some(cx.waker().clone());
        Poll::Pending
    }

    /// The answer may not be shared: every waiter is released at once to ask upstream for itself.
    pub fn alone(mut self) {
        self.decided = true;
        self.flight.settle(Stage::Alone);
    }

    /// There is no answer. All waiters are refused alike, unless the refusal was about the leader's own standing
    /// (its rate, its place in the queue, its connection that drains): then exactly one waiter leads on, for what was
    /// refused to one consumer may be granted to the next.
    pub fn refuse(mut self, refusal: Refusal) {
        if concerns_the_asker(refusal.reason) {
            return; // dropped without a verdict
        }
        self.decided = true;
        self.flight.settle(Stage::Refused(refusal));
    }

    /// The answer is in the store already (it came between the look and the joining, or the upstream has validated
    /// it): all waiters get it.
    pub fn found(mut self, entry: Arc<Entry>) {
        self.decided = true;
        self.flight.settle(Stage::Found(entry));
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        if self.decided {
            return;
        }
        let mut shard = self.flight.sky.shard(self.flight.key);
        let mut state = self.flight.state.lock();
        let heir = state.promote();
        if state.seats.is_empty() {
            shard.remove(&self.flight.key);
        }
        drop(state);
        drop(shard);
        wake(heir);
    }
}

/// Why an answer is not shared though it may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unshared {
    /// Its body is larger than an entry may be.
    TooLarge,
    /// The fills' byte budget is used up.
    NoBudget,
}

/// What the leader has brought about.
#[derive(Debug)]
pub enum Verdict {
    /// The answer's head, and its body from byte 0 while it arrives.
    Stream(Arc<Head>, Reader),
    /// Ask upstream for yourself: the answer is not for all.
    Alone,
    /// The leader was refused, and so are you.
    Refused(Refusal),
    /// The complete answer.
    Found(Arc<Entry>),
    /// The leader is gone: you lead.
    Lead(Lead),
}

/// One who waits for the verdict. Dropped, it leaves no trace.
#[derive(Debug)]
pub struct Waiter {
    flight: Arc<Flight>,
    seat: Option<u64>,
}

impl Waiter {
    /// Waits for the verdict. Dropping the future is leaving.
    pub async fn verdict(mut self) -> Verdict {
        poll_fn(|cx| self.poll_verdict(cx)).await
    }

    fn poll_verdict(&mut self, cx: &Context<'_>) -> Poll<Verdict> {
        let Some(seat) = self.seat else {
            return Poll::Pending; // its verdict was given
        };
        let mut guard = self.flight.state.lock();
        let state = &mut *guard;
        let verdict = match &state.stage {
            Stage::Open { promoted } if *promoted == Some(seat) => {
                state.stage = Stage::Open { promoted: None };
                state.seats.remove(&seat);
                Verdict::Lead(Lead::new(Arc::clone(&self.flight)))
            }
            Stage::Open { .. } => {
                if let Some(seat) = state.seats.get_mut(&seat) {
                    seat.park(cx);
                }
                return Poll::Pending;
            }
            Stage::Sharing(pour) => {
                let reader = Reader::new(Arc::clone(&self.flight), seat, pour.length);
                Verdict::Stream(Arc::clone(&pour.head), reader) // it keeps the seat
            }
            Stage::Alone => Verdict::Alone,
            Stage::Refused(refusal) => Verdict::Refused(*refusal),
            Stage::Found(entry) => Verdict::Found(Arc::clone(entry)),
        };
        self.seat = None;
        Poll::Ready(verdict)
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let Some(seat) = self.seat else { return };
        let mut shard = self.flight.sky.shard(self.flight.key);
        let mut state = self.flight.state.lock();
        let (left, mut woken) = state.leave(seat);
        if matches!(state.stage, Stage::Open { promoted } if promoted == Some(seat)) {
            // It was to lead and never knew.
            woken = state.promote();
            if state.seats.is_empty() {
                shard.remove(&self.flight.key);
            }
        }
        drop(state);
        drop(shard);
        drop(left);
        wake(woken);
    }
}

/// The leader aborted the body: what was read so far is not all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Aborted;

impl fmt::Display for Aborted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the shared answer broke off")
    }
}

impl std::error::Error for Aborted {}

#[derive(Debug)]
struct Sky {
    shards: [Mutex<Shard>; 16],
    budget: Arc<Budget>,
}

type Shard = HashMap<Key, Arc<Flight>, BuildKeyHasher>;

impl Sky {
    fn shard(&self, key: Key) -> MutexGuard<'_, Shard> {
        let place = (key.0 >> 64) as usize % self.shards.len();
        let shard = self.shards.get(place);
        shard.expect("a remainder is less than its divisor").lock()
    }
}

/// All there is about one key that is being filled. In the map while the stage is open, or sharing a body that has
/// neither ended nor outgrown an entry.
#[derive(Debug)]
struct Flight {
    key: Key,
    sky: Arc<Sky>,
    state: Mutex<State>,
}

impl Flight {
    /// Ends the flight for all who wait.
    fn settle(&self, stage: Stage) {
        let mut shard = self.sky.shard(self.key);
        let mut state = self.state.lock();
        shard.remove(&self.key);
        state.stage = stage;
        let parked = state.parked();
        drop(state);
        drop(shard);
        wake(parked);
    }
}

#[derive(Debug, Default)]
struct State {
    stage: Stage,
    seats: Seats,
    next_seat: u64,
    /// The leader, parked until nobody waits.
    leader: Option<Waker>,
}

#[derive(Debug)]
enum Stage {
    /// No verdict yet. `promoted` is the waiter that is to lead and was not polled since; `None`: somebody leads.
    Open {
        promoted: Option<u64>,
    },
    Sharing(Pour),
    Alone,
    Refused(Refusal),
    Found(Arc<Entry>),
}

impl Default for Stage {
    fn default() -> Self {
        Self::Open { promoted: None }
    }
}

impl State {
    /// A new seat, behind all others.
    fn sit(&mut self) -> u64 {
        let number = self.next_seat;
        self.next_seat += 1;
        self.seats.insert(number, Seat::default());
        number
    }

    /// Gives up a seat, which is to be dropped after the lock, for its waker may hold anything. The waker returned
    /// is the fill's, if that made room for it, or the leader's, if nobody waits any more.
    fn leave(&mut self, number: u64) -> (Option<Seat>, Option<Waker>) {
        let seat = self.seats.remove(&number);
        match (&mut self.stage, &seat) {
            (Stage::Sharing(pour), Some(left)) => {
                pour.forget(left);
                (seat, pour.unpark_fill())
            }
            _ if self.seats.is_empty() => (seat, self.leader.take()),
            _ => (seat, None),
        }
    }

    /// Makes the first waiter the one that is to lead; its waker, if it is parked.
    fn promote(&mut self) -> Option<Waker> {
        let mut first = self.seats.first_entry();
        self.stage = Stage::Open { promoted: first.as_ref().map(|seat| *seat.key()) };
        first.as_mut().and_then(|seat| seat.get_mut().waker.take())
    }

    /// All who are parked.
    fn parked(&mut self) -> Vec<Waker> {
        let wakers = self.seats.values_mut().map(|seat| mem::take(&mut seat.waker));
        wakers.flatten().collect()
    }
}

/// Wakes tasks; never under a lock, for a waker may run anything.
fn wake(wakers: impl IntoIterator<Item = Waker>) {
    for waker in wakers {
        waker.wake();
    }
}

/// Whether a refusal is about who asked, not about what was asked for.
const fn concerns_the_asker(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::QueueFull
            | Reason::QueueTimeout
            | Reason::QueueHopeless
            | Reason::GearLimp
            | Reason::RateExceeded
            | Reason::QuotaHour
            | Reason::QuotaDay
            | Reason::QuotaMonth
    )
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::sync::{LazyLock, OnceLock};
    use std::task::Wake;
    use std::time::Duration;

    use bytes::Bytes;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use tokio::sync::Barrier;
    use tokio::task::JoinSet;

    use super::pour::WINDOW;
    use super::*;
    use crate::cache::store::tests::head;

    const KEY: Key = Key(7 << 64 | 9);
    const MAX: u64 = 1 << 20;

    fn flights() -> Flights {
        Flights::new(64 << 20)
    }

    fn lead(flights: &Flights) -> Lead {
        match flights.join(KEY) {
            Joined::Lead(lead) => lead,
            Joined::Wait(_) => panic!("somebody leads already"),
        }
    }

    fn wait(flights: &Flights) -> Waiter {
        match flights.join(KEY) {
            Joined::Wait(waiter) => waiter,
            Joined::Lead(_) => panic!("nobody leads"),
        }
    }

    fn fill(flights: &Flights) -> Fill {
        lead(flights).share(head("http://a/"), None, MAX).unwrap()
    }

    async fn read(mut reader: Reader) -> (Vec<u8>, Result<(), Aborted>) {
        let mut got = Vec::new();
        loop {
            match poll_fn(|cx| reader.poll_next(cx)).await {
                Some(Ok(chunk)) => got.extend_from_slice(&chunk),
                Some(Err(aborted)) => return (got, Err(aborted)),
                None => return (got, Ok(())),
            }
        }
    }

    async fn stream(waiter: Waiter) -> Reader {
        match waiter.verdict().await {
            Verdict::Stream(_, reader) => reader,
            other => panic!("{other:?}"),
        }
    }

    fn check_gone(flights: &Flights) {
        assert!(flights.is_empty());
        assert_eq!(flights.bytes(), 0);
    }

    #[tokio::test]
    async fn waiters_read_along_from_the_first_byte_whenever_they_come() {
        let flights = flights();
        let lead = lead(&flights);
        let early = wait(&flights);
        let mut fill = lead.share(head("http://a/"), Some(6), MAX).unwrap();
        let own = fill.reader().unwrap();
        assert_eq!(fill.push(Bytes::from("abc")).await, Flow::Kept);
        let mut early = stream(early).await;
        assert_eq!(poll_fn(|cx| early.poll_next(cx)).await, Some(Ok(Bytes::from("abc"))));
        let late = wait(&flights);
        fill.push(Bytes::from("def")).await;
        let mut stored = None;
        let body = fill.finish(|body| {
            assert_eq!(flights.len(), 1, "stored before the key leaves the map");
            stored = Some(body.clone());
        });
        assert_eq!(body.as_deref(), Some(&b"abcdef"[..]));
        assert_eq!(stored, body);
        check_gone(&flights);
        assert_eq!(read(early).await, (b"def".to_vec(), Ok(())));
        for reader in [own, stream(late).await] {
            assert_eq!(read(reader).await, (b"abcdef".to_vec(), Ok(())));
        }
    }

    #[tokio::test]
    async fn chunks_and_the_finished_body_are_shared_not_copied() {
        let flights = flights();
        let mut fill = fill(&flights);
        let (mut first, mut second) = (fill.reader().unwrap(), fill.reader().unwrap());
        let chunk = Bytes::from(vec![b'a'; 8 * 1024]);
        fill.push(chunk.clone()).await;
        let seen = poll_fn(|cx| first.poll_next(cx)).await.unwrap().unwrap();
        assert_eq!(seen.as_ptr(), chunk.as_ptr());
        // A small slice would keep its whole buffer alive.
        fill.push(chunk.slice(..1)).await;
        let seen = poll_fn(|cx| first.poll_next(cx)).await.unwrap().unwrap();
        assert_ne!(seen.as_ptr(), chunk.as_ptr());
        let body = fill.finish(|_| ()).unwrap();
        let seen = poll_fn(|cx| second.poll_next(cx)).await.unwrap().unwrap();
        assert_eq!(seen.as_ptr(), body.as_ptr());
    }

    #[tokio::test]
    async fn a_verdict_without_a_body_reaches_everybody() {
        let refusal = Refusal::from(Reason::UpstreamTimeout).after(Duration::from_secs(3));
        type Decide = Box<dyn Fn(Lead)>;
        type Fits = Box<dyn Fn(Verdict) -> bool>;
        let entry = Arc::new(Entry::new(head("http://a/"), Bytes::from("x")));
        let found = Arc::clone(&entry);
        let verdicts: [(Decide, Fits); 3] = [
            (Box::new(Lead::alone), Box::new(|verdict| matches!(verdict, Verdict::Alone))),
            (
                Box::new(move |lead| lead.refuse(refusal)),
                Box::new(move |verdict| matches!(verdict, Verdict::Refused(got) if got == refusal)),
            ),
            (
                Box::new(move |lead| lead.found(Arc::clone(&found))),
                Box::new(move |verdict| matches!(verdict, Verdict::Found(got) if Arc::ptr_eq(&got, &entry))),
            ),
        ];
        for (decide, fits) in verdicts {
            let flights = flights();
            let lead = lead(&flights);
            let waiters: Vec<_> = (0..1_000).map(|_| tokio::spawn(wait(&flights).verdict())).collect();
            tokio::task::yield_now().await;
            decide(lead);
            check_gone(&flights);
            for waiter in waiters {
                assert!(fits(waiter.await.unwrap()));
            }
        }
    }

    #[tokio::test]
    async fn a_lost_lead_goes_to_exactly_one_waiter_the_first() {
        let own_standing = [Reason::QueueFull, Reason::QueueTimeout, Reason::QueueHopeless, Reason::RateExceeded];
        let losses = own_standing.map(Some).into_iter().chain([None]);
        for loss in losses {
            let flights = flights();
            let lost = lead(&flights);
            let (first, second, third) = (wait(&flights), wait(&flights), wait(&flights));
            let mut others = [second, third].map(|waiter| tokio::spawn(waiter.verdict()));
            tokio::task::yield_now().await;
            match loss {
                Some(reason) => lost.refuse(reason.into()),
                None => drop(lost),
            }
            let Verdict::Lead(lead) = first.verdict().await else { panic!("the first is to lead") };
            tokio::task::yield_now().await;
            assert!(others.iter().all(|other| !other.is_finished()));
            assert_eq!(flights.len(), 1);
            lead.alone();
            for other in &mut others {
                assert!(matches!(other.await.unwrap(), Verdict::Alone));
            }
            check_gone(&flights);
        }
    }

    #[tokio::test]
    async fn a_promoted_waiter_that_leaves_before_it_knows_hands_on() {
        let flights = flights();
        let lost = lead(&flights);
        let [first, second, third] = [(); 3].map(|()| wait(&flights));
        let third = tokio::spawn(third.verdict());
        tokio::task::yield_now().await;
        drop(lost);
        drop(first);
        drop(second);
        let Verdict::Lead(lead) = third.await.unwrap() else { panic!("the last one left is to lead") };
        drop(lead);
        check_gone(&flights);

        let lost = self::lead(&flights);
        let only = wait(&flights);
        drop(lost);
        assert_eq!(flights.len(), 1);
        drop(only);
        check_gone(&flights);
    }

    #[tokio::test]
    async fn a_broken_body_is_told_after_the_bytes_so_far() {
        type Break = fn(Fill);
        let breaks: [(Option<u64>, Break); 3] = [
            (None, Fill::abort),
            (None, |fill| drop(fill)),
            (Some(9), |fill| assert_eq!(fill.finish(|_| panic!("bytes are missing")), None)),
        ];
        for (length, break_off) in breaks {
            let flights = flights();
            let mut fill = lead(&flights).share(head("http://a/"), length, MAX).unwrap();
            let waiter = wait(&flights);
            fill.push(Bytes::from("abc")).await;
            break_off(fill);
            assert!(flights.is_empty());
            assert_eq!(read(stream(waiter).await).await, (b"abc".to_vec(), Err(Aborted)));
            check_gone(&flights);
        }
    }

    #[tokio::test]
    async fn an_outgrown_body_streams_in_a_window_as_fast_as_its_slowest_reader() {
        let flights = flights();
        let mut fill = fill(&flights);
        let mut slow = fill.reader().unwrap();
        let fast = tokio::spawn(read(fill.reader().unwrap()));
        let chunk = Bytes::from(vec![1; 128 * 1024]);
        for _ in 0..8 {
            assert_eq!(fill.push(chunk.clone()).await, Flow::Kept);
        }
        assert_eq!(flights.bytes(), MAX);
        let mut filling = tokio::spawn(async move {
            for _ in 0..24 {
                assert_eq!(fill.push(chunk.clone()).await, Flow::Outgrown);
            }
            fill.finish(|_| panic!("not to be stored"))
        });
        tokio::task::yield_now().await;
        assert!(flights.is_empty(), "no newcomer may join");
        let mut got = 0;
        while got < 32 * 128 * 1024 {
            // The fill stays within the window of the slowest reader.
            tokio::task::yield_now().await;
            assert!(flights.bytes() <= MAX, "{}", flights.bytes());
            assert!(!filling.is_finished() || got as u64 + WINDOW >= 31 * 128 * 1024);
            got += poll_fn(|cx| slow.poll_next(cx)).await.unwrap().unwrap().len();
        }
        assert_eq!((&mut filling).await.unwrap(), None);
        assert_eq!(poll_fn(|cx| slow.poll_next(cx)).await, None);
        let (got, end) = fast.await.unwrap();
        assert_eq!((got.len(), end), (32 * 128 * 1024, Ok(())));
        check_gone(&flights);
    }

    #[tokio::test]
    async fn a_window_without_readers_need_not_be_filled() {
        let flights = flights();
        let mut fill = lead(&flights).share(head("http://a/"), None, 10).unwrap();
        let reader = fill.reader().unwrap();
        let mut fill = tokio::spawn(async move {
            let flow = fill.push(Bytes::from(vec![0; 2 * WINDOW as usize])).await;
            (flow, fill)
        });
        tokio::task::yield_now().await;
        assert!(!fill.is_finished(), "the reader is too far behind");
        drop(reader);
        let (flow, fill) = (&mut fill).await.unwrap();
        assert_eq!(flow, Flow::Unread);
        assert!(fill.reader().is_none());
        check_gone(&flights);
    }

    #[tokio::test]
    async fn the_end_of_an_outgrown_body_is_nothing_to_the_next_flight_of_its_key() {
        type End = fn(Fill);
        let ends: [End; 2] = [|fill| assert_eq!(fill.finish(|_| panic!("not to be stored")), None), Fill::abort];
        for end in ends {
            let flights = flights();
            let mut outgrown = lead(&flights).share(head("http://a/"), None, 1).unwrap();
            assert_eq!(outgrown.push(Bytes::from("abc")).await, Flow::Unread);
            let next = lead(&flights);
            end(outgrown);
            assert_eq!(flights.len(), 1);
            let waiter = wait(&flights);
            next.alone();
            assert!(matches!(waiter.verdict().await, Verdict::Alone));
            check_gone(&flights);
        }
    }

    #[tokio::test]
    async fn what_is_announced_too_large_or_over_the_budget_goes_alone() {
        for (length, max_entry, why) in [
            (Some(101), 100, Unshared::TooLarge),
            (Some(1_001), 5_000, Unshared::NoBudget),
            (None, 5_000, Unshared::NoBudget),
        ] {
            let flights = Flights::new(1_000);
            let lead = lead(&flights);
            let waiter = wait(&flights);
            assert_eq!(lead.share(head("http://a/"), length, max_entry).unwrap_err(), why);
            assert!(matches!(waiter.verdict().await, Verdict::Alone));
            check_gone(&flights);
        }
    }

    #[tokio::test]
    async fn a_body_that_outgrows_the_budget_on_its_way_streams_on_unstored() {
        let flights = Flights::new(2 * STEP);
        let mut fill = fill(&flights);
        let reader = tokio::spawn(read(fill.reader().unwrap()));
        let chunk = Bytes::from(vec![1; STEP as usize]);
        let flows = [fill.push(chunk.clone()).await, fill.push(chunk.clone()).await, fill.push(chunk).await];
        assert_eq!(flows, [Flow::Kept, Flow::Kept, Flow::Outgrown]);
        assert_eq!(fill.finish(|_| panic!("not to be stored")), None);
        assert_eq!(reader.await.unwrap().0.len(), 3 * STEP as usize);
        check_gone(&flights);
    }

    /// Many tasks on several threads miss the same few keys in each round. Whoever leads asks "upstream"; never may
    /// two do so for one key at once, and once a body is stored nobody may ask again.
    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn each_key_is_fetched_once_whatever_the_threads_do() {
        const TASKS: usize = 64;
        const KEYS: usize = 4;
        for round in 0..20_usize {
            let flights = flights();
            let barrier = Arc::new(Barrier::new(TASKS));
            let stores: Arc<[OnceLock<Bytes>; KEYS]> = Arc::default();
            let asked: Arc<[AtomicUsize; KEYS]> = Arc::default();
            let tasks = (0..TASKS).map(|task| {
                let (flights, barrier) = (flights.clone(), Arc::clone(&barrier));
                let (stores, asked) = (Arc::clone(&stores), Arc::clone(&asked));
                async move {
                    barrier.wait().await;
                    let number = task % KEYS;
                    let store = &stores[number];
                    let want = PATTERN.slice(number..number + 10_000);
                    let mut joined = flights.join(Key(number as u128));
                    loop {
                        let lead = match joined {
                            Joined::Lead(lead) => lead,
                            Joined::Wait(waiter) => match waiter.verdict().await {
                                Verdict::Lead(lead) => lead,
                                Verdict::Stream(_, reader) => {
                                    assert_eq!(read(reader).await, (want.to_vec(), Ok(())));
                                    return;
                                }
                                Verdict::Found(entry) => return assert_eq!(entry.body, want),
                                other => panic!("{other:?}"),
                            },
                        };
                        if let Some(body) = store.get() {
                            return lead.found(Arc::new(Entry::new(head("http://a/"), body.clone())));
                        }
                        if (task / KEYS + round).is_multiple_of(3) {
                            drop(lead); // a leader is lost
                            joined = flights.join(Key(number as u128));
                            tokio::task::yield_now().await;
                            continue;
                        }
                        assert_eq!(asked[number].fetch_add(1, Ordering::SeqCst), 0, "asked upstream twice");
                        let mut fill = lead.share(head("http://a/"), Some(10_000), MAX).unwrap();
                        for chunk in want.chunks(700) {
                            fill.push(Bytes::copy_from_slice(chunk)).await;
                            tokio::task::yield_now().await;
                        }
                        fill.finish(|body| store.set(body.clone()).unwrap()).unwrap();
                        return;
                    }
                }
            });
            tasks.collect::<JoinSet<_>>().join_all().await;
            check_gone(&flights);
        }
    }

    static PATTERN: LazyLock<Bytes> = LazyLock::new(|| {
        let mut state = 1_u32;
        let bytes = (0..4 << 20).map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        });
        bytes.collect()
    });

    // ---- any schedule: a little executor that polls a task only if it was woken

    #[derive(Debug, Default)]
    struct Flag(AtomicBool);

    impl Wake for Flag {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    type Pending<T> = Pin<Box<dyn Future<Output = T>>>;

    enum Role {
        Waits(Pending<Verdict>),
        Leads(Lead),
        Fills { fill: Fill, body: usize, at: usize, windowed: bool },
        Pushes { push: Pending<(Fill, Flow)>, body: usize, at: usize },
        Reads { reader: Reader, body: usize, at: usize },
        Gone,
    }

    struct Actor {
        key: u8,
        role: Role,
        flag: Arc<Flag>,
    }

    struct World {
        flights: Flights,
        actors: Vec<Actor>,
        bodies: usize,
    }

    const SMALL_MAX: u64 = 120_000;

    impl World {
        fn join(&mut self, key: u8) {
            let role = match self.flights.join(Key(u128::from(key))) {
                Joined::Lead(lead) => Role::Leads(lead),
                Joined::Wait(waiter) => Role::Waits(Box::pin(waiter.verdict())),
            };
            self.actors.push(Actor { key, role, flag: Arc::default() });
            self.actors.last().unwrap().flag.0.store(true, Ordering::Relaxed);
        }

        /// Lets one actor take a step that `draw` chooses; whether anything happened.
        fn step(&mut self, number: usize, draw: u32) -> bool {
            let Some(actor) = self.actors.get_mut(number) else {
                return false;
            };
            let waker = Waker::from(Arc::clone(&actor.flag));
            let cx = &mut Context::from_waker(&waker);
            let woken = actor.flag.0.swap(false, Ordering::Relaxed);
            let role = mem::replace(&mut actor.role, Role::Gone);
            let (role, moved) = match role {
                Role::Waits(mut verdict) if woken => match verdict.as_mut().poll(cx) {
                    Poll::Pending => (Role::Waits(verdict), true),
                    Poll::Ready(Verdict::Lead(lead)) => (Role::Leads(lead), true),
                    Poll::Ready(Verdict::Stream(head, reader)) => {
                        actor.flag.0.store(true, Ordering::Relaxed);
                        let body = head.url().strip_prefix("http://a/").unwrap().parse().unwrap();
                        (Role::Reads { reader, body, at: 0 }, true)
                    }
                    Poll::Ready(_) => (Role::Gone, true),
                },
                Role::Reads { mut reader, body, at } if woken => match reader.poll_next(cx) {
                    Poll::Pending => (Role::Reads { reader, body, at }, true),
                    Poll::Ready(Some(Ok(chunk))) => {
                        let start = body + at;
                        assert_eq!(chunk, PATTERN.slice(start..start + chunk.len()), "body {body} at {at}");
                        actor.flag.0.store(true, Ordering::Relaxed);
                        (Role::Reads { reader, body, at: at + chunk.len() }, true)
                    }
                    Poll::Ready(_) => (Role::Gone, true),
                },
                Role::Pushes { mut push, body, at } if woken => match push.as_mut().poll(cx) {
                    Poll::Pending => (Role::Pushes { push, body, at }, true),
                    Poll::Ready((fill, flow)) => (Role::Fills { fill, body, at, windowed: flow != Flow::Kept }, true),
                },
                Role::Leads(lead) => {
                    match draw % 8 {
                        0 => lead.alone(),
                        1 => lead.refuse(Reason::UpstreamReset.into()),
                        2 => lead.refuse(Reason::QueueFull.into()),
                        3 => drop(lead),
                        _ => {
                            self.bodies += 1;
                            let body = self.bodies;
                            if let Ok(fill) = lead.share(head(&format!("http://a/{body}")), None, SMALL_MAX) {
                                actor.role = Role::Fills { fill, body, at: 0, windowed: false };
                            }
                            return true;
                        }
                    }
                    (Role::Gone, true)
                }
                Role::Fills { fill, body, at, .. } if draw.is_multiple_of(16) || at > 1 << 20 => {
                    match draw / 16 % 2 {
                        0 => drop(fill.finish(|kept| assert_eq!(*kept, PATTERN.slice(body..body + at)))),
                        _ => fill.abort(),
                    }
                    (Role::Gone, true)
                }
                Role::Fills { mut fill, body, at, .. } => {
                    let size = draw as usize % 100_000;
                    let chunk = PATTERN.slice(body + at..body + at + size);
                    let push = Box::pin(async move {
                        let flow = fill.push(chunk).await;
                        (fill, flow)
                    });
                    actor.flag.0.store(true, Ordering::Relaxed);
                    (Role::Pushes { push, body, at: at + size }, true)
                }
                asleep => (asleep, false),
            };
            actor.role = role;
            moved
        }

        /// Everything that holds after each step.
        fn check(&self) {
            for key in 0..2 {
                let leaders = self.actors.iter().filter(|actor| {
                    actor.key == key && matches!(actor.role, Role::Leads(_) | Role::Fills { windowed: false, .. })
                });
                assert!(leaders.count() <= 1, "two leaders of one key");
            }
        }

        /// Runs until nobody moves: then everybody has got a verdict and the whole body, or what there was of it.
        fn settle(mut self) {
            let mut draw = 12_345_u32;
            loop {
                let mut moved = false;
                for number in 0..self.actors.len() {
                    draw = draw.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    moved |= self.step(number, draw >> 8);
                }
                if !moved {
                    break;
                }
                self.check();
            }
            for actor in &self.actors {
                assert!(matches!(actor.role, Role::Gone), "somebody was forgotten");
                assert_eq!(Arc::strong_count(&actor.flag), 1, "a waker leaked");
            }
            check_gone(&self.flights);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn under_any_schedule_everybody_gets_a_verdict_and_every_byte_in_order(
            steps in vec((0_u8..10, 0_usize..24, any::<u32>()), 0..300),
        ) {
            let mut world = World { flights: Flights::new(1 << 20), actors: Vec::new(), bodies: 0 };
            for (what, number, draw) in steps {
                match what {
                    0..2 if world.actors.len() < 24 => world.join(draw as u8 % 2),
                    2 if number < world.actors.len() => {
                        world.actors[number].role = Role::Gone; // cancelled
                    }
                    _ => drop(world.step(number, draw)),
                }
                world.check();
            }
            world.settle();
        }
    }
}
