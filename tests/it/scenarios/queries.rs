//! Query parameters that an answer says it does not depend on (No-Vary-Search).

use crate::harness::{SECOND, World, by, ok, world};

fn says(field: &'static str) -> World {
    let page = by(move |seen| {
        ok(format!("page {}", seen.number)).cached("max-age=60").with("no-vary-search", field).with("vary", "foo")
    });
    world().origin(page).route("cache = true").opens()
}

#[tokio::test(start_paused = true)]
async fn an_answer_serves_the_queries_it_does_not_depend_on() {
    let world = says("key-order, params=(\"utm\")");
    world.get("/a?x=1&y=2&utm=3").await.says("page 0");
    world.get("/a?y=2&x=1").await.is(200).says("page 0").has("cache-status", "vaxel; hit; ttl=60");
    world.get("/a?y=2&utm=4&x=1").with("range", "bytes=0-3").await.is(206).says("page");
    world.get("/a?x=1&y=3").await.says("page 1");
    world.get("/b?x=1&y=2").await.says("page 2");
    world.get("/a?y=2&x=1").with("foo", "1").await.says("page 3");
    world.origin.was_asked(4);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn a_query_that_does_not_count_at_all_is_as_good_as_none() {
    let world = says("params, except=(\"id\")");
    world.get("/a").await.says("page 0");
    world.get("/a?utm=1").await.says("page 0");
    world.get("/a?id=1").await.says("page 1");
    world.get("/a?utm=1&id=1").await.says("page 1");
    world.origin.was_asked(2);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn only_a_fresh_answer_serves_other_queries_and_only_while_it_is_stored() {
    let world = says("params=(\"utm\")");
    world.get("/a?utm=1").await.says("page 0");
    world.get("/a?utm=2").with("cache-control", "no-cache").await.says("page 1");
    world.passes(61 * SECOND).await;
    world.get("/a?utm=3").await.says("page 2");
    world.get("/a?utm=4").await.says("page 2");
    world.asks("DELETE", "/a?utm=3").await;
    world.get("/a?utm=4").await.says("page 4");
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_no_longer_says_so_serves_its_own_query_alone() {
    let world = says("params=(\"utm\")");
    world.get("/a?utm=1").await.says("page 0");
    world.origin.now(by(|seen| ok(format!("page {}", seen.number)).cached("max-age=60")));
    world.get("/a?utm=1").with("cache-control", "no-cache").await.says("page 1");
    world.get("/a?utm=2").await.says("page 2");
    world.rests().await;
}
