//! How much traffic each priority gets: spill-over, normalisation and panic, as in Envoy.
//!
//! The arithmetic is Envoy's `LoadBalancerBase`, in whole percent. A priority's health is
//! `min(100, 140 × healthy / total)` (`overprovisioning_factor` 140). Traffic goes to healthy hosts
//! of the first priorities, what is left to degraded ones, what rounding leaves to the first
//! priority that has any. When all of them together are below 100 %, the shares are scaled up to
//! 100 % and each priority whose usable share lies below the panic threshold uses every host it has
//! (`healthy_panic_threshold`).
//!
//! ```
//! use mesh_lb::tier::{Availability, Counts, Load};
//!
//! // 50 of 100 hosts healthy: 140 % × 50 % = 70 % stay, 30 % spill over.
//! let first = Counts { total: 100, healthy: 50, ..Counts::default() };
//! let second = Counts { total: 10, healthy: 10, ..Counts::default() };
//! let load = Load::compute(&[first, second], 50);
//! assert_eq!(load.shares(), [(70, 0), (30, 0)]);
//! assert_eq!(load.choose(69), Some((0, Availability::Healthy)));
//! assert_eq!(load.choose(70), Some((1, Availability::Healthy)));
//! ```

/// Envoy's `overprovisioning_factor`, in percent. xDS can change it; Istio never does.
pub(crate) const OVERPROVISIONING: u32 = 140;

/// The hosts of one priority.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// All but those that are left out when it is judged whether there are enough healthy ones.
    pub total: u32,
    /// Those that may get requests.
    pub healthy: u32,
    /// Those that get requests when there are not enough healthy ones.
    pub degraded: u32,
    /// Those that are left out: they drain, or ask for it. In panic they are used, too.
    pub excluded: u32,
}

/// Which hosts of a priority are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Availability {
    /// The healthy ones.
    Healthy,
    /// The degraded ones.
    Degraded,
    /// All: the priority is in panic.
    Panic,
}

/// The shares of all priorities.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Percent of traffic for healthy and for degraded hosts; 100 together.
    shares: Vec<(u32, u32)>,
    /// What each could take: health and degraded health, 0 to 100.
    available: Vec<(u32, u32)>,
    panic: Vec<bool>,
}

// === impl Counts ===

impl Counts {
    /// Health in percent, more than there is so that a few losses do not spill.
    fn available(self, overprovisioning: u32) -> (u32, u32) {
        let percent = |part: u32| match self.total {
            0 => 0,
            // At most 100, so the cast keeps the value.
            total => {
                (u64::from(overprovisioning) * u64::from(part) / u64::from(total)).min(100) as u32
            }
        };
        (percent(self.healthy), percent(self.degraded))
    }

    /// Whether less than `threshold` percent of the hosts are usable.
    fn is_in_panic(self, threshold: u32) -> bool {
        let usable = u64::from(self.healthy) + u64::from(self.degraded);
        match self.total {
            0 => threshold > 0,
            total => 100 * usable < u64::from(threshold) * u64::from(total),
        }
    }
}

// === impl Load ===

impl Load {
    /// The shares of these priorities, first used first. `panic_threshold` is in percent; 0 means
    /// that no priority is ever in panic.
    pub fn compute(tiers: &[Counts], panic_threshold: u32) -> Self {
        Self::with(tiers, panic_threshold, OVERPROVISIONING)
    }

    /// As [`Load::compute`], with another `overprovisioning_factor` than 140 %.
    pub fn with(tiers: &[Counts], panic_threshold: u32, overprovisioning: u32) -> Self {
        let threshold = panic_threshold.min(100);
        let available: Vec<_> = tiers
            .iter()
            .map(|counts| counts.available(overprovisioning))
            .collect();
        let total = sum(&available);
        let mut load = Self {
            shares: distribute(&available),
            available,
            panic: vec![false; tiers.len()],
        };
        if total == 100 {
            return load;
        }
        load.panic = tiers.iter().map(|c| c.is_in_panic(threshold)).collect();
        if load.panic.iter().all(|panic| *panic) {
            load.shares = by_size(tiers);
        } else if total == 0 {
            // One healthy host of a thousand rounds to no health at all. Envoy then sends all to
            // the first priority, usable or not; we look for one that can answer.
            let usable = |c: &Counts| c.healthy > 0 || c.degraded > 0;
            let first = tiers.iter().position(usable).unwrap_or(0);
            load.shares = vec![(0, 0); tiers.len()];
            load.shares[first] = match tiers[first] {
                Counts {
                    healthy: 0,
                    degraded: 1..,
                    ..
                } => (0, 100),
                _ => (100, 0),
            };
        }
        load
    }

