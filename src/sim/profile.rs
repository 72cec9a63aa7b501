//! What the simulated box is like. Every knob has a default with its reason; presets change a few of them.

use std::time::Duration;

/// A fragile box. [`Profile::default`] is the `erp` preset.
#[derive(Debug, Clone, PartialEq)]
pub struct Profile {
    /// Work processes: what is really done at the same time. One application server instance has 10 to 40 dialog
    /// processes; 8 keeps the demonstration small.
    pub processes: usize,
    /// Sessions that may wait in the dispatcher; one more is turned away with an error page.
    pub queue: usize,
    /// Mean service time of an operation of cost 1 on an idle, warm box.
    pub service: Duration,
    /// How much service times differ: standard deviation of their logarithm. 0 makes them all equal.
    pub spread: f64,
    /// How much work each operation is.
    pub costs: Costs,
    /// How much a crowd slows down every process: with `e` sessions per work process present beyond the
    /// processes, each service time is multiplied by 1 + thrash·e². (Locks, swapping, roll-in and roll-out.)
    pub thrash: f64,
    /// Share of the work that ends in an error page on a calm box; it grows with the slowdown, up to one half.
    pub error_rate: f64,
    /// The box crashes once its dispatcher queue was nearly full for so long; `None`: it never does.
    pub crash_after: Option<Duration>,
    /// From which share of a full dispatcher queue on it counts as nearly full.
    pub crash_fill: f64,
    /// How long a restart takes.
    pub restart: Duration,
    /// How many times slower the first answer after a restart is (cold buffers, compilation).
    pub cold: f64,
    /// Over how many answers the slowness after a restart wears off.
    pub cold_answers: u32,
    /// Freshness that catalogue answers announce (`Cache-Control: max-age`); `None`: they announce nothing.
    pub max_age: Option<Duration>,
}

/// What a session asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// `GET /catalog/{id}`: the same for everybody, cacheable.
    Catalog,
    /// `GET /account/{id}`: private, never stored.
    Account,
    /// `POST /order`: unsafe, must not be repeated.
    Order,
    /// `GET /report`: slow.
    Report,
}

/// Work of each operation in multiples of [`Profile::service`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Costs {
    /// `GET /catalog/{id}`.
    pub catalog: f64,
    /// `GET /account/{id}`.
    pub account: f64,
    /// `POST /order`.
    pub order: f64,
    /// `GET /report`.
    pub report: f64,
}

/// How often each operation is asked for, in any common unit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mix {
    /// `GET /catalog/{id}`.
    pub catalog: f64,
    /// `GET /account/{id}`.
    pub account: f64,
    /// `POST /order`.
    pub order: f64,
    /// `GET /report`.
    pub report: f64,
}

impl Profile {
    /// The names that [`Profile::named`] knows.
    pub const NAMES: [&str; 3] = ["erp", "soap", "mainframe"];

    /// A preset by name.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "erp" => Some(Self::default()),
            // A SOAP stack in a small servlet container: few threads, slow XML, says nothing about caching.
            "soap" => Some(Self {
                processes: 4,
                queue: 60,
                service: Duration::from_millis(120),
                spread: 0.7,
                restart: Duration::from_secs(6),
                max_age: None,
                ..Self::default()
            }),
            // A transaction monitor: quick, even and patient, but a full one thrashes hard and restarts for long.
            "mainframe" => Some(Self {
                processes: 20,
                queue: 300,
                service: Duration::from_millis(25),
                spread: 0.2,
                thrash: 0.2,
                error_rate: 0.0,
                restart: Duration::from_secs(15),
                cold: 3.0,
                ..Self::default()
            }),
            _ => None,
        }
    }

    /// The work of `operation` in multiples of [`Profile::service`].
    pub const fn cost(&self, operation: Operation) -> f64 {
        match operation {
            Operation::Catalog => self.costs.catalog,
            Operation::Account => self.costs.account,
            Operation::Order => self.costs.order,
            Operation::Report => self.costs.report,
        }
    }

    /// What the box can do at best: answers per second of this mix with every process busy and nobody waiting.
    pub fn capacity(&self, mix: &Mix) -> f64 {
        let (work, total) = Operation::ALL.iter().fold((0.0, 0.0), |(work, total), operation| {
            let weight = mix.weight(*operation);
            (work + weight * self.cost(*operation), total + weight)
        });
        if work > 0.0 { self.processes as f64 * total / (work * self.service.as_secs_f64()) } else { 0.0 }
    }
}

impl Default for Profile {
    fn default() -> Self {
        Self {
            processes: 8,
            // Fifteen waiting for each process: enough to drown in, as dispatcher queues are sized for bursts.
            queue: 120,
            service: Duration::from_millis(40),
            spread: 0.5,
            costs: Costs::default(),
            // A full queue (e = 15) makes everything 12 times slower.
            thrash: 0.05,
            error_rate: 0.002,
            // Long enough to watch the collapse, short enough to see the crash within a demonstration.
            crash_after: Some(Duration::from_secs(5)),
            crash_fill: 0.9,
            restart: Duration::from_secs(2),
            cold: 5.0,
            cold_answers: 100,
            max_age: Some(Duration::from_secs(5)),
        }
    }
}

impl Operation {
    /// All of them, in the order of the fields of [`Mix`].
    pub const ALL: [Self; 4] = [Self::Catalog, Self::Account, Self::Order, Self::Report];
}

impl Default for Costs {
    fn default() -> Self {
        Self { catalog: 1.0, account: 0.8, order: 1.5, report: 6.0 }
    }
}

impl Mix {
    /// How often `operation` is asked for.
    pub const fn weight(&self, operation: Operation) -> f64 {
        match operation {
            Operation::Catalog => self.catalog,
            Operation::Account => self.account,
            Operation::Order => self.order,
            Operation::Report => self.report,
        }
    }
}

impl Default for Mix {
    /// A shop in front of an ERP: mostly reading the catalogue, some private pages and orders, a rare report.
    fn default() -> Self {
        Self { catalog: 78.0, account: 13.0, order: 8.0, report: 1.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_preset_has_a_name_and_some_capacity() {
        for name in Profile::NAMES {
            let profile = Profile::named(name).unwrap();
            assert!(profile.capacity(&Mix::default()) > 10.0, "{name}");
            assert!(profile.processes > 0 && (0.0..=1.0).contains(&profile.crash_fill), "{name}");
        }
        assert_eq!(Profile::named("abacus"), None);
        assert_eq!(Profile::named("erp"), Some(Profile::default()));
    }

    #[test]
    fn capacity_is_processes_over_mean_work() {
        let check = |mix: Mix, expected: f64| {
            let capacity = Profile::default().capacity(&mix);
            assert!((capacity - expected).abs() < 1e-6, "{mix:?}: {capacity}");
        };
        let none = Mix { catalog: 0.0, account: 0.0, order: 0.0, report: 0.0 };
        check(none, 0.0);
        check(Mix { catalog: 1.0, ..none }, 200.0);
        check(Mix { catalog: 5.0, ..none }, 200.0);
        check(Mix { catalog: 1.0, report: 1.0, ..none }, 200.0 / 3.5);
    }
}
