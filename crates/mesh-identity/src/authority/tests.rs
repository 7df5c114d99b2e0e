use super::*;
use crate::{CertificateRequest, KeyKind, SpiffeId};
use mesh_core::model::SecretBytes;
use rcgen::{
    BasicConstraints, CertifiedIssuer, DnType, GeneralSubtree, IsCa, KeyPair, NameConstraints,
};
use rustls_pki_types::pem::{PemObject, SectionKind};
use std::time::UNIX_EPOCH;

const DAY: Duration = Duration::from_secs(86_400);

/// In the year 2030.
fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_893_456_000)
}

fn id() -> SpiffeId {
    SpiffeId::of_workload("a.test", "shop", "reviews").unwrap()
}

fn authority() -> Authority {
    let material = Material::self_signed(&RootOptions::default(), now()).unwrap();
    Authority::new(&material, Limits::default(), now()).unwrap()
}

fn request(kind: KeyKind) -> String {
    CertificateRequest::generate(kind).unwrap().csr().to_owned()
}

fn csr() -> String {
    request(KeyKind::EcdsaP256)
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap().as_secs()
}

#[test]
fn a_certificate_is_for_whom_the_grant_says_whatever_the_request_asks_for() {
    let authority = authority();
    // All that can be asked for: other names, a subject, to be an authority.
    let mut forged = CertificateParams::new(["istiod.istio-system.svc".to_owned()]).unwrap();
    let admin = "spiffe://a.test/ns/istio-system/sa/admin";
    forged
        .subject_alt_names
        .push(SanType::URI(admin.try_into().unwrap()));
    forged.distinguished_name.push(DnType::CommonName, admin);
    forged.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    forged.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let key = KeyPair::generate().unwrap();
    let forged = forged.serialize_request(&key).unwrap().pem().unwrap();
    let issued = authority.sign(&forged, &Grant::to(id()), now()).unwrap();
    let (_, made) = X509Certificate::from_der(&issued.chain[0]).unwrap();
    assert_eq!(
        crate::san::of(&made),
        [crate::san::San::Uri(id().to_string())]
    );
    assert_eq!(made.subject().iter().count(), 0);
    assert!(!made.is_ca());
    let usage = made.key_usage().unwrap().unwrap().value;
    assert!(usage.digital_signature() && usage.key_encipherment() && !usage.key_cert_sign());
    let extended = made.extended_key_usage().unwrap().unwrap().value;
    assert!(extended.client_auth && extended.server_auth && !extended.any);
    assert!(made.subject_alternative_name().unwrap().unwrap().critical);
    assert_eq!(
        made.public_key().subject_public_key.data,
        key.public_key_raw()
    );
}

#[test]
fn requests_that_cannot_be_used_are_refused_by_name() {
    let authority = authority();
    let good = csr();
    let body = |text: &str| {
        let der = <(SectionKind, Vec<u8>)>::from_pem_slice(text.as_bytes());
        der.unwrap().1
    };
    let wrapped = |der: &[u8]| {
        let mut out = Vec::new();
        pem::section(&mut out, "CERTIFICATE REQUEST", der);
        String::from_utf8(out).unwrap()
    };
    let der = body(&good);
    let mut signature = der.clone();
    *signature.last_mut().unwrap() ^= 1;
    // The key of one with the signature of another.
    let mut stolen = der.clone();
    let other = body(&csr());
    let key = |der: &[u8]| {
        der.windows(2)
            .position(|part| part == [0x42, 0x00])
            .unwrap()
            + 2
    };
    let (to, from) = (key(&stolen), key(&other));
    let public = other[from..from + 65].to_vec();
    stolen[to..to + 65].copy_from_slice(&public);
    let foreign = |kind| {
        let key = KeyPair::generate_for(kind).unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.serialize_request(&key).unwrap().pem().unwrap()
    };
    let longer = [&der[..], &[0]].concat();
    for (text, said) in [
        (String::new(), "exactly one"),
        ("x".repeat(MAX_REQUEST_BYTES + 1), "16 KiB"),
        (good.clone() + &good, "exactly one"),
        (
            good.replace("CERTIFICATE REQUEST", "CERTIFICATE"),
            "exactly one",
        ),
        (wrapped(b"hello"), "not a PKCS #10"),
        (wrapped(&longer), "not a PKCS #10"),
        (wrapped(&der[..der.len() - 9]), "not a PKCS #10"),
        (wrapped(&signature), "signature"),
        (wrapped(&stolen), "signature"),
        (foreign(&rcgen::PKCS_ED25519), "RSA, P-256 or P-384"),
        (
            foreign(&rcgen::PKCS_ECDSA_P521_SHA512),
            "RSA, P-256 or P-384",
        ),
    ] {
        let refused = authority.sign(&text, &Grant::to(id()), now()).unwrap_err();
        assert!(matches!(refused, SignError::Request(_)), "{refused}");
        assert!(refused.to_string().contains(said), "{said}: {refused}");
    }
}

