//! Istio's documents: services in a registry of files, and what VirtualServices, DestinationRules,
//! Gateways and Sidecars make of requests to them.

mod calls;
mod policies;
mod rules;
mod texts;

use crate::config::{Config, Role, Source};
use crate::dice::Dice;
use serde_json::{Value, json};

/// What everything in a configuration is made for.
#[derive(Clone, Copy, Debug)]
struct Place {
    role: Role,
    /// The sidecar's listener is for services of one port, which is its own; otherwise, and on
    /// gateways, the services' port is 80.
    by_port: bool,
}

pub(super) fn generate(dice: &mut Dice, requests: usize) -> Config {
    let gateway = dice.chance(35);
    let place = Place {
        role: if gateway {
            Role::Gateway
        } else {
            Role::Sidecar
        },
        by_port: dice.chance(60),
    };
    let mut documents = vec![mesh(dice, place)];
    documents.extend(services(place));
    documents.extend(policies::destination_rules(dice, place));
    let (http, delegates) = rules::http(dice, place);
    let hosts: &[&str] = match place.role {
        Role::Sidecar | Role::Inbound => &["a", "alias.{id}.test", "*.wild.{id}.test"],
        Role::Gateway => &["shop.{id}.test", "*.wild.{id}.test"],
    };
    let mut spec = json!({"hosts": hosts, "http": http});
    if place.role == Role::Gateway {
        spec["gateways"] = json!(["gw"]);
    } else if dice.chance(25) {
        spec["gateways"] = json!(["mesh", "gw"]);
    }
    if dice.chance(20) {
        spec["exportTo"] = json!([dice.pick(&["*", "."])]);
    }
    documents.push(object("VirtualService", "main", spec));
    for (n, http) in delegates.into_iter().enumerate() {
        let spec = json!({"http": http});
        documents.push(object("VirtualService", &format!("leaf{n}"), spec));
    }
    if let Some(other) = second(dice, place) {
        documents.push(other);
    }
    documents.push(match place.role {
        Role::Sidecar | Role::Inbound => sidecar(dice, place),
        Role::Gateway => way_in(dice),
    });
    let calls = (0..requests)
        .map(|_| calls::call(dice, place, &documents))
        .collect();
    Config {
        area: "yaml",
        source: Source::istio(place.role, documents),
        calls,
    }
}

fn object(kind: &str, name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": "networking.istio.io/v1",
        "kind": kind,
        "metadata": {"name": name},
        "spec": spec,
    })
}

impl Place {
    /// The port of the services.
    fn port(self) -> Value {
        match self.role {
            Role::Sidecar if self.by_port => json!("@listener"),
            _ => json!(80),
        }
    }
}

/// What holds for the whole mesh.
fn mesh(dice: &mut Dice, place: Place) -> Value {
    let mut spec = json!({});
    if dice.chance(25) {
        spec["defaultHttpRetryPolicy"] = json!({"attempts": 1, "retryOn": "503,reset"});
    }
    // Of paths as they came a client inside of a process knows nothing else.
    if place.role == Role::Gateway && dice.chance(50) {
        let kinds = ["NONE", "BASE", "MERGE_SLASHES", "DECODE_AND_MERGE_SLASHES"];
        spec["pathNormalization"] = json!({"normalization": dice.pick(&kinds)});
    }
    json!({"kind": "MeshConfig", "spec": spec})
}

/// Services of Kubernetes with three versions, one version that hashes, HTTP/2, for copies, and one
/// outside of the mesh.
fn services(place: Place) -> Vec<Value> {
    let port = place.port();
    let ports = json!([{"name": "http", "port": port}, {"name": "http-more", "port": 8081}]);
    let service = |name: &str, ports: &Value| {
        json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name},
            "spec": {"selector": {"app": name}, "ports": ports},
        })
    };
    let workload = |name: &str, version: &str, backend: &str| {
        let port = format!("@{backend}");
        let spec = json!({
            "address": "127.0.0.1",
            "labels": {"app": name, "version": version},
            "ports": {"http": port, "http-more": port, "http2": port},
        });
        object("WorkloadEntry", &format!("{name}-{version}"), spec)
    };
    let mut all = Vec::new();
    for name in ["a", "k", "m"] {
        all.push(service(name, &ports));
    }
    all.push(service("h", &json!([{"name": "http2", "port": port}])));
    for name in ["a", "k"] {
        for (version, backend) in [("v1", "a"), ("v2", "b"), ("v3", "c")] {
            all.push(workload(name, version, backend));
        }
    }
    all.push(workload("m", "v1", "m"));
    all.push(workload("h", "v1", "h"));
    let entry = json!({
        "hosts": ["out.{id}.test"],
        "location": "MESH_EXTERNAL",
        "resolution": "STATIC",
        "ports": [{"number": port, "name": "http", "protocol": "HTTP"}],
        "endpoints": [{"address": "127.0.0.1", "ports": {"http": "@d"}, "labels": {"version": "v1"}}],
    });
    all.push(object("ServiceEntry", "out", entry));
    let gone = json!({
        "hosts": ["gone.{id}.test"],
        "resolution": "STATIC",
        "ports": [{"number": port, "name": "http", "protocol": "HTTP"}],
        "endpoints": [{"address": "127.0.0.1", "ports": {"http": "@nobody"}}],
    });
    all.push(object("ServiceEntry", "gone", gone));
    all
}

/// Rules for the service outside of the mesh, or on gateways more for a host that has some.
fn second(dice: &mut Dice, place: Place) -> Option<Value> {
    if !dice.chance(50) {
        return None;
    }
    let http = json!([{
        "name": "second",
        "match": [{"uri": {"prefix": "/second"}}],
        "headers": {"response": {"set": {"x-second": "yes"}}},
        "route": [{"destination": {"host": "out.{id}.test"}}],
    }]);
    let mut spec = json!({"hosts": ["out.{id}.test"], "http": http});
    if place.role == Role::Gateway {
        spec["hosts"] = json!(["shop.{id}.test", "out.{id}.test"]);
        spec["gateways"] = json!(["{id}/gw"]);
    }
    Some(object("VirtualService", "second", spec))
}

fn sidecar(dice: &mut Dice, place: Place) -> Value {
    let protocol = if place.by_port {
        dice.pick(&["HTTP", "HTTP2", "GRPC"])
    } else {
        "HTTP_PROXY"
    };
    let mut spec = json!({
        "egress": [{
            "port": {"number": "@listener", "protocol": protocol, "name": "way-out"},
            "bind": "{address}",
            "captureMode": "NONE",
            "hosts": [dice.pick(&["./*", "*/*", "{id}/*"])],
        }],
        "outboundTrafficPolicy": {"mode": dice.pick(&["REGISTRY_ONLY", "ALLOW_ANY"])},
    });
    if dice.chance(40) {
        spec["workloadSelector"] = json!({"labels": {"app": "client"}});
    }
    object("Sidecar", "narrow", spec)
}

fn way_in(dice: &mut Dice) -> Value {
    let hosts = dice.pick(&["*", "./*.{id}.test", "*.{id}.test"]);
    let server = json!({
        "port": {"number": "@listener", "name": "http", "protocol": "HTTP"},
        "bind": "{address}",
        "hosts": [hosts],
    });
    let mut spec = json!({"servers": [server]});
    spec["selector"] = json!({"app": "client"});
    if dice.chance(5) {
        spec["servers"][0]["tls"] = json!({"httpsRedirect": true});
    }
    object("Gateway", "gw", spec)
}
