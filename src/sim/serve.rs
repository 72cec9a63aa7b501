//! The model behind HTTP/1.1: every request enters it and is answered when the model says so.
//!
//! | request | what it is |
//! |---|---|
//! | `GET /catalog/{id}` | 1 to 4 KiB of JSON with an `ETag` and, by the profile, `Cache-Control: max-age` |
//! | `GET /account/{id}` | private: `Cache-Control: private, no-store` |
//! | `POST /order` | unsafe; 201 with a number that counts up |
//! | `GET /report` | slow, and silent about caching, as old systems are |
//! | `GET /_sim/stats` | its own counts, as JSON; like all of `/_sim/` answered beside the model |
//! | `POST /_sim/crash`, `/_sim/reset` | takes it down; makes it warm, idle and uncounted |
//! | `POST /_sim/slow?factor=3`, `/_sim/errors?rate=0.5` | breaks it on purpose, until changed or reset |
//!
//! What the model cannot serve is answered as such a box answers: an HTML error page with 500 or 503 and no
//! `Retry-After`, or a reset connection while it is down.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinSet;

use crate::clock::Clock;
use crate::sim::backend::{Backend, Ending, Stats};
use crate::sim::pages;
use crate::sim::profile::{Operation, Profile};

/// Starts simulated boxes.
#[derive(Debug)]
pub struct Sim;

/// A running box. Dropping it ends everything it started; its connections are closed.
#[derive(Debug)]
pub struct SimHandle {
    address: SocketAddr,
    shared: Arc<Shared>,
    /// The accepting task, which owns the connections, and the one that lets time pass.
    _tasks: JoinSet<()>,
}

impl Sim {
    /// Serves a box like `profile` on `listener`. Must be called within a tokio runtime with time and I/O.
    ///
    /// # Errors
    /// If the address of the listener cannot be read.
    pub fn start(listener: TcpListener, profile: Profile, seed: u64, clock: Clock) -> std::io::Result<SimHandle> {
        let address = listener.local_addr()?;
        let max_age = profile.max_age;
        let backend = Backend::new(profile, seed, clock.now());
        let shared = Arc::new(Shared {
            core: Mutex::new(Core { backend, callers: HashMap::new(), next_id: 0 }),
            changed: Notify::new(),
            max_age,
            clock,
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, Arc::clone(&shared)));
        tasks.spawn(let_time_pass(Arc::clone(&shared)));
        Ok(SimHandle { address, shared, _tasks: tasks })
    }
}

impl SimHandle {
    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// What the box counted itself.
    pub fn stats(&self) -> Stats {
        self.shared.stats()
    }

    /// What the box is like.
    pub fn profile(&self) -> Profile {
        self.shared.core.lock().backend.profile().clone()
    }

    /// Takes it down at once; it restarts by itself.
    pub fn crash(&self) {
        self.shared.change(Backend::crash);
    }

    /// Makes everything begun from now on `factor` times slower; 1 is normal.
    pub fn slow(&self, factor: f64) {
        self.shared.change(|backend, now| backend.slow(now, factor));
    }

    /// Lets this share of the work begun from now on fail.
    pub fn errors(&self, rate: f64) {
        self.shared.change(|backend, now| backend.fail(now, Some(rate)));
    }

    /// Makes it warm, idle and uncounted; everybody present is cut off.
    pub fn reset(&self) {
        self.shared.change(Backend::reset);
    }
}

#[derive(Debug)]
struct Shared {
    core: Mutex<Core>,
    /// The model may have something to do earlier than it had.
    changed: Notify,
    /// Freshness that catalogue answers announce.
    max_age: Option<Duration>,
    clock: Clock,
}

#[derive(Debug)]
struct Core {
    backend: Backend,
    /// Who is told how a session ended.
    callers: HashMap<u64, oneshot::Sender<Ending>>,
    next_id: u64,
}

/// A client inside the model. Dropped early, the client has left; the model works on.
struct Visit<'a> {
    id: u64,
    shared: &'a Shared,
    ending: oneshot::Receiver<Ending>,
}

