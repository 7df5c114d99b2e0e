//! The mesh model: immutable configuration as plain data.
//!
//! A [`Snapshot`] is everything a data plane needs at one moment: listeners, route tables and
//! clusters that agree with each other. It is built whole by a [`SnapshotBuilder`], published
//! through a [`Feed`](crate::Feed), and pinned by each request for as long as the request lasts.
//!
//! ```
//! use mesh_core::model::*;
//!
//! let table = RouteTable::new("http").host(
//!     VirtualHost::new("reviews", ["reviews", "reviews:9080"])
//!         .rule(Rule::prefix_to("/v2", "reviews-v2"))
//!         .rule(Rule::prefix_to("/", "reviews-v1")),
//! );
//! let mut builder = SnapshotBuilder::new();
//! builder.routes(table);
//! for name in ["reviews-v1", "reviews-v2"] {
//!     builder.cluster(Cluster::new(name));
//!     builder.endpoints(name, EndpointSet::of(["127.0.0.1:9080".parse::<Address>()?]));
//! }
//! let (snapshot, warnings) = builder.build()?;
//! assert!(warnings.is_empty());
//! assert_eq!(snapshot.cluster("reviews-v1").map(|c| c.live().endpoints().load().len()), Some(1));
//! # Ok::<(), mesh_core::Invalid>(())
//! ```

mod authn;
mod authz;
mod balancing;
mod cluster;
mod condition;
mod edits;
mod endpoint;
mod external;
mod fault;
mod filter_state;
mod follow;
mod fraction;
mod health_check;
mod keys;
mod link;
mod listener;
mod live;
mod load_report;
mod mirror;
mod net;
mod opening;
mod overload;
mod path_template;
mod patterns;
mod policy;
mod rewrite;
mod route;
mod route_policies;
mod secret;
mod session;
mod tcp;
mod template_rewrite;
mod text;
mod tls;
mod unix;

pub use authn::*;
pub use authz::*;
pub use balancing::*;
pub use cluster::*;
pub use condition::*;
pub use edits::*;
pub use endpoint::*;
pub use external::*;
pub use fault::*;
pub use filter_state::*;
pub use follow::*;
pub use fraction::Fraction;
pub use health_check::*;
pub use keys::{KeyBook, KeySource, WantedKeys};
pub use link::{SnapshotBuilder, Warning};
pub use listener::*;
pub use live::{ClusterEntry, ClusterKey, ClusterStats, LiveCluster};
pub use load_report::ReportedWeights;
pub use mirror::Mirror;
pub use net::{Cidr, PortRange};
pub use opening::StreamOpening;
pub use overload::*;
pub use path_template::PathTemplate;
pub use patterns::{Matching, Patterns};
pub use policy::*;
pub use rewrite::*;
pub use route::*;
pub use route_policies::RoutePolicies;
pub use secret::{LiveSecret, Secret, SecretBytes, SecretName};
pub use session::*;
pub use tcp::*;
pub use template_rewrite::TemplateRewrite;
pub use text::{MAX_PATTERN, Pattern, StringMatch};
pub use tls::*;
pub use unix::{ListenerAddress, UnixPath};

use crate::{Name, Origins};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Everything a data plane needs at one moment, checked and linked.
#[derive(Debug, Default)]
pub struct Snapshot {
    version: u64,
    // Shared with the previous snapshot where nothing changed.
    listeners: Arc<Vec<Arc<Listener>>>,
    tables: Arc<Vec<Arc<RouteTable>>>,
    table_index: link::Index,
    /// The tables that say something of the filters that judge.
    policed: HashSet<Name>,
    clusters: Arc<Vec<Arc<ClusterEntry>>>,
    cluster_index: link::Index,
    secrets: Arc<HashMap<SecretRef, Arc<LiveSecret>>>,
    origins: Arc<Origins>,
    /// The key that the next new cluster gets.
    next_key: u64,
}

// === impl Snapshot ===

impl Snapshot {
    /// Grows with each snapshot built from a previous one.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The listeners, in the order in which they were given.
    pub fn listeners(&self) -> &[Arc<Listener>] {
        &self.listeners
    }

    /// The route tables.
    pub fn tables(&self) -> &[Arc<RouteTable>] {
        &self.tables
    }

    /// The place of a route table in [`Snapshot::tables`].
    pub fn table_index(&self, name: &str) -> Option<usize> {
        self.table_index.get(name).copied()
    }

    /// The route table with this name.
    pub fn table(&self, name: &str) -> Option<&Arc<RouteTable>> {
        self.tables.get(self.table_index(name)?)
    }

    /// Whether a rule or virtual host says something of the filters that judge
    /// ([`RoutePolicies`]).
    #[inline]
    pub fn says_policies(&self) -> bool {
        !self.policed.is_empty()
    }

    /// The clusters, in the order in which they were given.
    pub fn clusters(&self) -> &[Arc<ClusterEntry>] {
        &self.clusters
    }

    /// The place of a cluster in [`Snapshot::clusters`].
    pub fn cluster_index(&self, name: &str) -> Option<usize> {
        self.cluster_index.get(name).copied()
    }

    /// The cluster with this name.
    pub fn cluster(&self, name: &str) -> Option<&Arc<ClusterEntry>> {
        self.clusters.get(self.cluster_index(name)?)
    }

    /// The secrets that listeners and clusters name, by how they name them.
    pub fn secrets(&self) -> &Arc<HashMap<SecretRef, Arc<LiveSecret>>> {
        &self.secrets
    }

    /// A secret that a listener or cluster names.
    pub fn secret(&self, named: &SecretRef) -> Option<&Arc<LiveSecret>> {
        self.secrets.get(named)
    }

    /// Where each piece of this snapshot came from.
    pub fn origins(&self) -> &Arc<Origins> {
        &self.origins
    }
}
