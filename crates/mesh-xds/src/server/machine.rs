//! One stream of xDS, without its input and output.
//!
//! ```text
//!  requests ─► request(), delta_request() ─┐
//!  the sets moved ────────► refresh() ─────┼─► subscriptions, what is pending, what is unanswered
//!  the clock ─────────────► (as argument) ─┘            │
//!                                                       ▼
//!                          poll_response(), poll_event(), deadline()
//! ```
//!
//! Rules, with their source in Envoy's xDS protocol documentation:
//!
//! * Of each type at most one response is unanswered; changes meanwhile merge into the next one.
//! * A rejected version is not sent again; a later one is.
//! * State of the world: a request with a stale nonce is ignored. Delta: its changes to the
//!   subscriptions count.
//! * An aggregated stream sends clusters, then endpoints, then listeners, then routes; listeners
//!   and routes wait until the clusters that came before are answered ([`Timing::order`]).
//! * A cluster or its endpoints are removed only after the client has acknowledged the listeners
//!   and routes of the time of the removal ([`Timing::removal`]). A resource that the client has
//!   rejected counts as not acknowledged.
//! * Endpoints are sent again after a cluster was sent that uses them: Envoy warms the cluster
//!   until it hears of them, changed or not.
//! * Structured names (`xdstp://…`) have one form, whatever the order of their context parameters
//!   ([`crate::xdstp`]): clients may ask for any, and are answered in that one. Delta: a glob
//!   collection (`xdstp://…/*`) is all that is in it, now and later; one that is empty when it is
//!   asked for is said not to exist. In state of the world there are no collections.
//!
//! What a change costs depends on the change and not on how much else there is, except that
//! listeners and clusters of the state of the world always go out as a whole.

mod answer;
mod build;
mod collection;
mod gate;
mod heartbeat;
mod hosts;
mod kind;
mod queue;
mod request;
mod room;
mod scan;
mod status;

pub(super) use gate::Ledger;

use super::mark::Mark;
use super::resources::{Since, View};
use super::{Event, Limits, Response, Scope, StreamId, Timing, Variant};
use crate::{Node, TypeUrl};
use kind::{Kind, Why};
use mesh_core::{Feed, Name};
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

/// Types that may refer to clusters.
const REFERRERS: [TypeUrl; 5] = [
    TypeUrl::Listener,
    TypeUrl::Routes,
    TypeUrl::ScopedRoutes,
    TypeUrl::VirtualHost,
    TypeUrl::Extension,
];

/// How often a response is begun again because a set moved on meanwhile. After that the stream
/// waits for the news that the set has moved, which is on its way.
const ATTEMPTS: usize = 8;

/// How many times [`Timing::order`] anything waits for clusters in pieces at most: they may never
/// come to an end.
const PATIENCE: u32 = 12;

/// How many answers about unknown types and how many events may wait to be fetched.
const WAITING: usize = 64;

/// One stream of xDS, without its input and output.
///
/// The user passes requests in, calls [`Machine::refresh`] when the view or one of its sets has
/// moved and when [`Machine::deadline`] has come, and after each of these sends every response
/// that [`Machine::poll_response`] returns.
///
/// ```
/// use mesh_core::Feed;
/// use mesh_xds::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest;
/// use mesh_xds::server::{Changes, Machine, Options, ResourceSet, Scope, Variant, View};
/// use mesh_xds::{Encoded, Node, TypeUrl};
/// use std::time::Instant;
///
/// let (set, now) = (ResourceSet::new(), Instant::now());
/// set.apply(Changes::new().set(TypeUrl::Cluster, Encoded::new("a", &b""[..])));
/// let options = Options::new(Variant::Delta, Scope::Aggregated);
/// let view = Feed::fixed(View::of([set]));
/// let mut machine = Machine::new(options, &Node::new("n"), view, now);
///
/// let everything = DeltaDiscoveryRequest {
///     type_url: TypeUrl::Cluster.url().into(),
///     ..DeltaDiscoveryRequest::default()
/// };
/// machine.delta_request(everything, now)?;
/// let response = machine.poll_response(now).unwrap();
/// assert_eq!(response.resources[0].resource.name, "a");
/// assert!(machine.poll_response(now).is_none(), "nothing more until that is answered");
/// # Ok::<(), mesh_xds::server::Refused>(())
/// ```
pub struct Machine {
    options: Options,
    /// Whether the client understands a time to live.
    ttl: bool,
    view: Feed<View>,
    present: Arc<View>,
    /// How far the view has been looked at.
    mark: Mark,
    kinds: BTreeMap<TypeUrl, Kind>,
    /// Names subscribed to, over all types.
    subscriptions: usize,
    nonces: u64,
    /// Names that the request brought.
    fresh: Vec<Name>,
    /// Answers about types that are unknown here.
    strange: VecDeque<Response>,
    events: VecDeque<Event>,
    /// What the node's other streams have acknowledged, where types have streams of their own.
    ledger: Option<gate::Entry>,
}

