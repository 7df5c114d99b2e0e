//! The client of a control plane: the protocol machine, and the client over sockets.
//!
//! One test for each line of the list of demands on a client (`checklist`), details of both
//! variants, and a machine against a small model of a server under random interleavings.

#[path = "client/authority.rs"]
mod authority;
#[path = "client/bounds.rs"]
mod bounds;
#[path = "client/checklist.rs"]
mod checklist;
#[path = "client/delta.rs"]
mod delta;
#[path = "client/demand.rs"]
mod demand;
#[path = "client/kept.rs"]
mod kept;
#[path = "client/model.rs"]
mod model;
#[path = "client/on_demand.rs"]
mod on_demand;
#[path = "client/server.rs"]
mod server;
#[path = "client/sotw.rs"]
mod sotw;
#[path = "client/support.rs"]
mod support;
