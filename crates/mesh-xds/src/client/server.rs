//! A control plane, and how it is reached.

use http::{HeaderName, HeaderValue};
use mesh_core::Name;
use mesh_core::model::{ClientTls, Secret, SecretRef, Validation};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

/// A control plane, and how it is reached.
///
/// A text is one: `http://HOST:PORT` is spoken to in plain text, `https://HOST:PORT` with TLS. What
/// TLS asks and shows is in [`Server::tls`]; without it the certificate must be for `HOST` and lead
/// to a root that the machine trusts ([`Server::trusting`]). `unix://PATH` is a Unix domain socket
/// ([`UnixPath`](mesh_core::model::UnixPath)), spoken to with TLS only where [`Server::tls`] is
/// given.
#[derive(Clone, PartialEq)]
pub struct Server {
    pub(super) uri: String,
    pub(super) tls: Option<Arc<ClientTls>>,
    pub(super) secrets: Vec<(SecretRef, Arc<Secret>)>,
    pub(super) authority: Option<Name>,
    pub(super) metadata: Vec<(HeaderName, HeaderValue)>,
    pub(super) token: Option<PathBuf>,
    pub(super) ignore_resource_deletion: bool,
}

// === impl Server ===

impl Server {
    /// A control plane at `http://HOST:PORT`, `https://HOST:PORT` or `unix://PATH`.
    pub fn at(uri: impl Into<String>) -> Self {
        Self {
            uri: uri.into(),
            tls: None,
            secrets: Vec::new(),
            authority: None,
            metadata: Vec::new(),
            token: None,
            ignore_resource_deletion: false,
        }
    }

    /// What TLS asks of the server and shows to it (`https` and `unix` only). Secrets that it names have to be
    /// in files ([`SecretName`](mesh_core::model::SecretName)), which are followed while the client
    /// runs, or given by [`Server::secret`]. Without a choice of protocols, `h2` is offered.
    #[must_use]
    pub fn tls(mut self, tls: impl Into<Arc<ClientTls>>) -> Self {
        self.tls = Some(tls.into());
        self
    }

    /// TLS as most want it: the certificate must be for `sni`, or else for the address's host, and
    /// lead to these roots, by the name of a secret that says where they lie: `file-root:FILE` or
    /// `file-root:system`. `certificate` is shown if the server asks for one:
    /// `file-cert:CERTIFICATE~KEY`.
    #[must_use]
    pub fn trusting(self, roots: &str, sni: Option<&str>, certificate: Option<&str>) -> Self {
        self.tls(trust(roots, sni, certificate))
    }

    /// A secret that [`Server::tls`] names and that is in no file.
    #[must_use]
    pub fn secret(mut self, named: SecretRef, secret: impl Into<Arc<Secret>>) -> Self {
        self.secrets.push((named, secret.into()));
        self
    }

    /// What requests call the server (`:authority`) in place of the address's host and port (Envoy
    /// `envoy_grpc.authority`).
    #[must_use]
    pub fn authority(mut self, authority: impl Into<Name>) -> Self {
        self.authority = Some(authority.into());
        self
    }

    /// Metadata that every stream begins with (Envoy `GrpcService.initial_metadata`). Values are
    /// never shown.
    #[must_use]
    pub fn metadata(mut self, name: HeaderName, mut value: HeaderValue) -> Self {
        value.set_sensitive(true);
        self.metadata.push((name, value));
        self
    }

    /// A file with a token that every stream begins with: `authorization: Bearer TOKEN`, as Istio's
    /// agent sends it. Read anew for each stream, never shown, and only sent over TLS.
    #[must_use]
    pub fn token_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.token = Some(path.into());
        self
    }

    /// Keep listeners and clusters that this server removes (gRFC A53's server feature), whatever
    /// [`Builder::ignore_resource_deletion`](super::Builder::ignore_resource_deletion) says.
    #[must_use]
    pub fn ignore_resource_deletion(mut self, ignore: bool) -> Self {
        self.ignore_resource_deletion = ignore;
        self
    }

    /// Where it is.
    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// TLS with it: what it was given, or else what most want; none in plain text.
    pub(super) fn effective_tls(&self) -> Option<Arc<ClientTls>> {
        if !self.is_secure() {
            return None;
        }
        let tls = self.tls.clone();
        let mut tls = tls.unwrap_or_else(|| Arc::new(trust("file-root:system", None, None)));
        if tls.alpn.is_empty() {
            // Servers of gRPC that are new enough refuse connections without it.
            Arc::make_mut(&mut tls).alpn = vec!["h2".into()];
        }
        Some(tls)
    }

    /// Whether it is spoken to with TLS.
    pub(super) fn is_secure(&self) -> bool {
        self.uri.starts_with("https://") || (self.uri.starts_with("unix://") && self.tls.is_some())
    }
}

impl From<&str> for Server {
    fn from(uri: &str) -> Self {
        Self::at(uri)
    }
}

impl From<String> for Server {
    fn from(uri: String) -> Self {
        Self::at(uri)
    }
}

impl fmt::Debug for Server {
    /// Without metadata, which may be credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let metadata = self.metadata.iter().map(|(name, _)| name.as_str());
        f.debug_struct("Server")
            .field("uri", &self.uri)
            .field("tls", &self.tls)
            .field("metadata", &metadata.collect::<Vec<_>>())
            .field("token", &self.token)
            .finish_non_exhaustive()
    }
}

/// See [`Server::trusting`].
fn trust(roots: &str, sni: Option<&str>, certificate: Option<&str>) -> ClientTls {
    let mut validation = Validation::default();
    validation.roots = Some(SecretRef::local(roots));
    let mut tls = ClientTls::default();
    tls.validation = Some(validation);
    tls.sni = sni.unwrap_or_default().into();
    tls.auto_sni = true;
    tls.auto_san = true;
    tls.certificates = certificate.map(SecretRef::local).into_iter().collect();
    tls
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_is_told_beforehand_is_never_shown() {
        let token = HeaderValue::from_static("hush-hush");
        let server = Server::at("https://h:1").metadata(http::header::COOKIE, token);
        let shown = format!("{server:?}");
        assert!(
            shown.contains("cookie") && !shown.contains("hush"),
            "{shown}"
        );
    }
}
