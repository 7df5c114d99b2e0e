//! Who called, and through which listener.

use crate::model::HttpManager;
use crate::stats::{Block, HttpStat, Shard};
use std::net::SocketAddr;
use std::sync::Arc;

/// The downstream side of a request: settled when the connection was accepted. Where the layers
/// are used without a proxy everything is unknown.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Caller {
    /// The worker that handles the connection.
    pub shard: Shard,
    /// The peer's address.
    pub peer: Option<SocketAddr>,
    /// The address that the peer connected to.
    pub local: Option<SocketAddr>,
    /// The settings of the listener.
    pub manager: Option<Arc<HttpManager>>,
    /// The statistics of the listener.
    pub stats: Option<Arc<Block<HttpStat>>>,
    /// The connection is encrypted.
    pub tls: bool,
}

// === impl Caller ===

impl Caller {
    /// The name of the listener's route table.
    pub fn routes(&self) -> Option<&crate::Name> {
        self.manager.as_ref().map(|manager| &manager.routes)
    }

    /// Counts in the listener's statistics, if there is a listener.
    pub fn count(&self, stat: HttpStat) {
        if let Some(stats) = &self.stats {
            stats.inc(self.shard, stat);
        }
    }
}
