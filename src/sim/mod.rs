//! A simulated fragile backend, and what it takes to show that vaxel protects it.
//!
//! ```text
//! profile  what the box is like (work processes, service times, how it breaks)     ┐
//! dice     seeded chance: the same seed, the same story                            │ pure
//! backend  the model: arrive → wait → work → end, without I/O or a clock           │
//! drive    runs the model against any admission policy, in virtual time            ┘
//! serve    the model behind HTTP/1.1 on a socket, with knobs to break it
//! load     open-loop load: sends on schedule, measures from the intended time
//! demo     the same load straight at the box, then through vaxel; a table and what it says
//! ```

pub mod backend;
pub mod demo;
pub mod dice;
pub mod drive;
pub mod load;
mod pages;
pub mod profile;
pub mod serve;
