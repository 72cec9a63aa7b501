//! What a request holds at the upstream, from the moment it is sent until the upstream has really ended: a slot, a
//! pass of the breaker, a place among the endpoint's requests.
//!
//! When the client leaves or a timeout fires, the upstream does not notice: its work process computes on. Then the
//! exchange goes on without us, detached and bounded, and the slot stays taken: a zombie. A late answer that may be
//! stored is harvested, so that the user's next try is a hit.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Response;
use http_body::Frame;
use tokio::runtime::Handle;
use tokio::time::{Sleep, sleep_until};

use super::alarms::Timer;
use super::look;
use super::snapshot::Worker;
use crate::breaker::Pass;
use crate::message::trace::TraceId;
use crate::metrics::Traced;
use crate::outcome::classes::{Classes, Verdict};
use crate::outcome::{Failure, FailureKind, Outcome, Stage};
use crate::throttle::limit;
use crate::throttle::slots::Permit;
use crate::upstream::body::{BoxError, Progress, ReplyBody, Source};
use crate::upstream::origin::{OriginError, Sending};
use crate::upstream::{Endpoint, Upstream};

/// What becomes of an answer nobody waits for any more.
pub(super) type Late = Box<dyn FnOnce(Response<ReplyBody>) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send>;

/// What one attempt holds. Given back when dropped, whatever happens.
pub(super) struct Held {
    upstream: Arc<Upstream>,
    endpoint: usize,
    worker: Arc<Worker>,
    permit: Option<Permit>,
    pass: Option<Pass>,
    sent_at: Instant,
    /// Time to the head, once it is there.
    took: Option<Duration>,
    /// What the answer means by all that was looked at; the body may still spoil it.
    verdict: Verdict,
    settled: bool,
    silence: Option<Silence>,
    /// Ends the body for a caller that waits no longer.
    hurry: Option<Pin<Box<Sleep>>>,
    /// The trace of the request, if its caller records it.
    trace: Option<TraceId>,
}

/// Notices that a body has stopped.
struct Silence {
    timer: Pin<Box<Sleep>>,
    moved: bool,
}

/// An attempt that waits for its head. Dropped while it waits, it becomes a zombie.
pub(super) struct InFlight<'a> {
    classes: &'a Classes,
    sending: Option<(Sending, Box<Held>)>,
    late: Option<Late>,
    since: Instant,
    patience: Patience,
    /// Made by the first poll that has to wait.
    timer: Option<Timer>,
    /// Bytes of the request's body that had been read when the timer was last set.
    uploaded: Option<u64>,
}

/// The head of an answer.
pub(super) type Answer = (Response<ReplyBody>, Box<Held>);

/// What an attempt brought.
pub(super) enum Came {
    /// An answer of which it is known what it means, and when its head came.
    Judged(Answer, Instant),
    /// One whose body is to be looked at for that.
    Unknown(Answer),
    /// What the origin says, or a timeout; then the exchange goes on as a zombie.
    Failed(OriginError),
}

/// How long a head is waited for.
pub(super) struct Patience {
    /// The upstream may be silent for so long, counted from when the request's body has been sent.
    pub(super) silence: Duration,
    /// Until then the caller waits.
    pub(super) deadline: Option<Instant>,
    /// The request's body.
    pub(super) request: Option<Arc<Source>>,
}

impl Held {
    /// Takes what was acquired for an attempt at `endpoint`, which counts it already.
    pub(super) fn new(
        worker: &Arc<Worker>,
        upstream: &Arc<Upstream>,
        endpoint: usize,
        permit: Permit,
        pass: Option<Pass>,
        now: Instant,
    ) -> Box<Self> {
        Box::new(Self {
            upstream: Arc::clone(upstream),
            endpoint,
            worker: Arc::clone(worker),
            permit: Some(permit),
            pass,
            sent_at: now,
            took: None,
            verdict: Verdict { outcome: Outcome::Ignored, by_rule: false },
            settled: false,
            silence: None,
            hurry: None,
            trace: None,
        })
    }

    /// The same, for a request that belongs to a recorded trace.
    pub(super) fn traced(mut self: Box<Self>, trace: Option<TraceId>) -> Box<Self> {
        self.trace = trace;
        self
    }

    /// What the answer means.
    pub(super) const fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// The answer was judged.
    pub(super) const fn judged(&mut self, verdict: Verdict) {
        self.verdict = verdict;
    }

    /// The body is for a caller that waits until then.
    pub(super) fn hurry(&mut self, deadline: Option<Instant>) {
        self.hurry = deadline.map(|at| Box::pin(sleep_until(at.into())));
    }

