//! Connections of health checks: where to, and how they are secured.

use crate::upstream::connect::{Connector, Dial};
use crate::upstream::counted::Counted;
use crate::upstream::secure::Offer;
use crate::upstream::transport::Stream;
use crate::upstream::variant::Variant;
use mesh_core::Shard;
use mesh_core::model::{Address, ClusterEntry, EndpointCheck};
use mesh_core::stats::ClusterStat;
use mesh_lb::Host;
use mesh_lb::health::Answer;
use std::net::SocketAddr;
use std::sync::Arc;

/// Makes the connections to one endpoint.
pub(super) struct Dialer {
    connector: Connector,
    entry: Arc<ClusterEntry>,
    host: Arc<Host>,
    to: Address,
}

/// Who asks.
pub(super) const AGENT: &str = "Envoy/HC";

// === impl Dialer ===

impl Dialer {
    pub(super) fn new(connector: Connector, entry: Arc<ClusterEntry>, host: Arc<Host>) -> Self {
        let own = host.endpoint().check.as_deref();
        Self {
            to: target(host.address(), own),
            connector,
            entry,
            host,
        }
    }

    pub(super) fn entry(&self) -> &Arc<ClusterEntry> {
        &self.entry
    }

    pub(super) fn host(&self) -> &Arc<Host> {
        &self.host
    }

    /// The host of a question: what the endpoint says, else `wanted`, else the cluster's name.
    pub(super) fn authority(&self, wanted: &str) -> String {
        let own = self.host.endpoint().check.as_deref();
        let own = own.map_or("", |own| own.hostname.as_str());
        let name = self.entry.config().name.as_str();
        let given = [own, wanted].into_iter().find(|name| !name.is_empty());
        given.unwrap_or(name).to_owned()
    }

    pub(super) fn is_secured(&self) -> bool {
        let tls = self.entry.config().tls_to(self.host.endpoint());
        tls.is_some()
    }

    pub(super) fn count(&self, stat: ClusterStat) {
        self.entry
            .live()
            .stats()
            .block()
            .inc(Shard::default(), stat);
    }

    pub(super) async fn dial(&self, offer: Offer) -> Result<Stream, Answer> {
        let dial = Dial {
            connector: self.connector.clone(),
            host: self.host.clone(),
            entry: self.entry.clone(),
            variant: Variant::default(),
            offer,
            counted: Counted::new(self.entry.live().stats().clone(), Shard::default()),
        };
        let made = dial.attempt(&self.to).await;
        made.map(|made| made.stream).map_err(|error| {
            let cluster = self.entry.config().name.as_str();
            tracing::debug!(cluster, to = %self.to, %error, "health check cannot connect");
            Answer::Unreachable
        })
    }
}

/// Where an endpoint is asked.
fn target(own: &Address, check: Option<&EndpointCheck>) -> Address {
    let Some(check) = check else {
        return own.clone();
    };
    let address = check.address.as_ref().unwrap_or(own);
    match (address, check.port) {
        (Address::Socket(at), Some(port)) => Address::Socket(SocketAddr::new(at.ip(), port)),
        (Address::Host(name, _), Some(port)) => Address::Host(name.clone(), port),
        (other, _) => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_may_be_asked_elsewhere() {
        let own: Address = "10.0.0.1:80".parse().unwrap();
        let to = |address: Option<&str>, port| {
            let check = EndpointCheck {
                address: address.map(|address| address.parse().unwrap()),
                port,
                ..EndpointCheck::default()
            };
            target(&own, Some(&check)).to_string()
        };
        assert_eq!(target(&own, None), own);
        assert_eq!(to(None, None), "10.0.0.1:80");
        assert_eq!(to(None, Some(81)), "10.0.0.1:81");
        assert_eq!(to(Some("10.0.0.2:9"), None), "10.0.0.2:9");
        assert_eq!(to(Some("10.0.0.2:9"), Some(81)), "10.0.0.2:81");
        assert_eq!(to(Some("x.example:9"), Some(81)), "x.example:81");
    }
}
