//! The composition root: settings, sockets, workers, signals, drain.
