//! Identities under load: the mesh's authority gives both sidecars a new certificate every two
//! seconds and replaces its root twice, while callers go from one to the other. No request fails,
//! and every new connection is shown the newest certificate.
//!
//! It lasts two minutes; `MESH_ROTATION_SECONDS` says otherwise.

mod support;

use axum::Router;
use axum::http::HeaderMap;
use mesh_control::Control;
use mesh_control::ca::{Keeper, KeeperOptions};
use mesh_core::Publisher;
use mesh_core::model::Validation;
use mesh_core::model::{ClientTls, Cluster, Secret, SecretRef, ServerTls, SnapshotBuilder};
use mesh_identity::authority::{Directory, RootOptions, Step};
use mesh_identity::{Acceptor, CertificateRequest, Connector, KeyKind};
use mesh_proxy::config::{Configuration, NodeSpec, Source};
use mesh_proxy::{AuthorityOptions, Identity, Proxy};
use mesh_xds::client::{Server, request_certificate};
use std::collections::HashSet;
use std::future::pending;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};
use support::{PATIENCE, at};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

/// Certificates live for so long, and are renewed after half of it.
const LIFE: Duration = Duration::from_secs(4);
/// How long it takes at most until everybody has a certificate from after a step.
const SETTLED: Duration = Duration::from_secs(4);

/// Callers of each kind.
const CALLERS: usize = 2;
/// Between two requests of a caller.
const PAUSE: Duration = Duration::from_millis(10);

/// Its upstream connections serve one request each: every request is a handshake.
const ANEW: &str = "server.shop.svc.cluster.local:8000";
/// Its upstream connections stay.
const KEPT: &str = "kept.shop.svc.cluster.local:8000";

/// An authority that runs.
struct Plane {
    folder: TempDir,
    keeper: Keeper,
    address: SocketAddr,
    tasks: JoinSet<()>,
}

/// How the authority is asked by who has a token.
struct Door {
    address: SocketAddr,
    roots: PathBuf,
    token: PathBuf,
}

/// Where everything is.
struct Ports {
    inbound: u16,
    application: u16,
    outbound: u16,
    unused: u16,
}

/// What callers have in common.
#[derive(Default)]
struct Load {
    stop: AtomicBool,
    requests: AtomicUsize,
    /// What the server was told of its callers' certificates.
    told: Mutex<HashSet<String>>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_certificate_and_the_root_are_replaced_under_load_and_no_request_fails() {
    let seconds = std::env::var("MESH_ROTATION_SECONDS").ok();
    let seconds = seconds.and_then(|it| it.parse().ok()).unwrap_or(120);
    let whole = Duration::from_secs(seconds);
    let mut plane = Plane::start().await;
    let ports = Ports::free(plane.application().await);
    plane.write("mesh.yaml", &objects(&ports));
    let server = plane.proxy("server-1", ports.unused).await;
    let client = plane.proxy("client-1", ports.outbound).await;

    let load = Arc::new(Load::default());
    let mut callers = JoinSet::new();
    for host in [ANEW, KEPT] {
        for _ in 0..CALLERS {
            callers.spawn(load.clone().calls(ports.outbound, host));
        }
    }
    let shown = tokio::spawn(watch(plane.door(), ports.inbound, load.clone()));

    let began = Instant::now();
    let steps = [Step::Prepare, Step::Promote, Step::Retire];
    let pause = (whole / 6).max(SETTLED);
    for step in steps.iter().chain(&steps) {
        plane.replace_root(*step);
        sleep(pause).await;
        assert_eq!(callers.len(), 2 * CALLERS, "after {step:?}");
        if let Some(failed) = callers.try_join_next() {
            failed.unwrap();
        }
        assert!(!shown.is_finished(), "after {step:?}");
    }
    let took = began.elapsed();
    load.stop.store(true, Ordering::SeqCst);
    while let Some(caller) = callers.join_next().await {
        caller.unwrap();
    }
    let shown = shown.await.unwrap();
    let told = load.told.lock().unwrap().len();
    println!(
        "{took:?}: {} requests, {told} certificates of the client, {shown} of the server",
        load.requests.load(Ordering::SeqCst)
    );
    // A machine that others share may be late, but not for ever.
    let least = took.as_secs() as usize / 4;
    assert!(
        told >= least && shown >= least,
        "{told} and {shown} of {least}"
    );
    client.drain().await;
    server.drain().await;
}

/// Looks at the server's certificate again and again: how many there were. None comes back.
async fn watch(door: Door, inbound: u16, load: Arc<Load>) -> usize {
    let mut seen: Vec<Vec<u8>> = Vec::new();
    while !load.stop.load(Ordering::SeqCst) {
        let connector = knock(door.ask().await);
        // Who asks has a certificate of the mesh, which must not end meanwhile.
        let until = Instant::now() + LIFE / 4;
        while Instant::now() < until {
            let stream = TcpStream::connect(at(inbound)).await.unwrap();
            let (_stream, told) = connector.connect(stream, None).await.unwrap();
            let shown = told.peer.as_ref().expect("a certificate").der.to_vec();
            if seen.last() != Some(&shown) {
                assert!(!seen.contains(&shown), "one from before is shown again");
                seen.push(shown);
            }
            sleep(PAUSE).await;
        }
    }
    seen.len()
}

/// A client of the mesh that looks at nothing.
fn knock(own: Secret) -> Connector {
    let name = SecretRef::local("own");
    let mut tls = ClientTls::default();
    tls.alpn = vec!["istio".into()];
    tls.certificates = vec![name.clone()];
    let tls = Arc::new(tls);
    let mut cluster = Cluster::new("server");
    cluster.tls = Some(tls.clone());
    let mut builder = SnapshotBuilder::new();
    builder.cluster(cluster);
    builder.secret(name, Arc::new(own));
    let (snapshot, _) = builder.build().unwrap();
    Connector::new(tls, |name| snapshot.secret(name).cloned()).unwrap()
}

/// A service twice, by two names, and who calls it.
fn objects(ports: &Ports) -> String {
    let (inbound, application) = (ports.inbound, ports.application);
    let service = |name: &str| {
        format!(
            "
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: shop}}
spec: {{selector: {{app: server}}, ports: [{{name: http, port: 8000, targetPort: {inbound}}}]}}
---"
        )
    };
    format!(
        "{}{}
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
spec: {{mtls: {{mode: STRICT}}}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: server, namespace: shop}}
spec:
  host: server.shop.svc.cluster.local
  trafficPolicy: {{connectionPool: {{http: {{maxRequestsPerConnection: 1}}}}}}