    /// The next frame of the reply; gives everything back at the end.
    pub(super) fn poll_body(
        &mut self,
        body: &mut ReplyBody,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let next = self.peek_body(body, cx);
        match &next {
            Poll::Pending if self.hurry.as_mut().is_some_and(|hurry| hurry.as_mut().poll(cx).is_ready()) => {
                return Poll::Ready(Some(Err("the deadline of the request has passed".into())));
            }
            Poll::Pending => {}
            Poll::Ready(None) => self.settle(self.verdict.outcome),
            Poll::Ready(Some(Err(_))) => self.settle(Outcome::Broken),
            Poll::Ready(Some(Ok(_))) if body.is_end_stream() => self.settle(self.verdict.outcome),
            Poll::Ready(Some(Ok(_))) => {}
        }
        next
    }

    /// The next frame, before anybody has judged it: a good end of the reply gives nothing back yet.
    pub(super) fn peek_body(
        &mut self,
        body: &mut ReplyBody,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let next = body.poll_frame(cx);
        match &next {
            Poll::Pending if self.is_silent(cx) => {
                self.settle(Outcome::Broken);
                return Poll::Ready(Some(Err("the upstream's body stopped".into())));
            }
            Poll::Ready(Some(Ok(_))) => {
                if let Some(silence) = &mut self.silence {
                    silence.moved = true;
                }
            }
            _ => {}
        }
        next
    }

    /// The reply is of no use, whatever its head said.
    pub(super) const fn spoil(&mut self) {
        self.verdict.outcome = Outcome::Broken;
    }

    /// The client is done with the body: to its end, or it has left and the rest is read without it.
    pub(super) fn leave(mut self: Box<Self>, body: ReplyBody, whole: bool) {
        if whole || self.settled {
            self.settle(self.verdict.outcome);
            return;
        }
        let Ok(runtime) = Handle::try_current() else { return };
        self.haunt();
        let hold = self.upstream.zombie_hold;
        runtime.spawn(async move {
            let mut body = body;
            match tokio::time::timeout(hold, drain(&mut body, DRAINED)).await {
                Ok(Some(Ok(()))) => self.settle(self.verdict.outcome),
                Ok(Some(Err(_))) => self.settle(Outcome::Broken),
                // Given up: dropped, it teaches nothing.
                Ok(None) | Err(_) => {}
            }
        });
    }

    /// Tells breaker, endpoint and meter once how the attempt ended, and gives the slot back.
    fn settle(&mut self, outcome: Outcome) {
        if std::mem::replace(&mut self.settled, true) {
            // The verdict was early; the slot ends now.
            if let Some(permit) = self.permit.take() {
                permit.finish(self.worker.core.clock.now());
            }
            return;
        }
        let now = self.worker.core.clock.now();
        let took = self.took.unwrap_or_else(|| now.saturating_duration_since(self.sent_at));
        self.learn(outcome, took, now);
        let traced = self.trace.map(|trace| Traced { trace, at: self.worker.core.clock.wall_at(now) });
        self.upstream.meter.attempt(self.worker.index, outcome, self.took, traced);
        if let Some(mut permit) = self.permit.take() {
            permit.ended(outcome.into(), took);
            self.note(permit.finish(now));
        }
    }

    /// The adaptive limit has moved.
    fn note(&self, shift: Option<limit::Shift>) {
        let Some(shift) = shift else { return };
        let upstream = &*self.upstream.name;
        if shift.shadow {
            tracing::info!(upstream, %shift, "the limit would be another");
        } else {
            tracing::debug!(upstream, %shift, "limit");
        }
    }

    fn learn(&mut self, outcome: Outcome, took: Duration, now: Instant) {
        if let (Some(breaker), Some(pass)) = (&self.upstream.breaker, self.pass.take()) {
            let shift = breaker.lock().record(pass, outcome, took, now);
            self.upstream.breaker_shifted(self.worker.index, shift, now);
        }
        self.upstream.learn(self.endpoint, outcome, now);
    }

    fn endpoint(&self) -> Option<&Endpoint> {
        self.upstream.endpoints.get(self.endpoint)
    }

