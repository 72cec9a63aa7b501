//! Which endpoint takes the next request.

/// How the endpoints of an upstream share its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Balance {
    /// One after the other.
    #[default]
    RoundRobin,
    /// Of two drawn at random, the one with fewer requests in flight.
    LeastOfTwo,
}
/// Load
pub type Load = usize;
/// choose
pub fn choose(_p: Balance, _c: impl Fn(usize) -> Option<Load>, _n: usize, _cur: u64, _d: u64) -> Option<usize> { Some(0) }
