//! One HTTP/1.1 connection to an endpoint (RFC 9112), driven inside the task of the request that uses it.
//!
//! The request polls the link until the head is there, then its body does, while the rest of the request is sent. There
//! is no task, no channel and no second waker: what wakes is the socket, and the client's body where there is one. An
//! idle link is polled by nobody; its death is noticed when the next request is about to be sent over it, and that
//! request goes elsewhere.
//!
//! Lines are read as leniently as hyper reads them by default, for old servers; what tells where a body ends is read as
//! strictly as in requests. A body breaks rather than ends where its end was not seen.

use std::io;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use http::{Method, Response, StatusCode};
use http_body::{Frame, SizeHint};

use super::body::{BoxError, RequestBody, RequestBodyError};
use super::connect::Stream;
use super::pool::Home;
use crate::message::chunked::{ChunkError, Decoder, Step};
use crate::message::switch::{self, Switched};

mod head;
mod intake;
mod outbound;

pub use self::head::AnswerError;
use self::head::Head;
use self::intake::Intake;
pub use self::outbound::Asking;
use self::outbound::Outbound;

/// An open connection.
#[derive(Debug)]
pub struct Link {
    /// Until it is given up to another protocol.
    stream: Option<Stream>,
    intake: Intake,
    outbound: Outbound,
    /// Why the rest of a request that is answered already could not be sent.
    unsent: Option<LinkError>,
    exchange: Exchange,
    /// It has answered in HTTP/1.0.
    is_old: bool,
    /// Requests it has carried.
    pub served: u32,
    /// When it came to rest.
    pub idle_since: Option<Instant>,
    /// Its last answer spoke of a body that such an answer does not have (RFC 9112 section 6.3).
    pub(super) is_doubtful: bool,
}

/// What is known of the exchange under way.
#[derive(Debug)]
struct Exchange {
    /// The answer has no body, whatever its head says.
    is_head: bool,
    /// 101 may come.
    may_switch: bool,
    /// Another request may follow.
    keeps_alive: bool,
    /// Bytes of a head that is not whole.
    seen: usize,
    /// Interim answers so far.
    interim: u16,
    reading: Reading,
}

/// What is still to come of an answer.
#[derive(Debug)]
enum Reading {
    /// Nothing.
    Ended,
    /// So many bytes; not 0.
    Length(u64),
    /// Chunks.
    Chunks(Decoder),
    /// All until the connection is closed.
    UntilClose,
}

