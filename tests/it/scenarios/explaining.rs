//! Vaxel tells what would become of a request: `vaxel explain`.

use vaxel::gateway::why::Explanation;
use vaxel::listen::Peer;

use crate::harness::{Config, SECOND, World, ms, ok, status, world};

fn explain(world: &World, method: &str, target: &str, fields: &[(&str, &str)]) -> Explanation {
    let mut request = http::Request::builder().method(method).uri(target).header("host", "erp.example");
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    let peer = Peer { address: ([127, 0, 0, 1], 40_000).into(), tls: false };
    world.handle.explain(&request.body(()).unwrap().into_parts().0, peer)
}

#[track_caller]
fn tells(told: &Explanation, step: &str, sentence: &str) {
    let is_told = told.story.iter().any(|(said, what)| *said == step && what.contains(sentence));
    assert!(is_told, "no {step}: {sentence:?} in {:#?}", told.story);
}

#[tokio::test(start_paused = true)]
async fn every_step_of_a_miss_is_told_and_nothing_is_sent() {
    let world = world()
        .origin(ok("a").cached("max-age=60"))
        .upstream("slots = 3")
        .route("cache = true\nrate = { limit = \"1/s\", burst = 2 }\nrequest_headers = { set = { x-tier = \"gold\", authorization = \"Basic c2VjcmV0\" }, remove = [\"x-debug\"] }")
        .opens();
    let look = || explain(&world, "HEAD", "/a?x=1", &[("x-debug", "1"), ("connection", "x-hop"), ("x-hop", "1")]);
    let told = look();
    tells(&told, "route", "all (/{*rest}): taken");
    tells(&told, "consumer", "anonymous: nobody known, counted by the address 127.0.0.1");
    tells(&told, "rate", "that of the route: within it, at a cost of 1; 1 more at once");
    tells(&told, "cache", "pass: its answer would not be stored");
    tells(&told, "key", "http://erp.example/a?x=1 - erp");
    tells(&told, "gate", "erp: gear drive (calm), breaker closed");
    tells(&told, "slots", "0 of 3 in use, 0 of 64 wait: as normal, it would get one at once");
    tells(&told, "sends", "HEAD /a?x=1");
    tells(&told, "sets", "x-tier: gold");
    tells(&told, "sets", "authorization: (hidden)");
    tells(&told, "sets", "x-forwarded-for: 127.0.0.1");
    let mut removed = told.sent.clone().unwrap().removed;
    removed.sort_unstable();
    assert_eq!(removed, ["connection", "x-debug", "x-hop"]);
    assert_eq!(told.refused, None);
    assert_eq!(look(), told, "a look changes nothing");
    world.origin.was_asked(0);
    world.counts("vaxel_requests_total", 0.0);
    let fill = explain(&world, "GET", "/a", &[("if-none-match", "\"1\"")]);
    tells(&fill, "cache", "miss: nothing is stored for it [vaxel; fwd=uri-miss]");
    assert!(fill.sent.unwrap().removed.contains(&"if-none-match".to_owned()));
    world.get("/a").await.is(200);
    world.breathes().await;
    let hit = explain(&world, "GET", "/a", &[]);
    tells(&hit, "answer", "from the store; the upstream is not asked");
    assert_eq!(hit.sent, None);
    world.get("/a").await.is(200);
    let over = explain(&world, "GET", "/a", &[]);
    tells(&over, "rate", "that of the route: over it");
    tells(
        &over,
        "refused",
        "429 rate.exceeded: The consumer is over its rate. It would be told to come back after 1.00 s.",
    );
    assert_eq!((over.refused, over.cache), (Some("rate.exceeded"), None));
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn routes_that_fit_nearly_say_what_they_miss() {
    let world = world().opens();
    let more = "\n[[route]]\nname = \"write\"\nupstream = \"erp\"\nmatch = { path = \"/a\", methods = [\"POST\"] }\n\
                \n[[route]]\nname = \"beta\"\nupstream = \"erp\"\nmatch = { path = \"/a\", headers = { x-beta = \"1\" } }\n\
                \n[[route]]\nname = \"other\"\nupstream = \"erp\"\nmatch = { path = \"/b\" }\n\
                \n[consumer.shop]\nidentify = { api_key = \"a-key-of-the-shop\" }\n";
    world.reload(&Config::default().route("require_consumer = true").more(more)).unwrap();
    let told = explain(&world, "GET", "/a", &[]);
    tells(&told, "route", "write (/a): nearly: it takes POST only");
    tells(&told, "route", "beta (/a): nearly: it asks for x-beta: 1");
    tells(&told, "route", "all (/{*rest}): taken");
    tells(&told, "refused", "401 consumer.unknown");
    let taken: Vec<_> = told.routes.iter().filter(|look| look.taken).map(|look| look.route.as_str()).collect();
    assert_eq!((told.routes.len(), taken), (3, vec!["all"]));
    let beta = explain(&world, "GET", "/a", &[("x-beta", "1")]);
    tells(&beta, "route", "beta (/a): taken");
    tells(&beta, "route", "all (/{*rest}): fits too");
    assert_eq!(explain(&world, "TRACE", "/a", &[]).refused, Some("request.method"));
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn what_would_refuse_at_the_gate_is_told_and_what_stands_in() {
    let world = world()
        .origin(status(500).after(ms(10)))
        .upstream(
            "slots = 1\nqueue = { max = 0, timeout = \"1s\" }\nretry = false\nbreaker = { minimum = 2, open = \"5s\" }",
        )
        .route("fallback = { status = 203, body = \"later\" }")
        .opens();
    let first = world.get("/").goes();
    world.breathes().await;
    let full = explain(&world, "GET", "/", &[]);
    tells(&full, "slots", "1 of 1 in use, 0 of 0 wait: as normal, there is no place for it (queue.full)");
    tells(&full, "refused", "503 queue.full");
    tells(&full, "fallback", "answered with the route's own 203");
    first.await;
    world.get("/").await;
    let open = explain(&world, "GET", "/", &[]);
    tells(&open, "gate", "erp: gear drive (calm), breaker open");
    tells(&open, "refused", "503 breaker.open");
    assert_eq!(open.upstream.unwrap().refuses, Some("breaker.open"));
    world.passes(6 * SECOND).await;
    assert_eq!(explain(&world, "GET", "/", &[]).refused, None, "a trial would pass");
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn a_quota_is_looked_at_and_not_charged() {
    let shop = "[consumer.shop]\nidentify = { api_key = \"a-key-of-the-shop\" }\nquota = { limit = 1, per = \"day\" }";
    let world = world().origin(ok("")).gateway(shop).opens();
    let look = || explain(&world, "GET", "/", &[("x-api-key", "a-key-of-the-shop")]);
    for _ in 0..2 {
        tells(&look(), "quota", "that of the day: within it, at a cost of 1; 0 of 1 used");
    }
    world.get("/").with("x-api-key", "a-key-of-the-shop").await.is(200);
    tells(&look(), "quota", "that of the day: beyond it, at a cost of 1; 1 of 1 used");
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn what_holds_slots_back_and_how_answers_are_read_is_told() {
    let upstream = "slots = 6\nendpoint_slots = 5\nreserve = { interactive = 1 }\ncap = { batch = 2 }\n\
                    queue = { max = 20, timeout = \"1s\" }";
    let route = "class = \"logon\"\nfaults = \"soap\"\n\
                 [[route.classify]]\nstatus = [\"500-504\"]\nheaders = { content-type = \"text/html*\" }\nbody = \"no more sessions\"\n\
                 means = \"overloaded\"\n";
    let world = world().origin(ok("").after(ms(400))).upstream(upstream).route(route).opens();
    for _ in 0..10 {
        world.get("/").await.is(200);
    }
    let quiet = explain(&world, "GET", "/", &[]);
    tells(&quiet, "slots", "0 of 5 in use, 0 of 20 wait: as logon, it would get one at once; usually taken for 400 ms");
    tells(&quiet, "slots", "kept for interactive 1");
    tells(&quiet, "slots", "at most for logon 2, batch 2");
    tells(&quiet, "endpoints", "http://erp:8000; at most 5 requests at each");
    tells(&quiet, "classify", "overloaded: 500-504, content-type: text/html*, \"no more sessions\" in its body");
    tells(&quiet, "classify", "then by the SOAP fault");
    let mut visits: Vec<_> = (0..5).map(|_| world.get("/").goes()).collect();
    world.breathes().await;
    tells(
        &explain(&world, "GET", "/", &[]),
        "slots",
        "2 of 5 in use, 3 of 20 wait: as logon, it would wait, about 800 ms",
    );
    visits.push(world.get("/").goes());
    world.breathes().await;
    visits.push(world.get("/").goes());
    world.breathes().await;
    let hopeless = explain(&world, "GET", "/", &[]);
    tells(&hopeless, "slots", "as logon, there is no place for it (queue.hopeless)");
    assert_eq!(hopeless.refused, Some("queue.hopeless"));
    for visit in visits {
        visit.await;
    }
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn a_delay_is_told_and_takes_nobodys_place() {
    let route = "rate = { limit = \"1/s\", excess = \"delay\", delay_max = \"1500ms\" }";
    let world = world().origin(ok("")).route(route).opens();
    world.get("/").await.is(200);
    for _ in 0..3 {
        tells(
            &explain(&world, "GET", "/", &[]),
            "rate",
            "that of the route: over it, it would wait 1.00 s for its turn",
        );
    }
    let held = world.get("/").goes();
    world.breathes().await;
    let over = explain(&world, "GET", "/", &[]);
    tells(&over, "rate", "that of the route: over it, at a cost of 1; 0 more at once");
    assert_eq!(over.refused, Some("rate.exceeded"));
    held.await.is(200);
    world.rests().await;
}
