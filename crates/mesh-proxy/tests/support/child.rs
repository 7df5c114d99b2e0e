//! One of the two proxies, ours or a real Envoy, as a child process.

use crate::support::{Http1, get, text};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// Ends with the test.
pub struct Proxy {
    pub admin: SocketAddr,
    pub process: Child,
}

/// Counters by name.
pub type Stats = BTreeMap<String, u64>;

// === impl Proxy ===

impl Proxy {
    /// Starts a binary with a bootstrap, in a directory of its own. Both know the same flags. The
    /// admin interface gets a port that is free.
    pub async fn start(binary: &str, mut config: Value, directory: &Path) -> Self {
        config["admin"]["address"] = json!({"socket_address": {
            "address": "127.0.0.1", "port_value": 0,
        }});
        let file = directory.join("bootstrap.json");
        std::fs::write(&file, serde_json::to_vec_pretty(&config).unwrap()).unwrap();
        let place = directory.join("admin.txt");
        let said = std::fs::File::create(directory.join("stderr")).unwrap();
        let process = Command::new(binary)
            .arg("-c")
            .arg(&file)
            .arg("--admin-address-path")
            .arg(&place)
            .args(["--concurrency", "1", "--disable-hot-restart"])
            .args(["--log-level", "error"])
            .args(["--file-flush-interval-msec", "50"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(said)
            .spawn()
            .unwrap();
        // From here on it ends with this, whatever happens.
        let mut proxy = Self {
            admin: SocketAddr::from(([0, 0, 0, 0], 0)),
            process,
        };
        let ready = async {
            loop {
                if let Some(status) = proxy.process.try_wait().unwrap() {
                    let said = std::fs::read_to_string(directory.join("stderr")).unwrap();
                    panic!("{binary} ended with {status}:\n{said}");
                }
                if let Ok(admin) = std::fs::read_to_string(&place).unwrap_or_default().parse()
                    && ask(admin, "/ready").await.starts_with("LIVE")
                {
                    return admin;
                }
                sleep(Duration::from_millis(20)).await;
            }
        };
        proxy.admin = timeout(Duration::from_secs(60), ready)
            .await
            .expect("it is ready in time");
        proxy
    }

    /// The listeners and where they are.
    pub async fn listeners(&self) -> BTreeMap<String, SocketAddr> {
        let text = ask(self.admin, "/listeners").await;
        text.lines()
            .filter_map(|line| line.split_once("::"))
            .map(|(name, at)| (name.to_owned(), at.parse().unwrap()))
            .collect()
    }

    /// What is counted for TLS at a listener, once it has no connection left.
    pub async fn listener(&self, at: SocketAddr) -> Stats {
        let prefix = format!("listener.{}.", at.to_string().replace(':', "_"));
        let idle = async {
            loop {
                let stats = self.stats(&prefix).await;
                if stats.get("downstream_cx_active") == Some(&0) {
                    return stats;
                }
                sleep(Duration::from_millis(5)).await;
            }
        };
        let stats = timeout(Duration::from_secs(60), idle).await;
        stats.unwrap_or_else(|_| panic!("{prefix} has connections left"))
    }

    /// What is counted for TLS at a cluster.
    pub async fn cluster(&self, name: &str) -> Stats {
        self.stats(&format!("cluster.{name}.")).await
    }

    async fn stats(&self, prefix: &str) -> Stats {
        // All of them take their time, and this is asked again and again.
        let text = ask(self.admin, &format!("/stats?filter={prefix}")).await;
        let lines = text.lines().filter_map(|line| {
            let (name, value) = line.strip_prefix(prefix)?.split_once(": ")?;
            Some((name.to_owned(), value.parse().ok()?))
        });
        lines.collect()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // It is gone already if this fails.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What the admin interface says.
pub async fn ask(admin: SocketAddr, path: &str) -> String {
    text(Http1::connect(admin).await.send(get(path)).await).await
}

/// A gauge or counter.
pub async fn stat(admin: SocketAddr, name: &str) -> u64 {
    let text = ask(admin, "/stats").await;
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    value.and_then(|value| value.parse().ok()).unwrap_or(0)
}
