//! Bounds on what clients may ask for.

use std::time::Duration;

/// Bounds on what clients may ask for. Start from [`Limits::default`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// The longest request, in bytes. Default 4 MiB, as gRPC has it.
    pub request_bytes: usize,
    /// The longest response, in bytes; a longer one ends the stream. Default none. Clients refuse
    /// more than 4 MiB unless told otherwise; only the delta protocol can be cut into pieces,
    /// see [`Limits::piece_bytes`].
    pub response_bytes: usize,
    /// How many resources a delta response holds at most; more are sent in further responses.
    /// Default 10,000.
    pub response_resources: usize,
    /// The length in bytes up to which a delta response is filled; more is sent in further
    /// responses. A longer resource goes alone. Default 256 KiB. See also
    /// [`Limits::response_bytes`].
    pub piece_bytes: usize,
    /// Streams of all clients. Default 20,000.
    pub streams: usize,
    /// Streams with the same node id. Default 64: a node without ADS has one per type, or one per
    /// resource.
    pub streams_per_node: usize,
    /// Concurrent streams of one connection (HTTP/2). Default 128.
    pub streams_per_connection: u32,
    /// Names that one stream may subscribe to, over all types. Default 100,000.
    pub subscriptions: usize,
    /// The longest name, in bytes. Default 4,096.
    pub name_bytes: usize,
    /// Clusters in one load report that are kept. Default 1,000.
    pub load_clusters: usize,
    /// Load reports that are kept for each stream of reports, the newest. Default 4.
    pub load_reports: usize,
}

/// How a stream orders and delays what it sends. Start from [`Timing::default`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Timing {
    /// How long the removal of a cluster or of endpoints waits for the client to acknowledge the
    /// listeners and routes that no longer refer to it. Default 10 minutes.
    pub removal: Duration,
    /// How long listeners and routes wait for the client to answer the clusters that came before
    /// them; where these come in several responses, the last of them, and 12 times as long at
    /// most. Default 5 seconds.
    pub order: Duration,
}

// === impl Limits ===

impl Default for Limits {
    fn default() -> Self {
        Self {
            request_bytes: 4 << 20,
            response_bytes: usize::MAX,
            response_resources: 10_000,
            piece_bytes: 256 << 10,
            streams: 20_000,
            streams_per_node: 64,
            streams_per_connection: 128,
            subscriptions: 100_000,
            name_bytes: 4_096,
            load_clusters: 1_000,
            load_reports: 4,
        }
    }
}

// === impl Timing ===

impl Default for Timing {
    fn default() -> Self {
        Self {
            removal: Duration::from_secs(600),
            order: Duration::from_secs(5),
        }
    }
}
