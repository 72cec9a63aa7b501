//! The file of a ledger, in lines.
//!
//! ```text
//! vaxel-state 1
//! quota day 1795734000 1795820400 688 webshop        per, begin and end (Unix seconds), used, consumer
//! limit gradient 1795736280 11.50 erp                policy, when it last moved (Unix seconds), slots, upstream
//! base 9ae16a3b2f90404f 42318 512                    of the limit above: a route's number, microseconds, answers
//! sum 2c26b46b…                                      SHA-256 of all lines before
//! ```
//! Lines of a kind that is not known are left out: a later version may write more. Numbers that cannot be read make the
//! whole file damaged; those that can are trusted only as far as their users say.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};

use super::Kept;
use crate::throttle::limit::learned::{Baseline, Kind, Learned};
use crate::throttle::quota::{Count, Counts, Per};

/// What a file holds, by the escaped names of consumers and upstreams.
#[derive(Debug, Default)]
pub(super) struct Content {
    /// What consumers have used of windows that are still open.
    pub(super) accounts: BTreeMap<String, Counts>,
    /// What limits have learned.
    pub(super) limits: BTreeMap<String, Kept>,
}

/// Why a file cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unusable {
    /// It begins like no file of ours, or of another version.
    Foreign,
    /// It does not end with the sum of its lines, or one of them makes no sense.
    Damaged,
}

impl Unusable {
    /// The word in the log.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Foreign => "not written by this version",
            Self::Damaged => "damaged",
        }
    }
}

/// The whole text of the file.
pub(super) fn encode(
    accounts: &BTreeMap<String, Arc<Mutex<Counts>>>,
    limits: &BTreeMap<String, Kept>,
    now: SystemTime,
) -> String {
    let mut text = format!("{HEAD}\n");
    for (name, counts) in accounts {
        for (per, Count { begin, end, used }) in counts.lock().open(now) {
            let (per, begin, end) = (per.word(), seconds(begin), seconds(end));
            text.push_str(&format!("quota {per} {begin} {end} {used} {name}\n"));
        }
    }
    for (name, Kept { learned, at }) in limits {
        let (kind, at, slots) = (learned.kind.word(), seconds(*at), learned.slots);
        text.push_str(&format!("limit {kind} {at} {slots:.2} {name}\n"));
        for Baseline { operation, takes, answers } in &learned.baselines {
            text.push_str(&format!("base {operation:016x} {} {answers}\n", takes.as_micros()));
        }
    }
    text.push_str(&format!("sum {}\n", sum(&text)));
    text
}

/// What `text` says of windows that are still open at `now`, and of limits.
pub(super) fn decode(text: &str, now: SystemTime) -> Result<Content, Unusable> {
    let body = text.strip_prefix(HEAD).and_then(|body| body.strip_prefix('\n')).ok_or(Unusable::Foreign)?;
    let end = body.rfind("sum ").and_then(|at| Some((text.get(..HEAD.len() + 1 + at)?, body.split_at_checked(at)?)));
    let (summed, (lines, end)) = end.ok_or(Unusable::Damaged)?;
    if end.strip_prefix("sum ").map(str::trim_end) != Some(&*sum(summed)) {
        return Err(Unusable::Damaged);
    }
    let mut content = Content::default();
    let mut last = None;
    for line in lines.lines() {
        content.line(line, &mut last, now).ok_or(Unusable::Damaged)?;
    }
    Ok(content)
}

impl Content {
    /// Takes in one line. `last` is the upstream whose limit came last.
    fn line(&mut self, line: &str, last: &mut Option<String>, now: SystemTime) -> Option<()> {
        let (kind, rest) = line.split_once(' ')?;
        match kind {
            "quota" => {
                let [per, begin, end, used, name] = words(rest)?;
                let per = Per::ALL.into_iter().find(|known| known.word() == per)?;
                let count = Count { begin: time(begin)?, end: time(end)?, used: used.parse().ok()? };
                if now < count.end {
                    self.accounts.entry(name.to_owned()).or_default().restore(per, count);
                }
            }
            "limit" => {
                let [kind, at, slots, name] = words(rest)?;
                let kind = Kind::ALL.into_iter().find(|known| known.word() == kind)?;
                let slots = slots.parse().ok().filter(|slots: &f64| slots.is_finite())?;
                let learned = Learned { kind, slots, baselines: Vec::new() };
                self.limits.insert(name.to_owned(), Kept { learned, at: time(at)? });
                *last = Some(name.to_owned());
            }
            "base" => {
                let [operation, micros, answers] = words(rest)?;
                let baseline = Baseline {
                    operation: u64::from_str_radix(operation, 16).ok()?,
                    takes: Duration::from_micros(micros.parse().ok()?),
                    answers: answers.parse().ok()?,
                };
                self.limits.get_mut(last.as_ref()?)?.learned.baselines.push(baseline);
            }
            _ => {}
        }
        Some(())
    }
}

