//! From protobuf to the mesh model.
//!
//! Whatever is read is checked first as Envoy checks it (the constraints in its protobuf files),
//! then converted; what the model cannot say is refused with the field's path. Extensions without
//! an effect here are accepted by name only ([`ignored`]).

use mesh_core::Name;
use mesh_core::model::{Cluster, EndpointSet, Listener, RouteTable};
use std::path::PathBuf;
use std::time::Duration;

pub mod ignored;
pub mod route;

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
    /// The listener. Its manager's `routes` is the name of the table.
    pub listener: Listener,
    /// Its routes.
    pub routes: RouteSource,
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
}

/// Where a resource is to be got from (Envoy `ConfigSource`).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Source {
    /// The aggregated stream, or (`self`) the stream that the referring resource came from.
    Ads,
    /// A file that is watched.
    Path(PathBuf),
}
