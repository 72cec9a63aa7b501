//! Which certificate a client is shown: the one for the name it asks for (SNI, RFC 6066 section 3), else the first.

use std::collections::HashMap;
use std::sync::Arc;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

/// The certificates of a listener.
#[derive(Debug)]
pub(super) struct Sni {
    first: Arc<CertifiedKey>,
    by_name: HashMap<String, Arc<CertifiedKey>>,
}

impl Sni {
    /// Certificates with their names in lower case. A name that several have belongs to the first of them.
    pub(super) fn new(first: CertifiedKey, names: Vec<String>, also: Vec<(CertifiedKey, Vec<String>)>) -> Self {
        let first = Arc::new(first);
        let mut by_name: HashMap<_, _> = names.into_iter().map(|name| (name, Arc::clone(&first))).collect();
        for (certificate, names) in also {
            let certificate = Arc::new(certificate);
            for name in names {
                by_name.entry(name).or_insert_with(|| Arc::clone(&certificate));
            }
        }
        Self { first, by_name }
    }

    /// The certificate for `name`: exactly, then by the wildcard one level up (RFC 9525 section 6.3), else the first.
    pub(super) fn find(&self, name: Option<&str>) -> Arc<CertifiedKey> {
        let found = name.and_then(|name| {
            let name = name.to_ascii_lowercase();
            let wildcard = || self.by_name.get(&format!("*.{}", name.split_once('.')?.1));
            self.by_name.get(&name).or_else(wildcard)
        });
        Arc::clone(found.unwrap_or(&self.first))
    }
}

impl ResolvesServerCert for Sni {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.find(hello.server_name()))
    }
}
