//! A client that leaves and a timeout that fires do not stop the backend: its slot stays taken until it has ended.

use crate::harness::{SECOND, hang, in_turn, ms, ok, world};

#[tokio::test(start_paused = true)]
async fn a_slot_whose_client_has_left_stays_taken_until_the_origin_ends() {
    let world =
        world().origin(ok("late").after(10 * SECOND)).upstream("slots = 1\nqueue = { timeout = \"1m\" }").opens();
    let impatient = world.get("/").goes();
    world.passes(SECOND).await;
    world.slots(1, 0, 0);
    impatient.leaves().await;
    world.slots(0, 1, 0);
    let next = world.get("/").goes();
    world.passes(SECOND).await;
    assert_eq!((world.origin.running(), world.origin.asked()), (1, 1), "the origin is protected from the next one");
    world.passes(8 * SECOND).await;
    world.slots(1, 0, 0);
    next.leaves().await;
    world.passes(10 * SECOND).await;
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_comes_after_the_timeout_is_harvested() {
    let world = world()
        .origin(ok("late").cached("max-age=60").after(10 * SECOND))
        .route("cache = true")
        .upstream("timeouts = { head = \"4s\", total = \"8s\" }")
        .opens();
    world.get("/").await.is(504).refused("upstream.timeout");
    world.slots(0, 1, 0);
    world.counts("vaxel_zombies_total", 1.0);
    world.counts("vaxel_cache_harvests_total", 0.0);
    world.passes(6 * SECOND).await;
    world.slots(0, 0, 0);
    world.counts("vaxel_cache_harvests_total", 1.0);
    world.get("/").await.is(200).says("late").has("cache-status", "vaxel; hit; ttl=50");
    world.origin.was_asked(1);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_whose_client_has_left_is_harvested() {
    let world = world().origin(ok("late").cached("max-age=60").after(10 * SECOND)).route("cache = true").opens();
    let impatient = world.get("/").goes();
    world.passes(SECOND).await;
    impatient.leaves().await;
    world.passes(10 * SECOND).await;
    world.slots(0, 0, 0);
    world.get("/").await.is(200).says("late").has("cache-status", "vaxel; hit; ttl=49");
    world.origin.was_asked(1);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn a_late_answer_for_one_user_is_not_harvested() {
    let world = world()
        .origin(ok("late").cached("private, max-age=60").after(10 * SECOND))
        .route("cache = true")
        .upstream("timeouts = { head = \"4s\", total = \"8s\" }")
        .opens();
    world.get("/").await.is(504);
    world.passes(6 * SECOND).await;
    world.counts("vaxel_cache_entries", 0.0);
    world.counts("vaxel_cache_harvests_total", 0.0);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn a_head_that_does_not_come_in_time_is_a_504_and_a_zombie() {
    let world =
        world().origin(hang()).upstream("timeouts = { head = \"3s\", total = \"9s\" }\nzombie_hold = \"20s\"").opens();
    let begun = world.clock.now();
    let late = world.get("/").await;
    assert_eq!(world.clock.now() - begun, 3 * SECOND);
    late.is(504).refused("upstream.timeout").has("proxy-status", "vaxel; error=http_response_timeout");
    world.slots(0, 1, 0);
    world.counts("vaxel_upstream_attempts_total{outcome=\"broken\"}", 1.0);
    world.passes(19 * SECOND).await;
    world.slots(0, 1, 0);
    world.passes(2 * SECOND).await;
    world.slots(0, 0, 0);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn a_zombie_is_given_up_after_its_hold() {
    let world = world().origin(in_turn([hang(), ok("well")])).upstream("slots = 1\nzombie_hold = \"5s\"").opens();
    let impatient = world.get("/").goes();
    world.passes(SECOND).await;
    impatient.leaves().await;
    let next = world.get("/").goes();
    world.passes(SECOND).await;
    assert!(!next.is_done());
    next.leaves().await;
    world.passes(4 * SECOND).await;
    world.slots(0, 0, 0);
    world.get("/").await.is(200).says("well");
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn the_rest_of_a_body_whose_reader_has_left_is_read_on() {
    let world = world().origin(ok("first ").then(10 * SECOND, "second")).upstream("slots = 1").opens();
    let mut answer = world.get("/").opens().await;
    assert_eq!(answer.piece().await, "first ");
    drop(answer);
    world.breathes().await;
    world.slots(0, 1, 0);
    world.passes(9 * SECOND).await;
    world.slots(0, 1, 0);
    world.passes(SECOND).await;
    world.slots(0, 0, 0);
    world.counts("vaxel_client_aborts_total", 1.0);
    world.counts("vaxel_upstream_attempts_total{outcome=\"ok\"}", 1.0);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn the_body_of_a_fetch_on_behalf_of_head_holds_its_slot() {
    let page = ok("page").cached("max-age=1").with("etag", "\"1\"");
    let personal = ok("first ").then(5 * SECOND, "second").cached("private");
    let world = world().origin(in_turn([page, personal])).route("cache = true").opens();
    world.get("/").await.is(200);
    world.passes(2 * SECOND).await;
    world.asks("HEAD", "/").await.is(200).says("");
    world.slots(0, 1, 0);
    world.passes(5 * SECOND).await;
    world.slots(0, 0, 0);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn a_body_that_stops_for_good_ends_the_exchange() {
    let world = world().origin(ok("half").stalls()).upstream("timeouts = { head = \"3s\", total = \"9s\" }").opens();
    let answer = world.get("/").await;
    assert!(answer.broken && answer.body == "half", "{answer:?}");
    world.counts("vaxel_upstream_attempts_total{outcome=\"broken\"}", 1.0);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_before_the_head_is_counted() {
    let world = world().origin(ok("").after(ms(200))).opens();
    let impatient = world.get("/").goes();
    world.passes(ms(100)).await;
    impatient.leaves().await;
    world.counts("vaxel_client_aborts_total{route=\"all\"}", 1.0);
    world.counts("vaxel_requests_total{route=\"all\"}", 1.0);
    world.passes(ms(100)).await;
    world.rests().await;
}
