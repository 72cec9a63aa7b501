//! Vaxel says what an operator should do next: `vaxel advise`.

use vaxel::advice::{Block, Finding, Kind, Place};
use vaxel::config;

use crate::harness::{MINUTE, Plan, SECOND, World, by, ms, ok, world};

/// What is advised on this.
fn advised(world: &World, kind: Kind) -> Vec<Finding> {
    world.handle.advice().findings.into_iter().filter(|finding| finding.kind == kind).collect()
}

/// The one finding of a kind.
#[track_caller]
fn the(world: &World, kind: Kind) -> Finding {
    let mut found = advised(world, kind);
    assert_eq!(found.len(), 1, "{:#?}", world.handle.advice());
    found.remove(0)
}

#[track_caller]
fn on_the_ground(finding: &Finding, ground: &str) {
    assert!(finding.evidence.iter().any(|told| told.contains(ground)), "no {ground:?} in {finding:#?}");
}

/// The configuration `text` after somebody has pasted `block` where it says, over the keys of the same name.
fn pasted(text: &str, block: &Block) -> String {
    let mut sections: Vec<Vec<&str>> = vec![Vec::new()];
    for line in text.lines() {
        if line.starts_with('[') {
            sections.push(Vec::new());
        }
        sections.last_mut().unwrap().push(line);
    }
    let is_it = |section: &&mut Vec<&str>| match &block.place {
        Place::Route(name) => section.first() == Some(&"[[route]]") && section.contains(&&*format!("name = {name:?}")),
        place => section.first().is_some_and(|head| *head == place.to_string()),
    };
    let section = sections.iter_mut().find(is_it).expect("the place is there");
    let key = |line: &str| line.split_once(" = ").map(|(key, _)| key.to_owned());
    section.retain(|line| key(line).is_none() || block.lines.lines().all(|new| key(new) != key(line)));
    section.extend(block.lines.lines());
    sections.concat().join("\n")
}

/// Every block that is advised is good where it is pasted, and puts itself in force.
#[track_caller]
fn takes_every_block(world: &World, text: &str) {
    for finding in world.handle.advice().findings {
        let Some(block) = &finding.block else { continue };
        let whole = pasted(text, block);
        match config::parse(&whole, "advised.toml") {
            Ok(loaded) => {
                assert_eq!(loaded.warnings.to_string(), "", "{whole}");
                let before = config::parse(text, "scenario.toml").unwrap().settings;
                assert_ne!(loaded.settings, before, "it changes nothing: {whole}");
            }
            Err(problems) => panic!("{problems}\n{whole}"),
        }
    }
}

/// Opens a plan; its configuration as well.
fn opened(plan: Plan) -> (World, String) {
    let text = plan.text();
    (plan.opens(), text)
}

