//! The configuration as a whole: what is reported, where, and what counts.

use std::path::Path;
use std::time::Duration;

use serde_json::json;

use super::*;
use crate::refusal::Mode;

mod quotas;
mod shipped;

use shipped::uncomment;

/// A configuration that is right, for tests that add to it.
const SMALL: &str = r#"
[[listener]]
listen = "127.0.0.1:0"
[upstream.erp]
endpoints = "http://erp:8000"
[[route]]
match = { path = "/{*rest}" }
upstream = "erp"
"#;

fn loaded(text: &str) -> Loaded {
    parse_with(text, "vaxel.toml", &variables).unwrap_or_else(|problems| panic!("{problems}"))
}

fn variables(name: &str) -> Option<String> {
    matches!(name, "WEBSHOP_KEY" | "EXPORT_KEY").then(|| format!("a-long-random-key-from-{name}"))
}

/// Holds that `text` has exactly these problems: severity, line, column, part of the message or the hint.
fn check(text: &str, expected: &[(Severity, usize, usize, &str)]) {
    let problems = match parse_with(text, "vaxel.toml", &|_| None) {
        Ok(loaded) => loaded.warnings,
        Err(problems) => problems,
    };
    let found: Vec<_> = problems.list().iter().map(|found| (found.severity, found.line, found.column)).collect();
    let places: Vec<_> = expected.iter().map(|(severity, line, column, _)| (*severity, *line, *column)).collect();
    assert_eq!(found, places, "{problems}");
    for (found, (.., part)) in problems.list().iter().zip(expected) {
        let said = format!("{} / {}", found.message, found.hint.as_deref().unwrap_or_default());
        assert!(said.contains(part), "{part:?} is not in {said:?}");
    }
}

/// The same for one error in the small configuration with `text` after it; lines count from the start of `text`.
fn check_added(text: &str, line: usize, column: usize, part: &str) {
    check(&format!("{SMALL}{text}"), &[(Severity::Error, SMALL.lines().count() + line, column, part)]);
}

#[test]
fn ten_mistakes_give_ten_problems_at_their_places() {
    let text = r#"[[listener]]
listen = "localhost:8080"
adress = "x"

[consumer.shop]
identify = { network = "10.0.0.0/8" }
wieght = 3

[upstream.erp]
endpoints = ["erp:8000", "http://10.0.0.6:8000"]
slots = 0
queue = { max = 200, timeout = 2 }
breaker = { failure_ratio = 1.5 }
retry = { attempts = 0 }

[[route]]
match = { path = "sap/{*rest}" }
upstream = "epr"
"#;
    use Severity::Error;
    check(
        text,
        &[
            (Error, 2, 10, "IP address and a port"),
            (Error, 3, 1, "has no key `adress`"),
            (Error, 7, 1, "did you mean `weight`?"),
            (Error, 10, 14, "did you mean `http://erp:8000`?"),
            (Error, 11, 9, "must be at least 1"),
            (Error, 12, 32, "needs a unit"),
            (Error, 13, 29, "between 0 and 1"),
            (Error, 14, 22, "1 means no retries"),
            (Error, 17, 18, "begins with `/`"),
            (Error, 18, 12, "did you mean `erp`?"),
        ],
    );
}

#[test]
fn only_a_server_has_to_listen() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("vaxel.toml");
    let text = "[upstream.a]\nendpoints = 'http://a'\n[[route]]\nupstream = 'a'\nmatch = { path = '/a' }\n";
    std::fs::write(&file, text).unwrap();
    assert!(parse(text, "embedded").unwrap().settings.listeners.is_empty());
    let problems = load(&file).unwrap_err().to_string();
    assert!(problems.contains("a server needs `listener`"), "{problems}");
}

