//! How many connections each client address has open on a listener: one client must not take them all.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::consumer::aggregate;

/// The open connections of each address (IPv6 by /64), over all workers.
#[derive(Debug, Default)]
pub struct Callers(Mutex<HashMap<IpAddr, usize>>);

/// One connection of an address, until dropped.
#[derive(Debug)]
pub struct Seat {
    callers: Arc<Callers>,
    address: IpAddr,
}

impl Callers {
    /// A connection more for `address`, if it has fewer than `most`.
    pub fn seat(self: &Arc<Self>, address: IpAddr, most: usize) -> Option<Seat> {
        let address = aggregate(address);
        let mut counts = self.0.lock();
        let count = counts.entry(address).or_default();
        // Nothing is left behind for an address that is refused: it has connections, or `most` is none.
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(Seat { callers: Arc::clone(self), address })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut counts = self.callers.0.lock();
        if let Some(count) = counts.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_so_many_and_nothing_stays_of_it() {
        let callers = Arc::new(Callers::default());
        let seat = |address: &str| callers.seat(address.parse().unwrap(), 2);
        let seats = [seat("10.0.0.1"), seat("10.0.0.1"), seat("10.0.0.2"), seat("2001:db8::1"), seat("2001:db8::2")];
        assert!(seats.iter().all(Option::is_some));
        assert!(seat("10.0.0.1").is_none() && seat("2001:db8::3").is_none(), "a /64 is one client");
        assert!(seat("2001:db8:0:1::1").is_some());
        drop(seats);
        assert!(seat("10.0.0.1").is_some());
        assert!(callers.0.lock().is_empty());
    }
}
