//! The access log: one line for each finished exchange, and never a request that waits for it.
//!
//! ```text
//! worker ──write──► its sheet (bytes, bounded) ──swapped out──► one writer thread ──► stdout or a file
//! ```
//! A worker appends the line to its own sheet, under a lock nobody else holds but for the moment in which the writer
//! swaps the sheet for an empty one. The writer comes when a sheet is ripe and at the latest each 100 ms. A sheet
//! that is full (the disk stands still) takes no more: the line is dropped and counted.

mod line;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::mem;
use std::num::NonZeroU32;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, Thread};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use self::line::Stamp;
pub use self::line::{Format, Line};
use crate::metrics::{Ending, Facts};

/// The log of a process, for making the logs of its workers. Cheap to clone; all clones are the same log.
#[derive(Debug, Clone)]
pub struct AccessLog {
    shared: Arc<Shared>,
    params: LineParams,
}

/// Of which exchanges there are lines, and what is in them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LineParams {
    /// Whether they hold the query, which may name people.
    pub query: bool,
    /// One of so many good answers has a line, which says so. What was refused, failed or broke off always has one.
    pub sample: NonZeroU32,
}

impl Default for LineParams {
    /// All of them, without queries.
    fn default() -> Self {
        Self { query: false, sample: NonZeroU32::MIN }
    }
}

/// Where lines go.
pub enum Target {
    /// The standard output.
    Stdout,
    /// A file, appended to, made if it is not there. Opened anew on [`AccessLog::reopen`], and within a second when
    /// another or none is at its path.
    File(PathBuf),
    /// Anything else.
    Other(Box<dyn Write + Send>),
}

/// The thread that writes. To be kept until the end: when it is dropped the log ends, after what was written so far.
#[derive(Debug)]
#[must_use = "the log ends when this is dropped"]
pub struct LogWriter(Arc<Shared>);

/// The log of one worker. May be shared, at the price of a lock that is then contended.
#[derive(Debug, Clone)]
pub struct WorkerLog {
    sheet: Arc<Mutex<Sheet>>,
    shared: Arc<Shared>,
    params: LineParams,
}

impl AccessLog {
    /// Opens the target and starts the thread that writes to it.
    ///
    /// # Errors
    /// The file cannot be opened, or the thread cannot be started.
    pub fn new(target: Target, format: Format) -> io::Result<(Self, LogWriter)> {
        let sink = Sink::open(target)?;
        let shared = Arc::new(Shared {
            format,
            sheets: Mutex::default(),
            dropped: AtomicU64::new(0),
            reopen: AtomicBool::new(false),
            ending: AtomicBool::new(false),
            rounds: Mutex::default(),
            round_done: Condvar::new(),
            thread: OnceLock::new(),
        });
        let of_thread = Arc::clone(&shared);
        let thread = thread::Builder::new().name("access-log".to_owned()).spawn(move || of_thread.run(sink))?;
        // Before anybody can write: a worker that finds no thread to wake would wait for the clock instead.
        shared.thread.get_or_init(|| thread.thread().clone());
        Ok((Self { shared: Arc::clone(&shared), params: LineParams::default() }, LogWriter(shared)))
    }

    /// What the logs of workers made from here on write.
    #[must_use]
    pub const fn writing(mut self, params: LineParams) -> Self {
        self.params = params;
        self
    }

    /// A log for one worker.
    pub fn worker(&self) -> WorkerLog {
        let mut sheets = self.shared.sheets.lock();
        // Under the lock: either the last sweep finds the sheet in the list, or this finds that the end has begun.
        let sealed = self.shared.ending.load(Ordering::Acquire);
        let sheet = Arc::new(Mutex::new(Sheet { sealed, ..Sheet::default() }));
        sheets.push(Arc::clone(&sheet));
        drop(sheets);
        WorkerLog { sheet, shared: Arc::clone(&self.shared), params: self.params }
    }

    /// Opens the file anew, soon: it was moved away (`SIGHUP` after a rotation). Lines written before this call still go
    /// to the old file. If the file cannot be opened, the old one stays.
    pub fn reopen(&self) {
        self.shared.reopen.store(true, Ordering::Release);
        self.shared.wake();
    }

    /// How many lines were lost, because a sheet was full or the target did not take them.
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }
}

