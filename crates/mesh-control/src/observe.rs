//! What happens on streams, counted, and rejections with their origin.

use crate::engine::Engine;
use crate::metrics::{label, of_kind};
use crate::node::short_name;
use crate::origin;
use crate::report::Nack;
use mesh_core::Name;
use mesh_xds::TypeUrl;
use mesh_xds::server::{Client, Event, Observer};
use std::sync::Arc;

/// Watches streams.
#[derive(Debug)]
pub(crate) struct Watch(pub(crate) Arc<Engine>);

/// How many resources of one rejection are looked up.
const LOOKED_UP: usize = 16;

// === impl Watch ===

impl Observer for Watch {
    fn event(&self, client: &Client, event: &Event) {
        let metrics = &self.0.metrics;
        match event {
            Event::Connected => self.connected(client, 1),
            Event::Disconnected { refused } => {
                self.connected(client, -1);
                self.0.servers().gone(client.stream);
                self.0.reports().gone(client.stream);
                if let Some(refused) = refused {
                    tracing::warn!(node = client.node.id(), %refused, "a stream is closed");
                }
            }
            Event::Subscribed {
                kind: TypeUrl::Listener,
                named: 1..,
                fresh,
                ..
            } if client.node.text("GENERATOR") == Some("grpc") => {
                self.0.servers().asks(client);
                // A delta client is answered at once, and would be told that there is none.
                self.0.serve_listeners(&client.node, fresh);
                self.0.wake.notify_one();
            }
            Event::Pushed { kind, bytes, .. } => {
                let label = of_kind(*kind);
                metrics.count("pilot_xds_pushes", "Responses sent.", &label, 1);
                let help = "Sizes of responses in bytes.";
                metrics.size("pilot_xds_config_size_bytes", help, &label, *bytes);
            }
            Event::Acked {
                kind,
                took,
                converged,
                ..
            } => {
                self.0.reports().ack(client.stream, *kind);
                let help = "Time from sending a response to its acknowledgement.";
                metrics.took("pilot_xds_send_time", help, "", *took);
                if let Some(converged) = converged {
                    let help = "Time from a change to its acknowledgement by a proxy.";
                    metrics.took("pilot_proxy_convergence_time", help, "", *converged);
                }
            }
            Event::Nacked {
                kind,
                message,
                resources,
                ..
            } => self.nacked(client, *kind, message, resources),
            Event::RemovedUnacknowledged {
                kind,
                names,
                waited,
            } => {
                let node = short_name(&client.node);
                let message = format!(
                    "{} removed after {} s although the proxy has not acknowledged routes without \
                     them: {}",
                    kind.short(),
                    waited.as_secs(),
                    names.join(", "),
                );
                tracing::warn!(proxy = node, "{message}");
                self.0.reports().warn(&node, message);
            }
            _ => {}
        }
    }
}

impl Watch {
    fn connected(&self, client: &Client, by: i32) {
        let version = client.node.text("ISTIO_VERSION").unwrap_or("unknown");
        let label = label("version", version);
        let help = "Connected streams.";
        self.0.metrics.shift("pilot_xds", help, &label, by);
    }

    fn nacked(&self, client: &Client, kind: TypeUrl, message: &Name, resources: &[Name]) {
        let help = "Rejected responses.";
        let metrics = &self.0.metrics;
        metrics.count("pilot_total_xds_rejects", help, &of_kind(kind), 1);
        let mut origins = Vec::new();
        if let Some(class) = self.0.class_of(&client.node) {
            let snapshot = &class.compiled().snapshot;
            for name in resources.iter().take(LOOKED_UP) {
                let found = origin::of(snapshot, kind, name, message);
                origins.extend(found.filter(|one| !origins.contains(one)));
            }
        }
        let node = short_name(&client.node);
        let kind_name = kind.short();
        match origins.as_slice() {
            [] => tracing::error!(proxy = node, kind = kind_name, "rejected: {message}"),
            all => {
                let places = all.join(", ");
                tracing::error!(proxy = node, kind = kind_name, "{places}: {message}");
            }
        }
        let nack = Nack {
            message: message.clone(),
            resources: resources.to_vec(),
            origins,
        };
        self.0.reports().nack(client.stream, kind, nack);
    }
}
