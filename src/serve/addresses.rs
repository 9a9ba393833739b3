//! How much each client address holds of what there is for all: connections, and live readers.
//!
//! What is counted is the network that one client has: an address of IPv4, 64 bits of one of IPv6. There are as many of
//! them as something is held, so the table has the bound of that.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub struct Addresses {
    /// What one may hold.
    most: usize,
    held: Mutex<HashMap<u64, usize>>,
}

impl Addresses {
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Addresses { most, held: Mutex::default() })
    }

    /// One more of an address, unless it holds as many as it may; as many as it likes of none.
    pub fn take(self: &Arc<Self>, address: Option<IpAddr>) -> Option<Held> {
        let Some(network) = address.map(network) else { return Some(Held(None)) };
        let mut table = self.table();
        let held = table.entry(network).or_default();
        if *held >= self.most {
            return None;
        }
        *held += 1;
        Some(Held(Some((self.clone(), network))))
    }

    fn table(&self) -> MutexGuard<'_, HashMap<u64, usize>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The network that one client has: its own half of an address of IPv6 is not read. The networks that begin with 32 zero
/// bits, of which none is anybody's, stand for the addresses of IPv4.
fn network(address: IpAddr) -> u64 {
    match address.to_canonical() {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => (address.to_bits() >> 64) as u64,
    }
}

/// One of what an address holds, until it is dropped.
pub struct Held(Option<(Arc<Addresses>, u64)>);

impl Drop for Held {
    fn drop(&mut self) {
        let Some((addresses, network)) = &self.0 else { return };
        let mut table = addresses.table();
        if let Some(held) = table.get_mut(network) {
            *held -= 1;
            if *held == 0 {
                table.remove(network);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_holds_no_more_than_it_may_and_what_it_gives_back_is_free() {
        let addresses = Addresses::new(2);
        let take = |address: &str| addresses.take(Some(address.parse().unwrap()));
        let mut held = Vec::new();
        // Each is of another network than all the others.
        for address in ["203.0.113.9", "203.0.113.10", "2001:db8::1", "2001:db8:0:1::1", "0.0.0.0", "ffff::"]
        {
            held.extend([take(address).unwrap(), take(address).unwrap()]);
            assert!(take(address).is_none(), "{address}");
        }
        for same in ["::ffff:203.0.113.9", "2001:db8::ffff:1:2:3"] {
            assert!(take(same).is_none(), "{same}");
        }
        assert!(
            (0..100).map(|_| addresses.take(None)).all(|taken| taken.is_some()),
            "of nobody in particular"
        );
        drop(held.remove(0));
        assert!(take("203.0.113.9").is_some());
        held.clear();
        assert!(addresses.table().is_empty(), "nothing is left of who holds nothing");
    }
}
