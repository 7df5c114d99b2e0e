//! Who is connected and how far they are.

use crate::{Node, TypeUrl};
use mesh_core::Name;
use std::net::SocketAddr;
use std::time::Duration;

/// The number of a stream, unique within a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub(super) u64);

/// The two protocols.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Variant {
    /// State of the world: a response speaks for a whole type.
    StateOfTheWorld,
    /// Incremental: a response says what changed.
    Delta,
}

/// What a stream carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// All types in order (ADS).
    Aggregated,
    /// One type.
    Only(TypeUrl),
}

/// The client at the other end of a stream.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Client {
    /// The number of the stream.
    pub stream: StreamId,
    /// Who it says that it is.
    pub node: Node,
    /// Its address, where known.
    pub address: Option<SocketAddr>,
    /// The protocol it speaks.
    pub variant: Variant,
    /// The types it may ask for.
    pub scope: Scope,
}

/// A stream and how far it is.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ConnectionStatus {
    /// Who it is.
    pub client: Client,
    /// How long it has been open.
    pub connected_for: Duration,
    /// The types that it asked for, in sending order.
    pub types: Vec<TypeStatus>,
}

/// How far a client is with one type.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct TypeStatus {
    /// Which type.
    pub kind: TypeUrl,
    /// Whether it subscribes to everything.
    pub wildcard: bool,
    /// How many names it subscribes to.
    pub named: usize,
    /// How many resources it was sent and not told to remove.
    pub resources: usize,
    /// All in one word.
    pub sync: Sync,
    /// The newest response.
    pub sent: Option<Sent>,
    /// The newest response that was acknowledged.
    pub acked: Option<Sent>,
    /// The newest response, if it was rejected.
    pub nacked: Option<Nacked>,
    /// How many removals wait until the client has acknowledged what no longer refers to them.
    pub held: usize,
}

/// How a client stands to what it should have; the words of `istioctl proxy-status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sync {
    /// Nothing was sent yet.
    NotSent,
    /// It has acknowledged everything there is.
    Synced,
    /// It has yet to acknowledge, or to be sent, something.
    Stale,
    /// It rejected the newest response.
    Nacked,
}

/// A response.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Sent {
    /// `version_info`, or `system_version_info` of the delta protocol.
    pub version: Name,
    /// Its nonce.
    pub nonce: Name,
    /// How long ago it was sent or acknowledged.
    pub ago: Duration,
}

/// A rejected response.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Nacked {
    /// Its version.
    pub version: Name,
    /// Its nonce.
    pub nonce: Name,
    /// What the client said.
    pub message: Name,
    /// How long ago.
    pub ago: Duration,
}

/// How a client stands to one resource.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ResourceStatus {
    /// Its name.
    pub name: Name,
    /// The version that the client was last sent, if any.
    pub version: Option<Name>,
    /// The state of that.
    pub state: ResourceState,
}

/// The states of a resource; the words of Envoy's `ClientResourceStatus`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ResourceState {
    /// Asked for, or sent and not yet answered.
    Requested,
    /// Asked for; there is none.
    DoesNotExist,
    /// Acknowledged.
    Acked,
    /// Acknowledged; there is a newer one.
    Stale,
    /// Rejected, or in the same response as something that was rejected.
    Nacked {
        /// What the client said.
        message: Name,
        /// The version that it had before and keeps, if any.
        before: Option<Name>,
    },
}
