//! What must hold in every run, on any machine and however busy it is: each follows from how Vaxel works, not from how
//! fast. `--quick` is held to the same.

use crate::record::Run;
use crate::story::SLOTS;

/// What did not hold, in words.
pub(crate) fn broken(runs: &[Run]) -> Vec<String> {
    let mut broken = Vec::new();
    for run in runs.iter().filter(|run| run.peer == "vaxel") {
        let mut claim = |holds: bool, words: String| {
            if !holds {
                broken.push(format!("{} at {} × capacity: {words}", run.story, run.times));
            }
        };
        let most = run.seen.max_present;
        claim(most <= SLOTS, format!("through vaxel the box had up to {most} inside, for {SLOTS} work processes"));
        let crashes = run.seen.crashes.saturating_sub(u64::from(run.story == "crash"));
        claim(crashes == 0, format!("through vaxel the box broke down {crashes} times by itself"));
        claim(run.untold == 0, format!("vaxel refused {} requests without a Retry-After", run.untold));
        claim(run.ok > 0, "through vaxel nobody was answered".to_owned());
    }
    broken
}

/// Run by `cargo test --benches`.
pub(crate) fn self_check() {
    use crate::record::BoxCounts;

    let run = |peer: &str, story: &str, max_present, crashes| Run {
        peer: peer.to_owned(),
        story: story.to_owned(),
        times: 5.0,
        ok: 1,
        seen: BoxCounts { max_present, crashes, ..BoxCounts::default() },
        ..Run::default()
    };
    let good = [run("vaxel", "steady", 8, 0), run("vaxel", "crash", 8, 1), run("nginx", "steady", 99, 3)];
    assert_eq!(broken(&good), [""; 0]);
    let bad = [run("vaxel", "steady", 9, 1), Run { untold: 1, ok: 0, ..run("vaxel", "crash", 8, 1) }];
    assert_eq!(broken(&bad).len(), 4, "{:?}", broken(&bad));
}
