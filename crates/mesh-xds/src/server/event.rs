//! What happens on streams, for metrics and logs.

use super::{Client, Refused};
use crate::TypeUrl;
use mesh_core::Name;
use std::time::Duration;

/// Is told what happens. Called from the tasks of the streams: it must be quick and not block.
///
/// A closure is one.
pub trait Observer: Send + Sync + 'static {
    /// Something happened on a client's stream.
    fn event(&self, client: &Client, event: &Event);
}

/// Something that happened on a stream.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// A stream was opened and has been given a view.
    Connected,
    /// A stream ended.
    Disconnected {
        /// Why, if it was the server that ended it.
        refused: Option<Refused>,
    },
    /// The subscriptions of a type changed.
    Subscribed {
        /// Of which type.
        kind: TypeUrl,
        /// Whether everything is subscribed to.
        wildcard: bool,
        /// How many names are subscribed to.
        named: usize,
        /// The names that were not subscribed to before. They are not answered yet: what the
        /// observer puts into the client's sets is part of the answer.
        fresh: Vec<Name>,
    },
    /// A response was handed to the connection.
    Pushed {
        /// Of which type.
        kind: TypeUrl,
        /// Its nonce.
        nonce: Name,
        /// How many resources it holds.
        resources: usize,
        /// How many resources it removes by name.
        removed: usize,
        /// How long the message is.
        bytes: usize,
        /// How long the oldest change in it was waiting, if it holds a change and is not just the
        /// answer to a request.
        waited: Option<Duration>,
    },
    /// A response was acknowledged.
    Acked {
        /// Of which type.
        kind: TypeUrl,
        /// The nonce of the response.
        nonce: Name,
        /// The time since the response was sent.
        took: Duration,
        /// The time since the oldest change in the response was seen (Istio's
        /// `pilot_proxy_convergence_time`), if it held a change.
        converged: Option<Duration>,
    },
    /// A response was rejected.
    Nacked {
        /// Of which type.
        kind: TypeUrl,
        /// The nonce of the response.
        nonce: Name,
        /// What the client says, cut after 4 KiB.
        message: Name,
        /// The resources of the response that the message names; all of them if it names none.
        resources: Vec<Name>,
    },
    /// Clusters or endpoints were removed although the client had not acknowledged the listeners
    /// and routes without them in time.
    RemovedUnacknowledged {
        /// Of which type.
        kind: TypeUrl,
        /// What was removed.
        names: Vec<Name>,
        /// How long it was held back.
        waited: Duration,
    },
    /// Something was requested that this server knows nothing of. A delta client is told that it
    /// does not exist, any other hears nothing.
    UnknownType {
        /// The URL of the type, cut after 256 bytes.
        url: Name,
    },
}

// === impl Observer ===

impl<F> Observer for F
where
    F: Fn(&Client, &Event) + Send + Sync + 'static,
{
    fn event(&self, client: &Client, event: &Event) {
        self(client, event);
    }
}
