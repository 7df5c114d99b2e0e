//! Secrets that resources want from a service of their own.

use crate::plane::{Driven, Plane, SOON, all};
use crate::support::{free_address, named};
use mesh_core::Feed;
use mesh_core::model::{
    FilterChain, Listener, Secret, SecretRef, SecretSource, ServerTls, Snapshot, TcpProxy,
    Validation,
};
use mesh_proxy::xds::Driver;
use mesh_xds::bootstrap::Bootstrap;
use mesh_xds::client::Variant;
use mesh_xds::server::Changes;
use mesh_xds::{Encoded, TypeUrl, write};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
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
    let text = format!(
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
    );
    Bootstrap::from_yaml(&text).unwrap()
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
