//! Step 6: try, and perhaps try again. Each attempt goes through the gate, to one endpoint, under the head timeout; its
//! end is classified once and taught to breaker, endpoint and budget.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header;
use http::response::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version};

use super::deadline::{self, Deadline};
use super::exchange::Tally;
use super::gate::{self, Passed, Passing};
use super::held::{Answer, Came, Held, InFlight, Late, Patience};
use super::journal::{End, Place};
use super::look;
use super::outgoing::AsItIs;
use super::snapshot::{Route, Worker};
use super::traced;
use super::tunnel::{self, Side};
use crate::gear::Gear;
use crate::message::trace::{Context, TRACEPARENT, TraceId};
use crate::message::{chain, target};
use crate::outcome::{Failure, Outcome};
use crate::refusal::{Reason, Refusal};
use crate::retry::{self, Ended, Question, RetryParams, Tries};
use crate::throttle::Ticket;
use crate::upstream::body::{Gate, Progress, ReplyBody, RequestBody, Source};
use crate::upstream::origin::{Call, OriginError, Relayed, Sending};
use crate::upstream::{Endpoint, Expect, HostHeader, Upstream};

/// A request as it goes to the upstream, apart from what depends on the endpoint.
pub(super) struct Outgoing {
    /// Its method.
    pub(super) method: Method,
    /// Its path and query.
    pub(super) target: PathAndQuery,
    /// Its fields.
    pub(super) headers: HeaderMap,
    /// If they are still those of its client: what stands beside them.
    pub(super) as_it_is: Option<AsItIs>,
    /// Its body.
    pub(super) body: Option<Arc<Source>>,
    /// Whether it changes nothing at the upstream, whatever its method is called.
    pub(super) safe: bool,
    /// The trace it belongs to, if its caller records it.
    pub(super) trace: Option<TraceId>,
    /// The span whose children its attempts are, if it is traced.
    pub(super) span: Option<Context>,
    /// The client's side of a protocol switch.
    pub(super) upgrade: Option<Side>,
    /// Until when its caller waits, if it is for that one alone.
    pub(super) deadline: Option<Deadline>,
}

/// Who asks, on which route.
#[derive(Clone, Copy)]
pub(super) struct Ask<'a> {
    /// The event loop.
    pub(super) worker: &'a Arc<Worker>,
    /// The route.
    pub(super) route: &'a Route,
    /// The upstream: the route's, or the one that stands in for it.
    pub(super) upstream: &'a Arc<Upstream>,
    /// What it brings to the queue.
    pub(super) ticket: Ticket,
}

/// A reply with what it holds; nothing after a switch of protocols, whose tunnel holds it.
pub(super) type Reply = (Parts, ReplyBody, Option<Box<Held>>);

/// Tries until there is a reply, or no further try is right; begun at `now`.
///
/// # Errors
/// What the gate says, or the reason of the last failure.
pub(super) fn attempts<'a>(
    ask: Ask<'a>,
    outgoing: &'a mut Outgoing,
    tally: &'a mut Tally,
    now: Instant,
    late: impl Fn() -> Option<Late> + Send + 'a,
) -> impl Future<Output = Result<Reply, Refusal>> + Send + 'a {
    let deadline = outgoing.deadline.as_ref().map(|deadline| deadline.at);
    let mut course =
        Course { ask, deadline, now, begun: None, endpoint: usize::MAX, tries: Tries::default(), fresh: false };
    // No `async fn`, as that keeps its arguments twice; and nothing large is left over where it waits.
    async move {
        loop {
            let passing = gate::pass(course.ask, outgoing.safe, course.deadline, course.now, tally)?;
            let passed = match passing {
                Passing::Passed(passed) => passed,
                // Boxed: most find a slot at once.
                Passing::Waits(waiting) => {
                    Box::pin(waiting.pass(course.ask, outgoing.safe, course.deadline, tally)).await?
                }
            };
            // A scope of its own: after a timeout the exchange goes on as a zombie at once, not after a pause.
            let came = {
                let mut flight = course.launch(outgoing, tally, passed, &late)?;
                (&mut flight).await
            };
            let wait = {
                let head = match came {
                    Came::Judged(answer, at) => {
                        course.now = at;
                        Ok(answer)
                    }
                    came => Box::pin(course.looked(came)).await,
                };
                match head {
                    Ok((response, held)) => match course.answered(outgoing, tally, &response, &held) {
                        None => return Ok(received(response, held, outgoing.upgrade.take())),
                        Some(wait) => {
                            held.leave(response.into_body(), false);
                            wait
                        }
                    },
                    Err(error) => course.failed(outgoing, tally, &error)?,
                }
            };
            tally.tries.again(wait);
            Box::pin(course.pause(wait)).await;
        }
    }
}

