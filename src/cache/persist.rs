//! The store on disk, so that a restart does not send the whole load to the backend.
//!
//! ```text
//! file    = ended head head frame*
//! ended   = 8 bytes: how the process that wrote it ended
//! head    = version, keyer's seed, probe, time, fingerprint, sum          twice: one may be damaged
//! frame   = mark, length, sum, record                                     see `record`
//! ```
//! - A damaged frame costs its record: reading goes on at the next mark. Marks and sums are made with the seed, which
//!   nobody outside knows, so no body can hold what looks like a frame.
//! - Keys and partitions are hashes under the keyer's seed, so the seed is kept. The probe is the key of something
//!   known: another hash function is another file.
//! - The fingerprint stands for the configuration under which the answers were stored. Under another one they may be
//!   for others than they were, or of another backend: then nothing is read.
//! - Fences start anew with the process: what was outdated by one is left out.
//! - What belongs to one identity is left out: nobody's personal answers lie on a disk. So are marks: they last minutes.
//! - A file is trusted as it is only if its process drained and nothing has run since. After a crash an answer may have
//!   been invalidated after it was written: then all are stale, and are validated before they are served, though they
//!   stand in for a failing origin.
//! - A new file is written beside the old one, and takes its place when it is whole. It is the owner's alone (0600).

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, ErrorKind, Read, Seek as _, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::cache::entry::{Entry, Head, Life};
use crate::cache::key::Key;
use crate::cache::record::{self, Record};
use crate::cache::store::{Slot, Store};
use crate::clock::{Clock, Moment};

mod form;

use form::{CRASHED, DRAINED, FRAME, Frames, HEADER, Heading, begin};

/// Whether and where the store is kept over a restart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PersistParams {
    /// The file.
    pub file: PathBuf,
    /// The time between two writings, for the case of a crash.
    pub every: Duration,
    /// The largest file, in bytes.
    pub max_bytes: u64,
}

/// The place on disk of one store.
#[derive(Debug)]
pub struct Shelf {
    params: PersistParams,
    seed: u64,
    fingerprint: [u8; 32],
    /// What was found at the start, until it is read.
    found: Mutex<Option<Found>>,
    /// How often what is on disk became wrong.
    forgotten: Mutex<u64>,
    /// Held while a file is written; whether the last one is.
    closed: Mutex<bool>,
}

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// Answers.
    pub entries: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// Answers that found no room in it.
    pub omitted: u64,
}

/// What was read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Restored {
    /// Answers put into the store.
    pub entries: u64,
    /// Answers whose time was over.
    pub outlived: u64,
    /// Places where the file was damaged.
    pub damaged: u64,
    /// Whether the process that wrote it had drained: else all are stale.
    pub drained: bool,
    /// Whether the time for it ran out.
    pub cut: bool,
}

/// A file that can be used.
#[derive(Debug)]
struct Found {
    file: File,
    length: u64,
    heading: Heading,
    drained: bool,
}

impl Shelf {
    /// Looks for a file written under the configuration that `fingerprint` stands for. `seed` is a drawn number, for
    /// the keys if there is none. A file that cannot be used is left where it is until it is replaced.
    pub fn open(params: PersistParams, fingerprint: [u8; 32], seed: u64) -> Self {
        let found = match find(&params.file, &fingerprint) {
            Ok(found) => found,
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => {
                tracing::warn!(file = %params.file.display(), %error, "the stored answers on disk cannot be used");
                None
            }
        };
        let seed = found.as_ref().map_or(seed, |found| found.heading.seed);
        Self {
            params,
            seed,
            fingerprint,
            found: Mutex::new(found),
            forgotten: Mutex::default(),
            closed: Mutex::default(),
        }
    }

    /// What the keys of the store are made with.
    pub const fn seed(&self) -> u64 {
        self.seed
    }

    /// The time between two writings.
    pub const fn every(&self) -> Duration {
        self.params.every
    }

