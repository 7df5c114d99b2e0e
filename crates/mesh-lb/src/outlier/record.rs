//! What outlier detection did, for a log (Envoy `OutlierDetectionEvent`).

use super::Cause;
use mesh_core::model::Address;
use std::time::{Duration, Instant};

/// A host was ejected, would have been, or came back.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct EjectionRecord {
    /// Where the host is.
    pub address: Address,
    /// When it happened.
    pub at: Instant,
    /// How long ago it came back, of one that goes, or went, of one that comes back. None where
    /// that never happened.
    pub since: Option<Duration>,
    /// How often it was ejected so far.
    pub ejections: u32,
    /// Why it is ejected. None where it comes back.
    pub ejected: Option<Ejected>,
}

/// Why a host is ejected.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Ejected {
    /// The detector.
    pub cause: Cause,
    /// Of rates, those of failures on our side were judged, apart from answers.
    pub local: bool,
    /// Whether it really is, or the detector only counts.
    pub enforced: bool,
    /// The rates that were judged; none of failures in a row.
    pub rates: Option<EjectionRates>,
}

/// Success rates, in percent.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct EjectionRates {
    /// The host's.
    pub host: f64,
    /// The mean of the hosts with enough requests; 0 where shares of failures are judged.
    pub average: f64,
    /// What the host's lies below; 0 where shares of failures are judged.
    pub threshold: f64,
}

/// What happened and nobody has taken yet, bounded.
#[derive(Debug, Default)]
pub(crate) struct Records {
    kept: Vec<EjectionRecord>,
    dropped: u64,
}

/// The most that are kept for one cluster. Who logs them comes every second or so.
const MOST: usize = 256;

// === impl Records ===

impl Records {
    pub(super) fn add(&mut self, record: EjectionRecord) {
        match self.kept.len() < MOST {
            true => self.kept.push(record),
            false => self.dropped += 1,
        }
    }

    /// What was kept, in order, and how many more there were after it.
    pub(crate) fn take(&mut self) -> (Vec<EjectionRecord>, u64) {
        let Self { kept, dropped } = std::mem::take(self);
        (kept, dropped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_are_kept_than_a_log_can_want() {
        let record = EjectionRecord {
            address: mesh_test::fixture::address("10.0.0.1:80"),
            at: Instant::now(),
            since: None,
            ejections: 1,
            ejected: None,
        };
        let mut records = Records::default();
        for _ in 0..MOST + 3 {
            records.add(record.clone());
        }
        let (kept, dropped) = records.take();
        assert_eq!((kept.len(), dropped), (MOST, 3));
        let (kept, dropped) = records.take();
        assert_eq!((kept.len(), dropped), (0, 0));
    }
}
