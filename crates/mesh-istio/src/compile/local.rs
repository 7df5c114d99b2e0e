//! The node's own cluster: the endpoints that are like it. By where those are a proxy knows how
//! many callers a zone has (Envoy's `local_cluster_name`).

use mesh_core::Name;
use mesh_core::discovery::Instance;
use mesh_core::model::{Address, EndpointSet};

use super::cluster::endpoints;
use crate::node::Node;
use crate::world::World;

/// Which endpoints are like a node, as istiod has it for proxies that discover themselves
/// (metadata `ENABLE_SELF_DISCOVERY`): those of the first service that selects it, in its region
/// and of its workload and revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alike {
    service: Option<(Name, u16)>,
    region: Name,
    workload: Name,
    /// The values of [`REVISION`].
    revision: [Name; 2],
}

/// Labels that pods of different revisions of a workload differ in: those of Kubernetes and of Argo
/// Rollouts.
const REVISION: [&str; 2] = ["pod-template-hash", "rollouts-pod-template-hash"];

// === impl Alike ===

impl Alike {
    /// What is like this node; nothing if it does not discover itself.
    ///
    /// ```
    /// use mesh_istio::{Alike, Node, World};
    ///
    /// let mut node = Node::sidecar("client", "default");
    /// assert!(Alike::of(&World::default(), &node).is_none());
    /// node.self_discovery = true;
    /// let alike = Alike::of(&World::default(), &node).unwrap();
    /// assert!(alike.host().is_none());
    /// ```
    pub fn of(world: &World, node: &Node) -> Option<Self> {
        if !node.self_discovery {
            return None;
        }
        let services = world.catalog();
        let all = services.selecting(&node.namespace, &node.labels);
        // The oldest, as istiod sorts what leads to a proxy.
        let first = all.min_by_key(|entry| (&entry.meta.created, entry.host()));
        let service = first.and_then(|entry| {
            let (port, _) = entry.ports().next()?;
            Some((entry.service.id.host.clone(), port))
        });
        let label = |key: &str| node.labels.get(key).map(Name::from).unwrap_or_default();
        Some(Self {
            service,
            region: node.locality.region.clone(),
            workload: Name::from(node.workload()),
            revision: REVISION.map(label),
        })
    }

    /// The service whose endpoints they are among; none if no service selects the node.
    pub fn host(&self) -> Option<&Name> {
        self.service.as_ref().map(|(host, _)| host)
    }

    /// Those that are like the node, among the endpoints of [`Alike::host`]. Each counts once, by
    /// the first of the service's ports; what has no IP address is left out.
    pub fn among(&self, instances: &[Instance]) -> EndpointSet {
        let Some((_, port)) = self.service else {
            return EndpointSet::default();
        };
        let alike = instances.iter().filter(|one| {
            let endpoint = &one.endpoint;
            let mut labels = REVISION.iter().zip(&self.revision);
            one.port == port
                && one.locality.region == self.region
                && endpoint.workload.name == self.workload
                && labels.all(|(key, value)| {
                    let have = endpoint.labels.get(*key);
                    have.map_or("", |have| have) == &**value
                })
                && matches!(endpoint.address, Address::Socket(_))
        });
        endpoints(alike, None)
    }
}

/// The node's own cluster as it stands in the objects; nothing if it does not discover itself.
pub fn local_endpoints(world: &World, node: &Node) -> Option<EndpointSet> {
    let alike = Alike::of(world, node)?;
    let entry = alike.host().and_then(|host| world.catalog().entry(host));
    Some(alike.among(entry.map_or(&[], |entry| entry.instances.as_slice())))
}
