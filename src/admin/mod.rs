//! The admin listener: the live page, metrics, health, the effective configuration, reload and drain, and the operator's
//! hand on cache and upstreams. [docs/openapi.json](../../docs/openapi.json) describes it for programs.
//!
//! Plain HTTP/1.1 on a socket of its own, on the control runtime, so that it answers when the data plane is busy. It
//! asks a source for what it shows and knows no running gateway. [`Access`] says who may ask for what.

mod access;
pub mod advice;
mod cache;
pub mod client;
mod feed;
mod page;
mod serve;
pub mod text;
pub mod top;
mod upstreams;
mod why;

use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use serde_json::{Value, json};

pub use self::access::Access;
pub use self::cache::Asked;
pub use self::serve::serve;

use self::access::{Denied, Need, is_foreign};
use crate::cache::purge::Depth;
use crate::gateway::cache::Extent;
use crate::gateway::steer::Steer;
use crate::metrics::Format;

/// What the admin listener shows and does. Everything may block.
pub trait AdminSource {
    /// Who may ask.
    fn access(&self) -> Access;

    /// The metrics, in a format that a scraper asked for.
    fn metrics(&self, format: Format) -> String;

    /// Whether new requests should come here.
    ///
    /// # Errors
    /// A word for why not: draining, or no listener is bound yet.
    fn ready(&self) -> Result<(), &'static str>;

    /// The configuration in force, with every default, and without secrets.
    fn config(&self) -> Value;

    /// Loads the configuration anew; what is probably not meant is told, for people. May take a while and read files.
    ///
    /// # Errors
    /// All problems of the new configuration, for people; the old one stays in force.
    fn reload(&self) -> Result<String, String>;

    /// Begins the orderly end of the process; how long it may take at most.
    fn drain(&self) -> Duration;

    /// How everything stands, for the live page; asked for at most about once a second for all who follow it. Who may not
    /// act may see it: what others have asked for is not in it where nobody may act.
    fn status(&self) -> Value;

    /// Purges stored answers; how many were affected.
    ///
    /// # Errors
    /// Why none were, for people.
    fn purge(&self, extent: &Extent, depth: Depth) -> Result<usize, String>;

    /// How the store stands.
    fn cache(&self) -> Value;

    /// How the upstreams stand.
    fn upstreams(&self) -> Value;

    /// Does something to an upstream.
    ///
    /// # Errors
    /// Why not, for people.
    fn steer(&self, upstream: &str, steer: Steer) -> Result<(), String>;

    /// What a request would get from the store, and why.
    ///
    /// # Errors
    /// Why it would be refused before the store is asked, for people.
    fn entry(&self, asked: &Asked) -> Result<Value, String>;

    /// What would become of a request, step by step.
    fn explain(&self, asked: &Asked) -> Value;

    /// What became of the requests known by this id; empty if nothing is remembered of them.
    fn why(&self, id: &str) -> Vec<Value>;

    /// What should be done next, from what was seen of the traffic.
    fn advice(&self) -> Value;

    /// The latest requests that are remembered, up to `most`; of those kept or refused for `word`, if one is given.
    fn accounts(&self, word: Option<&str>, most: usize) -> Vec<Value>;
}

/// What is answered: whole.
pub(super) type Reply = Response<Full<Bytes>>;

/// Answers one request, whose body is there. Blocks as long as the source does.
pub fn handle(request: &Request<Bytes>, source: &dyn AdminSource) -> Reply {
    let method = request.method();
    let page = Page::at(request.uri().path());
    let need = page.map_or(Need::Look, Page::need);
    if let Err(denied) = source.access().check(need, request.uri(), request.headers()) {
        return refuse(denied);
    }
    let Some(page) = page else {
        return problem(StatusCode::NOT_FOUND, "There is nothing here; GET / lists what is.");
    };
    if !page.allows(method) {
        let mut response = problem(StatusCode::METHOD_NOT_ALLOWED, "The method does not fit this resource.");
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(page.allowed()));
        return response;
    }
    if *method == Method::POST && is_foreign(request.uri(), request.headers()) {
        return problem(StatusCode::FORBIDDEN, "A page of another site may not do this.");
    }
    let mut response = page.show(request, source);
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if *method == Method::HEAD {
        // The fields are those of GET, the length included (RFC 9110 section 9.3.2).
        let length = http_body::Body::size_hint(response.body()).lower();
        response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        *response.body_mut() = Full::default();
    }
    response
}

