//! A key that is made here, and the request for a certificate for it.

use crate::{CertificateFacts, MAX_CERTIFICATE_BYTES, certificate_facts, check_secret, pem};
use mesh_core::Invalid;
use mesh_core::model::{Secret, SecretBytes};
use rcgen::{CertificateParams, DistinguishedName, KeyPair, RsaKeySize};
use rustls_pki_types::CertificateDer;
use std::fmt;
use std::time::Duration;
use x509_parser::prelude::{FromDer, X509Certificate};
use zeroize::{Zeroize, Zeroizing};

/// What kind of key is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyKind {
    /// ECDSA on the curve P-256.
    #[default]
    EcdsaP256,
    /// ECDSA on the curve P-384.
    EcdsaP384,
    /// RSA with 2048 bits (what Istio's agent makes unless it is told otherwise).
    Rsa2048,
    /// RSA with 4096 bits.
    Rsa4096,
}

/// A fresh key with a request for a certificate (PKCS #10, RFC 2986).
///
/// The key is wiped from memory when this is dropped, or with the [`Secret`] that is made of it;
/// `Debug` never shows it, and it leaves the process in no other way.
///
/// The request names nobody: an authority decides from whoever asks it.
///
/// ```
/// use mesh_identity::{CertificateRequest, KeyKind};
///
/// let request = CertificateRequest::generate(KeyKind::EcdsaP256)?;
/// assert!(request.csr().starts_with("-----BEGIN CERTIFICATE REQUEST-----"));
/// // What the authority answered, with the key.
/// let secret = request.into_secret("-----BEGIN CERTIFICATE-----…");
/// # Ok::<(), mesh_core::Invalid>(())
/// ```
pub struct CertificateRequest {
    csr: String,
    key: SecretBytes,
}

/// A certificate with its key, and what it came with.
#[derive(Debug)]
#[non_exhaustive]
pub struct Credentials {
    /// The certificate, what lies between it and a root, and the key.
    pub own: Secret,
    /// The authority's roots, as PEM.
    pub roots: Vec<u8>,
    /// What the certificate says of itself.
    pub facts: CertificateFacts,
}

/// The most certificates of an answer.
const MAX_ANSWER: usize = 128;

/// How long after it was made a certificate is to be replaced: half of its life, give or take a
/// hundredth of its life by a random word, so that those who began together do not all come at once
/// (Istio's `SECRET_GRACE_PERIOD_RATIO` 0.5 and its jitter 0.01).
pub fn renew_after(life: Duration, word: u64) -> Duration {
    let share = word as f64 / u64::MAX as f64;
    life.mul_f64(0.49 + 0.02 * share)
}

// === impl CertificateRequest ===

impl CertificateRequest {
    /// Makes a key and a request. An RSA key takes a while: a tenth of a second or more.
    ///
    /// # Errors
    /// The source of random numbers failed.
    pub fn generate(kind: KeyKind) -> Result<Self, Invalid> {
        let (key, mut pem) = kind.generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let csr = params.serialize_request(&key).map_err(failed)?;
        let mut text = Vec::new();
        pem::section(&mut text, "CERTIFICATE REQUEST", csr.der());
        Ok(Self {
            csr: String::from_utf8_lossy(&text).into_owned(),
            key: SecretBytes::new(std::mem::take(&mut *pem)),
        })
    }

    /// The request, as PEM.
    pub fn csr(&self) -> &str {
        &self.csr
    }

