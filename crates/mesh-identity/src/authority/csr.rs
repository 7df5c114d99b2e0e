//! What is read of a request for a certificate: the key, and that whoever asks has it.
//!
//! Names, extensions and attributes are not looked at: who somebody is follows from how he was
//! authenticated, never from what he asks for.

use mesh_core::Invalid;
use rcgen::SubjectPublicKeyInfo;
use rustls_pki_types::CertificateSigningRequestDer;
use rustls_pki_types::pem::{PemObject, SectionKind};
use x509_parser::oid_registry::{OID_PKCS1_SHA1WITHRSA, OID_SHA1_WITH_RSA};
use x509_parser::prelude::{FromDer, X509CertificationRequest};
use x509_parser::public_key::PublicKey;

/// The longest request, in bytes of PEM. One for an RSA key of 4096 bits has 1,700.
pub const MAX_REQUEST_BYTES: usize = 16 << 10;

/// The smallest RSA key that a certificate is made for.
const MIN_RSA_BITS: usize = 2048;

/// The largest: each handshake pays for it.
const MAX_RSA_BITS: usize = 8192;

/// The key that a request is for.
pub(super) fn key_of(text: &[u8]) -> Result<SubjectPublicKeyInfo, Invalid> {
    let wrong = |message: &str| Invalid::new("csr", message);
    if text.len() > MAX_REQUEST_BYTES {
        return Err(wrong("longer than the 16 KiB allowed"));
    }
    let mut sections = <(SectionKind, Vec<u8>)>::pem_slice_iter(text);
    let der = match (sections.next(), sections.next()) {
        (Some(Ok((SectionKind::Csr, der))), None) => CertificateSigningRequestDer::from(der),
        _ => {
            return Err(wrong(
                "exactly one CERTIFICATE REQUEST in PEM form is expected",
            ));
        }
    };
    let Ok((rest, request)) = X509CertificationRequest::from_der(&der) else {
        return Err(wrong("not a PKCS #10 request"));
    };
    if !rest.is_empty() {
        return Err(wrong("not a PKCS #10 request: something follows it"));
    }
    let signed = &request.signature_algorithm.algorithm;
    if *signed == OID_PKCS1_SHA1WITHRSA || *signed == OID_SHA1_WITH_RSA {
        return Err(wrong("signed with SHA-1, which is not accepted"));
    }
    let key = &request.certification_request_info.subject_pki;
    match key.parsed() {
        Ok(PublicKey::RSA(rsa)) if (MIN_RSA_BITS..=MAX_RSA_BITS).contains(&rsa.key_size()) => {}
        Ok(PublicKey::RSA(_)) => return Err(wrong("an RSA key has to have 2048 to 8192 bits")),
        Ok(PublicKey::EC(_)) => {}
        _ => return Err(wrong("the key has to be RSA, P-256 or P-384")),
    }
    let known = SubjectPublicKeyInfo::from_der(key.raw).ok().filter(|key| {
        let known = [
            &rcgen::PKCS_RSA_SHA256,
            &rcgen::PKCS_ECDSA_P256_SHA256,
            &rcgen::PKCS_ECDSA_P384_SHA384,
        ];
        known.contains(&rcgen::PublicKeyData::algorithm(key))
    });
    let known = known.ok_or_else(|| wrong("the key has to be RSA, P-256 or P-384"))?;
    // Whoever asks has to have the private key, too.
    if request.verify_signature().is_err() {
        return Err(wrong("its signature is not that of its key"));
    }
    Ok(known)
}
