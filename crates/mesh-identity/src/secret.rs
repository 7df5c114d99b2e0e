//! Secrets, parsed: once for each version, for all that use them.

use crate::san::{self, San};
use crate::{names, pem};
use mesh_core::model::{LiveSecret, Secret};
use mesh_core::{Invalid, Name};
use rustls::sign::CertifiedKey;
use rustls::{DistinguishedName, SignatureAlgorithm};
use rustls_pki_types::{CertificateDer, TrustAnchor};
use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use webpki::{CertRevocationList, OwnedCertRevocationList};
use x509_parser::prelude::{ASN1Time, FromDer, X509Certificate, X509Version};
use x509_parser::public_key::PublicKey;

/// A certificate that can be shown.
#[derive(Debug)]
pub(crate) struct Certificate {
    pub(crate) key: Arc<CertifiedKey>,
    /// The DNS names that it is chosen by: those of the certificate, else its common name.
    pub(crate) hosts: Vec<String>,
    pub(crate) local_names: Vec<Name>,
    expired: bool,
}

/// What certificates are checked against.
#[derive(Debug, Default)]
pub(crate) struct Trust {
    pub(crate) anchors: Vec<TrustAnchor<'static>>,
    /// SHA-256 of all certificates of the bundle: they are trusted themselves.
    pub(crate) direct: HashSet<[u8; 32]>,
    /// What callers are told that we trust.
    pub(crate) hints: Vec<DistinguishedName>,
    pub(crate) revoked: Vec<CertRevocationList<'static>>,
    /// Whether there were roots at all.
    pub(crate) has_roots: bool,
}

#[derive(Clone, Debug)]
pub(crate) enum Parsed {
    Certificate(Arc<Certificate>),
    Trust(Arc<Trust>),
}

/// What is kept in [`LiveSecret::slot`].
#[derive(Debug, Default)]
struct Cache(Mutex<(u64, Option<Parsed>)>);

/// More than this is not told to callers; the length on the wire ends at 64 KiB.
const MAX_HINTS: usize = 32 << 10;

/// The weakest RSA key that is shown (Envoy's limit, too).
const MIN_RSA_BITS: usize = 2048;

/// Checks a secret as whoever uses it will: certificates can be read, the key is of a known kind,
/// strong enough and belongs to the first certificate; roots and lists of revoked certificates can
/// be read. A certificate that is out of date is no error, as in Envoy: its peers refuse it.
///
/// # Errors
/// The field and what is wrong with it; never what stands in it.
pub fn check_secret(secret: &Secret) -> Result<(), Invalid> {
    Parsed::read(secret).map(|_| ())
}

/// The secret in use and the version that was looked at. A secret that cannot be used is warned
/// about, and the last good one stays in use, as in Envoy.
pub(crate) fn current(live: &LiveSecret, version: u64) -> Option<Parsed> {
    let cache = live.slot().get_or_init(Cache::default);
    let mut cache = cache.0.lock().unwrap_or_else(PoisonError::into_inner);
    if cache.0 != version {
        // The value may be newer than the version, which then is looked at once more.
        match &*live.value().load() {
            None => cache.1 = None,
            Some(secret) => match Parsed::read(secret) {
                Ok(parsed) => {
                    if matches!(&parsed, Parsed::Certificate(certificate) if certificate.expired) {
                        tracing::warn!(secret = %live.name(), "the certificate has expired");
                    }
                    cache.1 = Some(parsed);
                }
                Err(error) => {
                    let kept = cache.1.is_some();
                    tracing::warn!(secret = %live.name(), %error, kept, "secret refused");
                }
            },
        }
        cache.0 = version;
    }
    cache.1.clone()
}

// === impl Parsed ===

impl Parsed {
    fn read(secret: &Secret) -> Result<Self, Invalid> {
        match secret {
            Secret::Certificate { chain, key } => {
                let certificate = Certificate::read(chain, key.expose())?;
                Ok(Self::Certificate(Arc::new(certificate)))
            }
            Secret::Trust { roots, revoked } => {
                Ok(Self::Trust(Arc::new(Trust::read(roots, revoked)?)))
            }
            _ => Err(Invalid::new(
                "",
                "a secret of a kind that TLS has no use for",
            )),
        }
    }
}

// === impl Certificate ===

