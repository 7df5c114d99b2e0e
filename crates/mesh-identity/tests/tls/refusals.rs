use crate::world::*;
use mesh_core::model::{ClientTls, Secret, SecretRef, StringMatch, TlsVersion};
use mesh_core::stats::{ClusterStat, ListenerStat};
use mesh_identity::{TlsError, TlsFailure, check_secret};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SerialNumber, date_time_ymd,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

const VERIFY: &str = "TLS_error:|268435581:SSL routines:OPENSSL_internal:\
                      CERTIFICATE_VERIFY_FAILED:verify cert failed: ";

fn expired(params: &mut CertificateParams) {
    params.not_after = date_time_ymd(2021, 1, 1);
}

fn future(params: &mut CertificateParams) {
    params.not_before = date_time_ymd(4000, 1, 1);
}

fn usage(usage: ExtendedKeyUsagePurpose) -> impl FnOnce(&mut CertificateParams) {
    |params| params.extended_key_usages = vec![usage]
}

fn revoked(params: &mut CertificateParams) {
    params.serial_number = Some(SerialNumber::from(7));
}

/// A certificate by one that may not sign, with that in the chain.
fn by_a_leaf(authority: &Authority) -> Leaf {
    let key = KeyPair::generate().unwrap();
    let no_ca = CertifiedIssuer::signed_by(params(&["mid.test"]), key, &authority.0).unwrap();
    let no_ca = Authority(no_ca);
    let mut leaf = no_ca.leaf(&["a.test"]);
    leaf.chain.push_str(&no_ca.0.pem());
    leaf
}

/// What is shown to a peer that trusts `authority`, how it is refused, and in which words.
fn table(authority: &Authority, wrong_use: ExtendedKeyUsagePurpose) -> Vec<(Leaf, &'static str)> {
    vec![
        (
            authority.leaf_with(&["a.test"], expired),
            "certificate has expired",
        ),
        (
            authority.leaf_with(&["a.test"], future),
            "certificate is not yet valid",
        ),
        (Authority::new("ca").leaf(&["a.test"]), ""),
        (
            Authority::new("other").leaf(&["a.test"]),
            "unable to get local issuer certificate",
        ),
        (
            authority.leaf_with(&["a.test"], usage(wrong_use)),
            "unsupported certificate purpose",
        ),
        (
            authority.leaf_with(&["a.test"], revoked),
            "certificate revocation check against provided CRLs failed: certificate revoked",
        ),
        (by_a_leaf(authority), "invalid CA certificate"),
    ]
}

fn world(authority: &Authority, leaf: &Leaf) -> World {
    World::new([
        ("leaf", leaf.secret()),
        ("good", authority.leaf(&["good.test"]).secret()),
        (
            "ca",
            Secret::Trust {
                roots: authority.0.pem().into_bytes(),
                revoked: authority.revokes(&[7], 4000),
            },
        ),
    ])
}

fn is_refused(error: &TlsError, kind: TlsFailure, text: &str) {
    assert_eq!(error.kind(), kind, "{error}");
    let said = error.to_string();
    assert!(said.starts_with(VERIFY) && said.contains(text), "{said}");
    let (cluster, listener) = match kind {
        TlsFailure::Name => (
            ClusterStat::SslFailVerifySan,
            ListenerStat::SslFailVerifySan,
        ),
        TlsFailure::Pin => (
            ClusterStat::SslFailVerifyCertHash,
            ListenerStat::SslFailVerifyCertHash,
        ),
        _ => (
            ClusterStat::SslFailVerifyError,
            ListenerStat::SslFailVerifyError,
        ),
    };
    assert_eq!(error.cluster_stat(), Some(cluster));
    assert_eq!(error.listener_stat(), Some(listener));
}

