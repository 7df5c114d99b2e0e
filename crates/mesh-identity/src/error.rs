//! Why a handshake failed, in Envoy's words.

use crate::verify::Refusal;
use mesh_core::stats::{ClusterStat, ListenerStat};
use rustls::{AlertDescription, CertificateError, Error, InvalidMessage, PeerIncompatible};
use std::{fmt, io};

/// A handshake that failed. `Display` is Envoy's transport failure reason, e.g.
/// `TLS_error:|268435696:SSL routines:OPENSSL_internal:UNSUPPORTED_PROTOCOL:TLS_error_end`; empty
/// where Envoy has none, because the peer just hung up.
#[derive(Debug)]
pub struct TlsError {
    kind: TlsFailure,
    stat: Option<Counted>,
    text: String,
    source: Option<io::Error>,
}

/// What kind of thing made a handshake fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TlsFailure {
    /// A certificate or root of our own is not there (yet, or any more).
    NoSecret,
    /// The peer showed no certificate, and has to.
    NoCertificate,
    /// The peer's certificate does not lead to a trusted root, is out of date, revoked, or not for
    /// this use.
    Untrusted,
    /// The peer's certificate has none of the names asked for.
    Name,
    /// The peer's certificate is none of those asked for by hash.
    Pin,
    /// The peer does not speak TLS, or none that we do; or it refused us.
    Protocol,
    /// The connection broke.
    Io,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Counted {
    NoSecret,
    Connection,
    NoCertificate,
    Verify,
    San,
    Hash,
}

// === impl TlsError ===

impl TlsError {
    /// What kind of thing went wrong.
    pub fn kind(&self) -> TlsFailure {
        self.kind
    }

    /// What Envoy counts for a connection from a caller. None: a connection that broke counts as
    /// nothing here.
    pub fn listener_stat(&self) -> Option<ListenerStat> {
        Some(match self.stat? {
            Counted::NoSecret => ListenerStat::SecretsNotReady,
            Counted::Connection => ListenerStat::SslConnectionError,
            Counted::NoCertificate => ListenerStat::SslFailVerifyNoCert,
            Counted::Verify => ListenerStat::SslFailVerifyError,
            Counted::San => ListenerStat::SslFailVerifySan,
            Counted::Hash => ListenerStat::SslFailVerifyCertHash,
        })
    }

    /// What Envoy counts for a connection to an endpoint.
    pub fn cluster_stat(&self) -> Option<ClusterStat> {
        Some(match self.stat? {
            Counted::NoSecret => ClusterStat::SecretsNotReady,
            Counted::Connection | Counted::NoCertificate => ClusterStat::SslConnectionError,
            Counted::Verify => ClusterStat::SslFailVerifyError,
            Counted::San => ClusterStat::SslFailVerifySan,
            Counted::Hash => ClusterStat::SslFailVerifyCertHash,
        })
    }

