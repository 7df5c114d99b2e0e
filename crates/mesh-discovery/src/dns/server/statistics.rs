//! What is counted.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of the buckets in which the times of name servers are counted: Istio's.
pub const BUCKETS: [Duration; 6] = [
    Duration::from_millis(1),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(100),
    Duration::from_secs(1),
    Duration::from_secs(5),
];

/// What is counted. Several servers may share it.
#[derive(Debug, Default)]
pub struct Statistics {
    requests: AtomicU64,
    upstream_requests: AtomicU64,
    upstream_failures: AtomicU64,
    buckets: [AtomicU64; BUCKETS.len() + 1],
    micros: AtomicU64,
}

/// What was counted, in the words of Istio's agent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// `dns_requests_total`.
    pub requests: u64,
    /// `dns_upstream_requests_total`: passed on.
    pub upstream_requests: u64,
    /// `dns_upstream_failures_total`: passed on, and no name server answered.
    pub upstream_failures: u64,
    /// `dns_upstream_request_duration_seconds`: how many took no longer than each of
    /// [`BUCKETS`], those of the buckets before among them; the last is all.
    pub buckets: [u64; BUCKETS.len() + 1],
    /// How long they took together.
    pub duration: Duration,
}

// === impl Statistics ===

impl Statistics {
    /// What was counted so far.
    pub fn counts(&self) -> Counts {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let mut buckets = self.buckets.each_ref().map(load);
        for index in 1..buckets.len() {
            buckets[index] += buckets[index - 1];
        }
        Counts {
            requests: load(&self.requests),
            upstream_requests: load(&self.upstream_requests),
            upstream_failures: load(&self.upstream_failures),
            buckets,
            duration: Duration::from_micros(load(&self.micros)),
        }
    }

    pub(super) fn asked(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn forwarded(&self) {
        self.upstream_requests.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn failed(&self) {
        self.upstream_failures.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn took(&self, time: Duration) {
        let fits = BUCKETS.iter().position(|most| time <= *most);
        self.buckets[fits.unwrap_or(BUCKETS.len())].fetch_add(1, Ordering::Relaxed);
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.micros.fetch_add(micros, Ordering::Relaxed);
    }
}
