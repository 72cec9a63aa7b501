//! What is stored, and what is answered from it.

use crate::harness::{SECOND, by, in_turn, ms, ok, status, world};

#[tokio::test(start_paused = true)]
async fn a_miss_is_stored_and_then_hit_with_its_age() {
    let world = world().origin(ok("hello").cached("max-age=60")).route("cache = true").opens();
    let missed = world.get("/a").await;
    missed.is(200).says("hello").has("cache-status", "vaxel; fwd=uri-miss; fwd-status=200; stored").lacks("age");
    world.passes(10 * SECOND).await;
    let hit = world.get("/a").await;
    hit.is(200).says("hello").has("cache-status", "vaxel; hit; ttl=50").has("age", "10");
    world.origin.was_asked(1);
    world.get("/b").await.is(200);
    world.origin.was_asked(2);
    world.counts("vaxel_requests_total{route=\"all\",cache=\"hit\"}", 1.0);
    world.counts("vaxel_requests_total{route=\"all\",cache=\"miss\"}", 2.0);
    world.counts("vaxel_client_aborts_total", 0.0);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn a_read_with_content_goes_past_the_store_with_its_content() {
    let answers = by(|seen| ok(seen.body.clone()).cached("max-age=60"));
    let world = world().origin(answers).route("cache = true").opens();
    world.get("/search").await.is(200).says("");
    for query in ["first", "second", "first"] {
        let found = world.get("/search").saying(query).await;
        found.is(200).says(query).has("cache-status", "vaxel; fwd=bypass; fwd-status=200; detail=content");
    }
    world.get("/search").await.is(200).says("").has("cache-status", "vaxel; hit; ttl=60");
    world.origin.was_asked(4);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_gone_when_its_time_is_over() {
    let world = world().origin(in_turn([ok("old").cached("max-age=60"), ok("new")])).route("cache = true").opens();
    world.get("/").await.says("old");
    world.passes(60 * SECOND).await;
    world.get("/").await.is(200).says("new");
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn a_route_without_a_cache_stores_nothing() {
    let world = world().origin(ok("hello").cached("max-age=60")).opens();
    for _ in 0..3 {
        world.get("/").await.is(200).says("hello").lacks("cache-status").lacks("age");
    }
    world.origin.was_asked(3);
    world.counts("vaxel_cache_entries", 0.0);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn each_language_has_its_own_variant() {
    let greet = by(|seen| {
        let word = if seen.field("accept-language") == "sv" { "hej" } else { "hello" };
        ok(word).cached("max-age=60").with("vary", "Accept-Language")
    });
    let world = world().origin(greet).route("cache = true").opens();
    let greeting = async |language| world.get("/").with("accept-language", language).await;
    greeting("sv").await.says("hej");
    let other = greeting("en").await;
    other.says("hello").has("cache-status", "vaxel; fwd=vary-miss; fwd-status=200; stored");
    greeting("sv").await.says("hej").has("cache-status", "vaxel; hit; ttl=60");
    greeting("en").await.says("hello").has("cache-status", "vaxel; hit; ttl=60");
    world.origin.was_asked(2);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn head_is_answered_from_a_stored_get() {
    let world = world().origin(ok("hello").cached("max-age=60")).route("cache = true").opens();
    world.get("/").await.says("hello");
    let head = world.asks("HEAD", "/").await;
    head.is(200).says("").has("content-length", "5").has("cache-status", "vaxel; hit; ttl=60");
    world.origin.was_asked(1);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn a_head_that_fetches_has_no_body_and_fills_the_store() {
    let script = in_turn([ok("old").cached("max-age=1").with("etag", "\"1\""), ok("newer").cached("max-age=60")]);
    let world = world().origin(script).route("cache = true").opens();
    world.get("/").await.says("old");
    world.passes(2 * SECOND).await;
    let head = world.asks("HEAD", "/").await;
    head.is(200).says("").has("content-length", "5");
    world.breathes().await;
    world.get("/").await.is(200).says("newer").has("cache-status", "vaxel; hit; ttl=60");
    world.origin.was_asked(2);
    world.counts("vaxel_client_aborts_total", 0.0);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn ranges_are_cut_from_the_stored_answer() {
    let page = ok("hello world").cached("max-age=60").with("etag", "\"1\"").with("content-type", "text/plain");
    let world = world().origin(page).route("cache = true").opens();
    world.get("/").await.says("hello world");
    let part = world.get("/").with("range", "bytes=0-4").await;
    part.is(206).says("hello").has("content-range", "bytes 0-4/11");
    world.get("/").with("range", "bytes=-5").await.is(206).says("world").has("content-range", "bytes 6-10/11");
    world.get("/").with("range", "bytes=20-").await.is(416).has("content-range", "bytes */11");
    let conditional = world.get("/").with("range", "bytes=0-4").with("if-range", "\"2\"").await;
    conditional.is(200).says("hello world");
    let several = world.get("/").with("range", "bytes=0-0, 10-10").await;
    assert!(several.is(206).field("content-type").starts_with("multipart/byteranges; boundary="));
    let text = String::from_utf8_lossy(&several.body).into_owned();
    assert!(text.contains("bytes 0-0/11") && text.contains("bytes 10-10/11"), "{text}");
    world.origin.was_asked(1);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn a_part_of_what_is_not_stored_is_passed_and_not_stored() {
    let part = status(206).with("content-range", "bytes 0-4/11").cached("max-age=60").then(ms(0), "hello");
    let world = world().origin(part).route("cache = true").opens();
    for _ in 0..2 {
        let part = world.get("/").with("range", "bytes=0-4").await;
        part.is(206).says("hello").has("cache-status", "vaxel; fwd=uri-miss; fwd-status=206; detail=range");
    }
    assert_eq!(world.origin.last().field("range"), "bytes=0-4");
    world.origin.was_asked(2);
    world.counts("vaxel_cache_entries", 0.0);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn only_if_cached_never_reaches_the_origin() {
    let world = world().origin(ok("hello").cached("max-age=60")).route("cache = true").opens();
    let absent = world.get("/").with("cache-control", "only-if-cached").await;
    absent.is(504).refused("cache.only_if_cached");
    world.origin.was_asked(0);
    world.get("/").await.is(200);
    world.get("/").with("cache-control", "only-if-cached").await.is(200).says("hello");
    world.origin.was_asked(1);
    world.counts("vaxel_refusals_total{reason=\"cache.only_if_cached\"}", 1.0);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn no_store_passes_in_both_directions() {
    let world = world().origin(ok("secret").cached("no-store")).route("cache = true").opens();
    world.get("/a").await.is(200).has("cache-status", "vaxel; fwd=uri-miss; fwd-status=200; detail=no_store");
    world.get("/a").await.is(200);
    world.origin.was_asked(2);
    world.origin.now(ok("open").cached("max-age=60"));
    world.get("/b").with("cache-control", "no-store").await.is(200).says("open");
    world.get("/b").with("cache-control", "no-store").await.is(200);
    world.origin.was_asked(4);
    world.counts("vaxel_cache_entries", 0.0);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn a_successful_unsafe_request_invalidates_what_is_stored() {
    let shop = by(|seen| match seen.method.as_str() {
        "GET" => ok(format!("page {}", seen.number)).cached("max-age=60"),
        _ if seen.field("x-fails") == "yes" => status(409),
        _ => status(201).with("location", "/list"),
    });
    let world = world().origin(shop).route("cache = true").opens();
    world.get("/item").await.says("page 0");
    world.get("/list").await.says("page 1");
    world.asks("POST", "/item").with("x-fails", "yes").await.is(409);
    world.get("/item").await.says("page 0");
    world.asks("POST", "/item").await.is(201);
    world.get("/item").await.says("page 4");
    world.get("/list").await.says("page 5");
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn a_reload_by_the_user_asks_the_origin() {
    let counting = by(|seen| ok(format!("{}", seen.number)).cached("max-age=60"));
    let world = world().origin(counting).route("cache = true").opens();
    world.get("/").await.says("0");
    world.get("/").await.says("0");
    let reloaded = world.get("/").with("cache-control", "no-cache").await;
    reloaded.is(200).says("1");
    world.get("/").await.says("1");
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn a_body_larger_than_an_entry_streams_through_unstored() {
    let large = "x".repeat(3000);
    let announced = ok(large.clone()).cached("max-age=60");
    let unannounced = ok("y".repeat(800)).cached("max-age=60").then(ms(5), "y".repeat(2200)).unannounced();
    let script = by(move |seen| if seen.target == "/a" { announced.clone() } else { unannounced.clone() });
    let world = world().origin(script).route("cache = { max_entry = \"1KiB\" }").opens();
    for path in ["/a", "/b", "/a", "/b"] {
        assert_eq!(world.get(path).await.is(200).body.len(), 3000, "{path}");
    }
    world.origin.was_asked(4);
    world.counts("vaxel_cache_entries", 0.0);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_reads_exactly_the_announced_length_has_not_left() {
    let page = ok("hello").then(ms(10), " world").cached("max-age=60");
    let world = world().origin(page).route("cache = true").opens();
    // As hyper does: it drops a body whose announced length has come, without asking for its end.
    for _ in 0..2 {
        let mut answer = world.get("/").opens().await;
        let mut read = answer.piece().await.len();
        while read < 11 {
            read += answer.piece().await.len();
        }
        drop(answer);
    }
    world.counts("vaxel_client_aborts_total", 0.0);
    world.counts("vaxel_response_bytes_total", 22.0);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn what_a_trusted_peer_says_of_https_counts_for_the_key_and_a_strangers_word_does_not() {
    let answers = || by(|seen| ok(seen.field("x-forwarded-proto").to_owned()).cached("max-age=60"));
    for (trusted, https) in [("127.0.0.0/8", "https"), ("10.0.0.0/8", "http")] {
        let world = world().origin(answers()).route("cache = true");
        let world = world.gateway(&format!("[forwarded]\ntrusted = [\"{trusted}\"]\n")).opens();
        world.get("/").with("x-forwarded-proto", "http").await.says("http");
        world.breathes().await;
        world.get("/").with("x-forwarded-proto", "https").await.says(https);
        world.rests().await;
    }
}
