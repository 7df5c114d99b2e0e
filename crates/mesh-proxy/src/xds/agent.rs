//! What Istio's agent is to Envoy, for a proxy without one: secrets that listeners and clusters
//! want from a service of their own.
//!
//! | the secret's name | what is done |
//! |---|---|
//! | `file-cert:CERTIFICATE~KEY`, `file-root:FILE`, `file-crl:FILE`, `file-root:system` | read here, and followed |
//! | another, of a service whose cluster is in the bootstrap with an address | the service is asked |
//! | another | said in the log, once; what needs it goes without it after its time |
//!
//! Only services in plain text are asked, at the first address of their cluster: over TCP, or over
//! a Unix domain socket as Istio's agent (`sds-grpc`) and SPIRE have them.

use mesh_core::model::SecretName;
use mesh_core::{Feed, Invalid, Name};
use mesh_xds::Node;
use mesh_xds::bootstrap::server_uri;
use mesh_xds::client::{Client, Gone, Handle, SecretClient, ServiceReference};
use mesh_xds::read::{ClusterResource, SecretResource, SecretValue};
use std::collections::{BTreeMap, BTreeSet};
use tokio::task::JoinSet;

/// Provides what somebody else would provide.
#[derive(Debug)]
pub(super) struct Agent {
    needed: Feed<BTreeSet<ServiceReference>>,
    handle: Handle,
    services: Vec<SecretClient>,
    reached: BTreeSet<Name>,
    /// What was looked at the last time.
    known: BTreeSet<ServiceReference>,
}

// === impl Agent ===

impl Agent {
    /// One for what this client needs; `clusters` are where its services may be.
    ///
    /// # Errors
    /// If the address of a cluster cannot be used.
    pub(super) fn new(
        client: &Client,
        clusters: &[ClusterResource],
        node: &Node,
    ) -> Result<Self, Invalid> {
        let mut services = Vec::new();
        let mut reached = BTreeSet::new();
        for one in clusters {
            let Some(server) = address(one) else {
                continue;
            };
            let name = one.cluster.name.clone();
            let service = SecretClient::new(client, name.clone(), &server, node.clone())
                .map_err(|error| error.within(format!("cluster {name}")))?;
            services.push(service.without_files());
            reached.insert(name);
        }
        Ok(Self {
            needed: client.services(),
            handle: client.handle(),
            services,
            reached,
            known: BTreeSet::new(),
        })
    }

    /// Runs until the client has ended.
    ///
    /// # Cancel safety
    /// Dropped, it leaves the secrets that came in use.
    pub(super) async fn run(mut self) {
        let mut services = JoinSet::new();
        for service in std::mem::take(&mut self.services) {
            services.spawn(service.run(std::future::pending()));
        }
        loop {
            let needed = self.needed.load();
            if self.look(&needed).await.is_err() || self.needed.changed().await.is_err() {
                return;
            }
        }
    }

    /// Supplies what is new, and says what nobody does.
    async fn look(&mut self, needed: &BTreeSet<ServiceReference>) -> Result<(), Gone> {
        let mut files: BTreeMap<&Name, Vec<SecretResource>> = BTreeMap::new();
        for one in needed.difference(&self.known) {
            let ServiceReference { cluster, name, .. } = one;
            match SecretName::of(name) {
                SecretName::Other(_) if self.reached.contains(cluster) => {}
                SecretName::Other(_) => tracing::warn!(
                    %cluster,
                    %name,
                    "nobody provides this secret: no cluster of that name with an address and in \
                     plain text is in the bootstrap"
                ),
                at => {
                    let value = SecretValue::At(at.to_name());
                    let name = name.clone();
                    let of = files.entry(cluster).or_default();
                    of.push(SecretResource { name, value });
                }
            }
        }
        for (cluster, secrets) in files {
            let refused = self
                .handle
                .supply_secrets(cluster.clone(), secrets, Vec::new())
                .await?;
            for (name, error) in refused {
                tracing::warn!(%cluster, %name, %error, "a secret in files cannot be used");
            }
        }
        // What is asked for again later has to be supplied again.
        self.known.clone_from(needed);
        Ok(())
    }
}

/// Where the service at a cluster can be called, if it is one.
fn address(one: &ClusterResource) -> Option<String> {
    if one.cluster.tls.is_some() {
        return None;
    }
    let endpoint = one.endpoints.as_ref()?.iter().next()?;
    Some(server_uri(&endpoint.address))
}
