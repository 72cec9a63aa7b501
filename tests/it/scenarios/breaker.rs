//! An origin that fails is left alone, and tried carefully.

use vaxel::breaker::Hold;
use vaxel::gateway::steer::Steer;
use vaxel::gear::Gear;

use crate::harness::{MINUTE, SECOND, World, by, hang, in_turn, ms, ok, refused, reset, status, world};

/// Opens at the tenth call if half of them failed; open for five seconds; three trials.
const BREAKER: &str = "retry = false\nbreaker = { minimum = 10, failure_ratio = 0.5, open = \"5s\", trials = 3 }";

/// A world whose breaker has just opened.
async fn opened() -> World {
    let world = world().origin(status(500)).upstream(BREAKER).opens();
    for _ in 0..10 {
        world.breaker("closed");
        world.get("/").await.is(500);
    }
    world.breaker("open");
    world
}

#[tokio::test(start_paused = true)]
async fn it_opens_on_the_failure_ratio_and_refuses_without_asking() {
    let world = opened().await;
    let answer = world.get("/").await;
    let seconds = answer.is(503).refused("breaker.open").retry_after();
    assert!((4..=5).contains(&seconds), "{seconds}");
    world.asks("POST", "/").await.is(503).refused("breaker.open");
    world.origin.was_asked(10);
    world.counts("vaxel_breaker_shifts_total{to=\"open\"}", 1.0);
    world.counts("vaxel_refusals_total{reason=\"breaker.open\"}", 2.0);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn half_open_passes_exactly_its_trials_and_closes_when_they_do_well() {
    let world = opened().await;
    world.origin.now(ok("well").after(SECOND));
    world.passes(5 * SECOND).await;
    world.breaker("half_open");
    let visits: Vec<_> = (0..20).map(|_| world.get("/").goes()).collect();
    let mut served = 0;
    for visit in visits {
        let answer = visit.await;
        match answer.status.as_u16() {
            200 => served += 1,
            _ => drop(answer.is(503).refused("breaker.open").retry_after()),
        }
    }
    assert_eq!(served, 3);
    world.origin.was_asked(13);
    world.breaker("closed");
    world.get("/").await.is(200);
    world.rests().await;
}

/// How many of twenty that come at once are at the origin.
async fn rush(world: &World) -> usize {
    let visits: Vec<_> = (0..20).map(|_| world.get("/").goes()).collect();
    world.breathes().await;
    let busy = world.standing().busy;
    for visit in visits {
        visit.await.is(200);
    }
    busy
}

#[tokio::test(start_paused = true)]
async fn after_it_has_closed_the_slots_are_let_out_over_a_minute() {
    let world = world().origin(status(500)).upstream(BREAKER).upstream("slots = 10").opens();
    for _ in 0..10 {
        world.get("/").await.is(500);
    }
    world.origin.now(ok("well").after(ms(10)));
    world.passes(5 * SECOND).await;
    for _ in 0..3 {
        world.get("/").await.is(200);
    }
    world.breaker("closed");
    assert_eq!(rush(&world).await, 1);
    world.counts("vaxel_slots", 1.0);
    world.passes(30 * SECOND).await;
    assert_eq!(rush(&world).await, 6);
    world.passes(30 * SECOND).await;
    assert_eq!(rush(&world).await, 10);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn the_ramp_lets_out_those_who_wait_though_no_slot_comes_back() {
    let world = world()
        .origin(status(500))
        .upstream(BREAKER)
        .upstream("slots = 4\nqueue = { timeout = \"5m\" }\ntimeouts = { head = \"60s\", total = \"2m\" }")
        .opens();
    for _ in 0..10 {
        world.get("/").await.is(500);
    }
    world.passes(5 * SECOND).await;
    world.origin.now(ok("well"));
    for _ in 0..3 {
        world.get("/").await.is(200);
    }
    world.origin.now(ok("slow").after(50 * SECOND));
    let visits: Vec<_> = (0..4).map(|_| world.get("/").goes()).collect();
    world.breathes().await;
    world.slots(1, 0, 3);
    world.passes(40 * SECOND).await;
    world.handle.upkeep().await;
    world.breathes().await;
    world.slots(3, 0, 1);
    for visit in visits {
        visit.await.is(200);
    }
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn it_opens_when_most_slots_work_for_nobody() {
    let world = world().origin(ok("late").after(20 * SECOND)).upstream("slots = 10").opens();
    for _ in 0..5 {
        let impatient = world.get("/").goes();
        world.breathes().await;
        impatient.leaves().await;
        world.breaker("closed");
    }
    let another = world.get("/").goes();
    world.breathes().await;
    another.leaves().await;
    world.slots(0, 6, 0);
    world.breaker("open");
    world.get("/").await.is(503).refused("breaker.open");
    world.counts("vaxel_breaker_shifts_total{to=\"open\"}", 1.0);
    world.passes(20 * SECOND).await;
    world.breaker("half_open");
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn one_impatient_client_does_not_open_it_for_all() {
    let world = world().origin(ok("late").after(2 * SECOND)).upstream("slots = 1").opens();
    let impatient = world.get("/").goes();
    world.breathes().await;
    impatient.leaves().await;
    world.slots(0, 1, 0);
    world.breaker("closed");
    world.passes(2 * SECOND).await;
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn a_failed_trial_opens_it_for_twice_as_long() {
    let world = opened().await;
    world.passes(5 * SECOND).await;
    world.get("/").await.is(500);
    world.breaker("open");
    let seconds = world.get("/").await.is(503).retry_after();
    assert!((9..=10).contains(&seconds), "{seconds}");
    world.passes(5 * SECOND).await;
    world.breaker("open");
    world.passes(5 * SECOND).await;
    world.breaker("half_open");
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn a_trial_whose_client_leaves_is_given_back() {
    let world = opened().await;
    world.origin.now(ok("well").after(SECOND));
    world.passes(5 * SECOND).await;
    let trials: Vec<_> = (0..3).map(|_| world.get("/").goes()).collect();
    world.passes(ms(100)).await;
    world.get("/").await.is(503).refused("breaker.open");
    for trial in trials {
        trial.leaves().await;
    }
    world.passes(2 * SECOND).await;
    for _ in 0..3 {
        world.get("/").await.is(200);
    }
    world.breaker("closed");
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_the_clients_fault_or_our_own_never_opens_it() {
    let world =
        world().origin(status(404).after(ms(10))).upstream(BREAKER).upstream("slots = 1\nqueue = { max = 0 }").opens();
    for _ in 0..30 {
        world.get("/").await.is(404);
    }
    for _ in 0..30 {
        let busy = world.get("/").goes();
        world.breathes().await;
        world.get("/").await.is(503).refused("queue.full");
        busy.leaves().await;
        world.passes(ms(20)).await;
    }
    world.breaker("closed");
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn whatever_we_refuse_ourselves_teaches_nothing() {
    let upstream = "slots = { adaptive = \"gradient\", max = 40, start = 1 }\nqueue = { max = 1, timeout = \"10ms\" }\n\
                    breaker = { minimum = 1 }\ntimeouts = { total = \"2m\", head = \"2m\" }\n";
    let route = "rate = { limit = \"1000/s\", burst = 40 }\ndeadline = \"x-timeout-ms\"\nmax_body = \"10B\"\n";
    let world = world().origin(ok("").after(MINUTE)).upstream(upstream).route(route).opens();
    let busy = world.get("/").goes();
    world.breathes().await;
    let mut reasons = std::collections::BTreeSet::new();
    let erp = |steer| world.handle.steer("erp", steer).unwrap();
    for held in [None, Some(Steer::Gear(Gear::Park, MINUTE)), Some(Steer::Breaker(Hold::Open))] {
        held.into_iter().for_each(erp);
        let crowd: Vec<_> = (0..30).map(|_| world.get("/").goes()).collect();
        let late: Vec<_> = (0..5).map(|_| world.get("/").with("x-timeout-ms", "0").goes()).collect();
        let large: Vec<_> = (0..5).map(|_| world.asks("POST", "/").saying("more than ten bytes").goes()).collect();
        for visit in crowd.into_iter().chain(late).chain(large) {
            reasons.insert(visit.await.problem()["reason"].as_str().unwrap().to_owned());
        }
        erp(Steer::ReleaseGear);
        erp(Steer::ReleaseBreaker);
        world.passes(SECOND).await;
    }
    let expected = [
        "breaker.open",
        "deadline.exceeded",
        "gear.park",
        "queue.full",
        "queue.timeout",
        "rate.exceeded",
        "request.too_large",
    ];
    assert_eq!(reasons.iter().map(String::as_str).collect::<Vec<_>>(), expected);
    busy.await.is(200);
    world.origin.was_asked(1);
    world.counts("vaxel_upstream_attempts_total", 1.0);
    world.counts("vaxel_limit_drops_total", 0.0);
    world.counts("vaxel_limit_suggested", 1.0);
    world.breaker("closed");
    assert_eq!(world.handle.upstreams()[0].breaker.as_ref().unwrap().lock().shares(world.clock.now()), (0.0, 0.0));
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn resets_refusals_timeouts_and_broken_bodies_open_it() {
    for (reply, expected) in [(reset(), 502), (refused(), 502), (hang(), 504), (ok("half").breaks(), 200)] {
        let world = world()
            .origin(reply)
            .upstream(BREAKER)
            .upstream("slots = 20\ntimeouts = { connect = \"100ms\", head = \"100ms\", total = \"1s\" }\nzombie_hold = \"2s\"")
            .opens();
        for _ in 0..10 {
            assert_eq!(world.get("/").await.status, expected);
        }
        world.breaker("open");
        world.passes(3 * SECOND).await;
        world.rests().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_origin_opens_it_too() {
    let world = world()
        .origin(ok("").after(2 * SECOND))
        .upstream("breaker = { minimum = 10, slow = \"1s\", slow_ratio = 0.8 }")
        .opens();
    for _ in 0..10 {
        world.get("/").await.is(200);
    }
    world.breaker("open");
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_slow_may_be_learned_for_each_route() {
    let report = "\n[[route]]\nname = \"report\"\nupstream = \"erp\"\nmatch = { path = \"/report\" }\n";
    let world = world()
        .origin(by(|seen| ok("").after(if seen.target == "/report" { 20 * SECOND } else { ms(200) })))
        .upstream("breaker = { slow = \"auto\", window = \"2m\" }")
        .gateway(report)
        .opens();
    for number in 0..80 {
        world.get(if number % 2 == 0 { "/" } else { "/report" }).await.is(200);
    }
    world.breaker("closed");
    world.origin.now(ok("").after(5 * SECOND));
    world.passes(120 * SECOND).await;
    for _ in 0..10 {
        world.breaker("closed");
        world.get("/").await.is(200);
    }
    world.breaker("open");
    world.get("/").await.is(503).refused("breaker.open");
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn where_no_probe_can_be_made_requests_are_trials_in_the_end() {
    let keys = "retry = false\nprobe = { path = \"/health\" }\nbreaker = { minimum = 2, trial = \"probe\" }";
    let world = world().origin(status(500)).upstream(keys).opens();
    for _ in 0..2 {
        world.get("/").await.is(500);
    }
    world.origin.now(ok("well"));
    world.passes(5 * SECOND).await;
    world.breaker("half_open");
    world.get("/").await.is(503).refused("breaker.open");
    world.passes(30 * SECOND).await;
    for _ in 0..3 {
        world.get("/").await.is(200);
    }
    world.breaker("closed");
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn a_business_fault_with_500_is_no_failure_where_the_route_says_so() {
    let world = world()
        .origin(status(500))
        .upstream(BREAKER)
        .route("classify = [{ status = 500, means = \"business\" }]")
        .opens();
    for _ in 0..20 {
        world.get("/").await.is(500);
    }
    world.breaker("closed");
    world.counts("vaxel_upstream_attempts_total{outcome=\"business\"}", 20.0);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn a_fixed_answer_stands_in_when_nothing_else_can() {
    let world = world()
        .origin(in_turn([ok("real"), refused()]))
        .upstream("retry = false\nbreaker = { minimum = 2 }")
        .route("fallback = { status = 200, content_type = \"text/html\", body = \"come back later\" }")
        .opens();
    world.get("/").await.is(200).says("real");
    let fixed = world.get("/").await;
    fixed.is(200).says("come back later").has("content-type", "text/html").has("cache-control", "no-store");
    fixed.has("proxy-status", "vaxel; error=connection_refused");
    world
        .get("/")
        .await
        .is(200)
        .says("come back later")
        .has("proxy-status", "vaxel; error=destination_unavailable; details=\"breaker.open\"");
    world.origin.was_asked(2);
    world.counts("vaxel_refusals_total{reason=\"upstream.connect\"}", 1.0);
    world.counts("vaxel_refusals_total{reason=\"breaker.open\"}", 1.0);
    world.rests().await;
}
