//! `[[listener]]`.

use super::super::dictionary::Kind::{Choice, Duration, File, Size, Table, Tables, Text, Whole};
use super::super::dictionary::{Key, Section};

pub(super) static LISTENER: Section = Section {
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
        Key::new(
            "connections_per_address",
            Whole,
            "The same for each client address (IPv6 by /64); any number if not given, as behind another proxy.",
        ),
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