    /// Puts into `store` what was found at the start, for at most `patience`. Before the first request: what it brings
    /// counts as older than anything that comes. `None`: nothing was found.
    pub fn restore(&self, store: &Store, clock: &Clock, patience: Duration) -> Option<Restored> {
        let mut found = self.found.lock().take()?;
        let moment = clock.moment();
        // From now on the file is no longer the last word, however this process ends.
        let drained = found.distrust().is_ok() && found.drained;
        let spent = || clock.now().saturating_duration_since(moment.mono);
        let Found { file, length, heading, .. } = found;
        Some(read(file, length.saturating_sub(HEADER as u64), &heading, drained, store, moment, || spent() < patience))
    }

    /// Writes those answers in `store` that are `worth` it. `drained`: nothing will change any more, and nothing is
    /// written after it. `None`: an operator purged meanwhile, or the last word was written, so nothing was kept.
    ///
    /// # Errors
    /// When the file cannot be written; the one before is still there.
    pub fn save(
        &self,
        store: &Store,
        now: Moment,
        drained: bool,
        worth: impl Fn(&Entry) -> bool,
    ) -> io::Result<Option<Written>> {
        let mut closed = self.closed.lock();
        if *closed {
            return Ok(None);
        }
        *closed = drained;
        let before = *self.forgotten.lock();
        let beside = self.beside();
        // What a crash has left.
        let _ = fs::remove_file(&beside);
        let result = self.write(&beside, store, now, drained, worth).and_then(|written| {
            let forgotten = self.forgotten.lock();
            if *forgotten != before {
                fs::remove_file(&beside)?;
                return Ok(None);
            }
            fs::rename(&beside, &self.params.file)?;
            drop(forgotten);
            sync_folder(&self.params.file)?;
            Ok(Some(written))
        });
        if result.is_err() {
            let _ = fs::remove_file(&beside);
        }
        result
    }

    /// An operator took something out for good: what is on disk, and what is just being written, must not bring it
    /// back. To be called after the purge.
    ///
    /// # Errors
    /// When the file cannot be removed.
    pub fn forget(&self) -> io::Result<()> {
        let mut forgotten = self.forgotten.lock();
        *forgotten += 1;
        match fs::remove_file(&self.params.file) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn beside(&self) -> PathBuf {
        let mut name = self.params.file.clone().into_os_string();
        name.push(".new");
        name.into()
    }

    fn write(
        &self,
        path: &Path,
        store: &Store,
        now: Moment,
        drained: bool,
        worth: impl Fn(&Entry) -> bool,
    ) -> io::Result<Written> {
        let heading = Heading { seed: self.seed, saved: now.wall, fingerprint: self.fingerprint };
        let mut out = BufWriter::new(create(path)?);
        let worth = |entry: &Entry| entry.age(now.mono) < entry.head.life.end() && worth(entry);
        out.write_all(if drained { &DRAINED } else { &CRASHED })?;
        let written = write(&mut out, store, &heading, now.mono, self.params.max_bytes, worth)?;
        out.into_inner()?.sync_all()?;
        Ok(written)
    }
}

impl Found {
    /// Takes the word back that the process had drained.
    fn distrust(&mut self) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(0))?;
        self.file.write_all(&CRASHED)?;
        self.file.sync_data()?;
        self.file.seek(SeekFrom::Start(HEADER as u64))?;
        Ok(())
    }
}

/// Puts the records of `input`, which is `length` bytes long, into `store`, for as long as it `may_go_on`.
fn read(
    input: impl Read,
    length: u64,
    heading: &Heading,
    drained: bool,
    store: &Store,
    now: Moment,
    may_go_on: impl Fn() -> bool,
) -> Restored {
    let rest = now.wall.duration_since(heading.saved).unwrap_or_default();
    let mut restored = Restored { drained, ..Restored::default() };
    let mut frames = Frames::new(input, length, heading);
    loop {
        if !may_go_on() {
            restored.cut = true;
            break;
        }
        let bytes = match frames.next() {
            Ok(Some(bytes)) => bytes,
            Ok(None) => break,
            Err(_) => {
                frames.damaged += 1;
                break;
            }
        };
        match record::decode(bytes, rest, now.mono) {
            None => restored.damaged += 1,
            Some(record) => match shelved(record, drained) {
                Record { primary, variant, entry } if entry.age(now.mono) < entry.head.life.end() => {
                    restored.entries += u64::from(store.insert(primary, variant, Arc::new(entry), now.mono));
                }
                _ => restored.outlived += 1,
            },
        }
    }
    restored.damaged += frames.damaged;
    store.maintain();
    restored
}

