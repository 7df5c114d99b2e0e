//! From protobuf to the mesh model.
//!
//! Whatever is read is checked first as Envoy checks it (the constraints in its protobuf files),
//! then converted; what the model cannot say is refused with the field's path. Extensions without
//! an effect here are accepted by name only ([`ignored`]).

use crate::pb::envoy::config::cluster::v3::Cluster as ClusterProto;
use crate::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
use crate::pb::envoy::config::listener::v3::Listener as ListenerProto;
use crate::pb::envoy::config::route::v3::{RouteConfiguration, VirtualHost as VirtualHostProto};
use crate::pb::envoy::extensions::transport_sockets::tls::v3::Secret as SecretProto;
use crate::{TypeUrl, schema};
use given::Given;
use mesh_core::discovery::NameTable;
use mesh_core::model::{
    Cluster, EndpointSet, Listener, RouteTable, Secret, SecretRef, StreamOpening, VirtualHost,
};
use mesh_core::{Invalid, Name};
use prost::Message;
pub(crate) use source::reference;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use zeroize::Zeroizing;

mod access_log;
mod address;
mod again;
mod authn;
mod authz;
mod cluster;
mod endpoint;
mod extension;
pub(crate) mod external;
mod filter_state;
mod given;
mod http;
pub mod ignored;
mod listener;
mod metadata;
#[cfg(any(feature = "client", feature = "json"))]
pub(crate) mod on_demand;
pub(crate) mod opening;
mod protocol;
pub mod route;
mod session;
mod source;
mod tcp;
mod tls;
mod transport;

#[cfg(feature = "client")]
pub(crate) use address::address as endpoint_address;
#[cfg(feature = "json")]
pub(crate) use address::listener_address;
pub use again::Reader;

/// A resource that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Resource {
    /// CDS.
    Cluster(Box<ClusterResource>),
    /// EDS.
    Endpoints(EndpointsResource),
    /// LDS.
    Listener(Box<ListenerResource>),
    /// RDS.
    Routes(Box<RouteTable>),
    /// SDS.
    Secret(SecretResource),
    /// Istio's NDS.
    NameTable(Box<NameTable>),
    /// VHDS.
    VirtualHost(Box<VirtualHostResource>),
}

/// A cluster, and where its endpoints are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterResource {
    /// The cluster.
    pub cluster: Cluster,
    /// Its endpoints, where they came with it.
    pub endpoints: Option<EndpointSet>,
    /// Where its endpoints come from, where that is a resource of its own (type EDS).
    pub eds: Option<Reference>,
    /// The secrets that came with it.
    pub secrets: Vec<(SecretRef, Arc<Secret>)>,
}

/// The endpoints of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointsResource {
    /// The resource's name (`cluster_name`), to which clusters refer.
    pub name: Name,
    /// The endpoints.
    pub endpoints: EndpointSet,
}

/// A listener, and where its routes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerResource {
    /// The listener. Each manager's `routes` is the name of its table.
    pub listener: Listener,
    /// Where the routes of each of its managers are, in the order of
    /// [`Listener::managers`].
    pub routes: Vec<RouteSource>,
    /// The secrets that came with it.
    pub secrets: Vec<(SecretRef, Arc<Secret>)>,
}

/// A virtual host that is a resource of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VirtualHostResource {
    /// The resource's name, `TABLE/` and anything without a slash. Read from the virtual host
    /// itself; what the stream calls it comes first.
    pub name: Name,
    /// The virtual host.
    pub host: VirtualHost,
    /// Those whose place it takes if it is accepted: what its aliases led to before. Said by the
    /// stream, not by the virtual host itself.
    pub instead_of: Vec<Name>,
}

/// A secret that is a resource of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretResource {
    /// Its name, to which listeners and clusters refer.
    pub name: Name,
    /// The secret.
    pub value: SecretValue,
}

/// What a resource says of a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SecretValue {
    /// This is it.
    Given(Arc<Secret>),
    /// It is in files, or is the machine's: the name that says which
    /// ([`SecretName`](mesh_core::model::SecretName)).
    At(Name),
}

/// Where a listener's routes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteSource {
    /// They came with it.
    Inline(Box<RouteTable>),
    /// They are a resource of their own (RDS).
    Named(Reference),
}

