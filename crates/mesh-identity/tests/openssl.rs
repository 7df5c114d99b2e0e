//! What the authority signs, in the eyes of OpenSSL; and what OpenSSL makes, in the authority's.

use mesh_core::model::SecretBytes;
use mesh_identity::authority::{Authority, Directory, Grant, Limits, Material, RootOptions};
use mesh_identity::{CertificateRequest, KeyKind, SpiffeId};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::SystemTime;
use tempfile::TempDir;

/// Runs `openssl` in a folder: whether it was content, and what it said.
fn openssl(folder: &Path, arguments: &str) -> (bool, String) {
    let output = Command::new("openssl")
        .args(arguments.split_whitespace())
        .current_dir(folder)
        .output()
        .expect("openssl is installed");
    let said = [output.stdout, output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8_lossy(&said).into_owned(),
    )
}

fn done(folder: &Path, arguments: &str) -> String {
    let (content, said) = openssl(folder, arguments);
    assert!(content, "openssl {arguments}: {said}");
    said
}

fn grant() -> Grant {
    Grant::to(SpiffeId::of_workload("a.test", "shop", "reviews").unwrap())
}

#[test]
fn openssl_accepts_what_the_authority_signs_for_every_kind_of_key() {
    let now = SystemTime::now();
    for kind in [KeyKind::EcdsaP256, KeyKind::EcdsaP384, KeyKind::Rsa2048] {
        let place = TempDir::new().unwrap();
        let folder = place.path();
        let mut options = RootOptions::default();
        options.key = kind;
        let material = Material::self_signed(&options, now).unwrap();
        Directory::at(folder).write(&material).unwrap();
        let mut authority = Authority::new(&material, Limits::default(), now).unwrap();
        let request = CertificateRequest::generate(kind).unwrap();
        fs::write(folder.join("csr.pem"), request.csr()).unwrap();
        done(folder, "req -in csr.pem -noout -verify");
        let issued = authority.sign(request.csr(), &grant(), now).unwrap();
        fs::write(folder.join("leaf.pem"), issued.chain_pem()).unwrap();
        let verify = "verify -x509_strict -CAfile root-cert.pem";
        for purpose in ["sslserver", "sslclient"] {
            done(folder, &format!("{verify} -purpose {purpose} leaf.pem"));
        }
        let text = done(folder, "x509 -in leaf.pem -noout -text");
        for part in [
            "X509v3 Subject Alternative Name: critical",
            "URI:spiffe://a.test/ns/shop/sa/reviews",
            "Digital Signature, Key Encipherment",
            "TLS Web Server Authentication, TLS Web Client Authentication",
            "CA:FALSE",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        // Revoked, and another one that is not.
        authority.revoke(issued.serial, now).unwrap();
        fs::write(folder.join("crl.pem"), authority.revoked_pem(now).unwrap()).unwrap();
        let check = format!("{verify} -crl_check -CRLfile crl.pem leaf.pem");
        let (content, said) = openssl(folder, &check);
        assert!(!content && said.contains("certificate revoked"), "{said}");
        let other = authority.sign(request.csr(), &grant(), now).unwrap();
        fs::write(folder.join("leaf.pem"), other.chain_pem()).unwrap();
        done(folder, &check);
    }
}

#[test]
fn an_intermediate_and_a_forged_request_of_openssl_are_taken_as_istio_does() {
    let place = TempDir::new().unwrap();
    let folder = place.path();
    let ca = "[v3]\nbasicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\n\
              subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n\
              [req]\ndistinguished_name=dn\n[dn]\n\
              [san]\nsubjectAltName=URI:spiffe://a.test/ns/istio-system/sa/admin,DNS:istiod\n\
              basicConstraints=CA:TRUE\n";
    fs::write(folder.join("ca.cnf"), ca).unwrap();
    // Keys of both kinds, in the forms of PKCS #1 and SEC 1.
    done(folder, "genrsa -traditional -out root-key.pem 2048");
    done(
        folder,
        "ecparam -name secp384r1 -genkey -noout -out ca-key.pem",
    );
    done(
        folder,
        "req -x509 -new -key root-key.pem -out root-cert.pem -days 30 -subj /O=Istio/CN=Root \
         -config ca.cnf -extensions v3",
    );
    done(
        folder,
        "req -new -key ca-key.pem -out ca.csr -subj /O=Istio/CN=Intermediate/L=cluster1 -config ca.cnf",
    );
    done(
        folder,
        "x509 -req -in ca.csr -CA root-cert.pem -CAkey root-key.pem -CAcreateserial -days 20 \
         -out ca-cert.pem -extfile ca.cnf -extensions v3",
    );
    // As Istio's documentation has it: the chain with the root at its end.
    let read = |name: &str| fs::read(folder.join(name)).unwrap();
    fs::write(
        folder.join("cert-chain.pem"),
        [read("ca-cert.pem"), read("root-cert.pem")].concat(),
    )
    .unwrap();
    fs::rename(folder.join("ca.csr"), folder.join("used.csr")).unwrap();
    let now = SystemTime::now();
    let material = Directory::at(folder).read().unwrap();
    let authority = Authority::new(&material, Limits::default(), now).unwrap();
    done(folder, "genrsa -out key.pem 2048");
    done(
        folder,
        "req -new -key key.pem -out forged.csr -subj /CN=admin -config ca.cnf -reqexts san",
    );
    let forged = String::from_utf8(read("forged.csr")).unwrap();
    let issued = authority.sign(&forged, &grant(), now).unwrap();
    fs::write(folder.join("leaf.pem"), issued.chain_pem()).unwrap();
    done(
        folder,
        "verify -x509_strict -CAfile root-cert.pem -untrusted leaf.pem leaf.pem",
    );
    let text = done(folder, "x509 -in leaf.pem -noout -text");
    assert!(
        text.contains("spiffe://a.test/ns/shop/sa/reviews"),
        "{text}"
    );
    assert!(
        !text.contains("admin") && !text.contains("CA:TRUE"),
        "{text}"
    );
    assert!(
        text.contains("Signature Algorithm: ecdsa-with-SHA384"),
        "{text}"
    );
    // Weak keys are refused.
    done(
        folder,
        "req -new -newkey rsa:1024 -nodes -keyout weak.pem -out weak.csr -subj /CN=x -config ca.cnf",
    );
    let weak = String::from_utf8(read("weak.csr")).unwrap();
    let refused = authority
        .sign(&weak, &grant(), now)
        .unwrap_err()
        .to_string();
    assert!(refused.contains("2048"), "{refused}");
    // A key of somebody else.
    let other = Material::plugged_in(
        read("ca-cert.pem"),
        SecretBytes::new(read("root-key.pem")),
        read("cert-chain.pem"),
        read("root-cert.pem"),
    );
    assert!(Authority::new(&other, Limits::default(), now).is_err());
}
