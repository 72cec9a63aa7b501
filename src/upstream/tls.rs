//! TLS towards an upstream: whom to trust, what to show, which name to expect.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::listen::tls::{authorities, certificates, pair_error, private_key, provider};

pub use crate::listen::tls::TlsError;

/// How the `https` endpoints of an upstream are spoken to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamTls {
    /// PEM: the authorities that are trusted, in place of the machine's own.
    pub ca: Option<PathBuf>,
    /// PEM: the certificate shown to a server that asks for one, with its intermediates.
    pub client_cert: Option<PathBuf>,
    /// PEM: its private key.
    pub client_key: Option<PathBuf>,
    /// The name the certificate must be for and that is sent as SNI, where it is not the endpoint's host.
    pub server_name: Option<String>,
    /// Whether the server's certificate must be valid. `false` is dangerous: whoever can reach the wire between vaxel
    /// and the upstream can pose as the upstream, and read and change everything. For trials only; a certificate of
    /// one's own making is better trusted through `ca`.
    pub verify: bool,
}

impl Default for UpstreamTls {
    fn default() -> Self {
        Self { ca: None, client_cert: None, client_key: None, server_name: None, verify: true }
    }
}

impl UpstreamTls {
    /// The name a certificate of the endpoint `host` must be for; an IPv6 address may stand in brackets, as it does
    /// in a URI.
    ///
    /// # Errors
    /// [`TlsError::ServerName`] if it is neither a host name nor an address.
    pub fn name_for(&self, host: &str) -> Result<ServerName<'static>, TlsError> {
        let name = self.server_name.as_deref().unwrap_or(host);
        let plain = name.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(name);
        Ok(ServerName::try_from(plain.to_owned())?)
    }
}

/// The client side for all endpoints of an upstream: TLS 1.2 and 1.3, HTTP/1.1 only, sessions resumed.
///
/// # Errors
/// Says which file or setting cannot be used and why.
pub fn client_config(params: &UpstreamTls) -> Result<Arc<ClientConfig>, TlsError> {
    let provider = provider();
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Setup)?;
    let builder = match (&params.ca, params.verify) {
        (Some(path), true) => builder.with_root_certificates(authorities(path)?),
        (None, true) => builder.with_root_certificates(native_authorities()?),
        (None, false) => builder.dangerous().with_custom_certificate_verifier(Arc::new(Unverified(provider))),
        (Some(_), false) => return Err(TlsError::UnusedAuthorities),
    };
    let mut config = match (&params.client_cert, &params.client_key) {
        (None, None) => builder.with_no_client_auth(),
        (Some(cert), Some(key)) => builder
            .with_client_auth_cert(certificates(cert)?, private_key(key)?)
            .map_err(|source| pair_error(cert, key, source))?,
        _ => return Err(TlsError::HalfPair),
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// The authorities this machine trusts. Some of a big bundle may be unusable; that is no reason to trust none.
fn native_authorities() -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if store.is_empty() { Err(TlsError::NoNativeAuthorities) } else { Ok(store) }
}

