//! xDS: the protocol that control planes and data planes speak.
//!
//! ```text
//!  mesh_core::model ──► write ──► Encoded ──► server ═══ gRPC ═══ client ──► read ──► assemble
//!                                 name, version, bytes                               one Snapshot
//! ```
//!
//! * [`TypeUrl`] and [`Encoded`]: the types of resources, and a resource as it travels.
//! * [`read`] and [`write`](mod@write): protobuf to the model and back.
//! * [`assemble`]: from resources in any order to one consistent snapshot after the other.
//! * [`Node`]: who a client says that it is.
//! * `server` (feature `server`): sets of resources, and the services that hand them out.
//!
//! Envoy's own messages are [`pb`]; they appear in this crate only and in nothing stable.
//!
//! ```
//! use mesh_xds::TypeUrl;
//!
//! assert_eq!(TypeUrl::from_url(TypeUrl::Cluster.url()), Some(TypeUrl::Cluster));
//! assert!(TypeUrl::Cluster < TypeUrl::Listener, "clusters are sent before listeners");
//! ```

#![forbid(unsafe_code)]

pub mod assemble;
#[cfg(feature = "json")]
pub mod bootstrap;
#[cfg(any(feature = "client", feature = "server"))]
mod certificates;
#[cfg(feature = "client")]
pub mod client;
#[cfg(feature = "json")]
pub mod json;
mod metadata;
mod names;
mod node;
pub mod read;
mod resource;
pub mod schema;
#[cfg(feature = "server")]
pub mod server;
mod wire;
pub mod write;
pub mod xdstp;

/// Envoy's protobuf messages. Not covered by this crate's promise of stability.
pub use envoy_types::pb;
pub use node::Node;
pub use resource::{Encoded, TypeUrl};

// Its examples are compiled and run as documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
