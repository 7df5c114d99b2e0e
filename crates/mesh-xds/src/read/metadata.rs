//! Metadata: who a cluster or an endpoint stands for.
//!
//! Metadata has no effect of its own. What acts on it is read (subsets, keys to hash by, the choice
//! of a transport socket) or refused where it is configured (other matching on it), so metadata that nobody
//! here knows is no reason to refuse a resource.

use crate::metadata::{
    BALANCING, HASH_KEY, ISTIO, LABELS, MESH, SERVICE, SERVICES, SUBSET, TRANSPORT, WORKLOAD,
    is_structure, port_in,
};
use crate::pb::envoy::config::core::v3::Metadata;
use crate::pb::google::protobuf::{ListValue, Struct, Value, value::Kind};
use crate::wire::{json, pass_over};
use mesh_core::Name;
use mesh_core::model::{Cluster, Endpoint, ServiceRef, WorkloadRef};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Fills in the service of a cluster and the other facts about it.
///
/// Of several services (one port of a workload that many select) the first counts, as it does for
/// Istio's own metrics.
pub(super) fn cluster(metadata: &Metadata, cluster: &mut Cluster) {
    let Metadata {
        filter_metadata,
        typed_filter_metadata,
    } = metadata;
    pass_over!("envoy.config.core.v3.Metadata": typed_filter_metadata);
    if let Some(istio) = filter_metadata.get(ISTIO) {
        if let Some(service) = first_service(istio) {
            let part = |key| text_of(service, key);
            cluster.service = ServiceRef {
                host: part("host"),
                name: part("name"),
                namespace: part("namespace"),
                subset: Name::default(),
                port: port_in(&cluster.name),
            };
        }
        cluster.service.subset = text_of(istio, SUBSET);
    }
    let own_port = filter_metadata.get(SERVICE).map(|own| text_of(own, "port"));
    if let Some(port) = own_port.and_then(|port| port.parse().ok()) {
        cluster.service.port = port;
    }
    for (namespace, facts) in filter_metadata {
        for (key, value) in &facts.fields {
            if !is_structure(namespace, key) {
                let key = match namespace.as_str() {
                    MESH => Name::from(key),
                    _ => format!("{namespace}/{key}").into(),
                };
                cluster.metadata.insert(key, plain(value).into());
            }
        }
    }
}

/// What a request asks for of a cluster's endpoints (`metadata_match`), as Envoy has it: only its
/// own namespace counts.
pub(super) fn asked(metadata: Option<&Metadata>) -> BTreeMap<Name, Name> {
    let all = metadata.and_then(|metadata| metadata.filter_metadata.get(BALANCING));
    all.map(values).unwrap_or_default()
}

/// Names and values as JSON.
pub(super) fn values(all: &Struct) -> BTreeMap<Name, Name> {
    let all = all.fields.iter();
    all.map(|(key, value)| (Name::from(key), json::text(value).into()))
        .collect()
}

/// Fills in the workload behind an endpoint, its labels and what balancers go by.
pub(super) fn endpoint(metadata: &Metadata, endpoint: &mut Endpoint) {
    let all = &metadata.filter_metadata;
    let mut workload = WorkloadRef::default();
    if let Some(istio) = all.get(ISTIO) {
        // Istio's `name;namespace;canonical service;canonical revision;cluster`.
        let text = text_of(istio, "workload");
        let mut parts = text.split(';').map(Name::from);
        let mut next = || parts.next().unwrap_or_default();
        workload.name = next();
        workload.namespace = next();
        workload.canonical_service = next();
        workload.canonical_revision = next();
        workload.cluster = next();
    }
    if let Some(own) = all.get(WORKLOAD) {
        for (key, part) in crate::metadata::parts_mut(&mut workload) {
            if own.fields.contains_key(key) {
                *part = text_of(own, key);
            }
        }
    }
    if workload != WorkloadRef::default() {
        endpoint.workload = Arc::new(workload);
    }
    if let Some(labels) = all.get(LABELS) {
        let labels = labels.fields.iter();
        let labels: BTreeMap<_, _> = labels
            .map(|(key, value)| (Name::from(key), plain(value).into()))
            .collect();
        endpoint.labels = Arc::new(labels);
    }
    if let Some(own) = all.get(BALANCING) {
        let mut values = values(own);
        endpoint.hash_key = text_of(own, HASH_KEY);
        // A key that is no text, or an empty one, is not hashed.
        if !endpoint.hash_key.is_empty() {
            values.remove(HASH_KEY);
        }
        endpoint.subset = Arc::new(values);
    }
    if let Some(own) = all.get(TRANSPORT) {
        endpoint.transport = Arc::new(values(own));
    }
}

fn first_service(istio: &Struct) -> Option<&Struct> {
    let Some(Kind::ListValue(ListValue { values })) = &istio.fields.get(SERVICES)?.kind else {
        return None;
    };
    match &values.first()?.kind {
        Some(Kind::StructValue(service)) => Some(service),
        _ => None,
    }
}

/// The text at a key; empty where there is none.
fn text_of(fields: &Struct, key: &str) -> Name {
    match fields.fields.get(key).and_then(|value| value.kind.as_ref()) {
        Some(Kind::StringValue(text)) => text.into(),
        _ => Name::default(),
    }
}

/// A value as people read it: a text is itself, anything else as in JSON.
fn plain(value: &Value) -> String {
    match &value.kind {
        Some(Kind::StringValue(text)) => text.clone(),
        _ => json::text(value),
    }
}
