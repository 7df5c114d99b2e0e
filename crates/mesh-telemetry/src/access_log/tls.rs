//! The operators about TLS with the caller.

use super::entry::{clean, list};
use mesh_core::exchange::{PeerCertificate, TlsInfo};

/// What is told of TLS (`%DOWNSTREAM_TLS_…%`, `%DOWNSTREAM_PEER_…%`, `%DOWNSTREAM_LOCAL_…%`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TlsField {
    Version,
    Cipher,
    PeerUriSan,
    PeerDnsSan,
    PeerSubject,
    PeerIssuer,
    PeerSerial,
    PeerFingerprint,
    LocalSan,
}

// === impl TlsField ===

impl TlsField {
    /// The field that an operator names.
    pub(super) fn of(name: &str) -> Option<Self> {
        Some(match name {
            "DOWNSTREAM_TLS_VERSION" => Self::Version,
            "DOWNSTREAM_TLS_CIPHER" => Self::Cipher,
            "DOWNSTREAM_PEER_URI_SAN" => Self::PeerUriSan,
            "DOWNSTREAM_PEER_DNS_SAN" => Self::PeerDnsSan,
            "DOWNSTREAM_PEER_SUBJECT" => Self::PeerSubject,
            "DOWNSTREAM_PEER_ISSUER" => Self::PeerIssuer,
            "DOWNSTREAM_PEER_SERIAL" => Self::PeerSerial,
            "DOWNSTREAM_PEER_FINGERPRINT_256" => Self::PeerFingerprint,
            "DOWNSTREAM_LOCAL_URI_SAN" => Self::LocalSan,
            _ => return None,
        })
    }

    /// Writes it; nothing where it is missing.
    pub(super) fn write(self, tls: &TlsInfo, out: &mut Vec<u8>) {
        let peer = |write: fn(&PeerCertificate, &mut Vec<u8>), out: &mut Vec<u8>| {
            if let Some(peer) = &tls.peer {
                write(peer, out);
            }
        };
        match self {
            Self::Version => {
                let version = tls.version.map_or("", |version| version.as_str());
                out.extend_from_slice(version.as_bytes());
            }
            Self::Cipher => out.extend_from_slice(tls.cipher.as_bytes()),
            Self::PeerUriSan => peer(|peer, out| list(&peer.uris, out), out),
            Self::PeerDnsSan => peer(|peer, out| list(&peer.dns_names, out), out),
            Self::PeerSubject => peer(|peer, out| clean(&peer.subject, b'_', out), out),
            Self::PeerIssuer => peer(|peer, out| clean(&peer.issuer, b'_', out), out),
            Self::PeerSerial => peer(|peer, out| clean(&peer.serial, b'_', out), out),
            Self::PeerFingerprint => peer(|peer, out| clean(&peer.fingerprint, b'_', out), out),
            // URIs come first; what has no scheme is a DNS name.
            Self::LocalSan => {
                let names = &tls.local_names;
                let uris = names.iter().take_while(|name| name.contains(':')).count();
                list(&names[..uris], out);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_core::model::TlsVersion;

    fn written(name: &str, tls: &TlsInfo) -> String {
        let mut out = Vec::new();
        TlsField::of(name).unwrap().write(tls, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_certificate_is_told_of_and_its_absence_is_nothing() {
        let mut tls = TlsInfo::default();
        tls.version = Some(TlsVersion::V1_3);
        tls.local_names = vec!["spiffe://td/ns/a/sa/b".into(), "a.test".into()];
        assert_eq!(written("DOWNSTREAM_TLS_VERSION", &tls), "TLSv1.3");
        assert_eq!(
            written("DOWNSTREAM_LOCAL_URI_SAN", &tls),
            "spiffe://td/ns/a/sa/b"
        );
        assert_eq!(written("DOWNSTREAM_PEER_SUBJECT", &tls), "");
        let mut peer = PeerCertificate::default();
        peer.uris = vec!["spiffe://x".into(), "spiffe://y".into()];
        peer.subject = "CN=a\nb".into();
        tls.peer = Some(peer);
        assert_eq!(
            written("DOWNSTREAM_PEER_URI_SAN", &tls),
            "spiffe://x,spiffe://y"
        );
        // A line of the log stays one line.
        assert_eq!(written("DOWNSTREAM_PEER_SUBJECT", &tls), "CN=a_b");
        assert_eq!(TlsField::of("DOWNSTREAM_PEER_CERT"), None);
    }
}
