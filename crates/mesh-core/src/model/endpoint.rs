//! Endpoints: the addresses behind a cluster.

use super::{EndpointCheck, Fraction, UnixPath};
use crate::{Invalid, Name};
use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;

/// The endpoints of one cluster, grouped by locality (Envoy `ClusterLoadAssignment`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct EndpointSet {
    /// Groups of endpoints.
    pub localities: Vec<LocalityEndpoints>,
    /// How much more than its share a priority is trusted to take when endpoints of it fail, in
    /// percent (Envoy `overprovisioning_factor`). None is 140.
    pub overprovisioning: Option<u32>,
    /// Shares of requests that are refused, in order, each of what the one before left (Envoy
    /// `drop_overloads`).
    pub drops: Vec<Drop>,
}

/// A share of requests that discovery wants refused.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Drop {
    /// Why.
    pub category: Name,
    /// How many.
    pub share: Fraction,
}

/// The endpoints of one locality at one priority.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LocalityEndpoints {
    /// Where they are.
    pub locality: Locality,
    /// 0 is used first.
    pub priority: u32,
    /// Weight among the localities of the same priority, where the cluster weighs localities.
    pub weight: u32,
    /// The endpoints.
    pub endpoints: Vec<Arc<Endpoint>>,
}

/// A region, zone and subzone; each may be empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Locality {
    /// Region.
    pub region: Name,
    /// Zone in the region.
    pub zone: Name,
    /// Part of the zone.
    pub sub_zone: Name,
}

/// One endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Endpoint {
    /// Where to connect.
    pub address: Address,
    /// The name that the address was found under; empty is none (Envoy `Endpoint.hostname`).
    pub hostname: Name,
    /// Share of requests relative to others. At least 1.
    pub weight: u32,
    /// What its source says of its health.
    pub health: Health,
    /// What it says about its active health checks.
    pub check: Option<Arc<EndpointCheck>>,
    /// The workload behind it, as far as known.
    pub workload: Arc<WorkloadRef>,
    /// Its labels.
    pub labels: Arc<BTreeMap<Name, Name>>,
    /// What consistent hashing takes for it instead of its address; empty is none (Envoy's
    /// metadata `envoy.lb`, `hash_key`).
    pub hash_key: Name,
    /// What subsets are made by: the values as JSON (Envoy's metadata `envoy.lb`).
    pub subset: Arc<BTreeMap<Name, Name>>,
    /// What decides how connections to it are secured, where its cluster has
    /// [several ways](super::Cluster::tls_matches): the values as JSON (Envoy's metadata
    /// `envoy.transport_socket_match`).
    pub transport: Arc<BTreeMap<Name, Name>>,
}

/// An address to connect to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Address {
    /// An IP address and port.
    Socket(SocketAddr),
    /// A host name, resolved when connecting, and a port.
    Host(Name, u16),
    /// A Unix domain socket (Envoy `Pipe`).
    Unix(UnixPath),
}

/// Prints an address as Envoy does.
struct AsEnvoy<'a>(&'a Address);

/// What discovery says of an endpoint's health.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Health {
    /// May get requests.
    #[default]
    Healthy,
    /// Gets requests only when there are not enough healthy ones.
    Degraded,
    /// Gets none, but in panic.
    Unhealthy,
    /// Is going away: gets no new requests.
    Draining,
}

/// A workload as it appears in metrics. Empty parts are unknown.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct WorkloadRef {
    /// Workload (deployment) name.
    pub name: Name,
    /// Namespace.
    pub namespace: Name,
    /// `app` label.
    pub app: Name,
    /// `version` label.
    pub version: Name,
    /// Canonical service.
    pub canonical_service: Name,
    /// Canonical revision.
    pub canonical_revision: Name,
    /// SPIFFE identity.
    pub principal: Name,
    /// Cluster (Kubernetes cluster) id.
    pub cluster: Name,
}

// === impl Endpoint ===

impl Endpoint {
    /// A healthy endpoint of weight 1 about which nothing else is known.
    pub fn new(address: impl Into<Address>) -> Self {
        Self {
            address: address.into(),
            hostname: Name::default(),
            weight: 1,
            health: Health::Healthy,
            check: None,
            workload: Arc::default(),
            labels: Arc::default(),
            hash_key: Name::default(),
            subset: Arc::default(),
            transport: Arc::default(),
        }
    }
}

impl Endpoint {
    /// The name of its machine, if one is known.
    pub fn host_name(&self) -> Option<&Name> {
        match &self.address {
            _ if !self.hostname.is_empty() => Some(&self.hostname),
            Address::Host(name, _) => Some(name),
            Address::Socket(_) | Address::Unix(_) => None,
        }
    }

    /// Whether it is said to be a canary: `canary` in what subsets go by is true, and no text (Envoy
    /// `MetadataEnvoyLbKeys.CANARY`).
    pub fn is_canary(&self) -> bool {
        self.subset.get("canary").is_some_and(|is| is == "true")
    }
}

// === impl EndpointSet ===