/// One request's tries.
struct Course<'a> {
    ask: Ask<'a>,
    deadline: Option<Instant>,
    /// When its present step began.
    now: Instant,
    begun: Option<Instant>,
    /// The endpoint of the last one.
    endpoint: usize,
    tries: Tries,
    fresh: bool,
}

impl<'a> Course<'a> {
    /// What stands in for the upstream is asked once.
    fn is_once(&self) -> bool {
        !Arc::ptr_eq(self.ask.upstream, &self.ask.route.upstream)
    }

    /// Sends the request to an endpoint.
    fn launch(
        &mut self,
        outgoing: &Outgoing,
        tally: &mut Tally,
        Passed { permit, pass, at: now }: Passed,
        late: impl Fn() -> Option<Late>,
    ) -> Result<InFlight<'a>, Refusal> {
        let Ask { worker, upstream, .. } = self.ask;
        self.begun.get_or_insert_with(|| {
            upstream.budget.lock().deposit(now);
            now
        });
        self.endpoint = upstream.enter(worker.draw(), now).unwrap_or(usize::MAX);
        let held = Held::new(worker, upstream, self.endpoint, permit, pass, now).traced(outgoing.trace);
        let Some(endpoint) = upstream.endpoints.get(self.endpoint) else {
            return Err(Reason::UpstreamNone.into());
        };
        let call = Call { worker: worker.index, fresh: self.fresh };
        let sending = outgoing.relay(worker, upstream, endpoint, call).unwrap_or_else(|| {
            let request = outgoing.request(worker, upstream, endpoint, (tally.attempts, self.time_left(now)));
            Arc::clone(&endpoint.origin).send(request, call)
        });
        tally.attempts += 1;
        tally.tries.begin(Place { is_spare: self.is_once(), endpoint: self.endpoint }, now);
        let silence = upstream.timeouts.head.min(self.total_left(now));
        let patience = Patience { silence, deadline: self.deadline, request: outgoing.body.clone() };
        Ok(InFlight::new(sending, held, &self.ask.route.classes, late(), patience))
    }

    /// What came, after a look at its body where its head does not say what it means.
    async fn looked(&mut self, came: Came) -> Result<Answer, OriginError> {
        let looked = match came {
            Came::Judged(answer, _) => Ok(answer),
            Came::Unknown((response, held)) => {
                let look = look::into(&self.ask.route.classes, response, held);
                deadline::within(self.deadline, look).await.map_err(|_| OriginError::late())
            }
            Came::Failed(error) => Err(error),
        };
        self.now = self.ask.worker.core.clock.now();
        looked
    }

    /// Waits before another attempt.
    async fn pause(&mut self, wait: Duration) {
        let Ask { worker, upstream, .. } = self.ask;
        upstream.meter.retry(worker.index);
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        self.now = worker.core.clock.now();
    }

    /// An answer has come: there is another attempt after so long, if there is.
    fn answered(
        &mut self,
        outgoing: &Outgoing,
        tally: &mut Tally,
        response: &Response<ReplyBody>,
        held: &Held,
    ) -> Option<Duration> {
        let now = self.now;
        tally.upstream = self.begun.map(|begun| now.saturating_duration_since(begun));
        tally.reached = true;
        tally.tries.end(End::Answered(response.status()), now);
        self.after_answer(outgoing, response, held.verdict().outcome, now)
    }

    /// There will be none: there is another attempt after so long.
    ///
    /// # Errors
    /// There is none.
    fn failed(&mut self, outgoing: &Outgoing, tally: &mut Tally, error: &OriginError) -> Result<Duration, Refusal> {
        let now = self.now;
        tally.upstream = self.begun.map(|begun| now.saturating_duration_since(begun));
        tally.reached |= error.failure.sent;
        tally.tries.failed(error, now);
        let upstream = self.ask.upstream;
        let endpoint = upstream.endpoints.get(self.endpoint).map(|endpoint| &*endpoint.name);
        tracing::debug!(upstream = %upstream.name, endpoint, error = chain(error), "attempt failed");
        let again = self.again(outgoing, Ended::Failure(error.failure), now);
        again.ok_or_else(|| refusal(error.failure, outgoing.body.as_deref()))
    }

    /// Until the exchange has taken too long: the upstream's fault.
    fn total_left(&self, now: Instant) -> Duration {
        let spent = self.begun.map_or(Duration::ZERO, |begun| now.saturating_duration_since(begun));
        self.ask.upstream.timeouts.total.saturating_sub(spent)
    }

    /// Until then, or the end of the caller's patience, which is nobody's fault.
    fn time_left(&self, now: Instant) -> Duration {
        let total = self.total_left(now);
        self.deadline.map_or(total, |at| total.min(at.saturating_duration_since(now)))
    }

    /// Whether an answered attempt is repeated: the upstream said that it cannot.
    fn after_answer(
        &mut self,
        outgoing: &Outgoing,
        response: &Response<ReplyBody>,
        outcome: Outcome,
        now: Instant,
    ) -> Option<Duration> {
        if outcome.is_success() || outgoing.upgrade.is_some() {
            return None;
        }
        let wall = self.ask.worker.core.clock.wall_at(now);
        let field = response.headers().get(header::RETRY_AFTER);
        let retry_after = field.and_then(|field| retry::asked_wait(field, wall));
        self.again(outgoing, Ended::Answer { outcome, retry_after }, now)
    }

    fn again(&mut self, outgoing: &Outgoing, ended: Ended, now: Instant) -> Option<Duration> {
        // A method tunnelled through a field is the real one, and nobody knows whether it may be repeated.
        let tunnelled = outgoing.method.is_safe() && !outgoing.safe;
        let question = Question {
            method: match () {
                () if tunnelled => &Method::POST,
                () if outgoing.safe => &Method::GET, // whatever it is called
                () => &outgoing.method,
            },
            replayable: outgoing.body.as_ref().is_none_or(|body| body.replayable()),
            ended,
            time_left: Some(self.time_left(now)),
        };
        let Ask { worker, upstream, .. } = self.ask;
        let mut budget = upstream.budget.lock();
        let drawn = worker.draw();
        // Under strain a retry is one request more.
        let strained = upstream.gears.stand().is_some_and(|stand| stand.gear >= Gear::Eco);
        let params = if strained || self.is_once() { &RetryParams::NEVER } else { &upstream.retry };
        let again = retry::decide(params, &mut self.tries, &question, &mut budget, now, drawn)?;
        self.fresh = again.fresh_connection;
        Some(again.wait)
    }
}

