//! What was used of quotas and what adaptive limits have learned, through reloads and restarts. [`form`] has the file.
//!
//! - Requests count in memory; the control plane writes the file every few seconds and when the process drains. A crash
//!   forgets at most those seconds.
//! - The file is written beside the old one and takes its place when it is whole. One that is damaged is as good as none.
//! - A consumer that a reload takes away keeps its counts until its windows end: it may come back with the next one. So does
//!   an upstream, for [`KEPT`].
//! - What a limit has learned is where it begins, within the bounds of the settings, and no more: it goes on learning.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;

use crate::cache::persist::{create, sync_folder};
use crate::throttle::limit::learned::Learned;
use crate::throttle::quota::Counts;

mod form;

use form::Content;

/// The counts of all consumers, and what limits have learned.
#[derive(Debug)]
pub(super) struct Ledger {
    file: Option<PathBuf>,
    /// By the consumer's name as [`escaped`]: a name may hold what would break a line.
    accounts: Mutex<BTreeMap<String, Arc<Mutex<Counts>>>>,
    /// By the upstream's name, likewise: what the file holds, or is to hold.
    limits: Mutex<BTreeMap<String, Kept>>,
    /// What the file holds; locked while it is written.
    written: Mutex<Option<String>>,
}

/// What a limit has learned.
#[derive(Debug, Clone, PartialEq)]
struct Kept {
    learned: Learned,
    /// When it was last seen to be another.
    at: SystemTime,
}

impl Ledger {
    /// Takes up what `file` holds of windows that are still open at `now`. A file that cannot be used is left where it is
    /// until it is replaced.
    pub(super) fn open(file: Option<PathBuf>, now: SystemTime) -> Self {
        let Content { accounts, limits } = file.as_deref().map(|file| read(file, now)).unwrap_or_default();
        let accounts = accounts.into_iter().map(|(name, counts)| (name, Arc::new(Mutex::new(counts))));
        let (accounts, limits) = (Mutex::new(accounts.collect()), Mutex::new(limits));
        Self { file, accounts, limits, written: Mutex::default() }
    }

    /// The counts of a consumer.
    pub(super) fn account(&self, consumer: &str) -> Arc<Mutex<Counts>> {
        Arc::clone(self.accounts.lock().entry(escaped(consumer)).or_default())
    }

    /// What the limit of an upstream had learned when it was last looked at, unless that is too long ago.
    pub(super) fn learned(&self, upstream: &str, now: SystemTime) -> Option<Learned> {
        let limits = self.limits.lock();
        let Kept { learned, at } = limits.get(&escaped(upstream))?;
        // A time to come is a clock that was set back, or a hand in the file: nobody knows how old it is.
        if is_recent(*at, now) {
            return Some(learned.clone());
        }
        let days = now.duration_since(*at).map_or(0, |age| age.as_secs() / 86_400);
        tracing::warn!(upstream, days, "what its limit had learned is too old, or from the future: it begins anew");
        None
    }

    /// Takes in what the limit of an upstream has learned up to now.
    pub(super) fn note(&self, upstream: &str, learned: Learned, now: SystemTime) {
        let mut limits = self.limits.lock();
        let name = escaped(upstream);
        if limits.get(&name).is_none_or(|kept| kept.learned != learned) {
            limits.insert(name, Kept { learned, at: now });
        }
    }

    /// Forgets who left and has no open window, so that reloads with ever new names take no memory; and what was learned
    /// too long ago.
    pub(super) fn prune(&self, now: SystemTime) {
        self.limits.lock().retain(|_, kept| is_recent(kept.at, now));
        self.accounts
            .lock()
            .retain(|_, counts| Arc::strong_count(counts) > 1 || counts.lock().open(now).next().is_some());
    }

    /// Whether there is a file to write.
    pub(super) const fn is_kept(&self) -> bool {
        self.file.is_some()
    }