/// What of a record goes into the store. After a crash it is stale, and not served before it is validated.
fn shelved(record: Record, drained: bool) -> Record {
    if drained {
        return record;
    }
    let Record { primary, variant, entry } = record;
    let head = Head::clone(&entry.head);
    let life = Life { swr: Duration::ZERO, ..head.life };
    let entry = Entry::new(Arc::new(Head { life, ..head }), entry.body);
    entry.soft_purge();
    Record { primary, variant, entry }
}

fn write(
    out: &mut impl Write,
    store: &Store,
    heading: &Heading,
    now: Instant,
    max_bytes: u64,
    worth: impl Fn(&Entry) -> bool,
) -> io::Result<Written> {
    let head = heading.bytes();
    out.write_all(&head)?;
    out.write_all(&head)?;
    let mut written = Written { entries: 0, bytes: HEADER as u64, omitted: 0 };
    let mut result = Ok(());
    let mut record = Vec::new();
    store.each_shared(|primary, variant, entry| {
        if result.is_err() || !worth(entry) {
            return;
        }
        record.clear();
        record::encode(primary, variant, entry, now, &mut record);
        let length = (FRAME + record.len()) as u64;
        match u32::try_from(record.len()) {
            Ok(size) if written.bytes + length <= max_bytes => {
                let head = [&heading.mark()[..], &size.to_le_bytes(), &heading.sum(&record)].concat();
                result = out.write_all(&head).and_then(|()| out.write_all(&record));
                written.entries += 1;
                written.bytes += length;
            }
            _ => written.omitted += 1,
        }
    });
    result.map(|()| written)
}

impl Store {
    /// Shows every stored answer that is not one identity's own, with its keys.
    fn each_shared(&self, mut visit: impl FnMut(Key, Key, &Entry)) {
        let mut show = |primary, variant, entry: &Entry| {
            if entry.head.partition().is_none() {
                visit(primary, variant, entry);
            }
        };
        for (primary, slot) in &self.slots {
            match slot {
                Slot::Entry(entry) if entry.head.vary.is_empty() => show(*primary, *primary, &entry),
                Slot::Vary(variants) => {
                    for key in variants.keys() {
                        if let Some(Slot::Entry(entry)) = self.slots.get(&key) {
                            show(*primary, variants.salted(key), &entry);
                        }
                    }
                }
                // A variant is found by its list; what no list leads to is never found.
                Slot::Entry(_) | Slot::Uncacheable { .. } => {}
            }
        }
    }
}

fn find(path: &Path, fingerprint: &[u8; 32]) -> io::Result<Option<Found>> {
    // Written as well: the word that its process had drained is taken back.
    let mut file = OpenOptions::new().read(true).write(true).open(path)?;
    let length = file.metadata()?.len();
    let mut head = [0; HEADER];
    file.read_exact(&mut head)?;
    let Some((heading, drained)) = begin(&head) else {
        return Err(io::Error::new(ErrorKind::InvalidData, "it is damaged at its beginning, or of another version"));
    };
    let mut found = Found { file, length, heading, drained };
    if heading.fingerprint != *fingerprint {
        tracing::info!(file = %path.display(), "the stored answers on disk are of another configuration: not read");
        // Should that come back, others have changed things meanwhile.
        found.distrust()?;
        return Ok(None);
    }
    Ok(Some(found))
}

