//! Hits whose head goes over the connection as it is stored: they say what all hits say.

use std::time::Duration;

use http::{HeaderMap, Version};
use proptest::prelude::*;
use vaxel::Hooks;

use crate::harness::{Answer, Reply, SECOND, World, in_virtual_time, ok, status, world};

/// Two who may ask for the same: what one has asked for is not taken from the other.
const TWINS: &str = r#"
[consumer.one]
identify = { network = "10.0.0.0/8" }
rate = { limit = "2/s", burst = 20 }
quota = { limit = 100, per = "day" }

[consumer.other]
identify = { network = "11.0.0.0/8" }
rate = { limit = "2/s", burst = 20 }
quota = { limit = 100, per = "day" }
"#;

/// What both get: by fields, and by wire.
async fn both(world: &World, method: &str, fields: &[(&str, &str)]) -> [Answer; 2] {
    let ask = |address: [u8; 4]| {
        let request = world.client_at(address).asks(method, "/a");
        fields.iter().fold(request, |request, (name, value)| request.with(name, value))
    };
    [ask([10, 0, 0, 1]).await, ask([11, 0, 0, 1]).by_wire().await]
}

/// Each field with its lines in order. What frames a body is said by the server where fields are made.
fn said(answer: &Answer, method: &str) -> Vec<(String, Vec<u8>)> {
    let mut headers: HeaderMap = answer.headers.clone();
    if method == "GET" && !answer.preset {
        headers.insert("content-length", answer.body.len().into());
    }
    let mut said: Vec<_> = headers.iter().map(|(name, value)| (name.to_string(), value.as_bytes().to_vec())).collect();
    said.sort_by(|(one, _), (other, _)| one.cmp(other));
    said
}

#[track_caller]
fn agree([fields, wire]: &[Answer; 2], method: &str) {
    assert_eq!((fields.status, &fields.body), (wire.status, &wire.body));
    assert_eq!(said(fields, method), said(wire, method));
}

fn answers() -> impl Strategy<Value = Reply> {
    let status = prop_oneof![Just(200_u16), Just(203), Just(301), Just(404), Just(410), Just(299)];
    let names = prop::sample::select(vec![
        "content-type",
        "etag",
        "date",
        "retry-after",
        "via",
        "x-a",
        "x-b",
        "ratelimit",
        "x-ratelimit-limit",
        "connection",
    ]);
    let field = (names, "[!-~]([ -~]{0,20}[!-~])?");
    (status, prop::collection::vec(field, 0..8), "[a-z]{0,40}").prop_map(|(status, fields, body)| {
        fields
            .iter()
            .fold(ok(body).status(status).cached("max-age=60, stale-while-revalidate=60"), |reply, (name, value)| {
                reply.with(name, value)
            })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn a_hit_says_the_same_either_way(
        reply in answers(), is_head: bool, age in 0_u64..120, told in prop::sample::select(vec!["ratelimit", "x-ratelimit", "both", "off"]),
    ) {
        in_virtual_time(async {
            let limits = format!("[limits]\nfields = \"{told}\"\n{TWINS}");
            let world = world().origin(reply).route("cache = true\nrate = { limit = \"3/s\", burst = 30 }").gateway(&limits);
            let world = world.opens();
            for answer in both(&world, "GET", &[]).await {
                assert!(!answer.preset || answer.headers.contains_key("age"), "{answer:?}");
            }
            world.passes(Duration::from_secs(age)).await;
            let method = if is_head { "HEAD" } else { "GET" };
            let answers = both(&world, method, &[]).await;
            let is_hit = answers[0].field("cache-status").starts_with("vaxel; hit");
            assert_eq!([answers[0].preset, answers[1].preset], [false, is_hit], "{answers:?}");
            agree(&answers, method);
            world.rests().await;
        });
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn an_answer_that_passes_says_the_same_either_way(reply in answers(), caches: bool, is_head: bool) {
        in_virtual_time(async {
            let world = world().origin(reply.with("cache-control", "no-store")).gateway(TWINS);
            let route = "rate = { limit = \"3/s\", burst = 30 }\nresponse_headers = { set = {} }";
            let world = world.route(&format!("{route}\n{}", if caches { "cache = true" } else { "" })).opens();
            // What the first one brings, the others know: that it is not stored.
            world.get("/a").await;
            agree(&both(&world, if is_head { "HEAD" } else { "GET" }, &[]).await, "GET");
            agree(&both(&world, "POST", &[]).await, "POST");
            world.rests().await;
        });
    }
}

/// Takes the hand of an embedding program that does nothing.
struct Idle;

impl Hooks for Idle {}

#[tokio::test(start_paused = true)]
async fn what_is_no_plain_hit_is_told_in_fields() {
    let page = || ok("hello").cached("max-age=60").with("etag", "\"a\"");
    let plan = || world().origin(page()).gateway(TWINS);
    let check = async |world: World, fields: &[(&str, &str)], preset: bool| {
        world.get("/a").await.is(200);
        let answers = both(&world, "GET", fields).await;
        assert_eq!(answers[1].preset, preset, "{answers:?}");
        agree(&answers, "GET");
        world.rests().await;
    };
    check(plan().route("cache = true").opens(), &[], true).await;
    check(plan().route("cache = true").opens(), &[("if-none-match", "\"b\"")], true).await;
    check(plan().route("cache = true").opens(), &[("if-none-match", "\"a\"")], false).await;
    check(plan().route("cache = true").opens(), &[("range", "bytes=0-1")], false).await;
    check(plan().route("cache = true").opens(), &[("range", "bytes=9-")], false).await;
    check(plan().route("cache = true\nresponse_headers = { set = { x-new = \"1\" } }").opens(), &[], false).await;
    check(plan().route("cache = true").hooks(Idle).opens(), &[], false).await;
    check(plan().opens(), &[], false).await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_without_content_and_an_older_client_are_told_in_fields() {
    let world = world().origin(status(204).cached("max-age=60")).route("cache = true").opens();
    world.get("/a").await.is(204);
    let answer = world.get("/a").by_wire().await;
    answer.is(204).has("cache-status", "vaxel; hit; ttl=60").lacks("content-length");
    assert!(!answer.preset);
    world.origin.now(ok("hello").cached("max-age=60"));
    world.get("/b").await.is(200);
    assert!(world.get("/b").by_wire().await.preset);
    for version in [Version::HTTP_10, Version::HTTP_2] {
        assert!(!world.get("/b").version(version).by_wire().await.is(200).preset, "{version:?}");
    }
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn what_stands_in_for_an_error_says_so_either_way() {
    let world = world().origin(ok("old").cached("max-age=10, stale-if-error=60")).route("cache = true");
    let world = world.upstream("retry = false\nbreaker = false").gateway(TWINS).opens();
    world.get("/a").await.says("old");
    world.passes(20 * SECOND).await;
    world.origin.now(status(503));
    agree(&both(&world, "GET", &[]).await, "GET");
    world.rests().await;
}
