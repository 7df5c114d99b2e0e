//! TLS for the xDS server: the certificate in files, followed as they change.

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
pub(super) struct TlsArgs {
    /// Address of the xDS server with TLS, besides the one in plain text (Istio's is port 15012).
    #[arg(long, value_name = "ADDRESS", requires_all = ["tls_cert", "tls_key"])]
    pub(super) xds_tls: Option<SocketAddr>,
    /// With --xds-tls: the certificate chain, as PEM. A file that changes is read again.
    #[arg(long, value_name = "FILE", requires = "xds_tls")]
    tls_cert: Option<PathBuf>,
    /// With --xds-tls: the key of the certificate, as PEM.
    #[arg(long, value_name = "FILE", requires = "xds_tls")]
    tls_key: Option<PathBuf>,
    /// With --xds-tls: only clients with a certificate that leads to one of these roots (PEM) are
    /// served. Default: clients are not asked for one.
    #[arg(long, value_name = "FILE", requires = "xds_tls")]
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

// === impl TlsArgs ===

impl TlsArgs {
    /// Reads the files for the first time.
    ///
    /// # Errors
    /// One of them cannot be used.
    pub(super) async fn read(&self) -> anyhow::Result<Option<Tls>> {
        let (Some(address), Some(certificate), Some(key)) =
            (self.xds_tls, &self.tls_cert, &self.tls_key)
        else {
            return Ok(None);
        };
        let name = SecretName::CertificateFiles {
            certificate: text(certificate, "--tls-cert")?,
            key: text(key, "--tls-key")?,
        };
        let mut tls = ServerTls::default();
        tls.alpn = vec!["h2".into()];
        tls.certificates = vec![SecretRef::local(name.to_name())];
        if let Some(roots) = &self.tls_client_ca {
            let name = SecretName::RootFile(text(roots, "--tls-client-ca")?);
            let mut validation = Validation::default();
            validation.roots = Some(SecretRef::local(name.to_name()));
            tls.validation = Some(validation);
            tls.require_client_certificate = true;
        }
        let tls = Arc::new(tls);
        let (acceptor, snapshot) = Acceptor::alone(tls.clone(), []).context("--xds-tls")?;
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
