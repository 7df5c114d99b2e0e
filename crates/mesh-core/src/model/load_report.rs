//! Endpoints that are weighed by the load that they report.

use super::Real;
use crate::Name;
use std::time::Duration;

/// Endpoints get requests by what they say of their load in their answers (gRFC A58, Envoy
/// `ClientSideWeightedRoundRobin`): the weight of one is requests per second / (utilization + errors
/// per second / requests per second × [`error_penalty`](Self::error_penalty)).
///
/// Weights that discovery tells do not count. Of endpoints of one priority those without a weight of
/// their own get the median of the others; where none has one, all have the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct ReportedWeights {
    /// How long an endpoint has to have reported before its weight counts: since it is known, and
    /// since its reports ceased for [`expiration`](Self::expiration). Default 10 s.
    pub blackout: Duration,
    /// Without a report for so long, an endpoint has no weight any more. Default 3 min.
    pub expiration: Duration,
    /// How often weights are looked at. Default 1 s; less than 100 ms counts as 100 ms.
    pub update: Duration,
    /// What errors weigh. Default 0, as Envoy does it; A58 has 1.
    pub error_penalty: Real,
    /// What utilization is: the largest of these, where that is above 0; otherwise
    /// `application_utilization`, and where that is not above 0 `cpu_utilization`.
    ///
    /// Names of fields of `OrcaLoadReport`, e.g. `mem_utilization`; of entries of its maps,
    /// e.g. `named_metrics.queue`, or of all of them, e.g. `utilization.*`. What is not there does not
    /// count.
    pub utilization: Vec<Name>,
}

// === impl ReportedWeights ===

impl ReportedWeights {
    /// The least of [`update`](Self::update).
    pub const SHORTEST_UPDATE: Duration = Duration::from_millis(100);

    /// How often weights are looked at, at least [`SHORTEST_UPDATE`](Self::SHORTEST_UPDATE).
    pub fn interval(&self) -> Duration {
        self.update.max(Self::SHORTEST_UPDATE)
    }
}

impl Default for ReportedWeights {
    fn default() -> Self {
        Self {
            blackout: Duration::from_secs(10),
            expiration: Duration::from_secs(180),
            update: Duration::from_secs(1),
            error_penalty: Real::ZERO,
            utilization: Vec::new(),
        }
    }
}
