//! Which routes could answer from the store, how much that takes off the backend, and which must not.

use std::time::Duration;

use super::sightings::{Played, TTLS, Told};
use super::{Block, Caches, ENOUGH, Facts, Finding, Kind, Place, RouteFacts, counted, percent, time};

/// Looks at the routes.
pub(super) fn advise(facts: &Facts, findings: &mut Vec<Finding>) {
    for route in &facts.routes {
        findings.extend(personal(route, facts.watched));
        findings.extend(cacheable(route, facts.watched));
        findings.extend(never_stored(route));
    }
    let seen: f64 = facts.routes.iter().map(|route| route.seen.requests).sum();
    if facts.observes && seen < ENOUGH {
        findings.push(Finding {
            kind: Kind::NotEnough,
            about: String::new(),
            worth: 0.0,
            advice: "Ask again when there was more traffic: too little was seen to say what could be stored."
                .to_owned(),
            evidence: vec![format!(
                "{} passed the store in {}; it takes about {ENOUGH} on a route",
                counted(seen, "answer"),
                time(facts.watched)
            )],
            block: None,
        });
    }
}

/// How the answers of a route could be stored.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Plan {
    /// By this lifetime; `None`: by those the origin gives.
    ttl: Option<Duration>,
    played: Played,
    /// Callers share, once each was let in.
    after_auth: bool,
}

/// What may be stored, unless somebody would get what is not his.
fn cacheable(route: &RouteFacts, watched: Duration) -> Option<Finding> {
    let seen = &route.seen;
    if route.caches == Caches::Own || seen.open < ENOUGH || seen.personal_keys > 0 {
        return None;
    }
    let after_auth = seen.credentials > 0.0;
    // Between callers with credentials the same bytes must have been seen, and not once.
    if after_auth && seen.alike < ALIKE {
        return None;
    }
    let plan = plan(route, after_auth, watched)?;
    if plan.played.hits < WORTH_WHILE * seen.requests {
        return None;
    }
    let worth = per_second(plan.played.spared, watched);
    let how = plan.ttl.map_or_else(|| "as long as their origin says".to_owned(), |ttl| format!("for {}", time(ttl)));
    let mut evidence = vec![
        format!(
            "{} for {} passed the store in {}; {} ({}) would have been answered from it",
            counted(seen.requests, "request"),
            counted(seen.keys, "URL"),
            time(watched),
            counted(plan.played.hits, "request"),
            percent(plan.played.hits, seen.requests)
        ),
        format!("that is {} of the backend's time, {worth:.2} slots on average", time(plan.played.spared)),
        if plan.played.wrong < 0.5 {
            "none of them would have got other bytes than the backend gave".to_owned()
        } else {
            format!("{} of them would have got what had just changed", percent(plan.played.wrong, plan.played.hits))
        },
    ];
    if after_auth {
        evidence.push(format!(
            "callers with different credentials got the same bytes {}, and none his own",
            counted(seen.alike, "time")
        ));
    }
    let barred = seen.requests - seen.open;
    if barred >= 0.5 {
        evidence.push(format!("{} are left out: {}", counted(barred, "request"), bars(seen)));
    }
    let keys = [
        plan.ttl.map(|ttl| format!("ttl = \"{}\"", time(ttl))),
        plan.after_auth.then(|| format!("shared_after_auth = \"{}\"", time(LET_IN))),
    ];
    let keys: Vec<_> = keys.into_iter().flatten().collect();
    let lines = if keys.is_empty() { "cache = true".to_owned() } else { format!("cache = {{ {} }}", keys.join(", ")) };
    Some(Finding {
        kind: Kind::Cacheable,
        about: route.name.clone(),
        worth,
        advice: format!("Store the answers of the route {:?} {how}.", route.name),
        evidence,
        block: Some(Block { place: Place::Route(route.name.clone()), lines }),
    })
}

/// The longest lifetime by which almost nobody gets what has changed, of those it was watched several times; or those the
/// origin gives, if it gives any.
fn plan(route: &RouteFacts, after_auth: bool, watched: Duration) -> Option<Plan> {
    let (seen, caches) = (&route.seen, route.caches);
    let is_right = |played: &Played| played.wrong <= WRONG * played.hits;
    // What the origin dates may be stored with `cache = true`; that it passes although the route has that has causes.
    if seen.dated > 0.5 * seen.open {
        let plan = Plan { ttl: None, played: seen.by_origin, after_auth };
        return (is_right(&plan.played) && (caches == Caches::No || after_auth)).then_some(plan);
    }
    let was_watched = |ttl: Duration| SEVERAL * ttl <= watched;
    let longest = seen.plays.iter().zip(TTLS).take_while(|(played, ttl)| is_right(played) && was_watched(*ttl)).last();
    let (played, ttl) = longest?;
    Some(Plan { ttl: Some(ttl), played: *played, after_auth })
}

