//! What a retry would rather not get again.

use crate::{Host, labels};
use mesh_core::{HostId, Name};
use std::collections::BTreeMap;

/// What a retry would rather not get again.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Avoid<'a> {
    /// Hosts of earlier attempts, in their order.
    pub hosts: &'a [HostId],
    /// A choice that lands on one of `hosts` is made again (Envoy's `previous_hosts`).
    pub previous: bool,
    /// So is one that lands on a canary (`omit_canary_hosts`).
    pub canaries: bool,
    /// So is one that lands on a host that has all that is in one of these, names and values as
    /// JSON (`omit_host_metadata`). What is empty is nobody.
    pub metadata: &'a [BTreeMap<Name, Name>],
    /// How often a choice is made again before it is accepted (Envoy's
    /// `host_selection_retry_max_attempts`).
    pub redraws: u32,
    /// Leave out the priorities of `hosts` (Envoy's `previous_priorities`).
    pub priorities: bool,
    /// After how many attempts their priorities are looked at again (`update_frequency`; Istio's
    /// is 2). 0 counts as 1.
    pub priority_attempts: u32,
}

// === impl Avoid ===

impl Default for Avoid<'_> {
    fn default() -> Self {
        Self::NONE
    }
}

impl<'a> Avoid<'a> {
    /// Anything will do.
    pub const NONE: Self = Self {
        hosts: &[],
        previous: false,
        canaries: false,
        metadata: &[],
        redraws: 0,
        priorities: false,
        priority_attempts: 2,
    };

    /// Chooses again, up to `redraws` times, when one of `hosts` was chosen.
    pub fn hosts(hosts: &'a [HostId], redraws: u32) -> Self {
        Self {
            hosts,
            previous: true,
            redraws,
            ..Self::NONE
        }
    }

    /// Leaves out the priorities of the hosts, too.
    #[must_use]
    pub fn and_priorities(mut self) -> Self {
        self.priorities = true;
        self
    }

    /// Whether a choice that lands on this host is made again.
    pub(super) fn would_rather_not(&self, host: &Host) -> bool {
        let endpoint = host.endpoint();
        (self.previous && self.hosts.contains(&host.id()))
            || (self.canaries && endpoint.is_canary())
            || self
                .metadata
                .iter()
                .any(|all| !all.is_empty() && labels::has_all(&endpoint.subset, all, true))
    }

    /// The attempts whose priorities are left out: all up to the last at which they were looked
    /// at, and since none was left (`is_all`).
    pub(super) fn excluded(&self, is_all: impl Fn(&[HostId]) -> bool) -> &'a [HostId] {
        if !self.priorities {
            return &[];
        }
        let every = usize::try_from(self.priority_attempts.max(1)).unwrap_or(usize::MAX);
        let (mut from, mut to) = (0_usize, 0_usize);
        while let Some(end) = to.checked_add(every).filter(|end| *end <= self.hosts.len()) {
            to = end;
            if is_all(&self.hosts[from..to]) {
                from = to;
            }
        }
        &self.hosts[from..to]
    }
}
