//! The server's side of xDS.
//!
//! ```text
//!  ResourceSet ─┐
//!  ResourceSet ─┼─► View (what one client may see) ─► stream
//!  ResourceSet ─┘
//! ```
//!
//! A [`ResourceSet`] holds encoded resources and a log of what changed. Clients that see the same
//! thing share the same set, so a change costs one entry however many read it; each stream looks
//! only at what changed since it last looked.

mod assign;
mod codec;
mod csds;
mod event;
mod handle;
mod limits;
mod loads;
mod machine;
mod mark;
mod registry;
mod resources;
mod response;
mod routes;
mod serve;
mod status;
mod stream;

pub use assign::{Assign, Refused};
pub use event::{Event, Observer};
pub use handle::{Server, ServerBuilder};
pub use limits::{Limits, Timing};
pub use loads::{ClusterLoad, LoadReport, LocalityLoad};
pub use machine::{Machine, Options};
pub use resources::{Changes, Position, ResourceSet, Since, View};
pub use response::{Item, Response};
pub use routes::{Body, ResponseFuture, Routes};
pub use status::{
    Client, ConnectionStatus, Nacked, ResourceState, ResourceStatus, Scope, Sent, StreamId, Sync,
    TypeStatus, Variant,
};
