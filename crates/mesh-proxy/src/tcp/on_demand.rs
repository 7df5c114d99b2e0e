//! Waiting for a cluster that does not exist yet (Envoy's `TcpProxy.on_demand`).

use super::meter::Meter;
use mesh_core::demand::{Missing, Outcome};
use mesh_core::stats::TcpStat;
use mesh_core::{Demand, Name};
use std::time::Duration;
use tokio::time::timeout;

/// Asks for a cluster and waits for the answer. Whether it came.
pub(super) async fn wait(name: &Name, limit: Duration, demand: &Demand, meter: &Meter) -> bool {
    meter.count(TcpStat::OnDemandAttempt);
    let answered = demand.ask(Missing::Cluster(name.clone()));
    let outcome = timeout(limit, answered).await;
    meter.count(match outcome {
        Ok(Outcome::Came) => TcpStat::OnDemandSuccess,
        Ok(Outcome::Refused) => TcpStat::OnDemandRefused,
        Ok(_) => TcpStat::OnDemandMissing,
        Err(_) => TcpStat::OnDemandTimeout,
    });
    outcome == Ok(Outcome::Came)
}
