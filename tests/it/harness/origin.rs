//! An origin that does as it is told, and remembers what it was asked.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use parking_lot::Mutex;
use tokio::time::Sleep;
use vaxel::outcome::{Failure, FailureKind, Stage};
use vaxel::upstream::body::{BoxError, ReplyBody, RequestBody};
use vaxel::upstream::origin::{Call, Origin, OriginError, Sending};

/// What an origin does with each request.
pub struct Script(Box<dyn Fn(&Seen) -> Reply + Send + Sync>);

/// A request as the origin saw it.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Which request this was, from 0.
    pub number: usize,
    pub method: Method,
    /// Path and query.
    pub target: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// What it does with one.
#[derive(Debug, Clone)]
pub struct Reply {
    after: Duration,
    ending: Ending,
    head: HeaderMap,
    status: StatusCode,
    /// Each comes so long after the one before.
    pieces: VecDeque<(Duration, Bytes)>,
    /// The body breaks off after the pieces.
    broken: bool,
    /// The body stops after the pieces, and neither ends nor breaks.
    stalls: bool,
    length: Option<u64>,
}

#[derive(Debug, Clone, Copy)]
enum Ending {
    Answers,
    Fails(Failure),
    Hangs,
}

/// Answers 200 with `body` at once.
pub fn ok(body: impl Into<Bytes>) -> Reply {
    let body = body.into();
    let mut reply = status(200);
    reply.length = Some(body.len() as u64);
    if !body.is_empty() {
        reply.pieces.push_back((Duration::ZERO, body));
    }
    reply
}

/// Answers with this status and no body at once.
pub fn status(status: u16) -> Reply {
    Reply {
        after: Duration::ZERO,
        ending: Ending::Answers,
        head: HeaderMap::new(),
        status: StatusCode::from_u16(status).unwrap(),
        pieces: VecDeque::new(),
        broken: false,
        stalls: false,
        length: Some(0),
    }
}

/// Refuses the connection.
pub fn refused() -> Reply {
    fails(FailureKind::Refused, Stage::Connect, false)
}

/// Resets the connection once the request is there.
pub fn reset() -> Reply {
    fails(FailureKind::Reset, Stage::Head, true)
}

/// Never answers.
pub fn hang() -> Reply {
    Reply { ending: Ending::Hangs, ..status(200) }
}

/// How a request fails whose body breaks off on the client's side.
fn broken_request() -> Failure {
    Failure { kind: FailureKind::RequestBody, stage: Stage::Send, sent: true, reused: false }
}

fn fails(kind: FailureKind, stage: Stage, sent: bool) -> Reply {
    Reply { ending: Ending::Fails(Failure { kind, stage, sent, reused: false }), ..status(200) }
}

/// Gives the replies in turn, the last one for ever.
pub fn in_turn<const N: usize>(replies: [Reply; N]) -> Script {
    by(move |seen| replies[seen.number.min(N - 1)].clone())
}

