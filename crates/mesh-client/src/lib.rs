//! The mesh inside your process: routing, balancing, retries, timeouts, limits and ejection
//! around pooled HTTP/1.1 and HTTP/2 connections, configured by a mesh snapshot.
//!
//! [`MeshClient`] is an ordinary `tower::Service<http::Request<_>>`: give it a
//! [`Feed`](mesh_core::Feed) of snapshots (hand-built, from Istio YAML, later from xDS) and send it
//! requests. The same stack, without the client around it, is what mesh-proxy serves.
//!
//! Connections are driven by tasks on the tokio runtime that requests are made on; dropping the
//! client ends them. Futures are `Send`; for the best locality use one client per worker thread.

#![forbid(unsafe_code)]

mod body;
mod client;
pub mod proxy_protocol;
mod slot;
mod stack;
pub mod tcp;
mod upstream;

pub use body::Body;
pub use client::{Builder, MeshClient, ResponseFuture};
pub use slot::{Boxed, BoxedFuture, Slot, SlotBody, SlotFuture, Slotted};
pub use stack::{Outbound, Parts, Spawn};
pub use upstream::{Endpoint, Upstreams};

/// The protocol that a request asks to switch to (`connection: upgrade` and `upgrade`), if it does.
pub fn upgrade_of(headers: &http::HeaderMap) -> Option<&http::HeaderValue> {
    upstream::upgrade_of(headers)
}
