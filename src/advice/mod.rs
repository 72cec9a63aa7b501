//! What an operator should do next, from what was seen of running traffic: facts in, findings out, each with its evidence
//! and, where there is one, the lines to paste. Pure.
//!
//! - [`digest`]: bodies as they stream by · [`sightings`]: what a cache would have made of the answers that pass
//! - [`thinning`]: how often what is asked for often is looked at · [`pulse`]: how many slots are needed
//! - [`storing`], [`capacity`], [`idle`]: the findings, by what they are about
//!
//! "Not enough traffic yet" is an answer: nothing is said on the ground of a few requests.

use std::fmt;
use std::time::Duration;

pub mod capacity;
pub mod digest;
pub mod idle;
pub mod pulse;
pub mod sightings;
pub mod storing;
pub mod thinning;

use pulse::Pulse;
use sightings::Told;

/// What is known of a running gateway.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// How long it was watched under this configuration.
    pub watched: Duration,
    /// Whether answers that pass are observed.
    pub observes: bool,
    /// Its routes.
    pub routes: Vec<RouteFacts>,
    /// Its upstreams.
    pub upstreams: Vec<UpstreamFacts>,
    /// Its consumers.
    pub consumers: Vec<ConsumerFacts>,
}

/// What is known of a route. Counts are since the start of the process, but for what was [`seen`](Self::seen).
#[derive(Debug, Clone, Default)]
pub struct RouteFacts {
    /// Its name.
    pub name: String,
    /// Where it leads.
    pub upstream: String,
    /// How it caches.
    pub caches: Caches,
    /// Finished requests.
    pub requests: u64,
    /// Those answered from the store, or with what came into it.
    pub stored: u64,
    /// Those that went past it though the route caches.
    pub passed: u64,
    /// Why answers were not stored, and how often that was found out.
    pub why: Vec<(&'static str, u64)>,
    /// How often its rate refused somebody; `None` if it has none, or one of which that is not known.
    pub rate: Option<u64>,
    /// What was seen of its answers that passed.
    pub seen: Told,
}

/// How a route caches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Caches {
    /// Not at all.
    #[default]
    No,
    /// With the defaults: what the origin allows.
    Plain,
    /// By keys of its own.
    Own,
}

/// What is known of an upstream.
#[derive(Debug, Clone, Default)]
pub struct UpstreamFacts {
    /// Its name.
    pub name: String,
    /// Slots in force, but for a lower gear or a ramp.
    pub slots: usize,
    /// What an adaptive limit finds right, whether that only suggests, and what it rests on.
    pub limit: Option<LimitFacts>,
    /// How busy it was, each second.
    pub pulse: Pulse,
    /// How long a slot is usually taken.
    pub typical: Option<Duration>,
    /// Slots given, since the start.
    pub granted: u64,
    /// Refused because of the queue, since the start.
    pub refused: u64,
    /// Answers, since the start.
    pub answers: u64,
    /// The slowest of their heads came within this time; `None`: it took longer than is counted.
    pub slowest: Option<Duration>,
    /// Attempts that a timeout ended, since the start.
    pub late: u64,
    /// How long it may take to connect.
    pub connect_timeout: Duration,
    /// How long it may take to the head of an answer.
    pub head_timeout: Duration,
    /// How long an exchange may take.
    pub total_timeout: Duration,
}

/// What an adaptive limit has found.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct LimitFacts {
    /// Slots it finds right.
    pub suggested: usize,
    /// Whether it is in shadow mode.
    pub shadow: bool,
    /// Answers its last look rested on.
    pub answers: u32,
    /// How many times their baseline they took.
    pub latency_ratio: f64,
}

/// What is known of a configured consumer.
#[derive(Debug, Clone, Default)]
pub struct ConsumerFacts {
    /// Its name.
    pub name: String,
    /// Its weight.
    pub weight: u32,
    /// Whether it may be told apart at all: everybody else is not configured.
    pub is_known: bool,
    /// Requests, served and refused.
    pub requests: u64,
    /// How often it was refused, for whatever reason; `None` if it has no rate, or one of which that says nothing.
    pub rate: Option<u64>,
    /// Requests it made while others waited.
    pub pressed_requests: u64,
    /// How long that was, in seconds that were looked at.
    pub pressed_seconds: u64,
    /// Backend time it had, and time it waited, in that while.
    pub pressed: Duration,
}

/// Something to do.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    /// What it is about.
    pub kind: Kind,
    /// The route, upstream or consumer.
    pub about: String,
    /// Slots of the upstream that it sets free, or concerns, on average: what findings are ordered by.
    pub worth: f64,
    /// What to do, in a sentence.
    pub advice: String,
    /// On what ground, a sentence each.
    pub evidence: Vec<String>,
    /// What to write into the configuration.
    pub block: Option<Block>,
}

