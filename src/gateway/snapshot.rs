//! From settings to live objects. What has a name and a state is carried over from the snapshot before: slots, breaker,
//! budget, health and connections go on through a reload.

use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasher as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::SystemTime;

use foldhash::fast::FixedState;
use http::{HeaderValue, Uri};
use parking_lot::Mutex;

use super::StartError;
use super::ledger::Ledger;
use crate::breaker::Breaker;
use crate::cache::fence::Fence;
use crate::config::settings::{RouteSettings, Settings, UpstreamSettings};
use crate::consumer::Consumers;
use crate::message::short::Short;
use crate::metrics::{EndpointLive, LimitLive, Live, QuotaLive};
use crate::proxy::limits;
use crate::proxy::snapshot::{Caller, Core, Quota, Rate, Route, Snapshot};
use crate::retry::budget::Budget;
use crate::router::Router;
use crate::throttle::quota::Counted;
use crate::throttle::rate::RateLimiter;
use crate::throttle::slots::Slots;
use crate::throttle::{RateParams, SlotsParams};
use crate::upstream::body::BodyParams;
use crate::upstream::connect::Connector;
use crate::upstream::gearbox::Gearbox;
use crate::upstream::health::{Ejection, EjectionParams};
use crate::upstream::origin::{HttpOrigin, Origin};
use crate::upstream::pool::Pool;
use crate::upstream::probe::ProbeParams;
use crate::upstream::resolve::Resolver;
use crate::upstream::{Endpoint, Upstream, tls};

/// What live objects are made with.
pub(super) struct Workshop {
    core: Arc<Core>,
    ledger: Ledger,
    resolver: Arc<Resolver>,
    origins: HashMap<String, Arc<dyn Origin>>,
    workers: usize,
    seed: u64,
}

/// The live objects of one configuration that all workers share.
pub(super) struct Built {
    pub(super) upstreams: Vec<Arc<Upstream>>,
    settings: Vec<UpstreamSettings>,
    /// By route and by consumer, with what they were made from.
    rates: HashMap<String, (RateParams, Arc<RateLimiter>)>,
    /// By consumer.
    quotas: BTreeMap<String, Quota>,
    /// By group of routes. Never forgotten: what is stored of a group that comes back must not look new.
    groups: HashMap<String, Arc<Fence>>,
}

type Reached = (Arc<[Endpoint]>, Arc<Mutex<Ejection>>);

impl Workshop {
    pub(super) fn new(
        core: Arc<Core>,
        ledger: Ledger,
        origins: HashMap<String, Arc<dyn Origin>>,
        workers: usize,
        seed: u64,
    ) -> Self {
        let resolver = Arc::new(Resolver::new(core.clock.clone()));
        Self { core, ledger, resolver, origins, workers, seed }
    }

    /// What was used of quotas, and what limits have learned.
    pub(super) const fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Makes what `settings` ask for; takes over from `before` what still fits.
    pub(super) fn build(&self, settings: &Settings, before: Option<&Built>) -> Result<Built, StartError> {
        // What can fail comes first: what is carried over is changed only when the settings are sure to come into force.
        check_routes(settings)?;
        let find = |upstream: &UpstreamSettings| before.and_then(|before| before.find(&upstream.name));
        let upstreams = &settings.upstreams;
        let reached = upstreams.iter().map(|upstream| self.reach(upstream, find(upstream)));
        let reached = reached.collect::<Result<Vec<_>, _>>()?;
        let upstreams: Vec<_> = upstreams
            .iter()
            .zip(reached)
            .map(|(upstream, reached)| self.upstream(upstream, find(upstream), reached))
            .collect();
        let mut rates = HashMap::new();
        let named = settings.routes.iter().filter_map(|route| Some((route_rate(route), route.rate?)));
        let consumers =
            settings.consumers.iter().filter_map(|consumer| Some((consumer_rate(&consumer.name), consumer.rate?)));
        for (name, params) in named.chain(consumers) {
            let kept = before.and_then(|before| before.rates.get(&name)).filter(|(old, _)| *old == params);
            let limiter = kept.map_or_else(
                || Arc::new(RateLimiter::new(&params, RATE_KEYS, &self.core.clock)),
                |(_, limiter)| Arc::clone(limiter),
            );
            rates.insert(name, (params, limiter));
        }
        let quotas = settings.consumers.iter().filter(|consumer| !consumer.quotas.is_empty());
        let quotas = quotas.map(|consumer| {
            let counts = self.ledger.account(&consumer.name);
            (consumer.name.clone(), Quota { quotas: consumer.quotas.as_slice().into(), counts })
        });
        let quotas = quotas.collect();
        let mut groups = before.map(|before| before.groups.clone()).unwrap_or_default();
        for group in settings.routes.iter().filter_map(|route| route.group.clone()) {
            groups.entry(group).or_default();
        }
        for upstream in &upstreams {
            watch(upstream, &self.core);
            if !upstream.slots_mode.counts() {
                let upstream = &upstream.name;
                tracing::warn!(%upstream, "NOT PROTECTED: its slots are in shadow mode and hold nothing back");
            }
        }
        Ok(Built { upstreams, settings: settings.upstreams.clone(), rates, quotas, groups })
    }

