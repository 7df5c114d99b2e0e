//! The binary in the place of Envoy's.

use crate::plane::{Plane, SOON, all};
use crate::support::{Http1, free_address, get, named, text};
use mesh_xds::TypeUrl;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use tokio::net::TcpStream;

/// A proxy that runs; it is killed with the test.
struct Process(Child);

impl Process {
    fn start(arguments: &[&str]) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_mesh-proxy"))
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        Self(child.unwrap())
    }

    /// Sends SIGTERM and waits for the end.
    async fn terminate(mut self) -> Option<i32> {
        let id = self.0.id().to_string();
        let sent = Command::new("kill").args(["-TERM", &id]).status().unwrap();
        assert!(sent.success());
        let wait = async {
            loop {
                if let Some(status) = self.0.try_wait().unwrap() {
                    return status.code();
                }
                tokio::time::sleep(std::time::Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(SOON, wait).await.expect("it ends")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_mesh-proxy"))
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// A listener that answers by itself, and one that forwards.
fn bootstrap(address: SocketAddr, backend: SocketAddr) -> String {
    let (port, to) = (address.port(), backend.port());
    format!(
        r#"
node: {{id: node-1, cluster: c}}
admin:
  access_log_path: /dev/null
  address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}
static_resources:
  listeners:
  - name: in
    address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: in
          route_config:
            name: local
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:
              - {{match: {{path: /self}}, direct_response: {{status: 200, body: {{inline_string: self}}}}}}
              - {{match: {{prefix: /}}, route: {{cluster: c}}}}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
  clusters:
  - name: c
    type: STATIC
    connect_timeout: 1s
    load_assignment:
      cluster_name: c
      endpoints:
      - lb_endpoints:
        - endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {to}}}}}}}
"#
    )
}

async fn answer(address: SocketAddr, path: &str) -> String {
    let wait = async {
        while TcpStream::connect(address).await.is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(SOON, wait).await.expect("it listens");
    text(Http1::connect(address).await.send(get(path)).await).await
}

fn written(directory: &Path, name: &str, text: &str) -> String {
    let path = directory.join(name);
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_static_bootstrap_is_served_until_sigterm() {
    let backend = named("backend").await;
    let directory = tempfile::tempdir().unwrap();
    let address = free_address();
    let file = written(directory.path(), "b.yaml", &bootstrap(address, backend));
    let place = directory.path().join("admin");
    let place_text = place.to_str().unwrap();
    let process = Process::start(&[
        "-c",
        &file,
        "--concurrency",
        "1",
        "--base-id",
        "3",
        "-l",
        "warning",
        "--disable-hot-restart",
        "--admin-address-path",
        place_text,
        "--drain-time-s",
        "1",
    ]);
    assert_eq!(answer(address, "/").await, "backend");
    assert_eq!(answer(address, "/self").await, "self");
    let admin: SocketAddr = fs::read_to_string(&place).unwrap().parse().unwrap();
    assert_eq!(answer(admin, "/ready").await, "LIVE\n");
    let info: serde_json::Value =
        serde_json::from_str(&answer(admin, "/server_info").await).unwrap();
    assert_eq!(info["node"]["id"], "node-1");
    let dump = answer(admin, "/config_dump?resource=static_listeners").await;
    let dump: serde_json::Value = serde_json::from_str(&dump).unwrap();
    let host = &dump["configs"][0]["listener"]["filter_chains"][0]["filters"][0]["typed_config"]["route_config"]
        ["virtual_hosts"][0];
    assert_eq!(host["name"], "all", "{dump:#}");
    assert_eq!(process.terminate().await, Some(0));
}

#[test]
fn validating_says_ok_or_where_the_error_is() {
    let directory = tempfile::tempdir().unwrap();
    let any = SocketAddr::from(([127, 0, 0, 1], 9));
    let good = bootstrap(any, any);
    let file = written(directory.path(), "good.yaml", &good);
    let output = run(&["--mode", "validate", "-c", &file]);
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        format!("configuration '{file}' OK\n")
    );
    assert_eq!(output.status.code(), Some(0));

    for (bad, message) in [
        (
            good.replace("connect_timeout", "connect_timeot"),
            "bad.yaml:30:5: static_resources.clusters[0].connect_timeot",
        ),
        (
            good.replace("type: STATIC", "type: ORIGINAL"),
            "static_resources.clusters[0].type",
        ),
        (
            good.replace("http.router.v3.Router", "http.lua.v3.Lua"),
            "filters.http.lua.v3.Lua",
        ),
        (
            good.replace(
                "route: {cluster: c}",
                "route: {cluster: c, cluster_header: h, rate_limits: [{}]}",
            ),
            "bad.yaml:",
        ),
    ] {
        let file = written(directory.path(), "bad.yaml", &bad);
        let output = run(&["--mode", "validate", "-c", &file]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains(message), "{said}");
        assert_eq!(output.status.code(), Some(1), "{said}");
    }
}

#[test]
fn a_static_listener_that_cannot_be_opened_ends_the_process() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let directory = tempfile::tempdir().unwrap();
    let address = taken.local_addr().unwrap();
    let file = written(directory.path(), "b.yaml", &bootstrap(address, address));
    let output = run(&["-c", &file]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("listener in: cannot listen"), "{said}");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn init_only_ends_when_all_is_in_force() {
    let directory = tempfile::tempdir().unwrap();
    let address = free_address();
    let file = written(directory.path(), "b.yaml", &bootstrap(address, address));
    let output = run(&["-c", &file, "--mode", "init_only"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

#[tokio::test]
async fn a_control_plane_is_named_on_the_command_line_or_in_a_bootstrap() {
    let one = named("one").await;
    let directory = tempfile::tempdir().unwrap();
    for variant in ["delta", "sotw"] {
        let plane = Plane::start().await;
        let address = free_address();
        plane.apply(all(address, "c", one));
        let at = plane.address.to_string();
        let process = Process::start(&[
            "run",
            "--xds",
            &at,
            "--xds-variant",
            variant,
            "--workload",
            "a.shop",
            "--admin",
            "off",
        ]);
        assert_eq!(answer(address, "/").await, "one");
        plane.acknowledged(TypeUrl::Routes).await;
        assert_eq!(process.terminate().await, Some(0));

        let address = free_address();
        plane.apply(all(address, "c", one));
        let kind = if variant == "delta" {
            "DELTA_GRPC"
        } else {
            "GRPC"
        };
        let port = plane.address.port();
        let text = format!(
            "
static_resources:
  clusters:
  - name: xds
    connect_timeout: 1s
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        '@type': type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {{http2_protocol_options: {{}}}}
    load_assignment:
      cluster_name: xds
      endpoints:
      - lb_endpoints:
        - endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}}}
dynamic_resources:
  ads_config:
    api_type: {kind}
    transport_api_version: V3
    grpc_services: [{{envoy_grpc: {{cluster_name: xds}}}}]
  cds_config: {{resource_api_version: V3, ads: {{}}}}
  lds_config: {{resource_api_version: V3, ads: {{}}}}
"
        );
        let file = written(directory.path(), "ads.yaml", &text);
        let process =
            Process::start(&["-c", &file, "--service-node", "n", "--service-cluster", "c"]);
        assert_eq!(answer(address, "/").await, "one");
        assert_eq!(process.terminate().await, Some(0));
    }
}
