//! An identity that a certificate authority gives and renews: what Istio's agent does for its proxy.
//!
//! ```text
//!   key and request, made here ─► CreateCertificate ─► published: certificate and roots
//!        ▲                          known by a token at first, by the certificate from then on
//!        └── after half of its life, or after a failure with growing waits
//! ```
//!
//! The key never leaves the process, and each certificate has a new one. While the authority cannot
//! be reached, or refuses, the last certificate stays in use.

mod watched;

use crate::Identity;
use mesh_core::model::{Secret, SecretRef};
use mesh_core::{Invalid, Publisher, Rng, WallClock};
use mesh_identity::{CertificateRequest, Credentials, KeyKind, renew_after};
use mesh_xds::client::{CertificateError, Server, request_certificate};
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::{Instant, MissedTickBehavior};
use watched::{Watched, merged, read};

/// An authority, and how it is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AuthorityOptions {
    /// Its address: `https://HOST:PORT` (istiod's and mesh-control's port 15012).
    pub address: String,
    /// Roots that its own certificate has to lead to, as PEM. Those that came with a certificate
    /// are trusted, too. Default: those of the machine.
    pub roots: Option<PathBuf>,
    /// The name that its certificate has to be for. Default: the address's host.
    pub name: Option<String>,
    /// A file with a token, for as long as there is no certificate. Read anew for each request.
    pub token: Option<PathBuf>,
    /// For how long certificates are wanted. Default: what the authority thinks right; Istio's says
    /// 24 h.
    pub ttl: Option<Duration>,
    /// A file with lists of revoked certificates, as PEM (Istio's ConfigMap `istio-ca-crl`), followed
    /// as it changes. Default: none, and nobody is looked up.
    pub revoked: Option<PathBuf>,
    /// A file with roots of the mesh, as PEM (`root-cert.pem` in an authority's directory, Istio's
    /// ConfigMap `istio-ca-root-cert`), followed as it changes: whom a new root vouches for is
    /// trusted at once, besides those of the roots that came with the certificate. Default: none, and
    /// new roots come with the next certificate.
    pub trust: Option<PathBuf>,
}

/// Gets and renews an identity; see [`Identity::from_authority`].
#[derive(Debug)]
pub struct Renewal {
    keeper: Keeper,
    authority: Remote,
    files: Files,
}

/// What lies beside a certificate.
#[derive(Debug)]
struct Files {
    revoked: Watched,
    trust: Watched,
}

/// The first wait after a failure, and the longest.
const WAITS: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(60));

/// How often the files of roots and of revoked certificates are looked at.
const LOOK: Duration = Duration::from_secs(5);

/// Somebody who makes certificates.
trait Authority: Send + Sync {
    /// Whether it may be asked with nothing but a token.
    fn has_token(&self) -> bool;

    /// Certificates, the own one first; asked by who has a certificate, or by token. `roots` are
    /// those that came before.
    fn ask(
        &self,
        csr: &str,
        own: Option<Arc<Secret>>,
        roots: &[u8],
    ) -> impl Future<Output = Result<Vec<String>, CertificateError>> + Send;
}

#[derive(Debug)]
struct Remote(AuthorityOptions);

/// What is published, and when there is something to do.
#[derive(Debug)]
struct Keeper {
    certificate: Publisher<Option<Arc<Secret>>>,
    trust: Publisher<Option<Arc<Secret>>>,
    /// Those that came with the certificate, and those of the file.
    roots: Vec<u8>,
    bundle: Vec<u8>,
    revoked: Vec<u8>,
    /// Until when the present certificate is valid.
    until: Option<SystemTime>,
    failures: u32,
    clock: WallClock,
    rng: Rng,
}

// === impl AuthorityOptions ===

impl AuthorityOptions {
    /// The authority at `https://HOST:PORT`, or at `HOST:PORT`.
    pub fn at(address: impl Into<String>) -> Self {
        let address = address.into();
        Self {
            address: match address.contains("://") {
                true => address,
                false => format!("https://{address}"),
            },
            roots: None,
            name: None,
            token: None,
            ttl: None,
            revoked: None,
            trust: None,
        }
    }
}

