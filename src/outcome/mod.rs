//! What a finished attempt means: decided here, once, for the breaker, the balancer, the retry rules, the adaptive
//! limit and the metrics alike, so that they can never disagree.
//!
//! Two questions are kept apart. *What did the backend show of itself?* is the [`Outcome`], of an answer (its status by
//! [`classify_status`], or what its route knows better: [`classes`]) or of a [`Failure`]. *What does the client read?* is
//! the [`Reason`] of a failure.

use http::StatusCode;

use crate::refusal::Reason;

pub mod classes;
pub mod faults;

/// The verdict on one finished attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The backend answered.
    Ok,
    /// The backend said no for a reason of the application (4xx, 501): it works.
    Business,
    /// The backend failed: no answer, a broken one, or a 5xx that is no business fault.
    Broken,
    /// The backend says that it has too much to do (429, 503). Neither a success nor a failure: it works, and must
    /// get less work, not none.
    Overloaded,
    /// Vaxel's own refusal, or the client left: teaches nothing about the backend.
    Ignored,
}

impl Outcome {
    /// Every outcome, in order.
    pub const ALL: [Self; 5] = [Self::Ok, Self::Business, Self::Broken, Self::Overloaded, Self::Ignored];

    /// The stable word for logs and metric labels.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Business => "business",
            Self::Broken => "broken",
            Self::Overloaded => "overloaded",
            Self::Ignored => "ignored",
        }
    }

    /// Whether the backend showed that it works.
    pub const fn is_success(self) -> bool {
        matches!(self, Self::Ok | Self::Business)
    }
}

/// What an answer with `status` says about the backend.
///
/// - 429 and 503 (RFC 6585 section 4, RFC 9110 section 15.6.4): overloaded;
/// - other 4xx: business;
/// - 501 and 505 are permanent statements about the request ("no such method", "no such version"): business;
/// - any other 5xx, known or not: broken (RFC 9110 section 15: an unknown code means what the first of its class
///   means);
/// - everything else: ok.
pub const fn classify_status(status: StatusCode) -> Outcome {
    match status.as_u16() {
        429 | 503 => Outcome::Overloaded,
        400..=499 | 501 | 505 => Outcome::Business,
        500.. => Outcome::Broken,
        _ => Outcome::Ok,
    }
}

/// An attempt that got no whole answer. Made where the facts are known, by the code that talks to the backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure {
    /// What went wrong.
    pub kind: FailureKind,
    /// During which step.
    pub stage: Stage,
    /// A byte of the request may have reached the backend's application. False only where this is certain: nothing was
    /// written, or the peer said that it processed nothing (HTTP/2 REFUSED_STREAM, a stream above GOAWAY's last).
    pub sent: bool,
    /// The connection was taken from the pool, so the peer may have closed it before it saw the request.
    pub reused: bool,
}

/// The step of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Name resolution and TCP connect.
    Connect,
    /// The TLS handshake.
    Tls,
    /// Sending the request.
    Send,
    /// Waiting for the head of the answer.
    Head,
    /// Reading the body of the answer.
    Body,
}

/// What went wrong in an attempt that got no whole answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FailureKind {
    /// The endpoint refused the connection.
    Refused,
    /// The name does not resolve, or there is no way to the endpoint.
    Unreachable,
    /// Connecting (name, TCP, TLS together) took too long.
    ConnectTimeout,
    /// The TLS handshake failed.
    Tls,
    /// The head of the answer did not come in time. The backend may still be at work on it.
    HeadTimeout,
    /// The whole exchange took too long. The backend may still be at work on it.
    TotalTimeout,
    /// The connection or stream was closed or reset before the head of the answer was there.
    Reset,
    /// The answer breaks the protocol.
    Protocol,
    /// The body of the answer broke off.
    BodyBroken,
    /// The body of the request broke: the client's doing.
    RequestBody,
    /// The client left.
    ClientGone,
    /// The client waits no longer: the deadline it gave has passed.
    DeadlinePassed,
}

impl Failure {
    /// What the failure says about the backend. What the client did says nothing.
    pub const fn outcome(self) -> Outcome {
        match self.kind {
            FailureKind::RequestBody | FailureKind::ClientGone | FailureKind::DeadlinePassed => Outcome::Ignored,
            FailureKind::Refused
            | FailureKind::Unreachable
            | FailureKind::ConnectTimeout
            | FailureKind::Tls
            | FailureKind::HeadTimeout
            | FailureKind::TotalTimeout
            | FailureKind::Reset
            | FailureKind::Protocol
            | FailureKind::BodyBroken => Outcome::Broken,
        }
    }

