//! Who a client of xDS says that it is.

use crate::pb::envoy::config::core::v3 as core;
use crate::pb::google::protobuf::{Struct, Value, value::Kind};
use std::collections::BTreeMap;

/// A client of a control plane: Envoy's `Node`, read with Istio's conventions.
///
/// ```
/// use mesh_xds::Node;
///
/// let node = Node::new("sidecar~10.0.0.1~reviews-v1.shop~shop.svc.cluster.local")
///     .with_text("NAMESPACE", "shop")
///     .with_map("LABELS", [("app", "reviews")]);
/// assert_eq!(node.kind(), Some("sidecar"));
/// assert_eq!(node.workload(), Some(("reviews-v1", "shop")));
/// assert_eq!(node.map("LABELS")["app"], "reviews");
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Node {
    proto: core::Node,
}

// === impl Node ===

impl Node {
    /// A node with this id and nothing else.
    pub fn new(id: impl Into<String>) -> Self {
        Self {
            proto: core::Node {
                id: id.into(),
                user_agent_name: "mesh-proxy".to_owned(),
                ..core::Node::default()
            },
        }
    }

    /// The message as it travels.
    pub fn from_proto(proto: core::Node) -> Self {
        Self { proto }
    }

    /// The message as it travels.
    pub fn to_proto(&self) -> core::Node {
        self.proto.clone()
    }

    /// Its identity, e.g. `sidecar~10.0.0.1~reviews-v1.shop~shop.svc.cluster.local`.
    pub fn id(&self) -> &str {
        &self.proto.id
    }

    /// The service that it belongs to (`--service-cluster` of Envoy).
    pub fn cluster(&self) -> &str {
        &self.proto.cluster
    }

    /// Sets the service that it belongs to.
    #[must_use]
    pub fn with_cluster(mut self, cluster: impl Into<String>) -> Self {
        self.proto.cluster = cluster.into();
        self
    }

    /// Istio's first part of the id: `sidecar`, `router`, `waypoint` and so on.
    pub fn kind(&self) -> Option<&str> {
        self.part(0)
    }

    /// Istio's second part of the id: an IP address of the node.
    pub fn address(&self) -> Option<&str> {
        self.part(1)
    }

    /// Istio's third part of the id, `name.namespace`, taken apart.
    pub fn workload(&self) -> Option<(&str, &str)> {
        let (name, namespace) = self.part(2)?.rsplit_once('.')?;
        (!name.is_empty() && !namespace.is_empty()).then_some((name, namespace))
    }

    /// Istio's fourth part of the id: the DNS domain of the node's namespace, for instance
    /// `shop.svc.cluster.local`.
    pub fn domain(&self) -> Option<&str> {
        self.part(3)
    }

    /// Region, zone and subzone, where the node says so.
    pub fn locality(&self) -> Option<(&str, &str, &str)> {
        let at = self.proto.locality.as_ref()?;
        Some((&at.region, &at.zone, &at.sub_zone))
    }

    /// Whether the client announces this feature, e.g. `xds.config.supports-resource-ttl`.
    pub fn has_feature(&self, feature: &str) -> bool {
        self.proto.client_features.iter().any(|has| has == feature)
    }

    /// A text in the metadata.
    pub fn text(&self, key: &str) -> Option<&str> {
        text(self.metadata()?.fields.get(key)?)
    }

    /// A map of texts in the metadata, e.g. `LABELS`; what is no text is left out.
    pub fn map(&self, key: &str) -> BTreeMap<&str, &str> {
        let value = self.metadata().and_then(|all| all.fields.get(key));
        let Some(Kind::StructValue(map)) = value.and_then(|value| value.kind.as_ref()) else {
            return BTreeMap::new();
        };
        map.fields
            .iter()
            .filter_map(|(key, value)| Some((key.as_str(), text(value)?)))
            .collect()
    }

    /// Says where the node runs.
    #[must_use]
    pub fn with_locality(mut self, (region, zone, sub_zone): (&str, &str, &str)) -> Self {
        self.proto.locality = Some(core::Locality {
            region: region.to_owned(),
            zone: zone.to_owned(),
            sub_zone: sub_zone.to_owned(),
        });
        self
    }

    /// Puts a text into the metadata.
    #[must_use]
    pub fn with_text(self, key: &str, value: impl Into<String>) -> Self {
        self.with(key, Kind::StringValue(value.into()))
    }

    /// Puts a map of texts into the metadata.
    #[must_use]
    pub fn with_map<K: Into<String>, V: Into<String>>(
        self,
        key: &str,
        entries: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        let fields = entries
            .into_iter()
            .map(|(key, value)| (key.into(), of(Kind::StringValue(value.into()))))
            .collect();
        self.with(key, Kind::StructValue(Struct { fields }))
    }

    fn with(mut self, key: &str, kind: Kind) -> Self {
        let metadata = self.proto.metadata.get_or_insert_default();
        metadata.fields.insert(key.to_owned(), of(kind));
        self
    }

    fn metadata(&self) -> Option<&Struct> {
        self.proto.metadata.as_ref()
    }

    fn part(&self, at: usize) -> Option<&str> {
        let mut parts = self.proto.id.split('~');
        let part = parts.nth(at)?;
        // Four parts or none: an id of another convention may have a tilde too.
        (self.proto.id.split('~').count() == 4 && !part.is_empty()).then_some(part)
    }
}

fn of(kind: Kind) -> Value {
    Value { kind: Some(kind) }
}

fn text(value: &Value) -> Option<&str> {
    match value.kind.as_ref()? {
        Kind::StringValue(text) => Some(text),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_of_another_convention_has_no_parts() {
        for id in ["", "envoy-1", "a~b", "a~b~c~d~e", "~~~"] {
            let node = Node::new(id);
            assert_eq!((node.kind(), node.workload()), (None, None), "{id}");
        }
        assert_eq!(Node::new("sidecar~1.2.3.4~no-namespace~x").workload(), None);
    }

    #[test]
    fn metadata_of_another_kind_is_not_text() {
        let node = Node::new("n").with_map("A", [("b", "c")]);
        assert_eq!(node.text("A"), None);
        assert!(node.with_text("T", "x").map("T").is_empty());
    }
}