    /// What an error of a [`TlsStream`](crate::TlsStream) means. In TLS 1.3 a server refuses a
    /// client's certificate after the client's handshake is over, so that a client finds it out
    /// when it reads.
    pub fn from_io(error: io::Error) -> Self {
        if let Some(tls) = error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<Error>())
        {
            return Self {
                source: None,
                ..Self::from_tls(tls)
            }
            .with_source(error);
        }
        let text = match error.raw_os_error() {
            // BoringSSL's library 2 is the system; the reason is errno.
            Some(number) => {
                let text = error.to_string();
                let said = text.split(" (os error").next().unwrap_or_default();
                let code = (2_i64 << 24) + i64::from(number);
                format!("TLS_error:|{code}:system library:OPENSSL_internal:{said}:TLS_error_end")
            }
            None => String::new(),
        };
        Self::new(TlsFailure::Io, None, text).with_source(error)
    }

    pub(crate) fn no_secret() -> Self {
        let text = "TLS error: Secret is not supplied by SDS".to_owned();
        Self::new(TlsFailure::NoSecret, Some(Counted::NoSecret), text)
    }

    pub(crate) fn from_tls(error: &Error) -> Self {
        if let Error::InvalidCertificate(why) = error {
            return Self::from_certificate(why);
        }
        let connection = |text| Self::new(TlsFailure::Protocol, Some(Counted::Connection), text);
        match error {
            Error::NoCertificatesPresented => Self::new(
                TlsFailure::NoCertificate,
                Some(Counted::NoCertificate),
                boring(
                    192,
                    "PEER_DID_NOT_RETURN_A_CERTIFICATE:\
                     peer did not provide required client certificate",
                ),
            ),
            Error::InvalidCertRevocationList(_) => verify("CRL signature failure"),
            Error::AlertReceived(alert) => {
                let number = u8::from(*alert);
                connection(boring(1000 + u32::from(number), &alert_name(*alert)))
            }
            Error::InvalidMessage(
                InvalidMessage::InvalidContentType
                | InvalidMessage::UnknownProtocolVersion
                | InvalidMessage::MessageTooLarge
                | InvalidMessage::InvalidEmptyPayload,
            ) => connection(boring(247, "WRONG_VERSION_NUMBER")),
            Error::PeerIncompatible(why) => connection(match why {
                // A hello without the extension is one of TLS 1.1 or older.
                PeerIncompatible::SignatureAlgorithmsExtensionRequired
                | PeerIncompatible::ServerDoesNotSupportTls12Or13
                | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
                | PeerIncompatible::SupportedVersionsExtensionRequired
                | PeerIncompatible::Tls12NotOffered
                | PeerIncompatible::Tls12NotOfferedOrEnabled
                | PeerIncompatible::Tls13RequiredForQuic => boring(240, "UNSUPPORTED_PROTOCOL"),
                PeerIncompatible::NoCipherSuitesInCommon => boring(184, "NO_SHARED_CIPHER"),
                PeerIncompatible::NoSignatureSchemesInCommon => {
                    boring(253, "NO_COMMON_SIGNATURE_ALGORITHMS")
                }
                other => plain(&format!("{other:?}")),
            }),
            other => connection(plain(&other.to_string())),
        }
    }

    fn from_certificate(why: &CertificateError) -> Self {
        use CertificateError as E;
        let revocation = "certificate revocation check against provided CRLs failed: ";
        match why {
            E::Expired | E::ExpiredContext { .. } => verify("certificate has expired"),
            E::NotValidYet | E::NotValidYetContext { .. } => verify("certificate is not yet valid"),
            E::UnknownIssuer => verify("unable to get local issuer certificate"),
            E::Revoked => verify(&format!("{revocation}certificate revoked")),
            E::UnknownRevocationStatus => {
                verify(&format!("{revocation}unable to get certificate CRL"))
            }
            E::ExpiredRevocationList | E::ExpiredRevocationListContext { .. } => {
                verify(&format!("{revocation}CRL has expired"))
            }
            E::InvalidPurpose | E::InvalidPurposeContext { .. } => {
                verify("unsupported certificate purpose")
            }
            E::BadSignature => verify("certificate signature failure"),
            E::Other(other) => match other.0.downcast_ref::<Refusal>() {
                Some(Refusal::Name(names)) => {
                    let text = format!("SAN matcher, certificate SANs are [{}]", names.join(", "));
                    Self::refused(TlsFailure::Name, Counted::San, &text)
                }
                Some(Refusal::Host(host, names)) => {
                    let names = names.join(", ");
                    let text = format!(
                        "verify SAN list, expected SANs: [{host}], certificate SANs: [{names}]"
                    );
                    Self::refused(TlsFailure::Name, Counted::San, &text)
                }
                Some(Refusal::Pin) => {
                    Self::refused(TlsFailure::Pin, Counted::Hash, "cert hash and spki")
                }
                Some(Refusal::Chain(text)) => verify(text),
                None => verify(&other.to_string()),
            },
            other => verify(&other.to_string()),
        }
    }

    fn refused(kind: TlsFailure, stat: Counted, text: &str) -> Self {
        let text = boring(
            125,
            &format!("CERTIFICATE_VERIFY_FAILED:verify cert failed: {text}"),
        );
        Self::new(kind, Some(stat), text)
    }

    fn new(kind: TlsFailure, stat: Option<Counted>, text: String) -> Self {
        Self {
            kind,
            stat,
            text,
            source: None,
        }
    }

    fn with_source(mut self, source: io::Error) -> Self {
        self.source = Some(source);
        self
    }
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for TlsError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| source as _)
    }
}

fn verify(why: &str) -> TlsError {
    // Where in the chain is not told by the library that checks; it is the leaf nearly always.
    let text = format!("X509_verify_cert: certificate verification error at depth 0: {why}");
    TlsError::refused(TlsFailure::Untrusted, Counted::Verify, &text)
}

/// An error of BoringSSL's library 16, which is TLS.
fn boring(reason: u32, name: &str) -> String {
    let code = (16 << 24) + reason;
    format!("TLS_error:|{code}:SSL routines:OPENSSL_internal:{name}:TLS_error_end")
}

fn plain(why: &str) -> String {
    format!("TLS_error:|{why}:TLS_error_end")
}

