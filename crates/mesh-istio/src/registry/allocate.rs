//! Addresses for the hosts of service entries that have none.
//!
//! Without them a TCP service is known by its port alone, and two services on one port cannot be
//! told apart. What a controller wrote into `status.addresses` counts; who finds nothing there
//! gets addresses here, from the blocks that Istio takes: 240.240.0.0/16 and 2001:2::/48, the same
//! number in both.
//!
//! Where a host's number comes from: a hash (FNV-1a, as Istio has it) of `namespace/host`, and the
//! next free one from there. A host keeps its number for as long as it is there, whatever comes and
//! goes beside it, unless somebody claims the address in the configuration. Control planes that
//! have seen different pasts may so give different addresses to hosts whose hashes collide; each of
//! their clients is told names and listeners by the same one.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, OnceLock};

use mesh_core::Name;
use mesh_core::discovery::Service;
use mesh_core::model::Cidr;

use super::Entry;

/// The addresses that were allocated to hosts.
#[derive(Clone, Debug, Default)]
pub(super) struct Ledger {
    hosts: HashMap<Name, Arc<Allocated>>,
    /// Numbers by `namespace/host`.
    numbers: BTreeMap<Name, u16>,
    /// Hosts for which no address was left.
    pub(super) without: Vec<Name>,
}

/// A service entry's host with the addresses that were allocated to it, of one family each.
#[derive(Debug)]
pub(crate) struct Allocated {
    base: Arc<Entry>,
    v4: Option<Ipv4Addr>,
    v6: Option<Ipv6Addr>,
    with_v4: OnceLock<Arc<Entry>>,
    with_v6: OnceLock<Arc<Entry>>,
}

/// How many numbers there are: no address ends in 0 or 255.
const NUMBERS: u16 = 254 << 8;

// === impl Ledger ===

impl Ledger {
    /// Gives addresses to every entry that wants some, the older first where two claim one.
    pub(super) fn of(list: &[Arc<Entry>], before: Option<&Self>) -> Self {
        let mut taken = Taken::of(list);
        let mut ledger = Self::default();
        let mut open = Vec::new();
        let mut each: Vec<_> = list
            .iter()
            .filter_map(|entry| Some((entry, entry.allocated.as_deref()?)))
            .collect();
        each.sort_by_key(|(entry, _)| entry.meta.seniority());
        for (entry, written) in each {
            let mut free = written.iter().filter(|one| taken.is_free(**one));
            let (mut v4, mut v6) = (None, None);
            for address in free.by_ref() {
                match address {
                    IpAddr::V4(address) => v4 = v4.or(Some(*address)),
                    IpAddr::V6(address) => v6 = v6.or(Some(*address)),
                }
            }
            if v4.is_none() && v6.is_none() {
                open.push((key(&entry.service), entry));
                continue;
            }
            taken.add(v4.map(IpAddr::V4));
            taken.add(v6.map(IpAddr::V6));
            ledger.put(entry, (v4, v6), before);
        }
        // Those that have numbers keep them before anybody new has a choice.
        let (known, mut fresh): (Vec<_>, Vec<_>) = open.into_iter().partition(|(key, _)| {
            let number = before.and_then(|before| before.numbers.get(key));
            number.is_some_and(|number| taken.is_number_free(*number))
        });
        for (key, entry) in known {
            let number = before.and_then(|before| before.numbers.get(&key));
            if let Some(&number) = number {
                ledger.number(entry, key, number, &mut taken, before);
            }
        }
        fresh.sort_by(|(one, _), (other, _)| one.cmp(other));
        for (key, entry) in fresh {
            // Where nothing was left for one, nothing is for the next: that is not searched for.
            let full = !ledger.without.is_empty();
            match (!full).then(|| taken.next(hash(&key))).flatten() {
                Some(number) => ledger.number(entry, key, number, &mut taken, before),
                None => ledger.without.push(entry.service.id.host.clone()),
            }
        }
        ledger
    }

    /// The numbers alone.
    pub(super) fn at_rest(&self) -> Self {
        Self {
            numbers: self.numbers.clone(),
            ..Self::default()
        }
    }

    /// What was allocated to a host.
    pub(super) fn get(&self, host: &str) -> Option<&Allocated> {
        self.hosts.get(host).map(|allocated| &**allocated)
    }

    fn number(
        &mut self,
        entry: &Arc<Entry>,
        key: Name,
        number: u16,
        taken: &mut Taken,
        before: Option<&Self>,
    ) {
        let (v4, v6) = addresses(number);
        taken.numbers.insert(number);
        self.numbers.insert(key, number);
        self.put(entry, (Some(v4), Some(v6)), before);
    }

