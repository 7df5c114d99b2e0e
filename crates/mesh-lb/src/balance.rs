//! One cluster as a service, for any HTTP client and without routing.
//!
//! [`Balance`] does for one cluster what [`Dispatch`](crate::Dispatch) does for the cluster that a
//! route chose: choose a host, send, count, eject. The request needs no
//! [`Exchange`]; where it has one, hosts that were tried are noted in it and
//! avoided as its route asks.
//!
//! ```
//! use http::{Request, Response};
//! use mesh_core::model::{Address, Cluster, ClusterEntry, EndpointSet, SnapshotBuilder};
//! use mesh_lb::{Balance, Host};
//! use mesh_test::{empty, text};
//! use std::sync::Arc;
//! use tower::{ServiceExt, service_fn};
//!
//! # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
//! let mut builder = SnapshotBuilder::new();
//! builder.cluster(Cluster::new("reviews"));
//! builder.endpoints("reviews", EndpointSet::of(["10.0.0.1:80".parse::<Address>()?]));
//! let (snapshot, _) = builder.build()?;
//!
//! // In earnest: a client that connects to host.address().
//! let make = |_: &Arc<Host>, _: &Arc<ClusterEntry>| {
//!     service_fn(|_: Request<_>| async { Ok::<_, std::io::Error>(Response::new(text("ok"))) })
//! };
//! let reviews = Balance::new(snapshot.clusters()[0].clone(), make);
//! let response = reviews.oneshot(Request::new(empty())).await?;
//! assert_eq!(response.status(), 200);
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use crate::dispatch::{Answer, Owner, ResponseFuture, Worker};
use crate::{ClusterHosts, MakeEndpoint};
use http::{Request, Response};
use http_body::Body;
use mesh_core::model::ClusterEntry;
use mesh_core::{BoxError, Error, Exchange, Rng};
use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};
use tower_service::Service;

/// A service that sends each request to a host of one cluster.
pub struct Balance<M: MakeEndpoint> {
    entry: Arc<ClusterEntry>,
    worker: Worker<M>,
}

// === impl Balance ===

impl<M: MakeEndpoint> Balance<M> {
    /// Balances over `cluster`, whose endpoints may change on their own. Choices are seeded by
    /// the system.
    pub fn new(cluster: Arc<ClusterEntry>, make: M) -> Self {
        Self {
            entry: cluster,
            worker: Worker::new(make),
        }
    }

    /// Draws from `rng` instead.
    #[must_use]
    pub fn rng(mut self, rng: Arc<Rng>) -> Self {
        self.worker.rng = rng;
        self
    }

    /// The hosts of the cluster.
    pub fn hosts(&self) -> &ClusterHosts {
        ClusterHosts::of(&self.entry)
    }
}

impl<M: MakeEndpoint> Clone for Balance<M> {
    fn clone(&self) -> Self {
        Self {
            entry: self.entry.clone(),
            worker: self.worker.clone(),
        }
    }
}

impl<M: MakeEndpoint> fmt::Debug for Balance<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Balance")
            .field("cluster", self.entry.live().name())
            .finish_non_exhaustive()
    }
}