    /// Whether the body has been silent for as long as an exchange may take.
    fn is_silent(&mut self, cx: &mut Context<'_>) -> bool {
        let limit = self.upstream.timeouts.total;
        let silence =
            self.silence.get_or_insert_with(|| Silence { timer: Box::pin(tokio::time::sleep(limit)), moved: false });
        if std::mem::take(&mut silence.moved) {
            let now = self.worker.core.clock.now();
            silence.timer.as_mut().reset((now + limit).into());
        }
        silence.timer.as_mut().poll(cx).is_ready()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.settle(Outcome::Ignored);
        if let Some(endpoint) = self.endpoint() {
            endpoint.in_flight.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl<'a> InFlight<'a> {
    /// An attempt under way, whose answer is read by `classes`. `late` takes it if it comes when nobody waits any more.
    pub(super) fn new(
        sending: Sending,
        held: Box<Held>,
        classes: &'a Classes,
        late: Option<Late>,
        patience: Patience,
    ) -> Self {
        let since = held.sent_at;
        Self { classes, sending: Some((sending, held)), late, since, patience, timer: None, uploaded: None }
    }

    /// Why nobody waits any longer, once that is so.
    fn poll_patience(&mut self, cx: &mut Context<'_>) -> Poll<OriginError> {
        let Patience { silence, deadline, request } = &self.patience;
        let Some((_, held)) = &mut self.sending else { return Poll::Ready(timeout()) };
        let until = |silent: Instant| deadline.map_or(silent, |at| at.min(silent));
        let since = self.since;
        let timer = self.timer.get_or_insert_with(|| Timer::new(&held.worker, until(since + *silence)));
        loop {
            std::task::ready!(timer.poll(cx));
            let now = timer.at();
            if deadline.is_some_and(|at| at <= now) {
                return Poll::Ready(OriginError::late());
            }
            // A long upload is not the upstream's silence, as long as it moves.
            let read = request.as_ref().filter(|body| body.progress() == Progress::Unfinished).map(|body| body.bytes());
            let moves = read.zip(self.uploaded).is_none_or(|(read, before)| read >= before + UPLOAD_AT_LEAST);
            if read.is_none() || !moves {
                held.fail(Outcome::Broken);
                return Poll::Ready(timeout());
            }
            self.uploaded = read;
            timer.put_off(until(now + *silence));
        }
    }
}

impl Future for InFlight<'_> {
    type Output = Came;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Came> {
        let Some((sending, _)) = &mut self.sending else { return Poll::Ready(Came::Failed(timeout())) };
        let Poll::Ready(answer) = sending.as_mut().poll(cx) else { return self.poll_patience(cx).map(Came::Failed) };
        let Some((_, mut held)) = self.sending.take() else { return Poll::Ready(Came::Failed(timeout())) };
        Poll::Ready(match answer {
            Ok(response) => {
                let now = held.worker.core.clock.now();
                held.took = Some(now.saturating_duration_since(held.sent_at));
                if look::judges(self.classes, &response, &mut held) {
                    Came::Judged((response, held), now)
                } else {
                    Came::Unknown((response, held))
                }
            }
            Err(error) => {
                held.settle(error.failure.outcome());
                Came::Failed(error)
            }
        })
    }
}

impl Held {
    /// Nobody waits any more, but the upstream still works: the slot stays taken.
    fn haunt(&mut self) {
        let Some(permit) = &mut self.permit else { return };
        let shift = permit.zombie();
        self.note(shift);
        self.upstream.meter.zombie(self.worker.index);
        if let Some(breaker) = &self.upstream.breaker {
            let (zombies, slots) = self.upstream.slots.zombies();
            let now = self.worker.core.clock.now();
            let shift = breaker.lock().haunted(zombies, slots, now);
            self.upstream.breaker_shifted(self.worker.index, shift, now);
        }
    }

    /// Teaches now that there was no answer in time, while the slot stays taken.
    fn fail(&mut self, outcome: Outcome) {
        let now = self.worker.core.clock.now();
        let took = now.saturating_duration_since(self.sent_at);
        self.learn(outcome, took, now);
        if let Some(permit) = &mut self.permit {
            permit.ended(limit::Ending::Dropped, took);
        }
        self.upstream.meter.attempt(self.worker.index, outcome, None, None);
        self.settled = true;
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        let Some((sending, mut held)) = self.sending.take() else { return };
        let Ok(runtime) = Handle::try_current() else { return };
        held.haunt();
        let (hold, late) = (held.upstream.zombie_hold, self.late.take());
        runtime.spawn(async move {
            let ending = async {
                let Ok(response) = sending.await else { return };
                match late {
                    Some(late) => late(response).await,
                    None => drain_rest(&mut response.into_body()).await,
                }
            };
            let _ = tokio::time::timeout(hold, ending).await;
            drop(held);
        });
    }
}

/// Reads on a body nobody wants, as far as that is worth while.
pub(super) async fn drain_rest(body: &mut ReplyBody) {
    drain(body, DRAINED).await;
}

/// Reads a body nobody wants, up to `most` bytes: past that, closing the connection is cheaper for everybody. Says how
/// the body ended, if it did.
async fn drain(body: &mut ReplyBody, most: u64) -> Option<Result<(), BoxError>> {
    let mut read = 0;
    while read <= most {
        match std::future::poll_fn(|cx| body.poll_frame(cx)).await {
            Some(Ok(frame)) => read += frame.data_ref().map_or(0, |data| data.len() as u64),
            Some(Err(error)) => return Some(Err(error)),
            None => return Some(Ok(())),
        }
    }
    None
}

fn timeout() -> OriginError {
    let failure = Failure { kind: FailureKind::HeadTimeout, stage: Stage::Head, sent: true, reused: false };
    OriginError { failure, source: None }
}

const DRAINED: u64 = 1 << 20;
/// Bytes an upload must bring within each patience; else it holds a slot for nothing.
const UPLOAD_AT_LEAST: u64 = 1024;