impl Shared {
    fn enter(&self, operation: Operation) -> Visit<'_> {
        let (caller, ending) = oneshot::channel();
        let now = self.clock.now();
        let mut core = self.core.lock();
        core.next_id += 1;
        let id = core.next_id;
        core.callers.insert(id, caller);
        core.backend.arrive(now, id, operation);
        drop(core);
        self.changed.notify_one();
        Visit { id, shared: self, ending }
    }

    fn change(&self, change: impl FnOnce(&mut Backend, Instant)) {
        change(&mut self.core.lock().backend, self.clock.now());
        self.changed.notify_one();
    }

    fn stats(&self) -> Stats {
        let now = self.clock.now();
        let mut core = self.core.lock();
        // What is due is counted, even if the task that lets time pass was not yet scheduled.
        core.settle(now);
        core.backend.stats()
    }
}

impl Core {
    /// Tells those whose sessions have ended, and says when the next one will.
    fn settle(&mut self, now: Instant) -> Option<Instant> {
        for event in self.backend.advance(now) {
            if let Some(caller) = self.callers.remove(&event.id) {
                // Nobody listens any more if the client has left.
                let _ = caller.send(event.ending);
            }
        }
        self.backend.next_event()
    }
}

impl Visit<'_> {
    async fn ending(&mut self) -> Ending {
        // The sender is dropped unused only together with the box itself.
        (&mut self.ending).await.unwrap_or(Ending::Reset)
    }
}

impl Drop for Visit<'_> {
    fn drop(&mut self) {
        // Does nothing once the session has ended.
        let now = self.shared.clock.now();
        self.shared.core.lock().backend.depart(now, self.id);
    }
}

async fn let_time_pass(shared: Arc<Shared>) {
    loop {
        let now = shared.clock.now();
        let next = shared.core.lock().settle(now);
        match next {
            Some(at) => {
                tokio::select! {
                    () = tokio::time::sleep_until(at.into()) => {}
                    () = shared.changed.notified() => {}
                }
            }
            None => shared.changed.notified().await,
        }
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                connections.spawn(serve(stream, Arc::clone(&shared)));
            }
            // Out of file descriptors, most likely; others will close theirs.
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
        while connections.try_join_next().is_some() {}
    }
}

async fn serve(stream: TcpStream, shared: Arc<Shared>) {
    // Only a little slower without it.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| {
        let shared = Arc::clone(&shared);
        let answer: Pin<Box<dyn Future<Output = Result<_, BrokenOff>> + Send>> =
            Box::pin(async move { answer(&shared, request).await });
        answer
    });
    let mut connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    if (&mut connection).await.is_err() {
        // Closed with a reset, as the kernel of a box does whose process has died.
        let _ = connection.into_parts().io.into_inner().set_zero_linger();
    }
}

/// The box went down: the connection breaks without an answer.
#[derive(Debug, thiserror::Error)]
#[error("the simulated box is down")]
struct BrokenOff;