/// What a finding is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Answers that could be stored.
    Cacheable,
    /// The number of slots.
    Slots,
    /// A consumer wants more than its share.
    OverShare,
    /// Answers that look cacheable and must not be.
    Personal,
    /// A route that caches stores nothing.
    NeverStored,
    /// A timeout that never fires.
    Timeout,
    /// A route, consumer or rate that has no effect.
    NoEffect,
    /// Too little was seen to say anything.
    NotEnough,
}

impl Kind {
    /// The stable word.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Cacheable => "cacheable",
            Self::Slots => "slots",
            Self::OverShare => "over_share",
            Self::Personal => "personal",
            Self::NeverStored => "never_stored",
            Self::Timeout => "timeout",
            Self::NoEffect => "no_effect",
            Self::NotEnough => "not_enough",
        }
    }
}

/// Lines for one table of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// Which table.
    pub place: Place,
    /// Its keys, as TOML; they replace those of the same name.
    pub lines: String,
}

/// A table of the configuration that is there already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// The route of this name.
    Route(String),
    /// The upstream of this name.
    Upstream(String),
    /// The consumer of this name.
    Consumer(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |name: &str| {
            let is_bare =
                !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
            if is_bare { name.to_owned() } else { format!("{name:?}") }
        };
        match self {
            Self::Route(route) => write!(f, "the [[route]] called {route:?}"),
            Self::Upstream(upstream) => write!(f, "[upstream.{}]", name(upstream)),
            Self::Consumer(consumer) => write!(f, "[consumer.{}]", name(consumer)),
        }
    }
}

/// All findings, in the order of what they are worth.
pub fn advise(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    storing::advise(facts, &mut findings);
    capacity::advise(facts, &mut findings);
    idle::advise(facts, &mut findings);
    let not_last = |finding: &Finding| finding.kind == Kind::NotEnough;
    findings.sort_by(|one, other| {
        let order = not_last(one).cmp(&not_last(other));
        order.then(other.worth.total_cmp(&one.worth)).then(one.kind.cmp(&other.kind)).then(one.about.cmp(&other.about))
    });
    findings
}

/// `count` of a noun.
fn counted(count: f64, noun: &str) -> String {
    let count = count.round();
    let number = if count < 1e15 { group(count.max(0.0) as u64) } else { format!("{count:e}") };
    format!("{number} {noun}{}", if count == 1.0 { "" } else { "s" })
}

/// A number with a space between each three digits.
fn group(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

fn percent(part: f64, whole: f64) -> String {
    if whole <= 0.0 {
        return "0 %".to_owned();
    }
    let percent = 100.0 * part / whole;
    if percent >= 9.95 || percent == 0.0 { format!("{percent:.0} %") } else { format!("{percent:.1} %") }
}

/// A time as the configuration writes it, rounded to what matters.
fn time(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    match () {
        () if seconds < 0.001 => format!("{}us", time.as_micros()),
        () if seconds < 1.0 => format!("{}ms", time.as_millis()),
        () if seconds < 10.0 && time.subsec_millis() >= 50 => format!("{}ms", time.as_millis() / 100 * 100),
        () if seconds < 120.0 => format!("{}s", time.as_secs()),
        () if seconds < 7200.0 => format!("{}m", time.as_secs() / 60),
        () => format!("{}h", time.as_secs() / 3600),
    }
}

/// Requests below which nothing is said of a route.
pub(crate) const ENOUGH: f64 = 100.0;

/// Seconds looked at below which nothing is said of slots and shares.
pub(crate) const LOOKS: u64 = 60;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_numbers_are_written_for_people_and_read_by_the_configuration() {
        for (millis, expected) in [
            (0, "0us"),
            (7, "7ms"),
            (999, "999ms"),
            (1_000, "1s"),
            (2_560, "2500ms"),
            (59_000, "59s"),
            (600_000, "10m"),
        ] {
            assert_eq!(time(Duration::from_millis(millis)), expected);
        }
        assert_eq!(time(Duration::from_secs(86_400)), "24h");
        assert_eq!([1, 999, 1_000, 1_234_567].map(group), ["1", "999", "1 000", "1 234 567"]);
        assert_eq!((counted(1.0, "request"), counted(2.4, "key")), ("1 request".into(), "2 keys".into()));
        assert_eq!([percent(1.0, 3.0), percent(1.0, 100.0), percent(1.0, 0.0)], ["33 %", "1.0 %", "0 %"]);
    }

    #[test]
    fn a_place_is_named_as_the_file_writes_it() {
        assert_eq!(Place::Upstream("erp".into()).to_string(), "[upstream.erp]");
        assert_eq!(Place::Consumer("web shop".into()).to_string(), "[consumer.\"web shop\"]");
        assert_eq!(Place::Route("/a/{b}".into()).to_string(), "the [[route]] called \"/a/{b}\"");
    }

    #[test]
    fn of_nothing_nothing_is_said_but_that() {
        let findings = advise(&Facts { observes: true, ..Facts::default() });
        assert!(findings.iter().all(|finding| finding.kind == Kind::NotEnough), "{findings:?}");
        assert_eq!(findings.len(), 1);
    }
}
