//! Clusters whose endpoints are names (Envoy's `STRICT_DNS` and `LOGICAL_DNS`).
//!
//! * Each name has a timer of its own: [`Dns`](mesh_core::model::Dns) says how often it is looked
//!   up, whether the answer's time to live counts instead, and how long to wait after a failure.
//! * An answer replaces the addresses of its name. No answer changes nothing: requests go where
//!   they went. That a name has no addresses *is* an answer.
//! * With strict DNS each address is an endpoint; an address under several names counts once. With
//!   logical DNS the first address of the answer is the endpoint.
//! * Until a cluster's names have answers, requests go to the names themselves, which are then
//!   looked up for each connection.

mod driver;
#[cfg(feature = "system")]
#[doc(hidden)]
pub mod fuzz;
mod lookup;
mod plan;
#[cfg(feature = "server")]
pub mod server;
#[cfg(feature = "system")]
mod system;

pub use driver::Resolver;
pub use lookup::{Answer, Lookup, LookupError};
#[cfg(feature = "system")]
pub use system::System;
