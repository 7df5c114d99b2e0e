//! Authorities, certificates and keys as files, good ones and bad ones.

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, PKCS_RSA_SHA256, PublicKeyData, RevokedCertParams,
    SanType, SerialNumber, date_time_ymd,
};
use std::path::{Path, PathBuf};
use std::process::Command;

type Issuer = CertifiedIssuer<'static, KeyPair>;

/// The files: `NAME.pem` and `NAME.key`.
pub struct Pki {
    directory: PathBuf,
}

/// The serial number of the certificate that is revoked.
const REVOKED: u64 = 7;

// === impl Pki ===

impl Pki {
    /// Makes all of them.
    pub fn make(directory: &Path) -> Self {
        let pki = Self {
            directory: directory.to_owned(),
        };
        let ca = pki.authority("ca", "ca");
        let other = pki.authority("other-ca", "other");
        // Bears the name of the first, but has a key of its own.
        let twin = pki.authority("twin-ca", "ca");

        for (name, names) in [
            ("a", &["a.test"][..]),
            ("b", &["b.test"]),
            ("wild", &["*.wild.test"]),
            ("spiffe", &["a.test", "spiffe://td/ns/x/sa/y"]),
            ("client", &["client.test", "spiffe://td/ns/c/sa/d"]),
        ] {
            pki.leaf(&ca, name, names, |_| {});
        }
        pki.leaf(&ca, "expired", &["a.test"], |it| {
            it.not_after = date_time_ymd(2021, 1, 1);
        });
        pki.leaf(&ca, "future", &["a.test"], |it| {
            it.not_before = date_time_ymd(4000, 1, 1);
        });
        pki.leaf(&ca, "revoked", &["a.test"], |it| {
            it.serial_number = Some(SerialNumber::from(REVOKED));
        });
        pki.leaf(&other, "unknown", &["a.test"], |_| {});
        pki.leaf(&twin, "twin", &["a.test"], |_| {});
        let key = KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap();
        let rsa = params("rsa", &["a.test"]).signed_by(&key, &ca).unwrap();
        pki.write("rsa", &rsa.pem(), &key);

        // By a certificate that may not sign, with that in the chain.
        let middle = CertifiedIssuer::signed_by(
            params("middle", &["middle.test"]),
            KeyPair::generate().unwrap(),
            &ca,
        )
        .unwrap();
        let key = KeyPair::generate().unwrap();
        let below = params("below", &["a.test"])
            .signed_by(&key, &middle)
            .unwrap();
        pki.write("below", &(below.pem() + &middle.pem()), &key);

        let own = KeyPair::generate().unwrap();
        let alone = params("alone", &["a.test"]).self_signed(&own).unwrap();
        pki.write("alone", &alone.pem(), &own);

        pki.weak();
        pki.revocations(&ca);
        pki
    }

    /// The path of a file.
    pub fn at(&self, file: &str) -> String {
        self.directory.join(file).to_str().unwrap().to_owned()
    }

    /// SHA-256 of a certificate, in hexadecimal.
    pub fn hash(&self, name: &str) -> String {
        let said = openssl(&["dgst", "-sha256", "-r", &self.at(&format!("{name}.der"))]);
        said.split(' ').next().unwrap().to_owned()
    }

    /// SHA-256 of a certificate's key, in base 64.
    pub fn spki(&self, name: &str) -> String {
        let digest = self.at(&format!("{name}.digest"));
        let public = self.at(&format!("{name}.pub"));
        openssl(&["dgst", "-sha256", "-binary", "-out", &digest, &public]);
        openssl(&["base64", "-A", "-in", &digest])
    }

    fn authority(&self, file: &str, name: &str) -> Issuer {
        let mut params = CertificateParams::new([]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        std::fs::write(self.at(&format!("{file}.key")), key.serialize_pem()).unwrap();
        let issuer = CertifiedIssuer::self_signed(params, key).unwrap();
        std::fs::write(self.at(&format!("{file}.pem")), issuer.pem()).unwrap();
        issuer
    }

    fn leaf(
        &self,
        by: &Issuer,
        name: &str,
        names: &[&str],
        change: impl FnOnce(&mut CertificateParams),
    ) {
        let key = KeyPair::generate().unwrap();
        let mut params = params(name, names);
        change(&mut params);
        let certificate = params.signed_by(&key, by).unwrap();
        self.write(name, &certificate.pem(), &key);
        std::fs::write(self.at(&format!("{name}.der")), certificate.der()).unwrap();
        let public = key.subject_public_key_info();
        std::fs::write(self.at(&format!("{name}.pub")), public).unwrap();
    }

    fn write(&self, name: &str, chain: &str, key: &KeyPair) {
        std::fs::write(self.at(&format!("{name}.pem")), chain).unwrap();
        std::fs::write(self.at(&format!("{name}.key")), key.serialize_pem()).unwrap();
    }

    /// A key of 1024 bits, which rcgen does not make.
    fn weak(&self) {
        let (key, request, extensions) = (
            self.at("weak.key"),
            self.at("weak.csr"),
            self.at("weak.ext"),
        );
        std::fs::write(&extensions, "subjectAltName=DNS:a.test\n").unwrap();
        let bits = "rsa_keygen_bits:1024";
        openssl(&[
            "genpkey",
            "-quiet",
            "-algorithm",
            "RSA",
            "-pkeyopt",
            bits,
            "-out",
            &key,
        ]);
        openssl(&[
            "req", "-new", "-key", &key, "-subj", "/CN=weak", "-out", &request,
        ]);
        openssl(&[
            "x509",
            "-req",
            "-in",
            &request,
            "-days",
            "30",
            "-set_serial",
            "99",
            "-CA",
            &self.at("ca.pem"),
            "-CAkey",
            &self.at("ca.key"),
            "-extfile",
            &extensions,
            "-out",
            &self.at("weak.pem"),
        ]);
    }

    fn revocations(&self, ca: &Issuer) {
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(4000, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: vec![RevokedCertParams {
                serial_number: SerialNumber::from(REVOKED),
                revocation_time: date_time_ymd(2020, 1, 1),
                reason_code: None,
                invalidity_date: None,
            }],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let text = list.signed_by(ca).unwrap().pem().unwrap();
        std::fs::write(self.at("crl.pem"), text).unwrap();
    }
}

fn params(subject: &str, names: &[&str]) -> CertificateParams {
    let mut params = CertificateParams::new([]).unwrap();
    params.distinguished_name.push(DnType::CommonName, subject);
    let names = names.iter().map(|name| match name.contains("://") {
        true => SanType::URI((*name).try_into().unwrap()),
        false => SanType::DnsName((*name).try_into().unwrap()),
    });
    params.subject_alt_names = names.collect();
    params
}

/// What it prints.
fn openssl(arguments: &[&str]) -> String {
    let done = Command::new("openssl").args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "openssl {arguments:?}: {said}");
    String::from_utf8(done.stdout).unwrap()
}
