//! TLS towards clients: which certificate they are shown, and how it is renewed while the server runs.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use vaxel::config;
use vaxel::listen::certs::{DevCerts, development_certificates};

use super::client::Client;
use super::message::Message;
use super::origin::{Origin, ok};
use super::rig::Rig;

/// Certificates for `names` of an authority of their own, in the folder `into`.
fn certificates(into: &Path, names: &[&str]) -> DevCerts {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    development_certificates(into, &names, true).expect("the folder can be written")
}

/// The server's certificate as the file holds it.
fn held(path: &Path) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(path).expect("a certificate")
}

/// GETs `/` from `name` over HTTPS; the answer, and the certificate that was shown. None when the handshake fails.
fn visit(rig: &Rig, authority: &Path, name: &'static str) -> Option<(Message, CertificateDer<'static>)> {
    let mut roots = RootCertStore::empty();
    roots.add(held(authority)).expect("an authority");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connection = ClientConnection::new(Arc::new(config), ServerName::try_from(name).expect("a name")).expect("TLS");
    let tcp = TcpStream::connect(rig.address).expect("the server listens");
    tcp.set_read_timeout(Some(super::DEADLINE)).expect("a duration above zero");
    let mut stream = StreamOwned::new(connection, tcp);
    stream.write_all(format!("GET / HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n").as_bytes()).ok()?;
    let mut text = Vec::new();
    stream.read_to_end(&mut text).ok()?;
    let shown = stream.conn.peer_certificates()?.first()?.clone().into_owned();
    let mut reader = text.as_slice();
    let mut message = Message::head(&mut reader).ok()??;
    message.response_body(&mut reader, "GET");
    Some((message, shown))
}

/// A server with TLS, from a file that a reload reads again.
fn rig(folder: &Path, origin: &Origin, tls: &str) -> Rig {
    let file = folder.join("vaxel.toml");
    write_config(&file, origin, tls);
    let loaded = config::load(&file).expect("the configuration is good");
    Rig::loaded(loaded, Some(file))
}

fn write_config(file: &Path, origin: &Origin, tls: &str) {
    let text = format!(
        "server = {{ workers = 1 }}\nadmin = {{ listen = \"127.0.0.1:0\" }}\nlog = {{ access = \"off\" }}\n\
         [[listener]]\nlisten = \"127.0.0.1:0\"\ntls = {tls}\n\
         [upstream.u]\nendpoints = \"http://{}\"\n\
         [[route]]\nupstream = \"u\"\nmatch = {{ path = \"/{{*rest}}\" }}\n",
        origin.address
    );
    fs::write(file, text).expect("the folder can be written");
}

fn tls(certs: &DevCerts, more: &str) -> String {
    format!("{{ cert = {:?}, key = {:?}{more} }}", certs.cert, certs.key)
}

#[test]
fn a_client_is_shown_the_certificate_of_the_name_it_asks_for() {
    let folder = tempfile::tempdir().unwrap();
    let site = certificates(&folder.path().join("site"), &["erp.example"]);
    let shop = certificates(&folder.path().join("shop"), &["*.shop.example"]);
    let origin = Origin::answering(|request| ok(request.field("x-forwarded-proto").unwrap_or_default()));
    let also = format!(", also = [{}]", tls(&shop, ""));
    let rig = rig(folder.path(), &origin, &tls(&site, &also));
    let (answer, shown) = visit(&rig, &site.ca_cert, "erp.example").expect("a handshake");
    assert_eq!((answer.text(), shown), ("https", held(&site.cert)));
    let (answer, shown) = visit(&rig, &shop.ca_cert, "a.shop.example").expect("a handshake");
    assert_eq!((answer.status(), shown), (200, held(&shop.cert)));
    assert!(visit(&rig, &site.ca_cert, "stranger.example").is_none(), "the client takes no other's certificate");
    let now = rig.running().handle().clock().moment().wall;
    let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64();
    let expiries = rig.metric("vaxel_certificate_expiry_timestamp_seconds");
    assert!(expiries > 2.0 * now, "both end in the future: {expiries}");
    rig.settles();
}

#[test]
fn a_renewed_certificate_is_taken_up_and_a_bad_one_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("site");
    let old = certificates(&place, &["erp.example"]);
    let origin = Origin::answering(|_| ok("yes"));
    let rig = rig(folder.path(), &origin, &tls(&old, ""));
    let first = held(&old.cert);
    assert_eq!(visit(&rig, &old.ca_cert, "erp.example").expect("a handshake").1, first);

    let new = certificates(&place, &["erp.example"]);
    let renewed = held(&new.cert);
    assert_ne!(renewed, first);
    rig.until("the new certificate is shown", || {
        visit(&rig, &new.ca_cert, "erp.example").is_some_and(|(_, shown)| shown == renewed)
    });

    fs::write(&new.cert, "no certificate").unwrap();
    let (status, text) = reload(&rig);
    assert_eq!(status, 422, "{text}");
    assert!(text.contains("site.pem"), "{text}");
    let (_, shown) = visit(&rig, &new.ca_cert, "erp.example").expect("the old one stays in force");
    assert_eq!(shown, renewed);
    rig.settles();
}

#[test]
fn a_reload_may_name_other_certificates() {
    let folder = tempfile::tempdir().unwrap();
    let one = certificates(&folder.path().join("one"), &["erp.example"]);
    let other = certificates(&folder.path().join("other"), &["erp.example"]);
    let origin = Origin::answering(|_| ok("yes"));
    let rig = rig(folder.path(), &origin, &tls(&one, ""));
    write_config(&folder.path().join("vaxel.toml"), &origin, &tls(&other, ""));
    let (status, text) = reload(&rig);
    assert_eq!(status, 200, "{text}");
    let (_, shown) = visit(&rig, &other.ca_cert, "erp.example").expect("a handshake");
    assert_eq!(shown, held(&other.cert));
    rig.settles();
}

fn reload(rig: &Rig) -> (u16, String) {
    let mut admin = Client::connect(rig.running().admin.expect("there is an admin listener"));
    admin.send("POST /reload HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n");
    let answer = admin.answer_to("POST");
    (answer.status(), answer.text().to_owned())
}
