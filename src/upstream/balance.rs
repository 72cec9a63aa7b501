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
