//! A proxy that a control plane drives, or files in Envoy's own format.
//!
//! ```no_run
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! use mesh_proxy::xds::Driver;
//! use mesh_xds::Node;
//! use mesh_xds::client::Client;
//!
//! let node = Node::new("sidecar~10.0.0.1~reviews-v1.shop~shop.svc.cluster.local");
//! let driver = Driver::new(node, Client::builder(["http://127.0.0.1:15010"]))?;
//! let proxy = driver.proxy().concurrency(2).start().await?;
//! // The configuration is followed for as long as this future is polled; without it the proxy
//! // goes on with what it has.
//! driver.run().await;
//! # proxy.drain().await;
//! # Ok(())
//! # }
//! ```
//!
//! A response is acknowledged after the sockets of its listeners are open and its routes and
//! clusters are what the workers see. A listener whose address cannot be bound is refused with the
//! reason, alone, and its last good version stays. As in Envoy it is not tried again when the
//! address becomes free, but when it comes again: with the next version of any listener in state of
//! the world, with its own next version in delta, or on a new stream; in a file, when something
//! happens to the file, and once a minute. A static listener that cannot be opened is reported by
//! the admin interface and tried again; `mesh-proxy -c` ends instead.
//!
//! Secrets that resources want from a service of their own (istiod's `sds-grpc`, SPIRE): those whose
//! names say in which files they lie are read from there, as Istio's agent does it; for others the
//! service is asked if it is a cluster of the bootstrap with an address; and of what
//! is left the log says that nobody provides it.

mod agent;
mod control;
mod files;
mod gate;
mod health;
mod servers;

pub(crate) use control::{Control, Known};
pub(crate) use gate::Gate;

use crate::{Builder, Identity, Proxy};
use agent::Agent;
use files::{Files, Watched};
use mesh_core::discovery::NameTable;
use mesh_core::model::{Cluster, Locality, Overload, Snapshot};
use mesh_core::{Feed, Invalid, Name};
use mesh_istio::names::LOCAL;
use mesh_lb::Zone;
use mesh_xds::bootstrap::{Bootstrap, From, Subscription};
use mesh_xds::client::{self, Client, HealthClient, Status, Variant, Wanted};
use mesh_xds::read::{self, ClusterResource};
use mesh_xds::{Node, TypeUrl, write};
use std::sync::Arc;
use std::time::Duration;

/// The longest that routes are held back for the first answer about clusters.
const LONGEST_HOLD: Duration = Duration::from_secs(15);

/// Follows a control plane, or files, and drives a proxy.
#[derive(Debug)]
pub struct Driver {
    client: Client,
    gate: Gate,
    control: Arc<Control>,
    files: Files,
    agent: Agent,
    /// Who asks for health checks.
    health: Option<HealthClient>,
    /// Where the node says that it is.
    zone: Option<Zone>,
    /// What the bootstrap says is to be done when something runs out.
    overload: Option<Overload>,
    ejection_log: Option<Name>,
}

// === impl Driver ===

impl Driver {
    /// A driver that is this node to a control plane. A node that discovers itself (metadata
    /// `ENABLE_SELF_DISCOVERY`, as Istio has it) has the cluster `local_cluster` from the start, and
    /// asks for its endpoints: those that are like it, by which its own zone can be preferred. It makes use of [`client::Builder::prepare`]
    /// and [`client::Builder::admit`].
    ///
    /// # Errors
    /// If the client cannot be built: see [`client::Builder::build`].
    pub fn new(node: Node, client: client::Builder) -> Result<Self, Invalid> {
        let mut bootstrap = Bootstrap::default();
        bootstrap.node = node.clone();
        let mut client = client.node(node);
        if bootstrap
            .node
            .text("ENABLE_SELF_DISCOVERY")
            .is_some_and(is_true)
        {
            bootstrap.clusters = vec![local_cluster()?];
            bootstrap.local_cluster = Some(LOCAL.into());
            client = client.fixed(bootstrap.resources());
        }
        let described = client.bootstrap();
        Self::with(client, &bootstrap, |control| {
            control.described(&described);
        })
    }

