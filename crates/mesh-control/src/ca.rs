//! The control plane as a certificate authority: what Istio's istiod is to its proxies on the port
//! that also serves xDS with TLS.
//!
//! ```text
//!  CreateCertificate ─► who is it: its certificate, else its token ─► Authority::sign ─► chain, roots
//!                                          ▲ files, followed          ▲ directory, followed
//! ```
//!
//! An identity comes from how the caller was authenticated and from nowhere else. Tokens are those
//! of a file; Kubernetes is not asked for reviews of tokens. Nobody may ask for somebody else
//! (`ImpersonatedIdentity`).

mod keeper;

pub use keeper::{Keeper, KeeperOptions};

use mesh_core::WallClock;
use mesh_core::model::Secret;
use mesh_identity::SpiffeId;
use mesh_identity::authority::{Authority, Grant, SignError, Tokens};
use mesh_xds::server::{CertificateCall, Certified, Certify, Refused};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

/// Makes certificates for callers of the xDS server
/// ([`ServerBuilder::certify`](mesh_xds::server::ServerBuilder::certify)).
#[derive(Debug)]
pub struct Issuer {
    trust_domain: String,
    clock: WallClock,
    now: RwLock<Present>,
}

/// What is replaced as a whole.
#[derive(Debug)]
struct Present {
    authority: Authority,
    tokens: Tokens,
}

// === impl Issuer ===

impl Issuer {
    /// Makes certificates of this authority for identities of this trust domain, for callers with
    /// these tokens or with a certificate of the authority.
    pub fn new(
        trust_domain: impl Into<String>,
        authority: Authority,
        tokens: Tokens,
        clock: WallClock,
    ) -> Self {
        Self {
            trust_domain: trust_domain.into(),
            clock,
            now: RwLock::new(Present { authority, tokens }),
        }
    }

    /// From now on another authority makes certificates: the same with other roots, mostly.
    pub fn replace_authority(&self, authority: Authority) {
        let mut now = self.now.write().unwrap_or_else(PoisonError::into_inner);
        now.authority = authority;
    }

    /// From now on these tokens are good. Those that were used up stay so.
    pub fn replace_tokens(&self, tokens: Tokens) {
        let mut now = self.now.write().unwrap_or_else(PoisonError::into_inner);
        now.tokens = tokens.after(&now.tokens);
    }

    /// The roots that certificates are checked against, and what was revoked.
    ///
    /// # Errors
    /// A list of revoked certificates cannot be signed.
    pub fn trust(&self) -> Result<Secret, mesh_core::Invalid> {
        self.present().authority.trust(self.clock.now())
    }

    fn present(&self) -> RwLockReadGuard<'_, Present> {
        // Every change is one step.
        self.now.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who a caller is.
    fn identify(&self, call: &CertificateCall) -> Result<SpiffeId, Refused> {
        let (present, now) = (self.present(), self.clock.now());
        let peer = call.tls.peer.as_ref();
        let by_certificate = peer.map(|peer| present.authority.identify(peer, now));
        match (by_certificate, &call.token) {
            (Some(Ok(id)), _) if id.trust_domain() == self.trust_domain => Ok(id),
            (_, Some(token)) => {
                let token = String::from_utf8_lossy(token.expose());
                let known = present.tokens.identify(&token, now);
                known
                    .cloned()
                    .map_err(|error| Refused::unauthenticated(error.to_string()))
            }
            (Some(Ok(id)), None) => Err(Refused::unauthenticated(format!(
                "{} is not the trust domain here, which is {}",
                id.trust_domain(),
                self.trust_domain
            ))),
            (Some(Err(error)), None) => Err(Refused::unauthenticated(error.to_string())),
            (None, None) => Err(Refused::unauthenticated(
                "neither a certificate nor a token (authorization: Bearer …) was brought",
            )),
        }
    }

    fn create(&self, call: &CertificateCall) -> Result<Vec<String>, Refused> {
        let id = self.identify(call).inspect_err(|refused| {
            tracing::info!(address = ?call.address, reason = refused.message(), "no certificate");
        })?;
        let mut grant = Grant::to(id.clone());
        if let Some(ttl) = call.ttl {
            grant = grant.ttl(ttl);
        }
        match self
            .present()
            .authority
            .sign(&call.csr, &grant, self.clock.now())
        {
            Ok(issued) => {
                tracing::info!(%id, serial = %issued.serial, "made a certificate");
                Ok(issued.certificates())
            }
            Err(SignError::Request(error)) => Err(Refused::invalid(error.to_string())),
            Err(error) => {
                tracing::error!(%id, %error, "no certificate can be made");
                Err(Refused::unavailable(error.to_string()))
            }
        }
    }
}

impl Certify for Issuer {
    fn certify(&self, call: CertificateCall) -> Certified<'_> {
        // Signing takes a millisecond at most.
        Box::pin(async move { self.create(&call) })
    }
}