/// How a stream is to be served.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// The protocol.
    pub variant: Variant,
    /// The types.
    pub scope: Scope,
    /// Bounds.
    pub limits: Arc<Limits>,
    /// Delays.
    pub timing: Arc<Timing>,
    /// `control_plane.identifier` of every response.
    pub control_plane: Option<Name>,
    /// The number of the stream; part of each nonce.
    pub stream: StreamId,
}

// === impl Options ===

impl Options {
    /// Default limits and timing.
    pub fn new(variant: Variant, scope: Scope) -> Self {
        Self {
            variant,
            scope,
            limits: Arc::default(),
            timing: Arc::default(),
            control_plane: None,
            stream: StreamId(0),
        }
    }
}

// === impl Machine ===

impl Machine {
    /// A stream from this client, which may see this.
    pub fn new(options: Options, node: &Node, view: Feed<View>, _now: Instant) -> Self {
        let version = view.version();
        let present = view.load();
        let ttl = understands_ttl(node, options.variant);
        Self {
            mark: Mark::of(version, &present),
            options,
            ttl,
            view,
            present,
            kinds: BTreeMap::new(),
            subscriptions: 0,
            fresh: Vec::new(),
            nonces: 0,
            strange: VecDeque::new(),
            events: VecDeque::new(),
            ledger: None,
        }
    }

    /// Lets the streams of one node wait for each other.
    pub(super) fn join(&mut self, ledger: &Arc<Ledger>) {
        if let Scope::Only(kind) = self.options.scope {
            self.ledger = Some(ledger.join(REFERRERS.contains(&kind)));
        }
    }

    /// Takes note of what has changed in the view.
    pub fn refresh(&mut self, now: Instant) {
        let version = self.view.version();
        if version != self.mark.view() {
            self.present = self.view.load();
            self.mark = Mark::of(version, &self.present);
            for kind in self.kinds.values_mut() {
                kind.note_everything(&self.mark, now);
            }
            return self.settle();
        }
        let view = self.present.clone();
        let mut at = Vec::with_capacity(view.sets().len());
        let mut news = Vec::new();
        for (index, set) in view.sets().iter().enumerate() {
            let (since, position) = set.follow(self.mark.at(index));
            at.push((set.id(), position));
            news.push(since);
        }
        if news
            .iter()
            .all(|since| matches!(since, Since::Changed(names) if names.is_empty()))
        {
            return;
        }
        self.mark = Mark::new(version, at);
        for since in news {
            match since {
                Since::Changed(changed) => {
                    for (kind, name) in changed {
                        if let Some(kind) = self.kinds.get_mut(&kind) {
                            kind.note(name, Why::Changed, &self.mark, Some(now));
                        }
                    }
                }
                Since::Everything => {
                    for kind in self.kinds.values_mut() {
                        kind.note_everything(&self.mark, now);
                    }
                }
            }
        }
        self.settle();
    }

    /// The next response to send, if one is due.
    pub fn poll_response(&mut self, now: Instant) -> Option<Response> {
        if let Some(response) = self.strange.pop_front() {
            return Some(response);
        }
        for _ in 0..ATTEMPTS {
            match self.next(now) {
                Ok(response) => return response,
                Err(Moved) => self.refresh(now),
            }
        }
        None
    }

    /// What happened since the last call.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When to call [`Machine::refresh`] and [`Machine::poll_response`] even if nothing happens.
    pub fn deadline(&self) -> Option<Instant> {
        let timing = &self.options.timing;
        let each = self.kinds.values().filter(|kind| kind.in_flight.is_none());
        each.flat_map(|kind| {
            let order = (kind.has_pending() && self.is_ordered(kind.kind))
                .then(|| self.waits_until(kind))
                .flatten();
            [
                order,
                kind.gates.deadline(timing),
                kind.heartbeats.deadline(),
            ]
        })
        .flatten()
        .min()
    }

    fn next(&mut self, now: Instant) -> Result<Option<Response>, Moved> {
        for kind in TypeUrl::ALL {
            if self.is_due(kind, now)
                && let Some(response) = self.build(kind, now)?
            {
                return Ok(Some(response));
            }
        }
        // What is removed from clusters and endpoints goes last; and what was pending may just
        // have turned out to be nothing.
        self.open_gates(now);
        for kind in [TypeUrl::Cluster, TypeUrl::Endpoints] {
            let opened = self
                .kinds
                .get(&kind)
                .is_some_and(|kind| kind.in_flight.is_none() && kind.gates.has_open());
            if opened && let Some(response) = self.build(kind, now)? {
                return Ok(Some(response));
            }
        }
        Ok(None)
    }

