//! How the control plane of `--xds` is reached.

use anyhow::bail;
use clap::Args;
use mesh_core::model::SecretName;
use mesh_xds::client::Server;
use std::path::{Path, PathBuf};

/// How the control plane is reached. Each of these is for TLS, and asks for it.
#[derive(Debug, Default, Args)]
pub(super) struct ControlPlaneArgs {
    /// With --xds and TLS: roots that the control plane's certificate has to lead to, as PEM, or
    /// `system`. Default: system.
    #[arg(long, value_name = "FILE|system", requires = "xds")]
    xds_ca: Option<PathBuf>,
    /// With --xds and TLS: the certificate that the proxy shows, as PEM. Files that change are read
    /// again.
    #[arg(long, value_name = "FILE", requires_all = ["xds", "xds_key"])]
    xds_cert: Option<PathBuf>,
    /// With --xds and TLS: the key of the certificate, as PEM.
    #[arg(long, value_name = "FILE", requires_all = ["xds", "xds_cert"])]
    xds_key: Option<PathBuf>,
    /// With --xds and TLS: the name that is asked for and that the certificate has to be for.
    /// Default: the host of the address.
    #[arg(long, value_name = "NAME", requires = "xds")]
    xds_sni: Option<String>,
    /// With --xds and TLS: a file with a token that is sent along (`authorization: Bearer …`, as
    /// Istio's agent does it). Read anew for each connection.
    #[arg(long, value_name = "FILE", requires = "xds")]
    xds_token: Option<PathBuf>,
}

// === impl ControlPlaneArgs ===

impl ControlPlaneArgs {
    /// The server at what `--xds` says, and its host and port.
    ///
    /// # Errors
    /// If TLS is asked for and excluded at once.
    pub(super) fn server<'a>(&self, xds: &'a str) -> anyhow::Result<(Server, &'a str)> {
        let wants_tls = self.xds_ca.is_some()
            || self.xds_cert.is_some()
            || self.xds_sni.is_some()
            || self.xds_token.is_some();
        let (secure, place) = match xds.split_once("://") {
            Some(("https", place)) => (true, place),
            Some((scheme, _)) if wants_tls && scheme != "https" => {
                bail!(
                    "--xds {xds}: --xds-ca, --xds-cert, --xds-sni and --xds-token are for TLS: \
                     give HOST:PORT or https://HOST:PORT"
                )
            }
            Some(("http", place)) => (false, place),
            // A Unix domain socket; anything else is refused by who builds the client.
            Some(_) => return Ok((Server::at(xds), xds)),
            None => (wants_tls, xds),
        };
        if !secure {
            return Ok((Server::at(format!("http://{place}")), place));
        }
        let roots = match &self.xds_ca {
            Some(path) if path.as_os_str() != "system" => {
                SecretName::RootFile(text(path, "--xds-ca")?).to_name()
            }
            _ => SecretName::SystemRoots.to_name(),
        };
        let certificate = match (&self.xds_cert, &self.xds_key) {
            (Some(certificate), Some(key)) => Some(
                SecretName::CertificateFiles {
                    certificate: text(certificate, "--xds-cert")?,
                    key: text(key, "--xds-key")?,
                }
                .to_name(),
            ),
            _ => None,
        };
        let server = Server::at(format!("https://{place}")).trusting(
            &roots,
            self.xds_sni.as_deref(),
            certificate.as_deref(),
        );
        Ok(match &self.xds_token {
            Some(path) => (server.token_file(path), place),
            None => (server, place),
        })
    }
}

fn text<'a>(path: &'a Path, flag: &str) -> anyhow::Result<&'a str> {
    match path.to_str().filter(|path| !path.contains('~')) {
        Some(path) => Ok(path),
        None => bail!("{flag} {}: a path must be text without ~", path.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uri(args: &ControlPlaneArgs, xds: &str) -> String {
        args.server(xds).unwrap().0.uri().to_owned()
    }

    #[test]
    fn an_address_is_in_plain_text_unless_tls_is_asked_for() {
        let plain = ControlPlaneArgs::default();
        assert_eq!(uri(&plain, "h:1"), "http://h:1");
        assert_eq!(uri(&plain, "http://h:1"), "http://h:1");
        assert_eq!(uri(&plain, "https://h:1"), "https://h:1");
        let secure = ControlPlaneArgs {
            xds_ca: Some("system".into()),
            ..ControlPlaneArgs::default()
        };
        assert_eq!(uri(&secure, "h:1"), "https://h:1");
        let error = secure.server("http://h:1").unwrap_err().to_string();
        assert!(error.contains("give HOST:PORT or https://"), "{error}");
        let error = secure.server("unix:///s").unwrap_err().to_string();
        assert!(error.contains("are for TLS"), "{error}");
        assert_eq!(uri(&plain, "unix:///s"), "unix:///s");
    }
}
