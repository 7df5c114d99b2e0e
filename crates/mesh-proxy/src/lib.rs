//! The reference data plane: a gateway or sidecar that serves a mesh snapshot.
//!
//! ```no_run
//! # async fn run(feed: mesh_core::Feed<mesh_core::model::Snapshot>) -> std::io::Result<()> {
//! let proxy = mesh_proxy::Proxy::builder(feed)
//!     .concurrency(2)
//!     .admin(Some(([127, 0, 0, 1], 15000).into()))
//!     .start()
//!     .await?;
//! proxy.ready().await;
//! // … until it is time to go:
//! proxy.drain().await;
//! # Ok(())
//! # }
//! ```
//!
//! [`xds::Driver`] has a control plane drive the proxy.
//!
//! Each worker is a thread with its own runtime, sockets, stack and connection pools; the caller's
//! runtime carries the admin interface and follows the configuration. Layers of your own go into
//! [`Builder::before_route`], [`Builder::after_route`] and [`Builder::per_attempt`].

#![forbid(unsafe_code)]

mod accept;
mod admin;
pub mod bootstrap;
#[doc(hidden)]
pub mod chain;
pub mod config;
mod connection;
mod ejections;
pub mod explain;
mod guard;
mod http;
mod identity;
#[doc(hidden)]
pub mod inspect;
mod listener;
mod origin;
mod reconcile;
mod renewal;
mod runtime;
mod tcp;
mod tidy;
mod tls;
mod updates;
mod watch;
mod worker;
pub mod xds;

pub use guard::Limits;
pub use identity::{Identity, IdentityFiles};
pub use reconcile::Listening;
pub use renewal::{AuthorityOptions, Renewal};
pub use runtime::Running;

use mesh_client::Slot;
use mesh_core::model::{ListenerAddress, Overload, Snapshot, WorkloadRef};
use mesh_core::{Demand, Feed, Name};
use mesh_discovery::dns::server as dns;
use mesh_lb::Zone;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// The reference proxy; see [`Proxy::builder`].
#[derive(Debug)]
pub struct Proxy;

/// Builds a [`Proxy`].
#[derive(Debug)]
pub struct Builder {
    feed: Feed<Snapshot>,
    workload: WorkloadRef,
    concurrency: usize,
    admin: Option<(ListenerAddress, u32)>,
    seed: Option<u64>,
    drain_time: Duration,
    most_requests: u32,
    zone: Option<Arc<Zone>>,
    slots: Slots,
    gate: xds::Gate,
    control: Option<Arc<xds::Control>>,
    names: Option<Arc<dns::Statistics>>,
    demand: Option<Demand>,
    token: Option<explain::Token>,
    identity: Option<Identity>,
    limits: Limits,
    overload: Overload,
    ejection_log: Option<Name>,
    admin_token: Option<explain::Token>,
}

#[derive(Debug, Default)]
struct Slots {
    before_route: Slot,
    after_route: Slot,
    per_attempt: Slot,
}

// === impl Proxy ===

impl Proxy {
    /// A proxy that serves the snapshots in `feed`: one worker per core, no admin interface.
    pub fn builder(feed: Feed<Snapshot>) -> Builder {
        Builder {
            feed,
            workload: WorkloadRef::default(),
            concurrency: std::thread::available_parallelism().map_or(1, usize::from),
            admin: None,
            seed: None,
            drain_time: Duration::from_secs(5),
            most_requests: u32::MAX,
            zone: None,
            slots: Slots::default(),
            gate: xds::Gate::default(),
            control: None,
            names: None,
            demand: None,
            token: None,
            identity: None,
            limits: Limits::default(),
            overload: guard::usual(),
            ejection_log: None,
            admin_token: None,
        }
    }
}

// === impl Builder ===

impl Builder {
    /// The workload that the proxy stands for, as it appears in metrics.
    #[must_use]
    pub fn workload(mut self, workload: WorkloadRef) -> Self {
        self.workload = workload;
        self
    }

    /// The number of worker threads. Default: one per core. 0 means 1.
    #[must_use]
    pub fn concurrency(mut self, workers: usize) -> Self {
        self.concurrency = workers;
        self
    }

    /// The address of the admin interface. Keep it on loopback: whoever reaches it may look at all
    /// but secrets, and elsewhere the rest needs a token ([`Builder::admin_token`]).
    #[must_use]
    pub fn admin(self, address: Option<SocketAddr>) -> Self {
        self.admin_at(address.map(ListenerAddress::Socket), 0)
    }

