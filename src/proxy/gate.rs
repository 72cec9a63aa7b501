//! Step 5: before the upstream. Its gear and the breaker are asked first, to fail fast; then for a slot, which may mean to wait; and
//! then for the breaker's pass, so that nobody holds a half-open trial while it stands in the queue.

use std::time::{Duration, Instant};

use super::attempt::Ask;
use super::deadline;
use super::exchange::Tally;
use super::journal::Stood;
use crate::breaker::{Breaker, Pass};
use crate::gear::Gear;
use crate::metrics::Wait;
use crate::refusal::{Reason, Refusal};
use crate::throttle::Acquire;
use crate::throttle::slots::{Entered, Excess, Permit};

/// How the gate was passed.
pub(super) enum Passing {
    /// At once.
    Passed(Passed),
    /// There is no slot yet.
    Waits(Waiting),
}

/// What a request has to be sent with.
pub(super) struct Passed {
    pub(super) permit: Permit,
    /// The breaker's, if there is one.
    pub(super) pass: Option<Pass>,
    /// When it had both.
    pub(super) at: Instant,
}

/// A request in the queue.
pub(super) struct Waiting {
    acquire: Box<Acquire>,
    since: Instant,
}

/// Acquires a slot and the breaker's pass, asked for at `now`.
///
/// # Errors
/// `gear.park`, `gear.limp`, `window.writes`, `breaker.open`, `queue.full`, `queue.hopeless`.
pub(super) fn pass(
    ask: Ask<'_>,
    safe: bool,
    deadline: Option<Instant>,
    now: Instant,
    tally: &mut Tally,
) -> Result<Passing, Refusal> {
    let Ask { upstream, ticket, .. } = ask;
    tally.tries.ask(now);
    let stood = tally.gate.insert(Stood {
        class: ticket.class,
        gear: Gear::Drive,
        spared: None,
        breaker: None,
        shadowed: false,
        excess: None,
        ahead: None,
    });
    geared(ask, safe, now, stood)?;
    if let Some(breaker) = &upstream.breaker {
        let share = {
            let breaker = breaker.lock();
            stood.breaker = Some(breaker.state(now));
            stood.shadowed = heed(ask, &breaker, breaker.peek(now))?.is_none();
            breaker.share(now)
        };
        upstream.let_out(share);
    }
    let patience = deadline.map_or(Duration::MAX, |at| at.saturating_duration_since(now));
    let (entered, ahead) = upstream.slots.enter(ticket, now, patience);
    stood.ahead = Some(ahead);
    match entered? {
        Entered::Granted(permit) => {
            let pass = passed(ask, safe, &permit, now, tally)?;
            Ok(Passing::Passed(Passed { permit, pass, at: now }))
        }
        Entered::Waits(acquire) => Ok(Passing::Waits(Waiting { acquire, since: now })),
    }
}

impl Waiting {
    /// Waits for the slot. Gives what [`pass`] does.
    ///
    /// # Errors
    /// As there, and `queue.full`, `queue.timeout`, `deadline.exceeded`.
    pub(super) async fn pass(
        self,
        ask: Ask<'_>,
        safe: bool,
        deadline: Option<Instant>,
        tally: &mut Tally,
    ) -> Result<Passed, Refusal> {
        let Self { acquire, since } = self;
        let clock = &ask.worker.core.clock;
        match acquire.await {
            Ok(permit) => {
                let pass = passed(ask, safe, &permit, since, tally)?;
                Ok(Passed { permit, pass, at: clock.now() })
            }
            Err(refusal) => {
                // Who waited in vain has waited; who found no place has not.
                let now = clock.now();
                *tally.queued.get_or_insert_default() += now.saturating_duration_since(since);
                // The caller's own bound may have been the shorter one.
                if refusal.reason == Reason::QueueTimeout {
                    deadline::check(deadline, || now)?;
                }
                Err(refusal)
            }
        }
    }
}

/// There is a slot, asked for at `since`: notes what that took, and asks the breaker for its pass.
fn passed(
    ask: Ask<'_>,
    safe: bool,
    permit: &Permit,
    since: Instant,
    tally: &mut Tally,
) -> Result<Option<Pass>, Refusal> {
    let Ask { worker, upstream, ticket, .. } = ask;
    let waited = permit.waited();
    *tally.queued.get_or_insert_default() += waited;
    upstream.meter.waited(worker.index, waited);
    let Some(stood) = &mut tally.gate else { return Err(Reason::Internal.into()) };
    if !waited.is_zero() {
        // It may have been parked meanwhile.
        geared(ask, safe, since + waited, stood)?;
    }
    stood.excess = permit.excess();
    match stood.excess {
        Some(Excess::Waits) => ask.route.meter.shadow_wait(worker.index, Wait::Queue),
        Some(Excess::Refused(reason)) => ask.route.meter.shadow(worker.index, reason),
        None => {}
    }
    let Some(breaker) = &upstream.breaker else { return Ok(None) };
    let mut breaker = breaker.lock();
    if stood.shadowed {
        return Ok(Some(breaker.bystander().of(ticket.operation)));
    }
    let entered = breaker.enter(safe, since + waited);
    let pass = heed(ask, &breaker, entered)?.unwrap_or_else(|| breaker.bystander());
    Ok(Some(pass.of(ticket.operation)))
}

/// What the breaker says; `None`: it would refuse, but is in shadow mode and only counts.
fn heed<T>(ask: Ask<'_>, breaker: &Breaker, said: Result<T, Duration>) -> Result<Option<T>, Refusal> {
    match said {
        Ok(said) => Ok(Some(said)),
        Err(wait) if breaker.counts() => Err(Refusal::from(Reason::BreakerOpen).after(wait)),
        Err(_) => {
            ask.route.meter.shadow(ask.worker.index, Reason::BreakerOpen);
            Ok(None)
        }
    }
}

/// Whether the gear of the upstream lets a request pass. What it would refuse in shadow mode is counted, once.
fn geared(ask: Ask<'_>, safe: bool, now: Instant, stood: &mut Stood) -> Result<(), Refusal> {
    let Ask { worker, route, upstream, ticket } = ask;
    let Some(stand) = upstream.gears.stand() else { return Ok(()) };
    stood.gear = stand.gear;
    stand.admit(safe, ticket.class, now, worker.draw())?;
    if stood.spared.is_none()
        && let Some(reason) = stand.would_refuse(safe, ticket.class)
    {
        stood.spared = Some(reason);
        route.meter.shadow(worker.index, reason);
    }
    Ok(())
}
