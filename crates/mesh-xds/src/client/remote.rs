//! Connections to control planes, and what their streams begin with.

mod dial;

use super::server::Server;
use crate::read::opening::check_name;
use bytes::Bytes;
use dial::{Dial, Place};
use http::{HeaderMap, HeaderValue, header};
use mesh_core::model::{StreamOpening, UnixPath};
use mesh_core::{Invalid, Name};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, Endpoint};
use zeroize::Zeroizing;

#[cfg(feature = "tls")]
use mesh_core::model::{Cluster, SecretName, SecretRef, SecretSource, Snapshot, SnapshotBuilder};
#[cfg(feature = "tls")]
use std::sync::Arc;

/// How long a token may be, in bytes. One that came from Kubernetes has about a thousand.
const TOKEN: u64 = 64 * 1024;

/// A control plane that can be connected to.
#[derive(Clone, Debug)]
pub(super) struct Remote {
    pub(super) uri: Name,
    pub(super) ignore_resource_deletion: bool,
    endpoint: Endpoint,
    dial: Dial,
    metadata: HeaderMap,
    token: Option<PathBuf>,
}

/// Delays of connections.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// For establishing one, TLS included.
    pub(super) connect: Duration,
    /// An HTTP/2 PING after this long without traffic, and how long its answer may take.
    pub(super) keep_alive: Option<(Duration, Duration)>,
}

/// Follows the files of the certificates and roots that connections need.
#[derive(Debug, Default)]
pub(super) struct Keys {
    #[cfg(feature = "tls")]
    files: Option<mesh_identity::Files>,
}

/// Control planes, and the files that have to be followed to reach them.
pub(super) fn remotes(
    servers: Vec<Server>,
    patience: Patience,
) -> Result<(Vec<Remote>, Keys), Invalid> {
    #[cfg(feature = "tls")]
    let (snapshot, keys) = keys(&servers)?;
    #[cfg(not(feature = "tls"))]
    let keys = Keys::default();
    let remote = |(index, server): (usize, Server)| {
        let within = |error: Invalid| error.within(format!("servers[{index}]"));
        Remote::new(
            server,
            patience,
            #[cfg(feature = "tls")]
            &snapshot,
        )
        .map_err(within)
    };
    let remotes: Result<Vec<_>, _> = servers.into_iter().enumerate().map(remote).collect();
    Ok((remotes?, keys))
}

/// All secrets that are named, in one snapshot that lasts: what follows files takes one.
#[cfg(feature = "tls")]
fn keys(servers: &[Server]) -> Result<(Arc<Snapshot>, Keys), Invalid> {
    let mut builder = SnapshotBuilder::new();
    let mut in_files = false;
    for (index, server) in servers.iter().enumerate() {
        let field = || format!("servers[{index}].tls");
        let Some(tls) = server.effective_tls() else {
            continue;
        };
        for named in tls.secrets() {
            let given = server.secrets.iter().any(|(given, _)| given == named);
            check_secret(named, given).map_err(|error| error.within(field()))?;
            in_files |= !given;
        }
        for (named, secret) in &server.secrets {
            let others = servers.iter().flat_map(|other| &other.secrets);
            let mut same = others.filter(|(name, _)| name == named);
            if same.any(|(_, other)| other != secret) {
                let message = format!("{:?} is the name of two secrets", named.name);
                return Err(Invalid::new(field(), message));
            }
            builder.secret(named.clone(), secret.clone());
        }
        let mut cluster = Cluster::new(format!("control plane {index}"));
        cluster.tls = Some(tls);
        builder.cluster(cluster);
    }
    let (snapshot, _) = builder.build()?;
    let feed = || mesh_core::Publisher::from_arc(snapshot.clone()).feed();
    let files = in_files.then(|| mesh_identity::Files::new(feed()));
    Ok((snapshot, Keys { files }))
}

#[cfg(feature = "tls")]
fn check_secret(named: &SecretRef, given: bool) -> Result<(), Invalid> {
    if given {
        return Ok(());
    }
    let place = SecretName::of(&named.name);
    if named.source == SecretSource::Local && !matches!(place, SecretName::Other(_)) {
        return Ok(());
    }
    let message = format!(
        "the secret {:?} would come from a discovery service; the connection to a control plane \
         cannot wait for one: give files, or the certificate itself",
        named.name
    );
    Err(Invalid::new("", message))
}

// === impl Remote ===

impl Remote {
    fn new(
        server: Server,
        patience: Patience,
        #[cfg(feature = "tls")] snapshot: &Snapshot,
    ) -> Result<Self, Invalid> {
        let (uri, place) = address(&server.uri)?;
        let secure = server.is_secure();
        #[cfg(not(feature = "tls"))]
        if secure {
            let message = format!("{place}: TLS needs mesh-xds with its feature `tls`");
            return Err(Invalid::new("", message));
        }
        if !secure {
            if server.tls.is_some() {
                let message = format!("{place}: for TLS, the address has to begin with https://");
                return Err(Invalid::new("tls", message));
            }
            if server.token.is_some() {
                let message = format!("{place}: a token is only sent over TLS; use https://");
                return Err(Invalid::new("token_file", message));
            }
        }
        let mut metadata = HeaderMap::with_capacity(server.metadata.len());
        for (name, value) in &server.metadata {
            check_name(name).map_err(|message| Invalid::new("metadata", message))?;
            metadata.append(name, value.clone());
        }
        let dial = Dial {
            place,
            patience: patience.connect,
            #[cfg(feature = "tls")]
            tls: server
                .effective_tls()
                .map(|tls| dial::Tls::new(tls, snapshot))
                .transpose()
                .map_err(|error| error.within("tls"))?,
        };
        let mut endpoint = Endpoint::from(uri).connect_timeout(patience.connect);
        if let Some((interval, timeout)) = patience.keep_alive {
            endpoint = endpoint
                .http2_keep_alive_interval(interval)
                .keep_alive_timeout(timeout)
                .keep_alive_while_idle(true);
        }
        if let Some(authority) = &server.authority {
            endpoint = called(endpoint, authority)?;
        }
        Ok(Self {
            uri: server.uri.into(),
            ignore_resource_deletion: server.ignore_resource_deletion,
            endpoint,
            dial,
            metadata,
            token: server.token,
        })
    }

