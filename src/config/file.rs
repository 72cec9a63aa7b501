//! The file as it is written: every section, every key, its default and what it means. The only place where a key or a
//! default is spelled; `vaxel schema` prints it, `config/vaxel.toml` shows it.

use super::dictionary::Kind::{
    Choice, Duration, File, Flag, List, Map, Named, Number, OneOrMore, Predicate, Rate, Ratio, Secret, Size, Switch,
    Table, Tables, Text, Whole, WholeOr,
};
use super::dictionary::{Key, Section};

mod cache;

use cache::CACHE;
pub use cache::{CANONICALS, ON_UNEXPECTED};

/// The whole file.
pub static FILE: Section = Section {
    name: "the file",
    about: "The configuration of vaxel.",
    keys: &[
        Key::new("server", Table(&SERVER), "The process."),
        Key::new("admin", Table(&ADMIN), "Metrics, health, API and page; nothing listens without it."),
        Key::new("log", Table(&LOG), "Logs."),
        Key::new("forwarded", Table(&FORWARDED), "What upstreams learn of the client, and whose word is taken for it."),
        Key::new("cache", Table(&STORE), "The cache that all routes share."),
        Key::new("listener", Tables(&LISTENER), "Where vaxel accepts connections; at least one.").required(),
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
        Key::new("query", Flag, "Whether its lines hold the query, which may name people.").default("false"),
        Key::new("format", Choice(FORMATS), "How its lines are written.").default("'json'"),
    ],
};

/// The words of `log.format`.
pub const FORMATS: &[&str] = &["json", "text"];

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

static LISTENER: Section = Section {
    name: "[[listener]]",
    about: "Where vaxel accepts connections.",
    keys: &[
        Key::new("listen", Text, "Address and port.").required(),
        Key::new("tls", Table(&LISTENER_TLS), "HTTPS; without it plain HTTP/1.1 and HTTP/2 with prior knowledge."),
        Key::new(
            "accept",
            Choice(ACCEPTS),
            "How connections reach the workers: spread by the kernel, or handed to the least loaded one.",
        )
        .default("'reuseport'"),
        Key::new("backlog", Whole, "Connections the kernel keeps until they are accepted.").default("4096"),
        Key::new("connections", Whole, "Open connections; more are turned away with 503.").default("16384"),
        Key::new("head_size", Size, "The largest request head.").default("'64KiB'"),
        Key::new("head_timeout", Duration, "How long a request head or a TLS handshake may take.").default("'10s'"),
        Key::new("idle_timeout", Duration, "How long a connection may stay idle.").default("'60s'"),
        Key::new("h2_streams", Whole, "Requests at the same time on one HTTP/2 connection.").default("128"),
    ],
};

/// The words of `listener.accept`.
pub const ACCEPTS: &[&str] = &["reuseport", "dispatch"];

static LISTENER_TLS: Section = Section {
    name: "tls of a [[listener]]",
    about: "HTTPS.",
    keys: &[
        Key::new("cert", File, "The certificate chain, PEM.").required(),
        Key::new("key", File, "The private key, PEM.").required(),
        Key::new("also", Tables(&PAIR), "Further certificates, shown to clients that ask for their names (SNI)."),
        Key::new(
            "client_ca",
            File,
            "Certificates that must have signed the client's, PEM; without it clients need none.",
        ),
    ],
};

static PAIR: Section = Section {
    name: "also of tls",
    about: "A further certificate; the names it is for decide who is shown it.",
    keys: &[
        Key::new("cert", File, "The certificate chain, PEM.").required(),
        Key::new("key", File, "The private key, PEM.").required(),
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
        Key::new("rate", Table(&RATE), "How much it may ask for, instead of what the route says."),
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
    ],
};

/// The words of a class.
pub const CLASSES: &[&str] = &["interactive", "normal", "batch"];

