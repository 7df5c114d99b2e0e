//! The mesh client.

use crate::stack::Parts;
use crate::upstream::Upstreams;
use crate::{Body, Outbound, Slot};
use bytes::Bytes;
use http::{Request, Response};
use http_body::Body as HttpBody;
use mesh_core::model::{Snapshot, WorkloadRef};
use mesh_core::{BoxError, Feed, InForce, Name, Rng, Shard};
use mesh_lb::Zone;
use mesh_resilience::{Pace, PaceLayer};
use mesh_route::follow::{Follow, FollowLayer, ResponseFuture as FollowFuture};
use mesh_route::reply::{Reply, ReplyLayer};
use mesh_telemetry::{Finish, FinishLayer, IntroduceLayer, Telemetry};
use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;
use tower_layer::Layer;
use tower_service::Service;

type Stack = Follow<Finished, Body>;
type Finished = Finish<Pace<Reply<Outbound>>, Body>;

/// The mesh as a service: sends a request where the configuration says.
///
/// Endpoints are spoken to in TLS where their cluster says so; see the [crate](crate) for how
/// secrets are given.
///
/// Always answers: what goes wrong becomes the response that Envoy would give (503 with its body
/// and headers, 504, gRPC status, …). Cheap to clone; clones share connections.
#[derive(Clone)]
pub struct MeshClient {
    stack: Stack,
    upstreams: Upstreams,
    in_force: InForce,
    telemetry: Arc<Telemetry>,
}

/// Builds a [`MeshClient`].
#[derive(Debug)]
pub struct Builder {
    parts: Parts,
    telemetry: Option<Arc<Telemetry>>,
}

/// The response future of [`MeshClient`].
#[pin_project::pin_project]
pub struct ResponseFuture(#[pin] FollowFuture<Finished, Body>);

// === impl MeshClient ===

impl MeshClient {
    /// A client for the route table `table` of the snapshots in `feed`.
    pub fn builder(feed: Feed<Snapshot>, table: impl Into<Name>) -> Builder {
        let upstreams = Upstreams::new(Shard::default());
        let mut parts = Parts::new(feed, upstreams, Arc::new(Rng::from_system()));
        parts.table = Some(table.into());
        Builder {
            parts,
            telemetry: None,
        }
    }

    /// Statistics and metrics of this client.
    pub fn telemetry(&self) -> &Arc<Telemetry> {
        &self.telemetry
    }

    /// Closes connections that were unused for longer than their cluster allows, and lets go of a
    /// configuration that is no longer in force. Call it now and then; requests never wait for it.
    pub fn sweep(&self, now: Instant) {
        self.upstreams.sweep(now);
        self.in_force.let_go();
    }
}

impl<B> Service<Request<B>> for MeshClient
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = ResponseFuture;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.stack.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> ResponseFuture {
        ResponseFuture(self.stack.call(request.map(Body::new)))
    }
}

impl fmt::Debug for MeshClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MeshClient").finish_non_exhaustive()
    }
}

// === impl Builder ===

impl Builder {
    /// Statistics and access logs shared with others.
    #[must_use]
    pub fn telemetry(mut self, telemetry: Arc<Telemetry>) -> Self {
        self.telemetry = Some(telemetry);
        self
    }

    /// Fixes the random choices, so that a run can be repeated.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.parts.rng = Arc::new(Rng::with_seed(seed));
        self
    }

    /// The row of statistics that this client counts in: one for each worker thread.
    #[must_use]
    pub fn shard(mut self, shard: Shard) -> Self {
        self.parts.upstreams = Upstreams::new(shard);
        self
    }

    /// Where the application is, and which of the snapshots' clusters has those that are like it:
    /// with both, clusters that ask for it prefer the own zone
    /// ([`LocalityBalancing::ZoneAware`](mesh_core::model::LocalityBalancing::ZoneAware)). Default:
    /// nowhere, and no zone is preferred.
    #[must_use]
    pub fn zone(mut self, zone: Option<Zone>) -> Self {
        self.parts.zone = zone.map(Arc::new);
        self
    }

    /// A layer above routing.
    #[must_use]
    pub fn before_route(mut self, slot: Slot) -> Self {
        self.parts.before_route = slot;
        self
    }

    /// A layer with the route known.
    #[must_use]
    pub fn after_route(mut self, slot: Slot) -> Self {
        self.parts.after_route = slot;
        self
    }

    /// A layer around each attempt.
    #[must_use]
    pub fn per_attempt(mut self, slot: Slot) -> Self {
        self.parts.per_attempt = slot;
        self
    }

    /// Puts the client together.
    pub fn build(mut self) -> MeshClient {
        let telemetry = self
            .telemetry
            .unwrap_or_else(|| Arc::new(Telemetry::new(WorkloadRef::default())));
        let upstreams = self.parts.upstreams.clone();
        let in_force = self.parts.in_force.clone();
        self.parts.introduce = IntroduceLayer::per_route(&telemetry);
        let stack = ReplyLayer::new().layer(self.parts.outbound());
        let stack = PaceLayer::per_route().layer(stack);
        let stack = FinishLayer::<Body>::new(telemetry.clone()).layer(stack);
        let stack = FollowLayer::new(Body::from).layer(stack);
        MeshClient {
            stack,
            upstreams,
            in_force,
            telemetry,
        }
    }
}

// === impl ResponseFuture ===

impl Future for ResponseFuture {
    type Output = Result<Response<Body>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Ok(response) = ready!(self.project().0.poll(cx));
        Poll::Ready(Ok(response.map(Body::new)))
    }
}

impl fmt::Debug for ResponseFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ResponseFuture")
    }
}
