//! What is known of identities: who was let in by the origin, and so may have what is shared on a route
//! ([`CacheParams::shared_after_auth`](crate::cache::CacheParams::shared_after_auth)); and whose answers are forgotten.
//!
//! Forgetting moves the identity on to a new partition, so that it takes one addition however much is stored, and an
//! answer that is just arriving for the old partition is never found either. Both tables are bounded. Where they run
//! out, somebody is asked for by the origin once more; nobody ever gets what is not his.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use parking_lot::RwLock;

/// All identities of one gateway.
pub struct Identities {
    proofs: [RwLock<Proofs>; 16],
    epochs: Box<[AtomicU32]>,
}

/// When the origin let an identity in, by route and identity.
type Proofs = HashMap<(u64, u64), Instant>;

impl Identities {
    /// Nobody is known.
    pub fn new() -> Self {
        Self { proofs: Default::default(), epochs: (0..EPOCHS).map(|_| AtomicU32::new(0)).collect() }
    }

    /// Whether the origin has let `identity` in on `route` (by its number) within the last `window`.
    pub fn is_proven(&self, route: u64, identity: u64, window: Duration, now: Instant) -> bool {
        let proofs = self.shard(identity).read();
        proofs.get(&(route, identity)).is_some_and(|at| now.saturating_duration_since(*at) < window)
    }

    /// The origin has let `identity` in on `route`.
    pub fn prove(&self, route: u64, identity: u64, window: Duration, now: Instant) {
        let mut proofs = self.shard(identity).write();
        if proofs.len() >= PROOFS && !proofs.contains_key(&(route, identity)) {
            proofs.retain(|_, at| now.saturating_duration_since(*at) < window);
            if proofs.len() >= PROOFS {
                proofs.clear();
            }
        }
        proofs.insert((route, identity), now);
    }

    /// The origin has turned `identity` away on `route`; whether it was let in before.
    pub fn withdraw(&self, route: u64, identity: u64) -> bool {
        self.shard(identity).write().remove(&(route, identity)).is_some()
    }

    /// The partition of the store that holds the answers of `identity`.
    pub fn partition(&self, identity: u64) -> u64 {
        let epoch = self.epoch(identity).load(Ordering::Relaxed);
        // Odd, so that different epochs give different partitions: 2^64 divided by the golden ratio.
        identity ^ u64::from(epoch).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    /// Forgets the answers of `identity`, and of a few others with it: theirs are fetched anew.
    pub fn forget(&self, identity: u64) {
        self.epoch(identity).fetch_add(1, Ordering::Relaxed);
    }

    fn shard(&self, identity: u64) -> &RwLock<Proofs> {
        let place = (identity >> 60) as usize;
        self.proofs.get(place).expect("four bits are less than sixteen")
    }

    fn epoch(&self, identity: u64) -> &AtomicU32 {
        let place = identity as usize % EPOCHS;
        self.epochs.get(place).expect("a remainder is less than its divisor")
    }
}

impl Default for Identities {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Identities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let proven: usize = self.proofs.iter().map(|shard| shard.read().len()).sum();
        f.debug_struct("Identities").field("proven", &proven).finish_non_exhaustive()
    }
}

/// Proofs in each of the sixteen shards: 65 536 in all, 2.5 MB.
const PROOFS: usize = 4096;

/// Identities that share an epoch are forgotten together: with 16 384 epochs, one in 16 384. 64 KiB.
const EPOCHS: usize = 16_384;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    const WINDOW: Duration = Duration::from_secs(600);

    #[test]
    fn a_proof_holds_for_its_route_identity_and_time() {
        let (known, now) = (Identities::new(), Clock::system().now());
        known.prove(1, 7, WINDOW, now);
        assert!(known.is_proven(1, 7, WINDOW, now + WINDOW - Duration::from_nanos(1)));
        assert!(!known.is_proven(1, 7, WINDOW, now + WINDOW));
        assert!(!known.is_proven(2, 7, WINDOW, now) && !known.is_proven(1, 8, WINDOW, now));
        assert!(known.withdraw(1, 7) && !known.withdraw(1, 7));
        assert!(!known.is_proven(1, 7, WINDOW, now));
    }

    #[test]
    fn proofs_are_bounded_and_the_latest_counts() {
        let (known, now) = (Identities::new(), Clock::system().now());
        for identity in 0..100_000_u64 {
            known.prove(1, identity, WINDOW, now); // all in the first shard
            assert!(known.is_proven(1, identity, WINDOW, now));
        }
        assert!(known.proofs.iter().all(|shard| shard.read().len() <= PROOFS));
    }

    #[test]
    fn room_is_made_by_what_is_past_first() {
        let (known, now) = (Identities::new(), Clock::system().now());
        for identity in 0..PROOFS as u64 {
            known.prove(1, identity, WINDOW, if identity == 5 { now + WINDOW } else { now });
        }
        known.prove(1, PROOFS as u64, WINDOW, now + WINDOW);
        assert!(known.is_proven(1, 5, WINDOW, now + WINDOW));
        assert_eq!(known.proofs[0].read().len(), 2);
    }

    #[test]
    fn who_is_forgotten_never_comes_back_to_an_old_partition() {
        let known = Identities::new();
        let mut partitions = vec![known.partition(7)];
        assert_eq!(known.partition(7), partitions[0]);
        for _ in 0..100 {
            known.forget(7);
            assert!(!partitions.contains(&known.partition(7)));
            partitions.push(known.partition(7));
        }
        assert_eq!(known.partition(8), 8, "others keep theirs");
    }
}
