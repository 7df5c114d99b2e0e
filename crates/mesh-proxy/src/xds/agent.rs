//! What Istio's agent is to Envoy, for a proxy without one: secrets that listeners and clusters
//! want from a service of their own.
//!
//! | the secret's name | what is done |
//! |---|---|
//! | `file-cert:CERTIFICATE~KEY`, `file-root:FILE`, `file-crl:FILE`, `file-root:system` | read here, and followed |
//! | another, of a service whose cluster is in the bootstrap with an address | the service is asked |
//! | another | said in the log, once; what needs it goes without it after its time |
//!
//! Services are asked at the first address of their cluster, over TCP or over a Unix domain socket
//! as Istio's agent (`sds-grpc`) and SPIRE have them, in plain text or with TLS as the cluster has
//! it.

use super::servers::of_cluster;
use mesh_core::model::SecretName;
use mesh_core::{Feed, Invalid, Name};
use mesh_xds::Node;
use mesh_xds::client::{Client, Gone, Handle, SecretClient, ServiceReference, Variant};
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
    /// If the address of a cluster, or its TLS, cannot be used.
    pub(super) fn new(
        client: &Client,
        clusters: &[ClusterResource],
        node: &Node,
    ) -> Result<Self, Invalid> {
        let mut services = Vec::new();
        let mut reached = BTreeSet::new();
        for one in clusters {
            let name = one.cluster.name.clone();
            let within = |error: Invalid| error.within(format!("cluster {name}"));
            // Any cluster may turn out to be one; one that is none need not be fit for it.
            let Ok(Some(server)) = of_cluster(one) else {
                continue;
            };
            // Each connects only when something is wanted in its variant.
            let with = |variant| {
                let (name, server) = (name.clone(), server.clone());
                SecretClient::new(client, name, server, variant, node.clone())
            };
            match (with(Variant::Sotw), with(Variant::Delta)) {
                (Ok(sotw), Ok(delta)) => {
                    services.extend([sotw.without_files(), delta.without_files()]);
                }
                // As above: most clusters with TLS are no secret services.
                _ if one.cluster.tls.is_some() => continue,
                (Err(error), _) | (_, Err(error)) => return Err(within(error)),
            }
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
        let mut files: BTreeMap<(&Name, Variant), Vec<SecretResource>> = BTreeMap::new();
        for one in needed.difference(&self.known) {
            let ServiceReference {
                cluster,
                variant,
                name,
                ..
            } = one;
            match SecretName::of(name) {
                SecretName::Other(_) if self.reached.contains(cluster) => {}
                SecretName::Other(_) => tracing::warn!(
                    %cluster,
                    %name,
                    "nobody provides this secret: no cluster of that name with an address of its \
                     own, and with TLS that needs no service, is in the bootstrap"
                ),
                at => {
                    let value = SecretValue::At(at.to_name());
                    let name = name.clone();
                    let of = files.entry((cluster, *variant)).or_default();
                    of.push(SecretResource { name, value });
                }
            }
        }
        for ((cluster, variant), secrets) in files {
            let refused = self
                .handle
                .supply_secrets(cluster.clone(), variant, secrets, Vec::new())
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
