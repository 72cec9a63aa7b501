//! Many users, random configurations, an origin of many moods: no byte of an answer to one identity reaches another
//! unless a rule said that it is shared.
//!
//! The origin puts a number into the body and into every personal field of each answer, and remembers to whom it gave it
//! and how it was marked. Whatever a user reads is looked up there and held against the rules as SEMANTICS a reader of
//! the configuration would expect: see [`Config::lets`].

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use vaxel::clock::Clock;
use vaxel::sim::dice::Dice;

use crate::harness::{Reply, Seen, by, ms, ok, status, with_seeds, world};

/// A route's cache as the dice would have it.
#[derive(Debug, Clone, Copy)]
struct Config {
    identity: bool,
    per_consumer: bool,
    shared_after_auth: bool,
    override_origin: bool,
    ignore_set_cookie: bool,
}

/// Who asks. Of the cookies, `sid` counts where the route names what identities are made of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct User {
    authorization: String,
    sid: String,
    other: String,
}

/// An answer of the origin.
#[derive(Debug, Clone)]
struct Made {
    user: User,
    at: Duration,
    status: u16,
    control: &'static str,
    /// It carries something that makes it one user's, whatever its Cache-Control says.
    personal: Option<&'static str>,
}

const WINDOW: Duration = Duration::from_secs(5);
const PERSONAL: [&str; 4] = ["set-cookie", "x-csrf-token", "sap-contextid", "sap-message"];
const CONTROLS: [&str; 8] = [
    "",
    "max-age=3",
    "public, max-age=3",
    "s-maxage=3",
    "private, max-age=3",
    "no-store",
    "no-cache",
    "max-age=1, stale-while-revalidate=3, stale-if-error=9",
];

impl Config {
    fn roll(dice: &mut Dice) -> Self {
        let mut flag = || dice.roll().is_multiple_of(3);
        let (identity, per_consumer, shared_after_auth) = (flag(), flag(), flag());
        let per_consumer = per_consumer && !shared_after_auth;
        Self { identity, per_consumer, shared_after_auth, override_origin: flag(), ignore_set_cookie: flag() }
    }

    fn text(self) -> String {
        let mut text = "cache = { ttl = \"2s\", stale_while_revalidate = \"2s\", stale_if_error = \"4s\"".to_owned();
        for (is_on, key) in [
            (self.identity, ", identity = { cookies = [\"sid\"] }"),
            (self.per_consumer, ", per_consumer = true"),
            (self.shared_after_auth, ", shared_after_auth = \"5s\""),
            (self.override_origin, ", override = true"),
            (self.ignore_set_cookie, ", ignore_set_cookie = [\"noise\"]"),
        ] {
            text.push_str(if is_on { key } else { "" });
        }
        text + " }"
    }

    /// As far as this configuration tells users apart.
    fn identity(self, user: &User) -> User {
        let other = if self.identity { String::new() } else { user.other.clone() };
        User { other, ..user.clone() }
    }

    /// Whether a rule lets `reader` have what was `made` for another.
    fn lets(self, made: &Made, reader: &User, was_let_in: bool) -> Result<(), &'static str> {
        let (noise, private) = (made.personal == Some("noise"), made.control.contains("private"));
        if made.personal.is_some_and(|field| field != "sap-message") && !(noise && self.ignore_set_cookie) {
            return Err("it begins a session");
        }
        if self.shared_after_auth {
            return if private { Err("private") } else { was_let_in.then_some(()).ok_or("not let in") };
        }
        let has_partition = self.per_consumer || (self.identity && self.identity(&made.user) != User::default());
        if has_partition {
            let same = self.identity(&made.user) == self.identity(reader);
            return same.then_some(()).ok_or("another identity");
        }
        let released = ["public", "s-maxage"].iter().any(|word| made.control.contains(word));
        if private || (!made.user.authorization.is_empty() && !released) {
            return Err("to credentials, and not released");
        }
        let lasting = made.control.contains("max-age") || self.override_origin;
        let has_cookies = !(made.user.sid.is_empty() && made.user.other.is_empty());
        (!has_cookies || released || lasting).then_some(()).ok_or("to cookies, and nobody says that they do not matter")
    }
}

impl User {
    fn roll(dice: &mut Dice) -> Self {
        let mut name = |prefix: &str, of: u64| match dice.roll() % (of + 1) {
            0 => String::new(),
            number => format!("{prefix}{number}"),
        };
        Self { authorization: name("a", 2), sid: name("s", 2), other: name("o", 1) }
    }

    fn of(seen: &Seen) -> Self {
        let cookie = |name: &str| {
            let pairs = seen.field("cookie").split("; ").filter_map(|pair| pair.split_once('='));
            pairs.filter(|(found, _)| *found == name).map(|(_, value)| value.to_owned()).collect()
        };
        Self { authorization: seen.field("authorization").to_owned(), sid: cookie("sid"), other: cookie("other") }
    }

    fn cookie(&self) -> String {
        let pairs = [("sid", &self.sid), ("other", &self.other)];
        let set = pairs.iter().filter(|(_, value)| !value.is_empty()).map(|(name, value)| format!("{name}={value}"));
        set.collect::<Vec<_>>().join("; ")
    }
}

