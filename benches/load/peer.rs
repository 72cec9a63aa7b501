//! The proxies that are measured. To add one: a template in `peers/`, an entry here.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use crate::ask::Asker;
use crate::bare;
use crate::program::{self, Program};
use crate::row::Protocol;
use crate::site::{self, Site};

/// A program that can be measured.
pub(crate) struct Peer {
    /// Its name, as in `--only`.
    pub(crate) name: &'static str,
    /// Its program: a path, or what is looked for in PATH.
    program: &'static str,
    /// Its configuration: the file's name and the template.
    config: (&'static str, &'static str),
    /// What else is filled in there.
    settings: &'static [(&'static str, &'static str)],
    /// Its arguments: configuration file, own directory, port.
    arguments: fn(&Path, &Path, u16) -> Vec<OsString>,
    /// Whether it serves TLS.
    encrypts: bool,
}

/// Everything that can be measured, in the order of the table.
pub(crate) static PEERS: &[Peer] = &[
    Peer {
        name: "vaxel",
        // Cargo builds it along with this bench, in the same profile.
        program: env!("CARGO_BIN_EXE_vaxel"),
        config: ("vaxel.toml", include_str!("peers/vaxel.toml")),
        settings: &[],
        arguments: |config, _, _| list([&"run", &"--config", &config]),
        encrypts: true,
    },
    Peer {
        name: "nginx",
        program: "nginx",
        config: ("nginx.conf", include_str!("peers/nginx.conf")),
        // A hit opens no file: for a day it is not noticed whether one has changed.
        settings: &[("open_files", "max=4096 inactive=1d")],
        arguments: |config, room, _| list([&"-c", &config, &"-p", &room]),
        encrypts: true,
    },
    Peer {
        name: "nginx-files",
        program: "nginx",
        config: ("nginx.conf", include_str!("peers/nginx.conf")),
        settings: &[("open_files", "off")],
        arguments: |config, room, _| list([&"-c", &config, &"-p", &room]),
        encrypts: true,
    },
    Peer {
        name: "haproxy",
        program: "haproxy",
        config: ("haproxy.cfg", include_str!("peers/haproxy.cfg")),
        settings: &[],
        // In the foreground, no master process.
        arguments: |config, _, _| list([&"-db", &"-f", &config]),
        encrypts: true,
    },
    Peer {
        name: "varnish",
        program: "varnishd",
        config: ("varnish.vcl", include_str!("peers/varnish.vcl")),
        settings: &[],
        arguments: varnish,
        encrypts: false,
    },
    Peer {
        name: "hyper",
        program: SELF,
        config: ("ports", bare::CONFIG),
        settings: &[],
        arguments: |config, _, _| list([&bare::SERVE, &config]),
        encrypts: false,
    },
];

/// This very program.
const SELF: &str = "";

impl Peer {
    /// Where its program is: `given` by the user, or where such programs are.
    pub(crate) fn find(&self, given: Option<&Path>) -> Option<PathBuf> {
        match given {
            Some(path) => program::find(&path.display().to_string()),
            None if self.program == SELF => std::env::current_exe().ok(),
            None => program::find(self.program),
        }
    }

