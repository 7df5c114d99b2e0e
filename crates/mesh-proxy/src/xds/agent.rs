//! What Istio's agent is to Envoy, for a proxy without one: secrets that listeners and clusters
//! want from a service of their own.
//!
//! | the secret's name | what is done |
//! |---|---|
//! | `file-cert:CERTIFICATE~KEY`, `file-root:FILE`, `file-crl:FILE`, `file-root:system` | read here, and followed |
//! | `default`, `ROOTCA` of `sds-grpc` | the proxy's own [`Identity`] answers, if it has one |
//! | another, of a service whose cluster is in the bootstrap with an address | the service is asked |
//! | another | said in the log, once and with the reason; what needs it goes without it after its time |
//!
//! Services are asked at the first address of their cluster, over TCP or over a Unix domain socket
//! as Istio's agent (`sds-grpc`) and SPIRE have them, in plain text or with TLS as the cluster has
//! it.

use super::servers::of_cluster;
use crate::Identity;
use crate::identity::{AGENT, CERTIFICATE, ROOTS};
use mesh_core::model::{SecretName, StreamOpening};
use mesh_core::{Feed, Name};
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
    /// Clusters of the bootstrap that cannot be asked, and why.
    unfit: BTreeMap<Name, String>,
    /// What was looked at the last time.
    known: BTreeSet<ServiceReference>,
    identity: Option<Identity>,
}

// === impl Agent ===

impl Agent {
    /// One for what this client needs; `clusters` are where its services may be. Any cluster may
    /// turn out to be one, and most are none: why one cannot be asked is said when it is wanted.
    pub(super) fn new(client: &Client, clusters: &[ClusterResource], node: &Node) -> Self {
        let mut this = Self {
            needed: client.services(),
            handle: client.handle(),
            services: Vec::new(),
            reached: BTreeSet::new(),
            unfit: BTreeMap::new(),
            known: BTreeSet::new(),
            identity: None,
        };
        for one in clusters {
            let name = one.cluster.name.clone();
            // Each connects only when something is wanted in its variant.
            let Some(server) = of_cluster(one).transpose() else {
                let reason = "its cluster has no endpoint of its own in the bootstrap";
                this.unfit.insert(name, reason.to_owned());
                continue;
            };
            let both = server.and_then(|server| {
                let with = |variant| {
                    let (name, server) = (name.clone(), server.clone());
                    SecretClient::new(client, name, server, variant, node.clone())
                };
                Ok([with(Variant::Sotw)?, with(Variant::Delta)?])
            });
            match both {
                Ok(both) => {
                    let both = both.map(SecretClient::without_files);
                    this.services.extend(both);
                    this.reached.insert(name);
                }
                Err(error) => {
                    this.unfit.insert(name, error.to_string());
                }
            }
        }
        this
    }

    /// What answers for the proxy's own secrets.
    pub(super) fn identify(&mut self, identity: Identity) {
        self.identity = Some(identity);
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
            if self.look(&needed).await.is_err() {
                return;
            }
            let renewed = async {
                match &mut self.identity {
                    Some(identity) => identity.changed().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = self.needed.changed() => if changed.is_err() {
                    return;
                },
                // Supplied anew, as what is wanted anew is.
                () = renewed => self.known.retain(|one| !is_own(one)),
            }
        }
    }

