//! Active health probes.

use std::time::Duration;

/// How an endpoint is probed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeParams {
    /// The path to GET; `None`: a TCP connect (and TLS handshake, if the endpoint speaks it) is enough.
    pub path: Option<String>,
    /// The time between two probes.
    pub every: Duration,
    /// How long one probe may take.
    pub timeout: Duration,
    /// Good probes in a row that bring an endpoint back.
    pub rise: u32,
    /// Bad probes in a row that take an endpoint out.
    pub fall: u32,
}

impl Default for ProbeParams {
    fn default() -> Self {
        Self { path: None, every: Duration::from_secs(5), timeout: Duration::from_secs(2), rise: 2, fall: 3 }
    }
}
