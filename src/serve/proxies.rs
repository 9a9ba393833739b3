//! Which proxies requests come through, for `doctor`: those that are trusted and named a client, and those of the
//! operator's own network that named one without being trusted. Of readers nothing is kept.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Most proxies that are named.
const MOST: usize = 16;

/// Proxies that were seen since the process began.
#[derive(Default)]
pub struct SeenProxies {
    /// What the last trusted one is told by, so that a request that comes through it too costs a comparison.
    last: AtomicU64,
    /// Each with whether it is trusted.
    seen: Mutex<BTreeMap<IpAddr, bool>>,
}

impl SeenProxies {
    /// A trusted proxy named the client of a request.
    pub fn trusted(&self, peer: IpAddr) {
        let bits = match peer {
            IpAddr::V4(v4) => 1 << 32 | u64::from(v4.to_bits()),
            IpAddr::V6(v6) => v6.to_bits() as u64 ^ (v6.to_bits() >> 64) as u64,
        };
        if self.last.swap(bits, Ordering::Relaxed) != bits {
            self.note(peer, true);
        }
    }

    /// One that is not trusted did. A reader can do that too: only an address of a network without readers is kept.
    pub fn ignored(&self, peer: IpAddr) {
        let is_own = match peer {
            IpAddr::V4(v4) => v4.is_private() || v4.is_loopback() || v4.is_link_local(),
            IpAddr::V6(v6) => v6.is_unique_local() || v6.is_loopback() || v6.is_unicast_link_local(),
        };
        if is_own {
            self.note(peer, false);
        }
    }

    fn note(&self, peer: IpAddr, is_trusted: bool) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() < MOST || seen.contains_key(&peer) {
            seen.insert(peer, is_trusted);
        }
    }

    /// Those that are trusted, or those that are not.
    pub fn named(&self, is_trusted: bool) -> Vec<String> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.iter().filter(|(_, trusted)| **trusted == is_trusted).map(|(peer, _)| peer.to_string()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_are_named_and_readers_are_not() {
        let proxies = SeenProxies::default();
        for peer in ["127.0.0.1", "127.0.0.1", "203.0.113.9"] {
            proxies.trusted(peer.parse().unwrap());
        }
        for peer in ["10.0.3.7", "203.0.113.10", "2001:db8::1", "fd00::7"] {
            proxies.ignored(peer.parse().unwrap());
        }
        assert_eq!(proxies.named(true), ["127.0.0.1", "203.0.113.9"]);
        assert_eq!(proxies.named(false), ["10.0.3.7", "fd00::7"]);
        for last in 0..=255 {
            proxies.ignored(IpAddr::from([10, 0, 0, last]));
        }
        assert_eq!(proxies.named(true).len() + proxies.named(false).len(), MOST);
    }
}