impl Certificate {
    pub(crate) fn read(chain: &[u8], key: &[u8]) -> Result<Self, Invalid> {
        let wrong = |text: &str| Invalid::new("chain", text);
        let chain = pem::chain(chain).map_err(|error| error.within("chain"))?;
        let mut facts = None;
        for (at, der) in chain.iter().enumerate() {
            let Ok((_, certificate)) = X509Certificate::from_der(der) else {
                return Err(Invalid::new(
                    format!("chain[{at}]"),
                    "not an X.509 certificate",
                ));
            };
            if at == 0 {
                facts = Some(leaf(&certificate)?);
            }
        }
        let (names, common, expired) = facts.ok_or_else(|| wrong("no certificate"))?;
        let key = pem::key(key).map_err(|error| error.within("key"))?;
        let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key).map_err(|_| {
            let message = "not a key that can be used: RSA, P-256, P-384, P-521 or Ed25519";
            Invalid::new("key", message)
        })?;
        let key = CertifiedKey::new(chain, key);
        if key.keys_match().is_err() {
            return Err(Invalid::new("key", "does not belong to the certificate"));
        }
        let mut hosts: Vec<_> = names
            .iter()
            .filter_map(|name| match name {
                San::Dns(name) => Some(name.to_ascii_lowercase()),
                _ => None,
            })
            .collect();
        if hosts.is_empty() {
            hosts.extend(common);
        }
        Ok(Self {
            key: Arc::new(key),
            hosts,
            local_names: names::local(&names),
            expired,
        })
    }

    /// Whether its key is RSA, which every client knows.
    pub(crate) fn is_rsa(&self) -> bool {
        self.key.key.algorithm() == SignatureAlgorithm::RSA
    }
}

fn leaf(certificate: &X509Certificate<'_>) -> Result<(Vec<San>, Option<String>, bool), Invalid> {
    if let Ok(PublicKey::RSA(key)) = certificate.public_key().parsed()
        && key.key_size() < MIN_RSA_BITS
    {
        let message = "only RSA certificates with 2048-bit or larger keys are supported";
        return Err(Invalid::new("chain[0]", message));
    }
    let mut common = certificate.subject().iter_common_name();
    let common = common.next().and_then(|name| name.as_str().ok());
    Ok((
        san::of(certificate),
        common.map(str::to_ascii_lowercase),
        certificate.validity().not_after < ASN1Time::now(),
    ))
}

// === impl Trust ===

impl Trust {
    pub(crate) fn read(roots: &[u8], revoked: &[u8]) -> Result<Self, Invalid> {
        if roots.is_empty() && revoked.is_empty() {
            return Err(Invalid::new(
                "roots",
                "neither roots nor revoked certificates given",
            ));
        }
        let mut trust = Self::default();
        if !roots.is_empty() {
            let roots = pem::roots(roots).map_err(|error| error.within("roots"))?;
            trust.has_roots = true;
            for (at, der) in roots.iter().enumerate() {
                trust
                    .add(der)
                    .map_err(|error| error.within(format!("roots[{at}]")))?;
            }
        }
        if trust
            .hints
            .iter()
            .map(|hint| hint.as_ref().len() + 2)
            .sum::<usize>()
            > MAX_HINTS
        {
            trust.hints.clear();
        }
        if !revoked.is_empty() {
            let lists = pem::revoked(revoked).map_err(|error| error.within("revoked"))?;
            for (at, list) in lists.iter().enumerate() {
                let list = OwnedCertRevocationList::from_der(list).map_err(|error| {
                    let message = format!("not a list that can be used: {error}");
                    Invalid::new(format!("revoked[{at}]"), message)
                })?;
                trust.revoked.push(list.into());
            }
        }
        Ok(trust)
    }

    fn add(&mut self, der: &CertificateDer<'_>) -> Result<(), Invalid> {
        let Ok((_, certificate)) = X509Certificate::from_der(der) else {
            return Err(Invalid::new("", "not an X.509 certificate"));
        };
        self.direct.insert(names::sha256(der));
        if !may_sign(&certificate) {
            return Ok(());
        }
        let Ok(anchor) = webpki::anchor_from_trusted_cert(der) else {
            // One odd root among the hundred of a system must not take the others away.
            return Ok(());
        };
        self.anchors.push(anchor.to_owned());
        let subject = certificate.subject().as_raw().to_vec();
        self.hints.push(DistinguishedName::from(subject));
        Ok(())
    }
}

// The library takes every certificate in a bundle for one that may sign others. Version 1 has no
// extensions to say so; later ones must say it (RFC 5280 §4.2.1.9 and §4.2.1.3). Envoy minds the
// key usage of a root, not its basic constraints: there a leaf that is trusted vouches for others.
fn may_sign(certificate: &X509Certificate<'_>) -> bool {
    if certificate.version() == X509Version::V1 {
        return true;
    }
    let authority = matches!(certificate.basic_constraints(), Ok(Some(found)) if found.value.ca);
    let usage = match certificate.key_usage() {
        Ok(usage) => usage.is_none_or(|usage| usage.value.key_cert_sign()),
        Err(_) => false,
    };
    authority && usage
}
