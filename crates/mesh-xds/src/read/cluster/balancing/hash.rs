//! Consistent hashing: rings and tables.

use crate::pb::envoy::config::cluster::v3::cluster::common_lb_config::ConsistentHashingLbConfig;
use crate::pb::envoy::config::cluster::v3::cluster::{
    RingHashLbConfig, ring_hash_lb_config::HashFunction as Function,
};
use crate::pb::google::protobuf::{UInt32Value, UInt64Value};
use crate::wire::{enumeration, number};
use mesh_core::Invalid;
use mesh_core::model::{Balancing, HashFunction, HashKeys, Maglev, RingHash};

/// The most points of a ring (Envoy).
const MOST_POINTS: u64 = 8 << 20;
/// The most places of a table (Envoy).
const MOST_PLACES: u64 = 5_000_011;

/// A ring as it is configured.
#[derive(Default)]
pub(super) struct Ring {
    pub(super) minimum: Option<u64>,
    pub(super) maximum: Option<u64>,
    pub(super) function: HashFunction,
}

// === impl Ring ===

impl Ring {
    pub(super) fn of(value: &RingHashLbConfig) -> Result<Self, Invalid> {
        let RingHashLbConfig {
            minimum_ring_size,
            hash_function,
            maximum_ring_size,
        } = value;
        Ok(Self {
            minimum: wide(minimum_ring_size.as_ref()),
            maximum: wide(maximum_ring_size.as_ref()),
            function: match enumeration("hash_function", *hash_function)? {
                Function::XxHash => HashFunction::XxHash,
                Function::MurmurHash2 => HashFunction::Murmur2,
            },
        })
    }
}

pub(super) fn wide(value: Option<&UInt64Value>) -> Option<u64> {
    value.map(|wrapped| wrapped.value)
}

/// A ring. One without points, which Envoy takes from the older field, has room for no endpoint.
pub(super) fn ring(asked: &Ring, keys: HashKeys) -> Result<Balancing, Invalid> {
    let mut ring = RingHash::default();
    ring.minimum = asked.minimum.unwrap_or(ring.minimum);
    ring.maximum = asked.maximum.unwrap_or(ring.maximum);
    ring.function = asked.function;
    ring.keys = keys;
    for (field, points) in [
        ("minimum_ring_size", ring.minimum),
        ("maximum_ring_size", ring.maximum),
    ] {
        if !(1..=MOST_POINTS).contains(&points) {
            let message = format!("{points} is not a number from 1 to {MOST_POINTS}");
            return Err(Invalid::new(field, message));
        }
    }
    if ring.minimum > ring.maximum {
        let (least, most) = (ring.minimum, ring.maximum);
        let message = format!("{least} is more than maximum_ring_size, {most}");
        return Err(Invalid::new("minimum_ring_size", message));
    }
    Ok(Balancing::RingHash(ring))
}

/// A table.
pub(super) fn maglev(size: Option<&UInt64Value>, keys: HashKeys) -> Result<Balancing, Invalid> {
    let mut table = Maglev::default();
    table.size = wide(size).unwrap_or(table.size);
    table.keys = keys;
    if table.size > MOST_PLACES || !is_prime(table.size) {
        let message = format!("{} is not a prime number up to {MOST_PLACES}", table.size);
        return Err(Invalid::new("table_size", message));
    }
    Ok(Balancing::Maglev(table))
}

/// Quick enough up to [`MOST_PLACES`], and not meant for more.
fn is_prime(number: u64) -> bool {
    number > 1
        && (2..)
            .take_while(|d| d * d <= number)
            .all(|d| !number.is_multiple_of(d))
}

pub(super) fn keys(value: &ConsistentHashingLbConfig) -> Result<HashKeys, Invalid> {
    let ConsistentHashingLbConfig {
        use_hostname_for_hashing,
        hash_balance_factor,
    } = value;
    factor(*use_hostname_for_hashing, hash_balance_factor.as_ref())
}

pub(super) fn factor(hostname: bool, factor: Option<&UInt32Value>) -> Result<HashKeys, Invalid> {
    let balance_factor = number(factor);
    if let Some(few @ ..100) = balance_factor {
        let message = format!("{few} is less than 100: no endpoint could get its share");
        return Err(Invalid::new("hash_balance_factor", message));
    }
    let mut keys = HashKeys::default();
    keys.hostname = hostname;
    keys.balance_factor = balance_factor;
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn primes_are_those_of_the_sieve() {
        let mut sieve = vec![true; 2000];
        sieve[..2].fill(false);
        for at in 2..2000 {
            if sieve[at] {
                (2 * at..2000)
                    .step_by(at)
                    .for_each(|many| sieve[many] = false);
            }
        }
        for (number, prime) in (0_u64..).zip(sieve) {
            assert_eq!(is_prime(number), prime, "{number}");
        }
        assert!(is_prime(65_537) && is_prime(MOST_PLACES));
    }
}
