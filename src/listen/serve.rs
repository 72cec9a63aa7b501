//! One connection, from its first byte to its last answer.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::Service;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::callers::Seat;
use super::drain::{Drain, Open};
use super::speaker::{self, Counted, Dialogue, Speaker};
use super::tls::LiveTls;
use super::wire::{Patience, Tally, Wire};
use super::{Callers, ListenLimits, Peer};
use crate::metrics::{ConnectionRefusal, Handshake, ListenerMeter, Metrics};
use crate::refusal::Reason;

/// What one worker needs to serve the connections of one listener.
pub struct Server {
    /// For TLS listeners.
    pub tls: Option<Arc<LiveTls>>,
    /// Its bounds.
    pub limits: ListenLimits,
    /// Which worker this is.
    pub worker: usize,
    /// Connections open now, over all workers.
    pub open: Arc<AtomicUsize>,
    /// The same for each client.
    pub callers: Arc<Callers>,
    /// The orderly end.
    pub drain: Drain,
    /// What it counts.
    pub meter: Arc<ListenerMeter>,
    /// Where panics are counted.
    pub metrics: Metrics,
    /// What a client is told whose bytes are no request.
    pub refuse: Refuse,
}

/// Makes the answer to what is no request: who sent it, and why it is refused.
pub type Refuse = Arc<dyn Fn(Peer, Reason) -> Response<Bytes> + Send + Sync>;

impl Server {
    fn tally(&self) -> Tally {
        Tally { meter: Arc::clone(&self.meter), worker: self.worker }
    }

    fn speaker(&self, address: SocketAddr) -> Speaker {
        let (refuse, peer) = (Arc::clone(&self.refuse), self.peer(address));
        Speaker::new(Box::new(move |reason| refuse(peer, reason)))
    }

    fn patience(&self) -> Patience {
        Patience { head: self.limits.head_timeout, idle: self.limits.idle_timeout }
    }

    fn peer(&self, address: SocketAddr) -> Peer {
        Peer { address, tls: self.tls.is_some() }
    }
}

