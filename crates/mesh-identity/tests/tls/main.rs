//! Handshakes of an [`Acceptor`](mesh_identity::Acceptor) with a
//! [`Connector`](mesh_identity::Connector) over pipes in memory.

mod choice;
mod files;
mod modes;
mod refusals;
mod rotation;
mod world;
