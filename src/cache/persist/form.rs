//! The form of the file: what it begins with, and its frames.

use std::io::{self, Read};
use std::time::{Duration, SystemTime};

use sha2::{Digest as _, Sha256};

use crate::cache::QueryRule;
use crate::cache::key::{Key, KeyParts, Keyer};

/// What the beginning of a file says, and whether its process had drained.
pub(super) fn begin(head: &[u8; HEADER]) -> Option<(Heading, bool)> {
    let (ended, heads) = head.split_at(DRAINED.len());
    let heading = heads.chunks_exact(HEAD).find_map(Heading::read)?;
    Some((heading, ended == DRAINED))
}

/// What is known of a file before its frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Heading {
    pub(super) seed: u64,
    pub(super) saved: SystemTime,
    pub(super) fingerprint: [u8; 32],
}

impl Heading {
    pub(super) fn bytes(&self) -> [u8; HEAD] {
        let mut out = Vec::with_capacity(HEAD);
        out.extend(VERSION);
        out.extend(self.seed.to_le_bytes());
        out.extend(probe(self.seed).0.to_le_bytes());
        out.extend(self.nanos().to_le_bytes());
        out.extend(self.fingerprint);
        out.extend(digest::<16>(&[&out]));
        out.try_into().unwrap_or([0; HEAD])
    }

    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let seed = u64::from_le_bytes(bytes.get(8..16)?.try_into().ok()?);
        let nanos = u64::from_le_bytes(bytes.get(32..40)?.try_into().ok()?);
        let fingerprint = bytes.get(40..72)?.try_into().ok()?;
        let heading = Self { seed, saved: SystemTime::UNIX_EPOCH + Duration::from_nanos(nanos), fingerprint };
        (heading.bytes() == bytes).then_some(heading)
    }

    /// What begins a frame.
    pub(super) fn mark(&self) -> [u8; 8] {
        digest(&[b"mark", &self.seed.to_le_bytes(), &self.nanos().to_le_bytes()])
    }

    pub(super) fn sum(&self, record: &[u8]) -> [u8; 16] {
        digest(&[b"record", &self.seed.to_le_bytes(), &self.nanos().to_le_bytes(), record])
    }

    fn nanos(&self) -> u64 {
        let since = self.saved.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }
}

/// A key that shows whether the hash function is the same.
fn probe(seed: u64) -> Key {
    let parts = KeyParts {
        scheme: "http",
        host: "probe",
        path: "/",
        query: Some("a=1"),
        upstream: "probe",
        partition: Some(1),
        body: None,
    };
    Keyer::new(seed).primary(&parts, &QueryRule::default())
}

fn digest<const N: usize>(pieces: &[&[u8]]) -> [u8; N] {
    let mut hasher = Sha256::new();
    pieces.iter().for_each(|piece| hasher.update(piece));
    let mut short = [0; N];
    short.iter_mut().zip(hasher.finalize()).for_each(|(to, from)| *to = from);
    short
}

/// The frames of a file, one after the other. What is damaged is passed over.
pub(super) struct Frames<R> {
    input: R,
    heading: Heading,
    mark: [u8; 8],
    window: Vec<u8>,
    /// Where in the window reading goes on.
    at: usize,
    /// Bytes that are not in the window yet.
    left: u64,
    /// Places that were passed over.
    pub(super) damaged: u64,
}

impl<R: Read> Frames<R> {
    pub(super) fn new(input: R, length: u64, heading: &Heading) -> Self {
        Self { input, heading: *heading, mark: heading.mark(), window: Vec::new(), at: 0, left: length, damaged: 0 }
    }

    /// The record of the next frame that is whole.
    pub(super) fn next(&mut self) -> io::Result<Option<&[u8]>> {
        let mut lost = false;
        loop {
            if !self.has(FRAME)? {
                self.damaged += u64::from(!lost && (self.at < self.window.len() || self.left > 0));
                return Ok(None);
            }
            if let Some(size) = self.whole()? {
                let begin = self.at + FRAME;
                self.at = begin + size;
                return Ok(self.window.get(begin..self.at));
            }
            // Damaged: what follows up to the next mark counts as one place.
            self.damaged += u64::from(!std::mem::replace(&mut lost, true));
            self.seek()?;
        }
    }

    /// The size of the record, if a whole frame begins here.
    fn whole(&mut self) -> io::Result<Option<usize>> {
        let head = self.window.get(self.at..self.at + FRAME).unwrap_or_default();
        let Some((&mark, rest)) = head.split_first_chunk::<8>() else { return Ok(None) };
        let Some((&size, sum)) = rest.split_first_chunk::<4>() else { return Ok(None) };
        let sum: [u8; 16] = sum.try_into().unwrap_or_default();
        let size = u32::from_le_bytes(size) as usize;
        if mark != self.mark || !self.has(FRAME + size)? {
            return Ok(None);
        }
        let record = self.window.get(self.at + FRAME..self.at + FRAME + size).unwrap_or_default();
        Ok((self.heading.sum(record) == sum).then_some(size))
    }

    /// Goes to the next mark after this place, or to the end.
    fn seek(&mut self) -> io::Result<()> {
        self.at += 1;
        loop {
            let ahead = self.window.get(self.at..).unwrap_or_default();
            if let Some(found) = memchr::memmem::find(ahead, &self.mark) {
                self.at += found;
                return Ok(());
            }
            // A mark may have begun at the very end.
            self.at += ahead.len().saturating_sub(self.mark.len() - 1);
            let wanted = self.window.len() - self.at + STEP.min(usize::try_from(self.left).unwrap_or(STEP));
            if self.left == 0 || !self.has(wanted)? {
                self.at = self.window.len();
                return Ok(());
            }
        }
    }

    /// Sees to it that so many bytes are in the window from here on; whether there are so many.
    fn has(&mut self, wanted: usize) -> io::Result<bool> {
        let here = self.window.len() - self.at;
        let Some(missing) = wanted.checked_sub(here).filter(|missing| *missing > 0) else { return Ok(true) };
        if missing as u64 > self.left {
            return Ok(false);
        }
        self.window.drain(..self.at);
        self.at = 0;
        let more = missing.max(STEP).min(usize::try_from(self.left).unwrap_or(missing));
        let read = self.input.by_ref().take(more as u64).read_to_end(&mut self.window)?;
        // A file that is shorter than it was said to be has no more.
        self.left = if read < more { 0 } else { self.left - read as u64 };
        Ok(read >= missing)
    }
}

/// The process that wrote the file had drained. No damage of a byte or two turns the one into the other.
pub(super) const DRAINED: [u8; 8] = *b"drained\n";
pub(super) const CRASHED: [u8; 8] = *b"running\n";
/// Of the file's form, the record's included.
const VERSION: [u8; 8] = *b"vaxel  1";
/// Bytes of a head, of the whole header, and of what comes before a record.
pub(super) const HEAD: usize = 88;
pub(super) const HEADER: usize = DRAINED.len() + 2 * HEAD;
pub(super) const FRAME: usize = 8 + 4 + 16;
/// Bytes read at once.
const STEP: usize = 256 * 1024;
