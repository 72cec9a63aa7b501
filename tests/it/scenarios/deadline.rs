//! A caller says how long it waits: nothing is done for it after that, and the upstream is told what is left.

use crate::harness::{Plan, SECOND, hang, in_turn, ms, ok, refused, reset, status, world};

const FIELD: &str = "x-timeout-ms";

fn plan() -> Plan {
    world().route("deadline = \"x-timeout-ms\"").upstream("slots = 1\nqueue = { timeout = \"10s\" }")
}

#[tokio::test(start_paused = true)]
async fn the_upstream_is_told_what_is_left_after_the_queue() {
    let world = plan().origin(ok("done").after(SECOND)).opens();
    let first = world.get("/").with(FIELD, "5000").goes();
    world.breathes().await;
    world.get("/").with(FIELD, "5000").await.is(200);
    first.await.is(200);
    let told: Vec<_> = world.origin.seen().iter().map(|seen| seen.field(FIELD).to_owned()).collect();
    assert_eq!(told, ["5000", "4000"]);
    world.get("/").with(FIELD, "2S").await.is(200);
    assert_eq!(world.origin.last().field(FIELD), "2000m");
    world.get("/").with(FIELD, "3600000").await.is(200);
    assert_eq!(world.origin.last().field(FIELD), "60000", "no exchange takes longer");
    world.get("/").with(FIELD, "soon").await.is(200);
    assert_eq!(world.origin.last().field(FIELD), "soon", "what is not understood passes");
    world.get("/").await.is(200);
    assert_eq!(world.origin.last().field(FIELD), "");
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn a_deadline_ends_the_wait_for_an_answer_and_teaches_nothing() {
    let world = plan().upstream("retry = false\nbreaker = { minimum = 2, zombie_share = 1.0 }").origin(hang()).opens();
    let before = world.clock.now();
    for _ in 0..3 {
        world
            .get("/")
            .with(FIELD, "500")
            .await
            .is(504)
            .refused("deadline.exceeded")
            .has("proxy-status", "vaxel; error=http_response_timeout; details=\"deadline.exceeded\"");
    }
    assert_eq!(world.clock.now() - before, ms(1500));
    world.origin.was_asked(1);
    world.slots(0, 1, 0);
    world.breaker("closed");
    world.passes(121 * SECOND).await;
    world.counts("vaxel_upstream_attempts_total{outcome=\"broken\"}", 0.0);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_over_when_it_comes_is_refused_at_once_and_never_sent() {
    for cache in ["cache = false", "cache = true"] {
        let world = plan().route(cache).origin(ok("")).opens();
        world.get("/").with(FIELD, "0").await.is(504).refused("deadline.exceeded");
        world.origin.was_asked(0);
        world.rests().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_retry_that_would_come_too_late_is_not_made() {
    let late = status(502).with("retry-after", "2");
    let world = plan().upstream("retry = { backoff = \"1ms\" }").origin(in_turn([late, ok("good")])).opens();
    world.get("/").with(FIELD, "1000").await.is(502);
    world.origin.was_asked(1);
    world.rests().await;
    let world = plan().origin(in_turn([refused(), ok("good")])).opens();
    world.get("/").with(FIELD, "1000").await.is(200).says("good");
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn a_body_ends_at_the_deadline_and_its_slot_stays_until_the_origin_ends() {
    let world = plan().origin(ok("begun").then(3 * SECOND, "-done").unannounced()).opens();
    let before = world.clock.now();
    let answer = world.get("/").with(FIELD, "1000").await;
    assert!(answer.broken);
    answer.says("begun");
    assert_eq!(world.clock.now() - before, SECOND);
    world.slots(0, 1, 0);
    world.passes(3 * SECOND).await;
    world.counts("vaxel_upstream_attempts_total{outcome=\"ok\"}", 1.0);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_fetched_for_all_goes_on_without_the_impatient_one() {
    let world = plan().route("cache = true").origin(ok("good").cached("max-age=60").after(2 * SECOND)).opens();
    let leader = world.get("/").with(FIELD, "500").goes();
    world.breathes().await;
    let impatient = world.get("/").with(FIELD, "800").goes();
    let patient = world.get("/").goes();
    leader.await.is(504).refused("deadline.exceeded");
    impatient.await.is(504).refused("deadline.exceeded");
    patient.await.is(200).says("good");
    world.origin.was_asked(1);
    assert_eq!(world.origin.last().field(FIELD), "", "it is not the others'");
    world.get("/").with(FIELD, "0").await.is(200).says("good");
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn a_stale_answer_stands_in_when_the_deadline_passes() {
    let old = ok("old").cached("max-age=1, stale-if-error=600");
    let world = plan().route("cache = true").origin(in_turn([old, ok("new").after(5 * SECOND)])).opens();
    world.get("/").await.is(200);
    world.passes(10 * SECOND).await;
    let answer = world.get("/").with(FIELD, "1000").await;
    answer.is(200).says("old").has("cache-status", "vaxel; hit; ttl=-10; detail=stale_if_error");
    world.passes(5 * SECOND).await;
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn without_the_key_the_field_means_nothing() {
    let world = world().origin(in_turn([ok("good"), reset()])).opens();
    world.get("/").with(FIELD, "0").await.is(200);
    assert_eq!(world.origin.last().field(FIELD), "0");
    world.rests().await;
}
