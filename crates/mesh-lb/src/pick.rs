//! Chooses a host from a [`HostSet`].
//!
//! A [`Picker`] belongs to one worker: it holds the cursors of round robin and of the weighted
//! schedules, and starts them anew, at a random place, when it is shown another set. It takes no
//! lock and no clock, and every choice follows from the set, the cursors and one random word.
//!
//! ```
//! use mesh_core::model::{Address, Balancing, Cluster, EndpointSet, SnapshotBuilder};
//! use mesh_lb::{Avoid, ClusterHosts, Picker};
//!
//! let mut cluster = Cluster::new("reviews");
//! cluster.balancing = Balancing::RoundRobin;
//! let mut builder = SnapshotBuilder::new();
//! builder.cluster(cluster);
//! let addresses = ["10.0.0.1:80".parse::<Address>()?, "10.0.0.2:80".parse()?];
//! builder.endpoints("reviews", EndpointSet::of(addresses));
//! let (snapshot, _) = builder.build()?;
//!
//! let set = ClusterHosts::of(&snapshot.clusters()[0]).current();
//! let mut picker = Picker::default();
//! let first = picker.pick(&set, 0, Avoid::NONE).expect("both are healthy");
//! let second = picker.pick(&set, 0, Avoid::NONE).expect("both are healthy");
//! assert_ne!(first.host.id(), second.host.id());
//! # Ok::<(), mesh_core::Invalid>(())
//! ```

mod edf;
mod least_request;
mod random;
mod round_robin;

use crate::hosts::HostList;
use crate::tier::Availability;
use crate::{Host, HostSet};
use mesh_core::HostId;
use mesh_core::model::Balancing;
use mesh_core::rng::mix;
use std::sync::Arc;

/// One worker's place in the rotation of one cluster.
#[derive(Debug, Default)]
pub struct Picker {
    /// The set that the turns belong to.
    generation: Option<u64>,
    /// For each priority: healthy, degraded, all.
    turns: Vec<[Turn; 3]>,
}

/// The host that was chosen.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Pick {
    /// The host.
    pub host: Arc<Host>,
    /// Its priority is in panic: it may be unhealthy.
    pub panic: bool,
}

/// What a retry would rather not get again.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct Avoid<'a> {
    /// Hosts of earlier attempts, in their order.
    pub hosts: &'a [HostId],
    /// How often a choice that lands on one of `hosts` is made again before it is accepted
    /// (Envoy's `host_selection_retry_max_attempts`).
    pub redraws: u32,
    /// Leave out the priorities of `hosts`, looked at after every second attempt (Envoy's
    /// `previous_priorities` with Istio's `update_frequency` of 2).
    pub priorities: bool,
}

/// Where a list's rotation stands.
#[derive(Debug, Default)]
enum Turn {
    #[default]
    Unset,
    Next(usize),
    Cycle(edf::Cycle),
    Least(edf::Edf),
}

// === impl Picker ===

impl Picker {
    /// Chooses a host. None when the set has none that may be used.
    pub fn pick(&mut self, set: &HostSet, word: u64, avoid: Avoid<'_>) -> Option<Pick> {
        if self.generation != Some(set.generation()) {
            self.generation = Some(set.generation());
            self.turns.clear();
            self.turns.resize_with(set.tiers().len(), Default::default);
        }
        let mut draw = word;
        let mut left = avoid.redraws;
        loop {
            let pick = self.draw(set, draw, avoid)?;
            if left == 0 || !avoid.hosts.contains(&pick.host.id()) {
                return Some(pick);
            }
            left -= 1;
            draw = mix(draw.wrapping_add(1));
        }
    }

    fn draw(&mut self, set: &HostSet, word: u64, avoid: Avoid<'_>) -> Option<Pick> {
        let (tier, availability) = match avoid.excluded() {
            [] => set.load().choose(word)?,
            tried => {
                let was_tried = |tier: usize| {
                    let priority = set.tiers()[tier].priority;
                    let of_tier =
                        |id: &HostId| set.get(*id).map(|h| h.priority()) == Some(priority);
                    tried.iter().any(of_tier)
                };
                set.load().choose_without(was_tried, word)?
            }
        };
        let hosts = &set.tiers()[tier];
        let (list, kind) = match availability {
            Availability::Healthy => (&hosts.healthy, 0),
            Availability::Degraded => (&hosts.degraded, 1),
            Availability::Panic => (&hosts.all, 2),
        };
        if list.len() == 0 {
            return None;
        }
        // The priority was chosen with the word itself; the host needs an independent one.
        let word = mix(word);
        let turn = &mut self.turns[tier][kind];
        let at = match set.balancing() {
            Balancing::RoundRobin => round_robin::pick(turn, list, word),
            Balancing::LeastRequest { choices, .. } => {
                least_request::pick(turn, list, word, choices)
            }
            _ => random::pick(list, word),
        };
        Some(Pick {
            host: list.hosts()[at].clone(),
            panic: availability == Availability::Panic,
        })
    }
}

// === impl Avoid ===

impl<'a> Avoid<'a> {
    /// Anything will do.
    pub const NONE: Self = Self {
        hosts: &[],
        redraws: 0,
        priorities: false,
    };

    /// Chooses again, up to `redraws` times, when one of `hosts` was chosen.
    pub fn hosts(hosts: &'a [HostId], redraws: u32) -> Self {
        Self {
            hosts,
            redraws,
            priorities: false,
        }
    }

    /// Leaves out the priorities of the hosts, too.
    #[must_use]
    pub fn and_priorities(mut self) -> Self {
        self.priorities = true;
        self
    }

    /// The attempts whose priorities are left out: all up to the last even number of them.
    fn excluded(&self) -> &'a [HostId] {
        if !self.priorities {
            return &[];
        }
        &self.hosts[..self.hosts.len() / 2 * 2]
    }
}

// === impl HostList ===

impl HostList {
    /// A place in the list for a word.
    fn anywhere(&self, word: u64) -> usize {
        (word % self.len() as u64) as usize
    }
}

#[cfg(test)]
mod tests;
