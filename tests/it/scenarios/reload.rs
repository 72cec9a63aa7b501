//! Another configuration while requests are under way.

use crate::harness::{Config, SECOND, World, ok, reset, status, world};

fn config(upstream: &str, route: &str) -> Config {
    Config::default().upstream(upstream).route(route)
}

/// A world with `slots`, of which two are taken and one is waited for.
async fn busy() -> (World, Vec<crate::harness::Visit>) {
    let world =
        world().origin(ok("old").after(10 * SECOND)).upstream("slots = 2\nqueue = { timeout = \"1m\" }").opens();
    let visits = (0..3).map(|_| world.get("/").goes()).collect();
    world.breathes().await;
    world.slots(2, 0, 1);
    (world, visits)
}

#[tokio::test(start_paused = true)]
async fn slots_in_use_are_counted_on() {
    let (world, visits) = busy().await;
    world.reload(&config("slots = 1\nqueue = { timeout = \"1m\" }", "")).unwrap();
    world.slots(2, 0, 1);
    world.counts("vaxel_slots", 1.0);
    for visit in visits {
        visit.await.is(200).says("old");
    }
    assert_eq!(world.origin.most(), 2);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn more_slots_are_given_to_those_who_wait() {
    let (world, visits) = busy().await;
    world.reload(&config("slots = 3\nqueue = { timeout = \"1m\" }", "")).unwrap();
    world.breathes().await;
    world.slots(3, 0, 0);
    let begun = world.clock.now();
    for visit in visits {
        visit.await.is(200);
    }
    assert_eq!(world.clock.now() - begun, 10 * SECOND);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn a_request_under_way_keeps_the_configuration_it_began_with() {
    let world =
        world().origin(ok("").after(SECOND)).route("response_headers = { set = { x-config = \"old\" } }").opens();
    let visit = world.get("/").goes();
    world.breathes().await;
    world.reload(&config("", "response_headers = { set = { x-config = \"new\" } }")).unwrap();
    visit.await.is(200).has("x-config", "old");
    world.get("/").await.is(200).has("x-config", "new");
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn an_open_breaker_stays_open_and_what_is_stored_stays_stored() {
    let world =
        world().origin(ok("hello").cached("max-age=60")).route("cache = true").upstream("retry = false").opens();
    world.get("/page").await.is(200);
    world.origin.now(status(500));
    for _ in 0..12 {
        world.get("/").await;
    }
    world.breaker("open");
    world.reload(&config("retry = false\nslots = 5", "cache = { ttl = \"10s\" }")).unwrap();
    world.breaker("open");
    assert_eq!(world.handle.upstreams()[0].slots.zombies(), (0, 5), "there are as many as it says now");
    world.get("/page").await.is(200).says("hello");
    world.get("/").await.is(503).refused("breaker.open");
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn a_rate_is_counted_on_unless_it_changes() {
    let rate = |limit: &str| format!("rate = {{ limit = \"{limit}\" }}");
    let world = world().origin(ok("")).route(&rate("1/m")).opens();
    world.get("/").await.is(200);
    world.reload(&config("slots = 5", &rate("1/m"))).unwrap();
    world.get("/").await.is(429);
    world.reload(&config("slots = 5", &rate("2/m"))).unwrap();
    world.get("/").await.is(200);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn a_configuration_that_cannot_be_used_changes_nothing() {
    let world = world().origin(ok("")).upstream("slots = 4").opens();
    let mut wrong = config("slots = 9", "").settings();
    wrong.routes.push(wrong.routes[0].clone());
    world.handle.reload(&wrong).unwrap_err();
    world.counts("vaxel_slots", 4.0);
    world.get("/").await.is(200);
    world.slots(0, 0, 0);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn a_reload_does_not_fill_the_budget_of_retries() {
    let keys = |slots| format!("slots = {slots}\nbreaker = false\nretry = {{ budget = 0.0, budget_min = 0.1 }}");
    let world = world().origin(reset()).upstream(&keys(4)).opens();
    world.get("/").await.is(502);
    world.origin.was_asked(2);
    for slots in 5..10 {
        world.reload(&config(&keys(slots), "")).unwrap();
        world.get("/").await.is(502);
    }
    world.origin.was_asked(7);
    world.rests().await;
}
