//! A node's proxy: ours in this process, or an Envoy beside it. Both get what they do by xDS.

use super::envoy::Envoy;
use super::judge::Judge;
use super::plane::Plane;
use anyhow::{Context, bail};
use mesh_istio::{Node, Role};
use mesh_proxy::Running;
use mesh_proxy::xds::Driver;
use mesh_xds::client::Client;
use std::path::PathBuf;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// A proxy has its first configuration within this time.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// What sidecars and the gateway are.
#[derive(Clone, Debug)]
pub(crate) enum DataPlane {
    /// Our own proxies, with one worker each.
    MeshProxy,
    /// This binary of Envoy, with one worker each.
    Envoy(PathBuf),
}

/// A proxy that runs.
#[derive(Debug)]
pub(crate) enum Proxy {
    MeshProxy {
        running: Running,
        /// What follows the control plane.
        driving: JoinSet<()>,
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
        plane: &Plane,
        judge: &Judge,
    ) -> anyhow::Result<Proxy> {
        let identity = identity(node);
        match self {
            Self::MeshProxy => {
                let client = Client::builder([format!("http://{}", plane.xds)]);
                let driver = Driver::new(identity.clone(), client)?;
                let running = judge
                    .introduce(node, driver.proxy())
                    .concurrency(1)
                    .admin(node.admin())
                    .start()
                    .await?;
                let mut driving = JoinSet::new();
                driving.spawn(driver.run());
                let started = timeout(PATIENCE, running.initialized()).await;
                if let Some(reason) = plane.rejection(identity.id()) {
                    bail!("it rejects its configuration: {reason}");
                }
                started.with_context(|| format!("it has no configuration after {PATIENCE:?}"))?;
                if let Some(reason) = running.listening().load().failed.values().next() {
                    bail!(
                        "{reason}; another demo may be running (--listen and --base-port choose \
                         ports)"
                    );
                }
                Ok(Proxy::MeshProxy { running, driving })
            }
            Self::Envoy(binary) => {
                let envoy = Envoy::start(binary, node, &identity, plane.xds)?;
                envoy.ready(|| plane.rejection(identity.id())).await
            }
        }
    }
}

// === impl Proxy ===

impl Proxy {
    /// Lets requests finish, and ends.
    pub(crate) async fn drain(self) {
        match self {
            Self::MeshProxy {
                running,
                mut driving,
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
        .with_map("LABELS", &node.labels)
}
