//! `[upstream.NAME]` and `[window.NAME]` as they are written.

use super::super::dictionary::Kind::{
    Choice, Duration, DurationOr, File, Flag, Number, OneOrMore, Ratio, Switch, Table, Text, Whole, WholeOr,
};
use super::super::dictionary::{Key, Section};
use super::ROUTE_CLASSES;

pub(super) static UPSTREAM: Section = Section {
    name: "[upstream.NAME]",
    about: "What is protected.",
    keys: &[
        Key::new("endpoints", OneOrMore(&Text), "Its servers: scheme, host, port.").required(),
        Key::new("balance", Choice(BALANCES), "How one of several endpoints is chosen.").default("'round_robin'"),
        Key::new(
            "slots",
            WholeOr(&ADAPTIVE),
            "Requests it works on at the same time, whatever becomes of their clients; or a table: found by its answers.",
        )
        .default("32"),
        Key::new(
            "endpoint_slots",
            Whole,
            "Requests each endpoint works on at the same time; any share of `slots` if not given.",
        ),
        Key::new("reserve", Table(&RESERVE), "Slots kept free for a class."),
        Key::new("cap", Table(&CAP), "Slots a class may have at most."),
        Key::new("queue", Table(&QUEUE), "Who waits for a slot."),
        Key::new(
            "zombie_hold",
            Duration,
            "How long a slot stays taken after client or timeout gave up; twice `timeouts.total` if not given.",
        ),
        Key::new("breaker", Switch(&BREAKER), "When it is left alone.").default("true"),
        Key::new("gears", Switch(&GEARS), "How it is spared under strain; without it only by windows and by hand.")
            .default("true"),
        Key::new("retry", Switch(&RETRY), "When a request is tried again.").default("true"),
        Key::new("timeouts", Table(&TIMEOUTS), "How long it may take."),
        Key::new("pool", Table(&POOL), "Connections to it."),
        Key::new("tls", Table(&UPSTREAM_TLS), "How https endpoints are spoken to."),
        Key::new("probe", Switch(&PROBE), "How its endpoints are checked while nobody asks.").default("false"),
        Key::new("host", Choice(HOSTS), "Which Host it gets: the client's, or the endpoint's.").default("'keep'"),
        Key::new("expect", Choice(EXPECTS), "Who answers `Expect: 100-continue`: the upstream, or vaxel at once.")
            .default("'relay'"),
    ],
};

/// The words of `upstream.balance`.
pub(super) const BALANCES: &[&str] = &["round_robin", "least_of_two"];
/// The words of `upstream.host`.
pub(super) const HOSTS: &[&str] = &["keep", "upstream"];
/// The words of `upstream.expect`.
pub(super) const EXPECTS: &[&str] = &["relay", "answer"];

/// The words of `slots.adaptive`.
pub(super) const POLICIES: &[&str] = &["gradient", "aimd"];

static ADAPTIVE: Section = Section {
    name: "slots of an [upstream.NAME]",
    about: "A number of slots that adapts to what the upstream can bear.",
    keys: &[
        Key::new(
            "adaptive",
            Choice(POLICIES),
            "By latency (gradient), or by what it refuses and leaves unanswered (aimd).",
        )
        .required(),
        Key::new("min", Whole, "Never fewer.").default("1"),
        Key::new("max", Whole, "Never more.").required(),
        Key::new(
            "start",
            Whole,
            "How many while nothing is learned, and in force in shadow mode; a quarter of `max` if not given.",
        ),
        Key::new("slow", Duration, "For aimd: an answer that takes longer means too much; none does if not given."),
        Key::new("mode", Choice(MODES), "Whether the number counts, or is only suggested.").default("'enforce'"),
    ],
};

static RESERVE: Section = Section {
    name: "reserve",
    about: "Slots kept free for a class; the others may not take them, used or not.",
    keys: &[
        Key::new("interactive", Whole, "For somebody who looks at a spinner.").default("0"),
        Key::new("normal", Whole, "For what has no other class.").default("0"),
        Key::new("logon", Whole, "For those who begin a session.").default("0"),
        Key::new("batch", Whole, "For jobs that can wait, but not for ever.").default("0"),
        Key::new("refresh", Whole, "For vaxel's own background refreshes.").default("0"),
    ],
};