async fn answer(shared: &Shared, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, BrokenOff> {
    let (head, body) = request.into_parts();
    let path = head.uri.path();
    if let Some(knob) = path.strip_prefix("/_sim/") {
        return Ok(turn(shared, &head.method, knob, head.uri.query().unwrap_or_default()));
    }
    let (operation, id) = match find(&head.method, path) {
        Ok(found) => found,
        Err(status) => return Ok(pages::error(status, "This service does not exist.")),
    };
    if Limited::new(body, LARGEST_BODY).collect().await.is_err() {
        return Ok(pages::error(StatusCode::BAD_REQUEST, "The request could not be read."));
    }
    let mut visit = shared.enter(operation);
    match visit.ending().await {
        Ending::Answered => {}
        Ending::Failed => {
            let sentence = "Runtime error: short dump TIME_OUT.";
            return Ok(pages::error(StatusCode::INTERNAL_SERVER_ERROR, sentence));
        }
        Ending::TurnedAway => {
            let sentence = "Dispatcher: no more sessions available.";
            return Ok(pages::error(StatusCode::SERVICE_UNAVAILABLE, sentence));
        }
        Ending::Reset => return Err(BrokenOff),
    }
    Ok(match operation {
        Operation::Catalog => pages::catalog(id, head.headers.get(header::IF_NONE_MATCH), shared.max_age),
        Operation::Account => pages::account(id),
        Operation::Order => pages::order(visit.id),
        Operation::Report => pages::report(),
    })
}

/// The operation and the id in the path.
fn find<'a>(method: &Method, path: &'a str) -> Result<(Operation, &'a str), StatusCode> {
    let (operation, id) = match path.strip_prefix('/').and_then(|path| path.split_once('/')) {
        Some(("catalog", id)) => (Operation::Catalog, id),
        Some(("account", id)) => (Operation::Account, id),
        _ if path == "/order" => (Operation::Order, ""),
        _ if path == "/report" => (Operation::Report, ""),
        _ => return Err(StatusCode::NOT_FOUND),
    };
    let reads = method == Method::GET || method == Method::HEAD;
    let fits = if operation == Operation::Order { method == Method::POST } else { reads };
    if fits { Ok((operation, id)) } else { Err(StatusCode::METHOD_NOT_ALLOWED) }
}

/// Answers `/_sim/{knob}?{query}`: turns the knob and shows the counts after it.
fn turn(shared: &Shared, method: &Method, knob: &str, query: &str) -> Response<Full<Bytes>> {
    let number = |name: &str| {
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        let value = pairs.into_iter().find(|(key, _)| *key == name).map(|(_, value)| value);
        value.and_then(|value| value.parse::<f64>().ok()).filter(|number| number.is_finite() && *number >= 0.0)
    };
    let turned: Result<(), StatusCode> = match (method.as_str(), knob) {
        ("GET", "stats") => Ok(()),
        ("POST", "crash") => {
            shared.change(Backend::crash);
            Ok(())
        }
        ("POST", "reset") => {
            shared.change(Backend::reset);
            Ok(())
        }
        ("POST", "slow") => number("factor")
            .map(|factor| shared.change(|backend, now| backend.slow(now, factor)))
            .ok_or(StatusCode::BAD_REQUEST),
        ("POST", "errors") => number("rate")
            .map(|rate| shared.change(|backend, now| backend.fail(now, Some(rate))))
            .ok_or(StatusCode::BAD_REQUEST),
        (_, "stats" | "crash" | "reset" | "slow" | "errors") => Err(StatusCode::METHOD_NOT_ALLOWED),
        _ => Err(StatusCode::NOT_FOUND),
    };
    match turned {
        Ok(()) => pages::stats(&shared.stats()),
        Err(status) => pages::error(status, "Knobs: GET stats; POST crash, reset, slow?factor=3, errors?rate=0.5."),
    }
}

