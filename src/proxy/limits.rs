//! What a client is told of its rates and quotas: the fields and the problem type of
//! draft-ietf-httpapi-ratelimit-headers-11.
//!
//! ```text
//! RateLimit-Policy: "consumer";q=200;w=1;qu="requests"      a line for each policy; a list may be split (section 3)
//! RateLimit-Policy: "day";q=100000;w=86400;qu="requests"
//! RateLimit: "consumer";r=199;t=1
//! RateLimit: "day";r=99312;t=40512
//! ```
//! Older clients know X-RateLimit-Limit, -Remaining and -Reset, of which no standard says what they mean. Here they tell of
//! one limit, the one that binds first (the one that is over, or has the fewest left): what it has room for, what is left
//! of that, and the seconds until it is whole again, as Envoy, Kong and APISIX have it.
//!
//! - Beside a Retry-After only what is over is told: it must not name a time before the end of a window that is shown
//!   (section 6).
//! - What an upstream says of limits of its own stays as it is (section 7.2); ours stand after it.

use bytes::BytesMut;
use http::{HeaderMap, HeaderName, header};

use super::exchange::Exchange;
use super::respond::seconds_up;
use super::snapshot::Rate;
use crate::message::short::{Short, Text};
use crate::throttle::quota::Counted;
use crate::throttle::rate::Rated;

/// The problem type of a refusal for a rate or quota, and its title (section 10.2.1).
pub(super) const EXCEEDED: (&str, &str) =
    ("https://iana.org/assignments/http-problem-types#quota-exceeded", "Quota Exceeded");

/// By which fields a client is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Told {
    ratelimit: bool,
    x_ratelimit: bool,
}

impl Told {
    /// RateLimit and RateLimit-Policy.
    pub const RATELIMIT: Self = Self { ratelimit: true, x_ratelimit: false };
    /// X-RateLimit-Limit, -Remaining and -Reset.
    pub const X_RATELIMIT: Self = Self { ratelimit: false, x_ratelimit: true };
    /// Both.
    pub const BOTH: Self = Self { ratelimit: true, x_ratelimit: true };
    /// None.
    pub const NOTHING: Self = Self { ratelimit: false, x_ratelimit: false };
}

impl Default for Told {
    /// What is on the way to be the standard.
    fn default() -> Self {
        Self::RATELIMIT
    }
}

/// Tells how the request stands with everything that limits its consumer.
pub(super) fn fields(exchange: &Exchange, headers: &mut HeaderMap) {
    let said = Said::by(headers);
    tell(exchange, said, |name, value| match value {
        Value::Policy(_, Some(rate)) => drop(headers.append(name, rate.policy.clone())),
        value => {
            let mut text = Short::default();
            value.write(&mut text);
            headers.extend(text.value().map(|value| (name, value)));
        }
    });
}

/// The same as lines, beside what an answer has `said`.
pub(super) fn lines(exchange: &Exchange, said: Said, to: &mut BytesMut) {
    tell(exchange, said, |name, value| {
        match value {
            Value::Policy(_, Some(rate)) => {
                to.text(&rate.lines.0);
                return;
            }
            Value::Stand(limit, Some(rate)) => limit.stand(to.text(&rate.lines.1)),
            value => {
                to.text(name.as_str()).text(": ");
                value.write(to);
            }
        }
        to.text("\r\n");
    });
}

/// What [`lines`] says of a rate as it always is: the line of its `policy`, and how the other one begins.
pub(crate) fn known_lines(name: &str, policy: &str) -> (Box<str>, Box<str>) {
    let line = format!("{RATELIMIT_POLICY}: {policy}\r\n");
    (line.into(), format!("{RATELIMIT}: \"{name}\";r=").into())
}

/// What the fields of an answer say of limits already.
#[derive(Debug, Clone, Copy)]
pub(super) struct Said {
    /// When to come back.
    retry_after: bool,
    /// How its consumer stands with the upstream's own.
    x_limit: bool,
}

impl Said {
    /// What `headers` say.
    pub(super) fn by(headers: &HeaderMap) -> Self {
        // Names are compared faster than looked up, and there are few.
        let has = |wanted: &HeaderName| headers.keys().any(|name| name == wanted);
        Self { retry_after: has(&header::RETRY_AFTER), x_limit: has(&X_LIMIT) }
    }
}

/// The value of a field.
enum Value<'a> {
    /// Of a rate, it is always the same.
    Policy(&'a Limit, Option<&'a Rate>),
    Stand(&'a Limit, Option<&'a Rate>),
    Number(u64),
}

