//! The outbound stack: one function, one layer per line.
//!
//! The order is fixed, as Envoy's router and Istio's filter order fix it. What a layer does for a
//! request is data in the matched rule; a layer without policy steps aside.

use crate::Body;
use crate::authn::Authn;
use crate::guard::{Authorizers, Guard, Part};
use crate::jwks::Fetcher;
use crate::placed::{Placed, PlacedLayer};
use crate::slot::{Slot, Slotted};
use crate::upstream::Upstreams;
use mesh_core::{Demand, InForce, Name, Rng};
use mesh_lb::{Dispatch, Zone};
use mesh_resilience::{
    Budgets, Deadline, DeadlineLayer, Fault, FaultLayer, Idle, IdleLayer, Rate, RateLayer, Retry,
    RetryLayer, Timeout, TimeoutLayer, TryIdle, TryIdleLayer,
};
use mesh_route::cors::{Cors, CorsLayer};
use mesh_route::edit::{Edit, EditLayer};
use mesh_route::follow::{Keep, KeepLayer};
use mesh_route::hash::{Hash, HashLayer};
use mesh_route::mirror::{Executor, Mirror, MirrorLayer, PerRoute};
use mesh_route::on_demand::{OnDemand, OnDemandLayer};
use mesh_route::respond::{Respond, RespondLayer};
use mesh_route::route::{Route, RouteLayer};
use mesh_route::session::{Session, SessionBook, SessionLayer};
use mesh_telemetry::{Account, AccountLayer, Introduce, IntroduceLayer};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use tower_layer::Layer;

/// What the outbound stack is made of.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Parts {
    /// Configuration.
    pub in_force: InForce,
    /// Gets what requests find missing. Default: nothing is asked for.
    pub demand: Option<Demand>,
    /// The route table for requests that do not come through a listener.
    pub table: Option<Name>,
    /// Connections to endpoints; one for each worker.
    pub upstreams: Upstreams,
    /// Randomness of this worker.
    pub rng: Arc<Rng>,
    /// What retry budgets remember of the last seconds; the same for all workers of a process.
    pub budgets: Budgets,
    /// What is counted of sessions; the same for all workers of a process.
    pub sessions: SessionBook,
    /// Where the node is, for clusters whose localities are told apart. Default: nowhere.
    pub zone: Option<Arc<Zone>>,
    /// Tells upstreams inside the mesh who we are. Default: tells nobody.
    pub introduce: IntroduceLayer,
    /// A user's layer above routing.
    pub before_route: Slot,
    /// A user's layer with the route known, above rewriting.
    pub after_route: Slot,
    /// A user's layer around each attempt.
    pub per_attempt: Slot,
}

/// One attempt: a user's layer, its timeouts, an endpoint.
type Attempt = Slotted<Timeout<TryIdle<Dispatch<Upstreams>>>>;
/// All attempts.
type Attempts = Placed<Account<Idle<Deadline<Keep<Retry<Attempt, Body>, Body>>>>>;
/// Everything that needs a cluster.
type Forwarding = Edit<Respond<Hash<Mirror<Introduce<Attempts>, PerRoute, Spawn, Body>>>>;
/// The whole stack.
pub type Outbound =
    Slotted<Guard<Authn<Guard<OnDemand<Route<Rate<Fault<Cors<Slotted<Session<Forwarding>>>>>>>>>>>;

/// Runs mirrored requests on the tokio runtime that the request was made on. They end with their
/// response, their timeout, or the runtime.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spawn;

// === impl Parts ===

impl Parts {
    /// Parts without any layer of a user's.
    pub fn new(in_force: impl Into<InForce>, upstreams: Upstreams, rng: Arc<Rng>) -> Self {
        Self {
            in_force: in_force.into(),
            demand: None,
            table: None,
            upstreams,
            rng,
            budgets: Budgets::default(),
            sessions: SessionBook::default(),
            zone: None,
            introduce: IntroduceLayer::default(),
            before_route: Slot::empty(),
            after_route: Slot::empty(),
            per_attempt: Slot::empty(),
        }
    }

