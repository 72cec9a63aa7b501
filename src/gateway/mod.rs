//! The gateway: everything between a request and its answer, ready to be mounted.
//!
//! - [`Builder`]: from settings (and an embedding program's hand) to a running gateway
//! - [`Gateway`]: one worker's view, a hyper service: cheap to clone, mounts anywhere
//! - [`Handle`]: what is shared: reload, metrics, upkeep, and the operator's hand on the cache ([`cache`])

use std::any::Any;
use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::request::Parts;
use http::{Request, Response};
use http_body::Body;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use crate::clock::Clock;
use crate::config::settings::Settings;
use crate::config::{self, Problems};
use crate::listen::Peer;
use crate::listen::http1::{self, Answered};
use crate::listen::serve::Answer;
use crate::proxy::access_log::AccessLog;
use crate::proxy::hooks::Hooks;
use crate::proxy::snapshot::Worker;
use crate::proxy::{self, Handling, ResponseBody};
use crate::refusal::Reason;
use crate::traces::Tracer;
use crate::upstream::body::{BoxError, Inbound};
use crate::upstream::origin::Origin;

pub mod advice;
pub mod cache;
mod handle;
pub mod history;
mod ledger;
mod probing;
mod snapshot;
pub mod status;
pub mod steer;
pub mod why;

pub use handle::{Handle, StartError};

/// Builds a gateway.
#[derive(Default)]
pub struct Builder {
    settings: Option<Settings>,
    clock: Clock,
    hooks: Option<Arc<dyn Hooks>>,
    origins: HashMap<String, Arc<dyn Origin>>,
    access_log: Option<AccessLog>,
    tracer: Option<Tracer>,
    workers: usize,
    seed: Option<u64>,
}

/// One worker's view of a gateway: a hyper service. Clones share everything.
#[derive(Clone)]
pub struct Gateway {
    worker: Arc<Worker>,
    peer: Peer,
}

/// The answer of a [`Gateway`] to come.
#[must_use = "futures do nothing unless polled"]
pub struct Answering(Handling);

impl Builder {
    /// Takes validated settings.
    #[must_use]
    pub fn settings(mut self, settings: Settings) -> Self {
        self.settings = Some(settings);
        self
    }

    /// Takes a configuration as text.
    ///
    /// # Errors
    /// All its problems.
    pub fn config(self, text: &str) -> Result<Self, Problems> {
        let loaded = config::parse(text, "<config>")?;
        Ok(self.settings(loaded.settings))
    }

    /// Time from elsewhere: for tests and simulations.
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// The embedding program's hand.
    #[must_use]
    pub fn hooks(mut self, hooks: impl Hooks) -> Self {
        self.hooks = Some(Arc::new(hooks));
        self
    }

    /// Lets `origin` answer for the upstream of that name, in place of its endpoints.
    #[must_use]
    pub fn origin(mut self, upstream: &str, origin: impl Origin) -> Self {
        self.origins.insert(upstream.to_owned(), Arc::new(origin));
        self
    }

    /// Where access log lines go.
    #[must_use]
    pub fn access_log(mut self, log: AccessLog) -> Self {
        self.access_log = Some(log);
        self
    }

    /// Where spans of requests go. Its exporter is to be run.
    #[must_use]
    pub fn tracer(mut self, tracer: Tracer) -> Self {
        self.tracer = Some(tracer);
        self
    }

    /// How many event loops will use it, each with its own connections and counters; one by default.
    #[must_use]
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = workers;
        self
    }

    /// Makes everything drawn repeatable.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Builds it.
    ///
    /// # Errors
    /// When a file the settings name (a certificate, a key) cannot be used, or there are no settings.
    pub fn build(self) -> Result<Handle, StartError> {
        Handle::new(self)
    }
}

impl Gateway {
    /// Begins to build one.
    pub fn builder() -> Builder {
        Builder::default()
    }

    fn new(worker: Arc<Worker>) -> Self {
        let nobody = SocketAddr::from(([127, 0, 0, 1], 0));
        Self { worker, peer: Peer { address: nobody, tls: false } }
    }

    /// The same for requests from `peer`.
    #[must_use]
    pub fn peer(&self, peer: Peer) -> Self {
        Self { worker: Arc::clone(&self.worker), peer }
    }

    /// Answers one request. Never fails: every refusal is a response.
    pub fn handle<B>(&self, request: Request<B>) -> impl Future<Output = Response<ResponseBody>> + Send + use<B>
    where
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        self.begin(request, false)
    }

    /// The same for a server that writes the heads of its answers itself, and asks the body for one first
    /// ([`Preset`](crate::listen::http1::Preset)): then the response has its status, and no fields.
    pub fn handle_wire<B>(&self, request: Request<B>) -> impl Future<Output = Response<ResponseBody>> + Send + use<B>
    where
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        self.begin(request, true)
    }

    /// The answer to what is no request at all, for a server that could not read one: counted and logged like every
    /// refusal.
    pub fn refuse(&self, reason: Reason) -> Response<Bytes> {
        proxy::refuse(&self.worker, self.peer, reason)
    }

    fn begin<B>(&self, request: Request<B>, wire: bool) -> Handling
    where
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        let (parts, body) = request.into_parts();
        proxy::handle(&self.worker, parts, inbound(body), self.peer, wire)
    }
}

impl<B> hyper::service::Service<Request<B>> for Gateway
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    type Response = Response<ResponseBody>;
    type Error = Infallible;
    type Future = Answering;

    fn call(&self, request: Request<B>) -> Answering {
        Answering(self.begin(request, false))
    }
}

impl Answer for Gateway {
    type Body = ResponseBody;

    fn answer(&self, head: Parts, body: http1::Body) -> Answered<ResponseBody, Answering> {
        let body =
            if body.is_end_stream() { Inbound::Empty } else { Inbound::Boxed(body.map_err(Into::into).boxed_unsync()) };
        match proxy::answer(&self.worker, head, body, self.peer) {
            Answered::Preset(body) => Answered::Preset(body),
            Answered::Later(handling) => Answered::Later(Answering(handling)),
        }
    }
}

impl Future for Answering {
    type Output = Result<Response<ResponseBody>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map(Ok)
    }
}

/// hyper's own body as it is, any other in a box.
fn inbound<B>(body: B) -> Inbound
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    let mut body = Some(body);
    if let Some(incoming) = (&mut body as &mut dyn Any).downcast_mut::<Option<Incoming>>()
        && let Some(incoming) = incoming.take()
    {
        return Inbound::Incoming(incoming);
    }
    body.map_or(Inbound::Empty, |body| Inbound::Boxed(body.map_err(Into::into).boxed_unsync()))
}
