//! What is written outdates what was read.

use crate::harness::{Config, Reply, SECOND, Script, World, by, hang, ms, ok, refused, reset, status, world};

/// Two routes that show the same data, one more through which it is written, and one of another group.
const GROUP: &str = "
[[route]]\nname = \"v4\"\nupstream = \"erp\"\nmatch = { path = \"/v4/{*rest}\" }
cache = { ttl = \"1h\", override = true }\ngroup = \"orders\"
[[route]]\nname = \"write\"\nupstream = \"erp\"\nmatch = { path = \"/write\" }\ngroup = \"orders\"
[[route]]\nname = \"other\"\nupstream = \"erp\"\nmatch = { path = \"/other\" }\ncache = { ttl = \"1h\" }\ngroup = \"stock\"
";
const ROUTE: &str = "cache = { ttl = \"1h\", stale_if_error = \"1h\" }\ngroup = \"orders\"";
const UPSTREAM: &str =
    "retry = false\nbreaker = false\ntimeouts = { head = \"2s\", total = \"9s\" }\nzombie_hold = \"5s\"";

/// Reads are numbered; writes do as they are told.
fn shop(write: Reply) -> Script {
    by(move |seen| match seen.method.as_str() {
        "GET" if seen.field("x-http-method").is_empty() => ok(seen.number.to_string()),
        _ => write.clone(),
    })
}

fn opened(script: impl Into<Script>) -> World {
    world().origin(script).route(ROUTE).upstream(UPSTREAM).gateway(GROUP).opens()
}

async fn says(world: &World, target: &str, body: &str) {
    world.get(target).await.is(200).says(body);
    world.breathes().await;
}

#[tokio::test(start_paused = true)]
async fn a_write_outdates_what_all_routes_of_its_group_have_stored() {
    let world = opened(shop(status(204)));
    for (number, target) in ["/v2/a", "/v2/b", "/v4/a", "/other"].into_iter().enumerate() {
        says(&world, target, &number.to_string()).await;
        says(&world, target, &number.to_string()).await;
    }
    world.passes(SECOND).await;
    world.asks("POST", "/write").await.is(204);
    world.passes(SECOND).await;
    world.get("/v2/a").await.says("5").has("cache-status", "vaxel; fwd=stale; fwd-status=200; stored; detail=outdated");
    says(&world, "/v2/b", "6").await;
    says(&world, "/v4/a", "7").await;
    says(&world, "/other", "3").await;
    says(&world, "/v2/a", "5").await;
    world.counts("vaxel_cache_events_total{route=\"write\",event=\"invalidated\"}", 1.0);
    world.counts("vaxel_cache_events_total{event=\"outdated\"}", 3.0);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_write_decides() {
    for (why, write, outdates) in [
        ("done", status(200), true),
        ("elsewhere", status(303), true),
        ("refused", status(400), false),
        ("conflict", status(409), false),
        ("precondition", status(412), false),
        ("token", status(403).with("x-csrf-token", "Required"), false),
        ("broken", status(500), true),
        ("overloaded", status(503), true),
        ("reset", reset(), true),
        ("timeout", hang(), true),
        ("never sent", refused(), false),
    ] {
        let world = opened(shop(write));
        says(&world, "/v2/a", "0").await;
        world.asks("POST", "/write").await;
        world.passes(10 * SECOND).await;
        says(&world, "/v2/a", if outdates { "2" } else { "0" }).await;
        world.counts("vaxel_cache_events_total{event=\"outdated\"}", f64::from(u8::from(outdates)));
        assert!(world.metric("vaxel_cache_events_total{event=\"invalidated\"}") < 3.0, "{why}");
        world.rests().await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_real_method_counts_and_an_unknown_one_is_a_write() {
    for (method, tunnelled, outdates) in [
        ("MERGE", "", true),
        ("PATCH", "", true),
        ("PUT", "", true),
        ("DELETE", "", true),
        ("BREW", "", true),
        ("GET", "MERGE", true),
        ("HEAD", "", false),
        ("OPTIONS", "", false),
    ] {
        let world = opened(shop(ok("")));
        says(&world, "/v2/a", "0").await;
        let request = world.asks(method, "/write");
        let request = if tunnelled.is_empty() { request } else { request.with("x-http-method", tunnelled) };
        request.await.is(200);
        says(&world, "/v2/a", if outdates { "2" } else { "0" }).await;
        world.rests().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_read_that_began_before_a_write_ended_is_answered_but_not_stored() {
    // The read begins and ends at these seconds; the write is sent at 2 and ends at 4.
    for (begins, ends, stored) in [(0, 1, false), (0, 3, false), (0, 5, false), (3, 5, false), (5, 6, true)] {
        let world = opened(by(move |seen| match seen.method.as_str() {
            "GET" if seen.target == "/v2/a" => {
                ok("first").then((ends - begins) * SECOND - ms(100), format!(" {}", seen.number)).after(ms(50))
            }
            _ => status(204).after(2 * SECOND - ms(100)),
        }));
        let reader = async {
            world.passes(begins * SECOND).await;
            let answer = world.get("/v2/a").await;
            answer.is(200);
            answer.body
        };
        let writer = async {
            world.passes(2 * SECOND).await;
            world.asks("POST", "/write").await.is(204);
        };
        let (read, ()) = tokio::join!(reader, writer);
        world.passes(10 * SECOND).await;
        let fenced = begins < 4 && ends > 2;
        world.counts("vaxel_cache_events_total{event=\"fenced\"}", f64::from(u8::from(fenced)));
        let again = world.get("/v2/a").await;
        assert_eq!(again.is(200).body == read, stored, "a read from {begins} to {ends}");
        world.rests().await;
    }
}

#[tokio::test(start_paused = true)]
async fn who_asks_after_a_write_does_not_join_a_fetch_that_began_before_it() {
    for (target, config) in [("/write", ROUTE), ("/v2/a", "cache = { ttl = \"1h\" }")] {
        let slow = by(|seen| match seen.method.as_str() {
            "GET" => ok(seen.number.to_string()).after(if seen.number == 0 { 2 * SECOND } else { ms(0) }),
            _ => status(204),
        });
        let world = world().origin(slow).route(config).upstream(UPSTREAM).gateway(GROUP).opens();
        let early = world.get("/v2/a").goes();
        world.passes(ms(500)).await;
        world.asks("POST", target).await.is(204);
        world.passes(ms(500)).await;
        says(&world, "/v2/a", "2").await;
        early.await.says("0");
        world.breathes().await;
        says(&world, "/v2/a", "2").await;
        world.origin.was_asked(3);
        world.rests().await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_outdated_is_never_validated_but_stands_in_for_a_failing_origin() {
    let world = opened(by(|seen| match seen.method.as_str() {
        "GET" => ok(seen.number.to_string()).with("etag", "\"same\""),
        _ => status(500),
    }));
    says(&world, "/v2/a", "0").await;
    world.asks("POST", "/write").await.is(500);
    world.origin.now(status(500));
    let stale = world.get("/v2/a").await;
    stale.is(200).says("0").has("cache-status", "vaxel; fwd=stale; detail=stale_if_error");
    assert_eq!(world.origin.last().field("if-none-match"), "", "an old tag says nothing after a write");
    world.origin.now(shop(status(200)));
    says(&world, "/v2/a", "3").await;
    says(&world, "/v2/a", "3").await;
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn a_write_that_outlives_its_client_or_its_time_counts_when_it_ends() {
    for leaves in [true, false] {
        let world = opened(shop(status(204).after(4 * SECOND)));
        let write = world.asks("POST", "/write").goes();
        world.passes(SECOND).await;
        if leaves {
            write.leaves().await;
        } else {
            write.await.is(504).refused("upstream.timeout");
        }
        // Read while the backend was still at it: good until the write has ended.
        says(&world, "/v2/a", "1").await;
        world.passes(5 * SECOND).await;
        says(&world, "/v2/a", "2").await;
        world.rests().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_to_a_url_reaches_what_every_identity_has_stored_of_it() {
    let personal = by(|seen| match seen.method.as_str() {
        "GET" => ok(format!("{} {}", seen.number, seen.field("authorization"))).cached("private, max-age=60"),
        _ => status(204),
    });
    let world = world().origin(personal).route("cache = { per_consumer = true }").opens();
    let page = async |user: &str, target: &str| {
        let answer = world.get(target).with("authorization", user).await;
        world.breathes().await;
        String::from_utf8_lossy(&answer.is(200).body).into_owned()
    };
    for (user, target, body) in [("a", "/1", "0 a"), ("b", "/1", "1 b"), ("b", "/2", "2 b")] {
        assert_eq!(page(user, target).await, body);
    }
    world.passes(SECOND).await;
    world.asks("PUT", "/1").with("authorization", "a").await.is(204);
    world.passes(SECOND).await;
    for (user, target, body) in [("a", "/1", "4 a"), ("b", "/1", "5 b"), ("b", "/2", "2 b"), ("b", "/1", "5 b")] {
        assert_eq!(page(user, target).await, body);
    }
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn without_a_group_a_write_concerns_its_url_alone() {
    let world = world().origin(shop(status(204))).route("cache = { ttl = \"1h\" }").opens();
    says(&world, "/a", "0").await;
    says(&world, "/b", "1").await;
    world.asks("POST", "/a").await.is(204);
    says(&world, "/a", "3").await;
    says(&world, "/b", "1").await;
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn a_write_on_a_route_of_its_own_reaches_the_route_that_reads_its_url() {
    let reads = "[[route]]\nname = \"reads\"\nupstream = \"erp\"\n\
                 match = { path = \"/orders/{id}\", methods = [\"GET\"] }\n";
    for cache in ["cache = { ttl = \"1h\" }\n", "cache = { ttl = \"1h\", per_consumer = true }\n"] {
        let world =
            world().origin(shop(status(204).with("location", "/orders/2"))).gateway(&(reads.to_owned() + cache));
        let world = world.opens();
        for (number, target) in ["/orders/1", "/orders/2", "/orders/3"].into_iter().enumerate() {
            says(&world, target, &number.to_string()).await;
        }
        world.passes(SECOND).await;
        world.asks("DELETE", "/orders/1").await.is(204).lacks("cache-status");
        world.passes(SECOND).await;
        says(&world, "/orders/1", "4").await;
        says(&world, "/orders/2", "5").await;
        says(&world, "/orders/3", "2").await;
        world.rests().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_group_that_comes_back_with_a_reload_remembers_its_writes() {
    let world = opened(shop(status(204)));
    says(&world, "/v2/a", "0").await;
    world.asks("POST", "/write").await.is(204);
    let without = Config::default().route("cache = { ttl = \"1h\" }").upstream(UPSTREAM);
    world.reload(&without).unwrap();
    world.reload(&Config::default().route(ROUTE).upstream(UPSTREAM).more(GROUP)).unwrap();
    says(&world, "/v2/a", "2").await;
    world.rests().await;
}
