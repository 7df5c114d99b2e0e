//! A certificate authority: what Istio's CA (Citadel) is to its workloads.
//!
//! ```text
//!  Directory (files) ◄──► Material (PEM) ──► Authority ──► sign(request, grant, now) ──► Issued
//!                            │ prepare, promote, retire        ▲ who it is for: the grant,
//!                            ▼ a new root beside the old one   │ never the request
//! ```
//!
//! An [`Authority`] does not change except for what it has revoked; a new one is made when its
//! [`Material`] has. Nothing here reads a clock, and only [`Directory`] touches files.
//!
//! Not covered: intermediates made here, OCSP, requests of Kubernetes (`CertificateSigningRequest`).

mod csr;
mod directory;
mod grant;
mod lists;
mod material;
mod signer;
mod time;
mod tokens;

#[cfg(test)]
mod tests;

pub use csr::MAX_REQUEST_BYTES;
pub use directory::Directory;
pub use grant::{Grant, Issued, Limits, SignError};
pub use lists::{MAX_REVOKED_SERIALS, Serial};
pub use material::{Material, RootOptions, Step};
pub use tokens::{MAX_TOKENS, TokenError, Tokens};

use crate::SpiffeId;
use crate::pem;
use crate::secret::Trust;
use crate::verify::{Checker, Peer};
use lists::{List, Revoked};
use mesh_core::Invalid;
use mesh_core::exchange::PeerCertificate;
use mesh_core::model::Secret;
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, KeyUsagePurpose, SanType};
use rustls_pki_types::{CertificateDer, UnixTime};
use signer::{Signer, failed};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use x509_parser::prelude::{FromDer, X509Certificate};

/// How long before it was made a certificate is valid, for clocks that are behind (Istio's
/// `ClockSkewGracePeriod`).
const SKEW: Duration = Duration::from_secs(120);

/// How much room there has to be until an authority's own end: shorter certificates help nobody.
const SHORTEST: i64 = 10;

/// Makes certificates for identities.
///
/// ```
/// use mesh_identity::authority::{Authority, Grant, Limits, Material, RootOptions};
/// use mesh_identity::{CertificateRequest, KeyKind, SpiffeId};
/// use std::time::SystemTime;
///
/// let now = SystemTime::now();
/// let material = Material::self_signed(&RootOptions::default(), now)?;
/// let authority = Authority::new(&material, Limits::default(), now)?;
/// let request = CertificateRequest::generate(KeyKind::EcdsaP256)?;
/// let id = SpiffeId::of_workload("cluster.local", "shop", "reviews")?;
/// let issued = authority.sign(request.csr(), &Grant::to(id), now)?;
/// let (own, roots) = (request.into_secret(issued.chain_pem()), authority.trust(now)?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Authority {
    current: Signer,
    /// The one that comes, whose root is trusted already.
    next: Option<Signer>,
    /// The one that was, whose certificates are still in use.
    previous: Option<Signer>,
    roots: Vec<CertificateDer<'static>>,
    checker: Checker,
    revoked: Revoked,
    /// Lists of others, such as that of a root above.
    foreign: Vec<u8>,
    limits: Limits,
}

// === impl Authority ===

