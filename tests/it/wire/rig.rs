//! The real server, on ports of its own, before an origin.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use vaxel::config::Loaded;
use vaxel::config::settings::{AdminSettings, Settings};
use vaxel::server::{self, Running};

use super::DEADLINE;
use super::client::Client;
use super::message::Message;

/// A running server; stopped when dropped.
pub(crate) struct Rig {
    running: Option<Running>,
    pub(crate) address: SocketAddr,
}

impl Rig {
    /// In front of `origin`, with the settings of a drop-in, but one worker and no breaker: most tests let the origin
    /// misbehave more often than a breaker bears.
    pub(crate) fn before(origin: SocketAddr) -> Self {
        Self::with(origin, |_| {})
    }

    /// The same with some settings changed.
    pub(crate) fn with(origin: SocketAddr, change: impl FnOnce(&mut Settings)) -> Self {
        Self::towards(&format!("http://{origin}"), change)
    }

    /// In front of `url`.
    pub(crate) fn towards(url: &str, change: impl FnOnce(&mut Settings)) -> Self {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut settings = Settings::for_upstream(url.parse().expect("a URL"), any);
        settings.admin = Some(AdminSettings::at(any));
        settings.workers = 1;
        settings.drain = Duration::from_secs(5);
        for upstream in &mut settings.upstreams {
            upstream.breaker = None;
        }
        change(&mut settings);
        Self::loaded(Loaded::from(settings), None)
    }

    /// As `loaded` says; a reload reads `file`.
    pub(crate) fn loaded(loaded: Loaded, file: Option<PathBuf>) -> Self {
        let running = server::start(loaded, file).expect("the server starts");
        let address = *running.listeners.first().expect("it has a listener");
        Self { running: Some(running), address }
    }

    pub(crate) fn client(&self) -> Client {
        Client::connect(self.address)
    }

    /// GETs `path` over a connection of its own.
    pub(crate) fn get(&self, path: &str) -> Message {
        let mut client = self.client();
        client.send(format!("GET {path} HTTP/1.1\r\nHost: erp.example\r\nConnection: close\r\n\r\n"));
        client.answer()
    }

    pub(crate) fn running(&self) -> &Running {
        self.running.as_ref().expect("only `drop` takes it")
    }

    /// The sum of all series of a metric whose text begins with `series`.
    pub(crate) fn metric(&self, series: &str) -> f64 {
        let text = self.running().handle().metrics().gather();
        let values =
            text.lines().filter(|line| line.strip_prefix(series).is_some_and(|r| r.starts_with(['{', ' ', ','])));
        values.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// Waits until `is_so`, for as long as a loaded machine may need.
    pub(crate) fn until(&self, what: &str, is_so: impl Fn() -> bool) {
        let wait = async {
            let mut tick = tokio::time::interval(Duration::from_millis(2));
            while !is_so() {
                tick.tick().await;
            }
        };
        let result = self.running().block_on(async { tokio::time::timeout(DEADLINE, wait).await });
        assert!(result.is_ok(), "never: {what}\n{}", self.running().handle().metrics().gather());
    }

    /// Nothing is left behind: no slot, no zombie, no waiter, no panic, and no connection once the clients have left.
    pub(crate) fn settles(&self) {
        for gauge in ["vaxel_slots_busy", "vaxel_slots_zombie", "vaxel_queue_length", "vaxel_listener_connections"] {
            self.until(&format!("{gauge} 0"), || self.metric(gauge) == 0.0);
        }
        assert_eq!(self.metric("vaxel_worker_panics_total"), 0.0);
    }

    /// Drains, in a thread of its own, and says when it has ended.
    pub(crate) fn stop(mut self) -> std::thread::JoinHandle<()> {
        let running = self.running.take().expect("only `drop` takes it");
        std::thread::spawn(move || running.stop())
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            running.stop();
        }
    }
}