#[test]
fn what_is_missing_is_reported_at_its_table() {
    use Severity::Error;
    check("", &[(Error, 1, 1, "upstream"), (Error, 1, 1, "route")]);
    check_added("[[route]]\nmatch = { path = '/a' }\n", 1, 1, "needs `upstream`");
    check_added("[[route]]\nupstream = 'erp'\n", 1, 1, "needs `match`");
    check_added("[[route]]\nupstream = 'erp'\nmatch = {}\n", 3, 9, "needs `path`");
    check_added("[consumer.a]\n", 1, 11, "needs `identify`");
    check_added("[consumer.a]\nidentify = {}\n", 2, 12, "does not say how");
}

#[test]
fn mistakes_of_every_kind_are_told_with_a_hint() {
    let route = |more: &str| format!("[[route]]\nmatch = {{ path = '/a' }}\nupstream = 'erp'\n{more}\n");
    for (more, column, part) in [
        ("cost = 33", 8, "the upstream has 32"),
        ("class = 'logon'\ncost = 3", 0, "the upstream has 2 for it"),
        ("rate = { limit = '4/s', delay_max = '2s' }", 37, "no effect without `excess = \"delay\"`"),
        ("rate = { limit = '4/s', excess = 'delay', delay_max = '1h' }", 55, "no client waits so long"),
        ("cost = 5\nrate = { limit = '4/s' }", 0, "no request ever passes"),
        ("rate = { limit = '0/s' }", 18, "admits nothing"),
        ("rate = { limit = '5' }", 18, "is not a rate"),
        ("require_consumer = true", 20, "there is no [consumer.NAME]"),
        ("class = 'refresh'", 9, "interactive, normal, logon, batch"),
        ("cache = { ttl = 60 }", 17, "needs a unit"),
        ("cache = { override = true }", 22, "no effect without `ttl`"),
        ("cache = { max_entry = '1GiB' }", 23, "larger than the whole cache"),
        ("cache = { per_consumer = true, shared_after_auth = '1m' }", 52, "nothing is shared"),
        ("cache = { shared_after_auth = '0s' }", 31, "must be"),
        ("cache = { identity = { cookies = ['a b'] } }", 35, "not the name of a cookie"),
        ("cache = { expect = 'jsn' }", 20, "no kind of answers"),
        ("cache = { expect = [] }", 20, "must not be empty"),
        ("cache = { on_unexpected = 'stale' }", 27, "no effect without `expect`"),
        ("cache = 'yes'", 9, "a table, true or false"),
        ("cache = { stale_if_errors = '1d' }", 11, "did you mean `stale_if_error`?"),
        ("max_body = '10 apples'", 12, "is not a size"),
        ("rewrite = {}", 11, "changes nothing"),
        ("rewrite = { strip = '/a/{x}' }", 21, "not a pattern"),
        ("request_headers = { set = { 'x y' = '1' } }", 0, "not the name of a header"),
        ("request_headers = { set = { content-length = '1' } }", 0, "vaxel's own"),
        ("request_headers = { remove = ['host'] }", 31, "`host` of [upstream.NAME]"),
        ("fallback = { status = 99 }", 23, "between 200 and 599"),
        ("fallback = { body = '', body_file = 'no/such' }", 37, "cannot be read"),
        ("fallback = { body_file = 'Cargo.toml', status = 204 }", 49, "has no body"),
        ("fallback = { upstream = 'er' }", 25, "did you mean `erp`?"),
        ("fallback = { upstream = 'erp' }", 25, "would stand in for"),
        ("deadline = 'te'", 12, "belongs to the connection"),
        ("classify = [{ body = 'x' }]", 13, "needs `means`"),
        ("classify = [{ body = 'x', means = 'no' }]", 35, "ok, business, broken, overloaded"),
        ("classify = [{ means = 'ok' }]", 13, "fits every answer"),
        ("slots = 3", 1, "belongs to [upstream.NAME]"),
    ] {
        let text = route(more);
        let problems = parse(&format!("{SMALL}{text}"), "vaxel.toml").expect_err(more);
        // With the second mistake of `body` and `body_file` there may be two; the first is the one looked at.
        let said: String = problems.into_iter().collect();
        assert!(said.contains(part), "{more}: {said}");
        if column > 0 {
            let line = SMALL.lines().count() + 4;
            assert!(said.contains(&format!("vaxel.toml:{line}:{column}")), "{more}: {said}");
        }
    }
}

