//! What was used of quotas, through reloads and restarts.
//!
//! ```text
//! vaxel-state 1
//! quota day 1795734000 1795820400 688 webshop        per, begin and end (Unix seconds), used, consumer
//! sum 2c26b46b…                                      SHA-256 of all lines before
//! ```
//! - Requests count in memory; the control plane writes the file every few seconds and when the process drains. A crash
//!   forgets at most those seconds.
//! - The file is written beside the old one and takes its place when it is whole. One that is damaged is as good as none.
//! - A consumer that a reload takes away keeps its counts until its windows end: it may come back with the next one.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};

use crate::cache::persist::{create, sync_folder};
use crate::throttle::quota::{Count, Counts, Per};

/// The counts of all consumers.
#[derive(Debug)]
pub(super) struct Ledger {
    file: Option<PathBuf>,
    /// By the consumer's name as [`escaped`]: a name may hold what would break a line.
    accounts: Mutex<BTreeMap<String, Arc<Mutex<Counts>>>>,
    /// What the file holds; locked while it is written.
    written: Mutex<Option<String>>,
}

impl Ledger {
    /// Takes up what `file` holds of windows that are still open at `now`. A file that cannot be used is left where it is
    /// until it is replaced.
    pub(super) fn open(file: Option<PathBuf>, now: SystemTime) -> Self {
        let accounts = file.as_deref().map(|file| read(file, now)).unwrap_or_default();
        let accounts = accounts.into_iter().map(|(name, counts)| (name, Arc::new(Mutex::new(counts))));
        Self { file, accounts: Mutex::new(accounts.collect()), written: Mutex::default() }
    }

    /// The counts of a consumer.
    pub(super) fn account(&self, consumer: &str) -> Arc<Mutex<Counts>> {
        Arc::clone(self.accounts.lock().entry(escaped(consumer)).or_default())
    }

    /// Forgets who left and has no open window, so that reloads with ever new names take no memory.
    pub(super) fn prune(&self, now: SystemTime) {
        self.accounts
            .lock()
            .retain(|_, counts| Arc::strong_count(counts) > 1 || counts.lock().open(now).next().is_some());
    }

    /// Whether there is a file to write.
    pub(super) const fn is_kept(&self) -> bool {
        self.file.is_some()
    }

    /// Writes the counts down, if they are others than were written last; says whether. Blocks.
    ///
    /// # Errors
    /// When the file cannot be written; the one before is still there.
    pub(super) fn save(&self, now: SystemTime) -> io::Result<bool> {
        let Some(file) = &self.file else { return Ok(false) };
        let mut written = self.written.lock();
        let text = encode(&self.accounts.lock(), now);
        if written.as_ref() == Some(&text) {
            return Ok(false);
        }
        replace(file, text.as_bytes())?;
        *written = Some(text);
        Ok(true)
    }
}

/// What `file` holds; nothing, with a warning, if it cannot be used.
fn read(file: &Path, now: SystemTime) -> BTreeMap<String, Counts> {
    let shown = file.display();
    match fs::read_to_string(file) {
        Ok(text) => decode(&text, now).unwrap_or_else(|| {
            tracing::warn!(file = %shown, "the state file is damaged: quotas begin anew");
            BTreeMap::new()
        }),
        Err(error) => {
            if error.kind() != ErrorKind::NotFound {
                tracing::warn!(file = %shown, %error, "the state file cannot be read: quotas begin anew");
            }
            BTreeMap::new()
        }
    }
}

/// Puts a file with `bytes` in the place of `file`, whole or not at all.
fn replace(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut beside = file.to_owned().into_os_string();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    // What a crash has left.
    let _ = fs::remove_file(&beside);
    let write = || {
        let mut new = create(&beside)?;
        new.write_all(bytes)?;
        new.sync_all()?;
        fs::rename(&beside, file)?;
        sync_folder(file)
    };
    write().inspect_err(|_| drop(fs::remove_file(&beside)))
}

fn encode(accounts: &BTreeMap<String, Arc<Mutex<Counts>>>, now: SystemTime) -> String {
    let mut text = format!("{HEAD}\n");
    for (name, counts) in accounts {
        for (per, Count { begin, end, used }) in counts.lock().open(now) {
            let (per, begin, end) = (per.word(), seconds(begin), seconds(end));
            text.push_str(&format!("quota {per} {begin} {end} {used} {name}\n"));
        }
    }
    text.push_str(&format!("sum {}\n", sum(&text)));
    text
}

