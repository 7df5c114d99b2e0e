//! A control plane for the mesh: Istio YAML in, xDS out.
//!
//! ```text
//!  files ──► World ──► one class of nodes each: compile ──► encode what changed ──► ResourceSets
//!                      endpoints: one table for all  ──────────────────────────────►    │
//!                                                                      streams ◄────────┘
//! ```
//!
//! * [`Control`] is all of it, to be embedded; the binary `mesh-control` is a thin shell around it.
//! * [`describe_node`] says what a client of xDS is: sidecar, gateway or proxyless gRPC, and which
//!   metadata describe it.
//! * [`node_resources`] is what one node would get, without any server.
//! * [`ca`] makes certificates for proxies, as Istio's CA does.
//! * [`Source`] reads and watches files.
//!
//! Limits: what the compiler ([`mesh_istio`]) refuses by name; one copy, no leader election; clients
//! are authenticated by their certificates only where TLS is asked for (`--tls-client-ca`), and
//! whatever their certificate says they may have every configuration: so the default addresses are
//! loopback.

#![forbid(unsafe_code)]

mod attached;
mod book;
pub mod ca;
mod change;
mod class;
pub mod cli;
mod control;
mod debounce;
mod endpoints;
mod engine;
mod findings;
pub mod grpc;
mod hosts;
mod http_routes;
mod inputs;
mod metrics;
mod node;
mod observe;
mod origin;
mod parts;
mod report;
mod resources;
mod servers;
mod source;

pub use attached::Attached;
pub use control::{Builder, Control, Outcome};
pub use debounce::Quiet;
pub use http_routes::{Body, HttpRoutes, ResponseFuture};
pub use node::{BadNode, Described, Generator, describe_node, node_of};
pub use resources::{described_resources, node_resources};
pub use source::Source;

// Its examples are compiled and run as documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
