//! Each consumer's rate.

use std::net::Ipv4Addr;

use crate::harness::{Config, SECOND, ms, ok, world};

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
async fn whoever_has_a_network_of_ipv6_addresses_is_one() {
    let world = world().origin(ok("")).route("rate = { limit = \"1/s\" }").opens();
    let at = |address: &str| world.client_at(address.parse::<std::net::Ipv6Addr>().unwrap());
    at("2001:db8:1:2::1").get("/").await.is(200);
    at("2001:db8:1:2:ffff::7").get("/").await.is(429);
    at("2001:db8:1:3::1").get("/").await.is(200);
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

#[tokio::test(start_paused = true)]
async fn older_clients_are_told_by_the_fields_they_know() {
    let fields = |fields: &str| format!("[limits]\nfields = \"{fields}\"\n");
    let shop =
        "[consumer.shop]\nidentify = { api_key = \"a-key-of-the-shop\" }\nquota = { limit = 3, per = \"day\" }\n";
    let tables = format!("{}{shop}", fields("both"));
    let world = world().origin(ok("")).route("rate = { limit = \"2/s\", burst = 3 }").gateway(&tables).opens();
    let ask = || world.get("/").with("x-api-key", "a-key-of-the-shop");
    let first = ask().await;
    first.is(200).has("ratelimit", "\"route\";r=2;t=1, \"day\";r=2;t=57600");
    first.has("x-ratelimit-limit", "3").has("x-ratelimit-remaining", "2").has("x-ratelimit-reset", "1");
    world.passes(10 * SECOND).await;
    ask().await.is(200).has("x-ratelimit-remaining", "1").has("x-ratelimit-reset", "57590");
    ask().await.is(200);
    let over = ask().await;
    over.is(429).refused("quota.day").has("x-ratelimit-limit", "3").has("x-ratelimit-remaining", "0");
    over.has("x-ratelimit-reset", "57590").has("retry-after", "57590");
    let config = |fields: String| Config::default().route("rate = { limit = \"2/s\", burst = 3 }").more(&fields);
    world.reload(&config(fields("x-ratelimit"))).unwrap();
    world.get("/").await.is(200).lacks("ratelimit").has("x-ratelimit-remaining", "2");
    world.reload(&config(fields("off"))).unwrap();
    world.get("/").await.is(200).lacks("ratelimit").lacks("ratelimit-policy").lacks("x-ratelimit-limit");
    world.origin.now(ok("").with("x-ratelimit-limit", "7"));
    world.reload(&config(fields("x-ratelimit"))).unwrap();
    world.get("/").await.is(200).has("x-ratelimit-limit", "7").lacks("x-ratelimit-remaining");
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn a_reload_that_reorders_consumers_and_routes_leaves_each_its_own_record() {
    let consumer = |name: &str| format!("[consumer.{name}]\nidentify = {{ api_key = \"a-key-of-the-{name}\" }}\n");
    let side = |side: &str| {
        format!(
            "[[route]]\nupstream = \"erp\"\nmatch = {{ path = \"/same\", headers = {{ x-side = \"{side}\" }} }}\nrate = {{ limit = \"1/m\" }}\n"
        )
    };
    let rate = "rate = { limit = \"1/m\" }";
    let config = |tables: [String; 4]| Config::default().route(rate).more(&tables.concat());
    let [shop, mill, one, other] = [consumer("shop"), consumer("mill"), side("one"), side("other")];
    let tables = [shop.clone(), mill.clone(), one.clone(), other.clone()];
    let world = world().origin(ok("")).route(rate).gateway(&tables.concat()).opens();
    let ask = |name: &str| world.get("/").with("x-api-key", &format!("a-key-of-the-{name}"));
    ask("shop").await.is(200);
    let same = |side: &str| world.get("/same").with("x-side", side);
    same("one").await.is(200);
    world.reload(&config([mill, shop, other, one])).unwrap();
    ask("shop").await.is(429);
    ask("mill").await.is(200);
    same("one").await.is(429);
    same("other").await.is(200);
    world.rests().await;
}
