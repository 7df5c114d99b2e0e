//! Transport security: what is asked of the other side and what it is shown.
//!
//! Keys and certificates are not in here but named by a [`SecretRef`]: they change on their own,
//! as a [`Secret`](super::Secret) in a [`LiveSecret`](super::LiveSecret).

use super::{StreamOpening, StringMatch};
use crate::{Name, Origin};
use std::time::Duration;

/// How connections from callers are secured (Envoy `DownstreamTlsContext`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerTls {
    /// Where this was configured.
    pub origin: Origin,
    /// Versions, ciphers and groups.
    pub params: TlsParams,
    /// Protocols that may be agreed on inside, the preferred first, e.g. `h2`, `http/1.1`.
    pub alpn: Vec<Name>,
    /// The certificates to choose from: one for each kind of key, or for each name.
    pub certificates: Vec<SecretRef>,
    /// How a caller's certificate is checked. None: callers are not asked for one.
    pub validation: Option<Validation>,
    /// Callers without a certificate are refused.
    pub require_client_certificate: bool,
}

/// How connections to endpoints are secured (Envoy `UpstreamTlsContext`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClientTls {
    /// Where this was configured.
    pub origin: Origin,
    /// Versions, ciphers and groups.
    pub params: TlsParams,
    /// Protocols to offer. Where the cluster's protocol is settled by it, `h2` and `http/1.1`.
    pub alpn: Vec<Name>,
    /// The certificate to show, if asked for one. At most one is used.
    pub certificates: Vec<SecretRef>,
    /// How the endpoint's certificate is checked. None: anything is accepted (Envoy's default,
    /// Istio's `insecureSkipVerify`).
    pub validation: Option<Validation>,
    /// The server name to ask for; empty is none.
    pub sni: Name,
    /// Without a name, ask for the request's host (Envoy `auto_sni`).
    pub auto_sni: bool,
    /// The endpoint's certificate must be for the name asked for (Envoy
    /// `auto_san_validation`), besides what `validation` asks.
    pub auto_san: bool,
}

/// Versions, ciphers and groups (Envoy `TlsParameters`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct TlsParams {
    /// The lowest version. None is TLS 1.2.
    pub min: Option<TlsVersion>,
    /// The highest version. None is TLS 1.3.
    pub max: Option<TlsVersion>,
    /// Cipher suites of TLS 1.2 by OpenSSL's names; empty is all that are safe. Those of TLS 1.3
    /// cannot be chosen, as in Envoy.
    pub ciphers: Vec<Name>,
    /// Groups for the key exchange by OpenSSL's names, e.g. `X25519`; empty is the default, with
    /// X25519MLKEM768 first.
    pub groups: Vec<Name>,
}

/// A version of TLS. Older ones are not spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TlsVersion {
    /// TLS 1.2, RFC 5246.
    V1_2,
    /// TLS 1.3, RFC 8446.
    V1_3,
}

/// How a certificate is checked (Envoy `CertificateValidationContext`). Everything that is given
/// must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Validation {
    /// Roots that it must lead to, with lists of revoked certificates. Without, the chain is not
    /// checked, only what follows.
    pub roots: Option<SecretRef>,
    /// More lists of revoked certificates.
    pub revoked: Option<SecretRef>,
    /// One of the certificate's subject alternative names (DNS, URI, IP or mail) must match one of
    /// these; empty is any.
    pub subject_alt_names: Vec<StringMatch>,
    /// SHA-256 of the DER form of the certificate must be one of these, or its key one of `spki`;
    /// empty is any.
    pub hashes: Vec<[u8; 32]>,
    /// SHA-256 of the DER form of the certificate's public key.
    pub spki: Vec<[u8; 32]>,
    /// A certificate that fails the check is accepted but does not count as validated (Envoy
    /// `ACCEPT_UNTRUSTED`).
    pub accept_untrusted: bool,
    /// Lists of revoked certificates are asked about the leaf only.
    pub only_leaf_revocation: bool,
}

/// Names a secret and says who provides it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SecretRef {
    /// Its name. See [`SecretName`](super::SecretName) for names that say where it lies.
    pub name: Name,
    /// Who provides it.
    pub source: SecretSource,
}

/// Who provides a secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SecretSource {
    /// Nobody else: it was given with the configuration, or its name says where it lies.
    #[default]
    Local,
    /// The control plane, on the stream of everything else.
    ControlPlane {
        /// What needs it waits this long for it at first; zero waits for ever. Default 15 s.
        initial_fetch_timeout: Duration,
    },
    /// A secret discovery service at this cluster: an agent on the same machine, SPIRE.
    Service {
        /// The cluster; istiod's is `sds-grpc`.
        cluster: Name,
        /// Whether it is spoken to in the variant that sends only what changed (`DELTA_GRPC`).
        delta: bool,
        /// What its streams begin with besides. Services that differ in it are different.
        opening: StreamOpening,
        /// As above.
        initial_fetch_timeout: Duration,
    },
    /// A file with the secret as an xDS resource.
    File {
        /// The file.
        path: Name,
        /// The directory whose change says that the file changed; empty is the file's own.
        watched: Name,
    },
}

// === impl SecretRef ===

impl SecretRef {
    /// A secret that was given with the configuration, or whose name says where it lies.
    pub fn local(name: impl Into<Name>) -> Self {
        Self {
            name: name.into(),
            source: SecretSource::Local,
        }
    }
}

// === impl ServerTls ===

impl ServerTls {
    /// Every secret that it needs.
    pub fn secrets(&self) -> impl Iterator<Item = &SecretRef> {
        let validation = self.validation.iter().flat_map(Validation::secrets);
        self.certificates.iter().chain(validation)
    }
}

// === impl ClientTls ===

impl ClientTls {
    /// Every secret that it needs.
    pub fn secrets(&self) -> impl Iterator<Item = &SecretRef> {
        let validation = self.validation.iter().flat_map(Validation::secrets);
        self.certificates.iter().chain(validation)
    }
}

// === impl Validation ===

impl Validation {
    fn secrets(&self) -> impl Iterator<Item = &SecretRef> {
        self.roots.iter().chain(&self.revoked)
    }
}

// === impl TlsVersion ===

impl TlsVersion {
    /// The version as access logs have it, e.g. `TLSv1.3`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V1_2 => "TLSv1.2",
            Self::V1_3 => "TLSv1.3",
        }
    }
}
