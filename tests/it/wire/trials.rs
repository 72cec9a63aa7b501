//! A half-open breaker asks probes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use vaxel::breaker::{BreakerParams, Trial};
use vaxel::upstream::probe::ProbeParams;

use super::origin::Origin;
use super::rig::Rig;

fn breaker(state: &str) -> String {
    format!("vaxel_breaker_state{{upstream=\"upstream\",state=\"{state}\"}}")
}

#[test]
fn probes_bring_an_upstream_back_and_nobodys_request_is_experimented_with() {
    let well = Arc::new(AtomicBool::new(false));
    let is_well = Arc::clone(&well);
    let origin = Origin::answering(move |_| match is_well.load(Ordering::Acquire) {
        true => "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        false => "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n",
    });
    let rig = Rig::with(origin.address, |settings| {
        let upstream = &mut settings.upstreams[0];
        // Probes that would tell health of the endpoint are an hour apart: these are the breaker's.
        let (path, every) = (Some("/health".to_owned()), Duration::from_secs(3600));
        upstream.probe = Some(ProbeParams { path, every, ..ProbeParams::default() });
        let open = Duration::from_millis(100);
        upstream.breaker =
            Some(BreakerParams { minimum: 2, open, open_max: open, trial: Trial::Probe, ..BreakerParams::default() });
        upstream.retry.attempts = 1;
    });
    let probes = || origin.heard().matches("GET /health").count();
    rig.until("the endpoint is probed", || probes() == 1);
    assert_eq!([rig.get("/").status(), rig.get("/").status()], [500, 500]);
    // It is asked again and again, and stays open.
    rig.until("bad probes", || probes() >= 3);
    assert_eq!(rig.metric(&breaker("closed")), 0.0);
    let refused = rig.get("/");
    assert_eq!((refused.status(), origin.heard().matches("GET / ").count()), (503, 2));
    let before = probes();
    well.store(true, Ordering::Release);
    rig.until("it closes", || rig.metric(&breaker("closed")) == 1.0);
    assert!(probes() >= before + 3, "all its trials were probes");
    assert_eq!(rig.get("/").status(), 200);
    rig.settles();
}
