//! `zoneAwareLbSetting` as a real Envoy does it, driven by our control plane, and as `mesh-proxy`
//! does it, driven by the same or by the files: who gets how many requests.
//!
//! Needs `MESH_ENVOY` (`cargo xtask envoy` prints a path); without it the test says so and passes,
//! but fails where `CI=true`.

#[allow(unreachable_pub)]
#[path = "../../mesh-proxy/tests/support/ports.rs"]
mod ports;
mod support;

use ports::free_address;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use support::{Client, wait_until};

/// Where the proxy is.
const PLACE: &str = "r1/z1";
const NODE: &str = "router~127.0.0.1~ingress-1.istio-system~istio-system.svc.cluster.local";

/// What is asked of a service, and who should get how many of the requests.
struct Scenario {
    name: &'static str,
    /// The setting.
    setting: &'static str,
    /// Where its endpoints are, by the names of their backends.
    endpoints: &'static [(&'static str, &'static str)],
    /// At least and at most, of 120.
    expected: &'static [(&'static str, [usize; 2])],
    /// The same from a proxy that does not know who is like it.
    blind: &'static [(&'static str, [usize; 2])],
}

const REQUESTS: usize = 120;
const NONE: [usize; 2] = [0, 0];
const ALL: [usize; 2] = [REQUESTS, REQUESTS];
const HALF: [usize; 2] = [REQUESTS / 2 - 1, REQUESTS / 2 + 1];
const THIRD: [usize; 2] = [REQUESTS / 3 - 1, REQUESTS / 3 + 1];
const BOTH_THIRDS: [usize; 2] = [2 * REQUESTS / 3 - 1, 2 * REQUESTS / 3 + 1];

/// As many as are enough for zones to be told apart, unless the setting says otherwise.
const SIX: &[(&str, &str)] = &[
    ("r1/z1", "near"),
    ("r1/z1", "near"),
    ("r1/z1", "near"),
    ("r1/z1", "near"),
    ("r1/z2", "next"),
    ("r1/z2", "next"),
];

/// Of three that are like the proxy, two are in its zone.
const SCENARIOS: [Scenario; 6] = [
    // Two thirds of the callers, and two thirds of the endpoints.
    Scenario {
        name: "enough",
        setting: "minClusterSize: 3",
        endpoints: &[
            ("r1/z1", "near"),
            ("r1/z1", "near"),
            ("r1/z2", "next"),
            ("r2/z1", "far"),
        ],
        expected: &[("near", ALL), ("next", NONE), ("far", NONE)],
        blind: &[("near", BOTH_THIRDS), ("next", THIRD), ("far", NONE)],
    },
    // Half of the endpoints for two thirds of the callers: three of four stay, 90 in the mean.
    Scenario {
        name: "some",
        setting: "minClusterSize: 1",
        endpoints: &[("r1/z1", "near"), ("r1/z2", "next"), ("r2/z1", "far")],
        expected: &[("near", [65, 113]), ("next", [7, 55]), ("far", NONE)],
        blind: &[("near", HALF), ("next", HALF), ("far", NONE)],
    },
    // Three endpoints, but two in the region, where there have to be three.
    Scenario {
        name: "small",
        setting: "minClusterSize: 3",
        endpoints: &[("r1/z1", "near"), ("r1/z2", "next"), ("r2/z1", "far")],
        expected: &[("near", HALF), ("next", HALF), ("far", NONE)],
        blind: &[("near", HALF), ("next", HALF), ("far", NONE)],
    },
    Scenario {
        name: "usual",
        setting: "enabled: true",
        endpoints: SIX,
        expected: &[("near", ALL), ("next", NONE)],
        blind: &[("near", BOTH_THIRDS), ("next", THIRD)],
    },
    // Envoy would prefer the zone of itself: there are six.
    Scenario {
        name: "off",
        setting: "enabled: false",
        endpoints: SIX,
        expected: &[("near", BOTH_THIRDS), ("next", THIRD)],
        blind: &[("near", BOTH_THIRDS), ("next", THIRD)],
    },
    Scenario {
        name: "failover",
        setting: "failover: [{from: r1, to: r3}]",
        endpoints: &[("r2/z1", "far"), ("r3/z1", "farther")],
        expected: &[("far", NONE), ("farther", ALL)],
        blind: &[("far", NONE), ("farther", ALL)],
    },
];