static UPSTREAM: Section = Section {
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
pub const BALANCES: &[&str] = &["round_robin", "least_of_two"];
/// The words of `upstream.host`.
pub const HOSTS: &[&str] = &["keep", "upstream"];
/// The words of `upstream.expect`.
pub const EXPECTS: &[&str] = &["relay", "answer"];

/// The words of `slots.adaptive`.
pub const POLICIES: &[&str] = &["gradient", "aimd"];
/// The words of `slots.mode`.
pub const LIMIT_MODES: &[&str] = &["enforce", "shadow"];

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
        Key::new("start", Whole, "How many at first, and in force in shadow mode; a quarter of `max` if not given."),
        Key::new("slow", Duration, "For aimd: an answer that takes longer means too much; none does if not given."),
        Key::new("mode", Choice(LIMIT_MODES), "Whether the number counts, or is only suggested.").default("'enforce'"),
    ],
};

static QUEUE: Section = Section {
    name: "queue",
    about: "Who waits for a slot.",
    keys: &[
        Key::new("max", Whole, "Requests that may wait; 4 for each slot, at least 64, if not given. 0: nobody."),
        Key::new("timeout", Duration, "How long a request may wait.").default("'2s'"),
    ],
};

static BREAKER: Section = Section {
    name: "breaker",
    about: "When the upstream is left alone.",
    keys: &[
        Key::new("window", Duration, "The time that is looked at.").default("'30s'"),
        Key::new("minimum", Whole, "It stays closed while fewer calls than this are in the window.").default("10"),
        Key::new("failure_ratio", Ratio, "It opens at this share of broken calls.").default("0.5"),
        Key::new("slow", Duration, "A call that takes longer is slow; none is if not given."),
        Key::new("slow_ratio", Ratio, "It opens at this share of slow calls.").default("0.8"),
        Key::new("open", Duration, "How long it stays open the first time; doubles while trials fail.").default("'5s'"),
        Key::new("open_max", Duration, "The longest it stays open.").default("'5m'"),
        Key::new("trials", Whole, "Requests that must do well before it closes.").default("3"),
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
        Key::new("limp_class", Choice(CLASSES), "The least urgent class that passes in limp.").default("'normal'"),
    ],
};

/// The words of a policy's mode.
pub const MODES: &[&str] = &["enforce", "shadow"];

/// The words of a window's gear.
pub const GEAR_WORDS: &[&str] = &["eco", "limp", "park"];

/// The words of a window's writes.
pub const WRITES: &[&str] = &["refuse", "pass"];

static WINDOW: Section = Section {
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

static ROUTE: Section = Section {
    name: "[[route]]",
    about: "Which requests go where, and how. The most specific host and path win, whatever the order.",
    keys: &[
        Key::new("name", Text, "Its name in metrics and logs; its path if not given."),
        Key::new("match", Table(&MATCH), "Which requests it takes.").required(),
        Key::new("upstream", Text, "Where they go: the NAME of an [upstream.NAME].").required(),
        Key::new("class", Choice(CLASSES), "How urgent they are at the upstream.").default("'normal'"),
        Key::new("cost", Whole, "What one counts against rates, and how many slots it takes.").default("1"),
        Key::new("require_consumer", Flag, "Refuses anonymous callers.").default("false"),
        Key::new("rate", Table(&RATE), "How much each consumer, or anonymous address, may ask for."),
        Key::new("max_body", Size, "The largest request body; any size if not given."),
        Key::new("business_500", Flag, "A 500 is an answer, not a failure: SOAP sends its faults so.").default("false"),
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
    about: "A fixed answer.",
    keys: &[
        Key::new("status", Whole, "Its status.").default("503"),
        Key::new("content_type", Text, "Its Content-Type.").default("'text/plain; charset=utf-8'"),
        Key::new("body", Text, "Its body."),
        Key::new("body_file", File, "Its body, from a file that is read when the configuration is loaded."),
    ],
};
