//! A real Envoy as a child process, and what is read from an admin interface.

use serde_json::Value;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// Ends with the test.
pub struct Envoy {
    pub admin: SocketAddr,
    process: Child,
}

// === impl Envoy ===

impl Envoy {
    /// Starts a binary with a configuration, in a directory of its own.
    pub async fn start(binary: &str, mut config: Value, directory: &Path) -> Self {
        config["admin"] = serde_json::json!({"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}});
        let file = directory.join("envoy.json");
        std::fs::write(&file, serde_json::to_vec_pretty(&config).unwrap()).unwrap();
        let place = directory.join("admin.txt");
        let said = std::fs::File::create(directory.join("envoy.err")).unwrap();
        let process = Command::new(binary)
            .arg("--config-path")
            .arg(&file)
            .arg("--admin-address-path")
            .arg(&place)
            .args([
                "--concurrency",
                "1",
                "--disable-hot-restart",
                "--log-level",
                "error",
            ])
            .args(["--file-flush-interval-msec", "50"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(said)
            .spawn()
            .unwrap();
        // From here on it ends with this, whatever happens.
        let mut envoy = Self {
            admin: SocketAddr::from(([0, 0, 0, 0], 0)),
            process,
        };
        let ready = async {
            loop {
                if let Some(status) = envoy.process.try_wait().unwrap() {
                    let said = std::fs::read_to_string(directory.join("envoy.err")).unwrap();
                    panic!("Envoy ended with {status}:\n{said}");
                }
                if let Ok(admin) = std::fs::read_to_string(&place).unwrap_or_default().parse()
                    && admin_text(admin, "/ready").await.starts_with("LIVE")
                {
                    return admin;
                }
                sleep(Duration::from_millis(20)).await;
            }
        };
        envoy.admin = timeout(Duration::from_secs(30), ready)
            .await
            .expect("Envoy is ready in time");
        envoy
    }

    /// The listeners and where they are.
    pub async fn listeners(&self) -> BTreeMap<String, SocketAddr> {
        let text = admin_text(self.admin, "/listeners").await;
        text.lines()
            .filter_map(|line| line.split_once("::"))
            .map(|(name, at)| (name.to_owned(), at.parse().unwrap()))
            .collect()
    }
}

impl Drop for Envoy {
    fn drop(&mut self) {
        // It is gone already if this fails.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Asks an admin interface.
pub async fn admin_text(admin: SocketAddr, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n");
    let (reply, _) = super::wire::exchange(admin, request.as_bytes()).await;
    String::from_utf8_lossy(&reply.body).into_owned()
}

/// A gauge or counter.
pub async fn stat(admin: SocketAddr, name: &str) -> u64 {
    let text = admin_text(admin, "/stats").await;
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    value.and_then(|value| value.parse().ok()).unwrap_or(0)
}
