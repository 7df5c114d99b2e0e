//! A node's proxy: ours in this process, or an Envoy beside it. Both get what they do by xDS, but
//! ours may read it in the files as well.

use super::envoy::Envoy;
use super::identities::{Identities, Member};
use super::judge::Judge;
use super::plane::Plane;
use anyhow::{Context, anyhow, bail};
use mesh_istio::{Node, Role};
use mesh_proxy::config::Configuration;
use mesh_proxy::xds::Driver;
use mesh_proxy::{Builder, Running};
use mesh_xds::client::Client;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// A proxy has its first configuration within this time.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// Why a port is taken, mostly, and what to do.
const OTHER: &str = "another demo may be running (--listen and --base-port choose ports)";

/// What sidecars and the gateway are.
#[derive(Clone, Debug)]
pub(crate) enum DataPlane {
    /// Our own proxies, with one worker each.
    MeshProxy,
    /// The same without a control plane: each reads the YAML.
    ReadsYaml,
    /// This binary of Envoy, with one worker each.
    Envoy(PathBuf),
}

/// A proxy that runs.
#[derive(Debug)]
pub(crate) enum Proxy {
    MeshProxy {
        running: Running,
        /// What follows the control plane, or the files.
        driving: JoinSet<()>,
        /// Renews its certificate.
        _member: Member,
    },
    Envoy(Envoy),
}

// === impl DataPlane ===

impl DataPlane {
    /// Starts the proxy of a node, and waits until it has its first configuration.
    ///
    /// # Errors
    /// If it cannot start, or rejects what it gets, or a port is taken.
    pub(crate) async fn start(
        &self,
        node: &Node,
        plane: Option<&Plane>,
        judge: &Arc<Judge>,
        identities: &Identities,
    ) -> anyhow::Result<Proxy> {
        let plane = || plane.context("the control plane does not run");
        let member = identities.member(node)?;
        match self {
            Self::MeshProxy => by_xds(node, plane()?, judge, member).await,
            Self::ReadsYaml => by_yaml(node, judge, member).await,
            Self::Envoy(binary) => {
                let (identity, plane) = (identity(node), plane()?);
                let envoy = Envoy::start(binary, node, &identity, plane.xds, member.agent()?)?;
                envoy.ready(|| plane.rejection(identity.id())).await
            }
        }
    }

    /// Whether there has to be a control plane.
    pub(crate) fn is_controlled(&self) -> bool {
        !matches!(self, Self::ReadsYaml)
    }
}

async fn by_xds(
    node: &Node,
    plane: &Plane,
    judge: &Judge,
    member: Member,
) -> anyhow::Result<Proxy> {
    let identity = identity(node);
    let client = Client::builder([format!("http://{}", plane.xds)]);
    let driver = Driver::new(identity.clone(), client)?.identity(member.identity());
    let running = start(judge.introduce(node, driver.proxy()), node).await?;
    let mut driving = JoinSet::new();
    driving.spawn(driver.run());
    let started = timeout(PATIENCE, running.initialized()).await;
    if let Some(reason) = plane.rejection(identity.id()) {
        bail!("it rejects its configuration: {reason}");
    }
    started.with_context(|| format!("it has no configuration after {PATIENCE:?}"))?;
    opened(Proxy::MeshProxy {
        running,
        driving,
        _member: member,
    })
}

async fn by_yaml(node: &Node, judge: &Arc<Judge>, member: Member) -> anyhow::Result<Proxy> {
    // What there is to say about it has been said.
    let (configuration, _) = Configuration::load(judge.source(node))?;
    let builder = mesh_proxy::Proxy::builder(configuration.feed());
    let builder = builder.identity(member.identity());
    let running = start(builder.workload(configuration.workload()), node).await?;
    let judge = judge.clone();
    let mut driving = JoinSet::new();
    driving.spawn(configuration.watch(move |_| judge.look()));
    running.ready().await;
    opened(Proxy::MeshProxy {
        running,
        driving,
        _member: member,
    })
}

async fn start(proxy: Builder, node: &Node) -> anyhow::Result<Running> {
    let started = proxy.concurrency(1).admin(node.admin()).start().await;
    started.map_err(|error| anyhow!("{error}; {OTHER}"))
}

/// The proxy, if it could open all its listeners.
fn opened(proxy: Proxy) -> anyhow::Result<Proxy> {
    if let Proxy::MeshProxy { running, .. } = &proxy
        && let Some(reason) = running.listening().load().failed.values().next()
    {
        bail!("{reason}; {OTHER}");
    }
    Ok(proxy)
}

// === impl Proxy ===

impl Proxy {
    /// Lets requests finish, and ends.
    pub(crate) async fn drain(self) {
        match self {
            Self::MeshProxy {
                running,
                mut driving,
                _member,
            } => {
                driving.abort_all();
                running.drain().await;
            }
            Self::Envoy(envoy) => envoy.drain().await,
        }
    }
}

/// Who a node says it is: as Istio's agent does, with nothing that its `WorkloadEntry` says too but
/// what Envoys show.
fn identity(node: &Node) -> mesh_xds::Node {
    let kind = match node.role {
        Role::Gateway { .. } => "router",
        Role::Sidecar { .. } => "sidecar",
    };
    let Node {
        name,
        namespace,
        address,
        ..
    } = node;
    let id = format!("{kind}~{address}~{name}.{namespace}~{namespace}.svc.cluster.local");
    mesh_xds::Node::new(id)
        .with_cluster(format!("{name}.{namespace}"))
        .with_text("NAME", name)
        .with_text("NAMESPACE", namespace)
        .with_text("INTERCEPTION_MODE", "NONE")
        .with_text("MESH_IDENTITY", "true")
        .with_map("LABELS", &node.labels)
}
