//! TLS towards the origin: whom Vaxel trusts, what it shows, which name it expects; and whom a listener lets in.

use std::io::{self, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tempfile::TempDir;
use vaxel::listen::certs::{DevCerts, development_certificates};
use vaxel::listen::tls::{Pair, TlsParams};
use vaxel::upstream::tls::{UpstreamTls, client_config};

use super::message::{Message, line};
use super::origin::{Origin, ok};
use super::rig::Rig;

/// An authority and a certificate by it, in a directory of their own.
pub(crate) struct Certificates {
    pub(crate) made: DevCerts,
    _dir: TempDir,
}

impl Certificates {
    pub(crate) fn make(names: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        Self { made: development_certificates(dir.path(), &names, false).unwrap(), _dir: dir }
    }

    /// For a listener; `mutual`: that asks its clients for a certificate by the same authority.
    pub(crate) fn params(&self, mutual: bool) -> TlsParams {
        let DevCerts { ca_cert, cert, key, .. } = &self.made;
        let site = Pair { cert: cert.clone(), key: key.clone() };
        TlsParams { site, also: Vec::new(), client_ca: mutual.then(|| ca_cert.clone()) }
    }

    /// The same for a server that is not Vaxel's.
    fn server(&self, mutual: bool) -> ServerConfig {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        let builder = if mutual {
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from_pem_file(&self.made.ca_cert).unwrap()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.unwrap())
        } else {
            builder.with_no_client_auth()
        };
        let cert = CertificateDer::from_pem_file(&self.made.cert).unwrap();
        builder.with_single_cert(vec![cert], PrivateKeyDer::from_pem_file(&self.made.key).unwrap()).unwrap()
    }
}

/// A server that says by which name it was asked, and whether a certificate was shown to it.
struct Secure {
    address: SocketAddr,
    stopped: Arc<AtomicBool>,
}

fn serving(certs: &Certificates, mutual: bool) -> Secure {
    let config = Arc::new(certs.server(mutual));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let stopped = Arc::new(AtomicBool::new(false));
    let state = Arc::clone(&stopped);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            if state.load(Ordering::Acquire) {
                return;
            }
            let config = Arc::clone(&config);
            std::thread::spawn(move || answer(stream, config));
        }
    });
    Secure { address, stopped }
}

fn answer(mut socket: TcpStream, config: Arc<ServerConfig>) -> io::Result<()> {
    socket.set_read_timeout(Some(super::DEADLINE))?;
    let connection = ServerConnection::new(config).map_err(io::Error::other)?;
    let talked = talk(StreamOwned::new(connection, socket.try_clone()?));
    // As servers do that want their alert read: closing with bytes unread would reset the connection.
    socket.shutdown(Shutdown::Write)?;
    io::copy(&mut socket, &mut io::sink())?;
    talked
}

fn talk(stream: StreamOwned<ServerConnection, TcpStream>) -> io::Result<()> {
    let mut stream = io::BufReader::new(stream);
    while Message::head(&mut stream)?.is_some() {
        let connection = &stream.get_ref().conn;
        let (name, shown) = (connection.server_name().unwrap_or("-"), connection.peer_certificates().is_some());
        let text = ok(&format!("{name} {shown}"));
        stream.get_mut().write_all(text.as_bytes())?;
    }
    Ok(())
}

impl Drop for Secure {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Release);
        let _ = TcpStream::connect(self.address);
    }
}

/// What a client gets from `server` behind Vaxel with `tls`, twice: the second time over a session resumed.
#[track_caller]
fn check(server: SocketAddr, tls: UpstreamTls, expected: Result<&str, &str>) {
    let rig = Rig::towards(&format!("https://{server}"), |settings| {
        settings.upstreams.iter_mut().for_each(|upstream| upstream.tls = tls.clone());
        settings.upstreams.iter_mut().for_each(|upstream| upstream.pool.keepalive = false);
    });
    for _ in 0..2 {
        let answer = rig.get("/");
        match expected {
            Ok(text) => assert_eq!((answer.status(), answer.text()), (200, text), "{tls:?}: {answer:?}"),
            Err(reason) => assert_eq!((answer.status(), answer.reason()), (502, Some(reason)), "{tls:?}: {answer:?}"),
        }
    }
    rig.settles();
}