    /// Puts the stack together, from the inside out.
    pub fn outbound(self) -> Outbound {
        let Self {
            in_force,
            demand,
            table,
            upstreams,
            rng,
            budgets,
            sessions,
            zone,
            introduce,
            before_route,
            after_route,
            per_attempt,
        } = self;
        let feed = in_force.feed().clone();
        let rng = |salt: u64| Arc::new(Rng::with_seed(rng.word() ^ salt));
        // Whom policies have asked.
        let mut authorizers = Authorizers::new(feed.clone(), upstreams.clone()).rng(rng(6));
        if let Some(zone) = &zone {
            authorizers = authorizers.zone(zone.clone());
        }
        let authorizers = Arc::new(authorizers);
        let mut route = RouteLayer::new(in_force).rng(rng(5));
        if let Some(table) = table {
            route = route.table(table);
        }
        // Finds routes for those that do not go there yet.
        let notes = route.notes();
        // Chooses a host and sends, within the limits of the cluster.
        let shard = upstreams.shard();
        let mut stack = Dispatch::new(upstreams).rng(rng(1));
        if let Some(zone) = zone {
            stack = stack.zone(zone);
        }
        // Keys of tokens come from clusters like anything else.
        let fetcher = Fetcher::new(feed, stack.clone(), shard);
        // The limits of one attempt.
        let stack = TryIdleLayer::per_route().layer(stack);
        let stack = TimeoutLayer::per_try().layer(stack);
        // Signing, headers for each try.
        let stack = per_attempt.around(stack);
        // Outside balancing, so every attempt picks a host.
        let stack = RetryLayer::<Body>::per_route()
            .rng(rng(2))
            .budgets(budgets)
            .layer(stack);
        // Redirects are followed from the last attempt, each within a limit of its own.
        let stack = KeepLayer::<Body>::per_route(notes.clone()).layer(stack);
        // Outside retry: the route's limit covers all attempts.
        let stack = DeadlineLayer::per_route().layer(stack);
        // Streams that stall.
        let stack = IdleLayer::per_route().layer(stack);
        // What became of all attempts, of a copy's too.
        let stack = AccountLayer::per_route().layer(stack);
        // The futures and bodies of all below are large; what is above moves a pointer.
        let stack = PlacedLayer.layer(stack);
        // Below mirroring, because a copy may go outside the mesh when its request does not.
        let stack = introduce.layer(stack);
        // One copy per request, not per attempt.
        let stack = MirrorLayer::per_route()
            .executor(Spawn)
            .rng(rng(3))
            .layer(stack);
        // As in Envoy of the head as it goes out.
        let stack = HashLayer::per_route().layer(stack);
        // Redirects and fixed responses stop here.
        let stack = RespondLayer::per_route().layer(stack);
        // Rewrites and header edits, both directions.
        let stack = EditLayer::per_route().layer(stack);
        // What callers are told of their endpoint comes after edits of the answer.
        let stack = SessionLayer::per_route().book(sessions).layer(stack);
        // Custom policy with a route in hand.
        let stack = after_route.around(stack);
        // Answers preflights; marks responses.
        let stack = CorsLayer::per_route().layer(stack);
        // Outside CORS, as in Istio's filter order: an abort carries no CORS headers.
        let stack = FaultLayer::per_route().rng(rng(4)).layer(stack);
        // Before both, as in the filters that we write for Envoys. Affects direct responses too.
        let stack = RateLayer::per_route().layer(stack);
        // Everything above reads what this writes.
        let stack = route.layer(stack);
        // Waits for what routing finds missing.
        let stack = OnDemandLayer::new(route, demand).layer(stack);
        // What is denied learns nothing of routes.
        let stack = Guard::new(stack, notes.clone(), authorizers.clone(), Part::AfterTokens);
        // Policies and routes may go by what a token says.
        let stack = Authn::new(stack, notes.clone(), fetcher);
        let stack = Guard::new(stack, notes, authorizers, Part::BeforeTokens);
        // May change headers that routing reads.
        before_route.around(stack)
    }
}

// === impl Spawn ===

impl Executor for Spawn {
    fn spawn(&self, future: Pin<Box<dyn Future<Output = ()> + Send>>) {
        tokio::spawn(future);
    }
}
