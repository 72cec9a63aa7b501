//! Idle connections, kept per worker: a request never uses a connection that another thread's event loop watches, and
//! takes no lock that another worker wants. Last in, first out, so that the surplus grows old and is closed.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::link::Link;
use crate::clock::Clock;

/// How connections to one endpoint are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolParams {
    /// Idle connections kept per worker.
    pub idle: usize,
    /// Closed after resting so long. Keep it below the endpoint's own, or requests meet closing connections.
    pub idle_timeout: Duration,
    /// Requests a connection may carry; `None` is any number.
    pub max_requests: Option<u32>,
    /// Whether connections are used again at all: iterative servers are blocked by an idle one.
    pub keepalive: bool,
}

impl Default for PoolParams {
    /// 4 s: Node.js and many application servers close after 5.
    fn default() -> Self {
        Self { idle: 64, idle_timeout: Duration::from_secs(4), max_requests: None, keepalive: true }
    }
}

/// The idle connections to one endpoint.
#[derive(Debug)]
pub struct Pool {
    params: PoolParams,
    clock: Clock,
    shards: Box<[Shard]>,
}

/// One worker's; on a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Shard(Mutex<Links>);

/// Boxed: a link is moved in and out for each request, and is larger than its place here.
type Links = Vec<Box<Link>>;

/// Where a link goes when it comes to rest.
#[derive(Debug, Clone)]
pub struct Home {
    pool: Arc<Pool>,
    worker: usize,
}

impl Pool {
    /// An empty pool for `workers` event loops.
    pub fn new(params: PoolParams, workers: usize, clock: Clock) -> Arc<Self> {
        let shards = (0..workers.max(1)).map(|_| Shard::default()).collect();
        Arc::new(Self { params, clock, shards })
    }

    /// An idle connection, if there is one. The endpoint may have closed it meanwhile.
    pub fn checkout(&self, worker: usize) -> Option<Box<Link>> {
        loop {
            let now = self.clock.now();
            let rested = |link: &Link| link.idle_since.map(|since| now.saturating_duration_since(since));
            let is_ready = |link: &Link| !link.is_doubtful || rested(link).is_none_or(|rested| rested >= DOUBT);
            let mut link = {
                let mut links = self.shard(worker).lock();
                let place = links.iter().rposition(|link| is_ready(link))?;
                links.remove(place)
            };
            if rested(&link).is_none_or(|rested| rested < self.params.idle_timeout) {
                link.idle_since = None;
                return Some(link);
            }
        }
    }

    /// Closes what has rested too long.
    pub fn sweep(&self) {
        let now = self.clock.now();
        for Shard(shard) in &self.shards {
            let expired = |link: &Link| {
                link.idle_since.is_some_and(|since| now.saturating_duration_since(since) >= self.params.idle_timeout)
            };
            // The oldest lie at the bottom. Dropped after the lock is.
            let old: Links = {
                let mut links = shard.lock();
                let count = links.iter().take_while(|link| expired(link)).count();
                links.drain(..count).collect()
            };
            drop(old);
        }
    }

    /// Idle connections of all workers.
    pub fn idle(&self) -> usize {
        self.shards.iter().map(|Shard(shard)| shard.lock().len()).sum()
    }

    fn shard(&self, worker: usize) -> &Mutex<Links> {
        let Shard(shard) = self.shards.get(worker % self.shards.len()).expect("the modulus is the length");
        shard
    }
}

/// How long a link is left alone whose answer had no body though it spoke of one: a server that sends one all the same has
/// sent it by then, and the link is found not to be quiet. At once, it would answer the next request.
const DOUBT: Duration = Duration::from_millis(50);

impl Home {
    /// The place of `worker` in `pool`.
    pub fn new(pool: Arc<Pool>, worker: usize) -> Self {
        Self { pool, worker }
    }

    /// Keeps a link that can be used again, or closes it.
    pub fn checkin(self, mut link: Box<Link>) {
        let params = &self.pool.params;
        if !params.keepalive || params.max_requests.is_some_and(|max| link.served >= max) {
            return;
        }
        link.idle_since = Some(self.pool.clock.now());
        let mut links = self.pool.shard(self.worker).lock();
        if links.len() < params.idle {
            links.push(link);
        }
    }
}
