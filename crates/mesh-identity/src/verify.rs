//! Checking a peer's certificate: where it leads, its names, its hashes.
//!
//! In Envoy's order (`DefaultCertValidator`): the chain, then names, then hashes.

use crate::names::sha256;
use crate::san::{self, San};
use crate::secret::Trust;
use mesh_core::model::{StringMatch, Validation};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use webpki::{
    EndEntityCert, ExpirationPolicy, KeyUsage, RevocationCheckDepth, RevocationOptionsBuilder,
};
use x509_parser::prelude::{ASN1Time, FromDer, X509Certificate};

/// Stands for no name: it is never sent, and no certificate is for it.
pub(crate) const NAMELESS: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// Everything that is asked of a peer's certificate.
#[derive(Debug)]
pub(crate) struct Checker {
    algorithms: WebPkiSupportedAlgorithms,
    /// Roots, and all lists of revoked certificates.
    trust: Option<Arc<Trust>>,
    revoked: Option<Arc<Trust>>,
    names: Vec<StringMatch>,
    hashes: Vec<[u8; 32]>,
    spki: Vec<[u8; 32]>,
    accept_untrusted: bool,
    only_leaf: bool,
    /// The certificate must be for the name of the connection.
    for_name: bool,
    /// Callers without a certificate are refused.
    required: bool,
}

/// Why a certificate is refused, where the library has no word for it.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// None of its names, which these are, is asked for.
    Name(Vec<String>),
    /// It is not for the name of the connection, but for these.
    Host(String, Vec<String>),
    /// It is not pinned.
    Pin,
    /// Something about its chain.
    Chain(String),
}

/// What the peer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    Client,
    Server,
}

/// The most names that are shown of a certificate that has none of those asked for.
const MAX_SHOWN: usize = 16;

/// The most characters of each.
const MAX_NAME: usize = 256;

// === impl Checker ===

impl Checker {
    pub(crate) fn new(
        algorithms: WebPkiSupportedAlgorithms,
        validation: Option<&Validation>,
        trust: Option<Arc<Trust>>,
        revoked: Option<Arc<Trust>>,
    ) -> Self {
        let nothing = Validation::default();
        let given = validation.unwrap_or(&nothing);
        Self {
            algorithms,
            trust,
            revoked,
            names: given.subject_alt_names.clone(),
            hashes: given.hashes.clone(),
            spki: given.spki.clone(),
            accept_untrusted: given.accept_untrusted,
            only_leaf: given.only_leaf_revocation,
            for_name: false,
            required: false,
        }
    }

    pub(crate) fn for_name(mut self, yes: bool) -> Self {
        self.for_name = yes;
        self
    }

    pub(crate) fn required(mut self, yes: bool) -> Self {
        self.required = yes;
        self
    }

    /// Whether a certificate can count as validated at all.
    pub(crate) fn asks_something(&self) -> bool {
        self.trust.is_some() || !self.hashes.is_empty() || !self.spki.is_empty()
    }

    /// Whether callers are asked for a certificate.
    pub(crate) fn wants_certificate(&self) -> bool {
        self.asks_something() || self.accept_untrusted
    }

    /// Whether names or pins are asked for, so that nobody without a certificate can have them:
    /// Envoy refuses these whatever `require_client_certificate` says, unless it accepts anybody.
    pub(crate) fn asks_for_one(&self) -> bool {
        let asks = [
            self.names.is_empty(),
            self.hashes.is_empty(),
            self.spki.is_empty(),
        ];
        !self.accept_untrusted && self.wants_certificate() && asks.contains(&false)
    }

    /// Whether the check failed and did not matter.
    pub(crate) fn validates(
        &self,
        chain: &[CertificateDer<'_>],
        name: Option<&ServerName<'_>>,
        peer: Peer,
    ) -> bool {
        // What is not accepted has no connection to be told about.
        if !self.accept_untrusted {
            return self.asks_something();
        }
        let Some((leaf, others)) = chain.split_first() else {
            return false;
        };
        self.asks_something()
            && self
                .check(leaf, others, name, UnixTime::now(), peer)
                .is_ok()
    }

    fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: Option<&ServerName<'_>>,
        now: UnixTime,
        peer: Peer,
    ) -> Result<(), Error> {
        match self.check(leaf, others, name, now, peer) {
            Err(_) if self.accept_untrusted => Ok(()),
            result => result,
        }
    }

