//! One HTTP/1.1 connection to an endpoint, driven inside the task of the request that uses it.
//!
//! hyper splits a client connection into a sender and a driver future. Spawning the driver costs a task, a second
//! wake-up and a channel round trip per request; here the request polls the driver itself: first until the head is
//! there, then from the body. An idle link is polled by nobody; its death is noticed when the next request is sent over
//! it, and that request comes back unsent.
//!
//! The channels between sender, driver and body stay within one task, which looks at both ends each time it is polled. So
//! only the socket may wake it: polled with the task's waker, they would wake it three times more for each request.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;

use super::body::{BoxError, Progress, RequestBody, Source};
use super::connect::Stream;
use super::pool::Home;

type Driver = http1::Connection<TokioIo<Stream>, RequestBody>;

/// An open connection.
#[derive(Debug)]
pub struct Link {
    sender: http1::SendRequest<RequestBody>,
    /// Until it has ended.
    driver: Option<Driver>,
    /// Requests it has carried.
    pub served: u32,
    /// When it came to rest.
    pub idle_since: Option<Instant>,
}

/// Why a link gave no head.
#[derive(Debug)]
pub struct LinkError {
    /// What hyper says.
    pub source: hyper::Error,
    /// The request, if not a byte of it was sent.
    pub unsent: Option<Box<Request<RequestBody>>>,
}

/// The body of a reply; takes its link home when it has ended.
#[derive(Debug)]
pub struct LinkBody {
    incoming: Incoming,
    carrier: Option<Carrier>,
}

#[derive(Debug)]
struct Carrier {
    link: Box<Link>,
    home: Home,
    /// The request's own body: a link whose request was not read to its end is not used again (hyper#4176).
    request: Option<Arc<Source>>,
}

impl Link {
    /// Opens HTTP/1.1 on a fresh stream.
    ///
    /// # Errors
    /// When hyper refuses the stream.
    pub async fn open(stream: Stream, builder: &http1::Builder) -> Result<Box<Self>, hyper::Error> {
        let (sender, driver) = builder.handshake(TokioIo::new(stream)).await?;
        Ok(Box::new(Self { sender, driver: Some(driver), served: 0, idle_since: None }))
    }

    /// Whether it can take another request, now that the last one is answered: hyper returns to its idle state only
    /// when polled once more, and nobody waits for this poll.
    fn comes_to_rest(&mut self) -> bool {
        self.drive(&mut unwoken());
        self.driver.is_some() && self.sender.is_ready()
    }

    /// Polls the driver until `look` sees what it brought. Where it is `likely` to be there already, the driver is not
    /// told whom to wake before it is not: it would remember, and wake us for taking what it brought.
    fn drive_until<T>(
        &mut self,
        likely: bool,
        cx: &mut Context<'_>,
        mut look: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        if likely {
            self.drive(&mut unwoken());
            if let Poll::Ready(seen) = look(&mut unwoken()) {
                return Poll::Ready(seen);
            }
        }
        self.drive(cx);
        look(&mut unwoken())
    }

    /// Polls the driver. One that has ended is dropped: so the request it may not have taken yet comes back.
    fn drive(&mut self, cx: &mut Context<'_>) {
        if self.driver.as_mut().is_some_and(|driver| Pin::new(driver).poll(cx).is_ready()) {
            self.driver = None;
        }
    }

    /// Sends a request and waits for the head of the reply.
    ///
    /// # Errors
    /// When the connection breaks before a head has come, or the head breaks the protocol.
    pub async fn exchange(&mut self, request: Request<RequestBody>) -> Result<Response<Incoming>, LinkError> {
        self.served += 1;
        let mut reply = std::pin::pin!(self.sender.try_send_request(request));
        let mut is_sent = false;
        let answered = std::future::poll_fn(|cx| {
            // The driver first: it sends the request, and it brings the head.
            self.drive_until(std::mem::replace(&mut is_sent, true), cx, |unwoken| reply.as_mut().poll(unwoken))
        });
        answered
            .await
            .map_err(|mut error| LinkError { unsent: error.take_message().map(Box::new), source: error.into_error() })
    }