    /// The same, whose streams begin with this besides.
    pub(super) fn opened_with(&self, opening: &StreamOpening) -> Result<Self, Invalid> {
        let mut this = self.clone();
        for (name, value) in opening.metadata.iter() {
            check_name(name).map_err(|message| Invalid::new("metadata", message))?;
            let mut value = value.clone();
            value.set_sensitive(true);
            this.metadata.append(name, value);
        }
        if !opening.authority.is_empty() {
            this.endpoint = called(this.endpoint, &opening.authority)?;
        }
        Ok(this)
    }

    /// A connection, or why there is none.
    pub(super) async fn connect(&self) -> Result<Channel, String> {
        let connecting = self.endpoint.connect_with_connector(self.dial.clone());
        connecting.await.map_err(|error| with_sources(&error))
    }

    /// A stream of requests with what it begins with.
    pub(super) fn request<T>(&self, stream: T) -> Result<tonic::Request<T>, String> {
        let mut metadata = self.metadata.clone();
        if let Some(path) = &self.token {
            let bearer =
                token(path).map_err(|error| format!("no token: {}: {error}", path.display()))?;
            metadata.insert(header::AUTHORIZATION, bearer);
        }
        let mut request = tonic::Request::new(stream);
        *request.metadata_mut() = MetadataMap::from_headers(metadata);
        Ok(request)
    }
}

// === impl Keys ===

impl Keys {
    /// Reads all files: before the first connection.
    pub(super) async fn refresh(&mut self) {
        #[cfg(feature = "tls")]
        if let Some(files) = &mut self.files {
            files.refresh().await;
        }
    }

    /// Follows the files for ever.
    pub(super) async fn run(self) {
        #[cfg(feature = "tls")]
        if let Some(files) = self.files {
            files.run().await;
        }
        std::future::pending().await
    }
}

/// An endpoint that requests call so.
fn called(endpoint: Endpoint, authority: &Name) -> Result<Endpoint, Invalid> {
    let scheme = endpoint.uri().scheme_str().unwrap_or("http");
    let origin = format!("{scheme}://{authority}")
        .parse()
        .map_err(|_| Invalid::new("authority", format!("{authority:?} is no host and port")))?;
    Ok(endpoint.origin(origin))
}

/// The address of a server: what requests call it, and where it is.
fn address(uri: &str) -> Result<(http::Uri, Place), Invalid> {
    let expected = || {
        let message = format!(
            "{uri:?} is no address; expected http://HOST:PORT, https://HOST:PORT or unix://PATH"
        );
        Invalid::new("", message)
    };
    if let Some(path) = UnixPath::from_url(uri) {
        // As gRPC calls servers that have no host.
        return Ok((
            http::Uri::from_static("http://localhost"),
            Place::Unix(path?),
        ));
    }
    let parsed: http::Uri = uri.parse().map_err(|_| expected())?;
    let known = matches!(parsed.scheme_str(), Some("http" | "https"));
    let bare = matches!(parsed.path(), "" | "/") && parsed.query().is_none();
    let plain = parsed
        .authority()
        .is_some_and(|it| !it.as_str().contains('@'));
    match parsed.port_u16() {
        Some(port) if port != 0 && known && bare && plain => {
            let host = parsed.host().unwrap_or_default();
            let place = Place::Tcp(host.trim_matches(['[', ']']).into(), port);
            Ok((parsed, place))
        }
        _ => Err(expected()),
    }
}

/// What a file with a token says, as a header. What goes wrong never shows what is in it.
fn token(path: &Path) -> Result<HeaderValue, String> {
    let read = || {
        let file = std::fs::File::open(path)?;
        if !file.metadata()?.is_file() {
            // A pipe would block for ever.
            let error = std::io::ErrorKind::InvalidInput;
            return Err(std::io::Error::new(error, "not a regular file"));
        }
        // Large enough for all of it: growing would leave a copy of the beginning behind.
        let mut text = Zeroizing::new(String::with_capacity(TOKEN as usize + 64));
        file.take(TOKEN + 1).read_to_string(&mut text)?;
        Ok(text)
    };
    let text = read().map_err(|error| error.to_string())?;
    let text = text.trim();
    if text.is_empty() || text.len() as u64 > TOKEN {
        return Err(format!("has to have 1 to {TOKEN} bytes"));
    }
    let bearer = Zeroizing::new([b"Bearer ", text.as_bytes()].concat());
    let mut value = HeaderValue::from_maybe_shared(Bytes::from_owner(bearer))
        .map_err(|_| "has characters that no token has".to_owned())?;
    value.set_sensitive(true);
    Ok(value)
}

/// What a server said, with what lies behind it.
pub(super) fn said(status: &tonic::Status) -> String {
    let mut text = format!("{:?}: {}", status.code(), status.message());
    let mut next = std::error::Error::source(status);
    while let Some(source) = next {
        let more = source.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        next = source.source();
    }
    text
}

pub(super) fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text.push_str(": ");
        text.push_str(&source.to_string());
        next = source.source();
    }
    text
}

#[cfg(test)]
mod tests;
