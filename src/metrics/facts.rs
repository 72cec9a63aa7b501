//! What one finished exchange was, in the words that the counters, the histograms and the access log share.
//!
//! The proxy writes the facts once, when the response body has ended; everything that reports reads the same facts,
//! so that a graph and a log line can never disagree.

use std::time::{Duration, SystemTime};

use http::{Method, StatusCode};

use crate::message::trace::TraceId;
use crate::refusal::Reason;

/// The facts of one finished exchange.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The method the client used.
    pub method: &'a Method,
    /// The status the client was given, or would have been given had it stayed.
    pub status: StatusCode,
    /// What the cache did.
    pub cache: CacheResult,
    /// Why vaxel answered by itself, if it did.
    pub reason: Option<Reason>,
    /// From the request's head until the last byte of the response body.
    pub duration: Duration,
    /// How long a rate held it back; `None` if none did.
    pub delayed: Option<Duration>,
    /// Time spent with the upstream, all attempts together; `None` if it was not asked.
    pub upstream_time: Option<Duration>,
    /// Time spent waiting for a slot; `None` if none was asked for.
    pub queued: Option<Duration>,
    /// Bytes of the request's body.
    pub request_bytes: u64,
    /// Bytes of the response's body.
    pub response_bytes: u64,
    /// Attempts made upstream.
    pub attempts: u32,
    /// How the response's body ended.
    pub ending: Ending,
    /// The trace it belongs to, if its caller records it.
    pub traced: Option<Traced>,
}

/// How the body of a response ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ending {
    /// All of it was handed to the connection.
    Whole,
    /// The client left before.
    Aborted,
    /// The upstream's part of it broke off, and the client's was broken off as well.
    Broken,
}

/// A wait that a policy in shadow mode would have imposed, by the policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Wait {
    /// For its turn at a rate.
    Rate,
    /// For a slot.
    Queue,
}

impl Wait {
    /// Every one, in order.
    pub const ALL: [Self; 2] = [Self::Rate, Self::Queue];

    /// The stable word for metric labels.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::Queue => "queue",
        }
    }
}

/// A recorded trace, and when what is counted was in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traced {
    /// Which.
    pub trace: TraceId,
    /// When.
    pub at: SystemTime,
}

/// What the cache did for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum CacheResult {
    /// Answered from the store, fresh.
    Hit,
    /// Answered from the store, stale, while it is refreshed in the background (RFC 5861 section 3).
    Stale,
    /// Answered from the store, stale, because the upstream could not answer (RFC 5861 section 4).
    StaleError,
    /// Answered from the store after the upstream said that it is still good (RFC 9111 section 4.3).
    Revalidated,
    /// Not in the store; fetched.
    Miss,
    /// Not in the store; shared the answer to another request that was already being fetched.
    Collapsed,
    /// The route caches, but this request or its answer may not be shared.
    Pass,
    /// The request asked to go past the store.
    Bypass,
    /// The route does not cache, or the request was refused before the store was asked.
    Off,
}

impl CacheResult {
    /// Every result, in order.
    pub const ALL: [Self; 9] = [
        Self::Hit,
        Self::Stale,
        Self::StaleError,
        Self::Revalidated,
        Self::Miss,
        Self::Collapsed,
        Self::Pass,
        Self::Bypass,
        Self::Off,
    ];

    /// The stable word for logs and metric labels.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Stale => "stale",
            Self::StaleError => "stale_error",
            Self::Revalidated => "revalidated",
            Self::Miss => "miss",
            Self::Collapsed => "collapsed",
            Self::Pass => "pass",
            Self::Bypass => "bypass",
            Self::Off => "off",
        }
    }

    /// The latency class: who the client waited for.
    pub const fn pace(self) -> Pace {
        match self {
            Self::Hit | Self::Stale => Pace::Hit,
            Self::StaleError | Self::Revalidated | Self::Miss | Self::Collapsed => Pace::Miss,
            Self::Pass | Self::Bypass | Self::Off => Pace::Pass,
        }
    }
}

