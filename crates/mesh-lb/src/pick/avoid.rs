//! What a retry would rather not get again.

use mesh_core::HostId;

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
    pub(super) fn excluded(&self) -> &'a [HostId] {
        if !self.priorities {
            return &[];
        }
        &self.hosts[..self.hosts.len() / 2 * 2]
    }
}