    /// What an authority has answered (`IstioCertificateResponse.cert_chain`: PEM, the own
    /// certificate first, roots last), with the key.
    ///
    /// Roots are those at the end that vouch for themselves, or the last one where none does.
    ///
    /// # Errors
    /// The answer is not of this form, or the certificate is for another key.
    pub fn answered(self, certificates: &[String]) -> Result<Credentials, Invalid> {
        let mut all = Vec::new();
        for (at, text) in certificates.iter().enumerate() {
            let field = || format!("cert_chain[{at}]");
            let more = pem::certificates(text.as_bytes(), MAX_CERTIFICATE_BYTES, MAX_ANSWER);
            all.extend(more.map_err(|error| error.within(field()))?);
            if all.len() > MAX_ANSWER {
                return Err(Invalid::new(
                    field(),
                    "more than the 128 certificates allowed",
                ));
            }
        }
        let itself = |der: &CertificateDer<'_>| match X509Certificate::from_der(der) {
            Ok((_, parsed)) => parsed.issuer().as_raw() == parsed.subject().as_raw(),
            Err(_) => false,
        };
        let roots = all
            .iter()
            .rev()
            .take_while(|der| itself(der))
            .count()
            .max(1);
        let Some(chain) = all.len().checked_sub(roots).filter(|chain| *chain > 0) else {
            let message = "a certificate, what is above it, and a root are expected";
            return Err(Invalid::new("cert_chain", message));
        };
        let (chain, roots) = all.split_at(chain);
        let facts = certificate_facts(&pem::to_pem(chain))?;
        let own = self.into_secret(pem::to_pem(chain));
        check_secret(&own)?;
        Ok(Credentials {
            own,
            roots: pem::to_pem(roots),
            facts: facts
                .into_iter()
                .next()
                .ok_or_else(|| Invalid::new("cert_chain", "no certificate"))?,
        })
    }

    /// The key with the certificates that were made for it: PEM, leaf first.
    pub fn into_secret(self, chain: impl Into<Vec<u8>>) -> Secret {
        Secret::Certificate {
            chain: chain.into(),
            key: self.key,
        }
    }
}

impl fmt::Debug for CertificateRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertificateRequest").finish_non_exhaustive()
    }
}

// === impl KeyKind ===

impl KeyKind {
    /// A key to sign with, and its PEM form (PKCS #8).
    pub(crate) fn generate(self) -> Result<(KeyPair, Zeroizing<Vec<u8>>), Invalid> {
        let made = match self {
            Self::EcdsaP256 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256),
            Self::EcdsaP384 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384),
            Self::Rsa2048 => KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048),
            Self::Rsa4096 => KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_4096),
        };
        let mut key = made.map_err(failed)?;
        let der = key.serialized_der();
        // Large enough for all of it: growing would leave a copy of the beginning behind.
        let mut pem = Zeroizing::new(Vec::with_capacity(der.len() * 2 + 128));
        pem::section(&mut pem, "PRIVATE KEY", der);
        // What signs is kept by the library for cryptography, which wipes it.
        key.zeroize();
        Ok((key, pem))
    }
}

fn failed(error: rcgen::Error) -> Invalid {
    Invalid::new("", format!("no key could be made: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls_pki_types::CertificateSigningRequestDer;
    use rustls_pki_types::pem::PemObject;
    use x509_parser::prelude::{FromDer, X509CertificationRequest};

    #[test]
    fn certificates_are_replaced_at_half_of_their_lives() {
        let day = Duration::from_secs(86_400);
        assert_eq!(renew_after(day, 0).as_secs(), 42_336);
        assert_eq!(renew_after(day, 1 << 63).as_secs().div_ceil(60), 720);
        assert_eq!(renew_after(day, u64::MAX).as_secs().div_ceil(60), 735);
        assert_eq!(renew_after(Duration::ZERO, 1), Duration::ZERO);
    }

    #[test]
    fn a_request_names_nobody_and_its_key_is_not_shown() {
        for (kind, bits) in [
            (KeyKind::EcdsaP256, 256),
            (KeyKind::EcdsaP384, 384),
            (KeyKind::Rsa2048, 2048),
        ] {
            let request = CertificateRequest::generate(kind).unwrap();
            let der = CertificateSigningRequestDer::from_pem_slice(request.csr().as_bytes());
            let der = der.unwrap();
            let (_, csr) = X509CertificationRequest::from_der(&der).unwrap();
            let told = &csr.certification_request_info;
            assert_eq!(told.subject.iter().count(), 0);
            assert!(csr.requested_extensions().is_none());
            assert_eq!(
                told.subject_pki.parsed().unwrap().key_size(),
                bits,
                "{kind:?}"
            );
            let shown = format!("{request:?}");
            assert_eq!(shown, "CertificateRequest { .. }");
            let Secret::Certificate { key, .. } = request.into_secret("") else {
                panic!("a certificate");
            };
            assert!(pem::key(key.expose()).is_ok());
        }
    }
}
