//! An account in words for people, and as JSON for programs.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Account, Attempt, End, Kept, Over, Stood};
use crate::metrics::{CacheResult, Ending};
use crate::refusal::Reason;
use crate::throttle::rate::Rated;
use crate::throttle::slots::Excess;

impl Account {
    /// What became of the request, a sentence for each step of its trip.
    pub fn story(&self) -> Vec<String> {
        let place = match (&self.route, &self.upstream) {
            (Some(route), Some(upstream)) => format!("route {route}, to the upstream {upstream}"),
            _ => "no route was found, or it was refused before one was looked for".to_owned(),
        };
        let mut story = vec![
            format!("{} {}{} from {}", self.method, self.host.as_deref().unwrap_or_default(), self.path, self.client),
            place,
            format!("consumer {}", self.consumer),
        ];
        story.extend(self.rates());
        story.extend(self.quotas());
        if self.reason.is_none() || self.cache != CacheResult::Off {
            story.push(self.verdict());
        }
        story.extend(self.gate.map(gate));
        story.extend(self.wait());
        story.extend(self.attempts.iter().enumerate().map(|(index, attempt)| tried(index + 1, attempt)));
        let untold = self.tries as usize - self.attempts.len().min(self.tries as usize);
        if untold > 0 {
            story.push(format!("and {untold} more"));
        }
        story.push(self.answer());
        story
    }

    /// What the rates said.
    fn rates(&self) -> impl Iterator<Item = String> {
        let standing = |of: Over, rated: &Option<Rated>| {
            let is_over = self.over == Some(of);
            let left = rated.as_ref().map_or_else(String::new, |rated| {
                format!(" ({} more at once, all of it again in {})", rated.remaining, span(rated.reset))
            });
            if !is_over && rated.is_none() {
                return None;
            }
            // In shadow mode it is not told how it stands.
            let only = if is_over && rated.is_none() { SHADOW } else { "" };
            let verdict = if is_over { "over" } else { "within" };
            Some(format!("rate: {verdict} that of the {}{left}{only}", of.code()))
        };
        let rates = [(Over::Consumer, &self.own), (Over::Route, &self.rated)].map(|(of, rated)| standing(of, rated));
        let delay = self.delayed.map(|delay| format!("rate: held back until its turn, {}", span(delay)));
        rates.into_iter().flatten().chain(delay)
    }

    /// What the quotas said.
    fn quotas(&self) -> impl Iterator<Item = String> {
        self.quotas.iter().flatten().map(|quota| {
            let verdict = if quota.allowed { "within" } else { "beyond" };
            let only = if quota.allowed || quota.refuses() { "" } else { SHADOW };
            let (per, used, limit) = (quota.per.word(), quota.used, quota.limit);
            format!("quota: {verdict} that of the {per} ({used} of {limit} used, anew in {}){only}", span(quota.reset))
        })
    }

    fn verdict(&self) -> String {
        let words = match self.cache {
            CacheResult::Hit => "fresh, from the store",
            CacheResult::Stale => "stale, from the store; refreshed in the background if that may be",
            CacheResult::StaleError => "stale, from the store, as the upstream failed",
            CacheResult::Revalidated => "from the store; the upstream said that it is still good",
            CacheResult::Miss => "not stored, or not good enough: fetched",
            CacheResult::Collapsed => "shared the answer to another request for the same",
            CacheResult::Pass => "passed: the request or its answer may not be shared",
            CacheResult::Bypass => "passed: the request asks to go past the store",
            CacheResult::Off => "the route does not cache",
        };
        let forward = match self.forward {
            Some((why, Some(detail))) => format!(" ({why}, {detail})"),
            Some((why, None)) => format!(" ({why})"),
            None => String::new(),
        };
        format!("cache: {}{forward}: {words}", self.cache.code())
    }

    fn wait(&self) -> Option<String> {
        let class = self.gate?.class.word();
        let ahead = match self.gate?.ahead? {
            0 => "nobody else waited".to_owned(),
            1 => "one other waited already".to_owned(),
            many => format!("{many} others waited already"),
        };
        let excess = match self.gate?.excess {
            Some(Excess::Waits) => Some("it would have waited for a slot".to_owned()),
            Some(Excess::Refused(reason)) => Some(format!("no slot was free, {}", reason.code())),
            None => None,
        };
        if let Some(excess) = excess {
            return Some(format!("queue: {excess}{SHADOW}"));
        }
        Some(match self.queued {
            None => format!("queue: as {class}, no place in it; {ahead}"),
            Some(waited) if waited.is_zero() => format!("queue: as {class}, a slot was free at once"),
            Some(waited) => format!("queue: as {class}, waited {} for a slot; {ahead}", span(waited)),
        })
    }

    fn answer(&self) -> String {
        let mut text = format!("answered {} after {}, {} bytes", self.status.as_u16(), span(self.duration), self.sent);
        match self.ending {
            Ending::Whole => {}
            Ending::Aborted => text.push_str("; the client left before it had all"),
            Ending::Broken => text.push_str("; the upstream's body broke off"),
        }
        if let Some(reason) = self.reason {
            text.push_str(&format!("; {}: {}", reason.code(), reason.sentence()));
        }
        if let Some(wait) = self.retry_after {
            text.push_str(&format!(" Told to come back after {}.", span(wait)));
        }
        text
    }