impl Value<'_> {
    fn write(&self, to: &mut impl Text) {
        match self {
            Self::Policy(limit, _) => policy(to, limit.name, limit.room, limit.window),
            Self::Stand(limit, _) => limit.stand(to.text("\"").text(limit.name).text("\";r=")),
            Self::Number(number) => drop(to.number(*number)),
        }
    }
}

fn tell(exchange: &Exchange, said: Said, mut to: impl FnMut(HeaderName, Value<'_>)) {
    let told = exchange.snapshot.told;
    if told.ratelimit {
        each_limit(exchange, |limit, rate| {
            to(RATELIMIT_POLICY, Value::Policy(&limit, rate));
            if limit.is_over || !said.retry_after {
                to(RATELIMIT, Value::Stand(&limit, rate));
            }
        });
    }
    // The upstream's own stay as they are; two of one of these could not be told apart.
    if told.x_ratelimit && !said.x_limit {
        let mut binding: Option<Limit> = None;
        let rank = |limit: &Limit| (!limit.is_over, limit.remaining);
        each_limit(exchange, |limit, _| {
            if binding.as_ref().is_none_or(|binding| rank(&limit) < rank(binding)) {
                binding = Some(limit);
            }
        });
        if let Some(limit) = binding {
            for (name, number) in [(X_LIMIT, limit.room), (X_REMAINING, limit.remaining), (X_RESET, limit.reset)] {
                to(name, Value::Number(number));
            }
        }
    }
}

/// How a request stands with one limit of its consumer.
struct Limit {
    name: &'static str,
    is_over: bool,
    /// Requests it has room for.
    room: u64,
    remaining: u64,
    /// Seconds until it is whole again, or has room for the request that is over it.
    reset: u64,
    /// Seconds in which it has that room.
    window: u64,
}

/// Hands over everything that limits the consumer and counts, and its rate where it is one.
fn each_limit(exchange: &Exchange, mut to: impl FnMut(Limit, Option<&Rate>)) {
    if let (Some(rated), Some(rate)) = (&exchange.own, &exchange.caller().0.rate) {
        to(Limit::of_rate(CONSUMER, rated, rate), Some(rate));
    }
    if let (Some(rated), Some(rate)) = (&exchange.rated, exchange.route().and_then(|route| route.rate.as_ref())) {
        to(Limit::of_rate(ROUTE, rated, rate), Some(rate));
    }
    // What only counts is not told.
    for quota in exchange.quotas.iter().flatten().filter(|quota| quota.mode.counts()) {
        to(Limit::of_quota(quota), None);
    }
}

impl Limit {
    fn of_rate(name: &'static str, rated: &Rated, rate: &Rate) -> Self {
        Self {
            name,
            is_over: !rated.allowed,
            room: rate.limiter.burst().into(),
            remaining: rated.remaining.into(),
            reset: seconds_up(if rated.allowed { rated.reset } else { rated.retry_after }),
            window: 0,
        }
    }

    /// Writes how the consumer stands.
    fn stand(&self, to: &mut impl Text) {
        to.number(self.remaining).text(";t=").number(self.reset);
    }

    fn of_quota(quota: &Counted) -> Self {
        Self {
            name: quota.per.word(),
            is_over: !quota.allowed,
            room: quota.limit,
            remaining: quota.remaining(),
            reset: seconds_up(quota.reset),
            window: quota.length.as_secs(),
        }
    }
}

/// The names of the policies that a request is beyond.
pub(super) fn violated(exchange: &Exchange) -> impl Iterator<Item = &'static str> {
    let rates = [(CONSUMER, &exchange.own), (ROUTE, &exchange.rated)].into_iter();
    let rates = rates.filter(|(_, rated)| rated.is_some_and(|rated| !rated.allowed)).map(|(name, _)| name);
    let quotas = exchange.quotas.iter().flatten().filter(|quota| quota.refuses()).map(|quota| quota.per.word());
    rates.chain(quotas)
}

/// Writes a policy: `quota` requests in every `window` seconds.
pub(crate) fn policy(to: &mut impl Text, name: &str, quota: u64, window: u64) {
    to.text("\"").text(name).text("\";q=").number(quota).text(";w=").number(window).text(";qu=\"requests\"");
}

/// What a consumer's rate is called.
pub(crate) const CONSUMER: &str = "consumer";
/// What a route's rate is called.
pub(crate) const ROUTE: &str = "route";
const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const X_LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const X_REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const X_RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");
