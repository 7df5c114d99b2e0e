//! A management server that has endpoints checked (HDS): the proxy and a real Envoy take from it the
//! same, and report the same.
//!
//! Needs `MESH_ENVOY` and `MESH_PYTHON` (`cargo xtask envoy` and `cargo xtask python` print paths);
//! what is not there is said and skipped, but fails where `CI=true`.

// The modules of a test are for nobody else.
#![allow(unreachable_pub)]

#[allow(dead_code)]
#[path = "support/child.rs"]
mod child;
mod support;

use child::Proxy;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;
use tokio::sync::mpsc;

/// Longer than anything here takes.
const SOON: Duration = Duration::from_secs(60);

/// The management server; it ends with the test.
struct Plane {
    process: Child,
    commands: ChildStdin,
    messages: mpsc::UnboundedReceiver<Value>,
    port: u64,
}

impl Plane {
    async fn start(python: &str) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hds_full/server.py");
        let mut process = Command::new(python)
            .arg(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let commands = process.stdin.take().unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let (sender, messages) = mpsc::unbounded_channel();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if sender.send(serde_json::from_str(&line).unwrap()).is_err() {
                    return;
                }
            }
        });
        let mut plane = Self {
            process,
            commands,
            messages,
            port: 0,
        };
        plane.port = plane.next().await["port"].as_u64().unwrap();
        plane
    }

    fn tell(&mut self, command: &Value) {
        writeln!(self.commands, "{command}").unwrap();
    }

    async fn next(&mut self) -> Value {
        let next = tokio::time::timeout(SOON, self.messages.recv()).await;
        next.expect("something is said").expect("it runs")
    }

    /// Reads on until something is said like this.
    async fn until(&mut self, what: impl Fn(&Value) -> bool) -> Value {
        loop {
            let message = self.next().await;
            if what(&message) {
                return message;
            }
        }
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// An endpoint that is as the path of a question says. Its port.
fn endpoint() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                let (mut read, mut part) = (Vec::new(), [0; 1024]);
                while let Ok(more @ 1..) = stream.read(&mut part) {
                    read.extend_from_slice(&part[..more]);
                    if !read.ends_with(b"\r\n\r\n") {
                        continue;
                    }
                    let head = String::from_utf8_lossy(&read).into_owned();
                    read.clear();
                    let (code, field) = match head.split(' ').nth(1) {
                        Some("/late") => continue,
                        Some("/well") => (200, ""),
                        Some("/degraded") => (200, "x-envoy-degraded: true\r\n"),
                        _ => (503, ""),
                    };
                    let answer = format!("HTTP/1.1 {code} X\r\ncontent-length: 0\r\n{field}\r\n");
                    if stream.write_all(answer.as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    port
}

fn at(port: u16) -> Value {
    json!({"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}})
}

/// A cluster that is asked at this path, with endpoints in two places.
fn checked(path: &str, here: &[u16], there: &[u16]) -> Value {
    let mut check = json!({
        "timeout": "0.2s", "interval": "0.1s", "no_traffic_interval": "0.1s",
        "unhealthy_threshold": 1, "healthy_threshold": 1,
    });
    match path {
        "tcp" => check["tcp_health_check"] = json!({}),
        path => check["http_health_check"] = json!({ "path": path }),
    }
    let of = |ports: &[u16]| ports.iter().copied().map(at).collect::<Vec<_>>();
    let mut places = vec![json!({"locality": {"region": "r", "zone": "z"}, "endpoints": of(here)})];
    // Of a place without anybody Envoy 1.40 ends.
    if !there.is_empty() {
        places.push(json!({"endpoints": of(there)}));
    }
    json!({
        "cluster_name": path, "health_checks": [check], "locality_endpoints": places,
    })
}

/// The cluster of the management server, and where it is.
fn bootstrap(port: u64) -> Value {
    let http2 = json!({"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {}},
    }});
    let place = json!({"socket_address": {"address": "127.0.0.1", "port_value": port}});
    let plane = json!({
        "name": "plane",
        "type": "STATIC",
        "typed_extension_protocol_options": http2,
        "load_assignment": {"cluster_name": "plane", "endpoints": [
            {"lb_endpoints": [{"endpoint": {"address": place}}]},
        ]},
    });
    json!({
        "node": {"id": "checker", "cluster": "checkers"},
        "hds_config": {
            "api_type": "GRPC",
            "transport_api_version": "V3",
            "grpc_services": [{"envoy_grpc": {"cluster_name": "plane"}}],
        },
        "static_resources": {"clusters": [plane]},
    })
}

/// What a report says of a cluster, in the order of its endpoints.
fn of_cluster(report: &Value, name: &str) -> Vec<String> {
    let clusters = report["endpointHealthResponse"]["clusterEndpointsHealth"].as_array();
    let cluster = clusters
        .into_iter()
        .flatten()
        .find(|one| one["clusterName"] == name);
    let places = cluster.and_then(|one| one["localityEndpointsHealth"].as_array());
    let endpoints = places
        .into_iter()
        .flatten()
        .filter_map(|one| one["endpointsHealth"].as_array());
    endpoints
        .flatten()
        .map(|one| one["healthStatus"].as_str().unwrap().to_owned())
        .collect()
}

/// What a proxy says, once it does not change any more.
async fn reports(binary: &str, python: &str, ports: [u16; 2]) -> Vec<Value> {
    let directory = tempfile::tempdir().unwrap();
    let mut plane = Plane::start(python).await;
    let _proxy = Proxy::start(binary, bootstrap(plane.port), directory.path()).await;
    let [port, other] = ports;
    let first = plane.next().await;
    let request = &first["healthCheckRequest"];
    assert_eq!(request["node"]["id"], "checker");
    let mut told = vec![request["capability"].clone()];

    let all = json!({"interval": "0.1s", "cluster_health_checks": [
        checked("/well", &[port, 1], &[other]),
        checked("/ill", &[port], &[]),
        checked("/degraded", &[port], &[]),
        checked("/late", &[port], &[]),
    ]});
    plane.tell(&all);
    let settled = |report: &Value| {
        of_cluster(report, "/late") == ["TIMEOUT"]
            && of_cluster(report, "/well") == ["HEALTHY", "UNHEALTHY", "HEALTHY"]
    };
    told.push(plane.until(settled).await);

    // Nothing of what cannot be done is done.
    let unknown = json!({"cluster_name": "new", "health_checks": [{"timeout": "1s"}]});
    let bad = json!({"interval": "0.1s", "cluster_health_checks": [unknown]});
    plane.tell(&bad);
    told.push(plane.until(settled).await);
    told.push(plane.until(settled).await);

    let others = json!({"cluster_health_checks": [checked("tcp", &[other, 1], &[])]});
    plane.tell(&others);
    let settled = |report: &Value| of_cluster(report, "tcp") == ["HEALTHY", "UNHEALTHY"];
    told.push(plane.until(settled).await);

    // Whoever is cut off comes back, and waits for what is asked.
    plane.tell(&json!({"cut": true}));
    plane
        .until(|message| message["healthCheckRequest"].is_object())
        .await;
    plane.tell(&others);
    told.push(plane.until(settled).await);
    plane.tell(&json!({"interval": "0.1s"}));
    // Envoy says less than nothing: a message that is neither of the two.
    let nobody = |report: &Value| {
        let response = report["endpointHealthResponse"].as_object();
        response.is_none_or(serde_json::Map::is_empty)
    };
    plane.until(nobody).await;
    told
}

#[tokio::test]
async fn a_management_server_is_told_what_envoy_would_tell_it() {
    let found = |name: &str| match std::env::var(name) {
        Ok(path) => Some(path),
        Err(_) if std::env::var("CI").as_deref() == Ok("true") => panic!("{name} is not set"),
        Err(_) => {
            eprintln!("skipped: {name} is not set");
            None
        }
    };
    let Some(python) = found("MESH_PYTHON") else {
        return;
    };
    let ports = [endpoint(), endpoint()];
    let ours = reports(env!("CARGO_BIN_EXE_mesh-proxy"), &python, ports).await;
    let Some(envoy) = found("MESH_ENVOY") else {
        return;
    };
    let theirs = reports(&envoy, &python, ports).await;
    assert_eq!(ours, theirs);
}
