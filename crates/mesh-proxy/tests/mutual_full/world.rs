//! The mesh of the test: what is configured, who has which certificate, and how a proxy is started.

use mesh_core::model::SnapshotBuilder;
use mesh_istio::{Files, Node, World, compile};
use mesh_xds::json::Codec;
use mesh_xds::{TypeUrl, write};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose,
    SanType,
};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

/// An authority.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// Which proxy stands beside a workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Ours,
    Envoy,
}

/// Where everything of a scenario is.
pub struct Addresses {
    /// The server's proxy, as others call it.
    pub inbound: SocketAddr,
    /// The server itself.
    pub application: SocketAddr,
    /// Where the client's application calls its proxy.
    pub outbound: SocketAddr,
}

/// A proxy that runs; it ends with the test.
pub struct Running(Child);

// === impl Authority ===

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().unwrap();
        Self(CertifiedIssuer::self_signed(params, key).unwrap())
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// A directory with an identity, as Istio's agent leaves it, that trusts the mesh's authority.
    pub fn identity(&self, parent: &Path, uri: &str, mesh: &Self) -> PathBuf {
        let name = uri.replace(['/', ':'], "_");
        let directory = parent.join(format!("{name}_{}", rand_name(parent)));
        std::fs::create_dir(&directory).unwrap();
        let mut params = CertificateParams::new(["one.test".to_owned()]).unwrap();
        let uri = SanType::URI(uri.try_into().unwrap());
        params.subject_alt_names.insert(0, uri);
        params
            .distinguished_name
            .push(DnType::CommonName, "somebody");
        params
            .distinguished_name
            .push(DnType::OrganizationName, "a mesh+more");
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        let chain = certificate.pem() + &self.pem();
        for (file, text) in [
            ("cert-chain.pem", chain),
            ("key.pem", key.serialize_pem()),
            ("root-cert.pem", mesh.pem()),
        ] {
            std::fs::write(directory.join(file), text).unwrap();
        }
        directory
    }
}

/// A number that no entry of a directory has.
fn rand_name(parent: &Path) -> usize {
    std::fs::read_dir(parent).unwrap().count()
}

/// What the objects say of a mesh in which the server accepts by this mode.
fn objects(at: &Addresses, mode: &str) -> String {
    let (inbound, application) = (at.inbound.port(), at.application.port());
    format!(
        "
apiVersion: v1
kind: Service
metadata: {{name: server, namespace: shop}}
spec: {{selector: {{app: server}}, ports: [{{name: http, port: 8000, targetPort: {inbound}}}]}}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata:
  name: server-1
  namespace: shop
  labels: {{app: server, security.istio.io/tlsMode: istio}}
  annotations: {{mesh-rs.dev/inbound: '{inbound}={application}'}}
spec:
  address: 127.0.0.1
  labels: {{app: server, security.istio.io/tlsMode: istio}}
  ports: {{http: {inbound}}}
  serviceAccount: server
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {{name: client-1, namespace: shop, annotations: {{mesh-rs.dev/role: sidecar}}}}
spec: {{address: 127.0.0.1, labels: {{app: client}}, serviceAccount: client}}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {{name: default, namespace: shop}}
spec: {{mtls: {{mode: {mode}}}}}
"
    )
}

/// A bootstrap with what our control plane would send to a workload.
fn bootstrap(at: &Addresses, mode: &str, workload: &str, outbound: SocketAddr) -> Value {
    let mut world = World::default();
    let files = Files::from_text("a.yaml", &objects(at, mode)).and_mesh_config_text(
        "mesh.yaml",
        &format!("proxyListenPort: {}", outbound.port()),
    );
    let findings = world.update(&files);
    assert!(!findings.iter().any(|one| one.is_error()), "{findings:?}");
    let mut node = Node::find(&world, workload, "shop").unwrap().unwrap();
    node.identity = true;
    let mut builder = SnapshotBuilder::new();
    let findings = compile(&world, &node, &mut builder);
    assert!(!findings.iter().any(|one| one.is_error()), "{findings:?}");
    let (snapshot, _) = builder.build().unwrap();
    let codec = Codec::new();
    let (mut clusters, mut listeners) = (Vec::new(), Vec::new());
    let (mut endpoints, mut tables) = (Vec::new(), Vec::new());
    for (url, encoded) in write::snapshot(&snapshot) {
        let message = url.url().rsplit('/').next().unwrap();
        let text = codec.to_json(message, &encoded.bytes).unwrap();
        let value: Value = serde_json::from_str(&text).unwrap();
        match url {
            TypeUrl::Cluster => clusters.push(value),
            TypeUrl::Endpoints => endpoints.push(value),
            TypeUrl::Listener => listeners.push(value),
            TypeUrl::Routes => tables.push(value),
            other => panic!("{other} is not expected"),
        }
    }
    // There is nobody to ask for them: everything stands in one place.
    for cluster in &mut clusters {
        if cluster["type"] == "EDS" {
            let name = cluster["name"].clone();
            let mut own = endpoints.iter().filter(|one| one["cluster_name"] == name);
            let none = json!({"cluster_name": name});
            cluster["load_assignment"] = own.next().unwrap_or(&none).clone();
            cluster["type"] = json!("STATIC");
            cluster
                .as_object_mut()
                .unwrap()
                .remove("eds_cluster_config");
        }
    }
    for listener in &mut listeners {
        for chain in listener["filter_chains"].as_array_mut().unwrap() {
            let manager = &mut chain["filters"][0]["typed_config"];
            let Some(rds) = manager.as_object_mut().unwrap().remove("rds") else {
                continue;
            };
            let mut own = tables.iter();
            let own = own
                .find(|one| one["name"] == rds["route_config_name"])
                .unwrap();
            manager["route_config"] = own.clone();
            if manager["forward_client_cert_details"] == "APPEND_FORWARD" {
                // All there is, so that all of it is compared.
                let all =
                    json!({"subject": true, "cert": true, "chain": true, "dns": true, "uri": true});
                manager["set_current_client_cert_details"] = all;
            }
        }
    }
    json!({
        "node": {"id": "x", "cluster": "x"},
        "static_resources": {"clusters": clusters, "listeners": listeners},
    })
}