impl Authority {
    /// An authority. `now` is for checking that its own certificate leads to one of its roots.
    ///
    /// # Errors
    /// The file and what is wrong with it: something cannot be read or used, the key is another's,
    /// or the certificate leads to no root.
    pub fn new(material: &Material, limits: Limits, now: SystemTime) -> Result<Self, Invalid> {
        limits.check()?;
        let roots = pem::roots(&material.roots).map_err(|error| error.within("root-cert.pem"))?;
        let trust = Trust::read(&material.roots, &[]);
        let trust = trust.map_err(|error| error.within("root-cert.pem"))?;
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let algorithms = provider.signature_verification_algorithms;
        let checker = Checker::new(algorithms, None, Some(Arc::new(trust)), None);
        let above = match material.chain.is_empty() {
            true => Vec::new(),
            false => pem::chain(&material.chain).map_err(|error| error.within("cert-chain.pem"))?,
        };
        let current = material
            .current
            .signer(|own| above_of(own, above, &roots))?;
        let other = |pair: &Option<material::Pair>, folder: &str| {
            let pair = pair.as_ref();
            let read = pair.map(|pair| pair.signer(|_| Vec::new()));
            read.transpose().map_err(|error| error.within(folder))
        };
        let roots = own_last(roots, &current);
        let mut authority = Self {
            next: other(&material.next, "next")?,
            previous: other(&material.previous, "previous")?,
            current,
            roots,
            checker,
            revoked: Revoked::new(),
            foreign: Vec::new(),
            limits,
        };
        if !material.revoked.is_empty() {
            let read = lists::read(&material.revoked, &authority.issuers()?);
            (authority.revoked, authority.foreign) =
                read.map_err(|error| error.within("ca-crl.pem"))?;
        }
        authority.probe(&authority.current, now).map_err(|error| {
            let message = format!("leads to none of root-cert.pem: {error}");
            Invalid::new("ca-cert.pem", message)
        })?;
        if let Some(next) = &authority.next {
            authority.probe(next, now).map_err(|error| {
                let message = format!("leads to none of root-cert.pem: {error}");
                Invalid::new("next/ca-cert.pem", message)
            })?;
        }
        Ok(authority)
    }

    /// A certificate for the key of a request (PKCS #10 as PEM, up to [`MAX_REQUEST_BYTES`]).
    ///
    /// It is for whom `grant` says and for nobody else: names in the request are not looked at. It
    /// is for clients and servers, its subject is empty, and its end is never after that of the
    /// authority's own certificates. It was verified against the authority's roots before it is
    /// returned.
    ///
    /// # Errors
    /// See [`SignError`].
    pub fn sign(&self, csr: &str, grant: &Grant, now: SystemTime) -> Result<Issued, SignError> {
        let key = csr::key_of(csr.as_bytes()).map_err(SignError::Request)?;
        let at = time::seconds(now);
        let ttl = self.limits.ttl(grant.ttl);
        let until = time::seconds(now + ttl).min(self.current.not_after);
        if self.current.not_after < at.saturating_add(SHORTEST) {
            return Err(SignError::Authority(Invalid::new(
                "",
                "the authority's own certificate has expired or is about to",
            )));
        }
        // Not before the authority's, which peers could take for a mistake.
        let from = (at - SKEW.as_secs() as i64).max(self.current.not_before.min(at));
        let (from, until_) = (time::asn1(from), time::asn1(until));
        let (Ok(from), Ok(until_)) = (from, until_) else {
            return Err(SignError::Authority(Invalid::new(
                "",
                "the time is out of range",
            )));
        };
        let names = grant.names().map_err(SignError::Authority)?;
        let made = self.current.certify(&key, |params| {
            params.subject_alt_names = names;
            usages(params);
            params.not_before = from.to_datetime();
            params.not_after = until_.to_datetime();
        });
        let made = made.map_err(SignError::Authority)?;
        let parsed = X509Certificate::from_der(&made).ok();
        let serial = parsed.map(|(_, parsed)| Serial::of(parsed.raw_serial()));
        let chain = || {
            let own =
                (!self.is_root(&self.current.certificate)).then_some(&self.current.certificate);
            own.into_iter().chain(&self.current.above)
        };
        let others: Vec<_> = chain().cloned().collect();
        // What does not hold, such as a constraint of names, must not be found out by peers.
        for peer in [Peer::Client, Peer::Server] {
            let checked = self.checker.leads_to_root(&made, &others, unix(now), peer);
            checked.map_err(|error| {
                let message = format!(
                    "the authority may not vouch for {}: {error}",
                    grant.identity
                );
                SignError::Authority(Invalid::new("", message))
            })?;
        }
        Ok(Issued {
            serial: serial.unwrap_or_else(|| Serial::of(&[])),
            not_after: time::point(until),
            chain: std::iter::once(made).chain(others).collect(),
            roots: self.roots.clone(),
        })
    }

    /// The roots that its certificates are to be checked against, and the list of those revoked if
    /// there are any: for peers.
    ///
    /// # Errors
    /// As [`Authority::revoked_pem`].
    pub fn trust(&self, now: SystemTime) -> Result<Secret, Invalid> {
        Ok(Secret::Trust {
            roots: self.roots_pem(),
            revoked: self.revoked_pem(now)?,
        })
    }