/// A process; it ends with the value.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A server that says its name, however often it is asked.
fn backend(name: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || serve(stream, name));
        }
    });
    port
}

fn serve(stream: TcpStream, name: &str) {
    let mut writer = stream.try_clone().unwrap();
    for line in BufReader::new(stream).lines() {
        let Ok(line) = line else { return };
        if line.is_empty() {
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", name.len());
            if writer.write_all((head + name).as_bytes()).is_err() {
                return;
            }
        }
    }
}

fn workload(namespace: &str, name: &str, labels: &str, place: &str, port: u16) -> String {
    format!(
        "{{apiVersion: networking.istio.io/v1, kind: WorkloadEntry, metadata: {{name: {name}, \
         namespace: {namespace}}}, spec: {{address: 127.0.0.1, ports: {{http: {port}}}, locality: \
         {place}, labels: {{{labels}}}}}}}\n---\n"
    )
}

fn service(namespace: &str, name: &str, selector: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Service, metadata: {{name: {name}, namespace: {namespace}}}, spec: \
         {{selector: {{{selector}}}, ports: [{{name: http, port: 80}}]}}}}\n---\n"
    )
}

fn mesh() -> String {
    let own = "istio: ingress, service.istio.io/workload-name: ingress";
    let mut yaml = "{apiVersion: networking.istio.io/v1, kind: Gateway, metadata: {name: g, \
                    namespace: istio-system}, spec: {selector: {istio: ingress}, servers: [{port: \
                    {number: 80, name: http, protocol: HTTP}, hosts: ['*']}]}}\n---\n"
        .to_owned()
        + &service("istio-system", "ingress", "istio: ingress");
    // The last is of another region, and not like the proxy.
    for (number, place) in ["r1/z1", "r1/z1", "r1/z2", "r2/z1"].iter().enumerate() {
        let name = format!("ingress-{number}");
        yaml += &workload("istio-system", &name, own, place, 1000 + number as u16);
    }
    for scenario in &SCENARIOS {
        let name = scenario.name;
        yaml += &service("default", name, &format!("app: {name}"));
        for (number, (place, backend_name)) in scenario.endpoints.iter().enumerate() {
            let port = backend(backend_name);
            let labels = format!("app: {name}");
            yaml += &workload("default", &format!("{name}-{number}"), &labels, place, port);
        }
        let _ = write!(
            yaml,
            "{{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {{name: \
             {name}}}, spec: {{host: {name}, trafficPolicy: {{loadBalancer: {{simple: ROUND_ROBIN, \
             zoneAwareLbSetting: {{{}}}}}}}}}}}\n---\n{{apiVersion: networking.istio.io/v1, kind: \
             VirtualService, metadata: {{name: {name}}}, spec: {{hosts: [{name}.test], gateways: \
             [istio-system/g], http: [{{route: [{{destination: {{host: {name}}}}}]}}]}}}}\n---\n",
            scenario.setting
        );
    }
    yaml
}

fn bootstrap(plane: SocketAddr, port: u16, discovers: bool) -> Value {
    let options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
    let at = json!({"socket_address": {"address": "127.0.0.1", "port_value": plane.port()}});
    let ads = json!({"ads": {}, "resource_api_version": "V3"});
    let mut metadata = json!({
        "INTERCEPTION_MODE": "NONE",
        "LABELS": {"istio": "ingress"},
        "WORKLOAD_NAME": "ingress",
        "MESH_MAP_PORT": format!("80={port}"),
    });
    let mut clusters = vec![json!({
        "name": "plane",
        "type": "STATIC",
        "typed_extension_protocol_options": {options: {
            "@type": format!("type.googleapis.com/{options}"),
            "explicit_http_config": {"http2_protocol_options": {}},
        }},
        "load_assignment": {
            "cluster_name": "plane",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": at}}]}],
        },
    })];
    let mut manager = json!({});
    if discovers {
        metadata["ENABLE_SELF_DISCOVERY"] = "true".into();
        manager["local_cluster_name"] = "local_cluster".into();
        clusters.push(json!({
            "name": "local_cluster",
            "type": "EDS",
            "eds_cluster_config": {"eds_config": ads},
        }));
    }
    json!({
        "node": {
            "id": NODE,
            "cluster": "ingress",
            "locality": {"region": "r1", "zone": "z1"},
            "metadata": metadata,
        },
        "dynamic_resources": {
            "ads_config": {
                "api_type": "DELTA_GRPC",
                "transport_api_version": "V3",
                "grpc_services": [{"envoy_grpc": {"cluster_name": "plane"}}],
            },
            "cds_config": ads,
            "lds_config": ads,
        },
        "cluster_manager": manager,
        "static_resources": {"clusters": clusters},
    })
}

