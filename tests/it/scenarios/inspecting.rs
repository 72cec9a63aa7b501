//! The operator asks what a request would get, and how the store stands.

use http::request::Parts;
use vaxel::cache::purge::Depth;
use vaxel::gateway::cache::{Extent, Inspection};
use vaxel::listen::Peer;

use crate::harness::{Config, SECOND, World, by, ok, status, world};

fn asked(method: &str, target: &str, fields: &[(&str, &str)]) -> Parts {
    let mut request = http::Request::builder().method(method).uri(target).header("host", "erp.example");
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0
}

fn inspect(world: &World, method: &str, target: &str, fields: &[(&str, &str)]) -> Inspection {
    let peer = Peer { address: ([127, 0, 0, 1], 40_000).into(), tls: false };
    world.handle.inspect(&asked(method, target, fields), peer).unwrap()
}

/// Asserts on the verdict: result, what Cache-Status says, whether the upstream is asked, and a part of the reason.
#[track_caller]
fn check(seen: &Inspection, result: &str, cache_status: &str, asks: bool, why: &str) {
    let verdict = &seen.verdict;
    assert_eq!((verdict.result, verdict.asks_upstream), (result, asks), "{seen:#?}");
    assert_eq!(verdict.cache_status.as_deref().unwrap_or_default(), cache_status, "{seen:#?}");
    assert!(verdict.why.contains(why), "{seen:#?}");
}