    /// The roots as PEM: more than one while they change.
    pub fn roots_pem(&self) -> Vec<u8> {
        pem::to_pem(&self.roots)
    }

    /// Lists of the certificates that were revoked, as PEM, one for each key that has certificates
    /// in use; empty if none was ever revoked. They are good for 30 days from `now`.
    ///
    /// Peers that are given lists refuse certificates for whose issuer there is none: where the
    /// authority's own certificate is not a root, the list of the root has to be added.
    ///
    /// # Errors
    /// A list cannot be signed.
    pub fn revoked_pem(&self, now: SystemTime) -> Result<Vec<u8>, Invalid> {
        if self.revoked.is_empty() {
            return Ok(self.foreign.clone());
        }
        let list = List {
            revoked: &self.revoked,
            now: time::seconds(now),
        };
        let mut out = Vec::new();
        for signer in self.signers() {
            out.extend(signer.list(&list)?);
        }
        out.extend_from_slice(&self.foreign);
        Ok(out)
    }

    /// Revokes a certificate. Whether it was not before.
    ///
    /// # Errors
    /// The authority may not sign lists (its certificate's key usage), or there are too many.
    pub fn revoke(&mut self, serial: Serial, now: SystemTime) -> Result<bool, Invalid> {
        if self.signers().any(|signer| !signer.signs_lists) {
            let message = "its key usage does not let it sign lists of revoked certificates \
                           (cRLSign); give ca-crl.pem from whoever made it";
            return Err(Invalid::new("ca-cert.pem", message));
        }
        if self.revoked.contains_key(&serial) {
            return Ok(false);
        }
        if self.revoked.len() >= MAX_REVOKED_SERIALS {
            return Err(Invalid::new("", "100,000 certificates are revoked already"));
        }
        self.revoked.insert(serial, time::seconds(now));
        Ok(true)
    }

    /// Whether a certificate was revoked here.
    pub fn is_revoked(&self, serial: &Serial) -> bool {
        self.revoked.contains_key(serial)
    }

    /// Who a peer is that has shown a certificate in a handshake, which may be a while ago: its only
    /// URI is a SPIFFE identity, and it is still valid at `now` and not revoked here.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn identify(&self, peer: &PeerCertificate, now: SystemTime) -> Result<SpiffeId, Invalid> {
        let id = SpiffeId::of_peer(peer)?;
        let Ok((_, parsed)) = X509Certificate::from_der(&peer.der) else {
            return Err(Invalid::new("", "not an X.509 certificate"));
        };
        let (at, validity) = (time::seconds(now), parsed.validity());
        if validity.not_after.timestamp() < at || at < validity.not_before.timestamp() {
            return Err(Invalid::new("", "the certificate is not valid now"));
        }
        if self.is_revoked(&Serial::of(parsed.raw_serial())) {
            return Err(Invalid::new("", "the certificate was revoked"));
        }
        Ok(id)
    }

    /// The serial numbers of revoked certificates.
    pub fn revoked(&self) -> impl Iterator<Item = &Serial> {
        self.revoked.keys()
    }

    /// When its own certificates end: nothing that it signs is valid for longer.
    pub fn not_after(&self) -> SystemTime {
        time::point(self.current.not_after)
    }

    /// What is to be done next to replace a root that vouches for itself, and since when it is
    /// due. Authorities whose certificate somebody else has made do nothing on their own.
    ///
    /// A new root is due after four fifths of the present one's life (Istio's grace period of
    /// 20 %). It signs once everybody has had the time to learn of it, which is the longest life
    /// of a certificate; and the old one goes once the last certificate that it signed has ended.
    pub fn due(&self) -> Option<(Step, SystemTime)> {
        if !self.is_root(&self.current.certificate) {
            return None;
        }
        let longest = i64::try_from(self.limits.max_ttl.as_secs()).unwrap_or(i64::MAX);
        let (step, at) = if let Some(next) = &self.next {
            (Step::Promote, next.not_before.saturating_add(longest))
        } else if self.previous.is_some() {
            // It began to sign a life after it was made, unless somebody was in a hurry.
            let twice = longest.saturating_mul(2);
            (Step::Retire, self.current.not_before.saturating_add(twice))
        } else {
            let life = self.current.not_after - self.current.not_before;
            (Step::Prepare, self.current.not_after - life / 5)
        };
        Some((step, time::point(at)))
    }

    /// Limits of what is asked for.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    fn signers(&self) -> impl Iterator<Item = &Signer> {
        let more = self.next.iter().chain(&self.previous);
        std::iter::once(&self.current).chain(more)
    }

    /// The names of all who sign here, as they stand in certificates.
    fn issuers(&self) -> Result<Vec<Vec<u8>>, Invalid> {
        let each = self.signers().map(|signer| {
            let parsed = X509Certificate::from_der(&signer.certificate);
            let (_, parsed) = parsed.map_err(|_| Invalid::new("", "not a certificate"))?;
            Ok(parsed.subject().as_raw().to_vec())
        });
        each.collect()
    }

    fn is_root(&self, certificate: &CertificateDer<'_>) -> bool {
        self.roots.iter().any(|root| root == certificate)
    }

    /// Whether a certificate that a signer makes now leads to a root.
    fn probe(&self, signer: &Signer, now: SystemTime) -> Result<(), Invalid> {
        let key = signer.public()?;
        let (from, until) = (time::seconds(now) - 1, time::seconds(now) + SHORTEST);
        let (from, until) = (time::asn1(from)?, time::asn1(until)?);
        let made = signer.certify(&key, |params| {
            usages(params);
            params.not_before = from.to_datetime();
            params.not_after = until.to_datetime();
        })?;
        let own = (!self.is_root(&signer.certificate)).then_some(&signer.certificate);
        let others: Vec<_> = own.into_iter().chain(&signer.above).cloned().collect();
        let checked = self
            .checker
            .leads_to_root(&made, &others, unix(now), Peer::Client);
        checked.map_err(|error| Invalid::new("", error.to_string()))
    }
}

