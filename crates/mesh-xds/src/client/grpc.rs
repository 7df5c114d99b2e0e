//! gRPC's own bootstrap file, as another source of servers and authorities.

mod parse;

use super::{Builder, Client, Server};
use crate::Node;
use crate::xdstp::{self, ResourceName};
use mesh_core::{Invalid, Name};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// What a gRPC bootstrap file says (gRFCs A27, A36, A47, A65, A71), as Istio's agent writes it for
/// proxyless services.
///
/// ```
/// use mesh_xds::client::GrpcBootstrap;
///
/// let bootstrap = GrpcBootstrap::from_json(r#"{
///     "xds_servers": [{"server_uri": "istiod.istio-system.svc:15010",
///                      "channel_creds": [{"type": "insecure"}]}],
///     "node": {"id": "sidecar~10.0.0.1~a.default~default.svc.cluster.local"},
///     "authorities": {"a.com": {"xds_servers": [
///         {"server_uri": "xds.a.com:443", "channel_creds": [{"type": "tls"}]}]}}
/// }"#)?;
/// let listener = bootstrap.listener("xds://a.com/reviews:80")?;
/// assert_eq!(listener, "xdstp://a.com/envoy.config.listener.v3.Listener/reviews:80");
/// # #[cfg(feature = "tls")]
/// let client = bootstrap.client().build()?;
/// # Ok::<(), mesh_core::Invalid>(())
/// ```
///
/// What is not known here is refused by name, where gRPC reads over it. Of `channel_creds` and
/// `call_creds` the first that is known is used: `insecure`, `tls`, and `jwt_token_file`. Files are
/// looked at once a second whatever `refresh_interval` says.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct GrpcBootstrap {
    /// `node`.
    pub node: Node,
    /// `xds_servers`, the best first.
    pub servers: Vec<Server>,
    /// `authorities`.
    pub authorities: BTreeMap<Name, GrpcAuthority>,
    /// `certificate_providers` of the kind `file_watcher`.
    pub certificate_providers: BTreeMap<Name, FileWatcher>,
    /// `client_default_listener_resource_name_template`.
    pub client_template: Option<String>,
    /// `server_listener_resource_name_template`.
    pub server_template: Option<String>,
}

/// One of the `authorities` of a [`GrpcBootstrap`].
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct GrpcAuthority {
    /// `xds_servers`; none are those that the bootstrap has anyway.
    pub servers: Vec<Server>,
    /// `client_listener_resource_name_template`.
    pub client_template: Option<String>,
}

/// Files with a certificate and roots. Resources that name a provider are refused by name; whoever
/// opens connections may use it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FileWatcher {
    /// `certificate_file` and `private_key_file`.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// `ca_certificate_file`.
    pub roots: Option<PathBuf>,
}

// === impl GrpcBootstrap ===

impl GrpcBootstrap {
    /// Reads JSON.
    ///
    /// # Errors
    /// With the path of the field, if the text is not such a bootstrap or asks for what is not
    /// supported.
    pub fn from_json(text: &str) -> Result<Self, Invalid> {
        parse::bootstrap(text)
    }

    /// A client of its servers and authorities. What it asks for has to be said yet.
    pub fn client(&self) -> Builder {
        let client = Client::builder(self.servers.iter().cloned()).node(self.node.clone());
        let authorities = self.authorities.iter();
        authorities.fold(client, |client, (name, authority)| {
            client.authority(name.clone(), authority.servers.iter().cloned())
        })
    }

    /// The listener of a target: `xds:NAME`, `xds:///NAME` or `xds://AUTHORITY/NAME` (gRFC A47).
    ///
    /// # Errors
    /// If it is no such target, or the authority is not known.
    pub fn listener(&self, target: &str) -> Result<Name, Invalid> {
        let wrong = |why: &str| Invalid::new("", format!("{target:?}: {why}"));
        let rest = target
            .strip_prefix("xds:")
            .ok_or_else(|| wrong("expected xds:///NAME"))?;
        let (authority, name) = match rest.strip_prefix("//") {
            Some(rest) => rest
                .split_once('/')
                .ok_or_else(|| wrong("expected xds://AUTHORITY/NAME"))?,
            None => ("", rest.strip_prefix('/').unwrap_or(rest)),
        };
        if authority.is_empty() {
            let template = self.client_template.as_deref().unwrap_or("%s");
            return self.filled(template, name);
        }
        let Some(known) = self.authorities.get(authority) else {
            return Err(wrong("its authority is not in the bootstrap"));
        };
        let template = known.client_template.clone();
        let usual = || format!("xdstp://{authority}/envoy.config.listener.v3.Listener/%s");
        self.filled(&template.unwrap_or_else(usual), name)
    }

    /// The listener of a server at an address (gRFC A36).
    ///
    /// # Errors
    /// If there is no template for servers, or its authority is not known.
    pub fn server_listener(&self, address: std::net::SocketAddr) -> Result<Name, Invalid> {
        let field = "server_listener_resource_name_template";
        let template = self
            .server_template
            .as_deref()
            .ok_or_else(|| Invalid::new(field, "required for servers, but missing"))?;
        self.filled(template, &address.to_string())
            .map_err(|error| error.within(field))
    }

    /// A template with what belongs into it.
    fn filled(&self, template: &str, with: &str) -> Result<Name, Invalid> {
        if !xdstp::is_structured(template) {
            return Ok(template.replace("%s", with).into());
        }
        let name = template.replace("%s", &xdstp::escape_path(with));
        let parsed = ResourceName::of_kind(&name, crate::TypeUrl::Listener)?;
        if !self.authorities.contains_key(parsed.authority()) {
            let message = format!("{name:?}: its authority is not in the bootstrap");
            return Err(Invalid::new("", message));
        }
        Ok(parsed.to_string().into())
    }
}

#[cfg(test)]
mod tests;