/// The client's reason for a failed attempt.
fn refusal(failure: Failure, body: Option<&Source>) -> Refusal {
    match body.map(Source::progress) {
        Some(Progress::TooLarge) => Reason::RequestTooLarge.into(),
        _ => failure.reason().into(),
    }
}

/// A reply; a switch of protocols joins both sides and takes the slot along.
fn received(response: Response<ReplyBody>, held: Box<Held>, client: Option<Side>) -> Reply {
    let (mut parts, body) = response.into_parts();
    if parts.status == StatusCode::SWITCHING_PROTOCOLS
        && let (Some(client), Some(upstream)) = (client, Side::take(&mut parts.extensions))
    {
        tunnel::join(client, upstream, held);
        return (parts, body, None);
    }
    (parts, body, Some(held))
}

impl Outgoing {
    /// Whether another upstream may be asked the same: it changes nothing, and can be sent again.
    pub(super) fn may_go_elsewhere(&self) -> bool {
        self.safe && self.upgrade.is_none() && self.body.as_ref().is_none_or(|body| body.replayable())
    }

    /// The same once more, for another upstream.
    pub(super) fn copy(&self) -> Self {
        Self {
            method: self.method.clone(),
            target: self.target.clone(),
            headers: self.headers.clone(),
            as_it_is: self.as_it_is.clone(),
            body: self.body.clone(),
            safe: self.safe,
            trace: self.trace,
            span: self.span,
            upgrade: None,
            deadline: self.deadline.clone(),
        }
    }

