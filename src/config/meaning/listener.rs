//! `[[listener]]`.

use toml::Spanned;

use super::super::diagnostics::Mistake;
use super::super::reader::Reader;
use super::super::settings::{AdminSettings, ListenerSettings};
use super::super::units::{positive_duration, size};
use super::super::values::{address, file, whole};
use super::no_twice;
use crate::listen::tls::{Pair, TlsParams};
use crate::listen::{Accept, ListenLimits};

/// One listener, at the place of its address.
pub(super) fn read(listener: &mut Reader<'_>) -> Option<Spanned<ListenerSettings>> {
    let listen = listener.required("listen", address);
    let tls = listener.optional_table("tls", |tls| {
        let site = pair(tls);
        let also = tls.tables("also", pair);
        let client_ca = tls.optional("client_ca", file);
        Some(TlsParams { site: site?, also: also.into_iter().collect::<Option<_>>()?, client_ca })
    });
    let accept = listener.choice("accept", &[("reuseport", Accept::Reuseport), ("dispatch", Accept::Dispatch)]);
    let backlog = listener.value("backlog", whole(1));
    let limits = ListenLimits {
        connections: listener.value("connections", whole(1)),
        connections_per_address: listener.optional("connections_per_address", whole(1)),
        head_size: listener.value("head_size", |value| match size(value)? {
            bytes @ LEAST_HEAD..=MOST_HEAD => Ok(usize::try_from(bytes).unwrap_or(usize::MAX)),
            _ => Err(Mistake::new("a request head is allowed between 8KiB and 1MiB")),
        }),
        head_timeout: listener.value("head_timeout", positive_duration),
        idle_timeout: listener.value("idle_timeout", positive_duration),
        h2_streams: listener.value("h2_streams", whole(1)),
    };
    let place = listener.span("listen");
    let tls = match tls {
        None => None,
        Some(tls) => Some(tls?),
    };
    Some(Spanned::new(place, ListenerSettings { listen: listen?, tls, accept, backlog, limits }))
}

fn pair(table: &mut Reader<'_>) -> Option<Pair> {
    let (cert, key) = (table.required("cert", file), table.required("key", file));
    Some(Pair { cert: cert?, key: key? })
}

/// What must hold between listeners.
pub(super) fn check(file: &mut Reader<'_>, all: &[Option<Spanned<ListenerSettings>>], admin: Option<&AdminSettings>) {
    // Port 0 is any free port: two of them never clash.
    let listeners = all.iter().flatten().filter(|listener| listener.get_ref().listen.port() != 0);
    let addresses = listeners.clone().map(|listener| (listener.get_ref().listen, listener.span()));
    no_twice(file, addresses, |address| Mistake::new(format!("two listeners want {address}")));
    for listener in listeners {
        let address = listener.get_ref().listen;
        if admin.is_some_and(|admin| admin.listen == address) {
            file.error(listener.span(), Mistake::new(format!("[admin] already listens on {address}")));
        }
    }
}

/// hyper's smallest buffer.
const LEAST_HEAD: u64 = 8 * 1024;
/// Beyond this a head is an attack.
const MOST_HEAD: u64 = 1024 * 1024;
