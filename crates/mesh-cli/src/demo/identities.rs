//! Who the nodes are: the mesh's certificate authority, here in the demo's process, gives each a
//! certificate for its service account and renews it, so that sidecars and the gateway speak mutual
//! TLS.
//!
//! What lies in files elsewhere (`mesh control --ca`, `mesh-proxy --ca-address`) never leaves memory
//! here: the authority and its certificates end with the demo. An Envoy asks for its own on a Unix
//! domain socket, as it asks Istio's agent.

use anyhow::Context;
use mesh_core::model::Secret;
use mesh_core::{Feed, Publisher, Rng};
use mesh_identity::authority::{Authority, Grant, Limits, Material, RootOptions};
use mesh_identity::{CertificateRequest, KeyKind, SpiffeId, renew_after};
use mesh_istio::{Node, World};
use mesh_proxy::Identity;
use mesh_xds::server::{Changes, Refused, ResourceSet, Server, View};
use mesh_xds::{TypeUrl, write};
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::net::UnixListener;
use tokio::task::JoinSet;

/// The shortest time between two attempts to renew.
const PAUSE: Duration = Duration::from_secs(1);

/// What Istio's proxies ask their agent for.
const CERTIFICATE: &str = "default";
const ROOTS: &str = "ROOTCA";

/// Gives the nodes of a demo their certificates.
#[derive(Debug)]
pub(crate) struct Identities {
    authority: Arc<Authority>,
    trust_domain: String,
    /// By namespace and name of the node.
    accounts: BTreeMap<(String, String), String>,
}

/// A node's certificate and the roots of the mesh. Both end with it.
#[derive(Debug)]
pub(crate) struct Member {
    certificate: Feed<Option<Arc<Secret>>>,
    roots: Feed<Option<Arc<Secret>>>,
    tasks: JoinSet<()>,
}

/// Where a node's Envoy asks for its secrets; they end with it.
#[derive(Debug)]
pub(crate) struct Agent {
    directory: PathBuf,
    member: Member,
}

// === impl Identities ===

impl Identities {
    /// A new authority for the nodes of this world.
    pub(crate) fn new(world: &World) -> anyhow::Result<Self> {
        let now = SystemTime::now();
        let material = Material::self_signed(&RootOptions::default(), now)?;
        let authority = Authority::new(&material, Limits::default(), now)?;
        let accounts = world.workload_entries().map(|(meta, entry)| {
            let node = (meta.namespace.clone(), meta.name.clone());
            (node, entry.service_account.clone())
        });
        Ok(Self {
            authority: Arc::new(authority),
            trust_domain: world.mesh_config().trust_domain.clone(),
            accounts: accounts.collect(),
        })
    }

    /// A node's first certificate, which is renewed for as long as it is kept.
    pub(crate) fn member(&self, node: &Node) -> anyhow::Result<Member> {
        let key = (node.namespace.clone(), node.name.clone());
        let account = self
            .accounts
            .get(&key)
            .filter(|account| !account.is_empty());
        // As Kubernetes names the account of a workload that says nothing.
        let account = account.map_or("default", String::as_str);
        let id = SpiffeId::of_workload(&self.trust_domain, &node.namespace, account)
            .with_context(|| format!("the service account of {}", node.name))?;
        let (first, roots, until) = issue(&self.authority, &id)?;
        let certificate = Publisher::new(Some(Arc::new(first)));
        let roots = Publisher::new(Some(Arc::new(roots)));
        let mut member = Member {
            certificate: certificate.feed(),
            roots: roots.feed(),
            tasks: JoinSet::new(),
        };
        let authority = self.authority.clone();
        member.tasks.spawn(async move {
            // Nobody publishes new roots: the authority lives as long as the demo.
            let _roots = roots;
            renew(&authority, &id, until, &certificate).await;
        });
        Ok(member)
    }
}

/// A certificate, the roots, and until when it is valid.
fn issue(authority: &Authority, id: &SpiffeId) -> anyhow::Result<(Secret, Secret, SystemTime)> {
    let request = CertificateRequest::generate(KeyKind::EcdsaP256)?;
    let issued = authority.sign(request.csr(), &Grant::to(id.clone()), SystemTime::now())?;
    let until = issued.not_after;
    let roots = Secret::roots(authority.roots_pem());
    Ok((request.into_secret(issued.chain_pem()), roots, until))
}

/// Replaces a certificate after half of its life, again and again.
async fn renew(
    authority: &Authority,
    id: &SpiffeId,
    mut until: SystemTime,
    certificate: &Publisher<Option<Arc<Secret>>>,
) {
    let rng = Rng::from_system();
    loop {
        let life = until.duration_since(SystemTime::now()).unwrap_or_default();
        tokio::time::sleep(renew_after(life, rng.word()).max(PAUSE)).await;
        match issue(authority, id) {
            Ok((secret, _, end)) => {
                until = end;
                certificate.publish(Arc::new(Some(Arc::new(secret))));
            }
            Err(error) => tracing::warn!(%error, %id, "no new certificate"),
        }
    }
}

