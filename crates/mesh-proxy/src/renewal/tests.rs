use super::*;
use mesh_core::Feed;
use mesh_core::model::{SecretBytes, ServerTls, Validation};
use mesh_identity::authority::{self, Grant, Limits, Material, RootOptions};
use mesh_identity::{Acceptor, SpiffeId};
use mesh_xds::Node;
use mesh_xds::server::{self, CertificateCall, Certified, Certify, Refused, View};
use std::sync::Mutex;
use tokio::net::TcpListener;

/// An authority that is here, and notes when it is asked and whether by a certificate.
struct Here {
    made_by: authority::Authority,
    asked: Mutex<Vec<(Instant, bool)>>,
    /// What becomes of the next attempts; then all succeed.
    fails: Mutex<Vec<bool>>,
    clock: WallClock,
}

impl Here {
    fn new() -> Self {
        let clock = WallClock::fixed(Duration::from_secs(1_893_456_000));
        let material = Material::self_signed(&RootOptions::default(), clock.now()).unwrap();
        let limits = Limits::default();
        Self {
            made_by: authority::Authority::new(&material, limits, clock.now()).unwrap(),
            asked: Mutex::default(),
            fails: Mutex::default(),
            clock,
        }
    }

    fn keeper(&self) -> Keeper {
        Keeper::new(self.clock.clone(), Rng::with_seed(1))
    }

    fn asked(&self) -> Vec<(Instant, bool)> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

impl Authority for Here {
    fn has_token(&self) -> bool {
        true
    }

