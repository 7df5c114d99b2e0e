//! The control plane as a certificate authority.

use crate::ca::{Keeper, KeeperOptions};
use anyhow::Context;
use clap::Args;
use mesh_identity::authority::Directory;
use std::path::PathBuf;

/// A certificate authority.
#[derive(Debug, Args)]
pub(super) struct CaArgs {
    /// With --xds-tls: be a certificate authority, whose files are in this directory: ca-cert.pem,
    /// ca-key.pem, root-cert.pem, and cert-chain.pem if there are intermediates, as in Istio's
    /// secret `cacerts`. An empty directory is given a root. Files that change are read again.
    /// Callers may show a certificate of this authority, and without --tls-cert the server has one
    /// itself.
    #[arg(long, value_name = "DIR", requires = "xds_tls")]
    pub(super) ca: Option<PathBuf>,
    /// With --ca: tokens of service accounts, a line each: TOKEN NAMESPACE/SERVICE-ACCOUNT
    /// [until=SECONDS] [once]. Without it only who has a certificate gets another one.
    #[arg(long, value_name = "FILE", requires = "ca")]
    tokens: Option<PathBuf>,
    /// With --ca: the trust domain of identities, as MeshConfig.trustDomain has it.
    #[arg(
        long,
        value_name = "DOMAIN",
        requires = "ca",
        default_value = "cluster.local"
    )]
    trust_domain: String,
    /// With --ca and without --tls-cert: names that the server is called by, besides localhost and
    /// istiod.istio-system.svc.
    #[arg(long, value_name = "NAME,…", value_delimiter = ',', requires = "ca")]
    ca_dns: Vec<String>,
}

// === impl CaArgs ===

impl CaArgs {
    /// The authority, if there is to be one.
    ///
    /// # Errors
    /// Its files cannot be used.
    pub(super) fn open(&self) -> anyhow::Result<Option<Keeper>> {
        let Some(directory) = &self.ca else {
            return Ok(None);
        };
        let mut options = KeeperOptions::new(Directory::at(directory));
        options.tokens.clone_from(&self.tokens);
        options.trust_domain.clone_from(&self.trust_domain);
        options.dns_names.extend(self.ca_dns.iter().cloned());
        Keeper::open(options).context("--ca").map(Some)
    }
}
