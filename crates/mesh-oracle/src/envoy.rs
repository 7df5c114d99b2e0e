//! A real Envoy as a child process, and what is read from an admin interface.

use anyhow::{Context, bail};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// Ends with its owner.
#[derive(Debug)]
pub(crate) struct Envoy {
    pub(crate) admin: SocketAddr,
    process: Child,
}

// === impl Envoy ===

impl Envoy {
    /// Starts a binary that asks a control plane for everything, in a directory of its own.
    pub(crate) async fn start(
        binary: &str,
        node: Value,
        plane: SocketAddr,
        directory: &Path,
    ) -> anyhow::Result<Self> {
        std::fs::create_dir_all(directory)?;
        let config = bootstrap(&node, plane);
        let file = directory.join("envoy.json");
        std::fs::write(&file, format!("{config:#}"))?;
        let place = directory.join("admin.txt");
        let errors = directory.join("envoy.err");
        let process = Command::new(binary)
            .arg("--config-path")
            .arg(&file)
            .arg("--admin-address-path")
            .arg(&place)
            .args(["--concurrency", "1", "--disable-hot-restart"])
            .args(["--log-level", "error", "--drain-time-s", "1"])
            .args(["--file-flush-interval-msec", "50"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&errors)?)
            .spawn()
            .with_context(|| format!("cannot start {binary}"))?;
        // From here on it ends with this, whatever happens.
        let mut envoy = Self {
            admin: SocketAddr::from(([0, 0, 0, 0], 0)),
            process,
        };
        let ready = async {
            loop {
                if let Some(status) = envoy.process.try_wait()? {
                    let said = std::fs::read_to_string(&errors)?;
                    bail!("Envoy ended with {status}:\n{said}");
                }
                if let Ok(admin) = std::fs::read_to_string(&place).unwrap_or_default().parse()
                    && admin_text(admin, "/ready").await.starts_with("LIVE")
                {
                    return Ok(admin);
                }
                sleep(Duration::from_millis(20)).await;
            }
        };
        envoy.admin = timeout(Duration::from_secs(30), ready)
            .await
            .context("Envoy was not ready within 30 s")??;
        Ok(envoy)
    }
}

impl Drop for Envoy {
    fn drop(&mut self) {
        // It is gone already if this fails.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Who is asked for secrets of the mesh, as Istio calls it.
const AGENT: &str = "sds-grpc";
/// The cluster of nodes like the subjects.
pub(crate) const PEERS: &str = "peers";
/// Where the subjects are.
pub(crate) const ZONE: [&str; 3] = ["r", "own", ""];

/// One of four nodes is in the zone of the subjects. Nobody calls them.
pub(crate) fn peers() -> Value {
    let group = |zone: &str, last: &[u8]| {
        let nodes: Vec<Value> = last
            .iter()
            .map(|last| {
                json!({"endpoint": {"address": {"socket_address": {
                    "address": format!("127.0.1.{last}"), "port_value": 1,
                }}}})
            })
            .collect();
        json!({"locality": {"region": ZONE[0], "zone": zone}, "lb_endpoints": nodes})
    };
    json!({
        "name": PEERS,
        "type": "STATIC",
        "load_assignment": {
            "cluster_name": PEERS,
            "endpoints": [group(ZONE[1], &[1]), group("b", &[2, 3]), group("c", &[4])],
        },
    })
}

fn bootstrap(node: &Value, plane: SocketAddr) -> Value {
    let ads = json!({"ads": {}, "resource_api_version": "V3"});
    json!({
        "node": node,
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}},
        "cluster_manager": {"local_cluster_name": PEERS},
        "dynamic_resources": {
            "ads_config": {
                "api_type": "DELTA_GRPC",
                "transport_api_version": "V3",
                "grpc_services": [{"envoy_grpc": {"cluster_name": "plane"}}],
            },
            "cds_config": ads,
            "lds_config": ads,
        },
        "static_resources": {"clusters": [asked("plane", plane), asked(AGENT, plane), peers()]},
    })
}

/// A cluster of who gives configuration.
fn asked(name: &str, at: SocketAddr) -> Value {
    json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "5s",
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": {}},
            },
        },
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [
            {"endpoint": {"address": {"socket_address": {
                "address": at.ip().to_string(), "port_value": at.port(),
            }}}},
        ]}]},
    })
}

/// Asks an admin interface.
pub(crate) async fn admin_text(admin: SocketAddr, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n");
    let (reply, _) = crate::wire::exchange(admin, request.as_bytes()).await;
    String::from_utf8_lossy(&reply.body).into_owned()
}

/// Counters and gauges by name.
pub(crate) async fn statistics(admin: SocketAddr) -> BTreeMap<String, u64> {
    let text = admin_text(admin, "/stats?usedonly").await;
    let lines = text.lines().filter_map(|line| line.split_once(": "));
    lines
        .filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?)))
        .collect()
}
