//! What became of the requests somebody may ask about: the memory behind `vaxel why`.
//!
//! Not every request is worth remembering; `Kept::of` says which. Each worker has a journal of its own, of a fixed
//! number of accounts with bounded texts. Those that vaxel turned away before the upstream was asked have a half of
//! their own: a flood of them must not wash away how the upstream failed. A plain hit is never kept, and costs a
//! comparison.

use std::net::IpAddr;
use std::time::{Duration, Instant, SystemTime};

use http::{Method, StatusCode};
use parking_lot::Mutex;

use super::exchange::hexadecimal;
use super::respond::Forward;
use crate::breaker::State;
use crate::gear::Gear;
use crate::message::chain;
use crate::metrics::{CacheResult, Ending, Facts};
use crate::refusal::Reason;
use crate::throttle::Class;
use crate::throttle::quota::Standing;
use crate::throttle::rate::Rated;
use crate::throttle::slots::Excess;
use crate::upstream::origin::OriginError;

mod story;

pub(super) use story::span;

/// The journal of one worker.
#[derive(Debug, Default)]
pub struct Journal(Mutex<Halves>);

#[derive(Debug, Default)]
struct Halves {
    /// Never got to the upstream.
    turned: Ring,
    /// Did, or were answered from the store.
    others: Ring,
}

/// The last accounts; the oldest gives way.
#[derive(Debug, Default)]
struct Ring {
    accounts: Vec<Account>,
    /// Where the next one goes, once it is full.
    next: usize,
}

impl Journal {
    /// Remembers a request.
    pub(super) fn write(&self, account: Account) {
        let mut halves = self.0.lock();
        let turned = account.kept == Kept::Refused && account.attempts.is_empty();
        let ring = if turned { &mut halves.turned } else { &mut halves.others };
        let replaced = ring.write(account);
        drop(halves);
        drop(replaced);
    }

    /// The requests known by this id, be it ours or one their client gave.
    pub fn find(&self, id: &str) -> Vec<Account> {
        let ours = if id.len() == 16 { u64::from_str_radix(id, 16).ok() } else { None };
        let is_it =
            |account: &Account| Some(account.request_id) == ours || account.client_request_id.as_deref() == Some(id);
        self.select(|accounts| accounts.filter(|account| is_it(account)).cloned().collect())
    }

    /// Up to `most` of the latest that `wanted` takes, newest first. Looks no further back than it has to, since whoever
    /// ends a request meanwhile waits.
    pub fn latest(&self, most: usize, wanted: impl Fn(&Account) -> bool) -> Vec<Account> {
        let halves = self.0.lock();
        let of = |ring| Ring::newest_first(ring).filter(|account| wanted(account)).take(most);
        let mut found: Vec<_> = of(&halves.turned).chain(of(&halves.others)).collect();
        found.sort_by_key(|account| std::cmp::Reverse(account.ended));
        found.into_iter().take(most).cloned().collect()
    }

    fn select<R>(&self, choose: impl FnOnce(&mut dyn Iterator<Item = &Account>) -> R) -> R {
        let halves = self.0.lock();
        choose(&mut halves.turned.accounts.iter().chain(&halves.others.accounts))
    }
}

/// Orders what was written in turn by the time `at` reads, the newest first.
pub fn newest_first<T>(accounts: &mut [T], at: impl Fn(&T) -> SystemTime) {
    accounts.reverse();
    accounts.sort_by_key(|account| std::cmp::Reverse(at(account)));
}

impl Ring {
    fn newest_first(&self) -> impl Iterator<Item = &Account> {
        let (newer, older) = self.accounts.split_at(self.next.min(self.accounts.len()));
        newer.iter().rev().chain(older.iter().rev())
    }

    /// Gives back whose place it took.
    fn write(&mut self, account: Account) -> Option<Account> {
        match self.accounts.get_mut(self.next) {
            Some(oldest) => {
                self.next = (self.next + 1) % CAPACITY;
                Some(std::mem::replace(oldest, account))
            }
            None => {
                self.accounts.push(account);
                self.next = self.accounts.len() % CAPACITY;
                None
            }
        }
    }
}

/// Why a request is remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kept {
    /// Vaxel answered by itself.
    Refused,
    /// It was answered with a server error.
    Failed,
    /// The client left before it had the whole answer.
    Left,
    /// The answer broke off.
    Broken,
    /// It took more than one attempt.
    Retried,
    /// The answer was stale.
    Stale,
    /// It waited for a slot, or for its turn at a rate.
    Waited,
    /// It took long.
    Slow,
    /// It is one of 64 that passed the store: so that there is something to compare with.
    Sampled,
}

