//! How the service behind a host comes to be.

use crate::Host;
use mesh_core::model::ClusterEntry;
use std::sync::Arc;

/// Makes the service that sends requests to one host.
///
/// Each worker makes its own, on the first request that goes to the host, and drops it when the
/// host has left the cluster, the cluster the configuration, or the cluster's configuration has
/// changed. Requests under way hold a clone and finish on it. It is called with the worker's table
/// locked, so it only builds: connecting is done in the service's `poll_ready` or `call`.
///
/// A closure will do:
///
/// ```
/// use mesh_core::model::ClusterEntry;
/// use mesh_lb::{Host, MakeEndpoint};
/// use std::sync::Arc;
///
/// let make = |host: &Arc<Host>, _: &Arc<ClusterEntry>| host.address().to_string();
/// fn is_made_by<M: MakeEndpoint<Service = String>>(_: &M) {}
/// is_made_by(&make);
/// ```
pub trait MakeEndpoint: Clone + Send + 'static {
    /// The service. It is cloned for each request, and the clone is made ready before its one
    /// call, so limits on readiness hold and nothing waits on behalf of another request.
    type Service: Clone + Send;

    /// Whether the services count their requests themselves: in `upstream_rq_total` and with
    /// [`Host::sending`] once there is a connection for one, and in `upstream_rq_cancelled` if it
    /// was given up before, as Envoy does. Otherwise every request that goes to a host is counted.
    const COUNTS_REQUESTS: bool = false;

    /// Makes the service for `host`, a host of `cluster`.
    fn make(&self, host: &Arc<Host>, cluster: &Arc<ClusterEntry>) -> Self::Service;
}

impl<F, S> MakeEndpoint for F
where
    F: Fn(&Arc<Host>, &Arc<ClusterEntry>) -> S + Clone + Send + 'static,
    S: Clone + Send,
{
    type Service = S;

    fn make(&self, host: &Arc<Host>, cluster: &Arc<ClusterEntry>) -> S {
        self(host, cluster)
    }
}
