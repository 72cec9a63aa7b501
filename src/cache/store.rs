//! store
use std::hash::{BuildHasherDefault, Hasher};
/// Hasher
#[derive(Debug, Default, Clone, Copy)]
pub struct KeyHasher(u64);
pub(crate) type BuildKeyHasher = BuildHasherDefault<KeyHasher>;
impl Hasher for KeyHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }
    fn write_u128(&mut self, key: u128) {
        self.0 = (key >> 64) as u64 ^ key as u64;
    }
    fn finish(&self) -> u64 {
        self.0
    }
}

/// Store stub
#[derive(Debug)]
pub struct Store;
/// S
#[derive(Default, Debug)]
pub struct Stats {
    /// e
    pub entries: u64,
    /// b
    pub bytes: u64,
    /// c
    pub capacity: u64,
    /// e
    pub evictions: u64,
}
/// Found
#[derive(Debug)]
pub enum Found {
    /// e
    Entry(std::sync::Arc<crate::cache::entry::Entry>),
    /// v
    VaryMiss,
    /// m
    Miss,
    /// u
    Uncacheable,
}
impl Store {
    /// new
    pub fn new(_b: u64) -> Self {
        Self
    }
    /// m
    pub fn maintain(&self) {}
    /// s
    pub fn stats(&self) -> Stats {
        Stats::default()
    }
    /// find
    pub fn find(
        &self,
        _k: crate::cache::key::Key,
        _kr: &crate::cache::key::Keyer,
        _h: &http::HeaderMap,
        _now: std::time::Instant,
    ) -> Found {
        Found::Miss
    }
    /// insert
    pub fn insert(
        &self,
        _k: crate::cache::key::Key,
        _kr: &crate::cache::key::Keyer,
        _h: &http::HeaderMap,
        _e: std::sync::Arc<crate::cache::entry::Entry>,
    ) {
    }
    /// mark
    pub fn mark_uncacheable(&self, _k: crate::cache::key::Key, _now: std::time::Instant) {}
    /// inv
    pub fn invalidate(&self, _k: crate::cache::key::Key) {}
}
#[cfg(test)]
pub(in crate::cache) mod tests {
    use std::sync::Arc;
    use std::time::{Duration, SystemTime};

    use http::{HeaderMap, StatusCode};

    use crate::cache::entry::{Head, Life};
    use crate::clock::Clock;

    /// A plain head: 200, fresh for a minute, no Vary, at `address`.
    pub(in crate::cache) fn head(address: &str) -> Arc<Head> {
        let moment = Clock::system().moment();
        Arc::new(Head {
            status: StatusCode::OK,
            headers: HeaderMap::new(),
            life: Life { fresh: Duration::from_secs(60), ..Life::default() },
            initial_age: Duration::ZERO,
            received: moment.mono,
            date: SystemTime::UNIX_EPOCH,
            etag: None,
            last_modified: None,
            vary: Arc::default(),
            selecting: Box::default(),
            address: address.into(),
            groups: Box::default(),
        })
    }
}
