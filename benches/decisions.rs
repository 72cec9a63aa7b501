//! What the pure parts cost: one decision of each, on inputs like those of a busy day. `cargo bench --bench decisions`;
//! a name as an argument runs that one alone.
#![expect(clippy::expect_used, reason = "a bench that cannot be set up ends")]

use std::hint::black_box;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use criterion::Criterion;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use vaxel::breaker::{Breaker, BreakerParams};
use vaxel::cache::control::{RequestControl, ResponseControl};
use vaxel::cache::key::{KeyParts, Keyer};
use vaxel::cache::storing::{self, Asked};
use vaxel::cache::{CacheParams, QueryRule, freshness, reuse};
use vaxel::clock::Clock;
use vaxel::outcome::{Failure, FailureKind, Outcome, Stage};
use vaxel::retry::budget::Budget;
use vaxel::retry::{self, Ended, Question, RetryParams, Tries};
use vaxel::router::{RouteMatch, Router};
use vaxel::throttle::queue::{CodelParams, FairQueue, QueueParams};
use vaxel::throttle::rate::Come;
use vaxel::throttle::{Class, RateLimiter, RateParams, Slots, SlotsParams, Ticket};

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .sample_size(30)
        .configure_from_args();
    routing(&mut criterion);
    caching(&mut criterion);
    throttling(&mut criterion);
    slots(&mut criterion);
    judging(&mut criterion);
    criterion.final_summary();
}

/// Two hundred routes on ten hosts.
fn routing(criterion: &mut Criterion) {
    let route = |number: usize| {
        let host = Some(format!("erp{}.example", number % 10));
        let path = format!("/sap/opu/odata/service{number}/{{entity}}/{{*rest}}");
        (RouteMatch { host, path, methods: Vec::new(), headers: Vec::new() }, number)
    };
    let router = Router::build((0..200).map(route).collect()).expect("the routes are sound");
    let (path, headers) = ("/sap/opu/odata/service137/Orders/4711/Items", HeaderMap::new());
    assert_eq!(router.find("erp7.example", path, &Method::GET, &headers), Some(&137));
    criterion.bench_function("router find", |bencher| {
        bencher.iter(|| router.find(black_box("erp7.example"), black_box(path), &Method::GET, &headers));
    });
}

/// The steps of a lookup and of a store.
fn caching(criterion: &mut Criterion) {
    let (clock, params, keyer, rule) = (Clock::system(), CacheParams::default(), Keyer::new(7), QueryRule::default());
    let moment = clock.moment();
    let parts = KeyParts {
        scheme: "https",
        host: "erp.example",
        path: "/sap/opu/odata/service/Orders",
        query: Some("$filter=Status%20eq%20'open'&$top=50&sap-client=100"),
        upstream: "erp",
        partition: None,
        body: None,
    };
    let request = fields(&[("accept-encoding", "gzip, br"), ("accept", "application/json")]);
    let answer = fields(&[
        ("cache-control", "public, max-age=60, stale-while-revalidate=600"),
        ("date", "Tue, 24 Nov 2026 04:15:51 GMT"),
        ("etag", "\"4711\""),
        ("content-type", "application/json"),
        ("vary", "accept-encoding"),
    ]);
    criterion.bench_function("key primary", |bencher| bencher.iter(|| keyer.primary(black_box(&parts), &rule)));
    let (primary, vary) = (keyer.primary(&parts, &rule), [header::ACCEPT_ENCODING]);
    criterion.bench_function("key variant", |bencher| {
        bencher.iter(|| keyer.variant(black_box(primary), &vary, black_box(&request)));
    });
    let asked = Asked { method: &Method::GET, headers: &request, parts };
    let store = || storing::decide(&asked, StatusCode::OK, black_box(&answer), &params, &|| moment, moment.mono);
    criterion.bench_function("storing decide", |bencher| bencher.iter(store));
    criterion.bench_function("freshness lifetime", |bencher| {
        bencher.iter(|| {
            let control = ResponseControl::parse(black_box(&answer), &params.targeted);
            freshness::lifetime(StatusCode::OK, &answer, &control, &params, moment.wall)
        });
    });
    let head = store().expect("it may be stored");
    let later = moment.mono + Duration::from_secs(10);
    criterion.bench_function("reuse decide", |bencher| {
        bencher.iter(|| reuse::decide(black_box(&head), false, &RequestControl::parse(black_box(&request)), later));
    });
}

