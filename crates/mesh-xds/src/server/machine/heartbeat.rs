//! When resources that expire have to be kept alive.

use mesh_core::Name;
use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

/// When to keep which resource alive: half way through its time, so that one lost message does no
/// harm.
#[derive(Default)]
pub(super) struct Heartbeats {
    due: BTreeSet<(Instant, Name)>,
    /// When, and how long it lives.
    at: HashMap<Name, (Instant, Duration)>,
}

// === impl Heartbeats ===

impl Heartbeats {
    /// A resource was sent, or kept alive, that lives this long.
    pub(super) fn start(&mut self, name: &Name, ttl: Duration, now: Instant) {
        self.stop(name);
        // A millisecond at least: a time to live of nothing must not make a busy loop. What ends
        // beyond the clock's end never ends.
        if let Some(at) = now.checked_add((ttl / 2).max(Duration::from_millis(1))) {
            self.add(name, ttl, at);
        }
    }

    /// The client has had a resource for a while that lives this long: it is due at once, if it
    /// is not kept alive already.
    pub(super) fn resume(&mut self, name: &Name, ttl: Duration, now: Instant) {
        if !self.at.contains_key(name) {
            self.add(name, ttl, now);
        }
    }

    fn add(&mut self, name: &Name, ttl: Duration, at: Instant) {
        self.at.insert(name.clone(), (at, ttl));
        self.due.insert((at, name.clone()));
    }

    pub(super) fn stop(&mut self, name: &Name) {
        if let Some((at, _)) = self.at.remove(name) {
            self.due.remove(&(at, name.clone()));
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// How many are due now, counted up to `most`.
    pub(super) fn count_due(&self, now: Instant, most: usize) -> usize {
        let due = self.due.iter().take_while(|(at, _)| *at <= now);
        due.take(most).count()
    }

    /// The one that is due for the longest time, and how long it lives.
    pub(super) fn next_due(&self, now: Instant) -> Option<(&Name, Duration)> {
        let (_, name) = self.due.first().filter(|(at, _)| *at <= now)?;
        let (_, ttl) = self.at.get(name)?;
        Some((name, *ttl))
    }
}
