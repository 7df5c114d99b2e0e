//! The certificate authority over gRPC and TLS, asked by our own client.

use mesh_control::Control;
use mesh_control::ca::{Keeper, KeeperOptions};
use mesh_core::Publisher;
use mesh_core::model::{Secret, SecretRef, ServerTls, Validation};
use mesh_identity::authority::{Authority, Directory, Grant, Limits, Material, RootOptions, Step};
use mesh_identity::{Acceptor, CertificateRequest, KeyKind, SpiffeId};
use mesh_xds::client::{CertificateError, Server, request_certificate};
use std::future::pending;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tower_service::Service;

/// A control plane that is an authority.
struct Plane {
    folder: TempDir,
    keeper: Keeper,
    control: Control,
    address: SocketAddr,
    serving: JoinHandle<()>,
}

const REVIEWS: &str = "a-token-of-reviews-1";

impl Plane {
    async fn start() -> Self {
        let folder = TempDir::new().unwrap();
        let seconds = |time: SystemTime| {
            time.duration_since(SystemTime::UNIX_EPOCH)
                .unwrap()
                .as_secs()
        };
        let later = seconds(SystemTime::now()) + 3600;
        let tokens = format!(
            "{REVIEWS} shop/reviews\na-token-that-ended shop/old until=1000\n\
             a-token-for-one-use shop/once until={later} once\n"
        );
        std::fs::write(folder.path().join("tokens"), tokens).unwrap();
        let mut options = KeeperOptions::new(Directory::at(folder.path().join("ca")));
        options.tokens = Some(folder.path().join("tokens"));
        options.trust_domain = "a.test".to_owned();
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
        let server = control.xds().clone();
        let serving = tokio::spawn(async move {
            // Named by the snapshot for as long as it serves.
            let _named = Publisher::from_arc(snapshot);
            server
                .serve_tls(listener, acceptor, pending())
                .await
                .unwrap();
        });
        Self {
            folder,
            keeper,
            control,
            address,
            serving,
        }
    }

    fn directory(&self) -> Directory {
        Directory::at(self.folder.path().join("ca"))
    }

    /// The authority with another certificate for its identity, or none.
    fn server(&self, own: Option<Secret>) -> Server {
        let roots = self.directory().path().join("root-cert.pem");
        let roots = format!("file-root:{}", roots.display());
        let server = Server::at(format!("https://localhost:{}", self.address.port()));
        match own {
            None => server.trusting(&roots, None, None),
            Some(own) => server
                .trusting(&roots, None, Some("own"))
                .secret(SecretRef::local("own"), own),
        }
    }

