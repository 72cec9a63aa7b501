//! Every reason for which vaxel answers by itself. One vocabulary: the code is the same in the error body
//! (`reason`, RFC 9457), the access log, the metric label and the docs.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use http::StatusCode;

/// Why a request was not answered with what the upstream (or the cache) had for it, and when to come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub reason: Reason,
    /// When it makes sense to try again; becomes `Retry-After`.
    pub retry_after: Option<Duration>,
}

impl Refusal {
    /// The same refusal with the time after which a retry makes sense.
    #[must_use]
    pub const fn after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }
}

impl From<Reason> for Refusal {
    fn from(reason: Reason) -> Self {
        Self { reason, retry_after: None }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason.code())
    }
}

impl std::error::Error for Refusal {}

/// What a policy does with its verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// There is none.
    Off,
    /// It is counted, and changes nothing.
    Shadow,
    /// It counts.
    #[default]
    Enforce,
}

impl Mode {
    /// Whether requests feel it.
    pub const fn counts(self) -> bool {
        matches!(self, Self::Enforce)
    }
}

/// A refusal in an embedding program's own words. Its client reads them; metrics and logs, whose labels are a closed
/// set, know it as the reason `hook`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    /// The status it is answered with: 4xx or 5xx.
    pub(crate) status: StatusCode,
    /// The program's reason code.
    pub(crate) code: &'static str,
    /// A sentence for people.
    pub(crate) detail: Cow<'static, str>,
    /// When it makes sense to try again; becomes `Retry-After`.
    pub(crate) retry_after: Option<Duration>,
}

/// Why words of a program's own cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DenialError {
    /// A refusal that is no error would be taken for an answer.
    #[error("{0} is no status of a refusal: it must be 4xx or 5xx")]
    Status(StatusCode),
    /// The code is not spelled as codes are.
    #[error("{0:?} is no reason code: 1 to 64 of a-z, 0-9, `_` and `.`")]
    Code(&'static str),
    /// The code is one of vaxel's own, which always mean the same.
    #[error("{0:?} is a reason of vaxel's own")]
    Taken(&'static str),
}

impl Denial {
    /// A refusal with `status`, a stable reason `code` (such as `licence.expired`) and a sentence for people.
    ///
    /// # Errors
    /// See [`DenialError`].
    pub fn new(
        status: StatusCode,
        code: &'static str,
        detail: impl Into<Cow<'static, str>>,
    ) -> Result<Self, DenialError> {
        if !status.is_client_error() && !status.is_server_error() {
            return Err(DenialError::Status(status));
        }
        let spelled = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'.');
        if !(1..=64).contains(&code.len()) || !code.bytes().all(spelled) {
            return Err(DenialError::Code(code));
        }
        if Reason::ALL.iter().any(|reason| reason.code() == code) {
            return Err(DenialError::Taken(code));
        }
        Ok(Self { status, code, detail: detail.into(), retry_after: None })
    }

    /// The same with the time after which a retry makes sense.
    #[must_use]
    pub const fn after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }
}

/// How a program refuses: for one of vaxel's reasons, or in its own words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Denied {
    /// For a reason of vaxel's.
    Refusal(Refusal),
    /// In its own words.
    Own(Box<Denial>),
}

impl From<Refusal> for Denied {
    fn from(refusal: Refusal) -> Self {
        Self::Refusal(refusal)
    }
}

impl From<Denial> for Denied {
    fn from(denial: Denial) -> Self {
        Self::Own(Box::new(denial))
    }
}

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident = $code:literal, $status:ident;)+) => {
        /// The closed set of reasons. `code()` is stable: dashboards and clients may rely on it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Reason { $($(#[doc = $doc])+ $name,)+ }

        impl Reason {
            /// Every reason, in order.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The stable code.
            pub const fn code(self) -> &'static str {
                match self { $(Self::$name => $code,)+ }
            }

            /// The status it is answered with.
            pub const fn status(self) -> StatusCode {
                match self { $(Self::$name => StatusCode::$status,)+ }
            }

            /// One sentence for people.
            pub const fn sentence(self) -> &'static str {
                match self { $(Self::$name => reasons!(@first $($doc)+),)+ }
            }
        }
    };
    (@first $first:literal $($rest:literal)*) => { $first.trim_ascii() };
}