#[test]
fn an_origin_is_trusted_by_its_authority_and_its_name() {
    let (ours, theirs) = (Certificates::make(&["127.0.0.1", "erp.internal"]), Certificates::make(&["127.0.0.1"]));
    let server = serving(&ours, false);
    let trusting =
        |certs: &Certificates| UpstreamTls { ca: Some(certs.made.ca_cert.clone()), ..UpstreamTls::default() };
    let named = |name: &str| UpstreamTls { server_name: Some(name.to_owned()), ..trusting(&ours) };
    // An address is never sent as a name (RFC 6066 section 3).
    check(server.address, trusting(&ours), Ok("- false"));
    check(server.address, named("erp.internal"), Ok("erp.internal false"));
    check(server.address, named("crm.internal"), Err("upstream.tls"));
    check(server.address, trusting(&theirs), Err("upstream.tls"));
    check(server.address, UpstreamTls { ca: None, verify: false, ..named("crm.internal") }, Ok("crm.internal false"));
}

#[test]
fn vaxel_shows_its_certificate_where_the_origin_asks_for_one() {
    let ours = Certificates::make(&["127.0.0.1"]);
    let server = serving(&ours, true);
    let nameless = UpstreamTls { ca: Some(ours.made.ca_cert.clone()), ..UpstreamTls::default() };
    let shown = |certs: &Certificates| UpstreamTls {
        client_cert: Some(certs.made.cert.clone()),
        client_key: Some(certs.made.key.clone()),
        ..nameless.clone()
    };
    check(server.address, shown(&ours), Ok("- true"));
    check(server.address, nameless.clone(), Err("upstream.tls"));
    check(server.address, shown(&Certificates::make(&["127.0.0.1"])), Err("upstream.tls"));
}

#[test]
fn an_origin_that_speaks_no_tls_is_named() {
    let plain = Origin::start(|talk| {
        let _ = line(&mut talk.reader);
        talk.send("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
    });
    check(plain.address, UpstreamTls { verify: false, ..UpstreamTls::default() }, Err("upstream.tls"));
}

#[test]
fn a_listener_that_asks_for_certificates_serves_nobody_without_one() {
    let (ours, theirs) = (Certificates::make(&["localhost"]), Certificates::make(&["localhost"]));
    let origin = Origin::answering(|_| ok("well"));
    let rig = Rig::with(origin.address, |settings| {
        settings.listeners.iter_mut().for_each(|listener| listener.tls = Some(ours.params(true)));
    });
    for (shown, served) in [(Some(&ours), true), (Some(&theirs), false), (None, false)] {
        let config = client_config(&UpstreamTls {
            ca: Some(ours.made.ca_cert.clone()),
            client_cert: shown.map(|certs| certs.made.cert.clone()),
            client_key: shown.map(|certs| certs.made.key.clone()),
            ..UpstreamTls::default()
        });
        let connection = ClientConnection::new(config.unwrap(), "localhost".try_into().unwrap()).unwrap();
        let mut stream = io::BufReader::new(StreamOwned::new(connection, TcpStream::connect(rig.address).unwrap()));
        // The refusal may come before the request is written, or after.
        let asked = stream.get_mut().write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let answered = asked.and_then(|()| Message::head(&mut stream)).ok().flatten();
        assert_eq!(answered.map(|answer| answer.status()), served.then_some(200));
    }
    rig.settles();
    assert_eq!(origin.connections(), 1);
    assert_eq!(rig.metric("vaxel_tls_handshakes_total"), 3.0);
}
