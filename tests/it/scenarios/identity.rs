//! What belongs to one user never reaches another.

use vaxel::sim::dice::Dice;

use crate::harness::{Config, Reply, SECOND, Seen, by, ms, ok, status, with_seeds, world};

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

#[tokio::test(start_paused = true)]
async fn users_are_told_apart_by_the_cookies_that_matter_alone() {
    let personal = by(|seen| ok(format!("{} {}", seen.number, seen.field("cookie"))).cached("private, max-age=60"));
    let world = world().origin(personal).route("cache = { identity = { cookies = [\"SAP_SESSIONID_*\"] } }").opens();
    let page = async |cookie: &str| {
        let answer = world.get("/").with("cookie", cookie).await;
        world.breathes().await;
        answer
    };
    page("SAP_SESSIONID_X=1; theme=dark").await.says("0 SAP_SESSIONID_X=1; theme=dark");
    page("SAP_SESSIONID_X=2; theme=dark").await.says("1 SAP_SESSIONID_X=2; theme=dark");
    page("theme=light; SAP_SESSIONID_X=1").await.says("0 SAP_SESSIONID_X=1; theme=dark");
    // Nobody has no answers of his own, and none of theirs.
    page("theme=dark").await.says("2 theme=dark");
    page("theme=dark").await.says("3 theme=dark").has("cache-status", UNCACHEABLE);
    world.rests().await;
}

const UNCACHEABLE: &str = "vaxel; fwd=miss; fwd-status=200; detail=uncacheable";

