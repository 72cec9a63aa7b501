//! Rates, slots and the queue.

pub mod queue;
pub mod rate;
pub mod slots;
