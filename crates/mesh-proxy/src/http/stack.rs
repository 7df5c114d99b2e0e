//! THE stack: one layer per line, outermost first when read from the bottom.
//!
//! The outbound part, from routing inward, is mesh-client's ([`Parts::outbound`]): an application
//! that embeds the mesh runs the same code.

use super::admit::{Admit, AdmitLayer};
use crate::explain::Explainer;
use http::Request;
use mesh_client::{Body, Outbound, Parts};
use mesh_core::Rng;
use mesh_resilience::{Arrival, ArrivalLayer, Overload, OverloadLayer, Pace, PaceLayer, Shedding};
use mesh_route::RouteLayer;
use mesh_route::follow::{Follow, FollowLayer};
use mesh_route::reply::{Reply, ReplyLayer};
use mesh_telemetry::{Finish, FinishLayer, IntroduceLayer, Telemetry};
use std::sync::Arc;
use tower_layer::Layer;
use tower_service::Service;

pub(crate) type RequestStack =
    Follow<Finish<Pace<Reply<Arrival<Admit<Overload<Outbound>>>>>, Body>, Body>;
pub(crate) type StackFuture = <RequestStack as Service<Request<Body>>>::Future;
pub(crate) type StackBody =
    <<RequestStack as Service<Request<Body>>>::Response as ResponseBody>::Body;

/// The body type of a response type.
pub(crate) trait ResponseBody {
    type Body;
}

impl<B> ResponseBody for http::Response<B> {
    type Body = B;
}

/// Builds one worker's stack.
pub(crate) fn build(
    mut parts: Parts,
    telemetry: Arc<Telemetry>,
    (most_requests, shedding): (u32, &Shedding),
    explainer: Option<Arc<Explainer>>,
) -> RequestStack {
    let rng = Arc::new(Rng::with_seed(parts.rng.word()));
    // Upstreams inside the mesh learn who calls, if we are somebody.
    parts.introduce = IntroduceLayer::per_route(&telemetry);
    let notes = RouteLayer::new(parts.in_force.clone()).notes();
    // Routing, policy, balancing, connections.
    let stack = parts.outbound();
    // Sheds before matching spends time.
    let stack = OverloadLayer::fixed(most_requests)
        .shedding(shedding.clone(), rng.clone())
        .layer(stack);
    // Nothing below sees a malformed head.
    let stack = AdmitLayer::new(rng, notes)
        .explaining(explainer)
        .layer(stack);
    // Uploads that take too long.
    let stack = ArrivalLayer::per_listener().layer(stack);
    // Every error becomes a response.
    let stack = ReplyLayer::new().layer(stack);
    // Faults may slow every answer down.
    let stack = PaceLayer::per_route().layer(stack);
    // Sees every outcome: access log, metrics, statistics. Reads who peers are, and hides it.
    let stack = FinishLayer::<Body>::new(telemetry)
        .heads_are_noted()
        .layer(stack);
    // A redirect that is followed goes through all of it again, and is told of twice.
    FollowLayer::new(Body::from).layer(stack)
}
