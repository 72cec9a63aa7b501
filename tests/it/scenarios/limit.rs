//! The number of slots finds itself: up to where answers begin to wait for each other, and no further.

use std::time::Instant;

use parking_lot::Mutex;
use vaxel::clock::Clock;

use crate::harness::{Config, MINUTE, SECOND, Script, World, by, hang, ms, ok, status, world};

/// An origin with so many processes, each of which works on one request for 40 to 60 ms; the rest wait inside.
fn processes(count: usize) -> Script {
    let clock = Clock::system();
    let ends: Mutex<Vec<Option<Instant>>> = Mutex::new(vec![None; count]);
    by(move |seen| {
        let now = clock.now();
        let mut ends = ends.lock();
        let first = ends.iter_mut().min().unwrap();
        let end = first.map_or(now, |end| end.max(now)) + ms(40 + seen.number as u64 * 7919 % 21);
        *first = Some(end);
        ok("").after(end - now)
    })
}

/// So many clients ask again and again.
async fn crowd(world: &World, clients: usize, seconds: u32) {
    let until = world.clock.now() + SECOND * seconds;
    let crowd: Vec<_> = (0..clients)
        .map(|_| {
            let (client, clock) = (world.client(), world.clock.clone());
            tokio::spawn(async move {
                while clock.now() < until {
                    if client.get("/").await.status != 200 {
                        tokio::time::sleep(ms(100)).await;
                    }
                }
            })
        })
        .collect();
    for client in crowd {
        client.await.unwrap();
    }
}

fn slots(keys: &str) -> String {
    format!("slots = {{ adaptive = \"gradient\", {keys} }}\nqueue = {{ timeout = \"5s\" }}")
}

#[tokio::test(start_paused = true)]
async fn it_finds_what_the_origin_can_do_and_a_reload_does_not_make_it_forget() {
    for start in [2, 24] {
        let keys = slots(&format!("max = 40, start = {start}"));
        let world = world().origin(processes(6)).upstream(&keys).opens();
        crowd(&world, 40, 25).await;
        let found = world.metric("vaxel_slots");
        assert!((5.0..=7.0).contains(&found), "{found} from {start}");
        world.counts("vaxel_limit_suggested", found);
        assert!(world.metric("vaxel_limit_latency_ratio") < 1.5);
        world.reload(&Config::default().upstream(&slots("min = 3, max = 50"))).unwrap();
        world.counts("vaxel_slots", found);
        world.reload(&Config::default().upstream("slots = 9")).unwrap();
        world.counts("vaxel_slots", 9.0);
        assert!(!world.handle.metrics().gather().contains("vaxel_limit_suggested{"));
        world.rests().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_shadow_suggests_and_leaves_the_slots_alone() {
    let world = world().origin(processes(6)).upstream(&slots("max = 40, start = 12, mode = \"shadow\"")).opens();
    crowd(&world, 3, 20).await;
    world.counts("vaxel_limit_suggested", 12.0);
    crowd(&world, 40, 20).await;
    let suggested = world.metric("vaxel_limit_suggested");
    assert!((5.0..=8.0).contains(&suggested), "{suggested}");
    assert!(world.metric("vaxel_limit_latency_ratio") > 1.5, "its evidence");
    world.counts("vaxel_slots", 12.0);
    assert_eq!(world.origin.most(), 12);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn refusals_of_the_origin_and_silence_lower_it_and_nothing_else_does() {
    for policy in ["gradient", "aimd"] {
        let upstream = format!(
            "slots = {{ adaptive = \"{policy}\", max = 40, start = 20 }}\nbreaker = false\nretry = false\n\
             queue = {{ max = 0 }}\ntimeouts = {{ head = \"2s\", total = \"2s\" }}\nzombie_hold = \"10s\""
        );
        let world = world().origin(ok("").after(SECOND)).upstream(&upstream).opens();
        let crowd: Vec<_> = (0..30).map(|_| world.get("/").goes()).collect();
        world.passes(ms(500)).await;
        for visit in crowd {
            visit.may_leave();
        }
        world.passes(2 * SECOND).await;
        world.counts("vaxel_slots", 20.0);
        world.counts("vaxel_limit_drops_total", 0.0);

        world.origin.now(status(500));
        for _ in 0..50 {
            world.get("/").await.is(500);
        }
        world.counts("vaxel_slots", 20.0);

        world.origin.now(status(503));
        world.get("/").await.is(503);
        world.counts("vaxel_slots", 18.0);

        world.passes(ms(1)).await;
        world.origin.now(hang());
        world.get("/").await.is(504).refused("upstream.timeout");
        // Learned when the time was over, though the slot is held on.
        world.slots(0, 1, 0);
        world.counts("vaxel_slots", 16.0);
        world.counts("vaxel_limit_drops_total", 2.0);
        world.passes(MINUTE).await;
        world.rests().await;
    }
}
