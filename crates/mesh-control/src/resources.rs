//! What one node would get, without a server.

use crate::class::build;
use crate::node::{Described, Generator};
use crate::parts::secrets::Named;
use mesh_core::Invalid;
use mesh_istio::names::LOCAL;
use mesh_istio::{Diagnostic, Node, Severity, Workshop, World, local_endpoints, name_table};
use mesh_xds::{Encoded, TypeUrl, write};
use std::sync::Arc;

/// What a proxy would get, in the order in which it is sent, and what there is to say about it:
/// an error among that means that the parts do not fit together, and then there are none.
///
/// It is to be looked at: secrets are among it without their keys.
///
/// ```
/// use mesh_control::node_resources;
/// use mesh_istio::{Node, World};
///
/// let (resources, findings) = node_resources(&World::default(), &Node::sidecar("a", "b"));
/// assert!(resources.iter().any(|(_, one)| &*one.name == "BlackHoleCluster"));
/// assert!(findings.is_empty());
/// ```
pub fn node_resources(world: &World, node: &Node) -> (Vec<(TypeUrl, Encoded)>, Vec<Diagnostic>) {
    let described = Described {
        node: node.clone(),
        generator: Generator::Proxy,
    };
    described_resources(world, &described)
}

/// The same for a client that [`describe_node`](crate::describe_node) knows: gRPC, too.
pub fn described_resources(
    world: &World,
    described: &Described,
) -> (Vec<(TypeUrl, Encoded)>, Vec<Diagnostic>) {
    let mut workshop = Workshop::new();
    let built = match build(&mut workshop, world, &described.node, &Arc::default()) {
        Ok(built) => built,
        Err(error) => return (Vec::new(), vec![unusable(&error)]),
    };
    let resources = match described.generator {
        Generator::Proxy => {
            let mut resources = write::snapshot(&built.snapshot);
            for (name, secret) in Named::of(&built.snapshot).present() {
                let shown = write::redacted(&write::secret(name, secret));
                resources.push((TypeUrl::Secret, write::encode(name, &shown)));
            }
            if let Some(endpoints) = local_endpoints(world, &described.node) {
                let encoded = crate::endpoints::encode(&LOCAL.into(), &endpoints);
                resources.push((TypeUrl::Endpoints, encoded));
            }
            if described.node.dns_capture {
                let table = name_table(world, &described.node);
                resources.push((TypeUrl::NameTable, write::name_table(&table)));
            }
            resources
        }
        Generator::Grpc => {
            let mut resources = crate::grpc::resources(&built.snapshot);
            resources.extend(crate::grpc::server_resources(&built.snapshot));
            resources
        }
    };
    (resources, built.findings)
}

/// No object alone is to blame.
fn unusable(error: &Invalid) -> Diagnostic {
    Diagnostic {
        severity: Severity::Error,
        object: None,
        file: "configuration".into(),
        line: 0,
        column: 0,
        path: error.path().to_owned(),
        message: error.message().to_owned(),
        snippet: None,
    }
}