/// A new file, the owner's alone.
pub(crate) fn create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Makes a rename last.
pub(crate) fn sync_folder(file: &Path) -> io::Result<()> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use proptest::prelude::*;

    use super::form::HEAD;
    use super::*;
    use crate::cache::QueryRule;
    use crate::cache::key::{KeyParts, Keyer};
    use crate::cache::store::tests::World;
    use crate::cache::store::{FoundSlot, Lookup};

    const FINGERPRINT: [u8; 32] = [7; 32];

    /// A shelf in a folder of its own.
    struct Place {
        _folder: tempfile::TempDir,
        params: PersistParams,
    }

    impl Place {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let file = folder.path().join("cache");
            let params = PersistParams { file, every: Duration::from_secs(1), max_bytes: 1 << 20 };
            Self { _folder: folder, params }
        }

        fn shelf(&self) -> Shelf {
            Shelf::open(self.params.clone(), FINGERPRINT, 1)
        }

        fn bytes(&self) -> Vec<u8> {
            fs::read(&self.params.file).unwrap()
        }

        /// Reads it into an empty store.
        fn restore(&self) -> (World, Option<Restored>) {
            let world = World::new(1 << 20);
            let restored = self.shelf().restore(&world.store, &clock(), Duration::from_secs(60));
            (world, restored)
        }
    }

    fn clock() -> Clock {
        Clock::anchored(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000))
    }

    fn save(place: &Place, world: &World, drained: bool) -> Written {
        place.shelf().save(&world.store, clock().moment(), drained, |_| true).unwrap().unwrap()
    }

    fn full() -> World {
        let mut world = World::new(1 << 20);
        world.put("/a", "red", &[("accept-language", "en")]);
        world.put("/a", "", &[("accept-language", "sv")]);
        world.put("/b", "blue", &[]);
        world.store.mark_uncacheable(world.key("/c"), world.now);
        world
    }

    fn stored(world: &World) -> [bool; 3] {
        [
            world.get("/a", &[("accept-language", "en")]),
            world.get("/a", &[("accept-language", "sv")]),
            world.get("/b", &[]),
        ]
        .map(|entry| entry.is_some())
    }

    #[test]
    fn what_was_stored_is_stored_again() {
        let (place, world) = (Place::new(), full());
        world.get("/b", &[]).unwrap().soft_purge();
        let written = save(&place, &world, true);
        assert_eq!((written.entries, written.bytes, written.omitted), (3, place.bytes().len() as u64, 0));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(fs::metadata(&place.params.file).unwrap().permissions().mode() & 0o777, 0o600);
        }
        let (again, restored) = place.restore();
        assert_eq!(restored, Some(Restored { entries: 3, drained: true, ..Restored::default() }));
        assert_eq!(stored(&again), [true; 3]);
        assert!(again.get("/b", &[]).unwrap().is_soft_purged());
        assert!(!again.get("/a", &[("accept-language", "en")]).unwrap().is_soft_purged());
        assert_eq!(&*again.get("/b", &[]).unwrap().head.groups, ["blue".into()]);
        assert!(place.restore().1.is_some_and(|restored| !restored.drained), "it was read once");
    }

    #[test]
    fn after_a_crash_everything_is_stale_and_waits_for_validation() {
        let (place, world) = (Place::new(), full());
        save(&place, &world, false);
        let (again, restored) = place.restore();
        assert_eq!(restored, Some(Restored { entries: 3, ..Restored::default() }));
        let entry = again.get("/b", &[]).unwrap();
        assert!(entry.is_soft_purged() && entry.head.life.swr.is_zero());
    }

    #[tokio::test(start_paused = true)]
    async fn age_goes_on_while_nothing_runs() {
        let (place, world) = (Place::new(), full());
        save(&place, &world, true);
        let before = world.get("/b", &[]).unwrap().age(clock().now());
        let later = |seconds| Clock::anchored(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 + seconds));
        for (seconds, entries) in [(30, 3), (59, 3), (61, 0)] {
            let again = World::new(1 << 20);
            let restored = place.shelf().restore(&again.store, &later(seconds), Duration::from_secs(60)).unwrap();
            assert_eq!((restored.entries, restored.outlived), (entries, 3 - entries), "{seconds}");
            if let Some(entry) = again.get("/b", &[]) {
                let age = entry.age(entry.head.received);
                assert_eq!(age, before + Duration::from_secs(seconds));
            }
        }
    }

    #[test]
    fn another_configuration_reads_nothing_and_takes_the_trust() {
        let (place, world) = (Place::new(), full());
        save(&place, &world, true);
        let other = Shelf::open(place.params.clone(), [8; 32], 1);
        assert_eq!(other.restore(&World::new(1 << 20).store, &clock(), Duration::MAX), None);
        assert!(place.restore().1.is_some_and(|restored| !restored.drained));
    }

    #[test]
    fn the_file_is_bounded_and_the_time_too() {
        let (mut place, world) = (Place::new(), full());
        place.params.max_bytes = 500;
        let written = save(&place, &world, true);
        assert!(written.bytes <= 500 && written.entries > 0 && written.omitted > 0, "{written:?}");
        assert_eq!(written.entries + written.omitted, 3);
        let again = World::new(1 << 20);
        let restored = place.shelf().restore(&again.store, &clock(), Duration::ZERO).unwrap();
        assert!(restored.cut && restored.entries == 0, "{restored:?}");
    }

    #[test]
    fn what_an_operator_took_out_does_not_come_back() {
        let (place, world) = (Place::new(), full());
        save(&place, &world, true);
        let shelf = place.shelf();
        shelf.forget().unwrap();
        assert!(!place.params.file.exists());
        shelf.forget().unwrap();
        assert!(shelf.save(&world.store, clock().moment(), false, |_| true).unwrap().is_some());
        assert!(shelf.save(&world.store, clock().moment(), true, |_| true).unwrap().is_some());
        assert_eq!(
            shelf.save(&world.store, clock().moment(), false, |_| true).unwrap(),
            None,
            "the last word was written"
        );
    }

    #[test]
    fn nobodys_own_answers_are_written() {
        let (place, mut world) = (Place::new(), World::new(1 << 20));
        let own = Entry::new(crate::cache::store::tests::head("http://erp/mine 0000000000000005 sap"), "".into());
        assert!(world.store.insert(Key(5), Key(5), Arc::new(own), world.now));
        world.put("/b", "", &[]);
        assert_eq!(save(&place, &world, true).entries, 1);
        let text = place.bytes();
        assert!(memchr::memmem::find(&text, b"/mine").is_none());
        assert!(memchr::memmem::find(&text, b"/b").is_some());
    }

    #[test]
    fn a_file_that_cannot_be_written_leaves_the_one_before() {
        let (mut place, world) = (Place::new(), full());
        save(&place, &world, true);
        let shelf = place.shelf();
        fs::create_dir(place.params.file.with_extension("new")).unwrap();
        assert!(shelf.save(&world.store, clock().moment(), true, |_| true).is_err());
        assert_eq!(place.restore().1.unwrap().entries, 3);
        place.params.file = "/nonexistent/cache".into();
        assert!(place.shelf().save(&world.store, clock().moment(), true, |_| true).is_err());
    }

    #[test]
    fn each_damaged_place_costs_what_is_there() {
        let (place, world) = (Place::new(), full());
        save(&place, &world, true);
        let whole = place.bytes();
        let heading = Heading::read(&whole[8..8 + HEAD]).unwrap();
        let begin = HEADER + memchr::memmem::find(&whole[HEADER + 1..], &heading.mark()).unwrap() + 1;
        // The second frame's length says that it goes on to the end; and beyond it.
        for length in [(whole.len() - begin - FRAME) as u32, u32::MAX] {
            let mut bytes = whole.clone();
            bytes[begin + 8..begin + 12].copy_from_slice(&length.to_le_bytes());
            fs::write(&place.params.file, &bytes).unwrap();
            let restored = place.restore().1.unwrap();
            assert_eq!((restored.entries, restored.damaged), (2, 1));
        }
        for (cut, entries) in [(whole.len() - 1, 2), (HEADER + 3, 0), (HEADER, 0)] {
            fs::write(&place.params.file, &whole[..cut]).unwrap();
            let restored = place.restore().1.unwrap();
            assert_eq!((restored.entries, restored.damaged), (entries, u64::from(cut != HEADER)), "{cut}");
        }
        fs::write(&place.params.file, &whole[..HEADER - 1]).unwrap();
        assert_eq!(place.restore().1, None);
    }

    /// Every answer that is found in a store read from a damaged file is one that was stored.
    fn check_damage(world: &World, bytes: &[u8], least: u64) {
        let (head, frames) = bytes.split_first_chunk().unwrap();
        let again = World::new(1 << 20);
        let restored = begin(head).map(|(heading, drained)| {
            read(frames, frames.len() as u64, &heading, drained, &again.store, clock().moment(), || true)
        });
        let restored = restored.unwrap_or_default();
        assert!(restored.entries >= least, "{restored:?}");
        for (path, language) in [("/a", Some("en")), ("/a", Some("sv")), ("/b", None)] {
            let fields: Vec<_> = language.map(|language| ("accept-language", language)).into_iter().collect();
            if let Some(entry) = again.get(path, &fields) {
                let before = world.get(path, &fields).unwrap();
                if !restored.drained {
                    assert!(entry.is_soft_purged());
                    continue;
                }
                assert!(record::tests::is_same(&before, &entry), "{before:?}\n{entry:?}");
            }
        }
    }

    #[test]
    fn any_damaged_byte_costs_one_answer_at_most() {
        let (place, world) = (Place::new(), full());
        save(&place, &world, true);
        let whole = place.bytes();
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x41;
            check_damage(&world, &bytes, 2);
        }
    }

    #[test]
    fn no_damage_gives_a_wrong_answer() {
        let (place, world) = (Place::new(), full());
        save(&place, &world, true);
        let whole = place.bytes();
        let damage = proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20);
        let places = (any::<prop::sample::Index>(), any::<prop::sample::Index>());
        proptest!(|(damage in damage, (cut, insert) in places)| {
            let mut bytes = whole.clone();
            for (at, to) in &damage {
                let at = at.index(bytes.len());
                bytes[at] = *to;
            }
            bytes.insert(insert.index(bytes.len()), 0x41);
            bytes.truncate(HEADER + cut.index(bytes.len() - HEADER));
            check_damage(&world, &bytes, 0);
        });
    }

    proptest! {
        #[test]
        fn any_records_come_back(records in proptest::collection::vec(record::tests::record(), 0..20)) {
            let heading = Heading { seed: 3, saved: SystemTime::UNIX_EPOCH, fingerprint: FINGERPRINT };
            let (mut bytes, now) = (Vec::new(), clock().now());
            for one in &records {
                let mut record = Vec::new();
                record::encode(one.primary, one.variant, &one.entry, now, &mut record);
                bytes.extend(heading.mark());
                bytes.extend((record.len() as u32).to_le_bytes());
                bytes.extend(heading.sum(&record));
                bytes.extend(record);
            }
            let mut frames = Frames::new(&*bytes, bytes.len() as u64, &heading);
            for one in &records {
                let read = record::decode(frames.next().unwrap().unwrap(), Duration::ZERO, now).unwrap();
                prop_assert!(record::tests::is_same(&one.entry, &read.entry));
            }
            prop_assert!(frames.next().unwrap().is_none());
            prop_assert_eq!(frames.damaged, 0);
        }
    }

    #[test]
    fn what_is_read_is_found_by_the_same_request() {
        let (place, world) = (Place::new(), full());
        save(&place, &world, true);
        let shelf = Shelf::open(place.params, FINGERPRINT, 99);
        assert_eq!(shelf.seed(), 1, "the keys are those of the file");
        let store = Store::new(1 << 20, Keyer::new(shelf.seed()));
        shelf.restore(&store, &clock(), Duration::MAX).unwrap();
        let parts = KeyParts {
            scheme: "http",
            host: "erp",
            path: "/b",
            query: None,
            upstream: "sap",
            partition: None,
            body: None,
        };
        let clear = parts.clear(&QueryRule::default());
        let headers = http::HeaderMap::new();
        let asked = Lookup { primary: store.keyer().of(&clear), clear: &clear, headers: &headers };
        assert!(matches!(store.find(&asked, clock().now()).slot, FoundSlot::Entry(_)));
    }
}
