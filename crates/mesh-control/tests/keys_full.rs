//! A real Envoy as a gateway that checks tokens with keys that our control plane gets over HTTPS:
//! refused before there are any, let in when they come, and as they rotate, and when their server
//! is gone.
//!
//! Needs `MESH_ENVOY` (`cargo xtask envoy` prints a path) and curl; without the former the test
//! says so and passes, but fails where `CI=true`.

#[allow(unreachable_pub)]
#[path = "../../mesh-proxy/tests/support/ports.rs"]
mod ports;

use aws_lc_rs::hmac;
use mesh_control::Control;
use mesh_core::model::{Secret, SecretRef, ServerTls};
use mesh_identity::Acceptor;
use mesh_istio::Files;
use mesh_keys::Fetcher;
use ports::free_address;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
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

/// A server of keys, as it answers now: nothing closes the connection.
#[derive(Clone, Default)]
struct Issuing(Arc<Mutex<Option<String>>>);

impl Issuing {
    fn say(&self, body: Option<String>) {
        *self.0.lock().unwrap() = body;
    }

    /// Serves on a port of its own with a certificate for `localhost`.
    async fn serve(&self, tasks: &mut JoinSet<()>) -> (u16, String) {
        let key = KeyPair::generate().unwrap();
        let mut root = CertificateParams::default();
        root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = root.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(root, key);
        let own = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(["localhost".to_owned()]).unwrap();
        let leaf = leaf.signed_by(&own, &issuer).unwrap();
        let named = SecretRef::local("own");
        let mut tls = ServerTls::default();
        tls.certificates = vec![named.clone()];
        let secret = Arc::new(Secret::certificate(leaf.pem(), own.serialize_pem()));
        let (acceptor, _) = Acceptor::alone(Arc::new(tls), [(named, secret)]).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let pages = self.clone();
        tasks.spawn(async move {
            while let Ok((io, _)) = listener.accept().await {
                // One after the other is enough; whoever breaks off is none of our business.
                let _ = pages.answer(&acceptor, io).await;
            }
        });
        (port, authority)
    }

    async fn answer(&self, tls: &Acceptor, io: tokio::net::TcpStream) -> Option<()> {
        let (mut io, _) = tls.accept(io).await.ok()?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(io.read_u8().await.ok()?);
        }
        let body = self.0.lock().unwrap().clone()?;
        let length = body.len();
        let all = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}");
        io.write_all(all.as_bytes()).await.ok()?;
        io.shutdown().await.ok()
    }
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

fn base64(bytes: &[u8]) -> String {
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let mut word = [0; 4];
        word[1..=group.len()].copy_from_slice(group);
        let word = u32::from_be_bytes(word);
        for at in 0..=group.len() {
            let digit = (word >> (18 - 6 * at)) as usize & 63;
            text.push(ALPHABET[digit].into());
        }
    }
    text
}

fn keys(secret: &str) -> String {
    let key = json!({"kty": "oct", "alg": "HS256", "k": base64(secret.as_bytes())});
    json!({"keys": [key]}).to_string()
}

