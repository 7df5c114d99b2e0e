//! What we make of a case: compiled for its nodes, written as xDS, printed as JSON.

use std::collections::BTreeSet;
use std::net::IpAddr;

use mesh_core::model::SnapshotBuilder;
use mesh_istio::{Capture, Files, Node as Compiled, Severity, World, compile, localities};
use mesh_xds::json::Codec;
use mesh_xds::{TypeUrl, write};

use crate::normal::normal;
use crate::recorded::{Case, Kind, Node, Resources, cases};

/// The service that every Kubernetes cluster has; istiod saw it in the cluster, not in the files.
const API_SERVER: &str = "
apiVersion: v1
kind: Service
metadata: {name: kubernetes, namespace: default}
spec: {clusterIP: 10.96.0.1, ports: [{name: https, port: 443, targetPort: 6443, protocol: TCP}]}
";

/// What is sent to a node, less what it gets in an empty mesh, as it was recorded.
pub(crate) fn resources(case: &Case, node: Node) -> Resources {
    let mut sent = everything(case, node);
    if case.number != "00" {
        let empty = everything(&cases()[0], node);
        let same = |key| empty.get(&key) == sent.get(&key);
        // Its tables are inside it, so they come and go with it.
        let way_in = !same((Kind::Listener, "virtualInbound".to_owned()));
        sent.retain(|key, resource| {
            empty.get(key) != Some(resource)
                || way_in && key.1 == "InboundPassthroughCluster" && key.0 == Kind::Routes
        });
    }
    sent
}

/// The objects of a case that cannot be read.
pub(crate) fn refused(case: &Case) -> BTreeSet<String> {
    let findings = World::default().update(&files(case, &case.input()));
    findings
        .into_iter()
        .filter(|finding| finding.severity == Severity::Error)
        .filter_map(|finding| finding.object)
        .collect()
}

fn everything(case: &Case, node: Node) -> Resources {
    let mut world = World::default();
    world.update(&files(case, &case.input()));
    let mut builder = SnapshotBuilder::new();
    compile(&world, &described(&world, node), &mut builder);
    let (snapshot, _) = builder.build().unwrap();
    let codec = Codec::new();
    write::snapshot(&snapshot)
        .into_iter()
        .map(|(url, encoded)| {
            let kind = match url {
                TypeUrl::Cluster => Kind::Cluster,
                TypeUrl::Endpoints => Kind::Endpoints,
                TypeUrl::Listener => Kind::Listener,
                TypeUrl::Routes => Kind::Routes,
                other => panic!("{other} is not compared"),
            };
            let message = url.url().rsplit('/').next().unwrap();
            let json = codec.to_json(message, &encoded.bytes).unwrap();
            let resource = normal(kind, serde_json::from_str(&json).unwrap());
            ((kind, encoded.name.to_string()), resource)
        })
        .collect()
}

fn files(case: &Case, input: &str) -> Files {
    let files = Files::from_text("input.yaml", input).and_text("cluster.yaml", API_SERVER);
    // As it was recorded, where a case does not say otherwise.
    let mut mesh = case.mesh_config().unwrap_or_default();
    if !mesh.contains("enableAutoMtls") {
        mesh.push_str("\nenableAutoMtls: false\n");
    }
    files.and_mesh_config_text("meshconfig.yaml", &mesh)
}

/// The nodes as they introduced themselves, and where their pods run.
fn described(world: &World, node: Node) -> Compiled {
    let (mut described, address, labels) = match node {
        Node::Sidecar => (
            Compiled::sidecar("client-1", "shop"),
            [10, 244, 0, 9],
            [("app", "client"), ("version", "v1")],
        ),
        Node::Gateway => (
            Compiled::gateway("ingress-1", "istio-system"),
            [10, 244, 0, 10],
            [("app", "ingress"), ("istio", "ingress")],
        ),
    };
    described.address = IpAddr::from(address);
    let key = (described.namespace.clone(), described.name.clone());
    let place = localities(world).remove(&key);
    described.locality = place.unwrap_or_default();
    described.capture = Capture::Redirect;
    described.identity = true;
    described.labels = labels
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
    described
}
