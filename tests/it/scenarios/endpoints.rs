//! Of several endpoints those that fail are left out for a while, and come back slowly.

use crate::harness::{SECOND, World, by, ok, status, world};

const THREE: &str = "endpoints = [\"http://a\", \"http://b\", \"http://c\"]\nhost = \"upstream\"\nbreaker = false\n";

/// How many requests of `requests` more came to `host`.
async fn share(world: &World, host: &str, requests: usize) -> usize {
    let at = || world.origin.seen().iter().filter(|seen| seen.field("host") == host).count();
    let before = at();
    for _ in 0..requests {
        world.get("/").await;
    }
    at() - before
}

#[tokio::test(start_paused = true)]
async fn one_that_breaks_five_in_a_row_is_left_out_and_comes_back_slowly() {
    let origin = by(|seen| if seen.field("host") == "b" { status(500) } else { ok("") });
    let world = world().origin(origin).upstream(THREE).upstream("retry = false").opens();
    assert_eq!(share(&world, "b", 15).await, 5);
    let up = "vaxel_endpoint_up{upstream=\"erp\",endpoint=\"http://b\"}";
    world.counts(up, 0.0);
    assert_eq!(share(&world, "b", 100).await, 0);
    world.passes(10 * SECOND).await;
    world.counts(up, 1.0);
    assert!(share(&world, "b", 300).await >= 1);
    world.counts(up, 0.0);
    world.origin.now(ok("well"));
    world.passes(20 * SECOND).await;
    let cold = share(&world, "b", 600).await;
    assert!((1..=60).contains(&cold), "{cold} of 600: a tenth of its third to begin with");
    world.passes(30 * SECOND).await;
    let warm = share(&world, "b", 600).await;
    assert!((180..=220).contains(&warm), "{warm} of 600");
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn a_retry_goes_to_another_one() {
    let origin = by(|seen| if seen.field("host") == "b" { status(500) } else { ok("") });
    let world = world().origin(origin).upstream(THREE).upstream("retry = { budget = 1.0 }").opens();
    for _ in 0..30 {
        world.get("/").await.is(200);
    }
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn where_all_of_them_fail_at_least_half_are_still_asked() {
    let world = world().origin(status(500)).upstream(THREE).upstream("retry = false").opens();
    let asked = share(&world, "a", 60).await + share(&world, "b", 60).await + share(&world, "c", 60).await;
    world.get("/").await.is(500);
    assert!(asked > 0);
    let out = ["a", "b", "c"].map(|host| world.metric(&format!("vaxel_endpoint_up{{endpoint=\"http://{host}\"}}")));
    assert_eq!(out.iter().sum::<f64>(), 2.0, "one of three: {out:?}");
    world.rests().await;
}
