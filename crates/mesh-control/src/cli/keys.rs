//! Flags for the keys of tokens.

use anyhow::Context;
use clap::Args;
use mesh_core::model::Secret;
use mesh_keys::{Fetcher, Keys};
use std::path::PathBuf;
use std::time::Duration;

/// How long proxies are not served yet while keys are asked for the first time.
pub(super) const FIRST: Duration = Duration::from_secs(5);

/// How keys are got that RequestAuthentications name by URI or issuer.
#[derive(Debug, Args)]
#[command(next_help_heading = "Keys of tokens")]
pub(super) struct KeysArgs {
    /// Roots that servers of keys (jwksUri) may be certified by besides those that the machine
    /// trusts.
    #[arg(long, value_name = "FILE")]
    jwks_ca: Option<PathBuf>,
    /// How often keys are asked for again.
    #[arg(long, value_name = "TIME", default_value = "20m", value_parser = super::time, env = "PILOT_JWT_PUB_KEY_REFRESH_INTERVAL")]
    jwks_refresh: Duration,
}

impl KeysArgs {
    pub(super) fn fetcher(&self) -> anyhow::Result<(Keys, Fetcher)> {
        let mut builder = Fetcher::builder().refresh(self.jwks_refresh);
        if let Some(file) = &self.jwks_ca {
            let refused = || format!("--jwks-ca {}", file.display());
            let pem = std::fs::read(file).with_context(refused)?;
            mesh_identity::check_secret(&Secret::roots(pem.clone())).with_context(refused)?;
            builder = builder.roots(pem);
        }
        Ok(builder.build())
    }
}
