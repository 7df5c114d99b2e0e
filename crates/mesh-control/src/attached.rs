//! A node without a stream: what it would get, read in this process.

use crate::Control;
use crate::engine::Desk;
use mesh_core::Feed;
use mesh_xds::Node;
use mesh_xds::server::{Assign, Refused, View};
use std::fmt;

/// A node that is known to a control plane as if it were connected, until this is dropped.
pub struct Attached {
    desk: Desk,
    node: Node,
    view: Feed<View>,
}

// === impl Control ===

impl Control {
    /// Lets a node in without a stream: what it gets is compiled and kept up to date.
    ///
    /// # Errors
    /// As for a stream: there is no configuration yet, or the node cannot be served.
    pub fn attach(&self, node: &Node) -> Result<Attached, Refused> {
        let desk = Desk(self.engine().clone());
        let view = desk.assign(node)?;
        Ok(Attached {
            desk,
            node: node.clone(),
            view,
        })
    }
}

// === impl Attached ===

impl Attached {
    /// What the node gets. Another view is published when the node becomes something else; what
    /// is in a view changes with its sets.
    pub fn view(&self) -> &Feed<View> {
        &self.view
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        self.desk.released(&self.node);
    }
}

impl fmt::Debug for Attached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attached")
            .field("node", &self.node.id())
            .finish_non_exhaustive()
    }
}