#[test]
fn lives_of_certificates_are_within_limits() {
    let limits = Limits::default();
    let material = Material::self_signed(&RootOptions::default(), now()).unwrap();
    let authority = Authority::new(&material, limits.clone(), now()).unwrap();
    let life = |wish: Option<Duration>, at: SystemTime| {
        let mut grant = Grant::to(id());
        grant.ttl = wish;
        let issued = authority.sign(&csr(), &grant, at).unwrap();
        let facts = &crate::certificate_facts(&issued.chain_pem()).unwrap()[0];
        assert_eq!(facts.not_after as u64, seconds(issued.not_after));
        assert_eq!(facts.serial, issued.serial.to_string());
        issued.not_after.duration_since(at).unwrap()
    };
    let later = now() + DAY;
    assert_eq!(life(None, later), DAY);
    assert_eq!(life(Some(Duration::ZERO), later), DAY);
    assert_eq!(life(Some(Duration::from_secs(3600)), later).as_secs(), 3600);
    assert_eq!(life(Some(Duration::from_secs(1)), later).as_secs(), 60);
    assert_eq!(life(Some(1000 * DAY), later), 90 * DAY);
    assert_eq!(life(Some(Duration::MAX), later), 90 * DAY);
    // As short as the limits let it be.
    let brief = Limits {
        min_ttl: Duration::from_secs(2),
        ..limits
    };
    let brief = Authority::new(&material, brief, now()).unwrap();
    let mut grant = Grant::to(id());
    grant.ttl = Some(Duration::from_secs(4));
    let issued = brief.sign(&csr(), &grant, later).unwrap();
    assert_eq!(issued.not_after, later + Duration::from_secs(4));
    // Never beyond the authority's own end.
    let end = authority.not_after();
    assert_eq!(life(None, end - DAY / 2), DAY / 2);
    let late = authority.sign(&csr(), &Grant::to(id()), end - Duration::from_secs(5));
    assert!(matches!(late, Err(SignError::Authority(_))), "{late:?}");
    assert!(authority.sign(&csr(), &Grant::to(id()), end + DAY).is_err());
    for wrong in [
        Limits {
            min_ttl: 2 * DAY,
            ..limits.clone()
        },
        Limits {
            max_ttl: DAY / 2,
            ..limits.clone()
        },
        Limits {
            max_ttl: 4000 * DAY,
            ..limits
        },
    ] {
        assert!(Authority::new(&material, wrong, now()).is_err());
    }
}

#[test]
fn serial_numbers_are_random() {
    let authority = authority();
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..50 {
        let issued = authority.sign(&csr(), &Grant::to(id()), now()).unwrap();
        assert_eq!(issued.serial.to_string().len(), 32);
        assert!(seen.insert(issued.serial));
    }
}

/// A root of somebody else and an intermediate below it, which may be changed.
fn plugged(change: impl FnOnce(&mut CertificateParams)) -> (Material, String) {
    let mut params = CertificateParams::new([]).unwrap();
    params.distinguished_name.push(DnType::CommonName, "root");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.not_after = time::asn1(seconds(now() + 3650 * DAY) as i64)
        .unwrap()
        .to_datetime();
    let root = CertifiedIssuer::self_signed(params.clone(), KeyPair::generate().unwrap()).unwrap();
    params
        .distinguished_name
        .push(DnType::CommonName, "intermediate");
    change(&mut params);
    let key = KeyPair::generate().unwrap();
    let own = params.signed_by(&key, &root).unwrap();
    let material = Material::plugged_in(
        own.pem(),
        SecretBytes::new(key.serialize_pem()),
        own.pem() + &root.pem(),
        root.pem(),
    );
    (material, root.pem())
}

