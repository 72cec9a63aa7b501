//! What is safe is tried again, within a budget; what is not never is.

use crate::harness::{SECOND, in_turn, ms, ok, refused, reset, status, world};

#[tokio::test(start_paused = true)]
async fn an_idempotent_request_is_tried_again() {
    for (first, method) in [
        (refused(), "GET"),
        (reset(), "GET"),
        (status(500), "GET"),
        (reset(), "HEAD"),
        (reset(), "DELETE"),
        (reset(), "PUT"),
    ] {
        let world = world().origin(in_turn([first, ok("second try")])).opens();
        world.asks(method, "/").saying("what is asked").await.is(200);
        world.origin.was_asked(2);
        let bodies: Vec<_> = world.origin.seen().into_iter().map(|seen| seen.body).collect();
        assert_eq!(bodies, ["what is asked", "what is asked"], "{method}");
        world.counts("vaxel_upstream_retries_total", 1.0);
        world.counts("vaxel_requests_total", 1.0);
        world.rests().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_fill_is_tried_again() {
    let world = world().origin(in_turn([reset(), ok("hello").cached("max-age=60")])).route("cache = true").opens();
    world.get("/").await.is(200).says("hello");
    world.breathes().await;
    world.get("/").await.is(200).says("hello");
    world.origin.was_asked(2);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn a_post_that_may_have_arrived_is_never_repeated() {
    for (failure, expected) in [(reset(), 502), (status(500), 500), (status(503).with("retry-after", "1"), 503)] {
        let world = world().origin(failure).opens();
        world.asks("POST", "/order").saying("one ton of steel").await.is(expected);
        world.passes(10 * SECOND).await;
        world.origin.was_asked(1);
        world.rests().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_post_tunnelled_through_a_get_is_never_repeated() {
    let world = world().origin(reset()).opens();
    world.get("/order").with("x-http-method-override", "POST").await.is(502);
    world.origin.was_asked(1);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn a_post_that_was_not_sent_may_be_tried_again() {
    let world = world().origin(in_turn([refused(), ok("done")])).opens();
    world.asks("POST", "/order").await.is(200).says("done");
    world.origin.was_asked(2);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn retries_stay_within_their_budget() {
    let world = world().origin(reset()).upstream("breaker = false\nretry = { attempts = 3, budget = 0.1 }").opens();
    for _ in 0..100 {
        world.get("/").await.is(502);
    }
    let retries = world.origin.asked() - 100;
    assert!((1..=10).contains(&retries), "{retries}");
    world.counts("vaxel_upstream_retries_total", retries as f64);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn the_origins_retry_after_is_honoured() {
    let world = world().origin(in_turn([status(503).with("retry-after", "3"), ok("well")])).opens();
    let begun = world.clock.now();
    world.get("/").await.is(200).says("well");
    assert!(world.clock.now() - begun >= 3 * SECOND);
    world.slots(0, 0, 0);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn a_retry_after_may_be_a_date() {
    // The world begins on this day at 08:00:00.
    let later = status(503).with("retry-after", "Fri, 15 Jan 2027 08:00:04 GMT");
    let world = world().origin(in_turn([later, ok("well")])).opens();
    let begun = world.clock.now();
    world.get("/").await.is(200).says("well");
    let waited = world.clock.now() - begun;
    assert!((4 * SECOND..=4 * SECOND + ms(100)).contains(&waited), "{waited:?}, the jitter on top");
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn a_retry_that_would_come_too_late_is_not_waited_for() {
    let world = world()
        .origin(status(503).with("retry-after", "120"))
        .upstream("timeouts = { head = \"5s\", total = \"10s\" }")
        .opens();
    let begun = world.clock.now();
    world.get("/").await.is(503).has("retry-after", "120");
    assert_eq!(world.clock.now(), begun);
    world.origin.was_asked(1);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn an_overloaded_origin_that_does_not_say_when_is_not_asked_again() {
    let world = world().origin(status(503)).opens();
    world.get("/").await.is(503);
    world.origin.was_asked(1);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn no_slot_is_held_while_a_retry_waits() {
    let world = world()
        .origin(in_turn([status(503).with("retry-after", "5"), ok("other"), ok("again")]))
        .upstream("slots = 1")
        .opens();
    let first = world.get("/first").goes();
    world.passes(SECOND).await;
    world.slots(0, 0, 0);
    world.get("/second").await.is(200).says("other");
    first.await.is(200).says("again");
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn every_attempt_teaches_the_breaker() {
    // The first answers are read to their end though they are not passed on.
    let failing = status(500).then(ms(1), "an error page").unannounced();
    let world = world().origin(failing).upstream("retry = { attempts = 2, budget = 1.0 }").opens();
    world.get("/").await.is(500).says("an error page");
    world.passes(SECOND).await;
    world.counts("vaxel_upstream_attempts_total{outcome=\"broken\"}", 2.0);
    world.rests().await;
}