/// The same for who asks nobody for secrets: they are in files.
fn with_files(value: &mut Value, directory: &Path) {
    match value {
        Value::Array(items) => items
            .iter_mut()
            .for_each(|item| with_files(item, directory)),
        Value::Object(fields) => {
            if let Some(name) = fields.get("name").and_then(Value::as_str)
                && fields.contains_key("sds_config")
            {
                let path = directory.join(format!("{name}.json"));
                let path =
                    json!({"path_config_source": {"path": path}, "resource_api_version": "V3"});
                fields.insert("sds_config".to_owned(), path);
            }
            fields
                .values_mut()
                .for_each(|one| with_files(one, directory));
        }
        _ => {}
    }
}

/// Secrets of an identity as files of Envoy's.
fn write_secrets(directory: &Path) {
    let file = |name: &str| json!({"filename": directory.join(name)});
    let kind = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";
    for (name, key, value) in [
        (
            "default",
            "tls_certificate",
            json!({"certificate_chain": file("cert-chain.pem"), "private_key": file("key.pem")}),
        ),
        (
            "ROOTCA",
            "validation_context",
            json!({"trusted_ca": file("root-cert.pem")}),
        ),
    ] {
        let secret = json!({"resources": [{"@type": kind, "name": name, key: value}]});
        let text = serde_json::to_vec_pretty(&secret).unwrap();
        std::fs::write(directory.join(format!("{name}.json")), text).unwrap();
    }
}

/// Starts the proxy of a workload, and waits until it accepts at `until`.
pub async fn start(
    (kind, envoy): (Kind, &str),
    at: &Addresses,
    mode: &str,
    (workload, outbound): (&str, SocketAddr),
    identity: &Path,
    until: SocketAddr,
) -> Running {
    let mut config = bootstrap(at, mode, workload, outbound);
    let file = identity.join("bootstrap.json");
    let said = std::fs::File::create(identity.join("said")).unwrap();
    let mut command = match kind {
        Kind::Ours => {
            let mut command = Command::new(env!("CARGO_BIN_EXE_mesh-proxy"));
            command
                .args(["run", "--admin", "off", "--concurrency", "1"])
                .arg("--identity-dir")
                .arg(identity)
                .arg("--envoy-config");
            command
        }
        Kind::Envoy => {
            write_secrets(identity);
            with_files(&mut config, identity);
            let mut command = Command::new(envoy);
            command
                .args(["--concurrency", "1", "--disable-hot-restart"])
                .args(["--log-level", "warning", "-c"]);
            command
        }
    };
    std::fs::write(&file, serde_json::to_vec_pretty(&config).unwrap()).unwrap();
    let child = command
        .arg(&file)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(said)
        .spawn()
        .unwrap();
    let mut running = Running(child);
    let ready = async {
        while TcpStream::connect(until).await.is_err() {
            if let Some(status) = running.0.try_wait().unwrap() {
                let said = std::fs::read_to_string(identity.join("said")).unwrap();
                panic!("{kind:?} ended with {status}:\n{said}");
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    let ready = timeout(Duration::from_secs(90), ready).await;
    if ready.is_err() {
        let said = std::fs::read_to_string(identity.join("said")).unwrap();
        panic!("{kind:?} of {workload} accepts nothing:\n{said}");
    }
    running
}

impl Drop for Running {
    fn drop(&mut self) {
        // It is gone already if this fails.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
