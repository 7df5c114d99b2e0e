//! Resource types, and resources as they travel.

use bytes::Bytes;
use mesh_core::Name;
use std::fmt;
use std::time::Duration;
use xxhash_rust::xxh3::xxh3_128;

use crate::schema;

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
    /// VHDS. By delta only.
    VirtualHost,
    /// SDS.
    Secret,
    /// ECDS. Passed on by the server, not read.
    Extension,
    /// RTDS. Passed on by the server, not read.
    Runtime,
    /// Istio's NDS: the names that a node may resolve in the mesh.
    NameTable,
}

/// One resource, ready to be sent.
///
/// The version is a hash of the contents, so a resource that did not change is never sent again,
/// on a new connection either.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Encoded {
    /// Its name.
    pub name: Name,
    /// Its version.
    pub version: Name,
    /// Its protobuf bytes.
    pub bytes: Bytes,
    /// How long a client keeps it without hearing from the server (`Resource.ttl`); see
    /// [`Encoded::with_ttl`].
    pub ttl: Option<Duration>,
    /// VHDS: other names by which it is asked for, `TABLE/HOST` each; see
    /// [`Encoded::with_aliases`].
    pub aliases: Vec<Name>,
}

// === impl TypeUrl ===

impl TypeUrl {
    /// Every type, in sending order.
    pub const ALL: [Self; 10] = [
        Self::Cluster,
        Self::Endpoints,
        Self::Listener,
        Self::Routes,
        Self::ScopedRoutes,
        Self::VirtualHost,
        Self::Secret,
        Self::Extension,
        Self::Runtime,
        Self::NameTable,
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
            Self::NameTable => "type.googleapis.com/istio.networking.nds.v1.NameTable",
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
            Self::NameTable => "NDS",
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
            ttl: None,
            aliases: Vec::new(),
        }
    }

    /// The resource expires at a client that does not hear from the server for this long. Only
    /// clients that announce `xds.config.supports-resource-ttl` are told. Part of the version: a
    /// new time to live is sent.
    #[must_use]
    pub fn with_ttl(mut self, ttl: Duration) -> Self {
        self.version = format!("{:032x}-{}", xxh3_128(&self.bytes), ttl.as_millis()).into();
        self.ttl = Some(ttl);
        self
    }

    /// A virtual host is the answer to whoever asks for one of these names, too (`Resource.aliases`):
    /// `TABLE/HOST` for each authority that it is for, in lower case. Only the delta protocol has
    /// that, and only for virtual hosts; it is without effect on other types.
    #[must_use]
    pub fn with_aliases(mut self, names: impl IntoIterator<Item = impl Into<Name>>) -> Self {
        self.aliases = names.into_iter().map(Into::into).collect();
        self
    }

    /// Encodes a message: always to the same bytes, though maps have no order.
    pub fn of<M: prost::Message + prost::Name>(name: impl Into<Name>, message: &M) -> Self {
        let bytes = message.encode_to_vec();
        Self::new(name, schema::canonical(&M::full_name(), bytes))
    }
}

impl fmt::Debug for Encoded {
    /// Without what it holds, which may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encoded")
            .field("name", &self.name)
            .field("version", &self.version)
            .field("bytes", &self.bytes.len())
            .field("ttl", &self.ttl)
            .finish()
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
    use envoy_types::pb::google::protobuf::{Struct, Value};

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
    fn a_new_time_to_live_is_a_new_version() {
        let one = Encoded::new("a", &b"x"[..]);
        let short = one.clone().with_ttl(Duration::from_secs(1));
        assert_ne!(short.version, one.version);
        assert_ne!(short.version, one.with_ttl(Duration::from_secs(2)).version);
    }

    #[test]
    fn the_version_does_not_depend_on_the_order_of_maps() {
        let version = || {
            let fields = (0..20).map(|index| (index.to_string(), Value::default()));
            let message = Struct {
                fields: fields.collect(),
            };
            Encoded::of("a", &message).version
        };
        // Each hash map has an order of its own.
        let first = version();
        assert!((0..10).all(|_| version() == first));
    }

    #[test]
    fn what_is_referred_to_is_sent_first() {
        let mut sorted = TypeUrl::ALL;
        sorted.sort();
        assert_eq!(sorted, TypeUrl::ALL);
        assert!(TypeUrl::Endpoints < TypeUrl::Routes);
    }
}