/// What looks cacheable and is not.
fn personal(route: &RouteFacts, watched: Duration) -> Option<Finding> {
    let seen = &route.seen;
    if route.caches != Caches::No || seen.requests < ENOUGH {
        return None;
    }
    let barred = seen.barred.iter().sum::<f64>();
    if seen.personal_keys == 0 && barred < 0.5 * seen.requests {
        return None;
    }
    let mut evidence = Vec::new();
    if seen.personal_keys > 0 {
        evidence.push(format!(
            "the same URL gave different callers different bytes: {} of those looked at, with {} of the requests",
            counted(seen.personal_keys as f64, "URL"),
            percent(seen.personal, seen.requests)
        ));
    }
    if barred >= 0.5 {
        evidence.push(format!("not to be stored: {}", bars(seen)));
    }
    let worth = 0.01 * per_second(seen.took, watched);
    Some(Finding {
        kind: Kind::Personal,
        about: route.name.clone(),
        worth,
        advice: format!(
            "Do not share the answers of the route {:?}: they are personal. If single users ask for the same again and again, \
             `per_consumer = true` keeps theirs apart.",
            route.name
        ),
        evidence,
        block: None,
    })
}

/// A route that caches, and never stores.
fn never_stored(route: &RouteFacts) -> Option<Finding> {
    let is_idle = route.caches != Caches::No && route.stored == 0 && route.passed as f64 >= ENOUGH;
    if !is_idle {
        return None;
    }
    let mut evidence = vec![format!(
        "{} went past the store, and not one was answered from it",
        counted(route.passed as f64, "request")
    )];
    for (why, count) in &route.why {
        let meaning = reason(why);
        evidence.push(format!("{why}: {meaning} ({})", counted(*count as f64, "time")));
    }
    Some(Finding {
        kind: Kind::NeverStored,
        about: route.name.clone(),
        worth: 0.0,
        advice: format!("The route {:?} caches, but nothing of it is ever stored.", route.name),
        evidence,
        block: None,
    })
}

/// What the codes of `Cache-Status: detail` mean, for somebody who wonders.
fn reason(code: &str) -> &'static str {
    match code {
        "authorization" => "requests carry Authorization; `shared_after_auth` or `per_consumer` stores such answers",
        "cookie" => "requests carry cookies and the origin gives no lifetime; `identity` says which cookies matter",
        "set_cookie" => "answers set cookies; `ignore_set_cookie` names those that say nothing",
        "private" => "the origin says that answers are for one user",
        "no_store" => "the origin forbids to store them; `override` with `ttl` overrules it",
        "session" => "answers belong to a session of the backend",
        "useless" => "the origin gives no lifetime and no validator; `ttl` gives one",
        "status" => "errors are not stored",
        "vary" => "answers vary by what nobody can foresee (`Vary: *`)",
        "too_large" => "answers are larger than `max_entry`",
        "unexpected" => "answers are not what `expect` says",
        "method" => "the methods are not answered from the store",
        "range" => "only parts of what is not stored are asked for",
        _ => "see Cache-Status in answers, and `vaxel explain`",
    }
}

fn bars(seen: &Told) -> String {
    let named = ["set cookies", "are private", "must not be stored", "vary by anything", "are too large"];
    let found = seen.barred.iter().zip(named).filter(|(requests, _)| **requests >= 0.5);
    let found: Vec<_> = found.map(|(requests, name)| format!("{} {name}", percent(*requests, seen.requests))).collect();
    if found.is_empty() { "their bytes differ between callers".to_owned() } else { found.join(", ") }
}

fn per_second(spared: Duration, watched: Duration) -> f64 {
    let watched = watched.as_secs_f64();
    if watched > 0.0 { spared.as_secs_f64() / watched } else { 0.0 }
}

/// How many lifetimes it takes to see whether something changes within one.
const SEVERAL: u32 = 4;
/// Answers that had changed meanwhile: as many as this share are borne.
const WRONG: f64 = 0.01;
/// A store that answers less than this share is not worth a line.
const WORTH_WHILE: f64 = 0.05;
/// Times callers with credentials must have got the same.
const ALIKE: f64 = 20.0;
/// How long who was let in may have what is shared: as long as a dialog pauses.
const LET_IN: Duration = Duration::from_secs(300);

#[cfg(test)]
mod tests {
    use super::*;

