//! The file as it is written: every section, every key, its default and what it means. The only place where a key or a
//! default is spelled; `vaxel schema` prints it, `config/vaxel.toml` shows it.

use super::dictionary::Kind::{
    Choice, Duration, File, Flag, List, Map, Named, OneOrMore, Predicate, Rate, Ratio, Secret, Size, StatusRange,
    Switch, Table, Tables, Text, Whole,
};
use super::dictionary::{Key, Section};

mod cache;
mod listener;
mod upstream;

use cache::CACHE;
pub use cache::{CANONICALS, ON_UNEXPECTED};
pub use listener::ACCEPTS;
use listener::LISTENER;
use upstream::{MODES, UPSTREAM, WINDOW};

/// The whole file.
pub static FILE: Section = Section {
    name: "the file",
    about: "The configuration of vaxel.",
    keys: &[
        Key::new("server", Table(&SERVER), "The process."),
        Key::new("admin", Table(&ADMIN), "Metrics, health, API and page; nothing listens without it."),
        Key::new("log", Table(&LOG), "Logs."),
        Key::new("traces", Table(&TRACES), "Traces by OTLP; none are sent without it."),
        Key::new("forwarded", Table(&FORWARDED), "What upstreams learn of the client, and whose word is taken for it."),
        Key::new("limits", Table(&LIMITS), "How clients are told of their rates and quotas."),
        Key::new("cache", Table(&STORE), "The cache that all routes share."),
        Key::new(
            "listener",
            Tables(&LISTENER),
            "Where vaxel accepts connections; at least one, except in a program that has a server of its own.",
        ),
        Key::new("consumer", Named(&CONSUMER), "Who calls. Everybody else is anonymous, told apart by address."),
        Key::new("upstream", Named(&UPSTREAM), "What is protected: one or several servers that share a capacity.")
            .required(),
        Key::new("window", Named(&WINDOW), "When upstreams are spared."),
        Key::new("route", Tables(&ROUTE), "Which requests go where, and how; at least one.").required(),
    ],
};

static SERVER: Section = Section {
    name: "[server]",
    about: "The process.",
    keys: &[
        Key::new("workers", Whole, "Threads that serve requests; 0: one per core.").default("0"),
        Key::new("drain", Duration, "How long requests may take to end when the process stops.").default("'30s'"),
        Key::new(
            "state",
            Text,
            "The file that keeps what was used of quotas, and what slots have learned, over a restart; without it both begin anew.",
        ),
        Key::new(
            "observe",
            Flag,
            "Whether answers that pass the store are observed, as keyed hashes alone, for `vaxel advise`.",
        )
        .default("true"),
    ],
};

static ADMIN: Section = Section {
    name: "[admin]",
    about: "Metrics, health, API and page.",
    keys: &[
        Key::new("listen", Text, "Address and port.").default("'127.0.0.1:9900'"),
        Key::new("token", Secret, "What callers send as `Authorization: Bearer`; only its digest is kept."),
        Key::new("metrics", Choice(METRICS_FOR), "Who may read /metrics when there is a token.").default("'open'"),
    ],
};

/// The words of `admin.metrics`.
pub const METRICS_FOR: &[&str] = &["open", "token"];

static LOG: Section = Section {
    name: "[log]",
    about: "Logs.",
    keys: &[
        Key::new("access", Text, "Where a line per request goes: \"stdout\", \"off\", or the path of a file.")
            .default("'stdout'"),
        Key::new(
            "query",
            Flag,
            "Whether its lines hold the query, which may name people; tokens and passwords in it are hidden.",
        )
        .default("false"),
        Key::new(
            "sample",
            Whole,
            "One of so many good answers has a line, which says so; what is refused or fails always has one.",
        )
        .default("1"),
        Key::new("format", Choice(FORMATS), "How its lines are written.").default("'json'"),
    ],
};

/// The words of `log.format`.
pub const FORMATS: &[&str] = &["json", "text"];

static TRACES: Section = Section {
    name: "[traces]",
    about: "Traces of requests, sent to a collector by OTLP over HTTP.",
    keys: &[
        Key::new("otlp", Text, "The collector: \"http://127.0.0.1:4318\"; a path counts instead of /v1/traces.")
            .required(),
        Key::new(
            "sample",
            Ratio,
            "The share of requests without a `traceparent` that are traced; those with one go by its flag.",
        )
        .default("0.01"),
        Key::new("service", Text, "The name of the service in its spans.").default("'vaxel'"),
    ],
};

static FORWARDED: Section = Section {
    name: "[forwarded]",
    about: "What upstreams learn of the client.",
    keys: &[
        Key::new(
            "trusted",
            List(&Text),
            "Networks of proxies before vaxel whose Forwarded and X-Forwarded fields are believed.",
        )
        .default("[]"),
        Key::new(
            "mode",
            Choice(FORWARD_MODES),
            "Which fields upstreams get: X-Forwarded-For, -Proto and -Host, or Forwarded (RFC 7239).",
        )
        .default("'x-forwarded'"),
    ],
};

