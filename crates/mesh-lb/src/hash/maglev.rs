//! Maglev's table (<https://research.google.com/pubs/pub44824.html>, Envoy's `MaglevTable`).
//!
//! Each host has a permutation of all places, from two hashes of its key; in turn, and by weight,
//! each takes the next place of its own that is free.

use super::{Extent, Weighed, key, xx, xx_seeded};
use mesh_core::model;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// A table with a host at each place.
#[derive(Debug)]
pub(super) struct Maglev {
    places: Places,
    extent: Extent,
}

/// Places in the table, as short as the number of hosts allows.
#[derive(Debug)]
enum Places {
    Short(Box<[u16]>),
    Long(Box<[u32]>),
}

/// How a host takes places.
struct Entry {
    at: u32,
    offset: u64,
    skip: u64,
    share: f64,
    target: f64,
    next: u64,
    count: u64,
}

/// A place that nobody has yet.
const FREE: u32 = u32::MAX;

/// Envoy's largest table.
const MOST: u64 = 5_000_011;

// === impl Maglev ===

impl Maglev {
    /// The table for these hosts, of which there is at least one.
    pub(super) fn build(config: &model::Maglev, hosts: &[Weighed]) -> Self {
        // Not prime, it would not be a permutation, and taking places might never end.
        // One host alone needs one place, and counts as such (Envoy's `maglev_lb.*_entries_per_host`).
        let size = match hosts {
            [_] => 1,
            _ => prime_up_to(config.size.clamp(2, MOST)),
        };
        let mut keyed: Vec<_> = (0_u32..)
            .zip(hosts)
            .map(|(at, host)| (key(&host.host, config.keys), at, host.share))
            .collect();
        keyed.sort_by(|a, b| a.0.cmp(&b.0).then(a.1.cmp(&b.1)));
        let entries: Vec<Entry> = keyed
            .iter()
            .map(|(key, at, share)| Entry {
                at: *at,
                offset: xx(key.as_bytes()) % size,
                skip: xx_seeded(key.as_bytes(), 1) % (size - 1).max(1) + 1,
                share: *share,
                target: 0.0,
                next: 0,
                count: 0,
            })
            .collect();
        let (places, entries) = fill(size, entries);
        let counts = || entries.iter().map(|entry| entry.count);
        let extent = Extent {
            size,
            least: counts().min().unwrap_or(0),
            most: counts().max().unwrap_or(0),
        };
        let places = match u16::try_from(hosts.len()) {
            // Each is below the number of hosts.
            Ok(_) => Places::Short(places.into_iter().map(|at| at as u16).collect()),
            Err(_) => Places::Long(places.into()),
        };
        Self { places, extent }
    }

    /// The place of the host for a hash; each refused choice turns other bits of it over.
    pub(super) fn find(&self, hash: u64, attempt: u32) -> usize {
        let hash = match attempt {
            0 => hash,
            _ => hash ^ 0_u64.wrapping_sub(u64::from(attempt)),
        };
        let place = (hash % self.extent.size) as usize;
        match &self.places {
            Places::Short(places) => usize::from(places[place]),
            Places::Long(places) => places[place] as usize,
        }
    }

    pub(super) fn extent(&self) -> Extent {
        self.extent
    }
}

/// Gives each place to a host. In round n of the original a host has its turn when
/// n × share ≥ target; instead of looking at all hosts in all rounds (65,537 rounds over thousands
/// of hosts where one outweighs the rest) each waits for its round in a queue.
fn fill(size: u64, mut entries: Vec<Entry>) -> (Vec<u32>, Vec<Entry>) {
    let largest = entries.iter().map(|entry| entry.share).fold(0.0, f64::max);
    let mut places = vec![FREE; size as usize];
    let mut due: BinaryHeap<Reverse<(u64, usize)>> = (0..entries.len())
        .map(|index| Reverse((1, index)))
        .collect();
    for _ in 0..size {
        let Some(Reverse((round, index))) = due.pop() else {
            break;
        };
        let entry = &mut entries[index];
        entry.target += largest;
        let mut place = entry.place(size);
        while places[place] != FREE {
            entry.next += 1;
            place = entry.place(size);
        }
        places[place] = entry.at;
        entry.next += 1;
        entry.count += 1;
        due.push(Reverse((entry.due_after(round), index)));
    }
    (places, entries)
}

// === impl Entry ===

impl Entry {
    fn place(&self, size: u64) -> usize {
        ((self.offset + self.skip * self.next) % size) as usize
    }

    /// The next round in which it has a turn: the first after `round` whose product with the share
    /// is not below the target, by the same comparison of doubles.
    fn due_after(&self, round: u64) -> u64 {
        let is_due = |round: u64| round as f64 * self.share >= self.target;
        // Far rounds never come, and what is no number never has a turn.
        let guess = (self.target / self.share).min(u64::MAX as f64 / 4.0) as u64;
        let mut next = guess.saturating_sub(2).max(round + 1);
        for _ in 0..8 {
            if is_due(next) {
                break;
            }
            next += 1;
        }
        next
    }
}

/// The largest prime that is not above `number`, which is at least 2.
fn prime_up_to(number: u64) -> u64 {
    let is_prime = |number: u64| {
        (2..)
            .take_while(|divisor| divisor * divisor <= number)
            .all(|divisor| !number.is_multiple_of(divisor))
    };
    (2..=number)
        .rev()
        .find(|number| is_prime(*number))
        .unwrap_or(2)
}
