//! Metadata: who a cluster or an endpoint stands for.

use crate::metadata::{
    BALANCING, HASH_KEY, ISTIO, LABELS, LISTENER, MESH, SERVICE, SERVICES, SUBSET, TRANSPORT,
    WORKLOAD, is_structure, parts_mut, port_in,
};
use crate::pb::envoy::config::core::v3::Metadata;
use crate::pb::google::protobuf::{ListValue, Struct, Value, value::Kind};
use crate::wire::json;
use mesh_core::Name;
use mesh_core::model::{Cluster, Endpoint, ServiceRef, WorkloadRef};
use std::collections::BTreeMap;

/// Metadata as istiod writes it, and in namespaces of our own what istiod's has no place for.
pub(super) fn cluster(cluster: &Cluster) -> Option<Metadata> {
    let mut metadata = Metadata::default();
    let ServiceRef {
        host,
        name,
        namespace,
        subset,
        port,
    } = &cluster.service;
    let mut expected = 0;
    if ![host, name, namespace].iter().all(|part| part.is_empty()) {
        let mut service = Struct::default();
        for (key, part) in [("host", host), ("name", name), ("namespace", namespace)] {
            service.fields.insert(key.to_owned(), text(part));
        }
        let service = of(Kind::StructValue(service));
        let services = ListValue {
            values: vec![service],
        };
        put(
            &mut metadata,
            ISTIO,
            SERVICES,
            of(Kind::ListValue(services)),
        );
        expected = port_in(&cluster.name);
    }
    if !subset.is_empty() {
        put(&mut metadata, ISTIO, SUBSET, text(subset));
    }
    if *port != expected {
        put(&mut metadata, SERVICE, "port", text(&port.to_string()));
    }
    for (name, value) in &cluster.metadata {
        let (namespace, key) = match name.split_once('/') {
            Some((namespace, key))
                if namespace != MESH && !is_structure(namespace, key) && !namespace.is_empty() =>
            {
                (namespace, key)
            }
            _ => (MESH, name.as_str()),
        };
        let value = match (namespace, key, value.as_str()) {
            // Istio's proxy reads these as booleans and takes text for false.
            (ISTIO, "external" | "disable_mx", "true") => of(Kind::BoolValue(true)),
            (ISTIO, "external" | "disable_mx", "false") => of(Kind::BoolValue(false)),
            _ => text(value),
        };
        put(&mut metadata, namespace, key, value);
    }
    some(metadata)
}

/// The workload and the labels of an endpoint.
pub(super) fn endpoint(endpoint: &Endpoint) -> Option<Metadata> {
    let mut metadata = Metadata::default();
    let mut workload = WorkloadRef::clone(&endpoint.workload);
    let parts = parts_mut(&mut workload);
    let (istio, own) = parts.split_at(5);
    let value = |part: &(&str, &mut Name)| (part.0.to_owned(), part.1.to_string());
    let istio: Vec<_> = istio.iter().map(value).collect();
    let mut own: Vec<_> = own
        .iter()
        .map(value)
        .filter(|(_, part)| !part.is_empty())
        .collect();
    // Istio's text has no way to say that a part contains the separator.
    if istio.iter().any(|(_, part)| part.contains(';')) {
        own.extend(istio.iter().cloned());
    }
    if istio.iter().any(|(_, part)| !part.is_empty()) {
        let parts: Vec<&str> = istio.iter().map(|(_, part)| part.as_str()).collect();
        put(&mut metadata, ISTIO, "workload", text(&parts.join(";")));
    }
    for (key, part) in own {
        put(&mut metadata, WORKLOAD, &key, text(&part));
    }
    for (key, label) in endpoint.labels.iter() {
        put(&mut metadata, LABELS, key, text(label));
    }
    for (key, value) in endpoint.subset.iter() {
        put(&mut metadata, BALANCING, key, value_of(value));
    }
    if !endpoint.hash_key.is_empty() {
        put(&mut metadata, BALANCING, HASH_KEY, text(&endpoint.hash_key));
    }
    for (key, value) in endpoint.transport.iter() {
        put(&mut metadata, TRANSPORT, key, value_of(value));
    }
    some(metadata)
}

/// What a request asks for of a cluster's endpoints.
pub(super) fn asked(subset: &BTreeMap<Name, Name>) -> Option<Metadata> {
    let mut metadata = Metadata::default();
    for (key, value) in subset {
        put(&mut metadata, BALANCING, key, value_of(value));
    }
    some(metadata)
}

/// Values from their names and JSON.
pub(super) fn values(all: &BTreeMap<Name, Name>) -> Struct {
    let fields = all.iter();
    let fields = fields.map(|(key, value)| (key.to_string(), value_of(value)));
    Struct {
        fields: fields.collect(),
    }
}

/// What is not JSON is taken for text.
fn value_of(json: &str) -> Value {
    json::value(json).unwrap_or_else(|| text(json))
}

/// What a listener's direction is called, where Envoy's own field does not say it.
pub(super) fn direction(name: &str) -> Option<Metadata> {
    let mut metadata = Metadata::default();
    put(&mut metadata, LISTENER, "direction", text(name));
    some(metadata)
}

fn put(metadata: &mut Metadata, namespace: &str, key: &str, value: Value) {
    let all = &mut metadata.filter_metadata;
    let fields = &mut all.entry(namespace.to_owned()).or_default().fields;
    fields.insert(key.to_owned(), value);
}

fn text(value: &str) -> Value {
    of(Kind::StringValue(value.to_owned()))
}

fn of(kind: Kind) -> Value {
    Value { kind: Some(kind) }
}

fn some(metadata: Metadata) -> Option<Metadata> {
    (!metadata.filter_metadata.is_empty()).then_some(metadata)
}