#[test]
fn paths_hosts_and_reachability_are_the_routers_to_judge() {
    let route = |matching: &str| format!("[[route]]\nmatch = {{ {matching} }}\nupstream = 'erp'\n");
    check_added(&route("path = '/a/{*rest}/b'"), 2, 18, "may only stand at the end");
    check_added(&route("path = '/a', host = 'http://x'"), 2, 31, "no scheme");
    check_added(&route("path = '/{*all}'"), 2, 9, "`/{*rest}` takes all of them first");
    check_added(&route("path = '/a', methods = ['get']"), 2, 35, "write \"GET\"");
    check_added(&route("path = '/a', methods = []"), 2, 34, "must not be empty");
    check_added(&route("path = '/a', headers = { x-a = 1 }"), 2, 42, "true (is there)");
}

#[test]
fn upstreams_that_cannot_work_are_refused() {
    for (more, column, part) in [
        ("endpoints = []", 13, "must not be empty"),
        ("endpoints = ['http://a', 'http://a']", 26, "is there twice"),
        ("endpoints = 'http://a'\ntimeouts = { head = '2m' }", 21, "longer than `total`"),
        ("endpoints = 'http://a'\nbreaker = { open = '1h' }", 11, "shorter than `open`"),
        ("endpoints = 'http://a'\nbreaker = { slow = 'often' }", 20, "is not a duration"),
        ("endpoints = 'http://a'\nbreaker = { trial = 'probe' }", 11, "needs a `path` in `probe`"),
        ("endpoints = 'http://a'\nprobe = true\nbreaker = { trial = 'probe' }", 11, "needs a `path` in `probe`"),
        ("endpoints = 'http://a'\nretry = { backoff = '3s' }", 9, "shorter than `backoff`"),
        ("endpoints = 'https://a'\ntls = { ca = 'no/such.pem' }", 14, "cannot be read"),
        ("endpoints = 'https://a'\ntls = { client_cert = 'Cargo.toml' }", 23, "needs `client_key`"),
        ("endpoints = 'http://a'\nprobe = { path = 'health' }", 18, "did you mean `/health`?"),
        ("endpoints = 'http://a'\nbalance = 'least-of-two'", 11, "did you mean `least_of_two`?"),
        ("endpoints = 'http://a'\nslots = { adaptive = 'gradient' }", 9, "needs `max`"),
        ("endpoints = 'http://a'\nslots = { max = 9 }", 9, "needs `adaptive`"),
        ("endpoints = 'http://a'\nslots = { adaptive = 'best', max = 9 }", 22, "`best` is not possible here"),
        ("endpoints = 'http://a'\nslots = { adaptive = 'aimd', min = 10, max = 9 }", 46, "less than `min`"),
        ("endpoints = 'http://a'\nslots = { adaptive = 'aimd', max = 9, start = 10 }", 47, "between `min` and `max`"),
        ("endpoints = 'http://a'\nslots = { adaptive = 'gradient', max = 9, slow = '1s' }", 50, "is for aimd"),
        ("endpoints = 'http://a'\nslots = 3\nreserve = { interactive = 2, batch = 1 }", 11, "leaves no slot"),
        ("endpoints = 'http://a'\nslots = 9\nreserve = { batch = 2 }\ncap = { batch = 1 }", 17, "2 slots are kept"),
        ("endpoints = 'http://a'\ncap = { logon = 0 }", 17, "must be at least 1"),
        ("endpoints = 'http://a'\nslots = true", 9, "expected a whole number"),
    ] {
        let route = "[[route]]\nmatch = { path = '/b' }\nupstream = 'b'\n";
        check_added(&format!("{route}[upstream.b]\n{more}\n"), 4 + more.lines().count(), column, part);
    }
}

