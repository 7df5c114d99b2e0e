//! Secrets that resources want from a service of their own.

use crate::plane::{Driven, Plane, SOON, all};
use crate::support::{free_address, named};
use mesh_core::Feed;
use mesh_core::model::{
    ClientTls, FilterChain, Listener, Secret, SecretRef, SecretSource, ServerTls, Snapshot,
    TcpProxy, Validation,
};
use mesh_identity::{Connector, TlsStream};
use mesh_proxy::xds::Driver;
use mesh_xds::bootstrap::Bootstrap;
use mesh_xds::client::Variant;
use mesh_xds::server::Changes;
use mesh_xds::{Encoded, TypeUrl, write};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixListener};

fn at_service(cluster: &str, name: &str) -> SecretRef {
    SecretRef {
        name: name.into(),
        source: SecretSource::Service {
            cluster: cluster.into(),
            delta: false,
            opening: Default::default(),
            initial_fetch_timeout: Duration::from_millis(100),
        },
    }
}

/// A listener that shows one secret and trusts another.
fn listener(certificate: SecretRef, roots: Option<SecretRef>) -> Encoded {
    let mut tls = ServerTls::default();
    tls.certificates = vec![certificate];
    if let Some(roots) = roots {
        let mut validation = Validation::default();
        validation.roots = Some(roots);
        tls.validation = Some(validation);
    }
    let mut chain = FilterChain::tcp(TcpProxy::to("s", "c"));
    chain.tls = Some(Arc::new(tls));
    let listener = Listener::new("tls", free_address()).chain(chain);
    write::encode("tls", &write::listener(&listener, None))
}

async fn everything(plane: &Plane, listener: Encoded) {
    let backend = named("one").await;
    let changes = all(free_address(), "c", backend);
    plane.apply(changes.set(TypeUrl::Listener, listener));
}