    pub(super) async fn upkeep(&self) {
        self.resolver.refresh().await;
        self.core.clock.realign();
    }

    fn upstream(
        &self,
        settings: &UpstreamSettings,
        before: Option<(&Arc<Upstream>, &UpstreamSettings)>,
        (endpoints, health): Reached,
    ) -> Arc<Upstream> {
        let clock = &self.core.clock;
        let now = clock.now();
        if let Some((upstream, old)) = before
            && old == settings
        {
            return Arc::clone(upstream);
        }
        let slots = match before {
            Some((upstream, _)) => {
                upstream.slots.retune(settings.slots);
                Arc::clone(&upstream.slots)
            }
            None => self.slots(settings),
        };
        let breaker = settings.breaker.clone().map(|params| {
            let carried = before.and_then(|(upstream, _)| upstream.breaker.clone());
            match carried {
                Some(breaker) => {
                    breaker.lock().retune(params, now);
                    breaker
                }
                None => Arc::new(Mutex::new(Breaker::new(params, self.seed, now))),
            }
        });
        let gears = match before {
            Some((upstream, _)) => {
                upstream.gears.retune(settings.gears.clone(), settings.windows.clone());
                Arc::clone(&upstream.gears)
            }
            None => Arc::new(Gearbox::new(settings.gears.clone(), settings.windows.clone(), now)),
        };
        let (ratio, least) = (settings.retry.budget_ratio, settings.retry.budget_min_per_second);
        let budget = match before {
            Some((upstream, _)) => {
                upstream.budget.lock().retune(ratio, least);
                Arc::clone(&upstream.budget)
            }
            None => Arc::new(Mutex::new(Budget::new(ratio, least, now))),
        };
        let upstream = Arc::new(Upstream {
            name: settings.name.as_str().into(),
            endpoints,
            health,
            slots,
            breaker,
            gears,
            queue: settings.slots.queue,
            balance: settings.balance,
            cursor: AtomicUsize::new(0),
            retry: settings.retry.clone(),
            budget,
            timeouts: settings.timeouts,
            zombie_hold: settings.slots.zombie_hold,
            endpoint_slots: settings.endpoint_slots,
            slots_mode: settings.slots.mode,
            host: settings.host,
            expect: settings.expect,
            meter: self.core.metrics.upstream(&settings.name),
        });
        upstream.hold(now);
        // A window that is open counts from the first request on.
        upstream.shift(clock.moment());
        upstream
    }

    /// New slots, which begin with what they had learned in the process before.
    fn slots(&self, settings: &UpstreamSettings) -> Arc<Slots> {
        let slots = Slots::new(settings.slots, self.core.clock.clone(), self.seed);
        let adaptive = settings.slots.adaptive.as_ref();
        if let Some(learned) = adaptive.and_then(|_| self.ledger.learned(&settings.name, self.core.clock.moment().wall))
        {
            let (upstream, limit) = (&settings.name, format!("{:.1}", learned.slots));
            if slots.restore(&learned) {
                tracing::info!(upstream, limit, "the limit goes on from what it had learned");
            } else {
                tracing::warn!(upstream, "its limit had learned by another policy: it begins anew");
            }
        }
        slots
    }

    /// The endpoints of an upstream and what is known of them.
    fn reach(
        &self,
        settings: &UpstreamSettings,
        before: Option<(&Arc<Upstream>, &UpstreamSettings)>,
    ) -> Result<Reached, StartError> {
        if let Some((upstream, _)) = before.filter(|(_, old)| old.reaches_like(settings)) {
            return Ok((Arc::clone(&upstream.endpoints), Arc::clone(&upstream.health)));
        }
        let health = Ejection::new(EjectionParams::default(), settings.endpoints.len());
        let meter = self.core.metrics.upstream(&settings.name);
        Ok((self.endpoints(settings, &meter)?, Arc::new(Mutex::new(health))))
    }

