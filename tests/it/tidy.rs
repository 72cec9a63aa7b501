//! The house is in order: what can be checked by reading the sources is.

use std::fs;
use std::path::{Path, PathBuf};

/// The layers, lowest first (ARCHITECTURE.md): a file may import from its own layer and from those below. The longest
/// path that fits counts, so that the pure files of a part stand lower than its mechanisms.
const LAYERS: &[(u8, &[&str])] = &[
    (0, &["clock", "outcome", "refusal", "message"]),
    (
        1,
        &[
            "advice",
            "router",
            "consumer",
            "cache",
            "throttle",
            "breaker",
            "gear",
            "retry",
            "upstream/balance",
            "upstream/health",
            "sim/backend",
            "sim/profile",
            "sim/dice",
            "sim/drive",
        ],
    ),
    (
        2,
        &[
            "metrics",
            "traces",
            "cache/store",
            "cache/flight",
            "cache/purge",
            "cache/identities",
            "cache/survey",
            "cache/room",
            "cache/hot",
            "cache/persist",
            "throttle/rate",
            "throttle/slots",
            "throttle/acquire",
            "throttle/permit",
            "upstream",
            "listen",
            "sim",
        ],
    ),
    (3, &["proxy", "config"]),
    (4, &["gateway", "admin"]),
    (5, &["cli", "server", "main", "lib"]),
];

/// What a pure file does not name.
const IMPURE: &[&str] = &[
    "tokio::",
    "hyper::",
    "prometheus::",
    "tracing::",
    "parking_lot",
    "Mutex",
    ".await",
    "Instant::now",
    "SystemTime::now",
];

fn sources() -> Vec<(PathBuf, String)> {
    fn walk(folder: &Path, found: &mut Vec<(PathBuf, String)>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path, text));
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    walk(&root, &mut found);
    found.into_iter().map(|(path, text)| (path.strip_prefix(&root).unwrap().to_owned(), text)).collect()
}

/// The part of a file before its tests.
fn code(text: &str) -> &str {
    text.split("#[cfg(test)]").next().unwrap()
}

/// The layer of a module path such as `cache/store`.
fn layer(module: &str) -> Option<u8> {
    let fits = |place: &&&str| module == **place || module.starts_with(&format!("{place}/"));
    let places =
        LAYERS.iter().flat_map(|(layer, places)| places.iter().filter(fits).map(move |place| (place.len(), *layer)));
    places.max().map(|(_, layer)| layer)
}

fn module(path: &Path) -> String {
    let text = path.to_string_lossy();
    text.trim_end_matches(".rs").trim_end_matches("/mod").to_owned()
}

#[test]
fn imports_only_point_down() {
    let mut breaches = Vec::new();
    for (path, text) in sources() {
        let own = module(&path);
        let own_layer = layer(&own).unwrap_or_else(|| panic!("{own} is in no layer"));
        for line in code(&text).lines().filter_map(|line| line.trim().strip_prefix("use crate::")) {
            let target = line.trim_end_matches(';').replace("::", "/");
            let target = target.split(['{', ' ']).next().unwrap_or_default().trim_end_matches('/');
            if layer(target).is_some_and(|target_layer| target_layer > own_layer) {
                breaches.push(format!("{own} (layer {own_layer}) imports {target}"));
            }
        }
    }
    assert!(breaches.is_empty(), "{breaches:#?}");
}

#[test]
fn policy_is_pure() {
    let mut breaches = Vec::new();
    for (path, text) in sources() {
        let own = module(&path);
        if layer(&own) != Some(1) {
            continue;
        }
        for (number, line) in code(&text).lines().enumerate() {
            let line = line.split("//").next().unwrap_or_default();
            breaches.extend(
                IMPURE.iter().filter(|word| line.contains(**word)).map(|word| format!("{own}:{}: {word}", number + 1)),
            );
        }
    }
    assert!(breaches.is_empty(), "{breaches:#?}");
}

#[test]
fn files_say_what_they_are_and_stay_short() {
    for (path, text) in sources() {
        assert!(text.starts_with("//!"), "{} does not say what it is", path.display());
        let lines = code(&text).lines().count();
        assert!(lines <= 500, "{} has {lines} lines before its tests", path.display());
    }
}

#[test]
fn nothing_is_unfinished_or_slept_through() {
    let words = ["todo!(", "unimplemented!(", "thread::sleep", "#[ignore"];
    for (path, text) in sources() {
        for word in words {
            assert!(!text.contains(word), "{}: {word}", path.display());
        }
    }
}

#[test]
fn only_the_metrics_spell_their_names() {
    for (path, text) in sources() {
        let own = module(&path);
        if !own.starts_with("metrics") {
            assert!(!code(&text).contains("\"vaxel_"), "{own} spells the name of a metric");
        }
    }
}
