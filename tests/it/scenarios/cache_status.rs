//! Cache-Status tells the truth on every path (RFC 9211): one scenario for each reason to forward, and for what is a hit.

use crate::harness::{SECOND, World, by, in_turn, ms, ok, refused, reset, status, world};

const FRAGILE: &str = "max-age=10, stale-if-error=600";

fn caching(control: &'static str) -> World {
    world().origin(by(move |_| ok("hello").cached(control))).route("cache = true").upstream("retry = false").opens()
}

/// Asks once more and looks at what is said of it.
async fn check(world: &World, fields: &[(&'static str, &str)], expected: &str) {
    let mut request = world.get("/");
    for (name, value) in fields {
        request = request.with(name, value);
    }
    request.await.has("cache-status", expected);
    world.breathes().await;
}

#[tokio::test(start_paused = true)]
async fn a_request_past_the_cache_says_bypass() {
    let world = caching("no-store");
    check(&world, &[("if-match", "\"a\"")], "vaxel; fwd=bypass; fwd-status=200; detail=precondition").await;
    check(&world, &[("x-csrf-token", "Fetch")], "vaxel; fwd=bypass; fwd-status=200; detail=token_fetch").await;
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn a_method_that_is_not_cached_says_method() {
    let world = caching("max-age=10");
    let posted = world.asks("POST", "/").await;
    posted.is(200).has("cache-status", "vaxel; fwd=method; fwd-status=200; detail=method");
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn a_page_never_seen_says_uri_miss_and_then_hit() {
    let world = caching("max-age=10");
    check(&world, &[], "vaxel; fwd=uri-miss; fwd-status=200; stored").await;
    check(&world, &[], "vaxel; hit; ttl=10").await;
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn another_variant_says_vary_miss() {
    let world = world().origin(ok("hello").cached("max-age=10").with("vary", "foo")).route("cache = true").opens();
    check(&world, &[("foo", "1")], "vaxel; fwd=uri-miss; fwd-status=200; stored").await;
    check(&world, &[("foo", "2")], "vaxel; fwd=vary-miss; fwd-status=200; stored").await;
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_known_to_be_uncacheable_says_miss() {
    let world = caching("no-store");
    check(&world, &[], "vaxel; fwd=uri-miss; fwd-status=200; detail=no_store").await;
    check(&world, &[], "vaxel; fwd=miss; fwd-status=200; detail=uncacheable").await;
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_take_a_fresh_answer_says_request() {
    let world = caching("max-age=10");
    check(&world, &[], "vaxel; fwd=uri-miss; fwd-status=200; stored").await;
    world.passes(2 * SECOND).await;
    for control in ["no-cache", "max-age=1", "min-fresh=20"] {
        check(&world, &[("cache-control", control)], "vaxel; fwd=request; fwd-status=200; stored").await;
        world.passes(2 * SECOND).await;
    }
    check(&world, &[("cache-control", "no-store, no-cache")], "vaxel; fwd=request; fwd-status=200; detail=unstored")
        .await;
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn a_validation_that_a_client_asked_for_says_request_and_304() {
    let page = by(|seen| {
        let reply = if seen.field("if-none-match") == "\"1\"" { status(304) } else { ok("one") };
        reply.cached("max-age=10").with("etag", "\"1\"")
    });
    let world = world().origin(page).route("cache = true").opens();
    world.get("/").await;
    check(&world, &[("cache-control", "no-cache")], "vaxel; fwd=request; fwd-status=304; stored").await;
    world.passes(11 * SECOND).await;
    check(&world, &[], "vaxel; fwd=stale; fwd-status=304; stored").await;
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn what_the_origin_wants_validated_says_stale_though_it_is_new() {
    let world = world().origin(ok("hello").cached("no-cache").with("etag", "\"1\"")).route("cache = true").opens();
    world.get("/").await;
    check(&world, &[], "vaxel; fwd=stale; fwd-status=200; stored").await;
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn a_stale_answer_in_the_place_of_a_failure_says_that_the_request_went_on() {
    for failure in [status(500), reset(), refused()] {
        let script = in_turn([ok("hello").cached(FRAGILE), failure]);
        let world = world().origin(script).route("cache = true").upstream("retry = false").opens();
        world.get("/").await;
        world.passes(11 * SECOND).await;
        check(&world, &[], "vaxel; fwd=stale; detail=stale_if_error").await;
        world.rests().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_stale_answer_behind_an_open_breaker_is_a_hit() {
    let world = world().origin(in_turn([ok("hello").cached(FRAGILE), status(500)])).route("cache = true");
    let world = world.upstream("retry = false\nbreaker = { minimum = 1 }").opens();
    world.get("/").await;
    world.passes(31 * SECOND).await;
    check(&world, &[], "vaxel; fwd=stale; detail=stale_if_error").await;
    check(&world, &[], "vaxel; hit; ttl=-21; detail=stale_if_error").await;
    world.origin.was_asked(2);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn whoever_shares_another_requests_answer_says_collapsed() {
    let page = by(|seen| {
        let reply = if seen.field("if-none-match") == "\"1\"" { status(304) } else { ok("one") };
        reply.cached("max-age=10").with("etag", "\"1\"").after(ms(200))
    });
    let world = world().origin(page).route("cache = true").opens();
    for why in ["uri-miss", "stale"] {
        let (leads, waits) = (world.get("/").goes(), world.get("/").goes());
        let status = if why == "stale" { 304 } else { 200 };
        leads.await.says("one").has("cache-status", &format!("vaxel; fwd={why}; fwd-status={status}; stored"));
        let shared = if why == "stale" { "" } else { "; fwd-status=200" };
        waits.await.says("one").has("cache-status", &format!("vaxel; fwd={why}{shared}; collapsed"));
        world.passes(11 * SECOND).await;
    }
    world.origin.was_asked(2);
    world.rests().await;
}
