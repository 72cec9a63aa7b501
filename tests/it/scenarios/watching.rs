//! What an operator sees of it: traces behind the latencies, and who costs the backend how much.

use vaxel::gateway::status::Status;
use vaxel::metrics::Format;

use crate::harness::{SECOND, World, ok, world};

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-";

/// The metrics that carry the trace of [`PARENT`].
fn exemplified(world: &World) -> Vec<String> {
    let text = world.handle.metrics().expose(Format::OpenMetrics);
    let with_trace = text.lines().filter(|line| line.contains("# {trace_id=\"0af7651916cd43dd8448eb211c80319c\"}"));
    with_trace.filter_map(|line| line.split('{').next()).map(str::to_owned).collect()
}

#[tokio::test(start_paused = true)]
async fn a_request_of_a_recorded_trace_is_an_exemplar_here_and_at_the_upstream() {
    let world = world().origin(ok("hello").after(SECOND)).opens();
    world.get("/").await.is(200);
    world.get("/").with("traceparent", &format!("{PARENT}00")).await.is(200);
    assert!(exemplified(&world).is_empty(), "nobody records that trace");
    world.get("/").with("traceparent", &format!("{PARENT}01")).await.is(200);
    assert_eq!(
        exemplified(&world),
        ["vaxel_request_duration_seconds_bucket", "vaxel_upstream_duration_seconds_bucket"]
    );
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn a_hit_of_a_recorded_trace_is_an_exemplar_of_the_request_alone() {
    let world = world().origin(ok("hello").cached("max-age=60")).route("cache = true").opens();
    world.get("/").await.is(200);
    world.get("/").with("traceparent", &format!("{PARENT}01")).await.is(200);
    assert_eq!(exemplified(&world), ["vaxel_request_duration_seconds_bucket"]);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn what_a_consumer_costs_the_backend_is_time_at_it_and_time_before_it() {
    let world =
        world().origin(ok("hello").after(2 * SECOND)).upstream("slots = 1\nqueue = { timeout = \"1m\" }").opens();
    let (first, second) = (world.get("/").goes(), world.get("/").goes());
    first.await.is(200);
    second.await.is(200);
    world.counts("vaxel_consumer_upstream_seconds_total", 4.0);
    world.counts("vaxel_consumer_queue_seconds_total", 2.0);
    world.rests().await;
}

/// Seconds go by, and the gateway looks at itself in each.
async fn lives(world: &World, seconds: u32) -> Status {
    for _ in 0..seconds {
        world.passes(SECOND).await;
        world.handle.upkeep().await;
    }
    world.handle.status()
}

#[tokio::test(start_paused = true)]
async fn the_status_tells_what_happened_in_the_last_minute_and_curves_the_last_five() {
    let world = world().origin(ok("hello").after(SECOND).cached("max-age=3600")).route("cache = true");
    let world = world.upstream("slots = 4\nqueue = { max = 9 }").opens();
    assert_eq!(lives(&world, 1).await.traffic.requests_per_s, 0.0);
    world.get("/a").await.is(200);
    for _ in 0..9 {
        world.get("/a").await.is(200);
    }
    let status = lives(&world, 9).await;
    let upstream = status.upstreams.first().unwrap();
    assert_eq!((upstream.slots_in_all, upstream.queue_room, upstream.report.gear), (4, 9, "drive"));
    assert!((status.traffic.requests_per_s - 1.0).abs() < 0.1, "ten in ten seconds: {status:?}");
    assert_eq!(status.traffic.hit_ratio, Some(0.9));
    assert_eq!(upstream.traffic, status.traffic, "all requests are its own");
    assert_eq!(upstream.answers.latency.p50_ms.map(|ms| ms > 500.0 && ms <= 1000.0), Some(true));
    let route = status.routes.first().unwrap();
    assert_eq!((route.route.as_str(), route.caches, route.traffic), ("all", true, status.traffic));
    let consumer = status.consumers.first().unwrap();
    assert_eq!((consumer.consumer.as_str(), consumer.share), ("anonymous", Some(1.0)));
    assert!((consumer.slots - 0.1).abs() < 0.02, "a second of ten at one slot: {consumer:?}");

    let quiet = lives(&world, 80).await;
    assert_eq!(
        (quiet.traffic.requests_per_s, quiet.traffic.hit_ratio, quiet.traffic.latency.p50_ms),
        (0.0, None, None)
    );
    let curves = &quiet.upstreams.first().unwrap().curves;
    assert_eq!(curves.requests_per_s.iter().sum::<f64>(), 10.0 / 2.0, "two seconds a step");
    assert_eq!(lives(&world, 400).await.upstreams.first().unwrap().curves.busy.len(), 150);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn the_status_has_the_latest_refusals_and_the_latest_slow_requests() {
    let world = world().origin(ok("hello").after(2 * SECOND)).upstream("slots = 1\nqueue = { max = 0 }").opens();
    let slow = world.get("/slow").goes();
    world.breathes().await;
    for number in 0..20 {
        world.get(&format!("/{number}")).await.is(503).refused("queue.full");
    }
    slow.await.is(200);
    let status = lives(&world, 1).await;
    assert_eq!(status.refused.len(), 12);
    assert_eq!(status.refused.first().unwrap()["path"], "/19", "the newest first");
    assert_eq!(status.slow.iter().map(|account| &account["path"]).collect::<Vec<_>>(), ["/slow"]);
    world.rests().await;
}
