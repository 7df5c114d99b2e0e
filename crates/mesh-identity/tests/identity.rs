//! Identities from an authority in handshakes: who is refused and why, and rotation under load.

use mesh_core::model::{
    ClientTls, Cluster, Secret, SecretRef, ServerTls, Snapshot, SnapshotBuilder, Validation,
};
use mesh_identity::authority::{Authority, Grant, Limits, Material, RootOptions, Step};
use mesh_identity::{
    Acceptor, CertificateRequest, Connector, KeyKind, SpiffeId, TlsError, trust_domain_names,
};
use rcgen::{CertificateParams, CertifiedIssuer, KeyPair, SanType};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

const DAY: Duration = Duration::from_secs(86_400);

/// Both sides of a mesh: one secret each, and roots.
struct Mesh {
    snapshot: Arc<Snapshot>,
    acceptor: Acceptor,
    connector: Connector,
}

impl Mesh {
    fn new(client: Secret, server: Secret, roots: &Secret) -> Self {
        let mut validation = Validation::default();
        validation.roots = Some(SecretRef::local("roots"));
        validation.subject_alt_names = trust_domain_names(["a.test", "old.test"]).unwrap();
        let mut calls = ClientTls::default();
        calls.certificates = vec![SecretRef::local("client")];
        calls.validation = Some(validation.clone());
        let mut serves = ServerTls::default();
        serves.certificates = vec![SecretRef::local("server")];
        serves.validation = Some(validation);
        serves.require_client_certificate = true;
        let mut all = ClientTls::default();
        let mut builder = SnapshotBuilder::new();
        for (name, secret) in [
            ("client", client),
            ("server", server),
            ("roots", roots.clone()),
        ] {
            all.certificates.push(SecretRef::local(name));
            builder.secret(SecretRef::local(name), Arc::new(secret));
        }
        let mut cluster = Cluster::new("all");
        cluster.tls = Some(Arc::new(all));
        builder.cluster(cluster);
        let (snapshot, _) = builder.build().unwrap();
        let find = |name: &SecretRef| snapshot.secret(name).cloned();
        Self {
            acceptor: Acceptor::new(Arc::new(serves), find).unwrap(),
            connector: Connector::new(Arc::new(calls), find).unwrap(),
            snapshot,
        }
    }

    fn publish(&self, name: &str, secret: Secret) {
        let live = self.snapshot.secret(&SecretRef::local(name)).unwrap();
        live.publish(Some(Arc::new(secret)));
    }

    /// A connection with a word each way; who the caller is.
    async fn request(&self) -> Result<SpiffeId, String> {
        let (near, far) = duplex(64 << 10);
        let serve = async {
            let (mut stream, told) = self.acceptor.accept(far).await?;
            let mut word = [0; 4];
            stream
                .read_exact(&mut word)
                .await
                .map_err(TlsError::from_io)?;
            stream.write_all(&word).await.map_err(TlsError::from_io)?;
            stream.flush().await.map_err(TlsError::from_io)?;
            Ok::<_, TlsError>(told)
        };
        let call = async {
            let (mut stream, _) = self.connector.connect(near, None).await?;
            stream.write_all(b"ping").await.map_err(TlsError::from_io)?;
            stream.flush().await.map_err(TlsError::from_io)?;
            let mut word = [0; 4];
            stream
                .read_exact(&mut word)
                .await
                .map_err(TlsError::from_io)?;
            Ok::<_, TlsError>(())
        };
        let (served, called) = tokio::join!(serve, call);
        let told = served.map_err(|error| error.to_string())?;
        called.map_err(|error| error.to_string())?;
        SpiffeId::of_peer(told.peer.as_ref().unwrap()).map_err(|error| error.to_string())
    }
}

fn authority(now: SystemTime) -> (Material, Authority) {
    let material = Material::self_signed(&RootOptions::default(), now).unwrap();
    let authority = Authority::new(&material, Limits::default(), now).unwrap();
    (material, authority)
}