fn token(issuer: &str, secret: &str) -> String {
    let head = base64(br#"{"alg":"HS256","typ":"JWT"}"#);
    let claims = json!({"iss": issuer, "sub": "somebody", "exp": 4_000_000_000_u64});
    let signed = format!("{head}.{}", base64(claims.to_string().as_bytes()));
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let tag = hmac::sign(&key, signed.as_bytes());
    format!("{signed}.{}", base64(tag.as_ref()))
}

/// A gateway that answers by itself, and takes tokens of one issuer.
fn mesh(port: u16) -> String {
    format!(
        "
{{apiVersion: networking.istio.io/v1, kind: Gateway, metadata: {{name: g, namespace: istio-system}},
 spec: {{selector: {{istio: ingress}}, servers: [
  {{port: {{number: 80, name: http, protocol: HTTP}}, hosts: ['*']}}]}}}}
---
{{apiVersion: networking.istio.io/v1, kind: VirtualService,
 metadata: {{name: v, namespace: istio-system}},
 spec: {{hosts: ['*'], gateways: [g], http: [{{directResponse: {{status: 200}}}}]}}}}
---
{{apiVersion: security.istio.io/v1, kind: RequestAuthentication,
 metadata: {{name: r, namespace: istio-system}},
 spec: {{selector: {{matchLabels: {{istio: ingress}}}}, jwtRules: [
  {{issuer: far, jwksUri: 'https://localhost:{port}/jwks'}}]}}}}
"
    )
}

fn bootstrap(plane: SocketAddr, kind: &str, port: u16) -> Value {
    let options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
    let (host, at) = (plane.ip().to_string(), plane.port());
    let at = json!({"socket_address": {"address": host, "port_value": at}});
    let ads = json!({"ads": {}, "resource_api_version": "V3"});
    json!({
        "node": {
            "id": "router~127.0.0.1~ingress.istio-system~istio-system.svc.cluster.local",
            "cluster": "ingress",
            "metadata": {
                "INTERCEPTION_MODE": "NONE",
                "LABELS": {"istio": "ingress"},
                "MESH_MAP_PORT": format!("80={port}"),
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
async fn curl(port: u16, token: Option<&str>) -> Option<String> {
    let bearer = token.map(|token| format!("authorization: Bearer {token}"));
    let output = tokio::process::Command::new("curl")
        .args(["--silent", "--noproxy", "*", "--max-time", "5"])
        .args(["--output", "/dev/null", "--write-out", "%{http_code}"])
        .args(bearer.iter().flat_map(|bearer| ["--header", bearer]))
        .arg(format!("http://127.0.0.1:{port}/"))
        .output()
        .await
        .expect("curl is there");
    let status = String::from_utf8(output.stdout).unwrap();
    output.status.success().then_some(status)
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
    let mut tasks = JoinSet::new();
    let issuing = Issuing::default();
    let (issuer, authority) = issuing.serve(&mut tasks).await;
    let port = free_address().port();
    let control = Control::builder().build();
    let outcome = control.update(&Files::from_text("mesh.yaml", &mesh(issuer)));
    assert!(outcome.findings.is_empty(), "{:?}", outcome.findings);
    let fetcher = Fetcher::builder()
        .refresh(Duration::from_secs(1))
        .roots(authority);
    let (fetched, fetcher) = fetcher.build();
    let (own, following) = (control.clone(), fetched.clone());
    tasks.spawn(async move { own.run().await });
    let own = control.clone();
    tasks.spawn(async move { own.follow_keys(following).await });
    let fetching = tasks.spawn(fetcher.run());

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config = bootstrap(listener.local_addr().unwrap(), kind, port);
    let server = control.xds().clone();
    tasks.spawn(async move {
        let served = server.serve(listener, std::future::pending()).await;
        served.expect("it serves");
    });
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

    let (first, second) = (token("far", "first"), token("far", "second"));
    let is =
        async |token: &str, status: &str| curl(port, Some(token)).await.as_deref() == Some(status);
    let open = async || curl(port, None).await.as_deref() == Some("200");
    until("the gateway is there, and lets in who has no token", open).await;
    assert!(is(&first, "401").await, "before there are keys");

    issuing.say(Some(keys("first")));
    until("the keys come", async || is(&first, "200").await).await;
    assert!(is(&second, "401").await);

    issuing.say(Some("{\"keys\": []}".to_owned()));
    sleep(Duration::from_millis(2500)).await;
    assert!(is(&first, "200").await, "nonsense changes nothing");
    issuing.say(Some(keys("second")));
    until("the keys rotate", async || is(&second, "200").await).await;
    assert!(is(&first, "401").await);

    issuing.say(None);
    sleep(Duration::from_millis(2500)).await;
    assert!(is(&second, "200").await, "the last ones stay");
    // Objects that change are compiled with the keys that came.
    let more = format!(
        "{}---\n{{apiVersion: v1, kind: Service, metadata: {{name: s}}, spec: {{ports: [{{port: 81}}]}}}}",
        mesh(issuer)
    );
    control.update(&Files::from_text("mesh.yaml", &more));
    control.flush();
    sleep(Duration::from_millis(500)).await;
    assert!(is(&second, "200").await);
    fetching.abort();
    sleep(Duration::from_millis(500)).await;
    assert!(is(&second, "200").await, "even when nobody asks any more");
    let said = std::fs::read_to_string(directory.path().join("envoy.log")).unwrap();
    assert!(!said.contains("rejected"), "{said}");
    tasks.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_envoy_has_keys_inline_that_come_rotate_and_stay() {
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
