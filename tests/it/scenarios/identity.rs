//! What belongs to one user never reaches another.

use vaxel::sim::dice::Dice;

use crate::harness::{Reply, SECOND, Seen, by, ms, ok, status, with_seeds, world};

#[tokio::test(start_paused = true)]
async fn personal_answers_are_never_shared() {
    for (why, reply, credential) in [
        ("set_cookie", ok("").cached("max-age=60").with("set-cookie", "session=1"), None),
        ("private", ok("").cached("private, max-age=60"), None),
        ("session", ok("").cached("max-age=60").with("x-csrf-token", "abc"), None),
        ("authorization", ok("").cached("max-age=60"), Some(("authorization", "Basic YTpi"))),
        ("cookie", ok(""), Some(("cookie", "session=1"))),
    ] {
        let world = world().origin(reply).route("cache = { ttl = \"60s\" }").opens();
        for _ in 0..3 {
            let request = world.get("/");
            let request = match credential {
                Some((name, value)) => request.with(name, value),
                None => request,
            };
            let answer = request.await;
            assert!(!answer.is(200).field("cache-status").contains("hit"), "{why}: {answer:?}");
        }
        world.origin.was_asked(3);
        world.counts("vaxel_cache_entries", 0.0);
        world.rests().await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_to_credentials_is_shared_if_the_origin_says_so() {
    let world = world().origin(ok("for all").cached("public, max-age=60")).route("cache = true").opens();
    world.get("/").with("authorization", "Basic YTpi").await.says("for all");
    world.breathes().await;
    world.get("/").await.says("for all").has("cache-status", "vaxel; hit; ttl=60");
    world.origin.was_asked(1);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn each_consumer_has_answers_of_its_own_where_the_route_says_so() {
    let personal = by(|seen| ok(seen.field("authorization").to_owned()).cached("private, max-age=60"));
    let world = world().origin(personal).route("cache = { per_consumer = true }").opens();
    for _ in 0..2 {
        for user in ["Basic YTpi", "Basic Yzpk"] {
            world.get("/").with("authorization", user).await.is(200).says(user);
            world.breathes().await;
        }
    }
    world.origin.was_asked(2);
    world.rests().await;
}

/// Answers with the user's name, by one of the ways in which origins mark what is personal.
fn account(seen: &Seen, way: u64) -> Reply {
    let user = seen.field("authorization").to_owned() + seen.field("cookie");
    let pause = ms(way % 7 * 10);
    match () {
        () if user.is_empty() => ok("nobody").cached("max-age=2"),
        () if way.is_multiple_of(4) => ok(user).cached("private, max-age=60"),
        () if way % 4 == 1 => ok(user.clone()).cached("max-age=60").with("set-cookie", &user),
        () if way % 4 == 2 => ok(user).cached("no-store"),
        // Unmarked: the credentials alone tell.
        () if seen.field("cookie").is_empty() => ok(user).cached("max-age=60"),
        () => ok(user),
    }
    .after(pause)
}

#[test]
fn no_user_ever_reads_what_is_another_users() {
    with_seeds(20, async |seed| {
        let script = by(move |seen| account(seen, Dice::new(seed ^ seen.number as u64).roll()));
        let world = world().origin(script).route("cache = { ttl = \"60s\", stale_while_revalidate = \"60s\" }").opens();
        let mut dice = Dice::new(seed);
        let mut visits = Vec::new();
        for _ in 0..200 {
            let user = format!("user {}", dice.roll() % 5);
            let request = world.get(if dice.roll().is_multiple_of(2) { "/account" } else { "/orders" });
            let (request, user) = match dice.roll() % 3 {
                0 => (request.with("authorization", &user), user),
                1 => (request.with("cookie", &user), user),
                _ => (request, "nobody".to_owned()),
            };
            visits.push((user, request.goes()));
            world.passes(ms(dice.roll() % 40)).await;
            if dice.roll().is_multiple_of(10) {
                let left = dice.roll() as usize % visits.len();
                visits.swap_remove(left).1.may_leave();
            }
        }
        for (user, visit) in visits {
            let answer = visit.await;
            let name = String::from_utf8_lossy(&answer.is(200).body).into_owned();
            assert!(name == user || name == "nobody", "{user} reads what is for {name}");
            assert!(name == user || answer.field("set-cookie").is_empty(), "{user} gets the session of {name}");
        }
        world.passes(SECOND).await;
        world.rests().await;
    });
}

#[tokio::test(start_paused = true)]
async fn hop_by_hop_fields_and_the_clients_word_do_not_pass() {
    let reply = status(200).with("connection", "x-secret").with("x-secret", "1").with("keep-alive", "timeout=5");
    let world = world().origin(reply).opens();
    let request = world.get("/").with("connection", "x-mine").with("x-mine", "1").with("x-forwarded-for", "6.6.6.6");
    request.await.is(200).lacks("x-secret").lacks("connection").lacks("keep-alive");
    let seen = world.origin.last();
    assert_eq!((seen.field("x-mine"), seen.field("connection")), ("", ""));
    assert_eq!((seen.field("x-forwarded-for"), seen.field("host")), ("127.0.0.1", "erp.example"));
    world.rests().await;
}
