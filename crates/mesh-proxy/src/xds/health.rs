//! Endpoints that a management server wants checked (`hds_config`).

use super::servers;
use mesh_client::health::HealthChecks;
use mesh_core::Invalid;
use mesh_core::model::{Address, ClusterEntry};
use mesh_lb::{ClusterHosts, HostView};
use mesh_xds::bootstrap::Bootstrap;
use mesh_xds::client::{HealthClient, Reported};
use std::collections::HashMap;
use std::sync::Arc;

/// The client that a bootstrap asks for, if it does.
pub(super) fn of(bootstrap: &Bootstrap) -> Result<Option<HealthClient>, Invalid> {
    let client = |hds| {
        let servers = servers::of_ads(hds);
        HealthClient::new(servers, bootstrap.node.clone(), hds.connect_timeout)
    };
    let client = bootstrap.hds.as_ref().map(client).transpose();
    client.map_err(|error| error.within("hds_config"))
}

/// Checks and reports until the future is dropped.
pub(super) async fn run(client: Option<HealthClient>) {
    let Some(client) = client else { return };
    let checks = HealthChecks::new(client.snapshots());
    tokio::select! {
        () = checks.run() => {}
        () = client.run(health, std::future::pending()) => {}
    }
}

fn health(cluster: &Arc<ClusterEntry>) -> HashMap<Address, Reported> {
    let hosts = ClusterHosts::of(cluster).view();
    let of = |host: HostView| (host.address.clone(), reported(&host));
    hosts.into_iter().map(of).collect()
}

/// As Envoy reports it (`HdsDelegate::sendResponse`): who asks to be spared is not well.
fn reported(host: &HostView) -> Reported {
    match host.checked {
        checked if checked.failed && checked.late => Reported::Timeout,
        checked if checked.failed || checked.degraded => Reported::Unhealthy,
        _ => Reported::Healthy,
    }
}
