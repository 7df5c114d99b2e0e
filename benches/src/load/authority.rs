//! Certificates for the rows with mutual TLS, all of one authority and made anew for each run.

use std::{fs, io::Write as _, os::unix::fs::OpenOptionsExt as _, path::Path};

use anyhow::Context as _;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, SanType,
};

/// A certificate of the authority: `NAME.pem` and `NAME.key`.
struct Leaf {
    name: &'static str,
    /// Beside its SPIFFE id.
    names: &'static [&'static str],
    usage: ExtendedKeyUsagePurpose,
}

/// Everybody's. The name is that of the service account, too.
const LEAVES: [Leaf; 4] = [
    // What the proxy shows its callers, and what it shows the backend.
    Leaf {
        name: "server",
        names: &["localhost"],
        usage: ExtendedKeyUsagePurpose::ServerAuth,
    },
    Leaf {
        name: "proxy",
        names: &[],
        usage: ExtendedKeyUsagePurpose::ClientAuth,
    },
    Leaf {
        name: "backend",
        names: &["secure.example.com"],
        usage: ExtendedKeyUsagePurpose::ServerAuth,
    },
    Leaf {
        name: "caller",
        names: &[],
        usage: ExtendedKeyUsagePurpose::ClientAuth,
    },
];

/// Writes the authority (`ca.pem`) and what it signed. Its own key is kept nowhere.
///
/// # Errors
///
/// If a file cannot be written.
pub(crate) fn write(folder: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot create {folder:?}"))?;
    let issuer = authority("the authority of a bench")?;
    save(&folder.join("ca.pem"), &issuer.pem())?;
    for leaf in &LEAVES {
        let (certificate, key) = leaf.signed_by(&issuer)?;
        save(&folder.join(format!("{}.pem", leaf.name)), &certificate)?;
        save_key(&folder.join(format!("{}.key", leaf.name)), &key)?;
    }
    Ok(())
}

/// Certificate and key, as PEM, which say the same as the caller's, but whose authority is another.
///
/// # Errors
///
/// If they cannot be made.
pub(crate) fn stranger() -> anyhow::Result<(String, String)> {
    let issuer = authority("the authority of a stranger")?;
    let caller = LEAVES.iter().find(|leaf| leaf.name == "caller");
    caller.context("there is a caller")?.signed_by(&issuer)
}

fn authority(name: &str) -> anyhow::Result<CertifiedIssuer<'static, KeyPair>> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    // ECDSA P-256, as everywhere here.
    Ok(CertifiedIssuer::self_signed(params, KeyPair::generate()?)?)
}

/// Writes a file that all may read.
pub(crate) fn save(file: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(file, text).with_context(|| format!("cannot write {file:?}"))
}

/// Writes a file that is for its owner alone.
pub(crate) fn save_key(file: &Path, text: &str) -> anyhow::Result<()> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let written = options
        .open(file)
        .and_then(|mut open| open.write_all(text.as_bytes()));
    written.with_context(|| format!("cannot write {file:?}"))
}

// === impl Leaf ===

impl Leaf {
    /// Certificate and key, as PEM.
    fn signed_by(
        &self,
        issuer: &CertifiedIssuer<'static, KeyPair>,
    ) -> anyhow::Result<(String, String)> {
        let names: Vec<String> = self.names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names)?;
        let id = format!("spiffe://cluster.local/ns/bench/sa/{}", self.name);
        params
            .subject_alt_names
            .push(SanType::URI(id.as_str().try_into()?));
        params
            .distinguished_name
            .push(DnType::CommonName, self.name);
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![self.usage.clone()];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, issuer)?;
        Ok((certificate.pem(), key.serialize_pem()))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn everybody_has_a_certificate_and_a_key_that_nobody_else_reads() {
        let folder = std::env::temp_dir().join(format!("peers-authority-{}", std::process::id()));
        write(&folder).unwrap();
        for name in ["server", "proxy", "backend", "caller"] {
            let certificate = fs::read_to_string(folder.join(format!("{name}.pem"))).unwrap();
            assert!(certificate.contains("BEGIN CERTIFICATE"), "{name}");
            assert!(!certificate.contains("PRIVATE"), "{name}");
            let key = fs::metadata(folder.join(format!("{name}.key"))).unwrap();
            assert_eq!(key.permissions().mode() & 0o777, 0o600, "{name}");
        }
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 9);
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_stranger_says_the_same_with_another_key() {
        let (one, two) = (stranger().unwrap(), stranger().unwrap());
        assert!(one.0.contains("BEGIN CERTIFICATE") && one.1.contains("PRIVATE KEY"));
        assert_ne!(one.1, two.1);
    }
}
