//! Services that are asked whether something may go on, by the names of their clusters.

use crate::{Body, Upstreams};
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use mesh_core::model::{ClusterEntry, External, Snapshot};
use mesh_core::stats::ClusterStat;
use mesh_core::{Caller, Error, Exchange, Failure, Feed, Rng, Shard};
use mesh_lb::{Dispatch, Zone};
use mesh_policy::external::{AskBody, Until};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;
use tower_service::Service;

/// One worker's way to the clusters of services that are asked.
#[derive(Clone, Debug)]
pub struct Authorizers {
    feed: Feed<Snapshot>,
    dispatch: Dispatch<Upstreams>,
}

/// The way to one cluster.
#[derive(Clone, Debug)]
pub struct Authorizer {
    dispatch: Dispatch<Upstreams>,
    /// None: there is no such cluster.
    cluster: Option<Arc<ClusterEntry>>,
    shard: Shard,
}

type Answer = Response<mesh_lb::Answer<Body>>;

// === impl Authorizers ===

impl Authorizers {
    /// The way to clusters of the snapshots in `feed`, by connections of this worker's.
    pub fn new(feed: Feed<Snapshot>, upstreams: Upstreams) -> Self {
        Self {
            feed,
            dispatch: Dispatch::new(upstreams),
        }
    }

    /// Draws from `rng` instead of one that the system seeds.
    #[must_use]
    pub fn rng(mut self, rng: Arc<Rng>) -> Self {
        self.dispatch = self.dispatch.rng(rng);
        self
    }

    /// Says where the node is, for clusters whose localities are told apart.
    #[must_use]
    pub fn zone(mut self, zone: Arc<Zone>) -> Self {
        self.dispatch = self.dispatch.zone(zone);
        self
    }

    /// The way to whom to ask, as it is now, for whoever handles `request`.
    pub(crate) fn of<B>(&self, external: &External, request: &Request<B>) -> Authorizer {
        let shard = Exchange::of(request).map_or_else(Shard::default, Exchange::shard);
        self.on(external, shard)
    }

    /// The way to whom to ask, for a worker.
    pub fn on(&self, external: &External, shard: Shard) -> Authorizer {
        Authorizer {
            dispatch: self.dispatch.clone(),
            cluster: self.feed.load().cluster(&external.cluster).cloned(),
            shard,
        }
    }
}

// === impl Authorizer ===

impl Service<Request<AskBody>> for Authorizer {
    type Response = Answer;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Answer, Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<AskBody>) -> Self::Future {
        let Some(cluster) = self.cluster.clone() else {
            return Box::pin(async { Err(Failure::NoCluster.into()) });
        };
        let mut request = request.map(|body| Body::new(body.map_err(|never| match never {})));
        let mut caller = Caller::default();
        caller.shard = self.shard;
        let now = tokio::time::Instant::now().into_std();
        // Its own: what becomes of the question is not what becomes of the request.
        let exchange = Exchange::new(now, caller);
        exchange.set_cluster(cluster.clone());
        exchange.attach(&mut request);
        let until = request.extensions().get::<Until>().and_then(|it| it.0);
        let open = Open {
            cluster: Some(cluster),
            until,
            shard: self.shard,
        };
        let asking = self.dispatch.call(request);
        Box::pin(async move {
            let answered = asking.await;
            open.close();
            answered
        })
    }
}

/// A question without an answer so far. It counts for its cluster where whoever asks gives up, as
/// Envoy's router counts it.
struct Open {
    /// None once it was answered.
    cluster: Option<Arc<ClusterEntry>>,
    until: Option<Instant>,
    shard: Shard,
}

impl Open {
    /// It was answered, or could not be asked.
    fn close(mut self) {
        self.cluster = None;
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let now: Instant = tokio::time::Instant::now().into_std();
        // Otherwise the caller left.
        if self.until.is_some_and(|until| until <= now)
            && let Some(cluster) = &self.cluster
        {
            let live = cluster.live();
            live.stats().block().inc(self.shard, ClusterStat::RqTimeout);
            live.stats()
                .answered(self.shard, StatusCode::GATEWAY_TIMEOUT);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_core::model::{Cluster, Rule};
    use mesh_test::fixture;
    use std::time::Duration;

    #[test]
    fn only_a_question_whose_time_has_passed_counts() {
        let exchange = fixture::exchange(Rule::prefix_to("/", "a"), Some(Cluster::new("a")));
        let cluster = exchange.cluster().unwrap();
        let now: Instant = tokio::time::Instant::now().into_std();
        let open = |until| Open {
            cluster: Some(cluster.clone()),
            until,
            shard: Shard::default(),
        };
        let counted = || cluster.live().stats().block().get(ClusterStat::RqTimeout);
        drop(open(None));
        drop(open(Some(now + Duration::from_secs(60))));
        open(Some(now)).close();
        assert_eq!(counted(), 0);
        drop(open(Some(now)));
        assert_eq!(counted(), 1);
    }
}
