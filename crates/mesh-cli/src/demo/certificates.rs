//! An authority of the demo's own. Its certificates are made when the demo starts and are worth
//! nothing elsewhere: who is to trust them says so (`curl --cacert`).

use anyhow::Context;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// The authority's certificate, in the directory of the certificates.
pub(crate) const AUTHORITY: &str = "ca.pem";

/// Its key.
const AUTHORITY_KEY: &str = "ca-key.pem";

/// How long certificates are valid.
const LIFETIME: Duration = Duration::from_secs(7 * 24 * 3600);

/// Clocks of others may be behind by this much.
const EARLIER: Duration = Duration::from_secs(3600);

/// Issues certificates.
#[derive(Debug)]
pub(crate) struct Authority(Issuer<'static, KeyPair>);

/// A certificate and its key, both PEM. `Debug` shows neither.
pub(crate) struct Pair {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

// === impl Authority ===

impl Authority {
    /// A new one, whose certificate and key are put into a directory.
    pub(crate) fn create(dir: &Path) -> anyhow::Result<Self> {
        let mut params = params("the demo's authority", &[])?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?;
        fs::write(dir.join(AUTHORITY), certificate.pem())
            .with_context(|| format!("cannot write {}", dir.join(AUTHORITY).display()))?;
        write_private(&dir.join(AUTHORITY_KEY), &key.serialize_pem())?;
        Ok(Self(Issuer::new(params, key)))
    }

    /// The one in a directory.
    pub(crate) fn open(dir: &Path) -> anyhow::Result<Self> {
        let read = |name: &str| {
            let path = dir.join(name);
            fs::read_to_string(&path).with_context(|| {
                format!(
                    "cannot read {}; `mesh demo` makes it when it starts",
                    path.display()
                )
            })
        };
        let key = KeyPair::from_pem(&read(AUTHORITY_KEY)?)?;
        Ok(Self(Issuer::from_ca_cert_pem(&read(AUTHORITY)?, key)?))
    }

    /// A new certificate for these hosts, with a new key (ECDSA, P-256).
    pub(crate) fn issue(&self, hosts: &[&str]) -> anyhow::Result<Pair> {
        let name = hosts.first().copied().unwrap_or_default();
        let mut params = params(name, hosts)
            .with_context(|| format!("no certificate can be made for {}", hosts.join(", ")))?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        Ok(Pair {
            certificate: params.signed_by(&key, &self.0)?.pem(),
            key: key.serialize_pem(),
        })
    }
}

fn params(name: &str, hosts: &[&str]) -> anyhow::Result<CertificateParams> {
    let hosts: Vec<String> = hosts.iter().map(|&host| host.to_owned()).collect();
    let mut params = CertificateParams::new(hosts)?;
    params.distinguished_name.remove(DnType::CommonName);
    params.distinguished_name.push(DnType::CommonName, name);
    let now = SystemTime::now();
    params.not_before = (now - EARLIER).into();
    params.not_after = (now + LIFETIME).into();
    Ok(params)
}

// === impl Pair ===

impl Pair {
    /// Writes both into files.
    pub(crate) fn write(&self, certificate: &Path, key: &Path) -> anyhow::Result<()> {
        fs::write(certificate, &self.certificate)
            .with_context(|| format!("cannot write {}", certificate.display()))?;
        write_private(key, &self.key)
    }
}

impl std::fmt::Debug for Pair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pair(…)")
    }
}

/// Writes a new file that nobody else may read.
pub(crate) fn write_private(path: &Path, text: &str) -> anyhow::Result<()> {
    let mut options = OpenOptions::new();
    let file = options.write(true).create_new(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes()))
        .with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_core::model::Secret;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn an_authority_is_found_again_and_its_keys_are_private() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Authority::open(dir.path()).is_err());
        Authority::create(dir.path()).unwrap();
        let authority = Authority::open(dir.path()).unwrap();
        let pair = authority.issue(&["a.example.com", "*.b.com"]).unwrap();
        let (certificate, key) = (dir.path().join("a.pem"), dir.path().join("a-key.pem"));
        pair.write(&certificate, &key).unwrap();
        for key in [key, dir.path().join(AUTHORITY_KEY)] {
            let mode = fs::metadata(key).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }

    #[test]
    fn what_is_issued_is_new_each_time_and_fit_for_use() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::create(dir.path()).unwrap();
        let one = authority.issue(&["a.example.com"]).unwrap();
        let two = authority.issue(&["a.example.com"]).unwrap();
        assert_ne!(one.certificate, two.certificate);
        assert_ne!(one.key, two.key);
        for pair in [one, two] {
            mesh_identity::check_secret(&Secret::certificate(pair.certificate, pair.key)).unwrap();
        }
        let roots = fs::read(dir.path().join(AUTHORITY)).unwrap();
        mesh_identity::check_secret(&Secret::roots(roots)).unwrap();
    }
}
