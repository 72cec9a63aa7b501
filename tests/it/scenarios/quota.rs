//! Each consumer's quotas. The clock of a scenario begins on 2027-01-15 at 08:00 UTC.

use std::time::Duration;

use crate::harness::{Config, MINUTE, World, ok, world};

const SHOP: &str = "[consumer.shop]\nidentify = { api_key = \"a-key-of-the-shop\" }\n";

fn shop(quota: &str) -> String {
    format!("{SHOP}quota = {quota}")
}

async fn shops(world: &World, target: &str) -> crate::harness::Answer {
    world.get(target).with("x-api-key", "a-key-of-the-shop").await
}

fn used(world: &World, per: &str, used: f64) {
    world.counts(&format!("vaxel_quota_used{{consumer=\"shop\",per=\"{per}\"}}"), used);
}

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test(start_paused = true)]
async fn a_consumer_over_its_quota_is_told_when_the_window_ends() {
    let quota = "{ limit = 2, per = \"day\", zone = \"Europe/Stockholm\" }";
    let world = world().origin(ok("")).gateway(&shop(quota)).opens();
    for left in ["1", "0"] {
        let answer = shops(&world, "/").await;
        answer.is(200).has("ratelimit-policy", "\"day\";q=2;w=86400;qu=\"requests\"");
        answer.has("ratelimit", &format!("\"day\";r={left};t=54000"));
    }
    world.passes(MINUTE).await;
    let over = shops(&world, "/").await;
    over.is(429).refused("quota.day").has("ratelimit", "\"day\";r=0;t=53940");
    over.has("retry-after", "53940");
    assert_eq!(over.problem()["type"], "https://iana.org/assignments/http-problem-types#quota-exceeded");
    assert_eq!(over.problem()["violated-policies"], serde_json::json!(["day"]));
    world.get("/").await.is(200);
    world.counts("vaxel_refusals_total{reason=\"quota.day\"}", 1.0);
    world.counts("vaxel_quota_limit{consumer=\"shop\",per=\"day\"}", 2.0);
    used(&world, "day", 2.0);
    world.passes(53_939 * Duration::from_secs(1)).await;
    shops(&world, "/").await.is(429).has("retry-after", "1");
    world.passes(Duration::from_secs(1)).await;
    used(&world, "day", 0.0);
    shops(&world, "/").await.is(200);
    used(&world, "day", 1.0);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn what_one_quota_refuses_the_others_are_not_charged() {
    let quotas = "[{ limit = 10, per = \"month\" }, { limit = 4, per = \"hour\" }]";
    let world = world().origin(ok("")).route("cost = 2").gateway(&shop(quotas)).opens();
    shops(&world, "/").await.is(200);
    shops(&world, "/").await.is(200);
    let over = shops(&world, "/").await;
    over.is(429).refused("quota.hour").has("retry-after", "3600").has("ratelimit", "\"hour\";r=0;t=3600");
    used(&world, "hour", 4.0);
    used(&world, "month", 4.0);
    for (hour, status) in [(9, 200), (9, 200), (9, 429), (10, 200), (10, 429)] {
        let eight = Duration::from_secs(1_800_000_000);
        let now = world.clock.moment().wall.duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap();
        world.passes((eight + (hour - 8) * HOUR).saturating_sub(now)).await;
        shops(&world, "/").await.is(status);
    }
    used(&world, "month", 10.0);
    let over = shops(&world, "/").await;
    let end_of_month = (16 * 24 + 14) * 3600;
    over.is(429).refused("quota.month").has("retry-after", &end_of_month.to_string());
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn what_a_rate_refuses_no_quota_is_charged_and_all_limits_are_told() {
    let keys = "quota = { limit = 9, per = \"day\" }\nrate = { limit = \"2/m\" }";
    let world = world().origin(ok("")).route("rate = { limit = \"9/s\" }").gateway(&format!("{SHOP}{keys}")).opens();
    let first = shops(&world, "/").await;
    first.has("ratelimit", "\"consumer\";r=1;t=30, \"route\";r=8;t=1, \"day\";r=8;t=57600");
    let policies = ["\"consumer\";q=2;w=60", "\"route\";q=9;w=1", "\"day\";q=9;w=86400"];
    first.has("ratelimit-policy", &policies.map(|policy| format!("{policy};qu=\"requests\"")).join(", "));
    shops(&world, "/").await.is(200);
    let over = shops(&world, "/").await;
    over.is(429).refused("rate.exceeded").has("retry-after", "30");
    over.has("ratelimit", "\"consumer\";r=0;t=30");
    assert_eq!(over.problem()["violated-policies"], serde_json::json!(["consumer"]));
    used(&world, "day", 2.0);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn a_reload_changes_limits_and_not_what_was_used() {
    let with = |limit: u32| Config::default().more(&shop(&format!("{{ limit = {limit}, per = \"day\" }}")));
    let world = world().origin(ok("")).gateway(&shop("{ limit = 2, per = \"day\" }")).opens();
    shops(&world, "/").await.is(200);
    shops(&world, "/").await.is(200);
    shops(&world, "/").await.is(429);
    world.reload(&with(3)).unwrap();
    shops(&world, "/").await.is(200);
    shops(&world, "/").await.is(429);
    world.reload(&Config::default().more(SHOP)).unwrap();
    shops(&world, "/").await.is(200);
    world.reload(&with(4)).unwrap();
    used(&world, "day", 3.0);
    shops(&world, "/").await.is(200);
    shops(&world, "/").await.is(429).refused("quota.day");
    world.rests().await;
}
