//! Drives the machine of one stream.

use super::handle::{Shared, now};
use super::machine::{Machine, Options};
use super::registry::{Open, Place};
use super::requests::Requests;
use super::{Client, Event, Refused, Response, Scope, Variant, View};
use crate::Node;
use crate::pb::envoy::config::core::v3 as core;
use crate::pb::envoy::service::discovery::v3 as discovery;
use futures_util::stream::{self, SelectAll, Stream, StreamExt};
use mesh_core::Feed;
use mesh_core::exchange::TlsInfo;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::watch;
use tokio_stream::wrappers::WatchStream;
use tonic::Status;

/// How a request of either protocol is passed on.
pub(super) trait Request: prost::Message + Default + Send + 'static {
    const VARIANT: Variant;
    fn take_node(&mut self) -> Option<core::Node>;
    fn give(self, to: &mut Machine, now: Instant) -> Result<(), Refused>;
}

/// Where a stream comes from, put into the request by whoever accepts connections.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    pub(super) address: Option<SocketAddr>,
    /// Its handshake, where there was one.
    pub(super) tls: Option<Arc<TlsInfo>>,
    /// Becomes true when streams are to end.
    pub(super) closing: watch::Receiver<bool>,
}

/// One stream and what it listens to.
struct Driver<R> {
    shared: Arc<Shared>,
    scope: Scope,
    peer: Option<Peer>,
    requests: Requests<R>,
    running: Option<Running>,
}

/// What a stream has once it is known who it is.
struct Running {
    open: Arc<Open>,
    place: Place,
    view: Feed<View>,
    /// Whether somebody may still replace the view.
    view_lives: bool,
    sets: SelectAll<WatchStream<super::Position>>,
    ledger: watch::Receiver<()>,
}

/// The responses of a stream.
pub(super) fn responses<R: Request>(
    shared: Arc<Shared>,
    scope: Scope,
    peer: Option<Peer>,
    requests: Requests<R>,
) -> impl Stream<Item = Result<Response, Status>> + Send + 'static {
    let driver = Driver {
        shared,
        scope,
        peer,
        requests,
        running: None,
    };
    stream::unfold(Some(driver), |driver| async {
        let mut driver = driver?;
        match driver.next().await {
            Ok(Some(response)) => Some((Ok(response), Some(driver))),
            Ok(None) => None,
            Err(refused) => Some((Err(status(&refused)), None)),
        }
    })
}

pub(super) fn status(refused: &Refused) -> Status {
    Status::new(tonic::Code::from_i32(refused.code()), refused.message())
}

// === impl Driver ===

impl<R: Request> Driver<R> {
    /// The next response; none once the client has left.
    async fn next(&mut self) -> Result<Option<Response>, Refused> {
        let mut closing = self.peer.as_ref().map(|peer| peer.closing.clone());
        let mut running = match self.running.take() {
            Some(running) => running,
            None => {
                let first = tokio::select! {
                    first = self.requests.next() => first?,
                    () = closed(&mut closing) => return Err(going_away()),
                };
                let Some(first) = first else {
                    return Ok(None);
                };
                self.start(first)?
            }
        };
        let result = self.drive(&mut running, &mut closing).await;
        if let Err(refused) = &result {
            running.place.refused = Some(refused.clone());
        }
        self.running = Some(running);
        result
    }

    /// The first request says who it is.
    fn start(&self, mut first: R) -> Result<Running, Refused> {
        let node = Node::from_proto(first.take_node().unwrap_or_default());
        let registry = &self.shared.registry;
        let mut place = registry.enter(&node)?;
        let view = registry.assign().assign(&node)?;
        let now = now();
        let options = Options {
            limits: self.shared.limits.clone(),
            timing: self.shared.timing.clone(),
            control_plane: self.shared.identifier.clone(),
            stream: place.id,
            ..Options::new(R::VARIANT, self.scope)
        };
        // Listen first, then look: what moves between the two is heard of.
        let sets = listen(&view);
        let ledger = place.ledger.watch();
        let machine = Machine::new(options, &node, view.clone(), now);
        let client = Client {
            stream: place.id,
            node,
            address: self.peer.as_ref().and_then(|peer| peer.address),
            variant: R::VARIANT,
            scope: self.scope,
        };
        let open = place.open(client, machine, now);
        let mut running = Running {
            open,
            place,
            view,
            view_lives: true,
            sets,
            ledger,
        };
        self.give(&mut running, first)?;
        Ok(running)
    }

