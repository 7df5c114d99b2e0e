//! Sources of endpoints.
//!
//! With the feature `server`, `dns::server` answers applications' questions with the names of the
//! mesh.
//!
//! [`dns`] follows the clusters of a snapshot whose endpoints are names, and keeps the addresses
//! behind them up to date. Without it names are looked up for each new connection, by the
//! operating system.
//!
//! ```
//! # #[cfg(feature = "system")]
//! # async fn run(snapshots: mesh_core::Feed<mesh_core::model::Snapshot>) {
//! use mesh_discovery::dns::{Resolver, System};
//!
//! // Runs until the snapshots end. It starts nothing of its own.
//! Resolver::new(snapshots, System::new()).run().await;
//! # }
//! ```

#![forbid(unsafe_code)]

pub mod dns;
