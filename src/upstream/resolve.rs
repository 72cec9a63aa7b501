//! Where an endpoint's name leads: looked up once, kept, and renewed off the request path.
//!
//! A request waits for a lookup only the first time a name is asked for; after that the control plane calls
//! [`Resolver::refresh`] now and then (every half minute) and requests read what is there. A lookup that fails keeps
//! the old addresses: a name server that is down must not take a healthy backend with it.
//!
//! The system's resolver is asked, so that `/etc/hosts` and search domains work as everywhere. It tells no lifetimes;
//! the interval of the refresh stands in for them.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{fmt, io};

use parking_lot::Mutex;

use crate::clock::Clock;

/// The addresses of names, shared by all workers.
pub struct Resolver {
    clock: Clock,
    lookup: Box<Lookup>,
    names: Mutex<HashMap<Target, Arc<Name>>>,
}

/// What a [`Resolver::refresh`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Refreshed {
    /// Names that lead elsewhere now.
    pub changed: usize,
    /// Names whose lookup failed, and which keep their addresses.
    pub failed: usize,
}

impl Resolver {
    /// One that asks the system.
    pub fn new(clock: Clock) -> Self {
        Self::over(clock, |host, port| async move { Ok(tokio::net::lookup_host((&*host, port)).await?.collect()) })
    }

    /// One that asks `lookup`: for tests and for embedders with a directory of their own.
    pub fn over<F>(clock: Clock, lookup: impl Fn(Box<str>, u16) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = io::Result<Vec<SocketAddr>>> + Send + 'static,
    {
        let lookup: Box<Lookup> = Box::new(move |host, port| Box::pin(lookup(host, port)));
        Self { clock, lookup, names: Mutex::default() }
    }

    /// The addresses of `host:port`, never empty; each call begins with another one of the preferred family, so that
    /// connections spread over them. An address as `host`, with or without brackets, is taken as it is.
    ///
    /// Waits only if the name has no addresses yet; the caller bounds the time. However many ask meanwhile, one lookup
    /// is made at a time, and its failure stands for a second.
    ///
    /// # Errors
    /// The lookup's, if the name never had an address.
    pub async fn resolve(&self, host: &str, port: u16) -> io::Result<Arc<[SocketAddr]>> {
        if let Some(ip) = literal(host) {
            return Ok(Arc::new([SocketAddr::new(ip, port)]));
        }
        let name = self.name(host, port);
        if let Some(known) = name.recall(self.clock.now()) {
            return known;
        }
        let _turn = name.asking.lock().await;
        if let Some(known) = name.recall(self.clock.now()) {
            return known;
        }
        let found = (self.lookup)(host.into(), port).await;
        name.learn(found, self.clock.now());
        name.recall(self.clock.now()).unwrap_or_else(|| Err(io::ErrorKind::NotFound.into()))
    }

    /// Looks all known names up again, one after the other. For the control plane; cancelling it loses nothing.
    pub async fn refresh(&self) -> Refreshed {
        let names: Vec<_> = self.names.lock().iter().map(|(key, name)| (key.clone(), name.clone())).collect();
        let mut refreshed = Refreshed::default();
        for ((host, port), name) in names {
            let _turn = name.asking.lock().await;
            let found = tokio::time::timeout(LOOKUP_TIMEOUT, (self.lookup)(host, port)).await;
            match name.learn(found.unwrap_or_else(|elapsed| Err(elapsed.into())), self.clock.now()) {
                Learnt::Same => {}
                Learnt::Changed => refreshed.changed += 1,
                Learnt::Failed => refreshed.failed += 1,
            }
        }
        refreshed
    }

    /// Forgets the names that `keep` does not want: after a reload.
    pub fn retain(&self, keep: impl Fn(&str, u16) -> bool) {
        self.names.lock().retain(|(host, port), _| keep(host, *port));
    }

    fn name(&self, host: &str, port: u16) -> Arc<Name> {
        self.names.lock().entry((host.into(), port)).or_default().clone()
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver").field("names", &self.names.lock().len()).finish_non_exhaustive()
    }
}

/// Host and port.
type Target = (Box<str>, u16);

type Lookup = dyn Fn(Box<str>, u16) -> Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send>> + Send + Sync;

/// One name.
#[derive(Default)]
struct Name {
    held: Mutex<Held>,
    /// Held during a lookup, so that there is one at a time.
    asking: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Held {
    /// Sorted into families, the system's preferred one first.
    addresses: Vec<SocketAddr>,
    /// How many of them are of the preferred family.
    preferred: usize,
    /// How often they were asked for.
    turn: usize,
    /// When and how the last lookup failed.
    failure: Option<(Instant, io::ErrorKind, Box<str>)>,
}

enum Learnt {
    Same,
    Changed,
    Failed,
}

impl Name {
    /// The addresses, or the fresh failure; `None` if a lookup is due.
    fn recall(&self, now: Instant) -> Option<io::Result<Arc<[SocketAddr]>>> {
        let held = &mut *self.held.lock();
        if !held.addresses.is_empty() {
            held.turn = held.turn.wrapping_add(1);
            return Some(Ok(held.rotated(held.turn - 1)));
        }
        let (at, kind, why) = held.failure.as_ref()?;
        let fresh = now.saturating_duration_since(*at) < FAILURE_STANDS;
        fresh.then(|| Err(io::Error::new(*kind, &**why)))
    }