impl WorkerLog {
    /// How many exchanges a line about this one stands for; `None`: it gets none. `drawn` is its id, so that nobody draws
    /// anew and a hook that reads it decides alike.
    pub fn weight(&self, facts: &Facts<'_>, drawn: u64) -> Option<u32> {
        let sample = self.params.sample.get();
        let good = facts.reason.is_none() && facts.status.as_u16() < 400 && facts.ending == Ending::Whole;
        if sample == 1 || !good {
            return Some(1);
        }
        drawn.is_multiple_of(u64::from(sample)).then_some(sample)
    }

    /// Appends `line`. Never waits for the target.
    pub fn write(&self, line: &Line<'_>) {
        let mut sheet = self.sheet.lock();
        let Sheet { text, stamp, sealed } = &mut *sheet;
        let before = text.len();
        if !*sealed && before < FULL {
            line.write(text, self.shared.format, self.params.query, stamp);
        }
        let after = text.len();
        if after == before || after > FULL {
            text.truncate(before);
            drop(sheet);
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        drop(sheet);
        if before < RIPE && after >= RIPE {
            self.shared.wake();
        }
    }
}

impl LogWriter {
    /// Waits until everything written before this call is out, and the file opened anew if that was asked for.
    /// Whether it was done within `patience`.
    pub fn flush(&self, patience: Duration) -> bool {
        self.0.flush(patience)
    }

    /// Writes what is there and ends the log; lines written later are dropped and counted. Whether it was done within
    /// `patience`: a pipe that nobody reads must not keep the process from ending.
    pub fn finish(self, patience: Duration) -> bool {
        self.0.ending.store(true, Ordering::Release);
        self.0.flush(patience)
    }
}

impl Drop for LogWriter {
    fn drop(&mut self) {
        self.0.ending.store(true, Ordering::Release);
        self.0.wake();
    }
}

/// What a worker has written and the writer has not fetched yet.
#[derive(Debug, Default)]
struct Sheet {
    text: Vec<u8>,
    stamp: Stamp,
    /// Nobody will come for what is written from now on.
    sealed: bool,
}

#[derive(Debug)]
struct Shared {
    format: Format,
    sheets: Mutex<Vec<Arc<Mutex<Sheet>>>>,
    dropped: AtomicU64,
    reopen: AtomicBool,
    ending: AtomicBool,
    rounds: Mutex<Rounds>,
    round_done: Condvar,
    thread: OnceLock<Thread>,
}

/// How many rounds of the writer were asked for, and how far it is.
#[derive(Debug, Default)]
struct Rounds {
    asked: u64,
    done: u64,
}

impl Shared {
    /// The life of the writer.
    fn run(&self, mut sink: Sink) {
        let mut spare = Vec::with_capacity(RIPE);
        let mut rounds = 0_u32;
        loop {
            let asked = self.rounds.lock().asked;
            let ending = self.ending.load(Ordering::Acquire);
            rounds = rounds.wrapping_add(1);
            let moved = rounds.is_multiple_of(ROUNDS_PER_LOOK) && sink.was_moved();
            if self.reopen.swap(false, Ordering::AcqRel) || moved {
                self.sweep(&mut sink, &mut spare, false);
                sink.reopen();
            }
            self.sweep(&mut sink, &mut spare, ending);
            self.rounds.lock().done = if ending { u64::MAX } else { asked };
            self.round_done.notify_all();
            if ending {
                return;
            }
            thread::park_timeout(PAUSE);
        }
    }

    /// Writes the sheets of all workers; the last time, seals them.
    fn sweep(&self, sink: &mut Sink, spare: &mut Vec<u8>, last: bool) {
        let mut sheets = self.sheets.lock().clone();
        for sheet in &sheets {
            {
                let mut sheet = sheet.lock();
                mem::swap(&mut sheet.text, spare);
                sheet.sealed |= last;
            }
            if !spare.is_empty() {
                self.dropped.fetch_add(sink.write(spare), Ordering::Relaxed);
                spare.clear();
                spare.shrink_to(4 * RIPE);
            }
        }
        sheets.clear();
        // A worker of an earlier configuration may be gone: then the list is the last owner.
        self.sheets.lock().retain(|sheet| Arc::strong_count(sheet) > 1 || !sheet.lock().text.is_empty());
        sink.flush();
    }

    fn flush(&self, patience: Duration) -> bool {
        let mut rounds = self.rounds.lock();
        rounds.asked += 1;
        let asked = rounds.asked;
        self.wake();
        let timeout = self.round_done.wait_while_for(&mut rounds, |rounds| rounds.done < asked, patience);
        !timeout.timed_out()
    }

