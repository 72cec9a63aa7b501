//! What is stored outlives the process.

use std::path::Path;
use std::time::Duration;

use vaxel::cache::persist::PersistParams;
use vaxel::cache::purge::Depth;
use vaxel::config::settings::Settings;
use vaxel::consumer::{ConsumerParams, Identify};
use vaxel::gateway::cache::Extent;
use vaxel::refusal::Mode;
use vaxel::throttle::SlotsParams;
use vaxel::throttle::limit::{AdaptiveParams, Policy};
use vaxel::throttle::quota::{Per, QuotaParams};

use super::origin::Origin;
use super::rig::Rig;

/// An origin whose answers are good for a while, and that says 304 to a condition.
fn origin() -> Origin {
    Origin::answering(|request| match request.field("if-none-match") {
        Some(_) => "HTTP/1.1 304 Not Modified\r\nETag: \"1\"\r\nCache-Control: max-age=600\r\n\r\n",
        None => {
            "HTTP/1.1 200 OK\r\nETag: \"1\"\r\nCache-Control: max-age=600\r\nAge: 100\r\nContent-Length: 5\r\n\r\nhello"
        }
    })
}

/// A server before `origin` that keeps what it stores in `folder`.
fn keeping(origin: &Origin, folder: &Path, change: impl FnOnce(&mut Settings)) -> Rig {
    let params = PersistParams { file: folder.join("cache"), every: Duration::from_secs(3600), max_bytes: 1 << 20 };
    Rig::with(origin.address, |settings| {
        settings.cache.persist = Some(params);
        change(settings);
    })
}

fn asked(origin: &Origin) -> usize {
    origin.heard().matches("GET ").count()
}

#[test]
fn a_restart_costs_the_origin_nothing() {
    let (origin, folder) = (origin(), tempfile::tempdir().unwrap());
    let first = keeping(&origin, folder.path(), |_| {});
    assert_eq!(first.get("/a").text(), "hello");
    first.get("/b");
    drop(first);
    assert_eq!(asked(&origin), 2);
    let second = keeping(&origin, folder.path(), |_| {});
    assert_eq!(second.metric("vaxel_cache_restored_entries_total"), 2.0);
    for path in ["/a", "/b"] {
        let answer = second.get(path);
        assert_eq!((answer.status(), answer.text()), (200, "hello"));
        assert!(answer.field("cache-status").unwrap().starts_with("vaxel; hit; ttl="), "{answer:?}");
        let age: u64 = answer.field("age").unwrap().parse().unwrap();
        assert!((100..200).contains(&age), "it was 100 s old when it came: {age}");
    }
    assert_eq!(asked(&origin), 2);
    second.settles();
    drop(second);
    let third = keeping(&origin, folder.path(), |_| {});
    assert!(third.get("/a").field("cache-status").unwrap().starts_with("vaxel; hit"), "and once more");
    drop(third);
    // Another configuration of what is stored: what is on disk was not meant for it.
    let fourth = keeping(&origin, folder.path(), |settings| {
        settings.routes.iter_mut().filter_map(|route| route.cache.as_mut()).for_each(|cache| cache.per_consumer = true);
    });
    assert_eq!(fourth.metric("vaxel_cache_restored_entries_total"), 0.0);
    fourth.get("/a");
    assert_eq!(asked(&origin), 3);
}

#[test]
fn after_a_crash_what_was_stored_is_validated() {
    let (origin, folder) = (origin(), tempfile::tempdir().unwrap());
    let first = keeping(&origin, folder.path(), |_| {});
    first.get("/a");
    // What is written while it runs is what a crash leaves.
    first.running().handle().save(false);
    assert_eq!(first.metric("vaxel_cache_saves_total{result=\"ok\"}"), 1.0);
    let second = keeping(&origin, folder.path(), |_| {});
    let answer = second.get("/a");
    assert_eq!((answer.status(), answer.text()), (200, "hello"));
    assert_eq!(answer.field("cache-status"), Some("vaxel; fwd=stale; fwd-status=304; stored"));
    assert!(origin.heard().to_ascii_lowercase().contains("if-none-match: \"1\""), "{}", origin.heard());
    assert!(second.get("/a").field("cache-status").unwrap().starts_with("vaxel; hit"));
}

