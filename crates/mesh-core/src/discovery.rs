//! What a source of services says, whatever the source is.
//!
//! A [`Registry`] (files today; Kubernetes, Consul and DNS can join) reports services and their
//! endpoints as [`Event`]s. Compiling routes and clusters from them is somebody else's work.

use crate::model::{Endpoint, Health, Locality, WorkloadRef};
use crate::{Name, Origin};
use std::collections::BTreeMap;
use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;

mod names;

pub use names::{NameInfo, NameTable, ShortName};

/// A source of services.
pub trait Registry: Send {
    /// Waits for the next thing that happened. `None` when the source is finished for good.
    ///
    /// # Cancel safety
    /// An event is lost only by dropping the value that this future returned.
    fn next(&mut self) -> impl Future<Output = Option<Event>> + Send;
}

/// Something that happened in a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A service that was not there before.
    ServiceAdded(Arc<Service>),
    /// A service whose ports, labels or other properties changed.
    ServiceChanged(Arc<Service>),
    /// A service that is gone.
    ServiceRemoved(ServiceId),
    /// The endpoints of a service changed, and nothing else.
    EndpointsChanged(ServiceId, Arc<Vec<Instance>>),
}

/// What tells one service from another: its full host name and namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceId {
    /// Full host name, e.g. `reviews.default.svc.cluster.local`.
    pub host: Name,
    /// Namespace of the object that declares it.
    pub namespace: Name,
}

/// A named set of ports that clients may call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Service {
    /// Its identity.
    pub id: ServiceId,
    /// Short name.
    pub name: Name,
    /// Where it was declared.
    pub origin: Origin,
    /// Addresses that clients may use besides the name.
    pub addresses: Vec<IpAddr>,
    /// Its ports.
    pub ports: Vec<ServicePort>,
    /// Labels of the service itself.
    pub labels: BTreeMap<Name, Name>,
    /// Namespaces that may see it; empty is all.
    pub export_to: Vec<Name>,
    /// How its endpoints become known.
    pub resolution: Resolution,
    /// It lies outside the mesh.
    pub external: bool,
}

/// A port of a service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServicePort {
    /// Its name, e.g. `http`.
    pub name: Name,
    /// The number that clients use.
    pub number: u16,
    /// What is spoken on it.
    pub protocol: AppProtocol,
}

/// What is spoken on a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AppProtocol {
    /// HTTP/1.1.
    #[default]
    Http,
    /// HTTP/2 with prior knowledge.
    Http2,
    /// gRPC.
    Grpc,
    /// Anything over TCP.
    Tcp,
    /// TLS that we do not terminate.
    Tls,
}

/// How the endpoints of a service become known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Resolution {
    /// The registry lists them.
    #[default]
    Static,
    /// By looking host names up: every address is an endpoint.
    Dns,
    /// By looking a host name up: connections go to one of its addresses (logical DNS).
    DnsRoundRobin,
    /// They are wherever the caller was going to.
    None,
    /// By looking up the name that the caller asks for.
    DynamicDns,
}

/// One workload that serves a port of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Instance {
    /// The service port that it serves.
    pub port: u16,
    /// Where it is, its weight, labels and workload.
    pub endpoint: Arc<Endpoint>,
    /// Region, zone, subzone.
    pub locality: Locality,
}

// === impl ServicePort ===

impl ServicePort {
    /// A port.
    pub fn new(name: impl Into<Name>, number: u16, protocol: AppProtocol) -> Self {
        Self {
            name: name.into(),
            number,
            protocol,
        }
    }
}

// === impl Service ===

impl Service {
    /// A service without ports.
    pub fn new(host: impl Into<Name>, namespace: impl Into<Name>) -> Self {
        Self {
            id: ServiceId {
                host: host.into(),
                namespace: namespace.into(),
            },
            ..Self::default()
        }
    }
}

// === impl Instance ===

impl Instance {
    /// An instance that serves `port`.
    pub fn new(port: u16, endpoint: Arc<Endpoint>) -> Self {
        Self {
            port,
            endpoint,
            locality: Locality::default(),
        }
    }

    /// Whether it may get requests.
    pub fn is_healthy(&self) -> bool {
        self.endpoint.health == Health::Healthy
    }

    /// The workload behind it.
    pub fn workload(&self) -> &Arc<WorkloadRef> {
        &self.endpoint.workload
    }
}