#[test]
fn an_intermediate_of_somebody_else_is_shown_with_its_certificates() {
    let (material, root) = plugged(|_| {});
    let authority = Authority::new(&material, Limits::default(), now()).unwrap();
    let issued = authority.sign(&csr(), &Grant::to(id()), now()).unwrap();
    assert_eq!(issued.certificates().len(), 3);
    let last = issued.certificates().pop().unwrap();
    assert_eq!(
        pem::roots(last.as_bytes()).unwrap(),
        pem::roots(root.as_bytes()).unwrap()
    );
    assert_eq!(pem::chain(&issued.chain_pem()).unwrap().len(), 2);
    assert!(authority.due().is_none(), "its root is somebody else's");
    let mut material = material;
    let error = material
        .step(Step::Prepare, &RootOptions::default(), now())
        .unwrap_err();
    assert_eq!(error.path(), "ca-cert.pem");
}

#[test]
fn what_does_not_fit_together_is_no_authority() {
    let refused = |material: &Material, said: &str| {
        let error = Authority::new(material, Limits::default(), now()).unwrap_err();
        assert!(error.to_string().contains(said), "{said}: {error}");
    };
    let (good, _) = plugged(|_| {});
    let (other, _) = plugged(|_| {});
    let mut keys = good.clone();
    keys.current.key = other.current.key.clone();
    refused(&keys, "is not the key of ca-cert.pem");
    let mut roots = good.clone();
    roots.roots = other.roots;
    refused(&roots, "leads to none of root-cert.pem");
    refused(&plugged(|params| params.is_ca = IsCa::NoCa).0, "CA:TRUE");
    let usage = |params: &mut CertificateParams| {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    };
    refused(&plugged(usage).0, "sign certificates");
    let old = |params: &mut CertificateParams| {
        params.not_after = time::asn1(seconds(now() - DAY) as i64)
            .unwrap()
            .to_datetime();
    };
    refused(&plugged(old).0, "leads to none");
    for empty in [b"".to_vec(), b"hello".to_vec()] {
        let mut material = good.clone();
        material.roots = empty.clone();
        refused(&material, "root-cert.pem");
        material = good.clone();
        material.current.certificate = empty.clone();
        refused(&material, "ca-cert.pem");
        material = good.clone();
        material.current.key = SecretBytes::new(empty);
        refused(&material, "ca-key.pem");
    }
}

#[test]
fn an_identity_outside_of_the_authoritys_constraints_is_not_vouched_for() {
    let only = |params: &mut CertificateParams| {
        params.name_constraints = Some(NameConstraints {
            permitted_subtrees: vec![GeneralSubtree::DnsName("b.test".to_owned())],
            excluded_subtrees: Vec::new(),
        });
    };
    let (material, _) = plugged(only);
    let authority = Authority::new(&material, Limits::default(), now()).unwrap();
    let named = |name: &str| authority.sign(&csr(), &Grant::to(id()).dns_name(name), now());
    assert!(named("x.b.test").is_ok());
    let refused = named("x.c.test").unwrap_err();
    assert!(matches!(&refused, SignError::Authority(_)), "{refused}");
    assert!(refused.to_string().contains("may not vouch"), "{refused}");
}

#[test]
fn a_root_is_replaced_without_a_moment_in_which_somebody_is_not_trusted() {
    use Step::{Prepare, Promote, Retire};
    let (options, limits) = (RootOptions::default(), Limits::default());
    let mut material = Material::self_signed(&options, now()).unwrap();
    let mut at = now();
    let mut steps = Vec::new();
    let mut last_of_old = None;
    for _ in 0..7 {
        let make = |material: &Material| Authority::new(material, limits.clone(), at).unwrap();
        let before = make(&material);
        let (step, due) = before.due().unwrap();
        assert!(due > at, "{step:?} is due at once");
        at = due;
        for other in [Prepare, Promote, Retire] {
            let tried = material.clone().step(other, &options, at);
            assert_eq!(tried.is_ok(), other == step, "{other:?} after {steps:?}");
        }
        material.step(step, &options, at).unwrap();
        let after = Authority::new(&material, limits.clone(), at).unwrap();
        // Those who know of the step, and those who do not yet.
        for (signs, trusts) in [(&before, &after), (&after, &before)] {
            let grant = Grant::to(id()).ttl(Duration::MAX);
            let issued = signs.sign(&csr(), &grant, at).unwrap();
            let trusted =
                trusts
                    .checker
                    .leads_to_root(&issued.chain[0], &[], unix(at), Peer::Client);
            assert!(trusted.is_ok(), "{step:?} after {steps:?}: {trusted:?}");
            // Istio's agent takes the last one for the root.
            let last = Trust::read(issued.certificates().last().unwrap().as_bytes(), &[]).unwrap();
            let only = Checker::new(
                rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms,
                None,
                Some(Arc::new(last)),
                None,
            );
            assert!(
                only.leads_to_root(&issued.chain[0], &[], unix(at), Peer::Client)
                    .is_ok()
            );
            match step {
                Promote if std::ptr::eq(signs, &before) => last_of_old = Some(issued.not_after),
                Retire => assert!(last_of_old.unwrap() <= at, "it would be refused"),
                _ => {}
            }
        }
        steps.push(step);
    }
    assert_eq!(
        steps,
        [Prepare, Promote, Retire, Prepare, Promote, Retire, Prepare]
    );
}

