//! Resources from a control plane: what is read can be written, and is the same when read again.

use crate::{Input, Target};
use mesh_core::model::{
    Cluster, DiscoveryKind, EndpointSet, SecretName, UpstreamProtocol, Validation,
};
use mesh_xds::read::{self, ClusterResource, Resource, RouteSource, SecretValue};
use mesh_xds::{TypeUrl, write};
use std::collections::HashSet;

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
    run: |data| {
        again(TypeUrl::Routes, data);
        // The name and the virtual hosts are where a virtual host has its name and its domains.
        again(TypeUrl::VirtualHost, data);
    },
    input: Input::Protobuf("envoy.config.route.v3.RouteConfiguration"),
};

/// `read_secret`
pub(crate) const SECRET: Target = Target {
    name: "read_secret",
    run: |data| again(TypeUrl::Secret, data),
    input: Input::Protobuf("envoy.extensions.transport_sockets.tls.v3.Secret"),
};

/// Reads, and if that is accepted writes and reads again.
pub(crate) fn again(kind: TypeUrl, data: &[u8]) {
    let _ = read::name(data);
    let Ok(first) = read::resource(kind, data) else {
        return;
    };
    if !has_a_form(&first) {
        return;
    }
    let bytes = written(&first);
    let second = read::resource(kind, &bytes);
    let second =
        second.unwrap_or_else(|error| panic!("refused what was written: {error}\n{first:#?}"));
    same(&first, &second);
    assert_eq!(bytes, written(&second), "the same is written differently");
}

/// Whether all that was read can be written: two tables of one name in one listener cannot, nor
/// lists of revoked certificates that are not in a file.
fn has_a_form(resource: &Resource) -> bool {
    let in_file = |validation: Option<&Validation>| {
        let revoked = validation.and_then(|validation| validation.revoked.as_ref());
        revoked
            .is_none_or(|named| matches!(SecretName::of(&named.name), SecretName::RevokedFile(_)))
    };
    match resource {
        Resource::Listener(all) => {
            let mut names = HashSet::new();
            let inline = all.routes.iter().filter_map(|routes| match routes {
                RouteSource::Inline(table) => Some(&table.name),
                RouteSource::Named(_) => None,
            });
            let named = all.routes.iter().filter_map(|routes| match routes {
                RouteSource::Inline(_) => None,
                RouteSource::Named(reference) => Some(&reference.name),
            });
            let inline: Vec<_> = inline.collect();
            let mut named = named.filter(|name| inline.contains(name));
            let chains = all.listener.all_chains();
            let mut tls = chains.filter_map(|chain| chain.tls.as_ref());
            inline.iter().all(|name| names.insert(*name))
                && named.next().is_none()
                && tls.all(|tls| in_file(tls.validation.as_ref()))
        }
        Resource::Cluster(all) => {
            let tls = all.cluster.tls.as_ref();
            in_file(tls.and_then(|tls| tls.validation.as_ref()))
        }
        _ => true,
    }
}

fn written(resource: &Resource) -> Vec<u8> {
    match resource {
        Resource::Cluster(all) => {
            let own = all.endpoints.as_ref();
            write::encode("", &write::cluster(&all.cluster, own))
        }
        Resource::Endpoints(all) => write::encode("", &write::endpoints(&all.name, &all.endpoints)),
        Resource::Listener(all) => {
            let tables = all.routes.iter().filter_map(|routes| match routes {
                RouteSource::Inline(table) => Some(&**table),
                RouteSource::Named(_) => None,
            });
            write::encode("", &write::listener(&all.listener, tables))
        }
        Resource::VirtualHost(host) => write::encode("", &write::route::virtual_host(&host.host)),
        Resource::Routes(table) => write::encode("", &write::route::table(table)),
        Resource::Secret(secret) => {
            let proto = match &secret.value {
                SecretValue::Given(given) => write::secret(&secret.name, given),
                SecretValue::At(name) => write::secret_in_files(&secret.name, SecretName::of(name)),
                other => unreachable!("{other:?} is not read"),
            };
            write::encode("", &proto)
        }
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
            assert_eq!(
                first.routes.len(),
                second.routes.len(),
                "routes of managers"
            );
            for (one, two) in first.routes.iter().zip(&second.routes) {
                match (one, two) {
                    (RouteSource::Inline(one), RouteSource::Inline(two)) => assert_eq!(one, two),
                    // Where from and how long to wait is written in one way only.
                    (RouteSource::Named(one), RouteSource::Named(two)) => {
                        assert_eq!(one.name, two.name, "where routes come from");
                    }
                    (one, two) => panic!("routes moved: {one:?}, {two:?}"),
                }
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
    let chosen = [DiscoveryKind::Authority, DiscoveryKind::OriginalDestination];
    if chosen.contains(&cluster.discovery) {
        cluster.balancing = usual.balancing;
    }
    (cluster, resource.endpoints.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, path::Path};

    /// What is refused at once shows little. A seed that is to be refused says so in its name.
    #[test]
    fn seeds_are_accepted() {
        for (target, kind) in [
            (CLUSTER, TypeUrl::Cluster),
            (ENDPOINTS, TypeUrl::Endpoints),
            (LISTENER, TypeUrl::Listener),
            (ROUTES, TypeUrl::Routes),
            (SECRET, TypeUrl::Secret),
        ] {
            let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds");
            for entry in fs::read_dir(seeds.join(target.name)).unwrap() {
                let path = entry.unwrap().path();
                let input = target.seed(&fs::read_to_string(&path).unwrap()).unwrap();
                let read = read::resource(kind, &input);
                let name = path.file_name().unwrap().to_string_lossy();
                let refused = name.starts_with("refused-");
                assert_eq!(read.is_err(), refused, "{}: {read:?}", path.display());
                assert!(refused || has_a_form(&read.unwrap()), "{}", path.display());
            }
        }
    }
}