fn start(program: &Path, words: &[&str]) -> Process {
    let mut command = Command::new(program);
    let command = command.args(words).stdin(Stdio::null());
    let command = command.stdout(Stdio::null()).stderr(Stdio::null());
    Process(command.spawn().unwrap())
}

fn mesh_program(line: &str) -> Process {
    let words: Vec<&str> = line.split(' ').collect();
    start(Path::new(env!("CARGO_BIN_EXE_mesh")), &words)
}

/// Asks a proxy for everything and compares.
fn judge(proxy: &str, at: SocketAddr, discovers: bool) {
    let answers = |host: &str| {
        TcpStream::connect(at).is_ok() && {
            let mut client = Client::connect(at);
            client.get("/", &[("host", host)]).status == 200
        }
    };
    for scenario in &SCENARIOS {
        let host = format!("{}.test", scenario.name);
        wait_until(|| answers(&host));
    }
    for scenario in &SCENARIOS {
        let host = format!("{}.test", scenario.name);
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        let mut client = Client::connect(at);
        for _ in 0..REQUESTS {
            let answer = client.get("/", &[("host", &host)]);
            assert_eq!(answer.status, 200, "{proxy}: {host}: {}", answer.body);
            *counts.entry(answer.body).or_default() += 1;
        }
        let expected = match discovers {
            true => scenario.expected,
            false => scenario.blind,
        };
        for (name, [least, most]) in expected {
            let count = counts.get(*name).copied().unwrap_or(0);
            assert!(
                (*least..=*most).contains(&count),
                "{proxy}: {}: {name}: {counts:?}",
                scenario.name
            );
        }
    }
}

#[test]
fn an_envoy_and_our_proxy_keep_the_same_requests_in_their_zone() {
    let Some(envoy) = std::env::var_os("MESH_ENVOY").map(PathBuf::from) else {
        let is_ci = std::env::var("CI").as_deref() == Ok("true");
        assert!(!is_ci, "MESH_ENVOY is not set");
        println!("skipped: MESH_ENVOY is not set; `cargo xtask envoy` prints a path for it");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("mesh.yaml");
    std::fs::write(&config, mesh()).unwrap();
    let config = config.to_str().unwrap();
    let plane = free_address();
    let http = free_address();
    let _control = mesh_program(&format!(
        "control run --config {config} --xds {plane} --http {http}"
    ));
    wait_until(|| TcpStream::connect(plane).is_ok());
    for discovers in [true, false] {
        let at = free_address();
        let file = folder.path().join(format!("envoy-{discovers}.json"));
        let text = bootstrap(plane, at.port(), discovers).to_string();
        std::fs::write(&file, text).unwrap();
        let words = [
            "-c",
            file.to_str().unwrap(),
            "--use-dynamic-base-id",
            "--concurrency",
            "1",
            "-l",
            "off",
        ];
        let process = start(&envoy, &words);
        judge("envoy", at, discovers);
        drop(process);

        let flag = if discovers { " --self-discovery" } else { "" };
        let labels = "istio=ingress,service.istio.io/workload-name=ingress";
        for from in [format!("--xds {plane}"), format!("--config {config}")] {
            let at = free_address();
            let process = mesh_program(&format!(
                "proxy run {from} --node {NODE} --labels {labels} --locality {PLACE} --map-port \
                 80={} --admin off --concurrency 1{flag}",
                at.port()
            ));
            judge(&from, at, discovers);
            drop(process);
        }
    }
}