/// `count` requests of `callers` in turn, 100 ms between two.
async fn asked(world: &World, count: usize, callers: &[&str]) {
    for number in 0..count {
        let mut request = world.get(&format!("/item/{}", number / callers.len() % 5));
        let caller = callers[number % callers.len()];
        if !caller.is_empty() {
            request = request.with("authorization", caller);
        }
        request.await.is(200);
        world.passes(ms(100)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn answers_that_stay_the_same_should_be_stored_and_then_are() {
    let (world, text) = opened(world().origin(by(|seen| ok(seen.target.clone()).after(ms(50)))));
    asked(&world, 2_000, &[""]).await;
    let finding = the(&world, Kind::Cacheable);
    on_the_ground(&finding, "2 000 requests for 5 URLs passed the store in 5m;");
    on_the_ground(&finding, "requests (99 %) would have been answered from it");
    on_the_ground(&finding, "none of them would have got other bytes");
    assert!((0.3..0.35).contains(&finding.worth), "{}: a third of a slot", finding.worth);
    takes_every_block(&world, &text);
    let better = pasted(&text, finding.block.as_ref().unwrap());
    world.handle.reload(&config::parse(&better, "advised.toml").unwrap().settings).unwrap();
    let before = world.origin.asked();
    asked(&world, 2_000, &[""]).await;
    let more = world.origin.asked() - before;
    assert!((5..=25).contains(&more), "{more}: as it was said");
    assert_eq!(advised(&world, Kind::Cacheable), []);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn personal_answers_are_never_to_be_shared() {
    let mine = by(|seen| ok(format!("{}{}", seen.target, seen.field("authorization"))));
    let (world, _) = opened(world().origin(mine));
    asked(&world, 300, &["Basic a", "Basic b", "Basic c"]).await;
    assert_eq!(advised(&world, Kind::Cacheable), []);
    let finding = the(&world, Kind::Personal);
    on_the_ground(&finding, "the same URL gave different callers different bytes");
    assert_eq!(finding.block, None);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn one_personal_address_among_many_is_found() {
    let mine = by(|seen| {
        let is_mine = seen.target == "/item/3";
        ok(if is_mine { seen.field("authorization").to_owned() } else { seen.target.clone() })
    });
    let (world, _) = opened(world().origin(mine));
    asked(&world, 300, &["Basic a", "Basic b"]).await;
    assert_eq!(advised(&world, Kind::Cacheable), []);
    on_the_ground(&the(&world, Kind::Personal), "1 URL of those looked at, with 20 % of the requests");
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn answers_that_set_cookies_or_are_private_are_refused_with_the_reason() {
    for (name, value, reason) in [
        ("set-cookie", "sid=1", "100 % set cookies"),
        ("cache-control", "private", "100 % are private"),
        ("cache-control", "no-store", "100 % must not be stored"),
        ("vary", "cookie", "100 % vary by anything"),
    ] {
        let (world, _) = opened(world().origin(ok("same").with(name, value)));
        asked(&world, 200, &[""]).await;
        assert_eq!(advised(&world, Kind::Cacheable), []);
        on_the_ground(&the(&world, Kind::Personal), reason);
        world.rests().await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_same_bytes_for_all_who_log_on_are_shared_after_the_backend_let_them_in() {
    let (world, text) = opened(world().origin(by(|seen| ok(seen.target.clone()))));
    asked(&world, 3_000, &["Basic a", "Basic b", "Basic c"]).await;
    let finding = the(&world, Kind::Cacheable);
    on_the_ground(&finding, "callers with different credentials got the same bytes");
    takes_every_block(&world, &text);
    let better = pasted(&text, finding.block.as_ref().unwrap());
    assert!(better.contains("shared_after_auth"), "{better}");
    world.handle.reload(&config::parse(&better, "advised.toml").unwrap().settings).unwrap();
    let before = world.origin.asked();
    asked(&world, 3_000, &["Basic a", "Basic b", "Basic c"]).await;
    let more = world.origin.asked() - before;
    assert!(more < 60, "{more} of 3000");
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn a_url_in_two_languages_is_two_answers_of_one_url() {
    let language = by(|seen| ok(seen.field("accept-language").to_owned()).with("vary", "accept-language"));
    let (world, text) = opened(world().origin(language));
    for number in 0..200 {
        world.get("/page").with("accept-language", ["de", "sv"][number % 2]).await.is(200);
        world.passes(ms(250)).await;
    }
    on_the_ground(&the(&world, Kind::Cacheable), "200 requests for 2 URLs");
    takes_every_block(&world, &text);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn a_route_that_caches_and_stores_nothing_is_told_why() {
    let (world, _) = opened(world().origin(ok("same").cached("private")).route("cache = true"));
    asked(&world, 200, &[""]).await;
    let finding = the(&world, Kind::NeverStored);
    on_the_ground(&finding, "200 requests went past the store");
    on_the_ground(&finding, "private: the origin says that answers are for one user");
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn a_queue_that_is_never_empty_asks_for_a_limit_that_looks_for_more() {
    let consumers = "[consumer.web]\nidentify = { header = \"x-user\", value = \"web-web-web-web-web\" }\n\
                     [consumer.batch]\nidentify = { header = \"x-user\", value = \"batch-batch-batch-batch\" }\n";
    let plan = world().origin(ok("").after(SECOND)).upstream("slots = 2").gateway(consumers);
    let (world, text) = opened(plan);
    let mut visits = Vec::new();
    for second in 0..120_u32 {
        for number in 0..4 {
            let name = if number == 0 && second % 2 == 0 { "web-web-web-web-web" } else { "batch-batch-batch-batch" };
            visits.push(world.get("/").with("x-user", name).goes());
        }
        world.passes(SECOND).await;
        world.handle.upkeep().await;
    }
    let finding = the(&world, Kind::Slots);
    on_the_ground(&finding, "somebody waited at");
    on_the_ground(&finding, "2.0 slots were taken on average, 2 at most, of 2");
    assert_eq!(the(&world, Kind::OverShare).about, "batch");
    takes_every_block(&world, &text);
    drop(visits);
    world.passes(20 * SECOND).await;
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn what_has_no_effect_is_told() {
    let more = "[[route]]\nname = \"idle\"\nupstream = \"erp\"\nmatch = { path = \"/idle\" }\n\
                [consumer.gone]\nidentify = { header = \"x-user\", value = \"gone-gone-gone-gone\" }\n";
    let plan = world().origin(ok("").after(ms(20))).route("rate = { limit = \"1000/s\" }").gateway(more);
    let (world, text) = opened(plan);
    for _ in 0..100 {
        let visits: Vec<_> = (0..10).map(|_| world.get("/item").goes()).collect();
        for visit in visits {
            visit.await.is(200);
        }
        world.passes(SECOND).await;
    }
    let about = || advised(&world, Kind::NoEffect).into_iter().map(|finding| finding.about).collect::<Vec<_>>();
    assert_eq!(about(), [""; 0], "what does not happen in two minutes may in the next");
    world.passes(60 * MINUTE).await;
    assert_eq!(about(), ["all", "gone", "idle"]);
    let timeout = the(&world, Kind::Timeout);
    on_the_ground(&timeout, "the slowest of 1 000 answers began within 25ms");
    takes_every_block(&world, &text);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn of_little_traffic_it_is_said_that_it_was_little() {
    let (world, _) = opened(world().origin(ok("same")));
    asked(&world, 20, &[""]).await;
    let findings = world.handle.advice().findings;
    assert_eq!(findings.iter().map(|finding| finding.kind).collect::<Vec<_>>(), [Kind::NotEnough]);
    on_the_ground(&findings[0], "20 answers passed the store");
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn who_does_not_want_to_be_observed_is_not() {
    let (world, _) = opened(world().origin(ok("same")).gateway("[server]\nobserve = false\n"));
    asked(&world, 200, &[""]).await;
    assert_eq!(world.handle.advice().findings, []);
    world.rests().await;
}