// === impl Member ===

impl Member {
    /// For a proxy in this process.
    pub(crate) fn identity(&self) -> Identity {
        Identity::new(self.certificate.clone(), self.roots.clone())
    }

    /// For an Envoy, which asks on a socket.
    pub(crate) fn agent(mut self) -> anyhow::Result<Agent> {
        let directory = private_directory()?;
        let listener = UnixListener::bind(socket(&directory))
            .with_context(|| format!("cannot listen in {}", directory.display()))?;
        let set = ResourceSet::new();
        let view = View::of([set.clone()]);
        let assign = move |_: &mesh_xds::Node| Ok::<_, Refused>(Feed::fixed(view.clone()));
        let server = Server::builder(assign).build();
        self.tasks.spawn(async move {
            if let Err(error) = server.serve_unix(listener, std::future::pending()).await {
                tracing::error!(%error, "secrets");
            }
        });
        let (mut certificate, mut roots) = (self.certificate.clone(), self.roots.clone());
        self.tasks.spawn(async move {
            loop {
                let mut changes = Changes::new();
                for (name, secret) in [(CERTIFICATE, certificate.load()), (ROOTS, roots.load())] {
                    if let Some(secret) = &*secret {
                        changes = changes.set(TypeUrl::Secret, write::encode_secret(name, secret));
                    }
                }
                set.apply(changes);
                let ended = tokio::select! {
                    changed = certificate.changed() => changed.is_err(),
                    changed = roots.changed() => changed.is_err(),
                };
                if ended {
                    return;
                }
            }
        });
        Ok(Agent {
            directory,
            member: self,
        })
    }
}

// === impl Agent ===

impl Agent {
    /// The socket.
    pub(crate) fn socket(&self) -> PathBuf {
        socket(&self.directory)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.member.tasks.abort_all();
        // What stays is an empty directory of ours.
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn socket(directory: &Path) -> PathBuf {
    directory.join("socket")
}

/// A new directory that nobody else may enter. Its path is short: a socket's may have 107 bytes.
fn private_directory() -> anyhow::Result<PathBuf> {
    let rng = Rng::from_system();
    let name = format!("mesh-demo-{:016x}", rng.word());
    let directory = std::env::temp_dir().join(name);
    let made = std::fs::create_dir(&directory).and_then(|()| {
        std::fs::set_permissions(&directory, std::fs::Permissions::from_mode(0o700))
    });
    made.with_context(|| format!("cannot create {}", directory.display()))?;
    Ok(directory)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_identity::CertificateName;
    use mesh_istio::Files;

    const WORLD: &str = "
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: a, namespace: shop, annotations: {mesh-rs.dev/base-port: '20000'}}
spec: {address: 127.0.0.1, serviceAccount: sells}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: b, namespace: shop, annotations: {mesh-rs.dev/base-port: '20100'}}
spec: {address: 127.0.0.1}
";

    fn chain(member: &Member) -> Vec<u8> {
        match member.certificate.load().as_deref() {
            Some(Secret::Certificate { chain, .. }) => chain.clone(),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn each_node_is_its_service_account_and_others_trust_it() {
        let mut world = World::default();
        assert_eq!(world.update(&Files::from_text("w.yaml", WORLD)), []);
        let (nodes, _) = Node::all(&world);
        let identities = Identities::new(&world).unwrap();
        let names = nodes.iter().map(|node| {
            let member = identities.member(node).unwrap();
            for secret in [&member.certificate, &member.roots] {
                mesh_identity::check_secret(secret.load().as_deref().unwrap()).unwrap();
            }
            let facts = mesh_identity::certificate_facts(&chain(&member)).unwrap();
            facts[0].names.clone()
        });
        let names: Vec<_> = names.collect();
        let uri = |account: &str| {
            let id = format!("spiffe://cluster.local/ns/shop/sa/{account}");
            vec![CertificateName::Uri(id)]
        };
        assert_eq!(names, [uri("sells"), uri("default")]);
    }

    #[tokio::test]
    async fn nobody_else_may_ask_an_agent_and_nothing_stays_of_it() {
        let mut world = World::default();
        world.update(&Files::from_text("w.yaml", WORLD));
        let (nodes, _) = Node::all(&world);
        let member = Identities::new(&world).unwrap().member(&nodes[0]).unwrap();
        let agent = member.agent().unwrap();
        let directory = agent.directory.clone();
        let mode = std::fs::metadata(&directory).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        assert!(agent.socket().exists());
        drop(agent);
        assert!(!directory.exists());
    }
}
