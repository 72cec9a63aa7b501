//! Who stands before the box. To add one: a template in `peers/`, an entry here.

use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;

use crate::program::{self, Program};
use crate::site::{self, Site};
use crate::story;

/// What can stand before the box.
#[derive(Debug)]
pub(crate) struct Peer {
    /// Its name, as in `--only`.
    pub(crate) name: &'static str,
    /// Its program: a path, or what is looked for in PATH; none: clients go straight to the box.
    pub(crate) program: &'static str,
    /// Its configuration, a file in `peers/`.
    config: &'static str,
    /// What else is filled in there.
    settings: &'static [(&'static str, &'static str)],
    /// Its arguments: configuration file, own directory.
    arguments: fn(&Path, &Path) -> Vec<OsString>,
    /// What asks for its version.
    version: &'static str,
    /// What makes it store answers: somewhere, and where it matters. None: it has no cache.
    pub(crate) caches: Option<(&'static str, &'static str)>,
}

/// Everything that is compared, in the order of the tables.
pub(crate) static PEERS: &[Peer] = &[
    Peer {
        name: "direct",
        program: "",
        config: "",
        settings: &[],
        arguments: |_, _| Vec::new(),
        version: "",
        caches: Some(("", "")),
    },
    Peer {
        name: "nginx",
        program: "nginx",
        config: "nginx.conf",
        // No consumer may have all places: what is left is for the others, used or not. 3 is fairer under overload and
        // wastes half of a box that only one asks much of; 8 is the other way round.
        settings: &[("fair", "limit_conn consumer 5;")],
        arguments: nginx,
        version: "-v",
        caches: Some((
            "proxy_cache_path {{dir}}/cache keys_zone=store:8m use_temp_path=off;\n    \
             map $upstream_cache_status $cache_word { HIT hit; STALE hit; UPDATING hit; default fwd=miss; }",
            "proxy_cache store; proxy_cache_lock on; proxy_cache_use_stale updating error timeout http_503; \
             proxy_cache_background_update on; add_header Cache-Status \"nginx; $cache_word\";",
        )),
    },
    Peer {
        name: "nginx-rates",
        program: "nginx",
        config: "nginx.conf",
        // A rate for each consumer (the sum is 1.6 times what the box can do), and a queue of a third of a second.
        settings: &[("fair", "limit_req zone=rate burst=15;")],
        arguments: nginx,
        version: "-v",
        caches: None,
    },
    Peer {
        name: "haproxy",
        program: "haproxy",
        config: "haproxy.cfg",
        settings: &[],
        arguments: |config, _| vec!["-db".into(), "-f".into(), config.into()],
        version: "-v",
        caches: Some((
            "cache store\n    total-max-size 64\n    max-age 60",
            "http-request cache-use store\n    http-response cache-store store\n    \
             http-after-response set-header cache-status \"haproxy; hit\" if { res.cache_hit }",
        )),
    },
    Peer {
        name: "envoy",
        program: "envoy",
        config: "envoy.yaml",
        settings: &[],
        arguments: envoy,
        version: "--version",
        caches: None,
    },
    Peer {
        name: "envoy-adaptive",
        program: "envoy",
        config: "envoy-adaptive.yaml",
        settings: &[],
        arguments: envoy,
        version: "--version",
        caches: None,
    },
    Peer {
        name: "vaxel",
        // Cargo builds it along with this bench, in the same profile.
        program: VAXEL,
        config: "vaxel.toml",
        settings: &[],
        arguments: |config, _| vec!["run".into(), "--config".into(), config.into()],
        version: "--version",
        caches: Some(("cache = { stale_while_revalidate = \"10s\", stale_if_error = \"1m\" }", "")),
    },
];

/// One of them, and its program.
pub(crate) struct Found {
    pub(crate) peer: &'static Peer,
    program: PathBuf,
}

impl Peer {
    /// Where its program is: `given` by the user, or where such programs are.
    pub(crate) fn find(&'static self, given: Option<&Path>) -> Option<Found> {
        let program = match given {
            Some(path) => program::find(&path.display().to_string())?,
            None if self.program.is_empty() => PathBuf::new(),
            None => program::find(self.program)?,
        };
        Some(Found { peer: self, program })
    }
}

impl Found {
    /// What its program says its version is.
    pub(crate) fn version(&self) -> Option<String> {
        if self.peer.version.is_empty() {
            return None;
        }
        let output = Command::new(&self.program).arg(self.peer.version).output().ok()?;
        // nginx tells it on standard error.
        let told = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        let number = |word: &&str| word.starts_with(|first: char| first.is_ascii_digit()) && word.contains('.');
        told.split([' ', '/', '\n', '-']).find(number).map(str::to_owned)
    }

    /// Starts it before the box at that port, and waits until it accepts connections.
    pub(crate) async fn start(&self, site: &Site, box_port: u16, cached: bool) -> io::Result<Running> {
        if self.program.as_os_str().is_empty() {
            return Ok(Running { address: local(box_port), program: None });
        }
        let room = site.room(self.peer.name)?;
        let template = std::fs::read_to_string(Path::new(TEMPLATES).join(self.peer.config))?;
        let (cache, use_cache) = self.peer.caches.filter(|_| cached).unwrap_or_default();
        // These hold names that are filled in themselves.
        let settings = self.peer.settings.iter().copied().chain([("cache", cache), ("use_cache", use_cache)]);
        let template = settings.fold(template, |text, (name, value)| text.replace(&format!("{{{{{name}}}}}"), value));
        let port = site::free_port()?;
        let values = [
            ("port", port.to_string()),
            ("admin_port", site::free_port()?.to_string()),
            ("box_port", box_port.to_string()),
            ("slots", story::SLOTS.to_string()),
        ];
        let config = site.write(&room, self.peer.config, &template, &values)?;
        let arguments = (self.peer.arguments)(&config, &room);
        let mut program = Program::start(&self.program, arguments, site.proxy_core, room.join("log"))?;
        wait_until_open(&mut program, local(port)).await?;
        Ok(Running { address: local(port), program: Some(program) })
    }
}

/// A proxy that stands before the box, or none.
pub(crate) struct Running {
    /// Where clients go.
    pub(crate) address: SocketAddr,
    program: Option<Program>,
}

impl Running {
    /// The CPU time it has used; nothing if there is no proxy.
    pub(crate) fn cpu_time(&self) -> Option<Duration> {
        self.program.as_ref().map(Program::cpu_time)
    }
}

/// Waits until `address` accepts connections.
pub(crate) async fn wait_until_open(program: &mut Program, address: SocketAddr) -> io::Result<()> {
    let started = Instant::now();
    while TcpStream::connect(address).await.is_err() {
        if !program.is_running() {
            return Err(io::Error::other(format!("ended at once: {}", program.last_words())));
        }
        if started.elapsed() > Duration::from_secs(15) {
            return Err(io::Error::other(format!("does not listen: {}", program.last_words())));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// `port` of this machine.
pub(crate) fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

fn nginx(config: &Path, room: &Path) -> Vec<OsString> {
    vec!["-c".into(), config.into(), "-p".into(), room.into()]
}

fn envoy(config: &Path, _room: &Path) -> Vec<OsString> {
    // One worker, as the others have; no hot restart, which would take a name that all Envoys of a machine share.
    let mut arguments: Vec<OsString> = vec!["-c".into(), config.into()];
    arguments.extend(["--concurrency", "1", "--disable-hot-restart", "--log-level", "error"].map(OsString::from));
    arguments
}

/// Also the box.
pub(crate) const VAXEL: &str = env!("CARGO_BIN_EXE_vaxel");
const TEMPLATES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/protect/peers");
