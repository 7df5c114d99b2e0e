//! Reading PEM files, with a bound on everything.
//!
//! Certificates are X.509, keys PKCS#8, PKCS#1 (RSA) or SEC 1 (EC), lists of revoked certificates
//! X.509 version 2 (RFC 7468 §5, §10, §13, §6). Encrypted keys are refused by name. What else
//! stands in a file is passed over, as OpenSSL does. Errors never show what was read.

use mesh_core::Invalid;
use rustls_pki_types::pem::{self, PemObject, SectionKind};
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use zeroize::{Zeroize, Zeroizing};

/// The largest chain of certificates or private key that is read, in bytes of PEM.
pub const MAX_CERTIFICATE_BYTES: usize = 1 << 20;

/// The largest bundle of roots or lists of revoked certificates that is read, in bytes of PEM.
pub const MAX_TRUST_BYTES: usize = 16 << 20;

/// The longest chain of certificates.
pub const MAX_CHAIN: usize = 32;

/// The most root certificates in one bundle.
pub const MAX_ROOTS: usize = 4096;

/// The most lists of revoked certificates in one bundle.
pub const MAX_REVOKED: usize = 1024;

/// The certificates of a chain, leaf first.
pub(crate) fn chain(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, Invalid> {
    certificates(text, MAX_CERTIFICATE_BYTES, MAX_CHAIN)
}

/// The certificates of a bundle of roots.
pub(crate) fn roots(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, Invalid> {
    certificates(text, MAX_TRUST_BYTES, MAX_ROOTS)
}

/// The lists of revoked certificates.
pub(crate) fn revoked(text: &[u8]) -> Result<Vec<CertificateRevocationListDer<'static>>, Invalid> {
    let mut found = Vec::new();
    for section in sections(text, MAX_TRUST_BYTES)? {
        if let (SectionKind::Crl, der) = section? {
            full(found.len(), MAX_REVOKED, "lists of revoked certificates")?;
            found.push(der.into());
        }
    }
    if found.is_empty() {
        return Err(Invalid::new("", "no X509 CRL in PEM form found"));
    }
    Ok(found)
}

/// The first private key, wiped when it is dropped.
pub(crate) fn key(text: &[u8]) -> Result<Zeroizing<PrivateKeyDer<'static>>, Invalid> {
    for section in sections(text, MAX_CERTIFICATE_BYTES)? {
        let (kind, der) = section?;
        let key = match kind {
            SectionKind::PrivateKey => PrivateKeyDer::Pkcs8(der.into()),
            SectionKind::RsaPrivateKey => PrivateKeyDer::Pkcs1(der.into()),
            SectionKind::EcPrivateKey => PrivateKeyDer::Sec1(der.into()),
            _ => continue,
        };
        return Ok(Zeroizing::new(key));
    }
    let encrypted = b"-----BEGIN ENCRYPTED PRIVATE KEY-----";
    if text.windows(encrypted.len()).any(|part| part == encrypted) {
        return Err(Invalid::new(
            "",
            "the private key is encrypted, which is not supported: decrypt it with `openssl pkey`",
        ));
    }
    Err(Invalid::new(
        "",
        "no private key in PEM form found (PRIVATE KEY, RSA PRIVATE KEY or EC PRIVATE KEY)",
    ))
}

/// Writes certificates, given as DER, as PEM.
pub fn to_pem(certificates: impl IntoIterator<Item = impl AsRef<[u8]>>) -> Vec<u8> {
    let mut out = Vec::new();
    for certificate in certificates {
        section(&mut out, "CERTIFICATE", certificate.as_ref());
    }
    out
}

/// Writes one section as PEM. Nothing is left of it elsewhere if `out` has room for it.
pub(crate) fn section(out: &mut Vec<u8>, label: &str, der: &[u8]) {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    out.extend_from_slice(b"-----BEGIN ");
    out.extend_from_slice(label.as_bytes());
    out.extend_from_slice(b"-----\n");
    // 48 bytes are one line of 64 digits.
    for line in der.chunks(48) {
        for group in line.chunks(3) {
            let mut word = [0; 3];
            word[..group.len()].copy_from_slice(group);
            let word = u32::from_be_bytes([0, word[0], word[1], word[2]]);
            for at in 0..4 {
                let digit = DIGITS[(word >> (18 - 6 * at)) as usize & 63];
                out.push(if at > group.len() { b'=' } else { digit });
            }
        }
        out.push(b'\n');
    }
    out.extend_from_slice(b"-----END ");
    out.extend_from_slice(label.as_bytes());
    out.extend_from_slice(b"-----\n");
}

