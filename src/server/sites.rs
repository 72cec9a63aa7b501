//! The certificates of the listeners while the server runs: taken up at a reload, and when their files change.

use std::net::SocketAddr;
use std::sync::Arc;

use super::ServerError;
use crate::config::settings::ListenerSettings;
use crate::listen::tls::{Expiry, LiveTls, Prepared};
use crate::message::chain;
use crate::metrics::{CertificateLive, Metrics};

/// The TLS of each listener that has it, by the address it is configured with.
pub(super) struct Sites(Vec<(SocketAddr, Arc<LiveTls>)>);

impl Sites {
    /// Reads all certificates.
    ///
    /// # Errors
    /// The first that cannot be used.
    pub(super) fn load(listeners: &[ListenerSettings]) -> Result<Self, ServerError> {
        let load = |settings: &ListenerSettings| {
            let address = settings.listen;
            let live = LiveTls::load(settings.tls.as_ref()?);
            Some(
                live.map(|live| (address, live)).map_err(|error| ServerError::Tls { address, source: Box::new(error) }),
            )
        };
        Ok(Self(listeners.iter().filter_map(load).collect::<Result<_, _>>()?))
    }

    /// The TLS of the listener at `address`.
    pub(super) fn find(&self, address: SocketAddr) -> Option<&Arc<LiveTls>> {
        self.0.iter().find(|(of, _)| *of == address).map(|(_, live)| live)
    }

    /// Reads the certificates of all listeners that go on; nothing is in force yet.
    ///
    /// # Errors
    /// The first that cannot be used, in words.
    pub(super) fn prepare(&self, listeners: &[ListenerSettings]) -> Result<Vec<(&LiveTls, Prepared)>, String> {
        let mut all = Vec::new();
        for settings in listeners {
            if let (Some(params), Some(live)) = (&settings.tls, self.find(settings.listen)) {
                let failed = |error| format!("listener {}: {}", settings.listen, chain(&error));
                all.push((live.as_ref(), LiveTls::prepare(params).map_err(failed)?));
            }
        }
        Ok(all)
    }

    /// Takes up certificates whose files have changed.
    pub(super) fn refresh(&self) {
        for (address, live) in &self.0 {
            match live.refresh() {
                Ok(true) => tracing::info!(%address, "certificates taken up"),
                Ok(false) => {}
                Err(error) => {
                    let error = chain(&error);
                    tracing::error!(%address, error, "changed certificates cannot be used, the old ones stay in force");
                }
            }
        }
    }

    /// Lets a scrape see when they end, under the addresses that were really bound.
    pub(super) fn watch(&self, listeners: &[ListenerSettings], bound: &[SocketAddr], metrics: &Metrics) {
        let named = listeners.iter().zip(bound).filter(|(settings, _)| settings.tls.is_some());
        let named =
            named.filter_map(|(settings, bound)| Some((bound.to_string(), Arc::clone(self.find(settings.listen)?))));
        let named: Vec<_> = named.collect();
        metrics.watch_certificates(Box::new(move || {
            let of = |(listener, live): &(String, Arc<LiveTls>)| -> Vec<CertificateLive> {
                let live = live.expiries().into_iter();
                live.map(|Expiry { certificate, at }| CertificateLive {
                    listener: listener.clone(),
                    certificate,
                    expiry: at,
                })
                .collect()
            };
            named.iter().flat_map(of).collect()
        }));
    }
}
