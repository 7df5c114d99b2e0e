//! The `mesh-control` binary with TLS, and a real Envoy and Python's gRPC as its clients.
//!
//! Needs `MESH_ENVOY` and `MESH_PYTHON` (`cargo xtask envoy` and `cargo xtask python` print paths);
//! without them the tests say so and pass, but fail where `CI=true`.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const SOON: Duration = Duration::from_secs(60);

const MESH: &str = "
apiVersion: v1
kind: Service
metadata: {name: reviews, namespace: default}
spec: {clusterIP: 10.0.0.1, ports: [{name: http, port: 9080}]}
";

/// Asks for clusters over a secure channel: `ok`, or what the channel says.
/// It leaves at once, whatever goes on: an interpreter that ends in good order ends gRPC's threads where they
/// are, now and then with a lock in hand that it then waits for.
const ASK: &str = r#"
import grpc, os, sys
target, root, certificate, key, name = sys.argv[1:6]
read = lambda path: open(path, "rb").read() if path else None
credentials = grpc.ssl_channel_credentials(read(root), read(key), read(certificate))
options = [("grpc.ssl_target_name_override", name), ("grpc.enable_retries", 0)]
channel = grpc.secure_channel(target, credentials, options)
field = lambda number, text: bytes([number << 3 | 2, len(text)]) + text
node = b"sidecar~10.0.0.9~a.default~default.svc.cluster.local"
request = field(2, field(1, node)) + field(4, b"type.googleapis.com/envoy.config.cluster.v3.Cluster")
ask = channel.stream_stream("/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources")
try:
    print("ok", len(next(ask(iter([request]), timeout=10))) > 100)
except grpc.RpcError as error:
    print(error.code().name, error.details())
sys.stdout.flush()
os._exit(0)
"#;

/// A process; it ends with the test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An authority, with all files in a directory.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    directory: TempDir,
}

impl Authority {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let name = directory.path().to_str().unwrap().to_owned();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let issuer = CertifiedIssuer::self_signed(params, key).unwrap();
        std::fs::write(directory.path().join("root.pem"), issuer.pem()).unwrap();
        Self { issuer, directory }
    }

    fn path(&self, file: &str) -> PathBuf {
        self.directory.path().join(file)
    }

    fn text(&self, file: &str) -> String {
        self.path(file).to_str().unwrap().to_owned()
    }

    fn sign(&self, name: &str, host: &str, expired: bool) {
        let mut params = CertificateParams::new([host.to_owned()]).unwrap();
        if expired {
            params.not_before = rcgen::date_time_ymd(2001, 1, 1);
            params.not_after = rcgen::date_time_ymd(2002, 1, 1);
        }
        let key = KeyPair::generate().unwrap();
        let signed = params.signed_by(&key, &self.issuer).unwrap();
        std::fs::write(self.path(&format!("{name}.key")), key.serialize_pem()).unwrap();
        std::fs::write(self.path(&format!("{name}.pem")), signed.pem()).unwrap();
    }
}

/// A control plane that serves TLS with `server.pem`.
fn control(authority: &Authority, more: &[&str]) -> (Process, SocketAddr) {
    std::fs::write(authority.path("mesh.yaml"), MESH).unwrap();
    let any = "127.0.0.1:0";
    let mut process = Command::new(env!("CARGO_BIN_EXE_mesh-control"))
        .args(["run", "--config", &authority.text("mesh.yaml")])
        .args(["--xds", any, "--http", any, "--xds-tls", any])
        .args(["--tls-cert", &authority.text("server.pem")])
        .args(["--tls-key", &authority.text("server.key")])
        .args(more)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map(Process)
        .unwrap();
    let out = BufReader::new(process.0.stdout.take().unwrap());
    // Up to the last line: who writes into a pipe that nobody reads fails.
    let lines = out.lines().map(Result::unwrap);
    let lines: Vec<String> = lines.take(3).collect();
    let address = lines.iter().find_map(|line| {
        let address = line.strip_prefix("xDS with TLS on ")?;
        Some(address.parse().unwrap())
    });
    let address = address.expect("it serves TLS");
    (process, address)
}

fn tool(variable: &str) -> Option<String> {
    let path = std::env::var(variable).ok();
    let ci = std::env::var("CI").as_deref() == Ok("true");
    assert!(path.is_some() || !ci, "{variable} is not set");
    if path.is_none() {
        println!("skipped: {variable} is not set");
    }
    path
}

