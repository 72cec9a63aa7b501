//! Policies in shadow mode: what they would refuse is counted, and nothing changes.

use vaxel::breaker::Hold;
use vaxel::gateway::steer::Steer;

use crate::harness::{Config, SECOND, World, by, ms, ok, status, world};

const SHADOWED: &str = "vaxel_shadow_refusals_total";

#[track_caller]
fn nothing_was_refused(world: &World) {
    world.counts("vaxel_refusals_total", 0.0);
}

#[tokio::test(start_paused = true)]
async fn a_rate_in_shadow_refuses_nobody_and_tells_clients_nothing() {
    let world = world().origin(ok("")).route("rate = { limit = \"1/s\", mode = \"shadow\" }").opens();
    for _ in 0..3 {
        world.get("/").await.is(200).lacks("ratelimit").lacks("ratelimit-policy");
    }
    world.counts(&format!("{SHADOWED}{{route=\"all\",reason=\"rate.exceeded\"}}"), 2.0);
    nothing_was_refused(&world);
    world.origin.was_asked(3);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn a_consumers_rate_in_shadow_leaves_the_routes_in_force() {
    let shop = "\n[consumer.shop]\nidentify = { api_key = \"a-key-of-the-shop\" }\nrate = { limit = \"1/s\", mode = \"shadow\" }\n";
    let world = world().origin(ok("")).route("rate = { limit = \"3/s\" }").gateway(shop).opens();
    let ask = || world.get("/").with("x-api-key", "a-key-of-the-shop");
    for left in ["2", "1", "0"] {
        assert!(ask().await.is(200).field("ratelimit").starts_with(&format!("\"route\";r={left};")));
    }
    ask().await.is(429).refused("rate.exceeded");
    world.counts(&format!("{SHADOWED}{{reason=\"rate.exceeded\"}}"), 3.0);
    world.origin.was_asked(3);
    world.rests().await;
}

const BREAKER: &str = "retry = false\nbreaker = { minimum = 4, open = \"5s\", trials = 2, mode = \"shadow\" }";

fn breaker(world: &World) -> &'static str {
    world.handle.upstreams_report()[0].breaker.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_breaker_in_shadow_opens_and_everything_passes() {
    let world = world().origin(status(500)).upstream(BREAKER).opens();
    for _ in 0..4 {
        world.get("/").await.is(500);
    }
    assert_eq!(breaker(&world), "open");
    for _ in 0..3 {
        world.get("/").await.is(500);
    }
    world.asks("POST", "/").await.is(500);
    world.counts(&format!("{SHADOWED}{{route=\"all\",reason=\"breaker.open\"}}"), 4.0);
    nothing_was_refused(&world);
    world.origin.was_asked(8);
    world.origin.now(ok("well"));
    world.passes(6 * SECOND).await;
    assert_eq!(breaker(&world), "half_open");
    for _ in 0..2 {
        world.get("/").await.is(200);
    }
    assert_eq!(breaker(&world), "closed", "its trials went well");
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn a_breaker_in_shadow_parks_nobody_and_hides_no_failures_from_the_gears() {
    let world = world().origin(status(500)).upstream(BREAKER).opens();
    for _ in 0..4 {
        for _ in 0..12 {
            world.get("/").await.is(500);
        }
        assert_eq!(breaker(&world), "open");
        world.passes(SECOND).await;
        world.observes();
    }
    let report = &world.handle.upstreams_report()[0];
    assert_eq!((report.gear, report.cause), ("limp", "failures"));
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn an_operators_hold_counts_in_shadow_too() {
    let world = world().origin(ok("")).upstream(BREAKER).opens();
    world.handle.steer("erp", Steer::Breaker(Hold::Open)).unwrap();
    world.get("/").await.is(503).refused("breaker.open");
    world.handle.steer("erp", Steer::ReleaseBreaker).unwrap();
    world.observes();
    world.get("/").await.is(200);
    world.counts(SHADOWED, 0.0);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn what_a_shadow_would_have_refused_is_told() {
    let upstream = "retry = false\nbreaker = { minimum = 1, mode = \"shadow\" }";
    let world =
        world().origin(status(502)).upstream(upstream).route("rate = { limit = \"1/s\", mode = \"shadow\" }").opens();
    for _ in 0..2 {
        world.get("/").await.is(502);
    }
    let account = &world.handle.accounts(1, Some("failed"))[0];
    let story = account.story();
    for sentence in ["rate: over that of the route; in shadow mode", "breaker open; in shadow mode"] {
        assert!(story.iter().any(|told| told.contains(sentence)), "{story:#?}");
    }
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn a_quota_in_shadow_refuses_nobody_and_is_charged_on() {
    let shop = "[consumer.shop]\nidentify = { api_key = \"a-key-of-the-shop\" }\n\
        quota = [{ limit = 1, per = \"hour\", mode = \"shadow\" }, { limit = 4, per = \"day\" }]";
    let world = world().origin(ok("")).gateway(shop).opens();
    let ask = || world.get("/").with("x-api-key", "a-key-of-the-shop");
    for left in ["3", "2", "1", "0"] {
        ask().await.is(200).has("ratelimit", &format!("\"day\";r={left};t=57600"));
    }
    ask().await.is(429).refused("quota.day");
    world.counts(&format!("{SHADOWED}{{route=\"all\",reason=\"quota.hour\"}}"), 3.0);
    world.counts("vaxel_quota_used{consumer=\"shop\",per=\"hour\"}", 4.0);
    let story = world.handle.accounts(1, Some("refused"))[0].story();
    for sentence in ["quota: beyond that of the hour (4 of 1 used", "quota: beyond that of the day (4 of 4 used"] {
        assert!(story.iter().any(|told| told.contains(sentence)), "{story:#?}");
    }
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn slots_in_shadow_hold_nothing_back_and_say_what_they_would_have() {
    let upstream =
        "slots = 2\nqueue = { max = 3, timeout = \"1s\", mode = \"shadow\" }\nendpoint_slots = 1\nbreaker = false";
    let world = world().origin(ok("").after(ms(200))).upstream(upstream).opens();
    let visits: Vec<_> = (0..7).map(|number| world.get(&format!("/{number}")).goes()).collect();
    world.breathes().await;
    assert_eq!(world.origin.running(), 7);
    world.slots(7, 0, 0);
    for visit in visits {
        visit.await.is(200);
    }
    // With one slot at the only endpoint: one had it, three would have waited, and there was no place for the others.
    world.counts("vaxel_shadow_waits_total{route=\"all\",policy=\"queue\"}", 3.0);
    world.counts(&format!("{SHADOWED}{{route=\"all\",reason=\"queue.full\"}}"), 3.0);
    nothing_was_refused(&world);
    world.rests().await;
}

#[test]
fn slots_in_shadow_are_warned_of() {
    let text = Config::default().upstream("queue = { mode = \"shadow\" }").text();
    let warnings = vaxel::config::parse(&text, "a.toml").unwrap().warnings.to_string();
    assert!(warnings.contains("NOT PROTECTED"), "{warnings}");
}

#[tokio::test(start_paused = true)]
async fn a_gear_in_shadow_counts_whom_it_would_have_refused() {
    let upstream = "retry = false\nbreaker = { failure_ratio = 1.0 }\ngears = { mode = \"shadow\" }";
    let route = "class = \"batch\"";
    let script = by(|seen| status(if seen.number % 5 < 2 { 500 } else { 200 }));
    let world = world().origin(script).upstream(upstream).route(route).opens();
    for _ in 0..5 {
        for _ in 0..10 {
            world.get("/").await;
        }
        world.passes(SECOND).await;
        world.observes();
    }
    let before = world.metric(&format!("{SHADOWED}{{route=\"all\",reason=\"gear.limp\"}}"));
    world.get("/").await;
    world.counts(&format!("{SHADOWED}{{route=\"all\",reason=\"gear.limp\"}}"), before + 1.0);
    nothing_was_refused(&world);
    let report = &world.handle.upstreams_report()[0];
    assert_eq!(report.gear, "drive");
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn a_window_in_shadow_spares_nobody_and_counts_whom_it_would_have_refused() {
    // The clock of a scenario begins at 08:00 UTC.
    let window = |gear: &str| {
        format!(
            "[window.morning]\nupstreams = \"erp\"\nfrom = \"07:00\"\nto = \"09:00\"\ngear = \"{gear}\"\nmode = \"shadow\"\n"
        )
    };
    let world = world().origin(ok("")).gateway(&window("eco")).opens();
    world.observes();
    world.get("/").await.is(200);
    world.asks("POST", "/").await.is(200);
    world.counts(&format!("{SHADOWED}{{route=\"all\",reason=\"window.writes\"}}"), 1.0);
    world.counts(SHADOWED, 1.0);
    world.reload(&Config::default().more(&window("park"))).unwrap();
    world.observes();
    world.get("/").await.is(200);
    world.counts(&format!("{SHADOWED}{{route=\"all\",reason=\"gear.park\"}}"), 1.0);
    assert_eq!(world.handle.upstreams_report()[0].gear, "drive");
    nothing_was_refused(&world);
    world.passes(2 * 60 * crate::harness::MINUTE).await;
    world.observes();
    world.asks("POST", "/").await.is(200);
    world.counts(SHADOWED, 2.0);
    world.rests().await;
}
