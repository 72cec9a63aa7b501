//! What is kept, for how long, and how it is told.

use super::*;
use crate::metrics::plain;

fn facts(change: impl FnOnce(&mut Facts<'_>)) -> Option<Kept> {
    let mut facts = Facts { cache: CacheResult::Miss, ..plain() };
    change(&mut facts);
    Kept::of(&facts, 1)
}

#[test]
fn what_is_remarkable_is_kept() {
    let second = Duration::from_secs(1);
    for (kept, expected) in [
        (facts(|_| {}), None),
        (facts(|facts| facts.reason = Some(Reason::QueueFull)), Some(Kept::Refused)),
        (facts(|facts| facts.status = StatusCode::BAD_GATEWAY), Some(Kept::Failed)),
        (facts(|facts| facts.status = StatusCode::NOT_FOUND), None),
        (facts(|facts| facts.ending = Ending::Aborted), Some(Kept::Left)),
        (facts(|facts| facts.ending = Ending::Broken), Some(Kept::Broken)),
        (facts(|facts| facts.attempts = 1), None),
        (facts(|facts| facts.attempts = 2), Some(Kept::Retried)),
        (facts(|facts| facts.cache = CacheResult::Stale), Some(Kept::Stale)),
        (facts(|facts| facts.cache = CacheResult::StaleError), Some(Kept::Stale)),
        (facts(|facts| facts.queued = Some(Duration::ZERO)), None),
        (facts(|facts| facts.queued = Some(second)), Some(Kept::Waited)),
        (facts(|facts| facts.delayed = Some(second)), Some(Kept::Waited)),
        (facts(|facts| (facts.cache, facts.delayed) = (CacheResult::Hit, Some(second))), Some(Kept::Waited)),
        (facts(|facts| facts.duration = second), Some(Kept::Slow)),
        (facts(|facts| (facts.cache, facts.duration) = (CacheResult::Hit, second)), None),
        (facts(|facts| (facts.cache, facts.reason) = (CacheResult::Hit, Some(Reason::Hook))), Some(Kept::Refused)),
        (Kept::of(&plain(), SAMPLE), None),
        (Kept::of(&Facts { cache: CacheResult::Pass, ..plain() }, SAMPLE), Some(Kept::Sampled)),
    ] {
        assert_eq!(kept, expected);
    }
}

fn account(id: u64, kept: Kept) -> Account {
    Account {
        request_id: id,
        client_request_id: None,
        kept,
        ended: SystemTime::UNIX_EPOCH + Duration::from_secs(id),
        client: [10, 0, 0, 1].into(),
        method: Method::GET,
        host: Some("erp".into()),
        path: "/a".into(),
        route: Some("all".into()),
        upstream: Some("erp".into()),
        consumer: "shop".into(),
        over: None,
        own: None,
        quotas: Standing::default(),
        delayed: None,
        rated: None,
        cache: CacheResult::Miss,
        forward: Some(("uri-miss", None)),
        gate: None,
        queued: None,
        attempts: Vec::new(),
        tries: 0,
        status: StatusCode::OK,
        reason: None,
        retry_after: None,
        duration: Duration::from_millis(12),
        sent: 7,
        ending: Ending::Whole,
    }
}

#[test]
fn a_flood_of_refusals_leaves_the_others_and_the_memory_alone() {
    let journal = Journal::default();
    journal.write(account(1, Kept::Failed));
    for id in 2..10_000 {
        journal.write(Account { reason: Some(Reason::RateExceeded), ..account(id, Kept::Refused) });
    }
    let ids = |accounts: Vec<Account>| accounts.iter().map(|account| account.request_id).collect::<Vec<_>>();
    assert_eq!(ids(journal.latest(2, |_| true)), [9999, 9998]);
    assert_eq!(ids(journal.latest(9, |account| account.is_called("failed"))), [1]);
    assert_eq!(journal.latest(usize::MAX, |_| true).len(), CAPACITY + 1);
    assert_eq!(journal.latest(usize::MAX, |account| account.is_called("rate.exceeded")).len(), CAPACITY);
    assert_eq!(ids(journal.find("000000000000270f")), [9999]);
    assert_eq!(ids(journal.find("0000000000000002")), [0; 0], "the oldest gave way");
    assert_eq!(ids(journal.find("270f")), [0; 0], "an id has sixteen digits");
}

#[test]
fn a_client_finds_its_request_by_its_own_id() {
    let journal = Journal::default();
    journal.write(Account { client_request_id: Some("order-7".into()), ..account(1, Kept::Slow) });
    assert_eq!(journal.find("order-7").len(), 1);
    assert_eq!(journal.find("order-8").len(), 0);
    let name = |text: &str| named(&http::HeaderValue::from_str(text).unwrap());
    assert_eq!(name("a-1"), Some("a-1".into()));
    for unusable in ["", "a b", &"a".repeat(TEXT + 1)] {
        assert_eq!(name(unusable), None);
    }
}

#[test]
fn attempts_and_texts_are_bounded() {
    let (mut tries, now) = (Tries::default(), crate::clock::Clock::system().now());
    for index in 0..TRIES + 5 {
        tries.begin(Place { is_spare: false, endpoint: index }, now);
        tries.end(End::Answered(StatusCode::OK), now);
        tries.again(Duration::ZERO);
    }
    assert_eq!(tries.told(|_| Some("a")).len(), TRIES);
    assert_eq!(&*cut("åäö", 3), "å", "cut between characters");
}

#[test]
fn the_story_names_every_step() {
    let ms = Duration::from_millis;
    let attempt = |end, pause| Attempt { endpoint: "http://a".into(), end, error: None, pause };
    let account = Account {
        kept: Kept::Refused,
        gate: Some(Stood {
            class: Class::Normal,
            gear: Gear::Eco,
            spared: None,
            breaker: Some(State::Closed),
            shadowed: false,
            excess: None,
            ahead: Some(3),
        }),
        queued: Some(ms(250)),
        attempts: vec![
            attempt(Some((End::Answered(StatusCode::SERVICE_UNAVAILABLE), ms(12))), Some(ms(80))),
            Attempt {
                error: Some("broken pipe".into()),
                ..attempt(Some((End::Failed(Reason::UpstreamReset), ms(3))), None)
            },
        ],
        tries: 3,
        status: StatusCode::BAD_GATEWAY,
        reason: Some(Reason::UpstreamReset),
        retry_after: Some(Duration::from_secs(3)),
        ..account(1, Kept::Refused)
    };
    assert_eq!(
        account.story(),
        [
            "GET erp/a from 10.0.0.1",
            "route all, to the upstream erp",
            "consumer shop",
            "cache: miss (uri-miss): not stored, or not good enough: fetched",
            "gate: gear eco, breaker closed",
            "queue: as normal, waited 250.0 ms for a slot; 3 others waited already",
            "attempt 1: http://a answered 503 after 12.0 ms; tried again after a pause of 80.0 ms",
            "attempt 2: http://a failed after 3.0 ms: upstream.reset (broken pipe)",
            "and 1 more",
            "answered 502 after 12.0 ms, 7 bytes; upstream.reset: The upstream closed or reset the connection before it \
             answered. Told to come back after 3.00 s.",
        ]
    );
    let view = account.view();
    assert_eq!(
        (&view["attempts"][0]["status"], &view["attempts"][1]["reason"]),
        (&503.into(), &"upstream.reset".into())
    );
    assert_eq!(
        (&view["ahead"], &view["queue_ms"], &view["request_id"]),
        (&3.into(), &250.0.into(), &"0000000000000001".into())
    );
}
