//! Holds what is written about vaxel to what vaxel is.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use http::{HeaderValue, Method, StatusCode, Version};
use vaxel::metrics::names::METRICS;
use vaxel::metrics::{CacheResult, Ending, Facts};
use vaxel::proxy::access_log::{AccessLog, Format, Line, LineParams, Target};
use vaxel::{Reason, config};

/// `VAXEL_UPDATE_DOCS=1 cargo test --test docs` writes the table anew.
#[test]
fn the_readme_lists_every_reason() {
    let mut table = String::from("| reason | status | what |\n|---|---|---|\n");
    for reason in Reason::ALL {
        let _ = writeln!(table, "| `{}` | {} | {} |", reason.code(), reason.status().as_u16(), reason.sentence());
    }
    let text = read("README.md");
    let (before, rest) = text.split_once(BEGIN).expect("the README has the begin mark");
    let (_, after) = rest.split_once(END).expect("the README has the end mark");
    let current = format!("{before}{BEGIN}\n{table}{END}{after}");
    if std::env::var_os("VAXEL_UPDATE_DOCS").is_some() {
        std::fs::write(root().join("README.md"), &current).unwrap();
    } else {
        assert!(text == current, "the README's reasons are not current: VAXEL_UPDATE_DOCS=1 cargo test --test docs");
    }
}

#[test]
fn the_configurations_of_the_readme_are_good() {
    let text = read("README.md");
    let blocks: Vec<&str> =
        text.split("```toml\n").skip(1).filter_map(|rest| rest.split_once("```")).map(|(block, _)| block).collect();
    assert!(!blocks.is_empty());
    for block in &blocks {
        // What is no whole configuration is more of the first one.
        let whole =
            if block.contains("[[listener]]") { (*block).to_owned() } else { format!("{}\n{block}", blocks[0]) };
        match config::parse(&whole, "README.md") {
            Ok(loaded) => assert_eq!(loaded.warnings.to_string(), ""),
            Err(problems) => panic!("{problems}"),
        }
    }
}

/// Whether the answers are as it says, `tests/real/page.sh` asks a running gateway.
#[test]
fn the_description_of_the_admin_api_has_every_path_and_no_other() {
    let api: serde_json::Value = serde_json::from_str(&read("docs/openapi.json")).unwrap();
    let described = api["paths"].as_object().unwrap();
    let mut expected = Vec::new();
    for (path, allowed) in vaxel::admin::paths() {
        // Every GET may be a HEAD: said once, not at each path.
        let methods: Vec<_> = allowed.split(", ").filter(|method| *method != "HEAD").collect();
        let found: Vec<_> = described.get(path).into_iter().flat_map(|item| item.as_object().unwrap().keys()).collect();
        assert_eq!(found.iter().map(|method| method.to_uppercase()).collect::<Vec<_>>(), methods, "{path}");
        expected.push(path);
    }
    expected.sort_unstable();
    let mut found: Vec<_> = described.keys().map(String::as_str).collect();
    found.sort_unstable();
    assert_eq!(found, expected);
    assert_eq!(api["info"]["version"], env!("CARGO_PKG_VERSION"));
}

