//! The sockets of the admin listener: bounded in number and in time, since it must answer when all else is in trouble.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::header::{self, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::feed::{Body, Feed};
use super::{AdminSource, Page, handle, problem};

/// Answers on `listener` until `shutdown` resolves; then lets the requests at hand end, for a few seconds.
pub async fn serve(
    listener: TcpListener,
    source: Arc<dyn AdminSource + Send + Sync>,
    shutdown: impl Future<Output = ()>,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let (stop, stopped) = watch::channel(());
    let feed = Arc::new(Feed::new(Arc::clone(&source)));
    // Dropped with this future.
    let mut feeding = JoinSet::new();
    let fed = Arc::clone(&feed);
    feeding.spawn(async move { fed.run().await });
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let accepted = async {
            // The place first: who finds none waits in the backlog of the socket.
            let place = Arc::clone(&places).acquire_owned().await.expect("nobody closes it");
            (listener.accept().await, place)
        };
        let (accepted, place) = tokio::select! {
            () = &mut shutdown => break,
            accepted = accepted => accepted,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
        };
        match accepted {
            Ok((stream, _)) => {
                let (source, feed) = (Arc::clone(&source), Arc::clone(&feed));
                let mut stopped = stopped.clone();
                connections.spawn(async move {
                    let _place = place;
                    // An error means that the sender is gone: that is the end as well.
                    connection(stream, source, feed, async { drop(stopped.changed().await) }).await;
                });
            }
            Err(error) => {
                tracing::warn!(%error, "the admin listener could not accept a connection");
                // Out of file descriptors, most likely: at once it would only fail again.
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop((listener, stop));
    while connections.join_next().await.is_some() {}
}

/// Serves one connection until it ends, its time is up, or `stop` resolves.
async fn connection(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    source: Arc<dyn AdminSource + Send + Sync>,
    feed: Arc<Feed>,
    stop: impl Future<Output = ()>,
) {
    let service = service_fn(move |request| respond(request, Arc::clone(&source), Arc::clone(&feed)));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(HEAD_SIZE)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let over = async {
        tokio::select! {
            () = stop => {}
            () = sleep(LIFETIME) => {}
        }
    };
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = over => {
            connection.as_mut().graceful_shutdown();
            // Out of time: the client does not read. The connection is dropped.
            timeout(LAST_ANSWER, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection of the admin listener broke");
    }
}

async fn respond(
    request: Request<Incoming>,
    source: Arc<dyn AdminSource + Send + Sync>,
    feed: Arc<Feed>,
) -> Result<Response<Body>, Infallible> {
    let (head, body) = request.into_parts();
    let whole = |response: super::Reply| Ok(response.map(Body::Whole));
    let body = match timeout(BODY, Limited::new(body, BODY_SIZE).collect()).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(_)) => return whole(problem(StatusCode::PAYLOAD_TOO_LARGE, "No order is so long, or it broke off.")),
        Err(_) => return whole(problem(StatusCode::REQUEST_TIMEOUT, "The body did not come in time.")),
    };
    let follows = Page::at(head.uri.path()) == Some(Page::Events) && head.method == Method::GET;
    let request = Request::from_parts(head, body);
    // A scrape sums a lot and a reload reads files: neither may hold up the control runtime.
    let answered = tokio::task::spawn_blocking(move || handle(&request, &*source)).await;
    let answered = answered.unwrap_or_else(|error| {
        tracing::error!(%error, "the admin listener could not answer");
        problem(StatusCode::INTERNAL_SERVER_ERROR, "Something broke; the log has the details.")
    });
    if follows && answered.status().is_success() {
        return Ok(go_on(answered, &feed).await);
    }
    whole(answered)
}

/// Goes on after the first event with those to come.
async fn go_on(answered: super::Reply, feed: &Feed) -> Response<Body> {
    let (head, first) = answered.into_parts();
    let Ok(first) = first.collect().await;
    match feed.follow(first.to_bytes()) {
        Some(following) => Response::from_parts(head, Body::Events(following)),
        None => {
            let mut response = problem(StatusCode::SERVICE_UNAVAILABLE, "As many follow already as may.");
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("10"));
            response.map(Body::Whole)
        }
    }
}