/// Something that answers the requests of one connection.
pub trait Answer:
    Service<Request<Incoming>, Response = Response<Self::Body>, Error: Into<BoxError>, Future: Send + Unpin + 'static>
    + Clone
    + Send
    + 'static
{
    /// The body of its answers.
    type Body: Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static;
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

impl<S, B> Answer for S
where
    S: Service<Request<Incoming>, Response = Response<B>, Error: Into<BoxError>, Future: Send + Unpin + 'static>
        + Clone
        + Send
        + 'static,
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
{
    type Body = B;
}

/// Accepts connections on `listener` and serves each with what `answer` makes for its peer, until the drain begins.
pub async fn accept<A: Answer>(server: Arc<Server>, listener: TcpListener, answer: impl Fn(Peer) -> A) {
    let (drain, tally) = (server.drain.clone(), server.tally());
    take_each(&listener, &drain, &tally, |stream, address| admit(&server, stream, address, &answer, None)).await;
}

/// Hands each connection that comes to `take`, until the drain begins.
pub async fn take_each(
    listener: &TcpListener,
    drain: &Drain,
    tally: &Tally,
    mut take: impl FnMut(TcpStream, SocketAddr),
) {
    let mut open = drain.open();
    loop {
        let next = std::future::poll_fn(|cx| {
            if open.poll_begun(cx) { Poll::Ready(None) } else { listener.poll_accept(cx).map(Some) }
        });
        match next.await {
            None => return,
            Some(Ok((stream, address))) => take(stream, address),
            Some(Err(error)) => {
                // Out of descriptors or memory, most often: wait for connections to end instead of spinning.
                tracing::warn!(%error, "cannot accept a connection");
                tally.meter.refused(tally.worker, ConnectionRefusal::Accept);
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// A connection's place at its worker, dropped with it: how whoever handed it over counts what a worker has.
pub type Place = Arc<()>;

/// Serves an accepted connection in a task of its own, or turns it away when there are too many.
pub fn admit<A: Answer>(
    server: &Arc<Server>,
    stream: TcpStream,
    address: SocketAddr,
    answer: &impl Fn(Peer) -> A,
    place: Option<Place>,
) {
    let ticket = Ticket::take(server, address, place);
    let _ = stream.set_nodelay(true);
    let ticket = match ticket {
        Ok(ticket) => ticket,
        Err(why) => {
            server.meter.refused(server.worker, why);
            tokio::spawn(turn_away(Arc::clone(server), stream, address, why));
            return;
        }
    };
    let answer = answer(server.peer(address));
    tokio::spawn(async move {
        let server = Arc::clone(&ticket.server);
        let mut open = server.drain.open();
        if let Err(error) = connection(&server, stream, address, answer, &mut open).await {
            tracing::debug!(%error, %address, "connection ended");
        }
        drop(ticket);
    });
}

/// Counts a connection in `Server::open`, and at its place, until dropped, whatever ends it.
struct Ticket {
    server: Arc<Server>,
    /// Its seat among the connections of its client.
    seat: Option<Seat>,
    _place: Option<Place>,
}

impl Ticket {
    fn take(server: &Arc<Server>, address: SocketAddr, place: Option<Place>) -> Result<Self, ConnectionRefusal> {
        let mut ticket = Self { server: Arc::clone(server), seat: None, _place: place };
        server.meter.accepted(server.worker);
        if server.open.fetch_add(1, Ordering::Relaxed) >= server.limits.connections {
            return Err(ConnectionRefusal::Limit);
        }
        if let Some(most) = server.limits.connections_per_address {
            let seat = server.callers.seat(address.ip(), most);
            ticket.seat = Some(seat.ok_or(ConnectionRefusal::Address)?);
        }
        Ok(ticket)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.server.open.fetch_sub(1, Ordering::Relaxed);
        self.server.meter.closed(self.server.worker);
        if std::thread::panicking() {
            self.server.metrics.panicked();
        }
    }
}

/// A clear answer where one can be given without a handshake. What the client sends is not read: a connection more is
/// just what there is no room for.
async fn turn_away(server: Arc<Server>, mut stream: TcpStream, address: SocketAddr, why: ConnectionRefusal) {
    if server.tls.is_none() {
        let reason =
            if why == ConnectionRefusal::Address { Reason::ConnectionAddress } else { Reason::ConnectionLimit };
        let answer = speaker::written((server.refuse)(server.peer(address), reason));
        let _ = stream.write_all(&answer).await;
    }
    let _ = stream.shutdown().await;
}

async fn connection<A: Answer>(
    server: &Server,
    stream: TcpStream,
    address: SocketAddr,
    answer: A,
    open: &mut Open,
) -> Result<(), BoxError> {
    let patience = server.patience();
    let Some(tls) = &server.tls else {
        let (stream, prefix) = preface(stream, patience).await?;
        return if prefix.as_ref() == PREFACE {
            http2(server, Wire::http2(stream, prefix, patience), answer, open).await
        } else {
            http1(server, address, (stream, prefix), answer, open).await
        };
    };
    let handshake = tokio::time::timeout(patience.head, tls.acceptor().accept(stream)).await;
    let result = match &handshake {
        Ok(Ok(_)) => Handshake::Ok,
        Ok(Err(_)) => Handshake::Failed,
        Err(_) => Handshake::Timeout,
    };
    server.meter.handshake(server.worker, result);
    let stream = handshake??;
    if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
        http2(server, Wire::http2(stream, Bytes::new(), patience), answer, open).await
    } else {
        http1(server, address, (stream, Bytes::new()), answer, open).await
    }
}

/// Reads until it is clear whether the client speaks HTTP/2 with prior knowledge (RFC 9113 section 3.4). It may stay
/// idle before its first byte; with that a head has begun.
async fn preface(mut stream: TcpStream, patience: Patience) -> io::Result<(TcpStream, Bytes)> {
    let mut read = BytesMut::with_capacity(PREFACE.len());
    let mut more = async |read: &mut BytesMut| {
        let mut rest = (&mut stream).take((PREFACE.len() - read.len()) as u64);
        rest.read_buf(read).await
    };
    let mut left = tokio::time::timeout(patience.idle, more(&mut read)).await??;
    let rest = async {
        while left > 0 && read.len() < PREFACE.len() && PREFACE.starts_with(&read) {
            left = more(&mut read).await?;
        }
        io::Result::Ok(())
    };
    tokio::time::timeout(patience.head, rest).await??;
    Ok((stream, read.freeze()))
}

async fn http1<A: Answer, S>(
    server: &Server,
    address: SocketAddr,
    (stream, prefix): (S, Bytes),
    answer: A,
    open: &mut Open,
) -> Result<(), BoxError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let speaker = server.speaker(address);
    let answer = Counted::new(answer, speaker.dialogue());
    let wire = Wire::http1(stream, prefix, server.patience(), server.tally(), speaker);
    let mut builder = http1::Builder::new();
    builder.max_header_size(server.limits.head_size).max_buf_size(server.limits.head_size.max(WRITE_BUFFER));
    let connection = pin!(builder.serve_connection(TokioIo::new(wire), answer).with_upgrades());
    Drained { connection, open, told: false, rest: None }.await.map_err(Into::into)
}

async fn http2<A: Answer, S>(server: &Server, wire: Wire<S>, answer: A, open: &mut Open) -> Result<(), BoxError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let limits = &server.limits;
    let dialogue = Arc::default();
    let answer = Counted::new(answer, &dialogue);
    let rest = Some(Rest::new(dialogue, limits.idle_timeout));
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.h2_streams)
        .max_header_list_size(u32::try_from(limits.head_size).unwrap_or(u32::MAX))
        .max_send_buf_size(WRITE_BUFFER)
        .initial_connection_window_size(1 << 20)
        .initial_stream_window_size(1 << 18)
        // A dead peer is found by pings it does not answer.
        .keep_alive_interval(limits.idle_timeout)
        .keep_alive_timeout(limits.head_timeout);
    let connection = pin!(builder.serve_connection(TokioIo::new(wire), answer));
    Drained { connection, open, told: false, rest }.await.map_err(Into::into)
}

/// A connection that is told once to end: when the drain begins, or when it has rested for too long.
struct Drained<'a, C> {
    connection: Pin<&'a mut C>,
    open: &'a mut Open,
    told: bool,
    /// Where nobody else notices that it rests.
    rest: Option<Rest>,
}

