//! Istio YAML: read with positions, checked, and compiled into the mesh model.
//!
//! ```text
//!  files ──► World ──► compile(node) ──► mesh_core::model::SnapshotBuilder
//!  text      objects   one proxy's
//!            in force  view of them
//! ```
//!
//! * [`Files`] are texts with names; reading them never fails as a whole.
//! * [`World`] holds the objects in force: each checked by itself, bad ones
//!   refused alone while their last good version stays.
//! * [`Workshop`] compiles for many nodes, world after world, and makes again only what changed.
//! * [`expect`] reads what users expect of their configuration.
//! * [`Diagnostic`] says what is wrong, where, and in which field.
//!
//! Limits: no identities and policies yet, hence no mutual TLS of the mesh's own.
//! What is not supported is refused by name and never ignored; the README lists it.

#![forbid(unsafe_code)]

mod compile;
mod cursor;
pub mod diagnostic;
pub mod expect;
mod files;
mod json;
pub mod names;
mod node;
mod peers;
mod registry;
pub mod spec;
mod world;
mod yaml;

pub use compile::{
    Alike, Spread, Workshop, compile, endpoints_of, local_endpoints, minds_localities, name_table,
    wanted_keys,
};
pub use diagnostic::{Diagnostic, Severity};
pub use files::{Files, LARGEST_FILE};
pub use node::{Capture, Inbound, Node, Role, parse_locality, parse_ports};
pub use registry::{
    FileRegistry, FileRegistryHandle, allocated, is_headless, localities, locality_of, services,
};
pub use world::{ObjectKey, Resting, World};

// Its examples are compiled and run as documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