",
        service("server"),
        service("kept"),
    )
}

// === impl Plane ===

impl Plane {
    async fn start() -> Self {
        let folder = TempDir::new().unwrap();
        let tokens = "token-of-the-server shop/server\ntoken-of-the-client shop/client\n\
                      token-of-somebody shop/somebody\n";
        std::fs::write(folder.path().join("tokens"), tokens).unwrap();
        let mut options = KeeperOptions::new(Directory::at(folder.path().join("ca")));
        options.tokens = Some(folder.path().join("tokens"));
        options.limits.min_ttl = LIFE;
        let mut keeper = Keeper::open(options).unwrap();
        let control = Control::builder()
            .certificates(keeper.issuer().clone())
            .build();
        let mut tls = ServerTls::default();
        tls.alpn = vec!["h2".into()];
        tls.certificates = vec![SecretRef::local("own")];
        let mut validation = Validation::default();
        validation.roots = Some(SecretRef::local("roots"));
        tls.validation = Some(validation);
        let (acceptor, snapshot) = Acceptor::alone(Arc::new(tls), []).unwrap();
        let live = |name: &str| snapshot.secret(&SecretRef::local(name)).unwrap().clone();
        keeper
            .publish_into(Some(live("own")), live("roots"))
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            // Named by the snapshot for as long as it serves.
            let _named = Publisher::from_arc(snapshot);
            let served = control.xds().serve_tls(listener, acceptor, pending());
            served.await.unwrap();
        });
        Self {
            folder,
            keeper,
            address,
            tasks,
        }
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    fn directory(&self) -> Directory {
        Directory::at(self.folder.path().join("ca"))
    }

    /// One step of replacing the root, as `mesh ca rotate` does it.
    fn replace_root(&mut self, step: Step) {
        let directory = self.directory();
        let mut material = directory.read().unwrap();
        let root = RootOptions::default();
        material.step(step, &root, SystemTime::now()).unwrap();
        directory.write(&material).unwrap();
        self.keeper.look_once();
    }

    fn door(&self) -> Door {
        Door {
            address: self.address,
            roots: self.directory().path().join("root-cert.pem"),
            token: self.write("somebody", "token-of-somebody"),
        }
    }

    /// A server that answers with what it is told of its caller.
    async fn application(&mut self) -> u16 {
        let told = |headers: HeaderMap| async move {
            let told = headers.get("x-forwarded-client-cert").cloned();
            told.map_or_else(String::new, |it| it.to_str().unwrap().to_owned())
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let application = Router::new().fallback(told);
        self.tasks.spawn(async move {
            axum::serve(listener, application).await.unwrap();
        });
        port
    }

    /// A sidecar that has its identity from the authority.
    async fn proxy(&mut self, workload: &str, outbound: u16) -> mesh_proxy::Running {
        let account = workload.trim_end_matches("-1");
        let mut options = AuthorityOptions::at(format!("localhost:{}", self.address.port()));
        options.roots = Some(self.directory().path().join("root-cert.pem"));
        options.token = Some(self.write(account, &format!("token-of-the-{account}")));
        options.ttl = Some(LIFE);
        let (identity, mut renewal) = Identity::from_authority(options).unwrap();
        assert!(renewal.first().await, "no certificate for {workload}");
        self.tasks.spawn(renewal.run());
        let listen = format!("proxyListenPort: {outbound}\n");
        let source = Source {
            paths: vec![self.folder.path().join("mesh.yaml")],
            mesh_config: Some(self.write(&format!("{workload}.config"), &listen)),
            node: NodeSpec::Named {
                name: workload.to_owned(),
                namespace: "shop".to_owned(),
            },
            dns_capture: false,
            identity: true,
            self_discovery: false,
            locality: None,
            access_log: None,
        };
        let (configuration, findings) = Configuration::load(source).unwrap();
        assert!(!findings.iter().any(|it| it.is_error()), "{findings:?}");
        let proxy = Proxy::builder(configuration.feed())
            .identity(identity)
            .workload(configuration.workload())
            .concurrency(1)
            .admin(None);
        let running = proxy.start().await.unwrap();
        let ready = timeout(PATIENCE, running.ready()).await.unwrap();
        assert!(ready.failed.is_empty(), "{:?}", ready.failed);
        // It follows no files, but has to stay.
        self.tasks.spawn(async move {
            let _configuration = configuration;
            pending().await
        });
        running
    }
}

