//! What Vaxel does, told as scenarios in virtual time. Each asserts on the answers, on what the origin saw, and on the
//! metrics.

mod breaker;
mod caching;
mod collapsing;
mod embedding;
mod explaining;
mod gears;
mod identity;
mod inspecting;
mod limit;
mod purging;
mod rate;
mod reload;
mod retrying;
mod rules;
mod shadow;
mod sharing;
mod slots;
mod stale;
mod telling;
mod validation;
mod watching;
mod writes;
mod zombies;
