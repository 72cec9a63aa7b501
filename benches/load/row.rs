//! What is measured: one kind of request for each row of the table.

/// One kind of request.
#[derive(Debug)]
pub(crate) struct Row {
    /// Its name, as in `--rows`.
    pub(crate) name: &'static str,
    /// What it is, for the table.
    pub(crate) about: &'static str,
    /// The path at the origin.
    pub(crate) path: &'static str,
    /// How it travels.
    pub(crate) protocol: Protocol,
    /// The length of the body it sends by POST; 0: it is a GET.
    pub(crate) sends: usize,
    /// The length of the body it gets.
    pub(crate) gets: usize,
    /// Whether the cache answers; the origin does otherwise, every time.
    pub(crate) cached: bool,
}

/// How a request travels to the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// HTTP/1.1.
    Plain,
    /// HTTP/1.1 over TLS.
    Tls,
    /// HTTP/2 over TLS.
    H2,
}

impl Protocol {
    pub(crate) const fn is_encrypted(self) -> bool {
        matches!(self, Self::Tls | Self::H2)
    }
}

/// All rows, in the order of the table.
pub(crate) static ROWS: &[Row] = &[
    Row { name: "hit1k", about: "1 KiB from the cache", path: "/hit1k", cached: true, ..PLAIN },
    Row { name: "hit100k", about: "100 KiB from the cache", path: "/hit100k", gets: 102_400, cached: true, ..PLAIN },
    Row { name: "pass1k", about: "1 KiB from the origin", path: "/pass1k", ..PLAIN },
    Row { name: "pass100k", about: "100 KiB from the origin", path: "/pass100k", gets: 102_400, ..PLAIN },
    Row { name: "post1k", about: "POST, 1 KiB there and back", path: "/post1k", sends: 1024, ..PLAIN },
    Row {
        name: "tls_hit1k",
        about: "1 KiB from the cache, TLS",
        path: "/hit1k",
        cached: true,
        protocol: Protocol::Tls,
        ..PLAIN
    },
    Row {
        name: "h2_hit1k",
        about: "1 KiB from the cache, HTTP/2",
        path: "/hit1k",
        cached: true,
        protocol: Protocol::H2,
        ..PLAIN
    },
    Row { name: "tls_pass1k", about: "1 KiB from the origin, TLS", path: "/pass1k", protocol: Protocol::Tls, ..PLAIN },
];

const PLAIN: Row =
    Row { name: "", about: "", path: "", protocol: Protocol::Plain, sends: 0, gets: 1024, cached: false };
