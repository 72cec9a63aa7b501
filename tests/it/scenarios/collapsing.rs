//! Many who ask for the same at once, and one who fetches it.

use crate::harness::{SECOND, by, in_turn, ms, ok, reset, status, world};

#[tokio::test(start_paused = true)]
async fn a_thousand_cold_requests_reach_the_origin_once_and_stream_while_it_answers() {
    let page = ok("first ").then(10 * SECOND, "second").cached("max-age=60").after(ms(100));
    let world = world().origin(page).route("cache = true").opens();
    let begun = world.clock.now();
    let readers: Vec<_> = (0..1000)
        .map(|_| {
            let request = world.get("/");
            tokio::spawn(async move {
                let mut answer = request.opens().await;
                (answer.piece().await, answer)
            })
        })
        .collect();
    let mut reading = Vec::new();
    for reader in readers {
        reading.push(reader.await.unwrap());
    }
    assert_eq!(world.clock.now() - begun, ms(100), "everybody reads before the answer is complete");
    world.slots(1, 0, 0);
    for (first, answer) in reading {
        assert_eq!(first, "first ");
        answer.reads().await.is(200).says("second");
    }
    assert_eq!(world.clock.now() - begun, ms(100) + 10 * SECOND);
    world.origin.was_asked(1);
    world.counts("vaxel_requests_total{cache=\"miss\"}", 1.0);
    world.counts("vaxel_requests_total{cache=\"collapsed\"}", 999.0);
    world.get("/").await.is(200).says("first second");
    world.origin.was_asked(1);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn who_comes_while_the_body_arrives_reads_it_from_the_beginning() {
    let page = ok("first ").then(SECOND, "second").cached("max-age=60");
    let world = world().origin(page).route("cache = true").opens();
    let early = world.get("/").goes();
    world.passes(ms(500)).await;
    world.get("/").await.is(200).says("first second");
    early.await.says("first second");
    world.origin.was_asked(1);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn when_the_leader_leaves_the_others_still_get_the_answer_and_it_is_stored() {
    let world = world().origin(ok("hello").cached("max-age=60").after(SECOND)).route("cache = true").opens();
    let leader = world.get("/").goes();
    world.breathes().await;
    let others: Vec<_> = (0..10).map(|_| world.get("/").goes()).collect();
    world.passes(ms(500)).await;
    leader.leaves().await;
    for other in others {
        other.await.is(200).says("hello");
    }
    world.get("/").await.is(200).has("cache-status", "vaxel; hit; ttl=59");
    world.origin.was_asked(1);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn when_everybody_leaves_the_answer_is_stored_all_the_same() {
    let page = ok("first ").then(SECOND, "second").cached("max-age=60").after(SECOND);
    let world = world().origin(page).route("cache = true").opens();
    for pause in [ms(500), ms(1500)] {
        let visits: Vec<_> = (0..3).map(|_| world.get("/").goes()).collect();
        world.passes(pause).await;
        for visit in visits {
            visit.leaves().await;
        }
        world.slots(1, 0, 0);
        world.passes(3 * SECOND).await;
        world.get("/").await.is(200).says("first second");
        world.asks("DELETE", "/").await.is(200);
        world.passes(3 * SECOND).await;
    }
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn when_the_origin_fails_before_the_head_everybody_who_waited_is_refused_once() {
    let world = world().origin(reset().after(SECOND)).route("cache = true").upstream("retry = false").opens();
    let visits: Vec<_> = (0..10).map(|_| world.get("/").goes()).collect();
    for visit in visits {
        visit.await.is(502).refused("upstream.reset");
    }
    world.origin.was_asked(1);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn when_the_leader_waited_too_long_for_a_slot_one_of_the_others_leads_on() {
    let pages =
        by(|seen| if seen.target == "/long" { ok("").after(ms(2500)) } else { ok("page").cached("max-age=60") });
    let world = world()
        .origin(pages)
        .route("cache = true")
        .upstream("slots = 1\nqueue = { max = 10, timeout = \"2s\" }")
        .opens();
    let long = world.get("/long").goes();
    world.breathes().await;
    let leader = world.get("/page").goes();
    world.passes(SECOND).await;
    let others: Vec<_> = (0..5).map(|_| world.get("/page").goes()).collect();
    leader.await.is(503).refused("queue.timeout");
    for other in others {
        other.await.is(200).says("page");
    }
    long.await.is(200);
    world.origin.was_asked(2);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn when_the_fetch_panics_one_of_the_others_leads_on() {
    let faulty = by(|seen| {
        assert!(seen.number > 0, "the first one panics, as this scenario wants it");
        ok("hello").cached("max-age=60")
    });
    let world = world().origin(faulty).route("cache = true").opens();
    let visits: Vec<_> = (0..5).map(|_| world.get("/").goes()).collect();
    let mut answers = Vec::new();
    for visit in visits {
        answers.push(visit.await);
    }
    assert_eq!(answers.iter().filter(|answer| answer.status == 500).count(), 1);
    assert_eq!(answers.iter().filter(|answer| answer.status == 200).count(), 4);
    world.origin.was_asked(2);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn a_body_that_breaks_off_is_seen_by_every_reader_and_never_stored() {
    let broken = ok("half").breaks().cached("max-age=60").after(ms(100));
    let world = world().origin(in_turn([broken, ok("whole").cached("max-age=60")])).route("cache = true").opens();
    let visits: Vec<_> = (0..5).map(|_| world.get("/").goes()).collect();
    for visit in visits {
        let answer = visit.await;
        assert!(answer.broken && answer.body == "half", "{answer:?}");
    }
    world.counts("vaxel_cache_entries", 0.0);
    world.get("/").await.is(200).says("whole");
    world.origin.was_asked(2);
    world.counts("vaxel_upstream_attempts_total{outcome=\"broken\"}", 1.0);
    world.counts("vaxel_client_aborts_total", 0.0);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_shorter_than_announced_is_never_stored() {
    let short =
        status(200).with("content-length", "11").then(ms(1), "half").unannounced().breaks().cached("max-age=60");
    let world = world().origin(short).route("cache = true").opens();
    assert!(world.get("/").await.broken);
    world.counts("vaxel_cache_entries", 0.0);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_not_for_all_releases_those_who_waited_at_once() {
    let world = world().origin(ok("mine").cached("private").after(SECOND)).route("cache = true").opens();
    let begun = world.clock.now();
    let visits: Vec<_> = (0..5).map(|_| world.get("/").goes()).collect();
    for visit in visits {
        visit.await.is(200).says("mine");
    }
    assert_eq!(world.clock.now() - begun, 2 * SECOND, "the others went side by side, not one after the other");
    world.origin.was_asked(5);
    // It is remembered: nobody waits for anybody any more.
    let visits: Vec<_> = (0..5).map(|_| world.get("/").goes()).collect();
    for visit in visits {
        visit.await.is(200).has("cache-status", "vaxel; fwd=miss; fwd-status=200; detail=uncacheable");
    }
    assert_eq!(world.clock.now() - begun, 3 * SECOND);
    // And forgotten once there is an answer for all.
    world.origin.now(ok("ours").cached("max-age=60"));
    world.get("/").await.is(200).says("ours");
    world.breathes().await;
    world.get("/").await.is(200).says("ours").has("cache-status", "vaxel; hit; ttl=60");
    world.origin.was_asked(11);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn a_crowd_in_two_languages_reaches_the_origin_twice() {
    let greet = by(|seen| {
        ok(seen.field("accept-language").to_owned()).cached("max-age=60").with("vary", "accept-language").after(SECOND)
    });
    let world = world().origin(greet).route("cache = true").opens();
    let languages = ["sv", "en"];
    let visits: Vec<_> =
        (0..100).map(|n| (n, world.get("/").with("accept-language", languages[n % 2]).goes())).collect();
    for (n, visit) in visits {
        visit.await.is(200).says(languages[n % 2]);
    }
    world.origin.was_asked(2);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn an_error_of_the_origin_is_not_shared_and_not_remembered() {
    let world = world()
        .origin(by(|seen| if seen.number < 3 { status(500).after(SECOND) } else { ok("well").cached("max-age=60") }))
        .route("cache = true")
        .upstream("retry = false")
        .opens();
    let visits: Vec<_> = (0..3).map(|_| world.get("/").goes()).collect();
    for visit in visits {
        visit.await.is(500);
    }
    world.get("/").await.is(200).says("well");
    world.breathes().await;
    world.get("/").await.has("cache-status", "vaxel; hit; ttl=60");
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn a_crowd_on_two_workers_reaches_the_origin_once() {
    let page = ok("first ").then(SECOND, "second").cached("max-age=60").after(SECOND);
    let world = world().origin(page).route("cache = true").opens();
    let clients = [world.client(), world.client_elsewhere()];
    let mut visits: Vec<_> = (0..20).map(|n| clients[n % 2].get("/").goes()).collect();
    world.passes(ms(500)).await;
    // The leader is of the first worker; the others go on without it.
    visits.remove(0).leaves().await;
    for visit in visits {
        visit.await.is(200).says("first second");
    }
    world.client_elsewhere().get("/").await.has("cache-status", "vaxel; hit; ttl=58");
    world.origin.was_asked(1);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_holds_up_nobody_while_the_answer_may_be_stored() {
    let page = (0..16).fold(ok(""), |page, _| page.then(ms(10), "x".repeat(64 << 10))).cached("max-age=60");
    let world = world().origin(page).route("cache = true").opens();
    let mut slow = world.get("/").opens().await;
    slow.piece().await;
    let begun = world.clock.now();
    let fast: Vec<_> = (0..5).map(|_| world.get("/").goes()).collect();
    for visit in fast {
        assert_eq!(visit.await.is(200).body.len(), 1 << 20);
    }
    assert!(world.clock.now() - begun <= ms(160), "at the origin's own pace");
    world.breathes().await;
    world.counts("vaxel_cache_fills_bytes", 0.0); // it is the store's
    world.slots(0, 0, 0);
    assert_eq!(slow.reads().await.is(200).body.len(), (1 << 20) - (64 << 10));
    world.origin.was_asked(1);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_of_what_is_too_large_to_store_costs_bounded_memory() {
    let page = (0..64).fold(ok(""), |page, _| page.then(ms(10), "x".repeat(64 << 10)));
    let page = page.cached("max-age=60").unannounced();
    let world = world().origin(page).route("cache = { max_entry = \"256KiB\" }").opens();
    let mut slow = world.get("/").opens().await;
    slow.piece().await;
    let fast: Vec<_> = (0..5).map(|_| world.get("/").goes()).collect();
    for _ in 0..100 {
        world.passes(ms(10)).await;
        let held = world.metric("vaxel_cache_fills_bytes");
        assert!(held <= f64::from(512 << 10), "{held} bytes are held for one reader");
    }
    assert!(fast.iter().all(|visit| !visit.is_done()), "nobody is further ahead than that");
    drop(slow);
    for visit in fast {
        assert_eq!(visit.await.is(200).body.len(), 4 << 20);
    }
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn a_refresh_in_the_background_is_one_and_waits_behind_everybody() {
    let pages = by(|seen| match seen.target.as_str() {
        "/long" => ok("").after(SECOND),
        _ => ok(seen.target.clone()).cached("max-age=10, stale-while-revalidate=600"),
    });
    let world = world().origin(pages).route("cache = true\nclass = \"batch\"").upstream("slots = 1").opens();
    world.get("/old").await.is(200);
    world.passes(11 * SECOND).await;
    let long = world.get("/long").goes();
    world.breathes().await;
    for _ in 0..5 {
        world.get("/old").await.is(200).says("/old");
    }
    world.breathes().await;
    let others: Vec<_> = (0..3).map(|n| world.get(&format!("/{n}")).goes()).collect();
    world.breathes().await;
    world.slots(1, 0, 4);
    long.await.is(200);
    for other in others {
        other.await.is(200);
    }
    world.passes(SECOND).await;
    let targets: Vec<_> = world.origin.seen().into_iter().map(|seen| seen.target).collect();
    assert_eq!(targets, ["/old", "/long", "/0", "/1", "/2", "/old"]);
    world.rests().await;
}