/// Why there is no answer, or no more of it.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// Closed while it rested, or it spoke unasked: the request has not been sent.
    #[error("the connection was closed before it was used")]
    Stale,
    /// The client's body broke off.
    #[error("the request could not be read")]
    Request(#[source] RequestBodyError),
    /// The client's body ended before the length it had announced.
    #[error("the request is shorter than announced")]
    RequestTooShort,
    /// The answer's head breaks the protocol.
    #[error("the answer breaks the protocol")]
    Answer(#[from] AnswerError),
    /// The answer's body breaks the coding.
    #[error("the answer's body breaks the coding")]
    Body(#[from] ChunkError),
    /// Closed in the middle.
    #[error("the connection was closed before the answer was whole")]
    Closed,
    /// The connection failed.
    #[error("the connection failed")]
    Broken(#[source] io::Error),
}

/// The body of a reply; takes its link home when it has ended.
#[derive(Debug)]
pub struct LinkBody {
    carrier: Option<(Box<Link>, Home)>,
}

impl Link {
    /// Speaks HTTP/1.1 on a fresh stream.
    pub fn new(stream: Stream) -> Box<Self> {
        Box::new(Self {
            stream: Some(stream),
            intake: Intake::new(),
            outbound: Outbound::default(),
            unsent: None,
            exchange: Exchange::new(&Method::GET, false),
            is_old: false,
            served: 0,
            idle_since: None,
            is_doubtful: false,
        })
    }

    /// Whether it is open, and nobody has said anything unasked: only then a request should be sent over it.
    pub fn is_quiet(&mut self) -> bool {
        self.stream.as_mut().is_some_and(Stream::is_quiet)
    }

    /// Takes a request. Nothing is sent yet.
    pub fn begin(&mut self, asking: Asking<'_>, body: RequestBody, may_switch: bool) {
        self.served += 1;
        self.exchange = Exchange::new(asking.method(), may_switch);
        self.exchange.keeps_alive = self.outbound.begin(asking, body, self.is_old);
    }

    /// Sends the request and waits for the head of the answer. The rest of the request is sent while the answer's body is
    /// read.
    ///
    /// # Errors
    /// When the connection breaks before a head has come, the head breaks the protocol, or the client's body breaks.
    pub fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<Result<Response<()>, LinkError>> {
        loop {
            let interim = self.exchange.interim;
            let sent = self.poll_send(cx);
            let answer = self.poll_head(cx);
            if let Poll::Ready(Err(error)) = sent {
                // Whatever the answer may be: it might be about half a request.
                if !matches!(answer, Poll::Ready(Ok(_))) {
                    return Poll::Ready(Err(error));
                }
                self.unsent = Some(error);
            } else if sent.is_pending() && answer.is_pending() && self.exchange.interim > interim {
                // The endpoint may have asked for the body.
                continue;
            }
            return answer;
        }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        let Some(stream) = &mut self.stream else { return Poll::Ready(Ok(())) };
        if self.outbound.is_done() { Poll::Ready(Ok(())) } else { self.outbound.poll(stream, cx) }
    }

    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<Response<()>, LinkError>> {
        loop {
            let (there, seen) = (&mut self.intake.buf, self.exchange.seen);
            let is_worth_a_look = if seen == 0 { !there.is_empty() } else { head::may_be_whole(there, seen) };
            if is_worth_a_look && let Some(mut head) = head::take(there)? {
                self.exchange.seen = 0;
                if self.accept(&mut head)? {
                    return Poll::Ready(Ok(head.response));
                }
                continue;
            }
            self.exchange.seen = self.intake.buf.len();
            if self.exchange.seen >= intake::LARGE {
                return Poll::Ready(Err(AnswerError::TooLarge.into()));
            }
            std::task::ready!(self.poll_read(cx))?;
        }
    }

    /// Reads more of the answer.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        let Some(stream) = &mut self.stream else { return Poll::Ready(Err(LinkError::Closed)) };
        self.intake.poll(stream, cx).map(|read| match read {
            Ok(0) => Err(LinkError::Closed),
            Ok(_) => Ok(()),
            Err(error) => Err(LinkError::Broken(error)),
        })
    }

    /// What a head means. Says whether it is the answer's: an interim one (RFC 9110 section 15.2) a proxy need not pass on.
    fn accept(&mut self, head: &mut Head) -> Result<bool, AnswerError> {
        let (status, length, is_chunked) = (head.response.status(), head.length, head.is_chunked);
        if status == StatusCode::SWITCHING_PROTOCOLS {
            self.switch(&mut head.response)?;
            return Ok(true);
        }
        if status.is_informational() {
            self.exchange.interim += 1;
            if self.exchange.interim > MOST_INTERIM {
                return Err(AnswerError::Interim);
            }
            if status == StatusCode::CONTINUE {
                self.outbound.open_gate();
            }
            return Ok(false);
        }
        self.is_old = head.response.version() == http::Version::HTTP_10;
        // RFC 9112 section 6.3.
        let is_bare = self.exchange.is_head || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        self.is_doubtful = is_bare && (is_chunked || length.is_some_and(|length| length > 0));
        self.exchange.reading = match length {
            _ if is_bare => Reading::Ended,
            _ if is_chunked => Reading::Chunks(Decoder::lenient()),
            Some(0) => Reading::Ended,
            Some(length) => Reading::Length(length),
            None => Reading::UntilClose,
        };
        self.exchange.keeps_alive &= head.keeps_alive() && !matches!(self.exchange.reading, Reading::UntilClose);
        Ok(true)
    }

    /// The endpoint speaks another protocol from here on (RFC 9110 section 7.8): the stream goes to whoever asked for it.
    fn switch(&mut self, response: &mut Response<()>) -> Result<(), AnswerError> {
        if !self.exchange.may_switch {
            return Err(AnswerError::Status);
        }
        if !self.outbound.is_done() {
            return Err(AnswerError::EarlySwitch);
        }
        let Some(stream) = self.stream.take() else { return Ok(()) };
        let (switching, switch) = switch::pair();
        switching.hand_over(Switched::new(stream, self.intake.buf.split().freeze()));
        response.extensions_mut().insert(switch);
        Ok(())
    }

    /// The next piece of the answer's body, while the rest of the request is sent.
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, LinkError>>> {
        if self.unsent.is_none()
            && let Poll::Ready(Err(error)) = self.poll_send(cx)
        {
            self.unsent = Some(error);
        }
        match self.poll_frame(cx) {
            // The endpoint may wait for it.
            Poll::Pending => self.unsent.take().map_or(Poll::Pending, |error| Poll::Ready(Some(Err(error)))),
            ready => ready,
        }
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, LinkError>>> {
        loop {
            if let Some(next) = self.next_frame() {
                return Poll::Ready(next);
            }
            match std::task::ready!(self.poll_read(cx)) {
                Ok(()) => {}
                Err(LinkError::Closed) if matches!(self.exchange.reading, Reading::UntilClose) => {
                    self.exchange.reading = Reading::Ended;
                }
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
        }
    }

    /// What there is of the body; `None` if more has to be read for it.
    fn next_frame(&mut self) -> Option<Option<Result<Frame<Bytes>, LinkError>>> {
        let buf = &mut self.intake.buf;
        let frame = match &mut self.exchange.reading {
            Reading::Ended => return Some(None),
            Reading::Length(_) | Reading::UntilClose if buf.is_empty() => return None,
            Reading::UntilClose => Frame::data(buf.split().freeze()),
            Reading::Length(left) => {
                let data = buf.split_to(usize::try_from(*left).map_or(buf.len(), |left| left.min(buf.len())));
                *left -= data.len() as u64;
                if *left == 0 {
                    self.exchange.reading = Reading::Ended;
                }
                Frame::data(data.freeze())
            }
            Reading::Chunks(decoder) => {
                let step = match decoder.decode(buf) {
                    Ok(step) => step,
                    Err(error) => return Some(Some(Err(error.into()))),
                };
                let frame = match step {
                    Step::More => return None,
                    Step::Data(data) => Some(Frame::data(data)),
                    Step::End(trailers) => trailers.map(|trailers| Frame::trailers(*trailers)),
                };
                if decoder.is_ended() {
                    self.exchange.reading = Reading::Ended;
                }
                return Some(frame.map(Ok));
            }
        };
        Some(Some(Ok(frame)))
    }

    /// Whether another request can follow; then only what is small is kept for it.
    fn comes_to_rest(&mut self) -> bool {
        let reusable = self.exchange.keeps_alive
            && matches!(self.exchange.reading, Reading::Ended)
            // What the endpoint says unasked is not the answer to the next request.
            && self.intake.buf.is_empty()
            && self.outbound.is_done()
            && self.unsent.is_none()
            && self.stream.is_some();
        if reusable {
            self.intake.rest();
            self.outbound.rest();
        }
        reusable
    }
}

impl Exchange {
    fn new(method: &Method, may_switch: bool) -> Self {
        let is_head = method == Method::HEAD;
        Self { is_head, may_switch, keeps_alive: false, seen: 0, interim: 0, reading: Reading::Ended }
    }
}

impl LinkBody {
    /// The body that arrives over `link`, which has brought the head; when it has ended, the link goes `home`.
    pub fn new(link: Box<Link>, home: Home) -> Self {
        let mut body = Self { carrier: Some((link, home)) };
        body.release();
        body
    }

    /// Whether nothing (more) will come.
    pub const fn is_end_stream(&self) -> bool {
        self.carrier.is_none()
    }

    /// What is known of its length.
    pub fn size_hint(&self) -> SizeHint {
        let reading = self.carrier.as_ref().map(|(link, _)| &link.exchange.reading);
        match reading {
            None | Some(Reading::Ended) => SizeHint::with_exact(0),
            Some(Reading::Length(left)) => SizeHint::with_exact(*left),
            Some(Reading::Chunks(_) | Reading::UntilClose) => SizeHint::default(),
        }
    }

    /// The next frame.
    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Some((link, _)) = &mut self.carrier else { return Poll::Ready(None) };
        let next = link.poll_body(cx);
        match &next {
            Poll::Pending => {}
            Poll::Ready(Some(Err(_))) => self.carrier = None,
            Poll::Ready(_) => self.release(),
        }
        next.map_err(Into::into)
    }

    /// At the end takes the link home, if it can be used again.
    fn release(&mut self) {
        if let Some((mut link, home)) =
            self.carrier.take_if(|(link, _)| matches!(link.exchange.reading, Reading::Ended))
            && link.comes_to_rest()
        {
            home.checkin(link);
        }
    }
}

/// Interim answers before the final one: more than any server has progress to report.
const MOST_INTERIM: u16 = 256;

#[cfg(test)]
mod tests;