#[test]
fn what_was_purged_for_good_stays_away() {
    let (origin, folder) = (origin(), tempfile::tempdir().unwrap());
    let first = keeping(&origin, folder.path(), |_| {});
    first.get("/a");
    first.running().handle().save(false);
    assert!(folder.path().join("cache").exists());
    first.running().handle().purge(&Extent::All, Depth::Hard).unwrap();
    assert!(!folder.path().join("cache").exists());
    let second = keeping(&origin, folder.path(), |_| {});
    second.get("/a");
    assert_eq!(asked(&origin), 2);
}

#[test]
fn what_a_write_has_outdated_is_not_kept() {
    let (origin, folder) = (origin(), tempfile::tempdir().unwrap());
    let grouped = |settings: &mut Settings| settings.routes.iter_mut().for_each(|route| route.group = Some("g".into()));
    let first = keeping(&origin, folder.path(), grouped);
    first.get("/a");
    let mut client = first.client();
    client.send("POST /b HTTP/1.1\r\nHost: erp.example\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    assert_eq!(client.answer_to("POST").status(), 200);
    drop(client);
    first.get("/c");
    drop(first);
    let second = keeping(&origin, folder.path(), grouped);
    assert_eq!(second.metric("vaxel_cache_restored_entries_total"), 1.0);
    assert!(second.get("/c").field("cache-status").unwrap().starts_with("vaxel; hit"));
    assert_eq!(second.get("/a").field("cache-status"), Some("vaxel; fwd=uri-miss; fwd-status=200; stored"));
}

#[test]
fn what_a_limit_has_learned_outlives_the_process_within_its_bounds() {
    let folder = tempfile::tempdir().unwrap();
    let origin = Origin::answering(|_| "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n");
    let start = |max| {
        Rig::with(origin.address, |settings| {
            let adaptive = AdaptiveParams { policy: Policy::Aimd { slow: None }, min: 1, max, mode: Mode::Enforce };
            settings.upstreams[0].slots = SlotsParams { slots: 10, adaptive: Some(adaptive), ..SlotsParams::default() };
            settings.state = Some(folder.path().join("state"));
        })
    };
    let first = start(40);
    // Each refusal of the origin takes a tenth away: 9, 8.1.
    (0..2).for_each(|number| drop(first.get(&format!("/{number}"))));
    assert_eq!(first.metric("vaxel_slots"), 8.0);
    drop(first);
    assert_eq!(start(40).metric("vaxel_slots"), 8.0);
    assert_eq!(start(6).metric("vaxel_slots"), 6.0, "never beyond the bounds");
    std::fs::write(folder.path().join("state"), "vaxel-state 1\nlimit aimd 9999999999 40.00 upstream\nsum 00\n")
        .unwrap();
    assert_eq!(start(40).metric("vaxel_slots"), 10.0, "a file that is not whole is none");
}

#[test]
fn what_was_used_of_quotas_outlives_the_process() {
    let (origin, folder) = (origin(), tempfile::tempdir().unwrap());
    let consumer = ConsumerParams {
        name: "everybody".to_owned(),
        identify: Identify::Network(vec!["127.0.0.0/8".parse().unwrap()]),
        weight: 1,
        class: None,
        rate: None,
        quotas: vec![QuotaParams { limit: 3, per: Per::Month, zone: jiff::tz::TimeZone::UTC, mode: Mode::Enforce }],
    };
    let start = || {
        Rig::with(origin.address, |settings| {
            settings.consumers = vec![consumer.clone()];
            settings.state = Some(folder.path().join("state"));
        })
    };
    let first = start();
    assert_eq!([first.get("/a"), first.get("/b")].map(|answer| answer.status()), [200, 200]);
    drop(first);
    let second = start();
    assert_eq!(second.metric("vaxel_quota_used"), 2.0);
    assert_eq!([second.get("/a"), second.get("/b")].map(|answer| answer.status()), [200, 429]);
    drop(second);
    // Not what this process wrote: as good as nothing.
    std::fs::write(folder.path().join("state"), "vaxel-state 1\nquota month 0 9999999999 3 everybody\nsum 00\n")
        .unwrap();
    let third = start();
    assert_eq!(third.get("/a").status(), 200);
    third.until("the file is written while it runs", || third.metric("vaxel_state_saves_total") > 0.0);
    third.settles();
}