    fn wake(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }
}

/// The open target.
struct Sink {
    out: Box<dyn Write + Send>,
    /// Of a file: where it is, and which one it is.
    place: Option<(PathBuf, Option<FileId>)>,
    /// The last write failed, perhaps in the middle of a line.
    failing: bool,
}

/// A file whatever it is called: its device and inode.
type FileId = (u64, u64);

impl Sink {
    fn open(target: Target) -> io::Result<Self> {
        let (out, place): (Box<dyn Write + Send>, _) = match target {
            Target::Stdout => (Box::new(io::stdout()), None),
            Target::File(path) => {
                let (file, id) = append_to(&path)?;
                (Box::new(file), Some((path, id)))
            }
            Target::Other(out) => (out, None),
        };
        Ok(Self { out, place, failing: false })
    }

    /// Whether another file, or none, is where the open one was: somebody rotates without a signal.
    fn was_moved(&self) -> bool {
        let Some((path, Some(open))) = &self.place else { return false };
        match fs::metadata(path) {
            Ok(there) => (there.dev(), there.ino()) != *open,
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        }
    }

    fn reopen(&mut self) {
        let Some((path, id)) = &mut self.place else { return };
        match append_to(path) {
            Ok((file, opened)) => {
                self.out = Box::new(file);
                *id = opened;
                self.failing = false;
            }
            Err(error) => {
                tracing::warn!(%error, path = %path.display(), "the access log could not be reopened");
                // The old one goes on; said once, and tried again when asked.
                *id = None;
            }
        }
    }

    /// Writes whole lines; returns how many may be lost.
    fn write(&mut self, lines: &[u8]) -> u64 {
        // The end of the line that was cut off: what follows must stay readable.
        let healed = if self.failing { self.out.write_all(b"\n") } else { Ok(()) };
        match healed.and_then(|()| self.out.write_all(lines)) {
            Ok(()) => {
                self.failing = false;
                0
            }
            Err(error) => {
                self.warn(&error);
                memchr::memchr_iter(b'\n', lines).count() as u64
            }
        }
    }

    fn flush(&mut self) {
        if let Err(error) = self.out.flush() {
            self.warn(&error);
        }
    }

    /// Says it once, until it works again.
    fn warn(&mut self, error: &io::Error) {
        if !mem::replace(&mut self.failing, true) {
            tracing::warn!(%error, "the access log cannot be written; lines are lost");
        }
    }
}

fn append_to(path: &Path) -> io::Result<(File, Option<FileId>)> {
    let file = OpenOptions::new().append(true).create(true).open(path)?;
    let id = file.metadata().map(|file| (file.dev(), file.ino())).ok();
    Ok((file, id))
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Stdout => f.write_str("Stdout"),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Other(_) => f.write_str("Other"),
        }
    }
}

/// Bytes after which the writer is called: some two hundred lines, one write.
const RIPE: usize = 64 * 1024;

/// Bytes after which a sheet takes no more: a disk may stand still for the time of some ten thousand requests.
const FULL: usize = 4 * 1024 * 1024;

/// How long a line may lie on a sheet that does not get ripe.
const PAUSE: Duration = Duration::from_millis(100);

