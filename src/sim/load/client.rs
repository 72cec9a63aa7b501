//! The clients of a load: connections to one address, and what an answer means to whoever asked.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderMap};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use super::Answer;

/// Keep-alive connections to one address.
#[derive(Debug)]
pub(super) struct Pool {
    target: SocketAddr,
    /// The most recently used one is taken first.
    idle: Mutex<Vec<SendRequest<Full<Bytes>>>>,
    seats: Semaphore,
}

/// No connection, or one that broke before the answer had ended.
pub(super) struct Broken;

impl Pool {
    pub(super) fn new(target: SocketAddr, connections: usize) -> Self {
        let seats = Semaphore::new(connections.min(Semaphore::MAX_PERMITS));
        Self { target, idle: Mutex::new(Vec::new()), seats }
    }

    pub(super) async fn exchange(&self, mut request: Request<Full<Bytes>>) -> Result<Answer, Broken> {
        let _seat = self.seats.acquire().await.map_err(|_| Broken)?;
        loop {
            let idle = self.idle.lock().pop();
            let reused = idle.is_some();
            let mut sender = match idle {
                Some(sender) => sender,
                None => self.connect().await?,
            };
            match sender.try_send_request(request).await {
                Ok(response) => {
                    let answer = read(response).await?;
                    if sender.ready().await.is_ok() {
                        self.idle.lock().push(sender);
                    }
                    return Ok(answer);
                }
                // An idle connection that the other side had closed: nothing was sent, so another may be tried.
                Err(mut error) => match error.take_message() {
                    Some(unsent) if reused => request = unsent,
                    _ => return Err(Broken),
                },
            }
        }
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, Broken> {
        let stream = TcpStream::connect(self.target).await.map_err(|_| Broken)?;
        // Only a little slower without it.
        let _ = stream.set_nodelay(true);
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|_| Broken)?;
        // Ends with its sender; how it ended is told to the request.
        tokio::spawn(async move {
            let _ = connection.await;
        });
        Ok(sender)
    }
}

async fn read(response: Response<Incoming>) -> Result<Answer, Broken> {
    let (head, mut body) = response.into_parts();
    let mut bytes = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Broken)?;
        bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
    }
    Ok(judge(head.status, &head.headers, bytes))
}

fn judge(status: StatusCode, headers: &HeaderMap, bytes: u64) -> Answer {
    if status.as_u16() < 400 {
        return Answer::Ok { hit: is_hit(headers), bytes };
    }
    let retry_after = headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
    match (status, retry_after) {
        (StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE, Some(seconds)) => {
            Answer::Refused { retry_after: Duration::from_secs(seconds) }
        }
        (StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE, None) => Answer::Untold,
        _ => Answer::Error,
    }
}

/// Whether a cache on the way had the answer (RFC 9211 section 2.1).
fn is_hit(headers: &HeaderMap) -> bool {
    let values = headers.get_all("cache-status").into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split([',', ';'])).any(|part| part.trim() == "hit")
}

#[cfg(test)]
mod tests {
    use http::header::{HeaderName, HeaderValue};

    use super::*;

    #[test]
    fn answers_are_judged_by_status_and_headers() {
        let check = |status: u16, headers: &[(&'static str, &'static str)], expected: Answer| {
            let headers =
                headers.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
            let judged = judge(StatusCode::from_u16(status).unwrap(), &headers.collect(), 3);
            assert_eq!(judged, expected, "{status}");
        };
        let refused = |seconds| Answer::Refused { retry_after: Duration::from_secs(seconds) };
        check(200, &[], Answer::Ok { hit: false, bytes: 3 });
        check(304, &[("cache-status", "vaxel; hit; ttl=4")], Answer::Ok { hit: true, bytes: 3 });
        check(200, &[("cache-status", "vaxel; fwd=miss; stored")], Answer::Ok { hit: false, bytes: 3 });
        check(503, &[("retry-after", "2")], refused(2));
        check(429, &[("retry-after", " 1 ")], refused(1));
        check(503, &[], Answer::Untold);
        check(503, &[("retry-after", "soon")], Answer::Untold);
        check(500, &[("retry-after", "2")], Answer::Error);
        check(404, &[], Answer::Error);
    }
}