#[tokio::test]
async fn endpoints_are_refused_with_envoys_words() {
    let authority = Authority::new("ca");
    for (leaf, text) in table(&authority, ExtendedKeyUsagePurpose::ClientAuth) {
        let world = world(&authority, &leaf);
        let (served, called) = world.shake(server("leaf"), client("ca")).await;
        is_refused(&called.unwrap_err(), TlsFailure::Untrusted, text);
        // The other side is told, and that is no refusal of its own.
        let told = served.unwrap_err();
        assert_eq!(told.kind(), TlsFailure::Protocol, "{told}");
        assert_eq!(told.listener_stat(), Some(ListenerStat::SslConnectionError));
    }
}

#[tokio::test]
async fn callers_are_refused_with_envoys_words_in_both_versions() {
    let authority = Authority::new("ca");
    for (leaf, text) in table(&authority, ExtendedKeyUsagePurpose::ServerAuth) {
        for version in [TlsVersion::V1_2, TlsVersion::V1_3] {
            let world = world(&authority, &leaf);
            let mut tls = client("ca");
            tls.certificates = vec![SecretRef::local("leaf")];
            tls.params.max = Some(version);
            let (served, called) = world.shake(mutual("good", "ca"), tls).await;
            is_refused(&served.unwrap_err(), TlsFailure::Untrusted, text);
            let told = called.unwrap_err();
            assert_eq!(told.kind(), TlsFailure::Protocol, "{told}");
            assert!(told.to_string().contains("_ALERT_"), "{told}");
        }
    }
}

#[tokio::test]
async fn a_caller_without_a_certificate_is_refused() {
    let authority = Authority::new("ca");
    let world = world(&authority, &authority.leaf(&[]));
    let (served, called) = world.shake(mutual("good", "ca"), client("ca")).await;
    let error = served.unwrap_err();
    assert_eq!(error.kind(), TlsFailure::NoCertificate);
    assert_eq!(
        error.listener_stat(),
        Some(ListenerStat::SslFailVerifyNoCert)
    );
    assert!(
        error
            .to_string()
            .contains("PEER_DID_NOT_RETURN_A_CERTIFICATE")
    );
    assert!(called.is_err());
}

#[tokio::test]
async fn a_wrong_name_or_hash_is_refused_and_named() {
    let authority = Authority::new("ca");
    let leaf = authority.leaf(&["a.test", "spiffe://td/x"]);
    let good = world(&authority, &leaf);
    let mut named = client("ca");
    let validation = named.validation.as_mut().unwrap();
    validation.subject_alt_names = vec![StringMatch::Exact("b.test".into())];
    let (_, called) = good.shake(server("leaf"), named).await;
    let shown = "SAN matcher, certificate SANs are [a.test, spiffe://td/x]";
    is_refused(&called.unwrap_err(), TlsFailure::Name, shown);

    // What a stranger calls itself is neither long nor breaks a line.
    let rude = world(
        &authority,
        &authority.leaf(&["a\nb.test", &"x".repeat(9000)]),
    );
    let mut named = client("ca");
    let validation = named.validation.as_mut().unwrap();
    validation.subject_alt_names = vec![StringMatch::Exact("b.test".into())];
    let (_, called) = rude.shake(server("leaf"), named).await;
    let said = called.unwrap_err().to_string();
    assert!(said.contains("[a?b.test, xx") && said.len() < 500, "{said}");

    // A hash or a key is enough, whichever fits.
    let hash = digest(&leaf.der);
    let key = digest(&leaf.public);
    for (hashes, spki, accepted) in [
        (vec![[0; 32]], vec![], false),
        (vec![], vec![[0; 32]], false),
        (vec![key], vec![hash], false),
        (vec![[0; 32], hash], vec![], true),
        (vec![], vec![key], true),
        (vec![[0; 32]], vec![key], true),
    ] {
        // With roots or without.
        for mut tls in [client("ca"), ClientTls::default()] {
            let validation = tls.validation.get_or_insert_default();
            validation.hashes.clone_from(&hashes);
            validation.spki.clone_from(&spki);
            let (_, called) = good.shake(server("leaf"), tls).await;
            match called {
                Ok((_, told)) => assert!(accepted && told.peer.as_ref().unwrap().validated),
                Err(error) => {
                    assert!(!accepted, "{error}");
                    is_refused(&error, TlsFailure::Pin, "cert hash and spki");
                }
            }
        }
    }
}