/// A scraper, two probes, an operator and his script, many times over.
const CONNECTIONS: usize = 64;
/// How long a head may take, and how long a connection may be idle. Longer than most scrape intervals.
const HEAD: Duration = Duration::from_secs(75);
/// Bytes of a head.
const HEAD_SIZE: usize = 16 * 1024;
/// How long a body may take, and how large it may be: an order is a line.
const BODY: Duration = Duration::from_secs(10);
const BODY_SIZE: usize = 64 * 1024;
/// How long a connection may live: one whose client does not read must not hold its place for ever.
pub(super) const LIFETIME: Duration = Duration::from_secs(600);
/// How long the last answer may take.
const LAST_ANSWER: Duration = Duration::from_secs(5);
/// How long to wait after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
    use tokio::sync::oneshot;
    use tokio::task::JoinHandle;

    use super::super::tests::Known;
    use super::*;

    /// A client's end of a connection that is being served, what stops it, and its end.
    fn world(source: Known) -> (DuplexStream, oneshot::Sender<()>, JoinHandle<()>) {
        let (client, server) = duplex(64 * 1024);
        let (stop, stopped) = oneshot::channel::<()>();
        let source: Arc<dyn AdminSource + Send + Sync> = Arc::new(source);
        let feed = Arc::new(Feed::new(Arc::clone(&source)));
        let served = tokio::spawn(connection(server, source, feed, async {
            // Dropped is stopped.
            drop(stopped.await);
        }));
        (client, stop, served)
    }

    async fn read_to_end(mut client: DuplexStream) -> String {
        let mut text = String::new();
        client.read_to_string(&mut text).await.unwrap();
        text
    }

    #[tokio::test(start_paused = true)]
    async fn requests_are_answered_one_after_the_other() {
        let (mut client, _stop, served) = world(Known::default());
        client
            .write_all(
                b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n\
                  HEAD /livez HTTP/1.1\r\nhost: localhost\r\n\r\n\
                  POST /reload HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2\r\n\r\n{}\
                  GET /no HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n",
            )
            .await
            .unwrap();
        let text = read_to_end(client).await;
        assert_eq!(text.matches("HTTP/1.1 ").count(), 4, "{text}");
        assert_eq!(text.matches("ok\n").count(), 1, "the answer to HEAD has no body: {text}");
        assert_eq!(text.matches("content-length: 3\r\n").count(), 2, "{text}");
        assert!(text.contains("{\"reloaded\":true}") && text.contains("HTTP/1.1 404 "), "{text}");
        served.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_does_not_come_ends_the_connection() {
        let (mut client, _stop, served) = world(Known::default());
        client.write_all(b"GET /livez HT").await.unwrap();
        served.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_is_read_and_is_bounded_in_size_and_time() {
        let (mut client, _stop, served) = world(Known::default());
        let order =
            "POST /purge HTTP/1.1\r\nhost: localhost\r\ncontent-length: 12\r\nconnection: close\r\n\r\n{\"all\":true}";
        client.write_all(order.as_bytes()).await.unwrap();
        assert!(read_to_end(client).await.contains("\"purged\":4"));
        served.await.unwrap();
        let head = "POST /purge HTTP/1.1\r\nhost: localhost\r\ncontent-length: 70000\r\n\r\n";
        for (body, status) in [("x".repeat(70_000), "413"), (String::new(), "408")] {
            let (mut client, _stop, served) = world(Known::default());
            client.write_all(head.as_bytes()).await.unwrap();
            let _ = client.write_all(body.as_bytes()).await;
            let text = read_to_end(client).await;
            assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{text}");
            served.await.unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_ends() {
        let (mut client, _stop, served) = world(Known::default());
        client.write_all(b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
        served.await.unwrap();
        assert!(read_to_end(client).await.ends_with("ok\n"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_is_too_large_is_refused() {
        let (mut client, _stop, served) = world(Known::default());
        client.write_all(b"GET /livez HTTP/1.1\r\nhost: localhost\r\nx: ").await.unwrap();
        client.write_all("x".repeat(2 * HEAD_SIZE).as_bytes()).await.unwrap();
        let text = read_to_end(client).await;
        assert!(text.starts_with("HTTP/1.1 431 "), "{text}");
        served.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_stop_ends_an_idle_connection_at_once() {
        let (client, stop, served) = world(Known::default());
        stop.send(()).unwrap();
        timeout(LAST_ANSWER / 2, served).await.expect("it ended at once").unwrap();
        assert_eq!(read_to_end(client).await, "");
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_read_is_given_up() {
        let (mut client, server) = duplex(16);
        let source: Arc<dyn AdminSource + Send + Sync> = Arc::new(Known::default());
        let feed = Arc::new(Feed::new(Arc::clone(&source)));
        let served = connection(server, source, feed, std::future::pending());
        let served = tokio::spawn(served);
        client.write_all(b"GET /config HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
        timeout(LIFETIME + 2 * LAST_ANSWER, served).await.expect("it ended").unwrap();
        drop(client);
    }

    #[tokio::test]
    async fn events_come_until_the_client_leaves() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let served = tokio::spawn(serve(listener, Arc::new(Known::default()), async { drop(stopped.await) }));
        let mut client = tokio::net::TcpStream::connect(address).await.unwrap();
        client.write_all(b"GET /status/events HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
        let mut text = String::new();
        while text.matches("data: {\"upstreams\":[]}\n\n").count() < 2 {
            let mut bytes = [0; 4096];
            let count = client.read(&mut bytes).await.unwrap();
            assert!(count > 0, "{text}");
            text.push_str(std::str::from_utf8(&bytes[..count]).unwrap());
        }
        assert!(text.contains("content-type: text/event-stream\r\n"), "{text}");
        drop(client);
        stop.send(()).unwrap();
        timeout(2 * LAST_ANSWER, served).await.expect("it ended").unwrap();
    }

    #[tokio::test]
    async fn a_listener_answers_until_it_is_told_to_stop() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let served = tokio::spawn(serve(listener, Arc::new(Known::default()), async { drop(stopped.await) }));
        for _ in 0..2 {
            let mut client = tokio::net::TcpStream::connect(address).await.unwrap();
            client.write_all(b"GET /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await.unwrap();
            let mut text = String::new();
            client.read_to_string(&mut text).await.unwrap();
            assert!(text.ends_with("ready\n"), "{text}");
        }
        let _idle = tokio::net::TcpStream::connect(address).await.unwrap();
        stop.send(()).unwrap();
        served.await.unwrap();
        assert!(tokio::net::TcpStream::connect(address).await.is_err());
    }
}