static CAP: Section = Section {
    name: "cap",
    about: "Slots a class may have at most, and with them its part of the queue; any number if not given.",
    keys: &[
        Key::new("interactive", Whole, "For somebody who looks at a spinner."),
        Key::new("normal", Whole, "For what has no other class."),
        Key::new("logon", Whole, "For those who begin a session: when all come at eight, those who are in work on.")
            .default("2"),
        Key::new("batch", Whole, "For jobs that can wait."),
        Key::new("refresh", Whole, "For vaxel's own background refreshes."),
    ],
};

static QUEUE: Section = Section {
    name: "queue",
    about: "Who waits for a slot.",
    keys: &[
        Key::new("max", Whole, "Requests that may wait; 4 for each slot, at least 64, if not given. 0: nobody."),
        Key::new("timeout", Duration, "How long a request may wait.").default("'2s'"),
        Key::new(
            "mode",
            Choice(MODES),
            "Whether who finds no slot waits or is refused, or passes and is only counted: then nothing is protected.",
        )
        .default("'enforce'"),
    ],
};

/// The word of `breaker.slow` for what is learned.
pub(super) const LEARNED: &str = "auto";

/// The words of `breaker.trial`.
pub(super) const TRIALS: &[&str] = &["request", "probe"];

static BREAKER: Section = Section {
    name: "breaker",
    about: "When the upstream is left alone.",
    keys: &[
        Key::new("window", Duration, "The time that is looked at.").default("'30s'"),
        Key::new("minimum", Whole, "It stays closed while fewer calls than this are in the window.").default("10"),
        Key::new("failure_ratio", Ratio, "It opens at this share of broken calls.").default("0.5"),
        Key::new(
            "slow",
            DurationOr(LEARNED),
            "A call that takes longer is slow; 'auto': three times longer than 19 of 20 on its route; none is if not given.",
        ),
        Key::new("slow_ratio", Ratio, "It opens at this share of slow calls.").default("0.8"),
        Key::new("open", Duration, "How long it stays open the first time; doubles while trials fail.").default("'5s'"),
        Key::new("open_max", Duration, "The longest it stays open.").default("'5m'"),
        Key::new("trials", Whole, "Trials that must do well before it closes.").default("3"),
        Key::new(
            "trial",
            Choice(TRIALS),
            "What they are: safe requests, or probes (of `path` in `probe`), so that no request is.",
        )
        .default("'request'"),
        Key::new("mode", Choice(MODES), "Whether it refuses, or what it would refuse is only counted.")
            .default("'enforce'"),
        Key::new(
            "zombie_share",
            Ratio,
            "It opens when more than this share of the slots works on what nobody waits for any more; 1: never.",
        )
        .default("0.5"),
    ],
};

static GEARS: Section = Section {
    name: "gears",
    about: "Drive, eco, limp, park: how the upstream is spared under strain.",
    keys: &[
        Key::new("mode", Choice(MODES), "Whether strain shifts the gear, or shifts are only counted and logged.")
            .default("'enforce'"),
        Key::new("dwell", Duration, "How long it stays in a gear before it shifts to a less careful one.")
            .default("'10s'"),
        Key::new("limp_class", Choice(ROUTE_CLASSES), "The least urgent class that passes in limp.")
            .default("'normal'"),
    ],
};

/// The words of a policy's mode.
pub(super) const MODES: &[&str] = &["enforce", "shadow"];

/// The words of a window's gear.
pub(super) const GEAR_WORDS: &[&str] = &["eco", "limp", "park"];

/// The words of a window's writes.
pub(super) const WRITES: &[&str] = &["refuse", "pass"];

