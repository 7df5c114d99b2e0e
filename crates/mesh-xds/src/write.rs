//! From the mesh model to protobuf, in Istio's and Envoy's own terms.
//!
//! What is read back is what was written, with these exceptions, none of which has an effect:
//! origins; HTTP/2 settings of a cluster that speaks HTTP/1.1; how a cluster whose endpoints
//! requests or connections name would balance them; what is found out about connections because a
//! chain asks about it, as Envoy does it; values that Envoy refuses, which become the nearest that it
//! takes (a percentage above 100, a weight of 0, a status of a rate limit that is not on Envoy's
//! list).
//!
//! What Envoy cannot be told it refuses, rather than be told something else: a TLS server without a
//! certificate, a check of names without roots, lists of revoked certificates that are not in a
//! file. Of two tables with one name, a listener gets the first.
//!
//! ```
//! use mesh_core::model::{Cluster, EndpointSet};
//! use mesh_xds::{read, write};
//!
//! let mut reviews = Cluster::new("reviews");
//! reviews.limits.max_requests = 7;
//! let proto = write::cluster(&reviews, None);
//! let back = read::cluster(&proto)?;
//! assert_eq!(back.cluster, reviews);
//! assert_eq!(back.eds.map(|from| from.name), Some("reviews".into()));
//! # Ok::<(), mesh_core::Invalid>(())
//! ```

use crate::pb::envoy::config::cluster::v3::Cluster as ClusterProto;
use crate::pb::envoy::config::cluster::v3::cluster::DnsLookupFamily;
use crate::pb::envoy::config::core::v3 as core;
use crate::pb::envoy::config::core::v3::config_source::ConfigSourceSpecifier;
use crate::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
use crate::pb::envoy::config::listener::v3::Listener as ListenerProto;
use crate::pb::envoy::extensions::common::dynamic_forward_proxy::v3::DnsCacheConfig;
use crate::pb::envoy::extensions::transport_sockets::tls::v3::Secret as SecretProto;
use crate::wire::to_duration;
use crate::{Encoded, TypeUrl, schema};
use mesh_core::discovery::NameTable;
use mesh_core::model::{
    Address, Cluster, DiscoveryKind, EndpointSet, Listener, ListenerAddress, RouteTable, Secret,
    SecretName, Snapshot, UnixPath,
};
use std::time::Duration;
use zeroize::Zeroizing;

mod access_log;
mod authn;
mod authz;
mod cluster;
mod endpoint;
mod external;
mod filter_state;
mod http;
mod listener;
mod metadata;
pub mod route;
mod session;
mod tls;

pub(crate) use access_log::ISTIO_FORMAT;

/// The names that a node may resolve in the mesh (Istio's NDS).
pub fn name_table(table: &NameTable) -> Encoded {
    crate::names::encode(table)
}

/// Writes a cluster.
///
/// With endpoints, they come with it. Without, a cluster of [`DiscoveryKind::Endpoints`] refers to
/// the resource of its own name on the aggregated stream and waits for it for ever, as istiod's
/// do; another kind has none.
pub fn cluster(cluster: &Cluster, endpoints: Option<&EndpointSet>) -> ClusterProto {
    cluster::cluster(cluster, endpoints)
}

/// Writes the endpoints of the cluster with this name.
pub fn endpoints(name: &str, set: &EndpointSet) -> ClusterLoadAssignment {
    endpoint::endpoints(name, set)
}

/// Writes a listener. The tables of `routes` that its managers name are written into it; to the
/// others it refers, on the aggregated stream.
///
/// Envoy cannot use it for clusters of [`DiscoveryKind::Authority`]: see
/// [`forwarding_listener`].
pub fn listener<'a>(
    listener: &Listener,
    routes: impl IntoIterator<Item = &'a RouteTable>,
) -> ListenerProto {
    let routes: Vec<_> = routes.into_iter().collect();
    listener::listener(listener, &routes, false)
}

/// Writes a listener whose routes may lead to clusters of [`DiscoveryKind::Authority`].
///
/// For those, Envoy needs its dynamic forward proxy filter in the listener. It lets requests to
/// other clusters pass.
pub fn forwarding_listener<'a>(
    listener: &Listener,
    routes: impl IntoIterator<Item = &'a RouteTable>,
) -> ListenerProto {
    let routes: Vec<_> = routes.into_iter().collect();
    listener::listener(listener, &routes, true)
}

/// Writes a secret, with all that it holds: for the one who asked for it, and nobody else. See
/// [`redacted`].
pub fn secret(name: &str, secret: &Secret) -> SecretProto {
    tls::secret(name, secret)
}

/// Writes a secret that lies in files, or is the machine's: for an Envoy on a machine that has
/// them, and no agent that could hand them out. A name that does not say where anything lies
/// becomes a secret that Envoy refuses.
pub fn secret_in_files(name: &str, at: SecretName<'_>) -> SecretProto {
    tls::secret_in_files(name, at)
}

/// The same, encoded. Its bytes are wiped from memory when the last user drops them.
pub fn encode_secret(name: &str, secret: &Secret) -> Encoded {
    use prost::Message as _;
    let proto = crate::wire::Wiped(tls::secret(name, secret));
    // It has no maps, so these bytes are always the same, and no copy of them is made on the way.
    let bytes = Zeroizing::new(proto.0.encode_to_vec());
    Encoded::new(name, bytes::Bytes::from_owner(bytes))
}