/// What a rule of the cache did beside answering: that a route caches less than one expects is seen here, with its cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum CacheEvent {
    /// An identity that the upstream has not let in of late was sent there (`shared_after_auth`).
    Unproven,
    /// The upstream turned away an identity that it had let in.
    Withdrawn,
    /// A 401 made an identity's own answers forgotten.
    Forgotten,
    /// An unsafe request outdated what is stored of the route's group.
    Invalidated,
    /// What was found is outdated.
    Outdated,
    /// An answer was not stored, for something was written while it came.
    Fenced,
    /// An answer was not what the route expects (`expect`).
    Unexpected,
}

impl CacheEvent {
    /// Every event, in order.
    pub const ALL: [Self; 7] = [
        Self::Unproven,
        Self::Withdrawn,
        Self::Forgotten,
        Self::Invalidated,
        Self::Outdated,
        Self::Fenced,
        Self::Unexpected,
    ];

    /// The stable word for logs and metric labels.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Unproven => "unproven",
            Self::Withdrawn => "withdrawn",
            Self::Forgotten => "forgotten",
            Self::Invalidated => "invalidated",
            Self::Outdated => "outdated",
            Self::Fenced => "fenced",
            Self::Unexpected => "unexpected",
        }
    }
}

/// Latencies are told apart only by whom the client waited for: a histogram for each [`CacheResult`] would cost three
/// times the series and say no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Pace {
    /// The store alone.
    Hit,
    /// The upstream, on behalf of the store.
    Miss,
    /// The upstream, or nobody.
    Pass,
}

impl Pace {
    /// Every class, in order.
    pub const ALL: [Self; 3] = [Self::Hit, Self::Miss, Self::Pass];

    /// The stable word for metric labels.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::Pass => "pass",
        }
    }
}

/// The label values of a method: the ones in common use, and [`OTHER`]. The client may not make up series.
pub const METHODS: [&str; 8] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", OTHER];

/// The label value of everything that is not in a closed set.
pub const OTHER: &str = "_other";

/// The label values of a status: its class (RFC 9110 section 15).
pub const CODES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// The place of `method` in [`METHODS`].
pub(super) fn method_index(method: &Method) -> usize {
    match *method {
        Method::GET => 0,
        Method::HEAD => 1,
        Method::POST => 2,
        Method::PUT => 3,
        Method::PATCH => 4,
        Method::DELETE => 5,
        Method::OPTIONS => 6,
        _ => METHODS.len() - 1,
    }
}

/// The place of `status` in [`CODES`]. A code past the five classes is an error of a kind nobody knows: 5xx
/// (RFC 9110 section 15 asks a recipient to treat it so).
pub(super) fn code_index(status: StatusCode) -> usize {
    match status.as_u16() {
        ..200 => 0,
        200..300 => 1,
        300..400 => 2,
        400..500 => 3,
        _ => 4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_falls_into_its_own_label_or_into_other() {
        for (index, name) in METHODS.iter().enumerate() {
            let method = Method::from_bytes(name.as_bytes()).unwrap();
            assert_eq!(method_index(&method), index, "{name}");
        }
        assert_eq!(METHODS[method_index(&Method::from_bytes(b"PROPFIND").unwrap())], OTHER);
        assert_eq!(METHODS[method_index(&Method::CONNECT)], OTHER);
    }

    #[test]
    fn a_status_falls_into_its_class_and_an_unknown_one_into_5xx() {
        for (status, class) in
            [(100, "1xx"), (204, "2xx"), (304, "3xx"), (499, "4xx"), (500, "5xx"), (599, "5xx"), (999, "5xx")]
        {
            assert_eq!(CODES[code_index(StatusCode::from_u16(status).unwrap())], class, "{status}");
        }
    }

    #[test]
    fn results_stand_in_the_order_of_their_number() {
        for (index, result) in CacheResult::ALL.into_iter().enumerate() {
            assert_eq!(result as usize, index);
        }
        for (index, pace) in Pace::ALL.into_iter().enumerate() {
            assert_eq!(pace as usize, index);
        }
    }
}