pub(super) static WINDOW: Section = Section {
    name: "[window.NAME]",
    about: "When upstreams are spared: maintenance, the end of the day, the closing of the month.",
    keys: &[
        Key::new("upstreams", OneOrMore(&Text), "Which: the NAMEs of [upstream.NAME]s.").required(),
        Key::new("zone", Text, "The time zone of its times: \"Europe/Stockholm\".").default("'UTC'"),
        Key::new(
            "days",
            OneOrMore(&Text),
            "The days it begins on: \"mon-fri\", \"sun\", \"15\", \"last\" (of the month), \"2026-12-24\"; every day if not given.",
        ),
        Key::new("from", Text, "When it begins: \"23:00\".").required(),
        Key::new("to", Text, "When it ends; on the next day if that is not after `from`.").required(),
        Key::new("gear", Choice(GEAR_WORDS), "The gear that is not left while it is open.").default("'park'"),
        Key::new("writes", Choice(WRITES), "Whether writes are refused while it is open, with its end as Retry-After.")
            .default("'refuse'"),
        Key::new("lead", Duration, "How long before it what is asked for is renewed in the store.").default("'10m'"),
        Key::new("ramp", Duration, "How long after it slots are let out slowly.").default("'5m'"),
        Key::new("mode", Choice(MODES), "Whether it is kept, or what it would refuse is only counted.")
            .default("'enforce'"),
    ],
};

static RETRY: Section = Section {
    name: "retry",
    about: "When a request is tried again. Only what is safe ever is: idempotent, or not yet sent.",
    keys: &[
        Key::new("attempts", Whole, "Tries in all, the first included; 1: no retries.").default("2"),
        Key::new("budget", Ratio, "Retries as a share of the requests.").default("0.1"),
        Key::new("budget_min", Number, "Retries per second that are allowed in any case.").default("0.1"),
        Key::new("backoff", Duration, "The upper end of the first wait; doubles each time.").default("'100ms'"),
        Key::new("backoff_max", Duration, "The longest wait.").default("'2s'"),
    ],
};

static TIMEOUTS: Section = Section {
    name: "timeouts",
    about: "How long an upstream may take.",
    keys: &[
        Key::new("connect", Duration, "To find its address and connect, TLS included.").default("'2s'"),
        Key::new("head", Duration, "From the sent request to the head of the answer.").default("'30s'"),
        Key::new("total", Duration, "For everything: all attempts and the body of the answer.").default("'60s'"),
    ],
};

static POOL: Section = Section {
    name: "pool",
    about: "Connections to an upstream.",
    keys: &[
        Key::new("keepalive", Flag, "Connections are used again.").default("true"),
        Key::new("idle", Whole, "Idle connections kept for each endpoint and worker.").default("64"),
        Key::new("idle_timeout", Duration, "How long they are kept; less than the upstream keeps them.")
            .default("'4s'"),
        Key::new("max_requests", Whole, "Requests after which a connection is closed; any number if not given."),
    ],
};

static UPSTREAM_TLS: Section = Section {
    name: "tls of an [upstream.NAME]",
    about: "How https endpoints are spoken to.",
    keys: &[
        Key::new("ca", File, "Certificates that must have signed the endpoint's, PEM; the system's if not given."),
        Key::new("client_cert", File, "The certificate chain vaxel shows, PEM."),
        Key::new("client_key", File, "Its private key, PEM."),
        Key::new("server_name", Text, "The name the certificate must have; the endpoint's host if not given."),
        Key::new("verify", Flag, "Whether the certificate is checked at all.").default("true"),
    ],
};

static PROBE: Section = Section {
    name: "probe",
    about: "How endpoints are checked.",
    keys: &[
        Key::new("path", Text, "The path that must answer 2xx or 3xx; a connection is enough if not given."),
        Key::new("every", Duration, "The time between two probes.").default("'5s'"),
        Key::new("timeout", Duration, "How long one may take.").default("'2s'"),
        Key::new("rise", Whole, "Good probes in a row that bring an endpoint back.").default("2"),
        Key::new("fall", Whole, "Bad probes in a row that take it out.").default("3"),
    ],
};