async fn until(feed: &Feed<Snapshot>, what: &str, wanted: impl Fn(&Snapshot) -> bool) {
    let wait = async {
        while !wanted(&feed.load()) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let waited = tokio::time::timeout(SOON, wait).await;
    assert!(waited.is_ok(), "{what}");
}

fn value(snapshot: &Snapshot, named: &SecretRef) -> Option<Arc<Secret>> {
    let live = snapshot.secret(named)?;
    (*live.value().load()).clone()
}

fn shows(snapshot: &Snapshot, named: &SecretRef, chain: &str) -> bool {
    match value(snapshot, named).as_deref() {
        Some(Secret::Certificate { chain: found, .. }) => found == chain.as_bytes(),
        _ => false,
    }
}

fn write_pair(directory: &Path) -> String {
    let made = rcgen::generate_simple_self_signed(["a.com".to_owned()]).unwrap();
    let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    // Both at once, as who replaces a link does it.
    let next = tempfile::tempdir_in(directory).unwrap().keep();
    std::fs::write(next.join("cert.pem"), &chain).unwrap();
    std::fs::write(next.join("key.pem"), key).unwrap();
    let link = directory.join("next");
    std::os::unix::fs::symlink(&next, &link).unwrap();
    std::fs::rename(link, directory.join("now")).unwrap();
    chain
}

#[tokio::test]
async fn certificates_in_files_that_are_wanted_from_an_agent_are_read_and_followed() {
    let directory = tempfile::tempdir().unwrap();
    let first = write_pair(directory.path());
    let place = directory.path().join("now").display().to_string();
    let name = format!("file-cert:{place}/cert.pem~{place}/key.pem");
    let plane = Plane::start().await;
    let wanted = at_service("sds-grpc", &name);
    let system = at_service("sds-grpc", "file-root:system");
    everything(&plane, listener(wanted, Some(system))).await;
    let driver = Driven::driver(&plane, Variant::Delta);
    let snapshots = driver.snapshots();
    let _driven = Driven::with(driver).await;
    let local = SecretRef::local(name.as_str());
    let shown = |chain: &str| {
        let (local, chain) = (local.clone(), chain.to_owned());
        move |snapshot: &Snapshot| shows(snapshot, &local, &chain)
    };
    until(&snapshots, "the first certificate", shown(&first)).await;
    let roots = SecretRef::local("file-root:system");
    assert!(snapshots.load().secret(&roots).is_some());
    let second = write_pair(directory.path());
    until(&snapshots, "the second certificate", shown(&second)).await;
}

fn tcp(address: SocketAddr) -> String {
    let (ip, port) = (address.ip(), address.port());
    format!("socket_address: {{address: {ip}, port_value: {port}}}")
}

/// A Unix domain socket in front of a server, as Istio's agent has one.
fn piped(directory: &Path, name: &str, to: SocketAddr) -> String {
    let path = directory.join(name);
    let listener = UnixListener::bind(&path).unwrap();
    tokio::spawn(async move {
        loop {
            let (mut from, _) = listener.accept().await.unwrap();
            let mut to = TcpStream::connect(to).await.unwrap();
            tokio::spawn(async move {
                // Either may hang up at any time.
                let _ = tokio::io::copy_bidirectional(&mut from, &mut to).await;
            });
        }
    });
    format!("pipe: {{path: {}}}", path.display())
}

/// Envoy's bootstrap with a control plane and an agent.
fn bootstrap(plane: &str, agent: &str) -> Bootstrap {
    Bootstrap::from_yaml(&bootstrap_text(plane, agent)).unwrap()
}

fn bootstrap_text(plane: &str, agent: &str) -> String {
    let cluster = |name: &str, at: &str| {
        format!(
            "  - name: {name}
    type: STATIC
    connect_timeout: 1s
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        \"@type\": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {{http2_protocol_options: {{}}}}
    load_assignment:
      cluster_name: {name}
      endpoints:
      - lb_endpoints:
        - endpoint: {{address: {{{at}}}}}
"
        )
    };
    format!(
        "node: {{id: node-1, cluster: c}}
dynamic_resources:
  ads_config:
    api_type: DELTA_GRPC
    transport_api_version: V3
    grpc_services: [{{envoy_grpc: {{cluster_name: plane}}}}]
  cds_config: {{ads: {{}}, resource_api_version: V3}}
  lds_config: {{ads: {{}}, resource_api_version: V3}}
static_resources:
  clusters:
{}{}",
        cluster("plane", plane),
        cluster("agent", agent)
    )
}

#[tokio::test]
async fn a_service_in_the_bootstrap_is_asked_for_what_is_in_no_file() {
    for unix in [false, true] {
        asks_a_service(unix).await;
    }
}

async fn asks_a_service(unix: bool) {
    let (plane, agent) = (Plane::start().await, Plane::start().await);
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str, server: &Plane| match unix {
        true => piped(directory.path(), name, server.address),
        false => tcp(server.address),
    };
    let bootstrap = bootstrap(&at("XDS", &plane), &at("socket", &agent));
    write_pair(directory.path());
    let place = directory.path().join("now").display().to_string();
    let roots = format!("file-root:{place}/cert.pem");
    let identity = at_service("agent", "default");
    let trusted = at_service("agent", &roots);
    everything(&plane, listener(identity.clone(), Some(trusted))).await;
    let given = |chain: &str| {
        let secret = Secret::certificate(chain, "key");
        let encoded = write::encode("default", &write::secret("default", &secret));
        Changes::new().set(TypeUrl::Secret, encoded)
    };
    agent.apply(given("first"));
    let driver = Driver::from_bootstrap(&bootstrap, |client| client).unwrap();
    let snapshots = driver.snapshots();
    let _driven = Driven::with(driver).await;
    let first = |snapshot: &Snapshot| shows(snapshot, &identity, "first");
    until(&snapshots, "what the agent has", first).await;
    let file = SecretRef::local(roots.as_str());
    let read = |snapshot: &Snapshot| value(snapshot, &file).is_some();
    until(&snapshots, "a file beside it", read).await;
    agent.apply(given("second"));
    let second = |snapshot: &Snapshot| shows(snapshot, &identity, "second");
    until(&snapshots, "what it has next", second).await;
    assert!(read(&snapshots.load()), "the agent has no say in files");
}

#[tokio::test]
async fn a_secret_that_nobody_provides_keeps_nothing_else_from_working() {
    let plane = Plane::start().await;
    let wanted = at_service("nowhere", "default");
    everything(&plane, listener(wanted.clone(), None)).await;
    let driver = Driven::driver(&plane, Variant::Delta);
    let snapshots = driver.snapshots();
    let driven = Driven::with(driver).await;
    driven.initialized().await;
    let snapshot = snapshots.load();
    assert_eq!(snapshot.listeners().len(), 2);
    assert!(snapshot.secret(&wanted).is_some());
    assert_eq!(value(&snapshot, &wanted), None);
}

/// An authority, and a certificate of it for a caller.
fn authority() -> (String, Secret) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut root = rcgen::CertificateParams::default();
    root.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let pem = root.self_signed(&key).unwrap().pem();
    let issuer = rcgen::Issuer::new(root, key);
    let own = rcgen::KeyPair::generate().unwrap();
    let leaf = rcgen::CertificateParams::new(["caller.test".to_owned()]).unwrap();
    let leaf = leaf.signed_by(&own, &issuer).unwrap();
    (pem, Secret::certificate(leaf.pem(), own.serialize_pem()))
}