#[test]
fn what_is_slow_to_a_breaker_is_said_or_learned() {
    use crate::breaker::{Slow, Trial};
    for (keys, expected) in [
        ("", (None, Trial::Request)),
        ("slow = '5s'", (Some(Slow::From(Duration::from_secs(5))), Trial::Request)),
        ("slow = 'auto', trial = 'probe'", (Some(Slow::Learned), Trial::Probe)),
    ] {
        let route = "[[route]]\nmatch = { path = '/b' }\nupstream = 'b'\n[upstream.b]\nendpoints = 'http://b'";
        let text = format!("{SMALL}{route}\nprobe = {{ path = '/ping' }}\nbreaker = {{ {keys} }}\n");
        let breaker = loaded(&text).settings.upstreams[1].breaker.clone().unwrap();
        assert_eq!((breaker.slow, breaker.trial), expected, "{keys}");
    }
}

#[test]
fn nothing_may_be_there_twice() {
    check_added("[[listener]]\nlisten = '1.1.1.1:1'\n[[listener]]\nlisten = '1.1.1.1:1'\n", 4, 10, "two listeners");
    check_added("[[listener]]\nlisten = '127.0.0.1:9900'\n[admin]\n", 2, 10, "[admin] already listens");
    check_added("[admin]\ntoken = 'short'\n", 2, 9, "at least 16 characters");
    check_added("[admin]\nmetrics = 'token'\n", 2, 11, "needs a `token`");
    let route = |path: &str| format!("[[route]]\nname = 'a'\nmatch = {{ path = '{path}' }}\nupstream = 'erp'\n");
    check_added(&format!("{}{}", route("/a"), route("/b")), 6, 8, "two routes are called `a`");
    let consumer = |name: &str| format!("[consumer.{name}]\nidentify = {{ api_key = '0123456789abcdef' }}\n");
    check_added(&format!("{}{}", consumer("a"), consumer("b")), 3, 11, "recognised by the same");
    check_added("[consumer.anonymous]\nidentify = { network = '10.0.0.1' }\n", 1, 11, "take another name");
    check_added("[upstream.erp]\n", 1, 11, "duplicate key");
}

#[test]
fn syntax_errors_have_a_place_too() {
    check("[[listener]]\nlisten = \n", &[(Severity::Error, 2, 10, "")]);
}

#[test]
fn what_is_probably_not_meant_is_a_warning() {
    let text = format!(
        "{SMALL}[upstream.spare]\nendpoints = 'http://b'\ntls = {{ verify = false }}\n[admin]\nlisten = '0.0.0.0:9900'\n"
    );
    let line = SMALL.lines().count();
    use Severity::Warning;
    check(
        &text,
        &[
            (Warning, line + 1, 11, "no route leads to"),
            (Warning, line + 3, 7, "no endpoint of this upstream is https"),
            (Warning, line + 3, 18, "anybody on the way"),
            (Warning, line + 5, 10, "whoever reaches the admin listener"),
        ],
    );
}

#[test]
fn a_variable_that_is_missing_is_reported_once_and_where_it_stands() {
    let route = "[[route]]\nmatch = { path = '/b' }\nupstream = 'b'\n[upstream.b]\n";
    check_added(&format!("{route}endpoints = 'http://${{NOBODY_SET_THIS}}'\n"), 5, 21, "NOBODY_SET_THIS is not set");
}

