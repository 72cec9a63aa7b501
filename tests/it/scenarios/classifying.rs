//! What an answer means is not always in its status: the backend's own way to say no, or to fail, is understood.

use crate::harness::{Plan, Reply, SECOND, hang, in_turn, ms, ok, status, world};

const BREAKER: &str = "retry = false\nbreaker = { minimum = 10, failure_ratio = 0.5 }";
const SOAP: &str = "faults = \"soap\"";

/// A SOAP 1.1 fault as most stacks send it.
fn fault(code: &str) -> Reply {
    let body = format!(
        "<?xml version=\"1.0\"?><s:Envelope xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\"><s:Body><s:Fault>\
         <faultcode>s:{code}</faultcode><faultstring>no</faultstring></s:Fault></s:Body></s:Envelope>"
    );
    ok(body).status(500).with("content-type", "text/xml; charset=utf-8")
}

/// After ten POSTs, the breaker and what the attempts were counted as.
async fn after_ten(plan: Plan, breaker: &str, outcome: &str) {
    let world = plan.upstream(BREAKER).opens();
    for _ in 0..10 {
        world.asks("POST", "/").saying("<call/>").await;
    }
    world.breaker(breaker);
    world.counts(&format!("vaxel_upstream_attempts_total{{outcome=\"{outcome}\"}}"), 10.0);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn a_soap_fault_of_the_client_leaves_the_breaker_closed_and_one_of_the_server_opens_it() {
    after_ten(world().route(SOAP).origin(fault("Client")), "closed", "business").await;
    after_ten(world().route(SOAP).origin(fault("Server")), "open", "broken").await;
    after_ten(world().route(SOAP).origin(fault("Server").status(200)), "open", "broken").await;
    after_ten(world().route(SOAP).origin(status(500)), "open", "broken").await;
    after_ten(world().origin(fault("Client")), "open", "broken").await;
}

#[tokio::test(start_paused = true)]
async fn an_error_of_json_rpc_is_a_no_and_never_a_failure() {
    let error = || ok("{\"id\":1,\"error\":{\"code\":-32603}}").with("content-type", "application/json");
    let rpc = || world().route("faults = \"json-rpc\"");
    after_ten(rpc().origin(error()), "closed", "business").await;
    after_ten(rpc().origin(error().status(500)), "closed", "business").await;
    after_ten(rpc().origin(ok("{\"result\":1}").status(500)), "open", "broken").await;
}

#[tokio::test(start_paused = true)]
async fn a_rule_by_status_field_and_body_decides_before_everything_else() {
    let rule = |rule: &str| world().route(SOAP).route(&format!("classify = [{{ {rule} }}]"));
    let overloaded = "status = \"4xx\", body = \"LIMIT_EXCEEDED\", means = \"overloaded\"";
    after_ten(rule(overloaded).origin(ok("SSS_REQUEST_LIMIT_EXCEEDED").status(400)), "closed", "overloaded").await;
    after_ten(rule(overloaded).origin(ok("bad filter").status(400)), "closed", "business").await;
    let page = "status = 200, headers = { content-type = \"text/html*\" }, means = \"broken\"";
    after_ten(rule(page).origin(ok("<html>").with("content-type", "text/html;x")), "open", "broken").await;
    let known = "status = [500, \"502-504\"], headers = { x-ours = true }, means = \"ok\"";
    after_ten(rule(known).origin(fault("Server").with("x-ours", "1")), "closed", "ok").await;
}

#[tokio::test(start_paused = true)]
async fn an_error_that_comes_as_a_200_is_not_stored_and_a_stale_answer_stands_in() {
    let error = ok("Internal Server Error").cached("max-age=60");
    let world = world()
        .origin(in_turn([error.clone(), ok("good").cached("max-age=10, stale-if-error=600"), error]))
        .upstream("retry = false")
        .route("cache = true\nclassify = [{ status = \"2xx\", body = \"Internal Server Error\", means = \"broken\" }]")
        .opens();
    world.get("/").await.is(200).says("Internal Server Error");
    world.get("/").await.says("good");
    world.get("/").await.says("good").has("cache-status", "vaxel; hit; ttl=10");
    world.passes(20 * SECOND).await;
    world.get("/").await.is(200).says("good").has("cache-status", "vaxel; fwd=stale; detail=stale_if_error");
    world.origin.was_asked(3);
    world.counts("vaxel_upstream_attempts_total{outcome=\"broken\"}", 2.0);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn an_error_that_comes_too_late_for_its_client_is_not_harvested() {
    let world = world()
        .origin(ok("Internal Server Error").cached("max-age=60").after(6 * SECOND))
        .upstream("timeouts = { head = \"4s\", total = \"8s\" }")
        .route("cache = true\nclassify = [{ body = \"Internal Server Error\", means = \"broken\" }]")
        .opens();
    world.get("/").await.is(504).refused("upstream.timeout");
    world.passes(6 * SECOND).await;
    world.counts("vaxel_cache_harvests_total", 0.0);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn an_error_that_comes_as_a_200_lets_nobody_in() {
    let world = world()
        .origin(in_turn([ok("shared").cached("max-age=60, public"), ok("session expired")]))
        .route("cache = { shared_after_auth = \"10m\" }")
        .route("classify = [{ body = \"session expired\", means = \"business\" }]")
        .opens();
    world.get("/").with("authorization", "Basic alice").await.says("shared");
    for _ in 0..2 {
        world.get("/").with("authorization", "Basic mallory").await.says("session expired");
    }
    world.get("/").with("authorization", "Basic alice").await.says("shared");
    world.origin.was_asked(3);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn a_broken_answer_to_a_safe_request_is_tried_again() {
    let world = world()
        .origin(in_turn([ok("no more sessions"), ok("good")]))
        .route("classify = [{ body = \"no more sessions\", means = \"broken\" }]")
        .opens();
    world.get("/").await.is(200).says("good");
    world.origin.was_asked(2);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn only_an_answer_whose_meaning_is_open_is_held_back_and_it_arrives_whole() {
    let event = |first: &'static str| ok(first).then(5 * SECOND, "-later").unannounced();
    let held = world().origin(event("data: 1")).route("classify = [{ body = \"error\", means = \"broken\" }]").opens();
    let before = held.clock.now();
    let mut stream = held.get("/").opens().await;
    assert_eq!(held.clock.now() - before, SECOND, "as long as anything is held back");
    assert_eq!(stream.piece().await, "data: 1");
    assert_eq!(stream.reads().await.body, "-later");
    held.rests().await;

    let free = world().origin(event("<Envelope><Body><Data>")).route(SOAP).opens();
    let before = free.clock.now();
    let mut stream = free.get("/").opens().await;
    assert_eq!(stream.piece().await, "<Envelope><Body><Data>");
    assert_eq!(free.clock.now(), before, "its first element has settled it");
    assert_eq!(stream.reads().await.body, "-later");
    free.rests().await;
}

#[tokio::test(start_paused = true)]
async fn a_body_that_breaks_during_the_look_breaks_for_the_client() {
    let world = world().origin(ok("half").breaks()).route("classify = [{ body = \"x\", means = \"ok\" }]").opens();
    assert!(world.get("/").await.broken);
    world.counts("vaxel_upstream_attempts_total{outcome=\"broken\"}", 1.0);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_during_the_look_leaves_a_zombie() {
    let world = world()
        .origin(ok("").then(ms(800), "a").then(2 * SECOND, "b").unannounced())
        .route("classify = [{ body = \"x\", means = \"broken\" }]")
        .opens();
    let impatient = world.get("/").goes();
    world.passes(ms(900)).await;
    impatient.leaves().await;
    world.slots(0, 1, 0);
    world.passes(2 * SECOND).await;
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn what_vaxel_answers_by_itself_teaches_nothing_whatever_the_rules_say() {
    let world = world()
        .origin(hang())
        .upstream("retry = false\nslots = 1\nqueue = { max = 0 }\nbreaker = { minimum = 2 }\nzombie_hold = \"1s\"")
        .route("classify = [{ status = \"5xx\", means = \"broken\" }]")
        .opens();
    let busy = world.get("/").goes();
    world.breathes().await;
    for _ in 0..30 {
        world.get("/").await.is(503).refused("queue.full");
    }
    world.breaker("closed");
    world.counts("vaxel_upstream_attempts_total", 0.0);
    busy.leaves().await;
    world.passes(2 * SECOND).await;
    world.rests().await;
}
