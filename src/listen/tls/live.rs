//! A listener's TLS while it runs: made anew when its files change, and exchanged whole. What cannot be used changes
//! nothing, so that a half-written renewal never takes a listener down.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rustls::ServerConfig;
use tokio_rustls::TlsAcceptor;

use super::{Made, TlsError, TlsParams, make};

/// The TLS of one listener, shared by all workers.
pub struct LiveTls {
    made: ArcSwap<Made>,
    source: Mutex<Source>,
}

/// Where it comes from.
struct Source {
    params: TlsParams,
    stamps: Vec<Stamp>,
}

/// A configuration that is ready to be put in force.
pub struct Prepared {
    made: Made,
    source: Source,
}

/// When a certificate ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expiry {
    /// Its file.
    pub certificate: String,
    /// The end of its validity.
    pub at: SystemTime,
}

/// By which a change of a file is noticed: its number, its last change, its length; a renewal often renames.
type Stamp = Option<(u64, SystemTime, u64)>;

impl LiveTls {
    /// Reads the files of `params`.
    ///
    /// # Errors
    /// Says which file cannot be used and why.
    pub fn load(params: &TlsParams) -> Result<Arc<Self>, TlsError> {
        let Prepared { made, source } = Self::prepare(params)?;
        Ok(Arc::new(Self { made: ArcSwap::from_pointee(made), source: Mutex::new(source) }))
    }

    /// Reads the files of `params`, to be put in force by [`LiveTls::put`].
    ///
    /// # Errors
    /// Says which file cannot be used and why.
    pub fn prepare(params: &TlsParams) -> Result<Prepared, TlsError> {
        // The stamps first: what changes while the files are read is then seen as changed.
        let stamps = stamps(params);
        Ok(Prepared { made: make(params)?, source: Source { params: params.clone(), stamps } })
    }

    /// Puts it in force for handshakes from now on.
    pub fn put(&self, prepared: Prepared) {
        *self.source.lock() = prepared.source;
        self.made.store(Arc::new(prepared.made));
    }

    /// Reads the files again if they have changed since they were last read; whether they had.
    ///
    /// # Errors
    /// What cannot be used; once for each change.
    pub fn refresh(&self) -> Result<bool, TlsError> {
        let params = {
            let mut source = self.source.lock();
            let now = stamps(&source.params);
            if source.stamps == now {
                return Ok(false);
            }
            source.stamps = now;
            source.params.clone()
        };
        self.put(Self::prepare(&params)?);
        Ok(true)
    }

    /// What does the next handshake.
    pub fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.config())
    }

    /// The configuration in force.
    pub fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.made.load().config)
    }

    /// When the certificates in force end.
    pub fn expiries(&self) -> Vec<Expiry> {
        self.made.load().expiries.clone()
    }
}

fn stamps(params: &TlsParams) -> Vec<Stamp> {
    let stamp = |path: &Path| {
        let metadata = fs::metadata(path).ok()?;
        Some((metadata.ino(), metadata.modified().ok()?, metadata.len()))
    };
    params.files().map(stamp).collect()
}

#[cfg(test)]
mod tests {
    use super::super::Pair;
    use super::*;
    use crate::listen::certs::development_certificates;

    #[test]
    fn files_that_change_are_read_again_and_bad_ones_leave_the_old_in_force() {
        let dir = tempfile::tempdir().unwrap();
        let names = ["localhost".to_owned()];
        let certs = development_certificates(dir.path(), &names, false).unwrap();
        let params = TlsParams {
            site: Pair { cert: certs.cert.clone(), key: certs.key.clone() },
            also: Vec::new(),
            client_ca: None,
        };
        let tls = LiveTls::load(&params).unwrap();
        let first = tls.config();
        assert!(!tls.refresh().unwrap(), "nothing has changed");

        // The certificate is there before its key.
        let next = tempfile::tempdir().unwrap();
        let fresh = development_certificates(next.path(), &names, false).unwrap();
        fs::rename(&fresh.cert, &certs.cert).unwrap();
        assert!(tls.refresh().unwrap_err().to_string().contains("does not belong"));
        assert!(!tls.refresh().unwrap(), "told once");
        assert!(Arc::ptr_eq(&tls.config(), &first));
        fs::rename(&fresh.key, &certs.key).unwrap();
        assert!(tls.refresh().unwrap());
        assert!(!Arc::ptr_eq(&tls.config(), &first));

        fs::remove_file(&certs.key).unwrap();
        let second = tls.config();
        assert!(tls.refresh().is_err());
        assert!(Arc::ptr_eq(&tls.config(), &second));
        assert_eq!(tls.expiries().first().unwrap().certificate, certs.cert.display().to_string());
    }
}