    /// A driver that does what Envoy's bootstrap says; `change` has the last word.
    ///
    /// # Errors
    /// If a resource in it was refused or does not fit to the others, or a file that it names is
    /// not there.
    pub fn from_bootstrap(
        bootstrap: &Bootstrap,
        change: impl FnOnce(client::Builder) -> client::Builder,
    ) -> Result<Self, Invalid> {
        let client = client_of(bootstrap)?;
        Self::with(change(client), bootstrap, |control| {
            control.bootstrapped(bootstrap);
        })
    }

    /// Whether a driver could do what a bootstrap says, without opening any socket.
    ///
    /// # Errors
    /// As [`Driver::from_bootstrap`].
    pub fn check(bootstrap: &Bootstrap) -> Result<(), Invalid> {
        health::of(bootstrap)?;
        client_of(bootstrap)?.build().map(drop)
    }

    fn with(
        client: client::Builder,
        bootstrap: &Bootstrap,
        describe: impl FnOnce(&mut Control),
    ) -> Result<Self, Invalid> {
        let gate = Gate::default();
        let (admitting, holding) = (gate.clone(), gate.clone());
        let client = client
            .keep_bodies(true)
            .admit(move |listener| admitting.admit(listener))
            .prepare(move |snapshot| {
                mesh_route::prepare(snapshot);
                holding.prepare(snapshot);
            })
            .build()?;
        let mut control = Control::new(client.status(), client.handle());
        describe(&mut control);
        let control = Arc::new(control);
        let watched = [
            (TypeUrl::Cluster, &bootstrap.cds),
            (TypeUrl::Listener, &bootstrap.lds),
        ];
        let watched = watched
            .into_iter()
            .filter_map(|(kind, from)| match &from.as_ref()?.from {
                From::Path(path) => Some(Watched {
                    kind,
                    path: path.path.clone(),
                    directory: path.watched_directory.clone(),
                }),
                _ => None,
            });
        Ok(Self {
            files: Files::new(
                watched.collect(),
                client.files(),
                client.handle(),
                control.clone(),
            ),
            agent: Agent::new(&client, &bootstrap.clusters, &bootstrap.node),
            health: health::of(bootstrap)?,
            client,
            gate,
            control,
            zone: zone(bootstrap),
            overload: bootstrap.overload.clone(),
            ejection_log: bootstrap.ejection_log.clone(),
        })
    }

    /// Who the proxy is in the mesh: what answers for Istio's `default` and `ROOTCA` instead of the
    /// agent's cluster (`sds-grpc`). Whoever keeps the identity runs beside the driver. Default:
    /// nobody.
    #[must_use]
    pub fn identity(mut self, identity: Identity) -> Self {
        self.agent.identify(identity);
        self
    }

    /// A proxy that serves what the driver has, where the node says that it is.
    pub fn proxy(&self) -> Builder {
        let mut builder = Proxy::builder(self.snapshots()).zone(self.zone.clone());
        if let Some(overload) = &self.overload {
            builder = builder.overload(overload.clone());
        }
        if let Some(path) = &self.ejection_log {
            builder = builder.ejection_log(path.clone());
        }
        builder.gate = self.gate.clone();
        builder.control = Some(self.control.clone());
        builder.demand = Some(self.client.handle().demand());
        builder
    }

    /// Snapshots, now and from now on.
    pub fn snapshots(&self) -> Feed<Snapshot> {
        self.client.snapshots()
    }

    /// The names that the node may resolve in the mesh, once they came: they are asked for where
    /// the client's builder was told so ([`client::Builder::names`]).
    pub fn names(&self) -> Feed<Option<NameTable>> {
        self.client.names()
    }

    /// How it stands with the control plane.
    pub fn status(&self) -> Feed<Status> {
        self.client.status()
    }

    /// Follows the configuration until the future is dropped.
    ///
    /// # Cancel safety
    /// Dropped, it leaves the proxy with the last configuration.
    pub async fn run(self) {
        let Self {
            client,
            files,
            agent,
            health,
            ..
        } = self;
        let following = client.run(std::future::pending());
        tokio::join!(following, files.run(), agent.run(), health::run(health));
    }
}

/// The cluster of those that are like the node, as it stands in the bootstraps that Istio writes.
fn local_cluster() -> Result<ClusterResource, Invalid> {
    read::cluster(&write::cluster(&Cluster::new(LOCAL), None))
}

/// Whether a text of Istio's agent says yes (Go's `strconv.ParseBool`).
fn is_true(text: &str) -> bool {
    matches!(text, "1" | "t" | "T" | "true" | "True" | "TRUE")
}