#[test]
fn secrets_are_shown_nowhere() {
    let text = format!(
        r#"{SMALL}
request_headers = {{ set = {{ authorization = "Basic c2VjcmV0", x-a = "plain" }} }}
[consumer.a]
identify = {{ api_key = ["topsecret-one-1234", "topsecret-two-1234"] }}
[consumer.b]
identify = {{ api_key = "${{WEBSHOP_KEY}}" }}
[consumer.d]
identify = {{ api_key = "topsecret-alone-1234" }}
[consumer.c]
identify = {{ header = "x-who", value = "topsecret" }}
"#
    );
    let loaded = loaded(&text);
    let shown = loaded.view().to_string();
    for secret in ["topsecret", "c2VjcmV0", "a-long-random-key"] {
        assert!(!shown.contains(secret), "{secret}: {shown}");
    }
    for plain in ["${WEBSHOP_KEY}", "plain", "x-who", "http://erp:8000"] {
        assert!(shown.contains(plain), "{plain}: {shown}");
    }
    assert_eq!(loaded.source.text.len(), text.len());
    let debug = Loaded::from(loaded.settings).view().to_string();
    assert!(!debug.contains("topsecret") && !debug.contains("c2VjcmV0"), "{debug}");
    // Not even in a report about the same line.
    let report =
        parse(&text.replace("header = \"x-who\"", "header = \"x who\""), "x").expect_err("a space").to_string();
    assert!(report.contains("x who") && !report.contains("topsecret"), "{report}");
    let report = parse(&text.replace("value = ", "valeu = "), "x").expect_err("a slip").to_string();
    assert!(report.contains("did you mean `value`?") && !report.contains("topsecret"), "{report}");
}

#[test]
fn effective_values_hold_what_is_written_and_every_default() {
    let loaded = loaded(SMALL);
    let at = |pointer: &str| loaded.source.effective.pointer(pointer).cloned().unwrap_or_else(|| panic!("{pointer}"));
    assert_eq!(at("/upstream/erp/endpoints"), json!("http://erp:8000"));
    assert_eq!(at("/upstream/erp/slots"), json!(32));
    assert_eq!(at("/upstream/erp/queue/timeout"), json!("2s"));
    assert_eq!(at("/upstream/erp/breaker/failure_ratio"), json!(0.5));
    assert_eq!(at("/route/0/match/path"), json!("/{*rest}"));
    assert_eq!(at("/route/0/cache"), json!(false));
    assert_eq!(at("/cache/size"), json!("256MiB"));
}

#[test]
fn defaults_are_those_of_the_parts() {
    use crate::{breaker, cache, listen, retry, throttle, upstream};
    let settings = loaded(&format!("{SMALL}cache = true\n[upstream.erp.probe]\n")).settings;
    let (upstream, route) = (&settings.upstreams[0], &settings.routes[0]);
    assert_eq!(upstream.breaker, Some(breaker::BreakerParams::default()));
    assert_eq!(upstream.retry, retry::RetryParams::default());
    assert_eq!(upstream.timeouts, upstream::Timeouts::default());
    assert_eq!(upstream.pool, upstream::pool::PoolParams::default());
    assert_eq!(upstream.tls, upstream::tls::UpstreamTls::default());
    assert_eq!(upstream.probe, Some(upstream::probe::ProbeParams::default()));
    // The throttle's own default is for one whose slots nobody counted; here they are 32 if nothing is said.
    let slots = throttle::SlotsParams { slots: 32, queue: 128, ..throttle::SlotsParams::default() };
    assert_eq!(upstream.slots, slots);
    assert_eq!(route.cache, Some(cache::CacheParams::default()));
    assert_eq!(settings.listeners[0].limits, listen::ListenLimits::default());
    assert!(settings.workers >= 1);
}

#[test]
fn slots_are_a_number_or_found() {
    use crate::throttle::limit::{AdaptiveParams, Policy};
    let slots = |written: &str| {
        let with = format!("endpoints = \"http://erp:8000\"\nslots = {written}\n");
        loaded(&SMALL.replace("endpoints = \"http://erp:8000\"\n", &with)).settings.upstreams.remove(0).slots
    };
    let number = slots("20");
    assert_eq!((number.slots, number.queue, number.most(), number.adaptive), (20, 80, 20, None));
    let found = slots("{ adaptive = 'gradient', min = 2, max = 40 }");
    let adaptive = AdaptiveParams { policy: Policy::Gradient, min: 2, max: 40, mode: Mode::Enforce };
    assert_eq!((found.slots, found.queue, found.most(), found.adaptive), (10, 160, 40, Some(adaptive)));
    let watched = slots("{ adaptive = 'aimd', max = 40, start = 30, slow = '2s', mode = 'shadow' }");
    let policy = Policy::Aimd { slow: Some(Duration::from_secs(2)) };
    let adaptive = AdaptiveParams { policy, min: 1, max: 40, mode: Mode::Shadow };
    assert_eq!((watched.slots, watched.most(), watched.adaptive), (30, 30, Some(adaptive)));
}