// === impl Identity ===

impl Identity {
    /// An identity that an authority gives; who the proxy is, is up to it. Nothing happens until
    /// [`Renewal::first`] or [`Renewal::run`].
    ///
    /// # Errors
    /// The address is not one for TLS.
    pub fn from_authority(options: AuthorityOptions) -> Result<(Self, Renewal), Invalid> {
        if !options.address.starts_with("https://") {
            let message = format!("{:?}: https://HOST:PORT is expected", options.address);
            return Err(Invalid::new("address", message));
        }
        let keeper = Keeper::new(WallClock::system(), Rng::from_system());
        let identity = Self::new(keeper.certificate.feed(), keeper.trust.feed());
        let renewal = Renewal {
            keeper,
            files: Files {
                revoked: Watched::new(options.revoked.clone()),
                trust: Watched::new(options.trust.clone()),
            },
            authority: Remote(options),
        };
        Ok((identity, renewal))
    }
}

// === impl Renewal ===

impl Renewal {
    /// Asks for the first certificate: before the proxy starts, so that the first handshakes find
    /// it. Whether it came; if not, the reason is in the log, and [`Renewal::run`] tries again.
    pub async fn first(&mut self) -> bool {
        self.files.look(&mut self.keeper).await;
        self.keeper.once(&self.authority).await.is_ok()
    }

    /// Renews the certificate for ever: the user runs it, and drops it to stop.
    ///
    /// # Panics
    /// Outside a tokio runtime with time enabled.
    pub async fn run(mut self) {
        let Self {
            keeper,
            authority,
            files,
        } = &mut self;
        keep(keeper, authority, files).await;
    }
}

/// Renews a certificate, and follows what lies beside it.
async fn keep(keeper: &mut Keeper, authority: &impl Authority, files: &mut Files) {
    let mut next = Instant::now() + keeper.pause();
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = tokio::time::sleep_until(next) => {
                // Said in the log.
                let _ = keeper.once(authority).await;
                next = Instant::now() + keeper.pause();
            }
            _ = look.tick(), if files.are_some() => files.look(keeper).await,
        }
    }
}

// === impl Files ===

impl Files {
    fn are_some(&self) -> bool {
        self.revoked.is_some() || self.trust.is_some()
    }

    /// Takes over what is new in them.
    async fn look(&mut self, keeper: &mut Keeper) {
        if let Some(text) = self.revoked.news().await {
            keeper.revoke(text);
        }
        if let Some(text) = self.trust.news().await {
            keeper.trust(text);
        }
    }
}

// === impl Keeper ===

impl Keeper {
    fn new(clock: WallClock, rng: Rng) -> Self {
        Self {
            certificate: Publisher::new(None),
            trust: Publisher::new(None),
            roots: Vec::new(),
            bundle: Vec::new(),
            revoked: Vec::new(),
            until: None,
            failures: 0,
            clock,
            rng,
        }
    }

    /// Asks once, and publishes what came.
    async fn once(&mut self, authority: &impl Authority) -> Result<(), ()> {
        let result = self.ask(authority).await;
        match result {
            Ok(Credentials {
                own, roots, facts, ..
            }) => {
                let until = UNIX_EPOCH + Duration::from_secs(facts.not_after.unsigned_abs());
                self.until = Some(until);
                self.failures = 0;
                self.roots = roots;
                self.publish_trust();
                // After the roots: who shows a new certificate trusts what the new ones trust.
                self.certificate.publish(Arc::new(Some(Arc::new(own))));
                tracing::info!(names = ?facts.names, serial = facts.serial, "has a new certificate");
                Ok(())
            }
            Err(error) => {
                self.failures = self.failures.saturating_add(1);
                let kept = self.is_valid();
                tracing::warn!(error, failures = self.failures, kept, "no new certificate");
                Err(())
            }
        }
    }

