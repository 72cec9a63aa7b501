//! Rates that shape instead of cutting off: what is over them waits for its turn.

use crate::harness::{SECOND, by, ms, ok, world};

/// Ten in a second, one at a time, and nobody waits longer than half a second.
const SHAPED: &str = "rate = { limit = \"10/s\", burst = 1, excess = \"delay\", delay_max = \"500ms\" }";

const SHOP: &str = "[consumer.shop]\nidentify = { api_key = \"a-key-of-the-shop\" }\n";

#[tokio::test(start_paused = true)]
async fn what_is_over_the_rate_waits_for_its_turn_and_what_would_wait_too_long_is_refused() {
    let world = world().origin(ok("")).route(SHAPED).opens();
    let began = world.clock.now();
    let visits: Vec<_> = (0..7).map(|number| world.get(&format!("/{number}")).goes()).collect();
    world.breathes().await;
    world.origin.was_asked(1);
    let mut answers = Vec::new();
    for (turn, visit) in visits.into_iter().enumerate() {
        let answer = visit.await;
        let waited = world.clock.now() - began;
        if turn < 6 {
            answer.is(200).has("ratelimit", "\"route\";r=0;t=1");
            assert!(waited.abs_diff(ms(100 * turn as u64)) <= ms(1), "{turn}: {waited:?}");
        }
        answers.push(answer);
    }
    let refused = answers[6].is(429).refused("rate.exceeded");
    assert_eq!(refused.problem()["retry_after_ms"], 600);
    let targets: Vec<_> = world.origin.seen().iter().map(|seen| seen.target.clone()).collect();
    assert_eq!(targets, ["/0", "/1", "/2", "/3", "/4", "/5"], "in the order in which they came");
    world.counts("vaxel_rate_delays_total{route=\"all\"}", 5.0);
    assert!((world.metric("vaxel_rate_delay_seconds_total") - 1.5).abs() < 0.01);
    world.counts("vaxel_refusals_total{reason=\"rate.exceeded\"}", 1.0);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_while_it_is_held_back_leaves_nothing() {
    let quota = format!("{SHOP}quota = {{ limit = 9, per = \"day\" }}");
    let world = world().origin(ok("")).route(SHAPED).gateway(&quota).opens();
    let ask = || world.get("/").with("x-api-key", "a-key-of-the-shop");
    ask().await.is(200);
    let gone = ask().goes();
    world.passes(ms(30)).await;
    gone.leaves().await;
    world.counts("vaxel_client_aborts_total", 1.0);
    world.counts("vaxel_quota_used{consumer=\"shop\",per=\"day\"}", 1.0);
    let began = world.clock.now();
    ask().await.is(200).has("ratelimit", "\"route\";r=0;t=1, \"day\";r=7;t=57600");
    assert!((world.clock.now() - began).abs_diff(ms(70)) <= ms(1), "its place was given back");
    world.origin.was_asked(2);
    world.counts("vaxel_quota_used{consumer=\"shop\",per=\"day\"}", 2.0);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn a_quota_used_up_meanwhile_refuses_when_the_turn_has_come() {
    let keys = format!("{SHOP}quota = {{ limit = 2, per = \"day\" }}");
    let world = world().origin(ok("")).route(SHAPED).gateway(&keys).opens();
    let ask = || world.get("/").with("x-api-key", "a-key-of-the-shop").goes();
    let [first, second, third] = [ask(), ask(), ask()];
    first.await.is(200);
    second.await.is(200);
    third.await.is(429).refused("quota.day");
    ask().await.is(429).refused("quota.day");
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn both_rates_are_kept_one_after_the_other() {
    let consumer = format!("{SHOP}rate = {{ limit = \"20/s\", burst = 1, excess = \"delay\", delay_max = \"10s\" }}");
    let route = "rate = { limit = \"10/s\", burst = 1, excess = \"delay\", delay_max = \"10s\" }";
    let world = world().origin(ok("")).route(route).gateway(&consumer).opens();
    let began = world.clock.now();
    let visits: Vec<_> = (0..5).map(|_| world.get("/").with("x-api-key", "a-key-of-the-shop").goes()).collect();
    for (turn, visit) in visits.into_iter().enumerate() {
        visit.await.is(200);
        let waited = world.clock.now() - began;
        assert!(waited.abs_diff(ms(100 * turn as u64)) <= ms(2), "{turn}: {waited:?}");
    }
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn nobody_is_held_back_longer_than_he_waits() {
    let world = world().origin(ok("")).route(SHAPED).route("deadline = \"x-timeout-ms\"").opens();
    world.get("/").await.is(200);
    let began = world.clock.now();
    world.get("/").with("x-timeout-ms", "50").await.is(429).refused("rate.exceeded");
    assert_eq!(world.clock.now(), began, "at once");
    world.get("/").with("x-timeout-ms", "5000").await.is(200);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn freshness_is_judged_when_the_turn_has_come() {
    let script = by(|seen| ok(format!("{}", seen.number)).cached("max-age=1"));
    let route = "cache = true\nrate = { limit = \"1/s\", burst = 2, excess = \"delay\", delay_max = \"5s\" }";
    let world = world().origin(script).route(route).opens();
    let first = world.get("/").await.body;
    world.get("/").await.is(200);
    world.origin.was_asked(1);
    let delayed = world.get("/").await;
    assert_ne!(delayed.is(200).body, first, "it was fresh when it came, and is not when its turn has come");
    world.origin.was_asked(2);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn in_shadow_nobody_waits_and_what_would_have_is_counted() {
    let world = world().origin(ok("")).route(&SHAPED.replace(" }", ", mode = \"shadow\" }")).opens();
    let began = world.clock.now();
    for _ in 0..8 {
        world.get("/").await.is(200).lacks("ratelimit");
    }
    assert_eq!(world.clock.now(), began);
    world.counts("vaxel_shadow_waits_total{route=\"all\",policy=\"rate\"}", 5.0);
    world.counts("vaxel_shadow_refusals_total{route=\"all\",reason=\"rate.exceeded\"}", 2.0);
    world.counts("vaxel_rate_delays_total", 0.0);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn only_so_many_are_held_back_at_once() {
    let route = "rate = { limit = \"1/m\", excess = \"delay\", delay_max = \"5m\", delayed_max = 2 }";
    let world = world().origin(ok("")).route(route).opens();
    let clients: Vec<_> = (1..=3).map(|host| world.client_at(std::net::Ipv4Addr::new(10, 0, 0, host))).collect();
    for client in &clients {
        client.get("/").await.is(200);
    }
    let held = [clients[0].get("/").goes(), clients[1].get("/").goes()];
    world.breathes().await;
    clients[2].get("/").await.is(429);
    let [first, second] = held;
    first.leaves().await;
    let third = clients[2].get("/").goes();
    world.passes(61 * SECOND).await;
    second.await.is(200);
    third.await.is(200);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn a_request_that_was_held_back_is_told_of_it() {
    let world = world().origin(ok("")).route(SHAPED).opens();
    world.get("/").await.is(200);
    world.get("/").await.is(200);
    let account = &world.handle.accounts(1, Some("waited"))[0];
    assert!(account.view()["delay_ms"].as_f64().unwrap() > 99.0);
    let story = account.story();
    for sentence in ["rate: over that of the route (0 more at once", "rate: held back until its turn, 100"] {
        assert!(story.iter().any(|told| told.contains(sentence)), "{story:#?}");
    }
    world.rests().await;
}
