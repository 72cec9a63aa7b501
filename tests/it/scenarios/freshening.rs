//! A HEAD updates what is stored for GET, or shows that it has changed (RFC 9111 section 4.3.5).

use crate::harness::{Reply, SECOND, World, in_turn, ok, refused, status, world};

fn page() -> Reply {
    ok("hello").cached("max-age=10").with("x", "1")
}

async fn stale_page_then(replies: [Reply; 2]) -> World {
    let [first, second] = replies;
    let world = world().origin(in_turn([page(), first, second])).route("cache = true");
    let world = world.upstream("retry = false").opens();
    world.get("/").await.says("hello");
    world.passes(11 * SECOND).await;
    world
}

#[tokio::test(start_paused = true)]
async fn a_head_makes_a_stale_answer_fresh_again() {
    let world = stale_page_then([status(200).cached("max-age=60").with("y", "2"), ok("never")]).await;
    let head = world.asks("HEAD", "/").await;
    head.is(200).says("").has("x", "1").has("y", "2").has("content-length", "5").has("age", "0");
    head.has("cache-status", "vaxel; fwd=stale; fwd-status=200; stored");
    assert_eq!(world.origin.last().method, "HEAD");
    world.passes(20 * SECOND).await;
    world.get("/").await.is(200).says("hello").has("x", "1").has("y", "2").has("age", "20");
    world.origin.was_asked(2);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn a_head_that_speaks_of_another_body_makes_the_answer_stale() {
    for changed in [
        status(200).cached("max-age=60").with("content-length", "6"),
        status(200).cached("max-age=60").with("etag", "\"2\""),
        status(200).cached("max-age=60").with("last-modified", "Thu, 01 Jan 1970 00:00:00 GMT"),
    ] {
        let world =
            world().origin(in_turn([page(), changed, ok("new").cached("max-age=60")])).route("cache = true").opens();
        world.get("/").await.says("hello");
        let head = world.asks("HEAD", "/").with("cache-control", "no-cache").await;
        head.is(200).lacks("x").has("cache-status", "vaxel; fwd=request; fwd-status=200");
        world.get("/").await.says("new");
        world.origin.was_asked(3);
        world.rests().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_head_that_may_not_be_shared_changes_nothing() {
    for personal in ["private, max-age=60", "no-store"] {
        let world = world()
            .origin(in_turn([page(), status(200).cached(personal).with("x", "2")]))
            .route("cache = true")
            .opens();
        world.get("/").await.says("hello");
        world.asks("HEAD", "/").with("cache-control", "no-cache").await.is(200).has("x", "2");
        world.get("/").await.is(200).says("hello").has("x", "1");
        world.origin.was_asked(2);
        world.rests().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_head_of_a_missing_page_says_nothing_of_the_stored_one() {
    let world = stale_page_then([status(410).cached("max-age=60"), ok("new").cached("max-age=60")]).await;
    world.asks("HEAD", "/").await.is(410);
    world.get("/").await.is(200).says("new");
    world.origin.was_asked(3);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn a_stale_answer_stands_in_for_a_head_that_fails() {
    for failure in [status(503), refused()] {
        let fragile = ok("hello").cached("max-age=10, stale-if-error=60");
        let world = world().origin(in_turn([fragile, failure])).route("cache = true");
        let world = world.upstream("retry = false").opens();
        world.get("/").await.says("hello");
        world.passes(11 * SECOND).await;
        world.asks("HEAD", "/").await.is(200).says("").has("content-length", "5").has("age", "11");
        world.counts("vaxel_requests_total{cache=\"stale_error\"}", 1.0);
        world.rests().await;
    }
}
