//! Keeps an authority up to date: its files, its own root, and the server's own certificate.

use super::Issuer;
use mesh_core::Invalid;
use mesh_core::model::{LiveSecret, Secret};
use mesh_core::{Rng, WallClock};
use mesh_identity::authority::{
    Authority, Directory, Grant, Limits, Material, RootOptions, Tokens,
};
use mesh_identity::{CertificateRequest, KeyKind, SpiffeId};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// How often files are looked at.
const LOOK: Duration = Duration::from_secs(2);

/// How old a list of revoked certificates becomes: it is good for 30 days.
const LIST: Duration = Duration::from_secs(86_400);

/// The largest file of tokens.
const MAX_TOKEN_FILE: u64 = 16 << 20;

/// Length, number and time of a file.
type Stamp = (u64, u64, SystemTime);

/// Where an authority is and for whom.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct KeeperOptions {
    /// Its directory. An empty one is given a root that vouches for itself.
    pub directory: Directory,
    /// The file with tokens ([`Tokens`]), if there is one.
    pub tokens: Option<PathBuf>,
    /// The trust domain of its identities. Default: `cluster.local`.
    pub trust_domain: String,
    /// For how long it makes certificates.
    pub limits: Limits,
    /// DNS names of the server. Default: `istiod.istio-system.svc` and `localhost`.
    pub dns_names: Vec<String>,
    /// Tells the time.
    pub clock: WallClock,
}

/// Follows the files of an authority; see [`Keeper::run`].
#[derive(Debug)]
pub struct Keeper {
    options: KeeperOptions,
    root: RootOptions,
    issuer: Arc<Issuer>,
    seen: Vec<Option<Stamp>>,
    /// What was complained about.
    said: Option<String>,
    /// The server's own certificate and the roots of its callers.
    own: Option<Own>,
    /// When there is something to publish anew.
    renew: SystemTime,
    rng: Rng,
}

#[derive(Debug)]
struct Own {
    certificate: Option<Arc<LiveSecret>>,
    trust: Arc<LiveSecret>,
}

// === impl KeeperOptions ===

impl KeeperOptions {
    /// An authority in a directory.
    pub fn new(directory: Directory) -> Self {
        Self {
            directory,
            tokens: None,
            trust_domain: "cluster.local".to_owned(),
            limits: Limits::default(),
            dns_names: vec!["istiod.istio-system.svc".to_owned(), "localhost".to_owned()],
            clock: WallClock::system(),
        }
    }
}

// === impl Keeper ===

impl Keeper {
    /// Reads an authority, or makes one where there is none.
    ///
    /// # Errors
    /// The file and what is wrong with it.
    pub fn open(options: KeeperOptions) -> Result<Self, Invalid> {
        mesh_identity::check_trust_domain(&options.trust_domain)
            .map_err(|error| error.within("trust domain"))?;
        let now = options.clock.now();
        let mut root = RootOptions::default();
        root.organization.clone_from(&options.trust_domain);
        if options.directory.is_empty() {
            options
                .directory
                .write(&Material::self_signed(&root, now)?)?;
            tracing::info!(directory = %options.directory.path().display(), "made a root");
        }
        let seen = stamps(&options);
        let material = options.directory.read()?;
        let authority = Authority::new(&material, options.limits.clone(), now);
        let authority =
            authority.map_err(|error| error.within(options.directory.path().display()))?;
        let issuer = Issuer::new(
            options.trust_domain.clone(),
            authority,
            tokens(&options)?,
            options.clock.clone(),
        );
        Ok(Self {
            root,
            issuer: Arc::new(issuer),
            seen,
            said: None,
            own: None,
            renew: now,
            rng: Rng::from_system(),
            options,
        })
    }

    /// Who makes certificates.
    pub fn issuer(&self) -> &Arc<Issuer> {
        &self.issuer
    }

    /// Publishes the roots of callers, and a certificate for the server itself if it has none of
    /// somebody else: now and from now on.
    ///
    /// # Errors
    /// One of them cannot be made.
    pub fn publish_into(
        &mut self,
        certificate: Option<Arc<LiveSecret>>,
        trust: Arc<LiveSecret>,
    ) -> Result<(), Invalid> {
        self.own = Some(Own { certificate, trust });
        self.publish()
    }

