//! What endpoints weigh by their reports. Pure, but for the record of each endpoint.

use super::LoadReport;
use mesh_core::model::ReportedWeights;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// What an endpoint reported. Written by whoever gets an answer of it, read when weights are looked
/// at.
#[derive(Debug, Default)]
pub(crate) struct Reported(Mutex<Record>);

#[derive(Clone, Copy, Debug, Default)]
struct Record {
    /// What it weighed by its last report.
    weight: u32,
    /// When that came.
    last: Option<Instant>,
    /// When the first one came since it had none.
    since: Option<Instant>,
}

/// What an endpoint weighs by a report: requests per second / (utilization + errors per second /
/// requests per second × penalty), cut to a whole number. None where there are no requests, or no
/// utilization (Envoy `OrcaLoadReportHandler::calculateWeightFromOrcaReport`).
fn of_report(report: &LoadReport, policy: &ReportedWeights) -> Option<u32> {
    let requests = report.requests_per_second;
    if requests.is_nan() || requests <= 0.0 {
        return None;
    }
    let names = policy.utilization.iter();
    let named = names
        .filter_map(|name| report.metric(name))
        .fold(0.0, f64::max);
    let utilization = match named {
        named if named > 0.0 => named,
        _ if report.application > 0.0 => report.application,
        _ => report.cpu,
    };
    let penalty = policy.error_penalty.get() * report.errors_per_second / requests;
    let utilization = utilization + penalty;
    // Numbers that are too large are the largest there is.
    (utilization > 0.0).then(|| (requests / utilization) as u32)
}

/// The weights of endpoints with these records: their own, or the median of those that have one of
/// their own (of an even number the mean of the middle two), or 1. None is less than 1 (Envoy
/// `OrcaWeightManager::updateWeightsOnHosts`).
pub(crate) fn weigh<'a>(
    records: impl Iterator<Item = &'a Reported>,
    policy: &ReportedWeights,
    now: Instant,
) -> Vec<u32> {
    let own: Vec<_> = records.map(|one| one.weight(policy, now)).collect();
    let mut known: Vec<_> = own.iter().copied().flatten().collect();
    known.sort_unstable();
    let median = match known.as_slice() {
        [] => 1,
        known if known.len() % 2 == 1 => known[known.len() / 2],
        known => known[known.len() / 2 - 1].midpoint(known[known.len() / 2]),
    };
    own.into_iter()
        .map(|own| own.unwrap_or(median).max(1))
        .collect()
}

// === impl Reported ===

impl Reported {
    /// Takes up a report. One that says nothing of the weight changes nothing.
    pub(crate) fn note(&self, report: &LoadReport, policy: &ReportedWeights, now: Instant) {
        let Some(weight) = of_report(report, policy) else {
            return;
        };
        let mut record = self.record();
        record.weight = weight;
        record.last = Some(now);
        record.since.get_or_insert(now);
    }

    /// The weight, if it counts: not before the blackout is over, and not after it expired, when
    /// another blackout begins with the next report.
    fn weight(&self, policy: &ReportedWeights, now: Instant) -> Option<u32> {
        let mut record = self.record();
        let age = |then: Instant| now.saturating_duration_since(then);
        if age(record.since?) < policy.blackout {
            return None;
        }
        if age(record.last?) > policy.expiration {
            record.since = None;
            return None;
        }
        Some(record.weight)
    }

    fn record(&self) -> MutexGuard<'_, Record> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