    /// A route of which 1000 requests were seen that could be stored.
    fn route() -> RouteFacts {
        let played = |hits, wrong| Played { hits, wrong, spared: Duration::from_millis(hits as u64 * 50) };
        RouteFacts {
            name: "catalog".into(),
            seen: Told {
                keys: 10.0,
                requests: 1_000.0,
                took: Duration::from_secs(50),
                open: 1_000.0,
                plays: [played(500.0, 0.0), played(800.0, 2.0), played(950.0, 9.0), played(990.0, 400.0)],
                ..Told::default()
            },
            ..RouteFacts::default()
        }
    }

    fn findings(route: RouteFacts) -> Vec<Finding> {
        let mut findings = Vec::new();
        let facts =
            Facts { watched: Duration::from_secs(1_000), observes: true, routes: vec![route], ..Facts::default() };
        advise(&facts, &mut findings);
        findings
    }

    #[track_caller]
    fn check(route: RouteFacts, expected: &[(Kind, Option<&str>)]) {
        let findings = findings(route);
        let found: Vec<_> = findings
            .iter()
            .map(|finding| (finding.kind, finding.block.as_ref().map(|block| block.lines.as_str())))
            .collect();
        assert_eq!(found, expected, "{findings:#?}");
    }

    fn with(change: impl FnOnce(&mut RouteFacts)) -> RouteFacts {
        let mut route = route();
        change(&mut route);
        route
    }

    #[test]
    fn the_longest_lifetime_that_is_almost_always_right_is_advised() {
        check(route(), &[(Kind::Cacheable, Some("cache = { ttl = \"60s\" }"))]);
        let finding = findings(route()).remove(0);
        assert!((finding.worth - 0.0475).abs() < 1e-9, "{}", finding.worth);
        assert!(finding.evidence[0].contains("950 requests (95 %)"), "{:?}", finding.evidence);
        check(with(|route| route.seen.plays[0].wrong = 100.0), &[]);
    }

    #[test]
    fn a_lifetime_is_advised_only_after_several_of_it() {
        for (seconds, expected) in [(3, None), (4, Some(1)), (100, Some(10)), (240, Some(60))] {
            let plan = plan(&route(), false, Duration::from_secs(seconds));
            assert_eq!(plan.and_then(|plan| plan.ttl), expected.map(Duration::from_secs), "{seconds}");
        }
    }

    #[test]
    fn what_the_origin_dates_needs_no_lifetime() {
        let dated = |route: &mut RouteFacts| {
            route.seen.dated = 900.0;
            route.seen.by_origin = route.seen.plays[1];
        };
        check(with(dated), &[(Kind::Cacheable, Some("cache = true"))]);
        let plain = |route: &mut RouteFacts| {
            dated(route);
            route.caches = Caches::Plain;
        };
        check(with(plain), &[]);
    }

    #[test]
    fn callers_with_credentials_share_only_what_was_seen_to_be_the_same() {
        let credentials = |alike| with(|route| (route.seen.credentials, route.seen.alike) = (1_000.0, alike));
        check(credentials(0.0), &[]);
        check(credentials(200.0), &[(Kind::Cacheable, Some("cache = { ttl = \"60s\", shared_after_auth = \"5m\" }"))]);
    }

    #[test]
    fn one_personal_url_forbids_it_for_the_route() {
        let personal = with(|route| (route.seen.personal, route.seen.personal_keys) = (10.0, 1));
        check(personal, &[(Kind::Personal, None)]);
    }

    #[test]
    fn what_sets_cookies_or_is_private_is_refused_with_the_reason() {
        let barred = with(|route| (route.seen.barred, route.seen.open) = ([1_000.0, 0.0, 0.0, 0.0, 0.0], 0.0));
        let finding = findings(barred).remove(0);
        assert_eq!(finding.kind, Kind::Personal);
        assert!(finding.evidence[0].contains("100 % set cookies"), "{finding:?}");
    }

    #[test]
    fn a_route_that_stores_nothing_is_told_why() {
        let idle = with(|route| {
            *route = RouteFacts { name: "catalog".into(), caches: Caches::Own, passed: 500, ..RouteFacts::default() };
            route.why = vec![("useless", 3)];
        });
        let finding = findings(idle).remove(0);
        assert_eq!(finding.kind, Kind::NeverStored);
        assert!(finding.evidence[1].contains("`ttl` gives one (3 times)"), "{finding:?}");
    }

    #[test]
    fn a_few_requests_say_nothing() {
        let few = with(|route| (route.seen.requests, route.seen.open) = (99.0, 99.0));
        check(few, &[(Kind::NotEnough, None)]);
    }

    #[test]
    fn what_is_hardly_asked_for_twice_is_not_worth_a_line() {
        check(with(|route| route.seen.plays = Default::default()), &[]);
    }
}