    /// Follows the files, replaces a root that ends, and renews the server's certificate, until the
    /// future is dropped. What is wrong is said in the log, and what was there stays in use.
    pub async fn run(mut self) {
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            look.tick().await;
            let looked = tokio::task::spawn_blocking(move || {
                self.look_once();
                self
            });
            match looked.await {
                Ok(this) => self = this,
                // A panic, or a runtime that ends.
                Err(_) => return,
            }
        }
    }

    /// Looks at the files once, as [`Keeper::run`] does again and again.
    pub fn look_once(&mut self) {
        let result = self.look();
        let said = result.err().map(|error| error.to_string());
        if let Some(error) = said.as_ref().filter(|_| said != self.said) {
            tracing::warn!(error, "the certificate authority goes on with what it has");
        }
        self.said = said;
    }

    fn look(&mut self) -> Result<(), Invalid> {
        let now = self.options.clock.now();
        let seen = stamps(&self.options);
        if seen != self.seen {
            let material = self.options.directory.read()?;
            let authority = Authority::new(&material, self.options.limits.clone(), now)?;
            let tokens = tokens(&self.options)?;
            self.issuer.replace_authority(authority);
            self.issuer.replace_tokens(tokens);
            self.seen = seen;
            self.renew = now;
            tracing::info!("read the certificate authority anew");
        }
        let due = self.issuer.present().authority.due();
        if let Some((step, _)) = due.filter(|(_, at)| *at <= now) {
            let mut material = self.options.directory.read()?;
            material.step(step, &self.root, now)?;
            let authority = Authority::new(&material, self.options.limits.clone(), now)?;
            let material = material.with_revoked(authority.revoked_pem(now)?);
            self.options.directory.write(&material)?;
            self.issuer.replace_authority(authority);
            self.seen = stamps(&self.options);
            self.renew = now;
            tracing::info!(?step, "replacing the root");
        }
        if self.renew <= now {
            self.publish()?;
        }
        Ok(())
    }

    fn publish(&mut self) -> Result<(), Invalid> {
        let now = self.options.clock.now();
        let mut next = now + LIST;
        let revoked = {
            let present = self.issuer.present();
            present.authority.revoked_pem(now)?
        };
        if let Some(Own { certificate, trust }) = &self.own {
            if let Some(live) = certificate {
                let (secret, at) = self.own_certificate(now)?;
                live.publish(Some(Arc::new(secret)));
                next = next.min(at);
            }
            trust.publish(Some(Arc::new(self.issuer.trust()?)));
        }
        if !revoked.is_empty() {
            // What somebody has revoked just now is read first, and not written over.
            if stamps(&self.options) != self.seen {
                return Ok(());
            }
            // For peers, which are given the file: nobody else signs it anew.
            self.options.directory.write_revoked(&revoked)?;
            self.seen = stamps(&self.options);
        }
        self.renew = next;
        Ok(())
    }

    /// A certificate for the server, and when it wants another one.
    fn own_certificate(&self, now: SystemTime) -> Result<(Secret, SystemTime), Invalid> {
        let request = CertificateRequest::generate(KeyKind::EcdsaP256)?;
        let id = SpiffeId::of_workload(&self.options.trust_domain, "istio-system", "istiod")?;
        let mut grant = Grant::to(id);
        for name in &self.options.dns_names {
            grant = grant.dns_name(name);
        }
        let present = self.issuer.present();
        let issued = present.authority.sign(request.csr(), &grant, now);
        let issued = issued.map_err(|error| Invalid::new("", error.to_string()))?;
        let life = issued.not_after.duration_since(now).unwrap_or_default();
        let after = mesh_identity::renew_after(life, self.rng.word());
        Ok((request.into_secret(issued.chain_pem()), now + after))
    }
}

/// What the files look like. One that is replaced is another one.
fn stamps(options: &KeeperOptions) -> Vec<Option<Stamp>> {
    let directory = options.directory.path();
    let files = [
        "ca-cert.pem",
        "ca-key.pem",
        "cert-chain.pem",
        "root-cert.pem",
        "ca-crl.pem",
        "next/ca-cert.pem",
        "previous/ca-cert.pem",
    ];
    let files = files.map(|file| directory.join(file)).into_iter();
    let each = files.chain(options.tokens.clone()).map(|path| {
        let status = fs::metadata(path).ok()?;
        Some((status.len(), status.ino(), status.modified().ok()?))
    });
    each.collect()
}

fn tokens(options: &KeeperOptions) -> Result<Tokens, Invalid> {
    let Some(path) = &options.tokens else {
        return Tokens::read("", &options.trust_domain);
    };
    let wrong = |why: &str| Invalid::new(path.display().to_string(), why);
    let read = || {
        let status = fs::metadata(path)?;
        match status.is_file() && status.len() <= MAX_TOKEN_FILE {
            true => fs::read_to_string(path).map(Some),
            false => Ok(None),
        }
    };
    let text = read().map_err(|error| wrong(&error.to_string()))?;
    let text = text.ok_or_else(|| wrong("a regular file of up to 16 MiB is expected"))?;
    let tokens = Tokens::read(&text, &options.trust_domain);
    tokens.map_err(|error| error.within(path.display()))
}