/// For [`crate::fuzz`].
pub(crate) fn read_request(text: &[u8]) -> Result<(), Invalid> {
    csr::key_of(text).map(|_| ())
}

/// What is above an authority's own certificate: a file with the whole chain has it, too, and
/// roots are for peers to have.
fn above_of(
    own: &CertificateDer<'_>,
    chain: Vec<CertificateDer<'static>>,
    roots: &[CertificateDer<'static>],
) -> Vec<CertificateDer<'static>> {
    let mut above = chain;
    above.retain(|one| one != own && !roots.contains(one));
    above
}

/// Roots in an order that suits those who take the last certificate of an answer for the only root,
/// as Istio's agent does: last comes the one that vouches for the authority.
fn own_last(
    mut roots: Vec<CertificateDer<'static>>,
    current: &Signer,
) -> Vec<CertificateDer<'static>> {
    let highest = current.above.last().unwrap_or(&current.certificate);
    let Ok((_, highest)) = X509Certificate::from_der(highest) else {
        return roots;
    };
    let own = |root: &CertificateDer<'_>| match X509Certificate::from_der(root) {
        Ok((_, root)) => root.subject().as_raw() == highest.issuer().as_raw(),
        Err(_) => false,
    };
    // Roots that follow each other have the same name.
    let itself = |root: &CertificateDer<'_>| *root == current.certificate;
    roots.sort_by_key(|root| (itself(root), own(root)));
    roots
}

/// What workloads use their keys for (Istio: both directions).
fn usages(params: &mut CertificateParams) {
    params.key_usages = vec![
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::KeyEncipherment,
    ];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
}

fn unix(now: SystemTime) -> UnixTime {
    let since = now.duration_since(SystemTime::UNIX_EPOCH);
    UnixTime::since_unix_epoch(since.unwrap_or_default())
}

// === impl Grant ===

impl Grant {
    fn names(&self) -> Result<Vec<SanType>, Invalid> {
        let text = |text: &str| rcgen::string::Ia5String::try_from(text).map_err(failed);
        let mut names = vec![SanType::URI(text(self.identity.as_str())?)];
        for name in &self.dns_names {
            names.push(SanType::DnsName(text(name)?));
        }
        Ok(names)
    }
}
