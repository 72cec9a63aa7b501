//! The place where everything runs: a directory in memory, free ports, cores, a certificate, filled-in templates.

use std::fs::{self, Permissions};
use std::io;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::thread;

use tempfile::TempDir;

use crate::program::find;

/// Where everything runs. Dropping it removes its files.
pub(crate) struct Site {
    dir: TempDir,
    /// The core of the proxy that is measured.
    pub(crate) proxy_core: Option<usize>,
    /// The core of origin and load generator.
    pub(crate) load_core: Option<usize>,
    /// The certificate every proxy shows, DER.
    pub(crate) certificate: Vec<u8>,
}

impl Site {
    /// Prepares it.
    pub(crate) fn new(proxy_core: usize, load_core: usize) -> io::Result<Self> {
        let memory = Path::new("/dev/shm");
        let parent = if memory.is_dir() { memory.to_path_buf() } else { std::env::temp_dir() };
        let dir = tempfile::Builder::new().prefix("vaxel-bench-").tempdir_in(parent)?;
        // Workers that give up root must still get in.
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755))?;

        let identity = rcgen::generate_simple_self_signed([NAME.to_owned(), "127.0.0.1".to_owned()]);
        let identity = identity.map_err(io::Error::other)?;
        let (cert, key) = (identity.cert.pem(), identity.signing_key.serialize_pem());
        fs::write(dir.path().join("cert.pem"), &cert)?;
        fs::write(dir.path().join("key.pem"), &key)?;
        fs::write(dir.path().join("both.pem"), cert + &key)?;

        let cores = thread::available_parallelism().map_or(1, usize::from);
        let can_pin = find("taskset").is_some() && cores > 1;
        Ok(Self {
            proxy_core: can_pin.then_some(proxy_core),
            load_core: can_pin.then_some(load_core),
            certificate: identity.cert.der().to_vec(),
            dir,
        })
    }

    /// A directory of its own for `name`.
    pub(crate) fn room(&self, name: &str) -> io::Result<PathBuf> {
        let room = self.dir.path().join(name);
        fs::create_dir_all(&room)?;
        Ok(room)
    }

    /// Fills in `template` for the program that lives in `room`, and writes it there as `name`. What a template does not
    /// name is not filled in; what is not filled in is an error.
    pub(crate) fn write(
        &self,
        room: &Path,
        name: &str,
        template: &str,
        values: &[(&str, String)],
    ) -> io::Result<PathBuf> {
        let file = |name: &str| self.dir.path().join(name).display().to_string();
        let common = [
            ("dir", room.display().to_string()),
            ("cert", file("cert.pem")),
            ("key", file("key.pem")),
            ("pem", file("both.pem")),
        ];
        let filled = fill(template, common.iter().chain(values)).map_err(io::Error::other)?;
        let path = room.join(name);
        fs::write(&path, filled)?;
        Ok(path)
    }
}

/// The name the certificate is for.
pub(crate) const NAME: &str = "localhost";

/// A port of 127.0.0.1 that was free a moment ago.
pub(crate) fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

fn fill<'a>(template: &str, values: impl Iterator<Item = &'a (&'a str, String)>) -> Result<String, String> {
    let filled =
        values.fold(template.to_owned(), |text, (name, value)| text.replace(&format!("{{{{{name}}}}}"), value));
    match filled.split_once("{{").and_then(|(_, rest)| rest.split_once("}}")) {
        Some((missing, _)) => Err(format!("nothing is known as {{{{{missing}}}}}")),
        None => Ok(filled),
    }
}

/// Run by `cargo test --benches`.
pub(crate) fn self_check() {
    let values = [("port", "80".to_owned()), ("dir", "/tmp".to_owned())];
    assert_eq!(fill("listen {{port}}; {{port}} {{dir}}", values.iter()).as_deref(), Ok("listen 80; 80 /tmp"));
    assert!(fill("{{prot}}", values.iter()).is_err_and(|error| error.contains("prot")));
}
