//! Step 6: try, and perhaps try again. Each attempt goes through the gate, to one endpoint, under the head timeout; its
//! end is classified once and taught to breaker, endpoint and budget.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use http::header;
use http::response::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Request, Uri, Version};
use hyper::upgrade::OnUpgrade;

use super::exchange::Tally;
use super::gate;
use super::held::{Held, InFlight, Late};
use super::snapshot::{Route, Worker};
use crate::outcome::{Failure, classify_status};
use crate::refusal::{Reason, Refusal};
use crate::retry::{self, Attempt};
use crate::throttle::Ticket;
use crate::upstream::body::{Gate, Progress, ReplyBody, RequestBody, Source};
use crate::upstream::{Expect, HostHeader, Upstream, balance};

/// A request as it goes to the upstream, apart from what depends on the endpoint.
pub struct Outgoing {
    /// Its method.
    pub method: Method,
    /// Its path and query.
    pub target: PathAndQuery,
    /// Its fields.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Option<Arc<Source>>,
    /// Whether it changes nothing at the upstream, whatever its method is called.
    pub safe: bool,
    /// The client's side of a protocol switch.
    pub upgrade: Option<OnUpgrade>,
}

/// Who asks, on which route.
#[derive(Clone, Copy)]
pub struct Ask<'a> {
    /// The event loop.
    pub worker: &'a Arc<Worker>,
    /// The route.
    pub route: &'a Route,
    /// What it brings to the queue.
    pub ticket: Ticket,
}

/// A reply with what it holds; nothing after a switch of protocols, whose tunnel holds it.
pub type Reply = (Parts, ReplyBody, Option<Held>);

/// Tries until there is a reply, or no further try is right.
///
/// # Errors
/// What the gate says, or the reason of the last failure.
pub async fn attempts(
    ask: Ask<'_>,
    mut outgoing: Outgoing,
    tally: &mut Tally,
    late: impl Fn() -> Option<Late>,
) -> Result<Reply, Refusal> {
    let Ask { worker, route, ticket } = ask;
    let upstream = &route.upstream;
    let clock = &worker.core.clock;
    let mut first_sent = None;
    loop {
        let (permit, pass) = gate::pass(worker, upstream, ticket, outgoing.safe, tally).await?;
        let now = clock.now();
        let begun = *first_sent.get_or_insert(now);
        let chosen = choose(worker, upstream, now);
        let held = |endpoint| Held::new(worker, upstream, endpoint, permit, pass, now);
        let Some(endpoint) = chosen else {
            drop(held(usize::MAX));
            return Err(Reason::UpstreamNone.into());
        };
        upstream.budget.lock().request(now);
        let last_try = tally.attempts + 1 >= upstream.retry.attempts;
        let request = outgoing.request(worker, upstream, endpoint, last_try)?;
        let Some(target) = upstream.endpoints.get(endpoint) else { return Err(Reason::UpstreamNone.into()) };
        let upgrade = outgoing.upgrade.is_some();
        let sending = Arc::clone(&target.origin).send(request, worker.index);
        tally.attempts += 1;
        let left = upstream.timeouts.total.saturating_sub(now.saturating_duration_since(begun));
        let flight = InFlight::new(sending, held(endpoint), late());
        let head = flight.head(upstream.timeouts.head.min(left), outgoing.body.as_deref(), &route.classes).await;
        let now = clock.now();
        tally.upstream = Some(now.saturating_duration_since(begun));
        let failure = match head {
            Ok((response, held)) => {
                let retried = !last_try && !upgrade;
                match retried.then(|| again_after_reply(upstream, &outgoing, &response, route, tally, begun, now, worker)).flatten() {
                    None => return Ok(received(response, held, outgoing.upgrade.take())),
                    Some(wait) => {
                        let (_, body) = response.into_parts();
                        held.leave(body, false);
                        pause(worker, upstream, wait).await;
                        continue;
                    }
                }
            }
            Err(error) => {
                tracing::debug!(upstream = %upstream.name, endpoint = %target.name, error = %error.chain(), "attempt failed");
                error.failure
            }
        };
        let wait = if last_try { None } else { again(upstream, &outgoing, Err(failure), tally, begun, now, worker, None) };
        match wait {
            None => return Err(refusal(failure, outgoing.body.as_deref())),
            Some(wait) => pause(worker, upstream, wait).await,
        }
    }
}

/// Whether an answered attempt is repeated: the upstream answered that it cannot.
#[expect(clippy::too_many_arguments, reason = "the facts of one decision")]
fn again_after_reply(
    upstream: &Upstream,
    outgoing: &Outgoing,
    response: &http::Response<ReplyBody>,
    route: &Route,
    tally: &Tally,
    begun: Instant,
    now: Instant,
    worker: &Worker,
) -> Option<Duration> {
    let outcome = classify_status(response.status(), &route.classes);
    if outcome.is_success() {
        return None;
    }
    let asked = response.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    again(upstream, outgoing, Ok(response.status()), tally, begun, now, worker, asked.map(Duration::from_secs))
}