/// Notices that nothing was asked on an HTTP/2 connection for so long. Bytes say nothing of that there: a peer may keep
/// a connection alive with pings alone.
struct Rest {
    dialogue: Arc<Dialogue>,
    timer: Pin<Box<tokio::time::Sleep>>,
    patience: Duration,
    /// How much was asked when the timer was set, if it was answered.
    seen: Option<u32>,
}

impl Rest {
    fn new(dialogue: Arc<Dialogue>, patience: Duration) -> Self {
        Self { dialogue, timer: Box::pin(tokio::time::sleep(patience)), patience, seen: Some(0) }
    }

    /// Ready after one to two times the patience, counted from the last answer.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.timer.as_mut().poll(cx).is_ready() {
            let quiet = self.dialogue.quiet();
            if quiet.is_some() && quiet == self.seen {
                return Poll::Ready(());
            }
            self.seen = quiet;
            let next = self.timer.deadline() + self.patience;
            self.timer.as_mut().reset(next);
        }
        Poll::Pending
    }
}

/// A connection that can be asked to end after what it is doing.
trait Graceful: Future {
    fn finish(self: Pin<&mut Self>);
}

impl<S, A: Answer> Graceful for http1::UpgradeableConnection<TokioIo<Wire<S>>, Counted<A>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    fn finish(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

impl<S, A: Answer> Graceful for http2::Connection<TokioIo<Wire<S>>, Counted<A>, TokioExecutor>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    fn finish(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

impl<C: Graceful> Future for Drained<'_, C> {
    type Output = C::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<C::Output> {
        let this = self.get_mut();
        let rested = |rest: &mut Rest, cx: &mut Context<'_>| rest.poll(cx).is_ready();
        if !this.told && (this.open.poll_begun(cx) || this.rest.as_mut().is_some_and(|rest| rested(rest, cx))) {
            this.told = true;
            this.connection.as_mut().finish();
        }
        this.connection.as_mut().poll(cx)
    }
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Bytes hyper may hold of what we send on one connection.
const WRITE_BUFFER: usize = 128 * 1024;
/// Between two tries to accept when the system refuses.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
