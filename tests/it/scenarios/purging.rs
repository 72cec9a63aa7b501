//! The operator takes answers out of the store, or makes them stale.

use std::fmt::Write as _;

use vaxel::cache::purge::Depth;
use vaxel::gateway::cache::{Extent, PurgeError};

use crate::harness::{Config, SECOND, World, ok, world};

/// A world whose store holds an answer to each of `targets`.
async fn holding(config: Config, targets: &[&str]) -> World {
    let world = world().origin(ok("hello").cached("max-age=60").with("surrogate-key", "red blue")).opens();
    world.reload(&config).unwrap();
    for target in targets {
        world.get(target).await.is(200);
    }
    world
}

fn caching() -> Config {
    Config::default().route("cache = true")
}

fn url(path: &str) -> Extent {
    Extent::Url(format!("http://erp.example{path}").parse().unwrap())
}

/// Of `targets`, all stored, those that a purge leaves fresh.
async fn check(config: Config, targets: &[&str], extent: Extent, left: &[&str]) {
    for (depth, code) in [(Depth::Hard, "hard"), (Depth::Soft, "soft")] {
        let world = holding(config.clone(), targets).await;
        let gone = targets.len() - left.len();
        assert_eq!(world.handle.purge(&extent, depth), Ok(gone), "{extent} {depth:?}");
        world.counts(&format!("vaxel_cache_purged_entries_total{{depth=\"{code}\"}}"), gone as f64);
        world.counts("vaxel_cache_purges_total", 1.0);
        for target in targets {
            let hit = world.get(target).with("cache-control", "only-if-cached").await.status == 200;
            assert_eq!(hit, left.contains(target), "{extent} {depth:?}: {target}");
        }
        world.rests().await;
    }
}

#[tokio::test(start_paused = true)]
async fn each_extent_covers_what_it_names() {
    let all = ["/a", "/a?x=1", "/ab", "/b"];
    check(caching(), &all, url("/a"), &["/a?x=1", "/ab", "/b"]).await;
    check(caching(), &all, url("/a?x=1"), &["/a", "/ab", "/b"]).await;
    check(caching(), &all, url("/c"), &all).await;
    check(caching(), &all, Extent::Prefix("http://erp.example/a".into()), &["/b"]).await;
    check(caching(), &all, Extent::Prefix("https://".into()), &all).await;
    check(caching(), &all, Extent::Group { name: "blue".into(), origin: None }, &[]).await;
    check(caching(), &all, Extent::Group { name: "green".into(), origin: None }, &all).await;
    check(caching(), &all, Extent::Upstream("erp".into()), &[]).await;
    check(caching(), &all, Extent::Route("all".into()), &[]).await;
    check(caching(), &all, Extent::All, &[]).await;
}

#[tokio::test(start_paused = true)]
async fn a_url_is_found_however_it_is_spelled() {
    let config = Config::default().route("cache = { query = { sort = true, drop = [\"_\"] } }");
    let stored = ["/%61?b=2&a=1&_=7"];
    for spelled in ["/a?a=1&b=2", "/a?b=2&_=1&a=1", "/%61?b=2&a=1&_=7", "/x/../a?a=1&b=2"] {
        check(config.clone(), &stored, url(spelled), &[]).await;
    }
    check(config, &stored, url("/a?a=1"), &stored).await;
}

#[tokio::test(start_paused = true)]
async fn a_route_covers_what_it_may_have_stored() {
    let mut more = String::new();
    for (name, matched) in
        [("orders", "path = \"/orders/{*rest}\""), ("mobile", "path = \"/orders/{id}\", headers = { x-mobile = true }")]
    {
        let _ =
            write!(more, "\n[[route]]\nname = \"{name}\"\nupstream = \"erp\"\nmatch = {{ {matched} }}\ncache = true\n");
    }
    let config = caching().more(&more);
    let all = ["/", "/orders", "/orders/1", "/orders/1/items"];
    let route = |name: &str| Extent::Route(name.into());
    check(config.clone(), &all, route("orders"), &["/"]).await;
    check(config.clone(), &all, route("all"), &["/orders", "/orders/1", "/orders/1/items"]).await;
    // Its fields are not known any more: what it may have stored goes.
    check(config.clone(), &all, route("mobile"), &["/", "/orders", "/orders/1/items"]).await;
    let world = holding(config, &all).await;
    let nowhere = world.handle.purge(&route("order"), Depth::Hard);
    assert_eq!(nowhere, Err(PurgeError::NoRoute("order".into())));
    let relative = world.handle.purge(&Extent::Url("/orders".parse().unwrap()), Depth::Hard);
    assert!(matches!(relative, Err(PurgeError::Url(_))), "{relative:?}");
    world.counts("vaxel_cache_purges_total", 0.0);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_soft_purged_is_served_stale_while_it_is_refreshed() {
    let world = world()
        .origin(ok("hello").cached("max-age=60, stale-while-revalidate=60").with("etag", "\"1\""))
        .route("cache = true")
        .opens();
    world.get("/").await.is(200);
    assert_eq!(world.handle.purge(&Extent::All, Depth::Soft), Ok(1));
    world.passes(SECOND).await;
    world.get("/").await.is(200).has("age", "1");
    world.breathes().await;
    world.origin.was_asked(2);
    world.get("/").await.has("cache-status", "vaxel; hit; ttl=60");
    world.origin.was_asked(2);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_on_its_way_is_not_stored_after_a_purge_of_its_route() {
    let world = world().origin(ok("old").cached("max-age=60").after(SECOND)).route("cache = true").opens();
    let visit = world.get("/").goes();
    world.breathes().await;
    assert_eq!(world.handle.purge(&Extent::Route("all".into()), Depth::Hard), Ok(0));
    visit.await.is(200).says("old");
    world.counts("vaxel_cache_entries", 0.0);
    world.get("/").await.is(200);
    world.origin.was_asked(2);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_soft_purged_is_stale_not_refused_by_the_request() {
    let world = world().origin(ok("hello").cached("max-age=60").with("etag", "\"1\"")).route("cache = true").opens();
    world.get("/").await.is(200);
    assert_eq!(world.handle.purge(&Extent::All, Depth::Soft), Ok(1));
    world.get("/").await.is(200).has("cache-status", "vaxel; fwd=stale; fwd-status=200; stored");
    world.rests().await;
}
