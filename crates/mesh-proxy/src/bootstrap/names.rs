//! The name server beside the proxy (`--dns-proxy`).

use anyhow::Context;
use mesh_core::Feed;
use mesh_core::discovery::NameTable;
use mesh_discovery::dns::server::{Place, ResolvConf, Server, Statistics};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use tokio::task::JoinSet;

/// What services of a cluster are called below, where the node's id does not say.
const DOMAIN: &str = "svc.cluster.local";

/// A name server that is not open yet.
#[derive(Debug)]
pub(super) struct Names {
    addresses: Vec<SocketAddr>,
    resolv: ResolvConf,
    place: Place,
    statistics: Arc<Statistics>,
}

/// One that is.
#[derive(Debug)]
pub(super) struct Answering(Vec<Server>);

// === impl Names ===

impl Names {
    /// A name server for the applications of a namespace; `domain` is the last part of the node's
    /// id, in which Istio has the namespace in front.
    pub(super) fn new(
        addresses: &[SocketAddr],
        resolv: &Path,
        namespace: &str,
        domain: Option<&str>,
    ) -> anyhow::Result<Self> {
        let resolv = ResolvConf::read(resolv)
            .with_context(|| format!("--dns-resolv-conf {}", resolv.display()))?;
        let own = format!("{namespace}.");
        let domain = domain.map(|domain| domain.strip_prefix(&own).unwrap_or(domain));
        let domain = domain.filter(|domain| !domain.is_empty());
        Ok(Self {
            addresses: addresses.to_vec(),
            resolv,
            place: Place {
                namespace: namespace.to_owned(),
                domain: domain.unwrap_or(DOMAIN).to_owned(),
                search: None,
            },
            statistics: Arc::default(),
        })
    }

    /// What it counts.
    pub(super) fn statistics(&self) -> Arc<Statistics> {
        self.statistics.clone()
    }

    /// Opens its sockets.
    pub(super) async fn open(self, tables: Feed<Option<NameTable>>) -> anyhow::Result<Answering> {
        let mut servers = Vec::new();
        for address in self.addresses {
            let (tables, place) = (tables.clone(), self.place.clone());
            let server = Server::bind(address, tables, place, &self.resolv).await;
            let server = server.with_context(|| format!("--dns-proxy {address}"))?;
            println!("names on {}", server.address()?);
            servers.push(server.statistics(self.statistics.clone()));
        }
        Ok(Answering(servers))
    }
}

// === impl Answering ===

impl Answering {
    /// Answers until it is dropped.
    pub(super) async fn run(self) {
        // They end with it.
        let mut servers: JoinSet<()> = self.0.into_iter().map(Server::run).collect();
        while servers.join_next().await.is_some() {}
    }
}