    fn put(
        &mut self,
        entry: &Arc<Entry>,
        (v4, v6): (Option<Ipv4Addr>, Option<Ipv6Addr>),
        before: Option<&Self>,
    ) {
        let host = &entry.service.id.host;
        let was = before.and_then(|before| before.hosts.get(host));
        let same =
            |was: &&Arc<Allocated>| Arc::ptr_eq(&was.base, entry) && (was.v4, was.v6) == (v4, v6);
        let allocated = was.filter(same).cloned().unwrap_or_else(|| {
            Arc::new(Allocated {
                base: Arc::clone(entry),
                v4,
                v6,
                with_v4: OnceLock::new(),
                with_v6: OnceLock::new(),
            })
        });
        self.hosts.insert(host.clone(), allocated);
    }
}

// === impl Allocated ===

impl Allocated {
    /// The entry as a node has it that uses these addresses, of IPv6 or of IPv4; the entry without
    /// any if it has none of that family. Always the very same.
    pub(crate) fn entry(&self, v6: bool) -> &Arc<Entry> {
        let (address, cell) = match v6 {
            false => (self.v4.map(IpAddr::V4), &self.with_v4),
            true => (self.v6.map(IpAddr::V6), &self.with_v6),
        };
        let Some(address) = address else {
            return &self.base;
        };
        cell.get_or_init(|| {
            let mut entry = Entry::clone(&self.base);
            Arc::make_mut(&mut entry.service).addresses = vec![address];
            Arc::new(entry)
        })
    }

    /// All of them.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        let v4 = self.v4.map(IpAddr::V4).into_iter();
        v4.chain(self.v6.map(IpAddr::V6))
    }
}

/// What is not to be allocated any more.
#[derive(Default)]
struct Taken {
    numbers: HashSet<u16>,
    addresses: HashSet<IpAddr>,
    blocks: Vec<Cidr>,
}

// === impl Taken ===

impl Taken {
    /// What users wrote down.
    fn of(list: &[Arc<Entry>]) -> Self {
        let mut taken = Self::default();
        for entry in list {
            taken.addresses.extend(&entry.service.addresses);
            let blocks = entry.blocks.iter();
            taken.blocks.extend(blocks.filter(|block| overlaps(block)));
        }
        taken
    }

    fn add(&mut self, address: Option<IpAddr>) {
        self.addresses.extend(address);
    }

    /// Whether nobody else has an address, and somebody could call it.
    fn is_free(&self, address: IpAddr) -> bool {
        let callable =
            !address.is_unspecified() && !address.is_loopback() && !address.is_multicast();
        callable && !self.addresses.contains(&address)
    }

    fn is_number_free(&self, number: u16) -> bool {
        let (v4, v6) = addresses(number);
        let free = |address: IpAddr| {
            self.is_free(address) && !self.blocks.iter().any(|block| block.contains(address))
        };
        !self.numbers.contains(&number) && free(v4.into()) && free(v6.into())
    }

    /// The first free number from this one on.
    fn next(&self, first: u16) -> Option<u16> {
        let mut each = (first..NUMBERS).chain(0..first);
        each.find(|number| self.is_number_free(*number))
    }
}

/// Whether a block has anything that is allocated.
fn overlaps(block: &Cidr) -> bool {
    let (v4, v6) = (
        Ipv4Addr::new(240, 240, 0, 0),
        Ipv6Addr::new(0x2001, 2, 0, 0, 0, 0, 0xf0f0, 0),
    );
    match block.address() {
        IpAddr::V4(address) => block.contains(v4.into()) || address.octets()[..2] == [240, 240],
        IpAddr::V6(address) => block.contains(v6.into()) || address.segments()[..2] == [0x2001, 2],
    }
}

fn key(service: &Service) -> Name {
    Name::from(format!("{}/{}", service.id.namespace, service.id.host))
}

/// The number that a host would have to itself.
fn hash(key: &str) -> u16 {
    let step = |hash: u32, byte: u8| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    let hash = key.bytes().fold(0x811c_9dc5, step);
    u16::try_from(hash % u32::from(NUMBERS)).unwrap_or_default()
}

/// The addresses of a number.
fn addresses(number: u16) -> (Ipv4Addr, Ipv6Addr) {
    let (high, low) = (number / 254, number % 254 + 1);
    let [_, high] = high.to_be_bytes();
    let [_, low] = low.to_be_bytes();
    let v4 = Ipv4Addr::new(240, 240, high, low);
    let tail = u16::from_be_bytes([high, low]);
    (v4, Ipv6Addr::new(0x2001, 2, 0, 0, 0, 0, 0xf0f0, tail))
}

#[cfg(test)]
mod tests;
