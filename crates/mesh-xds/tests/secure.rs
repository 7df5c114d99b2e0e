//! TLS between the client and the server, over sockets.

use mesh_core::model::{ClientTls, Cluster, SecretName, SecretRef, Validation};
use mesh_core::model::{ServerTls, SnapshotBuilder};
use mesh_core::{Feed, Publisher};
use mesh_identity::{Acceptor, Files};
use mesh_xds::client::{Client, Server, Status};
use mesh_xds::server::{Changes, ResourceSet, Server as Plane, View};
use mesh_xds::{Node, TypeUrl, write};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

const SOON: Duration = Duration::from_secs(20);

/// An authority with its root in a file, and a directory for what it signs.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    directory: TempDir,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        let directory = tempfile::tempdir().unwrap();
        // Each has a name of its own: who knows none of that name says so.
        let name = directory.path().to_str().unwrap().to_owned();
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

    fn root(&self) -> String {
        let path = self.path("root.pem");
        SecretName::RootFile(path.to_str().unwrap())
            .to_name()
            .to_string()
    }

    /// A certificate for a host, in files of this name.
    fn sign(&self, name: &str, host: &str, expired: bool) -> String {
        let mut params = CertificateParams::new([host.to_owned()]).unwrap();
        if expired {
            params.not_before = rcgen::date_time_ymd(2001, 1, 1);
            params.not_after = rcgen::date_time_ymd(2002, 1, 1);
        }
        let key = KeyPair::generate().unwrap();
        let signed = params.signed_by(&key, &self.issuer).unwrap();
        let (certificate, private) = (
            self.path(&format!("{name}.pem")),
            self.path(&format!("{name}.key")),
        );
        std::fs::write(&certificate, signed.pem()).unwrap();
        std::fs::write(&private, key.serialize_pem()).unwrap();
        let at = |path: &Path| path.to_str().unwrap().to_owned();
        SecretName::CertificateFiles {
            certificate: &at(&certificate),
            key: &at(&private),
        }
        .to_name()
        .to_string()
    }
}

/// A control plane with TLS; it ends with the value.
struct Secure {
    address: SocketAddr,
    _tasks: JoinSet<()>,
}

impl Secure {
    /// Shows this certificate, and wants one that leads to these roots.
    async fn start(certificate: &str, clients: Option<&str>) -> Self {
        let mut tls = ServerTls::default();
        tls.alpn = vec!["h2".into()];
        tls.certificates = vec![SecretRef::local(certificate)];
        if let Some(roots) = clients {
            let mut validation = Validation::default();
            validation.roots = Some(SecretRef::local(roots));
            tls.validation = Some(validation);
            tls.require_client_certificate = true;
        }
        let mut names = ClientTls::default();
        names.certificates.clone_from(&tls.certificates);
        names.validation.clone_from(&tls.validation);
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
        let cluster = write::encode("a", &write::cluster(&Cluster::new("a"), None));
        set.apply(Changes::new().set(TypeUrl::Cluster, cluster));
        let view = move |_: &Node| Ok(Feed::fixed(View::of([set.clone()])));
        let plane = Plane::builder(view).build();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let never = std::future::pending();
            plane.serve_tls(listener, acceptor, never).await.unwrap();
        });
        tasks.spawn(files.run());
        Self {
            address,
            _tasks: tasks,
        }
    }

    fn server(&self) -> Server {
        Server::at(format!("https://{}", self.address))
    }
}

fn client(server: Server) -> Client {
    Client::builder([server])
        .node(Node::new("n"))
        .backoff(Duration::from_millis(10), Duration::from_millis(50))
        .build()
        .unwrap()
}

async fn until(feed: &mut Feed<Status>, wanted: impl Fn(&Status) -> bool) -> Arc<Status> {
    let wait = async {
        loop {
            let status = feed.load();
            if wanted(&status) {
                return status;
            }
            feed.changed().await.unwrap();
        }
    };
    tokio::time::timeout(SOON, wait).await.expect("in time")
}

/// What a client says of a server that it cannot use.
async fn refusal(server: Server) -> String {
    let client = client(server);
    let mut feed = client.status();
    let running = tokio::spawn(client.run(std::future::pending()));
    let status = until(&mut feed, |status| status.last_error.is_some()).await;
    running.abort();
    assert!(status.kinds.values().all(|kind| kind.update_attempt == 0));
    status.last_error.clone().unwrap()
}

/// Whether a client is given what the server has.
async fn served(server: Server) {
    let client = client(server);
    let mut feed = client.status();
    let running = tokio::spawn(client.run(std::future::pending()));
    let came = |status: &Status| {
        let clusters = status.kinds.get(&TypeUrl::Cluster);
        status.connected && clusters.is_some_and(|kind| kind.update_success > 0)
    };
    until(&mut feed, came).await;
    running.abort();
}

