//! Active probes of all endpoints whose upstream asks for them; they begin anew at each reload.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use super::Handle;
use crate::clock::Clock;
use crate::upstream::Upstream;
use crate::upstream::connect::Connector;
use crate::upstream::probe::{self, ProbeParams};

impl Handle {
    /// Probes endpoints for as long as it is polled. The server runs it; an embedding program that wants probes does
    /// so itself.
    pub async fn probe(&self) {
        loop {
            let mut probes = JoinSet::new();
            let reloaded = self.reloaded();
            for (upstream, params) in self.probed() {
                for (index, endpoint) in upstream.endpoints.iter().enumerate() {
                    let Some(connector) = endpoint.connector.clone() else { continue };
                    let authority = endpoint.authority.to_str().unwrap_or_default().to_owned();
                    probes.spawn(keep_probing(
                        Arc::clone(&upstream),
                        index,
                        connector,
                        authority,
                        params.clone(),
                        self.clock().clone(),
                    ));
                }
            }
            reloaded.await;
        }
    }
}

async fn keep_probing(
    upstream: Arc<Upstream>,
    index: usize,
    connector: Connector,
    authority: String,
    params: ProbeParams,
    clock: Clock,
) {
    // The endpoints of an upstream are not probed all at once.
    let first = params.every.mul_f64(index as f64 / upstream.endpoints.len() as f64).min(Duration::from_secs(1));
    let connect = || async { connector.connect().await.map_err(io::Error::other) };
    let once = || probe::check(connect(), &authority, params.path.as_deref());
    probe::run(&params, first, once, |result| upstream.probed(index, result.is_ok(), &params, clock.now())).await;
}
