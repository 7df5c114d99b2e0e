//! Load reports (LRS).

use super::handle::Shared;
use super::stream::Peer;
use crate::Node;
use crate::pb::envoy::config::endpoint::v3 as endpoint;
use crate::pb::envoy::service::load_stats::v3 as pb;
use crate::pb::google::protobuf::Duration as ProtoDuration;
use futures_util::stream::{self, BoxStream, StreamExt};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tonic::{Request, Response, Status, Streaming};

/// What a client reports of the load on its clusters.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct LoadReport {
    /// Who reports.
    pub node: Node,
    /// When it was received.
    pub at: Instant,
    /// Its clusters, at most [`super::Limits::load_clusters`].
    pub clusters: Vec<ClusterLoad>,
    /// How many more clusters it reported.
    pub left_out: usize,
}

/// The load on one cluster since the last report.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct ClusterLoad {
    /// Its name.
    pub cluster: String,
    /// The name that its endpoints are asked for by, if it is another.
    pub service: String,
    /// The time that the report is about.
    pub interval: Duration,
    /// Requests that were dropped.
    pub dropped: u64,
    /// Requests that were dropped, by category.
    pub dropped_by: BTreeMap<String, u64>,
    /// By place and priority.
    pub localities: Vec<LocalityLoad>,
}

/// The load on the endpoints of one place and priority.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct LocalityLoad {
    /// Region, zone, subzone.
    pub locality: (String, String, String),
    /// The priority.
    pub priority: u32,
    /// Requests that succeeded.
    pub succeeded: u64,
    /// Requests that failed.
    pub failed: u64,
    /// Requests that were begun.
    pub issued: u64,
    /// Requests in progress at the end.
    pub in_progress: u64,
    /// Named metrics: how many requests finished with it, and the sum of the values.
    pub metrics: BTreeMap<String, (u64, f64)>,
}

/// The newest reports of the streams that are open.
#[derive(Default)]
pub(super) struct Loads {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    last: u64,
    streams: BTreeMap<u64, VecDeque<LoadReport>>,
}

pub(super) struct LoadService(pub(super) Arc<Shared>);

/// A stream's place; its reports are forgotten when it ends.
struct Reporter {
    shared: Arc<Shared>,
    number: u64,
    node: Option<Node>,
    requests: Streaming<pb::LoadStatsRequest>,
    peer: Option<Peer>,
}

// === impl Loads ===

impl Loads {
    pub(super) fn reports(&self) -> Vec<LoadReport> {
        self.state().streams.values().flatten().cloned().collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change is one step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl LoadService ===

#[tonic::async_trait]
impl pb::load_reporting_service_server::LoadReportingService for LoadService {
    type StreamLoadStatsStream = BoxStream<'static, Result<pb::LoadStatsResponse, Status>>;

    async fn stream_load_stats(
        &self,
        request: Request<Streaming<pb::LoadStatsRequest>>,
    ) -> Result<Response<Self::StreamLoadStatsStream>, Status> {
        let (_, extensions, requests) = request.into_parts();
        let number = {
            let mut state = self.0.loads.state();
            if state.streams.len() >= self.0.limits.streams {
                let message = "the server has too many streams of load reports";
                return Err(Status::resource_exhausted(message));
            }
            state.last += 1;
            let number = state.last;
            state.streams.insert(number, VecDeque::new());
            number
        };
        let reporter = Reporter {
            shared: self.0.clone(),
            number,
            node: None,
            requests,
            peer: extensions.get::<Peer>().cloned(),
        };
        let replies = stream::unfold(reporter, |mut reporter| async {
            let reply = reporter.next().await?;
            Some((reply, reporter))
        });
        Ok(Response::new(replies.boxed()))
    }
}

// === impl Reporter ===

impl Reporter {
    /// The only reply is to the first request; after that there are just reports.
    async fn next(&mut self) -> Option<Result<pb::LoadStatsResponse, Status>> {
        loop {
            let mut closing = self.peer.as_ref().map(|peer| peer.closing.clone());
            let request = tokio::select! {
                request = self.requests.message() => request,
                () = super::stream::closed(&mut closing) => return None,
            };
            let request = match request {
                Ok(request) => request?,
                Err(status) => return Some(Err(status)),
            };
            let first = self.node.is_none();
            let node = self
                .node
                .get_or_insert_with(|| Node::from_proto(request.node.clone().unwrap_or_default()));
            if !request.cluster_stats.is_empty() {
                let report = report(node.clone(), request, self.shared.limits.load_clusters);
                let mut state = self.shared.loads.state();
                let kept = state.streams.entry(self.number).or_default();
                kept.push_back(report);
                while kept.len() > self.shared.limits.load_reports {
                    kept.pop_front();
                }
            }
            if first {
                let every = self.shared.load_interval;
                return Some(Ok(pb::LoadStatsResponse {
                    send_all_clusters: true,
                    load_reporting_interval: Some(ProtoDuration {
                        seconds: i64::try_from(every.as_secs()).unwrap_or(i64::MAX),
                        nanos: i32::try_from(every.subsec_nanos()).unwrap_or(0),
                    }),
                    ..pb::LoadStatsResponse::default()
                }));
            }
        }
    }
}

impl Drop for Reporter {
    fn drop(&mut self) {
        self.shared.loads.state().streams.remove(&self.number);
    }
}

fn report(node: Node, request: pb::LoadStatsRequest, most: usize) -> LoadReport {
    let left_out = request.cluster_stats.len().saturating_sub(most);
    let clusters = request.cluster_stats.into_iter().take(most);
    LoadReport {
        node,
        at: tokio::time::Instant::now().into_std(),
        clusters: clusters.map(cluster).collect(),
        left_out,
    }
}

fn cluster(stats: endpoint::ClusterStats) -> ClusterLoad {
    let interval = stats.load_report_interval.unwrap_or_default();
    let dropped = stats.dropped_requests.into_iter();
    ClusterLoad {
        cluster: stats.cluster_name,
        service: stats.cluster_service_name,
        interval: Duration::new(
            u64::try_from(interval.seconds).unwrap_or(0),
            u32::try_from(interval.nanos).map_or(0, |nanos| nanos.min(999_999_999)),
        ),
        dropped: stats.total_dropped_requests,
        dropped_by: dropped
            .map(|one| (one.category, one.dropped_count))
            .collect(),
        localities: stats
            .upstream_locality_stats
            .into_iter()
            .map(locality)
            .collect(),
    }
}

fn locality(stats: endpoint::UpstreamLocalityStats) -> LocalityLoad {
    let at = stats.locality.unwrap_or_default();
    let metrics = stats.load_metric_stats.into_iter();
    LocalityLoad {
        locality: (at.region, at.zone, at.sub_zone),
        priority: stats.priority,
        succeeded: stats.total_successful_requests,
        failed: stats.total_error_requests,
        issued: stats.total_issued_requests,
        in_progress: stats.total_requests_in_progress,
        metrics: metrics
            .map(|one| {
                let sum = (
                    one.num_requests_finished_with_metric,
                    one.total_metric_value,
                );
                (one.metric_name, sum)
            })
            .collect(),
    }
}
