//! One endpoint as a service: connections, their pool, and sending a request on one of them.
//!
//! A pool belongs to one worker and one endpoint, so checking a connection out is a pop from a
//! list that nobody else wants. Limits are the cluster's and are shared by all workers
//! ([`mesh_core::Usage`]); a pool without a connection always gets one, above the limit if need
//! be, so that a request on one worker never waits for a slot that another worker holds (Envoy
//! does the same).
//!
//! Connections to one endpoint may differ in what they said before HTTP began: the name asked for
//! in TLS, the caller named in the PROXY protocol. Each such kind has a pool of its own
//! ([`variant`]).

pub(crate) mod connect;
pub(crate) mod counted;
mod endpoint;
mod establish;
mod fault;
mod head;
mod lane;
mod lease;
mod outgoing;
mod pool;
mod received;
pub(crate) mod seat;
pub(crate) mod secure;
mod sending;
#[cfg(test)]
pub(crate) mod tests;
pub(crate) mod transport;
pub(crate) mod variant;

pub(crate) use endpoint::http1;
pub use endpoint::{Endpoint, Upstreams};
pub(crate) use fault::find;
pub(crate) use lease::{Pooled, Units};
pub(crate) use received::Received;