/// The words of `forwarded.mode`.
pub const FORWARD_MODES: &[&str] = &["x-forwarded", "forwarded", "both", "off"];

static LIMITS: Section = Section {
    name: "[limits]",
    about: "How clients are told of their rates and quotas.",
    keys: &[Key::new(
        "fields",
        Choice(LIMIT_FIELDS),
        "RateLimit and RateLimit-Policy; X-RateLimit-Limit, -Remaining and -Reset for older clients; both, or none.",
    )
    .default("'ratelimit'")],
};

/// The words of `limits.fields`.
pub const LIMIT_FIELDS: &[&str] = &["ratelimit", "x-ratelimit", "both", "off"];

static STORE: Section = Section {
    name: "[cache]",
    about: "The cache that all routes share.",
    keys: &[
        Key::new("size", Size, "Memory for stored answers.").default("'256MiB'"),
        Key::new("fills", Size, "Memory for answers that are just arriving to be stored.").default("'64MiB'"),
        Key::new("persist", Table(&PERSIST), "Keeps what is stored over a restart; nothing is written without it."),
    ],
};

static PERSIST: Section = Section {
    name: "persist",
    about: "Keeps what is stored over a restart. What belongs to one consumer alone is never written.",
    keys: &[
        Key::new("file", Text, "The file; its folder must be there and writable.").required(),
        Key::new("every", Duration, "The time between two writings, for the case of a crash.").default("'5m'"),
        Key::new("max", Size, "The largest file; `size` of the cache if not given."),
    ],
};

static CONSUMER: Section = Section {
    name: "[consumer.NAME]",
    about: "Who calls.",
    keys: &[
        Key::new("identify", Table(&IDENTIFY), "How it is recognised: by API key, header value, or network.")
            .required(),
        Key::new("weight", Whole, "Its share of an upstream when that is scarce, compared with the others'.")
            .default("1"),
        Key::new("class", Choice(CLASSES), "How urgent its requests are, instead of what the route says."),
        Key::new("rate", Table(&RATE), "How much it may ask for on all routes together, beside what a route says."),
        Key::new("quota", OneOrMore(&Table(&QUOTA)), "How much it may ask for in an hour, a day or a month."),
    ],
};

static IDENTIFY: Section = Section {
    name: "identify of a [consumer.NAME]",
    about: "How a consumer is recognised.",
    keys: &[
        Key::new("api_key", OneOrMore(&Secret), "Keys, any of which it sends; only their digests are kept."),
        Key::new("api_key_sha256", OneOrMore(&Text), "The same as SHA-256 digests in hexadecimal."),
        Key::new(
            "header",
            Text,
            "The header the key or the value is in: x-api-key for keys if not given. `authorization` may say Bearer.",
        ),
        Key::new(
            "value",
            Secret,
            "The value of that header, when there are no keys: for proxies that have checked who it is.",
        ),
        Key::new("network", OneOrMore(&Text), "Networks it calls from."),
    ],
};

static RATE: Section = Section {
    name: "rate",
    about: "Requests per time.",
    keys: &[
        Key::new("limit", Rate, "The rate that is kept up.").required(),
        Key::new("burst", Whole, "How many requests may come at once; the number of `limit` if not given."),
        Key::new("excess", Choice(EXCESS), "What is over it is refused, or waits for its turn.").default("'reject'"),
        Key::new("delay_max", Duration, "The longest it waits; what would have to wait longer is refused.")
            .default("'1s'"),
        Key::new("delayed_max", Whole, "Requests that wait at the same time; further ones are refused.")
            .default("1000"),
        Key::new("mode", Choice(MODES), "Whether what is over it is refused or waits, or is only counted.")
            .default("'enforce'"),
    ],
};

/// The words of what becomes of what is over a rate.
pub const EXCESS: &[&str] = &["reject", "delay"];

static QUOTA: Section = Section {
    name: "quota of a [consumer.NAME]",
    about: "Requests per window of the clock or the calendar.",
    keys: &[
        Key::new("limit", Whole, "How many requests a window has room for; a route's `cost` counts.").required(),
        Key::new("per", Choice(QUOTA_PER), "How long a window is.").required(),
        Key::new("zone", Text, "The time zone in which windows begin and end.").default("'UTC'"),
        Key::new("mode", Choice(MODES), "Whether what is beyond it is refused, or only counted.").default("'enforce'"),
    ],
};

/// The words of `per` of a quota.
pub const QUOTA_PER: &[&str] = &["hour", "day", "month"];

/// The words of a class of consumers.
pub const CLASSES: &[&str] = &["interactive", "normal", "batch"];

/// The words of a class of routes: what a logon is depends on what is asked for, not on who asks.
pub const ROUTE_CLASSES: &[&str] = &["interactive", "normal", "logon", "batch"];

