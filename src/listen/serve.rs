//! One connection, from its first byte to its last answer.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::request::Parts;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::service::Service;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

use super::callers::Seat;
use super::drain::{Drain, Open};
use super::http1::{self, Answered, Date, Preset};
use super::tls::LiveTls;
use super::watch::Patience;
use super::{Callers, ListenLimits, Peer, http2};
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
    /// The Date of answers that have none.
    pub date: Date,
}

/// Where connections that were not taken are counted.
#[derive(Debug)]
pub struct Tally {
    /// The listener's meter.
    pub meter: Arc<ListenerMeter>,
    /// The worker.
    pub worker: usize,
}

/// Makes the answer to what is no request: who sent it, and why it is refused.
pub type Refuse = Arc<dyn Fn(Peer, Reason) -> Response<Bytes> + Send + Sync>;

impl Server {
    fn tally(&self) -> Tally {
        Tally { meter: Arc::clone(&self.meter), worker: self.worker }
    }

    /// How long a client may take.
    pub(super) fn patience(&self) -> Patience {
        Patience { head: self.limits.head_timeout, idle: self.limits.idle_timeout }
    }

    fn peer(&self, address: SocketAddr) -> Peer {
        Peer { address, tls: self.tls.is_some() }
    }
}

/// Something that answers the requests of one connection: over HTTP/2 those of hyper, over HTTP/1.x ours.
pub trait Answer:
    Service<Request<Incoming>, Response = Response<Self::Body>, Error: Into<BoxError>, Future: Send + Unpin + 'static>
    + Clone
    + Send
    + 'static
{
    /// The body of its answers.
    type Body: Body<Data = Bytes, Error: Into<BoxError>> + Preset + Send + Unpin + 'static;

    /// Answers a request over HTTP/1.x: the head of the answer may come with its body.
    fn answer(&self, head: Parts, body: http1::Body) -> Answered<Self::Body, Self::Future>;
}

/// Any error of a connection.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

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
        let next =
            poll_fn(|cx| if open.poll_begun(cx) { Poll::Ready(None) } else { listener.poll_accept(cx).map(Some) });
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
        let answer = http1::written((server.refuse)(server.peer(address), reason));
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
    let peer = server.peer(address);
    let Some(tls) = &server.tls else {
        let Some((stream, read)) = preface(stream, patience, open).await? else { return Ok(()) };
        return if read.starts_with(PREFACE) {
            http2::serve(server, (stream, read.freeze()), answer, open).await
        } else {
            http1::serve(server, peer, (stream, read), answer, open).await
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
        http2::serve(server, (stream, Bytes::new()), answer, open).await
    } else {
        http1::serve(server, peer, (stream, BytesMut::new()), answer, open).await
    }
}

/// Reads until it is clear whether the client speaks HTTP/2 with prior knowledge (RFC 9113 section 3.4). It may stay
/// idle before its first byte; with that a head has begun. `None`: the drain began before it.
async fn preface(
    mut stream: TcpStream,
    patience: Patience,
    open: &mut Open,
) -> io::Result<Option<(TcpStream, BytesMut)>> {
    // Before there is anything to read, no memory is taken for it.
    let mut first = [0];
    let began = poll_fn(|cx| match stream.poll_peek(cx, &mut ReadBuf::new(&mut first)) {
        Poll::Pending if open.poll_begun(cx) => Poll::Ready(Ok(false)),
        peeked => peeked.map_ok(|_| true),
    });
    if !tokio::time::timeout(patience.idle, began).await?? {
        return Ok(None);
    }
    let mut read = BytesMut::with_capacity(http1::LEAST_ROOM);
    let mut left = tokio::time::timeout(patience.idle, stream.read_buf(&mut read)).await??;
    let rest = async {
        while left > 0 && read.len() < PREFACE.len() && PREFACE.starts_with(&read) {
            left = stream.read_buf(&mut read).await?;
        }
        io::Result::Ok(())
    };
    tokio::time::timeout(patience.head, rest).await??;
    Ok(Some((stream, read)))
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Between two tries to accept when the system refuses.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
