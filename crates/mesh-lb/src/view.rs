//! The hosts of a cluster as an admin page shows them.

use crate::health::Checked;
use crate::host::HostCounts;
use crate::{ClusterHosts, Host};
use mesh_core::HostId;
use mesh_core::model::{Address, Health, Locality};

/// One host at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HostView {
    /// Its id in this process.
    pub id: HostId,
    /// Where it is reached.
    pub address: Address,
    /// What discovery says of it.
    pub health: Health,
    /// Whether outlier detection has taken it out (`failed_outlier_check`).
    pub ejected: bool,
    /// What active health checks say of it.
    pub checked: Checked,
    /// Discovery does not name it any more (`pending_dynamic_removal`).
    pub leaving: bool,
    /// Its weight.
    pub weight: u32,
    /// Whether it is a canary.
    pub canary: bool,
    /// Its priority.
    pub priority: u32,
    /// Its region, zone and subzone.
    pub locality: Locality,
    /// Requests under way (`rq_active`).
    pub active: u32,
    /// What was counted since it became known.
    pub counts: HostCounts,
}

// === impl HostView ===

impl HostView {
    pub(crate) fn of(host: &Host) -> Self {
        Self {
            id: host.id(),
            address: host.address().clone(),
            health: host.endpoint().health,
            ejected: host.is_ejected(),
            checked: host.checked(),
            leaving: host.is_leaving(),
            weight: host.weight(),
            canary: host.endpoint().is_canary(),
            priority: host.priority(),
            locality: host.locality().clone(),
            active: host.active(),
            counts: host.counts(),
        }
    }
}

// === impl ClusterHosts ===

impl ClusterHosts {
    /// All hosts, in the order in which discovery names them, with the endpoints that are in
    /// force now. Hosts of requests that name their own endpoint are not among them.
    pub fn view(&self) -> Vec<HostView> {
        self.follow();
        self.current()
            .hosts()
            .iter()
            .map(|host| HostView::of(host))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_core::model::{Cluster, Endpoint, EndpointSet, LocalityEndpoints};
    use mesh_test::fixture::{address, snapshot};
    use std::sync::Arc;

    #[test]
    fn a_view_shows_endpoints_that_no_request_has_asked_for_yet() {
        let snapshot = snapshot(vec![], vec![Cluster::new("c")]);
        let entry = &snapshot.clusters()[0];
        let hosts = ClusterHosts::of(entry);
        assert_eq!(hosts.view()[0].address, address("127.0.0.1:9080"));

        let mut endpoint = Endpoint::new(address("10.0.0.1:80"));
        endpoint.health = Health::Degraded;
        endpoint.weight = 3;
        let mut group = LocalityEndpoints::default();
        group.locality.region = "r1".into();
        group.priority = 2;
        group.endpoints.push(Arc::new(endpoint));
        let mut set = EndpointSet::default();
        set.localities.push(group);
        entry.live().publish_endpoints(Arc::new(set));
        let view = hosts.view();
        assert_eq!(view.len(), 1);
        let host = &view[0];
        assert_eq!(
            (host.health, host.weight, host.priority),
            (Health::Degraded, 3, 2)
        );
        assert_eq!(host.locality.to_string(), "r1//");
        assert!(!host.ejected);
    }
}