    fn check(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: Option<&ServerName<'_>>,
        now: UnixTime,
        peer: Peer,
    ) -> Result<(), Error> {
        if let Some(trust) = &self.trust {
            if trust.direct.contains(&sha256(leaf)) {
                check_direct(leaf, now, peer)?;
            } else {
                self.check_chain(trust, leaf, others, now, peer)?;
            }
        }
        if !self.for_name && self.names.is_empty() && self.hashes.is_empty() && self.spki.is_empty()
        {
            return Ok(());
        }
        let (_, parsed) = X509Certificate::from_der(leaf)
            .map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))?;
        let found = san::of(&parsed);
        let named = self.names.is_empty()
            || found
                .iter()
                .any(|name| self.names.iter().any(|want| name.matches(want)));
        let is_for = |host: &str| found.iter().any(|name| name.is_for(host));
        let addressed = !self.for_name
            || match name {
                Some(ServerName::IpAddress(ip)) => {
                    let ip = IpAddr::from(*ip);
                    ip != NAMELESS && is_for(&ip.to_string())
                }
                Some(ServerName::DnsName(name)) => is_for(name.as_ref()),
                _ => false,
            };
        let names = || found.iter().take(MAX_SHOWN).map(shown).collect();
        if !named {
            return Err(Refusal::Name(names()).into());
        }
        if !addressed {
            let named = name.filter(|name| **name != ServerName::from(NAMELESS));
            let host = named.map(ServerName::to_str).unwrap_or_default();
            return Err(Refusal::Host(host.into_owned(), names()).into());
        }
        if self.hashes.is_empty() && self.spki.is_empty() {
            return Ok(());
        }
        let pinned = self.hashes.contains(&sha256(leaf))
            || self.spki.contains(&sha256(parsed.public_key().raw));
        if pinned {
            Ok(())
        } else {
            Err(Refusal::Pin.into())
        }
    }

    /// Whether a certificate leads to one of the roots, whatever else is asked.
    #[cfg(feature = "authority")]
    pub(crate) fn leads_to_root(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
        peer: Peer,
    ) -> Result<(), Error> {
        match &self.trust {
            Some(trust) => self.check_chain(trust, leaf, others, now, peer),
            None => Err(Error::InvalidCertificate(CertificateError::UnknownIssuer)),
        }
    }

    fn check_chain(
        &self,
        trust: &Trust,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
        peer: Peer,
    ) -> Result<(), Error> {
        let leaf = EndEntityCert::try_from(leaf).map_err(explain)?;
        let more = self.revoked.iter().flat_map(|more| &more.revoked);
        let lists: Vec<_> = trust.revoked.iter().chain(more).collect();
        // As OpenSSL: once there are lists, each certificate needs one that is up to date.
        let revocation = match RevocationOptionsBuilder::new(&lists) {
            Err(_) => None,
            Ok(builder) => {
                let depth = match self.only_leaf {
                    true => RevocationCheckDepth::EndEntity,
                    false => RevocationCheckDepth::Chain,
                };
                let builder = builder.with_expiration_policy(ExpirationPolicy::Enforce);
                Some(builder.with_depth(depth).build())
            }
        };
        let usage = match peer {
            Peer::Client => KeyUsage::client_auth(),
            Peer::Server => KeyUsage::server_auth(),
        };
        let algorithms = self.algorithms.all;
        leaf.verify_for_usage(
            algorithms,
            &trust.anchors,
            others,
            now,
            usage,
            revocation,
            None,
        )
        .map(|_| ())
        .map_err(explain)
    }
}

// A certificate that stands among the roots itself: nobody else vouches for it, so that only its
// own word about time and use is left (OpenSSL's partial chains).
fn check_direct(leaf: &CertificateDer<'_>, now: UnixTime, peer: Peer) -> Result<(), Error> {
    let refuse = |why| Err(Error::InvalidCertificate(why));
    let Ok((_, parsed)) = X509Certificate::from_der(leaf) else {
        return refuse(CertificateError::BadEncoding);
    };
    let now = i64::try_from(now.as_secs())
        .ok()
        .and_then(|now| ASN1Time::from_timestamp(now).ok());
    let Some(now) = now else {
        return refuse(CertificateError::Expired);
    };
    if now < parsed.validity().not_before {
        return refuse(CertificateError::NotValidYet);
    }
    if now > parsed.validity().not_after {
        return refuse(CertificateError::Expired);
    }
    let usage = match parsed.extended_key_usage() {
        Err(_) => return refuse(CertificateError::BadEncoding),
        Ok(usage) => usage.map(|usage| usage.value),
    };
    let fits = usage.is_none_or(|usage| match peer {
        Peer::Client => usage.any || usage.client_auth,
        Peer::Server => usage.any || usage.server_auth,
    });
    if fits {
        Ok(())
    } else {
        refuse(CertificateError::InvalidPurpose)
    }
}

// A stranger's words, which end up in logs.
fn shown(name: &San) -> String {
    let text = name.to_string();
    let clean = |char: char| if char.is_control() { '?' } else { char };
    text.chars().take(MAX_NAME).map(clean).collect()
}

fn explain(error: webpki::Error) -> Error {
    use webpki::Error as E;
    Error::InvalidCertificate(match error {
        E::CertExpired { .. } | E::InvalidCertValidity => CertificateError::Expired,
        E::CertNotValidYet { .. } => CertificateError::NotValidYet,
        E::UnknownIssuer => CertificateError::UnknownIssuer,
        E::CertRevoked => CertificateError::Revoked,
        E::UnknownRevocationStatus => CertificateError::UnknownRevocationStatus,
        E::CrlExpired { .. } => CertificateError::ExpiredRevocationList,
        E::RequiredEkuNotFoundContext(_) => CertificateError::InvalidPurpose,
        E::BadDer | E::BadDerTime | E::TrailingData(_) => CertificateError::BadEncoding,
        E::InvalidSignatureForPublicKey => CertificateError::BadSignature,
        E::EndEntityUsedAsCa => return Refusal::Chain("invalid CA certificate".into()).into(),
        other => return Refusal::Chain(other.to_string()).into(),
    })
}

impl ServerCertVerifier for Checker {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verify(leaf, others, Some(name), now, Peer::Server)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for Checker {
    fn client_auth_mandatory(&self) -> bool {
        self.required
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.trust.as_ref().map_or(&[], |trust| &trust.hints)
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.verify(leaf, others, None, now, Peer::Client)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

// === impl Refusal ===

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Self::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(refusal))))
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(names) => write!(f, "not for a name asked for, but {}", names.join(", ")),
            Self::Host(host, names) => write!(f, "not for {host}, but {}", names.join(", ")),
            Self::Pin => f.write_str("not one of the certificates and keys asked for"),
            Self::Chain(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for Refusal {}