    fn with_token(&self, token: &str) -> Server {
        let path: PathBuf = self.folder.path().join(format!("token-{token}"));
        std::fs::write(&path, token).unwrap();
        self.server(None).token_file(path)
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn ask(server: Server) -> Result<(Secret, Vec<String>), CertificateError> {
    let request = CertificateRequest::generate(KeyKind::EcdsaP256).unwrap();
    let chain = request_certificate(server, request.csr(), None).await?;
    Ok((request.into_secret(chain[0].clone()), chain))
}

fn names(chain: &[String]) -> String {
    let facts = mesh_identity::certificate_facts(chain[0].as_bytes()).unwrap();
    format!("{:?}", facts[0].names)
}

async fn refused(server: Server) -> String {
    match ask(server).await {
        Err(CertificateError::Refused(said)) => said,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_token_gets_a_certificate_which_gets_the_next_one() {
    let plane = Plane::start().await;
    let (own, chain) = ask(plane.with_token(REVIEWS)).await.unwrap();
    let reviews = "[Uri(\"spiffe://a.test/ns/shop/sa/reviews\")]";
    assert_eq!(names(&chain), reviews);
    let facts = mesh_identity::certificate_facts(chain.concat().as_bytes()).unwrap();
    assert!(facts.len() == 2 && !facts[0].is_authority && facts[1].is_authority);
    // A day, and two minutes for clocks that are behind.
    let life = facts[0].not_after - facts[0].not_before;
    assert!((86_400..=86_400 + 121).contains(&life), "{life}");
    // Without a token: who has a certificate is known.
    let (_, next) = ask(plane.server(Some(own))).await.unwrap();
    assert_eq!(names(&next), reviews);
    assert_ne!(next[0], chain[0]);
}

#[tokio::test]
async fn who_is_not_known_gets_none() {
    let plane = Plane::start().await;
    for (server, said) in [
        (plane.server(None), "neither a certificate nor a token"),
        (plane.with_token("a-token-of-nobody-"), "not known"),
        (plane.with_token("a-token-that-ended"), "expired"),
    ] {
        let refused = refused(server).await;
        assert!(refused.starts_with("Unauthenticated"), "{refused}");
        assert!(
            refused.contains(said) && !refused.contains("a-token"),
            "{refused}"
        );
    }
    // Replayed.
    ask(plane.with_token("a-token-for-one-use")).await.unwrap();
    let again = refused(plane.with_token("a-token-for-one-use")).await;
    assert!(again.contains("has been used"), "{again}");
}

#[tokio::test]
async fn a_certificate_of_another_authority_or_trust_domain_is_of_no_use() {
    let plane = Plane::start().await;
    let now = SystemTime::now();
    let made_by = |authority: &Authority, id: &str| {
        let request = CertificateRequest::generate(KeyKind::EcdsaP256).unwrap();
        let grant = Grant::to(id.parse::<SpiffeId>().unwrap());
        let issued = authority.sign(request.csr(), &grant, now).unwrap();
        request.into_secret(issued.chain_pem())
    };
    let reviews = "spiffe://a.test/ns/shop/sa/reviews";
    let other = Material::self_signed(&RootOptions::default(), now).unwrap();
    let other = Authority::new(&other, Limits::default(), now).unwrap();
    let stranger = ask(plane.server(Some(made_by(&other, reviews)))).await;
    assert!(stranger.is_err(), "{stranger:?}");
    let own = plane.directory().read().unwrap();
    let own = Authority::new(&own, Limits::default(), now).unwrap();
    let elsewhere = made_by(&own, "spiffe://b.test/ns/shop/sa/reviews");
    let said = refused(plane.server(Some(elsewhere))).await;
    assert!(said.contains("not the trust domain"), "{said}");
    assert!(
        ask(plane.server(Some(made_by(&own, reviews))))
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn a_revoked_certificate_gets_no_other_one() {
    let mut plane = Plane::start().await;
    let (own, chain) = ask(plane.with_token(REVIEWS)).await.unwrap();
    let facts = mesh_identity::certificate_facts(chain[0].as_bytes()).unwrap();
    // As the command line does it, beside the running process.
    let directory = plane.directory();
    let now = SystemTime::now();
    let material = directory.read().unwrap();
    let mut authority = Authority::new(&material, Limits::default(), now).unwrap();
    authority
        .revoke(facts[0].serial.parse().unwrap(), now)
        .unwrap();
    directory
        .write_revoked(&authority.revoked_pem(now).unwrap())
        .unwrap();
    plane.keeper.look_once();
    let revoked = ask(plane.server(Some(own))).await;
    assert!(revoked.is_err(), "{revoked:?}");
    assert!(ask(plane.with_token(REVIEWS)).await.is_ok(), "others go on");
}

#[tokio::test]
async fn a_new_root_comes_and_the_old_one_goes_while_the_server_runs() {
    let mut plane = Plane::start().await;
    let directory = plane.directory();
    let (mut own, chain) = ask(plane.with_token(REVIEWS)).await.unwrap();
    let first = chain[1].clone();
    for (step, roots) in [(Step::Prepare, 2), (Step::Promote, 2), (Step::Retire, 1)] {
        let mut material = directory.read().unwrap();
        material
            .step(step, &RootOptions::default(), SystemTime::now())
            .unwrap();
        directory.write(&material).unwrap();
        plane.keeper.look_once();
        // With the certificate from before the step.
        let (next, chain) = ask(plane.server(Some(own))).await.unwrap();
        assert_eq!(chain.len(), 1 + roots, "{step:?}");
        assert_eq!(chain.contains(&first), step != Step::Retire, "{step:?}");
        own = next;
    }
}

#[tokio::test]
async fn without_tls_nobody_gets_a_certificate() {
    let plane = Plane::start().await;
    let message = [&[0, 0, 0, 0, 0][..]].concat();
    let request = http::Request::post("/istio.v1.auth.IstioCertificateService/CreateCertificate")
        .header("content-type", "application/grpc")
        .header("authorization", format!("Bearer {REVIEWS}"))
        .body(axum::body::Body::from(message))
        .unwrap();
    let answer = plane.control.xds().routes().call(request).await.unwrap();
    assert_eq!(answer.headers()["grpc-status"], "9");
    let said = answer.headers()["grpc-message"].to_str().unwrap();
    assert!(said.contains("TLS"), "{said}");
}

#[tokio::test]
async fn a_server_without_an_authority_says_so() {
    let control = Control::builder().build();
    let request = http::Request::post("/istio.v1.auth.IstioCertificateService/CreateCertificate")
        .body(axum::body::Body::empty())
        .unwrap();
    let answer = control.xds().routes().call(request).await.unwrap();
    assert_eq!(answer.headers()["grpc-status"], "12");
}

#[test]
fn files_that_are_damaged_change_nothing_until_they_are_mended() {
    let folder = TempDir::new().unwrap();
    let directory = Directory::at(folder.path());
    let mut keeper = Keeper::open(KeeperOptions::new(directory.clone())).unwrap();
    let trust = keeper.issuer().trust().unwrap();
    let roots = folder.path().join("root-cert.pem");
    let good = std::fs::read(&roots).unwrap();
    std::fs::write(&roots, "hello").unwrap();
    keeper.look_once();
    assert!(keeper.issuer().trust().unwrap() == trust);
    assert!(Keeper::open(KeeperOptions::new(directory)).is_err());
    std::fs::write(&roots, [&good[..], &good[..]].concat()).unwrap();
    keeper.look_once();
    assert!(
        keeper.issuer().trust().unwrap() != trust,
        "it was read anew"
    );
}
