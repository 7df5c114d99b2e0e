//! Envoy's own configuration: the bootstrap, and the files that it may refer to.
//!
//! What is read: `node`, the address of `admin`, `static_resources` (listeners, clusters and secrets),
//! `overload_manager`, `hds_config`, and `dynamic_resources` from an aggregated stream (`ads`) or from files (`path_config_source`).
//! What has no effect here is accepted by name only ([`ignored`]); everything else is refused by
//! name. Extensions are those of [`crate::read`].
//!
//! ```
//! use mesh_xds::bootstrap::Bootstrap;
//!
//! let bootstrap = Bootstrap::from_yaml(
//!     "
//! node: {id: edge-1, cluster: edge}
//! admin: {address: {socket_address: {address: 127.0.0.1, port_value: 9901}}}
//! ",
//! )?;
//! assert_eq!(bootstrap.node.id(), "edge-1");
//! assert_eq!(bootstrap.admin.unwrap().to_string(), "127.0.0.1:9901");
//!
//! let error = Bootstrap::from_yaml("flags_path: /etc/flags").unwrap_err();
//! assert_eq!(error.to_string(), "flags_path: not supported");
//! # Ok::<(), mesh_xds::bootstrap::BootstrapError>(())
//! ```

mod dynamic;
mod file;
mod grpc;
pub mod ignored;
mod message;
mod overload;

pub use file::{FileContents, Format};
pub use grpc::{in_order, server_uri};

use crate::json::{Codec, JsonError};
use crate::read::{ClusterResource, ListenerResource, Resource, SecretResource};
use crate::{Node, schema};
use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use mesh_core::model::{ClientTls, ListenerAddress, Overload, Secret, SecretRef};
use mesh_core::{Invalid, Name};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use zeroize::Zeroizing;

/// The name of the message.
const MESSAGE: &str = "envoy.config.bootstrap.v3.Bootstrap";

/// What a proxy starts with.
#[derive(Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct Bootstrap {
    /// Who the proxy is.
    pub node: Node,
    /// Where the admin interface is wanted (`admin.address`); none is wanted without.
    pub admin: Option<ListenerAddress>,
    /// The file mode of the admin interface's Unix domain socket; 0 leaves it to the process.
    pub admin_mode: u32,
    /// `static_resources.clusters`.
    pub clusters: Vec<ClusterResource>,
    /// `static_resources.listeners`.
    pub listeners: Vec<ListenerResource>,
    /// `static_resources.secrets`.
    pub secrets: Vec<SecretResource>,
    /// `dynamic_resources.ads_config`.
    pub ads: Option<Ads>,
    /// The service that says which endpoints are to be checked, and is told how they are
    /// (`hds_config`).
    pub hds: Option<Ads>,
    /// Where listeners come from besides (`dynamic_resources.lds_config`).
    pub lds: Option<Subscription>,
    /// Where clusters come from besides (`dynamic_resources.cds_config`).
    pub cds: Option<Subscription>,
    /// The cluster whose endpoints are nodes like this one
    /// (`cluster_manager.local_cluster_name`).
    pub local_cluster: Option<Name>,
    /// The file that ejections are logged to
    /// (`cluster_manager.outlier_detection.event_log_path`).
    pub ejection_log: Option<Name>,
    /// What is done when something runs out (`overload_manager`).
    pub overload: Option<Overload>,
    /// The message itself, as protobuf bytes, for those who show it: without what nobody may see.
    pub encoded: Bytes,
}

/// The aggregated stream, or another service that is reached like it.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Ads {
    /// Whether only changes are sent (`api_type: DELTA_GRPC`), or the state of the world (`GRPC`).
    pub delta: bool,
    /// The endpoints of the static cluster that `grpc_services` names, as `http://HOST:PORT`, or as
    /// `https://HOST:PORT` if the cluster has TLS; in the order in which they are called
    /// ([`in_order`]).
    pub servers: Vec<String>,
    /// TLS with them (the cluster's `transport_socket`).
    pub tls: Option<Arc<ClientTls>>,
    /// The secrets that TLS needs and that are in no file.
    pub secrets: Vec<(SecretRef, Arc<Secret>)>,
    /// What streams call the server (`envoy_grpc.authority`), if not by its address.
    pub authority: Option<Name>,
    /// What every stream begins with (`GrpcService.initial_metadata`).
    pub metadata: Vec<(HeaderName, HeaderValue)>,
    /// How long a connection may take to be there (the cluster's `connect_timeout`; default 5 s).
    pub connect_timeout: Duration,
}

/// Where all resources of a type come from.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Subscription {
    /// The place.
    pub from: From,
    /// How long to wait for the first of them (Envoy's default: 15 s). None waits for ever
    /// (Envoy's 0).
    pub initial_fetch_timeout: Option<Duration>,
}

