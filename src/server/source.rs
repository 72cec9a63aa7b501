//! What the admin listener shows of the running server, and does to it.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use super::Control;
use crate::admin::{Access, AdminSource, Asked};
use crate::cache::purge::Depth;
use crate::gateway::cache::Extent;
use crate::gateway::steer::Steer;
use crate::gateway::why::Account;
use crate::metrics::Format;

impl AdminSource for Control {
    fn access(&self) -> Access {
        // A reload changes the token, but a file that forgets the section does not open the listener.
        let current = self.loaded.lock().settings.admin.or(self.admin);
        Access {
            token: current.and_then(|admin| admin.token),
            metrics: current.is_some_and(|admin| admin.token_for_metrics),
            // Nobody asks where nothing listens.
            listen: self.admin.map_or_else(|| SocketAddr::from(([0, 0, 0, 0], 0)), |admin| admin.listen),
        }
    }

    fn metrics(&self, format: Format) -> String {
        self.handle.metrics().expose(format)
    }

    fn ready(&self) -> Result<(), &'static str> {
        if self.drain.begun() { Err("draining") } else { Ok(()) }
    }

    fn config(&self) -> Value {
        self.loaded.lock().view()
    }

    fn reload(&self) -> Result<String, String> {
        let result = self.try_reload();
        match &result {
            Ok(_) => tracing::info!("configuration reloaded"),
            Err(problems) => {
                self.handle.metrics().reloaded(false, self.handle.clock().moment().wall);
                tracing::error!("configuration not reloaded, the old one stays in force:\n{problems}");
            }
        }
        result
    }

    fn drain(&self) -> Duration {
        tracing::warn!("an operator ends the process");
        self.end.notify_one();
        self.loaded.lock().settings.drain
    }

    fn status(&self) -> Value {
        let now = self.handle.clock().now();
        // Held while it is made: who comes meanwhile takes it too.
        let mut last = self.status.lock();
        match &*last {
            Some((at, status)) if now.saturating_duration_since(*at) < FRESH => status.clone(),
            _ => {
                let mut status = json!(self.handle.status());
                if let Some(status) = status.as_object_mut() {
                    status.insert("process".to_owned(), self.process());
                    if self.access().word() == "nobody" {
                        // Everybody on the network may look: not at what others have asked for.
                        status.insert("refused".to_owned(), json!([]));
                        status.insert("slow".to_owned(), json!([]));
                    }
                }
                last.insert((now, status)).1.clone()
            }
        }
    }

    fn purge(&self, extent: &Extent, depth: Depth) -> Result<usize, String> {
        let purged = self.handle.purge(extent, depth).map_err(|error| error.to_string())?;
        tracing::info!(%extent, ?depth, purged, "purged");
        Ok(purged)
    }

    fn cache(&self) -> Value {
        json!(self.handle.cache_report())
    }

    fn explain(&self, asked: &Asked) -> Value {
        json!(self.handle.explain(&asked.parts, asked.peer()))
    }

    fn why(&self, id: &str) -> Vec<Value> {
        self.handle.why(id).iter().map(Account::view).collect()
    }

    fn accounts(&self, word: Option<&str>, most: usize) -> Vec<Value> {
        self.handle.accounts(most, word).iter().map(Account::summary).collect()
    }

    fn advice(&self) -> Value {
        self.handle.advice().view()
    }

    fn upstreams(&self) -> Value {
        json!(self.handle.upstreams_report())
    }

    fn steer(&self, upstream: &str, steer: Steer) -> Result<(), String> {
        self.handle.steer(upstream, steer).map_err(|error| error.to_string())?;
        tracing::warn!(upstream, ?steer, "an operator steers");
        Ok(())
    }

    fn entry(&self, asked: &Asked) -> Result<Value, String> {
        let inspection = self.handle.inspect(&asked.parts, asked.peer());
        inspection
            .map(|inspection| json!(inspection))
            .map_err(|reason| format!("{} ({})", reason.sentence(), reason.code()))
    }
}

impl Control {
    /// How the process stands.
    fn process(&self) -> Value {
        let millis = |time: SystemTime| {
            u64::try_from(time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis())
                .unwrap_or(u64::MAX)
        };
        let certificates = self.handle.metrics().certificates().into_iter().map(|live| {
            json!({ "listener": live.listener, "certificate": live.certificate, "ends_ms": millis(live.expiry) })
        });
        let (good, since) = self.handle.metrics().loads();
        let acts = self.access().word();
        let current = self.loaded.lock();
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "started_ms": millis(self.started),
            "draining": self.drain.begun(),
            "drain_s": current.settings.drain.as_secs(),
            "connections": self.drain.connections(),
            "workers": current.settings.workers,
            "acts": acts,
            "config": {
                "source": current.source.name,
                "hash": format!("{:016x}", current.hash()),
                "loaded_ms": since.map(millis),
                "last_load_good": good,
                "reloadable": self.file.is_some(),
                "warnings": current.warnings.to_string(),
            },
            "certificates": certificates.collect::<Vec<_>>(),
        })
    }
}

/// How old a status may be that is shown: those who follow get one each second.
const FRESH: Duration = Duration::from_millis(900);