/// Accepts whatever certificate a server shows, as long as the server has its key: `verify = false`.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use rustls::{HandshakeKind, ServerConfig};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio_rustls::{TlsAcceptor, TlsConnector};

    use super::*;
    use crate::listen::certs::{DevCerts, development_certificates};
    use crate::listen::tls::{LiveTls, Pair, TlsParams};

    /// Two authorities, each with a certificate for `erp.example` and 127.0.0.1.
    struct World {
        ours: DevCerts,
        theirs: DevCerts,
        _dir: tempfile::TempDir,
    }

    fn world() -> World {
        let dir = tempfile::tempdir().unwrap();
        let names = ["erp.example".to_owned(), "127.0.0.1".to_owned()];
        let ours = development_certificates(&dir.path().join("ours"), &names, false).unwrap();
        let theirs = development_certificates(&dir.path().join("theirs"), &names, false).unwrap();
        World { ours, theirs, _dir: dir }
    }

    impl World {
        fn server(&self, client_ca: Option<&DevCerts>) -> Arc<ServerConfig> {
            let client_ca = client_ca.map(|certs| certs.ca_cert.clone());
            {
                let site = Pair { cert: self.ours.cert.clone(), key: self.ours.key.clone() };
                LiveTls::load(&TlsParams { site, also: Vec::new(), client_ca }).unwrap().config()
            }
        }

        fn trusting(&self, authority: &DevCerts) -> UpstreamTls {
            UpstreamTls { ca: Some(authority.ca_cert.clone()), ..UpstreamTls::default() }
        }

        fn showing(&self, certs: &DevCerts) -> UpstreamTls {
            let (cert, key) = (Some(certs.cert.clone()), Some(certs.key.clone()));
            UpstreamTls { client_cert: cert, client_key: key, ..self.trusting(&self.ours) }
        }
    }

    struct Met {
        alpn: Option<Vec<u8>>,
        kind: Option<HandshakeKind>,
        client_certificates: usize,
    }

    /// A handshake and one byte each way, so that a refusal of the client's certificate, which TLS 1.3 tells after the
    /// handshake, is seen as well.
    async fn meet(
        server: &Arc<ServerConfig>,
        client: &Arc<ClientConfig>,
        name: ServerName<'static>,
    ) -> std::io::Result<Met> {
        let (near, far) = tokio::io::duplex(16 * 1024);
        let serving = async {
            let mut stream = TlsAcceptor::from(Arc::clone(server)).accept(far).await?;
            let byte = stream.read_u8().await?;
            stream.write_u8(byte).await?;
            stream.shutdown().await?;
            Ok::<_, std::io::Error>(stream.get_ref().1.peer_certificates().map_or(0, <[_]>::len))
        };
        let calling = async {
            let mut stream = TlsConnector::from(Arc::clone(client)).connect(name, near).await?;
            stream.write_u8(7).await?;
            assert_eq!(stream.read_u8().await?, 7);
            let session = stream.get_ref().1;
            Ok::<_, std::io::Error>((session.alpn_protocol().map(<[u8]>::to_vec), session.handshake_kind()))
        };
        let (served, called) = tokio::join!(serving, calling);
        let (alpn, kind) = called?;
        Ok(Met { alpn, kind, client_certificates: served? })
    }

    async fn check(server: &Arc<ServerConfig>, params: &UpstreamTls, host: &str, expected: Result<usize, &str>) {
        let client = client_config(params).unwrap();
        match (meet(server, &client, params.name_for(host).unwrap()).await, expected) {
            (Ok(met), Ok(certificates)) => {
                assert_eq!(met.client_certificates, certificates, "{params:?} {host}");
                assert_eq!(met.alpn.as_deref(), Some(&b"http/1.1"[..]));
            }
            (Err(problem), Err(part)) => assert!(problem.to_string().contains(part), "{problem} should say {part}"),
            (met, expected) => panic!("{params:?} {host}: {:?} instead of {expected:?}", met.map(|met| met.alpn)),
        }
    }

    #[tokio::test]
    async fn a_server_is_trusted_by_its_authority_and_its_name() {
        let world = world();
        let server = world.server(None);
        let trusting = world.trusting(&world.ours);
        check(&server, &trusting, "erp.example", Ok(0)).await;
        check(&server, &trusting, "127.0.0.1", Ok(0)).await;
        check(&server, &trusting, "other.example", Err("not valid for name")).await;
        check(&server, &trusting, "[::1]", Err("not valid for name")).await;
        check(&server, &world.trusting(&world.theirs), "erp.example", Err("invalid peer certificate")).await;
        let named = UpstreamTls { server_name: Some("erp.example".to_owned()), ..trusting };
        check(&server, &named, "10.0.0.5", Ok(0)).await;
        let reckless = UpstreamTls { verify: false, ..UpstreamTls::default() };
        check(&server, &reckless, "other.example", Ok(0)).await;
    }

    #[tokio::test]
    async fn a_client_must_show_a_certificate_where_one_is_asked_for() {
        let world = world();
        let server = world.server(Some(&world.ours));
        check(&server, &world.showing(&world.ours), "erp.example", Ok(1)).await;
        check(&server, &world.trusting(&world.ours), "erp.example", Err("CertificateRequired")).await;
        check(&server, &world.showing(&world.theirs), "erp.example", Err("received fatal alert")).await;
        check(&world.server(None), &world.showing(&world.ours), "erp.example", Ok(0)).await;
    }

    #[tokio::test]
    async fn the_second_handshake_resumes_the_first_and_h2_is_preferred() {
        let world = world();
        let server = world.server(None);
        let params = world.trusting(&world.ours);
        let client = client_config(&params).unwrap();
        for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
            let met = meet(&server, &client, params.name_for("erp.example").unwrap()).await.unwrap();
            assert_eq!(met.kind, Some(kind));
        }
        let mut browser = ClientConfig::clone(&client);
        browser.alpn_protocols = vec![b"http/1.1".to_vec(), b"h2".to_vec()];
        let met = meet(&server, &Arc::new(browser), params.name_for("erp.example").unwrap()).await.unwrap();
        assert_eq!(met.alpn.as_deref(), Some(&b"h2"[..]));
    }

    #[test]
    fn settings_that_make_no_sense_are_refused() {
        let world = world();
        let whole = world.showing(&world.ours);
        let check = |params: UpstreamTls, expected: &str| {
            let problem = client_config(&params).unwrap_err().to_string();
            assert!(problem.contains(expected), "{problem:?} should say {expected:?}");
        };
        check(UpstreamTls { client_key: None, ..whole.clone() }, "both `client_cert` and `client_key`");
        check(UpstreamTls { client_cert: None, ..whole.clone() }, "both `client_cert` and `client_key`");
        check(UpstreamTls { client_key: Some(world.theirs.key), ..whole.clone() }, "does not belong");
        check(UpstreamTls { verify: false, ..whole.clone() }, "`ca` has no effect");
        check(UpstreamTls { ca: Some("absent.pem".into()), ..whole.clone() }, "cannot read absent.pem");
        assert!(matches!(whole.name_for("a b"), Err(TlsError::ServerName(_))));
    }
}