    /// Gives the connection up to a protocol switch: hyper drives it in a task of its own until both sides are done.
    pub async fn exchange_upgrading(
        self: Box<Self>,
        request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, hyper::Error> {
        let Self { mut sender, driver, .. } = *self;
        if let Some(driver) = driver {
            tokio::spawn(driver.with_upgrades());
        }
        let response = sender.send_request(request).await;
        // The sender must outlive the exchange, or the driver takes the connection for abandoned.
        if response.as_ref().is_ok_and(|response| response.status() != http::StatusCode::SWITCHING_PROTOCOLS) {
            tokio::spawn(async move { sender.ready().await });
        }
        response
    }
}

impl LinkBody {
    /// The body that arrives over `link`; when it has ended, the link goes `home`.
    pub fn new(incoming: Incoming, link: Box<Link>, home: Home, request: Option<Arc<Source>>) -> Self {
        let mut body = Self { incoming, carrier: Some(Carrier { link, home, request }) };
        if body.incoming.is_end_stream() {
            body.release();
        }
        body
    }

    /// A body whose connection someone else drives.
    pub fn detached(incoming: Incoming) -> Self {
        Self { incoming, carrier: None }
    }

    /// Whether nothing (more) will come.
    pub fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    /// What is known of its length.
    pub fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }

    /// The next frame.
    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let next = match &mut self.carrier {
            None => Pin::new(&mut self.incoming).poll_frame(cx),
            Some(carrier) => {
                let mut incoming = Pin::new(&mut self.incoming);
                match incoming.as_mut().poll_frame(&mut unwoken()) {
                    // The driver's own errors reach us through the body.
                    Poll::Pending => {
                        carrier.link.drive_until(true, cx, |unwoken| incoming.as_mut().poll_frame(unwoken))
                    }
                    ready => ready,
                }
            }
        };
        match &next {
            Poll::Ready(None) => self.release(),
            Poll::Ready(Some(Err(_))) => self.carrier = None,
            Poll::Ready(Some(Ok(_))) if self.incoming.is_end_stream() => self.release(),
            _ => {}
        }
        next.map_err(Into::into)
    }

    /// Takes the link home if it can be used again.
    fn release(&mut self) {
        let Some(Carrier { mut link, home, request }) = self.carrier.take() else { return };
        if request.is_some_and(|body| body.progress() != Progress::Ended) {
            return;
        }
        if link.comes_to_rest() {
            home.checkin(link);
        }
    }
}

/// For what this very task will look at again anyway.
fn unwoken() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

#[cfg(test)]
mod tests {
    use http_body::Body as _;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    /// An endpoint that answers each of its connections so often, then closes it.
    async fn endpoint(answers: usize) -> TcpStream {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            for _ in 0..answers {
                let _ = stream.read(&mut [0; 1024]).await.unwrap();
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nbody").await.unwrap();
            }
        });
        TcpStream::connect(address).await.unwrap()
    }

    fn request() -> Request<RequestBody> {
        Request::new(RequestBody::Empty)
    }

    #[tokio::test]
    async fn only_the_socket_wakes_an_exchange() {
        let mut link = Link::open(Stream::plain(endpoint(3).await), &http1::Builder::new()).await.unwrap();
        for _ in 0..2 {
            let mut polls = 0;
            let mut body = {
                let mut exchange = std::pin::pin!(link.exchange(request()));
                let response = std::future::poll_fn(|cx| {
                    polls += 1;
                    exchange.as_mut().poll(cx)
                });
                response.await.unwrap().into_body()
            };
            // One that sends it, one that brings all of the answer.
            assert_eq!(polls, 2);
            let data = std::future::poll_fn(|_| Pin::new(&mut body).poll_frame(&mut unwoken())).await;
            assert_eq!(data.unwrap().unwrap().into_data().unwrap(), "body");
            // To take it out has woken nobody.
            let mut polls = 0;
            let quiet = std::future::poll_fn(|_| {
                polls += 1;
                Poll::<()>::Pending
            });
            let waited = tokio::time::timeout(std::time::Duration::from_millis(1), quiet).await;
            assert_eq!((waited.is_err(), polls), (true, 2), "at the start and at the timeout");
            assert!(link.comes_to_rest());
        }
    }

    #[tokio::test]
    async fn a_request_over_a_link_that_was_closed_meanwhile_comes_back() {
        let stream = endpoint(0).await;
        stream.readable().await.unwrap();
        let mut link = Link::open(Stream::plain(stream), &http1::Builder::new()).await.unwrap();
        let error = link.exchange(request()).await.unwrap_err();
        assert!(error.unsent.is_some(), "{error:?}");
    }
}
