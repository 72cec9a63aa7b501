//! An answer that is not what the route expects never takes the place of one that is.

use crate::harness::{Reply, SECOND, World, by, in_turn, ms, ok, world};

fn json(body: &'static str) -> Reply {
    ok(body).with("content-type", "application/json").cached("max-age=10")
}

/// A logon page where data should be.
fn page() -> Reply {
    ok("<html>Sign in</html>").with("content-type", "text/html").cached("max-age=10")
}

fn opened<const N: usize>(replies: [Reply; N], otherwise: &str) -> World {
    let cache = format!("cache = {{ stale_if_error = \"1h\", expect = \"json\", on_unexpected = \"{otherwise}\" }}");
    let upstream = "retry = false\nbreaker = { minimum = 3, failure_ratio = 0.5 }";
    world().origin(in_turn(replies)).route(&cache).upstream(upstream).opens()
}

#[tokio::test(start_paused = true)]
async fn a_page_goes_to_the_one_who_asked_and_is_not_stored() {
    let world = opened([json("{\"a\":1}"), page(), json("{\"a\":2}")], "pass");
    world.get("/").await.says("{\"a\":1}");
    world.passes(11 * SECOND).await;
    let passed = world.get("/").await;
    passed.is(200).says("<html>Sign in</html>").has("cache-status", UNEXPECTED);
    world.get("/").await.says("{\"a\":2}").has("cache-status", "vaxel; fwd=stale; fwd-status=200; stored");
    world.breathes().await;
    world.get("/").await.says("{\"a\":2}").has("cache-status", "vaxel; hit; ttl=10");
    world.counts("vaxel_cache_events_total{event=\"unexpected\"}", 1.0);
    world.breaker("closed");
    world.rests().await;
}

const UNEXPECTED: &str = "vaxel; fwd=stale; fwd-status=200; detail=unexpected";

#[tokio::test(start_paused = true)]
async fn what_is_stored_stands_in_where_the_route_says_so() {
    let world = opened([json("[1]"), page()], "stale");
    world.get("/new").await.says("[1]");
    world.get("/").await.says("<html>Sign in</html>");
    world.passes(11 * SECOND).await;
    world.get("/new").await.is(200).says("[1]").has("cache-status", "vaxel; fwd=stale; detail=stale_if_error");
    world.breaker("closed");
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn a_page_is_a_failure_where_the_route_says_so() {
    let world = opened([json("[1]"), page()], "broken");
    world.get("/").await.says("[1]");
    world.passes(11 * SECOND).await;
    world.get("/").await.is(200).says("[1]").has("cache-status", "vaxel; fwd=stale; detail=stale_if_error");
    world.counts("vaxel_upstream_attempts_total{outcome=\"broken\"}", 1.0);
    // Those who go alone as well.
    let alone = world.get("/other").with("authorization", "anna").await;
    alone.is(502).refused("upstream.unexpected");
    world.breathes().await;
    world.breaker("open");
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn everybody_who_waited_for_a_page_is_refused_once() {
    let world = opened([page().after(SECOND)], "broken");
    let visits: Vec<_> = (0..5).map(|_| world.get("/").goes()).collect();
    for visit in visits {
        visit.await.is(502).refused("upstream.unexpected");
    }
    world.origin.was_asked(1);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn nobody_else_is_served_from_a_page() {
    let mistaken = by(|seen| match seen.number {
        // With the type and the tag of the good answer.
        0 => ok("Internal Server Error").with("content-type", "application/xml").with("etag", "\"good\""),
        _ => ok("<a/>").with("content-type", "application/xml").with("etag", "\"good\""),
    });
    let cache = "cache = { ttl = \"1h\", expect = [\"xml\", \"json\"] }";
    let world = world().origin(mistaken).route(cache).opens();
    let visits: Vec<_> = (0..5).map(|_| world.get("/").goes()).collect();
    let mut pages = 0;
    for visit in visits {
        pages += usize::from(visit.await.is(200).body == "Internal Server Error");
    }
    assert_eq!(pages, 1, "the one who asked");
    world.breathes().await;
    world.get("/").await.says("<a/>").has("cache-status", "vaxel; hit; ttl=3600");
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn a_refresh_that_brings_a_page_changes_nothing_and_backs_off() {
    let cache = "cache = { expect = \"json\", stale_while_revalidate = \"1h\" }";
    let world = world().origin(in_turn([json("[1]"), page()])).route(cache).opens();
    world.get("/").await.says("[1]");
    world.passes(11 * SECOND).await;
    for _ in 0..100 {
        world.get("/").await.is(200).says("[1]");
        world.passes(ms(100)).await;
    }
    let refreshes = world.origin.asked() - 1;
    assert!((2..=5).contains(&refreshes), "{refreshes} refreshes in ten seconds");
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn a_body_whose_end_is_missing_is_not_stored_though_its_connection_ended_well() {
    let cut = ok("{\"a\":").then(ms(10), "[1, 2").unannounced();
    let cut = cut.with("content-type", "application/json").cached("max-age=60");
    let world = world().origin(in_turn([cut, json("[]")])).route("cache = { expect = \"json\" }").opens();
    world.get("/").await.is(200).says("{\"a\":[1, 2");
    world.breathes().await;
    world.counts("vaxel_cache_entries", 0.0);
    world.get("/").await.says("[]");
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn what_was_looked_at_arrives_whole_and_at_its_own_pace() {
    let slow = json("[1,").then(5 * SECOND, "2,").then(SECOND, "3]");
    let world = world().origin(slow).route("cache = { expect = \"json\" }").opens();
    let begun = world.clock.now();
    let mut leader = world.get("/").opens().await;
    assert_eq!(leader.piece().await, "[1,");
    let mut follower = world.get("/").opens().await;
    assert_eq!(follower.piece().await, "[1,");
    assert_eq!(world.clock.now(), begun, "nobody waits for the end");
    leader.reads().await.is(200).says("2,3]");
    follower.reads().await.is(200).says("2,3]");
    world.passes(SECOND).await;
    world.get("/").await.says("[1,2,3]");
    world.origin.was_asked(1);
    world.rests().await;
}
