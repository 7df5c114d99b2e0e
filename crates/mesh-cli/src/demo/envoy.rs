//! A real Envoy beside the demo: found, started with a bootstrap of its own, and ended.

use super::admin::ask;
use super::identities::Agent;
use super::proxy::{PATIENCE, Proxy};
use anyhow::{Context, bail};
use mesh_istio::{Node, Role};
use serde_json::{Value, json};
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// The time between two looks.
const BETWEEN: Duration = Duration::from_millis(20);

/// How long requests get to finish.
const DRAIN: Duration = Duration::from_secs(5);

/// A process that ends with this.
#[derive(Debug)]
pub(crate) struct Envoy {
    process: Child,
    admin: SocketAddr,
    /// Keeps its certificate.
    _agent: Agent,
}

/// The binary: the one that was named, else `envoy` in PATH, else what `cargo xtask envoy`
/// installed in the workspace that this command was built in or is run from.
///
/// # Errors
/// If there is none; says how to get one.
pub(crate) fn find(named: Option<&Path>) -> anyhow::Result<PathBuf> {
    if let Some(path) = named {
        if !path.is_file() {
            bail!("--envoy {}: there is no such file", path.display());
        }
        return Ok(path.to_owned());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut on_path = std::env::split_paths(&path).map(|folder| folder.join("envoy"));
    if let Some(found) = on_path.find(|file| file.is_file()) {
        return Ok(found);
    }
    let starts = [std::env::current_dir(), std::env::current_exe()];
    let mut starts = starts.iter().flatten();
    starts.find_map(|start| installed(start)).context(
        "there is no Envoy: `cargo xtask envoy` installs one in target/venv; or put `envoy` into \
         PATH, or say where it is (--envoy FILE)",
    )
}

/// The binary of the Python package in `target/venv` of a folder or one above it.
fn installed(start: &Path) -> Option<PathBuf> {
    start.ancestors().find_map(|folder| {
        let pythons = fs::read_dir(folder.join("target/venv/lib")).ok()?;
        let binaries = pythons.flatten().map(|python| {
            let site = python.path().join("site-packages");
            site.join("envoy/_bin/envoy")
        });
        binaries.into_iter().find(|binary| binary.is_file())
    })
}

// === impl Envoy ===

impl Envoy {
    /// Starts the Envoy of a node.
    ///
    /// # Errors
    /// If one of its ports is taken, or it cannot be started.
    pub(super) fn start(
        binary: &Path,
        node: &Node,
        identity: &mesh_xds::Node,
        xds: SocketAddr,
        agent: Agent,
    ) -> anyhow::Result<Self> {
        let admin = node.admin().with_context(|| {
            format!(
                "WorkloadEntry {} needs the annotation mesh-rs.dev/base-port",
                node.name
            )
        })?;
        // Envoys share ports with each other without a word.
        for address in [admin].into_iter().chain(ports(node)) {
            TcpListener::bind(address).with_context(|| {
                format!(
                    "Envoy cannot listen on {address}; another demo may be running (--listen and \
                     --base-port choose ports)"
                )
            })?;
        }
        let process = Command::new(binary)
            .arg("--config-yaml")
            .arg(bootstrap(identity, admin, xds, &agent.socket()).to_string())
            .args(["--concurrency", "1", "--disable-hot-restart"])
            .args(["--log-level", "critical"])
            .stdin(Stdio::null())
            // Ctrl-C is for us, who let it finish its requests first.
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {}", binary.display()))?;
        Ok(Self {
            process,
            admin,
            _agent: agent,
        })
    }

    /// Waits until it has its first configuration.
    ///
    /// # Errors
    /// If it ends, rejects what it gets, or takes too long.
    pub(super) async fn ready(
        mut self,
        rejection: impl Fn() -> Option<String>,
    ) -> anyhow::Result<Proxy> {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.process.try_wait()? {
                bail!("Envoy ended ({status})");
            }
            if let Some(reason) = rejection() {
                bail!("Envoy rejects its configuration: {reason}");
            }
            if let Ok(answer) = ask(self.admin, "GET", "/ready").await
                && answer.status == 200
            {
                return Ok(Proxy::Envoy(self));
            }
            if Instant::now() > until {
                bail!("Envoy has no configuration after {PATIENCE:?}");
            }
            sleep(BETWEEN).await;
        }
    }

    /// Lets requests finish, and ends.
    pub(super) async fn drain(mut self) {
        let finished = async {
            ask(self.admin, "POST", "/drain_listeners").await?;
            while self.is_busy().await? {
                sleep(BETWEEN).await;
            }
            ask(self.admin, "POST", "/quitquitquit").await
        };
        // Whatever goes wrong, it is killed in the end.
        if let Ok(Ok(_)) = timeout(DRAIN, finished).await {
            let ended = async {
                while let Ok(None) = self.process.try_wait() {
                    sleep(BETWEEN).await;
                }
            };
            let _ = timeout(DRAIN, ended).await;
        }
    }

    async fn is_busy(&self) -> anyhow::Result<bool> {
        let path = "/stats?filter=downstream_rq_active$";
        let stats = ask(self.admin, "GET", path).await?.text;
        let busy = |line: &str| {
            let (name, value) = line.trim().split_once(": ")?;
            // This request is one of the admin interface's.
            let counts = name.starts_with("http.") && !name.starts_with("http.admin.");
            Some(counts && value != "0")
        };
        Ok(stats.lines().filter_map(busy).any(|busy| busy))
    }
}