/// A connection to the proxy with this certificate of the caller's.
async fn connect(to: SocketAddr, own: &Secret) -> Option<TlsStream<TcpStream>> {
    let named = SecretRef::local("own");
    let mut tls = ClientTls::default();
    tls.certificates = vec![named.clone()];
    let own = [(named, Arc::new(own.clone()))];
    let (connector, _) = Connector::alone(Arc::new(tls), own).unwrap();
    let stream = TcpStream::connect(to).await.unwrap();
    Some(connector.connect(stream, None).await.ok()?.0)
}

/// Whether a backend answers. A proxy that speaks TLS 1.3 refuses a certificate only here.
async fn answers(stream: &mut TlsStream<TcpStream>) -> bool {
    let request = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";
    let ask = async {
        stream.write_all(request).await?;
        stream.flush().await?;
        let mut head = Vec::new();
        while !head.ends_with(b"one") {
            head.push(stream.read_u8().await?);
        }
        std::io::Result::Ok(head.starts_with(b"HTTP/1.1 200"))
    };
    tokio::time::timeout(SOON, ask)
        .await
        .unwrap()
        .unwrap_or(false)
}

async fn is_let_in(to: SocketAddr, own: &Secret) -> bool {
    match connect(to, own).await {
        Some(mut stream) => answers(&mut stream).await,
        None => false,
    }
}

#[tokio::test]
async fn roots_that_are_pushed_are_asked_for_by_the_next_handshake() {
    for by_service in [false, true] {
        for variant in [Variant::Delta, Variant::Sotw] {
            pushes_roots(by_service, variant).await;
        }
    }
}

async fn pushes_roots(by_service: bool, variant: Variant) {
    let (plane, agent) = (Plane::start().await, Plane::start().await);
    let ((first, caller), (second, stranger)) = (authority(), authority());
    let named = match by_service {
        true => at_service("agent", "ROOTCA"),
        false => SecretRef {
            name: "ROOTCA".into(),
            source: SecretSource::ControlPlane {
                initial_fetch_timeout: Duration::from_secs(15),
            },
        },
    };
    let own = SecretRef {
        name: "default".into(),
        source: SecretSource::ControlPlane {
            initial_fetch_timeout: Duration::from_secs(15),
        },
    };
    let mut tls = ServerTls::default();
    tls.certificates = vec![own];
    tls.require_client_certificate = true;
    let mut validation = Validation::default();
    validation.roots = Some(named.clone());
    tls.validation = Some(validation);
    let address = free_address();
    let mut chain = FilterChain::tcp(TcpProxy::to("s", "c"));
    chain.tls = Some(Arc::new(tls));
    let listener = Listener::new("tls", address).chain(chain);
    let push = |name: &str, secret: &Secret, from: &Plane| {
        let encoded = write::encode(name, &write::secret(name, secret));
        from.apply(Changes::new().set(TypeUrl::Secret, encoded));
    };
    let provider = if by_service { &agent } else { &plane };
    let (_, shown) = authority();
    push("default", &shown, &plane);
    push("ROOTCA", &Secret::roots(first.as_str()), provider);
    let encoded = write::encode("tls", &write::listener(&listener, None));
    everything(&plane, encoded).await;
    let driver = match by_service {
        true => {
            let kind = match variant {
                Variant::Delta => "DELTA_GRPC",
                _ => "GRPC",
            };
            let text = bootstrap_text(&tcp(plane.address), &tcp(agent.address));
            let text = text.replace("api_type: DELTA_GRPC", &format!("api_type: {kind}"));
            let bootstrap = Bootstrap::from_yaml(&text).unwrap();
            Driver::from_bootstrap(&bootstrap, |client| client).unwrap()
        }
        false => Driven::driver(&plane, variant),
    };
    let snapshots = driver.snapshots();
    let driven = Driven::with(driver).await;
    driven.initialized().await;
    let roots = |pem: &str| {
        let (named, wanted) = (named.clone(), Arc::new(Secret::roots(pem)));
        move |snapshot: &Snapshot| value(snapshot, &named).as_ref() == Some(&wanted)
    };
    until(&snapshots, "the first roots", roots(&first)).await;
    let mut kept = connect(address, &caller).await.unwrap();
    assert!(answers(&mut kept).await);
    assert!(!is_let_in(address, &stranger).await);

    push("ROOTCA", &Secret::roots(second.as_str()), provider);
    until(&snapshots, "the second roots", roots(&second)).await;
    assert!(is_let_in(address, &stranger).await, "of the new authority");
    assert!(
        !is_let_in(address, &caller).await,
        "of the one that is gone"
    );
    assert!(answers(&mut kept).await, "connections go on");

    let both = format!("{first}{second}");
    push("ROOTCA", &Secret::roots(both.as_str()), provider);
    until(&snapshots, "both roots", roots(&both)).await;
    assert!(is_let_in(address, &stranger).await && is_let_in(address, &caller).await);
}
