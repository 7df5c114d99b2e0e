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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Desk;
    use mesh_istio::Files;
    use mesh_xds::server::Assign;
    use std::sync::Barrier;
    use std::thread;

    #[test]
    fn who_asks_second_finds_what_the_first_is_given() {
        let control = Control::builder().build();
        let text =
            "{apiVersion: v1, kind: Service, metadata: {name: s}, spec: {ports: [{port: 80}]}}";
        control.update(&Files::from_text("a.yaml", text));
        let node = Node::new("sidecar~10.1.1.1~server.default~default.svc.cluster.local")
            .with_text("GENERATOR", "grpc")
            .with_text("MESH_INBOUND", "50051=50051");
        let engine = control.engine();
        let _view = Desk(engine.clone()).assign(&node).unwrap();
        let name = Name::from("xds.istio.io/grpc/lds/inbound/10.9.9.9:50051");
        let class = engine.class_of(&node).unwrap();
        let there = || class.set.get(TypeUrl::Listener, &name).is_some();
        assert!(!there());
        // A push is going on when both come.
        let pool = engine.pool();
        let begun = Barrier::new(3);
        let ask = || {
            begun.wait();
            engine.serve_listeners(&node, std::slice::from_ref(&name));
            there()
        };
        thread::scope(|scope| {
            let both = [scope.spawn(ask), scope.spawn(ask)];
            begun.wait();
            // Time for one to be back too early.
            (0..1000).for_each(|_| thread::yield_now());
            drop(pool);
            for one in both {
                assert!(one.join().unwrap());
            }
        });
    }
}