impl Drop for Envoy {
    fn drop(&mut self) {
        // It is gone already if this fails.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The ports that a node is going to listen on.
fn ports(node: &Node) -> Vec<SocketAddr> {
    match &node.role {
        Role::Gateway { ports } => {
            let ports = ports.values().copied();
            ports.map(|port| (node.address, port).into()).collect()
        }
        Role::Sidecar { inbound } => {
            let inbound = inbound.iter().map(|one| (node.address, one.port).into());
            let outbound = node.base_port.and_then(|port| port.checked_add(1));
            let outbound = outbound.map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
            inbound.chain(outbound).collect()
        }
    }
}

/// Envoy's configuration: everything by delta ADS from the control plane, and its own secrets from
/// its agent.
fn bootstrap(node: &mesh_xds::Node, admin: SocketAddr, xds: SocketAddr, agent: &Path) -> Value {
    let address = |at: SocketAddr| {
        let ip = at.ip().to_string();
        json!({"socket_address": {"address": ip, "port_value": at.port()}})
    };
    let dynamic = json!({"ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s"});
    let texts = ["NAME", "NAMESPACE", "INTERCEPTION_MODE", "MESH_IDENTITY"];
    let texts = texts
        .iter()
        .filter_map(|key| Some((*key, node.text(key)?.into())));
    let labels = std::iter::once(("LABELS", json!(node.map("LABELS"))));
    let metadata: serde_json::Map<String, Value> = texts
        .chain(labels)
        .map(|(key, value)| (key.to_owned(), value))
        .collect();
    let http2 = json!({
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {}},
    });
    let cluster = |name: &str, address: Value| {
        json!({
            "name": name,
            "type": "STATIC",
            "connect_timeout": "1s",
            "typed_extension_protocol_options": {
                "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": http2,
            },
            "load_assignment": {
                "cluster_name": name,
                "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
            },
        })
    };
    let agent = json!({"pipe": {"path": agent}});
    json!({
        "node": {"id": node.id(), "cluster": node.cluster(), "metadata": metadata},
        "admin": {"address": address(admin)},
        "dynamic_resources": {
            "ads_config": {
                "api_type": "DELTA_GRPC",
                "transport_api_version": "V3",
                "set_node_on_first_message_only": true,
                "grpc_services": [{"envoy_grpc": {"cluster_name": "xds-grpc"}}],
            },
            "cds_config": dynamic,
            "lds_config": dynamic,
        },
        "static_resources": {
            "clusters": [cluster("xds-grpc", address(xds)), cluster("sds-grpc", agent)],
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_installed_binary_is_found_from_any_folder_of_the_workspace() {
        let workspace = tempfile::tempdir().unwrap();
        let deep = workspace.path().join("crates/x/src");
        fs::create_dir_all(&deep).unwrap();
        assert_eq!(installed(&deep), None);
        let bin = workspace
            .path()
            .join("target/venv/lib/python3.12/site-packages/envoy/_bin");
        fs::create_dir_all(&bin).unwrap();
        fs::write(bin.join("envoy"), "").unwrap();
        assert_eq!(installed(&deep), Some(bin.join("envoy")));
    }

    #[test]
    fn a_binary_that_is_named_has_to_be_there() {
        let error = find(Some(Path::new("no/such/envoy"))).unwrap_err();
        assert!(error.to_string().contains("no/such/envoy"), "{error}");
    }

    #[test]
    fn our_own_reader_of_bootstraps_takes_it() {
        let node = mesh_xds::Node::new("sidecar~127.0.0.1~a.b~b.svc.cluster.local")
            .with_cluster("a.b")
            .with_text("NAMESPACE", "b")
            .with_map("LABELS", [("app", "x")]);
        let (admin, xds) = (
            SocketAddr::from(([127, 0, 0, 1], 20000)),
            SocketAddr::from(([127, 0, 0, 1], 20810)),
        );
        let text = bootstrap(&node, admin, xds, Path::new("/run/agent")).to_string();
        let read = mesh_xds::bootstrap::Bootstrap::from_json(&text).unwrap();
        assert_eq!(read.admin, Some(admin.into()));
        assert_eq!(read.node.id(), node.id());
        assert_eq!(read.node.map("LABELS")["app"], "x");
        let ads = read.ads.unwrap();
        assert!(ads.delta);
        assert_eq!(ads.servers.len(), 1);
    }
}