#[test]
fn every_field_of_the_access_log_is_documented() {
    let (sender, receiver) = std::sync::mpsc::channel();
    let (log, writer) = AccessLog::new(Target::Other(Box::new(Paper(sender))), Format::Json).unwrap();
    let params = LineParams { query: true, ..LineParams::default() };
    let parent = HeaderValue::from_static("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
    let facts = Facts {
        method: &Method::GET,
        status: StatusCode::OK,
        cache: CacheResult::Miss,
        reason: Some(Reason::Internal),
        duration: Duration::ZERO,
        delayed: Some(Duration::ZERO),
        upstream_time: Some(Duration::ZERO),
        queued: Some(Duration::ZERO),
        request_bytes: 0,
        response_bytes: 0,
        attempts: 1,
        ending: Ending::Broken,
        traced: None,
    };
    log.writing(params).worker().write(&Line {
        time: SystemTime::UNIX_EPOCH,
        request_id: "1",
        client: [127, 0, 0, 1].into(),
        host: Some("h"),
        path: "/",
        query: Some("q"),
        version: Version::HTTP_11,
        route: Some("r"),
        upstream: Some("u"),
        consumer: Some("c"),
        user_agent: Some(&parent),
        traceparent: Some(&parent),
        weight: 2,
        facts: &facts,
    });
    assert!(writer.finish(Duration::from_secs(60)));
    let line: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&receiver.recv().unwrap()).unwrap();
    let text = read("docs/LOGS.md");
    let rows = text.lines().filter_map(|row| row.strip_prefix("| `")?.split_once('`'));
    let documented: HashSet<_> = rows.map(|(name, _)| name).collect();
    assert_eq!(line.keys().map(String::as_str).collect::<HashSet<_>>(), documented);
}

/// Hands on what is written.
struct Paper(std::sync::mpsc::Sender<Vec<u8>>);

impl std::io::Write for Paper {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.send(bytes.to_vec()).map(|()| bytes.len()).map_err(std::io::Error::other)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Whether they have an answer, `tests/real/watch.sh` asks a real Prometheus.
#[test]
fn dashboards_and_rules_ask_only_for_metrics_that_are_there() {
    let named = |name: &str| METRICS.iter().any(|metric| metric.name == name);
    for folder in ["config/grafana/dashboards", "config/prometheus", "docs"] {
        let mut found = 0;
        for entry in std::fs::read_dir(root().join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() || path.extension().is_some_and(|extension| extension == "png") {
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            let words = text.split(|char: char| !char.is_ascii_alphanumeric() && !matches!(char, '_' | ':'));
            for word in words.filter(|word| word.starts_with("vaxel_") && !word.ends_with('_')) {
                let stem = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| word.strip_suffix(suffix));
                assert!(named(word) || stem.is_some_and(named), "{} names {word}", path.display());
                found += 1;
            }
        }
        assert!(found > 20, "{folder} names {found} metrics");
    }
}

#[test]
fn links_lead_to_files_that_are_there() {
    for document in DOCUMENTS {
        for link in read(document).split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| link) {
            let file = link.split('#').next().unwrap_or_default();
            if file.is_empty() || link.contains("://") {
                continue;
            }
            let folder = Path::new(document).parent().unwrap();
            assert!(root().join(folder).join(file).exists(), "{document} links to {link}");
        }
    }
}

/// Every file of the code map exists, and every folder and file right under `src` is on the map.
#[test]
fn the_code_map_is_the_code() {
    let text = read("ARCHITECTURE.md");
    let map = text.split("## Code map").nth(1).expect("there is a code map").split("\n## ").next().unwrap();
    let mut parts = Vec::new();
    for line in map.lines().filter(|line| line.starts_with("| `")) {
        let mut cells = line.split('|').map(str::trim).skip(1);
        let part = cells.next().unwrap().trim_matches('`');
        assert!(root().join("src").join(part).exists(), "the map has {part}");
        for word in cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).filter(|word| word.ends_with(".rs")) {
            assert!(root().join("src").join(part).join(word).exists(), "the map has {part}{word}");
        }
        parts.push(part.trim_end_matches('/').to_owned());
    }
    for entry in std::fs::read_dir(root().join("src")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(parts.contains(&name), "src/{name} is not on the map");
    }
}

#[test]
fn the_architecture_can_be_read_in_one_sitting() {
    let lines = read("ARCHITECTURE.md").lines().count();
    assert!(lines <= 200, "{lines} lines");
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

const DOCUMENTS: [&str; 8] = [
    "README.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "SECURITY.md",
    "certs/README.md",
    "docs/METRICS.md",
    "docs/PROTECTION.md",
];

const BEGIN: &str = "<!-- made from src/refusal.rs; do not edit -->";
const END: &str = "<!-- end -->";
