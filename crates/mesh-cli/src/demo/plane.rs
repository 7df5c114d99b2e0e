//! The control plane of the demo: on two ports of its own, over the demo's directory.

use super::judge::Judge;
use anyhow::Context;
use mesh_control::{Control, Source};
use mesh_istio::Diagnostic;
use mesh_keys::Fetcher;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// A control plane that runs until it is dropped.
pub(crate) struct Plane {
    control: Control,
    source: Source,
    pub(crate) xds: SocketAddr,
    pub(crate) http: SocketAddr,
    tasks: JoinSet<()>,
}

// === impl Plane ===

impl Plane {
    /// Starts the servers with what the files say.
    ///
    /// # Errors
    /// If one of the ports is taken.
    pub(crate) async fn start(dir: &Path, base_port: u16) -> anyhow::Result<Self> {
        let source = Source {
            paths: vec![dir.to_owned()],
            mesh_config: None,
        };
        let control = Control::builder().build();
        control.update(&source.read());
        let streams = listen(xds(base_port)).await?;
        let pages = listen(http(base_port)).await?;
        let mut plane = Self {
            xds: streams.local_addr()?,
            http: pages.local_addr()?,
            source,
            control: control.clone(),
            tasks: JoinSet::new(),
        };
        let server = control.xds().clone();
        plane.serve("xDS", async move {
            server.serve(streams, std::future::pending()).await
        });
        let routes = control.http_routes();
        plane.serve("http", async move {
            routes.serve(pages, std::future::pending()).await
        });
        let own = control.clone();
        plane.tasks.spawn(async move { own.run().await });
        let (keys, fetcher) = Fetcher::builder().build();
        plane.tasks.spawn(async move {
            tokio::join!(control.follow_keys(keys), fetcher.run());
        });
        Ok(plane)
    }

    /// Follows the files, and lets the judge look at every change.
    pub(crate) fn follow(&mut self, judge: Arc<Judge>) {
        let watching = self
            .source
            .clone()
            .watch(self.control.clone(), move |_: &[Diagnostic]| judge.look());
        self.tasks.spawn(watching);
    }

    /// What a node has rejected, if it has.
    pub(crate) fn rejection(&self, id: &str) -> Option<String> {
        let connections = self.control.xds().connections();
        let mut types = connections
            .iter()
            .filter(|one| one.client.node.id() == id)
            .flat_map(|one| &one.types);
        types.find_map(|kind| Some(kind.nacked.as_ref()?.message.to_string()))
    }

    fn serve(
        &mut self,
        what: &'static str,
        serving: impl Future<Output = std::io::Result<()>> + Send + 'static,
    ) {
        self.tasks.spawn(async move {
            if let Err(error) = serving.await {
                tracing::error!(%error, what, "the control plane");
            }
        });
    }
}

impl std::fmt::Debug for Plane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plane")
            .field("xds", &self.xds)
            .field("http", &self.http)
            .finish_non_exhaustive()
    }
}

/// Where the control plane serves xDS.
pub(crate) fn xds(base_port: u16) -> SocketAddr {
    local(base_port + 810)
}

/// Where the control plane has its debug pages.
pub(crate) fn http(base_port: u16) -> SocketAddr {
    local(base_port + 814)
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!(
            "the control plane cannot listen on {address}; another demo may be running \
             (--listen and --base-port choose ports)"
        )
    })
}