    async fn ask(&self, authority: &impl Authority) -> Result<Credentials, String> {
        let request = CertificateRequest::generate(KeyKind::EcdsaP256);
        let request = request.map_err(|error| error.to_string())?;
        // Who is refused with his certificate, which the authority may have forgotten, tries the
        // token, and the other way round.
        let with_own =
            self.is_valid() && (!authority.has_token() || self.failures.is_multiple_of(2));
        let own = if with_own {
            (*self.certificate.load()).clone()
        } else {
            None
        };
        let answer = authority.ask(request.csr(), own, &self.trusted()).await;
        let answer = answer.map_err(|error| error.to_string())?;
        let credentials = request.answered(&answer);
        credentials.map_err(|error| format!("the authority's answer cannot be used: {error}"))
    }

    fn is_valid(&self) -> bool {
        self.until.is_some_and(|until| self.clock.now() < until)
    }

    /// How long to wait before the next attempt.
    fn pause(&self) -> Duration {
        let word = self.rng.word();
        match self.until {
            _ if self.failures > 0 => {
                let (first, most) = WAITS;
                let doubled = 1_u32.checked_shl(self.failures - 1).unwrap_or(u32::MAX);
                let window = first.saturating_mul(doubled).min(most);
                // Half of it at least: those who failed together do not all come back at once.
                window.mul_f64(0.5 + 0.5 * (word as f64 / u64::MAX as f64))
            }
            None => Duration::ZERO,
            Some(until) => {
                let life = until.duration_since(self.clock.now());
                // One that has ended when it comes is a mistake of somebody's clock.
                renew_after(life.unwrap_or_default(), word).max(WAITS.0)
            }
        }
    }

    fn revoke(&mut self, text: Vec<u8>) {
        let list = Secret::Trust {
            roots: Vec::new(),
            revoked: text.clone(),
        };
        match mesh_identity::check_secret(&list) {
            Ok(()) => {
                self.revoked = text;
                self.publish_trust();
            }
            Err(error) => tracing::warn!(%error, "revoked certificates refused; the last stay"),
        }
    }

    /// Takes over the roots of the file. None, or what is none, leaves those from before.
    fn trust(&mut self, text: Vec<u8>) {
        match mesh_identity::check_secret(&Secret::roots(text.clone())) {
            Ok(()) => {
                self.bundle = text;
                self.publish_trust();
            }
            Err(error) => tracing::warn!(%error, "roots refused; the last stay"),
        }
    }

    /// Everybody who vouches for peers.
    fn trusted(&self) -> Vec<u8> {
        match self.bundle.is_empty() {
            true => self.roots.clone(),
            false => merged(&self.roots, &self.bundle),
        }
    }

    fn publish_trust(&self) {
        let roots = self.trusted();
        if roots.is_empty() {
            return;
        }
        let trust = Some(Arc::new(Secret::Trust {
            roots,
            revoked: self.revoked.clone(),
        }));
        if *self.trust.load() != trust {
            self.trust.publish(Arc::new(trust));
        }
    }
}

// === impl Remote ===

impl Authority for Remote {
    fn has_token(&self) -> bool {
        self.0.token.is_some()
    }

    async fn ask(
        &self,
        csr: &str,
        own: Option<Arc<Secret>>,
        roots: &[u8],
    ) -> Result<Vec<String>, CertificateError> {
        let shown = own.as_ref().map(|_| "own");
        let name = self.0.name.as_deref();
        let server = Server::at(self.0.address.clone());
        let mut server = match self.0.roots.clone() {
            None => server.trusting("file-root:system", name, shown),
            Some(path) => {
                let named = path.display().to_string();
                let read = tokio::task::spawn_blocking(move || read(&path)).await;
                let known = read.map_err(io::Error::other).and_then(|read| read);
                let known = known.map_err(|error| {
                    CertificateError::Unreachable(format!("no roots: {named}: {error}"))
                })?;
                let all = Secret::roots([&known[..], b"\n", roots].concat());
                let server = server.trusting("roots", name, shown);
                server.secret(SecretRef::local("roots"), all)
            }
        };
        match (own, &self.0.token) {
            (Some(own), _) => server = server.secret(SecretRef::local("own"), own),
            (None, Some(token)) => server = server.token_file(token),
            (None, None) => {}
        }
        request_certificate(server, csr, self.0.ttl).await
    }
}

#[cfg(test)]
mod tests;
