//! The applications of Bookinfo, and httpbin.

use anyhow::{Context, bail};
use axum::Router;
use bookinfo::{ReviewsVersion, Services};
use mesh_istio::Node;
use std::net::{Ipv4Addr, SocketAddr};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Applications that run until they are told to stop.
#[derive(Debug)]
pub(crate) struct Applications {
    tasks: JoinSet<()>,
    stop: watch::Sender<bool>,
}

// === impl Applications ===

impl Applications {
    pub(crate) fn none() -> Self {
        Self {
            tasks: JoinSet::new(),
            stop: watch::Sender::new(false),
        }
    }

    /// Starts the application of a node on a port. Its calls go out through `outbound`.
    pub(crate) async fn start(
        &mut self,
        node: &Node,
        port: u16,
        outbound: SocketAddr,
    ) -> anyhow::Result<SocketAddr> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("the application cannot listen on {address}"))?;
        let router = application(node, outbound)?;
        let mut stopped = self.stop.subscribe();
        self.tasks.spawn(async move {
            let stop = async move {
                // A lost sender means the same.
                let _ = stopped.wait_for(|stop| *stop).await;
            };
            if let Err(error) = httpbin::serve(listener, router, stop).await {
                tracing::error!(%error, "application");
            }
        });
        Ok(address)
    }

    /// Lets requests finish, and ends.
    pub(crate) async fn stop(mut self) {
        self.stop.send_replace(true);
        while self.tasks.join_next().await.is_some() {}
    }
}

fn application(node: &Node, outbound: SocketAddr) -> anyhow::Result<Router> {
    let services = Services::through(outbound);
    let label = |key: &str| node.labels.get(key).map(String::as_str).unwrap_or_default();
    Ok(match (label("app"), label("version")) {
        ("productpage", _) => bookinfo::productpage(&services),
        ("details", _) => bookinfo::details(),
        ("ratings", _) => bookinfo::ratings(),
        ("reviews", "v1") => bookinfo::reviews(ReviewsVersion::V1, &services),
        ("reviews", "v2") => bookinfo::reviews(ReviewsVersion::V2, &services),
        ("reviews", "v3") => bookinfo::reviews(ReviewsVersion::V3, &services),
        ("httpbin", _) => httpbin::named(node.name.clone()),
        (app, version) => bail!(
            "the demo has no application {app:?} version {version:?} (labels of WorkloadEntry {})",
            node.name
        ),
    })
}