#[expect(clippy::too_many_arguments, reason = "the facts of one decision")]
fn again(
    upstream: &Upstream,
    outgoing: &Outgoing,
    ended: Result<http::StatusCode, Failure>,
    tally: &Tally,
    begun: Instant,
    now: Instant,
    worker: &Worker,
    retry_after: Option<Duration>,
) -> Option<Duration> {
    let spent = now.saturating_duration_since(begun);
    let attempt = Attempt {
        number: tally.attempts,
        method: &outgoing.method,
        safe: outgoing.safe,
        ended,
        replayable: outgoing.body.as_ref().is_none_or(|body| body.replayable()),
        time_left: upstream.timeouts.total.saturating_sub(spent),
        retry_after,
    };
    retry::decide(&upstream.retry, &attempt, &mut upstream.budget.lock(), now, worker.draw())
}

async fn pause(worker: &Worker, upstream: &Upstream, wait: Duration) {
    upstream.meter.retry(worker.index);
    if !wait.is_zero() {
        tokio::time::sleep(wait).await;
    }
}

fn choose(worker: &Worker, upstream: &Upstream, now: Instant) -> Option<usize> {
    let endpoints = &upstream.endpoints;
    if let [only] = &**endpoints {
        return only.is_up(now).then_some(0);
    }
    let cursor = upstream.cursor.fetch_add(1, Ordering::Relaxed) as u64;
    balance::choose(
        upstream.balance,
        |index| endpoints.get(index).and_then(|endpoint| endpoint.load(now)),
        endpoints.len(),
        cursor,
        worker.draw(),
    )
}

/// The client's reason for a failed attempt.
fn refusal(failure: Failure, body: Option<&Source>) -> Refusal {
    match body.map(Source::progress) {
        Some(Progress::TooLarge) => Reason::RequestTooLarge.into(),
        _ => failure.reason().into(),
    }
}

/// A reply; a switch of protocols joins both sides and takes the slot along.
fn received(response: http::Response<ReplyBody>, held: Held, client: Option<OnUpgrade>) -> Reply {
    let (mut parts, body) = response.into_parts();
    if let (http::StatusCode::SWITCHING_PROTOCOLS, Some(client), Some(upstream)) =
        (parts.status, client, parts.extensions.remove::<OnUpgrade>())
    {
        super::tunnel::join(client, upstream, held);
        return (parts, body, None);
    }
    (parts, body, Some(held))
}

impl Outgoing {
    /// The request for one attempt at `endpoint`; the last one takes the fields along instead of copying them.
    fn request(
        &mut self,
        worker: &Worker,
        upstream: &Upstream,
        endpoint: usize,
        last: bool,
    ) -> Result<Request<RequestBody>, Refusal> {
        let headers = if last { std::mem::take(&mut self.headers) } else { self.headers.clone() };
        let mut request = Request::new(RequestBody::Empty);
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = Uri::from(self.target.clone());
        *request.version_mut() = Version::HTTP_11;
        *request.headers_mut() = headers;
        if let (HostHeader::Upstream, Some(endpoint)) = (upstream.host, upstream.endpoints.get(endpoint)) {
            request.headers_mut().insert(header::HOST, endpoint.authority.clone());
        }
        if let Some(hooks) = &worker.core.hooks {
            hooks.upstream(request.headers_mut());
        }
        if let Some(body) = &self.body {
            let gate = self.expectation(upstream, &mut request);
            *request.body_mut() = body.attempt(gate);
        }
        Ok(request)
    }

    /// Holds the body back while the upstream is asked whether it wants it (RFC 9110 section 10.1.1).
    fn expectation(&self, upstream: &Upstream, request: &mut Request<RequestBody>) -> Option<Gate> {
        if !request.headers().contains_key(header::EXPECT) {
            return None;
        }
        if upstream.expect == Expect::Answer {
            request.headers_mut().remove(header::EXPECT);
            return None;
        }
        request.headers_mut().insert(header::EXPECT, HeaderValue::from_static("100-continue"));
        let (gate, opener) = Gate::new(CONTINUE_PATIENCE);
        hyper::ext::on_informational(request, move |response| {
            if response.status() == http::StatusCode::CONTINUE {
                opener.open();
            }
        });
        Some(gate)
    }
}

/// Many old servers do not know `Expect`; curl too waits one second for them.
const CONTINUE_PATIENCE: Duration = Duration::from_secs(1);
