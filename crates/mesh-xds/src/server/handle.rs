//! The server as its user sees it.

use super::loads::Loads;
use super::registry::Registry;
use super::{
    Assign, Certify, ConnectionStatus, Limits, LoadReport, Observer, ResourceStatus, Routes,
    StreamId, Timing,
};
use crate::TypeUrl;
use mesh_core::Name;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tonic_health::server::HealthReporter;

/// A server of xDS: discovery of every type, aggregated and one by one, as state of the world and
/// incremental; client status (CSDS), load reports (LRS) and gRPC health. Clones are the same
/// server.
#[derive(Clone)]
pub struct Server {
    pub(super) shared: Arc<Shared>,
}

/// What the parts of a server share.
pub(super) struct Shared {
    pub(super) registry: Arc<Registry>,
    pub(super) limits: Arc<Limits>,
    pub(super) timing: Arc<Timing>,
    pub(super) identifier: Option<Name>,
    pub(super) transport: Transport,
    pub(super) loads: Loads,
    pub(super) load_interval: Duration,
    pub(super) health: HealthReporter,
    /// Who makes certificates, if anybody does.
    pub(super) certify: Option<Arc<dyn Certify>>,
}

/// How connections are kept.
#[derive(Clone, Debug)]
pub(super) struct Transport {
    pub(super) keep_alive: Option<(Duration, Duration)>,
    pub(super) age: Option<Duration>,
    pub(super) grace: Duration,
}

/// Makes a [`Server`].
pub struct ServerBuilder {
    assign: Box<dyn Assign>,
    observer: Option<Box<dyn Observer>>,
    limits: Limits,
    timing: Timing,
    identifier: Option<Name>,
    transport: Transport,
    load_interval: Duration,
    certify: Option<Arc<dyn Certify>>,
}

// === impl Server ===

impl Server {
    /// A server where this decides what each client sees.
    pub fn builder(assign: impl Assign) -> ServerBuilder {
        ServerBuilder {
            assign: Box::new(assign),
            observer: None,
            limits: Limits::default(),
            timing: Timing::default(),
            identifier: None,
            transport: Transport {
                keep_alive: Some((Duration::from_secs(30), Duration::from_secs(10))),
                age: None,
                grace: Duration::from_secs(10),
            },
            load_interval: Duration::from_secs(10),
            certify: None,
        }
    }

    /// The services, for an HTTP/2 server of the user's.
    pub fn routes(&self) -> Routes {
        Routes::new(self.shared.clone())
    }

    /// Every open stream and how far it is with each type. Costs as much as there are streams.
    pub fn connections(&self) -> Vec<ConnectionStatus> {
        let now = now();
        let streams = self.shared.registry.streams().into_iter();
        let each = streams.map(|open| ConnectionStatus {
            client: open.client.clone(),
            connected_for: now.saturating_duration_since(open.since),
            types: open.machine().status(now),
        });
        each.collect()
    }

    /// How a client stands to each resource of a type. Costs as much as there are.
    pub fn resources(&self, stream: StreamId, kind: TypeUrl) -> Vec<ResourceStatus> {
        let open = self.shared.registry.stream(stream);
        open.map(|open| open.machine().resources(kind))
            .unwrap_or_default()
    }

    /// The newest load reports of the clients that report, oldest first for each.
    pub fn load_reports(&self) -> Vec<LoadReport> {
        self.shared.loads.reports()
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("limits", &self.shared.limits)
            .field("timing", &self.shared.timing)
            .field("transport", &self.shared.transport)
            .finish_non_exhaustive()
    }
}

// === impl ServerBuilder ===

impl ServerBuilder {
    /// Who is told what happens. Default nobody.
    #[must_use]
    pub fn observer(mut self, observer: impl Observer) -> Self {
        self.observer = Some(Box::new(observer));
        self
    }

    /// Bounds on what clients may ask for.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// How responses are ordered and delayed.
    #[must_use]
    pub fn timing(mut self, timing: Timing) -> Self {
        self.timing = timing;
        self
    }

    /// What the server calls itself (`control_plane.identifier` of responses). Default nothing.
    #[must_use]
    pub fn identifier(mut self, identifier: impl Into<Name>) -> Self {
        self.identifier = Some(identifier.into());
        self
    }

    /// How often to ask a silent connection for a sign of life (HTTP/2 PING), and how long to wait
    /// for it. Default 30 s and 10 s. Zero turns it off.
    #[must_use]
    pub fn keep_alive(mut self, interval: Duration, timeout: Duration) -> Self {
        self.transport.keep_alive = (!interval.is_zero()).then_some((interval, timeout));
        self
    }

    /// How old a connection may become, give or take a tenth by chance so that not all end at
    /// once (gRFC A9). It is told to go away and has `grace` to do so; then its streams are
    /// ended. Default no limit; the grace also goes for [`Server::serve`]'s end and is 10 s by
    /// default.
    #[must_use]
    pub fn max_connection_age(mut self, age: Option<Duration>, grace: Duration) -> Self {
        self.transport.age = age;
        self.transport.grace = grace;
        self
    }

    /// How often clients are to report their load. Default 10 s.
    #[must_use]
    pub fn load_interval(mut self, every: Duration) -> Self {
        self.load_interval = every;
        self
    }

    /// Who makes certificates (`istio.v1.auth.IstioCertificateService`): connections with TLS only.
    /// Default nobody.
    #[must_use]
    pub fn certify(mut self, certify: Arc<dyn Certify>) -> Self {
        self.certify = Some(certify);
        self
    }

    /// The server. It does nothing until it is asked.
    pub fn build(self) -> Server {
        let limits = Arc::new(self.limits);
        let registry = Registry::new(limits.clone(), self.assign, self.observer);
        Server {
            shared: Arc::new(Shared {
                registry: Arc::new(registry),
                limits,
                timing: Arc::new(self.timing),
                identifier: self.identifier,
                transport: self.transport,
                loads: Loads::default(),
                load_interval: self.load_interval,
                health: HealthReporter::new(),
                certify: self.certify,
            }),
        }
    }
}

impl fmt::Debug for ServerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerBuilder")
            .field("limits", &self.limits)
            .field("timing", &self.timing)
            .field("transport", &self.transport)
            .finish_non_exhaustive()
    }
}

pub(super) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