    /// Supplies what is new, and says what nobody does.
    async fn look(&mut self, needed: &BTreeSet<ServiceReference>) -> Result<(), Gone> {
        let mut files: BTreeMap<(&Name, Variant, &StreamOpening), Vec<SecretResource>> =
            BTreeMap::new();
        for one in needed.difference(&self.known) {
            let ServiceReference {
                cluster,
                variant,
                opening,
                name,
                ..
            } = one;
            if let Some(identity) = self.identity.as_ref().filter(|_| is_own(one)) {
                // What is not there as yet is supplied when it comes.
                if let Some(Some(secret)) = identity.secret(name) {
                    let value = SecretValue::Given(secret);
                    let name = name.clone();
                    let of = files.entry((cluster, *variant, opening)).or_default();
                    of.push(SecretResource { name, value });
                }
                continue;
            }
            match SecretName::of(name) {
                SecretName::Other(_) if self.reached.contains(cluster) => {}
                SecretName::Other(_) => {
                    let reason = self.reason(cluster);
                    tracing::warn!(%cluster, %name, reason, "nobody provides this secret");
                }
                at => {
                    let value = SecretValue::At(at.to_name());
                    let name = name.clone();
                    let of = files.entry((cluster, *variant, opening)).or_default();
                    of.push(SecretResource { name, value });
                }
            }
        }
        for ((cluster, variant, opening), secrets) in files {
            let refused = self
                .handle
                .supply_secrets(
                    cluster.clone(),
                    variant,
                    opening.clone(),
                    secrets,
                    Vec::new(),
                )
                .await?;
            for (name, error) in refused {
                tracing::warn!(%cluster, %name, %error, "a secret that is provided here cannot be used");
            }
        }
        // What is asked for again later has to be supplied again.
        self.known.clone_from(needed);
        Ok(())
    }

    /// Why a cluster is not asked.
    fn reason(&self, cluster: &Name) -> &str {
        let reason = self.unfit.get(cluster);
        reason.map_or("the bootstrap has no cluster of that name", String::as_str)
    }
}

/// Whether this is one of the two secrets that a proxy's identity consists of.
fn is_own(one: &ServiceReference) -> bool {
    one.cluster == *AGENT && matches!(&*one.name, CERTIFICATE | ROOTS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_xds::bootstrap::{Bootstrap, Format};

    /// An agent of these clusters.
    fn agent(clusters: &str) -> Agent {
        let text = format!("node: {{id: one}}\nstatic_resources: {{clusters: [{clusters}]}}");
        let bootstrap = Bootstrap::from_texts([(Format::Yaml, &*text)]).unwrap();
        let client = Client::builder(["http://127.0.0.1:1"]).node(bootstrap.node.clone());
        Agent::new(
            &client.build().unwrap(),
            &bootstrap.clusters,
            &bootstrap.node,
        )
    }

    fn cluster(name: &str, kind: &str, address: &str, more: &str) -> String {
        format!(
            "{{name: {name}, type: {kind}, load_assignment: {{cluster_name: {name}, endpoints: \
             [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: {address}, \
             port_value: 1}}}}}}}}]}}]}}{more}}}"
        )
    }

    #[test]
    fn why_a_cluster_cannot_be_asked_is_known_and_no_reason_to_refuse_it() {
        let tls = |named: &str| {
            format!(
                ", transport_socket: {{name: tls, typed_config: {{'@type': type.googleapis.com/\
                 envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext, \
                 common_tls_context: {{{named}}}}}}}"
            )
        };
        let sds = "tls_certificate_sds_secret_configs: [{name: a, sds_config: {resource_api_version: \
                   V3, api_config_source: {api_type: GRPC, transport_api_version: V3, \
                   grpc_services: [{envoy_grpc: {cluster_name: plain}}]}}}]";
        let agent = agent(
            &[
                cluster("plain", "STATIC", "127.0.0.1", ""),
                cluster("odd", "STRICT_DNS", "'a b'", ""),
                cluster("waits", "STATIC", "127.0.0.1", &tls(sds)),
                "{name: empty, type: STATIC}".to_owned(),
            ]
            .join(", "),
        );
        assert!(agent.reached.iter().eq(["plain"]), "{:?}", agent.reached);
        assert_eq!(agent.services.len(), 2, "one for each variant");
        for (name, reason) in [
            ("odd", "a b"),
            ("waits", "give files"),
            ("empty", "no endpoint"),
            ("other", "no cluster of that name"),
        ] {
            let said = agent.reason(&name.into());
            assert!(said.contains(reason), "{name}: {said}");
        }
    }
}
