//! How a client stands with its control plane.

use super::machine::KindStatus;
use crate::TypeUrl;
use mesh_core::Name;
use std::collections::BTreeMap;
use std::time::SystemTime;

/// How a client stands with its control plane.
///
/// Resources one by one are [`Handle::resources`](super::Handle::resources): they are many, and
/// looked at rarely.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Status {
    /// Whether a stream is open (Envoy's `control_plane.connected_state`).
    pub connected: bool,
    /// Since when it is so.
    pub since: SystemTime,
    /// The server that the stream is open to, or was.
    pub server: Option<Name>,
    /// Why the last stream ended, or could not be opened.
    pub last_error: Option<String>,
    /// What is known of each type that is asked for, over all authorities.
    pub kinds: BTreeMap<TypeUrl, KindStatus>,
    /// How it stands with the servers of each authority
    /// ([`Builder::authority`](super::Builder::authority)).
    pub authorities: BTreeMap<Name, AuthorityStatus>,
}

/// How a client stands with the servers of an authority.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AuthorityStatus {
    /// Whether a stream is open.
    pub connected: bool,
    /// Since when it is so.
    pub since: SystemTime,
    /// The server that the stream is open to, or was.
    pub server: Option<Name>,
    /// Why the last stream ended, or could not be opened.
    pub last_error: Option<String>,
}