impl Kept {
    /// Every cause, in the order of precedence.
    pub const ALL: [Self; 9] = [
        Self::Refused,
        Self::Failed,
        Self::Left,
        Self::Broken,
        Self::Retried,
        Self::Stale,
        Self::Waited,
        Self::Slow,
        Self::Sampled,
    ];

    /// The stable word for the admin API.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Failed => "failed",
            Self::Left => "left",
            Self::Broken => "broken",
            Self::Retried => "retried",
            Self::Stale => "stale",
            Self::Waited => "waited",
            Self::Slow => "slow",
            Self::Sampled => "sampled",
        }
    }

    /// Why a finished request is to be remembered, if it is. `drawn` is its id.
    pub(super) fn of(facts: &Facts<'_>, drawn: u64) -> Option<Self> {
        if facts.cache == CacheResult::Hit && facts.reason.is_none() && facts.delayed.is_none() {
            return None;
        }
        Some(match facts {
            Facts { reason: Some(_), .. } => Self::Refused,
            Facts { ending: Ending::Aborted, .. } => Self::Left,
            Facts { ending: Ending::Broken, .. } => Self::Broken,
            Facts { status, .. } if status.is_server_error() => Self::Failed,
            Facts { attempts: 2.., .. } => Self::Retried,
            Facts { cache: CacheResult::Stale | CacheResult::StaleError, .. } => Self::Stale,
            Facts { queued: Some(queued), .. } if !queued.is_zero() => Self::Waited,
            Facts { delayed: Some(_), .. } => Self::Waited,
            Facts { duration, .. } if *duration >= SLOW => Self::Slow,
            _ if drawn.is_multiple_of(SAMPLE) => Self::Sampled,
            _ => return None,
        })
    }
}

/// What became of one request.
#[derive(Debug, Clone, PartialEq)]
pub struct Account {
    /// Its id, as in the error body and the access log.
    pub request_id: u64,
    /// The id its client gave it (`X-Request-Id`).
    pub client_request_id: Option<Box<str>>,
    /// Why it is remembered.
    pub kept: Kept,
    /// When it was over.
    pub ended: SystemTime,
    /// Who sent it.
    pub client: IpAddr,
    /// Its method.
    pub method: Method,
    /// Its Host.
    pub host: Option<Box<str>>,
    /// Its path, without the query: that may be secret.
    pub path: Box<str>,
    /// Its route.
    pub route: Option<Box<str>>,
    /// The upstream that leads to.
    pub upstream: Option<Box<str>>,
    /// Who called.
    pub consumer: Box<str>,
    /// Whose rate it was over, if it was.
    pub over: Option<Over>,
    /// How its consumer's own rate stood after it.
    pub own: Option<Rated>,
    /// How the route's rate stood after it.
    pub rated: Option<Rated>,
    /// How its consumer's quotas stood after it.
    pub quotas: Standing,
    /// How long a rate held it back, if one did.
    pub delayed: Option<Duration>,
    /// What the cache did.
    pub cache: CacheResult,
    /// Why it was sent on, in the words of Cache-Status.
    pub forward: Option<(&'static str, Option<&'static str>)>,
    /// How its upstream stood when it last came to the gate.
    pub gate: Option<Stood>,
    /// How long it waited for a slot, if it asked for one.
    pub queued: Option<Duration>,
    /// Its attempts at the upstream, the first few of them.
    pub attempts: Vec<Attempt>,
    /// How many there were.
    pub tries: u32,
    /// The status answered.
    pub status: StatusCode,
    /// Why vaxel answered by itself.
    pub reason: Option<Reason>,
    /// When it was told to come back.
    pub retry_after: Option<Duration>,
    /// From its head until the last byte of its answer.
    pub duration: Duration,
    /// Bytes of the answer's body.
    pub sent: u64,
    /// How the answer ended.
    pub ending: Ending,
}

/// Whose rate a request is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    /// Its consumer's.
    Consumer,
    /// Its route's.
    Route,
}

impl Over {
    /// The stable word for logs, metric labels and the admin API.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Consumer => "consumer",
            Self::Route => "route",
        }
    }
}

/// How an upstream stood when a request came to the gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stood {
    /// The class as which the request came.
    pub class: Class,
    /// Its gear.
    pub gear: Gear,
    /// Why its gear, in shadow mode, would have refused the request.
    pub spared: Option<Reason>,
    /// The state of its breaker, if it was asked.
    pub breaker: Option<State>,
    /// Whether the breaker, in shadow mode, would have refused it.
    pub shadowed: bool,
    /// What would have become of it without a slot, in shadow mode.
    pub excess: Option<Excess>,
    /// How many waited for a slot already, of whatever class, if one was asked for.
    pub ahead: Option<usize>,
}

