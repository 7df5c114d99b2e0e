//! What a version of a cluster or listener waits for, and until when.

use mesh_core::Name;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// Something that is waited for, by its name in here.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Awaited {
    Endpoints,
    Table(Name),
    Secret(Name),
}

/// When waits end; what is not here is waited for for ever.
#[derive(Debug, Default)]
pub(super) struct Waits {
    until: BTreeMap<Awaited, Instant>,
    given_up: BTreeSet<Awaited>,
}

// === impl Waits ===

impl Waits {
    /// Waits this long; for ever if that is not known.
    pub(super) fn add(&mut self, what: Awaited, limit: Option<Duration>, now: Instant) {
        if let Some(limit) = limit {
            self.until.insert(what, now + limit);
        }
    }

    /// When [`Waits::expire`] has something to do.
    pub(super) fn instants(&self) -> BTreeSet<Instant> {
        self.until.values().copied().collect()
    }

    /// What is waited for no longer.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<Awaited> {
        let mut due = Vec::new();
        self.until.retain(|what, until| {
            let later = *until > now;
            if !later {
                due.push(what.clone());
            }
            later
        });
        self.given_up.extend(due.iter().cloned());
        due
    }

    pub(super) fn gave_up(&self, what: &Awaited) -> bool {
        self.given_up.contains(what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_wait_ends_at_its_own_time_and_one_without_a_limit_never() {
        let now = Instant::now();
        let mut waits = Waits::default();
        let second = Duration::from_secs(1);
        let table = Awaited::Table("a".into());
        waits.add(Awaited::Endpoints, Some(second), now);
        waits.add(table.clone(), Some(second * 2), now);
        waits.add(Awaited::Secret("s".into()), None, now);
        assert_eq!(waits.instants().len(), 2);
        assert_eq!(waits.expire(now), []);
        assert_eq!(waits.expire(now + second), [Awaited::Endpoints]);
        assert!(waits.gave_up(&Awaited::Endpoints) && !waits.gave_up(&table));
        assert_eq!(waits.expire(now + second * 9), [table]);
        assert!(waits.instants().is_empty());
    }
}
