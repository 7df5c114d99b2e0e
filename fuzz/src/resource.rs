//! Resources from a control plane: what is read can be written, and is the same when read again.

use crate::{Input, Target};
use mesh_core::model::{Cluster, DiscoveryKind, EndpointSet, UpstreamProtocol};
use mesh_xds::read::{self, ClusterResource, Resource, RouteSource};
use mesh_xds::{TypeUrl, write};

/// `read_cluster`
pub(crate) const CLUSTER: Target = Target {
    name: "read_cluster",
    run: |data| again(TypeUrl::Cluster, data),
    input: Input::Protobuf("envoy.config.cluster.v3.Cluster"),
};

/// `read_endpoints`
pub(crate) const ENDPOINTS: Target = Target {
    name: "read_endpoints",
    run: |data| again(TypeUrl::Endpoints, data),
    input: Input::Protobuf("envoy.config.endpoint.v3.ClusterLoadAssignment"),
};

/// `read_listener`
pub(crate) const LISTENER: Target = Target {
    name: "read_listener",
    run: |data| again(TypeUrl::Listener, data),
    input: Input::Protobuf("envoy.config.listener.v3.Listener"),
};

/// `read_routes`
pub(crate) const ROUTES: Target = Target {
    name: "read_routes",
    run: |data| again(TypeUrl::Routes, data),
    input: Input::Protobuf("envoy.config.route.v3.RouteConfiguration"),
};

/// Reads, and if that is accepted writes and reads again.
pub(crate) fn again(kind: TypeUrl, data: &[u8]) {
    let _ = read::name(data);
    let Ok(first) = read::resource(kind, data) else {
        return;
    };
    let bytes = written(&first);
    let second = read::resource(kind, &bytes);
    let second =
        second.unwrap_or_else(|error| panic!("refused what was written: {error}\n{first:#?}"));
    same(&first, &second);
    assert_eq!(bytes, written(&second), "the same is written differently");
}

fn written(resource: &Resource) -> Vec<u8> {
    match resource {
        Resource::Cluster(all) => {
            let own = all.endpoints.as_ref();
            write::encode("", &write::cluster(&all.cluster, own))
        }
        Resource::Endpoints(all) => write::encode("", &write::endpoints(&all.name, &all.endpoints)),
        Resource::Listener(all) => {
            let table = match &all.routes {
                RouteSource::Inline(table) => Some(&**table),
                RouteSource::Named(_) => None,
            };
            write::encode("", &write::listener(&all.listener, table))
        }
        Resource::Routes(table) => write::encode("", &write::route::table(table)),
        other => unreachable!("{other:?} is not read"),
    }
    .bytes
    .to_vec()
}

fn same(first: &Resource, second: &Resource) {
    match (first, second) {
        (Resource::Cluster(first), Resource::Cluster(second)) => {
            let (one, two) = (comparable(first), comparable(second));
            assert_eq!(one, two, "a cluster is not the same when written and read");
        }
        (Resource::Listener(first), Resource::Listener(second)) => {
            assert_eq!(first.listener, second.listener, "a listener");
            match (&first.routes, &second.routes) {
                (RouteSource::Inline(one), RouteSource::Inline(two)) => assert_eq!(one, two),
                // Where from and how long to wait is written in one way only.
                (RouteSource::Named(one), RouteSource::Named(two)) => {
                    assert_eq!(one.name, two.name, "where routes come from");
                }
                (one, two) => panic!("routes moved: {one:?}, {two:?}"),
            }
        }
        (first, second) => assert_eq!(first, second, "not the same when written and read"),
    }
}

/// Without what `write` says it leaves out because it has no effect.
fn comparable(resource: &ClusterResource) -> (Cluster, Option<EndpointSet>) {
    let mut cluster = resource.cluster.clone();
    let usual = Cluster::new("");
    if cluster.protocol == UpstreamProtocol::Http1 {
        cluster.max_concurrent_streams = usual.max_concurrent_streams;
        cluster.http2_keepalive = usual.http2_keepalive;
    }
    if cluster.discovery == DiscoveryKind::Authority {
        cluster.balancing = usual.balancing;
    }
    (cluster, resource.endpoints.clone())
}
