//! The health discovery service (HDS): a management server says which endpoints are to be checked and
//! how, and is told at an interval how they are (Envoy `Bootstrap.hds_config`,
//! `envoy.service.health.v3`).
//!
//! This is the client's part of the protocol. Who checks is somebody else, who follows
//! [`HealthClient::snapshots`] and says what came of it: in mesh-proxy the active health checks.
//!
//! What a server asks for is refused as a whole where any of it cannot be done, and what was asked
//! before goes on. It also goes on while no server is there.

mod specifier;

use super::backoff::Backoff;
use super::driver::now;
use super::remote::{Keys, Patience, Remote, remotes, said};
use super::server::Server;
use crate::Node;
use crate::pb::envoy::service::health::v3 as pb;
use mesh_core::model::{Address, ClusterEntry, Snapshot, SnapshotBuilder};
use mesh_core::{Feed, Invalid, Publisher, Rng};
use pb::capability::Protocol;
use pb::health_check_request_or_endpoint_health_response::RequestType;
use pb::health_discovery_service_client::HealthDiscoveryServiceClient;
use specifier::Asked;
use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

/// Windows of pauses before the next attempt to reach a server (as Envoy's `HdsDelegate`).
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// The most bytes of a message of the server.
const MESSAGE: usize = 16 << 20;
/// Reports that wait for the connection to take them. A server that takes none is told the next time.
const REPORTS: usize = 4;
/// How long a server may take to accept the stream.
const OPENING: Duration = Duration::from_secs(10);

/// How an endpoint is, in the words of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reported {
    /// It is well.
    Healthy,
    /// It is not, or was not asked yet.
    Unhealthy,
    /// It does not answer in time.
    Timeout,
}

/// Takes from a management server which endpoints are to be checked, and reports how they are.
pub struct HealthClient {
    remotes: Vec<Remote>,
    keys: Keys,
    node: Node,
    plan: Publisher<Snapshot>,
    asked: Option<Asked>,
    rng: Rng,
}

/// What is on its way to and from a server.
type Stream = (
    mpsc::Sender<pb::HealthCheckRequestOrEndpointHealthResponse>,
    Streaming<pb::HealthCheckSpecifier>,
);

// === impl HealthClient ===

impl HealthClient {
    /// Asks these servers, one after the other until one is there.
    ///
    /// # Errors
    /// If one of them is none that can be reached.
    pub fn new(
        servers: impl IntoIterator<Item = Server>,
        node: Node,
        connect_timeout: Duration,
    ) -> Result<Self, Invalid> {
        let patience = Patience {
            connect: connect_timeout,
            keep_alive: None,
        };
        let (remotes, keys) = remotes(servers.into_iter().collect(), patience)?;
        let nothing = SnapshotBuilder::new().build()?.0;
        Ok(Self {
            remotes,
            keys,
            node,
            plan: Publisher::from_arc(nothing),
            asked: None,
            rng: Rng::from_system(),
        })
    }

    /// What is to be checked: clusters with their endpoints and health checks, and nothing else.
    pub fn snapshots(&self) -> Feed<Snapshot> {
        self.plan.feed()
    }

    /// Runs until `shutdown` is ready. `health` says how the endpoints of a cluster are, by address;
    /// those it says nothing of are unhealthy.
    ///
    /// # Cancel safety
    /// Dropped, it leaves what is to be checked.
    pub async fn run(
        mut self,
        health: impl Fn(&Arc<ClusterEntry>) -> HashMap<Address, Reported>,
        shutdown: impl Future<Output = ()>,
    ) {
        let mut keys = std::mem::take(&mut self.keys);
        let serve = async {
            keys.refresh().await;
            tokio::select! {
                () = keys.run() => {}
                () = self.serve(health) => {}
            }
        };
        tokio::select! {
            () = shutdown => {}
            () = serve => {}
        }
    }

