//! Tells upstreams inside the mesh who we are: the sending half of Istio's metadata exchange.
//!
//! The layer goes below routing and mirroring, where the cluster of each request and each copy is
//! known, and above retries, so that every attempt carries the headers. What is sent is in
//! [`istio::peer`](crate::istio::peer); what peers send is read and taken off by
//! [`Finish`](crate::Finish).
//!
//! Services outside the mesh are told nothing, as by Istio's proxies with
//! `skip_external_clusters` (ProxyConfig's `metadataExchangeHeaders: IN_MESH`): on the way to them
//! even headers that the caller had set are taken off. An application behind an inbound listener is
//! not an upstream in this sense. Responses are not looked at.
//!
//! ```
//! use http::Request;
//! use mesh_core::model::WorkloadRef;
//! use mesh_telemetry::istio::peer;
//! use mesh_telemetry::{IntroduceLayer, Telemetry};
//! use std::convert::Infallible;
//! use tower::ServiceExt;
//! use tower_layer::Layer;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let mut node = WorkloadRef::default();
//! node.name = "productpage-v1".into();
//! let upstream = tower::service_fn(|request: Request<()>| async move {
//!     Ok::<_, Infallible>(request.headers().get(peer::METADATA).cloned())
//! });
//! let service = IntroduceLayer::fixed(&Telemetry::new(node.clone())).layer(upstream);
//! let told = service.oneshot(Request::new(())).await.unwrap().unwrap();
//! assert_eq!(peer::decode(told.as_bytes()), Some(node));
//! # }
//! ```

use crate::Telemetry;
use crate::istio::peer::{Introduction, take};
use http::Request;
use mesh_core::Exchange;
use mesh_core::model::{Cluster, Direction, DiscoveryKind};
use std::sync::Arc;
use std::task::{Context, Poll};
use tower_layer::Layer;
use tower_service::Service;

/// Builds [`Introduce`] services. The default does nothing.
#[derive(Clone, Debug, Default)]
pub struct IntroduceLayer {
    policy: Option<Arc<Policy>>,
}

/// A service that tells upstreams inside the mesh who we are. Its response future is the inner
/// service's.
#[derive(Clone, Debug)]
pub struct Introduce<S> {
    inner: S,
    policy: Option<Arc<Policy>>,
}

#[derive(Debug)]
struct Policy {
    introduction: Introduction,
    /// Of requests without a listener.
    direction: Direction,
    /// For requests of which no cluster is known.
    otherwise: Verdict,
}

/// What becomes of the headers of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// They stay as they are.
    Leave,
    /// They say who we are.
    Tell,
    /// There are none.
    Hide,
}

/// Istio's cluster for requests to hosts that it does not know.
const PASSTHROUGH: &str = "PassthroughCluster";

/// Facts about a cluster that forbid the headers if they are `true`: that it is outside the mesh,
/// as Istio's metadata says it and as the model does; and that its endpoints want none.
const FORBIDDING: [&str; 3] = ["external", "istio/external", "istio/disable_mx"];

// === impl IntroduceLayer ===

impl IntroduceLayer {
    /// Tells the upstreams of routed requests, if their cluster is inside the mesh. Does nothing
    /// if `telemetry` is nobody's ([`Introduction::of`]).
    pub fn per_route(telemetry: &Telemetry) -> Self {
        Self::new(telemetry, Verdict::Leave)
    }

    /// The same, and tells those of requests that were not routed, wherever they go.
    pub fn fixed(telemetry: &Telemetry) -> Self {
        Self::new(telemetry, Verdict::Tell)
    }

    fn new(telemetry: &Telemetry, otherwise: Verdict) -> Self {
        let policy = |introduction| {
            Arc::new(Policy {
                introduction,
                direction: telemetry.side(),
                otherwise,
            })
        };
        Self {
            policy: telemetry.introduction().map(policy),
        }
    }
}

impl<S> Layer<S> for IntroduceLayer {
    type Service = Introduce<S>;

    fn layer(&self, inner: S) -> Introduce<S> {
        Introduce {
            inner,
            policy: self.policy.clone(),
        }
    }
}

// === impl Introduce ===

impl<S, B> Service<Request<B>> for Introduce<S>
where
    S: Service<Request<B>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    #[inline]
    fn call(&mut self, mut request: Request<B>) -> S::Future {
        if let Some(policy) = &self.policy {
            match policy.verdict(Exchange::of(&request)) {
                Verdict::Leave => {}
                Verdict::Tell => policy.introduction.write(request.headers_mut()),
                Verdict::Hide => drop(take(request.headers_mut())),
            }
        }
        self.inner.call(request)
    }
}

// === impl Policy ===

impl Policy {
    fn verdict(&self, exchange: Option<&Exchange>) -> Verdict {
        let Some(exchange) = exchange else {
            return self.otherwise;
        };
        let manager = exchange.caller().manager.as_ref();
        if manager.map_or(self.direction, |manager| manager.direction) == Direction::Inbound {
            return Verdict::Leave;
        }
        match exchange.cluster() {
            None => self.otherwise,
            Some(cluster) if is_outside(cluster.config()) => Verdict::Hide,
            Some(_) => Verdict::Tell,
        }
    }
}

/// Whether the endpoints of a cluster are not to hear of us, nor we to believe what they say of
/// themselves: they are outside the mesh, or want no such headers.
pub(crate) fn is_outside(cluster: &Cluster) -> bool {
    if cluster.discovery == DiscoveryKind::Authority || cluster.name == PASSTHROUGH {
        return true;
    }
    let is_true = |fact: &&str| cluster.metadata.get(*fact).is_some_and(|it| *it == "true");
    FORBIDDING.iter().any(is_true)
}

#[cfg(test)]
mod tests;
