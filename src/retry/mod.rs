//! Whether and when to try again.

use std::time::Duration;

pub mod backoff;
pub mod budget;

/// How often and how soon to try again. The defaults are for one small legacy backend.
#[derive(Debug, Clone, PartialEq)]
pub struct RetryParams {
    /// Tries in all, the first included; 1 means no retries.
    pub attempts: u32,
    /// Retries allowed as a share of the requests (0 to 1), so that retries can never multiply an outage.
    pub budget_ratio: f64,
    /// Retries per second allowed in any case, so that a quiet upstream may retry at all.
    pub budget_min_per_second: f64,
    /// The upper end of the first wait; doubles with each retry.
    pub backoff: Duration,
    /// The longest wait.
    pub backoff_max: Duration,
}

impl Default for RetryParams {
    fn default() -> Self {
        Self {
            attempts: 2,
            budget_ratio: 0.1,
            budget_min_per_second: 0.1,
            backoff: Duration::from_millis(100),
            backoff_max: Duration::from_secs(2),
        }
    }
}