fn refuse(denied: Denied) -> Reply {
    let (status, detail) = denied.problem();
    let mut response = problem(status, detail);
    if status == StatusCode::UNAUTHORIZED {
        let challenge = HeaderValue::from_static("Bearer realm=\"vaxel admin\"");
        response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    }
    response
}

/// Every path there is, and the methods it allows, as the field `Allow` has them.
pub fn paths() -> impl Iterator<Item = (&'static str, &'static str)> {
    Page::ALL.into_iter().map(|(path, page)| (path, page.allowed()))
}

/// What there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Page {
    Index,
    Metrics,
    Live,
    Ready,
    Config,
    Reload,
    Purge,
    Cache,
    Entry,
    Explain,
    Why,
    Upstreams,
    Advice,
    Gear,
    Breaker,
    Status,
    Events,
    Drain,
    Style,
    Script,
}

impl Page {
    const ALL: [(&'static str, Self); 20] = [
        ("/", Self::Index),
        ("/page.css", Self::Style),
        ("/page.js", Self::Script),
        ("/livez", Self::Live),
        ("/readyz", Self::Ready),
        ("/metrics", Self::Metrics),
        ("/status", Self::Status),
        ("/status/events", Self::Events),
        ("/config", Self::Config),
        ("/reload", Self::Reload),
        ("/drain", Self::Drain),
        ("/cache", Self::Cache),
        ("/cache/entry", Self::Entry),
        ("/purge", Self::Purge),
        ("/explain", Self::Explain),
        ("/why", Self::Why),
        ("/upstreams", Self::Upstreams),
        ("/advice", Self::Advice),
        ("/gear", Self::Gear),
        ("/breaker", Self::Breaker),
    ];

    fn at(path: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|(known, _)| *known == path).map(|(_, page)| page)
    }

    fn allows(self, method: &Method) -> bool {
        match self {
            Self::Reload | Self::Drain | Self::Purge | Self::Gear | Self::Breaker => *method == Method::POST,
            _ => *method == Method::GET || *method == Method::HEAD,
        }
    }

    const fn allowed(self) -> &'static str {
        match self {
            Self::Reload | Self::Drain | Self::Purge | Self::Gear | Self::Breaker => "POST",
            _ => "GET, HEAD",
        }
    }

    const fn need(self) -> Need {
        match self {
            Self::Index | Self::Style | Self::Script | Self::Live | Self::Ready => Need::Nothing,
            Self::Metrics => Need::Metrics,
            Self::Config | Self::Cache | Self::Upstreams | Self::Advice | Self::Status | Self::Events => Need::Look,
            Self::Entry | Self::Explain | Self::Why => Need::Act,
            Self::Reload | Self::Drain | Self::Purge | Self::Gear | Self::Breaker => Need::Act,
        }
    }

    fn show(self, request: &Request<Bytes>, source: &dyn AdminSource) -> Reply {
        match self {
            Self::Index => index(request),
            Self::Style => page::css(),
            Self::Script => page::js(),
            Self::Metrics => {
                let format = Format::accepted(request.headers());
                answer(StatusCode::OK, format.content_type(), source.metrics(format))
            }
            Self::Live => answer(StatusCode::OK, PLAIN, "ok\n"),
            Self::Ready => match source.ready() {
                Ok(()) => answer(StatusCode::OK, PLAIN, "ready\n"),
                Err(why) => answer(StatusCode::SERVICE_UNAVAILABLE, PLAIN, format!("{why}\n")),
            },
            Self::Config => answer(StatusCode::OK, JSON, format!("{:#}\n", source.config())),
            Self::Reload => match source.reload() {
                Ok(warnings) => answer(StatusCode::OK, JSON, reloaded(&warnings)),
                Err(problems) => problem(StatusCode::UNPROCESSABLE_ENTITY, &problems),
            },
            Self::Purge => cache::purge(source, request.body()),
            Self::Cache => answer(StatusCode::OK, JSON, format!("{:#}\n", source.cache())),
            Self::Entry => cache::entry(source, request.uri().query()),
            Self::Explain => cache::explain(source, request.uri().query()),
            Self::Why => why::why(source, request.uri().query()),
            Self::Upstreams => answer(StatusCode::OK, JSON, format!("{:#}\n", source.upstreams())),
            Self::Advice => advice::advice(source, request.uri().query()),
            Self::Gear => upstreams::gear(source, request.body()),
            Self::Breaker => upstreams::breaker(source, request.body()),
            Self::Status => answer(StatusCode::OK, JSON, format!("{:#}\n", source.status())),
            // The listener goes on with the others.
            Self::Events => answer(StatusCode::OK, EVENTS, feed::event(source.status())),
            Self::Drain => {
                let within = source.drain().as_secs();
                answer(StatusCode::ACCEPTED, JSON, format!("{}\n", json!({ "draining": true, "within_s": within })))
            }
        }
    }
}

