//! A program that runs while it is measured: pinned to a core, its output in a file, its CPU time read from the kernel,
//! ended with all its children.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// A running program. Dropping it ends it.
pub(crate) struct Program {
    child: Child,
    log: PathBuf,
}

impl Program {
    /// Starts `program` on `core` (on any where that cannot be chosen); what it prints goes to `log`.
    pub(crate) fn start<I, S>(program: &Path, arguments: I, core: Option<usize>, log: PathBuf) -> io::Result<Self>
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        let file = File::create(&log)?;
        let child = pinned(program, core)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()?;
        Ok(Self { child, log })
    }

    /// Whether it has not ended by itself.
    pub(crate) fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// The last lines it printed.
    pub(crate) fn last_words(&self) -> String {
        let printed = fs::read(&self.log).unwrap_or_default();
        let printed = String::from_utf8_lossy(&printed);
        let lines: Vec<&str> = printed.lines().collect();
        lines.get(lines.len().saturating_sub(8)..).unwrap_or_default().join("\n")
    }

    /// The CPU time it has used so far, in user and kernel mode, over all its threads and the processes it started that
    /// are alive.
    pub(crate) fn cpu_time(&self) -> Duration {
        let ticks: u64 = family(self.child.id()).iter().filter_map(|pid| stat(*pid)).map(|stat| stat.ticks).sum();
        Duration::from_secs(ticks) / TICKS_PER_SECOND
    }

    /// Memory that is its own or counted as such: the resident pages of its processes, in bytes.
    pub(crate) fn resident(&self) -> u64 {
        family(self.child.id()).iter().filter_map(|pid| stat(*pid)).map(|stat| stat.resident).sum()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Asked kindly first: a master process that is killed leaves its workers behind.
        let family = family(self.child.id());
        let _ = Command::new("kill").arg(self.child.id().to_string()).stderr(Stdio::null()).status();
        let asked = Instant::now();
        while self.is_running() && asked.elapsed() < Duration::from_secs(3) {
            thread::sleep(Duration::from_millis(10));
        }
        if self.is_running() {
            let _ = self.child.kill();
            let _ = self.child.wait();
            for pid in family.iter().filter(|pid| stat(**pid).is_some()) {
                let _ = Command::new("kill").args(["-KILL", &pid.to_string()]).stderr(Stdio::null()).status();
            }
        }
    }
}

/// A command that will run on `core`.
pub(crate) fn pinned(program: &Path, core: Option<usize>) -> Command {
    match core {
        Some(core) => {
            // taskset becomes the program: the process id is the program's.
            let mut command = Command::new("taskset");
            command.arg("-c").arg(core.to_string()).arg(program);
            command
        }
        None => Command::new(program),
    }
}

/// Looks for a program by its path, in PATH, and where daemons are.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).chain(["/usr/sbin", "/usr/local/sbin", "/sbin"].map(PathBuf::from));
    let named = Path::new(name);
    if named.components().count() > 1 {
        return named.is_file().then(|| named.to_path_buf());
    }
    places.map(|place| place.join(name)).find(|file| file.is_file())
}

/// A process and all that descend from it.
fn family(root: u32) -> Vec<u32> {
    let everybody: Vec<(u32, u32)> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|pid| Some((pid, stat(pid)?.parent)))
        .collect();
    let mut family = vec![root];
    let mut next = 0;
    while let Some(parent) = family.get(next).copied() {
        family.extend(everybody.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    family
}

#[derive(Debug, PartialEq)]
struct Stat {
    parent: u32,
    /// User and kernel mode together.
    ticks: u64,
    resident: u64,
}

fn stat(pid: u32) -> Option<Stat> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// proc(5): the second field is the name in parentheses, which may hold anything; 4 ppid, 14 utime, 15 stime, 24 rss.
fn parse_stat(line: &str) -> Option<Stat> {
    let fields: Vec<&str> = line.get(line.rfind(')')? + 1..)?.split_ascii_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    Some(Stat { parent: u32::try_from(field(4)?).ok()?, ticks: field(14)? + field(15)?, resident: field(24)? * PAGE })
}

/// USER_HZ, which Linux holds at 100 for programs whatever its own rate is.
const TICKS_PER_SECOND: u32 = 100;
/// The page size of x86-64, and of aarch64 as it is mostly built.
const PAGE: u64 = 4096;

/// Run by `cargo test --benches`.
pub(crate) fn self_check() {
    let line = "42 (a (b) c) S 7 42 42 0 -1 4194560 900 0 0 0 150 25 0 0 20 0 3 0 1000 90000 256 1844 1 1";
    assert_eq!(parse_stat(line), Some(Stat { parent: 7, ticks: 175, resident: 256 * PAGE }));
    assert_eq!(parse_stat("no such thing"), None);
    assert!(family(std::process::id()).contains(&std::process::id()));
}
