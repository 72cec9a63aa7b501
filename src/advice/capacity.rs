//! How many slots an upstream needs, and who wants more of them than his share.

use super::{
    Block, ConsumerFacts, Facts, Finding, Kind, LOOKS, LimitFacts, Place, UpstreamFacts, counted, percent, time,
};

/// Looks at upstreams and consumers.
pub(super) fn advise(facts: &Facts, findings: &mut Vec<Finding>) {
    findings.extend(facts.upstreams.iter().filter_map(slots));
    over_share(&facts.consumers, findings);
}

fn slots(upstream: &UpstreamFacts) -> Option<Finding> {
    if upstream.pulse.looks() < LOOKS || upstream.granted < ANSWERS {
        return None;
    }
    match upstream.limit {
        Some(limit) => suggested(upstream, limit),
        None if upstream.pulse.waiting() >= CROWDED => try_more(upstream),
        None => spare(upstream),
    }
}

/// A limit in shadow mode has found another number.
fn suggested(upstream: &UpstreamFacts, limit: LimitFacts) -> Option<Finding> {
    let moved = limit.suggested.abs_diff(upstream.slots);
    if !limit.shadow || moved == 0 || limit.answers == 0 || 10 * moved < upstream.slots {
        return None;
    }
    Some(Finding {
        kind: Kind::Slots,
        about: upstream.name.clone(),
        worth: moved as f64,
        advice: format!(
            "Give the upstream {:?} {} slots instead of {}.",
            upstream.name, limit.suggested, upstream.slots
        ),
        evidence: vec![
            format!(
                "its limit in shadow mode finds {} right: answers took {:.2} times their baseline ({})",
                limit.suggested,
                limit.latency_ratio,
                counted(f64::from(limit.answers), "answer")
            ),
            busy(upstream),
        ],
        block: block(upstream, limit.suggested),
    })
}

/// Requests wait: whether more slots would help, only the backend can tell.
fn try_more(upstream: &UpstreamFacts) -> Option<Finding> {
    let most = (4 * upstream.slots).max(8);
    let lines =
        format!("slots = {{ adaptive = \"gradient\", mode = \"shadow\", start = {}, max = {most} }}", upstream.slots);
    Some(Finding {
        kind: Kind::Slots,
        about: upstream.name.clone(),
        worth: upstream.pulse.waiting() * upstream.slots as f64,
        advice: format!(
            "Find out whether the upstream {:?} bears more than {} slots: requests wait for one.",
            upstream.name, upstream.slots
        ),
        evidence: vec![
            format!("somebody waited at {} of {}", percent(upstream.pulse.waiting(), 1.0), looks(upstream)),
            busy(upstream),
            format!("{} refused in the queue", counted(upstream.refused as f64, "request")),
            "in shadow mode the number in force stays; ask again after an hour of traffic".to_owned(),
        ],
        block: Some(Block { place: Place::Upstream(upstream.name.clone()), lines }),
    })
}

/// Far fewer were ever taken: the rest protects nobody.
fn spare(upstream: &UpstreamFacts) -> Option<Finding> {
    let (pulse, slots) = (&upstream.pulse, upstream.slots);
    // A half more than was ever seen, and one.
    let needed = pulse.most() + pulse.most().div_ceil(2) + 1;
    if pulse.looks() < LONG || pulse.waiting() > 0.0 || pulse.most() == 0 || 2 * needed > slots {
        return None;
    }
    Some(Finding {
        kind: Kind::Slots,
        about: upstream.name.clone(),
        worth: 0.1,
        advice: format!(
            "Give the upstream {:?} {needed} slots instead of {slots}: then the first flood finds it protected.",
            upstream.name
        ),
        evidence: vec![busy(upstream), format!("at none of {} did anybody wait", looks(upstream))],
        block: block(upstream, needed),
    })
}

fn block(upstream: &UpstreamFacts, slots: usize) -> Option<Block> {
    Some(Block { place: Place::Upstream(upstream.name.clone()), lines: format!("slots = {slots}") })
}

/// Little's law, as it was measured.
fn busy(upstream: &UpstreamFacts) -> String {
    let pulse = &upstream.pulse;
    let typical = upstream.typical.map_or_else(String::new, |typical| {
        let arrivals = if typical.is_zero() { 0.0 } else { pulse.mean() / typical.as_secs_f64() };
        format!("; a slot is taken for {} as a rule, so about {arrivals:.1} requests per second", time(typical))
    });
    format!(
        "{:.1} slots were taken on average, {} at most, of {}, in {}{typical}",
        pulse.mean(),
        pulse.most(),
        upstream.slots,
        looks(upstream)
    )
}

fn looks(upstream: &UpstreamFacts) -> String {
    format!("{}, one each second", counted(upstream.pulse.looks() as f64, "look"))
}

