//! Clients that are slow or silent, and which worker serves whom.

use std::time::Duration;

use vaxel::listen::Accept;

use super::client::Fate;
use super::origin::{Origin, ok};
use super::rig::Rig;

/// A connection over which `sent` came, and then nothing more, is closed by the timer of this name; the other one is
/// far away. Before that come as many answers as there were whole requests.
fn check(timer: &str, sent: &str, answers: usize) {
    let origin = Origin::answering(|_| ok("well"));
    let rig = Rig::with(origin.address, |settings| {
        for listener in &mut settings.listeners {
            let (head, idle) = (&mut listener.limits.head_timeout, &mut listener.limits.idle_timeout);
            (*head, *idle) = if timer == "head" { (SHORT, FAR) } else { (FAR, SHORT) };
        }
    });
    let mut client = rig.client();
    client.send(sent);
    for _ in 0..answers {
        assert_eq!(client.answer().text(), "well", "{timer} {sent:?}");
    }
    match client.fate("GET") {
        // Whoever has begun a request may be told that it came too slowly.
        Fate::Answered(late) => assert!(late.status() == 408 && timer == "head", "{sent:?}: {late:?}"),
        Fate::Dropped => {}
    }
    rig.settles();
}

#[test]
fn whoever_sends_a_head_too_slowly_is_cut_off() {
    check("head", "G", 0);
    check("head", "GET / HT", 0);
    check("head", "GET / HTTP/1.1\r\nHost: a\r\n", 0);
    check("head", "GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HT", 1);
    // The beginning of HTTP/2's preface, which is also that of a method.
    check("head", "P", 0);
    check("head", "PRI * HTTP/2.0\r\n", 0);
}

#[test]
fn whoever_stays_idle_is_closed() {
    check("idle", "", 0);
    check("idle", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", 1);
    check("idle", "GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 2);
}

#[test]
fn an_http_2_peer_that_answers_no_ping_is_closed() {
    let origin = Origin::answering(|_| ok("well"));
    let rig = Rig::with(origin.address, |settings| {
        for listener in &mut settings.listeners {
            (listener.limits.head_timeout, listener.limits.idle_timeout) = (SHORT, SHORT);
        }
    });
    let mut client = rig.client();
    client.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    // SETTINGS with nothing in it (RFC 9113 section 6.5); what comes back is read and never acknowledged.
    client.send([0, 0, 0, 4, 0, 0, 0, 0, 0]);
    rig.until("it is served", || rig.metric("vaxel_listener_connections") == 1.0);
    rig.settles();
    while !client.is_closed() {}
}

#[test]
fn a_dispatched_connection_goes_to_the_worker_with_the_fewest() {
    // Each worker has upstream connections of its own: how many the origin sees is how many workers were at work.
    let origin = Origin::answering(|_| ok("well"));
    let rig = Rig::with(origin.address, |settings| {
        settings.workers = 3;
        settings.listeners.iter_mut().for_each(|listener| listener.accept = Accept::Dispatch);
    });
    let mut clients: Vec<_> = (0..6).map(|_| rig.client()).collect();
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.answer().text(), "well");
    }
    assert_eq!(origin.connections(), 3, "all workers were at work");
    drop(clients);
    rig.settles();
}

/// A timeout that is to fire.
const SHORT: Duration = Duration::from_millis(200);
/// One that is not.
const FAR: Duration = Duration::from_secs(3600);