    async fn drive(
        &mut self,
        running: &mut Running,
        closing: &mut Option<watch::Receiver<bool>>,
    ) -> Result<Option<Response>, Refused> {
        loop {
            let (response, deadline) = {
                let mut machine = running.open.machine();
                let response = machine.poll_response(now());
                let (events, deadline) = (events(&mut machine), machine.deadline());
                drop(machine);
                self.tell(&running.open, &events);
                (response, deadline)
            };
            if let Some(response) = response {
                let bytes = response.encoded_len();
                let most = self.shared.limits.response_bytes;
                if bytes > most {
                    return Err(Refused::exhausted(format!(
                        "a response of type {} has {bytes} bytes; at most {most} are allowed",
                        response.url.as_str()
                    )));
                }
                return Ok(Some(response));
            }
            tokio::select! {
                request = self.requests.next() => match request? {
                    Some(request) => self.give(running, request)?,
                    None => return Ok(None),
                },
                Some(_) = running.sets.next() => running.open.machine().refresh(now()),
                changed = running.view.changed(), if running.view_lives => {
                    running.view_lives = changed.is_ok();
                    running.sets = listen(&running.view);
                    running.open.machine().refresh(now());
                }
                // Another stream of the node has settled something; or time has passed: either
                // way the machine is asked again.
                Ok(()) = running.ledger.changed() => {}
                () = sleep_until(deadline) => {}
                () = closed(closing) => return Err(going_away()),
            }
        }
    }

    fn give(&self, running: &mut Running, request: R) -> Result<(), Refused> {
        let mut machine = running.open.machine();
        let result = request.give(&mut machine, now());
        let events = events(&mut machine);
        drop(machine);
        self.tell(&running.open, &events);
        if let Err(refused) = &result {
            running.place.refused = Some(refused.clone());
        }
        result
    }

    /// Tells what happened. Whoever hears it may look at the stream, so the machine must be free.
    fn tell(&self, open: &Open, events: &[Event]) {
        for event in events {
            if let Event::RemovedUnacknowledged {
                kind,
                names,
                waited,
            } = event
            {
                tracing::warn!(
                    node = open.client.node.id(),
                    kind = kind.short(),
                    count = names.len(),
                    ?waited,
                    "removed although the client has not acknowledged what no longer refers to it"
                );
            }
            self.shared.registry.tell(&open.client, event);
        }
    }
}

fn events(machine: &mut Machine) -> Vec<Event> {
    std::iter::from_fn(|| machine.poll_event()).collect()
}

/// Tells when a set of the view moves on.
fn listen(view: &Feed<View>) -> SelectAll<WatchStream<super::Position>> {
    let view = view.load();
    // Each tells of its present first: what moved before it was listened to is seen.
    view.sets()
        .iter()
        .map(|set| WatchStream::new(set.watch()))
        .collect()
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

/// Completes when streams are to end.
pub(super) async fn closed(closing: &mut Option<watch::Receiver<bool>>) {
    match closing {
        // A sender that is gone says the same.
        Some(closing) => drop(closing.wait_for(|closing| *closing).await),
        None => std::future::pending().await,
    }
}

fn going_away() -> Refused {
    Refused::unavailable("the connection is closing; connect again")
}

// === impl Request ===

impl Request for discovery::DiscoveryRequest {
    const VARIANT: Variant = Variant::StateOfTheWorld;

    fn take_node(&mut self) -> Option<core::Node> {
        self.node.take()
    }

    fn give(self, to: &mut Machine, now: Instant) -> Result<(), Refused> {
        to.request(self, now)
    }
}

impl Request for discovery::DeltaDiscoveryRequest {
    const VARIANT: Variant = Variant::Delta;

    fn take_node(&mut self) -> Option<core::Node> {
        self.node.take()
    }

    fn give(self, to: &mut Machine, now: Instant) -> Result<(), Refused> {
        to.delta_request(self, now)
    }
}