#[tokio::test(start_paused = true)]
async fn only_who_was_let_in_gets_what_is_shared() {
    let guarded = by(|seen| match seen.field("authorization") {
        "intruder" => status(403),
        _ => ok(format!("page {}", seen.number)),
    });
    let world = world().origin(guarded).route("cache = { ttl = \"1h\", shared_after_auth = \"10m\" }").opens();
    let page = async |user: &str, target: &str| {
        let answer = world.get(target).with("authorization", user).await;
        world.breathes().await;
        answer
    };
    let first = page("anna", "/a").await;
    first.says("page 0").has("cache-status", "vaxel; fwd=bypass; fwd-status=200; stored; detail=unproven");
    page("anna", "/a").await.says("page 0").has("cache-status", "vaxel; hit; ttl=3600");
    page("intruder", "/a").await.is(403);
    page("intruder", "/a").await.is(403).lacks("age");
    world.get("/a").with("authorization", "cecil").with("cache-control", "only-if-cached").await.is(504);
    // He proves himself by any page of the route; what he brings is everybody's.
    page("bert", "/b").await.says("page 3");
    page("bert", "/a").await.says("page 0").has("cache-status", "vaxel; hit; ttl=3600");
    page("anna", "/b").await.says("page 3");
    world.origin.was_asked(4);
    // A proof is good for its time, whatever is stored.
    world.passes(600 * SECOND).await;
    page("anna", "/a").await.says("page 4");
    world.counts("vaxel_cache_events_total{route=\"all\",event=\"unproven\"}", 5.0);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn who_is_turned_away_loses_what_was_shared_with_him_at_once() {
    for turned in [401, 403] {
        let world = world().origin(ok("page").cached("max-age=60"));
        let world = world.route("cache = { shared_after_auth = \"10m\" }").opens();
        let page = async |target: &str| {
            let answer = world.get(target).with("authorization", "anna").await;
            world.breathes().await;
            answer
        };
        page("/").await.says("page");
        page("/").await.says("page").has("cache-status", "vaxel; hit; ttl=60");
        world.origin.now(status(turned));
        page("/other").await.is(turned);
        page("/").await.is(turned);
        world.counts("vaxel_cache_events_total{event=\"withdrawn\"}", 1.0);
        // What is stored is as good as before, for those who are let in.
        world.origin.now(by(move |seen| if seen.target == "/" { ok("new") } else { ok("") }));
        page("/other").await.is(200);
        page("/").await.says("page");
        world.rests().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_401_forgets_what_was_stored_for_its_user_alone() {
    let session = by(|seen| match seen.target.as_str() {
        "/logoff" => status(401),
        _ => ok(format!("{} {}", seen.number, seen.field("cookie"))).cached("private, max-age=60"),
    });
    let world = world().origin(session).route("cache = { identity = { cookies = [\"sid\"] } }").opens();
    let page = async |target: &str, cookie: &str| {
        let answer = world.get(target).with("cookie", cookie).await;
        world.breathes().await;
        answer
    };
    page("/", "sid=1").await.says("0 sid=1");
    page("/", "sid=2").await.says("1 sid=2");
    page("/logoff", "sid=1").await.is(401);
    page("/", "sid=1").await.says("3 sid=1");
    page("/", "sid=2").await.says("1 sid=2");
    world.counts("vaxel_cache_events_total{event=\"forgotten\"}", 1.0);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn the_one_who_asked_gets_all_fields_and_the_others_those_that_may_be_shared() {
    let fields = [
        ("set-cookie", "PHPSESSID=1; Path=/"),
        ("sap-message", "{}"),
        ("sap-statistics", "gwtotal=1"),
        ("sap-perf-fesrec", "1"),
        ("sap-http-session-timeout", "1"),
        ("www-authenticate", "Negotiate x"),
        ("x-trace", "1"),
        ("x-kept", "1"),
    ];
    let reply = fields
        .iter()
        .fold(ok("page").cached("max-age=60").after(SECOND), |reply, (name, value)| reply.with(name, value));
    let world = world().origin(reply);
    let world = world.route("cache = { ignore_set_cookie = [\"PHPSESSID\"], strip = [\"x-trace\"] }").opens();
    let visits: Vec<_> = (0..3).map(|_| world.get("/").goes()).collect();
    let mut answers = Vec::new();
    for visit in visits {
        answers.push(visit.await);
    }
    answers.push(world.get("/").await);
    world.origin.was_asked(1);
    for (index, answer) in answers.iter().enumerate() {
        answer.is(200).says("page").has("x-kept", "1");
        for (name, value) in fields.iter().filter(|(name, _)| *name != "x-kept") {
            assert_eq!(answer.field(name), if index == 0 { *value } else { "" }, "{name} of {index}");
        }
    }
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn nobody_is_served_from_an_answer_that_begins_a_session() {
    for field in ["set-cookie", "x-csrf-token", "sap-contextid"] {
        let login = by(move |seen| ok(seen.number.to_string()).cached("max-age=60").with(field, "s=1").after(SECOND));
        let world = world().origin(login).route("cache = { ttl = \"60s\", override = true }").opens();
        let visits: Vec<_> = (0..4).map(|_| world.get("/").goes()).collect();
        let mut seen = Vec::new();
        for visit in visits {
            let answer = visit.await;
            answer.is(200).has(field, "s=1");
            seen.push(answer.body);
        }
        seen.sort();
        assert_eq!(seen, ["0", "1", "2", "3"], "{field}: each has a session of his own");
        world.rests().await;
    }
}

#[tokio::test(start_paused = true)]
async fn some_requests_are_never_collapsed_with_others() {
    for (method, field) in [
        ("POST", ("accept", "*/*")),
        ("MERGE", ("accept", "*/*")),
        ("GET", ("x-http-method", "MERGE")),
        ("GET", ("x-csrf-token", "Fetch")),
        ("GET", ("sap-contextid", "1")),
        ("GET", ("range", "bytes=0-1")),
        ("GET", ("if-match", "\"1\"")),
    ] {
        let world = world().origin(ok("page").cached("max-age=60").after(SECOND)).route("cache = true").opens();
        let visits: Vec<_> = (0..3).map(|_| world.asks(method, "/").with(field.0, field.1).goes()).collect();
        for visit in visits {
            visit.await;
        }
        world.origin.was_asked(3);
        world.rests().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_reload_that_reorders_consumers_gives_nobody_anothers_answers() {
    let consumer = |name: &str| {
        format!("[consumer.{name}]\nidentify = {{ api_key = \"a-long-key-of-{name}\", header = \"x-api-key\" }}\n")
    };
    let cache = "cache = { per_consumer = true }";
    let personal = by(|seen| ok(seen.field("x-api-key").to_owned()).cached("private, max-age=60"));
    let before = consumer("anna") + &consumer("bert");
    let world = world().origin(personal).route(cache).gateway(&before).opens();
    let asks = async || {
        for key in ["a-long-key-of-anna", "a-long-key-of-bert"] {
            world.get("/").with("x-api-key", key).await.says(key);
            world.breathes().await;
        }
    };
    asks().await;
    let after = Config::default().route(cache).more(&(consumer("bert") + &consumer("anna")));
    world.reload(&after).unwrap();
    asks().await;
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

#[tokio::test(start_paused = true)]
async fn what_is_never_served_without_the_origins_word_is_not_collapsed_either() {
    for (field, control) in [
        ("cookie", "no-cache"),
        ("cookie", "max-age=0, must-revalidate"),
        ("authorization", "max-age=0, must-revalidate"),
    ] {
        let personal = by(move |seen| {
            let user = seen.field(field).to_owned();
            let tag = format!("\"{user}\"");
            let reply = if seen.field("if-none-match") == tag { status(304) } else { ok(user) };
            reply.cached(control).with("etag", &tag).after(SECOND)
        });
        let world = world().origin(personal).route("cache = true").opens();
        // The second time there is something to validate.
        for _ in 0..3 {
            let users = ["a=1", "a=2", "a=3"].map(|user| (user, world.get("/").with(field, user).goes()));
            for (user, visit) in users {
                visit.await.is(200).says(user);
            }
            world.breathes().await;
        }
        world.rests().await;
    }
}

#[tokio::test(start_paused = true)]
async fn only_a_read_that_is_as_expected_lets_anybody_in() {
    let guarded = by(|seen| match (seen.method.as_str(), seen.field("authorization")) {
        ("GET", "anna") => ok("{}").with("content-type", "application/json"),
        // Preflights and logons are answered to everybody, and some servers have no other status than 200.
        ("GET", _) => ok("<html>Sign in</html>").with("content-type", "text/html"),
        _ => ok(""),
    });
    let world = world().origin(guarded);
    let world = world.route("cache = { ttl = \"1h\", shared_after_auth = \"10m\", expect = \"json\" }").opens();
    for _ in 0..2 {
        world.get("/").with("authorization", "anna").await.says("{}");
        world.breathes().await;
    }
    world.origin.was_asked(1);
    for method in ["OPTIONS", "POST", "GET", "HEAD"] {
        world.asks(method, "/").with("authorization", "intruder").await.is(200);
        world.breathes().await;
        // By its key alone, which the intruder does not know, an unsafe request has emptied the place.
        world.get("/").with("authorization", "anna").await.says("{}");
        world.breathes().await;
        let page = world.get("/").with("authorization", "intruder").await;
        page.says("<html>Sign in</html>").lacks("age");
    }
    world.rests().await;
}
