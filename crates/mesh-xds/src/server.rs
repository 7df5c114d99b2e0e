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

mod resources;

pub use resources::{Changes, Position, ResourceSet, Since, View};
