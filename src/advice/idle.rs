//! What is configured and has no effect: timeouts that never fire, routes nobody asks for, consumers who never come,
//! rates that are never reached.

use std::time::Duration;

use super::{Block, Facts, Finding, Kind, Place, UpstreamFacts, counted, time};

/// Looks at everything that may have no effect.
pub(super) fn advise(facts: &Facts, findings: &mut Vec<Finding>) {
    if facts.watched < LONG {
        return;
    }
    findings.extend(facts.upstreams.iter().filter_map(timeout));
    let all: u64 = facts.routes.iter().map(|route| route.requests).sum();
    if all < MANY {
        return;
    }
    let idle = |about: &str, advice: String, evidence: String| Finding {
        kind: Kind::NoEffect,
        about: about.to_owned(),
        worth: 0.0,
        advice,
        evidence: vec![evidence],
        block: None,
    };
    let requests = |count: u64| counted(count as f64, "request");
    for route in &facts.routes {
        if route.requests == 0 {
            findings.push(idle(
                &route.name,
                format!(
                    "The route {:?} is never taken: is it still needed, or does a more specific one take its requests?",
                    route.name
                ),
                format!("0 of {} were for it", requests(all)),
            ));
        } else if route.rate == Some(0) && route.requests >= MANY {
            findings.push(idle(
                &route.name,
                format!("The rate of the route {:?} was never reached: a lower one would protect sooner.", route.name),
                format!("none of {} was over it", requests(route.requests)),
            ));
        }
    }
    for consumer in facts.consumers.iter().filter(|consumer| consumer.is_known) {
        if consumer.requests == 0 {
            findings.push(idle(
                &consumer.name,
                format!("The consumer {:?} never came: is it gone, or known by another key or header?", consumer.name),
                format!("0 of {} were its own", requests(all)),
            ));
        } else if consumer.rate == Some(0) && consumer.requests >= MANY {
            findings.push(idle(
                &consumer.name,
                format!("The rate of the consumer {:?} was never reached.", consumer.name),
                format!("none of {} was over it", requests(consumer.requests)),
            ));
        }
    }
}

/// A head timeout far beyond the slowest answer: each request that hangs holds its slot for so long.
fn timeout(upstream: &UpstreamFacts) -> Option<Finding> {
    let slowest = upstream.slowest?;
    let patience = rounded((4 * slowest).max(SHORTEST));
    if upstream.answers < MANY || upstream.late > 0 || 2 * patience > upstream.head_timeout {
        return None;
    }
    Some(Finding {
        kind: Kind::Timeout,
        about: upstream.name.clone(),
        worth: 0.05,
        advice: format!(
            "Wait {} for answers of the upstream {:?}, not {}: what hangs gives up its client sooner.",
            time(patience),
            upstream.name,
            time(upstream.head_timeout)
        ),
        evidence: vec![format!(
            "the slowest of {} began within {}, and no attempt ever met the timeout",
            counted(upstream.answers as f64, "answer"),
            time(slowest)
        )],
        block: Some(Block {
            place: Place::Upstream(upstream.name.clone()),
            lines: format!(
                "timeouts = {{ connect = \"{}\", head = \"{}\", total = \"{}\" }}",
                exact(upstream.connect_timeout),
                exact(patience),
                exact(upstream.total_timeout)
            ),
        }),
    })
}

/// A time that reads back as the same.
fn exact(span: Duration) -> String {
    if span.subsec_nanos() == 0 { format!("{}s", span.as_secs()) } else { format!("{}ms", span.as_millis()) }
}

/// Up to a whole second.
fn rounded(span: Duration) -> Duration {
    Duration::from_secs(span.as_secs() + u64::from(span.subsec_nanos() > 0))
}

/// Requests below which nothing is said.
const MANY: u64 = 1_000;
/// Nor before that: what does not happen in a minute may in the next.
const LONG: Duration = Duration::from_hours(1);
/// No backend is so even that a shorter patience is wise.
const SHORTEST: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::advice::{ConsumerFacts, RouteFacts};

    #[test]
    fn a_timeout_far_beyond_the_slowest_answer_is_told() {
        let upstream = |slowest_ms: u64, answers, late| UpstreamFacts {
            name: "erp".into(),
            slowest: Some(Duration::from_millis(slowest_ms)),
            answers,
            late,
            connect_timeout: Duration::from_millis(1_500),
            head_timeout: Duration::from_secs(30),
            total_timeout: Duration::from_secs(60),
            ..UpstreamFacts::default()
        };
        let lines = |upstream: &UpstreamFacts| Some(timeout(upstream)?.block?.lines);
        let with = |head| format!("timeouts = {{ connect = \"1500ms\", head = \"{head}\", total = \"60s\" }}");
        assert_eq!(lines(&upstream(100, 1_000, 0)).as_deref(), Some(&*with("2s")));
        assert_eq!(lines(&upstream(1_100, 1_000, 0)).as_deref(), Some(&*with("5s")));
        assert_eq!(lines(&upstream(5_000, 1_000, 0)), None);
        assert_eq!(lines(&upstream(100, 999, 0)), None);
        assert_eq!(lines(&upstream(100, 1_000, 1)), None);
    }

    #[test]
    fn what_nobody_uses_is_told_once_there_was_traffic_for_long_enough() {
        let route =
            |name: &str, requests, rate| RouteFacts { name: name.into(), requests, rate, ..RouteFacts::default() };
        let consumer = |name: &str, is_known, requests, rate| ConsumerFacts {
            name: name.into(),
            is_known,
            requests,
            rate,
            ..ConsumerFacts::default()
        };
        let mut facts = Facts {
            watched: LONG,
            routes: vec![route("used", 1_000, Some(0)), route("limited", 1_000, Some(3)), route("idle", 0, None)],
            consumers: vec![
                consumer("web", true, 1_000, Some(0)),
                consumer("gone", true, 0, None),
                consumer("_anonymous", false, 0, None),
            ],
            ..Facts::default()
        };
        let about = |facts: &Facts| {
            let mut findings = Vec::new();
            advise(facts, &mut findings);
            findings.into_iter().map(|finding| finding.about).collect::<Vec<_>>()
        };
        assert_eq!(about(&facts), ["used", "idle", "web", "gone"]);
        let early = Facts { watched: LONG - Duration::from_secs(1), ..facts.clone() };
        assert_eq!(about(&early), [""; 0]);
        facts.routes.iter_mut().for_each(|route| route.requests = route.requests.min(1));
        assert_eq!(about(&facts), [""; 0], "a few requests say nothing");
    }
}
