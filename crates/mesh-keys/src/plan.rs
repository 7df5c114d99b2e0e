//! When which set is asked for: a table that knows no clock and no network.

use mesh_core::model::{KeySource, WantedKeys};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// The most sets that are got. Further ones, in the order of their sources, are never asked for.
pub const MOST_SOURCES: usize = 256;
/// The most sets that are asked for at a time.
pub const MOST_AT_ONCE: usize = 16;

/// The pause after a first failure. It doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// As istiod's `PILOT_JWT_PUB_KEY_REFRESH_INTERVAL_ON_FAILURE`.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Which sets are wanted, and when each is due.
#[derive(Debug)]
pub(crate) struct Plan {
    refresh: Duration,
    entries: BTreeMap<KeySource, Entry>,
    under_way: usize,
}

#[derive(Debug)]
struct Entry {
    timeout: Duration,
    /// None while it is asked for.
    due: Option<Instant>,
    /// In a row.
    failures: u32,
    was_tried: bool,
}

// === impl Plan ===

impl Plan {
    pub(crate) fn new(refresh: Duration) -> Self {
        Self {
            refresh,
            entries: BTreeMap::new(),
            under_way: 0,
        }
    }

    /// Takes over what is wanted now; what is new is due at once. Returns how many are too many.
    pub(crate) fn want(&mut self, wanted: &WantedKeys, now: Instant) -> usize {
        self.entries.retain(|source, _| wanted.contains_key(source));
        for (source, timeout) in wanted {
            if let Some(known) = self.entries.get_mut(source) {
                known.timeout = *timeout;
            } else if self.entries.len() < MOST_SOURCES {
                let entry = Entry {
                    timeout: *timeout,
                    due: Some(now),
                    failures: 0,
                    was_tried: false,
                };
                self.entries.insert(source.clone(), entry);
            }
        }
        wanted.len() - self.entries.len()
    }

    /// The next one that is due, with how long it may take. It is under way from now on.
    pub(crate) fn take(&mut self, now: Instant) -> Option<(KeySource, Duration)> {
        if self.under_way == MOST_AT_ONCE {
            return None;
        }
        let due = |entry: &Entry| entry.due.filter(|due| *due <= now);
        let each = self.entries.iter_mut();
        let each = each.filter_map(|(source, entry)| Some((due(entry)?, source, entry)));
        let (_, source, entry) = each.min_by_key(|(due, ..)| *due)?;
        entry.due = None;
        self.under_way += 1;
        Some((source.clone(), entry.timeout))
    }

    /// A try has ended, and well or not. Returns whether anybody still wants it. The word is chance.
    pub(crate) fn ended(
        &mut self,
        source: &KeySource,
        good: bool,
        now: Instant,
        word: u64,
    ) -> bool {
        self.under_way -= 1;
        let Some(entry) = self.entries.get_mut(source) else {
            return false;
        };
        entry.was_tried = true;
        let pause = match good {
            true => {
                entry.failures = 0;
                self.refresh
            }
            false => {
                let doubled = FIRST_PAUSE.saturating_mul(1 << entry.failures.min(6));
                entry.failures += 1;
                doubled.min(LONGEST_PAUSE).min(self.refresh)
            }
        };
        // Later than any time that is told is never.
        entry.due = now.checked_add(shortened(pause, word));
        true
    }

    /// When the next one is due that may be begun; none while there is none, or too many under way.
    pub(crate) fn due(&self) -> Option<Instant> {
        if self.under_way == MOST_AT_ONCE {
            return None;
        }
        self.entries.values().filter_map(|entry| entry.due).min()
    }

    /// Whether each was tried once.
    pub(crate) fn is_settled(&self) -> bool {
        self.entries.values().all(|entry| entry.was_tried)
    }
}

/// By up to a tenth: those who began together do not ask together for ever.
fn shortened(pause: Duration, word: u64) -> Duration {
    let part = (word >> 40) as f64 / (1_u64 << 24) as f64;
    pause.mul_f64(1.0 - part / 10.0)
}

#[cfg(test)]
#[path = "plan/tests.rs"]
mod tests;
