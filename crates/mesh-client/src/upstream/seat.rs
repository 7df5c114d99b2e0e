//! What one connection takes of the limits on connections: of its cluster, and of its endpoint.

use mesh_core::Usage;
use mesh_core::model::Limits;
use mesh_core::usage::{Resource, Taken};
use mesh_lb::{Host, HostSeat};
use std::sync::Arc;

/// A place among the connections, given back when dropped.
#[derive(Debug)]
#[expect(dead_code, reason = "held for as long as the connection is there")]
pub(crate) struct Seat(HostSeat, Taken);

impl Seat {
    /// Takes a place; none where the endpoint or the cluster has as many as it may (Envoy
    /// `HostImplBase::canCreateConnection`, which asks in this order).
    pub(crate) fn take(host: &Host, usage: &Arc<Usage>, limits: &Limits) -> Option<Self> {
        let seat = host.seat(limits.max_connections_per_host)?;
        let taken = usage.take(Resource::Connections, limits.max_connections)?;
        Some(Self(seat, taken))
    }

    /// Takes one whatever the limits: for the one connection that a chosen endpoint gets.
    pub(crate) fn take_anyway(host: &Host, usage: &Arc<Usage>) -> Self {
        Self(host.seat_anyway(), usage.take_anyway(Resource::Connections))
    }
}