reasons! {
    /// The listener has as many connections as it may have.
    ConnectionLimit = "connection.limit", SERVICE_UNAVAILABLE;
    /// The client's address has as many connections as it may have.
    ConnectionAddress = "connection.address", TOO_MANY_REQUESTS;
    /// The request is malformed or ambiguous.
    RequestMalformed = "request.malformed", BAD_REQUEST;
    /// Host is missing, repeated, invalid, or contradicts the request target.
    RequestHost = "request.host", BAD_REQUEST;
    /// The path holds a sequence that servers read differently.
    RequestTarget = "request.target", BAD_REQUEST;
    /// The method is never relayed (CONNECT, TRACE).
    RequestMethod = "request.method", METHOD_NOT_ALLOWED;
    /// The transfer coding is not one vaxel relays.
    RequestCoding = "request.coding", NOT_IMPLEMENTED;
    /// The head of the request is larger than the listener allows, or has more fields than are read.
    RequestHeadTooLarge = "request.head_too_large", REQUEST_HEADER_FIELDS_TOO_LARGE;
    /// The request target is longer than any that is read.
    RequestTargetTooLong = "request.target_too_long", URI_TOO_LONG;
    /// The request body is larger than the route allows.
    RequestTooLarge = "request.too_large", PAYLOAD_TOO_LARGE;
    /// The request body did not arrive in time or broke off.
    RequestBody = "request.body", BAD_REQUEST;
    /// The request already passed through this proxy.
    RequestLoop = "request.loop", LOOP_DETECTED;
    /// No route matches.
    RouteNone = "route.none", NOT_FOUND;
    /// The route asks for a known consumer.
    ConsumerUnknown = "consumer.unknown", UNAUTHORIZED;
    /// The consumer is over its rate.
    RateExceeded = "rate.exceeded", TOO_MANY_REQUESTS;
    /// The consumer has used up its quota of this hour.
    QuotaHour = "quota.hour", TOO_MANY_REQUESTS;
    /// The consumer has used up its quota of this day.
    QuotaDay = "quota.day", TOO_MANY_REQUESTS;
    /// The consumer has used up its quota of this month.
    QuotaMonth = "quota.month", TOO_MANY_REQUESTS;
    /// Only a cached answer was wanted and there is none (RFC 9111 section 5.2.1.7).
    CacheOnly = "cache.only_if_cached", GATEWAY_TIMEOUT;
    /// The queue before the upstream is full.
    QueueFull = "queue.full", SERVICE_UNAVAILABLE;
    /// The request waited for a slot as long as it may, or left a queue that stood too long.
    QueueTimeout = "queue.timeout", SERVICE_UNAVAILABLE;
    /// The wait for a slot would be longer than the request may wait.
    QueueHopeless = "queue.hopeless", SERVICE_UNAVAILABLE;
    /// Nothing is sent to the upstream at present: it is in park.
    GearPark = "gear.park", SERVICE_UNAVAILABLE;
    /// The upstream limps; only more urgent requests are sent to it at present.
    GearLimp = "gear.limp", SERVICE_UNAVAILABLE;
    /// The upstream takes no writes during the present window.
    WindowWrites = "window.writes", SERVICE_UNAVAILABLE;
    /// The breaker of the upstream is open.
    BreakerOpen = "breaker.open", SERVICE_UNAVAILABLE;
    /// No endpoint of the upstream is available.
    UpstreamNone = "upstream.none", SERVICE_UNAVAILABLE;
    /// The upstream could not be connected to.
    UpstreamConnect = "upstream.connect", BAD_GATEWAY;
    /// The TLS handshake with the upstream failed.
    UpstreamTls = "upstream.tls", BAD_GATEWAY;
    /// The upstream closed or reset the connection before it answered.
    UpstreamReset = "upstream.reset", BAD_GATEWAY;
    /// The upstream's answer breaks the protocol.
    UpstreamProtocol = "upstream.protocol", BAD_GATEWAY;
    /// The upstream answered with an error, and something else stands in.
    UpstreamStatus = "upstream.status", BAD_GATEWAY;
    /// The upstream's answer is not what the route expects.
    UpstreamUnexpected = "upstream.unexpected", BAD_GATEWAY;
    /// Connecting to the upstream took too long.
    UpstreamConnectTimeout = "upstream.connect_timeout", GATEWAY_TIMEOUT;
    /// The upstream did not begin to answer in time.
    UpstreamTimeout = "upstream.timeout", GATEWAY_TIMEOUT;
    /// The time its caller gave the request is over.
    DeadlineExceeded = "deadline.exceeded", GATEWAY_TIMEOUT;
    /// The program vaxel is part of refuses the request, in its own words.
    Hook = "hook", FORBIDDEN;
    /// Something in vaxel itself broke; the log has the details.
    Internal = "internal", INTERNAL_SERVER_ERROR;
}

impl Reason {
    /// Whether it is the upstream that cannot answer now: another one may.
    pub const fn is_of_the_upstream(self) -> bool {
        matches!(
            self,
            Self::QueueFull
                | Self::QueueTimeout
                | Self::QueueHopeless
                | Self::GearPark
                | Self::GearLimp
                | Self::BreakerOpen
                | Self::UpstreamNone
                | Self::UpstreamConnect
                | Self::UpstreamTls
                | Self::UpstreamReset
                | Self::UpstreamProtocol
                | Self::UpstreamStatus
                | Self::UpstreamUnexpected
                | Self::UpstreamConnectTimeout
                | Self::UpstreamTimeout
        )
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_programs_own_words_are_checked() {
        let check = |status: u16, code: &'static str| {
            Denial::new(StatusCode::from_u16(status).unwrap(), code, "No.").map(|denial| denial.code)
        };
        assert_eq!(check(403, "licence.expired_2"), Ok("licence.expired_2"));
        assert_eq!(check(200, "fine"), Err(DenialError::Status(StatusCode::OK)));
        for code in ["", "Licence", "licence expired", "licence\"", "l".repeat(65).leak()] {
            assert_eq!(check(403, code), Err(DenialError::Code(code)));
        }
        assert_eq!(check(503, "queue.full"), Err(DenialError::Taken("queue.full")));
        assert_eq!(check(403, "hook"), Err(DenialError::Taken("hook")));
    }

    #[test]
    fn codes_are_unique_and_sentences_end() {
        let codes: HashSet<_> = Reason::ALL.iter().map(|reason| reason.code()).collect();
        assert_eq!(codes.len(), Reason::ALL.len());
        for reason in Reason::ALL {
            assert!(reason.status().is_client_error() || reason.status().is_server_error());
            assert!(reason.sentence().ends_with('.'), "{reason:?}");
            let part = reason.code().split('.').next().unwrap_or_default();
            assert_eq!(
                reason.is_of_the_upstream(),
                ["queue", "gear", "breaker", "upstream"].contains(&part),
                "{reason:?}"
            );
        }
    }
}