impl EndpointSet {
    /// Endpoints of one unnamed locality at priority 0.
    pub fn of<A: Into<Address>>(addresses: impl IntoIterator<Item = A>) -> Self {
        let endpoints = addresses
            .into_iter()
            .map(|a| Arc::new(Endpoint::new(a)))
            .collect();
        Self::from_endpoints(endpoints)
    }

    /// Endpoints of one unnamed locality at priority 0.
    pub fn from_endpoints(endpoints: Vec<Arc<Endpoint>>) -> Self {
        Self {
            localities: vec![LocalityEndpoints {
                weight: 1,
                endpoints,
                ..Default::default()
            }],
            ..Self::default()
        }
    }

    /// All endpoints.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Endpoint>> {
        self.localities
            .iter()
            .flat_map(|locality| &locality.endpoints)
    }

    /// How many endpoints there are.
    pub fn len(&self) -> usize {
        self.localities
            .iter()
            .map(|locality| locality.endpoints.len())
            .sum()
    }

    /// Whether there is no endpoint.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

// === impl Address ===

impl Address {
    /// The port; 0 where there is none, as with a Unix domain socket.
    pub fn port(&self) -> u16 {
        match self {
            Self::Socket(address) => address.port(),
            Self::Host(_, port) => *port,
            Self::Unix(_) => 0,
        }
    }

    /// The Unix domain socket, where it is one.
    pub fn unix(&self) -> Option<&UnixPath> {
        match self {
            Self::Unix(path) => Some(path),
            Self::Socket(_) | Self::Host(..) => None,
        }
    }

    /// Prints it as Envoy does (`Address::asString`), in logs and in the admin interface: of a
    /// Unix domain socket only the path. [`Display`](fmt::Display) has what can be read back.
    pub fn as_envoy(&self) -> impl fmt::Display + '_ {
        AsEnvoy(self)
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self::Socket(address)
    }
}

impl From<UnixPath> for Address {
    fn from(path: UnixPath) -> Self {
        Self::Unix(path)
    }
}

impl FromStr for Address {
    type Err = Invalid;

    /// Reads `10.0.0.1:80`, `[::1]:80` or `example.com:80`, and of Unix domain sockets
    /// `unix:///path`, `unix://./relative` and `unix://@abstract`.
    fn from_str(text: &str) -> Result<Self, Invalid> {
        if let Some(path) = UnixPath::from_url(text) {
            return path.map(Self::Unix);
        }
        if let Ok(address) = text.parse() {
            return Ok(Self::Socket(address));
        }
        let wrong = || {
            Invalid::new(
                "",
                format!("{text:?} is not an address of the form HOST:PORT"),
            )
        };
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let port = port.parse().map_err(|_| wrong())?;
        if host.is_empty() || host.contains([':', '/', ' ', '[', ']']) {
            return Err(wrong());
        }
        Ok(Self::Host(host.into(), port))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(address) => address.fmt(f),
            Self::Host(host, port) => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix://{path}"),
        }
    }
}

// === impl AsEnvoy ===

impl fmt::Display for AsEnvoy<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Address::Unix(path) => path.fmt(f),
            other => other.fmt(f),
        }
    }
}

// === impl Locality ===

impl fmt::Display for Locality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.region, self.zone, self.sub_zone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn known() -> impl Strategy<Value = Address> {
        prop_oneof![
            any::<SocketAddr>().prop_map(|address| {
                // What is told of a zone is lost with its name.
                let plain = SocketAddr::new(address.ip(), address.port());
                Address::Socket(plain)
            }),
            ("[a-z][a-z0-9.-]{0,20}", any::<u16>())
                .prop_map(|(host, port)| Address::Host(host.into(), port)),
            "[@/.]?[^\u{0}]{1,20}"
                .prop_filter_map("too long", |path| UnixPath::new(&path).ok())
                .prop_map(Address::Unix),
        ]
    }

    #[test]
    fn a_unix_socket_is_told_from_a_host_by_its_scheme() {
        for path in ["/run/a.sock", "./var/run/a.sock", "@mesh", "a:80"] {
            let address: Address = format!("unix://{path}").parse().unwrap();
            assert_eq!(address, Address::Unix(UnixPath::new(path).unwrap()));
            assert_eq!(address.as_envoy().to_string(), path);
            assert_eq!(address.port(), 0);
        }
        for wrong in ["unix://", "unix:/a", "unix://@", "/run/a.sock", "@mesh"] {
            assert!(wrong.parse::<Address>().is_err(), "{wrong}");
        }
        let host: Address = "unix:80".parse().unwrap();
        assert_eq!(host, Address::Host("unix".into(), 80));
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_back(address in known()) {
            prop_assert_eq!(address.to_string().parse::<Address>(), Ok(address));
        }

        #[test]
        fn no_text_is_too_odd_to_be_judged(text in "(unix://?)?\\PC{0,130}") {
            if let Ok(address) = text.parse::<Address>() {
                prop_assert_eq!(address.to_string().parse::<Address>(), Ok(address));
            }
        }
    }
}
