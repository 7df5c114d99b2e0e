//! Who gives the proxy its identity.

use crate::{AuthorityOptions, Identity, IdentityFiles, Renewal};
use anyhow::Context;
use clap::Args;
use std::path::PathBuf;
use std::time::Duration;

/// A certificate authority to ask.
#[derive(Debug, Default, Args)]
pub(super) struct AuthorityArgs {
    /// The certificate authority that gives the proxy its identity in the mesh, HOST:PORT (Istio's
    /// protocol, with TLS: port 15012 of istiod or mesh-control). The key is made here, and the
    /// certificate renewed after half of its life.
    #[arg(long, value_name = "ADDRESS", conflicts_with = "identity_dir")]
    ca_address: Option<String>,
    /// With --ca-address: roots that its certificate has to lead to, as PEM. Default: those of the
    /// machine.
    #[arg(long, value_name = "FILE", requires = "ca_address")]
    ca_roots: Option<PathBuf>,
    /// With --ca-address: the name that its certificate has to be for. Default: the host.
    #[arg(long, value_name = "NAME", requires = "ca_address")]
    ca_sni: Option<String>,
    /// With --ca-address: a file with the token that says who the proxy is while it has no
    /// certificate. Read anew each time.
    #[arg(long, value_name = "FILE", requires = "ca_address")]
    token_file: Option<PathBuf>,
    /// With --ca-address: seconds for which certificates are wanted. Default: as the authority has it
    /// (24 h).
    #[arg(long, value_name = "SECONDS", requires = "ca_address")]
    cert_ttl: Option<u64>,
    /// With --ca-address: lists of revoked certificates, as PEM. The file is followed.
    #[arg(long, value_name = "FILE", requires = "ca_address")]
    ca_crl: Option<PathBuf>,
    /// With --ca-address: roots of the mesh, as PEM (the authority's `root-cert.pem`; Istio's ConfigMap
    /// `istio-ca-root-cert`). The file is followed: a new root is trusted within 5 s, not with the next
    /// certificate.
    #[arg(long, value_name = "FILE", requires = "ca_address")]
    ca_trust: Option<PathBuf>,
}

/// What keeps an identity up to date.
#[derive(Debug)]
pub(super) enum Keeping {
    Files(IdentityFiles),
    Renewal(Box<Renewal>),
}

// === impl AuthorityArgs ===

impl AuthorityArgs {
    /// The identity that an authority gives, if one is to.
    ///
    /// # Errors
    /// The address cannot be used.
    pub(super) fn identity(&self) -> anyhow::Result<Option<(Identity, Keeping)>> {
        let Some(address) = &self.ca_address else {
            return Ok(None);
        };
        let mut options = AuthorityOptions::at(address);
        options.roots.clone_from(&self.ca_roots);
        options.name.clone_from(&self.ca_sni);
        options.token.clone_from(&self.token_file);
        options.ttl = self.cert_ttl.map(Duration::from_secs);
        options.revoked.clone_from(&self.ca_crl);
        options.trust.clone_from(&self.ca_trust);
        let (identity, renewal) = Identity::from_authority(options).context("--ca-address")?;
        Ok(Some((identity, Keeping::Renewal(Box::new(renewal)))))
    }
}

// === impl Keeping ===

impl Keeping {
    /// Before the proxy starts.
    pub(super) async fn begin(&mut self) {
        match self {
            Self::Files(files) => files.refresh().await,
            // What goes wrong is in the log, and tried again.
            Self::Renewal(renewal) => drop(renewal.first().await),
        }
    }

    /// For ever.
    pub(super) async fn run(self) {
        match self {
            Self::Files(files) => files.run().await,
            Self::Renewal(renewal) => renewal.run().await,
        }
    }
}
