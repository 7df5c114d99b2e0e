//! The proxy as others drive it: by a control plane, by files in Envoy's format, and by Envoy's
//! command line.

mod admin;
mod control_plane;
mod files;
mod flags;
mod interception;
mod on_demand;
mod plane;
mod secrets;
mod secure;
mod shown;
#[path = "../support/mod.rs"]
mod support;
