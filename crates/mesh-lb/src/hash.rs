//! Consistent hashing: tables that give the same host for the same hash.
//!
//! A [`Table`] is built once for the hosts of a priority (of a subset by its first request), is shared by all workers, and never
//! changes. Everything that decides where a hash ends is Envoy's to the bit: which text stands for
//! a host, how often it appears, and the arithmetic in doubles behind it. Memory is bounded by the
//! configured size: 16 to 20 bytes for each point of a ring, 2 or 4 for each place of Maglev's table.

mod bounded;
mod function;
mod maglev;
mod ring;
mod twister;

pub(crate) use function::{murmur2, xx, xx_seeded};

use crate::Host;
use maglev::Maglev;
use mesh_core::model::{Balancing, HashKeys};
use ring::Ring;
use std::borrow::Cow;
use std::sync::Arc;

/// Where hashes lead, for the hosts of one priority.
#[derive(Debug)]
pub(crate) struct Table {
    balancing: Balancing,
    hosts: Vec<Weighed>,
    places: Places,
    /// What no host's share may exceed, in percent of the average.
    bound: Option<u32>,
}

/// A host with its share of the hashes.
#[derive(Debug)]
pub(crate) struct Weighed {
    pub(crate) host: Arc<Host>,
    /// The shares of all hosts make 1.
    pub(crate) share: f64,
}

/// How many points or places there are, and how many the host with fewest and the one with most
/// have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) size: u64,
    pub(crate) least: u64,
    pub(crate) most: u64,
}

#[derive(Debug)]
enum Places {
    Ring(Ring),
    Maglev(Maglev),
}

/// More than this has no table of its own: places hold 32 bits.
const MOST_HOSTS: usize = u32::MAX as usize;

// === impl Table ===

impl Table {
    /// The table for these hosts in their order. None where there is no host, or balancing does
    /// not go by hashes.
    pub(crate) fn build(balancing: Balancing, hosts: Vec<Weighed>) -> Option<Self> {
        if hosts.is_empty() || hosts.len() > MOST_HOSTS {
            return None;
        }
        let (keys, places) = match balancing {
            Balancing::RingHash(config) => {
                // A ring that is to have no point leads nowhere, there as here.
                let ring = Ring::build(&config, &hosts)?;
                (config.keys, Places::Ring(ring))
            }
            Balancing::Maglev(config) => {
                let maglev = Maglev::build(&config, &hosts);
                (config.keys, Places::Maglev(maglev))
            }
            _ => return None,
        };
        Some(Self {
            balancing,
            hosts,
            places,
            bound: keys.balance_factor.filter(|factor| *factor > 0),
        })
    }

    /// Whether a table for these would be the same.
    pub(crate) fn is_for(&self, balancing: Balancing, hosts: &[Weighed]) -> bool {
        self.balancing == balancing
            && self.hosts.len() == hosts.len()
            && self
                .hosts
                .iter()
                .zip(hosts)
                .all(|(mine, new)| Arc::ptr_eq(&mine.host, &new.host) && mine.share == new.share)
    }

    /// The host for a hash; `attempt` counts the choices that were refused before, and `active`
    /// gives the requests under way in the whole cluster.
    pub(crate) fn choose(
        &self,
        hash: u64,
        attempt: u32,
        active: impl FnOnce(&[Weighed]) -> u64,
    ) -> &Arc<Host> {
        let at = match &self.places {
            Places::Ring(ring) => ring.find(hash, attempt),
            Places::Maglev(maglev) => maglev.find(hash, attempt),
        };
        let at = match self.bound {
            None => at,
            Some(factor) => bounded::choose(&self.hosts, at, hash, factor, active(&self.hosts)),
        };
        &self.hosts[at].host
    }

    pub(crate) fn extent(&self) -> Extent {
        match &self.places {
            Places::Ring(ring) => ring.extent(),
            Places::Maglev(maglev) => maglev.extent(),
        }
    }
}

/// Shares for hosts of which `part` of everything is for all of them together: weight × part /
/// sum, in this order of operations.
pub(crate) fn shares(hosts: &[Arc<Host>], part: f64, into: &mut Vec<Weighed>) {
    let sum: u64 = hosts.iter().map(|host| u64::from(host.weight())).sum();
    into.extend(hosts.iter().map(|host| Weighed {
        host: host.clone(),
        share: f64::from(host.weight()) * part / sum as f64,
    }));
}

/// The text that stands for a host: its own hash key, else its host name where that is asked for,
/// else its address as Envoy writes it. Where a host name is asked for and there is none, Envoy takes the empty text
/// for all of them; we take the address.
pub(crate) fn key(host: &Host, keys: HashKeys) -> Cow<'_, str> {
    let endpoint = host.endpoint();
    if !endpoint.hash_key.is_empty() {
        return Cow::Borrowed(endpoint.hash_key.as_str());
    }
    if keys.hostname
        && let Some(name) = endpoint.host_name()
    {
        return Cow::Borrowed(name.as_str());
    }
    Cow::Owned(host.address().as_envoy().to_string())
}

#[cfg(test)]
mod tests;
