//! What a certificate says about itself, as text.

use crate::san::{self, San};
use aws_lc_rs::digest;
use mesh_core::Name;
use mesh_core::exchange::PeerCertificate;
use std::fmt::Write;
use std::sync::Arc;
use x509_parser::asn1_rs::ToDer;
use x509_parser::prelude::{FromDer, X509Certificate, X509Name};

/// What is told about a peer's certificate. One that cannot be read, which is possible only where
/// nothing is checked, has its fingerprint and no names.
pub(crate) fn peer(der: &[u8], validated: bool) -> PeerCertificate {
    let mut peer = PeerCertificate::default();
    peer.validated = validated;
    peer.fingerprint = hex(&sha256(der)).into();
    peer.der = Arc::from(der);
    if let Ok((_, certificate)) = X509Certificate::from_der(der) {
        for name in san::of(&certificate) {
            match name {
                San::Uri(uri) => peer.uris.push(uri.into()),
                San::Dns(name) => peer.dns_names.push(name.into()),
                San::Ip(_) | San::Mail(_) => {}
            }
        }
        peer.subject = distinguished(certificate.subject()).into();
        peer.issuer = distinguished(certificate.issuer()).into();
        let serial = certificate.raw_serial();
        let zeros = serial.iter().take_while(|byte| **byte == 0).count();
        peer.serial = hex(&serial[zeros..]).into();
    }
    peer
}

/// URIs, then DNS names.
pub(crate) fn local(names: &[San]) -> Vec<Name> {
    let uris = names.iter().filter(|name| matches!(name, San::Uri(_)));
    let dns = names.iter().filter(|name| matches!(name, San::Dns(_)));
    uris.chain(dns)
        .map(|name| name.to_string().into())
        .collect()
}

pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    out
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

/// A distinguished name as RFC 2253 writes it: the last part first.
fn distinguished(name: &X509Name<'_>) -> String {
    let parts: Vec<_> = name.iter_rdn().collect();
    let parts = parts.iter().rev().map(|part| {
        let pairs = part.iter().map(|pair| {
            let oid = pair.attr_type().to_id_string();
            let kind = ATTRIBUTES.iter().find(|(known, _)| *known == oid);
            let kind = kind.map_or(oid.as_str(), |(_, short)| short);
            let value = match pair.as_str() {
                Ok(text) => escaped(text),
                Err(_) => {
                    let der = pair.attr_value().to_der_vec().unwrap_or_default();
                    format!("#{}", hex(&der).to_uppercase())
                }
            };
            format!("{kind}={value}")
        });
        pairs.collect::<Vec<_>>().join("+")
    });
    parts.collect::<Vec<_>>().join(",")
}

// As OpenSSL does with XN_FLAG_RFC2253: what is not ASCII or a control character by its bytes.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let last = text.len().saturating_sub(1);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b',' | b'+' | b'"' | b'\\' | b'<' | b'>' | b';' => {
                out.push('\\');
                out.push(byte.into());
            }
            b'#' if at == 0 => out.push_str("\\#"),
            b' ' if at == 0 || at == last => out.push_str("\\ "),
            0x20..=0x7e => out.push(byte.into()),
            _ => {
                let _ = write!(out, "\\{byte:02X}");
            }
        }
    }
    out
}

static ATTRIBUTES: [(&str, &str); 16] = [
    ("2.5.4.3", "CN"),
    ("2.5.4.4", "SN"),
    ("2.5.4.5", "serialNumber"),
    ("2.5.4.6", "C"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.9", "street"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("2.5.4.12", "title"),
    ("2.5.4.17", "postalCode"),
    ("2.5.4.42", "GN"),
    ("2.5.4.46", "dnQualifier"),
    ("0.9.2342.19200300.100.1.1", "UID"),
    ("0.9.2342.19200300.100.1.25", "DC"),
    ("1.2.840.113549.1.9.1", "emailAddress"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rcgen::{CertificateParams, DnType, KeyPair, SanType, SerialNumber};

    #[test]
    fn a_peer_is_told_as_openssl_tells_it() {
        let mut params = CertificateParams::new(["a.test".to_owned()]).unwrap();
        let uri = "spiffe://td/ns/a/sa/b".try_into().unwrap();
        params.subject_alt_names.push(SanType::URI(uri));
        params.distinguished_name = rcgen::DistinguishedName::new();
        let name = &mut params.distinguished_name;
        name.push(DnType::OrganizationName, "Acme, Inc");
        name.push(DnType::CommonName, "é#");
        params.serial_number = Some(SerialNumber::from(vec![0, 0x0a, 0xff]));
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let told = peer(certificate.der(), true);
        assert_eq!(told.subject, "CN=\\C3\\A9#,O=Acme\\, Inc");
        assert_eq!(told.issuer, told.subject);
        assert_eq!(told.serial, "0aff");
        assert_eq!(told.uris, ["spiffe://td/ns/a/sa/b"]);
        assert_eq!(told.dns_names, ["a.test"]);
        assert_eq!(told.fingerprint.len(), 64);
        assert!(told.validated && *told.der == **certificate.der());
    }

    proptest! {
        #[test]
        fn any_bytes_are_told_without_a_panic(der in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(!peer(&der, false).validated);
        }
    }
}
