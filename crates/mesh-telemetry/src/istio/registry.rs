//! Every series of Istio's standard metrics that this process has, up to a limit.

use super::labels::{Labels, Reporter};
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use mesh_core::Shard;
use mesh_core::stats::{Block, Histogram, Summary};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

/// The series of one kind, by their labels.
pub(crate) struct Registry<S> {
    series: RwLock<HashMap<Labels, Arc<S>, RandomState>>,
    most: usize,
    refused: AtomicU64,
}

/// What is counted for one set of labels.
#[derive(Debug, Default)]
pub(crate) struct Series {
    pub(super) duration: Histogram,
    pub(super) request_bytes: Histogram,
    pub(super) response_bytes: Histogram,
}

mesh_core::stats! {
    /// What is counted for one set of labels of connections that are passed on as they are.
    pub(crate) enum TcpCount {
        /// Connections opened.
        Opened = Counter "istio_tcp_connections_opened_total",
        /// Connections closed.
        Closed = Counter "istio_tcp_connections_closed_total",
        /// Bytes received from callers.
        Received = Counter "istio_tcp_received_bytes_total",
        /// Bytes sent to callers.
        Sent = Counter "istio_tcp_sent_bytes_total",
    }
}

/// The counts for one set of labels of such connections.
pub(crate) type TcpSeries = Block<TcpCount>;

// === impl Registry ===

impl<S: Default> Registry<S> {
    /// A registry with room for this many series, and one more for each reporter, which takes
    /// what finds no room.
    pub(crate) fn new(most: usize) -> Self {
        Self {
            series: RwLock::default(),
            most,
            refused: AtomicU64::new(0),
        }
    }

    /// The series with these labels, or the one for what finds no room.
    pub(crate) fn series(&self, labels: &Labels, reporter: Reporter) -> Arc<S> {
        {
            let series = self.series.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(known) = series.get(labels) {
                return known.clone();
            }
        }
        let mut series = self.series.write().unwrap_or_else(PoisonError::into_inner);
        if series.len() >= self.most && !series.contains_key(labels) {
            self.refused.fetch_add(1, Ordering::Relaxed);
            let overflow = Labels::overflow(reporter);
            return series.entry(overflow).or_default().clone();
        }
        series.entry(labels.clone()).or_default().clone()
    }

    /// How often a new series was asked for and refused. One set of labels is refused again each
    /// time that a worker does not remember it.
    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Every series, ordered by its labels.
    pub(crate) fn all(&self) -> Vec<(Labels, Arc<S>)> {
        let series = self.series.read().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> = series
            .iter()
            .map(|(labels, series)| (labels.clone(), series.clone()))
            .collect();
        drop(series);
        all.sort_unstable_by(|(a, _), (b, _)| a.0.cmp(&b.0));
        all
    }
}

impl<S> fmt::Debug for Registry<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry")
            .field("most", &self.most)
            .field("refused", &self.refused)
            .finish_non_exhaustive()
    }
}

// === impl Series ===

impl Series {
    /// Records one request: its duration in milliseconds and the bytes of both bodies.
    pub(crate) fn record(&self, shard: Shard, duration: f64, request: u64, response: u64) {
        self.duration.record(shard, duration);
        // Exact up to 2^53 bytes.
        self.request_bytes.record(shard, request as f64);
        self.response_bytes.record(shard, response as f64);
    }

    /// How many requests were recorded.
    #[cfg(test)]
    pub(crate) fn requests(&self) -> u64 {
        self.duration.summary().count
    }

    /// Durations, request bytes and response bytes.
    pub(crate) fn summaries(&self) -> [Summary; 3] {
        [
            self.duration.summary(),
            self.request_bytes.summary(),
            self.response_bytes.summary(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::super::labels::Spoken;
    use super::*;

    fn labels(code: u16) -> Labels {
        Labels::of(&super::super::labels::Facts {
            reporter: Reporter::Source,
            source: None,
            destination: None,
            cluster: None,
            outcome: super::super::labels::Outcome {
                code,
                flags: mesh_core::Flags::default(),
                spoken: Spoken::Http,
                grpc_status: None,
                tls: false,
            },
        })
    }

    #[test]
    fn what_finds_no_room_is_counted_together() {
        let registry: Registry<Series> = Registry::new(2);
        for code in [200, 404, 500, 503, 200] {
            let series = registry.series(&labels(code), Reporter::Source);
            series.record(Shard::default(), 1.0, 2, 3);
        }
        assert_eq!(registry.refused(), 2);
        let all = registry.all();
        assert_eq!(all.len(), 3);
        let total: u64 = all.iter().map(|(_, series)| series.requests()).sum();
        assert_eq!(total, 5, "no request is lost");
        let overflow = all
            .iter()
            .find(|(labels, _)| *labels == Labels::overflow(Reporter::Source));
        assert_eq!(overflow.unwrap().1.requests(), 2);
    }
}