    /// Writes all of it down, if it is not what was written last; says whether. Blocks.
    ///
    /// # Errors
    /// When the file cannot be written; the one before is still there.
    pub(super) fn save(&self, now: SystemTime) -> io::Result<bool> {
        let Some(file) = &self.file else { return Ok(false) };
        let mut written = self.written.lock();
        let text = form::encode(&self.accounts.lock(), &self.limits.lock(), now);
        if written.as_ref() == Some(&text) {
            return Ok(false);
        }
        replace(file, text.as_bytes())?;
        *written = Some(text);
        Ok(true)
    }
}

/// What `file` holds; nothing, with a warning, if it cannot be used.
fn read(file: &Path, now: SystemTime) -> Content {
    let shown = file.display();
    match text(file) {
        Ok(text) => form::decode(&text, now).unwrap_or_else(|why| {
            tracing::warn!(file = %shown, "the state file is {}: quotas and limits begin anew", why.word());
            Content::default()
        }),
        Err(error) => {
            if error.kind() != ErrorKind::NotFound {
                tracing::warn!(file = %shown, %error, "the state file cannot be read: quotas and limits begin anew");
            }
            Content::default()
        }
    }
}

/// The text of a file, if it is one and not too large.
fn text(file: &Path) -> io::Result<String> {
    let found = fs::metadata(file)?;
    // A pipe would be waited for for ever.
    if !found.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    if found.len() > LARGEST {
        return Err(io::Error::other("it is larger than any that was written"));
    }
    let mut text = String::new();
    fs::File::open(file)?.take(LARGEST).read_to_string(&mut text)?;
    Ok(text)
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

fn escaped(name: &str) -> String {
    name.escape_debug().to_string()
}

fn is_recent(at: SystemTime, now: SystemTime) -> bool {
    let ahead = at.duration_since(now).unwrap_or_default();
    ahead <= LEEWAY && now.duration_since(at).unwrap_or_default() <= KEPT
}

/// What was learned longer ago says little of the backend: over a week it has seen an end of the week and its maintenance.
const KEPT: Duration = Duration::from_secs(8 * 86_400);

/// By how much a clock may have been set back.
const LEEWAY: Duration = Duration::from_secs(3600);

/// Far more than the counts of a hundred thousand consumers need.
const LARGEST: u64 = 64 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::throttle::limit::learned::Kind;
    use crate::throttle::quota::{Per, QuotaParams};

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

    fn learned(slots: f64) -> Learned {
        Learned { kind: Kind::Gradient, slots, baselines: Vec::new() }
    }

    #[test]
    fn what_a_limit_has_learned_outlives_the_process_for_a_week() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("state");
        let first = Ledger::open(Some(file.clone()), NOW);
        first.note("erp", learned(11.5), NOW);
        assert!(first.save(NOW).unwrap());
        let day = Duration::from_secs(86_400);
        first.note("erp", learned(11.5), NOW + day);
        assert!(!first.save(NOW + day).unwrap(), "it has learned nothing");
        let begun = NOW + 7 * day;
        let second = Ledger::open(Some(file.clone()), begun);
        assert_eq!(second.learned("erp", begun), Some(learned(11.5)));
        assert_eq!(second.learned("crm", begun), None);
        let late = NOW + 9 * day;
        let third = Ledger::open(Some(file), late);
        assert_eq!(third.learned("erp", late), None, "too old");
        third.prune(late);
        assert!(third.limits.lock().is_empty());
    }

    #[test]
    fn what_was_learned_in_the_future_is_not_believed() {
        let ledger = Ledger::open(None, NOW);
        for (ahead, expected) in [(1800, Some(learned(9.0))), (7200, None)] {
            ledger.note("erp", learned(ahead as f64), NOW);
            ledger.note("erp", learned(9.0), NOW + Duration::from_secs(ahead));
            assert_eq!(ledger.learned("erp", NOW), expected, "{ahead} s");
        }
    }

    #[cfg(unix)]
    #[test]
    fn what_is_no_file_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("state");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
        assert!(made.success());
        let ledger = Ledger::open(Some(pipe), NOW);
        assert_eq!(used(&ledger, "webshop", NOW), [0, 0]);
    }
}
