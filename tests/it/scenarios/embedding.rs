//! An embedding program's hand in the trip.

use std::sync::Arc;

use http::request::Parts;
use http::{Method, StatusCode};
use parking_lot::Mutex;
use vaxel::{Denial, Denied, Facts, Hooks, Parties, Peer, Reason};

use crate::harness::{SECOND, ok, world};

/// Refuses and changes by path; notes how exchanges ended.
#[derive(Clone, Default)]
struct Hand(Arc<Mutex<Vec<String>>>);

impl Hooks for Hand {
    fn request(&self, request: &mut Parts, _: &Peer) -> Result<(), Denied> {
        match request.uri.path() {
            "/expired" => {
                let detail = "Licence \"A\\B\" has expired.\n";
                let denial = Denial::new(StatusCode::PAYMENT_REQUIRED, "licence.expired", detail).unwrap();
                Err(denial.after(90 * SECOND).into())
            }
            "/ours" => Err(Denied::Refusal(Reason::ConsumerUnknown.into())),
            "/head" => {
                request.method = Method::HEAD;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn finished(&self, facts: &Facts<'_>, parties: Parties<'_>) {
        let Parties { route, upstream, consumer } = parties;
        let reason = facts.reason.map(Reason::code);
        self.0.lock().push(format!("{} {route:?} {upstream:?} {consumer:?} {reason:?}", facts.method));
    }
}

const WEBSHOP: &str = "[consumer.webshop]\nidentify = { header = \"x-who\", value = \"webshop\" }";

#[tokio::test(start_paused = true)]
async fn a_hook_refuses_in_its_own_words_and_the_labels_stay_closed() {
    let hand = Hand::default();
    let world = world().origin(ok("yes")).hooks(hand.clone()).opens();
    let answer = world.get("/expired").await;
    answer.is(402).has("retry-after", "90").has("cache-control", "no-store");
    let problem = answer.problem();
    assert_eq!(problem["reason"], "licence.expired");
    assert_eq!(problem["detail"], "Licence \"A\\B\" has expired.\n");
    world.counts("vaxel_refusals_total{reason=\"hook\"}", 1.0);
    world.get("/ours").await.is(401).refused("consumer.unknown");
    world.origin.was_asked(0);
    assert_eq!(*hand.0.lock(), ["GET None None None Some(\"hook\")", "GET None None None Some(\"consumer.unknown\")"]);
    world.rests().await;
}

#[tokio::test(start_paused = true)]
async fn a_hook_is_told_whose_an_exchange_was_and_the_method_it_made_of_it() {
    let hand = Hand::default();
    let world = world().origin(ok("yes")).gateway(WEBSHOP).hooks(hand.clone()).opens();
    world.get("/a").with("x-who", "webshop").await.is(200);
    world.get("/head").await.is(200).says("");
    assert_eq!(world.origin.last().method, Method::HEAD);
    let told = hand.0.lock().clone();
    assert_eq!(
        told,
        ["GET Some(\"all\") Some(\"erp\") Some(\"webshop\") None", "HEAD Some(\"all\") Some(\"erp\") None None"]
    );
    world.counts("vaxel_requests_total{method=\"HEAD\"}", 1.0);
    world.rests().await;
}