/// One attempt at the upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// At which endpoint.
    pub endpoint: Box<str>,
    /// How it ended and after which time; none: it was under way when the request was over.
    pub end: Option<(End, Duration)>,
    /// What the system said of a failure.
    pub error: Option<Box<str>>,
    /// The pause until the next one, if one followed.
    pub pause: Option<Duration>,
}

/// How an attempt ended, as far as the head of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// With this status.
    Answered(StatusCode),
    /// Without an answer.
    Failed(Reason),
}

/// The attempts of a request while they are made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Tries {
    made: Vec<Try>,
    /// When the gate was asked for the next one.
    asked: Option<Instant>,
}

/// An endpoint of the route's upstream, or of the one that stands in for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) is_spare: bool,
    pub(super) endpoint: usize,
}

/// One of them, for whoever tells of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Step<'a> {
    pub(super) place: Place,
    pub(super) asked: Option<Instant>,
    pub(super) began: Instant,
    pub(super) end: Option<(End, Duration)>,
    pub(super) error: Option<&'a str>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Try {
    place: Place,
    asked: Option<Instant>,
    began: Instant,
    end: Option<(End, Duration)>,
    error: Option<Box<str>>,
    pause: Option<Duration>,
}

impl Tries {
    /// The gate is asked for the next one.
    pub(super) const fn ask(&mut self, now: Instant) {
        self.asked = Some(now);
    }

    /// One begins.
    pub(super) fn begin(&mut self, place: Place, now: Instant) {
        let asked = self.asked.take();
        if self.made.is_empty() {
            // It is nearly always the only one.
            self.made = Vec::with_capacity(1);
        }
        if self.made.len() < TRIES {
            self.made.push(Try { place, asked, began: now, end: None, error: None, pause: None });
        }
    }

    /// Since when the gate is asked in vain, if it is.
    pub(super) const fn asked(&self) -> Option<Instant> {
        self.asked
    }

    /// The first few of them, in their order.
    pub(super) fn steps(&self) -> impl Iterator<Item = Step<'_>> {
        self.made.iter().map(|made| Step {
            place: made.place,
            asked: made.asked,
            began: made.began,
            end: made.end,
            error: made.error.as_deref(),
        })
    }

    /// The last one ended.
    pub(super) fn end(&mut self, end: End, now: Instant) {
        if let Some(last) = self.made.last_mut().filter(|last| last.end.is_none()) {
            last.end = Some((end, now.saturating_duration_since(last.began)));
        }
    }

    /// The last one failed.
    pub(super) fn failed(&mut self, error: &OriginError, now: Instant) {
        self.end(End::Failed(error.failure.reason()), now);
        if let Some(last) = self.made.last_mut().filter(|_| error.source.is_some()) {
            last.error.get_or_insert_with(|| cut(&chain(error), TEXT));
        }
    }

    /// Another one follows after a pause.
    pub(super) fn again(&mut self, pause: Duration) {
        if let Some(last) = self.made.last_mut() {
            last.pause.get_or_insert(pause);
        }
    }

    /// For the account; `name` names an endpoint.
    pub(super) fn told<'n>(&self, name: impl Fn(Place) -> Option<&'n str>) -> Vec<Attempt> {
        let told = self.made.iter().map(|made| Attempt {
            endpoint: name(made.place).unwrap_or_default().into(),
            end: made.end,
            error: made.error.clone(),
            pause: made.pause,
        });
        told.collect()
    }
}

impl From<Forward> for (&'static str, Option<&'static str>) {
    fn from(forward: Forward) -> Self {
        (forward.why, forward.detail)
    }
}

impl Account {
    /// Its id in sixteen hexadecimal digits.
    pub fn id(&self) -> String {
        hexadecimal(self.request_id, &mut [0; 16]).to_owned()
    }
}

/// The beginning of a text from the network, so that what is kept is bounded.
pub(super) fn cut(text: &str, most: usize) -> Box<str> {
    text.get(..text.floor_char_boundary(most)).unwrap_or_default().into()
}

/// What a client may call its request: printable, and short enough to be one.
pub(super) fn named(value: &http::HeaderValue) -> Option<Box<str>> {
    let name = value.to_str().ok()?;
    ((1..=TEXT).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_graphic())).then(|| name.into())
}

/// Accounts in each half of a journal: with texts at their bounds about a kilobyte each.
const CAPACITY: usize = 2048;
/// Attempts told of one request.
const TRIES: usize = 8;
/// Bytes of a text from the network.
pub(super) const TEXT: usize = 256;
/// What a user of a dialog notices.
pub const SLOW: Duration = Duration::from_secs(1);
/// One of so many is kept though nothing is remarkable about it.
const SAMPLE: u64 = 64;

#[cfg(test)]
mod tests;