    /// What its own program is called.
    pub(crate) const fn program(&self) -> &'static str {
        self.program
    }

    /// Whether it speaks `protocol` to its clients.
    pub(crate) const fn speaks(&self, protocol: Protocol) -> bool {
        self.encrypts || !protocol.is_encrypted()
    }

    /// Starts `program` before the origin at that port, and waits until it accepts connections.
    pub(crate) fn start(&'static self, program: &Path, site: &Site, origin: u16, asker: &Asker) -> io::Result<Running> {
        let room = site.room(self.name)?;
        let mut last = io::Error::other("");
        // Another program may have taken a port in the meantime.
        for _ in 0..3 {
            let (port, tls_port) = (site::free_port()?, site::free_port()?);
            let mut values = vec![
                ("port", port.to_string()),
                ("tls_port", tls_port.to_string()),
                ("admin_port", site::free_port()?.to_string()),
                ("origin_port", origin.to_string()),
            ];
            values.extend(self.settings.iter().map(|(name, value)| (*name, (*value).to_owned())));
            let config = site.write(&room, self.config.0, self.config.1, &values)?;
            let arguments = (self.arguments)(&config, &room, port);
            let mut program = Program::start(program, arguments, site.proxy_core, room.join("log"))?;
            let ports: &[u16] = if self.encrypts { &[port, tls_port] } else { &[port] };
            match wait_until_open(&mut program, ports, asker) {
                Ok(()) => return Ok(Running { peer: self, program, port, tls_port }),
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

/// A proxy that is measured.
pub(crate) struct Running {
    /// What it is.
    pub(crate) peer: &'static Peer,
    /// Its process.
    pub(crate) program: Program,
    port: u16,
    tls_port: u16,
}

impl Running {
    /// Where it speaks `protocol`.
    pub(crate) const fn port(&self, protocol: Protocol) -> u16 {
        if protocol.is_encrypted() { self.tls_port } else { self.port }
    }
}

/// Waits until all `ports` accept connections.
pub(crate) fn wait_until_open(program: &mut Program, ports: &[u16], asker: &Asker) -> io::Result<()> {
    let started = Instant::now();
    while !ports.iter().all(|port| asker.is_open(*port)) {
        if !program.is_running() {
            return Err(io::Error::other(format!("ended at once: {}", program.last_words())));
        }
        if started.elapsed() > Duration::from_secs(15) {
            return Err(io::Error::other(format!("does not listen: {}", program.last_words())));
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// varnishd has no configuration file for its parameters.
fn varnish(config: &Path, room: &Path, port: u16) -> Vec<OsString> {
    let (work, address) = (room.join("work"), format!("127.0.0.1:{port}"));
    let mut arguments = list([&"-F", &"-j", &"none", &"-T", &"none", &"-n", &work, &"-a", &address, &"-f", &config]);
    arguments.extend(list([&"-s", &"malloc,256m", &"-s", &"Transient=malloc,256m"]));
    for parameter in VARNISH {
        arguments.extend(list([&"-p", parameter]));
    }
    arguments
}

const VARNISH: &[&str] = &[
    // One pool for one core; a thread for each connection, started beforehand. (thread_pool_timeout is left alone: with
    // 3600 the child of 7.1 fails on launch.)
    "thread_pools=1",
    "thread_pool_min=100",
    "thread_pool_max=400",
    // Connections are kept.
    "timeout_idle=3600",
    "backend_idle_timeout=3600",
    // 100 KiB in one piece.
    "fetch_chunksize=128k",
    // Nothing here is compressed; so Accept-Encoding need not be looked at.
    "http_gzip_support=off",
    // The counterpart of `access_log off`: what only a reader of the log would want is not written to it.
    "vsl_mask=-ReqStart,-ReqMethod,-ReqURL,-ReqProtocol,-ReqHeader,-ReqUnset,-ReqAcct,-RespProtocol,-RespStatus,\
     -RespReason,-RespHeader,-RespUnset,-BereqMethod,-BereqURL,-BereqProtocol,-BereqHeader,-BereqUnset,-BereqAcct,\
     -BerespProtocol,-BerespStatus,-BerespReason,-BerespHeader,-BerespUnset,-Timestamp,-VCL_call,-VCL_return,-VCL_use,\
     -Begin,-End,-Link,-Hit,-TTL,-Storage,-Fetch_Body,-Length,-Filters,-BackendOpen,-BackendClose",
];

fn list<const N: usize>(arguments: [&dyn AsRef<std::ffi::OsStr>; N]) -> Vec<OsString> {
    arguments.iter().map(|argument| argument.as_ref().to_owned()).collect()
}