    /// The address of the admin interface, which may be a Unix domain socket: `mode` is the file's,
    /// and 0 leaves it to the process.
    #[must_use]
    pub fn admin_at(mut self, address: Option<ListenerAddress>, mode: u32) -> Self {
        self.admin = address.map(|address| (address, mode));
        self
    }

    /// Fixes the random choices, so that a run with one worker can be repeated.
    #[must_use]
    pub fn seed(mut self, seed: Option<u64>) -> Self {
        self.seed = seed;
        self
    }

    /// How long requests may take to finish once the proxy drains. Default 5 s.
    #[must_use]
    pub fn drain_time(mut self, time: Duration) -> Self {
        self.drain_time = time;
        self
    }

    /// What the admin interface wants as `authorization: Bearer TOKEN` of whoever changes anything or
    /// looks at what is known of secrets (`/certs`, `/config_dump`). Default: none, and these are for
    /// interfaces on loopback and on Unix domain sockets only.
    #[must_use]
    pub fn admin_token(mut self, token: Option<explain::Token>) -> Self {
        self.admin_token = token;
        self
    }

    /// What callers may ask of the process. Default: [`Limits::default`].
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// What is done when something runs out. Default: of the file descriptors that the process may
    /// have, from 85 % on connections end with their next response, from 95 % on requests are
    /// answered 503, and from 98 % on no connection is accepted.
    #[must_use]
    pub fn overload(mut self, overload: Overload) -> Self {
        self.overload = overload;
        self
    }

    /// The file that ejections are logged to, a line of JSON for each as Envoy writes it
    /// (`cluster_manager.outlier_detection.event_log_path`). Written twice a second; of more
    /// than 256 in a cluster between two times the rest is left out. Default: none.
    #[must_use]
    pub fn ejection_log(mut self, path: impl Into<Name>) -> Self {
        self.ejection_log = Some(path.into());
        self
    }

    /// Requests at once on one worker above which more are shed with 503. Default: no limit.
    #[must_use]
    pub fn most_requests(mut self, requests: u32) -> Self {
        self.most_requests = requests;
        self
    }

    /// What a name server for the applications counts ([`mesh_discovery::dns::server`]), for the
    /// admin interface's page for Prometheus.
    #[must_use]
    pub fn names(mut self, statistics: Arc<dns::Statistics>) -> Self {
        self.names = Some(statistics);
        self
    }

    /// Who gets what requests and connections find missing, where their listener says that it is to
    /// be asked for. Default: nobody; what is missing fails at once. A
    /// [`Driver`](xds::Driver) asks its control plane.
    #[must_use]
    pub fn demand(mut self, demand: Demand) -> Self {
        self.demand = Some(demand);
        self
    }

    /// Where the node is, and among whom: for clusters whose localities are told apart. Default:
    /// nowhere.
    #[must_use]
    pub fn zone(mut self, zone: Option<Zone>) -> Self {
        self.zone = zone.map(Arc::new);
        self
    }

    /// Requests that bring this token in `x-mesh-explain` get the explanation of what became of them
    /// in a response header of that name; from all requests the header is taken away. Default: none,
    /// and nobody looks for such a header.
    #[must_use]
    pub fn explain_token(mut self, token: Option<explain::Token>) -> Self {
        self.token = token;
        self
    }

    /// Who the proxy is in the mesh: what it answers for Istio's `default` and `ROOTCA` with, where
    /// its configuration names them as secrets of Istio's agent (`sds-grpc`). Whoever keeps the
    /// identity runs beside the proxy. Default: nobody; these secrets are as any others. With a
    /// [`Driver`](xds::Driver) it is the driver that is told: [`Driver::identity`](xds::Driver::identity).
    #[must_use]
    pub fn identity(mut self, identity: Identity) -> Self {
        self.identity = Some(identity);
        self
    }

    /// A layer above routing: it may change headers that routing reads.
    #[must_use]
    pub fn before_route(mut self, slot: Slot) -> Self {
        self.slots.before_route = slot;
        self
    }

    /// A layer with the route known, above rewriting.
    #[must_use]
    pub fn after_route(mut self, slot: Slot) -> Self {
        self.slots.after_route = slot;
        self
    }

    /// A layer around each attempt.
    #[must_use]
    pub fn per_attempt(mut self, slot: Slot) -> Self {
        self.slots.per_attempt = slot;
        self
    }

    /// Starts the proxy.
    ///
    /// # Errors
    /// If a thread or the admin interface cannot be started. Listeners that cannot be opened are
    /// reported by [`Running::listening`] and tried again.
    pub async fn start(self) -> io::Result<Running> {
        runtime::start(self).await
    }
}
