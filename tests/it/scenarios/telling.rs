//! Vaxel tells what became of a request: `vaxel why`.

use vaxel::gateway::why::{Account, Kept};

use crate::harness::{Answer, SECOND, World, in_turn, ms, ok, reset, status, world};

/// The account of the refusal that `answer` is, by the id it carries.
#[track_caller]
fn account(world: &World, answer: &Answer) -> Account {
    let id = answer.field("vaxel-request-id");
    assert_eq!(answer.problem()["request_id"], id.as_str());
    let found = world.handle.why(&id);
    assert_eq!(found.len(), 1, "{id}");
    found.into_iter().next().unwrap()
}

#[track_caller]
fn tells(account: &Account, sentence: &str) {
    let story = account.story();
    assert!(story.iter().any(|told| told.contains(sentence)), "no {sentence:?} in {story:#?}");
}

fn kept(world: &World) -> Vec<Kept> {
    world.handle.accounts(100, None).iter().map(|account| account.kept).collect()
}

#[tokio::test(start_paused = true)]
async fn a_refusal_carries_the_id_of_its_account() {
    let world = world().origin(ok("")).route("rate = { limit = \"1/s\" }").opens();
    world.get("/a").await.is(200).lacks("vaxel-request-id");
    let over = world.get("/a").with("x-request-id", "order-7").await;
    over.is(429).lacks("x-request-id");
    let account = account(&world, &over);
    tells(&account, "rate: over that of the route (0 more at once");
    tells(&account, "answered 429");
    tells(&account, "rate.exceeded: The consumer is over its rate. Told to come back after");
    assert!(account.attempts.is_empty());
    assert_eq!(world.handle.why("order-7"), [account]);
    assert_eq!(world.handle.why("order-8"), []);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn attempts_are_told_with_endpoint_outcome_and_pause() {
    let world = world().origin(in_turn([reset(), ok("well")])).opens();
    world.get("/a").await.is(200);
    let accounts = world.handle.accounts(10, Some("retried"));
    assert_eq!(accounts.len(), 1);
    let account = &accounts[0];
    assert_eq!((account.tries, account.attempts.len()), (2, 2));
    tells(account, "gate: gear drive, breaker closed");
    tells(account, "attempt 1: http://erp:8000 failed after 0.0 ms: upstream.reset; tried again after a pause of");
    tells(account, "attempt 2: http://erp:8000 answered 200 after 0.0 ms");
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn whom_another_upstream_answered_is_told_so() {
    let world = world().upstream("retry = false").route("fallback = { upstream = \"mirror\" }");
    let world = world.gateway("[upstream.mirror]\nendpoints = \"http://mirror:8000\"").origin(status(503)).opens();
    world.mirror.now(ok("mirrored"));
    world.get("/").with("x-request-id", "order-7").await.is(200).says("mirrored");
    let accounts = world.handle.why("order-7");
    tells(&accounts[0], "attempt 1: http://erp:8000 answered 503");
    tells(&accounts[0], "attempt 2: http://mirror:8000 answered 200");
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn a_place_in_the_queue_is_told_and_the_wait() {
    let world =
        world().origin(ok("").after(SECOND)).upstream("slots = 1\nqueue = { max = 2, timeout = \"1500ms\" }").opens();
    let first = world.get("/1").goes();
    world.breathes().await;
    let second = world.get("/2").goes();
    world.breathes().await;
    let third = world.get("/3").goes();
    world.breathes().await;
    let fourth = world.get("/4").await;
    tells(&account(&world, &fourth), "queue: as normal, no place in it; 2 others waited already");
    let third = third.await;
    let told = account(&world, third.refused("queue.timeout"));
    tells(&told, "queue: as normal, waited 1.50 s for a slot; one other waited already");
    first.await.is(200);
    second.await.is(200);
    let waited = world.handle.accounts(10, Some("waited"));
    assert_eq!(waited.len(), 1);
    tells(&waited[0], "queue: as normal, waited 1.00 s for a slot; nobody else waited");
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn a_fill_is_told_as_its_leaders_and_a_plain_hit_is_forgotten() {
    let origin = in_turn([ok("a").cached("max-age=10, stale-while-revalidate=60"), status(500)]);
    let world = world().origin(origin).route("cache = true").opens();
    world.get("/a").await.is(200);
    world.breathes().await;
    let before = kept(&world);
    world.get("/a").await.is(200).has("age", "0");
    assert_eq!(kept(&world), before, "a plain hit");
    world.passes(20 * SECOND).await;
    world.get("/a").await.is(200);
    let stale = world.handle.accounts(1, Some("stale"));
    tells(&stale[0], "cache: stale: stale, from the store");
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn who_leaves_is_told_where_the_request_was() {
    let world = world().origin(ok("").after(SECOND)).opens();
    let visit = world.get("/a").goes();
    world.passes(ms(100)).await;
    visit.leaves().await;
    world.breathes().await;
    let left = world.handle.accounts(1, Some("left"));
    tells(&left[0], "attempt 1: http://erp:8000 was under way still");
    tells(&left[0], "answered 499 after 100.0 ms, 0 bytes; the client left before it had all");
    world.passes(2 * SECOND).await;
    world.rests().await;
}
