//! When to push: after a quiet time, but not later than a longest time after the first change.

use std::time::Duration;
use tokio::time::Instant;

/// How changes are gathered into one push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quiet {
    /// A push waits until nothing changed for this long. Default 100 ms, as istiod's
    /// `PILOT_DEBOUNCE_AFTER`.
    pub after: Duration,
    /// But never longer than this since the first change. Default 10 s, as istiod's
    /// `PILOT_DEBOUNCE_MAX`.
    pub max: Duration,
}

/// Changes that wait to be pushed.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Debounce {
    waiting: Option<Waiting>,
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    first: Instant,
    last: Instant,
}

// === impl Quiet ===

impl Default for Quiet {
    fn default() -> Self {
        Self {
            after: Duration::from_millis(100),
            max: Duration::from_secs(10),
        }
    }
}

// === impl Debounce ===

impl Debounce {
    /// Something changed.
    pub(crate) fn note(&mut self, now: Instant) {
        let first = self.waiting.map_or(now, |waiting| waiting.first);
        self.waiting = Some(Waiting { first, last: now });
    }

    /// When to push, if anything waits.
    pub(crate) fn due(&self, quiet: Quiet) -> Option<Instant> {
        let waiting = self.waiting?;
        Some((waiting.last + quiet.after).min(waiting.first + quiet.max))
    }

    /// Nothing waits any more. Returns how long it did.
    pub(crate) fn take(&mut self, now: Instant) -> Option<Duration> {
        let waiting = self.waiting.take()?;
        Some(now.saturating_duration_since(waiting.first))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_push_waits_for_quiet() {
        let (start, quiet) = (Instant::now(), Quiet::default());
        let mut debounce = Debounce::default();
        assert_eq!(debounce.due(quiet), None);
        debounce.note(start);
        debounce.note(start + 60 * MS);
        assert_eq!(debounce.due(quiet), Some(start + 160 * MS));
        assert_eq!(debounce.take(start + 160 * MS), Some(160 * MS));
        assert_eq!(debounce.due(quiet), None);
    }

    #[test]
    fn a_push_does_not_wait_for_ever() {
        let (start, quiet) = (Instant::now(), Quiet::default());
        let mut debounce = Debounce::default();
        for step in 0..200 {
            debounce.note(start + step * 99 * MS);
        }
        assert_eq!(debounce.due(quiet), Some(start + quiet.max));
    }
}