fn leaf(authority: &Authority, id: &str, now: SystemTime) -> (Secret, String) {
    let request = CertificateRequest::generate(KeyKind::EcdsaP256).unwrap();
    let grant = Grant::to(id.parse().unwrap());
    let issued = authority.sign(request.csr(), &grant, now).unwrap();
    let credentials = request.answered(&issued.certificates()).unwrap();
    (credentials.own, issued.serial.to_string())
}

/// A certificate with any names, of an issuer of its own or of itself.
fn odd(issuer: Option<&CertifiedIssuer<'static, KeyPair>>, uris: &[&str]) -> Secret {
    let mut params = CertificateParams::new(["x.test".to_owned()]).unwrap();
    for uri in uris {
        params
            .subject_alt_names
            .push(SanType::URI((*uri).try_into().unwrap()));
    }
    let key = KeyPair::generate().unwrap();
    let made = match issuer {
        Some(issuer) => params.signed_by(&key, issuer).unwrap(),
        None => params.self_signed(&key).unwrap(),
    };
    Secret::certificate(made.pem(), key.serialize_pem())
}

#[tokio::test]
async fn who_is_not_exactly_who_is_expected_is_refused() {
    let now = SystemTime::now();
    let (_, own) = authority(now);
    let reviews = "spiffe://a.test/ns/shop/sa/reviews";
    let (server, _) = leaf(&own, "spiffe://a.test/ns/shop/sa/ratings", now);
    let (good, _) = leaf(&own, reviews, now);
    // A root of somebody else that is trusted, too, and makes what our authority never would.
    let mut params = CertificateParams::new([]).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let other = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let roots = Secret::roots([own.roots_pem(), other.pem().into_bytes()].concat());
    let mesh = Mesh::new(good.clone(), server, &roots);
    assert_eq!(mesh.request().await.unwrap().as_str(), reviews);
    let (alias, _) = leaf(&own, "spiffe://old.test/ns/shop/sa/reviews", now);
    mesh.publish("client", alias);
    assert_eq!(mesh.request().await.unwrap().trust_domain(), "old.test");

    let mut long_ago = Limits::default();
    long_ago.max_ttl = 2 * DAY;
    let past = now - 10 * DAY;
    let old = Material::self_signed(&RootOptions::default(), past).unwrap();
    let old = Authority::new(&old, long_ago, past).unwrap();
    let two = [reviews, "spiffe://a.test/ns/istio-system/sa/admin"];
    let (stranger, _) = leaf(&authority(now).1, reviews, now);
    let trusting_old = |roots: &Secret| match roots {
        Secret::Trust { roots, .. } => Secret::roots([roots.clone(), old.roots_pem()].concat()),
        _ => unreachable!("they are roots"),
    };
    mesh.publish("roots", trusting_old(&roots));
    for (what, shown, said) in [
        (
            "another trust domain",
            leaf(&own, "spiffe://b.test/ns/shop/sa/reviews", now).0,
            "SAN",
        ),
        (
            "one that begins alike",
            leaf(&own, "spiffe://a.test.b/ns/x/sa/y", now).0,
            "SAN",
        ),
        ("another authority", stranger, ""),
        ("expired", leaf(&old, reviews, past).0, "expired"),
        ("self-signed", odd(None, &[reviews]), ""),
        ("no URI", odd(Some(&other), &[]), "SAN"),
        (
            "no SPIFFE identity",
            odd(Some(&other), &["https://a.test/x"]),
            "SAN",
        ),
        ("two URIs", odd(Some(&other), &two), "2 URIs"),
    ] {
        mesh.publish("client", shown);
        let refused = mesh.request().await.unwrap_err();
        let found = refused.to_lowercase().contains(&said.to_lowercase());
        assert!(found, "{what}: {refused}");
    }
    mesh.publish("client", good);
    assert!(
        mesh.request().await.is_ok(),
        "it was not for another reason"
    );
}

