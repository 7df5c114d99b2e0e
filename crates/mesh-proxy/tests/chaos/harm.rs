//! What is wrong with what the control plane says.

use crate::plane::{bad_listener, bad_routes, cluster, listener, routes};
use crate::version;
use mesh_core::model::{Cluster, HttpManager, Listener};
use mesh_xds::pb::envoy::config::listener::v3::ListenerFilter;
use mesh_xds::pb::envoy::config::listener::v3::listener_filter::ConfigType;
use mesh_xds::pb::google::protobuf::Any;
use mesh_xds::server::Changes;
use mesh_xds::{Encoded, TypeUrl, write};
use std::net::SocketAddr;

/// How the clusters begin that never come into force.
pub(crate) const EXTRA: &str = "extra-";

/// One thing that is wrong.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Harm {
    /// The listener's bytes are no protobuf.
    Garbage,
    /// The listener has a filter that nobody knows.
    UnknownExtension,
    /// The listener has no address.
    NoAddress,
    /// The virtual host has no domains.
    NoDomains,
    /// A cluster beside the good one ends too early.
    Truncated,
    /// A cluster beside the good one has a time-out of nothing.
    NoTime,
}

// === impl Harm ===

impl Harm {
    pub(crate) const ALL: [Self; 6] = [
        Self::Garbage,
        Self::UnknownExtension,
        Self::NoAddress,
        Self::NoDomains,
        Self::Truncated,
        Self::NoTime,
    ];

    pub(crate) fn of_round(round: usize) -> Self {
        Self::ALL[round % Self::ALL.len()]
    }

    /// The type of the resource that is bad.
    pub(crate) fn kind(self) -> TypeUrl {
        match self {
            Self::Garbage | Self::UnknownExtension | Self::NoAddress => TypeUrl::Listener,
            Self::NoDomains => TypeUrl::Routes,
            Self::Truncated | Self::NoTime => TypeUrl::Cluster,
        }
    }

    /// The name of the resource that is bad.
    pub(crate) fn name(self, round: usize) -> String {
        match self.kind() {
            TypeUrl::Listener => "in".to_owned(),
            TypeUrl::Routes => "t".to_owned(),
            _ => format!("{EXTRA}{round}"),
        }
    }

    /// Whether its bytes say what it is called.
    pub(crate) fn has_name(self) -> bool {
        !matches!(self, Self::Garbage)
    }

    /// Makes it bad.
    pub(crate) fn done(self, round: usize, at: SocketAddr) -> Changes {
        let name = self.name(round);
        let resource = match self {
            Self::Garbage => Encoded::new("in", garbage(round)),
            Self::UnknownExtension => strange_listener(at),
            Self::NoAddress => bad_listener("in"),
            Self::NoDomains => bad_routes(),
            Self::Truncated => {
                let whole = cluster(&name).bytes;
                Encoded::new(name, whole[..whole.len() - 1].to_vec())
            }
            Self::NoTime => {
                let mut proto = write::cluster(&Cluster::new(&*name), None);
                proto.connect_timeout = Some(Default::default());
                write::encode(&name, &proto)
            }
        };
        Changes::new().set(self.kind(), resource)
    }

    /// Makes it good again, or takes it away.
    pub(crate) fn undone(self, round: usize, at: SocketAddr) -> Changes {
        let changes = Changes::new();
        match self.kind() {
            TypeUrl::Listener => changes.set(TypeUrl::Listener, listener("in", at)),
            TypeUrl::Routes => changes.set(TypeUrl::Routes, routes(&version(round))),
            kind => changes.remove(kind, self.name(round)),
        }
    }
}

/// Bytes that are no protobuf, others each round.
fn garbage(round: usize) -> Vec<u8> {
    // Too long for the key of a field, so that what follows never matters.
    let rest = (0..200).map(|at| (at * 31 + round * 17) as u8);
    [0xff; 11].into_iter().chain(rest).collect()
}

/// A listener that is fine but for a filter that nobody knows.
fn strange_listener(at: SocketAddr) -> Encoded {
    let model = Listener::http("in", at, HttpManager::new("in", "t"));
    let mut proto = write::listener(&model, None);
    let config = Any {
        type_url: "type.googleapis.com/acme.v1.Telepathy".to_owned(),
        value: Vec::new(),
    };
    proto.listener_filters.push(ListenerFilter {
        name: "acme.telepathy".to_owned(),
        config_type: Some(ConfigType::TypedConfig(config)),
        ..ListenerFilter::default()
    });
    write::encode("in", &proto)
}