    fn endpoints(
        &self,
        settings: &UpstreamSettings,
        meter: &Arc<crate::metrics::UpstreamMeter>,
    ) -> Result<Arc<[Endpoint]>, StartError> {
        let tls_error = |error| StartError::Tls { upstream: settings.name.clone(), source: Box::new(error) };
        let encrypted = settings.endpoints.iter().any(|uri| uri.scheme_str() == Some("https"));
        let config = if encrypted { Some(tls::client_config(&settings.tls).map_err(tls_error)?) } else { None };
        let endpoint = |uri: &Uri| {
            let authority = uri.authority().map_or("", |authority| authority.as_str());
            let https = uri.scheme_str() == Some("https");
            let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
            let port = uri.port_u16().unwrap_or(if https { 443 } else { 80 });
            let tls = match &config {
                Some(config) if https => Some((Arc::clone(config), settings.tls.name_for(host).map_err(tls_error)?)),
                _ => None,
            };
            let connector = Connector::new(host, port, tls, Arc::clone(&self.resolver));
            let pool = Pool::new(settings.pool.clone(), self.workers, self.core.clock.clone());
            let (origin, reach): (Arc<dyn Origin>, _) = match self.origins.get(&settings.name) {
                Some(origin) => (Arc::clone(origin), None),
                None => {
                    let (pooled, meter) = (Arc::clone(&pool), Arc::clone(meter));
                    let origin = HttpOrigin::new(connector.clone(), settings.timeouts.connect, pooled, meter);
                    (Arc::new(origin), Some((connector, pool)))
                }
            };
            let (connector, pool) = reach.unzip();
            Ok(Endpoint {
                name: uri.to_string().trim_end_matches('/').into(),
                authority: HeaderValue::from_str(authority).unwrap_or(HeaderValue::from_static("")),
                origin,
                pool,
                connector,
                in_flight: AtomicU32::new(0),
            })
        };
        settings.endpoints.iter().map(endpoint).collect()
    }
}

impl Built {
    fn find(&self, name: &str) -> Option<(&Arc<Upstream>, &UpstreamSettings)> {
        let settings = self.settings.iter().find(|settings| settings.name == name)?;
        let upstream = self.upstreams.iter().find(|upstream| &*upstream.name == name)?;
        Some((upstream, settings))
    }

    /// With what the slots of an upstream were made.
    pub(super) fn slots(&self, upstream: &str) -> Option<SlotsParams> {
        self.find(upstream).map(|(_, settings)| settings.slots)
    }

    /// The upstreams that ask for probes.
    pub(super) fn probed(&self) -> Vec<(Arc<Upstream>, ProbeParams)> {
        let both = self.upstreams.iter().zip(&self.settings);
        both.filter_map(|(upstream, settings)| Some((Arc::clone(upstream), settings.probe.clone()?))).collect()
    }

    /// Forgets what `next` has no more.
    pub(super) fn retire(&self, next: &Self) {
        for upstream in &self.upstreams {
            if next.find(&upstream.name).is_none() {
                upstream.meter.unwatch();
            }
        }
    }

    /// How consumers stand with their quotas at `now`.
    pub(super) fn standing(&self, now: SystemTime) -> Vec<QuotaLive> {
        let quotas = self.quotas.iter().flat_map(|(consumer, Quota { quotas, counts })| {
            let standing = counts.lock().stand(quotas, 0, now);
            standing.into_iter().flatten().map(|Counted { per, used, limit, .. }| QuotaLive {
                consumer: consumer.clone(),
                per: per.word(),
                used,
                limit,
            })
        });
        quotas.collect()
    }

    fn rate(&self, name: &str, policy: &str) -> Option<Rate> {
        let (RateParams { limit, per, .. }, limiter) = self.rates.get(name)?;
        let mut text = Short::default();
        limits::policy(&mut text, policy, limit.get().into(), per.as_secs().max(1));
        let value = text.value()?;
        let lines = limits::known_lines(policy, value.to_str().ok()?);
        Some(Rate { limiter: Arc::clone(limiter), policy: value, lines })
    }
}