fn digest(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes).as_ref());
    out
}

#[tokio::test]
async fn a_root_that_may_not_sign_vouches_for_nobody_but_itself() {
    let no_ca = Authority::with("ca", |params| params.is_ca = IsCa::ExplicitNoCa);
    let no_sign = Authority::with("ca", |params| {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    });
    for authority in [no_ca, no_sign] {
        let itself = Leaf {
            chain: authority.0.pem(),
            key: authority.0.key().serialize_pem(),
            der: Vec::new(),
            public: Vec::new(),
        };
        let world = World::new([
            ("leaf", authority.leaf(&["a.test"]).secret()),
            ("itself", itself.secret()),
            ("ca", authority.trust()),
        ]);
        let (_, called) = world.shake(server("leaf"), client("ca")).await;
        let text = "unable to get local issuer certificate";
        is_refused(&called.unwrap_err(), TlsFailure::Untrusted, text);
        let (_, called) = world.shake(server("itself"), client("ca")).await;
        assert!(called.is_ok(), "{called:?}");
    }
}

#[tokio::test]
async fn a_leaf_that_is_trusted_itself_still_keeps_to_its_time_and_use() {
    let authority = Authority::new("ca");
    for (leaf, text) in [
        (authority.leaf(&["a.test"]), None),
        (
            authority.leaf_with(&["a.test"], expired),
            Some("certificate has expired"),
        ),
        (
            authority.leaf_with(&["a.test"], future),
            Some("certificate is not yet valid"),
        ),
        (
            authority.leaf_with(&["a.test"], usage(ExtendedKeyUsagePurpose::ClientAuth)),
            Some("unsupported certificate purpose"),
        ),
    ] {
        let itself = Secret::roots(leaf.chain.as_bytes());
        let world = World::new([("leaf", leaf.secret()), ("itself", itself)]);
        let (_, called) = world.shake(server("leaf"), client("itself")).await;
        match text {
            None => assert!(called.is_ok(), "{called:?}"),
            Some(text) => is_refused(&called.unwrap_err(), TlsFailure::Untrusted, text),
        }
    }
}

#[tokio::test]
async fn once_there_are_lists_every_certificate_needs_one_that_is_up_to_date() {
    let authority = Authority::new("ca");
    let other = Authority::new("other");
    for (lists, text) in [
        (other.revokes(&[], 4000), "unable to get certificate CRL"),
        (authority.revokes(&[], 2021), "CRL has expired"),
    ] {
        let world = World::new([
            ("leaf", authority.leaf(&["a.test"]).secret()),
            ("ca", authority.trust()),
            (
                "lists",
                Secret::Trust {
                    roots: Vec::new(),
                    revoked: lists,
                },
            ),
        ]);
        let mut tls = client("ca");
        tls.validation.as_mut().unwrap().revoked = Some(SecretRef::local("lists"));
        let (_, called) = world.shake(server("leaf"), tls).await;
        is_refused(&called.unwrap_err(), TlsFailure::Untrusted, text);
    }
}

#[tokio::test]
async fn only_the_leaf_needs_a_list_if_so_configured() {
    let authority = Authority::new("ca");
    let key = KeyPair::generate().unwrap();
    let mut middle = params(&[]);
    middle.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    middle
        .distinguished_name
        .push(rcgen::DnType::OrganizationName, "middle");
    middle.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let middle = Authority(CertifiedIssuer::signed_by(middle, key, &authority.0).unwrap());
    let mut leaf = middle.leaf(&["a.test"]);
    leaf.chain.push_str(&middle.0.pem());
    let world = World::new([
        ("leaf", leaf.secret()),
        (
            "ca",
            Secret::Trust {
                roots: authority.0.pem().into_bytes(),
                revoked: middle.revokes(&[], 4000),
            },
        ),
    ]);
    for only_leaf in [true, false] {
        let mut tls = client("ca");
        tls.validation.as_mut().unwrap().only_leaf_revocation = only_leaf;
        let (_, called) = world.shake(server("leaf"), tls).await;
        assert_eq!(called.is_ok(), only_leaf, "{called:?}");
    }
}

