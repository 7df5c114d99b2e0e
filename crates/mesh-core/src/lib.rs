//! The vocabulary of the mesh: what every other crate of the toolkit talks about.
//!
//! ```text
//!  model ──► Feed ──► Exchange ──► Failure
//!  what is   newest   what one     what we
//!  in force  for all  request      answer
//!            readers  knows        ourselves
//! ```
//!
//! * [`model`] is configuration as plain data: listeners, routes, clusters, endpoints, policies. A
//!   [`model::Snapshot`] of it is immutable; [`model::SnapshotBuilder`] makes the next one.
//! * [`Feed`] hands the latest snapshot to any number of readers.
//! * [`Exchange`] is the one thing that a request carries: the matched rule and what was learned.
//! * [`Failure`] lists everything that we can answer ourselves, with flag, status and details;
//!   [`Error`] carries one to the layer that makes the response.
//! * [`Demand`] asks for parts of the configuration that are missing.
//! * [`mod@stats`] are counters whose names are settled when configuration is compiled; [`Usage`] is
//!   what limits are compared with.
//!
//! There is no wire format of configuration here, no HTTP implementation and no runtime; [`base64`]
//! and [`protobuf`] are what values of some headers are written in.

#![forbid(unsafe_code)]

pub mod base64;
pub mod body;
pub mod claim;
pub mod clock;
pub mod demand;
pub mod discovery;
pub mod error;
pub mod exchange;
pub mod failure;
pub mod feed;
mod in_force;
pub mod invalid;
pub mod model;
pub mod name;
pub mod origin;
pub mod protobuf;
pub mod reply;
pub mod rng;
pub mod seldom;
pub mod slot;
pub mod stats;
pub mod upgrade;
pub mod usage;

pub use claim::{Claim, Claims};
pub use clock::WallClock;
pub use demand::Demand;
pub use error::{BoxError, Error};
pub use exchange::{Caller, Exchange, HostId, Matched, Onward, Pinned, Resets};
pub use failure::{Failure, Flags, RetryClass};
pub use feed::{Feed, Publisher};
pub use in_force::InForce;
pub use invalid::Invalid;
pub use name::Name;
pub use origin::{Origin, Origins, Place};
pub use rng::Rng;
pub use slot::Slot;
pub use stats::Shard;
pub use usage::Usage;