    /// Sends it as it is, if it may and can.
    fn relay(&self, worker: &Worker, upstream: &Upstream, endpoint: &Endpoint, call: Call) -> Option<Sending> {
        let as_it_is = self.as_it_is.as_ref()?;
        let asked = target::host_field(&self.headers)?;
        let head = Relayed {
            method: &self.method,
            target: &self.target,
            host: if upstream.host == HostHeader::Upstream { &endpoint.authority } else { asked },
            headers: &self.headers,
            beside: &|to| as_it_is.lines(worker, asked, to),
        };
        let body = self.body.as_ref().map_or(RequestBody::Empty, |body| body.attempt(None));
        Arc::clone(&endpoint.origin).relay(head, body, call).ok()
    }

    /// The request for one attempt at `endpoint`: the how many-eth it is, and the time it has left.
    fn request(
        &self,
        worker: &Worker,
        upstream: &Upstream,
        endpoint: &Endpoint,
        (number, left): (u32, Duration),
    ) -> Request<RequestBody> {
        let mut request = Request::new(RequestBody::Empty);
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = Uri::from(self.target.clone());
        *request.version_mut() = Version::HTTP_11;
        *request.headers_mut() = self.headers.clone();
        if let Some(as_it_is) = &self.as_it_is {
            as_it_is.dress(worker, request.headers_mut());
        }
        // HTTP/1.0 may come without a Host; HTTP/1.1 may not go on without (RFC 9112 section 3.2).
        if upstream.host == HostHeader::Upstream || !request.headers().contains_key(header::HOST) {
            request.headers_mut().insert(header::HOST, endpoint.authority.clone());
        }
        // Unless the operator has taken the field out.
        if let (Some(span), Some(parent)) = (self.span, request.headers_mut().get_mut(TRACEPARENT)) {
            *parent = traced::field(traced::attempt(span, number));
        }
        if let Some(deadline) = &self.deadline {
            deadline.write(request.headers_mut(), left);
        }
        if let Some(hooks) = &worker.core.hooks {
            hooks.upstream(request.headers_mut());
        }
        if let Some(body) = &self.body {
            let gate = expectation(upstream, &mut request);
            *request.body_mut() = body.attempt(gate);
        }
        request
    }
}

/// Holds the body back while the upstream is asked whether it wants it (RFC 9110 section 10.1.1).
fn expectation(upstream: &Upstream, request: &mut Request<RequestBody>) -> Option<Gate> {
    if !request.headers().contains_key(header::EXPECT) {
        return None;
    }
    if upstream.expect == Expect::Answer {
        request.headers_mut().remove(header::EXPECT);
        return None;
    }
    request.headers_mut().insert(header::EXPECT, HeaderValue::from_static("100-continue"));
    Some(Gate::new(CONTINUE_PATIENCE))
}

/// Many old servers do not know `Expect`; curl too waits one second for them.
const CONTINUE_PATIENCE: Duration = Duration::from_secs(1);