/// Who, while requests waited, took and wanted more than the weights give.
fn over_share(consumers: &[ConsumerFacts], findings: &mut Vec<Finding>) {
    let active = || consumers.iter().filter(|consumer| !consumer.pressed.is_zero());
    let all: f64 = active().map(|consumer| consumer.pressed.as_secs_f64()).sum();
    let weights: f64 = active().map(|consumer| f64::from(consumer.weight.max(1))).sum();
    if active().count() < 2 || all <= 0.0 {
        return;
    }
    for consumer in active().filter(|consumer| consumer.pressed_seconds >= LOOKS) {
        let wanted = consumer.pressed.as_secs_f64() / all;
        let share = f64::from(consumer.weight.max(1)) / weights;
        if wanted < FAR_OVER * share {
            continue;
        }
        // What it asked for per second, cut down to its share.
        let rate = consumer.pressed_requests as f64 / consumer.pressed_seconds as f64;
        let fair = (rate * share / wanted).ceil().max(1.0);
        let lines = format!("rate = {{ limit = \"{fair}/s\", mode = \"shadow\" }}");
        let block = Block { place: Place::Consumer(consumer.name.clone()), lines };
        findings.push(Finding {
            kind: Kind::OverShare,
            about: consumer.name.clone(),
            worth: (wanted - share) * all / consumer.pressed_seconds as f64,
            advice: format!(
                "The consumer {:?} wants more than its share while others wait: give it a rate, or a weight that says that it may.",
                consumer.name
            ),
            evidence: vec![
                format!(
                    "in {} in which requests waited it had or waited for {} of the backend's time; its weight {} gives {}",
                    counted(consumer.pressed_seconds as f64, "second"),
                    percent(wanted, 1.0),
                    consumer.weight,
                    percent(share, 1.0)
                ),
                format!("it asked {rate:.1} times a second; {fair} is its share of what was asked"),
                "in shadow mode the rate only counts whom it would refuse".to_owned(),
            ],
            block: consumer.is_known.then_some(block),
        });
    }
}

/// Slots given below which nothing is said.
const ANSWERS: u64 = 100;
/// Looks before slots are taken away: ten minutes of traffic.
const LONG: u64 = 600;
/// The share of looks with waiters from which more slots are worth a try.
const CROWDED: f64 = 0.05;
/// How many times its share a consumer wants before it is told.
const FAR_OVER: f64 = 1.5;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::advice::pulse::Pulse;

    fn upstream(looks: usize, taken: usize, queued: usize) -> UpstreamFacts {
        let mut pulse = Pulse::default();
        (0..looks).for_each(|_| pulse.look(taken, queued));
        UpstreamFacts {
            name: "erp".into(),
            slots: 12,
            pulse,
            typical: Some(Duration::from_millis(100)),
            granted: 10_000,
            ..UpstreamFacts::default()
        }
    }

    #[track_caller]
    fn check(upstream: &UpstreamFacts, expected: Option<&str>) {
        let finding = slots(upstream);
        let lines = finding.as_ref().and_then(|finding| Some(finding.block.as_ref()?.lines.as_str()));
        assert_eq!(lines, expected, "{finding:#?}");
    }

    #[test]
    fn slots_that_are_never_taken_are_told() {
        check(&upstream(600, 2, 0), Some("slots = 4"));
        check(&upstream(600, 4, 0), None);
        check(&upstream(599, 2, 0), None);
        let finding = slots(&upstream(600, 2, 0)).unwrap();
        assert!(finding.evidence[0].contains("about 20.0 requests per second"), "{finding:?}");
    }

    #[test]
    fn where_requests_wait_a_limit_in_shadow_mode_finds_out() {
        let expected = "slots = { adaptive = \"gradient\", mode = \"shadow\", start = 12, max = 48 }";
        check(&upstream(60, 12, 3), Some(expected));
        check(&upstream(59, 12, 3), None);
    }

    #[test]
    fn what_a_limit_suggests_is_handed_on() {
        let with = |suggested, shadow, answers| {
            let limit = Some(LimitFacts { suggested, shadow, answers, latency_ratio: 1.1 });
            UpstreamFacts { limit, ..upstream(60, 8, 1) }
        };
        check(&with(20, true, 50), Some("slots = 20"));
        check(&with(12, true, 50), None);
        check(&with(13, true, 50), None);
        check(&with(20, true, 0), None);
        check(&with(20, false, 50), None);
    }

    #[test]
    fn who_wants_more_than_his_share_under_pressure_is_told() {
        let consumer = |name: &str, weight, seconds| ConsumerFacts {
            name: name.into(),
            weight,
            is_known: true,
            pressed_requests: 1_000,
            pressed_seconds: 100,
            pressed: Duration::from_secs(seconds),
            ..ConsumerFacts::default()
        };
        let found = |consumers: &[ConsumerFacts]| {
            let mut findings = Vec::new();
            over_share(consumers, &mut findings);
            findings.into_iter().map(|finding| (finding.about, finding.block.unwrap().lines)).collect::<Vec<_>>()
        };
        let rate = "rate = { limit = \"6/s\", mode = \"shadow\" }".to_owned();
        assert_eq!(found(&[consumer("batch", 1, 90), consumer("web", 1, 10)]), [("batch".to_owned(), rate)]);
        assert_eq!(found(&[consumer("batch", 9, 90), consumer("web", 1, 10)]), [], "its weight says that it may");
        assert_eq!(found(&[consumer("batch", 1, 90)]), [], "nobody else wants anything");
    }
}
