//! The origin never sees more work at once than it has slots, and everybody waits fairly.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::HeaderMap;
use vaxel::Hooks;
use vaxel::sim::dice::Dice;

use crate::harness::{Config, MINUTE, SECOND, Visit, by, in_turn, ms, ok, reset, status, with_seeds, world};

#[test]
fn the_origin_never_sees_more_than_its_slots_whoever_leaves() {
    with_seeds(12, async |seed| {
        let mut dice = Dice::new(seed);
        let slots = 1 + dice.roll() as usize % 8;
        let script = by(move |seen| {
            let mut dice = Dice::new(seed ^ seen.number as u64);
            let reply = ok("head ").after(ms(dice.roll() % 300)).then(ms(dice.roll() % 300), "body");
            match dice.roll() % 8 {
                0 => reply.breaks(),
                1 => reply.status(500),
                2 => reply.unannounced(),
                _ if seen.target.starts_with("/cached") => reply.cached("max-age=1, stale-while-revalidate=1"),
                _ => reply,
            }
        });
        let upstream = format!(
            "slots = {slots}\nbreaker = false\nqueue = {{ max = {}, timeout = \"3s\" }}\n\
             timeouts = {{ connect = \"250ms\", head = \"250ms\", total = \"1s\" }}\nzombie_hold = \"1m\"",
            20 + dice.roll() % 200
        );
        let world = world().origin(script).upstream(&upstream).route("cache = true").opens();
        let mut visits = Vec::new();
        for _ in 0..500 {
            let target = match dice.roll() % 3 {
                0 => format!("/cached/{}", dice.roll() % 20),
                _ => format!("/{}", dice.roll()),
            };
            let method = if dice.roll().is_multiple_of(5) { "POST" } else { "GET" };
            visits.push(world.asks(method, &target).goes());
            if dice.roll().is_multiple_of(4) {
                world.passes(ms(dice.roll() % 50)).await;
            }
            if dice.roll().is_multiple_of(3) {
                let left = dice.roll() as usize % visits.len();
                visits.swap_remove(left).may_leave();
            }
            let standing = world.standing();
            let taken = standing.busy + standing.zombie;
            assert!(world.origin.running() <= taken && taken <= slots, "{taken} of {slots} taken");
        }
        for visit in visits {
            let answer = visit.await;
            if answer.status == 503 {
                answer.retry_after();
            }
        }
        world.passes(MINUTE).await;
        assert!(world.origin.most() <= slots, "{} at once, {slots} slots", world.origin.most());
        assert_eq!(world.origin.most(), slots, "the slots were used");
        world.rests().await;
    });
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_refuses_at_once_and_says_when_to_come_back() {
    let world =
        world().origin(ok("").after(SECOND)).upstream("slots = 1\nqueue = { max = 2, timeout = \"5s\" }").opens();
    let served: Vec<_> = (0..3).map(|_| world.get("/").goes()).collect();
    world.breathes().await;
    world.slots(1, 0, 2);
    let begun = world.clock.now();
    let refused = world.get("/").await;
    assert_eq!(world.clock.now(), begun, "it did not wait");
    refused.is(503).refused("queue.full").retry_after();
    let problem = refused.problem();
    assert_eq!(problem["title"], "Service Unavailable");
    assert_eq!(problem["detail"], "The queue before the upstream is full.");
    assert_eq!(problem["request_id"].as_str().map(str::len), Some(16));
    assert_eq!(refused.field("proxy-status"), "vaxel; error=connection_limit_reached; details=\"queue.full\"");
    for visit in served {
        visit.await.is(200);
    }
    world.origin.was_asked(3);
    world.counts("vaxel_refusals_total{route=\"all\",reason=\"queue.full\"}", 1.0);
    world.counts("vaxel_queue_wait_seconds_count{upstream=\"erp\"}", 3.0);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn a_refused_head_request_has_no_body() {
    let world = world().origin(ok("").after(SECOND)).upstream("slots = 1\nqueue = { max = 0 }").opens();
    let served = world.get("/").goes();
    world.breathes().await;
    let refused = world.asks("HEAD", "/").await;
    assert!(refused.is(503).body.is_empty() && !refused.field("retry-after").is_empty(), "{refused:?}");
    served.await.is(200);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_longer_than_the_queue_allows() {
    let world =
        world().origin(ok("").after(10 * SECOND)).upstream("slots = 1\nqueue = { max = 5, timeout = \"2s\" }").opens();
    let long = world.get("/").goes();
    world.breathes().await;
    let begun = world.clock.now();
    world.get("/").await.is(503).refused("queue.timeout").retry_after();
    assert_eq!(world.clock.now() - begun, 2 * SECOND);
    long.await.is(200);
    world.origin.was_asked(1);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn a_hopeless_wait_is_refused_at_once() {
    let world =
        world().origin(ok("").after(SECOND)).upstream("slots = 1\nqueue = { max = 50, timeout = \"3s\" }").opens();
    for _ in 0..10 {
        world.get("/").await.is(200);
    }
    let waiting: Vec<_> = (0..4).map(|_| world.get("/").goes()).collect();
    world.breathes().await;
    world.slots(1, 0, 3);
    let begun = world.clock.now();
    let refused = world.get("/").await;
    assert_eq!(world.clock.now(), begun);
    let seconds = refused.is(503).refused("queue.hopeless").retry_after();
    assert!((3..=5).contains(&seconds), "four seconds of work, give or take a fifth: {seconds}");
    for visit in waiting {
        visit.await;
    }
    world.rests().await;
}

const SHOP_AND_BATCH: &str = "[consumer.shop]\nidentify = { header = \"x-app\", value = \"shop\" }\n\
                              [consumer.batch]\nidentify = { header = \"x-app\", value = \"batch\" }";

#[tokio::test(start_paused = true)]
async fn a_flood_of_one_consumer_delays_another_by_one_service_time() {
    let world = world()
        .origin(ok("").after(ms(100)))
        .upstream("slots = 1\nqueue = { max = 100, timeout = \"1m\" }")
        .gateway(SHOP_AND_BATCH)
        .opens();
    let flood: Vec<_> = (0..50).map(|_| world.get("/job").with("x-app", "batch").goes()).collect();
    world.passes(ms(50)).await;
    let begun = world.clock.now();
    for _ in 0..5 {
        let before = world.clock.now();
        world.get("/page").with("x-app", "shop").await.is(200);
        let waited = world.clock.now() - before;
        assert!(waited <= ms(300), "{waited:?}");
    }
    assert!(world.clock.now() - begun <= SECOND + ms(100), "they take turns");
    for job in flood {
        job.await.is(200);
    }
    world.counts("vaxel_consumer_requests_total{consumer=\"batch\"}", 50.0);
    world.counts("vaxel_consumer_requests_total{consumer=\"shop\"}", 5.0);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn consumers_share_a_scarce_origin_by_their_weights() {
    let world = world()
        .origin(ok("").after(ms(100)))
        .upstream("slots = 2\nqueue = { max = 500, timeout = \"1m\" }")
        .gateway(
            "[consumer.big]\nweight = 3\nidentify = { header = \"x-app\", value = \"big\" }\n\
             [consumer.small]\nidentify = { header = \"x-app\", value = \"small\" }",
        )
        .opens();
    let ask = |app: &'static str| world.get("/").with("x-app", app).goes();
    let visits: Vec<_> = (0..200).map(|n| ask(if n % 2 == 0 { "big" } else { "small" })).collect();
    world.passes(5 * SECOND).await;
    let served = |app: &str| world.metric(&format!("vaxel_consumer_requests_total{{consumer=\"{app}\"}}"));
    let share = served("big") / served("small");
    assert!((2.4..=3.6).contains(&share), "{} to {}", served("big"), served("small"));
    for visit in visits {
        visit.await.is(200);
    }
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_the_queue_leaves_no_trace() {
    for route in ["", "cache = true"] {
        let world = world().origin(ok("").after(SECOND)).upstream("slots = 1").route(route).opens();
        let first = world.get("/1").goes();
        world.breathes().await;
        let second = world.get("/2").goes();
        let third = world.get("/3").goes();
        world.passes(ms(500)).await;
        world.slots(1, 0, 2);
        second.leaves().await;
        world.breathes().await;
        world.slots(1, 0, 1);
        first.await.is(200);
        third.await.is(200);
        world.origin.was_asked(2);
        world.rests().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_crowd_that_leaves_the_queue_leaves_no_trace() {
    let world = world().origin(ok("").after(SECOND)).upstream("slots = 1").route("cache = true").opens();
    let first = world.get("/1").goes();
    world.breathes().await;
    let crowd: Vec<_> = (0..5).map(|_| world.get("/2").goes()).collect();
    world.passes(ms(100)).await;
    world.slots(1, 0, 1);
    for visit in crowd {
        visit.leaves().await;
        world.passes(ms(100)).await;
    }
    world.slots(1, 0, 0);
    first.await.is(200);
    world.origin.was_asked(1);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn a_slow_body_holds_its_slot_to_the_end() {
    let pages = in_turn([ok("a").then(SECOND, "b"), ok("")]);
    let world = world().origin(pages).upstream("slots = 1").opens();
    let first = world.get("/").opens().await;
    world.slots(1, 0, 0);
    let second = world.get("/").goes();
    world.passes(ms(500)).await;
    assert!(!second.is_done());
    first.reads().await.is(200).says("ab");
    second.await.is(200);
    assert_eq!(world.origin.most(), 1);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn urgent_requests_pass_those_that_can_wait() {
    let world = world()
        .origin(ok("").after(ms(100)))
        .upstream("slots = 1\nqueue = { max = 100, timeout = \"1m\" }")
        .route("class = \"batch\"")
        .gateway(
            "[[route]]\nname = \"urgent\"\nupstream = \"erp\"\nclass = \"interactive\"\nmatch = { path = \"/urgent\" }",
        )
        .opens();
    let jobs: Vec<_> = (0..20).map(|_| world.get("/job").goes()).collect();
    world.passes(ms(50)).await;
    let begun = world.clock.now();
    world.get("/urgent").await.is(200);
    assert!(world.clock.now() - begun <= ms(200));
    for job in jobs {
        job.await.is(200);
    }
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn a_slot_kept_for_the_urgent_is_there_when_jobs_have_taken_the_rest() {
    let world = world()
        .origin(ok("").after(SECOND))
        .upstream("slots = 3\nreserve = { interactive = 1 }\nqueue = { timeout = \"1m\" }")
        .route("class = \"batch\"")
        .gateway(
            "[[route]]\nname = \"urgent\"\nupstream = \"erp\"\nclass = \"interactive\"\nmatch = { path = \"/urgent\" }",
        )
        .opens();
    let jobs: Vec<_> = (0..6).map(|_| world.get("/job").goes()).collect();
    world.passes(ms(500)).await;
    world.slots(2, 0, 4);
    let begun = world.clock.now();
    world.get("/urgent").await.is(200);
    assert_eq!(world.clock.now() - begun, SECOND, "it did not wait");
    for job in jobs {
        job.await.is(200);
    }
    assert_eq!(world.origin.most(), 3);
    world.rests().await;
}

const THREE: &str =
    "endpoints = [\"http://a\", \"http://b\", \"http://c\"]\nslots = 12\nbreaker = false\nretry = false\n";

#[tokio::test(start_paused = true)]
async fn no_endpoint_works_on_more_than_its_own_slots_and_nobody_is_refused_for_that() {
    for balance in ["round_robin", "least_of_two"] {
        // Every third takes long: by turns alone they would pile up at one endpoint.
        let script = by(|seen| ok("").after(if seen.number % 3 == 0 { SECOND } else { ms(100) }));
        let upstream =
            format!("{THREE}endpoint_slots = 2\nbalance = \"{balance}\"\nqueue = {{ max = 200, timeout = \"1m\" }}");
        let world = world().origin(script).upstream(&upstream).opens();
        let visits: Vec<_> = (0..100).map(|_| world.get("/").goes()).collect();
        let mut most = [0.0_f64; 3];
        for _ in 0..100 {
            world.passes(ms(70)).await;
            for (most, name) in most.iter_mut().zip(["a", "b", "c"]) {
                let series = format!("vaxel_endpoint_requests{{endpoint=\"http://{name}\"}}");
                *most = most.max(world.metric(&series));
            }
        }
        assert!(most.iter().all(|most| (*most - 2.0).abs() < 0.1), "{balance}: {most:?}");
        for visit in visits {
            visit.await.is(200);
        }
        assert_eq!(world.origin.most(), 6);
        world.rests().await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_is_out_takes_its_slots_along_and_brings_them_back() {
    let script = by(|seen| if seen.field("host") == "c" { status(500) } else { ok("").after(ms(500)) });
    let upstream =
        format!("{THREE}endpoint_slots = 2\nhost = \"upstream\"\nqueue = {{ max = 500, timeout = \"10m\" }}");
    let world = world().origin(script).upstream(&upstream).opens();
    world.counts("vaxel_slots", 6.0);
    let visits: Vec<_> = (0..60).map(|_| world.get("/").goes()).collect();
    world.passes(SECOND).await;
    world.counts("vaxel_endpoint_up{endpoint=\"http://c\"}", 0.0);
    world.counts("vaxel_slots", 4.0);
    world.slots(4, 0, world.standing().queued as u32);
    for visit in visits {
        assert!([200, 500].contains(&visit.await.status.as_u16()));
    }
    world.passes(10 * MINUTE).await;
    world.handle.upkeep().await;
    world.counts("vaxel_slots", 6.0);
    world.rests().await;
}

/// Unwinds in the middle of an attempt, when the slot is taken.
struct Stumbles(Arc<AtomicUsize>);

impl Hooks for Stumbles {
    fn upstream(&self, headers: &mut HeaderMap) {
        if headers.contains_key("x-stumble") {
            self.0.fetch_add(1, Ordering::Relaxed);
            // Without the word on stderr that a panic would have.
            std::panic::resume_unwind(Box::new("stumbled"));
        }
    }
}

#[test]
fn slots_are_exact_through_panics_retries_and_reloads() {
    with_seeds(8, async |seed| {
        let mut dice = Dice::new(seed);
        let script = by(move |seen| {
            let mut dice = Dice::new(seed ^ seen.number as u64);
            let reply = ok("body").after(ms(dice.roll() % 200));
            match dice.roll() % 4 {
                0 => reset(),
                1 => reply.breaks(),
                _ if seen.target.starts_with("/cached") => reply.cached("max-age=1"),
                _ => reply,
            }
        });
        let config = |slots: usize, reserve: usize| {
            let upstream = format!(
                "slots = {slots}\nreserve = {{ interactive = {reserve} }}\ncap = {{ batch = {slots} }}\nbreaker = false\n\
                 retry = {{ attempts = 3, budget = 1.0, backoff = \"10ms\" }}\nqueue = {{ max = 40, timeout = \"3s\" }}\n\
                 timeouts = {{ connect = \"150ms\", head = \"150ms\", total = \"1s\" }}\nzombie_hold = \"1m\"\n"
            );
            let logon =
                "[[route]]\nname = \"logon\"\nupstream = \"erp\"\nmatch = { path = \"/logon\" }\nclass = \"logon\"\n";
            Config::default().upstream(&upstream).route("cache = true").more(logon)
        };
        let stumbled = Arc::new(AtomicUsize::new(0));
        let world = world().origin(script).hooks(Stumbles(Arc::clone(&stumbled))).opens();
        world.reload(&config(4, 1)).unwrap();
        let (mut visits, mut slots, mut before) = (Vec::new(), 4, 0);
        for _ in 0..300 {
            let target = match dice.roll() % 4 {
                0 => format!("/cached/{}", dice.roll() % 20),
                1 => "/logon".to_owned(),
                _ => format!("/{}", dice.roll()),
            };
            let asks = world.get(&target);
            let asks = if dice.roll().is_multiple_of(12) { asks.with("x-stumble", "1") } else { asks };
            visits.push(asks.goes());
            match dice.roll() % 16 {
                0 => {
                    slots = 2 + dice.roll() as usize % 6;
                    world.reload(&config(slots, dice.roll() as usize % 2)).unwrap();
                }
                1..5 => world.passes(ms(dice.roll() % 60)).await,
                5 => visits.swap_remove(dice.roll() as usize % visits.len()).may_leave(),
                _ => world.breathes().await,
            }
            let standing = world.standing();
            let taken = standing.busy + standing.zombie;
            assert!(world.origin.running() <= taken, "{} at the origin, {taken} taken", world.origin.running());
            assert!(taken <= slots.max(before), "{taken} of {slots} taken");
            before = taken;
        }
        world.passes(2 * MINUTE).await;
        assert!(visits.iter().all(Visit::is_done), "nobody hangs");
        assert!(stumbled.load(Ordering::Relaxed) > 0);
        assert!(world.metric("vaxel_upstream_retries_total") > 0.0);
        world.rests().await;
    });
}

#[tokio::test(start_paused = true)]
async fn when_everybody_logs_on_those_who_are_in_work_on() {
    let script = by(|seen| ok("").after(ms(if seen.target.starts_with("/logon") { 300 } else { 15 })));
    let tables = "[[route]]\nname = \"logon\"\nupstream = \"erp\"\nmatch = { path = \"/logon\" }\nclass = \"logon\"\n\
                  [consumer.shop]\nidentify = { api_key = \"a-key-of-the-shop\" }\nclass = \"interactive\"\n";
    let upstream = "slots = 4\nbreaker = false\nretry = false\nqueue = { max = 40, timeout = \"2s\" }";
    let world = world().origin(script).upstream(upstream).gateway(tables).opens();
    let logons: Vec<_> = (0..200)
        .map(|number| {
            let client = world.client_at(std::net::Ipv4Addr::new(10, 0, 0, number as u8));
            // Whoever asks: a logon is a logon.
            client.get("/logon").with("x-api-key", "a-key-of-the-shop").goes()
        })
        .collect();
    world.breathes().await;
    assert_eq!(world.origin.running(), 2);
    world.slots(2, 0, 20);
    for _ in 0..20 {
        let began = world.clock.now();
        world.get("/orders").await.is(200);
        assert!(world.clock.now() - began <= ms(20), "two slots are free for it");
        assert!(world.origin.running() <= 2);
    }
    let mut came_in = 0;
    for logon in logons {
        let answer = logon.await;
        match answer.status.as_u16() {
            200 => came_in += 1,
            503 => drop(answer.retry_after()),
            other => panic!("{other}"),
        }
    }
    assert!(came_in >= 14, "two at a time, 300 ms each, for two seconds: {came_in}");
    world.counts("vaxel_refusals_total{route=\"all\"}", 0.0);
    world.rests().await;
}
