//! Keys, certificates and roots of trust.

use crate::{Feed, Name, Publisher, Slot};
use std::fmt;
use std::sync::Arc;
use zeroize::Zeroizing;

/// A key with its certificates, or roots of trust. What it holds is never shown by `Debug`, and
/// keys are wiped from memory when the last user drops it.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Secret {
    /// A certificate chain with its private key.
    Certificate {
        /// The chain, leaf first, as PEM.
        chain: Vec<u8>,
        /// The private key, as PEM.
        key: SecretBytes,
    },
    /// What certificates of others are checked against.
    Trust {
        /// Root certificates, as PEM.
        roots: Vec<u8>,
        /// Lists of revoked certificates, as PEM; empty is none.
        revoked: Vec<u8>,
    },
}

/// Bytes that are never shown and are wiped from memory when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretBytes(Zeroizing<Vec<u8>>);

/// Where a secret lies, as far as its name says (istiod's conventions).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SecretName<'a> {
    /// `file-cert:CERTIFICATE~KEY`: two PEM files.
    CertificateFiles {
        /// The certificate chain.
        certificate: &'a str,
        /// The key.
        key: &'a str,
    },
    /// `file-root:FILE`: a PEM file of root certificates.
    RootFile(&'a str),
    /// `file-crl:FILE`: a PEM file of lists of revoked certificates.
    RevokedFile(&'a str),
    /// `file-root:system`: the roots that the machine trusts.
    SystemRoots,
    /// Anything else: whoever provides the secret knows.
    Other(&'a str),
}

/// A secret that changes on its own: what the parts of a snapshot that name it have in common.
#[derive(Debug)]
pub struct LiveSecret {
    name: Name,
    value: Publisher<Option<Arc<Secret>>>,
    slot: Slot,
}

// === impl Secret ===

impl Secret {
    /// A certificate chain with its private key, both PEM.
    pub fn certificate(chain: impl Into<Vec<u8>>, key: impl Into<Vec<u8>>) -> Self {
        Self::Certificate {
            chain: chain.into(),
            key: SecretBytes::new(key),
        }
    }

    /// Root certificates, PEM.
    pub fn roots(roots: impl Into<Vec<u8>>) -> Self {
        Self::Trust {
            roots: roots.into(),
            revoked: Vec::new(),
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Certificate { .. } => "Certificate(…)",
            Self::Trust { .. } => "Trust(…)",
        })
    }
}

// === impl SecretBytes ===

impl SecretBytes {
    /// Takes bytes over.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(Zeroizing::new(bytes.into()))
    }

    /// The bytes.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretBytes(…)")
    }
}

// === impl SecretName ===

impl<'a> SecretName<'a> {
    /// What a name says.
    pub fn of(name: &'a str) -> Self {
        if let Some(files) = name.strip_prefix("file-cert:")
            && let Some((certificate, key)) = files.split_once('~')
        {
            return Self::CertificateFiles { certificate, key };
        }
        match name.split_once(':') {
            Some(("file-root", "system")) => Self::SystemRoots,
            Some(("file-root", file)) => Self::RootFile(file),
            Some(("file-crl", file)) => Self::RevokedFile(file),
            _ => Self::Other(name),
        }
    }

    /// The name that says this.
    pub fn to_name(self) -> Name {
        match self {
            Self::CertificateFiles { certificate, key } => {
                Name::from(format!("file-cert:{certificate}~{key}"))
            }
            Self::RootFile(file) => Name::from(format!("file-root:{file}")),
            Self::RevokedFile(file) => Name::from(format!("file-crl:{file}")),
            Self::SystemRoots => Name::from("file-root:system"),
            Self::Other(name) => Name::from(name),
        }
    }
}

// === impl LiveSecret ===

impl LiveSecret {
    pub(super) fn new(name: Name) -> Self {
        Self {
            name,
            value: Publisher::new(None),
            slot: Slot::default(),
        }
    }

    /// Its name.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// The secret, as it changes. None as long as nobody provided it, and when it was taken away.
    pub fn value(&self) -> Feed<Option<Arc<Secret>>> {
        self.value.feed()
    }

    /// A number that grows with each value, as [`Feed::version`] of [`LiveSecret::value`].
    pub fn version(&self) -> u64 {
        self.value.version()
    }

    /// Replaces the secret for everyone: for the next handshakes. Nothing happens when it is the
    /// same.
    pub fn publish(&self, secret: Option<Arc<Secret>>) {
        if *self.value.load() != secret {
            self.value.publish(Arc::new(secret));
        }
    }

    /// What whoever speaks TLS keeps about this secret.
    pub fn slot(&self) -> &Slot {
        &self.slot
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_never_shown() {
        let secret = Secret::certificate("public", "hush-hush");
        let shown = format!("{secret:?} {:?}", Some(Arc::new(secret.clone())));
        assert!(
            !shown.contains("hush") && !shown.contains("public"),
            "{shown}"
        );
        let live = LiveSecret::new("n".into());
        live.publish(Some(Arc::new(secret)));
        assert!(!format!("{live:?}").contains("hush"));
    }

    #[test]
    fn names_say_where_files_lie() {
        for (text, says) in [
            (
                "file-cert:/a/c.pem~/a/k.pem",
                SecretName::CertificateFiles {
                    certificate: "/a/c.pem",
                    key: "/a/k.pem",
                },
            ),
            ("file-root:/a/ca.pem", SecretName::RootFile("/a/ca.pem")),
            ("file-crl:/a/crl.pem", SecretName::RevokedFile("/a/crl.pem")),
            ("file-root:system", SecretName::SystemRoots),
            (
                "kubernetes://a-cert",
                SecretName::Other("kubernetes://a-cert"),
            ),
            (
                "file-cert:/only-one",
                SecretName::Other("file-cert:/only-one"),
            ),
        ] {
            assert_eq!(SecretName::of(text), says);
            assert_eq!(says.to_name(), text);
        }
    }

    #[test]
    fn the_same_secret_again_is_no_news() {
        let live = LiveSecret::new("n".into());
        let feed = live.value();
        live.publish(Some(Arc::new(Secret::roots("a"))));
        let version = feed.version();
        live.publish(Some(Arc::new(Secret::roots("a"))));
        assert_eq!(feed.version(), version);
        live.publish(None);
        assert!(feed.version() > version && feed.load().is_none());
    }
}
