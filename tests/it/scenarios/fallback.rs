//! What answers when the upstream cannot: what is stale, then another upstream, then a fixed answer, then a refusal.

use crate::harness::{Config, Plan, SECOND, World, hang, in_turn, ms, ok, refused, status, world};

/// One of two upstreams stands in for the other.
fn plan() -> Plan {
    world()
        .upstream("retry = false")
        .route("fallback = { upstream = \"mirror\", body = \"fixed\" }")
        .gateway("[upstream.mirror]\nendpoints = \"http://mirror:8000\"\nslots = 2\nqueue = { max = 0 }")
}

#[track_caller]
fn asked(world: &World, origin: usize, mirror: usize) {
    assert_eq!((world.origin.asked(), world.mirror.asked()), (origin, mirror), "asked: origin, mirror");
}

#[tokio::test(start_paused = true)]
async fn another_upstream_answers_safe_requests_and_only_those() {
    for (reply, error) in [(refused(), "connection_refused"), (status(503), "http_response_incomplete")] {
        let world = plan().origin(reply).opens();
        world.mirror.now(ok("mirrored").cached("max-age=60"));
        let answer = world.get("/a?b").with("x-user", "anna").await;
        answer.is(200).says("mirrored");
        assert!(answer.field("proxy-status").starts_with(&format!("vaxel; error={error}")), "{answer:?}");
        assert_eq!((world.mirror.last().target.as_str(), world.mirror.last().field("x-user")), ("/a?b", "anna"));
        world.asks("HEAD", "/a").await.is(200);
        asked(&world, 2, 2);
        let post = world.asks("POST", "/a").saying("x").await;
        assert!(post.status.is_server_error(), "{post:?}");
        asked(&world, 3, 2);
        world.rests().await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_stale_goes_first_then_the_mirror_and_nothing_of_it_is_stored() {
    let old = ok("old").cached("max-age=1, stale-if-error=10");
    let world = plan().route("cache = true").origin(in_turn([old, refused()])).opens();
    world.mirror.now(ok("mirrored").cached("max-age=60"));
    world.get("/").await.says("old");
    world.passes(5 * SECOND).await;
    world.get("/").await.is(200).says("old");
    asked(&world, 2, 0);
    world.passes(10 * SECOND).await;
    world.get("/").await.is(200).says("mirrored");
    world.get("/").await.is(200).says("mirrored");
    assert_eq!(world.mirror.asked(), 2);
    world.origin.now(ok("new").cached("max-age=60"));
    world.passes(60 * SECOND).await;
    world.get("/").await.is(200).says("new");
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn those_who_wait_for_one_fill_are_all_answered_by_the_mirror() {
    let world = plan().route("cache = true").origin(status(500).after(SECOND)).opens();
    let visits: Vec<_> = (0..2).map(|_| world.get("/").goes()).collect();
    for visit in visits {
        visit.await.is(200).says("mirrored");
    }
    asked(&world, 1, 2);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn the_mirror_is_asked_once_under_its_own_slots_and_then_the_fixed_answer_stands_in() {
    let world = plan().origin(refused()).opens();
    world.mirror.now(status(502));
    world.get("/").await.is(503).says("fixed").has("proxy-status", "vaxel; error=connection_refused");
    asked(&world, 1, 1);
    world.mirror.now(ok("mirrored").after(SECOND));
    let visits: Vec<_> = (0..5).map(|_| world.get("/").goes()).collect();
    world.breathes().await;
    assert_eq!(world.mirror.running(), 2, "its own slots");
    let mut mirrored = 0;
    for visit in visits {
        mirrored += usize::from(visit.await.status == 200);
    }
    assert_eq!(mirrored, 2);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn an_open_breaker_leads_to_the_mirror_whose_own_opens_too() {
    let breaker = "breaker = { minimum = 2 }";
    let world = plan().upstream(breaker).gateway(breaker).origin(refused()).opens();
    for _ in 0..4 {
        world.get("/").await.is(200).says("mirrored");
    }
    asked(&world, 2, 4);
    world.mirror.now(refused());
    for _ in 0..4 {
        world.get("/").await.is(503).says("fixed");
    }
    let open = "vaxel_breaker_state{upstream=\"mirror\",state=\"open\"}";
    world.counts(open, 1.0);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn what_the_caller_did_leads_nowhere_else() {
    let world = plan().route("deadline = \"x-timeout-ms\"").origin(hang()).upstream("zombie_hold = \"1s\"").opens();
    world.get("/").with("x-timeout-ms", "100").await.is(503).says("fixed");
    asked(&world, 1, 0);
    world.origin.now(status(404));
    world.get("/").await.is(404);
    asked(&world, 2, 0);
    world.passes(ms(2000)).await;
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn a_file_stands_in_and_is_read_anew_at_a_reload() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sorry.html");
    let keys = format!("fallback = {{ content_type = \"text/html\", body_file = {file:?} }}");
    std::fs::write(&file, "<p>Back at noon").unwrap();
    let world = world().upstream("retry = false\nbreaker = false").route(&keys).origin(refused()).opens();
    world.get("/").await.is(503).says("<p>Back at noon").has("content-type", "text/html");
    world.asks("HEAD", "/").await.is(503).says("").has("content-length", "15");
    std::fs::write(&file, "<p>Back at one").unwrap();
    world.get("/").await.is(503).says("<p>Back at noon");
    world.reload(&Config::default().upstream("retry = false\nbreaker = false").route(&keys)).unwrap();
    world.get("/").await.is(503).says("<p>Back at one");
    world.rests().await;
}
