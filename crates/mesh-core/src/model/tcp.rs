//! What is done with bytes that nobody looks into.

use super::listener::{AccessLog, Direction};
use crate::{Name, Origin};
use std::time::Duration;

/// How connections are passed on as they are (Envoy `TcpProxy`).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TcpProxy {
    /// Prefix of its statistics, e.g. `outbound|27017||mongo.default.svc.cluster.local`.
    pub stat_prefix: Name,
    /// Which side of the mesh this is.
    pub direction: Direction,
    /// Where connections go.
    pub target: TcpTarget,
    /// Access logs, in order.
    pub access_log: Vec<AccessLog>,
    /// Connection closed after this long without a byte either way. None is never; default 1 h.
    pub idle_timeout: Option<Duration>,
    /// How long any connection lives. Default without end.
    pub max_duration: Option<Duration>,
    /// How many endpoints are tried for one connection. At least 1, the default.
    pub max_connect_attempts: u32,
    /// Balancers that hash use the caller's address.
    pub hash_source_ip: bool,
    /// Pass the bytes through a tunnel.
    pub tunnel: Option<Tunnel>,
    /// Whether a cluster that does not exist is asked for. Default no; where Envoy's `on_demand`
    /// gives no limit it is 60 s.
    pub on_demand: super::ClustersOnDemand,
}

/// Where connections go.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TcpTarget {
    /// One of these by weight, drawn for each connection. Never empty; one alone always gets all.
    Clusters(Vec<TcpSplit>),
    /// The cluster that the TLS server name of the connection names (Envoy's `sni_cluster`
    /// filter), or this one where it has none.
    ServerName(Name),
}

/// A share of connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcpSplit {
    /// Where this was configured.
    pub origin: Origin,
    /// The cluster that gets it.
    pub cluster: Name,
    /// Its weight among the others.
    pub weight: u32,
}

/// A tunnel through an HTTP proxy (Envoy `TunnelingConfig`, Istio `tunnel`).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Tunnel {
    /// Where the proxy is to connect to, `HOST:PORT`.
    pub target: Name,
    /// Ask with POST rather than CONNECT.
    pub post: bool,
}

// === impl TcpProxy ===

impl TcpProxy {
    /// Passes everything to one cluster.
    pub fn to(stat_prefix: impl Into<Name>, cluster: impl Into<Name>) -> Self {
        let all = TcpSplit {
            origin: Origin::NONE,
            cluster: cluster.into(),
            weight: 1,
        };
        Self::new(stat_prefix, TcpTarget::Clusters(vec![all]))
    }

    /// Passes connections to a target.
    pub fn new(stat_prefix: impl Into<Name>, target: TcpTarget) -> Self {
        Self {
            stat_prefix: stat_prefix.into(),
            direction: Direction::Outbound,
            target,
            access_log: Vec::new(),
            idle_timeout: Some(Duration::from_secs(3600)),
            max_duration: None,
            max_connect_attempts: 1,
            hash_source_ip: false,
            tunnel: None,
            on_demand: super::ClustersOnDemand::Off,
        }
    }

    /// The clusters that it may lead to, with where that was configured, as far as configuration
    /// says.
    pub fn clusters(&self) -> impl Iterator<Item = (&Name, Origin)> {
        let (splits, fallback) = match &self.target {
            TcpTarget::Clusters(splits) => (splits.as_slice(), None),
            TcpTarget::ServerName(name) => (&[][..], Some((name, Origin::NONE))),
        };
        let splits = splits.iter().map(|split| (&split.cluster, split.origin));
        splits.chain(fallback)
    }
}
