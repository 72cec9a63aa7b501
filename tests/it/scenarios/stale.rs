//! Answers past their time: served while they are refreshed, or while the origin fails; or never.

use crate::harness::{MINUTE, Reply, SECOND, by, hang, in_turn, ms, ok, status, world};

const NO_RETRY: &str = "retry = false";

#[tokio::test(start_paused = true)]
async fn a_stale_answer_is_served_at_once_and_refreshed_exactly_once() {
    let old = ok("old").cached("max-age=10, stale-while-revalidate=60");
    let new = ok("new").cached("max-age=10").after(ms(500));
    let world = world().origin(in_turn([old, new])).route("cache = true").opens();
    world.get("/").await.says("old");
    world.passes(11 * SECOND).await;
    let before = world.clock.now();
    for _ in 0..50 {
        world.get("/").await.is(200).says("old").has("age", "11").has("cache-status", "vaxel; hit; ttl=-1");
    }
    assert_eq!(world.clock.now(), before, "nobody waited");
    world.breathes().await;
    world.origin.was_asked(2);
    world.slots(1, 0, 0);
    world.passes(SECOND).await;
    world.get("/").await.says("new");
    world.origin.was_asked(2);
    world.counts("vaxel_requests_total{cache=\"stale\"}", 50.0);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn a_refresh_that_fails_backs_off() {
    let world = world().origin(ok("old").cached("max-age=10, stale-while-revalidate=3600")).route("cache = true");
    let world = world.upstream("retry = false\nbreaker = false").opens();
    world.get("/").await.says("old");
    world.origin.now(status(500));
    world.passes(11 * SECOND).await;
    for _ in 0..600 {
        world.get("/").await.is(200).says("old");
        world.passes(ms(100)).await;
    }
    let refreshes = world.origin.asked() - 1;
    assert!((4..=9).contains(&refreshes), "{refreshes} refreshes in a minute of failure");
    world.origin.now(ok("new").cached("max-age=10"));
    world.passes(MINUTE).await;
    world.get("/").await.says("old");
    world.breathes().await;
    world.get("/").await.says("new");
    world.rests().await;
}

fn fragile() -> Reply {
    ok("old").cached("max-age=10, stale-if-error=600")
}

#[tokio::test(start_paused = true)]
async fn a_stale_answer_stands_in_for_a_server_error() {
    let world = world().origin(in_turn([fragile(), status(500)])).route("cache = true").upstream(NO_RETRY).opens();
    world.get("/").await.says("old");
    world.passes(11 * SECOND).await;
    let stale = world.get("/").await;
    stale.is(200).says("old").has("cache-status", "vaxel; fwd=stale; detail=stale_if_error");
    world.origin.was_asked(2);
    world.counts("vaxel_requests_total{cache=\"stale_error\"}", 1.0);
    world.passes(600 * SECOND).await;
    world.get("/").await.is(500);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn a_stale_answer_stands_in_for_a_timeout() {
    let world = world()
        .origin(in_turn([fragile(), hang()]))
        .route("cache = true")
        .upstream("timeouts = { head = \"1s\", total = \"2s\" }\nzombie_hold = \"5s\"")
        .opens();
    world.get("/").await.says("old");
    world.passes(11 * SECOND).await;
    world.get("/").await.is(200).says("old").has("age", "12");
    world.slots(0, 1, 0);
    world.passes(5 * SECOND).await;
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn a_stale_answer_stands_in_while_the_breaker_is_open() {
    let world = world()
        .origin(by(|seen| if seen.number == 0 { fragile() } else { status(502) }))
        .route("cache = true")
        .upstream("retry = false\nbreaker = { minimum = 2, failure_ratio = 0.5 }")
        .opens();
    world.get("/").await.says("old");
    world.passes(40 * SECOND).await;
    world.get("/other").await.is(502);
    world.get("/other").await.is(502);
    world.breaker("open");
    world.get("/").await.is(200).says("old");
    world.get("/other").await.is(503).refused("breaker.open");
    world.origin.was_asked(3);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn everybody_who_waited_gets_the_stale_answer_when_the_refresh_fails() {
    let world = world()
        .origin(in_turn([fragile(), status(500).after(SECOND)]))
        .route("cache = true")
        .upstream(NO_RETRY)
        .opens();
    world.get("/").await.says("old");
    world.passes(11 * SECOND).await;
    let visits: Vec<_> = (0..20).map(|_| world.get("/").goes()).collect();
    for visit in visits {
        visit.await.is(200).says("old");
    }
    world.origin.was_asked(2);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn what_must_be_revalidated_is_never_served_stale() {
    let strict = ok("old").cached("max-age=10, must-revalidate, stale-while-revalidate=600, stale-if-error=600");
    let world = world()
        .origin(in_turn([strict, status(500), hang()]))
        .route("cache = { stale_while_revalidate = \"1h\", stale_if_error = \"1h\" }")
        .upstream("retry = false\ntimeouts = { head = \"1s\", total = \"2s\" }\nzombie_hold = \"5s\"")
        .opens();
    world.get("/").await.says("old");
    world.passes(5 * SECOND).await;
    world.get("/").await.says("old");
    world.passes(6 * SECOND).await;
    world.get("/").await.is(500);
    world.get("/").await.is(504).refused("upstream.timeout");
    let eager = world.get("/").with("cache-control", "max-stale=600").await;
    eager.is(504).refused("upstream.timeout");
    world.passes(6 * SECOND).await;
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_accepts_stale_answers_gets_them() {
    let world = world().origin(ok("old").cached("max-age=10").with("etag", "\"1\"")).route("cache = true").opens();
    world.get("/").await.says("old");
    world.passes(30 * SECOND).await;
    world.get("/").with("cache-control", "max-stale=25").await.is(200).says("old").has("age", "30");
    world.origin.was_asked(1);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn a_failure_with_a_lifetime_spares_the_origin_the_next_requests() {
    let world = world().origin(status(503).cached("max-age=10")).route("cache = true").upstream(NO_RETRY).opens();
    world.get("/").await.is(503).has("cache-status", "vaxel; fwd=uri-miss; fwd-status=503; stored");
    world.breathes().await;
    world.get("/").await.is(503).has("cache-status", "vaxel; hit; ttl=10");
    world.origin.was_asked(1);
    world.passes(10 * SECOND).await;
    world.origin.now(status(503));
    for _ in 0..2 {
        world.get("/").await.is(503);
    }
    world.origin.was_asked(3);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn a_failure_with_a_lifetime_takes_no_answers_place() {
    let page = ok("page").cached("max-age=10").with("etag", "\"1\"");
    let validated = status(304).cached("max-age=10").with("etag", "\"1\"");
    let script = in_turn([page, status(503).cached("max-age=60"), validated]);
    let world = world().origin(script).route("cache = true").upstream(NO_RETRY).opens();
    world.get("/").await.says("page");
    world.passes(11 * SECOND).await;
    world.get("/").await.is(503).has("cache-status", "vaxel; fwd=stale; fwd-status=503; detail=status");
    world.get("/").await.is(200).says("page");
    assert_eq!(world.origin.last().field("if-none-match"), "\"1\"");
    world.origin.was_asked(3);
    world.rests().await;
}