    /// Percent of traffic for the healthy and for the degraded hosts of each priority.
    pub fn shares(&self) -> &[(u32, u32)] {
        &self.shares
    }

    /// Whether this priority uses all of its hosts.
    pub fn is_in_panic(&self, tier: usize) -> bool {
        self.panic.get(tier).copied().unwrap_or(false)
    }

    /// The priority for a request with this random word. None when there is no priority.
    pub fn choose(&self, word: u64) -> Option<(usize, Availability)> {
        self.choose_from(&self.shares, word)
    }

    /// As [`Load::choose`], leaving out the priorities for which `excluded` says so (Envoy's
    /// `previous_priorities`). Where nothing else is available it chooses as if none were.
    pub fn choose_without(
        &self,
        excluded: impl Fn(usize) -> bool,
        word: u64,
    ) -> Option<(usize, Availability)> {
        let others = self.others(excluded);
        if sum(&others) == 0 {
            return self.choose(word);
        }
        self.choose_from(&distribute(&others), word)
    }

    /// Whether nothing is available without the priorities for which `excluded` says so.
    pub fn is_empty_without(&self, excluded: impl Fn(usize) -> bool) -> bool {
        sum(&self.others(excluded)) == 0
    }

    fn others(&self, excluded: impl Fn(usize) -> bool) -> Vec<(u32, u32)> {
        let all = self.available.iter().enumerate();
        all.map(|(tier, available)| if excluded(tier) { (0, 0) } else { *available })
            .collect()
    }

    fn choose_from(&self, shares: &[(u32, u32)], word: u64) -> Option<(usize, Availability)> {
        let point = (word % 100) as u32;
        let healthy = shares.iter().map(|(healthy, _)| *healthy).enumerate();
        let degraded = shares.iter().map(|(_, degraded)| *degraded).enumerate();
        let mut end = 0;
        for ((tier, share), availability) in healthy
            .map(|entry| (entry, Availability::Healthy))
            .chain(degraded.map(|entry| (entry, Availability::Degraded)))
        {
            end += share;
            if point < end {
                let panic = self.is_in_panic(tier);
                return Some((
                    tier,
                    if panic {
                        Availability::Panic
                    } else {
                        availability
                    },
                ));
            }
        }
        None
    }
}

/// Everything that is available, at most 100.
fn sum(available: &[(u32, u32)]) -> u32 {
    let total = available.iter().fold(0_u32, |sum, (healthy, degraded)| {
        sum.saturating_add(*healthy).saturating_add(*degraded)
    });
    total.min(100)
}

/// Hands out 100 % to healthy hosts in order of priority, then to degraded ones; what rounding
/// leaves goes to the first that has any.
fn distribute(available: &[(u32, u32)]) -> Vec<(u32, u32)> {
    let total = sum(available);
    let mut shares = vec![(0, 0); available.len()];
    if total == 0 {
        return shares;
    }
    let mut left = 100;
    for (share, (healthy, _)) in shares.iter_mut().zip(available) {
        share.0 = left.min(healthy * 100 / total);
        left -= share.0;
    }
    for (share, (_, degraded)) in shares.iter_mut().zip(available) {
        share.1 = left.min(degraded * 100 / total);
        left -= share.1;
    }
    if let Some(first) = available.iter().position(|(healthy, _)| *healthy > 0) {
        shares[first].0 += left;
    } else if let Some(first) = available.iter().position(|(_, degraded)| *degraded > 0) {
        shares[first].1 += left;
    }
    shares
}

/// All priorities are in panic: shares follow the number of hosts, healthy or not.
fn by_size(tiers: &[Counts]) -> Vec<(u32, u32)> {
    let size = |counts: &Counts| u64::from(counts.total) + u64::from(counts.excluded);
    let all: u64 = tiers.iter().map(size).sum();
    let mut shares = vec![(0, 0); tiers.len()];
    let Some(first) = tiers.iter().position(|counts| size(counts) > 0) else {
        return shares;
    };
    let mut left = 100;
    for (share, counts) in shares.iter_mut().zip(tiers) {
        share.0 = (100 * size(counts) / all) as u32;
        left -= share.0;
    }
    shares[first].0 += left;
    shares
}

#[cfg(test)]
mod tests;
