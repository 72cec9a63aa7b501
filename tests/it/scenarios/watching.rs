//! What an operator sees of it: traces behind the latencies, and who costs the backend how much.

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