#[tokio::test]
async fn tls_1_1_is_refused_by_an_alert() {
    let authority = Authority::new("ca");
    let world = world(&authority, &authority.leaf(&[]));
    // ClientHello of TLS 1.1 with two suites in CBC mode and no extensions (RFC 4346 §7.4.1.2).
    let mut hello = vec![0x16, 3, 1, 0, 0x2f, 1, 0, 0, 0x2b, 3, 2];
    hello.extend([7; 32]);
    hello.extend([0, 0, 4, 0xc0, 0x14, 0, 0x2f, 1, 0]);
    let (mut near, far) = duplex(4096);
    near.write_all(&hello).await.unwrap();
    let error = world
        .acceptor(server("good"))
        .accept(far)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), TlsFailure::Protocol);
    assert!(
        error.to_string().contains(":UNSUPPORTED_PROTOCOL:"),
        "{error}"
    );
    let mut alert = Vec::new();
    near.read_to_end(&mut alert).await.unwrap();
    assert_eq!((alert[0], &alert[5..6]), (0x15, &[2][..]), "{alert:?}");
}

#[tokio::test]
async fn what_is_not_tls_is_refused() {
    let authority = Authority::new("ca");
    let world = world(&authority, &authority.leaf(&[]));
    let (mut near, far) = duplex(4096);
    near.write_all(b"GET / HTTP/1.1\r\nhost: a.test\r\n\r\n")
        .await
        .unwrap();
    let error = world
        .acceptor(server("good"))
        .accept(far)
        .await
        .unwrap_err();
    assert_eq!(
        error.listener_stat(),
        Some(ListenerStat::SslConnectionError)
    );
    let (mut near, far) = duplex(4096);
    near.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        .await
        .unwrap();
    let error = world
        .connector(client("ca"))
        .connect(far, None)
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains(":WRONG_VERSION_NUMBER:"),
        "{error}"
    );
    let (near, far) = duplex(4096);
    drop(near);
    let error = world
        .acceptor(server("good"))
        .accept(far)
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.listener_stat()),
        (TlsFailure::Io, None)
    );
}

#[test]
fn a_secret_that_cannot_be_used_is_refused_with_its_field() {
    let authority = Authority::new("ca");
    let (one, other) = (authority.leaf(&["a"]), authority.leaf(&["b"]));
    let weak = include_str!("weak.pem");
    for (secret, path, text) in [
        (
            Secret::certificate("", one.key.as_str()),
            "chain",
            "no CERTIFICATE",
        ),
        (
            Secret::certificate(one.chain.as_str(), ""),
            "key",
            "no private key",
        ),
        (
            Secret::certificate(one.chain.as_str(), other.key.as_str()),
            "key",
            "does not belong",
        ),
        (
            Secret::certificate(weak, one.key.as_str()),
            "chain[0]",
            "2048-bit",
        ),
        (Secret::roots("nonsense"), "roots", "no CERTIFICATE"),
        (
            Secret::Trust {
                roots: authority.0.pem().into_bytes(),
                revoked: b"nonsense".to_vec(),
            },
            "revoked",
            "no X509 CRL",
        ),
    ] {
        let error = check_secret(&secret).unwrap_err();
        assert_eq!(error.path(), path, "{error}");
        assert!(error.message().contains(text), "{error}");
    }
    let old = authority.leaf_with(&["a"], expired);
    assert_eq!(check_secret(&old.secret()), Ok(()));
}
