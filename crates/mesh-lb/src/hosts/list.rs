//! Hosts to choose from.

use crate::Host;
use std::sync::Arc;

/// Hosts to choose from by weight.
#[derive(Debug, Default)]
pub(crate) struct HostList {
    hosts: Vec<Arc<Host>>,
    has_equal_weights: bool,
    slot: usize,
}

/// Numbers the lists and schedules of a set, so that a worker finds its turns by number.
#[derive(Debug, Default)]
pub(crate) struct Slots(usize);

// === impl HostList ===

impl HostList {
    pub(crate) fn new(hosts: Vec<Arc<Host>>, slots: &mut Slots) -> Self {
        let has_equal_weights = hosts
            .windows(2)
            .all(|pair| pair[0].weight() == pair[1].weight());
        Self {
            hosts,
            has_equal_weights,
            slot: slots.next(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.hosts.len()
    }

    pub(crate) fn hosts(&self) -> &[Arc<Host>] {
        &self.hosts
    }

    pub(crate) fn has_equal_weights(&self) -> bool {
        self.has_equal_weights
    }

    /// Its number.
    pub(crate) fn slot(&self) -> usize {
        self.slot
    }
}

// === impl Slots ===

impl Slots {
    pub(crate) fn next(&mut self) -> usize {
        self.0 += 1;
        self.0 - 1
    }

    pub(crate) fn count(&self) -> usize {
        self.0
    }
}