/// A resource that another one refers to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reference {
    /// Its name.
    pub name: Name,
    /// Where to get it.
    pub from: Source,
    /// How long to wait for it before going on without. None waits for ever (Envoy's 0); Envoy's
    /// default is 15 s.
    pub initial_fetch_timeout: Option<Duration>,
    /// The directory that is watched in place of a file's own, for files behind a symbolic link
    /// that is replaced (`path_config_source.watched_directory`).
    pub watched_directory: Option<PathBuf>,
}

/// Where a resource is to be got from (Envoy `ConfigSource`).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Source {
    /// The aggregated stream, or (`self`) the stream that the referring resource came from.
    Ads,
    /// A file that is watched.
    Path(PathBuf),
    /// A service of its own. Only secrets are to be got so.
    Service {
        /// The cluster that it is at.
        cluster: Name,
        /// Whether it is spoken to in the variant that sends only what changed (`DELTA_GRPC`).
        delta: bool,
        /// What its streams begin with besides.
        opening: StreamOpening,
    },
}

/// The field that every type of resource has its name in, and nothing else of it.
#[derive(Clone, PartialEq, Message)]
struct Named {
    #[prost(string, tag = "1")]
    name: String,
}

/// Reads a resource as it travels.
///
/// # Errors
/// If the bytes are no such message, if a field has a value that cannot be used, or if the model
/// cannot express it; with the path of the field in the resource. Types that are passed on but not
/// read are refused.
pub fn resource(kind: TypeUrl, bytes: &[u8]) -> Result<Resource, Invalid> {
    if kind == TypeUrl::NameTable {
        // Not Envoy's, so nothing is known of its constraints; it has none.
        let table = crate::names::decode(bytes)?;
        return Ok(Resource::NameTable(Box::new(table)));
    }
    schema::check(schema::name_in_url(kind.url()), bytes)?;
    match kind {
        TypeUrl::Cluster => cluster(&decode::<ClusterProto>(bytes)?)
            .map(Box::new)
            .map(Resource::Cluster),
        TypeUrl::Endpoints => {
            endpoints(&decode::<ClusterLoadAssignment>(bytes)?).map(Resource::Endpoints)
        }
        TypeUrl::Listener => listener(&decode::<ListenerProto>(bytes)?)
            .map(Box::new)
            .map(Resource::Listener),
        TypeUrl::Routes => route::table(&decode::<RouteConfiguration>(bytes)?)
            .map(Box::new)
            .map(Resource::Routes),
        TypeUrl::VirtualHost => {
            let host = route::virtual_host(&decode::<VirtualHostProto>(bytes)?)?;
            route::unpoliced(&host)?;
            let name = host.name.clone();
            Ok(Resource::VirtualHost(Box::new(VirtualHostResource {
                name,
                host,
                instead_of: Vec::new(),
            })))
        }
        TypeUrl::Secret => {
            // Of bytes like these no copy is made on the way, which would stay in memory.
            let bytes = bytes::Bytes::from_owner(Zeroizing::new(bytes.to_vec()));
            let proto = crate::wire::decode_secret(bytes)?;
            secret(&proto.0).map(Resource::Secret)
        }
        other => Err(Invalid::new("", format!("{other} is not supported"))),
    }
}

/// The name of a resource, also of one that [`resource`] refuses.
///
/// # Errors
/// If the bytes are no message at all.
pub fn name(bytes: &[u8]) -> Result<Name, Invalid> {
    Ok(decode::<Named>(bytes)?.name.into())
}

/// Reads a cluster.
///
/// # Errors
/// As [`resource`].
pub fn cluster(proto: &ClusterProto) -> Result<ClusterResource, Invalid> {
    cluster::cluster(proto)
}

/// Reads a listener.
///
/// # Errors
/// As [`resource`].
pub fn listener(proto: &ListenerProto) -> Result<ListenerResource, Invalid> {
    listener::listener(proto)
}

/// Reads the endpoints of a cluster.
///
/// # Errors
/// As [`resource`].
pub fn endpoints(proto: &ClusterLoadAssignment) -> Result<EndpointsResource, Invalid> {
    endpoint::resource(proto)
}

/// Reads a secret.
///
/// # Errors
/// As [`resource`]. What an error says never contains anything of the secret.
pub fn secret(proto: &SecretProto) -> Result<SecretResource, Invalid> {
    tls::secret(proto)
}

fn decode<M: Message + Default>(bytes: impl bytes::Buf) -> Result<M, Invalid> {
    M::decode(bytes).map_err(|error| Invalid::new("", format!("cannot be decoded: {error}")))
}