/// Where the node is, if it says so, and among whom.
fn zone(bootstrap: &Bootstrap) -> Option<Zone> {
    let (region, zone, sub_zone) = bootstrap.node.locality()?;
    Some(Zone {
        locality: Locality {
            region: region.into(),
            zone: zone.into(),
            sub_zone: sub_zone.into(),
        },
        cluster: bootstrap.local_cluster.clone(),
    })
}

/// The client that a bootstrap asks for.
fn client_of(bootstrap: &Bootstrap) -> Result<client::Builder, Invalid> {
    let sources = [
        ("dynamic_resources.cds_config", &bootstrap.cds),
        ("dynamic_resources.lds_config", &bootstrap.lds),
    ];
    for (field, source) in sources {
        if let Some(Subscription {
            from: From::Path(file),
            ..
        }) = source
            && !file.path.exists()
        {
            // As Envoy has it: it cannot watch what is not there.
            let message = format!("{} does not exist", file.path.display());
            return Err(Invalid::new(field, message));
        }
    }
    let ads = bootstrap.ads.as_ref();
    let servers = ads.map(servers::of_ads).unwrap_or_default();
    let variant = match ads {
        Some(ads) if !ads.delta => Variant::Sotw,
        _ => Variant::Delta,
    };
    let wanted = |from: &Option<Subscription>| match from {
        Some(Subscription {
            from: From::Ads, ..
        }) => Wanted::All,
        _ => Wanted::Nothing,
    };
    let wait = bootstrap.cds.as_ref().map(|cds| cds.initial_fetch_timeout);
    let mut builder = Client::builder(servers);
    if let Some(ads) = ads {
        builder = builder.connect_timeout(ads.connect_timeout);
    }
    Ok(builder
        .node(bootstrap.node.clone())
        .variant(variant)
        .listeners(wanted(&bootstrap.lds))
        .clusters(wanted(&bootstrap.cds))
        // Waiting for clusters for ever would hold back the routes of static listeners.
        .initial_fetch_timeout(wait.map(|wait| wait.unwrap_or(LONGEST_HOLD)))
        .fixed(bootstrap.resources()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_xds::bootstrap::Format;

    fn bootstrap(text: &str) -> Bootstrap {
        Bootstrap::from_texts([(Format::Yaml, text)]).unwrap()
    }

    #[test]
    fn a_proxy_is_where_its_node_says_and_among_whom_the_bootstrap_says() {
        let yaml = "
node: {id: one, cluster: c, locality: {region: r, zone: z, sub_zone: s}}
cluster_manager: {local_cluster_name: us}
static_resources:
  clusters:
  - name: us
    type: STATIC
    load_assignment: {cluster_name: us}
";
        let driver = Driver::from_bootstrap(&bootstrap(yaml), |client| client).unwrap();
        let zone = driver.proxy().zone.unwrap();
        let at = &zone.locality;
        assert_eq!((&*at.region, &*at.zone, &*at.sub_zone), ("r", "z", "s"));
        assert_eq!(zone.cluster.as_deref(), Some("us"));

        let nowhere = bootstrap("node: {id: one, cluster: c}");
        let driver = Driver::from_bootstrap(&nowhere, |client| client).unwrap();
        assert!(driver.proxy().zone.is_none());
    }

    #[test]
    fn a_node_of_a_control_plane_is_where_it_says() {
        let node = bootstrap("node: {id: one, locality: {zone: z}}").node;
        let client = Client::builder(["http://127.0.0.1:1"]);
        let driver = Driver::new(node, client).unwrap();
        assert_eq!(&*driver.proxy().zone.unwrap().locality.zone, "z");
    }

    #[test]
    fn a_node_that_discovers_itself_has_a_cluster_for_those_that_are_like_it() {
        let node = bootstrap("node: {id: one, locality: {zone: z}}").node;
        let own = |node: Node| {
            let client = Client::builder(["http://127.0.0.1:1"]);
            let driver = Driver::new(node, client).unwrap();
            driver.proxy().zone.unwrap().cluster.clone()
        };
        let says = |text: &str| node.clone().with_text("ENABLE_SELF_DISCOVERY", text);
        assert_eq!(own(says("true")), Some(LOCAL.into()));
        assert_eq!(own(says("false")), None);
        assert_eq!(own(node), None);
    }
}
