//! What a host weighs at this moment.

use crate::{Host, HostSet, slow};
use mesh_core::model::{Balancing, SlowStart};
use std::time::Instant;

/// How hosts of a set are weighed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Weigher<'a> {
    /// What requests under way weigh. None is nothing.
    bias: Option<f64>,
    /// Where hosts were new when the set was built.
    slow: Option<(&'a SlowStart, Instant)>,
}

// === impl Weigher ===

impl<'a> Weigher<'a> {
    pub(super) fn of_set(set: &'a HostSet, now: Option<Instant>) -> Self {
        let policy = set.config().slow_start.as_ref().filter(|_| set.has_new());
        Self {
            bias: match set.balancing() {
                Balancing::LeastRequest { bias, .. } => Some(bias.get()),
                _ => None,
            },
            slow: policy.zip(now),
        }
    }

    /// Whether equal weights may not stay equal.
    pub(super) fn is_changing(self) -> bool {
        self.slow.is_some()
    }

    /// The weight of a host, above zero or so small that it makes no difference.
    pub(super) fn of(self, host: &Host) -> f64 {
        let weight = f64::from(host.weight());
        let requests = || f64::from(host.active()) + 1.0;
        let weight = match self.bias {
            None | Some(0.0) => weight,
            Some(1.0) => weight / requests(),
            Some(bias) => weight / requests().powf(bias),
        };
        match self.slow {
            Some((policy, now)) => weight * slow::factor_of(policy, host, now),
            None => weight,
        }
    }
}
