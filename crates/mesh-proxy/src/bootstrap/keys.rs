//! Flags for the keys of tokens.

use anyhow::Context;
use clap::Args;
use mesh_core::model::Secret;
use mesh_keys::{Fetcher, Keys};
use std::path::PathBuf;
use std::time::Duration;

/// How long listeners wait while keys are asked for the first time.
pub(super) const FIRST: Duration = Duration::from_secs(5);

/// How keys are got that RequestAuthentications name by URI or issuer. Control planes send theirs.
#[derive(Debug, Args)]
pub(super) struct KeysArgs {
    /// With --config: roots that servers of keys (jwksUri) may be certified by besides those that
    /// the machine trusts.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["xds", "envoy_config"])]
    jwks_ca: Option<PathBuf>,
    /// With --config: how often keys are asked for again, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 1200)]
    jwks_refresh: u64,
}

impl KeysArgs {
    pub(super) fn fetcher(&self) -> anyhow::Result<(Keys, Fetcher)> {
        let mut builder = Fetcher::builder().refresh(Duration::from_secs(self.jwks_refresh));
        if let Some(file) = &self.jwks_ca {
            let refused = || format!("--jwks-ca {}", file.display());
            let pem = std::fs::read(file).with_context(refused)?;
            mesh_identity::check_secret(&Secret::roots(pem.clone())).with_context(refused)?;
            builder = builder.roots(pem);
        }
        Ok(builder.build())
    }
}
