//! Metadata: who a cluster or an endpoint stands for.
//!
//! Metadata has no effect of its own. What acts on it (subset balancing, a choice of transport
//! socket, matching on it) is refused where it is configured, so metadata that nobody here knows
//! is no reason to refuse a resource.

use crate::metadata::{
    ISTIO, LABELS, MESH, SERVICE, SERVICES, SUBSET, WORKLOAD, is_structure, port_in,
};
use crate::pb::envoy::config::core::v3::Metadata;
use crate::pb::google::protobuf::{ListValue, Struct, Value, value::Kind};
use crate::wire::pass_over;
use mesh_core::Name;
use mesh_core::model::{Cluster, Endpoint, ServiceRef, WorkloadRef};
use std::collections::BTreeMap;
use std::fmt::Write as _;
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

/// Fills in the workload behind an endpoint and its labels.
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
        _ => {
            let mut out = String::new();
            json(value, &mut out);
            out
        }
    }
}

// The depth is bounded: protobuf is not decoded beyond a hundred levels.
fn json(value: &Value, out: &mut String) {
    match &value.kind {
        None | Some(Kind::NullValue(_)) => out.push_str("null"),
        Some(Kind::BoolValue(value)) => out.push_str(if *value { "true" } else { "false" }),
        Some(Kind::NumberValue(number)) => {
            let _ = write!(out, "{number}");
        }
        Some(Kind::StringValue(text)) => {
            let _ = write!(out, "{text:?}");
        }
        Some(Kind::ListValue(ListValue { values })) => {
            out.push('[');
            for (at, value) in values.iter().enumerate() {
                out.push_str(if at > 0 { "," } else { "" });
                json(value, out);
            }
            out.push(']');
        }
        Some(Kind::StructValue(Struct { fields })) => {
            let sorted: BTreeMap<_, _> = fields.iter().collect();
            out.push('{');
            for (at, (key, value)) in sorted.into_iter().enumerate() {
                let _ = write!(out, "{}{key:?}:", if at > 0 { "," } else { "" });
                json(value, out);
            }
            out.push('}');
        }
    }
}
