//! Resource types, and resources as they travel.

use bytes::Bytes;
use mesh_core::Name;
use std::fmt;
use xxhash_rust::xxh3::xxh3_128;

/// The types of resources, in the order in which an aggregated stream sends them: what is referred
/// to goes before what refers to it (make before break).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum TypeUrl {
    /// CDS.
    Cluster,
    /// EDS.
    Endpoints,
    /// LDS.
    Listener,
    /// RDS.
    Routes,
    /// SRDS. Passed on by the server, not read.
    ScopedRoutes,
    /// VHDS. Passed on by the server, not read.
    VirtualHost,
    /// SDS.
    Secret,
    /// ECDS. Passed on by the server, not read.
    Extension,
    /// RTDS. Passed on by the server, not read.
    Runtime,
}

/// One resource, ready to be sent.
///
/// The version is a hash of the contents, so a resource that did not change is never sent again,
/// on a new connection either.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Encoded {
    /// Its name.
    pub name: Name,
    /// Its version.
    pub version: Name,
    /// Its protobuf bytes.
    pub bytes: Bytes,
}

// === impl TypeUrl ===

impl TypeUrl {
    /// Every type, in sending order.
    pub const ALL: [Self; 9] = [
        Self::Cluster,
        Self::Endpoints,
        Self::Listener,
        Self::Routes,
        Self::ScopedRoutes,
        Self::VirtualHost,
        Self::Secret,
        Self::Extension,
        Self::Runtime,
    ];

    /// The URL that names the type on the wire.
    pub fn url(self) -> &'static str {
        match self {
            Self::Cluster => "type.googleapis.com/envoy.config.cluster.v3.Cluster",
            Self::Endpoints => "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
            Self::Listener => "type.googleapis.com/envoy.config.listener.v3.Listener",
            Self::Routes => "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
            Self::ScopedRoutes => {
                "type.googleapis.com/envoy.config.route.v3.ScopedRouteConfiguration"
            }
            Self::VirtualHost => "type.googleapis.com/envoy.config.route.v3.VirtualHost",
            Self::Secret => "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
            Self::Extension => "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig",
            Self::Runtime => "type.googleapis.com/envoy.service.runtime.v3.Runtime",
        }
    }

    /// The type with this URL, if it is one of ours.
    pub fn from_url(url: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.url() == url)
    }

    /// The usual short name, e.g. `CDS`, as `istioctl` and metrics have it.
    pub fn short(self) -> &'static str {
        match self {
            Self::Cluster => "CDS",
            Self::Endpoints => "EDS",
            Self::Listener => "LDS",
            Self::Routes => "RDS",
            Self::ScopedRoutes => "SRDS",
            Self::VirtualHost => "VHDS",
            Self::Secret => "SDS",
            Self::Extension => "ECDS",
            Self::Runtime => "RTDS",
        }
    }

    /// Whether a state-of-the-world response that leaves a resource out removes it.
    pub fn absence_removes(self) -> bool {
        matches!(self, Self::Cluster | Self::Listener)
    }
}

// === impl Encoded ===

impl Encoded {
    /// A resource with these bytes; its version is their hash.
    pub fn new(name: impl Into<Name>, bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        let version = format!("{:032x}", xxh3_128(&bytes));
        Self {
            name: name.into(),
            version: version.into(),
            bytes,
        }
    }

    /// Encodes a message.
    pub fn of(name: impl Into<Name>, message: &impl prost::Message) -> Self {
        Self::new(name, message.encode_to_vec())
    }
}

impl fmt::Display for TypeUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.url())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_is_found_by_its_url_and_no_other() {
        for kind in TypeUrl::ALL {
            assert_eq!(TypeUrl::from_url(kind.url()), Some(kind));
        }
        assert_eq!(
            TypeUrl::from_url("type.googleapis.com/envoy.config.route.v3.Route"),
            None
        );
    }

    #[test]
    fn the_version_follows_the_bytes_and_not_the_name() {
        let one = Encoded::new("a", &b"x"[..]);
        assert_eq!(one.version, Encoded::new("b", &b"x"[..]).version);
        assert_ne!(one.version, Encoded::new("a", &b"y"[..]).version);
        assert_eq!(one.version.len(), 32);
    }

    #[test]
    fn what_is_referred_to_is_sent_first() {
        let mut sorted = TypeUrl::ALL;
        sorted.sort();
        assert_eq!(sorted, TypeUrl::ALL);
        assert!(TypeUrl::Endpoints < TypeUrl::Routes);
    }
}