    async fn ask(
        &self,
        csr: &str,
        own: Option<Arc<Secret>>,
        _: &[u8],
    ) -> Result<Vec<String>, CertificateError> {
        self.asked
            .lock()
            .unwrap()
            .push((Instant::now(), own.is_some()));
        if self.fails.lock().unwrap().pop().unwrap_or_default() {
            return Err(CertificateError::Unreachable("it is not there".to_owned()));
        }
        let id = SpiffeId::of_workload("a.test", "shop", "reviews").unwrap();
        let issued = self.made_by.sign(csr, &Grant::to(id), self.clock.now());
        Ok(issued.unwrap().certificates())
    }
}

/// As [`Renewal::run`] does it.
async fn rounds(keeper: &mut Keeper, here: &Here, count: usize) {
    for _ in 0..count {
        tokio::time::sleep(keeper.pause()).await;
        let _ = keeper.once(here).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_certificate_is_renewed_at_half_of_its_life() {
    let here = Here::new();
    let mut keeper = here.keeper();
    let (certificate, trust) = (keeper.certificate.feed(), keeper.trust.feed());
    let start = Instant::now();
    let mut shown = Vec::new();
    for _ in 0..4 {
        rounds(&mut keeper, &here, 1).await;
        shown.push((*certificate.load()).clone().unwrap());
    }
    let asked = here.asked();
    assert_eq!(asked[0], (start, false), "at once, by token");
    let mut waits = Vec::new();
    for pair in asked.windows(2) {
        assert!(pair[1].1, "by the certificate from then on");
        let hours = (pair[1].0 - pair[0].0).as_secs_f64() / 3600.0;
        assert!((11.75..=12.25).contains(&hours), "{hours}");
        waits.push(hours.to_bits());
    }
    waits.dedup();
    assert_eq!(waits.len(), 3, "they are spread");
    for pair in shown.windows(2) {
        assert!(pair[0] != pair[1], "a new key and certificate each time");
    }
    let roots = Secret::roots(here.made_by.roots_pem());
    assert!(**(*trust.load()).as_ref().unwrap() == roots);
}

#[tokio::test(start_paused = true)]
async fn failures_keep_the_last_certificate_and_are_tried_again_ever_less_often() {
    let here = Here::new();
    let mut keeper = here.keeper();
    *here.fails.lock().unwrap() = vec![true; 3];
    rounds(&mut keeper, &here, 3).await;
    assert!(keeper.certificate.load().is_none());
    rounds(&mut keeper, &here, 1).await;
    let good = (*keeper.certificate.load()).clone();
    assert!(good.is_some());
    here.asked();
    *here.fails.lock().unwrap() = vec![true; 12];
    rounds(&mut keeper, &here, 12).await;
    assert!(*keeper.certificate.load() == good, "the last one stays");
    let asked = here.asked();
    let waits: Vec<_> = asked
        .windows(2)
        .map(|pair| (pair[1].0 - pair[0].0).as_secs_f64())
        .collect();
    for (at, wait) in waits.iter().enumerate() {
        let window = (0.5 * 2_f64.powi(at as i32)).min(60.0);
        assert!(
            (window / 2.0 - 0.01..=window + 0.01).contains(wait),
            "{at}: {wait}"
        );
    }
    // By certificate and by token in turns.
    assert!(
        asked.windows(2).all(|pair| pair[0].1 != pair[1].1),
        "{asked:?}"
    );
    rounds(&mut keeper, &here, 1).await;
    assert!(*keeper.certificate.load() != good && keeper.failures == 0);
}

fn followed(trust: Option<PathBuf>) -> Files {
    Files {
        revoked: Watched::new(None),
        trust: Watched::new(trust),
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_root_is_trusted_long_before_the_certificate_is_renewed() {
    let here = Here::new();
    let old = here.made_by.roots_pem();
    let new = Here::new().made_by.roots_pem();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("root-cert.pem");
    std::fs::write(&file, &old).unwrap();
    let mut keeper = here.keeper();
    let (certificate, trust) = (keeper.certificate.feed(), keeper.trust.feed());
    let roots = |trust: &Feed<Option<Arc<Secret>>>| match (*trust.load()).as_deref() {
        Some(Secret::Trust { roots, .. }) => String::from_utf8(roots.clone()).unwrap(),
        other => panic!("no roots: {}", other.is_some()),
    };
    let count = |trust: &Feed<_>| roots(trust).matches("BEGIN CERTIFICATE").count();
    let start = Instant::now();
    let mut files = followed(Some(file.clone()));
    let keeping = keep(&mut keeper, &here, &mut files);
    let changing = async {
        tokio::time::sleep(Duration::from_secs(60)).await;
        let own = (*certificate.load()).clone();
        assert!(own.is_some());
        assert_eq!(count(&trust), 1, "what is known from both is known once");
        // Replaced as Kubernetes and the authority replace files: by another one.
        let next = directory.path().join("next");
        for (text, expected) in [
            ([&old[..], &new[..]].concat(), 2),
            // The old one stays while it is the certificate's own.
            (new.clone(), 2),
        ] {
            std::fs::write(&next, text).unwrap();
            std::fs::rename(&next, &file).unwrap();
            tokio::time::sleep(Duration::from_secs(6)).await;
            assert_eq!(count(&trust), expected);
            assert!(roots(&trust).contains(std::str::from_utf8(&new).unwrap().trim()));
        }
        // What cannot be used changes nothing.
        let seen = trust.version();
        std::fs::write(&next, "no certificate").unwrap();
        std::fs::rename(&next, &file).unwrap();
        tokio::time::sleep(Duration::from_secs(6)).await;
        assert_eq!(trust.version(), seen);
        assert!(*certificate.load() == own, "it was not renewed for that");
        assert!(start.elapsed() < Duration::from_secs(120));
    };
    tokio::select! {
        () = keeping => unreachable!("it never ends"),
        () = changing => {}
    }
}

#[test]
fn revoked_certificates_come_with_the_roots_and_nonsense_does_not() {
    let here = Here::new();
    let mut keeper = here.keeper();
    keeper.roots = here.made_by.roots_pem();
    keeper.publish_trust();
    let before = (*keeper.trust.load()).clone();
    keeper.revoke(b"nonsense".to_vec());
    assert!(*keeper.trust.load() == before);
    let material = Material::self_signed(&RootOptions::default(), here.clock.now()).unwrap();
    let now = here.clock.now();
    let mut other = authority::Authority::new(&material, Limits::default(), now).unwrap();
    other.revoke("01".parse().unwrap(), now).unwrap();
    let list = other.revoked_pem(now).unwrap();
    keeper.revoke(list.clone());
    let trust = (*keeper.trust.load()).clone().unwrap();
    assert!(matches!(&*trust, Secret::Trust { revoked, .. } if *revoked == list));
}

#[test]
fn an_authority_is_asked_over_tls_only() {
    let options = AuthorityOptions::at("istiod:15012");
    assert_eq!(options.address, "https://istiod:15012");
    assert!(Identity::from_authority(options).is_ok());
    for wrong in ["http://istiod:15010", "unix:///run/ca"] {
        assert!(Identity::from_authority(AuthorityOptions::at(wrong)).is_err());
    }
}

/// An authority behind a socket: by token it makes certificates, by certificate the next ones.
struct Office {
    made_by: authority::Authority,
    /// Who asked, and whether by a certificate.
    asked: Mutex<Vec<(SpiffeId, bool)>>,
}

const TOKEN: &str = "a-token-of-reviews";

fn reviews() -> SpiffeId {
    SpiffeId::of_workload("a.test", "shop", "reviews").unwrap()
}

impl Certify for Office {
    fn certify(&self, call: CertificateCall) -> Certified<'_> {
        Box::pin(async move {
            let now = SystemTime::now();
            let (id, own) = match (&call.tls.peer, &call.token) {
                (Some(peer), None) => (self.made_by.identify(peer, now).unwrap(), true),
                (None, Some(token)) if *token == SecretBytes::new(TOKEN) => (reviews(), false),
                other => return Err(Refused::unauthenticated(format!("{other:?}"))),
            };
            self.asked.lock().unwrap().push((id.clone(), own));
            let issued = self.made_by.sign(&call.csr, &Grant::to(id), now);
            Ok(issued.unwrap().certificates())
        })
    }
}

#[tokio::test]
async fn an_authority_is_asked_by_token_and_then_by_certificate() {
    let now = SystemTime::now();
    let material = Material::self_signed(&RootOptions::default(), now).unwrap();
    let made_by = authority::Authority::new(&material, Limits::default(), now).unwrap();
    let request = CertificateRequest::generate(KeyKind::EcdsaP256).unwrap();
    let grant = Grant::to("spiffe://a.test/istiod".parse().unwrap()).dns_name("localhost");
    let issued = made_by.sign(request.csr(), &grant, now).unwrap();
    let mut tls = ServerTls::default();
    tls.alpn = vec!["h2".into()];
    tls.certificates = vec![SecretRef::local("own")];
    let mut validation = Validation::default();
    validation.roots = Some(SecretRef::local("roots"));
    tls.validation = Some(validation);
    let secrets = [
        ("own", request.into_secret(issued.chain_pem())),
        ("roots", Secret::roots(made_by.roots_pem())),
    ];
    let secrets = secrets.map(|(name, secret)| (SecretRef::local(name), Arc::new(secret)));
    let (acceptor, _named) = Acceptor::alone(Arc::new(tls), secrets).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &[u8]| {
        std::fs::write(folder.path().join(name), text).unwrap();
        Some(folder.path().join(name))
    };
    let roots = file("roots.pem", &made_by.roots_pem());
    let office = Arc::new(Office {
        made_by,
        asked: Mutex::default(),
    });
    let server = server::Server::builder(|_: &Node| Ok(Feed::fixed(View::of([]))))
        .certify(office.clone())
        .build();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let serving = tokio::spawn(async move {
        server
            .serve_tls(listener, acceptor, std::future::pending())
            .await
    });
    let mut options = AuthorityOptions::at(format!("localhost:{port}"));
    options.roots = roots;
    options.token = file("token", b"a-wrong-token-first");
    let (identity, mut renewal) = Identity::from_authority(options).unwrap();
    assert!(!renewal.first().await, "the token is another's");
    assert_eq!(identity.secret("default"), Some(None));
    file("token", TOKEN.as_bytes());
    assert!(renewal.first().await, "the file is read anew");
    let first = identity.secret("default").unwrap();
    assert!(first.is_some() && identity.secret("ROOTCA").unwrap().is_some());
    assert!(renewal.first().await);
    assert!(identity.secret("default").unwrap() != first);
    let asked = std::mem::take(&mut *office.asked.lock().unwrap());
    assert_eq!(asked, [(reviews(), false), (reviews(), true)]);
    serving.abort();
}