#[test]
fn revoked_certificates_stay_so_through_files_and_roots() {
    let mut material = Material::self_signed(&RootOptions::default(), now()).unwrap();
    let mut authority = Authority::new(&material, Limits::default(), now()).unwrap();
    assert_eq!(authority.revoked_pem(now()).unwrap(), b"");
    let issued = authority.sign(&csr(), &Grant::to(id()), now()).unwrap();
    assert!(authority.revoke(issued.serial.clone(), now()).unwrap());
    assert!(
        !authority.revoke(issued.serial.clone(), now()).unwrap(),
        "twice"
    );
    let list = authority.revoked_pem(now()).unwrap();
    assert_eq!(pem::revoked(&list).unwrap().len(), 1);
    material = material.with_revoked(list);
    for step in [Step::Prepare, Step::Promote] {
        material.step(step, &RootOptions::default(), now()).unwrap();
        let again = Authority::new(&material, Limits::default(), now()).unwrap();
        assert!(again.is_revoked(&issued.serial));
        // One for each key in use.
        let lists = again.revoked_pem(now() + DAY).unwrap();
        assert_eq!(pem::revoked(&lists).unwrap().len(), 2);
        material = material.with_revoked(lists);
    }
}

#[test]
fn an_authority_that_may_not_sign_lists_says_so() {
    let usage = |params: &mut CertificateParams| {
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    };
    let (material, _) = plugged(usage);
    let mut authority = Authority::new(&material, Limits::default(), now()).unwrap();
    let error = authority.revoke("01".parse().unwrap(), now()).unwrap_err();
    assert!(error.message().contains("cRLSign"), "{error}");
}

#[test]
fn a_directory_gives_back_what_was_written_for_the_owner_alone() {
    let place = tempfile::TempDir::new().unwrap();
    let directory = Directory::at(place.path().join("ca"));
    assert!(directory.is_empty());
    assert!(
        directory
            .read()
            .unwrap_err()
            .to_string()
            .contains("is missing")
    );
    let options = RootOptions::default();
    let mut material = Material::self_signed(&options, now()).unwrap();
    directory.write(&material).unwrap();
    for step in [Step::Prepare, Step::Promote, Step::Retire] {
        assert!(directory.read().unwrap() == material);
        material.step(step, &options, now()).unwrap();
        let mut authority = Authority::new(&material, Limits::default(), now()).unwrap();
        authority
            .revoke(Serial::of(&[1, step as u8]), now())
            .unwrap();
        material = material.with_revoked(authority.revoked_pem(now()).unwrap());
        directory.write(&material).unwrap();
    }
    assert!(directory.read().unwrap() == material);
    assert!(!directory.path().join("previous").exists() && !directory.path().join("next").exists());
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(directory.path()) & 0o777, 0o700);
        for file in ["ca-key.pem", "ca-cert.pem", "root-cert.pem", "ca-crl.pem"] {
            assert_eq!(mode(&directory.path().join(file)) & 0o777, 0o600, "{file}");
        }
    }
    let error = {
        std::fs::remove_file(directory.path().join("ca-key.pem")).unwrap();
        directory.read().unwrap_err().to_string()
    };
    assert!(
        error.contains("ca-key.pem") && !directory.is_empty(),
        "{error}"
    );
}

#[test]
fn no_key_is_ever_shown() {
    let material = Material::self_signed(&RootOptions::default(), now()).unwrap();
    let authority = Authority::new(&material, Limits::default(), now()).unwrap();
    let shown = format!("{material:?} {authority:?}");
    assert!(
        !shown.contains("PRIVATE") && shown.len() < 20_000,
        "{shown}"
    );
}
