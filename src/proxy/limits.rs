//! What a client is told of its rates and quotas: the fields and the problem type of
//! draft-ietf-httpapi-ratelimit-headers-11.
//!
//! ```text
//! RateLimit-Policy: "consumer";q=200;w=1;qu="requests"      a line for each policy; a list may be split (section 3)
//! RateLimit-Policy: "day";q=100000;w=86400;qu="requests"
//! RateLimit: "consumer";r=199;t=1
//! RateLimit: "day";r=99312;t=40512
//! ```
//! - Beside a Retry-After only what is over is told: it must not name a time before the end of a window that is shown
//!   (section 6).
//! - What an upstream says of limits of its own stays as it is (section 7.2); ours stand after it.

use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::exchange::Exchange;
use super::respond::seconds_up;
use crate::message::short::Short;
use crate::throttle::quota::Counted;
use crate::throttle::rate::Rated;

/// The problem type of a refusal for a rate or quota, and its title (section 10.2.1).
pub(super) const EXCEEDED: (&str, &str) =
    ("https://iana.org/assignments/http-problem-types#quota-exceeded", "Quota Exceeded");

/// Tells how the request stands with everything that limits its consumer.
pub(super) fn fields(exchange: &Exchange, headers: &mut HeaderMap) {
    let caller = exchange.caller().0;
    let route = exchange.route().and_then(|route| route.rate.as_ref());
    let told = Told { only_over: headers.contains_key(header::RETRY_AFTER) };
    if let (Some(rated), Some(rate)) = (&exchange.own, &caller.rate) {
        told.rate(headers, CONSUMER, rated, &rate.policy);
    }
    if let (Some(rated), Some(rate)) = (&exchange.rated, route) {
        told.rate(headers, ROUTE, rated, &rate.policy);
    }
    for quota in exchange.quotas.iter().flatten() {
        told.quota(headers, quota);
    }
}

/// The names of the policies that a request is beyond.
pub(super) fn violated(exchange: &Exchange) -> impl Iterator<Item = &'static str> {
    let rates = [(CONSUMER, &exchange.own), (ROUTE, &exchange.rated)].into_iter();
    let rates = rates.filter(|(_, rated)| rated.is_some_and(|rated| !rated.allowed)).map(|(name, _)| name);
    let quotas = exchange.quotas.iter().flatten().filter(|quota| !quota.allowed).map(|quota| quota.per.word());
    rates.chain(quotas)
}

struct Told {
    only_over: bool,
}

impl Told {
    fn rate(&self, headers: &mut HeaderMap, name: &str, rated: &Rated, policy: &HeaderValue) {
        headers.append(RATELIMIT_POLICY, policy.clone());
        let window = if rated.allowed { rated.reset } else { rated.retry_after };
        self.limit(headers, name, rated.allowed, rated.remaining.into(), seconds_up(window));
    }

    fn quota(&self, headers: &mut HeaderMap, quota: &Counted) {
        append(headers, RATELIMIT_POLICY, &policy(quota.per.word(), quota.limit, quota.length.as_secs()));
        self.limit(headers, quota.per.word(), quota.allowed, quota.remaining(), seconds_up(quota.reset));
    }

    fn limit(&self, headers: &mut HeaderMap, name: &str, allowed: bool, remaining: u64, reset: u64) {
        if !allowed || !self.only_over {
            let mut text = Short::default();
            text.text("\"").text(name).text("\";r=").number(remaining).text(";t=").number(reset);
            append(headers, RATELIMIT, &text);
        }
    }
}

/// A policy: `quota` requests in every `window` seconds.
pub(crate) fn policy(name: &str, quota: u64, window: u64) -> Short {
    let mut text = Short::default();
    text.text("\"").text(name).text("\";q=").number(quota).text(";w=").number(window).text(";qu=\"requests\"");
    text
}

fn append(headers: &mut HeaderMap, name: HeaderName, text: &Short) {
    headers.extend(text.value().map(|value| (name, value)));
}

/// What a consumer's rate is called.
pub(crate) const CONSUMER: &str = "consumer";
/// What a route's rate is called.
pub(crate) const ROUTE: &str = "route";
const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
