//! Each key of a route's `cache`, from the configuration to what a client gets.

use crate::harness::{Reply, SECOND, World, by, in_turn, ok, refused, status, world};

fn caching(keys: &str, origin: Reply) -> World {
    world().origin(origin).route(&format!("cache = {{ {keys} }}")).upstream("retry = false\nbreaker = false").opens()
}

/// How many requests for `targets`, one after the other, reach the origin.
async fn check_asked(keys: &str, origin: Reply, targets: &[&str], asked: usize) {
    let world = caching(keys, origin);
    for target in targets {
        world.get(target).await.is(200);
    }
    world.origin.was_asked(asked);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn ttl_counts_where_the_origin_says_nothing() {
    let world = caching("ttl = \"10s\"", ok("hello"));
    world.get("/").await.is(200);
    world.passes(9 * SECOND).await;
    world.get("/").await.has("cache-status", "vaxel; hit; ttl=1");
    world.passes(SECOND).await;
    world.get("/").await.has("cache-status", "vaxel; fwd=stale; fwd-status=200; stored");
    world.rests().await;
    check_asked("ttl = \"10s\"", ok("hello").cached("no-store"), &["/", "/"], 2).await;
    check_asked("ttl = \"10s\"", ok("hello").cached("max-age=0"), &["/", "/"], 2).await;
}

#[tokio::test(start_paused = true)]
async fn override_counts_where_the_origin_says_otherwise_but_never_over_private() {
    let keys = "ttl = \"10s\", override = true";
    for control in ["no-store", "no-cache", "max-age=0"] {
        check_asked(keys, ok("hello").cached(control), &["/", "/"], 1).await;
    }
    check_asked(keys, ok("hello").cached("private"), &["/", "/"], 2).await;
}

#[tokio::test(start_paused = true)]
async fn stale_while_revalidate_serves_and_refreshes() {
    let world = caching("ttl = \"10s\", stale_while_revalidate = \"5s\"", ok("hello"));
    world.get("/").await.is(200);
    world.passes(14 * SECOND).await;
    world.get("/").await.has("cache-status", "vaxel; hit; ttl=-4");
    world.breathes().await;
    world.origin.was_asked(2);
    world.get("/").await.has("cache-status", "vaxel; hit; ttl=10");
    world.passes(15 * SECOND).await;
    world.get("/").await.has("cache-status", "vaxel; fwd=stale; fwd-status=200; stored");
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn stale_if_error_stands_in_for_its_time() {
    let world = caching("ttl = \"10s\", stale_if_error = \"1m\"", ok("hello"));
    world.get("/").await.is(200);
    world.origin.now(refused());
    world.passes(69 * SECOND).await;
    world.get("/").await.is(200).says("hello");
    world.passes(SECOND).await;
    world.get("/").await.is(502);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn keep_is_how_long_an_answer_can_be_validated() {
    let origin = by(|seen| {
        let known = seen.headers.contains_key("if-none-match");
        if known { status(304).with("etag", "\"1\"") } else { ok("hello").cached("max-age=10").with("etag", "\"1\"") }
    });
    let world = world().origin(origin).route("cache = { keep = \"1m\" }").opens();
    world.get("/").await.is(200);
    world.passes(69 * SECOND).await;
    world.get("/").await.is(200).says("hello").has("cache-status", "vaxel; fwd=stale; fwd-status=304; stored");
    world.passes(70 * SECOND).await;
    world.get("/").await.is(200).has("cache-status", "vaxel; fwd=stale; fwd-status=200; stored");
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn negative_is_for_what_is_not_there() {
    let world = world()
        .origin(in_turn([status(404), status(410), ok("it is there now")]))
        .route("cache = { ttl = \"1h\", negative = \"2s\" }")
        .opens();
    for code in [404, 410] {
        world.get("/").await.is(code);
        world.get("/").await.is(code).has("cache-status", "vaxel; hit; ttl=2");
        world.passes(2 * SECOND).await;
    }
    world.get("/").await.is(200);
    world.origin.was_asked(3);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn query_says_which_parameters_make_another_answer() {
    let page = || ok("hello").cached("max-age=60");
    let targets = ["/?b=2&a=1", "/?a=1&b=2", "/?a=1&b=2&_=7"];
    check_asked("query = {}", page(), &targets, 3).await;
    check_asked("query = { sort = true }", page(), &targets, 2).await;
    check_asked("query = { drop = [\"_\"] }", page(), &targets, 2).await;
    check_asked("query = { sort = true, drop = [\"_\"] }", page(), &targets, 1).await;
    check_asked("query = { keep = [\"a\"] }", page(), &targets, 1).await;
    check_asked("query = { keep = [\"c\"] }", page(), &["/?c=1", "/?c=2", "/?a=3", "/"], 3).await;
}

#[tokio::test(start_paused = true)]
async fn max_entry_is_the_largest_body_stored() {
    let page = |size| ok(vec![b'x'; size]).cached("max-age=60");
    check_asked("max_entry = \"1KiB\"", page(1024), &["/", "/"], 1).await;
    check_asked("max_entry = \"1KiB\"", page(1025), &["/", "/"], 2).await;
}

#[tokio::test(start_paused = true)]
async fn what_goes_to_the_origin_is_the_path_that_was_routed_and_stored() {
    let rewrite = "rewrite = { strip = \"/old\", add = \"/new\" }\n";
    for (keys, spelled, plain, sent) in [
        ("", "/x/../a?q=/../", "/a?q=/../", "/a?q=/../"),
        ("", "/x/%2e%2E/a%2Fb", "/a%2Fb", "/a%2Fb"),
        ("", "/./a", "/a", "/a"),
        ("", "/a/%2E", "/a/", "/a/"),
        (rewrite, "/%6Fld/a?q", "/old/a?q", "/new/a?q"),
        (rewrite, "/x/../old/a", "/old/a", "/new/a"),
    ] {
        let world = world().origin(by(|seen| ok(seen.target.clone()).cached("max-age=60")));
        let world = world.route(&format!("{keys}cache = true")).opens();
        world.get(spelled).await.is(200).says(sent);
        world.get(plain).await.is(200).says(sent).has("cache-status", "vaxel; hit; ttl=60");
        world.rests().await;
    }
    // Slashes are merged for the rule, though `//old` is stored apart from `/old`.
    let merged = world().origin(by(|seen| ok(seen.target.clone()))).route(rewrite).opens();
    merged.get("//old/a//b").await.says("/new/a//b");
    merged.rests().await;
    // What no rule speaks of is spelled as the client does.
    let world = world().origin(by(|seen| ok(seen.target.clone()))).route("").opens();
    world.get("/%7Ea/%c3%a4//.b").await.says("/%7Ea/%c3%a4//.b");
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn methods_that_are_left_out_pass() {
    let world = caching("methods = \"GET\"", ok("hello").cached("max-age=60"));
    world.get("/").await.is(200);
    world.asks("HEAD", "/").await.has("cache-status", "vaxel; fwd=method; fwd-status=200; detail=method");
    world.get("/").await.has("cache-status", "vaxel; hit; ttl=60");
    world.asks("HEAD", "/").await.is(200);
    world.origin.was_asked(3);
    world.rests().await;
}