// Alerts that SSL 3.0 had keep its name in OpenSSL.
fn alert_name(alert: AlertDescription) -> String {
    use AlertDescription as A;
    let known = match alert {
        A::CloseNotify => "SSLV3_ALERT_CLOSE_NOTIFY",
        A::UnexpectedMessage => "SSLV3_ALERT_UNEXPECTED_MESSAGE",
        A::BadRecordMac => "SSLV3_ALERT_BAD_RECORD_MAC",
        A::HandshakeFailure => "SSLV3_ALERT_HANDSHAKE_FAILURE",
        A::NoCertificate => "SSLV3_ALERT_NO_CERTIFICATE",
        A::BadCertificate => "SSLV3_ALERT_BAD_CERTIFICATE",
        A::UnsupportedCertificate => "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE",
        A::CertificateRevoked => "SSLV3_ALERT_CERTIFICATE_REVOKED",
        A::CertificateExpired => "SSLV3_ALERT_CERTIFICATE_EXPIRED",
        A::CertificateUnknown => "SSLV3_ALERT_CERTIFICATE_UNKNOWN",
        A::IllegalParameter => "SSLV3_ALERT_ILLEGAL_PARAMETER",
        A::UnknownCA => "TLSV1_ALERT_UNKNOWN_CA",
        A::AccessDenied => "TLSV1_ALERT_ACCESS_DENIED",
        A::DecodeError => "TLSV1_ALERT_DECODE_ERROR",
        A::DecryptError => "TLSV1_ALERT_DECRYPT_ERROR",
        A::ProtocolVersion => "TLSV1_ALERT_PROTOCOL_VERSION",
        A::InsufficientSecurity => "TLSV1_ALERT_INSUFFICIENT_SECURITY",
        A::InternalError => "TLSV1_ALERT_INTERNAL_ERROR",
        A::UnrecognisedName => "TLSV1_ALERT_UNRECOGNIZED_NAME",
        A::BadCertificateHashValue => "TLSV1_ALERT_BAD_CERTIFICATE_HASH_VALUE",
        A::CertificateRequired => "TLSV1_ALERT_CERTIFICATE_REQUIRED",
        A::NoApplicationProtocol => "TLSV1_ALERT_NO_APPLICATION_PROTOCOL",
        other => return format!("TLSV1_ALERT_{}", u8::from(other)),
    };
    known.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_texts_are_those_recorded_from_envoy() {
        for (error, text, kind) in [
            (
                Error::InvalidCertificate(CertificateError::Expired),
                "TLS_error:|268435581:SSL routines:OPENSSL_internal:CERTIFICATE_VERIFY_FAILED:\
                 verify cert failed: X509_verify_cert: certificate verification error at depth 0: \
                 certificate has expired:TLS_error_end",
                TlsFailure::Untrusted,
            ),
            (
                Error::NoCertificatesPresented,
                "TLS_error:|268435648:SSL routines:OPENSSL_internal:\
                 PEER_DID_NOT_RETURN_A_CERTIFICATE:peer did not provide required client \
                 certificate:TLS_error_end",
                TlsFailure::NoCertificate,
            ),
            (
                Error::AlertReceived(AlertDescription::HandshakeFailure),
                "TLS_error:|268436496:SSL routines:OPENSSL_internal:\
                 SSLV3_ALERT_HANDSHAKE_FAILURE:TLS_error_end",
                TlsFailure::Protocol,
            ),
            (
                Error::AlertReceived(AlertDescription::BadCertificateHashValue),
                "TLS_error:|268436570:SSL routines:OPENSSL_internal:\
                 TLSV1_ALERT_BAD_CERTIFICATE_HASH_VALUE:TLS_error_end",
                TlsFailure::Protocol,
            ),
            (
                Error::PeerIncompatible(PeerIncompatible::NoCipherSuitesInCommon),
                "TLS_error:|268435640:SSL routines:OPENSSL_internal:NO_SHARED_CIPHER:TLS_error_end",
                TlsFailure::Protocol,
            ),
            (
                Error::InvalidMessage(InvalidMessage::InvalidContentType),
                "TLS_error:|268435703:SSL routines:OPENSSL_internal:WRONG_VERSION_NUMBER:\
                 TLS_error_end",
                TlsFailure::Protocol,
            ),
        ] {
            let error = TlsError::from_io(io::Error::other(error));
            assert_eq!((error.to_string().as_str(), error.kind()), (text, kind));
            assert!(std::error::Error::source(&error).is_some());
        }
    }

    #[test]
    fn a_broken_connection_is_named_by_the_system_and_not_counted() {
        let error = TlsError::from_io(io::Error::from_raw_os_error(104));
        assert_eq!(
            error.to_string(),
            "TLS_error:|33554536:system library:OPENSSL_internal:Connection reset by peer:\
             TLS_error_end"
        );
        assert_eq!((error.listener_stat(), error.cluster_stat()), (None, None));
        let hung_up = TlsError::from_io(io::ErrorKind::UnexpectedEof.into());
        assert_eq!(
            (hung_up.to_string().as_str(), hung_up.kind()),
            ("", TlsFailure::Io)
        );
    }
}
