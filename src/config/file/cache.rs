//! `cache` of a `[[route]]`.

use super::super::dictionary::Kind::{Choice, Duration, Flag, List, OneOrMore, Size, Switch, Table, Text};
use super::super::dictionary::{Key, Section};

pub(super) static CACHE: Section = Section {
    name: "cache of a [[route]]",
    about: "How answers are stored (RFC 9111).",
    keys: &[
        Key::new("ttl", Duration, "How long an answer is fresh where the origin does not say."),
        Key::new("override", Flag, "`ttl` counts even where the origin says otherwise; never over `private`.")
            .default("false"),
        Key::new(
            "stale_while_revalidate",
            Duration,
            "How long after that it is still served while it is fetched anew.",
        )
        .default("'0s'"),
        Key::new(
            "stale_if_error",
            Duration,
            "How long after that it is served when the upstream fails or is overloaded.",
        )
        .default("'0s'"),
        Key::new("keep", Duration, "How long after that it is kept only to ask whether it has changed.")
            .default("'1h'"),
        Key::new("negative", Duration, "How long 404 and 410 are fresh where the origin does not say."),
        Key::new("max_entry", Size, "The largest body stored.").default("'8MiB'"),
        Key::new("per_consumer", Flag, "Each consumer, and each of its users, has answers of its own.")
            .default("false"),
        Key::new("identity", Table(&IDENTITY), "What tells users apart, who then have answers of their own."),
        Key::new(
            "shared_after_auth",
            Duration,
            "Users share answers, but each must have had a 2xx to a read on this route within this time.",
        ),
        Key::new("ignore_set_cookie", List(&Text), "Cookies whose setting does not make an answer personal.")
            .default("[]"),
        Key::new("strip", List(&Text), "Further fields that a stored answer never carries.").default("[]"),
        Key::new("methods", OneOrMore(&Text), "Methods answered from the store: GET, HEAD, or both; others pass.")
            .default("['GET', 'HEAD']"),
        Key::new("post", Switch(&POST), "POST requests of this route only read, and are answered like GET.")
            .default("false"),
        Key::new(
            "expect",
            OneOrMore(&Text),
            "What answers are: json, xml, html, text, or media types such as application/pdf. Others are not stored.",
        ),
        Key::new("on_unexpected", Choice(ON_UNEXPECTED), "What becomes of an answer that is not what is expected.")
            .default("'pass'"),
        Key::new(
            "targeted",
            List(&Text),
            "Fields that count instead of Cache-Control (RFC 9213), the first one there.",
        )
        .default("['vaxel-cache-control', 'cdn-cache-control']"),
        Key::new("query", Table(&QUERY), "Which query parameters make another answer."),
    ],
};

static POST: Section = Section {
    name: "post",
    about: "POST requests that only read: SOAP, JSON-RPC, GraphQL. Never for a route by which anything is written.",
    keys: &[
        Key::new("max_body", Size, "The largest body that is looked at; requests with larger ones pass.")
            .default("'64KiB'"),
        Key::new(
            "canonical",
            Choice(CANONICALS),
            "Which bodies say the same: those equal but for JSON's or a form's order.",
        )
        .default("'none'"),
        Key::new("headers", List(&Text), "Request fields that make another question; Content-Encoding always does.")
            .default("['content-type', 'soapaction', 'accept', 'accept-language']"),
    ],
};

/// The words of `post.canonical`.
pub const CANONICALS: &[&str] = &["none", "json", "form"];

/// The words of `cache.on_unexpected`.
pub const ON_UNEXPECTED: &[&str] = &["pass", "stale", "broken"];

static IDENTITY: Section = Section {
    name: "identity",
    about: "What tells users apart, beside the consumer and Authorization, which always do.",
    keys: &[
        Key::new("cookies", List(&Text), "Cookies, by name or with * at its end; all others do not matter."),
        Key::new("headers", List(&Text), "Fields that a proxy before vaxel sets."),
    ],
};

static QUERY: Section = Section {
    name: "query",
    about: "Which query parameters make another answer.",
    keys: &[
        Key::new("sort", Flag, "Their order does not matter.").default("false"),
        Key::new("drop", List(&Text), "These do not matter.").default("[]"),
        Key::new("keep", List(&Text), "Only these matter; all if not given."),
    ],
};
