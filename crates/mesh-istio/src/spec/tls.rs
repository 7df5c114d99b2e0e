//! What the TLS settings of servers and of clients have in common.

use mesh_core::model::TlsVersion;

use super::Spanned;
use crate::cursor::{Cursor, Fields, read};

/// A certificate with its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credential {
    /// In a Kubernetes Secret of this name.
    Named(Spanned<String>),
    /// In two PEM files.
    Files {
        /// The certificate chain.
        certificate: String,
        /// The key.
        key: String,
    },
}

/// What certificates of others are checked against.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Roots {
    /// In a Kubernetes Secret of this name, or of it with `-cacert` behind.
    Named(Spanned<String>),
    /// In a PEM file, with lists of revoked certificates in another.
    Files {
        /// Root certificates.
        roots: String,
        /// Revoked certificates; `None` is no list.
        revoked: Option<String>,
    },
}

/// Cipher suites of TLS 1.2 that can be chosen, by OpenSSL's names: those with forward secrecy
/// and authenticated encryption.
const CIPHERS: [&str; 6] = [
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-RSA-CHACHA20-POLY1305",
];

/// `minProtocolVersion` or `maxProtocolVersion`; `TLS_AUTO` says nothing.
pub(super) fn version(cursor: &Cursor<'_>) -> Option<TlsVersion> {
    let name = cursor.string()?;
    match name.as_str() {
        "TLS_AUTO" => None,
        "TLSV1_2" => Some(TlsVersion::V1_2),
        "TLSV1_3" => Some(TlsVersion::V1_3),
        "TLSV1_0" | "TLSV1_1" => {
            cursor.error(format!(
                "not supported: {name} is broken and not spoken; TLSV1_2 and TLSV1_3 are"
            ));
            None
        }
        _ => {
            cursor.error(format!(
                "{name:?} is not one of TLS_AUTO, TLSV1_2 and TLSV1_3"
            ));
            None
        }
    }
}

/// `cipherSuites`, each once.
pub(super) fn ciphers(cursor: &Cursor<'_>) -> Option<Vec<String>> {
    let mut found: Vec<String> = Vec::new();
    cursor.list(|item| {
        let name = item.filled()?;
        if name.starts_with("TLS_") {
            item.warn("has no effect: the suites of TLS 1.3 cannot be chosen");
        } else if !CIPHERS.contains(&name.as_str()) {
            item.error(format!(
                "not supported: cipher suite {name:?}; {} are",
                CIPHERS.join(", ")
            ));
        } else if found.contains(&name) {
            item.warn("given twice");
        } else {
            found.push(name);
        }
        Some(())
    })?;
    Some(found)
}

/// SHA-256 in base64, as `verifyCertificateSpki` has it.
pub(super) fn spki(cursor: &Cursor<'_>) -> Option<[u8; 32]> {
    digest(cursor, cursor.bytes()?)
}

/// SHA-256 in hexadecimal digits, with or without colons, as `verifyCertificateHash` has it.
pub(super) fn hash(cursor: &Cursor<'_>) -> Option<[u8; 32]> {
    let text = cursor.string()?;
    let digits: Vec<u32> = text
        .chars()
        .filter(|c| *c != ':')
        .map_while(|c| c.to_digit(16))
        .collect();
    let clean = digits.len() == text.chars().filter(|c| *c != ':').count();
    let bytes = digits
        .chunks_exact(2)
        .map(|pair| u8::try_from(pair[0] * 16 + pair[1]).unwrap_or_default())
        .collect();
    if !clean || !digits.len().is_multiple_of(2) {
        cursor.error("not hexadecimal digits, with or without colons");
        return None;
    }
    digest(cursor, bytes)
}

fn digest(cursor: &Cursor<'_>, bytes: Vec<u8>) -> Option<[u8; 32]> {
    let length = bytes.len();
    let digest = bytes.try_into().ok();
    if digest.is_none() {
        cursor.error(format!("expected the 32 bytes of SHA-256, found {length}"));
    }
    digest
}

/// The name of a Secret.
pub(super) fn credential_name(cursor: &Cursor<'_>) -> Option<Spanned<String>> {
    let name = cursor.spanned(read::filled)?;
    if let Some((scheme, _)) = name.split_once("://")
        && scheme != "kubernetes"
    {
        cursor.error(format!(
            "not supported: credentials of {scheme}; those in Kubernetes Secrets are"
        ));
        return None;
    }
    let plain = name.strip_prefix("kubernetes://").unwrap_or(&name);
    if plain.contains('/') {
        cursor.error("not supported: credentials of other namespaces");
        return None;
    }
    if plain.contains(|c: char| c.is_whitespace() || c == ':') || plain.is_empty() {
        cursor.error(format!("{:?} is not the name of a Secret", name.value));
        return None;
    }
    Some(Spanned {
        value: plain.to_owned(),
        at: name.at,
    })
}

/// Refuses the fields that make no sense beside what was said.
pub(super) fn exclude(cursor: &Cursor<'_>, fields: &Fields<'_>, names: &[&str], beside: &str) {
    for name in names {
        if fields.has(name) {
            cursor.error(format!("{name} and {beside} exclude one another"));
        }
    }
}

/// A path of a file in the file system of the proxy.
pub(super) fn path(cursor: &Cursor<'_>) -> Option<String> {
    let path = cursor.filled()?;
    // It separates the two files of a certificate in the name of their secret.
    if path.contains('~') {
        cursor.error("not supported: \"~\" in the path of a certificate or key");
        return None;
    }
    Some(path)
}