/// What the origin answers, written down in `made`.
fn answer(seen: &Seen, dice: &mut Dice, at: Duration, made: &Mutex<Vec<Made>>) -> Reply {
    let control = CONTROLS[dice.roll() as usize % CONTROLS.len()];
    let code = match dice.roll() % 12 {
        0 => 401,
        1 => 403,
        2 => 500,
        _ => 200,
    };
    let personal = match dice.roll() % 9 {
        0 => Some("noise"),
        roll => PERSONAL.get(roll as usize - 1).copied(),
    };
    let mut made = made.lock();
    let number = made.len().to_string();
    made.push(Made { user: User::of(seen), at, status: code, control, personal });
    let reply = if code == 200 { ok(number.clone()) } else { status(code).then(ms(0), number.clone()) };
    let reply = if control.is_empty() { reply } else { reply.cached(control) };
    let reply = match personal {
        Some("noise") => reply.with("set-cookie", &format!("noise={number}")),
        Some("set-cookie") => reply.with("set-cookie", &format!("session={number}")),
        Some(field) => reply.with(field, &number),
        None => reply,
    };
    let reply = if dice.roll().is_multiple_of(4) { reply.with("vary", "accept-language") } else { reply };
    reply.with("etag", &format!("\"{number}\"")).after(ms(dice.roll() % 400))
}

#[test]
fn no_byte_of_one_identitys_answer_reaches_another_unless_a_rule_says_so() {
    let mut shared = 0;
    let shares = Mutex::new(&mut shared);
    with_seeds(60, async |seed| {
        let mut dice = Dice::new(seed);
        let config = Config::roll(&mut dice);
        let made = Arc::new(Mutex::new(Vec::new()));
        let clock = Arc::new(Mutex::new(None::<Clock>));
        let (log, time) = (Arc::clone(&made), Arc::clone(&clock));
        let script = by(move |seen| {
            let now = time.lock().as_ref().map_or(Duration::ZERO, |clock| clock.moment().wall.elapsed_since_epoch());
            answer(seen, &mut Dice::new(seed ^ (seen.number as u64 + 1) << 20), now, &log)
        });
        let world = world().origin(script).route(&config.text()).upstream("breaker = false").opens();
        *clock.lock() = Some(world.clock.clone());
        let mut visits = Vec::new();
        for _ in 0..150 {
            let user = User::roll(&mut dice);
            let method = ["GET", "GET", "GET", "GET", "HEAD", "POST"][dice.roll() as usize % 6];
            let mut request = world.asks(method, ["/a", "/b"][dice.roll() as usize % 2]);
            for (name, value) in [("authorization", &user.authorization), ("cookie", &user.cookie())] {
                request = if value.is_empty() { request } else { request.with(name, value) };
            }
            request = match dice.roll() % 12 {
                0 => request.with("cache-control", "no-cache"),
                1 => request.with("cache-control", "max-stale"),
                2 => request.with("range", "bytes=0-"),
                3 => request.with("x-csrf-token", "Fetch"),
                4 => request.with("if-none-match", "\"x\""),
                _ => request,
            };
            request = request.with("accept-language", ["de", "en"][dice.roll() as usize % 2]);
            let asked = world.clock.moment().wall.elapsed_since_epoch();
            visits.push((user, asked, request.goes()));
            world.passes(ms(dice.roll() % 100)).await;
            if dice.roll().is_multiple_of(12) {
                let left = dice.roll() as usize % visits.len();
                visits.swap_remove(left).2.may_leave();
            }
        }
        for (user, asked, visit) in visits {
            let answer = visit.await;
            let made = made.lock();
            let known = |text: &str| Some(made.get(text.parse::<usize>().ok()?)?.clone());
            let etag = answer.field("etag");
            let from = known(&String::from_utf8_lossy(&answer.body)).or_else(|| known(etag.trim_matches('"')));
            let Some(from) = from else { continue };
            for field in ["set-cookie", "x-csrf-token", "sap-contextid", "sap-message"] {
                let number = answer.field(field).trim_start_matches("noise=").trim_start_matches("session=").to_owned();
                let owner = known(&number).map(|made| made.user);
                assert!(owner.is_none_or(|owner| owner == user), "{config:?}: {user:?} gets {field} of {from:?}");
            }
            if from.user == user {
                continue;
            }
            let was_let_in = made.iter().any(|other| {
                config.identity(&other.user) == config.identity(&user)
                    && (other.status == 200 || other.status == 304)
                    && other.at <= asked
                    && asked < other.at + WINDOW + ms(400)
            });
            let verdict = config.lets(&from, &user, was_let_in);
            assert_eq!(verdict, Ok(()), "{config:?}: {user:?} reads what was for {from:?}");
            **shares.lock() += 1;
        }
        world.passes(Duration::from_secs(60)).await;
        world.rests().await;
    });
    let given = std::env::var_os("VAXEL_SEED").is_some();
    assert!(given || shared > 200, "a cache that shares nothing proves nothing: {shared}");
}

/// Time since the epoch.
trait SinceEpoch {
    fn elapsed_since_epoch(self) -> Duration;
}

impl SinceEpoch for std::time::SystemTime {
    fn elapsed_since_epoch(self) -> Duration {
        self.duration_since(Self::UNIX_EPOCH).unwrap()
    }
}