/// The same secret without what nobody may see, as Envoy shows it in dumps.
pub fn redacted(secret: &SecretProto) -> SecretProto {
    use prost::{Message as _, Name as _};
    let bytes = Zeroizing::new(secret.encode_to_vec());
    let shown = schema::redact(&SecretProto::full_name(), &bytes);
    // What was taken out left a message.
    SecretProto::decode(shown.as_slice()).unwrap_or_default()
}

/// The bytes of a resource as dumps may show them: without what nobody may see.
#[cfg(any(feature = "client", feature = "server"))]
pub(crate) fn redacted_bytes(kind: TypeUrl, bytes: &[u8]) -> bytes::Bytes {
    schema::redact(schema::name_in_url(kind.url()), bytes).into()
}

/// Everything that a proxy needs for a snapshot, in the order in which an aggregated stream sends
/// it.
///
/// Clusters of [`DiscoveryKind::Endpoints`] refer to their endpoints and listeners to their
/// routes, each a resource of its own. Other clusters have their endpoints with them.
pub fn snapshot(snapshot: &Snapshot) -> Vec<(TypeUrl, Encoded)> {
    let clusters = snapshot.clusters();
    let mut out = Vec::new();
    for entry in clusters {
        let config = entry.config();
        let own = match config.discovery {
            DiscoveryKind::Endpoints => None,
            _ => Some(entry.live().given().load()),
        };
        let proto = cluster(config, own.as_deref());
        out.push((TypeUrl::Cluster, encode(&config.name, &proto)));
    }
    for entry in clusters {
        let config = entry.config();
        if config.discovery == DiscoveryKind::Endpoints {
            let proto = endpoints(&config.name, &entry.live().given().load());
            out.push((TypeUrl::Endpoints, encode(&config.name, &proto)));
        }
    }
    let forwards = |kind| kind == DiscoveryKind::Authority;
    let forwards = clusters
        .iter()
        .any(|entry| forwards(entry.config().discovery));
    for one in snapshot.listeners() {
        let proto = listener::listener(one, &[], forwards);
        out.push((TypeUrl::Listener, encode(&one.name, &proto)));
    }
    for table in snapshot.tables() {
        let proto = route::table(table);
        out.push((TypeUrl::Routes, encode(&table.name, &proto)));
    }
    out
}

/// Encodes a resource so that equal ones have equal bytes, and so the same version.
///
/// Protobuf leaves the order of a map's entries open, and it differs from one map to the next
/// here; they are sorted.
pub fn encode<M: prost::Message + prost::Name>(name: &str, message: &M) -> Encoded {
    let bytes = schema::canonical(&M::full_name(), message.encode_to_vec());
    Encoded::new(name, bytes)
}

/// The aggregated stream, for a resource that is waited for for ever.
pub(crate) fn ads() -> core::ConfigSource {
    core::ConfigSource {
        initial_fetch_timeout: Some(to_duration(Duration::ZERO)),
        resource_api_version: core::ApiVersion::V3.into(),
        config_source_specifier: Some(ConfigSourceSpecifier::Ads(
            core::AggregatedConfigSource::default(),
        )),
        ..core::ConfigSource::default()
    }
}

/// The cache that clusters of [`DiscoveryKind::Authority`] and the filter before them share: Envoy
/// wants it to be the same in all places.
fn dns_cache() -> DnsCacheConfig {
    DnsCacheConfig {
        name: "mesh".to_owned(),
        // The default looks for IPv6 first and takes nothing else if it finds some.
        dns_lookup_family: DnsLookupFamily::All.into(),
        ..DnsCacheConfig::default()
    }
}

/// Where a listener is, with the file mode of a Unix domain socket.
fn to_listener_address(address: &ListenerAddress, mode: u32) -> core::Address {
    match address {
        ListenerAddress::Socket(socket) => to_address(&Address::Socket(*socket)),
        ListenerAddress::Unix(path) => to_pipe(path, mode),
    }
}

fn to_pipe(path: &UnixPath, mode: u32) -> core::Address {
    let pipe = core::Pipe {
        path: path.to_string(),
        // Envoy refuses a mode for what is in no file system.
        mode: match path.abstract_name() {
            Some(_) => 0,
            None => mode,
        },
    };
    core::Address {
        address: Some(core::address::Address::Pipe(pipe)),
    }
}

pub(crate) fn to_address(address: &Address) -> core::Address {
    let (host, port) = match address {
        Address::Socket(socket) => (socket.ip().to_string(), socket.port()),
        Address::Host(name, port) => (name.to_string(), *port),
        Address::Unix(path) => return to_pipe(path, 0),
        other => unreachable!("{other:?} has no form in protobuf"),
    };
    let socket = core::SocketAddress {
        address: host,
        port_specifier: Some(core::socket_address::PortSpecifier::PortValue(port.into())),
        ..core::SocketAddress::default()
    };
    core::Address {
        address: Some(core::address::Address::SocketAddress(socket)),
    }
}
