//! An upstream is spared: by itself under strain, by the calendar, by an operator.

use vaxel::gateway::steer::Steer;
use vaxel::gear::Gear;

use crate::harness::{MINUTE, SECOND, World, in_turn, ok, status, world};

/// Ten minutes from now on (it is Friday, 2027-01-15, 08:00 UTC), after a lead and before a ramp of five.
const WINDOW: &str = "[window.maintenance]\nupstreams = \"erp\"\ndays = \"fri\"\nfrom = \"08:10\"\nto = \"08:20\"\n\
                      lead = \"5m\"\nramp = \"5m\"\n";

/// Time goes by, and the upstream is observed once a second.
async fn drives(world: &World, seconds: u32) {
    for _ in 0..seconds {
        world.passes(SECOND).await;
        world.observes();
    }
}

#[track_caller]
fn gear(world: &World, gear: &str) {
    world.counts(&format!("vaxel_gear_state{{upstream=\"erp\",gear=\"{gear}\"}}"), 1.0);
}

#[tokio::test(start_paused = true)]
async fn in_a_window_reads_are_stale_and_writes_are_told_when_it_ends() {
    let world = world().origin(ok("stored").cached("max-age=10, stale-if-error=3600"));
    let world = world.route("cache = true").gateway(WINDOW).opens();
    world.get("/").await.says("stored");
    drives(&world, 600).await;
    gear(&world, "park");
    world.get("/").await.is(200).says("stored").has("age", "600");
    world.get("/never-asked").await.is(503).refused("gear.park");
    let wait = world.asks("POST", "/").saying("x").await.is(503).refused("window.writes").retry_after();
    assert!((600..=610).contains(&wait), "{wait}");
    world.origin.was_asked(1);
    drives(&world, 600).await;
    gear(&world, "drive");
    world.asks("POST", "/").saying("x").await.is(200);
    world.counts("vaxel_gear_shifts_total{to=\"park\"}", 1.0);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_asked_for_before_a_window_is_renewed_once_though_it_is_fresh() {
    let world = world().origin(ok("stored").cached("max-age=86400")).route("cache = true").gateway(WINDOW).opens();
    world.get("/").await.says("stored");
    drives(&world, 299).await;
    world.get("/").await.has("age", "299");
    world.origin.was_asked(1);
    drives(&world, 2).await;
    for _ in 0..3 {
        world.get("/").await.is(200);
        world.breathes().await;
    }
    world.origin.was_asked(2);
    world.get("/").await.has("age", "0");
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn after_a_window_slots_are_let_out_slowly() {
    let world = world().origin(ok("")).upstream("slots = 10").gateway(WINDOW).opens();
    drives(&world, 20 * 60).await;
    world.counts("vaxel_slots", 1.0);
    drives(&world, 150).await;
    world.counts("vaxel_slots", 6.0);
    drives(&world, 150).await;
    world.counts("vaxel_slots", 10.0);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn under_strain_stale_answers_are_served_without_asking_and_nothing_is_tried_twice() {
    let old = ok("old").cached("max-age=10, stale-if-error=3600").with("etag", "\"a\"");
    let world = world().origin(in_turn([old, status(502)])).route("cache = true");
    let world = world.upstream("slots = 4\nbreaker = { minimum = 4, failure_ratio = 0.9 }").opens();
    world.get("/").await.says("old");
    for _ in 0..2 {
        world.asks("POST", "/order").saying("x").await.is(502);
    }
    world.origin.now(ok("well").with("cache-control", "no-store"));
    for _ in 0..7 {
        world.asks("POST", "/order").saying("x").await.is(200);
    }
    drives(&world, 11).await;
    gear(&world, "eco");
    let asked = world.origin.asked();
    world.get("/").await.says("old").has("age", "11");
    world.breathes().await;
    assert_eq!(world.origin.asked(), asked + 1, "it is refreshed, as the upstream is idle");
    world.get("/").with("cache-control", "no-cache").await.says("well");
    world.origin.now(status(502));
    let asked = world.origin.asked();
    world.get("/other").await.is(502);
    assert_eq!(world.origin.asked(), asked + 1, "no retry");
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn a_short_outage_that_is_over_makes_nobody_limp() {
    for (outage, limps) in [(2, false), (8, true)] {
        let world = world().origin(ok("")).upstream("breaker = { failure_ratio = 1.0 }\nretry = false").opens();
        // A box that comes back is cold: few answers dilute the failures in the breaker's window.
        for (seconds, origin, requests) in [(4, ok(""), 20), (outage, status(502), 20), (10, ok(""), 6)] {
            world.origin.now(origin);
            for _ in 0..seconds {
                for _ in 0..requests {
                    world.get("/").await;
                }
                drives(&world, 1).await;
            }
        }
        world.counts("vaxel_gear_shifts_total{to=\"limp\"}", f64::from(u8::from(limps)));
        world.rests().await;
    }
}

#[tokio::test(start_paused = true)]
async fn in_limp_only_the_urgent_pass_through_half_of_the_slots() {
    let world = world().origin(ok("")).route("class = \"batch\"").upstream("slots = 4").opens();
    let erp = &world.handle.upstreams()[0];
    erp.gears.hold(Some((Gear::Limp, world.clock.now() + MINUTE)));
    drives(&world, 1).await;
    world.counts("vaxel_slots", 2.0);
    world.get("/").await.is(503).refused("gear.limp");
    drives(&world, 60).await;
    world.counts("vaxel_slots", 4.0);
    world.get("/").await.is(200);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn an_operators_hold_survives_a_reload_and_ends_by_itself() {
    let world = world().origin(ok("")).opens();
    world.handle.upstreams()[0].gears.hold(Some((Gear::Park, world.clock.now() + MINUTE)));
    drives(&world, 1).await;
    world.get("/").await.is(503).refused("gear.park");
    let config = crate::harness::Config::default().upstream("slots = 3");
    world.reload(&config).unwrap();
    drives(&world, 1).await;
    world.get("/").await.is(503).refused("gear.park");
    drives(&world, 60).await;
    world.get("/").await.is(200);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn in_shadow_strain_changes_nothing_and_is_told() {
    let world = world().origin(status(502)).upstream("gears = { mode = \"shadow\" }\nretry = false").opens();
    for _ in 0..9 {
        world.get("/").await.is(502);
    }
    drives(&world, 5).await;
    gear(&world, "drive");
    world.get("/").await.is(502);
    drives(&world, 1).await;
    world.breaker("open");
    world.counts("vaxel_gear_strain{gear=\"park\"}", 1.0);
    gear(&world, "drive");
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn a_window_that_is_open_at_the_start_counts_from_the_first_request_on() {
    let open = WINDOW.replace("08:10", "07:50");
    let world = world().origin(ok("")).gateway(&open).opens();
    world.asks("POST", "/").saying("x").await.is(503).refused("window.writes");
    world.get("/").await.is(503).refused("gear.park");
    world.origin.was_asked(0);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn an_operator_ends_a_window_early() {
    let open = WINDOW.replace("08:10", "07:50");
    let world = world().origin(ok("")).gateway(&open).opens();
    world.handle.steer("erp", Steer::Gear(Gear::Drive, MINUTE)).unwrap();
    world.asks("POST", "/").saying("x").await.is(200);
    drives(&world, 60).await;
    world.asks("POST", "/").saying("x").await.is(503).refused("window.writes");
    world.rests().await;
}