    fn learn(&self, found: io::Result<Vec<SocketAddr>>, now: Instant) -> Learnt {
        let held = &mut *self.held.lock();
        let failure = match found {
            Ok(found) if !found.is_empty() => return held.replace(found),
            Ok(_) => io::Error::new(io::ErrorKind::NotFound, "the name has no address"),
            Err(failure) => failure,
        };
        held.failure = Some((now, failure.kind(), failure.to_string().into()));
        Learnt::Failed
    }
}

impl Held {
    /// Takes new addresses. The same ones in another order are no news: name servers turn them with each answer.
    fn replace(&mut self, mut found: Vec<SocketAddr>) -> Learnt {
        self.failure = None;
        let v6_first = found.first().is_some_and(SocketAddr::is_ipv6);
        found.sort_by_key(|address| (address.is_ipv6() != v6_first, *address));
        found.dedup();
        if found == self.addresses {
            return Learnt::Same;
        }
        self.preferred = found.iter().take_while(|address| address.is_ipv6() == v6_first).count();
        self.addresses = found;
        Learnt::Changed
    }

    /// The addresses, each family turned by `turn`; the families keep their order (RFC 6724), since one of them may
    /// lead nowhere.
    fn rotated(&self, turn: usize) -> Arc<[SocketAddr]> {
        let (preferred, others) = self.addresses.split_at(self.preferred.min(self.addresses.len()));
        turned(preferred, turn).chain(turned(others, turn)).collect()
    }
}

fn turned(addresses: &[SocketAddr], turn: usize) -> impl Iterator<Item = SocketAddr> {
    let start = turn.checked_rem(addresses.len()).unwrap_or(0);
    addresses.iter().cycle().skip(start).take(addresses.len()).copied()
}

/// An address written where a name may stand; an IPv6 one may have the brackets of a URI (RFC 3986 section 3.2.2).
fn literal(host: &str) -> Option<IpAddr> {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    bare.parse().ok()
}

/// How long a failed first lookup answers for those that follow: a dead name server must not be asked per request.
const FAILURE_STANDS: Duration = Duration::from_secs(1);
/// How long the refresh waits for one name.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// A directory that a test writes and that counts how often it is asked; an empty one is down.
    #[derive(Clone, Default)]
    struct Directory {
        addresses: Arc<Mutex<Vec<SocketAddr>>>,
        asked: Arc<AtomicUsize>,
    }

    impl Directory {
        fn of(addresses: &str) -> (Self, Resolver) {
            let directory = Self::default();
            directory.write(addresses);
            let read = directory.clone();
            let resolver = Resolver::over(Clock::system(), move |_, _| {
                read.asked.fetch_add(1, Ordering::Relaxed);
                let found = read.addresses.lock().clone();
                async move {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    if found.is_empty() { Err(io::Error::other("no name server")) } else { Ok(found) }
                }
            });
            (directory, resolver)
        }

        fn write(&self, addresses: &str) {
            *self.addresses.lock() = addresses.split_whitespace().map(|address| address.parse().unwrap()).collect();
        }

        fn asked(&self) -> usize {
            self.asked.load(Ordering::Relaxed)
        }
    }

