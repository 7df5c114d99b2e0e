//! TLS for the xDS server: the certificate in files, followed as they change.

use crate::ca::Keeper;
use anyhow::{Context, bail};
use clap::Args;
use mesh_core::Publisher;
use mesh_core::model::{SecretName, SecretRef, ServerTls, Validation};
use mesh_identity::{Acceptor, Files};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// TLS for the xDS server.
#[derive(Debug, Args)]
// Where a certificate comes from: files, or our own authority.
#[command(group = clap::ArgGroup::new("secured").args(["tls_cert", "ca"]).multiple(true))]
pub(super) struct TlsArgs {
    /// Address of the xDS server with TLS, besides the one in plain text (Istio's is port 15012).
    #[arg(long, value_name = "ADDRESS", requires = "secured")]
    pub(super) xds_tls: Option<SocketAddr>,
    /// With --xds-tls: the certificate chain, as PEM. A file that changes is read again.
    #[arg(long, value_name = "FILE", requires_all = ["xds_tls", "tls_key"])]
    tls_cert: Option<PathBuf>,
    /// With --xds-tls: the key of the certificate, as PEM.
    #[arg(long, value_name = "FILE", requires_all = ["xds_tls", "tls_cert"])]
    tls_key: Option<PathBuf>,
    /// With --xds-tls: only clients with a certificate that leads to one of these roots (PEM) are
    /// served. Default: clients are not asked for one; with --ca they may show one of its own, and
    /// those who have none yet come with a token.
    #[arg(long, value_name = "FILE", requires = "xds_tls", conflicts_with = "ca")]
    tls_client_ca: Option<PathBuf>,
}

/// What TLS is done with.
#[derive(Debug)]
pub(super) struct Tls {
    pub(super) address: SocketAddr,
    pub(super) acceptor: Acceptor,
    /// To be run.
    pub(super) files: Files,
}

/// What the server's own certificate is called where the authority makes it.
const OWN: &str = "own";

/// What the authority's roots are called.
const ROOTS: &str = "roots";

// === impl TlsArgs ===

impl TlsArgs {
    /// Reads the files for the first time.
    ///
    /// # Errors
    /// One of them cannot be used.
    pub(super) async fn read(&self, keeper: Option<&mut Keeper>) -> anyhow::Result<Option<Tls>> {
        let Some(address) = self.xds_tls else {
            return Ok(None);
        };
        let mut tls = ServerTls::default();
        tls.alpn = vec!["h2".into()];
        let in_files = match (&self.tls_cert, &self.tls_key) {
            (Some(certificate), Some(key)) => {
                let name = SecretName::CertificateFiles {
                    certificate: text(certificate, "--tls-cert")?,
                    key: text(key, "--tls-key")?,
                };
                tls.certificates = vec![SecretRef::local(name.to_name())];
                true
            }
            _ => {
                tls.certificates = vec![SecretRef::local(OWN)];
                false
            }
        };
        let mut validation = Validation::default();
        if keeper.is_some() {
            validation.roots = Some(SecretRef::local(ROOTS));
            tls.validation = Some(validation);
        } else if let Some(roots) = &self.tls_client_ca {
            let name = SecretName::RootFile(text(roots, "--tls-client-ca")?);
            validation.roots = Some(SecretRef::local(name.to_name()));
            tls.validation = Some(validation);
            tls.require_client_certificate = true;
        }
        let tls = Arc::new(tls);
        let (acceptor, snapshot) = Acceptor::alone(tls.clone(), []).context("--xds-tls")?;
        if let Some(keeper) = keeper {
            let live = |name: &str| snapshot.secret(&SecretRef::local(name)).cloned();
            let own = if in_files { None } else { live(OWN) };
            if let Some(roots) = live(ROOTS) {
                keeper.publish_into(own, roots).context("--ca")?;
            }
        }
        let mut files = Files::new(Publisher::from_arc(snapshot.clone()).feed());
        files.refresh().await;
        for named in tls.secrets() {
            let live = snapshot.secret(named);
            if live.is_none_or(|live| live.value().load().is_none()) {
                // Why was logged.
                bail!("--xds-tls: {} cannot be used", named.name);
            }
        }
        Ok(Some(Tls {
            address,
            acceptor,
            files,
        }))
    }
}

fn text<'a>(path: &'a Path, flag: &str) -> anyhow::Result<&'a str> {
    match path.to_str().filter(|path| !path.contains('~')) {
        Some(path) => Ok(path),
        None => bail!("{flag} {}: a path must be text without ~", path.display()),
    }
}
