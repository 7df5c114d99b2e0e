//! gRPC servers that ask for listeners by addresses that nobody could have known.

use crate::Control;
use crate::engine::Engine;
use crate::node::Generator;
use mesh_core::Name;
use mesh_xds::server::{Client, ResourceState, StreamId};
use mesh_xds::{Node, TypeUrl};
use std::collections::HashMap;

/// The streams of gRPC clients that asked for listeners by name.
#[derive(Debug, Default)]
pub(crate) struct Servers {
    streams: HashMap<StreamId, Node>,
    /// Somebody asked for something, or something changed.
    due: bool,
}

// === impl Servers ===

impl Servers {
    /// A client asks for listeners.
    pub(crate) fn asks(&mut self, client: &Client) {
        self.streams.insert(client.stream, client.node.clone());
        self.due = true;
    }

    /// A stream has ended.
    pub(crate) fn gone(&mut self, stream: StreamId) {
        self.streams.remove(&stream);
    }

    /// What there is was compiled anew: ports may have come. Returns whether somebody has to look.
    pub(crate) fn look_again(&mut self) -> bool {
        self.due |= !self.streams.is_empty();
        self.due
    }

    fn take(&mut self) -> Vec<(StreamId, Node)> {
        match std::mem::take(&mut self.due) {
            true => {
                let each = self.streams.iter();
                each.map(|(stream, node)| (*stream, node.clone())).collect()
            }
            false => Vec::new(),
        }
    }
}

// === impl Engine ===

impl Engine {
    /// Gives the class of a gRPC server listeners that it asks for, as far as its ports go.
    pub(crate) fn serve_listeners(&self, node: &Node, names: &[Name]) {
        let Some(class) = self.class_of(node) else {
            return;
        };
        // Nearly all addresses are known already: nobody waits for a push for those.
        let known = |name: &Name| class.set.get(TypeUrl::Listener, name).is_some();
        let mut each = names.iter();
        if class.generator != Generator::Grpc
            || !each.any(|name| !known(name) && class.serves(name))
        {
            return;
        }
        let mut pool = self.pool();
        // Somebody else may have asked for the same meanwhile, and it is there now.
        let fresh = names.iter().filter(|name| !known(name) && class.ask(name));
        if fresh.count() == 0 {
            return;
        }
        let Some(inputs) = self.inputs() else {
            return;
        };
        if let Err(error) = self.compile_one(&inputs, &class, &mut pool) {
            tracing::error!(%error, class = class.key, "what it has stays in force");
        }
    }
}

// === impl Control ===

impl Control {
    /// Answers gRPC servers that asked for the listener of an address.
    pub(crate) fn answer_servers(&self) {
        let engine = self.engine();
        let streams = engine.servers().take();
        for (stream, node) in streams {
            let names = self.xds().resources(stream, TypeUrl::Listener).into_iter();
            let missing: Vec<Name> = names
                .filter(|one| one.state == ResourceState::DoesNotExist)
                .map(|one| one.name)
                .collect();
            if !missing.is_empty() {
                engine.serve_listeners(&node, &missing);
            }
        }
    }
}