/// Between two looks whether the file was moved: at the latest each second.
const ROUNDS_PER_LOOK: u32 = 10;

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};
    use std::sync::mpsc;
    use std::time::SystemTime;

    use http::Version;

    use super::*;
    use crate::metrics::plain;
    use crate::refusal::Reason;

    const PATIENCE: Duration = Duration::from_secs(60);

    fn line<'a>(path: &'a str, facts: &'a Facts<'a>) -> Line<'a> {
        Line {
            time: SystemTime::UNIX_EPOCH,
            request_id: "1",
            client: IpAddr::V4(Ipv4Addr::LOCALHOST),
            host: None,
            path,
            query: Some("q"),
            version: Version::HTTP_11,
            route: None,
            upstream: None,
            consumer: None,
            user_agent: None,
            traceparent: None,
            weight: 1,
            facts,
        }
    }

    /// The paths in a log, in their order.
    fn paths(text: &[u8]) -> Vec<String> {
        let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        lines
            .map(|line| {
                let json: serde_json::Value = serde_json::from_slice(line).unwrap();
                json["path"].as_str().unwrap().to_owned()
            })
            .collect()
    }

    /// A target one can look into, and that can be made to fail.
    #[derive(Clone, Default)]
    struct Paper(Arc<Mutex<(Vec<u8>, bool)>>);

    impl Write for Paper {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut paper = self.0.lock();
            if paper.1 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            paper.0.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// A target that takes nothing until it is told to.
    struct Stuck(mpsc::Receiver<()>);

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // An error means that the test let go of it.
            let _ = self.0.recv();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn the_lines_of_a_worker_come_out_whole_and_in_order() {
        let paper = Paper::default();
        let (log, writer) = AccessLog::new(Target::Other(Box::new(paper.clone())), Format::Json).unwrap();
        thread::scope(|scope| {
            for worker in 0..3 {
                let log = log.worker();
                scope.spawn(move || {
                    for number in 0..2_000 {
                        log.write(&line(&format!("/{worker}/{number}"), &plain()));
                    }
                });
            }
        });
        assert!(writer.finish(PATIENCE));
        let written = paths(&paper.0.lock().0);
        assert_eq!(written.len(), 6_000);
        for worker in 0..3 {
            let prefix = format!("/{worker}/");
            let of_worker = written.iter().filter_map(|path| path.strip_prefix(&prefix));
            let expected = (0..2_000).map(|number| number.to_string());
            assert!(of_worker.eq(expected), "worker {worker}");
        }
        assert_eq!(log.dropped(), 0);
    }

    #[test]
    fn a_quiet_log_is_written_without_being_asked() {
        let (sender, receiver) = mpsc::channel();
        struct Tell(mpsc::Sender<Vec<u8>>);
        impl Write for Tell {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                let _ = self.0.send(bytes.to_vec());
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (log, _writer) = AccessLog::new(Target::Other(Box::new(Tell(sender))), Format::Json).unwrap();
        log.worker().write(&line("/only", &plain()));
        assert_eq!(paths(&receiver.recv_timeout(PATIENCE).unwrap()), ["/only"]);
    }

    #[test]
    fn a_target_that_stands_still_costs_lines_and_never_a_request() {
        let (release, stuck) = mpsc::channel();
        let (log, writer) = AccessLog::new(Target::Other(Box::new(Stuck(stuck))), Format::Json).unwrap();
        let worker = log.worker();
        let long = "/".repeat(64 * 1024);
        // More than two sheets: one may be in the writer's hand.
        for _ in 0..3 * FULL / long.len() {
            worker.write(&line(&long, &plain()));
        }
        let dropped = log.dropped();
        assert!(dropped > 0);
        assert!(worker.sheet.lock().text.len() <= FULL);
        assert!(!writer.flush(Duration::ZERO), "it stands still");
        drop(release);
        assert!(writer.finish(PATIENCE));
        assert_eq!(log.dropped(), dropped, "the rest was taken");
    }

    #[test]
    fn a_target_that_fails_loses_lines_and_heals() {
        let paper = Paper::default();
        let (log, writer) = AccessLog::new(Target::Other(Box::new(paper.clone())), Format::Json).unwrap();
        let worker = log.worker();
        paper.0.lock().1 = true;
        worker.write(&line("/lost", &plain()));
        assert!(writer.flush(PATIENCE));
        assert_eq!(log.dropped(), 1);
        paper.0.lock().1 = false;
        worker.write(&line("/kept", &plain()));
        assert!(writer.finish(PATIENCE));
        assert_eq!(paths(&paper.0.lock().0), ["/kept"]);
    }

    #[test]
    fn after_the_end_lines_are_dropped_and_counted() {
        let paper = Paper::default();
        let (log, writer) = AccessLog::new(Target::Other(Box::new(paper.clone())), Format::Json).unwrap();
        let worker = log.worker();
        worker.write(&line("/before", &plain()));
        assert!(writer.finish(PATIENCE));
        worker.write(&line("/after", &plain()));
        assert_eq!(paths(&paper.0.lock().0), ["/before"]);
        assert_eq!(log.dropped(), 1);
        log.worker().write(&line("/later", &plain()));
        assert_eq!(log.dropped(), 2);
    }

    #[test]
    fn a_file_that_was_moved_away_is_opened_anew() {
        let folder = tempfile::tempdir().unwrap();
        let (path, moved) = (folder.path().join("access.log"), folder.path().join("access.log.1"));
        fs::write(&path, "{\"path\":\"/earlier\"}\n").unwrap();
        let (log, writer) = AccessLog::new(Target::File(path.clone()), Format::Json).unwrap();
        let worker = log.worker();
        worker.write(&line("/old", &plain()));
        fs::rename(&path, &moved).unwrap();
        log.reopen();
        assert!(writer.flush(PATIENCE));
        worker.write(&line("/new", &plain()));
        assert!(writer.finish(PATIENCE));
        assert_eq!(paths(&fs::read(&moved).unwrap()), ["/earlier", "/old"]);
        assert_eq!(paths(&fs::read(&path).unwrap()), ["/new"]);
    }

    #[test]
    fn a_file_that_was_moved_without_a_word_is_opened_anew() {
        let folder = tempfile::tempdir().unwrap();
        let (path, moved) = (folder.path().join("access.log"), folder.path().join("access.log.1"));
        let (log, writer) = AccessLog::new(Target::File(path.clone()), Format::Json).unwrap();
        let worker = log.worker();
        worker.write(&line("/old", &plain()));
        assert!(writer.flush(PATIENCE));
        fs::rename(&path, &moved).unwrap();
        for _ in 0..ROUNDS_PER_LOOK {
            assert!(writer.flush(PATIENCE));
        }
        worker.write(&line("/new", &plain()));
        assert!(writer.flush(PATIENCE));
        fs::remove_file(&path).unwrap();
        for _ in 0..ROUNDS_PER_LOOK {
            assert!(writer.flush(PATIENCE));
        }
        worker.write(&line("/newest", &plain()));
        assert!(writer.finish(PATIENCE));
        assert_eq!(paths(&fs::read(&moved).unwrap()), ["/old"]);
        assert_eq!(paths(&fs::read(&path).unwrap()), ["/newest"]);
    }

    #[test]
    fn of_good_answers_a_sample_has_lines_and_of_all_others_each() {
        let (log, writer) = AccessLog::new(Target::Other(Box::new(Paper::default())), Format::Json).unwrap();
        let sample = NonZeroU32::new(10).unwrap();
        let log = log.writing(LineParams { sample, ..LineParams::default() }).worker();
        let weights = |facts: &Facts<'_>| (0..1_000).filter_map(|drawn| log.weight(facts, drawn)).collect::<Vec<_>>();
        let good = weights(&plain());
        assert_eq!((good.len(), good.iter().sum::<u32>()), (100, 1_000), "each stands for those without");
        let status = |status| Facts { status: http::StatusCode::from_u16(status).unwrap(), ..plain() };
        for other in [
            Facts { reason: Some(Reason::QueueFull), ..plain() },
            Facts { ending: Ending::Aborted, ..plain() },
            Facts { ending: Ending::Broken, ..plain() },
            status(404),
            status(502),
        ] {
            assert_eq!(weights(&other), [1; 1_000], "{other:?}");
        }
        drop(writer);
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_an_error_at_the_start_and_none_later() {
        let folder = tempfile::tempdir().unwrap();
        let below = folder.path().join("logs");
        let path = below.join("access.log");
        assert!(AccessLog::new(Target::File(path.clone()), Format::Json).is_err());
        fs::create_dir(&below).unwrap();
        let (log, writer) = AccessLog::new(Target::File(path), Format::Json).unwrap();
        let worker = log.worker();
        let moved = folder.path().join("moved");
        fs::rename(&below, &moved).unwrap();
        log.reopen();
        worker.write(&line("/still", &plain()));
        assert!(writer.finish(PATIENCE));
        assert_eq!(paths(&fs::read(moved.join("access.log")).unwrap()), ["/still"]);
    }

    #[test]
    fn workers_that_are_gone_leave_nothing_behind() {
        let paper = Paper::default();
        let (log, writer) = AccessLog::new(Target::Other(Box::new(paper.clone())), Format::Json).unwrap();
        let stays = log.worker();
        log.worker().write(&line("/gone", &plain()));
        assert!(writer.flush(PATIENCE) && writer.flush(PATIENCE));
        assert_eq!(log.shared.sheets.lock().len(), 1);
        stays.write(&line("/stays", &plain()));
        assert!(writer.finish(PATIENCE));
        assert_eq!(paths(&paper.0.lock().0), ["/gone", "/stays"]);
    }

    #[test]
    fn the_query_is_written_only_when_asked_for() {
        for (with_query, expected) in [(false, false), (true, true)] {
            let paper = Paper::default();
            let (log, writer) = AccessLog::new(Target::Other(Box::new(paper.clone())), Format::Json).unwrap();
            log.writing(LineParams { query: with_query, ..LineParams::default() }).worker().write(&line("/", &plain()));
            assert!(writer.finish(PATIENCE));
            assert_eq!(memchr::memmem::find(&paper.0.lock().0, b"query").is_some(), expected);
        }
    }
}