#[tokio::test]
async fn a_control_plane_with_tls_is_spoken_to_by_the_name_in_its_certificate() {
    let ours = Authority::new();
    let certificate = ours.sign("server", "istiod.istio-system.svc", false);
    let plane = Secure::start(&certificate, None).await;
    let named = Some("istiod.istio-system.svc");
    served(plane.server().trusting(&ours.root(), named, None)).await;
}

#[tokio::test]
async fn an_address_is_a_name_too() {
    let ours = Authority::new();
    let plane = Secure::start(&ours.sign("server", "127.0.0.1", false), None).await;
    served(plane.server().trusting(&ours.root(), None, None)).await;
}

#[tokio::test]
async fn a_certificate_that_leads_to_other_roots_is_refused() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let plane = Secure::start(&theirs.sign("server", "127.0.0.1", false), None).await;
    let said = refusal(plane.server().trusting(&ours.root(), None, None)).await;
    assert!(said.contains("no TLS with"), "{said}");
    assert!(said.contains("CERTIFICATE_VERIFY_FAILED"), "{said}");
}

#[tokio::test]
async fn a_certificate_for_another_name_is_refused() {
    let ours = Authority::new();
    let plane = Secure::start(&ours.sign("server", "other.com", false), None).await;
    let said = refusal(plane.server().trusting(&ours.root(), None, None)).await;
    assert!(said.contains("no TLS with"), "{said}");
    let named = Some("istiod.istio-system.svc");
    let said = refusal(plane.server().trusting(&ours.root(), named, None)).await;
    assert!(said.contains("no TLS with"), "{said}");
}

#[tokio::test]
async fn a_certificate_that_has_expired_is_refused() {
    let ours = Authority::new();
    let plane = Secure::start(&ours.sign("server", "127.0.0.1", true), None).await;
    let said = refusal(plane.server().trusting(&ours.root(), None, None)).await;
    assert!(said.contains("expired"), "{said}");
}

#[tokio::test]
async fn a_client_without_a_certificate_is_refused_and_one_with_another_authoritys_too() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let certificate = ours.sign("server", "127.0.0.1", false);
    let plane = Secure::start(&certificate, Some(&ours.root())).await;
    let said = refusal(plane.server().trusting(&ours.root(), None, None)).await;
    assert!(said.to_lowercase().contains("certificate"), "{said}");
    let strange = theirs.sign("client", "me", false);
    let server = plane.server();
    let said = refusal(server.trusting(&ours.root(), None, Some(&strange))).await;
    assert!(
        said.contains("UNKNOWN_CA") || said.contains("UnknownCA"),
        "{said}"
    );
    let own = ours.sign("client", "me", false);
    served(plane.server().trusting(&ours.root(), None, Some(&own))).await;
}

#[tokio::test]
async fn files_that_are_missing_are_named_and_followed_until_they_are_there() {
    let ours = Authority::new();
    let certificate = ours.sign("server", "127.0.0.1", false);
    let plane = Secure::start(&certificate, Some(&ours.root())).await;
    let name = ours.sign("client", "me", false);
    let file = ours.path("client.pem");
    let away = ours.path("away.pem");
    std::fs::rename(&file, &away).unwrap();
    let client = client(plane.server().trusting(&ours.root(), None, Some(&name)));
    let mut feed = client.status();
    let running = tokio::spawn(client.run(std::future::pending()));
    let status = until(&mut feed, |status| status.last_error.is_some()).await;
    let said = status.last_error.as_deref().unwrap();
    assert!(said.contains("client.pem"), "{said}");
    std::fs::rename(&away, &file).unwrap();
    until(&mut feed, |status| status.connected).await;
    running.abort();
}

#[tokio::test]
async fn a_server_whose_certificate_changes_shows_the_new_one_without_a_restart() {
    let ours = Authority::new();
    let certificate = ours.sign("server", "old.com", false);
    let plane = Secure::start(&certificate, None).await;
    served(plane.server().trusting(&ours.root(), Some("old.com"), None)).await;
    ours.sign("server", "new.com", false);
    // The client goes on trying.
    served(plane.server().trusting(&ours.root(), Some("new.com"), None)).await;
    let said = refusal(plane.server().trusting(&ours.root(), Some("old.com"), None)).await;
    assert!(said.contains("no TLS with"), "{said}");
}

#[tokio::test]
async fn who_speaks_plain_text_to_tls_is_told_nothing() {
    let ours = Authority::new();
    let plane = Secure::start(&ours.sign("server", "127.0.0.1", false), None).await;
    refusal(Server::at(format!("http://{}", plane.address))).await;
}