pub(crate) fn certificates(
    text: &[u8],
    bytes: usize,
    most: usize,
) -> Result<Vec<CertificateDer<'static>>, Invalid> {
    let mut found = Vec::new();
    for section in sections(text, bytes)? {
        match section? {
            (SectionKind::Certificate, der) => {
                full(found.len(), most, "certificates")?;
                found.push(der.into());
            }
            // A key may stand in the same file.
            (_, mut der) => der.zeroize(),
        }
    }
    if found.is_empty() {
        return Err(Invalid::new("", "no CERTIFICATE in PEM form found"));
    }
    Ok(found)
}

type Section = (SectionKind, Vec<u8>);

fn sections(
    text: &[u8],
    most: usize,
) -> Result<impl Iterator<Item = Result<Section, Invalid>> + '_, Invalid> {
    if text.len() > most {
        let message = format!("{} bytes are more than the {most} allowed", text.len());
        return Err(Invalid::new("", message));
    }
    let sections = Section::pem_slice_iter(text);
    Ok(sections.map(|section| section.map_err(|error| Invalid::new("", explain(&error)))))
}

// The library's own messages quote lines of the file, which may be those of a key.
fn explain(error: &pem::Error) -> &'static str {
    match error {
        pem::Error::MissingSectionEnd { .. } => "not valid PEM: a section has no END line",
        pem::Error::IllegalSectionStart { .. } => "not valid PEM: a BEGIN line is malformed",
        pem::Error::Base64Decode(_) => "not valid PEM: a section is not base64",
        _ => "not valid PEM",
    }
}

fn full(found: usize, most: usize, what: &str) -> Result<(), Invalid> {
    if found < most {
        return Ok(());
    }
    Err(Invalid::new(
        "",
        format!("more than the {most} {what} allowed"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_error_never_shows_what_was_read() {
        for text in [
            "-----BEGIN PRIVATE KEY-----\nhush!hush\n-----END PRIVATE KEY-----\n",
            "-----BEGIN PRIVATE KEY-----\naHVzaA==\nhush",
            "-----BEGIN hush\n",
        ] {
            let error = key(text.as_bytes()).unwrap_err().to_string();
            assert!(
                !error.contains("hush") && !error.contains("aHVz"),
                "{error}"
            );
        }
    }

    #[test]
    fn an_encrypted_key_is_refused_by_name() {
        let text =
            b"-----BEGIN ENCRYPTED PRIVATE KEY-----\naGk=\n-----END ENCRYPTED PRIVATE KEY-----\n";
        assert!(key(text).unwrap_err().message().contains("encrypted"));
    }

    #[test]
    fn what_is_too_long_is_refused() {
        let one = to_pem(&[CertificateDer::from(vec![1; 10])]);
        assert_eq!(chain(&one.repeat(MAX_CHAIN)).unwrap().len(), MAX_CHAIN);
        assert!(chain(&one.repeat(MAX_CHAIN + 1)).is_err());
        assert!(chain(&vec![b'\n'; MAX_CERTIFICATE_BYTES + 1]).is_err());
    }

    proptest! {
        #[test]
        fn certificates_survive_being_written(
            ders in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..200), 1..5),
        ) {
            let ders: Vec<_> = ders.into_iter().map(CertificateDer::from).collect();
            prop_assert_eq!(chain(&to_pem(&ders)).unwrap(), ders);
        }

        #[test]
        fn reading_never_panics_and_is_bounded(
            kind in "CERTIFICATE|PRIVATE KEY|EC PRIVATE KEY|X509 CRL|[A-Z ]{0,9}",
            body in "([A-Za-z0-9+/=]{0,80}\n){0,5}",
            noise in prop::collection::vec(any::<u8>(), 0..200),
            times in 0usize..60,
        ) {
            let section = format!("-----BEGIN {kind}-----\n{body}-----END {kind}-----\n");
            let mut text = section.repeat(times).into_bytes();
            text.extend(noise);
            if let Ok(found) = chain(&text) {
                prop_assert!(found.len() <= MAX_CHAIN);
            }
            let _ = (roots(&text), revoked(&text), key(&text));
        }
    }
}
