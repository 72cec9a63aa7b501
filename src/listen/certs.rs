//! Certificates for development: an authority of one's own and a site certificate from it, made by `vaxel certs`.
//!
//! Not for production: the authority's key lies beside the certificates, and nothing renews them.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256,
};
use thiserror::Error;

/// Where the certificates were put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DevCerts {
    /// The authority's certificate, which clients must trust: `ca.pem`.
    pub ca_cert: PathBuf,
    /// The authority's key: `ca.key`.
    pub ca_key: PathBuf,
    /// The site's certificate: `site.pem`.
    pub cert: PathBuf,
    /// The site's key: `site.key`.
    pub key: PathBuf,
}

/// Why no certificates were made.
#[derive(Debug, Error)]
pub enum CertError {
    /// No name to make a certificate for.
    #[error("a certificate needs at least one host name or address")]
    NoName,
    /// One of the names is no host name and no address.
    #[error("{name:?} is neither a host name nor an address")]
    Name {
        /// The name.
        name: String,
        /// Why.
        source: rcgen::Error,
    },
    /// A file is already there.
    #[error("{} is already there; --force overwrites it", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// A file or the directory cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A key or certificate cannot be made.
    #[error("cannot make a certificate")]
    Make(#[from] rcgen::Error),
}

/// Makes an authority and a certificate for `names` (host names and addresses), ECDSA P-256, in `dir`, which is made
/// if it is missing. The keys are readable by their owner only. The site certificate serves as server and as client
/// certificate, so that both ends of mutual TLS can be tried with it.
///
/// # Errors
/// A bad name; without `force` also any of the files being there already, before anything is written.
pub fn development_certificates(dir: &Path, names: &[String], force: bool) -> Result<DevCerts, CertError> {
    let made = make(names)?;
    let certs = DevCerts {
        ca_cert: dir.join("ca.pem"),
        ca_key: dir.join("ca.key"),
        cert: dir.join("site.pem"),
        key: dir.join("site.key"),
    };
    let files = [
        (&certs.ca_cert, made.ca_cert, false),
        (&certs.ca_key, made.ca_key, true),
        (&certs.cert, made.cert, false),
        (&certs.key, made.key, true),
    ];
    if !force && let Some((path, ..)) = files.iter().find(|(path, ..)| path.exists()) {
        return Err(CertError::Exists { path: (*path).clone() });
    }
    fs::create_dir_all(dir).map_err(|source| CertError::Write { path: dir.to_owned(), source })?;
    for (path, text, secret) in files {
        write(path, &text, secret).map_err(|source| CertError::Write { path: path.clone(), source })?;
    }
    Ok(certs)
}

/// The texts of the four files.
struct Made {
    ca_cert: String,
    ca_key: String,
    cert: String,
    key: String,
}

fn make(names: &[String]) -> Result<Made, CertError> {
    let first = names.first().ok_or(CertError::NoName)?;
    for name in names {
        CertificateParams::new([name.clone()]).map_err(|source| CertError::Name { name: name.clone(), source })?;
    }
    let ca_key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    authority.distinguished_name.push(DnType::CommonName, "Vaxel development authority");
    let ca_cert = authority.self_signed(&ca_key)?;

    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut site = CertificateParams::new(names)?;
    site.is_ca = IsCa::ExplicitNoCa;
    site.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    site.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    site.use_authority_key_identifier_extension = true;
    site.distinguished_name.push(DnType::CommonName, first);
    let cert = site.signed_by(&key, &Issuer::from_params(&authority, &ca_key))?;

    let (ca_secret, secret) = (ca_key.serialize_pem(), key.serialize_pem());
    Ok(Made { ca_cert: ca_cert.pem(), ca_key: ca_secret, cert: cert.pem(), key: secret })
}

/// Writes beside the file and renames, so that a half-written key or one with the old file's rights is never there.
fn write(path: &Path, text: &str, secret: bool) -> io::Result<()> {
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(".new");
    let fresh = PathBuf::from(fresh);
    match fs::remove_file(&fresh) {
        Err(problem) if problem.kind() != io::ErrorKind::NotFound => return Err(problem),
        _ => {}
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, if secret { 0o600 } else { 0o644 });
    let mut file = options.open(&fresh)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&fresh, path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn keys_are_private_and_nothing_is_overwritten_unasked() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("certs");
        let certs =
            development_certificates(&inner, &names(&["localhost", "127.0.0.1", "*.erp.example"]), false).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&certs.ca_key), mode(&certs.key)), (0o600, 0o600));
        assert_eq!(certs.cert, inner.join("site.pem"));

        fs::remove_file(&certs.ca_cert).unwrap();
        let before = fs::read(&certs.key).unwrap();
        let again = development_certificates(&inner, &names(&["localhost"]), false);
        assert!(matches!(again, Err(CertError::Exists { path }) if path == certs.ca_key));
        assert!(!certs.ca_cert.exists(), "nothing is written when one file is in the way");
        assert_eq!(fs::read(&certs.key).unwrap(), before);

        fs::set_permissions(&certs.key, fs::Permissions::from_mode(0o644)).unwrap();
        development_certificates(&inner, &names(&["localhost"]), true).unwrap();
        assert_ne!(fs::read(&certs.key).unwrap(), before);
        assert_eq!(mode(&certs.key), 0o600, "a key does not inherit the rights of the file it replaces");
        assert_eq!(fs::read_dir(&inner).unwrap().count(), 4, "nothing else is left behind");
    }

    #[test]
    fn a_certificate_needs_proper_names() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(development_certificates(dir.path(), &[], false), Err(CertError::NoName)));
        let odd = development_certificates(dir.path(), &names(&["localhost", "b\u{fc}ro"]), false);
        assert!(matches!(odd, Err(CertError::Name { name, .. }) if name == "b\u{fc}ro"));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
