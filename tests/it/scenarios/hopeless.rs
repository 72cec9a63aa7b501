//! Who would wait in vain is told at once, and nobody else.

use std::time::Duration;

use crate::harness::{SECOND, World, by, ms, ok, world};

/// Clients that ask again and again, each as soon as it has its answer; how each request ended, by reason.
async fn crowd(world: &World, clients: usize, requests: usize) -> Vec<(String, Duration)> {
    let crowd: Vec<_> = (0..clients)
        .map(|_| {
            let (client, clock) = (world.client(), world.clock.clone());
            tokio::spawn(async move {
                let mut ended = Vec::new();
                for _ in 0..requests {
                    let begun = clock.now();
                    let answer = client.get("/").await;
                    let reason = if answer.status == 200 {
                        String::new()
                    } else {
                        answer.problem()["reason"].as_str().unwrap().to_owned()
                    };
                    ended.push((reason, clock.now() - begun));
                }
                ended
            })
        })
        .collect();
    let mut ended = Vec::new();
    for client in crowd {
        ended.extend(client.await.unwrap());
    }
    ended
}

#[tokio::test(start_paused = true)]
async fn one_slow_answer_makes_nobodys_short_wait_hopeless() {
    // Typically 5 ms, and one in two hundred takes 20 s.
    let origin = || by(|seen| ok("").after(if seen.number % 200 == 199 { 20 * SECOND } else { ms(5) }));
    for clients in [2, 6, 12] {
        let world = world().origin(origin()).upstream("slots = 1\nbreaker = false\nretry = false").opens();
        let ended = crowd(&world, clients, 1000).await;
        let hopeless = ended.iter().filter(|(reason, _)| reason == "queue.hopeless").count();
        let late = ended.iter().filter(|(reason, _)| reason == "queue.timeout").count();
        assert_eq!(hopeless, 0, "{clients} clients, {late} waited in vain behind a slow one");
        world.rests().await;
    }
}

#[tokio::test(start_paused = true)]
async fn behind_a_backend_that_has_become_slow_it_is_said_at_once() {
    let world = world().origin(ok("").after(ms(5))).upstream("slots = 1\nbreaker = false").opens();
    crowd(&world, 1, 50).await;
    world.origin.now(ok("").after(3 * SECOND));
    crowd(&world, 1, 20).await;
    let first = world.get("/").goes();
    world.breathes().await;
    let begun = world.clock.now();
    world.get("/").await.is(503).refused("queue.hopeless");
    assert_eq!(world.clock.now(), begun);
    first.await.is(200);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn readers_who_wait_for_each_other_are_all_served_where_the_queue_has_the_patience() {
    // Twelve for four slots of a machine that is busy: eight always wait, three to four seconds. A queue that stands for a
    // twentieth of its timeout is shortened, so with a minute some are turned away, and with ten nobody is.
    for (timeout, everybody) in [("1m", false), ("10m", true)] {
        let origin = by(|seen| ok("").after(ms(1600 + seen.number as u64 * 7919 % 400)));
        let keys = format!("slots = 4\nqueue = {{ max = 64, timeout = \"{timeout}\" }}");
        let world = world().origin(origin).upstream(&keys).opens();
        let ended = crowd(&world, 12, 10).await;
        assert_eq!(ended.iter().all(|(reason, _)| reason.is_empty()), everybody, "{timeout}");
        world.rests().await;
    }
}