    fn is_due(&self, kind: TypeUrl, now: Instant) -> bool {
        let Some(state) = self
            .kinds
            .get(&kind)
            .filter(|kind| kind.in_flight.is_none())
        else {
            return false;
        };
        let beats = state.heartbeats.deadline().is_some_and(|at| at <= now);
        beats || (state.has_pending() && !(self.is_ordered(kind) && self.must_wait(state, now)))
    }

    /// Whether its responses hold everything that the client is to have.
    fn is_whole(&self, kind: TypeUrl) -> bool {
        self.options.variant == Variant::StateOfTheWorld && kind.absence_removes()
    }

    /// Whether clusters go before it.
    fn is_ordered(&self, kind: TypeUrl) -> bool {
        self.options.scope == Scope::Aggregated && REFERRERS.contains(&kind)
    }

    /// Make before break: what refers to clusters waits for the clusters, and for the endpoints
    /// that could not be sent yet.
    fn must_wait(&self, kind: &Kind, now: Instant) -> bool {
        let late = self.waits_until(kind).is_none_or(|until| now >= until);
        let clusters = self.kinds.get(&TypeUrl::Cluster);
        let endpoints = self.kinds.get(&TypeUrl::Endpoints);
        !late
            && (clusters.is_some_and(|clusters| !clusters.answered.covers(&kind.pending.mark))
                || endpoints.is_some_and(Kind::has_pending))
    }

    /// How long something waits for clusters. Clusters in many pieces take as long as they take,
    /// if the client answers each in time.
    fn waits_until(&self, kind: &Kind) -> Option<Instant> {
        let (first, order) = (kind.pending.first?, self.options.timing.order);
        let clusters = self.kinds.get(&TypeUrl::Cluster);
        let sent = clusters.and_then(|clusters| clusters.sent.as_ref());
        let since = sent.map_or(first, |sent| sent.at.max(first));
        Some((since + order).min(first + order * PATIENCE))
    }

    /// Opens the gates of removals that the client is ready for.
    fn open_gates(&mut self, now: Instant) {
        for kind in [TypeUrl::Cluster, TypeUrl::Endpoints] {
            let Some(mut gates) = self
                .kinds
                .get_mut(&kind)
                .map(|kind| std::mem::take(&mut kind.gates))
            else {
                continue;
            };
            let late = gates.open(now, &self.options.timing, |mark| self.is_acknowledged(mark));
            for (names, waited) in late {
                self.tell(Event::RemovedUnacknowledged {
                    kind,
                    names,
                    waited,
                });
            }
            if let Some(kind) = self.kinds.get_mut(&kind) {
                kind.gates = gates;
            }
        }
    }

    /// Whether the client has acknowledged everything that may refer to clusters, as of a mark.
    fn is_acknowledged(&self, mark: &Mark) -> bool {
        let own = REFERRERS.iter().filter_map(|kind| self.kinds.get(kind));
        let mut own = own.map(|kind| &kind.settled);
        own.all(|settled| settled.covers(mark))
            && self
                .ledger
                .as_ref()
                .is_none_or(|ledger| ledger.covers(mark))
    }

    /// What is idle has seen the present.
    fn settle(&mut self) {
        for kind in self.kinds.values_mut() {
            kind.settle(&self.mark);
        }
        self.publish();
    }

    /// Tells the node's other streams what is settled here.
    fn publish(&self) {
        if let (Some(ledger), Scope::Only(kind)) = (&self.ledger, self.options.scope)
            && let Some(kind) = self.kinds.get(&kind)
        {
            ledger.publish(&kind.settled);
        }
    }

    fn tell(&mut self, event: Event) {
        // Events are fetched after every call; the bound is for users who fetch none.
        if self.events.len() == WAITING {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }

    fn nonce(&mut self) -> Name {
        self.nonces += 1;
        format!("{:x}-{:x}", self.options.stream.0, self.nonces).into()
    }
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Machine")
            .field("options", &self.options)
            .field("subscriptions", &self.subscriptions)
            .field("kinds", &self.kinds.keys())
            .finish_non_exhaustive()
    }
}

/// A set has moved on since its changes were looked at.
#[derive(Debug)]
struct Moved;

/// Envoy and its documentation do not agree on what the feature of the state of the world is
/// called; gRPC announces the third name, but not that it knows what a time to live is.
fn understands_ttl(node: &Node, variant: Variant) -> bool {
    let general = node.has_feature("xds.config.supports-resource-ttl");
    match variant {
        Variant::Delta => general,
        Variant::StateOfTheWorld => {
            let wrapper = [
                "xds.config.supports-resource-in-sotw",
                "xds.config.resource-in-sotw",
            ];
            node.has_feature("xds.config.supports-resource-ttl-in-sotw")
                || (general && wrapper.iter().any(|name| node.has_feature(name)))
        }
    }
}