#[tokio::test]
async fn a_revoked_certificate_is_refused_and_others_are_not() {
    let now = SystemTime::now();
    let (_, mut own) = authority(now);
    let id = "spiffe://a.test/ns/shop/sa/reviews";
    let (server, _) = leaf(&own, id, now);
    let (bad, serial) = leaf(&own, id, now);
    let mesh = Mesh::new(bad, server, &own.trust(now).unwrap());
    assert!(mesh.request().await.is_ok());
    own.revoke(serial.parse().unwrap(), now).unwrap();
    mesh.publish("roots", own.trust(now).unwrap());
    let refused = mesh.request().await.unwrap_err();
    assert!(refused.to_lowercase().contains("revoked"), "{refused}");
    mesh.publish("client", leaf(&own, id, now).0);
    assert!(mesh.request().await.is_ok());
}

/// Callers without a pause, while every certificate is replaced again and again and the root twice.
#[tokio::test]
async fn certificates_and_roots_rotate_without_a_failed_request() {
    let now = SystemTime::now();
    let options = RootOptions::default();
    let mut material = Material::self_signed(&options, now).unwrap();
    let make = |material: &Material| Authority::new(material, Limits::default(), now).unwrap();
    let mut own = make(&material);
    let id = |name: &str| format!("spiffe://a.test/ns/shop/sa/{name}");
    let mesh = Arc::new(Mesh::new(
        leaf(&own, &id("client"), now).0,
        leaf(&own, &id("server"), now).0,
        &own.trust(now).unwrap(),
    ));
    // One connection lives through all of it.
    let (near, far) = duplex(64 << 10);
    let (accepted, connected) = tokio::join!(
        mesh.acceptor.accept(far),
        mesh.connector.connect(near, None)
    );
    let (mut there, mut here) = (accepted.unwrap().0, connected.unwrap().0);

    let done = Arc::new(AtomicBool::new(false));
    let count = Arc::new(AtomicU64::new(0));
    let callers: Vec<_> = (0..3)
        .map(|_| {
            let (mesh, done, count) = (mesh.clone(), done.clone(), count.clone());
            tokio::spawn(async move {
                while !done.load(Ordering::Acquire) {
                    let answered = mesh.request().await;
                    count.fetch_add(1, Ordering::AcqRel);
                    answered?;
                }
                Ok::<_, String>(())
            })
        })
        .collect();
    // Some requests begin and end in each state.
    let some = async || {
        let until = count.load(Ordering::Acquire) + 9;
        let enough = async {
            while count.load(Ordering::Acquire) < until
                && !callers.iter().any(|one| one.is_finished())
            {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(120), enough)
            .await
            .unwrap();
    };
    for step in [Step::Prepare, Step::Promote, Step::Retire].repeat(2) {
        material.step(step, &options, now).unwrap();
        own = make(&material);
        let (client, server) = (
            leaf(&own, &id("client"), now).0,
            leaf(&own, &id("server"), now).0,
        );
        let publish: [&dyn Fn(); 3] = [
            &|| mesh.publish("roots", own.trust(now).unwrap()),
            &|| mesh.publish("client", client.clone()),
            &|| mesh.publish("server", server.clone()),
        ];
        // Each state in between is one that some peer is in.
        let order = if step == Step::Retire {
            [1, 2, 0]
        } else {
            [0, 2, 1]
        };
        for next in order {
            publish[next]();
            some().await;
        }
        here.write_all(b"still").await.unwrap();
        here.flush().await.unwrap();
        let mut word = [0; 5];
        there.read_exact(&mut word).await.unwrap();
        assert_eq!(&word, b"still", "after {step:?}");
    }
    done.store(true, Ordering::Release);
    for caller in callers {
        assert_eq!(caller.await.unwrap(), Ok(()));
    }
    assert!(count.load(Ordering::Acquire) >= 18 * 9);
}