/// One worker's snapshot.
pub(super) fn view(core: &Core, built: &Built, settings: &Settings) -> Arc<Snapshot> {
    let routes: Box<[Route]> = settings.routes.iter().map(|route| self::route(core, built, route)).collect();
    let table = settings.routes.iter().enumerate().map(|(index, route)| (route.matching.clone(), index)).collect();
    let known = settings
        .consumers
        .iter()
        .map(|consumer| Caller {
            name: consumer.name.as_str().into(),
            identity: core.store.keyer().number(&consumer.name),
            weight: consumer.weight,
            class: consumer.class,
            rate: built.rate(&consumer_rate(&consumer.name), limits::CONSUMER),
            quota: built.quotas.get(&consumer.name).cloned(),
            meter: core.metrics.consumer(&consumer.name),
        })
        .collect();
    Arc::new(Snapshot {
        router: Router::build(table).unwrap_or_else(|_| unreachable!("`build` has checked the patterns")),
        routes,
        consumers: Consumers::new(settings.consumers.clone()),
        known,
        anonymous: Caller {
            name: "anonymous".into(),
            identity: 0,
            weight: 1,
            class: None,
            rate: None,
            quota: None,
            meter: core.metrics.anonymous(),
        },
        unrouted: core.metrics.unrouted(),
        forwarding: settings.forwarding.clone(),
        told: settings.limits,
    })
}

fn route(core: &Core, built: &Built, settings: &RouteSettings) -> Route {
    let upstream = built.upstreams.get(settings.upstream).map(Arc::clone);
    let upstream = upstream.unwrap_or_else(|| unreachable!("settings name only upstreams they hold"));
    Route {
        name: settings.name.as_str().into(),
        pattern: settings.matching.to_string().into(),
        number: core.store.keyer().number(&settings.name),
        meter: core.metrics.route(&settings.name, &upstream.name),
        upstream,
        group: settings.group.as_ref().and_then(|group| built.groups.get(group)).map(Arc::clone),
        cache: settings.cache.clone(),
        rate: settings.rate.and_then(|_| built.rate(&route_rate(settings), limits::ROUTE)),
        class: settings.class,
        cost: settings.cost,
        operation: FixedState::default().hash_one(&settings.name),
        rewrite: settings.rewrite.clone(),
        request_headers: settings.request_headers.clone(),
        response_headers: settings.response_headers.clone(),
        body: BodyParams { limit: settings.max_body.unwrap_or(u64::MAX), timeout: settings.body_timeout },
        require_consumer: settings.require_consumer,
        deadline: settings.deadline.clone(),
        spare: settings.spare.and_then(|index| built.upstreams.get(index)).map(Arc::clone),
        fallback: settings.fallback.clone(),
        classes: settings.classes.clone(),
    }
}

fn check_routes(settings: &Settings) -> Result<(), StartError> {
    let table = settings.routes.iter().map(|route| (route.matching.clone(), ())).collect();
    Router::build(table).map(drop).map_err(|mut errors| {
        let (index, error) = errors.swap_remove(0);
        let route = settings.routes.get(index).map_or_else(String::new, |route| route.name.clone());
        StartError::Route { route, reason: error.to_string() }
    })
}

/// A route without a name of its own is known by what it takes: `/a#2` is another one when routes are reordered.
fn route_rate(route: &RouteSettings) -> String {
    match route.name.strip_prefix(&route.matching.path) {
        Some("") => format!("takes {:?}", route.matching),
        Some(number) if number.starts_with('#') => format!("takes {:?}", route.matching),
        _ => format!("route {}", route.name),
    }
}

fn consumer_rate(name: &str) -> String {
    format!("consumer {name}")
}

/// Lets a scrape see how the upstream stands.
fn watch(upstream: &Arc<Upstream>, core: &Arc<Core>) {
    let (weak, clock) = (Arc::downgrade(upstream), core.clock.clone());
    upstream.meter.watch(Box::new(move || {
        let Some(upstream) = weak.upgrade() else { return Live::default() };
        let (stats, now) = (upstream.slots.stats(), clock.now());
        let health = upstream.health.lock();
        let pools = upstream.endpoints.iter().filter_map(|endpoint| endpoint.pool.as_ref());
        Live {
            slots: stats.slots,
            limit: stats.limit.map(|limit| LimitLive {
                suggested: limit.suggested,
                latency_ratio: limit.reading.ratio(),
                drops: limit.drops,
            }),
            busy: stats.busy,
            zombie: stats.zombie,
            queued: stats.queued,
            idle_connections: pools.map(|pool| pool.idle()).sum(),
            breaker: upstream.breaker.as_ref().map(|breaker| breaker.lock().state(now)),
            gear: Some(upstream.gears.now()).map(|stand| (stand.gear, stand.strain)),
            endpoints: upstream
                .endpoints
                .iter()
                .enumerate()
                .map(|(index, endpoint)| EndpointLive {
                    name: endpoint.name.to_string(),
                    up: health.is_available(index, now),
                    requests: endpoint.in_flight.load(Ordering::Relaxed),
                })
                .collect(),
        }
    }));
}

/// Buckets of a rate limiter: 16 bytes each.
const RATE_KEYS: usize = 65_536;