/// A rate with ten thousand keys, and a queue in which ten thousand wait.
fn throttling(criterion: &mut Criterion) {
    let clock = Clock::system();
    let start = clock.now();
    let some = |number| NonZeroU32::new(number).expect("it is not zero");
    let rate = RateParams {
        limit: some(100),
        per: Duration::from_secs(1),
        burst: some(200),
        delay: None,
        mode: vaxel::refusal::Mode::Enforce,
    };
    let limiter = Arc::new(RateLimiter::new(&rate, 10_000, &clock));
    let (mut key, mut now) = (0, start);
    criterion.bench_function("rate check", |bencher| {
        bencher.iter(|| {
            (key, now) = ((key + 1) % 10_000, now + Duration::from_micros(10));
            limiter.take(key, NonZeroU32::MIN, Come { now, held: Duration::ZERO }, Duration::ZERO)
        });
    });

    let codel = CodelParams { target: Duration::from_secs(3600), interval: Duration::from_secs(3600) };
    let mut queue = FairQueue::new(
        QueueParams { capacity: 20_000, shares: [20_000; Class::ALL.len()], aging: Duration::from_secs(3600), codel },
        7,
    );
    let mut number = 0;
    let mut ticket = || {
        number += 1;
        let class = if number % 4 == 0 { Class::Batch } else { Class::Normal };
        Ticket { consumer: number % 100, weight: 1 + number as u32 % 3, class, ..Ticket::default() }
    };
    for _ in 0..10_000 {
        queue.push(ticket(), (), start).expect("there is room");
    }
    let work = Duration::from_millis(40);
    criterion.bench_function("queue push, pop, settle; 10,000 wait", |bencher| {
        bencher.iter(|| {
            queue.push(ticket(), (), start).expect("there is room");
            let popped = queue.pop([1; Class::ALL.len()], [12; Class::ALL.len()], work, start).expect("somebody waits");
            let served = popped.served.expect("the queue is not shortened");
            queue.settle(&popped.ticket, served.slots, Some(served.charged), Some(work));
        });
    });
    assert_eq!(queue.len(), 10_000);
}

/// A slot that is free.
fn slots(criterion: &mut Criterion) {
    let clock = Clock::system();
    let start = clock.now();
    let params = SlotsParams { slots: 64, queue: 20_000, timeout: Duration::from_secs(3600), ..SlotsParams::default() };
    let free = Slots::new(params, clock, 7);
    let ticket = Ticket::default();
    criterion.bench_function("slot taken, given back", |bencher| {
        bencher.iter(|| free.try_acquire(&ticket, start).expect("one is free").finish(start));
    });
}

/// What is learnt from an attempt, and whether there is another.
fn judging(criterion: &mut Criterion) {
    let start = Clock::system().now();
    let mut breaker = Breaker::new(BreakerParams::default(), 7, start);
    let (mut now, mut number) = (start, 0_u32);
    criterion.bench_function("breaker enter, record", |bencher| {
        bencher.iter(|| {
            (now, number) = (now + Duration::from_millis(1), number.wrapping_add(1));
            let pass = breaker.enter(true, now).expect("it stays closed");
            let outcome = if number % 10 == 0 { Outcome::Broken } else { Outcome::Ok };
            breaker.record(pass, outcome, Duration::from_millis(40), now)
        });
    });

    let (params, mut budget) = (RetryParams::default(), Budget::new(0.1, 10.0, start));
    let failure = Failure { kind: FailureKind::Reset, stage: Stage::Head, sent: true, reused: false };
    let question = Question {
        method: &Method::GET,
        replayable: true,
        ended: Ended::Failure(failure),
        time_left: Some(Duration::from_secs(30)),
    };
    criterion.bench_function("retry decide", |bencher| {
        bencher.iter(|| {
            now += Duration::from_millis(1);
            budget.deposit(now);
            retry::decide(&params, &mut Tries::default(), black_box(&question), &mut budget, now, 42)
        });
    });
}

fn fields(lines: &[(&'static str, &'static str)]) -> HeaderMap {
    let line =
        |(name, value): &(&'static str, &'static str)| (HeaderName::from_static(name), HeaderValue::from_static(value));
    lines.iter().map(line).collect()
}