    async fn resolve(resolver: &Resolver) -> String {
        match resolver.resolve("erp", 80).await {
            Ok(addresses) => addresses.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(" "),
            Err(failure) => failure.to_string(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_needs_no_lookup() {
        let (directory, resolver) = Directory::of("");
        for (host, expected) in
            [("10.0.0.5", "10.0.0.5:80"), ("::1", "[::1]:80"), ("[2001:db8::1]", "[2001:db8::1]:80")]
        {
            let addresses = resolver.resolve(host, 80).await.unwrap();
            assert_eq!(*addresses, [expected.parse().unwrap()], "{host}");
        }
        assert_eq!(directory.asked(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_is_looked_up_once_however_many_ask() {
        let (directory, resolver) = Directory::of("10.0.0.1:80");
        let (first, second) = tokio::join!(resolve(&resolver), resolve(&resolver));
        assert_eq!((&*first, &*second), ("10.0.0.1:80", "10.0.0.1:80"));
        resolve(&resolver).await;
        assert_eq!(directory.asked(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn the_addresses_rotate_inside_their_family() {
        let (_, resolver) = Directory::of("10.0.0.1:80 [::1]:80 10.0.0.2:80 10.0.0.1:80");
        for _ in 0..2 {
            assert_eq!(resolve(&resolver).await, "10.0.0.1:80 10.0.0.2:80 [::1]:80");
            assert_eq!(resolve(&resolver).await, "10.0.0.2:80 10.0.0.1:80 [::1]:80");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_refresh_follows_the_name_and_does_not_mind_the_order() {
        let (directory, resolver) = Directory::of("10.0.0.1:80 10.0.0.2:80");
        resolve(&resolver).await;
        directory.write("10.0.0.2:80 10.0.0.1:80");
        assert_eq!(resolver.refresh().await, Refreshed::default());
        directory.write("10.0.0.9:80");
        assert_eq!(resolver.refresh().await, Refreshed { changed: 1, failed: 0 });
        assert_eq!(resolve(&resolver).await, "10.0.0.9:80");
        assert_eq!(directory.asked(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_refresh_keeps_the_old_addresses() {
        let (directory, resolver) = Directory::of("10.0.0.1:80");
        resolve(&resolver).await;
        directory.write("");
        assert_eq!(resolver.refresh().await, Refreshed { changed: 0, failed: 1 });
        tokio::time::advance(Duration::from_secs(86_400)).await;
        assert_eq!(resolve(&resolver).await, "10.0.0.1:80");
        assert_eq!(directory.asked(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_first_failure_stands_for_a_second() {
        let (directory, resolver) = Directory::of("");
        let (first, second) = tokio::join!(resolve(&resolver), resolve(&resolver));
        assert_eq!((&*first, &*second, directory.asked()), ("no name server", "no name server", 1));
        directory.write("10.0.0.1:80");
        tokio::time::advance(Duration::from_millis(999)).await;
        assert_eq!(resolve(&resolver).await, "no name server");
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(resolve(&resolver).await, "10.0.0.1:80");
        assert_eq!(directory.asked(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_cancelled_lookup_leaves_the_way_free() {
        let (directory, resolver) = Directory::of("10.0.0.1:80");
        let cut = tokio::time::timeout(Duration::from_millis(10), resolve(&resolver)).await;
        assert!(cut.is_err());
        assert_eq!(resolve(&resolver).await, "10.0.0.1:80");
        assert_eq!(directory.asked(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_lookup_that_hangs_does_not_hold_up_the_refresh() {
        let hang = Arc::new(Mutex::new(false));
        let read = hang.clone();
        let resolver = Resolver::over(Clock::system(), move |_, _| {
            let hangs = *read.lock();
            async move {
                if hangs {
                    std::future::pending::<()>().await;
                }
                Ok(vec!["10.0.0.1:80".parse().unwrap()])
            }
        });
        resolve(&resolver).await;
        *hang.lock() = true;
        assert_eq!(resolver.refresh().await, Refreshed { changed: 0, failed: 1 });
    }

    #[tokio::test(start_paused = true)]
    async fn names_that_are_no_longer_wanted_are_forgotten() {
        let (directory, resolver) = Directory::of("10.0.0.1:80");
        resolve(&resolver).await;
        resolver.retain(|host, port| (host, port) == ("erp", 80));
        resolver.refresh().await;
        resolver.retain(|_, _| false);
        resolver.refresh().await;
        assert_eq!(directory.asked(), 2);
    }
}
