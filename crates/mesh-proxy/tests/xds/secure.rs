//! A proxy whose control plane and whose secret service have TLS.

use crate::plane::SOON;
use crate::support::{Http1, free_address, get, text};
use mesh_core::model::{
    ClientTls, Cluster, SecretName, SecretRef, ServerTls, SnapshotBuilder, Validation,
};
use mesh_core::{Feed, Publisher};
use mesh_identity::{Acceptor, Files};
use mesh_proxy::xds::Driver;
use mesh_xds::bootstrap::Bootstrap;
use mesh_xds::server::{Changes, ResourceSet, Server, View};
use mesh_xds::{Node, TypeUrl, write};
use std::net::SocketAddr;
use std::sync::Arc;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// A control plane with TLS that also asks for certificates; both sides show the same one.
struct Plane {
    address: SocketAddr,
    directory: TempDir,
    _tasks: JoinSet<()>,
}

impl Plane {
    async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let at = |file: &str| directory.path().join(file).to_str().unwrap().to_owned();
        let made = rcgen::generate_simple_self_signed(["istiod.test".to_owned()]).unwrap();
        std::fs::write(at("cert.pem"), made.cert.pem()).unwrap();
        std::fs::write(at("key.pem"), made.signing_key.serialize_pem()).unwrap();
        let pair = SecretName::CertificateFiles {
            certificate: &at("cert.pem"),
            key: &at("key.pem"),
        };
        let mut validation = Validation::default();
        let roots = SecretName::RootFile(&at("cert.pem")).to_name();
        validation.roots = Some(SecretRef::local(roots));
        let mut tls = ServerTls::default();
        tls.alpn = vec!["h2".into()];
        tls.certificates = vec![SecretRef::local(pair.to_name())];
        tls.validation = Some(validation.clone());
        tls.require_client_certificate = true;
        let mut names = ClientTls::default();
        names.certificates.clone_from(&tls.certificates);
        names.validation = Some(validation);
        let mut cluster = Cluster::new("clients");
        cluster.tls = Some(Arc::new(names));
        let mut builder = SnapshotBuilder::new();
        builder.cluster(cluster);
        let (snapshot, _) = builder.build().unwrap();
        let mut files = Files::new(Publisher::from_arc(snapshot.clone()).feed());
        files.refresh().await;
        let look = |named: &SecretRef| snapshot.secret(named).cloned();
        let acceptor = Acceptor::new(Arc::new(tls), look).unwrap();
        let set = ResourceSet::new();
        let cluster = write::encode("c", &write::cluster(&Cluster::new("c"), None));
        set.apply(Changes::new().set(TypeUrl::Cluster, cluster));
        let server = Server::builder(move |_: &Node| Ok(Feed::fixed(View::of([set.clone()]))));
        let server = server.build();
        let listener = TcpListener::bind(free_address()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let never = std::future::pending();
            server.serve_tls(listener, acceptor, never).await.unwrap();
        });
        Self {
            address,
            directory,
            _tasks: tasks,
        }
    }

    fn bootstrap(&self, san: &str) -> Bootstrap {
        let at = |file: &str| self.directory.path().join(file).display().to_string();
        let (cert, key) = (at("cert.pem"), at("key.pem"));
        let port = self.address.port();
        let text = format!(
            "node: {{id: node-1, cluster: c}}
dynamic_resources:
  ads_config:
    api_type: DELTA_GRPC
    transport_api_version: V3
    grpc_services:
    - envoy_grpc: {{cluster_name: plane, authority: istiod.test}}
      initial_metadata: [{{key: x-name, value: me}}]
  cds_config: {{ads: {{}}, resource_api_version: V3}}
static_resources:
  clusters:
  - name: plane
    type: STATIC
    connect_timeout: 1s
    transport_socket:
      name: tls
      typed_config:
        '@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
        sni: istiod.test
        common_tls_context:
          tls_certificates:
          - {{certificate_chain: {{filename: {cert}}}, private_key: {{filename: {key}}}}}
          validation_context:
            trusted_ca: {{filename: {cert}}}
            match_typed_subject_alt_names: [{{san_type: DNS, matcher: {{exact: {san}}}}}]
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        '@type': type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {{http2_protocol_options: {{}}}}
    load_assignment:
      cluster_name: plane
      endpoints:
      - lb_endpoints:
        - endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}}}
"
        );
        Bootstrap::from_yaml(&text).unwrap()
    }
}

#[tokio::test]
async fn an_envoy_bootstrap_with_tls_to_its_control_plane_is_followed() {
    let plane = Plane::start().await;
    let bootstrap = plane.bootstrap("istiod.test");
    let ads = bootstrap.ads.as_ref().unwrap();
    assert_eq!(ads.servers, [format!("https://{}", plane.address)]);
    assert!(!format!("{ads:?}").contains("\"me\""));
    let driver = Driver::from_bootstrap(&bootstrap, |client| client).unwrap();
    let mut snapshots = driver.snapshots();
    let driving = tokio::spawn(driver.run());
    let wait = async {
        while snapshots.load().cluster("c").is_none() {
            snapshots.changed().await.unwrap();
        }
    };
    tokio::time::timeout(SOON, wait).await.expect("in time");
    driving.abort();
}

#[tokio::test]
async fn a_control_plane_with_another_name_is_refused_and_why_is_in_its_status() {
    let plane = Plane::start().await;
    let bootstrap = plane.bootstrap("other.test");
    let driver = Driver::from_bootstrap(&bootstrap, |client| client).unwrap();
    let mut status = driver.status();
    let admin = free_address();
    let proxy = driver.proxy().admin(Some(admin)).concurrency(1);
    let proxy = proxy.start().await.unwrap();
    let driving = tokio::spawn(driver.run());
    let wait = async {
        while status.load().last_error.is_none() {
            status.changed().await.unwrap();
        }
    };
    tokio::time::timeout(SOON, wait).await.expect("in time");
    let status = status.load();
    let said = status.last_error.as_deref().unwrap();
    assert!(said.contains("no TLS with") && !status.connected, "{said}");
    let mut admin = Http1::connect(admin).await;
    let stats = text(admin.send(get("/stats?filter=control_plane")).await).await;
    assert!(
        stats.contains("control_plane.last_error: \"") && stats.contains("no TLS"),
        "{stats}"
    );
    assert!(
        stats.contains("control_plane.connected_state: 0"),
        "{stats}"
    );
    driving.abort();
    proxy.drain().await;
}
