//! POST requests that only read, where the route says so.

use vaxel::cache::purge::Depth;
use vaxel::gateway::cache::Extent;

use crate::harness::{SECOND, Script, World, by, in_turn, ok, reset, status, world};

const READS: &str = "cache = { ttl = \"10s\", stale_while_revalidate = \"1m\", stale_if_error = \"1h\", post = true }";

/// Says what it was asked, and how often.
fn echo() -> Script {
    by(|seen| ok(format!("{} {} {}", seen.number, seen.method, String::from_utf8_lossy(&seen.body))))
}

fn opened(config: &str) -> World {
    world().origin(echo()).route(config).opens()
}

async fn says(world: &World, question: &str, answer: &str) {
    world.asks("POST", "/rpc").saying(question.to_owned()).await.is(200).says(answer);
    world.breathes().await;
}

#[tokio::test(start_paused = true)]
async fn the_same_question_is_answered_from_the_store() {
    let world = opened(READS);
    says(&world, "[1]", "0 POST [1]").await;
    says(&world, "[2]", "1 POST [2]").await;
    says(&world, "[1]", "0 POST [1]").await;
    let hit = world.asks("POST", "/rpc").saying("[2]").with("if-none-match", "*").await;
    hit.is(200).says("1 POST [2]").has("cache-status", "vaxel; hit; ttl=10");
    // Another question by a field that counts, by its URL, by its method.
    world.asks("POST", "/rpc").saying("[1]").with("soapaction", "x").await.says("2 POST [1]");
    world.asks("POST", "/rpc?x").saying("[1]").await.says("3 POST [1]");
    world.get("/rpc").await.says("4 GET ");
    world.asks("POST", "/rpc").await.says("5 POST ");
    says(&world, "[1]", "0 POST [1]").await;
    world.counts("vaxel_requests_total{method=\"POST\",cache=\"hit\"}", 3.0);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn bodies_that_say_the_same_are_one_question() {
    for (canonical, one, other) in
        [("json", "{\"a\": 1, \"b\": [2]}", "{\"b\":[2],\"a\":1}"), ("form", "a=1&b=2", "b=2&a=1")]
    {
        let world = opened(&format!("cache = {{ ttl = \"10s\", post = {{ canonical = \"{canonical}\" }} }}"));
        let first = format!("0 POST {one}"); // as its client spelled it
        says(&world, one, &first).await;
        says(&world, other, &first).await;
        world.rests().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_crowd_with_one_question_reaches_the_origin_once() {
    let slow = by(|seen| ok(String::from_utf8_lossy(&seen.body).into_owned()).after(SECOND));
    let world = world().origin(slow).route(READS).opens();
    let visits: Vec<_> =
        (0..20).map(|n| (n, world.asks("POST", "/rpc").saying(format!("[{}]", n % 2)).goes())).collect();
    for (n, visit) in visits {
        visit.await.is(200).says(&format!("[{}]", n % 2));
    }
    world.origin.was_asked(2);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn a_stale_answer_is_refreshed_with_its_question_and_stands_in() {
    let world = opened(READS);
    says(&world, "[1]", "0 POST [1]").await;
    world.passes(11 * SECOND).await;
    says(&world, "[1]", "0 POST [1]").await;
    says(&world, "[1]", "1 POST [1]").await;
    world.origin.now(status(500));
    world.passes(100 * SECOND).await;
    says(&world, "[1]", "1 POST [1]").await;
    world.counts("vaxel_requests_total{cache=\"stale_error\"}", 1.0);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn a_question_that_is_too_long_passes_whole() {
    let world = opened("cache = { ttl = \"1h\", post = { max_body = \"8B\" } }\ngroup = \"orders\"");
    says(&world, "12345678", "0 POST 12345678").await;
    let long = world.asks("POST", "/rpc").saying("123456789").await;
    long.is(200).says("1 POST 123456789").has("cache-status", "vaxel; fwd=bypass; fwd-status=200; detail=body");
    says(&world, "123456789", "2 POST 123456789").await;
    says(&world, "12345678", "0 POST 12345678").await;
    world.counts("vaxel_cache_events_total{event=\"invalidated\"}", 0.0);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_written_outdates_questions_as_well() {
    let world = opened("cache = { ttl = \"1h\", post = true }");
    says(&world, "[1]", "0 POST [1]").await;
    world.passes(SECOND).await;
    world.asks("PUT", "/rpc").saying("[3]").await.is(200);
    world.passes(SECOND).await;
    says(&world, "[1]", "2 POST [1]").await;
    // A tunnelled method is the real one.
    world.asks("POST", "/rpc").saying("[1]").with("x-http-method", "MERGE").await.says("3 POST [1]");
    world.passes(SECOND).await;
    says(&world, "[1]", "4 POST [1]").await;
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn each_identity_has_answers_to_its_own_questions() {
    let world = opened("cache = { ttl = \"1h\", per_consumer = true, post = true }");
    for (user, answer) in [("a", "0 POST []"), ("b", "1 POST []"), ("a", "0 POST []"), ("b", "1 POST []")] {
        world.asks("POST", "/rpc").saying("[]").with("authorization", user).await.says(answer);
        world.breathes().await;
    }
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn a_question_may_be_asked_again() {
    let world = world().origin(in_turn([reset(), ok("well")])).route(READS).opens();
    says(&world, "[1]", "well").await;
    let seen = world.origin.seen();
    assert_eq!(seen.iter().map(|seen| &*seen.body).collect::<Vec<_>>(), [b"[1]", b"[1]"]);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn without_the_routes_word_a_post_is_a_write() {
    let world = opened("cache = { ttl = \"1h\" }");
    says(&world, "[1]", "0 POST [1]").await;
    says(&world, "[1]", "1 POST [1]").await;
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn a_purge_by_url_or_route_reaches_what_was_read_by_post() {
    let world = world().origin(echo()).gateway(
        "[[route]]\nname = \"rpc\"\nupstream = \"erp\"\nmatch = { path = \"/rpc\", methods = \"POST\" }\n\
         cache = { ttl = \"1m\", post = true, query = { sort = true } }\n",
    );
    let world = world.opens();
    let question = || world.asks("POST", "/rpc?b&a").saying("[1]");
    let purge = |extent| world.handle.purge(&extent, Depth::Hard);
    question().await.says("0 POST [1]");
    question().await.says("0 POST [1]");
    assert_eq!(purge(Extent::Route("rpc".to_owned())).unwrap(), 1);
    world.passes(SECOND).await;
    question().await.says("1 POST [1]");
    world.breathes().await;
    assert_eq!(purge(Extent::Url("http://erp.example/rpc?a&b".parse().unwrap())).unwrap(), 1);
    question().await.says("2 POST [1]");
    world.rests().await;
}