#[test]
fn what_is_switched_off_is_off() {
    let off = "endpoints = \"http://erp:8000\"\nbreaker = false\nretry = false\n";
    let settings = loaded(&SMALL.replace("endpoints = \"http://erp:8000\"\n", off)).settings;
    assert_eq!((settings.upstreams[0].breaker.is_none(), settings.upstreams[0].retry.attempts), (true, 1));
    assert!(settings.admin.is_none() && settings.routes[0].cache.is_none());
}

#[test]
fn routes_without_a_name_get_one_of_their_own() {
    let text = format!(
        "{SMALL}[[route]]\nmatch = {{ path = '/{{*rest}}', methods = 'GET' }}\nupstream = 'erp'\n\
         [[route]]\nname = '/{{*rest}}#2'\nmatch = {{ path = '/a' }}\nupstream = 'erp'\n"
    );
    let names: Vec<_> = loaded(&text).settings.routes.into_iter().map(|route| route.name).collect();
    assert_eq!(names, ["/{*rest}", "/{*rest}#3", "/{*rest}#2"]);
}

#[test]
fn keys_are_hashed_and_the_header_is_theirs() {
    let settings =
        loaded(&format!("{SMALL}[consumer.a]\nidentify = {{ api_key = '0123456789abcdef', header = 'x-token' }}\n"))
            .settings;
    let crate::consumer::Identify::ApiKey { header, sha256 } = &settings.consumers[0].identify else { panic!() };
    assert_eq!((header.as_str(), sha256[0][0]), ("x-token", 0x9f));
}

#[test]
fn the_drop_in_has_safe_defaults() {
    let upstream: http::Uri = "http://erp:8000".parse().unwrap();
    let listen = "127.0.0.1:0".parse().unwrap();
    let settings = Settings::for_upstream(upstream.clone(), listen);
    let only = &settings.upstreams[0];
    assert_eq!((&only.endpoints[..], only.slots.slots, only.slots.queue), (&[upstream][..], 32, 128));
    assert_eq!(settings.listeners[0].listen, listen);
    assert_eq!(settings.routes[0].matching.path, "/{*rest}");
    assert!(settings.routes[0].cache.is_some() && only.breaker.is_some() && settings.admin.is_some());
}

#[test]
fn a_file_that_is_not_there_is_a_problem_too() {
    let problems = load(Path::new("no/such.toml")).expect_err("there is none");
    assert!(problems.has_errors() && problems.to_string().contains("no/such.toml"));
}

proptest::proptest! {
    #[test]
    fn no_text_makes_it_panic(line in 0_usize..200, at in 0_usize..80, put in "[\\[\\]{}=\"'.$a-z0-9é\n -]{0,6}", cut in 0_usize..12) {
        let mut lines: Vec<String> = REFERENCE.lines().map(|line| uncomment(line, "# ").to_owned()).collect();
        let count = lines.len();
        let line = &mut lines[line % count];
        let start = line.floor_char_boundary(at.min(line.len()));
        let end = line.floor_char_boundary((start + cut).min(line.len()));
        line.replace_range(start..end, &put);
        let text = lines.join("\n");
        match parse(&text, "mangled.toml") {
            Ok(loaded) => assert!(!loaded.warnings.has_errors() && !loaded.view().is_null()),
            Err(problems) => assert!(problems.has_errors() && !problems.render(true).is_empty()),
        }
    }
}

const REFERENCE: &str = include_str!("../../config/vaxel.toml");
