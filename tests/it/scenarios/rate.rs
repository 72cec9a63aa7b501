//! Each consumer's rate.

use std::net::Ipv4Addr;

use crate::harness::{SECOND, ms, ok, world};

#[tokio::test(start_paused = true)]
async fn a_consumer_over_its_rate_is_told_when_to_come_back() {
    let world = world().origin(ok("")).route("rate = { limit = \"2/s\", burst = 3 }").opens();
    for left in ["2", "1", "0"] {
        let answer = world.get("/").await;
        answer.is(200).has("ratelimit-policy", "\"route\";q=2;w=1;qu=\"requests\"");
        assert!(answer.field("ratelimit").starts_with(&format!("\"route\";r={left};t=")), "{answer:?}");
    }
    let over = world.get("/").await;
    over.is(429).refused("rate.exceeded").has("ratelimit-policy", "\"route\";q=2;w=1;qu=\"requests\"");
    assert!(over.field("ratelimit").starts_with("\"route\";r=0;t="), "{over:?}");
    assert_eq!(over.retry_after(), 1);
    world.origin.was_asked(3);
    world.counts("vaxel_refusals_total{reason=\"rate.exceeded\"}", 1.0);
    world.passes(ms(500)).await;
    world.get("/").await.is(200);
    world.get("/").await.is(429);
    world.passes(10 * SECOND).await;
    for _ in 0..3 {
        world.get("/").await.is(200);
    }
    world.get("/").await.is(429);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn one_clients_excess_is_not_anothers() {
    let world = world().origin(ok("")).route("rate = { limit = \"1/s\" }").opens();
    let [one, other] = [1, 2].map(|host| world.client_at(Ipv4Addr::new(10, 0, 0, host)));
    one.get("/").await.is(200);
    one.get("/").await.is(429);
    other.get("/").await.is(200);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn a_costly_route_takes_more_of_the_rate() {
    let world = world().origin(ok("")).route("cost = 5\nrate = { limit = \"10/s\", burst = 10 }").opens();
    world.get("/report").await.is(200);
    world.get("/report").await.is(200);
    world.get("/report").await.is(429);
    world.passes(ms(500)).await;
    world.get("/report").await.is(200);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn a_hit_counts_against_the_rate_as_well() {
    let world = world()
        .origin(ok("hello").cached("max-age=60"))
        .route("cache = true\nrate = { limit = \"1/s\", burst = 2 }")
        .opens();
    world.get("/").await.is(200);
    world.breathes().await;
    world.get("/").await.is(200);
    world.get("/").await.is(429).refused("rate.exceeded");
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn a_route_may_ask_for_a_known_consumer() {
    let world = world()
        .origin(ok(""))
        .route("require_consumer = true")
        .gateway("[consumer.shop]\nidentify = { api_key = \"a-key-of-the-shop\" }")
        .opens();
    let unknown = world.get("/").await;
    unknown.is(401).refused("consumer.unknown");
    assert!(!unknown.field("www-authenticate").is_empty());
    world.get("/").with("x-api-key", "another-key-here").await.is(401);
    world.get("/").with("x-api-key", "a-key-of-the-shop").await.is(200);
    world.origin.was_asked(1);
    world.counts("vaxel_consumer_requests_total{consumer=\"shop\",result=\"served\"}", 1.0);
    world.rests().await;
}
