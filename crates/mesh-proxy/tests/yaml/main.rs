//! Istio YAML, all the way: text, world, snapshot, a running proxy, real requests.
//!
//! One test per field (or a row of a table), named by what the field does. The table of all fields
//! and their tests is `docs/compatibility.md`.

#[path = "../support/mod.rs"]
mod support;

mod actions;
mod connection_pool;
mod cors;
mod destination_rule;
mod explain;
mod faults;
mod gateway;
mod headers;
mod keys;
mod matches;
mod mesh_config;
mod mirrors;
mod objects;
mod outlier;
mod peer;
mod retries;
mod service_entry;
mod sidecar;
mod town;
mod zones;