#[tokio::test(start_paused = true)]
async fn a_request_is_judged_at_every_age_of_its_answer() {
    let origin = ok("hello").cached("max-age=60, stale-while-revalidate=30, stale-if-error=300").with("etag", "\"1\"");
    let world = world().origin(origin).route("cache = { keep = \"10m\" }").opens();
    let look = || inspect(&world, "GET", "/a?x=1", &[]);
    check(&look(), "miss", "vaxel; fwd=uri-miss", true, "nothing is stored");
    assert_eq!(look().entry, None);
    world.get("/a?x=1").await.is(200);
    world.passes(10 * SECOND).await;
    check(&look(), "hit", "vaxel; hit; ttl=50", false, "its age of 10 s is below its lifetime of 60 s");
    let seen = look();
    let entry = seen.entry.unwrap();
    assert_eq!((entry.status, entry.age, entry.lifetime, entry.lifetime_from, entry.ttl), (200, 10, 60, "origin", 50));
    assert_eq!((entry.stale_while_revalidate, entry.stale_if_error, entry.keep), (30, 300, 600));
    assert_eq!((entry.etag.as_deref(), entry.body, entry.gone), (Some("\"1\""), 5, false));
    let key = seen.key.unwrap();
    assert_eq!((key.host.as_str(), key.path.as_str(), key.query.as_deref()), ("erp.example", "/a", Some("x=1")));
    assert_eq!(key.address, "http://erp.example/a?x=1 - erp");
    assert_eq!((seen.route.as_str(), seen.upstream.as_str(), seen.consumer.as_str()), ("all", "erp", "anonymous"));
    world.passes(70 * SECOND).await;
    check(&look(), "stale", "vaxel; hit; ttl=-20", true, "stale for 20 s, within stale-while-revalidate of 30 s");
    world.passes(20 * SECOND).await;
    check(&look(), "miss", "vaxel; fwd=stale", true, "stale for 40 s: it is validated; if that fails");
    world.passes(400 * SECOND).await;
    check(&look(), "miss", "vaxel; fwd=stale", true, "stale for 440 s: it is validated");
    assert!(!look().verdict.why.contains("if that fails"));
    world.passes(300 * SECOND).await;
    assert!(look().entry.unwrap().gone);
    world.origin.was_asked(1);
    world.counts("vaxel_requests_total", 1.0);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn every_way_past_the_store_has_its_reason() {
    let world =
        world().origin(ok("hello").cached("max-age=60, no-cache").with("etag", "\"1\"")).route("cache = true").opens();
    world.get("/").await.is(200);
    let look = |method: &str, fields: &[(&str, &str)]| inspect(&world, method, "/", fields);
    check(&look("GET", &[]), "miss", "vaxel; fwd=stale", true, "(no-cache): it is validated");
    check(&look("POST", &[]), "pass", "vaxel; fwd=method; detail=method", true, "safe GET and HEAD");
    check(&look("GET", &[("if-match", "\"1\"")]), "bypass", "vaxel; fwd=bypass; detail=precondition", true, "If-Match");
    let only = inspect(&world, "GET", "/b", &[("cache-control", "only-if-cached")]);
    check(&only, "refused", "", false, "");
    let credentials = inspect(&world, "GET", "/b", &[("authorization", "Basic x")]);
    check(&credentials, "pass", "vaxel; fwd=uri-miss; detail=authorization", true, "credentials");
    world.origin.was_asked(1);
    world.reload(&Config::default()).unwrap();
    check(&look("GET", &[]), "off", "", true, "the route all does not cache");
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn all_variants_are_shown() {
    let greet =
        by(|seen| ok(seen.field("accept-language").to_owned()).cached("max-age=60").with("vary", "Accept-Language"));
    let world = world().origin(greet).route("cache = true").opens();
    for language in ["sv", "en"] {
        world.get("/").with("accept-language", language).await.is(200);
    }
    let seen = inspect(&world, "GET", "/", &[("accept-language", "de")]);
    check(&seen, "miss", "vaxel; fwd=vary-miss", true, "other values of the fields");
    assert_eq!(seen.vary, ["accept-language"]);
    let mut languages: Vec<_> = seen.variants.iter().map(|variant| variant.selecting[0].clone().unwrap()).collect();
    languages.sort_unstable();
    assert_eq!(languages, ["en", "sv"]);
    check(&inspect(&world, "GET", "/", &[("accept-language", "SV")]), "hit", "vaxel; hit; ttl=60", false, "fresh");
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn an_operators_lifetime_and_purge_are_told_as_such() {
    let world = world().origin(ok("hello").with("age", "5")).route("cache = { ttl = \"60s\" }").opens();
    world.get("/").await.is(200);
    let entry = || inspect(&world, "GET", "/", &[]).entry.unwrap();
    assert_eq!((entry().lifetime_from, entry().ttl), ("operator", 60));
    world.handle.purge(&Extent::All, Depth::Soft).unwrap();
    assert!(entry().soft_purged);
    check(&inspect(&world, "GET", "/", &[]), "miss", "vaxel; fwd=stale", true, "");
    world.reload(&Config::default().route("cache = { ttl = \"10s\" }")).unwrap();
    assert_eq!(entry().lifetime_from, "before");
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn the_report_counts_by_route() {
    let origin =
        by(|seen| if seen.target == "/private" { ok("").cached("private") } else { ok("hello").cached("max-age=60") });
    let world = world().origin(origin).opens();
    let orders =
        "\n[[route]]\nname = \"orders\"\nupstream = \"erp\"\nmatch = { path = \"/orders/{id}\" }\ncache = true\n";
    world.reload(&Config::default().route("cache = true").more(orders)).unwrap();
    for target in ["/orders/1", "/orders/2", "/orders/1", "/a", "/private"] {
        world.get(target).await.is(200);
    }
    world.passes(61 * SECOND).await;
    world.get("/a").await.is(200);
    world.origin.now(status(500));
    world.handle.upkeep().await;
    let report = world.handle.cache_report();
    assert_eq!((report.entries, report.lists, report.marks, report.flights), (3, 0, 1, 0));
    assert!(report.bytes > 0 && report.bytes <= report.capacity, "{report:?}");
    assert_eq!((report.requests["hit"], report.requests["miss"], report.requests["pass"]), (1, 4, 1));
    assert_eq!(report.hit_ratio, Some(1.0 / 6.0));
    let routes: Vec<_> = report.routes.iter().map(|route| (route.route.as_str(), route.entries, route.stale)).collect();
    assert_eq!(routes, [("all", 1, 0), ("orders", 2, 2)]);
    assert_eq!(report.routes[1].hit_ratio, Some(1.0 / 3.0));
    world.rests().await;
}
