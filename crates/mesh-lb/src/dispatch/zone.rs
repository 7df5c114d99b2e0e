//! Where the node is.

use mesh_core::Name;
use mesh_core::model::Locality;

/// Where the node is, and among whom.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Zone {
    /// The node's own locality (Envoy's `node.locality`). Localities that are told apart are
    /// ordered with it first.
    pub locality: Locality,
    /// The cluster whose endpoints are nodes like this one (Envoy's
    /// `cluster_manager.local_cluster_name`). Without it no zone is preferred.
    pub cluster: Option<Name>,
}
