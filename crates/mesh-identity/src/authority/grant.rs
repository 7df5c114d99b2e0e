//! What somebody may have a certificate for, and what becomes of it.

use super::lists::Serial;
use crate::{SpiffeId, pem};
use mesh_core::Invalid;
use rustls_pki_types::CertificateDer;
use std::fmt;
use std::time::{Duration, SystemTime};

/// For how long certificates are made.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Without a wish. Default: 24 h (Istio `DEFAULT_WORKLOAD_CERT_TTL`).
    pub default_ttl: Duration,
    /// At most: who wants more gets this. Default: 90 days (Istio `MAX_WORKLOAD_CERT_TTL`, which
    /// refuses longer wishes).
    pub max_ttl: Duration,
    /// At least: who wants less gets this. Default: 1 min.
    pub min_ttl: Duration,
}

/// Whom a certificate is for, as whoever authenticated the caller has found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    pub(super) identity: SpiffeId,
    pub(super) dns_names: Vec<String>,
    pub(super) ttl: Option<Duration>,
}

/// A certificate that was made.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Issued {
    /// Its serial number.
    pub serial: Serial,
    /// Until when it is valid.
    pub not_after: SystemTime,
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) roots: Vec<CertificateDer<'static>>,
}

/// Why no certificate was made.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SignError {
    /// The request cannot be used: whoever asks made a mistake.
    Request(Invalid),
    /// The authority cannot do it: its own certificate ends, or may not vouch for this identity.
    Authority(Invalid),
}

// === impl Limits ===

impl Limits {
    /// What is given for a wish.
    pub(super) fn ttl(&self, wish: Option<Duration>) -> Duration {
        let wish = wish.filter(|wish| !wish.is_zero());
        wish.unwrap_or(self.default_ttl)
            .clamp(self.min_ttl, self.max_ttl)
    }

    pub(super) fn check(&self) -> Result<(), Invalid> {
        // Ten years; times beyond the year 9999 cannot be written.
        let most = Duration::from_secs(10 * 365 * 86_400);
        let ordered = self.min_ttl <= self.default_ttl && self.default_ttl <= self.max_ttl;
        if !ordered || self.min_ttl < Duration::from_secs(1) || self.max_ttl > most {
            let message =
                "1 s ≤ the shortest ≤ the usual ≤ the longest life of certificates ≤ 10 years";
            return Err(Invalid::new("limits", format!("expected {message}")));
        }
        Ok(())
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            default_ttl: Duration::from_secs(24 * 3600),
            max_ttl: Duration::from_secs(90 * 86_400),
            min_ttl: Duration::from_secs(60),
        }
    }
}

// === impl Grant ===

impl Grant {
    /// A certificate for an identity.
    pub fn to(identity: SpiffeId) -> Self {
        Self {
            identity,
            dns_names: Vec::new(),
            ttl: None,
        }
    }

    /// It is for a DNS name, too: for servers that are called by name.
    #[must_use]
    pub fn dns_name(mut self, name: impl Into<String>) -> Self {
        self.dns_names.push(name.into());
        self
    }

    /// For how long it is wanted; within [`Limits`]. Nothing is the default.
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }
}

// === impl Issued ===

impl Issued {
    /// The certificate and what lies between it and a root, as PEM: what is shown to peers.
    pub fn chain_pem(&self) -> Vec<u8> {
        pem::to_pem(&self.chain)
    }

    /// All of it and the roots, as one PEM each: leaf first, roots last
    /// (`IstioCertificateResponse.cert_chain`).
    pub fn certificates(&self) -> Vec<String> {
        let all = self.chain.iter().chain(&self.roots);
        let each = all.map(|one| pem::to_pem(std::slice::from_ref(one)));
        each.map(|text| String::from_utf8_lossy(&text).into_owned())
            .collect()
    }
}

impl fmt::Debug for Issued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issued")
            .field("serial", &self.serial)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

// === impl SignError ===

impl fmt::Display for SignError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Request(error) | Self::Authority(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for SignError {}