/// The words of a line; the last one is all that is left.
fn words<const N: usize>(line: &str) -> Option<[&str; N]> {
    let words: Vec<_> = line.splitn(N, ' ').collect();
    words.try_into().ok()
}

pub(super) fn sum(text: &str) -> String {
    Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// To the second: windows begin and end on whole ones.
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

    const NOW: SystemTime = SystemTime::UNIX_EPOCH;

    /// A file with these lines and the right sum.
    fn file(lines: &str) -> String {
        let text = format!("{HEAD}\n{lines}");
        format!("{text}sum {}\n", sum(&text))
    }

    #[test]
    fn what_is_learned_is_read_as_it_was_written() {
        let takes = Duration::from_micros(42_318);
        let baselines =
            vec![Baseline { operation: 7, takes, answers: 512 }, Baseline { operation: u64::MAX, takes, answers: 1 }];
        let learned = Learned { kind: Kind::Gradient, slots: 11.5, baselines };
        let at = NOW + Duration::from_secs(1_795_736_280);
        let aimd = Learned { kind: Kind::Aimd, slots: 3.25, baselines: Vec::new() };
        let limits = BTreeMap::from([
            ("erp".to_owned(), Kept { learned, at }),
            ("a b\\n".to_owned(), Kept { learned: aimd, at }),
        ]);
        let text = encode(&BTreeMap::new(), &limits, NOW);
        assert_eq!(decode(&text, NOW).unwrap().limits, limits, "{text}");
    }

    #[test]
    fn a_line_that_makes_no_sense_spoils_the_file_and_one_of_an_unknown_kind_does_not() {
        let limit = "limit gradient 1795736280 11.50 erp\n";
        for (lines, expected) in [
            (limit.to_owned(), Ok(1)),
            (format!("spirit 7 8\n{limit}"), Ok(1)),
            (format!("{limit}base 00000000000000ff 1000 12\n"), Ok(1)),
            ("base 00000000000000ff 1000 12\n".to_owned(), Err(Unusable::Damaged)),
            (format!("{limit}base xy 1000 12\n"), Err(Unusable::Damaged)),
            (format!("{limit}base ff -1 12\n"), Err(Unusable::Damaged)),
            (format!("{limit}base ff 1000\n"), Err(Unusable::Damaged)),
            (limit.replace("11.50", "NaN"), Err(Unusable::Damaged)),
            (limit.replace("11.50", "inf"), Err(Unusable::Damaged)),
            (limit.replace("11.50", "many"), Err(Unusable::Damaged)),
            (limit.replace("gradient", "magic"), Err(Unusable::Damaged)),
            (limit.replace("1795736280", "99999999999999999999"), Err(Unusable::Damaged)),
            ("limit gradient 1 2\n".to_owned(), Err(Unusable::Damaged)),
            ("alone\n".to_owned(), Err(Unusable::Damaged)),
        ] {
            let found = decode(&file(&lines), NOW).map(|content| content.limits.len());
            assert_eq!(found, expected, "{lines}");
        }
        assert_eq!(decode("vaxel-state 2\nsum 00\n", NOW).unwrap_err(), Unusable::Foreign);
        assert_eq!(decode("", NOW).unwrap_err(), Unusable::Foreign);
    }

    proptest! {
        #[test]
        fn no_bytes_on_the_disk_panic(
            text in "(vaxel-state 1\n)?(quota|limit|base|sum| |hour|day|gradient|[0-9]+|\n|[a-z]|é){0,40}",
        ) {
            let _ = decode(&text, NOW);
            let _ = decode(&format!("{text}sum {}\n", sum(&text)), NOW);
            let _ = decode(&file(&format!("{text}\n")), NOW);
        }
    }
}
