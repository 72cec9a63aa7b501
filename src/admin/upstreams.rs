//! The upstreams over the admin listener: `GET /upstreams`, `POST /gear`, `POST /breaker`.

use std::time::Duration;

use http::StatusCode;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::{AdminSource, JSON, Reply, answer, problem};
use crate::breaker::Hold;
use crate::gateway::steer::Steer;
use crate::gear::Gear;

/// The body of `POST /gear`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct GearOrder {
    upstream: String,
    /// A gear to hold; none lets go.
    #[serde(default)]
    gear: Option<String>,
    /// How long, as in `30m`.
    #[serde(default, rename = "for")]
    span: Option<String>,
}

/// The body of `POST /breaker`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct BreakerOrder {
    upstream: String,
    /// `open` or `closed`; none lets go.
    #[serde(default)]
    hold: Option<String>,
}

/// Holds a gear, or lets go.
pub(super) fn gear(source: &dyn AdminSource, body: &[u8]) -> Reply {
    let read = order(body, r#"{"upstream": "erp", "gear": "park", "for": "30m"}"#);
    act(source, read.and_then(|order: GearOrder| Ok((order.steer()?, order.upstream))))
}

/// Holds a breaker, or lets go.
pub(super) fn breaker(source: &dyn AdminSource, body: &[u8]) -> Reply {
    let read = order(body, r#"{"upstream": "erp", "hold": "open"}"#);
    act(source, read.and_then(|order: BreakerOrder| Ok((order.steer()?, order.upstream))))
}

fn order<T: DeserializeOwned>(body: &[u8], example: &str) -> Result<T, String> {
    serde_json::from_slice(body)
        .map_err(|error| format!("The body is no order: {error}. It is JSON, such as {example}."))
}

fn act(source: &dyn AdminSource, order: Result<(Steer, String), String>) -> Reply {
    match order {
        Ok((steer, upstream)) => match source.steer(&upstream, steer) {
            Ok(()) => answer(StatusCode::OK, JSON, format!("{}\n", json!({ "upstream": upstream, "done": true }))),
            Err(mistake) => problem(StatusCode::UNPROCESSABLE_ENTITY, &mistake),
        },
        Err(mistake) => problem(StatusCode::BAD_REQUEST, &mistake),
    }
}

impl GearOrder {
    fn steer(&self) -> Result<Steer, String> {
        let Some(word) = &self.gear else {
            return if self.span.is_none() {
                Ok(Steer::ReleaseGear)
            } else {
                Err("`for` goes with a `gear`.".to_owned())
            };
        };
        let known = Gear::ALL.into_iter().find(|gear| gear.code() == word);
        let gear = known.ok_or_else(|| format!("{word} is no gear: drive, eco, limp, park."))?;
        let written = self.span.as_deref().unwrap_or(HOLD);
        let span = humantime::parse_duration(written).map_err(|error| format!("{written} is no duration: {error}."))?;
        if span > LONGEST { Err("A hold ends within a week.".to_owned()) } else { Ok(Steer::Gear(gear, span)) }
    }
}

impl BreakerOrder {
    fn steer(&self) -> Result<Steer, String> {
        match self.hold.as_deref() {
            Some("open") => Ok(Steer::Breaker(Hold::Open)),
            Some("closed") => Ok(Steer::Breaker(Hold::Closed)),
            None => Ok(Steer::ReleaseBreaker),
            Some(word) => Err(format!("{word} is no hold: open, closed, or none to let go.")),
        }
    }
}

/// A hold that is forgotten must not last for ever.
const HOLD: &str = "1h";
const LONGEST: Duration = Duration::from_secs(7 * 86_400);