    /// What the client is told, if it is still there and no answer has begun.
    pub const fn reason(self) -> Reason {
        match self.kind {
            FailureKind::Refused | FailureKind::Unreachable => Reason::UpstreamConnect,
            FailureKind::ConnectTimeout => Reason::UpstreamConnectTimeout,
            FailureKind::Tls => Reason::UpstreamTls,
            FailureKind::HeadTimeout | FailureKind::TotalTimeout => Reason::UpstreamTimeout,
            FailureKind::Reset | FailureKind::BodyBroken => Reason::UpstreamReset,
            FailureKind::Protocol => Reason::UpstreamProtocol,
            FailureKind::RequestBody | FailureKind::ClientGone => Reason::RequestBody,
            FailureKind::DeadlinePassed => Reason::DeadlineExceeded,
        }
    }

    /// Whether the backend may be at work on the request after the attempt has ended, so that its slot is a zombie.
    pub const fn leaves_work_behind(self) -> bool {
        use FailureKind::{ClientGone, DeadlinePassed, HeadTimeout, TotalTimeout};
        self.sent && matches!(self.kind, HeadTimeout | TotalTimeout | ClientGone | DeadlinePassed)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn status(code: u16) -> StatusCode {
        StatusCode::from_u16(code).unwrap()
    }

    #[test]
    fn a_status_is_read_by_who_is_to_blame() {
        let table = [
            (Outcome::Ok, &[100, 101, 200, 204, 206, 301, 304, 399][..]),
            (Outcome::Business, &[400, 401, 403, 404, 405, 409, 412, 423, 428, 499, 501, 505]),
            (Outcome::Broken, &[500, 502, 504, 507, 508, 520, 599, 999]),
            (Outcome::Overloaded, &[429, 503]),
        ];
        for (expected, codes) in table {
            for &code in codes {
                assert_eq!(classify_status(status(code)), expected, "{code}");
            }
        }
    }

    #[test]
    fn a_failure_names_its_reason_and_whether_the_backend_is_to_blame() {
        use FailureKind::{
            BodyBroken, ClientGone, ConnectTimeout, DeadlinePassed, HeadTimeout, Protocol, Refused, RequestBody, Reset,
            Tls, TotalTimeout, Unreachable,
        };
        let table = [
            (Refused, Stage::Connect, Outcome::Broken, "upstream.connect"),
            (Unreachable, Stage::Connect, Outcome::Broken, "upstream.connect"),
            (ConnectTimeout, Stage::Connect, Outcome::Broken, "upstream.connect_timeout"),
            (Tls, Stage::Tls, Outcome::Broken, "upstream.tls"),
            (HeadTimeout, Stage::Head, Outcome::Broken, "upstream.timeout"),
            (TotalTimeout, Stage::Body, Outcome::Broken, "upstream.timeout"),
            (Reset, Stage::Head, Outcome::Broken, "upstream.reset"),
            (Protocol, Stage::Head, Outcome::Broken, "upstream.protocol"),
            (BodyBroken, Stage::Body, Outcome::Broken, "upstream.reset"),
            (RequestBody, Stage::Send, Outcome::Ignored, "request.body"),
            (ClientGone, Stage::Head, Outcome::Ignored, "request.body"),
            (DeadlinePassed, Stage::Head, Outcome::Ignored, "deadline.exceeded"),
        ];
        for (kind, stage, outcome, reason) in table {
            let failure = Failure { kind, stage, sent: true, reused: false };
            assert_eq!(failure.outcome(), outcome, "{kind:?}");
            assert_eq!(failure.reason().code(), reason, "{kind:?}");
        }
    }

    #[test]
    fn only_a_request_that_was_sent_leaves_work_behind() {
        let late = Failure { kind: FailureKind::HeadTimeout, stage: Stage::Head, sent: true, reused: false };
        assert!(late.leaves_work_behind());
        assert!(!Failure { sent: false, ..late }.leaves_work_behind());
        assert!(!Failure { kind: FailureKind::Reset, ..late }.leaves_work_behind());
    }

    proptest! {
        #[test]
        fn a_success_is_never_a_5xx_but_for_statements_about_the_request(code in 100_u16..=999) {
            let outcome = classify_status(status(code));
            prop_assert_eq!(outcome.is_success(), code != 429 && (code < 500 || code == 501 || code == 505));
        }
    }
}