#[expect(
    clippy::disallowed_methods,
    reason = "another process is waited for, and no runtime is there"
)]
fn until(what: &str, mut look: impl FnMut() -> bool) {
    let start = Instant::now();
    while !look() {
        assert!(start.elapsed() < SOON, "{what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_real_grpc_client_is_served_with_tls_and_refused_as_it_should() {
    let Some(python) = tool("MESH_PYTHON") else {
        return;
    };
    let (ours, theirs) = (Authority::new(), Authority::new());
    ours.sign("server", "istiod.istio-system.svc", false);
    ours.sign("client", "me", false);
    theirs.sign("client", "me", false);
    let (_control, address) = control(&ours, &["--tls-client-ca", &ours.text("root.pem")]);
    let ask = |root: &Authority, client: Option<&Authority>, name: &str| {
        let file = |file: &str| client.map(|of| of.text(file)).unwrap_or_default();
        let output = Command::new(&python)
            .args(["-c", ASK, &address.to_string(), &root.text("root.pem")])
            .args([&file("client.pem"), &file("client.key"), name])
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let name = "istiod.istio-system.svc";
    assert_eq!(ask(&ours, Some(&ours), name), "ok True\n");
    for (what, said) in [
        ("another root", ask(&theirs, Some(&ours), name)),
        ("another name", ask(&ours, Some(&ours), "other.com")),
        ("no certificate", ask(&ours, None, name)),
        ("another authority's", ask(&ours, Some(&theirs), name)),
    ] {
        assert!(said.starts_with("UNAVAILABLE"), "{what}: {said}");
    }

    // A new certificate is shown without a restart; then one that has expired; then it goes on.
    let served = |what: &str, host: &str| {
        ours.sign("server", host, false);
        until(what, || ask(&ours, Some(&ours), host) == "ok True\n");
    };
    served("the new certificate", "new.com");
    ours.sign("server", "new.com", true);
    let mut said = String::new();
    until("the expired certificate", || {
        said = ask(&ours, Some(&ours), "new.com");
        !said.starts_with("ok")
    });
    assert!(said.starts_with("UNAVAILABLE"), "{said}");
    let reason = said.to_ascii_lowercase();
    assert!(reason.contains("certificate"), "{said}");
    served("a valid one again", "newer.com");
}

/// A bootstrap whose control plane has TLS.
fn bootstrap(plane: SocketAddr, root: &Authority, client: &Authority, san: &str) -> Value {
    let options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
    let tls = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext";
    let at = json!({"socket_address": {"address": "127.0.0.1", "port_value": plane.port()}});
    let ads = json!({"ads": {}, "resource_api_version": "V3"});
    json!({
        "node": {"id": "sidecar~127.0.0.1~a.default~default.svc.cluster.local", "cluster": "a"},
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}},
        "dynamic_resources": {
            "ads_config": {
                "api_type": "DELTA_GRPC", "transport_api_version": "V3",
                "grpc_services": [{"envoy_grpc": {"cluster_name": "plane"},
                    "initial_metadata": [{"key": "x-test", "value": "yes"}]}],
            },
            "cds_config": ads, "lds_config": ads,
        },
        "static_resources": {"clusters": [{
            "name": "plane", "type": "STATIC", "connect_timeout": "5s",
            "typed_extension_protocol_options": {options: {
                "@type": format!("type.googleapis.com/{options}"),
                "explicit_http_config": {"http2_protocol_options": {}},
            }},
            "transport_socket": {"name": "tls", "typed_config": {
                "@type": tls, "sni": "istiod.istio-system.svc",
                "common_tls_context": {
                    "tls_certificates": [{
                        "certificate_chain": {"filename": client.text("client.pem")},
                        "private_key": {"filename": client.text("client.key")},
                    }],
                    "validation_context": {
                        "trusted_ca": {"filename": root.text("root.pem")},
                        "match_typed_subject_alt_names":
                            [{"san_type": "DNS", "matcher": {"exact": san}}],
                    },
                },
            }},
            "load_assignment": {
                "cluster_name": "plane",
                "endpoints": [{"lb_endpoints": [{"endpoint": {"address": at}}]}],
            },
        }]},
    })
}

/// Starts an Envoy and waits until it has counted something under this name.
fn envoy(binary: &str, config: &Value, counted: &str) {
    let directory = tempfile::tempdir().unwrap();
    let (file, admin) = (
        directory.path().join("envoy.json"),
        directory.path().join("admin"),
    );
    std::fs::write(&file, config.to_string()).unwrap();
    let process = Command::new(binary)
        .arg("--config-path")
        .arg(&file)
        .arg("--admin-address-path")
        .arg(&admin)
        .args(["--concurrency", "1", "--use-dynamic-base-id"])
        .args(["--log-level", "error"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let _envoy = Process(process.unwrap());
    until(counted, || {
        let Ok(address) = std::fs::read_to_string(&admin) else {
            return false;
        };
        let Ok(mut stream) = std::net::TcpStream::connect(address.trim()) else {
            return false;
        };
        let request = b"GET /stats HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
        std::io::Write::write_all(&mut stream, request).unwrap();
        let mut text = String::new();
        let read = stream.read_to_string(&mut text).is_ok();
        let mut lines = text.lines().filter_map(|line| line.split_once(": "));
        read && lines.any(|(name, value)| name == counted && value != "0")
    });
}

#[test]
fn a_real_envoy_is_served_with_tls_and_checks_whom_it_speaks_to() {
    let Some(binary) = tool("MESH_ENVOY") else {
        return;
    };
    let (ours, theirs) = (Authority::new(), Authority::new());
    ours.sign("server", "istiod.istio-system.svc", false);
    ours.sign("client", "me", false);
    theirs.sign("client", "me", false);
    let (_control, address) = control(&ours, &["--tls-client-ca", &ours.text("root.pem")]);
    let name = "istiod.istio-system.svc";
    let config = bootstrap(address, &ours, &ours, name);
    envoy(&binary, &config, "cluster_manager.cds.update_success");
    let wrong = bootstrap(address, &theirs, &ours, name);
    envoy(&binary, &wrong, "cluster.plane.ssl.fail_verify_error");
    let wrong = bootstrap(address, &ours, &ours, "other.com");
    envoy(&binary, &wrong, "cluster.plane.ssl.fail_verify_san");
    // Its certificate leads to no root that the control plane knows.
    let strange = bootstrap(address, &ours, &theirs, name);
    envoy(&binary, &strange, "cluster.plane.ssl.connection_error");
}