/// Decides by the request.
pub fn by(decide: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Script {
    Script(Box::new(decide))
}

impl From<Reply> for Script {
    fn from(reply: Reply) -> Self {
        by(move |_| reply.clone())
    }
}

impl Seen {
    /// A field of it; empty if it is not there.
    pub fn field(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

impl Reply {
    /// With another status.
    pub fn status(mut self, status: u16) -> Self {
        self.status = StatusCode::from_u16(status).unwrap();
        self
    }

    /// With this field.
    pub fn with(mut self, name: &'static str, value: &str) -> Self {
        self.head.append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
        self
    }

    /// With this Cache-Control.
    pub fn cached(self, control: &str) -> Self {
        self.with("cache-control", control)
    }

    /// Its head comes so much later.
    pub const fn after(mut self, wait: Duration) -> Self {
        self.after = wait;
        self
    }

    /// With a further piece of the body, so long after what came before.
    pub fn then(mut self, wait: Duration, piece: impl Into<Bytes>) -> Self {
        let piece = piece.into();
        self.length = self.length.map(|length| length + piece.len() as u64);
        self.pieces.push_back((wait, piece));
        self
    }

    /// Its body has no announced length.
    pub const fn unannounced(mut self) -> Self {
        self.length = None;
        self
    }

    /// Its body breaks off where it should end.
    pub const fn breaks(mut self) -> Self {
        self.broken = true;
        self.length = None;
        self
    }

    /// Its body stops where it should end, and the connection stays.
    pub const fn stalls(mut self) -> Self {
        self.stalls = true;
        self.length = None;
        self
    }
}

/// The origin of a world. Clones are the same.
#[derive(Clone)]
pub struct ScriptedOrigin(Arc<State>);

struct State {
    script: Mutex<Script>,
    seen: Mutex<Vec<Seen>>,
    asked: AtomicUsize,
    running: AtomicUsize,
    most: AtomicUsize,
}

impl ScriptedOrigin {
    pub(super) fn new(script: Script) -> Self {
        let (asked, running, most) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
        Self(Arc::new(State { script: Mutex::new(script), seen: Mutex::default(), asked, running, most }))
    }

    /// From now on it does this instead.
    pub fn now(&self, script: impl Into<Script>) {
        *self.0.script.lock() = script.into();
    }

    /// The requests it has seen, bodies and all.
    pub fn seen(&self) -> Vec<Seen> {
        self.0.seen.lock().clone()
    }

    /// The last request it has seen.
    pub fn last(&self) -> Seen {
        self.seen().pop().expect("the origin has seen a request")
    }

    /// How many requests reached it.
    pub fn asked(&self) -> usize {
        self.0.asked.load(Ordering::Relaxed)
    }

    /// Asserts how many requests reached it.
    #[track_caller]
    pub fn was_asked(&self, times: usize) {
        assert_eq!(self.asked(), times, "requests that reached the origin");
    }

    /// Requests it works on: from the request until the end of the body, or until it is cut off.
    pub fn running(&self) -> usize {
        self.0.running.load(Ordering::Relaxed)
    }

    /// The most it ever worked on at once.
    pub fn most(&self) -> usize {
        self.0.most.load(Ordering::Relaxed)
    }

    async fn work(self, request: Request<RequestBody>) -> Result<Response<ReplyBody>, OriginError> {
        let state = &self.0;
        let running = Running::begin(&self);
        let number = state.asked.fetch_add(1, Ordering::Relaxed);
        let (parts, body) = request.into_parts();
        let body = match body.collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) => return Err(OriginError { failure: broken_request(), source: Some(error.into()) }),
        };
        let target = parts.uri.path_and_query().map_or_else(String::new, ToString::to_string);
        let seen = Seen { number, method: parts.method, target, headers: parts.headers, body };
        let reply = (state.script.lock().0)(&seen);
        state.seen.lock().push(seen);
        if !reply.after.is_zero() {
            tokio::time::sleep(reply.after).await;
        }
        match reply.ending {
            Ending::Answers => {}
            Ending::Fails(failure) => return Err(OriginError { failure, source: None }),
            Ending::Hangs => std::future::pending().await,
        }
        let mut response = Response::new(());
        *response.status_mut() = reply.status;
        *response.headers_mut() = reply.head.clone();
        if let Some(length) = reply.length.filter(|length| *length > 0) {
            response.headers_mut().insert(http::header::CONTENT_LENGTH, length.into());
        }
        let bare = reply.pieces.is_empty() && !reply.broken && !reply.stalls;
        let body = if bare { ReplyBody::Full(None) } else { Saying::new(reply, running).boxed() };
        Ok(response.map(|()| body))
    }
}

impl Origin for ScriptedOrigin {
    fn send(self: Arc<Self>, request: Request<RequestBody>, _call: Call) -> Sending {
        Box::pin(Self::clone(&self).work(request))
    }
}

/// One request at the origin.
struct Running(ScriptedOrigin);

impl Running {
    fn begin(origin: &ScriptedOrigin) -> Self {
        let now = origin.0.running.fetch_add(1, Ordering::Relaxed) + 1;
        origin.0.most.fetch_max(now, Ordering::Relaxed);
        Self(origin.clone())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The body of a reply.
struct Saying {
    reply: Reply,
    /// Until the last piece.
    running: Option<Running>,
    timer: Option<Pin<Box<Sleep>>>,
    left: Option<u64>,
}

impl Saying {
    const fn new(reply: Reply, running: Running) -> Self {
        let left = reply.length;
        Self { reply, running: Some(running), timer: None, left }
    }

    fn boxed(self) -> ReplyBody {
        ReplyBody::Boxed(self.boxed_unsync())
    }
}

impl Body for Saying {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        let Some((wait, _)) = this.reply.pieces.front() else {
            if this.reply.stalls {
                return Poll::Pending;
            }
            this.running = None;
            let broken = std::mem::take(&mut this.reply.broken);
            return Poll::Ready(broken.then(|| Err("the connection broke".into())));
        };
        if !wait.is_zero() {
            let timer = this.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(*wait)));
            std::task::ready!(timer.as_mut().poll(cx));
            this.timer = None;
        }
        let piece = this.reply.pieces.pop_front().map(|(_, piece)| piece).unwrap();
        this.left = this.left.map(|left| left - piece.len() as u64);
        if this.is_end_stream() {
            this.running = None;
        }
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        // As with a real connection, the end of a body of unknown length is seen only after its last piece.
        self.left == Some(0) && self.reply.pieces.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