impl<M, B, R> Service<Request<B>> for Balance<M>
where
    M: MakeEndpoint,
    M::Service: Service<Request<B>, Response = Response<R>>,
    <M::Service as Service<Request<B>>>::Error: Into<BoxError>,
    R: Body,
{
    type Response = Response<Answer<R>>;
    type Error = Error;
    type Future = ResponseFuture<M::Service, B>;

    /// Always ready: the host is chosen, and made ready, for each request.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    /// # Errors
    /// The future fails with [`Failure::NoHealthyHost`](mesh_core::Failure::NoHealthyHost) where
    /// no host may be used, and otherwise as the host's service does.
    fn call(&mut self, request: Request<B>) -> Self::Future {
        let exchange = Exchange::of(&request).cloned();
        let owner = Owner::Fixed(self.entry.clone(), exchange);
        self.worker.call(owner, request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_core::Failure;
    use mesh_core::model::{Cluster, EndpointSet, SnapshotBuilder};
    use mesh_core::stats::ClusterStat;
    use mesh_test::{Answers, Probe, contract, empty, fixture};
    use tower::ServiceExt;

    #[tokio::test]
    async fn keeps_the_contract_without_an_exchange() {
        contract::check(tower_layer::layer_fn(|probe: Probe| {
            let snapshot = fixture::snapshot(vec![], vec![Cluster::new("c")]);
            let make = move |_: &Arc<crate::Host>, _: &Arc<ClusterEntry>| probe.clone();
            Balance::new(snapshot.clusters()[0].clone(), make)
        }))
        .await;
    }

    #[tokio::test]
    async fn a_cluster_without_hosts_refuses() {
        let mut builder = SnapshotBuilder::new();
        builder.cluster(Cluster::new("c"));
        let (snapshot, _) = builder.build().unwrap();
        let entry = snapshot.clusters()[0].clone();
        let probe = Probe::new();
        let make = {
            let probe = probe.clone();
            move |_: &Arc<crate::Host>, _: &Arc<ClusterEntry>| probe.clone()
        };
        let balance = Balance::new(entry.clone(), make);
        let error = balance
            .clone()
            .oneshot(Request::new(empty()))
            .await
            .unwrap_err();
        assert_eq!(error.failure(), Failure::NoHealthyHost);
        let stats = entry.live().stats().block();
        assert_eq!(stats.get(ClusterStat::NoHealthy), 1);
        assert_eq!(stats.get(ClusterStat::RqTotal), 0);

        // Endpoints that come later are found.
        let endpoints = EndpointSet::of([fixture::address("10.0.0.1:1")]);
        entry.live().publish_endpoints(Arc::new(endpoints));
        balance.oneshot(Request::new(empty())).await.unwrap();
        assert_eq!(probe.calls(), 1);
    }

    #[tokio::test]
    async fn a_foreign_error_counts_against_the_host() {
        let mut cluster = Cluster::new("c");
        let mut outlier = mesh_core::model::Outlier::default();
        outlier.consecutive_5xx = 1;
        outlier.max_ejection_percent = 100;
        cluster.outlier = Some(outlier);
        let snapshot = fixture::snapshot(vec![], vec![cluster]);
        let probe = Probe::answering([Answers::FailsForeign("no route to host")]);
        let make = move |_: &Arc<crate::Host>, _: &Arc<ClusterEntry>| probe.clone();
        let balance = Balance::new(snapshot.clusters()[0].clone(), make);
        balance
            .clone()
            .oneshot(Request::new(empty()))
            .await
            .unwrap_err();
        assert!(balance.hosts().view()[0].ejected);
        assert_eq!(balance.hosts().view()[0].counts.rq_error, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn the_load_in_trailers_counts_where_the_head_tells_none() {
        use http::HeaderMap;
        use http_body::Frame;
        use http_body_util::{BodyExt, StreamBody};
        use mesh_core::model::{Balancing, ReportedWeights};
        use std::convert::Infallible;

        let head = [
            ("10.0.0.1:1", None),
            (
                "10.0.0.1:2",
                Some("TEXT rps_fractional:30,cpu_utilization:1"),
            ),
        ];
        let mut cluster = Cluster::new("c");
        cluster.balancing = Balancing::RoundRobin;
        let mut policy = ReportedWeights::default();
        policy.blackout = std::time::Duration::ZERO;
        cluster.reported_weights = Some(Arc::new(policy));
        let mut builder = SnapshotBuilder::new();
        builder.cluster(cluster);
        builder.endpoints(
            "c",
            EndpointSet::of(head.map(|(at, _)| fixture::address(at))),
        );
        let (snapshot, _) = builder.build().unwrap();
        let make = move |host: &Arc<crate::Host>, _: &Arc<ClusterEntry>| {
            let name = "endpoint-load-metrics";
            let address = host.address().to_string();
            let said = head
                .iter()
                .find(|(at, _)| *at == address)
                .and_then(|it| it.1);
            tower::service_fn(move |_: Request<()>| {
                let mut trailers = HeaderMap::new();
                let value = "TEXT rps_fractional:10,cpu_utilization:1".parse().unwrap();
                trailers.insert(name, value);
                let frame = Frame::<bytes::Bytes>::trailers(trailers);
                let body =
                    StreamBody::new(futures_util::stream::iter([Ok::<_, Infallible>(frame)]));
                let mut response = Response::new(body);
                if let Some(said) = said {
                    response.headers_mut().insert(name, said.parse().unwrap());
                }
                async { Ok::<_, Infallible>(response) }
            })
        };
        let balance = Balance::new(snapshot.clusters()[0].clone(), make);
        for _ in 0..2 {
            let response = balance.clone().oneshot(Request::new(())).await.unwrap();
            response.into_body().collect().await.unwrap();
        }
        tokio::time::advance(std::time::Duration::from_secs(2)).await;
        balance.clone().oneshot(Request::new(())).await.unwrap();
        let weights: Vec<_> = balance
            .hosts()
            .view()
            .iter()
            .map(|host| host.weight)
            .collect();
        assert_eq!(weights, [10, 30]);
    }
}