/// Largest request body that is read; an order is a few hundred bytes.
const LARGEST_BODY: usize = 64 * 1024;
/// Before the next attempt after `accept` has failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use hyper::client::conn::http1::SendRequest;

    use super::*;

    /// A calm box on a port of its own.
    async fn start(profile: Profile) -> SimHandle {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let profile = Profile { error_rate: 0.0, ..profile };
        Sim::start(listener, profile, 1, Clock::system()).unwrap()
    }

    fn quick() -> Profile {
        Profile { service: Duration::from_millis(1), ..Profile::default() }
    }

    async fn connect(sim: &SimHandle) -> SendRequest<Full<Bytes>> {
        let stream = TcpStream::connect(sim.address()).await.unwrap();
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        sender
    }

    fn request(method: Method, path: &str) -> Request<Full<Bytes>> {
        let request = Request::builder().method(method).uri(path).header(header::HOST, "erp.test");
        request.body(Full::default()).unwrap()
    }

    async fn ask(sender: &mut SendRequest<Full<Bytes>>, request: Request<Full<Bytes>>) -> Response<Bytes> {
        let (head, body) = sender.send_request(request).await.unwrap().into_parts();
        Response::from_parts(head, body.collect().await.unwrap().to_bytes())
    }

    async fn stats(sender: &mut SendRequest<Full<Bytes>>) -> serde_json::Value {
        let response = ask(sender, request(Method::GET, "/_sim/stats")).await;
        serde_json::from_slice(response.body()).unwrap()
    }

    #[tokio::test]
    async fn every_operation_is_answered_by_the_model() {
        let sim = start(quick()).await;
        let mut sender = connect(&sim).await;
        let check = async |sender: &mut _, method: Method, path: &str, status: u16, cache_control: Option<&str>| {
            let response = ask(sender, request(method, path)).await;
            assert_eq!(response.status().as_u16(), status, "{path}");
            let control = response.headers().get(header::CACHE_CONTROL).map(|value| value.to_str().unwrap());
            assert_eq!(control, cache_control, "{path}");
            response
        };
        let item = check(&mut sender, Method::GET, "/catalog/42", 200, Some("max-age=5")).await;
        assert!((1024..5 * 1024).contains(&item.body().len()), "{}", item.body().len());
        let json: serde_json::Value = serde_json::from_slice(item.body()).unwrap();
        assert_eq!(json["id"], "42");
        check(&mut sender, Method::GET, "/account/7", 200, Some("private, no-store")).await;
        check(&mut sender, Method::POST, "/order", 201, None).await;
        check(&mut sender, Method::GET, "/report", 200, None).await;
        assert_eq!((sim.stats().arrived, sim.stats().answered), (4, 4));

        check(&mut sender, Method::GET, "/order", 405, None).await;
        check(&mut sender, Method::GET, "/elsewhere", 404, None).await;
        check(&mut sender, Method::POST, "/_sim/slow?factor=-1", 400, None).await;
        check(&mut sender, Method::GET, "/_sim/crash", 405, None).await;
        assert_eq!(sim.stats().arrived, 4, "what is no operation does not reach the model");

        let mut conditional = request(Method::GET, "/catalog/42");
        conditional.headers_mut().insert(header::IF_NONE_MATCH, item.headers()[header::ETAG].clone());
        let response = ask(&mut sender, conditional).await;
        assert_eq!((response.status(), response.body().len()), (StatusCode::NOT_MODIFIED, 0));
    }

    #[tokio::test]
    async fn a_crash_breaks_connections_and_the_counts_stay_readable() {
        let sim = start(quick()).await;
        let (mut working, mut operator) = (connect(&sim).await, connect(&sim).await);
        ask(&mut operator, request(Method::POST, "/_sim/slow?factor=1e9")).await;
        let answer = tokio::spawn(working.send_request(request(Method::GET, "/catalog/1")));
        while stats(&mut operator).await["working"] != 1 {}
        ask(&mut operator, request(Method::POST, "/_sim/crash")).await;
        answer.await.unwrap().unwrap_err();
        connect(&sim).await.send_request(request(Method::GET, "/catalog/1")).await.unwrap_err();
        let counted = stats(&mut operator).await;
        assert_eq!((&counted["down"], &counted["crashes"], &counted["reset"]), (&true.into(), &1.into(), &2.into()));

        ask(&mut operator, request(Method::POST, "/_sim/reset")).await;
        ask(&mut operator, request(Method::POST, "/_sim/errors?rate=1")).await;
        let failed = ask(&mut operator, request(Method::GET, "/catalog/1")).await;
        assert_eq!(failed.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert!(failed.body().starts_with(b"<html>"));
    }

    #[tokio::test]
    async fn work_for_a_client_that_left_is_done_and_counted_as_wasted() {
        let sim = start(Profile { service: Duration::from_millis(300), spread: 0.0, ..Profile::default() }).await;
        let (mut leaving, mut operator) = (connect(&sim).await, connect(&sim).await);
        let answer = tokio::spawn(leaving.send_request(request(Method::GET, "/catalog/1")));
        while stats(&mut operator).await["working"] != 1 {}
        answer.abort();
        drop(leaving);
        while stats(&mut operator).await["answered"] != 1 {}
        assert_eq!(sim.stats().wasted, 1);
    }
}
