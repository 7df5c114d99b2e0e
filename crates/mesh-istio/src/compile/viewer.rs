//! The node that is compiled for, and what of it was looked at.
//!
//! What depends on nothing else of a node can be used for others that agree in it. Nodes are read
//! through [`Viewer`] and nowhere else, so that nothing that is looked at is forgotten.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use mesh_core::model::Locality;

use crate::node::{Capture, Node, Role};

/// A node as the compiler sees it.
#[derive(Debug)]
pub(super) struct Viewer<'a> {
    node: &'a Node,
    seen: Cell<Seen>,
}

/// Which properties of a node were looked at.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    namespace: bool,
    labels: bool,
    address: bool,
    family: bool,
    port: bool,
    allocated: bool,
    locality: bool,
}

/// What of a node something depends on, as it was.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    capture: Capture,
    gateway: bool,
    identity: bool,
    namespace: Option<String>,
    labels: Option<BTreeMap<String, String>>,
    address: Option<IpAddr>,
    v6: Option<bool>,
    port: Option<Option<u16>>,
    allocated: Option<bool>,
    locality: Option<Locality>,
}

// === impl Viewer ===

impl<'a> Viewer<'a> {
    pub(super) fn new(node: &'a Node) -> Self {
        Self {
            node,
            seen: Cell::default(),
        }
    }

    pub(super) fn capture(&self) -> Capture {
        self.node.capture
    }

    pub(super) fn is_gateway(&self) -> bool {
        matches!(self.node.role, Role::Gateway { .. })
    }

    /// Whether it has a certificate of the mesh.
    pub(super) fn has_identity(&self) -> bool {
        self.node.identity
    }

    pub(super) fn namespace(&self) -> &'a str {
        self.saw(|seen| seen.namespace = true);
        &self.node.namespace
    }

    pub(super) fn labels(&self) -> &'a BTreeMap<String, String> {
        self.saw(|seen| seen.labels = true);
        &self.node.labels
    }

    pub(super) fn locality(&self) -> &'a Locality {
        self.saw(|seen| seen.locality = true);
        &self.node.locality
    }

    /// Region, zone or subzone.
    pub(super) fn locality_part(&self, place: usize) -> &'a str {
        let Locality {
            region,
            zone,
            sub_zone,
        } = self.locality();
        [region, zone, sub_zone][place]
    }

    pub(super) fn address(&self) -> IpAddr {
        self.saw(|seen| seen.address = true);
        self.node.address
    }

    /// Whether its address is one of IPv6.
    pub(super) fn speaks_v6(&self) -> bool {
        self.saw(|seen| seen.family = true);
        self.node.address.is_ipv6()
    }

    /// Whether it uses the addresses that are allocated to services without any.
    pub(super) fn uses_allocated(&self) -> bool {
        self.saw(|seen| seen.allocated = true);
        self.node.uses_allocated()
    }

    /// Where the node's application reaches it, given the mesh's usual port.
    pub(super) fn outbound(&self, usual: u16) -> SocketAddr {
        self.saw(|seen| seen.port = true);
        self.node.outbound(usual)
    }

    /// Begins anew; returns what was seen so far.
    pub(super) fn forget(&self) -> Seen {
        self.seen.take()
    }

    /// Adds what was seen otherwise.
    pub(super) fn note(&self, more: Seen) {
        self.seen.set(self.seen.get().and(more));
    }

    pub(super) fn seen(&self) -> Seen {
        self.seen.get()
    }

    /// What the node is in what was seen of it.
    pub(super) fn asked(&self, seen: Seen) -> Asked {
        let node = self.node;
        Asked {
            capture: node.capture,
            gateway: self.is_gateway(),
            identity: node.identity,
            namespace: seen.namespace.then(|| node.namespace.clone()),
            labels: seen.labels.then(|| node.labels.clone()),
            address: seen.address.then_some(node.address),
            v6: seen.family.then_some(node.address.is_ipv6()),
            port: seen.port.then_some(node.base_port),
            allocated: seen.allocated.then(|| node.uses_allocated()),
            locality: seen.locality.then(|| node.locality.clone()),
        }
    }

    fn saw(&self, note: impl FnOnce(&mut Seen)) {
        let mut seen = self.seen.get();
        note(&mut seen);
        self.seen.set(seen);
    }
}

// === impl Seen ===

impl Seen {
    pub(super) fn and(self, more: Self) -> Self {
        Self {
            namespace: self.namespace || more.namespace,
            labels: self.labels || more.labels,
            address: self.address || more.address,
            family: self.family || more.family,
            port: self.port || more.port,
            allocated: self.allocated || more.allocated,
            locality: self.locality || more.locality,
        }
    }
}

// === impl Asked ===

impl Asked {
    /// Whether a node is the same in everything that was asked.
    pub(super) fn holds(&self, viewer: &Viewer<'_>) -> bool {
        let node = viewer.node;
        let is = |asked: &Option<String>, now: &str| asked.as_deref().is_none_or(|one| one == now);
        self.capture == node.capture
            && self.gateway == viewer.is_gateway()
            && self.identity == node.identity
            && is(&self.namespace, &node.namespace)
            && self.labels.as_ref().is_none_or(|one| *one == node.labels)
            && self.address.is_none_or(|one| one == node.address)
            && self.v6.is_none_or(|one| one == node.address.is_ipv6())
            && self.port.is_none_or(|one| one == node.base_port)
            && self
                .allocated
                .is_none_or(|one| one == node.uses_allocated())
            && self
                .locality
                .as_ref()
                .is_none_or(|one| *one == node.locality)
    }

    pub(super) fn seen(&self) -> Seen {
        Seen {
            namespace: self.namespace.is_some(),
            labels: self.labels.is_some(),
            address: self.address.is_some(),
            family: self.v6.is_some(),
            port: self.port.is_some(),
            allocated: self.allocated.is_some(),
            locality: self.locality.is_some(),
        }
    }
}