/// A place where resources come from.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum From {
    /// The aggregated stream.
    Ads,
    /// A file that is watched.
    Path(WatchedPath),
}

/// A file that is watched (`path_config_source`).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WatchedPath {
    /// The file.
    pub path: PathBuf,
    /// The directory that is watched in its place, for files behind a symbolic link that is
    /// replaced.
    pub watched_directory: Option<PathBuf>,
}

/// Why a text is not a bootstrap that can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BootstrapError {
    /// The text is not what it should be. Has a line and a column where they are known.
    Text(JsonError),
    /// The message cannot be used.
    Invalid(Invalid),
}

// === impl Bootstrap ===

impl Bootstrap {
    /// Reads YAML.
    ///
    /// # Errors
    /// If the text is not a bootstrap, or says something that is not supported.
    pub fn from_yaml(text: &str) -> Result<Self, BootstrapError> {
        Self::from_texts([(Format::Yaml, text)])
    }

    /// Reads JSON.
    ///
    /// # Errors
    /// As [`Bootstrap::from_yaml`].
    pub fn from_json(text: &str) -> Result<Self, BootstrapError> {
        Self::from_texts([(Format::Json, text)])
    }

    /// Reads several texts as one, merged as protobuf merges messages: what a later one sets wins,
    /// lists are appended (Envoy's `--config-path` with `--config-yaml`).
    ///
    /// # Errors
    /// As [`Bootstrap::from_yaml`].
    pub fn from_texts<'a>(
        texts: impl IntoIterator<Item = (Format, &'a str)>,
    ) -> Result<Self, BootstrapError> {
        let codec = Codec::new();
        let mut parts = Vec::new();
        for (format, text) in texts {
            parts.push(Zeroizing::new(match format {
                Format::Yaml => codec.from_yaml(MESSAGE, text)?,
                Format::Json => codec.from_json(MESSAGE, text)?,
            }));
        }
        // Messages in a row are one message, merged.
        let parts: Vec<&[u8]> = parts.iter().map(|part| part.as_slice()).collect();
        Ok(Self::from_bytes(&Zeroizing::new(parts.concat()))?)
    }

    /// Reads protobuf bytes.
    ///
    /// # Errors
    /// With the field, if the bytes are not a bootstrap, or say something that is not supported.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Invalid> {
        schema::check(MESSAGE, bytes)?;
        message::bootstrap(bytes)
    }

    /// The static resources: secrets, clusters, then listeners.
    pub fn resources(&self) -> Vec<Resource> {
        let secrets = self.secrets.iter().cloned().map(Resource::Secret);
        let clusters = self.clusters.iter().cloned().map(Box::new);
        let listeners = self.listeners.iter().cloned().map(Box::new);
        let clusters = clusters.map(Resource::Cluster);
        let rest = clusters.chain(listeners.map(Resource::Listener));
        secrets.chain(rest).collect()
    }
}

impl fmt::Debug for Bootstrap {
    /// Without the message, which says it all again.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bootstrap")
            .field("node", &self.node)
            .field("admin", &self.admin)
            .field("clusters", &self.clusters)
            .field("listeners", &self.listeners)
            .field("secrets", &self.secrets)
            .field("ads", &self.ads)
            .field("lds", &self.lds)
            .field("cds", &self.cds)
            .finish_non_exhaustive()
    }
}

// === impl Ads ===

impl fmt::Debug for Ads {
    /// Without the values of metadata, which may be credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let metadata = self.metadata.iter().map(|(name, _)| name.as_str());
        f.debug_struct("Ads")
            .field("delta", &self.delta)
            .field("servers", &self.servers)
            .field("tls", &self.tls)
            .field("authority", &self.authority)
            .field("metadata", &metadata.collect::<Vec<_>>())
            .field("connect_timeout", &self.connect_timeout)
            .finish_non_exhaustive()
    }
}

// === impl BootstrapError ===

impl BootstrapError {
    /// Line and column, from one, where they are known.
    pub fn place(&self) -> Option<(u32, u32)> {
        match self {
            Self::Text(error) => error.place(),
            Self::Invalid(_) => None,
        }
    }

    /// The path of the field; empty if the text could not be read at all.
    pub fn path(&self) -> &str {
        match self {
            Self::Text(error) => error.path(),
            Self::Invalid(error) => error.path(),
        }
    }
}

impl std::convert::From<JsonError> for BootstrapError {
    fn from(error: JsonError) -> Self {
        Self::Text(error)
    }
}

impl std::convert::From<Invalid> for BootstrapError {
    fn from(error: Invalid) -> Self {
        Self::Invalid(error)
    }
}

impl fmt::Display for BootstrapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(error) => error.fmt(f),
            Self::Invalid(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for BootstrapError {}
