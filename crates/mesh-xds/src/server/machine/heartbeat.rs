//! When resources that expire have to be kept alive.

use mesh_core::Name;
use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

/// When to keep which resource alive: half way through its time, so that one lost message does no
/// harm.
#[derive(Default)]
pub(super) struct Heartbeats {
    due: BTreeSet<(Instant, Name)>,
    at: HashMap<Name, Instant>,
}

// === impl Heartbeats ===

impl Heartbeats {
    /// A resource was sent, or kept alive, that lives this long.
    pub(super) fn start(&mut self, name: &Name, ttl: Duration, now: Instant) {
        self.stop(name);
        // A millisecond at least: a time to live of nothing must not make a busy loop.
        let at = now + (ttl / 2).max(Duration::from_millis(1));
        self.at.insert(name.clone(), at);
        self.due.insert((at, name.clone()));
    }

    pub(super) fn stop(&mut self, name: &Name) {
        if let Some(at) = self.at.remove(name) {
            self.due.remove(&(at, name.clone()));
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// What is due now.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<Name> {
        let mut names = Vec::new();
        while let Some((at, _)) = self.due.first()
            && *at <= now
        {
            if let Some((_, name)) = self.due.pop_first() {
                self.at.remove(&name);
                names.push(name);
            }
        }
        names
    }
}