/// `None`: the file is damaged, or of another version.
fn decode(text: &str, now: SystemTime) -> Option<BTreeMap<String, Counts>> {
    let (lines, end) = text.split_at_checked(text.rfind("sum ")?)?;
    if end.strip_prefix("sum ")?.trim_end() != sum(lines) {
        return None;
    }
    let mut accounts = BTreeMap::<_, Counts>::new();
    for line in lines.strip_prefix(HEAD)?.lines().filter(|line| !line.is_empty()) {
        let mut words = line.splitn(6, ' ');
        let mut word = || words.next();
        let (kind, per) = (word()?, word()?);
        let per = Per::ALL.into_iter().find(|known| known.word() == per)?;
        let (begin, end) = (time(word()?)?, time(word()?)?);
        let (used, name) = (word()?.parse().ok()?, word()?);
        if kind == "quota" && now < end {
            accounts.entry(name.to_owned()).or_default().restore(per, Count { begin, end, used });
        }
    }
    Some(accounts)
}

fn sum(text: &str) -> String {
    Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn escaped(name: &str) -> String {
    name.escape_debug().to_string()
}

/// Windows begin and end on whole seconds.
fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn time(seconds: &str) -> Option<SystemTime> {
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds.parse().ok()?))
}

const HEAD: &str = "vaxel-state 1";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::throttle::quota::QuotaParams;

    const NOW: SystemTime = SystemTime::UNIX_EPOCH;

    fn quotas() -> [QuotaParams; 2] {
        let (zone, mode) = (jiff::tz::TimeZone::UTC, crate::refusal::Mode::Enforce);
        [Per::Hour, Per::Day].map(|per| QuotaParams { limit: 100, per, zone: zone.clone(), mode })
    }

    fn used(ledger: &Ledger, consumer: &str, now: SystemTime) -> Vec<u64> {
        let standing = ledger.account(consumer).lock().stand(&quotas(), 1, now);
        standing.iter().flatten().map(|quota| quota.used).collect()
    }

    fn spend(ledger: &Ledger, consumer: &str, cost: u32) {
        ledger.account(consumer).lock().check(&quotas(), cost, NOW);
    }

    #[test]
    fn counts_outlive_the_process() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("state");
        let first = Ledger::open(Some(file.clone()), NOW);
        let names = ["webshop", "a shop\nwith a line", "", "sum 1"];
        for (name, cost) in names.into_iter().zip(1..) {
            spend(&first, name, cost);
        }
        assert!(first.save(NOW).unwrap());
        assert!(!first.save(NOW).unwrap(), "nothing has changed");
        let later = NOW + Duration::from_secs(3600);
        let (second, third) = (Ledger::open(Some(file.clone()), NOW), Ledger::open(Some(file), later));
        for (name, cost) in names.into_iter().zip(1..) {
            assert_eq!(used(&second, name, NOW), [cost, cost], "{name}");
            assert_eq!(used(&third, name, later), [0, cost], "{name}: the hour is over");
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside the file");
    }

    #[test]
    fn a_file_that_cannot_be_used_is_a_fresh_start_and_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("state");
        let good = Ledger::open(Some(file.clone()), NOW);
        spend(&good, "webshop", 7);
        good.save(NOW).unwrap();
        let text = fs::read_to_string(&file).unwrap();
        for damaged in ["", "vaxel-state 1\n", &text.replace(" 7 ", " 6 "), &text[..text.len() / 2], &text[1..]] {
            fs::write(&file, damaged).unwrap();
            let ledger = Ledger::open(Some(file.clone()), NOW);
            assert_eq!(used(&ledger, "webshop", NOW), [0, 0], "{damaged:?}");
            spend(&ledger, "webshop", 2);
            assert!(ledger.save(NOW).unwrap());
            assert_eq!(used(&Ledger::open(Some(file.clone()), NOW), "webshop", NOW), [2, 2]);
        }
    }

    #[test]
    fn a_file_that_cannot_be_written_leaves_the_one_before() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("not there").join("state");
        let ledger = Ledger::open(Some(file), NOW);
        spend(&ledger, "webshop", 7);
        assert!(ledger.save(NOW).is_err());
        assert_eq!(used(&ledger, "webshop", NOW), [7, 7]);
    }

    #[test]
    fn who_left_is_forgotten_when_his_windows_have_ended() {
        let ledger = Ledger::open(None, NOW);
        let stays = ledger.account("stays");
        spend(&ledger, "left", 1);
        let left = || ledger.accounts.lock().len();
        ledger.prune(NOW);
        assert_eq!(left(), 2);
        ledger.prune(NOW + Duration::from_secs(86_400));
        assert_eq!(left(), 1);
        drop(stays);
    }

    proptest! {
        #[test]
        fn no_bytes_on_the_disk_panic(text in "(vaxel-state 1\n)?(quota|sum| |hour|day|[0-9]+|\n|[a-z]|é){0,40}") {
            decode(&text, NOW);
            decode(&format!("{text}sum {}\n", sum(&text)), NOW);
        }
    }
}