// === impl Door ===

impl Door {
    async fn ask(&self) -> Secret {
        let request = CertificateRequest::generate(KeyKind::EcdsaP256).unwrap();
        let roots = format!("file-root:{}", self.roots.display());
        let server = Server::at(format!("https://localhost:{}", self.address.port()))
            .trusting(&roots, None, None)
            .token_file(self.token.clone());
        let chain = request_certificate(server, request.csr(), Some(LIFE)).await;
        request.into_secret(chain.unwrap()[0].clone())
    }
}

// === impl Ports ===

impl Ports {
    fn free(application: u16) -> Self {
        // Held until all are known, so that they differ.
        let held: Vec<_> = (0..3)
            .map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap())
            .collect();
        let port = |at: usize| held[at].local_addr().unwrap().port();
        Self {
            inbound: port(0),
            application,
            outbound: port(1),
            unused: port(2),
        }
    }
}

// === impl Load ===

impl Load {
    /// Calls through the client's sidecar until there is an end to it.
    async fn calls(self: Arc<Self>, outbound: u16, host: &str) {
        let stream = TcpStream::connect(at(outbound)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let mut stream = BufReader::new(stream);
        let request = format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n");
        while !self.stop.load(Ordering::SeqCst) {
            stream.write_all(request.as_bytes()).await.unwrap();
            let (head, body) = timeout(PATIENCE, answer(&mut stream)).await.unwrap();
            assert!(head.starts_with("http/1.1 200"), "{host}: {head}{body}");
            let hash = body.split(';').find_map(|it| it.strip_prefix("Hash="));
            let hash = hash.unwrap_or_else(|| panic!("{host}: nobody is told of: {body:?}"));
            self.told.lock().unwrap().insert(hash.to_owned());
            self.requests.fetch_add(1, Ordering::SeqCst);
            sleep(PAUSE).await;
        }
    }
}

/// Head, in lower case, and body.
async fn answer(stream: &mut BufReader<TcpStream>) -> (String, String) {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        let read = stream.read_line(&mut head).await.unwrap();
        assert_ne!(read, 0, "it ended within {head:?}");
    }
    let head = head.to_ascii_lowercase();
    let length = head.split("content-length: ").nth(1);
    let length = length.and_then(|it| it.split("\r\n").next()?.parse().ok());
    let mut body = vec![0; length.expect("a length")];
    stream.read_exact(&mut body).await.unwrap();
    (head, String::from_utf8(body).unwrap())
}
