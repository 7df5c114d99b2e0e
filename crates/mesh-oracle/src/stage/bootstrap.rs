//! Envoy's own configuration as a file, with which mesh-proxy is started as `envoy` would be.

use super::{Peer, Placed, Refused, raw};
use crate::callers::Certificates;
use crate::config::Backends;
use crate::envoy::{self, PEERS, ZONE};
use crate::process::Subject;
use serde_json::json;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

/// One batch in so many is also given to a process that is started for it.
const ONE_IN: usize = 3;

/// The longest that its listeners are waited for.
const PATIENCE: Duration = Duration::from_secs(30);

/// Starts mesh-proxy with files.
#[derive(Debug)]
pub(super) struct Bootstraps {
    directory: PathBuf,
    certificates: Certificates,
    batches: usize,
    running: Option<Subject>,
}

// === impl Bootstraps ===

impl Bootstraps {
    pub(super) fn new(directory: &Path, certificates: &Certificates) -> Self {
        Self {
            directory: directory.join("bootstrap"),
            certificates: certificates.clone(),
            batches: 0,
            running: None,
        }
    }

    /// Starts a process with those that the others took, if it is time for one or `all` are wanted.
    pub(super) async fn deploy(
        &mut self,
        peer: &mut Peer,
        placed: &[Placed<'_>],
        taken: &[&Placed<'_>],
        backends: &Backends,
        all: bool,
    ) -> anyhow::Result<Refused> {
        self.running = None;
        self.batches += 1;
        peer.admins.clear();
        peer.absent = placed.iter().map(|it| it.id.clone()).collect();
        if !all && self.batches % ONE_IN != 1 {
            return Ok(Refused::new());
        }
        for it in taken {
            peer.absent.remove(&it.id);
        }
        let (mut listeners, mut clusters) = (Vec::new(), Vec::new());
        for it in taken {
            let (listener, of_it) = raw::json(it, peer, backends);
            listeners.push(listener);
            clusters.extend(of_it);
        }
        clusters.push(envoy::peers());
        let locality = json!({"region": ZONE[0], "zone": ZONE[1]});
        let bootstrap = json!({
            // Without a `cluster`: whoever has a name tells it to upstreams.
            "node": {"id": "proxy", "locality": locality},
            "cluster_manager": {"local_cluster_name": PEERS},
            "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}},
            "static_resources": {"listeners": listeners, "clusters": clusters},
        });
        std::fs::create_dir_all(&self.directory)?;
        let file = self.directory.join("bootstrap.json");
        std::fs::write(&file, self.certificates.placed(&bootstrap.to_string()))?;
        let place = self.directory.join("admin.txt");
        if place.exists() {
            std::fs::remove_file(&place)?;
        }
        let arguments = [
            "-c",
            &file.to_string_lossy(),
            "--admin-address-path",
            &place.to_string_lossy(),
            "--concurrency",
            "1",
            "--drain-time-s",
            "1",
            "--log-level",
            "error",
        ]
        .map(str::to_owned);
        match Subject::start(&arguments, &self.directory).await {
            Ok(subject) => {
                peer.admins.push(subject.admin);
                self.running = Some(subject);
            }
            Err(why) => {
                return Ok(taken
                    .iter()
                    .map(|it| (it.id.clone(), why.clone()))
                    .collect());
            }
        }
        Ok(waiting(peer, taken).await)
    }
}

/// Those whose listeners do not open.
pub(super) async fn waiting(peer: &Peer, placed: &[&Placed<'_>]) -> Refused {
    let end = Instant::now() + PATIENCE;
    let mut closed: Vec<&&Placed<'_>> = placed.iter().collect();
    loop {
        for it in std::mem::take(&mut closed) {
            let at = SocketAddr::new(peer.address, it.port);
            if TcpStream::connect(at).await.is_err() {
                closed.push(it);
            }
        }
        if closed.is_empty() || Instant::now() > end {
            let refusal = |it: &&Placed<'_>| (it.id.clone(), "nobody listens".into());
            return closed.into_iter().map(refusal).collect();
        }
        sleep(Duration::from_millis(5)).await;
    }
}
