//! Whether and when to try again: [`decide`], with a [`budget`] against multiplied outages and a [`backoff`].
//!
//! An attempt is repeated only if **all** of this holds:
//!
//! - it is safe: the method is idempotent (RFC 9110 section 9.2.2), or nothing of the request reached the backend. A
//!   POST that may have arrived is never repeated, whatever the failure;
//! - the body can be sent again;
//! - repeating it makes sense (see [`Ended`]);
//! - a try, the budget and the time are left: the wait ends before the deadline, and is at least the backend's
//!   Retry-After.
//!
//! One kind of repetition is no retry but the repair of a race: a connection out of the pool that the peer closed just
//! as it was used (RFC 9112 section 9.3.1). It comes at once, once per request, on a new connection, and costs no try
//! and no budget, because it says nothing of the backend's health. The same safety applies.

use std::time::{Duration, Instant};

use http::Method;

use crate::outcome::{Failure, FailureKind, Outcome, Stage};

pub mod backoff;
pub mod budget;

use budget::Budget;

/// How often and how soon to try again. The defaults are for one small legacy backend.
#[derive(Debug, Clone, PartialEq)]
pub struct RetryParams {
    /// Tries in all, the first included; 1 means no retries.
    pub attempts: u32,
    /// Retries allowed as a share of the requests (0 to 1), so that retries can never multiply an outage.
    pub budget_ratio: f64,
    /// Retries per second allowed in any case, so that a quiet upstream may retry at all.
    pub budget_min_per_second: f64,
    /// The upper end of the first wait; doubles with each retry.
    pub backoff: Duration,
    /// The longest wait.
    pub backoff_max: Duration,
}

impl RetryParams {
    /// One attempt only.
    pub const NEVER: Self = Self {
        attempts: 1,
        budget_ratio: 0.1,
        budget_min_per_second: 0.1,
        backoff: Duration::from_millis(100),
        backoff_max: Duration::from_secs(2),
    };
}

impl Default for RetryParams {
    fn default() -> Self {
        Self { attempts: 2, ..Self::NEVER }
    }
}

/// How the attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// With an answer. It is repeated when *broken*; when *overloaded* only if the backend said when to come back,
    /// since more load is what it asked not to get.
    Answer {
        /// What the answer means.
        outcome: Outcome,
        /// Its Retry-After, from now.
        retry_after: Option<Duration>,
    },
    /// Without one. Not repeated: what the client did; a timeout after the request was sent (the backend is still at
    /// work on it, a copy would take a second slot); an answer that breaks the protocol (it would again); and a body
    /// that broke off (the client has read its beginning).
    Failure(Failure),
}

/// What the decision is about: one request after an attempt.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// The method of the request.
    pub method: &'a Method,
    /// The body can be sent again from its beginning: it is empty, held whole in memory, or not begun.
    pub replayable: bool,
    /// How the attempt ended.
    pub ended: Ended,
    /// The time until the deadline of the request; `None`: it has none.
    pub time_left: Option<Duration>,
}

/// What one request has tried so far. One per request, kept across its attempts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tries {
    /// Retries that were granted.
    retries: u32,
    /// The one repetition after a stale connection was used.
    repaired: bool,
}

impl Tries {
    /// The attempts that were made or granted, the first included.
    pub const fn attempts(self) -> u32 {
        1 + self.retries + self.repaired as u32
    }
}

/// How to try again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Again {
    /// How long to wait before. A slot should not be held meanwhile.
    pub wait: Duration,
    /// Take a new connection, not one from the pool: the others there are as old as the stale one.
    pub fresh_connection: bool,
}

/// Whether to try again, and how. Takes the retry out of the budget and notes it in `tries` if so. `drawn` is a number
/// drawn from all of `u64`.
pub fn decide(
    params: &RetryParams,
    tries: &mut Tries,
    question: &Question<'_>,
    budget: &mut Budget,
    now: Instant,
    drawn: u64,
) -> Option<Again> {
    let time_left = question.time_left.unwrap_or(Duration::MAX);
    if !question.replayable || time_left.is_zero() || !is_safe(question) {
        return None;
    }
    if is_stale_connection(question.ended) && !tries.repaired {
        tries.repaired = true;
        return Some(Again { wait: Duration::ZERO, fresh_connection: true });
    }
    let at_least = earliest(question.ended)?;
    let retry = tries.retries + 1;
    let wait = backoff::full_jitter(retry, params.backoff, params.backoff_max, drawn).max(at_least);
    // The budget last: what it grants is used.
    if retry >= params.attempts || wait >= time_left || !budget.withdraw(now) {
        return None;
    }
    tries.retries = retry;
    Some(Again { wait, fresh_connection: is_stale_connection(question.ended) })
}

/// Whether a second copy of the request can do no harm.
fn is_safe(question: &Question<'_>) -> bool {
    let unsent = matches!(question.ended, Ended::Failure(failure) if !failure.sent);
    unsent || question.method.is_idempotent()
}

