//! TLS towards the clients: the listener's certificate, client certificates where they are asked for, ALPN, tickets.
//!
//! The cryptography is aws-lc-rs, named explicitly everywhere: a process-wide default would depend on who else in the
//! program installed one first.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::WebPkiClientVerifier;
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, InvalidDnsNameError, PrivateKeyDer};
use thiserror::Error;

mod leaf;
mod live;
mod sni;

use leaf::Leaf;
pub use live::{Expiry, LiveTls, Prepared};
use sni::Sni;

/// What a listener needs for TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsParams {
    /// The certificate of the site: shown to clients that ask for no name, or for one that none of them is for.
    pub site: Pair,
    /// Further certificates, shown to clients that ask for a name of theirs (SNI).
    pub also: Vec<Pair>,
    /// PEM: the authorities of client certificates. With it a client without a valid certificate is refused.
    pub client_ca: Option<PathBuf>,
}

/// A certificate with its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// PEM: the site's certificate, then the intermediates up to, without, the root.
    pub cert: PathBuf,
    /// PEM: its private key (PKCS#8, PKCS#1 or SEC1), not encrypted.
    pub key: PathBuf,
}

/// What was made of a listener's files.
struct Made {
    config: Arc<ServerConfig>,
    expiries: Vec<Expiry>,
}

impl TlsParams {
    /// The certificates, the site's first.
    pub fn pairs(&self) -> impl Iterator<Item = &Pair> {
        std::iter::once(&self.site).chain(&self.also)
    }

    /// Every file it is read from.
    fn files(&self) -> impl Iterator<Item = &Path> {
        let pairs = self.pairs().flat_map(|pair| [pair.cert.as_path(), pair.key.as_path()]);
        pairs.chain(self.client_ca.as_deref())
    }
}

/// The server side of a listener: TLS 1.2 and 1.3, HTTP/2 before HTTP/1.1, one ticket per TLS 1.3 handshake, no early
/// data (it can be replayed, RFC 8470).
///
/// Tickets are stateless and their keys live in the configuration: all workers share one, and a client may resume with
/// any of them. When the files change, the keys change too: who is not trusted any more cannot resume.
fn make(params: &TlsParams) -> Result<Made, TlsError> {
    let provider = provider();
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Setup)?;
    let builder = match &params.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let authorities = Arc::new(authorities(path)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(authorities, Arc::clone(&provider)).build();
            let unusable = |source| TlsError::Authorities { path: path.clone(), source: Box::new(source) };
            builder.with_client_cert_verifier(verifier.map_err(unusable)?)
        }
    };
    let (sni, expiries) = shown(params, &provider)?;
    let mut config = builder.with_cert_resolver(Arc::new(sni));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.ticketer = aws_lc_rs::Ticketer::new().map_err(TlsError::Setup)?;
    config.send_tls13_tickets = 1;
    Ok(Made { config: Arc::new(config), expiries })
}

/// The certificates that clients are shown, and when each ends.
fn shown(params: &TlsParams, provider: &CryptoProvider) -> Result<(Sni, Vec<Expiry>), TlsError> {
    let mut expiries = Vec::new();
    let mut named = |pair: &Pair| {
        let (certified, Leaf { not_after, names }) = certified(pair, provider)?;
        expiries.push(Expiry { certificate: pair.cert.display().to_string(), at: not_after });
        Ok((certified, names))
    };
    let (site, names) = named(&params.site)?;
    let also = params.also.iter().map(named).collect::<Result<_, TlsError>>()?;
    Ok((Sni::new(site, names, also), expiries))
}

/// A certificate with its key, and what it says of itself.
fn certified(pair: &Pair, provider: &CryptoProvider) -> Result<(CertifiedKey, Leaf), TlsError> {
    let Pair { cert, key } = pair;
    let chain = certificates(cert)?;
    let leaf = chain.first().and_then(|first| leaf::read(first));
    let certified = CertifiedKey::from_der(chain, private_key(key)?, provider);
    let certified = certified.map_err(|source| pair_error(cert, key, source))?;
    let unreadable = || pair_error(cert, key, rustls::CertificateError::BadEncoding.into());
    Ok((certified, leaf.ok_or_else(unreadable)?))
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
        let problem = make(params).err().unwrap();
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
        let site = Pair { cert: certs.cert, key: certs.key };
        let good = TlsParams { site, also: Vec::new(), client_ca: None };
        assert!(make(&good).is_ok());

        let with_cert = |cert: PathBuf| TlsParams { site: Pair { cert, ..good.site.clone() }, ..good.clone() };
        let with_key = |key: PathBuf| TlsParams { site: Pair { key, ..good.site.clone() }, ..good.clone() };
        let with_ca = |ca: PathBuf| TlsParams { client_ca: Some(ca), ..good.clone() };
        check(&with_cert(dir.path().join("absent.pem")), "absent.pem: No such file");
        check(&with_cert(file("empty.pem", "")), "empty.pem holds no certificate");
        check(&with_cert(good.site.key.clone()), "site.key holds no certificate");
        check(&with_cert(file("cut.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n")), "cut.pem is not valid PEM");
        let junk = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        check(&with_cert(file("junk.pem", junk)), "junk.pem with the private key in");
        check(&with_key(good.site.cert.clone()), "site.pem holds no private key");
        let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
        check(&with_key(file("enc.key", encrypted)), "enc.key holds no private key that is not encrypted");
        let broken = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        check(&with_key(file("broken.key", broken)), "broken.key cannot be used");
        check(&with_key(certs.ca_key), "ca.key does not belong to the certificate in");
        check(&with_ca(file("ca-junk.pem", junk)), "ca-junk.pem cannot be used as authorities");
    }

    #[test]
    fn a_client_is_shown_the_certificate_of_the_name_it_asks_for() {
        let dir = tempfile::tempdir().unwrap();
        let pair = |folder: &str, names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            let certs = development_certificates(&dir.path().join(folder), &names, false).unwrap();
            Pair { cert: certs.cert, key: certs.key }
        };
        let site = pair("site", &["erp.example", "both.example"]);
        let also = vec![pair("shop", &["*.shop.example", "both.example"]), pair("exact", &["a.shop.example"])];
        let params = TlsParams { site, also, client_ca: None };
        let (sni, expiries) = shown(&params, &provider()).unwrap();
        let shown = |name: Option<&str>| {
            let shown = sni.find(name);
            params.pairs().position(|pair| certificates(&pair.cert).unwrap() == shown.cert).unwrap()
        };
        let cases = [
            (None, 0),
            (Some("erp.example"), 0),
            (Some("ERP.example"), 0),
            (Some("both.example"), 0),
            (Some("b.shop.example"), 1),
            (Some("a.shop.example"), 2),
            (Some("c.a.shop.example"), 0),
            (Some("shop.example"), 0),
            (Some("stranger"), 0),
        ];
        for (name, expected) in cases {
            assert_eq!(shown(name), expected, "{name:?}");
        }
        assert_eq!(expiries.len(), 3);
    }
}
