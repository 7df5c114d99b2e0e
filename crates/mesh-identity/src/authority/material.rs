//! What an authority is made of, as PEM, and how a root is replaced.
//!
//! ```text
//!   prepare:  a new root is trusted beside the old one, which still signs     roots: old new
//!   promote:  the new one signs; what the old one signed is still trusted     roots: old new
//!   retire:   the old one is trusted no longer                                roots: new
//! ```
//!
//! Between one step and the next everybody has to get a certificate anew, and with it the roots.

use super::signer::Signer;
use crate::pem;
use crate::request::KeyKind;
use mesh_core::Invalid;
use mesh_core::model::SecretBytes;
use rustls_pki_types::CertificateDer;
use std::fmt;
use std::time::{Duration, SystemTime};

/// Certificates and keys of an authority, as Istio's secret `cacerts` has them.
#[derive(Clone, PartialEq, Eq)]
pub struct Material {
    pub(super) current: Pair,
    /// `cert-chain.pem`: what lies between the authority's certificate and a root; may be empty.
    pub(super) chain: Vec<u8>,
    /// `root-cert.pem`: the roots of all that is to be trusted.
    pub(super) roots: Vec<u8>,
    /// `ca-crl.pem`: lists of revoked certificates; may be empty.
    pub(super) revoked: Vec<u8>,
    pub(super) next: Option<Pair>,
    pub(super) previous: Option<Pair>,
}

/// `ca-cert.pem` and `ca-key.pem`.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Pair {
    pub(super) certificate: Vec<u8>,
    pub(super) key: SecretBytes,
}

/// How a root is made.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RootOptions {
    /// The organization in its subject. Default: `cluster.local`, as Istio has the trust domain
    /// there.
    pub organization: String,
    /// Its key. Default: ECDSA on P-256.
    pub key: KeyKind,
    /// For how long it is valid. Default: 10 years (Istio `CITADEL_SELF_SIGNED_CA_CERT_TTL`).
    pub lifetime: Duration,
}

/// A step in replacing a root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// A new root is made and trusted.
    Prepare,
    /// It signs.
    Promote,
    /// The old one is trusted no longer.
    Retire,
}

// === impl Material ===

impl Material {
    /// A root that vouches for itself.
    ///
    /// # Errors
    /// It cannot be made: the source of random numbers failed, or the lifetime has no end that can
    /// be written.
    pub fn self_signed(options: &RootOptions, now: SystemTime) -> Result<Self, Invalid> {
        let pair = Pair::root(options, now)?;
        Ok(Self {
            chain: Vec::new(),
            roots: pair.certificate.clone(),
            revoked: Vec::new(),
            current: pair,
            next: None,
            previous: None,
        })
    }

    /// What somebody else has made, all PEM: the authority's certificate and key, what lies between
    /// it and a root (may be empty), and the roots.
    pub fn plugged_in(
        certificate: impl Into<Vec<u8>>,
        key: SecretBytes,
        chain: impl Into<Vec<u8>>,
        roots: impl Into<Vec<u8>>,
    ) -> Self {
        Self {
            current: Pair {
                certificate: certificate.into(),
                key,
            },
            chain: chain.into(),
            roots: roots.into(),
            revoked: Vec::new(),
            next: None,
            previous: None,
        }
    }

    /// Lists of revoked certificates (PEM): those of [`Authority::revoked_pem`], and of roots above.
    ///
    /// [`Authority::revoked_pem`]: super::Authority::revoked_pem
    #[must_use]
    pub fn with_revoked(mut self, revoked: impl Into<Vec<u8>>) -> Self {
        self.revoked = revoked.into();
        self
    }

    /// Does one step of replacing the root.
    ///
    /// # Errors
    /// The step is not the next one, or the authority's certificate is not a root: then somebody
    /// else makes a new one.
    pub fn step(
        &mut self,
        step: Step,
        options: &RootOptions,
        now: SystemTime,
    ) -> Result<(), Invalid> {
        let own = pem::chain(&self.current.certificate);
        let own = own
            .map_err(|error| error.within("ca-cert.pem"))?
            .swap_remove(0);
        let mut roots = pem::roots(&self.roots).map_err(|error| error.within("root-cert.pem"))?;
        if !roots.contains(&own) {
            let message = "is not a root, so that its successor has to come from whoever made it: \
                           replace the files";
            return Err(Invalid::new("ca-cert.pem", message));
        }
        let wrong = |message: &str| Err(Invalid::new("", message));
        match step {
            Step::Prepare if self.next.is_some() => wrong("a new root is prepared already"),
            Step::Prepare if self.previous.is_some() => {
                wrong("the root before is still trusted: retire it first")
            }
            Step::Prepare => {
                let pair = Pair::root(options, now)?;
                self.roots.extend_from_slice(&pair.certificate);
                self.next = Some(pair);
                Ok(())
            }
            Step::Promote => {
                let Some(next) = self.next.take() else {
                    return wrong("no new root is prepared");
                };
                self.previous = Some(std::mem::replace(&mut self.current, next));
                Ok(())
            }
            Step::Retire => {
                let Some(previous) = self.previous.take() else {
                    return wrong("there is no root before the present one");
                };
                let gone = pem::chain(&previous.certificate)?;
                roots.retain(|root| !gone.contains(root));
                self.roots = pem::to_pem(&roots);
                Ok(())
            }
        }
    }
}

impl fmt::Debug for Material {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Material")
            .field("next", &self.next.is_some())
            .field("previous", &self.previous.is_some())
            .finish_non_exhaustive()
    }
}

// === impl Pair ===

impl Pair {
    fn root(options: &RootOptions, now: SystemTime) -> Result<Self, Invalid> {
        let RootOptions {
            organization,
            key,
            lifetime,
        } = options;
        let (signer, mut key) = Signer::root(organization, *key, *lifetime, now)?;
        Ok(Self {
            certificate: pem::to_pem(&[signer.certificate]),
            key: SecretBytes::new(std::mem::take(&mut *key)),
        })
    }

    /// What signs. `above` says what lies between its certificate and a root.
    pub(super) fn signer(
        &self,
        above: impl FnOnce(&CertificateDer<'_>) -> Vec<CertificateDer<'static>>,
    ) -> Result<Signer, Invalid> {
        let own = pem::chain(&self.certificate).map_err(|error| error.within("ca-cert.pem"))?;
        let above = own.first().map(above).unwrap_or_default();
        Signer::read(&self.certificate, above, self.key.expose())
    }
}

// === impl RootOptions ===

impl Default for RootOptions {
    fn default() -> Self {
        Self {
            organization: "cluster.local".to_owned(),
            key: KeyKind::default(),
            lifetime: Duration::from_secs(10 * 365 * 86_400),
        }
    }
}
