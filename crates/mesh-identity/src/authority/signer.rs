//! A certificate that vouches for others, with its key.

use super::lists::List;
use super::time;
use crate::pem;
use crate::request::KeyKind;
use mesh_core::Invalid;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyIdMethod,
    KeyPair, KeyUsagePurpose, PublicKeyData, SerialNumber, SubjectPublicKeyInfo,
};
use rustls_pki_types::CertificateDer;
use std::fmt;
use std::time::{Duration, SystemTime};
use x509_parser::prelude::{FromDer, X509Certificate};
use zeroize::{Zeroize, Zeroizing};

/// A certificate of an authority and its key.
pub(super) struct Signer {
    /// Its certificate.
    pub(super) certificate: CertificateDer<'static>,
    /// What lies between it and a root.
    pub(super) above: Vec<CertificateDer<'static>>,
    issuer: Issuer<'static, KeyPair>,
    /// How its key is called in what it signs.
    key_id: KeyIdMethod,
    /// Since when it and all above are valid, in seconds since 1970.
    pub(super) not_before: i64,
    /// Until when.
    pub(super) not_after: i64,
    /// Whether it may sign lists of revoked certificates.
    pub(super) signs_lists: bool,
}

// === impl Signer ===

impl Signer {
    /// A root that vouches for itself. Returns its key as PEM, too.
    pub(super) fn root(
        organization: &str,
        kind: KeyKind,
        lifetime: Duration,
        now: SystemTime,
    ) -> Result<(Self, Zeroizing<Vec<u8>>), Invalid> {
        let (key, pem) = kind.generate()?;
        let (from, until) = (time::seconds(now), time::seconds(now + lifetime));
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::OrganizationName, organization);
        params.serial_number = Some(serial()?);
        // Two roots after each other have the same name: their keys tell them apart.
        params.use_authority_key_identifier_extension = true;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.not_before = time::asn1(from)?.to_datetime();
        params.not_after = time::asn1(until)?.to_datetime();
        let certificate = params.self_signed(&key).map_err(failed)?;
        let signer = Self::new(certificate.der().clone(), Vec::new(), key)?;
        Ok((signer, pem))
    }

    /// What stands in files.
    pub(super) fn read(
        certificate: &[u8],
        above: Vec<CertificateDer<'static>>,
        key: &[u8],
    ) -> Result<Self, Invalid> {
        let within = |error: Invalid| error.within("ca-cert.pem");
        let certificate = pem::chain(certificate).map_err(within)?.swap_remove(0);
        let der = pem::key(key).map_err(|error| error.within("ca-key.pem"))?;
        let mut key = KeyPair::try_from(&*der).map_err(|_| {
            Invalid::new(
                "ca-key.pem",
                "not a key that can be used: RSA, P-256 or P-384",
            )
        })?;
        key.zeroize();
        Self::new(certificate, above, key)
    }

    fn new(
        certificate: CertificateDer<'static>,
        above: Vec<CertificateDer<'static>>,
        key: KeyPair,
    ) -> Result<Self, Invalid> {
        let wrong = |message: &str| Invalid::new("ca-cert.pem", message);
        let (_, parsed) = X509Certificate::from_der(&certificate)
            .map_err(|_| wrong("not an X.509 certificate"))?;
        if !matches!(parsed.basic_constraints(), Ok(Some(found)) if found.value.ca) {
            return Err(wrong(
                "the certificate may not vouch for others (CA:TRUE is missing)",
            ));
        }
        let usage = parsed.key_usage();
        let usage = usage.map_err(|_| wrong("its key usage cannot be read"))?;
        if usage
            .as_ref()
            .is_some_and(|usage| !usage.value.key_cert_sign())
        {
            return Err(wrong("its key usage does not let it sign certificates"));
        }
        let signs_lists = usage.is_none_or(|usage| usage.value.crl_sign());
        if key.der_bytes() != &*parsed.public_key().subject_public_key.data {
            let message = "is not the key of ca-cert.pem";
            return Err(Invalid::new("ca-key.pem", message));
        }
        let own = parsed
            .iter_extensions()
            .find_map(|found| match found.parsed_extension() {
                x509_parser::extensions::ParsedExtension::SubjectKeyIdentifier(id) => {
                    Some(id.0.to_vec())
                }
                _ => None,
            });
        let mut signer = Self {
            not_before: parsed.validity().not_before.timestamp(),
            not_after: parsed.validity().not_after.timestamp(),
            key_id: own.map_or(KeyIdMethod::Sha256, KeyIdMethod::PreSpecified),
            issuer: Issuer::from_ca_cert_der(&certificate, key)
                .map_err(|error| wrong(&format!("cannot be read: {error}")))?,
            signs_lists,
            above,
            certificate: certificate.clone(),
        };
        for (at, der) in signer.above.iter().enumerate() {
            let Ok((_, above)) = X509Certificate::from_der(der) else {
                let field = format!("cert-chain.pem[{at}]");
                return Err(Invalid::new(field, "not an X.509 certificate"));
            };
            signer.not_before = signer
                .not_before
                .max(above.validity().not_before.timestamp());
            signer.not_after = signer.not_after.min(above.validity().not_after.timestamp());
        }
        // The library writes names anew, and certificates are found by the bytes of names.
        let probe = signer.certify(&signer.public()?, |_| {})?;
        let same = X509Certificate::from_der(&probe)
            .is_ok_and(|(_, probe)| probe.issuer().as_raw() == parsed.subject().as_raw());
        if !same {
            return Err(wrong(
                "its subject is written in a way that cannot be repeated",
            ));
        }
        Ok(signer)
    }

    /// A certificate for a key.
    pub(super) fn certify(
        &self,
        key: &SubjectPublicKeyInfo,
        fill: impl FnOnce(&mut CertificateParams),
    ) -> Result<CertificateDer<'static>, Invalid> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.use_authority_key_identifier_extension = true;
        params.is_ca = IsCa::ExplicitNoCa;
        params.serial_number = Some(serial()?);
        fill(&mut params);
        let made = params.signed_by(key, &self.issuer).map_err(failed)?;
        Ok(made.der().clone())
    }

    /// The list of what it has revoked, as PEM.
    pub(super) fn list(&self, list: &List<'_>) -> Result<Vec<u8>, Invalid> {
        let made = list
            .params(self.key_id.clone())?
            .signed_by(&self.issuer)
            .map_err(failed)?;
        let mut out = Vec::new();
        pem::section(&mut out, "X509 CRL", made.der());
        Ok(out)
    }

    /// The public half of its key.
    pub(super) fn public(&self) -> Result<SubjectPublicKeyInfo, Invalid> {
        let key = self.issuer.key().subject_public_key_info();
        SubjectPublicKeyInfo::from_der(&key).map_err(failed)
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer")
            .field("not_before", &self.not_before)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

/// A serial number: 127 random bits (RFC 5280 §4.1.2.2 has room for 159).
pub(super) fn serial() -> Result<SerialNumber, Invalid> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes)
        .map_err(|_| Invalid::new("", "the source of random numbers failed"))?;
    // Neither negative nor shorter than the others.
    bytes[0] = bytes[0] & 0x7f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

pub(super) fn failed(error: rcgen::Error) -> Invalid {
    Invalid::new("", format!("cannot be signed: {error}"))
}
