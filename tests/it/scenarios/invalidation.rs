//! What unsafe requests take out of the store beside their own target.

use crate::harness::{World, by, ok, status, world};

/// A shop whose pages are in a group, and whose writes end with this status and name that group.
fn shop(written: u16) -> World {
    let shop = by(move |seen| match seen.method.as_str() {
        "GET" if seen.target.starts_with("/alone") => ok("alone").cached("max-age=60"),
        "GET" => ok(format!("{} {}", seen.target, seen.number))
            .cached("max-age=60")
            .with("cache-groups", "\"orders\"")
            .with("cache-group-invalidation", "\"orders\""),
        _ => status(written).with("cache-group-invalidation", "\"orders\", \"others\""),
    });
    world().origin(shop).route("cache = true").opens()
}

#[tokio::test(start_paused = true)]
async fn a_write_that_names_a_group_invalidates_all_of_it() {
    // RFC 9875 section 3
    let world = shop(204);
    world.get("/list").await.says("/list 0");
    world.get("/item").await.says("/item 1");
    world.get("/alone").await.says("alone");
    world.asks("POST", "/cart").await.is(204);
    world.get("/alone").await.says("alone");
    world.get("/list").await.says("/list 4");
    world.get("/item").await.says("/item 5");
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn a_read_or_a_write_that_fails_invalidates_no_group() {
    let world = shop(409);
    world.get("/list").await.says("/list 0");
    world.get("/item").await.says("/item 1");
    world.asks("POST", "/cart").await.is(409);
    world.get("/list").await.says("/list 0");
    world.origin.was_asked(3);
    world.rests().await;
}