    /// All of it.
    pub fn view(&self) -> Value {
        let mut view = self.summary();
        let attempts: Vec<_> = self.attempts.iter().map(attempt).collect();
        let quotas = self.quotas.iter().flatten().map(|quota| {
            json!({ "per": quota.per.word(), "used": quota.used, "limit": quota.limit, "allowed": quota.allowed })
        });
        let quotas: Vec<_> = quotas.collect();
        let more = json!({
            "rate": self.rated.map(|rated| json!({ "remaining": rated.remaining, "reset_ms": millis(rated.reset) })),
            "over": self.over.map(Over::code),
            "delay_ms": self.delayed.map(millis),
            "quotas": quotas,
            "forward": self.forward.map(|(why, detail)| json!({ "why": why, "detail": detail })),
            "gear": self.gate.map(|gate| gate.gear.code()),
            "breaker": self.gate.and_then(|gate| gate.breaker).map(|state| state.code()),
            "ahead": self.gate.and_then(|gate| gate.ahead),
            "queue_ms": self.queued.map(millis),
            "class": self.gate.map(|gate| gate.class.word()),
            "attempts": attempts,
            "retry_after_ms": self.retry_after.map(millis),
            "bytes_out": self.sent,
            "aborted": self.ending == Ending::Aborted,
            "broken": self.ending == Ending::Broken,
            "story": self.story(),
        });
        if let (Value::Object(view), Value::Object(more)) = (&mut view, more) {
            view.extend(more);
        }
        view
    }

    /// A line of it.
    pub fn summary(&self) -> Value {
        json!({
            "request_id": self.id(),
            "client_request_id": self.client_request_id,
            "kept": self.kept.code(),
            "time": humantime::format_rfc3339_millis(self.ended).to_string(),
            "client": self.client,
            "method": self.method.as_str(),
            "host": self.host,
            "path": self.path,
            "route": self.route,
            "upstream": self.upstream,
            "consumer": self.consumer,
            "cache": self.cache.code(),
            "status": self.status.as_u16(),
            "reason": self.reason.map(|reason| reason.code()),
            "duration_ms": millis(self.duration),
            "tries": self.tries,
        })
    }

    /// Whether this is the word for it: of its reason, or of why it is kept.
    pub fn is_called(&self, word: &str) -> bool {
        self.kept.code() == word || self.reason.is_some_and(|reason| reason.code() == word)
    }
}

impl Kept {
    /// Whether there is an account that [`Account::is_called`] this.
    pub fn is_word(word: &str) -> bool {
        Self::ALL.iter().any(|kept| kept.code() == word) || Reason::ALL.iter().any(|reason| reason.code() == word)
    }
}

fn gate(Stood { gear, spared, breaker, shadowed, .. }: Stood) -> String {
    if let Some(reason) = spared {
        return format!("gate: gear {}; {}{SHADOW}", gear.code(), reason.code());
    }
    match breaker {
        Some(state) if shadowed => {
            format!("gate: gear {}, breaker {}{SHADOW}", gear.code(), state.code())
        }
        Some(state) => format!("gate: gear {}, breaker {}", gear.code(), state.code()),
        None => format!("gate: gear {}", gear.code()),
    }
}

fn tried(number: usize, attempt: &Attempt) -> String {
    let mut text = format!("attempt {number}: {}", attempt.endpoint);
    match attempt.end {
        Some((End::Answered(status), took)) => {
            text.push_str(&format!(" answered {} after {}", status.as_u16(), span(took)));
        }
        Some((End::Failed(reason), took)) => {
            text.push_str(&format!(" failed after {}: {}", span(took), reason.code()));
        }
        None => text.push_str(" was under way still"),
    }
    if let Some(error) = &attempt.error {
        text.push_str(&format!(" ({error})"));
    }
    match attempt.pause {
        Some(pause) if pause.is_zero() => text.push_str("; tried again at once"),
        Some(pause) => text.push_str(&format!("; tried again after a pause of {}", span(pause))),
        None => {}
    }
    text
}

fn attempt(attempt: &Attempt) -> Value {
    let (status, reason, took) = match attempt.end {
        Some((End::Answered(status), took)) => (Some(status.as_u16()), None, Some(millis(took))),
        Some((End::Failed(reason), took)) => (None, Some(reason.code()), Some(millis(took))),
        None => (None, None, None),
    };
    json!({
        "endpoint": attempt.endpoint,
        "status": status,
        "reason": reason,
        "error": attempt.error,
        "took_ms": took,
        "pause_ms": attempt.pause.map(millis),
    })
}

/// Of a verdict that changed nothing.
const SHADOW: &str = "; in shadow mode, so it was only counted";

/// Milliseconds, to the microsecond.
fn millis(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1000.0
}

/// As a person would say it.
pub(in crate::proxy) fn span(duration: Duration) -> String {
    match duration.as_secs_f64() {
        seconds if seconds >= 10.0 => format!("{seconds:.0} s"),
        seconds if seconds >= 1.0 => format!("{seconds:.2} s"),
        seconds => format!("{:.1} ms", seconds * 1000.0),
    }
}
