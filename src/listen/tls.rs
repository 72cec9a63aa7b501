//! TLS towards the clients: the listener's certificate, client certificates where they are asked for, ALPN, tickets.
//!
//! The cryptography is aws-lc-rs, named explicitly everywhere: a process-wide default would depend on who else in the
//! program installed one first.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, InvalidDnsNameError, PrivateKeyDer};
use thiserror::Error;

/// What a listener needs for TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsParams {
    /// PEM: the site's certificate, then the intermediates up to, without, the root.
    pub cert: PathBuf,
    /// PEM: its private key (PKCS#8, PKCS#1 or SEC1), not encrypted.
    pub key: PathBuf,
    /// PEM: the authorities of client certificates. With it a client without a valid certificate is refused.
    pub client_ca: Option<PathBuf>,
}

/// The server side of a listener: TLS 1.2 and 1.3, HTTP/2 before HTTP/1.1, one ticket per TLS 1.3 handshake, no early
/// data (it can be replayed, RFC 8470).
///
/// Tickets are stateless and their keys live in the configuration: all workers share one, and a client may resume with
/// any of them.
///
/// # Errors
/// Says which file cannot be used and why.
pub fn server_config(params: &TlsParams) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = provider();
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Setup)?;
    let builder = match &params.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(authorities(path)?), provider).build();
            let unusable = |source| TlsError::Authorities { path: path.clone(), source: Box::new(source) };
            builder.with_client_cert_verifier(verifier.map_err(unusable)?)
        }
    };
    let (chain, key) = (certificates(&params.cert)?, private_key(&params.key)?);
    let mut config =
        builder.with_single_cert(chain, key).map_err(|source| pair_error(&params.cert, &params.key, source))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.ticketer = aws_lc_rs::Ticketer::new().map_err(TlsError::Setup)?;
    config.send_tls13_tickets = 1;
    Ok(Arc::new(config))
}

/// Why TLS cannot be set up.
#[derive(Debug, Error)]
pub enum TlsError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not PEM, or a part of it is broken.
    #[error("{} is not valid PEM", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// Why.
        source: pem::Error,
    },
    /// The file is PEM but holds no certificate.
    #[error("{} holds no certificate", path.display())]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// The file is PEM but holds no private key.
    #[error("{} holds no private key{}", path.display(), if *encrypted { " that is not encrypted" } else { "" })]
    NoKey {
        /// The file.
        path: PathBuf,
        /// It holds one that is encrypted.
        encrypted: bool,
    },
    /// The key belongs to another certificate.
    #[error("the private key in {} does not belong to the certificate in {}", key.display(), cert.display())]
    Mismatch {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// The certificate or the key cannot be used, though they are PEM.
    #[error("the certificate in {} with the private key in {} cannot be used", cert.display(), key.display())]
    Pair {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// Why.
        source: rustls::Error,
    },
    /// A certificate of an authority cannot be used.
    #[error("{} cannot be used as authorities", path.display())]
    Authorities {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The machine has no certificates of authorities.
    #[error("this machine has no trusted certificate authorities; name a bundle as `ca`")]
    NoNativeAuthorities,
    /// A client certificate without its key, or the other way round.
    #[error("a client certificate needs both `client_cert` and `client_key`")]
    HalfPair,
    /// Authorities for a server whose certificate is not verified.
    #[error("`ca` has no effect with `verify = false`")]
    UnusedAuthorities,
    /// Not a name a certificate could be for.
    #[error("the server's name is neither a host name nor an address")]
    ServerName(#[from] InvalidDnsNameError),
    /// The library refuses its own parameters or finds no randomness.
    #[error("TLS cannot be set up")]
    Setup(#[source] rustls::Error),
}

/// The cryptography behind every TLS connection, both ways.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// The certificates in a PEM file, at least one.
pub(crate) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = read(path)?;
    let invalid = |source| TlsError::Pem { path: path.to_owned(), source };
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&text).collect::<Result<_, _>>().map_err(invalid)?;
    if chain.is_empty() { Err(TlsError::NoCertificate { path: path.to_owned() }) } else { Ok(chain) }
}

/// The first private key in a PEM file.
pub(crate) fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let text = read(path)?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|source| match source {
        pem::Error::NoItemsFound => {
            let encrypted = text.windows(ENCRYPTED.len()).any(|window| window == ENCRYPTED);
            TlsError::NoKey { path: path.to_owned(), encrypted }
        }
        source => TlsError::Pem { path: path.to_owned(), source },
    })
}

/// The authorities in a PEM file; each must be usable.
pub(crate) fn authorities(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(path)? {
        let unusable = |source| TlsError::Authorities { path: path.to_owned(), source: Box::new(source) };
        store.add(certificate).map_err(unusable)?;
    }
    Ok(store)
}

/// What is wrong with a certificate and its key.
pub(crate) fn pair_error(cert: &Path, key: &Path, source: rustls::Error) -> TlsError {
    let (cert, key) = (cert.to_owned(), key.to_owned());
    match source {
        rustls::Error::InconsistentKeys(_) => TlsError::Mismatch { cert, key },
        source => TlsError::Pair { cert, key, source },
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::Read { path: path.to_owned(), source })
}

const ENCRYPTED: &[u8] = b"ENCRYPTED";

#[cfg(test)]
mod tests {
    use std::error::Error;

    use super::super::certs::development_certificates;
    use super::*;

    fn check(params: &TlsParams, expected: &str) {
        let problem = server_config(params).unwrap_err();
        let mut text = problem.to_string();
        if let Some(source) = problem.source() {
            text = format!("{text}: {source}");
        }
        assert!(text.contains(expected), "{text:?} should say {expected:?}");
    }

    #[test]
    fn errors_name_the_file_and_the_reason() {
        let dir = tempfile::tempdir().unwrap();
        let certs = development_certificates(dir.path(), &["localhost".to_owned()], false).unwrap();
        let file = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let good = TlsParams { cert: certs.cert, key: certs.key, client_ca: None };
        assert!(server_config(&good).is_ok());

        let with_cert = |cert: PathBuf| TlsParams { cert, ..good.clone() };
        let with_key = |key: PathBuf| TlsParams { key, ..good.clone() };
        let with_ca = |ca: PathBuf| TlsParams { client_ca: Some(ca), ..good.clone() };
        check(&with_cert(dir.path().join("absent.pem")), "absent.pem: No such file");
        check(&with_cert(file("empty.pem", "")), "empty.pem holds no certificate");
        check(&with_cert(good.key.clone()), "site.key holds no certificate");
        check(&with_cert(file("cut.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n")), "cut.pem is not valid PEM");
        let junk = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        check(&with_cert(file("junk.pem", junk)), "junk.pem with the private key in");
        check(&with_key(good.cert.clone()), "site.pem holds no private key");
        let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
        check(&with_key(file("enc.key", encrypted)), "enc.key holds no private key that is not encrypted");
        let broken = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        check(&with_key(file("broken.key", broken)), "broken.key cannot be used");
        check(&with_key(certs.ca_key), "ca.key does not belong to the certificate in");
        check(&with_ca(file("ca-junk.pem", junk)), "ca-junk.pem cannot be used as authorities");
    }
}