    async fn serve(&mut self, health: impl Fn(&Arc<ClusterEntry>) -> HashMap<Address, Reported>) {
        let mut backoff = Backoff::new(PAUSES.0, PAUSES.1);
        for turn in 0_usize.. {
            let at = turn % self.remotes.len().max(1);
            let Some(remote) = self.remotes.get(at).cloned() else {
                return std::future::pending().await;
            };
            let began = now();
            let error = match self.open(&remote).await {
                Ok(stream) => self.session(stream, &health).await,
                Err(error) => error,
            };
            let server = &remote.uri;
            tracing::warn!(%server, %error, "no health discovery service; what is checked stays");
            if now().duration_since(began) > PAUSES.1 {
                backoff.reset();
            }
            sleep(backoff.next(self.rng.word())).await;
        }
    }

    async fn open(&self, remote: &Remote) -> Result<Stream, String> {
        let channel = remote.connect().await?;
        let (reports, queue) = mpsc::channel(REPORTS);
        let capability = pb::Capability {
            health_check_protocols: vec![Protocol::Http.into(), Protocol::Tcp.into()],
        };
        let first = RequestType::HealthCheckRequest(pb::HealthCheckRequest {
            node: Some(self.node.to_proto()),
            capability: Some(capability),
        });
        // There is room for it.
        let _ = reports.try_send(request(first));
        let mut client =
            HealthDiscoveryServiceClient::new(channel).max_decoding_message_size(MESSAGE);
        let requests = remote.request(ReceiverStream::new(queue))?;
        let opened = timeout(OPENING, client.stream_health_check(requests)).await;
        let answer = opened.map_err(|_| "the stream was not accepted in time".to_owned())?;
        let answer = answer.map_err(|status| said(&status))?;
        Ok((reports, answer.into_inner()))
    }

    /// One stream, until it fails for this reason.
    async fn session(
        &mut self,
        (reports, mut specifiers): Stream,
        health: impl Fn(&Arc<ClusterEntry>) -> HashMap<Address, Reported>,
    ) -> String {
        // Reports begin with what this server asks for.
        let mut ticks = None;
        loop {
            let tick = async {
                match &mut ticks {
                    Some(ticks) => tokio::time::Interval::tick(ticks).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                message = specifiers.message() => match message {
                    Ok(Some(specifier)) => {
                        if self.take(&specifier) || ticks.is_none() {
                            ticks = self.asked.as_ref().map(|asked| {
                                let first = Instant::now() + asked.interval;
                                let mut ticks = interval_at(first, asked.interval);
                                ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
                                ticks
                            });
                        }
                    }
                    Ok(None) => return "the server ended the stream".to_owned(),
                    Err(status) => return said(&status),
                },
                _ = tick => {
                    let Some(asked) = &self.asked else { continue };
                    let report = asked.report(&self.plan.load(), &health);
                    let report = RequestType::EndpointHealthResponse(report);
                    // One that does not fit is made up for by the next.
                    let _ = reports.try_send(request(report));
                }
            }
        }
    }

    /// Takes what is asked for. False: it is what was asked before, or cannot be done.
    fn take(&mut self, specifier: &pb::HealthCheckSpecifier) -> bool {
        if self.asked.as_ref().is_some_and(|asked| asked.is(specifier)) {
            return false;
        }
        let read = Asked::read(specifier)
            .and_then(|asked| Ok((asked.snapshot(&self.plan.load())?, asked)));
        match read {
            Ok((snapshot, asked)) => {
                self.plan.publish(snapshot);
                self.asked = Some(asked);
                true
            }
            Err(error) => {
                tracing::warn!(%error, "a specifier of health checks was refused");
                false
            }
        }
    }
}

impl fmt::Debug for HealthClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HealthClient")
            .field("servers", &self.remotes.len())
            .field("node", &self.node)
            .finish_non_exhaustive()
    }
}

fn request(kind: RequestType) -> pb::HealthCheckRequestOrEndpointHealthResponse {
    pb::HealthCheckRequestOrEndpointHealthResponse {
        request_type: Some(kind),
    }
}
