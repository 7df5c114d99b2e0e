//! xDS: the protocol that control planes and data planes speak.
//!
//! This crate holds its skeleton only: the [resource types](TypeUrl), and what a resource looks
//! like once it is encoded ([`Encoded`]). Reading and writing protobuf, the client and the server
//! build on these.
//!
//! ```
//! use mesh_xds::TypeUrl;
//!
//! assert_eq!(TypeUrl::from_url(TypeUrl::Cluster.url()), Some(TypeUrl::Cluster));
//! assert!(TypeUrl::Cluster < TypeUrl::Listener, "clusters are sent before listeners");
//! ```

#![forbid(unsafe_code)]

mod resource;

pub use resource::{Encoded, TypeUrl};