/// A pooled connection that was closed before a byte of the answer came.
fn is_stale_connection(ended: Ended) -> bool {
    matches!(ended, Ended::Failure(failure) if failure.reused
        && failure.kind == FailureKind::Reset
        && matches!(failure.stage, Stage::Send | Stage::Head))
}

/// The earliest time from now at which a repetition makes sense; `None`: never.
fn earliest(ended: Ended) -> Option<Duration> {
    match ended {
        Ended::Answer { outcome: Outcome::Broken, retry_after } => Some(retry_after.unwrap_or_default()),
        Ended::Answer { outcome: Outcome::Overloaded, retry_after } => retry_after,
        Ended::Answer { outcome: Outcome::Ok | Outcome::Business | Outcome::Ignored, .. } => None,
        Ended::Failure(failure) => {
            let again = match failure.kind {
                FailureKind::Refused
                | FailureKind::Unreachable
                | FailureKind::ConnectTimeout
                | FailureKind::Tls
                | FailureKind::Reset => true,
                FailureKind::HeadTimeout => !failure.sent,
                FailureKind::TotalTimeout
                | FailureKind::Protocol
                | FailureKind::BodyBroken
                | FailureKind::RequestBody
                | FailureKind::ClientGone => false,
            };
            (again && failure.stage != Stage::Body).then_some(Duration::ZERO)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock::Clock;

    const SECOND: Duration = Duration::from_secs(1);
    const GET: &Question<'static> = &Question {
        method: &Method::GET,
        replayable: true,
        ended: Ended::Answer { outcome: Outcome::Broken, retry_after: None },
        time_left: Some(SECOND),
    };
    const POST: &Question<'static> = &Question { method: &Method::POST, ..*GET };

    fn params() -> RetryParams {
        RetryParams { attempts: 3, budget_ratio: 1.0, ..RetryParams::default() }
    }

    fn rich(now: Instant) -> Budget {
        Budget::new(1.0, 100.0, now)
    }

    /// The answer to the first question of a request, with the longest wait that can be drawn.
    fn ask(question: &Question<'_>) -> Option<Again> {
        let now = Clock::system().now();
        decide(&params(), &mut Tries::default(), question, &mut rich(now), now, u64::MAX)
    }

    fn failure(kind: FailureKind, stage: Stage, sent: bool) -> Ended {
        Ended::Failure(Failure { kind, stage, sent, reused: false })
    }

    fn stale(sent: bool) -> Ended {
        let stage = if sent { Stage::Head } else { Stage::Send };
        Ended::Failure(Failure { kind: FailureKind::Reset, stage, sent, reused: true })
    }

    fn answer(outcome: Outcome, retry_after: Option<Duration>) -> Ended {
        Ended::Answer { outcome, retry_after }
    }

    #[test]
    fn an_attempt_is_repeated_only_where_that_is_safe_and_makes_sense() {
        use FailureKind::{
            BodyBroken, ClientGone, ConnectTimeout, HeadTimeout, Protocol, Refused, RequestBody, Reset, Tls,
            TotalTimeout, Unreachable,
        };
        // How it ended, whether a GET and whether a POST is repeated.
        let table = [
            (failure(Refused, Stage::Connect, false), true, true),
            (failure(Unreachable, Stage::Connect, false), true, true),
            (failure(ConnectTimeout, Stage::Connect, false), true, true),
            (failure(Tls, Stage::Tls, false), true, true),
            (failure(Reset, Stage::Send, false), true, true),
            (failure(Reset, Stage::Send, true), true, false),
            (failure(Reset, Stage::Head, true), true, false),
            (failure(HeadTimeout, Stage::Head, true), false, false),
            (failure(TotalTimeout, Stage::Head, true), false, false),
            (failure(Protocol, Stage::Head, true), false, false),
            (failure(Reset, Stage::Body, true), false, false),
            (failure(BodyBroken, Stage::Body, true), false, false),
            (failure(RequestBody, Stage::Send, false), false, false),
            (failure(ClientGone, Stage::Connect, false), false, false),
            (answer(Outcome::Ok, None), false, false),
            (answer(Outcome::Business, None), false, false),
            (answer(Outcome::Ignored, None), false, false),
            (answer(Outcome::Broken, None), true, false),
            (answer(Outcome::Overloaded, None), false, false),
            (answer(Outcome::Overloaded, Some(SECOND / 2)), true, false),
        ];
        for (ended, get, post) in table {
            assert_eq!(ask(&Question { ended, ..*GET }).is_some(), get, "GET {ended:?}");
            assert_eq!(ask(&Question { ended, ..*POST }).is_some(), post, "POST {ended:?}");
            assert_eq!(ask(&Question { ended, replayable: false, ..*GET }), None, "the body is gone: {ended:?}");
            assert_eq!(ask(&Question { ended, time_left: Some(Duration::ZERO), ..*GET }), None, "too late: {ended:?}");
        }
    }

    #[test]
    fn only_idempotent_methods_are_repeated_after_an_answer() {
        let table = [
            ("GET", true),
            ("HEAD", true),
            ("OPTIONS", true),
            ("PUT", true),
            ("DELETE", true),
            ("POST", false),
            ("PATCH", false),
            ("MERGE", false),
        ];
        for (name, expected) in table {
            let method = Method::from_bytes(name.as_bytes()).unwrap();
            assert_eq!(ask(&Question { method: &method, ..*GET }).is_some(), expected, "{name}");
        }
    }

    #[test]
    fn a_stale_connection_is_repaired_once_at_once_and_free_of_charge() {
        for (method, sent, expected) in
            [(Method::GET, true, true), (Method::POST, false, true), (Method::POST, true, false)]
        {
            let now = Clock::system().now();
            let (mut none, mut tries) = (Budget::new(0.0, 0.0, now), Tries::default());
            let no_retries = RetryParams { attempts: 1, ..params() };
            let question = Question { method: &method, ended: stale(sent), ..*GET };
            let mut again = || decide(&no_retries, &mut tries, &question, &mut none, now, u64::MAX);
            let repair = Again { wait: Duration::ZERO, fresh_connection: true };
            assert_eq!(again(), expected.then_some(repair), "{method} sent: {sent}");
            assert_eq!(again(), None, "once");
            assert_eq!(tries.attempts(), 1 + u32::from(expected));
        }
    }

    #[test]
    fn a_second_stale_connection_is_a_failure_like_any_other() {
        let now = Clock::system().now();
        let mut tries = Tries::default();
        let question = Question { ended: stale(true), ..*GET };
        let mut again = || decide(&params(), &mut tries, &question, &mut rich(now), now, u64::MAX);
        assert_eq!(again().map(|again| again.wait), Some(Duration::ZERO));
        assert_eq!(again(), Some(Again { wait: params().backoff, fresh_connection: true }));
    }

    #[test]
    fn the_backend_says_how_long_to_wait() {
        for outcome in [Outcome::Broken, Outcome::Overloaded] {
            let wait = |seconds| {
                let ended = answer(outcome, Some(Duration::from_millis(seconds)));
                ask(&Question { ended, ..*GET }).map(|again| again.wait.as_millis())
            };
            assert_eq!(wait(500), Some(500), "longer than the backoff");
            assert_eq!(wait(10), Some(100), "shorter than the backoff");
            assert_eq!(wait(1000), None, "the deadline comes first");
        }
    }

    #[test]
    fn without_a_deadline_any_wait_fits() {
        let ended = answer(Outcome::Overloaded, Some(3600 * SECOND));
        assert!(ask(&Question { ended, time_left: None, ..*GET }).is_some());
    }

    #[test]
    fn the_tries_end() {
        let now = Clock::system().now();
        for attempts in 0..5 {
            let (params, mut tries) = (RetryParams { attempts, ..params() }, Tries::default());
            let granted =
                (0..10).filter(|_| decide(&params, &mut tries, GET, &mut rich(now), now, 0).is_some()).count();
            assert_eq!(granted as u32, attempts.saturating_sub(1), "{attempts} attempts");
        }
    }

    #[test]
    fn a_refused_retry_costs_no_budget() {
        let now = Clock::system().now();
        let mut one = Budget::new(0.0, 0.1, now);
        let hasty = Question { time_left: Some(params().backoff), ..*GET };
        let mut again = |question| decide(&params(), &mut Tries::default(), question, &mut one, now, u64::MAX);
        assert_eq!(again(&hasty), None, "the wait is too long");
        assert_eq!(again(POST), None);
        assert!(again(GET).is_some());
        assert_eq!(again(GET), None, "now it is used up");
    }

    proptest! {
        #[test]
        fn a_post_that_may_have_arrived_is_never_repeated(
            kind in prop::sample::select(vec![
                FailureKind::Refused, FailureKind::Unreachable, FailureKind::ConnectTimeout, FailureKind::Tls,
                FailureKind::HeadTimeout, FailureKind::TotalTimeout, FailureKind::Reset, FailureKind::Protocol,
                FailureKind::BodyBroken, FailureKind::RequestBody, FailureKind::ClientGone,
            ]),
            stage in prop::sample::select(vec![Stage::Connect, Stage::Tls, Stage::Send, Stage::Head, Stage::Body]),
            reused in any::<bool>(),
            outcome in prop::sample::select(Outcome::ALL.to_vec()),
            retry_after in prop::option::of((0_u64..2000).prop_map(Duration::from_millis)),
        ) {
            let failed = Ended::Failure(Failure { kind, stage, sent: true, reused });
            for ended in [failed, Ended::Answer { outcome, retry_after }] {
                prop_assert_eq!(ask(&Question { ended, ..*POST }), None);
            }
        }
    }
}
