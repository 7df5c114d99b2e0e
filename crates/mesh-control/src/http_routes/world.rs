//! What is in force: objects, services, endpoints.

use super::answer;
use crate::Control;
use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use mesh_core::Name;
use mesh_core::discovery::{Instance, Service};
use mesh_istio::allocated;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// The objects as istiod lists them, each with the place where it stands.
pub(super) async fn configz(State(control): State<Control>) -> Response {
    let inputs = control.engine().inputs();
    let objects = inputs.iter().flat_map(|inputs| inputs.world.specs());
    let each = objects.map(|(object, spec)| {
        let meta = &object.meta;
        let spec = spec.and_then(|spec| serde_json::from_str::<Value>(&spec).ok());
        json!({
            "kind": meta.kind.to_string(),
            "apiVersion": meta.kind.api_version(),
            "metadata": {
                "namespace": meta.namespace,
                "name": meta.name,
                "labels": meta.labels,
                "annotations": meta.annotations,
                "creationTimestamp": (!meta.created.is_empty()).then_some(&meta.created),
            },
            "spec": spec,
            "namespace": meta.namespace,
            "name": meta.name,
            "file": &*meta.file,
            "line": meta.at.line,
            "column": meta.at.column,
        })
    });
    answer(StatusCode::OK, &each.collect())
}

/// Services with their endpoints, wherever those came from.
pub(super) async fn endpointz(State(control): State<Control>) -> Response {
    let inputs = control.engine().inputs();
    let table = control.engine().table();
    let services = inputs.iter().flat_map(|inputs| &inputs.services);
    let sorted: BTreeMap<_, _> = services.collect();
    let each = sorted.into_iter().map(|(host, known)| {
        let instances = table.instances(host).unwrap_or(&known.instances);
        let endpoints: Vec<_> = instances.iter().map(endpoint).collect();
        json!({"svc": &**host, "endpoints": endpoints})
    });
    answer(StatusCode::OK, &each.collect())
}

/// Services.
pub(super) async fn registryz(State(control): State<Control>) -> Response {
    let inputs = control.engine().inputs();
    let services = inputs.iter().flat_map(|inputs| &inputs.services);
    let sorted: BTreeMap<_, _> = services.collect();
    let allocated = inputs.as_ref().map(|inputs| allocated(&inputs.world));
    let allocated = allocated.unwrap_or_default();
    let each = sorted.values().map(|known| {
        let own = allocated.get(&known.service.id.host);
        service(&known.service, own.map(Vec::as_slice).unwrap_or_default())
    });
    answer(StatusCode::OK, &each.collect())
}

fn service(service: &Service, allocated: &[IpAddr]) -> Value {
    let ports = service.ports.iter().map(|port| {
        let protocol = format!("{:?}", port.protocol).to_ascii_uppercase();
        json!({"name": &*port.name, "port": port.number, "protocol": protocol})
    });
    let addresses = service.addresses.iter().map(ToString::to_string);
    let allocated = allocated.iter().map(ToString::to_string);
    let export_to = service.export_to.iter().map(|name| name.to_string());
    json!({
        "hostname": &*service.id.host,
        "namespace": &*service.id.namespace,
        "ports": ports.collect::<Vec<_>>(),
        "addresses": addresses.collect::<Vec<_>>(),
        "auto_allocated_addresses": allocated.collect::<Vec<_>>(),
        "labels": labels(&service.labels),
        "export_to": export_to.collect::<Vec<_>>(),
        "resolution": format!("{:?}", service.resolution),
        "external": service.external,
    })
}

fn endpoint(instance: &Instance) -> Value {
    let endpoint = &instance.endpoint;
    json!({
        "service_port": instance.port,
        "address": endpoint.address.to_string(),
        "weight": endpoint.weight,
        "health": format!("{:?}", endpoint.health).to_ascii_uppercase(),
        "locality": instance.locality.to_string(),
        "workload": &*endpoint.workload.name,
        "labels": labels(&endpoint.labels),
    })
}

fn labels(all: &BTreeMap<Name, Name>) -> Map<String, Value> {
    let each = all.iter();
    each.map(|(key, value)| (key.to_string(), value.to_string().into()))
        .collect()
}
