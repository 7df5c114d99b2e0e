//! A real Envoy as a gateway whose certificate comes from a Kubernetes Secret, through our control
//! plane, and curl as its caller.
//!
//! Needs `MESH_ENVOY` (`cargo xtask envoy` prints a path) and curl; without the former the test
//! says so and passes, but fails where `CI=true`.

#[allow(unreachable_pub)]
#[path = "../../mesh-proxy/tests/support/ports.rs"]
mod ports;

use mesh_control::Control;
use mesh_istio::Files;
use ports::free_address;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// Longer than anything here takes.
const SOON: Duration = Duration::from_secs(60);

/// An Envoy; it ends with the test.
struct Envoy(Child);

impl Drop for Envoy {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A certificate for `shop.com`, as a Secret, and the authority that signed it in a file.
struct Credential {
    yaml: String,
    authority: String,
}

impl Credential {
    fn new(directory: &Path, name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let file = directory.join(name);
        std::fs::write(&file, issuer.pem()).unwrap();
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(["shop.com".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &issuer).unwrap();
        let data = json!({"tls.crt": certificate.pem(), "tls.key": key.serialize_pem()});
        let metadata = json!({"name": "shop", "namespace": "istio-system"});
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": data,
        });
        Self {
            yaml: format!("---\n{secret}\n"),
            authority: file.to_str().unwrap().to_owned(),
        }
    }
}

/// A gateway that answers by itself, in plain text and with TLS.
const MESH: &str = "
{apiVersion: networking.istio.io/v1, kind: Gateway, metadata: {name: g, namespace: istio-system},
 spec: {selector: {istio: ingress}, servers: [
  {port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']},
  {port: {number: 443, name: https, protocol: HTTPS}, hosts: [shop.com],
   tls: {mode: SIMPLE, credentialName: shop}}]}}
---
{apiVersion: networking.istio.io/v1, kind: VirtualService,
 metadata: {name: v, namespace: istio-system},
 spec: {hosts: ['*'], gateways: [g], http: [{directResponse: {status: 200}}]}}
";

fn bootstrap(plane: SocketAddr, kind: &str, plain: u16, secure: u16) -> Value {
    let options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
    let (host, port) = (plane.ip().to_string(), plane.port());
    let at = json!({"socket_address": {"address": host, "port_value": port}});
    let ads = json!({"ads": {}, "resource_api_version": "V3"});
    json!({
        "node": {
            "id": "router~127.0.0.1~ingress.istio-system~istio-system.svc.cluster.local",
            "cluster": "ingress",
            "metadata": {
                "INTERCEPTION_MODE": "NONE",
                "LABELS": {"istio": "ingress"},
                "MESH_MAP_PORT": format!("80={plain},443={secure}"),
            },
        },
        "dynamic_resources": {
            "ads_config": {
                "api_type": kind,
                "transport_api_version": "V3",
                "grpc_services": [{"envoy_grpc": {"cluster_name": "plane"}}],
            },
            "cds_config": ads,
            "lds_config": ads,
        },
        "static_resources": {"clusters": [{
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
        }]},
    })
}

/// The status that curl gets, or nothing if it gets none.
async fn curl(url: &str, more: &[&str]) -> Option<String> {
    let output = tokio::process::Command::new("curl")
        .args(["--silent", "--noproxy", "*", "--max-time", "5"])
        .args(["--output", "/dev/null", "--write-out", "%{http_code}"])
        .args(more)
        .arg(url)
        .output()
        .await
        .expect("curl is there");
    let status = String::from_utf8(output.stdout).unwrap();
    output.status.success().then_some(status)
}

/// Calls the gateway with TLS, and trusts this authority alone.
async fn secure(port: u16, credential: &Credential) -> Option<String> {
    let resolve = format!("shop.com:{port}:127.0.0.1");
    let more = ["--cacert", &credential.authority, "--resolve", &resolve];
    curl(&format!("https://shop.com:{port}/"), &more).await
}

async fn until(what: &str, look: impl AsyncFn() -> bool) {
    let wait = async {
        while !look().await {
            sleep(Duration::from_millis(50)).await;
        }
    };
    assert!(timeout(SOON, wait).await.is_ok(), "{what}");
}

async fn follow(binary: &str, kind: &str) {
    let directory = tempfile::tempdir().unwrap();
    let first = Credential::new(directory.path(), "first.pem");
    let second = Credential::new(directory.path(), "second.pem");
    let third = Credential::new(directory.path(), "third.pem");
    let (plain_port, port) = (free_address().port(), free_address().port());
    let control = Control::builder().build();
    let apply = |secret: &str| {
        let text = MESH.to_owned() + secret;
        let outcome = control.update(&Files::from_text("mesh.yaml", &text));
        assert!(outcome.findings.is_empty(), "{:?}", outcome.findings);
        control.flush();
    };
    apply(&first.yaml);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config = bootstrap(listener.local_addr().unwrap(), kind, plain_port, port);
    let mut tasks = JoinSet::new();
    let server = control.xds().clone();
    tasks.spawn(async move { server.serve(listener, std::future::pending()).await });

    let file = directory.path().join("envoy.json");
    std::fs::write(&file, serde_json::to_vec(&config).unwrap()).unwrap();
    let log = std::fs::File::create(directory.path().join("envoy.log")).unwrap();
    let process = Command::new(binary)
        .arg("--config-path")
        .arg(&file)
        .args(["--concurrency", "1", "--use-dynamic-base-id"])
        .args(["--log-level", "warning"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn();
    let _envoy = Envoy(process.unwrap());

    let ok = Some("200".to_owned());
    let plain = format!("http://127.0.0.1:{plain_port}/");
    let trusted = async |one: &Credential| secure(port, one).await == ok;
    until("a first certificate", async || trusted(&first).await).await;
    assert_eq!(curl(&plain, &[]).await, ok);
    assert!(!trusted(&second).await);

    apply(&second.yaml);
    until("a second certificate", async || trusted(&second).await).await;
    assert!(!trusted(&first).await, "the next handshake has the new one");

    apply("");
    let refused = async || {
        let any = ["--insecure"];
        curl(&format!("https://127.0.0.1:{port}/"), &any)
            .await
            .is_none()
            && !trusted(&second).await
    };
    until("handshakes are refused", refused).await;
    assert_eq!(curl(&plain, &[]).await, ok, "the other port goes on");

    apply(&third.yaml);
    until("a third certificate", async || trusted(&third).await).await;
    assert_eq!(curl(&plain, &[]).await, ok);
    let said = std::fs::read_to_string(directory.path().join("envoy.log")).unwrap();
    assert!(!said.contains("rejected"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_envoy_follows_a_credential_that_comes_changes_and_goes() {
    let Ok(binary) = std::env::var("MESH_ENVOY") else {
        let ci = std::env::var("CI").as_deref() == Ok("true");
        assert!(!ci, "MESH_ENVOY is not set");
        println!("skipped: MESH_ENVOY is not set; `cargo xtask envoy` prints a path for it");
        return;
    };
    for kind in ["DELTA_GRPC", "GRPC"] {
        follow(&binary, kind).await;
    }
}
