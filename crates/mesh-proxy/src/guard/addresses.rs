//! How many connections each address has.

use std::collections::HashMap;
use std::collections::hash_map::{Entry, RandomState};
use std::hash::BuildHasher;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Maps, so that workers seldom wait for each other.
const MAPS: usize = 16;

/// Counts by address. There is an entry for each address that has a connection and for no other, so
/// the limit on connections bounds it.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    maps: [Mutex<HashMap<IpAddr, u32>>; MAPS],
    hasher: RandomState,
}

// === impl Addresses ===

impl Addresses {
    /// Counts one more, unless there are `most`. Returns whether it did.
    pub(super) fn take(&self, address: IpAddr, most: u32) -> bool {
        let address = party(address);
        let mut map = self.map(address);
        match map.entry(address) {
            Entry::Occupied(count) if *count.get() >= most => false,
            Entry::Occupied(mut count) => {
                *count.get_mut() += 1;
                true
            }
            Entry::Vacant(_) if most == 0 => false,
            Entry::Vacant(count) => {
                count.insert(1);
                true
            }
        }
    }

    /// One that was counted is gone.
    pub(super) fn give_back(&self, address: IpAddr) {
        let address = party(address);
        if let Entry::Occupied(mut count) = self.map(address).entry(address) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }

    fn map(&self, address: IpAddr) -> MutexGuard<'_, HashMap<IpAddr, u32>> {
        // The remainder fits.
        let at = (self.hasher.hash_one(address) % MAPS as u64) as usize;
        self.maps[at].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who is behind an address: of IPv6 everybody has a network of 64 bits at least (RFC 4291 §2.5.1).
fn party(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let network = u128::from(v6) & !u128::from(u64::MAX);
            Ipv6Addr::from(network).into()
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn each_party_has_its_own_places_and_nothing_is_kept_of_who_is_gone() {
        let addresses = Addresses::default();
        assert!(addresses.take(ip("127.0.0.1"), 2));
        assert!(addresses.take(ip("::ffff:127.0.0.1"), 2));
        assert!(!addresses.take(ip("127.0.0.1"), 2));
        assert!(addresses.take(ip("127.0.0.2"), 2));
        assert!(addresses.take(ip("2001:db8::1"), 1));
        assert!(!addresses.take(ip("2001:db8::2"), 1));
        assert!(addresses.take(ip("2001:db8:0:1::1"), 1));
        addresses.give_back(ip("127.0.0.1"));
        assert!(addresses.take(ip("127.0.0.1"), 2));
        for gone in [
            "127.0.0.1",
            "127.0.0.1",
            "127.0.0.2",
            "2001:db8::7",
            "2001:db8:0:1::9",
        ] {
            addresses.give_back(ip(gone));
        }
        assert!(
            addresses
                .maps
                .iter()
                .all(|map| map.lock().unwrap().is_empty())
        );
        assert!(!addresses.take(ip("127.0.0.1"), 0));
    }
}
