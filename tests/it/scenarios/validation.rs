//! Conditional requests, in both directions.

use crate::harness::{Reply, SECOND, Seen, by, ms, ok, status, world};

/// An origin whose page has the version 1 and knows conditions.
fn page(seen: &Seen) -> Reply {
    let reply = if seen.field("if-none-match") == "\"1\"" { status(304) } else { ok("one") };
    reply.cached("max-age=10").with("etag", "\"1\"")
}

#[tokio::test(start_paused = true)]
async fn a_304_of_the_origin_makes_the_stored_answer_fresh_again() {
    let world = world().origin(by(page)).route("cache = true").opens();
    world.get("/").await.says("one");
    world.passes(11 * SECOND).await;
    let validated = world.get("/").await;
    validated.is(200).says("one").has("age", "0").has("cache-status", "vaxel; fwd=stale; fwd-status=304; stored");
    assert_eq!(world.origin.last().field("if-none-match"), "\"1\"");
    world.passes(5 * SECOND).await;
    world.get("/").await.is(200).has("cache-status", "vaxel; hit; ttl=5");
    world.origin.was_asked(2);
    world.counts("vaxel_requests_total{cache=\"revalidated\"}", 1.0);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn a_conditional_request_is_answered_from_the_store() {
    let world = world().origin(by(page)).route("cache = true").opens();
    world.get("/").await.says("one");
    let known = world.get("/").with("if-none-match", "\"0\", W/\"1\"").await;
    known.is(304).says("").has("etag", "\"1\"").has("cache-status", "vaxel; hit; ttl=10").lacks("content-length");
    world.get("/").with("if-none-match", "\"0\"").await.is(200).says("one");
    world.origin.was_asked(1);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn a_condition_of_the_client_is_not_the_condition_of_the_fill() {
    let world = world().origin(by(page)).route("cache = true").opens();
    let known = world.get("/").with("if-none-match", "\"1\"").await;
    known.is(304).says("");
    assert_eq!(world.origin.last().field("if-none-match"), "", "the store wants the whole answer");
    world.breathes().await;
    world.get("/").await.is(200).says("one");
    world.passes(11 * SECOND).await;
    world.get("/").with("if-none-match", "\"0\"").await.is(200).says("one");
    assert_eq!(world.origin.last().field("if-none-match"), "\"1\"", "the store validates what it has");
    world.origin.was_asked(2);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn a_changed_page_replaces_the_stored_one() {
    let world = world().origin(by(page)).route("cache = true").opens();
    world.get("/").await.says("one");
    world.origin.now(ok("two").cached("max-age=10").with("etag", "\"2\""));
    world.passes(11 * SECOND).await;
    world.get("/").await.is(200).says("two").has("cache-status", "vaxel; fwd=stale; fwd-status=200; stored");
    world.breathes().await;
    world.get("/").await.is(200).says("two").has("etag", "\"2\"");
    world.origin.was_asked(2);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn many_who_find_it_stale_share_one_validation() {
    let slow = by(|seen| page(seen).after(ms(200)));
    let world = world().origin(slow).route("cache = true").opens();
    world.get("/").await.says("one");
    world.passes(11 * SECOND).await;
    let visits: Vec<_> = (0..100).map(|_| world.get("/").goes()).collect();
    for visit in visits {
        visit.await.is(200).says("one");
    }
    world.origin.was_asked(2);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn a_304_for_another_version_is_asked_for_again_without_conditions() {
    let confused = by(|seen| match seen.number {
        0 => ok("one").cached("max-age=10").with("etag", "\"1\""),
        1 => status(304).with("etag", "\"2\""),
        _ => ok("two").cached("max-age=10").with("etag", "\"2\""),
    });
    let world = world().origin(confused).route("cache = true").opens();
    world.get("/").await.says("one");
    world.passes(11 * SECOND).await;
    world.get("/").await.is(200).says("two");
    assert_eq!(world.origin.last().field("if-none-match"), "");
    world.origin.was_asked(3);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn a_conditional_request_on_a_route_without_a_cache_reaches_the_origin_as_it_is() {
    let world = world().origin(by(page)).opens();
    world.get("/").with("if-none-match", "\"1\"").await.is(304).says("");
    assert_eq!(world.origin.last().field("if-none-match"), "\"1\"");
    world.rests().await;
}