static ROUTE: Section = Section {
    name: "[[route]]",
    about: "Which requests go where, and how. The most specific host and path win, whatever the order.",
    keys: &[
        Key::new("name", Text, "Its name in metrics and logs; its path if not given."),
        Key::new("match", Table(&MATCH), "Which requests it takes.").required(),
        Key::new("upstream", Text, "Where they go: the NAME of an [upstream.NAME].").required(),
        Key::new(
            "class",
            Choice(ROUTE_CLASSES),
            "How urgent they are at the upstream. \"logon\", whoever asks: they begin a session, and few at a time may.",
        )
        .default("'normal'"),
        Key::new("cost", Whole, "What one counts against rates, and how many slots it takes.").default("1"),
        Key::new("require_consumer", Flag, "Refuses anonymous callers.").default("false"),
        Key::new("rate", Table(&RATE), "How much each consumer, or anonymous address, may ask for."),
        Key::new("max_body", Size, "The largest request body; any size if not given."),
        Key::new(
            "body_timeout",
            Duration,
            "How long a request body may keep us waiting; a second more for each KiB that has come.",
        )
        .default("'30s'"),
        Key::new(
            "deadline",
            Text,
            "The request field that says how long its caller waits: \"x-timeout-ms\", \"grpc-timeout\".",
        ),
        Key::new("faults", Choice(FAULTS), "How the upstream reports faults: by status, as SOAP, or as JSON-RPC.")
            .default("'http'"),
        Key::new("classify", Tables(&CLASSIFY), "What answers mean: the first rule that fits, before `faults`."),
        Key::new("cache", Switch(&CACHE), "Stores answers: `true` as long as the origin allows, a table to say more.")
            .default("false"),
        Key::new(
            "group",
            Text,
            "Routes of one group show the same data: an unsafe request on one outdates what is stored for all of them.",
        ),
        Key::new("rewrite", Table(&REWRITE), "Another path for the upstream."),
        Key::new("request_headers", Table(&EDITS), "Changes the request to the upstream."),
        Key::new("response_headers", Table(&EDITS), "Changes the answer to the client."),
        Key::new(
            "fallback",
            Table(&FALLBACK),
            "What is answered when the upstream cannot and nothing stale may be served.",
        ),
    ],
};

/// The words of how faults are reported.
pub const FAULTS: &[&str] = &["http", "soap", "json-rpc"];

/// The words of what an answer means.
pub const MEANINGS: &[&str] = &["ok", "business", "broken", "overloaded"];

static CLASSIFY: Section = Section {
    name: "classify of a [[route]]",
    about: "What an answer means that looks like this. All that is given must fit.",
    keys: &[
        Key::new("status", OneOrMore(&StatusRange), "Its status: 500, \"5xx\", or \"500-504\"; any if not given."),
        Key::new(
            "headers",
            Map(&Predicate),
            "Its fields: a value (or its beginning and a *), true (it is there), or false (it is not).",
        )
        .default("{}"),
        Key::new("body", Text, "Text in the first 4 KiB of its body, as it is written."),
        Key::new(
            "means",
            Choice(MEANINGS),
            "\"ok\"; \"business\": a no of the application; \"broken\": a failure; \"overloaded\": it wants less work.",
        )
        .required(),
    ],
};

static MATCH: Section = Section {
    name: "match",
    about: "Which requests a route takes.",
    keys: &[
        Key::new("path", Text, "The path: \"/a\", \"/a/{id}\", \"/a/{*rest}\" for everything below (and \"/a\").")
            .required(),
        Key::new("host", Text, "The host: \"erp.example\", or \"*.example\" for all below it; any if not given."),
        Key::new("methods", OneOrMore(&Text), "The methods; any if not given. GET includes HEAD."),
        Key::new(
            "headers",
            Map(&Predicate),
            "Header fields: a value it must have, true (it is there), or false (it is not).",
        )
        .default("{}"),
    ],
};

static REWRITE: Section = Section {
    name: "rewrite",
    about: "Another path for the upstream.",
    keys: &[
        Key::new("strip", Text, "Taken from the front of the path.").default("''"),
        Key::new("add", Text, "Put before what is left.").default("''"),
    ],
};

static EDITS: Section = Section {
    name: "headers",
    about: "Changes header fields.",
    keys: &[
        Key::new("remove", List(&Text), "Fields that are taken out, before others are set.").default("[]"),
        Key::new("set", Map(&Text), "Fields and their values, whatever they were before.").default("{}"),
    ],
};

static FALLBACK: Section = Section {
    name: "fallback",
    about: "What stands in: another upstream, then a fixed answer.",
    keys: &[
        Key::new(
            "upstream",
            Text,
            "The NAME of an [upstream.NAME] that is asked first, once, with its own slots; safe requests only.",
        ),
        Key::new("status", Whole, "Its status.").default("503"),
        Key::new("content_type", Text, "Its Content-Type.").default("'text/plain; charset=utf-8'"),
        Key::new("body", Text, "Its body."),
        Key::new("body_file", File, "Its body, from a file that is read when the configuration is loaded."),
    ],
};