/// The page for a browser, a list for everybody else.
fn index(request: &Request<Bytes>) -> Reply {
    let mut response =
        if page::is_wanted(request.headers()) { page::html() } else { answer(StatusCode::OK, PLAIN, INDEX) };
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("accept"));
    response
}

fn reloaded(warnings: &str) -> String {
    let body = if warnings.is_empty() {
        json!({ "reloaded": true })
    } else {
        json!({ "reloaded": true, "warnings": warnings })
    };
    format!("{body}\n")
}

/// An error, as RFC 9457 wants it. Without a `type` it is `about:blank`, and the title is the phrase of the status.
fn problem(status: StatusCode, detail: &str) -> Reply {
    let body = json!({
        "title": status.canonical_reason(),
        "status": status.as_u16(),
        "detail": detail,
    });
    answer(status, PROBLEM, format!("{body}\n"))
}

fn answer(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Reply {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    // The text of a problem may quote a file: a browser must not take it for a page.
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

const PLAIN: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const PROBLEM: &str = "application/problem+json";
const EVENTS: &str = "text/event-stream";

const INDEX: &str = r#"vaxel

GET  /              this; the live page for a browser
GET  /status        how everything stands: traffic, upstreams, routes, consumers, cache, the last minutes
GET  /status/events the same, once a second (server-sent events)
GET  /metrics       metrics, for Prometheus
GET  /livez         200 while the process works
GET  /readyz        200 while it takes requests, 503 before and after
GET  /config        the configuration in force
POST /reload        load the configuration anew
POST /drain         end in order: no new connections, requests finish
GET  /cache         how the cache stands
GET  /cache/entry   what a request would get from it, and why: ?url=http://HOST/PATH[&header=NAME:%20VALUE]
POST /purge         take answers out of it, or make them stale: {"url": "http://HOST/PATH", "soft": true};
                    or "prefix", "group", "route", "upstream", or "all": true
GET  /explain       what would become of a request, step by step: ?url=http://HOST/PATH[&method=POST][&header=…]
GET  /why           what became of the latest requests worth remembering: ?reason=queue.full&limit=20;
                    or of one: ?id=REQUEST_ID
GET  /upstreams     how each upstream stands: gear, slots, queue, breaker, endpoints
GET  /advice        what to do next, from what was seen of the traffic; ?format=text for people
POST /gear          hold the gear of one: {"upstream": "erp", "gear": "park", "for": "30m"}; let go without "gear"
POST /breaker       hold its breaker: {"upstream": "erp", "hold": "open"} or "closed"; let go without "hold"
"#;

#[cfg(test)]
pub(crate) mod tests {
    use std::pin::Pin;
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
    use std::task::{Context, Poll, Waker};

    use http_body::Body as _;
    use sha2::{Digest as _, Sha256};

    use super::*;

    /// A source whose answers are known.
    #[derive(Debug, Default)]
    pub(crate) struct Known {
        pub(crate) unready: Option<&'static str>,
        pub(crate) broken: Option<&'static str>,
        pub(crate) token: Option<&'static str>,
        /// How often the status was asked for.
        pub(crate) asked: AtomicU32,
        /// The token was changed.
        pub(crate) renewed: AtomicBool,
    }

    impl Known {
        pub(crate) fn asked(&self) -> u32 {
            self.asked.load(Ordering::Relaxed)
        }

        pub(crate) fn renew(&self) {
            self.renewed.store(true, Ordering::Relaxed);
        }
    }

    impl AdminSource for Known {
        fn access(&self) -> Access {
            let renewed = self.renewed.load(Ordering::Relaxed).then_some("renewed");
            let token = renewed.or(self.token).map(|token| Sha256::digest(token).into());
            Access { token, metrics: false, listen: ([127, 0, 0, 1], 9900).into() }
        }

        fn metrics(&self, format: Format) -> String {
            let end = if format == Format::OpenMetrics { "# EOF\n" } else { "" };
            format!("vaxel_worker_panics_total 0\n{end}")
        }

        fn ready(&self) -> Result<(), &'static str> {
            self.unready.map_or(Ok(()), Err)
        }

        fn config(&self) -> Value {
            json!({ "workers": 2 })
        }

        fn reload(&self) -> Result<String, String> {
            self.broken.map_or_else(|| Ok(String::new()), |problem| Err(problem.to_owned()))
        }

        fn drain(&self) -> Duration {
            Duration::from_secs(30)
        }

        fn status(&self) -> Value {
            self.asked.fetch_add(1, Ordering::Relaxed);
            json!({ "upstreams": [] })
        }

        fn upstreams(&self) -> Value {
            json!([])
        }

        fn steer(&self, upstream: &str, _: Steer) -> Result<(), String> {
            if upstream == "erp" { Ok(()) } else { Err(format!("there is no upstream `{upstream}`")) }
        }

        fn purge(&self, extent: &Extent, depth: Depth) -> Result<usize, String> {
            match extent {
                Extent::Route(name) => Err(format!("there is no route {name}")),
                _ => Ok(if depth == Depth::Soft { 3 } else { 4 }),
            }
        }

        fn cache(&self) -> Value {
            json!({ "entries": 7 })
        }

        fn explain(&self, asked: &Asked) -> Value {
            json!(asked.parts.method.as_str())
        }

        fn why(&self, id: &str) -> Vec<Value> {
            if id == "77" { vec![json!({ "request_id": id })] } else { Vec::new() }
        }

        fn advice(&self) -> Value {
            json!({ "watched_s": 60, "findings": [] })
        }

        fn accounts(&self, word: Option<&str>, most: usize) -> Vec<Value> {
            vec![json!([word, most])]
        }

        fn entry(&self, asked: &Asked) -> Result<Value, String> {
            if asked.parts.uri == "/none" { Err("no route".to_owned()) } else { Ok(json!(asked.parts.uri.to_string())) }
        }
    }

    /// The answer, and its body as text. The body is whole already: no runtime is needed to read it.
    fn ask(request: Request<&'static str>, source: &Known) -> (Response<()>, String) {
        let (head, mut body) = handle(&request.map(Bytes::from), source).into_parts();
        let mut context = Context::from_waker(Waker::noop());
        let text = match Pin::new(&mut body).poll_frame(&mut context) {
            Poll::Ready(Some(Ok(frame))) => frame.into_data().unwrap(),
            _ => Bytes::new(),
        };
        (Response::from_parts(head, ()), String::from_utf8(text.to_vec()).unwrap())
    }

    #[track_caller]
    fn check(method: &str, path: &str, source: &Known, status: u16, content_type: &str, body: &str) {
        let request = Request::builder().method(method).uri(path).body("").unwrap();
        let (response, text) = ask(request, source);
        assert_eq!(response.status(), status, "{method} {path}");
        assert_eq!(response.headers()[header::CONTENT_TYPE], content_type, "{method} {path}");
        assert_eq!(text, body, "{method} {path}");
    }

    #[test]
    fn every_page_has_its_answer() {
        let good = Known::default();
        check("GET", "/", &good, 200, PLAIN, INDEX);
        let text = Format::Text.content_type();
        check("GET", "/metrics", &good, 200, text, "vaxel_worker_panics_total 0\n");
        check("GET", "/metrics?name=x", &good, 200, text, "vaxel_worker_panics_total 0\n");
        check("GET", "/livez", &good, 200, PLAIN, "ok\n");
        check("GET", "/readyz", &good, 200, PLAIN, "ready\n");
        check("GET", "/config", &good, 200, JSON, "{\n  \"workers\": 2\n}\n");
        check("POST", "/reload", &good, 200, JSON, "{\"reloaded\":true}\n");
        check("POST", "/drain", &good, 202, JSON, "{\"draining\":true,\"within_s\":30}\n");
        check("GET", "/status", &good, 200, JSON, "{\n  \"upstreams\": []\n}\n");
        check("GET", "/status/events", &good, 200, EVENTS, "event: status\ndata: {\"upstreams\":[]}\n\n");
        check("GET", "/cache", &good, 200, JSON, "{\n  \"entries\": 7\n}\n");
        check("GET", "/cache/entry?url=http://a/b", &good, 200, JSON, "\"/b\"\n");
        check(
            "GET",
            "/why?id=77",
            &good,
            200,
            JSON,
            "{\n  \"accounts\": [\n    {\n      \"request_id\": \"77\"\n    }\n  ]\n}\n",
        );
        check("GET", "/explain?url=http://a/b&method=POST", &good, 200, JSON, "\"POST\"\n");
        let latest = "{\n  \"accounts\": [\n    [\n      \"slow\",\n      2\n    ]\n  ]\n}\n";
        check("GET", "/why?reason=slow&limit=2", &good, 200, JSON, latest);
        let draining = Known { unready: Some("draining"), ..Known::default() };
        check("GET", "/readyz", &draining, 503, PLAIN, "draining\n");
        check("GET", "/livez", &draining, 200, PLAIN, "ok\n");
    }

    #[test]
    fn a_browser_gets_a_page_that_may_load_nothing_from_elsewhere() {
        let browser = "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8";
        for (path, content_type) in [("/", "text/html"), ("/page.css", "text/css"), ("/page.js", "text/javascript")] {
            let request = Request::builder().uri(path).header("accept", browser).body("").unwrap();
            let (response, _) = ask(request, &Known { token: Some("s3cret"), ..Known::default() });
            let headers = response.headers();
            assert!(headers[header::CONTENT_TYPE].to_str().unwrap().starts_with(content_type), "{path}");
            let policy = headers[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
            assert!(policy.starts_with("default-src 'none'") && policy.contains("frame-ancestors 'none'"), "{policy}");
            assert!(!policy.contains("unsafe"), "{policy}");
            assert_eq!(headers[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
        }
    }

    #[test]
    fn the_index_lists_every_page() {
        for line in INDEX.lines().filter(|line| line.contains('/')) {
            let mut words = line.split_whitespace();
            let method = Method::from_bytes(words.next().unwrap().as_bytes()).unwrap();
            let page = Page::at(words.next().unwrap()).unwrap();
            assert!(page.allows(&method), "{line}");
        }
        assert_eq!(INDEX.lines().filter(|line| line.contains('/')).count(), 18);
    }

    #[test]
    fn a_head_request_gets_the_fields_alone() {
        for path in ["/", "/metrics", "/livez", "/readyz", "/config", "/cache"] {
            let request = |method| Request::builder().method(method).uri(path).body("").unwrap();
            let (_, text) = ask(request("GET"), &Known::default());
            let (response, empty) = ask(request("HEAD"), &Known::default());
            assert_eq!(response.headers()[header::CONTENT_LENGTH], text.len().to_string(), "{path}");
            assert_eq!(empty, "", "{path}");
        }
    }

    #[test]
    fn what_does_not_fit_is_a_problem() {
        for (method, path, status, allow) in [
            ("GET", "/nothing", 404, None),
            ("GET", "/why?id=78", 404, None),
            ("GET", "/explain", 400, None),
            ("GET", "/why?reason=no", 400, None),
            ("GET", "/metrics/", 404, None),
            ("POST", "/metrics", 405, Some("GET, HEAD")),
            ("DELETE", "/", 405, Some("GET, HEAD")),
            ("GET", "/reload", 405, Some("POST")),
            ("HEAD", "/reload", 405, Some("POST")),
            ("GET", "/drain", 405, Some("POST")),
            ("POST", "/status", 405, Some("GET, HEAD")),
            ("GET", "/purge", 405, Some("POST")),
            ("POST", "/cache", 405, Some("GET, HEAD")),
            ("POST", "/purge", 400, None),
            ("GET", "/cache/entry", 400, None),
            ("GET", "/cache/entry?url=http://a/none", 422, None),
        ] {
            let request = Request::builder().method(method).uri(path).body("").unwrap();
            let (response, text) = ask(request, &Known::default());
            assert_eq!(response.status(), status, "{method} {path}");
            assert_eq!(response.headers()[header::CONTENT_TYPE], PROBLEM);
            let found = response.headers().get(header::ALLOW).map(|value| value.to_str().unwrap());
            assert_eq!(found, allow, "{method} {path}");
            let json: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(json["status"], status);
            assert!(json["title"].is_string() && json["detail"].is_string());
        }
    }

    #[test]
    fn a_failed_reload_says_what_is_wrong() {
        let broken = Known { broken: Some("vaxel.toml:3:1: unknown key \"slot\""), ..Known::default() };
        let request = Request::builder().method("POST").uri("/reload").body("").unwrap();
        let (response, text) = ask(request, &broken);
        assert_eq!(response.status(), StatusCode::UNPROCESSABLE_ENTITY);
        let json: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(json["detail"], "vaxel.toml:3:1: unknown key \"slot\"");
    }

    #[test]
    fn a_scraper_gets_the_format_it_prefers() {
        let open = Format::OpenMetrics.content_type();
        for (accept, expected) in [(open, open), ("text/plain", Format::Text.content_type())] {
            let request = Request::builder().uri("/metrics").header("accept", accept).body("").unwrap();
            let (response, text) = ask(request, &Known::default());
            assert_eq!(response.headers()[header::CONTENT_TYPE], expected);
            assert_eq!(text.ends_with("# EOF\n"), expected == open);
        }
    }

    #[test]
    fn a_purge_does_what_its_body_orders() {
        for (body, status, content_type, part) in [
            ("{\"all\":true}", 200, JSON, "\"purged\":4"),
            (
                "{\"url\":\"http://a/b\",\"soft\":true}",
                200,
                JSON,
                "{\"depth\":\"soft\",\"extent\":\"url http://a/b\",\"purged\":3}",
            ),
            ("{\"route\":\"x\"}", 422, PROBLEM, "there is no route x"),
            ("{\"all\":1}", 400, PROBLEM, "The body is no order"),
        ] {
            let request = Request::builder().method("POST").uri("/purge").body(body).unwrap();
            let (response, text) = ask(request, &Known::default());
            assert_eq!(response.status(), status, "{body}");
            assert_eq!(response.headers()[header::CONTENT_TYPE], content_type, "{body}");
            assert!(text.contains(part), "{body}: {text}");
        }
    }

    #[test]
    fn gears_and_breakers_are_held_and_let_go() {
        for (path, body, status, part) in [
            ("/gear", r#"{"upstream":"erp","gear":"park","for":"30m"}"#, 200, "\"done\":true"),
            ("/gear", r#"{"upstream":"erp"}"#, 200, "\"done\":true"),
            ("/gear", r#"{"upstream":"erp","for":"1m"}"#, 400, "goes with a"),
            ("/gear", r#"{"upstream":"erp","gear":"reverse"}"#, 400, "is no gear"),
            ("/gear", r#"{"upstream":"erp","gear":"eco","for":"soon"}"#, 400, "is no duration"),
            ("/gear", r#"{"upstream":"erp","gear":"eco","for":"1year"}"#, 400, "within a week"),
            ("/gear", r#"{"upstream":"crm","gear":"eco"}"#, 422, "no upstream"),
            ("/gear", "", 400, "is no order"),
            ("/breaker", r#"{"upstream":"erp","hold":"open"}"#, 200, "\"done\":true"),
            ("/breaker", r#"{"upstream":"erp"}"#, 200, "\"done\":true"),
            ("/breaker", r#"{"upstream":"erp","hold":"ajar"}"#, 400, "is no hold"),
        ] {
            let request = Request::builder().method("POST").uri(path).body(body).unwrap();
            let (response, text) = ask(request, &Known::default());
            assert_eq!(response.status(), status, "{body}");
            assert!(text.contains(part), "{body}: {text}");
        }
    }

    #[test]
    fn a_token_closes_all_but_the_probes_and_the_metrics() {
        let closed = Known { token: Some("s3cret"), ..Known::default() };
        for (method, path, open) in [
            ("GET", "/", true),
            ("GET", "/livez", true),
            ("GET", "/readyz", true),
            ("GET", "/metrics", true),
            ("GET", "/config", false),
            ("GET", "/cache", false),
            ("GET", "/cache/entry?url=http://a/", false),
            ("POST", "/reload", false),
            ("POST", "/purge", false),
            ("GET", "/upstreams", false),
            ("GET", "/page.css", true),
            ("GET", "/page.js", true),
            ("GET", "/status", false),
            ("GET", "/status/events", false),
            ("POST", "/drain", false),
            ("GET", "/nothing", false),
        ] {
            let request = || Request::builder().method(method).uri(path).header("host", "vaxel:9900");
            let (response, _) = ask(request().body("{\"all\":true}").unwrap(), &closed);
            assert_eq!(response.status() == StatusCode::UNAUTHORIZED, !open, "{path}");
            assert_eq!(response.headers().contains_key(header::WWW_AUTHENTICATE), !open, "{path}");
            let with = request().header("authorization", "Bearer s3cret").body("{\"all\":true}").unwrap();
            let found = path != "/nothing";
            assert_eq!(ask(with, &closed).0.status().is_success(), found, "{path}");
        }
    }

    #[test]
    fn a_page_of_another_site_cannot_reload() {
        for (fields, status) in [
            (&[][..], 200),
            (&[("host", "127.0.0.1:9900"), ("origin", "http://127.0.0.1:9900")], 200),
            (&[("host", "127.0.0.1:9900"), ("sec-fetch-site", "same-origin")], 200),
            (&[("host", "127.0.0.1:9900"), ("sec-fetch-site", "none")], 200),
            (&[("host", "127.0.0.1:9900"), ("origin", "http://evil.example")], 403),
            (&[("host", "127.0.0.1:9900"), ("origin", "null")], 403),
            (&[("host", "127.0.0.1:9900"), ("sec-fetch-site", "cross-site")], 403),
            (&[("host", "127.0.0.1:9900"), ("sec-fetch-site", "same-site")], 403),
        ] {
            let mut request = Request::builder().method("POST").uri("/reload");
            for (name, value) in fields {
                request = request.header(*name, *value);
            }
            let (response, _) = ask(request.body("").unwrap(), &Known::default());
            assert_eq!(response.status(), status, "{fields:?}");
        }
    }
}
